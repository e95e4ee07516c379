//! What one drive knows of one key, and what it answers in the slot protocol: pure state, no I/O.
//!
//! Slots stand in ascending order. Below the head (the highest certified slot) nothing takes part in
//! any decision any more. Two certified records at most are kept there until the head is settled: the
//! last settled one, the last whose payload is known to be whole everywhere, and the head's
//! predecessor, so that whoever lost a race for its slot still learns who won it. Under a head that says
//! "lost" the last settled one stays, until something is written. Everything above the head is undecided
//! as far as this drive knows.
//!
//! Invariants (I4 of docs/protocol.md): the promise, the accepted ballot and the head never go back
//! (`abandon` excepted, which forgets what can no longer be decided). A promise or an acceptance counts
//! only once it is durable: the drive answers after that. A certificate may be lost in a crash; what
//! it says stays true. Epochs, closing buckets and durability are the drive's business.

use bytes::{BufMut, BytesMut};
use smallvec::SmallVec;

use crate::record::{Kind, Record, read_u32, read_u64};
use crate::request::{Certificate, Digest, Refusal, SlotDigest};
use crate::units::{Ballot, Epoch, Slot};

/// What a drive knows of one slot.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct SlotState {
    slot: Slot,
    promised: Ballot,
    accepted: Option<(Ballot, Record)>,
    certified: bool,
    settled: bool,
}

impl SlotState {
    fn empty(slot: Slot) -> Self {
        let promised = Ballot::FAST;
        Self { slot, promised, accepted: None, certified: false, settled: false }
    }

    fn holds(&self, certificate: Certificate) -> bool {
        let operation = self.accepted.as_ref().map(|(_, record)| record.operation());
        self.slot == certificate.slot && operation == Some(certificate.operation)
    }
}

/// What one drive knows of one key.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct KeyState {
    slots: SmallVec<[SlotState; 1]>,
}

/// The bytes are not a key's state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("malformed key state: {0}")]
pub struct Malformed(pub &'static str);

impl KeyState {
    /// Promises `ballot` in `slot`; answers what was accepted there.
    pub fn prepare(
        &mut self,
        slot: Slot,
        ballot: Ballot,
        base: Option<Certificate>,
    ) -> Result<Option<(Ballot, Record)>, Refusal> {
        self.take_base(slot, base)?;
        self.refuse_passed(slot)?;
        let state = self.slot_mut(slot);
        if ballot <= state.promised {
            return Err(Refusal::Promised(state.promised));
        }
        state.promised = ballot;
        Ok(state.accepted.clone())
    }

    /// Accepts `record` in `slot`. Accepting the same again changes nothing.
    pub fn accept(
        &mut self,
        slot: Slot,
        ballot: Ballot,
        base: Option<Certificate>,
        record: &Record,
    ) -> Result<(), Refusal> {
        self.take_base(slot, base)?;
        if self.knows(Certificate { slot, operation: record.operation() }) {
            return Ok(());
        }
        self.refuse_passed(slot)?;
        let state = self.slot_mut(slot);
        if ballot < state.promised {
            return Err(Refusal::Promised(state.promised));
        }
        if let Some((accepted, held)) = &state.accepted
            && *accepted == ballot
        {
            // One ballot has one record: at ballot 0 the first that came wins the drive, and a
            // classic one has one proposer, which proposes one record.
            return if held == record { Ok(()) } else { Err(Refusal::Taken) };
        }
        state.promised = ballot;
        state.accepted = Some((ballot, record.clone()));
        Ok(())
    }

    /// Takes over a decided record. Answers whether anything changed.
    pub fn learn(&mut self, slot: Slot, record: &Record) -> bool {
        let passed = self.certified().is_some_and(|head| head.slot >= slot);
        if passed {
            return false;
        }
        let state = self.slot_mut(slot);
        state.accepted = Some((state.promised, record.clone()));
        state.certified = true;
        self.trim();
        true
    }

    /// Takes note that a record was decided and, with `settled`, that every drive has everything.
    /// Answers whether anything changed: nothing does where this drive holds no such record.
    pub fn certify(&mut self, certificate: Certificate, settled: bool) -> bool {
        let Some(state) = self.slots.iter_mut().find(|state| state.holds(certificate)) else {
            return false;
        };
        let changed = !state.certified || (settled && !state.settled);
        state.certified = true;
        state.settled |= settled;
        self.trim();
        changed
    }

    /// A shard of the head's payload was lost here: it is no longer settled.
    pub fn unsettle(&mut self) -> bool {
        let settled = self.slots.iter_mut().filter(|state| state.settled);
        settled.map(|state| state.settled = false).count() > 0
    }

    /// Forgets what was accepted in `slot` below `ballot`. See `Request::Abandon`.
    pub fn abandon(&mut self, slot: Slot, ballot: Ballot) -> bool {
        let found = self.slots.iter_mut().find(|state| state.slot == slot && !state.certified);
        let Some(state) = found.filter(|state| state.promised >= ballot) else { return false };
        let below = state.accepted.as_ref().is_some_and(|(accepted, _)| *accepted < ballot);
        if below {
            state.accepted = None;
        }
        below
    }

    /// What this drive tells of the key: its highest certified slot and everything above. The epoch
    /// is the drive's to fill in.
    pub fn digest(&self, generation: u32, has_shards: impl Fn(&Record) -> bool) -> Digest {
        let slots = self
            .newest()
            .map(|state| SlotDigest {
                slot: state.slot,
                promised: state.promised,
                accepted: state.accepted.clone(),
                certified: state.certified,
                settled: state.settled,
                has_shards: state.accepted.as_ref().is_some_and(|(_, record)| has_shards(record)),
            })
            .collect();
        Digest { slots, copy: None, generation, epoch: Epoch::default() }
    }

    /// The same slots as a listing shows them: number, whether it is certified, and the record.
    pub fn listed(&self) -> impl Iterator<Item = (Slot, bool, Option<&Record>)> {
        self.newest().map(|state| {
            let record = state.accepted.as_ref().map(|(_, record)| record);
            (state.slot, state.certified, record)
        })
    }

    /// The highest certified slot and everything above.
    fn newest(&self) -> impl Iterator<Item = &SlotState> {
        let head = self.certified().map(|head| head.slot);
        self.slots.iter().filter(move |state| head.is_none_or(|head| state.slot >= head))
    }

    /// The highest slot that is known to be decided, and its record.
    pub fn head(&self) -> Option<(Slot, &Record)> {
        self.certified().map(|head| (head.slot, head.record()))
    }

    /// Whether a listing must look at the key: anything but a certified tombstone with no record above.
    pub fn may_be_live(&self) -> bool {
        let last = self.slots.iter().rev().find_map(|state| {
            state.accepted.as_ref().map(|(_, record)| (state.certified, record.kind()))
        });
        last.is_some_and(|(certified, kind)| !certified || kind.is_live())
    }

    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Whether nothing is left to do for this key: everything held is settled. A promise that nothing
    /// followed is no work.
    pub fn is_settled(&self) -> bool {
        self.slots.iter().filter(|state| state.accepted.is_some()).all(|state| state.settled)
    }

    /// Every record held; the payloads they name must be kept.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.slots.iter().filter_map(|state| state.accepted.as_ref().map(|(_, record)| record))
    }

    /// Whether [`Self::accept`] could add `record` to what is held: not in a slot that was passed, nor
    /// where it was accepted at this ballot.
    pub fn may_add(&self, slot: Slot, ballot: Ballot, record: &Record) -> bool {
        let passed = self.certified().is_some_and(|head| head.slot >= slot);
        let held = |state: &SlotState| {
            let accepted = state.accepted.as_ref();
            state.slot == slot && accepted.is_some_and(|(at, held)| *at == ballot && held == record)
        };
        !passed && !self.slots.iter().any(held)
    }

    /// Every record held, with its slot and whether it is known to be decided.
    pub fn held(&self) -> impl Iterator<Item = (Slot, bool, &Record)> {
        self.slots.iter().filter_map(|state| {
            let (_, record) = state.accepted.as_ref()?;
            Some((state.slot, state.certified, record))
        })
    }

    /// Length of what [`Self::encode`] appends.
    pub fn encoded_bytes(&self) -> usize {
        let records = self.records().map(|record| record.bytes().len()).sum::<usize>();
        self.slots.len() * SLOT_BYTES + records
    }

    fn certified(&self) -> Option<&SlotState> {
        self.slots.iter().rev().find(|state| state.certified)
    }

    fn knows(&self, certificate: Certificate) -> bool {
        self.slots.iter().any(|state| state.certified && state.holds(certificate))
    }

    /// Learns from the proof that comes with a request for `slot`: its predecessor is decided, or the
    /// key is absent and `slot` is a first one.
    fn take_base(&mut self, slot: Slot, base: Option<Certificate>) -> Result<(), Refusal> {
        let Some(base) = base else {
            return if slot == Slot::first(slot.generation) {
                Ok(())
            } else {
                Err(Refusal::BaseUnknown)
            };
        };
        let other =
            |state: &SlotState| state.slot == base.slot && state.certified && !state.holds(base);
        if base.slot.next() != slot || self.slots.iter().any(other) {
            return Err(Refusal::BaseUnknown);
        }
        self.certify(base, false);
        Ok(())
    }

    /// Refuses what is for a slot that was decided: names the record decided there, where it is still
    /// here, else the head.
    fn refuse_passed(&self, slot: Slot) -> Result<(), Refusal> {
        let Some((head, record)) = self.head().filter(|(head, _)| *head >= slot) else {
            return Ok(());
        };
        let exact = self.slots.iter().find(|state| state.slot == slot && state.certified);
        let (slot, record) = exact.map_or((head, record), |state| (state.slot, state.record()));
        Err(Refusal::Passed(slot, record.clone()))
    }

    fn slot_mut(&mut self, slot: Slot) -> &mut SlotState {
        let at = match self.slots.binary_search_by_key(&slot, |state| state.slot) {
            Ok(at) => at,
            Err(at) => {
                self.slots.insert(at, SlotState::empty(slot));
                at
            }
        };
        &mut self.slots[at]
    }

    /// Drops what the head makes irrelevant.
    fn trim(&mut self) {
        let Some(head) = self.certified() else { return };
        let (head, settled, lost) = (head.slot, head.settled, head.record().kind() == Kind::Lost);
        let superseded = |state: &SlotState| state.slot < head && state.certified;
        let last = |wanted: fn(&SlotState) -> bool| {
            let slots = self.slots.iter().rev().filter(|state| superseded(state));
            slots.filter(|state| wanted(state)).map(|state| state.slot).next()
        };
        let kept = match settled {
            true => [lost.then(|| last(|state| state.settled)).flatten(), None],
            false => [last(|_| true), last(|state| state.settled)],
        };
        self.slots.retain(|state| state.slot >= head || kept.contains(&Some(state.slot)));
    }
}

impl SlotState {
    fn record(&self) -> &Record {
        let (_, record) = self.accepted.as_ref().expect("a certified slot has its record");
        record
    }
}

/// Bytes of one slot before its record.
const SLOT_BYTES: usize = 40;

impl KeyState {
    /// For each slot: generation, sequence (u32 each), promised and accepted ballot (round u32,
    /// proposer u64 each), flags (u32: 1 accepted, 2 certified, 4 settled), record length (u32), record.
    pub fn encode(&self, out: &mut BytesMut) {
        for state in &self.slots {
            let accepted = state.accepted.as_ref();
            let ballot = accepted.map_or(Ballot::FAST, |(ballot, _)| *ballot);
            let record: &[u8] = accepted.map_or(&[], |(_, record)| record.bytes());
            let flags = u32::from(accepted.is_some())
                | u32::from(state.certified) << 1
                | u32::from(state.settled) << 2;
            out.put_u32_le(state.slot.generation);
            out.put_u32_le(state.slot.sequence);
            for ballot in [state.promised, ballot] {
                out.put_u32_le(ballot.round);
                out.put_u64_le(ballot.proposer);
            }
            out.put_u32_le(flags);
            out.put_u32_le(u32::try_from(record.len()).expect("records are short"));
            out.put_slice(record);
        }
    }

    pub fn decode(mut bytes: &[u8]) -> Result<Self, Malformed> {
        let mut slots: SmallVec<[SlotState; 1]> = SmallVec::new();
        while !bytes.is_empty() {
            let (head, rest) = bytes.split_at_checked(SLOT_BYTES).ok_or(Malformed("length"))?;
            let length = read_u32(head, 36) as usize;
            let (record, rest) = rest.split_at_checked(length).ok_or(Malformed("length"))?;
            bytes = rest;
            let ballot =
                |at| Ballot { round: read_u32(head, at), proposer: read_u64(head, at + 4) };
            let slot = Slot { generation: read_u32(head, 0), sequence: read_u32(head, 4) };
            let flags = read_u32(head, 32);
            let accepted = match (flags & 1, length) {
                (0, 0) => None,
                (1, _) => {
                    let record = bytes::Bytes::copy_from_slice(record);
                    let record = Record::decode(record).map_err(|_| Malformed("record"))?;
                    Some((ballot(20), record))
                }
                _ => return Err(Malformed("flags")),
            };
            let (certified, settled) = (flags & 2 != 0, flags & 4 != 0);
            let sound = flags < 8 && (!certified || accepted.is_some()) && (!settled || certified);
            if !sound {
                return Err(Malformed("flags"));
            }
            if slots.last().is_some_and(|last| last.slot >= slot) {
                return Err(Malformed("slot order"));
            }
            slots.push(SlotState { slot, promised: ballot(8), accepted, certified, settled });
        }
        Ok(Self { slots })
    }
}

#[cfg(test)]
mod tests;

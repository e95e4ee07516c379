//! What a key's head is, judged from what drives tell of it: a pure function of their digests.
//!
//! The head is the highest certified slot, unless a slot above may have been decided without anybody
//! having said so yet. `docs/protocol.md`, "Reading", has the proof.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};

use basalt_engine::record::Record;
use basalt_engine::request::{Digest, SlotDigest};
use basalt_engine::units::{DriveIndex, Epoch, Slot};

use crate::exchange::Parts;
use crate::quorum::{Holders, Quorums, bit};

/// The digests of one key as they come in.
#[derive(Clone, Debug)]
pub struct Reading {
    quorums: Quorums,
    /// The drives that vote, one bit each.
    voting: u16,
    digests: BTreeMap<DriveIndex, Digest>,
    /// A slot that was found to be decided meanwhile.
    known: Option<Head>,
}

/// A decided slot and its record.
pub type Head = (Slot, Record);

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Fewer than R voting drives have answered.
    NeedMore,
    Head(Option<Head>),
    /// `slot`, which follows `base`, may have been decided. More answers may tell; a classic round
    /// will.
    Undecided {
        slot: Slot,
        base: Option<Head>,
    },
}

impl Parts for Reading {
    fn hash_part(&self, drive: Option<DriveIndex>, into: &mut impl Hasher) {
        let Self { quorums, voting, digests, known } = self;
        match drive {
            Some(drive) => (voting & bit(drive) != 0, digests.get(&drive)).hash(into),
            None => (quorums, known).hash(into),
        }
    }
}

impl Reading {
    pub fn new(quorums: Quorums, voting: u16) -> Self {
        Self { quorums, voting, digests: BTreeMap::new(), known: None }
    }

    pub fn add(&mut self, drive: DriveIndex, digest: Digest) {
        self.digests.insert(drive, digest);
    }

    /// Takes into account that `record` was decided in `slot`.
    pub fn know(&mut self, slot: Slot, record: Record) {
        if self.known.as_ref().is_none_or(|(known, _)| *known < slot) {
            self.known = Some((slot, record));
        }
    }

    pub fn digests(&self) -> &BTreeMap<DriveIndex, Digest> {
        &self.digests
    }

    /// The drives that answered, one bit each.
    pub fn answered(&self) -> u16 {
        self.digests.keys().fold(0, |mask, drive| mask | 1 << drive.0)
    }

    /// The newest map that any of the drives has, and that drive.
    pub fn newest_epoch(&self) -> Option<(DriveIndex, Epoch)> {
        let epochs = self.digests.iter().map(|(&drive, digest)| (drive, digest.epoch));
        epochs.max_by_key(|(_, epoch)| *epoch)
    }

    /// How many voting drives are missing for a verdict.
    pub fn short_by(&self) -> usize {
        let votes = (self.answered() & self.voting).count_ones() as usize;
        self.quorums.read.saturating_sub(votes)
    }

    pub fn verdict(&self) -> Verdict {
        if self.short_by() > 0 {
            return Verdict::NeedMore;
        }
        let mut head = self.highest_certified();
        loop {
            let above = head.as_ref().map(|(slot, _)| *slot);
            match self.first_pending(above) {
                None => return Verdict::Head(head),
                Some((slot, Pending::Decided(record))) => head = Some((slot, record)),
                Some((slot, Pending::PossiblyChosen)) => {
                    return Verdict::Undecided { slot, base: head };
                }
            }
        }
    }

    /// The record that may have been chosen in `slot`, as far as the drives that answered tell.
    pub fn possibly_chosen(&self, slot: Slot) -> Option<&Record> {
        self.holders(slot).possibly_chosen()
    }

    /// The generation in which an absent key's slots begin.
    pub fn generation(&self) -> u32 {
        self.digests.values().map(|digest| digest.generation).max().unwrap_or(0).max(1)
    }

    fn highest_certified(&self) -> Option<Head> {
        let certified = self.slots().filter(|(_, state)| state.certified);
        let highest = certified
            .filter_map(|(_, state)| Some((state.slot, &state.accepted.as_ref()?.1)))
            .chain(self.known.as_ref().map(|(slot, record)| (*slot, record)))
            .max_by_key(|(slot, _)| *slot);
        highest.map(|(slot, record)| (slot, record.clone()))
    }

    /// The lowest slot above `head` that is, or may have been, decided.
    fn first_pending(&self, head: Option<Slot>) -> Option<(Slot, Pending)> {
        let mut slots: Vec<Slot> = self
            .slots()
            .filter(|(_, state)| head.is_none_or(|head| state.slot > head))
            .map(|(_, state)| state.slot)
            .collect();
        slots.sort_unstable();
        slots.dedup();
        slots.into_iter().find_map(|slot| Some((slot, self.pending(slot)?)))
    }

    fn pending(&self, slot: Slot) -> Option<Pending> {
        let holders = self.holders(slot);
        if let Some(record) = holders.decided() {
            return Some(Pending::Decided(record.clone()));
        }
        holders.possibly_chosen().map(|_| Pending::PossiblyChosen)
    }

    fn holders(&self, slot: Slot) -> Holders<'_> {
        let mut holders = Holders::new(self.quorums, self.voting);
        for &drive in self.digests.keys() {
            holders.answered(drive);
        }
        for (drive, state) in self.slots().filter(|(_, state)| state.slot == slot) {
            if let Some((ballot, record)) = &state.accepted {
                holders.holds(drive, *ballot, record);
            }
        }
        holders
    }

    fn slots(&self) -> impl Iterator<Item = (DriveIndex, &SlotDigest)> {
        self.digests
            .iter()
            .flat_map(|(&drive, digest)| digest.slots.iter().map(move |state| (drive, state)))
    }
}

enum Pending {
    Decided(Record),
    PossiblyChosen,
}

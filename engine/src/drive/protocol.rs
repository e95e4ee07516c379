//! The slot protocol: the acceptor's answers, made durable before they are given.
//!
//! Buckets that are closing: no record of such a bucket is accepted any more, not even one that is being
//! recovered. So once R voting drives are closed nothing is decided in it that was not decided before,
//! and that a listing sees.

use std::cell::Cell;
use std::rc::Rc;

use bytes::BytesMut;

use super::{Drive, Pending, State};
use crate::acceptor::KeyState;
use crate::error::Result;
use crate::format::{Entry, Origin};
use crate::index::{Freed, Held, Place, Updated};
use crate::journal::{Mutation, Reservation};
use crate::record::{Kind, Layout, Record};
use crate::request::{Certificate, Digest, Refusal, Reply, SmallShard};
use crate::seam::{Runtime, Storage};
use crate::superseded;
use crate::units::{Ballot, Epoch, Key, PayloadId, Slot};

impl<R: Runtime, S: Storage> Drive<R, S> {
    pub(super) async fn digest(self: &Rc<Self>, key: Key, payload: bool) -> Result<Reply> {
        let (mut digest, wait_for) = self.state.borrow().digest(&key);
        self.durable(wait_for).await?;
        if payload {
            let last = digest.slots.last().and_then(|slot| slot.accepted.as_ref());
            digest.copy = self.copy_of(last.map(|(_, record)| record)).await;
        }
        Ok(Reply::Digest(digest))
    }

    pub(super) async fn prepare(
        self: &Rc<Self>,
        epoch: Epoch,
        key: Key,
        slot: Slot,
        ballot: Ballot,
        base: Option<Certificate>,
    ) -> Result<Reply> {
        let step = Step { key: &key, epoch, record: None, copy: None };
        let prepared = self.step(step, |_| None, |state| state.prepare(slot, ballot, base)).await?;
        match prepared.map_err(|refused| self.name_winner(refused, &key, slot)) {
            Ok(accepted) => {
                let copy = self.copy_of(accepted.as_ref().map(|(_, record)| record)).await;
                Ok(Reply::Promised { accepted, copy })
            }
            Err(refused) => Ok(refused.reply()),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one request")]
    pub(super) fn accept(
        self: &Rc<Self>,
        room: Reservation<R, S>,
        epoch: Epoch,
        key: Key,
        slot: Slot,
        ballot: Ballot,
        base: Option<Certificate>,
        record: Record,
        copy: Option<SmallShard>,
        fresh: bool,
    ) -> Pending {
        let step = Step { key: &key, epoch, record: Some(&record), copy: copy.as_ref() };
        let admit = |state: &State| state.refuse_new(&key, slot, ballot, fresh, &record);
        let accept = |state: &mut KeyState| state.accept(slot, ballot, base, &record);
        match self.step_in(room, step, admit, accept) {
            Ok(()) => {
                let state = self.state.borrow();
                let wait_for = Cell::new(state.index.mutation_of(&key));
                let has_shards = state.index.has_shards(&record, &wait_for);
                drop(state);
                let lacking = (!has_shards).then_some(record);
                Pending { wait_for: wait_for.get(), reply: Reply::Accepted { has_shards }, lacking }
            }
            Err(refusal) => {
                let (refused, wait_for) = self.refused(refusal, &key);
                let reply = self.name_winner(refused, &key, slot).reply();
                Pending { wait_for, reply, lacking: None }
            }
        }
    }

    pub(super) async fn learn(
        self: &Rc<Self>,
        epoch: Epoch,
        key: Key,
        slot: Slot,
        record: Record,
        copy: Option<SmallShard>,
    ) -> Result<Reply> {
        let step = Step { key: &key, epoch, record: Some(&record), copy: copy.as_ref() };
        let learn = |state: &mut KeyState| {
            state.learn(slot, &record);
            Ok(())
        };
        let learned = self.step(step, |_| None, learn).await?;
        self.accepted_reply(learned, &record).await
    }

    pub(super) async fn abandon(
        self: &Rc<Self>,
        epoch: Epoch,
        key: Key,
        slot: Slot,
        ballot: Ballot,
    ) -> Result<Reply> {
        let step = Step { key: &key, epoch, record: None, copy: None };
        let abandon = |state: &mut KeyState| {
            state.abandon(slot, ballot);
            Ok(())
        };
        let abandoned = self.step(step, |_| None, abandon).await?;
        Ok(abandoned.map_or_else(Refused::reply, |()| Reply::Done))
    }

    /// Takes note that a record was decided. Nobody waits until that is durable.
    pub(super) fn certify(
        self: &Rc<Self>,
        room: Reservation<R, S>,
        key: Key,
        certificate: Certificate,
        settled: bool,
        listed: &[PayloadId],
    ) {
        let mut mutation = Mutation::default();
        let number = self.journal.last() + 1;
        {
            let mut state = self.state.borrow_mut();
            let settled = settled && state.has_all(&key, certificate, listed);
            let updated = state.update(&key, |state| state.certify(certificate, settled));
            if !updated.changed {
                return;
            }
            mutation.push(&Entry::Certified { key, certificate, settled });
            push_freed(&mut mutation, &updated.freed);
            state.release(updated.freed, number);
        }
        let appended = self.append(room, mutation, false);
        assert_eq!(appended, number, "nothing came between");
    }

    fn name_winner(&self, mut refused: Refused, key: &Key, slot: Slot) -> Refused {
        let state = self.state.borrow();
        refused.refusal = state.superseded.name_winner(refused.refusal, key, slot);
        refused
    }

    async fn accepted_reply(
        self: &Rc<Self>,
        accepted: std::result::Result<(), Refused>,
        record: &Record,
    ) -> Result<Reply> {
        if let Err(refused) = accepted {
            return Ok(refused.reply());
        }
        let wait_for = Cell::new(0);
        let has_shards = self.state.borrow().index.has_shards(record, &wait_for);
        self.durable(wait_for.get()).await?;
        Ok(Reply::Accepted { has_shards })
    }

    /// One step of the protocol: refuses what the map or `admit` refuses, else applies `change` to
    /// the key and waits until what it did, and everything the answer rests on, is durable.
    async fn step<T>(
        self: &Rc<Self>,
        step: Step<'_>,
        admit: impl FnOnce(&State) -> Option<Refusal>,
        change: impl FnOnce(&mut KeyState) -> std::result::Result<T, Refusal>,
    ) -> Result<std::result::Result<T, Refused>> {
        let bound = |state: &State| state.step_bound(step.key, step.record, step.copy);
        let room = self.reserve(bound).await?;
        let key = step.key;
        let result = self.step_in(room, step, admit, change);
        let (found, wait_for) = match result {
            // What the answer tells of the key is all of it.
            Ok(done) => (Ok(done), self.state.borrow().digest(key).1),
            Err(refusal) => {
                let (refused, wait_for) = self.refused(refusal, key);
                (Err(refused), wait_for)
            }
        };
        self.durable(wait_for).await?;
        Ok(found)
    }

    /// The part of a step that happens in memory, at once.
    fn step_in<T>(
        self: &Rc<Self>,
        room: Reservation<R, S>,
        step: Step<'_>,
        admit: impl FnOnce(&State) -> Option<Refusal>,
        change: impl FnOnce(&mut KeyState) -> std::result::Result<T, Refusal>,
    ) -> std::result::Result<T, Refusal> {
        let mut state = self.state.borrow_mut();
        state.segments.collect(self.journal.durable_reached());
        let refusal = state.superblock.map.refuse(step.epoch).or_else(|| admit(&state));
        if let Some(refusal) = refusal {
            return Err(refusal);
        }
        let number = self.journal.last() + 1;
        let (result, mutation) = state.apply(&step, change, number);
        drop(state);
        self.append_if_any(room, mutation, number);
        result
    }

    /// A refusal with the key as the step left it, or as it was found, and what the answer waits for.
    fn refused(&self, refusal: Refusal, key: &Key) -> (Refused, u64) {
        let (digest, wait_for) = self.state.borrow().digest(key);
        (Refused { refusal, digest }, wait_for)
    }

    /// The copy that `record` keeps here, if it travels with the record and is here.
    async fn copy_of(self: &Rc<Self>, record: Option<&Record>) -> Option<SmallShard> {
        let payload = co_staged(record?)?;
        self.read_small(payload).await.ok()
    }
}

fn push_freed(mutation: &mut Mutation, freed: &Freed) {
    for (payload, _) in freed {
        mutation.push(&Entry::Freed { payload: *payload });
    }
}

/// Payloads that the records of a key can name.
fn names_at_most(state: &KeyState) -> usize {
    state.records().map(Record::payload_count).sum()
}

/// What a step is about, apart from what it does.
struct Step<'a> {
    key: &'a Key,
    epoch: Epoch,
    record: Option<&'a Record>,
    copy: Option<&'a SmallShard>,
}

struct Refused {
    refusal: Refusal,
    digest: Digest,
}

impl Refused {
    fn reply(self) -> Reply {
        Reply::Refused { refusal: self.refusal, digest: self.digest }
    }
}

/// The payload of `record` that travels with it.
fn co_staged(record: &Record) -> Option<PayloadId> {
    record.payloads().next().filter(Layout::is_co_staged).map(|layout| layout.payload)
}

impl State {
    /// Changes what is known of `key`, and remembers decided records that went with it.
    fn update<T>(&mut self, key: &Key, change: impl FnOnce(&mut KeyState) -> T) -> Updated<T> {
        let before = self.index.key(key).map(superseded::before).unwrap_or_default();
        let updated = self.index.update(key, change);
        if updated.changed && !before.is_empty() {
            self.superseded.note(key, before, self.index.key(key));
        }
        updated
    }

    /// Whether every shard that the record of `certificate` asks of this drive is here, and of the
    /// payloads `listed`.
    fn has_all(&self, key: &Key, certificate: Certificate, listed: &[PayloadId]) -> bool {
        let mut records = self.index.key(key).into_iter().flat_map(KeyState::records);
        let record = records.find(|record| record.operation() == certificate.operation);
        record.is_some_and(|record| self.index.has_shards(record, &Cell::new(0)))
            && listed.iter().all(|payload| self.index.held(*payload).is_some())
    }

    /// Entries and bytes that a step may add to the journal.
    pub(super) fn step_bound(
        &self,
        key: &Key,
        record: Option<&Record>,
        copy: Option<&SmallShard>,
    ) -> (usize, usize) {
        let known = self.index.key(key);
        let state = known.map_or(0, KeyState::encoded_bytes);
        let frees = known.map_or(0, names_at_most);
        let record = record.map_or(0, |record| record.bytes().len());
        let name = key.as_bytes().len();
        let copy = copy.map_or(0, |copy| copy.bytes.len() + name);
        (3 + frees, name + state + record + copy)
    }

    /// Payloads that a change of `key` can free.
    pub(super) fn frees_at_most(&self, key: &Key) -> usize {
        self.index.key(key).map_or(0, names_at_most)
    }

    /// Applies a step, and says what the journal has to hold of it.
    fn apply<T>(
        &mut self,
        step: &Step<'_>,
        change: impl FnOnce(&mut KeyState) -> std::result::Result<T, Refusal>,
        number: u64,
    ) -> (std::result::Result<T, Refusal>, Mutation) {
        let mut mutation = Mutation::default();
        let updated = self.update(step.key, change);
        if updated.result.is_ok() {
            self.take_copy(step, &mut mutation, number);
        }
        if updated.changed {
            self.index.set_mutation(step.key, number);
            mutation.push(&self.key_entry(step.key));
            push_freed(&mut mutation, &updated.freed);
            self.release(updated.freed, number);
        }
        (updated.result, mutation)
    }

    /// Takes over the copy that came with a record, if the record wants one here.
    fn take_copy(&mut self, step: &Step<'_>, mutation: &mut Mutation, number: u64) {
        let (Some(copy), Some(record)) = (step.copy, step.record) else { return };
        let Some(payload) = co_staged(record) else { return };
        let missing = self.index.held(payload).is_none() && self.index.is_named(payload);
        if missing && copy.bytes.len() as u64 == record.payload(0).shard_bytes() {
            let place = Place::Journal { checksum: copy.checksum, bytes: copy.bytes.clone() };
            let origin = Origin {
                key: step.key.clone(),
                operation: record.operation(),
                life: self.superblock.life,
            };
            mutation.push(&place.entry(payload, origin.clone()));
            self.index.hold(payload, Held { origin, place, mutation: number });
        }
    }

    /// The entry that says what the drive knows of `key`.
    pub(super) fn key_entry(&self, key: &Key) -> Entry {
        let state = self.index.key(key).expect("the key is in the index");
        let mut encoded = BytesMut::with_capacity(state.encoded_bytes());
        state.encode(&mut encoded);
        Entry::KeySet { key: key.clone(), state: encoded.freeze() }
    }

    /// Refuses a record that would add to a closing bucket or a full drive.
    fn refuse_new(
        &self,
        key: &Key,
        slot: Slot,
        ballot: Ballot,
        fresh: bool,
        record: &Record,
    ) -> Option<Refusal> {
        if !matches!(record.kind(), Kind::Data | Kind::Marker) {
            return None;
        }
        let state = self.index.key(key);
        if self.index.is_closed(key.bucket()) {
            let adds = state.is_none_or(|state| state.may_add(slot, ballot, record));
            return adds.then_some(Refusal::BucketClosing);
        }
        let held = state.is_some_and(|state| state.records().any(|held| held == record));
        if held || !fresh {
            return None;
        }
        // A delete marker takes no more room than any deletion. What was staged was let in then.
        if record.kind() == Kind::Marker {
            return None;
        }
        let brings_nothing =
            || record.payload_count() > 0 && self.index.has_shards(record, &Cell::new(0));
        let room = self.segments.free() >= self.put_reserve() || brings_nothing();
        (!room).then_some(Refusal::Full)
    }
}

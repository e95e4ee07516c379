//! What a drive knows, in memory: an ordered map of keys, and a table of payloads.
//!
//! Plain synchronous state; `drive` makes its changes durable and holds replies back until they
//! are. Keys and payloads change only through [`Index::update`] and the methods below, which keep
//! what is derived from them:
//! - `unsettled`: the keys whose records are not settled;
//! - the number of records that name a payload, over all keys. A record names those payloads of
//!   which this drive holds a shard. One whose kind is `Relocated` names none: its payloads belong
//!   to the records of another key;
//! - `orphans`: payloads that are here and named by no record, and apart from them `relocated`:
//!   those whose key says that they belong to another key, whose record names them elsewhere or
//!   lists them in a manifest, and those that a manifest of their own key lists;
//! - what changed since the last checkpoint.
//!
//! When the last record that names a payload goes, the payload is freed if that record was decided
//! and is superseded by one that is settled. Otherwise (its operation lost the slot, or may still
//! be decided in another; or the payload was relocated) it becomes an orphan, and the layer above
//! frees it once it has proved that nothing needs it.

pub mod list;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::acceptor::KeyState;
use crate::format::{Entry, Origin, Stored};
use crate::record::{Kind, PayloadForm, Record};
use crate::request::Digest;
use crate::units::{Incarnation, Key, Keyspace, PayloadId, SetIndex, Slot};

/// Where a payload stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    /// In the journal, with a copy in memory until a checkpoint packs it.
    Journal {
        checksum: u64,
        bytes: Bytes,
    },
    Stored(Stored),
}

impl Place {
    /// The entry that makes a payload stand here.
    pub fn entry(&self, payload: PayloadId, origin: Origin) -> Entry {
        match self {
            Self::Journal { checksum, bytes } => {
                Entry::Small { payload, origin, checksum: *checksum, bytes: bytes.clone() }
            }
            Self::Stored(stored) => Entry::Placed { payload, origin, stored: stored.clone() },
        }
    }
}

/// A payload that is here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Held {
    pub origin: Origin,
    pub place: Place,
    /// The mutation that put it there.
    pub mutation: u64,
}

/// A payload that is here, or that a record wants here, or both.
#[derive(Default, Debug)]
pub struct Payload {
    /// The keys whose records name it, one for each record.
    pub names: SmallVec<[Key; 1]>,
    pub held: Option<Held>,
}

struct KeyEntry {
    state: KeyState,
    /// The last mutation of the state that a reply has to wait for.
    mutation: u64,
}

/// What went out of the table with a change, and has to be freed.
pub type Freed = SmallVec<[(PayloadId, Held); 2]>;

/// What a change of a key did.
pub struct Updated<T> {
    pub result: T,
    pub changed: bool,
    pub freed: Freed,
}

/// A record of a key as the names see it.
struct Named {
    slot: Slot,
    certified: bool,
    payloads: SmallVec<[PayloadId; 2]>,
}

pub struct Index {
    set: SetIndex,
    position: u8,
    keys: BTreeMap<Key, KeyEntry>,
    payloads: BTreeMap<PayloadId, Payload>,
    unsettled: BTreeSet<Key>,
    orphans: BTreeSet<PayloadId>,
    relocated: BTreeSet<PayloadId>,
    closed: BTreeSet<Incarnation>,
    /// Payloads whose only place is the journal, and their bytes.
    in_journal: BTreeSet<PayloadId>,
    in_journal_bytes: u64,
    changed: Changed,
    /// Bytes that a run of everything would take, about.
    run_bytes: u64,
}

/// What changed since a checkpoint began.
#[derive(Default)]
pub struct Changed {
    pub keys: BTreeSet<Key>,
    pub payloads: BTreeSet<PayloadId>,
    pub buckets: BTreeSet<Incarnation>,
}

impl Changed {
    pub fn absorb(&mut self, mut other: Self) {
        self.keys.append(&mut other.keys);
        self.payloads.append(&mut other.payloads);
        self.buckets.append(&mut other.buckets);
    }
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.payloads.is_empty() && self.buckets.is_empty()
    }
}

/// Where the slots of an absent key begin. Purging tombstones will raise it.
pub const GENERATION: u32 = 0;

/// Bytes of a payload's entry in a run, about.
const PAYLOAD_ENTRY_BYTES: u64 = 128;

impl Index {
    /// The empty index of the drive at `position` of set `set`.
    pub fn new(set: SetIndex, position: u8) -> Self {
        Self {
            set,
            position,
            keys: BTreeMap::new(),
            payloads: BTreeMap::new(),
            unsettled: BTreeSet::new(),
            orphans: BTreeSet::new(),
            relocated: BTreeSet::new(),
            closed: BTreeSet::new(),
            in_journal: BTreeSet::new(),
            in_journal_bytes: 0,
            changed: Changed::default(),
            run_bytes: 0,
        }
    }

    pub fn key(&self, key: &Key) -> Option<&KeyState> {
        self.keys.get(key).map(|entry| &entry.state)
    }

    /// The mutation that a reply about `key` waits for.
    pub fn mutation_of(&self, key: &Key) -> u64 {
        self.keys.get(key).map_or(0, |entry| entry.mutation)
    }

    /// A reply about `key` waits for `mutation` from now on.
    pub fn set_mutation(&mut self, key: &Key, mutation: u64) {
        if let Some(entry) = self.keys.get_mut(key) {
            entry.mutation = entry.mutation.max(mutation);
        }
    }

    /// Changes the state of `key` and everything that follows from it.
    pub fn update<T>(&mut self, key: &Key, change: impl FnOnce(&mut KeyState) -> T) -> Updated<T> {
        let old = self.keys.get(key).map(|entry| &entry.state);
        let mut state = old.cloned().unwrap_or_default();
        let result = change(&mut state);
        if *old.unwrap_or(&KeyState::default()) == state {
            return Updated { result, changed: false, freed: Freed::new() };
        }
        let before = old.map(|old| names(old, self.set, self.position)).unwrap_or_default();
        self.run_bytes -= old.map_or(0, |old| run_bytes(key, old));
        self.run_bytes += run_bytes(key, &state);
        for payload in names(&state, self.set, self.position).iter().flat_map(|at| &at.payloads) {
            self.payloads.entry(*payload).or_default().names.push(key.clone());
            self.orphans.remove(payload);
            self.relocated.remove(payload);
        }
        let superseding = superseding(old, &state);
        self.note_settled(key, state.is_settled());
        self.changed.keys.insert(key.clone());
        match self.keys.get_mut(key) {
            Some(entry) => entry.state = state,
            None => {
                self.keys.insert(key.clone(), KeyEntry { state, mutation: 0 });
            }
        }
        let mut freed = Freed::new();
        for named in before {
            // A completion may have chosen a part that is overwritten after that: whether anything
            // needs its payload is for the layer above to say.
            let is_part = key.space() == Keyspace::Parts;
            let superseded = superseding.is_some_and(|slot| named.slot < slot);
            let decided = named.certified && superseded && !is_part;
            for payload in named.payloads {
                freed.extend(self.unname(payload, key, decided).map(|held| (payload, held)));
            }
        }
        Updated { result, changed: true, freed }
    }

    fn note_settled(&mut self, key: &Key, settled: bool) {
        if settled {
            self.unsettled.remove(key);
        } else if !self.unsettled.contains(key) {
            self.unsettled.insert(key.clone());
        }
    }

    /// One record of `key` less names `payload`. Gives it out where that frees it.
    fn unname(&mut self, payload: PayloadId, key: &Key, decided: bool) -> Option<Held> {
        let entry = self.payloads.get_mut(&payload).expect("a named payload is in the table");
        let name = entry.names.iter().position(|name| name == key).expect("it was named");
        entry.names.swap_remove(name);
        if !entry.names.is_empty() {
            return None;
        }
        if entry.held.is_none() {
            self.payloads.remove(&payload);
            return None;
        }
        if decided {
            return self.remove_held(payload);
        }
        self.note_orphan(payload);
        None
    }

    /// An unnamed payload is an orphan, unless its key says that it was relocated: then it belongs
    /// to a record that this drive may not know yet, or to a manifest.
    pub fn note_orphan(&mut self, payload: PayloadId) {
        if self.is_relocated(payload) {
            self.orphans.remove(&payload);
            self.relocated.insert(payload);
        } else {
            self.orphans.insert(payload);
        }
    }

    /// Whether the key under which `payload` was staged says that it belongs to another key, or that
    /// the operation that brought it has a manifest: then repair rebuilt it from that.
    pub fn is_relocated(&self, payload: PayloadId) -> bool {
        let Some(held) = self.held(payload) else { return false };
        let says_so = |record: &Record| {
            record.kind() == Kind::Relocated
                || record.form() == PayloadForm::Manifest
                    && record.operation() == held.origin.operation
        };
        self.key(&held.origin.key).is_some_and(|state| state.records().any(says_so))
    }

    pub fn payload(&self, payload: PayloadId) -> Option<&Payload> {
        self.payloads.get(&payload)
    }
    pub fn held(&self, payload: PayloadId) -> Option<&Held> {
        self.payloads.get(&payload)?.held.as_ref()
    }
    pub fn is_named(&self, payload: PayloadId) -> bool {
        self.payloads.get(&payload).is_some_and(|entry| !entry.names.is_empty())
    }

    /// `payload` is here now. What was here under its name before comes back.
    pub fn hold(&mut self, payload: PayloadId, held: Held) -> Option<Held> {
        let before = self.remove_held(payload);
        if let Place::Journal { bytes, .. } = &held.place {
            self.in_journal.insert(payload);
            self.in_journal_bytes += bytes.len() as u64;
        }
        self.run_bytes += PAYLOAD_ENTRY_BYTES;
        let entry = self.payloads.entry(payload).or_default();
        entry.held = Some(held);
        if entry.names.is_empty() {
            self.note_orphan(payload);
        }
        self.changed.payloads.insert(payload);
        before
    }

    /// The payload that mutation `mutation` put into the journal now stands at `stored`. Says
    /// whether it was still there.
    pub fn repack(&mut self, payload: PayloadId, mutation: u64, stored: Stored) -> bool {
        let Some(held) = self.payloads.get_mut(&payload).and_then(|entry| entry.held.as_mut())
        else {
            return false;
        };
        let Place::Journal { bytes, .. } = &held.place else { return false };
        if held.mutation != mutation {
            return false;
        }
        self.in_journal_bytes -= bytes.len() as u64;
        self.in_journal.remove(&payload);
        held.place = Place::Stored(stored);
        true
    }

    /// The payload that mutation `mutation` put where it is now stands at `stored`. Returns where it
    /// stood; `None` where it is another by now.
    pub fn move_to(&mut self, payload: PayloadId, mutation: u64, stored: Stored) -> Option<Stored> {
        let held = self.payloads.get_mut(&payload)?.held.as_mut()?;
        let Place::Stored(from) = &mut held.place else { return None };
        if held.mutation != mutation {
            return None;
        }
        self.changed.payloads.insert(payload);
        Some(std::mem::replace(from, stored))
    }

    /// `payload` is not here any more.
    pub fn remove_held(&mut self, payload: PayloadId) -> Option<Held> {
        let entry = self.payloads.get_mut(&payload)?;
        let held = entry.held.take()?;
        if entry.names.is_empty() {
            self.payloads.remove(&payload);
        }
        if let Place::Journal { bytes, .. } = &held.place {
            self.in_journal.remove(&payload);
            self.in_journal_bytes -= bytes.len() as u64;
        }
        self.run_bytes -= PAYLOAD_ENTRY_BYTES;
        self.orphans.remove(&payload);
        self.relocated.remove(&payload);
        self.changed.payloads.insert(payload);
        Some(held)
    }

    pub fn is_closed(&self, bucket: Incarnation) -> bool {
        self.closed.contains(&bucket)
    }
    /// Says whether that changed anything.
    pub fn set_closed(&mut self, bucket: Incarnation, closed: bool) -> bool {
        self.changed.buckets.insert(bucket);
        if closed { self.closed.insert(bucket) } else { self.closed.remove(&bucket) }
    }

    /// What this drive says of `key`, and the mutation that has to be durable before it does.
    pub fn digest(&self, key: &Key) -> (Digest, u64) {
        let Some(entry) = self.keys.get(key) else {
            return (Digest { generation: GENERATION, ..Digest::default() }, 0);
        };
        self.digest_of(entry)
    }

    fn digest_of(&self, entry: &KeyEntry) -> (Digest, u64) {
        let wait_for = Cell::new(entry.mutation);
        let has_shards = |record: &Record| self.has_shards(record, &wait_for);
        let digest = entry.state.digest(GENERATION, has_shards);
        (digest, wait_for.get())
    }

    /// Whether every shard that `record` asks of this drive is here; raises `wait_for` to the
    /// mutations that put them here.
    pub fn has_shards(&self, record: &Record, wait_for: &Cell<u64>) -> bool {
        payloads_here(record, self.set, self.position).iter().all(|payload| {
            let held = self.held(*payload);
            wait_for.set(wait_for.get().max(held.map_or(0, |held| held.mutation)));
            held.is_some()
        })
    }

    pub fn unsettled_after(&self, after: Option<&Key>) -> impl Iterator<Item = &Key> {
        self.unsettled.range((beyond(after.cloned()), Bound::Unbounded))
    }
    pub fn keys_after(&self, after: Option<&Key>) -> impl Iterator<Item = (&Key, &KeyState)> {
        self.keys
            .range((beyond(after.cloned()), Bound::Unbounded))
            .map(|(key, entry)| (key, &entry.state))
    }
    pub fn orphans_after(&self, after: Option<PayloadId>) -> impl Iterator<Item = PayloadId> {
        self.orphans.range((beyond(after), Bound::Unbounded)).copied()
    }
    pub fn relocated_after(&self, after: Option<PayloadId>) -> impl Iterator<Item = PayloadId> {
        self.relocated.range((beyond(after), Bound::Unbounded)).copied()
    }
    pub fn payloads_after(
        &self,
        after: Option<PayloadId>,
    ) -> impl Iterator<Item = (PayloadId, &Payload)> {
        self.payloads
            .range((beyond(after), Bound::Unbounded))
            .map(|(payload, entry)| (*payload, entry))
    }
    pub fn closed_buckets(&self) -> impl Iterator<Item = Incarnation> {
        self.closed.iter().copied()
    }

    pub fn key_count(&self) -> usize {
        self.keys.len()
    }
    pub fn unsettled_count(&self) -> usize {
        self.unsettled.len()
    }
    /// Bytes that a run of everything would take, about.
    pub fn run_bytes(&self) -> u64 {
        self.run_bytes
    }
    /// Payloads whose only place is the journal.
    pub fn in_journal(&self) -> &BTreeSet<PayloadId> {
        &self.in_journal
    }
    pub fn in_journal_bytes(&self) -> u64 {
        self.in_journal_bytes
    }

    /// Takes what changed since the last call.
    pub fn take_changed(&mut self) -> Changed {
        std::mem::take(&mut self.changed)
    }
    /// Puts back what a failed checkpoint had taken.
    pub fn put_back_changed(&mut self, changed: Changed) {
        self.changed.absorb(changed);
    }

    /// Applies an entry that was read back from the drive. Says whether it made sense.
    pub fn apply(&mut self, entry: Entry) -> bool {
        match entry {
            Entry::KeySet { key, state } => {
                let Ok(state) = KeyState::decode(&state) else { return false };
                self.replay(&key, |old| *old = state);
            }
            Entry::Certified { key, certificate, settled } => {
                self.replay(&key, |state| {
                    state.certify(certificate, settled);
                });
            }
            Entry::Placed { payload, origin, stored } => {
                let held = Held { origin, place: Place::Stored(stored), mutation: 0 };
                self.hold(payload, held);
            }
            Entry::Small { payload, origin, checksum, bytes } => {
                let place = Place::Journal { checksum, bytes };
                self.hold(payload, Held { origin, place, mutation: 0 });
            }
            Entry::Freed { payload } => {
                self.remove_held(payload);
            }
            Entry::BucketClosed { incarnation } => {
                self.set_closed(incarnation, true);
            }
            Entry::BucketReopened { incarnation } => {
                self.set_closed(incarnation, false);
            }
            Entry::Start { .. } | Entry::Map(_) | Entry::Mark => {}
        }
        true
    }

    /// A change that is read back frees nothing: what was freed says so in an entry of its own.
    fn replay(&mut self, key: &Key, change: impl FnOnce(&mut KeyState)) {
        for (payload, held) in self.update(key, change).freed {
            self.hold(payload, held);
        }
    }
}

fn beyond<T>(after: Option<T>) -> Bound<T> {
    after.map_or(Bound::Unbounded, Bound::Excluded)
}

/// Bytes of a key's entry in a run.
fn run_bytes(key: &Key, state: &KeyState) -> u64 {
    (key.as_bytes().len() + state.encoded_bytes() + 16) as u64
}

/// The payloads of which `record` wants a shard at `position` of set `set`.
pub fn payloads_here(record: &Record, set: SetIndex, position: u8) -> SmallVec<[PayloadId; 2]> {
    if record.kind() == Kind::Relocated {
        return SmallVec::new();
    }
    record
        .payloads()
        .filter(|layout| layout.set == set.0 && layout.shard_of(position).is_some())
        .map(|layout| layout.payload)
        .collect()
}

fn names(state: &KeyState, set: SetIndex, position: u8) -> SmallVec<[Named; 2]> {
    state
        .held()
        .map(|(slot, certified, record)| Named {
            slot,
            certified,
            payloads: payloads_here(record, set, position),
        })
        .collect()
}

/// The slot below which a decided record that went out of the state is superseded and its payload
/// free: none where the payload may belong to another key by now.
fn superseding(old: Option<&KeyState>, state: &KeyState) -> Option<Slot> {
    let relocated = |state: &KeyState| state.records().any(|held| held.kind() == Kind::Relocated);
    let (head, _) = state.head()?;
    (!relocated(state) && !old.is_some_and(relocated)).then_some(head)
}

#[cfg(test)]
mod tests;

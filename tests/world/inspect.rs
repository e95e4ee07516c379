//! What is seen of the drives themselves: at most one record is decided per slot and per operation,
//! nothing that a drive said is taken back, and once all is quiet every drive holds everything.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use basalt_engine::record::Kind;
use basalt_engine::request::{Digest, Orphan, Reply, Request, SlotDigest};
use basalt_engine::seam::{Clock, Spawn};
use basalt_engine::sim::SimRuntime;
use basalt_engine::units::{
    Ballot, DriveId, DriveIndex, Key, Keyspace, OperationId, SetIndex, Slot,
};

use futures_channel::oneshot;
use futures_util::future::{Either, select};

use super::mailbox::{Hosts, SimHost};

/// A drive that does not answer within this is passed over.
const ANSWER_MAX: Duration = Duration::from_secs(20);

/// What was seen so far.
#[derive(Default)]
pub struct Inspector {
    /// I1: what is known to be decided.
    decided: BTreeMap<(SetIndex, Key, Slot), OperationId>,
    /// I2: where each operation was decided.
    places: BTreeMap<OperationId, (SetIndex, Key, Slot)>,
    /// I4: what each drive said last.
    said: BTreeMap<(DriveId, Key), Said>,
    /// The ETags of versions that are decided to be lost. None of them was acknowledged.
    pub lost: BTreeSet<String>,
    pub looks: u64,
}

#[derive(Clone, Default)]
struct Said {
    head: Option<Slot>,
    promised: BTreeMap<Slot, (Ballot, Option<Ballot>)>,
}

/// One key as the drives of its set tell it.
type Told = BTreeMap<DriveIndex, Digest>;

impl Inspector {
    /// Looks at every key of every drive that answers.
    pub async fn look(&mut self, hosts: &Hosts) {
        for ((set, position), (owner, host)) in hosts.iter() {
            // A damaged drive takes no part in anything.
            if host.drive().is_none_or(|drive| drive.damaged().is_some()) {
                continue;
            }
            let drive = Seen(owner, host);
            let Some(Reply::Status(status)) = drive.ask(Request::Status).await else { continue };
            let identity = status.drive;
            for key in keys(&drive).await {
                let request = Request::Digest { key: key.clone(), payload: false };
                if let Some(Reply::Digest(digest)) = drive.ask(request).await {
                    self.note(*set, *position, identity, &key, &digest);
                }
            }
        }
        self.looks += 1;
    }

    fn note(
        &mut self,
        set: SetIndex,
        position: DriveIndex,
        drive: DriveId,
        key: &Key,
        digest: &Digest,
    ) {
        for slot in digest.slots.iter().filter(|slot| slot.certified) {
            let (_, record) = slot.accepted.as_ref().expect("what is certified is there");
            let operation = record.operation();
            let place = (set, key.clone(), slot.slot);
            let known = *self.decided.entry(place.clone()).or_insert(operation);
            assert_eq!(
                known, operation,
                "I1: two records decided in {place:?}, one at {position:?}"
            );
            if key.space() == Keyspace::Versions && slot.slot.sequence == 1 {
                self.note_archive(&place, operation);
                continue;
            }
            let known = self.places.entry(operation).or_insert_with(|| place.clone()).clone();
            assert_eq!(known, place, "I2: operation {operation} is decided twice");
            if record.kind() == Kind::Lost {
                self.lost.insert(record.etag().to_string());
            }
        }
        let said = self.said.entry((drive, key.clone())).or_default();
        let head = digest.slots.iter().filter(|slot| slot.certified).map(|slot| slot.slot).max();
        // A certificate may be lost in a crash; the record that it was about may not.
        let newest = digest.slots.iter().filter(|slot| slot.accepted.is_some()).map(|s| s.slot);
        let newest = newest.max();
        assert!(
            newest >= said.head,
            "I4: drive {drive} took back the head of {key:?}: {newest:?} after {:?}",
            said.head
        );
        for (slot, (promised, accepted)) in &said.promised {
            if head.is_some_and(|head| head >= *slot) {
                continue;
            }
            let now = digest.slots.iter().find(|now| now.slot == *slot);
            let (now_promised, now_accepted) = now.map_or((Ballot::FAST, None), ballots);
            assert!(
                now_promised >= *promised,
                "I4: drive {drive} took back a promise in {slot:?} of {key:?}"
            );
            // What was abandoned is gone, below a promise that bars it from coming back.
            let abandoned = now_accepted.is_none() && accepted.is_none_or(|a| now_promised > a);
            assert!(
                abandoned || now_accepted >= *accepted,
                "I4: drive {drive} took back what it accepted in {slot:?} of {key:?}"
            );
        }
        said.head = head;
        said.promised = digest.slots.iter().map(|slot| (slot.slot, ballots(slot))).collect();
    }
}

impl Inspector {
    /// What an archive begins with is what was decided in that slot of its object's key.
    fn note_archive(&self, (set, key, slot): &(SetIndex, Key, Slot), operation: OperationId) {
        let end = key.name().iter().position(|byte| *byte == 0).expect("an archive's name");
        let object = Key::new(Keyspace::Objects, key.bucket(), &key.name()[..end]);
        let slot = Slot { generation: 1, sequence: slot.generation };
        let decided = self.decided.get(&(*set, object, slot));
        assert!(
            decided.is_none_or(|decided| *decided == operation),
            "I1: {key:?} archives {operation} for slot {slot:?}, in which {decided:?} was decided"
        );
    }
}

fn ballots(slot: &SlotDigest) -> (Ballot, Option<Ballot>) {
    (slot.promised, slot.accepted.as_ref().map(|(ballot, _)| *ballot))
}

/// A drive as it is looked at from outside of the node.
struct Seen<'a>(&'a SimRuntime, &'a Rc<SimHost>);

impl Seen<'_> {
    /// Asks on the drive's own core. `None` where the node dies or the drive hangs.
    async fn ask(&self, request: Request) -> Option<Reply> {
        let (sender, receiver) = oneshot::channel();
        let host = self.1.clone();
        self.0.spawn(async move {
            // Nobody may wait any more.
            let _ = sender.send(host.handle(request).await);
        });
        let limit = std::pin::pin!(self.0.sleep(ANSWER_MAX));
        match select(receiver, limit).await {
            Either::Left((reply, _)) => reply.ok(),
            Either::Right(_) => None,
        }
    }
}

/// Every key that the drive knows.
async fn keys(drive: &Seen<'_>) -> Vec<Key> {
    let mut keys = Vec::new();
    let mut after = None;
    loop {
        let request = Request::Scan { after: after.clone(), limit: 512 };
        let Some(Reply::Scanned { entries, more }) = drive.ask(request).await else {
            return keys;
        };
        keys.extend(entries.into_iter().map(|entry| entry.key));
        if !more {
            return keys;
        }
        after = keys.last().cloned();
    }
}

/// What is still wrong with a node that has had time to heal; empty if nothing is.
pub async fn unrest(hosts: &Hosts) -> Vec<String> {
    let mut unrest = Vec::new();
    let sets: BTreeSet<SetIndex> = hosts.keys().map(|(set, _)| *set).collect();
    for set in sets {
        let drives: Vec<(DriveIndex, Seen<'_>)> = hosts
            .iter()
            .filter(|((of, _), _)| *of == set)
            .map(|((_, position), (owner, host))| (*position, Seen(owner, host)))
            .collect();
        let mut told: BTreeMap<Key, Told> = BTreeMap::new();
        let mut maps = Vec::new();
        for (position, seen) in &drives {
            let Some(drive) = seen.1.drive() else {
                unrest.push(format!("set {} drive {} is down", set.0, position.0));
                continue;
            };
            if let Some(damage) = drive.damaged() {
                unrest.push(format!("set {} drive {} is damaged: {damage}", set.0, position.0));
                continue;
            }
            maps.push(drive.map());
            for key in keys(seen).await {
                let request = Request::Digest { key: key.clone(), payload: false };
                if let Some(Reply::Digest(digest)) = seen.ask(request).await {
                    told.entry(key).or_default().insert(*position, digest);
                }
            }
            let request = Request::Orphans { after: None, limit: 512 };
            if let Some(Reply::Orphans { entries, .. }) = seen.ask(request).await {
                // Overwritten parts stay until their upload ends.
                let is_unrest = |orphan: &&Orphan| orphan.sealed && !is_part(&orphan.key);
                unrest.extend(
                    entries.iter().filter(is_unrest).map(|orphan| {
                        format!("set {} drive {} keeps {orphan:?}", set.0, position.0)
                    }),
                );
            }
        }
        if let [first, rest @ ..] = &maps[..] {
            if rest.iter().any(|map| map != first) {
                unrest.push(format!("the maps of set {} differ", set.0));
            }
            if first.drives.iter().any(|member| !member.voting) {
                unrest.push(format!("a drive of set {} does not vote", set.0));
            }
        }
        for (key, told) in &told {
            unrest.extend(restless(key, told, drives.len()));
        }
    }
    unrest
}

fn is_part(key: &Key) -> bool {
    key.space() == Keyspace::Parts
}

/// Why the key is not at rest.
fn restless(key: &Key, told: &Told, drives: usize) -> Option<String> {
    let slots = |digest: &Digest| {
        digest
            .slots
            .iter()
            .filter(|slot| slot.accepted.is_some())
            .map(|slot| {
                let operation = slot.accepted.as_ref().map(|(_, record)| record.operation());
                (slot.slot, operation, slot.certified, slot.settled, slot.has_shards)
            })
            .collect::<Vec<_>>()
    };
    let all: Vec<_> = told.iter().map(|(drive, digest)| (*drive, slots(digest))).collect();
    let settled = |slots: &Vec<(Slot, Option<OperationId>, bool, bool, bool)>| {
        matches!(slots[..], [(_, _, true, true, true)] | [])
    };
    let first = &all.first()?.1;
    let same = all.iter().all(|(_, slots)| slots == first && settled(slots));
    let everywhere = all.len() == drives || first.is_empty();
    (!same || !everywhere).then(|| format!("{key:?} is not settled: {all:?}"))
}

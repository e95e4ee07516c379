//! Looking at the drives themselves, from time to time, over whatever happened to them meanwhile; and
//! whether every drive holds everything, once all is quiet.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use basalt_engine::request::{Digest, Orphan, Reply, Request};
use basalt_engine::seam::{Clock, Spawn};
use basalt_engine::sim::SimRuntime;
use basalt_engine::units::{DriveIndex, Incarnation, Key, Keyspace, OperationId, SetIndex, Slot};

use futures_channel::oneshot;
use futures_util::future::{Either, select};

use super::mailbox::{Hosts, SimHost};
use super::witness::Witness;

/// A drive that does not answer within this is passed over.
const ANSWER_MAX: Duration = Duration::from_secs(20);

/// Looks at every key of every drive that answers, and has the answers judged.
pub async fn look(hosts: &Hosts, witness: &Rc<Witness>) {
    for ((set, position), (owner, host)) in hosts.iter() {
        // A damaged drive takes no part in anything.
        if owner.is_paused() || host.drive().is_none_or(|drive| drive.damaged().is_some()) {
            continue;
        }
        let drive = Seen { owner, host, witness, set: *set, position: *position };
        for key in keys(&drive).await {
            if drive.ask(Request::Digest { key, payload: false }).await.is_none() {
                break;
            }
        }
    }
}

/// One key as the drives of its set tell it.
type Told = BTreeMap<DriveIndex, Digest>;

/// A drive as it is looked at from outside of the node.
struct Seen<'a> {
    owner: &'a SimRuntime,
    host: &'a Rc<SimHost>,
    witness: &'a Rc<Witness>,
    set: SetIndex,
    position: DriveIndex,
}

impl Seen<'_> {
    /// Asks on the drive's own core. `None` where the node dies, or the node or the drive hangs.
    async fn ask(&self, request: Request) -> Option<Reply> {
        let (sender, receiver) = oneshot::channel();
        let (host, witness) = (self.host.clone(), self.witness.clone());
        let (set, position) = (self.set, self.position);
        self.owner.spawn(async move {
            // Nobody may wait any more.
            let _ = sender.send(witness.overhear(&host, set, position, request).await);
        });
        let limit = std::pin::pin!(self.owner.sleep(ANSWER_MAX));
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
pub async fn unrest(hosts: &Hosts, witness: &Rc<Witness>) -> Vec<String> {
    let mut unrest = Vec::new();
    let sets: BTreeSet<SetIndex> = hosts.keys().map(|(set, _)| *set).collect();
    for set in sets {
        let drives: Vec<(DriveIndex, Seen<'_>)> = hosts
            .iter()
            .filter(|((of, _), _)| *of == set)
            .map(|((set, position), (owner, host))| {
                (*position, Seen { owner, host, witness, set: *set, position: *position })
            })
            .collect();
        let mut told: BTreeMap<Key, Told> = BTreeMap::new();
        let mut maps = Vec::new();
        for (position, seen) in &drives {
            let Some(drive) = seen.host.drive() else {
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
                let is_unrest = |orphan: &&Orphan| orphan.sealed && !is_of_upload(&orphan.key);
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

/// I15: the bucket incarnations in which a key is live, as one drive of each set tells.
pub async fn live_buckets(hosts: &Hosts, witness: &Rc<Witness>) -> BTreeSet<Incarnation> {
    let mut live = BTreeSet::new();
    for ((set, position), (owner, host)) in hosts.iter().filter(|((_, at), _)| at.0 == 0) {
        let drive = Seen { owner, host, witness, set: *set, position: *position };
        for key in keys(&drive).await.into_iter().filter(|key| key.space() == Keyspace::Objects) {
            let request = Request::Digest { key: key.clone(), payload: false };
            let Some(Reply::Digest(digest)) = drive.ask(request).await else { continue };
            let head = digest.slots.iter().rev().find(|slot| slot.certified);
            let record = head.and_then(|slot| slot.accepted.as_ref());
            if record.is_some_and(|(_, record)| record.kind().is_live()) {
                live.insert(key.bucket());
            }
        }
    }
    live
}

/// Overwritten parts, and the manifest of a completion that did not come to its end, stay until their
/// upload ends.
fn is_of_upload(key: &Key) -> bool {
    matches!(key.space(), Keyspace::Parts | Keyspace::Uploads)
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

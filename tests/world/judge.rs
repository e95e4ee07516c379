//! The protocol as it is seen from outside, judged at every answer of a drive: at most one record is
//! decided per slot and per operation (I1, I2), a slot only after the one before (I3), no drive takes
//! back what it said (I4), no ballot mixes epochs (I10), nothing is acknowledged that is not
//! decided (I5), and nothing that was acknowledged is decided to be lost (I7).
//!
//! What drives accepted is counted here, whether or not anybody in the node hears of it. An answer is
//! held against what the drive had said before the request came, since answers may pass one another.

use std::collections::{BTreeMap, BTreeSet};

use basalt_engine::record::{Kind, Record};
use basalt_engine::request::{Certificate, Digest, Reply, Request, SlotDigest};
use basalt_engine::units::{
    Ballot, DriveId, DriveIndex, Epoch, Key, Keyspace, OperationId, SetIndex, Slot, VersionId,
};
use basalt_net::quorum::Quorums;

use super::mailbox::SimHost;

/// A slot of a key in a set.
type Place = (SetIndex, Key, Slot);

#[derive(Default)]
pub struct Judge {
    /// Who accepted what, by the epoch in which it did or in which it said so.
    votes: BTreeMap<Place, BTreeMap<(Ballot, OperationId, Epoch), Votes>>,
    decided: BTreeMap<Place, OperationId>,
    /// Where each operation was decided.
    places: BTreeMap<OperationId, Place>,
    /// The epoch of each classic ballot that was accepted at.
    epochs: BTreeMap<(Place, Ballot), Epoch>,
    operations: BTreeMap<VersionId, OperationId>,
    said: BTreeMap<(DriveId, Key), Said>,
    /// Versions that are decided to be lost. None of them was acknowledged.
    pub lost: BTreeSet<VersionId>,
    acknowledged: BTreeSet<VersionId>,
    pub answers: u64,
}

/// Drives that accepted, one bit each; those that voted then.
#[derive(Clone, Copy, Default)]
struct Votes {
    all: u16,
    voting: u16,
}

/// What a drive has said of a key.
#[derive(Clone, Default)]
struct Said {
    head: Option<Slot>,
    promised: BTreeMap<Slot, (Ballot, Option<Ballot>)>,
}

/// The drive that answers, as it stands then.
#[derive(Clone, Copy)]
pub struct Speaker {
    pub set: SetIndex,
    pub position: DriveIndex,
    pub drive: DriveId,
    pub epoch: Epoch,
    pub voting: bool,
    /// Drives of the set.
    pub drives: usize,
}

impl Speaker {
    /// The drive that stands in the place now, if it is open.
    pub fn of(host: &SimHost, set: SetIndex, position: DriveIndex) -> Option<Self> {
        let drive = host.drive()?;
        let (map, id) = (drive.map(), drive.id());
        let member = map.drives[usize::from(position.0)];
        let voting = member.voting && member.drive == id;
        let drives = map.drive_count();
        Some(Self { set, position, drive: id, epoch: map.epoch, voting, drives })
    }
}

/// A request as it comes to a drive, and what the drive had said until then.
pub struct Asked {
    drive: DriveId,
    key: Key,
    what: What,
    said: Said,
}

enum What {
    Promise(Slot, Ballot),
    Vote(Slot, Ballot, Epoch, OperationId),
    Other,
}

impl Judge {
    /// A request has come to a drive; `None` where it is not about one key's slots.
    pub fn asks(&mut self, speaker: Speaker, request: &Request) -> Option<Asked> {
        let (set, drive) = (speaker.set, speaker.drive);
        let (key, what) = match request {
            Request::Digest { key, .. } => (key, What::Other),
            Request::Prepare { key, slot, ballot, base, .. } => {
                self.note_certificate(set, key, *base);
                (key, What::Promise(*slot, *ballot))
            }
            Request::Accept { key, slot, ballot, base, epoch, record, .. } => {
                self.note_certificate(set, key, *base);
                self.note_record(record);
                (key, What::Vote(*slot, *ballot, *epoch, record.operation()))
            }
            Request::Learn { key, slot, record, .. } => {
                self.note_record(record);
                self.decide((set, key.clone(), *slot), record.operation());
                (key, What::Other)
            }
            Request::Certify { key, certificate, .. } => {
                self.note_certificate(set, key, Some(*certificate));
                (key, What::Other)
            }
            Request::Abandon { key, .. } => (key, What::Other),
            _ => return None,
        };
        let said = self.said.get(&(drive, key.clone())).cloned().unwrap_or_default();
        Some(Asked { drive, key: key.clone(), what, said })
    }

    /// The drive has answered.
    pub fn answered(&mut self, speaker: Speaker, asked: &Asked, reply: &Reply) {
        if speaker.drive != asked.drive {
            // Another drive stands there now: the answer is that nothing was done.
            return;
        }
        self.answers += 1;
        match (reply, &asked.what) {
            (Reply::Digest(digest) | Reply::Refused { digest, .. }, _) => {
                self.note_digest(speaker, &asked.key, &asked.said, digest);
            }
            (Reply::Promised { .. }, What::Promise(slot, ballot)) => {
                let now = (*ballot, None);
                self.note_ballots(speaker.drive, &asked.key, &asked.said, *slot, now);
            }
            (Reply::Accepted { .. }, What::Vote(slot, ballot, epoch, operation)) => {
                let place = (speaker.set, asked.key.clone(), *slot);
                if !ballot.is_fast() {
                    let first = *self.epochs.entry((place.clone(), *ballot)).or_insert(*epoch);
                    assert_eq!(first, *epoch, "I10: {ballot:?} of {place:?} mixes epochs");
                }
                self.note_vote(speaker, place, (*ballot, *operation, *epoch));
            }
            _ => {}
        }
    }

    /// A write of `version` is answered with success.
    pub fn acknowledged(&mut self, version: VersionId) {
        let operation = self.operations.get(&version).expect("what is acknowledged was proposed");
        let decided = self.places.contains_key(operation);
        assert!(decided, "I5: version {version} is acknowledged and not decided");
        assert!(!self.lost.contains(&version), "I7: version {version} is acknowledged and lost");
        self.acknowledged.insert(version);
    }

    /// What a drive tells of a key, held against what it `said`.
    fn note_digest(&mut self, speaker: Speaker, key: &Key, said: &Said, digest: &Digest) {
        let drive = speaker.drive;
        for slot in &digest.slots {
            let Some((ballot, record)) = &slot.accepted else { continue };
            let place = (speaker.set, key.clone(), slot.slot);
            if slot.certified {
                self.decide(place, record.operation());
                if record.kind() == Kind::Lost {
                    let version = record.version();
                    let promised = self.acknowledged.contains(&version);
                    assert!(!promised, "I7: version {version} was acknowledged and is lost");
                    self.lost.insert(version);
                }
            } else {
                self.note_vote(speaker, place, (*ballot, record.operation(), speaker.epoch));
            }
        }
        let head = digest.slots.iter().filter(|slot| slot.certified).map(|slot| slot.slot).max();
        // A certificate may be lost in a crash; the record that it was about may not.
        let newest = digest.slots.iter().filter(|slot| slot.accepted.is_some()).map(|s| s.slot);
        let newest = newest.max();
        assert!(
            newest >= said.head,
            "I4: drive {drive} took back the head of {key:?}: {newest:?} after {:?}",
            said.head
        );
        for slot in said.promised.keys().filter(|slot| head.is_none_or(|head| head < **slot)) {
            let now = digest.slots.iter().find(|now| now.slot == *slot);
            let now = now.map_or((Ballot::FAST, None), ballots);
            judge_ballots(drive, key, said, *slot, now);
        }
        let merged = self.said.entry((drive, key.clone())).or_default();
        merged.head = merged.head.max(head);
        for slot in &digest.slots {
            merged.note(slot.slot, ballots(slot));
        }
        merged.forget_below_head();
    }

    fn note_ballots(
        &mut self,
        drive: DriveId,
        key: &Key,
        said: &Said,
        slot: Slot,
        (promised, accepted): (Ballot, Option<Ballot>),
    ) {
        if let Some((before, _)) = said.promised.get(&slot) {
            assert!(
                promised >= *before,
                "I4: drive {drive} promised {promised:?} after {before:?}"
            );
        }
        let merged = self.said.entry((drive, key.clone())).or_default();
        merged.note(slot, (promised, accepted));
        merged.forget_below_head();
    }

    fn note_vote(
        &mut self,
        speaker: Speaker,
        place: Place,
        (ballot, operation, epoch): (Ballot, OperationId, Epoch),
    ) {
        let quorums = Quorums::of(speaker.drives);
        let votes = self.votes.entry(place.clone()).or_default();
        let votes = votes.entry((ballot, operation, epoch)).or_default();
        votes.all |= 1 << speaker.position.0;
        votes.voting |= u16::from(speaker.voting) << speaker.position.0;
        let (count, needed) = match ballot.is_fast() {
            true => (votes.voting.count_ones(), quorums.fast),
            false => (votes.all.count_ones(), quorums.accept),
        };
        if count as usize >= needed {
            self.decide(place, operation);
        }
    }

    fn note_certificate(&mut self, set: SetIndex, key: &Key, certificate: Option<Certificate>) {
        if let Some(Certificate { slot, operation }) = certificate {
            self.decide((set, key.clone(), slot), operation);
        }
    }

    fn note_record(&mut self, record: &Record) {
        self.operations.insert(record.version(), record.operation());
    }

    fn decide(&mut self, place: Place, operation: OperationId) {
        let known = *self.decided.entry(place.clone()).or_insert(operation);
        assert_eq!(known, operation, "I1, I3: two records decided in {place:?}");
        if let Some(original) = archived(&place) {
            // By definition what was decided there, which may be found out later.
            let known = self.decided.get(&original).copied().unwrap_or(operation);
            assert_eq!(known, operation, "I1: {place:?} archives another record");
            return;
        }
        let known = self.places.entry(operation).or_insert_with(|| place.clone());
        assert_eq!(*known, place, "I2: operation {operation} is decided twice");
    }
}

impl Said {
    fn note(&mut self, slot: Slot, (promised, accepted): (Ballot, Option<Ballot>)) {
        let known = self.promised.entry(slot).or_insert((Ballot::FAST, None));
        *known = (known.0.max(promised), known.1.max(accepted));
    }

    fn forget_below_head(&mut self) {
        if let Some(head) = self.head {
            self.promised.retain(|slot, _| *slot > head);
        }
    }
}

/// The place in the object's key that a slot of its archive repeats; `None` of any other slot.
fn archived((set, key, slot): &Place) -> Option<Place> {
    if key.space() != Keyspace::Versions || slot.sequence != 1 {
        return None;
    }
    let end = key.name().iter().position(|byte| *byte == 0).expect("an archive's name");
    let object = Key::new(Keyspace::Objects, key.bucket(), &key.name()[..end]);
    // The slots of every key begin in generation 1.
    Some((*set, object, Slot { generation: 1, sequence: slot.generation }))
}

fn judge_ballots(
    drive: DriveId,
    key: &Key,
    said: &Said,
    slot: Slot,
    (now_promised, now_accepted): (Ballot, Option<Ballot>),
) {
    let (promised, accepted) = said.promised[&slot];
    assert!(
        now_promised >= promised,
        "I4: drive {drive} took back a promise in {slot:?} of {key:?}"
    );
    // What was abandoned is gone, below a promise that bars it from coming back.
    let abandoned = now_accepted.is_none() && accepted.is_none_or(|a| now_promised > a);
    assert!(
        abandoned || now_accepted >= accepted,
        "I4: drive {drive} took back what it accepted in {slot:?} of {key:?}"
    );
}

fn ballots(slot: &SlotDigest) -> (Ballot, Option<Ballot>) {
    (slot.promised, slot.accepted.as_ref().map(|(ballot, _)| *ballot))
}

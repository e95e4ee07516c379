//! What requests and replies have in common: slots, records, certificates, maps.

use basalt_engine::record::Record;
use basalt_engine::request as engine;
use basalt_engine::units;
use basalt_engine::units::{DriveId, Epoch, OperationId};
use bytes::Bytes;
use rkyv::option::ArchivedOption;
use rkyv::vec::ArchivedVec;
use rkyv::{Archive, Serialize};

use crate::wire::Malformed;

/// Turns what arrived in `body` into what it stands for.
pub(super) trait Open {
    type Meaning;
    fn open(&self, body: &Bytes) -> Result<Self::Meaning, Malformed>;
}

impl<T: Open> Open for ArchivedOption<T> {
    type Meaning = Option<T::Meaning>;
    fn open(&self, body: &Bytes) -> Result<Self::Meaning, Malformed> {
        self.as_ref().map(|value| value.open(body)).transpose()
    }
}

impl<T: Open> Open for ArchivedVec<T> {
    type Meaning = Vec<T::Meaning>;
    fn open(&self, body: &Bytes) -> Result<Self::Meaning, Malformed> {
        self.iter().map(|value| value.open(body)).collect()
    }
}

/// Bytes of the body, without a copy.
pub(super) fn bytes(body: &Bytes, part: &ArchivedVec<u8>) -> Bytes {
    // An empty part need not lie within the body.
    if part.is_empty() { Bytes::new() } else { body.slice_ref(part) }
}

pub(super) fn key(body: &Bytes, part: &ArchivedVec<u8>) -> Result<units::Key, Malformed> {
    units::Key::from_stored(bytes(body, part)).ok_or(Malformed("a key"))
}

pub(super) fn record(body: &Bytes, part: &ArchivedVec<u8>) -> Result<Record, Malformed> {
    Record::decode(bytes(body, part)).map_err(|malformed| Malformed(malformed.0))
}

pub(super) fn pack_key(key: &units::Key) -> Bytes {
    key.stored()
}

#[derive(Archive, Serialize, Clone, Copy)]
pub(super) struct Slot {
    generation: u32,
    sequence: u32,
}

impl From<units::Slot> for Slot {
    fn from(slot: units::Slot) -> Self {
        Self { generation: slot.generation, sequence: slot.sequence }
    }
}

impl ArchivedSlot {
    pub(super) fn get(&self) -> units::Slot {
        let (generation, sequence) = (self.generation.to_native(), self.sequence.to_native());
        units::Slot { generation, sequence }
    }
}

#[derive(Archive, Serialize, Clone, Copy)]
pub(super) struct Ballot {
    round: u32,
    proposer: u64,
}

impl From<units::Ballot> for Ballot {
    fn from(ballot: units::Ballot) -> Self {
        Self { round: ballot.round, proposer: ballot.proposer }
    }
}

impl ArchivedBallot {
    pub(super) fn get(&self) -> units::Ballot {
        units::Ballot { round: self.round.to_native(), proposer: self.proposer.to_native() }
    }
}

#[derive(Archive, Serialize, Clone, Copy)]
pub(super) struct Certificate {
    slot: Slot,
    operation: u128,
}

impl From<engine::Certificate> for Certificate {
    fn from(certificate: engine::Certificate) -> Self {
        Self { slot: certificate.slot.into(), operation: certificate.operation.0 }
    }
}

impl ArchivedCertificate {
    pub(super) fn get(&self) -> engine::Certificate {
        let operation = OperationId(self.operation.to_native());
        engine::Certificate { slot: self.slot.get(), operation }
    }
}

#[derive(Archive, Serialize)]
pub(super) struct SmallShard {
    checksum: u64,
    bytes: Bytes,
}

impl From<engine::SmallShard> for SmallShard {
    fn from(shard: engine::SmallShard) -> Self {
        Self { checksum: shard.checksum, bytes: shard.bytes }
    }
}

impl Open for ArchivedSmallShard {
    type Meaning = engine::SmallShard;
    fn open(&self, body: &Bytes) -> Result<Self::Meaning, Malformed> {
        let checksum = self.checksum.to_native();
        Ok(engine::SmallShard { checksum, bytes: bytes(body, &self.bytes) })
    }
}

/// A record and the ballot that it was accepted at.
#[derive(Archive, Serialize)]
pub(super) struct Accepted {
    ballot: Ballot,
    record: Bytes,
}

impl From<(units::Ballot, Record)> for Accepted {
    fn from((ballot, record): (units::Ballot, Record)) -> Self {
        Self { ballot: ballot.into(), record: record.bytes().clone() }
    }
}

impl Open for ArchivedAccepted {
    type Meaning = (units::Ballot, Record);
    fn open(&self, body: &Bytes) -> Result<Self::Meaning, Malformed> {
        Ok((self.ballot.get(), record(body, &self.record)?))
    }
}

#[derive(Archive, Serialize)]
pub(super) struct SlotDigest {
    slot: Slot,
    promised: Ballot,
    accepted: Option<Accepted>,
    certified: bool,
    settled: bool,
    has_shards: bool,
}

impl From<engine::SlotDigest> for SlotDigest {
    fn from(digest: engine::SlotDigest) -> Self {
        Self {
            slot: digest.slot.into(),
            promised: digest.promised.into(),
            accepted: digest.accepted.map(Accepted::from),
            certified: digest.certified,
            settled: digest.settled,
            has_shards: digest.has_shards,
        }
    }
}

impl Open for ArchivedSlotDigest {
    type Meaning = engine::SlotDigest;
    fn open(&self, body: &Bytes) -> Result<Self::Meaning, Malformed> {
        Ok(engine::SlotDigest {
            slot: self.slot.get(),
            promised: self.promised.get(),
            accepted: self.accepted.open(body)?,
            certified: self.certified,
            settled: self.settled,
            has_shards: self.has_shards,
        })
    }
}

#[derive(Archive, Serialize)]
pub(super) struct Digest {
    slots: Vec<SlotDigest>,
    copy: Option<SmallShard>,
    generation: u32,
    epoch: u64,
}

impl From<engine::Digest> for Digest {
    fn from(digest: engine::Digest) -> Self {
        Self {
            slots: digest.slots.into_iter().map(SlotDigest::from).collect(),
            copy: digest.copy.map(SmallShard::from),
            generation: digest.generation,
            epoch: digest.epoch.0,
        }
    }
}

impl Open for ArchivedDigest {
    type Meaning = engine::Digest;
    fn open(&self, body: &Bytes) -> Result<Self::Meaning, Malformed> {
        Ok(engine::Digest {
            slots: self.slots.open(body)?.into(),
            copy: self.copy.open(body)?,
            generation: self.generation.to_native(),
            epoch: Epoch(self.epoch.to_native()),
        })
    }
}

#[derive(Archive, Serialize, Clone)]
pub(super) struct SetMap {
    epoch: u64,
    /// Each drive, and whether it votes.
    drives: Vec<(u128, bool)>,
}

impl From<&engine::SetMap> for SetMap {
    fn from(map: &engine::SetMap) -> Self {
        let drives = map.drives.iter().map(|member| (member.drive.0, member.voting)).collect();
        Self { epoch: map.epoch.0, drives }
    }
}

impl Open for ArchivedSetMap {
    type Meaning = engine::SetMap;
    fn open(&self, _body: &Bytes) -> Result<Self::Meaning, Malformed> {
        if !(1..=units::SET_DRIVES_MAX).contains(&self.drives.len()) {
            return Err(Malformed("the number of drives of a map"));
        }
        let member = |member: &<(u128, bool) as Archive>::Archived| engine::Member {
            drive: DriveId(member.0.to_native()),
            voting: member.1,
        };
        let epoch = Epoch(self.epoch.to_native());
        Ok(engine::SetMap { epoch, drives: self.drives.iter().map(member).collect() })
    }
}

/// Where a listing goes on.
#[derive(Archive, Serialize)]
pub(super) enum ListAfter {
    Key(Bytes),
    Prefix(Bytes),
}

impl From<engine::ListAfter> for ListAfter {
    fn from(after: engine::ListAfter) -> Self {
        match after {
            engine::ListAfter::Key(key) => Self::Key(pack_key(&key)),
            engine::ListAfter::Prefix(key) => Self::Prefix(pack_key(&key)),
        }
    }
}

impl Open for ArchivedListAfter {
    type Meaning = engine::ListAfter;
    fn open(&self, body: &Bytes) -> Result<Self::Meaning, Malformed> {
        Ok(match self {
            Self::Key(part) => engine::ListAfter::Key(key(body, part)?),
            Self::Prefix(part) => engine::ListAfter::Prefix(key(body, part)?),
        })
    }
}

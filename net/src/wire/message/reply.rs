//! What a drive answers, as it travels.
//!
//! An error keeps its kind and its numbers; the words for it stay in the log of the node that has the
//! drive.

use std::time::Duration;

use basalt_engine::Error;
use basalt_engine::buffer::Buffer;
use basalt_engine::request as engine;
use basalt_engine::units::{BLOCK_BYTES, BlockIndex, DriveId, Epoch, OperationId, PayloadId};
use bytes::Bytes;
use rkyv::{Archive, Serialize};

use super::parts::{
    Accepted, Ballot, Digest, ListAfter, Open, SetMap, Slot, SmallShard, key, pack_key, record,
};
use crate::wire::Malformed;

#[derive(Archive, Serialize)]
pub(super) enum Reply {
    Digest(Digest),
    Promised {
        accepted: Option<Accepted>,
        copy: Option<SmallShard>,
    },
    Accepted {
        has_shards: bool,
    },
    Refused {
        refusal: Refusal,
        digest: Digest,
    },
    Done,
    Run {
        /// Of the frame's payload: the data blocks alone.
        blocks: u32,
        checksums: Vec<u64>,
    },
    Small(SmallShard),
    Holds(Vec<bool>),
    Listed {
        entries: Vec<ListEntry>,
        fingerprint: Fingerprint,
    },
    Fingerprint(Fingerprint),
    Scanned {
        entries: Vec<ScanEntry>,
        more: bool,
    },
    Orphans {
        entries: Vec<Orphan>,
        more: bool,
    },
    Status(Status),
    Failed(Failure),
}

#[derive(Archive, Serialize)]
pub(super) enum Refusal {
    Promised(Ballot),
    Taken,
    Passed(Slot, Bytes),
    BaseUnknown,
    OldEpoch(SetMap),
    NewEpoch(u64),
    BucketClosing,
    Full,
}

#[derive(Archive, Serialize)]
pub(super) struct Fingerprint {
    epoch: u64,
    hash: u64,
    next: Option<ListAfter>,
}

#[derive(Archive, Serialize)]
pub(super) struct ListEntry {
    key: Bytes,
    group_bytes: Option<u32>,
    slots: Vec<ListedSlot>,
}

#[derive(Archive, Serialize)]
pub(super) struct ListedSlot {
    slot: Slot,
    certified: bool,
    accepted: Option<Bytes>,
}

#[derive(Archive, Serialize)]
pub(super) struct ScanEntry {
    key: Bytes,
    slot: Slot,
    certified: bool,
    settled: bool,
    has_shards: bool,
}

#[derive(Archive, Serialize)]
pub(super) struct Orphan {
    payload: u128,
    key: Bytes,
    operation: u128,
    former_life: bool,
    sealed: bool,
    idle_ms: u64,
}

#[derive(Archive, Serialize)]
pub(super) struct Status {
    drive: u128,
    map: SetMap,
    capacity_bytes: u64,
    free_bytes: u64,
    keys: u64,
    unsettled: u64,
    journal_used_bytes: u64,
}

#[derive(Archive, Serialize)]
pub(super) enum Failure {
    Unavailable,
    Io { at: u64, errno: i32 },
    FlushFailed { errno: i32 },
    Corrupt { at: u64 },
    Full { free_bytes: u64, capacity_bytes: u64 },
    PayloadMissing { payload: u128 },
    Limit { limit: u64 },
}

impl Reply {
    /// What is payload goes to `payload`.
    pub(super) fn pack(reply: engine::Reply, payload: &mut Vec<Bytes>) -> Self {
        use engine::Reply as From;
        match reply {
            From::Digest(digest) => Self::Digest(digest.into()),
            From::Promised { accepted, copy } => Self::Promised {
                accepted: accepted.map(Accepted::from),
                copy: copy.map(SmallShard::from),
            },
            From::Accepted { has_shards } => Self::Accepted { has_shards },
            From::Refused { refusal, digest } => {
                Self::Refused { refusal: refusal.into(), digest: digest.into() }
            }
            From::Done => Self::Done,
            From::Run(run) => {
                let blocks = run.checksums.len();
                let start = run.data_start_blocks as usize * BLOCK_BYTES;
                let data = Bytes::from_owner(run.buffer);
                payload.push(data.slice(start..start + blocks * BLOCK_BYTES));
                let blocks = u32::try_from(blocks).expect("a run is short");
                Self::Run { blocks, checksums: run.checksums.into_vec() }
            }
            From::Small(shard) => Self::Small(shard.into()),
            From::Holds(held) => Self::Holds(held),
            From::Listed(page) => Self::Listed {
                entries: page.entries.into_iter().map(ListEntry::from).collect(),
                fingerprint: page.fingerprint.into(),
            },
            From::Fingerprint(fingerprint) => Self::Fingerprint(fingerprint.into()),
            From::Scanned { entries, more } => {
                Self::Scanned { entries: entries.into_iter().map(ScanEntry::from).collect(), more }
            }
            From::Orphans { entries, more } => {
                Self::Orphans { entries: entries.into_iter().map(Orphan::from).collect(), more }
            }
            From::Status(status) => Self::Status((*status).into()),
            From::Failed(error) => Self::Failed(error.into()),
        }
    }
}

impl ArchivedReply {
    /// How much of the frame's payload belongs to this reply.
    pub(super) fn payload_blocks(&self) -> Option<u32> {
        match self {
            Self::Run { blocks, .. } => Some(blocks.to_native()),
            _ => None,
        }
    }

    /// Takes its payload, if it has any, from the front of `payload`.
    pub(super) fn open(
        &self,
        body: &Bytes,
        payload: &mut impl Iterator<Item = Buffer>,
    ) -> Result<engine::Reply, Malformed> {
        use engine::Reply as To;
        Ok(match self {
            Self::Digest(digest) => To::Digest(digest.open(body)?),
            Self::Promised { accepted, copy } => {
                To::Promised { accepted: accepted.open(body)?, copy: copy.open(body)? }
            }
            Self::Accepted { has_shards } => To::Accepted { has_shards: *has_shards },
            Self::Refused { refusal, digest } => {
                To::Refused { refusal: refusal.open(body)?, digest: digest.open(body)? }
            }
            Self::Done => To::Done,
            Self::Run { blocks, checksums } => {
                let buffer = payload.next().ok_or(Malformed("too little payload"))?;
                if checksums.len() as u64 != u64::from(blocks.to_native()) {
                    return Err(Malformed("a run without a checksum for each block"));
                }
                let checksums = checksums.iter().map(|checksum| checksum.to_native()).collect();
                To::Run(engine::RunRead { buffer, data_start_blocks: 0, checksums })
            }
            Self::Small(shard) => To::Small(shard.open(body)?),
            Self::Holds(held) => To::Holds(held.iter().copied().collect()),
            Self::Listed { entries, fingerprint } => To::Listed(engine::ListPage {
                entries: entries.open(body)?,
                fingerprint: fingerprint.open(body)?,
            }),
            Self::Fingerprint(fingerprint) => To::Fingerprint(fingerprint.open(body)?),
            Self::Scanned { entries, more } => {
                To::Scanned { entries: entries.open(body)?, more: *more }
            }
            Self::Orphans { entries, more } => {
                To::Orphans { entries: entries.open(body)?, more: *more }
            }
            Self::Status(status) => To::Status(Box::new(status.open(body)?)),
            Self::Failed(failure) => To::Failed(failure.get()),
        })
    }
}

impl From<engine::Refusal> for Refusal {
    fn from(refusal: engine::Refusal) -> Self {
        use engine::Refusal as From;
        match refusal {
            From::Promised(ballot) => Self::Promised(ballot.into()),
            From::Taken => Self::Taken,
            From::Passed(slot, record) => Self::Passed(slot.into(), record.bytes().clone()),
            From::BaseUnknown => Self::BaseUnknown,
            From::OldEpoch(map) => Self::OldEpoch(SetMap::from(&*map)),
            From::NewEpoch(epoch) => Self::NewEpoch(epoch.0),
            From::BucketClosing => Self::BucketClosing,
            From::Full => Self::Full,
        }
    }
}

impl Open for ArchivedRefusal {
    type Meaning = engine::Refusal;
    fn open(&self, body: &Bytes) -> Result<Self::Meaning, Malformed> {
        use engine::Refusal as To;
        Ok(match self {
            Self::Promised(ballot) => To::Promised(ballot.get()),
            Self::Taken => To::Taken,
            Self::Passed(slot, value) => To::Passed(slot.get(), record(body, value)?),
            Self::BaseUnknown => To::BaseUnknown,
            Self::OldEpoch(map) => To::OldEpoch(Box::new(map.open(body)?)),
            Self::NewEpoch(epoch) => To::NewEpoch(Epoch(epoch.to_native())),
            Self::BucketClosing => To::BucketClosing,
            Self::Full => To::Full,
        })
    }
}

impl From<engine::PageFingerprint> for Fingerprint {
    fn from(of: engine::PageFingerprint) -> Self {
        Self { epoch: of.epoch.0, hash: of.hash, next: of.next.map(ListAfter::from) }
    }
}

impl Open for ArchivedFingerprint {
    type Meaning = engine::PageFingerprint;
    fn open(&self, body: &Bytes) -> Result<Self::Meaning, Malformed> {
        Ok(engine::PageFingerprint {
            epoch: Epoch(self.epoch.to_native()),
            hash: self.hash.to_native(),
            next: self.next.open(body)?,
        })
    }
}

impl From<engine::ListEntry> for ListEntry {
    fn from(entry: engine::ListEntry) -> Self {
        Self {
            key: pack_key(&entry.key),
            group_bytes: entry.group_bytes,
            slots: entry.slots.into_iter().map(ListedSlot::from).collect(),
        }
    }
}

impl Open for ArchivedListEntry {
    type Meaning = engine::ListEntry;
    fn open(&self, body: &Bytes) -> Result<Self::Meaning, Malformed> {
        let key = key(body, &self.key)?;
        let group_bytes = self.group_bytes.as_ref().map(|bytes| bytes.to_native());
        let within = basalt_engine::units::KEY_PREFIX_BYTES..=key.as_bytes().len();
        if group_bytes.is_some_and(|bytes| !within.contains(&(bytes as usize))) {
            return Err(Malformed("a group longer than its key"));
        }
        let slots = self.slots.iter().map(|slot| slot.open(body));
        Ok(engine::ListEntry { key, group_bytes, slots: slots.collect::<Result<_, _>>()? })
    }
}

impl From<engine::ListedSlot> for ListedSlot {
    fn from(listed: engine::ListedSlot) -> Self {
        Self {
            slot: listed.slot.into(),
            certified: listed.certified,
            accepted: listed.accepted.map(|record| record.bytes().clone()),
        }
    }
}

impl Open for ArchivedListedSlot {
    type Meaning = engine::ListedSlot;
    fn open(&self, body: &Bytes) -> Result<Self::Meaning, Malformed> {
        Ok(engine::ListedSlot {
            slot: self.slot.get(),
            certified: self.certified,
            accepted: self.accepted.as_ref().map(|value| record(body, value)).transpose()?,
        })
    }
}

impl From<engine::ScanEntry> for ScanEntry {
    fn from(entry: engine::ScanEntry) -> Self {
        Self {
            key: pack_key(&entry.key),
            slot: entry.slot.into(),
            certified: entry.certified,
            settled: entry.settled,
            has_shards: entry.has_shards,
        }
    }
}

impl Open for ArchivedScanEntry {
    type Meaning = engine::ScanEntry;
    fn open(&self, body: &Bytes) -> Result<Self::Meaning, Malformed> {
        Ok(engine::ScanEntry {
            key: key(body, &self.key)?,
            slot: self.slot.get(),
            certified: self.certified,
            settled: self.settled,
            has_shards: self.has_shards,
        })
    }
}

impl From<engine::Orphan> for Orphan {
    fn from(orphan: engine::Orphan) -> Self {
        Self {
            payload: orphan.payload.0,
            key: pack_key(&orphan.key),
            operation: orphan.operation.0,
            former_life: orphan.former_life,
            sealed: orphan.sealed,
            idle_ms: u64::try_from(orphan.idle.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

impl Open for ArchivedOrphan {
    type Meaning = engine::Orphan;
    fn open(&self, body: &Bytes) -> Result<Self::Meaning, Malformed> {
        Ok(engine::Orphan {
            payload: PayloadId(self.payload.to_native()),
            key: key(body, &self.key)?,
            operation: OperationId(self.operation.to_native()),
            former_life: self.former_life,
            sealed: self.sealed,
            idle: Duration::from_millis(self.idle_ms.to_native()),
        })
    }
}

impl From<engine::DriveStatus> for Status {
    fn from(status: engine::DriveStatus) -> Self {
        Self {
            drive: status.drive.0,
            map: SetMap::from(&status.map),
            capacity_bytes: status.capacity_bytes,
            free_bytes: status.free_bytes,
            keys: status.keys,
            unsettled: status.unsettled,
            journal_used_bytes: status.journal_used_bytes,
        }
    }
}

impl Open for ArchivedStatus {
    type Meaning = engine::DriveStatus;
    fn open(&self, body: &Bytes) -> Result<Self::Meaning, Malformed> {
        Ok(engine::DriveStatus {
            drive: DriveId(self.drive.to_native()),
            map: self.map.open(body)?,
            capacity_bytes: self.capacity_bytes.to_native(),
            free_bytes: self.free_bytes.to_native(),
            keys: self.keys.to_native(),
            unsettled: self.unsettled.to_native(),
            journal_used_bytes: self.journal_used_bytes.to_native(),
        })
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Unavailable { .. } | Error::Refused { .. } | Error::InUse { .. } => {
                Self::Unavailable
            }
            Error::Io { at, errno, .. } => Self::Io { at: at.0, errno },
            Error::FlushFailed { errno } => Self::FlushFailed { errno },
            Error::Corrupt { at, .. } => Self::Corrupt { at: at.0 },
            Error::Full { free_bytes, capacity_bytes } => Self::Full { free_bytes, capacity_bytes },
            Error::PayloadMissing { payload } => Self::PayloadMissing { payload: payload.0 },
            Error::Limit { limit, .. } => Self::Limit { limit },
        }
    }
}

impl ArchivedFailure {
    fn get(&self) -> Error {
        match self {
            Self::Unavailable => {
                Error::Unavailable { reason: "its node says so, and the log there says why" }
            }
            Self::Io { at, errno } => Error::Io {
                operation: "I/O on another node",
                at: BlockIndex(at.to_native()),
                errno: errno.to_native(),
            },
            Self::FlushFailed { errno } => Error::FlushFailed { errno: errno.to_native() },
            Self::Corrupt { at } => {
                Error::Corrupt { what: "data on another node", at: BlockIndex(at.to_native()) }
            }
            Self::Full { free_bytes, capacity_bytes } => Error::Full {
                free_bytes: free_bytes.to_native(),
                capacity_bytes: capacity_bytes.to_native(),
            },
            Self::PayloadMissing { payload } => {
                Error::PayloadMissing { payload: PayloadId(payload.to_native()) }
            }
            Self::Limit { limit } => {
                Error::Limit { what: "a length, on another node,", limit: limit.to_native() }
            }
        }
    }
}

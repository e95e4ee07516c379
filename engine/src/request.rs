//! Everything that can be asked of a drive, and what it answers. Both cross cores (and, once there
//! are peers, nodes), so they are `Send` and own what they hold.

use std::time::Duration;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::buffer::{Buffer, SharedBuffer};
use crate::error::Error;
use crate::record::Record;
use crate::units::{
    Ballot, DriveId, Epoch, Incarnation, KEY_PREFIX_BYTES, Key, OperationId, PayloadId,
    SET_DRIVES_MAX, Slot,
};

/// Proof that slot `slot` of a key was decided, for the operation `operation`. `None` in its place
/// says that the key is absent and its slots begin.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Certificate {
    pub slot: Slot,
    pub operation: OperationId,
}

/// A shard (or whole copy) that is small enough to ride in the journal, with its checksum
/// (`checksum::small_shard`).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct SmallShard {
    pub checksum: u64,
    pub bytes: Bytes,
}

#[derive(Debug)]
pub enum Request {
    // The slot protocol.
    /// What this drive knows of a key. With `payload`, a co-staged payload comes along if the
    /// drive holds a copy.
    Digest {
        key: Key,
        payload: bool,
    },
    Prepare {
        epoch: Epoch,
        key: Key,
        slot: Slot,
        ballot: Ballot,
        base: Option<Certificate>,
    },
    Accept {
        epoch: Epoch,
        key: Key,
        slot: Slot,
        ballot: Ballot,
        base: Option<Certificate>,
        record: Record,
        /// The copy for this drive, where the record is co-staged and names this drive.
        copy: Option<SmallShard>,
        /// Nobody can have accepted the record in this slot before: it may still be refused, because
        /// its bucket is closing or the drive is full. What may have been chosen never is.
        fresh: bool,
    },
    /// A decided record, for a drive that may have missed it.
    Learn {
        epoch: Epoch,
        key: Key,
        slot: Slot,
        record: Record,
        copy: Option<SmallShard>,
    },
    /// The record of `certificate` was decided; with `settled`, every drive has its record and
    /// its shards, as far as drives have told: one that has lost a shard since, of the record's own
    /// payloads or of those that a manifest has `listed`, does not call it settled. Answered at once,
    /// durable with the next batch.
    Certify {
        key: Key,
        certificate: Certificate,
        settled: bool,
        /// Of which this drive has a shard, and which the record does not name.
        listed: Vec<PayloadId>,
    },
    /// Forget what was accepted in `slot` below `ballot`: every drive of the set promised `ballot`
    /// and none can have seen it decided.
    Abandon {
        epoch: Epoch,
        key: Key,
        slot: Slot,
        ballot: Ballot,
    },

    // Payload.
    /// Reserves room for a shard of `length_blocks` data blocks. What was staged of it before and is
    /// not sealed is forgotten.
    StageOpen {
        payload: PayloadId,
        key: Key,
        operation: OperationId,
        length_blocks: u64,
    },
    /// One run of the shard: its checksum block, then its data blocks (`checksum::seal_run`).
    StageWrite {
        payload: PayloadId,
        run: u64,
        buffer: SharedBuffer,
    },
    /// Makes the shard durable. Answered when it is.
    StageSeal {
        payload: PayloadId,
    },
    /// A whole shard that rides in the journal; durable when answered.
    StageSmall {
        payload: PayloadId,
        key: Key,
        operation: OperationId,
        shard: SmallShard,
    },
    /// Frees a payload that no accepted record names. Refused (ignored) where one does, and where
    /// the payload was relocated: it may belong to a manifest, or to a record yet to come.
    Discard {
        payload: PayloadId,
    },
    /// Frees a payload that was relocated and whose object is gone. Refused (ignored) where a
    /// record names it.
    Release {
        payload: PayloadId,
    },
    /// `blocks` data blocks of a run-wise stored shard, all within run `first_block / RUN_BLOCKS`.
    ReadRun {
        payload: PayloadId,
        first_block: u64,
        blocks: u64,
    },
    ReadSmall {
        payload: PayloadId,
    },
    /// Which of these payloads are here, durably.
    Holds {
        payloads: Vec<PayloadId>,
    },
    /// The shard was read and is wrong or unreadable: give it up, so that repair rebuilds it. `key` is
    /// what was read: its record names the payload, or a manifest of it lists the payload, which the
    /// drive cannot know. It is no longer settled.
    DropShard {
        payload: PayloadId,
        key: Key,
    },

    // Scans. Each looks at a bounded number of keys and says where to go on.
    List(ListRequest),
    /// Only the fingerprint of what `List` would answer, for drives that probably say the same as
    /// another one.
    Fingerprint(ListRequest),
    /// Every key from `after` on, tombstones included.
    Scan {
        after: Option<Key>,
        limit: u32,
    },
    /// Keys whose records are not settled here.
    Unsettled {
        after: Option<Key>,
        limit: u32,
    },
    /// Payloads that were relocated and that no record names. They belong to a manifest, to a
    /// record that this drive missed, or to an object that is gone. Answered like `Orphans`.
    Relocated {
        after: Option<PayloadId>,
        limit: u32,
    },
    /// Payloads that are staged and named by no accepted record.
    Orphans {
        after: Option<PayloadId>,
        limit: u32,
    },

    // Buckets and membership.
    /// From now on new values of this incarnation are refused.
    CloseBucket {
        incarnation: Incarnation,
    },
    ReopenBucket {
        incarnation: Incarnation,
    },
    /// A newer map of the set, decided by the protocol.
    InstallMap {
        map: SetMap,
    },
    Status,
}

#[derive(Debug, Clone)]
pub struct ListRequest {
    /// Keys are taken from this prefix of stored keys (keyspace and incarnation included).
    pub prefix: Key,
    /// Exclusive lower bound: a key, or a common prefix with everything under it.
    pub after: Option<ListAfter>,
    /// Groups keys that share what follows the prefix up to this string.
    pub delimiter: Option<Bytes>,
    /// Whether keys are listed whose head is a delete marker.
    pub markers: bool,
    pub limit: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListAfter {
    Key(Key),
    /// Everything that starts with this is passed over.
    Prefix(Key),
}

/// What one drive knows of one slot.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct SlotDigest {
    pub slot: Slot,
    pub promised: Ballot,
    /// The ballot of the accepted record, where there is one.
    pub accepted: Option<(Ballot, Record)>,
    pub certified: bool,
    pub settled: bool,
    /// Whether every shard that the record asks of this drive is durable here.
    pub has_shards: bool,
}

/// What one drive knows of one key: its highest certified slot (if any) and all slots above it,
/// ascending.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Digest {
    pub slots: SmallVec<[SlotDigest; 1]>,
    /// The co-staged payload of the last slot, where it was asked for and is here.
    pub copy: Option<SmallShard>,
    /// The set's generation as this drive knows it: where an absent key's slots begin.
    pub generation: u32,
    /// The epoch of the drive's map: whoever reads with an older map must get the newer one first,
    /// because a drive that voted then may be blank now.
    pub epoch: Epoch,
}

/// Why a drive refused a step of the protocol.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Refusal {
    /// A higher ballot was promised in this slot.
    Promised(Ballot),
    /// At ballot 0, another operation was accepted in this slot.
    Taken,
    /// This slot or a later one is decided: the highest that this drive knows.
    Passed(Slot, Record),
    /// The base does not fit what this drive knows of the key.
    BaseUnknown,
    /// The request is of an older epoch than this drive's map, which comes along.
    OldEpoch(Box<SetMap>),
    /// The request is of a newer epoch than this drive's map.
    NewEpoch(Epoch),
    /// The bucket is closing.
    BucketClosing,
    /// The drive is full and the request would add to it.
    Full,
}

#[derive(Debug)]
pub enum Reply {
    Digest(Digest),
    Promised {
        accepted: Option<(Ballot, Record)>,
        copy: Option<SmallShard>,
    },
    Accepted {
        has_shards: bool,
    },
    Refused {
        refusal: Refusal,
        digest: Digest,
    },
    /// Done, and durable where the request says so.
    Done,
    Run(RunRead),
    Small(SmallShard),
    /// One answer for each payload asked about.
    Holds(Vec<bool>),
    Listed(ListPage),
    Fingerprint(PageFingerprint),
    Scanned {
        entries: Vec<ScanEntry>,
        more: bool,
    },
    Orphans {
        entries: Vec<Orphan>,
        more: bool,
    },
    Status(Box<DriveStatus>),
    Failed(Error),
}

/// Data blocks of one run and their checksums.
#[derive(Debug)]
pub struct RunRead {
    /// Holds the data blocks from `data_start_blocks` on.
    pub buffer: Buffer,
    pub data_start_blocks: u64,
    /// One for each data block.
    pub checksums: Box<[u64]>,
}

#[derive(Debug, Default)]
pub struct ListPage {
    pub entries: Vec<ListEntry>,
    pub fingerprint: PageFingerprint,
}

/// What two drives say alike that would answer the same page.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PageFingerprint {
    /// As in [`Digest`].
    pub epoch: Epoch,
    /// SipHash-1-3 (key 0) of the entries: key, group, and of each slot its number, whether it is
    /// certified, and the operation.
    pub hash: u64,
    /// Where the next page begins; `None` when everything was looked at.
    pub next: Option<ListAfter>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListEntry {
    pub key: Key,
    /// The length of the common prefix (in stored bytes), where the entry stands for a group; the
    /// key is then the first of the group that this drive takes for live.
    pub group_bytes: Option<u32>,
    /// The newest slots; almost always one.
    pub slots: SmallVec<[ListedSlot; 1]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedSlot {
    pub slot: Slot,
    pub certified: bool,
    pub accepted: Option<Record>,
}

impl ListEntry {
    /// Where the entry stands in the listing: its key, or the common prefix that it stands for.
    pub fn position(&self) -> Key {
        let Some(length) = self.group_bytes else { return self.key.clone() };
        let length = length as usize;
        assert!((KEY_PREFIX_BYTES..=self.key.as_bytes().len()).contains(&length));
        let name = &self.key.as_bytes()[KEY_PREFIX_BYTES..length];
        Key::new(self.key.space(), self.key.bucket(), name)
    }

    /// The record of a key of which the drive knows one slot, certified, and nothing above.
    pub fn certified_alone(&self) -> Option<(Slot, &Record)> {
        match &self.slots[..] {
            [only] if only.certified => Some((only.slot, only.accepted.as_ref()?)),
            _ => None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanEntry {
    pub key: Key,
    pub slot: Slot,
    pub certified: bool,
    pub settled: bool,
    pub has_shards: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    pub payload: PayloadId,
    pub key: Key,
    pub operation: OperationId,
    /// Whether it was staged before this start of the process.
    pub former_life: bool,
    /// Whether it is whole and durable; otherwise it is still being written.
    pub sealed: bool,
    /// While it is being written: for how long nothing came.
    pub idle: Duration,
}

/// The drives of a set and what counts among them, at one epoch.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct SetMap {
    pub epoch: Epoch,
    pub drives: Vec<Member>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Member {
    pub drive: DriveId,
    /// A drive that does not vote is blank: it counts in W only.
    pub voting: bool,
}

impl SetMap {
    pub fn drive_count(&self) -> usize {
        debug_assert!(self.drives.len() <= SET_DRIVES_MAX);
        self.drives.len()
    }

    /// The epoch fence: a drive that has installed this map refuses a step of any other epoch.
    pub fn refuse(&self, epoch: Epoch) -> Option<Refusal> {
        match epoch.cmp(&self.epoch) {
            std::cmp::Ordering::Less => Some(Refusal::OldEpoch(Box::new(self.clone()))),
            std::cmp::Ordering::Equal => None,
            std::cmp::Ordering::Greater => Some(Refusal::NewEpoch(self.epoch)),
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DriveStatus {
    pub drive: DriveId,
    pub map: SetMap,
    pub capacity_bytes: u64,
    pub free_bytes: u64,
    pub keys: u64,
    pub unsettled: u64,
    pub journal_used_bytes: u64,
}

//! Looking at a drive without changing anything on it, for `basalt inspect`. The drive must not be
//! open elsewhere, or what is found may be half of a change.

use super::opening::Loaded;
use super::verify::verify_payload;
use crate::checkpoint::Manifest;
use crate::error::{Error, Result};
use crate::format::Entry;
use crate::index::Held;
use crate::journal::Boundary;
use crate::journal::replay::replay;
use crate::request::Digest;
use crate::seam::Storage;
use crate::superblock::{COPIES, Copies, Superblock};
use crate::units::{BlockCount, BlockIndex, Key, PayloadId};

/// A drive as it stands.
pub struct Inspection<'a, S> {
    storage: &'a S,
    copies: Copies,
    loaded: Loaded,
}

/// A batch of the journal that a drive which opens would replay.
#[derive(Clone, Debug)]
pub struct Batch {
    pub at: BlockIndex,
    pub sequence: u64,
    pub entries: Vec<Entry>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentUse {
    pub start: BlockIndex,
    /// Blocks up to the end of what is live last.
    pub filled: BlockCount,
    pub live_bytes: u64,
}

/// What the checksums of all payloads say.
#[derive(Clone, Default, Debug)]
pub struct Verified {
    pub payloads: u64,
    pub bytes: u64,
    pub faults: Vec<(PayloadId, Error)>,
}

impl<'a, S: Storage> Inspection<'a, S> {
    /// Reads the drive on `storage`. Fails where there is no superblock to begin with.
    pub async fn read(storage: &'a S) -> Result<Self> {
        let copies = Copies::read(storage).await?;
        let Some(superblock) = copies.chosen().cloned() else {
            return Err(match copies.is_blank() {
                true => Error::Unavailable { reason: "it is not formatted" },
                false => Error::Corrupt { what: "superblock", at: COPIES[0] },
            });
        };
        let loaded = Loaded::read(storage, superblock).await;
        Ok(Self { storage, copies, loaded })
    }

    /// The superblock that counts.
    pub fn superblock(&self) -> &Superblock {
        self.copies.chosen().expect("checked when it was read")
    }
    /// All copies of the superblock, where they are whole.
    pub fn copies(&self) -> &[Option<Superblock>; 4] {
        &self.copies.copies
    }
    pub fn manifest(&self) -> &Manifest {
        &self.loaded.state.manifest
    }
    /// What is missing, if the drive lost something that it once held.
    pub fn damage(&self) -> Option<&Error> {
        self.loaded.damage.as_ref()
    }

    /// The batches behind the last checkpoint.
    pub async fn batches(&self) -> Vec<Batch> {
        let superblock = self.superblock();
        let root = superblock.root;
        let start = Boundary { at: root.journal_at, sequence: root.journal_sequence };
        let mut batches: Vec<Batch> = Vec::new();
        let (owner, region) = (superblock.owner(), superblock.regions.journal);
        replay(self.storage, owner, region, start, |place, entry| {
            if batches.last().is_none_or(|last| last.sequence != place.sequence) {
                let (at, sequence) = (place.at, place.sequence);
                batches.push(Batch { at, sequence, entries: Vec::new() });
            }
            batches.last_mut().expect("pushed above").entries.push(entry);
            true
        })
        .await;
        batches
    }

    pub fn segments(&self) -> impl Iterator<Item = SegmentUse> {
        self.loaded.state.segments.each().map(|(start, filled, live_bytes)| SegmentUse {
            start,
            filled: BlockCount(filled),
            live_bytes,
        })
    }

    /// Up to `limit` keys that follow `after`.
    pub fn keys(&self, after: Option<&Key>, limit: usize) -> Vec<(Key, Digest)> {
        let index = &self.loaded.state.index;
        let keys = index.keys_after(after).take(limit);
        keys.map(|(key, _)| (key.clone(), index.digest(key).0)).collect()
    }

    /// What the drive knows of one key.
    pub fn key(&self, key: &Key) -> Option<Digest> {
        let index = &self.loaded.state.index;
        index.key(key)?;
        Some(index.digest(key).0)
    }

    /// Up to `limit` payloads that follow `after`.
    pub fn payloads(&self, after: Option<PayloadId>, limit: usize) -> Vec<(PayloadId, Held)> {
        let payloads = self.loaded.state.index.payloads_after(after);
        let here = payloads.filter_map(|(payload, entry)| Some((payload, entry.held.clone()?)));
        here.take(limit).collect()
    }

    /// Where a payload stands, if it is here.
    pub fn payload(&self, payload: PayloadId) -> Option<&Held> {
        self.loaded.state.index.held(payload)
    }

    /// Reads everything that is stored and compares it with its checksums.
    pub async fn verify(&self) -> Verified {
        let mut verified = Verified::default();
        let mut after = None;
        while let [(payload, held)] = &self.payloads(after, 1)[..] {
            after = Some(*payload);
            verified.payloads += 1;
            match verify_payload(self.storage, *payload, &held.place).await {
                Ok(bytes) => verified.bytes += bytes,
                Err(error) => verified.faults.push((*payload, error)),
            }
        }
        verified
    }
}

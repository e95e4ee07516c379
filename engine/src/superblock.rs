//! The superblock: who a drive is, where its regions stand, and the root of its checkpoint.
//!
//! It stands in four copies, spread over the first MiB, and is valid where two copies are equal.
//! An update writes copies 0 and 1, flushes, writes copies 2 and 3, and flushes: at every instant
//! one pair is whole. Among valid contents the one with the highest sequence counts. Opening
//! repairs what a cut update or rot left behind. Byte by byte in `docs/format.md`.

use crate::buffer::Buffer;
use crate::checksum::crc64;
use crate::error::{Error, Result};
use crate::format::{Extent, FORMAT, Fields, FrameOwner, map_bytes, put_map};
use crate::record::{read_u16, read_u32, read_u64, read_u128};
use crate::request::SetMap;
use crate::seam::{Storage, WriteSync};
use crate::units::{
    BLOCK_BYTES, BlockCount, BlockIndex, DeploymentId, DriveId, SET_DRIVES_MAX, SetIndex,
};

/// Where the copies stand.
pub const COPIES: [BlockIndex; 4] =
    [BlockIndex(0), BlockIndex(64), BlockIndex(128), BlockIndex(192)];
/// The first block behind the superblock's region.
pub const REGION_END: BlockIndex = BlockIndex(256);

const MAGIC: &[u8; 8] = b"BsltSupr";
const MAP_AT: usize = 176;
const LENGTH: usize = MAP_AT + map_bytes(SET_DRIVES_MAX);
const CRC_AT: usize = BLOCK_BYTES - 8;
const FORMING: u8 = 1;

const _: () = assert!(LENGTH <= CRC_AT);
const _: () = assert!(COPIES[3].0 < REGION_END.0);

/// Where the regions of a drive stand; fixed when it is formatted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Regions {
    pub journal: Extent,
    pub segments_start: BlockIndex,
    pub segment_length: BlockCount,
}

/// Where a drive's durable state begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Root {
    /// The manifest of the last checkpoint; `None` before the first.
    pub manifest: Option<ManifestPlace>,
    /// The first batch that the checkpoint does not cover.
    pub journal_at: BlockIndex,
    pub journal_sequence: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ManifestPlace {
    pub checkpoint: u64,
    pub extent: Extent,
    pub body_crc: u64,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Superblock {
    /// Counts the updates of the superblock.
    pub sequence: u64,
    pub drive: DriveId,
    pub deployment: DeploymentId,
    pub set: SetIndex,
    /// Position of the drive in its set.
    pub position: u8,
    /// Set from the format of the drive until all drives of the deployment are formatted.
    pub forming: bool,
    /// Mixed into the checksums of frames; see `format`.
    pub salt: u64,
    pub regions: Regions,
    /// Starts of the process that the root covers.
    pub life: u64,
    pub root: Root,
    pub map: SetMap,
}

impl Superblock {
    pub fn owner(&self) -> FrameOwner {
        FrameOwner { drive: self.drive, salt: self.salt }
    }

    fn encode(&self, copy: usize) -> Buffer {
        let mut buffer = Buffer::zeroed(BlockCount(1));
        let mut put = |at: usize, bytes: &[u8]| buffer[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, MAGIC);
        put(8, &FORMAT.to_le_bytes());
        put(10, &[copy as u8, if self.forming { FORMING } else { 0 }]);
        put(12, &(LENGTH as u32).to_le_bytes());
        put(16, &self.drive.0.to_le_bytes());
        put(32, &self.deployment.0.to_le_bytes());
        put(48, &self.sequence.to_le_bytes());
        put(56, &COPIES[copy].0.to_le_bytes());
        put(64, &self.set.0.to_le_bytes());
        put(66, &[self.position]);
        put(72, &self.salt.to_le_bytes());
        put(80, &self.regions.journal.start.0.to_le_bytes());
        put(88, &self.regions.journal.length.0.to_le_bytes());
        put(96, &self.regions.segments_start.0.to_le_bytes());
        put(104, &self.regions.segment_length.0.to_le_bytes());
        put(112, &self.life.to_le_bytes());
        if let Some(manifest) = &self.root.manifest {
            put(120, &manifest.checkpoint.to_le_bytes());
            put(128, &manifest.extent.start.0.to_le_bytes());
            put(136, &manifest.extent.length.0.to_le_bytes());
            put(144, &manifest.body_crc.to_le_bytes());
        }
        put(152, &self.root.journal_at.0.to_le_bytes());
        put(160, &self.root.journal_sequence.to_le_bytes());
        let mut map = Vec::with_capacity(map_bytes(SET_DRIVES_MAX));
        put_map(&mut map, &self.map);
        put(MAP_AT, &map);
        let crc = crc64(&buffer[..CRC_AT]);
        buffer[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        buffer
    }

    fn decode(block: &[u8], copy: usize) -> Option<Self> {
        let sound = block.len() == BLOCK_BYTES
            && &block[..8] == MAGIC
            && read_u64(block, CRC_AT) == crc64(&block[..CRC_AT])
            && read_u16(block, 8) == FORMAT
            && usize::from(block[10]) == copy
            && read_u32(block, 12) as usize == LENGTH
            && read_u64(block, 56) == COPIES[copy].0;
        if !sound {
            return None;
        }
        let extent = |at| Fields::of(&block[at..at + 16]).extent().ok();
        let manifest = match read_u64(block, 120) {
            0 => None,
            checkpoint => {
                let body_crc = read_u64(block, 144);
                Some(ManifestPlace { checkpoint, extent: extent(128)?, body_crc })
            }
        };
        let segment_length = BlockCount(read_u64(block, 104));
        let journal = extent(80)?;
        let journal_at = BlockIndex(read_u64(block, 152));
        let superblock = Self {
            sequence: read_u64(block, 48),
            drive: DriveId(read_u128(block, 16)),
            deployment: DeploymentId(read_u128(block, 32)),
            set: SetIndex(read_u16(block, 64)),
            position: block[66],
            forming: block[11] & FORMING != 0,
            salt: read_u64(block, 72),
            regions: Regions {
                journal,
                segments_start: BlockIndex(read_u64(block, 96)),
                segment_length,
            },
            life: read_u64(block, 112),
            root: Root { manifest, journal_at, journal_sequence: read_u64(block, 160) },
            map: Fields::of(&block[MAP_AT..LENGTH]).map().ok()?,
        };
        let in_journal = journal_at >= journal.start && journal_at <= journal.end();
        (segment_length.0 > 0 && in_journal).then_some(superblock)
    }
}

/// What the four copies say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Copies {
    /// Each copy, where it is whole.
    pub copies: [Option<Superblock>; 4],
    /// Whether a block holds anything at all.
    written: [bool; 4],
}

impl Copies {
    /// Reads the four copies. A block that cannot be read counts as a copy that is not whole.
    pub async fn read<S: Storage>(storage: &S) -> Result<Self> {
        let mut copies = [None, None, None, None];
        let mut written = [false; 4];
        for (copy, at) in COPIES.into_iter().enumerate() {
            if at >= BlockIndex(storage.geometry().length.0) {
                continue;
            }
            let (buffer, result) = storage.read(at, Buffer::zeroed(BlockCount(1))).await;
            written[copy] = result.is_err() || buffer.iter().any(|&byte| byte != 0);
            copies[copy] = result.ok().and_then(|()| Superblock::decode(&buffer, copy));
        }
        Ok(Self { copies, written })
    }

    /// The content that counts: the newest that two copies share.
    pub fn chosen(&self) -> Option<&Superblock> {
        let whole = self.copies.iter().flatten();
        whole
            .clone()
            .filter(|one| whole.clone().filter(|other| one == other).count() >= 2)
            .max_by_key(|one| one.sequence)
    }

    /// Whether nothing was ever completely formatted here: a format writes the last pair last, and
    /// until then a drive is forming and holds nothing.
    pub fn is_blank(&self) -> bool {
        let unfinished = self.copies[..2].iter().flatten().all(|copy| copy.forming);
        self.chosen().is_none() && unfinished && !self.written[2] && !self.written[3]
    }
}

/// Writes all copies, so that at every instant two equal ones stand.
pub async fn write<S: Storage>(storage: &S, superblock: &Superblock) -> Result<()> {
    for pair in [[0, 1], [2, 3]] {
        for copy in pair {
            let buffer = superblock.encode(copy);
            storage.write(COPIES[copy], buffer, WriteSync::Cached).await?;
        }
        storage.flush().await?;
    }
    Ok(())
}

/// Rewrites the copies that differ, one at a time: which two stand is not known beforehand.
async fn repair<S: Storage>(storage: &S, copies: &Copies, chosen: &Superblock) -> Result<()> {
    for (copy, content) in copies.copies.iter().enumerate() {
        if content.as_ref() != Some(chosen) {
            storage.write(COPIES[copy], chosen.encode(copy), WriteSync::Cached).await?;
            storage.flush().await?;
        }
    }
    Ok(())
}

/// Makes the storage blank: what it held is no drive any more.
pub async fn erase<S: Storage>(storage: &S) -> Result<()> {
    for at in COPIES {
        storage.write(at, Buffer::zeroed(BlockCount(1)), WriteSync::Cached).await?;
    }
    storage.flush().await
}

/// Reads the superblock, and repairs its copies if they differ. `None`: never formatted.
pub async fn open<S: Storage>(storage: &S) -> Result<Option<Superblock>> {
    storage.flush().await?;
    let copies = Copies::read(storage).await?;
    match copies.chosen() {
        Some(chosen) => {
            repair(storage, &copies, chosen).await?;
            Ok(Some(chosen.clone()))
        }
        None if copies.is_blank() => Ok(None),
        None => Err(Error::Corrupt { what: "superblock", at: COPIES[0] }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Member;
    use crate::units::Epoch;

    fn sample(sequence: u64) -> Superblock {
        Superblock {
            sequence,
            drive: DriveId(1),
            deployment: DeploymentId(2),
            set: SetIndex(3),
            position: 4,
            forming: true,
            salt: 5,
            regions: Regions {
                journal: Extent { start: REGION_END, length: BlockCount(64) },
                segments_start: BlockIndex(320),
                segment_length: BlockCount(32),
            },
            life: 6,
            root: Root {
                manifest: Some(ManifestPlace {
                    checkpoint: 7,
                    extent: Extent { start: BlockIndex(330), length: BlockCount(1) },
                    body_crc: 8,
                }),
                journal_at: BlockIndex(300),
                journal_sequence: 9,
            },
            map: SetMap {
                epoch: Epoch(10),
                drives: (0..16).map(|id| Member { drive: DriveId(id), voting: id != 3 }).collect(),
            },
        }
    }

    fn copies(contents: [Option<u64>; 4]) -> Copies {
        let written = contents.map(|sequence| sequence.is_some());
        Copies { copies: contents.map(|sequence| sequence.map(sample)), written }
    }

    #[test]
    fn a_superblock_says_what_was_put_into_it() {
        for copy in 0..4 {
            let block = sample(1).encode(copy);
            assert_eq!(Superblock::decode(&block, copy), Some(sample(1)));
            assert_eq!(Superblock::decode(&block, (copy + 1) % 4), None);
        }
        let none = Superblock { root: Root { manifest: None, ..sample(1).root }, ..sample(1) };
        assert_eq!(Superblock::decode(&none.encode(0), 0), Some(none));
    }

    #[test]
    fn every_changed_byte_is_found() {
        let mut block = sample(1).encode(2);
        for at in 0..block.len() {
            block[at] ^= 4;
            assert_eq!(Superblock::decode(&block, 2), None, "byte {at}");
            block[at] ^= 4;
        }
    }

    #[test]
    fn the_newest_content_with_two_copies_counts() {
        let chosen = |contents| copies(contents).chosen().map(|chosen| chosen.sequence);
        assert_eq!(chosen([Some(2), Some(2), Some(1), Some(1)]), Some(2));
        assert_eq!(chosen([Some(2), None, Some(1), Some(1)]), Some(1));
        assert_eq!(chosen([Some(2), Some(2), Some(3), None]), Some(2));
        assert_eq!(chosen([None, Some(2), None, Some(2)]), Some(2));
        assert_eq!(chosen([Some(3), Some(2), Some(1), None]), None);
    }

    #[test]
    fn an_unfinished_format_is_blank_and_a_lost_superblock_is_not() {
        assert!(copies([None; 4]).is_blank());
        assert!(copies([Some(1), None, None, None]).is_blank());
        assert!(!copies([Some(1), None, None, Some(2)]).is_blank());
        assert!(!copies([Some(1), Some(1), None, None]).is_blank());
    }
}

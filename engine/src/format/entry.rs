//! Entries: see [`super`].

use bytes::{BufMut, Bytes, BytesMut};

use crate::record::{read_u16, read_u32, read_u64, read_u128};
use crate::request::{Certificate, Member, SetMap};
use crate::units::{
    BLOCK_BYTES, BlockCount, BlockIndex, DriveId, Epoch, Incarnation, KEY_BYTES_MAX, Key,
    OperationId, PayloadId, SET_DRIVES_MAX, Slot,
};

const ENTRY_HEADER_BYTES: usize = 8;
/// Longest part of an entry before its variable fields; a generous bound for reservations.
pub const ENTRY_FIXED_BYTES_MAX: usize = 128;

/// Consecutive blocks of a segment.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Extent {
    pub start: BlockIndex,
    pub length: BlockCount,
}

impl Extent {
    pub fn end(&self) -> BlockIndex {
        self.start.plus(self.length)
    }
    pub fn contains(&self, at: BlockIndex) -> bool {
        at >= self.start && at < self.end()
    }
}

/// Where a durable payload stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Stored {
    /// In runs. Every extent but the last holds whole runs of the greatest length.
    Runs { data_blocks: u64, extents: Box<[Extent]> },
    /// Packed with others: `bytes` bytes from byte `offset` of block `at`.
    Packed { checksum: u64, at: BlockIndex, offset: u16, bytes: u32 },
}

/// Who staged a payload, and when.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Origin {
    pub key: Key,
    pub operation: OperationId,
    /// The start of the process (counted over the drive's life) in which it was staged.
    pub life: u64,
}

/// One thing that a drive knows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Entry {
    /// The process started for the `life`th time.
    Start {
        life: u64,
    },
    /// The acceptor state of a key, whole.
    KeySet {
        key: Key,
        state: Bytes,
    },
    /// A certificate for a key. The one entry that is applied to a state instead of replacing it;
    /// `KeyState::certify` does nothing to a newer state.
    Certified {
        key: Key,
        certificate: Certificate,
        settled: bool,
    },
    /// A payload that stands in segments.
    Placed {
        payload: PayloadId,
        origin: Origin,
        stored: Stored,
    },
    /// A small payload that stands in this entry.
    Small {
        payload: PayloadId,
        origin: Origin,
        checksum: u64,
        bytes: Bytes,
    },
    /// A payload that is no longer here.
    Freed {
        payload: PayloadId,
    },
    BucketClosed {
        incarnation: Incarnation,
    },
    BucketReopened {
        incarnation: Incarnation,
    },
    Map(SetMap),
    /// Nothing. Written after the last batch, so that a torn or lost batch can be told from one
    /// that was durable and rotted.
    Mark,
}

/// The bytes are not an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("malformed entry: {0}")]
pub struct MalformedEntry(pub &'static str);

const RUNS: u8 = 0;
const PACKED: u8 = 1;

impl Entry {
    fn kind(&self) -> u8 {
        match self {
            Self::Start { .. } => 1,
            Self::KeySet { .. } => 2,
            Self::Certified { .. } => 3,
            Self::Placed { .. } => 4,
            Self::Small { .. } => 5,
            Self::Freed { .. } => 6,
            Self::BucketClosed { .. } => 7,
            Self::BucketReopened { .. } => 8,
            Self::Map(_) => 9,
            Self::Mark => 10,
        }
    }

    /// Appends the entry. The bytes of a small payload are left out, for the caller to put behind
    /// it without a copy: see [`Entry::trailing`].
    pub fn encode_into(&self, out: &mut BytesMut) {
        let start = out.len();
        out.put_u32_le(0);
        out.put_u8(self.kind());
        out.put_bytes(0, 3);
        match self {
            Self::Start { life } => out.put_u64_le(*life),
            Self::KeySet { key, state } => {
                put_key(out, key);
                out.put_slice(state);
            }
            Self::Certified { key, certificate, settled } => {
                put_key(out, key);
                out.put_u32_le(certificate.slot.generation);
                out.put_u32_le(certificate.slot.sequence);
                out.put_u128_le(certificate.operation.0);
                out.put_u8(u8::from(*settled));
            }
            Self::Placed { payload, origin, stored } => {
                out.put_u128_le(payload.0);
                put_origin(out, origin);
                put_stored(out, stored);
            }
            Self::Small { payload, origin, checksum, bytes: _ } => {
                out.put_u128_le(payload.0);
                put_origin(out, origin);
                out.put_u64_le(*checksum);
            }
            Self::Freed { payload } => out.put_u128_le(payload.0),
            Self::BucketClosed { incarnation } | Self::BucketReopened { incarnation } => {
                out.put_u64_le(incarnation.0);
            }
            Self::Map(map) => put_map(out, map),
            Self::Mark => {}
        }
        let length = out.len() - start + self.trailing().len();
        let length = u32::try_from(length).expect("an entry fits a frame");
        out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    }

    /// What stands behind the bytes of [`Entry::encode_into`].
    pub fn trailing(&self) -> Bytes {
        match self {
            Self::Small { bytes, .. } => bytes.clone(),
            _ => Bytes::new(),
        }
    }

    /// The entry at the front of `bytes`, which are advanced past it.
    pub fn decode(bytes: &mut &[u8]) -> Result<Self, MalformedEntry> {
        let mut fields = Fields::open(bytes)?;
        let kind = fields.kind;
        let entry = match kind {
            1 => Self::Start { life: fields.u64()? },
            2 => Self::KeySet { key: fields.key()?, state: Bytes::copy_from_slice(fields.rest()) },
            3 => Self::Certified {
                key: fields.key()?,
                certificate: Certificate {
                    slot: Slot { generation: fields.u32()?, sequence: fields.u32()? },
                    operation: OperationId(fields.u128()?),
                },
                settled: fields.u8()? != 0,
            },
            4 => Self::Placed {
                payload: PayloadId(fields.u128()?),
                origin: fields.origin()?,
                stored: fields.stored()?,
            },
            5 => Self::Small {
                payload: PayloadId(fields.u128()?),
                origin: fields.origin()?,
                checksum: fields.u64()?,
                bytes: Bytes::copy_from_slice(fields.rest()),
            },
            6 => Self::Freed { payload: PayloadId(fields.u128()?) },
            7 => Self::BucketClosed { incarnation: Incarnation(fields.u64()?) },
            8 => Self::BucketReopened { incarnation: Incarnation(fields.u64()?) },
            9 => Self::Map(fields.map()?),
            10 => Self::Mark,
            _ => return Err(MalformedEntry("kind")),
        };
        if !fields.rest().is_empty() {
            return Err(MalformedEntry("length"));
        }
        Ok(entry)
    }
}

fn put_key(out: &mut BytesMut, key: &Key) {
    out.put_u16_le(u16::try_from(key.as_bytes().len()).expect("keys are short"));
    out.put_slice(key.as_bytes());
}

fn put_origin(out: &mut BytesMut, origin: &Origin) {
    put_key(out, &origin.key);
    out.put_u128_le(origin.operation.0);
    out.put_u64_le(origin.life);
}

fn put_stored(out: &mut BytesMut, stored: &Stored) {
    match stored {
        Stored::Runs { data_blocks, extents } => {
            out.put_u8(RUNS);
            out.put_u64_le(*data_blocks);
            out.put_u32_le(u32::try_from(extents.len()).expect("few extents"));
            for extent in extents {
                out.put_u64_le(extent.start.0);
                out.put_u64_le(extent.length.0);
            }
        }
        Stored::Packed { checksum, at, offset, bytes } => {
            out.put_u8(PACKED);
            out.put_u64_le(*checksum);
            out.put_u64_le(at.0);
            out.put_u16_le(*offset);
            out.put_u32_le(*bytes);
        }
    }
}

/// Bytes of an encoded map with `drives` drives.
pub const fn map_bytes(drives: usize) -> usize {
    9 + drives * 17
}

/// Appends a set map: epoch (8), drives (1), then for each drive its id (16) and whether it votes.
pub fn put_map(out: &mut impl BufMut, map: &SetMap) {
    assert!(map.drives.len() <= SET_DRIVES_MAX, "a set of {} drives", map.drives.len());
    out.put_u64_le(map.epoch.0);
    out.put_u8(map.drives.len() as u8);
    for member in &map.drives {
        out.put_u128_le(member.drive.0);
        out.put_u8(u8::from(member.voting));
    }
}

/// The fields of stored bytes, taken from the front. Never reads past the end.
pub struct Fields<'a> {
    kind: u8,
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// The fields of bytes that are not an entry.
    pub fn of(rest: &'a [u8]) -> Self {
        Self { kind: 0, rest }
    }

    fn open(bytes: &mut &'a [u8]) -> Result<Self, MalformedEntry> {
        if bytes.len() < ENTRY_HEADER_BYTES {
            return Err(MalformedEntry("header"));
        }
        let length = read_u32(bytes, 0) as usize;
        if length < ENTRY_HEADER_BYTES || length > bytes.len() {
            return Err(MalformedEntry("length"));
        }
        let (entry, rest) = bytes.split_at(length);
        *bytes = rest;
        Ok(Self { kind: entry[4], rest: &entry[ENTRY_HEADER_BYTES..] })
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], MalformedEntry> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(MalformedEntry("length"))?;
        self.rest = rest;
        Ok(taken)
    }
    fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }
    pub fn u8(&mut self) -> Result<u8, MalformedEntry> {
        Ok(self.take(1)?[0])
    }
    pub fn u16(&mut self) -> Result<u16, MalformedEntry> {
        Ok(read_u16(self.take(2)?, 0))
    }
    pub fn u32(&mut self) -> Result<u32, MalformedEntry> {
        Ok(read_u32(self.take(4)?, 0))
    }
    pub fn u64(&mut self) -> Result<u64, MalformedEntry> {
        Ok(read_u64(self.take(8)?, 0))
    }
    pub fn u128(&mut self) -> Result<u128, MalformedEntry> {
        Ok(read_u128(self.take(16)?, 0))
    }

    fn key(&mut self) -> Result<Key, MalformedEntry> {
        let length = usize::from(self.u16()?);
        if length > KEY_BYTES_MAX {
            return Err(MalformedEntry("key length"));
        }
        let bytes = Bytes::copy_from_slice(self.take(length)?);
        Key::from_stored(bytes).ok_or(MalformedEntry("key"))
    }

    fn origin(&mut self) -> Result<Origin, MalformedEntry> {
        Ok(Origin { key: self.key()?, operation: OperationId(self.u128()?), life: self.u64()? })
    }

    pub fn extent(&mut self) -> Result<Extent, MalformedEntry> {
        let extent = Extent { start: BlockIndex(self.u64()?), length: BlockCount(self.u64()?) };
        let sane = extent.start.0 < 1 << 50 && extent.length.0 < 1 << 50 && extent.length.0 > 0;
        sane.then_some(extent).ok_or(MalformedEntry("extent"))
    }

    fn stored(&mut self) -> Result<Stored, MalformedEntry> {
        match self.u8()? {
            RUNS => {
                let data_blocks = self.u64()?;
                let count = self.u32()? as usize;
                if count > self.rest.len() / 16 {
                    return Err(MalformedEntry("extent count"));
                }
                let extents = (0..count).map(|_| self.extent()).collect::<Result<_, _>>()?;
                Ok(Stored::Runs { data_blocks, extents })
            }
            PACKED => Ok(Stored::Packed {
                checksum: self.u64()?,
                at: BlockIndex(self.u64()?),
                offset: self.u16()?,
                bytes: self.u32()?,
            }),
            _ => Err(MalformedEntry("form of a stored payload")),
        }
    }

    pub fn map(&mut self) -> Result<SetMap, MalformedEntry> {
        let epoch = Epoch(self.u64()?);
        let count = usize::from(self.u8()?);
        if count > SET_DRIVES_MAX {
            return Err(MalformedEntry("drives of a set"));
        }
        let mut drives = Vec::with_capacity(count);
        for _ in 0..count {
            drives.push(Member { drive: DriveId(self.u128()?), voting: self.u8()? != 0 });
        }
        Ok(SetMap { epoch, drives })
    }
}

/// The block in which byte `bytes` of the blocks from `start` on stands, and the place in it.
pub fn byte_position(start: BlockIndex, bytes: u64) -> (BlockIndex, u16) {
    let at = start.plus(BlockCount(bytes / BLOCK_BYTES as u64));
    (at, (bytes % BLOCK_BYTES as u64) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Keyspace;

    fn entries() -> Vec<Entry> {
        let key = Key::new(Keyspace::Objects, Incarnation(3), b"a/b");
        let origin = Origin { key: key.clone(), operation: OperationId(5), life: 9 };
        vec![
            Entry::Start { life: 4 },
            Entry::KeySet { key: key.clone(), state: Bytes::from_static(b"state") },
            Entry::Certified {
                key,
                certificate: Certificate { slot: Slot::first(2), operation: OperationId(8) },
                settled: true,
            },
            Entry::Placed {
                payload: PayloadId(1),
                origin: origin.clone(),
                stored: Stored::Runs {
                    data_blocks: 10,
                    extents: Box::new([Extent { start: BlockIndex(77), length: BlockCount(11) }]),
                },
            },
            Entry::Placed {
                payload: PayloadId(2),
                origin: origin.clone(),
                stored: Stored::Packed { checksum: 1, at: BlockIndex(2), offset: 3, bytes: 4 },
            },
            Entry::Small {
                payload: PayloadId(3),
                origin,
                checksum: 11,
                bytes: Bytes::from_static(b"small"),
            },
            Entry::Freed { payload: PayloadId(4) },
            Entry::BucketClosed { incarnation: Incarnation(5) },
            Entry::BucketReopened { incarnation: Incarnation(6) },
            Entry::Map(SetMap {
                epoch: Epoch(3),
                drives: vec![Member { drive: DriveId(1), voting: true }],
            }),
            Entry::Mark,
        ]
    }

    fn encoded(entries: &[Entry]) -> Vec<u8> {
        let mut out = BytesMut::new();
        for entry in entries {
            entry.encode_into(&mut out);
            out.put_slice(&entry.trailing());
        }
        out.to_vec()
    }

    #[test]
    fn entries_come_back_as_they_were() {
        let bytes = encoded(&entries());
        let mut rest = &bytes[..];
        for entry in entries() {
            assert_eq!(Entry::decode(&mut rest), Ok(entry));
        }
        assert!(rest.is_empty());
    }

    #[test]
    fn no_bytes_make_the_decoder_panic() {
        for entry in entries() {
            let bytes = encoded(std::slice::from_ref(&entry));
            for length in 0..bytes.len() {
                assert!(Entry::decode(&mut &bytes[..length]).is_err(), "{entry:?} cut at {length}");
            }
            for at in 0..bytes.len() {
                for wrong in [0, 1, 0x7f, 0xff] {
                    let mut bytes = bytes.clone();
                    bytes[at] = wrong;
                    let _ = Entry::decode(&mut &bytes[..]);
                }
            }
        }
    }
}

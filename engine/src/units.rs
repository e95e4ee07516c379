//! The numbers and names that must not be mixed up: one newtype each, units last in names.
//!
//! Every integer that is stored is little-endian, except inside [`Key`], whose bytes are ordered
//! as the index orders keys.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

/// The unit of drive I/O and of checksums, in bytes.
pub const BLOCK_BYTES: usize = 4096;
/// No set has more drives than this.
pub const SET_DRIVES_MAX: usize = 16;
/// Longest object key S3 allows, in bytes of UTF-8.
pub const OBJECT_KEY_BYTES_MAX: usize = 1024;

/// Position of a block on a drive, counted from the start of its data file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BlockIndex(pub u64);

/// A number of blocks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BlockCount(pub u64);

impl BlockIndex {
    pub const fn offset_bytes(self) -> u64 {
        self.0 * BLOCK_BYTES as u64
    }
    #[must_use]
    pub const fn plus(self, count: BlockCount) -> Self {
        Self(self.0 + count.0)
    }
}

impl BlockCount {
    pub const fn bytes(self) -> u64 {
        self.0 * BLOCK_BYTES as u64
    }
    /// The blocks that hold `bytes` bytes.
    pub const fn covering(bytes: u64) -> Self {
        Self(bytes.div_ceil(BLOCK_BYTES as u64))
    }
}

impl fmt::Debug for BlockIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "block {}", self.0)
    }
}

impl fmt::Debug for BlockCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} blocks", self.0)
    }
}

macro_rules! id128 {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub u128);

        impl fmt::Display for $name {
            /// The form of a UUID: 8-4-4-4-12 hexadecimal digits.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let hex = format!("{:032x}", self.0);
                write!(
                    f,
                    "{}-{}-{}-{}-{}",
                    &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]
                )
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

id128!(
    /// Names one formatted drive for as long as its contents live.
    DriveId
);
id128!(
    /// Names the deployment; keys the placement hash.
    DeploymentId
);
id128!(
    /// Names one client operation. Decided in at most one slot.
    OperationId
);
id128!(
    /// Names one version of an object towards clients.
    VersionId
);
id128!(
    /// Names one payload: the coded bytes that a record points to.
    PayloadId
);

/// One life of a bucket name: a bucket that is deleted and made anew has another incarnation.
/// Incarnation 0 is the reserved system keyspace.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Incarnation(pub u64);

/// Position of a drive within its set, from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DriveIndex(pub u8);

/// Position of a set within the deployment, from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SetIndex(pub u16);

/// Version of a set's map of drives, and nothing else.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Epoch(pub u64);

/// One consensus instance of a key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Slot {
    pub generation: u32,
    pub sequence: u32,
}

impl Slot {
    /// Where the slots of a key that is absent at `generation` begin.
    pub const fn first(generation: u32) -> Self {
        Self { generation, sequence: 1 }
    }
    #[must_use]
    pub fn next(self) -> Self {
        let sequence = self.sequence.checked_add(1).expect("a key has fewer than 2^32 slots");
        Self { generation: self.generation, sequence }
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.generation, self.sequence)
    }
}

/// Order of proposals within a slot. Ballot 0 is the one-round ballot that every node may use;
/// a classic ballot belongs to one proposer: `proposer` is drawn at random when a core starts, so
/// that a restarted proposer never repeats a ballot of its former life.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Ballot {
    pub round: u32,
    pub proposer: u64,
}

impl Ballot {
    pub const FAST: Self = Self { round: 0, proposer: 0 };
    pub const fn is_fast(self) -> bool {
        self.round == 0
    }
}

impl fmt::Debug for Ballot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b{}/{:x}", self.round, self.proposer)
    }
}

/// Which family of keys a key belongs to. The numbers are stored.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Keyspace {
    /// Buckets, the maps of sets, settings.
    System = 0,
    /// Objects.
    Objects = 1,
    /// One register for each multipart upload.
    Uploads = 2,
    /// Parts of multipart uploads.
    Parts = 3,
    /// Versions of objects that are not the head of their key any more.
    Versions = 4,
}

/// A key as the index orders it: keyspace (1 byte), bucket incarnation (8 bytes, big-endian),
/// then the name's bytes as they are. Names are bytes, never paths.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Bytes);

/// Bytes of a [`Key`] before its name.
pub const KEY_PREFIX_BYTES: usize = 9;
/// Longest [`Key`]: the longest name is a part's, which adds 22 bytes to the object's.
pub const KEY_BYTES_MAX: usize = KEY_PREFIX_BYTES + OBJECT_KEY_BYTES_MAX + 32;

impl Key {
    pub fn new(space: Keyspace, bucket: Incarnation, name: &[u8]) -> Self {
        let mut bytes = BytesMut::with_capacity(KEY_PREFIX_BYTES + name.len());
        bytes.put_u8(space as u8);
        bytes.put_u64(bucket.0);
        bytes.put_slice(name);
        assert!(bytes.len() <= KEY_BYTES_MAX, "the name of a key has {} bytes", name.len());
        Self(bytes.freeze())
    }

    /// The key whose stored form is `bytes`, if they can be one.
    pub fn from_stored(bytes: Bytes) -> Option<Self> {
        let valid = (KEY_PREFIX_BYTES..=KEY_BYTES_MAX).contains(&bytes.len()) && bytes[0] <= 4;
        valid.then_some(Self(bytes))
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
    /// The stored form, shared with this key.
    pub fn stored(&self) -> Bytes {
        self.0.clone()
    }
    pub fn name(&self) -> &[u8] {
        &self.0[KEY_PREFIX_BYTES..]
    }
    /// The name without a copy.
    pub fn name_bytes(&self) -> Bytes {
        self.0.slice(KEY_PREFIX_BYTES..)
    }
    pub fn space(&self) -> Keyspace {
        match self.0[0] {
            0 => Keyspace::System,
            1 => Keyspace::Objects,
            2 => Keyspace::Uploads,
            3 => Keyspace::Parts,
            _ => Keyspace::Versions,
        }
    }
    pub fn bucket(&self) -> Incarnation {
        let bytes: [u8; 8] = self.0[1..KEY_PREFIX_BYTES].try_into().expect("eight bytes");
        Incarnation(u64::from_be_bytes(bytes))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}/{:x}/{}", self.space(), self.bucket().0, self.name().escape_ascii())
    }
}

//! The value of a slot: one version of an object, a tombstone, or a system value. A record is
//! encoded once and then travels and rests as the same bytes, so that "re-proposed byte-identical"
//! is a comparison of bytes. Byte by byte in `docs/format.md`.
//!
//! Invariants: a [`Record`] has passed [`Record::decode`] or came from [`Record::encode`]; its
//! accessors therefore never fail.

use bytes::{BufMut, Bytes, BytesMut};

use crate::units::{
    BlockCount, Incarnation, OperationId, PayloadId, SET_DRIVES_MAX, Slot, VersionId,
};

/// Version of the encoding below.
const FORMAT: u8 = 1;
const HEADER_BYTES: usize = 96;
const PAYLOAD_BYTES: usize = 56;
/// Payloads that stand in a record itself; more stand in a manifest.
pub const PAYLOADS_INLINE_MAX: usize = 16;
/// Longest encoded record: header, payloads, checksums, and S3's metadata with room to spare.
pub const RECORD_BYTES_MAX: usize = 16 * 1024;

/// Objects up to this size are stored as whole copies that travel with the record ("co-staged").
pub const COPY_BYTES_MAX: u64 = 8 * 1024;
/// Shards up to this size ride in the journal and are packed later; larger ones go to an extent
/// at once.
pub const SMALL_SHARD_BYTES_MAX: u64 = 64 * 1024;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    /// An object version, or a system value that stands in the metadata.
    Data = 1,
    /// The key is deleted.
    Tombstone = 2,
    /// The payload of this key now belongs to another key's record (a part that was completed).
    Relocated = 3,
    /// The payload of the version before is gone for good: everything else of it is told here.
    Lost = 4,
    /// A delete marker: a version that says that the key is deleted.
    Marker = 5,
    /// The version before is removed; the metadata names the one that is current now.
    Removed = 6,
}

impl Kind {
    /// Whether the key has a value, for listings and for conditions.
    pub fn is_live(self) -> bool {
        matches!(self, Self::Data | Self::Lost)
    }
    /// Whether the record is a version of an object.
    pub fn is_version(self) -> bool {
        matches!(self, Self::Data | Self::Lost | Self::Marker)
    }
}

/// What a record says of its key's versions, where versions are kept.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Lineage {
    /// It is the null version: it was written while none got an id.
    pub is_null: bool,
    /// The record of the slot before is a version that is kept, in a key of its own.
    pub keeps_predecessor: bool,
    /// The slot in which the version was first decided, where the record describes it anew.
    pub origin: Option<Slot>,
}

const LINEAGE: u8 = 1;
const LINEAGE_NULL: u8 = 2;
const LINEAGE_KEEPS: u8 = 4;
const LINEAGE_ORIGIN: u8 = 8;
const ORIGIN_BYTES: usize = 8;

/// What a record's payload section holds. The numbers are stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum PayloadForm {
    None = 0,
    /// The payloads of the object, in order: one, or the parts of a multipart upload.
    Inline = 1,
    /// One payload that holds the list of payloads.
    Manifest = 2,
}

/// How one payload is spread over the drives of its set. Everything that is needed to read it
/// stands here; nothing is derived from configuration.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub struct Layout {
    pub payload: PayloadId,
    /// Bytes of the object (or part) that it codes.
    pub bytes: u64,
    /// 0 copies, 1 Reed-Solomon; see `codec`.
    pub codec: u8,
    pub data_shards: u8,
    pub parity_shards: u8,
    /// Bytes of one shard in a full stripe.
    pub unit_bytes: u32,
    pub set: u16,
    /// Part number of a multipart upload, 0 otherwise.
    pub part: u16,
    /// `order[i]` is the position in the set of the drive that holds shard `i`; only the first
    /// `data_shards + parity_shards` count.
    pub order: [u8; SET_DRIVES_MAX],
}

impl Layout {
    pub fn shards(&self) -> usize {
        usize::from(self.data_shards) + usize::from(self.parity_shards)
    }
    /// The shard that the drive at `position` holds, if it holds one.
    pub fn shard_of(&self, position: u8) -> Option<usize> {
        self.order[..self.shards()].iter().position(|&drive| drive == position)
    }
    pub fn stripe_bytes(&self) -> u64 {
        u64::from(self.unit_bytes) * u64::from(self.data_shards)
    }
    /// Bytes of each shard: all shards of a payload are equally long. The pieces of the last
    /// stripe are shortened to what it needs, in steps of 64 bytes.
    pub fn shard_bytes(&self) -> u64 {
        let full = self.bytes / self.stripe_bytes();
        let rest = self.bytes % self.stripe_bytes();
        full * u64::from(self.unit_bytes) + self.piece_bytes_of(rest)
    }
    /// Bytes of one shard's piece in a stripe that holds `stripe_bytes` bytes of the object.
    pub fn piece_bytes_of(&self, stripe_bytes: u64) -> u64 {
        match self.codec {
            0 => stripe_bytes,
            _ => stripe_bytes.div_ceil(u64::from(self.data_shards)).next_multiple_of(64),
        }
    }
    pub fn shard_blocks(&self) -> BlockCount {
        BlockCount::covering(self.shard_bytes())
    }
    /// Whether the shards ride in journals instead of extents.
    pub fn is_small(&self) -> bool {
        self.shard_bytes() <= SMALL_SHARD_BYTES_MAX
    }
    /// Whether the payload travels with its record: whole copies of a small object.
    pub fn is_co_staged(&self) -> bool {
        self.codec == 0 && self.bytes <= COPY_BYTES_MAX
    }

    pub fn encode_into(&self, out: &mut BytesMut) {
        out.put_u128_le(self.payload.0);
        out.put_u64_le(self.bytes);
        out.put_u8(self.codec);
        out.put_u8(self.data_shards);
        out.put_u8(self.parity_shards);
        out.put_u8(0);
        out.put_u32_le(self.unit_bytes);
        out.put_u16_le(self.set);
        out.put_u16_le(self.part);
        out.put_u32_le(0);
        out.put_slice(&self.order);
    }

    /// The layout in `bytes`, or what is wrong with it.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let bytes: &[u8; PAYLOAD_BYTES] =
            bytes.try_into().map_err(|_| Malformed("payload length"))?;
        let layout = Self {
            payload: PayloadId(read_u128(bytes, 0)),
            bytes: read_u64(bytes, 16),
            codec: bytes[24],
            data_shards: bytes[25],
            parity_shards: bytes[26],
            unit_bytes: read_u32(bytes, 28),
            set: read_u16(bytes, 32),
            part: read_u16(bytes, 34),
            order: bytes[40..56].try_into().expect("sixteen bytes"),
        };
        let shards = layout.shards();
        if layout.codec > 1 {
            return Err(Malformed("codec"));
        }
        if layout.data_shards == 0 || shards > SET_DRIVES_MAX {
            return Err(Malformed("shard counts"));
        }
        if layout.unit_bytes == 0 || !layout.unit_bytes.is_multiple_of(64) {
            return Err(Malformed("stripe unit"));
        }
        let mut seen = 0u16;
        for &drive in &layout.order[..shards] {
            let bit = 1u16.checked_shl(u32::from(drive)).ok_or(Malformed("drive order"))?;
            if seen & bit != 0 {
                return Err(Malformed("drive order"));
            }
            seen |= bit;
        }
        Ok(layout)
    }
}

/// Encoded length of a [`Layout`].
pub const LAYOUT_BYTES: usize = PAYLOAD_BYTES;

/// The MD5 of an object, or of its parts' MD5s with their count, as S3 shows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Etag {
    pub md5: [u8; 16],
    /// 0: a single PUT.
    pub parts: u32,
}

impl std::fmt::Display for Etag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for byte in self.md5 {
            write!(f, "{byte:02x}")?;
        }
        if self.parts > 0 {
            write!(f, "-{}", self.parts)?;
        }
        Ok(())
    }
}

/// Everything a record says, decoded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fields {
    pub operation: OperationId,
    pub version: VersionId,
    pub kind: Kind,
    /// Storage class: 0 STANDARD, 1 REDUCED_REDUNDANCY.
    pub class: u8,
    pub incarnation: Incarnation,
    /// `None` in a key that never had versions.
    pub lineage: Option<Lineage>,
    pub modified_ms: u64,
    pub size: u64,
    pub etag: Etag,
    pub form: PayloadForm,
    pub payloads: Vec<Layout>,
    /// S3 checksums as the object layer writes them; opaque here.
    pub checksums: Bytes,
    /// User metadata and content headers, or a system value; opaque here.
    pub metadata: Bytes,
}

/// An encoded record.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Record(Bytes);

/// The bytes are not a record: what is wrong with them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("malformed record: {0}")]
pub struct Malformed(pub &'static str);

impl Record {
    pub fn encode(fields: &Fields) -> Self {
        assert!(fields.payloads.len() <= PAYLOADS_INLINE_MAX);
        let origin = fields.lineage.and_then(|lineage| lineage.origin);
        let total = HEADER_BYTES
            + origin.map_or(0, |_| ORIGIN_BYTES)
            + fields.payloads.len() * PAYLOAD_BYTES
            + fields.checksums.len()
            + fields.metadata.len();
        assert!(total <= RECORD_BYTES_MAX, "a record of {total} bytes");
        let mut out = BytesMut::with_capacity(total);
        out.put_u8(FORMAT);
        out.put_u8(fields.kind as u8);
        out.put_u8(fields.class);
        out.put_u8(fields.form as u8);
        out.put_u32_le(u32::try_from(total).expect("below the limit"));
        out.put_u128_le(fields.operation.0);
        out.put_u128_le(fields.version.0);
        out.put_u64_le(fields.modified_ms);
        out.put_u64_le(fields.size);
        out.put_slice(&fields.etag.md5);
        out.put_u32_le(fields.etag.parts);
        out.put_u16_le(u16::try_from(fields.payloads.len()).expect("below the limit"));
        out.put_u16_le(u16::try_from(fields.checksums.len()).expect("below the limit"));
        out.put_u64_le(fields.incarnation.0);
        out.put_u32_le(u32::try_from(fields.metadata.len()).expect("below the limit"));
        out.put_u8(fields.lineage.map_or(0, Lineage::flags));
        out.put_bytes(0, 3);
        assert_eq!(out.len(), HEADER_BYTES);
        if let Some(origin) = origin {
            out.put_u32_le(origin.generation);
            out.put_u32_le(origin.sequence);
        }
        for layout in &fields.payloads {
            layout.encode_into(&mut out);
        }
        out.put_slice(&fields.checksums);
        out.put_slice(&fields.metadata);
        assert_eq!(out.len(), total);
        Self(out.freeze())
    }

    /// Takes bytes that came from a drive or a peer; checks everything the accessors rely on.
    pub fn decode(bytes: Bytes) -> Result<Self, Malformed> {
        if bytes.len() < HEADER_BYTES || bytes.len() > RECORD_BYTES_MAX {
            return Err(Malformed("length"));
        }
        if bytes[0] != FORMAT {
            return Err(Malformed("format version"));
        }
        if !(1..=6).contains(&bytes[1]) {
            return Err(Malformed("kind"));
        }
        if bytes[3] > 2 {
            return Err(Malformed("payload form"));
        }
        let lineage = bytes[92];
        if lineage > 15 || (lineage != 0 && lineage & LINEAGE == 0) {
            return Err(Malformed("lineage"));
        }
        let payloads = usize::from(read_u16(&bytes, 76));
        let total = payloads_start(&bytes)
            + payloads * PAYLOAD_BYTES
            + usize::from(read_u16(&bytes, 78))
            + usize::try_from(read_u32(&bytes, 88)).map_err(|_| Malformed("length"))?;
        if total != bytes.len() || read_u32(&bytes, 4) as usize != total {
            return Err(Malformed("length"));
        }
        let form_fits = match bytes[3] {
            0 => payloads == 0,
            1 => (1..=PAYLOADS_INLINE_MAX).contains(&payloads),
            _ => payloads == 1,
        };
        if !form_fits {
            return Err(Malformed("payload count"));
        }
        let record = Self(bytes);
        for index in 0..payloads {
            Layout::decode(record.payload_slice(index))?;
        }
        Ok(record)
    }

    pub fn bytes(&self) -> &Bytes {
        &self.0
    }
    pub fn operation(&self) -> OperationId {
        OperationId(read_u128(&self.0, 8))
    }
    pub fn version(&self) -> VersionId {
        VersionId(read_u128(&self.0, 24))
    }
    pub fn kind(&self) -> Kind {
        match self.0[1] {
            1 => Kind::Data,
            2 => Kind::Tombstone,
            3 => Kind::Relocated,
            4 => Kind::Lost,
            5 => Kind::Marker,
            _ => Kind::Removed,
        }
    }
    pub fn lineage(&self) -> Option<Lineage> {
        let flags = self.0[92];
        let has = |flag: u8| flags & flag != 0;
        has(LINEAGE).then(|| Lineage {
            is_null: has(LINEAGE_NULL),
            keeps_predecessor: has(LINEAGE_KEEPS),
            origin: has(LINEAGE_ORIGIN).then(|| Slot {
                generation: read_u32(&self.0, HEADER_BYTES),
                sequence: read_u32(&self.0, HEADER_BYTES + 4),
            }),
        })
    }
    /// The same record with other metadata.
    #[must_use]
    pub fn with_metadata(&self, metadata: Bytes) -> Self {
        Self::encode(&Fields { metadata, ..self.fields() })
    }
    /// The same record with another lineage.
    #[must_use]
    pub fn with_lineage(&self, lineage: Option<Lineage>) -> Self {
        if self.lineage() == lineage {
            return self.clone();
        }
        Self::encode(&Fields { lineage, ..self.fields() })
    }
    pub fn class(&self) -> u8 {
        self.0[2]
    }
    pub fn form(&self) -> PayloadForm {
        match self.0[3] {
            0 => PayloadForm::None,
            1 => PayloadForm::Inline,
            _ => PayloadForm::Manifest,
        }
    }
    pub fn modified_ms(&self) -> u64 {
        read_u64(&self.0, 40)
    }
    pub fn size(&self) -> u64 {
        read_u64(&self.0, 48)
    }
    pub fn etag(&self) -> Etag {
        Etag {
            md5: self.0[56..72].try_into().expect("sixteen bytes"),
            parts: read_u32(&self.0, 72),
        }
    }
    pub fn incarnation(&self) -> Incarnation {
        Incarnation(read_u64(&self.0, 80))
    }
    pub fn payload_count(&self) -> usize {
        usize::from(read_u16(&self.0, 76))
    }
    pub fn payload(&self, index: usize) -> Layout {
        Layout::decode(self.payload_slice(index)).expect("checked when the record was made")
    }
    pub fn payloads(&self) -> impl Iterator<Item = Layout> + '_ {
        (0..self.payload_count()).map(|index| self.payload(index))
    }
    pub fn checksums(&self) -> Bytes {
        let start = payloads_start(&self.0) + self.payload_count() * PAYLOAD_BYTES;
        self.0.slice(start..start + usize::from(read_u16(&self.0, 78)))
    }
    pub fn metadata(&self) -> Bytes {
        let start = payloads_start(&self.0)
            + self.payload_count() * PAYLOAD_BYTES
            + usize::from(read_u16(&self.0, 78));
        self.0.slice(start..)
    }

    pub fn fields(&self) -> Fields {
        Fields {
            operation: self.operation(),
            version: self.version(),
            kind: self.kind(),
            class: self.class(),
            incarnation: self.incarnation(),
            lineage: self.lineage(),
            modified_ms: self.modified_ms(),
            size: self.size(),
            etag: self.etag(),
            form: self.form(),
            payloads: self.payloads().collect(),
            checksums: self.checksums(),
            metadata: self.metadata(),
        }
    }

    fn payload_slice(&self, index: usize) -> &[u8] {
        let start = payloads_start(&self.0) + index * PAYLOAD_BYTES;
        &self.0[start..start + PAYLOAD_BYTES]
    }
}

impl Lineage {
    fn flags(self) -> u8 {
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        LINEAGE
            | flag(self.is_null, LINEAGE_NULL)
            | flag(self.keeps_predecessor, LINEAGE_KEEPS)
            | flag(self.origin.is_some(), LINEAGE_ORIGIN)
    }
}

/// Where the payloads begin in an encoded record.
fn payloads_start(record: &[u8]) -> usize {
    HEADER_BYTES + if record[92] & LINEAGE_ORIGIN != 0 { ORIGIN_BYTES } else { 0 }
}

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}({}, {} bytes)", self.kind(), self.operation(), self.size())
    }
}

pub(crate) fn read_u16(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().expect("two bytes"))
}
pub(crate) fn read_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}
pub(crate) fn read_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
pub(crate) fn read_u128(bytes: &[u8], at: usize) -> u128 {
    u128::from_le_bytes(bytes[at..at + 16].try_into().expect("sixteen bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Fields {
        let mut order = [0; SET_DRIVES_MAX];
        order[..4].copy_from_slice(&[2, 3, 0, 1]);
        Fields {
            operation: OperationId(7),
            version: VersionId(8),
            kind: Kind::Data,
            class: 1,
            incarnation: Incarnation(9),
            lineage: None,
            modified_ms: 1_700_000_000_000,
            size: 10 << 20,
            etag: Etag { md5: [3; 16], parts: 2 },
            form: PayloadForm::Inline,
            payloads: vec![Layout {
                payload: PayloadId(11),
                bytes: 10 << 20,
                codec: 1,
                data_shards: 2,
                parity_shards: 2,
                unit_bytes: 128 << 10,
                set: 0,
                part: 0,
                order,
            }],
            checksums: Bytes::from_static(b"crc"),
            metadata: Bytes::from_static(b"content-type"),
        }
    }

    #[test]
    fn a_record_says_what_was_put_into_it() {
        let record = Record::encode(&sample());
        let again = Record::decode(record.bytes().clone()).expect("decodes");
        assert_eq!(again.fields(), sample());
    }

    #[test]
    fn a_lineage_comes_back_and_moves_nothing() {
        let origin = Some(Slot { generation: 1, sequence: 7 });
        for bits in 0..8 {
            let has = |bit: u8| bits & bit != 0;
            let lineage = Lineage {
                is_null: has(1),
                keeps_predecessor: has(2),
                origin: origin.filter(|_| has(4)),
            };
            let plain = Record::encode(&sample());
            let record = plain.with_lineage(Some(lineage));
            let again = Record::decode(record.bytes().clone()).expect("decodes");
            assert_eq!(again.fields(), Fields { lineage: Some(lineage), ..sample() });
            assert_eq!(record.with_lineage(None), plain);
            for length in 0..record.bytes().len() {
                assert!(Record::decode(record.bytes().slice(..length)).is_err());
            }
        }
    }

    #[test]
    fn bytes_that_are_no_record_are_refused() {
        let record = Record::encode(&sample());
        for length in 0..record.bytes().len() {
            assert!(Record::decode(record.bytes().slice(..length)).is_err());
        }
        for (at, wrong) in [
            (0, 9),
            (1, 0),
            (1, 7),
            (3, 3),
            (76, 2),
            (92, 2),
            (92, 9),
            (92, 17),
            (96 + 24, 7),
            (96 + 25, 0),
        ] {
            let mut bytes = record.bytes().to_vec();
            bytes[at] = wrong;
            assert!(Record::decode(bytes.into()).is_err(), "byte {at} set to {wrong}");
        }
    }

    #[test]
    fn shards_hold_their_share_of_the_payload() {
        let layout = &sample().payloads[0];
        assert_eq!(layout.shard_bytes(), 5 << 20);
        let odd = Layout { bytes: (256 << 10) + 1, ..layout.clone() };
        assert_eq!(odd.shard_bytes(), (128 << 10) + 64);
        assert_eq!(odd.shard_of(0), Some(2));
        assert_eq!(odd.shard_of(7), None);
    }
}

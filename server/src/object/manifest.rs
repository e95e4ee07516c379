//! The list of payloads of an object with more parts than a record holds, itself stored as a
//! payload. Byte by byte in `docs/format.md`, "Manifest": magic, count (u32), length of the part
//! table (u32), then the layouts as in a record, then the part table, then zeros up to a length that
//! does not travel with records. The payload's own checksums protect it.

use basalt_engine::record::{COPY_BYTES_MAX, LAYOUT_BYTES, Layout};
use bytes::{BufMut, Bytes, BytesMut};

const MAGIC: &[u8; 8] = b"BSLTMAN1";
const HEADER_BYTES: usize = 16;
/// A completion proposes its record more than once, and has no copy of a payload in hand then.
const BYTES_MIN: usize = COPY_BYTES_MAX as usize + 1;

pub(super) struct Manifest {
    pub payloads: Vec<Layout>,
    /// As [`super::parts`] writes it.
    pub parts: Bytes,
}

pub(super) fn encode(payloads: &[Layout], parts: &Bytes) -> Bytes {
    let length = HEADER_BYTES + payloads.len() * LAYOUT_BYTES + parts.len();
    let mut out = BytesMut::with_capacity(length.max(BYTES_MIN));
    out.put_slice(MAGIC);
    out.put_u32_le(u32::try_from(payloads.len()).expect("at most ten thousand parts"));
    out.put_u32_le(u32::try_from(parts.len()).expect("at most ten thousand parts"));
    for layout in payloads {
        layout.encode_into(&mut out);
    }
    out.put_slice(parts);
    out.resize(length.max(BYTES_MIN), 0);
    out.freeze()
}

/// What [`encode`] wrote; `None` if the bytes are anything else.
pub(super) fn decode(bytes: &Bytes) -> Option<Manifest> {
    let header = bytes.get(..HEADER_BYTES)?;
    let word =
        |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes")) as usize;
    let (count, parts) = (word(8), word(12));
    let parts_at = HEADER_BYTES + count * LAYOUT_BYTES;
    let end = parts_at + parts;
    if &header[..8] != MAGIC || bytes.len() != end.max(BYTES_MIN) {
        return None;
    }
    let layouts = bytes[HEADER_BYTES..parts_at].chunks_exact(LAYOUT_BYTES);
    let payloads = layouts.map(|bytes| Layout::decode(bytes).ok()).collect::<Option<_>>()?;
    Some(Manifest { payloads, parts: bytes.slice(parts_at..end) })
}

#[cfg(test)]
mod tests {
    use basalt_engine::units::PayloadId;

    use super::*;

    fn layout(number: u16) -> Layout {
        Layout {
            payload: PayloadId(number.into()),
            bytes: 5 << 20,
            codec: 1,
            data_shards: 2,
            parity_shards: 2,
            unit_bytes: 4096,
            set: 0,
            part: number,
            order: std::array::from_fn(|place| place as u8),
        }
    }

    #[test]
    fn a_manifest_of_any_length_comes_back_and_never_travels() {
        for count in [17, 146, 147, 1000] {
            let payloads: Vec<Layout> = (1..=count).map(layout).collect();
            let bytes = encode(&payloads, &Bytes::from_static(b"table"));
            assert!(bytes.len() as u64 > COPY_BYTES_MAX);
            let manifest = decode(&bytes).expect("decodes");
            assert_eq!((manifest.payloads, &manifest.parts[..]), (payloads, &b"table"[..]));
            assert!(decode(&bytes.slice(..bytes.len() - 1)).is_none());
        }
    }
}

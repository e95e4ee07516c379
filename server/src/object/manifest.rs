//! The list of payloads of an object with more parts than a record holds, itself stored as a
//! payload. Byte by byte in `docs/format.md`, "Manifest": magic, count (u32), then the layouts as in
//! a record. The payload's own checksums protect it.

use basalt_engine::record::{LAYOUT_BYTES, Layout};
use bytes::{BufMut, Bytes, BytesMut};

const MAGIC: &[u8; 8] = b"BSLTMAN1";
const HEADER_BYTES: usize = 16;

pub(super) fn encode(payloads: &[Layout]) -> Bytes {
    let mut out = BytesMut::with_capacity(HEADER_BYTES + payloads.len() * LAYOUT_BYTES);
    out.put_slice(MAGIC);
    out.put_u32_le(u32::try_from(payloads.len()).expect("at most ten thousand parts"));
    out.put_u32_le(0);
    for layout in payloads {
        layout.encode_into(&mut out);
    }
    out.freeze()
}

/// What [`encode`] wrote; `None` if the bytes are anything else.
pub(super) fn decode(bytes: &[u8]) -> Option<Vec<Layout>> {
    let (header, layouts) = bytes.split_at_checked(HEADER_BYTES)?;
    let count = u32::from_le_bytes(header[8..12].try_into().expect("four bytes")) as usize;
    if &header[..8] != MAGIC || layouts.len() != count * LAYOUT_BYTES {
        return None;
    }
    layouts.chunks_exact(LAYOUT_BYTES).map(|bytes| Layout::decode(bytes).ok()).collect()
}

//! Frames: see [`super`].

use crate::buffer::Buffer;
use crate::checksum::crc64;
use crate::record::{read_u16, read_u32, read_u64, read_u128};
use crate::units::{BlockCount, BlockIndex, DriveId};

use super::FORMAT;

/// Bytes of a frame before its body.
pub const FRAME_HEADER_BYTES: usize = 72;
const HEADER_CRC_AT: usize = 64;
/// Longest frame. A reader allocates this much on the word of a header that passed its checksum.
pub const FRAME_BLOCKS_MAX: BlockCount = BlockCount(1024);

const _: () = assert!(HEADER_CRC_AT + 8 == FRAME_HEADER_BYTES);
const _: () = assert!(FRAME_HEADER_BYTES.is_multiple_of(8));

/// What a frame holds. The numbers are its magic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum FrameKind {
    Batch = u32::from_le_bytes(*b"BJnl"),
    RunPage = u32::from_le_bytes(*b"BRun"),
    Manifest = u32::from_le_bytes(*b"BMan"),
}

/// The drive as its frames know it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameOwner {
    pub drive: DriveId,
    pub salt: u64,
}

/// The head of a frame. `sequence` numbers batches, and checkpoints for the other kinds; `page`
/// numbers the pages of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameHeader {
    pub sequence: u64,
    pub page: u32,
    pub body_bytes: u32,
    pub body_crc: u64,
}

impl FrameHeader {
    pub fn length_blocks(&self) -> BlockCount {
        frame_blocks(self.body_bytes as usize)
    }
}

/// Blocks of a frame with a body of `body_bytes`.
pub const fn frame_blocks(body_bytes: usize) -> BlockCount {
    BlockCount::covering((FRAME_HEADER_BYTES + body_bytes) as u64)
}

/// Lays a frame out for `at`. The body is given in parts.
pub fn encode_frame<'a>(
    owner: FrameOwner,
    kind: FrameKind,
    at: BlockIndex,
    sequence: u64,
    page: u32,
    parts: impl Iterator<Item = &'a [u8]> + Clone,
) -> Buffer {
    let body_bytes: usize = parts.clone().map(<[u8]>::len).sum();
    let length = frame_blocks(body_bytes);
    assert!(length <= FRAME_BLOCKS_MAX, "a frame of {length:?}");
    let mut buffer = Buffer::unwritten(length);
    let mut end = FRAME_HEADER_BYTES;
    for part in parts {
        buffer[end..end + part.len()].copy_from_slice(part);
        end += part.len();
    }
    buffer[end..].fill(0);
    let body_crc = body_crc(owner, &buffer[FRAME_HEADER_BYTES..end]);
    let head = &mut buffer[..FRAME_HEADER_BYTES];
    head[0..4].copy_from_slice(&(kind as u32).to_le_bytes());
    head[4..6].copy_from_slice(&FORMAT.to_le_bytes());
    head[6..8].copy_from_slice(&(FRAME_HEADER_BYTES as u16).to_le_bytes());
    head[8..24].copy_from_slice(&owner.drive.0.to_le_bytes());
    head[24..32].copy_from_slice(&sequence.to_le_bytes());
    head[32..40].copy_from_slice(&at.0.to_le_bytes());
    head[40..44].copy_from_slice(&page.to_le_bytes());
    head[44..48].copy_from_slice(&u32::try_from(body_bytes).expect("below 2^32").to_le_bytes());
    head[48..56].fill(0);
    head[56..64].copy_from_slice(&body_crc.to_le_bytes());
    let head_crc = crc64(&head[..HEADER_CRC_AT]) ^ owner.salt;
    head[HEADER_CRC_AT..].copy_from_slice(&head_crc.to_le_bytes());
    buffer
}

/// The head of a frame of `owner` that was written for `at`, if `block` starts with one.
pub fn decode_frame_header(
    owner: FrameOwner,
    kind: FrameKind,
    at: BlockIndex,
    block: &[u8],
) -> Option<FrameHeader> {
    if read_u32(block, 0) != kind as u32
        || read_u64(block, HEADER_CRC_AT) != crc64(&block[..HEADER_CRC_AT]) ^ owner.salt
        || read_u16(block, 4) != FORMAT
        || usize::from(read_u16(block, 6)) != FRAME_HEADER_BYTES
        || read_u128(block, 8) != owner.drive.0
        || read_u64(block, 32) != at.0
    {
        return None;
    }
    let header = FrameHeader {
        sequence: read_u64(block, 24),
        page: read_u32(block, 40),
        body_bytes: read_u32(block, 44),
        body_crc: read_u64(block, 56),
    };
    (header.length_blocks() <= FRAME_BLOCKS_MAX).then_some(header)
}

/// The body of the frame in `blocks`, if it is whole.
pub fn frame_body<'a>(
    owner: FrameOwner,
    header: &FrameHeader,
    blocks: &'a [u8],
) -> Option<&'a [u8]> {
    let end = FRAME_HEADER_BYTES + header.body_bytes as usize;
    let body = blocks.get(FRAME_HEADER_BYTES..end)?;
    (body_crc(owner, body) == header.body_crc).then_some(body)
}

/// The checksum of a frame's body.
pub fn body_crc(owner: FrameOwner, body: &[u8]) -> u64 {
    crc64(body) ^ owner.salt
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: FrameOwner = FrameOwner { drive: DriveId(7), salt: 0xfeed };

    #[test]
    fn a_frame_is_found_only_where_and_as_it_was_written() {
        let body = vec![0xa5; 5000];
        let at = BlockIndex(12);
        let parts = [&body[..10], &body[10..]];
        let frame = encode_frame(OWNER, FrameKind::Batch, at, 3, 1, parts.iter().copied());
        let header = decode_frame_header(OWNER, FrameKind::Batch, at, &frame).expect("valid");
        assert_eq!((header.sequence, header.page, header.length_blocks().0), (3, 1, 2));
        assert_eq!(frame_body(OWNER, &header, &frame), Some(&body[..]));
        let other = FrameOwner { drive: DriveId(8), ..OWNER };
        let salted = FrameOwner { salt: 1, ..OWNER };
        assert!(decode_frame_header(other, FrameKind::Batch, at, &frame).is_none());
        assert!(decode_frame_header(salted, FrameKind::Batch, at, &frame).is_none());
        assert!(decode_frame_header(OWNER, FrameKind::RunPage, at, &frame).is_none());
        assert!(decode_frame_header(OWNER, FrameKind::Batch, BlockIndex(13), &frame).is_none());
        let mut flipped = frame.to_vec();
        flipped[5071] ^= 1;
        assert!(frame_body(OWNER, &header, &flipped).is_none());
        for at_byte in 0..FRAME_HEADER_BYTES {
            let mut flipped = frame.to_vec();
            flipped[at_byte] ^= 1;
            assert!(decode_frame_header(OWNER, FrameKind::Batch, at, &flipped).is_none());
        }
    }
}

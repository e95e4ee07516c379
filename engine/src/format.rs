//! What stands on a drive, byte by byte (see `docs/format.md`), apart from the superblock
//! (`superblock`), records (`record`) and checksum blocks of payload (`checksum`).
//!
//! Everything is little-endian. Two forms carry all state of a drive:
//!
//! **Frame**: a header of [`FRAME_HEADER_BYTES`] and a body, padded with zeros to whole blocks. A
//! journal batch, a page of an index run and a manifest are frames. A frame names its drive and
//! its own position, so that one that is whole but stands elsewhere is not taken for the right one.
//! Its checksums are XORed with the drive's salt, which never leaves the drive: no client can write
//! bytes that pass for a frame.
//!
//! **Entry**: what a body holds. Entries say what is, not what changes, so that applying one twice,
//! or an old one before a newer one, does no harm. The journal and the runs use the same entries.

mod entry;
mod frame;

pub use entry::{
    ENTRY_FIXED_BYTES_MAX, Entry, Extent, Fields, MalformedEntry, Origin, Stored, byte_position,
    map_bytes, put_map,
};
pub use frame::{
    FRAME_BLOCKS_MAX, FRAME_HEADER_BYTES, FrameHeader, FrameKind, FrameOwner, body_crc,
    decode_frame_header, encode_frame, frame_blocks, frame_body,
};

/// Version of everything in this module and of the superblock.
pub const FORMAT: u16 = 1;

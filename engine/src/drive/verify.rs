//! Comparing stored payload with its checksums.

use crate::buffer::Buffer;
use crate::checksum::{RUN_BLOCKS, RunChecksums, checksum_block, small_shard};
use crate::error::{Error, Result};
use crate::format::Stored;
use crate::index::Place;
use crate::request::SmallShard;
use crate::seam::Storage;
use crate::units::{BLOCK_BYTES, BlockCount, BlockIndex, PayloadId, SET_DRIVES_MAX};

use super::payload::block_of;

/// Reads a payload and compares it with its checksums. Says how many bytes that were.
pub(super) async fn verify_payload<S: Storage>(
    storage: &S,
    payload: PayloadId,
    place: &Place,
) -> Result<u64> {
    match place {
        Place::Journal { checksum, bytes } => {
            let shard = SmallShard { checksum: *checksum, bytes: bytes.clone() };
            verify_small(payload, &shard, BlockIndex(0))
        }
        Place::Stored(Stored::Packed { checksum, at, offset, bytes }) => {
            let (from, length) = (usize::from(*offset), *bytes as usize);
            let blocks = BlockCount::covering((from + length).max(1) as u64);
            let (buffer, result) = storage.read(*at, Buffer::unwritten(blocks)).await;
            result?;
            let bytes = bytes::Bytes::copy_from_slice(&buffer[from..from + length]);
            verify_small(payload, &SmallShard { checksum: *checksum, bytes }, *at)
        }
        Place::Stored(Stored::Runs { data_blocks, extents }) => {
            for run in 0..data_blocks.div_ceil(RUN_BLOCKS) {
                let at = block_of(extents, checksum_block(run));
                let blocks = (data_blocks - run * RUN_BLOCKS).min(RUN_BLOCKS);
                verified_run(storage, payload, run, at, blocks).await?;
            }
            Ok(data_blocks * BLOCK_BYTES as u64)
        }
    }
}

fn verify_small(payload: PayloadId, shard: &SmallShard, at: BlockIndex) -> Result<u64> {
    match small_is_sound(payload, shard) {
        true => Ok(shard.bytes.len() as u64),
        false => Err(Error::Corrupt { what: "small payload", at }),
    }
}

/// Which shard it is stands in no place of the drive: it has to be one of them.
pub(super) fn small_is_sound(payload: PayloadId, shard: &SmallShard) -> bool {
    (0..SET_DRIVES_MAX).any(|number| small_shard(payload, number, &shard.bytes) == shard.checksum)
}

/// A run as it stands on the drive, checksum block included, all of it sound.
pub(super) async fn verified_run<S: Storage>(
    storage: &S,
    payload: PayloadId,
    run: u64,
    at: BlockIndex,
    blocks: u64,
) -> Result<Buffer> {
    let (buffer, result) = storage.read(at, Buffer::unwritten(BlockCount(1 + blocks))).await;
    result?;
    let (head, data) = buffer.split_at(BLOCK_BYTES);
    let parsed = RunChecksums::parse(head).ok().filter(|parsed| {
        parsed.payload() == payload && parsed.run() == run && parsed.blocks() == blocks
    });
    let parsed = parsed.ok_or(Error::Corrupt { what: "checksum block", at })?;
    parsed.verify(data).map_err(|block| Error::Corrupt {
        what: "payload",
        at: at.plus(BlockCount(1 + block as u64)),
    })?;
    Ok(buffer)
}

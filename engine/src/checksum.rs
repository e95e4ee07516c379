//! Checksums of stored payload: a CRC64-NVME for each block, bound to the place it belongs to, and
//! the form in which the checksums of a run stand beside its blocks.
//!
//! **Block checksum.** CRC64-NVME of the block's 4096 bytes, XORed with a mix of payload id, shard
//! index and the block's index within the shard. A block that is whole but stands where another
//! belongs therefore fails like a corrupt one. The last block of a shard is padded with zeros. The
//! copies of a payload (codec 0) all carry shard index 0, so that they are identical.
//!
//! **Run.** Up to [`RUN_BLOCKS`] consecutive data blocks of a shard, preceded on the drive (and in
//! the buffers that carry it) by one checksum block. Data block `i` of a shard therefore stands at
//! block `i + i / 256 + 1` of its extent; see [`extent_block`].
//!
//! **Checksum block**, little-endian:
//!
//! | bytes | what |
//! |---|---|
//! | 0..8 | magic `BsltCsum` |
//! | 8..10 | format version, 1 |
//! | 10..12 | shard index |
//! | 12..16 | data blocks in the run, 1..=256 |
//! | 16..32 | payload id |
//! | 32..40 | run index within the shard |
//! | 40..64 | zero |
//! | 64..2112 | block checksums, 8 bytes each, zero after the last |
//! | 2112..4088 | zero |
//! | 4088..4096 | CRC64-NVME of bytes 0..4088 |

use std::ops::Range;

use crc_fast::CrcAlgorithm;

use crate::buffer::Buffer;
use crate::record::{SMALL_SHARD_BYTES_MAX, read_u16, read_u32, read_u64, read_u128};
use crate::units::{BLOCK_BYTES, BlockCount, PayloadId};

/// Most data blocks in a run.
pub const RUN_BLOCKS: u64 = 256;

const MAGIC: &[u8; 8] = b"BsltCsum";
const FORMAT: u16 = 1;
const CHECKSUMS_AT: usize = 64;
const OWN_CRC_AT: usize = BLOCK_BYTES - 8;
/// Stands for the block index in the checksum of a small shard, which no block can have.
const SMALL_SHARD_BLOCK: u64 = u64::MAX;

const _: () = assert!(CHECKSUMS_AT + RUN_BLOCKS as usize * 8 <= OWN_CRC_AT);

/// Plain CRC64-NVME, for records and the journal; also the S3 checksum of that name.
pub fn crc64(bytes: &[u8]) -> u64 {
    crc_fast::checksum(CrcAlgorithm::Crc64Nvme, bytes)
}

/// [`crc64`] of what is added piece by piece.
pub struct Crc64(crc_fast::Digest);

impl Default for Crc64 {
    fn default() -> Self {
        Self(crc_fast::Digest::new(CrcAlgorithm::Crc64Nvme))
    }
}

impl Crc64 {
    pub fn add(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub fn finish(&self) -> u64 {
        self.0.finalize()
    }
}

/// The checksum of a shard (or copy) that rides in the journal.
pub fn small_shard(payload: PayloadId, shard: usize, bytes: &[u8]) -> u64 {
    assert!(bytes.len() as u64 <= SMALL_SHARD_BYTES_MAX, "a small shard of {} bytes", bytes.len());
    crc64(bytes) ^ Place::new(payload, shard).mix(SMALL_SHARD_BLOCK)
}

/// Fills in the checksum block of a run: `buffer` holds one block of space for it and then the
/// data blocks of run `run` of the shard.
pub fn seal_run(buffer: &mut Buffer, payload: PayloadId, shard: usize, run: u64) {
    let (head, data) = buffer.split_at_mut(BLOCK_BYTES);
    let count = data.len() / BLOCK_BYTES;
    assert!(count > 0 && count as u64 <= RUN_BLOCKS, "a run of {count} blocks");
    head.fill(0);
    head[..8].copy_from_slice(MAGIC);
    head[8..10].copy_from_slice(&FORMAT.to_le_bytes());
    let shard_stored = u16::try_from(shard).expect("a set has few shards");
    head[10..12].copy_from_slice(&shard_stored.to_le_bytes());
    head[12..16].copy_from_slice(&u32::try_from(count).expect("below 257").to_le_bytes());
    head[16..32].copy_from_slice(&payload.0.to_le_bytes());
    head[32..40].copy_from_slice(&run.to_le_bytes());
    let place = Place::new(payload, shard);
    let indexes = run * RUN_BLOCKS..;
    let slots = head[CHECKSUMS_AT..].chunks_exact_mut(8);
    for ((block, index), slot) in data.chunks_exact(BLOCK_BYTES).zip(indexes).zip(slots) {
        slot.copy_from_slice(&place.checksum(block, index).to_le_bytes());
    }
    let own = crc64(&head[..OWN_CRC_AT]);
    head[OWN_CRC_AT..].copy_from_slice(&own.to_le_bytes());
}

/// Compares whole data blocks with their checksums. `first_block` is the index within the shard of
/// the first of them. The error is the position in `data`, in blocks, of the first bad one.
pub fn verify_blocks(
    payload: PayloadId,
    shard: usize,
    first_block: u64,
    data: &[u8],
    checksums: &[u64],
) -> Result<(), usize> {
    assert_eq!(data.len(), checksums.len() * BLOCK_BYTES, "one checksum for each block");
    let place = Place::new(payload, shard);
    let blocks = data.chunks_exact(BLOCK_BYTES).zip(first_block..).zip(checksums);
    for (at, ((block, index), &checksum)) in blocks.enumerate() {
        if place.checksum(block, index) != checksum {
            return Err(at);
        }
    }
    Ok(())
}

/// What is wrong with a block that should be a checksum block.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("malformed checksum block: {0}")]
pub struct MalformedRun(pub &'static str);

/// A checksum block that passed its own CRC.
#[derive(Clone, Copy)]
pub struct RunChecksums<'a> {
    block: &'a [u8],
}

impl<'a> RunChecksums<'a> {
    /// Checks everything that can be checked without knowing whose run is expected here: compare
    /// [`Self::payload`], [`Self::run`] and, where it is known, [`Self::shard`].
    pub fn parse(block: &'a [u8]) -> Result<Self, MalformedRun> {
        if block.len() != BLOCK_BYTES {
            return Err(MalformedRun("length"));
        }
        if &block[..8] != MAGIC {
            return Err(MalformedRun("magic"));
        }
        if crc64(&block[..OWN_CRC_AT]) != read_u64(block, OWN_CRC_AT) {
            return Err(MalformedRun("checksum"));
        }
        if read_u16(block, 8) != FORMAT {
            return Err(MalformedRun("format version"));
        }
        let parsed = Self { block };
        if !(1..=RUN_BLOCKS).contains(&parsed.blocks()) {
            return Err(MalformedRun("block count"));
        }
        if parsed.run() > u64::MAX / RUN_BLOCKS - 1 {
            return Err(MalformedRun("run index"));
        }
        Ok(parsed)
    }

    /// As [`Self::parse`], for a reader that knows what belongs here.
    pub fn parse_expected(
        block: &'a [u8],
        payload: PayloadId,
        shard: usize,
        run: u64,
    ) -> Result<Self, MalformedRun> {
        let parsed = Self::parse(block)?;
        if parsed.payload() != payload {
            return Err(MalformedRun("another payload"));
        }
        if parsed.shard() != shard || parsed.run() != run {
            return Err(MalformedRun("another place in the payload"));
        }
        Ok(parsed)
    }

    pub fn payload(&self) -> PayloadId {
        PayloadId(read_u128(self.block, 16))
    }
    pub fn shard(&self) -> usize {
        usize::from(read_u16(self.block, 10))
    }
    pub fn run(&self) -> u64 {
        read_u64(self.block, 32)
    }
    /// Data blocks in the run.
    pub fn blocks(&self) -> u64 {
        u64::from(read_u32(self.block, 12))
    }
    /// Checksums of the data blocks `range`, counted from the start of the run.
    pub fn checksums(&self, range: Range<u64>) -> Box<[u64]> {
        assert!(range.end <= self.blocks(), "the run has {} blocks", self.blocks());
        range.map(|at| read_u64(self.block, CHECKSUMS_AT + at as usize * 8)).collect()
    }
    /// Compares all data blocks of the run, as [`verify_blocks`] does.
    pub fn verify(&self, data: &[u8]) -> Result<(), usize> {
        let checksums = self.checksums(0..self.blocks());
        verify_blocks(self.payload(), self.shard(), self.run() * RUN_BLOCKS, data, &checksums)
    }
}

impl std::fmt::Debug for RunChecksums<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (payload, shard, run) = (self.payload(), self.shard(), self.run());
        write!(f, "run {run} of shard {shard} of {payload}, {} blocks", self.blocks())
    }
}

/// Where data block `data_block` of a shard stands in the shard's extent.
pub const fn extent_block(data_block: u64) -> u64 {
    data_block + data_block / RUN_BLOCKS + 1
}

/// Where the checksum block of run `run` stands in the shard's extent.
pub const fn checksum_block(run: u64) -> u64 {
    run * (RUN_BLOCKS + 1)
}

/// Blocks of the extent of a shard of `data_blocks` blocks, checksum blocks included.
pub const fn extent_blocks(data_blocks: BlockCount) -> BlockCount {
    BlockCount(data_blocks.0 + data_blocks.0.div_ceil(RUN_BLOCKS))
}

/// The data blocks that hold the bytes `range` of a shard.
pub const fn blocks_of(range: Range<u64>) -> Range<u64> {
    if range.start >= range.end {
        return 0..0;
    }
    range.start / BLOCK_BYTES as u64..range.end.div_ceil(BLOCK_BYTES as u64)
}

/// The runs that hold the data blocks `blocks` of a shard.
pub const fn runs_of(blocks: Range<u64>) -> Range<u64> {
    if blocks.start >= blocks.end {
        return 0..0;
    }
    blocks.start / RUN_BLOCKS..blocks.end.div_ceil(RUN_BLOCKS)
}

/// Cuts a range of data blocks where runs end: what each read of one run asks for.
pub fn split_by_run(blocks: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    runs_of(blocks.clone())
        .map(move |run| blocks.start.max(run * RUN_BLOCKS)..blocks.end.min((run + 1) * RUN_BLOCKS))
}

/// A shard, ready to be mixed with block indexes. The result is stored: it never changes.
#[derive(Clone, Copy)]
struct Place(u64);

impl Place {
    fn new(payload: PayloadId, shard: usize) -> Self {
        let low = avalanche(payload.0 as u64);
        let high = avalanche(low ^ (payload.0 >> 64) as u64);
        Self(avalanche(high ^ shard as u64))
    }
    fn mix(self, block: u64) -> u64 {
        avalanche(self.0 ^ block)
    }
    fn checksum(self, block: &[u8], index: u64) -> u64 {
        crc64(block) ^ self.mix(index)
    }
}

/// A bijection of 64 bits in which each input bit reaches every output bit.
const fn avalanche(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAYLOAD: PayloadId = PayloadId(0x0123_4567_89ab_cdef_0011_2233_4455_6677);

    fn run_buffer(blocks: u64, run: u64) -> Buffer {
        let mut buffer = Buffer::zeroed(BlockCount(blocks + 1));
        for (at, byte) in buffer.iter_mut().enumerate() {
            *byte = (at / BLOCK_BYTES * 31 + at * 7 + run as usize) as u8;
        }
        seal_run(&mut buffer, PAYLOAD, 3, run);
        buffer
    }

    #[test]
    fn a_sealed_run_parses_and_verifies() {
        for blocks in [1, 2, 255, 256] {
            let buffer = run_buffer(blocks, 5);
            let (head, data) = buffer.split_at(BLOCK_BYTES);
            let run = RunChecksums::parse_expected(head, PAYLOAD, 3, 5).expect("parses");
            assert_eq!(run.blocks(), blocks);
            assert_eq!(run.verify(data), Ok(()));
            let last = run.checksums(blocks - 1..blocks);
            let first_block = 5 * RUN_BLOCKS + blocks - 1;
            let tail = &data[data.len() - BLOCK_BYTES..];
            assert_eq!(verify_blocks(PAYLOAD, 3, first_block, tail, &last), Ok(()));
        }
    }

    #[test]
    fn any_changed_byte_is_found() {
        let mut buffer = run_buffer(2, 0);
        for at in (0..BLOCK_BYTES).chain((BLOCK_BYTES..buffer.len()).step_by(97)) {
            buffer[at] ^= 0x10;
            let (head, data) = buffer.split_at(BLOCK_BYTES);
            match RunChecksums::parse(head) {
                Err(_) => assert!(at < BLOCK_BYTES, "byte {at} is data"),
                Ok(run) => assert_eq!(run.verify(data), Err(at / BLOCK_BYTES - 1), "byte {at}"),
            }
            buffer[at] ^= 0x10;
        }
    }

    #[test]
    fn a_block_in_another_place_is_found() {
        let blocks = vec![0u8; 2 * BLOCK_BYTES];
        let mut buffer = Buffer::zeroed(BlockCount(3));
        seal_run(&mut buffer, PAYLOAD, 3, 0);
        let head = &buffer[..BLOCK_BYTES];
        let sums = RunChecksums::parse(head).expect("parses").checksums(0..2);
        assert_eq!(verify_blocks(PAYLOAD, 3, 0, &blocks, &sums), Ok(()));
        let swapped = [sums[1], sums[0]];
        assert_eq!(verify_blocks(PAYLOAD, 3, 0, &blocks, &swapped), Err(0));
        assert_eq!(verify_blocks(PAYLOAD, 2, 0, &blocks, &sums), Err(0));
        assert_eq!(verify_blocks(PAYLOAD, 3, 256, &blocks, &sums), Err(0));
        assert_eq!(verify_blocks(PayloadId(PAYLOAD.0 ^ 1 << 100), 3, 0, &blocks, &sums), Err(0));
        for (payload, shard, run) in [(PayloadId(1), 3, 0), (PAYLOAD, 2, 0), (PAYLOAD, 3, 1)] {
            assert!(RunChecksums::parse_expected(head, payload, shard, run).is_err());
        }
    }

    #[test]
    fn stored_values_never_change() {
        assert_eq!(crc64(b"123456789"), 0xae8b_1486_0a79_9888);
        let counting: Vec<u8> = (0..4096u32).map(|at| at as u8).collect();
        assert_eq!(small_shard(PAYLOAD, 1, &counting), 0x3b08_d4b1_9e64_82ea);
        // The whole block would tell nothing: bytes followed by their own CRC always have one CRC.
        assert_eq!(read_u64(&run_buffer(7, 9), OWN_CRC_AT), 0x596f_9832_f5ef_3e54);
    }

    #[test]
    fn block_arithmetic_agrees_with_the_layout() {
        let mut at = 0;
        for block in 0..1000 {
            if block % RUN_BLOCKS == 0 {
                assert_eq!(checksum_block(block / RUN_BLOCKS), at);
                at += 1;
            }
            assert_eq!(extent_block(block), at);
            at += 1;
            assert_eq!(extent_blocks(BlockCount(block + 1)), BlockCount(at));
        }
        assert_eq!(extent_blocks(BlockCount(0)), BlockCount(0));
        assert_eq!(blocks_of(4095..4097), 0..2);
        assert_eq!(blocks_of(4096..8192), 1..2);
        assert_eq!(blocks_of(5..5), 0..0);
        assert_eq!(runs_of(255..257), 0..2);
        let pieces: Vec<_> = split_by_run(250..600).collect();
        assert_eq!(pieces, [250..256, 256..512, 512..600]);
        assert_eq!(split_by_run(3..3).count(), 0);
    }
}

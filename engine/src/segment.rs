//! The segments of a drive: large regions, filled append-only and reclaimed whole.
//!
//! Nothing here is stored. The table of payloads and the manifest say what is live; from them
//! [`Segments::rebuild`] derives everything when a drive opens, and goes on filling segments behind
//! their last live byte, so that a kill leaks no space.
//!
//! Invariants:
//! - Blocks are handed out again only when nothing in their segment is live, no read of it is in
//!   flight, no write into it failed, and what freed it is durable.
//! - An extent lies within one segment. Segments that do not exist yet (`max` counts those that
//!   growth can reach) are never handed out.

use std::collections::BTreeSet;

use crate::checksum::{RUN_BLOCKS, extent_blocks};
use crate::error::{Error, Result};
use crate::format::Extent;
use crate::units::{BLOCK_BYTES, BlockCount, BlockIndex};

/// What is appended together, each to a segment of its own: things that die together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stream {
    /// Shards in runs.
    Payload = 0,
    /// Small payloads, packed.
    Packed = 1,
    /// Index runs and manifests.
    Index = 2,
}
const STREAMS: usize = 3;

/// A segment behind whose last live byte less than this part of it is free is not filled up.
const WORTH_FILLING: u64 = 16;

#[derive(Clone, Debug, Default)]
struct Segment {
    live_bytes: u64,
    /// Blocks handed out, from the segment's start.
    filled: u64,
    /// Reads in flight.
    pins: u32,
    /// The mutation that has to be durable before the segment may be reused.
    freed_by: u64,
    /// A write into it failed, or its end is unknown: not reused before the next start.
    spoiled: bool,
    open: bool,
    /// What lives in it is moved elsewhere: nothing is added.
    draining: bool,
}

/// What came of asking for room.
#[derive(Debug, PartialEq, Eq)]
pub enum Room<T> {
    Here(T),
    /// Only growth of the storage can make room.
    Grow,
    /// There is none, or none below the reserve.
    Full,
}

#[derive(Debug)]
pub struct Segments {
    start: BlockIndex,
    length: BlockCount,
    /// Segments that exist in the storage.
    table: Vec<Segment>,
    /// Segments that growth can reach, those in the table included.
    max: usize,
    empty: BTreeSet<usize>,
    /// Closed segments with room behind their last live byte.
    partial: BTreeSet<usize>,
    /// Segments in which nothing is live, but which may not be reused yet.
    dying: BTreeSet<usize>,
    open: [Option<usize>; STREAMS],
}

impl Segments {
    pub fn new(start: BlockIndex, length: BlockCount) -> Self {
        Self {
            start,
            length,
            table: Vec::new(),
            max: 0,
            empty: BTreeSet::new(),
            partial: BTreeSet::new(),
            dying: BTreeSet::new(),
            open: [None; STREAMS],
        }
    }

    /// The storage now has `length` blocks and can be grown to `length_max`.
    pub fn set_capacity(&mut self, length: BlockCount, length_max: BlockCount) {
        let segments =
            |blocks: BlockCount| (blocks.0.saturating_sub(self.start.0) / self.length.0) as usize;
        for index in self.table.len()..segments(length) {
            self.table.push(Segment::default());
            self.empty.insert(index);
        }
        self.max = segments(length_max).max(self.table.len());
    }

    /// Length of the storage with `count` more segments than now, within what growth can reach.
    pub fn grown_length(&self, count: usize) -> BlockCount {
        let segments = (self.table.len() + count).min(self.max) as u64;
        BlockCount(self.start.0 + segments * self.length.0)
    }

    /// Takes over what is live when a drive opens: (first byte on the drive, bytes), in any order.
    pub fn rebuild(&mut self, mut live: Vec<(u64, u64)>) -> Result<()> {
        live.sort_unstable();
        let mut end_before = 0;
        for (from, bytes) in live {
            let at = BlockIndex(from / BLOCK_BYTES as u64);
            let index = self.segment_of(at).filter(|index| {
                let start = self.start_of(*index).offset_bytes();
                from >= start && bytes > 0 && from + bytes <= start + self.length.bytes()
            });
            let Some(index) = index.filter(|_| from >= end_before) else {
                return Err(Error::Corrupt { what: "extent of a payload or run", at });
            };
            end_before = from + bytes;
            let filled =
                (end_before - self.start_of(index).offset_bytes()).div_ceil(BLOCK_BYTES as u64);
            let segment = &mut self.table[index];
            segment.live_bytes += bytes;
            segment.filled = filled;
            self.empty.remove(&index);
        }
        for index in 0..self.table.len() {
            self.note_partial(index);
        }
        Ok(())
    }

    /// Room for `length` blocks in a row, leaving `reserve` blocks for others.
    pub fn allocate(
        &mut self,
        stream: Stream,
        length: BlockCount,
        reserve: BlockCount,
        durable: u64,
    ) -> Result<Room<Extent>> {
        if length > self.length {
            return Err(Error::Limit { what: "blocks in a row", limit: self.length.0 });
        }
        self.collect(durable);
        if self.available(stream).0 < length.0 + reserve.0 {
            return Ok(Room::Full);
        }
        match self.open_with_room(stream, length.0) {
            Room::Here(index) => Ok(Room::Here(self.take(index, length.0))),
            Room::Grow => Ok(Room::Grow),
            Room::Full => Ok(Room::Full),
        }
    }

    /// Room for a shard of `data_blocks` data blocks and its checksum blocks. Cut only between
    /// runs.
    pub fn allocate_runs(
        &mut self,
        data_blocks: u64,
        reserve: BlockCount,
        durable: u64,
    ) -> Result<Room<Box<[Extent]>>> {
        let longest = extent_blocks(BlockCount(data_blocks.min(RUN_BLOCKS)));
        if longest > self.length {
            return Err(Error::Limit { what: "blocks in a row", limit: self.length.0 });
        }
        self.collect(durable);
        let total = extent_blocks(BlockCount(data_blocks));
        if self.available(Stream::Payload).0 < total.0 + reserve.0 {
            return Ok(Room::Full);
        }
        let mut extents = Vec::new();
        let mut left = data_blocks;
        while left > 0 {
            let run = extent_blocks(BlockCount(left.min(RUN_BLOCKS))).0;
            let index = match self.open_with_room(Stream::Payload, run) {
                Room::Here(index) => index,
                other => {
                    extents.into_iter().for_each(|extent| self.release_extent(extent, 0));
                    return Ok(if other == Room::Grow { Room::Grow } else { Room::Full });
                }
            };
            let room = self.length.0 - self.table[index].filled;
            let whole_runs = room / (RUN_BLOCKS + 1);
            let data = if extent_blocks(BlockCount(left)).0 <= room {
                left
            } else {
                (whole_runs * RUN_BLOCKS).min(left)
            };
            extents.push(self.take(index, extent_blocks(BlockCount(data)).0));
            left -= data;
        }
        Ok(Room::Here(extents.into_boxed_slice()))
    }

    /// `bytes` bytes of the segment that holds `at` are no longer live once mutation `freed_by` is
    /// durable.
    pub fn release(&mut self, at: BlockIndex, bytes: u64, freed_by: u64) {
        let index = self.segment_of(at).expect("released bytes lie in a segment");
        let segment = &mut self.table[index];
        assert!(segment.live_bytes >= bytes, "segment {index} has fewer live bytes");
        segment.live_bytes -= bytes;
        segment.freed_by = segment.freed_by.max(freed_by);
        if segment.live_bytes == 0 {
            self.dying.insert(index);
        }
    }

    pub fn release_extent(&mut self, extent: Extent, freed_by: u64) {
        self.release(extent.start, extent.length.bytes(), freed_by);
    }

    /// A read of the segment that holds `at` begins.
    pub fn pin(&mut self, at: BlockIndex) {
        let index = self.segment_of(at).expect("a pinned block lies in a segment");
        self.table[index].pins += 1;
    }
    pub fn unpin(&mut self, at: BlockIndex) {
        let index = self.segment_of(at).expect("a pinned block lies in a segment");
        self.table[index].pins -= 1;
    }

    /// A write into the segment that holds `at` failed.
    pub fn spoil(&mut self, at: BlockIndex) {
        let index = self.segment_of(at).expect("a written block lies in a segment");
        self.table[index].spoiled = true;
        self.partial.remove(&index);
    }

    /// Whether there is a segment that is mostly dead.
    pub fn has_sparse(&self) -> bool {
        self.table.iter().any(|segment| self.is_sparse(segment))
    }

    /// Takes the segments in which least lives, `count` at most, out of those that are filled.
    pub fn drain_sparse(&mut self, count: usize) -> Vec<Extent> {
        let mut sparse: Vec<usize> =
            (0..self.table.len()).filter(|&index| self.is_sparse(&self.table[index])).collect();
        sparse.sort_by_key(|&index| self.table[index].live_bytes);
        sparse.truncate(count);
        for &index in &sparse {
            self.table[index].draining = true;
            self.partial.remove(&index);
        }
        let whole = |index| Extent { start: self.start_of(index), length: self.length };
        sparse.into_iter().map(whole).collect()
    }

    pub fn end_drain(&mut self, segments: &[Extent]) {
        for segment in segments {
            let index = self.segment_of(segment.start).expect("it was taken from the table");
            self.table[index].draining = false;
            self.note_partial(index);
        }
    }

    fn is_sparse(&self, segment: &Segment) -> bool {
        let taken = segment.open || segment.spoiled || segment.draining;
        !taken && segment.live_bytes > 0 && segment.live_bytes * 2 < self.length.bytes()
    }

    /// Segments that nothing uses, those that growth can reach included.
    pub fn empty_count(&self) -> usize {
        self.empty.len() + (self.max - self.table.len())
    }
    /// Empty segments that exist.
    pub fn empty_here(&self) -> usize {
        self.empty.len()
    }
    /// Segments that exist.
    pub fn count(&self) -> usize {
        self.table.len()
    }
    pub fn can_grow(&self) -> bool {
        self.table.len() < self.max
    }
    pub fn segment_length(&self) -> BlockCount {
        self.length
    }
    pub fn capacity(&self) -> BlockCount {
        BlockCount(self.max as u64 * self.length.0)
    }
    /// Blocks in segments that nothing uses.
    pub fn free(&self) -> BlockCount {
        BlockCount(self.empty_count() as u64 * self.length.0)
    }
    /// (start, blocks filled, live bytes) of every segment that exists.
    pub fn each(&self) -> impl Iterator<Item = (BlockIndex, u64, u64)> + '_ {
        (0..self.table.len()).map(|index| {
            let segment = &self.table[index];
            (self.start_of(index), segment.filled, segment.live_bytes)
        })
    }

    /// Makes segments reusable whose last content was freed durably.
    pub fn collect(&mut self, durable: u64) {
        let table = &mut self.table;
        let (empty, partial) = (&mut self.empty, &mut self.partial);
        self.dying.retain(|&index| {
            let segment = &mut table[index];
            if segment.live_bytes > 0 {
                return false;
            }
            if segment.pins > 0 || segment.spoiled || segment.freed_by > durable {
                return true;
            }
            segment.filled = 0;
            if !segment.open {
                partial.remove(&index);
                empty.insert(index);
            }
            false
        });
    }

    fn available(&self, stream: Stream) -> BlockCount {
        let open = self.open[stream as usize];
        let room = open.map_or(0, |index| self.length.0 - self.table[index].filled);
        BlockCount(self.free().0 + room)
    }

    /// The open segment of `stream`, or another in its place, with room for `blocks`.
    fn open_with_room(&mut self, stream: Stream, blocks: u64) -> Room<usize> {
        if let Some(index) = self.open[stream as usize] {
            let segment = &self.table[index];
            if !segment.spoiled && self.length.0 - segment.filled >= blocks {
                return Room::Here(index);
            }
        }
        let fits = |&index: &usize| self.length.0 - self.table[index].filled >= blocks;
        let next = self.partial.iter().copied().find(fits).or_else(|| self.empty.first().copied());
        let Some(next) = next else {
            return if self.can_grow() { Room::Grow } else { Room::Full };
        };
        self.partial.remove(&next);
        self.empty.remove(&next);
        if let Some(index) = self.open[stream as usize].replace(next) {
            self.table[index].open = false;
            self.note_partial(index);
        }
        self.table[next].open = true;
        Room::Here(next)
    }

    fn take(&mut self, index: usize, blocks: u64) -> Extent {
        let start = self.start_of(index);
        let segment = &mut self.table[index];
        let extent =
            Extent { start: start.plus(BlockCount(segment.filled)), length: BlockCount(blocks) };
        segment.filled += blocks;
        segment.live_bytes += extent.length.bytes();
        assert!(segment.filled <= self.length.0, "segment {index} is overfilled");
        extent
    }

    /// A closed segment: worth filling up, waiting to be reused, or neither.
    fn note_partial(&mut self, index: usize) {
        let segment = &self.table[index];
        let room = self.length.0 - segment.filled;
        let worth = room >= self.length.0.div_ceil(WORTH_FILLING);
        if segment.live_bytes > 0 && !segment.open && !segment.spoiled && !segment.draining && worth
        {
            self.partial.insert(index);
        }
    }

    fn start_of(&self, index: usize) -> BlockIndex {
        self.start.plus(BlockCount(index as u64 * self.length.0))
    }

    fn segment_of(&self, at: BlockIndex) -> Option<usize> {
        let index = (at.0.checked_sub(self.start.0)? / self.length.0) as usize;
        (index < self.table.len()).then_some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_RESERVE: BlockCount = BlockCount(0);

    fn segments(existing: u64, max: u64) -> Segments {
        let mut segments = Segments::new(BlockIndex(100), BlockCount(600));
        segments.set_capacity(BlockCount(100 + existing * 600), BlockCount(100 + max * 600));
        segments
    }

    fn here<T>(room: Result<Room<T>>) -> T {
        match room {
            Ok(Room::Here(extent)) => extent,
            Ok(_) => panic!("no room"),
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn extents_follow_each_other_and_streams_keep_apart() {
        let mut segments = segments(4, 4);
        let one = here(segments.allocate(Stream::Packed, BlockCount(10), NO_RESERVE, 0));
        let two = here(segments.allocate(Stream::Index, BlockCount(10), NO_RESERVE, 0));
        let three = here(segments.allocate(Stream::Packed, BlockCount(10), NO_RESERVE, 0));
        assert_eq!((one.start.0, two.start.0, three.start.0), (100, 700, 110));
    }

    #[test]
    fn a_long_shard_is_cut_between_runs() {
        let mut segments = segments(4, 4);
        here(segments.allocate_runs(9, NO_RESERVE, 0));
        let extents = here(segments.allocate_runs(600, NO_RESERVE, 0));
        let lengths: Vec<_> = extents.iter().map(|extent| extent.length.0).collect();
        assert_eq!(lengths, [2 * 257, 89]);
        assert_eq!(extents[0].start.0, 110);
    }

    #[test]
    fn a_segment_is_reused_only_when_all_is_over() {
        let mut segments = segments(1, 1);
        let first = here(segments.allocate_runs(500, NO_RESERVE, 0));
        assert_eq!(segments.allocate_runs(500, NO_RESERVE, 0), Ok(Room::Full));
        segments.pin(first[0].start);
        for extent in &first {
            segments.release_extent(*extent, 7);
        }
        assert_eq!(segments.allocate_runs(500, NO_RESERVE, 6), Ok(Room::Full));
        assert_eq!(segments.allocate_runs(500, NO_RESERVE, 7), Ok(Room::Full));
        segments.unpin(first[0].start);
        assert_eq!(here(segments.allocate_runs(500, NO_RESERVE, 7)), first);
    }

    #[test]
    fn growth_is_asked_for_and_the_reserve_is_kept() {
        let mut segments = segments(1, 3);
        here(segments.allocate_runs(590, NO_RESERVE, 0));
        assert_eq!(segments.allocate_runs(100, NO_RESERVE, 0), Ok(Room::Grow));
        assert_eq!(segments.grown_length(1), BlockCount(1300));
        segments.set_capacity(BlockCount(1300), BlockCount(1900));
        assert_eq!(segments.allocate_runs(100, BlockCount(1200), 0), Ok(Room::Full));
        here(segments.allocate_runs(100, BlockCount(600), 0));
    }

    #[test]
    fn a_rebuilt_drive_goes_on_behind_what_is_live_and_finds_overlaps() {
        let byte = |block: u64| block * BLOCK_BYTES as u64;
        let mut first = segments(3, 3);
        first.rebuild(vec![(byte(710), byte(1)), (byte(100) + 5, 10)]).expect("sound");
        assert_eq!(first.empty_here(), 1);
        let next = here(first.allocate(Stream::Packed, BlockCount(1), NO_RESERVE, 0));
        assert_eq!(next.start.0, 101);
        for wrong in [
            vec![(byte(100), 10), (byte(100) + 9, 1)],
            vec![(byte(699), byte(2))],
            vec![(byte(99), 1)],
            vec![(byte(1900), 1)],
        ] {
            assert!(segments(3, 3).rebuild(wrong).is_err());
        }
    }
}

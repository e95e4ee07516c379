//! The journal: a ring of batches through which every change of a drive becomes durable.
//!
//! Invariants:
//! - One write is in flight. Mutations that arrive meanwhile wait and share the next batch, so a
//!   valid batch proves that every batch before it was durable.
//! - Batches are numbered without gaps; a number is used again only if the batch that had it never
//!   became valid. Mutations are numbered too, and become durable in that order.
//! - A mutation stands in one batch, whole.
//! - Whoever appends has reserved room before: what is appended can be written without waiting for
//!   a checkpoint, so a checkpoint may wait for it.
//! - Blocks from `tail` to `head` are not overwritten until a checkpoint has freed them.
//! - The first failed write ends the journal: nothing is acknowledged after it.

pub mod replay;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;

use crate::buffer::Buffer;
use crate::error::{Error, Result};
use crate::flush::as_flush_failure;
use crate::format::{
    ENTRY_FIXED_BYTES_MAX, Entry, Extent, FRAME_HEADER_BYTES, FrameKind, FrameOwner, encode_frame,
    frame_blocks,
};
use crate::progress::Progress;
use crate::seam::{Runtime, Storage, WriteSync};
use crate::units::{BlockCount, BlockIndex};

/// Longest batch.
pub const BATCH_BLOCKS_MAX: BlockCount = BlockCount(256);
/// How long a certificate, or the mark that closes a burst, waits for company.
const IDLE: Duration = Duration::from_millis(500);

/// Entries that become durable together.
#[derive(Default, Debug)]
pub struct Mutation {
    parts: SmallVec<[Bytes; 2]>,
    open: BytesMut,
    entries: u32,
}

impl Mutation {
    pub fn push(&mut self, entry: &Entry) {
        entry.encode_into(&mut self.open);
        self.entries += 1;
        let trailing = entry.trailing();
        if !trailing.is_empty() {
            self.parts.push(self.open.split().freeze());
            self.parts.push(trailing);
        }
    }
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }
    fn close(mut self) -> SmallVec<[Bytes; 2]> {
        if !self.open.is_empty() {
            self.parts.push(self.open.freeze());
        }
        self.parts
    }
}

/// Room for a mutation. Dropping it gives the room back.
pub struct Reservation<R: Runtime, S: Storage> {
    journal: Rc<Journal<R, S>>,
    blocks: BlockCount,
}

impl<R: Runtime, S: Storage> Drop for Reservation<R, S> {
    fn drop(&mut self) {
        self.journal.ring.borrow_mut().reserved.0 -= self.blocks.0;
        self.journal.announce_room();
    }
}

/// A place between two batches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Boundary {
    pub at: BlockIndex,
    pub sequence: u64,
}

struct Waiting {
    number: u64,
    parts: SmallVec<[Bytes; 2]>,
    bytes: usize,
    blocks: BlockCount,
}

struct Ring {
    /// Where the next batch goes, if it fits before the end of the region.
    head: BlockIndex,
    sequence: u64,
    tail: BlockIndex,
    /// Blocks promised to mutations that stand in no batch yet.
    reserved: BlockCount,
    waiting: VecDeque<Waiting>,
    /// Number of the last mutation appended.
    last: u64,
    writing: bool,
    /// Whether the last batch holds nothing that anyone would miss.
    marked: bool,
}

pub struct Journal<R: Runtime, S: Storage> {
    runtime: R,
    storage: Rc<S>,
    owner: FrameOwner,
    region: Extent,
    ring: RefCell<Ring>,
    /// Mutations that are durable.
    durable: Progress,
    /// Times that room became free.
    room: Progress,
    idle_timer: Cell<bool>,
}

impl<R: Runtime, S: Storage> Journal<R, S> {
    /// A journal that goes on at `head`, with everything from `tail` on still needed.
    pub fn resume(
        runtime: R,
        storage: Rc<S>,
        owner: FrameOwner,
        region: Extent,
        tail: BlockIndex,
        head: Boundary,
    ) -> Rc<Self> {
        let ring = Ring {
            head: head.at,
            sequence: head.sequence,
            tail,
            reserved: BlockCount(0),
            waiting: VecDeque::new(),
            last: 0,
            writing: false,
            marked: true,
        };
        Rc::new(Self {
            runtime,
            storage,
            owner,
            region,
            ring: RefCell::new(ring),
            durable: Progress::default(),
            room: Progress::default(),
            idle_timer: Cell::new(false),
        })
    }

    /// Longest batch of a journal in `region`: a few must fit between two checkpoints.
    pub fn batch_blocks_max(region: Extent) -> BlockCount {
        BATCH_BLOCKS_MAX.min(BlockCount(region.length.0 / 6))
    }

    /// Blocks that a mutation of `bytes` bytes in `entries` entries takes at most.
    fn blocks_of(bytes: usize) -> BlockCount {
        frame_blocks(bytes)
    }

    /// Blocks between `tail` and `head`.
    pub fn used(&self) -> BlockCount {
        self.ring.borrow().used(self.region)
    }

    /// Whether a checkpoint should begin.
    pub fn is_half_full(&self) -> bool {
        let ring = self.ring.borrow();
        (ring.used(self.region).0 + ring.reserved.0) * 2 > self.region.length.0
    }

    /// Reserves room for a mutation whose entries have `bytes` bytes at most, not counting
    /// `entries` times [`ENTRY_FIXED_BYTES_MAX`]. `None`: not before a checkpoint.
    pub fn try_reserve(
        self: &Rc<Self>,
        entries: usize,
        bytes: usize,
    ) -> Result<Option<Reservation<R, S>>> {
        self.durable.check()?;
        let blocks = Self::blocks_of(entries * ENTRY_FIXED_BYTES_MAX + bytes);
        let batch_max = Self::batch_blocks_max(self.region);
        if blocks > batch_max {
            return Err(Error::Limit {
                what: "a journal entry, in bytes",
                limit: batch_max.bytes(),
            });
        }
        let mut ring = self.ring.borrow_mut();
        // A batch that does not fit before the end of the region leaves a gap there. The two
        // blocks more let a drive that was killed when full start again.
        let slack = batch_max.0 + 2;
        let taken = ring.used(self.region).0 + ring.reserved.0 + slack;
        if taken + blocks.0 > self.region.length.0 {
            return Ok(None);
        }
        ring.reserved.0 += blocks.0;
        Ok(Some(Reservation { journal: Rc::clone(self), blocks }))
    }

    /// Resolves when room became free after `seen` was read from [`Self::room_seen`].
    pub async fn room_after(&self, seen: u64) -> Result<()> {
        self.room.wait(seen + 1).await
    }
    pub fn room_seen(&self) -> u64 {
        self.room.reached()
    }
    /// Lets all who wait for room look again.
    pub fn announce_room(&self) {
        self.room.advance(self.room.reached() + 1);
    }

    /// Appends a mutation and says its number. `urgent`: someone waits for it.
    pub fn append(
        self: &Rc<Self>,
        reservation: Reservation<R, S>,
        mutation: Mutation,
        urgent: bool,
    ) -> u64 {
        assert!(Rc::ptr_eq(self, &reservation.journal), "a reservation in this journal");
        let number = self.push(mutation, reservation.blocks);
        if urgent {
            self.start_writing();
        } else {
            self.start_idle_timer();
        }
        number
    }

    /// Appends the first entry of a new start, for which every reservation leaves a block, unless
    /// former starts took those.
    pub fn append_start(self: &Rc<Self>, mutation: Mutation) {
        if self.used().0 + 2 < self.region.length.0 {
            self.push(mutation, BlockCount(1));
            self.start_writing();
        }
    }

    fn push(&self, mutation: Mutation, allowed: BlockCount) -> u64 {
        let parts = mutation.close();
        let bytes: usize = parts.iter().map(Bytes::len).sum();
        let blocks = Self::blocks_of(bytes);
        assert!(blocks <= allowed, "a mutation of {blocks:?} was reserved {allowed:?}");
        let mut ring = self.ring.borrow_mut();
        ring.last += 1;
        ring.reserved.0 += blocks.0;
        let number = ring.last;
        ring.waiting.push_back(Waiting { number, parts, bytes, blocks });
        number
    }

    /// Number of the last mutation that was appended.
    pub fn last(&self) -> u64 {
        self.ring.borrow().last
    }

    /// Number of the last mutation that is durable.
    pub fn durable_reached(&self) -> u64 {
        self.durable.reached()
    }

    /// Resolves when mutation `number`, and with it every earlier one, is durable.
    pub async fn durable(self: &Rc<Self>, number: u64) -> Result<()> {
        if number > self.durable.reached() {
            self.start_writing();
        }
        self.durable.wait(number).await
    }

    /// Ends the journal: every wait, now and later, resolves with `error`.
    pub fn fail(&self, error: Error) {
        self.durable.fail(error.clone());
        self.room.fail(error);
        self.ring.borrow_mut().waiting.clear();
    }

    /// Whether a write failed, or [`Self::fail`] was called.
    pub fn check(&self) -> Result<()> {
        self.durable.check()
    }

    /// Whether a write is in flight.
    pub fn is_writing(&self) -> bool {
        self.ring.borrow().writing
    }

    /// Where the batch after all that are composed will stand. Every mutation in a batch before it
    /// has been applied in memory.
    pub fn boundary(&self) -> Boundary {
        let ring = self.ring.borrow();
        Boundary { at: ring.head, sequence: ring.sequence }
    }

    /// Frees everything before `boundary`, which a durable checkpoint covers.
    pub fn release(&self, boundary: Boundary) {
        self.ring.borrow_mut().tail = boundary.at;
        self.announce_room();
    }

    fn start_writing(self: &Rc<Self>) {
        let mut ring = self.ring.borrow_mut();
        if ring.writing || ring.waiting.is_empty() {
            return;
        }
        ring.writing = true;
        drop(ring);
        self.runtime.spawn(Rc::clone(self).write_batches());
    }

    async fn write_batches(self: Rc<Self>) {
        while let Some((at, buffer, last)) = self.compose() {
            let result = self.storage.write(at, buffer, WriteSync::Durable).await;
            if let Err(error) = result {
                self.fail(as_flush_failure(error));
                self.ring.borrow_mut().writing = false;
                return;
            }
            self.durable.advance(last);
            self.announce_room();
        }
        self.start_idle_timer();
    }

    /// Takes as many waiting mutations as fit one batch.
    fn compose(&self) -> Option<(BlockIndex, Buffer, u64)> {
        let mut ring = self.ring.borrow_mut();
        if ring.waiting.is_empty() || self.durable.check().is_err() {
            ring.writing = false;
            return None;
        }
        let room = Self::batch_blocks_max(self.region).bytes() as usize - FRAME_HEADER_BYTES;
        let mut bytes = 0;
        let taken = ring
            .waiting
            .iter()
            .take_while(|waiting| {
                bytes += waiting.bytes;
                bytes <= room
            })
            .count();
        let batch: Vec<Waiting> = ring.waiting.drain(..taken).collect();
        let reserved: u64 = batch.iter().map(|waiting| waiting.blocks.0).sum();
        let bytes = batch.iter().map(|waiting| waiting.bytes).sum();
        let length = frame_blocks(bytes);
        let at = ring.place(self.region, length);
        let sequence = ring.sequence;
        ring.reserved.0 -= reserved;
        ring.head = at.plus(length);
        ring.sequence += 1;
        ring.marked = batch.iter().all(|waiting| waiting.bytes <= MARK_BYTES);
        drop(ring);
        let last = batch.last().expect("a batch is not empty").number;
        let parts = batch.iter().flat_map(|waiting| waiting.parts.iter().map(|part| &part[..]));
        let buffer = encode_frame(self.owner, FrameKind::Batch, at, sequence, 0, parts);
        Some((at, buffer, last))
    }

    /// Sees to it that certificates become durable, and that the last batch is followed by a mark,
    /// although nobody waits for either.
    fn start_idle_timer(self: &Rc<Self>) {
        let ring = self.ring.borrow();
        let idle = ring.waiting.is_empty() && ring.marked;
        if idle || self.idle_timer.get() || self.durable.check().is_err() {
            return;
        }
        self.idle_timer.set(true);
        let journal = Rc::downgrade(self);
        self.runtime.spawn(Self::idle(self.runtime.clone(), journal));
    }

    async fn idle(runtime: R, journal: Weak<Self>) {
        runtime.sleep(IDLE).await;
        let Some(journal) = journal.upgrade() else { return };
        journal.idle_timer.set(false);
        if journal.check().is_err() {
            return;
        }
        let quiet = {
            let ring = journal.ring.borrow();
            ring.waiting.is_empty() && !ring.writing && !ring.marked
        };
        if quiet && let Ok(Some(reservation)) = journal.try_reserve(1, 0) {
            let mut mutation = Mutation::default();
            mutation.push(&Entry::Mark);
            journal.append(reservation, mutation, true);
        }
        journal.start_writing();
    }
}

/// Bytes of an encoded [`Entry::Mark`].
const MARK_BYTES: usize = 8;

impl Ring {
    fn used(&self, region: Extent) -> BlockCount {
        let distance = if self.head >= self.tail {
            self.head.0 - self.tail.0
        } else {
            region.length.0 - (self.tail.0 - self.head.0)
        };
        BlockCount(distance)
    }

    /// Where a batch of `length` goes: at the head, or at the region's start where it does not fit.
    fn place(&self, region: Extent, length: BlockCount) -> BlockIndex {
        let at = if self.head.plus(length) > region.end() { region.start } else { self.head };
        let behind_tail = self.head < self.tail || at < self.head;
        let free_until = if behind_tail { self.tail } else { region.end() };
        assert!(at.plus(length) <= free_until, "{length:?} were reserved, {self:?}");
        at
    }
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ring tail {} head {} reserved {}", self.tail.0, self.head.0, self.reserved.0)
    }
}

#[cfg(test)]
mod tests;

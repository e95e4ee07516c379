//! Buffers for drive I/O: owned, block-aligned, whole blocks, `Send`, so that they can be handed
//! from core to core by pointer. One of the few homes of `unsafe`.
//!
//! A buffer comes from the heap ([`Buffer::zeroed`], anywhere) or from the arena of a core
//! ([`Arena::take`], the production path). Wherever a buffer of an arena is dropped, its place goes
//! back to the arena it came from: the dropping core puts the place's number into a lock-free queue,
//! and the home core takes it out when it next looks for room. Only the home core decides which
//! place is free ([`slabs`]), so nothing is locked and no count is shared.
//!
//! The memory of an arena is mapped once and stays mapped for the life of the process: a buffer
//! may outlive the core that lent it.

mod slabs;

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, Waker};

use bytes::Bytes;
use crossbeam_queue::ArrayQueue;

use crate::units::{BLOCK_BYTES, BlockCount};
use slabs::{SLAB_BLOCKS, Slabs};

thread_local! {
    /// The arena of the core that runs on this thread.
    static HOME: RefCell<Option<Arena>> = const { RefCell::new(None) };
}

/// An owned run of whole, aligned blocks of memory.
pub struct Buffer {
    start: NonNull<u8>,
    length_bytes: usize,
    /// Where the memory goes back to; `None` for the heap.
    home: Option<&'static Region>,
}

// SAFETY: a `Buffer` is the only owner of its memory; nothing in it is tied to a thread, and a
// `Region` is `Sync`.
unsafe impl Send for Buffer {}
// SAFETY: `&Buffer` gives out nothing but `&[u8]`.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// A buffer of `count` blocks from the heap, all zero.
    pub fn zeroed(count: BlockCount) -> Self {
        let length_bytes = usize::try_from(count.bytes()).expect("a buffer fits memory");
        assert!(length_bytes > 0, "a buffer has at least one block");
        let layout = Self::heap_layout(length_bytes);
        // SAFETY: the layout has a size above zero.
        let start = unsafe { alloc_zeroed(layout) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        Self { start, length_bytes, home: None }
    }

    /// A buffer of `count` blocks with **arbitrary content**, as [`Arena::take`]: from the arena of
    /// the core that asks, or from the heap where there is none or it has no room.
    pub fn unwritten(count: BlockCount) -> Self {
        let home = HOME.with_borrow(|home| home.as_ref()?.take(count));
        home.unwrap_or_else(|| Self::zeroed(count))
    }

    pub fn length_blocks(&self) -> BlockCount {
        BlockCount((self.length_bytes / BLOCK_BYTES) as u64)
    }

    fn heap_layout(length_bytes: usize) -> Layout {
        Layout::from_size_align(length_bytes, BLOCK_BYTES).expect("a valid layout")
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        match self.home {
            Some(region) => region.give_back(self.start),
            // SAFETY: `start` came from `alloc_zeroed` with this very layout.
            None => unsafe { dealloc(self.start.as_ptr(), Self::heap_layout(self.length_bytes)) },
        }
    }
}

impl Deref for Buffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: `start` is valid for `length_bytes` initialised bytes for as long as `self` lives.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length_bytes) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `&mut self` is the only way to the memory.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.length_bytes) }
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

/// A buffer that is not changed any more, and that several may read: the drive that writes it, and who
/// hashes it meanwhile.
#[derive(Clone, Debug)]
pub struct SharedBuffer(Arc<Buffer>);

impl SharedBuffer {
    pub fn length_blocks(&self) -> BlockCount {
        self.0.length_blocks()
    }

    /// Its bytes, which keep it.
    pub fn bytes(&self) -> Bytes {
        Bytes::from_owner(self.clone())
    }
}

impl From<Buffer> for SharedBuffer {
    fn from(buffer: Buffer) -> Self {
        Self(Arc::new(buffer))
    }
}

impl Deref for SharedBuffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for SharedBuffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer({} blocks)", self.length_blocks().0)
    }
}

/// The memory of an arena, and the way back into it from any core.
struct Region {
    start: NonNull<u8>,
    length_bytes: usize,
    /// First blocks of places that were given back and that the home core has not seen yet. It has
    /// room for as many places as can ever be out, so a push cannot fail.
    returned: ArrayQueue<u32>,
    /// Somebody on the home core waits for room.
    waiting: AtomicBool,
    /// Makes the home core call [`Arena::wake_waiting`].
    wake_home: Box<dyn Fn() + Send + Sync>,
}

// SAFETY: the mapping lives for ever and is touched through `Buffer`s only, each of which owns its
// part; every other field is `Sync`.
unsafe impl Sync for Region {}
// SAFETY: as above; nothing is tied to the thread that mapped it.
unsafe impl Send for Region {}

impl Region {
    fn map(slab_count: u32, wake_home: Box<dyn Fn() + Send + Sync>) -> io::Result<&'static Self> {
        let block_count = slab_count as usize * SLAB_BLOCKS as usize;
        let length_bytes = block_count * BLOCK_BYTES;
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length_bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the range was mapped above. Huge pages are a wish; the answer does not matter.
        unsafe { libc::madvise(start, length_bytes, libc::MADV_HUGEPAGE) };
        Ok(Box::leak(Box::new(Self {
            start: NonNull::new(start.cast()).expect("a mapping is not at address zero"),
            length_bytes,
            returned: ArrayQueue::new(block_count),
            waiting: AtomicBool::new(false),
            wake_home,
        })))
    }

    fn give_back(&self, start: NonNull<u8>) {
        let offset_bytes = start.as_ptr() as usize - self.start.as_ptr() as usize;
        let first_block = u32::try_from(offset_bytes / BLOCK_BYTES).expect("a block of the arena");
        self.returned.push(first_block).expect("the queue has room for every place");
        // The push comes before the look at `waiting`, and a waiter sets `waiting` before its last
        // look at the queue; both are sequentially consistent, so one of the two sees the other.
        if self.waiting.load(Ordering::SeqCst) && self.waiting.swap(false, Ordering::SeqCst) {
            (self.wake_home)();
        }
    }
}

/// The buffers of one core. A clone is the same arena; it stays on its core, its buffers do not.
#[derive(Clone)]
pub struct Arena {
    inner: Rc<ArenaInner>,
}

struct ArenaInner {
    region: &'static Region,
    slabs: RefCell<Slabs>,
    line: RefCell<Line>,
}

/// Those who wait for room, first come, first served.
#[derive(Default)]
struct Line {
    waiting: VecDeque<(u64, Waker)>,
    next_ticket: u64,
}

impl Arena {
    /// The largest buffer an arena can lend.
    pub const BUFFER_MAX: BlockCount = BlockCount(SLAB_BLOCKS as u64);

    /// Maps an arena of about `bytes` bytes (whole slabs, at least one). `wake_home` is called on
    /// any core when a buffer came back that somebody waits for; it must make the home core call
    /// [`Self::wake_waiting`].
    pub fn map(bytes: u64, wake_home: impl Fn() + Send + Sync + 'static) -> io::Result<Self> {
        let slab_bytes = u64::from(SLAB_BLOCKS) * BLOCK_BYTES as u64;
        let slab_count = (bytes / slab_bytes).max(1);
        let slab_count = u32::try_from(slab_count)
            .ok()
            .filter(|count| count.checked_mul(SLAB_BLOCKS).is_some())
            .ok_or_else(|| io::Error::other("an arena has fewer than 2^32 blocks"))?;
        let region = Region::map(slab_count, Box::new(wake_home))?;
        Ok(Self {
            inner: Rc::new(ArenaInner {
                region,
                slabs: RefCell::new(Slabs::new(slab_count)),
                line: RefCell::default(),
            }),
        })
    }

    /// Makes this the arena that [`Buffer::unwritten`] takes from on this thread.
    pub fn serve_this_thread(&self) {
        HOME.set(Some(self.clone()));
    }

    /// A buffer of `count` blocks, or `None` when the arena has no room or somebody waits for it.
    ///
    /// **The content is arbitrary** (initialised memory, usually of an earlier buffer): whoever
    /// takes a buffer overwrites all of it before it goes anywhere.
    pub fn take(&self, count: BlockCount) -> Option<Buffer> {
        if !self.inner.line.borrow().waiting.is_empty() {
            return None;
        }
        self.take_out_of_line(count)
    }

    /// As [`Self::take`], waiting in line for room.
    pub async fn take_or_wait(&self, count: BlockCount) -> Buffer {
        assert!(count <= Self::BUFFER_MAX, "no arena ever lends {count:?}");
        if let Some(buffer) = self.take(count) {
            return buffer;
        }
        let mut place = PlaceInLine { arena: self, ticket: None };
        poll_fn(|context| {
            place.stand(context.waker());
            if !place.is_first() {
                return Poll::Pending;
            }
            // First try, announce, try again: a buffer that came back in between is not missed.
            let mut buffer = self.take_out_of_line(count);
            if buffer.is_none() {
                self.inner.region.waiting.store(true, Ordering::SeqCst);
                buffer = self.take_out_of_line(count);
            }
            buffer.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// Lets the first who waits look again. Called on the home core after `wake_home`.
    pub fn wake_waiting(&self) {
        let line = self.inner.line.borrow();
        if let Some((_, waker)) = line.waiting.front() {
            waker.wake_by_ref();
        }
    }

    /// Blocks that are lent, in whole places.
    pub fn lent(&self) -> BlockCount {
        self.take_in_returned();
        self.inner.slabs.borrow().taken()
    }

    pub fn capacity(&self) -> BlockCount {
        BlockCount((self.inner.region.length_bytes / BLOCK_BYTES) as u64)
    }

    fn take_in_returned(&self) {
        let mut slabs = self.inner.slabs.borrow_mut();
        while let Some(first_block) = self.inner.region.returned.pop() {
            slabs.give_back(first_block);
        }
    }

    fn take_out_of_line(&self, count: BlockCount) -> Option<Buffer> {
        assert!(count.0 > 0, "a buffer has at least one block");
        self.take_in_returned();
        let blocks = u32::try_from(count.0).ok()?;
        let first_block = self.inner.slabs.borrow_mut().take(blocks)?;
        let region = self.inner.region;
        let length_bytes = blocks as usize * BLOCK_BYTES;
        let offset_bytes = first_block as usize * BLOCK_BYTES;
        assert!(offset_bytes + length_bytes <= region.length_bytes, "a place is in the arena");
        // SAFETY: the offset is within the mapping (asserted above).
        let start = unsafe { region.start.add(offset_bytes) };
        Some(Buffer { start, length_bytes, home: Some(region) })
    }
}

/// A place in the line, left when dropped.
struct PlaceInLine<'a> {
    arena: &'a Arena,
    ticket: Option<u64>,
}

impl PlaceInLine<'_> {
    fn stand(&mut self, waker: &Waker) {
        let mut line = self.arena.inner.line.borrow_mut();
        match self.ticket {
            None => {
                let ticket = line.next_ticket;
                line.next_ticket += 1;
                line.waiting.push_back((ticket, waker.clone()));
                self.ticket = Some(ticket);
            }
            Some(ticket) => {
                let place = line.waiting.iter_mut().find(|(other, _)| *other == ticket);
                place.expect("who waits stands in line").1.clone_from(waker);
            }
        }
    }

    fn is_first(&self) -> bool {
        let line = self.arena.inner.line.borrow();
        line.waiting.front().map(|(ticket, _)| *ticket) == self.ticket
    }
}

impl Drop for PlaceInLine<'_> {
    fn drop(&mut self) {
        self.arena.inner.line.borrow_mut().waiting.retain(|(other, _)| Some(*other) != self.ticket);
        // There may be room for the next, whom nobody else would tell.
        self.arena.wake_waiting();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU32;

    use futures_util::FutureExt;

    use super::*;

    fn arena(slabs: u64) -> Arena {
        Arena::map(slabs * u64::from(SLAB_BLOCKS) * 4096, || {}).expect("memory")
    }

    #[test]
    fn heap_buffers_are_zero_and_aligned() {
        let mut buffer = Buffer::zeroed(BlockCount(3));
        assert_eq!(buffer.len(), 3 * BLOCK_BYTES);
        assert_eq!(buffer.as_ptr() as usize % BLOCK_BYTES, 0);
        assert!(buffer.iter().all(|&byte| byte == 0));
        buffer[5] = 7;
        assert_eq!(buffer[5], 7);
    }

    #[test]
    fn buffers_of_an_arena_are_aligned_apart_and_come_back() {
        let arena = arena(1);
        let mut first = arena.take(BlockCount(257)).expect("room");
        let mut second = arena.take(BlockCount(257)).expect("room");
        assert_eq!(first.as_ptr() as usize % BLOCK_BYTES, 0);
        first.fill(1);
        second.fill(2);
        assert!(first.iter().all(|&byte| byte == 1));
        assert_eq!(arena.lent(), BlockCount(514));
        std::thread::scope(|scope| {
            scope.spawn(move || drop((first, second)));
        });
        assert_eq!(arena.lent(), BlockCount(0));
    }

    #[test]
    fn who_waits_is_served_in_order_when_another_thread_gives_back() {
        let rings = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&rings);
        let arena = Arena::map(1, move || {
            counted.fetch_add(1, Ordering::Relaxed);
        })
        .expect("memory");
        let whole = arena.take(Arena::BUFFER_MAX).expect("room");
        let mut large = Box::pin(arena.take_or_wait(Arena::BUFFER_MAX));
        let mut small = Box::pin(arena.take_or_wait(BlockCount(1)));
        assert!((&mut large).now_or_never().is_none());
        assert!((&mut small).now_or_never().is_none());
        std::thread::scope(|scope| {
            scope.spawn(move || drop(whole));
        });
        assert_eq!(rings.load(Ordering::Relaxed), 1);
        assert!(arena.take(BlockCount(1)).is_none(), "nobody passes those who wait");
        assert!((&mut small).now_or_never().is_none(), "the small one stands behind");
        let whole = (&mut large).now_or_never().expect("room came back");
        assert!((&mut small).now_or_never().is_none());
        drop(whole);
        assert_eq!(rings.load(Ordering::Relaxed), 2);
        assert_eq!((&mut small).now_or_never().expect("room").len(), BLOCK_BYTES);
    }

    #[test]
    fn one_who_gives_up_does_not_hold_the_line() {
        let arena = arena(1);
        let whole = arena.take(Arena::BUFFER_MAX).expect("room");
        let mut first = Box::pin(arena.take_or_wait(Arena::BUFFER_MAX));
        let mut second = Box::pin(arena.take_or_wait(BlockCount(2)));
        assert!((&mut first).now_or_never().is_none());
        assert!((&mut second).now_or_never().is_none());
        drop(first);
        drop(whole);
        assert_eq!((&mut second).now_or_never().expect("room").length_blocks(), BlockCount(2));
    }
}

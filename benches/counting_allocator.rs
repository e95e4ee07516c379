//! The server's allocator, with a count of what is asked of it. For measurements only: no binary that
//! serves has it.
//!
//! `unsafe` stands here for one reason: an allocator is an unsafe trait. Every call goes on to mimalloc
//! as it came.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

use mimalloc::MiMalloc;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static IS_COUNTED: Cell<bool> = const { Cell::new(true) };
}

pub(crate) struct Counting;

/// What was asked for so far, on all threads that count.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Count {
    /// Growing what is there counts as one.
    pub(crate) allocations: u64,
    pub(crate) bytes: u64,
}

impl Count {
    pub(crate) fn now() -> Self {
        let (allocations, bytes) =
            (ALLOCATIONS.load(Ordering::Relaxed), BYTES.load(Ordering::Relaxed));
        Self { allocations, bytes }
    }
}

/// What this thread asks for is not counted from now on.
pub(crate) fn leave_out_this_thread() {
    IS_COUNTED.set(false);
}

fn count(bytes: usize) {
    // A thread that ends may have given up its locals.
    if IS_COUNTED.try_with(Cell::get).unwrap_or(true) {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        BYTES.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

// SAFETY: every method hands its arguments to mimalloc unchanged and returns what that answers; counting
// allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promise, passed on.
        unsafe { MiMalloc.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promise, passed on.
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, start: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        count(bytes);
        // SAFETY: the caller's promise, passed on.
        unsafe { MiMalloc.realloc(start, layout, bytes) }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise, passed on.
        unsafe { MiMalloc.dealloc(start, layout) }
    }
}

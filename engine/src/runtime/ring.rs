//! The io_uring ring of a core: drive operations in, completions out. It runs inside the executor
//! and rings the core's bell when something completes.
//!
//! Invariants
//! - Memory that the kernel may touch (a buffer, a path, a place for an answer) belongs to the
//!   operation's slot in the table from the submission to the completion. Dropping the future only
//!   marks the slot as abandoned; the operation runs to its end and the slot is freed then.
//! - A slot has at most one submission in the kernel, so its number names it without a generation.
//! - A short transfer is continued here and not by the caller, so that it happens also when nobody
//!   waits any more. It continues at the last whole block.
//! - At most [`LANE_TRANSFERS_MAX`] transfers of one file are in the kernel; the others wait in
//!   line. One slow drive thus leaves room for the others of its core. Those in line are bounded
//!   by memory: each owns a buffer.
//!
//! Submissions of one executor turn go to the kernel together: the first one wakes the submitter
//! task, which runs behind the tasks that are already runnable. With DEFER_TASKRUN the same system
//! call also collects completions; while we collect, the eventfd is off, because we look anyway.

mod operation;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{Ordering, fence};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use io_uring::IoUring;
use io_uring::types::{SubmitArgs, Timespec};

pub(super) use operation::{Finished, Lane, Operation};
use operation::{Slot, Step, length_u32};

/// Submissions that fit the ring; more are handed over in several calls.
const RING_ENTRIES: u32 = 256;
/// Completions that fit the ring; the kernel keeps more aside.
const COMPLETION_ENTRIES: u32 = 4096;
/// Transfers of one file in the kernel at a time.
pub(super) const LANE_TRANSFERS_MAX: u32 = 128;
/// Rounds of one [`Ring::turn`] before other tasks get the core.
const TURN_ROUNDS_MAX: u32 = 16;
/// How long a closing ring waits for operations in flight before it leaves them, and their
/// memory, to the kernel for ever.
const CLOSE_SECONDS_MAX: u32 = 10;

struct Inner {
    /// `None` once closed.
    kernel: Option<IoUring>,
    slots: Vec<Option<Slot>>,
    free: Vec<u32>,
    /// Operations that are to be handed to the kernel.
    backlog: VecDeque<u32>,
    in_kernel: usize,
    submit_asked: bool,
    submitter: Option<Waker>,
    /// Reused between turns.
    answers: Vec<(u32, i32)>,
    woken: Vec<Waker>,
}

#[derive(Clone)]
pub(super) struct Ring {
    inner: Rc<RefCell<Inner>>,
}

#[derive(PartialEq, Eq)]
enum Turn {
    Done,
    /// The kernel has no room now.
    Stalled,
}

impl Ring {
    /// A ring that adds to `eventfd` when something completes. It belongs to the calling thread.
    pub(super) fn new(eventfd: RawFd) -> io::Result<Self> {
        let kernel = build()?;
        kernel.submitter().register_eventfd(eventfd)?;
        Ok(Self {
            inner: Rc::new(RefCell::new(Inner {
                kernel: Some(kernel),
                slots: Vec::new(),
                free: Vec::new(),
                backlog: VecDeque::new(),
                in_kernel: 0,
                submit_asked: false,
                submitter: None,
                answers: Vec::new(),
                woken: Vec::new(),
            })),
        })
    }

    /// Begins `operation`; it runs to its end whether or not the future is kept.
    pub(super) fn begin(&self, lane: &Rc<Lane>, operation: Operation) -> Pending {
        let mut inner = self.inner.borrow_mut();
        let transfer = operation.is_transfer();
        let id = inner.insert(Slot::new(operation, lane));
        if inner.kernel.is_none() {
            inner.slot(id).result = Some(Err(libc::ESHUTDOWN));
        } else if transfer && lane.transfers.get() >= LANE_TRANSFERS_MAX {
            lane.line.borrow_mut().push_back(id);
        } else {
            if transfer {
                lane.transfers.set(lane.transfers.get() + 1);
            }
            inner.backlog.push_back(id);
            inner.ask_submitter();
        }
        Pending { ring: self.clone(), id }
    }

    /// Operations that are not at their end.
    #[cfg(test)]
    pub(super) fn unfinished(&self) -> usize {
        self.inner.borrow().slots.iter().flatten().filter(|slot| slot.result.is_none()).count()
    }

    /// Hands over what is waiting and takes in what completed.
    pub(super) fn turn(&self) {
        self.turn_once();
    }

    fn turn_once(&self) -> Turn {
        let mut inner = self.inner.borrow_mut();
        let turn = inner.turn();
        let mut woken = std::mem::take(&mut inner.woken);
        drop(inner);
        for waker in woken.drain(..) {
            waker.wake();
        }
        self.inner.borrow_mut().woken = woken;
        turn
    }

    /// The body of the submitter task; ends when the ring is closed.
    pub(super) async fn submit_when_asked(&self) {
        loop {
            let closed = poll_fn(|context| {
                let mut inner = self.inner.borrow_mut();
                if inner.kernel.is_none() {
                    return Poll::Ready(true);
                }
                if std::mem::take(&mut inner.submit_asked) {
                    return Poll::Ready(false);
                }
                inner.submitter = Some(context.waker().clone());
                Poll::Pending
            });
            if closed.await {
                return;
            }
            if self.turn_once() == Turn::Stalled {
                glommio::timer::sleep(Duration::from_millis(1)).await;
                self.inner.borrow_mut().submit_asked = true;
            }
        }
    }

    /// Waits for the operations in flight and gives the ring back to the kernel. Whatever is begun
    /// later fails.
    pub(super) fn close(&self) {
        self.turn();
        let mut inner = self.inner.borrow_mut();
        inner.close();
        let woken = std::mem::take(&mut inner.woken);
        let submitter = inner.submitter.take();
        drop(inner);
        woken.into_iter().chain(submitter).for_each(Waker::wake);
    }
}

/// The best ring that this kernel makes: completions are collected when we enter the kernel
/// (6.1), or at least without interrupting the thread (5.19), or in any way.
fn build() -> io::Result<IoUring> {
    let mut deferred = IoUring::builder();
    deferred.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag();
    let mut cooperative = IoUring::builder();
    cooperative.setup_coop_taskrun().setup_taskrun_flag();
    let mut error = None;
    for builder in [&mut deferred, &mut cooperative, &mut IoUring::builder()] {
        match builder.dontfork().setup_cqsize(COMPLETION_ENTRIES).build(RING_ENTRIES) {
            Ok(ring) => return Ok(ring),
            Err(refused) if refused.raw_os_error() == Some(libc::EINVAL) => error = Some(refused),
            Err(refused) => return Err(refused),
        }
    }
    Err(error.expect("three were tried"))
}

impl Inner {
    fn insert(&mut self, slot: Slot) -> u32 {
        if let Some(id) = self.free.pop() {
            self.slots[id as usize] = Some(slot);
            return id;
        }
        self.slots.push(Some(slot));
        length_u32(self.slots.len() - 1)
    }

    fn slot(&mut self, id: u32) -> &mut Slot {
        self.slots[id as usize].as_mut().expect("the slot of a known operation")
    }

    fn remove(&mut self, id: u32) -> Slot {
        self.free.push(id);
        self.slots[id as usize].take().expect("the slot of a known operation")
    }

    fn ask_submitter(&mut self) {
        self.submit_asked = true;
        if let Some(waker) = self.submitter.take() {
            waker.wake();
        }
    }

    fn turn(&mut self) -> Turn {
        for _ in 0..TURN_ROUNDS_MAX {
            if self.kernel.is_none() {
                return Turn::Done;
            }
            self.fill();
            let stalled = self.enter();
            self.take_in();
            if stalled {
                return Turn::Stalled;
            }
            let Some(kernel) = &mut self.kernel else { return Turn::Done };
            let late = kernel.submission().taskrun() || !kernel.completion().is_empty();
            if !late && self.backlog.is_empty() {
                return Turn::Done;
            }
        }
        self.ask_submitter();
        Turn::Done
    }

    /// Moves from the backlog into the submission queue what fits.
    fn fill(&mut self) {
        let Some(kernel) = &mut self.kernel else { return };
        let mut queue = kernel.submission();
        while !queue.is_full() {
            let Some(id) = self.backlog.pop_front() else { return };
            let slot = self.slots[id as usize].as_mut().expect("an operation of the backlog");
            let fd = slot.lane.file.as_raw_fd();
            let entry = slot.operation.entry(fd, slot.done_bytes).user_data(u64::from(id));
            // SAFETY: all memory that the entry points to is owned by the slot, which stays in the
            // table, and does not move, until the completion was taken in. The descriptor is kept
            // open by the slot's lane.
            unsafe { queue.push(&entry) }.expect("the queue is not full");
            self.in_kernel += 1;
        }
    }

    /// Submits and collects in one system call, if there is anything to do either way.
    fn enter(&mut self) -> bool {
        let Some(kernel) = &mut self.kernel else { return false };
        kernel.completion().disable_eventfd();
        let queue = kernel.submission();
        let needed = !queue.is_empty() || queue.taskrun() || queue.cq_overflow();
        drop(queue);
        let outcome = if needed { kernel.submit() } else { Ok(0) };
        self.answers.extend(kernel.completion().map(|entry| {
            let id = u32::try_from(entry.user_data()).expect("the number of a slot");
            (id, entry.result())
        }));
        kernel.completion().enable_eventfd();
        // What completes from here on adds to the eventfd; what completed before is seen by the
        // look that the caller takes after this. (The kernel looks at the flag after it announced
        // the completion. On processors that may swap the two, the next completion or the
        // watchdog's kick repairs a missed one.)
        fence(Ordering::SeqCst);
        match outcome {
            Ok(_) => false,
            Err(error) => match error.raw_os_error() {
                Some(libc::EINTR) => false,
                Some(libc::EAGAIN | libc::EBUSY) => true,
                _ => panic!("the kernel refuses submissions: {error}"),
            },
        }
    }

    fn take_in(&mut self) {
        let mut answers = std::mem::take(&mut self.answers);
        for (id, answer) in answers.drain(..) {
            self.in_kernel -= 1;
            match self.slot(id).step(answer) {
                Step::Again => self.backlog.push_back(id),
                Step::Ended(result) => self.end(id, result),
            }
        }
        self.answers = answers;
    }

    fn end(&mut self, id: u32, result: Result<(), i32>) {
        let slot = self.slot(id);
        slot.result = Some(result);
        let (waker, abandoned) = (slot.waker.take(), slot.abandoned);
        if slot.operation.is_transfer() {
            let lane = Rc::clone(&slot.lane);
            self.leave_lane(&lane);
        }
        self.woken.extend(waker);
        if abandoned {
            drop(self.remove(id));
        }
    }

    /// Lets the next transfer in line take the place of one that ended.
    fn leave_lane(&mut self, lane: &Lane) {
        match lane.line.borrow_mut().pop_front() {
            Some(next) => self.backlog.push_back(next),
            None => lane.transfers.set(lane.transfers.get() - 1),
        }
    }

    fn close(&mut self) {
        for _ in 0..CLOSE_SECONDS_MAX {
            self.turn();
            if self.in_kernel == 0 && self.backlog.is_empty() {
                break;
            }
            let Some(kernel) = &self.kernel else { return };
            let second = Timespec::new().sec(1);
            // The answer does not matter: the next round looks.
            let _ = kernel.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&second));
        }
        let kernel = self.kernel.take();
        if self.in_kernel > 0 || !self.backlog.is_empty() {
            let unfinished = self.in_kernel;
            tracing::error!(unfinished, "drive operations did not end; their memory is given up");
            std::mem::forget(kernel);
            std::mem::forget(std::mem::take(&mut self.slots));
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The kernel may still write to buffers of the table.
        self.close();
    }
}

/// The end of an operation, as a future. Dropping it abandons the operation without ending it.
pub(super) struct Pending {
    ring: Ring,
    id: u32,
}

/// In [`Pending::id`]: the operation was handed out.
const HANDED_OUT: u32 = u32::MAX;

impl Future for Pending {
    type Output = Finished;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Finished> {
        assert_ne!(self.id, HANDED_OUT, "polled after its end");
        let mut inner = self.ring.inner.borrow_mut();
        if inner.slots.get(self.id as usize).is_none() {
            return Poll::Pending; // The ring gave up its table: this never ends.
        }
        let slot = inner.slot(self.id);
        let Some(result) = slot.result else {
            slot.waker = Some(context.waker().clone());
            return Poll::Pending;
        };
        let slot = inner.remove(self.id);
        drop(inner);
        self.id = HANDED_OUT;
        Poll::Ready(Finished { operation: slot.operation, result })
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if self.id == HANDED_OUT {
            return;
        }
        let mut inner = self.ring.inner.borrow_mut();
        let Some(Some(slot)) = inner.slots.get_mut(self.id as usize) else {
            return; // The ring gave up its table.
        };
        if slot.result.is_some() {
            drop(inner.remove(self.id));
        } else {
            slot.abandoned = true;
            slot.waker = None;
        }
    }
}

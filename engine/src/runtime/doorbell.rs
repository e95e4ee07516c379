//! How anything outside wakes a core, and what the core does then.
//!
//! Each core has an eventfd, its bell, on which the executor always keeps one read pending. It is
//! written by the kernel when our ring has completions, by other threads that left something for
//! the core (a post, a returned buffer, a signal), and by the watchdog. The task that reads it
//! calls [`Core::answer`], which looks at everything that may have rung.
//!
//! A thread that rings sets `rung` first and writes only if it was not set, so a burst costs one
//! write. The core clears `rung` *before* it looks, so what is left after the look rings again.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::task::Waker;

use glommio::io::BufferedFile;

use super::Generator;
use super::cores::CoreId;
use super::ring::Ring;
use super::tasks::{Tasks, panic_text};
use crate::buffer::Arena;

/// In the place of a thread's number.
const NOT_YET: libc::pid_t = 0;
const ENDED: libc::pid_t = -1;

/// The part of a core that other threads may touch. On a cache line of its own: the core writes
/// `beats` at every poll of a task.
#[repr(align(128))]
pub(super) struct Signal {
    bell: OwnedFd,
    rung: AtomicBool,
    /// Moves when a task of the core is polled.
    beats: AtomicU64,
    /// The watchdog rang and the core has not answered yet.
    asked: AtomicBool,
    /// The thread of the core while its executor runs, [`NOT_YET`] before and [`ENDED`] after.
    thread: AtomicI32,
}

impl Signal {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            bell: eventfd()?,
            rung: AtomicBool::new(false),
            beats: AtomicU64::new(0),
            asked: AtomicBool::new(false),
            thread: AtomicI32::new(NOT_YET),
        })
    }

    /// Makes the core look, soon. What it is to find must be in place before the call.
    pub(super) fn ring(&self) {
        if !self.rung.swap(true, Ordering::SeqCst) {
            add_to_eventfd(&self.bell, 1);
        }
    }

    /// One store: the core is the only writer.
    pub(super) fn beat(&self) {
        let beats = self.beats.load(Ordering::Relaxed);
        self.beats.store(beats.wrapping_add(1), Ordering::Relaxed);
    }

    pub(super) fn beats(&self) -> u64 {
        self.beats.load(Ordering::Relaxed)
    }

    /// Asks the core to answer; see [`Self::is_asked`].
    pub(super) fn ask(&self) {
        self.asked.store(true, Ordering::SeqCst);
        self.ring();
    }

    /// Whether the last [`Self::ask`] is still without an answer.
    pub(super) fn is_asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }

    /// Called on the thread of the core, when its executor is about to run.
    pub(super) fn begin(&self) {
        // SAFETY: plain system call.
        self.thread.store(unsafe { libc::gettid() }, Ordering::SeqCst);
    }

    /// Nobody answers from now on.
    pub(super) fn end(&self) {
        self.thread.store(ENDED, Ordering::SeqCst);
    }

    pub(super) fn has_ended(&self) -> bool {
        self.thread.load(Ordering::SeqCst) == ENDED
    }

    /// The thread of the core while its executor runs.
    pub(super) fn thread(&self) -> Option<libc::pid_t> {
        Some(self.thread.load(Ordering::SeqCst)).filter(|&thread| thread > NOT_YET)
    }
}

fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: plain system call.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn add_to_eventfd(fd: &OwnedFd, count: u64) {
    loop {
        // SAFETY: `count` is valid for eight bytes of reading.
        let written = unsafe { libc::write(fd.as_raw_fd(), (&raw const count).cast(), 8) };
        if written == 8 {
            return;
        }
        let error = io::Error::last_os_error();
        assert_eq!(error.kind(), io::ErrorKind::Interrupted, "an eventfd takes a write: {error}");
    }
}

/// Something that may have been left for the core when the bell rings.
pub(super) trait Inbox {
    /// Takes what is there, up to a bound; true if there may be more.
    fn drain(&self) -> bool;
}

/// All that belongs to one core and never leaves it.
pub(super) struct Core {
    pub(super) id: CoreId,
    pub(super) cpu: usize,
    pub(super) signal: Arc<Signal>,
    pub(super) ring: Ring,
    pub(super) arena: Arena,
    pub(super) random: Generator,
    pub(super) tasks: Tasks,
    inboxes: RefCell<Vec<Rc<dyn Inbox>>>,
    /// Tasks that look again whenever the bell was rung.
    listening: RefCell<Vec<Waker>>,
    stopping: Cell<bool>,
}

impl Core {
    /// Makes the core's own things on the thread that will run it.
    pub(super) fn new(
        id: CoreId,
        cpu: usize,
        signal: Arc<Signal>,
        arena_bytes: u64,
    ) -> io::Result<Self> {
        let ring = Ring::new(signal.bell.as_raw_fd())?;
        let home = Arc::clone(&signal);
        let arena = Arena::map(arena_bytes, move || home.ring())?;
        arena.serve_this_thread();
        Ok(Self {
            id,
            cpu,
            signal,
            ring,
            arena,
            random: Generator::from_kernel()?,
            tasks: Tasks::default(),
            inboxes: RefCell::default(),
            listening: RefCell::default(),
            stopping: Cell::new(false),
        })
    }

    pub(super) fn add_inbox(&self, inbox: Rc<dyn Inbox>) {
        self.inboxes.borrow_mut().push(inbox);
        // Something may already be in it.
        self.signal.ring();
    }

    /// Wakes the task once, when the bell is rung the next time.
    pub(super) fn wake_at_bell(&self, waker: &Waker) {
        let mut listening = self.listening.borrow_mut();
        // A task that is polled often while it waits must not fill the list.
        if !listening.iter().any(|known| known.will_wake(waker)) {
            listening.push(waker.clone());
        }
    }

    /// Looks at everything that may have rung the bell.
    fn answer(&self) {
        self.signal.rung.swap(false, Ordering::SeqCst);
        self.signal.asked.store(false, Ordering::SeqCst);
        self.ring.turn();
        self.arena.wake_waiting();
        self.listening.take().into_iter().for_each(Waker::wake);
        let mut index = 0;
        // The list may grow while an inbox is drained.
        while let Some(inbox) = { self.inboxes.borrow().get(index).cloned() } {
            if self.drain(&*inbox) {
                self.signal.ring();
            }
            index += 1;
        }
    }

    /// A panic in the consumer of a message ends neither the core nor the messages after it.
    fn drain(&self, inbox: &dyn Inbox) -> bool {
        let drained = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| inbox.drain()));
        drained.unwrap_or_else(|panic| {
            let reason = panic_text(&*panic);
            tracing::error!(core = self.id.0, reason, "a message made its consumer panic");
            true
        })
    }
}

/// The task that waits for the bell, and the one that hands operations to the kernel.
pub(super) struct Door {
    core: Rc<Core>,
    bell: glommio::task::JoinHandle<()>,
    submitter: glommio::task::JoinHandle<()>,
}

impl Door {
    /// Must be called on the executor of `core`.
    pub(super) fn open(core: &Rc<Core>) -> io::Result<Self> {
        let file = file_of(&core.signal.bell)?;
        let at_bell = Rc::clone(core);
        let bell = glommio::spawn_local(async move {
            answer_until_stopped(&at_bell, &file).await;
            if let Err(error) = file.close().await {
                tracing::warn!(%error, "the descriptor of a doorbell was not closed");
            }
        });
        let submits = Rc::clone(core);
        let submitter = glommio::spawn_local(async move { submits.ring.submit_when_asked().await });
        Ok(Self { core: Rc::clone(core), bell: bell.detach(), submitter: submitter.detach() })
    }

    /// Drops the tasks of the core, waits for its operations in flight, and leaves the door.
    pub(super) async fn close(self) {
        self.core.tasks.close(&self.core);
        // What posts left here must go now: it may hold the core itself.
        self.core.inboxes.take();
        self.core.ring.close();
        self.core.stopping.set(true);
        add_to_eventfd(&self.core.signal.bell, 1);
        self.bell.await;
        self.submitter.await;
    }
}

async fn answer_until_stopped(core: &Core, bell: &BufferedFile) {
    while !core.stopping.get() {
        match bell.read_at(0, 8).await {
            Ok(_) => core.answer(),
            Err(error) => {
                let error = io::Error::from(error);
                let transient = matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN));
                assert!(transient, "a core cannot read its doorbell: {error}");
            }
        }
    }
}

fn file_of(eventfd: &OwnedFd) -> io::Result<BufferedFile> {
    let own = eventfd.try_clone()?;
    // SAFETY: the descriptor was just duplicated; the file becomes its only owner.
    Ok(unsafe { BufferedFile::from_raw_fd(own.into_raw_fd()) })
}

//! The production backend of the seams: glommio executors, one io_uring ring of our own per core,
//! sockets, signals. glommio is named here and below `runtime/`, and nowhere else.
//!
//! - [`cores`] starts one pinned executor per core and ends them.
//! - [`doorbell`] is how anything outside wakes a core: completions of the ring, posts of other
//!   cores, the watchdog.
//! - [`ring`] and [`storage`] are drive I/O; [`post`] is messages between cores; [`net`] is TCP;
//!   [`signals`] is SIGTERM and SIGINT; [`limits`] is what the operating system must grant;
//!   [`watchdog`] cures the one known defect of glommio that could stop a core.
//!
//! Facts about glommio 0.9.0 that everything here leans on:
//! - Its executor may park although tasks are runnable; see [`watchdog`].
//! - It looks at sockets and timers only when no task is runnable, or when its preempt timer
//!   fires (100 ms). A task that computes for long and yields by waking itself therefore starves
//!   I/O. `Clock::sleep(Duration::ZERO)` is the way to yield: it lets I/O in.
//! - A panic that leaves a task ends the executor, so every task runs under `catch_unwind`; and it
//!   neither spawns nor ends tasks as one expects. See [`tasks`].
//! - A task may have at most 32 767 wakers at a time.

pub mod cores;
mod doorbell;
pub mod limits;
pub mod net;
pub mod post;
mod ring;
pub mod signals;
pub mod storage;
mod tasks;
mod watchdog;

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use glommio::timer::Timer;

pub use cores::{CoreFailure, CoreId, Options, Running, StartError, start};
pub use post::{Inlet, Outbox, outbox};
pub use storage::DirectStorage;

use crate::buffer::Arena;
use crate::seam::{Clock, Moment, Random, Spawn, WallMs};
use doorbell::Core;

/// One core, as the tasks that run on it see it. It never leaves its core.
#[derive(Clone)]
pub struct GlommioRuntime {
    core: Rc<Core>,
}

impl GlommioRuntime {
    fn new(core: Rc<Core>) -> Self {
        Self { core }
    }

    pub fn core(&self) -> CoreId {
        self.core.id
    }

    /// The buffers of this core.
    pub fn arena(&self) -> &Arena {
        &self.core.arena
    }
}

/// A sleep that is shorter is only a turn left to others.
const SLEEP_MIN: Duration = Duration::from_nanos(300);
/// Longer than any sleep that is meant; keeps sums of times from overflowing.
const SLEEP_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

impl Clock for GlommioRuntime {
    fn now(&self) -> Moment {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `time` is a valid place for the answer.
        let code = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
        assert_eq!(code, 0, "every Linux has a monotonic clock");
        let seconds = u64::try_from(time.tv_sec).expect("the clock starts at zero");
        let nanos = u64::try_from(time.tv_nsec).expect("a part of a second");
        Moment(seconds * 1_000_000_000 + nanos)
    }

    #[expect(clippy::disallowed_methods, reason = "this is the clock behind the seam")]
    fn wall(&self) -> WallMs {
        let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let millis = since_1970.map_or(0, |duration| duration.as_millis());
        WallMs(u64::try_from(millis).unwrap_or(u64::MAX))
    }

    async fn sleep(&self, duration: Duration) {
        if duration < SLEEP_MIN {
            leave_a_turn().await;
        } else {
            glommio::timer::sleep(duration.min(SLEEP_MAX)).await;
        }
    }
}

/// Lets other tasks and I/O in. A timer that is due when it is first looked at would not be waited
/// for, so it is begun anew until it is not; the executor then looks at I/O before it looks at
/// the timer again.
async fn leave_a_turn() {
    let mut delay = SLEEP_MIN;
    let mut timer = Timer::new(delay);
    let mut waited = false;
    poll_fn(|context| {
        while Pin::new(&mut timer).poll(context).is_ready() {
            if waited {
                return Poll::Ready(());
            }
            delay *= 2;
            timer = Timer::new(delay);
        }
        waited = true;
        Poll::Pending
    })
    .await;
}

impl Random for GlommioRuntime {
    fn random_u64(&self) -> u64 {
        self.core.random.next()
    }
}

impl Spawn for GlommioRuntime {
    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        tasks::spawn(&self.core, task);
    }
}

/// xoshiro256++, seeded by the kernel: fast, and good for ids and jitter. Not for secrets.
pub(crate) struct Generator {
    state: Cell<[u64; 4]>,
}

impl Generator {
    fn from_kernel() -> std::io::Result<Self> {
        let mut seed = [0u8; 32];
        // SAFETY: `seed` is valid for 32 bytes of writing.
        let length = unsafe { libc::getrandom(seed.as_mut_ptr().cast(), seed.len(), 0) };
        if length != 32 {
            return Err(std::io::Error::last_os_error());
        }
        let mut state = [0u64; 4];
        for (word, bytes) in state.iter_mut().zip(seed.chunks_exact(8)) {
            *word = u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
        }
        // The all-zero state is the only one that never leaves itself.
        state[0] |= 1;
        Ok(Self { state: Cell::new(state) })
    }

    fn next(&self) -> u64 {
        let mut state = self.state.get();
        let result = state[0].wrapping_add(state[3]).rotate_left(23).wrapping_add(state[0]);
        let shifted = state[1] << 17;
        state[2] ^= state[0];
        state[3] ^= state[1];
        state[1] ^= state[2];
        state[0] ^= state[3];
        state[2] ^= shifted;
        state[3] = state[3].rotate_left(45);
        self.state.set(state);
        result
    }
}

#[cfg(test)]
mod tests;

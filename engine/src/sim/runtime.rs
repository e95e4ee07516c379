//! A simulated core: the seams [`Clock`], [`Random`] and [`Spawn`] for one group of tasks, and the
//! draws that simulated devices and wires are made of.
//!
//! Monotonic time is the world's and the same for all. Wall time is the group's own: it can be
//! off, drift and jump, because no decision about safety may read it.

use std::cell::Cell;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::executor::{EventId, World};
use super::prng::Prng;
use crate::seam::{Clock, Moment, Random, Spawn, WallMs};

/// Wall time when a simulation begins: an instant in 2023.
const WALL_START_MS: i64 = 1_700_000_000_000;

#[derive(Clone)]
pub struct SimRuntime {
    world: Rc<World>,
    group: usize,
}

/// How far a wall clock is off.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WallSkew {
    pub offset_ms: i64,
    /// Microseconds gained (or lost) each second from now on.
    pub drift_ppm: i64,
}

impl SimRuntime {
    pub(super) fn new(world: Rc<World>, parent: Option<usize>) -> Self {
        let group = world.add_group(parent);
        Self { world, group }
    }

    /// A group that is stopped with this one: a core of a node.
    #[must_use]
    pub fn subgroup(&self) -> Self {
        Self::new(self.world.clone(), Some(self.group))
    }
    /// Drops all tasks of this group and of the groups below it, where they stand, as the death
    /// of their process does. What they still spawn or ask of a disk is ignored.
    pub fn stop(&self) {
        self.world.stop(self.group);
    }
    /// Nothing of this group and of the groups below it runs until [`Self::resume`], as after
    /// SIGSTOP. Clocks and devices go on, and what they wake runs then.
    pub fn pause(&self) {
        self.world.set_paused(self.group, true);
    }
    pub fn resume(&self) {
        self.world.set_paused(self.group, false);
    }
    pub fn is_paused(&self) -> bool {
        self.world.is_paused(self.group)
    }
    /// Whether the group was not stopped; it may be paused.
    pub fn is_alive(&self) -> bool {
        self.world.is_alive(self.group)
    }

    /// Tasks of the whole world that have not ended.
    pub fn task_count(&self) -> usize {
        self.world.task_count()
    }

    /// Sets the wall clock of this group; a changed offset is a jump.
    pub fn set_wall(&self, skew: WallSkew) {
        self.world
            .with_wall(self.group, |wall, now_ns| *wall = WallClock { skew, since_ns: now_ns });
    }

    /// Runs `event` after `delay`, whatever becomes of this group: what devices and wires do.
    pub fn schedule(&self, delay: Duration, event: impl FnOnce() + 'static) {
        self.world.run_at(self.world.now().plus(delay), Box::new(event));
    }

    /// Draws from the world's sequence, for choices that are not the group's own.
    pub fn draw<T>(&self, draw: impl FnOnce(&mut Prng) -> T) -> T {
        self.world.draw(draw)
    }
    /// True with a chance of `ppm` in a million.
    pub fn chance(&self, ppm: u32) -> bool {
        self.draw(|prng| prng.chance(ppm))
    }
    /// A duration of the range.
    pub fn delay(&self, range: Range<Duration>) -> Duration {
        self.draw(|prng| prng.duration(range))
    }
    /// Mixes something that happened into the event hash.
    pub fn note(&self, value: u64) {
        self.world.note(value);
    }
}

impl Clock for SimRuntime {
    fn now(&self) -> Moment {
        self.world.now()
    }
    fn wall(&self) -> WallMs {
        self.world.with_wall(self.group, |wall, now_ns| wall.at(now_ns))
    }
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> {
        // Even an empty sleep lets others run.
        let deadline = self.world.now().plus(duration.max(Duration::from_nanos(1)));
        Sleep { world: self.world.clone(), deadline, event: Cell::new(None) }
    }
}

impl Random for SimRuntime {
    fn random_u64(&self) -> u64 {
        self.world.draw_in_group(self.group)
    }
}

impl Spawn for SimRuntime {
    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.world.spawn(self.group, Box::pin(task));
    }
}

impl std::fmt::Debug for SimRuntime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SimRuntime(group {})", self.group)
    }
}

struct Sleep {
    world: Rc<World>,
    deadline: Moment,
    event: Cell<Option<EventId>>,
}

impl Sleep {
    fn cancel(&self) {
        if let Some(event) = self.event.take() {
            self.world.cancel(event);
        }
    }
}

impl Future for Sleep {
    type Output = ();
    fn poll(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<()> {
        // The waker may be another one than at the last poll.
        self.cancel();
        if self.world.now() >= self.deadline {
            return Poll::Ready(());
        }
        self.event.set(Some(self.world.wake_at(self.deadline, task.waker().clone())));
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.cancel();
    }
}

#[derive(Default)]
pub(super) struct WallClock {
    skew: WallSkew,
    /// When the drift began.
    since_ns: u64,
}

impl WallClock {
    fn at(&self, now_ns: u64) -> WallMs {
        let drifted_ns = (now_ns - self.since_ns) as i128 * i128::from(self.skew.drift_ppm)
            / i128::from(super::prng::PPM);
        let elapsed_ms = (i128::from(now_ns) + drifted_ns).div_euclid(1_000_000);
        let wall_ms = i128::from(WALL_START_MS + self.skew.offset_ms) + elapsed_ms;
        WallMs(u64::try_from(wall_ms.max(0)).expect("a wall clock of this age"))
    }
}

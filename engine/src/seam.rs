//! The border to the machine: storage, clock, random, spawn. Two backends stand behind it,
//! `runtime` (glommio and io_uring) and `sim` (one thread, virtual time, one seed).
//!
//! Static dispatch throughout; nothing here is `Send`, because nothing leaves its core. The core
//! mailbox is the fifth seam; it stands in `net`, which knows what is sent through it.
//!
//! Dropping the future of a storage operation does not cancel it: the backend owns the buffer
//! until the device is done with it.

use std::future::Future;
use std::time::Duration;

use crate::buffer::{Buffer, SharedBuffer};
use crate::error::Result;
use crate::units::{BlockCount, BlockIndex};

/// Nanoseconds of a clock that never goes back, from an arbitrary start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Moment(pub u64);

impl Moment {
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// Milliseconds since 1970. For people and headers only: no decision about safety reads it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct WallMs(pub u64);

pub trait Clock {
    fn now(&self) -> Moment;
    fn wall(&self) -> WallMs;
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()>;
}

pub trait Random {
    fn random_u64(&self) -> u64;
    fn random_u128(&self) -> u128 {
        u128::from(self.random_u64()) << 64 | u128::from(self.random_u64())
    }
}

pub trait Spawn {
    /// Runs `task` on this core to its end. A panic in it is caught and reported by the backend.
    fn spawn(&self, task: impl Future<Output = ()> + 'static);
}

/// A core as everything above sees it.
pub trait Runtime: Clock + Random + Spawn + Clone + 'static {}
impl<T: Clock + Random + Spawn + Clone + 'static> Runtime for T {}

/// When a write counts as complete.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WriteSync {
    /// When the device has it; durable after the next [`Storage::flush`] that begins later.
    Cached,
    /// When it is durable by itself (a FUA write). Says nothing about earlier writes.
    Durable,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Geometry {
    /// Blocks that exist now and may be read and written.
    pub length: BlockCount,
    /// Blocks that [`Storage::grow`] can reach.
    pub length_max: BlockCount,
}

/// One drive's bytes, addressed in blocks. No order holds between two operations in flight; a
/// flush covers the writes that completed before it was called.
pub trait Storage: 'static {
    fn geometry(&self) -> Geometry;

    /// Fills `buffer` from the blocks at `at`. The content is undefined after an error.
    fn read(&self, at: BlockIndex, buffer: Buffer) -> impl Future<Output = (Buffer, Result<()>)>;

    /// Writes all of `buffer` to the blocks at `at`.
    fn write(
        &self,
        at: BlockIndex,
        buffer: impl Into<SharedBuffer>,
        sync: WriteSync,
    ) -> impl Future<Output = Result<()>>;

    fn flush(&self) -> impl Future<Output = Result<()>>;

    /// Extends the storage to `length` blocks, reserved and durable before it resolves.
    fn grow(&self, length: BlockCount) -> impl Future<Output = Result<()>>;

    /// Whether what the operator sees at the drive's place is still this storage: fails when the
    /// directory was renamed, deleted or replaced.
    fn probe(&self) -> impl Future<Output = Result<()>>;

    /// Blocks that are free for growth below `length_max`, as the machine sees it now.
    fn free(&self) -> impl Future<Output = Result<BlockCount>>;
}

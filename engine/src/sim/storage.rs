//! One opening of a simulated disk: the seam's [`Storage`].
//!
//! An operation is submitted when it is called (unless the group of tasks is stopped) and takes effect when it completes, after a drawn
//! delay, so that completions change order. Dropping its future changes nothing. What reads and
//! writes that touch the same block at once see and leave, says `medium`.

use std::future::{Future, pending};
use std::ops::Range;
use std::time::Duration;

use futures_channel::oneshot;

use super::disk::{SimDisk, State};
use super::faults::Latency;
use super::image::contents;
use super::medium::Write;
use super::runtime::SimRuntime;
use crate::buffer::{Buffer, SharedBuffer};
use crate::checksum::crc64;
use crate::error::Result;
use crate::seam::{Geometry, Storage, WriteSync};
use crate::units::{BlockCount, BlockIndex};

/// Ends with the next opening of the disk, with a power cut, or when the device is exchanged.
pub struct SimStorage {
    disk: SimDisk,
    runtime: SimRuntime,
    opening: u64,
}

impl SimStorage {
    pub(super) fn new(disk: SimDisk, runtime: SimRuntime, opening: u64) -> Self {
        Self { disk, runtime, opening }
    }

    /// Ends an operation after `delay`. `end` learns whether the device is still there, and does
    /// to it what the operation does. Runs whether or not the future is still awaited.
    fn operation<T: 'static>(
        &self,
        delay: Duration,
        end: impl FnOnce(&mut State, Result<()>) -> T + 'static,
    ) -> impl Future<Output = T> {
        let (sender, receiver) = oneshot::channel();
        let opening = self.opening;
        let end = move |disk: &SimDisk| {
            let output = {
                let state = &mut *disk.state.borrow_mut();
                let presence = state.presence(opening);
                end(state, presence)
            };
            // Nobody may be waiting any more.
            let _ = sender.send(output);
        };
        if self.runtime.is_alive() {
            let (disk, runtime) = (self.disk.clone(), self.runtime.clone());
            self.runtime.schedule(delay, move || disk.due(runtime, opening, Box::new(end)));
        }
        async move {
            match receiver.await {
                Ok(output) => output,
                // The power is off, or the process is dead.
                Err(oneshot::Canceled) => pending().await,
            }
        }
    }

    fn delay(&self, range: impl FnOnce(&Latency) -> Range<Duration>) -> Duration {
        self.disk.state.borrow_mut().delay(range)
    }
}

impl Storage for SimStorage {
    fn geometry(&self) -> Geometry {
        let state = self.disk.state.borrow();
        Geometry {
            length: BlockCount(state.medium.length()),
            length_max: BlockCount(state.length_max),
        }
    }

    fn read(
        &self,
        at: BlockIndex,
        mut buffer: Buffer,
    ) -> impl Future<Output = (Buffer, Result<()>)> {
        let delay = self.delay(|latency| latency.read.clone());
        let runtime = self.runtime.clone();
        self.operation(delay, move |state, presence| {
            let outcome = presence.and_then(|()| state.end_read(at, &mut buffer));
            runtime.note(at.0 ^ crc64(&buffer));
            (buffer, outcome)
        })
    }

    fn write(
        &self,
        at: BlockIndex,
        buffer: impl Into<SharedBuffer>,
        sync: WriteSync,
    ) -> impl Future<Output = Result<()>> {
        let buffer = buffer.into();
        let blocks = at.0..at.0 + buffer.length_blocks().0;
        let is_durable = sync == WriteSync::Durable;
        let mut delay = self.delay(|latency| latency.write.clone());
        if is_durable {
            delay += self.delay(|latency| latency.flush.clone());
        }
        let write = Write { at: at.0, blocks: contents(&buffer), is_durable };
        self.runtime.note(at.0 ^ crc64(&buffer));
        let id = match self.runtime.is_alive() {
            true => self.disk.state.borrow_mut().submit_write(self.opening, write),
            false => None,
        };
        self.operation(delay, move |state, presence| match presence {
            Ok(()) => state.end_write(id.expect("an opening that ended stays so"), blocks),
            Err(error) => {
                id.into_iter().for_each(|id| state.abandon_write(id));
                Err(error)
            }
        })
    }

    fn flush(&self) -> impl Future<Output = Result<()>> {
        let delay = self.delay(|latency| latency.flush.clone());
        let covers = self.disk.state.borrow().medium.completed();
        self.operation(delay, move |state, presence| {
            presence.and_then(|()| state.end_flush(covers))
        })
    }

    fn grow(&self, length: BlockCount) -> impl Future<Output = Result<()>> {
        let delay = self.delay(|latency| latency.flush.clone());
        if self.runtime.is_alive() {
            self.disk.state.borrow_mut().submit_grow(self.opening, length.0);
        }
        self.operation(delay, move |state, presence| {
            presence.and_then(|()| state.end_grow(length.0))
        })
    }

    fn probe(&self) -> impl Future<Output = Result<()>> {
        let delay = self.delay(|latency| latency.read.clone());
        self.operation(delay, |_, presence| presence)
    }

    fn free(&self) -> impl Future<Output = Result<BlockCount>> {
        let delay = self.delay(|latency| latency.read.clone());
        self.operation(delay, |state, presence| presence.map(|()| BlockCount(state.free())))
    }
}

//! Flushes shared by all who wait for one: while one is in flight, later callers wait for the
//! next, which covers all of them. A flush that fails ends it for good.

use std::cell::Cell;
use std::rc::Rc;

use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::seam::{Runtime, Storage};

pub struct Flushes<R: Runtime, S: Storage> {
    runtime: R,
    storage: Rc<S>,
    asked: Cell<u64>,
    done: Progress,
    running: Cell<bool>,
}

impl<R: Runtime, S: Storage> Flushes<R, S> {
    pub fn new(runtime: R, storage: Rc<S>) -> Rc<Self> {
        Rc::new(Self {
            runtime,
            storage,
            asked: Cell::new(0),
            done: Progress::default(),
            running: Cell::new(false),
        })
    }

    /// Makes all writes durable that completed before the call.
    pub async fn flush(self: &Rc<Self>) -> Result<()> {
        let ticket = self.asked.get() + 1;
        self.asked.set(ticket);
        if !self.running.replace(true) {
            self.runtime.spawn(Rc::clone(self).run());
        }
        self.done.wait(ticket).await
    }

    pub fn fail(&self, error: Error) {
        self.done.fail(error);
    }

    async fn run(self: Rc<Self>) {
        while self.done.reached() < self.asked.get() && self.done.check().is_ok() {
            let covered = self.asked.get();
            match self.storage.flush().await {
                Ok(()) => self.done.advance(covered),
                Err(error) => self.done.fail(as_flush_failure(error)),
            }
        }
        self.running.set(false);
    }
}

/// A write or flush that was to make something durable failed: what the drive holds is unknown.
pub fn as_flush_failure(error: Error) -> Error {
    match error {
        Error::Io { errno, .. } => Error::FlushFailed { errno },
        other => other,
    }
}

//! When a connection has been quiet for too long. A peer that sends nothing, sends its head in
//! drips, stalls in a body or does not take its answer must not hold a connection for ever.
//!
//! Each wait has the moment at which it began; progress ends it. One timer a connection looks at
//! the earliest deadline. Time that the server itself needs counts for nobody. A body that only
//! drips uses up its patience, which each byte restores by what it may take at the least rate; so does
//! an answer that is taken in drips, whose bytes wait in memory that others need.

use std::cell::Cell;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use basalt_engine::seam::{Moment, Runtime};

use crate::object::error::SourceError;

/// The shortest time between two looks at the deadlines.
const REST_MIN: Duration = Duration::from_millis(500);
/// A body may not arrive, and an answer not be taken, more slowly than this for long.
const BYTES_PER_SECOND_MIN: u64 = 1024;

/// How long a connection may wait for its peer.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Between two requests.
    pub idle: Duration,
    /// From the first byte of a head to its last.
    pub head: Duration,
    /// For the next bytes of a body, after it came at the least rate so far.
    pub body: Duration,
    /// For the peer to take bytes of an answer, after it took them at the least rate so far.
    pub write: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(90),
            head: Duration::from_secs(20),
            body: Duration::from_secs(60),
            write: Duration::from_secs(60),
        }
    }
}

impl Patience {
    /// Who is only told to go has to take that quickly.
    pub(super) fn of_the_turned_away() -> Self {
        let short = Duration::from_secs(5);
        Self { idle: short, head: short, body: short, write: short }
    }
}

/// What to do when a deadline has passed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Progress was made since; look again later.
    Wait,
    /// The request is told by its body; the connection lives until it is answered.
    BodyTimedOut,
    Close,
}

pub(super) struct Watch<R> {
    runtime: R,
    patience: Patience,
    idle_since: Cell<Option<Moment>>,
    head_since: Cell<Option<Moment>>,
    body_since: Cell<Option<Moment>>,
    /// What is left of the patience for this body.
    body_patience: Cell<Duration>,
    write_since: Cell<Option<Moment>>,
    /// What is left of the patience for this answer.
    write_patience: Cell<Duration>,
    body_waker: Cell<Option<Waker>>,
    body_timed_out: Cell<bool>,
}

impl<R: Runtime> Watch<R> {
    pub(super) fn new(runtime: R, patience: Patience) -> Self {
        let idle_since = Cell::new(Some(runtime.now()));
        Self {
            runtime,
            patience,
            idle_since,
            head_since: Cell::new(None),
            body_since: Cell::new(None),
            body_patience: Cell::new(patience.body),
            write_since: Cell::new(None),
            write_patience: Cell::new(patience.write),
            body_waker: Cell::new(None),
            body_timed_out: Cell::new(false),
        }
    }

    #[cfg(test)]
    pub(super) fn runtime(&self) -> &R {
        &self.runtime
    }

    /// Bytes arrived. Between two requests they begin a head.
    pub(super) fn read_progress(&self) {
        if self.idle_since.take().is_some() {
            self.head_since.set(Some(self.runtime.now()));
        }
    }

    pub(super) fn request_begins(&self) {
        self.idle_since.set(None);
        self.head_since.set(None);
        self.body_patience.set(self.patience.body);
        self.write_patience.set(self.patience.write);
    }

    pub(super) fn request_ends(&self) {
        self.idle_since.set(Some(self.runtime.now()));
    }

    pub(super) fn write_waits(&self) {
        if self.write_since.get().is_none() {
            self.write_since.set(Some(self.runtime.now()));
        }
    }

    /// The peer took bytes, or nothing is left that it could take.
    pub(super) fn write_progress(&self, bytes: usize) {
        let waited = self.write_since.take().map(|since| self.runtime.now().since(since));
        let left = self.write_patience.get().saturating_sub(waited.unwrap_or_default());
        self.write_patience.set(restored(left, bytes).min(self.patience.write));
    }

    /// Polls for bytes of the body, and fails once they did not come in time.
    pub(super) fn poll_body<T>(
        &self,
        task: &mut Context<'_>,
        poll: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<Result<T, SourceError>> {
        match poll(task) {
            Poll::Ready(value) => {
                if let Some(since) = self.body_since.take() {
                    let waited = self.runtime.now().since(since);
                    self.body_patience.set(self.body_patience.get().saturating_sub(waited));
                }
                Poll::Ready(Ok(value))
            }
            Poll::Pending if self.body_timed_out.get() => Poll::Ready(Err(SourceError::TimedOut)),
            Poll::Pending => {
                if self.body_since.get().is_none() {
                    self.body_since.set(Some(self.runtime.now()));
                }
                self.body_waker.set(Some(task.waker().clone()));
                Poll::Pending
            }
        }
    }

    /// Bytes of the body arrived.
    pub(super) fn body_progress(&self, bytes: usize) {
        let patience = restored(self.body_patience.get(), bytes);
        self.body_patience.set(patience.min(self.patience.body));
    }

    /// How long until the earliest deadline could pass.
    pub(super) fn rest(&self) -> Duration {
        let now = self.runtime.now();
        let rests = self.waits().map(|(since, patience)| {
            since.map_or(patience, |since| patience.saturating_sub(now.since(since)))
        });
        // Never much less than a second: a deadline that passes a little late costs nothing.
        rests.into_iter().min().expect("there are four").max(REST_MIN)
    }

    pub(super) fn verdict(&self) -> Verdict {
        let now = self.runtime.now();
        let [idle, head, body, write] = self
            .waits()
            .map(|(since, patience)| since.is_some_and(|since| now.since(since) >= patience));
        if idle || head || write {
            return Verdict::Close;
        }
        if body {
            self.body_since.set(None);
            self.body_timed_out.set(true);
            if let Some(waker) = self.body_waker.take() {
                waker.wake();
            }
            return Verdict::BodyTimedOut;
        }
        Verdict::Wait
    }

    fn waits(&self) -> [(Option<Moment>, Duration); 4] {
        [
            (self.idle_since.get(), self.patience.idle),
            (self.head_since.get(), self.patience.head),
            (self.body_since.get(), self.body_patience.get()),
            (self.write_since.get(), self.write_patience.get()),
        ]
    }
}

/// What is left of a patience after `bytes` came through.
fn restored(left: Duration, bytes: usize) -> Duration {
    let micros = (bytes as u64).saturating_mul(1_000_000) / BYTES_PER_SECOND_MIN;
    left.saturating_add(Duration::from_micros(micros))
}

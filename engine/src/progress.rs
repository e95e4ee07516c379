//! A number that only grows, or fails for good, and the tasks that wait for it.

use std::cell::RefCell;
use std::future::poll_fn;
use std::task::{Poll, Waker};

use crate::error::{Error, Result};

#[derive(Default)]
pub struct Progress(RefCell<State>);

#[derive(Default)]
struct State {
    reached: u64,
    failure: Option<Error>,
    waiting: Vec<(u64, Waker)>,
}

impl Progress {
    pub fn reached(&self) -> u64 {
        self.0.borrow().reached
    }

    pub fn failure(&self) -> Option<Error> {
        self.0.borrow().failure.clone()
    }

    /// Fails where [`Self::fail`] was called.
    pub fn check(&self) -> Result<()> {
        self.failure().map_or(Ok(()), Err)
    }

    pub fn advance(&self, reached: u64) {
        let mut state = self.0.borrow_mut();
        state.reached = state.reached.max(reached);
        let reached = state.reached;
        let woken: Vec<Waker> = state
            .waiting
            .extract_if(.., |(wanted, _)| *wanted <= reached)
            .map(|(_, waker)| waker)
            .collect();
        drop(state);
        woken.into_iter().for_each(Waker::wake);
    }

    /// The first failure stays.
    pub fn fail(&self, error: Error) {
        let mut state = self.0.borrow_mut();
        state.failure.get_or_insert(error);
        let woken = std::mem::take(&mut state.waiting);
        drop(state);
        woken.into_iter().for_each(|(_, waker)| waker.wake());
    }

    /// Resolves when the number reaches `wanted`, or with the failure. A failure hides even what
    /// was reached before it: a fenced drive answers nothing.
    pub async fn wait(&self, wanted: u64) -> Result<()> {
        poll_fn(|task| {
            let mut state = self.0.borrow_mut();
            if let Some(failure) = &state.failure {
                return Poll::Ready(Err(failure.clone()));
            }
            if state.reached >= wanted {
                return Poll::Ready(Ok(()));
            }
            let waker = task.waker();
            if !state.waiting.iter().any(|(at, other)| *at == wanted && other.will_wake(waker)) {
                state.waiting.push((wanted, waker.clone()));
            }
            Poll::Pending
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[test]
    fn a_wait_ends_when_the_number_is_reached_or_fails() {
        let progress = Progress::default();
        let mut wait = Box::pin(progress.wait(3));
        assert_eq!((&mut wait).now_or_never(), None);
        progress.advance(2);
        assert_eq!((&mut wait).now_or_never(), None);
        progress.advance(5);
        assert_eq!((&mut wait).now_or_never(), Some(Ok(())));
        let mut wait = Box::pin(progress.wait(6));
        assert_eq!((&mut wait).now_or_never(), None);
        progress.fail(Error::FlushFailed { errno: 5 });
        progress.fail(Error::FlushFailed { errno: 6 });
        assert_eq!((&mut wait).now_or_never(), Some(Err(Error::FlushFailed { errno: 5 })));
    }
}

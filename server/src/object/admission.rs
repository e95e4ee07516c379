//! How many bytes of payload a core has in memory at once, on their way to drives or from them: a fixed
//! number, first come, first served.
//!
//! Invariants: what was admitted never exceeds the limit (I20). Who waits holds nothing of the same
//! admission, so that those who hold something always come to an end without it: a body takes room for
//! one window when its first bytes are at hand and gives it back when the drives have the window; a
//! reader waits for its next window only when it has handed out the one before. Nobody waits in both
//! lines: what a copy reads takes no room, and manifests and settings, on which others wait, do not either.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use basalt_engine::seam::Clock;
use futures_util::future::{Either, select};

use super::error::{Error, Result};

/// Who has waited for this long is refused: the core has more to do than it can.
const PATIENCE: Duration = Duration::from_secs(20);

/// The room of one core, for one direction. A clone is the same room.
#[derive(Clone)]
pub(super) struct Admission {
    state: Rc<RefCell<State>>,
}

struct State {
    limit_bytes: u64,
    admitted_bytes: u64,
    line: VecDeque<(u64, Waker)>,
    next_ticket: u64,
}

/// Room that was taken; given back when dropped.
pub(super) struct Permit {
    state: Rc<RefCell<State>>,
    bytes: u64,
}

impl Admission {
    pub(super) fn new(limit_bytes: u64) -> Self {
        let (line, next_ticket) = (VecDeque::new(), 0);
        let state = State { limit_bytes, admitted_bytes: 0, line, next_ticket };
        Self { state: Rc::new(RefCell::new(state)) }
    }

    /// Room for `bytes`, if there is some and nobody waits. What is larger than all of the room counts
    /// as all of it.
    pub(super) fn try_admit(&self, bytes: u64) -> Option<Permit> {
        let nobody_waits = self.state.borrow().line.is_empty();
        nobody_waits.then(|| self.take(bytes)).flatten()
    }

    /// As [`Self::try_admit`], waiting in line for it.
    pub(super) async fn admit(&self, bytes: u64, clock: &impl Clock) -> Result<Permit> {
        if let Some(permit) = self.try_admit(bytes) {
            return Ok(permit);
        }
        let turn = std::pin::pin!(self.admit_at_last(bytes));
        match select(turn, std::pin::pin!(clock.sleep(PATIENCE))).await {
            Either::Left((permit, _)) => Ok(permit),
            Either::Right(_) => Err(Error::Busy),
        }
    }

    /// As [`Self::admit`], however long it takes: for what has begun and would have to be broken off.
    pub(super) async fn admit_at_last(&self, bytes: u64) -> Permit {
        if let Some(permit) = self.try_admit(bytes) {
            return permit;
        }
        let mut place = PlaceInLine { admission: self, ticket: None };
        poll_fn(|context| {
            place.stand(context.waker());
            match place.is_first().then(|| self.take(bytes)).flatten() {
                Some(permit) => Poll::Ready(permit),
                None => Poll::Pending,
            }
        })
        .await
    }

    pub(super) fn admitted_bytes(&self) -> u64 {
        self.state.borrow().admitted_bytes
    }

    fn take(&self, bytes: u64) -> Option<Permit> {
        let state = &mut *self.state.borrow_mut();
        let bytes = bytes.min(state.limit_bytes);
        if state.admitted_bytes + bytes > state.limit_bytes {
            return None;
        }
        state.admitted_bytes += bytes;
        assert!(state.admitted_bytes <= state.limit_bytes, "I20: more was admitted than there is");
        Some(Permit { state: self.state.clone(), bytes })
    }

    fn wake_first(&self) {
        wake_first(&self.state);
    }
}

fn wake_first(state: &RefCell<State>) {
    if let Some((_, waker)) = state.borrow().line.front() {
        waker.wake_by_ref();
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.state.borrow_mut().admitted_bytes -= self.bytes;
        wake_first(&self.state);
    }
}

/// A place in the line, left when dropped.
struct PlaceInLine<'a> {
    admission: &'a Admission,
    ticket: Option<u64>,
}

impl PlaceInLine<'_> {
    fn stand(&mut self, waker: &Waker) {
        let state = &mut *self.admission.state.borrow_mut();
        match self.ticket {
            None => {
                self.ticket = Some(state.next_ticket);
                state.line.push_back((state.next_ticket, waker.clone()));
                state.next_ticket += 1;
            }
            Some(ticket) => {
                let place = state.line.iter_mut().find(|(other, _)| *other == ticket);
                place.expect("who waits stands in line").1.clone_from(waker);
            }
        }
    }

    fn is_first(&self) -> bool {
        let state = self.admission.state.borrow();
        state.line.front().map(|(ticket, _)| *ticket) == self.ticket
    }
}

impl Drop for PlaceInLine<'_> {
    fn drop(&mut self) {
        let ticket = self.ticket;
        self.admission.state.borrow_mut().line.retain(|(other, _)| Some(*other) != ticket);
        // There may be room for the next, whom nobody else would tell.
        self.admission.wake_first();
    }
}

#[cfg(test)]
mod tests {
    use basalt_engine::sim::Simulation;
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn the_line_is_served_in_order_and_the_limit_holds() {
        let simulation = Simulation::new(1);
        let clock = simulation.group();
        let room = Admission::new(10);
        let first = room.try_admit(6).expect("there is room");
        assert!(room.try_admit(5).is_none());
        let mut large = Box::pin(room.admit(8, &clock));
        let mut small = Box::pin(room.admit(1, &clock));
        assert!((&mut large).now_or_never().is_none());
        assert!((&mut small).now_or_never().is_none(), "it stands behind");
        assert!(room.try_admit(1).is_none(), "nobody passes those who wait");
        drop(first);
        let large = (&mut large).now_or_never().expect("its turn").expect("in time");
        let small = (&mut small).now_or_never().expect("its turn").expect("in time");
        assert_eq!(room.admitted_bytes(), 9);
        drop((large, small));
        assert_eq!(room.admitted_bytes(), 0);
        let all = room.try_admit(1000).expect("as much as there is");
        assert_eq!(room.admitted_bytes(), 10);
        drop(all);
    }

    #[test]
    fn who_waits_too_long_is_refused_and_does_not_hold_the_line() {
        let simulation = Simulation::new(2);
        let clock = simulation.group();
        let room = Admission::new(10);
        let (held, waiting, runtime) = (room.try_admit(10), room.clone(), clock.clone());
        simulation.block_on(&clock, async move {
            assert_eq!(waiting.admit(1, &runtime).await.err(), Some(Error::Busy));
        });
        drop(held);
        assert!(room.try_admit(10).is_some());
    }
}

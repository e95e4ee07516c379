//! The seam between a core and the drives of a set: requests go out, one reply comes back for each
//! of them, in any order. The production backend hands them to the owner cores, one message per
//! owner core for all of its drives; the simulation delays, reorders and loses them.

use std::future::poll_fn;
use std::task::Poll;

use basalt_engine::request::{Reply, Request};
use basalt_engine::units::{DriveIndex, SetIndex};
use futures_channel::mpsc;
use futures_util::StreamExt;

pub trait Mailbox: Clone + 'static {
    /// How many drives the set has.
    fn drive_count(&self, set: SetIndex) -> usize;

    /// Sends each request to its drive. A drive that cannot answer answers
    /// [`Reply::Failed`]. Dropping the replies abandons them; the requests still run.
    fn send(&self, set: SetIndex, requests: Vec<(DriveIndex, Request)>) -> Replies;
}

/// Replies as they arrive.
pub struct Replies {
    arrivals: smallvec::SmallVec<[mpsc::UnboundedReceiver<(DriveIndex, Reply)>; 1]>,
}

impl Replies {
    /// The sending half goes to whoever answers. It is bounded by the number of requests.
    pub fn channel() -> (mpsc::UnboundedSender<(DriveIndex, Reply)>, Self) {
        let (sender, arrivals) = mpsc::unbounded();
        (sender, Self { arrivals: smallvec::smallvec![arrivals] })
    }

    /// No replies at all.
    pub fn none() -> Self {
        Self { arrivals: smallvec::SmallVec::new() }
    }

    /// These and the replies of a later question, as they come.
    #[must_use]
    pub fn and(mut self, later: Self) -> Self {
        self.arrivals.extend(later.arrivals);
        self
    }

    /// The next reply; `None` once all senders are gone.
    pub async fn next(&mut self) -> Option<(DriveIndex, Reply)> {
        poll_fn(|task| {
            let mut index = 0;
            while index < self.arrivals.len() {
                match self.arrivals[index].poll_next_unpin(task) {
                    Poll::Ready(Some(arrival)) => return Poll::Ready(Some(arrival)),
                    Poll::Ready(None) => drop(self.arrivals.swap_remove(index)),
                    Poll::Pending => index += 1,
                }
            }
            if self.arrivals.is_empty() { Poll::Ready(None) } else { Poll::Pending }
        })
        .await
    }
}

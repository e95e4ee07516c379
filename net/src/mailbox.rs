//! The seam between a core and the drives of a set: requests go out, one reply comes back for each
//! of them, in any order. The production backend hands them to the owner cores, one message per
//! owner core for all of its drives; the simulation delays, reorders and loses them.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use basalt_engine::request::{Reply, Request};
use basalt_engine::units::{DriveIndex, SetIndex};
use smallvec::SmallVec;

pub trait Mailbox: Clone + 'static {
    /// How many drives the set has.
    fn drive_count(&self, set: SetIndex) -> usize;

    /// Sends each request to its drive. A drive that cannot answer answers
    /// [`Reply::Failed`]. Dropping the replies abandons them; the requests still run.
    fn send(&self, set: SetIndex, requests: Vec<(DriveIndex, Request)>) -> Replies;
}

/// Replies as they arrive.
pub struct Replies {
    /// One for each question.
    arrivals: SmallVec<[Rc<Arrivals>; 1]>,
}

/// Where the replies to one question come in, all on the core that asked.
struct Arrivals(RefCell<Arrived>);

struct Arrived {
    replies: VecDeque<(DriveIndex, Reply)>,
    /// Those who may still bring some.
    answerers: usize,
    waiting: Option<Waker>,
    /// Nobody will look at them.
    abandoned: bool,
}

/// Whoever answers has one. When all are gone, no more replies will come.
pub struct Answers(Rc<Arrivals>);

impl Answers {
    /// Brings a reply, unless whoever asked has gone.
    pub fn send(&self, drive: DriveIndex, reply: Reply) {
        let mut arrived = self.0.0.borrow_mut();
        if arrived.abandoned {
            return;
        }
        arrived.replies.push_back((drive, reply));
        let waiting = arrived.waiting.take();
        drop(arrived);
        waiting.into_iter().for_each(Waker::wake);
    }
}

impl Clone for Answers {
    fn clone(&self) -> Self {
        self.0.0.borrow_mut().answerers += 1;
        Self(Rc::clone(&self.0))
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        let mut arrived = self.0.0.borrow_mut();
        arrived.answerers -= 1;
        let waiting = if arrived.answerers == 0 { arrived.waiting.take() } else { None };
        drop(arrived);
        waiting.into_iter().for_each(Waker::wake);
    }
}

impl Replies {
    /// For so many replies. The other half goes to whoever answers.
    pub fn expect(count: usize) -> (Answers, Self) {
        let replies = VecDeque::with_capacity(count);
        let arrived = Arrived { replies, answerers: 1, waiting: None, abandoned: false };
        let arrivals = Rc::new(Arrivals(RefCell::new(arrived)));
        (Answers(Rc::clone(&arrivals)), Self { arrivals: smallvec::smallvec![arrivals] })
    }

    /// No replies at all.
    pub fn none() -> Self {
        Self { arrivals: SmallVec::new() }
    }

    /// These and the replies of a later question, as they come.
    #[must_use]
    pub fn and(mut self, mut later: Self) -> Self {
        self.arrivals.append(&mut later.arrivals);
        self
    }

    /// The next reply; `None` once all who may answer are gone.
    pub async fn next(&mut self) -> Option<(DriveIndex, Reply)> {
        poll_fn(|task| self.poll_next(task)).await
    }

    fn poll_next(&mut self, task: &mut Context<'_>) -> Poll<Option<(DriveIndex, Reply)>> {
        let mut at = 0;
        while at < self.arrivals.len() {
            let mut arrived = self.arrivals[at].0.borrow_mut();
            if let Some(reply) = arrived.replies.pop_front() {
                return Poll::Ready(Some(reply));
            }
            if arrived.answerers > 0 {
                let known = arrived.waiting.as_ref().is_some_and(|old| old.will_wake(task.waker()));
                if !known {
                    arrived.waiting = Some(task.waker().clone());
                }
                at += 1;
                continue;
            }
            drop(arrived);
            self.arrivals.swap_remove(at);
        }
        if self.arrivals.is_empty() { Poll::Ready(None) } else { Poll::Pending }
    }
}

impl Drop for Replies {
    fn drop(&mut self) {
        for arrivals in &self.arrivals {
            let mut arrived = arrivals.0.borrow_mut();
            arrived.abandoned = true;
            let replies = std::mem::take(&mut arrived.replies);
            drop(arrived);
            drop(replies);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn next(replies: &mut Replies) -> Option<Option<u8>> {
        let next = replies.next().now_or_never()?;
        Some(next.map(|(drive, _)| drive.0))
    }

    #[test]
    fn replies_come_until_all_who_answer_are_gone() {
        let (answers, mut replies) = Replies::expect(2);
        assert_eq!(next(&mut replies), None);
        let other = answers.clone();
        answers.send(DriveIndex(3), Reply::Done);
        drop(answers);
        assert_eq!(next(&mut replies), Some(Some(3)));
        assert_eq!(next(&mut replies), None);
        other.send(DriveIndex(5), Reply::Done);
        drop(other);
        assert_eq!(next(&mut replies), Some(Some(5)));
        assert_eq!(next(&mut replies), Some(None));
    }

    #[test]
    fn replies_of_two_questions_come_together() {
        let (first, replies) = Replies::expect(1);
        let (second, later) = Replies::expect(1);
        let mut both = replies.and(later);
        second.send(DriveIndex(2), Reply::Done);
        assert_eq!(next(&mut both), Some(Some(2)));
        drop(second);
        assert_eq!(next(&mut both), None);
        first.send(DriveIndex(1), Reply::Done);
        drop(first);
        assert_eq!(next(&mut both), Some(Some(1)));
        assert_eq!(next(&mut both), Some(None));
    }

    #[test]
    fn who_waits_is_woken_by_a_reply_and_by_the_end() {
        let (answers, mut replies) = Replies::expect(1);
        let (waker, woken) = counting_waker();
        let mut task = Context::from_waker(&waker);
        assert!(replies.poll_next(&mut task).is_pending());
        answers.send(DriveIndex(0), Reply::Done);
        assert_eq!(woken.take(), 1);
        assert!(replies.poll_next(&mut task).is_ready());
        assert!(replies.poll_next(&mut task).is_pending());
        drop(answers);
        assert_eq!(woken.take(), 1);
    }

    #[test]
    fn what_was_abandoned_keeps_no_reply() {
        let (answers, replies) = Replies::expect(2);
        answers.send(DriveIndex(0), Reply::Done);
        let arrivals = Rc::clone(&replies.arrivals[0]);
        drop(replies);
        answers.send(DriveIndex(1), Reply::Done);
        assert!(arrivals.0.borrow().replies.is_empty());
    }

    #[derive(Default)]
    struct Woken(std::sync::atomic::AtomicUsize);

    impl Woken {
        fn take(&self) -> usize {
            self.0.swap(0, std::sync::atomic::Ordering::SeqCst)
        }
    }

    impl std::task::Wake for Woken {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        }
    }

    fn counting_waker() -> (Waker, std::sync::Arc<Woken>) {
        let woken = std::sync::Arc::new(Woken::default());
        (Waker::from(std::sync::Arc::clone(&woken)), woken)
    }
}

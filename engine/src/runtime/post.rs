//! Messages between cores, without locks: one bounded queue for each receiving core, and its bell.
//!
//! [`outbox`] makes the sending end and one [`Inlet`] per core; each core attaches its inlet and
//! names the function that consumes what arrives. What is posted before that waits in the queue. A
//! full queue gives the message back; nothing is dropped silently. Messages of one sender to one
//! core are consumed in the order they were posted.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::task::Poll;

use crossbeam_queue::ArrayQueue;

use super::GlommioRuntime;
use super::cores::CoreId;
use super::doorbell::{Inbox, Signal};

/// Cores that can wait for room in one queue at a time without asking again by themselves.
const STARVED_MAX: usize = 1024;

/// The sending end: any thread, any number of clones.
pub struct Outbox<T> {
    queues: Arc<[Queue<T>]>,
}

impl<T> Clone for Outbox<T> {
    fn clone(&self) -> Self {
        Self { queues: Arc::clone(&self.queues) }
    }
}

/// The receiving end of one core, to be attached on that core.
pub struct Inlet<T> {
    queues: Arc<[Queue<T>]>,
    core: CoreId,
}

struct Queue<T> {
    messages: ArrayQueue<T>,
    /// Set when the receiving core is attached.
    receiver: OnceLock<Arc<Signal>>,
    /// Cores that wait for room.
    starved: ArrayQueue<Arc<Signal>>,
}

/// Queues for `cores` cores that hold `capacity` messages each.
pub fn outbox<T: Send + 'static>(cores: u16, capacity: usize) -> (Outbox<T>, Vec<Inlet<T>>) {
    let queues: Arc<[Queue<T>]> = (0..cores)
        .map(|_| Queue {
            messages: ArrayQueue::new(capacity),
            receiver: OnceLock::new(),
            starved: ArrayQueue::new(STARVED_MAX),
        })
        .collect();
    let inlets = (0..cores).map(|core| Inlet { queues: Arc::clone(&queues), core: CoreId(core) });
    (Outbox { queues: Arc::clone(&queues) }, inlets.collect())
}

impl<T: Send + 'static> Outbox<T> {
    /// Leaves `message` for `core`, which will look soon; gives it back if the queue is full.
    pub fn post(&self, core: CoreId, message: T) -> Result<(), T> {
        let queue = &self.queues[usize::from(core.0)];
        queue.messages.push(message)?;
        if let Some(receiver) = queue.receiver.get() {
            receiver.ring();
        }
        Ok(())
    }

    /// As [`Self::post`], waiting for room. `runtime` is the core that posts.
    pub async fn post_or_wait(&self, runtime: &GlommioRuntime, core: CoreId, message: T) {
        let queue = &self.queues[usize::from(core.0)];
        let mut message = Some(message);
        poll_fn(|context| {
            let taken = message.take().expect("polled after its end");
            let Err(back) = self.post(core, taken) else { return Poll::Ready(()) };
            // First say that we wait, then try again: room made in between is not missed.
            runtime.core.wake_at_bell(context.waker());
            if queue.starved.push(Arc::clone(&runtime.core.signal)).is_err() {
                runtime.core.signal.ring(); // Too many wait: look again at our next turn.
            }
            match self.post(core, back) {
                Ok(()) => Poll::Ready(()),
                Err(back) => {
                    message = Some(back);
                    Poll::Pending
                }
            }
        })
        .await;
    }
}

impl<T: Send + 'static> Inlet<T> {
    pub fn core(&self) -> CoreId {
        self.core
    }

    /// From now on `consume` is called on this core for every message. It must not wait; it may
    /// post and spawn. A panic in it is logged and costs that message.
    pub fn attach(self, runtime: &GlommioRuntime, consume: impl FnMut(T) + 'static) {
        assert_eq!(self.core, runtime.core(), "an inlet is attached on its own core");
        let queue = &self.queues[usize::from(self.core.0)];
        let first = queue.receiver.set(Arc::clone(&runtime.core.signal)).is_ok();
        assert!(first, "an inlet is attached once");
        runtime.core.add_inbox(Rc::new(Attached { inlet: self, consume: RefCell::new(consume) }));
    }
}

struct Attached<T, F> {
    inlet: Inlet<T>,
    consume: RefCell<F>,
}

impl<T: Send, F: FnMut(T)> Inbox for Attached<T, F> {
    fn drain(&self) -> bool {
        let queue = &self.inlet.queues[usize::from(self.inlet.core.0)];
        let mut consume = self.consume.borrow_mut();
        // At most one queue full at a time, so that senders cannot keep the core to themselves.
        for _ in 0..queue.messages.capacity() {
            let Some(message) = queue.messages.pop() else { break };
            consume(message);
        }
        while let Some(sender) = queue.starved.pop() {
            sender.ring();
        }
        !queue.messages.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use super::super::{Options, start};
    use super::*;
    use crate::seam::{Clock, Spawn};

    /// The main future of a core can take its inlet out of here.
    fn one_for_each_core<T>(inlets: Vec<Inlet<T>>) -> Arc<[ArrayQueue<Inlet<T>>]> {
        let place = |inlet| {
            let queue = ArrayQueue::new(1);
            assert!(queue.push(inlet).is_ok());
            queue
        };
        inlets.into_iter().map(place).collect()
    }

    #[test]
    fn requests_cross_over_and_replies_come_back_in_order() {
        const COUNT: u64 = 20_000;
        let (outbox, inlets) = outbox::<u64>(2, 64);
        let inlets = one_for_each_core(inlets);
        let running = start(&Options::new(2, 1 << 20), move |runtime| {
            let (outbox, inlets) = (outbox.clone(), Arc::clone(&inlets));
            async move {
                let mine = inlets[usize::from(runtime.core().0)].pop();
                let received = Rc::new(Cell::new(0));
                let counter = Rc::clone(&received);
                let other = CoreId(1 - runtime.core().0);
                mine.expect("an inlet").attach(&runtime, move |number: u64| {
                    assert_eq!(number, counter.get(), "in order");
                    counter.set(number + 1);
                });
                for number in 0..COUNT {
                    outbox.post_or_wait(&runtime, other, number).await;
                }
                while received.get() < COUNT {
                    runtime.sleep(Duration::from_millis(1)).await;
                }
            }
        });
        running.expect("cores start").join().expect("all arrived in order");
    }

    #[test]
    fn a_full_queue_gives_the_message_back() {
        let (outbox, _inlets) = outbox::<String>(1, 2);
        assert!(outbox.post(CoreId(0), "a".into()).is_ok());
        assert!(outbox.post(CoreId(0), "b".into()).is_ok());
        assert_eq!(outbox.post(CoreId(0), "c".into()), Err("c".to_owned()));
    }

    #[test]
    fn threads_that_are_no_cores_post_and_panics_cost_one_message() {
        let (outbox, inlets) = outbox::<u64>(1, 16);
        let inlets = one_for_each_core(inlets);
        let sum = Arc::new(AtomicU64::new(0));
        let seen = Arc::clone(&sum);
        let running = start(&Options::new(1, 1 << 20), move |runtime| {
            let (inlets, seen) = (Arc::clone(&inlets), Arc::clone(&seen));
            async move {
                let (done, finished) = futures_channel::oneshot::channel();
                let mut done = Some(done);
                inlets[0].pop().expect("the inlet").attach(&runtime, move |number| {
                    assert_ne!(number, 13, "on purpose");
                    seen.fetch_add(number, Ordering::Relaxed);
                    if number == 100 {
                        let _ = done.take().expect("once").send(());
                    }
                });
                runtime.spawn(async {});
                finished.await.expect("the last message came");
            }
        });
        for mut number in 1..=100 {
            while let Err(back) = outbox.post(CoreId(0), number) {
                number = back;
                std::thread::yield_now();
            }
        }
        running.expect("a core starts").join().expect("the core ended well");
        assert_eq!(sum.load(Ordering::Relaxed), 5050 - 13);
    }
}

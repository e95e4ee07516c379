//! Adds up what the cores counted. Counters are each core's own; whoever needs them all asks every
//! core by a message and is answered by one, so nothing is shared while nobody asks.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use basalt_engine::runtime::post::{Inlet, Outbox, outbox};
use basalt_engine::runtime::{CoreId, GlommioRuntime};
use basalt_engine::seam::{Clock, Spawn};
use futures_channel::mpsc;
use futures_util::StreamExt;
use futures_util::future::{Either, select};

use crate::s3::Counts;

/// Words that may wait for one core; more senders wait for room.
const QUEUE_WORDS: usize = 64;
/// How long all cores may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What cores say to each other.
pub(super) enum Word {
    /// Tell `from` your counts.
    Ask {
        from: CoreId,
        ticket: u64,
    },
    Answer {
        ticket: u64,
        counts: Box<Counts>,
    },
}

pub(super) fn queues(cores: u16) -> (Outbox<Word>, Vec<Inlet<Word>>) {
    outbox(cores, QUEUE_WORDS)
}

/// One core's part in it.
#[derive(Clone)]
pub(super) struct Gathering {
    shared: Rc<Shared>,
}

struct Shared {
    runtime: GlommioRuntime,
    words: Outbox<Word>,
    cores: u16,
    open: RefCell<Open>,
}

/// Questions of this core that are not answered by all yet.
#[derive(Default)]
struct Open {
    last_ticket: u64,
    waiting: BTreeMap<u64, mpsc::UnboundedSender<Box<Counts>>>,
}

impl Gathering {
    pub(super) fn new(runtime: &GlommioRuntime, words: Outbox<Word>, cores: u16) -> Self {
        let (runtime, open) = (runtime.clone(), RefCell::default());
        Self { shared: Rc::new(Shared { runtime, words, cores, open }) }
    }

    /// From now on this core answers, with what `counts` gives.
    pub(super) fn attach(&self, inlet: Inlet<Word>, counts: impl Fn() -> Counts + 'static) {
        let shared = Rc::clone(&self.shared);
        inlet.attach(&self.shared.runtime, move |word| match word {
            Word::Ask { from, ticket } => {
                let answer = Word::Answer { ticket, counts: Box::new(counts()) };
                shared.send(from, answer);
            }
            Word::Answer { ticket, counts } => {
                // Whoever asked may have gone.
                if let Some(waiting) = shared.open.borrow().waiting.get(&ticket) {
                    let _ = waiting.unbounded_send(counts);
                }
            }
        });
    }

    /// The sum over all cores; `None` where one of them does not answer, as when the node stops.
    pub(super) async fn sum(&self) -> Option<Counts> {
        let (sender, answers) = mpsc::unbounded();
        let ticket = self.shared.open.borrow_mut().issue(sender);
        let sum = pin!(self.sum_of(ticket, answers));
        let patience = pin!(self.shared.runtime.sleep(PATIENCE));
        let sum = match select(sum, patience).await {
            Either::Left((sum, _)) => Some(sum),
            Either::Right(_) => None,
        };
        self.shared.open.borrow_mut().waiting.remove(&ticket);
        sum
    }

    async fn sum_of(
        &self,
        ticket: u64,
        mut answers: mpsc::UnboundedReceiver<Box<Counts>>,
    ) -> Counts {
        for core in 0..self.shared.cores {
            self.shared.send(CoreId(core), Word::Ask { from: self.shared.runtime.core(), ticket });
        }
        let mut sum = Counts::default();
        for _ in 0..self.shared.cores {
            let counts = answers.next().await.expect("the ticket keeps a sender");
            sum.add(&counts);
        }
        sum
    }
}

impl Shared {
    fn send(&self, core: CoreId, word: Word) {
        let (runtime, words) = (self.runtime.clone(), self.words.clone());
        self.runtime.spawn(async move { words.post_or_wait(&runtime, core, word).await });
    }
}

impl Open {
    fn issue(&mut self, sender: mpsc::UnboundedSender<Box<Counts>>) -> u64 {
        // Those whose clients left while they were asked.
        self.waiting.retain(|_, waiting| !waiting.is_closed());
        self.last_ticket += 1;
        self.waiting.insert(self.last_ticket, sender);
        self.last_ticket
    }
}

#[cfg(test)]
mod tests {
    use basalt_engine::runtime::{Options, start};
    use std::sync::atomic::{AtomicU16, Ordering};
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn every_core_asks_and_answers() {
        const CORES: u16 = 2;
        let asking = Arc::new(AtomicU16::new(CORES));
        let (words, inlets) = queues(CORES);
        let inlets = Arc::new(Mutex::new(inlets.into_iter().map(Some).collect::<Vec<_>>()));
        let running = start(&Options::new(CORES, 1 << 20), move |runtime| {
            let (words, inlets) = (words.clone(), Arc::clone(&inlets));
            let asking = Arc::clone(&asking);
            async move {
                let core = runtime.core();
                let inlet = inlets.lock().expect("nobody panicked")[usize::from(core.0)].take();
                let gathering = Gathering::new(&runtime, words, CORES);
                gathering.attach(inlet.expect("each core starts once"), move || Counts {
                    received_bytes: 1 + u64::from(core.0),
                    ..Counts::default()
                });
                for _ in 0..100 {
                    assert_eq!(gathering.sum().await.expect("all answer").received_bytes, 3);
                }
                assert!(gathering.shared.open.borrow().waiting.is_empty());
                // A core that leaves does not answer any more.
                asking.fetch_sub(1, Ordering::AcqRel);
                let deadline = runtime.now().plus(2 * PATIENCE);
                while asking.load(Ordering::Acquire) > 0 {
                    assert!(runtime.now() < deadline, "the other core is done as well");
                    runtime.sleep(Duration::from_millis(1)).await;
                }
            }
        });
        running.expect("cores start").join().expect("all were answered");
    }
}

//! The production mailbox: hand-off between the cores of a node, and to other nodes. One message per
//! owner carries the requests for all of its drives. What drives answer at once goes back in one message
//! as well; the others' answers follow drive by drive, so that a slow drive delays nobody else's. Requests
//! to drives that this core owns never leave it.
//!
//! Every queue is bounded: a request that finds its owner's queue full is answered as unavailable, an
//! answer waits for room.

use std::cell::RefCell;
use std::rc::Rc;

use basalt_engine::Error;
use basalt_engine::request::{Reply, Request};
use basalt_engine::runtime::{CoreId, GlommioRuntime, Outbox};
use basalt_engine::seam::Spawn;
use basalt_engine::units::{DriveIndex, SetIndex};
use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};

use crate::mailbox::{Answers, Mailbox, Replies};
use crate::node::NodeIndex;

/// What one core sends another.
pub enum Envelope {
    Ask { from: CoreId, ticket: u32, set: SetIndex, requests: Vec<(DriveIndex, Request)> },
    Answer { ticket: u32, drive: DriveIndex, reply: Reply },
    Answers { ticket: u32, replies: Vec<(DriveIndex, Reply)> },
}

/// What a drive makes of a request.
pub enum Served {
    Now(Reply),
    Later(LocalBoxFuture<'static, Reply>),
}

/// Serves the requests to a drive that this core owns. It may do so within the call.
pub type Serve = Rc<dyn Fn(SetIndex, DriveIndex, Request) -> Served>;

/// Sends requests for the drives that another node has of a set.
pub type Forward = Rc<dyn Fn(NodeIndex, SetIndex, Vec<(DriveIndex, Request)>, Answers)>;

/// Who answers for a drive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    /// A core of this node.
    Core(CoreId),
    Node(NodeIndex),
}

/// The owner of each drive: by set, then by position. Fixed when the node starts.
pub type Owners = Vec<Vec<Owner>>;

#[derive(Clone)]
pub struct CoreMailbox {
    shared: Rc<Shared>,
}

struct Shared {
    runtime: GlommioRuntime,
    core: CoreId,
    owners: Owners,
    outbox: Outbox<Envelope>,
    serve: Serve,
    forward: Forward,
    tickets: RefCell<Tickets>,
}

impl CoreMailbox {
    pub fn new(
        runtime: GlommioRuntime,
        owners: Owners,
        outbox: Outbox<Envelope>,
        serve: Serve,
        forward: Forward,
    ) -> Self {
        let tickets = RefCell::new(Tickets::default());
        let core = runtime.core();
        Self { shared: Rc::new(Shared { runtime, core, owners, outbox, serve, forward, tickets }) }
    }

    /// For another node: as [`Mailbox::send`], to drives of this node alone.
    pub fn send_to_own(&self, set: SetIndex, requests: Vec<(DriveIndex, Request)>) -> Replies {
        let owners = self.shared.owners.get(usize::from(set.0)).map_or(&[][..], |owners| owners);
        let is_own =
            |drive: &DriveIndex| matches!(owners.get(usize::from(drive.0)), Some(Owner::Core(_)));
        let (own, strange): (Vec<_>, Vec<_>) =
            requests.into_iter().partition(|(drive, _)| is_own(drive));
        let (answers, refused) = Replies::expect(strange.len());
        for (drive, _) in strange {
            let error = Error::Unavailable { reason: "this node does not have the drive" };
            answers.send(drive, Reply::Failed(error));
        }
        if own.is_empty() { refused } else { self.send(set, own).and(refused) }
    }

    /// Takes what another core sent here.
    pub fn receive(&self, envelope: Envelope) {
        match envelope {
            Envelope::Ask { from, ticket, set, requests } => {
                self.answer(from, ticket, set, requests)
            }
            Envelope::Answer { ticket, drive, reply } => {
                self.shared.tickets.borrow_mut().answer(ticket, drive, reply);
            }
            Envelope::Answers { ticket, replies } => {
                let mut tickets = self.shared.tickets.borrow_mut();
                for (drive, reply) in replies {
                    tickets.answer(ticket, drive, reply);
                }
            }
        }
    }

    /// Serves requests that came from core `from`, all at the same time.
    fn answer(
        &self,
        from: CoreId,
        ticket: u32,
        set: SetIndex,
        requests: Vec<(DriveIndex, Request)>,
    ) {
        let mailbox = self.clone();
        // In a task of its own: should a drive panic, that ends, and not the core.
        self.shared.runtime.spawn(async move {
            let Shared { runtime, outbox, .. } = &*mailbox.shared;
            let mut at_once = Vec::with_capacity(requests.len());
            let mut later =
                mailbox.serve_all(set, requests, &mut |drive, reply| at_once.push((drive, reply)));
            if !at_once.is_empty() {
                let answers = Envelope::Answers { ticket, replies: at_once };
                outbox.post_or_wait(runtime, from, answers).await;
            }
            while let Some((drive, reply)) = later.next().await {
                let answer = Envelope::Answer { ticket, drive, reply };
                outbox.post_or_wait(runtime, from, answer).await;
            }
        });
    }

    /// Hands requests to their drives. What is answered at once goes to `now`.
    fn serve_all(
        &self,
        set: SetIndex,
        requests: Vec<(DriveIndex, Request)>,
        now: &mut dyn FnMut(DriveIndex, Reply),
    ) -> FuturesUnordered<impl Future<Output = (DriveIndex, Reply)> + use<>> {
        let later = FuturesUnordered::new();
        for (drive, request) in requests {
            match (self.shared.serve)(set, drive, request) {
                Served::Now(reply) => now(drive, reply),
                Served::Later(reply) => later.push(reply.map(move |reply| (drive, reply))),
            }
        }
        later
    }

    fn send_here(&self, set: SetIndex, requests: Vec<(DriveIndex, Request)>, answers: Answers) {
        let mut later =
            self.serve_all(set, requests, &mut |drive, reply| answers.send(drive, reply));
        if later.is_empty() {
            return;
        }
        self.shared.runtime.spawn(async move {
            // Should nobody listen any more, the requests still run to their end.
            while let Some((drive, reply)) = later.next().await {
                answers.send(drive, reply);
            }
        });
    }

    fn send_there(
        &self,
        owner: CoreId,
        set: SetIndex,
        requests: Vec<(DriveIndex, Request)>,
        answers: Answers,
    ) {
        let expected = requests.len();
        let ticket = self.shared.tickets.borrow_mut().issue(answers, expected);
        let ask = Envelope::Ask { from: self.shared.core, ticket, set, requests };
        let Err(Envelope::Ask { requests, .. }) = self.shared.outbox.post(owner, ask) else {
            return;
        };
        let mut tickets = self.shared.tickets.borrow_mut();
        for (drive, _) in requests {
            let error = Error::Unavailable { reason: "its core has too much to do" };
            tickets.answer(ticket, drive, Reply::Failed(error));
        }
    }
}

impl Mailbox for CoreMailbox {
    fn drive_count(&self, set: SetIndex) -> usize {
        self.shared.owners[usize::from(set.0)].len()
    }

    fn send(&self, set: SetIndex, mut requests: Vec<(DriveIndex, Request)>) -> Replies {
        let (answers, replies) = Replies::expect(requests.len());
        let owners = &self.shared.owners[usize::from(set.0)];
        while let Some((first, _)) = requests.first() {
            let owner = owners[usize::from(first.0)];
            let is_its = |(drive, _): &(DriveIndex, Request)| owners[usize::from(drive.0)] == owner;
            // Those of a node have one owner in each set.
            let now = match requests.iter().all(is_its) {
                true => std::mem::take(&mut requests),
                false => requests.extract_if(.., |one| is_its(one)).collect(),
            };
            match owner {
                Owner::Core(core) if core == self.shared.core => {
                    self.send_here(set, now, answers.clone());
                }
                Owner::Core(core) => self.send_there(core, set, now, answers.clone()),
                Owner::Node(node) => (self.shared.forward)(node, set, now, answers.clone()),
            }
        }
        replies
    }
}

/// Who waits for the answers of which question.
#[derive(Default)]
struct Tickets {
    waiting: Vec<Option<Waiting>>,
    free: Vec<u32>,
}

struct Waiting {
    answers: Answers,
    outstanding: usize,
}

impl Tickets {
    fn issue(&mut self, answers: Answers, outstanding: usize) -> u32 {
        assert!(outstanding > 0, "a question asks something");
        let waiting = Some(Waiting { answers, outstanding });
        match self.free.pop() {
            Some(ticket) => {
                self.waiting[ticket as usize] = waiting;
                ticket
            }
            None => {
                self.waiting.push(waiting);
                u32::try_from(self.waiting.len() - 1).expect("fewer than 2^32 questions")
            }
        }
    }

    fn answer(&mut self, ticket: u32, drive: DriveIndex, reply: Reply) {
        let place = &mut self.waiting[ticket as usize];
        let waiting = place.as_mut().expect("answers come for open tickets only");
        // Whoever asked may have gone; the ticket stays open until the last answer.
        waiting.answers.send(drive, reply);
        waiting.outstanding -= 1;
        if waiting.outstanding == 0 {
            *place = None;
            self.free.push(ticket);
        }
    }
}

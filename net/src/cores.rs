//! The production mailbox: hand-off between the cores of a node, and to other nodes. One message per
//! owner carries the requests for all of its drives; answers come back drive by drive, so that a slow
//! drive delays nobody else's. Requests to drives that this core owns never leave it.
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
use futures_channel::mpsc::UnboundedSender;
use futures_util::StreamExt;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;

use crate::mailbox::{Mailbox, Replies};
use crate::node::NodeIndex;

/// What one core sends another.
pub enum Envelope {
    Ask { from: CoreId, ticket: u32, set: SetIndex, requests: Vec<(DriveIndex, Request)> },
    Answer { ticket: u32, drive: DriveIndex, reply: Reply },
}

/// Serves the requests to a drive that this core owns.
pub type Serve = Rc<dyn Fn(SetIndex, DriveIndex, Request) -> LocalBoxFuture<'static, Reply>>;

/// Sends requests for the drives that another node has of a set.
pub type Forward = Rc<
    dyn Fn(NodeIndex, SetIndex, Vec<(DriveIndex, Request)>, UnboundedSender<(DriveIndex, Reply)>),
>;

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
        let (answers, refused) = Replies::channel();
        for (drive, _) in strange {
            let error = Error::Unavailable { reason: "this node does not have the drive" };
            let _ = answers.unbounded_send((drive, Reply::Failed(error)));
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
        let (runtime, outbox) = (self.shared.runtime.clone(), self.shared.outbox.clone());
        let mut replies = self.serve_all(set, requests);
        self.shared.runtime.spawn(async move {
            while let Some((drive, reply)) = replies.next().await {
                let answer = Envelope::Answer { ticket, drive, reply };
                outbox.post_or_wait(&runtime, from, answer).await;
            }
        });
    }

    fn serve_all(
        &self,
        set: SetIndex,
        requests: Vec<(DriveIndex, Request)>,
    ) -> FuturesUnordered<impl Future<Output = (DriveIndex, Reply)> + use<>> {
        requests
            .into_iter()
            .map(|(drive, request)| {
                let reply = (self.shared.serve)(set, drive, request);
                async move { (drive, reply.await) }
            })
            .collect()
    }

    fn send_here(
        &self,
        set: SetIndex,
        requests: Vec<(DriveIndex, Request)>,
        answers: UnboundedSender<(DriveIndex, Reply)>,
    ) {
        let mut replies = self.serve_all(set, requests);
        self.shared.runtime.spawn(async move {
            while let Some(reply) = replies.next().await {
                // Nobody listens any more: the requests still run to their end.
                let _ = answers.unbounded_send(reply);
            }
        });
    }

    fn send_there(
        &self,
        owner: CoreId,
        set: SetIndex,
        requests: Vec<(DriveIndex, Request)>,
        answers: UnboundedSender<(DriveIndex, Reply)>,
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
        let (answers, replies) = Replies::channel();
        let owners = &self.shared.owners[usize::from(set.0)];
        while let Some((first, _)) = requests.first() {
            let owner = owners[usize::from(first.0)];
            let (now, later) =
                requests.into_iter().partition(|(drive, _)| owners[usize::from(drive.0)] == owner);
            requests = later;
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
    answers: UnboundedSender<(DriveIndex, Reply)>,
    outstanding: usize,
}

impl Tickets {
    fn issue(&mut self, answers: UnboundedSender<(DriveIndex, Reply)>, outstanding: usize) -> u32 {
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
        let _ = waiting.answers.unbounded_send((drive, reply));
        waiting.outstanding -= 1;
        if waiting.outstanding == 0 {
            *place = None;
            self.free.push(ticket);
        }
    }
}

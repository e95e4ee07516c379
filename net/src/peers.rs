//! The connecting end: one core's lanes to every other node, kept up for as long as the core runs.
//!
//! What is asked of a node without a connection is answered "unavailable" at once: it was not done. What
//! was sent when a connection ended gets no answer: it may have been done. A node that was silent for
//! [`SUSPECT_AFTER`], although it should have said that it lives, is treated as if its connection had
//! ended until it speaks again; so nobody waits longer than that for a node that hangs.
//!
//! A node grants bytes; what was sent and not answered counts against them, and what finds no room waits,
//! up to a limit.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use basalt_engine::Error;
use basalt_engine::record::SMALL_SHARD_BYTES_MAX;
use basalt_engine::request::{Reply, Request};
use basalt_engine::seam::{Moment, Runtime};
use basalt_engine::units::{BLOCK_BYTES, DriveIndex, SetIndex};
use futures_channel::oneshot;
use futures_util::future::{Either, select};

use crate::link::{Frame, Link, Stream, read_exact, write_all};
use crate::mailbox::Answers;
use crate::node::NodeIndex;
use crate::service::{HANDSHAKE, draw_nonce};
use crate::wire::Malformed;
use crate::wire::frame::Kind;
use crate::wire::handshake::{
    Agreed, Connecting, HELLO_BYTES, Identity, Lane, Refusal, WELCOME_BYTES,
};
use crate::wire::message::{Call, CallAnswer, pack_ask, pack_call};

/// A node that was silent for so long is not waited for. It says twice as often that it lives.
const SUSPECT_AFTER: Duration = Duration::from_millis(1000);
/// Between two looks at who is silent.
const SUSPICION_LOOK: Duration = Duration::from_millis(100);
/// Asks that wait for credit on one lane.
const WAITING_MAX: usize = 1024;
/// Between two attempts to connect: doubled from one to the other.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Nodes that restart are away for a moment; longer is told.
const TELL_AFTER: Duration = Duration::from_secs(1);

/// Makes connections to nodes.
pub trait Dial: 'static {
    type Stream: Stream;
    fn dial(&self, to: NodeIndex) -> impl Future<Output = io::Result<Self::Stream>>;
    /// How the operator knows the node.
    fn name(&self, of: NodeIndex) -> String;
}

/// One core's way to all other nodes. All clones are one.
pub struct Peers<R: Runtime, D: Dial> {
    shared: Rc<Shared<R, D>>,
}

impl<R: Runtime, D: Dial> Clone for Peers<R, D> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

struct Shared<R: Runtime, D> {
    runtime: R,
    dial: D,
    identity: Identity,
    /// By node; that of this node is never used.
    ways: Vec<Way<R>>,
    /// Whether changes are told in the log: one core of a node is enough.
    tells: bool,
}

/// The lanes to one node.
struct Way<R: Runtime> {
    steps: RefCell<State<R>>,
    payload: RefCell<State<R>>,
    /// Why there is no connection, as it was found out last.
    trouble: RefCell<Option<String>>,
    /// When the lane of steps was lost, or first looked for.
    lost: Cell<Moment>,
    /// Whether the operator was told of it.
    told: Cell<bool>,
}

enum State<R: Runtime> {
    Down,
    Up(Up<R>),
}

/// A lane while it is connected.
struct Up<R: Runtime> {
    link: Link<R>,
    credit_bytes: u64,
    /// Of what was sent and not answered.
    owed_bytes: u64,
    tickets: BTreeMap<u32, Ticket>,
    next_ticket: u32,
    waiting: VecDeque<Waiting>,
    calls: BTreeMap<u32, oneshot::Sender<CallAnswer>>,
}

/// An ask that was sent.
struct Ticket {
    /// `None` once nobody waits for them any more.
    answers: Option<Answers>,
    /// The drives that have not answered yet, each with what its request costs.
    open: Vec<(DriveIndex, u64)>,
}

/// An ask that finds no credit.
struct Waiting {
    set: SetIndex,
    requests: Vec<(DriveIndex, Request)>,
    answers: Answers,
}

impl<R: Runtime, D: Dial> Peers<R, D> {
    /// For a deployment of `nodes` nodes. Nothing is connected before [`Self::connect_all`].
    pub fn new(runtime: R, dial: D, identity: Identity, nodes: usize, tells: bool) -> Self {
        let way = |_: usize| Way {
            steps: RefCell::new(State::Down),
            payload: RefCell::new(State::Down),
            trouble: RefCell::new(None),
            lost: Cell::new(runtime.now()),
            told: Cell::new(false),
        };
        let ways = (0..nodes).map(way).collect();
        Self { shared: Rc::new(Shared { runtime, dial, identity, ways, tells }) }
    }

    /// Keeps lanes to every other node, for as long as the core runs.
    pub fn connect_all(&self, lanes: &[Lane]) {
        for node in self.others() {
            for &lane in lanes {
                self.shared.runtime.spawn(self.clone().keep_connected(node, lane));
            }
        }
    }

    /// Every node but this one.
    pub fn others(&self) -> impl Iterator<Item = NodeIndex> + use<R, D> {
        let this = self.shared.identity.this;
        let nodes = u16::try_from(self.shared.ways.len()).expect("fewer than 2^16 nodes");
        (0..nodes).map(NodeIndex).filter(move |node| *node != this)
    }

    pub fn name(&self, node: NodeIndex) -> String {
        self.shared.dial.name(node)
    }

    /// Whether requests to the node can be sent now.
    pub fn is_connected(&self, node: NodeIndex) -> bool {
        let way = &self.shared.ways[usize::from(node.0)];
        matches!(*way.steps.borrow(), State::Up(_))
    }

    /// Why the node is not connected, as far as it is known.
    pub fn trouble(&self, node: NodeIndex) -> Option<String> {
        self.shared.ways[usize::from(node.0)].trouble.borrow().clone()
    }

    /// Sends requests to the drives that a node has of a set. Each is answered at most once.
    pub fn ask(
        &self,
        node: NodeIndex,
        set: SetIndex,
        requests: Vec<(DriveIndex, Request)>,
        answers: Answers,
    ) {
        let way = &self.shared.ways[usize::from(node.0)];
        let lane = match requests.iter().any(|(_, request)| carries_payload(request)) {
            true => &way.payload,
            false => &way.steps,
        };
        let ask = Waiting { set, requests, answers };
        match &mut *lane.borrow_mut() {
            State::Up(up) if up.is_suspect() => ask.refuse("its node is silent"),
            State::Up(up) => up.ask(ask),
            State::Down => ask.refuse("its node is not connected"),
        }
    }

    /// Asks the node itself. `None` where it is not connected, or the connection ended.
    pub async fn call(&self, node: NodeIndex, call: &Call) -> Option<CallAnswer> {
        let answer = {
            let way = &self.shared.ways[usize::from(node.0)];
            match &mut *way.steps.borrow_mut() {
                State::Up(up) => up.call(call),
                State::Down => return None,
            }
        };
        answer.await.ok()
    }

    async fn keep_connected(self, node: NodeIndex, lane: Lane) {
        let mut pause = PAUSE;
        loop {
            match self.connect(node, lane).await {
                Ok((stream, agreed)) => {
                    pause = PAUSE;
                    self.run(node, lane, stream, agreed).await;
                }
                Err(trouble) => self.tell_trouble(node, lane, trouble),
            }
            self.shared.runtime.sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn connect(&self, node: NodeIndex, lane: Lane) -> Result<(D::Stream, Agreed), String> {
        let connecting = std::pin::pin!(self.dial_and_shake(node, lane));
        let limit = std::pin::pin!(self.shared.runtime.sleep(HANDSHAKE));
        match select(connecting, limit).await {
            Either::Left((connected, _)) => connected,
            Either::Right(_) => Err(format!("it does not answer within {} s", HANDSHAKE.as_secs())),
        }
    }

    async fn dial_and_shake(
        &self,
        node: NodeIndex,
        lane: Lane,
    ) -> Result<(D::Stream, Agreed), String> {
        let runtime = &self.shared.runtime;
        let stream = self.shared.dial.dial(node).await.map_err(|error| error.to_string())?;
        let identity = self.shared.identity.clone();
        let (wall_ms, nonce) = (runtime.wall().0, draw_nonce(runtime));
        let connecting = Connecting::new(identity, node, lane, wall_ms, nonce);
        let io = |error: io::Error| format!("the handshake failed: {error}");
        let refused = |refusal: Refusal| refusal.to_string();
        write_all(&stream, connecting.hello()).await.map_err(io)?;
        let mut challenge = [0; HELLO_BYTES];
        read_exact(&stream, &mut challenge).await.map_err(io)?;
        let proved = connecting.challenged(&challenge, runtime.wall().0);
        let (proving, proof) = proved.map_err(refused)?;
        write_all(&stream, &proof).await.map_err(io)?;
        let mut welcome = [0; WELCOME_BYTES];
        read_exact(&stream, &mut welcome).await.map_err(io)?;
        Ok((stream, proving.welcomed(&welcome).map_err(refused)?))
    }

    async fn run(&self, node: NodeIndex, lane: Lane, stream: D::Stream, agreed: Agreed) {
        let link = Link::new(self.shared.runtime.clone(), agreed.version);
        let state = self.state(node, lane);
        *state.borrow_mut() = State::Up(Up::new(link.clone(), agreed.credit_bytes));
        self.tell_connected(node, lane);
        let end = {
            let running =
                std::pin::pin!(link.run(&stream, |frame| match &mut *state.borrow_mut() {
                    State::Up(up) => up.take(frame),
                    State::Down => unreachable!("it is up while its link runs"),
                }));
            let suspecting = std::pin::pin!(self.suspect(state));
            match select(running, suspecting).await {
                Either::Left((end, _)) => end,
                Either::Right((never, _)) => match never {},
            }
        };
        // Whoever waits for an answer learns that none will come.
        let former = std::mem::replace(&mut *state.borrow_mut(), State::Down);
        if let State::Up(up) = former {
            up.refuse_waiting();
        }
        self.tell_trouble(node, lane, end.to_string());
    }

    /// Stops waiting for a node that hangs.
    async fn suspect(&self, state: &RefCell<State<R>>) -> std::convert::Infallible {
        loop {
            self.shared.runtime.sleep(SUSPICION_LOOK).await;
            match &mut *state.borrow_mut() {
                State::Up(up) if up.is_suspect() => up.stop_waiting(),
                _ => {}
            }
        }
    }

    fn state(&self, node: NodeIndex, lane: Lane) -> &RefCell<State<R>> {
        let way = &self.shared.ways[usize::from(node.0)];
        match lane {
            Lane::Steps => &way.steps,
            Lane::Payload => &way.payload,
        }
    }

    fn tell_connected(&self, node: NodeIndex, lane: Lane) {
        let way = &self.shared.ways[usize::from(node.0)];
        if lane != Lane::Steps {
            return;
        }
        *way.trouble.borrow_mut() = None;
        if way.told.replace(false) {
            tracing::info!(node = self.name(node), "node is connected again");
        }
    }

    /// Takes note why a node is not connected, and says it once when it has been so for a while.
    fn tell_trouble(&self, node: NodeIndex, lane: Lane, trouble: String) {
        if lane != Lane::Steps {
            return;
        }
        let way = &self.shared.ways[usize::from(node.0)];
        let now = self.shared.runtime.now();
        let known = way.trouble.replace(Some(trouble.clone()));
        if known.is_none() {
            way.lost.set(now);
        }
        let is_news = !way.told.get() || known.as_ref() != Some(&trouble);
        if self.shared.tells && is_news && now.since(way.lost.get()) >= TELL_AFTER {
            way.told.set(true);
            let name = self.name(node);
            tracing::warn!(node = name, trouble, "node is not connected; its drives count as down");
        }
    }
}

impl<R: Runtime> Up<R> {
    fn new(link: Link<R>, credit_bytes: u32) -> Self {
        Self {
            link,
            credit_bytes: u64::from(credit_bytes),
            owed_bytes: 0,
            tickets: BTreeMap::new(),
            next_ticket: 0,
            waiting: VecDeque::new(),
            calls: BTreeMap::new(),
        }
    }

    fn is_suspect(&self) -> bool {
        self.link.silent_for() >= SUSPECT_AFTER
    }

    /// What was sent may have been done; what waits for credit was not.
    fn stop_waiting(&mut self) {
        for ticket in self.tickets.values_mut() {
            ticket.answers = None;
        }
        self.calls.clear();
        for ask in self.waiting.drain(..) {
            ask.refuse("its node is silent");
        }
    }

    fn ask(&mut self, ask: Waiting) {
        let in_line = !self.waiting.is_empty();
        if !in_line && self.has_credit_for(&ask) {
            self.send(ask);
        } else if self.waiting.len() < WAITING_MAX {
            self.waiting.push_back(ask);
        } else {
            ask.refuse("its node has too much to do");
        }
    }

    /// An ask beyond all credit goes alone.
    fn has_credit_for(&self, ask: &Waiting) -> bool {
        self.owed_bytes == 0 || self.owed_bytes + ask.cost() <= self.credit_bytes
    }

    fn send(&mut self, ask: Waiting) {
        let open: Vec<_> = ask.requests.iter().map(|(drive, of)| (*drive, cost(of))).collect();
        self.owed_bytes += ask.cost();
        let ticket = self.take_number();
        self.link.send(Kind::Ask, pack_ask(ticket, ask.set, ask.requests));
        self.tickets.insert(ticket, Ticket { answers: Some(ask.answers), open });
    }

    fn take_number(&mut self) -> u32 {
        self.next_ticket = self.next_ticket.wrapping_add(1);
        self.next_ticket
    }

    fn call(&mut self, call: &Call) -> oneshot::Receiver<CallAnswer> {
        let (sender, answer) = oneshot::channel();
        let number = self.take_number();
        self.calls.insert(number, sender);
        self.link.send(Kind::Call, pack_call(number, call));
        answer
    }

    fn take(&mut self, frame: Frame) -> Result<(), Malformed> {
        match frame {
            Frame::Answers(answers) => {
                for (ticket, drive, reply) in answers {
                    self.answered(ticket, drive, reply)?;
                }
                while self.waiting.front().is_some_and(|ask| self.has_credit_for(ask)) {
                    let ask = self.waiting.pop_front().expect("there is one");
                    self.send(ask);
                }
                Ok(())
            }
            Frame::CallAnswer(number, answer) => {
                if let Some(asked) = self.calls.remove(&number) {
                    // Whoever called may have gone.
                    let _ = asked.send(answer);
                }
                Ok(())
            }
            Frame::Ask(_) | Frame::Call(..) => Err(Malformed("a request on a lane of answers")),
        }
    }

    fn answered(&mut self, number: u32, drive: DriveIndex, reply: Reply) -> Result<(), Malformed> {
        const UNASKED: Malformed = Malformed("an answer to nothing that was asked");
        let ticket = self.tickets.get_mut(&number).ok_or(UNASKED)?;
        let at = ticket.open.iter().position(|(asked, _)| *asked == drive).ok_or(UNASKED)?;
        let (_, cost) = ticket.open.swap_remove(at);
        self.owed_bytes -= cost;
        if let Some(answers) = &ticket.answers {
            answers.send(drive, reply);
        }
        if ticket.open.is_empty() {
            self.tickets.remove(&number);
        }
        Ok(())
    }

    fn refuse_waiting(self) {
        for ask in self.waiting {
            ask.refuse("its node is not connected any more");
        }
    }
}

impl Waiting {
    fn cost(&self) -> u64 {
        self.requests.iter().map(|(_, request)| cost(request)).sum()
    }

    /// Nothing of it was sent.
    fn refuse(self, reason: &'static str) {
        for (drive, _) in self.requests {
            let reply = Reply::Failed(Error::Unavailable { reason });
            self.answers.send(drive, reply);
        }
    }
}

/// Whether the request or its answer takes the lane of payload.
fn carries_payload(request: &Request) -> bool {
    matches!(
        request,
        Request::StageWrite { .. }
            | Request::StageSmall { .. }
            | Request::ReadRun { .. }
            | Request::ReadSmall { .. }
            | Request::List(_)
            | Request::Scan { .. }
    )
}

/// Bytes that a request takes over there, or its answer here: whichever is more, about.
fn cost(request: &Request) -> u64 {
    const STEP_BYTES: u64 = 1024;
    const ENTRY_BYTES: u64 = 256;
    let block_bytes = BLOCK_BYTES as u64;
    STEP_BYTES
        + match request {
            Request::StageWrite { buffer, .. } => buffer.length_blocks().bytes(),
            Request::ReadRun { blocks, .. } => blocks.saturating_mul(block_bytes),
            Request::StageSmall { shard, .. } => shard.bytes.len() as u64,
            Request::ReadSmall { .. } => SMALL_SHARD_BYTES_MAX,
            Request::Accept { copy: Some(copy), .. } | Request::Learn { copy: Some(copy), .. } => {
                copy.bytes.len() as u64
            }
            Request::List(list) => u64::from(list.limit) * ENTRY_BYTES,
            Request::Scan { limit, .. }
            | Request::Unsettled { limit, .. }
            | Request::Relocated { limit, .. }
            | Request::Orphans { limit, .. } => u64::from(*limit) * ENTRY_BYTES,
            _ => 0,
        }
}

#[cfg(test)]
mod tests;

//! The steps from one state to the next. Each is one client's: it takes the answers of some drives, in
//! some order, perhaps gives up on the others, and acts, which ends with it sending something or with
//! its end.
//!
//! Why these are all runs that matter:
//! - Taking an answer without acting on it changes nothing outside of the client, so it may as well
//!   happen just before the client acts. Hence answers are taken in one go, in every order.
//! - Handling a request changes one drive, and matters to nobody before somebody acts on an answer of
//!   that drive. So it may as well happen just before, together with whatever else the drive handled
//!   earlier (`delivery`). What is never acted on is never handled; loss needs no step of its own, nor
//!   does the end of a proposer.
//! - One who acts on acceptances without being sent answers is the model itself: a value is decided
//!   whether or not anybody has heard of it. [`Steps::decide_silently`] has these happen.
//! - A pause before the next ballot is no step: its requests may stay under way for as long.

use std::fmt::Write;
use std::rc::Rc;

use basalt_engine::request::Request;
use basalt_engine::units::DriveIndex;
use basalt_net::exchange::Step;
use basalt_net::reader::Head;
use basalt_net::update::Outcome;

use super::client::{Came, Client, Input, Kept, Stage};
use super::delivery::{self, Deliveries, Event};
use super::drive::Fault;
use super::message::{Answer, Message, Seen, given, hash_of, message, shown};
use super::rules::{Plan, Rules};
use super::world::{Sent, World};

/// What a step was, for the trace.
#[derive(Clone, Default)]
pub(crate) struct Trace {
    client: Option<usize>,
    at: Vec<(usize, Rc<Vec<Event>>, Option<Answer>)>,
    deadline: bool,
    did: Vec<Did>,
}

/// What a client did.
#[derive(Clone)]
pub(crate) enum Did {
    Sends(Message),
    Finds(Option<Head>),
    Comes(Outcome),
    Says(&'static str),
}

pub(crate) struct Steps<'a> {
    pub(crate) rules: &'a Rules,
    pub(crate) deliveries: &'a Deliveries,
    pub(crate) found: Vec<(Trace, World)>,
}

/// A client taking answers.
struct Taking<'w> {
    client: usize,
    /// Drives with the same signature are interchangeable before the first is heard.
    signatures: &'w [u64],
    seen: Seen,
}

impl Taking<'_> {
    /// One hash for whatever is alike from here on: for each drive what it was before, what has been
    /// handled there since, and what the client knows of it.
    fn canonical(&self, client: &Client, trace: &Trace, world: &World) -> u64 {
        let kept = Kept::hashes(client, self.signatures.len());
        let heard = |drive: usize| trace.at.iter().any(|(at, ..)| *at == drive);
        let drive = |drive: usize| {
            let handled = heard(drive).then(|| world.signature(drive));
            hash_of((self.signatures[drive], handled, kept.1[drive]))
        };
        let mut drives: Vec<u64> = (0..self.signatures.len()).map(drive).collect();
        drives.sort_unstable();
        hash_of((kept.0, drives, world.restarts, world.damages))
    }
}

impl<'a> Steps<'a> {
    pub(crate) fn new(rules: &'a Rules, deliveries: &'a Deliveries) -> Self {
        Self { rules, deliveries, found: Vec::new() }
    }

    /// Every state that follows `world` in one step.
    pub(crate) fn after(mut self, world: &World) -> Vec<(Trace, World)> {
        let signatures = world.signatures();
        for client in 0..world.clients.len() {
            let kept = &world.clients[client];
            match kept.client.stage {
                Stage::Waiting => self.begin(world, client, &signatures),
                Stage::Ended => {}
                _ => {
                    let seen = Seen::default();
                    let mut taking = Taking { client, signatures: &signatures, seen };
                    let trace = Trace { client: Some(client), ..Trace::default() };
                    self.take_answers(&mut taking, world.clone(), kept.client.clone(), 0, trace);
                }
            }
        }
        self.decide_silently(world, &signatures);
        self.found
    }

    /// The start of everything: clients that had looked before, and those that begin at once.
    pub(crate) fn begin_all(mut self, world: World) -> Vec<World> {
        let mut worlds = vec![world];
        for (client, plan) in self.rules.clients.iter().enumerate() {
            if matches!(plan, Plan::Write { .. }) {
                for world in std::mem::take(&mut worlds) {
                    let trace = Trace::default();
                    self.begin_plan(world, client, trace);
                    worlds.extend(self.found.drain(..).map(|(_, world)| world));
                }
            }
        }
        worlds
    }

    fn begin(&mut self, world: &World, client: usize, signatures: &[u64]) {
        let trace = Trace { client: Some(client), ..Trace::default() };
        if !matches!(self.rules.clients[client], Plan::Replace) {
            return self.begin_plan(world.clone(), client, trace);
        }
        for drive in 0..world.drives.len() {
            if signatures[..drive].contains(&signatures[drive]) {
                continue;
            }
            let first = world.first_at(Some(client), drive);
            let wipe = Event::Fault(Fault::Wipe);
            for outcome in self.outcomes(world, drive, &first, &wipe).iter() {
                let mut world = world.clone();
                let mut trace = trace.clone();
                world.take(drive, outcome);
                trace.at.push((drive, outcome.first.clone(), None));
                world.lost = Some(DriveIndex(drive as u8));
                world.maps = Rc::new(self.rules.maps(world.lost)[..2].to_vec());
                world.note_decisions(self.rules);
                self.begin_plan(world, client, trace);
            }
        }
    }

    fn outcomes(
        &self,
        world: &World,
        drive: usize,
        first: &[Event],
        own: &Event,
    ) -> Rc<Vec<delivery::Outcome>> {
        let place = &world.drives[drive];
        self.deliveries.of(self.rules, world.lost, place, first, own)
    }

    fn take_answers(
        &mut self,
        taking: &mut Taking<'_>,
        world: World,
        client: Client,
        taken: u16,
        trace: Trace,
    ) {
        let at = taking.client;
        {
            let (mut world, mut client) = (world.clone(), client.clone());
            let step = client.step(Input::Deadline);
            let trace = Trace { deadline: true, ..trace.clone() };
            world.note_decisions(self.rules);
            self.act(world, at, client, step, trace);
        }
        for drive in 0..world.drives.len() {
            let open = |other: usize| taken & 1 << other == 0;
            let alike = |other: usize| taking.signatures[other] == taking.signatures[drive];
            if !open(drive) || (0..drive).any(|other| open(other) && alike(other)) {
                continue;
            }
            match world.sent(at, drive).clone() {
                Sent::Nothing => {}
                Sent::Answered(answer) => {
                    let heard = (drive, Rc::default(), answer);
                    self.hear(taking, world.clone(), &client, taken, &trace, heard);
                }
                Sent::Asked(message) => {
                    let first = world.first_at(Some(at), drive);
                    let own = Event::Asked { client: at as u8, message };
                    for outcome in self.outcomes(&world, drive, &first, &own).iter() {
                        let mut world = world.clone();
                        world.take(drive, outcome);
                        let answer = outcome.own.clone().expect("a request is answered");
                        let heard = (drive, outcome.first.clone(), answer);
                        self.hear(taking, world, &client, taken, &trace, heard);
                    }
                }
            }
        }
    }

    fn hear(
        &mut self,
        taking: &mut Taking<'_>,
        mut world: World,
        client: &Client,
        taken: u16,
        trace: &Trace,
        (drive, first, answer): (usize, Rc<Vec<Event>>, Answer),
    ) {
        let (mut client, mut trace) = (client.clone(), trace.clone());
        let taken = taken | 1 << drive;
        *world.sent_mut(taking.client, drive) = Sent::Nothing;
        let step = client.step(Input::Reply(DriveIndex(drive as u8), given(&answer)));
        trace.at.push((drive, first, Some(answer)));
        if !matches!(step, Step::Wait | Step::Linger) {
            world.note_decisions(self.rules);
            return self.act(world, taking.client, client, step, trace);
        }
        if taking.seen.insert(taking.canonical(&client, &trace, &world)) {
            self.take_answers(taking, world, client, taken, trace);
        }
    }

    /// Has `client` do what its machine says.
    pub(crate) fn act(
        &mut self,
        mut world: World,
        at: usize,
        mut client: Client,
        step: Step<Came>,
        mut trace: Trace,
    ) {
        match step {
            Step::Wait | Step::Linger => self.emit(world, at, client, trace),
            Step::SendMore(requests) => {
                self.send(&mut world, at, requests, &mut trace);
                self.emit(world, at, client, trace);
            }
            Step::Send(requests) | Step::SendSome(requests) => {
                self.stop_listening(&mut world, at);
                let is_prepare = |request: &Request| matches!(request, Request::Prepare { .. });
                if requests.iter().any(|(_, request)| is_prepare(request)) {
                    if world.ballots == self.rules.ballots {
                        client.stage = Stage::Ended;
                        trace.did(Did::Says("has no ballot left"));
                        return self.emit(world, at, client, trace);
                    }
                    world.ballots += 1;
                }
                self.send(&mut world, at, requests, &mut trace);
                self.emit(world, at, client, trace);
            }
            Step::CheckPayload(record) => {
                let operation = super::rules::operation(&record);
                let data = record.payloads().next().map_or(0, |layout| layout.data_shards);
                let holds = |place: &&super::delivery::Place| {
                    place.named & place.shards & 1 << operation != 0 && !place.is_candidate()
                };
                let here = world.drives.iter().filter(holds).count();
                if here >= usize::from(data) || self.rules.mistakes.recovery_without_payload {
                    let mut client = client.clone();
                    let step = client.step(Input::Payload(true));
                    self.act(world.clone(), at, client, step, trace.clone());
                }
                let step = client.step(Input::Payload(false));
                self.act(world, at, client, step, trace);
            }
            Step::Pause => {
                let step = client.step(Input::Retry);
                self.act(world, at, client, step, trace);
            }
            Step::Done(came) => self.came(world, at, client, came, trace),
        }
    }

    fn send(
        &self,
        world: &mut World,
        at: usize,
        requests: Vec<(DriveIndex, Request)>,
        trace: &mut Trace,
    ) {
        let first = requests.first().map(|(drive, _)| *drive);
        for (drive, request) in requests {
            if Some(drive) == first {
                world.judge_request(self.rules, &request);
            }
            let message = message(request);
            if Some(drive) == first {
                trace.did(Did::Sends(message.clone()));
            }
            *world.sent_mut(at, usize::from(drive.0)) = Sent::Asked(message);
        }
    }

    /// Sends what nobody waits for.
    pub(crate) fn post(
        &self,
        world: &mut World,
        trace: &mut Trace,
        requests: Vec<(DriveIndex, Request)>,
    ) {
        let first = requests.first().map(|(drive, _)| *drive);
        for (drive, request) in requests {
            if Some(drive) == first {
                world.judge_request(self.rules, &request);
            }
            let message = message(request);
            if Some(drive) == first {
                trace.did(Did::Sends(message.clone()));
            }
            self.abandon(world, usize::from(drive.0), message);
        }
    }

    /// From now on nobody listens to the answer of this request.
    fn abandon(&self, world: &mut World, drive: usize, message: Message) {
        if !self.deliveries.is_spent(self.rules, &world.drives[drive], &message) {
            world.abandon(drive, message);
        }
    }

    pub(crate) fn stop_listening(&self, world: &mut World, client: usize) {
        for drive in 0..world.drives.len() {
            if let Sent::Asked(message) = std::mem::take(world.sent_mut(client, drive)) {
                self.abandon(world, drive, message);
            }
        }
    }

    pub(crate) fn emit(&mut self, mut world: World, at: usize, client: Client, trace: Trace) {
        if matches!(client.stage, Stage::Ended) {
            self.stop_listening(&mut world, at);
        }
        world.clients[at] = Kept::new(client, world.drives.len());
        self.found.push((trace, world));
    }

    /// Values that are decided without anybody hearing of it: the acceptances that are missing are
    /// handled, no more of them than it takes.
    fn decide_silently(&mut self, world: &World, signatures: &[u64]) {
        let mut accepts: Vec<(usize, Event)> = Vec::new();
        for drive in 0..world.drives.len() {
            let is_accept = |event: &Event| {
                let (Event::Asked { message, .. } | Event::Stale { message }) = event else {
                    return false;
                };
                matches!(message.value, Request::Accept { .. })
            };
            let events = world.first_at(None, drive).into_iter().filter(is_accept);
            accepts.extend(events.map(|event| (drive, event)));
        }
        let mut ballots = Vec::new();
        for (_, event) in &accepts {
            let ballot = ballot_of(event);
            if !ballots.contains(&ballot) && !world.decided.contains(&(ballot.0, ballot.2)) {
                ballots.push(ballot);
            }
        }
        for ballot in ballots {
            let of = |(_, event): &&(usize, Event)| ballot_of(event) == ballot;
            let open: Vec<&(usize, Event)> = accepts.iter().filter(of).collect();
            let trace = Trace::default();
            let mut seen = Seen::default();
            self.accept_silently(world.clone(), &open, signatures, ballot, 0, &trace, &mut seen);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "a search with its state")]
    fn accept_silently(
        &mut self,
        world: World,
        open: &[&(usize, Event)],
        signatures: &[u64],
        ballot: BallotOf,
        taken: u16,
        trace: &Trace,
        seen: &mut Seen,
    ) {
        for (drive, own) in open.iter().copied() {
            let unheard = |other: usize| taken & 1 << other == 0;
            let alike = |other: usize| signatures[other] == signatures[*drive];
            if !unheard(*drive) || (0..*drive).any(|other| unheard(other) && alike(other)) {
                continue;
            }
            let hash = |event: &Event| hash_of(event);
            let mut first = world.first_at(None, *drive);
            first.retain(|event| hash(event) != hash(own));
            for outcome in self.outcomes(&world, *drive, &first, own).iter() {
                let accepts = |place: &super::delivery::Place| {
                    place.votes.iter().any(|vote| {
                        (vote.slot, vote.ballot, vote.operation) == ballot
                            && (vote.voting || !vote.ballot.is_fast())
                    })
                };
                if !accepts(&outcome.drive) || accepts(&world.drives[*drive]) {
                    continue;
                }
                let (mut world, mut trace) = (world.clone(), trace.clone());
                world.take(*drive, outcome);
                match own {
                    Event::Asked { client, .. } => {
                        let answer = outcome.own.clone().expect("a request is answered");
                        *world.sent_mut(usize::from(*client), *drive) = Sent::Answered(answer);
                    }
                    Event::Stale { .. } => {}
                    Event::Fault(_) => unreachable!("an acceptance"),
                }
                trace.at.push((*drive, outcome.first.clone(), outcome.own.clone()));
                world.note_decisions(self.rules);
                if world.decided.contains(&(ballot.0, ballot.2)) || world.violation.is_some() {
                    self.found.push((trace, world));
                } else if seen.insert(world.canonical()) {
                    let taken = taken | 1 << drive;
                    self.accept_silently(world, open, signatures, ballot, taken, &trace, seen);
                }
            }
        }
    }
}

type BallotOf = (basalt_engine::units::Slot, basalt_engine::units::Ballot, u8);

fn ballot_of(event: &Event) -> BallotOf {
    let (Event::Asked { message, .. } | Event::Stale { message }) = event else {
        unreachable!("an acceptance")
    };
    let Request::Accept { slot, ballot, record, .. } = &message.value else {
        unreachable!("an acceptance")
    };
    (*slot, *ballot, super::rules::operation(record))
}

impl Trace {
    pub(crate) fn did(&mut self, what: Did) {
        self.did.push(what);
    }

    /// The step in words.
    pub(crate) fn told(&self, world: &World) -> String {
        let mut out = match self.client {
            Some(client) => format!("client {client}"),
            None => "unheard".to_owned(),
        };
        for (drive, first, answer) in &self.at {
            let _ = write!(out, "; drive {drive}");
            for event in &**first {
                let _ = match event {
                    Event::Asked { client, message } => {
                        write!(out, " first {} of client {client},", shown_of(message))
                    }
                    Event::Stale { message } => write!(out, " first late {},", shown_of(message)),
                    Event::Fault(fault) => write!(out, " first {fault:?},"),
                };
            }
            if let Some(answer) = answer {
                let _ = write!(out, " answers {:?}", answer.value);
            }
        }
        if self.deadline {
            out.push_str("; waits no longer");
        }
        for did in &self.did {
            let _ = match did {
                Did::Sends(message) => write!(out, "; sends {}", shown(message)),
                Did::Finds(head) => write!(out, "; finds {head:?}"),
                Did::Comes(outcome) => write!(out, "; comes to {outcome:?}"),
                Did::Says(what) => write!(out, "; {what}"),
            };
        }
        if let Some(client) = self.client {
            let _ = write!(out, "; {}", world.clients[client].client.doing());
        }
        let _ = write!(out, "\n      decided {:?}", world.decided);
        for (drive, place) in world.drives.iter().enumerate() {
            let epoch = place.epoch.0;
            let _ = write!(out, "\n      drive {drive} e{epoch}: {:?}", place.digest().slots);
        }
        out
    }
}

fn shown_of(message: &Message) -> String {
    shown(&message.value)
}

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
//!   whether or not anybody has heard of it. [`Steps::decide_silently`] has these happen, and judges them.
//!   They are kept only as long as a read may begin, which then has to find the value: to all others it
//!   makes no difference, and the acceptances may as well be handled later.
//! - A pause before the next ballot is no step: its requests may stay under way for as long.
//! - A client that comes to its end and sends nothing any more leaves the others what they would have if
//!   it had stopped before: its requests stay under way, and their answers are heard by nobody. What it
//!   came to is judged; the state that follows is one that is explored already, as far as anybody can
//!   tell who still acts.
//! - Nobody can tell when a read began, but from its first answer: it had begun before that, and what was
//!   decided by then it has to find. The later it begins the more that is, so every read begins with the
//!   run, and its floor is what was decided when the first drive answered.
//! - Who reads asks R drives first, and the others when these are late; being late is nobody's choice. So
//!   it asks all of them at once: it goes by the first R answers all the same, whichever they are.
//! - Who has written sends its certificates at once. They may be as late as those that are sent only
//!   after more answers were waited for, or be lost.
//!
//! `plain` has the steps without any of this, and a test compares what can be told of both. Of the order of
//! the two writers' ballots one case stands for both: they do the same.

use std::collections::BTreeSet;
use std::rc::Rc;

use basalt_engine::request::Request;
use basalt_engine::units::DriveIndex;

use super::atlas::{Atlas, Move, Number, What};
use super::client::{Client, Input, Stage};
use super::delivery::Event;
use super::drive::{Acceptance, Fault};
use super::message::{Seen, hash_of};
use super::rules::{DRIVES_MAX, Plan};
use super::trace::{Did, Trace};
use super::world::{Decided, Sent, World};

/// What can be seen of runs from outside.
#[derive(Default, PartialEq, Eq, Debug)]
pub(crate) struct Told {
    /// What each client came to.
    pub(crate) came: BTreeSet<(usize, String)>,
    pub(crate) decided: BTreeSet<Decided>,
}

pub(crate) struct Steps<'a> {
    pub(crate) atlas: &'a Atlas<'a>,
    /// New states, in the order in which they were found.
    pub(crate) follow: Vec<(Trace, World)>,
    /// All states that were ever found.
    seen: Seen,
    pub(crate) transitions: usize,
    pub(crate) tracing: bool,
    /// Clients end, begin and spread in steps of their own, and no two drives are alike.
    pub(crate) plain: bool,
    /// Every state counts as new.
    pub(crate) forgetful: bool,
    pub(crate) told: Option<Told>,
}

/// A client taking answers.
struct Taking {
    at: usize,
    /// Drives with the same signature are interchangeable before the first is heard.
    signatures: [u64; DRIVES_MAX],
    seen: Seen,
}

/// How far a client has got with it.
#[derive(Clone, Copy)]
struct Taken {
    world: World,
    client: Number,
    /// The drives that were heard, one bit each.
    heard: u16,
}

impl Taking {
    /// One hash for whatever is alike from here on: for each drive what it was before, what has been
    /// handled there since, and what the client knows of it.
    fn canonical(&self, atlas: &Atlas<'_>, taken: &Taken) -> u64 {
        let Taken { world, client, heard } = taken;
        let mut drives = [0; DRIVES_MAX];
        let (parts, common) = atlas.with_kept(*client, |kept| (kept.parts, kept.common));
        for drive in world.drives() {
            let handled = (heard & 1 << drive != 0).then(|| world.signature(atlas, drive));
            drives[drive] = hash_of((self.signatures[drive], handled, parts[drive]));
        }
        drives.sort_unstable();
        hash_of((common, drives, world.restarts, world.damages))
    }
}

impl<'a> Steps<'a> {
    pub(crate) fn new(atlas: &'a Atlas<'a>) -> Self {
        Self {
            atlas,
            follow: Vec::new(),
            seen: Seen::default(),
            transitions: 0,
            tracing: false,
            plain: false,
            forgetful: false,
            told: None,
        }
    }

    /// The states that follow `world` in one step, but for those that were found before.
    pub(crate) fn after(&mut self, world: &World) -> Vec<(Trace, World)> {
        let world = World { posted: false, ..*world };
        let signatures = world.signatures(self.atlas);
        for at in world.clients() {
            let client = world.clients[at];
            let kept = self.atlas.kept(client);
            let trace = Trace::of(self.tracing, Some(at));
            match kept.client.stage {
                Stage::Waiting => self.begin(&world, at, &signatures),
                Stage::Ended => {}
                _ => {
                    let mut taking = Taking { at, signatures, seen: Seen::default() };
                    self.take_answers(&mut taking, Taken { world, client, heard: 0 }, &trace);
                }
            }
        }
        self.decide_silently(&world, &signatures);
        std::mem::take(&mut self.follow)
    }

    /// The start of everything: clients that had looked before, and those that begin at once.
    pub(crate) fn begin_all(&mut self, world: World) -> Vec<(Trace, World)> {
        let mut worlds = vec![world];
        for (at, plan) in self.atlas.rules.clients.iter().enumerate() {
            let waits = match plan {
                Plan::Write { .. } => false,
                Plan::Read => self.plain,
                Plan::Replace => true,
            };
            if !waits {
                for world in std::mem::take(&mut worlds) {
                    self.begin_plan(world, at, Trace::of(self.tracing, Some(at)));
                    worlds.extend(self.follow.drain(..).map(|(_, world)| world));
                }
                self.seen.clear();
            }
        }
        self.seen.extend(worlds.iter().map(|world| world.canonical(self.atlas)));
        worlds.into_iter().map(|world| (Trace::of(self.tracing, None), world)).collect()
    }

    fn begin(&mut self, world: &World, at: usize, signatures: &[u64]) {
        let trace = Trace::of(self.tracing, Some(at));
        if !matches!(self.atlas.rules.clients[at], Plan::Replace) {
            return self.begin_plan(*world, at, trace);
        }
        for drive in world.drives() {
            if signatures[..drive].contains(&signatures[drive]) {
                continue;
            }
            for outcome in world.outcomes(self.atlas, drive, Event::Fault(Fault::Wipe)).iter() {
                let (mut world, mut trace) = (*world, trace.clone());
                world.take(self.atlas, drive, outcome);
                trace.at(drive, &outcome.first, None);
                world.lost = Some(DriveIndex(drive as u8));
                world.newest_map = super::drive::JOINED;
                world.note_decisions(self.atlas);
                self.begin_plan(world, at, trace);
            }
        }
    }

    fn take_answers(&mut self, taking: &mut Taking, taken: Taken, trace: &Trace) {
        let Taken { world, client, heard } = taken;
        let kept = self.atlas.kept(client);
        if self.plain || !matches!(kept.client.stage, Stage::Spreading(_)) {
            let mut world = world;
            let went = self.atlas.tell(client, Input::Deadline);
            world.note_decisions(self.atlas);
            self.act(world, taking.at, went, trace.clone().with_deadline());
        }
        for drive in world.drives() {
            let open = |other: usize| heard & 1 << other == 0;
            let alike = |other: usize| taking.signatures[other] == taking.signatures[drive];
            if !open(drive) || (0..drive).any(|other| open(other) && alike(other)) {
                continue;
            }
            match world.drives[drive].sent[taking.at] {
                Sent::Nothing => {}
                Sent::Answered(answer) => {
                    let mut trace = trace.clone();
                    trace.at(drive, &Rc::default(), Some(self.atlas.answered(answer)));
                    self.hear(taking, taken, &trace, drive, answer);
                }
                Sent::Asked(request) => {
                    let own = Event::Asked { client: taking.at as u8, request };
                    for outcome in world.outcomes(self.atlas, drive, own).iter() {
                        let mut taken = taken;
                        taken.world.take(self.atlas, drive, outcome);
                        let answer = outcome.own.expect("a request is answered");
                        let decided = taken.world.decided.last().map(|(slot, _)| slot);
                        taken.client = self.atlas.since(taken.client, decided);
                        let mut trace = trace.clone();
                        trace.at(drive, &outcome.first, Some(self.atlas.answered(answer)));
                        self.hear(taking, taken, &trace, drive, answer);
                    }
                }
            }
        }
    }

    fn hear(
        &mut self,
        taking: &mut Taking,
        mut taken: Taken,
        trace: &Trace,
        drive: usize,
        answer: Number,
    ) {
        taken.heard |= 1 << drive;
        taken.world.drives[drive].sent[taking.at] = Sent::Nothing;
        let went = self.atlas.hear(taken.client, drive, answer);
        if !matches!(*self.atlas.what(went), What::Rest) {
            taken.world.note_decisions(self.atlas);
            return self.act(taken.world, taking.at, went, trace.clone());
        }
        taken.client = went.client;
        if taking.seen.insert(taking.canonical(self.atlas, &taken)) {
            self.take_answers(taking, taken, trace);
        }
    }

    /// Has a client do what its machine says.
    pub(crate) fn act(&mut self, mut world: World, at: usize, went: Move, mut trace: Trace) {
        match &*self.atlas.what(went) {
            What::Rest => self.emit(world, at, went.client, trace),
            What::SendMore(requests) => {
                self.send(&mut world, at, requests, &mut trace);
                self.emit(world, at, went.client, trace);
            }
            What::Send { requests, is_prepare } => {
                self.stop_listening(&mut world, at);
                if *is_prepare {
                    if world.ballots == self.atlas.rules.ballots {
                        trace.did(|| Did::Says("has no ballot left"));
                        return self.end(world, at, went, trace);
                    }
                    world.ballots += 1;
                }
                self.send(&mut world, at, requests, &mut trace);
                self.emit(world, at, went.client, trace);
            }
            What::CheckPayload { operation, data_shards } => {
                let holds = |place: &super::atlas::Place| {
                    let drive = &place.drive;
                    drive.named & drive.shards & 1 << operation != 0 && !drive.is_candidate()
                };
                let drives = world.drives[world.drives()].iter();
                let here = drives.filter(|at| self.atlas.at(at.place, holds)).count();
                let mistake = self.atlas.rules.mistakes.recovery_without_payload;
                if here >= *data_shards || mistake {
                    let went = self.atlas.tell(went.client, Input::Payload(true));
                    self.act(world, at, went, trace.clone());
                }
                let went = self.atlas.tell(went.client, Input::Payload(false));
                self.act(world, at, went, trace);
            }
            What::Pause => {
                let went = self.atlas.tell(went.client, Input::Retry);
                self.act(world, at, went, trace);
            }
            What::Came(came) => {
                if let Some(told) = &mut self.told
                    && let Some(summary) = came.summary()
                {
                    told.came.insert((at, summary));
                }
                self.came(world, at, went, came, trace);
            }
        }
    }

    fn send(&self, world: &mut World, at: usize, requests: &[(usize, Number)], trace: &mut Trace) {
        if let Some((_, first)) = requests.first() {
            let request = self.atlas.requested(*first);
            world.judge_request(self.atlas, &request);
            trace.did(|| Did::Sends(request));
        }
        for (drive, request) in requests {
            world.drives[*drive].sent[at] = Sent::Asked(*request);
        }
    }

    /// Sends to all drives what nobody waits for.
    pub(crate) fn post(&self, world: &mut World, trace: &mut Trace, request: Request) {
        world.judge_request(self.atlas, &request);
        let number = self.atlas.request(request);
        trace.did(|| Did::Sends(self.atlas.requested(number)));
        for drive in world.drives() {
            let before = world.drives[drive].stale;
            self.abandon(world, drive, number);
            world.posted |= world.drives[drive].stale != before;
        }
    }

    /// From now on nobody listens to the answer of this request.
    fn abandon(&self, world: &mut World, drive: usize, request: Number) {
        let at = &mut world.drives[drive];
        at.stale = self.atlas.abandoned(at.place, at.stale, request);
    }

    pub(crate) fn stop_listening(&self, world: &mut World, client: usize) {
        for drive in world.drives() {
            if let Sent::Asked(request) = std::mem::take(&mut world.drives[drive].sent[client]) {
                self.abandon(world, drive, request);
            }
        }
    }

    pub(crate) fn end(&mut self, world: World, at: usize, went: Move, trace: Trace) {
        let ended = self.atlas.begin(went, "end", |client| {
            (Client { stage: Stage::Ended, ..client }, basalt_net::exchange::Step::Wait)
        });
        self.emit(world, at, ended.client, trace);
    }

    pub(crate) fn emit(&mut self, mut world: World, at: usize, client: Number, trace: Trace) {
        world.clients[at] = client;
        let ended = self.atlas.with_kept(client, |kept| matches!(kept.client.stage, Stage::Ended));
        if ended && !self.plain && !world.posted && world.violation.is_none() {
            return;
        }
        if ended {
            self.stop_listening(&mut world, at);
        }
        self.found(trace, world);
    }

    /// Takes note of a state that follows.
    pub(crate) fn found(&mut self, trace: Trace, mut world: World) {
        world.posted = false;
        if !self.plain {
            world.forget_vain_votes(self.atlas);
        }
        self.transitions += 1;
        let hash = match self.plain {
            true => world.exact(self.atlas),
            false => world.canonical(self.atlas),
        };
        if let Some(told) = &mut self.told {
            told.decided.insert(world.decided);
        }
        if self.forgetful || self.seen.insert(hash) || world.violation.is_some() {
            self.follow.push((trace, world));
        }
    }

    /// Values that are decided without anybody hearing of it: the acceptances that are missing are
    /// handled, no more of them than it takes.
    fn decide_silently(&mut self, world: &World, signatures: &[u64]) {
        let mut accepts: Vec<(usize, Event, Acceptance)> = Vec::new();
        for drive in world.drives() {
            let at = &world.drives[drive];
            let asked = world.clients().filter_map(|client| match at.sent[client] {
                Sent::Asked(request) => Some(Event::Asked { client: client as u8, request }),
                _ => None,
            });
            let stale = self.atlas.under_way(at.stale);
            let stale = stale.iter().map(|&request| Event::Stale { request });
            accepts.extend(asked.chain(stale).filter_map(|event| {
                Some((drive, event, self.atlas.acceptance(event.request()?)?))
            }));
        }
        let mut ballots = Vec::new();
        for (.., ballot) in &accepts {
            if !ballots.contains(ballot) && world.decided.in_slot(ballot.0) != Some(ballot.2) {
                ballots.push(*ballot);
            }
        }
        for ballot in ballots {
            let of = |(drive, event, other): &(usize, Event, Acceptance)| {
                (*other == ballot).then_some((*drive, *event))
            };
            let open: Vec<(usize, Event)> = accepts.iter().filter_map(of).collect();
            let mut silent = Silent { open: &open, signatures, ballot, seen: Seen::default() };
            self.accept_silently(&mut silent, world, 0, &Trace::of(self.tracing, None));
        }
    }

    fn accept_silently(
        &mut self,
        silent: &mut Silent<'_>,
        world: &World,
        taken: u16,
        trace: &Trace,
    ) {
        let (open, ballot) = (silent.open, silent.ballot);
        for (drive, own) in open.iter().copied() {
            let unheard = |other: usize| taken & 1 << other == 0;
            let alike = |other: usize| silent.signatures[other] == silent.signatures[drive];
            if !unheard(drive) || (0..drive).any(|other| unheard(other) && alike(other)) {
                continue;
            }
            let accepts = |place: Number| {
                self.atlas.at(place, |place| {
                    place.drive.votes.iter().any(|vote| {
                        (vote.slot, vote.ballot, vote.operation) == ballot
                            && (vote.voting || !vote.ballot.is_fast())
                    })
                })
            };
            if accepts(world.drives[drive].place) {
                continue;
            }
            for outcome in world.outcomes(self.atlas, drive, own).iter() {
                if !accepts(outcome.place) {
                    continue;
                }
                let (mut world, mut trace) = (*world, trace.clone());
                world.take(self.atlas, drive, outcome);
                if let Event::Asked { client, .. } = own {
                    let answer = outcome.own.expect("a request is answered");
                    world.drives[drive].sent[usize::from(client)] = Sent::Answered(answer);
                }
                trace.at(drive, &outcome.first, outcome.own.map(|own| self.atlas.answered(own)));
                world.note_decisions(self.atlas);
                if world.violation.is_some() {
                    self.found(trace, world);
                } else if world.decided.in_slot(ballot.0) == Some(ballot.2) {
                    if let Some(told) = &mut self.told {
                        told.decided.insert(world.decided);
                    }
                    if world.may_begin_to_read(self.atlas) {
                        self.found(trace, world);
                    }
                } else if silent.seen.insert(world.canonical(self.atlas)) {
                    self.accept_silently(silent, &world, taken | 1 << drive, &trace);
                }
            }
        }
    }
}

/// A value on its way to being decided.
struct Silent<'w> {
    open: &'w [(usize, Event)],
    signatures: &'w [u64],
    ballot: Acceptance,
    seen: Seen,
}

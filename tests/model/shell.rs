//! What clients do between their machines, as `server/src/object/{register,membership,settle}.rs` do it:
//! look, write, spread the certificate, get over a change of the map; and bring a replacement into its
//! set. Judges what machines come to.
//!
//! A mistake that is made on purpose and is one of a client's stands here, beside what is right.

use basalt_engine::request::{Certificate, Request};
use basalt_engine::units::{DriveIndex, Epoch, Slot};
use basalt_net::exchange::Step;
use basalt_net::lookup::{Found, Lookup};
use basalt_net::proposer::{Ended, Ground, Value, copy_for};
use basalt_net::quorum::{Quorums, all_drives, drives_in};
use basalt_net::reader::Head;
use basalt_net::update::{Outcome, Update};

use super::atlas::{Atlas, Move};
use super::client::{Came, Client, Floor, Input, Replacing, Stage};
use super::drive::ADMITTED;
use super::message::hash_of;
use super::rules::{Plan, Rules, copy_of, key, operation};
use super::steps::Steps;
use super::trace::{Did, Trace};
use super::world::{Sent, World};

/// Machines that one client begins at most: one look and one write for each map there is.
const MACHINES_MAX: u8 = 8;

impl Atlas<'_> {
    pub(crate) fn ground(&self, world: &World, client: &mut Client) -> Ground {
        client.begun += 1;
        let map = self.map(world.lost, client.epoch);
        Ground {
            quorums: self.rules.quorums,
            voting: self.rules.voting(&map),
            epoch: client.epoch,
            proposer: match self.rules.order {
                Some(order) => hash_of((order, client.at, client.begun)),
                None => (u64::from(client.at) + 1) * 16 + u64::from(client.begun),
            },
        }
    }
}

pub(crate) fn started(rules: &Rules, mut client: Client, stage: Stage) -> (Client, Step<Came>) {
    client.stage = stage;
    let step = client.step(rules, Input::Start);
    (client, step)
}

impl Steps<'_> {
    pub(crate) fn begin_plan(&mut self, mut world: World, at: usize, trace: Trace) {
        let from = Atlas::resting(world.clients[at]);
        match self.atlas.rules.clients[at] {
            Plan::Write { looks: true, .. } => self.look(world, at, from, trace),
            Plan::Write { .. } => {
                let rules = self.atlas.rules;
                let head = world
                    .decided
                    .last()
                    .map(|(slot, operation)| (slot, rules.records[usize::from(operation)].clone()));
                let answered = all_drives(rules.drives);
                let found = Found { head, generation: 1, answered };
                self.update(world, at, from, &found, trace);
            }
            Plan::Read => {
                let decided = world.decided.last().map(|(slot, _)| slot);
                let floor = if self.plain { Floor::At(decided) } else { Floor::Open };
                let from = self.changed(from, |client| client.floor = floor);
                self.look(world, at, from, trace);
            }
            Plan::Replace => {
                let skipped = self.atlas.rules.mistakes.compare_skipped;
                if skipped {
                    world.newest_map = ADMITTED;
                }
                let replacing = if skipped { Replacing::Admitting } else { Replacing::Joining };
                let from = self.changed(from, |client| client.replacing = replacing);
                self.install(world, at, from, trace);
            }
        }
    }

    /// The same client, with something else on its mind.
    pub(crate) fn changed(&self, from: Move, change: impl Fn(&mut Client)) -> Move {
        let mut client = self.atlas.kept(from.client).client.clone();
        change(&mut client);
        Move { client: self.atlas.client(client), ..from }
    }

    pub(crate) fn look(&mut self, world: World, at: usize, from: Move, trace: Trace) {
        let atlas = self.atlas;
        if atlas.with_kept(from.client, |kept| kept.client.begun) == MACHINES_MAX {
            return self.end(world, at, from, trace);
        }
        if !matches!(atlas.rules.clients[at], Plan::Read) {
            let went = atlas.begin(from, ("look", world.lost), |mut client| {
                let ground = atlas.ground(&world, &mut client);
                started(atlas.rules, client, Stage::Looking(Lookup::of_all(ground, key())))
            });
            return self.act(world, at, went, trace);
        }
        // Who reads asks R drives first, whichever they are, and the others soon after.
        let read = atlas.rules.quorums.read as u32;
        let choices =
            (1..=all_drives(atlas.rules.drives)).filter(|first| first.count_ones() == read);
        for first in choices.take(if self.plain { usize::MAX } else { 1 }) {
            let went = atlas.begin(from, ("read", world.lost, first), |mut client| {
                let ground = atlas.ground(&world, &mut client);
                let lookup = Lookup::of_head(ground, key(), first, 0);
                let (mut client, step) = started(atlas.rules, client, Stage::Looking(lookup));
                match (self.plain, step) {
                    (false, Step::SendSome(mut requests)) => {
                        let Step::SendMore(others) = client.step(atlas.rules, Input::Deadline)
                        else {
                            unreachable!("the others are asked")
                        };
                        requests.extend(others);
                        (client, Step::Send(requests))
                    }
                    (_, step) => (client, step),
                }
            });
            self.act(world, at, went, trace.clone());
        }
    }

    fn update(&mut self, world: World, at: usize, from: Move, found: &Found, trace: Trace) {
        let atlas = self.atlas;
        let Plan::Write { operation, judge, .. } = atlas.rules.clients[at] else {
            unreachable!("only writers update")
        };
        let why = ("update", world.lost, found.head.as_ref().map(|(slot, _)| slot));
        let went = atlas.begin(from, why, |mut client| {
            let record = atlas.rules.records[usize::from(operation)].clone();
            let co_staged = record.payloads().any(|layout| layout.is_co_staged());
            let copy = co_staged.then(|| copy_of(operation));
            let ground = atlas.ground(&world, &mut client);
            let own = Value { record, copy };
            started(
                atlas.rules,
                client,
                Stage::Updating(Update::new(ground, key(), own, found, judge)),
            )
        });
        self.act(world, at, went, trace);
    }

    /// Has the newest map that the client knows of installed on W drives.
    pub(crate) fn install(&mut self, mut world: World, at: usize, from: Move, trace: Trace) {
        let atlas = self.atlas;
        self.stop_listening(&mut world, at);
        let went = atlas.begin(from, ("install", world.lost, world.newest_map), |mut client| {
            if client.replacing != Replacing::No {
                client.epoch = world.newest_map;
            }
            let needed = Quorums::of(atlas.rules.drives).accept as u32;
            client.stage = Stage::Installing { epoch: client.epoch, needed, done: 0 };
            let map = atlas.map(world.lost, client.epoch);
            let request = |drive| (drive, Request::InstallMap { map: map.clone() });
            let requests = drives_in(all_drives(atlas.rules.drives)).map(request).collect();
            (client, Step::Send(requests))
        });
        self.act(world, at, went, trace);
    }

    /// What a machine came to, and what its client does then.
    pub(crate) fn came(
        &mut self,
        mut world: World,
        at: usize,
        from: Move,
        came: &Came,
        mut trace: Trace,
    ) {
        let kept = self.atlas.kept(from.client);
        match came {
            Came::Lookup(outcome) => self.looked(world, at, from, outcome, trace),
            Came::Update(outcome) => self.updated(world, at, from, outcome, trace),
            Came::Spread { everywhere } => {
                let Stage::Spreading(update) = &kept.client.stage else {
                    unreachable!("it spread")
                };
                let certificate = update.certificate().expect("it was written");
                self.stop_listening(&mut world, at);
                self.certify(&mut world, certificate, *everywhere, &mut trace);
                self.end(world, at, from, trace);
            }
            Came::Installed(true) if kept.client.replacing == Replacing::No => {
                self.look(world, at, from, trace);
            }
            Came::Installed(true) if kept.client.replacing == Replacing::Joining => {
                let from = self.changed(from, |client| client.replacing = Replacing::Filling);
                self.look(world, at, from, trace);
            }
            Came::Taught(true) => {
                let from = self.changed(from, |client| client.replacing = Replacing::Comparing);
                self.look(world, at, from, trace);
            }
            Came::Checked(true) => self.admit(world, at, from, trace),
            Came::Installed(true) if kept.client.replacing == Replacing::Renewing => {
                self.survey(world, at, from, trace);
            }
            Came::Surveyed(newest) => self.surveyed(world, at, from, newest.as_ref(), trace),
            Came::Counted(newest, Some(true)) => self.missed(world, at, from, newest, trace),
            Came::Counted(..) => self.end(world, at, from, trace),
            Came::Decided(newest, outcome) => {
                self.decided_despite_loss(world, at, from, newest, outcome, trace);
            }
            Came::Installed(_) | Came::Taught(false) | Came::Checked(false) => {
                self.end(world, at, from, trace);
            }
        }
    }

    fn admit(&mut self, mut world: World, at: usize, from: Move, mut trace: Trace) {
        world.newest_map = ADMITTED;
        trace.did(|| Did::Says("has the next map decided"));
        let from = self.changed(from, |client| client.replacing = Replacing::Admitting);
        self.install(world, at, from, trace);
    }

    pub(crate) fn certify(
        &self,
        world: &mut World,
        certificate: Certificate,
        settled: bool,
        trace: &mut Trace,
    ) {
        let listed = Vec::new();
        self.post(world, trace, Request::Certify { key: key(), certificate, settled, listed });
    }

    fn looked(
        &mut self,
        mut world: World,
        at: usize,
        from: Move,
        outcome: &Result<Found, Ended>,
        mut trace: Trace,
    ) {
        let kept = self.atlas.kept(from.client);
        let Stage::Looking(lookup) = &kept.client.stage else { unreachable!("it looked") };
        self.stop_listening(&mut world, at);
        if let Some(certificate) = lookup.certificate() {
            self.certify(&mut world, certificate, false, &mut trace);
        }
        let found = match outcome {
            Ok(found) => found,
            Err(Ended::PayloadOutOfReach) if kept.client.replacing != Replacing::No => {
                return self.survey(world, at, from, trace);
            }
            Err(ended) => return self.take_newer_map(world, at, from, ended, trace),
        };
        if let Some(mut requests) = lookup.abandonment() {
            // They are all the same.
            let (_, request) = requests.swap_remove(0);
            self.post(&mut world, &mut trace, request);
        }
        trace.did(|| Did::Finds(found.head.clone()));
        self.judge_head(&mut world, found.head.as_ref());
        let slot = found.head.as_ref().map(|(slot, _)| *slot);
        if let Floor::At(floor) = kept.client.floor
            && slot < floor
        {
            world.violated(|| format!("I12: read {slot:?}, {floor:?} was decided before"));
        }
        match kept.client.replacing {
            Replacing::Filling => self.fill(world, at, from, found.head.as_ref(), trace),
            Replacing::Comparing => self.check(world, at, from, found.head.as_ref(), trace),
            _ if matches!(self.atlas.rules.clients[at], Plan::Write { .. }) => {
                self.update(world, at, from, found, trace);
            }
            _ => self.end(world, at, from, trace),
        }
    }

    /// Whatever anybody takes for the head was decided.
    fn judge_head(&self, world: &mut World, head: Option<&Head>) {
        let Some((slot, record)) = head else { return };
        if world.decided.in_slot(*slot) != Some(operation(record)) {
            world.violated(|| format!("I1: {slot:?} is read as decided for {record:?}"));
        }
    }

    fn fill(&mut self, mut world: World, at: usize, from: Move, head: Option<&Head>, trace: Trace) {
        let atlas = self.atlas;
        // A key that does not exist lacks nothing.
        let Some((slot, record)) = head else { return self.admit(world, at, from, trace) };
        let newcomer = world.lost.expect("it is being replaced");
        let bit = 1 << operation(record);
        let mut drives = world.drives[world.drives()].iter();
        let any = drives.any(|at| atlas.at(at.place, |place| place.drive.shards & bit != 0));
        if record.payload_count() > 0 {
            // The copies that there are may be out of reach.
            self.survey(world, at, from, trace.clone());
            if !any {
                return;
            }
        }
        self.stop_listening(&mut world, at);
        let went = atlas.begin(from, ("fill", newcomer, slot, any), |mut client| {
            let copy = any.then(|| copy_of(operation(record)));
            let copy = copy_for(record, newcomer, copy.as_ref());
            let (slot, record) = (*slot, record.clone());
            client.stage = Stage::Teaching { slot, record: record.clone() };
            let learn = Request::Learn { epoch: client.epoch, key: key(), slot, record, copy };
            (client, Step::Send(vec![(newcomer, learn)]))
        });
        self.act(world, at, went, trace);
    }

    fn check(&mut self, world: World, at: usize, from: Move, head: Option<&Head>, trace: Trace) {
        let Some((slot, _)) = head else { return self.admit(world, at, from, trace) };
        let newcomer: DriveIndex = world.lost.expect("it is being replaced");
        let went = self.atlas.begin(from, ("check", newcomer, slot), |mut client| {
            client.stage = Stage::Checking { slot: *slot };
            let digest = Request::Digest { key: key(), payload: false };
            (client, Step::Send(vec![(newcomer, digest)]))
        });
        self.act(world, at, went, trace);
    }

    fn updated(
        &mut self,
        mut world: World,
        at: usize,
        from: Move,
        outcome: &Outcome,
        mut trace: Trace,
    ) {
        let kept = self.atlas.kept(from.client);
        let Stage::Updating(update) = &kept.client.stage else { unreachable!("it updated") };
        trace.did(|| Did::Comes(outcome.clone()));
        let Plan::Write { operation, .. } = self.atlas.rules.clients[at] else {
            let certificate = update.certificate();
            return self.declared(world, at, from, outcome, certificate, trace);
        };
        match outcome {
            Outcome::Written(slot) => {
                if world.decided.in_slot(*slot) != Some(operation) {
                    world.violated(|| format!("I5: op{operation} acknowledged in {slot:?}"));
                }
                world.acknowledge(self.atlas, operation);
                self.judge_base(&mut world, at, *slot);
                self.spread(world, at, from, trace);
            }
            Outcome::Ended(ended) => {
                let retries = self.atlas.rules.mistakes.retry_without_outcome;
                if retries && kept.client.begun < MACHINES_MAX {
                    return self.look(world, at, from, trace);
                }
                if update.may_be_accepted() {
                    return self.end(world, at, from, trace);
                }
                self.take_newer_map(world, at, from, ended, trace);
            }
            other => {
                if let Outcome::Refused(head) = other {
                    self.judge_head(&mut world, head.as_ref());
                    if let Some(certificate) = update.certificate() {
                        self.certify(&mut world, certificate, false, &mut trace);
                    }
                }
                self.end(world, at, from, trace);
            }
        }
    }

    /// Who has written waits for the drives that have not answered yet, as long as all may still have
    /// everything.
    fn spread(&mut self, mut world: World, at: usize, from: Move, mut trace: Trace) {
        let kept = self.atlas.kept(from.client);
        let Stage::Updating(update) = &kept.client.stage else { unreachable!("it updated") };
        let spreading = self.atlas.begin(from, "spread", |client| {
            let stage = Stage::Spreading(update.clone());
            (Client { stage, ..client }, Step::Wait)
        });
        if self.plain {
            return self.emit(world, at, spreading.client, trace);
        }
        let certificate = update.certificate().expect("it was written");
        self.certify(&mut world, certificate, false, &mut trace);
        let open = |drive: &usize| !matches!(world.drives[*drive].sent[at], Sent::Nothing);
        let open = world.drives().filter(open).fold(0, |mask, drive| mask | 1 << drive);
        let has_prospects = self.atlas.begin(spreading, ("prospects", open), |client| {
            let mut hopeful = client.clone();
            let has = |drive| {
                let reply = basalt_engine::request::Reply::Accepted { has_shards: true };
                matches!(
                    hopeful.step(self.atlas.rules, Input::Reply(drive, reply)),
                    Step::Done(Came::Spread { everywhere: true })
                )
            };
            match drives_in(open).any(has) {
                true => (client, Step::Wait),
                false => (Client { stage: Stage::Ended, ..client }, Step::Wait),
            }
        });
        self.emit(world, at, has_prospects.client, trace);
    }

    /// I6: what a condition was about is what stands in the slot before.
    fn judge_base(&self, world: &mut World, at: usize, slot: Slot) {
        let rules = self.atlas.rules;
        let Plan::Write { judge, .. } = rules.clients[at] else { unreachable!("a writer") };
        let before = Slot { sequence: slot.sequence - 1, ..slot };
        let head = world
            .decided
            .in_slot(before)
            .map(|operation| (before, rules.records[usize::from(operation)].clone()));
        if judge(head.as_ref()) != basalt_net::update::Wish::Write {
            world.violated(|| format!("I6: written in {slot:?} against its condition"));
        }
    }

    fn take_newer_map(&mut self, world: World, at: usize, from: Move, ended: &Ended, trace: Trace) {
        let kept = self.atlas.kept(from.client);
        let newer = match ended {
            Ended::OtherMap(map) => map.epoch,
            Ended::NewerMapAt(drive) => {
                let place = world.drives[usize::from(drive.0)].place;
                self.atlas.at(place, |place| place.drive.epoch)
            }
            Ended::NewerEpoch => return self.install(world, at, from, trace),
            _ => Epoch::default(),
        };
        // Only one replacement is under way: where one is the client's, the newer map is its own.
        if newer <= kept.client.epoch || kept.client.replacing != Replacing::No {
            return self.end(world, at, from, trace);
        }
        let from = self.changed(from, |client| client.epoch = newer);
        self.look(world, at, from, trace);
    }
}

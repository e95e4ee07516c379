//! What clients do between their machines, as `server/src/object/{register,membership,settle}.rs` do it:
//! look, write, spread the certificate, get over a change of the map; and bring a replacement into its
//! set. Judges what machines come to.
//!
//! A mistake that is made on purpose and is one of a client's stands here, beside what is right.

use std::rc::Rc;

use basalt_engine::request::{Certificate, Request};
use basalt_engine::units::{Epoch, Slot};
use basalt_net::exchange::Step;
use basalt_net::lookup::{Found, Lookup};
use basalt_net::proposer::{Ended, Ground, Value, copy_for};
use basalt_net::quorum::{all_drives, drives_in};
use basalt_net::reader::Head;
use basalt_net::update::{Outcome, Update};

use super::client::{Came, Client, Input, Replacing, Stage};
use super::rules::{Plan, copy_of, key, operation};
use super::steps::{Did, Steps, Trace};
use super::world::World;

/// Machines that one client begins at most: one look and one write for each map there is.
const MACHINES_MAX: u8 = 6;

impl Steps<'_> {
    pub(crate) fn begin_plan(&mut self, mut world: World, at: usize, trace: Trace) {
        let mut client = world.clients[at].client.clone();
        match self.rules.clients[at] {
            Plan::Write { looks: true, .. } => self.look(world, at, client, trace),
            Plan::Write { .. } => {
                let head = world.decided.last().map(|(slot, operation)| {
                    (*slot, self.rules.records[usize::from(*operation)].clone())
                });
                let answered = all_drives(self.rules.drives);
                let found = Found { head, generation: 1, answered };
                self.update(world, at, client, &found, trace);
            }
            Plan::Read => {
                client.floor = world.decided.last().map(|(slot, _)| *slot);
                self.look(world, at, client, trace);
            }
            Plan::Replace => {
                client.replacing = Replacing::Joining;
                if self.rules.mistakes.compare_skipped {
                    world.maps = Rc::new(self.rules.maps(world.lost));
                    client.replacing = Replacing::Admitting;
                }
                self.install(world, at, client, trace);
            }
        }
    }

    fn ground(&self, world: &World, at: usize, client: &mut Client) -> Ground {
        client.begun += 1;
        let map = &world.maps[client.epoch.0 as usize - 1];
        Ground {
            quorums: self.rules.quorums,
            voting: self.rules.voting(map),
            epoch: client.epoch,
            proposer: (at as u64 + 1) * 16 + u64::from(client.begun),
        }
    }

    fn look(&mut self, world: World, at: usize, mut client: Client, trace: Trace) {
        if client.begun == MACHINES_MAX {
            client.stage = Stage::Ended;
            return self.emit(world, at, client, trace);
        }
        let ground = self.ground(&world, at, &mut client);
        if !matches!(self.rules.clients[at], Plan::Read) {
            client.stage = Stage::Looking(Lookup::of_all(ground, key()));
            let step = client.step(Input::Start);
            return self.act(world, at, client, step, trace);
        }
        // Who reads asks R drives first, whichever they are.
        let read = ground.quorums.read as u32;
        let choices = 1..=all_drives(self.rules.drives);
        for first in choices.filter(|first| first.count_ones() == read) {
            let mut client = client.clone();
            client.stage = Stage::Looking(Lookup::of_head(ground.clone(), key(), first, 0));
            let step = client.step(Input::Start);
            self.act(world.clone(), at, client, step, trace.clone());
        }
    }

    fn update(&mut self, world: World, at: usize, mut client: Client, found: &Found, trace: Trace) {
        let Plan::Write { operation, judge, .. } = self.rules.clients[at] else {
            unreachable!("only writers update")
        };
        let record = self.rules.records[usize::from(operation)].clone();
        let co_staged = record.payloads().any(|layout| layout.is_co_staged());
        let copy = co_staged.then(|| copy_of(operation));
        let ground = self.ground(&world, at, &mut client);
        let own = Value { record, copy };
        client.stage = Stage::Updating(Update::new(ground, key(), own, found, judge));
        let step = client.step(Input::Start);
        self.act(world, at, client, step, trace);
    }

    /// Has the newest map that the client knows of installed on W drives.
    fn install(&mut self, mut world: World, at: usize, mut client: Client, trace: Trace) {
        let epoch = match client.replacing {
            Replacing::No => client.epoch,
            _ => world.newest_map(),
        };
        client.epoch = epoch;
        let needed = basalt_net::quorum::Quorums::of(self.rules.drives).accept as u32;
        client.stage = Stage::Installing { epoch, needed, done: 0 };
        self.stop_listening(&mut world, at);
        let map = &world.maps[epoch.0 as usize - 1];
        let request = |drive| (drive, Request::InstallMap { map: map.clone() });
        let requests = drives_in(all_drives(self.rules.drives)).map(request).collect();
        self.act(world, at, client, Step::Send(requests), trace);
    }

    /// What a machine came to, and what its client does then.
    pub(crate) fn came(
        &mut self,
        mut world: World,
        at: usize,
        mut client: Client,
        came: Came,
        mut trace: Trace,
    ) {
        match came {
            Came::Lookup(outcome) => self.looked(world, at, client, outcome, trace),
            Came::Update(outcome) => self.updated(world, at, client, outcome, trace),
            Came::Spread { everywhere } => {
                let Stage::Spreading(update) = &client.stage else { unreachable!("it spread") };
                let certificate = update.certificate().expect("it was written");
                self.stop_listening(&mut world, at);
                self.certify(&mut world, certificate, everywhere, &mut trace);
                client.stage = Stage::Ended;
                self.emit(world, at, client, trace);
            }
            Came::Installed(true) if client.replacing == Replacing::No => {
                self.look(world, at, client, trace);
            }
            Came::Installed(true) if client.replacing == Replacing::Joining => {
                client.replacing = Replacing::Filling;
                self.look(world, at, client, trace);
            }
            Came::Taught(true) => {
                client.replacing = Replacing::Comparing;
                self.look(world, at, client, trace);
            }
            Came::Checked(true) => self.admit(world, at, client, trace),
            Came::Installed(_) | Came::Taught(false) | Came::Checked(false) => {
                client.stage = Stage::Ended;
                self.emit(world, at, client, trace);
            }
        }
    }

    fn admit(&mut self, mut world: World, at: usize, mut client: Client, mut trace: Trace) {
        world.maps = Rc::new(self.rules.maps(world.lost));
        trace.did(Did::Says("has the next map decided"));
        client.replacing = Replacing::Admitting;
        self.install(world, at, client, trace);
    }

    fn certify(
        &self,
        world: &mut World,
        certificate: Certificate,
        settled: bool,
        trace: &mut Trace,
    ) {
        let request = |drive| {
            let listed = Vec::new();
            (drive, Request::Certify { key: key(), certificate, settled, listed })
        };
        let requests = drives_in(all_drives(self.rules.drives)).map(request).collect();
        self.post(world, trace, requests);
    }

    fn looked(
        &mut self,
        mut world: World,
        at: usize,
        mut client: Client,
        outcome: Result<Found, Ended>,
        mut trace: Trace,
    ) {
        let Stage::Looking(lookup) = client.stage.clone() else { unreachable!("it looked") };
        self.stop_listening(&mut world, at);
        if let Some(certificate) = lookup.certificate() {
            self.certify(&mut world, certificate, false, &mut trace);
        }
        let found = match outcome {
            Ok(found) => found,
            Err(ended) => return self.take_newer_map(world, at, client, ended, trace),
        };
        if let Some(requests) = lookup.abandonment() {
            self.post(&mut world, &mut trace, requests);
        }
        trace.did(Did::Finds(found.head.clone()));
        self.judge_head(&mut world, found.head.as_ref());
        let slot = found.head.as_ref().map(|(slot, _)| *slot);
        if slot < client.floor {
            let floor = client.floor;
            world.violated(|| format!("I12: read {slot:?}, {floor:?} was decided before"));
        }
        match client.replacing {
            Replacing::Filling => self.fill(world, at, client, found.head, trace),
            Replacing::Comparing => self.check(world, at, client, found.head, trace),
            _ if matches!(self.rules.clients[at], Plan::Write { .. }) => {
                self.update(world, at, client, &found, trace);
            }
            _ => {
                client.stage = Stage::Ended;
                self.emit(world, at, client, trace);
            }
        }
    }

    /// Whatever anybody takes for the head was decided.
    fn judge_head(&self, world: &mut World, head: Option<&Head>) {
        let Some((slot, record)) = head else { return };
        if world.operation_in(*slot) != Some(operation(record)) {
            world.violated(|| format!("I1: {slot:?} is read as decided for {record:?}"));
        }
    }

    fn fill(
        &mut self,
        mut world: World,
        at: usize,
        mut client: Client,
        head: Option<Head>,
        trace: Trace,
    ) {
        // A key that does not exist lacks nothing.
        let Some((slot, record)) = head else { return self.admit(world, at, client, trace) };
        let newcomer = world.lost.expect("it is being replaced");
        let any = world.drives.iter().any(|drive| drive.shards & 1 << operation(&record) != 0);
        let copy = any.then(|| copy_of(operation(&record)));
        let copy = copy_for(&record, newcomer, copy.as_ref());
        client.stage = Stage::Teaching { slot, record: record.clone() };
        self.stop_listening(&mut world, at);
        let learn = Request::Learn { epoch: client.epoch, key: key(), slot, record, copy };
        self.act(world, at, client, Step::Send(vec![(newcomer, learn)]), trace);
    }

    fn check(
        &mut self,
        world: World,
        at: usize,
        mut client: Client,
        head: Option<Head>,
        trace: Trace,
    ) {
        let Some((slot, _)) = head else { return self.admit(world, at, client, trace) };
        let newcomer = world.lost.expect("it is being replaced");
        client.stage = Stage::Checking { slot };
        let digest = Request::Digest { key: key(), payload: false };
        self.act(world, at, client, Step::Send(vec![(newcomer, digest)]), trace);
    }

    fn updated(
        &mut self,
        mut world: World,
        at: usize,
        mut client: Client,
        outcome: Outcome,
        mut trace: Trace,
    ) {
        let Stage::Updating(update) = client.stage.clone() else { unreachable!("it updated") };
        let Plan::Write { operation, .. } = self.rules.clients[at] else {
            unreachable!("a writer")
        };
        trace.did(Did::Comes(outcome.clone()));
        match outcome {
            Outcome::Written(slot) => {
                if world.operation_in(slot) != Some(operation) {
                    world.violated(|| format!("I5: op{operation} acknowledged in {slot:?}"));
                }
                self.judge_base(&mut world, at, slot);
                client.stage = Stage::Spreading(update);
                self.emit(world, at, client, trace);
            }
            Outcome::Ended(ended) => {
                let open = update.may_be_accepted();
                if self.rules.mistakes.retry_without_outcome && client.begun < MACHINES_MAX {
                    return self.look(world, at, client, trace);
                }
                if open {
                    client.stage = Stage::Ended;
                    return self.emit(world, at, client, trace);
                }
                self.take_newer_map(world, at, client, ended, trace);
            }
            other => {
                if let Outcome::Refused(head) = &other {
                    self.judge_head(&mut world, head.as_ref());
                    if let Some(certificate) = update.certificate() {
                        self.certify(&mut world, certificate, false, &mut trace);
                    }
                }
                client.stage = Stage::Ended;
                self.emit(world, at, client, trace);
            }
        }
    }

    /// I6: what a condition was about is what stands in the slot before.
    fn judge_base(&self, world: &mut World, at: usize, slot: Slot) {
        let Plan::Write { judge, .. } = self.rules.clients[at] else { unreachable!("a writer") };
        let before = Slot { sequence: slot.sequence - 1, ..slot };
        let head = world
            .operation_in(before)
            .map(|operation| (before, self.rules.records[usize::from(operation)].clone()));
        if judge(head.as_ref()) != basalt_net::update::Wish::Write {
            world.violated(|| format!("I6: written in {slot:?} against its condition"));
        }
    }

    fn take_newer_map(
        &mut self,
        world: World,
        at: usize,
        mut client: Client,
        ended: Ended,
        trace: Trace,
    ) {
        let newer = match ended {
            Ended::OtherMap(map) => map.epoch,
            Ended::NewerMapAt(drive) => world.drives[usize::from(drive.0)].epoch,
            Ended::NewerEpoch => return self.install(world, at, client, trace),
            _ => Epoch::default(),
        };
        if newer <= client.epoch {
            client.stage = Stage::Ended;
            return self.emit(world, at, client, trace);
        }
        client.epoch = newer;
        if client.replacing != Replacing::No {
            // Only one replacement is under way: the newer map is its own.
            client.stage = Stage::Ended;
            return self.emit(world, at, client, trace);
        }
        self.look(world, at, client, trace);
    }
}

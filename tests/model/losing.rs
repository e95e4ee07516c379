//! What a client does that finds a record without enough shards, as `server/src/object/lost.rs` does it:
//! all drives are asked, a map is decided anew, all drives are asked again; then the record is decided, if
//! it was not yet, and after it one that says "lost".

use basalt_engine::record::Kind;
use basalt_engine::request::{Certificate, Request};
use basalt_net::exchange::Step;
use basalt_net::loss::{Census, Newest, Suspicion};
use basalt_net::proposer::{self, Proposal, Value};
use basalt_net::quorum::{all_drives, drives_in};
use basalt_net::reader::Reading;
use basalt_net::update::{Outcome, Update};

use super::atlas::Move;
use super::client::{Replacing, Stage};
use super::drive::RENEWED;
use super::rules::{LOST, after_lost, key, operation};
use super::shell::started;
use super::steps::Steps;
use super::trace::Trace;
use super::world::World;

impl Steps<'_> {
    pub(crate) fn survey(&mut self, mut world: World, at: usize, from: Move, trace: Trace) {
        let atlas = self.atlas;
        self.stop_listening(&mut world, at);
        let went = atlas.begin(from, ("survey", world.lost), |mut client| {
            let voting = atlas.rules.voting(&atlas.map(world.lost, client.epoch));
            client.stage = Stage::Surveying(Reading::new(atlas.rules.quorums, voting));
            let request = |drive| (drive, Request::Digest { key: key(), payload: false });
            let requests = drives_in(all_drives(atlas.rules.drives)).map(request).collect();
            (client, Step::Send(requests))
        });
        self.act(world, at, went, trace);
    }

    pub(crate) fn surveyed(
        &mut self,
        mut world: World,
        at: usize,
        from: Move,
        newest: Option<&Newest>,
        trace: Trace,
    ) {
        let Some(newest) = newest.filter(|newest| newest.head.1.kind() == Kind::Data) else {
            return self.end(world, at, from, trace);
        };
        let atlas = self.atlas;
        self.stop_listening(&mut world, at);
        let went = atlas.begin(from, "count", |mut client| {
            let layouts: Vec<_> = newest.head.1.payloads().collect();
            let payloads: Vec<_> = layouts.iter().map(|layout| layout.payload).collect();
            client.stage = Stage::Counting { newest: newest.clone(), census: Census::of(layouts) };
            let request = |drive| (drive, Request::Holds { payloads: payloads.clone() });
            let requests = drives_in(all_drives(atlas.rules.drives)).map(request).collect();
            (client, Step::Send(requests))
        });
        self.act(world, at, went, trace);
    }

    /// Too few shards are left. Whether that is certain takes a newer map to know.
    pub(crate) fn missed(
        &mut self,
        mut world: World,
        at: usize,
        from: Move,
        newest: &Newest,
        trace: Trace,
    ) {
        let atlas = self.atlas;
        let kept = atlas.kept(from.client);
        let now = Suspicion::of(&newest.head, kept.client.epoch);
        let certain = kept.client.suspicion.is_some_and(|known| known.is_certain(&now));
        if !certain {
            if kept.client.epoch >= RENEWED {
                return self.end(world, at, from, trace);
            }
            world.newest_map = RENEWED;
            let from = self.changed(from, |client| {
                client.suspicion = Some(now);
                client.replacing = Replacing::Renewing;
            });
            return self.install(world, at, from, trace);
        }
        if newest.decided {
            return self.declare(world, at, from, newest, trace);
        }
        let went = atlas.begin(from, ("despite", world.lost), |mut client| {
            let ground = atlas.ground(&world, &mut client);
            let (slot, record) = &newest.head;
            let proposal = Proposal::new(ground, key(), *slot, newest.base, None, false);
            let proposal = Box::new(proposal.despite_loss(record.operation()));
            started(atlas.rules, client, Stage::Deciding { newest: newest.clone(), proposal })
        });
        self.act(world, at, went, trace);
    }

    pub(crate) fn decided_despite_loss(
        &mut self,
        mut world: World,
        at: usize,
        from: Move,
        newest: &Newest,
        outcome: &proposer::Outcome,
        mut trace: Trace,
    ) {
        let kept = self.atlas.kept(from.client);
        let Stage::Deciding { proposal, .. } = &kept.client.stage else { unreachable!("it did") };
        self.stop_listening(&mut world, at);
        let (Ok(()), Some(certificate)) = (outcome, proposal.certificate()) else {
            return self.end(world, at, from, trace);
        };
        self.certify(&mut world, certificate, false, &mut trace);
        self.declare(world, at, from, newest, trace);
    }

    fn declare(&mut self, world: World, at: usize, from: Move, newest: &Newest, trace: Trace) {
        let atlas = self.atlas;
        let lost = operation(&newest.head.1);
        let went = atlas.begin(from, ("declare", world.lost), |mut client| {
            client.replacing = Replacing::Declaring;
            let ground = atlas.ground(&world, &mut client);
            let record = atlas.rules.records[usize::from(LOST + lost)].clone();
            let own = Value { record, copy: None };
            let update = Update::new(ground, key(), own, &newest.found(), after_lost(lost));
            started(atlas.rules, client, Stage::Updating(update))
        });
        self.act(world, at, went, trace);
    }

    /// Goes on with the replacement of the drive.
    pub(crate) fn declared(
        &mut self,
        mut world: World,
        at: usize,
        from: Move,
        outcome: &Outcome,
        certificate: Option<Certificate>,
        mut trace: Trace,
    ) {
        self.stop_listening(&mut world, at);
        if let Some(certificate) = certificate {
            self.certify(&mut world, certificate, false, &mut trace);
        }
        if !matches!(outcome, Outcome::Written(_)) {
            return self.end(world, at, from, trace);
        }
        let from = self.changed(from, |client| client.replacing = Replacing::Filling);
        self.look(world, at, from, trace);
    }
}

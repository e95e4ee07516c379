//! Random walks through configurations that no exploration gets to the end of: two writers, a reader, a
//! replaced drive, restarts and damage together, on two to six drives. A walk goes by the single events of
//! `plain`, from the start until nothing is left to happen.
//!
//! A seed is one whole walk: it draws the configuration, the order of the proposers' numbers, how eager
//! each kind of event is, and then the events. Half of the walks take all events for equally likely. In
//! the others some drives and clients are slow, and some kinds of event rare, which leads to where
//! requests are late, ballots are fought over, and a drive is replaced in the middle of it.
//!
//! Walks find no proof; `explore` does, for the configurations that it visits.

use super::atlas::Atlas;
use super::delivery::Event;
use super::drive::Fault;
use super::explore::{Violation, initial};
use super::message::hash_of;
use super::plain::{Happening, happenings};
use super::rules::{CLIENTS_MAX, DRIVES_MAX, Rules};
use super::setups;
use super::steps::Steps;
use super::world::World;

/// Walks through one configuration, one after the other: what is known of it is kept that long.
pub(crate) const WALKS_ALIKE: u64 = 128;

/// No walk is longer.
const EVENTS_MAX: usize = 1000;

/// What walks saw.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Walked {
    pub(crate) walks: u64,
    pub(crate) events: usize,
}

/// Random numbers from a seed.
pub(crate) struct Draw(u64);

impl Draw {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    pub(crate) fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}

/// How eager events are.
struct Weights {
    begins: u64,
    asked: u64,
    stale: u64,
    fault: u64,
    hears: u64,
    waits_no_longer: u64,
    drives: [u64; DRIVES_MAX],
    clients: [u64; CLIENTS_MAX],
}

impl Weights {
    fn draw(draw: &mut Draw) -> Self {
        let uniform = draw.below(2) == 0;
        let mut any = |of: &[u64]| if uniform { 1 } else { draw.one_of(of) };
        Self {
            begins: any(&[1, 4, 16, 256]),
            asked: any(&[4, 16, 64, 256]),
            stale: any(&[1, 4, 16, 64]),
            fault: any(&[1, 4, 16, 64]),
            hears: any(&[4, 16, 64, 256]),
            waits_no_longer: any(&[1, 1, 4, 16]),
            drives: [(); DRIVES_MAX].map(|()| any(&[1, 16, 256])),
            clients: [(); CLIENTS_MAX].map(|()| any(&[1, 16, 256])),
        }
    }

    fn of(&self, what: Happening) -> u64 {
        match what {
            Happening::Begins { client, .. } => self.begins * self.clients[client],
            Happening::At { drive, event } => {
                let kind = match event {
                    Event::Asked { client, .. } => self.asked * self.clients[usize::from(client)],
                    Event::Stale { .. } => self.stale,
                    Event::Fault(Fault::Restart | Fault::Damage | Fault::Wipe) => self.fault,
                };
                kind * self.drives[drive]
            }
            Happening::Hears { client, .. } => self.hears * self.clients[client],
            Happening::WaitsNoLonger { client } => self.waits_no_longer * self.clients[client],
        }
    }
}

/// Walks from `first` on, `walks` of them, in configurations that `change` may change. A violation ends
/// them.
pub(crate) fn walk_all(
    first: u64,
    walks: u64,
    change: impl Fn(Rules) -> Rules,
) -> (Walked, Option<(u64, Violation)>) {
    let mut walked = Walked::default();
    let mut seed = first;
    while seed < first + walks {
        let group = seed / WALKS_ALIKE;
        let rules = change(setups::everything(&mut Draw::new(hash_of(("rules", group))), group));
        let atlas = Atlas::new(&rules);
        while seed < first + walks && seed / WALKS_ALIKE == group {
            walked.walks += 1;
            if walk(&atlas, seed, false, &mut walked).is_some() {
                let mut told = Vec::new();
                let what = walk_told(&atlas, seed, &mut told);
                let name = format!("D = {}, {}", rules.drives, rules.name);
                return (
                    walked,
                    Some((seed, Violation { what: format!("{name}: {what}"), steps: told })),
                );
            }
            seed += 1;
        }
    }
    (walked, None)
}

fn walk(atlas: &Atlas<'_>, seed: u64, tracing: bool, walked: &mut Walked) -> Option<World> {
    let mut found = None;
    go(atlas, seed, tracing, |_, _, world| {
        walked.events += 1;
        found = world.violation.is_some().then_some(*world);
    });
    found
}

fn walk_told(atlas: &Atlas<'_>, seed: u64, steps: &mut Vec<String>) -> &'static str {
    let mut what = None;
    go(atlas, seed, true, |atlas, trace, world| {
        steps.push(trace.told(atlas, world));
        what = world.violation;
    });
    what.expect("the same walk again")
}

fn go(
    atlas: &Atlas<'_>,
    seed: u64,
    tracing: bool,
    mut seen: impl FnMut(&Atlas<'_>, &super::trace::Trace, &World),
) {
    let mut draw = Draw::new(hash_of(("walk", seed)));
    let weights = Weights::draw(&mut draw);
    let mut steps = Steps::new(atlas);
    (steps.plain, steps.forgetful, steps.tracing) = (true, true, tracing);
    let mut start = steps.begin_all(initial(atlas));
    let (_, mut world) = start.swap_remove(draw.below(start.len()));
    for _ in 0..EVENTS_MAX {
        let mut all = happenings(atlas, &world);
        let next = loop {
            if all.is_empty() {
                return;
            }
            let total: u64 = all.iter().map(|what| weights.of(*what)).sum();
            let mut at = draw.next() % total;
            let chosen = all.iter().position(|what| {
                let weight = weights.of(*what);
                let here = at < weight;
                at = at.saturating_sub(weight);
                here
            });
            let what = all.swap_remove(chosen.expect("below the sum"));
            let mut next = steps.happens(&world, what);
            if !next.is_empty() {
                break next.swap_remove(draw.below(next.len()));
            }
        };
        let (trace, after) = next;
        world = after;
        seen(atlas, &trace, &world);
        if world.violation.is_some() {
            return;
        }
    }
}

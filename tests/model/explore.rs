//! Exploring every state of a configuration, depth first. A state that was met before, up to the names of
//! drives, is not explored again. It is known by a 64-bit hash: with ten million states, the chance that
//! two share one is about three in a million.
//!
//! A violation ends the exploration and comes with the steps that lead to it. A bound that is reached
//! fails the exploration: nothing is cut off in silence.

use std::time::{Duration, Instant};

use basalt_engine::request::Request;
use basalt_engine::units::{DriveIndex, Epoch, Slot};

use super::atlas::Atlas;
use super::client::Client;
use super::drive::Drive;
use super::plain::happenings;
use super::rules::{CLIENTS_MAX, DRIVES_MAX, Rules, copy_of, key};
use super::steps::{Steps, Told};
use super::trace::Trace;
use super::world::{At, Decided, World};

/// What an exploration saw.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Explored {
    pub(crate) states: usize,
    pub(crate) transitions: usize,
    pub(crate) depth: usize,
    pub(crate) elapsed: Duration,
}

impl std::fmt::Display for Explored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { states, transitions, depth, elapsed } = self;
        let seconds = elapsed.as_secs_f64();
        write!(f, "{states} states, {transitions} transitions, depth {depth}, {seconds:.1} s")
    }
}

/// What is wrong, and the steps that lead there.
pub(crate) struct Violation {
    pub(crate) what: String,
    pub(crate) steps: Vec<String>,
}

pub(crate) fn explore(rules: &Rules) -> (Explored, Option<Violation>) {
    let atlas = Atlas::new(rules);
    explore_by(&mut Steps::new(&atlas), |steps, world| steps.after(world))
}

/// What is told of all runs, by the steps of `steps` and by single events.
pub(crate) fn told_both_ways(rules: &Rules) -> [(Explored, Told); 2] {
    let told = |plain: bool| {
        let atlas = Atlas::new(rules);
        let mut steps = Steps::new(&atlas);
        (steps.plain, steps.told) = (plain, Some(Told::default()));
        let (explored, violation) = explore_by(&mut steps, |steps, world| match plain {
            true => {
                let all = happenings(steps.atlas, world).into_iter();
                all.flat_map(|what| steps.happens(world, what)).collect()
            }
            false => steps.after(world),
        });
        assert!(violation.is_none(), "explored elsewhere");
        (explored, steps.told.take().expect("put there"))
    };
    [told(false), told(true)]
}

#[expect(clippy::disallowed_methods, reason = "it takes as long as it takes")]
fn explore_by(
    steps: &mut Steps<'_>,
    after: impl Fn(&mut Steps<'_>, &World) -> Vec<(Trace, World)>,
) -> (Explored, Option<Violation>) {
    let started = Instant::now();
    let (atlas, rules) = (steps.atlas, steps.atlas.rules);
    let mut explored = Explored::default();
    let mut path: Vec<World> = Vec::new();
    let first = steps.begin_all(initial(atlas));
    let mut levels: Vec<Vec<World>> = vec![first.into_iter().map(|(_, world)| world).collect()];
    while let Some(level) = levels.last_mut() {
        let Some(world) = level.pop() else {
            levels.pop();
            path.pop();
            continue;
        };
        explored.states += 1;
        if explored.states.is_multiple_of(20_000_000) {
            let (states, depth) = (explored.states, levels.len());
            println!(
                "  {states} states so far, {:.0} s, depth {depth}",
                started.elapsed().as_secs_f64()
            );
        }
        explored.depth = explored.depth.max(levels.len());
        assert!(explored.states <= rules.states_max, "{}: more states than allowed", rules.name);
        path.push(world);
        let next = after(steps, &world).into_iter().map(|(_, world)| world).collect::<Vec<_>>();
        if let Some(world) = next.iter().find(|world| world.violation.is_some()) {
            path.push(*world);
            explored.elapsed = started.elapsed();
            return (explored, Some(violation(atlas, &path)));
        }
        levels.push(next);
    }
    explored.transitions = steps.transitions;
    explored.elapsed = started.elapsed();
    (explored, None)
}

/// Takes the same steps again, and says what they were.
fn violation(atlas: &Atlas<'_>, path: &[World]) -> Violation {
    let again = |step: &[World]| {
        let [before, after] = step else { unreachable!("two states") };
        let mut steps = Steps::new(atlas);
        steps.tracing = true;
        let found = steps.after(before);
        let (trace, world) =
            found.iter().find(|(_, world)| world == after).expect("the step was taken before");
        trace.told(atlas, world)
    };
    let steps = path.windows(2).map(again).collect();
    let last = path.last().expect("a step led here");
    Violation { what: last.violation.expect("it is violated").to_owned(), steps }
}

/// The state in which everything begins: what there is, is settled on every drive.
pub(crate) fn initial(atlas: &Atlas<'_>) -> World {
    let rules = atlas.rules;
    let slot = Slot::first(1);
    let mut decided = Decided::default();
    let mut drives = [At::default(); DRIVES_MAX];
    for (at, place) in drives.iter_mut().enumerate().take(rules.drives) {
        let names = |operation: &usize| {
            rules.records[*operation].payloads().any(|layout| layout.shard_of(at as u8).is_some())
        };
        let named = (0..rules.records.len()).filter(names).fold(0, |mask, bit| mask | 1 << bit);
        let mut drive = Drive::new(named);
        if let Some(operation) = rules.before {
            let record = rules.records[usize::from(operation)].clone();
            let at = DriveIndex(at as u8);
            let copy = basalt_net::proposer::copy_for(&record, at, Some(&copy_of(operation)));
            let epoch = drive.epoch;
            drive.answer(rules, &Request::Learn { epoch, key: key(), slot, record, copy });
            decided.add(slot, operation);
        }
        place.place = atlas.place(drive);
    }
    let mut clients = [0; CLIENTS_MAX];
    for (at, client) in clients.iter_mut().enumerate().take(rules.clients.len()) {
        *client = atlas.client(Client::new(at));
    }
    World {
        drives,
        clients,
        drive_count: rules.drives as u8,
        client_count: rules.clients.len() as u8,
        decided,
        ballots: 0,
        restarts: rules.restarts,
        damages: rules.damages,
        lost: None,
        newest_map: Epoch(1),
        acknowledged: 0,
        posted: false,
        violation: None,
    }
}

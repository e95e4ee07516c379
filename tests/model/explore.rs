//! Exploring every state of a configuration, depth first. A state that was met before, up to the names of
//! drives, is not explored again. It is known by a 64-bit hash: with ten million states, the chance that
//! two share one is about three in a million.
//!
//! A violation ends the exploration and comes with the steps that lead to it. A bound that is reached
//! fails the exploration: nothing is cut off in silence.

use std::rc::Rc;
use std::time::{Duration, Instant};

use basalt_engine::request::Request;
use basalt_engine::units::{DriveIndex, Slot};

use super::client::{Client, Kept};
use super::delivery::{Deliveries, place};
use super::drive::Drive;
use super::message::{Seen, message};
use super::rules::{Rules, copy_of, key};
use super::steps::{Steps, Trace};
use super::world::World;

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

#[expect(clippy::disallowed_methods, reason = "it takes as long as it takes")]
pub(crate) fn explore(rules: &Rules) -> (Explored, Option<Violation>) {
    let started = Instant::now();
    let deliveries = Deliveries::new();
    let mut explored = Explored::default();
    let mut seen: Seen = Seen::default();
    let mut path: Vec<(Trace, World)> = Vec::new();
    let first = Steps::new(rules, &deliveries).begin_all(initial(rules));
    let first =
        first.into_iter().map(|world| (world.canonical(), Trace::default(), world)).collect();
    let mut levels: Vec<Vec<(u64, Trace, World)>> = vec![first];
    while let Some(level) = levels.last_mut() {
        let Some((hash, trace, world)) = level.pop() else {
            levels.pop();
            path.pop();
            continue;
        };
        if !seen.insert(hash) {
            continue;
        }
        explored.states += 1;
        explored.depth = explored.depth.max(levels.len());
        explored.elapsed = started.elapsed();
        assert!(explored.states <= rules.states_max, "{}: more states than allowed", rules.name);
        path.push((trace, world));
        let (_, world) = path.last().expect("just put there");
        let mut next = Steps::new(rules, &deliveries).after(world);
        explored.transitions += next.len();
        if let Some(at) = next.iter().position(|(_, world)| world.violation.is_some()) {
            path.push(next.swap_remove(at));
            return (explored, Some(violation(&path)));
        }
        let next = next.into_iter().map(|(trace, world)| (world.canonical(), trace, world));
        levels.push(next.filter(|(hash, ..)| !seen.contains(hash)).collect());
    }
    explored.elapsed = started.elapsed();
    (explored, None)
}

fn violation(path: &[(Trace, World)]) -> Violation {
    let steps = path.iter().map(|(trace, world)| trace.told(world)).collect();
    let (_, last) = path.last().expect("a step led here");
    Violation { what: last.violation.clone().expect("it is violated"), steps }
}

/// The state in which everything begins: what there is, is settled on every drive.
fn initial(rules: &Rules) -> World {
    let slot = Slot::first(1);
    let maps = Rc::new(rules.maps(None)[..1].to_vec());
    let drives = (0..rules.drives).map(|at| {
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
            let learn = Request::Learn { epoch, key: key(), slot, record, copy };
            drive.answer(rules, &maps, &message(learn));
        }
        place(drive)
    });
    let clients = rules.clients.iter().map(|_| Kept::new(Client::new(), rules.drives));
    World {
        drives: drives.collect(),
        clients: clients.collect(),
        sent: vec![Default::default(); rules.clients.len() * rules.drives],
        stale: vec![Rc::default(); rules.drives],
        decided: rules.before.map(|operation| (slot, operation)).into_iter().collect(),
        ballots: 0,
        restarts: rules.restarts,
        damages: rules.damages,
        lost: None,
        maps,
        violation: None,
    }
}

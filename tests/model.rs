//! The slot protocol, explored exhaustively: every state that a few clients and drives can reach, by any
//! order and loss of messages, with restarts and a replaced drive, is visited and judged.
//!
//! Drives are the product's acceptors (`engine::acceptor::KeyState`), clients its machines (`net::lookup`,
//! `net::update` and what they are made of); the model adds what is around them. Reading order: `rules`
//! says what a configuration is, `drive` and `client` are the two sides, `delivery` and `steps` say what
//! can happen next and why nothing else matters, `world` what a state is and what must hold in it.
//!
//! `BASALT_MODEL=long` explores the configurations of the long form as well. What is covered stands in
//! `docs/protocol.md`, how to read the output in `docs/testing.md`.

#![expect(clippy::print_stdout, reason = "what was explored is the result of these tests")]

#[path = "model/atlas.rs"]
mod atlas;
#[path = "model/canaries.rs"]
mod canaries;
#[path = "model/client.rs"]
mod client;
#[path = "model/delivery.rs"]
mod delivery;
#[path = "model/drive.rs"]
mod drive;
#[path = "model/explore.rs"]
mod explore;
#[path = "model/losing.rs"]
mod losing;
#[path = "model/message.rs"]
mod message;
#[path = "model/plain.rs"]
mod plain;
#[path = "model/rules.rs"]
mod rules;
#[path = "model/setups.rs"]
mod setups;
#[path = "model/shell.rs"]
mod shell;
#[path = "model/steps.rs"]
mod steps;
#[path = "model/trace.rs"]
mod trace;
#[path = "model/walk.rs"]
mod walk;
#[path = "model/world.rs"]
mod world;

use explore::{explore, told_both_ways};
use rules::Rules;
use walk::walk_all;

/// Walks of every run, and of the long form.
const WALKS: u64 = 20_000;
const WALKS_LONG: u64 = 5_000_000;

fn is_long() -> bool {
    std::env::var("BASALT_MODEL").is_ok_and(|form| form == "long")
}

/// Explores every state of each configuration, in which nothing may be violated.
fn explore_all(short: Vec<Rules>, long: Vec<Rules>) {
    let only = std::env::var("BASALT_MODEL_ONLY").unwrap_or_default();
    let long = if is_long() { long } else { Vec::new() };
    for rules in short.into_iter().chain(long) {
        let name = format!("D = {}, {}", rules.drives, rules.name);
        if !name.contains(&only) {
            continue;
        }
        let (explored, violation) = explore(&rules);
        if let Some(violation) = violation {
            violation.steps.iter().enumerate().for_each(|(at, step)| println!("  {at}: {step}"));
            panic!("{name}: {}", violation.what);
        }
        println!("{name}: {explored}");
    }
}

#[test]
fn races() {
    explore_all(setups::races(), setups::races_long());
}

#[test]
fn faults() {
    explore_all(setups::faults(), setups::faults_long());
}

/// Walks through configurations with everything in them, in which nothing may be violated.
#[test]
fn walks() {
    let number = |name: &str| std::env::var(name).ok().and_then(|number| number.parse().ok());
    let usual = if is_long() { WALKS_LONG } else { WALKS };
    let (first, walks) = match number("BASALT_WALK") {
        Some(seed) => (seed, 1),
        None => (number("BASALT_WALK_FIRST").unwrap_or(0), number("BASALT_WALKS").unwrap_or(usual)),
    };
    let (walked, violation) = walk_all(first, walks, |rules| rules);
    if let Some((seed, violation)) = violation {
        violation.steps.iter().enumerate().for_each(|(at, step)| println!("  {at}: {step}"));
        println!("BASALT_WALK={seed} cargo test --release -p basalt-tests --test model walks");
        panic!("walk {seed}, {}", violation.what);
    }
    println!("{} walks from {first}, {} events", walked.walks, walked.events);
}

/// Each mistake is met by walks as well.
#[test]
fn walking_canaries() {
    for canary in canaries::all() {
        let (walked, violation) = walk_all(0, WALKS_LONG, &canary.wrong);
        let (_, found) = violation.unwrap_or_else(|| panic!("no walk met {}", canary.name));
        println!("{}: after {} walks, {}", canary.name, walked.walks, found.what);
    }
}

/// What the steps put together and leave out makes no difference that anybody could tell.
#[test]
fn reductions() {
    for rules in setups::small() {
        let [(by_steps, told), (one_by_one, told_one_by_one)] = told_both_ways(&rules);
        let (drives, name) = (rules.drives, &rules.name);
        let (came, decided) = (told.came.len(), told.decided.len());
        println!("D = {drives}, {name}: {came} ends of clients, {decided} histories");
        println!("  by steps: {by_steps}");
        println!("  by events: {one_by_one}");
        assert!(told == told_one_by_one, "by steps {told:#?}, by events {told_one_by_one:#?}");
    }
}

/// Each mistake is noticed in a configuration that is explored without one above.
#[test]
fn canaries() {
    for canary in canaries::all() {
        let Rules { name, drives, .. } = &canary.right;
        let explored_above = [setups::races(), setups::faults()].concat();
        let right =
            explored_above.iter().any(|rules| (&rules.name, &rules.drives) == (name, drives));
        assert!(right, "{name} at {drives} drives is not explored without the mistake");
        let (explored, violation) = explore(&(canary.wrong)(canary.right.clone()));
        let found = violation.unwrap_or_else(|| panic!("{} was not noticed", canary.name));
        let (states, steps) = (explored.states, found.steps.len());
        println!("{}: D = {drives}, {name}: after {states} states, {steps} steps", canary.name);
        println!("  {}", found.what);
    }
}

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
#[path = "model/message.rs"]
mod message;
#[path = "model/rules.rs"]
mod rules;
#[path = "model/setups.rs"]
mod setups;
#[path = "model/shell.rs"]
mod shell;
#[path = "model/steps.rs"]
mod steps;
#[path = "model/world.rs"]
mod world;

use explore::explore;
use rules::Rules;

/// Explores every state of each configuration, in which nothing may be violated.
fn explore_all(short: Vec<Rules>, long: Vec<Rules>) {
    let is_long = std::env::var("BASALT_MODEL").is_ok_and(|form| form == "long");
    let long = if is_long { long } else { Vec::new() };
    for rules in short.into_iter().chain(long) {
        let (explored, violation) = explore(&rules);
        if let Some(violation) = violation {
            violation.steps.iter().enumerate().for_each(|(at, step)| println!("  {at}: {step}"));
            panic!("{}, {} drives: {}", rules.name, rules.drives, violation.what);
        }
        println!("D = {}, {}: {explored}", rules.drives, rules.name);
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

/// Each mistake is noticed in a configuration that is explored without one above.
#[test]
fn canaries() {
    for canary in canaries::all() {
        let Rules { name, drives, .. } = &canary.right;
        let explored_above = [setups::races(), setups::faults()].concat();
        let right =
            explored_above.iter().any(|rules| (&rules.name, &rules.drives) == (name, drives));
        assert!(right, "{name} at {drives} drives is not explored without the mistake");
        let (explored, violation) = explore(&canary.wrong);
        let found = violation.unwrap_or_else(|| panic!("{} was not noticed", canary.name));
        let (states, steps) = (explored.states, found.steps.len());
        println!("{}: D = {drives}, {name}: after {states} states, {steps} steps", canary.name);
        println!("  {}", found.what);
    }
}

//! `cargo xtask bench --nodes`: what several nodes cost next to one, and what a dead or a slow one does
//! to the others.
//!
//! All nodes, their drives and the client share this machine: two cores and one volume. What a node is
//! spared another has to do on the same cores, so rates say nothing of a cluster; CPU is that of all
//! nodes together, and tells what the way between them costs. A node that hardly runs is frozen for 90
//! of every 100 ms: it stands for one whose drives are slow.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use super::Options;
use super::history::{Row, median};
use super::work::{Plan, Target, Work};
use crate::chaos::Ground;
use crate::fleet::{Fleet, Shape};
use crate::server::{self, Launch, Layout, Server};
use crate::verdict::Verdict;

const SHAPE: Shape = Shape { nodes: 4, drives: 4, parity: 4 };
/// The one that is killed and frozen; clients are at the first.
const VICTIM: usize = SHAPE.nodes - 1;
const KINDS: [Work; 4] = [Work::PutSmall, Work::GetSmall, Work::PutLarge, Work::GetLarge];
/// Few, so that latencies tell of the nodes and not of the queue for two cores.
const CONNECTIONS: usize = 2;
const READY: Duration = Duration::from_secs(60);
const WHOLE: Duration = Duration::from_secs(300);
const FROZEN: Duration = Duration::from_millis(90);
const RUNNING: Duration = Duration::from_millis(10);

/// What is measured, in the order of the table's columns.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum State {
    OneNode,
    Whole,
    NodeDead,
    NodeSlow,
}

const STATES: [State; 4] = [State::OneNode, State::Whole, State::NodeDead, State::NodeSlow];

#[derive(Default)]
struct Table {
    metrics: Vec<(&'static str, &'static str)>,
    values: BTreeMap<(&'static str, State), Vec<f64>>,
}

pub(super) fn run(options: &Options, folder: &Path) -> Result<Verdict> {
    let program = server::program(None)?;
    let (mut one, _server) = one_node(&program, &folder.join("one"))?;
    let ground = Ground::prepare(SHAPE.nodes)?;
    let mut fleet = Fleet::new(&program, &folder.join("nodes"), SHAPE, ground)?;
    fleet.start(fleet.nodes())?;
    fleet.await_ready(READY)?;
    fleet.await_whole(WHOLE)?;
    let mut four = target(&fleet)?;
    let seconds = options.seconds.unwrap_or(if options.short { 2 } else { 8 });
    let plan = Plan {
        window: Duration::from_secs(seconds),
        listed_keys: 0,
        profile: false,
        connections: CONNECTIONS,
    };
    let mut table = Table::default();
    for round in 0..options.rounds {
        println!("round {} of {}", round + 1, options.rounds);
        table.measure(State::OneNode, &mut one, &plan, round)?;
        table.measure(State::Whole, &mut four, &plan, round)?;
        fleet.kill([VICTIM])?;
        four.pids = pids(&fleet);
        // Names of their own, so that no round writes what another has.
        table.measure(State::NodeDead, &mut four, &plan, options.rounds + round)?;
        fleet.start([VICTIM])?;
        fleet.await_ready(READY)?;
        fleet.settle(WHOLE).context("after a node was dead")?;
        four.pids = pids(&fleet);
        let slowed = slowed(fleet.server(VICTIM), || {
            table.measure(State::NodeSlow, &mut four, &plan, 2 * options.rounds + round)
        });
        slowed?;
        fleet.settle(WHOLE).context("after a node was slow")?;
    }
    println!("\n{}", table.text());
    Ok(Verdict { passed: table.values.len() as u64, failed: 0 })
}

fn one_node(program: &Path, folder: &Path) -> Result<(Target, Server)> {
    let launch = Launch::new(program, folder, Layout::SIXTEEN)?;
    let mut server = launch.start()?;
    server.await_ready(READY)?;
    let target = Target::new(launch.address, launch.credentials.clone(), vec![server.pid()])?;
    Ok((target, server))
}

fn target(fleet: &Fleet) -> Result<Target> {
    let first = &fleet.launches[0];
    Target::new(first.address, first.credentials.clone(), pids(fleet))
}

fn pids(fleet: &Fleet) -> Vec<u32> {
    let up = fleet.nodes().filter(|node| fleet.is_up(*node));
    up.map(|node| fleet.server(node).pid()).collect()
}

/// Runs `measure` while the server gets a tenth of its time.
fn slowed<T>(server: &Server, measure: impl FnOnce() -> Result<T>) -> Result<T> {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let freezing = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                server.signal("-STOP")?;
                thread::sleep(FROZEN);
                server.signal("-CONT")?;
                thread::sleep(RUNNING);
            }
            Ok(())
        });
        let measured = measure();
        over.store(true, Ordering::Relaxed);
        freezing.join().expect("it sends signals").and(measured)
    })
}

impl Table {
    fn measure(
        &mut self,
        state: State,
        target: &mut Target,
        plan: &Plan,
        round: u32,
    ) -> Result<()> {
        println!(" {state:?}");
        for kind in KINDS {
            for Row { metric, unit, value } in kind.run(target, plan, round)? {
                if !self.metrics.contains(&(metric, unit)) {
                    self.metrics.push((metric, unit));
                }
                self.values.entry((metric, state)).or_default().push(value);
            }
        }
        Ok(())
    }

    fn text(&self) -> String {
        let mut text = String::from(
            "| median | unit | one node | four nodes | one of four dead | one of four slow |\n\
             |---|---|---:|---:|---:|---:|\n",
        );
        for (metric, unit) in &self.metrics {
            text.push_str(&format!("| {metric} | {unit} |"));
            for state in STATES {
                let value = self.values.get(&(*metric, state)).map_or(f64::NAN, |of| median(of));
                text.push_str(&format!(" {value:.2} |"));
            }
            text.push('\n');
        }
        text
    }
}

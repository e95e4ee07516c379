//! Four nodes with four drives each under load meet one fault after the other: killed, all at once or
//! one; frozen, for good or in beats; cut off, in one direction or both; a drive destroyed.
//!
//! After each fault is over, the cluster is whole within [`WHOLE_LIMIT`]: every node answers, and sees
//! every drive. While one node is at fault, no other pauses for longer than [`GAP_LIMIT`]. What is
//! answered at any time is judged by the register and the chains; at the end everything settles, and all
//! is read through every node, before and after all of them are killed once more.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::chain::Chains;
use super::drives::overwrite;
use super::ground::Ground;
use super::load::{Complaints, Failures, Field, make_bucket, under_load};
use super::register::{Register, total};
use crate::fleet::{Fleet, Shape};
use crate::random::Random;
use crate::verdict::Verdict;

const SHAPE: Shape = Shape { nodes: 4, drives: 4, parity: 4 };
const BUCKET: &str = "faults";
const CHAINS_BUCKET: &str = "chains";
const KEYS: usize = 256;
const WRITERS: usize = 8;
const READERS: usize = 8;
const START_LIMIT: Duration = Duration::from_secs(60);
const WHOLE_LIMIT: Duration = Duration::from_secs(30);
const FENCE_LIMIT: Duration = Duration::from_secs(10);
const REFILL_LIMIT: Duration = Duration::from_secs(180);
const SETTLE_LIMIT: Duration = Duration::from_secs(180);
const PROGRESS_LIMIT: Duration = Duration::from_secs(20);
const GAP_LIMIT: Duration = Duration::from_secs(10);
/// The load goes on for so long when all is whole again.
const TAIL: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    KillNode,
    KillAll,
    /// Stopped, and let go on.
    Freeze,
    /// Stopped nine tenths of the time: every request takes its turn.
    Stutter,
    /// Nothing of a node reaches its peers.
    CutOut,
    /// Nothing reaches a node from its peers.
    CutIn,
    CutOff,
    /// Two nodes do not reach each other; all others reach both.
    CutPair,
    RemoveDrive,
    OverwriteDrive,
}

const FAULTS: [Fault; 10] = [
    Fault::KillNode,
    Fault::KillAll,
    Fault::Freeze,
    Fault::Stutter,
    Fault::CutOut,
    Fault::CutIn,
    Fault::CutOff,
    Fault::CutPair,
    Fault::RemoveDrive,
    Fault::OverwriteDrive,
];

impl Fault {
    fn needs_networks(self) -> bool {
        matches!(self, Self::CutOut | Self::CutIn | Self::CutOff | Self::CutPair)
    }

    /// What it takes is gone for good: it may strike only where nothing else is missing.
    fn destroys(self) -> bool {
        matches!(self, Self::RemoveDrive | Self::OverwriteDrive)
    }
}

/// What came of a fault.
#[derive(Debug, Default)]
struct Struck {
    what: String,
    /// Nodes that may have paused.
    hit: Vec<usize>,
    died: Vec<usize>,
    whole_after: Duration,
}

pub(crate) fn run(
    program: &Path,
    folder: &Path,
    seed: u64,
    short: bool,
    cycles: Option<u32>,
) -> Verdict {
    let register = Register::new(seed, KEYS);
    let chains = Chains::new(CHAINS_BUCKET);
    let complaints = Complaints::default();
    let mut verdict = Verdict::default();
    let ended = (|| {
        let fleet = Fleet::new(program, folder, SHAPE, Ground::prepare(SHAPE.nodes)?)?;
        let ways = fleet.launches.clone();
        let field =
            Field { ways: &ways, bucket: BUCKET, register: &register, complaints: &complaints };
        let random = Random::new(seed, 9_000_000);
        let storm = Storm { fleet, field, chains: &chains, random, short, seed };
        storm.run(cycles, &mut verdict)
    })();
    verdict.check(&format!("{SHAPE}: everything settles, and is read through every node"), ended);
    let tally = &register.tally;
    let (lost, wrong) = (total(&tally.lost), total(&tally.wrong));
    let line = format!(
        "acknowledged {}, unknown {}, verified {}, lost = {lost}, wrong = {wrong}",
        total(&tally.acknowledged),
        total(&tally.unknown),
        total(&tally.verified)
    );
    println!("{line}");
    let sound = lost == 0 && wrong == 0 && total(&tally.acknowledged) > 0;
    let outcome = if sound { Ok(String::new()) } else { Err(anyhow::anyhow!(line)) };
    verdict.check(&format!("{SHAPE}: nothing acknowledged lost, nothing wrong"), outcome);
    verdict
}

struct Storm<'a> {
    fleet: Fleet,
    field: Field<'a>,
    chains: &'a Chains,
    random: Random,
    short: bool,
    seed: u64,
}

impl Storm<'_> {
    fn run(mut self, cycles: Option<u32>, verdict: &mut Verdict) -> Result<String> {
        self.fleet.start(self.fleet.nodes())?;
        let formed = self.fleet.await_ready(START_LIMIT).context("the first start")?;
        println!("formed after {} ms", formed.as_millis());
        for bucket in [BUCKET, CHAINS_BUCKET] {
            make_bucket(&self.fleet.launches[0], bucket)?;
        }
        let mut faults: Vec<Fault> = FAULTS.to_vec();
        if !self.fleet.ground.can_be_cut() {
            faults.retain(|fault| !fault.needs_networks());
            println!("SKIPPED: partitions, on loopback ports");
        }
        let cycles = cycles.unwrap_or(if self.short { faults.len() as u32 } else { 200 });
        for cycle in 0..cycles {
            let turn = cycle as usize % faults.len();
            if turn == 0 {
                self.random.shuffle(&mut faults);
            }
            let outcome = self.cycle(cycle, faults[turn]);
            let has_failed = outcome.is_err();
            verdict.check(&format!("fault {} of {cycles}, {:?}", cycle + 1, faults[turn]), outcome);
            ensure!(!has_failed, "given up after fault {}", cycle + 1);
        }
        self.end()
    }

    fn cycle(&mut self, cycle: u32, fault: Fault) -> Result<String> {
        if fault.destroys() {
            self.settle().context("before a drive is destroyed")?;
        }
        let failures = Failures::default();
        let seed = self.seed.wrapping_add(u64::from(cycle) << 32);
        let (field, chains) = (&self.field, self.chains);
        let (fleet, random, short) = (&mut self.fleet, &mut self.random, self.short);
        let struck = under_load(field, WRITERS, READERS, seed, &failures, || {
            chains.under_changes(field.ways, seed, &failures, || {
                await_progress(&failures)?;
                let mut struck =
                    strike(fleet, random, short, fault).with_context(|| format!("{fault:?}"))?;
                struck.whole_after = fleet.await_whole(WHOLE_LIMIT)?;
                thread::sleep(TAIL);
                Ok::<_, anyhow::Error>((struck, Instant::now()))
            })
        });
        let (Struck { what, hit, died, whole_after }, ended) = struck?;
        for node in died {
            field.register.node_died(node);
        }
        let gap = failures.longest_gap(ended, |way| !hit.contains(&way));
        ensure!(gap < GAP_LIMIT, "{what}: another node paused for {} ms", gap.as_millis());
        self.fleet.ensure_alive()?;
        let through = cycle as usize % SHAPE.nodes;
        self.field.verify_through(through).with_context(|| format!("after {what}"))?;
        self.ensure_sound()?;
        Ok(format!(
            "{what}; whole after {} ms, {} written, {} read, {} failed, others paused {} ms at most",
            whole_after.as_millis(),
            total(&failures.written),
            total(&failures.read),
            total(&failures.writes) + total(&failures.reads) + total(&failures.changes),
            gap.as_millis()
        ))
    }

    fn ensure_sound(&self) -> Result<()> {
        let tally = &self.field.register.tally;
        ensure!(total(&tally.lost) + total(&tally.wrong) == 0, "something is lost or wrong");
        Ok(())
    }

    fn settle(&self) -> Result<Duration> {
        let took = self.fleet.settle(SETTLE_LIMIT)?;
        self.field.register.all_settled();
        Ok(took)
    }

    fn end(&mut self) -> Result<String> {
        let took = self.settle().context("at the end")?;
        self.field.verify_all().context("at the end")?;
        self.fleet.kill(self.fleet.nodes())?;
        for node in self.fleet.nodes() {
            self.field.register.node_died(node);
        }
        self.fleet.start(self.fleet.nodes())?;
        self.fleet.await_ready(START_LIMIT)?;
        self.settle().context("after all were killed")?;
        self.field.verify_all().context("after all were killed")?;
        let lengths = self.chains.check(&self.fleet.launches[0])?;
        Ok(format!(
            "after {} ms; {} conditional writes in chains, {} reads of them, in order",
            took.as_millis(),
            lengths.writes,
            lengths.reads
        ))
    }
}

/// A fault before anything was written would prove nothing.
fn await_progress(failures: &Failures) -> Result<()> {
    let deadline = Instant::now() + PROGRESS_LIMIT;
    while total(&failures.written) < 2 * WRITERS as u64 {
        ensure!(Instant::now() < deadline, "nearly nothing was acknowledged");
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Makes a fault and ends it; whether the cluster is whole again is for the caller to find out.
fn strike(fleet: &mut Fleet, random: &mut Random, short: bool, fault: Fault) -> Result<Struck> {
    let nodes = fleet.shape.nodes;
    let node = random.index(nodes);
    let shown = node + 1;
    match fault {
        Fault::KillNode => {
            let down = spell(random, if short { 5 } else { 12 });
            fleet.kill([node])?;
            thread::sleep(down);
            restart(fleet, random, &[node])?;
            let what = format!("node {shown} killed, down for {} ms", down.as_millis());
            Ok(Struck { what, hit: vec![node], died: vec![node], ..Struck::default() })
        }
        Fault::KillAll => {
            fleet.kill(fleet.nodes())?;
            let all: Vec<usize> = fleet.nodes().collect();
            restart(fleet, random, &all)?;
            let what = "all nodes killed".to_owned();
            Ok(Struck { what, hit: all.clone(), died: all, ..Struck::default() })
        }
        Fault::Freeze => {
            let frozen = spell(random, if short { 8 } else { 30 });
            fleet.server(node).signal("-STOP")?;
            thread::sleep(frozen);
            fleet.server(node).signal("-CONT")?;
            let what = format!("node {shown} frozen for {} ms", frozen.as_millis());
            Ok(Struck { what, hit: vec![node], ..Struck::default() })
        }
        Fault::Stutter => {
            let beats = if short { 30 } else { 60 };
            for _ in 0..beats {
                fleet.server(node).signal("-STOP")?;
                thread::sleep(Duration::from_millis(90));
                fleet.server(node).signal("-CONT")?;
                thread::sleep(Duration::from_millis(10));
            }
            let what = format!("node {shown} frozen {beats} times for 90 of 100 ms");
            Ok(Struck { what, hit: vec![node], ..Struck::default() })
        }
        Fault::CutOut | Fault::CutIn | Fault::CutOff | Fault::CutPair => {
            cut(fleet, random, short, fault, node)
        }
        Fault::RemoveDrive | Fault::OverwriteDrive => destroy(fleet, random, fault, node),
    }
}

/// Longer than it takes until a link is cut, mostly.
fn spell(random: &mut Random, most_seconds: u64) -> Duration {
    Duration::from_millis(500 + random.below(most_seconds * 1000 - 500))
}

/// Starts nodes that were killed, now and then twice: the second time in the midst of their recovery.
fn restart(fleet: &mut Fleet, random: &mut Random, nodes: &[usize]) -> Result<()> {
    fleet.start(nodes.iter().copied())?;
    if random.one_in(3) {
        thread::sleep(Duration::from_millis(random.below(1000)));
        fleet.kill(nodes.iter().copied())?;
        fleet.start(nodes.iter().copied())?;
    }
    fleet.await_ready(WHOLE_LIMIT)?;
    Ok(())
}

fn cut(
    fleet: &Fleet,
    random: &mut Random,
    short: bool,
    fault: Fault,
    node: usize,
) -> Result<Struck> {
    let nodes = fleet.shape.nodes;
    let other = (node + 1 + random.index(nodes - 1)) % nodes;
    let cut_for = spell(random, if short { 8 } else { 20 });
    for peer in fleet.nodes().filter(|peer| *peer != node) {
        let is_meant = fault != Fault::CutPair || peer == other;
        if is_meant && fault != Fault::CutIn {
            fleet.ground.cut(node, peer)?;
        }
        if is_meant && fault != Fault::CutOut {
            fleet.ground.cut(peer, node)?;
        }
    }
    thread::sleep(cut_for);
    fleet.ground.heal()?;
    let what = match fault {
        Fault::CutOut => format!("node {} is not heard", node + 1),
        Fault::CutIn => format!("node {} hears nothing", node + 1),
        Fault::CutPair => format!("nodes {} and {} do not reach each other", node + 1, other + 1),
        _ => format!("node {} cut off", node + 1),
    };
    let what = format!("{what} for {} ms", cut_for.as_millis());
    let hit = if fault == Fault::CutPair { vec![node, other] } else { vec![node] };
    Ok(Struck { what, hit, ..Struck::default() })
}

fn destroy(fleet: &Fleet, random: &mut Random, fault: Fault, node: usize) -> Result<Struck> {
    let drive = random.index(fleet.shape.drives);
    let path = fleet.drive(node, drive);
    let shown = path.to_string_lossy();
    let server = fleet.server(node);
    let mark = server.log_mark();
    let begun = Instant::now();
    match fault {
        Fault::RemoveDrive => fs::remove_dir_all(&path).context("removing a drive")?,
        _ => overwrite(&path, random.next())?,
    }
    server.await_line(mark, &["drive fenced", &shown], FENCE_LIMIT)?;
    let fenced_after = begun.elapsed();
    if fault == Fault::OverwriteDrive {
        server.await_line(mark, &["drive stays down", &shown], FENCE_LIMIT)?;
        fs::remove_dir_all(&path).context("removing an overwritten drive")?;
    }
    let begun = Instant::now();
    fs::create_dir(&path).context("an empty drive")?;
    server.await_line(mark, &["drive refilled", &shown], REFILL_LIMIT)?;
    let what = format!(
        "drive {} of node {} destroyed, fenced after {} ms, refilled after {} ms",
        drive + 1,
        node + 1,
        fenced_after.as_millis(),
        begun.elapsed().as_millis()
    );
    Ok(Struck { what, ..Struck::default() })
}

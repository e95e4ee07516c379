//! Eight nodes with one drive each, half of which may be lost: with four down every object is read, with
//! five up new ones are taken, and with four up those are refused by a text that names the set and how
//! many drives are missing.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::ground::Ground;
use super::load::{Complaints, Field, make_bucket, pause, refusal};
use super::register::{Register, total};
use crate::fleet::{Fleet, Shape};
use crate::random::Random;
use crate::s3::Request;
use crate::verdict::Verdict;

const SHAPE: Shape = Shape { nodes: 8, drives: 1, parity: 4 };
const BUCKET: &str = "quorum";
const KEYS: usize = 96;
const START_LIMIT: Duration = Duration::from_secs(60);
const SETTLE_LIMIT: Duration = Duration::from_secs(120);
/// Until nodes that died count as dead, and those that came back as alive.
const NOTICE_LIMIT: Duration = Duration::from_secs(15);

pub(crate) fn run(program: &Path, folder: &Path, seed: u64) -> Verdict {
    let register = Register::new(seed, KEYS);
    let complaints = Complaints::default();
    let mut verdict = Verdict::default();
    let ended = (|| {
        let fleet = Fleet::new(program, folder, SHAPE, Ground::prepare(SHAPE.nodes)?)?;
        let ways = fleet.launches.clone();
        let field =
            Field { ways: &ways, bucket: BUCKET, register: &register, complaints: &complaints };
        descend(fleet, &field, seed, &mut verdict)?;
        let bad = total(&register.tally.lost) + total(&register.tally.wrong);
        ensure!(bad == 0, "{bad} answers were wrong");
        Ok(format!("acknowledged {}", total(&register.tally.acknowledged)))
    })();
    verdict.check(&format!("{SHAPE}: all back, nothing lost, nothing wrong"), ended);
    verdict
}

fn descend(mut fleet: Fleet, field: &Field<'_>, seed: u64, verdict: &mut Verdict) -> Result<()> {
    let mut random = Random::new(seed, 8_100_000);
    fleet.start(fleet.nodes())?;
    fleet.await_ready(START_LIMIT).context("the first start")?;
    make_bucket(&fleet.launches[0], BUCKET)?;
    write_all(field, &mut random, &fleet.nodes().collect::<Vec<_>>())?;
    fleet.settle(SETTLE_LIMIT)?;
    let mut order: Vec<usize> = fleet.nodes().collect();
    random.shuffle(&mut order);
    let (down, up) = order.split_at(SHAPE.nodes / 2);
    fleet.kill(down.iter().copied())?;
    for node in down {
        field.register.node_died(*node);
    }
    let read = up.iter().try_for_each(|node| {
        field.verify_through(*node).with_context(|| format!("through node {}", node + 1))
    });
    verdict.check(&format!("{SHAPE}: 4 down, all is read"), read.map(|()| String::new()));
    for node in up {
        let refused = ensure_refused(field, *node);
        verdict.check(&format!("{SHAPE}: 4 up, node {} refuses writes", node + 1), refused);
    }
    fleet.start([down[0]])?;
    fleet.await_ready(START_LIMIT).context("with 5 up")?;
    let up: Vec<usize> = up.iter().copied().chain([down[0]]).collect();
    let taken = write_all(field, &mut random, &up);
    let taken = taken.and_then(|()| up.iter().try_for_each(|node| field.verify_through(*node)));
    verdict.check(&format!("{SHAPE}: 5 up, new objects are taken"), taken.map(|()| String::new()));
    fleet.start(down[1..].iter().copied())?;
    fleet.await_ready(START_LIMIT).context("with all up again")?;
    let took = fleet.settle(SETTLE_LIMIT)?;
    field.register.all_settled();
    println!("settled after {} ms", took.as_millis());
    field.verify_all()
}

/// Writes every key once, through the nodes in turn. What is refused at first is tried again for a while:
/// it takes nodes a moment to see that others have died, or come back.
fn write_all(field: &Field<'_>, random: &mut Random, nodes: &[usize]) -> Result<()> {
    let mut clients: Vec<_> = nodes.iter().map(|node| field.client_through(*node)).collect();
    for key in 0..KEYS {
        let deadline = Instant::now() + NOTICE_LIMIT;
        let via = &mut clients[key % nodes.len()];
        while let Err(why) = field.write(via, key, random) {
            ensure!(Instant::now() < deadline, "through node {}: {why}", via.way + 1);
            pause();
        }
    }
    Ok(())
}

fn ensure_refused(field: &Field<'_>, node: usize) -> Result<String> {
    let mut client = field.client_through(node).client;
    let (status, text) = refusal(&mut client, &Request::new("PUT", BUCKET, "refused").body(b"x"))?;
    ensure!(status == 503, "a PUT was answered {status}: {text}");
    let text = text.to_lowercase();
    ensure!(text.contains("set 0"), "the text does not name the set: {text}");
    ensure!(text.contains("1 more drive"), "the text does not say that one is missing: {text}");
    Ok(String::new())
}

//! Two clusters side by side on one machine do not disturb each other; and a node that does not belong
//! to its cluster is refused: both sides say why, and the cluster goes on without it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::ground::Ground;
use super::load::{Complaints, Failures, Field, make_bucket, under_load};
use super::register::{Register, total};
use crate::fleet::{Fleet, Shape};
use crate::random::Random;
use crate::server::Launch;
use crate::verdict::Verdict;

/// With one node down it still writes.
const SHAPE: Shape = Shape { nodes: 3, drives: 2, parity: 3 };
const BUCKETS: [&str; 2] = ["one", "two"];
const KEYS: usize = 64;
const THREADS: usize = 4;
const START_LIMIT: Duration = Duration::from_secs(60);
const SETTLE_LIMIT: Duration = Duration::from_secs(120);
const TELL_LIMIT: Duration = Duration::from_secs(30);
/// The node that is started in a way in which it should not be.
const STRANGER: usize = 2;

pub(crate) fn run(program: &Path, folder: &Path, seed: u64) -> Verdict {
    let registers = [Register::new(seed, KEYS), Register::new(!seed, KEYS)];
    let complaints = Complaints::default();
    let mut verdict = Verdict::default();
    let ended = (|| {
        let mut fleets = Vec::new();
        for (name, ground) in BUCKETS.into_iter().zip(Ground::two_of_ports(SHAPE.nodes)?) {
            fleets.push(Fleet::new(program, &folder.join(name), SHAPE, ground)?);
        }
        for fleet in &mut fleets {
            fleet.start(fleet.nodes())?;
        }
        for (fleet, bucket) in fleets.iter_mut().zip(BUCKETS) {
            fleet.await_ready(START_LIMIT)?;
            make_bucket(&fleet.launches[0], bucket)?;
        }
        let ways: Vec<_> = fleets.iter().map(|fleet| fleet.launches.clone()).collect();
        let field = |which: usize| Field {
            ways: &ways[which],
            bucket: BUCKETS[which],
            register: &registers[which],
            complaints: &complaints,
        };
        let [one, two] = &mut fleets[..] else { unreachable!("two clusters") };
        let undisturbed = side_by_side(one, &field(0), &field(1), seed);
        verdict.check("a cluster beside one that dies is not disturbed", undisturbed);
        two.stop(two.nodes())?;
        strangers(one, &field(0), seed, &mut verdict)?;
        one.settle(SETTLE_LIMIT)?;
        field(0).verify_all()?;
        two.start(two.nodes())?;
        two.await_ready(START_LIMIT)?;
        two.settle(SETTLE_LIMIT)?;
        field(1).verify_all()?;
        let bad = registers.iter().map(|of| total(&of.tally.lost) + total(&of.tally.wrong));
        let bad: u64 = bad.sum();
        ensure!(bad == 0, "{bad} answers were lost or wrong");
        Ok(String::new())
    })();
    verdict.check("both clusters have everything", ended);
    verdict
}

/// The first cluster is killed and starts again, while the second one works without a failure.
fn side_by_side(
    one: &mut Fleet,
    first: &Field<'_>,
    second: &Field<'_>,
    seed: u64,
) -> Result<String> {
    let (disturbed, undisturbed) = (Failures::default(), Failures::default());
    under_load(second, THREADS, THREADS, seed, &undisturbed, || {
        under_load(first, THREADS, THREADS, !seed, &disturbed, || {
            std::thread::sleep(Duration::from_secs(1));
            one.kill(one.nodes())?;
            one.start(one.nodes())?;
            one.await_ready(START_LIMIT).map(|_| ())
        })
    })?;
    for node in one.nodes() {
        first.register.node_died(node);
    }
    undisturbed.ensure_no_read_failed()?;
    let (written, failed) = (total(&undisturbed.written), total(&undisturbed.writes));
    ensure!(failed == 0 && written > 0, "{failed} writes failed, {written} did not");
    Ok(format!("{written} written, {} read", total(&undisturbed.read)))
}

fn strangers(fleet: &mut Fleet, field: &Field<'_>, seed: u64, verdict: &mut Verdict) -> Result<()> {
    let right = fleet.launches[STRANGER].clone();
    let mut wrong = right.clone();
    wrong.credentials.secret = "another-secret".into();
    let found = refused(fleet, wrong, "its root user or password is another one", field, seed);
    verdict.check("a node with another password is refused", found);
    let mut wrong = right.clone();
    wrong.environment = vec![("MINIO_STORAGE_CLASS_STANDARD", "EC:2".to_owned())];
    let found = refused(fleet, wrong, "its arguments differ", field, seed);
    verdict.check("a node of another topology is refused", found);
    if let Some(library) = faketime() {
        let mut wrong = right.clone();
        let ahead = ("FAKETIME", "+10m".to_owned());
        let others = [("DONT_FAKE_MONOTONIC", "1".to_owned()), ("LD_PRELOAD", library)];
        wrong.environment.extend([ahead].into_iter().chain(others));
        let found = refused(fleet, wrong, "its clock is", field, seed);
        verdict.check("a node whose clock is 10 minutes off is refused", found);
    } else {
        println!("SKIPPED: a node whose clock is 10 minutes off. There is no libfaketime here.");
    }
    fleet.launches[STRANGER] = right;
    fleet.start([STRANGER])?;
    fleet.await_ready(START_LIMIT).context("the right node again")?;
    Ok(())
}

/// The library that shows a program another time.
fn faketime() -> Option<String> {
    let architectures = fs::read_dir("/usr/lib").ok()?.filter_map(Result::ok);
    let mut places = architectures.map(|entry| entry.path().join("faketime/libfaketime.so.1"));
    Some(places.find(|place| place.is_file())?.to_string_lossy().into_owned())
}

/// Starts the node in the wrong way; it and its peers say `why`, and the others go on.
fn refused(
    fleet: &mut Fleet,
    wrong: Launch,
    why: &str,
    field: &Field<'_>,
    seed: u64,
) -> Result<String> {
    if fleet.is_up(STRANGER) {
        fleet.kill([STRANGER])?;
        field.register.node_died(STRANGER);
    }
    let others: Vec<usize> = fleet.nodes().filter(|node| *node != STRANGER).collect();
    let marks: Vec<usize> = others.iter().map(|node| fleet.server(*node).log_mark()).collect();
    fleet.launches[STRANGER] = wrong;
    fleet.start([STRANGER])?;
    let said = fleet.server(STRANGER).await_line(0, &[why], TELL_LIMIT);
    said.context("the node that is refused")?;
    for (node, mark) in others.iter().zip(marks) {
        let said = fleet.server(*node).await_line(mark, &[why], TELL_LIMIT);
        said.with_context(|| format!("node {}, which refuses", node + 1))?;
    }
    let mut client = fleet.launches[STRANGER].client(TELL_LIMIT);
    let serves = client.probe("/minio/health/ready").is_ok_and(|answer| answer.status == 200);
    ensure!(!serves, "it serves nevertheless");
    let mut random = Random::new(seed, 8_200_000);
    for (key, node) in others.iter().cycle().take(16).enumerate() {
        let mut via = field.client_through(*node);
        field.write(&mut via, key, &mut random).map_err(anyhow::Error::msg)?;
    }
    others.iter().try_for_each(|node| field.verify_through(*node))?;
    fleet.kill([STRANGER])?;
    Ok(String::new())
}

//! Clusters of several shapes: formed by a first start, started again by halves, and with the drives of
//! two nodes exchanged, which are refused by name until they are back in their places.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::ground::Ground;
use super::load::{Complaints, Field, make_bucket};
use super::register::{Register, total};
use crate::fleet::{Fleet, Shape};
use crate::random::Random;
use crate::verdict::Verdict;

/// With a parity of half the drives, half of the nodes serve every read.
const SHAPES: [Shape; 4] = [
    Shape { nodes: 2, drives: 4, parity: 4 },
    Shape { nodes: 4, drives: 4, parity: 8 },
    Shape { nodes: 8, drives: 1, parity: 4 },
    Shape { nodes: 8, drives: 2, parity: 8 },
];
const BUCKET: &str = "layouts";
const KEYS: usize = 32;
const START_LIMIT: Duration = Duration::from_secs(60);
const SETTLE_LIMIT: Duration = Duration::from_secs(120);
const TELL_LIMIT: Duration = Duration::from_secs(30);

pub(crate) fn run(program: &Path, folder: &Path, seed: u64) -> Verdict {
    let mut verdict = Verdict::default();
    for shape in SHAPES {
        let folder = folder.join(format!("{}x{}", shape.nodes, shape.drives));
        let register = Register::new(seed, KEYS);
        if let Err(error) = walk(program, &folder, shape, &register, seed, &mut verdict) {
            verdict.check(&format!("{shape}"), Err(error));
        }
        // Sixteen drives take gigabytes, and what is of interest after a failure are the logs.
        for node in 1..=shape.nodes {
            for drive in 1..=shape.drives {
                let drive = folder.join(format!("n{node}/d{drive}"));
                if let Err(error) = fs::remove_dir_all(&drive) {
                    println!("{} is left: {error}", drive.display());
                }
            }
        }
    }
    verdict
}

fn walk(
    program: &Path,
    folder: &Path,
    shape: Shape,
    register: &Register,
    seed: u64,
    verdict: &mut Verdict,
) -> Result<()> {
    let mut fleet = Fleet::new(program, folder, shape, Ground::prepare(shape.nodes)?)?;
    let complaints = Complaints::default();
    let ways = fleet.launches.clone();
    let field = Field { ways: &ways, bucket: BUCKET, register, complaints: &complaints };
    let formed = form(&mut fleet, &field, seed);
    let has_formed = formed.is_ok();
    verdict.check(&format!("{shape}: formed, written"), formed);
    ensure!(has_formed, "given up");
    let halved = halve(&mut fleet, &field);
    let have_met = halved.is_ok();
    verdict.check(&format!("{shape}: half of the nodes serve reads"), halved);
    ensure!(have_met, "given up");
    let exchanged = exchange(&mut fleet, &field);
    verdict.check(&format!("{shape}: exchanged drives are refused"), exchanged);
    let bad = total(&register.tally.lost) + total(&register.tally.wrong);
    ensure!(bad == 0, "{bad} answers were lost or wrong");
    Ok(())
}

fn form(fleet: &mut Fleet, field: &Field<'_>, seed: u64) -> Result<String> {
    fleet.start(fleet.nodes())?;
    let took = fleet.await_ready(START_LIMIT)?;
    make_bucket(&fleet.launches[0], BUCKET)?;
    let mut random = Random::new(seed, 8_300_000);
    for key in 0..KEYS {
        let mut via = field.client_through(key);
        field.write(&mut via, key, &mut random).map_err(anyhow::Error::msg)?;
    }
    fleet.settle(SETTLE_LIMIT)?;
    Ok(format!("ready after {} ms", took.as_millis()))
}

/// All end; half start and serve what there is; the others join them.
fn halve(fleet: &mut Fleet, field: &Field<'_>) -> Result<String> {
    fleet.stop(fleet.nodes())?;
    // Every second one.
    let half: Vec<usize> = fleet.nodes().filter(|node| node % 2 == 1).collect();
    fleet.start(half.iter().copied())?;
    let took = fleet.await_ready(START_LIMIT).context("half of them")?;
    half.iter().try_for_each(|node| field.verify_through(*node))?;
    fleet.start(fleet.nodes().filter(|node| !half.contains(node)))?;
    fleet.await_ready(START_LIMIT).context("the other half")?;
    fleet.settle(SETTLE_LIMIT)?;
    field.verify_all()?;
    Ok(format!("ready after {} ms", took.as_millis()))
}

/// The first drives of two nodes change places while those are down.
fn exchange(fleet: &mut Fleet, field: &Field<'_>) -> Result<String> {
    let nodes = [0, 1];
    let [one, other] = nodes.map(|node| fleet.drive(node, 0));
    fleet.stop(nodes)?;
    swap(&one, &other)?;
    fleet.start(nodes)?;
    for node in nodes {
        let path = fleet.drive(node, 0);
        let (drive, shown) = (path.to_string_lossy(), node + 1);
        let said = fleet.server(node).await_line(0, &["drive stays down", &drive], TELL_LIMIT);
        said.with_context(|| format!("node {shown}"))?;
    }
    fleet.await_ready(START_LIMIT).context("with exchanged drives")?;
    field.verify_all().context("with exchanged drives")?;
    fleet.stop(nodes)?;
    swap(&one, &other)?;
    fleet.start(nodes)?;
    fleet.await_ready(START_LIMIT).context("with the drives in their places")?;
    fleet.settle(SETTLE_LIMIT)?;
    field.verify_all()?;
    Ok(String::new())
}

fn swap(one: &Path, other: &Path) -> Result<()> {
    let aside = one.with_extension("aside");
    fs::rename(one, &aside)?;
    fs::rename(other, one)?;
    fs::rename(&aside, other).context("exchanging two drives")
}

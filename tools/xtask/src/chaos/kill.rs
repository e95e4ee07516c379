//! The server is killed with SIGKILL at random moments under load, and started again on the same
//! drives: it serves within five seconds, and everything that it acknowledged is there.

use std::path::Path;
use std::slice;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::load::{Complaints, Failures, Field, READERS, WRITERS, make_bucket, under_load};
use super::register::{Register, total};
use crate::random::Random;
use crate::server::{Launch, Layout, Server};
use crate::verdict::Verdict;

const BUCKET: &str = "kill";
const KEYS: usize = 512;
const READY_LIMIT: Duration = Duration::from_secs(5);
const FIRST_WRITE_LIMIT: Duration = Duration::from_secs(10);

pub(crate) fn run(
    program: &Path,
    folder: &Path,
    layout: Layout,
    seed: u64,
    cycles: u32,
) -> Verdict {
    let register = Register::new(seed, KEYS);
    let complaints = Complaints::default();
    let mut verdict = Verdict::default();
    let ended = (|| {
        let launch = Launch::new(program, &folder.join("kill"), layout)?;
        let field = Field {
            ways: slice::from_ref(&launch),
            bucket: BUCKET,
            register: &register,
            complaints: &complaints,
        };
        let slowest = run_cycles(&launch, &field, seed, cycles)?;
        Ok(format!("{cycles} times, ready again after at most {} ms", slowest.as_millis()))
    })();
    verdict.check(&format!("{layout} kill -9 under load"), ended);
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
    verdict.check(&format!("{layout} nothing acknowledged lost, nothing wrong"), outcome);
    verdict
}

/// Returns the slowest start.
fn run_cycles(launch: &Launch, field: &Field<'_>, seed: u64, cycles: u32) -> Result<Duration> {
    let mut random = Random::new(seed, 7_000_000);
    let mut slowest = Duration::ZERO;
    let mut server = launch.start()?;
    server.await_ready(Duration::from_secs(30)).context("the first start")?;
    make_bucket(launch, BUCKET)?;
    for cycle in 1..=cycles {
        kill_under_load(field, &mut server, seed, cycle, &mut random)?;
        // Now and then once more, in the midst of its recovery.
        if random.one_in(4) {
            server = launch.start()?;
            thread::sleep(Duration::from_millis(random.below(300)));
            server.kill()?;
        }
        server = launch.start()?;
        let took =
            server.await_ready(READY_LIMIT).with_context(|| format!("after kill {cycle}"))?;
        slowest = slowest.max(took);
        field.verify_all().with_context(|| format!("after kill {cycle}"))?;
        if cycle % 10 == 0 {
            let tally = &field.register.tally;
            println!("  {cycle} kills, {} acknowledged", total(&tally.acknowledged));
        }
    }
    field.verify_all().context("at the end")?;
    server.ensure_alive()?;
    Ok(slowest)
}

fn kill_under_load(
    field: &Field<'_>,
    server: &mut Server,
    seed: u64,
    cycle: u32,
    random: &mut Random,
) -> Result<()> {
    let failures = Failures::default();
    let before = total(&field.register.tally.acknowledged);
    let moment = Duration::from_millis(random.below(2000));
    let load_seed = seed.wrapping_add(u64::from(cycle) << 32);
    let killed = under_load(field, WRITERS, READERS, load_seed, &failures, || {
        // A kill before anything was acknowledged would prove nothing.
        let patience = Instant::now() + FIRST_WRITE_LIMIT;
        while total(&field.register.tally.acknowledged) == before {
            ensure!(Instant::now() < patience, "nothing was acknowledged");
            thread::sleep(Duration::from_millis(5));
        }
        thread::sleep(moment);
        server.ensure_alive()?;
        server.kill()
    });
    killed.with_context(|| format!("in cycle {cycle}"))?;
    field.register.server_died();
    Ok(())
}

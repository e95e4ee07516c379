//! Whether the server keeps to its memory: all kinds of work for some minutes on names that are used over
//! and over, and how much of it is resident meanwhile. What grows under such work is a leak.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::work::{Target, Work};
use crate::proc;

/// In the first minute buffers and connections are taken for the first time.
const MINUTES_MIN: u64 = 3;
/// How much more the last minute may take than the second.
const GROWTH_MAX: f64 = 1.05;
const SAMPLE_EVERY: Duration = Duration::from_millis(200);
const MIB: f64 = (1 << 20) as f64;

/// Prints what was resident in each minute, in MiB; fails where it grew, or went beyond `budget_bytes`,
/// which the server printed (none is known where somebody else started it).
pub(crate) fn run(target: &Target, minutes: u64, budget_bytes: Option<u64>) -> Result<()> {
    ensure!(minutes >= MINUTES_MIN, "memory is watched for at least {MINUTES_MIN} minutes");
    let pid = *target.pids.first().context("the server's process must be known: --pid")?;
    Work::prepare_mixed(target)?;
    let window = Duration::from_secs(60 * minutes);
    let over = AtomicBool::new(false);
    let (measured, samples) = thread::scope(|scope| {
        let watch = scope.spawn(|| watch(pid, &over));
        let measured = Work::mixed(target, window);
        over.store(true, Ordering::Relaxed);
        (measured, watch.join().expect("watching does not panic"))
    });
    let (measured, samples) = (measured?, samples?);
    let means: Vec<f64> = (0..minutes).map(|minute| mean(&samples, minute)).collect();
    let told: Vec<String> = means.iter().map(|mean| format!("{:.0}", mean / MIB)).collect();
    let most = samples.iter().map(|(_, bytes)| *bytes).max().context("no samples")?;
    println!(
        "  {:.0} requests/s; resident in each minute, MiB: {}; at most {:.0}",
        measured.per_second(),
        told.join(" "),
        most as f64 / MIB
    );
    let (second, last) = (means[1], *means.last().expect("at least three"));
    ensure!(
        last <= second * GROWTH_MAX,
        "the last minute took {:.1} % more memory than the second",
        (last / second - 1.0) * 100.0
    );
    if let Some(budget) = budget_bytes {
        ensure!(most <= budget, "{most} bytes were resident, the server had said {budget}");
    }
    Ok(())
}

/// Resident bytes from now on, with the seconds since then.
fn watch(pid: u32, over: &AtomicBool) -> Result<Vec<(u64, u64)>> {
    let start = Instant::now();
    let mut samples = Vec::new();
    while !over.load(Ordering::Relaxed) {
        samples.push((start.elapsed().as_secs(), proc::resident_bytes(pid)?));
        thread::sleep(SAMPLE_EVERY);
    }
    Ok(samples)
}

fn mean(samples: &[(u64, u64)], minute: u64) -> f64 {
    let within = samples.iter().filter(|(second, _)| second / 60 == minute);
    let bytes: Vec<f64> = within.map(|(_, bytes)| *bytes as f64).collect();
    bytes.iter().sum::<f64>() / bytes.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_is_its_own_samples() {
        let samples = [(0, 10), (59, 20), (60, 100), (119, 300), (120, 7)];
        assert_eq!([0, 1, 2].map(|minute| mean(&samples, minute)), [15.0, 200.0, 7.0]);
    }
}

//! Closed-loop load: each connection sends its next request when the last one is answered.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::work::Target;
use crate::proc::cpu_seconds;
use crate::s3::Client;

/// What one window of load did. Requests begun within it are counted to their end.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) operations: u64,
    pub(crate) elapsed: Duration,
    /// Absent for a server whose process is not known.
    pub(crate) server_cpu: Option<f64>,
    pub(crate) client_cpu: f64,
    latencies_us: Vec<u32>,
}

impl Measured {
    pub(crate) fn per_second(&self) -> f64 {
        self.operations as f64 / self.elapsed.as_secs_f64()
    }

    /// Microseconds: the latency that this share of requests stayed within.
    pub(crate) fn percentile_us(&self, share: f64) -> f64 {
        let last = self.latencies_us.len().saturating_sub(1);
        let rank = (share * last as f64).round() as usize;
        self.latencies_us.get(rank).map_or(0.0, |latency| f64::from(*latency))
    }
}

/// Runs `operation(client, connection, count)` on every connection until the window ends, or until
/// it says that it has no more to do. It returns how much one call counts for.
pub(crate) fn run(
    target: &Target,
    connections: usize,
    window: Duration,
    operation: impl Fn(&mut Client, usize, u64) -> Result<Option<u64>> + Sync,
) -> Result<Measured> {
    let gate = Barrier::new(connections + 1);
    let own = std::process::id();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..connections)
            .map(|connection| {
                let (gate, operation) = (&gate, &operation);
                scope.spawn(move || {
                    let mut client = target.client();
                    gate.wait();
                    drive(&mut client, window, |client, count| operation(client, connection, count))
                })
            })
            .collect();
        // The gate opens whether or not the CPU could be read, or the threads would wait for ever.
        let server_before = target.cpu_seconds();
        let client_before = cpu_seconds(own);
        gate.wait();
        let start = Instant::now();
        let mut operations = 0;
        let mut latencies_us = Vec::new();
        let mut failed = None;
        for thread in threads {
            match thread.join().expect("a load thread does not panic") {
                Ok((count, mut latencies)) => {
                    operations += count;
                    latencies_us.append(&mut latencies);
                }
                Err(error) => failed = Some(error),
            }
        }
        let elapsed = start.elapsed();
        if let Some(error) = failed {
            return Err(error);
        }
        let server_after = target.cpu_seconds()?;
        let server_cpu = server_after.zip(server_before?).map(|(after, before)| after - before);
        let client_cpu = cpu_seconds(own)? - client_before.context("own CPU time")?;
        latencies_us.sort_unstable();
        Ok(Measured { operations, elapsed, server_cpu, client_cpu, latencies_us })
    })
}

fn drive(
    client: &mut Client,
    window: Duration,
    mut operation: impl FnMut(&mut Client, u64) -> Result<Option<u64>>,
) -> Result<(u64, Vec<u32>)> {
    let deadline = Instant::now() + window;
    let (mut operations, mut calls) = (0, 0);
    let mut latencies = Vec::new();
    let mut begun = Instant::now();
    while begun < deadline {
        let Some(count) = operation(client, calls)? else { break };
        let ended = Instant::now();
        latencies.push(u32::try_from((ended - begun).as_micros()).unwrap_or(u32::MAX));
        begun = ended;
        operations += count;
        calls += 1;
    }
    Ok((operations, latencies))
}

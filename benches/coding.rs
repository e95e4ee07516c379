//! What coding and checksums cost on one core, without a drive or a socket:
//! `cargo bench -p basalt-benches --bench coding`. Medians of several rounds, in GB/s of object data;
//! the rounds of all measurements alternate, so that a busy machine slows all of them alike.

#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

use std::hint::black_box;
use std::time::Instant;

use basalt_engine::buffer::Buffer;
use basalt_engine::checksum;
use basalt_engine::codec::{REED_SOLOMON, codec_for};
use basalt_engine::md5;
use basalt_engine::units::{BlockCount, PayloadId};
use bytes::Bytes;

const ROUNDS: usize = 9;
/// Object bytes that one round of a measurement handles.
const ROUND_BYTES: usize = 64 << 20;

struct Measurement {
    name: String,
    /// Handles about [`ROUND_BYTES`] and says how many bytes exactly.
    round: Box<dyn FnMut() -> usize>,
    gigabytes_per_second: Vec<f64>,
}

impl Measurement {
    fn new(name: String, round: impl FnMut() -> usize + 'static) -> Self {
        Self { name, round: Box::new(round), gigabytes_per_second: Vec::new() }
    }

    fn run(&mut self) {
        let started = Instant::now();
        let bytes = (self.round)();
        self.gigabytes_per_second.push(bytes as f64 / started.elapsed().as_secs_f64() / 1e9);
    }

    fn median(&mut self) -> f64 {
        self.gigabytes_per_second.sort_by(f64::total_cmp);
        self.gigabytes_per_second[ROUNDS / 2]
    }
}

fn main() {
    let mut measurements = vec![run_checksums()];
    for (data, parity, unit_bytes) in [(2, 2, 128 << 10), (12, 4, 64 << 10)] {
        measurements.push(encode(data, parity, unit_bytes));
        measurements.push(rebuild_one(data, parity, unit_bytes));
    }
    measurements.extend([1, 2, 4, 8, 16].map(md5_streams));
    for _ in 0..ROUNDS {
        measurements.iter_mut().for_each(Measurement::run);
    }
    for measurement in &mut measurements {
        let median = measurement.median();
        println!("{:<48} {median:>6.2} GB/s", measurement.name);
    }
}

fn run_checksums() -> Measurement {
    let mut run = Buffer::zeroed(BlockCount(1 + checksum::RUN_BLOCKS));
    let bytes = run.len();
    Measurement::new("checksums of a run of 1 MiB".to_owned(), move || {
        let runs = ROUND_BYTES / bytes;
        for number in 0..runs {
            checksum::seal_run(black_box(&mut run), PayloadId(7), 0, number as u64);
        }
        runs * bytes
    })
}

/// Streams that always have something to hash.
fn md5_streams(count: usize) -> Measurement {
    let piece = Bytes::from(vec![7; 256 << 10]);
    Measurement::new(format!("MD5 of {count} streams"), move || {
        let mut streams = md5::Streams::default();
        let ids: Vec<md5::StreamId> = (0..count).map(|_| streams.open()).collect();
        let turns = ROUND_BYTES / 2 / piece.len() / count;
        for _ in 0..turns {
            ids.iter().for_each(|id| streams.push(*id, piece.clone()));
            streams.turn(ids[0], 0);
        }
        for id in ids {
            black_box(streams.finish(id));
        }
        turns * count * piece.len()
    })
}

fn pieces(count: usize, unit_bytes: usize) -> Vec<Vec<u8>> {
    let byte = |piece: usize, at: usize| (piece * 31 + at * 7 + at / 251) as u8;
    (0..count).map(|piece| (0..unit_bytes).map(|at| byte(piece, at)).collect()).collect()
}

fn encode(data: usize, parity: usize, unit_bytes: usize) -> Measurement {
    let codec = codec_for(REED_SOLOMON).expect("it is known");
    let source = pieces(data, unit_bytes);
    let mut target = pieces(parity, unit_bytes);
    let name = format!("encode {data}+{parity}, unit {} KiB", unit_bytes >> 10);
    Measurement::new(name, move || {
        let stripe_bytes = data * unit_bytes;
        let stripes = ROUND_BYTES / stripe_bytes;
        let source: Vec<&[u8]> = source.iter().map(Vec::as_slice).collect();
        for _ in 0..stripes {
            let mut target: Vec<&mut [u8]> = target.iter_mut().map(Vec::as_mut_slice).collect();
            codec.encode(black_box(&source), &mut target);
        }
        stripes * stripe_bytes
    })
}

/// One lost data shard, a whole run of every shard in one call, as degraded reads do it.
fn rebuild_one(data: usize, parity: usize, unit_bytes: usize) -> Measurement {
    let codec = codec_for(REED_SOLOMON).expect("it is known");
    let run_bytes = 1 << 20;
    let source = pieces(data, run_bytes);
    let mut coded = pieces(parity, run_bytes);
    {
        let source: Vec<&[u8]> = source.iter().map(Vec::as_slice).collect();
        let mut coded: Vec<&mut [u8]> = coded.iter_mut().map(Vec::as_mut_slice).collect();
        codec.encode(&source, &mut coded);
    }
    let mut lost = vec![0; run_bytes];
    let name = format!("rebuild one of {data}+{parity}, unit {} KiB", unit_bytes >> 10);
    Measurement::new(name, move || {
        let calls = (ROUND_BYTES / (data * run_bytes)).max(1);
        let present: Vec<Option<&[u8]>> = source
            .iter()
            .chain(&coded)
            .enumerate()
            .map(|(shard, bytes)| (shard != 0).then_some(bytes.as_slice()))
            .collect();
        for _ in 0..calls {
            let mut missing = [(0, lost.as_mut_slice())];
            codec.rebuild(data, black_box(&present), &mut missing).expect("enough are present");
        }
        calls * data * run_bytes
    })
}

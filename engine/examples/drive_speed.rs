//! How fast one core drives a file through the runtime: `drive_speed <directory> [GiB]`.
//!
//! Prints operations per second, bytes per second and processor time per operation. The processor
//! time is of the whole process (kernel workers included), so it can be compared with other tools.
#![expect(clippy::print_stdout, reason = "a tool")]
#![expect(clippy::disallowed_methods, reason = "it measures real time")]

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use basalt_engine::buffer::Buffer;
use basalt_engine::runtime::{DirectStorage, GlommioRuntime, Options, start};
use basalt_engine::seam::{Clock, Random, Storage, WriteSync};
use basalt_engine::units::{BlockCount, BlockIndex};
use futures_util::future::join_all;

const MEASURED: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Read,
    Write,
    DurableWrite,
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let directory = PathBuf::from(arguments.next().expect("usage: drive_speed <directory> [GiB]"));
    let gib: u64 = arguments.next().map_or(1, |text| text.parse().expect("a number of GiB"));
    let path = directory.join("drive_speed.data");
    let file = path.clone();
    let running = start(&Options::new(1, 256 << 20), move |runtime| {
        let file = file.clone();
        async move { measure_all(&runtime, &file, gib).await }
    });
    running.expect("the core starts").join().expect("the core ends well");
    std::fs::remove_file(path).expect("the file is there");
}

async fn measure_all(runtime: &GlommioRuntime, path: &Path, gib: u64) {
    let length = BlockCount(gib << 18);
    let storage = DirectStorage::create(runtime, path, length).expect("the file can be made");
    storage.grow(length).await.expect("there is room");
    fill(runtime, &storage, length).await;
    for (name, kind, blocks, depth) in [
        ("read 4K", Kind::Read, 1, 1),
        ("read 4K", Kind::Read, 1, 16),
        ("read 4K", Kind::Read, 1, 64),
        ("read 128K", Kind::Read, 32, 16),
        ("read 1M+4K", Kind::Read, 257, 4),
        ("write 4K", Kind::Write, 1, 1),
        ("write 4K durable", Kind::DurableWrite, 1, 1),
        ("write 4K", Kind::Write, 1, 16),
        ("write 128K", Kind::Write, 32, 16),
        ("write 1M+4K", Kind::Write, 257, 4),
    ] {
        measure(runtime, &storage, name, kind, blocks, depth).await;
    }
}

async fn fill(runtime: &GlommioRuntime, storage: &DirectStorage, length: BlockCount) {
    let mut at = 0;
    while at < length.0 {
        let mut buffer = take(runtime, 256).await;
        buffer.fill(at as u8);
        let result = storage.write(BlockIndex(at), buffer, WriteSync::Cached).await;
        result.expect("written");
        at += 256;
    }
    storage.flush().await.expect("flushed");
}

async fn take(runtime: &GlommioRuntime, blocks: u64) -> Buffer {
    runtime.arena().take_or_wait(BlockCount(blocks)).await
}

async fn measure(
    runtime: &GlommioRuntime,
    storage: &DirectStorage,
    name: &str,
    kind: Kind,
    blocks: u64,
    depth: u64,
) {
    let operations = Rc::new(Cell::new(0u64));
    let (started, processor_before) = (Instant::now(), processor_time());
    let lanes = (0..depth).map(|_| {
        let operations = Rc::clone(&operations);
        async move {
            while started.elapsed() < MEASURED {
                let last = storage.geometry().length.0 / blocks;
                let at = BlockIndex(runtime.random_u64() % last * blocks);
                let buffer = take(runtime, blocks).await;
                let result = match kind {
                    Kind::Read => storage.read(at, buffer).await.1,
                    Kind::Write => storage.write(at, buffer, WriteSync::Cached).await,
                    Kind::DurableWrite => storage.write(at, buffer, WriteSync::Durable).await,
                };
                result.expect("the drive works");
                operations.set(operations.get() + 1);
            }
        }
    });
    join_all(lanes).await;
    let (elapsed, processor) = (started.elapsed(), processor_time() - processor_before);
    let (count, seconds) = (operations.get() as f64, elapsed.as_secs_f64());
    println!(
        "{name:<18} depth {depth:<3} {:>8.0} per second {:>6.0} MB/s {:>6.1} us latency {:>6.1} us processor",
        count / seconds,
        count * blocks as f64 * 4096.0 / 1e6 / seconds,
        seconds * 1e6 * depth as f64 / count,
        processor.as_secs_f64() * 1e6 / count,
    );
    runtime.sleep(Duration::from_millis(100)).await;
}

/// User and system time of this process so far.
fn processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/self/stat").expect("a proc file system");
    let after_name = text.rsplit(')').next().expect("a name in brackets");
    let mut fields = after_name.split_whitespace().skip(11);
    let mut ticks = || -> u64 { fields.next().expect("a field").parse().expect("a number") };
    Duration::from_millis((ticks() + ticks()) * 10)
}

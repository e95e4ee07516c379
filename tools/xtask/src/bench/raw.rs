//! What the volume does without a server: sequential O_DIRECT writes and reads of large blocks, and small
//! writes each of which is flushed, as a journal's are.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::history::Figures;
use super::row;
use crate::random;

const BLOCK_BYTES: usize = 4 << 20;
const ALIGN_BYTES: usize = 4096;
const THREADS: u64 = 4;
const BLOCKS_PER_THREAD: u64 = 64;
/// As many as the directories of the larger layout: each has a journal.
const FLUSHERS: u64 = 16;
const FLUSHING: Duration = Duration::from_secs(2);
/// Blocks of each flusher's file, written over and over.
const FLUSHED_BLOCKS: u64 = 1024;
const MIB: f64 = (1 << 20) as f64;

pub(crate) fn measure(folder: &Path, figures: &mut Figures) -> Result<()> {
    let path = folder.join("raw");
    let file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .read(true)
        .write(true)
        .custom_flags(libc::O_DIRECT)
        .open(&path)
        .with_context(|| format!("{} with O_DIRECT", path.display()))?;
    let write = rate(&file, |file, block, at| file.write_all_at(block, at))?;
    let read = rate(&file, |file, block, at| file.read_exact_at(block, at))?;
    std::fs::remove_file(&path)?;
    let flushes = flushes(folder).context("small flushed writes")?;
    println!(
        "  volume: write {write:.0} MiB/s, read {read:.0} MiB/s, {flushes:.0} flushed writes/s"
    );
    figures.add(None, row("volume write", "MiB/s", write));
    figures.add(None, row("volume read", "MiB/s", read));
    figures.add(None, row("volume flushed writes", "1/s", flushes));
    Ok(())
}

/// Writes of 4 KiB a second that are flushed one by one, from as many threads as there may be journals,
/// each to a file of its own whose blocks are there already.
fn flushes(folder: &Path) -> Result<f64> {
    let start = Instant::now();
    let counts = thread::scope(|scope| {
        let threads: Vec<_> = (0..FLUSHERS)
            .map(|index| {
                scope.spawn(move || flush_over_and_over(&folder.join(format!("raw-{index}"))))
            })
            .collect();
        let counts = threads.into_iter().map(|thread| thread.join().expect("no panic"));
        counts.collect::<std::io::Result<Vec<(u64, Duration)>>>()
    })?;
    let count: u64 = counts.iter().map(|(count, _)| count).sum();
    let preparing = counts.iter().map(|(_, preparing)| *preparing).max().unwrap_or_default();
    Ok(count as f64 / (start.elapsed() - preparing).as_secs_f64())
}

/// How many writes were flushed, and how long making the file took.
fn flush_over_and_over(path: &Path) -> std::io::Result<(u64, Duration)> {
    let start = Instant::now();
    let file = File::create(path)?;
    file.write_all_at(&vec![1; FLUSHED_BLOCKS as usize * ALIGN_BYTES], 0)?;
    file.sync_all()?;
    let file = OpenOptions::new().write(true).custom_flags(libc::O_DIRECT).open(path)?;
    let mut space = random::bytes(7, 2 * ALIGN_BYTES);
    let offset = space.as_ptr().align_offset(ALIGN_BYTES);
    let block = &mut space[offset..offset + ALIGN_BYTES];
    let preparing = start.elapsed();
    let mut count = 0;
    while start.elapsed() < preparing + FLUSHING {
        file.write_all_at(block, count % FLUSHED_BLOCKS * ALIGN_BYTES as u64)?;
        file.sync_data()?;
        count += 1;
    }
    std::fs::remove_file(path)?;
    Ok((count, preparing))
}

/// MiB/s of several threads, each over a region of its own, until the device has it all.
fn rate(
    file: &File,
    step: impl Fn(&File, &mut [u8], u64) -> std::io::Result<()> + Sync,
) -> Result<f64> {
    let start = Instant::now();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|index| {
                let step = &step;
                scope.spawn(move || {
                    let mut space = random::bytes(index, BLOCK_BYTES + ALIGN_BYTES);
                    let offset = space.as_ptr().align_offset(ALIGN_BYTES);
                    let block = &mut space[offset..offset + BLOCK_BYTES];
                    let first = index * BLOCKS_PER_THREAD;
                    (first..first + BLOCKS_PER_THREAD)
                        .try_for_each(|number| step(file, block, number * BLOCK_BYTES as u64))
                })
            })
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("no panic"))
    })
    .context("raw access")?;
    file.sync_data()?;
    let bytes = THREADS * BLOCKS_PER_THREAD * BLOCK_BYTES as u64;
    Ok(bytes as f64 / MIB / start.elapsed().as_secs_f64())
}

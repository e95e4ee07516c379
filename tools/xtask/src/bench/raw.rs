//! What the volume does without a server: sequential O_DIRECT writes and reads of large blocks.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result};

use super::history::Figures;
use super::row;
use crate::random;

const BLOCK_BYTES: usize = 4 << 20;
const ALIGN_BYTES: usize = 4096;
const THREADS: u64 = 4;
const BLOCKS_PER_THREAD: u64 = 64;
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
    println!("  volume: write {write:.0} MiB/s, read {read:.0} MiB/s");
    figures.add(None, row("volume write", "MiB/s", write));
    figures.add(None, row("volume read", "MiB/s", read));
    Ok(())
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

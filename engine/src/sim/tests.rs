//! The simulator holds what it promises: runs repeat, durable means durable, and everything else
//! may be lost, torn or elsewhere.

mod executor;
mod recording;
mod storage;

use std::rc::Rc;

use super::{SimDisk, SimRuntime, SimStorage, Simulation};
use crate::buffer::Buffer;
use crate::error::Error;
use crate::seam::{Storage, WriteSync};
use crate::units::{BlockCount, BlockIndex};

const LENGTH: BlockCount = BlockCount(1000);

fn filled(blocks: u64, byte: u8) -> Buffer {
    let mut buffer = Buffer::zeroed(BlockCount(blocks));
    buffer.fill(byte);
    buffer
}

/// Runs `work` on an opening of `disk`, in a world of its own, to its end.
fn with_storage<T: 'static, F: Future<Output = T> + 'static>(
    disk: &SimDisk,
    seed: u64,
    work: impl FnOnce(Rc<SimStorage>, SimRuntime) -> F,
) -> T {
    let simulation = Simulation::new(seed);
    let runtime = simulation.group();
    let storage = Rc::new(disk.open(&runtime));
    simulation.block_on(&runtime, work(storage, runtime.clone()))
}

fn grown_disk(seed: u64) -> SimDisk {
    let disk = SimDisk::new(seed, LENGTH);
    with_storage(&disk, seed, |storage, _| async move { storage.grow(LENGTH).await })
        .expect("there is room");
    disk
}

async fn write(storage: &SimStorage, at: u64, byte: u8, sync: WriteSync) {
    storage.write(BlockIndex(at), filled(1, byte), sync).await.expect("the disk is well");
}

async fn read(storage: &SimStorage, at: u64) -> Result<Buffer, Error> {
    let (buffer, outcome) = storage.read(BlockIndex(at), filled(1, 0xee)).await;
    outcome.map(|()| buffer)
}

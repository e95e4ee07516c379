//! A cut at any point keeps what was acknowledged before it, and forks are cheap and apart.

use std::collections::BTreeSet;

use futures_util::future::join_all;

use super::{LENGTH, grown_disk, with_storage, write};
use crate::seam::{Random, Storage, WriteSync};
use crate::sim::SimDisk;
use crate::units::BLOCK_BYTES;

/// Writes and flushes in the manner of a journal; returns what was acknowledged, and when.
fn recorded_journal(disk: &SimDisk, seed: u64, batches: u64) -> Vec<(usize, u64)> {
    disk.record();
    let recorder = disk.clone();
    with_storage(disk, seed, |storage, runtime| async move {
        let mut acknowledged = Vec::new();
        for batch in 1..=batches {
            let start = batch % 20 * 10;
            let blocks = 1 + runtime.random_u64() % 4;
            let writes = (start..start + blocks)
                .map(|at| write(&storage, at, batch as u8, WriteSync::Cached));
            join_all(writes).await;
            storage.flush().await.expect("the disk is well");
            acknowledged.push((recorder.recorded(), start));
        }
        acknowledged
    })
}

#[test]
fn every_point_of_a_recording_keeps_what_was_acknowledged() {
    let disk = grown_disk(12);
    let acknowledged = recorded_journal(&disk, 12, 19);
    let recording = disk.take_recording();
    let (mut walk, mut forks, mut distinct) = (recording.walk(), 0, BTreeSet::new());
    loop {
        for subset_seed in 0..8 {
            let fork = walk.fork(subset_seed);
            for (batch, &(point, at)) in (1u8..).zip(&acknowledged) {
                assert!(
                    point > walk.point() || *fork.peek(at) == [batch; BLOCK_BYTES],
                    "batch {batch} at point {} of subset {subset_seed}",
                    walk.point()
                );
            }
            forks += 1;
            let blocks = fork.written_blocks();
            let sums = blocks.iter().map(|&at| (at, crate::checksum::crc64(&fork.peek(at)[..])));
            distinct.insert(sums.collect::<Vec<_>>());
        }
        if !walk.advance() {
            break;
        }
    }
    assert_eq!(walk.point(), recording.points());
    assert!(distinct.len() * 4 > forks, "{} distinct of {forks}", distinct.len());
}

#[test]
fn a_fork_is_the_same_disk_each_time_and_can_be_used() {
    let disk = grown_disk(13);
    recorded_journal(&disk, 13, 10);
    let recording = disk.take_recording();
    let mut walk = recording.walk();
    while walk.point() < recording.points() / 2 {
        walk.advance();
    }
    for subset_seed in 0..5 {
        let (fork, again) = (walk.fork(subset_seed), recording.image_at(walk.point(), subset_seed));
        assert_eq!(fork.written_blocks(), again.written_blocks());
        assert!((0..LENGTH.0).all(|at| fork.peek(at) == again.peek(at)));
        with_storage(&fork, 1, |storage, _| async move {
            assert_eq!(storage.geometry().length, LENGTH);
            write(&storage, 999, 1, WriteSync::Durable).await;
        });
        assert_eq!((fork.peek(999)[0], again.peek(999)[0], disk.peek(999)[0]), (1, 0, 0));
    }
}

#[test]
fn a_fork_costs_no_more_than_what_is_open() {
    let disk = grown_disk(14);
    recorded_journal(&disk, 14, 100);
    let recording = disk.take_recording();
    let (mut walk, mut most) = (recording.walk(), 0);
    while walk.advance() {
        for subset_seed in 0..4 {
            let copied = walk.fork(subset_seed).copied_blocks();
            assert!(copied <= walk.open_blocks(), "{copied} of {}", walk.open_blocks());
            most = most.max(copied);
        }
    }
    assert!(most > 0, "some forks differ from what was durable");
}

//! Files on the real kernel: contents, bounds, durability calls, dropped futures, lost paths.

use futures_util::FutureExt;
use futures_util::future::join_all;

use super::super::tests::on_one_core;
use super::*;
use crate::seam::{Clock, Random};
use crate::units::BLOCK_BYTES;

/// A directory whose file system does direct I/O: beside the build, not on a tmpfs.
fn directory() -> tempfile::TempDir {
    let base =
        std::env::var_os("CARGO_TARGET_TMPDIR").map_or_else(std::env::temp_dir, PathBuf::from);
    tempfile::tempdir_in(base).expect("a directory")
}

fn filled(blocks: u64, seed: u8) -> Buffer {
    let mut buffer = Buffer::zeroed(BlockCount(blocks));
    for (index, byte) in buffer.iter_mut().enumerate() {
        *byte = seed.wrapping_add((index / BLOCK_BYTES) as u8).wrapping_add(index as u8);
    }
    buffer
}

#[test]
fn what_is_written_is_read_also_after_reopening() {
    let directory = directory();
    let path = directory.path().join("data");
    on_one_core(move |runtime| {
        let path = path.clone();
        async move {
            let storage =
                DirectStorage::create(&runtime, &path, BlockCount(4096)).expect("created");
            assert_eq!(storage.geometry().length, BlockCount(0));
            storage.grow(BlockCount(1024)).await.expect("grown");
            assert_eq!(std::fs::metadata(&path).expect("there").len(), 1024 * 4096);
            for (at, blocks, sync) in [
                (0, 1, WriteSync::Durable),
                (1, 257, WriteSync::Cached),
                (1023, 1, WriteSync::Durable),
            ] {
                let result = storage.write(BlockIndex(at), filled(blocks, at as u8), sync).await;
                result.expect("written");
            }
            storage.flush().await.expect("flushed");
            drop(storage);

            let storage = DirectStorage::open(&runtime, &path, BlockCount(4096)).expect("opened");
            let geometry = storage.geometry();
            assert_eq!(geometry.length, BlockCount(1024));
            assert_eq!(geometry.length_max, BlockCount(4096));
            for (at, blocks) in [(0, 1), (1, 257), (1023, 1)] {
                let buffer = Buffer::zeroed(BlockCount(blocks));
                let (buffer, result) = storage.read(BlockIndex(at), buffer).await;
                result.expect("read");
                assert!(buffer[..] == filled(blocks, at as u8)[..], "blocks at {at}");
            }
            assert!(storage.free().await.expect("statfs").0 <= 4096 - 1024);
        }
    });
}

#[test]
fn a_thousand_operations_at_once_wait_in_line() {
    let directory = directory();
    let path = directory.path().join("data");
    on_one_core(move |runtime| {
        let path = path.clone();
        async move {
            let storage =
                DirectStorage::create(&runtime, &path, BlockCount(1000)).expect("created");
            storage.grow(BlockCount(1000)).await.expect("grown");
            let writes = (0..1000)
                .map(|at| storage.write(BlockIndex(at), filled(1, at as u8), WriteSync::Cached));
            for result in join_all(writes).await {
                result.expect("written");
            }
            let reads = (0..1000).map(|at| storage.read(BlockIndex(at), filled(1, 0)));
            for (at, (buffer, result)) in join_all(reads).await.into_iter().enumerate() {
                result.expect("read");
                assert!(buffer[..] == filled(1, at as u8)[..], "block {at}");
            }
            assert_eq!(storage.inner.lane.transfers(), 0);
        }
    });
}

#[test]
fn dropped_futures_keep_their_buffers_until_the_kernel_is_done() {
    let directory = directory();
    let path = directory.path().join("data");
    on_one_core(move |runtime| {
        let path = path.clone();
        async move {
            let storage =
                DirectStorage::create(&runtime, &path, BlockCount(4096)).expect("created");
            storage.grow(BlockCount(4096)).await.expect("grown");
            let arena = runtime.arena().clone();
            for round in 0..50 {
                let mut kept = Vec::new();
                for lane in 0..4 {
                    let buffer = arena.take_or_wait(BlockCount(257)).await;
                    let at = BlockIndex(runtime.random_u64() % 3000);
                    let mut read = Box::pin(storage.read(at, buffer));
                    assert!(read.as_mut().now_or_never().is_none(), "a read takes time");
                    if lane == 3 {
                        kept.push(read);
                    }
                }
                // Three were dropped right after they began: their buffers are not free yet.
                let unfinished = storage.inner.ring.unfinished() as u64;
                assert!(unfinished >= 4, "round {round}: {unfinished} unfinished");
                assert!(arena.lent().0 >= unfinished * 257, "round {round}: freed too early");
                for read in kept {
                    let (buffer, result) = read.await;
                    result.expect("read");
                    drop(buffer);
                }
            }
            while storage.inner.ring.unfinished() > 0 {
                runtime.sleep(std::time::Duration::from_millis(1)).await;
            }
            assert_eq!(arena.lent(), BlockCount(0), "every buffer came back");
        }
    });
}

#[test]
fn a_dropped_write_still_reaches_the_file_when_the_core_ends() {
    let directory = directory();
    let path = directory.path().join("data");
    let kept = path.clone();
    on_one_core(move |runtime| {
        let path = path.clone();
        async move {
            let storage =
                DirectStorage::create(&runtime, &path, BlockCount(1024)).expect("created");
            storage.grow(BlockCount(1024)).await.expect("grown");
            for at in 0..300 {
                let write = storage.write(BlockIndex(at), filled(1, at as u8), WriteSync::Cached);
                assert!(write.now_or_never().is_none());
            }
        }
    });
    let contents = std::fs::read(kept).expect("the file");
    for at in 0..300 {
        let block = &contents[at * BLOCK_BYTES..][..BLOCK_BYTES];
        assert!(block == &filled(1, at as u8)[..], "block {at}");
    }
}

#[test]
fn a_storage_that_outlives_the_ring_fails() {
    let directory = directory();
    let path = directory.path().join("data");
    on_one_core(move |runtime| {
        let path = path.clone();
        async move {
            let storage = DirectStorage::create(&runtime, &path, BlockCount(8)).expect("created");
            storage.grow(BlockCount(8)).await.expect("grown");
            storage.inner.ring.close();
            let (_, result) = storage.read(BlockIndex(0), Buffer::zeroed(BlockCount(1))).await;
            assert!(matches!(result, Err(Error::Unavailable { .. })), "{result:?}");
        }
    });
}

#[test]
fn probe_tells_when_the_place_is_lost() {
    let directory = directory();
    let base = directory.path().to_path_buf();
    on_one_core(move |runtime| {
        let base = base.clone();
        async move {
            let home = base.join("drive");
            std::fs::create_dir(&home).expect("a directory");
            let path = home.join("data");
            let storage = DirectStorage::create(&runtime, &path, BlockCount(8)).expect("created");
            storage.probe().await.expect("it is there");

            std::fs::rename(&home, base.join("elsewhere")).expect("renamed");
            assert!(matches!(storage.probe().await, Err(Error::Unavailable { .. })));
            std::fs::create_dir(&home).expect("a directory");
            std::fs::write(&path, b"another").expect("a file");
            assert!(matches!(storage.probe().await, Err(Error::Unavailable { .. })));
            std::fs::remove_dir_all(&home).expect("removed");
            std::fs::rename(base.join("elsewhere"), &home).expect("renamed back");
            storage.probe().await.expect("it is back");
            std::fs::remove_dir_all(&home).expect("removed");
            assert!(matches!(storage.probe().await, Err(Error::Unavailable { .. })));
        }
    });
}

#[test]
fn a_file_is_open_once_and_refusals_name_the_path() {
    let directory = directory();
    let path = directory.path().join("data");
    on_one_core(move |runtime| {
        let path = path.clone();
        async move {
            let missing = DirectStorage::open(&runtime, &path, BlockCount(8)).map(drop);
            assert!(matches!(&missing, Err(Error::Refused { path: named, .. }) if *named == path));
            let first = DirectStorage::create(&runtime, &path, BlockCount(8)).expect("created");
            let second = DirectStorage::open(&runtime, &path, BlockCount(8)).map(drop);
            assert_eq!(second, Err(Error::InUse { path: path.clone() }));
            drop(first);
            DirectStorage::open(&runtime, &path, BlockCount(8)).expect("free again");
            let again = DirectStorage::create(&runtime, &path, BlockCount(8)).map(drop);
            assert!(again.is_err(), "create never opens what is there");
        }
    });
}

#[test]
fn growth_ends_at_the_limit_and_a_full_file_system_says_so() {
    let directory = directory();
    let path = directory.path().join("data");
    on_one_core(move |runtime| {
        let path = path.clone();
        async move {
            let huge = BlockCount(1 << 36);
            let storage = DirectStorage::create(&runtime, &path, huge).expect("created");
            let over = storage.grow(BlockCount(huge.0 + 1)).await;
            assert!(matches!(over, Err(Error::Limit { .. })), "{over:?}");
            // 256 TiB: more than any file system of a test machine holds.
            let full = storage.grow(huge).await;
            assert!(matches!(full, Err(Error::Full { .. } | Error::Io { .. })), "{full:?}");
            assert_eq!(storage.geometry().length, BlockCount(0));
        }
    });
}

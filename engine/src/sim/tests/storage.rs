//! Durable means durable; everything else may be lost, torn or elsewhere.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;

use super::{LENGTH, filled, grown_disk, read, with_storage, write};
use crate::buffer::{Buffer, SharedBuffer};
use crate::error::Error;
use crate::seam::{Clock, Spawn, Storage, WriteSync};
use crate::sim::{Faults, SimDisk, SimStorage, Simulation, check_seeds};
use crate::units::{BLOCK_BYTES, BlockCount, BlockIndex};

#[test]
fn storage_gives_back_what_was_written() {
    let disk = grown_disk(1);
    with_storage(&disk, 1, |storage, _| async move {
        let mut buffer = Buffer::zeroed(BlockCount(3));
        for (at, byte) in buffer.iter_mut().enumerate() {
            *byte = (at / 7) as u8;
        }
        let wrote = SharedBuffer::from(buffer);
        let outcome = storage.write(BlockIndex(40), wrote.clone(), WriteSync::Cached).await;
        outcome.expect("the disk is well");
        let (found, outcome) = storage.read(BlockIndex(39), filled(5, 0xee)).await;
        outcome.expect("the disk is well");
        assert!(found[..BLOCK_BYTES].iter().all(|&byte| byte == 0));
        assert_eq!(found[BLOCK_BYTES..4 * BLOCK_BYTES], wrote[..]);
        assert!(found[4 * BLOCK_BYTES..].iter().all(|&byte| byte == 0));
        assert_eq!(storage.geometry().length, LENGTH);
        let beyond = storage.read(BlockIndex(LENGTH.0), filled(1, 0)).await.1;
        assert!(matches!(beyond, Err(Error::Io { errno: 22, .. })));
    });
    assert_eq!(disk.written_blocks(), [40, 41, 42]);
}

#[test]
fn a_flush_and_a_durable_write_survive_a_power_cut() {
    check_seeds("a_flush_and_a_durable_write_survive_a_power_cut", 300, |seed| {
        let disk = grown_disk(seed);
        with_storage(&disk, seed, |storage, _| async move {
            let writes = (0..20).map(|at| write(&storage, at, 1, WriteSync::Cached));
            join_all(writes).await;
            storage.flush().await.expect("the disk is well");
            write(&storage, 30, 2, WriteSync::Durable).await;
            // What comes later must not take back what was durable.
            write(&storage, 40, 3, WriteSync::Cached).await;
        });
        disk.power_cut();
        assert!((0..20).all(|at| *disk.peek(at) == [1; BLOCK_BYTES]));
        assert_eq!(*disk.peek(30), [2; BLOCK_BYTES]);
    });
}

#[test]
fn a_flush_covers_only_what_completed_before_it_was_called() {
    let lost = Cell::new(0);
    check_seeds("a_flush_covers_only_what_completed_before_it_was_called", 200, |seed| {
        let disk = grown_disk(seed);
        with_storage(&disk, seed, |storage, _| async move {
            let flush = storage.flush();
            write(&storage, 1, 1, WriteSync::Cached).await;
            flush.await.expect("the disk is well");
        });
        disk.power_cut();
        lost.set(lost.get() + u32::from(*disk.peek(1) != [1; BLOCK_BYTES]));
    });
    assert!(lost.get() > 20, "lost {} times", lost.get());
}

#[test]
fn what_is_not_durable_is_kept_lost_or_torn() {
    let fates: [Cell<u32>; 4] = Default::default();
    check_seeds("what_is_not_durable_is_kept_lost_or_torn", 400, |seed| {
        let disk = grown_disk(seed);
        with_storage(&disk, seed, |storage, _| async move {
            write(&storage, 5, 1, WriteSync::Durable).await;
            write(&storage, 5, 2, WriteSync::Cached).await;
            write(&storage, 5, 3, WriteSync::Cached).await;
        });
        disk.power_cut();
        let block = disk.peek(5);
        for sector in block.chunks(512) {
            assert!((1..=3).contains(&sector[0]) && sector.iter().all(|&byte| byte == sector[0]));
        }
        let is_whole = block.iter().all(|&byte| byte == block[0]);
        let fate = &fates[if is_whole { usize::from(block[0]) } else { 0 }];
        fate.set(fate.get() + 1);
    });
    assert!(fates.iter().all(|fate| fate.get() > 10), "torn, oldest, older, newest: {fates:?}");
}

#[test]
fn a_durable_write_in_flight_may_be_torn() {
    let torn = Cell::new(0);
    check_seeds("a_durable_write_in_flight_may_be_torn", 400, |seed| {
        let disk = grown_disk(seed);
        let simulation = Simulation::new(seed);
        let runtime = simulation.group();
        let storage = disk.open(&runtime);
        drop(storage.write(BlockIndex(0), filled(2, 9), WriteSync::Durable));
        disk.power_cut();
        simulation.run();
        let block = disk.peek(1);
        torn.set(torn.get() + u32::from(block.contains(&9) && block.contains(&0)));
    });
    assert!(torn.get() > 10, "torn {} times", torn.get());
}

#[test]
fn dropping_a_future_does_not_cancel_its_operation() {
    let disk = grown_disk(2);
    with_storage(&disk, 2, |storage, runtime| async move {
        let mut polled = Box::pin(storage.write(BlockIndex(1), filled(1, 1), WriteSync::Cached));
        assert!(polled.as_mut().now_or_never().is_none());
        drop(polled);
        drop(storage.write(BlockIndex(2), filled(1, 2), WriteSync::Cached));
        runtime.sleep(Duration::from_secs(1)).await;
    });
    assert_eq!((disk.peek(1)[0], disk.peek(2)[0]), (1, 2));
}

#[test]
fn completions_change_order() {
    let disk = grown_disk(3);
    let order = with_storage(&disk, 3, |storage, _| async move {
        let order = Rc::new(RefCell::new(Vec::new()));
        let writes = (0..50).map(|at| {
            let (storage, order) = (storage.clone(), order.clone());
            async move {
                write(&storage, at, 1, WriteSync::Cached).await;
                order.borrow_mut().push(at);
            }
        });
        join_all(writes).await;
        order.take()
    });
    assert_eq!(order.len(), 50);
    assert!(!order.is_sorted());
}

#[test]
fn lost_and_misdirected_writes_are_acknowledged() {
    let disk = grown_disk(4);
    disk.lose_next_write();
    disk.misdirect_next_write(77);
    with_storage(&disk, 4, |storage, _| async move {
        write(&storage, 1, 1, WriteSync::Durable).await;
        write(&storage, 2, 2, WriteSync::Durable).await;
        write(&storage, 3, 3, WriteSync::Durable).await;
    });
    assert_eq!(disk.written_blocks(), [3, 77]);
    assert_eq!((disk.peek(77)[0], disk.peek(3)[0]), (2, 3));
}

#[test]
fn an_unreadable_block_is_readable_again_once_written() {
    let disk = grown_disk(5);
    disk.make_unreadable(7..9);
    let disk_in_task = disk.clone();
    with_storage(&disk, 5, |storage, _| async move {
        let wide = storage.read(BlockIndex(5), filled(4, 0)).await.1;
        assert!(matches!(wide, Err(Error::Io { at: BlockIndex(7), errno: 5, .. })));
        write(&storage, 7, 1, WriteSync::Cached).await;
        assert_eq!(read(&storage, 7).await.expect("rewritten")[0], 1);
        assert!(read(&storage, 8).await.is_err());
        disk_in_task.make_unwritable(20..21);
        let failed = storage.write(BlockIndex(19), filled(3, 1), WriteSync::Cached).await;
        assert!(matches!(failed, Err(Error::Io { at: BlockIndex(20), errno: 5, .. })));
        disk_in_task.make_writable();
        write(&storage, 20, 1, WriteSync::Cached).await;
    });
}

#[test]
fn a_failed_flush_forgets_what_was_cached() {
    let lost = Cell::new(0);
    check_seeds("a_failed_flush_forgets_what_was_cached", 200, |seed| {
        let disk = grown_disk(seed);
        disk.fail_flushes(1);
        with_storage(&disk, seed, |storage, _| async move {
            write(&storage, 1, 1, WriteSync::Cached).await;
            assert_eq!(storage.flush().await, Err(Error::FlushFailed { errno: 5 }));
            storage.flush().await.expect("believes in itself again");
        });
        let before = disk.peek(1);
        disk.power_cut();
        assert_eq!(disk.peek(1), before, "nothing is open any more");
        lost.set(lost.get() + u32::from(*before != [1; BLOCK_BYTES]));
    });
    assert!((20..180).contains(&lost.get()), "lost {} times", lost.get());
}

#[test]
fn rot_full_and_read_only_disks() {
    let disk = grown_disk(6);
    disk.rot(3, 8 * 100 + 2);
    assert_eq!((disk.peek(3)[100], disk.written_blocks()), (4, vec![3]));

    let small = SimDisk::new(6, BlockCount(100));
    small.limit_free(Some(10));
    with_storage(&small, 6, |storage, _| async move {
        assert_eq!(storage.free().await, Ok(BlockCount(10)));
        let full = storage.grow(BlockCount(11)).await;
        assert_eq!(full, Err(Error::Full { free_bytes: 40960, capacity_bytes: 409_600 }));
        storage.grow(BlockCount(10)).await.expect("there is room");
        assert_eq!(storage.geometry().length, BlockCount(10));
    });
    small.limit_free(None);
    small.set_read_only(true);
    with_storage(&small, 6, |storage, _| async move {
        let refused = storage.write(BlockIndex(0), filled(1, 1), WriteSync::Cached).await;
        assert!(matches!(refused, Err(Error::Io { errno: 30, .. })));
        assert!(storage.grow(BlockCount(20)).await.is_err());
        assert_eq!(read(&storage, 0).await.expect("reads go on")[0], 0);
    });
}

#[test]
fn a_stalled_disk_answers_once_released_and_a_vanished_one_fails() {
    let disk = grown_disk(7);
    let simulation = Simulation::new(7);
    let runtime = simulation.group();
    let storage = Rc::new(disk.open(&runtime));
    let done = Rc::new(Cell::new(false));
    let (writer, flag) = (storage.clone(), done.clone());
    disk.stall();
    runtime.spawn(async move {
        write(&writer, 1, 1, WriteSync::Cached).await;
        flag.set(true);
    });
    simulation.run_for(Duration::from_secs(10));
    assert!(!done.get() && disk.is_stalled());
    disk.release();
    simulation.run_for(Duration::from_secs(1));
    assert!(done.get());

    disk.vanish();
    let prober = storage.clone();
    let gone = simulation.block_on(&runtime, async move {
        (prober.probe().await, read(&prober, 1).await.map(drop), prober.flush().await)
    });
    for outcome in [gone.0, gone.1, gone.2] {
        assert!(matches!(outcome, Err(Error::Unavailable { .. })));
    }
    disk.reappear();
    let found = simulation.block_on(&runtime, async move { read(&storage, 1).await });
    assert_eq!(found.expect("it is back")[0], 1);
}

#[test]
fn exchanged_disks_end_their_openings() {
    let (first, second) = (grown_disk(8), grown_disk(9));
    let simulation = Simulation::new(8);
    let runtime = simulation.group();
    let storage = Rc::new(first.open(&runtime));
    let writer = storage.clone();
    simulation.block_on(&runtime, async move {
        write(&writer, 1, 1, WriteSync::Durable).await;
    });
    first.swap(&second);
    let prober = storage.clone();
    let probe = simulation.block_on(&runtime, async move { prober.probe().await });
    assert!(matches!(probe, Err(Error::Unavailable { .. })));
    assert_eq!((first.peek(1)[0], second.peek(1)[0]), (0, 1));
    let late = simulation.block_on(&runtime, async move {
        storage.write(BlockIndex(2), filled(1, 2), WriteSync::Cached).await
    });
    assert!(late.is_err() && first.written_blocks().is_empty());
    second.blank();
    assert!(second.written_blocks().is_empty());
    assert_eq!(second.open(&runtime).geometry().length, BlockCount(0));
}

#[test]
fn after_a_power_cut_nothing_completes() {
    let disk = grown_disk(10);
    let simulation = Simulation::new(10);
    let runtime = simulation.group();
    let storage = Rc::new(disk.open(&runtime));
    let completed = Rc::new(Cell::new(0));
    for at in 0..10 {
        let (storage, completed) = (storage.clone(), completed.clone());
        runtime.spawn(async move {
            write(&storage, at, 1, WriteSync::Cached).await;
            completed.set(completed.get() + 1);
        });
    }
    simulation.run_until(|| completed.get() == 3, Duration::from_secs(1));
    disk.power_cut();
    let reopened = disk.open(&runtime);
    simulation.run();
    assert_eq!(completed.get(), 3);
    let found = simulation.block_on(&runtime, async move { read(&reopened, 0).await });
    found.expect("the new opening works");
}

#[test]
fn faults_by_chance_happen_and_repeat() {
    let run = |seed| {
        let disk = grown_disk(seed);
        disk.set_faults(Faults {
            read_error_ppm: 50_000,
            write_error_ppm: 50_000,
            flush_failure_ppm: 100_000,
            lost_write_ppm: 50_000,
            misdirected_write_ppm: 50_000,
            bit_rot_ppm: 50_000,
            stall_ppm: 0,
        });
        let failed = with_storage(&disk, seed, |storage, _| async move {
            let mut failed = [0u32; 3];
            for at in 0..200 {
                let write = storage.write(BlockIndex(at), filled(1, 1), WriteSync::Cached).await;
                failed[0] += u32::from(write.is_err());
                failed[1] += u32::from(storage.flush().await.is_err());
                failed[2] += u32::from(read(&storage, at).await.is_err());
            }
            failed
        });
        let written = disk.written_blocks();
        let sum: u64 = written
            .iter()
            .map(|&at| crate::checksum::crc64(&disk.peek(at)[..]))
            .fold(0, |sum, crc| sum.wrapping_mul(31).wrapping_add(crc));
        (failed, written, sum)
    };
    let (failed, written, sum) = run(11);
    assert!(failed.iter().all(|&count| count > 2), "{failed:?}");
    assert!(written.len() < 200 && written.last() > Some(&200), "lost and misdirected");
    assert_eq!((failed, written, sum), run(11));
}

#[test]
fn what_a_dying_process_drops_does_not_reach_the_disk() {
    struct WritesWhenDropped(Rc<SimStorage>);
    impl Drop for WritesWhenDropped {
        fn drop(&mut self) {
            drop(self.0.write(BlockIndex(1), filled(1, 1), WriteSync::Cached));
        }
    }
    let disk = grown_disk(15);
    let simulation = Simulation::new(15);
    let runtime = simulation.group();
    let storage = Rc::new(disk.open(&runtime));
    drop(storage.write(BlockIndex(2), filled(1, 2), WriteSync::Cached));
    let last_words = WritesWhenDropped(storage);
    runtime.spawn(async move {
        let _last_words = last_words;
        std::future::pending::<()>().await;
    });
    simulation.run_for(Duration::from_nanos(1));
    runtime.stop();
    simulation.run();
    assert_eq!(disk.written_blocks(), [2], "what the device had is done, nothing is added");
}

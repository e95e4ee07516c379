//! What a drive does when its device goes wrong.

use basalt_engine::Error;
use basalt_engine::drive::Drive;
use basalt_engine::drive::inspect::Inspection;
use basalt_engine::record::Kind;
use basalt_engine::request::{Reply, Request};
use basalt_engine::sim::SimDisk;
use basalt_engine::units::{OperationId, PayloadId, Slot};

use crate::support::{
    JOURNAL_BLOCKS, JOURNAL_START, SEGMENTS_START, check_run, check_small, digest, formatted_disk,
    idle, in_world, key, list_all, orphans, put, put_ok, request, stage_run, with_drive,
};

fn damage_of(disk: &SimDisk) -> Option<Error> {
    in_world(disk, 7, |storage, runtime| async move {
        let drive = Drive::open(runtime, storage).await.expect("it opens");
        drive.damaged().cloned()
    })
}

#[test]
fn a_failed_flush_fences_the_drive_until_it_is_opened_anew() {
    let disk = formatted_disk(1);
    let device = disk.clone();
    with_drive(&disk, 1, move |drive, _| async move {
        put_ok(&drive, "before", 1).await;
        device.fail_flushes(1);
        let reply = stage_run(&drive, PayloadId(2), &key("lost"), OperationId(2), 3).await;
        assert!(matches!(reply, Reply::Failed(Error::FlushFailed { .. })), "{reply:?}");
        let reply = put(&drive, "after", 3).await;
        assert!(matches!(reply, Reply::Failed(Error::FlushFailed { .. })), "{reply:?}");
        let reply = drive.handle(Request::Digest { key: key("before"), payload: false }).await;
        assert!(matches!(reply, Reply::Failed(_)), "{reply:?}");
        assert!(drive.fenced().is_some());
    });
    with_drive(&disk, 2, |drive, _| async move {
        assert_eq!(digest(&drive, &key("before")).await.slots.len(), 1);
        assert_eq!(digest(&drive, &key("after")).await.slots.len(), 0);
        check_small(&drive, PayloadId(1), 100).await;
    });
}

#[test]
fn a_failed_journal_write_fences_the_drive() {
    let disk = formatted_disk(2);
    let device = disk.clone();
    with_drive(&disk, 1, move |drive, _| async move {
        put_ok(&drive, "before", 1).await;
        device.make_unwritable(JOURNAL_START..JOURNAL_START + JOURNAL_BLOCKS);
        let reply = put(&drive, "lost", 2).await;
        assert!(matches!(reply, Reply::Failed(Error::FlushFailed { .. })), "{reply:?}");
        device.make_writable();
        let reply = put(&drive, "lost", 2).await;
        assert!(matches!(reply, Reply::Failed(Error::FlushFailed { .. })), "{reply:?}");
    });
    with_drive(&disk, 2, |drive, _| async move {
        assert_eq!(digest(&drive, &key("before")).await.slots.len(), 1);
        put_ok(&drive, "lost", 2).await;
    });
}

#[test]
fn a_write_error_in_a_segment_fails_the_shard_alone() {
    let disk = formatted_disk(3);
    let device = disk.clone();
    with_drive(&disk, 1, move |drive, _| async move {
        device.make_unwritable(SEGMENTS_START + 2..SEGMENTS_START + 3);
        let reply = stage_run(&drive, PayloadId(1), &key("a"), OperationId(1), 9).await;
        assert!(matches!(reply, Reply::Failed(Error::Io { .. })), "{reply:?}");
        let seal = drive.handle(Request::StageSeal { payload: PayloadId(1) }).await;
        assert!(matches!(seal, Reply::Failed(Error::Io { .. })), "{seal:?}");
        assert!(matches!(
            drive.handle(Request::Discard { payload: PayloadId(1) }).await,
            Reply::Done
        ));
        assert!(orphans(&drive).await.is_empty());
        // The segment is left alone; the shard fits elsewhere.
        let reply = stage_run(&drive, PayloadId(1), &key("a"), OperationId(1), 9).await;
        assert!(matches!(reply, Reply::Done), "{reply:?}");
        check_run(&drive, PayloadId(1), 9).await;
    });
}

#[test]
fn a_torn_tail_is_the_end_and_rot_before_it_is_damage() {
    let disk = formatted_disk(4);
    with_drive(&disk, 1, |drive, runtime| async move {
        for id in 1..6 {
            put_ok(&drive, &format!("key {id}"), id).await;
        }
        idle(&runtime).await;
    });
    // Five batches, the first with the start of the process in it, and the mark.
    let rotten = |at: u64| {
        let rotten = formatted_disk(4);
        with_drive(&rotten, 1, |drive, runtime| async move {
            for id in 1..6 {
                put_ok(&drive, &format!("key {id}"), id).await;
            }
            idle(&runtime).await;
        });
        rotten.rot(JOURNAL_START + at, 1000);
        rotten
    };
    assert_eq!(damage_of(&disk), None);
    let corrupt = |damage: Option<Error>| matches!(damage, Some(Error::Corrupt { .. }));
    for at in 0..5 {
        assert!(corrupt(damage_of(&rotten(at))), "batch {at} rotted");
    }
    // The mark holds nothing: that it was lost is no loss.
    let marked = rotten(5);
    assert_eq!(damage_of(&marked), None);
    // A block that cannot be read where the next batch belongs might be one that was durable.
    let unreadable = rotten(20);
    unreadable.make_unreadable(JOURNAL_START + 6..JOURNAL_START + 7);
    assert!(corrupt(damage_of(&unreadable)));
}

#[test]
fn a_damaged_drive_abstains_but_reads() {
    let disk = formatted_disk(5);
    with_drive(&disk, 1, |drive, runtime| async move {
        put_ok(&drive, "packed", 1).await;
        assert!(matches!(
            stage_run(&drive, PayloadId(2), &key("run"), OperationId(2), 5).await,
            Reply::Done
        ));
        drive.checkpoint().await.expect("the disk is well");
        put_ok(&drive, "lost", 3).await;
        put_ok(&drive, "behind", 4).await;
        idle(&runtime).await;
    });
    let lost = (JOURNAL_START..JOURNAL_START + JOURNAL_BLOCKS)
        .find(|&at| contains(&disk.peek(at)[..], b"lost"))
        .expect("the batch is in the journal");
    disk.rot(lost, 800);
    in_world(&disk, 2, |storage, runtime| async move {
        let drive = Drive::open(runtime, storage).await.expect("it opens");
        assert!(matches!(drive.damaged(), Some(Error::Corrupt { .. })));
        check_small(&drive, PayloadId(1), 100).await;
        check_run(&drive, PayloadId(2), 5).await;
        let scanned = drive.handle(Request::Scan { after: None, limit: 10 }).await;
        assert!(matches!(scanned, Reply::Scanned { entries, .. } if entries.len() == 1));
        for request in [
            Request::Digest { key: key("packed"), payload: false },
            Request::List(list_all(10)),
            Request::Discard { payload: PayloadId(2) },
            Request::Holds { payloads: vec![PayloadId(2)] },
            request(&key("new"), Slot::first(0), None, Kind::Data, 9),
        ] {
            let reply = drive.handle(request).await;
            assert!(matches!(reply, Reply::Failed(Error::Corrupt { .. })), "{reply:?}");
        }
        assert!(drive.checkpoint().await.is_err());
        drive.close().await.expect("nothing is left to do");
    });
}

fn contains(block: &[u8], text: &[u8]) -> bool {
    block.windows(text.len()).any(|window| window == text)
}

#[test]
fn a_rotten_page_of_the_index_is_damage() {
    let disk = formatted_disk(6);
    with_drive(&disk, 1, |drive, _| async move {
        put_ok(&drive, "a key in a page", 1).await;
        drive.close().await.expect("the disk is well");
    });
    let mut blocks = disk.written_blocks().into_iter().filter(|&at| at >= SEGMENTS_START);
    let page = blocks.rfind(|&at| contains(&disk.peek(at)[..], b"a key in a page"));
    disk.rot(page.expect("the key stands in a page"), 800);
    assert!(matches!(damage_of(&disk), Some(Error::Corrupt { what: "page of the index", .. })));
}

#[test]
fn two_equal_superblocks_are_enough() {
    for lost in [[0, 64], [64, 128], [0, 192], [128, 192]] {
        let disk = formatted_disk(7);
        with_drive(&disk, 1, |drive, _| async move { put_ok(&drive, "kept", 1).await });
        for at in lost {
            disk.rot(at, 77);
        }
        with_drive(&disk, 2, |drive, _| async move {
            assert_eq!(digest(&drive, &key("kept")).await.slots.len(), 1);
        });
        // Opening repaired the copies; another two may go.
        for at in [0, 64, 128, 192].into_iter().filter(|at| !lost.contains(at)) {
            disk.rot(at, 77);
        }
        assert_eq!(damage_of(&disk), None);
        for at in [0, 64, 128] {
            disk.rot(at, 77);
        }
        let opened = in_world(&disk, 3, |storage, runtime| async move {
            Drive::open(runtime, storage).await.map(|_| ())
        });
        assert!(matches!(opened, Err(Error::Corrupt { what: "superblock", .. })));
    }
}

#[test]
fn wrong_payload_is_found_when_it_is_read_or_verified() {
    let disk = formatted_disk(8);
    let device = disk.clone();
    with_drive(&disk, 1, move |drive, _| async move {
        for id in 1..4 {
            let reply = stage_run(&drive, PayloadId(id), &key("run"), OperationId(id), 5).await;
            assert!(matches!(reply, Reply::Done));
        }
        device.lose_next_write();
        stage_run(&drive, PayloadId(4), &key("run"), OperationId(4), 5).await;
        // Lands on the data of payload 2.
        device.misdirect_next_write(SEGMENTS_START + 7);
        stage_run(&drive, PayloadId(5), &key("run"), OperationId(5), 1).await;
        drive.close().await.expect("the disk is well");
    });
    disk.rot(SEGMENTS_START + 2, 5);
    in_world(&disk, 2, |storage, _| async move {
        let inspection = Inspection::read(&storage).await.expect("a drive");
        assert_eq!(inspection.damage(), None);
        let verified = inspection.verify().await;
        let faulty: Vec<u128> = verified.faults.iter().map(|(payload, _)| payload.0).collect();
        assert_eq!((verified.payloads, faulty), (5, vec![1, 2, 4, 5]));
    });
    with_drive(&disk, 3, |drive, _| async move {
        check_run(&drive, PayloadId(3), 5).await;
        // The checksum block never landed: the drive sees it by itself.
        let read = Request::ReadRun { payload: PayloadId(4), first_block: 0, blocks: 5 };
        let reply = drive.handle(read).await;
        assert!(matches!(reply, Reply::Failed(Error::Corrupt { .. })), "{reply:?}");
        let drop = Request::DropShard { payload: PayloadId(4), key: key("unknown") };
        assert!(matches!(drive.handle(drop).await, Reply::Done));
        let read = Request::ReadRun { payload: PayloadId(4), first_block: 0, blocks: 5 };
        let reply = drive.handle(read).await;
        assert!(matches!(reply, Reply::Failed(Error::PayloadMissing { .. })), "{reply:?}");
    });
}

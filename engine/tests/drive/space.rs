//! Room: when there is none, when it comes back, and that none is lost.

use std::rc::Rc;
use std::time::Duration;

use basalt_engine::Error;
use basalt_engine::record::Kind;
use basalt_engine::request::{Certificate, Refusal, Reply, Request};
use basalt_engine::seam::Clock;
use basalt_engine::units::{BLOCK_BYTES, Ballot, OperationId, PayloadId, Slot};

use crate::support::{
    EPOCH, SEGMENT_BLOCKS, SEGMENTS, SimDrive, check_run, check_small, formatted_disk, key, layout,
    orphans, put, put_many, record, request, settle, small, stage_run, with_drive,
};

#[test]
fn a_full_drive_refuses_puts_and_takes_deletes() {
    let disk = formatted_disk(9);
    with_drive(&disk, 1, |drive, _| async move {
        let mut stored = Vec::new();
        for id in 1.. {
            let name = format!("key {id}");
            match stage_run(&drive, PayloadId(id), &key(&name), OperationId(id), 15).await {
                Reply::Done => {}
                Reply::Failed(Error::Full { .. }) => break,
                other => panic!("{other:?}"),
            }
            let record = record(Kind::Data, OperationId(id), vec![layout(PayloadId(id), 60_000)]);
            let (epoch, key, slot, ballot) = (EPOCH, key(&name), Slot::first(0), Ballot::FAST);
            let accept = Request::Accept {
                epoch,
                key,
                slot,
                ballot,
                base: None,
                record,
                copy: None,
                fresh: ballot.is_fast(),
            };
            assert!(matches!(drive.handle(accept).await, Reply::Accepted { .. }));
            stored.push((name, id));
        }
        assert!(stored.len() > 10, "{} objects fit", stored.len());
        let reply = put(&drive, "one more", 1000).await;
        assert!(matches!(reply, Reply::Refused { refusal: Refusal::Full, .. }), "{reply:?}");
        let shard = small(PayloadId(1001), 9000);
        let (payload, operation) = (PayloadId(1001), OperationId(1001));
        let stage = Request::StageSmall { payload, key: key("one more"), operation, shard };
        let reply = drive.handle(stage).await;
        assert!(matches!(reply, Reply::Failed(Error::Full { .. })), "{reply:?}");

        // Deletes fit, one for every object, and make room again.
        for (name, id) in &stored {
            let slot = Slot::first(0);
            let base = Some(Certificate { slot, operation: OperationId(*id) });
            let delete = request(&key(name), slot.next(), base, Kind::Tombstone, id + 5000);
            assert!(matches!(drive.handle(delete).await, Reply::Accepted { .. }));
            settle(&drive, name, slot.next(), id + 5000).await;
        }
        drive.checkpoint().await.expect("a checkpoint fits");
        assert_eq!(put_many(&drive, 2000).await, stored.len(), "all room is free again");
    });
}

#[test]
fn repeated_kills_leak_no_space() {
    let disk = formatted_disk(10);
    let count = with_drive(&disk, 1, |drive, _| async move { put_many(&drive, 1).await });
    for life in 0..60 {
        // Killed with shards half staged, staged and packed.
        with_drive(&disk, life, move |drive, _| async move {
            let (payload, operation) = (PayloadId(70), OperationId(70));
            let open =
                Request::StageOpen { payload, key: key("half"), operation, length_blocks: 9 };
            assert!(matches!(drive.handle(open).await, Reply::Done));
            let id = 1000 + u128::from(life);
            let reply = stage_run(&drive, PayloadId(id), &key("k"), OperationId(id), 7).await;
            assert!(matches!(reply, Reply::Done), "{reply:?}");
            if life % 3 == 0 {
                drive.checkpoint().await.expect("the disk is well");
            }
            let discard = Request::Discard { payload: PayloadId(id) };
            assert!(matches!(drive.handle(discard).await, Reply::Done));
        });
    }
    with_drive(&disk, 99, move |drive, _| async move {
        assert!(orphans(&drive).await.is_empty());
        let again = put_many(&drive, 5000).await;
        assert!(again + 2 >= count, "{again} shards fit where {count} did");
    });
}

#[test]
fn growth_that_fails_makes_the_drive_full_until_there_is_room() {
    let disk = formatted_disk(16);
    let device = disk.clone();
    with_drive(&disk, 1, move |drive, runtime| async move {
        device.limit_free(Some(0));
        let count = put_many(&drive, 1).await;
        assert!(count < (SEGMENTS / 2) as usize, "{count} shards in what there was");
        device.limit_free(None);
        runtime.sleep(Duration::from_secs(2)).await;
        let more = put_many(&drive, 1000).await;
        assert!(more > count + 10, "{more} shards, {count} before");
        assert!(more as u64 <= SEGMENTS * SEGMENT_BLOCKS / 16);
    });
}

#[test]
fn compaction_empties_what_is_mostly_dead() {
    let disk = formatted_disk(22);
    with_drive(&disk, 1, |drive, _| async move {
        // Shards and packs of which each segment keeps a little.
        let mut kept = Vec::new();
        for id in 1..37 {
            let name = key(&format!("run {id}"));
            match stage_run(&drive, PayloadId(id), &name, OperationId(id), 8).await {
                Reply::Done => kept.push(id),
                other => panic!("{id}: {other:?}"),
            }
        }
        for id in 100..130 {
            let (payload, operation) = (PayloadId(id), OperationId(id));
            let stage = Request::StageSmall {
                payload,
                key: key("s"),
                operation,
                shard: small(payload, 9000),
            };
            assert!(matches!(drive.handle(stage).await, Reply::Done));
        }
        drive.checkpoint().await.expect("the disk is well");
        let is_kept = |id: u128| id % 6 == 1;
        for id in (1..37).chain(100..130).filter(|&id| !is_kept(id)) {
            drive.handle(Request::Discard { payload: PayloadId(id) }).await;
        }
        let before = empty_segments(&drive).await;
        for _ in 0..6 {
            drive.compact().await.expect("there is room");
            drive.checkpoint().await.expect("the disk is well");
        }
        let after = empty_segments(&drive).await;
        assert!(after >= before + 5, "{before} empty before, {after} after");
        for id in (1..37).filter(|&id| is_kept(id)) {
            check_run(&drive, PayloadId(id), 8).await;
        }
        for id in (100..130).filter(|&id| is_kept(id)) {
            check_small(&drive, PayloadId(id), 9000).await;
        }
    });
    with_drive(&disk, 2, |drive, _| async move {
        check_run(&drive, PayloadId(7), 8).await;
        check_small(&drive, PayloadId(103), 9000).await;
    });
}

async fn empty_segments(drive: &Rc<SimDrive>) -> u64 {
    let Reply::Status(status) = drive.handle(Request::Status).await else { panic!("a status") };
    status.free_bytes / (SEGMENT_BLOCKS * BLOCK_BYTES as u64)
}

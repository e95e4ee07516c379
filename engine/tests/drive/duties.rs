//! What a drive owes its callers, one thing after the other.

use std::rc::Rc;
use std::time::Duration;

use basalt_engine::Error;
use basalt_engine::buffer::Buffer;
use basalt_engine::checksum::{RUN_BLOCKS, seal_run, verify_blocks};
use basalt_engine::drive::inspect::Inspection;
use basalt_engine::drive::{Drive, Format};
use basalt_engine::record::Kind;
use basalt_engine::request::{
    Certificate, ListAfter, ListRequest, Orphan, Refusal, Reply, Request, SetMap,
};
use basalt_engine::seam::Clock;
use basalt_engine::sim::{SimDisk, SimRuntime, SimStorage};
use basalt_engine::units::{
    BLOCK_BYTES, Ballot, BlockCount, Epoch, Incarnation, Key, Keyspace, OperationId, PayloadId,
    Slot,
};
use bytes::Bytes;

use crate::support::{
    EPOCH, SimDrive, check_run, check_small, content, digest, format, formatted_disk, idle,
    in_world, key, layout, map, orphans, put, put_ok, record, request, run_buffer, settle,
    stage_run, with_drive,
};

#[test]
fn an_unacknowledged_certificate_is_durable_soon() {
    let disk = formatted_disk(11);
    with_drive(&disk, 1, |drive, runtime| async move {
        put_ok(&drive, "k", 1).await;
        settle(&drive, "k", Slot::first(0), 1).await;
        runtime.sleep(Duration::from_secs(1)).await;
    });
    disk.power_cut();
    with_drive(&disk, 2, |drive, _| async move {
        let slots = digest(&drive, &key("k")).await.slots;
        assert!(slots[0].certified && slots[0].settled);
    });
}

#[test]
fn orphans_say_whether_they_are_of_a_former_life() {
    let disk = formatted_disk(12);
    let former = |drive: Rc<SimDrive>| async move {
        match drive.handle(Request::Orphans { after: None, limit: 10 }).await {
            Reply::Orphans { entries, more: false } => entries,
            other => panic!("{other:?}"),
        }
    };
    let staged = |entries: Vec<Orphan>| -> Vec<(u128, bool)> {
        entries.iter().map(|orphan| (orphan.payload.0, orphan.former_life)).collect()
    };
    for checkpointed in [false, true] {
        let disk = disk.clone();
        let found = with_drive(&disk, 1, move |drive, _| async move {
            let reply = stage_run(&drive, PayloadId(1), &key("k"), OperationId(1), 2).await;
            assert!(matches!(reply, Reply::Done));
            if checkpointed {
                drive.checkpoint().await.expect("the disk is well");
            }
            former(drive).await
        });
        assert_eq!(staged(found), [(1, checkpointed)]);
    }
    let found = with_drive(&disk, 2, move |drive, _| former(drive));
    assert_eq!(staged(found), [(1, true)]);
}

#[test]
fn a_relocated_payload_stays_until_it_is_released() {
    let disk = formatted_disk(13);
    let part = Key::new(Keyspace::Parts, Incarnation(1), b"upload/1");
    with_drive(&disk, 1, move |drive, _| async move {
        let payload = PayloadId(1);
        let first = Slot::first(0);
        drive.handle(request(&part, first, None, Kind::Data, 1)).await;
        let base = Some(Certificate { slot: first, operation: OperationId(1) });
        drive.handle(request(&part, first.next(), base, Kind::Relocated, 2)).await;
        let certificate = Certificate { slot: first.next(), operation: OperationId(2) };
        let (of, listed) = (part.clone(), vec![]);
        drive.handle(Request::Certify { key: of, certificate, settled: true, listed }).await;
        assert!(orphans(&drive).await.is_empty());
        drive.handle(Request::Discard { payload }).await;
        check_small(&drive, payload, 100).await;
        let relocated = drive.handle(Request::Relocated { after: None, limit: 10 }).await;
        assert!(matches!(relocated, Reply::Orphans { entries, .. } if entries.len() == 1));

        // The object's record takes it over; when that is superseded, the payload goes with it.
        let object = record(Kind::Data, OperationId(3), vec![layout(payload, 100)]);
        let (epoch, key, ballot) = (EPOCH, key("object"), Ballot::FAST);
        let (base, copy) = (None, None);
        let accept = Request::Accept {
            epoch,
            key,
            slot: first,
            ballot,
            base,
            record: object,
            copy,
            fresh: ballot.is_fast(),
        };
        let accepted = drive.handle(accept).await;
        assert!(matches!(accepted, Reply::Accepted { has_shards: true }), "{accepted:?}");
        drive.handle(Request::Release { payload }).await;
        check_small(&drive, payload, 100).await;
        let base = Some(Certificate { slot: first, operation: OperationId(3) });
        let delete =
            request(&crate::support::key("object"), first.next(), base, Kind::Tombstone, 4);
        drive.handle(delete).await;
        settle(&drive, "object", first.next(), 4).await;
        let read = drive.handle(Request::ReadSmall { payload }).await;
        assert!(matches!(read, Reply::Failed(Error::PayloadMissing { .. })), "{read:?}");
    });
}

#[test]
fn closing_buckets_and_newer_maps_are_kept() {
    let disk = formatted_disk(14);
    let newer = SetMap { epoch: Epoch(EPOCH.0 + 1), ..map() };
    let expected = newer.clone();
    with_drive(&disk, 1, |drive, _| async move {
        put_ok(&drive, "before", 1).await;
        let incarnation = Incarnation(1);
        assert!(matches!(drive.handle(Request::CloseBucket { incarnation }).await, Reply::Done));
        let reply = put(&drive, "after", 2).await;
        assert!(
            matches!(reply, Reply::Refused { refusal: Refusal::BucketClosing, .. }),
            "{reply:?}"
        );
        put_ok(&drive, "before", 1).await;
        for (name, id) in [("before", 1), ("after", 2)] {
            let mut recovered = request(&key(name), Slot::first(0), None, Kind::Data, id);
            if let Request::Accept { ballot, fresh, .. } = &mut recovered {
                (*ballot, *fresh) = (Ballot { round: 1, proposer: 9 }, false);
            }
            let reply = drive.handle(recovered).await;
            assert!(
                matches!(reply, Reply::Refused { refusal: Refusal::BucketClosing, .. }),
                "nothing is decided any more, {name} neither: {reply:?}"
            );
        }
        assert!(matches!(drive.handle(Request::InstallMap { map: newer }).await, Reply::Done));
        let reply = put(&drive, "before", 1).await;
        assert!(matches!(reply, Reply::Refused { refusal: Refusal::OldEpoch(_), .. }), "{reply:?}");
    });
    for checkpointed in [false, true] {
        let expected = expected.clone();
        with_drive(&disk, 2, move |drive, _| async move {
            let Reply::Status(status) = drive.handle(Request::Status).await else {
                panic!("status")
            };
            assert_eq!(status.map, expected);
            let mut accept = request(&key("new"), Slot::first(0), None, Kind::Data, 3);
            if let Request::Accept { epoch, .. } = &mut accept {
                *epoch = expected.epoch;
            }
            let reply = drive.handle(accept).await;
            assert!(
                matches!(reply, Reply::Refused { refusal: Refusal::BucketClosing, .. }),
                "{reply:?}"
            );
            if !checkpointed {
                drive.close().await.expect("the disk is well");
            }
        });
    }
}

#[test]
fn a_listing_passes_over_groups_and_tombstones() {
    let disk = formatted_disk(15);
    with_drive(&disk, 1, |drive, _| async move {
        let names = ["a/1", "a/2", "b", "c/x/1", "c/x/2", "c/y", "d"];
        for (id, name) in (1..).zip(names) {
            put_ok(&drive, name, id).await;
        }
        settle(&drive, "b", Slot::first(0), 3).await;
        let base = Some(Certificate { slot: Slot::first(0), operation: OperationId(3) });
        let delete = request(&key("b"), Slot::first(0).next(), base, Kind::Tombstone, 30);
        drive.handle(delete).await;
        let with = |prefix: &str, delimiter: Option<&'static str>, limit| ListRequest {
            prefix: key(prefix),
            after: None,
            delimiter: delimiter.map(|text| Bytes::from_static(text.as_bytes())),
            markers: false,
            limit,
        };
        // A tombstone that is not certified may not be one: it is listed.
        let flat = with("", None, 2);
        assert_eq!(list(&drive, flat.clone()).await, names);
        settle(&drive, "b", Slot::first(0).next(), 30).await;
        assert_eq!(list(&drive, flat).await, ["a/1", "a/2", "c/x/1", "c/x/2", "c/y", "d"]);
        for limit in 1..5 {
            assert_eq!(list(&drive, with("", Some("/"), limit)).await, ["a/|", "c/|", "d"]);
            assert_eq!(list(&drive, with("c/", Some("/"), limit)).await, ["c/x/|", "c/y"]);
        }
        assert!(list(&drive, with("e", Some("/"), 3)).await.is_empty());
    });
}

/// All pages of a listing: names, and common prefixes marked with a bar.
async fn list(drive: &Rc<SimDrive>, mut request: ListRequest) -> Vec<String> {
    let mut found = Vec::new();
    loop {
        let page = match drive.handle(Request::List(request.clone())).await {
            Reply::Listed(page) => page,
            other => panic!("{other:?}"),
        };
        match drive.handle(Request::Fingerprint(request.clone())).await {
            Reply::Fingerprint(fingerprint) => assert_eq!(fingerprint, page.fingerprint),
            other => panic!("{other:?}"),
        }
        assert!(page.entries.len() <= request.limit as usize);
        for entry in &page.entries {
            let stored = entry.key.as_bytes();
            let shown = entry.group_bytes.map_or(stored.len(), |bytes| bytes as usize);
            let name = String::from_utf8(stored[9..shown].to_vec()).expect("text");
            found.push(name + if entry.group_bytes.is_some() { "|" } else { "" });
        }
        match page.fingerprint.next {
            None => return found,
            Some(next @ (ListAfter::Key(_) | ListAfter::Prefix(_))) => request.after = Some(next),
        }
    }
}

/// A drive with segments that hold whole runs.
async fn open_large(storage: SimStorage, runtime: SimRuntime) -> Rc<SimDrive> {
    let large = Format {
        segment_blocks: Some(BlockCount(600)),
        journal_blocks: Some(BlockCount(256)),
        ..format()
    };
    Drive::format(&runtime, &storage, &large).await.expect("there is room");
    Drive::open(runtime, storage).await.expect("it opens")
}

#[test]
fn a_shard_longer_than_a_segment_reads_back_in_any_piece() {
    let disk = SimDisk::new(17, BlockCount(512 + 16 * 600));
    in_world(&disk, 17, |storage, runtime| async move {
        let drive = open_large(storage, runtime).await;
        let (payload, operation, blocks) = (PayloadId(5), OperationId(5), 1300);
        let open = Request::StageOpen { payload, key: key("k"), operation, length_blocks: blocks };
        assert!(matches!(drive.handle(open).await, Reply::Done));
        let data = content(payload, blocks as usize * BLOCK_BYTES);
        let write = |run: u64| {
            let run_bytes = RUN_BLOCKS as usize * BLOCK_BYTES;
            let piece = data.chunks(run_bytes).nth(run as usize).expect("a run");
            let mut buffer = Buffer::zeroed(BlockCount(1 + (piece.len() / BLOCK_BYTES) as u64));
            buffer[BLOCK_BYTES..].copy_from_slice(piece);
            seal_run(&mut buffer, payload, 0, run);
            drive.handle(Request::StageWrite { payload, run, buffer: buffer.into() })
        };
        // In any order, and sealed only when all are there.
        for run in [5, 0, 3, 1, 2] {
            assert!(matches!(write(run).await, Reply::Done));
        }
        let early = drive.handle(Request::StageSeal { payload }).await;
        assert!(matches!(early, Reply::Failed(Error::Unavailable { .. })), "{early:?}");
        assert!(matches!(write(4).await, Reply::Done));
        assert!(matches!(drive.handle(Request::StageSeal { payload }).await, Reply::Done));
        for (first_block, count) in
            [(0, 256), (256, 256), (1280, 20), (5, 3), (40, 1), (255, 1), (300, 200), (1299, 1)]
        {
            check_piece(&drive, payload, first_block, count, &data).await;
        }
        for (first_block, count) in [(250, 10), (1290, 11), (1300, 1), (0, 0), (0, 257)] {
            let read = Request::ReadRun { payload, first_block, blocks: count };
            let reply = drive.handle(read).await;
            assert!(matches!(reply, Reply::Failed(Error::Limit { .. })), "{reply:?}");
        }
        drive.close().await.expect("the disk is well");
    });
    in_world(&disk, 18, |storage, _| async move {
        let inspection = Inspection::read(&storage).await.expect("a drive");
        let verified = inspection.verify().await;
        assert_eq!((verified.payloads, verified.faults), (1, vec![]));
    });
}

async fn check_piece(
    drive: &Rc<SimDrive>,
    payload: PayloadId,
    first_block: u64,
    blocks: u64,
    data: &[u8],
) {
    let reply = drive.handle(Request::ReadRun { payload, first_block, blocks }).await;
    let Reply::Run(read) = reply else { panic!("{first_block}, {blocks}: {reply:?}") };
    let start = read.data_start_blocks as usize * BLOCK_BYTES;
    let found = &read.buffer[start..start + blocks as usize * BLOCK_BYTES];
    let from = first_block as usize * BLOCK_BYTES;
    assert!(found == &data[from..from + found.len()], "blocks {first_block}, {blocks}");
    assert_eq!(verify_blocks(payload, 0, first_block, found, &read.checksums), Ok(()));
}

#[test]
fn an_inspection_shows_what_there_is() {
    let disk = formatted_disk(19);
    with_drive(&disk, 1, |drive, runtime| async move {
        put_ok(&drive, "checkpointed", 1).await;
        stage_run(&drive, PayloadId(2), &key("staged"), OperationId(2), 3).await;
        drive.checkpoint().await.expect("the disk is well");
        put_ok(&drive, "journaled", 3).await;
        idle(&runtime).await;
    });
    in_world(&disk, 2, |storage, _| async move {
        let inspection = Inspection::read(&storage).await.expect("a drive");
        assert!(
            inspection.copies().iter().all(|copy| copy.as_ref() == Some(inspection.superblock()))
        );
        assert_eq!((inspection.damage(), inspection.superblock().forming), (None, true));
        assert_eq!(inspection.manifest().runs.len(), 1);
        let batches = inspection.batches().await;
        assert_eq!(batches.len(), 2, "the object and the mark");
        assert_eq!(batches[0].entries.len(), 2, "the copy and the state of the key");
        let keys = inspection.keys(None, 10);
        assert_eq!(keys.len(), 2);
        assert_eq!(inspection.key(&key("journaled")).as_ref(), Some(&keys[1].1));
        assert_eq!(inspection.payloads(None, 10).len(), 3);
        assert!(inspection.payload(PayloadId(2)).is_some());
        let live: u64 = inspection.segments().map(|segment| segment.live_bytes).sum();
        assert_eq!(live, 4 * 4096 + 100 + 2 * 4096, "runs, a pack, a page and the manifest");
    });
}

#[test]
fn a_drive_is_forming_until_it_is_formed() {
    let disk = formatted_disk(20);
    with_drive(&disk, 1, |drive, _| async move {
        drive.mark_formed().await.expect("the disk is well");
    });
    in_world(&disk, 2, |storage, _| async move {
        let inspection = Inspection::read(&storage).await.expect("a drive");
        assert!(!inspection.superblock().forming);
    });
}

#[test]
fn a_write_that_comes_while_a_shard_is_sealed_is_refused() {
    let disk = formatted_disk(21);
    with_drive(&disk, 1, |drive, _| async move {
        let (payload, operation) = (PayloadId(1), OperationId(1));
        let open = Request::StageOpen { payload, key: key("k"), operation, length_blocks: 2 };
        assert!(matches!(drive.handle(open).await, Reply::Done));
        let write = || {
            let buffer = run_buffer(payload, 2, 0);
            drive.handle(Request::StageWrite { payload, run: 0, buffer: buffer.into() })
        };
        assert!(matches!(write().await, Reply::Done));
        let seal = || drive.handle(Request::StageSeal { payload });
        let (sealed, late, again) = futures_util::join!(seal(), write(), seal());
        assert!(matches!((sealed, again), (Reply::Done, Reply::Done)));
        assert!(matches!(late, Reply::Failed(Error::Unavailable { .. })), "{late:?}");
        check_run(&drive, payload, 2).await;
    });
}

#[test]
fn a_shard_that_is_opened_again_begins_anew() {
    let disk = SimDisk::new(22, BlockCount(512 + 16 * 600));
    in_world(&disk, 22, |storage, runtime| async move {
        let drive = open_large(storage, runtime).await;
        let (payload, operation) = (PayloadId(1), OperationId(1));
        let open = || {
            let key = key("k");
            drive.handle(Request::StageOpen { payload, key, operation, length_blocks: 300 })
        };
        let write = |run: u64, blocks| {
            let buffer = run_buffer(payload, blocks, run);
            drive.handle(Request::StageWrite { payload, run, buffer: buffer.into() })
        };
        let seal = || drive.handle(Request::StageSeal { payload });
        // Its writer gave up after one run of two.
        assert!(matches!(open().await, Reply::Done));
        assert!(matches!(write(0, 256).await, Reply::Done));
        assert!(matches!(open().await, Reply::Done));
        assert!(matches!(write(1, 44).await, Reply::Done));
        assert!(matches!(seal().await, Reply::Failed(_)), "the first run is forgotten");
        assert!(matches!(write(0, 256).await, Reply::Done));
        assert!(matches!(seal().await, Reply::Done));
        // Once it is whole, it stays.
        assert!(matches!(open().await, Reply::Done));
        let holds = drive.handle(Request::Holds { payloads: vec![payload] }).await;
        assert!(matches!(holds, Reply::Holds(holds) if holds == [true]));
    });
}

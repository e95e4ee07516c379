//! A small drive on a simulated disk: a journal of a few dozen blocks and segments of some dozen,
//! so that wraps, checkpoints and reuse of segments happen all the time.

use std::rc::Rc;
use std::time::Duration;

use basalt_engine::buffer::Buffer;
use basalt_engine::checksum::{RunChecksums, seal_run, small_shard};
use basalt_engine::drive::{Drive, Format};
use basalt_engine::record::{Etag, Fields, Kind, Layout, PayloadForm, Record};
use basalt_engine::request::{
    Certificate, Digest, ListRequest, Member, Reply, Request, SetMap, SmallShard,
};
use basalt_engine::seam::Clock;
use basalt_engine::sim::{SimDisk, SimRuntime, SimStorage, Simulation};
use basalt_engine::units::{
    BLOCK_BYTES, Ballot, BlockCount, DeploymentId, DriveId, Epoch, Incarnation, Key, Keyspace,
    OperationId, PayloadId, SET_DRIVES_MAX, SetIndex, Slot, VersionId,
};
use bytes::Bytes;

pub(crate) type SimDrive = Drive<SimRuntime, SimStorage>;

pub(crate) const JOURNAL_BLOCKS: u64 = 48;
pub(crate) const SEGMENT_BLOCKS: u64 = 32;
pub(crate) const SEGMENTS: u64 = 28;
pub(crate) const JOURNAL_START: u64 = 256;
pub(crate) const SEGMENTS_START: u64 = JOURNAL_START + JOURNAL_BLOCKS;
pub(crate) const EPOCH: Epoch = Epoch(3);
/// Longest shard in runs: it has to fit a segment with its checksum block.
pub(crate) const SHARD_BLOCKS_MAX: u64 = SEGMENT_BLOCKS / 2;

pub(crate) fn map() -> SetMap {
    let member = |drive| Member { drive: DriveId(drive), voting: true };
    SetMap { epoch: EPOCH, drives: vec![member(1), member(2)] }
}

pub(crate) fn format() -> Format {
    Format {
        drive: DriveId(1),
        deployment: DeploymentId(9),
        set: SetIndex(0),
        position: 0,
        map: map(),
        journal_blocks: Some(BlockCount(JOURNAL_BLOCKS)),
        segment_blocks: Some(BlockCount(SEGMENT_BLOCKS)),
    }
}

/// A disk with a small formatted drive on it.
pub(crate) fn formatted_disk(seed: u64) -> SimDisk {
    let disk = SimDisk::new(seed, BlockCount(SEGMENTS_START + SEGMENTS * SEGMENT_BLOCKS));
    in_world(&disk, seed, |storage, runtime| async move {
        Drive::format(&runtime, &storage, &format()).await.expect("the disk is well");
    });
    disk
}

/// Runs `work` on an opening of `disk`, in a world of its own, to its end. What is still in flight
/// then lands in part.
pub(crate) fn in_world<T: 'static, F: Future<Output = T> + 'static>(
    disk: &SimDisk,
    seed: u64,
    work: impl FnOnce(SimStorage, SimRuntime) -> F,
) -> T {
    let simulation = Simulation::new(seed);
    let runtime = simulation.group();
    let storage = disk.open(&runtime);
    simulation.block_on(&runtime, work(storage, runtime.clone()))
}

/// As [`in_world`], with the drive open.
pub(crate) fn with_drive<T: 'static, F: Future<Output = T> + 'static>(
    disk: &SimDisk,
    seed: u64,
    work: impl FnOnce(Rc<SimDrive>, SimRuntime) -> F + 'static,
) -> T {
    in_world(disk, seed, |storage, runtime| async move {
        let drive = Drive::open(runtime.clone(), storage).await.expect("the drive opens");
        assert_eq!(drive.damaged(), None);
        work(drive, runtime).await
    })
}

pub(crate) fn key(name: &str) -> Key {
    Key::new(Keyspace::Objects, Incarnation(1), name.as_bytes())
}

/// The bytes of a shard: fixed by its payload's id.
pub(crate) fn content(payload: PayloadId, length: usize) -> Vec<u8> {
    let seed = payload.0 as u64 ^ (payload.0 >> 64) as u64;
    (0..length as u64)
        .map(|at| (seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(at * at + at) >> 7) as u8)
        .collect()
}

pub(crate) fn small(payload: PayloadId, length: usize) -> SmallShard {
    let bytes = Bytes::from(content(payload, length));
    SmallShard { checksum: small_shard(payload, 0, &bytes), bytes }
}

/// A whole copy of `bytes` bytes on drives 0 and 1.
pub(crate) fn layout(payload: PayloadId, bytes: u64) -> Layout {
    let mut order = [0; SET_DRIVES_MAX];
    order[1] = 1;
    Layout {
        payload,
        bytes,
        codec: 0,
        data_shards: 1,
        parity_shards: 1,
        unit_bytes: 1 << 20,
        set: 0,
        part: 0,
        order,
    }
}

pub(crate) fn record(kind: Kind, operation: OperationId, payloads: Vec<Layout>) -> Record {
    let form = if payloads.is_empty() { PayloadForm::None } else { PayloadForm::Inline };
    Record::encode(&Fields {
        operation,
        version: VersionId(operation.0),
        kind,
        class: 0,
        incarnation: Incarnation(1),
        lineage: None,
        modified_ms: 1,
        size: payloads.iter().map(|layout| layout.bytes).sum(),
        etag: Etag::default(),
        form,
        payloads,
        checksums: Bytes::new(),
        metadata: Bytes::from_static(b"some metadata"),
    })
}

/// Run `run` of a shard of `blocks` blocks, sealed.
pub(crate) fn run_buffer(payload: PayloadId, blocks: u64, run: u64) -> Buffer {
    let data = content(payload, (blocks as usize) * BLOCK_BYTES);
    let mut buffer = Buffer::zeroed(BlockCount(1 + blocks));
    buffer[BLOCK_BYTES..].copy_from_slice(&data);
    seal_run(&mut buffer, payload, 0, run);
    buffer
}

pub(crate) async fn digest(drive: &Rc<SimDrive>, key: &Key) -> Digest {
    match drive.handle(Request::Digest { key: key.clone(), payload: false }).await {
        Reply::Digest(digest) => digest,
        other => panic!("{key:?}: {other:?}"),
    }
}

/// Stages a shard of one run; the reply of the step that failed, or of the last.
pub(crate) async fn stage_run(
    drive: &Rc<SimDrive>,
    payload: PayloadId,
    key: &Key,
    operation: OperationId,
    blocks: u64,
) -> Reply {
    let key = key.clone();
    let open = Request::StageOpen { payload, key, operation, length_blocks: blocks };
    let opened = drive.handle(open).await;
    if !matches!(opened, Reply::Done) {
        return opened;
    }
    let buffer = run_buffer(payload, blocks, 0);
    let written =
        drive.handle(Request::StageWrite { payload, run: 0, buffer: buffer.into() }).await;
    if !matches!(written, Reply::Done) {
        return written;
    }
    drive.handle(Request::StageSeal { payload }).await
}

/// Reads a shard of one run and compares every byte.
pub(crate) async fn check_run(drive: &Rc<SimDrive>, payload: PayloadId, blocks: u64) {
    match drive.handle(Request::ReadRun { payload, first_block: 0, blocks }).await {
        Reply::Run(read) => {
            let start = read.data_start_blocks as usize * BLOCK_BYTES;
            let data = &read.buffer[start..start + blocks as usize * BLOCK_BYTES];
            assert!(data == content(payload, data.len()), "payload {payload} is not as written");
            let head = RunChecksums::parse_expected(&read.buffer[..BLOCK_BYTES], payload, 0, 0);
            head.expect("a checksum block").verify(data).expect("sound blocks");
        }
        other => panic!("payload {payload}: {other:?}"),
    }
}

pub(crate) async fn check_small(drive: &Rc<SimDrive>, payload: PayloadId, length: usize) {
    match drive.handle(Request::ReadSmall { payload }).await {
        Reply::Small(shard) => assert!(shard == small(payload, length), "payload {payload}"),
        other => panic!("payload {payload}: {other:?}"),
    }
}

/// Every orphan of the drive.
pub(crate) async fn orphans(drive: &Rc<SimDrive>) -> Vec<PayloadId> {
    let mut found = Vec::new();
    loop {
        let after = found.last().copied();
        match drive.handle(Request::Orphans { after, limit: 7 }).await {
            Reply::Orphans { entries, more } => {
                found.extend(entries.iter().map(|orphan| orphan.payload));
                if !more {
                    return found;
                }
            }
            other => panic!("{other:?}"),
        }
    }
}

pub(crate) fn list_all(limit: u32) -> ListRequest {
    ListRequest { prefix: key(""), after: None, delimiter: None, markers: false, limit }
}

pub(crate) fn request(
    key: &Key,
    slot: Slot,
    base: Option<Certificate>,
    kind: Kind,
    id: u128,
) -> Request {
    let payload = PayloadId(id);
    let (payloads, copy) = match kind {
        Kind::Data => (vec![layout(payload, 100)], Some(small(payload, 100))),
        _ => (vec![], None),
    };
    let record = record(kind, OperationId(id), payloads);
    let (epoch, key, ballot) = (EPOCH, key.clone(), Ballot::FAST);
    Request::Accept { epoch, key, slot, ballot, base, record, copy, fresh: ballot.is_fast() }
}

/// Accepts a co-staged object in the first slot of a key.
pub(crate) async fn put(drive: &Rc<SimDrive>, name: &str, id: u128) -> Reply {
    drive.handle(request(&key(name), Slot::first(0), None, Kind::Data, id)).await
}

pub(crate) async fn put_ok(drive: &Rc<SimDrive>, name: &str, id: u128) {
    let reply = put(drive, name, id).await;
    assert!(matches!(reply, Reply::Accepted { has_shards: true }), "{reply:?}");
}

pub(crate) async fn settle(drive: &Rc<SimDrive>, name: &str, slot: Slot, id: u128) {
    let certificate = Certificate { slot, operation: OperationId(id) };
    let certify = Request::Certify { key: key(name), certificate, settled: true, listed: vec![] };
    assert!(matches!(drive.handle(certify).await, Reply::Done));
}

/// Lets certificates and the mark of an idle drive become durable.
pub(crate) async fn idle(runtime: &impl Clock) {
    runtime.sleep(Duration::from_secs(2)).await;
}

/// Stages as many long shards as fit, and discards them; says how many that were.
pub(crate) async fn put_many(drive: &Rc<SimDrive>, from: u128) -> usize {
    let mut staged = Vec::new();
    for id in from.. {
        let reply = stage_run(drive, PayloadId(id), &key("many"), OperationId(id), 15).await;
        if !matches!(reply, Reply::Done) {
            break;
        }
        staged.push(PayloadId(id));
    }
    for payload in &staged {
        assert!(matches!(drive.handle(Request::Discard { payload: *payload }).await, Reply::Done));
    }
    staged.len()
}

use std::time::Duration;

use basalt_engine::Error;
use basalt_engine::buffer::SharedBuffer;
use basalt_engine::record::{Etag, Fields, Kind, PayloadForm, Record};
use basalt_engine::request::{
    Certificate, Digest, DriveStatus, ListAfter, ListEntry, ListPage, ListRequest, ListedSlot,
    Member, Orphan, PageFingerprint, Refusal, RunRead, ScanEntry, SetMap, SlotDigest, SmallShard,
};
use basalt_engine::units::{
    Ballot, BlockIndex, DeploymentId, DriveId, Epoch, Incarnation, Key, Keyspace, OperationId,
    PayloadId, Slot, VersionId,
};

use super::*;
use crate::node::NodeIndex;

fn key(name: &str) -> Key {
    Key::new(Keyspace::Objects, Incarnation(7), name.as_bytes())
}

fn record() -> Record {
    Record::encode(&Fields {
        operation: OperationId(11),
        version: VersionId(11),
        kind: Kind::Data,
        class: 0,
        incarnation: Incarnation(1),
        lineage: None,
        modified_ms: 1,
        size: 0,
        etag: Etag::default(),
        form: PayloadForm::None,
        payloads: Vec::new(),
        checksums: Bytes::new(),
        metadata: Bytes::from_static(b"what the user said"),
    })
}

fn shard() -> SmallShard {
    SmallShard { checksum: 99, bytes: Bytes::from_static(b"a small shard") }
}

fn buffer(fill: u8, blocks: u64) -> Buffer {
    let mut buffer = Buffer::zeroed(BlockCount(blocks));
    buffer.fill(fill);
    buffer
}

fn map() -> SetMap {
    let drives = [1, 2].map(|id| Member { drive: DriveId(id), voting: id == 1 }).to_vec();
    SetMap { epoch: Epoch(4), drives }
}

const SLOT: Slot = Slot { generation: 1, sequence: 3 };
const BALLOT: Ballot = Ballot { round: 2, proposer: 0xdead_beef };
const BASE: Certificate = Certificate { slot: SLOT, operation: OperationId(1 << 100) };

fn requests() -> Vec<Request> {
    let epoch = Epoch(4);
    let payload = PayloadId(u128::MAX - 1);
    let operation = OperationId(12);
    let list = |after| ListRequest {
        prefix: key("a/"),
        after,
        delimiter: Some(Bytes::from_static(b"/")),
        markers: true,
        limit: 1000,
    };
    let (slot, ballot, record) = (SLOT, BALLOT, record());
    vec![
        Request::Digest { key: key("a"), payload: true },
        Request::Prepare { epoch, key: key(""), slot, ballot, base: Some(BASE) },
        Request::Accept {
            epoch,
            key: key("a"),
            slot,
            ballot,
            base: None,
            record: record.clone(),
            copy: Some(shard()),
            fresh: true,
        },
        Request::Learn { epoch, key: key("a"), slot, record, copy: None },
        Request::Certify { key: key("a"), certificate: BASE, settled: true, listed: vec![payload] },
        Request::Abandon { epoch, key: key("a"), slot, ballot },
        Request::StageOpen { payload, key: key("a"), operation, length_blocks: 900 },
        Request::StageWrite { payload, run: 2, buffer: SharedBuffer::from(buffer(3, 5)) },
        Request::StageSeal { payload },
        Request::StageSmall { payload, key: key("a"), operation, shard: shard() },
        Request::Discard { payload },
        Request::Release { payload },
        Request::ReadRun { payload, first_block: 256, blocks: 17 },
        Request::ReadSmall { payload },
        Request::Holds { payloads: vec![payload, PayloadId(0)] },
        Request::DropShard { payload, key: key("a") },
        Request::List(list(Some(ListAfter::Prefix(key("a/b/"))))),
        Request::Fingerprint(list(Some(ListAfter::Key(key("a/c"))))),
        Request::Scan { after: None, limit: 2 },
        Request::Unsettled { after: Some(key("b")), limit: 3 },
        Request::Relocated { after: Some(payload), limit: 4 },
        Request::Orphans { after: None, limit: 5 },
        Request::CloseBucket { incarnation: Incarnation(8) },
        Request::ReopenBucket { incarnation: Incarnation(9) },
        Request::InstallMap { map: map() },
        Request::Status,
    ]
}

fn replies() -> Vec<Reply> {
    let state = SlotDigest {
        slot: SLOT,
        promised: BALLOT,
        accepted: Some((BALLOT, record())),
        certified: true,
        settled: false,
        has_shards: true,
    };
    let digest = || Digest {
        slots: smallvec::smallvec![state.clone()],
        copy: Some(shard()),
        generation: 3,
        epoch: Epoch(4),
    };
    let refused = |refusal| Reply::Refused { refusal, digest: Digest::default() };
    let next = Some(ListAfter::Key(key("z")));
    let fingerprint = || PageFingerprint { epoch: Epoch(4), hash: 5, next: next.clone() };
    let listed = ListedSlot { slot: SLOT, certified: true, accepted: Some(record()) };
    let entry =
        ListEntry { key: key("a/b"), group_bytes: Some(11), slots: [listed].into_iter().collect() };
    let scanned =
        ScanEntry { key: key("a"), slot: SLOT, certified: true, settled: true, has_shards: false };
    let orphan = Orphan {
        payload: PayloadId(5),
        key: key("a"),
        operation: OperationId(6),
        former_life: true,
        sealed: false,
        idle: Duration::from_millis(1234),
    };
    let status = DriveStatus {
        drive: DriveId(1),
        map: map(),
        capacity_bytes: 1,
        free_bytes: 2,
        keys: 3,
        unsettled: 4,
        journal_used_bytes: 5,
    };
    vec![
        Reply::Digest(digest()),
        Reply::Promised { accepted: Some((BALLOT, record())), copy: None },
        Reply::Accepted { has_shards: true },
        Reply::Refused { refusal: Refusal::Promised(BALLOT), digest: digest() },
        refused(Refusal::Taken),
        refused(Refusal::Passed(SLOT, record())),
        refused(Refusal::BaseUnknown),
        refused(Refusal::OldEpoch(Box::new(map()))),
        refused(Refusal::NewEpoch(Epoch(9))),
        refused(Refusal::BucketClosing),
        refused(Refusal::Full),
        Reply::Done,
        Reply::Small(shard()),
        Reply::Holds(vec![true, false]),
        Reply::Listed(ListPage { entries: vec![entry], fingerprint: fingerprint() }),
        Reply::Fingerprint(fingerprint()),
        Reply::Scanned { entries: vec![scanned], more: true },
        Reply::Orphans { entries: vec![orphan], more: false },
        Reply::Status(Box::new(status)),
        Reply::Failed(Error::Full { free_bytes: 1, capacity_bytes: 2 }),
        Reply::Failed(Error::PayloadMissing { payload: PayloadId(3) }),
        Reply::Failed(Error::FlushFailed { errno: 5 }),
    ]
}

/// Packs, receives the payload into buffers, and opens.
fn through_ask(requests: Vec<(DriveIndex, Request)>) -> Result<Asked, Malformed> {
    let packed = pack_ask(77, SetIndex(3), requests);
    let arrived = ArrivedAsk::check(packed.body, length(&packed.payload))?;
    arrived.open(received(arrived.segments(), &packed.payload))
}

fn through_answers(answers: Vec<(u32, DriveIndex, Reply)>) -> Vec<(u32, DriveIndex, Reply)> {
    let packed = pack_answers(answers);
    let arrived = ArrivedAnswers::check(packed.body, length(&packed.payload)).expect("sound");
    arrived.open(received(arrived.segments(), &packed.payload)).expect("sound")
}

fn length(payload: &[Bytes]) -> usize {
    payload.iter().map(Bytes::len).sum()
}

fn received(segments: &[BlockCount], payload: &[Bytes]) -> Vec<Buffer> {
    assert_eq!(segments.len(), payload.len());
    let receive = |(length, sent): (&BlockCount, &Bytes)| {
        let mut buffer = Buffer::zeroed(*length);
        buffer.copy_from_slice(sent);
        buffer
    };
    segments.iter().zip(payload).map(receive).collect()
}

#[test]
fn every_request_arrives_as_it_was_sent() {
    // More than any set has drives, so by one and one.
    for request in requests() {
        let sent = format!("{request:?}");
        let asked = through_ask(vec![(DriveIndex(5), request)]).expect("sound");
        assert_eq!((asked.ticket, asked.set), (77, SetIndex(3)));
        let (drive, request) = &asked.requests[0];
        assert_eq!((format!("{request:?}"), *drive), (sent, DriveIndex(5)));
    }
}

#[test]
fn every_reply_arrives_as_it_was_sent() {
    let answers =
        |()| replies().into_iter().zip(0..).map(|(reply, n)| (n, DriveIndex(n as u8), reply));
    let sent: Vec<String> = answers(()).map(|answer| format!("{answer:?}")).collect();
    let arrived = through_answers(answers(()).collect());
    let arrived: Vec<String> = arrived.iter().map(|answer| format!("{answer:?}")).collect();
    assert_eq!(sent, arrived);
}

#[test]
fn words_of_an_error_stay_behind_and_its_kind_does_not() {
    let io = Error::Io { operation: "read", at: BlockIndex(3), errno: 5 };
    let corrupt = Error::Corrupt { what: "block", at: BlockIndex(4) };
    let limit = Error::Limit { what: "runs", limit: 4 };
    let unavailable = Error::Unavailable { reason: "test" };
    for error in [io, corrupt, limit, unavailable] {
        let class = error.class();
        let arrived = through_answers(vec![(1, DriveIndex(0), Reply::Failed(error))]);
        let Reply::Failed(error) = &arrived[0].2 else { panic!("another reply") };
        assert_eq!(error.class(), class);
    }
}

#[test]
fn payload_goes_to_the_request_and_the_reply_that_it_belongs_to() {
    let write = |drive, fill, blocks| {
        let buffer = SharedBuffer::from(buffer(fill, blocks));
        (DriveIndex(drive), Request::StageWrite { payload: PayloadId(1), run: 0, buffer })
    };
    let seal = (DriveIndex(1), Request::StageSeal { payload: PayloadId(1) });
    let asked = through_ask(vec![write(0, 10, 2), seal, write(2, 12, 1)]).expect("sound");
    let bytes = asked.requests.iter().filter_map(|(drive, request)| match request {
        Request::StageWrite { buffer, .. } => Some((drive.0, buffer.len(), buffer[0])),
        _ => None,
    });
    assert_eq!(bytes.collect::<Vec<_>>(), [(0, 8192, 10), (2, 4096, 12)]);

    // A drive reads more than was asked for; the data alone travels.
    let mut read = buffer(1, 4);
    read[2 * 4096..].fill(2);
    let run = RunRead { buffer: read, data_start_blocks: 2, checksums: Box::new([8, 9]) };
    let arrived = through_answers(vec![(1, DriveIndex(0), Reply::Run(run))]);
    let Reply::Run(run) = &arrived[0].2 else { panic!("another reply") };
    assert_eq!((run.data_start_blocks, &*run.checksums), (0, &[8, 9][..]));
    assert!(run.buffer.len() == 8192 && run.buffer.iter().all(|byte| *byte == 2));
}

#[test]
fn calls_and_their_answers_arrive_as_they_were_sent() {
    let deployment = DeploymentId(3);
    let ticket = 1 << 90;
    let format = Call::Format { ticket, deployment, maps: vec![map()] };
    let mark = Call::Mark { ticket, deployment };
    for call in [Call::Identify { ticket }, format, mark, Call::Describe] {
        let packed = pack_call(5, &call);
        assert_eq!(open_call(packed.body), Ok((5, call)));
    }
    let standings = [
        Standing::Blank,
        Standing::Unusable("it is a foreign directory".to_owned()),
        Standing::Drive {
            drive: DriveId(4),
            deployment,
            set: SetIndex(1),
            position: DriveIndex(2),
            forming: true,
            map: map(),
        },
    ];
    let seat = |(standing, n): (Standing, u8)| SeatFound {
        set: SetIndex(0),
        position: DriveIndex(n),
        standing,
    };
    let seats = standings.into_iter().zip(0..).map(seat).collect();
    let refused = CallAnswer::Refused("no".to_owned());
    let description = CallAnswer::Description(Description {
        version: "0.1.0".to_owned(),
        up_seconds: 1 << 40,
        connected: vec![NodeIndex(0), NodeIndex(700)],
    });
    for answer in [CallAnswer::Seats(seats), CallAnswer::Done, refused, description] {
        let packed = pack_call_answer(6, &answer);
        assert_eq!(open_call_answer(packed.body), Ok((6, answer)));
    }
}

#[test]
fn payload_that_is_shorter_or_longer_than_said_is_refused() {
    let buffer = SharedBuffer::from(buffer(0, 2));
    let write = Request::StageWrite { payload: PayloadId(1), run: 0, buffer };
    let packed = pack_ask(1, SetIndex(0), vec![(DriveIndex(0), write)]);
    for payload_bytes in [0, 4096, 12288] {
        let mut body = Body::new();
        body.extend_from_slice(&packed.body);
        assert!(ArrivedAsk::check(body, payload_bytes).is_err(), "{payload_bytes}");
    }
}

/// Whatever comes is either understood or refused.
#[test]
fn changed_bytes_are_understood_or_refused() {
    let mut seed = 1u64;
    let mut draw = |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % below
    };
    let bodies: Vec<Body> = requests()
        .into_iter()
        .map(|request| pack_ask(1, SetIndex(0), vec![(DriveIndex(0), request)]).body)
        .chain(replies().into_iter().map(|r| pack_answers(vec![(1, DriveIndex(0), r)]).body))
        .collect();
    for round in 0..40_000 {
        let original = &bodies[round % bodies.len()];
        let changed = || {
            let mut body = Body::new();
            body.extend_from_slice(original);
            body
        };
        let mut body = changed();
        for _ in 0..1 + draw(4) {
            let at = draw(body.len());
            body[at] = draw(256) as u8;
        }
        let mut same = Body::new();
        same.extend_from_slice(&body);
        let blocks = if body[0] & 1 == 0 { 0 } else { 5 * 4096 };
        let buffers =
            |segments: &[BlockCount]| segments.iter().map(|n| Buffer::zeroed(*n)).collect();
        if let Ok(arrived) = ArrivedAsk::check(body, blocks) {
            let _ = arrived.open(buffers(arrived.segments()));
        }
        if let Ok(arrived) = ArrivedAnswers::check(same, blocks) {
            let _ = arrived.open(buffers(arrived.segments()));
        }
    }
}

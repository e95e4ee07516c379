//! Frames and handshakes that no node would send: each is understood or refused, and what is understood
//! stays within its limits.

use basalt_engine::buffer::{Buffer, SharedBuffer};
use basalt_engine::request::{Reply, Request, RunRead, SmallShard};
use basalt_engine::units::{
    BlockCount, DeploymentId, DriveIndex, Incarnation, Key, Keyspace, PayloadId, SetIndex,
};
use basalt_net::node::NodeIndex;
use basalt_net::wire::frame::{HEADER_BYTES, Header, Kind};
use basalt_net::wire::handshake::{Accepting, Connecting, HELLO_BYTES, Identity, Lane, Secret};
use basalt_net::wire::message::{
    ArrivedAnswers, ArrivedAsk, Body, Call, CallAnswer, SeatFound, Standing, open_call,
    open_call_answer, pack_answers, pack_ask, pack_call, pack_call_answer,
};
use bytes::Bytes;

use crate::fuzz::{Chance, run};

fn bodies() -> Vec<Vec<u8>> {
    let key = Key::new(Keyspace::Objects, Incarnation(7), b"a/key");
    let payload = PayloadId(9);
    let buffer = SharedBuffer::from(Buffer::zeroed(BlockCount(2)));
    let requests = vec![
        (DriveIndex(0), Request::Digest { key: key.clone(), payload: true }),
        (DriveIndex(1), Request::StageWrite { payload, run: 1, buffer }),
        (DriveIndex(2), Request::DropShard { payload, key }),
        (DriveIndex(15), Request::Holds { payloads: vec![payload; 3] }),
    ];
    let shard = SmallShard { checksum: 5, bytes: Bytes::from_static(b"small") };
    let run = RunRead {
        buffer: Buffer::zeroed(BlockCount(2)),
        data_start_blocks: 0,
        checksums: vec![1, 2].into(),
    };
    let answers = vec![
        (1, DriveIndex(0), Reply::Run(run)),
        (2, DriveIndex(1), Reply::Small(shard)),
        (3, DriveIndex(2), Reply::Holds(vec![true, false])),
    ];
    let seat = |standing| SeatFound { set: SetIndex(0), position: DriveIndex(0), standing };
    let seats = vec![seat(Standing::Blank), seat(Standing::Unusable("no".to_owned()))];
    let mark = Call::Mark { ticket: 3, deployment: DeploymentId(4) };
    let packed = [
        pack_ask(7, SetIndex(0), requests),
        pack_answers(answers),
        pack_call(1, &mark),
        pack_call_answer(1, &CallAnswer::Seats(seats)),
    ];
    packed.into_iter().map(|packed| packed.body.to_vec()).collect()
}

fn aligned(bytes: &[u8]) -> Body {
    let mut body = Body::new();
    body.extend_from_slice(bytes);
    body
}

fn buffers(segments: &[BlockCount]) -> Vec<Buffer> {
    segments.iter().map(|length| Buffer::zeroed(*length)).collect()
}

#[test]
fn frames() {
    let bodies = bodies();
    let seeds: Vec<&[u8]> = bodies.iter().map(Vec::as_slice).collect();
    run("frames", |chance: &mut Chance| {
        let bytes = chance.spoiled(&seeds, &["\0\0\0\0", "\u{1}", "\u{7f}"]);
        let payload_bytes = [0, 4096, 8192][chance.below(3)];
        if let Ok(arrived) = ArrivedAsk::check(aligned(&bytes), payload_bytes) {
            let total: u64 = arrived.segments().iter().map(|length| length.bytes()).sum();
            assert_eq!(total, payload_bytes as u64);
            if let Ok(asked) = arrived.open(buffers(arrived.segments())) {
                // What was understood can be said again.
                pack_ask(asked.ticket, asked.set, asked.requests);
            }
        }
        if let Ok(arrived) = ArrivedAnswers::check(aligned(&bytes), payload_bytes)
            && let Ok(answers) = arrived.open(buffers(arrived.segments()))
        {
            pack_answers(answers);
        }
        let _ = open_call(aligned(&bytes));
        let _ = open_call_answer(aligned(&bytes));
    });
}

#[test]
fn frame_headers_and_hellos() {
    let header = Header::of(Kind::Ask, 1, b"body", 4096, 5).encode();
    let identity = |this| Identity {
        this: NodeIndex(this),
        topology: [1; 32],
        deployment: None,
        secret: Secret::new([2; 32]),
    };
    let hello = || Connecting::new(identity(0), NodeIndex(1), Lane::Steps, 1_000, [3; 32]);
    let good = *hello().hello();
    run("frame_headers_and_hellos", |chance: &mut Chance| {
        let mut bytes = chance.spoiled(&[&header, &good], &["\0", "\u{1}"]);
        bytes.resize(HELLO_BYTES.max(bytes.len()), 0);
        let head: [u8; HEADER_BYTES] = bytes[..HEADER_BYTES].try_into().expect("as long");
        let decoded = Header::decode(&head, 1);
        assert!(decoded.is_err() || head == header, "another header with a right checksum");
        let said: [u8; HELLO_BYTES] = bytes[..HELLO_BYTES].try_into().expect("as long");
        let (challenge, accepted) = Accepting::hello(identity(1), &said, 1_000, [4; 32], 5);
        assert!(accepted.is_err() || said == good, "another hello with a right checksum");
        let spoiled = chance.spoiled(&[&challenge], &["\0"]);
        if let Ok(spoiled) = <[u8; HELLO_BYTES]>::try_from(&spoiled[..]) {
            let _ = hello().challenged(&spoiled, 1_000);
        }
    });
}

//! A record whose payload travels with it is never decided where no drive keeps a copy, and one in its
//! slot does not follow it into the next.

use basalt_engine::record::{Etag, Fields, Kind, Layout, PayloadForm, Record};
use basalt_engine::request::{Refusal, Reply, Request, SmallShard};
use basalt_engine::units::{
    DriveIndex, Epoch, Incarnation, Key, Keyspace, OperationId, PayloadId, SET_DRIVES_MAX, Slot,
    VersionId,
};
use basalt_net::exchange::{Exchange, Step};
use basalt_net::lookup::Found;
use basalt_net::proposer::{Ended, Ground, Proposal, Value};
use basalt_net::quorum::{Quorums, all_drives};
use basalt_net::update::{Outcome, Update, Wish};
use bytes::Bytes;

fn ground(drives: usize) -> Ground {
    let (quorums, epoch) = (Quorums::of(drives), Epoch(1));
    Ground { quorums, voting: all_drives(drives), epoch, proposer: 7 }
}

fn key() -> Key {
    Key::new(Keyspace::Objects, Incarnation(1), b"key")
}

/// A small object with copies on drives 0 and 1.
fn value(operation: u128) -> Value {
    let mut order = [0; SET_DRIVES_MAX];
    order[1] = 1;
    let layout = Layout {
        payload: PayloadId(operation),
        bytes: 4,
        codec: 0,
        data_shards: 1,
        parity_shards: 1,
        unit_bytes: 64,
        set: 0,
        part: 0,
        order,
    };
    let record = Record::encode(&Fields {
        operation: OperationId(operation),
        version: VersionId(operation),
        kind: Kind::Data,
        class: 0,
        incarnation: Incarnation(1),
        lineage: None,
        modified_ms: 0,
        size: 4,
        etag: Etag::default(),
        form: PayloadForm::Inline,
        payloads: vec![layout],
        checksums: Bytes::new(),
        metadata: Bytes::new(),
    });
    Value { record, copy: Some(SmallShard { checksum: 1, bytes: Bytes::from_static(b"data") }) }
}

fn promised() -> Reply {
    Reply::Promised { accepted: None, copy: None }
}

fn proposal(drives: usize, fast: bool) -> Proposal {
    Proposal::new(ground(drives), key(), Slot::first(1), None, Some(value(1)), fast)
}

/// The drives that are sent what `wanted` accepts; nothing else may be sent.
fn sent_to<T: std::fmt::Debug>(step: Step<T>, wanted: fn(&Request) -> bool) -> Vec<u8> {
    let Step::Send(requests) = step else { panic!("{step:?}") };
    assert!(requests.iter().all(|(_, request)| wanted(request)), "{requests:?}");
    requests.into_iter().map(|(drive, _)| drive.0).collect()
}

fn is_accept(request: &Request) -> bool {
    matches!(request, Request::Accept { .. })
}

fn is_copy(request: &Request) -> bool {
    matches!(request, Request::StageSmall { .. })
}

#[test]
fn copies_go_along_where_every_quorum_has_one() {
    // Of six drives five have to accept, and four get no copy.
    assert_eq!(sent_to(proposal(6, true).start(), is_accept).len(), 6);
    // Of sixteen thirteen have to, and fourteen get none.
    assert_eq!(sent_to(proposal(16, true).start(), is_copy), [0, 1]);
}

#[test]
fn copies_come_first_where_a_quorum_could_do_without() {
    let mut proposal = proposal(6, false);
    proposal.start();
    let mut step = Step::Wait;
    for drive in 0..5 {
        step = proposal.on_reply(DriveIndex(drive), promised());
        if matches!(step, Step::Send(_)) {
            break;
        }
    }
    assert_eq!(sent_to(step, is_copy), [0, 1]);
    assert!(!proposal.may_be_accepted());
    assert!(matches!(proposal.on_reply(DriveIndex(0), Reply::Done), Step::Wait));
    let step = proposal.on_reply(DriveIndex(1), Reply::Done);
    assert!(sent_to(step, is_accept).len() >= 4);
}

#[test]
fn nothing_is_proposed_while_the_drives_of_the_copies_are_gone() {
    let mut proposal = proposal(6, false);
    proposal.start();
    for drive in 2..6 {
        let step = proposal.on_reply(DriveIndex(drive), promised());
        assert!(!matches!(step, Step::Send(_)), "{step:?}");
    }
    assert!(matches!(proposal.on_deadline(), Step::Done(Err(Ended::Short(_)))));
    assert!(!proposal.may_be_accepted());
}

fn update() -> Update<impl Fn(Option<&basalt_net::reader::Head>) -> Wish> {
    let found = Found { head: None, generation: 1, answered: all_drives(4) };
    Update::new(ground(4), key(), value(1), &found, |_| Wish::Write)
}

fn passed(sequence: u32, operation: u128) -> Reply {
    let slot = Slot { generation: 1, sequence };
    let refusal = Refusal::Passed(slot, value(operation).record);
    Reply::Refused { refusal, digest: Default::default() }
}

#[test]
fn a_write_whose_slot_nobody_remembers_is_not_known() {
    let mut update = update();
    update.start();
    update.on_reply(DriveIndex(0), Reply::Accepted { has_shards: true });
    for drive in 1..3 {
        update.on_reply(DriveIndex(drive), passed(3, 9));
    }
    let step = update.on_reply(DriveIndex(3), passed(3, 9));
    assert!(matches!(step, Step::Done(Outcome::Ended(Ended::Unknown))), "{step:?}");
}

#[test]
fn a_write_that_learns_who_won_its_slot_moves_on_unless_it_is_bound_to_it() {
    let mut free = update();
    free.start();
    free.on_reply(DriveIndex(0), Reply::Accepted { has_shards: true });
    assert!(matches!(free.on_reply(DriveIndex(1), passed(1, 9)), Step::Send(_)));
    let mut bound = update().in_next_slot_only();
    bound.start();
    bound.on_reply(DriveIndex(0), Reply::Accepted { has_shards: true });
    let step = bound.on_reply(DriveIndex(1), passed(1, 9));
    assert!(matches!(step, Step::Done(Outcome::Busy)), "{step:?}");
}

//! The acceptor rule by rule, and its stored form.

use bytes::Bytes;

use super::*;
use crate::record::{Etag, Fields, PayloadForm};
use crate::units::{Incarnation, OperationId, VersionId};

const ONE: Slot = Slot::first(1);

fn record(operation: u128, kind: Kind) -> Record {
    Record::encode(&Fields {
        operation: OperationId(operation),
        version: VersionId(operation),
        kind,
        class: 0,
        incarnation: Incarnation(1),
        lineage: None,
        modified_ms: 0,
        size: 0,
        etag: Etag::default(),
        form: PayloadForm::None,
        payloads: Vec::new(),
        checksums: Bytes::new(),
        metadata: Bytes::new(),
    })
}

fn data(operation: u128) -> Record {
    record(operation, Kind::Data)
}

fn ballot(round: u32) -> Ballot {
    Ballot { round, proposer: 7 }
}

fn certificate(slot: Slot, operation: u128) -> Certificate {
    Certificate { slot, operation: OperationId(operation) }
}

#[test]
fn the_first_at_ballot_0_wins_the_drive() {
    let mut key = KeyState::default();
    assert_eq!(key.accept(ONE, Ballot::FAST, None, &data(1)), Ok(()));
    assert_eq!(key.accept(ONE, Ballot::FAST, None, &data(1)), Ok(()));
    assert_eq!(key.accept(ONE, Ballot::FAST, None, &data(2)), Err(Refusal::Taken));
}

#[test]
fn a_promise_bars_lower_ballots() {
    let mut key = KeyState::default();
    assert_eq!(key.prepare(ONE, ballot(2), None), Ok(None));
    let barred = Err(Refusal::Promised(ballot(2)));
    assert_eq!(key.accept(ONE, Ballot::FAST, None, &data(1)), barred);
    assert_eq!(key.accept(ONE, ballot(1), None, &data(1)), barred);
    assert_eq!(key.prepare(ONE, ballot(2), None), Err(Refusal::Promised(ballot(2))));
    assert_eq!(key.accept(ONE, ballot(2), None, &data(1)), Ok(()));
    assert_eq!(key.prepare(ONE, ballot(3), None), Ok(Some((ballot(2), data(1)))));
}

#[test]
fn a_certified_slot_refuses_and_names_its_record() {
    let mut key = KeyState::default();
    key.accept(ONE, Ballot::FAST, None, &data(1)).expect("accepted");
    assert!(key.certify(certificate(ONE, 1), false));
    let passed = Refusal::Passed(ONE, data(1));
    assert_eq!(key.accept(ONE, ballot(9), None, &data(2)), Err(passed.clone()));
    assert_eq!(key.prepare(ONE, ballot(9), None), Err(passed));
    assert_eq!(key.accept(ONE, ballot(9), None, &data(1)), Ok(()), "the same again is fine");
}

#[test]
fn a_base_teaches_what_was_decided() {
    let mut key = KeyState::default();
    key.accept(ONE, Ballot::FAST, None, &data(1)).expect("accepted");
    let base = Some(certificate(ONE, 1));
    key.accept(ONE.next(), Ballot::FAST, base, &data(2)).expect("accepted");
    assert_eq!(key.head().map(|(slot, _)| slot), Some(ONE));
    assert_eq!(key.digest(1, |_| true).slots.len(), 2);
    // A base that names another operation than the one held here proves nothing about it.
    let mut other = KeyState::default();
    other.accept(ONE, Ballot::FAST, None, &data(8)).expect("accepted");
    other.accept(ONE.next(), Ballot::FAST, base, &data(2)).expect("accepted");
    assert_eq!(other.head(), None);
}

#[test]
fn learning_replaces_a_loser_and_never_goes_back() {
    let mut key = KeyState::default();
    let base = Some(certificate(ONE, 1));
    key.accept(ONE.next(), Ballot::FAST, base, &data(3)).expect("accepted");
    assert!(key.learn(ONE.next(), &data(4)));
    assert!(!key.learn(ONE, &data(1)));
    assert_eq!(key.head(), Some((ONE.next(), &data(4))));
    assert!(!key.certify(certificate(ONE.next(), 3), true));
    assert!(!key.is_settled());
    assert!(key.certify(certificate(ONE.next(), 4), true));
    assert!(key.is_settled());
}

#[test]
fn only_a_bare_certified_tombstone_is_passed_over_by_listings() {
    let mut key = KeyState::default();
    assert!(!key.may_be_live(false));
    key.accept(ONE, Ballot::FAST, None, &record(1, Kind::Tombstone)).expect("accepted");
    assert!(key.may_be_live(false), "not certified: what it hides may be live");
    key.certify(certificate(ONE, 1), false);
    assert!(!key.may_be_live(false));
    key.accept(ONE.next(), Ballot::FAST, Some(certificate(ONE, 1)), &data(2)).expect("accepted");
    assert!(key.may_be_live(false));
}

#[test]
fn a_promise_that_nothing_followed_is_no_work() {
    let mut key = KeyState::default();
    key.prepare(ONE, ballot(1), None).expect("promised");
    assert!(key.is_settled() && !key.may_be_live(false));
    key.accept(ONE, ballot(1), None, &data(1)).expect("accepted");
    assert!(!key.is_settled() && key.may_be_live(false));
    key.certify(certificate(ONE, 1), true);
    key.prepare(ONE.next(), ballot(1), Some(certificate(ONE, 1))).expect("promised");
    assert!(key.is_settled() && key.may_be_live(false));
}

#[test]
fn a_slot_comes_only_after_the_one_that_its_base_names() {
    let mut key = KeyState::default();
    let refused = Err(Refusal::BaseUnknown);
    let skipping = Some(certificate(ONE, 1));
    assert_eq!(key.accept(ONE.next(), Ballot::FAST, None, &data(1)), refused);
    assert_eq!(key.accept(ONE.next().next(), Ballot::FAST, skipping, &data(1)), refused);
    key.learn(ONE, &data(1));
    let wrong = Some(certificate(ONE, 2));
    assert_eq!(key.accept(ONE.next(), Ballot::FAST, wrong, &data(3)), refused);
    assert_eq!(key.prepare(ONE.next(), ballot(1), wrong), Err(Refusal::BaseUnknown));
}

#[test]
fn what_is_superseded_is_kept_until_the_head_is_settled_two_records_at_most() {
    let mut key = KeyState::default();
    key.learn(ONE, &data(1));
    key.certify(certificate(ONE, 1), true);
    let mut slot = ONE;
    for operation in 2..9 {
        slot = slot.next();
        key.learn(slot, &data(operation));
    }
    let held: Vec<u128> = key.records().map(|record| record.operation().0).collect();
    assert_eq!(held, [1, 7, 8], "the last settled one, the predecessor, the head");
    let lost = key.prepare(
        Slot { sequence: 7, ..ONE },
        ballot(1),
        Some(certificate(Slot { sequence: 6, ..ONE }, 6)),
    );
    assert_eq!(lost, Err(Refusal::Passed(Slot { sequence: 7, ..ONE }, data(7))));
    key.certify(certificate(slot, 8), true);
    assert_eq!(key.records().count(), 1);
    assert!(key.is_settled());
}

#[test]
fn what_a_lost_record_supersedes_stays_until_the_next_write_is_settled() {
    let mut key = KeyState::default();
    key.learn(ONE, &data(1));
    key.certify(certificate(ONE, 1), true);
    let (two, three) = (ONE.next(), ONE.next().next());
    key.learn(two, &data(2));
    key.learn(three, &record(3, Kind::Lost));
    key.certify(certificate(three, 3), true);
    let held = |key: &KeyState| key.records().map(|r| r.operation().0).collect::<Vec<_>>();
    assert_eq!(held(&key), [1, 3]);
    assert!(key.is_settled() && key.may_be_live(false));
    key.learn(three.next(), &data(4));
    assert_eq!(held(&key), [3, 4]);
}

#[test]
fn one_ballot_has_one_record() {
    let mut key = KeyState::default();
    key.accept(ONE, ballot(1), None, &data(1)).expect("accepted");
    assert_eq!(key.accept(ONE, ballot(1), None, &data(2)), Err(Refusal::Taken));
    assert_eq!(key.prepare(ONE, Ballot::FAST, None), Err(Refusal::Promised(ballot(1))));
}

#[test]
fn abandoning_forgets_only_below_the_ballot() {
    let mut key = KeyState::default();
    key.accept(ONE, Ballot::FAST, None, &data(1)).expect("accepted");
    assert!(!key.abandon(ONE, ballot(1)), "nothing was promised");
    key.prepare(ONE, ballot(1), None).expect("promised");
    assert!(key.abandon(ONE, ballot(1)));
    assert_eq!(key.records().count(), 0);
    key.accept(ONE, ballot(1), None, &data(2)).expect("accepted");
    assert!(!key.abandon(ONE, ballot(1)));
}

#[test]
fn state_comes_back_as_it_was_and_other_bytes_are_refused() {
    let mut key = KeyState::default();
    key.accept(ONE, Ballot::FAST, None, &data(1)).expect("accepted");
    key.certify(certificate(ONE, 1), false);
    let base = Some(certificate(ONE, 1));
    key.prepare(ONE.next(), ballot(3), base).expect("promised");
    key.accept(ONE.next(), ballot(3), base, &data(2)).expect("accepted");
    let mut bytes = BytesMut::new();
    key.encode(&mut bytes);
    assert_eq!(KeyState::decode(&bytes), Ok(key.clone()));
    for length in 1..bytes.len() {
        let cut = KeyState::decode(&bytes[..length]);
        assert!(cut.is_err() || cut.expect("checked").slots.len() < key.slots.len());
    }
}

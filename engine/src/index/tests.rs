//! The index on small cases: names, orphans, what a change frees.

use super::*;
use crate::record::{Etag, Fields, Layout, PayloadForm};
use crate::request::Certificate;
use crate::units::{Ballot, OperationId, SET_DRIVES_MAX, VersionId};

const ONE: Slot = Slot { generation: 0, sequence: 1 };

fn index() -> Index {
    Index::new(SetIndex(0), 0)
}

fn key(name: &str) -> Key {
    Key::new(Keyspace::Objects, Incarnation(1), name.as_bytes())
}

/// A record that puts shards of `payloads` on the drives `position` and 1.
fn record(kind: Kind, operation: u128, payloads: &[u128], position: u8) -> Record {
    let mut order = [0; SET_DRIVES_MAX];
    order[..2].copy_from_slice(&[position, 1]);
    let layout = |&payload: &u128| Layout {
        payload: PayloadId(payload),
        bytes: 10,
        codec: 0,
        data_shards: 1,
        parity_shards: 1,
        unit_bytes: 64,
        set: 0,
        part: 0,
        order,
    };
    Record::encode(&Fields {
        operation: OperationId(operation),
        version: VersionId(1),
        kind,
        class: 0,
        incarnation: Incarnation(1),
        lineage: None,
        modified_ms: 0,
        size: 0,
        etag: Etag::default(),
        form: if payloads.is_empty() { PayloadForm::None } else { PayloadForm::Inline },
        payloads: payloads.iter().map(layout).collect(),
        checksums: Bytes::new(),
        metadata: Bytes::new(),
    })
}

fn hold(index: &mut Index, payload: u128, key: &Key) {
    let origin = Origin { key: key.clone(), operation: OperationId(payload), life: 1 };
    let place = Place::Journal { checksum: 0, bytes: Bytes::from_static(b"bytes") };
    index.hold(PayloadId(payload), Held { origin, place, mutation: 0 });
}

fn learn(index: &mut Index, key: &Key, slot: Slot, record: &Record) -> Vec<u128> {
    let updated = index.update(key, |state| state.learn(slot, record));
    updated.freed.iter().map(|(payload, _)| payload.0).collect()
}

fn settle(index: &mut Index, key: &Key, slot: Slot, operation: u128) -> Vec<u128> {
    let certificate = Certificate { slot, operation: OperationId(operation) };
    let updated = index.update(key, |state| state.certify(certificate, true));
    updated.freed.iter().map(|(payload, _)| payload.0).collect()
}

fn orphans(index: &Index) -> Vec<u128> {
    index.orphans_after(None).map(|payload| payload.0).collect()
}

#[test]
fn a_decided_record_takes_its_payload_along_when_it_is_superseded() {
    let (mut index, key) = (index(), key("k"));
    hold(&mut index, 7, &key);
    assert_eq!(orphans(&index), [7], "staged, and named by nothing yet");
    learn(&mut index, &key, ONE, &record(Kind::Data, 1, &[7], 0));
    assert!(orphans(&index).is_empty());
    assert!(learn(&mut index, &key, ONE.next(), &record(Kind::Tombstone, 2, &[], 0)).is_empty());
    assert_eq!(settle(&mut index, &key, ONE.next(), 2), [7]);
    assert!(index.held(PayloadId(7)).is_none() && orphans(&index).is_empty());
    assert_eq!(index.in_journal_bytes(), 0);
}

#[test]
fn the_payload_of_a_loser_becomes_an_orphan() {
    let (mut index, key) = (index(), key("k"));
    hold(&mut index, 7, &key);
    let loser = record(Kind::Data, 1, &[7], 0);
    let accepted = index.update(&key, |state| state.accept(ONE, Ballot::FAST, None, &loser));
    assert_eq!(accepted.result, Ok(()));
    assert!(learn(&mut index, &key, ONE, &record(Kind::Data, 2, &[8], 0)).is_empty());
    assert!(settle(&mut index, &key, ONE, 2).is_empty());
    assert_eq!(orphans(&index), [7], "its operation may be decided in the next slot");
}

#[test]
fn a_payload_stays_while_any_record_names_it() {
    let mut index = index();
    let (part, object) = (key("part"), key("object"));
    hold(&mut index, 7, &part);
    learn(&mut index, &part, ONE, &record(Kind::Data, 1, &[7], 0));
    learn(&mut index, &object, ONE, &record(Kind::Data, 2, &[7], 0));
    learn(&mut index, &part, ONE.next(), &record(Kind::Relocated, 3, &[], 0));
    assert!(settle(&mut index, &part, ONE.next(), 3).is_empty());
    assert!(index.is_named(PayloadId(7)) && index.is_relocated(PayloadId(7)));
    learn(&mut index, &object, ONE.next(), &record(Kind::Tombstone, 4, &[], 0));
    assert_eq!(settle(&mut index, &object, ONE.next(), 4), [7]);
}

#[test]
fn a_relocated_payload_that_nothing_names_is_no_orphan() {
    let (mut index, part) = (index(), key("part"));
    hold(&mut index, 7, &part);
    learn(&mut index, &part, ONE, &record(Kind::Data, 1, &[7], 0));
    learn(&mut index, &part, ONE.next(), &record(Kind::Relocated, 3, &[], 0));
    assert!(settle(&mut index, &part, ONE.next(), 3).is_empty());
    assert!(orphans(&index).is_empty());
    assert_eq!(index.relocated_after(None).next(), Some(PayloadId(7)));
}

#[test]
fn only_shards_of_this_drive_count() {
    let (mut index, key) = (index(), key("k"));
    learn(&mut index, &key, ONE, &record(Kind::Data, 1, &[7], 5));
    assert!(index.digest(&key).0.slots[0].has_shards, "none is asked of this drive");
    assert!(index.payload(PayloadId(7)).is_none());
    learn(&mut index, &key, ONE.next(), &record(Kind::Data, 2, &[8], 0));
    assert!(!index.digest(&key).0.slots[0].has_shards);
    hold(&mut index, 8, &key);
    assert!(index.digest(&key).0.slots[0].has_shards);
}

#[test]
fn what_is_read_back_frees_nothing_by_itself() {
    let (mut index, key) = (index(), key("k"));
    hold(&mut index, 7, &key);
    learn(&mut index, &key, ONE, &record(Kind::Data, 1, &[7], 0));
    let mut other = self::index();
    learn(&mut other, &key, ONE.next(), &record(Kind::Tombstone, 2, &[], 0));
    settle(&mut other, &key, ONE.next(), 2);
    let mut state = bytes::BytesMut::new();
    other.key(&key).expect("it was learned").encode(&mut state);
    assert!(index.apply(Entry::KeySet { key: key.clone(), state: state.freeze() }));
    assert!(index.held(PayloadId(7)).is_some());
    assert!(index.apply(Entry::Freed { payload: PayloadId(7) }));
    assert!(index.held(PayloadId(7)).is_none() && orphans(&index).is_empty());
    let garbage = Bytes::from_static(b"garbage");
    assert!(!index.apply(Entry::KeySet { key, state: garbage }));
}

fn with_lineage(record: &Record, keeps_predecessor: bool) -> Record {
    let lineage = crate::record::Lineage { keeps_predecessor, ..Default::default() };
    record.with_lineage(Some(lineage))
}

#[test]
fn a_version_that_is_kept_is_not_freed_where_its_archive_is_not_known() {
    let (first, key) = (record(Kind::Data, 1, &[7], 0), key("k"));
    let (second, third) = (record(Kind::Data, 2, &[8], 0), record(Kind::Data, 3, &[9], 0));
    let two = ONE.next();
    for keeps in [true, false] {
        let mut index = index();
        hold(&mut index, 7, &key);
        learn(&mut index, &key, ONE, &first);
        learn(&mut index, &key, two, &with_lineage(&second, keeps));
        let freed = settle(&mut index, &key, two, 2);
        assert_eq!(
            (freed, orphans(&index)),
            if keeps { (vec![], vec![7]) } else { (vec![7], vec![]) }
        );
    }
    // Whether slot 2 kept slot 1 is not known where only slot 3 is.
    let mut index = index();
    hold(&mut index, 7, &key);
    learn(&mut index, &key, ONE, &first);
    learn(&mut index, &key, two.next(), &with_lineage(&third, false));
    assert!(settle(&mut index, &key, two.next(), 3).is_empty());
    assert_eq!(orphans(&index), [7]);
    // Once the archive is known it is no orphan, and goes with the archive.
    let archive = Key::new(Keyspace::Versions, Incarnation(1), b"k\0archive!");
    let archived = Slot { generation: 1, sequence: 1 };
    learn(&mut index, &archive, archived, &first);
    assert!(orphans(&index).is_empty() && index.is_named(PayloadId(7)));
    let end = with_lineage(&record(Kind::Tombstone, 4, &[], 0), false);
    learn(&mut index, &archive, archived.next(), &end);
    assert_eq!(settle(&mut index, &archive, archived.next(), 4), [7]);
}

#[test]
fn a_version_that_is_skipped_over_keeps_what_its_record_kept() {
    let (mut index, key) = (index(), key("k"));
    let (two, three) = (ONE.next(), ONE.next().next());
    hold(&mut index, 7, &key);
    hold(&mut index, 8, &key);
    learn(&mut index, &key, ONE, &record(Kind::Data, 1, &[7], 0));
    settle(&mut index, &key, ONE, 1);
    learn(&mut index, &key, two, &with_lineage(&record(Kind::Data, 2, &[8], 0), true));
    learn(&mut index, &key, three, &with_lineage(&record(Kind::Data, 3, &[9], 0), false));
    assert_eq!(settle(&mut index, &key, three, 3), [8], "slot 3 keeps slot 2 no longer");
    assert_eq!(orphans(&index), [7], "slot 2 kept slot 1");
}

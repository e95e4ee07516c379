//! What a configuration of the model consists of: the drives, who does what, which faults there are, and
//! which mistakes are made on purpose.

use basalt_engine::record::{Etag, Fields, Kind, Layout, PayloadForm, Record};
use basalt_engine::request::{Member, SetMap, SmallShard};
use basalt_engine::units::{
    DriveId, DriveIndex, Epoch, Incarnation, Key, Keyspace, OperationId, PayloadId, SET_DRIVES_MAX,
    Slot, VersionId,
};
use basalt_net::loss;
use basalt_net::quorum::Quorums;
use basalt_net::reader::Head;
use basalt_net::update::Wish;
use bytes::Bytes;

use super::drive::{ADMITTED, JOINED};

/// Of a configuration.
pub(crate) const DRIVES_MAX: usize = 6;
pub(crate) const CLIENTS_MAX: usize = 4;

pub(crate) type Judge = fn(Option<&Head>) -> Wish;

/// One configuration.
#[derive(Clone)]
pub(crate) struct Rules {
    pub(crate) name: String,
    pub(crate) drives: usize,
    pub(crate) clients: Vec<Plan>,
    /// The operation that slot 1 is decided for at the start.
    pub(crate) before: Option<u8>,
    /// What each operation writes; its number is its place here.
    pub(crate) records: Vec<Record>,
    /// Classic ballots that are begun, by all clients together.
    pub(crate) ballots: u8,
    /// Draws the numbers that tell proposers apart; without it they ascend with the clients.
    pub(crate) order: Option<u64>,
    pub(crate) restarts: u8,
    pub(crate) damages: u8,
    /// What clients take for the quorums.
    pub(crate) quorums: Quorums,
    /// What decides: the right ones, but for one canary.
    pub(crate) deciding: Quorums,
    pub(crate) mistakes: Mistakes,
    /// More states than this fail the exploration.
    pub(crate) states_max: usize,
}

/// What a client does, once.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Plan {
    /// Has an operation decided after the head, as long as the judge agrees; looks at the key first, or
    /// has done so before anything else happened.
    Write { operation: u8, judge: Judge, looks: bool },
    /// Reads the head.
    Read,
    /// Loses one of the drives, and brings its replacement into the set.
    Replace,
}

/// The canaries: mistakes that the model has to notice.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Mistakes {
    pub(crate) blank_votes: bool,
    pub(crate) no_fence: bool,
    pub(crate) damage_is_absence: bool,
    pub(crate) retry_without_outcome: bool,
    pub(crate) recovery_without_payload: bool,
    pub(crate) accepted_taken_for_certified: bool,
    pub(crate) uncertified_ignored: bool,
    pub(crate) promises_are_not_flushed: bool,
    pub(crate) compare_skipped: bool,
    pub(crate) silence_is_loss: bool,
}

impl Rules {
    pub(crate) fn voting(&self, map: &SetMap) -> u16 {
        let votes = |member: &Member| member.voting || self.mistakes.blank_votes;
        let voting = map.drives.iter().enumerate().filter(|(_, member)| votes(member));
        voting.fold(0, |mask, (place, _)| mask | 1 << place)
    }

    /// The map of an epoch: the first, and those by which the drive at `lost` is replaced.
    pub(crate) fn map(&self, lost: Option<DriveIndex>, epoch: Epoch) -> SetMap {
        let member = |place: usize| {
            let replaced = lost.is_some_and(|lost| usize::from(lost.0) == place);
            let drive = DriveId(place as u128 + if replaced && epoch > Epoch(1) { 100 } else { 0 });
            Member { drive, voting: !(replaced && (JOINED..ADMITTED).contains(&epoch)) }
        };
        SetMap { epoch, drives: (0..self.drives).map(member).collect() }
    }
}

pub(crate) fn key() -> Key {
    Key::new(Keyspace::Objects, Incarnation(1), b"key")
}

pub(crate) fn operation(record: &Record) -> u8 {
    record.operation().0 as u8
}

/// The copy that travels with a co-staged record.
pub(crate) fn copy_of(operation: u8) -> SmallShard {
    SmallShard { checksum: 0, bytes: Bytes::copy_from_slice(&[operation]) }
}

/// An object without bytes, or a tombstone.
pub(crate) fn bare(operation: u8, kind: Kind) -> Record {
    Record::encode(&fields(operation, kind))
}

/// An object whose whole copies travel with the record, to the first `copies` drives.
pub(crate) fn co_staged(operation: u8, copies: u8) -> Record {
    let mut order = [0; SET_DRIVES_MAX];
    (0..).zip(&mut order).for_each(|(place, at)| *at = place);
    let layout = Layout {
        payload: PayloadId(u128::from(operation)),
        bytes: 1,
        codec: 0,
        data_shards: 1,
        parity_shards: copies - 1,
        unit_bytes: 64,
        set: 0,
        part: 0,
        order,
    };
    let form = PayloadForm::Inline;
    Record::encode(&Fields { form, payloads: vec![layout], ..fields(operation, Kind::Data) })
}

fn fields(operation: u8, kind: Kind) -> Fields {
    Fields {
        operation: OperationId(u128::from(operation)),
        version: VersionId(u128::from(operation)),
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
    }
}

fn live(head: Option<&Head>) -> bool {
    head.is_some_and(|(_, record)| record.kind() == Kind::Data)
}

/// Operations from here on say that the one that is so many below is lost.
pub(crate) const LOST: u8 = 3;

/// Follows the record of this operation only.
fn after<const OPERATION: u8>(head: Option<&Head>) -> Wish {
    let slot = head.map_or(Slot::default(), |(slot, _)| *slot);
    loss::wish(OperationId(OPERATION.into()), slot, head)
}

pub(crate) fn after_lost(operation: u8) -> Judge {
    [after::<0>, after::<1>, after::<2>][usize::from(operation)]
}

/// A PUT.
pub(crate) fn always(_: Option<&Head>) -> Wish {
    Wish::Write
}

/// A PUT with If-None-Match: *.
pub(crate) fn if_absent(head: Option<&Head>) -> Wish {
    if live(head) { Wish::Refuse } else { Wish::Write }
}

/// A DELETE.
pub(crate) fn if_live(head: Option<&Head>) -> Wish {
    if live(head) { Wish::Write } else { Wish::Nothing }
}

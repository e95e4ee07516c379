//! The configurations: which are explored in every run, and which in the long form only.

use basalt_engine::record::{Kind, Record};
use basalt_engine::units::OperationId;
use basalt_net::loss::lost_record;
use basalt_net::quorum::Quorums;
use basalt_net::update::Wish;

use super::rules::{
    Judge, LOST, Mistakes, Plan, Rules, always, bare, co_staged, if_absent, if_live,
};
use super::walk::Draw;

/// More states than any configuration has.
const STATES_MAX: usize = 1_000_000_000;

/// Writers and readers, nothing else.
pub(crate) fn races() -> Vec<Rules> {
    vec![
        two_writers(1, 2),
        two_writers(2, 2),
        two_writers(3, 2),
        two_writers(4, 2),
        one_slot(5, 1),
        one_slot(6, 1),
        writers_and_reader(1, 2),
        writers_and_reader(2, 2),
        writers_and_reader(3, 1),
        writers_and_reader(4, 1),
        writer_and_reader(3, 2),
        writer_and_reader(4, 2),
        looking_writers(2, 2),
        looking_writers(3, 1),
    ]
}

pub(crate) fn races_long() -> Vec<Rules> {
    vec![
        two_writers(2, 4),
        two_writers(3, 3),
        one_slot(5, 2),
        one_slot(6, 2),
        one_slot_and_reader(5, 1),
        one_slot_and_reader(6, 1),
        one_slot_and_reader(5, 2),
        writers_and_reader(3, 2),
        writers_and_reader(4, 2),
    ]
}

/// Restarts, damage, and the replacement of a drive; deletions and copies, for which these matter.
pub(crate) fn faults() -> Vec<Rules> {
    vec![
        deletion(2, 2),
        deletion(3, 2),
        put_and_deletion(3, 1),
        promises(3, 2),
        damage(2, 2),
        damage(3, 2),
        copies(3, 2, 2),
        replacement(1, 2),
        replacement(2, 1),
        replaced_under_a_writer(3, 2),
        replaced_under_a_writer(4, 1),
        replacement_in_a_race(2, 1),
        replacement_in_a_race(3, 1),
        replacement_in_all(1, 2),
        replacement_in_all(2, 1),
        losses(2, 1, 2),
        losses(2, 2, 2),
        losses(3, 1, 2),
        losses(3, 2, 2),
    ]
}

pub(crate) fn faults_long() -> Vec<Rules> {
    vec![
        replacement(2, 2),
        replacement(3, 1),
        replacement_in_a_race(2, 2),
        replacement_in_a_race(4, 1),
        replacement_in_all(2, 2),
        replacement_in_all(3, 1),
        replacement_in_all(4, 1),
    ]
}

/// Those that can be explored event by event as well.
pub(crate) fn small() -> Vec<Rules> {
    vec![
        two_writers(1, 2),
        two_writers(2, 2),
        two_writers(3, 1),
        one_slot(3, 1),
        copies(2, 2, 2),
        writers_and_reader(1, 2),
        writers_and_reader(2, 1),
        writer_and_reader(2, 2),
        writer_and_reader(3, 1),
        looking_writers(2, 1),
        deletion(2, 2),
        damage(2, 2),
        promises(2, 2),
        replacement(1, 2),
        replaced_under_a_writer(2, 2),
        replacement_in_a_race(2, 1),
        losses(2, 1, 2),
        promises(3, 1),
    ]
}

/// All kinds of clients and faults together; a draw says how many of each.
pub(crate) fn everything(draw: &mut Draw, order: u64) -> Rules {
    let drives = draw.one_of(&[2, 3, 3, 3, 4, 4, 5, 6]);
    let ballots = draw.one_of(&[1, 2, 2, 3, 4]);
    let writer = |operation: u8, draw: &mut Draw| {
        let judge = draw.one_of(&[always, always, if_absent, if_live]);
        Plan::Write { operation, judge, looks: draw.below(3) == 0 }
    };
    let clients = vec![writer(1, draw), writer(2, draw), Plan::Read, Plan::Replace];
    let mut rules = setup("two writers, a reader, a replaced drive", drives, ballots, clients);
    rules.before = draw.one_of(&[None, Some(0)]);
    rules.restarts = draw.one_of(&[0, 1, 2]);
    rules.damages = draw.one_of(&[0, 0, 1]);
    let copies = draw.one_of(&[0, 0, 1, 2, 3]).min(drives as u8);
    let records = (0..3)
        .map(|operation| match rules.clients.get(usize::from(operation).wrapping_sub(1)) {
            // Who writes only where something is live deletes it.
            Some(Plan::Write { judge, .. }) if judge(None) == Wish::Nothing => {
                bare(operation, Kind::Tombstone)
            }
            _ if copies > 0 => co_staged(operation, copies),
            _ => bare(operation, Kind::Data),
        })
        .collect();
    rules.records = with_losses(records);
    rules.order = Some(order);
    let (restarts, damages) = (rules.restarts, rules.damages);
    rules.name += &format!(", {restarts} restarts, {damages} damaged drives, {copies} copies");
    rules
}

fn setup(name: &str, drives: usize, ballots: u8, clients: Vec<Plan>) -> Rules {
    Rules {
        name: match ballots {
            1 => format!("{name}, 1 classic ballot"),
            _ => format!("{name}, {ballots} classic ballots"),
        },
        drives,
        clients,
        before: None,
        records: (0..3).map(|operation| bare(operation, Kind::Data)).collect(),
        ballots,
        order: None,
        restarts: 0,
        damages: 0,
        quorums: Quorums::of(drives),
        deciding: Quorums::of(drives),
        mistakes: Mistakes::default(),
        states_max: STATES_MAX,
    }
}

fn write(operation: u8, judge: Judge) -> Plan {
    Plan::Write { operation, judge, looks: false }
}

/// Two PUTs of one key.
pub(crate) fn two_writers(drives: usize, ballots: u8) -> Rules {
    setup("two writers", drives, ballots, vec![write(1, always), write(2, always)])
}

/// Two PUTs of one key, and a GET.
pub(crate) fn writers_and_reader(drives: usize, ballots: u8) -> Rules {
    let clients = vec![write(1, always), write(2, always), Plan::Read];
    setup("two writers and a reader", drives, ballots, clients)
}

/// Two PUTs of a key that must not exist: one slot.
pub(crate) fn one_slot(drives: usize, ballots: u8) -> Rules {
    let clients = vec![write(1, if_absent), write(2, if_absent)];
    setup("one slot, two writers", drives, ballots, clients)
}

/// Two PUTs of a key that must not exist, and a GET.
pub(crate) fn one_slot_and_reader(drives: usize, ballots: u8) -> Rules {
    let clients = vec![write(1, if_absent), write(2, if_absent), Plan::Read];
    setup("one slot, two writers and a reader", drives, ballots, clients)
}

/// A PUT and a GET.
pub(crate) fn writer_and_reader(drives: usize, ballots: u8) -> Rules {
    let clients = vec![write(1, always), Plan::Read];
    setup("a writer and a reader", drives, ballots, clients)
}

/// Two PUTs that look first.
pub(crate) fn looking_writers(drives: usize, ballots: u8) -> Rules {
    let look = |operation| Plan::Write { operation, judge: always, looks: true };
    setup("two writers that look first", drives, ballots, vec![look(1), look(2)])
}

/// A DELETE of what exists, and a GET; a drive restarts.
pub(crate) fn deletion(drives: usize, ballots: u8) -> Rules {
    let clients = vec![write(1, if_live), Plan::Read];
    let mut rules = setup("a deletion, a reader, a restart", drives, ballots, clients);
    rules.before = Some(0);
    rules.records[1] = bare(1, Kind::Tombstone);
    rules.restarts = 1;
    rules
}

/// A PUT and a DELETE of what exists; a drive restarts.
pub(crate) fn put_and_deletion(drives: usize, ballots: u8) -> Rules {
    let clients = vec![write(1, if_live), write(2, always)];
    let mut rules = setup("a writer, a deletion, a restart", drives, ballots, clients);
    rules.before = Some(0);
    rules.records[1] = bare(1, Kind::Tombstone);
    rules.restarts = 1;
    rules
}

/// A PUT and a GET, and a drive with a record that cannot be read any more.
pub(crate) fn damage(drives: usize, ballots: u8) -> Rules {
    let mut rules = writer_and_reader(drives, ballots);
    rules.name = format!("{}, a damaged drive", rules.name);
    rules.damages = 1;
    rules
}

/// A PUT and a GET while a drive is lost, replaced, filled and admitted.
pub(crate) fn replacement(drives: usize, ballots: u8) -> Rules {
    let clients = vec![write(1, always), Plan::Read, Plan::Replace];
    setup("a writer, a reader, a replaced drive", drives, ballots, clients)
}

/// A PUT while a drive is lost, replaced, filled and admitted.
pub(crate) fn replaced_under_a_writer(drives: usize, ballots: u8) -> Rules {
    setup("a writer, a replaced drive", drives, ballots, vec![write(1, always), Plan::Replace])
}

/// Two PUTs while a drive is lost, replaced, filled and admitted.
pub(crate) fn replacement_in_a_race(drives: usize, ballots: u8) -> Rules {
    let clients = vec![write(1, always), write(2, always), Plan::Replace];
    setup("two writers, a replaced drive", drives, ballots, clients)
}

/// Two PUTs and a GET while a drive is lost, replaced, filled and admitted.
pub(crate) fn replacement_in_all(drives: usize, ballots: u8) -> Rules {
    let clients = vec![write(1, always), write(2, always), Plan::Read, Plan::Replace];
    setup("two writers, a reader, a replaced drive", drives, ballots, clients)
}

/// Two PUTs of a key that must not exist, whose `copies` copies travel with their records.
pub(crate) fn copies(drives: usize, copies: u8, ballots: u8) -> Rules {
    let mut rules = one_slot(drives, ballots);
    rules.name = format!("{}, {copies} copies", rules.name);
    rules.records = (0..3).map(|operation| co_staged(operation, copies)).collect();
    rules
}

/// A PUT whose `copies` copies travel with its record, while a drive is lost and replaced: where the
/// copies go with it, the record is declared lost.
pub(crate) fn losses(drives: usize, copies: u8, ballots: u8) -> Rules {
    let mut rules = replaced_under_a_writer(drives, ballots);
    rules.name = format!("{}, a copy on {copies}", rules.name);
    rules.records = with_losses((0..3).map(|operation| co_staged(operation, copies)).collect());
    rules
}

/// With the records that say that these are lost.
fn with_losses(mut records: Vec<Record>) -> Vec<Record> {
    for lost in 0..LOST {
        let operation = OperationId(u128::from(LOST + lost));
        records.push(lost_record(&records[usize::from(lost)], operation));
    }
    records
}

/// Two PUTs of a key that must not exist; a drive restarts.
pub(crate) fn promises(drives: usize, ballots: u8) -> Rules {
    let mut rules = one_slot(drives, ballots);
    rules.name = format!("{}, a restart", rules.name);
    rules.restarts = 1;
    rules
}

//! The arithmetic of the slot protocol: quorums of records, what may have been chosen, and how many
//! shards an acknowledgement needs. Symbols and proofs: docs/protocol.md.

use basalt_engine::record::Record;
use basalt_engine::units::{Ballot, DriveIndex, SET_DRIVES_MAX};

/// How many drives of a set each step needs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Quorums {
    pub drives: usize,
    /// R: to read and to prepare.
    pub read: usize,
    /// W: to accept at a classic ballot.
    pub accept: usize,
    /// F: to accept at ballot 0.
    pub fast: usize,
    /// Holders, together with drives of which nothing is known, from which on a record may have been
    /// chosen at a classic ballot, and at ballot 0: W and F.
    pub chosen: usize,
    pub chosen_fast: usize,
}

impl Quorums {
    pub fn of(drives: usize) -> Self {
        assert!((1..=SET_DRIVES_MAX).contains(&drives));
        let read = drives.div_ceil(2);
        let accept = drives - read + 1;
        let fast = accept.max((2 * drives - read) / 2 + 1);
        // A read meets every classic decision; two values cannot both look chosen at ballot 0.
        assert!(read + accept > drives);
        assert!(2 * fast + read > 2 * drives);
        Self { drives, read, accept, fast, chosen: accept, chosen_fast: fast }
    }
}

/// A set of drives as a mask: one bit each.
pub fn bit(drive: DriveIndex) -> u16 {
    1 << drive.0
}

pub fn all_drives(count: usize) -> u16 {
    u16::try_from((1u32 << count) - 1).expect("at most sixteen drives")
}

pub fn drives_in(mask: u16) -> impl Iterator<Item = DriveIndex> {
    (0..SET_DRIVES_MAX as u8).map(DriveIndex).filter(move |drive| mask & bit(*drive) != 0)
}

/// Whether enough shards of every payload of the record are durable on drives that the record names,
/// of those that hold theirs; when no more answers will come (`last`), the lower bound does.
pub fn payload_rule(record: &Record, holders: u16, last: bool) -> bool {
    record.payloads().all(|layout| {
        let named = layout.order[..layout.shards()].iter();
        let durable = named.filter(|drive| holders & 1 << **drive != 0).count();
        let (data, parity) = (layout.data_shards, layout.parity_shards);
        durable >= shards_to_acknowledge(data, parity)
            || (last && durable >= shards_to_acknowledge_degraded(data, parity))
    })
}

/// Shards that may be lost from the acknowledgement on.
pub fn spare_shards(parity: u8) -> usize {
    match parity {
        0 => 0,
        1 | 2 => 1,
        _ => 2,
    }
}

/// Durable shards that an acknowledgement asks for.
pub fn shards_to_acknowledge(data: u8, parity: u8) -> usize {
    usize::from(data) + spare_shards(parity)
}

/// Durable shards that it makes do with when the others are late or fail.
pub fn shards_to_acknowledge_degraded(data: u8, parity: u8) -> usize {
    usize::from(data) + usize::from(parity.min(1))
}

/// Data shards of a payload written while `live` of `drives` drives answer; `None` below W drives.
pub fn data_shards(drives: u8, parity: u8, live: usize) -> Option<u8> {
    let quorums = Quorums::of(usize::from(drives));
    let usual = usize::from(drives - parity);
    let data = usual.min(live.saturating_sub(spare_shards(parity)));
    if live < quorums.accept || data == 0 {
        return None;
    }
    u8::try_from(data).ok()
}

/// Which drives hold which record in one slot, and what follows from it.
///
/// *Possibly chosen.* Let q voting drives have answered; of the other D - q nothing is known. If a
/// record was chosen at ballot 0, F voting drives accepted it there, so at least F - (D - q) of those
/// that answered hold it still, at ballot 0 or re-proposed at a classic one. If it was chosen at a
/// classic ballot b, W drives accepted it at b; whatever they accepted later is the same record, at a
/// higher ballot. So at least W - (D - q) > 0 of those that answered hold it at classic ballots. Where
/// neither count is reached, it was not chosen; where one is, it may have been. At most one record
/// passes the test for ballot 0 because 2F + R > 2D, and a record at a classic ballot was proposed only
/// where no other could have been chosen below, so the one at the highest classic ballot is the only
/// other candidate.
#[derive(Clone, Debug)]
pub struct Holders<'a> {
    quorums: Quorums,
    voting: u16,
    answered: u16,
    held: Vec<(DriveIndex, Ballot, &'a Record)>,
}

impl<'a> Holders<'a> {
    pub fn new(quorums: Quorums, voting: u16) -> Self {
        Self { quorums, voting, answered: 0, held: Vec::new() }
    }

    pub fn answered(&mut self, drive: DriveIndex) {
        self.answered |= 1 << drive.0;
    }

    pub fn holds(&mut self, drive: DriveIndex, ballot: Ballot, record: &'a Record) {
        assert!(self.answered & 1 << drive.0 != 0, "only drives that answered hold anything");
        self.held.push((drive, ballot, record));
    }

    /// The record that was decided beyond doubt: W drives hold it at one classic ballot, or F voting
    /// drives at ballot 0.
    pub fn decided(&self) -> Option<&'a Record> {
        self.held
            .iter()
            .find(|(_, ballot, record)| {
                let same = self.held.iter().filter(|(drive, other, held)| {
                    other == ballot
                        && held.operation() == record.operation()
                        && (!ballot.is_fast() || self.votes(*drive))
                });
                let needed = if ballot.is_fast() { self.quorums.fast } else { self.quorums.accept };
                same.count() >= needed
            })
            .map(|(_, _, record)| *record)
    }

    /// The one record that may have been chosen, if any.
    pub fn possibly_chosen(&self) -> Option<&'a Record> {
        let votes = (self.answered & self.voting).count_ones() as usize;
        let unknown = self.quorums.drives - votes;
        let classic = self.held.iter().filter(|(_, ballot, _)| !ballot.is_fast());
        if let Some((_, _, record)) = classic.max_by_key(|(_, ballot, _)| *ballot) {
            let holders = self.count(record, |ballot| !ballot.is_fast());
            if holders + unknown >= self.quorums.chosen {
                return Some(record);
            }
        }
        self.held
            .iter()
            .map(|(_, _, record)| *record)
            .find(|record| self.count(record, |_| true) + unknown >= self.quorums.chosen_fast)
    }

    /// Voting drives that hold the record at a ballot of the kind.
    fn count(&self, record: &Record, kind: impl Fn(Ballot) -> bool) -> usize {
        let same = |(drive, ballot, held): &&(DriveIndex, Ballot, &Record)| {
            self.votes(*drive) && kind(*ballot) && held.operation() == record.operation()
        };
        self.held.iter().filter(same).count()
    }

    fn votes(&self, drive: DriveIndex) -> bool {
        self.voting & 1 << drive.0 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_quorums() {
        let table = [
            (1, 1, 1, 1),
            (2, 1, 2, 2),
            (3, 2, 2, 3),
            (4, 2, 3, 4),
            (5, 3, 3, 4),
            (6, 3, 4, 5),
            (8, 4, 5, 7),
            (12, 6, 7, 10),
            (16, 8, 9, 13),
        ];
        for (drives, read, accept, fast) in table {
            let of = Quorums::of(drives);
            assert_eq!((of.read, of.accept, of.fast), (read, accept, fast), "{drives} drives");
            assert_eq!((of.chosen, of.chosen_fast), (accept, fast), "{drives} drives");
        }
        for drives in 1..=SET_DRIVES_MAX {
            Quorums::of(drives);
        }
    }

    #[test]
    fn data_shards_shrink_with_the_live_drives_down_to_w() {
        assert_eq!(data_shards(4, 2, 4), Some(2));
        assert_eq!(data_shards(4, 2, 3), Some(2));
        assert_eq!(data_shards(4, 2, 2), None);
        assert_eq!(data_shards(16, 4, 16), Some(12));
        assert_eq!(data_shards(16, 4, 13), Some(11));
        assert_eq!(data_shards(16, 4, 9), Some(7));
        assert_eq!(data_shards(16, 4, 8), None);
        assert_eq!(data_shards(8, 4, 5), Some(3));
        assert_eq!(data_shards(1, 0, 1), Some(1));
    }
}

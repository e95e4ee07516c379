//! Whether the newest record of a key is lost, judged from what all members of a set say: plain decisions,
//! that the model makes use of too. docs/protocol.md, "Lost", says what has to be certain.

use std::hash::{Hash, Hasher};

use basalt_engine::record::{Fields, Kind, Layout, PayloadForm, Record};
use basalt_engine::request::Certificate;
use basalt_engine::units::{DriveIndex, Epoch, OperationId, Slot};

use crate::exchange::Parts;
use crate::lookup::Found;
use crate::quorum::bit;
use crate::reader::{Head, Reading, Verdict};
use crate::update::Wish;

/// The newest record of a key that is decided, or else may be.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Newest {
    pub head: Head,
    pub decided: bool,
    /// The certificate of the slot before one that is not decided.
    pub base: Option<Certificate>,
    generation: u32,
    answered: u16,
}

impl Newest {
    /// `None` where a member is silent, or has another map than the one that the members are from: what
    /// it holds is not known then.
    pub fn of(reading: &Reading, members: u16, epoch: Epoch) -> Option<Self> {
        let same_map = reading.digests().values().all(|digest| digest.epoch == epoch);
        if !same_map || reading.answered() != members {
            return None;
        }
        let (generation, answered) = (reading.generation(), reading.answered());
        let newest = |head, decided, base| Self { head, decided, base, generation, answered };
        match reading.verdict() {
            Verdict::NeedMore | Verdict::Head(None) => None,
            Verdict::Head(Some(head)) => Some(newest(head, true, None)),
            Verdict::Undecided { slot, base } => {
                let record = reading.possibly_chosen(slot)?.clone();
                let base =
                    base.map(|(slot, record)| Certificate { slot, operation: record.operation() });
                Some(newest((slot, record), false, base))
            }
        }
    }

    /// The same as what a write goes on from.
    pub fn found(&self) -> Found {
        let (generation, answered) = (self.generation, self.answered);
        Found { head: Some(self.head.clone()), generation, answered }
    }
}

/// Counts the shards of payloads that drives say they hold.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Census {
    layouts: Vec<Layout>,
    answered: u16,
    shards: Vec<usize>,
}

impl Census {
    pub fn of(layouts: Vec<Layout>) -> Self {
        let shards = vec![0; layouts.len()];
        Self { layouts, answered: 0, shards }
    }

    /// The drives that have answered, one bit each.
    pub fn answered(&self) -> u16 {
        self.answered
    }

    pub fn take(&mut self, drive: DriveIndex, holds: &[bool]) {
        self.answered |= bit(drive);
        for ((layout, holds), shards) in self.layouts.iter().zip(holds).zip(&mut self.shards) {
            *shards += usize::from(*holds && layout.shard_of(drive.0).is_some());
        }
    }

    /// Whether fewer than k shards of a payload are left; `None` unless every member has answered.
    pub fn too_few(&self, members: u16) -> Option<bool> {
        let short = |(layout, shards): (&Layout, &usize)| *shards < usize::from(layout.data_shards);
        (self.answered == members).then(|| self.layouts.iter().zip(&self.shards).any(short))
    }
}

impl Parts for Census {
    fn hash_part(&self, drive: Option<DriveIndex>, into: &mut impl Hasher) {
        let Self { layouts, answered, shards } = self;
        match drive {
            Some(drive) => (answered & bit(drive) != 0).hash(into),
            None => (layouts, shards).hash(into),
        }
    }
}

/// A record that was found without enough shards, and the map under which it first was.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Suspicion {
    slot: Slot,
    operation: OperationId,
    pub since: Epoch,
}

impl Suspicion {
    /// The record was found so under the map of `epoch`.
    pub fn of((slot, record): &Head, epoch: Epoch) -> Self {
        Self { slot: *slot, operation: record.operation(), since: epoch }
    }

    pub fn is_same(&self, now: &Self) -> bool {
        (self.slot, self.operation) == (now.slot, now.operation)
    }

    /// Whether the same record was found so under an older map: nobody can still be writing it.
    pub fn is_certain(&self, now: &Self) -> bool {
        self.is_same(now) && self.since < now.since
    }
}

/// The record that says that another one is lost.
pub fn lost_record(record: &Record, operation: OperationId) -> Record {
    Record::encode(&Fields {
        operation,
        kind: Kind::Lost,
        form: PayloadForm::None,
        payloads: Vec::new(),
        ..record.fields()
    })
}

/// It follows the record that is lost, and nothing else.
pub fn wish(lost: OperationId, slot: Slot, head: Option<&Head>) -> Wish {
    match head {
        Some((at, held)) if (*at, held.operation()) == (slot, lost) => Wish::Write,
        _ => Wish::Nothing,
    }
}

//! The decided records that a drive let go last. A writer that was slow learns from them who won the
//! slot it proposed in, long after the key has moved on. In memory only, and few: what is not here any
//! more leaves the writer with an outcome that is not known.

use std::collections::VecDeque;

use smallvec::SmallVec;

use crate::acceptor::KeyState;
use crate::record::Record;
use crate::request::Refusal;
use crate::units::{Key, Slot};

/// Records that are remembered.
pub const REMEMBERED_MAX: usize = 256;

#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Superseded(VecDeque<(Key, Slot, Record)>);

/// What a drive knew to be decided before a change of the key.
pub type Before = SmallVec<[(Slot, Record); 2]>;

pub fn before(state: &KeyState) -> Before {
    let held = state.held().filter(|(_, certified, _)| *certified);
    held.map(|(slot, _, record)| (slot, record.clone())).collect()
}

impl Superseded {
    /// Remembers the records that went with a change.
    pub fn note(&mut self, key: &Key, before: Before, now: Option<&KeyState>) {
        for (slot, record) in before {
            if now.is_none_or(|now| now.held().all(|(held, ..)| held != slot)) {
                self.remember(key.clone(), slot, record);
            }
        }
    }

    /// Where `slot` is long passed, has the refusal name who won it, if that was not long ago.
    pub fn name_winner(&self, refusal: Refusal, key: &Key, slot: Slot) -> Refusal {
        match refusal {
            Refusal::Passed(at, record) if at != slot => match self.find(key, slot) {
                Some(winner) => Refusal::Passed(slot, winner.clone()),
                None => Refusal::Passed(at, record),
            },
            other => other,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn remember(&mut self, key: Key, slot: Slot, record: Record) {
        if self.0.len() == REMEMBERED_MAX {
            self.0.pop_front();
        }
        self.0.push_back((key, slot, record));
    }

    /// What was decided in `slot` of `key`.
    fn find(&self, key: &Key, slot: Slot) -> Option<&Record> {
        let found = self.0.iter().rev().find(|(known, at, _)| *at == slot && known == key);
        found.map(|(_, _, record)| record)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::record::{Etag, Fields, Kind, PayloadForm};
    use crate::units::{Incarnation, Keyspace, OperationId, VersionId};

    fn record(operation: u128) -> Record {
        Record::encode(&Fields {
            operation: OperationId(operation),
            version: VersionId(operation),
            kind: Kind::Data,
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

    #[test]
    fn the_last_ones_are_remembered_by_key_and_slot() {
        let key = |name: &str| Key::new(Keyspace::Objects, Incarnation(1), name.as_bytes());
        let slot = |sequence: usize| Slot { generation: 1, sequence: sequence as u32 };
        let mut superseded = Superseded::default();
        for sequence in 0..=REMEMBERED_MAX {
            superseded.remember(key("a"), slot(sequence), record(sequence as u128));
        }
        assert_eq!(superseded.0.len(), REMEMBERED_MAX);
        assert_eq!(superseded.find(&key("a"), slot(0)), None);
        assert_eq!(superseded.find(&key("a"), slot(7)), Some(&record(7)));
        assert_eq!(superseded.find(&key("b"), slot(7)), None);
    }
}

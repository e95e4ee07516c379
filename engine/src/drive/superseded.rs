//! The decided records that a drive let go last. A writer that was slow learns from them who won the
//! slot it proposed in, long after the key has moved on. In memory only, and few: what is not here any
//! more leaves the writer with an outcome that is not known.

use std::collections::VecDeque;

use crate::record::Record;
use crate::units::{Key, Slot};

/// Records that are remembered.
pub(super) const REMEMBERED_MAX: usize = 256;

#[derive(Default)]
pub(super) struct Superseded(VecDeque<(Key, Slot, Record)>);

impl Superseded {
    pub(super) fn remember(&mut self, key: Key, slot: Slot, record: Record) {
        if self.0.len() == REMEMBERED_MAX {
            self.0.pop_front();
        }
        self.0.push_back((key, slot, record));
    }

    /// What was decided in `slot` of `key`.
    pub(super) fn find(&self, key: &Key, slot: Slot) -> Option<&Record> {
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

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

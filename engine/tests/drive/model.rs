//! What a drive should know: the same acceptor, and the rules for payloads in their simplest form.

use std::collections::BTreeMap;

use basalt_engine::acceptor::KeyState;
use basalt_engine::record::{Kind, Record};
use basalt_engine::request::Digest;
use basalt_engine::units::{Key, PayloadId};

use crate::support::EPOCH;

/// How a payload is held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Shape {
    Small { bytes: usize },
    Run { blocks: u64 },
}

#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct Model {
    pub(crate) keys: BTreeMap<Key, KeyState>,
    pub(crate) held: BTreeMap<PayloadId, (Key, Shape)>,
}

impl Model {
    /// Changes a key, and frees what the change frees.
    pub(crate) fn update<T>(&mut self, key: &Key, change: impl FnOnce(&mut KeyState) -> T) -> T {
        let old = self.keys.get(key).cloned().unwrap_or_default();
        let mut new = old.clone();
        let result = change(&mut new);
        if new != old {
            self.keys.insert(key.clone(), new.clone());
        }
        let head = new.head().map(|(slot, _)| slot);
        let is_relocated = [&old, &new]
            .iter()
            .any(|state| state.records().any(|held| held.kind() == Kind::Relocated));
        for (slot, certified, record) in old.held() {
            let over = certified && head.is_some_and(|head| slot < head) && !is_relocated;
            for payload in payloads(record) {
                if over && !self.is_named(payload) {
                    self.held.remove(&payload);
                }
            }
        }
        result
    }

    pub(crate) fn is_named(&self, payload: PayloadId) -> bool {
        self.keys
            .values()
            .flat_map(KeyState::records)
            .any(|record| payloads(record).any(|named| named == payload))
    }

    pub(crate) fn digest(&self, key: &Key) -> Digest {
        let state = self.keys.get(key).cloned().unwrap_or_default();
        let here =
            |record: &Record| payloads(record).all(|payload| self.held.contains_key(&payload));
        Digest { epoch: EPOCH, ..state.digest(0, here) }
    }

    pub(crate) fn orphans(&self) -> Vec<PayloadId> {
        self.held.keys().copied().filter(|payload| !self.is_named(*payload)).collect()
    }
}

fn payloads(record: &Record) -> impl Iterator<Item = PayloadId> {
    let counts = record.kind() != Kind::Relocated;
    record.payloads().filter(move |_| counts).map(|layout| layout.payload)
}

//! One page of a listing. Each call looks at a bounded number of keys; a page that is full, or out
//! of patience, says where the next one begins. Once a key was found that may be live, a common
//! prefix is passed over with one seek.

use std::hash::Hasher;
use std::ops::Bound;

use bytes::Bytes;
use siphasher::sip::SipHasher13;

use super::Index;
use crate::acceptor::KeyState;
use crate::request::{ListAfter, ListEntry, ListPage, ListRequest, ListedSlot, PageFingerprint};
use crate::units::{Epoch, KEY_BYTES_MAX, Key, Keyspace};

/// Keys that one call looks at, for a page of `limit` entries.
pub fn looked_at_max(limit: u32) -> usize {
    8 * limit as usize + 1000
}

/// Longest page, whatever was asked for.
pub const PAGE_ENTRIES_MAX: u32 = 2_000;

impl Index {
    /// The page, and the mutation that has to be durable before it is shown.
    pub fn list(&self, request: &ListRequest) -> (ListPage, u64) {
        let mut entries = Vec::new();
        let (fingerprint, wait_for) = self.walk(request, |key, group_bytes, state| {
            let slots = state.listed().map(|(slot, certified, record)| ListedSlot {
                slot,
                certified,
                accepted: record.cloned(),
            });
            let (key, slots) = (key.clone(), slots.collect());
            entries.push(ListEntry { key, group_bytes, slots });
        });
        (ListPage { entries, fingerprint }, wait_for)
    }

    /// The fingerprint of the page, without the page.
    pub fn fingerprint(&self, request: &ListRequest) -> (PageFingerprint, u64) {
        self.walk(request, |_, _, _| {})
    }

    /// Shows `show` every entry of the page: its key, its group, its state.
    fn walk(
        &self,
        request: &ListRequest,
        mut show: impl FnMut(&Key, Option<u32>, &KeyState),
    ) -> (PageFingerprint, u64) {
        let limit = request.limit.clamp(1, PAGE_ENTRIES_MAX);
        let prefix = request.prefix.as_bytes();
        let mut hash = SipHasher13::new();
        let ended = |hash: &SipHasher13, next| PageFingerprint {
            epoch: Epoch::default(),
            hash: hash.finish(),
            next,
        };
        let (mut wait_for, mut looked_at, mut count) = (0, 0, 0);
        let Some(mut from) = start(request) else { return (ended(&hash, None), 0) };
        'seek: loop {
            let range = self.keys.range((from, Bound::Unbounded));
            for (key, entry) in range.take_while(|(key, _)| key.as_bytes().starts_with(prefix)) {
                looked_at += 1;
                wait_for = wait_for.max(entry.mutation);
                let group = group_bytes(key, prefix.len(), request.delimiter.as_deref());
                let listed = entry.state.may_be_live(request.markers);
                let passed_group = group.filter(|_| listed).map(|bytes| cut(key, bytes));
                if listed {
                    count += 1;
                    let group = group.map(|bytes| bytes as u32);
                    hash_entry(&mut hash, key, group, &entry.state);
                    show(key, group, &entry.state);
                }
                if count >= limit || looked_at >= looked_at_max(limit) {
                    let next = match passed_group {
                        Some(group) => ListAfter::Prefix(group),
                        None => ListAfter::Key(key.clone()),
                    };
                    return (ended(&hash, Some(next)), wait_for);
                }
                if let Some(group) = passed_group {
                    let Some(next) = after_prefix(&group) else {
                        return (ended(&hash, None), wait_for);
                    };
                    from = Bound::Included(next);
                    continue 'seek;
                }
            }
            return (ended(&hash, None), wait_for);
        }
    }
}

fn hash_entry(hash: &mut SipHasher13, key: &Key, group_bytes: Option<u32>, state: &KeyState) {
    let mut fixed = [0; 8];
    fixed[..4].copy_from_slice(&(key.as_bytes().len() as u32).to_le_bytes());
    fixed[4..].copy_from_slice(&group_bytes.unwrap_or(u32::MAX).to_le_bytes());
    hash.write(&fixed);
    hash.write(key.as_bytes());
    for (slot, certified, record) in state.listed() {
        let mut fixed = [0; 32];
        fixed[..4].copy_from_slice(&slot.generation.to_le_bytes());
        fixed[4..8].copy_from_slice(&slot.sequence.to_le_bytes());
        fixed[8] = u8::from(certified) | u8::from(record.is_some()) << 1;
        let operation = record.map_or(0, |record| record.operation().0);
        fixed[16..].copy_from_slice(&operation.to_le_bytes());
        hash.write(&fixed);
    }
}

/// Where the page begins; `None` where nothing can follow.
fn start(request: &ListRequest) -> Option<Bound<Key>> {
    let prefix = Bound::Included(request.prefix.clone());
    Some(match &request.after {
        None => prefix,
        Some(ListAfter::Key(key)) if *key < request.prefix => prefix,
        Some(ListAfter::Key(key)) => Bound::Excluded(key.clone()),
        Some(ListAfter::Prefix(group)) => match after_prefix(group)? {
            next if next < request.prefix => prefix,
            next => Bound::Included(next),
        },
    })
}

/// The least key above all that start with `prefix`.
fn after_prefix(prefix: &Key) -> Option<Key> {
    let bytes = prefix.as_bytes();
    let kept = bytes.iter().rposition(|&byte| byte != u8::MAX)?;
    let mut next = bytes[..=kept].to_vec();
    next[kept] += 1;
    // A prefix that ends in 0xff up to the keyspace or the incarnation has shrunk below the form
    // of a key; nothing in the same incarnation follows it.
    Key::from_stored(Bytes::from(next))
}

/// Length of the common prefix that `key` belongs to, in stored bytes.
fn group_bytes(key: &Key, prefix_bytes: usize, delimiter: Option<&[u8]>) -> Option<usize> {
    let delimiter = delimiter.filter(|delimiter| !delimiter.is_empty())?;
    let mut rest = &key.as_bytes()[prefix_bytes..];
    if key.space() == Keyspace::Versions {
        // What follows the object's name is no text.
        rest = &rest[..rest.iter().position(|byte| *byte == 0)?];
    }
    let at = if let [single] = delimiter {
        rest.iter().position(|byte| byte == single)?
    } else {
        rest.windows(delimiter.len()).position(|window| window == delimiter)?
    };
    Some(prefix_bytes + at + delimiter.len())
}

fn cut(key: &Key, bytes: usize) -> Key {
    assert!(bytes <= KEY_BYTES_MAX);
    Key::from_stored(Bytes::copy_from_slice(&key.as_bytes()[..bytes])).expect("cut behind the name")
}

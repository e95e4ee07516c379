//! One page of a listing. Each call looks at a bounded number of keys; a page that is full, or out
//! of patience, says where the next one begins. Once a key was found that may be live, a common
//! prefix is passed over with one seek.

use std::ops::Bound;

use bytes::Bytes;
use smallvec::SmallVec;

use super::Index;
use crate::request::{ListAfter, ListEntry, ListPage, ListRequest};
use crate::units::{KEY_BYTES_MAX, Key};

/// Keys that one call looks at, for a page of `limit` entries.
pub fn looked_at_max(limit: u32) -> usize {
    8 * limit as usize + 1000
}

/// Longest page, whatever was asked for.
pub const PAGE_ENTRIES_MAX: u32 = 2_000;

impl Index {
    /// The page, and the mutation that has to be durable before it is shown.
    pub fn list(&self, request: &ListRequest) -> (ListPage, u64) {
        let limit = request.limit.clamp(1, PAGE_ENTRIES_MAX);
        let prefix = request.prefix.as_bytes();
        let mut page = ListPage::default();
        let mut wait_for = 0;
        let mut looked_at = 0;
        let Some(mut from) = start(request) else { return (page, 0) };
        'seek: loop {
            let range = self.keys.range((from, Bound::Unbounded));
            for (key, entry) in range.take_while(|(key, _)| key.as_bytes().starts_with(prefix)) {
                looked_at += 1;
                wait_for = wait_for.max(entry.mutation);
                let group = group_bytes(key, prefix.len(), request.delimiter.as_deref());
                let listed = entry.state.may_be_live();
                let passed_group = group.filter(|_| listed).map(|bytes| cut(key, bytes));
                if listed {
                    let (digest, mutation) = self.digest_of(entry);
                    wait_for = wait_for.max(mutation);
                    let slots = SmallVec::from_vec(digest.slots);
                    let group_bytes = group.map(|bytes| bytes as u32);
                    page.entries.push(ListEntry { key: key.clone(), group_bytes, slots });
                }
                let full = page.entries.len() >= limit as usize;
                if full || looked_at >= looked_at_max(limit) {
                    page.next = Some(match passed_group {
                        Some(group) => ListAfter::Prefix(group),
                        None => ListAfter::Key(key.clone()),
                    });
                    return (page, wait_for);
                }
                if let Some(group) = passed_group {
                    let Some(next) = after_prefix(&group) else { return (page, wait_for) };
                    from = Bound::Included(next);
                    continue 'seek;
                }
            }
            return (page, wait_for);
        }
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
    let rest = &key.as_bytes()[prefix_bytes..];
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

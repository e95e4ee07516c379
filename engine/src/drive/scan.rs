//! Scans, buckets, maps and the state of the drive. Each scan looks at a bounded number of things
//! and says where to go on.

use std::cell::Cell;
use std::ops::Bound::{Excluded, Unbounded};
use std::rc::Rc;
use std::time::Duration;

use super::{Drive, State};
use crate::error::Result;
use crate::format::Entry;
use crate::index::Index;
use crate::index::list::PAGE_ENTRIES_MAX;
use crate::journal::Mutation;
use crate::request::{DriveStatus, ListRequest, Orphan, Reply, ScanEntry, SetMap};
use crate::seam::{Moment, Runtime, Storage};
use crate::units::{Incarnation, Key, PayloadId};

impl<R: Runtime, S: Storage> Drive<R, S> {
    pub(super) async fn list(self: &Rc<Self>, request: &ListRequest) -> Result<Reply> {
        let (mut page, wait_for) = self.state.borrow().index.list(request);
        page.fingerprint.epoch = self.state.borrow().superblock.map.epoch;
        self.durable(wait_for).await?;
        Ok(Reply::Listed(page))
    }

    pub(super) async fn fingerprint(self: &Rc<Self>, request: &ListRequest) -> Result<Reply> {
        let (mut fingerprint, wait_for) = self.state.borrow().index.fingerprint(request);
        fingerprint.epoch = self.state.borrow().superblock.map.epoch;
        self.durable(wait_for).await?;
        Ok(Reply::Fingerprint(fingerprint))
    }

    pub(super) async fn scan(self: &Rc<Self>, after: Option<Key>, limit: u32) -> Result<Reply> {
        let limit = page_limit(limit);
        let (entries, wait_for) = {
            let state = self.state.borrow();
            let keys = state.index.keys_after(after.as_ref()).map(|(key, _)| key);
            scan_entries(&state.index, keys.take(limit))
        };
        self.scanned(entries, wait_for, limit).await
    }

    pub(super) async fn unsettled(
        self: &Rc<Self>,
        after: Option<Key>,
        limit: u32,
    ) -> Result<Reply> {
        let limit = page_limit(limit);
        let (entries, wait_for) = {
            let state = self.state.borrow();
            scan_entries(&state.index, state.index.unsettled_after(after.as_ref()).take(limit))
        };
        self.scanned(entries, wait_for, limit).await
    }

    async fn scanned(
        self: &Rc<Self>,
        entries: Vec<ScanEntry>,
        wait_for: u64,
        limit: usize,
    ) -> Result<Reply> {
        if self.damage.is_none() {
            self.durable(wait_for).await?;
        }
        let more = entries.len() == limit;
        Ok(Reply::Scanned { entries, more })
    }

    /// Payloads that are here and named by no record, those that are still being staged included.
    pub(super) async fn orphans(
        self: &Rc<Self>,
        after: Option<PayloadId>,
        limit: u32,
    ) -> Result<Reply> {
        let limit = page_limit(limit);
        let (entries, wait_for) = {
            let state = self.state.borrow();
            let here = state.index.orphans_after(after).take(limit);
            let staged = state.staged_after(after).take(limit);
            let mut payloads: Vec<PayloadId> = here.chain(staged).collect();
            payloads.sort_unstable();
            payloads.truncate(limit);
            state.orphan_entries(&payloads, self.runtime.now())
        };
        self.durable(wait_for).await?;
        let more = entries.len() == limit;
        Ok(Reply::Orphans { entries, more })
    }

    pub(super) async fn relocated(
        self: &Rc<Self>,
        after: Option<PayloadId>,
        limit: u32,
    ) -> Result<Reply> {
        let limit = page_limit(limit);
        let (entries, wait_for) = {
            let state = self.state.borrow();
            let payloads: Vec<PayloadId> = state.index.relocated_after(after).take(limit).collect();
            state.orphan_entries(&payloads, self.runtime.now())
        };
        self.durable(wait_for).await?;
        let more = entries.len() == limit;
        Ok(Reply::Orphans { entries, more })
    }

    pub(super) async fn holds(self: &Rc<Self>, payloads: &[PayloadId]) -> Result<Reply> {
        let wait_for = Cell::new(0);
        let holds = {
            let state = self.state.borrow();
            let holds = payloads.iter().map(|payload| {
                let held = state.index.held(*payload);
                wait_for.set(wait_for.get().max(held.map_or(0, |held| held.mutation)));
                held.is_some()
            });
            holds.collect()
        };
        self.durable(wait_for.get()).await?;
        Ok(Reply::Holds(holds))
    }

    pub(super) async fn set_closed(
        self: &Rc<Self>,
        incarnation: Incarnation,
        closed: bool,
    ) -> Result<Reply> {
        let mut mutation = Mutation::default();
        mutation.push(&match closed {
            true => Entry::BucketClosed { incarnation },
            false => Entry::BucketReopened { incarnation },
        });
        // Journaled even where it changes nothing: the change may not be durable yet.
        let reservation = self.reserve(|_| (1, 0)).await?;
        self.state.borrow_mut().index.set_closed(incarnation, closed);
        let number = self.append(reservation, mutation, true);
        self.durable(number).await?;
        Ok(Reply::Done)
    }

    pub(super) async fn install_map(self: &Rc<Self>, map: SetMap) -> Result<Reply> {
        let bytes = crate::format::map_bytes(map.drives.len());
        let reservation = self.reserve(|_| (1, bytes)).await?;
        let mut mutation = Mutation::default();
        {
            let mut state = self.state.borrow_mut();
            if map.epoch < state.superblock.map.epoch {
                return Ok(Reply::Done);
            }
            mutation.push(&Entry::Map(map.clone()));
            state.superblock.map = map;
        }
        let number = self.append(reservation, mutation, true);
        self.durable(number).await?;
        // Before a drive is opened only its superblock is looked at, to tell who belongs to the set.
        self.checkpoint().await?;
        Ok(Reply::Done)
    }

    pub(super) fn status(&self) -> DriveStatus {
        let state = self.state.borrow();
        let reserve = state.put_reserve().bytes();
        DriveStatus {
            drive: state.superblock.drive,
            map: state.superblock.map.clone(),
            capacity_bytes: state.segments.capacity().bytes(),
            free_bytes: state.segments.free().bytes().saturating_sub(reserve),
            keys: state.index.key_count() as u64,
            unsettled: state.index.unsettled_count() as u64,
            journal_used_bytes: self.journal.used().bytes(),
        }
    }
}

impl State {
    fn staged_after(&self, after: Option<PayloadId>) -> impl Iterator<Item = PayloadId> {
        self.staging
            .range((after.map_or(Unbounded, Excluded), Unbounded))
            .filter(|(_, staging)| !staging.discarded)
            .map(|(payload, _)| *payload)
    }

    /// What is told of payloads that are held or staged, and the mutation that has to be durable
    /// before it is.
    fn orphan_entries(&self, payloads: &[PayloadId], now: Moment) -> (Vec<Orphan>, u64) {
        let mut wait_for = 0;
        let entries = payloads.iter().filter_map(|payload| {
            let held = self.index.held(*payload);
            wait_for = wait_for.max(held.map_or(0, |held| held.mutation));
            let (origin, idle) = match held {
                Some(held) => (&held.origin, Duration::ZERO),
                None => {
                    let staging = self.staging.get(payload)?;
                    (&staging.origin, now.since(staging.touched))
                }
            };
            Some(Orphan {
                payload: *payload,
                key: origin.key.clone(),
                operation: origin.operation,
                former_life: origin.life < self.superblock.life,
                sealed: held.is_some(),
                idle,
            })
        });
        (entries.collect(), wait_for)
    }
}

fn page_limit(limit: u32) -> usize {
    limit.clamp(1, PAGE_ENTRIES_MAX) as usize
}

/// What a scan says of `keys`, and the mutation that has to be durable before it does.
fn scan_entries<'a>(index: &Index, keys: impl Iterator<Item = &'a Key>) -> (Vec<ScanEntry>, u64) {
    let mut wait_for = 0;
    let entries = keys
        .map(|key| {
            let (digest, mutation) = index.digest(key);
            wait_for = wait_for.max(mutation);
            let newest = digest.slots.last().expect("a key in the index has a slot");
            ScanEntry {
                key: key.clone(),
                slot: newest.slot,
                certified: newest.certified,
                settled: newest.settled,
                has_shards: newest.has_shards,
            }
        })
        .collect();
    (entries, wait_for)
}

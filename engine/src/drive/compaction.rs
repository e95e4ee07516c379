//! Compaction: what lives in mostly dead segments moves together, so that they become empty.
//!
//! Payload is copied with its checksums verified, flushed, and then journaled at its new place; the
//! old one is given up when that is durable. What changed hands meanwhile stays as it is. Payload
//! that cannot be read or is wrong stays where it is: scrub finds it, repair replaces it.

use std::rc::Rc;

use super::payload::block_of;
use super::verify::{small_is_sound, verified_run};
use super::{Drive, RETRY, State};
use crate::checksum::{RUN_BLOCKS, checksum_block};
use crate::error::Result;
use crate::format::{Extent, Stored};
use crate::index::Place;
use crate::journal::Mutation;
use crate::seam::{Runtime, Storage, WriteSync};
use crate::units::{BLOCK_BYTES, BlockCount, BlockIndex, PayloadId};

/// Segments that one round empties, at most.
const SEGMENTS_AT_ONCE: usize = 4;
/// Payloads looked at between two steps of others.
const LOOK_AT_ONCE: usize = 4096;
/// Bytes copied between two flushes, about.
const COPY_BYTES: u64 = 8 << 20;
/// Compaction begins when fewer than one segment of so many is empty.
const WANTED_EMPTY: usize = 4;

/// A copy of a payload that nothing points to yet.
struct Copied {
    payload: PayloadId,
    /// What put the payload where it was; tells whether it is still the same.
    mutation: u64,
    to: Stored,
}

impl<R: Runtime, S: Storage> Drive<R, S> {
    /// Begins to compact where segments run short and there is something to gain.
    pub(super) fn compact_if_short(self: &Rc<Self>) {
        let is_due = self.compactions.since(self.runtime.now()) >= RETRY;
        if is_due && self.is_short() && !self.compactions.running.replace(true) {
            self.spawn_compaction();
        }
    }

    /// Compacts until segments are not short any more, or nothing is to be gained.
    pub async fn compact(self: &Rc<Self>) -> Result<()> {
        self.check_open()?;
        let finished = self.compactions.finished.reached();
        if !self.compactions.running.replace(true) {
            self.spawn_compaction();
        }
        self.compactions.finished.wait(finished + 1).await?;
        self.compactions.failure().map_or(Ok(()), Err)
    }

    fn spawn_compaction(self: &Rc<Self>) {
        let drive = Rc::clone(self);
        self.runtime.spawn(async move {
            let mut result = drive.compact_round().await;
            while result.is_ok() && drive.is_short() && drive.check_open().is_ok() {
                let before = drive.state.borrow().segments.empty_count();
                result = drive.compact_round().await;
                if drive.state.borrow().segments.empty_count() <= before {
                    break;
                }
            }
            if let Err(error) = &result {
                tracing::warn!(%error, "a compaction failed");
            }
            drive.compactions.finish(result, drive.runtime.now());
        });
    }

    fn is_short(&self) -> bool {
        let segments = &self.state.borrow().segments;
        let total = (segments.capacity().0 / segments.segment_length().0) as usize;
        segments.empty_count() * WANTED_EMPTY < total && segments.has_sparse()
    }

    /// Empties the segments in which least is alive.
    async fn compact_round(self: &Rc<Self>) -> Result<()> {
        let draining = self.state.borrow_mut().segments.drain_sparse(SEGMENTS_AT_ONCE);
        let result = self.drain(&draining).await;
        self.state.borrow_mut().segments.end_drain(&draining);
        result
    }

    async fn drain(self: &Rc<Self>, draining: &[Extent]) -> Result<()> {
        let payloads = self.payloads_in(draining).await;
        let mut rest = &payloads[..];
        while !rest.is_empty() {
            let mut bytes = 0;
            let group = rest.iter().take_while(|(_, length)| {
                let fits = bytes < COPY_BYTES;
                bytes += length;
                fits
            });
            let (group, after) = rest.split_at(group.count());
            rest = after;
            self.move_group(group).await?;
        }
        Ok(())
    }

    /// The payloads that stand in `segments`, and their lengths in bytes.
    async fn payloads_in(self: &Rc<Self>, segments: &[Extent]) -> Vec<(PayloadId, u64)> {
        let mut found = Vec::new();
        let mut after = None;
        loop {
            let looked_at = {
                let state = self.state.borrow();
                let mut looked_at = 0;
                for (payload, entry) in state.index.payloads_after(after).take(LOOK_AT_ONCE) {
                    (looked_at, after) = (looked_at + 1, Some(payload));
                    let place = entry.held.as_ref().map(|held| &held.place);
                    if let Some(Place::Stored(stored)) = place
                        && stands_in(stored, segments)
                    {
                        found.push((payload, stored_bytes(stored)));
                    }
                }
                looked_at
            };
            if looked_at < LOOK_AT_ONCE {
                return found;
            }
            self.runtime.sleep(std::time::Duration::ZERO).await;
        }
    }

    async fn move_group(self: &Rc<Self>, group: &[(PayloadId, u64)]) -> Result<()> {
        let mut copied = Vec::new();
        let result = self.copy_group(group, &mut copied).await;
        if let Err(error) = result {
            let mut state = self.state.borrow_mut();
            copied.iter().for_each(|copy| state.release_stored(&copy.to, 0));
            return Err(error);
        }
        let mut copies = copied.into_iter();
        while let Some(copy) = copies.next() {
            if let Err(error) = self.switch_place(copy).await {
                let mut state = self.state.borrow_mut();
                copies.for_each(|copy| state.release_stored(&copy.to, 0));
                return Err(error);
            }
        }
        Ok(())
    }

    async fn copy_group(
        self: &Rc<Self>,
        group: &[(PayloadId, u64)],
        copied: &mut Vec<Copied>,
    ) -> Result<()> {
        let mut packing = Vec::new();
        for (payload, _) in group {
            let Some((mutation, stored)) = self.state.borrow().stored(*payload) else { continue };
            match stored {
                Stored::Runs { data_blocks, extents } => {
                    if let Some(to) = self.copy_runs(*payload, data_blocks, &extents).await? {
                        copied.push(Copied { payload: *payload, mutation, to });
                    }
                }
                Stored::Packed { .. } => {
                    if let Ok(shard) = self.read_small(*payload).await
                        && small_is_sound(*payload, &shard)
                    {
                        packing.push((*payload, mutation, shard));
                    }
                }
            }
        }
        for (payload, mutation, to) in self.write_packs(packing, State::checkpoint_reserve).await? {
            copied.push(Copied { payload, mutation, to });
        }
        self.flush().await
    }

    /// Copies a shard run by run. `None`: a part of it is wrong or cannot be read.
    async fn copy_runs(
        self: &Rc<Self>,
        payload: PayloadId,
        data_blocks: u64,
        from: &[Extent],
    ) -> Result<Option<Stored>> {
        let _pins: Vec<_> = {
            let mut state = self.state.borrow_mut();
            from.iter().map(|extent| self.pin(&mut state, extent.start)).collect()
        };
        let to = self
            .room(|state, durable| {
                let reserve = state.checkpoint_reserve();
                state.segments.allocate_runs(data_blocks, reserve, durable)
            })
            .await?;
        for run in 0..data_blocks.div_ceil(RUN_BLOCKS) {
            let blocks = (data_blocks - run * RUN_BLOCKS).min(RUN_BLOCKS);
            let at = block_of(from, checksum_block(run));
            let written = match verified_run(&*self.storage, payload, run, at, blocks).await {
                Ok(buffer) => {
                    let at = block_of(&to, checksum_block(run));
                    let result = self.storage.write(at, buffer, WriteSync::Cached).await;
                    result.map(|()| true).map_err(|error| (at, error))
                }
                Err(error) => {
                    tracing::warn!(%payload, %error, "a payload is wrong and stays where it is");
                    Ok(false)
                }
            };
            if !matches!(written, Ok(true)) {
                let mut state = self.state.borrow_mut();
                written.as_ref().err().iter().for_each(|(at, _)| state.segments.spoil(*at));
                to.iter().for_each(|extent| state.segments.release_extent(*extent, 0));
                return written.map(|_| None).map_err(|(_, error)| error);
            }
        }
        Ok(Some(Stored::Runs { data_blocks, extents: to }))
    }

    /// Points to the copy, if the payload is still what was copied.
    async fn switch_place(self: &Rc<Self>, copy: Copied) -> Result<()> {
        let Copied { payload, mutation: copied, to } = copy;
        let bound = |state: &State| state.placed_bound(payload, &to);
        let reservation = match self.reserve(bound).await {
            Ok(reservation) => reservation,
            Err(error) => {
                self.state.borrow_mut().release_stored(&to, 0);
                return Err(error);
            }
        };
        let number = self.journal.last() + 1;
        let mut mutation = Mutation::default();
        {
            let mut state = self.state.borrow_mut();
            match state.index.move_to(payload, copied, to.clone()) {
                None => state.release_stored(&to, 0),
                Some(from) => {
                    let held = state.index.held(payload).expect("it was moved");
                    mutation.push(&held.place.entry(payload, held.origin.clone()));
                    state.release_stored(&from, number);
                }
            }
        }
        if !mutation.is_empty() {
            let appended = self.append(reservation, mutation, false);
            assert_eq!(appended, number, "nothing came between");
        }
        Ok(())
    }
}

impl State {
    /// Where a payload stands in segments, and the mutation that put it there.
    fn stored(&self, payload: PayloadId) -> Option<(u64, Stored)> {
        let held = self.index.held(payload)?;
        match &held.place {
            Place::Stored(stored) => Some((held.mutation, stored.clone())),
            Place::Journal { .. } => None,
        }
    }

    fn placed_bound(&self, payload: PayloadId, stored: &Stored) -> (usize, usize) {
        let key = self.index.held(payload).map_or(0, |held| held.origin.key.as_bytes().len());
        let extents = match stored {
            Stored::Runs { extents, .. } => extents.len(),
            Stored::Packed { .. } => 0,
        };
        (1, key + 16 * extents)
    }
}

fn stands_in(stored: &Stored, segments: &[Extent]) -> bool {
    let within = |at: BlockIndex| segments.iter().any(|segment| segment.contains(at));
    match stored {
        Stored::Runs { extents, .. } => extents.iter().any(|extent| within(extent.start)),
        Stored::Packed { at, bytes, .. } => *bytes > 0 && within(*at),
    }
}

fn stored_bytes(stored: &Stored) -> u64 {
    match stored {
        Stored::Runs { data_blocks, .. } => BlockCount(*data_blocks).bytes(),
        Stored::Packed { bytes, .. } => u64::from(*bytes).max(BLOCK_BYTES as u64 / 8),
    }
}

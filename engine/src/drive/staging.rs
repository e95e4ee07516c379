//! Staging payload. A shard in runs is staged in three steps (open, write, seal). Until it is sealed
//! nothing of it is durable, and only [`Staging`] knows of its extents; a restart forgets it.
//! Sealing flushes what was written and then journals where it stands. A small shard rides in the
//! journal.
//!
//! A write into a segment runs to its end in a task of its own, whoever waits for it: the extent
//! is not given up before.
//!
//! A shard that is opened again while it is staged begins anew: whoever staged it first has given this
//! drive up, and what was still to come of it may be lost.

use std::rc::Rc;

use super::payload::block_of;
use super::{Drive, State};
use crate::buffer::SharedBuffer;
use crate::checksum::{RUN_BLOCKS, checksum_block};
use crate::error::{Error, Result};
use crate::format::{Extent, Origin, Stored};
use crate::index::{Held, Place};
use crate::journal::{Mutation, Reservation};
use crate::progress::Progress;
use crate::record::SMALL_SHARD_BYTES_MAX;
use crate::request::{Reply, SmallShard};
use crate::seam::{Moment, Runtime, Storage, WriteSync};
use crate::units::{BLOCK_BYTES, BlockCount, BlockIndex, Key, OperationId, PayloadId};

/// Longest shard: the longest part of an object on one data shard.
const SHARD_BLOCKS_MAX: u64 = (5 << 30) / BLOCK_BYTES as u64 + 1;

/// A shard that is being staged.
pub(super) struct Staging {
    pub(super) origin: Origin,
    data_blocks: u64,
    extents: Box<[Extent]>,
    /// Runs that are written.
    written: Vec<bool>,
    pub(super) in_flight: u32,
    /// A seal began: nothing is written any more.
    sealing: bool,
    /// Tells it from another one under the same id.
    number: u64,
    failure: Option<Error>,
    /// When it was opened, or last written.
    pub(super) touched: Moment,
    /// It was given up; its extents are released when the last write is over.
    pub(super) discarded: bool,
    /// Writes that are over.
    over: Rc<Progress>,
}

/// What a seal finds.
enum BeforeSeal {
    /// Another seal came first, by this mutation.
    Sealed(u64),
    /// Writes are in flight; so many were over.
    Writing(Rc<Progress>, u64),
    Written,
}

impl<R: Runtime, S: Storage> Drive<R, S> {
    pub(super) async fn stage_open(
        self: &Rc<Self>,
        payload: PayloadId,
        key: Key,
        operation: OperationId,
        length_blocks: u64,
    ) -> Result<Reply> {
        if !(1..=SHARD_BLOCKS_MAX).contains(&length_blocks) {
            return Err(Error::Limit { what: "blocks of a shard", limit: SHARD_BLOCKS_MAX });
        }
        if self.state.borrow().index.held(payload).is_some() {
            return Ok(Reply::Done);
        }
        let extents = self
            .room(|state, durable| {
                let reserve = state.reserve_for(payload);
                state.segments.allocate_runs(length_blocks, reserve, durable)
            })
            .await?;
        let mut state = self.state.borrow_mut();
        state.discard_staging(payload);
        let life = state.superblock.life;
        let number = state.next_staging();
        if state.staging.contains_key(&payload) || state.index.held(payload).is_some() {
            for extent in extents {
                state.segments.release_extent(extent, 0);
            }
            return Err(Error::Unavailable { reason: "the payload is being staged" });
        }
        let staging = Staging {
            origin: Origin { key, operation, life },
            data_blocks: length_blocks,
            extents,
            written: vec![false; length_blocks.div_ceil(RUN_BLOCKS) as usize],
            in_flight: 0,
            sealing: false,
            number,
            failure: None,
            touched: self.runtime.now(),
            discarded: false,
            over: Rc::default(),
        };
        state.staging.insert(payload, staging);
        Ok(Reply::Done)
    }

    pub(super) async fn stage_write(
        self: &Rc<Self>,
        payload: PayloadId,
        run: u64,
        buffer: SharedBuffer,
    ) -> Result<Reply> {
        let (at, over, number) = {
            let mut state = self.state.borrow_mut();
            if state.index.held(payload).is_some() {
                return Ok(Reply::Done);
            }
            let staging = state.staged(payload)?;
            let at = staging.place_of(run, &buffer)?;
            staging.in_flight += 1;
            (at, Rc::clone(&staging.over), run)
        };
        let drive = Rc::clone(self);
        let done = Rc::new(Progress::default());
        let told = Rc::clone(&done);
        self.runtime.spawn(async move {
            let result = drive.storage.write(at, buffer, WriteSync::Cached).await;
            let now = drive.runtime.now();
            drive.state.borrow_mut().write_over(payload, number, at, &result, now);
            over.advance(over.reached() + 1);
            match result {
                Ok(()) => told.advance(1),
                Err(error) => told.fail(error),
            }
        });
        done.wait(1).await?;
        Ok(Reply::Done)
    }

    pub(super) async fn stage_seal(self: &Rc<Self>, payload: PayloadId) -> Result<Reply> {
        loop {
            let before = self.state.borrow_mut().before_seal(payload)?;
            match before {
                BeforeSeal::Sealed(mutation) => {
                    self.durable(mutation).await?;
                    return Ok(Reply::Done);
                }
                BeforeSeal::Writing(over, seen) => over.wait(seen + 1).await?,
                BeforeSeal::Written => break,
            }
        }
        let staging = self.state.borrow_mut().begin_seal(payload)?;
        self.flush().await?;
        let bound = |state: &State| {
            let staging = state.staging.get(&payload);
            let extents = staging.map_or(0, |staging| staging.extents.len());
            (1, extents * 16 + staging.map_or(0, |staging| staging.origin.key.as_bytes().len()))
        };
        let reservation = self.reserve(bound).await?;
        let number = self.journal.last() + 1;
        let mutation = {
            let mut state = self.state.borrow_mut();
            // Another seal may have come first, or the payload may be gone.
            match state.index.held(payload) {
                Some(_) => Mutation::default(),
                None => state.seal(payload, staging, number)?,
            }
        };
        self.append_if_any(reservation, mutation, number);
        let wait_for = self.state.borrow().index.held(payload).map_or(number, |held| held.mutation);
        self.durable(wait_for).await?;
        Ok(Reply::Done)
    }

    /// Takes a whole small shard. The answer waits for the mutation that is returned.
    pub(super) fn stage_small(
        self: &Rc<Self>,
        room: Reservation<R, S>,
        payload: PayloadId,
        key: Key,
        operation: OperationId,
        shard: SmallShard,
    ) -> Result<u64> {
        if shard.bytes.len() as u64 > SMALL_SHARD_BYTES_MAX {
            return Err(Error::Limit {
                what: "bytes of a small shard",
                limit: SMALL_SHARD_BYTES_MAX,
            });
        }
        let number = self.journal.last() + 1;
        let mut mutation = Mutation::default();
        let wait_for = {
            let mut state = self.state.borrow_mut();
            match state.index.held(payload) {
                Some(held) => held.mutation,
                None => {
                    state.segments.collect(self.journal.durable_reached());
                    let reserve = state.reserve_for(payload);
                    if state.segments.free() < reserve {
                        drop(state);
                        return Err(self.full());
                    }
                    let life = state.superblock.life;
                    let origin = Origin { key, operation, life };
                    let place = Place::Journal { checksum: shard.checksum, bytes: shard.bytes };
                    mutation.push(&place.entry(payload, origin.clone()));
                    state.index.hold(payload, Held { origin, place, mutation: number });
                    number
                }
            }
        };
        self.append_if_any(room, mutation, number);
        Ok(wait_for)
    }
}

impl Staging {
    /// Where run `run` goes, if `buffer` can be it.
    fn place_of(&self, run: u64, buffer: &SharedBuffer) -> Result<BlockIndex> {
        let runs = self.written.len() as u64;
        if run >= runs {
            return Err(Error::Limit { what: "runs of the shard", limit: runs });
        }
        let blocks = 1 + (self.data_blocks - run * RUN_BLOCKS).min(RUN_BLOCKS);
        if buffer.length_blocks().0 != blocks {
            return Err(Error::Limit { what: "blocks of the run", limit: blocks });
        }
        if self.sealing {
            return Err(Error::Unavailable { reason: "the payload is being sealed" });
        }
        Ok(block_of(&self.extents, checksum_block(run)))
    }

    fn check_whole(&self) -> Result<()> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        if !self.written.iter().all(|&written| written) {
            return Err(Error::Unavailable { reason: "runs of the shard were not written" });
        }
        Ok(())
    }
}

impl State {
    fn next_staging(&mut self) -> u64 {
        self.stagings += 1;
        self.stagings
    }

    fn staged(&mut self, payload: PayloadId) -> Result<&mut Staging> {
        self.staging
            .get_mut(&payload)
            .filter(|staging| !staging.discarded)
            .ok_or(Error::PayloadMissing { payload })
    }

    fn before_seal(&mut self, payload: PayloadId) -> Result<BeforeSeal> {
        if let Some(held) = self.index.held(payload) {
            return Ok(BeforeSeal::Sealed(held.mutation));
        }
        let staging = self.staged(payload)?;
        if staging.in_flight == 0 {
            return Ok(BeforeSeal::Written);
        }
        Ok(BeforeSeal::Writing(Rc::clone(&staging.over), staging.over.reached()))
    }

    /// Blocks that a payload must leave free. One that a record names is repair.
    fn reserve_for(&self, payload: PayloadId) -> BlockCount {
        if self.index.is_named(payload) { self.checkpoint_reserve() } else { self.put_reserve() }
    }

    fn write_over(
        &mut self,
        payload: PayloadId,
        run: u64,
        at: BlockIndex,
        result: &Result<()>,
        now: Moment,
    ) {
        if result.is_err() {
            self.segments.spoil(at);
        }
        let staging = self.staging.get_mut(&payload).expect("it stays while a write is in flight");
        staging.in_flight -= 1;
        staging.touched = now;
        match result {
            Ok(()) => staging.written[run as usize] = true,
            Err(error) => staging.failure = Some(error.clone()),
        }
        if staging.discarded && staging.in_flight == 0 {
            self.release_staging(payload);
        }
    }

    /// Gives a staged shard up, now or when its last write is over.
    pub(super) fn discard_staging(&mut self, payload: PayloadId) {
        let Some(staging) = self.staging.get_mut(&payload) else { return };
        staging.discarded = true;
        if staging.in_flight == 0 {
            self.release_staging(payload);
        }
    }

    fn release_staging(&mut self, payload: PayloadId) {
        let staging = self.staging.remove(&payload).expect("it is there");
        for extent in staging.extents {
            self.segments.release_extent(extent, 0);
        }
    }

    /// Ends the writing of a shard, if it is whole. Returns what tells it from another.
    fn begin_seal(&mut self, payload: PayloadId) -> Result<u64> {
        let staging = self.staged(payload)?;
        assert_eq!(staging.in_flight, 0, "a seal waits for the writes before it");
        staging.check_whole()?;
        staging.sealing = true;
        Ok(staging.number)
    }

    /// A staged shard, the one whose seal began before it was flushed, becomes a payload of the
    /// drive.
    fn seal(&mut self, payload: PayloadId, flushed: u64, number: u64) -> Result<Mutation> {
        if self.staged(payload)?.number != flushed {
            return Err(Error::PayloadMissing { payload });
        }
        let staging = self.staging.remove(&payload).expect("found above");
        let stored = Stored::Runs { data_blocks: staging.data_blocks, extents: staging.extents };
        let place = Place::Stored(stored);
        let mut mutation = Mutation::default();
        mutation.push(&place.entry(payload, staging.origin.clone()));
        self.index.hold(payload, Held { origin: staging.origin, place, mutation: number });
        Ok(mutation)
    }
}

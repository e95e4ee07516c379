//! Payload that is here: reading it, giving it up.

use std::rc::Rc;

use super::{Drive, State};
use crate::buffer::Buffer;
use crate::checksum::{RUN_BLOCKS, RunChecksums, checksum_block, split_by_run};
use crate::error::{Error, Result};
use crate::format::{Entry, Extent, Stored};
use crate::index::Place;
use crate::journal::Mutation;
use crate::request::{Reply, RunRead, SmallShard};
use crate::seam::{Runtime, Storage};
use crate::units::{BLOCK_BYTES, BlockCount, BlockIndex, Key, PayloadId};

/// A gap up to this between the checksum block and the data asked for is read along.
const READ_GAP_BLOCKS: u64 = 16;

/// Keeps a segment from being reused while it is read.
pub(super) struct Pin<R: Runtime, S: Storage> {
    drive: Rc<Drive<R, S>>,
    at: BlockIndex,
}

impl<R: Runtime, S: Storage> Drop for Pin<R, S> {
    fn drop(&mut self) {
        self.drive.state.borrow_mut().segments.unpin(self.at);
    }
}

impl<R: Runtime, S: Storage> Drive<R, S> {
    /// Frees a payload that no record names, and that was not relocated to one that this drive may
    /// not know.
    pub(super) async fn discard(self: &Rc<Self>, payload: PayloadId) -> Result<Reply> {
        {
            let mut state = self.state.borrow_mut();
            state.discard_staging(payload);
            if state.index.is_named(payload) {
                return Ok(Reply::Done);
            }
            if state.index.is_relocated(payload) {
                // It was relocated after it had been taken for an orphan.
                state.index.note_orphan(payload);
                return Ok(Reply::Done);
            }
        }
        self.free(payload, None, |state| {
            !state.index.is_named(payload) && !state.index.is_relocated(payload)
        })
        .await
    }

    /// Frees a payload that was relocated, and that nothing needs any more.
    pub(super) async fn release(self: &Rc<Self>, payload: PayloadId) -> Result<Reply> {
        self.free(payload, None, |state| !state.index.is_named(payload)).await
    }

    /// Frees a payload whoever names it, so that repair sees that it is missing.
    pub(super) async fn drop_shard(self: &Rc<Self>, payload: PayloadId, key: Key) -> Result<Reply> {
        self.free(payload, Some(key), |_| true).await
    }

    async fn free(
        self: &Rc<Self>,
        payload: PayloadId,
        key: Option<Key>,
        allowed: impl FnOnce(&State) -> bool,
    ) -> Result<Reply> {
        let bound = |state: &State| state.free_bound(payload, key.as_ref());
        let reservation = self.reserve(bound).await?;
        let number = self.journal.last() + 1;
        let mutation = {
            let mut state = self.state.borrow_mut();
            if !allowed(&state) {
                return Ok(Reply::Done);
            }
            state.free(payload, key, number)
        };
        if mutation.is_empty() {
            return Ok(Reply::Done);
        }
        self.append_if_any(reservation, mutation, number);
        self.durable(number).await?;
        Ok(Reply::Done)
    }

    pub(super) async fn read_small(self: &Rc<Self>, payload: PayloadId) -> Result<SmallShard> {
        let (place, mutation, _pin) = {
            let mut state = self.state.borrow_mut();
            let held = state.index.held(payload).ok_or(Error::PayloadMissing { payload })?;
            let (place, mutation) = (held.place.clone(), held.mutation);
            let pin = match &place {
                Place::Stored(Stored::Packed { at, .. }) => Some(self.pin(&mut state, *at)),
                _ => None,
            };
            (place, mutation, pin)
        };
        self.durable(mutation).await?;
        let (checksum, at, offset, bytes) = match place {
            Place::Journal { checksum, bytes } => return Ok(SmallShard { checksum, bytes }),
            Place::Stored(Stored::Runs { .. }) => return Err(Error::PayloadMissing { payload }),
            Place::Stored(Stored::Packed { checksum, at, offset, bytes }) => {
                (checksum, at, usize::from(offset), bytes as usize)
            }
        };
        let length = BlockCount::covering((offset + bytes).max(1) as u64);
        let (buffer, result) = self.storage.read(at, Buffer::unwritten(length)).await;
        result?;
        let bytes = bytes::Bytes::copy_from_slice(&buffer[offset..offset + bytes]);
        Ok(SmallShard { checksum, bytes })
    }

    pub(super) async fn read_run(
        self: &Rc<Self>,
        payload: PayloadId,
        first_block: u64,
        blocks: u64,
    ) -> Result<Reply> {
        let run = first_block / RUN_BLOCKS;
        let (start, run_blocks, wait_for, _pin) = {
            let mut state = self.state.borrow_mut();
            let held = state.index.held(payload).ok_or(Error::PayloadMissing { payload })?;
            let Place::Stored(Stored::Runs { data_blocks, extents }) = &held.place else {
                return Err(Error::PayloadMissing { payload });
            };
            let end = first_block.checked_add(blocks).filter(|end| end <= data_blocks);
            let one_run = end.is_some_and(|end| split_by_run(first_block..end).count() == 1);
            if !one_run {
                return Err(Error::Limit { what: "blocks of the run", limit: *data_blocks });
            }
            let start = block_of(extents, checksum_block(run));
            let run_blocks = (data_blocks - run * RUN_BLOCKS).min(RUN_BLOCKS);
            let mutation = held.mutation;
            (start, run_blocks, mutation, self.pin(&mut state, start))
        };
        self.durable(wait_for).await?;
        let from = first_block % RUN_BLOCKS;
        let read = RunPlace { payload, run, start, run_blocks };
        if from <= READ_GAP_BLOCKS {
            self.read_with_checksums(read, from, blocks).await
        } else {
            self.read_apart(read, from, blocks).await
        }
    }

    /// One read from the checksum block to the last block asked for.
    async fn read_with_checksums(&self, place: RunPlace, from: u64, blocks: u64) -> Result<Reply> {
        let length = BlockCount(1 + from + blocks);
        let (buffer, result) = self.storage.read(place.start, Buffer::unwritten(length)).await;
        result?;
        let checksums = place.checksums(&buffer[..BLOCK_BYTES], from, blocks)?;
        Ok(Reply::Run(RunRead { buffer, data_start_blocks: 1 + from, checksums }))
    }

    /// The checksum block and the blocks asked for, at the same time.
    async fn read_apart(&self, place: RunPlace, from: u64, blocks: u64) -> Result<Reply> {
        let data_at = place.start.plus(BlockCount(1 + from));
        let head = self.storage.read(place.start, Buffer::unwritten(BlockCount(1)));
        let data = self.storage.read(data_at, Buffer::unwritten(BlockCount(blocks)));
        let ((head, head_result), (buffer, result)) = futures_util::join!(head, data);
        head_result?;
        result?;
        let checksums = place.checksums(&head, from, blocks)?;
        Ok(Reply::Run(RunRead { buffer, data_start_blocks: 0, checksums }))
    }

    pub(super) fn pin(self: &Rc<Self>, state: &mut State, at: BlockIndex) -> Pin<R, S> {
        state.segments.pin(at);
        Pin { drive: Rc::clone(self), at }
    }
}

/// A run on the drive.
#[derive(Clone, Copy)]
struct RunPlace {
    payload: PayloadId,
    run: u64,
    /// Its checksum block.
    start: BlockIndex,
    run_blocks: u64,
}

impl RunPlace {
    /// The checksums in `block`, if it is the checksum block of this run.
    fn checksums(&self, block: &[u8], from: u64, blocks: u64) -> Result<Box<[u64]>> {
        let parsed = RunChecksums::parse(block).ok().filter(|parsed| {
            parsed.payload() == self.payload
                && parsed.run() == self.run
                && parsed.blocks() == self.run_blocks
        });
        let parsed = parsed.ok_or(Error::Corrupt { what: "checksum block", at: self.start })?;
        Ok(parsed.checksums(from..from + blocks))
    }
}

/// Block `block` of a shard that stands in `extents`, checksum blocks counted.
pub(super) fn block_of(extents: &[Extent], mut block: u64) -> BlockIndex {
    for extent in extents {
        if block < extent.length.0 {
            return extent.start.plus(BlockCount(block));
        }
        block -= extent.length.0;
    }
    unreachable!("the block lies within the shard");
}

impl State {
    fn free_bound(&self, payload: PayloadId, needed_by: Option<&Key>) -> (usize, usize) {
        let names = self.index.payload(payload).map(|entry| entry.names.iter());
        let keys = names.into_iter().flatten().chain(needed_by).map(|key| {
            key.as_bytes().len() + self.index.key(key).map_or(0, |state| state.encoded_bytes())
        });
        (1 + keys.clone().count(), keys.sum())
    }

    /// Frees a payload; the keys whose records name it are no longer settled, nor is `needed_by`.
    fn free(&mut self, payload: PayloadId, needed_by: Option<Key>, number: u64) -> Mutation {
        let mut mutation = Mutation::default();
        let Some(held) = self.index.remove_held(payload) else { return mutation };
        mutation.push(&Entry::Freed { payload });
        if let Place::Stored(stored) = held.place {
            self.release_stored(&stored, number);
        }
        let names = self.index.payload(payload).map(|entry| entry.names.clone());
        for key in names.into_iter().flatten().chain(needed_by) {
            if self.index.key(&key).is_none() {
                continue;
            }
            let updated = self.index.update(&key, |state| state.unsettle());
            if updated.changed {
                mutation.push(&self.key_entry(&key));
                self.index.set_mutation(&key, number);
            }
        }
        mutation
    }

    /// Gives up the room of a payload, once mutation `freed_by` is durable.
    pub(super) fn release_stored(&mut self, stored: &Stored, freed_by: u64) {
        match stored {
            Stored::Runs { extents, .. } => {
                for extent in extents {
                    self.segments.release_extent(*extent, freed_by);
                }
            }
            Stored::Packed { at, bytes, .. } => {
                self.segments.release(*at, u64::from(*bytes), freed_by);
            }
        }
    }
}

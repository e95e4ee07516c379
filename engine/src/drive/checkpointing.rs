//! Writing a checkpoint, in steps between which other requests are served:
//!
//! 1. note the boundary in the journal and take what changed;
//! 2. pack the small payloads that only the journal holds;
//! 3. write a run: what changed, or from time to time everything;
//! 4. wait until the journal holds every change that the run may show;
//! 5. write the manifest; flush; write the superblock, which flushes too;
//! 6. free the journal up to the boundary, and the runs that a new base replaced.
//!
//! Until step 5 is done the former checkpoint and the whole journal stand. When a step before it
//! fails, what was written is given up and nothing else changed. When writing the superblock
//! fails, nobody knows which checkpoint counts: the drive is fenced.

use std::rc::Rc;

use super::{Drive, State};
use crate::buffer::Buffer;
use crate::checkpoint::{Manifest, PAGE_BYTES, Page, Run};
use crate::error::Result;
use crate::format::{Entry, Extent, FrameKind, Stored, byte_position, encode_frame, frame_blocks};
use crate::index::{Changed, Place};
use crate::journal::Boundary;
use crate::request::SmallShard;
use crate::seam::{Runtime, Storage, WriteSync};
use crate::segment::Stream;
use crate::superblock::{self, ManifestPlace, Root, Superblock};
use crate::units::{BlockCount, Incarnation, Key, PayloadId};

/// Small payloads are packed into writes of about this length.
const PACK_BYTES: usize = 1 << 20;
/// Small payloads packed between two looks at which are still there.
const PACK_AT_ONCE: usize = 1024;

/// A checkpoint in the making.
struct Work {
    checkpoint: u64,
    boundary: Boundary,
    changed: Changed,
    packing: Vec<PayloadId>,
    /// Frames written so far, for the case that it fails.
    written: Vec<Extent>,
}

/// A small payload on its way into a segment, and the mutation that put it where it is.
type Packing = (PayloadId, u64, SmallShard);

impl<R: Runtime, S: Storage> Drive<R, S> {
    pub(super) async fn write_checkpoint(self: &Rc<Self>) -> Result<()> {
        let mut work = {
            let mut state = self.state.borrow_mut();
            Work {
                checkpoint: state.manifest.checkpoint + 1,
                boundary: self.journal.boundary(),
                changed: state.index.take_changed(),
                packing: state.index.in_journal().iter().copied().collect(),
                written: Vec::new(),
            }
        };
        let prepared = self.prepare_root(&mut work).await;
        let (manifest, superblock) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                self.give_up(work);
                return Err(error);
            }
        };
        if let Err(error) = superblock::write(&*self.storage, &superblock).await {
            self.fence(error.clone());
            return Err(error);
        }
        self.switch_to(manifest, &superblock, work.boundary);
        Ok(())
    }

    fn give_up(&self, work: Work) {
        let mut state = self.state.borrow_mut();
        state.index.put_back_changed(work.changed);
        for extent in work.written {
            state.segments.release_extent(extent, 0);
        }
    }

    /// Everything up to the superblock, which is returned, ready to be written.
    async fn prepare_root(self: &Rc<Self>, work: &mut Work) -> Result<(Manifest, Superblock)> {
        self.pack(&work.packing).await?;
        let manifest = self.write_run(work).await?;
        let mut superblock = self.state.borrow().superblock.clone();
        self.journal.durable(self.journal.last()).await?;
        // One flush for both: nothing points to the manifest before the superblock does.
        let place = self.write_manifest(&manifest, work).await?;
        self.flush().await?;
        superblock.sequence += 1;
        superblock.root = Root {
            manifest: Some(place),
            journal_at: work.boundary.at,
            journal_sequence: work.boundary.sequence,
        };
        Ok((manifest, superblock))
    }

    fn switch_to(&self, manifest: Manifest, superblock: &Superblock, boundary: Boundary) {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let before = std::mem::replace(&mut state.manifest, manifest);
        let kept = state.manifest.runs.first().map(|run| run.checkpoint);
        let replaced =
            before.runs.iter().filter(|run| kept.is_some_and(|kept| run.checkpoint < kept));
        let frames = replaced
            .flat_map(|run| run.pages.iter().copied())
            .chain(state.superblock.root.manifest.map(|manifest| manifest.extent));
        for extent in frames {
            state.segments.release_extent(extent, 0);
        }
        state.superblock.sequence = superblock.sequence;
        state.superblock.root = superblock.root;
        self.journal.release(boundary);
    }

    /// Moves small payloads from the journal into segments.
    async fn pack(self: &Rc<Self>, packing: &[PayloadId]) -> Result<()> {
        for group in packing.chunks(PACK_AT_ONCE) {
            let items = group.iter().filter_map(|payload| self.state.borrow().packing(*payload));
            let items = items.collect();
            for (payload, mutation, stored) in self.write_packs(items, |_| BlockCount(0)).await? {
                let mut state = self.state.borrow_mut();
                if !state.index.repack(payload, mutation, stored.clone()) {
                    // It was freed meanwhile, or came again.
                    state.release_stored(&stored, 0);
                }
            }
        }
        Ok(())
    }

    /// Writes small payloads one behind the other, leaving the reserve free. Says where each
    /// stands; nothing points there yet.
    pub(super) async fn write_packs(
        self: &Rc<Self>,
        items: Vec<Packing>,
        reserve: fn(&State) -> BlockCount,
    ) -> Result<Vec<(PayloadId, u64, Stored)>> {
        let segment_bytes = self.state.borrow().segments.segment_length().bytes() as usize;
        let most = PACK_BYTES.min(segment_bytes / 2);
        let mut packed: Vec<(PayloadId, u64, Stored)> = Vec::with_capacity(items.len());
        let mut rest = &items[..];
        while !rest.is_empty() {
            let mut bytes = 0;
            let fitting = rest.iter().take_while(|(_, _, shard)| {
                let first = bytes == 0;
                bytes += shard.bytes.len();
                first || bytes <= most
            });
            let (group, after) = rest.split_at(fitting.count());
            rest = after;
            match self.write_pack(group, reserve).await {
                Ok(places) => packed.extend(places),
                Err(error) => {
                    let mut state = self.state.borrow_mut();
                    packed.iter().for_each(|(_, _, stored)| state.release_stored(stored, 0));
                    return Err(error);
                }
            }
        }
        Ok(packed)
    }

    async fn write_pack(
        self: &Rc<Self>,
        group: &[Packing],
        reserve: fn(&State) -> BlockCount,
    ) -> Result<Vec<(PayloadId, u64, Stored)>> {
        let bytes: usize = group.iter().map(|(_, _, shard)| shard.bytes.len()).sum();
        let length = BlockCount::covering(bytes.max(1) as u64);
        let extent = self
            .room(|state, durable| {
                let reserve = reserve(state);
                state.segments.allocate(Stream::Packed, length, reserve, durable)
            })
            .await?;
        let mut buffer = Buffer::unwritten(length);
        let mut end = 0;
        let mut places = Vec::with_capacity(group.len());
        for (payload, mutation, shard) in group {
            buffer[end..end + shard.bytes.len()].copy_from_slice(&shard.bytes);
            let (at, offset) = byte_position(extent.start, end as u64);
            end += shard.bytes.len();
            let bytes = u32::try_from(shard.bytes.len()).expect("a small payload");
            let stored = Stored::Packed { checksum: shard.checksum, at, offset, bytes };
            places.push((*payload, *mutation, stored));
        }
        buffer[end..].fill(0);
        self.write_frame(extent, buffer).await?;
        let unused = extent.length.bytes() - bytes as u64;
        self.state.borrow_mut().segments.release(extent.start, unused, 0);
        Ok(places)
    }

    /// Writes to an extent that nobody knows of yet, and gives it up where that fails.
    async fn write_frame(&self, extent: Extent, buffer: Buffer) -> Result<()> {
        let result = self.storage.write(extent.start, buffer, WriteSync::Cached).await;
        if result.is_err() {
            let mut state = self.state.borrow_mut();
            state.segments.spoil(extent.start);
            state.segments.release_extent(extent, 0);
        }
        result
    }

    async fn write_run(self: &Rc<Self>, work: &mut Work) -> Result<Manifest> {
        let (mut manifest, segment_length) = {
            let state = self.state.borrow();
            (state.manifest.clone(), state.segments.segment_length())
        };
        let everything = manifest.wants_base();
        if everything {
            manifest.runs.clear();
        }
        manifest.checkpoint = work.checkpoint;
        let page_bytes = PAGE_BYTES.min(segment_length.bytes() as usize / 4);
        let mut run = Run { checkpoint: work.checkpoint, pages: Vec::new() };
        let mut cursor = Cursor::Buckets(None);
        while cursor != Cursor::End {
            let mut page = Page::default();
            {
                let state = self.state.borrow();
                while cursor != Cursor::End && page.bytes() < page_bytes {
                    cursor = if everything {
                        cursor.push_next(&state, &mut page)
                    } else {
                        cursor.push_next_changed(&state, &work.changed, &mut page)
                    };
                }
            }
            if !page.is_empty() {
                let number = u32::try_from(run.pages.len()).expect("below 2^32 pages");
                let extent = self.write_page(&page, work, number).await?;
                run.pages.push(extent);
            }
        }
        manifest.runs.push(run);
        Ok(manifest)
    }

    async fn write_page(
        self: &Rc<Self>,
        page: &Page,
        work: &mut Work,
        number: u32,
    ) -> Result<Extent> {
        let extent = self.index_room(frame_blocks(page.bytes())).await?;
        let owner = self.state.borrow().superblock.owner();
        let buffer = page.encode(owner, extent, work.checkpoint, number);
        self.write_frame(extent, buffer).await?;
        work.written.push(extent);
        Ok(extent)
    }

    async fn write_manifest(
        self: &Rc<Self>,
        manifest: &Manifest,
        work: &mut Work,
    ) -> Result<ManifestPlace> {
        let body = manifest.encode();
        let extent = self.index_room(frame_blocks(body.len())).await?;
        let owner = self.state.borrow().superblock.owner();
        let parts = std::iter::once(&body[..]);
        let at = extent.start;
        let buffer = encode_frame(owner, FrameKind::Manifest, at, work.checkpoint, 0, parts);
        self.write_frame(extent, buffer).await?;
        work.written.push(extent);
        let body_crc = crate::format::body_crc(owner, &body);
        Ok(ManifestPlace { checkpoint: work.checkpoint, extent, body_crc })
    }

    async fn index_room(self: &Rc<Self>, length: BlockCount) -> Result<Extent> {
        self.room(|state, durable| {
            state.segments.allocate(Stream::Index, length, BlockCount(0), durable)
        })
        .await
    }
}

impl State {
    fn packing(&self, payload: PayloadId) -> Option<Packing> {
        let held = self.index.held(payload)?;
        let Place::Journal { checksum, bytes } = &held.place else { return None };
        let shard = SmallShard { checksum: *checksum, bytes: bytes.clone() };
        Some((payload, held.mutation, shard))
    }
}

/// How far a run is written.
#[derive(Clone, PartialEq, Eq)]
enum Cursor {
    Buckets(Option<Incarnation>),
    Keys(Option<Key>),
    Payloads(Option<PayloadId>),
    End,
}

impl Cursor {
    /// Adds the next thing of all there is.
    fn push_next(self, state: &State, page: &mut Page) -> Self {
        let index = &state.index;
        match self {
            Self::Buckets(_) => {
                for incarnation in index.closed_buckets() {
                    page.push(&Entry::BucketClosed { incarnation });
                }
                Self::Keys(None)
            }
            Self::Keys(after) => match index.keys_after(after.as_ref()).next() {
                None => Self::Payloads(None),
                Some((key, _)) => {
                    push_key(state, key, page);
                    Self::Keys(Some(key.clone()))
                }
            },
            Self::Payloads(after) => match index.payloads_after(after).next() {
                None => Self::End,
                Some((payload, _)) => {
                    if index.held(payload).is_some() {
                        push_payload(state, payload, page);
                    }
                    Self::Payloads(Some(payload))
                }
            },
            Self::End => Self::End,
        }
    }

    /// Adds the next thing of what changed.
    fn push_next_changed(self, state: &State, changed: &Changed, page: &mut Page) -> Self {
        match self {
            Self::Buckets(after) => match next_after(&changed.buckets, after) {
                None => Self::Keys(None),
                Some(incarnation) => {
                    page.push(&match state.index.is_closed(incarnation) {
                        true => Entry::BucketClosed { incarnation },
                        false => Entry::BucketReopened { incarnation },
                    });
                    Self::Buckets(Some(incarnation))
                }
            },
            Self::Keys(after) => match next_after(&changed.keys, after) {
                None => Self::Payloads(None),
                Some(key) => {
                    push_key(state, &key, page);
                    Self::Keys(Some(key))
                }
            },
            Self::Payloads(after) => match next_after(&changed.payloads, after) {
                None => Self::End,
                Some(payload) => {
                    push_payload(state, payload, page);
                    Self::Payloads(Some(payload))
                }
            },
            Self::End => Self::End,
        }
    }
}

fn next_after<T: Ord + Clone>(set: &std::collections::BTreeSet<T>, after: Option<T>) -> Option<T> {
    use std::ops::Bound::{Excluded, Unbounded};
    set.range((after.map_or(Unbounded, Excluded), Unbounded)).next().cloned()
}

fn push_key(state: &State, key: &Key, page: &mut Page) {
    page.push(&state.key_entry(key));
}

/// What stands only in the journal was put there behind the boundary, and is left to it.
fn push_payload(state: &State, payload: PayloadId, page: &mut Page) {
    match state.index.held(payload) {
        None => page.push(&Entry::Freed { payload }),
        Some(held) if matches!(held.place, Place::Journal { .. }) => {}
        Some(held) => page.push(&held.place.entry(payload, held.origin.clone())),
    }
}

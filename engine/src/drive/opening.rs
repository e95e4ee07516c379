//! Formatting a drive, and opening it: superblock, checkpoint, journal, and what follows from them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::{Attempts, Drive, State};
use crate::buffer::Buffer;
use crate::checkpoint::{Manifest, read_page};
use crate::error::{Error, Result};
use crate::flush::Flushes;
use crate::format::{Entry, Extent, Stored};
use crate::index::{Index, Place};
use crate::journal::replay::{Replayed, replay};
use crate::journal::{Boundary, Journal, Mutation};
use crate::request::SetMap;
use crate::seam::{Runtime, Storage, WriteSync};
use crate::segment::Segments;
use crate::superblock::{self, REGION_END, Regions, Root, Superblock};
use crate::superseded::Superseded;
use crate::units::{BlockCount, DeploymentId, DriveId, SetIndex};

/// Journal of a drive that is large enough for it.
const JOURNAL_BLOCKS: BlockCount = BlockCount(32 << 20 >> 12);
/// Least journal: an entry with the longest small payload fits a batch.
const JOURNAL_BLOCKS_MIN: BlockCount = BlockCount(2 << 20 >> 12);
/// Segments of a drive that is large enough for them.
const SEGMENT_BLOCKS: BlockCount = BlockCount(64 << 20 >> 12);
/// Least segment: a whole run fits, with little to waste.
const SEGMENT_BLOCKS_MIN: BlockCount = BlockCount(2 << 20 >> 12);
/// Fewer segments make no drive.
const SEGMENTS_MIN: u64 = 16;
/// Blocks written at once when the journal is filled with zeros.
const ZERO_FILL_BLOCKS: BlockCount = BlockCount(256);
/// What is written when a drive is formatted.
#[derive(Clone, Debug)]
pub struct Format {
    pub drive: DriveId,
    pub deployment: DeploymentId,
    pub set: SetIndex,
    pub position: u8,
    pub map: SetMap,
    /// Lengths other than those that fit the capacity; for tests.
    pub journal_blocks: Option<BlockCount>,
    pub segment_blocks: Option<BlockCount>,
}

impl<R: Runtime, S: Storage> Drive<R, S> {
    /// Formats `storage`, whatever it held. The drive is `forming` until [`Self::mark_formed`].
    pub async fn format(runtime: &R, storage: &S, format: &Format) -> Result<()> {
        let regions = plan_regions(storage.geometry().length_max, format)?;
        storage.grow(BlockCount(regions.segments_start.0)).await?;
        superblock::erase(storage).await?;
        let mut at = regions.journal.start;
        while at < regions.journal.end() {
            let left = BlockCount(regions.journal.end().0 - at.0);
            let buffer = Buffer::zeroed(ZERO_FILL_BLOCKS.min(left));
            let length = buffer.length_blocks();
            storage.write(at, buffer, WriteSync::Cached).await?;
            at = at.plus(length);
        }
        storage.flush().await?;
        let superblock = Superblock {
            sequence: 1,
            drive: format.drive,
            deployment: format.deployment,
            set: format.set,
            position: format.position,
            forming: true,
            salt: runtime.random_u64(),
            regions,
            life: 0,
            root: Root { manifest: None, journal_at: regions.journal.start, journal_sequence: 1 },
            map: format.map.clone(),
        };
        superblock::write(storage, &superblock).await
    }

    /// Opens a formatted drive and brings it to where it was.
    pub async fn open(runtime: R, storage: S) -> Result<Rc<Self>> {
        let superblock = superblock::open(&storage)
            .await?
            .ok_or(Error::Unavailable { reason: "it is not formatted" })?;
        let storage = Rc::new(storage);
        let loaded = Loaded::read(&*storage, superblock).await;
        let regions = loaded.state.superblock.regions;
        let root = loaded.state.superblock.root;
        let journal = Journal::resume(
            runtime.clone(),
            Rc::clone(&storage),
            loaded.state.superblock.owner(),
            regions.journal,
            root.journal_at,
            loaded.head,
        );
        let drive = Rc::new(Self {
            flushes: Flushes::new(runtime.clone(), Rc::clone(&storage)),
            runtime,
            storage,
            journal,
            state: RefCell::new(loaded.state),
            damage: loaded.damage,
            growth: Attempts::default(),
            checkpoints: Attempts::default(),
            compactions: Attempts::default(),
        });
        drive.begin_life().await?;
        Ok(drive)
    }

    async fn begin_life(self: &Rc<Self>) -> Result<()> {
        if let Some(damage) = &self.damage {
            tracing::error!(%damage, "the drive is damaged: it only reads");
            return Ok(());
        }
        self.measure_capacity().await;
        let life = {
            let mut state = self.state.borrow_mut();
            state.superblock.life += 1;
            state.superblock.life
        };
        // A checkpoint holds the start as well. Where there is no room for one, the drive opens
        // nevertheless: it can be read, and freeing something may make room.
        if self.journal.is_half_full() {
            match self.checkpoint().await {
                Ok(()) => return Ok(()),
                Err(error) => self.journal.check().map_err(|_| error)?,
            }
        }
        let mut mutation = Mutation::default();
        mutation.push(&Entry::Start { life });
        self.journal.append_start(mutation);
        Ok(())
    }
}

/// What a drive says of itself when it is read.
pub(super) struct Loaded {
    pub(super) state: State,
    /// Where the journal goes on.
    pub(super) head: Boundary,
    pub(super) damage: Option<Error>,
}

impl Loaded {
    /// Reads everything that `superblock` leads to. Whatever is missing is noted as damage, and
    /// the rest is read nevertheless.
    pub(super) async fn read<S: Storage>(storage: &S, superblock: Superblock) -> Self {
        let root = superblock.root;
        let regions = superblock.regions;
        let owner = superblock.owner();
        let mut loaded = Self {
            state: State {
                index: Index::new(superblock.set, superblock.position),
                segments: Segments::new(regions.segments_start, regions.segment_length),
                manifest: Manifest::default(),
                staging: BTreeMap::new(),
                stagings: 0,
                superseded: Superseded::default(),
                closing: false,
                superblock,
            },
            head: Boundary { at: root.journal_at, sequence: root.journal_sequence },
            damage: None,
        };
        if let Some(place) = root.manifest {
            match Manifest::read(storage, owner, place).await {
                Ok(manifest) => loaded.read_runs(storage, manifest).await,
                Err(error) => loaded.note(error),
            }
        }
        drop(loaded.state.index.take_changed());
        let state = &mut loaded.state;
        let apply = |_, entry| state.replay(entry);
        let Replayed { head, damage, .. } =
            replay(storage, owner, regions.journal, loaded.head, apply).await;
        loaded.head = head;
        if let Some(at) = damage {
            loaded.note(Error::Corrupt { what: "journal", at });
        }
        if let Err(error) = loaded.state.rebuild_segments(storage.geometry().length) {
            loaded.note(error);
        }
        loaded
    }

    async fn read_runs<S: Storage>(&mut self, storage: &S, manifest: Manifest) {
        let owner = self.state.superblock.owner();
        for run in &manifest.runs {
            for number in 0..run.pages.len() {
                let index = &mut self.state.index;
                let read = read_page(storage, owner, run, number, |entry| index.apply(entry)).await;
                if let Err(error) = read {
                    self.note(error);
                }
            }
        }
        self.state.manifest = manifest;
    }

    /// The first damage found stays.
    fn note(&mut self, error: Error) {
        self.damage.get_or_insert(error);
    }
}

impl State {
    /// Applies an entry of the journal. Says whether it made sense.
    fn replay(&mut self, entry: Entry) -> bool {
        match &entry {
            Entry::Start { life } => self.superblock.life = self.superblock.life.max(*life),
            Entry::Map(map) if map.epoch >= self.superblock.map.epoch => {
                self.superblock.map = map.clone();
            }
            _ => {}
        }
        self.index.apply(entry)
    }

    fn rebuild_segments(&mut self, length: BlockCount) -> Result<()> {
        self.segments.set_capacity(length, length);
        let mut live = Vec::new();
        let whole = |extent: &Extent| (extent.start.offset_bytes(), extent.length.bytes());
        live.extend(self.manifest.runs.iter().flat_map(|run| &run.pages).map(whole));
        live.extend(self.superblock.root.manifest.map(|manifest| whole(&manifest.extent)));
        let held = self.index.payloads_after(None).filter_map(|(_, entry)| entry.held.as_ref());
        for held in held {
            match &held.place {
                Place::Journal { .. } => {}
                Place::Stored(Stored::Runs { extents, .. }) => {
                    live.extend(extents.iter().map(whole));
                }
                Place::Stored(Stored::Packed { at, offset, bytes, .. }) => {
                    let from = at.offset_bytes() + u64::from(*offset);
                    if *bytes > 0 {
                        live.push((from, u64::from(*bytes)));
                    }
                }
            }
        }
        self.segments.rebuild(live)
    }
}

/// Cuts `capacity` into regions.
fn plan_regions(capacity: BlockCount, format: &Format) -> Result<Regions> {
    let scaled = |part: u64, least: BlockCount, most: BlockCount| {
        let length = BlockCount((capacity.0 / part).max(1));
        BlockCount(1 << length.0.ilog2()).clamp(least, most)
    };
    let journal_length =
        format.journal_blocks.unwrap_or(scaled(32, JOURNAL_BLOCKS_MIN, JOURNAL_BLOCKS));
    let segment_length =
        format.segment_blocks.unwrap_or(scaled(64, SEGMENT_BLOCKS_MIN, SEGMENT_BLOCKS));
    let journal = Extent { start: REGION_END, length: journal_length };
    let regions = Regions { journal, segments_start: journal.end(), segment_length };
    let least = journal.end().0 + SEGMENTS_MIN * segment_length.0;
    if capacity.0 < least {
        return Err(Error::Full {
            free_bytes: capacity.bytes(),
            capacity_bytes: BlockCount(least).bytes(),
        });
    }
    Ok(regions)
}

//! One drive: everything that can be asked of it ([`crate::request`]), made durable.
//!
//! Invariants:
//! - A change is applied in memory at once and appended to the journal in the same step, without
//!   an `await` between; so the journal holds changes in the order in which memory saw them.
//! - A reply that depends on the state of a key is held back until the journal holds the last
//!   change of that state. (Certificates excepted: they are true whether or not they last.)
//! - Room in the journal is reserved before anything changes. A full journal makes requests wait
//!   for a checkpoint; it never makes the checkpoint wait.
//! - When a write to the journal or a flush fails, the drive is fenced: every request, waiting or
//!   new, fails, and what memory says is never shown again. It may be opened anew.
//! - A drive whose journal or checkpoint lost something it once held is damaged: it takes no part
//!   in the protocol and changes nothing, but still reads out payloads and keys.

mod at_once;
mod checkpointing;
mod compaction;
pub mod inspect;
mod opening;
mod payload;
mod protocol;
mod scan;
mod staging;
mod verify;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::checkpoint::Manifest;
use crate::error::{Error, Result};
use crate::flush::Flushes;
use crate::index::{Freed, Index, Place};
use crate::journal::{Journal, Mutation, Reservation};
use crate::progress::Progress;
use crate::request::{Digest, Reply, Request, SetMap};
use crate::seam::{Moment, Runtime, Storage};
use crate::segment::{Room, Segments};
use crate::superblock::{Copies, Superblock};
use crate::superseded::Superseded;
use crate::units::{BlockCount, BlockIndex, DriveId, DriveIndex, Key, PayloadId};
pub use at_once::{Begun, Pending};
pub use opening::Format;
use staging::Staging;

/// Segments by which the storage is grown, at least and at most.
const GROWTH_SEGMENTS: (usize, usize) = (1, 16);
/// Empty segments that are kept ahead of need.
const SEGMENTS_AHEAD: usize = 2;
/// How often a drive that closes looks whether all is over.
const CLOSE_POLL: std::time::Duration = std::time::Duration::from_millis(5);
/// A step that failed for want of space is not tried again before this.
const RETRY: std::time::Duration = std::time::Duration::from_secs(1);

pub struct Drive<R: Runtime, S: Storage> {
    runtime: R,
    storage: Rc<S>,
    journal: Rc<Journal<R, S>>,
    flushes: Rc<Flushes<R, S>>,
    state: RefCell<State>,
    /// Where something is missing that the drive once held.
    damage: Option<Error>,
    growth: Attempts,
    checkpoints: Attempts,
    compactions: Attempts,
}

/// What the drive holds in memory.
pub(crate) struct State {
    pub(crate) superblock: Superblock,
    pub(crate) index: Index,
    pub(crate) segments: Segments,
    pub(crate) manifest: Manifest,
    staging: BTreeMap<PayloadId, Staging>,
    /// Shards that were ever staged in this life.
    stagings: u64,
    superseded: Superseded,
    closing: bool,
}

impl State {
    /// What the drive says of `key`, and the mutation that has to be durable before it does.
    fn digest(&self, key: &Key) -> (Digest, u64) {
        let (digest, wait_for) = self.index.digest(key);
        (Digest { epoch: self.superblock.map.epoch, ..digest }, wait_for)
    }
}

/// Something that runs once at a time, in a task of its own.
#[derive(Default)]
struct Attempts {
    running: Cell<bool>,
    finished: Progress,
    finished_at: Cell<Moment>,
    failure: RefCell<Option<(Error, Moment)>>,
}

impl Attempts {
    fn finish<T>(&self, result: Result<T>, now: Moment) {
        *self.failure.borrow_mut() = result.err().map(|error| (error, now));
        self.running.set(false);
        self.finished_at.set(now);
        self.finished.advance(self.finished.reached() + 1);
    }
    /// How long ago the last attempt ended.
    fn since(&self, now: Moment) -> std::time::Duration {
        now.since(self.finished_at.get())
    }
    /// The failure of the last attempt, if that is not long ago.
    fn recent_failure(&self, now: Moment) -> Option<Error> {
        let failure = self.failure.borrow();
        let (error, at) = failure.as_ref()?;
        (now.since(*at) < RETRY).then(|| error.clone())
    }
    fn failure(&self) -> Option<Error> {
        self.failure.borrow().as_ref().map(|(error, _)| error.clone())
    }
}

impl<R: Runtime, S: Storage> Drive<R, S> {
    /// Answers a request.
    pub async fn handle(self: &Rc<Self>, request: Request) -> Reply {
        match self.begin(request) {
            Begun::Answered(reply) => reply,
            Begun::Until(pending) => self.finish(pending).await,
            Begun::Later(request) => self.handle_later(request).await,
        }
    }

    /// Answers a request that [`Self::begin`] gave back.
    pub async fn handle_later(self: &Rc<Self>, request: Request) -> Reply {
        match self.answer(request).await {
            Ok(reply) => reply,
            Err(error) => Reply::Failed(error),
        }
    }

    async fn answer(self: &Rc<Self>, request: Request) -> Result<Reply> {
        self.check_open()?;
        let reads_only = matches!(
            request,
            Request::ReadRun { .. }
                | Request::ReadSmall { .. }
                | Request::Scan { .. }
                | Request::Status
        );
        if !reads_only && let Some(damage) = &self.damage {
            return Err(damage.clone());
        }
        let reply = self.dispatch(request).await?;
        // What was fenced meanwhile answers nothing.
        self.journal.check()?;
        Ok(reply)
    }

    async fn dispatch(self: &Rc<Self>, request: Request) -> Result<Reply> {
        match request {
            Request::Digest { key, payload } => self.digest(key, payload).await,
            Request::Prepare { epoch, key, slot, ballot, base } => {
                self.prepare(epoch, key, slot, ballot, base).await
            }
            Request::Accept { .. } | Request::Certify { .. } | Request::StageSmall { .. } => {
                self.do_with_room(request).await
            }
            Request::Learn { epoch, key, slot, record, copy } => {
                self.learn(epoch, key, slot, record, copy).await
            }
            Request::Abandon { epoch, key, slot, ballot } => {
                self.abandon(epoch, key, slot, ballot).await
            }
            Request::StageOpen { payload, key, operation, length_blocks } => {
                self.stage_open(payload, key, operation, length_blocks).await
            }
            Request::StageWrite { payload, run, buffer } => {
                self.stage_write(payload, run, buffer).await
            }
            Request::StageSeal { payload } => self.stage_seal(payload).await,
            Request::Discard { payload } => self.discard(payload).await,
            Request::Release { payload } => self.release(payload).await,
            Request::Holds { payloads } => self.holds(&payloads).await,
            Request::ReadRun { payload, first_block, blocks } => {
                self.read_run(payload, first_block, blocks).await
            }
            Request::ReadSmall { payload } => self.read_small(payload).await.map(Reply::Small),
            Request::DropShard { payload, key } => self.drop_shard(payload, key).await,
            Request::List(request) => self.list(&request).await,
            Request::Fingerprint(request) => self.fingerprint(&request).await,
            Request::Scan { after, limit } => self.scan(after, limit).await,
            Request::Unsettled { after, limit } => self.unsettled(after, limit).await,
            Request::Relocated { after, limit } => self.relocated(after, limit).await,
            Request::Orphans { after, limit } => self.orphans(after, limit).await,
            Request::CloseBucket { incarnation } => self.set_closed(incarnation, true).await,
            Request::ReopenBucket { incarnation } => self.set_closed(incarnation, false).await,
            Request::InstallMap { map } => self.install_map(map).await,
            Request::Status => Ok(Reply::Status(Box::new(self.status()))),
        }
    }

    /// Whether what stands at the drive's place is still this drive: it is where it was, and its
    /// superblock names it.
    pub async fn probe(&self) -> Result<()> {
        self.storage.probe().await?;
        let copies = Copies::read(&*self.storage).await?;
        let drive = self.state.borrow().superblock.drive;
        match copies.chosen() {
            Some(superblock) if superblock.drive == drive => Ok(()),
            _ => Err(Error::Corrupt { what: "the superblock", at: BlockIndex(0) }),
        }
    }

    pub fn id(&self) -> DriveId {
        self.state.borrow().superblock.drive
    }

    /// The map of the set that this drive has installed.
    pub fn map(&self) -> SetMap {
        self.state.borrow().superblock.map.clone()
    }

    /// Whether the map that this drive has installed knows it at `position`.
    pub fn is_in_its_map(&self, position: DriveIndex) -> bool {
        let superblock = &self.state.borrow().superblock;
        superblock.map.drives[usize::from(position.0)].drive == superblock.drive
    }

    /// What is missing, if the drive lost something it once held.
    pub fn damaged(&self) -> Option<&Error> {
        self.damage.as_ref()
    }

    /// Shards that stand here, whether or not anything names them.
    pub fn payload_count(&self) -> usize {
        let state = self.state.borrow();
        state.index.payloads_after(None).filter(|(_, payload)| payload.held.is_some()).count()
    }

    /// Whether the payload is here and would outlive a power cut now.
    pub fn holds_durably(&self, payload: PayloadId) -> bool {
        let mutation = self.state.borrow().index.held(payload).map(|held| held.mutation);
        mutation.is_some_and(|mutation| mutation <= self.journal.durable_reached())
    }

    /// Whether a record that is here names the payload.
    pub fn names(&self, payload: PayloadId) -> bool {
        self.state.borrow().index.is_named(payload)
    }

    /// Why the drive is fenced, if it is.
    pub fn fenced(&self) -> Option<Error> {
        self.journal.check().err()
    }

    /// Fences the drive: nothing it did not acknowledge until now ever will be.
    pub fn fence(&self, error: Error) {
        self.journal.fail(error.clone());
        self.flushes.fail(error.clone());
        self.growth.finished.fail(error.clone());
        self.compactions.finished.fail(error.clone());
        self.checkpoints.finished.fail(error);
    }

    fn check_open(&self) -> Result<()> {
        self.journal.check()?;
        if self.state.borrow().closing {
            return Err(Error::Unavailable { reason: "the drive is closing" });
        }
        Ok(())
    }

    /// Whether it was formatted and not yet marked as formed.
    pub fn is_forming(&self) -> bool {
        self.state.borrow().superblock.forming
    }

    /// The drive is part of its deployment from now on.
    pub async fn mark_formed(self: &Rc<Self>) -> Result<()> {
        self.state.borrow_mut().superblock.forming = false;
        self.checkpoint().await
    }

    /// Takes no more requests, writes a last checkpoint, and waits until nothing is in flight on
    /// the storage. A drive that was fenced is closed like this too before it is opened anew: what
    /// it had in flight must not land under the next opening.
    pub async fn close(self: &Rc<Self>) -> Result<()> {
        self.state.borrow_mut().closing = true;
        let closed = match self.damage {
            Some(_) => Ok(()),
            None => self.checkpoint().await,
        };
        self.fence(Error::Unavailable { reason: "the drive is closed" });
        while !self.is_quiet() {
            self.runtime.sleep(CLOSE_POLL).await;
        }
        closed
    }

    fn is_quiet(&self) -> bool {
        !self.journal.is_writing()
            && !self.checkpoints.running.get()
            && !self.growth.running.get()
            && !self.compactions.running.get()
            && self.state.borrow().staging.values().all(|staging| staging.in_flight == 0)
    }

    /// Flushes, or fences the drive.
    pub(crate) async fn flush(&self) -> Result<()> {
        let flushed = self.flushes.flush().await;
        if let Err(error) = &flushed {
            self.fence(error.clone());
        }
        flushed
    }

    /// Waits until mutation `number` is durable.
    async fn durable(&self, number: u64) -> Result<()> {
        self.journal.durable(number).await
    }

    /// Reserves room in the journal for a mutation whose size `bound` says (entries, and bytes
    /// beyond their fixed part). It is asked again when it had to wait.
    async fn reserve(
        self: &Rc<Self>,
        bound: impl Fn(&State) -> (usize, usize),
    ) -> Result<Reservation<R, S>> {
        loop {
            let seen = self.journal.room_seen();
            let (entries, bytes) = bound(&self.state.borrow());
            if let Some(reservation) = self.journal.try_reserve(entries, bytes)? {
                return Ok(reservation);
            }
            if let Some(error) = self.checkpoints.recent_failure(self.runtime.now()) {
                return Err(error);
            }
            self.start_checkpoint();
            self.journal.room_after(seen).await?;
        }
    }

    /// Appends `mutation` and begins a checkpoint when it is time.
    fn append(
        self: &Rc<Self>,
        reservation: Reservation<R, S>,
        mutation: Mutation,
        urgent: bool,
    ) -> u64 {
        let number = self.journal.append(reservation, mutation, urgent);
        if self.journal.is_half_full()
            && self.checkpoints.recent_failure(self.runtime.now()).is_none()
        {
            self.start_checkpoint();
        }
        number
    }

    fn start_checkpoint(self: &Rc<Self>) {
        if self.checkpoints.running.replace(true) {
            return;
        }
        let drive = Rc::clone(self);
        self.runtime.spawn(async move {
            let result = drive.write_checkpoint().await;
            if let Err(error) = &result {
                tracing::warn!(%error, "a checkpoint failed");
            }
            drive.checkpoints.finish(result, drive.runtime.now());
            drive.journal.announce_room();
        });
    }

    /// Writes a checkpoint that covers everything durable at the time of the call.
    pub async fn checkpoint(self: &Rc<Self>) -> Result<()> {
        if let Some(damage) = &self.damage {
            return Err(damage.clone());
        }
        let running = u64::from(self.checkpoints.running.get());
        let wanted = self.checkpoints.finished.reached() + running + 1;
        loop {
            self.journal.check()?;
            let finished = self.checkpoints.finished.reached();
            if finished >= wanted {
                return self.checkpoints.failure().map_or(Ok(()), Err);
            }
            self.start_checkpoint();
            self.checkpoints.finished.wait(finished + 1).await?;
        }
    }

    /// Asks `allocate` for room until there is some, growing the storage where that helps.
    pub(crate) async fn room<T>(
        self: &Rc<Self>,
        mut allocate: impl FnMut(&mut State, u64) -> Result<Room<T>>,
    ) -> Result<T> {
        loop {
            let durable = self.journal.durable_reached();
            let room = allocate(&mut self.state.borrow_mut(), durable)?;
            let finished = self.growth.finished.reached();
            match room {
                Room::Here(here) => {
                    if self.state.borrow().segments.empty_here() < SEGMENTS_AHEAD {
                        self.start_growth();
                    }
                    self.compact_if_short();
                    return Ok(here);
                }
                Room::Full if self.may_measure_again() => self.measure_capacity().await,
                Room::Full => {
                    self.compact_if_short();
                    return Err(self.full());
                }
                Room::Grow => {
                    self.start_growth();
                    self.growth.finished.wait(finished + 1).await?;
                }
            }
        }
    }

    /// Whether growth failed, but so long ago that there may be room by now.
    fn may_measure_again(&self) -> bool {
        let failed = self.growth.failure().is_some();
        let again = failed && self.growth.recent_failure(self.runtime.now()).is_none();
        if again {
            self.growth.failure.replace(None);
        }
        again
    }

    fn full(&self) -> Error {
        let state = self.state.borrow();
        Error::Full {
            free_bytes: state.segments.free().bytes(),
            capacity_bytes: state.segments.capacity().bytes(),
        }
    }

    fn start_growth(self: &Rc<Self>) {
        if !self.state.borrow().segments.can_grow() || self.growth.running.replace(true) {
            return;
        }
        let drive = Rc::clone(self);
        self.runtime.spawn(async move {
            let length = {
                let segments = &drive.state.borrow().segments;
                let (least, most) = GROWTH_SEGMENTS;
                segments.grown_length((segments.count() / 8).clamp(least, most))
            };
            let result = drive.storage.grow(length).await;
            let failed = result.is_err();
            drive.growth.finish(result, drive.runtime.now());
            if failed {
                // What the machine cannot give counts as not there until it is measured again.
                let length = drive.storage.geometry().length;
                drive.state.borrow_mut().segments.set_capacity(length, length);
            } else {
                drive.measure_capacity().await;
            }
        });
    }

    /// Learns how far the storage reaches and how far it could.
    async fn measure_capacity(&self) {
        let geometry = self.storage.geometry();
        let free = self.storage.free().await.unwrap_or(BlockCount(0));
        let reachable = geometry.length_max.min(BlockCount(geometry.length.0 + free.0));
        self.state.borrow_mut().segments.set_capacity(geometry.length, reachable);
    }

    /// Appends a mutation that was applied as number `number`, unless it is empty.
    fn append_if_any(
        self: &Rc<Self>,
        reservation: Reservation<R, S>,
        mutation: Mutation,
        number: u64,
    ) {
        if !mutation.is_empty() {
            let appended = self.append(reservation, mutation, true);
            assert_eq!(appended, number, "nothing came between");
        }
    }
}

impl State {
    /// Gives up the room of what was freed, once mutation `freed_by` is durable.
    fn release(&mut self, freed: Freed, freed_by: u64) {
        for (_, held) in freed {
            if let Place::Stored(stored) = held.place {
                self.release_stored(&stored, freed_by);
            }
        }
    }

    /// Blocks kept free for checkpoints: two of everything that is not packed or checkpointed yet.
    pub(crate) fn checkpoint_reserve(&self) -> BlockCount {
        let bytes = self.index.run_bytes() * 5 / 4 + self.index.in_journal_bytes();
        BlockCount(BlockCount::covering(bytes).0 + 2 * self.segments.segment_length().0)
    }

    /// Blocks kept free for deletes and repair as well: what a new object must leave.
    pub(crate) fn put_reserve(&self) -> BlockCount {
        let reserve = self.checkpoint_reserve().0;
        BlockCount(reserve + reserve / 2 + self.segments.segment_length().0)
    }
}

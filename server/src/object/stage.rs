//! The payload half of a PUT: takes the body, makes shards of it and has them made durable on the
//! drives, before anything is proposed.
//!
//! A body is taken in stripes of `data_shards * unit_bytes` bytes. Data bytes are copied once, from
//! the connection's buffer into the shard's; parity is computed stripe by stripe while the data is
//! still in cache. The drives write from these buffers, and the body is hashed in them meanwhile or
//! afterwards, when other bodies can go along. At most [`WINDOWS_IN_FLIGHT`] windows of one run per shard
//! are in memory, each until the drives have it and it is hashed.
//!
//! Dropping the future of [`stage`] frees what was staged so far.

use std::time::Duration;

use basalt_engine::buffer::{Buffer, SharedBuffer};
use basalt_engine::checksum::{self, RUN_BLOCKS};
use basalt_engine::codec;
use basalt_engine::record::Layout;
use basalt_engine::request::{Reply, Request, SmallShard};
use basalt_engine::seam::Runtime;
use basalt_engine::units::{
    BLOCK_BYTES, BlockCount, DriveIndex, Key, OperationId, PayloadId, SetIndex,
};
use basalt_net::mailbox::{Mailbox, Replies};
use basalt_net::quorum;
use bytes::{Bytes, BytesMut};
use futures_util::future::{Either, select};

use super::admission::Permit;
use super::api::Source;
use super::error::{Error, Result, SourceError};
use super::hashing::BodyHash;
use super::store::Store;

/// Windows of which the shards are being written while the next one is filled.
const WINDOWS_IN_FLIGHT: usize = 2;
/// Data bytes of one shard in a run.
const RUN_DATA_BYTES: usize = RUN_BLOCKS as usize * BLOCK_BYTES;
/// How long a drive may take for one step of staging before the PUT goes on without it.
const STEP_DEADLINE: Duration = Duration::from_secs(10);
/// Once enough shards are durable, how much longer the late ones are waited for.
const LATE_SHARDS: Duration = Duration::from_millis(50);

/// A payload whose shards are durable on enough drives, but which no record names yet.
pub(super) struct Staged {
    /// `None` for an empty body.
    pub layout: Option<Layout>,
    pub md5: [u8; 16],
    pub checksums: Vec<super::api::Checksum>,
    /// The whole payload, where it travels with the record instead.
    pub copy: Option<SmallShard>,
}

/// Takes the whole body and stages it. On success every check of the body has passed.
pub(super) async fn stage<M: Mailbox, R: Runtime>(
    store: &Store<M, R>,
    key: &Key,
    operation: OperationId,
    layout: Layout,
    body: &mut impl Source,
) -> Result<Staged> {
    let mut intake = Intake::new(body, layout.bytes);
    let mut hash = store.hashing().begin();
    if layout.is_co_staged() {
        let bytes = intake.take_all().await?;
        hash.push(bytes.clone());
        let (md5, checksums) = intake.finish(hash).await?;
        let checksum = checksum::small_shard(layout.payload, 0, &bytes);
        let copy = Some(SmallShard { checksum, bytes });
        return Ok(Staged { layout: Some(layout), md5, checksums, copy });
    }
    let discard = DiscardOnDrop::new(store, &layout);
    let mut shards = Shards::new(store, key, operation, &layout);
    let (md5, checksums) = if layout.is_small() {
        let (whole, _room) = small_shards(store, &layout, &mut intake).await?;
        push_data(&mut hash, &layout, &whole, layout.bytes);
        let checked = intake.finish(hash).await?;
        shards.write_small(whole).await?;
        checked
    } else {
        let mut windows = Windows::new(&layout);
        while let Some(bytes) = windows.next_bytes(&intake) {
            // Memory is taken only once there is something to put into it, room on the drives only
            // once a window came: a length alone is no body.
            intake.wait().await?;
            let room = shards.room_for(bytes, &mut hash).await?;
            let window = windows.fill(&mut intake, &mut hash, room).await?;
            if window.run == 0 {
                shards.open().await?;
            }
            shards.write_window(window, &mut hash).await?;
        }
        intake.end().await?;
        shards.land(&mut hash).await?;
        let checked = intake.finish(hash).await?;
        shards.seal().await?;
        checked
    };
    discard.defuse();
    Ok(Staged { layout: Some(layout), md5, checksums, copy: None })
}

/// Takes an empty body.
pub(super) async fn stage_nothing<M: Mailbox, R: Runtime>(
    store: &Store<M, R>,
    body: &mut impl Source,
) -> Result<Staged> {
    let (md5, checksums) = Intake::new(body, 0).finish(store.hashing().begin()).await?;
    Ok(Staged { layout: None, md5, checksums, copy: None })
}

/// Bytes at hand as a body, with nothing to verify.
pub(super) struct Whole(Option<Bytes>);

impl Whole {
    pub(super) fn new(bytes: Bytes) -> Self {
        Self(Some(bytes).filter(|bytes| !bytes.is_empty()))
    }
}

impl Source for Whole {
    async fn next(&mut self) -> std::result::Result<Option<Bytes>, SourceError> {
        Ok(self.0.take())
    }
    fn finish(
        &mut self,
        _md5: &[u8; 16],
    ) -> std::result::Result<Vec<super::api::Checksum>, SourceError> {
        Ok(Vec::new())
    }
}

/// Frees what was staged when a PUT ends before it proposes.
struct DiscardOnDrop<'a, M: Mailbox, R: Runtime> {
    store: &'a Store<M, R>,
    set: SetIndex,
    payload: PayloadId,
    drives: Vec<DriveIndex>,
    armed: bool,
}

impl<'a, M: Mailbox, R: Runtime> DiscardOnDrop<'a, M, R> {
    fn new(store: &'a Store<M, R>, layout: &Layout) -> Self {
        let drives = layout.order[..layout.shards()].iter().map(|&d| DriveIndex(d)).collect();
        let (set, payload) = (SetIndex(layout.set), layout.payload);
        Self { store, set, payload, drives, armed: true }
    }
    fn defuse(mut self) {
        self.armed = false;
    }
}

impl<M: Mailbox, R: Runtime> Drop for DiscardOnDrop<'_, M, R> {
    fn drop(&mut self) {
        if self.armed {
            self.store.discard(self.set, self.payload, &self.drives);
        }
    }
}

/// The body as it comes in.
struct Intake<'a, S: Source> {
    source: &'a mut S,
    size: u64,
    taken: u64,
    pending: Bytes,
    has_ended: bool,
}

impl<'a, S: Source> Intake<'a, S> {
    fn new(source: &'a mut S, size: u64) -> Self {
        Self { source, size, taken: 0, pending: Bytes::new(), has_ended: false }
    }

    fn remaining(&self) -> u64 {
        self.size - self.taken
    }

    /// Fills `out` with the next bytes; the caller asks for no more than remain.
    async fn fill(&mut self, mut out: &mut [u8]) -> Result<()> {
        while !out.is_empty() {
            self.wait().await?;
            let length = out.len().min(self.pending.len());
            let bytes = self.pending.split_to(length);
            let (now, later) = out.split_at_mut(length);
            now.copy_from_slice(&bytes);
            out = later;
            self.taken += length as u64;
        }
        Ok(())
    }

    /// Waits until the next bytes are there.
    async fn wait(&mut self) -> Result<()> {
        if self.pending.is_empty() {
            self.pending = self.source.next().await?.ok_or(SourceError::Incomplete)?;
        }
        Ok(())
    }

    async fn take_all(&mut self) -> Result<Bytes> {
        let length = usize::try_from(self.remaining()).expect("a small body fits memory");
        let mut bytes = BytesMut::zeroed(length);
        self.fill(&mut bytes).await?;
        Ok(bytes.freeze())
    }

    /// After the last byte: nothing may follow.
    async fn end(&mut self) -> Result<()> {
        assert_eq!(self.remaining(), 0, "the whole body was taken");
        if self.has_ended {
            return Ok(());
        }
        if !self.pending.is_empty() || self.source.next().await?.is_some() {
            return Err(SourceError::TooLong.into());
        }
        self.has_ended = true;
        Ok(())
    }

    /// After the last byte: nothing may follow, and every check of the body must hold.
    async fn finish(mut self, hash: BodyHash) -> Result<([u8; 16], Vec<super::api::Checksum>)> {
        self.end().await?;
        let md5 = hash.finish().await;
        let checksums = self.source.finish(&md5)?;
        Ok((md5, checksums))
    }
}

/// All shards of a payload whose shards ride in journals.
async fn small_shards<M: Mailbox, R: Runtime>(
    store: &Store<M, R>,
    layout: &Layout,
    intake: &mut Intake<'_, impl Source>,
) -> Result<(Vec<Bytes>, Permit)> {
    intake.wait().await?;
    let all = layout.shard_bytes() * layout.shards() as u64;
    let room = store.writing().admit(all, store.runtime()).await?;
    let shard_bytes = usize::try_from(layout.shard_bytes()).expect("small");
    let mut shards = vec![BytesMut::zeroed(shard_bytes); layout.shards()];
    let mut at = 0;
    while intake.remaining() > 0 {
        let piece = piece_bytes(layout, intake.remaining());
        fill_stripe(layout, intake, &mut shards, at..at + piece).await?;
        at += piece;
    }
    Ok((shards.into_iter().map(BytesMut::freeze).collect(), room))
}

/// Bytes of each shard's piece in the stripe that begins with `remaining` bytes to go.
fn piece_bytes(layout: &Layout, remaining: u64) -> usize {
    let stripe = remaining.min(layout.stripe_bytes());
    usize::try_from(layout.piece_bytes_of(stripe)).expect("a piece fits memory")
}

/// Takes one stripe: data into the first shards at `place`, parity into the others.
async fn fill_stripe<S: Source, B: AsRef<[u8]> + AsMut<[u8]>>(
    layout: &Layout,
    intake: &mut Intake<'_, S>,
    shards: &mut [B],
    place: std::ops::Range<usize>,
) -> Result<()> {
    let (data, parity) = shards.split_at_mut(usize::from(layout.data_shards));
    for shard in data.iter_mut() {
        let piece = &mut shard.as_mut()[place.clone()];
        let length = usize::try_from(intake.remaining().min(piece.len() as u64)).expect("fits");
        let (bytes, padding) = piece.split_at_mut(length);
        intake.fill(bytes).await?;
        padding.fill(0);
    }
    let data: smallvec::SmallVec<[&[u8]; 16]> =
        data.iter().map(|shard| &shard.as_ref()[place.clone()]).collect();
    let mut parity: smallvec::SmallVec<[&mut [u8]; 16]> =
        parity.iter_mut().map(|shard| &mut shard.as_mut()[place.clone()]).collect();
    let codec = codec::codec_for(layout.codec).expect("layouts name known codecs");
    codec.encode(&data, &mut parity);
    Ok(())
}

/// Has the body's bytes hashed that stand in the first of `shards`, stripe by stripe; from there on the
/// body has `remaining` bytes.
fn push_data(hash: &mut BodyHash, layout: &Layout, shards: &[Bytes], mut remaining: u64) {
    let data = &shards[..usize::from(layout.data_shards)];
    let mut at = 0;
    while remaining > 0 && at < data[0].len() {
        let piece = piece_bytes(layout, remaining);
        for shard in data {
            let length = usize::try_from(remaining.min(piece as u64)).expect("fits");
            hash.push(shard.slice(at..at + length));
            remaining -= length as u64;
        }
        at += piece;
    }
}

/// One run of every shard: a checksum block, then up to [`RUN_BLOCKS`] data blocks.
struct Window {
    run: u64,
    shards: Vec<SharedBuffer>,
    room: Permit,
    /// Bytes of the body up to its end.
    body_end: u64,
}

/// A window that drives are writing.
struct InFlight {
    replies: Replies,
    body_end: u64,
    /// Held until the window's memory is free.
    _room: Permit,
}

/// Cuts the body into windows.
struct Windows<'a> {
    layout: &'a Layout,
    run: u64,
}

/// A run buffer seen from its first data block.
struct RunData(Buffer);

impl AsRef<[u8]> for RunData {
    fn as_ref(&self) -> &[u8] {
        &self.0[BLOCK_BYTES..]
    }
}
impl AsMut<[u8]> for RunData {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.0[BLOCK_BYTES..]
    }
}

impl<'a> Windows<'a> {
    fn new(layout: &'a Layout) -> Self {
        assert_eq!(RUN_DATA_BYTES % layout.unit_bytes as usize, 0, "runs hold whole stripes");
        Self { layout, run: 0 }
    }

    /// Bytes of memory that the next window takes; `None` after the last byte.
    fn next_bytes(&self, intake: &Intake<'_, impl Source>) -> Option<u64> {
        let bytes = || self.run_blocks().0 * BLOCK_BYTES as u64 * self.layout.shards() as u64;
        (intake.remaining() > 0).then(bytes)
    }

    /// Blocks of the next run of a shard, with their checksums.
    fn run_blocks(&self) -> BlockCount {
        let before = self.run * RUN_DATA_BYTES as u64;
        let data_bytes = (self.layout.shard_bytes() - before).min(RUN_DATA_BYTES as u64);
        BlockCount(1 + BlockCount::covering(data_bytes).0)
    }

    /// The next window, sealed.
    async fn fill(
        &mut self,
        intake: &mut Intake<'_, impl Source>,
        hash: &mut BodyHash,
        room: Permit,
    ) -> Result<Window> {
        let layout = self.layout;
        let remaining = intake.remaining();
        let blocks = self.run_blocks();
        let mut shards: Vec<RunData> =
            (0..layout.shards()).map(|_| RunData(Buffer::unwritten(blocks))).collect();
        let mut at = 0;
        while intake.remaining() > 0 && at < RUN_DATA_BYTES {
            let piece = piece_bytes(layout, intake.remaining());
            fill_stripe(layout, intake, &mut shards, at..at + piece).await?;
            at += piece;
        }
        // The last block of a shard is padded with zeros.
        for shard in &mut shards {
            shard.as_mut()[at..].fill(0);
        }
        let mut shards: Vec<Buffer> = shards.into_iter().map(|shard| shard.0).collect();
        for (index, buffer) in shards.iter_mut().enumerate() {
            let shard = checksum_shard(layout, index);
            checksum::seal_run(buffer, layout.payload, shard, self.run);
        }
        let shards: Vec<SharedBuffer> = shards.into_iter().map(SharedBuffer::from).collect();
        let data: Vec<Bytes> =
            shards.iter().map(|shard| shard.bytes().slice(BLOCK_BYTES..)).collect();
        push_data(hash, layout, &data, remaining);
        let run = self.run;
        self.run += 1;
        Ok(Window { run, shards, room, body_end: intake.taken })
    }
}

/// The shard number that checksums are bound to: all whole copies are identical.
pub(super) fn checksum_shard(layout: &Layout, index: usize) -> usize {
    if layout.codec == codec::COPIES { 0 } else { index }
}

/// The drives that take shards of one payload, and which of them still keep up.
struct Shards<'a, M: Mailbox, R: Runtime> {
    store: &'a Store<M, R>,
    key: &'a Key,
    operation: OperationId,
    layout: &'a Layout,
    set: SetIndex,
    /// `alive[i]`: the drive of shard `i` did everything it was asked so far.
    alive: Vec<bool>,
    full: bool,
    in_flight: std::collections::VecDeque<InFlight>,
}

impl<'a, M: Mailbox, R: Runtime> Shards<'a, M, R> {
    fn new(
        store: &'a Store<M, R>,
        key: &'a Key,
        operation: OperationId,
        layout: &'a Layout,
    ) -> Self {
        Self {
            store,
            key,
            operation,
            layout,
            set: SetIndex(layout.set),
            alive: vec![true; layout.shards()],
            full: false,
            in_flight: std::collections::VecDeque::new(),
        }
    }

    async fn write_small(&mut self, shards: Vec<Bytes>) -> Result<()> {
        let (payload, operation) = (self.layout.payload, self.operation);
        let mut shards = shards.into_iter().enumerate();
        let replies = self.send(|this, _| {
            let (index, bytes) = shards.next().expect("one for each shard");
            let checksum =
                checksum::small_shard(payload, checksum_shard(this.layout, index), &bytes);
            let shard = SmallShard { checksum, bytes };
            Request::StageSmall { payload, key: this.key.clone(), operation, shard }
        });
        self.gather_durable(replies).await
    }

    async fn open(&mut self) -> Result<()> {
        let (payload, operation) = (self.layout.payload, self.operation);
        let length_blocks = self.layout.shard_blocks().0;
        let replies = self.send(|this, _| Request::StageOpen {
            payload,
            key: this.key.clone(),
            operation,
            length_blocks,
        });
        self.gather(replies).await
    }

    /// Room for a window. Who waits for it gives back what its windows in flight hold first.
    async fn room_for(&mut self, bytes: u64, hash: &mut BodyHash) -> Result<Permit> {
        if let Some(room) = self.store.writing().try_admit(bytes) {
            return Ok(room);
        }
        self.land(hash).await?;
        self.store.writing().admit(bytes, self.store.runtime()).await
    }

    /// Waits for all windows in flight. Afterwards everything that came so far is hashed.
    async fn land(&mut self, hash: &mut BodyHash) -> Result<()> {
        hash.go_ahead_if_alone().await;
        while let Some(oldest) = self.in_flight.pop_front() {
            self.gather(oldest.replies).await?;
            hash.reach(oldest.body_end).await;
        }
        Ok(())
    }

    /// Sends a window; waits only while too many are in flight.
    async fn write_window(&mut self, window: Window, hash: &mut BodyHash) -> Result<()> {
        let payload = self.layout.payload;
        let run = window.run;
        let mut buffers = window.shards.into_iter();
        let replies = self.send(|_, _| {
            let buffer = buffers.next().expect("one for each shard");
            Request::StageWrite { payload, run, buffer }
        });
        let (body_end, _room) = (window.body_end, window.room);
        self.in_flight.push_back(InFlight { replies, body_end, _room });
        if self.in_flight.len() >= WINDOWS_IN_FLIGHT {
            hash.go_ahead_if_alone().await;
            let oldest = self.in_flight.pop_front().expect("not empty");
            self.gather(oldest.replies).await?;
            hash.reach(oldest.body_end).await;
        }
        Ok(())
    }

    async fn seal(&mut self) -> Result<()> {
        assert!(self.in_flight.is_empty(), "all windows have landed");
        let payload = self.layout.payload;
        let replies = self.send(|_, _| Request::StageSeal { payload });
        self.gather_durable(replies).await
    }

    /// One request to the drive of every shard that keeps up.
    fn send(&self, mut request: impl FnMut(&Self, usize) -> Request) -> Replies {
        let requests = (0..self.layout.shards())
            .map(|index| (index, request(self, index)))
            .filter(|(index, _)| self.alive[*index])
            .map(|(index, request)| (DriveIndex(self.layout.order[index]), request))
            .collect();
        self.store.mailbox().send(self.set, requests)
    }

    /// Waits for every drive that keeps up; one that fails or is late is left behind.
    async fn gather(&mut self, replies: Replies) -> Result<()> {
        self.gather_until(replies, |_| None).await?;
        let alive = self.alive.iter().filter(|alive| **alive).count();
        self.require(alive)
    }

    /// As [`Self::gather`] for the step that makes shards durable: with enough of them, the late
    /// ones are not waited for long. They stay alive: their shard may yet arrive.
    async fn gather_durable(&mut self, replies: Replies) -> Result<()> {
        let enough =
            quorum::shards_to_acknowledge(self.layout.data_shards, self.layout.parity_shards);
        let late = |done| (done >= enough).then_some(LATE_SHARDS);
        let durable = self.gather_until(replies, late).await?;
        self.require(durable)
    }

    async fn gather_until(
        &mut self,
        mut replies: Replies,
        patience: impl Fn(usize) -> Option<Duration>,
    ) -> Result<usize> {
        let clock = self.store.runtime().clone();
        let mut waiting: Vec<bool> = self.alive.clone();
        let mut deadline = clock.now().plus(STEP_DEADLINE);
        let mut done = 0;
        while waiting.contains(&true) {
            let left = deadline.since(clock.now());
            let next = std::pin::pin!(replies.next());
            let Either::Left((arrival, _)) = select(next, std::pin::pin!(clock.sleep(left))).await
            else {
                break;
            };
            let Some((drive, reply)) = arrival else { break };
            let Some(shard) = self.layout.shard_of(drive.0) else { continue };
            waiting[shard] = false;
            match reply {
                Reply::Done => done += 1,
                other => self.leave_behind(shard, &other),
            }
            if let Some(longer) = patience(done) {
                deadline = deadline.min(clock.now().plus(longer));
            }
        }
        let enough_now = patience(done).is_some();
        for (shard, late) in waiting.into_iter().enumerate() {
            if late && !enough_now {
                self.alive[shard] = false;
            }
        }
        Ok(done)
    }

    fn leave_behind(&mut self, shard: usize, reply: &Reply) {
        self.alive[shard] = false;
        let full = matches!(reply, Reply::Failed(basalt_engine::Error::Full { .. }));
        self.full |= full;
        tracing::debug!(
            set = self.set.0,
            drive = self.layout.order[shard],
            ?reply,
            "drive left behind while staging"
        );
    }

    /// Fails unless the payload rule can be met with `shards` shards.
    fn require(&self, shards: usize) -> Result<()> {
        let needed = quorum::shards_to_acknowledge_degraded(
            self.layout.data_shards,
            self.layout.parity_shards,
        );
        if shards >= needed {
            return Ok(());
        }
        if self.full {
            return Err(Error::Full { set: self.set });
        }
        let short_by = u32::try_from(needed - shards).expect("at most sixteen");
        Err(Error::Unavailable { set: self.set, action: "take the object's bytes", short_by })
    }
}

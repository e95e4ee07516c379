//! Reading a payload: shards from the drives, every block verified, missing ones rebuilt on the fly.
//!
//! A payload is read in windows: the same range of every data shard, within one run. The next window
//! is asked for while the current one is sent. Where all shards are well, the buffers that the drives
//! filled become the body, without a copy. A shard that is missing, late or wrong is rebuilt from k
//! others over the same range; a wrong one is also reported to its drive, so that repair rebuilds it.

use std::time::Duration;

use basalt_engine::buffer::Buffer;
use basalt_engine::checksum::{self, RUN_BLOCKS};
use basalt_engine::codec;
use basalt_engine::record::Layout;
use basalt_engine::request::{Reply, Request};
use basalt_engine::seam::{Clock, Runtime};
use basalt_engine::units::{BLOCK_BYTES, DriveIndex, Key, SetIndex};
use basalt_net::mailbox::{Mailbox, Replies};
use bytes::{Bytes, BytesMut};
use futures_util::future::{Either, select};

use super::admission::{Admission, Permit};
use super::api::Span;
use super::error::{Error, Result};
use super::stage::checksum_shard;
use super::store::Store;

/// Object bytes that one window aims at.
const WINDOW_BYTES: u64 = 4 << 20;
/// After this long without a shard, others are read in its place.
const HEDGE: Duration = Duration::from_millis(200);
/// After this long a window fails.
const DEADLINE: Duration = Duration::from_secs(20);

/// Reads bytes `span` of one payload, in order.
pub(super) struct PayloadReader<M: Mailbox, R: Runtime> {
    store: Store<M, R>,
    /// What is being read.
    key: Key,
    layout: Layout,
    /// What is still to be asked for, in bytes of the payload.
    ahead: Span,
    /// Windows asked for and not yet given out.
    pending: Option<Pending>,
    /// Verified pieces of one window, in order, and the room that it takes.
    ready: std::collections::VecDeque<Bytes>,
    room: Option<Permit>,
    turn: Turn,
    /// Shards that turned out missing or wrong: not asked again.
    avoid: u16,
}

/// Whether a reader takes room for what it reads, and whether it has begun: then it is not broken off
/// for want of room.
#[derive(Clone, Default)]
pub(super) struct Turn {
    pub admission: Option<Admission>,
    pub has_begun: bool,
}

impl Turn {
    async fn wait(&self, bytes: u64, clock: &impl Clock) -> Result<Option<Permit>> {
        let Some(admission) = &self.admission else { return Ok(None) };
        match self.has_begun {
            true => Ok(Some(admission.admit_at_last(bytes).await)),
            false => admission.admit(bytes, clock).await.map(Some),
        }
    }

    /// The room for `bytes` (none where none is needed), if it is there at once.
    fn at_once(&self, bytes: u64) -> Option<Option<Permit>> {
        match &self.admission {
            Some(admission) => admission.try_admit(bytes).map(Some),
            None => Some(None),
        }
    }
}

/// A window whose shards are on their way.
struct Pending {
    window: Window,
    replies: Replies,
    asked: u16,
    room: Option<Permit>,
}

/// The bytes `span` of the payload, and where they stand in every shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    span: Span,
    /// Bytes of each shard, whole blocks but for the shard's end: a range within one run.
    shard: Span,
}

impl<M: Mailbox, R: Runtime> PayloadReader<M, R> {
    pub(super) fn new(
        store: Store<M, R>,
        key: Key,
        layout: Layout,
        span: Span,
        turn: Turn,
    ) -> Self {
        assert!(span.start <= span.end && span.end <= layout.bytes);
        let ready = std::collections::VecDeque::new();
        Self { store, key, layout, ahead: span, pending: None, ready, room: None, turn, avoid: 0 }
    }

    /// The next bytes; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                return Ok(Some(bytes));
            }
            // What was handed out is the caller's. Nothing is held while the next window is waited for.
            self.room = None;
            if self.pending.is_none()
                && let Some(bytes) = self.next_bytes()
            {
                let room = self.turn.wait(bytes, self.store.runtime()).await?;
                self.pending = Some(self.ask_next(room));
            }
            let Some(pending) = self.pending.take() else { return Ok(None) };
            let ahead = self.next_bytes().and_then(|bytes| self.turn.at_once(bytes));
            self.pending = ahead.map(|room| self.ask_next(room));
            let (pieces, room) = self.receive(pending).await?;
            self.turn.has_begun = true;
            self.room = room;
            self.ready.extend(pieces);
        }
    }

    /// Bytes of memory that the next window takes; `None` at the end.
    fn next_bytes(&self) -> Option<u64> {
        if self.ahead.start == self.ahead.end {
            return None;
        }
        let window = Window::first(&self.layout, self.ahead);
        let shards = window.data_shards(&self.layout).count_ones();
        Some(u64::from(shards) * window.shard_bytes() as u64)
    }

    fn ask_next(&mut self, room: Option<Permit>) -> Pending {
        let window = Window::first(&self.layout, self.ahead);
        self.ahead.start = window.span.end;
        let wanted = window.data_shards(&self.layout) & !self.avoid;
        let replies = self.ask(window, wanted);
        Pending { window, replies, asked: wanted, room }
    }

    fn ask(&self, window: Window, shards: u16) -> Replies {
        let requests = (0..self.layout.shards())
            .filter(|shard| shards & (1 << shard) != 0)
            .map(|shard| (DriveIndex(self.layout.order[shard]), window.request(&self.layout)))
            .collect();
        self.store.mailbox().send(SetIndex(self.layout.set), requests)
    }

    /// Waits for the shards of a window and gives out its bytes.
    async fn receive(&mut self, pending: Pending) -> Result<(Vec<Bytes>, Option<Permit>)> {
        let Pending { window, mut replies, asked, room } = pending;
        let wanted = window.data_shards(&self.layout);
        let mut gathered = Gathered::new(self.layout.shards());
        let mut outstanding = asked;
        let clock = self.store.runtime().clone();
        let started = clock.now();
        loop {
            if gathered.has & wanted == wanted {
                return Ok((window.pieces(&self.layout, &gathered.shards), room));
            }
            if gathered.count() >= usize::from(self.layout.data_shards) {
                self.rebuild(window, wanted, &mut gathered);
                continue;
            }
            // Too few on their way: ask every other shard.
            if usize::from(self.layout.data_shards)
                > gathered.count() + outstanding.count_ones() as usize
                || (outstanding != 0 && clock.now().since(started) >= HEDGE)
            {
                let every = ((1u32 << self.layout.shards()) - 1) as u16;
                let more = every & !gathered.has & !outstanding & !gathered.failed;
                if more != 0 {
                    let extra = self.ask(window, more);
                    replies = replies.and(extra);
                    outstanding |= more;
                }
            }
            if outstanding == 0 || clock.now().since(started) >= DEADLINE {
                return Err(self.unreadable(&gathered));
            }
            let next = std::pin::pin!(replies.next());
            let pause = std::pin::pin!(clock.sleep(HEDGE));
            let Either::Left((arrival, _)) = select(next, pause).await else { continue };
            let Some((drive, reply)) = arrival else {
                outstanding = 0;
                continue;
            };
            let Some(shard) = self.layout.shard_of(drive.0) else { continue };
            outstanding &= !(1 << shard);
            match window.verify(&self.layout, shard, reply) {
                Ok(bytes) => gathered.add(shard, bytes),
                Err(fault) => self.give_up_shard(shard, fault, &mut gathered),
            }
        }
    }

    /// Rebuilds the wanted shards that are not there from those that are.
    fn rebuild(&self, window: Window, wanted: u16, gathered: &mut Gathered) {
        let length = window.shard_bytes();
        let missing = wanted & !gathered.has;
        for (shard, bytes) in rebuild(&self.layout, &gathered.shards, missing, length) {
            gathered.add(shard, bytes);
        }
        self.store.count_degraded_read();
    }

    fn give_up_shard(&mut self, shard: usize, fault: Fault, gathered: &mut Gathered) {
        self.avoid |= 1 << shard;
        gathered.failed |= 1 << shard;
        if fault == Fault::Wrong {
            let drive = DriveIndex(self.layout.order[shard]);
            let (set, payload) = (SetIndex(self.layout.set), self.layout.payload);
            self.store.report_wrong_shard(&self.key, set, drive, payload);
        }
    }

    fn unreadable(&self, gathered: &Gathered) -> Error {
        let needed = usize::from(self.layout.data_shards);
        let short_by = u32::try_from(needed - gathered.count().min(needed)).expect("small");
        Error::Unreadable { set: SetIndex(self.layout.set), short_by: short_by.max(1) }
    }
}

/// Shards of one window as they came in.
struct Gathered {
    shards: Vec<Option<Bytes>>,
    has: u16,
    failed: u16,
}

impl Gathered {
    fn new(shards: usize) -> Self {
        Self { shards: vec![None; shards], has: 0, failed: 0 }
    }
    fn add(&mut self, shard: usize, bytes: Bytes) {
        self.shards[shard] = Some(bytes);
        self.has |= 1 << shard;
    }
    fn count(&self) -> usize {
        self.has.count_ones() as usize
    }
}

/// What is wrong with a shard's answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fault {
    /// The drive does not have it, or not now.
    Missing,
    /// The bytes are not those that were written.
    Wrong,
}

impl Window {
    /// All of a shard that rides in journals.
    pub(super) fn whole_shard(layout: &Layout) -> Self {
        assert!(layout.is_small());
        let span = Span { start: 0, end: layout.bytes };
        Self { span, shard: Span { start: 0, end: layout.shard_bytes() } }
    }

    /// One run of every shard.
    pub(super) fn run(layout: &Layout, run: u64) -> Self {
        let run_bytes = RUN_BLOCKS * BLOCK_BYTES as u64;
        let shard =
            Span { start: run * run_bytes, end: layout.shard_bytes().min((run + 1) * run_bytes) };
        let stripe = layout.stripe_bytes();
        let stripes = run_bytes / u64::from(layout.unit_bytes);
        let end = ((run + 1) * stripes * stripe).min(layout.bytes);
        Self { span: Span { start: run * stripes * stripe, end }, shard }
    }

    /// Bytes of each shard in the window.
    pub(super) fn shard_bytes(&self) -> usize {
        usize::try_from(self.shard.end - self.shard.start).expect("a window fits memory")
    }

    /// The first window of `ahead`.
    fn first(layout: &Layout, ahead: Span) -> Self {
        if layout.is_small() {
            return Self { span: ahead, ..Self::whole_shard(layout) };
        }
        let unit = u64::from(layout.unit_bytes);
        let stripe = layout.stripe_bytes();
        let run_stripes = RUN_BLOCKS * BLOCK_BYTES as u64 / unit;
        let first = ahead.start / stripe;
        let last = (ahead.end - 1) / stripe;
        let aim = (WINDOW_BYTES / stripe).max(1);
        let run_end = (first / run_stripes + 1) * run_stripes;
        let end = (first + aim).min(run_end).min(last + 1);
        let span = Span { start: ahead.start, end: ahead.end.min(end * stripe) };
        if end == first + 1 {
            return Self { span, shard: Self::within_stripe(layout, first, span) };
        }
        let shard = Span { start: first * unit, end: (end * unit).min(layout.shard_bytes()) };
        Self { span, shard }
    }

    /// For a span within one stripe: the blocks of the shards that hold it, and no others.
    fn within_stripe(layout: &Layout, stripe: u64, span: Span) -> Span {
        let base = stripe * layout.stripe_bytes();
        let piece = layout.piece_bytes_of((layout.bytes - base).min(layout.stripe_bytes()));
        let (start, end) = (span.start - base, span.end - base);
        let shard_base = stripe * u64::from(layout.unit_bytes);
        let whole = start / piece != (end - 1) / piece;
        let (from, to) = if whole { (0, piece) } else { (start % piece, (end - 1) % piece + 1) };
        let block = BLOCK_BYTES as u64;
        let from = from / block * block;
        let to = to.next_multiple_of(block).min(piece);
        Span { start: shard_base + from, end: shard_base + to }
    }

    /// The data shards that hold bytes of the span, one bit each.
    fn data_shards(&self, layout: &Layout) -> u16 {
        let mut shards = 0;
        self.each_piece(layout, |shard, _| shards |= 1 << shard);
        shards
    }

    pub(super) fn request(&self, layout: &Layout) -> Request {
        if layout.is_small() {
            return Request::ReadSmall { payload: layout.payload };
        }
        let block = BLOCK_BYTES as u64;
        assert_eq!(self.shard.start % block, 0, "windows begin with a block");
        let first_block = self.shard.start / block;
        let blocks = self.shard.end.div_ceil(block) - first_block;
        Request::ReadRun { payload: layout.payload, first_block, blocks }
    }

    /// The window's bytes of shard `shard`, if the reply has them and they are right.
    pub(super) fn verify(
        &self,
        layout: &Layout,
        shard: usize,
        reply: Reply,
    ) -> std::result::Result<Bytes, Fault> {
        let number = checksum_shard(layout, shard);
        let length = self.shard_bytes();
        match reply {
            Reply::Small(small) => {
                let right = small.bytes.len() as u64 == layout.shard_bytes()
                    && checksum::small_shard(layout.payload, number, &small.bytes)
                        == small.checksum;
                if right { Ok(small.bytes) } else { Err(Fault::Wrong) }
            }
            Reply::Run(read) => {
                let first_block = self.shard.start / BLOCK_BYTES as u64;
                let start = usize::try_from(read.data_start_blocks).expect("fits") * BLOCK_BYTES;
                let blocks = length.div_ceil(BLOCK_BYTES);
                let data = read.buffer.get(start..start + blocks * BLOCK_BYTES);
                let right = data.is_some_and(|data| {
                    let sums = &read.checksums;
                    sums.len() == blocks
                        && checksum::verify_blocks(layout.payload, number, first_block, data, sums)
                            .is_ok()
                });
                if !right {
                    return Err(Fault::Wrong);
                }
                Ok(owned(read.buffer).slice(start..start + length))
            }
            Reply::Failed(basalt_engine::Error::Io { .. })
            | Reply::Failed(basalt_engine::Error::Corrupt { .. }) => Err(Fault::Wrong),
            _ => Err(Fault::Missing),
        }
    }

    /// Calls `each` with the shard and its byte range for every piece of the span, in order.
    fn each_piece(&self, layout: &Layout, mut each: impl FnMut(usize, Span)) {
        let stripe_bytes = layout.stripe_bytes();
        let unit = u64::from(layout.unit_bytes);
        let mut at = self.span.start;
        while at < self.span.end {
            let stripe = at / stripe_bytes;
            let base = stripe * stripe_bytes;
            let piece = layout.piece_bytes_of((layout.bytes - base).min(stripe_bytes));
            let shard = (at - base) / piece;
            let within = (at - base) % piece;
            let length = (piece - within).min(self.span.end - at);
            let start = stripe * unit + within;
            let shard = usize::try_from(shard).expect("at most sixteen");
            each(shard, Span { start, end: start + length });
            at += length;
        }
    }

    /// The span's bytes in order, cut from the shards.
    fn pieces(&self, layout: &Layout, shards: &[Option<Bytes>]) -> Vec<Bytes> {
        let mut pieces = Vec::new();
        self.each_piece(layout, |shard, range| {
            let bytes = shards[shard].as_ref().expect("every wanted shard is there");
            let start = usize::try_from(range.start - self.shard.start).expect("fits");
            let end = usize::try_from(range.end - self.shard.start).expect("fits");
            pieces.push(bytes.slice(start..end));
        });
        pieces
    }
}

/// The shards `missing` (one bit each), `length` bytes long, from at least k of the others.
pub(super) fn rebuild(
    layout: &Layout,
    shards: &[Option<Bytes>],
    missing: u16,
    length: usize,
) -> Vec<(usize, Bytes)> {
    let present: Vec<Option<&[u8]>> = shards.iter().map(Option::as_deref).collect();
    let mut rebuilt: Vec<(usize, BytesMut)> = (0..layout.shards())
        .filter(|shard| missing & (1 << shard) != 0)
        .map(|shard| (shard, BytesMut::zeroed(length)))
        .collect();
    let mut places: Vec<(usize, &mut [u8])> =
        rebuilt.iter_mut().map(|(shard, bytes)| (*shard, &mut bytes[..])).collect();
    codec::codec_for(layout.codec)
        .expect("layouts name known codecs")
        .rebuild(usize::from(layout.data_shards), &present, &mut places)
        .expect("the caller has k shards");
    rebuilt.into_iter().map(|(shard, bytes)| (shard, bytes.freeze())).collect()
}

/// The buffer as shared bytes, without a copy.
fn owned(buffer: Buffer) -> Bytes {
    Bytes::from_owner(buffer)
}

//! One connection between two nodes that trust each other: frames out, frames in, and the certainty that
//! the other side still lives. What the frames mean is for whoever runs it.
//!
//! Whatever is sent is queued, and one task writes all that has gathered with as few calls as possible.
//! Answers that wait together leave in one frame. A side that has heard nothing for [`SILENCE_MAX`] ends
//! the connection; a side that has nothing to say says so every [`ALIVE_INTERVAL`].
//!
//! The queue is bounded by what the other side was granted: requests by the credit of the handshake,
//! answers by the requests.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use basalt_engine::buffer::Buffer;
use basalt_engine::checksum::{Crc64, crc64};
use basalt_engine::request::{ListEntry, Reply};
use basalt_engine::seam::{Moment, Runtime};
use basalt_engine::units::{BlockCount, DriveIndex};
use bytes::Bytes;
use futures_util::future::{Either, select};
use futures_util::task::AtomicWaker;

use crate::wire::Malformed;
use crate::wire::frame::{HEADER_BYTES, Header, Kind};
use crate::wire::message::{
    self, ArrivedAnswers, ArrivedAsk, Asked, Body, Call, CallAnswer, Packed,
};

/// Without a word from the other side for so long, it counts as gone.
pub const SILENCE_MAX: Duration = Duration::from_secs(3);
/// Who has said nothing for so long says that it lives.
pub const ALIVE_INTERVAL: Duration = Duration::from_millis(500);
/// Between two looks at the clock.
const LOOK: Duration = Duration::from_millis(250);
/// Received and not yet looked at.
const INCOMING_BYTES: usize = 64 << 10;
/// Answers of one frame, and the length from which on it takes no more of them.
const ANSWERS_MAX: usize = 64;
const ANSWERS_BYTES: usize = 1 << 20;
/// What one call writes at most.
const WRITE_BYTES: usize = 4 << 20;

/// A connection of bytes. One task reads while another writes.
pub trait Stream: 'static {
    /// Fills the front of `buffer` and says how much; 0 is the end.
    fn read(&self, buffer: &mut [u8]) -> impl Future<Output = io::Result<usize>>;
    /// Writes the front of the slices and says how much.
    fn write(&self, slices: &[IoSlice<'_>]) -> impl Future<Output = io::Result<usize>>;
}

/// Fills `buffer`, or fails where the stream ends before.
pub(crate) async fn read_exact(stream: &impl Stream, mut buffer: &mut [u8]) -> io::Result<()> {
    while !buffer.is_empty() {
        match stream.read(buffer).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => buffer = &mut buffer[count..],
        }
    }
    Ok(())
}

pub(crate) async fn write_all(stream: &impl Stream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match stream.write(&[IoSlice::new(bytes)]).await? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            count => bytes = &bytes[count..],
        }
    }
    Ok(())
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum End {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("it sent what the protocol does not know: {0}")]
    Malformed(#[from] Malformed),
    #[error("it was silent for {} s", SILENCE_MAX.as_secs())]
    Silent,
}

/// What came.
pub enum Frame {
    Ask(Asked),
    Answers(Vec<(u32, DriveIndex, Reply)>),
    Call(u32, Call),
    CallAnswer(u32, CallAnswer),
}

/// Where what is to be sent is left. All clones are one.
pub struct Link<R: Runtime> {
    shared: Rc<Shared<R>>,
}

impl<R: Runtime> Clone for Link<R> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

struct Shared<R> {
    runtime: R,
    version: u8,
    outgoing: RefCell<VecDeque<Outgoing>>,
    writer: AtomicWaker,
    /// [`Link::run`] has ended: nothing will be sent any more.
    ended: Cell<bool>,
    heard: Cell<Moment>,
    said: Cell<Moment>,
}

enum Outgoing {
    Frame(Kind, Packed),
    Answer(u32, DriveIndex, Reply),
}

impl<R: Runtime> Link<R> {
    /// `version` is what the handshake agreed upon.
    pub fn new(runtime: R, version: u8) -> Self {
        let now = runtime.now();
        let shared = Shared {
            runtime,
            version,
            outgoing: RefCell::default(),
            writer: AtomicWaker::new(),
            ended: Cell::new(false),
            heard: Cell::new(now),
            said: Cell::new(now),
        };
        Self { shared: Rc::new(shared) }
    }

    /// Queues a frame. Nothing is sent any more once [`Self::run`] has ended.
    pub fn send(&self, kind: Kind, packed: Packed) {
        self.queue(Outgoing::Frame(kind, packed));
    }

    /// Queues an answer, which may share a frame with others.
    pub fn answer(&self, ticket: u32, drive: DriveIndex, reply: Reply) {
        self.queue(Outgoing::Answer(ticket, drive, reply));
    }

    /// For how long nothing has been heard of the other side.
    pub fn silent_for(&self) -> Duration {
        self.shared.runtime.now().since(self.shared.heard.get())
    }

    fn queue(&self, outgoing: Outgoing) {
        if self.shared.ended.get() {
            return;
        }
        self.shared.outgoing.borrow_mut().push_back(outgoing);
        self.shared.writer.wake();
    }

    /// Moves frames until the connection ends, and gives each that comes to `take`.
    pub async fn run<S: Stream>(
        &self,
        stream: &S,
        take: impl FnMut(Frame) -> Result<(), Malformed>,
    ) -> End {
        let reading = std::pin::pin!(self.read_all(stream, take));
        let writing = std::pin::pin!(self.write_all(stream));
        let watching = std::pin::pin!(self.watch());
        let moving = std::pin::pin!(select(reading, writing));
        let end = match select(moving, watching).await {
            Either::Left((Either::Left((end, _)) | Either::Right((end, _)), _)) => end,
            Either::Right((end, _)) => end,
        };
        self.shared.ended.set(true);
        self.shared.outgoing.borrow_mut().clear();
        end
    }

    async fn watch(&self) -> End {
        let shared = &self.shared;
        loop {
            shared.runtime.sleep(LOOK).await;
            let now = shared.runtime.now();
            if self.silent_for() > SILENCE_MAX {
                return End::Silent;
            }
            if now.since(shared.said.get()) >= ALIVE_INTERVAL {
                let nothing = Packed { body: Body::new(), payload: Vec::new() };
                self.send(Kind::Alive, nothing);
            }
        }
    }

    async fn write_all<S: Stream>(&self, stream: &S) -> End {
        loop {
            let parts = self.gathered().await;
            if let Err(error) = self.write(stream, &parts).await {
                return End::Io(error);
            }
        }
    }

    /// Waits for something to send.
    async fn gathered(&self) -> Vec<Bytes> {
        poll_fn(|context| {
            self.shared.writer.register(context.waker());
            let parts = self.gather();
            if parts.is_empty() { Poll::Pending } else { Poll::Ready(parts) }
        })
        .await
    }

    /// The bytes of the frames that wait, as many as one call may write.
    fn gather(&self) -> Vec<Bytes> {
        let mut outgoing = self.shared.outgoing.borrow_mut();
        let (mut parts, mut length) = (Vec::new(), 0);
        while length < WRITE_BYTES {
            let (kind, packed) = match outgoing.pop_front() {
                None => break,
                Some(Outgoing::Frame(kind, packed)) => (kind, packed),
                Some(Outgoing::Answer(ticket, drive, reply)) => {
                    let answers = gather_answers((ticket, drive, reply), &mut outgoing);
                    (Kind::Answers, message::pack_answers(answers))
                }
            };
            length += push_frame(&mut parts, kind, self.shared.version, packed);
        }
        parts
    }

    async fn write<S: Stream>(&self, stream: &S, parts: &[Bytes]) -> io::Result<()> {
        let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let mut slices = &mut slices[..];
        while !slices.is_empty() {
            let written = stream.write(slices).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.shared.said.set(self.shared.runtime.now());
            IoSlice::advance_slices(&mut slices, written);
        }
        Ok(())
    }

    async fn read_all<S: Stream>(
        &self,
        stream: &S,
        mut take: impl FnMut(Frame) -> Result<(), Malformed>,
    ) -> End {
        let mut incoming = Incoming::new(stream, &self.shared);
        loop {
            let taken = match incoming.next_frame(self.shared.version).await {
                Ok(None) => continue,
                Ok(Some(frame)) => take(frame).map_err(End::from),
                Err(end) => Err(end),
            };
            if let Err(end) = taken {
                return end;
            }
        }
    }
}

/// `first` and the answers that wait behind it, as far as one frame takes them.
fn gather_answers(
    first: (u32, DriveIndex, Reply),
    outgoing: &mut VecDeque<Outgoing>,
) -> Vec<(u32, DriveIndex, Reply)> {
    let mut length = length(&first.2);
    let mut answers = vec![first];
    while answers.len() < ANSWERS_MAX && length < ANSWERS_BYTES {
        match outgoing.pop_front() {
            Some(Outgoing::Answer(ticket, drive, reply)) => {
                length += self::length(&reply);
                answers.push((ticket, drive, reply));
            }
            Some(other) => {
                outgoing.push_front(other);
                break;
            }
            None => break,
        }
    }
    answers
}

/// About how long a reply is, where it may be long.
fn length(reply: &Reply) -> usize {
    match reply {
        Reply::Run(run) => run.buffer.len(),
        Reply::Small(shard) => shard.bytes.len(),
        Reply::Listed(page) => page.entries.iter().map(listed_length).sum(),
        _ => 0,
    }
}

fn listed_length(entry: &ListEntry) -> usize {
    let records = entry.slots.iter().filter_map(|slot| slot.accepted.as_ref());
    entry.key.as_bytes().len() + records.map(|record| record.bytes().len()).sum::<usize>()
}

/// Adds the parts of a frame and says how long it is.
fn push_frame(parts: &mut Vec<Bytes>, kind: Kind, version: u8, packed: Packed) -> usize {
    let mut crc = Crc64::default();
    packed.payload.iter().for_each(|part| crc.add(part));
    let payload_bytes = packed.payload.iter().map(Bytes::len).sum();
    let header = Header::of(kind, version, &packed.body, payload_bytes, crc.finish());
    let length = HEADER_BYTES + packed.body.len() + payload_bytes;
    parts.push(Bytes::copy_from_slice(&header.encode()));
    if !packed.body.is_empty() {
        parts.push(Bytes::from_owner(packed.body));
    }
    parts.extend(packed.payload);
    length
}

/// Bytes that came and were not looked at yet.
struct Incoming<'a, R, S> {
    stream: &'a S,
    shared: &'a Shared<R>,
    buffer: Box<[u8]>,
    waiting: std::ops::Range<usize>,
}

impl<'a, R: Runtime, S: Stream> Incoming<'a, R, S> {
    fn new(stream: &'a S, shared: &'a Shared<R>) -> Self {
        let buffer = vec![0; INCOMING_BYTES].into_boxed_slice();
        Self { stream, shared, buffer, waiting: 0..0 }
    }

    /// The next frame; `None` for one that only says that the other side lives.
    async fn next_frame(&mut self, version: u8) -> Result<Option<Frame>, End> {
        let mut header = [0; HEADER_BYTES];
        self.fill(&mut header).await?;
        let header = Header::decode(&header, version)?;
        let mut body = Body::with_capacity(header.body_bytes as usize);
        body.resize(header.body_bytes as usize, 0);
        self.fill(&mut body).await?;
        if crc64(&body) != header.body_crc {
            return Err(Malformed("the checksum of a frame's body").into());
        }
        let payload_bytes = header.payload_bytes as usize;
        if !matches!(header.kind, Kind::Ask | Kind::Answers) && payload_bytes > 0 {
            return Err(Malformed("payload where none belongs").into());
        }
        Ok(Some(match header.kind {
            Kind::Alive => return Ok(None),
            Kind::Ask => {
                let arrived = ArrivedAsk::check(body, payload_bytes)?;
                Frame::Ask(arrived.open(self.payload(arrived.segments(), &header).await?)?)
            }
            Kind::Answers => {
                let arrived = ArrivedAnswers::check(body, payload_bytes)?;
                Frame::Answers(arrived.open(self.payload(arrived.segments(), &header).await?)?)
            }
            Kind::Call => {
                let (number, call) = message::open_call(body)?;
                Frame::Call(number, call)
            }
            Kind::CallAnswer => {
                let (number, answer) = message::open_call_answer(body)?;
                Frame::CallAnswer(number, answer)
            }
        }))
    }

    /// Receives payload into buffers that a drive can write.
    async fn payload(
        &mut self,
        segments: &[BlockCount],
        header: &Header,
    ) -> Result<Vec<Buffer>, End> {
        let mut buffers = Vec::with_capacity(segments.len());
        let mut crc = Crc64::default();
        for length in segments {
            let mut buffer = Buffer::unwritten(*length);
            self.fill(&mut buffer).await?;
            crc.add(&buffer);
            buffers.push(buffer);
        }
        match crc.finish() == header.payload_crc {
            true => Ok(buffers),
            false => Err(Malformed("the checksum of a frame's payload").into()),
        }
    }

    /// Fills `target`: first with what waits, then, where much is missing, straight from the stream.
    async fn fill(&mut self, mut target: &mut [u8]) -> Result<(), End> {
        loop {
            let ready = self.waiting.len().min(target.len());
            let (front, rest) = target.split_at_mut(ready);
            front.copy_from_slice(&self.buffer[self.waiting.start..][..ready]);
            self.waiting.start += ready;
            target = rest;
            if target.is_empty() {
                return Ok(());
            }
            if target.len() >= INCOMING_BYTES {
                let count = self.stream.read(target).await?;
                self.heard(count)?;
                target = &mut target[count..];
            } else {
                let count = self.stream.read(&mut self.buffer).await?;
                self.heard(count)?;
                self.waiting = 0..count;
            }
        }
    }

    fn heard(&self, count: usize) -> Result<(), End> {
        self.shared.heard.set(self.shared.runtime.now());
        match count {
            0 => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            _ => Ok(()),
        }
    }
}

//! What frames carry, version 1: archives (rkyv: little-endian, aligned, 32-bit relative pointers) whose
//! types are frozen. A later version gets types of its own beside these.
//!
//! Packing shares keys, records and small shards with what it packs; opening shares them with the body
//! that arrived. Payload does not stand in bodies: a request or reply says how many blocks of it are its
//! own, in the order in which they stand in the frame.

mod call;
mod parts;
mod reply;
mod request;

use basalt_engine::buffer::Buffer;
use basalt_engine::units::{BlockCount, DriveIndex, SET_DRIVES_MAX, SetIndex};
use bytes::Bytes;
use rkyv::rancor;
use rkyv::util::AlignedVec;

pub use call::{Call, CallAnswer, Description, SeatFound, Standing};

use super::Malformed;
use basalt_engine::request::{Reply, Request};

/// The newest version of the messages, and the oldest that is still understood.
pub const VERSION: u8 = 1;
pub const VERSION_OLDEST: u8 = 1;

/// A frame's body as it is received: aligned, because it is read in place.
pub type Body = AlignedVec<16>;

/// A body and the payload that follows it.
pub struct Packed {
    pub body: Body,
    pub payload: Vec<Bytes>,
}

#[derive(rkyv::Archive, rkyv::Serialize)]
struct Ask {
    ticket: u32,
    set: u16,
    requests: Vec<(u8, request::Request)>,
}

#[derive(rkyv::Archive, rkyv::Serialize)]
struct Answers {
    answers: Vec<Answer>,
}

#[derive(rkyv::Archive, rkyv::Serialize)]
struct Answer {
    ticket: u32,
    drive: u8,
    reply: reply::Reply,
}

pub fn pack_ask(ticket: u32, set: SetIndex, requests: Vec<(DriveIndex, Request)>) -> Packed {
    let mut payload = Vec::new();
    let requests = requests
        .into_iter()
        .map(|(drive, request)| (drive.0, request::Request::pack(request, &mut payload)))
        .collect();
    Packed { body: archive(&Ask { ticket, set: set.0, requests }), payload }
}

pub fn pack_answers(answers: Vec<(u32, DriveIndex, Reply)>) -> Packed {
    let mut payload = Vec::new();
    let answers = answers
        .into_iter()
        .map(|(ticket, drive, reply)| {
            let reply = reply::Reply::pack(reply, &mut payload);
            Answer { ticket, drive: drive.0, reply }
        })
        .collect();
    Packed { body: archive(&Answers { answers }), payload }
}

/// The number of a call, and the call.
pub fn pack_call(number: u32, call: &Call) -> Packed {
    Packed { body: call::pack(number, call), payload: Vec::new() }
}

pub fn pack_call_answer(number: u32, answer: &CallAnswer) -> Packed {
    Packed { body: call::pack_answer(number, answer), payload: Vec::new() }
}

pub fn open_call(body: Body) -> Result<(u32, Call), Malformed> {
    call::open(&Bytes::from_owner(body))
}

pub fn open_call_answer(body: Body) -> Result<(u32, CallAnswer), Malformed> {
    call::open_answer(&Bytes::from_owner(body))
}

/// An ask that arrived, checked; its payload is still to be received.
pub struct ArrivedAsk {
    body: Bytes,
    segments: Vec<BlockCount>,
}

/// Answers that arrived, likewise.
pub struct ArrivedAnswers {
    body: Bytes,
    segments: Vec<BlockCount>,
}

/// What an ask asks.
pub struct Asked {
    pub ticket: u32,
    pub set: SetIndex,
    pub requests: Vec<(DriveIndex, Request)>,
}

impl ArrivedAsk {
    pub fn check(body: Body, payload_bytes: usize) -> Result<Self, Malformed> {
        let body = Bytes::from_owner(body);
        let ask = access::<ArchivedAsk>(&body)?;
        if ask.requests.is_empty() || ask.requests.len() > SET_DRIVES_MAX {
            return Err(Malformed("the number of requests of an ask"));
        }
        let lengths = ask.requests.iter().filter_map(|request| request.1.payload_blocks());
        let segments = segments(lengths, payload_bytes)?;
        Ok(Self { body, segments })
    }

    /// The lengths of the buffers that the payload is received into, in order.
    pub fn segments(&self) -> &[BlockCount] {
        &self.segments
    }

    pub fn open(&self, payload: Vec<Buffer>) -> Result<Asked, Malformed> {
        let ask = access::<ArchivedAsk>(&self.body)?;
        let mut payload = payload.into_iter();
        let requests = ask
            .requests
            .iter()
            .map(|each| Ok((DriveIndex(each.0), each.1.open(&self.body, &mut payload)?)))
            .collect::<Result<_, Malformed>>()?;
        let set = SetIndex(ask.set.to_native());
        Ok(Asked { ticket: ask.ticket.to_native(), set, requests })
    }
}

impl ArrivedAnswers {
    pub fn check(body: Body, payload_bytes: usize) -> Result<Self, Malformed> {
        let body = Bytes::from_owner(body);
        let answers = access::<ArchivedAnswers>(&body)?;
        let lengths = answers.answers.iter().filter_map(|answer| answer.reply.payload_blocks());
        let segments = segments(lengths, payload_bytes)?;
        Ok(Self { body, segments })
    }

    pub fn segments(&self) -> &[BlockCount] {
        &self.segments
    }

    pub fn open(&self, payload: Vec<Buffer>) -> Result<Vec<(u32, DriveIndex, Reply)>, Malformed> {
        let answers = access::<ArchivedAnswers>(&self.body)?;
        let mut payload = payload.into_iter();
        answers
            .answers
            .iter()
            .map(|answer| {
                let reply = answer.reply.open(&self.body, &mut payload)?;
                Ok((answer.ticket.to_native(), DriveIndex(answer.drive), reply))
            })
            .collect()
    }
}

/// Checks that the payloads are as long as the frame says.
fn segments(
    lengths: impl Iterator<Item = u32>,
    payload_bytes: usize,
) -> Result<Vec<BlockCount>, Malformed> {
    let segments: Vec<_> = lengths.map(|length| BlockCount(u64::from(length))).collect();
    let all: u64 = segments.iter().map(|length| length.bytes()).sum();
    match all == payload_bytes as u64 && segments.iter().all(|length| length.0 > 0) {
        true => Ok(segments),
        false => Err(Malformed("the payload is not as long as the messages say")),
    }
}

fn archive(
    value: &impl for<'a> rkyv::Serialize<
        rkyv::api::high::HighSerializer<
            AlignedVec,
            rkyv::ser::allocator::ArenaHandle<'a>,
            rancor::Error,
        >,
    >,
) -> Body {
    rkyv::to_bytes(value).expect("memory is the only thing that packing needs")
}

fn access<T>(body: &Bytes) -> Result<&T, Malformed>
where
    T: rkyv::Portable
        + for<'a> rkyv::bytecheck::CheckBytes<rkyv::api::high::HighValidator<'a, rancor::Failure>>,
{
    rkyv::access::<T, rancor::Failure>(body).map_err(|_| Malformed("the body of a frame"))
}

#[cfg(test)]
mod tests;

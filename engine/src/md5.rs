//! MD5 of many streams at once. S3's ETag is an MD5, and one stream of it is a chain that no
//! instruction set makes faster (0.7 GB/s here); the streams of several requests are independent, so
//! their blocks are hashed side by side, one stream in each lane of a vector register.
//!
//! [`Streams`] belongs to one core. Bytes are pushed without being hashed and stay where they are. Who
//! needs a stream's hash takes turns for it ([`Streams::turn`]), and the streams that hold most go along
//! in the other lanes: a step costs the same whether one lane is filled or all. So it pays to ask late.
//!
//! Algorithm: RFC 1321; side by side as in Intel's multi-buffer papers and isa-l_crypto.

mod lanes;

use std::collections::VecDeque;

use bytes::Bytes;

use lanes::{BLOCK, Kernel, LANES_MAX, State};

/// Bytes of each lane that one turn hashes: one or two milliseconds, however many lanes are filled.
pub const TURN_BYTES: usize = 1 << 20;
/// Streams from which on lanes are faster than one stream after the other.
const LANES_WORTH: usize = 2;

const START: State = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];

/// Names one stream of [`Streams`]. Not to be used after it was finished or dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StreamId(usize);

/// The streams of one core.
#[derive(Default)]
pub struct Streams {
    streams: Vec<Option<Stream>>,
    free: Vec<usize>,
    kernel: Kernel,
}

/// One stream: what was hashed, and what was not yet.
struct Stream {
    state: State,
    length: u64,
    /// The start of a block that the next bytes complete.
    partial: [u8; BLOCK],
    partial_bytes: usize,
    pending: VecDeque<Bytes>,
    pending_bytes: usize,
}

/// A lane at work: whole blocks of one stream.
struct Lane {
    stream: usize,
    blocks: Bytes,
}

impl Streams {
    pub fn open(&mut self) -> StreamId {
        let stream = Some(Stream::new());
        match self.free.pop() {
            Some(at) => {
                self.streams[at] = stream;
                StreamId(at)
            }
            None => {
                self.streams.push(stream);
                StreamId(self.streams.len() - 1)
            }
        }
    }

    /// Forgets a stream that nobody wants the hash of any more.
    pub fn close(&mut self, id: StreamId) {
        assert!(self.streams[id.0].take().is_some(), "a stream is closed once");
        self.free.push(id.0);
    }

    pub fn push(&mut self, id: StreamId, bytes: Bytes) {
        let stream = self.stream(id);
        stream.length += bytes.len() as u64;
        stream.pending_bytes += bytes.len();
        stream.pending.push_back(bytes);
    }

    /// Whether only one stream is open: nobody could go along.
    pub fn is_alone(&self) -> bool {
        self.streams.len() - self.free.len() == 1
    }

    /// Bytes that were pushed and not hashed.
    pub fn pending_bytes(&self, id: StreamId) -> usize {
        self.streams[id.0].as_ref().expect("an open stream").pending_bytes
    }

    /// Hashes what has gathered of `id`, and of the streams that hold most in the other lanes, until `id`
    /// is left with no more than `left_bytes`; [`TURN_BYTES`] of each at most.
    pub fn turn(&mut self, id: StreamId, left_bytes: usize) {
        let chosen = self.fullest(id);
        let mut lanes: Vec<Lane> =
            chosen.into_iter().filter_map(|stream| self.next_lane(stream)).collect();
        let mut room = TURN_BYTES;
        while room > 0 && self.is_wanted(id, left_bytes, &lanes) {
            room -= self.step(&mut lanes, room);
        }
        for lane in lanes {
            let stream = self.streams[lane.stream].as_mut().expect("its lane is at work");
            stream.put_back(lane.blocks);
        }
    }

    /// The hash of all that was pushed. The stream is gone afterwards.
    pub fn finish(&mut self, id: StreamId) -> [u8; 16] {
        while self.pending_bytes(id) > 0 {
            self.turn(id, 0);
        }
        let stream = self.streams[id.0].take().expect("an open stream");
        self.free.push(id.0);
        stream.finish()
    }

    fn stream(&mut self, id: StreamId) -> &mut Stream {
        self.streams[id.0].as_mut().expect("an open stream")
    }

    /// `id` and the streams that hold most, as many as there are lanes; only those with bytes to hash.
    fn fullest(&self, id: StreamId) -> Vec<usize> {
        let pending = |at: usize| self.streams[at].as_ref().map_or(0, |one| one.pending_bytes);
        let mut chosen: Vec<usize> =
            (0..self.streams.len()).filter(|at| pending(*at) > 0).collect();
        chosen.sort_by_key(|at| (*at != id.0, std::cmp::Reverse(pending(*at))));
        chosen.truncate(self.kernel.lanes());
        chosen
    }

    fn is_wanted(&self, id: StreamId, left_bytes: usize, lanes: &[Lane]) -> bool {
        lanes.iter().find(|lane| lane.stream == id.0).is_some_and(|lane| {
            let stream = self.streams[lane.stream].as_ref().expect("its lane is at work");
            lane.blocks.len() + stream.partial_bytes + stream.pending_bytes > left_bytes
        })
    }

    fn next_lane(&mut self, stream: usize) -> Option<Lane> {
        let blocks = self.streams[stream].as_mut().expect("it was waiting").take_blocks()?;
        Some(Lane { stream, blocks })
    }

    /// Hashes the blocks that all lanes have, `most_bytes` of them at most, then fills the lanes that
    /// ran out. Answers how many bytes of each.
    fn step(&mut self, lanes: &mut Vec<Lane>, most_bytes: usize) -> usize {
        let shortest = lanes.iter().map(|lane| lane.blocks.len()).min().expect("not empty");
        let bytes = shortest.min(most_bytes);
        if lanes.len() < LANES_WORTH {
            for lane in &*lanes {
                let stream = self.streams[lane.stream].as_mut().expect("its lane is at work");
                lanes::one(&mut stream.state, &lane.blocks[..bytes]);
            }
        } else {
            let mut states = [START; LANES_MAX];
            let mut inputs: [&[u8]; LANES_MAX] = [&[]; LANES_MAX];
            for (at, lane) in lanes.iter().enumerate() {
                states[at] = self.streams[lane.stream].as_ref().expect("at work").state;
                inputs[at] = &lane.blocks[..bytes];
            }
            self.kernel.run(&mut states, &inputs[..lanes.len()]);
            for (lane, state) in lanes.iter().zip(states) {
                self.streams[lane.stream].as_mut().expect("at work").state = state;
            }
        }
        lanes.iter_mut().for_each(|lane| bytes::Buf::advance(&mut lane.blocks, bytes));
        for at in (0..lanes.len()).rev() {
            if lanes[at].blocks.is_empty() {
                match self.next_lane(lanes[at].stream) {
                    Some(more) => lanes[at] = more,
                    None => drop(lanes.swap_remove(at)),
                }
            }
        }
        bytes
    }
}

impl Stream {
    fn new() -> Self {
        Self {
            state: START,
            length: 0,
            partial: [0; BLOCK],
            partial_bytes: 0,
            pending: VecDeque::new(),
            pending_bytes: 0,
        }
    }

    /// The next whole blocks that stand together; `None` where less than a block is left, which is
    /// kept for later.
    fn take_blocks(&mut self) -> Option<Bytes> {
        while let Some(mut bytes) = self.pending.pop_front() {
            self.pending_bytes -= bytes.len();
            if self.partial_bytes == 0 {
                let taken = bytes.split_to(bytes.len() / BLOCK * BLOCK);
                self.start_block(&bytes);
                if !taken.is_empty() {
                    return Some(taken);
                }
            } else {
                let wanted = BLOCK - self.partial_bytes;
                let taken = bytes.split_to(wanted.min(bytes.len()));
                self.start_block(&taken);
                if !bytes.is_empty() {
                    self.pending_bytes += bytes.len();
                    self.pending.push_front(bytes);
                }
                if self.partial_bytes == BLOCK {
                    self.partial_bytes = 0;
                    return Some(Bytes::copy_from_slice(&self.partial));
                }
            }
        }
        None
    }

    fn start_block(&mut self, bytes: &[u8]) {
        let end = self.partial_bytes + bytes.len();
        self.partial[self.partial_bytes..end].copy_from_slice(bytes);
        self.partial_bytes = end;
    }

    /// Takes back what [`Self::take_blocks`] gave out. A block begun since then would be lost.
    fn put_back(&mut self, blocks: Bytes) {
        self.pending_bytes += blocks.len();
        if self.partial_bytes > 0 {
            // The bytes behind the blocks were already set aside.
            let begun = Bytes::copy_from_slice(&self.partial[..self.partial_bytes]);
            self.pending_bytes += begun.len();
            self.pending.push_front(begun);
            self.partial_bytes = 0;
        }
        self.pending.push_front(blocks);
    }

    fn finish(mut self) -> [u8; 16] {
        assert_eq!(self.pending_bytes, 0, "everything was hashed but the last block");
        let mut end = [0; 2 * BLOCK];
        end[..self.partial_bytes].copy_from_slice(&self.partial[..self.partial_bytes]);
        end[self.partial_bytes] = 0x80;
        let blocks = if self.partial_bytes < BLOCK - 8 { 1 } else { 2 };
        let bits = self.length.wrapping_mul(8);
        end[blocks * BLOCK - 8..blocks * BLOCK].copy_from_slice(&bits.to_le_bytes());
        lanes::one(&mut self.state, &end[..blocks * BLOCK]);
        let mut hash = [0; 16];
        for (out, word) in hash.chunks_exact_mut(4).zip(self.state) {
            out.copy_from_slice(&word.to_le_bytes());
        }
        hash
    }
}

#[cfg(test)]
mod tests;

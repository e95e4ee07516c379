//! Reading the journal back when a drive opens.
//!
//! Replay takes batches in order of their numbers and ends where the next one is not valid. That
//! is a torn write, which nobody was told of, unless a later batch exists: a batch is only ever
//! written when the one before it is durable. In that case, and where the place of the next batch
//! cannot be read at all, something that was durable is lost and the drive is damaged.

use crate::buffer::Buffer;
use crate::format::{
    Entry, Extent, FrameHeader, FrameKind, FrameOwner, decode_frame_header, frame_body,
};
use crate::journal::{BATCH_BLOCKS_MAX, Boundary};
use crate::seam::Storage;
use crate::units::{BLOCK_BYTES, BlockCount, BlockIndex};

/// What a replay found.
#[derive(Debug)]
pub struct Replayed {
    /// Where the journal goes on.
    pub head: Boundary,
    pub batches: u64,
    pub entries: u64,
    /// Where something is that should not be, if the journal lost a batch.
    pub damage: Option<BlockIndex>,
}

/// Reads all batches from `start` on and hands their entries to `apply`, which says whether an
/// entry makes sense.
pub async fn replay<S: Storage>(
    storage: &S,
    owner: FrameOwner,
    region: Extent,
    start: Boundary,
    mut apply: impl FnMut(Boundary, Entry) -> bool,
) -> Replayed {
    let mut window = Window::new(storage, region);
    let mut found = Replayed { head: start, batches: 0, entries: 0, damage: None };
    while let Some((at, header)) = find_batch(&mut window, owner, found.head).await {
        let blocks = window.blocks(at, header.length_blocks()).await;
        let mut body = frame_body(owner, &header, blocks).expect("checked when it was found");
        let place = Boundary { at, sequence: header.sequence };
        while !body.is_empty() {
            found.entries += 1;
            let sound = Entry::decode(&mut body).is_ok_and(|entry| apply(place, entry));
            if !sound {
                found.damage = Some(at);
                return found;
            }
        }
        found.batches += 1;
        found.head =
            Boundary { at: at.plus(header.length_blocks()), sequence: header.sequence + 1 };
    }
    found.damage = find_damage(&mut window, owner, found.head).await;
    found
}

/// The batch numbered `next.sequence`: it stands at `next.at`, or, where it did not fit there, at
/// the start of the region.
async fn find_batch<S: Storage>(
    window: &mut Window<'_, S>,
    owner: FrameOwner,
    next: Boundary,
) -> Option<(BlockIndex, FrameHeader)> {
    let region = window.region;
    for at in [next.at, region.start] {
        if at >= region.end() {
            continue;
        }
        let header = decode_frame_header(
            owner,
            FrameKind::Batch,
            at,
            window.blocks(at, BlockCount(1)).await,
        );
        let Some(header) = header.filter(|header| header.sequence == next.sequence) else {
            continue;
        };
        let length = header.length_blocks();
        if length > BATCH_BLOCKS_MAX || at.plus(length) > region.end() {
            continue;
        }
        let fitted = next.at.plus(length) <= region.end();
        if at != next.at && fitted {
            continue;
        }
        if frame_body(owner, &header, window.blocks(at, length).await).is_some() {
            return Some((at, header));
        }
    }
    None
}

/// Where a batch beyond `next` stands, although `next` is not valid.
async fn find_damage<S: Storage>(
    window: &mut Window<'_, S>,
    owner: FrameOwner,
    next: Boundary,
) -> Option<BlockIndex> {
    let region = window.region;
    let mut at = region.start;
    while at < region.end() {
        let readable = window.try_blocks(at, BlockCount(1)).await;
        let is_next = at == next.at || (at == region.start && next.at >= region.end());
        match readable {
            None if is_next => return Some(at),
            None => {}
            Some(block) => {
                let header = decode_frame_header(owner, FrameKind::Batch, at, block);
                if header.is_some_and(|header| header.sequence > next.sequence) {
                    return Some(at);
                }
            }
        }
        at = at.plus(BlockCount(1));
    }
    None
}

/// A read-ahead view of the region. Blocks that cannot be read are zero in it.
struct Window<'a, S> {
    storage: &'a S,
    region: Extent,
    start: BlockIndex,
    buffer: Option<Buffer>,
    unreadable: Vec<BlockIndex>,
}

impl<'a, S: Storage> Window<'a, S> {
    fn new(storage: &'a S, region: Extent) -> Self {
        Self { storage, region, start: region.start, buffer: None, unreadable: Vec::new() }
    }

    async fn try_blocks(&mut self, at: BlockIndex, count: BlockCount) -> Option<&[u8]> {
        self.load(at, count).await;
        let end = at.plus(count);
        if self.unreadable.iter().any(|&bad| bad >= at && bad < end) {
            return None;
        }
        Some(self.blocks(at, count).await)
    }

    async fn blocks(&mut self, at: BlockIndex, count: BlockCount) -> &[u8] {
        self.load(at, count).await;
        let from = (at.0 - self.start.0) as usize * BLOCK_BYTES;
        let buffer = self.buffer.as_ref().expect("the window is loaded");
        &buffer[from..from + count.bytes() as usize]
    }

    async fn load(&mut self, at: BlockIndex, count: BlockCount) {
        assert!(at >= self.region.start && at.plus(count) <= self.region.end());
        let loaded = self.buffer.as_ref().is_some_and(|buffer| {
            at >= self.start && at.plus(count) <= self.start.plus(buffer.length_blocks())
        });
        if loaded {
            return;
        }
        let length = BATCH_BLOCKS_MAX.max(count).min(BlockCount(self.region.end().0 - at.0));
        self.start = at;
        self.unreadable.clear();
        let (buffer, result) = self.storage.read(at, Buffer::zeroed(length)).await;
        self.buffer = Some(if result.is_ok() { buffer } else { self.load_singly(length).await });
    }

    /// Reads block by block where a long read failed.
    async fn load_singly(&mut self, length: BlockCount) -> Buffer {
        let mut whole = Buffer::zeroed(length);
        for (index, block) in whole.chunks_exact_mut(BLOCK_BYTES).enumerate() {
            let at = self.start.plus(BlockCount(index as u64));
            let (buffer, result) = self.storage.read(at, Buffer::zeroed(BlockCount(1))).await;
            match result {
                Ok(()) => block.copy_from_slice(&buffer),
                Err(_) => self.unreadable.push(at),
            }
        }
        whole
    }
}

//! The durable form of the index: runs of entries in segments, and the manifest that lists them.
//!
//! The first run holds everything (the base); each later one holds what changed since the one
//! before. All are sequences of pages (frames), whose entries are applied in order like those of
//! the journal; what follows in the journal then brings them up to date. A run may be newer in
//! parts than the boundary in the journal to which it belongs: entries say what is.
//!
//! How a checkpoint is written: `drive/checkpointing.rs`.

use bytes::{BufMut, Bytes, BytesMut};
use smallvec::SmallVec;

use crate::buffer::Buffer;
use crate::error::{Error, Result};
use crate::format::{
    Entry, Extent, Fields, FrameKind, FrameOwner, MalformedEntry, decode_frame_header,
    encode_frame, frame_body,
};
use crate::seam::Storage;
use crate::superblock::ManifestPlace;

/// A page is written when its entries reach this length.
pub const PAGE_BYTES: usize = 256 << 10;

/// Entries of one page.
#[derive(Default)]
pub struct Page {
    parts: SmallVec<[Bytes; 2]>,
    open: BytesMut,
}

impl Page {
    pub fn push(&mut self, entry: &Entry) {
        entry.encode_into(&mut self.open);
        let trailing = entry.trailing();
        if !trailing.is_empty() {
            self.parts.push(self.open.split().freeze());
            self.parts.push(trailing);
        }
    }
    pub fn bytes(&self) -> usize {
        self.open.len() + self.parts.iter().map(Bytes::len).sum::<usize>()
    }
    pub fn is_empty(&self) -> bool {
        self.bytes() == 0
    }
    pub fn encode(&self, owner: FrameOwner, at: Extent, checkpoint: u64, page: u32) -> Buffer {
        let parts = self.parts.iter().map(|part| &part[..]).chain([&self.open[..]]);
        encode_frame(owner, FrameKind::RunPage, at.start, checkpoint, page, parts)
    }
}

/// One run: its pages, in order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Run {
    /// The checkpoint that wrote it.
    pub checkpoint: u64,
    pub pages: Vec<Extent>,
}

impl Run {
    pub fn blocks(&self) -> u64 {
        self.pages.iter().map(|page| page.length.0).sum()
    }
}

/// What a checkpoint consists of.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Manifest {
    /// Number of the checkpoint; 0 before the first.
    pub checkpoint: u64,
    pub runs: Vec<Run>,
}

impl Manifest {
    /// Whether the next run should be a base: there is none, or the deltas outgrew it.
    pub fn wants_base(&self) -> bool {
        let blocks = |runs: &[Run]| runs.iter().map(Run::blocks).sum::<u64>();
        self.runs.split_first().is_none_or(|(base, deltas)| blocks(deltas) >= base.blocks())
    }

    /// Checkpoint (8), runs (4); for each its checkpoint (8) and pages (4), and for each page its
    /// start (8) and length in blocks (8).
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        body.put_u64_le(self.checkpoint);
        body.put_u32_le(u32::try_from(self.runs.len()).expect("few runs"));
        for run in &self.runs {
            body.put_u64_le(run.checkpoint);
            body.put_u32_le(u32::try_from(run.pages.len()).expect("below 2^32 pages"));
            for page in &run.pages {
                body.put_u64_le(page.start.0);
                body.put_u64_le(page.length.0);
            }
        }
        body
    }

    fn decode(body: &[u8]) -> std::result::Result<Self, MalformedEntry> {
        let mut fields = Fields::of(body);
        let mut manifest = Self { checkpoint: fields.u64()?, runs: Vec::new() };
        for _ in 0..fields.u32()? {
            let mut run = Run { checkpoint: fields.u64()?, pages: Vec::new() };
            for _ in 0..fields.u32()? {
                run.pages.push(fields.extent()?);
            }
            manifest.runs.push(run);
        }
        Ok(manifest)
    }

    pub async fn read<S: Storage>(
        storage: &S,
        owner: FrameOwner,
        place: ManifestPlace,
    ) -> Result<Self> {
        let corrupt = Error::Corrupt { what: "manifest", at: place.extent.start };
        let frame = read_frame(storage, owner, FrameKind::Manifest, place.extent).await?;
        let body = frame.body(owner).filter(|_| frame.body_crc == place.body_crc);
        let manifest = body.and_then(|body| Self::decode(body).ok());
        manifest.filter(|manifest| manifest.checkpoint == place.checkpoint).ok_or(corrupt)
    }
}

/// A frame as it was read.
struct ReadFrame {
    buffer: Buffer,
    sequence: u64,
    page: u32,
    body_crc: u64,
    header: crate::format::FrameHeader,
}

impl ReadFrame {
    fn body(&self, owner: FrameOwner) -> Option<&[u8]> {
        frame_body(owner, &self.header, &self.buffer)
    }
}

async fn read_frame<S: Storage>(
    storage: &S,
    owner: FrameOwner,
    kind: FrameKind,
    extent: Extent,
) -> Result<ReadFrame> {
    let what = match kind {
        FrameKind::Manifest => "manifest",
        _ => "page of the index",
    };
    let corrupt = Error::Corrupt { what, at: extent.start };
    if extent.length > crate::format::FRAME_BLOCKS_MAX
        || extent.end().0 > storage.geometry().length.0
    {
        return Err(corrupt);
    }
    let (buffer, result) = storage.read(extent.start, Buffer::zeroed(extent.length)).await;
    result?;
    let header = decode_frame_header(owner, kind, extent.start, &buffer)
        .filter(|header| header.length_blocks() == extent.length);
    let header = header.ok_or(corrupt)?;
    let (sequence, page, body_crc) = (header.sequence, header.page, header.body_crc);
    Ok(ReadFrame { buffer, sequence, page, body_crc, header })
}

/// Hands the entries of page `number` of `run` to `apply`, which says whether they make sense.
pub async fn read_page<S: Storage>(
    storage: &S,
    owner: FrameOwner,
    run: &Run,
    number: usize,
    mut apply: impl FnMut(Entry) -> bool,
) -> Result<()> {
    let extent = run.pages[number];
    let corrupt = Error::Corrupt { what: "page of the index", at: extent.start };
    let frame = read_frame(storage, owner, FrameKind::RunPage, extent).await?;
    let belongs = frame.sequence == run.checkpoint && frame.page as usize == number;
    let Some(mut body) = frame.body(owner).filter(|_| belongs) else { return Err(corrupt) };
    while !body.is_empty() {
        if !Entry::decode(&mut body).is_ok_and(&mut apply) {
            return Err(corrupt);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{BlockCount, BlockIndex};

    fn run(checkpoint: u64, lengths: &[u64]) -> Run {
        let page = |&length: &u64| Extent { start: BlockIndex(9), length: BlockCount(length) };
        Run { checkpoint, pages: lengths.iter().map(page).collect() }
    }

    #[test]
    fn a_manifest_says_what_was_put_into_it() {
        let manifest = Manifest { checkpoint: 5, runs: vec![run(3, &[1, 2]), run(5, &[])] };
        let body = manifest.encode();
        assert_eq!(Manifest::decode(&body), Ok(manifest));
        for length in 0..body.len() {
            assert!(Manifest::decode(&body[..length]).is_err());
        }
    }

    #[test]
    fn a_base_is_written_when_the_deltas_outgrow_it() {
        let wants = |runs| Manifest { checkpoint: 1, runs }.wants_base();
        assert!(wants(vec![]));
        assert!(!wants(vec![run(1, &[4])]));
        assert!(!wants(vec![run(1, &[4]), run(2, &[3])]));
        assert!(wants(vec![run(1, &[4]), run(2, &[3]), run(3, &[1])]));
    }
}

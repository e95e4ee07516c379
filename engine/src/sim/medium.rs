//! What a simulated device holds: durable blocks, completed writes in a volatile cache, and writes
//! in flight. Plain and deterministic: [`Medium::apply`] is the only way to change it, so that a
//! recorded sequence of [`Step`]s replays to the same bytes.
//!
//! **Rules.** A write reaches the cache when it completes; a durable write reaches the durable
//! blocks at that moment. A flush makes durable what had completed when it was called. A read sees
//! the cache over the durable blocks; where a write is in flight it sees, sector by sector, either.
//!
//! **Power cut.** Of every block that has writes which are not durable, each on its own, any of
//! its contents since it was last durable is left: the newest, an older one, or a torn mixture in
//! which each sector of 512 bytes comes from any of them. A write in flight counts like one in the
//! cache, a durable one too, and the blocks of one write share no fate.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::image::{Block, Content, Image, bytes_of};
use super::prng::Prng;
use crate::units::BLOCK_BYTES;

/// What a power cut leaves whole or not at all, in bytes.
pub(super) const SECTOR_BYTES: usize = 512;

/// Names a write from its submission to its end.
pub(super) type WriteId = u64;

/// One change of a medium.
#[derive(Clone)]
pub(super) enum Step {
    Submit {
        id: WriteId,
        write: Write,
    },
    /// The write completes as it should.
    Land {
        id: WriteId,
    },
    /// The write completes, but its bytes go to `at`.
    LandElsewhere {
        id: WriteId,
        at: u64,
    },
    /// The write ends and leaves nothing.
    Lose {
        id: WriteId,
    },
    /// The write ends half-way: of each block all, a part or nothing arrives in the cache.
    Scatter {
        id: WriteId,
        seed: u64,
    },
    /// A flush that was called when `covers` writes had completed succeeds.
    Flush {
        covers: u64,
    },
    /// A flush fails: what becomes of the cache is drawn, and the device forgets about it.
    FlushFailed {
        seed: u64,
    },
    Growing {
        length: u64,
    },
    Grown {
        length: u64,
    },
    /// One bit changes wherever the block's content is kept.
    Rot {
        at: u64,
        bit: usize,
    },
    PowerCut {
        subset: Subset,
    },
}

#[derive(Clone)]
pub(super) struct Write {
    pub(super) at: u64,
    pub(super) blocks: Rc<[Content]>,
    pub(super) is_durable: bool,
}

/// What a power cut leaves of the writes that are not durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Subset {
    Nothing,
    Everything,
    /// Each block's content is drawn, and so are the odds.
    Drawn(u64),
}

#[derive(Clone, Default)]
pub(super) struct Medium {
    durable: Image,
    /// For each block, what was written since it was last made durable, oldest first.
    cached: BTreeMap<u64, Vec<Version>>,
    in_flight: BTreeMap<WriteId, Write>,
    /// Writes that have completed.
    completed: u64,
    length: u64,
    growing: Option<u64>,
}

#[derive(Clone)]
struct Version {
    /// The number of the write among all completed ones, from 1.
    number: u64,
    content: Content,
}

impl Medium {
    pub(super) fn length(&self) -> u64 {
        self.length
    }
    pub(super) fn completed(&self) -> u64 {
        self.completed
    }
    pub(super) fn in_flight(&self) -> Vec<WriteId> {
        self.in_flight.keys().copied().collect()
    }
    pub(super) fn is_in_flight(&self, id: WriteId) -> bool {
        self.in_flight.contains_key(&id)
    }
    /// Blocks that hold something other than zeros when the cache is flushed.
    pub(super) fn written(&self) -> Vec<u64> {
        let mut written = self.durable.written();
        written.extend(self.cached.keys());
        written.sort_unstable();
        written.dedup();
        written.retain(|&at| self.visible(at).is_some());
        written
    }
    /// The content of a block as a read sees it.
    pub(super) fn visible(&self, at: u64) -> Content {
        match self.cached.get(&at).and_then(|versions| versions.last()) {
            Some(version) => version.content.clone(),
            None => self.durable.get(at),
        }
    }
    /// Blocks whose content after a power cut is open.
    pub(super) fn open_blocks(&self) -> usize {
        let in_flight = self.in_flight.values().map(|write| write.blocks.len()).sum::<usize>();
        self.cached.len() + in_flight
    }
    #[cfg(test)]
    pub(super) fn copied_blocks(&self) -> usize {
        self.durable.copied_blocks()
    }
    /// The same contents with nothing shared; see [`Image::unshared`].
    pub(super) fn unshared(&self) -> Self {
        Self { durable: self.durable.unshared(), ..self.clone() }
    }

    pub(super) fn read(&self, at: u64, out: &mut [u8], prng: &mut Prng) {
        for (block, at) in out.chunks_exact_mut(BLOCK_BYTES).zip(at..) {
            block.copy_from_slice(bytes_of(&self.visible(at)));
            for write in self.in_flight.values() {
                if let Some(content) = write.content_at(at) {
                    let torn = tear(&[from_slice(block), content], prng);
                    block.copy_from_slice(bytes_of(&torn));
                }
            }
        }
    }

    pub(super) fn apply(&mut self, step: &Step) {
        match *step {
            Step::Submit { id, ref write } => {
                let former = self.in_flight.insert(id, write.clone());
                assert!(former.is_none(), "write {id} is submitted once");
            }
            Step::Land { id } => {
                let write = self.end(id);
                self.land(write.at, &write);
            }
            Step::LandElsewhere { id, at } => {
                let write = self.end(id);
                self.land(at, &write);
            }
            Step::Lose { id } => drop(self.end(id)),
            Step::Scatter { id, seed } => self.scatter(id, seed),
            Step::Flush { covers } => self.flush(covers),
            Step::FlushFailed { seed } => self.fail_flush(seed),
            Step::Growing { length } => self.growing = Some(length),
            Step::Grown { length } => {
                self.length = self.length.max(length);
                self.growing = None;
            }
            Step::Rot { at, bit } => self.rot(at, bit),
            Step::PowerCut { subset } => *self = self.after_power_cut(subset),
        }
    }

    /// What a power cut at this moment leaves.
    pub(super) fn after_power_cut(&self, subset: Subset) -> Self {
        let mut prng = match subset {
            Subset::Drawn(seed) => Prng::new(seed),
            Subset::Nothing | Subset::Everything => Prng::new(0),
        };
        let odds = match subset {
            Subset::Nothing => Odds { keep_ppm: 0, tear_ppm: 0 },
            Subset::Everything => Odds { keep_ppm: 1_000_000, tear_ppm: 0 },
            Subset::Drawn(_) => Odds::drawn(&mut prng),
        };
        let mut durable = self.durable.clone();
        if subset != Subset::Nothing {
            for (at, contents) in self.open_contents(&mut prng) {
                durable.put(at, odds.choose(&contents, &mut prng));
            }
        }
        let has_grown = match subset {
            Subset::Nothing => false,
            Subset::Everything => true,
            Subset::Drawn(_) => prng.coin(),
        };
        let grown = self.growing.filter(|_| has_grown).unwrap_or(0);
        Self { durable, length: self.length.max(grown), ..Self::default() }
    }

    /// For each block that is open: its durable content, then every later one, oldest first.
    /// Writes in flight may land in any order.
    fn open_contents(&self, prng: &mut Prng) -> BTreeMap<u64, Vec<Content>> {
        let mut open: BTreeMap<u64, Vec<Content>> = BTreeMap::new();
        let start = |at: &u64| vec![self.durable.get(*at)];
        for (at, versions) in &self.cached {
            let contents = open.entry(*at).or_insert_with_key(start);
            contents.extend(versions.iter().map(|version| version.content.clone()));
        }
        let mut in_flight: Vec<&Write> = self.in_flight.values().collect();
        while !in_flight.is_empty() {
            let write = in_flight.swap_remove(prng.index(in_flight.len()));
            for (content, at) in write.blocks.iter().zip(write.at..) {
                open.entry(at).or_insert_with_key(start).push(content.clone());
            }
        }
        open
    }

    fn end(&mut self, id: WriteId) -> Write {
        self.in_flight.remove(&id).expect("a write ends once, after its submission")
    }

    fn land(&mut self, at: u64, write: &Write) {
        self.completed += 1;
        for (content, at) in write.blocks.iter().zip(at..) {
            if write.is_durable {
                self.cached.remove(&at);
                self.durable.put(at, content.clone());
            } else {
                let version = Version { number: self.completed, content: content.clone() };
                self.cached.entry(at).or_default().push(version);
            }
        }
    }

    fn scatter(&mut self, id: WriteId, seed: u64) {
        let write = self.end(id);
        let mut prng = Prng::new(seed);
        self.completed += 1;
        for (content, at) in write.blocks.iter().zip(write.at..) {
            let content = match prng.below(3) {
                0 => continue,
                1 => content.clone(),
                _ => tear(&[self.visible(at), content.clone()], &mut prng),
            };
            let version = Version { number: self.completed, content };
            self.cached.entry(at).or_default().push(version);
        }
    }

    fn flush(&mut self, covers: u64) {
        self.cached.retain(|&at, versions| {
            let covered = versions.partition_point(|version| version.number <= covers);
            if let Some(version) = versions.drain(..covered).next_back() {
                self.durable.put(at, version.content);
            }
            !versions.is_empty()
        });
    }

    fn fail_flush(&mut self, seed: u64) {
        let mut prng = Prng::new(seed);
        let odds = Odds::drawn(&mut prng);
        for (at, versions) in std::mem::take(&mut self.cached) {
            let durable = std::iter::once(self.durable.get(at));
            let contents: Vec<Content> =
                durable.chain(versions.into_iter().map(|version| version.content)).collect();
            self.durable.put(at, odds.choose(&contents, &mut prng));
        }
    }

    fn rot(&mut self, at: u64, bit: usize) {
        let flipped = |content: &Content| {
            let mut block = *bytes_of(content);
            block[bit / 8] ^= 1 << (bit % 8);
            from_slice(&block)
        };
        self.durable.put(at, flipped(&self.durable.get(at)));
        for version in self.cached.get_mut(&at).into_iter().flatten() {
            version.content = flipped(&version.content);
        }
    }
}

impl Write {
    fn content_at(&self, at: u64) -> Option<Content> {
        let index = usize::try_from(at.checked_sub(self.at)?).ok()?;
        self.blocks.get(index).cloned()
    }
}

/// How a power cut chooses among the contents that a block may have.
#[derive(Clone, Copy)]
struct Odds {
    keep_ppm: u32,
    tear_ppm: u32,
}

impl Odds {
    fn drawn(prng: &mut Prng) -> Self {
        let keep_ppm = [50_000, 300_000, 500_000, 700_000, 950_000][prng.index(5)];
        let tear_ppm = [0, 0, 200_000, 500_000][prng.index(4)];
        Self { keep_ppm, tear_ppm }
    }

    /// `contents` holds two or more, oldest first.
    fn choose(self, contents: &[Content], prng: &mut Prng) -> Content {
        if prng.chance(self.tear_ppm) {
            return tear(contents, prng);
        }
        if prng.chance(self.keep_ppm) {
            return contents[contents.len() - 1].clone();
        }
        contents[prng.index(contents.len() - 1)].clone()
    }
}

/// A block whose sectors come each from any of `contents`.
fn tear(contents: &[Content], prng: &mut Prng) -> Content {
    let mut torn: Block = *bytes_of(&contents[0]);
    for (sector, start) in torn.chunks_exact_mut(SECTOR_BYTES).zip((0..).step_by(SECTOR_BYTES)) {
        let source = bytes_of(&contents[prng.index(contents.len())]);
        sector.copy_from_slice(&source[start..start + SECTOR_BYTES]);
    }
    from_slice(&torn)
}

fn from_slice(block: &[u8]) -> Content {
    super::image::contents(block)[0].clone()
}

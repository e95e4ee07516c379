//! Which blocks of an arena are taken: plain bookkeeping, no memory.
//!
//! The arena is cut into slabs of [`SLAB_BLOCKS`] blocks. A slab that is in use serves one size
//! class; when its last place is given back it may serve any class again. Slabs are taken from the
//! lowest address upwards, so that places in use gather in few slabs and the others become whole.
//!
//! 257 is a class of its own because a run of an extent is 256 data blocks and their checksum
//! block, which a power of two would double. Four such runs fill a slab, and every power of two up
//! to 512 leaves at most four blocks of it unused.

use std::collections::BTreeSet;

use crate::units::BlockCount;

/// Blocks of one slab: four runs.
pub(super) const SLAB_BLOCKS: u32 = 4 * 257;

/// Blocks of a place of each class.
const CLASSES: [u32; 12] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 257, 512, SLAB_BLOCKS];

/// A slab and its free places, counted in units of its class.
struct Slab {
    class: usize,
    free: Vec<u16>,
}

pub(super) struct Slabs {
    slabs: Vec<Slab>,
    /// Slabs without a place in use.
    empty: BTreeSet<u32>,
    /// By class: slabs with places in use and places free.
    partial: [BTreeSet<u32>; CLASSES.len()],
    taken_blocks: u64,
}

impl Slabs {
    pub(super) fn new(slab_count: u32) -> Self {
        Self {
            slabs: (0..slab_count).map(|_| Slab { class: 0, free: Vec::new() }).collect(),
            empty: (0..slab_count).collect(),
            partial: Default::default(),
            taken_blocks: 0,
        }
    }

    /// Blocks in use, counted as whole places.
    pub(super) fn taken(&self) -> BlockCount {
        BlockCount(self.taken_blocks)
    }

    /// First block of a free place for `blocks` blocks.
    pub(super) fn take(&mut self, blocks: u32) -> Option<u32> {
        let class = CLASSES.iter().position(|&class_blocks| class_blocks >= blocks)?;
        let slab_index = match self.partial[class].first() {
            Some(&slab_index) => slab_index,
            None => self.begin_slab(class)?,
        };
        let slab = &mut self.slabs[slab_index as usize];
        let place = slab.free.pop().expect("a partial slab has a free place");
        if slab.free.is_empty() {
            self.partial[class].remove(&slab_index);
        }
        self.taken_blocks += u64::from(CLASSES[class]);
        Some(slab_index * SLAB_BLOCKS + u32::from(place) * CLASSES[class])
    }

    fn begin_slab(&mut self, class: usize) -> Option<u32> {
        let slab_index = self.empty.pop_first()?;
        let places = places_of(class);
        self.slabs[slab_index as usize] = Slab { class, free: (0..places).rev().collect() };
        self.partial[class].insert(slab_index);
        Some(slab_index)
    }

    /// Gives back the place whose first block is `first_block`.
    pub(super) fn give_back(&mut self, first_block: u32) {
        let slab_index = first_block / SLAB_BLOCKS;
        let slab = &mut self.slabs[slab_index as usize];
        let class_blocks = CLASSES[slab.class];
        let offset = first_block % SLAB_BLOCKS;
        assert_eq!(offset % class_blocks, 0, "a place begins at a multiple of its class");
        let place = u16::try_from(offset / class_blocks).expect("a slab has few places");
        debug_assert!(!slab.free.contains(&place), "place {place} was given back twice");
        slab.free.push(place);
        self.taken_blocks -= u64::from(class_blocks);

        let class = slab.class;
        if slab.free.len() == usize::from(places_of(class)) {
            self.partial[class].remove(&slab_index);
            self.empty.insert(slab_index);
        } else {
            self.partial[class].insert(slab_index);
        }
    }
}

fn places_of(class: usize) -> u16 {
    u16::try_from(SLAB_BLOCKS / CLASSES[class]).expect("a slab has few places")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_runs_fill_a_slab() {
        let mut slabs = Slabs::new(1);
        let places: Vec<u32> = (0..4).map(|_| slabs.take(257).expect("room")).collect();
        assert_eq!(places, [0, 257, 514, 771]);
        assert_eq!(slabs.take(1), None);
        assert_eq!(slabs.taken(), BlockCount(1028));
        slabs.give_back(514);
        assert_eq!(slabs.take(200), None, "the slab still serves runs");
        assert_eq!(slabs.take(257), Some(514));
    }

    #[test]
    fn an_emptied_slab_serves_another_class() {
        let mut slabs = Slabs::new(1);
        let small = slabs.take(3).expect("room");
        assert_eq!(slabs.take(512), None);
        slabs.give_back(small);
        assert_eq!(slabs.taken(), BlockCount(0));
        assert_eq!(slabs.take(SLAB_BLOCKS), Some(0));
        assert_eq!(slabs.take(SLAB_BLOCKS + 1), None);
    }

    /// Random takes and returns against the plain truth: a set of blocks in use.
    #[test]
    fn places_never_overlap() {
        let seed = 0x51ab_u64;
        let mut state = seed;
        let mut random = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state >> 33
        };
        let mut slabs = Slabs::new(6);
        let mut held: Vec<(u32, u32)> = Vec::new();
        let mut used: BTreeSet<u32> = BTreeSet::new();
        for step in 0..20_000 {
            if random() % 2 == 0 {
                let blocks = [1, 2, 3, 9, 64, 200, 256, 257, 300, 1000][random() as usize % 10];
                if let Some(first) = slabs.take(blocks) {
                    for block in first..first + blocks {
                        assert!(used.insert(block), "seed {seed} step {step}: block {block}");
                    }
                    assert!(first + blocks <= 6 * SLAB_BLOCKS);
                    held.push((first, blocks));
                }
            } else if !held.is_empty() {
                let (first, blocks) = held.swap_remove(random() as usize % held.len());
                slabs.give_back(first);
                for block in first..first + blocks {
                    assert!(used.remove(&block));
                }
            }
        }
        for (first, _) in held {
            slabs.give_back(first);
        }
        assert_eq!(slabs.taken(), BlockCount(0));
        assert_eq!(slabs.empty.len(), 6);
    }
}

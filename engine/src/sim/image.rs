//! A map from block to content that is cheap to fork: forks share a base and keep what they change
//! for themselves. Blocks that were never written are zero and take no room.
//!
//! Invariant: a base that is shared is never changed. Once a fork's base is its own again, the
//! next change moves the fork's changes into it.

use std::collections::BTreeMap;
use std::mem;
use std::rc::Rc;

use crate::units::BLOCK_BYTES;

pub(super) type Block = [u8; BLOCK_BYTES];

/// The content of one block; `None` is all zero.
pub(super) type Content = Option<Rc<Block>>;

pub(super) const ZERO: Block = [0; BLOCK_BYTES];

/// The content of the blocks in `bytes`.
pub(super) fn contents(bytes: &[u8]) -> Rc<[Content]> {
    let (blocks, rest) = bytes.as_chunks::<BLOCK_BYTES>();
    assert!(rest.is_empty(), "whole blocks");
    blocks.iter().map(|block| (*block != ZERO).then(|| Rc::new(*block))).collect()
}

pub(super) fn bytes_of(content: &Content) -> &Block {
    content.as_deref().unwrap_or(&ZERO)
}

#[derive(Clone, Default)]
pub(super) struct Image {
    base: Rc<BTreeMap<u64, Rc<Block>>>,
    changed: BTreeMap<u64, Content>,
}

impl Image {
    pub(super) fn get(&self, at: u64) -> Content {
        match self.changed.get(&at) {
            Some(content) => content.clone(),
            None => self.base.get(&at).cloned(),
        }
    }

    pub(super) fn put(&mut self, at: u64, content: Content) {
        let Some(base) = Rc::get_mut(&mut self.base) else {
            self.changed.insert(at, content);
            return;
        };
        for (at, content) in mem::take(&mut self.changed) {
            put_in(base, at, content);
        }
        put_in(base, at, content);
    }

    /// A fork that shares no base: the copy costs as much as the map is long, forks of the copy
    /// then cost next to nothing.
    pub(super) fn unshared(&self) -> Self {
        let mut base = (*self.base).clone();
        for (at, content) in &self.changed {
            put_in(&mut base, *at, content.clone());
        }
        Self { base: Rc::new(base), changed: BTreeMap::new() }
    }

    /// Blocks that this fork keeps for itself.
    #[cfg(test)]
    pub(super) fn copied_blocks(&self) -> usize {
        self.changed.len()
    }

    /// The blocks that are not zero, ascending.
    pub(super) fn written(&self) -> Vec<u64> {
        let unchanged = self.base.keys().filter(|at| !self.changed.contains_key(at));
        let changed = self.changed.iter().filter(|(_, content)| content.is_some());
        let mut written: Vec<u64> = unchanged.chain(changed.map(|(at, _)| at)).copied().collect();
        written.sort_unstable();
        written
    }
}

fn put_in(base: &mut BTreeMap<u64, Rc<Block>>, at: u64, content: Content) {
    match content {
        Some(block) => base.insert(at, block),
        None => base.remove(&at),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(byte: u8) -> Content {
        contents(&[byte; BLOCK_BYTES])[0].clone()
    }

    #[test]
    fn forks_do_not_see_each_other() {
        let mut image = Image::default();
        image.put(1, filled(1));
        image.put(2, filled(2));
        let mut fork = image.clone();
        fork.put(1, filled(3));
        fork.put(2, filled(0));
        image.put(5, filled(5));
        assert_eq!((image.written(), fork.written()), (vec![1, 2, 5], vec![1]));
        assert_eq!((bytes_of(&image.get(1))[0], bytes_of(&fork.get(1))[0]), (1, 3));
        let copy = fork.unshared();
        drop(image);
        fork.put(9, filled(9));
        assert!(fork.changed.is_empty(), "the base is the fork's own again");
        assert_eq!((fork.written(), copy.written()), (vec![1, 9], vec![1]));
    }
}

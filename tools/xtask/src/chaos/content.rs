//! What a version's bytes are: they follow from the run's seed, the key and the version's number.
//!
//! The first 16 bytes name key and version, so that bytes which should not be there tell whose
//! they are.

use crate::random::{self, Random, mix};

const HEADER_BYTES: usize = 16;
const MIB: u64 = 1 << 20;

/// A version of a key: `key` is the register's index, `number` counts the key's writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Version {
    pub(crate) key: usize,
    pub(crate) number: u64,
}

impl Version {
    pub(crate) fn bytes(self, seed: u64, length: u64) -> Vec<u8> {
        let own = mix(seed ^ mix(self.key as u64) ^ mix(!self.number));
        let mut out = random::bytes(own, length as usize);
        if out.len() >= HEADER_BYTES {
            out[..8].copy_from_slice(&(self.key as u64).to_le_bytes());
            out[8..16].copy_from_slice(&self.number.to_le_bytes());
        }
        out
    }

    /// Whose bytes these say they are.
    pub(crate) fn claimed_by(body: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u64::from_le_bytes(body.get(at..at + 8)?.try_into().ok()?));
        Some(Self { key: usize::try_from(word(0)?).ok()?, number: word(8)? })
    }
}

/// Sizes on both sides of every limit a server may have: empty, inline, one block, one stripe,
/// many stripes.
pub(crate) fn choose_length(random: &mut Random) -> u64 {
    let edges = [0, 1, 4096, 8192, 65_536, MIB];
    match random.below(20) {
        0..=3 => random.below(200),
        4..=8 => random.below(8 << 10),
        9..=12 => random.below(128 << 10),
        13..=16 => (edges[random.index(edges.len())] + random.below(3)).saturating_sub(1),
        17 | 18 => random.below(MIB),
        _ => random.below(4 * MIB),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_differ_and_say_whose_they_are() {
        let version = Version { key: 3, number: 9 };
        let body = version.bytes(1, 100);
        assert_eq!(Version::claimed_by(&body), Some(version));
        for other in [Version { key: 4, number: 9 }, Version { key: 3, number: 8 }] {
            assert_ne!(other.bytes(1, 100), body);
        }
        assert_ne!(version.bytes(2, 100), body);
        assert_eq!(Version::claimed_by(&body[..10]), None);
        assert!(version.bytes(1, 0).is_empty());
    }
}

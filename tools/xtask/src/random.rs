//! A seeded random source: one seed gives one sequence, on every machine and for ever.

use std::time::{SystemTime, UNIX_EPOCH};

const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// SplitMix64's finaliser: mixes every input bit into every output bit.
pub(crate) fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// `stream` separates the sources that share one seed.
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        Self(mix(seed ^ mix(stream.wrapping_add(GAMMA))))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GAMMA);
        mix(self.0)
    }

    /// A number below `bound`; the bias is below 2^-32 for the small bounds used here.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "a choice among nothing");
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    pub(crate) fn index(&mut self, length: usize) -> usize {
        self.below(length as u64) as usize
    }

    /// True once in `n` times.
    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.index(last + 1));
        }
    }
}

/// Fills `out` with the bytes that `seed` stands for. Bytes at equal offsets are equal whatever the
/// length, and any two seeds give unrelated bytes.
pub(crate) fn fill(seed: u64, out: &mut [u8]) {
    let start = mix(seed);
    for (index, word) in out.chunks_mut(8).enumerate() {
        let value = mix(start.wrapping_add((index as u64).wrapping_mul(GAMMA)));
        word.copy_from_slice(&value.to_le_bytes()[..word.len()]);
    }
}

pub(crate) fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut out = vec![0; length];
    fill(seed, &mut out);
    out
}

/// A seed nobody chose, for runs that were given none; it is printed, so the run can be repeated.
pub(crate) fn fresh_seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
    mix(now.as_nanos() as u64) >> 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_depend_on_the_seed_and_the_offset_alone() {
        let long = bytes(7, 100);
        assert_eq!(long[..13], bytes(7, 13));
        assert_ne!(long, bytes(8, 100));
    }

    #[test]
    fn choices_stay_below_their_bound_and_reach_all_of_it() {
        let mut random = Random::new(1, 2);
        let mut seen = [false; 5];
        for _ in 0..200 {
            seen[random.index(5)] = true;
        }
        assert_eq!(seen, [true; 5]);
        let mut items: Vec<u32> = (0..50).collect();
        random.shuffle(&mut items);
        assert_ne!(items, (0..50).collect::<Vec<u32>>());
        items.sort_unstable();
        assert_eq!(items, (0..50).collect::<Vec<u32>>());
    }
}

//! The one source of chance in a simulation: xoshiro256**, its state filled by splitmix64. Seeds
//! of failing runs are kept for years, so neither the sequence nor the way numbers are drawn from
//! it ever changes.

use std::ops::Range;
use std::time::Duration;

/// Draws in parts per million.
pub(super) const PPM: u64 = 1_000_000;

#[derive(Clone, Debug)]
pub struct Prng {
    state: [u64; 4],
}

impl Prng {
    pub fn new(seed: u64) -> Self {
        let mut counter = seed;
        Self { state: std::array::from_fn(|_| splitmix(&mut counter)) }
    }

    /// Another sequence that is fixed by this one's next number.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        Self::new(self.next_u64())
    }

    pub fn next_u64(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.state;
        let drawn = b.wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        drawn
    }

    /// A number below `limit`, which is above zero. The bias of at most `limit / 2^64` is accepted.
    pub fn below(&mut self, limit: u64) -> u64 {
        assert!(limit > 0, "nothing is below zero");
        let wide = u128::from(self.next_u64()) * u128::from(limit);
        (wide >> 64) as u64
    }

    /// An index into something of `length` entries.
    pub fn index(&mut self, length: usize) -> usize {
        self.below(length as u64) as usize
    }

    /// True with a chance of `ppm` in a million. A chance of zero draws nothing, so that a fault
    /// that is switched off does not change the run.
    pub fn chance(&mut self, ppm: u32) -> bool {
        ppm > 0 && self.below(PPM) < u64::from(ppm)
    }

    pub fn coin(&mut self) -> bool {
        self.next_u64() >> 63 == 1
    }

    /// A duration of the range, in whole nanoseconds; its start if it is empty.
    pub fn duration(&mut self, range: Range<Duration>) -> Duration {
        let span = range.end.saturating_sub(range.start).as_nanos();
        let span = u64::try_from(span).expect("simulated spans are below centuries");
        if span == 0 {
            return range.start;
        }
        range.start + Duration::from_nanos(self.below(span))
    }
}

fn splitmix(counter: &mut u64) -> u64 {
    *counter = counter.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = *counter;
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_of_a_seed_never_changes() {
        let mut prng = Prng::new(0);
        // The published first outputs of xoshiro256** after splitmix64 from seed 0.
        let first = [0x99ec_5f36_cb75_f2b4, 0xbf6e_1f78_4956_452a, 0x1a5f_849d_4933_e6e0];
        assert_eq!([prng.next_u64(), prng.next_u64(), prng.next_u64()], first);
    }

    #[test]
    fn draws_stay_in_their_range_and_reach_all_of_it() {
        let mut prng = Prng::new(1);
        let mut seen = [0u32; 7];
        for _ in 0..7000 {
            seen[prng.index(7)] += 1;
        }
        assert!(seen.iter().all(|&count| (800..1200).contains(&count)), "{seen:?}");
        let heads = (0..10_000).filter(|_| prng.chance(250_000)).count();
        assert!((2300..2700).contains(&heads), "{heads}");
        assert!(!prng.chance(0) && prng.chance(1_000_000));
        let range = Duration::from_micros(3)..Duration::from_micros(5);
        assert!((0..1000).all(|_| range.contains(&prng.duration(range.clone()))));
    }
}

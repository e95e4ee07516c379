//! Inputs that nobody would write: good ones, spoiled. A target is a test that states what must hold for
//! every input; in a plain test run it sees a few thousand of them, under `cargo xtask fuzz` as many as
//! there is time for. Every input follows from the seed and its number, which a failure tells.

use std::time::{Duration, Instant};

/// Inputs of one target in a plain test run.
const INPUTS: u64 = 3_000;
/// The clock is looked at each time that so many inputs went by.
const INPUTS_AT_ONCE: u64 = 256;

/// SplitMix64: small, and good enough to spoil texts.
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// Below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub(crate) fn one_of<'a, T: ?Sized>(&mut self, choices: &[&'a T]) -> &'a T {
        choices[self.below(choices.len())]
    }

    /// One of the seeds, changed in up to four places; one in sixteen is left as it is.
    pub(crate) fn spoiled(&mut self, seeds: &[&[u8]], words: &[&str]) -> Vec<u8> {
        let mut bytes = self.one_of(seeds).to_vec();
        if self.below(16) == 0 {
            return bytes;
        }
        for _ in 0..=self.below(4) {
            self.spoil(&mut bytes, seeds, words);
        }
        bytes
    }

    fn spoil(&mut self, bytes: &mut Vec<u8>, seeds: &[&[u8]], words: &[&str]) {
        let at = self.below(bytes.len() + 1);
        let end = (at + 1 + self.below(16)).min(bytes.len());
        match self.below(8) {
            0 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
            1 if at < bytes.len() => bytes[at] = self.next() as u8,
            2 => drop(bytes.drain(at..end)),
            3 => {
                let copy = bytes[at..end].to_vec();
                let to = self.below(bytes.len() + 1);
                bytes.splice(to..to, copy);
            }
            4 => bytes.truncate(at),
            5 => {
                let other = self.one_of(seeds);
                let from = self.below(other.len() + 1);
                bytes.splice(at..end, other[from..].iter().copied());
            }
            _ => drop(bytes.splice(at..at, self.one_of(words).bytes())),
        }
    }
}

/// Runs `target` on one input after another.
#[expect(clippy::disallowed_methods, reason = "how long it runs is a person's choice")]
pub(crate) fn run(name: &str, mut target: impl FnMut(&mut Chance)) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = number("BASALT_FUZZ_SEED").unwrap_or(1);
    let limit = number("BASALT_FUZZ_SECONDS").map(Duration::from_secs);
    let inputs = number("BASALT_FUZZ_INPUTS");
    let only = number("BASALT_FUZZ_INPUT");
    let start = Instant::now();
    let mut input = only.unwrap_or(0);
    loop {
        let told = Told { name, seed, input };
        target(&mut Chance(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ input.rotate_left(32)));
        std::mem::forget(told);
        input += 1;
        let is_over = match limit {
            None => input >= inputs.unwrap_or(INPUTS),
            Some(limit) => input % INPUTS_AT_ONCE == 0 && start.elapsed() >= limit,
        };
        if only.is_some() || is_over {
            break;
        }
    }
    if limit.is_some() || inputs.is_some() {
        println!("{name}: {input} inputs of seed {seed} in {:.1} s", start.elapsed().as_secs_f64());
    }
}

/// Says which input it was, should the target panic.
struct Told<'a> {
    name: &'a str,
    seed: u64,
    input: u64,
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        println!(
            "{} failed; again with BASALT_FUZZ_SEED={} BASALT_FUZZ_INPUT={}",
            self.name, self.seed, self.input
        );
    }
}

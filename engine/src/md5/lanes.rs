//! The compression function of MD5 on several states side by side: sixteen lanes with AVX-512, eight
//! with AVX2, one after the other without. Which one is used is found out once, when a [`Kernel`] is
//! made. Up to eight lanes AVX-512 uses half of its registers' width, since turning the words of eight blocks
//! around costs less than those of sixteen: full registers reach a fifth less with eight lanes filled.
//!
//! `unsafe` stands here for two reasons only: vector instructions that were found to be there, and
//! loads of whole blocks from slices whose length was checked.

#![allow(clippy::wildcard_imports, reason = "every instruction used would be a name to import")]

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// Bytes of a block.
pub(super) const BLOCK: usize = 64;
pub(super) const LANES_MAX: usize = 16;

pub(super) type State = [u32; 4];

/// How lanes are hashed on this machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kernel {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Scalar,
}

impl Default for Kernel {
    fn default() -> Self {
        Self::all().next().expect("the scalar one is always there")
    }
}

impl Kernel {
    /// Those that this machine can run, the fastest first.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        [
            #[cfg(target_arch = "x86_64")]
            Some(Self::Avx512).filter(|_| {
                is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl")
            }),
            #[cfg(target_arch = "x86_64")]
            Some(Self::Avx2).filter(|_| is_x86_feature_detected!("avx2")),
            Some(Self::Scalar),
        ]
        .into_iter()
        .flatten()
    }

    /// Streams that it hashes at once.
    pub(super) fn lanes(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => 8,
            _ => LANES_MAX,
        }
    }

    /// Takes `states[i]` on by the blocks of `inputs[i]`; all inputs are of one length, in whole
    /// blocks, and no more than there are lanes.
    pub(super) fn run(self, states: &mut [State; LANES_MAX], inputs: &[&[u8]]) {
        let length = inputs[0].len();
        assert!(length.is_multiple_of(BLOCK) && inputs.len() <= self.lanes());
        assert!(inputs.iter().all(|input| input.len() == length), "lanes go in step");
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 if inputs.len() <= 8 => {
                let mut all = [inputs[0]; 8];
                all[..inputs.len()].copy_from_slice(inputs);
                let states = states.first_chunk_mut().expect("sixteen hold eight");
                // SAFETY: this kernel is made only where the processor has AVX-512F and AVX-512VL.
                unsafe { avx512_half(states, &all) }
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                // Idle lanes hash what the first one does; nobody looks at them.
                let mut all = [inputs[0]; 16];
                all[..inputs.len()].copy_from_slice(inputs);
                // SAFETY: this kernel is made only where the processor has AVX-512F and AVX-512VL.
                unsafe { avx512(states, &all) }
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => {
                let mut all = [inputs[0]; 8];
                all[..inputs.len()].copy_from_slice(inputs);
                let states = states.first_chunk_mut().expect("sixteen hold eight");
                // SAFETY: this kernel is made only where the processor has AVX2.
                unsafe { avx2(states, &all) }
            }
            Self::Scalar => {
                for (state, input) in states.iter_mut().zip(inputs) {
                    one(state, input);
                }
            }
        }
    }
}

/// Takes one state on by whole blocks.
pub(super) fn one(state: &mut State, blocks: &[u8]) {
    let (blocks, rest) = blocks.as_chunks();
    assert!(rest.is_empty(), "whole blocks");
    md5::block_api::compress(state, blocks);
}

/// The constants of the steps: floor(2^32 * |sin(i + 1)|).
const SINES: [u32; 64] = [
    0xd76a_a478,
    0xe8c7_b756,
    0x2420_70db,
    0xc1bd_ceee,
    0xf57c_0faf,
    0x4787_c62a,
    0xa830_4613,
    0xfd46_9501,
    0x6980_98d8,
    0x8b44_f7af,
    0xffff_5bb1,
    0x895c_d7be,
    0x6b90_1122,
    0xfd98_7193,
    0xa679_438e,
    0x49b4_0821,
    0xf61e_2562,
    0xc040_b340,
    0x265e_5a51,
    0xe9b6_c7aa,
    0xd62f_105d,
    0x0244_1453,
    0xd8a1_e681,
    0xe7d3_fbc8,
    0x21e1_cde6,
    0xc337_07d6,
    0xf4d5_0d87,
    0x455a_14ed,
    0xa9e3_e905,
    0xfcef_a3f8,
    0x676f_02d9,
    0x8d2a_4c8a,
    0xfffa_3942,
    0x8771_f681,
    0x6d9d_6122,
    0xfde5_380c,
    0xa4be_ea44,
    0x4bde_cfa9,
    0xf6bb_4b60,
    0xbebf_bc70,
    0x289b_7ec6,
    0xeaa1_27fa,
    0xd4ef_3085,
    0x0488_1d05,
    0xd9d4_d039,
    0xe6db_99e5,
    0x1fa2_7cf8,
    0xc4ac_5665,
    0xf429_2244,
    0x432a_ff97,
    0xab94_23a7,
    0xfc93_a039,
    0x655b_59c3,
    0x8f0c_cc92,
    0xffef_f47d,
    0x8584_5dd1,
    0x6fa8_7e4f,
    0xfe2c_e6e0,
    0xa301_4314,
    0x4e08_11a1,
    0xf753_7e82,
    0xbd3a_f235,
    0x2ad7_d2bb,
    0xeb86_d391,
];

/// The 64 steps on `$words` from `($a, $b, $c, $d)`, in the words of a vector: `$add`, `$rotate`
/// (by a constant) and the four mixing functions.
macro_rules! steps {
    ($a:ident $b:ident $c:ident $d:ident, $words:ident, $ops:ident) => {
        steps!(@round f, 0, 1, 0, [7, 12, 17, 22], $a $b $c $d, $words, $ops);
        steps!(@round g, 16, 5, 1, [5, 9, 14, 20], $a $b $c $d, $words, $ops);
        steps!(@round h, 32, 3, 5, [4, 11, 16, 23], $a $b $c $d, $words, $ops);
        steps!(@round i, 48, 7, 0, [6, 10, 15, 21], $a $b $c $d, $words, $ops);
    };
    (@round $mix:ident, $first:literal, $times:literal, $plus:literal,
     [$r0:literal, $r1:literal, $r2:literal, $r3:literal],
     $a:ident $b:ident $c:ident $d:ident, $words:ident, $ops:ident) => {
        // Four steps at a time turn (a, b, c, d) once around.
        for quarter in 0..4 {
            let at = |step: usize| ((4 * quarter + step) * $times + $plus) % 16;
            let sine = |step: usize| SINES[$first + 4 * quarter + step];
            $a = $ops::step::<$r0>($ops::$mix($b, $c, $d), $a, $b, $words[at(0)], sine(0));
            $d = $ops::step::<$r1>($ops::$mix($a, $b, $c), $d, $a, $words[at(1)], sine(1));
            $c = $ops::step::<$r2>($ops::$mix($d, $a, $b), $c, $d, $words[at(2)], sine(2));
            $b = $ops::step::<$r3>($ops::$mix($c, $d, $a), $b, $c, $words[at(3)], sine(3));
        }
    };
}

/// What [`steps`] asks for, with AVX-512's functions of three operands and rotations, on vectors of either
/// width. The immediate of a ternary function is its value for (1,1,1) down to (0,0,0).
#[cfg(target_arch = "x86_64")]
macro_rules! avx512_ops {
    ($features:literal, $words:ty, $ternary:ident, $add:ident, $everywhere:ident, $rotate:ident) => {
        #[inline]
        #[target_feature(enable = $features)]
        pub(super) fn f(x: $words, y: $words, z: $words) -> $words {
            $ternary::<0xca>(x, y, z)
        }
        #[inline]
        #[target_feature(enable = $features)]
        pub(super) fn g(x: $words, y: $words, z: $words) -> $words {
            $ternary::<0xca>(z, x, y)
        }
        #[inline]
        #[target_feature(enable = $features)]
        pub(super) fn h(x: $words, y: $words, z: $words) -> $words {
            $ternary::<0x96>(x, y, z)
        }
        #[inline]
        #[target_feature(enable = $features)]
        pub(super) fn i(x: $words, y: $words, z: $words) -> $words {
            $ternary::<0x39>(x, y, z)
        }

        #[inline]
        #[target_feature(enable = $features)]
        pub(super) fn step<const R: i32>(
            mixed: $words,
            a: $words,
            b: $words,
            word: $words,
            sine: u32,
        ) -> $words {
            let known = $add($add(a, word), $everywhere(sine as i32));
            $add(b, $rotate::<R>($add(known, mixed)))
        }
    };
}

/// Words of sixteen lanes.
#[cfg(target_arch = "x86_64")]
mod sixteen {
    use super::*;

    avx512_ops!(
        "avx512f",
        __m512i,
        _mm512_ternarylogic_epi32,
        _mm512_add_epi32,
        _mm512_set1_epi32,
        _mm512_rol_epi32
    );

    /// Word `w` of row `r` becomes word `r` of row `w`.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn transpose(rows: [__m512i; 16]) -> [__m512i; 16] {
        let mut pairs = rows;
        for at in (0..16).step_by(2) {
            pairs[at] = _mm512_unpacklo_epi32(rows[at], rows[at + 1]);
            pairs[at + 1] = _mm512_unpackhi_epi32(rows[at], rows[at + 1]);
        }
        // quads[4 g + w] has word w of rows 4 g to 4 g + 3, for each quarter of a row.
        let mut quads = pairs;
        for at in (0..16).step_by(4) {
            quads[at] = _mm512_unpacklo_epi64(pairs[at], pairs[at + 2]);
            quads[at + 1] = _mm512_unpackhi_epi64(pairs[at], pairs[at + 2]);
            quads[at + 2] = _mm512_unpacklo_epi64(pairs[at + 1], pairs[at + 3]);
            quads[at + 3] = _mm512_unpackhi_epi64(pairs[at + 1], pairs[at + 3]);
        }
        let mut words = quads;
        for word in 0..4 {
            let [q0, q1, q2, q3] =
                [quads[word], quads[4 + word], quads[8 + word], quads[12 + word]];
            let low = _mm512_shuffle_i32x4::<0x88>(q0, q1); // Quarters 0 and 2 of each.
            let high = _mm512_shuffle_i32x4::<0xdd>(q0, q1); // Quarters 1 and 3.
            let low_rest = _mm512_shuffle_i32x4::<0x88>(q2, q3);
            let high_rest = _mm512_shuffle_i32x4::<0xdd>(q2, q3);
            words[word] = _mm512_shuffle_i32x4::<0x88>(low, low_rest);
            words[4 + word] = _mm512_shuffle_i32x4::<0x88>(high, high_rest);
            words[8 + word] = _mm512_shuffle_i32x4::<0xdd>(low, low_rest);
            words[12 + word] = _mm512_shuffle_i32x4::<0xdd>(high, high_rest);
        }
        words
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn avx512(states: &mut [State; 16], inputs: &[&[u8]; 16]) {
    use sixteen as ops;
    let load = |words: [u32; 16]| {
        // SAFETY: an array of sixteen words is what the vector is.
        unsafe { std::mem::transmute::<[u32; 16], __m512i>(words) }
    };
    let mut state = [0, 1, 2, 3].map(|at| load(std::array::from_fn(|lane| states[lane][at])));
    for block in 0..inputs[0].len() / BLOCK {
        let rows: [__m512i; 16] = std::array::from_fn(|lane| {
            let bytes = inputs[lane][block * BLOCK..].first_chunk::<BLOCK>().expect("in step");
            // SAFETY: 64 bytes are there to be read, and the load asks for no alignment.
            unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
        });
        let words = ops::transpose(rows);
        let [mut a, mut b, mut c, mut d] = state;
        steps!(a b c d, words, ops);
        for (sum, word) in state.iter_mut().zip([a, b, c, d]) {
            *sum = _mm512_add_epi32(*sum, word);
        }
    }
    for (at, words) in state.into_iter().enumerate() {
        // SAFETY: as in `load`.
        let words = unsafe { std::mem::transmute::<__m512i, [u32; 16]>(words) };
        for (state, word) in states.iter_mut().zip(words) {
            state[at] = word;
        }
    }
}

/// Eight states on by the blocks of eight inputs; what a step does is in `$ops`.
#[cfg(target_arch = "x86_64")]
macro_rules! eight_lanes {
    ($states:ident, $inputs:ident, $ops:ident) => {
        let load = |words: [u32; 8]| {
            // SAFETY: an array of eight words is what the vector is.
            unsafe { std::mem::transmute::<[u32; 8], __m256i>(words) }
        };
        let mut state = [0, 1, 2, 3].map(|at| load(std::array::from_fn(|lane| $states[lane][at])));
        for block in 0..$inputs[0].len() / BLOCK {
            let half = |start: usize| {
                let rows: [__m256i; 8] = std::array::from_fn(|lane| {
                    let bytes = $inputs[lane][block * BLOCK + start..].first_chunk::<32>();
                    let bytes = bytes.expect("in step");
                    // SAFETY: 32 bytes are there to be read, and the load asks for no alignment.
                    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
                });
                rows
            };
            let (first, second) = (eight::transpose(half(0)), eight::transpose(half(32)));
            let words: [__m256i; 16] =
                std::array::from_fn(|at| if at < 8 { first[at] } else { second[at - 8] });
            let [mut a, mut b, mut c, mut d] = state;
            steps!(a b c d, words, $ops);
            for (sum, word) in state.iter_mut().zip([a, b, c, d]) {
                *sum = _mm256_add_epi32(*sum, word);
            }
        }
        for (at, words) in state.into_iter().enumerate() {
            // SAFETY: as in `load`.
            let words = unsafe { std::mem::transmute::<__m256i, [u32; 8]>(words) };
            for (state, word) in $states.iter_mut().zip(words) {
                state[at] = word;
            }
        }
    };
}

/// Words of eight lanes, with what AVX-512 has for them.
#[cfg(target_arch = "x86_64")]
mod half_of_sixteen {
    use super::*;

    avx512_ops!(
        "avx512f,avx512vl",
        __m256i,
        _mm256_ternarylogic_epi32,
        _mm256_add_epi32,
        _mm256_set1_epi32,
        _mm256_rol_epi32
    );
}

/// Words of eight lanes.
#[cfg(target_arch = "x86_64")]
mod eight {
    use super::*;

    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn f(x: __m256i, y: __m256i, z: __m256i) -> __m256i {
        _mm256_xor_si256(z, _mm256_and_si256(x, _mm256_xor_si256(y, z)))
    }
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn g(x: __m256i, y: __m256i, z: __m256i) -> __m256i {
        f(z, x, y)
    }
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn h(x: __m256i, y: __m256i, z: __m256i) -> __m256i {
        _mm256_xor_si256(x, _mm256_xor_si256(y, z))
    }
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn i(x: __m256i, y: __m256i, z: __m256i) -> __m256i {
        let not_z = _mm256_xor_si256(z, _mm256_set1_epi32(-1));
        _mm256_xor_si256(y, _mm256_or_si256(x, not_z))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn step<const R: i32>(
        mixed: __m256i,
        a: __m256i,
        b: __m256i,
        word: __m256i,
        sine: u32,
    ) -> __m256i {
        let known = _mm256_add_epi32(_mm256_add_epi32(a, word), _mm256_set1_epi32(sine as i32));
        let sum = _mm256_add_epi32(known, mixed);
        let left = _mm256_sll_epi32(sum, _mm_cvtsi32_si128(R));
        let right = _mm256_srl_epi32(sum, _mm_cvtsi32_si128(32 - R));
        _mm256_add_epi32(b, _mm256_or_si256(left, right))
    }

    /// Word `w` of row `r` becomes word `r` of row `w`.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn transpose(rows: [__m256i; 8]) -> [__m256i; 8] {
        let mut pairs = rows;
        for at in (0..8).step_by(2) {
            pairs[at] = _mm256_unpacklo_epi32(rows[at], rows[at + 1]);
            pairs[at + 1] = _mm256_unpackhi_epi32(rows[at], rows[at + 1]);
        }
        let mut quads = pairs;
        for at in (0..8).step_by(4) {
            quads[at] = _mm256_unpacklo_epi64(pairs[at], pairs[at + 2]);
            quads[at + 1] = _mm256_unpackhi_epi64(pairs[at], pairs[at + 2]);
            quads[at + 2] = _mm256_unpacklo_epi64(pairs[at + 1], pairs[at + 3]);
            quads[at + 3] = _mm256_unpackhi_epi64(pairs[at + 1], pairs[at + 3]);
        }
        let mut words = quads;
        for word in 0..4 {
            let (q0, q1) = (quads[word], quads[4 + word]);
            words[word] = _mm256_permute2x128_si256::<0x20>(q0, q1);
            words[4 + word] = _mm256_permute2x128_si256::<0x31>(q0, q1);
        }
        words
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl")]
fn avx512_half(states: &mut [State; 8], inputs: &[&[u8]; 8]) {
    eight_lanes!(states, inputs, half_of_sixteen);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn avx2(states: &mut [State; 8], inputs: &[&[u8]; 8]) {
    eight_lanes!(states, inputs, eight);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_does_what_the_reference_does_for_every_number_of_lanes() {
        for kernel in Kernel::all() {
            for lanes in 1..=kernel.lanes() {
                for blocks in [1, 2, 5] {
                    let data: Vec<Vec<u8>> = (0..lanes)
                        .map(|lane| {
                            let byte = |at: usize| (at * 31 + lane * 97 + at * at / 7) as u8;
                            (0..blocks * BLOCK).map(byte).collect()
                        })
                        .collect();
                    let inputs: Vec<&[u8]> = data.iter().map(Vec::as_slice).collect();
                    let start = |lane: u32| [lane, lane * 3 + 1, !lane, lane << 20];
                    let mut states: [State; LANES_MAX] =
                        std::array::from_fn(|lane| start(lane as u32));
                    kernel.run(&mut states, &inputs);
                    for (lane, input) in inputs.iter().enumerate() {
                        let mut expected = start(lane as u32);
                        one(&mut expected, input);
                        assert_eq!(states[lane], expected, "{kernel:?}, lane {lane} of {lanes}");
                    }
                }
            }
        }
    }
}

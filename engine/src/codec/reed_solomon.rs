//! Codec 1: Reed-Solomon over GF(2^16) by the crate reed-solomon-simd, at its *high rate*. The rate
//! is chosen here and not by the crate's default, because the two rates give different parity and
//! the crate's choice between them is a heuristic that may change. Parity is the same on every CPU.
//!
//! Decoding costs about 125 us a call, whatever the length: rebuild long pieces per call. It also
//! puts 128 KiB on the stack for that time.

use std::cell::RefCell;

use reed_solomon_simd::EncoderResult;
use reed_solomon_simd::engine::DefaultEngine;
use reed_solomon_simd::rate::{HighRateDecoder, HighRateEncoder, RateDecoder, RateEncoder};

use super::{Codec, PIECE_ALIGN_BYTES, TooFewPieces, check_rebuild};

#[derive(Debug)]
pub struct ReedSolomon;

type Encoder = HighRateEncoder<DefaultEngine>;
type Decoder = HighRateDecoder<DefaultEngine>;

thread_local! {
    // Kept from call to call: their work areas are reused while they are large enough.
    static ENCODER: RefCell<Option<Encoder>> = const { RefCell::new(None) };
    static DECODER: RefCell<Option<Decoder>> = const { RefCell::new(None) };
}

const SHAPE: &str = "the shape of the stripe was checked";

impl Codec for ReedSolomon {
    fn encode(&self, data: &[&[u8]], parity: &mut [&mut [u8]]) {
        let length_bytes = data.first().expect("at least one data piece").len();
        check_length(length_bytes);
        if parity.is_empty() {
            return;
        }
        with_parity(data.len(), parity.len(), length_bytes, data.iter().copied(), |encoded| {
            for (index, out) in parity.iter_mut().enumerate() {
                out.copy_from_slice(encoded.recovery(index).expect(SHAPE));
            }
        });
    }

    fn rebuild(
        &self,
        data_shards: usize,
        present: &[Option<&[u8]>],
        missing: &mut [(usize, &mut [u8])],
    ) -> Result<(), TooFewPieces> {
        let length_bytes = check_rebuild(data_shards, present, missing)?;
        check_length(length_bytes);
        let parity_shards = present.len() - data_shards;
        let (data, parity) = present.split_at(data_shards);
        let write_parity = |encoded: &EncoderResult<'_>, missing: &mut [(usize, &mut [u8])]| {
            for (shard, out) in missing.iter_mut().filter(|(shard, _)| *shard >= data_shards) {
                out.copy_from_slice(encoded.recovery(*shard - data_shards).expect(SHAPE));
            }
        };
        if missing.is_empty() {
            return Ok(());
        }
        if data.iter().all(Option::is_some) {
            let pieces = data.iter().flatten().copied();
            with_parity(data_shards, parity_shards, length_bytes, pieces, |encoded| {
                write_parity(encoded, missing);
            });
            return Ok(());
        }
        with_decoder(data_shards, parity_shards, length_bytes, |decoder| {
            for (index, piece) in data.iter().enumerate() {
                if let Some(piece) = piece {
                    decoder.add_original_shard(index, piece).expect(SHAPE);
                }
            }
            for (index, piece) in parity.iter().enumerate() {
                if let Some(piece) = piece {
                    decoder.add_recovery_shard(index, piece).expect(SHAPE);
                }
            }
            let decoded = decoder.decode().expect(SHAPE);
            for (shard, out) in missing.iter_mut().filter(|(shard, _)| *shard < data_shards) {
                out.copy_from_slice(decoded.restored_original(*shard).expect(SHAPE));
            }
            if missing.iter().any(|(shard, _)| *shard >= data_shards) {
                let pieces = data.iter().enumerate().map(|(index, piece)| {
                    piece.or_else(|| decoded.restored_original(index)).expect(SHAPE)
                });
                with_parity(data_shards, parity_shards, length_bytes, pieces, |encoded| {
                    write_parity(encoded, missing);
                });
            }
        });
        Ok(())
    }
}

fn check_length(length_bytes: usize) {
    let whole = length_bytes > 0 && length_bytes.is_multiple_of(PIECE_ALIGN_BYTES);
    assert!(whole, "a piece of {length_bytes} bytes");
}

fn with_parity<'a>(
    data_shards: usize,
    parity_shards: usize,
    length_bytes: usize,
    data: impl Iterator<Item = &'a [u8]>,
    take: impl FnOnce(&EncoderResult<'_>),
) {
    ENCODER.with_borrow_mut(|slot| {
        let encoder = match slot {
            Some(encoder) => {
                encoder.reset(data_shards, parity_shards, length_bytes).expect(SHAPE);
                encoder
            }
            None => slot.insert(
                Encoder::new(data_shards, parity_shards, length_bytes, DefaultEngine::new(), None)
                    .expect(SHAPE),
            ),
        };
        for piece in data {
            encoder.add_original_shard(piece).expect("pieces have equal lengths");
        }
        take(&encoder.encode().expect(SHAPE));
    });
}

fn with_decoder(
    data_shards: usize,
    parity_shards: usize,
    length_bytes: usize,
    work: impl FnOnce(&mut Decoder),
) {
    DECODER.with_borrow_mut(|slot| {
        let decoder = match slot {
            Some(decoder) => {
                decoder.reset(data_shards, parity_shards, length_bytes).expect(SHAPE);
                decoder
            }
            None => slot.insert(
                Decoder::new(data_shards, parity_shards, length_bytes, DefaultEngine::new(), None)
                    .expect(SHAPE),
            ),
        };
        work(decoder);
    });
}

#[cfg(test)]
mod tests {
    use reed_solomon_simd::engine::NoSimd;

    use super::*;
    use crate::checksum::crc64;

    /// A stripe of `k + m` pieces: data from a fixed sequence, parity computed.
    fn stripe(k: usize, m: usize, length_bytes: usize, seed: u64) -> Vec<Vec<u8>> {
        let mut state = seed;
        let mut next = move || {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            (state >> 56) as u8
        };
        let mut pieces: Vec<Vec<u8>> =
            (0..k).map(|_| (0..length_bytes).map(|_| next()).collect()).collect();
        pieces.resize(k + m, vec![0; length_bytes]);
        let (data, parity) = pieces.split_at_mut(k);
        let data: Vec<&[u8]> = data.iter().map(Vec::as_slice).collect();
        let mut parity: Vec<&mut [u8]> = parity.iter_mut().map(Vec::as_mut_slice).collect();
        ReedSolomon.encode(&data, &mut parity);
        pieces
    }

    /// Loses the shards of `lost` (a bit each) and rebuilds all of them.
    fn lose_and_rebuild(pieces: &[Vec<u8>], k: usize, lost: u32) {
        let is_lost = |shard: usize| lost >> shard & 1 == 1;
        let present: Vec<Option<&[u8]>> = pieces
            .iter()
            .enumerate()
            .map(|(shard, piece)| (!is_lost(shard)).then_some(piece.as_slice()))
            .collect();
        let mut outs: Vec<(usize, Vec<u8>)> = (0..pieces.len())
            .filter(|&shard| is_lost(shard))
            .map(|shard| (shard, vec![0xee; pieces[0].len()]))
            .collect();
        let mut missing: Vec<(usize, &mut [u8])> =
            outs.iter_mut().map(|(shard, out)| (*shard, out.as_mut_slice())).collect();
        let rebuilt = ReedSolomon.rebuild(k, &present, &mut missing);
        let survivors = present.iter().flatten().count();
        if survivors < k {
            assert_eq!(rebuilt, Err(TooFewPieces { present: survivors, needed: k }));
            return;
        }
        rebuilt.expect("enough pieces");
        for (shard, out) in &outs {
            assert!(*out == pieces[*shard], "{k} data, lost {lost:b}: shard {shard} differs");
        }
    }

    #[test]
    fn every_loss_is_rebuilt_in_small_sets() {
        for (k, m) in [(1, 1), (2, 1), (3, 1), (2, 2), (3, 2), (1, 3), (4, 4), (5, 3), (4, 2)] {
            for length_bytes in [64, 192, 4096] {
                let pieces = stripe(k, m, length_bytes, (k * m + length_bytes) as u64);
                for lost in 0..1u32 << (k + m) {
                    if lost.count_ones() as usize <= m + 1 {
                        lose_and_rebuild(&pieces, k, lost);
                    }
                }
            }
        }
    }

    #[test]
    fn drawn_losses_are_rebuilt_in_large_sets() {
        let mut state = 42u64;
        for (k, m) in [(12, 4), (8, 8), (14, 2), (10, 6), (9, 7), (15, 1), (7, 5), (1, 15)] {
            let pieces = stripe(k, m, 8192, 7);
            for _ in 0..60 {
                let mut lost = 0u32;
                for _ in 0..m {
                    state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                    lost |= 1 << ((state >> 33) as usize % (k + m));
                }
                lose_and_rebuild(&pieces, k, lost);
            }
        }
    }

    #[test]
    fn one_wanted_shard_and_a_byte_range_are_rebuilt_alone() {
        let pieces = stripe(4, 3, 4096, 11);
        let range = 1024..1024 + 192;
        for wanted in [1, 5] {
            let mut present: Vec<Option<&[u8]>> =
                pieces.iter().map(|piece| Some(&piece[range.clone()])).collect();
            (present[1], present[2], present[5]) = (None, None, None);
            let mut out = vec![0; range.len()];
            ReedSolomon.rebuild(4, &present, &mut [(wanted, &mut out)]).expect("four are left");
            assert_eq!(out, pieces[wanted][range.clone()]);
        }
    }

    #[test]
    fn parity_is_the_same_without_vector_instructions() {
        for (k, m) in [(2, 2), (7, 5), (12, 4)] {
            let pieces = stripe(k, m, 192, 3);
            let mut plain = HighRateEncoder::new(k, m, 192, NoSimd::new(), None).expect("a shape");
            for piece in &pieces[..k] {
                plain.add_original_shard(piece).expect("equal lengths");
            }
            let parity = plain.encode().expect("all pieces are there");
            assert!(parity.recovery_iter().eq(pieces[k..].iter().map(Vec::as_slice)), "{k}+{m}");
        }
    }

    #[test]
    fn parity_is_the_stored_format_and_never_changes() {
        let goldens = [
            (1, 1, 0x0c5f_0ef6_5f96_fcf2),
            (2, 1, 0x9a48_0f61_9f5e_74cb),
            (2, 2, 0xb4f9_297d_a2ba_2e14),
            (3, 1, 0x79a6_c933_fd94_a8e2),
            (4, 4, 0xf78f_6487_58d4_ea34),
            (7, 5, 0x5e74_964e_0044_1ee0),
            (8, 8, 0x4658_4d31_cd34_556b),
            (12, 4, 0x516a_7890_5510_e7e0),
            (1, 3, 0x97a1_75b4_06e0_993c),
            (14, 2, 0xf1f7_e7fe_0c50_eba4_u64),
        ];
        let computed = goldens
            .map(|(k, m, _)| (k, m, crc64(&stripe(k, m, 1088, 1000 + k as u64)[k..].concat())));
        assert_eq!(computed, goldens);
    }
}

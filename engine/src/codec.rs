//! Erasure codes: `k` data pieces and `m` parity pieces of equal length, any `k` of which give back
//! all the others. A piece is what one shard holds of one stripe.
//!
//! Codec numbers are stored in every record, and what a codec computes is part of the stored
//! format: a codec never changes, it gets a successor with another number. Golden hashes in the
//! tests hold each codec to it.
//!
//! All slices belong to the caller. Work areas belong to the core (they are thread-local), so that
//! a codec is a plain `&'static` anywhere.

mod copies;
mod reed_solomon;

pub use copies::Copies;
pub use reed_solomon::ReedSolomon;

/// Codec number of whole copies.
pub const COPIES: u8 = 0;
/// Codec number of Reed-Solomon over GF(2^16).
pub const REED_SOLOMON: u8 = 1;

/// Pieces of [`REED_SOLOMON`] are multiples of this many bytes: up to there, parity of a prefix is
/// the prefix of the parity, so that any aligned byte range of the pieces can be rebuilt alone.
pub const PIECE_ALIGN_BYTES: usize = 64;

/// Fewer than `data_shards` pieces are at hand.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{present} pieces are present of the {needed} that are needed")]
pub struct TooFewPieces {
    pub present: usize,
    pub needed: usize,
}

pub trait Codec: Sync {
    /// Computes the parity pieces of one stripe.
    fn encode(&self, data: &[&[u8]], parity: &mut [&mut [u8]]);

    /// Rebuilds pieces of one stripe (or the same byte range of all its pieces). `present[i]` is
    /// the piece of shard `i`, data shards first, parity after them. `missing` names the shards
    /// that are wanted, data or parity, and where to put them; shards that are neither present nor
    /// wanted are left alone.
    fn rebuild(
        &self,
        data_shards: usize,
        present: &[Option<&[u8]>],
        missing: &mut [(usize, &mut [u8])],
    ) -> Result<(), TooFewPieces>;
}

/// The codec of a stored codec number, if this version knows it.
pub fn codec_for(number: u8) -> Option<&'static dyn Codec> {
    match number {
        COPIES => Some(&Copies),
        REED_SOLOMON => Some(&ReedSolomon),
        _ => None,
    }
}

/// Asserts the shape of a call to [`Codec::rebuild`]; returns the piece length, or what is lacking.
fn check_rebuild(
    data_shards: usize,
    present: &[Option<&[u8]>],
    missing: &[(usize, &mut [u8])],
) -> Result<usize, TooFewPieces> {
    assert!((1..=present.len()).contains(&data_shards), "one entry for each shard");
    let count = present.iter().flatten().count();
    let Some(first) = present.iter().flatten().next().filter(|_| count >= data_shards) else {
        return Err(TooFewPieces { present: count, needed: data_shards });
    };
    assert!(present.iter().flatten().all(|piece| piece.len() == first.len()), "equal pieces");
    for (shard, out) in missing {
        assert!(present[*shard].is_none(), "shard {shard} is present and missing");
        assert_eq!(out.len(), first.len(), "equal pieces");
    }
    Ok(first.len())
}

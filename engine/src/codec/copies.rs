//! Codec 0: every shard is the whole payload. Pieces may have any length.

use super::{Codec, TooFewPieces, check_rebuild};

#[derive(Debug)]
pub struct Copies;

impl Codec for Copies {
    fn encode(&self, data: &[&[u8]], parity: &mut [&mut [u8]]) {
        let [original] = data else { panic!("copies have one data piece, not {}", data.len()) };
        for copy in parity {
            copy.copy_from_slice(original);
        }
    }

    fn rebuild(
        &self,
        data_shards: usize,
        present: &[Option<&[u8]>],
        missing: &mut [(usize, &mut [u8])],
    ) -> Result<(), TooFewPieces> {
        assert_eq!(data_shards, 1, "copies have one data piece");
        check_rebuild(data_shards, present, missing)?;
        let original = present.iter().flatten().next().expect("one copy was counted");
        for (_, out) in missing {
            out.copy_from_slice(original);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_copy_gives_back_all() {
        let original = b"seventeen bytes!!".as_slice();
        let (mut first, mut second) = ([0; 17], [0; 17]);
        Copies.encode(&[original], &mut [&mut first, &mut second]);
        assert_eq!((original, original), (&first[..], &second[..]));
        for survivor in 0..3 {
            let mut present = [None; 3];
            present[survivor] = Some(original);
            let mut outs = [[0; 17]; 3];
            let mut missing: Vec<_> = outs
                .iter_mut()
                .enumerate()
                .filter(|(shard, _)| *shard != survivor)
                .map(|(shard, out)| (shard, &mut out[..]))
                .collect();
            Copies.rebuild(1, &present, &mut missing).expect("one copy is enough");
            assert!(missing.iter().all(|(_, out)| *out == original));
        }
        let none = Copies.rebuild(1, &[None, None], &mut []);
        assert_eq!(none, Err(TooFewPieces { present: 0, needed: 1 }));
    }
}

//! Where a key lives: key -> partition -> set -> first drive. Stated for other implementations in
//! `docs/placement.md`.
//!
//! Invariant: these functions never change. Every object of every deployment is found by them, so
//! the golden vectors below hold for ever; another placement is another function beside these.

use std::hash::Hasher;

use basalt_engine::units::{DeploymentId, DriveIndex, SetIndex};
use siphasher::sip::SipHasher24;

/// The unit in which keys move between sets. A power of two, and for ever the same.
pub const PARTITIONS: u16 = 16_384;

/// One of the [`PARTITIONS`] that all keys fall into.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Partition(pub u16);

/// The partition of a key: the low 14 bits of its hash.
pub fn partition(deployment: DeploymentId, bucket: &str, key: &[u8]) -> Partition {
    let low = hash(deployment, bucket, key) % u64::from(PARTITIONS);
    Partition(u16::try_from(low).expect("below the number of partitions"))
}

/// The set of a partition as a deployment is formatted: each set has one run of partitions, and
/// their lengths differ by one at most.
pub fn set_of(partition: Partition, sets: usize) -> SetIndex {
    assert!((1..=usize::from(PARTITIONS)).contains(&sets), "{sets} sets");
    let set = usize::from(partition.0) * sets / usize::from(PARTITIONS);
    SetIndex(u16::try_from(set).expect("below the number of sets"))
}

/// The drive of the key's set that holds shard 0 of its payload; shard `i` is on the drive `i`
/// places further, round the end of the set.
///
/// Taken from the high 32 bits of the hash, which say nothing about the partition: so the keys of
/// each set begin equally often at each of its drives.
pub fn first_drive(
    deployment: DeploymentId,
    bucket: &str,
    key: &[u8],
    drives: usize,
) -> DriveIndex {
    assert!(drives > 0, "a set has a drive");
    let high = hash(deployment, bucket, key) >> 32;
    let first = (high * drives as u64) >> 32;
    DriveIndex(u8::try_from(first).expect("a set has at most sixteen drives"))
}

/// SipHash-2-4 over bucket, 0x00, key. The hash's key is the deployment id, its bytes in the order
/// in which a UUID is written. No bucket name holds 0x00, so no two keys have one message.
fn hash(deployment: DeploymentId, bucket: &str, key: &[u8]) -> u64 {
    let mut hasher = SipHasher24::new_with_key(&deployment.0.to_be_bytes());
    hasher.write(bucket.as_bytes());
    hasher.write(&[0]);
    hasher.write(key);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASCENDING: DeploymentId = DeploymentId(0x0001_0203_0405_0607_0809_0a0b_0c0d_0e0f);
    const RANDOM: DeploymentId = DeploymentId(0x6ba7_b810_9dad_11d1_80b4_00c0_4fd4_30c8);
    const ZERO: DeploymentId = DeploymentId(0);

    struct Golden {
        deployment: DeploymentId,
        bucket: &'static str,
        key: &'static [u8],
        hash: u64,
        partition: u16,
        /// The set, of 1, 2, 5 and 16 sets.
        sets: [u16; 4],
        /// The first drive, of 1, 4, 5, 12 and 16 drives.
        drives: [u8; 5],
    }

    /// Computed by an independent implementation. They never change.
    #[rustfmt::skip]
    const GOLDEN: [Golden; 10] = [
        Golden { deployment: ASCENDING, bucket: "a", key: b"",
            hash: 0xbfe4_0170_b993_de01, partition: 7681, sets: [0, 0, 2, 7], drives: [0, 2, 3, 8, 11] },
        Golden { deployment: ASCENDING, bucket: "photos", key: b"2024/summer/beach.jpg",
            hash: 0xb128_206f_2934_ac2c, partition: 11308, sets: [0, 1, 3, 11], drives: [0, 2, 3, 8, 11] },
        Golden { deployment: ASCENDING, bucket: "photos", key: b"a",
            hash: 0x4df0_f5f6_eaf3_19ce, partition: 6606, sets: [0, 0, 2, 6], drives: [0, 1, 1, 3, 4] },
        Golden { deployment: ASCENDING, bucket: "photos", key: b"a/b",
            hash: 0x6845_ca91_d5e1_8582, partition: 1410, sets: [0, 0, 0, 1], drives: [0, 1, 2, 4, 6] },
        Golden { deployment: ASCENDING, bucket: "lake", key: "straße/дом/水".as_bytes(),
            hash: 0x9712_d810_b3a7_811e, partition: 286, sets: [0, 0, 0, 0], drives: [0, 2, 2, 7, 9] },
        Golden { deployment: ASCENDING, bucket: "lake", key: b"\xff\x00\x01",
            hash: 0xbefd_8d77_b1a0_ffe8, partition: 16360, sets: [0, 1, 4, 15], drives: [0, 2, 3, 8, 11] },
        Golden { deployment: ASCENDING, bucket: "lake", key: &[b'x'; 1024],
            hash: 0x9053_cafa_e94c_5cd5, partition: 7381, sets: [0, 0, 2, 7], drives: [0, 2, 2, 6, 9] },
        Golden { deployment: RANDOM, bucket: "photos", key: b"2024/summer/beach.jpg",
            hash: 0x0e1d_8e1d_f3a0_3667, partition: 13927, sets: [0, 1, 4, 13], drives: [0, 0, 0, 0, 0] },
        Golden { deployment: RANDOM, bucket: "photos", key: b"a",
            hash: 0x02a2_beb6_1c2e_7e88, partition: 16008, sets: [0, 1, 4, 15], drives: [0, 0, 0, 0, 0] },
        Golden { deployment: ZERO, bucket: "photos", key: b"a",
            hash: 0x3e7a_c858_e9b7_6d32, partition: 11570, sets: [0, 1, 3, 11], drives: [0, 0, 1, 2, 3] },
    ];

    #[test]
    fn golden_vectors_hold() {
        for golden in &GOLDEN {
            let (deployment, bucket, key) = (golden.deployment, golden.bucket, golden.key);
            let name = format!("{deployment} {bucket}/{}", key.escape_ascii());
            assert_eq!(hash(deployment, bucket, key), golden.hash, "hash of {name}");
            let partition = partition(deployment, bucket, key);
            assert_eq!(partition.0, golden.partition, "partition of {name}");
            let sets = [1, 2, 5, 16].map(|sets| set_of(partition, sets).0);
            assert_eq!(sets, golden.sets, "sets of {name}");
            let drives = [1, 4, 5, 12, 16].map(|n| first_drive(deployment, bucket, key, n).0);
            assert_eq!(drives, golden.drives, "first drives of {name}");
        }
    }

    #[test]
    fn each_set_has_one_run_of_partitions_of_equal_length() {
        for sets in [1, 2, 3, 5, 7, 16, 100, 16_383, 16_384] {
            let mut lengths = vec![0usize; sets];
            let mut before = SetIndex(0);
            for number in 0..PARTITIONS {
                let set = set_of(Partition(number), sets);
                assert!(set >= before, "partition {number} of {sets} sets goes back");
                before = set;
                lengths[usize::from(set.0)] += 1;
            }
            let shortest = lengths.iter().min().expect("a set");
            let longest = lengths.iter().max().expect("a set");
            assert!(longest - shortest <= 1 && *shortest > 0, "{sets} sets: {shortest}..{longest}");
        }
    }

    #[test]
    fn within_each_set_keys_begin_equally_often_at_each_drive() {
        const SETS: usize = 4;
        for drives in [2usize, 3, 5, 12, 16] {
            let mut counts = vec![vec![0u32; drives]; SETS];
            for number in 0..96_000 {
                let key = format!("log/{number}").into_bytes();
                let set = set_of(partition(RANDOM, "uniform", &key), SETS);
                let first = first_drive(RANDOM, "uniform", &key, drives);
                counts[usize::from(set.0)][usize::from(first.0)] += 1;
            }
            let even = 96_000.0 / (SETS * drives) as f64;
            for count in counts.iter().flatten() {
                // Five standard deviations; the keys are fixed, so this cannot flicker.
                let off = (f64::from(*count) - even).abs();
                assert!(off < 5.0 * even.sqrt(), "{drives} drives: {counts:?}");
            }
        }
    }

    #[test]
    fn bucket_and_key_do_not_run_into_each_other() {
        assert_ne!(hash(ZERO, "ab", b"c"), hash(ZERO, "a", b"bc"));
    }
}

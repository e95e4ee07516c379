//! Checksums of a multipart object, from its parts' checksums: of all bytes where the algorithm can
//! be combined (the CRCs), or of the parts' checksums one after the other (S3's COMPOSITE).
//!
//! Combining follows zlib's `crc32_combine`: the CRC of a concatenation is the first CRC multiplied
//! by x^(8 n), n the length of the second in bytes, plus the second, modulo the polynomial.

use crc_fast::{CrcAlgorithm, checksum as crc};
use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::api::{Algorithm, Checksum, UploadChecksum};

/// The object's checksum from its parts' sizes and checksums; `None` if a part has none of the kind.
pub(super) fn of_parts(kind: UploadChecksum, parts: &[(u64, Vec<Checksum>)]) -> Option<Checksum> {
    let algorithm = kind.algorithm;
    let values: Vec<(u64, &[u8])> = parts
        .iter()
        .map(|(size, kept)| {
            let ours = kept.iter().find(|checksum| checksum.algorithm == algorithm)?;
            Some((*size, ours.value.as_slice()))
        })
        .collect::<Option<_>>()?;
    let value = if kind.composite {
        let all: Vec<u8> = values.iter().flat_map(|(_, value)| value.iter().copied()).collect();
        plain(algorithm, &all)
    } else {
        combined(algorithm, &values)?
    };
    Some(Checksum { algorithm, value, composite: kind.composite })
}

fn plain(algorithm: Algorithm, bytes: &[u8]) -> Vec<u8> {
    let crc32 = |kind| u32::try_from(crc(kind, bytes)).expect("32 bits").to_be_bytes().to_vec();
    match algorithm {
        Algorithm::Crc32 => crc32(CrcAlgorithm::Crc32IsoHdlc),
        Algorithm::Crc32c => crc32(CrcAlgorithm::Crc32Iscsi),
        Algorithm::Crc64Nvme => crc(CrcAlgorithm::Crc64Nvme, bytes).to_be_bytes().to_vec(),
        Algorithm::Sha1 => Sha1::digest(bytes).to_vec(),
        Algorithm::Sha256 => Sha256::digest(bytes).to_vec(),
    }
}

fn combined(algorithm: Algorithm, values: &[(u64, &[u8])]) -> Option<Vec<u8>> {
    let field = match algorithm {
        Algorithm::Crc32 => Field { poly: 0xedb8_8320, width: 32 },
        Algorithm::Crc32c => Field { poly: 0x82f6_3b78, width: 32 },
        Algorithm::Crc64Nvme => Field { poly: 0x9a6c_9329_ac4b_c9b5, width: 64 },
        Algorithm::Sha1 | Algorithm::Sha256 => return None,
    };
    let mut whole = 0;
    for (size, value) in values {
        let value = value.iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
        whole = field.multiply(whole, field.power_of_x(8 * u128::from(*size))) ^ value;
    }
    let bytes = whole.to_be_bytes();
    Some(bytes[8 - algorithm.length_bytes()..].to_vec())
}

/// Polynomials over GF(2) modulo a CRC's, bit-reflected: the highest bit is x^0.
#[derive(Clone, Copy)]
struct Field {
    poly: u64,
    width: u32,
}

impl Field {
    fn one(self) -> u64 {
        1 << (self.width - 1)
    }

    fn multiply(self, mut a: u64, mut b: u64) -> u64 {
        let mut product = 0;
        let mut bit = self.one();
        while a != 0 {
            if a & bit != 0 {
                product ^= b;
                a ^= bit;
            }
            bit >>= 1;
            b = if b & 1 == 1 { b >> 1 ^ self.poly } else { b >> 1 };
        }
        product
    }

    /// x to the power `exponent`, by squaring.
    fn power_of_x(self, mut exponent: u128) -> u64 {
        let mut power = self.one();
        let mut square = self.one() >> 1;
        while exponent != 0 {
            if exponent & 1 == 1 {
                power = self.multiply(power, square);
            }
            square = self.multiply(square, square);
            exponent >>= 1;
        }
        power
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn combining_the_parts_gives_the_checksum_of_the_whole() {
        let whole: Vec<u8> = (0..100_003u32).map(|i| (i * 7 + i / 251) as u8).collect();
        for algorithm in [Algorithm::Crc32, Algorithm::Crc32c, Algorithm::Crc64Nvme] {
            for cut in [0, 1, 4096, 50_000, 100_002, 100_003] {
                let (one, two) = whole.split_at(cut);
                let part = |bytes: &[u8]| {
                    let value = plain(algorithm, bytes);
                    (bytes.len() as u64, vec![Checksum { algorithm, value, composite: false }])
                };
                let kind = UploadChecksum { algorithm, composite: false };
                let combined = of_parts(kind, &[part(one), part(two)]).expect("combines");
                assert_eq!(combined.value, plain(algorithm, &whole), "{algorithm:?} at {cut}");
            }
        }
    }

    #[test]
    fn a_composite_is_the_checksum_of_the_parts_checksums() {
        let algorithm = Algorithm::Sha256;
        let value = |byte| vec![byte; 32];
        let part = |byte| (1, vec![Checksum { algorithm, value: value(byte), composite: false }]);
        let kind = UploadChecksum { algorithm, composite: true };
        let composite = of_parts(kind, &[part(1), part(2)]).expect("is there");
        assert_eq!(composite.value, plain(algorithm, &[value(1), value(2)].concat()));
        assert!(of_parts(UploadChecksum { composite: false, ..kind }, &[part(1)]).is_none());
    }
}

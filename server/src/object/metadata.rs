//! How S3's headers and checksums rest in a record: `Record::metadata` and `Record::checksums`.
//! Byte by byte in `docs/format.md`, "Object metadata".
//!
//! Metadata: for each header, name length (u16), value length (u16), name, value; little-endian.
//! Checksums: for each, algorithm (u8), composite (u8, 0 or 1), then the value, whose length the
//! algorithm gives.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::api::{Algorithm, Checksum, Metadata};

pub(super) fn encode_metadata(metadata: &Metadata) -> Bytes {
    let length = metadata.iter().map(|(name, value)| 4 + name.len() + value.len()).sum();
    let mut out = BytesMut::with_capacity(length);
    for (name, value) in metadata {
        out.put_u16_le(u16::try_from(name.len()).expect("header names are short"));
        out.put_u16_le(u16::try_from(value.len()).expect("header values are limited"));
        out.put_slice(name.as_bytes());
        out.put_slice(value.as_bytes());
    }
    out.freeze()
}

/// What [`encode_metadata`] wrote; `None` if the bytes are anything else.
pub(super) fn decode_metadata(mut bytes: Bytes) -> Option<Metadata> {
    let mut metadata = Metadata::new();
    while bytes.has_remaining() {
        let name = usize::from(bytes.try_get_u16_le().ok()?);
        let value = usize::from(bytes.try_get_u16_le().ok()?);
        if bytes.remaining() < name + value {
            return None;
        }
        let name = String::from_utf8(bytes.split_to(name).to_vec()).ok()?;
        let value = String::from_utf8(bytes.split_to(value).to_vec()).ok()?;
        metadata.push((name, value));
    }
    Some(metadata)
}

pub(super) fn encode_checksums(checksums: &[Checksum]) -> Bytes {
    let mut out = BytesMut::new();
    for checksum in checksums {
        assert_eq!(checksum.value.len(), checksum.algorithm.length_bytes());
        out.put_u8(checksum.algorithm as u8);
        out.put_u8(u8::from(checksum.composite));
        out.put_slice(&checksum.value);
    }
    out.freeze()
}

/// What [`encode_checksums`] wrote; `None` if the bytes are anything else.
pub(super) fn decode_checksums(mut bytes: Bytes) -> Option<Vec<Checksum>> {
    let mut checksums = Vec::new();
    while bytes.has_remaining() {
        let number = bytes.try_get_u8().ok()?;
        let algorithm = Algorithm::ALL.into_iter().find(|known| *known as u8 == number)?;
        let composite = match bytes.try_get_u8().ok()? {
            0 => false,
            1 => true,
            _ => return None,
        };
        if bytes.remaining() < algorithm.length_bytes() {
            return None;
        }
        let value = bytes.split_to(algorithm.length_bytes()).to_vec();
        checksums.push(Checksum { algorithm, value, composite });
    }
    Some(checksums)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_and_checksums_come_back_as_they_were() {
        let metadata = vec![
            ("content-type".to_owned(), "text/plain".to_owned()),
            ("x-amz-meta-empty".to_owned(), String::new()),
        ];
        assert_eq!(decode_metadata(encode_metadata(&metadata)), Some(metadata));
        let checksums: Vec<_> = Algorithm::ALL
            .into_iter()
            .map(|algorithm| Checksum {
                algorithm,
                value: vec![7; algorithm.length_bytes()],
                composite: algorithm == Algorithm::Sha1,
            })
            .collect();
        assert_eq!(decode_checksums(encode_checksums(&checksums)), Some(checksums));
    }

    #[test]
    fn cut_bytes_are_refused() {
        let bytes = encode_metadata(&vec![("a".to_owned(), "bc".to_owned())]);
        for length in 1..bytes.len() {
            assert_eq!(decode_metadata(bytes.slice(..length)), None);
        }
        let sums = encode_checksums(&[Checksum {
            algorithm: Algorithm::Crc32,
            value: vec![1; 4],
            composite: false,
        }]);
        for length in 1..sums.len() {
            assert_eq!(decode_checksums(sums.slice(..length)), None);
        }
    }
}

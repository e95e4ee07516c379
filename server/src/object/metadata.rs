//! How S3's headers, tags and checksums rest in a record: `Record::metadata` and
//! `Record::checksums`. Byte by byte in `docs/format.md`, "Object metadata".
//!
//! Metadata: pairs, each name length (u16), value length (u16), name, value; little-endian. A pair
//! is a header, or a tag where its name begins with `tag:`, which no header's name can.
//! Checksums: for each, algorithm (u8), composite (u8, 0 or 1), then the value, whose length the
//! algorithm gives. The number 255 ends them: what follows is the part table.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::api::{Algorithm, Checksum, Metadata, Tags};

const TAG_PREFIX: &str = "tag:";
/// In the place of an algorithm: the part table follows.
const PARTS_FOLLOW: u8 = 255;

pub(super) fn encode_metadata(metadata: &Metadata, tags: &Tags) -> Bytes {
    let mut out = BytesMut::new();
    for (name, value) in metadata {
        assert!(!name.contains(':'), "a header's name has no colon");
        put_pair("", name, value, &mut out);
    }
    for (key, value) in tags {
        put_pair(TAG_PREFIX, key, value, &mut out);
    }
    out.freeze()
}

fn put_pair(prefix: &str, name: &str, value: &str, out: &mut BytesMut) {
    out.put_u16_le(u16::try_from(prefix.len() + name.len()).expect("names are short"));
    out.put_u16_le(u16::try_from(value.len()).expect("values are limited"));
    out.put_slice(prefix.as_bytes());
    out.put_slice(name.as_bytes());
    out.put_slice(value.as_bytes());
}

/// What [`encode_metadata`] wrote; `None` if the bytes are anything else.
pub(super) fn decode_metadata(bytes: Bytes) -> Option<(Metadata, Tags)> {
    let (mut metadata, mut tags) = (Metadata::new(), Tags::new());
    for (name, value) in decode_pairs(bytes)? {
        match name.strip_prefix(TAG_PREFIX) {
            Some(key) => tags.push((key.to_owned(), value)),
            None => metadata.push((name, value)),
        }
    }
    Some((metadata, tags))
}

/// `None` if the bytes are not pairs.
fn decode_pairs(mut bytes: Bytes) -> Option<Vec<(String, String)>> {
    let mut pairs = Vec::new();
    while bytes.has_remaining() {
        let name = usize::from(bytes.try_get_u16_le().ok()?);
        let value = usize::from(bytes.try_get_u16_le().ok()?);
        if bytes.remaining() < name + value {
            return None;
        }
        let name = String::from_utf8(bytes.split_to(name).to_vec()).ok()?;
        let value = String::from_utf8(bytes.split_to(value).to_vec()).ok()?;
        pairs.push((name, value));
    }
    Some(pairs)
}

/// Checksums, then the part table of an object in parts.
pub(super) fn encode_checksums_and_parts(checksums: &[Checksum], parts: &Bytes) -> Bytes {
    let mut out = BytesMut::from(encode_checksums(checksums));
    out.put_u8(PARTS_FOLLOW);
    out.put_slice(parts);
    out.freeze()
}

/// The part table behind the checksums; `None` if there is none.
pub(super) fn parts_in(mut checksums: Bytes) -> Option<Bytes> {
    loop {
        match take_checksum(&mut checksums)? {
            Some(_) => {}
            None => return Some(checksums),
        }
    }
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
        match take_checksum(&mut bytes)? {
            Some(checksum) => checksums.push(checksum),
            None => break,
        }
    }
    Some(checksums)
}

/// The next checksum; `Some(None)` where the part table begins, `None` if neither is there.
fn take_checksum(bytes: &mut Bytes) -> Option<Option<Checksum>> {
    let number = bytes.try_get_u8().ok()?;
    if number == PARTS_FOLLOW {
        return Some(None);
    }
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
    Some(Some(Checksum { algorithm, value, composite }))
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
        let tags = vec![("a:b".to_owned(), "c".to_owned()), ("".to_owned(), "é".to_owned())];
        let decoded = decode_metadata(encode_metadata(&metadata, &tags));
        assert_eq!(decoded, Some((metadata, tags)));
        let checksums: Vec<_> = Algorithm::ALL
            .into_iter()
            .map(|algorithm| Checksum {
                algorithm,
                value: vec![7; algorithm.length_bytes()],
                composite: algorithm == Algorithm::Sha1,
            })
            .collect();
        assert_eq!(decode_checksums(encode_checksums(&checksums)), Some(checksums.clone()));
        assert_eq!(parts_in(encode_checksums(&checksums)), None);
        let parts = Bytes::from_static(b"table");
        let both = encode_checksums_and_parts(&checksums, &parts);
        assert_eq!(decode_checksums(both.clone()), Some(checksums));
        assert_eq!(parts_in(both), Some(parts));
    }

    #[test]
    fn cut_bytes_are_refused() {
        let bytes = encode_metadata(&vec![("a".to_owned(), "bc".to_owned())], &Vec::new());
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

//! What a completed upload remembers of its parts: numbers, sizes and checksums. It stands behind
//! the checksums in the object's record, or in the manifest where there is one. Byte by byte in
//! `docs/format.md`, "Part table": algorithm (u8, 0: none), zero (u8), count (u16), then for each
//! part its number (u16), size (u64), and checksum, whose length the algorithm gives.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::api::{Algorithm, Checksum, ObjectPart, Span};

/// One part as the table has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct PartEntry {
    pub number: u32,
    pub size: u64,
    pub checksum: Option<Checksum>,
}

/// Checksums are kept only where every part has one of the same algorithm.
pub(super) fn encode(parts: &[PartEntry]) -> Bytes {
    let algorithm = common_algorithm(parts);
    let mut out = BytesMut::new();
    out.put_u8(algorithm.map_or(0, |algorithm| algorithm as u8));
    out.put_u8(0);
    out.put_u16_le(u16::try_from(parts.len()).expect("at most ten thousand parts"));
    for part in parts {
        out.put_u16_le(u16::try_from(part.number).expect("part numbers are checked"));
        out.put_u64_le(part.size);
        if let (Some(_), Some(checksum)) = (algorithm, &part.checksum) {
            out.put_slice(&checksum.value);
        }
    }
    out.freeze()
}

fn common_algorithm(parts: &[PartEntry]) -> Option<Algorithm> {
    let of = |part: &PartEntry| part.checksum.as_ref().map(|checksum| checksum.algorithm);
    let first = of(parts.first()?)?;
    parts.iter().all(|part| of(part) == Some(first)).then_some(first)
}

/// What [`encode`] wrote, with where each part stands in the object; `None` if the bytes are
/// anything else.
pub(super) fn decode(mut bytes: Bytes) -> Option<Vec<ObjectPart>> {
    let number = bytes.try_get_u8().ok()?;
    let algorithm = match number {
        0 => None,
        _ => Some(Algorithm::ALL.into_iter().find(|known| *known as u8 == number)?),
    };
    let _zero = bytes.try_get_u8().ok()?;
    let count = usize::from(bytes.try_get_u16_le().ok()?);
    let entry_bytes = 10 + algorithm.map_or(0, Algorithm::length_bytes);
    if bytes.len() != count * entry_bytes {
        return None;
    }
    let mut parts = Vec::with_capacity(count);
    let mut start = 0u64;
    for _ in 0..count {
        let number = u32::from(bytes.get_u16_le());
        let end = start.checked_add(bytes.get_u64_le())?;
        let checksums = algorithm.map(|algorithm| Checksum {
            algorithm,
            value: bytes.split_to(algorithm.length_bytes()).to_vec(),
            composite: false,
        });
        let checksums = checksums.into_iter().collect();
        parts.push(ObjectPart { number, span: Span { start, end }, checksums });
        start = end;
    }
    Some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: u32, size: u64, checksum: bool) -> PartEntry {
        let algorithm = Algorithm::Crc32;
        let checksum = checksum.then(|| Checksum {
            algorithm,
            value: vec![number as u8; 4],
            composite: false,
        });
        PartEntry { number, size, checksum }
    }

    #[test]
    fn parts_come_back_with_their_places() {
        let parts = decode(encode(&[entry(1, 10, true), entry(7, 0, true)])).expect("decodes");
        assert_eq!(parts[0].span, Span { start: 0, end: 10 });
        assert_eq!((parts[1].number, parts[1].span), (7, Span { start: 10, end: 10 }));
        assert_eq!(parts[1].checksums[0].value, [7; 4]);
        let mixed = decode(encode(&[entry(1, 10, true), entry(2, 5, false)])).expect("decodes");
        assert!(mixed.iter().all(|part| part.checksums.is_empty()));
    }

    #[test]
    fn cut_tables_are_refused() {
        let bytes = encode(&[entry(1, 10, true), entry(2, 5, true)]);
        for length in 0..bytes.len() {
            assert_eq!(decode(bytes.slice(..length)), None, "{length}");
        }
    }
}

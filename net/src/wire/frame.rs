//! Frames: a fixed header, a body, and payload in whole blocks. docs/wire.md has the table.

use basalt_engine::checksum::crc64;
use basalt_engine::units::BLOCK_BYTES;

use super::Malformed;

pub const HEADER_BYTES: usize = 40;
/// Longest body: a page of a listing with the longest keys and records stays below it.
pub const BODY_BYTES_MAX: usize = 32 << 20;
/// Longest payload: a full run with its checksums for each drive of the largest set.
pub const PAYLOAD_BYTES_MAX: usize = 16 * 257 * BLOCK_BYTES;

const HEADER_CRC_AT: usize = HEADER_BYTES - 8;

/// What a frame is. The numbers are sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    /// Requests to the drives of one set.
    Ask = 1,
    /// What drives answered.
    Answers = 2,
    /// The sender lives. Has neither body nor payload.
    Alive = 3,
    /// A question to the node itself, and its answer.
    Call = 4,
    CallAnswer = 5,
}

impl Kind {
    fn of(number: u8) -> Option<Self> {
        [Self::Ask, Self::Answers, Self::Alive, Self::Call, Self::CallAnswer]
            .into_iter()
            .find(|kind| *kind as u8 == number)
    }
}

/// What stands before a frame's body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    pub kind: Kind,
    /// The version of the messages: the one that the handshake agreed upon.
    pub version: u8,
    pub body_bytes: u32,
    pub payload_bytes: u32,
    pub body_crc: u64,
    pub payload_crc: u64,
}

impl Header {
    /// The header of a frame with this body and this payload.
    pub fn of(
        kind: Kind,
        version: u8,
        body: &[u8],
        payload_bytes: usize,
        payload_crc: u64,
    ) -> Self {
        assert!(body.len() <= BODY_BYTES_MAX, "a body of {} bytes", body.len());
        assert!(payload_bytes <= PAYLOAD_BYTES_MAX, "a payload of {payload_bytes} bytes");
        assert!(payload_bytes.is_multiple_of(BLOCK_BYTES), "payload comes in whole blocks");
        Self {
            kind,
            version,
            body_bytes: body.len() as u32,
            payload_bytes: payload_bytes as u32,
            body_crc: crc64(body),
            payload_crc,
        }
    }

    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..4].copy_from_slice(&self.body_bytes.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.payload_bytes.to_le_bytes());
        bytes[8] = self.kind as u8;
        bytes[9] = self.version;
        bytes[16..24].copy_from_slice(&self.body_crc.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.payload_crc.to_le_bytes());
        let crc = crc64(&bytes[..HEADER_CRC_AT]);
        bytes[HEADER_CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// `version` is what the handshake agreed upon.
    pub fn decode(bytes: &[u8; HEADER_BYTES], version: u8) -> Result<Self, Malformed> {
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four"));
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight"));
        if crc64(&bytes[..HEADER_CRC_AT]) != u64_at(HEADER_CRC_AT) {
            return Err(Malformed("the checksum of a frame's header"));
        }
        let header = Self {
            kind: Kind::of(bytes[8]).ok_or(Malformed("the kind of a frame"))?,
            version: bytes[9],
            body_bytes: u32_at(0),
            payload_bytes: u32_at(4),
            body_crc: u64_at(16),
            payload_crc: u64_at(24),
        };
        if header.version != version {
            return Err(Malformed("a frame of another version"));
        }
        if header.body_bytes as usize > BODY_BYTES_MAX {
            return Err(Malformed("a frame's body is too long"));
        }
        let payload_bytes = header.payload_bytes as usize;
        if payload_bytes > PAYLOAD_BYTES_MAX || !payload_bytes.is_multiple_of(BLOCK_BYTES) {
            return Err(Malformed("the length of a frame's payload"));
        }
        Ok(header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header::of(Kind::Ask, 1, b"123456789", 8192, 0x0102_0304_0506_0708)
    }

    /// As docs/wire.md has it.
    #[test]
    fn the_bytes_of_a_header() {
        #[rustfmt::skip]
        let expected = [
            9, 0, 0, 0,  0, 0x20, 0, 0,  1, 1, 0, 0, 0, 0, 0, 0,
            // CRC-64/NVME of "123456789".
            0x88, 0x98, 0x79, 0x0a, 0x86, 0x14, 0x8b, 0xae,
            8, 7, 6, 5, 4, 3, 2, 1,
        ];
        let bytes = header().encode();
        assert_eq!(bytes[..32], expected, "{:02x?}", &bytes[..32]);
        assert_eq!(Header::decode(&bytes, 1), Ok(header()));
    }

    #[test]
    fn a_changed_bit_is_noticed() {
        for bit in 0..HEADER_BYTES * 8 {
            let mut bytes = header().encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Header::decode(&bytes, 1).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn lengths_beyond_the_limits_are_refused() {
        for (body_bytes, payload_bytes) in [(u32::MAX, 0), (0, u32::MAX), (0, 100)] {
            let bytes = Header { body_bytes, payload_bytes, ..header() }.encode();
            assert!(Header::decode(&bytes, 1).is_err());
        }
        assert!(Header::decode(&header().encode(), 2).is_err(), "another version");
    }
}

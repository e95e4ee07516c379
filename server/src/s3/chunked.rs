//! Decodes aws-chunked bodies as a stream, without copying what they carry and in bounded memory.
//!
//! A chunk is `SIZE[;chunk-signature=HEX]\r\n`, its bytes, `\r\n`; a chunk of size 0 comes last,
//! then trailers, then an empty line. A trailer may end in LF CR LF, as S3's documentation has it and
//! minio-go sends it; every other line ends in CR LF. Bytes are passed on before their chunk's signature was
//! checked: nobody may act on them before [`Decoder::finish`] said that all of it holds.
//!
//! An error is final: the decoder answers the same error from then on.

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::sigv4::{ChunkChain, parse_sha256};
use super::target::hex_digit;
use crate::object::error::SourceError;

/// Longest line before a chunk: 16 digits and a signature are 97 bytes.
const LINE_BYTES_MAX: usize = 128;
/// Longest line of a trailer, and how many there may be.
const TRAILER_BYTES_MAX: usize = 1024;
const TRAILERS_MAX: usize = 8;

const TRAILER_SIGNATURE: &str = "x-amz-trailer-signature";

type Result<T> = std::result::Result<T, SourceError>;

pub(super) struct Decoder {
    state: State,
    /// A line that is not complete yet.
    line: Vec<u8>,
    /// Decoded bytes that are still to come, as x-amz-decoded-content-length says.
    remaining: u64,
    signed: Option<SignedChunk>,
    with_trailers: bool,
    trailers: Vec<(String, String)>,
    /// The last trailer ended in a bare LF, so that the next empty line is the rest of its end.
    trailer_end_due: bool,
}

/// A whole line without its end.
struct Line {
    text: Vec<u8>,
    ends_in_crlf: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Size,
    Data {
        left: u64,
    },
    /// The line end after a chunk's bytes.
    DataEnd,
    Trailers,
    Done,
    Failed(SourceError),
}

/// The chain, and the chunk that is passing.
struct SignedChunk {
    chain: ChunkChain,
    hash: Sha256,
    signature: [u8; 32],
}

impl Decoder {
    /// `chain` where chunks are signed; `length` is what the body must decode to.
    pub(super) fn new(chain: Option<ChunkChain>, with_trailers: bool, length: u64) -> Self {
        let signed =
            chain.map(|chain| SignedChunk { chain, hash: Sha256::new(), signature: [0; 32] });
        Self {
            state: State::Size,
            line: Vec::new(),
            remaining: length,
            signed,
            with_trailers,
            trailers: Vec::new(),
            trailer_end_due: false,
        }
    }

    /// Takes from `input` up to the next decoded bytes; `None` once it has taken all of `input`.
    pub(super) fn decode(&mut self, input: &mut Bytes) -> Result<Option<Bytes>> {
        let outcome = self.advance(input);
        if let Err(error) = &outcome {
            self.state = State::Failed(error.clone());
        }
        outcome
    }

    /// Succeeds if the body was complete and every signature in it verified.
    pub(super) fn finish(&self) -> Result<()> {
        match &self.state {
            State::Done => Ok(()),
            State::Failed(error) => Err(error.clone()),
            State::Size | State::Data { .. } | State::DataEnd | State::Trailers => {
                Err(SourceError::Incomplete)
            }
        }
    }

    /// The trailers, but for their signature: names in lower case.
    pub(super) fn trailers(&self) -> &[(String, String)] {
        &self.trailers
    }

    fn advance(&mut self, input: &mut Bytes) -> Result<Option<Bytes>> {
        while !input.is_empty() {
            match self.state {
                State::Data { left } => return self.data(input, left).map(Some),
                State::Size => {
                    if let Some(line) = self.take_line(input, LINE_BYTES_MAX)? {
                        self.begin_chunk(line.strict()?)?;
                    }
                }
                State::DataEnd => {
                    if let Some(line) = self.take_line(input, 2)? {
                        self.end_chunk(line.strict()?)?;
                    }
                }
                State::Trailers => {
                    if let Some(line) = self.take_line(input, TRAILER_BYTES_MAX)? {
                        self.trailer(&line)?;
                    }
                }
                State::Done => return Err(SourceError::Malformed("bytes after the last chunk")),
                State::Failed(ref error) => return Err(error.clone()),
            }
        }
        Ok(None)
    }

    fn data(&mut self, input: &mut Bytes, left: u64) -> Result<Bytes> {
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
        let data = input.split_to(length);
        if let Some(signed) = &mut self.signed {
            signed.hash.update(&data);
        }
        self.state = match left - length as u64 {
            0 => State::DataEnd,
            left => State::Data { left },
        };
        Ok(data)
    }

    fn begin_chunk(&mut self, line: &[u8]) -> Result<()> {
        let size_digits = line.iter().position(|&byte| byte == b';').unwrap_or(line.len());
        let (size, extension) = line.split_at(size_digits);
        let size = parse_size(size)?;
        match &mut self.signed {
            Some(signed) => {
                let signature = extension.strip_prefix(b";chunk-signature=");
                signed.signature = signature
                    .and_then(parse_sha256)
                    .ok_or(SourceError::Malformed("a chunk without its signature"))?;
            }
            // An extension that nobody checks says that the client and this server do not agree
            // on what protects the body.
            None if !extension.is_empty() => {
                return Err(SourceError::Malformed("a signature on an unsigned chunk"));
            }
            None => {}
        }
        self.remaining = self.remaining.checked_sub(size).ok_or(SourceError::TooLong)?;
        if size > 0 {
            self.state = State::Data { left: size };
            return Ok(());
        }
        if self.remaining > 0 {
            return Err(SourceError::Incomplete);
        }
        self.verify_chunk()?;
        self.state = State::Trailers;
        Ok(())
    }

    fn end_chunk(&mut self, line: &[u8]) -> Result<()> {
        if !line.is_empty() {
            return Err(SourceError::Malformed("a chunk is longer than its size"));
        }
        self.verify_chunk()?;
        self.state = State::Size;
        Ok(())
    }

    fn verify_chunk(&mut self) -> Result<()> {
        let Some(signed) = &mut self.signed else { return Ok(()) };
        let hash = signed.hash.finalize_reset();
        if signed.chain.chunk(&hash.into(), &signed.signature) {
            Ok(())
        } else {
            Err(SourceError::ChunkSignatureMismatch)
        }
    }

    fn trailer(&mut self, line: &Line) -> Result<()> {
        if line.text.is_empty() {
            line.strict()?;
            return match std::mem::take(&mut self.trailer_end_due) {
                true => Ok(()),
                false => self.end_trailers(),
            };
        }
        self.trailer_end_due = !line.ends_in_crlf;
        if !self.with_trailers {
            return Err(SourceError::Malformed("a trailer that was not announced"));
        }
        let text = std::str::from_utf8(&line.text)
            .map_err(|_| SourceError::Malformed("a trailer's text"))?;
        let (name, value) =
            text.split_once(':').ok_or(SourceError::Malformed("a trailer without a colon"))?;
        let blank = [' ', '\t'];
        let name = name.trim_matches(blank).to_ascii_lowercase();
        let value = value.trim_matches(blank).to_owned();
        if self.trailers.len() >= TRAILERS_MAX {
            return Err(SourceError::Malformed("too many trailers"));
        }
        if self.trailers.iter().any(|(earlier, _)| *earlier == name) {
            return Err(SourceError::Malformed("a trailer came twice"));
        }
        self.trailers.push((name, value));
        Ok(())
    }

    /// Verifies the signature over the trailers, which is the last of them.
    fn end_trailers(&mut self) -> Result<()> {
        if let Some(signed) = &mut self.signed
            && self.with_trailers
        {
            let signature = match self.trailers.pop() {
                Some((name, value)) if name == TRAILER_SIGNATURE => parse_sha256(value.as_bytes()),
                _ => None,
            };
            let signature = signature.ok_or(SourceError::Trailer(TRAILER_SIGNATURE))?;
            let mut hash = Sha256::new();
            for (name, value) in &self.trailers {
                hash.update(format!("{name}:{value}\n"));
            }
            if !signed.chain.trailers(&hash.finalize().into(), &signature) {
                return Err(SourceError::ChunkSignatureMismatch);
            }
        }
        if self.trailers.iter().any(|(name, _)| name == TRAILER_SIGNATURE) {
            return Err(SourceError::Malformed("a signature among unsigned trailers"));
        }
        self.state = State::Done;
        Ok(())
    }

    /// The next line, once all of it is there.
    fn take_line(&mut self, input: &mut Bytes, bytes_max: usize) -> Result<Option<Line>> {
        let end = input.iter().position(|&byte| byte == b'\n').map(|at| at + 1);
        let taken = input.split_to(end.unwrap_or(input.len()).min(bytes_max + 1));
        self.line.extend_from_slice(&taken);
        if self.line.len() > bytes_max {
            return Err(SourceError::Malformed("a line is too long"));
        }
        if end.is_none() {
            return Ok(None);
        }
        let mut text = std::mem::take(&mut self.line);
        text.pop();
        let ends_in_crlf = text.pop_if(|byte| *byte == b'\r').is_some();
        Ok(Some(Line { text, ends_in_crlf }))
    }
}

impl Line {
    fn strict(&self) -> Result<&[u8]> {
        match self.ends_in_crlf {
            true => Ok(&self.text),
            false => Err(SourceError::Malformed("a line does not end in CR LF")),
        }
    }
}

fn parse_size(digits: &[u8]) -> Result<u64> {
    if digits.is_empty() || digits.len() > 16 {
        return Err(SourceError::Malformed("a chunk's size"));
    }
    digits.iter().try_fold(0u64, |size, &digit| {
        let digit = hex_digit(digit).ok_or(SourceError::Malformed("a chunk's size"))?;
        Ok(size << 4 | u64::from(digit))
    })
}

#[cfg(test)]
mod tests;

//! The body of a request as a [`Source`]: decoded, hashed once for each algorithm that somebody
//! asked for, and verified at its end. Payload bytes are passed on as they came, not copied.
//!
//! [`RequestBody::finish`] succeeds only after the whole body arrived and everything that was
//! stated about it held: length, signatures of chunks and trailers, payload hash, checksums, MD5.

use std::future::poll_fn;
use std::pin::Pin;

use basalt_engine::seam::Runtime;
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::Body;
use md5::{Digest, Md5};

use super::auth::{Payload, parse_decimal};
use super::checksum::{self, Hasher};
use super::chunked::Decoder;
use super::error::{Code, Failure};
use super::request::Request;
use super::watch::Watch;
use super::xml::DOCUMENT_BYTES_MAX;
use crate::object::error::SourceError;
use crate::object::{Algorithm, Checksum, Source};

/// What a body has to be, learned from the head of its request.
pub(super) struct Expected {
    decoder: Option<Decoder>,
    /// Decoded length; `None` only where neither header says it.
    length: Option<u64>,
    checks: Vec<Check>,
    content_md5: Option<[u8; 16]>,
}

/// One hash over the body, and what it is compared with.
struct Check {
    algorithm: Algorithm,
    hasher: Hasher,
    stated: Stated,
    /// The payload hash of the signature, where it is this algorithm's.
    signed: Option<[u8; 32]>,
}

enum Stated {
    /// By a header.
    Value(Vec<u8>),
    /// By a trailer that was announced.
    Trailer,
    /// Nothing is stated: computed to be kept.
    Kept,
    /// Computed for the signature alone.
    Nothing,
}

/// What the x-amz-checksum headers of a request speak of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Checksums {
    Body,
    /// Of the body; this one is computed and kept where the client states none.
    BodyOr(Algorithm),
    /// Of the object that the request completes, not of its body.
    Object,
}

impl Expected {
    pub(super) fn new(
        payload: impl Into<Payload>,
        headers: &HeaderMap,
        checksums: Checksums,
    ) -> Result<Self, Failure> {
        let announced = announced_trailer(headers)?;
        let length_of = |name: &str| -> Result<Option<u64>, Failure> {
            let Some(value) = headers.get(name) else { return Ok(None) };
            let length = value.to_str().ok().and_then(parse_decimal);
            length.map(Some).ok_or_else(|| {
                Failure::new(Code::InvalidArgument, format!("The header {name} is no length."))
            })
        };
        let decoded_length = || {
            length_of("x-amz-decoded-content-length")?.ok_or_else(|| {
                let text = "A chunked upload needs the header x-amz-decoded-content-length.";
                Failure::new(Code::MissingContentLength, text)
            })
        };
        let mut signed_hash = None;
        let (decoder, length, has_trailers) = match payload.into() {
            Payload::Hash(hash) => {
                signed_hash = Some(hash);
                (None, length_of("content-length")?, false)
            }
            Payload::Unsigned => (None, length_of("content-length")?, false),
            Payload::SignedChunks { chain, trailers } => {
                let length = decoded_length()?;
                (Some(Decoder::new(Some(chain), trailers, length)), Some(length), trailers)
            }
            Payload::UnsignedChunks => {
                let length = decoded_length()?;
                (Some(Decoder::new(None, true, length)), Some(length), true)
            }
        };
        if announced.is_some() && !has_trailers {
            let text = "x-amz-trailer is set, but x-amz-content-sha256 says there is no trailer.";
            return Err(Failure::new(Code::InvalidRequest, text));
        }
        let checks = checks(headers, announced, checksums, signed_hash)?;
        Ok(Self { decoder, length, checks, content_md5: checksum::content_md5(headers)? })
    }

    /// The decoded length, for operations that cannot do without.
    pub(super) fn length(&self) -> Result<u64, Failure> {
        self.length.ok_or_else(|| {
            Failure::new(Code::MissingContentLength, "The request needs a Content-Length.")
        })
    }

    /// The algorithm of the checksum that the client states.
    pub(super) fn stated_algorithm(&self) -> Option<Algorithm> {
        let stated = |check: &&Check| matches!(check.stated, Stated::Value(_) | Stated::Trailer);
        self.checks.iter().find(stated).map(|check| check.algorithm)
    }

    /// Whether a checksum or Content-MD5 protects the body.
    pub(super) fn is_checked(&self) -> bool {
        self.content_md5.is_some() || self.stated_algorithm().is_some()
    }
}

/// The document that is the body of a request, verified.
pub(super) async fn document<B: Body<Data = Bytes> + Unpin, R: Runtime>(
    request: &Request,
    payload: impl Into<Payload>,
    body: &mut B,
    watch: &Watch<R>,
) -> Result<Bytes, Failure> {
    let expected = Expected::new(payload, &request.headers, Checksums::Body)?;
    RequestBody::new(body, watch, expected).document().await
}

/// As [`document`], of up to `bytes_max` bytes; what is longer is not read, and refused as `long` says.
pub(super) async fn document_within<B: Body<Data = Bytes> + Unpin, R: Runtime>(
    bytes_max: usize,
    long: impl Fn() -> Failure,
    request: &Request,
    payload: impl Into<Payload>,
    body: &mut B,
    watch: &Watch<R>,
) -> Result<Bytes, Failure> {
    let expected = Expected::new(payload, &request.headers, Checksums::Body)?;
    RequestBody::new(body, watch, expected).document_within(bytes_max, long).await
}

/// The checksum that a trailer will carry.
fn announced_trailer(headers: &HeaderMap) -> Result<Option<Algorithm>, Failure> {
    let mut announced = None;
    for value in headers.get_all("x-amz-trailer") {
        for name in value.to_str().unwrap_or("?").split(',') {
            let name = name.trim().to_ascii_lowercase();
            let algorithm = checksum::algorithm_of_header(&name).ok_or_else(|| {
                let text = format!("The trailer {name} is not supported.");
                Failure::new(Code::InvalidRequest, text)
            })?;
            if announced.replace(algorithm).is_some() {
                let text = "More than one trailer is announced; one is allowed.";
                return Err(Failure::new(Code::InvalidRequest, text));
            }
        }
    }
    Ok(announced)
}

fn checks(
    headers: &HeaderMap,
    announced: Option<Algorithm>,
    checksums: Checksums,
    signed_hash: Option<[u8; 32]>,
) -> Result<Vec<Check>, Failure> {
    let mut checks = Vec::new();
    let mut add = |algorithm, stated| {
        let hasher = Hasher::new(algorithm);
        checks.push(Check { algorithm, hasher, stated, signed: None });
    };
    let stated = match checksums {
        Checksums::Body | Checksums::BodyOr(_) => checksum::stated(headers)?,
        Checksums::Object => None,
    };
    match (stated, announced) {
        (Some(_), Some(_)) => {
            let text = "A checksum is stated both by a header and by a trailer.";
            return Err(Failure::new(Code::InvalidRequest, text));
        }
        (Some((algorithm, text)), None) => {
            let value = checksum::parse(algorithm, text);
            add(algorithm, Stated::Value(value.ok_or_else(|| checksum::invalid(algorithm))?));
        }
        (None, Some(algorithm)) => add(algorithm, Stated::Trailer),
        (None, None) => {
            if let Checksums::BodyOr(algorithm) = checksums {
                add(algorithm, Stated::Kept);
            }
        }
    }
    if signed_hash.is_some() {
        if !checks.iter().any(|check| check.algorithm == Algorithm::Sha256) {
            let hasher = Hasher::new(Algorithm::Sha256);
            let stated = Stated::Nothing;
            checks.push(Check { algorithm: Algorithm::Sha256, hasher, stated, signed: None });
        }
        let sha256 = checks.iter_mut().find(|check| check.algorithm == Algorithm::Sha256);
        sha256.expect("there is one now").signed = signed_hash;
    }
    Ok(checks)
}

/// A body as it arrives.
pub(super) struct RequestBody<'a, B, R: Runtime> {
    incoming: &'a mut B,
    watch: &'a Watch<R>,
    expected: Expected,
    /// What the decoder has not taken yet.
    encoded: Bytes,
    received: u64,
    /// The body arrived whole and well-formed.
    complete: bool,
}

impl<'a, B: Body<Data = Bytes> + Unpin, R: Runtime> RequestBody<'a, B, R> {
    pub(super) fn new(incoming: &'a mut B, watch: &'a Watch<R>, expected: Expected) -> Self {
        Self { incoming, watch, expected, encoded: Bytes::new(), received: 0, complete: false }
    }

    /// The whole body of a request that carries a document, verified.
    pub(super) async fn document(self) -> Result<Bytes, Failure> {
        let long = || {
            let text = "The document of the request is too long.";
            Failure::new(Code::MaxMessageLengthExceeded, text)
        };
        self.document_within(DOCUMENT_BYTES_MAX, long).await
    }

    async fn document_within(
        mut self,
        bytes_max: usize,
        long: impl Fn() -> Failure,
    ) -> Result<Bytes, Failure> {
        if self.expected.length.is_some_and(|length| length > bytes_max as u64) {
            return Err(long());
        }
        let mut document = BytesMut::new();
        while let Some(bytes) = self.next().await? {
            if document.len() + bytes.len() > bytes_max {
                return Err(long());
            }
            document.extend_from_slice(&bytes);
        }
        self.finish(&Md5::digest(&document).into())?;
        Ok(document.freeze())
    }

    /// The next bytes as they came; `None` at the end of the HTTP body.
    async fn frame(&mut self) -> Result<Option<Bytes>, SourceError> {
        loop {
            let incoming = &mut *self.incoming;
            let watch = self.watch;
            let frame = poll_fn(|task| {
                watch.poll_body(task, |task| Pin::new(&mut *incoming).poll_frame(task))
            });
            match frame.await? {
                None => return Ok(None),
                Some(Err(_)) => return Err(SourceError::Incomplete),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if !data.is_empty() => {
                        watch.body_progress(data.len());
                        return Ok(Some(data));
                    }
                    // Trailers of HTTP itself mean nothing to S3.
                    Ok(_) | Err(_) => {}
                },
            }
        }
    }

    async fn advance(&mut self) -> Result<Option<Bytes>, SourceError> {
        loop {
            if let Some(decoder) = &mut self.expected.decoder
                && let Some(data) = decoder.decode(&mut self.encoded)?
            {
                return Ok(Some(data));
            }
            match (self.frame().await?, &self.expected.decoder) {
                (Some(bytes), Some(_)) => self.encoded = bytes,
                (Some(bytes), None) => return Ok(Some(bytes)),
                (None, Some(decoder)) => return decoder.finish().map(|()| None),
                (None, None) => return Ok(None),
            }
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin, R: Runtime> Source for RequestBody<'_, B, R> {
    async fn next(&mut self) -> Result<Option<Bytes>, SourceError> {
        let Some(bytes) = self.advance().await? else {
            if self.expected.length.is_some_and(|length| length != self.received) {
                return Err(SourceError::Incomplete);
            }
            self.complete = true;
            return Ok(None);
        };
        self.received += bytes.len() as u64;
        if self.expected.length.is_some_and(|length| length < self.received) {
            return Err(SourceError::TooLong);
        }
        for check in &mut self.expected.checks {
            check.hasher.update(&bytes);
        }
        Ok(Some(bytes))
    }

    fn finish(&mut self, md5: &[u8; 16]) -> Result<Vec<Checksum>, SourceError> {
        if !self.complete {
            return Err(SourceError::Incomplete);
        }
        let trailers = match &self.expected.decoder {
            None => &[],
            Some(decoder) => {
                decoder.finish()?;
                decoder.trailers()
            }
        };
        if self.expected.content_md5.is_some_and(|stated| stated != *md5) {
            return Err(SourceError::BadDigest { algorithm: "MD5" });
        }
        let mut kept = Vec::new();
        let mut trailers_used = 0;
        for check in std::mem::take(&mut self.expected.checks) {
            let value = check.hasher.finish();
            if check.signed.is_some_and(|signed| signed[..] != value) {
                return Err(SourceError::PayloadHashMismatch);
            }
            let stated = match check.stated {
                Stated::Nothing => continue,
                Stated::Kept => value.clone(),
                Stated::Value(stated) => stated,
                Stated::Trailer => {
                    trailers_used += 1;
                    stated_by_trailer(check.algorithm, trailers)?
                }
            };
            if stated != value {
                return Err(SourceError::BadDigest { algorithm: check.algorithm.name() });
            }
            kept.push(Checksum { algorithm: check.algorithm, value, composite: false });
        }
        if trailers.len() > trailers_used {
            return Err(SourceError::Malformed("a trailer that was not announced"));
        }
        // Checks are used up: a second call must not find a body without any.
        self.complete = false;
        Ok(kept)
    }
}

fn stated_by_trailer(
    algorithm: Algorithm,
    trailers: &[(String, String)],
) -> Result<Vec<u8>, SourceError> {
    let name = checksum::header_name(algorithm);
    let text = trailers.iter().find(|(trailer, _)| trailer == name).map(|(_, text)| text);
    text.and_then(|text| checksum::parse(algorithm, text)).ok_or(SourceError::Trailer(name))
}

#[cfg(test)]
mod tests;

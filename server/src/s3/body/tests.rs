use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha2::Sha256;

use super::*;
use crate::s3::testing::{Frames, TestRequest, TestRuntime, run, sha256_hex};
use crate::s3::watch::{Patience, Verdict};

const CRC32: &str = "DUoRhQ==";
const BODY: &[u8] = b"hello world";
const CHUNKED: &[u8] = b"5\r\nhello\r\n6\r\n world\r\n0\r\nx-amz-checksum-crc32:DUoRhQ==\r\n\r\n";

fn request(content: &str) -> TestRequest {
    TestRequest::new("PUT", "/bucket/key", content)
}

fn plain() -> TestRequest {
    request("UNSIGNED-PAYLOAD").with("content-length", "11")
}

fn chunked() -> TestRequest {
    request("STREAMING-UNSIGNED-PAYLOAD-TRAILER")
        .with("x-amz-decoded-content-length", "11")
        .with("x-amz-trailer", "x-amz-checksum-crc32")
}

fn expected(request: TestRequest, checksums: Checksums) -> Result<Expected, Failure> {
    let request = request.sign();
    let authenticated = request.passes();
    Expected::new(authenticated.into_payload(), &request.header_map(), checksums)
}

/// Takes the whole body as the object layer does.
fn take(expected: Expected, frames: &mut Frames) -> Result<(Vec<u8>, Vec<Checksum>), SourceError> {
    let watch = Watch::new(TestRuntime::default(), Patience::default());
    let mut body = RequestBody::new(frames, &watch, expected);
    run(async {
        let mut taken = Vec::new();
        while let Some(bytes) = body.next().await? {
            assert!(!bytes.is_empty());
            taken.extend_from_slice(&bytes);
        }
        let checksums = body.finish(&Md5::digest(&taken).into())?;
        assert!(body.finish(&[0; 16]).is_err(), "a second time");
        Ok((taken, checksums))
    })
}

fn outcome(request: TestRequest, body: &[u8]) -> Result<Vec<Checksum>, SourceError> {
    let expected = |request| expected(request, Checksums::Body).expect("valid");
    let whole = take(expected(request.clone()), &mut Frames::of([body]));
    let bytewise = take(expected(request), &mut Frames::of(body.chunks(1)));
    assert_eq!(whole, bytewise);
    whole.map(|(_, checksums)| checksums)
}

fn refused(request: TestRequest) -> Code {
    expected(request, Checksums::Body).err().expect("refused").code
}

fn crc32() -> Checksum {
    let value = BASE64.decode(CRC32).expect("valid");
    Checksum { algorithm: Algorithm::Crc32, value, composite: false }
}

#[test]
fn a_plain_body_has_its_length() {
    assert_eq!(outcome(plain(), BODY), Ok(Vec::new()));
    assert_eq!(outcome(plain(), b"hello worl"), Err(SourceError::Incomplete));
    assert_eq!(outcome(plain(), b"hello worlds"), Err(SourceError::TooLong));
    assert_eq!(refused(plain().with("content-length", "+11")), Code::InvalidArgument);
    let none = expected(plain().without("content-length"), Checksums::Body).expect("valid");
    assert_eq!(none.length().expect_err("unknown").code, Code::MissingContentLength);
}

#[test]
fn the_signed_hash_is_checked() {
    let signed = |hash: &str| request(hash).with("content-length", "11");
    assert_eq!(outcome(signed(&sha256_hex(BODY)), BODY), Ok(Vec::new()));
    let wrong = signed(&sha256_hex(b"other"));
    assert_eq!(outcome(wrong, BODY), Err(SourceError::PayloadHashMismatch));
}

#[test]
fn one_hash_serves_signature_and_checksum() {
    let base64 = BASE64.encode(Sha256::digest(BODY));
    let good = request(&sha256_hex(BODY))
        .with("content-length", "11")
        .with("x-amz-checksum-sha256", &base64);
    let hashes = expected(good.clone(), Checksums::Body).expect("valid").checks.len();
    assert_eq!(hashes, 1);
    assert_eq!(outcome(good.clone(), BODY).expect("valid")[0].algorithm, Algorithm::Sha256);
    let other = BASE64.encode(Sha256::digest(b"other"));
    let bad = Err(SourceError::BadDigest { algorithm: "SHA256" });
    assert_eq!(outcome(good.with("x-amz-checksum-sha256", &other), BODY), bad);
}

#[test]
fn checksums_of_headers_are_checked_and_kept() {
    assert_eq!(outcome(plain().with("x-amz-checksum-crc32", CRC32), BODY), Ok(vec![crc32()]));
    let wrong = plain().with("x-amz-checksum-crc32", "AAAAAA==");
    assert_eq!(outcome(wrong, BODY), Err(SourceError::BadDigest { algorithm: "CRC32" }));
    let malformed = plain().with("x-amz-checksum-crc32", "AAAA");
    assert_eq!(refused(malformed), Code::BadDigest);
    let two = plain().with("x-amz-checksum-crc32", CRC32).with("x-amz-checksum-sha1", "x");
    assert_eq!(refused(two), Code::InvalidRequest);
}

#[test]
fn content_md5_is_checked() {
    let md5 = |bytes: &[u8]| BASE64.encode(Md5::digest(bytes));
    assert_eq!(outcome(plain().with("content-md5", &md5(BODY)), BODY), Ok(Vec::new()));
    let wrong = plain().with("content-md5", &md5(b"other"));
    assert_eq!(outcome(wrong, BODY), Err(SourceError::BadDigest { algorithm: "MD5" }));
    assert_eq!(refused(plain().with("content-md5", "x")), Code::InvalidDigest);
}

#[test]
fn a_checksum_is_computed_where_the_upload_wants_one() {
    let kept = |request| {
        let expected = expected(request, Checksums::BodyOr(Algorithm::Crc32)).expect("valid");
        take(expected, &mut Frames::of([BODY])).expect("valid").1
    };
    assert_eq!(kept(plain()), [crc32()]);
    assert_eq!(kept(plain().with("x-amz-checksum-crc32", CRC32)), [crc32()]);
    // The checksum of a completion is not that of its document.
    let whole = plain().with("x-amz-checksum-crc32", "AAAAAA==");
    let expected = expected(whole, Checksums::Object).expect("valid");
    assert_eq!(take(expected, &mut Frames::of([BODY])).expect("valid").1, []);
}

#[test]
fn a_trailer_is_checked_and_kept() {
    assert_eq!(outcome(chunked(), CHUNKED), Ok(vec![crc32()]));
    let text = std::str::from_utf8(CHUNKED).expect("text");
    let wrong = text.replace(CRC32, "AAAAAA==");
    let bad = Err(SourceError::BadDigest { algorithm: "CRC32" });
    assert_eq!(outcome(chunked(), wrong.as_bytes()), bad);
    let malformed = text.replace(CRC32, "AAAA");
    let none = text.replace("x-amz-checksum-crc32:DUoRhQ==\r\n", "");
    for body in [malformed, none] {
        let error = Err(SourceError::Trailer("x-amz-checksum-crc32"));
        assert_eq!(outcome(chunked(), body.as_bytes()), error, "{body}");
    }
    let more = text.replace("\r\n\r\n", "\r\nx-amz-checksum-sha1:x\r\n\r\n");
    let unannounced = Err(SourceError::Malformed("a trailer that was not announced"));
    assert_eq!(outcome(chunked(), more.as_bytes()), unannounced);
    let silent = chunked().without("x-amz-trailer");
    assert_eq!(outcome(silent, CHUNKED), unannounced);
}

#[test]
fn announcements_must_fit_the_payload_form() {
    assert_eq!(
        refused(plain().with("x-amz-trailer", "x-amz-checksum-crc32")),
        Code::InvalidRequest
    );
    assert_eq!(refused(chunked().with("x-amz-trailer", "x-amz-meta-a")), Code::InvalidRequest);
    let two = "x-amz-checksum-crc32,x-amz-checksum-sha1";
    assert_eq!(refused(chunked().with("x-amz-trailer", two)), Code::InvalidRequest);
    assert_eq!(refused(chunked().with("x-amz-checksum-crc32", CRC32)), Code::InvalidRequest);
    let no_length = chunked().without("x-amz-decoded-content-length");
    assert_eq!(refused(no_length), Code::MissingContentLength);
}

#[test]
fn the_decoded_length_holds() {
    let of = |length: &str| chunked().with("x-amz-decoded-content-length", length);
    assert_eq!(outcome(of("10"), CHUNKED), Err(SourceError::TooLong));
    assert_eq!(outcome(of("12"), CHUNKED), Err(SourceError::Incomplete));
    let empty = b"0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n";
    assert!(outcome(of("0"), empty).is_ok());
}

#[test]
fn nothing_passes_without_its_end() {
    for length in 0..CHUNKED.len() {
        let expected = expected(chunked(), Checksums::Body).expect("valid");
        let taken = take(expected, &mut Frames::of([&CHUNKED[..length]]));
        assert_eq!(taken, Err(SourceError::Incomplete), "{length} bytes");
    }
    let mut lost = Frames::of([&BODY[..5]]);
    lost.frames.push_back(Err(()));
    let expected = expected(plain(), Checksums::Body).expect("valid");
    assert_eq!(take(expected, &mut lost), Err(SourceError::Incomplete));
}

#[test]
fn finishing_before_the_end_fails() {
    let watch = Watch::new(TestRuntime::default(), Patience::default());
    let mut frames = Frames::of([BODY]);
    let expected = expected(plain(), Checksums::Body).expect("valid");
    let mut body = RequestBody::new(&mut frames, &watch, expected);
    assert_eq!(body.finish(&[0; 16]), Err(SourceError::Incomplete));
    assert!(run(body.next()).expect("arrives").is_some());
    assert_eq!(body.finish(&[0; 16]), Err(SourceError::Incomplete), "the end was not seen");
}

#[test]
fn documents_are_limited() {
    let length = DOCUMENT_BYTES_MAX + 1;
    let announced = plain().with("content-length", &length.to_string());
    let watch = Watch::new(TestRuntime::default(), Patience::default());
    let long = vec![b' '; length];
    for (request, is_read) in [(announced, false), (plain().without("content-length"), true)] {
        let mut frames = Frames::of(long.chunks(100_000));
        let all = frames.frames.len();
        let expected = expected(request, Checksums::Body).expect("valid");
        let document = RequestBody::new(&mut frames, &watch, expected).document();
        assert_eq!(run(document).expect_err("too long").code, Code::MaxMessageLengthExceeded);
        assert_eq!(frames.frames.len() < all, is_read, "what says that it is too long is not read");
    }
}

#[test]
fn a_body_that_stalls_times_out() {
    let runtime = TestRuntime::default();
    let patience = Patience::default();
    let watch = Watch::new(runtime.clone(), patience);
    watch.request_begins();
    let mut frames = Frames::of([&BODY[..5]]);
    frames.stalled = true;
    let expected = expected(plain(), Checksums::Body).expect("valid");
    let mut body = RequestBody::new(&mut frames, &watch, expected);
    assert!(run(body.next()).expect("arrives").is_some());
    let mut next = std::pin::pin!(body.next());
    let mut task = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(next.as_mut().poll(&mut task).is_pending());
    assert_eq!(watch.verdict(), Verdict::Wait);
    runtime.pass(patience.body - Duration::from_nanos(1));
    assert_eq!(watch.verdict(), Verdict::Wait);
    runtime.pass(Duration::from_nanos(1));
    assert_eq!(watch.verdict(), Verdict::BodyTimedOut);
    assert_eq!(run(next), Err(SourceError::TimedOut));
}

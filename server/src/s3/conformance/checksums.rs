//! Checksums: every algorithm, stated every way, of the whole and of parts.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::begin;
use crate::object::Algorithm;
use crate::s3::checksum::{Hasher, element_name, header_name};
use crate::s3::testing::TestRequest;
use crate::s3::testing::world::{Response, World, bytes, etag, refused, world};

const ENABLED: (&str, &str) = ("x-amz-checksum-mode", "ENABLED");

fn sum(algorithm: Algorithm, data: &[u8]) -> Vec<u8> {
    let mut hasher = Hasher::new(algorithm);
    hasher.update(data);
    hasher.finish()
}

fn text(algorithm: Algorithm, data: &[u8]) -> String {
    BASE64.encode(sum(algorithm, data))
}

/// A PUT whose checksum comes in a trailer.
fn put_with_trailer(world: &World, algorithm: Algorithm, data: &[u8], stated: &str) -> Response {
    let name = header_name(algorithm);
    let form = "STREAMING-UNSIGNED-PAYLOAD-TRAILER";
    let request = TestRequest::new("PUT", "/bucket/key", form)
        .with("x-amz-decoded-content-length", &data.len().to_string())
        .with("x-amz-sdk-checksum-algorithm", algorithm.name())
        .with("x-amz-trailer", name);
    let mut body = format!("{:x}\r\n", data.len()).into_bytes();
    body.extend(data);
    body.extend(format!("\r\n0\r\n{name}:{stated}\r\n\r\n").bytes());
    world.send(&request.sign(), &body)
}

#[test]
fn every_algorithm_is_verified_and_kept() {
    let world = world();
    for algorithm in Algorithm::ALL {
        let data = bytes(70_000);
        let (name, right) = (header_name(algorithm), text(algorithm, &data));
        let wrong = text(algorithm, b"other");
        let by_header = world.ask("PUT", "/bucket/key", &[(name, &right)], &data);
        let by_trailer = put_with_trailer(&world, algorithm, &data, &right);
        for put in [by_header, by_trailer] {
            assert_eq!((put.status, put.header(name)), (200, &*right), "{put:?}");
            assert_eq!(put.header("x-amz-checksum-type"), "FULL_OBJECT");
        }
        refused(&world.ask("PUT", "/bucket/key", &[(name, &wrong)], &data), 400, "BadDigest");
        refused(&put_with_trailer(&world, algorithm, &data, &wrong), 400, "BadDigest");
        refused(&world.ask("PUT", "/bucket/key", &[(name, "short")], &data), 400, "BadDigest");
        for method in ["GET", "HEAD"] {
            let whole = world.ask(method, "/bucket/key", &[ENABLED], b"");
            assert_eq!(whole.header(name), right, "{method}");
            assert_eq!(whole.header("x-amz-checksum-type"), "FULL_OBJECT");
            // It is not that of a range, and is told to who asks.
            let range = world.ask(method, "/bucket/key", &[ENABLED, ("range", "bytes=0-9")], b"");
            assert_eq!((range.status, range.header(name)), (206, ""), "{method}");
            assert_eq!(world.ask(method, "/bucket/key", &[], b"").header(name), "", "{method}");
        }
        let wanted = [("x-amz-object-attributes", "Checksum")];
        let told = world.ask("GET", "/bucket/key?attributes", &wanted, b"");
        assert_eq!(told.element(element_name(algorithm)), right);
        let listed = world.ask("GET", "/bucket?list-type=2", &[], b"");
        assert_eq!(listed.element("ChecksumAlgorithm"), algorithm.name());
    }
}

#[test]
fn a_request_states_one_checksum_in_one_place() {
    let world = world();
    let (crc, sha) = (text(Algorithm::Crc32, b"data"), text(Algorithm::Sha1, b"data"));
    let (crc, sha) = (("x-amz-checksum-crc32", &*crc), ("x-amz-checksum-sha1", &*sha));
    let two = world.ask("PUT", "/bucket/key", &[crc, sha], b"data");
    refused(&two, 400, "InvalidRequest");
    let unknown = ("x-amz-trailer", "x-amz-checksum-md5");
    refused(&world.ask("PUT", "/bucket/key", &[unknown], b"data"), 400, "InvalidRequest");
    let both = TestRequest::new("PUT", "/bucket/key", "STREAMING-UNSIGNED-PAYLOAD-TRAILER")
        .with("x-amz-decoded-content-length", "0")
        .with("x-amz-trailer", "x-amz-checksum-crc32")
        .with(crc.0, crc.1);
    refused(&world.send(&both.sign(), b"0\r\n\r\n"), 400, "InvalidRequest");
    // A hash of the payload that the client signed holds beside a checksum.
    assert_eq!(world.ask("PUT", "/bucket/key", &[crc], b"data").status, 200);
    refused(&world.ask("PUT", "/bucket/key", &[crc], b"date"), 400, "BadDigest");
}

/// The document that completes an upload of two parts, with their checksums.
fn completion(algorithm: Algorithm, parts: [&[u8]; 2], stated: [&[u8]; 2]) -> String {
    let element = element_name(algorithm);
    let part = |index: usize| {
        let (etag, sum) = (etag(parts[index]), text(algorithm, stated[index]));
        let number = index + 1;
        format!(
            "<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag>\
             <{element}>{sum}</{element}></Part>"
        )
    };
    format!("<CompleteMultipartUpload>{}{}</CompleteMultipartUpload>", part(0), part(1))
}

#[test]
fn uploads_in_parts_have_the_checksums_they_were_begun_with() {
    let world = world();
    let (first, second) = (bytes(5 << 20), bytes(1234));
    let whole = [&*first, &*second].concat();
    let composite = ["CRC32", "CRC32C", "SHA1", "SHA256"].map(|name| (name, "COMPOSITE"));
    let full = ["CRC32", "CRC32C", "CRC64NVME"].map(|name| (name, "FULL_OBJECT"));
    for (name, kind) in composite.into_iter().chain(full) {
        let algorithm = Algorithm::ALL.into_iter().find(|one| one.name() == name).expect("one");
        let headers = [("x-amz-checksum-algorithm", name), ("x-amz-checksum-type", kind)];
        let id = begin(&world, "key", &headers);
        for (number, data) in [(1, &first), (2, &second)] {
            let target = format!("/bucket/key?partNumber={number}&uploadId={id}");
            let stated = text(algorithm, data);
            let put = world.ask("PUT", &target, &[(header_name(algorithm), &stated)], data);
            assert_eq!((put.status, put.header(header_name(algorithm))), (200, &*stated));
        }
        let target = format!("/bucket/key?uploadId={id}");
        let listed = world.ask("GET", &target, &[], b"");
        assert_eq!(
            (listed.element("ChecksumAlgorithm"), listed.element("ChecksumType")),
            (name, kind)
        );
        assert_eq!(listed.elements(element_name(algorithm)).len(), 2);
        let parts: [&[u8]; 2] = [&first, &second];
        let wrong = completion(algorithm, parts, [&second, &second]);
        refused(&world.ask("POST", &target, &[], wrong.as_bytes()), 400, "InvalidPart");
        let expected = match kind {
            "FULL_OBJECT" => text(algorithm, &whole),
            _ => {
                let sums = [sum(algorithm, &first), sum(algorithm, &second)].concat();
                format!("{}-2", text(algorithm, &sums))
            }
        };
        let document = completion(algorithm, parts, parts);
        let other_kind = if kind == "COMPOSITE" { "FULL_OBJECT" } else { "COMPOSITE" };
        let claim = [("x-amz-checksum-type", other_kind)];
        let refusal = world.ask("POST", &target, &claim, document.as_bytes());
        refused(&refusal, 400, "InvalidRequest");
        let claim = [(header_name(algorithm), &*expected), ("x-amz-checksum-type", kind)];
        let done = world.ask("POST", &target, &claim, document.as_bytes());
        assert_eq!(
            (done.status, done.element(element_name(algorithm))),
            (200, &*expected),
            "{kind}"
        );
        assert_eq!(done.element("ChecksumType"), kind);
        let head = world.ask("HEAD", "/bucket/key", &[ENABLED], b"");
        assert_eq!(head.header(header_name(algorithm)), expected);
        assert_eq!(head.header("x-amz-checksum-type"), kind);
        let part = world.ask("GET", "/bucket/key?partNumber=2", &[ENABLED], b"");
        assert_eq!(part.header(header_name(algorithm)), text(algorithm, &second), "{name} {kind}");
    }
}

#[test]
fn what_cannot_be_combined_is_refused() {
    let world = world();
    for (algorithm, kind) in [
        ("SHA1", "FULL_OBJECT"),
        ("SHA256", "FULL_OBJECT"),
        ("CRC64NVME", "COMPOSITE"),
        ("CRC32", "OTHER"),
        ("MD5", "COMPOSITE"),
    ] {
        let headers = [("x-amz-checksum-algorithm", algorithm), ("x-amz-checksum-type", kind)];
        let begun = world.ask("POST", "/bucket/key?uploads", &headers, b"");
        refused(&begun, 400, "InvalidRequest");
    }
    let kind = [("x-amz-checksum-type", "COMPOSITE")];
    let begun = world.ask("POST", "/bucket/key?uploads", &kind, b"");
    refused(&begun, 400, "InvalidRequest");
    // A part of an upload states the upload's algorithm, or none.
    let id = begin(&world, "key", &[("x-amz-checksum-algorithm", "CRC32")]);
    let target = format!("/bucket/key?partNumber=1&uploadId={id}");
    let other = text(Algorithm::Sha1, b"data");
    let put = world.ask("PUT", &target, &[("x-amz-checksum-sha1", &other)], b"data");
    refused(&put, 400, "InvalidRequest");
    let put = world.ask("PUT", &target, &[], b"data");
    assert_eq!(put.header("x-amz-checksum-crc32"), text(Algorithm::Crc32, b"data"));
}

//! CopyObject and UploadPartCopy: what goes along, what is chosen anew, and what may be a source.

use super::{begin, complete};
use crate::s3::testing::world::{Response, World, bytes, crc32, etag, refused, world};

const SOURCE: (&str, &str) = ("x-amz-copy-source", "/bucket/source");
const REPLACE: (&str, &str) = ("x-amz-metadata-directive", "REPLACE");
const REPLACE_TAGS: (&str, &str) = ("x-amz-tagging-directive", "REPLACE");

type Headers<'a> = &'a [(&'a str, &'a str)];

fn with_source(data: &[u8]) -> World {
    let world = world();
    let headers = [
        ("content-type", "text/plain"),
        ("cache-control", "no-cache"),
        ("x-amz-meta-color", "blue"),
        ("x-amz-tagging", "a=1"),
        ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
        ("x-amz-checksum-crc32", &*crc32(data)),
    ];
    assert_eq!(world.ask("PUT", "/bucket/source", &headers, data).status, 200);
    world
}

fn copy(world: &World, key: &str, headers: &[(&str, &str)]) -> Response {
    let headers: Vec<_> = headers.iter().copied().chain([SOURCE]).collect();
    world.ask("PUT", &format!("/bucket/{key}"), &headers, b"")
}

/// Type, color, number of tags, storage class of an object.
fn described(world: &World, key: &str) -> [String; 4] {
    let head = world.ask("HEAD", &format!("/bucket/{key}"), &[], b"");
    assert_eq!(head.status, 200, "{key}");
    ["content-type", "x-amz-meta-color", "x-amz-tagging-count", "x-amz-storage-class"]
        .map(|name| head.header(name).to_owned())
}

#[test]
fn directives_say_what_goes_along() {
    let data = bytes(200_000);
    let world = with_source(&data);
    let red = ("x-amz-meta-color", "red");
    let tags = ("x-amz-tagging", "b=1&c=2");
    let class = ("x-amz-storage-class", "REDUCED_REDUNDANCY");
    let octets = "binary/octet-stream";
    let cases: &[(Headers, [&str; 4])] = &[
        (&[], ["text/plain", "blue", "1", ""]),
        (&[("x-amz-metadata-directive", "COPY")], ["text/plain", "blue", "1", ""]),
        // What is given beside COPY counts for nothing.
        (&[red, tags], ["text/plain", "blue", "1", ""]),
        (&[REPLACE], [octets, "", "1", ""]),
        (&[REPLACE, red], [octets, "red", "1", ""]),
        (&[REPLACE_TAGS], ["text/plain", "blue", "", ""]),
        (&[REPLACE_TAGS, tags], ["text/plain", "blue", "2", ""]),
        (&[REPLACE, red, REPLACE_TAGS, tags, class], [octets, "red", "2", "REDUCED_REDUNDANCY"]),
    ];
    for (headers, expected) in cases {
        let answer = copy(&world, "copy", headers);
        assert_eq!(answer.status, 200, "{headers:?} {answer:?}");
        assert_eq!(answer.element("ETag"), etag(&data).replace('"', "&quot;"));
        assert_eq!(answer.element("ChecksumCRC32"), crc32(&data));
        assert!(!answer.element("LastModified").is_empty());
        assert_eq!(described(&world, "copy"), *expected, "{headers:?}");
        assert!(world.ask("GET", "/bucket/copy", &[], b"").body == data);
    }
    let wrong: [Headers; 3] = [
        &[("x-amz-metadata-directive", "MOVE")],
        &[("x-amz-tagging-directive", "MOVE")],
        &[REPLACE_TAGS, ("x-amz-tagging", "a=%zz")],
    ];
    for headers in wrong {
        refused(&copy(&world, "copy", headers), 400, "InvalidArgument");
    }
}

#[test]
fn a_copy_onto_itself_changes_something() {
    let world = world();
    let tagged = [("x-amz-tagging", "a=1")];
    assert_eq!(world.ask("PUT", "/bucket/source", &tagged, b"data").status, 200);
    let same = ("x-amz-storage-class", "STANDARD");
    for headers in [&[][..], &[same], &[("x-amz-meta-color", "red")]] {
        refused(&copy(&world, "source", headers), 400, "InvalidRequest");
    }
    for headers in [
        &[REPLACE][..],
        &[REPLACE_TAGS, ("x-amz-tagging", "a=2")][..],
        &[("x-amz-storage-class", "REDUCED_REDUNDANCY")][..],
    ] {
        assert_eq!(copy(&world, "source", headers).status, 200, "{headers:?}");
        assert_eq!(world.ask("GET", "/bucket/source", &[], b"").text(), "data");
    }
}

#[test]
fn a_copy_may_have_a_checksum_of_its_own() {
    let world = with_source(b"data");
    let answer = copy(&world, "copy", &[("x-amz-checksum-algorithm", "SHA256")]);
    assert!(!answer.element("ChecksumSHA256").is_empty(), "{answer:?}");
    assert_eq!(answer.element("ChecksumCRC32"), "");
    refused(&copy(&world, "copy", &[("x-amz-checksum-algorithm", "MD5")]), 400, "InvalidRequest");
}

#[test]
fn sources_are_named_as_documented() {
    let world = world();
    for key in ["plain", "a%20b%2Bc", "%C3%A9", "dir/sub", "100%25", "que%3Fry"] {
        assert_eq!(world.ask("PUT", &format!("/bucket/{key}"), &[], b"data").status, 200);
        for source in [format!("bucket/{key}"), format!("/bucket/{key}")] {
            let headers = [("x-amz-copy-source", &*source)];
            let answer = world.ask("PUT", "/bucket/copy", &headers, b"");
            assert_eq!(answer.status, 200, "{source}");
        }
    }
    for (source, status, code) in [
        ("bucket/absent", 404, "NoSuchKey"),
        ("absent/plain", 404, "NoSuchBucket"),
        ("bucket", 400, "InvalidArgument"),
        ("bucket/%zz", 400, "InvalidArgument"),
        ("bucket/plain?versionId=x", 400, "InvalidArgument"),
        ("bucket/plain?versionId=00000000000000000000000000000001", 404, "NoSuchVersion"),
        ("Bucket_/plain", 400, "InvalidBucketName"),
    ] {
        let headers = [("x-amz-copy-source", source)];
        refused(&world.ask("PUT", "/bucket/copy", &headers, b""), status, code);
    }
    let headers = [("x-amz-copy-source", "bucket/plain")];
    refused(&world.ask("PUT", "/absent/copy", &headers, b""), 404, "NoSuchBucket");
}

#[test]
fn parts_are_copied_by_ranges() {
    let data = bytes(6 << 20);
    let world = with_source(&data);
    let id = begin(&world, "copy", &[]);
    let part = |number: u32, range: &str| {
        let target = format!("/bucket/copy?partNumber={number}&uploadId={id}");
        let range = ("x-amz-copy-source-range", range);
        match range.1.is_empty() {
            true => world.ask("PUT", &target, &[SOURCE], b""),
            false => world.ask("PUT", &target, &[SOURCE, range], b""),
        }
    };
    let size = data.len();
    for (range, status, code) in [
        ("bytes=0-", 400, "InvalidArgument"),
        ("bytes=-1", 400, "InvalidArgument"),
        ("bytes=2-1", 400, "InvalidArgument"),
        ("0-1", 400, "InvalidArgument"),
        (&*format!("bytes=0-{size}"), 416, "InvalidRange"),
        (&*format!("bytes={size}-{size}"), 416, "InvalidRange"),
    ] {
        refused(&part(1, range), status, code);
    }
    let whole = part(1, "");
    assert_eq!(whole.element("ETag"), etag(&data).replace('"', "&quot;"), "{whole:?}");
    let tail = part(2, &format!("bytes=1-{}", size - 1));
    assert_eq!(tail.element("ETag"), etag(&data[1..]).replace('"', "&quot;"), "{tail:?}");
    let done = complete(&world, "copy", &id, &[(1, &etag(&data)), (2, &etag(&data[1..]))]);
    assert_eq!(done.status, 200, "{done:?}");
    let get = world.ask("GET", "/bucket/copy", &[], b"");
    assert!(get.body == [&data[..], &data[1..]].concat());
    // An upload gets its description where it is begun, and nothing of its sources.
    assert_eq!(described(&world, "copy"), ["binary/octet-stream", "", "", ""]);
}

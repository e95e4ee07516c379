//! Limits: what is just allowed, and what is just too much.

use super::{begin, complete, delete_all, put_part};
use crate::s3::testing::TestRequest;
use crate::s3::testing::world::{etag, refused, world};

#[test]
fn names_of_buckets_have_3_to_63_characters() {
    let world = world();
    for (length, status) in [(2, 400), (3, 200), (63, 200), (64, 400)] {
        let name = "b".repeat(length);
        assert_eq!(world.ask("PUT", &format!("/{name}"), &[], b"").status, status, "{length}");
    }
}

#[test]
fn user_metadata_has_2_kib() {
    let world = world();
    // Names count without their prefix.
    for (length, status) in [(2046, 200), (2047, 400)] {
        let value = "v".repeat(length);
        let headers = [("x-amz-meta-ab", &*value)];
        assert_eq!(world.ask("PUT", "/bucket/key", &headers, b"").status, status, "{length}");
        let begun = world.ask("POST", "/bucket/key?uploads", &headers, b"");
        assert_eq!(begun.status, status, "{length}");
        let copy = [
            ("x-amz-meta-ab", &*value),
            ("x-amz-copy-source", "bucket/key"),
            ("x-amz-metadata-directive", "REPLACE"),
        ];
        assert_eq!(world.ask("PUT", "/bucket/copy", &copy, b"").status, status, "{length}");
    }
    let (one, two) = ("v".repeat(1023), "v".repeat(1024));
    let headers = [("x-amz-meta-a", &*one), ("x-amz-meta-b", &*two)];
    refused(&world.ask("PUT", "/bucket/key", &headers, b""), 400, "MetadataTooLarge");
}

#[test]
fn metadata_comes_back_as_it_was_sent() {
    let world = world();
    let headers = [
        ("x-amz-meta-Mixed-Case", "Value"),
        ("x-amz-meta-empty", ""),
        ("cache-control", "max-age=1"),
        ("content-disposition", "inline"),
        ("content-encoding", "gzip"),
        ("content-language", "de"),
        ("content-type", "text/plain; charset=utf-8"),
        ("expires", "Thu, 01 Dec 2033 16:00:00 GMT"),
    ];
    let lower: Vec<(String, &str)> =
        headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), *value)).collect();
    let lower: Vec<(&str, &str)> = lower.iter().map(|(name, value)| (&**name, *value)).collect();
    assert_eq!(world.ask("PUT", "/bucket/key", &lower, b"data").status, 200);
    let id = begin(&world, "parts", &lower);
    assert_eq!(put_part(&world, "parts", &id, 1, b"data").status, 200);
    assert_eq!(complete(&world, "parts", &id, &[(1, &etag(b"data"))]).status, 200);
    let copy = world.ask("PUT", "/bucket/copy", &[("x-amz-copy-source", "bucket/key")], b"");
    assert_eq!(copy.status, 200);
    for key in ["key", "parts", "copy"] {
        for method in ["GET", "HEAD"] {
            let answer = world.ask(method, &format!("/bucket/{key}"), &[], b"");
            for (name, value) in &lower {
                assert_eq!(answer.header(name), *value, "{method} {key} {name}");
            }
            assert!(answer.headers.contains_key("x-amz-meta-empty"));
            assert_eq!(answer.header("accept-ranges"), "bytes");
            assert_eq!(answer.header("last-modified"), "Fri, 24 May 2013 00:00:00 GMT");
            assert_eq!(answer.header("content-length"), "4");
        }
    }
    assert_eq!(world.ask("PUT", "/bucket/bare", &[], b"").status, 200);
    let bare = world.ask("HEAD", "/bucket/bare", &[], b"");
    assert_eq!(bare.header("content-type"), "binary/octet-stream");
}

#[test]
fn parts_are_numbered_1_to_10_000() {
    let world = world();
    let id = begin(&world, "key", &[]);
    for (number, status) in [(0, 400), (1, 200), (10_000, 200), (10_001, 400)] {
        let put = put_part(&world, "key", &id, number, b"data");
        assert_eq!(put.status, status, "{number}: {put:?}");
        if status == 400 {
            refused(&put, 400, "InvalidArgument");
            let get = world.ask("GET", &format!("/bucket/key?partNumber={number}"), &[], b"");
            refused(&get, 400, "InvalidArgument");
        }
    }
    for text in ["", "one", "-1", "1.0", "99999999999"] {
        let target = format!("/bucket/key?partNumber={text}&uploadId={id}");
        refused(&world.ask("PUT", &target, &[], b"data"), 400, "InvalidArgument");
    }
    // The last one may be the only one, and small.
    let done = complete(&world, "key", &id, &[(10_000, &etag(b"data"))]);
    assert_eq!(done.status, 200, "{done:?}");
    let head = world.ask("HEAD", "/bucket/key?partNumber=10000", &[], b"");
    assert_eq!((head.status, head.header("x-amz-mp-parts-count")), (206, "1"));
}

#[test]
fn a_thousand_keys_are_deleted_at_once() {
    let world = world();
    let keys = |count: usize| (0..count).map(|number| format!("key-{number:04}"));
    assert_eq!(world.ask("PUT", "/bucket/key-0999", &[], b"x").status, 200);
    refused(&delete_all(&world, keys(1001)), 400, "MalformedXML");
    refused(&delete_all(&world, keys(0)), 400, "MalformedXML");
    assert_eq!(world.ask("HEAD", "/bucket/key-0999", &[], b"").status, 200);
    let deleted = delete_all(&world, keys(1000));
    assert_eq!((deleted.status, deleted.elements("Deleted").len()), (200, 1000));
    assert_eq!(world.ask("HEAD", "/bucket/key-0999", &[], b"").status, 404);
}

#[test]
fn one_put_has_up_to_5_gib() {
    let world = world();
    let id = begin(&world, "key", &[]);
    let part = format!("partNumber=1&uploadId={id}");
    for query in ["", &*part] {
        for (length, status) in [((5_u64 << 30) + 1, 400), (5 << 30, 100)] {
            let mut request = TestRequest::new("PUT", "/bucket/key", "UNSIGNED-PAYLOAD");
            request.query = query.to_owned();
            let request = request.sign().with("content-length", &length.to_string());
            let pipe = world.connect();
            // Whoever waits for leave to send gets it, or is told before a byte is sent.
            pipe.send(&request.with("expect", "100-continue").wire(b""));
            let answer = world.answer(&pipe, false);
            assert_eq!(answer.status, status, "{length} {query}");
            if status == 400 {
                refused(&answer, 400, "EntityTooLarge");
            }
            pipe.close();
        }
    }
}

#[test]
fn pages_have_up_to_a_thousand_entries() {
    let world = world();
    for query in ["max-keys", "list-type=2&max-keys", "versions&max-keys", "uploads&max-uploads"] {
        let name = if query.starts_with("uploads") { "MaxUploads" } else { "MaxKeys" };
        for (asked, told) in [("0", "0"), ("1", "1"), ("1000", "1000"), ("1001", "1000")] {
            let page = world.ask("GET", &format!("/bucket?{query}={asked}"), &[], b"");
            assert_eq!((page.status, page.element(name)), (200, told), "{query}={asked}");
            assert_eq!(page.element("IsTruncated"), "false");
        }
        for wrong in ["-1", "many", "1.5", "4294967296000000000000"] {
            let page = world.ask("GET", &format!("/bucket?{query}={wrong}"), &[], b"");
            refused(&page, 400, "InvalidArgument");
        }
    }
    for (asked, status) in [("0", 400), ("1", 200), ("10000", 200), ("10001", 400)] {
        let page = world.ask("GET", &format!("/?max-buckets={asked}"), &[], b"");
        assert_eq!(page.status, status, "{asked}");
    }
}

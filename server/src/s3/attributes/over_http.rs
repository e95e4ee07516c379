//! Conditions of every kind of request, in the combinations that S3 documents.

use crate::s3::testing::world::{World, etag, refused, world};

/// The time of everything that a test world writes, and the second before it.
const THEN: &str = "Fri, 24 May 2013 00:00:00 GMT";
const BEFORE: &str = "Thu, 23 May 2013 23:59:59 GMT";
const OTHER: &str = "\"00000000000000000000000000000000\"";

fn with_object() -> (World, String) {
    let world = world();
    assert_eq!(world.ask("PUT", "/bucket/key", &[], b"data").status, 200);
    (world, etag(b"data"))
}

#[test]
fn reads_weigh_conditions_as_documented() {
    let (world, etag) = with_object();
    let cases: &[(&[(&str, &str)], u16)] = &[
        (&[("if-match", &etag)], 200),
        (&[("if-match", "*")], 200),
        (&[("if-match", OTHER)], 412),
        (&[("if-none-match", &etag)], 304),
        (&[("if-none-match", "*")], 304),
        (&[("if-none-match", OTHER)], 200),
        (&[("if-modified-since", BEFORE)], 200),
        (&[("if-modified-since", THEN)], 304),
        (&[("if-unmodified-since", BEFORE)], 412),
        (&[("if-unmodified-since", THEN)], 200),
        // An ETag that matches makes the date moot, and so does one that does not.
        (&[("if-match", &etag), ("if-unmodified-since", BEFORE)], 200),
        (&[("if-match", OTHER), ("if-unmodified-since", THEN)], 412),
        (&[("if-none-match", &etag), ("if-modified-since", BEFORE)], 304),
        (&[("if-none-match", OTHER), ("if-modified-since", THEN)], 200),
        // What fails comes before what was not modified.
        (&[("if-match", OTHER), ("if-none-match", &etag)], 412),
        (&[("if-match", &etag), ("if-none-match", &etag)], 304),
        (&[("if-modified-since", "yesterday")], 200),
    ];
    for (headers, status) in cases {
        for method in ["GET", "HEAD"] {
            let answer = world.ask(method, "/bucket/key", headers, b"");
            assert_eq!(answer.status, *status, "{method} {headers:?}");
            if *status == 304 {
                assert_eq!((answer.body.len(), answer.header("etag")), (0, &*etag), "{headers:?}");
            }
            if *status == 412 && method == "GET" {
                refused(&answer, 412, "PreconditionFailed");
            }
        }
    }
    let range = [("if-none-match", &*etag), ("range", "bytes=0-1")];
    assert_eq!(world.ask("GET", "/bucket/key", &range, b"").status, 304);
    let range = [("if-match", &*etag), ("range", "bytes=0-1")];
    assert_eq!(world.ask("GET", "/bucket/key", &range, b"").status, 206);
}

#[test]
fn copies_weigh_conditions_on_their_source_as_documented() {
    let (world, etag) = with_object();
    let cases: &[(&[(&str, &str)], u16)] = &[
        (&[("x-amz-copy-source-if-match", &etag)], 200),
        (&[("x-amz-copy-source-if-match", OTHER)], 412),
        (&[("x-amz-copy-source-if-none-match", &etag)], 412),
        (&[("x-amz-copy-source-if-none-match", OTHER)], 200),
        (&[("x-amz-copy-source-if-modified-since", BEFORE)], 200),
        (&[("x-amz-copy-source-if-modified-since", THEN)], 412),
        (&[("x-amz-copy-source-if-unmodified-since", BEFORE)], 412),
        (&[("x-amz-copy-source-if-unmodified-since", THEN)], 200),
        (
            &[
                ("x-amz-copy-source-if-match", &etag),
                ("x-amz-copy-source-if-unmodified-since", BEFORE),
            ],
            200,
        ),
        (
            &[
                ("x-amz-copy-source-if-none-match", &etag),
                ("x-amz-copy-source-if-modified-since", BEFORE),
            ],
            412,
        ),
    ];
    let begun = world.ask("POST", "/bucket/parts?uploads", &[], b"");
    let part = format!("/bucket/parts?partNumber=1&uploadId={}", begun.element("UploadId"));
    for (headers, status) in cases {
        let source = ("x-amz-copy-source", "bucket/key");
        let headers: Vec<_> = headers.iter().copied().chain([source]).collect();
        for target in ["/bucket/copy", &part] {
            let answer = world.ask("PUT", target, &headers, b"");
            assert_eq!(answer.status, *status, "{target} {headers:?}");
        }
    }
}

/// A write on `key` under a condition, by whichever way.
type Write<'a> = &'a dyn Fn(&str, (&str, &str)) -> u16;

#[test]
fn every_write_keeps_its_condition() {
    let (world, data_etag) = with_object();
    let put = |key: &str, condition: (&str, &str)| {
        world.ask("PUT", &format!("/bucket/{key}"), &[condition], b"data").status
    };
    let copy = |key: &str, condition: (&str, &str)| {
        let source = ("x-amz-copy-source", "bucket/key");
        world.ask("PUT", &format!("/bucket/{key}"), &[source, condition], b"").status
    };
    let complete = |key: &str, condition: (&str, &str)| {
        let begun = world.ask("POST", &format!("/bucket/{key}?uploads"), &[], b"");
        let id = begun.element("UploadId").to_owned();
        let target = format!("/bucket/{key}?partNumber=1&uploadId={id}");
        let etag = world.ask("PUT", &target, &[], b"data").header("etag").to_owned();
        let document = format!(
            "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{etag}</ETag></Part>\
             </CompleteMultipartUpload>"
        );
        let target = format!("/bucket/{key}?uploadId={id}");
        world.ask("POST", &target, &[condition], document.as_bytes()).status
    };
    let ways: [(&str, Write); 3] = [("put", &put), ("copy", &copy), ("complete", &complete)];
    for (name, write) in ways {
        let key = format!("by-{name}");
        let current =
            || world.ask("HEAD", &format!("/bucket/{key}"), &[], b"").header("etag").to_owned();
        assert_eq!(write(&key, ("if-match", "*")), 404, "{name}: nothing is there");
        assert_eq!(write(&key, ("if-match", &data_etag)), 404, "{name}: nothing is there");
        assert_eq!(write(&key, ("if-none-match", "*")), 200, "{name}");
        assert_eq!(write(&key, ("if-none-match", "*")), 412, "{name}");
        assert_eq!(write(&key, ("if-match", OTHER)), 412, "{name}");
        assert_eq!(write(&key, ("if-match", &current())), 200, "{name}");
        assert_eq!(write(&key, ("if-match", "*")), 200, "{name}");
        assert_eq!(write(&key, ("if-none-match", &current())), 412, "{name}");
        assert_eq!(write(&key, ("if-none-match", OTHER)), 200, "{name}");
        assert_eq!(write("unborn", ("if-modified-since", BEFORE)), 501, "{name}");
        assert_eq!(write("unborn", ("if-unmodified-since", THEN)), 501, "{name}");
    }
    assert_eq!(world.ask("HEAD", "/bucket/unborn", &[], b"").status, 404);
}

/// Clients tell by it "it exists already" from "it has changed".
#[test]
fn a_refusal_names_the_condition_that_does_not_hold() {
    let (world, etag) = with_object();
    assert_eq!(world.ask("PUT", "/bucket/from", &[], b"other").status, 200);
    let source = ("x-amz-copy-source", "/bucket/from");
    let expect = |method: &'static str, headers: &[(&str, &str)], condition: &str| {
        let answer = world.ask(method, "/bucket/key", headers, b"");
        refused(&answer, 412, "PreconditionFailed");
        assert_eq!(answer.element("Condition"), condition, "{method} {headers:?}");
    };
    expect("PUT", &[("if-none-match", "*")], "If-None-Match");
    expect("PUT", &[("if-match", OTHER)], "If-Match");
    expect("PUT", &[source, ("if-none-match", "*")], "If-None-Match");
    expect("DELETE", &[("if-match", OTHER)], "If-Match");
    expect("GET", &[("if-match", OTHER), ("if-none-match", &etag)], "If-Match");
    let dated = [("if-unmodified-since", BEFORE), ("if-none-match", OTHER)];
    expect("GET", &dated, "If-Unmodified-Since");
    let either = [source, ("x-amz-copy-source-if-match", OTHER), ("if-none-match", "*")];
    let answer = world.ask("PUT", "/bucket/other", &either, b"");
    refused(&answer, 412, "PreconditionFailed");
    assert!(!answer.text().contains("<Condition>"), "{}", answer.text());
    let absent = world.ask("GET", "/bucket/absent", &[("if-match", OTHER)], b"");
    refused(&absent, 404, "NoSuchKey");
    assert!(!absent.text().contains("<Condition>"), "{}", absent.text());
}

#[test]
fn deletions_keep_their_condition() {
    let (world, etag) = with_object();
    let delete = |headers: &[(&str, &str)]| world.ask("DELETE", "/bucket/key", headers, b"");
    refused(&delete(&[("if-match", OTHER)]), 412, "PreconditionFailed");
    refused(&delete(&[("if-none-match", "*")]), 501, "NotImplemented");
    refused(&delete(&[("if-unmodified-since", THEN)]), 501, "NotImplemented");
    refused(&delete(&[("x-amz-if-match-size", "4")]), 501, "NotImplemented");
    assert_eq!(world.ask("HEAD", "/bucket/key", &[], b"").status, 200);
    assert_eq!(delete(&[("if-match", &etag)]).status, 204);
    assert_eq!(delete(&[("if-match", &etag)]).status, 204, "there is nothing to delete");
    assert_eq!(delete(&[("if-match", "*")]).status, 204);
    assert_eq!(world.ask("PUT", "/bucket/key", &[], b"data").status, 200);
    assert_eq!(delete(&[("if-match", "*")]).status, 204);
    assert_eq!(world.ask("HEAD", "/bucket/key", &[], b"").status, 404);
    let absent = world.ask("DELETE", "/absent/key", &[("if-match", "*")], b"");
    refused(&absent, 404, "NoSuchBucket");
}

#[test]
fn answers_take_the_headers_that_a_request_chooses() {
    let (world, _) = with_object();
    let target = "/bucket/key?response-cache-control=no-cache\
        &response-content-disposition=attachment%3B%20filename%3D%22a.txt%22\
        &response-content-encoding=gzip&response-content-language=de\
        &response-content-type=text%2Fplain&response-expires=Thu%2C%2001%20Dec%202033";
    let range = ("range", "bytes=0-1");
    for (method, headers, status) in
        [("GET", &[][..], 200), ("HEAD", &[][..], 200), ("GET", &[range][..], 206)]
    {
        let answer = world.ask(method, target, headers, b"");
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("cache-control"), "no-cache");
        assert_eq!(answer.header("content-disposition"), "attachment; filename=\"a.txt\"");
        assert_eq!(answer.header("content-encoding"), "gzip");
        assert_eq!(answer.header("content-language"), "de");
        assert_eq!(answer.header("content-type"), "text/plain");
        assert_eq!(answer.header("expires"), "Thu, 01 Dec 2033");
    }
    let split =
        world.ask("GET", "/bucket/key?response-content-type=a%0D%0Ax-evil%3A%201", &[], b"");
    refused(&split, 400, "InvalidArgument");
}

//! Headers that every operation knows, of requests and of answers.

use super::begin;
use crate::s3::request::OWNER_ID;
use crate::s3::testing::TestRequest;
use crate::s3::testing::world::{World, refused, world};

/// Method, target and headers of a request.
type Asked<'a> = (&'static str, &'a str, &'a [(&'a str, &'a str)]);

const SOURCE: (&str, &str) = ("x-amz-copy-source", "bucket/key");

#[test]
fn the_owner_of_a_bucket_can_be_expected() {
    let world = world();
    assert_eq!(world.ask("PUT", "/bucket/key", &[], b"data").status, 200);
    let id = begin(&world, "parts", &[]);
    let part = format!("/bucket/parts?partNumber=1&uploadId={id}");
    let cases: [Asked; 12] = [
        ("HEAD", "/bucket", &[]),
        ("GET", "/bucket?list-type=2", &[]),
        ("GET", "/bucket?policyStatus", &[]),
        ("GET", "/bucket?versioning", &[]),
        ("GET", "/bucket/key", &[]),
        ("HEAD", "/bucket/key", &[]),
        ("GET", "/bucket/key?tagging", &[]),
        ("PUT", "/bucket/other", &[]),
        ("PUT", "/bucket/other", &[SOURCE]),
        ("PUT", &part, &[SOURCE]),
        ("POST", "/bucket/other?uploads", &[]),
        ("DELETE", "/bucket/other", &[]),
    ];
    let other = "0".repeat(64);
    for (method, target, headers) in cases {
        let ask = |name: &str, owner: &str| {
            let headers: Vec<_> = headers.iter().copied().chain([(name, owner)]).collect();
            world.ask(method, target, &headers, b"")
        };
        for name in ["x-amz-expected-bucket-owner", "x-amz-source-expected-bucket-owner"] {
            assert_eq!(ask(name, &other).status, 403, "{method} {target} {name}");
        }
        let right = ask("x-amz-expected-bucket-owner", OWNER_ID);
        assert!(right.status < 300, "{method} {target} {right:?}");
    }
}

#[test]
fn headers_that_ask_for_what_is_not_there_are_never_passed_over() {
    let world = world();
    assert_eq!(world.ask("PUT", "/bucket/key", &[], b"data").status, 200);
    for name in [
        "x-amz-server-side-encryption",
        "x-amz-server-side-encryption-aws-kms-key-id",
        "x-amz-server-side-encryption-bucket-key-enabled",
        "x-amz-server-side-encryption-context",
        "x-amz-server-side-encryption-customer-algorithm",
        "x-amz-server-side-encryption-customer-key",
        "x-amz-server-side-encryption-customer-key-md5",
        "x-amz-copy-source-server-side-encryption-customer-key",
        "x-amz-object-lock-mode",
        "x-amz-object-lock-retain-until-date",
        "x-amz-object-lock-legal-hold",
        "x-amz-grant-read",
        "x-amz-grant-write",
        "x-amz-grant-full-control",
        "x-amz-website-redirect-location",
        "x-amz-write-offset-bytes",
        "x-amz-rename-source",
        "x-amz-if-match-size",
        "x-amz-if-match-last-modified-time",
    ] {
        for (method, target) in
            [("PUT", "/bucket/key"), ("POST", "/bucket/key?uploads"), ("GET", "/bucket/key")]
        {
            let answer = world.ask(method, target, &[(name, "x")], b"");
            refused(&answer, 501, "NotImplemented");
            assert!(answer.element("Message").contains(name), "{answer:?}");
        }
    }
    assert_eq!(world.ask("GET", "/bucket/key", &[], b"").text(), "data");
    for header in [("x-amz-mfa", "device 1"), ("x-amz-request-payer", "requester")] {
        assert_eq!(world.ask("GET", "/bucket/key", &[header], b"").status, 200, "{header:?}");
    }
}

#[test]
fn every_answer_says_which_request_it_is_of() {
    let world = world();
    for (method, target) in [
        ("GET", "/"),
        ("HEAD", "/bucket"),
        ("PUT", "/bucket/key"),
        ("GET", "/bucket/key"),
        ("GET", "/bucket/absent"),
        ("DELETE", "/bucket/key"),
    ] {
        let answer = world.ask(method, target, &[], b"");
        assert_eq!(answer.header("x-amz-request-id").len(), 16, "{method} {target}");
        assert!(!answer.header("x-amz-id-2").is_empty(), "{method} {target}");
        assert_eq!(answer.header("server"), "Basalt");
        assert_eq!(answer.header("date"), "Fri, 24 May 2013 00:00:00 GMT");
    }
}

#[test]
fn a_region_is_told_to_who_signs_for_another() {
    let world = World::with(1, Some("eu-1"), false);
    let ask = |method, target: &str, region: &str| {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut request = TestRequest::new(method, path, "UNSIGNED-PAYLOAD");
        request.query = query.to_owned();
        request.scope.region = region.to_owned();
        world.send(&request.sign(), b"")
    };
    let other = ask("PUT", "/bucket", "us-east-1");
    refused(&other, 400, "AuthorizationHeaderMalformed");
    assert_eq!(other.element("Region"), "eu-1");
    assert_eq!(ask("PUT", "/bucket", "eu-1").status, 200);
    let location = ask("GET", "/bucket?location", "eu-1");
    assert!(location.text().contains(">eu-1</LocationConstraint>"), "{}", location.text());
    assert_eq!(ask("HEAD", "/bucket", "eu-1").header("x-amz-bucket-region"), "eu-1");
}

//! Names that are checked are the names that are used, however a request writes them.

use super::{ALL, TAGS, allow, denied, deny, put, set, statement};
use crate::s3::testing::world::{Response, World, refused, world};
use crate::s3::testing::{ALICE, TestRequest};

/// A known class: the name that was checked was not the one that was used.
#[test]
fn a_key_is_the_same_however_it_is_sent() {
    let world = world();
    put(&world, "/bucket/secret/a");
    let statements = [allow("s3:*"), deny("s3:*", "bucket/secret/*")];
    set(&world, "bucket", &statements);
    for target in
        ["/bucket/secret/a", "/bucket/%73ecret/a", "/bucket/secret%2Fa", "/bucket/secret/%61"]
    {
        denied(&world.ask_unsigned("GET", target, &[], b""));
        denied(&world.ask_as(ALICE, "GET", target, &[], b""));
        denied(&world.ask_as(ALICE, "DELETE", target, &[], b""));
    }
    for target in [
        "/bucket/public/../secret/a",
        "/bucket//secret/a",
        "/bucket/./secret/a",
        "/bucket/Secret/a",
        "/bucket/secret%252Fa",
    ] {
        refused(&world.ask_unsigned("GET", target, &[], b""), 404, "NoSuchKey");
    }
    let hosted = [("host", "bucket.s3.test")];
    for target in ["/secret/a", "/%73ecret/a", "/secret%2Fa"] {
        denied(&world.ask_unsigned("GET", target, &hosted, b""));
    }
    // The host names the bucket, the path is a key of it, whatever it looks like.
    refused(&world.ask_unsigned("GET", "/bucket/secret/a", &hosted, b""), 404, "NoSuchKey");
    let form = multipart(&[("key", "secret/${filename}")], "b");
    denied(&post(&world, "/bucket", &form));
    assert_eq!(post(&world, "/bucket", &multipart(&[("key", "public/b")], "b")).status, 204);
}

/// A known class: two hosts in one request, of which a proxy believes the first and a server the last.
#[test]
fn a_request_has_one_host() {
    let world = world();
    let request = TestRequest::new("GET", "/bucket/key", "")
        .without("x-amz-date")
        .without("x-amz-content-sha256")
        .also("host", "bucket.s3.test");
    refused(&world.send(&request, b""), 400, "BadRequest");
}

fn multipart(fields: &[(&str, &str)], file_name: &str) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, value) in fields {
        let head = "--XX\r\nContent-Disposition: form-data; name=";
        body.extend(format!("{head}\"{name}\"\r\n\r\n{value}\r\n").bytes());
    }
    let head = "--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=";
    body.extend(format!("{head}\"{file_name}\"\r\n\r\ncontent\r\n--XX--\r\n").bytes());
    body
}

fn post(world: &World, target: &str, body: &[u8]) -> Response {
    let content_type = [("content-type", "multipart/form-data; boundary=XX")];
    world.ask_unsigned("POST", target, &content_type, body)
}

/// Known classes: a form without a policy was let in as if it had one that allows everything; one
/// whose signature has no policy beside it as if it had none.
#[test]
fn a_form_without_a_policy_is_anybodys() {
    let world = world();
    let plain = multipart(&[("key", "a")], "f");
    denied(&post(&world, "/bucket", &plain));
    set(&world, "bucket", &[allow("s3:GetObject")]);
    denied(&post(&world, "/bucket", &plain));
    set(&world, "bucket", &[allow("s3:PutObject")]);
    assert_eq!(post(&world, "/bucket", &plain).status, 204);
    for field in ["x-amz-signature", "x-amz-credential", "x-amz-algorithm", "x-amz-date"] {
        denied(&post(&world, "/bucket", &multipart(&[("key", "a"), (field, "x")], "f")));
    }
    let acl = r#"{"StringEquals": {"s3:x-amz-acl": "public-read"}}"#;
    let no_acl = statement("Deny", "\"s3:PutObject\"", ALL, acl);
    set(&world, "bucket", &[allow("s3:PutObject"), no_acl]);
    denied(&post(&world, "/bucket", &multipart(&[("key", "a"), ("acl", "public-read")], "f")));
    assert_eq!(post(&world, "/bucket", &plain).status, 204);
    let agent = r#"{"StringLike": {"aws:UserAgent": "bad*"}}"#;
    let no_agent = statement("Deny", "\"s3:*\"", ALL, agent);
    set(&world, "bucket", &[allow("s3:PutObject"), no_agent]);
    let headers = [("content-type", "multipart/form-data; boundary=XX"), ("user-agent", "badly")];
    denied(&world.ask_unsigned("POST", "/bucket", &headers, &plain));
    set(&world, "bucket", &[allow("s3:PutObject")]);
    let tags = std::str::from_utf8(TAGS).expect("text");
    denied(&post(&world, "/bucket", &multipart(&[("key", "a"), ("tagging", tags)], "f")));
}

//! Policies over HTTP. Each test of a known class names the way in which others were got past.

mod facts;
mod names;
mod needs;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use md5::{Digest, Md5};

use crate::s3::testing::world::{Response, World, refused, world};
use crate::s3::testing::{ALICE, CAROL};

type Signer = (&'static str, &'static str);

fn statement(effect: &str, action: &str, resource: &str, condition: &str) -> String {
    let condition = match condition {
        "" => String::new(),
        condition => format!(r#", "Condition": {condition}"#),
    };
    format!(
        r#"{{"Effect": "{effect}", "Principal": "*", "Action": {action},
        "Resource": {resource}{condition}}}"#
    )
}

const ALL: &str = r#"["arn:aws:s3:::bucket", "arn:aws:s3:::bucket/*"]"#;

fn allow(action: &str) -> String {
    statement("Allow", &format!("\"{action}\""), ALL, "")
}

fn allow_if(action: &str, condition: &str) -> String {
    statement("Allow", &format!("\"{action}\""), ALL, condition)
}

fn deny(action: &str, path: &str) -> String {
    statement("Deny", &format!("\"{action}\""), &format!("\"arn:aws:s3:::{path}\""), "")
}

fn set(world: &World, bucket: &str, statements: &[String]) {
    let text = format!(r#"{{"Version": "2012-10-17", "Statement": [{}]}}"#, statements.join(", "));
    let text = text.replace("arn:aws:s3:::bucket", &format!("arn:aws:s3:::{bucket}"));
    let answer = world.ask("PUT", &format!("/{bucket}?policy"), &[], text.as_bytes());
    assert_eq!(answer.status, 204, "{text}: {answer:?}");
}

fn put(world: &World, target: &str) {
    assert_eq!(world.ask("PUT", target, &[], b"content").status, 200, "{target}");
}

fn denied(answer: &Response) {
    match answer.body.is_empty() {
        true => assert_eq!(answer.status, 403, "{answer:?}"),
        false => refused(answer, 403, "AccessDenied"),
    }
}

fn deletion(keys: &[&str]) -> (Vec<u8>, String) {
    let objects: String =
        keys.iter().map(|key| format!("<Object><Key>{key}</Key></Object>")).collect();
    let body = format!("<Delete>{objects}</Delete>").into_bytes();
    let md5 = BASE64.encode(Md5::digest(&body));
    (body, md5)
}

const TAGS: &[u8] = b"<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>";
const SOURCE: &[(&str, &str)] = &[("x-amz-copy-source", "/bucket/key")];

#[test]
fn a_changed_policy_binds_at_once_and_goes_with_its_bucket() {
    let world = world();
    put(&world, "/bucket/key");
    let get = || world.ask_unsigned("GET", "/bucket/key", &[], b"");
    for _ in 0..3 {
        denied(&get());
        set(&world, "bucket", &[allow("s3:GetObject")]);
        assert_eq!(get().body, b"content");
        set(&world, "bucket", &[allow("s3:GetObject"), deny("s3:GetObject", "bucket/k*")]);
        denied(&get());
        set(&world, "bucket", &[allow("s3:GetObject")]);
        assert_eq!(get().status, 200);
        assert_eq!(world.ask("DELETE", "/bucket?policy", &[], b"").status, 204);
    }
    set(&world, "bucket", &[allow("s3:*")]);
    assert_eq!(world.ask("DELETE", "/bucket/key", &[], b"").status, 204);
    assert_eq!(world.ask("DELETE", "/bucket", &[], b"").status, 204);
    refused(&get(), 404, "NoSuchBucket");
    assert_eq!(world.ask("PUT", "/bucket", &[], b"").status, 200);
    put(&world, "/bucket/key");
    denied(&get());
    refused(&world.ask("GET", "/bucket?policy", &[], b""), 404, "NoSuchBucketPolicy");
}

/// A known class: a policy that did not parse was taken for an empty one, without its denials.
#[test]
fn a_policy_that_is_not_understood_is_no_permission() {
    let world = world();
    put(&world, "/bucket/key");
    let kept = Bytes::from_static(b"{\"Version\": \"2030-01-01\", \"Statement\": []}");
    let store = world.store.clone();
    let writing = async move { store.set_bucket_setting("bucket", "policy", Some(kept)).await };
    world.simulation.block_on(&world.runtime, writing).expect("written");
    denied(&world.ask_unsigned("GET", "/bucket/key", &[], b""));
    denied(&world.ask_as(ALICE, "GET", "/bucket/key", &[], b""));
    let status = world.ask("GET", "/bucket?policyStatus", &[], b"");
    assert_eq!(status.element("IsPublic"), "false");
    set(&world, "bucket", &[allow("s3:GetObject")]);
    assert_eq!(world.ask_unsigned("GET", "/bucket/key", &[], b"").status, 200);
}

#[test]
fn root_is_never_locked_out() {
    let world = world();
    put(&world, "/bucket/key");
    set(&world, "bucket", &[deny("s3:*", "bucket*")]);
    denied(&world.ask_as(ALICE, "GET", "/bucket/key", &[], b""));
    assert_eq!(world.ask("GET", "/bucket/key", &[], b"").status, 200);
    assert_eq!(world.ask("DELETE", "/bucket?policy", &[], b"").status, 204);
}

/// A known class: a batch was let in by one of its keys, or by none.
#[test]
fn each_key_of_a_batch_is_decided_about_by_itself() {
    let world = world();
    let keys = ["free/1", "kept/1", "free/2", "kept/2"];
    keys.iter().for_each(|key| put(&world, &format!("/bucket/{key}")));
    let (body, md5) = deletion(&keys);
    let delete = |body: &[u8], md5: &str| {
        world.ask_as(ALICE, "POST", "/bucket?delete", &[("content-md5", md5)], body)
    };
    denied(&delete(&body, &md5));
    set(&world, "bucket", &[allow("s3:GetObject")]);
    let answer = delete(&body, &md5);
    assert_eq!(answer.elements("Code"), ["AccessDenied"; 4], "{answer:?}");
    set(&world, "bucket", &[allow("s3:DeleteObject"), deny("s3:DeleteObject", "bucket/kept/*")]);
    let answer = delete(&body, &md5);
    assert_eq!(answer.elements("Code"), ["AccessDenied"; 2], "{answer:?}");
    let there = keys.map(|key| world.ask("HEAD", &format!("/bucket/{key}"), &[], b"").status);
    assert_eq!(there, [404, 200, 404, 200]);
    // The versioned form of a deletion is another action.
    let versioned =
        b"<Delete><Object><Key>free/1</Key><VersionId>null</VersionId></Object></Delete>";
    let md5 = BASE64.encode(Md5::digest(versioned));
    assert_eq!(delete(versioned, &md5).elements("Code"), ["AccessDenied"]);
    let many: Vec<String> = (0..100).map(|index| format!("kept/{index}")).collect();
    let (body, md5) = deletion(&many.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(delete(&body, &md5).elements("Code"), ["AccessDenied"; 100]);
    // What an entry compares, it reads.
    let compared = b"<Delete><Object><Key>free/1</Key><ETag>x</ETag></Object></Delete>";
    let md5 = BASE64.encode(Md5::digest(compared));
    assert_eq!(delete(compared, &md5).elements("Code"), ["AccessDenied"]);
}

/// A known class: a copy read what its sender may not read, by a source in another bucket or written
/// otherwise than the policy writes it.
#[test]
fn a_copy_reads_its_source_with_the_rights_of_who_asks() {
    let world = world();
    assert_eq!(world.ask("PUT", "/private", &[], b"").status, 200);
    put(&world, "/private/secret/a");
    put(&world, "/bucket/key");
    set(&world, "bucket", &[allow("s3:*"), deny("s3:GetObject*", "bucket/secret/*")]);
    put(&world, "/bucket/secret/a");
    let copy = |source: &str| {
        world.ask_as(ALICE, "PUT", "/bucket/copy", &[("x-amz-copy-source", source)], b"")
    };
    assert_eq!(copy("/bucket/key").status, 200);
    for source in [
        "/private/secret/a",
        "private/secret/a",
        "private%2Fsecret%2Fa",
        "/bucket/secret/a",
        "bucket/%73ecret/a",
        "bucket%2Fsecret/a",
        "bucket/secret/a?versionId=null",
    ] {
        denied(&copy(source));
        let part = "/bucket/copy?partNumber=1&uploadId=0";
        denied(&world.ask_as(ALICE, "PUT", part, &[("x-amz-copy-source", source)], b""));
    }
    // These are other keys, not other ways to write that one.
    for source in ["bucket/x/../secret/a", "bucket//secret/a", "bucket/secret%252Fa"] {
        refused(&copy(source), 404, "NoSuchKey");
    }
}

#[test]
fn absence_is_told_to_those_who_may_list() {
    let world = world();
    set(&world, "bucket", &[allow("s3:GetObject*"), allow("s3:PutObject")]);
    for (method, target) in [
        ("GET", "/bucket/absent"),
        ("HEAD", "/bucket/absent"),
        ("GET", "/bucket/absent?tagging"),
        ("GET", "/bucket/absent?acl"),
    ] {
        denied(&world.ask_as(ALICE, method, target, &[], b""));
        denied(&world.ask_unsigned(method, target, &[], b""));
    }
    let source = [("x-amz-copy-source", "bucket/absent")];
    denied(&world.ask_as(ALICE, "PUT", "/bucket/copy", &source, b""));
    let prefix = r#"{"StringLike": {"s3:prefix": "public/*"}}"#;
    set(&world, "bucket", &[allow("s3:GetObject"), allow_if("s3:ListBucket", prefix)]);
    denied(&world.ask_as(ALICE, "GET", "/bucket/absent", &[], b""));
    let public = world.ask_as(ALICE, "GET", "/bucket/public/absent", &[], b"");
    refused(&public, 404, "NoSuchKey");
    // Who may list, but not read.
    set(&world, "bucket", &[allow("s3:ListBucket")]);
    put(&world, "/bucket/key");
    denied(&world.ask_as(ALICE, "GET", "/bucket/key", &[], b""));
    refused(&world.ask_as(ALICE, "GET", "/bucket/absent", &[], b""), 404, "NoSuchKey");
}

/// A known class: links to public objects that make a browser take them for something else.
#[test]
fn nobody_unknown_chooses_the_headers_of_an_answer() {
    let world = world();
    put(&world, "/bucket/key");
    set(&world, "bucket", &[allow("s3:GetObject")]);
    let target = "/bucket/key?response-content-type=text/html";
    refused(&world.ask_unsigned("GET", target, &[], b""), 400, "InvalidRequest");
    assert_eq!(world.ask_as(ALICE, "GET", target, &[], b"").status, 200);
}

#[test]
fn users_see_and_make_the_buckets_they_may() {
    let world = world();
    for bucket in ["carols-1", "open", "shut"] {
        assert_eq!(world.ask("PUT", &format!("/{bucket}"), &[], b"").status, 200);
    }
    set(&world, "open", &[statement("Allow", "\"s3:ListBucket\"", "\"arn:aws:s3:::open\"", "")]);
    let list = |signer, query: &str| {
        let answer = world.ask_as(signer, "GET", &format!("/{query}"), &[], b"");
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.elements("Name").join(" ")
    };
    assert_eq!(list(ALICE, ""), "open");
    assert_eq!(list(CAROL, ""), "carols-1 open");
    assert_eq!(list(CAROL, "?max-buckets=1"), "carols-1");
    denied(&world.ask_unsigned("GET", "/", &[], b""));
    denied(&world.ask_as(ALICE, "PUT", "/alices", &[], b""));
    denied(&world.ask_as(CAROL, "PUT", "/alices", &[], b""));
    denied(&world.ask_unsigned("PUT", "/alices", &[], b""));
    assert_eq!(world.ask_as(CAROL, "PUT", "/carols-2", &[], b"").status, 200);
    put(&world, "/carols-1/key");
    assert_eq!(world.ask_as(CAROL, "GET", "/carols-1/key", &[], b"").status, 200);
    // Even of what its own policy allows, a bucket's policy may deny.
    let text = r#"{"Version": "2012-10-17", "Statement": {"Effect": "Deny", "Principal": {"AWS":
        "carol"}, "Action": "s3:GetObject", "Resource": "arn:aws:s3:::carols-1/*"}}"#;
    assert_eq!(world.ask("PUT", "/carols-1?policy", &[], text.as_bytes()).status, 204);
    denied(&world.ask_as(CAROL, "GET", "/carols-1/key", &[], b""));
}

#[test]
fn a_policy_is_put_got_and_deleted() {
    let world = world();
    refused(&world.ask("GET", "/bucket?policy", &[], b""), 404, "NoSuchBucketPolicy");
    refused(&world.ask("GET", "/absent?policy", &[], b""), 404, "NoSuchBucket");
    assert_eq!(world.ask("DELETE", "/bucket?policy", &[], b"").status, 204);
    let public =
        || world.ask("GET", "/bucket?policyStatus", &[], b"").element("IsPublic") == "true";
    assert!(!public());
    let text = format!(
        "{{\"Version\":\"2012-10-17\",\n \"Id\": \"\u{e9}\", \"Statement\":[ {} ]}}",
        allow("s3:GetObject")
    );
    assert_eq!(world.ask("PUT", "/bucket?policy", &[], text.as_bytes()).status, 204);
    let got = world.ask("GET", "/bucket?policy", &[], b"");
    assert_eq!((got.text(), got.header("content-type")), (text.as_str(), "application/json"));
    assert!(public());
    let malformed = [
        ("", "JSON"),
        ("{}", "Statement"),
        (&text.replace("s3:GetObject", "s3:GetThing"), "s3:GetThing"),
        (&text.replace("arn:aws:s3:::bucket", "arn:aws:s3:::other"), "other"),
        (&text.replace("Version", "Versions"), "Versions"),
    ];
    for (wrong, reason) in malformed {
        let answer = world.ask("PUT", "/bucket?policy", &[], wrong.as_bytes());
        refused(&answer, 400, "MalformedPolicy");
        assert!(answer.element("Message").contains(reason), "{answer:?}");
    }
    let long = format!("{text}{}", " ".repeat(20 << 10));
    refused(&world.ask("PUT", "/bucket?policy", &[], long.as_bytes()), 400, "EntityTooLarge");
    // Refused for what it will be, before any of it has come.
    let announced = [("content-length", "20481")];
    refused(&world.ask("PUT", "/bucket?policy", &announced, b""), 400, "EntityTooLarge");
    assert_eq!(world.ask("GET", "/bucket?policy", &[], b"").text(), text, "what was there stays");
    let full = format!("{text}{}", " ".repeat((20 << 10) - text.len()));
    assert_eq!(world.ask("PUT", "/bucket?policy", &[], full.as_bytes()).status, 204);
    assert_eq!(world.ask("GET", "/bucket?policy", &[], b"").text(), full);
    assert_eq!(world.ask("DELETE", "/bucket?policy", &[], b"").status, 204);
    refused(&world.ask("GET", "/bucket?policy", &[], b""), 404, "NoSuchBucketPolicy");
    refused(&world.ask("PUT", "/absent?policy", &[], text.as_bytes()), 404, "NoSuchBucket");
}

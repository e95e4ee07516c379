//! Policies over HTTP. Each test of a known class names the way in which others were got past.

use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use md5::{Digest, Md5};

use crate::s3::testing::world::{Response, World, refused, world};
use crate::s3::testing::{ALICE, CAROL, TestRequest};

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

/// Every operation, with the actions that it needs and a request for it.
struct Case {
    actions: &'static [&'static str],
    method: &'static str,
    target: &'static str,
    headers: &'static [(&'static str, &'static str)],
    body: &'static [u8],
}

const fn case(
    actions: &'static [&'static str],
    method: &'static str,
    target: &'static str,
) -> Case {
    Case { actions, method, target, headers: &[], body: b"" }
}

const TAGS: &[u8] = b"<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>";
const SOURCE: &[(&str, &str)] = &[("x-amz-copy-source", "/bucket/key")];

const CASES: &[Case] = &[
    case(&["ListBucket"], "HEAD", "/bucket"),
    case(&["ListBucket"], "GET", "/bucket"),
    case(&["ListBucket"], "GET", "/bucket?list-type=2"),
    case(&["ListBucketVersions"], "GET", "/bucket?versions"),
    case(&["ListBucketMultipartUploads"], "GET", "/bucket?uploads"),
    case(&["GetBucketLocation"], "GET", "/bucket?location"),
    case(&["GetBucketTagging"], "GET", "/bucket?tagging"),
    Case { body: TAGS, ..case(&["PutBucketTagging"], "PUT", "/bucket?tagging") },
    case(&["PutBucketTagging"], "DELETE", "/bucket?tagging"),
    case(&["GetBucketPolicy"], "GET", "/bucket?policy"),
    case(&["PutBucketPolicy"], "PUT", "/bucket?policy"),
    case(&["GetBucketPolicyStatus"], "GET", "/bucket?policyStatus"),
    case(&["GetBucketAcl"], "GET", "/bucket?acl"),
    Case { headers: &[("x-amz-acl", "private")], ..case(&["PutBucketAcl"], "PUT", "/bucket?acl") },
    case(&["GetBucketVersioning"], "GET", "/bucket?versioning"),
    case(&["GetBucketCORS"], "GET", "/bucket?cors"),
    case(&["PutBucketCORS"], "DELETE", "/bucket?cors"),
    case(&["GetLifecycleConfiguration"], "GET", "/bucket?lifecycle"),
    case(&["PutLifecycleConfiguration"], "DELETE", "/bucket?lifecycle"),
    case(&["GetEncryptionConfiguration"], "GET", "/bucket?encryption"),
    case(&["DeleteBucketWebsite"], "DELETE", "/bucket?website"),
    case(&["DeleteBucket"], "DELETE", "/bucket"),
    case(&["GetObject"], "GET", "/bucket/key"),
    case(&["GetObject"], "HEAD", "/bucket/key"),
    case(&["GetObjectVersion"], "GET", "/bucket/key?versionId=null"),
    case(&["GetObjectVersion"], "HEAD", "/bucket/key?versionId=null"),
    Case {
        headers: &[("x-amz-object-attributes", "ETag")],
        ..case(&["GetObject", "GetObjectAttributes"], "GET", "/bucket/key?attributes")
    },
    case(&["GetObjectAcl"], "GET", "/bucket/key?acl"),
    Case {
        headers: &[("x-amz-acl", "private")],
        ..case(&["PutObjectAcl"], "PUT", "/bucket/key?acl")
    },
    case(&["GetObjectTagging"], "GET", "/bucket/key?tagging"),
    case(&["GetObjectVersionTagging"], "GET", "/bucket/key?tagging&versionId=null"),
    Case { body: TAGS, ..case(&["PutObjectTagging"], "PUT", "/bucket/key?tagging") },
    case(&["DeleteObjectTagging"], "DELETE", "/bucket/key?tagging"),
    case(&["GetObjectRetention"], "GET", "/bucket/key?retention"),
    Case { body: b"content", ..case(&["PutObject"], "PUT", "/bucket/key") },
    Case {
        body: b"content",
        headers: &[("if-match", "*")],
        ..case(&["PutObject", "GetObject"], "PUT", "/bucket/key")
    },
    Case {
        body: b"content",
        headers: &[("if-none-match", "\"e\"")],
        ..case(&["PutObject", "GetObject"], "PUT", "/bucket/key")
    },
    Case {
        body: b"content",
        headers: &[("if-none-match", "*")],
        ..case(&["PutObject"], "PUT", "/bucket/key")
    },
    case(&["PutObject"], "POST", "/bucket/key?uploads"),
    Case { body: b"content", ..case(&["PutObject"], "PUT", "/bucket/key?partNumber=1&uploadId=0") },
    case(&["PutObject"], "POST", "/bucket/key?uploadId=0"),
    case(&["AbortMultipartUpload"], "DELETE", "/bucket/key?uploadId=0"),
    case(&["ListMultipartUploadParts"], "GET", "/bucket/key?uploadId=0"),
    Case { headers: SOURCE, ..case(&["PutObject", "GetObject"], "PUT", "/bucket/copy") },
    Case {
        headers: &[("x-amz-copy-source", "bucket/key?versionId=null")],
        ..case(&["PutObject", "GetObjectVersion"], "PUT", "/bucket/copy")
    },
    Case {
        headers: SOURCE,
        ..case(&["PutObject", "GetObject"], "PUT", "/bucket/copy?partNumber=1&uploadId=0")
    },
    case(&["DeleteObject"], "DELETE", "/bucket/gone"),
    case(&["DeleteObjectVersion"], "DELETE", "/bucket/gone?versionId=null"),
];

impl Case {
    fn ask(&self, world: &World, signer: Option<Signer>) -> Response {
        let (method, target) = (self.method, self.target);
        match signer {
            Some(signer) => world.ask_as(signer, method, target, self.headers, self.body),
            None => world.ask_unsigned(method, target, self.headers, self.body),
        }
    }
}

/// Known classes: an operation whose handler never asked, and one that asked for another action's
/// permission than it uses (uploads by parts and forms with a right to read only, copies without one to
/// read their source).
#[test]
fn every_operation_needs_its_own_actions_and_no_other() {
    let world = world();
    put(&world, "/bucket/key");
    for case in CASES {
        denied(&case.ask(&world, Some(ALICE)));
        denied(&case.ask(&world, None));
    }
    for case in CASES {
        for missing in case.actions {
            let name = format!("s3:{missing}");
            set(&world, "bucket", &[allow("s3:*"), deny(&name, "bucket*")]);
            denied(&case.ask(&world, Some(ALICE)));
            denied(&case.ask(&world, None));
        }
        let statements: Vec<String> = case
            .actions
            .iter()
            .map(|action| {
                let resource = ALL;
                let name = format!("\"s3:{action}\"");
                statement("Allow", &name, resource, "")
            })
            .collect();
        set(&world, "bucket", &statements);
        let (target, needed) = (case.target, case.actions);
        for signer in [Some(ALICE), None] {
            let answer = case.ask(&world, signer);
            assert_ne!(answer.status, 403, "{} {target} with {needed:?}: {answer:?}", case.method);
            assert_ne!(answer.status, 500, "{} {target}: {answer:?}", case.method);
        }
        for other in CASES.iter().filter(|other| other.actions.iter().any(|a| !needed.contains(a)))
        {
            denied(&other.ask(&world, Some(ALICE)));
        }
        if case.method == "DELETE" && case.target == "/bucket" {
            // The bucket was not empty.
            assert_eq!(world.ask("HEAD", "/bucket/key", &[], b"").status, 200);
        }
    }
}

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

/// A known class: settings that could not be read counted as settings that are not there.
#[test]
fn a_policy_that_cannot_be_read_is_no_permission() {
    let world = world();
    put(&world, "/bucket/key");
    set(&world, "bucket", &[allow("s3:*")]);
    (0..3).for_each(|drive| world.lose(drive));
    for signer in [Some(ALICE), None] {
        for case in CASES.iter().filter(|case| case.method != "HEAD") {
            let answer = case.ask(&world, signer);
            assert_eq!(answer.status, 503, "{} {}: {answer:?}", case.method, case.target);
        }
    }
    world.recover();
    assert_eq!(world.ask_unsigned("GET", "/bucket/key", &[], b"").status, 200);
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

/// A known class: the address was taken from a header that anybody can send.
#[test]
fn the_source_address_is_that_of_the_connection() {
    let world = world();
    put(&world, "/bucket/key");
    let inside = r#"{"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}"#;
    set(&world, "bucket", &[allow_if("s3:GetObject", inside)]);
    let get = |headers: &[(&str, &str)]| world.ask_unsigned("GET", "/bucket/key", headers, b"");
    denied(&get(&[]));
    for name in ["x-forwarded-for", "x-real-ip", "forwarded", "x-client-ip", "sourceip", "via"] {
        for value in ["10.0.0.1", "for=10.0.0.1"] {
            denied(&get(&[(name, value)]));
        }
    }
    for (address, status) in [("10.1.1.1", 200), ("::ffff:10.1.1.1", 200), ("11.1.1.1", 403)] {
        world.peer.set(address.parse::<IpAddr>().expect("an address"));
        assert_eq!(get(&[]).status, status, "{address}");
        assert_eq!(get(&[("x-forwarded-for", "12.0.0.1")]).status, status, "{address}");
    }
    let secure = r#"{"Bool": {"aws:SecureTransport": "true"}}"#;
    set(&world, "bucket", &[allow_if("s3:GetObject", secure)]);
    denied(&get(&[("x-forwarded-proto", "https"), ("securetransport", "true")]));
}

/// A known class: what a request calls itself in a header or parameter overlaid what the server knows.
#[test]
fn no_header_or_parameter_passes_itself_off_as_a_key() {
    let world = world();
    put(&world, "/bucket/key");
    for condition in [
        r#"{"StringEquals": {"aws:username": "carol"}}"#,
        r#"{"StringEquals": {"aws:userid": "carol"}}"#,
        r#"{"StringEquals": {"aws:PrincipalType": "Account"}}"#,
        r#"{"StringEquals": {"s3:authType": "POST"}}"#,
        r#"{"StringLike": {"aws:PrincipalArn": "arn:aws:iam:::user/carol"}}"#
            .replace("StringLike", "ArnLike")
            .as_str(),
        r#"{"StringEquals": {"s3:ExistingObjectTag/a": "b"}}"#,
        r#"{"StringEquals": {"s3:RequestObjectTag/a": "b"}}"#,
    ] {
        set(&world, "bucket", &[allow_if("s3:GetObject", condition)]);
        let headers = [
            ("username", "carol"),
            ("userid", "carol"),
            ("principaltype", "Account"),
            ("authtype", "POST"),
            ("principalarn", "arn:aws:iam:::user/carol"),
            ("existingobjecttag", "a=b"),
            ("x-amz-tagging", "a=b"),
            ("x-amz-username", "carol"),
        ];
        let target = "/bucket/key?aws:username=carol&username=carol&userid=carol&authType=POST\
            &tagging-a=b&ExistingObjectTag/a=b";
        denied(&world.ask_as(ALICE, "GET", target, &headers, b""));
        denied(&world.ask_unsigned("GET", target, &headers, b""));
    }
    // Two values, of which a check could see the one and others the other.
    let agent = r#"{"StringLike": {"aws:UserAgent": "good*"}}"#;
    set(&world, "bucket", &[allow_if("s3:GetObject", agent)]);
    let request = TestRequest::new("GET", "/bucket/key", "")
        .without("x-amz-date")
        .without("x-amz-content-sha256")
        .with("user-agent", "good");
    assert_eq!(world.send(&request, b"").status, 200);
    refused(&world.send(&request.also("user-agent", "bad"), b""), 400, "InvalidArgument");
}

#[test]
fn conditions_see_the_request() {
    let world = world();
    put(&world, "/bucket/key");
    type Ask<'a> = (&'static str, &'a str, &'a [(&'a str, &'a str)], &'a [u8]);
    let table: [(&str, &str, Ask<'_>, Ask<'_>); 9] = [
        (
            "s3:ListBucket",
            r#"{"StringLike": {"s3:prefix": "home/*"}, "NumericLessThanEquals": {"s3:max-keys": 10},
            "StringEquals": {"s3:delimiter": "/"}}"#,
            ("GET", "/bucket?prefix=home%2Fa&delimiter=/&max-keys=10", &[], b""),
            ("GET", "/bucket?prefix=home%2Fa&delimiter=/&max-keys=11", &[], b""),
        ),
        (
            "s3:ListBucket",
            r#"{"StringLike": {"s3:prefix": "home/*"}}"#,
            ("GET", "/bucket?list-type=2&prefix=home/", &[], b""),
            ("GET", "/bucket?list-type=2", &[], b""),
        ),
        (
            "s3:GetObject",
            r#"{"StringLike": {"aws:Referer": "https://a.example/*"}}"#,
            ("GET", "/bucket/key", &[("referer", "https://a.example/x")], b""),
            ("GET", "/bucket/key", &[("referer", "https://b.example/x")], b""),
        ),
        (
            "s3:GetObjectVersion",
            r#"{"StringEquals": {"s3:VersionId": "null"}}"#,
            ("GET", "/bucket/key?versionId=null", &[], b""),
            ("GET", "/bucket/key", &[], b""),
        ),
        (
            "s3:PutObject",
            r#"{"StringEquals": {"s3:x-amz-storage-class": "REDUCED_REDUNDANCY"}}"#,
            ("PUT", "/bucket/new", &[("x-amz-storage-class", "REDUCED_REDUNDANCY")], b"x"),
            ("PUT", "/bucket/new", &[], b"x"),
        ),
        (
            "s3:*",
            r#"{"StringLike": {"s3:x-amz-copy-source": "bucket/k*"},
            "StringEquals": {"s3:x-amz-metadata-directive": "REPLACE"}}"#,
            (
                "PUT",
                "/bucket/new",
                &[("x-amz-copy-source", "/bucket%2Fkey"), ("x-amz-metadata-directive", "REPLACE")],
                b"",
            ),
            ("PUT", "/bucket/new", &[("x-amz-copy-source", "/bucket/key")], b""),
        ),
        (
            "s3:PutObject*",
            r#"{"StringEquals": {"s3:RequestObjectTag/a": "b"},
            "ForAllValues:StringEquals": {"s3:RequestObjectTagKeys": ["a"]}}"#,
            ("PUT", "/bucket/new", &[("x-amz-tagging", "a=b")], b"x"),
            ("PUT", "/bucket/new", &[("x-amz-tagging", "a=b&c=d")], b"x"),
        ),
        (
            "s3:PutObjectTagging",
            r#"{"StringEquals": {"s3:RequestObjectTag/a": "b"}}"#,
            ("PUT", "/bucket/key?tagging", &[], TAGS),
            (
                "PUT",
                "/bucket/key?tagging",
                &[],
                b"<Tagging><TagSet><Tag><Key>a</Key><Value>c</Value></Tag></TagSet></Tagging>",
            ),
        ),
        (
            "s3:PutObject",
            r#"{"StringNotEquals": {"s3:x-amz-content-sha256": "UNSIGNED-PAYLOAD"},
            "StringEquals": {"s3:signatureversion": "AWS4-HMAC-SHA256",
            "s3:authType": "REST-HEADER", "aws:PrincipalType": "User"}}"#,
            ("PUT", "/bucket/new", &[], b"x"),
            ("PUT", "/bucket/new", &[("x-amz-content-sha256", "UNSIGNED-PAYLOAD")], b"x"),
        ),
    ];
    for (action, condition, good, bad) in table {
        set(&world, "bucket", &[allow_if(action, condition)]);
        let ask = |(method, target, headers, body): Ask<'_>| {
            world.ask_as(ALICE, method, target, headers, body)
        };
        assert_eq!(ask(good).status, 200, "{condition}");
        denied(&ask(bad));
    }
    let young = r#"{"NumericLessThan": {"s3:signatureAge": 60000},
        "StringEquals": {"s3:authType": "REST-QUERY-STRING"}}"#;
    set(&world, "bucket", &[allow_if("s3:GetObject", young)]);
    let link = TestRequest::new("GET", "/bucket/key", "").by(ALICE).presign("3600");
    assert_eq!(world.send(&link, b"").status, 200);
    world.simulation.run_for(std::time::Duration::from_secs(61));
    denied(&world.send(&link, b""));
}

/// A known class: tags that a copy does not take were counted as those that it sets.
#[test]
fn a_copy_is_judged_by_the_tags_that_it_takes() {
    let world = world();
    put(&world, "/bucket/key");
    let tagged = r#"{"StringEquals": {"s3:RequestObjectTag/a": "b"}}"#;
    let puts = allow_if("s3:PutObject*", tagged);
    set(&world, "bucket", &[puts, allow("s3:GetObject")]);
    let copy = |directive: &str| {
        let headers = [
            ("x-amz-copy-source", "/bucket/key"),
            ("x-amz-tagging", "a=b"),
            ("x-amz-tagging-directive", directive),
        ];
        world.ask_as(ALICE, "PUT", "/bucket/copy", &headers, b"")
    };
    denied(&copy("COPY"));
    assert_eq!(copy("REPLACE").status, 200);
    // Tags that come along were read, and are put.
    let headers = [("x-amz-tagging", "c=d")];
    assert_eq!(world.ask("PUT", "/bucket/key", &headers, b"x").status, 200);
    let rights = ["s3:GetObject", "s3:PutObject", "s3:GetObjectTagging", "s3:PutObjectTagging"];
    for missing in 2..4 {
        let mut granted = rights.map(allow).to_vec();
        granted.remove(missing);
        set(&world, "bucket", &granted);
        denied(&copy("COPY"));
    }
    set(&world, "bucket", &rights.map(allow));
    assert_eq!(copy("COPY").status, 200);
}

/// A known class: tags that others' rights depend on could be set by whoever may write.
#[test]
fn a_put_with_tags_needs_the_right_to_tag() {
    let world = world();
    set(&world, "bucket", &[allow("s3:PutObject")]);
    let tags = [("x-amz-tagging", "a=b")];
    assert_eq!(world.ask_as(ALICE, "PUT", "/bucket/key", &[], b"x").status, 200);
    denied(&world.ask_as(ALICE, "PUT", "/bucket/key", &tags, b"x"));
    denied(&world.ask_as(ALICE, "POST", "/bucket/key?uploads", &tags, b""));
    set(&world, "bucket", &[allow("s3:PutObject*")]);
    assert_eq!(world.ask_as(ALICE, "PUT", "/bucket/key", &tags, b"x").status, 200);
}

#[test]
fn tags_of_the_object_decide() {
    let world = world();
    for (key, tags) in [("open", "a=b"), ("closed", "a=c"), ("bare", "")] {
        let headers = [("x-amz-tagging", tags)];
        assert_eq!(world.ask("PUT", &format!("/bucket/{key}"), &headers, b"x").status, 200);
    }
    let tagged = r#"{"StringEquals": {"s3:ExistingObjectTag/a": "b"}}"#;
    set(&world, "bucket", &[allow_if("s3:*", tagged)]);
    let status =
        |method, key: &str| world.ask_as(ALICE, method, &format!("/bucket/{key}"), &[], b"").status;
    for (key, expected) in [("open", 200), ("closed", 403), ("bare", 403), ("absent", 403)] {
        assert_eq!(status("GET", key), expected, "{key}");
        assert_eq!(status("HEAD", key), expected, "{key}");
        assert_eq!(status("GET", &format!("{key}?tagging")), expected, "{key}");
    }
    let copy = |source: &str| {
        let headers = [("x-amz-copy-source", source)];
        world.ask_as(ALICE, "PUT", "/bucket/open", &headers, b"").status
    };
    assert_eq!(copy("bucket/closed"), 403);
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
    assert_eq!(world.ask("GET", "/bucket?policy", &[], b"").text(), text, "what was there stays");
    let full = format!("{text}{}", " ".repeat((20 << 10) - text.len()));
    assert_eq!(world.ask("PUT", "/bucket?policy", &[], full.as_bytes()).status, 204);
    assert_eq!(world.ask("GET", "/bucket?policy", &[], b"").text(), full);
    assert_eq!(world.ask("DELETE", "/bucket?policy", &[], b"").status, 204);
    refused(&world.ask("GET", "/bucket?policy", &[], b""), 404, "NoSuchBucketPolicy");
    refused(&world.ask("PUT", "/absent?policy", &[], text.as_bytes()), 404, "NoSuchBucket");
}

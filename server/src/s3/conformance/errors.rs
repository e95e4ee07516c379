//! Every error code there is, provoked by a request that should get it.

use super::{begin, complete, content_md5, put_part};
use crate::s3::error::Code;
use crate::s3::post::tests::TestForm;
use crate::s3::testing::world::{Response, World, refused, world};
use crate::s3::testing::{TestRequest, bearer};

const CHUNKED: &str = "STREAMING-UNSIGNED-PAYLOAD-TRAILER";

/// A PUT in unsigned chunks, with a trailer, whose body is what is given.
fn put_chunks(world: &World, length: usize, body: &[u8]) -> Response {
    let request = TestRequest::new("PUT", "/bucket/new", CHUNKED)
        .with("x-amz-decoded-content-length", &length.to_string())
        .with("x-amz-trailer", "x-amz-checksum-crc32");
    world.send(&request.sign(), body)
}

/// The answer to a request that earns the code; `None` where another test provokes it, because it takes
/// more than a request.
fn provoke(code: Code, world: &World) -> Option<Response> {
    let put = |headers: &[(&str, &str)]| world.ask("PUT", "/bucket/new", headers, b"data");
    let get = |target: &str| world.ask("GET", target, &[], b"");
    let preflight = |origin: &str| {
        let request = TestRequest::new("OPTIONS", "/bucket/key", "").with("origin", origin);
        world.send(&request.with("access-control-request-method", "GET"), b"")
    };
    let form = || TestForm::new("new", b"data");
    let upload = |parts: &[(u32, &str)]| {
        let id = begin(world, "parts", &[]);
        for number in [1, 2] {
            assert_eq!(put_part(world, "parts", &id, number, b"small").status, 200);
        }
        complete(world, "parts", &id, parts)
    };
    let small = crate::s3::testing::world::etag(b"small");
    let signed = |method, target: &str| TestRequest::new(method, target, "UNSIGNED-PAYLOAD");
    Some(match code {
        Code::AccessControlListNotSupported => {
            let controls = b"<OwnershipControls><Rule><ObjectOwnership>BucketOwnerEnforced\
                </ObjectOwnership></Rule></OwnershipControls>";
            let set = world.ask("PUT", "/bucket?ownershipControls", &[], controls);
            assert_eq!(set.status, 200);
            put(&[("x-amz-acl", "public-read")])
        }
        Code::AccessDenied => world.ask_unsigned("GET", "/bucket/key", &[], b""),
        Code::AccessForbidden => preflight("https://evil.test"),
        Code::AuthorizationHeaderMalformed => {
            let request = signed("GET", "/bucket/key");
            world.send(&request.with("authorization", "AWS4-HMAC-SHA256 Credential=a"), b"")
        }
        Code::AuthorizationQueryParametersError => {
            let mut request = signed("GET", "/bucket/key").presign("60");
            request.query = request.query.replace("X-Amz-Expires=60&", "");
            world.send(&request, b"")
        }
        Code::BadDigest => put(&[("content-md5", &content_md5(b"other"))]),
        Code::BadRequest => world.send(&TestRequest::new("OPTIONS", "/bucket/key", ""), b""),
        Code::BucketAlreadyOwnedByYou => world.ask("PUT", "/bucket", &[], b""),
        Code::BucketNotEmpty => world.ask("DELETE", "/bucket", &[], b""),
        Code::EntityTooLarge => {
            let long = " ".repeat(21 << 10);
            world.ask("PUT", "/bucket?policy", &[], long.as_bytes())
        }
        Code::EntityTooSmall => upload(&[(1, &small), (2, &small)]),
        Code::FormTooLong => form().with("x-amz-meta-a", &"v".repeat(65 << 10)).sign().send(world),
        Code::HeadersTooLarge => put(&[("cache-control", &"v".repeat(9 << 10))]),
        Code::IllegalVersioningConfiguration => {
            world.ask("PUT", "/bucket?versioning", &[], b"<VersioningConfiguration/>")
        }
        Code::IncompleteBody => put_chunks(world, 10, b"a\r\nhello"),
        Code::InvalidAccessKeyId => world.ask_as(("nobody", "secret"), "GET", "/", &[], b""),
        Code::InvalidArgument => get("/bucket/key?versionId=none"),
        Code::InvalidBucketName => world.ask("PUT", "/Bucket", &[], b""),
        Code::InvalidDigest => put(&[("content-md5", "none")]),
        Code::InvalidLocationConstraint => {
            let world = World::with(2, Some("eu-1"), false);
            let document = b"<CreateBucketConfiguration><LocationConstraint>eu-2\
                </LocationConstraint></CreateBucketConfiguration>";
            let mut request = TestRequest::new("PUT", "/other", "UNSIGNED-PAYLOAD");
            request.scope.region = "eu-1".to_owned();
            world.send(&request.sign(), document)
        }
        Code::InvalidPart => upload(&[(3, &small)]),
        Code::InvalidPartOrder => upload(&[(2, &small), (1, &small)]),
        Code::InvalidPolicyDocument => {
            form().condition("[\"content-length-range\", 5]").sign().send(world)
        }
        Code::InvalidRange => world.ask("GET", "/bucket/key", &[("range", "bytes=9-")], b""),
        Code::InvalidRequest => put(&[("x-amz-trailer", "x-amz-checksum-crc32")]),
        Code::InvalidTag => put(&[("x-amz-tagging", "=value")]),
        Code::InvalidStorageClass => put(&[("x-amz-storage-class", "GLACIER")]),
        Code::InvalidToken => put(&[("x-amz-security-token", "token")]),
        Code::InvalidUri => {
            // The test's own signer refuses such a target.
            world.ask_unsigned("GET", "/bucket/%zz", &[], b"")
        }
        Code::KeyTooLong => get(&format!("/bucket/{}", "k".repeat(1025))),
        Code::MalformedPolicy => world.ask("PUT", "/bucket?policy", &[], b"{}"),
        Code::MalformedPost => {
            let request = TestRequest::new("POST", "/bucket", "").without("x-amz-date");
            let request = request.without("x-amz-content-sha256");
            world.send(&request.with("content-type", "multipart/form-data; boundary=X"), b"none")
        }
        Code::MalformedTrailer => put_chunks(world, 0, b"0\r\nx-amz-checksum-crc32c:a\r\n\r\n"),
        Code::MalformedXml => world.ask("PUT", "/bucket?tagging", &[], b"<Tagging>"),
        Code::MaxMessageLengthExceeded => {
            let long = " ".repeat((2 << 20) + 1);
            world.ask("PUT", "/bucket?tagging", &[], long.as_bytes())
        }
        Code::MetadataTooLarge => put(&[("x-amz-meta-a", &"v".repeat(2048))]),
        Code::MethodNotAllowed => world.ask("POST", "/bucket/key", &[], b""),
        Code::MissingContentLength => {
            let request = signed("PUT", "/bucket/new").sign().with("transfer-encoding", "chunked");
            let pipe = world.connect();
            let wire = String::from_utf8(request.wire(b"")).expect("text");
            pipe.send(wire.replace("content-length: 0\r\n", "").as_bytes());
            pipe.send(b"0\r\n\r\n");
            world.answer(&pipe, false)
        }
        Code::NoSuchBucket => get("/absent"),
        Code::NoSuchBucketPolicy => get("/bucket?policy"),
        Code::NoSuchCorsConfiguration => get("/bucket?cors"),
        Code::NoSuchKey => get("/bucket/absent"),
        Code::NoSuchLifecycleConfiguration => get("/bucket?lifecycle"),
        Code::NoSuchPublicAccessBlock => get("/bucket?publicAccessBlock"),
        Code::NoSuchTagSet => get("/bucket?tagging"),
        Code::NoSuchUpload => get("/bucket/key?uploadId=0"),
        Code::NoSuchVersion => get(&format!("/bucket/key?versionId={}", "0".repeat(32))),
        Code::NoSuchWebsiteConfiguration => get("/bucket?website"),
        Code::NotImplemented => put(&[("x-amz-object-lock-mode", "GOVERNANCE")]),
        Code::ObjectLockConfigurationNotFound => get("/bucket?object-lock"),
        Code::OwnershipControlsNotFound => get("/bucket?ownershipControls"),
        Code::PayloadHashMismatch => {
            let hash = crate::s3::testing::sha256_hex(b"other");
            world.send(&TestRequest::new("PUT", "/bucket/new", &hash).sign(), b"data")
        }
        Code::PreconditionFailed => {
            world.ask("PUT", "/bucket/key", &[("if-none-match", "*")], b"data")
        }
        Code::ReplicationConfigurationNotFound => get("/bucket?replication"),
        Code::RequestTimeout => {
            let request = signed("PUT", "/bucket/new").sign().with("content-length", "9");
            let pipe = world.connect();
            pipe.send(&request.wire(b"data"));
            world.answer(&pipe, false)
        }
        Code::RequestTimeTooSkewed => {
            let mut request = signed("GET", "/bucket/key").with("x-amz-date", "20130523T000000Z");
            request.scope.timestamp = "20130523T000000Z".to_owned();
            world.send(&request.sign(), b"")
        }
        Code::ServerSideEncryptionConfigurationNotFound => get("/bucket?encryption"),
        Code::ServiceUnavailable => {
            world.lose(0);
            world.lose(1);
            let answer = put(&[]);
            world.recover();
            answer
        }
        Code::SignatureDoesNotMatch => {
            world.ask_as((crate::s3::testing::ACCESS, "other"), "GET", "/", &[], b"")
        }
        Code::SlowDown => {
            let pipe = world.connect_as_too_many();
            pipe.send(&signed("GET", "/bucket/key").sign().wire(b""));
            world.answer(&pipe, false)
        }
        Code::UriTooLong => get(&format!("/bucket?prefix={}", "p".repeat(9 << 10))),
        // A fault of the server; two that race for a slot; a drive that is full; told in JSON.
        Code::InternalError
        | Code::ConditionalRequestConflict
        | Code::StorageFull
        | Code::AdminVersionMismatch => return None,
    })
}

#[test]
fn every_code_is_answered_where_it_is_due() {
    let mut wrong = Vec::new();
    for code in Code::ALL {
        let world = world();
        assert_eq!(world.ask("PUT", "/bucket/key", &[], b"data").status, 200);
        let Some(answer) = provoke(*code, &world) else { continue };
        if (answer.status, answer.element("Code")) != (code.status().as_u16(), code.name()) {
            wrong.push(format!("{code:?}: {} {}", answer.status, answer.text()));
            continue;
        }
        refused(&answer, code.status().as_u16(), code.name());
        assert!(!answer.element("Resource").is_empty(), "{answer:?}");
        assert_eq!(answer.element("HostId"), answer.header("x-amz-id-2"));
        assert_eq!(answer.header("content-type"), "application/xml");
        let head = world.ask("HEAD", "/bucket/new", &[], b"");
        assert_eq!(head.status, 404, "{code:?} left an object behind");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn an_error_of_a_head_has_its_status_and_no_body() {
    let world = world();
    for (target, status) in [("/absent", 404), ("/bucket/absent", 404), ("/Bucket", 400)] {
        let answer = world.ask("HEAD", target, &[], b"");
        assert_eq!((answer.status, answer.body.len()), (status, 0), "{target}");
        assert!(!answer.header("x-amz-request-id").is_empty(), "{target}");
    }
    assert_eq!(world.ask("HEAD", "/bucket", &[], b"").status, 200);
}

#[test]
fn a_bearer_of_metrics_is_nobody_elsewhere() {
    let world = world();
    let claims = format!(r#"{{"sub":"{}"}}"#, crate::s3::testing::ACCESS);
    let token = bearer(r#"{"alg":"HS512"}"#, &claims, crate::s3::testing::SECRET);
    let token = format!("Bearer {token}");
    let answer = world.ask_unsigned("GET", "/bucket", &[("authorization", &token)], b"");
    refused(&answer, 400, "InvalidArgument");
}

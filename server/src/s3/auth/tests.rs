//! Requests that must pass, and every way known to us in which others were let in by mistake.

use super::*;
use crate::s3::testing::{ACCESS, ALICE, CAROL, NOW_MS, SECRET, TestRequest, users};

const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const MINUTE_MS: u64 = 60 * 1000;

fn get() -> TestRequest {
    TestRequest::new("GET", "/bucket/key", EMPTY)
}

fn code(request: &TestRequest) -> Option<Code> {
    request.authenticate(None, NOW_MS).err().map(|failure| failure.code)
}

#[test]
fn a_signed_request_passes() {
    for request in [get(), get().with("x-amz-meta-a", " a  b "), get().also("x-amz-meta-a", "é")] {
        assert_eq!(code(&request.sign()), None);
    }
    let mut listing = TestRequest::new("GET", "/bucket", EMPTY);
    listing.query = "prefix=a%2Fb&delimiter=%2F&max-keys=&list-type=2".to_owned();
    assert_eq!(code(&listing.sign()), None);
    // Blanks after the commas of the header are custom, not law.
    let request = get().sign();
    let dense = request.header("authorization").expect("is there").replace(", ", ",");
    assert_eq!(code(&request.with("authorization", &dense)), None);
}

#[test]
fn a_request_without_a_signature_is_denied() {
    let who = |request: &TestRequest| match request.passes().identity {
        Identity::Root => "root",
        Identity::User(_) => "user",
        Identity::Anonymous => "anonymous",
    };
    assert_eq!(who(&get()), "anonymous");
    assert_eq!(who(&get().sign()), "root");
    assert_eq!(who(&get().by(ALICE).sign()), "user");
    for content in ["UNSIGNED-PAYLOAD", "STREAMING-UNSIGNED-PAYLOAD-TRAILER", EMPTY] {
        let request = TestRequest::new("PUT", "/bucket/key", content)
            .with("x-amz-decoded-content-length", "5")
            .with("x-amz-trailer", "x-amz-checksum-crc32");
        assert_eq!(who(&request), "anonymous", "{content}");
    }
    for content in
        ["STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"]
    {
        let request = TestRequest::new("PUT", "/bucket/key", content);
        assert_eq!(code(&request), Some(Code::InvalidArgument), "chunks that nothing signs");
    }
    let with_token = get().with("x-amz-security-token", "x");
    assert_eq!(code(&with_token), Some(Code::InvalidToken));
}

/// A known class: a signature that is not where it is looked for was taken for none.
#[test]
fn parts_of_a_signature_are_never_taken_for_none() {
    for part in [
        "X-Amz-Signature=x",
        "x-amz-signature=x",
        "X-AMZ-CREDENTIAL=x",
        "x-amz-algorithm=AWS4-HMAC-SHA256",
        "X-Amz-Security-Token=x",
        "X-Amz-Expires=1",
        "signature=x",
        "awsaccesskeyid=x",
    ] {
        let mut request = get();
        request.query = part.to_owned();
        assert!(code(&request).is_some(), "{part}");
    }
    for value in ["", " ", "AWS4-HMAC-SHA256", "Bearer x", "Basic x"] {
        assert!(code(&get().with("authorization", value)).is_some(), "{value:?}");
    }
}

/// A known class: what was derived for one user verified another one's requests.
#[test]
fn a_signature_is_that_of_the_user_it_names() {
    let gate = Gate::new(Credentials::new(ACCESS, SECRET), users(), None);
    let ask = |request: &TestRequest| {
        let (target, headers) = (request.target().expect("parses"), request.header_map());
        let head = Head { method: request.method, target: &target, headers: &headers };
        gate.authenticate(&head, NOW_MS).map(|_| ()).map_err(|failure| failure.code)
    };
    assert_eq!(ask(&get().sign()), Ok(()));
    assert_eq!(ask(&get().by(ALICE).sign()), Ok(()));
    for (name, secret) in [(ACCESS, ALICE.1), (ALICE.0, SECRET), (ALICE.0, CAROL.1)] {
        let forged = get().by((name, secret)).sign();
        assert_eq!(ask(&forged), Err(Code::SignatureDoesNotMatch), "{name}");
    }
    let unknown = get().by(("nobody", SECRET)).sign();
    assert_eq!(ask(&unknown), Err(Code::InvalidAccessKeyId));
}

/// A known class: the seed signature of an unsigned-trailer upload was not looked at.
#[test]
fn a_fabricated_signature_does_not_pass_whatever_the_payload_form() {
    for content in [
        "UNSIGNED-PAYLOAD",
        "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
        "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
        "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
        EMPTY,
    ] {
        let request = TestRequest::new("PUT", "/bucket/key", content).sign();
        assert_eq!(code(&request), None, "{content}");
        let header = request.header("authorization").expect("is there");
        let (head, signature) = header.split_once("Signature=").expect("is there");
        for wrong in ["0".repeat(64), signature.replace(['0', '1', '2'], "3")] {
            let forged = request.clone().with("authorization", &format!("{head}Signature={wrong}"));
            assert_eq!(code(&forged), Some(Code::SignatureDoesNotMatch), "{content}");
        }
        let mut presigned = TestRequest::new("PUT", "/bucket/key", content).presign("60");
        presigned = presigned.with("x-amz-content-sha256", content);
        assert_eq!(code(&presigned), Some(Code::AccessDenied), "{content}");
        presigned = presigned.without("x-amz-content-sha256");
        let length = presigned.query.len();
        presigned.query.replace_range(length - 64.., &"0".repeat(64));
        assert_eq!(code(&presigned), Some(Code::SignatureDoesNotMatch), "{content}");
    }
}

#[test]
fn whatever_is_changed_after_signing_is_noticed() {
    let signed = get().with("x-amz-meta-a", "1").sign();
    let mismatch = Some(Code::SignatureDoesNotMatch);
    let other = TestRequest { method: "DELETE", ..signed.clone() };
    assert_eq!(code(&other), mismatch, "method");
    for path in ["/bucket/other", "/bucket//key", "/bucket/./key", "/bucket%2Fkey"] {
        let other = TestRequest { path: path.to_owned(), ..signed.clone() };
        assert_eq!(code(&other), mismatch, "{path}");
    }
    let other = TestRequest { query: "uploads".to_owned(), ..signed.clone() };
    assert_eq!(code(&other), mismatch, "query");
    for (name, value) in [
        ("host", "other"),
        ("x-amz-meta-a", "2"),
        ("x-amz-content-sha256", "UNSIGNED-PAYLOAD"),
        ("x-amz-date", "20130524T000001Z"),
    ] {
        assert_eq!(code(&signed.clone().with(name, value)), mismatch, "{name}");
        assert!(code(&signed.clone().without(name)).is_some(), "{name}");
    }
    assert_eq!(code(&signed.clone().also("x-amz-meta-a", "2")), mismatch, "a second value");
}

#[test]
fn host_and_every_amz_header_must_be_signed() {
    for (name, value) in [
        ("x-amz-meta-a", "1"),
        ("x-amz-copy-source", "/other/key"),
        ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
        ("x-amz-checksum-crc32", "AAAAAA=="),
    ] {
        let request = get().sign().with(name, value);
        assert_eq!(code(&request), Some(Code::AccessDenied), "{name}");
        let request = get().presign("60").with(name, value);
        assert_eq!(code(&request), Some(Code::AccessDenied), "{name} beside a presigned URL");
    }
    let request = get().without("host").sign().with("host", "any");
    assert_eq!(code(&request), Some(Code::AccessDenied), "host");
    let request = get().sign().also("host", "other");
    assert_eq!(code(&request), Some(Code::AccessDenied), "a second host");
    // What does not change the meaning of a request need not be signed.
    assert_eq!(code(&get().sign().with("user-agent", "any")), None);
}

#[test]
fn a_header_that_a_signature_names_must_be_there() {
    let request = get().with("x-amz-meta-a", "").sign();
    assert_eq!(code(&request), None);
    assert_eq!(code(&request.without("x-amz-meta-a")), Some(Code::AccessDenied));
}

#[test]
fn parameters_of_the_authorization_occur_once() {
    let request = get().sign();
    let header = request.header("authorization").expect("is there").to_owned();
    let malformed = Some(Code::AuthorizationHeaderMalformed);
    let twice = header.replacen("Signature=", "Signature=0, Signature=", 1);
    let unsigned = header.replacen("host;", "host;host;", 1);
    let missing = header.split_once(", Signature").expect("is there").0.to_owned();
    let unknown = format!("{header}, Extra=1");
    for wrong in [twice, unsigned, missing, unknown] {
        assert_eq!(code(&request.clone().with("authorization", &wrong)), malformed, "{wrong}");
    }
    let both = request.clone().also("authorization", &header);
    assert_eq!(code(&both), Some(Code::InvalidArgument), "two headers");

    let presigned = get().presign("60");
    let both = presigned.clone().with("authorization", &header);
    assert_eq!(code(&both), Some(Code::InvalidArgument), "header and query");
    for again in ["X-Amz-Signature=0", "X-Amz-Expires=600", "X-Amz-Date=x", "X-Amz-%53ignature=0"] {
        let mut twice = presigned.clone();
        twice.query.push_str(&format!("&{again}"));
        assert_eq!(code(&twice), Some(Code::InvalidArgument), "{again}");
    }
}

#[test]
fn other_ways_to_authorize_are_refused() {
    let request = get();
    let refused = |value: &str| code(&request.clone().with("authorization", value));
    assert_eq!(refused("AWS AKIA:c2ln"), Some(Code::InvalidRequest));
    assert_eq!(refused("Bearer token"), Some(Code::InvalidArgument));
    assert_eq!(refused(""), Some(Code::InvalidArgument));
    assert_eq!(refused("AWS4-HMAC-SHA256"), Some(Code::InvalidArgument));
    assert_eq!(refused("AWS4-ECDSA-P256-SHA256 Credential=x"), Some(Code::InvalidArgument));
    let mut second_version = get().without("x-amz-date");
    second_version.query = "AWSAccessKeyId=AKIA&Expires=1&Signature=c2ln".to_owned();
    let failure = second_version.authenticate(None, NOW_MS).err().expect("refused");
    assert!(failure.message.contains("s3v4"), "{}", failure.message);
    let form = TestRequest { method: "POST", ..get() }
        .with("content-type", "multipart/form-data; boundary=x");
    assert_eq!(code(&form), Some(Code::AccessDenied));
}

#[test]
fn clocks_may_differ_by_fifteen_minutes() {
    let request = get().sign();
    let at = |now_ms| request.authenticate(None, now_ms).err().map(|failure| failure.code);
    assert_eq!(at(NOW_MS + 15 * MINUTE_MS), None);
    assert_eq!(at(NOW_MS - 15 * MINUTE_MS), None);
    assert_eq!(at(NOW_MS + 15 * MINUTE_MS + 1), Some(Code::RequestTimeTooSkewed));
    assert_eq!(at(NOW_MS - 15 * MINUTE_MS - 1), Some(Code::RequestTimeTooSkewed));
}

#[test]
fn presigned_urls_have_their_time() {
    let request = get().presign("600");
    let at = |now_ms| request.authenticate(None, now_ms).err().map(|failure| failure.code);
    assert_eq!(at(NOW_MS), None);
    assert_eq!(at(NOW_MS + 600_000), None);
    assert_eq!(at(NOW_MS + 600_001), Some(Code::AccessDenied));
    assert_eq!(at(NOW_MS - 15 * MINUTE_MS), None);
    assert_eq!(at(NOW_MS - 15 * MINUTE_MS - 1), Some(Code::AccessDenied));
    assert_eq!(code(&get().presign("604800")), None);
    for expires in ["0", "604801", "-1", "+5", "1e3", "", "18446744073709551616"] {
        let refused = code(&get().presign(expires)).expect("refused");
        let codes = [Code::AccessDenied, Code::AuthorizationQueryParametersError];
        assert!(codes.contains(&refused), "{expires}: {refused:?}");
    }
}

#[test]
fn a_presigned_url_needs_all_of_its_parameters() {
    let presigned = get().presign("600");
    for parameter in presigned.query.split('&') {
        let rest: Vec<&str> =
            presigned.query.split('&').filter(|other| *other != parameter).collect();
        let request = TestRequest { query: rest.join("&"), ..presigned.clone() };
        let wrong = Some(Code::AuthorizationQueryParametersError);
        assert_eq!(code(&request), wrong, "without {parameter}");
    }
}

#[test]
fn parameters_of_a_presigned_url_stand_for_headers() {
    let mut request = get();
    request.query = "x-amz-meta-a=1&X-Amz-Storage-Class=STANDARD&x-id=GetObject".to_owned();
    let request = request.presign("600");
    let mut hoisted = request.passes().hoisted;
    hoisted.sort();
    let expected = [("x-amz-meta-a", "1"), ("x-amz-storage-class", "STANDARD")];
    assert_eq!(hoisted, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
}

#[test]
fn the_scope_is_checked() {
    let request = get().sign();
    let header = request.header("authorization").expect("is there").to_owned();
    let malformed = Some(Code::AuthorizationHeaderMalformed);
    for (from, to) in [
        ("20130524/", "20130523/"),
        ("/s3/", "/sts/"),
        ("aws4_request", "aws4_response"),
        ("/us-east-1/", "//"),
        ("/us-east-1/", "/us east/"),
        (ACCESS, "/"),
    ] {
        let wrong = header.replacen(from, to, 1);
        let got = code(&request.clone().with("authorization", &wrong));
        let accepted = [malformed, Some(Code::InvalidAccessKeyId)];
        assert!(accepted.contains(&got), "{to}: {got:?}");
    }
    let other = header.replacen(ACCESS, "AKIAOTHER", 1);
    let got = code(&request.clone().with("authorization", &other));
    assert_eq!(got, Some(Code::InvalidAccessKeyId));
    let late = request.clone().with("x-amz-date", "20130525T000000Z");
    assert_eq!(code(&late), malformed, "another day than the scope's");
    for wrong in ["", "yesterday", "2013-05-24T00:00:00Z"] {
        let got = code(&request.clone().with("x-amz-date", wrong));
        assert_eq!(got, Some(Code::AccessDenied), "{wrong}");
    }
}

#[test]
fn the_region_is_checked_where_one_is_configured() {
    let request = get().sign();
    assert!(request.authenticate(Some("us-east-1"), NOW_MS).is_ok());
    let failure = request.authenticate(Some("eu-west-1"), NOW_MS).err().expect("refused");
    assert_eq!(failure.code, Code::AuthorizationHeaderMalformed);
    assert_eq!(failure.region.as_deref(), Some("eu-west-1"));
}

#[test]
fn session_tokens_belong_to_nobody_here() {
    let request = get().with("x-amz-security-token", "t").sign();
    assert_eq!(code(&request), Some(Code::InvalidToken));
    let mut request = get();
    request.query = "X-Amz-Security-Token=t".to_owned();
    assert_eq!(code(&request.presign("60")), Some(Code::InvalidToken));
}

#[test]
fn the_payload_form_is_known_or_refused() {
    let form = |content: &str| {
        let request = TestRequest::new("PUT", "/bucket/key", content).sign();
        Ok::<_, Failure>(request.authenticate(None, NOW_MS)?.payload)
    };
    assert!(matches!(form(EMPTY), Ok(Payload::Hash(_))));
    assert!(matches!(form("UNSIGNED-PAYLOAD"), Ok(Payload::Unsigned)));
    assert!(matches!(form("STREAMING-UNSIGNED-PAYLOAD-TRAILER"), Ok(Payload::UnsignedChunks)));
    assert!(matches!(
        form("STREAMING-AWS4-HMAC-SHA256-PAYLOAD"),
        Ok(Payload::SignedChunks { trailers: false, .. })
    ));
    assert!(matches!(
        form("STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"),
        Ok(Payload::SignedChunks { trailers: true, .. })
    ));
    for content in [
        "",
        "unsigned-payload",
        "STREAMING-UNSIGNED-PAYLOAD",
        "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD",
        "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER-X",
        &EMPTY[1..],
    ] {
        let code = form(content).err().map(|failure| failure.code);
        assert_eq!(code, Some(Code::InvalidArgument), "{content}");
    }
    let request = get().without("x-amz-content-sha256").sign();
    assert_eq!(code(&request), Some(Code::InvalidRequest), "none at all");
}

#[test]
fn a_key_is_kept_only_after_it_verified() {
    let gate = Gate::new(Credentials::new(ACCESS, SECRET), users(), None);
    let ask = |request: &TestRequest| {
        let (target, headers) = (request.target().expect("parses"), request.header_map());
        let head = Head { method: request.method, target: &target, headers: &headers };
        gate.authenticate(&head, NOW_MS).is_ok()
    };
    let request = get().sign();
    assert!(!ask(&request.clone().with("host", "other")));
    assert!(gate.keys.get(ACCESS, &request.scope).is_none());
    assert!(ask(&request));
    assert!(gate.keys.get(ACCESS, &request.scope).is_some());
    assert!(ask(&request), "by the kept key");
    assert!(!ask(&request.with("host", "other")), "by the kept key");
}

#[test]
fn secrets_are_not_shown() {
    let credentials = Credentials::new(ACCESS, SECRET);
    assert!(!format!("{credentials:?}").contains(SECRET));
}

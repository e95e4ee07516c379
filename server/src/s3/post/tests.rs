//! Forms over HTTP.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::s3::sigv4::{Scope, SigningKey, hex_into};
use crate::s3::testing::world::{Response, World, bytes, crc32, etag, refused, world};
use crate::s3::testing::{ACCESS, SECRET, TIMESTAMP, TestRequest};

/// A form that a test makes, signs, and spoils.
#[derive(Clone)]
pub(in crate::s3) struct TestForm {
    fields: Vec<(String, String)>,
    conditions: Vec<String>,
    expiration: &'static str,
    file: Vec<u8>,
}

impl TestForm {
    /// Every field is allowed by a condition of its own.
    pub(in crate::s3) fn new(key: &str, file: &[u8]) -> Self {
        let form = Self {
            fields: Vec::new(),
            conditions: vec!["{\"bucket\": \"bucket\"}".to_owned()],
            expiration: "2013-05-24T01:00:00Z",
            file: file.to_vec(),
        };
        form.with("key", key)
    }

    pub(in crate::s3) fn with(self, name: &str, value: &str) -> Self {
        let condition = format!("[\"starts-with\", \"${name}\", \"\"]");
        self.bare(name, value).condition(&condition)
    }

    /// A field that no condition allows.
    fn bare(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(in crate::s3) fn condition(mut self, condition: &str) -> Self {
        self.conditions.push(condition.to_owned());
        self
    }

    pub(in crate::s3) fn sign(self) -> Self {
        let credential = format!("{ACCESS}/{}/us-east-1/s3/aws4_request", &TIMESTAMP[..8]);
        let form = self
            .with("x-amz-algorithm", "AWS4-HMAC-SHA256")
            .with("x-amz-credential", &credential)
            .with("x-amz-date", TIMESTAMP);
        let conditions = form.conditions.join(", ");
        let expiration = form.expiration;
        let policy =
            format!("{{\"expiration\": \"{expiration}\", \"conditions\": [{conditions}]}}");
        let policy = BASE64.encode(policy);
        let region = "us-east-1".to_owned();
        let scope = Scope { timestamp: TIMESTAMP.to_owned(), region };
        let mut signature = String::new();
        hex_into(&SigningKey::derive(SECRET, &scope).sign(&policy), &mut signature);
        form.bare("policy", &policy).bare("x-amz-signature", &signature)
    }

    fn send_to(&self, world: &World, path: &str) -> Response {
        let mut body = Vec::new();
        for (name, value) in &self.fields {
            let head = "--XX\r\nContent-Disposition: form-data; name=";
            body.extend(format!("{head}\"{name}\"\r\n\r\n{value}\r\n").bytes());
        }
        let head =
            "--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"C:\\\\a b.txt\"";
        body.extend(format!("{head}\r\nContent-Type: text/html\r\n\r\n").bytes());
        body.extend(&self.file);
        body.extend(b"\r\n--XX--\r\n");
        let request = TestRequest::new("POST", path, "")
            .without("x-amz-date")
            .without("x-amz-content-sha256")
            .with("content-type", "multipart/form-data; boundary=XX");
        world.send(&request, &body)
    }

    pub(in crate::s3) fn send(&self, world: &World) -> Response {
        self.send_to(world, "/bucket")
    }
}

#[test]
fn a_form_becomes_an_object() {
    let world = world();
    for length in [0, 10, 100_000, 5_000_000] {
        let data = bytes(length);
        let form = TestForm::new("user/${filename}", &data)
            .with("Content-Type", "text/plain")
            .with("x-amz-meta-color", "blue")
            .with("acl", "private")
            .bare("x-ignore-this", "x")
            .sign();
        let answer = form.send(&world);
        assert_eq!((answer.status, answer.header("etag")), (204, &*etag(&data)), "{answer:?}");
        assert_eq!(answer.header("location"), "/bucket/user/a%20b.txt");
        let get = world.ask("GET", "/bucket/user/a%20b.txt", &[], b"");
        assert!(get.body == data, "{length} bytes");
        assert_eq!(get.header("content-type"), "text/plain");
        assert_eq!(get.header("x-amz-meta-color"), "blue");
    }
    // To the bucket by its host.
    let form = TestForm::new("hosted", b"data").sign();
    assert_eq!(form.send_to(&world, "/bucket/").status, 204);
}

#[test]
fn a_form_chooses_its_answer() {
    let world = world();
    let with = |name: &str, value: &str| TestForm::new("k&é", b"x").with(name, value).sign();
    for (status, expected) in [("200", 200), ("201", 201), ("204", 204), ("404", 204)] {
        let answer = with("success_action_status", status).send(&world);
        assert_eq!(answer.status, expected, "{answer:?}");
        if expected == 201 {
            assert_eq!((answer.element("Bucket"), answer.element("Key")), ("bucket", "k&amp;é"));
            assert_eq!(answer.element("ETag"), etag(b"x").replace('"', "&quot;"));
        }
    }
    let page = "https://page.example/done";
    for (page, separator) in [(page.to_owned(), "?"), (format!("{page}?a=b"), "&")] {
        let answer = with("success_action_redirect", &page).send(&world);
        let hex = etag(b"x").replace('"', "%22");
        let expected = format!("{page}{separator}bucket=bucket&key=k%26%C3%A9&etag={hex}");
        assert_eq!((answer.status, answer.header("location")), (303, &*expected));
    }
    for page in ["javascript:alert(1)", "/relative", "https://a\u{1}b"] {
        let answer = with("success_action_redirect", page).send(&world);
        assert_eq!(answer.status, 204, "{page}");
    }
}

#[test]
fn what_the_policy_does_not_allow_is_refused() {
    let world = world();
    let form = || TestForm::new("key", b"data");
    let refusals = [
        (form().bare("x-amz-meta-a", "b").sign(), 403, "AccessDenied"),
        (form().condition("[\"eq\", \"$key\", \"other\"]").sign(), 403, "AccessDenied"),
        (form().condition("{\"acl\": \"private\"}").sign(), 403, "AccessDenied"),
        (form().condition("{\"bucket\": \"other\"}").sign(), 403, "AccessDenied"),
        (form().condition("[\"content-length-range\", 0, 3]").sign(), 400, "EntityTooLarge"),
        (form().condition("[\"content-length-range\", 5, 9]").sign(), 400, "EntityTooSmall"),
        (form().condition("[\"content-length-range\", 5]").sign(), 400, "InvalidPolicyDocument"),
        (form().with("bucket", "other").sign(), 403, "AccessDenied"),
        (TestForm { expiration: "2013-05-23T00:00:00Z", ..form() }.sign(), 403, "AccessDenied"),
        (TestForm { expiration: "soon", ..form() }.sign(), 400, "InvalidPolicyDocument"),
        (form(), 403, "AccessDenied"),
        (form().bare("AWSAccessKeyId", ACCESS).sign(), 400, "InvalidRequest"),
        (form().with("x-amz-security-token", "t").sign(), 400, "InvalidToken"),
        (form().with("x-amz-server-side-encryption", "AES256").sign(), 501, "NotImplemented"),
        (form().with("x-amz-storage-class", "GLACIER").sign(), 400, "InvalidStorageClass"),
        (form().with("x-amz-checksum-crc32", "AAAAAA==").sign(), 400, "BadDigest"),
        (form().with("tagging", "<Tagging/>").sign(), 400, "MalformedXML"),
        (TestForm::new("", b"data").sign(), 400, "InvalidArgument"),
        (TestForm::new(&"k".repeat(1025), b"data").sign(), 400, "KeyTooLongError"),
        (form().with("Content-Type", "a\nb").sign(), 400, "InvalidArgument"),
    ];
    for (form, status, code) in refusals {
        refused(&form.send(&world), status, code);
    }
    assert_eq!(world.ask("GET", "/bucket?list-type=2", &[], b"").element("KeyCount"), "0");
}

#[test]
fn a_form_that_was_changed_is_refused() {
    let world = world();
    let signed = TestForm::new("key", b"data").sign();
    let spoil = |name: &str, value: &str| {
        let mut form = signed.clone();
        let field = form.fields.iter_mut().find(|(there, _)| there == name).expect("it is there");
        field.1 = value.to_owned();
        form.send(&world)
    };
    let without = |name: &str| {
        let mut form = signed.clone();
        form.fields.retain(|(there, _)| there != name);
        form.send(&world)
    };
    let wide = BASE64.encode("{\"expiration\": \"2099-01-01T00:00:00Z\", \"conditions\": []}");
    refused(&spoil("policy", &wide), 403, "SignatureDoesNotMatch");
    refused(&spoil("x-amz-signature", &"0".repeat(64)), 403, "SignatureDoesNotMatch");
    let other = format!("OTHER/{}/us-east-1/s3/aws4_request", &TIMESTAMP[..8]);
    refused(&spoil("x-amz-credential", &other), 403, "InvalidAccessKeyId");
    refused(&without("policy"), 403, "AccessDenied");
    refused(&without("x-amz-signature"), 400, "InvalidArgument");
    refused(&without("x-amz-algorithm"), 400, "InvalidArgument");
    // What was signed for one bucket is good for no other, and for a bucket only.
    assert_eq!(world.ask("PUT", "/second", &[], b"").status, 200);
    refused(&signed.send_to(&world, "/second"), 403, "AccessDenied");
    refused(&signed.send_to(&world, "/bucket/key"), 405, "MethodNotAllowed");
    refused(&signed.send_to(&world, "/"), 405, "MethodNotAllowed");
    assert_eq!(signed.send(&world).status, 204);
}

#[test]
fn a_form_brings_tags_and_checksums() {
    let world = world();
    let tags = "<Tagging><TagSet><Tag><Key>a</Key><Value>1</Value></Tag></TagSet></Tagging>";
    let form = TestForm::new("key", b"data")
        .with("tagging", tags)
        .with("x-amz-checksum-crc32", &crc32(b"data"))
        .sign();
    assert_eq!(form.send(&world).status, 204);
    let head = world.ask("HEAD", "/bucket/key", &[("x-amz-checksum-mode", "ENABLED")], b"");
    assert_eq!(head.header("x-amz-tagging-count"), "1");
    assert_eq!(head.header("x-amz-checksum-crc32"), crc32(b"data"));
}

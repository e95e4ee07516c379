use serde_json::Value;

use crate::s3::testing::world::{Response, World, world};
use crate::s3::testing::{ALICE, CAROL, TestRequest};

/// Of no body.
const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn get(path: &str, region: &str) -> TestRequest {
    let mut request = TestRequest::new("GET", path, EMPTY);
    request.scope.region = region.to_owned();
    request
}

fn refusal(response: &Response) -> (u16, String) {
    assert_eq!(response.header("content-type"), "application/json");
    let told: Value = serde_json::from_str(response.text()).expect("JSON");
    assert_eq!(told["RequestId"], response.header("x-amz-request-id"));
    assert!(told["Message"].as_str().is_some_and(|text| !text.is_empty()), "{told}");
    (response.status, told["Code"].as_str().expect("a code").to_owned())
}

#[test]
fn root_is_told_whatever_region_it_signs_for() {
    for (world, region) in [
        (world(), ""),
        (world(), "us-east-1"),
        (World::with(1, Some("eu-west-1"), false), ""),
        (World::with(1, Some("eu-west-1"), false), "us-east-1"),
    ] {
        let told = world.send(&get("/minio/admin/v3/info", region).sign(), b"");
        assert_eq!((told.status, told.text()), (200, r#"{"of":"Info"}"#), "{region}");
        assert_eq!(told.header("content-type"), "application/json");
    }
    let objects = world().send(&get("/bucket/key", "").sign(), b"");
    assert_eq!(objects.element("Code"), "AuthorizationHeaderMalformed", "S3 wants a region");
}

#[test]
fn nobody_else_is_told() {
    let world = world();
    let denied = (403, "AccessDenied".to_owned());
    for path in ["/minio/admin/v3/info", "/minio/admin/v3/service"] {
        for user in [ALICE, CAROL] {
            let request = get(path, "").by(user).sign();
            assert_eq!(refusal(&world.send(&request, b"")), denied, "{user:?} {path}");
        }
        let unsigned = get(path, "").without("x-amz-date").without("x-amz-content-sha256");
        assert_eq!(refusal(&world.send(&unsigned, b"")), denied, "{path}");
        let wrong = get(path, "").by((crate::s3::testing::ACCESS, "another-secret")).sign();
        let code = (403, "SignatureDoesNotMatch".to_owned());
        assert_eq!(refusal(&world.send(&wrong, b"")), code, "{path}");
    }
    let presigned = TestRequest::new("GET", "/minio/admin/v3/info", "UNSIGNED-PAYLOAD");
    let refused = refusal(&world.send(&presigned.presign("60"), b""));
    assert_eq!(refused, denied, "a link is not enough");
}

#[test]
fn what_is_not_there_says_so() {
    let world = world();
    for (method, path) in [("GET", "/minio/admin/v3/list-users"), ("POST", "/minio/admin/v3/info")]
    {
        let mut request = get(path, "");
        request.method = method;
        let response = world.send(&request.sign(), b"");
        assert_eq!(refusal(&response), (501, "NotImplemented".to_owned()));
        assert!(response.text().contains(path), "{}", response.text());
    }
    // Signed or not: a client has to learn which version to speak.
    let newer = world.ask_unsigned("GET", "/minio/admin/v4/info", &[], b"");
    assert_eq!(refusal(&newer), (426, "XMinioAdminVersionMismatch".to_owned()));
}

#[test]
fn below_a_domain_the_path_is_a_key() {
    let request = get("/minio/admin/v3/info", "us-east-1").with("host", "bucket.s3.test");
    let response = world().send(&request.sign(), b"");
    assert_eq!((response.status, response.element("Code")), (404, "NoSuchKey"));
}

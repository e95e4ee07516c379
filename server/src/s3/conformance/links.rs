//! Presigned links, for every verb.

use super::{begin, content_md5, put_part};
use crate::s3::testing::TestRequest;
use crate::s3::testing::world::{World, etag, refused, world};

fn link(method: &'static str, target: &str) -> TestRequest {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut request = TestRequest::new(method, path, "");
    request.query = query.to_owned();
    request
}

fn follow(world: &World, method: &'static str, target: &str, body: &[u8]) -> u16 {
    world.send(&link(method, target).presign("60"), body).status
}

#[test]
fn every_verb_works_by_a_link() {
    let world = world();
    assert_eq!(follow(&world, "PUT", "/other", b""), 200);
    assert_eq!(follow(&world, "HEAD", "/other", b""), 200);
    assert_eq!(follow(&world, "GET", "/", b""), 200);
    assert_eq!(follow(&world, "PUT", "/bucket/key", b"data"), 200);
    assert_eq!(follow(&world, "HEAD", "/bucket/key", b""), 200);
    assert_eq!(follow(&world, "GET", "/bucket/key", b""), 200);
    assert_eq!(follow(&world, "GET", "/bucket?list-type=2&prefix=k", b""), 200);
    assert_eq!(follow(&world, "GET", "/bucket?versions", b""), 200);
    let tags = b"<Tagging><TagSet/></Tagging>";
    assert_eq!(follow(&world, "PUT", "/bucket/key?tagging", tags), 200);
    assert_eq!(follow(&world, "GET", "/bucket/key?tagging", b""), 200);
    let created = world.send(&link("POST", "/bucket/parts?uploads").presign("60"), b"");
    let id = created.element("UploadId").to_owned();
    let part = format!("/bucket/parts?partNumber=1&uploadId={id}");
    assert_eq!(follow(&world, "PUT", &part, b"data"), 200);
    let parts = format!("/bucket/parts?uploadId={id}");
    assert_eq!(follow(&world, "GET", &parts, b""), 200);
    let document = format!(
        "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{}</ETag></Part>\
         </CompleteMultipartUpload>",
        etag(b"data")
    );
    assert_eq!(follow(&world, "POST", &parts, document.as_bytes()), 200);
    let id = begin(&world, "aborted", &[]);
    assert_eq!(put_part(&world, "aborted", &id, 1, b"x").status, 200);
    assert_eq!(follow(&world, "DELETE", &format!("/bucket/aborted?uploadId={id}"), b""), 204);
    let document = b"<Delete><Object><Key>parts</Key></Object></Delete>";
    let delete = link("POST", "/bucket?delete").presign("60");
    let delete = delete.with("content-md5", &content_md5(document));
    assert_eq!(world.send(&delete, document).status, 200);
    assert_eq!(follow(&world, "DELETE", "/bucket/key", b""), 204);
    assert_eq!(follow(&world, "DELETE", "/other", b""), 204);
}

#[test]
fn a_link_is_good_for_what_it_was_made_for() {
    let world = world();
    assert_eq!(world.ask("PUT", "/bucket/key", &[], b"data").status, 200);
    let get = link("GET", "/bucket/key").presign("60");
    for method in ["PUT", "DELETE", "HEAD"] {
        let other = TestRequest { method, ..get.clone() };
        assert_eq!(world.send(&other, b"").status, 403, "{method}");
    }
    let elsewhere = TestRequest { path: "/bucket/other".to_owned(), ..get.clone() };
    refused(&world.send(&elsewhere, b""), 403, "SignatureDoesNotMatch");
    let mut wider = get.clone();
    wider.query.push_str("&response-content-type=text%2Fhtml");
    refused(&world.send(&wider, b""), 403, "SignatureDoesNotMatch");
    let host = get.clone().with("host", "other.test");
    refused(&world.send(&host, b""), 403, "SignatureDoesNotMatch");
    assert_eq!(world.send(&get, b"").text(), "data");
}

#[test]
fn a_link_lives_for_1_second_to_7_days() {
    let world = world();
    assert_eq!(world.ask("PUT", "/bucket/key", &[], b"data").status, 200);
    for (expires, status) in [("0", 403), ("1", 200), ("604800", 200), ("604801", 403), ("x", 403)]
    {
        let answer = world.send(&link("GET", "/bucket/key").presign(expires), b"");
        assert_eq!(answer.status, status, "{expires}: {answer:?}");
    }
    let short = link("GET", "/bucket/key").presign("30");
    world.simulation.run_for(std::time::Duration::from_secs(29));
    assert_eq!(world.send(&short, b"").status, 200);
    world.simulation.run_for(std::time::Duration::from_secs(3));
    refused(&world.send(&short, b""), 403, "AccessDenied");
}

#[test]
fn headers_may_stand_in_a_link() {
    let world = world();
    let query = "/bucket/key?x-amz-meta-color=blue&x-amz-tagging=a%3Db";
    assert_eq!(follow(&world, "PUT", query, b"data"), 200);
    let head = world.ask("HEAD", "/bucket/key", &[], b"");
    assert_eq!(head.header("x-amz-meta-color"), "blue");
    assert_eq!(head.header("x-amz-tagging-count"), "1");
    let unsigned = link("PUT", "/bucket/key").presign("60").with("x-amz-meta-color", "red");
    refused(&world.send(&unsigned, b"data"), 403, "AccessDenied");
}

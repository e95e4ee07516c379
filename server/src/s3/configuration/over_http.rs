//! Configuration of a bucket, and what it does, over HTTP.

use super::{Ownership, PublicAccess};
use crate::s3::testing::world::{Response, World, refused, world};
use crate::s3::testing::{ALICE, TestRequest};

const ANYBODY_READS: &str = r#"{"Version": "2012-10-17", "Statement": {"Effect": "Allow",
    "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::bucket/*"}}"#;
const ALICE_READS: &str = r#"{"Version": "2012-10-17", "Statement": {"Effect": "Allow",
    "Principal": {"AWS": "alice"}, "Action": "s3:GetObject", "Resource": "arn:aws:s3:::bucket/*"}}"#;

fn block(world: &World, flags: &[&str]) {
    let flags: String = flags.iter().map(|name| format!("<{name}>true</{name}>")).collect();
    let document =
        format!("<PublicAccessBlockConfiguration>{flags}</PublicAccessBlockConfiguration>");
    let put = world.ask("PUT", "/bucket?publicAccessBlock", &[], document.as_bytes());
    assert_eq!(put.status, 200, "{put:?}");
}

fn own(world: &World, ownership: &str) -> Response {
    let document = format!(
        "<OwnershipControls><Rule><ObjectOwnership>{ownership}</ObjectOwnership></Rule>\
         </OwnershipControls>"
    );
    world.ask("PUT", "/bucket?ownershipControls", &[], document.as_bytes())
}

fn policy(world: &World, text: &str) -> Response {
    world.ask("PUT", "/bucket?policy", &[], text.as_bytes())
}

#[test]
fn documents_are_understood_or_refused() {
    let of = |inner: &str| {
        let root = "PublicAccessBlockConfiguration";
        PublicAccess::parse(format!("<{root}>{inner}</{root}>").as_bytes()).ok()
    };
    let all = PublicAccess {
        blocks_acls: true,
        ignores_acls: true,
        blocks_policy: true,
        restricts: true,
    };
    assert_eq!(of(""), Some(PublicAccess::default()));
    let restricts = PublicAccess { restricts: true, ..PublicAccess::default() };
    assert_eq!(of("<RestrictPublicBuckets>TRUE</RestrictPublicBuckets>"), Some(restricts));
    assert_eq!(of("<BlockPublicAcls>maybe</BlockPublicAcls>"), None);
    assert_eq!(of("<Other>true</Other>"), None);
    for one in [all, restricts, PublicAccess::default()] {
        assert_eq!(PublicAccess::parse(one.document().as_bytes()), Ok(one));
    }
    for one in Ownership::ALL {
        assert_eq!(Ownership::parse(one.document().as_bytes()), Ok(one));
    }
    for wrong in ["", "<Rule/>", "<Rule><ObjectOwnership>Mine</ObjectOwnership></Rule>"] {
        let document = format!("<OwnershipControls>{wrong}</OwnershipControls>");
        assert!(Ownership::parse(document.as_bytes()).is_err(), "{wrong}");
    }
}

#[test]
fn configuration_comes_and_goes_with_its_bucket() {
    let world = world();
    let cors = b"<CORSConfiguration><CORSRule><AllowedOrigin>*</AllowedOrigin>\
        <AllowedMethod>GET</AllowedMethod></CORSRule></CORSConfiguration>";
    let public = b"<PublicAccessBlockConfiguration><BlockPublicPolicy>true</BlockPublicPolicy>\
        </PublicAccessBlockConfiguration>";
    let controls = b"<OwnershipControls><Rule><ObjectOwnership>ObjectWriter</ObjectOwnership>\
        </Rule></OwnershipControls>";
    let cases: [(&str, &[u8], &str, &str, &str); 3] = [
        ("cors", cors, "NoSuchCORSConfiguration", "AllowedMethod", "GET"),
        (
            "publicAccessBlock",
            public,
            "NoSuchPublicAccessBlockConfiguration",
            "BlockPublicPolicy",
            "true",
        ),
        (
            "ownershipControls",
            controls,
            "OwnershipControlsNotFoundError",
            "ObjectOwnership",
            "ObjectWriter",
        ),
    ];
    for (name, document, missing, element, value) in cases {
        let target = format!("/bucket?{name}");
        let ask = |method, body: &[u8]| world.ask(method, &target, &[], body);
        refused(&ask("GET", b""), 404, missing);
        refused(&ask("PUT", b"<Other/>"), 400, "MalformedXML");
        refused(&ask("PUT", b""), 400, "MalformedXML");
        assert_eq!(ask("PUT", document).status, 200, "{name}");
        let got = ask("GET", b"");
        assert_eq!((got.status, got.element(element)), (200, value), "{got:?}");
        assert_eq!(got.header("content-type"), "application/xml");
        // What is kept is answered in a form that can be put again.
        assert_eq!(ask("PUT", &got.body).status, 200, "{name}");
        assert_eq!(ask("DELETE", b"").status, 204);
        assert_eq!(ask("DELETE", b"").status, 204, "there is nothing to remove");
        refused(&ask("GET", b""), 404, missing);
        for method in ["GET", "PUT", "DELETE"] {
            let absent = world.ask(method, &format!("/absent?{name}"), &[], document);
            refused(&absent, 404, "NoSuchBucket");
        }
        let md5 = [("content-md5", "CY9rzUYh03PK3k6DJie09g==")];
        refused(&world.ask("PUT", &target, &md5, document), 400, "BadDigest");
        assert_eq!(ask("PUT", document).status, 200);
    }
    assert_eq!(world.ask("DELETE", "/bucket", &[], b"").status, 204);
    assert_eq!(world.ask("PUT", "/bucket", &[], b"").status, 200);
    for (name, _, missing, ..) in cases {
        refused(&world.ask("GET", &format!("/bucket?{name}"), &[], b""), 404, missing);
    }
}

#[test]
fn a_public_policy_can_be_blocked() {
    let world = world();
    block(&world, &["BlockPublicPolicy"]);
    refused(&policy(&world, ANYBODY_READS), 403, "AccessDenied");
    refused(&world.ask("GET", "/bucket?policy", &[], b""), 404, "NoSuchBucketPolicy");
    assert_eq!(policy(&world, ALICE_READS).status, 204);
    block(&world, &["BlockPublicAcls", "IgnorePublicAcls"]);
    assert_eq!(policy(&world, ANYBODY_READS).status, 204);
}

#[test]
fn a_public_bucket_can_be_restricted_to_users() {
    let world = world();
    assert_eq!(world.ask("PUT", "/bucket/key", &[], b"data").status, 200);
    assert_eq!(policy(&world, ANYBODY_READS).status, 204);
    let anonymous = || world.ask_unsigned("GET", "/bucket/key", &[], b"");
    let alice = || world.ask_as(ALICE, "GET", "/bucket/key", &[], b"");
    assert_eq!((anonymous().status, alice().status), (200, 200));
    block(&world, &["RestrictPublicBuckets"]);
    refused(&anonymous(), 403, "AccessDenied");
    assert_eq!(alice().status, 200);
    assert_eq!(world.ask("GET", "/bucket/key", &[], b"").status, 200);
    // A form is the anonymous' too, and so is what a copy reads.
    let status = world.ask("GET", "/bucket?policyStatus", &[], b"");
    assert_eq!(status.element("IsPublic"), "true", "it is the policy that is public");
    let delete = world.ask("DELETE", "/bucket?publicAccessBlock", &[], b"");
    assert_eq!((delete.status, anonymous().status), (204, 200));
}

/// What somebody writes with that ACL, in every way: PUT, copy, upload, bucket and object ACL.
fn by_every_way(world: &World, acl: &str) -> Vec<Response> {
    let acl = ("x-amz-acl", acl);
    let source = ("x-amz-copy-source", "/bucket/key");
    vec![
        world.ask("PUT", "/bucket/new", &[acl], b"data"),
        world.ask("PUT", "/bucket/new", &[acl, source], b""),
        world.ask("POST", "/bucket/new?uploads", &[acl], b""),
        world.ask("PUT", "/bucket?acl", &[acl], b""),
        world.ask("PUT", "/bucket/key?acl", &[acl], b""),
    ]
}

#[test]
fn acls_of_others_can_be_blocked() {
    let world = world();
    assert_eq!(world.ask("PUT", "/bucket/key", &[], b"data").status, 200);
    let statuses = |acl: &str| -> Vec<u16> {
        by_every_way(&world, acl).iter().map(|answer| answer.status).collect()
    };
    for acl in ["private", "bucket-owner-full-control"] {
        assert_eq!(statuses(acl), [200; 5], "{acl}");
    }
    assert_eq!(statuses("public-read"), [200, 200, 200, 501, 501]);
    for answer in by_every_way(&world, "mine") {
        refused(&answer, 400, "InvalidArgument");
    }
    block(&world, &["BlockPublicAcls"]);
    for acl in ["public-read", "public-read-write", "authenticated-read"] {
        for answer in by_every_way(&world, acl) {
            refused(&answer, 403, "AccessDenied");
        }
    }
    assert_eq!(statuses("bucket-owner-read"), [200, 200, 200, 501, 501]);
    assert_eq!(own(&world, "BucketOwnerEnforced").status, 200);
    for acl in ["public-read", "bucket-owner-read", "log-delivery-write"] {
        for answer in by_every_way(&world, acl) {
            refused(&answer, 400, "AccessControlListNotSupported");
        }
    }
    assert_eq!(statuses("bucket-owner-full-control"), [200; 5]);
    for ownership in ["BucketOwnerPreferred", "ObjectWriter"] {
        assert_eq!(own(&world, ownership).status, 200);
        assert_eq!(statuses("bucket-owner-read"), [200, 200, 200, 501, 501]);
    }
}

#[test]
fn a_bucket_may_be_created_with_its_ownership() {
    let world = world();
    let create = |name: &str, ownership: &str| {
        let headers = [("x-amz-object-ownership", ownership)];
        world.ask("PUT", &format!("/{name}"), &headers, b"")
    };
    refused(&create("mine", "Mine"), 400, "InvalidArgument");
    assert_eq!(world.ask("HEAD", "/mine", &[], b"").status, 404);
    assert_eq!(create("mine", "BucketOwnerEnforced").status, 200);
    let got = world.ask("GET", "/mine?ownershipControls", &[], b"");
    assert_eq!(got.element("ObjectOwnership"), "BucketOwnerEnforced");
}

/// Asks from a page: the origin and methods that are allowed, after the status.
fn from_page(world: &World, method: &'static str, origin: &str) -> (u16, String, String) {
    let answer = world.ask(method, "/bucket/key", &[("origin", origin)], b"");
    let allowed = |name: &str| answer.header(name).to_owned();
    let origin = allowed("access-control-allow-origin");
    (answer.status, origin, allowed("access-control-allow-methods"))
}

fn preflight(world: &World, origin: &str, method: &str, headers: &str) -> Response {
    let request = TestRequest::new("OPTIONS", "/bucket/key", "").with("origin", origin);
    let request = request.with("access-control-request-method", method);
    let request = match headers.is_empty() {
        true => request,
        false => request.with("access-control-request-headers", headers),
    };
    world.send(&request, b"")
}

#[test]
fn pages_are_let_in_by_the_rules_of_the_bucket() {
    let world = world();
    assert_eq!(world.ask("PUT", "/bucket/key", &[], b"data").status, 200);
    let none = (200, String::new(), String::new());
    // The server's own rules let this one in, the bucket's do not.
    let origin = "https://a.example";
    assert_eq!(from_page(&world, "GET", origin).1, origin);
    let rules = b"<CORSConfiguration><CORSRule><AllowedOrigin>https://*.test</AllowedOrigin>\
        <AllowedMethod>GET</AllowedMethod><AllowedMethod>PUT</AllowedMethod>\
        <AllowedHeader>x-amz-*</AllowedHeader><ExposeHeader>ETag</ExposeHeader>\
        <ExposeHeader>x-amz-meta-a</ExposeHeader><MaxAgeSeconds>60</MaxAgeSeconds></CORSRule>\
        <CORSRule><AllowedOrigin>*</AllowedOrigin><AllowedMethod>HEAD</AllowedMethod></CORSRule>\
        </CORSConfiguration>";
    assert_eq!(world.ask("PUT", "/bucket?cors", &[], rules).status, 200);
    assert_eq!(from_page(&world, "GET", origin), none);
    let page = "https://page.test";
    assert_eq!(from_page(&world, "GET", page), (200, page.to_owned(), "GET, PUT".to_owned()));
    assert_eq!(from_page(&world, "HEAD", page), (200, "*".to_owned(), "HEAD".to_owned()));
    let deleted = world.ask("DELETE", "/bucket/absent", &[("origin", page)], b"");
    assert_eq!((deleted.status, deleted.header("access-control-allow-origin")), (204, ""));

    let allowed = preflight(&world, page, "PUT", "X-Amz-Date, x-amz-acl");
    assert_eq!(allowed.status, 200);
    for (name, value) in [
        ("access-control-allow-origin", page),
        ("access-control-allow-methods", "GET, PUT"),
        ("access-control-allow-headers", "X-Amz-Date, x-amz-acl"),
        ("access-control-expose-headers", "ETag, x-amz-meta-a"),
        ("access-control-max-age", "60"),
        ("access-control-allow-credentials", "true"),
        ("vary", "Origin, Access-Control-Request-Headers, Access-Control-Request-Method"),
    ] {
        assert_eq!(allowed.header(name), value, "{name}");
    }
    let open = preflight(&world, "https://any", "HEAD", "");
    assert_eq!((open.status, open.header("access-control-allow-origin")), (200, "*"));
    assert_eq!(open.header("access-control-allow-credentials"), "");
    for (origin, method, headers) in [
        (page, "DELETE", ""),
        (page, "PUT", "range"),
        (page, "put", ""),
        (origin, "GET", ""),
        ("https://page.test.evil", "GET", ""),
    ] {
        let answer = preflight(&world, origin, method, headers);
        refused(&answer, 403, "AccessForbidden");
        assert_eq!(answer.header("access-control-allow-origin"), "", "{origin} {method}");
    }
    // An error of a page that is let in can be read by it.
    let absent = world.ask("GET", "/bucket/absent", &[("origin", page)], b"");
    assert_eq!((absent.status, absent.header("access-control-allow-origin")), (404, page));
    assert_eq!(world.ask("DELETE", "/bucket?cors", &[], b"").status, 204);
    assert_eq!(from_page(&world, "GET", origin).1, origin);
}

//! What policies are told of a request, and what passes itself off as such.

use std::net::IpAddr;

use super::{TAGS, allow, allow_if, denied, put, set};
use crate::s3::testing::world::{refused, world};
use crate::s3::testing::{ALICE, TestRequest};

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

//! Requests over HTTP to a whole server on simulated drives.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use md5::{Digest, Md5};

use crate::s3::testing::TestRequest;
use crate::s3::testing::world::{bytes, crc32, etag, refused, world};

/// A PUT in chunks, and its body.
fn chunked(key: &str, form: &str, data: &[u8], chunk: usize) -> (TestRequest, Vec<u8>) {
    let (is_signed, has_trailer) = (form.contains("HMAC"), form.ends_with("TRAILER"));
    let mut request = TestRequest::new("PUT", &format!("/bucket/{key}"), form)
        .with("content-encoding", "aws-chunked")
        .with("x-amz-decoded-content-length", &data.len().to_string());
    if has_trailer {
        request = request.with("x-amz-trailer", "x-amz-checksum-crc32");
    }
    let request = request.sign();
    let mut chain = request.chain();
    let mut body = Vec::new();
    for piece in data.chunks(chunk).chain([&b""[..]]) {
        body.extend(format!("{:x}", piece.len()).bytes());
        if is_signed {
            body.extend(format!(";chunk-signature={}", chain.sign_chunk(piece)).bytes());
        }
        body.extend(b"\r\n");
        body.extend(piece);
        if !piece.is_empty() {
            body.extend(b"\r\n");
        }
    }
    if has_trailer {
        let line = format!("x-amz-checksum-crc32:{}", crc32(data));
        body.extend(format!("{line}\r\n").bytes());
        if is_signed {
            let signature = chain.sign_trailers(&format!("{line}\n"));
            body.extend(format!("x-amz-trailer-signature:{signature}\r\n").bytes());
        }
    }
    body.extend(b"\r\n");
    (request, body)
}

const FORMS: [&str; 3] = [
    "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
    "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
    "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
];

#[test]
fn buckets_come_and_go() {
    let world = world();
    let again = world.ask("PUT", "/bucket", &[], b"");
    refused(&again, 409, "BucketAlreadyOwnedByYou");
    assert_eq!(world.ask("HEAD", "/bucket", &[], b"").status, 200);
    let location = world.ask("GET", "/bucket?location", &[], b"");
    assert_eq!((location.status, location.element("LocationConstraint")), (200, ""));
    let document = b"<CreateBucketConfiguration><LocationConstraint>eu</LocationConstraint>\
        </CreateBucketConfiguration>";
    assert_eq!(world.ask("PUT", "/other-bucket", &[], document).status, 200);
    let list = world.ask("GET", "/", &[], b"");
    assert!(list.text().contains("<Name>bucket</Name>"), "{}", list.text());
    assert!(list.text().contains("<Name>other-bucket</Name>"), "{}", list.text());
    assert_eq!(world.ask("PUT", "/bucket/key", &[], b"x").status, 200);
    refused(&world.ask("DELETE", "/bucket", &[], b""), 409, "BucketNotEmpty");
    assert_eq!(world.ask("DELETE", "/bucket/key", &[], b"").status, 204);
    assert_eq!(world.ask("DELETE", "/bucket", &[], b"").status, 204);
    assert_eq!(world.ask("HEAD", "/bucket", &[], b"").status, 404);
    refused(&world.ask("GET", "/bucket?versioning", &[], b""), 404, "NoSuchBucket");
    refused(&world.ask("PUT", "/Bucket", &[], b""), 400, "InvalidBucketName");
    refused(&world.ask("GET", "/other-bucket?policy", &[], b""), 404, "NoSuchBucketPolicy");
    let versioning = world.ask("GET", "/other-bucket?versioning", &[], b"");
    assert!(versioning.text().contains("<VersioningConfiguration"), "{}", versioning.text());
}

#[test]
fn objects_of_every_size_come_back_as_they_were() {
    let world = world();
    for length in [0, 1, 5000, 200_000, 3_000_000] {
        let data = bytes(length);
        let put = world.ask("PUT", "/bucket/a/b", &[("x-amz-meta-color", "blue")], &data);
        assert_eq!((put.status, put.header("etag")), (200, &*etag(&data)), "{length} bytes");
        let get = world.ask("GET", "/bucket/a/b", &[], b"");
        assert_eq!(get.status, 200);
        assert!(get.body == data, "{length} bytes");
        assert_eq!(get.header("etag"), etag(&data));
        assert_eq!(get.header("x-amz-meta-color"), "blue");
        assert_eq!(get.header("content-type"), "binary/octet-stream");
        assert_eq!(get.header("accept-ranges"), "bytes");
        assert_eq!(get.header("last-modified"), "Fri, 24 May 2013 00:00:00 GMT");
        assert_eq!(get.header("server"), "Basalt");
        let head = world.ask("HEAD", "/bucket/a/b", &[], b"");
        assert_eq!((head.status, head.header("content-length")), (200, &*length.to_string()));
    }
    refused(&world.ask("GET", "/bucket/a", &[], b""), 404, "NoSuchKey");
    let head = world.ask("HEAD", "/bucket/a", &[], b"");
    assert_eq!((head.status, head.body.len()), (404, 0));
}

#[test]
fn every_form_of_payload_arrives() {
    let world = world();
    for form in FORMS {
        for (length, chunk) in [(0, 1), (10, 3), (200_000, 65536), (2_000_000, 8192)] {
            let data = bytes(length);
            let (request, body) = chunked("key", form, &data, chunk);
            let put = world.send(&request, &body);
            assert_eq!((put.status, put.header("etag")), (200, &*etag(&data)), "{form} {put:?}");
            let enabled = [("x-amz-checksum-mode", "ENABLED")];
            let get = world.ask("GET", "/bucket/key", &enabled, b"");
            assert!(get.body == data, "{form} {length}");
            assert_eq!(get.header("content-encoding"), "");
            if form.ends_with("TRAILER") {
                assert_eq!(put.header("x-amz-checksum-crc32"), crc32(&data));
                assert_eq!(get.header("x-amz-checksum-crc32"), crc32(&data));
                assert_eq!(get.header("x-amz-checksum-type"), "FULL_OBJECT");
            }
        }
    }
    let presigned = TestRequest::new("PUT", "/bucket/key", "").presign("60");
    assert_eq!(world.send(&presigned, b"presigned").status, 200);
    let presigned = TestRequest::new("GET", "/bucket/key", "").presign("60");
    assert_eq!(world.send(&presigned, b"").text(), "presigned");
}

#[test]
fn what_does_not_verify_never_becomes_visible() {
    let world = world();
    assert_eq!(world.ask("PUT", "/bucket/key", &[], b"before").status, 200);
    for length in [10, 200_000] {
        let data = bytes(length);
        for form in FORMS {
            let (request, body) = chunked("key", form, &data, 65536);
            let last = body.len() - 3;
            let in_data = body.len() - body.len().min(400);
            for at in [last, in_data] {
                let mut wrong = body.clone();
                wrong[at] ^= 1;
                let put = world.send(&request, &wrong);
                assert!((400..500).contains(&put.status), "{form} byte {at}: {put:?}");
            }
        }
        let md5 = BASE64.encode(Md5::digest(b"other"));
        refused(
            &world.ask("PUT", "/bucket/key", &[("content-md5", &md5)], &data),
            400,
            "BadDigest",
        );
        let crc = [("x-amz-checksum-crc32", "AAAAAA==")];
        refused(&world.ask("PUT", "/bucket/key", &crc, &data), 400, "BadDigest");
        let hash = crate::s3::testing::sha256_hex(b"other");
        let put = TestRequest::new("PUT", "/bucket/key", &hash).sign();
        refused(&world.send(&put, &data), 400, "XAmzContentSHA256Mismatch");
        // The connection ends within the body.
        let put = TestRequest::new("PUT", "/bucket/key", "UNSIGNED-PAYLOAD").sign();
        let put = put.with("content-length", &(length + 1).to_string());
        let pipe = world.connect();
        pipe.send(&put.wire(&data));
        pipe.close();
        world.simulation.run_for(std::time::Duration::from_secs(10));
        assert_eq!(world.ask("GET", "/bucket/key", &[], b"").text(), "before");
    }
}

#[test]
fn parts_of_an_object_can_be_read() {
    let world = world();
    let data = bytes(300_000);
    assert_eq!(world.ask("PUT", "/bucket/key", &[], &data).status, 200);
    let range = |range: &str| world.ask("GET", "/bucket/key", &[("range", range)], b"");
    for (text, start, end) in [
        ("bytes=0-0", 0, 1),
        ("bytes=100000-199999", 100_000, 200_000),
        ("bytes=-5", 299_995, 300_000),
        ("bytes=299999-", 299_999, 300_000),
    ] {
        let part = range(text);
        assert_eq!(part.status, 206);
        assert!(part.body == data[start..end], "{text}");
        let expected = format!("bytes {start}-{}/300000", end - 1);
        assert_eq!(part.header("content-range"), expected);
    }
    let beyond = range("bytes=300000-");
    refused(&beyond, 416, "InvalidRange");
    assert_eq!(beyond.header("content-range"), "bytes */300000");
    let head = world.ask("HEAD", "/bucket/key", &[("range", "bytes=1-2")], b"");
    assert_eq!((head.status, head.header("content-length")), (206, "2"));
    let overridden = "/bucket/key?response-content-type=text%2Fplain&response-expires=never";
    let get = world.ask("GET", overridden, &[], b"");
    assert_eq!((get.header("content-type"), get.header("expires")), ("text/plain", "never"));
}

#[test]
fn many_keys_are_deleted_at_once() {
    let world = world();
    for key in ["a", "b", "c"] {
        assert_eq!(world.ask("PUT", &format!("/bucket/{key}"), &[], b"x").status, 200);
    }
    let document = b"<Delete><Object><Key>a</Key></Object><Object><Key>b</Key><ETag>x</ETag>\
        </Object><Object><Key>absent</Key></Object></Delete>";
    let md5 = BASE64.encode(Md5::digest(document));
    refused(&world.ask("POST", "/bucket?delete", &[], document), 400, "InvalidRequest");
    let answer = world.ask("POST", "/bucket?delete", &[("content-md5", &md5)], document);
    assert_eq!(answer.status, 200);
    assert!(answer.text().contains("<Deleted><Key>a</Key></Deleted>"), "{}", answer.text());
    assert!(answer.text().contains("<Deleted><Key>absent</Key></Deleted>"), "{}", answer.text());
    assert!(answer.text().contains("<Code>PreconditionFailed</Code>"), "{}", answer.text());
    let document = b"<Delete><Object><Key>absent</Key><ETag>x</ETag></Object></Delete>";
    let md5 = BASE64.encode(Md5::digest(document));
    let answer = world.ask("POST", "/bucket?delete", &[("content-md5", &md5)], document);
    assert!(answer.text().contains("<Deleted><Key>absent</Key></Deleted>"), "{}", answer.text());
    let list = world.ask("GET", "/bucket?list-type=2", &[], b"");
    assert_eq!(list.element("KeyCount"), "2", "{}", list.text());
}

#[test]
fn listings_go_from_page_to_page() {
    let world = world();
    for key in ["a", "a/b", "b/1", "b/2", "c%01%20d", "e"] {
        assert_eq!(world.ask("PUT", &format!("/bucket/{key}"), &[], b"x").status, 200, "{key}");
    }
    let mut seen = Vec::new();
    let mut token = String::new();
    loop {
        let query = match token.is_empty() {
            true => "delimiter=%2F&list-type=2&max-keys=1".to_owned(),
            false => format!("continuation-token={token}&delimiter=%2F&list-type=2&max-keys=1"),
        };
        let page = world.ask("GET", &format!("/bucket?{query}"), &[], b"");
        assert_eq!(page.element("KeyCount"), "1", "{}", page.text());
        let key = page.element("Key");
        let inner = page.text().split_once("<CommonPrefixes>").map(|(_, rest)| rest.to_owned());
        let prefix = inner.as_deref().and_then(|rest| rest.split_once("<Prefix>"));
        let prefix = prefix.and_then(|(_, rest)| rest.split_once('<')).map_or("", |(p, _)| p);
        seen.push(format!("{key}{prefix}"));
        token = page.element("NextContinuationToken").to_owned();
        if page.element("IsTruncated") == "false" {
            break;
        }
    }
    assert_eq!(seen, ["a", "a/", "b/", "c&#x1; d", "e"]);
    let page = world.ask("GET", "/bucket?marker=a&max-keys=2&prefix=", &[], b"");
    assert!(page.text().contains("<Key>a/b</Key>"), "{}", page.text());
    assert_eq!(page.element("NextMarker"), "b/1");
    let encoded = world.ask("GET", "/bucket?encoding-type=url&prefix=c", &[], b"");
    assert_eq!(encoded.element("Key"), "c%01%20d");
    refused(&world.ask("GET", "/absent?max-keys=0", &[], b""), 404, "NoSuchBucket");
}

#[test]
fn an_upload_in_parts_becomes_one_object() {
    let world = world();
    let algorithm = [("x-amz-checksum-algorithm", "CRC32"), ("x-amz-checksum-type", "FULL_OBJECT")];
    let created = world.ask("POST", "/bucket/big?uploads", &algorithm, b"");
    let id = created.element("UploadId").to_owned();
    assert!(!id.is_empty(), "{created:?}");
    let data = bytes((5 << 20) + 1000);
    let mut document = String::from("<CompleteMultipartUpload>");
    for (number, part) in data.chunks(5 << 20).enumerate() {
        let number = number + 1;
        let target = format!("/bucket/big?partNumber={number}&uploadId={id}");
        let put = world.ask("PUT", &target, &[], part);
        assert_eq!((put.status, put.header("etag")), (200, &*etag(part)), "{put:?}");
        assert_eq!(put.header("x-amz-checksum-crc32"), crc32(part));
        document.push_str(&format!(
            "<Part><PartNumber>{number}</PartNumber><ETag>{}</ETag></Part>",
            put.header("etag")
        ));
    }
    document.push_str("</CompleteMultipartUpload>");
    refused(&world.ask("GET", "/bucket/big", &[], b""), 404, "NoSuchKey");
    let target = format!("/bucket/big?uploadId={id}");
    let stated = [("x-amz-checksum-crc32", &*crc32(&data))];
    let done = world.ask("POST", &target, &stated, document.as_bytes());
    assert_eq!(done.status, 200, "{done:?}");
    assert!(done.text().contains("<CompleteMultipartUploadResult"), "{}", done.text());
    assert!(done.element("ETag").ends_with("-2&quot;"), "{}", done.text());
    assert_eq!(done.element("ChecksumCRC32"), crc32(&data));
    assert_eq!(done.element("ChecksumType"), "FULL_OBJECT");
    let get = world.ask("GET", "/bucket/big", &[], b"");
    assert!(get.body == data);
    let other = world.ask("POST", "/bucket/other?uploads", &[], b"");
    let id = other.element("UploadId").to_owned();
    assert_eq!(world.ask("DELETE", &format!("/bucket/other?uploadId={id}"), &[], b"").status, 204);
    let target = format!("/bucket/other?partNumber=1&uploadId={id}");
    refused(&world.ask("PUT", &target, &[], b"x"), 404, "NoSuchUpload");
}

#[test]
fn attributes_are_told() {
    let world = world();
    let crc = [("x-amz-checksum-crc32", &*crc32(b"data"))];
    assert_eq!(world.ask("PUT", "/bucket/key", &crc, b"data").status, 200);
    let ask = |wanted: &str| {
        world.ask("GET", "/bucket/key?attributes", &[("x-amz-object-attributes", wanted)], b"")
    };
    let answer = ask("ETag,Checksum, ObjectSize");
    assert_eq!(answer.status, 200);
    assert_eq!(format!("\"{}\"", answer.element("ETag")), etag(b"data"));
    assert_eq!(answer.element("ChecksumCRC32"), crc32(b"data"));
    assert_eq!((answer.element("ObjectSize"), answer.element("StorageClass")), ("4", ""));
    refused(&ask("Color"), 400, "InvalidArgument");
    let acl = world.ask("PUT", "/bucket/key?acl", &[("x-amz-acl", "private")], b"");
    assert_eq!(acl.status, 200);
    let acl = world.ask("PUT", "/bucket/key?acl", &[("x-amz-acl", "public-read")], b"");
    refused(&acl, 501, "NotImplemented");
}

#[test]
fn pages_of_allowed_origins_are_let_in() {
    let world = world();
    let ask = |origin: &str, method: &str| {
        let preflight = TestRequest::new("OPTIONS", "/bucket/key", "").without("x-amz-date");
        let preflight = preflight.with("origin", origin);
        let preflight =
            preflight.with("access-control-request-headers", "x-amz-date,authorization");
        world.send(&preflight.with("access-control-request-method", method), b"")
    };
    let allowed = ask("https://a.example", "PUT");
    assert_eq!(allowed.status, 200);
    assert_eq!(allowed.header("access-control-allow-origin"), "https://a.example");
    assert_eq!(allowed.header("access-control-allow-methods"), "PUT");
    assert_eq!(allowed.header("access-control-allow-headers"), "x-amz-date,authorization");
    assert_eq!(allowed.header("vary"), "Origin");
    let other = ask("https://evil.test", "PUT");
    refused(&other, 403, "AccessForbidden");
    assert_eq!(other.header("access-control-allow-origin"), "");
    refused(&ask("https://a.example", "TRACE"), 403, "AccessForbidden");
    let bare = TestRequest::new("OPTIONS", "/bucket/key", "").without("x-amz-date");
    refused(&world.send(&bare, b""), 400, "BadRequest");

    let from = |origin: &str| world.ask("PUT", "/bucket/key", &[("origin", origin)], b"data");
    let put = from("https://a.example");
    assert_eq!(put.header("access-control-allow-origin"), "https://a.example");
    assert!(put.header("access-control-expose-headers").contains("etag"), "{put:?}");
    let put = from("https://evil.test");
    assert_eq!((put.status, put.header("access-control-allow-origin")), (200, ""));
    // An error can be read by the page as well.
    let get = world.ask("GET", "/bucket/absent", &[("origin", "https://a.example")], b"");
    assert_eq!((get.status, get.header("access-control-allow-origin")), (404, "https://a.example"));
}

#[test]
fn the_host_may_name_the_bucket() {
    let world = world();
    let ask = |method: &'static str, host: &str, path: &str, body: &[u8]| {
        let hash = crate::s3::testing::sha256_hex(body);
        let request = TestRequest::new(method, path, &hash).with("host", host).sign();
        world.send(&request, body)
    };
    assert_eq!(ask("PUT", "bucket.s3.test:9000", "/a/key", b"data").status, 200);
    assert_eq!(world.ask("GET", "/bucket/a/key", &[], b"").text(), "data");
    assert_eq!(ask("GET", "bucket.s3.test", "/a/key", b"").text(), "data");
    assert_eq!(ask("GET", "s3.test", "/bucket/a/key", b"").text(), "data");
    let list = ask("GET", "bucket.s3.test", "/", b"");
    assert_eq!(list.element("Key"), "a/key", "{list:?}");
    refused(&ask("GET", "absent.s3.test", "/a/key", b""), 404, "NoSuchBucket");
    refused(&ask("GET", "Not_a_bucket.s3.test", "/k", b""), 400, "InvalidBucketName");
    assert_eq!(ask("PUT", "second.s3.test", "/", b"").status, 200);
    // Only the root's own paths are the server's; in a bucket they are keys like others.
    assert_eq!(ask("PUT", "bucket.s3.test", "/minio/health/live", b"key").status, 200);
    assert_eq!(ask("GET", "bucket.s3.test", "/minio/health/live", b"").text(), "key");
}

#[test]
fn heads_beyond_s3s_limits_are_refused_in_its_words() {
    let world = world();
    let long = "v".repeat(9 << 10);
    let answer = world.ask("PUT", "/bucket/key", &[("cache-control", &long)], b"x");
    refused(&answer, 400, "RequestHeaderSectionTooLarge");
    let answer = world.ask("GET", &format!("/bucket/key?response-expires={long}"), &[], b"");
    refused(&answer, 414, "URITooLong");
    let answer = world.ask("PUT", "/bucket/key", &[("x-amz-meta-a", &long[..2048])], b"x");
    refused(&answer, 400, "MetadataTooLarge");
    let key = "%C3%A9".repeat(512);
    assert_eq!(world.ask("PUT", &format!("/bucket/{key}"), &[], b"x").status, 200);
    refused(&world.ask("PUT", &format!("/bucket/{key}k"), &[], b"x"), 400, "KeyTooLongError");
    // No key begins with what is longer than any.
    let prefix = "p".repeat(1025);
    for query in
        ["prefix", "marker", "list-type=2&start-after", "uploads&prefix", "uploads&key-marker"]
    {
        let list = world.ask("GET", &format!("/bucket?{query}={prefix}"), &[], b"");
        refused(&list, 400, "KeyTooLongError");
        let list = world.ask("GET", &format!("/bucket?{query}={}", &prefix[1..]), &[], b"");
        assert_eq!(list.status, 200, "{query}");
    }
    // The most metadata and tags that there can be fit.
    let metadata = "m".repeat(2000);
    let tags: Vec<String> =
        (0..10).map(|number| format!("{number:0128}={}", "v".repeat(256))).collect();
    let tags = tags.join("&");
    let headers = [("x-amz-meta-a", &*metadata), ("x-amz-tagging", &*tags)];
    assert_eq!(world.ask("PUT", "/bucket/key", &headers, b"x").status, 200);
    let begun = world.ask("POST", "/bucket/key?uploads", &headers, b"");
    assert_eq!(begun.status, 200);
    let id = begun.element("UploadId");
    let part = world.ask("PUT", &format!("/bucket/key?partNumber=1&uploadId={id}"), &[], b"x");
    let document = format!(
        "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{}</ETag></Part>\
         </CompleteMultipartUpload>",
        part.header("etag")
    );
    let target = format!("/bucket/key?uploadId={id}");
    assert_eq!(world.ask("POST", &target, &[], document.as_bytes()).status, 200);
}

#[test]
fn whoever_is_too_many_is_told_so() {
    let world = world();
    let pipe = world.connect_as_too_many();
    pipe.send(&TestRequest::new("GET", "/bucket/key", "UNSIGNED-PAYLOAD").sign().wire(b""));
    let answer = world.answer(&pipe, false);
    refused(&answer, 503, "SlowDown");
    assert_eq!(answer.header("connection"), "close");
}

#[test]
fn objects_are_copied() {
    let world = world();
    let data = bytes(300_000);
    let headers = [("x-amz-meta-color", "blue"), ("x-amz-checksum-crc32", &*crc32(&data))];
    assert_eq!(world.ask("PUT", "/bucket/from", &headers, &data).status, 200);
    let source = ("x-amz-copy-source", "/bucket/from");
    let copy = world.ask("PUT", "/bucket/to", &[source], b"");
    assert_eq!((copy.status, copy.element("ChecksumCRC32")), (200, &*crc32(&data)), "{copy:?}");
    let get = world.ask("GET", "/bucket/to", &[], b"");
    assert!(get.body == data);
    assert_eq!(get.header("x-amz-meta-color"), "blue");
    refused(&world.ask("PUT", "/bucket/from", &[source], b""), 400, "InvalidRequest");
    let replace = ("x-amz-metadata-directive", "REPLACE");
    let red = ("x-amz-meta-color", "red");
    assert_eq!(world.ask("PUT", "/bucket/from", &[source, replace, red], b"").status, 200);
    let get = world.ask("GET", "/bucket/from", &[], b"");
    assert!(get.body == data);
    assert_eq!(get.header("x-amz-meta-color"), "red");
    let unmatched = ("x-amz-copy-source-if-match", "\"x\"");
    refused(&world.ask("PUT", "/bucket/to", &[source, unmatched], b""), 412, "PreconditionFailed");
    let absent = ("x-amz-copy-source", "/bucket/absent");
    refused(&world.ask("PUT", "/bucket/to", &[absent], b""), 404, "NoSuchKey");
    let created = world.ask("POST", "/bucket/parts?uploads", &[], b"");
    let target = format!("/bucket/parts?partNumber=1&uploadId={}", created.element("UploadId"));
    let range = ("x-amz-copy-source-range", "bytes=10-19");
    let part = world.ask("PUT", &target, &[source, range], b"");
    let expected = etag(&data[10..20]).replace('"', "&quot;");
    assert_eq!((part.status, part.element("ETag")), (200, &*expected), "{part:?}");
}

#[test]
fn a_client_that_waits_for_100_gets_it_or_a_closed_connection() {
    let world = world();
    let put = |body: &[u8]| {
        let hash = crate::s3::testing::sha256_hex(body);
        TestRequest::new("PUT", "/bucket/key", &hash)
            .sign()
            .with("expect", "100-continue")
            .with("content-length", &body.len().to_string())
    };
    let pipe = world.connect();
    pipe.send(&put(b"data").wire(b""));
    assert_eq!(world.answer(&pipe, false).status, 100);
    pipe.send(b"data");
    let answer = world.answer(&pipe, false);
    assert_eq!((answer.status, answer.header("connection")), (200, ""));
    pipe.send(&put(b"").wire(b""));
    let answer = world.answer(&pipe, false);
    assert_eq!((answer.status, answer.header("connection")), (200, "close"));

    let pipe = world.connect();
    pipe.send(&put(b"data").with("authorization", "none").wire(b""));
    let answer = world.answer(&pipe, false);
    assert_eq!((answer.status, answer.header("connection")), (400, "close"), "without a 100");
}

#[test]
fn a_refused_body_is_read_if_its_end_is_near() {
    let world = world();
    let pipe = world.connect();
    let put = TestRequest::new("PUT", "/absent/key", "UNSIGNED-PAYLOAD").sign();
    pipe.send(&put.wire(&bytes(1000)));
    let answer = world.answer(&pipe, false);
    refused(&answer, 404, "NoSuchBucket");
    assert_eq!(answer.header("connection"), "");
    pipe.send(&put.wire(&bytes(1_000_000)));
    let answer = world.answer(&pipe, false);
    refused(&answer, 404, "NoSuchBucket");
    assert_eq!(answer.header("connection"), "close");
}

#[test]
fn lost_drives_are_told_as_what_they_are() {
    let world = world();
    let data = bytes(200_000);
    assert_eq!(world.ask("PUT", "/bucket/key", &[], &data).status, 200);
    world.lose(0);
    assert!(world.ask("GET", "/bucket/key", &[], b"").body == data);
    assert_eq!(world.ask("PUT", "/bucket/key", &[], &data).status, 200);
    world.lose(1);
    world.lose(2);
    let put = world.ask("PUT", "/bucket/key", &[], &data);
    refused(&put, 503, "ServiceUnavailable");
    assert!(put.element("Message").starts_with("Set 0 cannot"), "{put:?}");
    refused(&world.ask("GET", "/bucket/key", &[], b""), 503, "ServiceUnavailable");
    assert_eq!(world.ask("HEAD", "/bucket/key", &[], b"").status, 503);
}

#[test]
fn nothing_is_answered_without_a_signature_but_health() {
    let world = world();
    for (method, target) in [
        ("GET", "/"),
        ("GET", "/bucket"),
        ("PUT", "/bucket/key"),
        ("GET", "/minio/health/other"),
        ("GET", "/minio/v2/metrics/cluster"),
        ("POST", "/minio/health/live"),
        ("GET", "/minio/health/live/"),
    ] {
        let request = TestRequest::new(method, target, "UNSIGNED-PAYLOAD");
        refused(&world.send(&request, b""), 403, "AccessDenied");
    }
}

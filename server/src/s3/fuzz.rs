//! Requests, bodies and documents that no client would send.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::HeaderMap;

use super::attributes::Selection;
use super::auth::{Gate, Head};
use super::chunked::Decoder;
use super::copy::Origin;
use super::operation::Operation;
use super::post_policy::PostPolicy;
use super::target::{Target, encode_into};
use super::testing::{ACCESS, NOW_MS, SECRET, TestRequest, sha256_hex, users};
use super::{Credentials, attributes, cors, form, tagging, xml};
use crate::fuzz::run;

const TARGETS: &[&[u8]] = &[
    b"/bucket/key",
    b"/bucket/a/../%2e%2e//%2F+%20%C3%A9?versionId=null&x-id=GetObject",
    b"/bucket?list-type=2&prefix=a%2Fb&delimiter=/&max-keys=10&encoding-type=url",
    b"/?x-id=ListBuckets",
    b"/bucket/key?partNumber=1&uploadId=abc",
];
const URI_WORDS: &[&str] = &[
    "%", "%2", "%00", "%ff", "/", "//", "?", "&", "=", "+", "..", "%25", "policy", "acl", "tagging",
];

fn split(text: &str) -> (&str, Option<&str>) {
    text.split_once('?').map_or((text, None), |(path, query)| (path, Some(query)))
}

/// What decodes can be written again and means the same.
#[test]
fn targets() {
    run("targets", |chance| {
        let bytes = chance.spoiled(TARGETS, URI_WORDS);
        let Ok(text) = std::str::from_utf8(&bytes) else { return };
        let (path, query) = split(text);
        drop(Target::hosted("bucket".to_owned(), path, query));
        let Ok(target) = Target::parse(path, query) else { return };
        if let (Some(bucket), Some(key)) = (&target.bucket, &target.key) {
            assert!(!key.contains(&0) && std::str::from_utf8(key).is_ok());
            let mut again = b"/".to_vec();
            encode_into(bucket.as_bytes(), false, &mut again);
            again.push(b'/');
            encode_into(key, true, &mut again);
            let again = String::from_utf8(again).expect("ASCII");
            let again = Target::parse(&again, None).expect("it was written so");
            assert_eq!((&again.bucket, &again.key), (&target.bucket, &target.key));
        }
        for method in ["GET", "HEAD", "PUT", "POST", "DELETE"] {
            let method = method.parse().expect("a method");
            drop(Operation::of(&method, &target, &HeaderMap::new()));
        }
        let mut headers = HeaderMap::new();
        let Ok(value) = http::HeaderValue::from_bytes(path.as_bytes()) else { return };
        headers.insert("x-amz-copy-source", value.clone());
        if let Ok(origin) = Origin::of(&headers) {
            assert!(!origin.key().is_empty() && !origin.bucket().contains('/'));
        }
        headers.insert("x-amz-tagging", value);
        drop(tagging::of_headers(&headers));
    });
}

fn gate() -> Gate {
    Gate::new(Credentials::new(ACCESS, SECRET), users(), None)
}

const SIGNATURE_WORDS: &[&str] = &[
    ",",
    ";",
    "=",
    "/",
    " ",
    "host",
    "host;host",
    "Credential=",
    "SignedHeaders=",
    "Signature=",
    "x-amz-date",
    "AWS4-HMAC-SHA256",
    "AWS ",
    "alice",
    "20130524",
    "us-east-1",
    "s3",
    "aws4_request",
    "é",
    "0000000000000000000000000000000000000000000000000000000000000000",
];

/// A header that was changed passes only where it still says the same.
#[test]
fn headers() {
    let signed = TestRequest::new("GET", "/bucket/key", &sha256_hex(b"")).sign();
    let original = signed.header("authorization").expect("is signed").to_owned();
    let target = signed.target().expect("parses");
    let gate = gate();
    let meaning = |header: &str| {
        let (_, fields) = header.split_once(' ').expect("a scheme");
        let mut fields: Vec<String> =
            fields.split(',').map(|field| field.trim().to_owned()).collect();
        fields.sort();
        // Hexadecimal digits and the order of signed names may be written in two ways.
        fields
            .iter()
            .map(|field| {
                let mut letters: Vec<char> = field.to_ascii_lowercase().chars().collect();
                if field.starts_with("SignedHeaders") {
                    letters.sort_unstable();
                }
                letters
            })
            .collect::<Vec<_>>()
    };
    let mut passed = 0;
    run("headers", |chance| {
        let bytes = chance.spoiled(&[original.as_bytes()], SIGNATURE_WORDS);
        let Ok(value) = http::HeaderValue::from_bytes(&bytes) else { return };
        let mut headers = signed.header_map();
        headers.insert("authorization", value);
        let head = Head { method: "GET", target: &target, headers: &headers };
        if gate.authenticate(&head, NOW_MS).is_ok() {
            passed += 1;
            let text = String::from_utf8(bytes).expect("text, since it passed");
            assert_eq!(meaning(&text), meaning(&original), "{text}");
        }
    });
    assert!(passed > 100, "the original passes: {passed}");
}

/// A presigned URL that was changed passes only where it still asks for the same.
#[test]
fn presigned() {
    let signed = TestRequest::new("GET", "/bucket/a%20key", "").presign("600");
    let original = format!("{}?{}", signed.path, signed.query);
    let wanted = signed.target().expect("parses");
    let parameters = |target: &Target| {
        let mut all: Vec<(String, String)> = target
            .query
            .iter()
            .map(|one| match one.name.as_str() {
                "X-Amz-Signature" => (one.name.clone(), one.value.to_ascii_lowercase()),
                _ => (one.name.clone(), one.value.clone()),
            })
            .collect();
        all.sort();
        all
    };
    let gate = gate();
    let headers = signed.header_map();
    let mut passed = 0;
    run("presigned", |chance| {
        let words = [URI_WORDS, SIGNATURE_WORDS].concat();
        let bytes = chance.spoiled(&[original.as_bytes()], &words);
        let Ok(text) = std::str::from_utf8(&bytes) else { return };
        let (path, query) = split(text);
        let Ok(target) = Target::parse(path, query) else { return };
        let head = Head { method: "GET", target: &target, headers: &headers };
        let Ok(authenticated) = gate.authenticate(&head, NOW_MS) else { return };
        if authenticated.is_anonymous() {
            let has_parts = target.query.iter().any(|one| {
                one.name.eq_ignore_ascii_case("x-amz-signature")
                    || one.name.eq_ignore_ascii_case("x-amz-credential")
            });
            assert!(!has_parts, "a signature was taken for none: {text}");
            return;
        }
        passed += 1;
        assert_eq!((&target.bucket, &target.key), (&wanted.bucket, &wanted.key), "{text}");
        assert_eq!(parameters(&target), parameters(&wanted), "{text}");
    });
    assert!(passed > 100, "the original passes: {passed}");
}

type Decoded = Result<(Vec<u8>, Vec<(String, String)>), ()>;

fn decode<'a>(mut decoder: Decoder, pieces: impl IntoIterator<Item = &'a [u8]>) -> Decoded {
    let mut out = Vec::new();
    for piece in pieces {
        let mut input = Bytes::copy_from_slice(piece);
        while let Some(data) = decoder.decode(&mut input).map_err(drop)? {
            out.extend_from_slice(&data);
        }
    }
    decoder.finish().map_err(drop)?;
    Ok((out, decoder.trailers().to_vec()))
}

/// How a body is cut into pieces changes nothing, and signed chunks say what was signed or fail.
#[test]
fn chunks() {
    let payload = b"some content, in chunks of some lengths".as_slice();
    let request =
        TestRequest::new("PUT", "/bucket/key", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD").sign();
    let mut chain = request.chain();
    let mut signed = Vec::new();
    let mut unsigned = Vec::new();
    for chunk in payload.chunks(16).chain([&b""[..]]) {
        let signature = chain.sign_chunk(chunk);
        let size = chunk.len();
        signed.extend(format!("{size:x};chunk-signature={signature}\r\n").bytes());
        unsigned.extend(format!("{size:x}\r\n").bytes());
        for body in [&mut signed, &mut unsigned] {
            body.extend(chunk);
            body.extend(if size > 0 { &b"\r\n"[..] } else { b"" });
        }
    }
    signed.extend(b"\r\n");
    unsigned.extend(b"x-amz-checksum-crc32:AAAAAA==\r\n\r\n");
    let words = [
        "\r\n",
        "\r",
        "\n",
        ";",
        "0",
        "ffffffffffffffff",
        "chunk-signature=",
        ":",
        "\0",
        "x-amz-trailer-signature:",
        "10;chunk-signature=",
    ];
    let length = payload.len() as u64;
    let mut passed = 0;
    run("chunks", |chance| {
        let is_signed = chance.below(2) == 0;
        let seed = if is_signed { &signed } else { &unsigned };
        let body = chance.spoiled(&[seed], &words);
        let decoder = || Decoder::new(is_signed.then(|| request.chain()), !is_signed, length);
        let whole = decode(decoder(), [&body[..]]);
        let mut cuts = [0; 4].map(|_| chance.below(body.len() + 1));
        cuts.sort_unstable();
        let [a, b, c, d] = cuts;
        let pieces = [&body[..a], &body[a..b], &body[b..c], &body[c..d], &body[d..]];
        assert_eq!(decode(decoder(), pieces), whole, "{}", body.escape_ascii());
        assert_eq!(decode(decoder(), body.chunks(1)), whole, "{}", body.escape_ascii());
        if let Ok((out, _)) = whole {
            passed += 1;
            assert_eq!(out.len() as u64, length);
            assert!(!is_signed || out == payload, "{}", body.escape_ascii());
        }
    });
    assert!(passed > 100, "the original passes: {passed}");
}

/// Nothing panics, depth is bounded, and tags and CORS rules that were read can be written and read again.
#[test]
fn documents() {
    let seeds: &[&[u8]] = &[
        b"<Tagging xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><TagSet><Tag><Key>a&amp;b</Key>\
          <Value>&#233; x</Value></Tag><Tag><Key>c</Key><Value/></Tag></TagSet></Tagging>",
        b"<?xml version=\"1.0\" encoding=\"UTF-8\"?><Delete><Quiet>true</Quiet><Object><Key>k</Key>\
          <VersionId>null</VersionId></Object></Delete>",
        b"<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>\"x\"</ETag></Part>\
          </CompleteMultipartUpload>",
        b"<CreateBucketConfiguration><LocationConstraint>eu</LocationConstraint>\
          </CreateBucketConfiguration>",
        b"<CORSConfiguration><CORSRule><ID>a</ID><AllowedOrigin>http://*.a</AllowedOrigin>\
          <AllowedMethod>GET</AllowedMethod><AllowedHeader>x-*</AllowedHeader>\
          <ExposeHeader>ETag</ExposeHeader><MaxAgeSeconds>60</MaxAgeSeconds></CORSRule>\
          </CORSConfiguration>",
    ];
    let words = [
        "<",
        ">",
        "</",
        "/>",
        "&",
        "&lt;",
        "&#0;",
        "&#x10ffff;",
        "&x;",
        "<!DOCTYPE a>",
        "<![CDATA[",
        "]]>",
        "<!--",
        "-->",
        "<?",
        "\"",
        "'",
        "xmlns=''",
        "<a><a><a><a><a><a><a><a><a>",
        "\u{feff}",
    ];
    run("documents", |chance| {
        let text = chance.spoiled(seeds, &words);
        for root in ["Delete", "CompleteMultipartUpload", "CreateBucketConfiguration"] {
            drop(xml::parse(&text, root));
        }
        if let Ok(tags) = tagging::parse(&text) {
            let written = tagging::document(&tags);
            let again = tagging::parse(written.as_bytes()).expect("it was written so");
            assert_eq!(again, tags, "{written}");
        }
        if let Ok(rules) = cors::Rules::parse(&text) {
            let written = rules.document();
            let again = cors::Rules::parse(written.as_bytes()).expect("it was written so");
            assert_eq!(again, rules, "{written}");
        }
    });
}

/// The fields of a form are what they are however much of it has arrived, and no name occurs twice.
#[test]
fn forms() {
    let seed = b"--XX\r\nContent-Disposition: form-data; name=\"key\"\r\n\r\nuser/${filename}\r\n\
        --XX\r\nContent-Disposition: form-data; name=acl\r\n\r\nprivate\r\n--XX\r\n\
        Content-Disposition: form-data; name=\"file\"; filename=\"a \\\"b.txt\"\r\n\
        Content-Type: text/html\r\n\r\ncontent\r\n--XX--\r\n";
    let words = [
        "\r\n",
        "--XX",
        "--XX--",
        "\"",
        "\\",
        ";",
        "name=",
        "name=\"file\"",
        "filename=",
        ":",
        "Content-Disposition: form-data",
        "--",
        "\0",
        "é",
        "name=\"key\"",
    ];
    let mut complete = 0;
    run("forms", |chance| {
        let body = chance.spoiled(&[seed], &words);
        let cut = chance.below(body.len() + 1);
        let part = form::parse(&body[..cut], "XX");
        let Ok(Some((found, at))) = form::parse(&body, "XX") else { return };
        complete += 1;
        assert!(at <= body.len());
        for (index, (name, _)) in found.fields.iter().enumerate() {
            assert_eq!(*name, name.to_ascii_lowercase());
            assert!(found.fields[..index].iter().all(|(earlier, _)| earlier != name));
        }
        match part {
            Ok(None) => assert!(cut < body.len()),
            Ok(Some(early)) => assert_eq!(early, (found, at)),
            Err(failure) => panic!("a whole form whose part is refused: {failure:?}"),
        }
        drop(form::boundary(&String::from_utf8_lossy(&body)));
    });
    assert!(complete > 100, "{complete}");
}

/// Nothing panics, and a form with a field that no condition names is refused.
#[test]
fn form_policies() {
    let seed = br#"{"expiration": "2013-05-24T01:00:00.000Z", "conditions": [{"bucket": "b"},
        ["starts-with", "$key", "user/"], ["eq", "$acl", "private"],
        ["content-length-range", 1, "10"]]}"#;
    let words = ["\"", "[", "]", "{", "}", ",", "$", "eq", "starts-with", "-1", "1e400", "key"];
    let mut understood = 0;
    run("form policies", |chance| {
        let text = chance.spoiled(&[seed], &words);
        let Ok(policy) = PostPolicy::parse(&BASE64.encode(&text)) else { return };
        understood += 1;
        let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut fields =
            vec![field("bucket", "b"), field("key", "user/x"), field("acl", "private")];
        drop(policy.check(&fields, NOW_MS));
        drop(policy.check_length(chance.next()));
        fields.push(field("nobody-names-this", ""));
        let named = String::from_utf8_lossy(&text).contains("nobody");
        assert!(named || policy.check(&fields, NOW_MS).is_err());
        assert!(policy.check(&[], u64::MAX).is_err(), "none holds for ever");
    });
    assert!(understood > 100, "{understood}");
}

/// What a range selects lies in the object.
#[test]
fn ranges() {
    let seeds: &[&[u8]] = &[b"bytes=0-9", b"bytes=-5", b"bytes=5-", b"bytes=10-20,30-40"];
    let words = ["-", "=", "bytes", ",", " ", "0", "18446744073709551615", "18446744073709551616"];
    run("ranges", |chance| {
        let text = chance.spoiled(seeds, &words);
        let Ok(text) = std::str::from_utf8(&text) else { return };
        let size = [0, 1, 10, u64::MAX][chance.below(4)];
        match attributes::select_bytes(text, size) {
            Some(Selection::Part(span)) => assert!(span.start < span.end && span.end <= size),
            Some(Selection::Whole | Selection::Unsatisfiable) | None => {}
        }
        if let Ok(span) = super::copy::parse_range(text) {
            assert!(span.start < span.end);
        }
    });
}

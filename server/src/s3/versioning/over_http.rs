//! Versions over HTTP.

mod faults;

use std::time::Duration;

use faults::tidy;

use crate::s3::testing::world::{Response, World, bytes, etag, refused, world};

const ENABLED: &[u8] =
    b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>";
const SUSPENDED: &[u8] =
    b"<VersioningConfiguration><Status>Suspended</Status></VersioningConfiguration>";

/// Lengths of objects: none, copies that travel with the record, small shards, runs of their own.
const LENGTHS: [usize; 4] = [0, 5000, 100_000, 3_000_000];

fn set(world: &World, document: &[u8]) {
    assert_eq!(world.ask("PUT", "/bucket?versioning", &[], document).status, 200);
}

fn versioned() -> World {
    let world = world();
    set(&world, ENABLED);
    world
}

/// Writes an object and answers its version.
fn put(world: &World, key: &str, data: &[u8]) -> String {
    let put = world.ask("PUT", &format!("/bucket/{key}"), &[], data);
    assert_eq!(put.status, 200, "{put:?}");
    put.header("x-amz-version-id").to_owned()
}

fn delete(world: &World, target: &str) -> Response {
    let deleted = world.ask("DELETE", &format!("/bucket/{target}"), &[], b"");
    assert_eq!(deleted.status, 204, "{deleted:?}");
    deleted
}

fn get(world: &World, target: &str) -> Response {
    world.ask("GET", &format!("/bucket/{target}"), &[], b"")
}

/// The versions as a listing tells them: `key version`, a star where it is the latest, a minus for
/// a delete marker.
fn listed(answer: &Response) -> Vec<String> {
    assert_eq!(answer.status, 200, "{answer:?}");
    let mut found = Vec::new();
    for piece in answer.text().split("<Version>").flat_map(|one| one.split("<DeleteMarker>")) {
        let text = |name: &str| {
            let (_, rest) = piece.split_once(&format!("<{name}>"))?;
            Some(rest.split_once("</")?.0.to_owned())
        };
        let (Some(key), Some(version)) = (text("Key"), text("VersionId")) else { continue };
        let latest = if text("IsLatest").as_deref() == Some("true") { "*" } else { "" };
        let marker = if text("ETag").is_none() { "-" } else { "" };
        found.push(format!("{key} {version}{latest}{marker}"));
    }
    found
}

fn all(world: &World) -> Vec<String> {
    listed(&get(world, "?versions"))
}

fn keys(world: &World) -> Vec<String> {
    let answer = get(world, "?list-type=2");
    answer.elements("Key").into_iter().map(str::to_owned).collect()
}

#[test]
fn a_bucket_keeps_versions_once_it_is_told_so() {
    let world = world();
    let status = || get(&world, "?versioning").element("Status").to_owned();
    assert_eq!(status(), "");
    for (document, expected) in [(SUSPENDED, "Suspended"), (ENABLED, "Enabled")] {
        set(&world, document);
        assert_eq!(status(), expected);
    }
    let put = |document: &[u8]| world.ask("PUT", "/bucket?versioning", &[], document);
    let unset = b"<VersioningConfiguration/>";
    refused(&put(unset), 400, "IllegalVersioningConfigurationException");
    refused(&put(b""), 400, "MalformedXML");
    let mfa = b"<VersioningConfiguration><Status>Enabled</Status><MfaDelete>Enabled</MfaDelete>\
        </VersioningConfiguration>";
    refused(&put(mfa), 501, "NotImplemented");
    assert_eq!(status(), "Enabled");
    let absent = world.ask("PUT", "/absent?versioning", &[], ENABLED);
    refused(&absent, 404, "NoSuchBucket");
    refused(&world.ask("GET", "/absent?versioning", &[], b""), 404, "NoSuchBucket");
}

#[test]
fn every_version_is_kept_until_it_is_removed() {
    for length in LENGTHS {
        let world = versioned();
        let data: Vec<Vec<u8>> = (0..3u8)
            .map(|fill| bytes(length).into_iter().map(|byte| byte ^ fill).collect())
            .collect();
        let ids: Vec<String> = data.iter().map(|data| put(&world, "key", data)).collect();
        let marker = delete(&world, "key");
        assert_eq!(marker.header("x-amz-delete-marker"), "true");
        let marker = marker.header("x-amz-version-id").to_owned();
        assert_eq!(ids.iter().chain([&marker]).collect::<std::collections::BTreeSet<_>>().len(), 4);

        let gone = get(&world, "key");
        refused(&gone, 404, "NoSuchKey");
        assert_eq!(gone.header("x-amz-delete-marker"), "true");
        assert_eq!(gone.header("x-amz-version-id"), marker);
        assert!(keys(&world).is_empty());
        for method in ["GET", "HEAD"] {
            let target = format!("/bucket/key?versionId={marker}");
            let asked = world.ask(method, &target, &[], b"");
            assert_eq!(asked.status, 405, "{asked:?}");
            assert_eq!(asked.header("x-amz-delete-marker"), "true");
            assert_eq!(asked.header("allow"), "DELETE");
        }
        let mut expected = vec![format!("key {marker}*-")];
        expected.extend(ids.iter().rev().map(|id| format!("key {id}")));
        assert_eq!(all(&world), expected);

        world.simulation.run_for(Duration::from_secs(60));
        for (id, data) in ids.iter().zip(&data) {
            let target = format!("/bucket/key?versionId={id}");
            let found = world.ask("GET", &target, &[], b"");
            assert!(found.status == 200 && found.body == *data, "{length} bytes");
            assert_eq!(found.header("x-amz-version-id"), id);
            let head = world.ask("HEAD", &target, &[], b"");
            assert_eq!((head.status, head.header("etag")), (200, etag(data).as_str()));
        }

        // Without the marker the newest version is current again, and so on down.
        let removed = delete(&world, &format!("key?versionId={marker}"));
        assert_eq!(removed.header("x-amz-delete-marker"), "true");
        assert_eq!(removed.header("x-amz-version-id"), marker);
        for newest in (0..3).rev() {
            let found = get(&world, "key");
            assert!(found.status == 200 && found.body == data[newest], "{length} bytes");
            assert_eq!(found.header("x-amz-version-id"), ids[newest]);
            assert_eq!(keys(&world), ["key"]);
            let left: Vec<String> = (0..=newest)
                .rev()
                .map(|at| format!("key {}{}", ids[at], if at == newest { "*" } else { "" }))
                .collect();
            assert_eq!(all(&world), left);
            let removed = delete(&world, &format!("key?versionId={}", ids[newest]));
            assert_eq!(removed.header("x-amz-delete-marker"), "");
            refused(&get(&world, &format!("key?versionId={}", ids[newest])), 404, "NoSuchVersion");
        }
        let gone = get(&world, "key");
        refused(&gone, 404, "NoSuchKey");
        assert_eq!(gone.header("x-amz-delete-marker"), "");
        assert!(all(&world).is_empty() && keys(&world).is_empty());
        assert_eq!(world.ask("DELETE", "/bucket", &[], b"").status, 204);
    }
}

#[test]
fn versions_in_the_middle_can_be_removed() {
    let world = versioned();
    let ids: Vec<String> = (0..4).map(|_| put(&world, "key", b"x")).collect();
    delete(&world, &format!("key?versionId={}", ids[1]));
    // What is not there can be removed as well.
    delete(&world, &format!("key?versionId={}", ids[1]));
    delete(&world, "key?versionId=null");
    let shown = |at: usize, latest| format!("key {}{latest}", ids[at]);
    assert_eq!(all(&world), [shown(3, "*"), shown(2, ""), shown(0, "")]);
    delete(&world, &format!("key?versionId={}", ids[3]));
    assert_eq!(all(&world), [shown(2, "*"), shown(0, "")]);
    // The one that is current now is none that was at the head.
    delete(&world, &format!("key?versionId={}", ids[2]));
    assert_eq!(all(&world), [shown(0, "*")]);
    let newest = put(&world, "key", b"y");
    assert_eq!(all(&world), [format!("key {newest}*"), shown(0, "")]);
    let other = put(&world, "other", b"z");
    refused(&get(&world, &format!("other?versionId={newest}")), 404, "NoSuchVersion");
    refused(&get(&world, &format!("key?versionId={other}")), 404, "NoSuchVersion");
    refused(&get(&world, "key?versionId=null"), 404, "NoSuchVersion");
    refused(&get(&world, "key?versionId=x"), 400, "InvalidArgument");
    refused(&get(&world, "key?versionId="), 400, "InvalidArgument");
}

#[test]
fn there_is_one_null_version() {
    let world = world();
    assert_eq!(put(&world, "key", b"before"), "");
    assert_eq!(get(&world, "key").header("x-amz-version-id"), "");
    assert_eq!(all(&world), ["key null*"]);
    set(&world, ENABLED);
    assert_eq!(get(&world, "key").header("x-amz-version-id"), "null");
    let one = put(&world, "key", b"one");
    assert_eq!(all(&world), [format!("key {one}*"), "key null".to_owned()]);
    assert_eq!(get(&world, "key?versionId=null").body, b"before");

    set(&world, SUSPENDED);
    assert_eq!(put(&world, "key", b"suspended"), "");
    assert_eq!(all(&world), ["key null*".to_owned(), format!("key {one}")]);
    assert_eq!(get(&world, "key?versionId=null").body, b"suspended");
    assert_eq!(put(&world, "key", b"again"), "");
    assert_eq!(all(&world), ["key null*".to_owned(), format!("key {one}")]);
    let marker = delete(&world, "key");
    assert_eq!(marker.header("x-amz-version-id"), "null");
    assert_eq!(marker.header("x-amz-delete-marker"), "true");
    assert_eq!(all(&world), ["key null*-".to_owned(), format!("key {one}")]);
    refused(&get(&world, "key?versionId=null"), 405, "MethodNotAllowed");

    // Without the null marker, the version below is current; no older null version comes back.
    delete(&world, "key?versionId=null");
    assert_eq!(all(&world), [format!("key {one}*")]);
    assert_eq!(get(&world, "key").body, b"one");
    refused(&get(&world, "key?versionId=null"), 404, "NoSuchVersion");

    // A null version between two others has its place in the order, and can go from there.
    assert_eq!(put(&world, "key", b"null"), "");
    set(&world, ENABLED);
    let two = put(&world, "key", b"two");
    let three = put(&world, "key", b"three");
    let expected = [format!("key {three}*"), format!("key {two}"), "key null".to_owned()];
    assert_eq!(all(&world)[..3], expected);
    assert_eq!(all(&world)[3..], [format!("key {one}")]);
    assert_eq!(get(&world, "key?versionId=null").body, b"null");
    delete(&world, "key?versionId=null");
    assert_eq!(all(&world).len(), 3);
    refused(&get(&world, "key?versionId=null"), 404, "NoSuchVersion");
}

#[test]
fn an_object_that_was_deleted_before_does_not_come_back() {
    let world = world();
    assert_eq!(put(&world, "key", b"before"), "");
    assert_eq!(delete(&world, "key").header("x-amz-version-id"), "");
    set(&world, ENABLED);
    assert!(all(&world).is_empty());
    let marker = delete(&world, "absent").header("x-amz-version-id").to_owned();
    assert_eq!(all(&world), [format!("absent {marker}*-")], "a marker even for what is not there");
    let id = put(&world, "key", b"x");
    refused(&get(&world, "key?versionId=null"), 404, "NoSuchVersion");
    assert_eq!(listed(&get(&world, "?versions&prefix=k")), [format!("key {id}*")]);
    refused(&world.ask("DELETE", "/bucket", &[], b""), 409, "BucketNotEmpty");
    delete(&world, &format!("key?versionId={id}"));
    refused(&world.ask("DELETE", "/bucket", &[], b""), 409, "BucketNotEmpty");
    delete(&world, &format!("absent?versionId={marker}"));
    assert_eq!(world.ask("DELETE", "/bucket", &[], b"").status, 204);
}

#[test]
fn a_listing_of_versions_is_whole_in_pages_of_any_size() {
    let world = world();
    put(&world, "a/1", b"null");
    put(&world, "b", b"null");
    set(&world, ENABLED);
    for key in ["a/1", "a/2", "b", "b", "b!", "c/x/1"] {
        put(&world, key, key.as_bytes());
    }
    delete(&world, "a/2");
    delete(&world, "gone");
    set(&world, SUSPENDED);
    put(&world, "c/x/1", b"null");
    set(&world, ENABLED);
    put(&world, "c/x/1", b"last");
    for (query, expected_count) in [("", 12), ("&prefix=b", 4), ("&prefix=a/", 4), ("&prefix=z", 0)]
    {
        let whole = listed(&get(&world, &format!("?versions{query}")));
        assert_eq!(whole.len(), expected_count, "{query}: {whole:?}");
        for limit in 1..6 {
            let mut found = Vec::new();
            let mut marker = String::new();
            loop {
                let target = format!("?versions{query}&max-keys={limit}{marker}");
                let page = get(&world, &target);
                let entries = listed(&page);
                assert!(entries.len() <= limit, "{target}");
                found.extend(entries);
                if page.element("IsTruncated") == "false" {
                    break;
                }
                let (key, version) =
                    (page.element("NextKeyMarker"), page.element("NextVersionIdMarker"));
                let key = key.replace('!', "%21").replace('/', "%2F");
                marker = format!("&key-marker={key}&version-id-marker={version}");
            }
            assert_eq!(found, whole, "{query}, {limit} at a time");
        }
    }
    let grouped = get(&world, "?versions&delimiter=/&max-keys=3");
    assert_eq!(grouped.element("CommonPrefixes"), "<Prefix>a/");
    assert_eq!(listed(&grouped).len(), 2);
    assert_eq!(grouped.element("NextKeyMarker"), "b");
    let version = grouped.element("NextVersionIdMarker");
    let rest = format!("?versions&delimiter=/&key-marker=b&version-id-marker={version}");
    let rest = get(&world, &rest);
    assert_eq!(rest.elements("Prefix"), ["", "c/"]);
    assert_eq!(listed(&rest).len(), 3);
    let first = get(&world, "?versions&delimiter=/&max-keys=1");
    assert_eq!(first.element("NextKeyMarker"), "a/");
    let rest = get(&world, "?versions&delimiter=/&key-marker=a/");
    assert_eq!((rest.elements("Prefix"), listed(&rest).len()), (vec!["", "c/"], 5));

    let by_name = get(&world, "?versions&key-marker=b&version-id-marker=null&prefix=b");
    assert_eq!(listed(&by_name).len(), 1, "only b! is left");
    refused(&get(&world, "?versions&version-id-marker=null"), 400, "InvalidArgument");
    let gone = listed(&get(&world, "?versions&key-marker=a/2&version-id-marker=null"));
    assert_eq!(gone, all(&world)[2..], "what is not there hides nothing");
    refused(&get(&world, "?versions&key-marker=b&version-id-marker=x"), 400, "InvalidArgument");
}

#[test]
fn tags_belong_to_a_version() {
    for length in LENGTHS {
        let world = versioned();
        let data = bytes(length);
        let ids: Vec<String> = (0..3).map(|_| put(&world, "key", &data)).collect();
        let tag = |target: &str, value: &str| {
            let document = format!(
                "<Tagging><TagSet><Tag><Key>k</Key><Value>{value}</Value></Tag></TagSet></Tagging>"
            );
            let target = format!("/bucket/key?tagging{target}");
            let answer = world.ask("PUT", &target, &[], document.as_bytes());
            assert_eq!(answer.status, 200, "{answer:?}");
            answer.header("x-amz-version-id").to_owned()
        };
        let tags = |id: &str| {
            get(&world, &format!("key?tagging&versionId={id}")).element("Value").to_owned()
        };
        assert_eq!(tag("", "newest"), ids[2]);
        assert_eq!(tag(&format!("&versionId={}", ids[2]), "newer"), ids[2]);
        for value in ["one", "two"] {
            assert_eq!(tag(&format!("&versionId={}", ids[0]), value), ids[0]);
        }
        let after = put(&world, "key", b"after");
        world.simulation.run_for(Duration::from_secs(60));
        assert_eq!(
            [tags(&ids[0]), tags(&ids[1]), tags(&ids[2]), tags(&after)],
            ["two", "", "newer", ""]
        );
        for id in &ids {
            assert!(get(&world, &format!("key?versionId={id}")).body == data, "{length} bytes");
        }
        let listed = all(&world);
        let expected: Vec<String> = ids.iter().rev().map(|id| format!("key {id}")).collect();
        assert_eq!(listed[1..], expected, "no version has moved");
        let target = format!("/bucket/key?tagging&versionId={}", ids[0]);
        assert_eq!(world.ask("DELETE", &target, &[], b"").status, 204);
        assert_eq!(tags(&ids[0]), "");
        let marker = delete(&world, "key").header("x-amz-version-id").to_owned();
        refused(&get(&world, "key?tagging"), 404, "NoSuchKey");
        refused(&get(&world, &format!("key?tagging&versionId={marker}")), 405, "MethodNotAllowed");
    }
}

#[test]
fn a_former_version_can_be_copied() {
    let world = versioned();
    let data = bytes(100_000);
    let old = put(&world, "key", &data);
    put(&world, "key", b"new");
    let source = format!("/bucket/key?versionId={old}");
    let copy = world.ask("PUT", "/bucket/copy", &[("x-amz-copy-source", &source)], b"");
    assert_eq!((copy.status, copy.header("x-amz-copy-source-version-id")), (200, old.as_str()));
    let id = copy.header("x-amz-version-id").to_owned();
    let found = get(&world, "copy");
    assert!(found.body == data && found.header("x-amz-version-id") == id);
    // A version becomes current again by a copy onto itself.
    let back = world.ask("PUT", "/bucket/key", &[("x-amz-copy-source", &source)], b"");
    assert_eq!(back.status, 200, "{back:?}");
    assert!(get(&world, "key").body == data);
    assert_eq!(listed(&get(&world, "?versions&prefix=key")).len(), 3);
    let attributes = [("x-amz-object-attributes", "ObjectSize")];
    let target = format!("/bucket/key?attributes&versionId={old}");
    let told = world.ask("GET", &target, &attributes, b"");
    assert_eq!(
        (told.element("ObjectSize"), told.header("x-amz-version-id")),
        ("100000", old.as_str())
    );
    let marker = delete(&world, "key").header("x-amz-version-id").to_owned();
    let source = format!("/bucket/key?versionId={marker}");
    let copy = world.ask("PUT", "/bucket/copy", &[("x-amz-copy-source", &source)], b"");
    refused(&copy, 400, "InvalidRequest");
    let copy = world.ask("PUT", "/bucket/copy", &[("x-amz-copy-source", "/bucket/key")], b"");
    refused(&copy, 404, "NoSuchKey");
}

#[test]
fn many_versions_are_deleted_in_one_request() {
    let world = versioned();
    let ids: Vec<String> = (0..5).map(|_| put(&world, "key", b"x")).collect();
    let objects: String = ids[1..]
        .iter()
        .map(|id| format!("<Object><Key>key</Key><VersionId>{id}</VersionId></Object>"))
        .chain(["<Object><Key>other</Key></Object>".to_owned()])
        .collect();
    let document = format!("<Delete>{objects}</Delete>").into_bytes();
    let crc = crate::s3::testing::world::crc32(&document);
    let headers = [("x-amz-checksum-crc32", crc.as_str())];
    let answer = world.ask("POST", "/bucket?delete", &headers, &document);
    assert_eq!(
        answer.elements("VersionId"),
        ids[1..].iter().map(String::as_str).collect::<Vec<_>>()
    );
    assert_eq!(answer.elements("DeleteMarker"), ["true"]);
    let marker = answer.element("DeleteMarkerVersionId").to_owned();
    assert_eq!(all(&world), [format!("key {}*", ids[0]), format!("other {marker}*-")]);
    let document = format!(
        "<Delete><Object><Key>other</Key><VersionId>{marker}</VersionId></Object>\
         <Object><Key>key</Key><VersionId>bad</VersionId></Object></Delete>"
    );
    let crc = crate::s3::testing::world::crc32(document.as_bytes());
    let headers = [("x-amz-checksum-crc32", crc.as_str())];
    let answer = world.ask("POST", "/bucket?delete", &headers, document.as_bytes());
    assert_eq!(answer.element("DeleteMarkerVersionId"), marker);
    assert_eq!(answer.element("Code"), "InvalidArgument");
}

#[test]
fn conditions_are_judged_on_the_current_version() {
    let world = versioned();
    let conditional = |headers: &[(&str, &str)], data: &[u8]| {
        world.ask("PUT", "/bucket/key", headers, data).status
    };
    let one = put(&world, "key", b"one");
    let two = put(&world, "key", b"two");
    assert_eq!(conditional(&[("if-none-match", "*")], b"x"), 412);
    assert_eq!(conditional(&[("if-match", &etag(b"one"))], b"x"), 412);
    delete(&world, &format!("key?versionId={two}"));
    assert_eq!(conditional(&[("if-none-match", "*")], b"x"), 412);
    assert_eq!(conditional(&[("if-match", &etag(b"two"))], b"x"), 412);
    assert_eq!(conditional(&[("if-match", &etag(b"one"))], b"three"), 200);
    assert_eq!(get(&world, &format!("key?versionId={one}")).body, b"one");
    delete(&world, "key");
    assert_eq!(conditional(&[("if-match", &etag(b"three"))], b"x"), 404);
    assert_eq!(conditional(&[("if-none-match", "*")], b"four"), 200);
    assert_eq!(all(&world).len(), 4);
    let headers = [("if-match", etag(b"three"))];
    let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
    assert_eq!(world.ask("DELETE", "/bucket/key", &headers, b"").status, 412);
    assert_eq!(all(&world).len(), 4);
}

#[test]
fn an_upload_in_parts_makes_a_version() {
    let world = versioned();
    let before = put(&world, "key", b"before");
    let part = bytes(5 << 20);
    let mut uploads = Vec::new();
    for _ in 0..2 {
        let id = world.ask("POST", "/bucket/key?uploads", &[], b"").element("UploadId").to_owned();
        let target = format!("/bucket/key?partNumber=1&uploadId={id}");
        assert_eq!(world.ask("PUT", &target, &[], &part).status, 200);
        let target = format!("/bucket/key?partNumber=2&uploadId={id}");
        let source = format!("/bucket/key?versionId={before}");
        let copied = world.ask("PUT", &target, &[("x-amz-copy-source", &source)], b"");
        assert_eq!(copied.header("x-amz-copy-source-version-id"), before);
        let document = format!(
            "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{}</ETag></Part>\
             <Part><PartNumber>2</PartNumber><ETag>{}</ETag></Part></CompleteMultipartUpload>",
            etag(&part),
            etag(b"before")
        );
        uploads.push((format!("/bucket/key?uploadId={id}"), document));
    }
    let complete = |(target, document): &(String, String)| {
        let answer = world.ask("POST", target, &[], document.as_bytes());
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.header("x-amz-version-id").to_owned()
    };
    let one = complete(&uploads[0]);
    assert_eq!(complete(&uploads[0]), one, "a repeated completion names the same version");
    let two = complete(&uploads[1]);
    let expected = [format!("key {two}*"), format!("key {one}"), format!("key {before}")];
    assert_eq!(all(&world), expected);
    let whole = [&part[..], b"before"].concat();
    // Also once everything has settled and what is not needed is freed.
    for round in 0..2 {
        for id in [&one, &two] {
            assert!(get(&world, &format!("key?versionId={id}")).body == whole, "round {round}");
        }
        tidy(&world);
    }
    delete(&world, &format!("key?versionId={two}"));
    assert!(get(&world, "key").body == whole);
    tidy(&world);
    assert!(get(&world, "key").body == whole);
}

#[test]
fn what_is_listed_can_be_deleted_page_by_page() {
    for document in [None, Some(ENABLED), Some(SUSPENDED)] {
        let world = world();
        for key in ["a", "b", "c"] {
            put(&world, key, b"null");
        }
        if let Some(document) = document {
            set(&world, document);
            for key in ["a", "b", "b", "c", "c"] {
                put(&world, key, b"more");
            }
        }
        for limit in [1, 2] {
            let mut marker = String::new();
            loop {
                let page = get(&world, &format!("?versions&max-keys={limit}{marker}"));
                for version in listed(&page) {
                    let (key, id) = version.split_once(' ').expect("a key and an id");
                    delete(&world, &format!("{key}?versionId={}", id.trim_end_matches('*')));
                }
                if page.element("IsTruncated") == "false" {
                    break;
                }
                let (key, version) =
                    (page.element("NextKeyMarker"), page.element("NextVersionIdMarker"));
                marker = format!("&key-marker={key}&version-id-marker={version}");
            }
            assert!(all(&world).is_empty());
            put(&world, "a", b"again");
            put(&world, "b", b"again");
        }
    }
}

//! Tags over HTTP.

use std::time::Duration;

use basalt_engine::units::{DriveIndex, Key, Keyspace, SetIndex};

use crate::s3::testing::world::{World, bytes, etag, refused, world};

fn document(tags: &[(&str, &str)]) -> Vec<u8> {
    let tags: String = tags
        .iter()
        .map(|(key, value)| format!("<Tag><Key>{key}</Key><Value>{value}</Value></Tag>"))
        .collect();
    format!("<Tagging><TagSet>{tags}</TagSet></Tagging>").into_bytes()
}

fn tags(world: &World, target: &str) -> Vec<(String, String)> {
    let answer = world.ask("GET", target, &[], b"");
    assert_eq!(answer.status, 200, "{answer:?}");
    let pairs = answer.elements("Key").into_iter().zip(answer.elements("Value"));
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn tags_change_and_the_object_stays_what_it_is() {
    let world = world();
    // None, copies that travel with the record, small shards, and runs of their own.
    for length in [0, 5000, 100_000, 3_000_000] {
        let data = bytes(length);
        let headers = [("x-amz-tagging", "b=2&a=1"), ("x-amz-meta-color", "blue")];
        let put = world.ask("PUT", "/bucket/key", &headers, &data);
        assert_eq!(put.status, 200, "{put:?}");
        assert_eq!(tags(&world, "/bucket/key?tagging"), pairs(&[("a", "1"), ("b", "2")]));
        let before = world.ask("HEAD", "/bucket/key", &[], b"");
        assert_eq!(before.header("x-amz-tagging-count"), "2");
        world.simulation.run_for(Duration::from_secs(10));
        let new = document(&[("c", "3")]);
        for _ in 0..3 {
            assert_eq!(world.ask("PUT", "/bucket/key?tagging", &[], &new).status, 200);
        }
        assert_eq!(tags(&world, "/bucket/key?tagging"), pairs(&[("c", "3")]));
        world.simulation.run_for(Duration::from_secs(10));
        let get = world.ask("GET", "/bucket/key", &[], b"");
        assert!(get.body == data, "{length} bytes");
        assert_eq!(get.header("etag"), etag(&data));
        assert_eq!(get.header("last-modified"), before.header("last-modified"));
        assert_eq!(get.header("x-amz-meta-color"), "blue");
        assert_eq!(get.header("x-amz-tagging-count"), "1");
        assert_eq!(world.ask("DELETE", "/bucket/key?tagging", &[], b"").status, 204);
        assert_eq!(tags(&world, "/bucket/key?tagging"), []);
        assert!(world.ask("GET", "/bucket/key", &[], b"").body == data, "{length} bytes");
    }
    let absent = world.ask("GET", "/bucket/absent?tagging", &[], b"");
    refused(&absent, 404, "NoSuchKey");
    let absent = world.ask("PUT", "/bucket/absent?tagging", &[], &document(&[]));
    refused(&absent, 404, "NoSuchKey");
    refused(&world.ask("DELETE", "/bucket/absent?tagging", &[], b""), 404, "NoSuchKey");
}

#[test]
fn a_tagged_object_survives_the_drives_that_may_be_lost() {
    let world = world();
    for length in [5000, 100_000, 3_000_000] {
        let data = bytes(length);
        assert_eq!(world.ask("PUT", &format!("/bucket/{length}"), &[], &data).status, 200);
        let target = format!("/bucket/{length}?tagging");
        assert_eq!(world.ask("PUT", &target, &[], &document(&[("a", "1")])).status, 200);
    }
    world.simulation.run_for(Duration::from_secs(60));
    world.lose(0);
    world.lose(3);
    for length in [5000, 100_000, 3_000_000] {
        let get = world.ask("GET", &format!("/bucket/{length}"), &[], b"");
        assert!(get.body == bytes(length), "{length} bytes");
        assert_eq!(get.header("x-amz-tagging-count"), "1");
    }
}

#[test]
fn tags_come_with_uploads_and_copies() {
    let world = world();
    let begun = world.ask("POST", "/bucket/key?uploads", &[("x-amz-tagging", "a=1")], b"");
    let id = begun.element("UploadId").to_owned();
    let part = world.ask("PUT", &format!("/bucket/key?partNumber=1&uploadId={id}"), &[], b"data");
    let document = format!(
        "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{}</ETag></Part>\
         </CompleteMultipartUpload>",
        part.header("etag")
    );
    let target = format!("/bucket/key?uploadId={id}");
    assert_eq!(world.ask("POST", &target, &[], document.as_bytes()).status, 200);
    assert_eq!(tags(&world, "/bucket/key?tagging"), pairs(&[("a", "1")]));

    // The parts of a tagged object are still its parts, and the completion is still known.
    let new = self::document(&[("b", "2")]);
    assert_eq!(world.ask("PUT", "/bucket/key?tagging", &[], &new).status, 200);
    assert_eq!(world.ask("POST", &target, &[], document.as_bytes()).status, 200);
    let part = world.ask("GET", "/bucket/key?partNumber=1", &[], b"");
    assert_eq!((part.status, part.text(), part.header("x-amz-mp-parts-count")), (206, "data", "1"));

    let source = ("x-amz-copy-source", "/bucket/key");
    let copy = |headers: &[(&str, &str)]| {
        let headers: Vec<_> = headers.iter().copied().chain([source]).collect();
        world.ask("PUT", "/bucket/copy", &headers, b"")
    };
    assert_eq!(copy(&[]).status, 200);
    assert_eq!(tags(&world, "/bucket/copy?tagging"), pairs(&[("b", "2")]));
    assert_eq!(copy(&[("x-amz-tagging", "c=3")]).status, 200);
    assert_eq!(tags(&world, "/bucket/copy?tagging"), pairs(&[("b", "2")]), "COPY is the default");
    let replace = ("x-amz-tagging-directive", "REPLACE");
    assert_eq!(copy(&[replace, ("x-amz-tagging", "c=3")]).status, 200);
    assert_eq!(tags(&world, "/bucket/copy?tagging"), pairs(&[("c", "3")]));
    assert_eq!(copy(&[replace]).status, 200);
    assert_eq!(tags(&world, "/bucket/copy?tagging"), []);
    refused(&copy(&[("x-amz-tagging-directive", "KEEP")]), 400, "InvalidArgument");
}

#[test]
fn tags_that_are_not_allowed_change_nothing() {
    let world = world();
    assert_eq!(world.ask("PUT", "/bucket/key", &[("x-amz-tagging", "a=1")], b"x").status, 200);
    let put = |document: &[u8]| world.ask("PUT", "/bucket/key?tagging", &[], document);
    let many: Vec<(String, &str)> = (0..11).map(|number| (number.to_string(), "")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(key, value)| (key.as_str(), *value)).collect();
    refused(&put(&document(&many)), 400, "InvalidTag");
    refused(&put(&document(&[("a", ""), ("a", "")])), 400, "InvalidTag");
    refused(&put(&document(&[("aws:a", "")])), 400, "InvalidTag");
    refused(&put(b"<Tagging/>"), 400, "MalformedXML");
    refused(&put(b""), 400, "MalformedXML");
    assert_eq!(tags(&world, "/bucket/key?tagging"), pairs(&[("a", "1")]));
    let put = world.ask("PUT", "/bucket/key", &[("x-amz-tagging", "a=1&a=2")], b"y");
    refused(&put, 400, "InvalidArgument");
    assert_eq!(world.ask("GET", "/bucket/key", &[], b"").text(), "x");
}

#[test]
fn buckets_have_tags_of_their_own() {
    let world = world();
    refused(&world.ask("GET", "/bucket?tagging", &[], b""), 404, "NoSuchTagSet");
    // The most that is allowed: more than a record holds.
    let most: Vec<(String, String)> =
        (0..50).map(|number| (format!("{number:0128}"), "v".repeat(256))).collect();
    let borrowed: Vec<(&str, &str)> =
        most.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let put = world.ask("PUT", "/bucket?tagging", &[], &document(&borrowed));
    assert_eq!(put.status, 204, "{put:?}");
    assert_eq!(tags(&world, "/bucket?tagging"), most);
    let few = document(&[("team", "blue")]);
    assert_eq!(world.ask("PUT", "/bucket?tagging", &[], &few).status, 204);
    assert_eq!(tags(&world, "/bucket?tagging"), pairs(&[("team", "blue")]));
    assert!(world.ask("GET", "/", &[], b"").elements("Name") == ["bucket"]);
    refused(&world.ask("PUT", "/bucket?tagging", &[], b"<Tagging/>"), 400, "MalformedXML");
    refused(&world.ask("PUT", "/absent?tagging", &[], &few), 404, "NoSuchBucket");
    assert_eq!(world.ask("DELETE", "/bucket?tagging", &[], b"").status, 204);
    assert_eq!(world.ask("DELETE", "/bucket?tagging", &[], b"").status, 204);
    refused(&world.ask("GET", "/bucket?tagging", &[], b""), 404, "NoSuchTagSet");
    assert_eq!(world.ask("PUT", "/bucket?tagging", &[], &few).status, 204);
    assert_eq!(world.ask("PUT", "/bucket?tagging", &[], &document(&[])).status, 204);
    refused(&world.ask("GET", "/bucket?tagging", &[], b""), 404, "NoSuchTagSet");
    // A bucket of the same name has none of its predecessor's.
    assert_eq!(world.ask("PUT", "/bucket?tagging", &[], &few).status, 204);
    assert_eq!(world.ask("DELETE", "/bucket", &[], b"").status, 204);
    assert_eq!(world.ask("PUT", "/bucket", &[], b"").status, 200);
    refused(&world.ask("GET", "/bucket?tagging", &[], b""), 404, "NoSuchTagSet");
}

/// Does what the owner of a set does in the background: settles the key, then frees what no record
/// names.
fn upkeep(world: &World, key: &str) {
    let (store, key) = (world.store.clone(), key.to_owned());
    world.simulation.block_on(&world.runtime, async move {
        let set = SetIndex(0);
        let bucket = store.bucket("bucket").await.expect("it is there");
        let key = Key::new(Keyspace::Objects, bucket.incarnation, key.as_bytes());
        store.settle_key(set, &key).await.expect("every drive answers");
        for drive in (0..4).map(DriveIndex) {
            for orphan in store.orphans(set, drive).await.expect("it answers") {
                store.free_orphan(set, &[drive], &orphan).await.expect("it answers");
            }
        }
    });
}

#[test]
fn a_drive_that_missed_something_is_caught_up_and_frees_nothing_that_is_needed() {
    let world = world();
    for length in [5000, 100_000, 3_000_000] {
        for (misses_put, misses_tags) in [(true, false), (false, true), (true, true)] {
            let key = format!("{length}-{misses_put}-{misses_tags}");
            let (target, data) = (format!("/bucket/{key}"), bytes(length));
            let with_loss = |misses: bool, ask: &dyn Fn() -> u16| {
                if misses {
                    world.lose(1);
                }
                assert_eq!(ask(), 200, "{key}");
                world.simulation.run_for(Duration::from_secs(10));
                world.recover();
            };
            with_loss(misses_put, &|| world.ask("PUT", &target, &[], &data).status);
            let tags = document(&[("a", "1")]);
            let tagging = format!("{target}?tagging");
            with_loss(misses_tags, &|| world.ask("PUT", &tagging, &[], &tags).status);
            for _ in 0..2 {
                upkeep(&world, &key);
                world.simulation.run_for(Duration::from_secs(10));
            }
            // The one that missed something is needed now.
            world.lose(0);
            world.lose(2);
            let get = world.ask("GET", &target, &[], b"");
            assert!(get.body == data, "{key}");
            assert_eq!(get.header("x-amz-tagging-count"), "1", "{key}");
            world.recover();
        }
    }
}

//! Uploads under way and what becomes of their parts, over HTTP.

use std::time::Duration;

use basalt_engine::request::{Reply, Request};
use basalt_engine::units::{DriveIndex, Key, Keyspace, SetIndex};
use basalt_net::mailbox::Mailbox;

use crate::node::upkeep::{Seats, Upkeep};
use crate::object::Swept;
use crate::object::settle::Settled;
use crate::s3::testing::world::{Response, World, bytes, crc32, etag, refused, world};

const PART_BYTES: usize = 5 << 20;
const SET: SetIndex = SetIndex(0);
/// Short enough for the clock of signatures.
const REST: Duration = Duration::from_secs(300);

fn begin(world: &World, key: &str, headers: &[(&str, &str)]) -> String {
    let begun = world.ask("POST", &format!("/bucket/{key}?uploads"), headers, b"");
    assert_eq!(begun.status, 200, "{begun:?}");
    begun.element("UploadId").to_owned()
}

fn put_part(world: &World, key: &str, id: &str, number: u32, data: &[u8]) -> String {
    let target = format!("/bucket/{key}?partNumber={number}&uploadId={id}");
    let put = world.ask("PUT", &target, &[], data);
    assert_eq!(put.status, 200, "{put:?}");
    put.header("etag").to_owned()
}

fn complete(world: &World, key: &str, id: &str, parts: &[(u32, String)]) -> Response {
    complete_with(world, key, id, parts, &[])
}

fn complete_with(
    world: &World,
    key: &str,
    id: &str,
    parts: &[(u32, String)],
    headers: &[(&str, &str)],
) -> Response {
    let document = completion(parts);
    world.ask("POST", &format!("/bucket/{key}?uploadId={id}"), headers, document.as_bytes())
}

fn completion(parts: &[(u32, String)]) -> String {
    let parts: String = parts
        .iter()
        .map(|(number, etag)| {
            format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>")
        })
        .collect();
    format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>")
}

fn sweep(world: &World, age: Duration) -> Swept {
    let store = world.store.clone();
    world.simulation.block_on(&world.runtime, async move {
        store.sweep_uploads(SET, age).await.expect("every drive answers")
    })
}

/// Keys that any drive's listing of parts still has, live ones only.
fn listed_parts(world: &World, key: &str, id: &str) -> Vec<String> {
    let parts = world.ask("GET", &format!("/bucket/{key}?uploadId={id}"), &[], b"");
    parts.elements("PartNumber").into_iter().map(str::to_owned).collect()
}

#[test]
fn parts_are_listed_from_page_to_page() {
    let world = world();
    let id = begin(&world, "key", &[("x-amz-checksum-algorithm", "CRC32")]);
    for number in [1, 2, 5, 258] {
        put_part(&world, "key", &id, number, &bytes(number as usize * 10));
    }
    put_part(&world, "key", &id, 2, b"again");
    let list =
        |query: &str| world.ask("GET", &format!("/bucket/key?{query}uploadId={id}"), &[], b"");
    let all = list("");
    assert_eq!(all.status, 200);
    assert_eq!(all.elements("PartNumber"), ["1", "2", "5", "258"]);
    assert_eq!(all.elements("Size"), ["10", "5", "50", "2580"]);
    assert_eq!(all.elements("ChecksumCRC32")[1], crc32(b"again"));
    assert_eq!(all.elements("ETag")[1], etag(b"again").replace('"', "&quot;"));
    assert_eq!((all.element("IsTruncated"), all.element("MaxParts")), ("false", "1000"));
    assert_eq!(
        (all.element("ChecksumAlgorithm"), all.element("ChecksumType")),
        ("CRC32", "COMPOSITE")
    );
    assert_eq!((all.element("UploadId"), all.element("Key")), (&*id, "key"));
    let page = list("max-parts=2&");
    assert_eq!(page.elements("PartNumber"), ["1", "2"]);
    assert_eq!((page.element("IsTruncated"), page.element("NextPartNumberMarker")), ("true", "2"));
    let page = list("max-parts=2&part-number-marker=2&");
    assert_eq!(page.elements("PartNumber"), ["5", "258"]);
    assert_eq!((page.element("IsTruncated"), page.element("PartNumberMarker")), ("false", "2"));
    assert!(list("part-number-marker=258&").elements("PartNumber").is_empty());
    assert!(list("part-number-marker=99999&").elements("PartNumber").is_empty());
    refused(&list("max-parts=x&"), 400, "InvalidArgument");
    refused(&list("part-number-marker=-1&"), 400, "InvalidArgument");
    let other = world.ask("GET", &format!("/bucket/other?uploadId={id}"), &[], b"");
    refused(&other, 404, "NoSuchUpload");
    refused(&world.ask("GET", "/bucket/key?uploadId=x", &[], b""), 404, "NoSuchUpload");
}

#[test]
fn uploads_are_listed_by_key_and_then_by_time() {
    let world = world();
    let mut ids = Vec::new();
    for key in ["b/2", "a", "b/1", "a", "c", "a%20b"] {
        ids.push((key, begin(&world, key, &[])));
        world.simulation.run_for(Duration::from_millis(5));
    }
    put_part(&world, "c", &ids[4].1, 1, b"a part is no upload");
    let list = |query: &str| world.ask("GET", &format!("/bucket?uploads{query}"), &[], b"");
    let all = list("");
    assert_eq!(all.elements("Key"), ["a", "a", "a b", "b/1", "b/2", "c"]);
    let of_a: Vec<&str> = all.elements("UploadId")[..2].to_vec();
    assert_eq!(of_a, [&*ids[1].1, &*ids[3].1], "the earlier one first");
    assert!(all.element("Initiated").starts_with("2013-05-24T00:00:0"), "{}", all.text());
    assert_eq!(list("&prefix=a").elements("Key"), ["a", "a", "a b"]);
    assert_eq!(list("&encoding-type=url&prefix=a%20").elements("Key"), ["a%20b"]);

    let grouped = list("&delimiter=%2F&max-uploads=4");
    assert_eq!(grouped.elements("Key"), ["a", "a", "a b"]);
    assert!(grouped.text().contains("<CommonPrefixes><Prefix>b/</Prefix></CommonPrefixes>"));
    assert_eq!((grouped.element("IsTruncated"), grouped.element("NextKeyMarker")), ("true", "b/"));
    let rest = list("&delimiter=%2F&key-marker=b%2F");
    assert_eq!(rest.elements("Key"), ["c"]);
    assert!(!rest.text().contains("<CommonPrefixes>"), "{}", rest.text());

    let mut seen = Vec::new();
    let mut position = String::new();
    loop {
        let page = list(&format!("{position}&max-uploads=1"));
        seen.extend(page.elements("UploadId").into_iter().map(str::to_owned));
        if page.element("IsTruncated") == "false" {
            break;
        }
        let key = page.element("NextKeyMarker").replace(' ', "%20").replace('/', "%2F");
        position =
            format!("&key-marker={key}&upload-id-marker={}", page.element("NextUploadIdMarker"));
    }
    assert_eq!(seen, all.elements("UploadId"));
    assert_eq!(list("&key-marker=a").elements("Key"), ["a b", "b/1", "b/2", "c"]);
    assert_eq!(list("&upload-id-marker=zzz").elements("Key").len(), 6);
    assert_eq!(list("&max-uploads=0").element("IsTruncated"), "false");
    refused(&world.ask("GET", "/absent?uploads", &[], b""), 404, "NoSuchBucket");
    refused(&list("&max-uploads=x"), 400, "InvalidArgument");

    let (key, id) = &ids[0];
    assert_eq!(world.ask("DELETE", &format!("/bucket/{key}?uploadId={id}"), &[], b"").status, 204);
    assert_eq!(list("&prefix=b").elements("Key"), ["b/1"]);
}

#[test]
fn parts_of_a_completed_upload_can_be_read_one_by_one() {
    let world = world();
    let data = bytes(2 * PART_BYTES + 1000);
    let id = begin(&world, "key", &[("x-amz-checksum-algorithm", "CRC32")]);
    // Numbers need not follow each other, and stay what they were.
    let numbers = [2, 4, 7];
    let parts: Vec<(u32, String)> = numbers
        .iter()
        .zip(data.chunks(PART_BYTES))
        .map(|(&number, part)| (number, put_part(&world, "key", &id, number, part)))
        .collect();
    let done = complete(&world, "key", &id, &parts);
    assert_eq!((done.status, done.element("ChecksumType")), (200, "COMPOSITE"), "{done:?}");
    let composite = done.element("ChecksumCRC32").to_owned();
    assert!(composite.ends_with("-3"), "{composite}");

    let mode = ("x-amz-checksum-mode", "ENABLED");
    for (number, part) in numbers.iter().zip(data.chunks(PART_BYTES)) {
        let target = format!("/bucket/key?partNumber={number}");
        for method in ["GET", "HEAD"] {
            let got = world.ask(method, &target, &[mode], b"");
            assert_eq!(got.status, 206, "{number}");
            assert_eq!(got.header("x-amz-mp-parts-count"), "3");
            assert_eq!(got.header("content-length"), part.len().to_string());
            assert_eq!(got.header("x-amz-checksum-crc32"), crc32(part));
            assert!(method == "HEAD" || got.body == part, "{number}");
        }
    }
    let second = world.ask("HEAD", "/bucket/key?partNumber=4", &[], b"");
    let range = format!("bytes {PART_BYTES}-{}/{}", 2 * PART_BYTES - 1, data.len());
    assert_eq!(second.header("content-range"), range);
    for number in [1, 3, 8] {
        let missing = world.ask("GET", &format!("/bucket/key?partNumber={number}"), &[], b"");
        refused(&missing, 400, "InvalidPart");
    }
    refused(&world.ask("GET", "/bucket/key?partNumber=0", &[], b""), 400, "InvalidArgument");
    let both = world.ask("GET", "/bucket/key?partNumber=2", &[("range", "bytes=0-1")], b"");
    refused(&both, 400, "InvalidRequest");
    let whole = world.ask("HEAD", "/bucket/key", &[mode], b"");
    assert_eq!(whole.header("x-amz-checksum-crc32"), composite);
    assert_eq!(whole.header("x-amz-checksum-type"), "COMPOSITE");
    assert_eq!(whole.header("x-amz-mp-parts-count"), "");

    let attributes = |headers: &[(&str, &str)]| {
        let wanted = ("x-amz-object-attributes", "ObjectParts,Checksum,ETag");
        let headers: Vec<_> = headers.iter().copied().chain([wanted]).collect();
        world.ask("GET", "/bucket/key?attributes", &headers, b"")
    };
    let all = attributes(&[]);
    assert_eq!((all.element("PartsCount"), all.element("IsTruncated")), ("3", "false"));
    assert_eq!(all.elements("PartNumber"), ["2", "4", "7"]);
    assert_eq!(all.elements("Size"), ["5242880", "5242880", "1000"]);
    assert_eq!(all.elements("ChecksumCRC32")[0], composite);
    assert_eq!(all.elements("ChecksumCRC32")[3], crc32(&data[2 * PART_BYTES..]));
    let page = attributes(&[("x-amz-max-parts", "1"), ("x-amz-part-number-marker", "2")]);
    assert_eq!(page.elements("PartNumber"), ["4"]);
    assert_eq!((page.element("IsTruncated"), page.element("NextPartNumberMarker")), ("true", "4"));
}

#[test]
fn many_parts_are_remembered_in_the_manifest() {
    let world = world();
    let id = begin(&world, "key", &[]);
    let data = bytes(PART_BYTES);
    let mut parts: Vec<(u32, String)> =
        (1..=17).map(|number| (number, put_part(&world, "key", &id, number, &data))).collect();
    parts.push((18, put_part(&world, "key", &id, 18, b"")));
    let done = complete(&world, "key", &id, &parts);
    assert_eq!(done.status, 200, "{done:?}");
    let seventeenth = world.ask("GET", "/bucket/key?partNumber=17", &[], b"");
    assert!(seventeenth.body == data);
    assert_eq!(seventeenth.header("x-amz-mp-parts-count"), "18");
    let empty = world.ask("GET", "/bucket/key?partNumber=18", &[], b"");
    refused(&empty, 416, "InvalidRange");
    let wanted = [("x-amz-object-attributes", "ObjectParts")];
    let attributes = world.ask("GET", "/bucket/key?attributes", &wanted, b"");
    assert_eq!(attributes.elements("PartNumber").len(), 18);
}

/// Settles what is there, then walks once through the relocated payloads; answers how many shards that
/// freed.
fn release(world: &World) -> usize {
    let store = world.store.clone();
    world.simulation.block_on(&world.runtime, async move {
        let seats = Seats::all_here(store.mailbox().drive_count(SET));
        let mut upkeep = Upkeep::new(store.clone(), SET, seats.clone());
        while upkeep.look().await.unsettled > 0 {}
        let released = store.release_relocated(SET, seats.mask(), None).await;
        let released = released.expect("every drive answers");
        assert_eq!(released.next, None, "all of it was one page");
        released.shards
    })
}

#[test]
fn parts_that_a_manifest_lists_go_with_their_object_and_not_before() {
    let world = world();
    let data = bytes(PART_BYTES);
    let upload = |key: &str| {
        let id = begin(&world, key, &[]);
        let parts: Vec<(u32, String)> =
            (1..=17).map(|number| (number, put_part(&world, key, &id, number, &data))).collect();
        assert_eq!(complete(&world, key, &id, &parts).status, 200);
    };
    upload("gone");
    upload("kept");
    assert_eq!(release(&world), 0, "both are there");
    assert_eq!(world.ask("DELETE", "/bucket/gone", &[], b"").status, 204);
    assert_eq!(release(&world), 17 * 4, "17 parts, each on four drives");
    assert_eq!(release(&world), 0, "nothing is freed twice");
    let kept = world.ask("GET", "/bucket/kept?partNumber=17", &[], b"");
    assert!(kept.body == data);
    assert_eq!(world.ask("PUT", "/bucket/kept", &[], b"small").status, 200);
    assert_eq!(release(&world), 17 * 4, "an overwritten object's parts go as well");
}

#[test]
fn a_completion_is_held_to_what_it_states() {
    let world = world();
    let id = begin(&world, "key", &[("x-amz-checksum-algorithm", "CRC32")]);
    let parts = [(1, put_part(&world, "key", &id, 1, b"data"))];
    let with = |headers: &[(&str, &str)]| complete_with(&world, "key", &id, &parts, headers);
    refused(&with(&[("x-amz-mp-object-size", "5")]), 400, "InvalidRequest");
    refused(&with(&[("x-amz-mp-object-size", "x")]), 400, "InvalidRequest");
    refused(&with(&[("x-amz-checksum-type", "FULL_OBJECT")]), 400, "InvalidRequest");
    refused(&with(&[("x-amz-checksum-crc32", "AAAAAA==-1")]), 400, "BadDigest");
    let stated = [("x-amz-mp-object-size", "4"), ("x-amz-checksum-type", "COMPOSITE")];
    assert_eq!(with(&stated).status, 200);
    assert_eq!(with(&stated).status, 200, "a repeated completion succeeds");

    // Where the upload has no algorithm, what the parts have is enough to verify what is stated.
    let id = begin(&world, "plain", &[]);
    let target = format!("/bucket/plain?partNumber=1&uploadId={id}");
    let part = world.ask("PUT", &target, &[("x-amz-checksum-crc32", &*crc32(b"data"))], b"data");
    let parts = [(1, part.header("etag").to_owned())];
    let with = |crc: &str| {
        let headers = [("x-amz-checksum-crc32", crc), ("x-amz-checksum-type", "FULL_OBJECT")];
        complete_with(&world, "plain", &id, &parts, &headers)
    };
    refused(&with("AAAAAA=="), 400, "BadDigest");
    assert_eq!(with(&crc32(b"data")).status, 200);
}

#[test]
fn stale_uploads_are_aborted_and_completed_ones_forgotten() {
    let world = world();
    let stale = begin(&world, "stale", &[]);
    put_part(&world, "stale", &stale, 1, &bytes(100_000));
    let done = begin(&world, "done", &[]);
    let parts = [(1, put_part(&world, "done", &done, 1, b"data"))];
    assert_eq!(complete(&world, "done", &done, &parts).status, 200);
    assert!(sweep(&world, REST).is_nothing(), "nothing has rested for long");
    world.simulation.run_for(REST);
    let fresh = begin(&world, "fresh", &[]);
    put_part(&world, "fresh", &fresh, 1, b"kept");

    let swept = sweep(&world, REST);
    let expected = Swept { aborted: 1, forgotten: 1, ..Swept::default() };
    assert_eq!(swept, expected);
    assert_eq!(world.ask("GET", "/bucket?uploads", &[], b"").elements("Key"), ["fresh"]);
    assert!(listed_parts(&world, "stale", &stale).is_empty());
    refused(&complete(&world, "stale", &stale, &parts), 404, "NoSuchUpload");
    refused(&complete(&world, "done", &done, &parts), 404, "NoSuchUpload");
    assert_eq!(world.ask("GET", "/bucket/done", &[], b"").text(), "data");
    assert_eq!(listed_parts(&world, "fresh", &fresh), ["1"]);
    assert!(sweep(&world, REST).is_nothing());
}

/// Moments within one request at which drives are lost.
fn moments() -> impl Iterator<Item = Duration> {
    (0..400).map(|step| Duration::from_micros(step * 25))
}

#[test]
fn a_completion_that_was_cut_off_is_completed() {
    let world = world();
    let data = bytes(100_000);
    let mut cut_off = 0;
    for (number, after) in moments().enumerate() {
        let key = format!("key-{number}");
        let id = begin(&world, &key, &[]);
        let part = (1, put_part(&world, &key, &id, 1, &data));
        let document = completion(std::slice::from_ref(&part));
        let target = format!("/bucket/{key}?uploadId={id}");
        let answer = world.ask_and_lose("POST", &target, document.as_bytes(), after);
        let is_open = world.ask("GET", &target, &[], b"").status == 200;
        let is_there = world.ask("HEAD", &format!("/bucket/{key}"), &[], b"").status == 200;
        if answer.status == 200 {
            assert!(is_there, "it was acknowledged");
            break;
        }
        if is_open || is_there {
            continue;
        }
        // The completion is decided, and the object is not there.
        cut_off += 1;
        world.simulation.run_for(REST / 300);
        let swept = sweep(&world, REST / 300);
        assert!(swept.completed >= 1, "{swept:?}");
        assert!(world.ask("GET", &format!("/bucket/{key}"), &[], b"").body == data);
        assert_eq!(complete(&world, &key, &id, &[part]).status, 200, "and it is known");
        if cut_off == 3 {
            break;
        }
    }
    assert!(cut_off > 0, "no moment was in between");
}

/// The record of a completion is made before versions are kept, and decided afterwards.
#[test]
fn a_completion_that_was_cut_off_keeps_what_versions_were_enabled_for() {
    let enabled = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>";
    let data = bytes(100_000);
    let mut cut_off = 0;
    for after in moments() {
        let world = world();
        assert_eq!(world.ask("PUT", "/bucket/key", &[], b"first").status, 200);
        let id = begin(&world, "key", &[]);
        let part = (1, put_part(&world, "key", &id, 1, &data));
        let document = completion(std::slice::from_ref(&part));
        let target = format!("/bucket/key?uploadId={id}");
        let answer = world.ask_and_lose("POST", &target, document.as_bytes(), after);
        if answer.status == 200 {
            break;
        }
        let is_open = world.ask("GET", &target, &[], b"").status == 200;
        if is_open || world.ask("GET", "/bucket/key", &[], b"").body != b"first" {
            continue;
        }
        cut_off += 1;
        assert_eq!(world.ask("PUT", "/bucket?versioning", &[], enabled).status, 200);
        if cut_off % 2 == 0 {
            world.simulation.run_for(REST / 300);
            assert!(sweep(&world, REST / 300).completed >= 1);
        }
        assert_eq!(complete(&world, "key", &id, &[part]).status, 200);
        release(&world);
        assert!(world.ask("GET", "/bucket/key", &[], b"").body == data);
        let first = world.ask("GET", "/bucket/key?versionId=null", &[], b"");
        assert_eq!((first.status, &first.body[..]), (200, &b"first"[..]), "after {after:?}");
        if cut_off == 4 {
            break;
        }
    }
    assert!(cut_off > 1, "no moment was in between");
}

#[test]
fn parts_that_an_abort_left_behind_are_removed() {
    let world = world();
    let mut left = 0;
    for (number, after) in moments().enumerate() {
        let key = format!("key-{number}");
        let id = begin(&world, &key, &[]);
        for part in 1..=3 {
            put_part(&world, &key, &id, part, &bytes(20_000));
        }
        let target = format!("/bucket/{key}?uploadId={id}");
        let answer = world.ask_and_lose("DELETE", &target, b"", after);
        if answer.status == 204 {
            break;
        }
        let swept = sweep(&world, REST);
        left += swept.orphaned;
        assert_eq!(swept, Swept { orphaned: swept.orphaned, ..Swept::default() });
        assert!(sweep(&world, REST).is_nothing());
    }
    assert!(left > 0, "no moment was in between");
}

#[test]
fn uploads_end_with_their_bucket() {
    let world = world();
    let id = begin(&world, "key", &[]);
    put_part(&world, "key", &id, 1, &bytes(100_000));
    assert_eq!(world.ask("DELETE", "/bucket", &[], b"").status, 204);
    assert_eq!(world.ask("PUT", "/bucket", &[], b"").status, 200);
    assert!(world.ask("GET", "/bucket?uploads", &[], b"").elements("Key").is_empty());
    assert_eq!(sweep(&world, REST), Swept { aborted: 1, ..Swept::default() });
    assert!(sweep(&world, REST).is_nothing());
}

/// Frees every orphan of every drive that nothing needs, as a sweep does once they are ripe.
fn free_orphans(world: &World) -> usize {
    let store = world.store.clone();
    world.simulation.block_on(&world.runtime, async move {
        let mut freed = 0;
        for drive in (0..4).map(DriveIndex) {
            for orphan in store.orphans(SET, drive).await.expect("it answers") {
                freed += store.free_orphan(SET, &[drive], &orphan).await.expect("all answer");
            }
        }
        freed
    })
}

/// Drops a shard of a part that a manifest lists; that unsettles the object. Has it rebuilt.
fn rebuild_a_part(world: &World, key: &'static str) {
    let (store, runtime) = (world.store.clone(), world.runtime.clone());
    world.simulation.block_on(&runtime, async move {
        let ask = |request| store.mailbox().send(SET, vec![(DriveIndex(0), request)]);
        let told = ask(Request::Relocated { after: None, limit: 1 }).next().await;
        let Some((_, Reply::Orphans { entries, .. })) = told else { panic!("{told:?}") };
        let incarnation = store.bucket("bucket").await.expect("it is there").incarnation;
        let object = Key::new(Keyspace::Objects, incarnation, key.as_bytes());
        let drop = Request::DropShard { payload: entries[0].payload, key: object.clone() };
        let dropped = ask(drop).next().await;
        assert!(matches!(dropped, Some((_, Reply::Done))), "{dropped:?}");
        let told = ask(Request::Unsettled { after: None, limit: 9 }).next().await;
        let Some((_, Reply::Scanned { entries, .. })) = told else { panic!("{told:?}") };
        let keys: Vec<&Key> = entries.iter().map(|entry| &entry.key).collect();
        assert_eq!(keys, [&object]);
        assert_eq!(store.settle_key(SET, &object).await.expect("settled"), Settled::Fully);
    });
}

#[test]
fn rebuilt_parts_of_a_tagged_object_are_no_orphans() {
    let world = world();
    let id = begin(&world, "key", &[]);
    let data = bytes(PART_BYTES);
    let parts: Vec<(u32, String)> =
        (1..=17).map(|number| (number, put_part(&world, "key", &id, number, &data))).collect();
    assert_eq!(complete(&world, "key", &id, &parts).status, 200);
    release(&world);
    rebuild_a_part(&world, "key");
    let tags = b"<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>";
    assert_eq!(world.ask("PUT", "/bucket/key?tagging", &[], tags).status, 200);
    release(&world);
    assert_eq!(free_orphans(&world), 0, "the manifest lists it");
    world.lose(1);
    world.lose(2);
    for number in 1..=17 {
        let part = world.ask("GET", &format!("/bucket/key?partNumber={number}"), &[], b"");
        assert!(part.body == data, "part {number}");
    }
}

#[test]
fn overwritten_parts_stay_until_their_upload_ends() {
    let world = world();
    let id = begin(&world, "key", &[]);
    put_part(&world, "key", &id, 1, &bytes(100_000));
    let part = put_part(&world, "key", &id, 1, &bytes(200_000));
    release(&world);
    assert_eq!(free_orphans(&world), 0, "a completion may have chosen it");
    assert_eq!(complete(&world, "key", &id, &[(1, part)]).status, 200);
    release(&world);
    assert_eq!(free_orphans(&world), 4, "on every drive");
    assert!(world.ask("GET", "/bucket/key", &[], b"").body == bytes(200_000));
}

//! Ranges and parts of objects.

use super::{begin, complete, put_part};
use crate::s3::testing::world::{bytes, etag, refused, world};

const THEN: &str = "Fri, 24 May 2013 00:00:00 GMT";
const BEFORE: &str = "Thu, 23 May 2013 23:59:59 GMT";

#[test]
fn a_range_selects_what_http_says() {
    let world = world();
    assert_eq!(world.ask("PUT", "/bucket/ten", &[], b"0123456789").status, 200);
    let cases: [(&str, u16, &str, &str); 17] = [
        ("bytes=0-9", 206, "0123456789", "bytes 0-9/10"),
        ("bytes=0-0", 206, "0", "bytes 0-0/10"),
        ("bytes=9-9", 206, "9", "bytes 9-9/10"),
        ("bytes=5-", 206, "56789", "bytes 5-9/10"),
        ("bytes=5-99999999999999999999", 206, "56789", "bytes 5-9/10"),
        ("bytes=-1", 206, "9", "bytes 9-9/10"),
        ("bytes=-10", 206, "0123456789", "bytes 0-9/10"),
        ("bytes=-11", 206, "0123456789", "bytes 0-9/10"),
        ("bytes=10-", 416, "", "bytes */10"),
        ("bytes=10-20", 416, "", "bytes */10"),
        ("bytes=-0", 416, "", "bytes */10"),
        // What is no single range of bytes is as if it were not there.
        ("bytes=5-4", 200, "0123456789", ""),
        ("bytes=0-1,3-4", 200, "0123456789", ""),
        ("bytes=-", 200, "0123456789", ""),
        ("bytes=a-b", 200, "0123456789", ""),
        ("octets=0-1", 200, "0123456789", ""),
        ("bytes 0-1", 200, "0123456789", ""),
    ];
    for (range, status, body, told) in cases {
        let get = world.ask("GET", "/bucket/ten", &[("range", range)], b"");
        assert_eq!((get.status, get.header("content-range")), (status, told), "{range}");
        match status {
            416 => refused(&get, 416, "InvalidRange"),
            _ => assert_eq!(get.text(), body, "{range}"),
        }
        let head = world.ask("HEAD", "/bucket/ten", &[("range", range)], b"");
        assert_eq!((head.status, head.header("content-range")), (status, told), "{range}");
        if status != 416 {
            assert_eq!(head.header("content-length"), body.len().to_string(), "{range}");
            assert_eq!(head.header("etag"), etag(b"0123456789"));
        }
    }
}

#[test]
fn an_empty_object_has_no_ranges() {
    let world = world();
    assert_eq!(world.ask("PUT", "/bucket/empty", &[], b"").status, 200);
    for range in ["bytes=0-0", "bytes=0-", "bytes=-1"] {
        let get = world.ask("GET", "/bucket/empty", &[("range", range)], b"");
        refused(&get, 416, "InvalidRange");
        assert_eq!(get.header("content-range"), "bytes */0", "{range}");
    }
    assert_eq!(world.ask("GET", "/bucket/empty", &[("range", "bytes=1-0")], b"").status, 200);
}

#[test]
fn a_range_may_depend_on_what_is_there() {
    let world = world();
    assert_eq!(world.ask("PUT", "/bucket/ten", &[], b"0123456789").status, 200);
    let etag = etag(b"0123456789");
    for (validator, status) in
        [(&*etag, 206), ("\"other\"", 200), (THEN, 206), (BEFORE, 200), ("nonsense", 200)]
    {
        let headers = [("range", "bytes=0-1"), ("if-range", validator)];
        let get = world.ask("GET", "/bucket/ten", &headers, b"");
        assert_eq!(get.status, status, "{validator}");
    }
}

#[test]
fn ranges_are_right_at_every_edge_of_how_objects_rest() {
    let world = world();
    for length in [4095, 4096, 4097, 131_072, 1_048_577, 2_500_000] {
        let data = bytes(length);
        assert_eq!(world.ask("PUT", "/bucket/key", &[], &data).status, 200);
        let edges = [1, 4095, 4096, 4097, 65_536, 131_072, 1 << 20, length / 2, length - 1];
        for edge in edges.into_iter().filter(|edge| *edge < length) {
            for (start, end) in [(0, edge), (edge, length), (edge - 1, edge + 1)] {
                let range = format!("bytes={start}-{}", end - 1);
                let get = world.ask("GET", "/bucket/key", &[("range", &range)], b"");
                assert_eq!(get.status, 206, "{length} {range}");
                assert!(get.body == data[start..end.min(length)], "{length} {range}");
            }
        }
    }
}

#[test]
fn parts_are_read_by_number() {
    let world = world();
    let (first, second) = (bytes(5 << 20), bytes(1000));
    let id = begin(&world, "key", &[]);
    // Numbers may have gaps.
    let etags = [(2, &first), (5, &second)]
        .map(|(number, data)| put_part(&world, "key", &id, number, data).header("etag").to_owned());
    let done = complete(&world, "key", &id, &[(2, &etags[0]), (5, &etags[1])]);
    assert_eq!(done.status, 200, "{done:?}");
    let size = first.len() + second.len();
    for (number, data, start) in [(2, &first, 0), (5, &second, first.len())] {
        let target = format!("/bucket/key?partNumber={number}");
        let get = world.ask("GET", &target, &[], b"");
        let range = format!("bytes {start}-{}/{size}", start + data.len() - 1);
        assert_eq!((get.status, get.header("content-range")), (206, &*range), "{number}");
        assert!(get.body == *data);
        assert_eq!(get.header("x-amz-mp-parts-count"), "2");
        let head = world.ask("HEAD", &target, &[], b"");
        assert_eq!(head.header("content-length"), data.len().to_string());
    }
    for absent in [1, 3, 6] {
        let get = world.ask("GET", &format!("/bucket/key?partNumber={absent}"), &[], b"");
        refused(&get, 400, "InvalidPart");
    }
    let both = world.ask("GET", "/bucket/key?partNumber=2", &[("range", "bytes=0-1")], b"");
    refused(&both, 400, "InvalidRequest");
    // What was put at once has one part, the whole.
    assert_eq!(world.ask("PUT", "/bucket/whole", &[], b"data").status, 200);
    let get = world.ask("GET", "/bucket/whole?partNumber=1", &[], b"");
    assert_eq!((get.status, get.text(), get.header("x-amz-mp-parts-count")), (206, "data", ""));
    refused(&world.ask("GET", "/bucket/whole?partNumber=2", &[], b""), 400, "InvalidPart");
}

//! Listings: prefixes, delimiters, markers, pages and encoding, in both versions.

use crate::s3::testing::world::{Response, World, refused, world};

/// Keys and common prefixes of a page, in the order in which they are shown.
fn shown(page: &Response) -> (Vec<&str>, Vec<&str>) {
    assert_eq!(page.status, 200, "{page:?}");
    let groups = page.text().split("<CommonPrefixes><Prefix>").skip(1);
    let prefixes = groups.map(|rest| rest.split_once('<').expect("it is closed").0).collect();
    (page.elements("Key"), prefixes)
}

fn with_keys(keys: &[&str]) -> World {
    let world = world();
    for key in keys {
        assert_eq!(world.ask("PUT", &format!("/bucket/{key}"), &[], b"x").status, 200, "{key}");
    }
    world
}

const KEYS: [&str; 8] = ["a", "b/", "b/1", "b/2/x", "b/2/y", "c!", "c/1", "d"];

#[test]
fn prefix_and_delimiter_select_and_group() {
    let world = with_keys(&KEYS);
    let cases: [(&str, &[&str], &[&str]); 12] = [
        ("", &KEYS, &[]),
        ("prefix=", &KEYS, &[]),
        ("prefix=b", &["b/", "b/1", "b/2/x", "b/2/y"], &[]),
        ("prefix=z", &[], &[]),
        ("delimiter=%2F", &["a", "c!", "d"], &["b/", "c/"]),
        ("delimiter=%2F&prefix=b", &[], &["b/"]),
        ("delimiter=%2F&prefix=b%2F", &["b/", "b/1"], &["b/2/"]),
        ("delimiter=%2F&prefix=b%2F2", &[], &["b/2/"]),
        ("delimiter=%2F&prefix=b%2F2%2F", &["b/2/x", "b/2/y"], &[]),
        ("delimiter=%2F2%2F", &["a", "b/", "b/1", "c!", "c/1", "d"], &["b/2/"]),
        ("delimiter=z", &KEYS, &[]),
        // An empty one is none.
        ("delimiter=", &KEYS, &[]),
    ];
    for (query, keys, prefixes) in cases {
        for form in ["", "list-type=2&"] {
            let page = world.ask("GET", &format!("/bucket?{form}{query}"), &[], b"");
            let found = shown(&page);
            assert_eq!((&*found.0, &*found.1), (keys, prefixes), "{form}{query}");
            assert_eq!(page.element("IsTruncated"), "false");
            if !form.is_empty() {
                let count = keys.len() + prefixes.len();
                assert_eq!(page.element("KeyCount"), count.to_string(), "{query}");
            }
        }
    }
}

#[test]
fn markers_begin_behind_a_key_or_a_group() {
    let world = with_keys(&KEYS);
    let cases: [(&str, &[&str], &[&str]); 7] = [
        ("a", &["c!", "d"], &["b/", "c/"]),
        ("0", &["a", "c!", "d"], &["b/", "c/"]),
        // A marker that is a group ends behind it, one within a group shows the rest of it.
        ("b%2F", &["c!", "d"], &["c/"]),
        ("b%2F1", &["c!", "d"], &["b/", "c/"]),
        ("b%2F2%2Fy", &["c!", "d"], &["c/"]),
        ("c%2F", &["d"], &[]),
        ("d", &[], &[]),
    ];
    for (marker, keys, prefixes) in cases {
        for form in ["marker", "list-type=2&start-after"] {
            let target = format!("/bucket?delimiter=%2F&{form}={marker}");
            let page = world.ask("GET", &target, &[], b"");
            let found = shown(&page);
            assert_eq!((&*found.0, &*found.1), (keys, prefixes), "{form}={marker}");
        }
    }
}

#[test]
fn pages_of_any_size_make_the_same_listing() {
    let world = with_keys(&KEYS);
    for query in ["", "delimiter=%2F&", "prefix=b%2F&", "delimiter=%2F&prefix=b%2F&"] {
        let whole = world.ask("GET", &format!("/bucket?{query}"), &[], b"");
        let (keys, prefixes) = shown(&whole);
        for size in 1..=4 {
            for (form, ask, tell) in [
                ("", "marker", "NextMarker"),
                ("list-type=2&", "continuation-token", "NextContinuationToken"),
            ] {
                let (mut all_keys, mut all_prefixes) = (Vec::new(), Vec::new());
                let mut from = String::new();
                loop {
                    let target = format!("/bucket?{form}{query}max-keys={size}{from}");
                    let page = world.ask("GET", &target, &[], b"");
                    let (keys, prefixes) = shown(&page);
                    assert!(keys.len() + prefixes.len() <= size, "{target}");
                    all_keys.extend(keys.into_iter().map(str::to_owned));
                    all_prefixes.extend(prefixes.into_iter().map(str::to_owned));
                    let next = page.element(tell).replace('/', "%2F");
                    assert_eq!(page.element("IsTruncated") == "true", !next.is_empty());
                    if next.is_empty() {
                        break;
                    }
                    from = format!("&{ask}={next}");
                }
                assert_eq!(
                    (&all_keys[..], &all_prefixes[..]),
                    (
                        &keys.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>()[..],
                        &prefixes.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>()[..],
                    ),
                    "{form}{query} by {size}"
                );
            }
        }
    }
}

#[test]
fn names_are_encoded_where_it_is_asked_for() {
    let world = with_keys(&["a%20b/%C3%A9", "a%20b/%2B%26", "x%0Ay"]);
    for (query, keys) in [
        ("prefix=a%20b%2F", ["a b/+&amp;", "a b/é"]),
        ("prefix=a%20b%2F&encoding-type=url", ["a%20b/%2B%26", "a%20b/%C3%A9"]),
    ] {
        let page = world.ask("GET", &format!("/bucket?{query}"), &[], b"");
        assert_eq!(page.elements("Key"), keys, "{query}");
    }
    let target = "/bucket?delimiter=%2F&encoding-type=url&prefix=a%20&marker=a%20a";
    let page = world.ask("GET", target, &[], b"");
    assert_eq!(page.element("EncodingType"), "url");
    assert_eq!((page.element("Prefix"), page.element("Marker")), ("a%20", "a%20a"));
    assert_eq!(shown(&page).1, ["a%20b/"]);
    let page = world.ask("GET", "/bucket?prefix=x", &[], b"");
    assert_eq!(page.element("Key"), "x&#xA;y", "a raw line end would not survive XML");
    for form in ["", "list-type=2&", "versions&", "uploads&"] {
        let page = world.ask("GET", &format!("/bucket?{form}encoding-type=base64"), &[], b"");
        refused(&page, 400, "InvalidArgument");
    }
}

#[test]
fn the_second_version_tells_what_it_was_asked() {
    let world = with_keys(&["a", "b"]);
    let page = world.ask("GET", "/bucket?list-type=2&start-after=a&max-keys=5", &[], b"");
    assert_eq!((page.element("StartAfter"), page.element("MaxKeys")), ("a", "5"));
    assert_eq!((page.element("Name"), page.elements("Key")), ("bucket", vec!["b"]));
    assert!(!page.text().contains("<Owner>"));
    let page = world.ask("GET", "/bucket?list-type=2&fetch-owner=true", &[], b"");
    assert_eq!(page.elements("Owner").len(), 2);
    assert_eq!(world.ask("GET", "/bucket", &[], b"").elements("Owner").len(), 2);
    // A token goes on where it was given, whatever start-after says.
    let first = world.ask("GET", "/bucket?list-type=2&max-keys=1", &[], b"");
    let token = first.element("NextContinuationToken");
    let target = format!("/bucket?list-type=2&start-after=b&continuation-token={token}");
    let second = world.ask("GET", &target, &[], b"");
    assert_eq!((second.elements("Key"), second.element("ContinuationToken")), (vec!["b"], token));
    let wrong = world.ask("GET", "/bucket?list-type=2&continuation-token=none!", &[], b"");
    refused(&wrong, 400, "InvalidArgument");
    let object = world.ask("GET", "/bucket?list-type=2&prefix=a", &[], b"");
    assert_eq!((object.element("Size"), object.element("StorageClass")), ("1", "STANDARD"));
    let modified = object.element("LastModified");
    assert!(modified.starts_with("2013-05-24T00:00:00.") && modified.ends_with('Z'), "{modified}");
}

#[test]
fn buckets_are_listed_in_pages() {
    let world = world();
    for name in ["alpha", "alps", "beta"] {
        assert_eq!(world.ask("PUT", &format!("/{name}"), &[], b"").status, 200);
    }
    let names = |query: &str| {
        let page = world.ask("GET", &format!("/{query}"), &[], b"");
        let names: Vec<_> = page.elements("Name").iter().map(|name| (*name).to_owned()).collect();
        (names, page.element("ContinuationToken").to_owned())
    };
    assert_eq!(names("").0, ["alpha", "alps", "beta", "bucket"]);
    assert_eq!(names("?prefix=al").0, ["alpha", "alps"]);
    let (first, token) = names("?max-buckets=3");
    assert_eq!(first, ["alpha", "alps", "beta"]);
    let (rest, end) = names(&format!("?max-buckets=3&continuation-token={token}"));
    assert_eq!((rest, end), (vec!["bucket".to_owned()], String::new()));
}

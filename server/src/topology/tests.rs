use super::*;

fn parse(arguments: &[&str]) -> Result<Topology, Refusal> {
    parse_with(arguments, None)
}

fn parse_with(arguments: &[&str], set_drives: Option<usize>) -> Result<Topology, Refusal> {
    let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
    Topology::parse(&arguments, set_drives, Path::new("/work"), 9000)
}

/// Set sizes of the pools, and the number of all sets.
fn sizes(arguments: &[&str]) -> (Vec<usize>, usize) {
    let topology = parse(arguments).unwrap();
    (topology.pools.iter().map(|pool| pool.set_drives).collect(), topology.sets().count())
}

#[test]
fn pools_and_sets() {
    assert_eq!(sizes(&["/data"]), (vec![1], 1));
    assert_eq!(sizes(&["/data{1...4}"]), (vec![4], 1));
    assert_eq!(sizes(&["/data{1...24}"]), (vec![12], 2));
    assert_eq!(sizes(&["/data{1...64}"]), (vec![16], 4));
    assert_eq!(sizes(&["/data{1...16}/export{1...52}"]), (vec![16], 52));
    assert_eq!(sizes(&["/a{1...4}", "/b{1...8}", "/c{1...2}"]), (vec![4, 8, 2], 3));
    assert_eq!(sizes(&["/a", "/b", "/c"]), (vec![3], 1));
    let single_set_of_eighteen: Vec<String> = (0..18).map(|n| format!("/d{n}")).collect();
    let arguments: Vec<&str> = single_set_of_eighteen.iter().map(String::as_str).collect();
    assert_eq!(sizes(&arguments), (vec![9], 2));
}

#[test]
fn sets_are_runs_of_the_expanded_order() {
    let topology = parse_with(&["/host{1...2}/d{1...4}"], Some(4)).unwrap();
    let sets: Vec<Vec<&str>> = topology
        .sets()
        .map(|set| set.iter().map(|place| place.path.to_str().unwrap()).collect())
        .collect();
    assert_eq!(sets[0], ["/host1/d1", "/host2/d1", "/host1/d2", "/host2/d2"]);
    assert_eq!(sets[1], ["/host1/d3", "/host2/d3", "/host1/d4", "/host2/d4"]);
    let flat: Vec<&Place> = topology.sets().flatten().collect();
    assert_eq!(flat, topology.drives().collect::<Vec<_>>());
}

/// The drives of each set as operators call them, without scheme.
fn named_sets(topology: &Topology) -> Vec<Vec<String>> {
    let name = |place: &Place| topology.name(place).replace("http://", "");
    topology.sets().map(|set| set.iter().map(name).collect()).collect()
}

#[test]
fn urls_name_nodes_in_the_order_of_their_first_drives() {
    let topology = parse_with(&["http://n{1...2}:9001/d{1...3}"], Some(3)).unwrap();
    let nodes: Vec<String> = topology.nodes.iter().map(NodeAddress::to_string).collect();
    assert_eq!(nodes, ["http://n1:9001", "http://n2:9001"]);
    assert_eq!(
        named_sets(&topology),
        [["n1:9001/d1", "n2:9001/d1", "n1:9001/d2"], ["n2:9001/d2", "n1:9001/d3", "n2:9001/d3"]]
    );
    let seats: Vec<u16> = topology.drives().map(|place| place.node.0).collect();
    assert_eq!(seats, [0, 1, 0, 1, 0, 1]);

    let later = parse(&["http://n{3...4}/d{1...2}", "http://n{1...3}/e{1...2}"]).unwrap();
    let nodes: Vec<&str> = later.nodes.iter().map(|node| node.host.as_str()).collect();
    assert_eq!(nodes, ["n3", "n4", "n1", "n2"]);
    let by_port = parse(&["http://h:9001/a", "http://h:9002/b", "http://H/c", "http://h:9000/d"]);
    let by_port = by_port.unwrap();
    assert_eq!(by_port.nodes.iter().map(|node| node.port).collect::<Vec<_>>(), [9001, 9002, 9000]);
    let v6 = parse(&["https://[fd00::{9...a}]/d{1...2}"]).unwrap();
    assert_eq!(v6.nodes[1].to_string(), "https://[fd00::a]:9000");
    assert!(parse(&["/data{1...4}"]).unwrap().nodes.is_empty());
    let one = parse(&["http://n1/d{1...4}"]).unwrap();
    assert_eq!((one.nodes.len(), one.name(&one.pools[0].drives[0])), (1, "/d1".to_owned()));
}

#[test]
fn sets_are_symmetric_to_the_nodes() {
    for (argument, size, sets) in [
        ("http://n{1...2}/d{1...180}", 12, 30),
        ("http://n{1...4}/d{1...4}", 16, 1),
        ("http://n{1...6}/d{1...4}", 12, 2),
        ("http://n{1...18}/d{1...8}", 9, 16),
        ("http://n{1...34}/d{1...8}", 2, 136),
        ("http://minio{0...15}.example.net/data{0...1}", 16, 2),
        // An odd number of nodes: an odd number of sets, where sets of 8 or more allow it.
        ("http://n{1...3}/d{1...4}", 12, 1),
        ("http://n{1...5}/d{1...8}", 8, 5),
        ("http://n{1...5}/d{1...4}", 10, 2),
        ("http://n{1...17}/d{1...16}", 16, 17),
        // The nodes count, not how long the first range is.
        ("http://rack{1...5}.n{1...1}/d{1...8}", 8, 5),
    ] {
        assert_eq!(sizes(&[argument]), (vec![size], sets), "{argument}");
    }
    // Of each pool for itself.
    assert_eq!(sizes(&["http://a{1...4}/d{1...6}", "http://b{1...5}/d{1...8}"]), (vec![12, 8], 7));
    let listed: Vec<String> = (1..=5)
        .flat_map(|drive| (1..=8).map(move |node| format!("http://n{node}/d{drive}")))
        .collect();
    let listed: Vec<&str> = listed.iter().map(String::as_str).collect();
    assert_eq!(sizes(&listed), (vec![10], 4));
}

#[test]
fn the_operator_chooses_the_set_size() {
    assert_eq!(parse_with(&["/data{1...64}"], Some(8)).unwrap().sets().count(), 8);
    let refused = parse_with(&["/data{1...64}"], Some(12)).unwrap_err();
    assert!(refused.cause.contains("2, 4, 8, 16"), "{refused}");
    assert!(parse_with(&["/data"], Some(4)).is_err());

    let variable = |value| {
        let name = "MINIO_ERASURE_SET_DRIVE_COUNT".to_owned();
        wanted_set_drives(Some(Variable { name, value }))
    };
    assert_eq!(variable("8").unwrap(), Some(8));
    assert_eq!(variable("0").unwrap(), None);
    assert!(variable("eight").is_err());
    assert_eq!(wanted_set_drives(None).unwrap(), None);
}

#[test]
fn every_refusal_says_what_is_wrong() {
    let seventeen: Vec<String> = (0..17).map(|n| format!("/d{n}")).collect();
    let seventeen: Vec<&str> = seventeen.iter().map(String::as_str).collect();
    let table: [(&[&str], &str); 24] = [
        (&[], "no drive is named"),
        (&["/data{1...17}"], "cannot be divided"),
        (&seventeen, "cannot be divided"),
        (&["/data{1...1}"], "without an ellipsis"),
        (&["/data{1...17}/export{1...52}"], "lies evenly"),
        (&["/data{1..4}"], "three dots"),
        (&["/data1...4"], "three dots"),
        (&["/data{4...1}"], "backwards"),
        (&["/a{1...4}", "/b"], "have none: /b"),
        (&["/data{1...4}", "/data{1...4}"], "more than once"),
        (&["/data{1...4}", "/data{3...6}"], "`/data3` is named more than once"),
        (&["/a", "/b", "/a/"], "`/a` is named more than once"),
        (&["/"], "root directory"),
        (&[""], "empty text"),
        (&["10.0.0.1:9000/data"], "without its scheme"),
        (&["/a", "http://n1/a"], "directories and URLs are mixed"),
        (&["http://n1/a", "https://n2/a"], "http and https are mixed"),
        (&["http://n{1...4}/a{1...2}", "https://n{1...4}/b{1...2}"], "http and https are mixed"),
        (&["http://n{1...19}/d{1...2}"], "lies evenly"),
        (&["http://n1/a", "http://N1:9000/a/"], "`http://n1:9000/a` is named more than once"),
        (&["http://n{1...4}/d", "http://n{4...5}/d"], "`http://n4:9000/d` is named more than once"),
        (&["http://n{1...4}/"], "the root directory"),
        (&["http://n1:90000/a", "http://n2/a"], "its port"),
        (&["ftp://n{1...4}/d{1...4}"], "neither http nor https"),
    ];
    for (arguments, expected) in table {
        let refused = parse(arguments).unwrap_err();
        let text = refused.to_string();
        assert!(text.contains(expected), "{arguments:?} gave\n{text}");
        for part in [&refused.what, &refused.cause, &refused.remedy] {
            assert!(!part.is_empty() && !part.ends_with('.'), "{text}");
        }
    }
}

#[test]
fn there_is_a_most_of_nodes() {
    let refused = parse(&["http://n{1...65552}/d"]).unwrap_err();
    assert!(refused.what.contains("too many nodes"), "{refused}");
}

#[test]
fn there_is_a_most_of_sets() {
    let refused = parse_with(&["/a{1...32770}"], Some(2)).unwrap_err();
    assert!(refused.what.contains("16385 sets"), "{refused}");
}

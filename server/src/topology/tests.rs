use super::*;

fn parse(arguments: &[&str]) -> Result<Topology, Refusal> {
    parse_with(arguments, None)
}

fn parse_with(arguments: &[&str], set_drives: Option<usize>) -> Result<Topology, Refusal> {
    let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
    Topology::parse(&arguments, set_drives, Path::new("/work"))
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
        .map(|set| set.iter().map(|path| path.to_str().unwrap()).collect())
        .collect();
    assert_eq!(sets[0], ["/host1/d1", "/host2/d1", "/host1/d2", "/host2/d2"]);
    assert_eq!(sets[1], ["/host1/d3", "/host2/d3", "/host1/d4", "/host2/d4"]);
    let flat: Vec<&PathBuf> = topology.sets().flatten().collect();
    assert_eq!(flat, topology.drives().collect::<Vec<_>>());
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
    let table: [(&[&str], &str); 19] = [
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
        (&["http://n{1...4}/d{1...4}"], "this release serves one node"),
        (&["http://n1/d{1...4}"], "name the directories alone"),
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
fn there_is_a_most_of_sets() {
    let refused = parse_with(&["/a{1...32770}"], Some(2)).unwrap_err();
    assert!(refused.what.contains("16385 sets"), "{refused}");
}

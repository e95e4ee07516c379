use super::*;

fn topology(arguments: &[&str]) -> Topology {
    let arguments: Vec<String> = arguments.iter().map(|&text| text.to_owned()).collect();
    Topology::parse(&arguments, None, Path::new("/work"), 9000).unwrap()
}

fn listening(clients: &str) -> Listening {
    Listening { clients: clients.parse().unwrap(), peers: None }
}

/// Hosts `a` to `z` are machines 10.0.0.97 to 10.0.0.122, `me` and `also-me` two names of this one,
/// `lost` a name that leads nowhere. Addresses are those of themselves.
fn seen(topology: &Topology) -> Vec<Seen> {
    const HERE: [&str; 3] = ["10.0.0.1", "10.0.0.2", "127.0.0.1"];
    let addresses = |host: &str| match host {
        "me" => Ok(vec!["10.0.0.1".parse().unwrap()]),
        "also-me" => Ok(vec!["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()]),
        "lost" => Err("no such name".to_owned()),
        _ if host.len() == 1 => Ok(vec![Ipv4Addr::new(10, 0, 0, host.as_bytes()[0]).into()]),
        _ => Ok(vec![host.parse().unwrap()]),
    };
    let look = |node: &NodeAddress| {
        let addresses: Result<Vec<IpAddr>, String> = addresses(&node.host);
        let is_here =
            addresses.iter().flatten().any(|address| HERE.contains(&address.to_string().as_str()));
        Seen { addresses, is_here }
    };
    topology.nodes.iter().map(look).collect()
}

fn verdict(
    arguments: &[&str],
    listening: Listening,
    surroundings: Surroundings,
) -> Result<Verdict, Refusal> {
    let topology = topology(arguments);
    decide(&topology, &seen(&topology), listening, surroundings)
}

/// The number of this node on a machine, or the refusal as it is shown.
fn this(arguments: &[&str], listening: Listening) -> Result<u16, String> {
    match verdict(arguments, listening, Surroundings::Machine) {
        Ok(Verdict::This(node)) => Ok(node.0),
        Ok(Verdict::Wait(reason)) => panic!("waits on a machine: {reason}"),
        Err(refusal) => Err(refusal.to_string()),
    }
}

#[test]
fn this_node_is_found_by_address_and_port() {
    let any = listening("0.0.0.0:9000");
    assert_eq!(this(&["http://a/d", "http://me/d", "http://b/d"], any), Ok(1));
    assert_eq!(this(&["http://10.0.0.97/d", "http://10.0.0.2/d"], any), Ok(1));
    assert_eq!(this(&["http://me/d{1...4}"], any), Ok(0));
    let ports = ["http://127.0.0.1:9001/a", "http://127.0.0.1:9002/b", "http://me:9003/c"];
    assert_eq!(this(&ports, listening("[::]:9002")), Ok(1));
    assert_eq!(this(&ports, listening("[::]:9003")), Ok(2));
}

#[test]
fn nodes_of_one_port_are_told_apart_by_the_address_that_is_listened_on() {
    let nodes = ["http://10.0.0.1/a", "http://10.0.0.2/b"];
    assert_eq!(this(&nodes, listening("10.0.0.2:9000")), Ok(1));
    let peers = Some("10.0.0.2:9010".parse().unwrap());
    let by_peers = Listening { peers, ..listening("0.0.0.0:9000") };
    assert_eq!(this(&nodes, by_peers), Ok(1));
    let refused = this(&nodes, listening("0.0.0.0:9000")).unwrap_err();
    assert!(refused.contains("http://10.0.0.1:9000 and http://10.0.0.2:9000 are both this node"));
}

#[test]
fn no_node_here_is_refused() {
    let refused = this(&["http://a/d", "http://b/d"], listening("[::]:9000")).unwrap_err();
    assert!(refused.contains("none of the nodes is this one"), "{refused}");
    assert!(refused.contains("no host of them leads to an address of this machine"), "{refused}");
    let refused = this(&["http://a/d", "http://me/d"], listening("[::]:9100")).unwrap_err();
    assert!(refused.contains("they listen at 9000, and --address has this one listen at 9100"));
    let refused = this(&["http://a/d{1...4}"], listening("[::]:9000")).unwrap_err();
    assert!(refused.contains("none of the nodes is this one"), "{refused}");
}

#[test]
fn one_node_by_two_names_is_refused() {
    let any = listening("[::]:9000");
    for arguments in [
        ["http://me/a", "http://also-me/b"],
        ["http://a/a", "http://10.0.0.97/b"],
        ["http://also-me/a", "http://10.0.0.2/b"],
    ] {
        let refused = this(&arguments, any).unwrap_err();
        assert!(refused.contains("are the same node"), "{refused}");
    }
}

#[test]
fn one_path_of_one_machine_is_refused() {
    let any = listening("[::]:9000");
    for arguments in [
        ["http://me:9000/d", "http://me:9001/d"],
        ["http://me:9000/d", "http://127.0.0.1:9001/d"],
        ["http://a:9000/d", "http://10.0.0.97:9001/d"],
    ] {
        let refused = this(&arguments, any).unwrap_err();
        assert!(refused.contains("/d is named on http://"), "{refused}");
    }
    // In containers the same path is another directory, but not in this one.
    let among_containers = |arguments: &[&str]| {
        verdict(arguments, any, Surroundings::Containers).map_err(|refusal| refusal.to_string())
    };
    let others = among_containers(&["http://me/e", "http://a:9000/d", "http://a:9001/d"]);
    assert!(matches!(others, Ok(Verdict::This(NodeIndex(0)))), "{others:?}");
    let here = among_containers(&["http://me:9000/d", "http://me:9001/d"]).unwrap_err();
    assert!(here.contains("directories of its own"), "{here}");
}

#[test]
fn a_node_that_its_peers_would_not_reach_is_refused() {
    let nodes = ["http://a/d", "http://10.0.0.1/d"];
    assert_eq!(this(&nodes, listening("10.0.0.1:9000")), Ok(1));
    let refused = this(&nodes, listening("127.0.0.1:9000")).unwrap_err();
    assert!(refused.contains("--address :PORT"), "{refused}");
    let peers = |text: &str| Some(text.parse().unwrap());
    let reached = Listening { peers: peers("10.0.0.1:9010"), ..listening("127.0.0.1:9000") };
    assert_eq!(this(&nodes, reached), Ok(1));
    let apart = Listening { peers: peers("10.0.0.2:9010"), ..listening("[::]:9000") };
    let refused = this(&nodes, apart).unwrap_err();
    assert!(refused.contains("--peer-address :PORT"), "{refused}");
    assert_eq!(this(&["http://10.0.0.1/d{1...4}"], listening("127.0.0.1:9000")), Ok(0));
}

#[test]
fn a_name_that_leads_nowhere_is_refused_on_a_machine_and_awaited_among_containers() {
    let any = listening("[::]:9000");
    let refused = this(&["http://me/d", "http://lost/d"], any).unwrap_err();
    assert!(refused.contains("`lost` cannot be resolved: no such name"), "{refused}");
    assert!(refused.contains("/etc/hosts"), "{refused}");

    let among_containers = |arguments: &[&str]| verdict(arguments, any, Surroundings::Containers);
    let known = among_containers(&["http://lost/d", "http://me/d"]);
    assert!(matches!(known, Ok(Verdict::This(NodeIndex(1)))), "another's name may come later");
    let Ok(Verdict::Wait(reason)) = among_containers(&["http://a/d", "http://lost/d"]) else {
        panic!("the name that is missing may be this node's");
    };
    assert!(reason.contains("`lost`: no such name"), "{reason}");
    let stale = among_containers(&["http://a/d", "http://b/d"]);
    assert!(matches!(stale, Ok(Verdict::Wait(_))), "an old address may still be known");
    let addresses = among_containers(&["http://10.0.0.97/d", "http://10.0.0.98/d"]).unwrap_err();
    assert!(addresses.what.contains("none of the nodes"), "addresses do not change: {addresses}");
}

#[test]
fn addresses_of_this_machine() {
    for address in ["127.0.0.1", "127.0.1.1", "::1"] {
        assert!(is_of_this_machine(address.parse().unwrap()), "{address}");
    }
    for address in ["203.0.113.1", "2001:db8::1", "0.0.0.0", "::"] {
        assert!(!is_of_this_machine(address.parse().unwrap()), "{address}");
    }
}

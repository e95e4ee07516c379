//! Which of the nodes this one is: the one whose host leads to an address of this machine and whose
//! port is the port that is listened on.
//!
//! What was seen of each host is one thing, what follows from it another: the second is a pure
//! function, so that every case is a test.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use basalt_net::node::NodeIndex;

use super::node_address::NodeAddress;
use super::{Place, Topology};
use crate::refusal::Refusal;

/// Between two looks at names that do not lead here yet.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// Where this node listens.
#[derive(Clone, Copy, Debug)]
pub struct Listening {
    pub clients: SocketAddr,
    pub peers: Option<SocketAddr>,
}

impl Listening {
    fn for_peers(self) -> SocketAddr {
        self.peers.unwrap_or(self.clients)
    }
}

/// What names are worth where the process runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Surroundings {
    /// Names are as the operator set them up.
    Machine,
    /// Kubernetes or a container: names come and go with containers, and the own one may come late.
    Containers,
}

impl Surroundings {
    pub fn of(is_kubernetes: bool) -> Self {
        let marks = ["/.dockerenv", "/run/.containerenv"];
        if is_kubernetes || marks.iter().any(|mark| Path::new(mark).exists()) {
            Self::Containers
        } else {
            Self::Machine
        }
    }
}

/// What the host of a node leads to.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Seen {
    /// Or why there are none.
    addresses: Result<Vec<IpAddr>, String>,
    /// One of them is this machine's.
    is_here: bool,
}

#[derive(Debug)]
enum Verdict {
    This(NodeIndex),
    /// Not yet, for this reason.
    Wait(String),
}

/// Finds this node. Among containers it waits for its name, and says so.
pub fn find(
    topology: &Topology,
    listening: Listening,
    surroundings: Surroundings,
) -> Result<NodeIndex, Refusal> {
    loop {
        let seen = look(&topology.nodes);
        match decide(topology, &seen, listening, surroundings)? {
            Verdict::This(node) => return Ok(node),
            Verdict::Wait(reason) => {
                tracing::info!("waiting for this node's name: {reason}");
                std::thread::sleep(LOOK_INTERVAL);
            }
        }
    }
}

/// Looks up the hosts, each once.
fn look(nodes: &[NodeAddress]) -> Vec<Seen> {
    let mut hosts = BTreeMap::new();
    for node in nodes {
        hosts.entry(&node.host).or_insert_with(|| match node.resolve() {
            Err(error) => Seen { addresses: Err(error.to_string()), is_here: false },
            Ok(found) => {
                let addresses: Vec<IpAddr> = found.iter().map(SocketAddr::ip).collect();
                let is_here = addresses.iter().any(|address| is_of_this_machine(*address));
                Seen { addresses: Ok(addresses), is_here }
            }
        });
    }
    nodes.iter().map(|node| hosts[&node.host].clone()).collect()
}

/// Towards an address of its own a machine speaks from that very address. Nothing is sent. (That the
/// address can be bound would not tell: a machine may be set up to bind any.)
fn is_of_this_machine(address: IpAddr) -> bool {
    if address.is_loopback() {
        return true;
    }
    let any: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let own = || {
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect((address, 9))?;
        socket.local_addr()
    };
    !address.is_unspecified() && own().is_ok_and(|own| own.ip() == address)
}

fn decide(
    topology: &Topology,
    seen: &[Seen],
    listening: Listening,
    surroundings: Surroundings,
) -> Result<Verdict, Refusal> {
    let nodes = &topology.nodes;
    let among_containers = surroundings == Surroundings::Containers;
    if !among_containers {
        check_names(nodes, seen)?;
        check_distinct(nodes, seen)?;
    }
    check_paths(topology, seen, surroundings)?;
    let port = listening.clients.port();
    let mut here: Vec<usize> =
        (0..nodes.len()).filter(|&node| seen[node].is_here && nodes[node].port == port).collect();
    // Several addresses of one machine may each be a node.
    if here.len() > 1 && !listening.for_peers().ip().is_unspecified() {
        here.retain(|&node| leads_to(&seen[node], listening.for_peers().ip()));
    }
    match here[..] {
        [node] => {
            if nodes.len() > 1 {
                check_reachable(&nodes[node], &seen[node], listening)?;
            }
            let node = u16::try_from(node).expect("as many nodes as have a number");
            Ok(Verdict::This(NodeIndex(node)))
        }
        // An address does not change while one waits.
        [] if among_containers && nodes.iter().any(|node| node.ip().is_none()) => {
            Ok(Verdict::Wait(nobody_here(nodes, seen, port)))
        }
        [] => Err(Refusal::machine(
            "none of the nodes is this one",
            nobody_here(nodes, seen, port),
            "name this node by an address or name of this machine and the port of --address; every \
             node is given the same arguments, its own drives among them",
        )),
        [one, other, ..] => Err(Refusal::machine(
            format!("{} and {} are both this node", nodes[one], nodes[other]),
            format!("both lead to this machine, at the port that is listened on, {port}"),
            "name each node by one host alone; or let each listen at an address of its own, with \
             --address HOST:PORT",
        )),
    }
}

fn leads_to(seen: &Seen, address: IpAddr) -> bool {
    seen.addresses.as_ref().is_ok_and(|addresses| addresses.contains(&address))
}

/// Every name leads somewhere.
fn check_names(nodes: &[NodeAddress], seen: &[Seen]) -> Result<(), Refusal> {
    for (node, seen) in nodes.iter().zip(seen) {
        if let Err(error) = &seen.addresses {
            return Err(Refusal::machine(
                format!("the host of {node} cannot be found"),
                format!("`{}` cannot be resolved: {error}", node.host),
                "give the name an address, in DNS or in /etc/hosts of every node, or name the \
                 node by its address",
            ));
        }
    }
    Ok(())
}

/// No two nodes are one process by two names.
fn check_distinct(nodes: &[NodeAddress], seen: &[Seen]) -> Result<(), Refusal> {
    let mut known: BTreeMap<(IpAddr, u16), &NodeAddress> = BTreeMap::new();
    for (node, seen) in nodes.iter().zip(seen) {
        for address in seen.addresses.iter().flatten() {
            let other = known.insert((*address, node.port), node);
            let Some(other) = other.filter(|other| *other != node) else { continue };
            return Err(Refusal::machine(
                format!("{other} and {node} are the same node"),
                format!("both lead to {}", SocketAddr::new(*address, node.port)),
                "name each node by one host alone",
            ));
        }
    }
    Ok(())
}

/// Two nodes of one machine that name the same path would both open it. Among containers the path
/// may be another one in each of them, and their host's names say nothing: there only what is at
/// this machine counts.
fn check_paths(
    topology: &Topology,
    seen: &[Seen],
    surroundings: Surroundings,
) -> Result<(), Refusal> {
    let mut known: BTreeMap<(&Path, IpAddr), &Place> = BTreeMap::new();
    for place in topology.drives() {
        let of = |place: &Place| &topology.nodes[usize::from(place.node.0)];
        let seen = &seen[usize::from(place.node.0)];
        if surroundings == Surroundings::Containers && !seen.is_here {
            continue;
        }
        for address in seen.addresses.iter().flatten() {
            // All addresses of this machine are one machine.
            let address = if seen.is_here { Ipv4Addr::LOCALHOST.into() } else { *address };
            let other = known.insert((&place.path, address), place);
            let Some(other) = other.filter(|other| other.node != place.node) else { continue };
            return Err(Refusal::usage(
                format!("{} is named on {} and on {}", place.path.display(), of(other), of(place)),
                "both are one machine, so it would be one drive that two nodes hold to be theirs",
                "give each node of a machine directories of its own",
            ));
        }
    }
    Ok(())
}

/// The others connect to where the URL leads.
fn check_reachable(node: &NodeAddress, seen: &Seen, listening: Listening) -> Result<(), Refusal> {
    let listens = listening.for_peers().ip();
    if listens.is_unspecified() || leads_to(seen, listens) {
        return Ok(());
    }
    let flag = if listening.peers.is_some() { "--peer-address" } else { "--address" };
    Err(Refusal::machine(
        format!("other nodes would not reach this one, {node}"),
        format!("its host does not lead to {listens}, where {flag} has it listen"),
        format!("listen at every address, {flag} :PORT, or name the node by the one it listens at"),
    ))
}

fn nobody_here(nodes: &[NodeAddress], seen: &[Seen], port: u16) -> String {
    let unknown = nodes.iter().zip(seen).find_map(|(node, seen)| {
        seen.addresses.as_ref().err().map(|error| format!("; `{}`: {error}", node.host))
    });
    let ports: Vec<String> = nodes
        .iter()
        .zip(seen)
        .filter(|(_, seen)| seen.is_here)
        .map(|(node, _)| node.port.to_string())
        .collect();
    if ports.is_empty() {
        let unknown = unknown.unwrap_or_default();
        return format!("no host of them leads to an address of this machine{unknown}");
    }
    format!(
        "on this machine they listen at {}, and --address has this one listen at {port}",
        ports.join(", ")
    )
}

#[cfg(test)]
mod tests;

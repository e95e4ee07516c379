//! What a node knows of the other nodes before it has spoken to any: who they are, which of them it
//! is itself, and what it proves to them.

use std::fmt::{self, Write as _};
use std::net::SocketAddr;

use basalt_net::node::NodeIndex;
use basalt_net::wire::handshake;

use sha2::{Digest, Sha256};

use crate::object::ClassParity;
use crate::topology::Topology;
use crate::topology::node_address::NodeAddress;

/// Of two nodes or more.
#[derive(Clone)]
pub struct Cluster {
    /// As the URLs name them, in the order that numbers them.
    pub nodes: Vec<NodeAddress>,
    pub this: NodeIndex,
    /// Equal on nodes that agree on every seat and on the parity of what they write.
    pub topology_hash: [u8; 32],
    /// What nodes have in common that others lack: derived from the root user's keys.
    pub peer_key: [u8; 32],
    /// Where this node listens for its peers, if not where it listens for clients.
    pub peer_address: Option<SocketAddr>,
}

impl Cluster {
    /// Where `node` listens for its peers: at its own host, at the port that all nodes use for peers
    /// if they use one.
    pub fn peer(&self, node: NodeIndex) -> NodeAddress {
        let mut address = self.nodes[usize::from(node.0)].clone();
        if let Some(own) = self.peer_address {
            address.port = own.port();
        }
        address
    }

    /// All nodes but this one.
    pub fn peers(&self) -> impl Iterator<Item = NodeIndex> {
        let nodes = u16::try_from(self.nodes.len()).expect("at most 2^16 - 1 peers");
        (0..nodes).map(NodeIndex).filter(|node| *node != self.this)
    }
}

/// Says nothing of the secret.
impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { nodes, this, peer_address, .. } = self;
        write!(f, "Cluster of {nodes:?}, here {this:?}, peers at {peer_address:?}")
    }
}

/// The key that nodes prove to each other: docs/wire.md, "Handshake". Slow, so that the root user's secret
/// cannot be guessed from what a proof shows.
pub fn peer_key(access_key: &str, secret_key: &str) -> [u8; 32] {
    let salt = Sha256::new().chain_update("basalt peer key").chain_update(access_key).finalize();
    let cost = argon2::Params::new(19 << 10, 2, 1, Some(32)).expect("within the function's limits");
    let function = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, cost);
    let mut key = [0; 32];
    let derived = function.hash_password_into(secret_key.as_bytes(), &salt, &mut key);
    derived.expect("within the function's limits");
    key
}

/// Of a text of every seat, in order, and the parity of each set. Nodes that write another text, as
/// those of a version that changes it, refuse each other.
pub fn topology_hash(topology: &Topology, parity: &[ClassParity]) -> [u8; 32] {
    let mut text = format!("basalt topology 1, {} nodes\n", topology.nodes.len());
    for ((set, places), parity) in topology.sets().enumerate().zip(parity) {
        let ClassParity { standard, reduced_redundancy } = parity;
        let drives = places.len();
        let _ =
            writeln!(text, "set {set}: {drives} drives, parity {standard} {reduced_redundancy}");
        for (position, place) in places.iter().enumerate() {
            let node = &topology.nodes[usize::from(place.node.0)];
            let path = place.path.display().to_string();
            // With its length, so that no path can look like another line.
            let _ = writeln!(text, "{position}: {node} {} {path}", path.len());
        }
    }
    handshake::topology_hash(&text)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::path::Path;

    use super::*;

    fn topology(arguments: &[&str], set_drives: Option<usize>) -> Topology {
        let arguments: Vec<String> = arguments.iter().map(|&text| text.to_owned()).collect();
        Topology::parse(&arguments, set_drives, Path::new("/work"), 9000).unwrap()
    }

    #[test]
    fn the_hash_tells_every_difference_and_no_spelling() {
        const PARITY: ClassParity = ClassParity { standard: 4, reduced_redundancy: 2 };
        let hash = |arguments: &[&str], set_drives, parity| {
            let topology = topology(arguments, set_drives);
            let parity = vec![parity; topology.sets().count()];
            topology_hash(&topology, &parity)
        };
        let of = |arguments: &[&str]| hash(arguments, None, PARITY);
        let here = of(&["http://n{1...2}/d{1...8}"]);
        assert_eq!(here, of(&["http://N{1...2}:9000//d{1...8}/"]));
        let other_parity = ClassParity { standard: 4, reduced_redundancy: 1 };
        for other in [
            of(&["http://n{1...2}/e{1...8}"]),
            of(&["http://n{1...2}:9001/d{1...8}"]),
            of(&["https://n{1...2}/d{1...8}"]),
            of(&["http://n{2...3}/d{1...8}"]),
            of(&["http://n{1...2}/d{1...16}"]),
            hash(&["http://n{1...2}/d{1...8}"], Some(8), PARITY),
            hash(&["http://n{1...2}/d{1...8}"], None, other_parity),
            hash(
                &["http://n{1...2}/d{1...8}"],
                None,
                ClassParity { standard: 5, reduced_redundancy: 2 },
            ),
        ] {
            assert_ne!(here, other);
        }
        let one = of(&["http://n1/a", "http://n2/a"]);
        assert_ne!(one, of(&["http://n2/a", "http://n1/a"]), "the order is part of the layout");
    }

    #[test]
    fn peers_are_at_the_hosts_of_the_urls_and_the_secret_is_not_shown() {
        let mut cluster = Cluster {
            nodes: topology(&["http://n{1...3}/d{1...4}"], None).nodes,
            this: NodeIndex(1),
            topology_hash: [0; 32],
            peer_key: [0xab; 32],
            peer_address: None,
        };
        assert_eq!(cluster.peers().collect::<Vec<_>>(), [NodeIndex(0), NodeIndex(2)]);
        assert_eq!(cluster.peer(NodeIndex(2)).to_string(), "http://n3:9000");
        cluster.peer_address = Some((Ipv4Addr::UNSPECIFIED, 9010).into());
        assert_eq!(cluster.peer(NodeIndex(2)).to_string(), "http://n3:9010");
        assert!(!format!("{cluster:?}").contains("171"));
    }
}

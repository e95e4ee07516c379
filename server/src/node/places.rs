//! Where the drives of the deployment are, as operators name them. Never changes while a node runs.

use std::net::SocketAddr;

use basalt_engine::units::{DriveIndex, SetIndex};
use basalt_net::node::NodeIndex;

use super::{ClassParity, NodeConfig, forming};
use crate::topology::node_address::NodeAddress;

#[derive(Clone, Debug)]
pub(crate) struct Places {
    /// At least one.
    pub(crate) nodes: Vec<NodePlace>,
    pub(crate) this: NodeIndex,
    /// By set, then by position.
    pub(crate) seats: Vec<Vec<SeatPlace>>,
    pub(crate) pools: Vec<PoolPlace>,
    /// By set.
    pub(crate) parity: Vec<ClassParity>,
    pub(crate) has_default_classes: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct NodePlace {
    /// Host and port.
    pub(crate) endpoint: String,
    pub(crate) scheme: &'static str,
}

#[derive(Clone, Debug)]
pub(crate) struct SeatPlace {
    pub(crate) node: NodeIndex,
    /// A path; of several nodes a URL.
    pub(crate) name: String,
    pub(crate) path: String,
}

/// Consecutive sets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PoolPlace {
    pub(crate) first_set: usize,
    pub(crate) sets: usize,
    /// Drives of each set.
    pub(crate) drives: usize,
}

impl Places {
    pub(super) fn new(config: &NodeConfig) -> Self {
        let this = config.cluster.as_ref().map_or(NodeIndex(0), |cluster| cluster.this);
        let (nodes, urls) = match &config.cluster {
            None => (vec![NodePlace::alone(config)], Vec::new()),
            Some(cluster) => {
                let nodes = cluster.nodes.iter().map(NodePlace::of).collect();
                (nodes, cluster.nodes.iter().map(NodeAddress::to_string).collect())
            }
        };
        let seat = |(node, name): (NodeIndex, &String)| {
            let url: Option<&String> = urls.get(usize::from(node.0));
            let path = url.and_then(|url| name.strip_prefix(url.as_str())).unwrap_or(name);
            SeatPlace { node, name: name.clone(), path: path.to_owned() }
        };
        let owners = forming::nodes(config, this).into_iter().zip(&config.names);
        let seats: Vec<Vec<SeatPlace>> =
            owners.map(|(nodes, names)| nodes.into_iter().zip(names).map(seat).collect()).collect();
        Self {
            nodes,
            this,
            pools: pools(&config.pool_sets, &seats),
            seats,
            parity: config.parity.clone(),
            has_default_classes: config.has_default_classes(),
        }
    }

    pub(crate) fn seat(&self, set: SetIndex, position: DriveIndex) -> &SeatPlace {
        &self.seats[usize::from(set.0)][usize::from(position.0)]
    }

    /// The pool of a set, and the set's number there.
    pub(crate) fn pool_of(&self, set: SetIndex) -> (usize, usize) {
        let set = usize::from(set.0);
        let pool = self.pools.partition_point(|pool| pool.first_set <= set) - 1;
        (pool, set - self.pools[pool].first_set)
    }

    /// All seats of a node, or of the deployment.
    pub(crate) fn count(&self, of: Option<NodeIndex>) -> usize {
        let is_meant = |seat: &&SeatPlace| of.is_none_or(|node| seat.node == node);
        self.seats.iter().flatten().filter(is_meant).count()
    }

    pub(crate) fn endpoint(&self, node: NodeIndex) -> &str {
        &self.nodes[usize::from(node.0)].endpoint
    }

    pub(crate) fn all_nodes(&self) -> impl Iterator<Item = NodeIndex> + use<> {
        let nodes = u16::try_from(self.nodes.len()).expect("fewer than 2^16 nodes");
        (0..nodes).map(NodeIndex)
    }
}

fn pools(pool_sets: &[usize], seats: &[Vec<SeatPlace>]) -> Vec<PoolPlace> {
    let mut first_set = 0;
    let pool = |&sets: &usize| {
        let pool = PoolPlace { first_set, sets, drives: seats[first_set].len() };
        first_set += sets;
        pool
    };
    let pools = pool_sets.iter().map(pool).collect();
    assert_eq!(first_set, seats.len(), "every set is in a pool");
    pools
}

impl NodePlace {
    fn of(address: &NodeAddress) -> Self {
        let scheme = address.scheme.name();
        let url = address.to_string();
        let (_, endpoint) = url.split_once("://").expect("a URL");
        Self { endpoint: endpoint.to_owned(), scheme }
    }

    /// Of a node that no URL names.
    fn alone(config: &NodeConfig) -> Self {
        Self { endpoint: reachable(config.address), scheme: config.settings.scheme }
    }
}

/// An address to connect to, of one to listen at.
fn reachable(address: SocketAddr) -> String {
    match address.ip().is_unspecified() {
        true => format!("localhost:{}", address.port()),
        false => address.to_string(),
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// Two pools of one and two sets of four drives, spread over nodes in turn; here is node 0.
    pub(crate) fn places(nodes: u16) -> Places {
        let seat = |set: usize, position: u16| {
            let node = NodeIndex(position % nodes);
            let path = format!("/s{set}/d{position}");
            let name = match nodes {
                1 => path.clone(),
                _ => format!("http://n{}:9000{path}", node.0),
            };
            SeatPlace { node, name, path }
        };
        let seats: Vec<Vec<SeatPlace>> =
            (0..3).map(|set| (0..4).map(|position| seat(set, position)).collect()).collect();
        let node = |node| NodePlace { endpoint: format!("n{node}:9000"), scheme: "http" };
        Places {
            nodes: (0..nodes).map(node).collect(),
            this: NodeIndex(0),
            pools: pools(&[1, 2], &seats),
            seats,
            parity: vec![ClassParity { standard: 2, reduced_redundancy: 1 }; 3],
            has_default_classes: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    #[test]
    fn sets_are_found_in_their_pools() {
        let places = testing::places(2);
        let of = |set| places.pool_of(SetIndex(set));
        assert_eq!([of(0), of(1), of(2)], [(0, 0), (1, 0), (1, 1)]);
        assert_eq!(places.pools[1], PoolPlace { first_set: 1, sets: 2, drives: 4 });
        assert_eq!((places.count(None), places.count(Some(NodeIndex(1)))), (12, 6));
        assert_eq!(places.endpoint(NodeIndex(1)), "n1:9000");
    }

    #[test]
    fn an_address_of_everywhere_is_told_as_one_to_connect_to() {
        assert_eq!(reachable((Ipv4Addr::UNSPECIFIED, 9000).into()), "localhost:9000");
        assert_eq!(reachable((Ipv6Addr::UNSPECIFIED, 9000).into()), "localhost:9000");
        assert_eq!(reachable(([10, 0, 0, 1], 80).into()), "10.0.0.1:80");
    }
}

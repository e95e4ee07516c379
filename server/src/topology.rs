//! Which drives there are, on which nodes, and how they form pools and sets, from the arguments
//! alone.
//!
//! The order is part of what is stored: pools in the order of the arguments, drives in the order
//! of expansion, and each set a run of consecutive drives. Nodes are numbered in the order in which
//! the drives name them first, so every node numbers all of them alike.

pub mod capacity;
pub mod ellipses;
pub mod endpoint;
pub mod node_address;
pub mod set_size;
pub mod storage_class;
pub mod this_node;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use basalt_net::node::NodeIndex;

use ellipses::Pattern;
use endpoint::Endpoint;
use node_address::NodeAddress;
use set_size::{Shape, Unsizable};

use crate::environment::Variable;
use crate::placement::PARTITIONS;
use crate::refusal::Refusal;

/// No deployment has more drives: the sets that placement can tell apart, of the largest size.
pub const DRIVES_MAX: usize = PARTITIONS as usize * basalt_engine::units::SET_DRIVES_MAX;
/// As many as [`NodeIndex`] tells apart.
pub const NODES_MAX: usize = 1 << 16;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Topology {
    pub pools: Vec<Pool>,
    /// Those that URLs name. Empty where drives are directories: those are on this node.
    pub nodes: Vec<NodeAddress>,
}

/// Where a drive is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Place {
    /// The first where drives are directories.
    pub node: NodeIndex,
    pub path: PathBuf,
}

/// The drives of one argument; without ellipses, of all arguments.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pool {
    /// As the operator wrote it.
    pub argument: String,
    pub drives: Vec<Place>,
    /// Drives in each set.
    pub set_drives: usize,
}

impl Pool {
    pub fn sets(&self) -> impl ExactSizeIterator<Item = &[Place]> {
        self.drives.chunks_exact(self.set_drives)
    }
}

impl Topology {
    /// `set_drives` is the operator's choice of set size, if there is one; `default_port` that of URLs
    /// without a port.
    pub fn parse(
        arguments: &[String],
        set_drives: Option<usize>,
        working_directory: &Path,
        default_port: u16,
    ) -> Result<Self, Refusal> {
        let groups = groups(arguments)?;
        let mut endpoints = Vec::new();
        for group in &groups {
            for text in &group.expanded {
                endpoints.push(Endpoint::parse(text, working_directory, default_port)?);
            }
        }
        check_style(&endpoints)?;
        let (nodes, places) = numbered(endpoints)?;
        check_duplicates(arguments, &nodes, &places)?;

        let mut places = places.into_iter();
        let mut pools = Vec::new();
        for group in groups {
            let drives: Vec<Place> = places.by_ref().take(group.expanded.len()).collect();
            let set_drives = group.set_drives(&drives, set_drives)?;
            pools.push(Pool { argument: group.argument, drives, set_drives });
        }
        let topology = Self { pools, nodes };
        topology.check_number_of_sets()?;
        Ok(topology)
    }

    /// What an operator calls a drive: its path, and with several nodes its URL.
    pub fn name(&self, place: &Place) -> String {
        let path = place.path.display();
        match self.nodes.get(usize::from(place.node.0)) {
            Some(node) if self.nodes.len() > 1 => format!("{node}{path}"),
            _ => path.to_string(),
        }
    }

    /// All sets in the order that numbers them.
    pub fn sets(&self) -> impl Iterator<Item = &[Place]> {
        self.pools.iter().flat_map(Pool::sets)
    }

    /// All drives, set by set.
    pub fn drives(&self) -> impl Iterator<Item = &Place> {
        self.pools.iter().flat_map(|pool| &pool.drives)
    }

    fn check_number_of_sets(&self) -> Result<(), Refusal> {
        let sets = self.sets().count();
        if sets <= usize::from(PARTITIONS) {
            return Ok(());
        }
        Err(Refusal::usage(
            format!("{sets} sets are too many"),
            format!("a deployment has at most {PARTITIONS}"),
            "name fewer drives, or make the sets larger with BASALT_ERASURE_SET_DRIVE_COUNT",
        ))
    }
}

/// Set size that the operator asks for; 0 asks for none.
pub fn wanted_set_drives(variable: Option<Variable<'_>>) -> Result<Option<usize>, Refusal> {
    let Some(variable) = variable else { return Ok(None) };
    match variable.value.parse() {
        Ok(0) => Ok(None),
        Ok(size) => Ok(Some(size)),
        Err(_) => Err(Refusal::usage(
            format!("{}={} is not a set size", variable.name, variable.value),
            "it is not a number",
            "give the number of drives in each set, 2 to 16, or leave it unset",
        )),
    }
}

/// What becomes one pool.
struct Group {
    argument: String,
    expanded: Vec<String>,
    leftmost: Option<usize>,
}

/// One group for each argument, if they are patterns; otherwise all of them are one group.
fn groups(arguments: &[String]) -> Result<Vec<Group>, Refusal> {
    if arguments.is_empty() {
        return Err(Refusal::usage(
            "no drive is named",
            "neither the command line nor MINIO_VOLUMES says where to store anything",
            "name one directory for each drive: basalt server /mnt/drive{1...4}",
        ));
    }
    let patterns = arguments.iter().filter(|argument| ellipses::is_pattern(argument)).count();
    if patterns == 0 {
        let expanded = arguments.to_vec();
        return Ok(vec![Group { argument: arguments.join(" "), expanded, leftmost: None }]);
    }
    if patterns < arguments.len() {
        let plain: Vec<&str> = arguments
            .iter()
            .filter(|argument| !ellipses::is_pattern(argument))
            .map(String::as_str)
            .collect();
        return Err(Refusal::usage(
            "arguments with and without ellipses are mixed",
            format!(
                "each argument with an ellipsis is a pool of its own, and these have none: {}",
                plain.join(" ")
            ),
            "write every argument with an ellipsis, such as /mnt/drive{1...4}, or none",
        ));
    }
    arguments.iter().map(|argument| group_of_pattern(argument)).collect()
}

fn group_of_pattern(argument: &str) -> Result<Group, Refusal> {
    let pattern = Pattern::parse(argument).map_err(|error| malformed_pattern(argument, &error))?;
    Ok(Group {
        argument: argument.to_owned(),
        expanded: pattern.expand(),
        leftmost: Some(pattern.leftmost_length()),
    })
}

fn malformed_pattern(argument: &str, error: &ellipses::Malformed) -> Refusal {
    Refusal::usage(
        format!("`{argument}` cannot be expanded"),
        error.to_string(),
        "write ranges as {N...M} with exactly three dots, N and M positive whole numbers and M \
         not below N: /mnt/drive{1...4}. {1..4} with two dots is for the shell, not quoted",
    )
}

impl Group {
    /// The size of the sets that the group's places form.
    fn set_drives(&self, places: &[Place], wanted: Option<usize>) -> Result<usize, Refusal> {
        let drives = places.len();
        if drives == 1 && self.leftmost.is_none() && wanted.is_none_or(|wanted| wanted == 1) {
            return Ok(1);
        }
        let nodes: BTreeSet<NodeIndex> = places.iter().map(|place| place.node).collect();
        let shape = Shape { drives, leftmost: self.leftmost, nodes: nodes.len() };
        set_size::set_size(shape, wanted).map_err(|error| self.unsizable(&error))
    }

    fn unsizable(&self, error: &Unsizable) -> Refusal {
        let what = format!("no sets can be made of the drives of `{}`", self.argument);
        let remedy = match error {
            Unsizable::Indivisible { drives: 1 } => {
                "name a single drive without an ellipsis, or two drives or more".to_owned()
            }
            Unsizable::Indivisible { drives } => match set_size::divisible_near(*drives) {
                (Some(below), above) => format!("name {below} or {above} drives"),
                (None, above) => format!("name {above} drives or more"),
            },
            Unsizable::Asymmetric { .. } => {
                "change the length of the first range to one that has a divisor from 2 to 16 in \
                 common with the rest, or choose a set size with BASALT_ERASURE_SET_DRIVE_COUNT"
                    .to_owned()
            }
            Unsizable::Impossible { .. } => {
                "set BASALT_ERASURE_SET_DRIVE_COUNT to one of these, or leave it unset".to_owned()
            }
        };
        Refusal::usage(what, error.to_string(), remedy)
    }
}

/// All directories, or all URLs of one scheme.
fn check_style(endpoints: &[Endpoint]) -> Result<(), Refusal> {
    let scheme = |endpoint: &Endpoint| match endpoint {
        Endpoint::Directory(_) => None,
        Endpoint::Url(node, _) => Some(node.scheme),
    };
    let first = scheme(&endpoints[0]);
    let Some(other) = endpoints.iter().map(scheme).find(|other| *other != first) else {
        return Ok(());
    };
    if first.is_some() && other.is_some() {
        return Err(Refusal::usage(
            "http and https are mixed",
            "all drives of a deployment are reached by one scheme",
            "use the same scheme in every URL",
        ));
    }
    Err(Refusal::usage(
        "directories and URLs are mixed",
        "a deployment is either on one node, named by directories, or on several, named by URLs",
        "name every drive in the same way",
    ))
}

/// The nodes in the order in which they are named first, and where each drive is.
fn numbered(endpoints: Vec<Endpoint>) -> Result<(Vec<NodeAddress>, Vec<Place>), Refusal> {
    let mut nodes = Vec::new();
    let mut numbers = BTreeMap::new();
    let mut places = Vec::new();
    for endpoint in endpoints {
        let (node, path) = match endpoint {
            Endpoint::Directory(path) => (0, path),
            Endpoint::Url(node, path) => {
                let number = *numbers.entry(node).or_insert_with_key(|node| {
                    nodes.push(node.clone());
                    nodes.len() - 1
                });
                (number, path)
            }
        };
        let Ok(node) = u16::try_from(node) else {
            return Err(Refusal::usage(
                "there are too many nodes",
                format!("a deployment has at most {NODES_MAX}"),
                "name fewer nodes, with more drives on each",
            ));
        };
        places.push(Place { node: NodeIndex(node), path });
    }
    Ok((nodes, places))
}

fn check_duplicates(
    arguments: &[String],
    nodes: &[NodeAddress],
    places: &[Place],
) -> Result<(), Refusal> {
    let mut seen_arguments = BTreeSet::new();
    let twice = arguments.iter().find(|argument| !seen_arguments.insert(*argument));
    let mut seen = BTreeSet::new();
    let name = |place: &Place| match nodes.get(usize::from(place.node.0)) {
        Some(node) => format!("{node}{}", place.path.display()),
        None => place.path.display().to_string(),
    };
    let twice =
        twice.cloned().or_else(|| places.iter().find(|place| !seen.insert(*place)).map(name));
    match twice {
        None => Ok(()),
        Some(twice) => Err(Refusal::usage(
            format!("`{twice}` is named more than once"),
            "each drive holds a different shard of an object, so each is named exactly once",
            "remove the repetition, also where two ellipses overlap",
        )),
    }
}

#[cfg(test)]
mod tests;

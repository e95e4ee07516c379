//! Which drives there are and how they form pools and sets, from the arguments alone.
//!
//! The order is part of what is stored: pools in the order of the arguments, drives in the order
//! of expansion, and each set a run of consecutive drives.

pub mod capacity;
pub mod ellipses;
pub mod endpoint;
pub mod set_size;
pub mod storage_class;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use ellipses::Pattern;
use endpoint::Endpoint;
use set_size::{Shape, Unsizable};

use crate::environment::Variable;
use crate::placement::PARTITIONS;
use crate::refusal::Refusal;

/// No deployment has more drives: the sets that placement can tell apart, of the largest size.
pub const DRIVES_MAX: usize = PARTITIONS as usize * basalt_engine::units::SET_DRIVES_MAX;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Topology {
    pub pools: Vec<Pool>,
}

/// The drives of one argument; without ellipses, of all arguments.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pool {
    /// As the operator wrote it.
    pub argument: String,
    pub drives: Vec<PathBuf>,
    /// Drives in each set.
    pub set_drives: usize,
}

impl Pool {
    pub fn sets(&self) -> impl ExactSizeIterator<Item = &[PathBuf]> {
        self.drives.chunks_exact(self.set_drives)
    }
}

impl Topology {
    /// `set_drives` is the operator's choice of set size, if there is one.
    pub fn parse(
        arguments: &[String],
        set_drives: Option<usize>,
        working_directory: &Path,
    ) -> Result<Self, Refusal> {
        let groups = groups(arguments)?;
        let mut endpoints = Vec::new();
        for group in &groups {
            for text in &group.expanded {
                endpoints.push(Endpoint::parse(text, working_directory)?);
            }
        }
        check_style(&endpoints)?;
        check_duplicates(arguments, &endpoints)?;
        check_one_node(&endpoints)?;

        let mut drives = endpoints.iter().map(|endpoint| endpoint.path().to_path_buf());
        let mut pools = Vec::new();
        for group in groups {
            let set_drives = group.set_drives(set_drives)?;
            let drives: Vec<PathBuf> = drives.by_ref().take(group.expanded.len()).collect();
            pools.push(Pool { argument: group.argument, drives, set_drives });
        }
        let topology = Self { pools };
        topology.check_number_of_sets()?;
        Ok(topology)
    }

    /// All sets in the order that numbers them.
    pub fn sets(&self) -> impl Iterator<Item = &[PathBuf]> {
        self.pools.iter().flat_map(Pool::sets)
    }

    /// All drives, set by set.
    pub fn drives(&self) -> impl Iterator<Item = &PathBuf> {
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
    fn set_drives(&self, wanted: Option<usize>) -> Result<usize, Refusal> {
        let drives = self.expanded.len();
        if drives == 1 && self.leftmost.is_none() && wanted.is_none_or(|wanted| wanted == 1) {
            return Ok(1);
        }
        let shape = Shape { drives, leftmost: self.leftmost, nodes: 1 };
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
        Endpoint::Url { scheme, .. } => Some(*scheme),
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

fn check_duplicates(arguments: &[String], endpoints: &[Endpoint]) -> Result<(), Refusal> {
    let mut seen_arguments = BTreeSet::new();
    let twice = arguments.iter().find(|argument| !seen_arguments.insert(*argument));
    let mut seen = BTreeSet::new();
    let name = |endpoint: &Endpoint| match endpoint {
        Endpoint::Directory(path) => path.display().to_string(),
        Endpoint::Url { authority, path, .. } => format!("{authority}{}", path.display()),
    };
    let twice =
        twice.cloned().or_else(|| endpoints.iter().map(name).find(|n| !seen.insert(n.clone())));
    match twice {
        None => Ok(()),
        Some(twice) => Err(Refusal::usage(
            format!("`{twice}` is named more than once"),
            "each drive holds a different shard of an object, so each is named exactly once",
            "remove the repetition, also where two ellipses overlap",
        )),
    }
}

fn check_one_node(endpoints: &[Endpoint]) -> Result<(), Refusal> {
    let authorities: BTreeSet<&str> = endpoints
        .iter()
        .filter_map(|endpoint| match endpoint {
            Endpoint::Directory(_) => None,
            Endpoint::Url { authority, .. } => Some(authority.as_str()),
        })
        .collect();
    let remedy = match authorities.len() {
        0 => return Ok(()),
        1 => {
            "name the directories alone: /mnt/drive{1...4} in place of \
              http://node/mnt/drive{1...4}"
        }
        _ => "run one node with all its drives, named by directories: /mnt/drive{1...4}",
    };
    Err(Refusal::usage(
        "drives named by URLs cannot be served",
        "this release serves one node; several nodes come with a later one",
        remedy,
    ))
}

#[cfg(test)]
mod tests;

//! What a node makes of the drives that stand at the seats when it starts, its own and those that other
//! nodes tell of: a new deployment, an old one, something to wait for, or a refusal. A pure function of
//! what was found, so that every case is a test.
//!
//! A deployment is formed in two steps: all drives are formatted as *forming*, then all are marked
//! formed. A crash in between leaves either no formed drive, and formation begins anew, or at least
//! one, which proves that all were formatted. How the first node has the others do that is
//! [`super::founding`].
//!
//! A node of several asks the others again and again, and calls [`decide`] with what it knows then, until
//! the answer is not to wait. A node alone knows everything at once ([`plan`]).

use std::collections::BTreeSet;
use std::fmt;

use basalt_engine::request::{Member, SetMap};
use basalt_engine::units::{DeploymentId, DriveId, DriveIndex, Epoch, SetIndex};
use basalt_net::node::NodeIndex;
use basalt_net::quorum::Quorums;

/// Who a formatted drive says it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    pub drive: DriveId,
    pub deployment: DeploymentId,
    pub set: SetIndex,
    pub position: DriveIndex,
    pub forming: bool,
    pub map: SetMap,
}

impl Identity {
    /// Whether the drive was formatted as a replacement and the crash came before its set knew it:
    /// there is nothing on it.
    pub fn never_joined(&self) -> bool {
        let member = self.map.drives.get(usize::from(self.position.0));
        member.is_none_or(|member| member.drive != self.drive)
    }
}

/// What stands at a drive's place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Found {
    Blank,
    Ours(Identity),
    /// Not usable now, and why: not there, foreign, unreadable.
    Unusable(String),
    /// Its node has not said yet.
    Unreached,
}

/// What to do with one drive.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Format it as a founding member, forming.
    Found(DriveId),
    /// Open it; it is what it should be.
    Open(DriveId),
    /// A blank directory where a formatted drive was expected: a replacement.
    Replace,
    /// Leave it alone, for this reason.
    Refuse(String),
    /// Nothing is known of it; its own node decides.
    Leave,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    pub deployment: DeploymentId,
    /// Whether the deployment is founded by this start.
    pub founding: bool,
    /// The newest map of each set that any superblock holds.
    pub maps: Vec<SetMap>,
    /// By set, then by position.
    pub steps: Vec<Vec<Step>>,
}

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    #[error("a first start needs every drive: set {}, drive {}: {reason}", set.0, position.0)]
    NotAllBlank { set: SetIndex, position: DriveIndex, reason: String },
    #[error("the drives belong to several deployments: {one} and {other}")]
    SeveralDeployments { one: DeploymentId, other: DeploymentId },
    #[error(
        "set {} was formatted with {formatted} drives, and the command line makes it {given}",
        set.0
    )]
    OtherSetSize { set: SetIndex, formatted: usize, given: usize },
}

/// Who founds: the node that the command line names first.
pub const FOUNDER: NodeIndex = NodeIndex(0);

/// What a node does next at its start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decision {
    /// Open the drives of this node by the plan, and serve.
    Start(Plan),
    /// Only at the founder: have every drive formatted by the plan, and when all are, marked formed; then
    /// ask again.
    Form(Plan),
    /// Ask again in a while.
    Wait(Waiting),
}

/// What a node waits for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Waiting {
    /// A first start needs every node, and these have not answered.
    Nodes(Vec<NodeIndex>),
    /// A first start needs every drive, and this one of another node cannot be used.
    Drive { set: SetIndex, position: DriveIndex, node: NodeIndex, reason: String },
    /// Every node has answered, and the first one has to form the deployment.
    Founder,
    /// Too few drives of the set have shown who they are, and these nodes have not answered.
    Identities { set: SetIndex, shown: usize, needed: usize, nodes: Vec<NodeIndex> },
}

impl Waiting {
    /// The nodes that are waited for.
    pub fn nodes(&self) -> Vec<NodeIndex> {
        match self {
            Self::Nodes(nodes) | Self::Identities { nodes, .. } => nodes.clone(),
            Self::Drive { node, .. } => vec![*node],
            Self::Founder => vec![FOUNDER],
        }
    }
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nodes(nodes) => {
                write!(f, "a first start needs every node; no answer yet from {}", Names(nodes))
            }
            Self::Drive { set, position, node, reason } => write!(
                f,
                "a first start needs every drive; set {}, drive {} on {}: {reason}",
                set.0,
                position.0,
                Names(&[*node])
            ),
            Self::Founder => f.write_str("the first node of the command line forms the deployment"),
            Self::Identities { set, shown, needed, nodes } => write!(
                f,
                "{shown} of {needed} drives that set {} needs are there; no answer yet from {}",
                set.0,
                Names(nodes)
            ),
        }
    }
}

/// Nodes by their numbers on the command line, which count from one for people.
struct Names<'a>(&'a [NodeIndex]);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, node) in self.0.iter().enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            write!(f, "{comma}node {}", node.0 + 1)?;
        }
        Ok(())
    }
}

/// Decides the start of a node that has all drives. `random` draws ids.
pub fn plan(found: &[Vec<Found>], random: impl FnMut() -> u128) -> Result<Plan, Refusal> {
    let nodes: Vec<Vec<NodeIndex>> = found.iter().map(|set| vec![FOUNDER; set.len()]).collect();
    match decide(found, &nodes, FOUNDER, random)? {
        Decision::Start(plan) | Decision::Form(plan) => Ok(plan),
        Decision::Wait(waiting) => unreachable!("there is nobody to wait for: {waiting}"),
    }
}

/// Decides what the node `here` does next, from what it `found` at each seat and the node of each seat,
/// by set, then by position. `random` draws ids.
pub fn decide(
    found: &[Vec<Found>],
    nodes: &[Vec<NodeIndex>],
    here: NodeIndex,
    mut random: impl FnMut() -> u128,
) -> Result<Decision, Refusal> {
    let formed = identities(found).any(|(_, _, identity)| !identity.forming);
    match formed {
        false => begin(found, nodes, here, &mut random),
        true => match too_few(found, nodes) {
            Some(waiting) => Ok(Decision::Wait(waiting)),
            None => Ok(Decision::Start(resume(found)?)),
        },
    }
}

/// A first start, as far as is known.
fn begin(
    found: &[Vec<Found>],
    nodes: &[Vec<NodeIndex>],
    here: NodeIndex,
    random: &mut impl FnMut() -> u128,
) -> Result<Decision, Refusal> {
    let silent = unreached(found.iter().flatten().zip(nodes.iter().flatten()));
    for (set, position, place) in places(found) {
        let node = nodes[usize::from(set.0)][usize::from(position.0)];
        if let Found::Unusable(reason) = place {
            let reason = reason.clone();
            return match node == here {
                // Who has not answered yet may have formed drives, and then this is no first start.
                true if !silent.is_empty() => break,
                true => Err(Refusal::NotAllBlank { set, position, reason }),
                false => Ok(Decision::Wait(Waiting::Drive { set, position, node, reason })),
            };
        }
    }
    match silent.is_empty() {
        false => Ok(Decision::Wait(Waiting::Nodes(silent))),
        true if here != FOUNDER => Ok(Decision::Wait(Waiting::Founder)),
        true => Ok(Decision::Form(found_deployment(found, random))),
    }
}

/// A set of which less than R drives have shown themselves, while others still may. With R, the newest
/// map among them is at least as new as any under which something was decided on those.
fn too_few(found: &[Vec<Found>], nodes: &[Vec<NodeIndex>]) -> Option<Waiting> {
    for ((drives, nodes), set) in found.iter().zip(nodes).zip(0u16..) {
        let set = SetIndex(set);
        let at_its_seat = |(drive, position): &(&Found, u8)| match drive {
            Found::Ours(identity) => {
                (identity.set, identity.position) == (set, DriveIndex(*position))
                    && !identity.never_joined()
            }
            _ => false,
        };
        let shown = drives.iter().zip(0u8..).filter(at_its_seat).count();
        let needed = Quorums::of(drives.len()).read;
        let silent = unreached(drives.iter().zip(nodes));
        if shown < needed && !silent.is_empty() {
            return Some(Waiting::Identities { set, shown, needed, nodes: silent });
        }
    }
    None
}

fn unreached<'a>(seats: impl Iterator<Item = (&'a Found, &'a NodeIndex)>) -> Vec<NodeIndex> {
    let silent = seats.filter(|(found, _)| **found == Found::Unreached).map(|(_, node)| *node);
    BTreeSet::from_iter(silent).into_iter().collect()
}

fn identities(found: &[Vec<Found>]) -> impl Iterator<Item = (SetIndex, DriveIndex, &Identity)> {
    places(found).filter_map(|(set, position, found)| match found {
        Found::Ours(identity) => Some((set, position, identity)),
        Found::Blank | Found::Unusable(_) | Found::Unreached => None,
    })
}

fn places(found: &[Vec<Found>]) -> impl Iterator<Item = (SetIndex, DriveIndex, &Found)> {
    found.iter().zip(0u16..).flat_map(|(drives, set)| {
        drives
            .iter()
            .zip(0u8..)
            .map(move |(found, position)| (SetIndex(set), DriveIndex(position), found))
    })
}

fn found_deployment(found: &[Vec<Found>], random: &mut impl FnMut() -> u128) -> Plan {
    let mut maps = Vec::new();
    let mut steps = Vec::new();
    for drives in found {
        let ids: Vec<DriveId> = drives.iter().map(|_| DriveId(random())).collect();
        let members = ids.iter().map(|&drive| Member { drive, voting: true }).collect();
        maps.push(SetMap { epoch: Epoch(1), drives: members });
        steps.push(ids.into_iter().map(Step::Found).collect());
    }
    Plan { deployment: DeploymentId(random()), founding: true, maps, steps }
}

fn resume(found: &[Vec<Found>]) -> Result<Plan, Refusal> {
    let deployment = deployment(found)?;
    let mut maps = Vec::new();
    let mut steps = Vec::new();
    for (drives, set) in found.iter().zip(0u16..).map(|(drives, set)| (drives, SetIndex(set))) {
        let newest = identities(found)
            .filter(|(_, _, identity)| identity.set == set && identity.deployment == deployment)
            .map(|(_, _, identity)| &identity.map)
            .max_by_key(|map| map.epoch);
        let map = match newest {
            Some(map) if map.drives.len() != drives.len() => {
                let (formatted, given) = (map.drives.len(), drives.len());
                return Err(Refusal::OtherSetSize { set, formatted, given });
            }
            Some(map) => map.clone(),
            // No drive of this set is here: nothing is known, and nothing may be formatted.
            None => {
                let nobody = Member { drive: DriveId::default(), voting: true };
                SetMap { epoch: Epoch(0), drives: vec![nobody; drives.len()] }
            }
        };
        let step = |(position, found): (u8, &Found)| {
            step((deployment, set, DriveIndex(position)), found, &map)
        };
        steps.push((0u8..).zip(drives).map(step).collect());
        maps.push(map);
    }
    Ok(Plan { deployment, founding: false, maps, steps })
}

/// The deployment of the drives. Where there are several, the one that has most seats of every set: the
/// others' drives are strays.
fn deployment(found: &[Vec<Found>]) -> Result<DeploymentId, Refusal> {
    let all: BTreeSet<DeploymentId> = identities(found).map(|(_, _, i)| i.deployment).collect();
    let has_most = |deployment: &DeploymentId| {
        found.iter().zip(0u16..).all(|(drives, set)| {
            let own = identities(found).filter(|(seat, _, identity)| {
                seat.0 == set && identity.deployment == *deployment && !identity.forming
            });
            2 * own.count() > drives.len()
        })
    };
    let mut deployments = all.iter();
    match (deployments.next(), deployments.next()) {
        (Some(only), None) => Ok(*only),
        (Some(&one), Some(&other)) => {
            let chosen = all.iter().find(|deployment| has_most(deployment));
            chosen.copied().ok_or(Refusal::SeveralDeployments { one, other })
        }
        (None, _) => unreachable!("a formed drive was found"),
    }
}

type Seat = (DeploymentId, SetIndex, DriveIndex);

fn step((deployment, set, position): Seat, found: &Found, map: &SetMap) -> Step {
    match found {
        Found::Unreached => Step::Leave,
        Found::Unusable(reason) => Step::Refuse(reason.clone()),
        Found::Blank if map.epoch == Epoch(0) => {
            Step::Refuse("no drive of its set is here to repair it from".to_owned())
        }
        Found::Blank => Step::Replace,
        Found::Ours(identity) if identity.deployment != deployment => Step::Refuse(format!(
            "this drive belongs to deployment {}, and this one is {deployment}. Put the right drive \
             here, or empty the directory to use it",
            identity.deployment
        )),
        Found::Ours(identity) if (identity.set, identity.position) != (set, position) => {
            Step::Refuse(format!(
                "this drive belongs to set {}, place {}; here should be set {}, place {}. \
                 Put the drives back in the order of the command line",
                identity.set.0, identity.position.0, set.0, position.0
            ))
        }
        Found::Ours(identity) => {
            let member = map.drives[usize::from(position.0)];
            if member.drive == identity.drive {
                Step::Open(identity.drive)
            } else if identity.never_joined() {
                Step::Replace
            } else {
                Step::Refuse(format!(
                    "drive {} was replaced by drive {} and must not return. \
                     Empty the directory to use it again",
                    identity.drive, member.drive
                ))
            }
        }
    }
}

#[cfg(test)]
mod tests;

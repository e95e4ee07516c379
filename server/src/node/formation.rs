//! What a node makes of the drives it finds when it starts: a new deployment, an old one, or a
//! refusal. A pure function of what was found, so that every case is a test.
//!
//! A deployment is formed in two steps: all drives are formatted as *forming*, then all are marked
//! formed. A crash in between leaves either no formed drive, and formation begins anew, or at least
//! one, which proves that all were formatted.

use basalt_engine::request::{Member, SetMap};
use basalt_engine::units::{DeploymentId, DriveId, DriveIndex, Epoch, SetIndex};

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

/// Decides the start. `random` draws ids.
pub fn plan(found: &[Vec<Found>], mut random: impl FnMut() -> u128) -> Result<Plan, Refusal> {
    let formed = identities(found).find(|(_, _, identity)| !identity.forming);
    match formed {
        None => found_deployment(found, &mut random),
        Some((_, _, identity)) => resume(found, identity.deployment),
    }
}

fn identities(found: &[Vec<Found>]) -> impl Iterator<Item = (SetIndex, DriveIndex, &Identity)> {
    places(found).filter_map(|(set, position, found)| match found {
        Found::Ours(identity) => Some((set, position, identity)),
        Found::Blank | Found::Unusable(_) => None,
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

fn found_deployment(
    found: &[Vec<Found>],
    random: &mut impl FnMut() -> u128,
) -> Result<Plan, Refusal> {
    for (set, position, place) in places(found) {
        if let Found::Unusable(reason) = place {
            return Err(Refusal::NotAllBlank { set, position, reason: reason.clone() });
        }
    }
    let mut maps = Vec::new();
    let mut steps = Vec::new();
    for drives in found {
        let ids: Vec<DriveId> = drives.iter().map(|_| DriveId(random())).collect();
        let members = ids.iter().map(|&drive| Member { drive, voting: true }).collect();
        maps.push(SetMap { epoch: Epoch(1), drives: members });
        steps.push(ids.into_iter().map(Step::Found).collect());
    }
    Ok(Plan { deployment: DeploymentId(random()), founding: true, maps, steps })
}

fn resume(found: &[Vec<Found>], deployment: DeploymentId) -> Result<Plan, Refusal> {
    if let Some((_, _, other)) = identities(found).find(|(_, _, i)| i.deployment != deployment) {
        return Err(Refusal::SeveralDeployments { one: deployment, other: other.deployment });
    }
    let mut maps = Vec::new();
    let mut steps = Vec::new();
    for (drives, set) in found.iter().zip(0u16..).map(|(drives, set)| (drives, SetIndex(set))) {
        let newest = identities(found)
            .filter(|(_, _, identity)| identity.set == set)
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
        let step = |(position, found): (u8, &Found)| step(set, DriveIndex(position), found, &map);
        steps.push((0u8..).zip(drives).map(step).collect());
        maps.push(map);
    }
    Ok(Plan { deployment, founding: false, maps, steps })
}

fn step(set: SetIndex, position: DriveIndex, found: &Found, map: &SetMap) -> Step {
    match found {
        Found::Unusable(reason) => Step::Refuse(reason.clone()),
        Found::Blank if map.epoch == Epoch(0) => {
            Step::Refuse("no drive of its set is here to repair it from".to_owned())
        }
        Found::Blank => Step::Replace,
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
mod tests {
    use super::*;

    fn counter() -> impl FnMut() -> u128 {
        let mut next = 100;
        move || {
            next += 1;
            next
        }
    }

    fn map(epoch: u64) -> SetMap {
        let drives = (1..=4).map(|id| Member { drive: DriveId(id), voting: true }).collect();
        SetMap { epoch: Epoch(epoch), drives }
    }

    fn ours(position: u8, forming: bool) -> Found {
        Found::Ours(Identity {
            drive: DriveId(u128::from(position) + 1),
            deployment: DeploymentId(7),
            set: SetIndex(0),
            position: DriveIndex(position),
            forming,
            map: map(1),
        })
    }

    #[test]
    fn blank_drives_found_a_deployment() {
        let plan = plan(&[vec![Found::Blank; 4]], counter()).expect("founds");
        assert!(plan.founding);
        assert_eq!(plan.maps[0].epoch, Epoch(1));
        let ids: Vec<Step> = plan.maps[0].drives.iter().map(|m| Step::Found(m.drive)).collect();
        assert_eq!(plan.steps[0], ids);
    }

    #[test]
    fn a_formation_that_was_cut_short_begins_anew_or_is_finished() {
        let anew = [vec![ours(0, true), Found::Blank, ours(2, true), Found::Blank]];
        assert!(plan(&anew, counter()).expect("founds").founding);
        let finished = [vec![ours(0, false), ours(1, true), ours(2, true), ours(3, true)]];
        let plan = plan(&finished, counter()).expect("resumes");
        assert!(!plan.founding);
        assert_eq!(plan.steps[0][1], Step::Open(DriveId(2)));
    }

    #[test]
    fn a_first_start_needs_every_drive() {
        let found =
            [vec![Found::Blank, Found::Blank, Found::Unusable("foreign".to_owned()), Found::Blank]];
        let refused = plan(&found, counter());
        assert!(matches!(refused, Err(Refusal::NotAllBlank { position: DriveIndex(2), .. })));
    }

    #[test]
    fn drives_in_each_others_places_are_refused_and_blank_ones_replaced() {
        let found = [vec![ours(1, false), ours(0, false), Found::Blank, ours(3, false)]];
        let plan = plan(&found, counter()).expect("resumes");
        assert!(matches!(plan.steps[0][0], Step::Refuse(_)));
        assert!(matches!(plan.steps[0][1], Step::Refuse(_)));
        assert_eq!(plan.steps[0][2], Step::Replace);
        assert_eq!(plan.steps[0][3], Step::Open(DriveId(4)));
    }

    #[test]
    fn a_replaced_drive_must_not_return() {
        let Found::Ours(mut newer) = ours(0, false) else { unreachable!() };
        newer.map = map(3);
        newer.map.drives[1].drive = DriveId(99);
        let found = [vec![Found::Ours(newer), ours(1, false), ours(2, false), ours(3, false)]];
        let plan = plan(&found, counter()).expect("resumes");
        assert!(matches!(plan.steps[0][1], Step::Refuse(_)));
        assert_eq!(plan.maps[0].epoch, Epoch(3));
    }

    #[test]
    fn a_replacement_that_never_joined_is_replaced_again() {
        let Found::Ours(mut candidate) = ours(1, false) else { unreachable!() };
        candidate.drive = DriveId(77);
        let found = [vec![ours(0, false), Found::Ours(candidate), ours(2, false), ours(3, false)]];
        let plan = plan(&found, counter()).expect("resumes");
        assert_eq!(plan.steps[0][1], Step::Replace);
    }

    #[test]
    fn two_deployments_and_other_set_sizes_are_refused() {
        let Found::Ours(mut other) = ours(1, false) else { unreachable!() };
        other.deployment = DeploymentId(8);
        let mixed = [vec![ours(0, false), Found::Ours(other), Found::Blank, Found::Blank]];
        assert!(matches!(plan(&mixed, counter()), Err(Refusal::SeveralDeployments { .. })));
        let short = [vec![ours(0, false), ours(1, false)]];
        assert!(matches!(plan(&short, counter()), Err(Refusal::OtherSetSize { .. })));
    }
}

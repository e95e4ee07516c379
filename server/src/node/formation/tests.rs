//! Every case of a start.

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

/// Each drive on a node of its own.
fn four_nodes() -> Vec<Vec<NodeIndex>> {
    vec![(0..4).map(NodeIndex).collect()]
}

fn decided(found: Vec<Found>, here: u16) -> Decision {
    decide(&[found], &four_nodes(), NodeIndex(here), counter()).expect("no reason to refuse")
}

#[test]
fn a_first_start_waits_for_every_node() {
    let found = || vec![Found::Blank, Found::Unreached, Found::Blank, Found::Unreached];
    let waiting = Decision::Wait(Waiting::Nodes(vec![NodeIndex(1), NodeIndex(3)]));
    assert_eq!(decided(found(), 0), waiting);
    assert_eq!(decided(found(), 2), waiting);
    let Decision::Wait(waiting) = waiting else { unreachable!() };
    let told = "a first start needs every node; no answer yet from node 2, node 4";
    assert_eq!(waiting.to_string(), told);
}

#[test]
fn the_first_node_forms_and_the_others_wait_for_it() {
    let forming = || vec![ours(0, true), Found::Blank, Found::Blank, Found::Blank];
    let Decision::Form(plan) = decided(forming(), 0) else { panic!("it does not form") };
    assert!(plan.founding);
    assert_eq!(decided(forming(), 3), Decision::Wait(Waiting::Founder));
}

#[test]
fn a_drive_of_another_node_that_cannot_be_used_is_waited_for() {
    let reason = "foreign".to_owned();
    let found = vec![Found::Blank, Found::Unusable(reason.clone()), Found::Blank, Found::Blank];
    let (set, position, node) = (SetIndex(0), DriveIndex(1), NodeIndex(1));
    let waiting = Waiting::Drive { set, position, node, reason };
    assert_eq!(decided(found.clone(), 0), Decision::Wait(waiting));
    let refused = decide(&[found], &four_nodes(), NodeIndex(1), counter());
    assert!(matches!(refused, Err(Refusal::NotAllBlank { position: DriveIndex(1), .. })));
}

#[test]
fn a_drive_that_cannot_be_used_ends_no_start_that_may_be_a_later_one() {
    let unusable = Found::Unusable("it does not answer".to_owned());
    let found = vec![unusable.clone(), Found::Unreached, Found::Unreached, Found::Unreached];
    let others = (1..4).map(NodeIndex).collect();
    assert_eq!(decided(found, 0), Decision::Wait(Waiting::Nodes(others)));
    let later = vec![unusable, ours(1, false), ours(2, false), ours(3, false)];
    assert!(matches!(decided(later, 0), Decision::Start(_)));
}

#[test]
fn a_later_start_needs_the_identities_of_a_read_quorum() {
    let one = vec![ours(0, false), Found::Unreached, Found::Unreached, Found::Unreached];
    let waiting = Waiting::Identities {
        set: SetIndex(0),
        shown: 1,
        needed: 2,
        nodes: vec![NodeIndex(1), NodeIndex(2), NodeIndex(3)],
    };
    assert_eq!(decided(one, 0), Decision::Wait(waiting));
    // What is half formed elsewhere was formatted all the same.
    let two = vec![Found::Unreached, ours(1, false), ours(2, true), Found::Unreached];
    let Decision::Start(plan) = decided(two, 2) else { panic!("two suffice") };
    let steps = [Step::Leave, Step::Open(DriveId(2)), Step::Open(DriveId(3)), Step::Leave].to_vec();
    assert_eq!(plan.steps, [steps]);
}

#[test]
fn what_is_not_at_its_seat_shows_nothing() {
    let moved = vec![ours(0, false), ours(3, false), Found::Unreached, Found::Unreached];
    assert!(matches!(decided(moved, 0), Decision::Wait(Waiting::Identities { shown: 1, .. })));
    let Found::Ours(mut candidate) = ours(1, false) else { unreachable!() };
    candidate.drive = DriveId(77);
    let candidate = Found::Ours(candidate);
    let joining = vec![ours(0, false), candidate, Found::Unreached, Found::Unreached];
    assert!(matches!(decided(joining, 0), Decision::Wait(Waiting::Identities { shown: 1, .. })));
}

#[test]
fn nobody_waits_for_drives_whose_nodes_have_answered() {
    let gone = || Found::Unusable("not there".to_owned());
    let found = vec![ours(0, false), gone(), gone(), gone()];
    assert!(matches!(decided(found, 0), Decision::Start(_)));
}

#[test]
fn nothing_is_formed_where_a_formed_drive_is_known() {
    let found = vec![Found::Blank, Found::Blank, Found::Blank, ours(3, false)];
    let Decision::Start(plan) = decided(found, 0) else { panic!("every node has answered") };
    assert_eq!(plan.steps[0][..2], [Step::Replace, Step::Replace]);
}

#[test]
fn a_stray_of_another_deployment_is_refused_and_the_others_go_on() {
    let Found::Ours(mut stray) = ours(1, false) else { unreachable!() };
    stray.deployment = DeploymentId(8);
    let found = vec![ours(0, false), Found::Ours(stray), ours(2, false), ours(3, false)];
    let Decision::Start(plan) = decided(found, 1) else { panic!("three suffice") };
    assert_eq!(plan.deployment, DeploymentId(7));
    let told = format!("deployment {}", DeploymentId(8));
    assert!(matches!(&plan.steps[0][1], Step::Refuse(reason) if reason.contains(&told)));
}

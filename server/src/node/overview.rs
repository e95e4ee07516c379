//! What a core knows of the state of all sets, refreshed every second, and the answers to health questions.
//!
//! A drive that has not answered within a second counts as one that does not: nobody waits for it.

use std::cell::RefCell;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use basalt_engine::request::{DriveStatus, Member, Reply, Request};
use basalt_engine::seam::Runtime;
use basalt_engine::units::{DriveIndex, SetIndex};
use basalt_net::mailbox::Mailbox;
use basalt_net::node::NodeIndex;
use basalt_net::quorum::Quorums;
use futures_util::future::{join_all, select};

use super::nodes::Nodes;
use super::places::Places;
use super::redundancy::{Lack, Redundancy};
use crate::object::Store;
use crate::s3::{Health, HealthAnswer};

const REFRESH: Duration = Duration::from_secs(1);
/// How long drives may take to say how they are.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub(crate) struct Overview {
    sets: Rc<RefCell<Vec<SetState>>>,
    pub(crate) places: Rc<Places>,
    pub(crate) nodes: Nodes,
}

pub(crate) struct SetState {
    pub(crate) set: SetIndex,
    pub(crate) quorums: Quorums,
    /// Data shards of an object of class STANDARD that was written with all drives.
    pub(crate) data_drives: usize,
    /// The drives that the set's map names, by position.
    pub(crate) members: Vec<Member>,
    /// Of the drives that answered, those that vote.
    pub(crate) voting: usize,
    /// That answered.
    pub(crate) drives: Vec<(DriveIndex, DriveStatus)>,
}

impl Overview {
    /// Begins to look, and goes on for as long as the core runs. What sets lack is logged where `tells`:
    /// one core of a node is enough.
    pub(super) fn watch<M: Mailbox, R: Runtime>(
        runtime: &R,
        store: Store<M, R>,
        places: Rc<Places>,
        nodes: Nodes,
        tells: bool,
    ) -> Self {
        let overview = Self { sets: Rc::default(), places, nodes };
        let (sets, places) = (overview.sets.clone(), overview.places.clone());
        let clock = runtime.clone();
        let mut redundancy = tells.then(|| Redundancy::new(places.clone()));
        runtime.spawn(async move {
            loop {
                let fresh = store.sets().map(|set| SetState::ask(&store, &clock, &places, set));
                let fresh = join_all(fresh).await;
                if let Some(redundancy) = &mut redundancy {
                    redundancy.see(&fresh);
                }
                *sets.borrow_mut() = fresh;
                clock.sleep(REFRESH).await;
            }
        });
        overview
    }

    pub(super) fn health(&self, question: Health) -> HealthAnswer {
        self.look(|sets| health(sets, &self.places, question))
    }

    /// Shows the sets, as they were when last asked.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&[SetState]) -> T) -> T {
        look(&self.sets.borrow())
    }
}

fn health(sets: &[SetState], places: &Places, question: Health) -> HealthAnswer {
    let all = |good: &dyn Fn(&SetState) -> bool| !sets.is_empty() && sets.iter().all(good);
    let is_good = match question {
        Health::Live => true,
        Health::Ready => !sets.is_empty(),
        Health::Cluster => all(&SetState::can_write),
        // Without its only node nothing is served.
        Health::ClusterWithoutNode => {
            places.nodes.len() > 1 && all(&|set| set.can_write_without(places.this, places))
        }
        Health::ClusterRead => all(&SetState::can_read),
    };
    HealthAnswer { is_good, headers: headers(sets, places, question, is_good) }
}

fn headers(
    sets: &[SetState],
    places: &Places,
    question: Health,
    is_good: bool,
) -> Vec<(&'static str, String)> {
    let most = |number: fn(&SetState) -> usize| {
        sets.iter().map(number).max().unwrap_or_default().to_string()
    };
    let mut headers = Vec::new();
    match question {
        Health::Live => {}
        Health::Ready => {
            if !is_good {
                headers.push(("x-minio-server-status", "offline".to_owned()));
            }
        }
        Health::Cluster | Health::ClusterWithoutNode => {
            headers.push(("x-minio-write-quorum", most(SetState::write_quorum)));
            let defaults = places.has_default_classes.to_string();
            headers.push(("x-minio-storage-class-defaults", defaults));
        }
        Health::ClusterRead => {
            headers.push(("x-minio-read-quorum", most(SetState::read_quorum)));
        }
    }
    let healing: usize = sets.iter().map(SetState::healing).sum();
    if healing > 0 && question != Health::Live {
        headers.push(("x-minio-healing-drives", healing.to_string()));
    }
    headers
}

impl SetState {
    /// Drives that must vote for every object of class STANDARD to be read: a quorum of records, and
    /// the data shards.
    pub(crate) fn read_quorum(&self) -> usize {
        self.quorums.read.max(self.data_drives)
    }

    /// Drives that must answer for every object to be read and replaced.
    pub(crate) fn write_quorum(&self) -> usize {
        self.quorums.accept.max(self.read_quorum())
    }

    pub(crate) fn can_read(&self) -> bool {
        self.voting >= self.read_quorum()
    }

    pub(crate) fn can_write(&self) -> bool {
        self.can_read() && self.drives.len() >= self.write_quorum()
    }

    fn can_write_without(&self, node: NodeIndex, places: &Places) -> bool {
        let stays =
            |(position, _): &&(DriveIndex, _)| places.seat(self.set, *position).node != node;
        let drives = self.drives.iter().filter(stays);
        let voting = drives.clone().filter(|(position, _)| self.is_voting(*position)).count();
        voting >= self.read_quorum() && drives.count() >= self.write_quorum()
    }

    pub(crate) fn healing(&self) -> usize {
        self.drives.len() - self.voting
    }

    pub(crate) fn is_voting(&self, position: DriveIndex) -> bool {
        self.members[usize::from(position.0)].voting
    }

    pub(crate) fn status(&self, position: DriveIndex) -> Option<&DriveStatus> {
        let found = self.drives.iter().find(|(answered, _)| *answered == position);
        found.map(|(_, status)| status)
    }

    /// What the set lacks.
    pub(super) fn lack(&self) -> Lack {
        let Quorums { drives, read, accept, .. } = self.quorums;
        let to_decide = read.saturating_sub(self.voting);
        Lack {
            to_be_whole: drives - self.voting,
            to_write: to_decide.max(accept.saturating_sub(self.drives.len())),
            to_read: self.read_quorum().saturating_sub(self.voting),
            healing: self.healing(),
        }
    }

    async fn ask<M: Mailbox, R: Runtime>(
        store: &Store<M, R>,
        clock: &R,
        places: &Places,
        set: SetIndex,
    ) -> Self {
        let map = store.map(set);
        let positions = (0..map.drive_count() as u8).map(DriveIndex);
        let requests = positions.map(|drive| (drive, Request::Status)).collect();
        let mut replies = store.mailbox().send(set, requests);
        let mut answered = Vec::new();
        {
            let collecting = pin!(async {
                while let Some((drive, reply)) = replies.next().await {
                    if let Reply::Status(status) = reply {
                        answered.push((drive, *status));
                    }
                }
            });
            let limit = pin!(clock.sleep(PATIENCE));
            select(collecting, limit).await;
        }
        let parity = usize::from(places.parity[usize::from(set.0)].standard);
        Self::new(set, parity, map.drives, answered)
    }

    pub(crate) fn new(
        set: SetIndex,
        parity: usize,
        members: Vec<Member>,
        mut answered: Vec<(DriveIndex, DriveStatus)>,
    ) -> Self {
        answered.sort_by_key(|(drive, _)| *drive);
        let votes = |drive: &DriveIndex| members[usize::from(drive.0)].voting;
        let voting = answered.iter().filter(|(drive, _)| votes(drive)).count();
        Self {
            set,
            quorums: Quorums::of(members.len()),
            data_drives: members.len() - parity,
            members,
            voting,
            drives: answered,
        }
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use basalt_engine::request::SetMap;
    use basalt_engine::units::{DriveId, Epoch};

    use super::*;

    /// A set of so many drives, of which these answer; those that are `blank` do not vote.
    pub(crate) fn set(number: u16, drives: u8, answering: &[u8], blank: &[u8]) -> SetState {
        let member = |position: u8| Member {
            drive: DriveId(u128::from(number) << 8 | u128::from(position)),
            voting: !blank.contains(&position),
        };
        let members: Vec<Member> = (0..drives).map(member).collect();
        let map = SetMap { epoch: Epoch(3), drives: members.clone() };
        let status = |position: &u8| {
            let status = DriveStatus {
                drive: members[usize::from(*position)].drive,
                map: map.clone(),
                capacity_bytes: 1000,
                free_bytes: 400,
                keys: 7,
                unsettled: 2,
                journal_used_bytes: 5,
            };
            (DriveIndex(*position), status)
        };
        let answered = answering.iter().map(status).collect();
        SetState::new(SetIndex(number), usize::from(drives / 2), members.clone(), answered)
    }
}

#[cfg(test)]
mod tests {
    use super::super::places::testing::places;
    use super::testing::set;
    use super::*;

    fn is_good(sets: &[SetState], nodes: u16, question: Health) -> bool {
        health(sets, &places(nodes), question).is_good
    }

    #[test]
    fn a_node_may_go_where_the_rest_of_every_set_does() {
        let whole = || [set(0, 4, &[0, 1, 2, 3], &[]), set(1, 4, &[0, 1, 2, 3], &[])];
        assert!(is_good(&whole(), 4, Health::ClusterWithoutNode));
        assert!(!is_good(&whole(), 1, Health::ClusterWithoutNode), "it is the only one");
        assert!(!is_good(&whole(), 2, Health::ClusterWithoutNode), "half of the drives are its");
        let [first, _] = whole();
        let sets = [first, set(1, 4, &[0, 1, 2], &[])];
        assert!(is_good(&sets, 4, Health::Cluster));
        assert!(!is_good(&sets, 4, Health::ClusterWithoutNode), "a drive of another node is away");
        let sets = [set(0, 4, &[1, 2, 3], &[])];
        assert!(is_good(&sets, 4, Health::ClusterWithoutNode), "its drive is away already");
        assert!(!is_good(&[], 4, Health::ClusterWithoutNode), "nothing is known yet");
    }

    #[test]
    fn a_set_is_read_with_its_data_drives_and_written_with_a_quorum() {
        let sets = |answering: &[u8]| [set(0, 4, answering, &[])];
        assert!(is_good(&sets(&[0, 1, 2]), 4, Health::Cluster));
        assert!(!is_good(&sets(&[0, 1]), 4, Health::Cluster));
        assert!(is_good(&sets(&[0, 1]), 4, Health::ClusterRead));
        assert!(!is_good(&sets(&[0]), 4, Health::ClusterRead));
        let filling = [set(0, 4, &[0, 1, 2, 3], &[0, 1, 2])];
        assert!(!is_good(&filling, 4, Health::ClusterRead), "blank drives hold nothing yet");
        // With 12 data shards of 16, a quorum of records does not do.
        let mut wide = set(0, 16, &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10], &[]);
        wide.data_drives = 12;
        assert!(!wide.can_read() && !wide.can_write());
        let headers = health(&[wide], &places(1), Health::ClusterRead).headers;
        assert_eq!(headers, [("x-minio-read-quorum", "12".to_owned())]);
    }

    #[test]
    fn what_is_lacking_is_told_by_what_it_hinders() {
        let lack = |answering: &[u8], blank: &[u8]| set(0, 4, answering, blank).lack();
        let of = |to_be_whole, to_write, to_read, healing| Lack {
            to_be_whole,
            to_write,
            to_read,
            healing,
        };
        assert_eq!(lack(&[0, 1, 2, 3], &[]), of(0, 0, 0, 0));
        assert_eq!(lack(&[0, 1, 3], &[]), of(1, 0, 0, 0));
        assert_eq!(lack(&[0, 3], &[]), of(2, 1, 0, 0));
        assert_eq!(lack(&[3], &[]), of(3, 2, 1, 0));
        assert_eq!(lack(&[0, 1, 2, 3], &[2]), of(1, 0, 0, 1));
    }
}

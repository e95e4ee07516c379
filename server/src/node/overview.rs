//! What a core knows of the state of all sets, refreshed every second, and the answers to health questions.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use basalt_engine::request::{DriveStatus, Reply, Request};
use basalt_engine::seam::Runtime;
use basalt_engine::units::{DriveIndex, SetIndex};
use basalt_net::mailbox::Mailbox;
use basalt_net::quorum::Quorums;

use crate::object::Store;
use crate::s3::{Health, HealthAnswer};

const REFRESH: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub(super) struct Overview {
    sets: Rc<RefCell<Vec<SetState>>>,
    /// Every set has the parity that its size gives by default.
    default_classes: bool,
}

pub(super) struct SetState {
    pub(super) set: SetIndex,
    pub(super) quorums: Quorums,
    /// Those of the drives that vote.
    pub(super) voting: usize,
    /// That answered.
    pub(super) drives: Vec<(DriveIndex, DriveStatus)>,
}

impl Overview {
    /// Begins to look, and goes on for as long as the core runs.
    pub(super) fn watch<M: Mailbox, R: Runtime>(
        runtime: &R,
        store: Store<M, R>,
        default_classes: bool,
    ) -> Self {
        let overview = Self { sets: Rc::default(), default_classes };
        let (sets, clock) = (overview.sets.clone(), runtime.clone());
        runtime.spawn(async move {
            loop {
                let mut fresh = Vec::new();
                for set in store.sets() {
                    fresh.push(SetState::ask(&store, set).await);
                }
                *sets.borrow_mut() = fresh;
                clock.sleep(REFRESH).await;
            }
        });
        overview
    }

    pub(super) fn health(&self, question: Health) -> HealthAnswer {
        let is_good = self.is_good(question);
        HealthAnswer { is_good, headers: self.headers(question, is_good) }
    }

    fn headers(&self, question: Health, is_good: bool) -> Vec<(&'static str, String)> {
        let sets = self.sets.borrow();
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
                headers.push(("x-minio-write-quorum", most(|set| set.quorums.accept)));
                let defaults = self.default_classes.to_string();
                headers.push(("x-minio-storage-class-defaults", defaults));
            }
            Health::ClusterRead => {
                headers.push(("x-minio-read-quorum", most(|set| set.quorums.read)));
            }
        }
        let healing: usize = sets.iter().map(SetState::healing).sum();
        if healing > 0 && question != Health::Live {
            headers.push(("x-minio-healing-drives", healing.to_string()));
        }
        headers
    }

    fn is_good(&self, question: Health) -> bool {
        let sets = self.sets.borrow();
        match question {
            Health::Live => true,
            Health::Ready => !sets.is_empty(),
            Health::Cluster => !sets.is_empty() && sets.iter().all(SetState::can_write),
            // All drives are this node's.
            Health::ClusterWithoutNode => false,
            Health::ClusterRead => !sets.is_empty() && sets.iter().all(SetState::can_read),
        }
    }

    /// Shows the sets, as they were when last asked.
    pub(super) fn look<T>(&self, look: impl FnOnce(&[SetState]) -> T) -> T {
        look(&self.sets.borrow())
    }
}

impl SetState {
    pub(super) fn can_read(&self) -> bool {
        self.voting >= self.quorums.read
    }

    pub(super) fn can_write(&self) -> bool {
        self.can_read() && self.drives.len() >= self.quorums.accept
    }

    pub(super) fn healing(&self) -> usize {
        self.drives.len() - self.voting
    }

    async fn ask<M: Mailbox, R: Runtime>(store: &Store<M, R>, set: SetIndex) -> Self {
        let map = store.map(set);
        let drives = map.drive_count() as u8;
        let requests = (0..drives).map(|drive| (DriveIndex(drive), Request::Status)).collect();
        let mut replies = store.mailbox().send(set, requests);
        let mut answered = Vec::new();
        while let Some((drive, reply)) = replies.next().await {
            if let Reply::Status(status) = reply {
                answered.push((drive, *status));
            }
        }
        answered.sort_by_key(|(drive, _)| *drive);
        let votes = |drive: &DriveIndex| map.drives[usize::from(drive.0)].voting;
        let voting = answered.iter().filter(|(drive, _)| votes(drive)).count();
        let quorums = Quorums::of(map.drive_count());
        Self { set, quorums, voting, drives: answered }
    }
}

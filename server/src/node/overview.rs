//! What a core knows of the state of all sets, refreshed every second: the answers to health questions
//! and the metrics.

use std::cell::RefCell;
use std::fmt::Write;
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

struct SetState {
    set: SetIndex,
    quorums: Quorums,
    voting: usize,
    drives: Vec<(DriveIndex, DriveStatus)>,
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
        let healing: usize = sets.iter().map(|set| set.drives.len() - set.voting).sum();
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
            Health::Cluster => {
                !sets.is_empty()
                    && sets.iter().all(|set| {
                        set.voting >= set.quorums.read && set.drives.len() >= set.quorums.accept
                    })
            }
            // All drives are this node's.
            Health::ClusterWithoutNode => false,
            Health::ClusterRead => {
                !sets.is_empty() && sets.iter().all(|set| set.voting >= set.quorums.read)
            }
        }
    }

    /// Prometheus text.
    pub(super) fn metrics(&self) -> String {
        let sets = self.sets.borrow();
        let mut text = String::new();
        let each = || sets.iter().flat_map(|set| set.drives.iter().map(move |drive| (set, drive)));
        let mut gauge = |name: &str, help: &str, value: &dyn Fn(&DriveStatus) -> u64| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
            for (set, (position, drive)) in each() {
                let (set, position, value) = (set.set.0, position.0, value(drive));
                let _ = writeln!(text, "{name}{{set=\"{set}\",drive=\"{position}\"}} {value}");
            }
        };
        gauge("basalt_unsettled_records", "Keys that are not settled on the drive.", &|drive| {
            drive.unsettled
        });
        gauge("basalt_drive_capacity_bytes", "Bytes the drive can hold.", &|drive| {
            drive.capacity_bytes
        });
        gauge("basalt_drive_free_bytes", "Bytes free for new objects.", &|drive| drive.free_bytes);
        gauge("basalt_drive_keys", "Keys in the drive's index.", &|drive| drive.keys);
        gauge("basalt_drive_journal_used_bytes", "Journal not yet freed.", &|drive| {
            drive.journal_used_bytes
        });
        let online: usize = sets.iter().map(|set| set.drives.len()).sum();
        let total: usize = sets.iter().map(|set| set.quorums.drives).sum();
        for (name, value) in [
            ("minio_cluster_drive_online_total", online),
            ("minio_cluster_drive_offline_total", total - online),
            ("minio_cluster_drive_total", total),
            ("minio_cluster_health_status", usize::from(self.is_good(Health::Cluster))),
        ] {
            let _ = writeln!(text, "# TYPE {name} gauge\n{name} {value}");
        }
        text
    }
}

impl SetState {
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

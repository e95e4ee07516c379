//! What administrators ask of a node, as MinIO's admin API (version 3) has it: which question a path is,
//! and the answers, in the JSON that its clients read.
//!
//! Who may ask was decided before. Answers come from what the core knows of the drives already, and from
//! one question to each other node that is connected; nothing is waited for longer than a second, but for
//! a list of the buckets where that is asked for.

mod drives;
mod info;
mod storage;
mod usage;

use basalt_engine::seam::Runtime;
use basalt_engine::units::DeploymentId;
use basalt_net::mailbox::Mailbox;
use futures_util::future::LocalBoxFuture;

use crate::node::overview::Overview;
use crate::object::{self, Store};

/// What the paths begin with, and the version that follows.
pub const PREFIX: &str = "/minio/admin/";
pub const VERSION: &str = "v3";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Question {
    /// Nodes, drives, sets and pools.
    Info,
    /// Drives, and how they are used.
    StorageInfo,
    /// Buckets and capacity.
    DataUsageInfo,
}

/// What a request below [`PREFIX`] asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Asked<'a> {
    Known(Question),
    Unknown,
    /// Of a version that is not spoken here.
    OtherVersion(&'a str),
}

/// JSON.
pub type Answer = LocalBoxFuture<'static, object::Result<String>>;

impl<'a> Asked<'a> {
    pub fn of(method: &str, path: &'a str) -> Self {
        let below = path.strip_prefix(PREFIX).unwrap_or_default();
        let (version, operation) = below.split_once('/').unwrap_or((below, ""));
        if version != VERSION {
            return Self::OtherVersion(version);
        }
        match (method, operation) {
            ("GET", "info") => Self::Known(Question::Info),
            ("GET", "storageinfo") => Self::Known(Question::StorageInfo),
            ("GET", "datausageinfo") => Self::Known(Question::DataUsageInfo),
            _ => Self::Unknown,
        }
    }
}

/// Answers on one core.
#[derive(Clone)]
pub(crate) struct Admin<M: Mailbox, R: Runtime> {
    store: Store<M, R>,
    overview: Overview,
    deployment: DeploymentId,
    region: Option<String>,
}

impl<M: Mailbox, R: Runtime> Admin<M, R> {
    pub(crate) fn new(
        store: Store<M, R>,
        overview: Overview,
        deployment: DeploymentId,
        region: Option<String>,
    ) -> Self {
        Self { store, overview, deployment, region }
    }

    pub(crate) async fn answer(self, question: Question) -> object::Result<String> {
        let places = &*self.overview.places;
        match question {
            Question::Info => {
                let nodes = self.overview.nodes.ask(places.all_nodes()).await;
                let region = self.region.as_deref();
                let message =
                    |sets: &_| info::message(places, sets, &nodes, self.deployment, region);
                Ok(self.overview.look(message).to_string())
            }
            Question::StorageInfo => {
                Ok(self.overview.look(|sets| storage::message(places, sets)).to_string())
            }
            Question::DataUsageInfo => {
                let buckets = self.store.buckets().await?.len();
                Ok(self.overview.look(|sets| usage::message(sets, buckets)).to_string())
            }
        }
    }
}

#[cfg(test)]
mod tests;

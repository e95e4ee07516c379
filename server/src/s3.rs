//! S3 over HTTP.
//!
//! One way in: `connection` runs HTTP/1.1 on a stream; `service` takes each request through
//! `target` (raw bytes to names), `auth` (who asks, and may they), `operation` (what is asked) to
//! the operations in `bucket`, `object`, `read`, `copy`, `listing`, `multipart`, `uploads`,
//! `tagging`, `deletion`, `bucket_policy`, `post` (forms) and `unset`. `body` is the only way to a request's bytes; it decodes and verifies.
//! `error` is the only place where errors become S3 codes.
//!
//! Nothing here is `Send`: a [`Server`] is one core's.

mod answer;
mod attributes;
mod auth;
mod body;
mod bucket;
mod bucket_policy;
mod checksum;
mod chunked;
mod connection;
mod copy;
mod date;
mod deletion;
mod error;
mod form;
#[cfg(test)]
mod fuzz;
mod hosts;
mod listing;
mod multipart;
mod object;
mod operation;
mod origins;
mod post;
mod post_policy;
mod read;
mod request;
mod service;
mod sigv4;
mod tagging;
mod target;
#[cfg(test)]
mod testing;
mod unset;
mod uploads;
mod watch;
mod xml;

use std::rc::Rc;

use basalt_engine::seam::Runtime;
use basalt_net::mailbox::Mailbox;

use crate::object::Store;
use crate::users::User;

pub use auth::Credentials;
pub use hosts::Domains;
pub use origins::Origins;
pub use watch::Patience;

/// The first path segment of health questions; no bucket can have this name.
const HEALTH_BUCKET: &str = "minio";

/// What an operator decides about the S3 endpoint.
#[derive(Clone, Debug)]
pub struct Settings {
    pub credentials: Credentials,
    /// Those beside root.
    pub users: Vec<User>,
    /// `None`: clients may sign for any region.
    pub region: Option<String>,
    /// How clients speak to this server: `http` or `https`.
    pub scheme: &'static str,
    /// Names this server in its answers.
    pub host_id: String,
    pub patience: Patience,
    /// Below these a host's name is a bucket's.
    pub domains: Domains,
    /// Pages of these may use the server from a browser.
    pub origins: Origins,
}

/// What a health question asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// The process serves.
    Live,
    /// It can take requests.
    Ready,
    /// Every set can be written.
    Cluster,
    /// Every set can be written without this node.
    ClusterWithoutNode,
    /// Every set can be read.
    ClusterRead,
}

/// The answer to a health question.
#[derive(Clone, Debug, Default)]
pub struct HealthAnswer {
    pub is_good: bool,
    /// What monitoring reads, by header.
    pub headers: Vec<(&'static str, String)>,
}

/// The S3 endpoint of one core. Clones share it.
pub struct Server<M: Mailbox, R: Runtime> {
    inner: Rc<Inner<M, R>>,
}

struct Inner<M: Mailbox, R: Runtime> {
    store: Store<M, R>,
    runtime: R,
    gate: auth::Gate,
    policies: auth::Policies,
    scheme: &'static str,
    host_id: String,
    patience: Patience,
    domains: Domains,
    origins: Origins,
    health: Box<dyn Fn(Health) -> HealthAnswer>,
    metrics: Box<dyn Fn() -> Option<String>>,
}

impl<M: Mailbox, R: Runtime> Clone for Server<M, R> {
    fn clone(&self) -> Self {
        Self { inner: Rc::clone(&self.inner) }
    }
}

impl<M: Mailbox, R: Runtime> Server<M, R> {
    /// `health` answers health questions; `metrics` gives the metrics text where it is public.
    pub fn new(
        store: Store<M, R>,
        runtime: R,
        settings: Settings,
        health: impl Fn(Health) -> HealthAnswer + 'static,
        metrics: impl Fn() -> Option<String> + 'static,
    ) -> Self {
        let inner = Inner {
            store,
            runtime,
            gate: auth::Gate::new(settings.credentials, settings.users, settings.region),
            policies: auth::Policies::default(),
            scheme: settings.scheme,
            host_id: settings.host_id,
            patience: settings.patience,
            domains: settings.domains,
            origins: settings.origins,
            health: Box::new(health),
            metrics: Box::new(metrics),
        };
        Self { inner: Rc::new(inner) }
    }

    fn store(&self) -> &Store<M, R> {
        &self.inner.store
    }

    fn region(&self) -> Option<&str> {
        self.inner.gate.region()
    }
}

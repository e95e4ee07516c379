//! S3 over HTTP.
//!
//! One way in: `connection` runs HTTP/1.1 on a stream; `service` takes each request through
//! `target` (raw bytes to names), `auth` (who asks, and may they), `operation` (what is asked) to
//! the operations in `bucket`, `object`, `read`, `copy`, `listing`, `multipart`, `uploads`,
//! `tagging`, `deletion`, `bucket_policy`, `configuration`, `post` (forms) and `unset`. `body` is the
//! only way to a request's bytes; it decodes and verifies. `monitoring` answers health and metrics,
//! `administration` lets root ask what `crate::admin` tells, `tally` counts.
//! `error` is the only place where errors become S3 codes.
//!
//! Nothing here is `Send`: a [`Server`] is one core's.

mod administration;
mod answer;
mod attributes;
mod auth;
mod body;
mod bucket;
mod bucket_policy;
mod checksum;
mod chunked;
mod configuration;
#[cfg(test)]
mod conformance;
mod connection;
mod copy;
mod cors;
mod date;
mod deletion;
mod error;
mod form;
#[cfg(test)]
mod fuzz;
mod hosts;
mod listing;
mod monitoring;
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
mod tally;
mod target;
#[cfg(test)]
mod testing;
mod unset;
mod uploads;
mod version_listing;
mod versioning;
mod watch;
mod xml;

use std::rc::Rc;

use basalt_engine::seam::Runtime;
use basalt_net::mailbox::Mailbox;
use futures_util::future::LocalBoxFuture;

use crate::admin;
use crate::object::Store;
use crate::users::User;

pub use auth::Credentials;
pub use hosts::Domains;
pub use monitoring::{Health, HealthAnswer, MetricsPage};
pub use origins::Origins;
pub use tally::{ApiCounts, BucketCounts, Counts, FIRST_BYTE_MS, Rejection};
pub use watch::Patience;

/// The first path segment of what monitoring asks; no bucket can have this name.
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

/// How metrics are told.
pub struct Metrics {
    /// To anybody; otherwise to a bearer of root's token.
    pub are_public: bool,
    /// Gathers one page, as Prometheus reads it.
    pub page: Box<dyn Fn(MetricsPage) -> LocalBoxFuture<'static, String>>,
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
    metrics: Metrics,
    admin: Box<dyn Fn(admin::Question) -> admin::Answer>,
    tally: Rc<tally::Tally>,
}

impl<M: Mailbox, R: Runtime> Clone for Server<M, R> {
    fn clone(&self) -> Self {
        Self { inner: Rc::clone(&self.inner) }
    }
}

impl<M: Mailbox, R: Runtime> Server<M, R> {
    /// `health` answers health questions, `admin` those of administrators.
    pub fn new(
        store: Store<M, R>,
        runtime: R,
        settings: Settings,
        health: impl Fn(Health) -> HealthAnswer + 'static,
        metrics: Metrics,
        admin: impl Fn(admin::Question) -> admin::Answer + 'static,
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
            metrics,
            admin: Box::new(admin),
            tally: Rc::default(),
        };
        Self { inner: Rc::new(inner) }
    }

    /// What this core counted so far.
    pub fn counts(&self) -> Counts {
        self.inner.tally.counts()
    }

    fn store(&self) -> &Store<M, R> {
        &self.inner.store
    }

    fn region(&self) -> Option<&str> {
        self.inner.gate.region()
    }
}

//! From settings to a running node: looks at the machine, and makes what a first start makes.

use std::path::PathBuf;
use std::sync::Arc;

use basalt_engine::Error;
use basalt_engine::runtime::{Options, StartError};
use basalt_net::node::NodeIndex;
use sha2::{Digest, Sha256};

use crate::cluster::{Cluster, peer_key, topology_hash};
use crate::config::{ServerConfig, Settings};
use crate::node::drives::{self, Drive};
use crate::node::formation::Refusal as FormationRefusal;
use crate::node::{self, NodeConfig, Seat, StartFailure};
use crate::refusal::Refusal;
use crate::topology::this_node::{self, Listening};
use crate::topology::{Place, Topology};
use crate::{banner, credentials, memory, s3};

/// Finds out which node this is, examines its drives and settles the root user. What an operator should know goes to the log.
pub fn prepare(settings: Settings) -> Result<ServerConfig, Refusal> {
    for warning in &settings.warnings {
        tracing::warn!("{warning}");
    }
    let this = this_node(&settings)?;
    let local = settings.topology.drives().filter(|place| place.node == this);
    let paths: Vec<PathBuf> = local.map(|place| place.path.clone()).collect();
    let examination = drives::examine(&paths, settings.allow_buffered)?;
    for warning in &examination.warnings {
        tracing::warn!("{warning}");
    }
    // Made while the drives are still locked, so that of two first starts only one makes them.
    let credentials = match settings.credentials {
        Some(given) => given,
        None => credentials::kept_or_made(&paths[0])?,
    };
    let cluster = (settings.topology.nodes.len() > 1).then(|| Cluster {
        nodes: settings.topology.nodes.clone(),
        this,
        topology_hash: topology_hash(&settings.topology, &settings.parity),
        peer_key: peer_key(&credentials.user, &credentials.secret),
        peer_address: settings.peer_address,
    });
    Ok(ServerConfig {
        sets: seats(&settings.topology, this, examination.drives),
        cluster,
        topology: settings.topology,
        parity: settings.parity,
        credentials,
        users: settings.users,
        listen: settings.listen,
        certificates: settings.certificates,
        region: settings.region,
        public_metrics: settings.public_metrics,
        upload_rest: settings.upload_rest,
        domains: settings.domains,
        origins: settings.origins,
        output: settings.output,
    })
}

fn this_node(settings: &Settings) -> Result<NodeIndex, Refusal> {
    if settings.topology.nodes.is_empty() {
        return Ok(NodeIndex(0));
    }
    let listening = Listening { clients: settings.listen, peers: settings.peer_address };
    this_node::find(&settings.topology, listening, settings.surroundings)
}

/// `drives` are those of `this` node, in the topology's order.
pub fn seats(topology: &Topology, this: NodeIndex, drives: Vec<Drive>) -> Vec<Vec<Seat>> {
    let mut drives = drives.into_iter();
    let mut seat = |place: &Place| match place.node == this {
        true => Seat::Here(drives.next().expect("every drive of this node was examined")),
        false => Seat::There(place.node),
    };
    topology.sets().map(|set| set.iter().map(&mut seat).collect()).collect()
}

/// Serves until it is told to stop.
pub fn serve(config: ServerConfig) -> Result<(), Refusal> {
    let node = node_config(&config);
    let config = Arc::new(config);
    let memory = memory::Budget::of(node.cores, node.arena_bytes);
    node::run(node, move |_| banner::announce(&config, memory)).map_err(refusal_of)
}

fn node_config(config: &ServerConfig) -> NodeConfig {
    let cores = Options::for_this_machine(0).cores;
    NodeConfig {
        sets: config.sets.clone(),
        names: names(&config.topology),
        pool_sets: config.topology.pools.iter().map(|pool| pool.sets().len()).collect(),
        cluster: config.cluster.clone(),
        parity: config.parity.clone(),
        address: config.listen,
        certificates: config.certificates.clone(),
        cores,
        arena_bytes: memory::arena_bytes(cores),
        settings: s3::Settings {
            credentials: s3::Credentials::new(&config.credentials.user, &config.credentials.secret),
            users: config.users.clone(),
            region: config.region.clone(),
            scheme: config.scheme(),
            host_id: host_id(),
            patience: s3::Patience::default(),
            domains: config.domains.clone(),
            origins: config.origins.clone(),
        },
        public_metrics: config.public_metrics,
        upload_rest: config.upload_rest,
    }
}

fn names(topology: &Topology) -> Vec<Vec<String>> {
    let of_set = |set: &[Place]| set.iter().map(|place| topology.name(place)).collect();
    topology.sets().map(of_set).collect()
}

/// Tells servers apart in answers without telling their names.
fn host_id() -> String {
    let name = std::fs::read("/proc/sys/kernel/hostname").unwrap_or_default();
    Sha256::digest(name).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn refusal_of(failure: StartFailure) -> Refusal {
    let cause = failure.to_string();
    match failure {
        StartFailure::Cores(StartError::Refused(limit)) => {
            Refusal::machine("the cores cannot start", limit.reason, limit.remedy)
        }
        StartFailure::Cores(_) => Refusal::machine(
            "the cores cannot start",
            cause,
            "give the process more memory, processors or open files, as the cause says",
        ),
        StartFailure::Formation(refusal) => {
            Refusal::machine("the drives are no deployment", cause, formation_remedy(&refusal))
        }
        StartFailure::Drive { drive, error: Error::Refused { reason, remedy, .. } } => {
            Refusal::machine(format!("{drive} cannot be formatted"), reason, remedy)
        }
        StartFailure::Drive { drive, error } => Refusal::machine(
            format!("{drive} cannot be formatted"),
            error.to_string(),
            "check the drive and its file system (dmesg tells of device errors)",
        ),
        StartFailure::Address { address, .. } => Refusal::machine(
            format!("nothing can be served on {address}"),
            cause,
            "stop what uses the port, or choose another address with --address",
        ),
        StartFailure::CoreFailed(_) => Refusal::machine(
            "the node stopped by itself",
            cause,
            "this is a defect: start it again, and report the log lines before this one",
        ),
        StartFailure::Signals(_) => Refusal::machine(
            "the node cannot start",
            cause,
            "check the limits of the process (ulimit -a)",
        ),
    }
}

fn formation_remedy(refusal: &FormationRefusal) -> &'static str {
    match refusal {
        FormationRefusal::NotAllBlank { .. } => {
            "make every drive available for the first start, and empty those that are to be new"
        }
        FormationRefusal::SeveralDeployments { .. } => {
            "name the drives of one deployment only, in the order that it was formed with"
        }
        FormationRefusal::OtherSetSize { .. } => {
            "name the same drives as when the deployment was formed, and choose its set size with \
             BASALT_ERASURE_SET_DRIVE_COUNT if it was chosen then"
        }
    }
}

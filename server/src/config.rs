//! What the command line and the environment decide about a server, checked, with nothing left to
//! interpret. [`Settings`] knows no drive yet; [`ServerConfig`] is what a node runs with.

mod addresses;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cli::{Global, Server};
use crate::cluster::Cluster;
use crate::credentials::{self, Credentials};
use crate::environment::Environment;
use crate::node::Seat;
use crate::node::upkeep::UploadRest;
use crate::object::ClassParity;
use crate::refusal::Refusal;
use crate::s3::{Domains, Origins};
use crate::tls::Certificates;
use crate::topology::node_address::Scheme;
use crate::topology::storage_class::StorageClasses;
use crate::topology::this_node::Surroundings;
use crate::topology::{self, Place, Topology, capacity};
use crate::users::{self, User};
use addresses::Addresses;

/// Decided from text alone.
#[derive(Clone, Debug)]
pub struct Settings {
    pub topology: Topology,
    /// Parity of the storage classes on each set, in the topology's order.
    pub parity: Vec<ClassParity>,
    pub listen: SocketAddr,
    /// `None`: peers connect where clients do.
    pub peer_address: Option<SocketAddr>,
    pub surroundings: Surroundings,
    pub certificates: Option<Certificates>,
    /// Asked for, though nothing listens there in this release.
    pub console: Option<SocketAddr>,
    /// `None`: a client may sign for any region.
    pub region: Option<String>,
    /// `None`: the first start makes some. Given where there are several nodes.
    pub credentials: Option<Credentials>,
    /// Those beside root.
    pub users: Vec<User>,
    pub allow_buffered: bool,
    /// Metrics may be read by anybody.
    pub public_metrics: bool,
    pub upload_rest: UploadRest,
    pub domains: Domains,
    pub origins: Origins,
    pub output: Output,
    /// What the operator should know, and can serve with.
    pub warnings: Vec<String>,
}

/// What is printed, and how.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Output {
    pub json: bool,
    pub quiet: bool,
    pub anonymous: bool,
}

/// Everything that a node needs to start.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    pub topology: Topology,
    /// By set, then by position: the topology's order.
    pub sets: Vec<Vec<Seat>>,
    /// `None`: this node has no peers.
    pub cluster: Option<Cluster>,
    /// By set.
    pub parity: Vec<ClassParity>,
    pub credentials: Credentials,
    pub users: Vec<User>,
    pub listen: SocketAddr,
    pub certificates: Option<Certificates>,
    pub region: Option<String>,
    pub public_metrics: bool,
    pub upload_rest: UploadRest,
    pub domains: Domains,
    pub origins: Origins,
    pub output: Output,
}

impl ServerConfig {
    /// How clients speak to this server.
    pub fn scheme(&self) -> &'static str {
        if self.certificates.is_some() { "https" } else { "http" }
    }

    /// At the parity of STANDARD. Drives of other nodes count as if they were as large as the smallest
    /// of their set that is here, or the smallest here.
    pub fn capacity(&self) -> capacity::Capacity {
        let smallest = self.sets.iter().flatten().filter_map(usable_bytes).min().unwrap_or(0);
        self.sets
            .iter()
            .zip(&self.parity)
            .map(|(seats, parity)| {
                let mut bytes: Vec<u64> = seats.iter().filter_map(usable_bytes).collect();
                let assumed = bytes.iter().copied().min().unwrap_or(smallest);
                let there = seats.iter().filter(|seat| matches!(seat, Seat::There(_)));
                bytes.extend(there.map(|_| assumed));
                capacity::of_set(&bytes, seats.len(), parity.standard)
            })
            .sum()
    }
}

/// What a drive that is here and usable can hold.
fn usable_bytes(seat: &Seat) -> Option<u64> {
    match seat {
        Seat::Here(drive) => drive.is_usable().then_some(drive.space_bytes),
        Seat::There(_) => None,
    }
}

impl Settings {
    pub fn decide(
        server: &Server,
        global: &Global,
        environment: &Environment,
        working_directory: &Path,
    ) -> Result<Self, Refusal> {
        let mut warnings = Vec::new();
        let arguments = arguments(server, environment, &mut warnings);
        let set_drives = topology::wanted_set_drives(environment.get("ERASURE_SET_DRIVE_COUNT"))?;
        let Addresses { listen, console, peers } = Addresses::decide(server, environment)?;
        let topology = Topology::parse(&arguments, set_drives, working_directory, listen.port())?;
        let parity = parity(&topology, environment, &mut warnings)?;
        if console.is_some() {
            warnings.push("this release has no console; --console-address has no effect".into());
        }
        let certificates = certificates(global.certs_dir.as_deref(), environment.home())?;
        check_scheme(&topology, certificates.as_ref())?;
        if peers.is_some() && topology.nodes.len() < 2 {
            warnings.push("there are no other nodes; --peer-address has no effect".into());
        }
        let found = credentials::from_environment(environment, Path::new("/run/secrets"))?;
        if topology.nodes.len() > 1 && found.credentials.is_none() {
            return Err(no_credentials());
        }
        warnings.extend(found.warnings);
        warn_without_effect(server, environment, &mut warnings);
        Ok(Self {
            topology,
            parity,
            listen,
            peer_address: peers,
            surroundings: Surroundings::of(environment.is_kubernetes()),
            certificates,
            console,
            region: environment
                .first_of(&["SITE_REGION", "REGION"])
                .map(|region| region.value.to_owned()),
            users: other_users(environment, found.credentials.as_ref())?,
            credentials: found.credentials,
            allow_buffered: allow_buffered(server, environment)?,
            public_metrics: public_metrics(environment)?,
            upload_rest: upload_rest(environment)?,
            domains: domains(environment)?,
            origins: environment
                .get("API_CORS_ALLOW_ORIGIN")
                .map_or_else(Origins::default, |variable| Origins::parse(variable.value)),
            output: Output { json: global.json, quiet: global.quiet, anonymous: global.anonymous },
            warnings,
        })
    }
}

/// The drives: from the environment where it names any, otherwise from the command line.
fn arguments(
    server: &Server,
    environment: &Environment,
    warnings: &mut Vec<String>,
) -> Vec<String> {
    let Some(variable) = environment.first_of(&["ARGS", "VOLUMES", "ENDPOINTS"]) else {
        return server.drives.clone();
    };
    let words: Vec<String> = variable.value.split_whitespace().map(str::to_owned).collect();
    if !server.drives.is_empty() && server.drives != words {
        warnings.push(format!(
            "{} is set and wins over the directories on the command line",
            variable.name
        ));
    }
    words
}

fn parity(
    topology: &Topology,
    environment: &Environment,
    warnings: &mut Vec<String>,
) -> Result<Vec<ClassParity>, Refusal> {
    let classes = StorageClasses::parse(
        environment.get("STORAGE_CLASS_STANDARD"),
        environment.get("STORAGE_CLASS_RRS"),
    )?;
    let parity: Vec<ClassParity> =
        topology.sets().map(|set| classes.on_set(set.len())).collect::<Result<_, _>>()?;
    let unprotected = |(set, parity): (&[Place], &ClassParity)| {
        set.len() > 1 && (parity.standard == 0 || parity.reduced_redundancy == 0)
    };
    if topology.sets().zip(&parity).any(unprotected) {
        warnings.push(
            "a storage class has parity 0: its objects are lost with the first drive that is"
                .into(),
        );
    }
    warnings.extend(crowded_node(topology, &parity));
    Ok(parity)
}

/// A node that has more drives of a set than the set can do without.
fn crowded_node(topology: &Topology, parity: &[ClassParity]) -> Option<String> {
    if topology.nodes.len() < 2 {
        return None;
    }
    topology.sets().zip(parity).enumerate().find_map(|(set, (places, parity))| {
        let of = |node| places.iter().filter(|place| place.node == node).count();
        let parity = usize::from(parity.standard);
        let node = places.iter().map(|place| place.node).find(|node| of(*node) > parity)?;
        Some(format!(
            "{} has {} drives of set {set}, and objects do without {parity} at most: while it is down \
             they cannot be read",
            topology.nodes[usize::from(node.0)],
            of(node)
        ))
    })
}

/// Clients and nodes speak to a node in the same way, so URLs and certificates say the same.
fn check_scheme(topology: &Topology, certificates: Option<&Certificates>) -> Result<(), Refusal> {
    let Some(node) = topology.nodes.first() else { return Ok(()) };
    match (node.scheme, certificates) {
        (Scheme::Http, None) | (Scheme::Https, Some(_)) => Ok(()),
        (Scheme::Https, None) => Err(Refusal::usage(
            "https is in the URLs, and this node cannot serve it",
            "there is no certificate on this machine",
            "put public.crt and private.key into a directory and name it with --certs-dir, or write \
             http",
        )),
        (Scheme::Http, Some(_)) => Err(Refusal::usage(
            "http is in the URLs, and this node serves https",
            "there is a certificate on this machine",
            "write https in every URL, or name a directory without certificates with --certs-dir",
        )),
    }
}

fn no_credentials() -> Refusal {
    Refusal::usage(
        "several nodes need to be given the root user",
        "they know each other by its secret, and what one of them made the others would not know",
        "set BASALT_ROOT_USER and BASALT_ROOT_PASSWORD, the same on every node",
    )
}

fn other_users(
    environment: &Environment,
    root: Option<&Credentials>,
) -> Result<Vec<User>, Refusal> {
    let users = users::from_environment(environment)?;
    match root.filter(|root| users.iter().any(|user| user.name == root.user)) {
        None => Ok(users),
        Some(root) => Err(Refusal::usage(
            format!("the user {} is also the root user", root.user),
            "an access key belongs to one of them",
            "give the user another name in the file of users",
        )),
    }
}

/// Those of the directory that is named, or else of MinIO's default one, if there are any.
fn certificates(
    given: Option<&Path>,
    home: Option<&PathBuf>,
) -> Result<Option<Certificates>, Refusal> {
    let default = || home.map(|home| home.join(".minio/certs"));
    if let Some(directory) = given.filter(|directory| !directory.is_dir()) {
        return Err(Refusal::usage(
            format!("there are no certificates in {}", directory.display()),
            "it is not a directory",
            "name the directory that holds public.crt and private.key, or leave --certs-dir out",
        ));
    }
    let directory = given.map(Path::to_path_buf).or_else(default);
    let Some(found) = directory.as_deref().and_then(Certificates::find) else {
        return Ok(None);
    };
    // Whoever put certificates there expects TLS: HTTP in its place would send data in the open.
    found.load().map(|_| Some(found)).map_err(|error| {
        Refusal::usage(
            format!("{} cannot be used", error.file.display()),
            error.cause,
            "put a certificate with its chain into public.crt and its key into private.key, both in \
             PEM, readable by this user; or name a directory without them with --certs-dir",
        )
    })
}

fn allow_buffered(server: &Server, environment: &Environment) -> Result<bool, Refusal> {
    let Some(variable) = environment.get("ALLOW_BUFFERED") else {
        return Ok(server.allow_buffered);
    };
    match variable.value {
        "on" | "true" | "1" => Ok(true),
        "off" | "false" | "0" => Ok(server.allow_buffered),
        value => Err(Refusal::usage(
            format!("{}={value} cannot be understood", variable.name),
            "it is neither on nor off",
            "set it to on or off",
        )),
    }
}

fn public_metrics(environment: &Environment) -> Result<bool, Refusal> {
    let Some(variable) = environment.get("PROMETHEUS_AUTH_TYPE") else { return Ok(false) };
    match variable.value {
        "public" => Ok(true),
        "jwt" => Ok(false),
        value => Err(Refusal::usage(
            format!("{}={value} cannot be understood", variable.name),
            "it is neither public nor jwt",
            "set it to public to let anybody read metrics, or leave it unset",
        )),
    }
}

fn domains(environment: &Environment) -> Result<Domains, Refusal> {
    let Some(variable) = environment.get("DOMAIN") else { return Ok(Domains::default()) };
    Domains::parse(variable.value).ok_or_else(|| {
        Refusal::usage(
            format!("{}={} cannot be understood", variable.name, variable.value),
            "it holds something that is no name of a domain",
            "write names separated by commas, without scheme or port: s3.example.com",
        )
    })
}

fn upload_rest(environment: &Environment) -> Result<UploadRest, Refusal> {
    let given = |name: &str, default: Duration| match environment.get(name) {
        None => Ok(default),
        Some(variable) => parse_duration(variable.value).ok_or_else(|| {
            Refusal::usage(
                format!("{}={} cannot be understood", variable.name, variable.value),
                "it is no duration of a second or more",
                "write numbers with units h, m and s: 24h, or 1h30m",
            )
        }),
    };
    let default = UploadRest::default();
    Ok(UploadRest {
        age: given("API_STALE_UPLOADS_EXPIRY", default.age)?,
        interval: given("API_STALE_UPLOADS_CLEANUP_INTERVAL", default.interval)?,
    })
}

/// Whole numbers, each with its unit: `1h30m`. At least a second, at most a hundred years.
fn parse_duration(text: &str) -> Option<Duration> {
    let mut seconds = 0u64;
    let mut rest = text.trim();
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = rest.split_at(digits);
        let scale = match unit.chars().next()? {
            'd' => 24 * 3600,
            'h' => 3600,
            'm' => 60,
            's' => 1,
            _ => return None,
        };
        seconds = seconds.checked_add(number.parse::<u64>().ok()?.checked_mul(scale)?)?;
        rest = &unit[1..];
    }
    (1..=100 * 365 * 24 * 3600).contains(&seconds).then(|| Duration::from_secs(seconds))
}

fn warn_without_effect(server: &Server, environment: &Environment, warnings: &mut Vec<String>) {
    let flags: Vec<String> = server.without_effect.iter().map(|flag| format!("--{flag}")).collect();
    if !flags.is_empty() {
        warnings.push(format!("without effect in this release: {}", flags.join(", ")));
    }
    let variables = environment.without_effect();
    if !variables.is_empty() {
        warnings.push(format!(
            "set in the environment, but without effect in this release: {}",
            variables.join(", ")
        ));
    }
}

#[cfg(test)]
mod tests;

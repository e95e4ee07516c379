//! What the command line and the environment decide about a server, checked, with nothing left to
//! interpret. [`Settings`] knows no drive yet; [`ServerConfig`] is what a node runs with.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cli::{Global, Server};
use crate::credentials::{self, Credentials};
use crate::environment::Environment;
use crate::node::drives::Drive;
use crate::node::upkeep::UploadRest;
use crate::object::ClassParity;
use crate::refusal::Refusal;
use crate::s3::{Domains, Origins};
use crate::tls::Certificates;
use crate::topology::storage_class::StorageClasses;
use crate::topology::{self, Topology, capacity};
use crate::users::{self, User};

const DEFAULT_ADDRESS: &str = ":9000";

/// Decided from text alone.
#[derive(Clone, Debug)]
pub struct Settings {
    pub topology: Topology,
    /// Parity of the storage classes on each set, in the topology's order.
    pub parity: Vec<ClassParity>,
    pub listen: SocketAddr,
    pub certificates: Option<Certificates>,
    /// Asked for, though nothing listens there in this release.
    pub console: Option<SocketAddr>,
    /// `None`: a client may sign for any region.
    pub region: Option<String>,
    /// `None`: the first start makes some.
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
    pub drives: Vec<Drive>,
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
    /// The drives of each set, in the order that numbers sets.
    pub fn sets(&self) -> impl Iterator<Item = &[Drive]> {
        let mut rest = &self.drives[..];
        self.topology.sets().map(move |set| {
            let (drives, after) = rest.split_at(set.len());
            rest = after;
            drives
        })
    }

    /// How clients speak to this server.
    pub fn scheme(&self) -> &'static str {
        if self.certificates.is_some() { "https" } else { "http" }
    }

    /// Of the drives that are here, at the parity of STANDARD.
    pub fn capacity(&self) -> capacity::Capacity {
        self.sets()
            .zip(&self.parity)
            .map(|(drives, parity)| {
                let here = drives.iter().filter(|drive| drive.is_usable());
                let bytes: Vec<u64> = here.map(|drive| drive.space_bytes).collect();
                capacity::of_set(&bytes, drives.len(), parity.standard)
            })
            .sum()
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
        let topology = Topology::parse(&arguments, set_drives, working_directory)?;
        let parity = parity(&topology, environment, &mut warnings)?;
        let (listen, console) = addresses(server, environment)?;
        if console.is_some() {
            warnings.push("this release has no console; --console-address has no effect".into());
        }
        let certificates = certificates(global.certs_dir.as_deref(), environment.home())?;
        let found = credentials::from_environment(environment, Path::new("/run/secrets"))?;
        warnings.extend(found.warnings);
        warn_without_effect(server, environment, &mut warnings);
        Ok(Self {
            topology,
            parity,
            listen,
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
    let unprotected = |(set, parity): (&[PathBuf], &ClassParity)| {
        set.len() > 1 && (parity.standard == 0 || parity.reduced_redundancy == 0)
    };
    if topology.sets().zip(&parity).any(unprotected) {
        warnings.push(
            "a storage class has parity 0: its objects are lost with the first drive that is"
                .into(),
        );
    }
    Ok(parity)
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

fn addresses(
    server: &Server,
    environment: &Environment,
) -> Result<(SocketAddr, Option<SocketAddr>), Refusal> {
    let variable = environment.get("ADDRESS");
    let address = server.address.as_deref().or(variable.as_ref().map(|address| address.value));
    let listen = resolve(address.unwrap_or(DEFAULT_ADDRESS))?;
    let variable = environment.get("CONSOLE_ADDRESS");
    let console = server.console_address.as_deref().or(variable.as_ref().map(|a| a.value));
    let console = console.map(resolve).transpose()?;
    if console.is_some_and(|console| console == listen) {
        return Err(Refusal::usage(
            format!("{listen} cannot serve both clients and the console"),
            "--address and --console-address are the same",
            "give the console a port of its own: --console-address :9001",
        ));
    }
    Ok((listen, console))
}

/// `HOST:PORT`, `:PORT`, `[IPV6]:PORT`. No host stands for every address of the machine.
fn resolve(text: &str) -> Result<SocketAddr, Refusal> {
    let refused = |cause: String| {
        let remedy = "write HOST:PORT, or :PORT for every address of this machine: --address :9000";
        Refusal::usage(format!("`{text}` is not an address to listen on"), cause, remedy)
    };
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err(refused("it has no port".into()));
    };
    let port: u16 =
        port.parse().map_err(|_| refused(format!("`{port}` is not a port, 1 to 65535")))?;
    if port == 0 {
        return Err(refused("port 0 is a different port on every core".into()));
    }
    if host.is_empty() {
        return Ok(every_address(port));
    }
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    if bare.is_none() && host.contains(':') {
        return Err(refused("an IPv6 address stands in brackets: [::1]:9000".into()));
    }
    let mut found = (bare.unwrap_or(host), port)
        .to_socket_addrs()
        .map_err(|error| refused(format!("its host cannot be resolved: {error}")))?;
    found.next().ok_or_else(|| refused("its host has no address".into()))
}

/// The unspecified address, for both families where the machine has IPv6.
fn every_address(port: u16) -> SocketAddr {
    if Path::new("/proc/net/if_inet6").exists() {
        (Ipv6Addr::UNSPECIFIED, port).into()
    } else {
        (Ipv4Addr::UNSPECIFIED, port).into()
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

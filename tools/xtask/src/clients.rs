//! `cargo xtask clients`: programs that others wrote, each doing a little of its daily work against
//! the server, every byte compared. A client that fails is the server's fault until shown otherwise.
//! At the end the server's drives are inspected.
//!
//! The clients are installed under `target/clients`, at pinned versions. Each runs against servers
//! of several layouts, over HTTP and over HTTPS with an authority made for the run.

mod aws;
mod catalogue;
mod inspect;
mod install;
mod job;
mod mc;
mod rclone;
mod report;
mod restic;
mod s3cmd;
mod s5cmd;
mod tree;

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use crate::s3::{self, Credentials, Trust};
use crate::server::{self, Launch, Layout};
use crate::verdict::Verdict;
use crate::{command, proc, random};
use catalogue::{Client, Work};
use install::Installed;
use job::Job;
use report::{Checks, Table};

const READY_LIMIT: Duration = Duration::from_secs(30);
const REQUEST_LIMIT: Duration = Duration::from_secs(30);

#[derive(Args)]
pub(crate) struct Options {
    /// Only clients that are installed fast, and smaller objects; for every change
    #[arg(long)]
    short: bool,
    /// Only this client (may be repeated); an unknown name lists them all
    #[arg(long, value_name = "CLIENT")]
    only: Vec<String>,
    /// A running server, `http://127.0.0.1:9000`, instead of one started for the purpose
    #[arg(long, requires = "access_key", requires = "secret_key")]
    endpoint: Option<String>,
    #[arg(long, env = "AWS_ACCESS_KEY_ID")]
    access_key: Option<String>,
    #[arg(long, env = "AWS_SECRET_ACCESS_KEY", hide_env_values = true)]
    secret_key: Option<String>,
    /// Another server program of the same command line, instead of this repository's
    #[arg(long, value_name = "PROGRAM", conflicts_with = "endpoint")]
    server: Option<PathBuf>,
    /// Only 4 directories (2+2) or only 16 (12+4)
    #[arg(long, value_name = "4|16", conflicts_with = "endpoint")]
    drives: Option<Layout>,
    /// Only HTTP or only HTTPS
    #[arg(long, conflicts_with = "endpoint")]
    scheme: Option<Scheme>,
    /// Put the table into docs/clients.md
    #[arg(long, conflicts_with_all = ["short", "only", "endpoint", "server", "drives", "scheme"])]
    record: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Scheme {
    Http,
    Https,
}

impl Scheme {
    fn name(self) -> &'static str {
        match self {
            Self::Http => "HTTP",
            Self::Https => "HTTPS",
        }
    }
}

/// The server as the clients see it, and a folder for their files.
struct Site {
    endpoint: String,
    address: SocketAddr,
    credentials: Credentials,
    /// The certificate of the authority that vouches for the server, and trust in it.
    authority: Option<PathBuf>,
    trust: Option<Trust>,
    folder: PathBuf,
    short: bool,
    /// Part of every bucket's name, so that runs against one server do not meet.
    tag: String,
}

impl Site {
    fn of(launch: &Launch, folder: &Path, short: bool) -> Self {
        let authority = launch.authority.as_ref();
        Self {
            endpoint: launch.endpoint(),
            address: launch.address,
            credentials: launch.credentials.clone(),
            authority: authority.map(|authority| authority.certificate.clone()),
            trust: authority.map(|authority| authority.trust.clone()),
            folder: folder.to_owned(),
            short,
            tag: tag(),
        }
    }

    /// This tool's own client, for what a client under test cannot do.
    fn client(&self) -> s3::Client {
        let client = s3::Client::new(self.address, &self.credentials, REQUEST_LIMIT);
        match &self.trust {
            Some(trust) => client.trusting(trust.clone()),
            None => client,
        }
    }
}

fn tag() -> String {
    format!("{:08x}", random::fresh_seed() as u32)
}

/// A client, and what its installation came to.
struct Subject {
    client: &'static Client,
    installed: Result<Installed>,
}

impl Subject {
    fn prepare(client: &'static Client) -> Self {
        let installed = client.origin.install();
        match &installed {
            Ok(Installed::Ready(_)) => {}
            Ok(Installed::Absent(reason)) => println!("SKIPPED: {}: {reason}", client.name),
            Err(error) => println!("FAIL {} is installed: {error:#}", client.name),
        }
        Self { client, installed }
    }
}

pub(crate) fn run(options: &Options) -> Result<Verdict> {
    let clients = catalogue::chosen(&options.only, options.short)?;
    let subjects: Vec<Subject> = clients.into_iter().map(Subject::prepare).collect();
    let mut table = Table::default();
    let verdict = match &options.endpoint {
        Some(endpoint) => against_running(&subjects, endpoint, options, &mut table)?,
        None => against_own(&subjects, options, &mut table)?,
    };
    println!("\n{}", table.text());
    if options.record {
        table.record(&proc::machine())?;
    }
    println!("{verdict}");
    Ok(verdict)
}

fn against_running(
    subjects: &[Subject],
    endpoint: &str,
    options: &Options,
    table: &mut Table,
) -> Result<Verdict> {
    let endpoint = endpoint.trim_end_matches('/');
    let folder = scratch()?;
    let site = Site {
        endpoint: endpoint.to_owned(),
        address: resolve(endpoint)?,
        credentials: Credentials {
            access: options.access_key.clone().context("an access key is needed")?,
            secret: options.secret_key.clone().context("a secret key is needed")?,
        },
        authority: None,
        trust: None,
        folder: folder.path().to_owned(),
        short: options.short,
        tag: tag(),
    };
    table.column(endpoint);
    Ok(run_all(subjects, &site, table))
}

fn resolve(endpoint: &str) -> Result<SocketAddr> {
    let host = endpoint.strip_prefix("http://").context("the endpoint begins with http://")?;
    host.to_socket_addrs()?.next().with_context(|| format!("{host} has no address"))
}

fn scratch() -> Result<tempfile::TempDir> {
    tempfile::Builder::new()
        .prefix("clients-")
        .tempdir_in(command::target())
        .context("a scratch folder")
}

fn against_own(subjects: &[Subject], options: &Options, table: &mut Table) -> Result<Verdict> {
    let program = server::program(options.server.as_deref())?;
    let mut verdict = Verdict::default();
    for (layout, scheme) in servers(options) {
        let name = format!("{layout} {}", scheme.name());
        println!("\n== {name} ({} directories)", layout.drives);
        table.column(&name);
        let folder = scratch()?;
        let mut launch = Launch::new(&program, &folder.path().join("data"), layout)?;
        if scheme == Scheme::Https {
            launch = launch.secured()?;
        }
        let mut server = launch.start()?;
        server.await_ready(READY_LIMIT)?;
        verdict += run_all(subjects, &Site::of(&launch, folder.path(), options.short), table);
        let alive = server.ensure_alive().map(|()| String::new());
        verdict.check(&format!("{name} server is still up"), alive);
        if options.server.is_none() {
            inspect::run(&launch, server, &mut verdict);
        }
    }
    Ok(verdict)
}

/// Both layouts with both schemes; the short form has HTTPS on four directories alone.
fn servers(options: &Options) -> Vec<(Layout, Scheme)> {
    let mut servers = Vec::new();
    for layout in Layout::chosen(options.drives) {
        for scheme in [Scheme::Http, Scheme::Https] {
            let asked = options.scheme.is_none_or(|asked| asked == scheme);
            let spared = options.short
                && options.scheme.is_none()
                && (layout, scheme) == (Layout::SIXTEEN, Scheme::Https);
            if asked && !spared {
                servers.push((layout, scheme));
            }
        }
    }
    servers
}

fn run_all(subjects: &[Subject], site: &Site, table: &mut Table) -> Verdict {
    let mut verdict = Verdict::default();
    for Subject { client, installed } in subjects {
        let program = match installed {
            Ok(Installed::Absent(reason)) => {
                table.skipped(client.name, reason);
                continue;
            }
            Ok(Installed::Ready(program)) => Ok(program),
            Err(error) => Err(error),
        };
        let started = Instant::now();
        let mut checks = Checks::new(client.name);
        match program {
            Ok(program) => match Job::new(site, program, client.name) {
                Ok(job) => work(&job, client.work, &mut checks),
                Err(error) => checks.check("it is prepared", Err(error)),
            },
            Err(error) => checks.check("it is installed", Err(anyhow::anyhow!("{error:#}"))),
        }
        let version = program.map_or("", |program| &program.version);
        table.ran(version, &checks, started.elapsed());
        verdict += checks.verdict;
    }
    verdict
}

fn work(job: &Job<'_>, work: Work, checks: &mut Checks) {
    match work {
        Work::Commands(run) => run(job, checks),
        Work::Library => job.run_library(checks),
    }
}

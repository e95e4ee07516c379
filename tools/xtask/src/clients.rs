//! `cargo xtask clients`: programs that others wrote, each doing a little of its daily work against
//! the server, every byte compared. A client that fails is the server's fault until shown otherwise.
//! At the end the server's drives are inspected.
//!
//! The clients are installed under `target/clients`, at pinned versions.

mod aws;
mod boto;
mod inspect;
mod install;
mod mc;
mod tree;

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;

use crate::command;
use crate::s3::Credentials;
use crate::server::{self, Launch, Layout};
use crate::verdict::Verdict;
use install::Programs;

#[derive(Args)]
pub(crate) struct Options {
    /// Smaller objects; for every change
    #[arg(long)]
    short: bool,
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
}

/// The server as the clients see it, and a folder for their files.
struct Site {
    endpoint: String,
    credentials: Credentials,
    folder: PathBuf,
    short: bool,
    /// Part of every bucket's name, so that runs against one server do not meet.
    tag: String,
}

impl Site {
    fn bucket(&self, client: &str) -> String {
        format!("{client}-{}", self.tag)
    }

    /// What the user of this machine has configured must not reach a client: not their home, not
    /// their AWS settings, not a proxy for loopback addresses.
    fn equip(&self, command: &mut Command, folder: &Path) {
        for (name, _) in std::env::vars_os() {
            let shown = name.to_string_lossy().to_ascii_lowercase();
            if shown.starts_with("aws_") || shown.starts_with("mc_") || shown.ends_with("_proxy") {
                command.env_remove(name);
            }
        }
        command
            .current_dir(folder)
            .env("HOME", folder)
            .env("AWS_CONFIG_FILE", folder.join("config"))
            .env("AWS_ACCESS_KEY_ID", &self.credentials.access)
            .env("AWS_SECRET_ACCESS_KEY", &self.credentials.secret)
            .env("AWS_DEFAULT_REGION", "us-east-1");
    }
}

pub(crate) fn run(options: &Options) -> Result<Verdict> {
    let programs = Programs::install()?;
    let mut verdict = Verdict::default();
    if let Some(endpoint) = &options.endpoint {
        let access = options.access_key.clone().context("an access key is needed")?;
        let secret = options.secret_key.clone().context("a secret key is needed")?;
        let endpoint = endpoint.trim_end_matches('/');
        resolve(endpoint)?;
        let folder = scratch()?;
        let credentials = Credentials { access, secret };
        verdict += run_all(&programs, endpoint, credentials, folder.path(), options.short);
    } else {
        let program = server::program(options.server.as_deref())?;
        for layout in Layout::chosen(options.drives) {
            verdict += against_own(&programs, &program, layout, options)?;
        }
    }
    println!("{verdict}");
    Ok(verdict)
}

fn scratch() -> Result<tempfile::TempDir> {
    tempfile::Builder::new()
        .prefix("clients-")
        .tempdir_in(command::target())
        .context("a scratch folder")
}

fn resolve(endpoint: &str) -> Result<SocketAddr> {
    let host = endpoint.strip_prefix("http://").context("the endpoint begins with http://")?;
    host.to_socket_addrs()?.next().with_context(|| format!("{host} has no address"))
}

fn against_own(
    programs: &Programs,
    program: &Path,
    layout: Layout,
    options: &Options,
) -> Result<Verdict> {
    println!("== {layout} ({} directories)", layout.drives);
    let folder = scratch()?;
    let launch = Launch::new(program, &folder.path().join("data"), layout)?;
    let mut server = launch.start()?;
    server.await_ready(Duration::from_secs(30))?;
    let endpoint = format!("http://{}", launch.address);
    let mut verdict =
        run_all(programs, &endpoint, launch.credentials.clone(), folder.path(), options.short);
    let alive = server.ensure_alive().map(|()| String::new());
    verdict.check(&format!("{layout} server is still up"), alive);
    if options.server.is_none() {
        inspect::run(&launch, server, &mut verdict);
    }
    Ok(verdict)
}

fn run_all(
    programs: &Programs,
    endpoint: &str,
    credentials: Credentials,
    folder: &Path,
    short: bool,
) -> Verdict {
    let tag = format!("{:08x}", crate::random::fresh_seed() as u32);
    let site =
        Site { endpoint: endpoint.to_owned(), credentials, folder: folder.to_owned(), short, tag };
    let mut verdict = Verdict::default();
    aws::run(&site, programs, &mut verdict);
    boto::run(&site, programs, &mut verdict);
    match &programs.mc {
        Some(program) => mc::run(&site, program, &mut verdict),
        None => println!("SKIPPED: mc: it is installed by Go, and there is no `go` on PATH"),
    }
    verdict
}

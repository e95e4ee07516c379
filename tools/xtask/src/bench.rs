//! `cargo xtask bench`: what the server does a second, what CPU that costs it, and what the same
//! volume does without it, in one run.
//!
//! Each round runs every kind of work on every layout; odd rounds in the opposite order, so that
//! drift of the machine favours none. Reported are medians over the rounds. CPU is the server's
//! own, user and system, over all its threads; the client's is shown beside it.

mod cluster;
mod history;
mod load;
mod memory;
mod profile;
mod raw;
mod work;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::command;
use crate::s3::Credentials;
use crate::server::{self, Launch, Layout, Server};
use crate::verdict::Verdict;
use history::{Figures, Row};
use work::{Target, Work};

#[derive(Args)]
pub(crate) struct Options {
    /// Fewer keys, shorter rounds: to see that it works, not for figures to keep
    #[arg(long)]
    short: bool,
    /// Append the figures to benches/history.ndjson and write docs/performance.md from it
    #[arg(long, conflicts_with_all = ["short", "server"])]
    record: bool,
    /// Only 4 directories (2+2) or only 16 (12+4)
    #[arg(long, value_name = "4|16")]
    drives: Option<Layout>,
    /// Another server program of the same command line, or the address of a running server
    #[arg(long, value_name = "PROGRAM|URL")]
    server: Option<String>,
    /// The process of a server given by address, for its CPU
    #[arg(long)]
    pid: Option<u32>,
    #[arg(long, env = "AWS_ACCESS_KEY_ID")]
    access_key: Option<String>,
    #[arg(long, env = "AWS_SECRET_ACCESS_KEY", hide_env_values = true)]
    secret_key: Option<String>,
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Connections, but for listing and the one stream; the history is of the default
    #[arg(long, default_value_t = work::CONNECTIONS, conflicts_with = "record")]
    connections: usize,
    /// Length of each measurement [default: 8, short: 2]
    #[arg(long)]
    seconds: Option<u64>,
    /// Keys in the bucket that is listed [default: 100000, short: 5000]
    #[arg(long)]
    keys: Option<u64>,
    /// Only these kinds of work
    #[arg(long, value_enum, value_delimiter = ',')]
    work: Vec<Work>,
    /// Where the drives' directories are made [default: a folder under target]
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Instead, all kinds of work for so many minutes, and whether the server's memory grows
    #[arg(long, value_name = "MINUTES", conflicts_with_all = ["record", "work", "profile"])]
    memory: Option<u64>,
    /// Instead, four nodes with four drives each next to one with sixteen: whole, with a node dead, and
    /// with a node that hardly runs
    #[arg(long, conflicts_with_all = ["record", "memory", "profile", "server", "drives"])]
    nodes: bool,
    /// Run `perf record` on the server during each kind of work and print where its time goes
    #[arg(long)]
    profile: bool,
}

/// A server under measurement and the name under which its figures stand.
struct Subject {
    layout: Option<Layout>,
    target: Target,
    /// Ends with the subject.
    server: Option<Server>,
}

pub(crate) fn run(options: &Options) -> Result<Verdict> {
    let folder = match &options.folder {
        Some(folder) => tempfile::Builder::new().prefix("bench-").tempdir_in(folder),
        None => tempfile::Builder::new().prefix("bench-").tempdir_in(command::target()),
    };
    let folder = folder.context("a folder for the drives")?;
    if options.nodes {
        return cluster::run(options, folder.path());
    }
    let mut subjects = start(options, folder.path())?;
    if let Some(minutes) = options.memory {
        return watch_memory(&subjects, minutes);
    }
    let mut kinds = if options.work.is_empty() { Work::ALL.to_vec() } else { options.work.clone() };
    let seconds = options.seconds.unwrap_or(if options.short { 2 } else { 8 });
    let plan = work::Plan {
        window: Duration::from_secs(seconds),
        listed_keys: options.keys.unwrap_or(if options.short { 5_000 } else { 100_000 }),
        profile: options.profile,
        connections: options.connections,
    };
    let mut figures = Figures::default();
    for round in 0..options.rounds {
        println!("round {} of {}", round + 1, options.rounds);
        raw::measure(folder.path(), &mut figures)?;
        for kind in &kinds {
            for subject in &mut subjects {
                let rows = kind.run(&mut subject.target, &plan, round)?;
                for row in rows {
                    figures.add(subject.layout.map(|layout| layout.drives), row);
                }
            }
        }
        kinds.reverse();
        subjects.reverse();
    }
    println!("\n{}", figures.table());
    drop(subjects);
    if options.record {
        history::record(&figures)?;
    }
    Ok(Verdict { passed: figures.len(), failed: 0 })
}

fn watch_memory(subjects: &[Subject], minutes: u64) -> Result<Verdict> {
    let mut verdict = Verdict::default();
    for subject in subjects {
        let name = subject.layout.map_or("memory".to_owned(), |layout| format!("memory, {layout}"));
        let watched =
            budget(subject).and_then(|budget| memory::run(&subject.target, minutes, budget));
        verdict.check(&name, watched.map(|()| String::new()));
    }
    Ok(verdict)
}

/// What the server said it would take; one that was started elsewhere said it elsewhere.
fn budget(subject: &Subject) -> Result<Option<u64>> {
    let Some(server) = &subject.server else { return Ok(None) };
    let budget = server.memory_budget();
    budget.map(Some).context("the server's start-up text has no line that tells of its memory")
}

fn start(options: &Options, folder: &std::path::Path) -> Result<Vec<Subject>> {
    if let Some(url) = options.server.as_deref().filter(|server| server.starts_with("http")) {
        let host = url.strip_prefix("http://").context("the address begins with http://")?;
        let access = options.access_key.clone().context("--access-key is needed")?;
        let secret = options.secret_key.clone().context("--secret-key is needed")?;
        let address = host.trim_end_matches('/').parse().context("an address as 127.0.0.1:9000")?;
        let target = Target::new(
            address,
            Credentials { access, secret },
            options.pid.into_iter().collect(),
        )?;
        return Ok(vec![Subject { layout: options.drives, target, server: None }]);
    }
    ensure!(options.pid.is_none(), "--pid goes with the address of a running server");
    let named = options.server.as_deref().filter(|name| *name != "basalt").map(PathBuf::from);
    let program = server::program(named.as_deref())?;
    let mut subjects = Vec::new();
    for layout in Layout::chosen(options.drives) {
        let launch = Launch::new(&program, &folder.join(format!("{}", layout.drives)), layout)?;
        let mut server = launch.start()?;
        server.await_ready(Duration::from_secs(30))?;
        let target = Target::new(launch.address, launch.credentials.clone(), vec![server.pid()])?;
        subjects.push(Subject { layout: Some(layout), target, server: Some(server) });
    }
    Ok(subjects)
}

/// A row of figures with the unit in its name's table.
fn row(metric: &'static str, unit: &'static str, value: f64) -> Row {
    Row { metric, unit, value }
}

//! `cargo xtask chaos`: a server under load loses drives and is killed, a cluster loses nodes as well
//! and is cut apart, and nothing that was acknowledged may be lost, nothing that is returned may be wrong.
//!
//! The bytes of every version follow from its key and number, so a register of what was
//! acknowledged, and of what may or may not have happened, is enough to judge every answer.

mod chain;
mod content;
mod drives;
mod faults;
mod ground;
mod kill;
mod layouts;
mod load;
mod neighbours;
mod quorum;
mod register;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::command;
use crate::random;
use crate::server::{self, Layout};
use crate::verdict::Verdict;

pub(crate) use drives::sum_of;
pub(crate) use ground::Ground;

#[derive(Args)]
pub(crate) struct Options {
    /// Clusters of several nodes in place of a single server
    #[arg(long)]
    nodes: bool,
    /// 2+2 only and few cycles; for every change
    #[arg(long)]
    short: bool,
    /// How often the server is killed, for each layout [default: 100, short: 8]; of a cluster, how many
    /// faults it meets [default: 200, short: one of each kind]
    #[arg(long)]
    cycles: Option<u32>,
    /// Repeats a run's choices (not its timing)
    #[arg(long)]
    seed: Option<u64>,
    /// Only one of the phases
    #[arg(long, value_enum)]
    phase: Option<Phase>,
    /// Only 4 directories (2+2) or only 16 (12+4) [default: both, short: 4]
    #[arg(long, value_name = "4|16")]
    drives: Option<Layout>,
    /// Another server program of the same command line, instead of this repository's
    #[arg(long, value_name = "PROGRAM")]
    server: Option<PathBuf>,
    /// Keep the drives and the server's log of a run that failed
    #[arg(long)]
    keep: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum Phase {
    /// Drives are renamed away, removed and overwritten, one by one
    Drives,
    /// The server is killed with SIGKILL at random moments
    Kill,
    /// Nodes are killed, frozen and cut off, and their drives destroyed
    Faults,
    /// Eight nodes with a drive each lose nodes down to the quorums and below
    Quorum,
    /// Two clusters on one machine, and nodes that do not belong to theirs
    Neighbours,
    /// Clusters of several shapes are formed, started by halves, and drives exchanged between nodes
    Layouts,
}

impl Phase {
    fn is_of_nodes(self) -> bool {
        !matches!(self, Self::Drives | Self::Kill)
    }
}

pub(crate) fn run(options: &Options) -> Result<Verdict> {
    if options.nodes {
        // Before anything is started, and with the seed that the inner run chooses.
        if let Some(verdict) = ground::run_apart()? {
            return Ok(verdict);
        }
    }
    if let Some(phase) = options.phase {
        let fitting = if options.nodes { "without" } else { "with" };
        ensure!(phase.is_of_nodes() == options.nodes, "this phase is one {fitting} --nodes");
    }
    let seed = options.seed.unwrap_or_else(random::fresh_seed);
    let rerun = rerun_command(options, seed);
    println!("seed {seed}; to run it again: {rerun}");
    let program = server::program(options.server.as_deref())?;
    let verdict = if options.nodes {
        run_nodes(options, &program, seed)?
    } else {
        run_single(options, &program, seed)?
    };
    if verdict.failed > 0 {
        println!("to run it again: {rerun}");
    }
    println!("{verdict}");
    Ok(verdict)
}

fn run_single(options: &Options, program: &Path, seed: u64) -> Result<Verdict> {
    let cycles = options.cycles.unwrap_or(if options.short { 8 } else { 100 });
    let layouts = match options.drives {
        None if options.short => vec![Layout::FOUR],
        asked => Layout::chosen(asked),
    };
    let mut verdict = Verdict::default();
    for layout in layouts {
        println!("== {layout} ({} directories)", layout.drives);
        verdict += in_folder(options, |folder| {
            let mut verdict = Verdict::default();
            if options.phase != Some(Phase::Kill) {
                verdict += drives::run(program, folder, layout, seed);
            }
            if options.phase != Some(Phase::Drives) {
                verdict += kill::run(program, folder, layout, seed, cycles);
            }
            verdict
        })?;
    }
    Ok(verdict)
}

fn run_nodes(options: &Options, program: &Path, seed: u64) -> Result<Verdict> {
    let mut verdict = Verdict::default();
    for phase in [Phase::Quorum, Phase::Neighbours, Phase::Layouts, Phase::Faults] {
        if options.phase.is_some_and(|only| only != phase) {
            continue;
        }
        println!("== {phase:?}");
        verdict += in_folder(options, |folder| match phase {
            Phase::Quorum => quorum::run(program, folder, seed),
            Phase::Neighbours => neighbours::run(program, folder, seed),
            Phase::Layouts => layouts::run(program, folder, seed),
            _ => faults::run(program, folder, seed, options.short, options.cycles),
        })?;
    }
    Ok(verdict)
}

/// Runs in a scratch folder, which is kept after a failure if so asked.
fn in_folder(options: &Options, run: impl FnOnce(&Path) -> Verdict) -> Result<Verdict> {
    let mut folder = tempfile::Builder::new()
        .prefix("chaos-")
        .tempdir_in(command::target())
        .context("a scratch folder")?;
    folder.disable_cleanup(options.keep);
    let verdict = run(folder.path());
    if options.keep && verdict.failed == 0 {
        folder.disable_cleanup(false);
    } else if options.keep {
        println!("kept: {}", folder.path().display());
    }
    Ok(verdict)
}

fn rerun_command(options: &Options, seed: u64) -> String {
    let mut command = format!("cargo xtask chaos --seed {seed}");
    if options.nodes {
        command += " --nodes";
    }
    if options.short {
        command += " --short";
    }
    if let Some(cycles) = options.cycles {
        command += &format!(" --cycles {cycles}");
    }
    if let Some(phase) = options.phase {
        command += &format!(" --phase {phase:?}").to_lowercase();
    }
    if let Some(layout) = options.drives {
        command += &format!(" --drives {}", layout.drives);
    }
    if let Some(server) = &options.server {
        command += &format!(" --server {}", server.display());
    }
    command
}

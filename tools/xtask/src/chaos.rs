//! `cargo xtask chaos`: a server under load loses drives and is killed, and nothing that it
//! acknowledged may be lost, nothing that it returns may be wrong.
//!
//! The bytes of every version follow from its key and number, so a register of what was
//! acknowledged, and of what may or may not have happened, is enough to judge every answer.

mod content;
mod drives;
mod kill;
mod load;
mod register;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;

use crate::command;
use crate::random;
use crate::server::{self, Layout};
use crate::verdict::Verdict;

#[derive(Args)]
pub(crate) struct Options {
    /// 2+2 only and few cycles; for every change
    #[arg(long)]
    short: bool,
    /// How often the server is killed, for each layout [default: 100, short: 8]
    #[arg(long)]
    cycles: Option<u32>,
    /// Repeats a run's choices (not its timing)
    #[arg(long)]
    seed: Option<u64>,
    /// Only one of the two phases
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
}

pub(crate) fn run(options: &Options) -> Result<Verdict> {
    let seed = options.seed.unwrap_or_else(random::fresh_seed);
    let rerun = rerun_command(options, seed);
    println!("seed {seed}; to run it again: {rerun}");
    let program = server::program(options.server.as_deref())?;
    let cycles = options.cycles.unwrap_or(if options.short { 8 } else { 100 });
    let layouts = match options.drives {
        None if options.short => vec![Layout::FOUR],
        asked => Layout::chosen(asked),
    };
    let mut verdict = Verdict::default();
    for layout in layouts {
        println!("== {layout} ({} directories)", layout.drives);
        let mut folder = tempfile::Builder::new()
            .prefix("chaos-")
            .tempdir_in(command::target())
            .context("a scratch folder")?;
        folder.disable_cleanup(options.keep);
        let before = verdict.failed;
        if options.phase != Some(Phase::Kill) {
            verdict += drives::run(&program, folder.path(), layout, seed);
        }
        if options.phase != Some(Phase::Drives) {
            verdict += kill::run(&program, folder.path(), layout, seed, cycles);
        }
        if options.keep && verdict.failed == before {
            folder.disable_cleanup(false);
        } else if options.keep {
            println!("kept: {}", folder.path().display());
        }
    }
    if verdict.failed > 0 {
        println!("to run it again: {rerun}");
    }
    println!("{verdict}");
    Ok(verdict)
}

fn rerun_command(options: &Options, seed: u64) -> String {
    let mut command = format!("cargo xtask chaos --seed {seed}");
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

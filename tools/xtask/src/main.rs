//! The one tool of the project: `cargo xtask ci | clients | chaos | fuzz | bench`.
//!
//! It drives the server from outside only: command line, S3, health endpoints, log lines, signals.
//! So it depends on none of the project's crates, and judges any server of the same command line.
#![expect(clippy::print_stdout, reason = "a tool for the terminal: its output is its product")]
#![expect(
    clippy::disallowed_methods,
    reason = "the tool measures real time and runs real threads against a real process; nothing in \
              it is replayed by the simulator"
)]

mod authority;
mod bench;
mod chaos;
mod ci;
mod clients;
mod command;
mod fleet;
mod fuzz;
mod proc;
mod random;
mod s3;
mod server;
mod verdict;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The one tool of the project", version)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Run everything that has to pass: format, lints, tests, and the short forms below
    Ci(ci::Options),
    /// Run real S3 clients against a server of its own, or against a running one
    Clients(clients::Options),
    /// Lose drives and kill the server under load; nothing acknowledged may be lost
    Chaos(chaos::Options),
    /// Give the server's parsers and its evaluator of policies inputs that nobody would write
    Fuzz(fuzz::Options),
    /// Measure throughput, latency and the server's CPU beside what the volume can do
    Bench(bench::Options),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().task {
        Task::Ci(options) => ci::run(&options),
        Task::Clients(options) => clients::run(&options),
        Task::Chaos(options) => chaos::run(&options),
        Task::Fuzz(options) => fuzz::run(&options),
        Task::Bench(options) => bench::run(&options),
    };
    match outcome {
        Ok(verdict) if verdict.is_success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            println!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

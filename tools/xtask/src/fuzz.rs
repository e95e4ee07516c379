//! `cargo xtask fuzz`: the fuzz targets of the server, each for a while, with fresh seeds.
//!
//! A target is a test of the server's library that states what holds for every input. The inputs are
//! good ones spoiled by a seeded generator: no coverage steers them, so the stable toolchain is enough,
//! a failure is told by two numbers, and every test run sees the first few thousand of each target.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::command;
use crate::random;
use crate::verdict::Verdict;

/// Beside the time of the targets themselves: for building the tests.
const BUILD_LIMIT: Duration = Duration::from_secs(25 * 60);
/// The slowest target sees more than so many inputs a second.
const INPUTS_PER_SECOND_MIN: u64 = 5_000;

#[derive(Args)]
pub(crate) struct Options {
    /// How long each target runs
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// How many inputs each target sees, however long that takes [default: as many as there is time for]
    #[arg(long, conflicts_with = "seconds")]
    inputs: Option<u64>,
    /// Where the inputs begin; a failure tells its own [default: fresh]
    #[arg(long)]
    seed: Option<u64>,
    /// Only these; an unknown name lists them all [default: all]
    target: Vec<String>,
}

pub(crate) fn run(options: &Options) -> Result<Verdict> {
    let seed = options.seed.unwrap_or_else(random::fresh_seed);
    let targets = choose(targets()?, &options.target)?;
    let (name, amount, time) = match options.inputs {
        Some(inputs) => ("BASALT_FUZZ_INPUTS", inputs, inputs / INPUTS_PER_SECOND_MIN),
        None => ("BASALT_FUZZ_SECONDS", options.seconds, options.seconds),
    };
    let unit = if options.inputs.is_some() { "inputs" } else { "s" };
    println!("seed {seed}, {amount} {unit} for each of {} targets", targets.len());
    let mut verdict = Verdict::default();
    for target in &targets {
        let mut command = command::cargo();
        command
            .args(["test", "--release", "--quiet", "--package", "basalt-server", "--lib", target])
            .args(["--", "--exact", "--nocapture"])
            .env(name, amount.to_string())
            .env("BASALT_FUZZ_SEED", seed.to_string());
        let limit = BUILD_LIMIT + Duration::from_secs(time);
        let mut ran = false;
        let status = command::lines(&mut command, limit, |line| {
            ran |= line.contains(" inputs of seed ");
            if line.contains(" of seed ") || line.contains("failed; again") {
                println!("{line}");
            }
        })?;
        let outcome = match (status.success(), ran) {
            (true, true) => Ok(String::new()),
            (true, false) => Err(anyhow::anyhow!("it saw no input")),
            (false, _) => Err(anyhow::anyhow!("it failed")),
        };
        verdict.check(target, outcome);
    }
    Ok(verdict)
}

/// Their full names, as the test program knows them.
fn targets() -> Result<Vec<String>> {
    let mut list = command::cargo();
    list.args(["test", "--release", "--quiet", "--package", "basalt-server", "--lib", "fuzz::"]);
    list.args(["--", "--list"]);
    let output = command::output(&mut list, BUILD_LIMIT)?;
    let text = String::from_utf8(output).context("the list of tests")?;
    let names = text.lines().filter_map(|line| line.strip_suffix(": test"));
    Ok(names.map(str::to_owned).collect())
}

fn short(name: &str) -> &str {
    name.rsplit("::").next().unwrap_or(name)
}

fn choose(all: Vec<String>, wanted: &[String]) -> Result<Vec<String>> {
    ensure!(!all.is_empty(), "there are no fuzz targets");
    let unknown = wanted.iter().find(|one| !all.iter().any(|name| short(name) == *one));
    let names: Vec<&str> = all.iter().map(|name| short(name)).collect();
    ensure!(unknown.is_none(), "no target {unknown:?}; there are: {}", names.join(", "));
    if wanted.is_empty() {
        return Ok(all);
    }
    Ok(all.into_iter().filter(|name| wanted.iter().any(|one| one == short(name))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_chosen_by_their_last_name() {
        let all = || vec!["s3::fuzz::chunks".to_owned(), "policy::fuzz::policies".to_owned()];
        assert_eq!(choose(all(), &[]).expect("all").len(), 2);
        let chosen = choose(all(), &["policies".to_owned()]).expect("one");
        assert_eq!(chosen, ["policy::fuzz::policies"]);
        let error = choose(all(), &["xml".to_owned()]).expect_err("refused");
        assert!(error.to_string().contains("chunks, policies"), "{error}");
        assert!(choose(Vec::new(), &[]).is_err());
    }
}

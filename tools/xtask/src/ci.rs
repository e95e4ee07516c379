//! `cargo xtask ci`: everything that has to pass, in one command: what the README names and what
//! runs for every change.
//!
//! The whole-system tests run one target at a time with their output shown, because the seeds,
//! points and minutes that they print are what a reader wants to see; each target of
//! `basalt-tests` is found by asking cargo, so that a new one cannot be forgotten.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::command;
use crate::verdict::Verdict;

/// The tests that stand above the crates: model, simulation, crash.
const SYSTEM_TESTS: &str = "basalt-tests";
const MACHETE: &str = "cargo-machete@0.9.2";
/// A step that takes longer hangs: the slowest, a build from nothing on two cores, takes minutes.
const LIMIT: Duration = Duration::from_secs(25 * 60);

#[derive(Args)]
pub(crate) struct Options {
    /// Run only this step (may be repeated); an unknown name lists them all
    #[arg(long, value_name = "STEP")]
    only: Vec<String>,
}

struct Step {
    name: String,
    arguments: Vec<String>,
}

impl Step {
    fn new(name: &str, arguments: &str) -> Self {
        let arguments = arguments.split(' ').map(str::to_owned).collect();
        Self { name: name.to_owned(), arguments }
    }
}

struct Done {
    name: String,
    verdict: Verdict,
    took: Duration,
}

pub(crate) fn run(options: &Options) -> Result<Verdict> {
    let steps = choose(steps()?, &options.only)?;
    let start = Instant::now();
    let done: Vec<Done> = steps.iter().map(run_step).collect();
    println!("\n{:<24} {:>8} {:>8} {:>8}", "step", "seconds", "passed", "failed");
    let mut verdict = Verdict::default();
    for Done { name, verdict: counts, took } in &done {
        println!(
            "{name:<24} {:>8.1} {:>8} {:>8}",
            took.as_secs_f64(),
            counts.passed,
            counts.failed
        );
        verdict += *counts;
    }
    println!("{:<24} {:>8.1}", "all", start.elapsed().as_secs_f64());
    println!("{verdict}");
    Ok(verdict)
}

fn steps() -> Result<Vec<Step>> {
    let mut steps = vec![
        Step::new("fmt", "fmt --all --check"),
        Step::new("clippy", "clippy --workspace --all-targets --release -- -D warnings"),
        Step::new("unused", "machete"),
        Step::new("test", &format!("test --release --workspace --exclude {SYSTEM_TESTS}")),
    ];
    for target in system_test_targets()? {
        let arguments =
            format!("test --release --package {SYSTEM_TESTS} --test {target} -- --nocapture");
        steps.push(Step::new(&target, &arguments));
    }
    let tool = "run --release --quiet --package xtask --";
    steps.push(Step::new("fuzz", &format!("{tool} fuzz --seconds 5")));
    steps.push(Step::new("clients", &format!("{tool} clients --short")));
    steps.push(Step::new("chaos", &format!("{tool} chaos --short")));
    Ok(steps)
}

fn system_test_targets() -> Result<Vec<String>> {
    let mut metadata = command::cargo();
    metadata.args(["metadata", "--no-deps", "--format-version", "1"]);
    let output = command::output(&mut metadata, LIMIT)?;
    let metadata: serde_json::Value = serde_json::from_slice(&output).context("cargo metadata")?;
    let packages = metadata["packages"].as_array().context("cargo metadata without packages")?;
    let package = packages.iter().find(|package| package["name"] == SYSTEM_TESTS);
    let targets = package.and_then(|package| package["targets"].as_array());
    let targets = targets.with_context(|| format!("cargo metadata without {SYSTEM_TESTS}"))?;
    let tests = targets.iter().filter(|target| target["kind"][0] == "test");
    Ok(tests.filter_map(|target| target["name"].as_str()).map(str::to_owned).collect())
}

fn choose(steps: Vec<Step>, only: &[String]) -> Result<Vec<Step>> {
    if only.is_empty() {
        return Ok(steps);
    }
    let names: Vec<&str> = steps.iter().map(|step| step.name.as_str()).collect();
    let unknown = only.iter().find(|name| !names.contains(&name.as_str()));
    ensure!(unknown.is_none(), "no step {unknown:?}; there are: {}", names.join(", "));
    Ok(steps.into_iter().filter(|step| only.contains(&step.name)).collect())
}

fn run_step(step: &Step) -> Done {
    println!("\n== {}: cargo {}", step.name, step.arguments.join(" "));
    let start = Instant::now();
    let verdict = execute(step).unwrap_or_else(|error| {
        println!("{}: {error:#}", step.name);
        Verdict::of(false)
    });
    Done { name: step.name.clone(), verdict, took: start.elapsed() }
}

/// Counts what the step says it passed and failed; one that says nothing counts as a whole.
fn execute(step: &Step) -> Result<Verdict> {
    if step.name == "unused" {
        install_machete()?;
    }
    let mut counted = Verdict::default();
    let mut command = command::cargo();
    let status = command::lines(command.args(&step.arguments), LIMIT, |line| {
        println!("{line}");
        if let Some(counts) = Verdict::parse(line) {
            counted += counts;
        }
    })?;
    if counted == Verdict::default() {
        counted = Verdict::of(status.success());
    } else if !status.success() && counted.failed == 0 {
        counted += Verdict::of(false);
    }
    Ok(counted)
}

fn install_machete() -> Result<()> {
    let present = command::output(command::cargo().args(["machete", "--version"]), LIMIT).is_ok();
    if !present {
        println!("installing {MACHETE}");
        command::output(command::cargo().args(["install", "--locked", MACHETE]), LIMIT)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_named_steps_run_and_unknown_names_are_refused() {
        let all = || vec![Step::new("fmt", "fmt"), Step::new("test", "test --release")];
        assert_eq!(choose(all(), &[]).expect("all").len(), 2);
        let chosen = choose(all(), &["test".to_owned()]).expect("one");
        assert_eq!(chosen[0].arguments, ["test", "--release"]);
        let error = choose(all(), &["tests".to_owned()]).err().expect("refused");
        assert!(error.to_string().contains("fmt, test"), "{error}");
    }
}

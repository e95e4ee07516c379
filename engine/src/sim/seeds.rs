//! Runs a test for many seeds. A failing seed is named together with the command that runs it
//! alone; `BASALT_SEED` picks one seed and `BASALT_SEEDS` another number of them.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// Runs `test` with the seeds `0..count`. `name` is the test's path, for the command.
pub fn check_seeds(name: &str, count: u64, test: impl Fn(u64)) {
    let number = |variable| {
        let text = std::env::var(variable).ok()?;
        Some(text.parse::<u64>().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
    };
    let seeds = match number("BASALT_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("BASALT_SEEDS").unwrap_or(count),
    };
    for seed in seeds {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| test(seed))) {
            report(name, seed);
            resume_unwind(panic);
        }
    }
}

#[expect(clippy::print_stderr, reason = "a test tells its reader how to run it again")]
fn report(name: &str, seed: u64) {
    eprintln!("seed {seed} fails; again: BASALT_SEED={seed} cargo test --release {name}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn the_first_failing_seed_ends_the_run() {
        let last = Cell::new(None);
        let run = AssertUnwindSafe(|| {
            check_seeds("none", 10, |seed| {
                last.set(Some(seed));
                assert!(seed != 3, "as wanted");
            });
        });
        assert!(catch_unwind(run).is_err() || std::env::var("BASALT_SEED").is_ok());
        assert!(last.get() == Some(3) || std::env::var("BASALT_SEED").is_ok());
    }
}

//! Runs a test for many seeds. A failing seed is named together with the command that runs it
//! alone; `BASALT_SEED` picks one seed, `BASALT_SEEDS` another number of them and `BASALT_FIRST`
//! the one to begin with. With `BASALT_GO_ON` every failing seed is named before the test fails.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// Runs `test` with the seeds `0..count`. `name` is the test's path, for the command.
pub fn check_seeds(name: &str, count: u64, test: impl Fn(u64)) {
    let go_on = std::env::var("BASALT_GO_ON").is_ok();
    let mut first_panic = None;
    for seed in seeds(count) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| test(seed))) {
            report(name, seed);
            first_panic.get_or_insert(panic);
            if !go_on {
                break;
            }
        }
    }
    if let Some(panic) = first_panic {
        resume_unwind(panic);
    }
}

fn seeds(count: u64) -> std::ops::Range<u64> {
    let number = |variable| {
        let text = std::env::var(variable).ok()?;
        Some(text.parse::<u64>().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
    };
    if let Some(seed) = number("BASALT_SEED") {
        return seed..seed + 1;
    }
    let first = number("BASALT_FIRST").unwrap_or(0);
    first..first + number("BASALT_SEEDS").unwrap_or(count)
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
        let ran = catch_unwind(AssertUnwindSafe(|| {
            check_seeds("none", 10, |seed| {
                last.set(Some(seed));
                assert!(seed != 3, "as wanted");
            });
        }));
        // Whoever asked for other seeds by the environment gets those.
        let asked = std::env::vars().any(|(name, _)| name.starts_with("BASALT_"));
        assert!((ran.is_err() && last.get() == Some(3)) || asked);
    }
}

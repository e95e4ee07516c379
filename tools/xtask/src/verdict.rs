//! Counts of what passed and failed, and the one form in which every task of the tool states them.

use std::fmt;
use std::ops::AddAssign;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
}

impl Verdict {
    pub(crate) fn of(passed: bool) -> Self {
        Self { passed: u64::from(passed), failed: u64::from(!passed) }
    }

    /// A run in which nothing was checked is no success.
    pub(crate) fn is_success(self) -> bool {
        self.failed == 0 && self.passed > 0
    }

    /// Reads a line that ends a test run: cargo's `test result: ok. 3 passed; 0 failed; ...` or
    /// this tool's own `3 passed, 0 failed`.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let line = line.trim();
        let counts = match line.strip_prefix("test result: ") {
            Some(rest) => rest.split_once(". ")?.1,
            None => line,
        };
        let (passed, rest) = counts.split_once(" passed")?;
        let (failed, _) = rest.strip_prefix([';', ','])?.split_once(" failed")?;
        Some(Self { passed: passed.parse().ok()?, failed: failed.trim().parse().ok()? })
    }

    /// Prints one check and counts it.
    pub(crate) fn check(&mut self, name: &str, outcome: anyhow::Result<String>) {
        match &outcome {
            Ok(note) if note.is_empty() => println!("PASS {name}"),
            Ok(note) => println!("PASS {name}: {note}"),
            Err(error) => println!("FAIL {name}: {error:#}"),
        }
        *self += Self::of(outcome.is_ok());
    }
}

impl AddAssign for Verdict {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_cargo_and_itself() {
        let cargo = "test result: FAILED. 12 passed; 3 failed; 0 ignored; 0 measured";
        assert_eq!(Verdict::parse(cargo), Some(Verdict { passed: 12, failed: 3 }));
        let own = Verdict { passed: 7, failed: 0 };
        assert_eq!(Verdict::parse(&own.to_string()), Some(own));
        assert_eq!(Verdict::parse("running 3 tests, 2 passed by"), None);
        assert_eq!(Verdict::parse("test result: ok. many passed; 0 failed"), None);
    }

    #[test]
    fn an_empty_run_is_no_success() {
        assert!(!Verdict::default().is_success());
        assert!(Verdict { passed: 1, failed: 0 }.is_success());
        assert!(!Verdict { passed: 1, failed: 1 }.is_success());
    }
}

//! Why a start does not happen, for the operator: what, why, and what to do about it.

use std::fmt;
use std::process::ExitCode;

/// What kind of refusal it is, as the exit code tells scripts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The machine is not as the command line says: a drive, a port, a file. Trying again after
    /// mending it may succeed. Exit code 1.
    Machine,
    /// The command line or the environment is wrong, and will be until it is changed. Exit code 2,
    /// the same as for an unknown flag.
    Usage,
}

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub struct Refusal {
    pub kind: Kind,
    pub what: String,
    pub cause: String,
    pub remedy: String,
}

impl Refusal {
    pub fn usage(
        what: impl Into<String>,
        cause: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { kind: Kind::Usage, what: what.into(), cause: cause.into(), remedy: remedy.into() }
    }

    pub fn machine(
        what: impl Into<String>,
        cause: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { kind: Kind::Machine, what: what.into(), cause: cause.into(), remedy: remedy.into() }
    }

    pub fn exit_code(&self) -> ExitCode {
        match self.kind {
            Kind::Machine => ExitCode::from(1),
            Kind::Usage => ExitCode::from(2),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "error: {}", self.what)?;
        writeln!(f, "cause: {}", self.cause)?;
        write!(f, "remedy: {}", self.remedy)
    }
}

//! Logs for operators, on standard error: what happened, to which drive or set, what to do.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use crate::environment::Variable;
use crate::refusal::Refusal;

/// Starts logging. A filter that cannot be understood is refused, after logging has started.
pub fn start(json: bool, filter: Option<Variable<'_>>) -> Result<(), Refusal> {
    let parsed = filter.as_ref().map(|filter| EnvFilter::try_new(filter.value)).transpose();
    let (filter, result) = match (parsed, &filter) {
        (Ok(Some(parsed)), _) => (parsed, Ok(())),
        (Err(error), Some(filter)) => (default_filter(), Err(unclear(filter, &error.to_string()))),
        _ => (default_filter(), Ok(())),
    };
    // A line that cannot be written is lost. Told of on standard error, it would panic: that is what
    // cannot be written to.
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .log_internal_errors(false);
    if json {
        logs.json().flatten_event(true).init();
    } else {
        let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        logs.with_ansi(colour).with_target(false).init();
    }
    result
}

fn default_filter() -> EnvFilter {
    EnvFilter::new("info")
}

fn unclear(filter: &Variable<'_>, cause: &str) -> Refusal {
    Refusal::usage(
        format!("{}={} is not a filter for logs", filter.name, filter.value),
        cause,
        "set it to error, warn, info, debug or trace, or to levels by module such as \
         info,basalt_engine=debug",
    )
}

//! What the clients came to: checks as they happen, then a table with a row for each client and a
//! column for each server, on the terminal and in `docs/clients.md`.

use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::command;
use crate::verdict::Verdict;

const PAGE: &str = "docs/clients.md";
const BEGIN: &str = "<!-- recorded by `cargo xtask clients --record` -->\n";
const END: &str = "<!-- end of what is recorded -->\n";

/// The checks of one client at one server.
pub(crate) struct Checks {
    client: &'static str,
    pub(crate) verdict: Verdict,
    failures: Vec<String>,
}

impl Checks {
    pub(crate) fn new(client: &'static str) -> Self {
        Self { client, verdict: Verdict::default(), failures: Vec::new() }
    }

    pub(crate) fn check(&mut self, name: &str, outcome: Result<String>) {
        if let Err(error) = &outcome {
            self.failures.push(format!("{name}: {error:#}"));
        }
        self.verdict.check(&format!("{} {name}", self.client), outcome);
    }

    /// A line that a program of ours prints: `PASS name` or `FAIL name: reason`. False for others.
    pub(crate) fn read_line(&mut self, line: &str) -> bool {
        match line.split_once(' ') {
            Some(("PASS", name)) => self.check(name, Ok(String::new())),
            Some(("FAIL", text)) => {
                let (name, reason) = text.split_once(": ").unwrap_or((text, "no reason given"));
                self.check(name, Err(anyhow::Error::msg(reason.to_owned())));
            }
            _ => return false,
        }
        true
    }
}

/// What stands where a row and a column meet.
enum Cell {
    Ran { verdict: Verdict, took: Duration },
    Skipped,
}

impl Cell {
    fn text(&self) -> String {
        match self {
            Self::Skipped => "skipped".to_owned(),
            Self::Ran { verdict, took } if verdict.is_success() => {
                format!("PASS {} in {:.1} s", verdict.passed, took.as_secs_f64())
            }
            Self::Ran { verdict, took } => format!(
                "FAIL {} of {} in {:.1} s",
                verdict.failed,
                verdict.failed + verdict.passed,
                took.as_secs_f64()
            ),
        }
    }
}

struct Row {
    client: &'static str,
    version: String,
    cells: Vec<Cell>,
}

#[derive(Default)]
pub(crate) struct Table {
    columns: Vec<String>,
    rows: Vec<Row>,
    /// Why something failed or was skipped.
    notes: Vec<String>,
}

impl Table {
    /// The cells that follow belong to this server.
    pub(crate) fn column(&mut self, server: &str) {
        self.columns.push(server.to_owned());
    }

    pub(crate) fn ran(&mut self, version: &str, checks: &Checks, took: Duration) {
        let server = self.columns.last().expect("a column was begun");
        self.notes.extend(
            checks.failures.iter().map(|text| format!("{}, {server}: {text}", checks.client)),
        );
        let cell = Cell::Ran { verdict: checks.verdict, took };
        self.row(checks.client, version).cells.push(cell);
    }

    pub(crate) fn skipped(&mut self, client: &'static str, reason: &str) {
        let note = format!("{client} was skipped: {reason}.");
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
        self.row(client, "").cells.push(Cell::Skipped);
    }

    fn row(&mut self, client: &'static str, version: &str) -> &mut Row {
        let place = self.rows.iter().position(|row| row.client == client);
        let place = place.unwrap_or_else(|| {
            self.rows.push(Row { client, version: version.to_owned(), cells: Vec::new() });
            self.rows.len() - 1
        });
        &mut self.rows[place]
    }

    /// In Markdown, the columns aligned, so that it reads well on a terminal too.
    pub(crate) fn text(&self) -> String {
        let head = ["client", "version"].map(str::to_owned).into_iter().chain(self.columns.clone());
        let mut lines: Vec<Vec<String>> = vec![head.collect()];
        lines.extend(self.rows.iter().map(|row| {
            let mut line = vec![row.client.to_owned(), row.version.clone()];
            line.extend(row.cells.iter().map(Cell::text));
            line
        }));
        let width = |column: usize| {
            lines.iter().filter_map(|line| line.get(column)).map(String::len).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..lines[0].len()).map(width).collect();
        let mut out = String::new();
        for (number, line) in lines.iter().enumerate() {
            for (cell, width) in line.iter().zip(&widths) {
                let _infallible = write!(out, "| {cell:<width$} ");
            }
            out.push_str("|\n");
            if number == 0 {
                widths
                    .iter()
                    .for_each(|width| out.push_str(&format!("|{}", "-".repeat(width + 2))));
                out.push_str("|\n");
            }
        }
        for note in &self.notes {
            let _infallible = write!(out, "\n- {note}");
        }
        out.truncate(out.trim_end().len());
        out.push('\n');
        out
    }

    /// Puts the table into the page, in place of the one that stands there.
    pub(crate) fn record(&self, machine: &str) -> Result<()> {
        let path = command::repository().join(PAGE);
        let page = fs::read_to_string(&path).with_context(|| format!("reading {PAGE}"))?;
        let recorded = format!("{}\n{machine}\n", self.text());
        let page = replaced(&page, &recorded).with_context(|| format!("{PAGE} has no place"))?;
        fs::write(&path, page).with_context(|| format!("writing {PAGE}"))
    }
}

fn replaced(page: &str, recorded: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{recorded}\n{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_a_program_is_a_check() {
        let mut checks = Checks::new("thing");
        assert!(checks.read_line("PASS it lists"));
        assert!(checks.read_line("FAIL it reads: other bytes: 3"));
        assert!(!checks.read_line("warning: PASS"));
        assert_eq!(checks.verdict, Verdict { passed: 1, failed: 1 });
        assert_eq!(checks.failures, ["it reads: other bytes: 3"]);
    }

    #[test]
    fn a_table_has_a_row_for_each_client_and_a_column_for_each_server() {
        let mut table = Table::default();
        let mut good = Checks::new("good");
        good.check("it works", Ok(String::new()));
        for server in ["2+2 HTTP", "2+2 HTTPS"] {
            table.column(server);
            table.ran("1.0", &good, Duration::from_millis(1500));
            table.skipped("absent", "there is no such thing");
        }
        let text = table.text();
        assert!(
            text.contains("| good   | 1.0     | PASS 1 in 1.5 s | PASS 1 in 1.5 s |"),
            "{text}"
        );
        assert!(text.contains("| absent |         | skipped "), "{text}");
        assert_eq!(text.matches("there is no such thing").count(), 1, "{text}");
    }

    #[test]
    fn a_recorded_table_takes_the_place_of_the_one_before() {
        let page = format!("head\n{BEGIN}old\n{END}tail\n");
        let once = replaced(&page, "new\n").expect("a place");
        assert!(once.contains("new") && !once.contains("old") && once.ends_with("tail\n"));
        assert_eq!(replaced(&once, "new\n").expect("a place"), once);
        assert_eq!(replaced("no place", "new"), None);
    }
}

//! Figures of a run, the history they are appended to, and the page that is written from it.
//!
//! `benches/history.ndjson` holds one line per metric and run; lines are only ever appended. The
//! tables of `docs/performance.md` stand between two markers; the text around them is by hand.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::command::{self, repository};
use crate::proc;

const HISTORY: &str = "benches/history.ndjson";
const PAGE: &str = "docs/performance.md";
const BEGIN: &str = "<!-- tables: written by `cargo xtask bench --record` -->";
const END: &str = "<!-- end of tables -->";

#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) metric: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) value: f64,
}

/// Every measurement of a run; one metric has one value a round. Drives are absent for what does
/// not depend on them.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    /// In the order of their first measurement.
    metrics: Vec<(&'static str, &'static str)>,
    values: BTreeMap<(&'static str, Option<usize>), Vec<f64>>,
}

impl Figures {
    pub(crate) fn add(&mut self, drives: Option<usize>, row: Row) {
        if !self.metrics.contains(&(row.metric, row.unit)) {
            self.metrics.push((row.metric, row.unit));
        }
        self.values.entry((row.metric, drives)).or_default().push(row.value);
    }

    pub(crate) fn len(&self) -> u64 {
        self.values.len() as u64
    }

    /// (metric, unit, drives, median) in order.
    fn medians(&self) -> Vec<(&str, &str, Option<usize>, f64)> {
        let mut out = Vec::new();
        for (metric, unit) in &self.metrics {
            let all = self.values.iter().filter(|((name, _), _)| name == metric);
            out.extend(all.map(|((_, drives), values)| (*metric, *unit, *drives, median(values))));
        }
        out
    }

    pub(crate) fn table(&self) -> String {
        let rows = self.medians();
        let rows = rows.iter().map(|(metric, unit, drives, value)| Entry {
            metric: (*metric).to_owned(),
            unit: (*unit).to_owned(),
            drives: drives.map(|drives| drives as u64),
            value: *value,
        });
        table(&rows.collect::<Vec<_>>())
    }
}

pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 {
        sorted[middle]
    } else {
        f64::midpoint(sorted[middle - 1], sorted[middle])
    }
}

/// One line of the history, as far as the page needs it.
#[derive(Clone, PartialEq, Debug)]
struct Entry {
    metric: String,
    unit: String,
    drives: Option<u64>,
    value: f64,
}

/// Appends a run, and writes the page anew.
pub(crate) fn record(figures: &Figures) -> Result<()> {
    let run = Run::now()?;
    let mut lines = String::new();
    for (metric, unit, drives, value) in figures.medians() {
        // Three decimals are more than any of these measurements repeats.
        let value = (value * 1e3).round() / 1e3;
        let line = json!({
            "commit": run.commit, "date": run.date, "machine": run.machine,
            "drives": drives, "metric": metric, "unit": unit, "value": value,
        });
        writeln!(lines, "{line}").expect("a string takes what is written");
    }
    let path = repository().join(HISTORY);
    let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
    file.write_all(lines.as_bytes()).with_context(|| format!("appending to {}", path.display()))?;
    render(&fs::read_to_string(&path)?)
}

struct Run {
    commit: String,
    date: String,
    machine: String,
}

impl Run {
    fn now() -> Result<Self> {
        let git = |arguments: &[&str]| -> Result<String> {
            let mut git = Command::new("git");
            let output = command::output(
                git.args(arguments).current_dir(repository()),
                Duration::from_secs(20),
            )?;
            Ok(String::from_utf8_lossy(&output).trim().to_owned())
        };
        let mut commit = git(&["rev-parse", "--short=12", "HEAD"])?;
        if !git(&["status", "--porcelain", "--untracked-files=no"])?.is_empty() {
            commit += "+";
        }
        let now = OffsetDateTime::now_utc();
        let (year, month, day) = (now.year(), u8::from(now.month()), now.day());
        let date = format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}Z", now.hour(), now.minute());
        Ok(Self { commit, date, machine: proc::machine() })
    }
}

fn render(history: &str) -> Result<()> {
    let path = repository().join(PAGE);
    let page = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let (before, rest) = page.split_once(BEGIN).with_context(|| format!("{PAGE} lacks {BEGIN}"))?;
    let (_, after) = rest.split_once(END).with_context(|| format!("{PAGE} lacks {END}"))?;
    let tables = tables(history)?;
    fs::write(&path, format!("{before}{BEGIN}\n\n{tables}\n{END}{after}"))?;
    Ok(())
}

/// The last run of each machine, newest first.
fn tables(history: &str) -> Result<String> {
    let mut latest: BTreeMap<String, (String, String, Vec<Entry>)> = BTreeMap::new();
    for (index, line) in history.lines().enumerate() {
        let place = || format!("{HISTORY}, line {}", index + 1);
        let line: Value = serde_json::from_str(line).with_context(place)?;
        let text = |name: &str| line[name].as_str().map(str::to_owned).with_context(place);
        let entry = Entry {
            metric: text("metric")?,
            unit: text("unit")?,
            drives: line["drives"].as_u64(),
            value: line["value"].as_f64().with_context(place)?,
        };
        let (date, commit) = (text("date")?, text("commit")?);
        let run = latest.entry(text("machine")?).or_default();
        if run.0 != date {
            *run = (date, commit, Vec::new());
        }
        run.2.push(entry);
    }
    ensure!(!latest.is_empty(), "{HISTORY} is empty");
    let mut runs: Vec<_> = latest.into_iter().collect();
    runs.sort_by(|(_, a), (_, b)| b.0.cmp(&a.0));
    let mut out = String::new();
    for (machine, (date, commit, entries)) in runs {
        writeln!(out, "{machine}; commit {commit}, {date}:\n\n{}", table(&entries))?;
    }
    Ok(out)
}

/// Metrics down, drives across.
fn table(entries: &[Entry]) -> String {
    let mut columns: Vec<u64> = entries.iter().filter_map(|entry| entry.drives).collect();
    columns.sort_unstable();
    columns.dedup();
    let mut out = String::from("| | unit |");
    for drives in &columns {
        write!(out, " {drives} drives |").expect("a string takes what is written");
    }
    if columns.is_empty() {
        out += " value |";
    }
    out += &format!("\n|---|---|{}\n", "---:|".repeat(columns.len().max(1)));
    let mut shown = Vec::new();
    for entry in entries {
        if shown.contains(&&entry.metric) {
            continue;
        }
        shown.push(&entry.metric);
        let of = |drives| {
            entries.iter().find(|other| other.metric == entry.metric && other.drives == drives)
        };
        let cells: Vec<String> = match of(None) {
            Some(alone) => vec![number(alone.value); columns.len().max(1)],
            None => columns
                .iter()
                .map(|drives| of(Some(*drives)).map_or_else(String::new, |cell| number(cell.value)))
                .collect(),
        };
        out += &format!("| {} | {} | {} |\n", entry.metric, entry.unit, cells.join(" | "));
    }
    out
}

/// Three significant digits, at least the whole part.
fn number(value: f64) -> String {
    let decimals = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        _ => 2,
    };
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(metric: &'static str, value: f64) -> Row {
        Row { metric, unit: "1/s", value }
    }

    #[test]
    fn medians_stand_in_one_table() {
        let mut figures = Figures::default();
        figures.add(None, row("volume", 1000.0));
        for value in [3.0, 1.0, 2.0] {
            figures.add(Some(4), row("PUT", value));
        }
        figures.add(Some(16), row("PUT", 40.0));
        figures.add(Some(16), row("PUT", 60.0));
        let expected = "| | unit | 4 drives | 16 drives |\n|---|---|---:|---:|\n\
                        | volume | 1/s | 1000 | 1000 |\n| PUT | 1/s | 2.00 | 50.0 |\n";
        assert_eq!(figures.table(), expected);
    }

    #[test]
    fn the_page_shows_each_machine_by_its_last_run() {
        let line = |machine: &str, date: &str, value: f64| {
            json!({"commit": "c", "date": date, "machine": machine, "drives": 4,
                   "metric": "PUT", "unit": "1/s", "value": value})
            .to_string()
        };
        let history = [line("a", "1", 5.0), line("b", "3", 6.0), line("a", "2", 7.0)].join("\n");
        let page = tables(&history).expect("well-formed");
        assert!(page.find("b; commit c, 3") < page.find("a; commit c, 2"), "{page}");
        assert!(page.contains("| PUT | 1/s | 7.00 |") && !page.contains("5.00"), "{page}");
        assert!(tables("{}").is_err());
    }
}

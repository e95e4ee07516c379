//! Where the server's time goes, by `perf` where it is installed.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::work::Work;
use crate::command;

const SHOWN: usize = 12;
const REPORT_LIMIT: Duration = Duration::from_secs(120);

pub(crate) struct Recording {
    perf: Child,
    file: PathBuf,
}

impl Recording {
    /// Nothing when no profile is wanted.
    pub(crate) fn start(wanted: bool, pid: Option<u32>, window: Duration) -> Result<Option<Self>> {
        if !wanted {
            return Ok(None);
        }
        let Some(pid) = pid else { bail!("a profile needs the server's process: --pid") };
        let perf = command::find_program("perf")
            .context("a profile needs perf, which is not installed")?;
        let file = command::target().join("bench-perf.data");
        let perf = Command::new(perf)
            .args(["record", "--quiet", "--freq", "499", "--pid", &pid.to_string(), "--output"])
            .arg(&file)
            .args(["--", "sleep", &window.as_secs().to_string()])
            .stdout(Stdio::null())
            .spawn()
            .context("starting perf")?;
        Ok(Some(Self { perf, file }))
    }

    pub(crate) fn finish(mut self, work: Work) -> Result<()> {
        self.perf.wait().context("waiting for perf")?;
        let mut report = Command::new("perf");
        report.args([
            "report",
            "--stdio",
            "--sort",
            "symbol,dso",
            "--percent-limit",
            "0.5",
            "--input",
        ]);
        let output = command::output(report.arg(&self.file), REPORT_LIMIT)?;
        println!("  {work:?}, where the server's time goes:");
        let output = String::from_utf8_lossy(&output);
        let lines = output.lines().filter(|line| line.contains('%') && !line.starts_with('#'));
        for line in lines.take(SHOWN) {
            println!("    {}", line.trim());
        }
        std::fs::remove_file(&self.file)?;
        Ok(())
    }
}

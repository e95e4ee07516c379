//! boto3: the checks stand in `boto.py`, which prints one PASS or FAIL line each.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail, ensure};

use super::Site;
use super::install::Programs;
use crate::command;
use crate::verdict::Verdict;

const SCRIPT: &str = include_str!("boto.py");
const LIMIT: Duration = Duration::from_secs(300);

pub(crate) fn run(site: &Site, programs: &Programs, verdict: &mut Verdict) {
    let mut counts = Verdict::default();
    let ended = run_script(site, programs, &mut counts);
    *verdict += counts;
    // Not a check of its own: it is said only when the script did not get to its end.
    if let Err(error) = ended {
        verdict.check("boto3 ran to its end", Err(error));
    }
}

fn run_script(site: &Site, programs: &Programs, counts: &mut Verdict) -> Result<()> {
    let folder = site.folder.join("boto");
    fs::create_dir_all(&folder)?;
    let script = folder.join("boto.py");
    fs::write(&script, SCRIPT)?;
    let multipart_mib = if site.short { "32" } else { "200" };
    let mut python = Command::new(&programs.python);
    python.arg("-u").arg(&script).args([&site.endpoint, &site.bucket("boto"), multipart_mib]);
    site.equip(&mut python, &folder);
    let mut finished = false;
    let status = command::lines(&mut python, LIMIT, |line| {
        println!("{line}");
        match line.split(' ').next() {
            Some("PASS") => *counts += Verdict::of(true),
            Some("FAIL") => *counts += Verdict::of(false),
            _ => finished |= line == "boto3 done",
        }
    })?;
    ensure!(status.success(), "the script ended with {status}");
    if !finished {
        bail!("the script ended early");
    }
    Ok(())
}

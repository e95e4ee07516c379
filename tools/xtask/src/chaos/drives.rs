//! Drives are lost one by one, in three ways, under load, and come back.
//!
//! What holds of a server with D drives, N of them parity and W the write quorum:
//! - A lost drive is fenced within five seconds, and the log says so.
//! - Settled objects are read without one failure while at most N drives are lost.
//! - Writes go on while W drives live; below that they are refused by a text that names the set
//!   and how many drives are missing.
//! - A directory that was renamed back serves again; an empty one in its place is refilled; one
//!   with foreign bytes is refused until it is emptied. No restart is needed.
//!
//! The log lines relied upon hold the drive's directory and one of these phrases: `drive fenced`,
//! `drive is back`, `drive refilled`, `drive stays down`. That nothing is unsettled is read from the
//! metric `basalt_unsettled_records`.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;

use std::path::{Path, PathBuf};
use std::slice;
use std::sync::PoisonError;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::load::{
    Complaints, Failures, Field, PATIENCE, READERS, WRITERS, make_bucket, refusal, under_load,
};
use super::register::{Register, total};
use crate::random::{self, Random};
use crate::s3::{Client, Request};
use crate::server::{Launch, Layout, Server};
use crate::verdict::Verdict;

const FENCE_LIMIT: Duration = Duration::from_secs(5);
const RETURN_LIMIT: Duration = Duration::from_secs(30);
const REFILL_LIMIT: Duration = Duration::from_secs(120);
const SETTLE_LIMIT: Duration = Duration::from_secs(60);
/// How long the load runs at each number of lost drives.
const DWELL: Duration = Duration::from_millis(1500);
const SETTLED_KEYS: usize = 128;
const LIVE_KEYS: usize = 128;
const SETTLED_BUCKET: &str = "settled";
const LIVE_BUCKET: &str = "live";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    Rename,
    Remove,
    Overwrite,
}

pub(crate) fn run(program: &Path, folder: &Path, layout: Layout, seed: u64) -> Verdict {
    let mut verdict = Verdict::default();
    for (way, name) in
        [(Way::Rename, "renamed away"), (Way::Remove, "removed"), (Way::Overwrite, "overwritten")]
    {
        let folder = folder.join(format!("{way:?}").to_lowercase());
        let name = format!("{layout} drives {name}");
        if let Err(error) = Siege::run(program, &folder, layout, seed, way, &name, &mut verdict) {
            verdict.check(&name, Err(error));
        }
    }
    verdict
}

/// One server, one way of losing its drives.
struct Siege<'a> {
    launch: &'a Launch,
    server: Server,
    /// Written before anything is lost, then only read: no read of it may fail.
    settled: Field<'a>,
    /// Written and read throughout.
    live: Field<'a>,
    way: Way,
    seed: u64,
    /// The order in which drives are lost.
    order: Vec<usize>,
}

impl Siege<'_> {
    fn run(
        program: &Path,
        folder: &Path,
        layout: Layout,
        seed: u64,
        way: Way,
        name: &str,
        verdict: &mut Verdict,
    ) -> Result<()> {
        let launch = &Launch::new(program, folder, layout)?;
        let (settled, live) = (Register::new(seed, SETTLED_KEYS), Register::new(!seed, LIVE_KEYS));
        let complaints = &Complaints::default();
        let mut order: Vec<usize> = (0..layout.drives).collect();
        Random::new(seed, way as u64).shuffle(&mut order);
        let mut server = launch.start()?;
        server.await_ready(Duration::from_secs(30))?;
        let ways = slice::from_ref(launch);
        let mut siege = Siege {
            launch,
            server,
            settled: Field { ways, bucket: SETTLED_BUCKET, register: &settled, complaints },
            live: Field { ways, bucket: LIVE_BUCKET, register: &live, complaints },
            way,
            seed,
            order,
        };
        siege.fill()?;
        siege.lose(name, verdict)?;
        siege.return_all(name, verdict)?;
        let bad = total(&settled.tally.lost) + total(&settled.tally.wrong);
        let bad = bad + total(&live.tally.lost) + total(&live.tally.wrong);
        let sum = |pick: fn(&Register) -> u64| pick(&settled) + pick(&live);
        let line = format!(
            "acknowledged {}, unknown {}, lost = {}, wrong = {}",
            sum(|register| total(&register.tally.acknowledged)),
            sum(|register| total(&register.tally.unknown)),
            sum(|register| total(&register.tally.lost)),
            sum(|register| total(&register.tally.wrong)),
        );
        println!("{line}");
        let outcome = if bad == 0 { Ok(String::new()) } else { Err(anyhow::anyhow!(line)) };
        verdict.check(&format!("{name}: nothing lost, nothing wrong"), outcome);
        siege.server.ensure_alive()
    }

    fn layout(&self) -> Layout {
        self.launch.layout
    }

    fn fill(&mut self) -> Result<()> {
        make_bucket(self.launch, SETTLED_BUCKET)?;
        make_bucket(self.launch, LIVE_BUCKET)?;
        let mut client = self.settled.client();
        let mut random = Random::new(self.seed, 8_000_000);
        for key in 0..SETTLED_KEYS {
            self.settled.write(&mut client, key, &mut random).map_err(anyhow::Error::msg)?;
        }
        self.settle()
    }

    /// Loses drive after drive, down to one fewer than can accept a write.
    fn lose(&mut self, name: &str, verdict: &mut Verdict) -> Result<()> {
        let Layout { drives, parity } = self.layout();
        let most = drives - self.layout().write_quorum();
        for lost in 1..=parity.max(most) {
            let outcome = self.lose_one(lost);
            let fatal = outcome.is_err();
            verdict.check(&format!("{name}: {lost} lost"), outcome);
            ensure!(!fatal, "given up at {lost} lost");
        }
        let mut lost = parity.max(most);
        if lost == most {
            lost += 1;
            self.fence(lost)?;
        }
        verdict.check(&format!("{name}: {lost} lost, writes refused"), self.ensure_refused(lost));
        Ok(())
    }

    /// Loses the `lost`-th drive under load, and says what went on at that number.
    fn lose_one(&mut self, lost: usize) -> Result<String> {
        let layout = self.layout();
        let (reads_hold, writes_hold) =
            (lost <= layout.parity, layout.drives - lost >= layout.write_quorum());
        let writers = if writes_hold { WRITERS } else { 0 };
        let (strict, load) = (Failures::default(), Failures::default());
        let seed = self.seed.wrapping_add((lost as u64) << 16);
        let readers = if reads_hold { READERS } else { 0 };
        let fenced = under_load(&self.settled, 0, readers, seed, &strict, || {
            under_load(&self.live, writers, READERS / 4, seed, &load, || {
                let fenced = self.fence(lost)?;
                thread::sleep(DWELL);
                Ok::<_, anyhow::Error>(fenced)
            })
        })?;
        if reads_hold {
            strict.ensure_no_read_failed()?;
        }
        if writes_hold {
            ensure!(total(&load.written) > 0, "no write succeeded");
            let last = load.last_write.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((at, why)) = last.as_ref() {
                ensure!(*at < fenced.at, "a write begun after the drive was fenced failed: {why}");
            }
        }
        let took = fenced.took.as_millis();
        let early = total(&load.writes);
        Ok(format!(
            "fenced after {took} ms, {} written, {early} failed before the fence",
            total(&load.written)
        ))
    }

    /// How the `lost`-th drive is lost: what is destroyed beyond N drives nobody could bring back, so those
    /// only go away.
    fn way_of(&self, lost: usize) -> Way {
        if lost <= self.layout().parity { self.way } else { Way::Rename }
    }

    fn fence(&self, lost: usize) -> Result<Fenced> {
        let drive = self.order[lost - 1];
        let path = self.launch.drive(drive);
        let mark = self.server.log_mark();
        let start = Instant::now();
        match self.way_of(lost) {
            Way::Rename => fs::rename(&path, aside(&path)).context("renaming a drive")?,
            Way::Remove => fs::remove_dir_all(&path).context("removing a drive")?,
            Way::Overwrite => overwrite(&path, self.seed ^ drive as u64)?,
        }
        let path = path.to_string_lossy();
        let at = self.server.await_line(mark, &["drive fenced", &path], FENCE_LIMIT)?;
        Ok(Fenced { at, took: at.saturating_duration_since(start) })
    }

    /// A write is answered 503 by a text that names the set and the number of missing drives.
    fn ensure_refused(&self, lost: usize) -> Result<String> {
        let layout = self.layout();
        let short = layout.write_quorum() + lost - layout.drives;
        let mut client = self.live.client().client;
        let request = Request::new("PUT", LIVE_BUCKET, "refused").body(b"x");
        let (status, text) = refusal(&mut client, &request)?;
        ensure!(status == 503, "a PUT with {lost} drives lost was answered {status}: {text}");
        let text = text.to_lowercase();
        ensure!(text.contains("set 0"), "the text does not name the set: {text}");
        ensure!(
            text.contains(&format!("{short} more drive")),
            "the text does not say that {short} are missing: {text}"
        );
        Ok(String::new())
    }

    /// Brings every lost drive back without a restart, then loses others.
    fn return_all(&mut self, name: &str, verdict: &mut Verdict) -> Result<()> {
        let Layout { drives, parity } = self.layout();
        // As many as `lose` has lost.
        let count = parity.max(drives - self.layout().write_quorum() + 1);
        let lost = self.order[..count].to_vec();
        let returned = self.return_drives(&lost);
        let fatal = returned.is_err();
        verdict.check(&format!("{name}: all {} back without a restart", lost.len()), returned);
        ensure!(!fatal, "given up at the return");
        let settled = self.settle().map(|()| String::new());
        verdict.check(&format!("{name}: settled again"), settled);
        // The drives that came back now carry the reads: others are lost in their place.
        self.way = Way::Rename;
        self.order.reverse();
        for lost in 1..=parity {
            let outcome = self.lose_one(lost);
            verdict.check(&format!("{name}: {lost} others lost"), outcome);
        }
        Ok(())
    }

    fn return_drives(&self, lost: &[usize]) -> Result<String> {
        let start = Instant::now();
        let mark = self.server.log_mark();
        let paths: Vec<(Way, PathBuf)> = (1..)
            .zip(lost)
            .map(|(number, drive)| (self.way_of(number), self.launch.drive(*drive)))
            .collect();
        for (way, path) in &paths {
            match way {
                Way::Rename => fs::rename(aside(path), path).context("renaming a drive back")?,
                Way::Remove => fs::create_dir(path).context("an empty directory")?,
                Way::Overwrite => self.ensure_foreign_refused(mark, path)?,
            }
        }
        for (way, path) in &paths {
            let (phrase, limit) = match way {
                Way::Rename => ("drive is back", RETURN_LIMIT),
                Way::Remove | Way::Overwrite => ("drive refilled", REFILL_LIMIT),
            };
            self.server.await_line(mark, &[phrase, &path.to_string_lossy()], limit)?;
        }
        Ok(format!("after {} ms", start.elapsed().as_millis()))
    }

    /// Foreign bytes stay untouched and unused; emptied, the directory is taken.
    fn ensure_foreign_refused(&self, mark: usize, path: &Path) -> Result<()> {
        let shown = path.to_string_lossy();
        self.server.await_line(0, &["drive stays down", &shown], RETURN_LIMIT)?;
        ensure!(
            !self.server.has_line(mark, &["drive refilled", &shown]),
            "foreign bytes were taken: {shown}"
        );
        for entry in fs::read_dir(path)? {
            let entry = entry?.path();
            if entry.is_dir() { fs::remove_dir_all(&entry)? } else { fs::remove_file(&entry)? }
        }
        Ok(())
    }

    /// Waits until every record is settled, which the server says in its metrics.
    fn settle(&self) -> Result<()> {
        let mut client = self.launch.client(PATIENCE);
        let deadline = Instant::now() + SETTLE_LIMIT;
        loop {
            let left = unsettled(&mut client)?;
            if left == 0.0 {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("{left} records are unsettled after {} s", SETTLE_LIMIT.as_secs());
            }
            thread::sleep(Duration::from_millis(100));
        }
    }
}

struct Fenced {
    at: Instant,
    took: Duration,
}

fn unsettled(client: &mut Client) -> Result<f64> {
    let answer = client.probe("/minio/v2/metrics/cluster").map_err(std::io::Error::from)?;
    ensure!(answer.status == 200, "metrics: status {}", answer.status);
    let sum = sum_of(&String::from_utf8_lossy(&answer.body), "basalt_unsettled_records");
    sum.context("the metrics do not tell basalt_unsettled_records")
}

/// The sum over all series of a metric, in Prometheus' text form.
pub(crate) fn sum_of(text: &str, metric: &str) -> Option<f64> {
    let of_metric =
        |line: &&str| line.strip_prefix(metric).is_some_and(|rest| rest.starts_with(['{', ' ']));
    let values =
        text.lines().filter(of_metric).map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    values.reduce(|sum, value| Some(sum? + value?)).flatten()
}

fn aside(path: &Path) -> PathBuf {
    path.with_extension("away")
}

/// Every file of the folder gets random bytes over all of its length, in place.
pub(crate) fn overwrite(folder: &Path, seed: u64) -> Result<()> {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                overwrite_file(&path, seed).with_context(|| path.display().to_string())?;
            }
        }
    }
    Ok(())
}

/// Whole blocks go past the page cache: the server may write the same file that way at this moment,
/// and the kernel answers a meeting of the two with EIO.
fn overwrite_file(path: &Path, seed: u64) -> Result<()> {
    const BLOCK: usize = 4096;
    const AT_ONCE: usize = 1 << 20;
    let mut noise = vec![0; AT_ONCE + BLOCK];
    random::fill(seed, &mut noise);
    let noise = &noise[noise.as_ptr().align_offset(BLOCK)..][..AT_ONCE];
    let length = fs::metadata(path)?.len();
    let whole = length / BLOCK as u64 * BLOCK as u64;
    let open = |flags| fs::OpenOptions::new().write(true).custom_flags(flags).open(path);
    for (flags, range) in [(libc::O_DIRECT, 0..whole), (0, whole..length)] {
        if range.is_empty() {
            continue;
        }
        let mut file = open(flags)?;
        file.seek(SeekFrom::Start(range.start))?;
        let mut left = range.end - range.start;
        while left > 0 {
            let take = left.min(AT_ONCE as u64);
            file.write_all(&noise[..take as usize])?;
            left -= take;
        }
        file.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command;

    #[test]
    fn a_metric_is_summed_over_its_series_and_missed_when_absent() {
        let text = "# TYPE a gauge\na{set=\"0\"} 3\na{set=\"1\"} 4\nab 9\nb 1\n";
        assert_eq!(sum_of(text, "a"), Some(7.0));
        assert_eq!(sum_of(text, "b"), Some(1.0));
        assert_eq!(sum_of(text, "c"), None);
        assert_eq!(sum_of("a x\n", "a"), None);
    }

    #[test]
    fn overwriting_changes_every_file_and_no_length() {
        // Not in the system's folder, which may lie in memory, where there are no direct writes.
        let folder = tempfile::tempdir_in(command::target()).expect("a folder");
        fs::create_dir(folder.path().join("sub")).expect("made");
        let files = [folder.path().join("one"), folder.path().join("sub/two")];
        for file in &files {
            fs::write(file, vec![0; (3 << 20) + 5]).expect("written");
        }
        overwrite(folder.path(), 1).expect("overwritten");
        for file in &files {
            let bytes = fs::read(file).expect("read");
            assert_eq!(bytes.len(), (3 << 20) + 5);
            let zeroes = bytes.iter().filter(|byte| **byte == 0).count();
            assert!(zeroes < bytes.len() / 100, "{zeroes} bytes are still zero");
        }
    }
}

//! A server under test: started as a child process on a loopback port, watched by its log lines
//! and health endpoints, killed when dropped.
//!
//! Any program of the same command line will do: `PROGRAM server --address HOST:PORT DRIVES`.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::authority::Authority;
use crate::command;
use crate::s3::{Client, Credentials, Request};

/// A server that was asked to stop has this long.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// How many directories, and how many of them can be lost when everything is settled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Layout {
    pub(crate) drives: usize,
    pub(crate) parity: usize,
}

impl Layout {
    pub(crate) const FOUR: Self = Self { drives: 4, parity: 2 };
    pub(crate) const SIXTEEN: Self = Self { drives: 16, parity: 4 };

    /// The one asked for, or both.
    pub(crate) fn chosen(asked: Option<Self>) -> Vec<Self> {
        asked.map_or_else(|| vec![Self::FOUR, Self::SIXTEEN], |layout| vec![layout])
    }

    /// Drives that have to live for a write: the quorum that accepts a record.
    pub(crate) fn write_quorum(self) -> usize {
        self.drives - self.drives.div_ceil(2) + 1
    }
}

impl std::str::FromStr for Layout {
    type Err = &'static str;

    fn from_str(drives: &str) -> Result<Self, Self::Err> {
        match drives {
            "4" => Ok(Self::FOUR),
            "16" => Ok(Self::SIXTEEN),
            _ => Err("4 or 16 directories"),
        }
    }
}

impl std::fmt::Display for Layout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}+{}", self.drives - self.parity, self.parity)
    }
}

/// How to start a server; it can be started again on the same folder.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    pub(crate) program: PathBuf,
    /// Holds the drives' directories `d1`, `d2`, ... and the log.
    pub(crate) folder: PathBuf,
    /// As the command line names the drives; those of other nodes are among them.
    pub(crate) drives: Vec<String>,
    /// A program with arguments that starts the server's in its own place, as `nsenter` does.
    pub(crate) within: Vec<String>,
    /// Beside the credentials.
    pub(crate) environment: Vec<(&'static str, String)>,
    pub(crate) layout: Layout,
    pub(crate) address: SocketAddr,
    pub(crate) credentials: Credentials,
    /// Whose certificate the server shows; without one it speaks HTTP.
    pub(crate) authority: Option<Authority>,
}

impl Launch {
    pub(crate) fn new(program: &Path, folder: &Path, layout: Layout) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        let folder = fs::canonicalize(folder)?;
        Ok(Self {
            program: program.to_owned(),
            drives: vec![format!("{}/d{{1...{}}}", folder.display(), layout.drives)],
            within: Vec::new(),
            environment: Vec::new(),
            folder,
            layout,
            address: free_address()?,
            credentials: Credentials {
                access: "basaltadmin".into(),
                secret: "basaltsecret".into(),
            },
            authority: None,
        })
    }

    /// A server that speaks HTTPS, with a certificate of an authority made for it.
    pub(crate) fn secured(self) -> Result<Self> {
        let authority = Authority::create(&self.folder.join("certificates"), self.address.ip())?;
        Ok(Self { authority: Some(authority), ..self })
    }

    pub(crate) fn endpoint(&self) -> String {
        let scheme = if self.authority.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// The directory of a drive; drives are counted from 0, directories from 1.
    pub(crate) fn drive(&self, index: usize) -> PathBuf {
        self.folder.join(format!("d{}", index + 1))
    }

    pub(crate) fn client(&self, timeout: Duration) -> Client {
        let client = Client::new(self.address, &self.credentials, timeout);
        match &self.authority {
            Some(authority) => client.trusting(authority.trust.clone()),
            None => client,
        }
    }

    pub(crate) fn start(&self) -> Result<Server> {
        let mut command = match &self.within[..] {
            [] => Command::new(&self.program),
            [program, arguments @ ..] => {
                let mut command = Command::new(program);
                command.args(arguments).arg(&self.program);
                command
            }
        };
        command.args(["server", "--address", &self.address.to_string()]);
        if let Some(authority) = &self.authority {
            command.arg("--certs-dir").arg(&authority.server_folder);
        }
        let mut child = command
            .args(&self.drives)
            .env("MINIO_ROOT_USER", &self.credentials.access)
            .env("MINIO_ROOT_PASSWORD", &self.credentials.secret)
            .env("MINIO_PROMETHEUS_AUTH_TYPE", "public")
            .env("NO_COLOR", "1")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {}", self.program.display()))?;
        let log = Arc::new(Log::create(&self.folder.join("server.log"))?);
        let (stdout, stderr) =
            (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
        log.follow(stdout);
        log.follow(stderr);
        Ok(Server { child, launch: self.clone(), log, started: Instant::now() })
    }
}

/// A loopback port that was free a moment ago, outside the range that outgoing connections use.
pub(crate) fn free_address() -> Result<SocketAddr> {
    let mut random = crate::random::Random::new(crate::random::fresh_seed(), 0);
    for _ in 0..100 {
        let port = 10_000 + random.below(20_000) as u16;
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            return listener.local_addr().context("a bound address");
        }
    }
    bail!("no free port between 10000 and 30000 on 127.0.0.1")
}

/// The server program: the one named, or `basalt` built from this repository.
pub(crate) fn program(named: Option<&Path>) -> Result<PathBuf> {
    if let Some(program) = named {
        ensure!(program.is_file(), "there is no program {}", program.display());
        return Ok(program.to_owned());
    }
    let mut build = command::cargo();
    build.args(["build", "--quiet", "--release", "--package", "basalt-server"]);
    command::output(&mut build, Duration::from_secs(1800))?;
    let folder = std::env::var_os("CARGO_TARGET_DIR").map_or_else(command::target, PathBuf::from);
    Ok(folder.join("release/basalt"))
}

/// What the server has printed, line by line with the time of arrival, also kept in a file.
struct Log {
    lines: Mutex<Vec<(Instant, String)>>,
    arrived: Condvar,
    file: Mutex<File>,
}

impl Log {
    fn create(path: &Path) -> Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path);
        let file = file.with_context(|| format!("opening {}", path.display()))?;
        Ok(Self { lines: Mutex::default(), arrived: Condvar::new(), file: Mutex::new(file) })
    }

    /// Reads a pipe to its end, that is, until the server has died.
    fn follow(self: &Arc<Self>, pipe: impl Read + Send + 'static) {
        let log = Arc::clone(self);
        thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                let mut file = log.file.lock().unwrap_or_else(PoisonError::into_inner);
                // The file is for people to read after a failure; no check depends on it.
                let _best_effort = writeln!(file, "{line}");
                drop(file);
                log.lines
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push((Instant::now(), line));
                log.arrived.notify_all();
            }
        });
    }
}

pub(crate) struct Server {
    child: Child,
    launch: Launch,
    log: Arc<Log>,
    started: Instant,
}

impl Server {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the server reports ready and answers a signed request; returns how long that
    /// took since its start.
    pub(crate) fn await_ready(&mut self, limit: Duration) -> Result<Duration> {
        let mut client = self.launch.client(limit);
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("the server ended with {status}: {}", self.last_lines());
            }
            let ready =
                client.probe("/minio/health/ready").is_ok_and(|answer| answer.status == 200)
                    && client
                        .call(&Request::new("GET", "", ""))
                        .is_ok_and(|answer| answer.status == 200);
            let took = self.started.elapsed();
            if ready {
                return Ok(took);
            }
            ensure!(took < limit, "not ready after {} ms: {}", took.as_millis(), self.last_lines());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// What the server said it would take of memory, but for the index of keys.
    pub(crate) fn memory_budget(&self) -> Option<u64> {
        let lines = self.log.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().find_map(|(_, line)| budget_of(line))
    }

    /// A moment in the log: only later lines count for [`Server::await_line`].
    pub(crate) fn log_mark(&self) -> usize {
        self.log.lines.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Waits for a log line after `mark` that holds all of `parts`; returns the time of its arrival.
    pub(crate) fn await_line(
        &self,
        mark: usize,
        parts: &[&str],
        limit: Duration,
    ) -> Result<Instant> {
        let deadline = Instant::now() + limit;
        let mut lines = self.log.lines.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(at) = find_line(&lines[mark..], parts) {
                return Ok(at);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            ensure!(!left.is_zero(), "no log line with {parts:?} within {} s", limit.as_secs());
            lines = self
                .log
                .arrived
                .wait_timeout(lines, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    pub(crate) fn has_line(&self, mark: usize, parts: &[&str]) -> bool {
        let lines = self.log.lines.lock().unwrap_or_else(PoisonError::into_inner);
        find_line(&lines[mark..], parts).is_some()
    }

    /// Freezes the process, or thaws it.
    pub(crate) fn signal(&self, signal: &str) -> Result<()> {
        let pid = self.pid().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status();
        ensure!(sent.context("sending a signal")?.success(), "{signal} was not sent to {pid}");
        Ok(())
    }

    /// Waits for the process to end by itself.
    pub(crate) fn await_end(&mut self, limit: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            ensure!(Instant::now() < deadline, "it did not end: {}", self.last_lines());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// SIGKILL, and the end of the process awaited: nothing of it acts any more.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.kill().context("killing the server")?;
        self.child.wait().context("waiting for the killed server")?;
        Ok(())
    }

    /// SIGTERM, upon which it finishes what is under way and ends well.
    pub(crate) fn stop(mut self) -> Result<()> {
        self.signal("-TERM")?;
        let status = self.await_end(STOP_LIMIT)?;
        ensure!(status.success(), "it ended with {status}: {}", self.last_lines());
        Ok(())
    }

    /// Errors if the process has ended by itself.
    pub(crate) fn ensure_alive(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("the server ended with {status}: {}", self.last_lines()),
        }
    }

    pub(crate) fn last_lines(&self) -> String {
        let lines = self.log.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let last = &lines[lines.len().saturating_sub(5)..];
        let last: Vec<&str> = last.iter().map(|(_, line)| line.as_str()).collect();
        format!("its last lines: {}", last.join(" / "))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already, which is as good.
        let _ended = self.kill();
    }
}

/// The bytes in the line of the start-up text that tells of memory.
fn budget_of(line: &str) -> Option<u64> {
    let mut words =
        line.strip_prefix("Memory:")?.trim_start().strip_prefix("about ")?.split_whitespace();
    let number: f64 = words.next()?.parse().ok()?;
    let unit: u64 = match words.next()?.trim_end_matches(',') {
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    Some((number * unit as f64) as u64)
}

fn find_line(lines: &[(Instant, String)], parts: &[&str]) -> Option<Instant> {
    let holds = |line: &str| parts.iter().all(|part| contains_word(line, part));
    lines.iter().find(|(_, line)| holds(line)).map(|(at, _)| *at)
}

/// Whether `line` holds `part` and not merely something longer: `d1` is not in `d12`.
fn contains_word(line: &str, part: &str) -> bool {
    let ends = |rest: &str| !rest.starts_with(|next: char| next.is_ascii_alphanumeric());
    line.match_indices(part).any(|(at, _)| ends(&line[at + part.len()..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_not_found_in_a_longer_one() {
        assert!(contains_word("drive fenced path=/a/d1 reason=gone", "/a/d1"));
        assert!(contains_word("\"/a/d12\" and \"/a/d1\"", "/a/d1"));
        assert!(!contains_word("drive fenced path=/a/d12", "/a/d1"));
    }

    #[test]
    fn the_budget_is_read_from_the_start_up_text() {
        let line = "Memory:     about 2.5 GiB, and 572.2 MiB for a million keys on each drive";
        assert_eq!(budget_of(line), Some(5 << 29));
        assert_eq!(budget_of("Capacity:   41.4 GiB usable"), None);
        assert_eq!(budget_of("Memory:     about lots"), None);
    }

    #[test]
    fn quorums_are_those_of_the_protocol() {
        let quorum = |drives| Layout { drives, parity: 1 }.write_quorum();
        let table = [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (6, 4), (8, 5), (12, 7), (16, 9)];
        for (drives, expected) in table {
            assert_eq!(quorum(drives), expected, "{drives} drives");
        }
        assert_eq!(Layout::SIXTEEN.to_string(), "12+4");
    }
}

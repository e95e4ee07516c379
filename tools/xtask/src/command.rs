//! Runs other programs: to their end with a time limit, the output shown or kept.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

const POLL: Duration = Duration::from_millis(20);

/// The repository: the parent of `tools/xtask`.
pub(crate) fn repository() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("tools/xtask is two folders deep").to_owned()
}

/// Where the tool keeps what it installs and writes: never under version control.
pub(crate) fn target() -> PathBuf {
    repository().join("target")
}

/// The cargo that runs this tool, in the repository.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(repository());
    // `cargo run` describes this package in the environment; a child is another program, and
    // some subcommands of cargo tell from these names how they were called.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CARGO_PKG_") {
            command.env_remove(name);
        }
    }
    command
}

/// The program of this name on PATH.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
}

/// Runs a program to its end and returns what it printed; anything but success is an error that
/// carries the end of its output.
pub(crate) fn output(command: &mut Command, limit: Duration) -> Result<Vec<u8>> {
    let (status, stdout, stderr) = run(command, limit)?;
    ensure!(status.success(), "{}: {status}: {}", shown(command), tail(&stderr, &stdout));
    Ok(stdout)
}

/// As [`output`], for programs whose refusal is what is wanted: returns their error output.
pub(crate) fn refusal(command: &mut Command, limit: Duration) -> Result<String> {
    let (status, _, stderr) = run(command, limit)?;
    ensure!(!status.success(), "{}: succeeded and should not have", shown(command));
    Ok(String::from_utf8_lossy(&stderr).into_owned())
}

fn run(command: &mut Command, limit: Duration) -> Result<(ExitStatus, Vec<u8>, Vec<u8>)> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().with_context(|| format!("starting {}", shown(command)))?;
    let mut pipes = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
    thread::scope(|scope| {
        let stdout = scope.spawn(|| read_all(&mut pipes.0));
        let stderr = scope.spawn(|| read_all(&mut pipes.1));
        let status = wait(&mut child, limit).with_context(|| shown(command));
        let stdout = stdout.join().expect("reading does not panic");
        let stderr = stderr.join().expect("reading does not panic");
        Ok((status?, stdout, stderr))
    })
}

/// Runs a program to its end, passing each line of its output on to `line` as it comes.
pub(crate) fn lines(
    command: &mut Command,
    limit: Duration,
    mut line: impl FnMut(&str),
) -> Result<ExitStatus> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).process_group(0);
    let mut child = command.spawn().with_context(|| format!("starting {}", shown(command)))?;
    let pipe = child.stdout.take().expect("piped");
    thread::scope(|scope| {
        let waiting = scope.spawn(|| wait(&mut child, limit).with_context(|| shown(command)));
        let mut reader = BufReader::new(pipe);
        let mut bytes = Vec::new();
        while reader.read_until(b'\n', &mut bytes).context("reading output")? > 0 {
            line(String::from_utf8_lossy(&bytes).trim_end());
            bytes.clear();
        }
        waiting.join().expect("waiting does not panic")
    })
}

/// Waits for a child that leads its process group; past the limit the whole group is killed.
fn wait(child: &mut Child, limit: Duration) -> Result<ExitStatus> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().context("waiting for a program")? {
            return Ok(status);
        }
        if start.elapsed() > limit {
            let group = format!("-{}", child.id());
            Command::new("kill")
                .args(["-KILL", "--", &group])
                .status()
                .context("killing a program")?;
            child.wait().context("waiting for a killed program")?;
            bail!("killed after its limit of {} s", limit.as_secs());
        }
        thread::sleep(POLL);
    }
}

fn read_all(pipe: &mut dyn Read) -> Vec<u8> {
    let mut out = Vec::new();
    // A pipe that breaks ends the output; the exit status tells whether that matters.
    let _ended = pipe.read_to_end(&mut out);
    out
}

fn shown(command: &Command) -> String {
    let name = Path::new(command.get_program())
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    command.get_args().fold(name, |line, argument| line + " " + &argument.to_string_lossy())
}

fn tail(stderr: &[u8], stdout: &[u8]) -> String {
    let both = [stdout, stderr].concat();
    let text = String::from_utf8_lossy(&both);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(8)..].join(" / ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn keeps_output_and_tells_why_it_failed() {
        let limit = Duration::from_secs(20);
        assert_eq!(output(&mut shell("echo yes"), limit).expect("runs"), b"yes\n");
        let error = output(&mut shell("echo reason >&2; exit 3"), limit).expect_err("exit 3");
        assert!(error.to_string().contains("reason"), "{error:#}");
        assert_eq!(refusal(&mut shell("echo no >&2; exit 1"), limit).expect("refused"), "no\n");
        assert!(refusal(&mut shell("true"), limit).is_err());
    }

    #[test]
    fn a_program_past_its_limit_is_killed_with_its_children() {
        let started = Instant::now();
        let error = output(&mut shell("sleep 60 & wait"), Duration::from_millis(100));
        assert!(format!("{:#}", error.expect_err("killed")).contains("limit"));
        assert!(started.elapsed() < Duration::from_secs(30), "the pipe was held open");
    }

    #[test]
    fn passes_lines_on_as_they_come() {
        let mut seen = Vec::new();
        let mut command = shell("printf 'a\\nb'");
        let status =
            lines(&mut command, Duration::from_secs(20), |line| seen.push(line.to_owned()));
        assert!(status.expect("runs").success());
        assert_eq!(seen, ["a", "b"]);
    }
}

//! One client at one server: its program, its folder, its bucket, and what it is told about both.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::Site;
use super::install::Program;
use super::report::Checks;
use crate::{command, random};

/// A client that hangs is killed; the slowest takes a tenth of this on two busy cores.
const LIMIT: Duration = Duration::from_secs(300);

pub(crate) struct Job<'a> {
    pub(crate) site: &'a Site,
    pub(crate) program: &'a Program,
    pub(crate) folder: PathBuf,
    pub(crate) bucket: String,
}

impl<'a> Job<'a> {
    pub(crate) fn new(site: &'a Site, program: &'a Program, client: &str) -> Result<Self> {
        let folder = site.folder.join(client);
        fs::create_dir_all(&folder)?;
        let bucket = format!("{}-{}", client.replace('_', "-"), site.tag);
        Ok(Self { site, program, folder, bucket })
    }

    /// What the user of this machine has configured must not reach a client: not their home, not
    /// their settings, not a proxy for loopback addresses.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.program.path);
        for (name, _) in std::env::vars_os() {
            let shown = name.to_string_lossy().to_ascii_lowercase();
            let foreign = ["aws_", "mc_", "rclone_", "restic_", "s3_"];
            if foreign.iter().any(|start| shown.starts_with(start)) || shown.ends_with("_proxy") {
                command.env_remove(name);
            }
        }
        command
            .args(&self.program.arguments)
            .current_dir(&self.folder)
            .env("HOME", &self.folder)
            .env("AWS_CONFIG_FILE", self.folder.join("config"))
            .env("AWS_ACCESS_KEY_ID", &self.site.credentials.access)
            .env("AWS_SECRET_ACCESS_KEY", &self.site.credentials.secret)
            .env("AWS_DEFAULT_REGION", "us-east-1")
            .env("AWS_REGION", "us-east-1")
            // Credentials are here; nobody is to wait for a machine of Amazon's to give some.
            .env("AWS_EC2_METADATA_DISABLED", "true");
        if let Some(certificate) = &self.site.authority {
            // By name of who reads it: AWS' tools, OpenSSL and Go, Node.
            for name in ["AWS_CA_BUNDLE", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS"] {
                command.env(name, certificate);
            }
        }
        command
    }

    /// Runs the client to its end and returns what it printed.
    pub(crate) fn output(&self, arguments: &[&str]) -> Result<Vec<u8>> {
        command::output(self.command().args(arguments), LIMIT)
    }

    /// As [`Job::output`] where the client has to fail; returns its error output.
    pub(crate) fn refusal(&self, arguments: &[&str]) -> Result<String> {
        command::refusal(self.command().args(arguments), LIMIT)
    }

    /// Names of files up and down, the first of these bytes.
    pub(crate) fn up_and_down(&self, length: usize) -> Result<[PathBuf; 2]> {
        let files = ["up", "down"].map(|name| self.path(name));
        fs::write(&files[0], random::bytes(length as u64, length))?;
        Ok(files)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The authority's certificate, where the server speaks HTTPS.
    pub(crate) fn authority(&self) -> Option<&Path> {
        self.site.authority.as_deref()
    }

    /// Bytes of the large file of a folder that is copied: enough for several parts.
    pub(crate) fn large_bytes(&self) -> usize {
        if self.site.short { 9 << 20 } else { 33 << 20 }
    }

    /// Runs a program of ours, which prints a line for each check, and `done` at its end.
    pub(crate) fn run_library(&self, checks: &mut Checks) {
        if let Err(error) = self.follow(checks) {
            // Not a check of its own: it is said only when the program did not get to its end.
            checks.check("it ran to its end", Err(error));
        }
    }

    fn follow(&self, checks: &mut Checks) -> Result<()> {
        self.site.client().make_bucket(&self.bucket)?;
        let form = if self.site.short { "short" } else { "full" };
        let mut command = self.command();
        command.args([&self.site.endpoint, &self.bucket, form]);
        let mut finished = false;
        let status = command::lines(&mut command, LIMIT, |line| {
            finished |= line == "done";
            if !checks.read_line(line) && !finished {
                println!("{line}");
            }
        })?;
        ensure!(status.success(), "the program ended with {status}");
        ensure!(finished, "the program ended early");
        Ok(())
    }
}

//! restic: a repository in a bucket, backups, a check that reads all data, restores, and pruning.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};

use super::job::Job;
use super::report::Checks;
use super::tree;

struct Restic<'a> {
    job: &'a Job<'a>,
    /// `s3:ENDPOINT/BUCKET/repository`.
    repository: String,
}

pub(crate) fn run(job: &Job<'_>, checks: &mut Checks) {
    let repository = format!("s3:{}/{}/repository", job.site.endpoint, job.bucket);
    let restic = Restic { job, repository };
    checks.check("init, which makes the bucket", restic.initialise());
    checks.check("backup, twice", restic.backup());
    checks.check("check --read-data", restic.check());
    checks.check("restore of both snapshots", restic.restore());
    checks.check("forget --prune, check and restore", restic.prune());
}

impl Restic<'_> {
    fn run(&self, arguments: &[&str]) -> Result<String> {
        let common = ["--repo", &self.repository, "--password-file", "password", "--no-cache"];
        let certificate = self.job.authority().map(|path| path.to_string_lossy().into_owned());
        let trust = match &certificate {
            Some(path) => vec!["--cacert", path.as_str()],
            None => Vec::new(),
        };
        let output = self.job.output(&[&common, &trust[..], arguments].concat())?;
        Ok(String::from_utf8_lossy(&output).into_owned())
    }

    fn initialise(&self) -> Result<String> {
        fs::write(self.job.path("password"), "correct horse battery staple")?;
        self.run(&["init"])?;
        Ok(String::new())
    }

    /// The first state of the folder is kept beside it, to compare what is restored.
    fn backup(&self) -> Result<String> {
        tree::make(&self.job.path("source"), self.job.large_bytes())?;
        tree::make(&self.job.path("first"), self.job.large_bytes())?;
        self.run(&["backup", "--tag", "first", "source"])?;
        fs::write(self.job.path("source/one"), b"no longer one byte")?;
        fs::remove_file(self.job.path("source/many/007.txt"))?;
        self.run(&["backup", "--tag", "second", "source"])?;
        let snapshots = self.run(&["snapshots", "--json"])?;
        ensure!(snapshots.matches("\"short_id\"").count() == 2, "{snapshots}");
        Ok(String::new())
    }

    fn check(&self) -> Result<String> {
        let said = self.run(&["check", "--read-data"])?;
        ensure!(said.contains("no errors were found"), "{said}");
        Ok(String::new())
    }

    fn restore(&self) -> Result<String> {
        self.restored("first", &self.job.path("first"))?;
        self.restored("second", &self.job.path("source"))?;
        Ok(String::new())
    }

    fn restored(&self, tag: &str, expected: &Path) -> Result<()> {
        let target = format!("restored-{tag}");
        if self.job.path(&target).exists() {
            fs::remove_dir_all(self.job.path(&target))?;
        }
        self.run(&["restore", "latest", "--tag", tag, "--target", &target])?;
        tree::ensure_same(expected, &self.job.path(&format!("{target}/source")))
    }

    fn prune(&self) -> Result<String> {
        self.run(&["forget", "--keep-last", "1", "--group-by", "host", "--prune"])?;
        self.check()?;
        self.restored("second", &self.job.path("source"))?;
        let snapshots = self.run(&["snapshots", "--json"])?;
        ensure!(snapshots.matches("\"short_id\"").count() == 1, "{snapshots}");
        Ok(String::new())
    }
}

//! s3cmd: a configuration file, copies whole and in parts, folders kept in step, listing, removing.

use std::fs;

use anyhow::{Result, ensure};

use super::job::Job;
use super::report::Checks;
use super::tree;

struct S3cmd<'a> {
    job: &'a Job<'a>,
    /// `s3://BUCKET`.
    bucket: String,
}

pub(crate) fn run(job: &Job<'_>, checks: &mut Checks) {
    let s3cmd = S3cmd { job, bucket: format!("s3://{}", job.bucket) };
    checks.check("mb", s3cmd.make_bucket());
    checks.check("put and get, small and in parts", s3cmd.copy());
    checks.check("sync there and back", s3cmd.sync());
    checks.check("ls --recursive and du", s3cmd.list());
    checks.check("cp, mv and info inside the server", s3cmd.copy_inside());
    checks.check("put --add-header, get --continue", s3cmd.headers_and_continuation());
    checks.check("sync --delete-removed and del", s3cmd.delete());
    checks.check("rb --recursive --force", s3cmd.remove());
}

impl S3cmd<'_> {
    fn run(&self, arguments: &[&str]) -> Result<String> {
        let common = ["--config", "s3cfg", "--no-progress"];
        let output = self.job.output(&[&common, arguments].concat())?;
        Ok(String::from_utf8_lossy(&output).into_owned())
    }

    fn object(&self, key: &str) -> String {
        format!("{}/{key}", self.bucket)
    }

    fn make_bucket(&self) -> Result<String> {
        fs::write(self.job.path("s3cfg"), self.configuration())?;
        self.run(&["mb", &self.bucket])?;
        ensure!(self.run(&["ls"])?.contains(&self.bucket), "the bucket is not listed");
        Ok(String::new())
    }

    fn configuration(&self) -> String {
        let (site, keys) = (self.job.site, &self.job.site.credentials);
        let mut text = format!(
            "[default]\naccess_key = {}\nsecret_key = {}\nhost_base = {host}\n\
             host_bucket = {host}\nbucket_location = us-east-1\nuse_https = {}\n",
            keys.access,
            keys.secret,
            if site.authority.is_some() { "True" } else { "False" },
            host = site.address,
        );
        if let Some(certificate) = self.job.authority() {
            text.push_str(&format!("ca_certs_file = {}\n", certificate.display()));
        }
        text
    }

    fn copy(&self) -> Result<String> {
        for length in [0, 5000, 33 << 20] {
            let [up, down] = self.job.up_and_down(length)?;
            let object = self.object(&format!("copy/{length}"));
            self.run(&["put", "--multipart-chunk-size-mb=8", "up", &object])?;
            self.run(&["get", "--force", &object, "down"])?;
            tree::ensure_same_file(&up, &down)?;
        }
        Ok(String::new())
    }

    fn sync(&self) -> Result<String> {
        let source = self.job.path("source");
        tree::make(&source, self.job.large_bytes())?;
        let object = self.object("tree/");
        self.run(&["sync", "source/", &object])?;
        fs::create_dir_all(self.job.path("back"))?;
        self.run(&["sync", &object, "back/"])?;
        tree::ensure_same(&source, &self.job.path("back"))?;
        let again = self.run(&["sync", "source/", &object])?;
        ensure!(!again.contains("upload:"), "a second sync still finds differences: {again}");
        Ok(String::new())
    }

    fn list(&self) -> Result<String> {
        let listed = self.run(&["ls", "--recursive", &self.object("tree/many/")])?;
        ensure!(listed.lines().count() == 40, "{} of 40 keys", listed.lines().count());
        let top = self.run(&["ls", &self.object("tree/")])?;
        ensure!(top.contains("DIR") && !top.contains("000.txt"), "no common prefixes: {top}");
        let usage = self.run(&["du", &self.object("tree/many/")])?;
        ensure!(usage.contains("40 objects"), "{usage}");
        Ok(String::new())
    }

    fn copy_inside(&self) -> Result<String> {
        let [one, two, three] = ["tree/large.bin", "copied", "moved"].map(|key| self.object(key));
        self.run(&["cp", &one, &two])?;
        self.run(&["mv", &two, &three])?;
        self.run(&["get", "--force", &three, "moved"])?;
        tree::ensure_same_file(&self.job.path("source/large.bin"), &self.job.path("moved"))?;
        let info = self.run(&["info", &three])?;
        let length = format!("File size: {}", self.job.large_bytes());
        ensure!(info.contains(&length), "{info}");
        ensure!(self.run(&["info", &self.bucket])?.contains("us-east-1"), "no region");
        Ok(String::new())
    }

    fn headers_and_continuation(&self) -> Result<String> {
        let [up, down] = self.job.up_and_down(300_000)?;
        let object = self.object("headed");
        let headers = ["--mime-type=text/x-odd", "--add-header=x-amz-meta-who:me"];
        self.run(&[&["put"], &headers[..], &["up", &object]].concat())?;
        let info = self.run(&["info", &object])?;
        ensure!(info.contains("text/x-odd") && info.contains("x-amz-meta-who: me"), "{info}");
        fs::write(&down, &fs::read(&up)?[..100_001])?;
        self.run(&["get", "--continue", &object, "down"])?;
        tree::ensure_same_file(&up, &down)?;
        Ok(String::new())
    }

    fn delete(&self) -> Result<String> {
        fs::remove_dir_all(self.job.path("source/many"))?;
        self.run(&["sync", "--delete-removed", "source/", &self.object("tree/")])?;
        let left = self.run(&["ls", "--recursive", &self.object("tree/many/")])?;
        ensure!(left.is_empty(), "still there: {left}");
        self.run(&["del", &self.object("moved")])?;
        ensure!(self.run(&["ls", &self.object("moved")])?.is_empty(), "`moved` is still there");
        Ok(String::new())
    }

    fn remove(&self) -> Result<String> {
        self.run(&["rb", "--recursive", "--force", &self.bucket])?;
        ensure!(!self.run(&["ls"])?.contains(&self.bucket), "the bucket is still listed");
        Ok(String::new())
    }
}

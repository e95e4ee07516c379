//! rclone: folders kept in step and compared byte by byte, an upload in parts, reading, moving.

use std::fs;

use anyhow::{Result, ensure};

use super::job::Job;
use super::report::Checks;
use super::tree;

struct Rclone<'a> {
    job: &'a Job<'a>,
    /// `site:BUCKET`.
    bucket: String,
}

pub(crate) fn run(job: &Job<'_>, checks: &mut Checks) {
    let rclone = Rclone { job, bucket: format!("site:{}", job.bucket) };
    checks.check("config and mkdir", rclone.make_bucket());
    checks.check("copyto, small and in parts", rclone.copy());
    checks.check("sync and check --download", rclone.sync());
    checks.check("sync of what changed", rclone.sync_again());
    checks.check("lsf, size and lsjson", rclone.list());
    checks.check("cat with a range, moveto", rclone.read_and_move());
    checks.check("link, and copyurl of it", rclone.link());
    checks.check("purge", rclone.remove());
}

impl Rclone<'_> {
    fn bytes(&self, arguments: &[&str]) -> Result<Vec<u8>> {
        // A refused request is a finding here, nothing to try again.
        let common = ["--config", "rclone.conf", "--retries=1", "--low-level-retries=1"];
        let certificate = self.job.authority().map(|path| path.to_string_lossy().into_owned());
        let trust = match &certificate {
            Some(path) => vec!["--ca-cert", path.as_str()],
            None => Vec::new(),
        };
        self.job.output(&[&common, &trust[..], arguments].concat())
    }

    fn run(&self, arguments: &[&str]) -> Result<String> {
        Ok(String::from_utf8_lossy(&self.bytes(arguments)?).into_owned())
    }

    fn object(&self, key: &str) -> String {
        format!("{}/{key}", self.bucket)
    }

    fn make_bucket(&self) -> Result<String> {
        let (site, keys) = (self.job.site, &self.job.site.credentials);
        let configuration = format!(
            "[site]\ntype = s3\nprovider = Other\nendpoint = {}\nregion = us-east-1\n\
             access_key_id = {}\nsecret_access_key = {}\nchunk_size = 8M\nupload_cutoff = 16M\n",
            site.endpoint, keys.access, keys.secret
        );
        fs::write(self.job.path("rclone.conf"), configuration)?;
        self.run(&["mkdir", &self.bucket])?;
        ensure!(
            self.run(&["lsd", "site:"])?.contains(&self.job.bucket),
            "no such bucket is listed"
        );
        Ok(String::new())
    }

    fn copy(&self) -> Result<String> {
        for length in [0, 5000, 64 << 20] {
            let [up, down] = self.job.up_and_down(length)?;
            let object = self.object(&format!("copy/{length}"));
            self.run(&["copyto", "up", &object])?;
            self.run(&["copyto", "--ignore-times", &object, "down"])?;
            tree::ensure_same_file(&up, &down)?;
        }
        Ok(String::new())
    }

    fn sync(&self) -> Result<String> {
        let source = self.job.path("source");
        tree::make(&source, self.job.large_bytes())?;
        let object = self.object("tree");
        self.run(&["sync", "source", &object])?;
        self.run(&["check", "source", &object])?;
        self.run(&["check", "--download", "source", &object])?;
        self.run(&["sync", &object, "back"])?;
        tree::ensure_same(&source, &self.job.path("back"))?;
        Ok(String::new())
    }

    fn sync_again(&self) -> Result<String> {
        let (source, object) = (self.job.path("source"), self.object("tree"));
        fs::remove_dir_all(source.join("many"))?;
        fs::write(source.join("one"), b"no longer one byte")?;
        self.run(&["sync", "source", &object])?;
        self.run(&["check", "--download", "source", &object])?;
        let many = self.run(&["lsf", "--recursive", &self.object("tree")])?;
        ensure!(!many.contains("000.txt"), "removed files are still there");
        Ok(String::new())
    }

    fn list(&self) -> Result<String> {
        let top = self.run(&["lsf", &self.object("tree")])?;
        ensure!(top.contains("folder/\n") && !top.contains("deep"), "{top}");
        let size = self.run(&["size", "--json", &self.object("copy")])?;
        ensure!(size.contains(&format!("\"bytes\":{}", (64 << 20) + 5000)), "{size}");
        // The time of the file, which rclone keeps in the object's metadata.
        let listed = self.run(&["lsjson", &self.object("tree/large.bin")])?;
        ensure!(listed.contains("2023-11-14T22:13:20"), "{listed}");
        Ok(String::new())
    }

    fn read_and_move(&self) -> Result<String> {
        let whole = fs::read(self.job.path("source/large.bin"))?;
        let [large, moved] = ["tree/large.bin", "moved"].map(|key| self.object(key));
        let part = self.bytes(&["cat", "--offset=1048570", "--count=20", &large])?;
        ensure!(part == whole[1_048_570..1_048_590], "other bytes");
        self.run(&["moveto", &large, &moved])?;
        ensure!(self.bytes(&["cat", &moved])? == whole, "other bytes after moveto");
        ensure!(!self.run(&["lsf", &self.object("tree")])?.contains("large.bin"), "still there");
        Ok(String::new())
    }

    fn link(&self) -> Result<String> {
        let url = self.run(&["link", "--expire=5m", &self.object("moved")])?;
        self.run(&["copyurl", url.trim(), &self.object("fetched")])?;
        let fetched = self.bytes(&["cat", &self.object("fetched")])?;
        ensure!(fetched == fs::read(self.job.path("source/large.bin"))?, "other bytes");
        Ok(String::new())
    }

    fn remove(&self) -> Result<String> {
        self.run(&["purge", &self.bucket])?;
        ensure!(!self.run(&["lsd", "site:"])?.contains(&self.job.bucket), "the bucket is left");
        Ok(String::new())
    }
}

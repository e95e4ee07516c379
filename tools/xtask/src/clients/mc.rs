//! MinIO's `mc`: alias, readiness and what an administrator sees first, bucket, copies, a mirrored folder,
//! listing, reading, removing.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::job::Job;
use super::report::Checks;
use super::tree;

struct Mc<'a> {
    job: &'a Job<'a>,
    /// `site/BUCKET`.
    bucket: String,
}

pub(crate) fn run(job: &Job<'_>, checks: &mut Checks) {
    let mc = Mc { job, bucket: format!("site/{}", job.bucket) };
    checks.check("alias set", mc.alias());
    checks.check("ready", mc.ready());
    checks.check("admin info", mc.admin_info());
    checks.check("mb", mc.make_bucket());
    checks.check("cp, small and in parts", mc.copy());
    checks.check("mirror there and back", mc.mirror());
    checks.check("ls --recursive", mc.list());
    checks.check("cat and stat", mc.cat());
    checks.check("rm --recursive and rb", mc.remove());
}

impl Mc<'_> {
    fn run(&self, arguments: &[&str]) -> Result<Vec<u8>> {
        let common = ["--config-dir", "config", "--quiet", "--no-color"];
        self.job.output(&[&common, arguments].concat())
    }

    fn alias(&self) -> Result<String> {
        if let Some(certificate) = self.job.authority() {
            let trusted = self.job.path("config/certs/CAs");
            fs::create_dir_all(&trusted)?;
            fs::copy(certificate, trusted.join("authority.crt"))?;
        }
        let site = self.job.site;
        let keys = &site.credentials;
        let alias = ["alias", "set", "site", &site.endpoint, &keys.access, &keys.secret];
        self.run(&[&alias[..], &["--api", "S3v4"]].concat())?;
        Ok(String::new())
    }

    fn ready(&self) -> Result<String> {
        for arguments in [&["ready", "site"][..], &["ready", "site", "--cluster-read"]] {
            let said = self.run(arguments)?;
            let said = String::from_utf8_lossy(&said);
            ensure!(said.contains("is ready"), "{said}");
        }
        Ok(String::new())
    }

    fn admin_info(&self) -> Result<String> {
        let shown = self.run(&["admin", "info", "site"])?;
        let shown = String::from_utf8_lossy(&shown);
        ensure!(shown.contains("0 drives offline"), "{shown}");
        let said: Value = serde_json::from_slice(&self.run(&["admin", "info", "--json", "site"])?)?;
        let (info, backend) = (&said["info"], &said["info"]["backend"]);
        let numbers = |name: &str| {
            let list = backend[name].as_array().with_context(|| format!("no {name}: {said}"))?;
            list.iter().map(|one| one.as_u64().context("a number")).collect::<Result<Vec<u64>>>()
        };
        let (sets, wide) = (numbers("totalSets")?, numbers("totalDrivesPerSet")?);
        let expected: u64 = sets.iter().zip(&wide).map(|(sets, drives)| sets * drives).sum();
        let servers = info["servers"].as_array().context("no servers")?;
        ensure!(servers.iter().all(|server| server["state"] == "online"), "{said}");
        let drives = servers.iter().filter_map(|server| server["drives"].as_array()).flatten();
        let is_well =
            |drive: &Value| drive["state"] == "ok" && drive["totalspace"].as_u64() > Some(0);
        let well = drives.filter(|drive| is_well(drive)).count() as u64;
        ensure!(expected > 0 && well == expected, "{well} of {expected} drives are well: {said}");
        ensure!(backend["onlineDisks"] == expected, "{said}");
        Ok(format!("{expected} drives"))
    }

    fn make_bucket(&self) -> Result<String> {
        self.run(&["mb", &self.bucket])?;
        self.run(&["mb", "--ignore-existing", &self.bucket])?;
        Ok(String::new())
    }

    fn copy(&self) -> Result<String> {
        for length in [0, 5000, 70 << 20] {
            let [up, down] = self.job.up_and_down(length)?;
            let object = format!("{}/copy/{length}", self.bucket);
            self.run(&["cp", "up", &object])?;
            self.run(&["cp", &object, "down"])?;
            tree::ensure_same_file(&up, &down)?;
        }
        Ok(String::new())
    }

    fn mirror(&self) -> Result<String> {
        let source = self.job.path("source");
        tree::make(&source, self.job.large_bytes())?;
        let object = format!("{}/tree", self.bucket);
        self.run(&["mirror", "source", &object])?;
        self.run(&["mirror", &object, "back"])?;
        tree::ensure_same(&source, &self.job.path("back"))?;
        Ok(String::new())
    }

    fn list(&self) -> Result<String> {
        let listed = self.run(&["ls", "--recursive", &format!("{}/tree/many/", self.bucket)])?;
        let count = String::from_utf8_lossy(&listed).lines().count();
        ensure!(count == 40, "{count} of 40 keys");
        Ok(String::new())
    }

    fn cat(&self) -> Result<String> {
        let object = format!("{}/tree/folder/ünï-日本.bin", self.bucket);
        let shown = self.run(&["cat", &object])?;
        ensure!(shown == fs::read(self.job.path("source/folder/ünï-日本.bin"))?, "other bytes");
        let stat = self.run(&["stat", "--json", &object])?;
        ensure!(String::from_utf8_lossy(&stat).contains("\"size\":70001"), "another size");
        Ok(String::new())
    }

    fn remove(&self) -> Result<String> {
        self.run(&["rm", "--recursive", "--force", &self.bucket])?;
        ensure!(self.run(&["ls", "--recursive", &self.bucket])?.is_empty(), "keys are left");
        self.run(&["rb", &self.bucket])?;
        Ok(String::new())
    }
}

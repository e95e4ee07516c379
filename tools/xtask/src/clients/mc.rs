//! MinIO's `mc`: alias, bucket, copies, a mirrored folder, listing, reading, removing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::{Site, tree};
use crate::command;
use crate::random;
use crate::verdict::Verdict;

const LIMIT: Duration = Duration::from_secs(180);

struct Mc<'a> {
    site: &'a Site,
    program: &'a Path,
    folder: PathBuf,
    /// `site/BUCKET`.
    bucket: String,
}

pub(crate) fn run(site: &Site, program: &Path, verdict: &mut Verdict) {
    let mc = Mc {
        site,
        program,
        folder: site.folder.join("mc"),
        bucket: format!("site/{}", site.bucket("mc")),
    };
    verdict.check("mc alias set", mc.alias());
    verdict.check("mc mb", mc.make_bucket());
    verdict.check("mc cp, small and in parts", mc.copy());
    verdict.check("mc mirror there and back", mc.mirror());
    verdict.check("mc ls --recursive", mc.list());
    verdict.check("mc cat and stat", mc.cat());
    verdict.check("mc rm --recursive and rb", mc.remove());
}

impl Mc<'_> {
    fn run(&self, arguments: &[&str]) -> Result<Vec<u8>> {
        let mut command = Command::new(self.program);
        command.arg("--config-dir").arg(self.folder.join("config")).args(["--quiet", "--no-color"]);
        command.args(arguments);
        self.site.equip(&mut command, &self.folder);
        command::output(&mut command, LIMIT)
    }

    fn alias(&self) -> Result<String> {
        fs::create_dir_all(&self.folder)?;
        let keys = &self.site.credentials;
        self.run(&[
            "alias",
            "set",
            "site",
            &self.site.endpoint,
            &keys.access,
            &keys.secret,
            "--api",
            "S3v4",
        ])?;
        Ok(String::new())
    }

    fn make_bucket(&self) -> Result<String> {
        self.run(&["mb", &self.bucket])?;
        self.run(&["mb", "--ignore-existing", &self.bucket])?;
        Ok(String::new())
    }

    fn copy(&self) -> Result<String> {
        for length in [0, 5000, 70 << 20] {
            let (up, down) = (self.folder.join("up"), self.folder.join("down"));
            fs::write(&up, random::bytes(length as u64, length))?;
            let object = format!("{}/copy/{length}", self.bucket);
            self.run(&["cp", "up", &object])?;
            self.run(&["cp", &object, "down"])?;
            tree::ensure_same_file(&up, &down)?;
        }
        Ok(String::new())
    }

    fn mirror(&self) -> Result<String> {
        let source = self.folder.join("source");
        tree::make(&source, if self.site.short { 9 << 20 } else { 33 << 20 })?;
        let object = format!("{}/tree", self.bucket);
        self.run(&["mirror", "source", &object])?;
        self.run(&["mirror", &object, "back"])?;
        tree::ensure_same(&source, &self.folder.join("back"))?;
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
        ensure!(shown == fs::read(self.folder.join("source/folder/ünï-日本.bin"))?, "other bytes");
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

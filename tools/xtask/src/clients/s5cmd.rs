//! s5cmd: many copies at a time, folders kept in step, wildcards, reading, moving, removing.

use std::fs;

use anyhow::{Result, ensure};

use super::job::Job;
use super::report::Checks;
use super::tree;

struct S5cmd<'a> {
    job: &'a Job<'a>,
    /// `s3://BUCKET`.
    bucket: String,
}

pub(crate) fn run(job: &Job<'_>, checks: &mut Checks) {
    let s5cmd = S5cmd { job, bucket: format!("s3://{}", job.bucket) };
    checks.check("mb", s5cmd.make_bucket());
    checks.check("cp, small and in parts", s5cmd.copy());
    checks.check("cp of a folder there and back", s5cmd.copy_folder());
    checks.check("sync there, again, and --delete", s5cmd.sync());
    checks.check("ls, du and wildcards", s5cmd.list());
    checks.check("cat, head and mv", s5cmd.read_and_move());
    checks.check("cp --no-clobber", s5cmd.no_clobber());
    checks.check("rm and rb", s5cmd.remove());
}

impl S5cmd<'_> {
    fn bytes(&self, arguments: &[&str]) -> Result<Vec<u8>> {
        self.job.output(&[&["--endpoint-url", &self.job.site.endpoint], arguments].concat())
    }

    fn run(&self, arguments: &[&str]) -> Result<String> {
        Ok(String::from_utf8_lossy(&self.bytes(arguments)?).into_owned())
    }

    fn object(&self, key: &str) -> String {
        format!("{}/{key}", self.bucket)
    }

    fn make_bucket(&self) -> Result<String> {
        self.run(&["mb", &self.bucket])?;
        ensure!(self.run(&["ls"])?.contains(&self.bucket), "the bucket is not listed");
        Ok(String::new())
    }

    fn copy(&self) -> Result<String> {
        for length in [0, 5000, 64 << 20] {
            let [up, down] = self.job.up_and_down(length)?;
            let object = self.object(&format!("copy/{length}"));
            self.run(&["cp", "--part-size", "8", "up", &object])?;
            self.run(&["cp", "--part-size", "8", &object, "down"])?;
            tree::ensure_same_file(&up, &down)?;
        }
        Ok(String::new())
    }

    fn copy_folder(&self) -> Result<String> {
        let source = self.job.path("source");
        tree::make(&source, self.job.large_bytes())?;
        self.run(&["cp", "source/", &self.object("tree/")])?;
        self.run(&["cp", &self.object("tree/*"), "back/"])?;
        tree::ensure_same(&source, &self.job.path("back"))?;
        Ok(String::new())
    }

    fn sync(&self) -> Result<String> {
        let object = self.object("kept/");
        self.run(&["sync", "source/", &object])?;
        let again = self.run(&["sync", "source/", &object])?;
        ensure!(again.is_empty(), "a second sync still finds differences: {again}");
        let source = self.job.path("source");
        fs::remove_dir_all(source.join("many"))?;
        self.run(&["sync", "--delete", "source/", &object])?;
        self.run(&["sync", &self.object("kept/*"), "kept/"])?;
        tree::ensure_same(&source, &self.job.path("kept"))?;
        Ok(String::new())
    }

    fn list(&self) -> Result<String> {
        let many = self.run(&["ls", &self.object("tree/many/*")])?;
        ensure!(many.lines().count() == 40, "{} of 40 keys", many.lines().count());
        let some = self.run(&["ls", &self.object("tree/many/00?.txt")])?;
        ensure!(some.lines().count() == 10, "{} of 10 keys: {some}", some.lines().count());
        let top = self.run(&["ls", &self.object("tree/")])?;
        ensure!(top.contains("DIR") && !top.contains("000.txt"), "no common prefixes: {top}");
        let usage = self.run(&["du", &self.object("tree/many/*")])?;
        ensure!(usage.contains("40 objects"), "{usage}");
        Ok(String::new())
    }

    fn read_and_move(&self) -> Result<String> {
        let object = self.object("tree/folder/ünï-日本.bin");
        let whole = fs::read(self.job.path("source/folder/ünï-日本.bin"))?;
        ensure!(self.bytes(&["cat", &object])? == whole, "other bytes");
        let head = self.run(&["head", &object])?;
        ensure!(head.contains("70001"), "{head}");
        let moved = self.object("moved");
        self.run(&["mv", &object, &moved])?;
        ensure!(self.bytes(&["cat", &moved])? == whole, "other bytes after mv");
        self.job
            .refusal(&["--endpoint-url", &self.job.site.endpoint, "head", &object])
            .map(|_| String::new())
    }

    fn no_clobber(&self) -> Result<String> {
        self.job.up_and_down(77)?;
        let moved = self.object("moved");
        self.run(&["cp", "--no-clobber", "up", &moved])?;
        ensure!(self.bytes(&["cat", &moved])?.len() == 70_001, "it was overwritten");
        self.run(&["cp", "up", &moved])?;
        ensure!(self.bytes(&["cat", &moved])?.len() == 77, "it was not overwritten");
        Ok(String::new())
    }

    fn remove(&self) -> Result<String> {
        self.run(&["rm", &self.object("*")])?;
        // A bucket without keys lists as an error of the client's own.
        let left = self.job.refusal(&[
            "--endpoint-url",
            &self.job.site.endpoint,
            "ls",
            &self.object("*"),
        ])?;
        ensure!(left.contains("no object found"), "{left}");
        self.run(&["rb", &self.bucket])?;
        Ok(String::new())
    }
}

//! The AWS command line: copies of many sizes, a folder kept in step, listing, presigned addresses.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::job::Job;
use super::report::Checks;
use super::tree;
use crate::command;

/// A client that waits for an answer it misread stalls for 60 s; a healthy run takes one or two.
const SYNC_LIMIT: Duration = Duration::from_secs(5);
const FETCH_LIMIT: Duration = Duration::from_secs(60);

/// Lengths and what stands for them in the checks' names.
const SIZES: [(&str, usize); 5] = [
    ("0 bytes", 0),
    ("1 byte", 1),
    ("4 KiB", 4096),
    ("1 MiB and a byte", (1 << 20) + 1),
    // Above 8 MiB the command line makes it a multipart upload of 8 MiB parts.
    ("64 MiB in parts", 64 << 20),
];

struct Aws<'a> {
    job: &'a Job<'a>,
    /// `s3://BUCKET`.
    bucket: String,
}

pub(crate) fn run(job: &Job<'_>, checks: &mut Checks) {
    let aws = Aws { job, bucket: format!("s3://{}", job.bucket) };
    checks.check("s3 mb", aws.make_bucket());
    for (name, length) in SIZES {
        checks.check(&format!("s3 cp, {name} up and down"), aws.copy(length));
    }
    checks.check("s3 sync of a folder with an empty file", aws.sync());
    checks.check("s3 ls", aws.list());
    checks.check("s3 cp and mv inside the server", aws.copy_inside());
    checks.check("s3api get-object with a range", aws.range());
    checks.check("s3api put-object --if-none-match", aws.once());
    checks.check("s3 presign, fetched unsigned", aws.presign());
    checks.check("s3 rm --recursive and rb", aws.remove());
}

impl Aws<'_> {
    fn run(&self, arguments: &[&str]) -> Result<String> {
        let output =
            self.job.output(&[&["--endpoint-url", &self.job.site.endpoint], arguments].concat())?;
        Ok(String::from_utf8_lossy(&output).into_owned())
    }

    fn refusal(&self, arguments: &[&str]) -> Result<String> {
        self.job.refusal(&[&["--endpoint-url", &self.job.site.endpoint], arguments].concat())
    }

    fn make_bucket(&self) -> Result<String> {
        // Without this, `presign` makes signatures of version 2.
        let config = "[default]\ns3 =\n  signature_version = s3v4\n";
        fs::write(self.job.path("config"), config)?;
        self.run(&["s3", "mb", &self.bucket])?;
        Ok(String::new())
    }

    fn copy(&self, length: usize) -> Result<String> {
        let [up, down] = self.job.up_and_down(length)?;
        let object = format!("{}/copy/{length}", self.bucket);
        self.run(&["s3", "cp", "--only-show-errors", "up", &object])?;
        self.run(&["s3", "cp", "--only-show-errors", &object, "down"])?;
        tree::ensure_same_file(&up, &down)?;
        Ok(String::new())
    }

    fn sync(&self) -> Result<String> {
        let source = self.job.path("source");
        tree::make(&source, self.job.large_bytes())?;
        let object = format!("{}/tree", self.bucket);
        let started = Instant::now();
        self.run(&["s3", "sync", "--only-show-errors", "source", &object])?;
        let took = started.elapsed();
        self.run(&["s3", "sync", "--only-show-errors", &object, "back"])?;
        tree::ensure_same(&source, &self.job.path("back"))?;
        let again = self.run(&["s3", "sync", "--dryrun", "source", &object])?;
        ensure!(again.trim().is_empty(), "a second sync still finds differences: {again}");
        ensure!(took < SYNC_LIMIT, "it took {:.1} s", took.as_secs_f64());
        Ok(format!("{:.1} s", took.as_secs_f64()))
    }

    fn list(&self) -> Result<String> {
        let all = self.run(&["s3", "ls", "--recursive", &format!("{}/tree/many/", self.bucket)])?;
        ensure!(all.lines().count() == 40, "{} of 40 keys", all.lines().count());
        let top = self.run(&["s3", "ls", &format!("{}/tree/", self.bucket)])?;
        ensure!(
            top.contains("PRE folder/") && top.contains("PRE many/"),
            "no common prefixes: {top}"
        );
        ensure!(top.contains(" empty") && !top.contains("000.txt"), "wrong keys: {top}");
        Ok(String::new())
    }

    fn copy_inside(&self) -> Result<String> {
        let [one, two, three] =
            ["tree/large.bin", "copied", "moved"].map(|key| format!("{}/{key}", self.bucket));
        self.run(&["s3", "cp", "--only-show-errors", &one, &two])?;
        self.run(&["s3", "mv", "--only-show-errors", &two, &three])?;
        self.run(&["s3", "cp", "--only-show-errors", &three, "moved"])?;
        tree::ensure_same_file(&self.job.path("source/large.bin"), &self.job.path("moved"))?;
        let bucket = &self.job.bucket;
        let gone =
            self.refusal(&["s3api", "head-object", "--bucket", bucket, "--key", "copied"])?;
        ensure!(gone.contains("404"), "{gone}");
        Ok(String::new())
    }

    fn range(&self) -> Result<String> {
        let bucket = &self.job.bucket;
        let get = ["s3api", "get-object", "--bucket", bucket, "--key", "tree/large.bin"];
        self.run(&[&get[..], &["--range", "bytes=1048570-1048589", "part"]].concat())?;
        let whole = fs::read(self.job.path("source/large.bin"))?;
        ensure!(fs::read(self.job.path("part"))? == whole[1_048_570..1_048_590], "other bytes");
        Ok(String::new())
    }

    fn once(&self) -> Result<String> {
        let bucket = &self.job.bucket;
        let put =
            ["s3api", "put-object", "--bucket", bucket, "--key", "once", "--body", "source/one"];
        let put = [&put[..], &["--if-none-match", "*"]].concat();
        self.run(&put)?;
        let refused = self.refusal(&put)?;
        ensure!(refused.contains("PreconditionFailed"), "{refused}");
        Ok(String::new())
    }

    fn presign(&self) -> Result<String> {
        let url =
            self.run(&["s3", "presign", &format!("{}/tree/folder/ünï-日本.bin", self.bucket)])?;
        let url = url.lines().last().context("no address printed")?.trim();
        let fetch = "import sys,urllib.request\n\
                     sys.stdout.buffer.write(urllib.request.urlopen(sys.argv[1], timeout=20).read())";
        let mut python = Command::new(self.job.program.path.with_file_name("python"));
        if let Some(certificate) = self.job.authority() {
            python.env("SSL_CERT_FILE", certificate);
        }
        let body = command::output(python.args(["-c", fetch, url]), FETCH_LIMIT)?;
        ensure!(body == fs::read(self.job.path("source/folder/ünï-日本.bin"))?, "other bytes");
        Ok(String::new())
    }

    fn remove(&self) -> Result<String> {
        self.run(&["s3", "rm", "--recursive", "--only-show-errors", &self.bucket])?;
        let bucket = &self.job.bucket;
        let left = self.run(&[
            "s3api",
            "list-objects-v2",
            "--bucket",
            bucket,
            "--query",
            "Contents[].Key",
        ])?;
        ensure!(left.trim() == "null", "still there: {left}");
        self.run(&["s3", "rb", &self.bucket])?;
        Ok(String::new())
    }
}

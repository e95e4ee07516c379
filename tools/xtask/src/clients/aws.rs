//! The AWS command line: copies of many sizes, a folder kept in step, listing, presigned addresses.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::install::Programs;
use super::{Site, tree};
use crate::command;
use crate::random;
use crate::verdict::Verdict;

const LIMIT: Duration = Duration::from_secs(180);
/// A client that waits for an answer it misread stalls for 60 s; a healthy run takes one or two.
const SYNC_LIMIT: Duration = Duration::from_secs(5);

struct Aws<'a> {
    site: &'a Site,
    program: &'a Path,
    folder: PathBuf,
    bucket: String,
}

pub(crate) fn run(site: &Site, programs: &Programs, verdict: &mut Verdict) {
    let aws = match Aws::prepare(site, &programs.aws) {
        Ok(aws) => aws,
        Err(error) => return verdict.check("aws s3 mb", Err(error)),
    };
    for (name, length) in aws.sizes() {
        verdict.check(&format!("aws s3 cp, {name} up and down"), aws.copy(length));
    }
    verdict.check("aws s3 sync of a folder with an empty file", aws.sync());
    verdict.check("aws s3 ls", aws.list());
    verdict.check("aws s3 cp and mv inside the server", aws.copy_inside());
    verdict.check("aws s3api get-object with a range", aws.range());
    verdict.check("aws s3api put-object --if-none-match", aws.once());
    verdict.check("aws s3 presign, fetched unsigned", aws.presign());
    verdict.check("aws s3 rm --recursive and rb", aws.remove());
}

impl<'a> Aws<'a> {
    fn prepare(site: &'a Site, program: &'a Path) -> Result<Self> {
        let folder = site.folder.join("aws");
        fs::create_dir_all(&folder)?;
        // Without this, `presign` makes signatures of version 2.
        fs::write(folder.join("config"), "[default]\ns3 =\n  signature_version = s3v4\n")?;
        let aws = Self { site, program, folder, bucket: format!("s3://{}", site.bucket("aws")) };
        aws.run(&["s3", "mb", &aws.bucket])?;
        Ok(aws)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.program);
        command.args(["--endpoint-url", &self.site.endpoint]).args(arguments);
        self.site.equip(&mut command, &self.folder);
        command
    }

    fn run(&self, arguments: &[&str]) -> Result<String> {
        let output = command::output(&mut self.command(arguments), LIMIT)?;
        Ok(String::from_utf8_lossy(&output).into_owned())
    }

    fn sizes(&self) -> Vec<(&'static str, usize)> {
        vec![
            ("0 bytes", 0),
            ("1 byte", 1),
            ("4 KiB", 4096),
            ("1 MiB and a byte", (1 << 20) + 1),
            // Above 8 MiB the command line makes it a multipart upload of 8 MiB parts.
            ("64 MiB in parts", 64 << 20),
        ]
    }

    fn copy(&self, length: usize) -> Result<String> {
        let (up, down) = (self.folder.join("up"), self.folder.join("down"));
        fs::write(&up, random::bytes(length as u64, length))?;
        let object = format!("{}/copy/{length}", self.bucket);
        self.run(&["s3", "cp", "--only-show-errors", "up", &object])?;
        self.run(&["s3", "cp", "--only-show-errors", &object, "down"])?;
        tree::ensure_same_file(&up, &down)?;
        Ok(String::new())
    }

    fn sync(&self) -> Result<String> {
        let source = self.folder.join("source");
        tree::make(&source, if self.site.short { 9 << 20 } else { 33 << 20 })?;
        let object = format!("{}/tree", self.bucket);
        let started = Instant::now();
        self.run(&["s3", "sync", "--only-show-errors", "source", &object])?;
        let took = started.elapsed();
        self.run(&["s3", "sync", "--only-show-errors", &object, "back"])?;
        tree::ensure_same(&source, &self.folder.join("back"))?;
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
        tree::ensure_same_file(&self.folder.join("source/large.bin"), &self.folder.join("moved"))?;
        let gone = self
            .command(&[
                "s3api",
                "head-object",
                "--bucket",
                &self.site.bucket("aws"),
                "--key",
                "copied",
            ])
            .output()?;
        ensure!(!gone.status.success(), "the source of a move is still there");
        Ok(String::new())
    }

    fn range(&self) -> Result<String> {
        let bucket = self.site.bucket("aws");
        let get = ["s3api", "get-object", "--bucket", &bucket, "--key", "tree/large.bin"];
        self.run(&[&get[..], &["--range", "bytes=1048570-1048589", "part"]].concat())?;
        let whole = fs::read(self.folder.join("source/large.bin"))?;
        ensure!(fs::read(self.folder.join("part"))? == whole[1_048_570..1_048_590], "other bytes");
        Ok(String::new())
    }

    fn once(&self) -> Result<String> {
        let bucket = self.site.bucket("aws");
        let put =
            ["s3api", "put-object", "--bucket", &bucket, "--key", "once", "--body", "source/one"];
        let put = [&put[..], &["--if-none-match", "*"]].concat();
        self.run(&put)?;
        let refused = command::refusal(&mut self.command(&put), LIMIT)?;
        ensure!(refused.contains("PreconditionFailed"), "{refused}");
        Ok(String::new())
    }

    fn presign(&self) -> Result<String> {
        let url =
            self.run(&["s3", "presign", &format!("{}/tree/folder/ünï-日本.bin", self.bucket)])?;
        let url = url.lines().last().context("no address printed")?.trim();
        let fetch = "import sys,urllib.request\n\
                     sys.stdout.buffer.write(urllib.request.urlopen(sys.argv[1], timeout=20).read())";
        let python = self.program.with_file_name("python");
        let body = command::output(Command::new(python).args(["-c", fetch, url]), LIMIT)?;
        ensure!(body == fs::read(self.folder.join("source/folder/ünï-日本.bin"))?, "other bytes");
        Ok(String::new())
    }

    fn remove(&self) -> Result<String> {
        self.run(&["s3", "rm", "--recursive", "--only-show-errors", &self.bucket])?;
        let bucket = self.site.bucket("aws");
        let left = self.run(&[
            "s3api",
            "list-objects-v2",
            "--bucket",
            &bucket,
            "--query",
            "Contents[].Key",
        ])?;
        ensure!(left.trim() == "null", "still there: {left}");
        self.run(&["s3", "rb", &self.bucket])?;
        Ok(String::new())
    }
}

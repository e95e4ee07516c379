//! `basalt inspect` on the drives that a server has used and left: what it shows of objects that are
//! there, and that it notices one changed byte.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::command;
use crate::random;
use crate::s3::Request;
use crate::server::{Launch, Server};
use crate::verdict::Verdict;

const LIMIT: Duration = Duration::from_secs(120);
const BUCKET: &str = "inspected";
const BLOCK_BYTES: u64 = 4096;
/// One that travels with its record, one of one stripe, one of many.
const SIZES: [(&str, usize); 3] = [("small", 700), ("middle", 90_000), ("large", 5_000_000)];

/// Stops the server and looks at its drives.
pub(crate) fn run(launch: &Launch, server: Server, verdict: &mut Verdict) {
    let ready = put_objects(launch).and_then(|()| server.stop());
    let Ok(()) = ready else { return verdict.check("inspect", ready.map(|()| String::new())) };
    verdict.check("inspect --verify on every drive", verify_all(launch));
    verdict.check("inspect --key of objects of all sizes", show_keys(launch));
    verdict.check("inspect --verify finds a changed byte", find_damage(launch));
}

fn put_objects(launch: &Launch) -> Result<()> {
    let mut client = launch.client(LIMIT);
    client.make_bucket(BUCKET)?;
    for (key, length) in SIZES {
        let body = random::bytes(length as u64, length);
        let answer = client.call(&Request::new("PUT", BUCKET, key).body(&body));
        let status = answer.map_err(std::io::Error::from)?.status;
        ensure!(status == 200, "PUT of {key}: status {status}");
    }
    Ok(())
}

fn inspect(launch: &Launch, drive: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(&launch.program);
    command.arg("inspect").arg(drive).args(arguments);
    command
}

fn verify_all(launch: &Launch) -> Result<String> {
    for drive in 0..launch.layout.drives {
        let said = output(&mut inspect(launch, &launch.drive(drive), &["--verify"]))?;
        for expected in ["4 of 4 copies whole", "without a fault, 0 corrupt", "journal ", "keys "] {
            ensure!(said.contains(expected), "drive {drive}: no {expected:?} in {said}");
        }
        ensure!(
            said.contains(&format!("position {drive}\n")),
            "drive {drive} is elsewhere: {said}"
        );
    }
    Ok(String::new())
}

fn show_keys(launch: &Launch) -> Result<String> {
    for (key, length) in SIZES {
        let object = format!("{BUCKET}/{key}");
        let said = output(&mut inspect(launch, &launch.drive(0), &["--key", &object]))?;
        let known = said.contains(&format!("object of {length} bytes")) && said.contains("etag ");
        ensure!(known && said.contains("slot "), "{object}: {said}");
    }
    Ok(String::new())
}

/// Changes one byte in the middle of the large object's shard.
fn find_damage(launch: &Launch) -> Result<String> {
    let (drive, object) = (launch.drive(0), format!("{BUCKET}/large"));
    let said = output(&mut inspect(launch, &drive, &["--key", &object]))?;
    // "... blocks in block 1234 + 56": where the shard stands, and how long it is.
    let place = said.split("blocks in block ").nth(1).context("no place of a shard is shown")?;
    let start: u64 = place.split(' ').next().unwrap_or_default().parse().context(said.clone())?;
    let file = fs::OpenOptions::new().read(true).write(true).open(drive.join("basalt.data"))?;
    let at = (start + 7) * BLOCK_BYTES + 99;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at)?;
    file.write_all_at(&[byte[0] ^ 0x10], at)?;
    file.sync_all()?;
    let refused = command::refusal(&mut inspect(launch, &drive, &["--verify"]), LIMIT)?;
    ensure!(refused.contains("1 of ") && refused.contains("corrupt"), "{refused}");
    file.write_all_at(&byte, at)?;
    file.sync_all()?;
    output(&mut inspect(launch, &drive, &["--verify"])).map(|_| String::new())
}

fn output(command: &mut Command) -> Result<String> {
    Ok(String::from_utf8_lossy(&command::output(command, LIMIT)?).into_owned())
}

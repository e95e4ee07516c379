//! The clients: what each is called, where it comes from, and who does its work.

use anyhow::{Result, ensure};

use super::install::{Go, Origin, Python};
use super::job::Job;
use super::report::Checks;
use super::{aws, mc, rclone, restic, s3cmd, s5cmd};

pub(crate) struct Client {
    pub(crate) name: &'static str,
    /// Installed in a minute, so it is part of the short form.
    pub(crate) short: bool,
    pub(crate) origin: Origin,
    pub(crate) work: Work,
}

#[derive(Clone, Copy)]
pub(crate) enum Work {
    /// A command line, driven from here.
    Commands(fn(&Job<'_>, &mut Checks)),
    /// A library, used by a program of ours that prints a line for each check. It finds an empty
    /// bucket, because not every library can make one.
    Library,
}

const fn command(
    name: &'static str,
    short: bool,
    origin: Origin,
    work: fn(&Job<'_>, &mut Checks),
) -> Client {
    Client { name, short, origin, work: Work::Commands(work) }
}

const fn library(name: &'static str, short: bool, origin: Origin) -> Client {
    Client { name, short, origin, work: Work::Library }
}

/// `package` of the environment of `requirements`, used by `script`.
const fn script(requirements: &'static str, package: &'static str, script: &'static str) -> Origin {
    Origin::Python(Python { requirements, package, program: "python", script: Some(script) })
}

const fn python_command(package: &'static str, program: &'static str) -> Origin {
    Origin::Python(Python { requirements: "aws", package, program, script: None })
}

/// `main` is the folder of the program in its module.
const fn go(
    module: &'static str,
    version: &'static str,
    main: &'static str,
    program: &'static str,
) -> Origin {
    Origin::Go(Go { module, version, main, program })
}

const MC: Origin = go("github.com/minio/mc", "v0.0.0-20250313080218-cf909e1063a9", ".", "mc");
const RCLONE: Origin = go("github.com/rclone/rclone", "v1.76.0", ".", "rclone");
const RESTIC: Origin = go("github.com/restic/restic", "v0.18.1", "./cmd/restic", "restic");
const S5CMD: Origin = go("github.com/peak/s5cmd/v2", "v2.3.0", ".", "s5cmd");

static CLIENTS: [Client; 17] = [
    command("aws", true, python_command("awscli", "aws"), aws::run),
    library("boto3", true, script("aws", "boto3", "use_boto3.py")),
    library("minio-py", true, script("aws", "minio", "use_minio.py")),
    library("aws-sdk-js", false, Origin::Node { package: "@aws-sdk/client-s3", script: "use.mjs" }),
    library("object_store", false, Origin::Cargo { package: "object_store" }),
    command("s3cmd", true, python_command("s3cmd", "s3cmd"), s3cmd::run),
    command("s5cmd", false, S5CMD, s5cmd::run),
    command("rclone", false, RCLONE, rclone::run),
    command("restic", false, RESTIC, restic::run),
    command("mc", true, MC, mc::run),
    library("s3fs", true, script("files", "s3fs", "use_s3fs.py")),
    library("pyarrow", true, script("files", "pyarrow", "use_pyarrow.py")),
    library("polars", false, script("tables", "polars", "use_polars.py")),
    library("duckdb", false, script("tables", "duckdb", "use_duckdb.py")),
    library("deltalake", false, script("tables", "deltalake", "use_deltalake.py")),
    library("pyiceberg", false, script("tables", "pyiceberg", "use_pyiceberg.py")),
    library("zarr", false, script("tables", "zarr", "use_zarr.py")),
];

/// Those of the form that was asked for, or those named.
pub(crate) fn chosen(only: &[String], short: bool) -> Result<Vec<&'static Client>> {
    let names: Vec<&str> = CLIENTS.iter().map(|client| client.name).collect();
    let unknown = only.iter().find(|name| !names.contains(&name.as_str()));
    ensure!(unknown.is_none(), "no client {unknown:?}; there are: {}", names.join(", "));
    let wanted = |client: &Client| match only {
        [] => client.short || !short,
        names => names.iter().any(|name| name == client.name),
    };
    Ok(CLIENTS.iter().filter(|client| wanted(client)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_chosen_by_form_or_by_name() {
        let names = |only: &[&str], short| -> Vec<&str> {
            let only: Vec<String> = only.iter().map(|&name| name.to_owned()).collect();
            chosen(&only, short).expect("known").iter().map(|client| client.name).collect()
        };
        assert!(names(&[], true).contains(&"aws") && !names(&[], true).contains(&"restic"));
        assert!(names(&[], false).len() > names(&[], true).len());
        assert_eq!(names(&["restic", "aws"], true), ["aws", "restic"]);
        let refused = chosen(&["awscli".to_owned()], false).err().expect("refused");
        assert!(refused.to_string().contains("boto3"), "{refused}");
    }
}

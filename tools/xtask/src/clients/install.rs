//! Installs the clients at pinned versions under `target/clients`: once, then they are reused.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::command;

/// Both share one botocore; with the CRT package it computes every checksum that S3 knows.
const PYTHON_PACKAGES: [&str; 2] = ["awscli==1.46.2", "boto3[crt]==1.44.5"];
const MC_MODULE: &str = "github.com/minio/mc";
const MC_VERSION: &str = "v0.0.0-20250313080218-cf909e1063a9";
const LIMIT: Duration = Duration::from_secs(900);

pub(crate) struct Programs {
    pub(crate) python: PathBuf,
    pub(crate) aws: PathBuf,
    /// Absent where Go is: the caller says so.
    pub(crate) mc: Option<PathBuf>,
}

impl Programs {
    pub(crate) fn install() -> Result<Self> {
        let folder = command::target().join("clients");
        fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        let venv = install_python(&folder).context("installing the Python clients")?;
        let mc = install_mc(&folder).context("installing mc")?;
        Ok(Self { python: venv.join("bin/python"), aws: venv.join("bin/aws"), mc })
    }
}

/// The stamp is written last and names the versions, so that an installation that was cut off, or
/// is of other versions, is made anew.
fn install_python(folder: &Path) -> Result<PathBuf> {
    let venv = folder.join("python");
    let stamp = venv.join("installed");
    let wanted = PYTHON_PACKAGES.join("\n");
    if fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) {
        return Ok(venv);
    }
    println!("installing {} into {}", PYTHON_PACKAGES.join(", "), venv.display());
    command::output(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv), LIMIT)?;
    let mut pip = Command::new(venv.join("bin/python"));
    pip.args(["-m", "pip", "install", "--quiet"]).args(PYTHON_PACKAGES);
    command::output(&mut pip, LIMIT)?;
    fs::write(&stamp, wanted)?;
    Ok(venv)
}

fn install_mc(folder: &Path) -> Result<Option<PathBuf>> {
    let bin = folder.join(format!("mc-{MC_VERSION}"));
    let program = bin.join("mc");
    if program.is_file() {
        return Ok(Some(program));
    }
    let usual = PathBuf::from("/usr/local/go/bin/go");
    let Some(go) = command::find_program("go").or(Some(usual).filter(|go| go.is_file())) else {
        return Ok(None);
    };
    println!("installing mc {MC_VERSION} into {}", bin.display());
    let mut install = Command::new(go);
    install.args(["install", &format!("{MC_MODULE}@{MC_VERSION}")]).env("GOBIN", &bin);
    command::output(&mut install, LIMIT)?;
    Ok(Some(program))
}

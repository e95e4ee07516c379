//! Installs clients at pinned versions under `target/clients`: once, then they are reused.
//!
//! The versions stand in `tools/xtask/clients` (requirements and lock files), those of Go programs in
//! the catalogue. What needs a tool that is not on this machine is absent, with the reason.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::command;

const LIMIT: Duration = Duration::from_secs(1800);

pub(crate) enum Origin {
    Python(Python),
    Go(Go),
    Node {
        package: &'static str,
        script: &'static str,
    },
    /// A program of ours in a folder of this name, not part of the workspace.
    Cargo {
        package: &'static str,
    },
}

pub(crate) struct Python {
    /// The file of requirements, without its ending; each is an environment of its own, because
    /// some clients want another botocore than others.
    pub(crate) requirements: &'static str,
    /// Of the requirements the one whose version counts.
    pub(crate) package: &'static str,
    pub(crate) program: &'static str,
    pub(crate) script: Option<&'static str>,
}

pub(crate) struct Go {
    pub(crate) module: &'static str,
    pub(crate) version: &'static str,
    pub(crate) main: &'static str,
    pub(crate) program: &'static str,
}

/// A client ready to run.
pub(crate) struct Program {
    pub(crate) path: PathBuf,
    /// Before all others: the script to run.
    pub(crate) arguments: Vec<OsString>,
    pub(crate) version: String,
}

pub(crate) enum Installed {
    Ready(Program),
    /// What is missing on this machine.
    Absent(&'static str),
}

impl Origin {
    pub(crate) fn install(&self) -> Result<Installed> {
        let folder = command::target().join("clients");
        fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        match self {
            Self::Python(python) => python.install(&folder),
            Self::Go(go) => go.install(&folder),
            Self::Node { package, script } => install_node(&folder, package, script),
            Self::Cargo { package } => install_cargo(&folder, package),
        }
    }
}

impl Python {
    fn install(&self, folder: &Path) -> Result<Installed> {
        let Some(python) = command::find_program("python3") else {
            return Ok(Installed::Absent("there is no python3 on PATH"));
        };
        let requirements = sources().join(format!("python/{}.txt", self.requirements));
        let wanted = fs::read_to_string(&requirements)
            .with_context(|| format!("reading {}", requirements.display()))?;
        let venv = folder.join(format!("python-{}", self.requirements));
        once(&venv, &wanted, || {
            command::output(Command::new(&python).args(["-m", "venv"]).arg(&venv), LIMIT)?;
            let mut pip = Command::new(venv.join("bin/python"));
            pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--requirement"]);
            command::output(pip.arg(&requirements), LIMIT).map(|_| ())
        })?;
        let mut arguments = Vec::new();
        if let Some(script) = self.script {
            // Lines come as they are printed, and no compiled files beside the script.
            arguments.extend(["-u".into(), "-B".into()]);
            arguments.push(sources().join("python").join(script).into_os_string());
        }
        let version = pinned(&wanted, self.package)?;
        Ok(Installed::Ready(Program {
            path: venv.join("bin").join(self.program),
            arguments,
            version,
        }))
    }
}

/// `package==1.2.3` in a file of requirements.
fn pinned(requirements: &str, package: &str) -> Result<String> {
    let mut pins = requirements.lines().filter_map(|line| line.split_once("=="));
    let version = pins.find(|(name, _)| *name == package).map(|(_, version)| version.to_owned());
    version.with_context(|| format!("{package} is not pinned"))
}

impl Go {
    /// The module is built where it stands, with the versions that it names itself.
    fn install(&self, folder: &Path) -> Result<Installed> {
        let usual = PathBuf::from("/usr/local/go/bin/go");
        let Some(go) = command::find_program("go").or(Some(usual).filter(|go| go.is_file())) else {
            return Ok(Installed::Absent("it is built by Go, and there is no `go` on PATH"));
        };
        let place = folder.join(format!("{}-{}", self.program, self.version));
        let path = place.join(self.program);
        once(&place, self.version, || {
            let module = format!("{}@{}", self.module, self.version);
            let mut download = Command::new(&go);
            download.args(["mod", "download", "-json", &module]).current_dir(folder);
            let said: serde_json::Value =
                serde_json::from_slice(&command::output(&mut download, LIMIT)?)?;
            let source = said["Dir"].as_str().context("go mod download names no folder")?;
            let mut build = Command::new(&go);
            build.args(["build", "-mod=readonly", "-o"]).arg(&path).arg(self.main);
            command::output(build.current_dir(source), LIMIT).map(|_| ())
        })?;
        let version = self.version.to_owned();
        Ok(Installed::Ready(Program { path, arguments: Vec::new(), version }))
    }
}

fn install_node(folder: &Path, package: &str, script: &str) -> Result<Installed> {
    let (Some(node), Some(npm)) = (command::find_program("node"), command::find_program("npm"))
    else {
        return Ok(Installed::Absent("there is no node and npm on PATH"));
    };
    let (source, place) = (sources().join("node"), folder.join("node"));
    let manifest = fs::read_to_string(source.join("package.json"))?;
    let lock = fs::read_to_string(source.join("package-lock.json"))?;
    once(&place, &lock, || {
        fs::write(place.join("package.json"), &manifest)?;
        fs::write(place.join("package-lock.json"), &lock)?;
        let mut install = Command::new(npm);
        install.args(["ci", "--ignore-scripts"]).current_dir(&place);
        command::output(&mut install, LIMIT).map(|_| ())
    })?;
    // Beside its packages, because Node looks for them from where the script stands.
    let copy = place.join(script);
    fs::copy(source.join(script), &copy)?;
    let manifest: serde_json::Value = serde_json::from_str(&manifest)?;
    let version = manifest["dependencies"][package].as_str().context("package.json")?.to_owned();
    Ok(Installed::Ready(Program { path: node, arguments: vec![copy.into_os_string()], version }))
}

fn install_cargo(folder: &Path, package: &str) -> Result<Installed> {
    let (source, target) = (sources().join(package), folder.join(package));
    let mut build = command::cargo();
    build.args(["build", "--quiet", "--release", "--locked", "--manifest-path"]);
    build.arg(source.join("Cargo.toml")).arg("--target-dir").arg(&target);
    println!("building the client of {package}");
    command::output(&mut build, LIMIT)?;
    let manifest = fs::read_to_string(source.join("Cargo.toml"))?;
    let line = manifest.lines().find(|line| line.starts_with(&format!("{package} = ")));
    let version = line.and_then(|line| line.split('"').nth(1)).context("the version's pin")?;
    Ok(Installed::Ready(Program {
        path: target.join("release").join(format!("use_{package}")),
        arguments: Vec::new(),
        version: version.trim_start_matches('=').to_owned(),
    }))
}

/// Files of the clients' side: scripts, requirements, lock files.
fn sources() -> PathBuf {
    command::repository().join("tools/xtask/clients")
}

/// Fills a folder. The stamp is written last and names the versions, so that an installation that
/// was cut off, or is of other versions, is made anew.
fn once(place: &Path, wanted: &str, fill: impl FnOnce() -> Result<()>) -> Result<()> {
    let stamp = place.join("installed");
    if fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) {
        return Ok(());
    }
    println!("installing into {}", place.display());
    if place.exists() {
        fs::remove_dir_all(place).with_context(|| format!("emptying {}", place.display()))?;
    }
    fs::create_dir_all(place)?;
    fill()?;
    ensure!(place.is_dir(), "{} was not made", place.display());
    fs::write(&stamp, wanted).with_context(|| format!("writing {}", stamp.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_installation_is_made_again_for_other_versions_and_after_a_failure() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = folder.path().join("tool");
        let mut made = 0;
        let mut install = |wanted: &str, works: bool| {
            let outcome = once(&place, wanted, || {
                made += 1;
                ensure!(works, "broken");
                Ok(())
            });
            (outcome.is_ok(), made)
        };
        assert_eq!(install("1", false), (false, 1));
        assert_eq!(install("1", true), (true, 2));
        assert_eq!(install("1", true), (true, 2));
        assert_eq!(install("2", true), (true, 3));
    }

    #[test]
    fn the_version_is_that_of_the_whole_name() {
        let requirements = "minio-extra==9\nminio==7.2.20\n";
        assert_eq!(pinned(requirements, "minio").expect("pinned"), "7.2.20");
        assert!(pinned(requirements, "boto3").is_err());
    }
}

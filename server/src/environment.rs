//! The environment variables of the server: which there are, and which value holds.
//!
//! Each variable exists as `BASALT_NAME` and as `MINIO_NAME`; the first wins. A file that
//! `CONFIG_ENV_FILE` names overrides the environment of the process. A blank value is no value.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use crate::refusal::Refusal;

const PREFIXES: [&str; 2] = ["BASALT_", "MINIO_"];

/// Names without prefix, and what each says in `--help`. A variable that is not listed here has no
/// effect, and [`Environment::without_effect`] names it.
pub const VARIABLES: [(&str, &str); 26] = [
    ("ROOT_USER", "name of the root user, 3 characters or more"),
    ("ROOT_PASSWORD", "its secret, 8 characters or more"),
    ("ROOT_USER_FILE", "a file that holds the name (also looked up in /run/secrets)"),
    ("ROOT_PASSWORD_FILE", "a file that holds the secret (likewise)"),
    ("USERS_FILE", "a JSON file of users beside root, see docs/authorisation.md"),
    ("ACCESS_KEY", "deprecated form of ROOT_USER"),
    ("SECRET_KEY", "deprecated form of ROOT_PASSWORD"),
    ("ARGS", "directories, in place of those on the command line"),
    ("VOLUMES", "the same, where ARGS is not set"),
    ("ENDPOINTS", "the same, where VOLUMES is not set either"),
    ("ADDRESS", "see --address"),
    ("CONSOLE_ADDRESS", "see --console-address"),
    ("PEER_ADDRESS", "see --peer-address"),
    ("SITE_REGION", "region of the deployment; any region is accepted when it is not set"),
    ("REGION", "older form of SITE_REGION"),
    ("ERASURE_SET_DRIVE_COUNT", "drives in each set, in place of the size chosen by rule"),
    ("STORAGE_CLASS_STANDARD", "parity of STANDARD, as EC:4"),
    ("STORAGE_CLASS_RRS", "parity of REDUCED_REDUNDANCY, as EC:2"),
    ("ALLOW_BUFFERED", "see --allow-buffered: on or off"),
    ("DOMAIN", "domains below which a host's name is a bucket's, separated by commas"),
    ("API_CORS_ALLOW_ORIGIN", "origins that browsers may ask from, as https://*.example.com: *"),
    ("API_STALE_UPLOADS_EXPIRY", "how long a multipart upload may rest: 24h"),
    ("API_STALE_UPLOADS_CLEANUP_INTERVAL", "how often it is looked for those: 6h"),
    ("PROMETHEUS_AUTH_TYPE", "public lets anybody read metrics"),
    ("CONFIG_ENV_FILE", "a file of NAME=VALUE lines that override the environment"),
    ("LOG", "what to log: error, warn, info, debug, trace, or a filter by module"),
];

/// Variables that unit files and images set and that have nothing to tell a server: no warning.
const OF_THE_LAUNCHER: [&str; 5] = ["OPTS", "UPDATE", "CI_CD", "OPERATOR_VERSION", "BROWSER"];

/// A value and the variable that gave it, for messages.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Variable<'a> {
    pub name: String,
    pub value: &'a str,
}

#[derive(Clone, Default, Debug)]
pub struct Environment {
    values: BTreeMap<String, String>,
    home: Option<PathBuf>,
    is_kubernetes: bool,
}

impl Environment {
    /// Takes what concerns the server from the variables of the process, and reads the file that
    /// `CONFIG_ENV_FILE` names. A file that is missing is passed over.
    pub fn load(process: impl Iterator<Item = (OsString, OsString)>) -> Result<Self, Refusal> {
        let mut environment = Self::default();
        for (name, value) in process {
            if name == "HOME" {
                environment.home = Some(PathBuf::from(value));
                continue;
            }
            environment.is_kubernetes |= name == "KUBERNETES_SERVICE_HOST";
            let Ok(name) = name.into_string() else { continue };
            if !is_ours(&name) {
                continue;
            }
            let value = value.into_string().map_err(|_| {
                Refusal::usage(
                    format!("{name} cannot be read"),
                    "its value is not UTF-8",
                    "give it a value in UTF-8",
                )
            })?;
            environment.values.insert(name, value);
        }
        environment.overlay()?;
        Ok(environment)
    }

    fn overlay(&mut self) -> Result<(), Refusal> {
        let Some(file) = self.get("CONFIG_ENV_FILE") else { return Ok(()) };
        let what = format!("{} names {}, which cannot be used", file.name, file.value);
        let text = match std::fs::read_to_string(file.value) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => {
                let remedy = "make the file readable for the user that the server runs as";
                return Err(Refusal::machine(what, error.to_string(), remedy));
            }
        };
        for (line, number) in text.lines().zip(1..) {
            match assignment(line) {
                Ok(None) => {}
                Ok(Some((name, value))) => {
                    if is_ours(name) {
                        self.values.insert(name.to_owned(), value.to_owned());
                    }
                }
                Err(()) => {
                    return Err(Refusal::usage(
                        what,
                        format!("line {number} is not NAME=VALUE"),
                        "write one NAME=VALUE per line; a leading `export` and comments with # \
                         are accepted",
                    ));
                }
            }
        }
        Ok(())
    }

    /// The variable called `name` (without prefix), if it has a value.
    pub fn get(&self, name: &str) -> Option<Variable<'_>> {
        debug_assert!(VARIABLES.iter().any(|(known, _)| *known == name), "{name} is not listed");
        PREFIXES.iter().find_map(|prefix| self.exact(prefix, name))
    }

    /// The first of `names` that has a value; a BASALT_ name wins over every MINIO_ one.
    pub fn first_of(&self, names: &[&str]) -> Option<Variable<'_>> {
        let exact = |prefix: &'static str| names.iter().find_map(|name| self.exact(prefix, name));
        PREFIXES.into_iter().find_map(exact)
    }

    fn exact(&self, prefix: &str, name: &str) -> Option<Variable<'_>> {
        let name = format!("{prefix}{name}");
        // Blank is unset, but what is set is left as it is: a secret may begin with a space.
        let value = self.values.get(&name).filter(|value| !value.trim().is_empty())?;
        Some(Variable { name, value })
    }

    pub fn home(&self) -> Option<&PathBuf> {
        self.home.as_ref()
    }

    /// Kubernetes started the process.
    pub fn is_kubernetes(&self) -> bool {
        self.is_kubernetes
    }

    /// Variables of ours or MinIO's that are set and that nothing here reads.
    pub fn without_effect(&self) -> Vec<&str> {
        let known = |name: &str| {
            let listed = VARIABLES.iter().any(|(known, _)| *known == name);
            listed || OF_THE_LAUNCHER.contains(&name)
        };
        self.values
            .keys()
            .filter(|name| !PREFIXES.iter().any(|p| name.strip_prefix(p).is_some_and(known)))
            .map(String::as_str)
            .collect()
    }
}

fn is_ours(name: &str) -> bool {
    PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Name and value of a line; `None` for an empty one or a comment.
fn assignment(line: &str) -> Result<Option<(&str, &str)>, ()> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let line = line.strip_prefix("export ").unwrap_or(line);
    let (name, value) = line.split_once('=').ok_or(())?;
    let (name, value) = (name.trim(), value.trim());
    if name.is_empty() || name.contains(char::is_whitespace) {
        return Err(());
    }
    Ok(Some((name, unquoted(value))))
}

fn unquoted(value: &str) -> &str {
    let within = |quote| value.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
    within('"').or_else(|| within('\'')).unwrap_or(value)
}

#[cfg(test)]
impl Environment {
    pub(crate) fn of(pairs: &[(&str, &str)]) -> Self {
        let pairs = pairs.iter().map(|(name, value)| (name.into(), value.into()));
        Self::load(pairs).expect("a valid environment")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_basalt_name_wins_and_blank_is_unset() {
        let both = Environment::of(&[("MINIO_REGION", "m"), ("BASALT_REGION", "b")]);
        let region = both.get("REGION").unwrap();
        assert_eq!((region.name.as_str(), region.value), ("BASALT_REGION", "b"));
        let empty = Environment::of(&[("MINIO_REGION", "m"), ("BASALT_REGION", " ")]);
        assert_eq!(empty.get("REGION").unwrap().value, "m");
        assert_eq!(Environment::of(&[("REGION", "x")]).get("REGION"), None);
        assert!(!both.is_kubernetes());
        assert!(Environment::of(&[("KUBERNETES_SERVICE_HOST", "10.96.0.1")]).is_kubernetes());
    }

    #[test]
    fn a_file_overrides_the_process() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("env");
        let text =
            "# comment\n\nexport MINIO_ROOT_USER=\"from file\"\nMINIO_REGION='r=1'\nPATH=x\n";
        std::fs::write(&path, text).unwrap();
        let file = path.to_str().unwrap();
        let environment = Environment::of(&[
            ("MINIO_ROOT_USER", "from process"),
            ("MINIO_ROOT_PASSWORD", "kept"),
            ("MINIO_CONFIG_ENV_FILE", file),
        ]);
        assert_eq!(environment.get("ROOT_USER").unwrap().value, "from file");
        assert_eq!(environment.get("ROOT_PASSWORD").unwrap().value, "kept");
        assert_eq!(environment.get("REGION").unwrap().value, "r=1");
    }

    #[test]
    fn a_missing_file_is_passed_over_and_a_malformed_one_refused() {
        let missing = ("MINIO_CONFIG_ENV_FILE", "/nonexistent/env");
        assert!(Environment::of(&[missing]).get("REGION").is_none());
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("env");
        std::fs::write(&path, "A=1\nwhat is this\n").unwrap();
        let pairs = [("MINIO_CONFIG_ENV_FILE".into(), path.into())];
        let refused = Environment::load(pairs.into_iter()).unwrap_err();
        assert!(refused.cause.contains("line 2"), "{refused}");
    }

    #[test]
    fn variables_without_effect_are_named() {
        let environment = Environment::of(&[
            ("MINIO_OPTS", "--quiet"),
            ("MINIO_KMS_SECRET_KEY", "k"),
            ("BASALT_REGOIN", "typo"),
            ("MINIO_ROOT_USER", "known"),
        ]);
        assert_eq!(environment.without_effect(), ["BASALT_REGOIN", "MINIO_KMS_SECRET_KEY"]);
    }
}

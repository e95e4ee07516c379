//! The root user: from the environment, or made at the first start and kept in a file.
//!
//! The file is `.basalt-root-NAME` beside the first drive, NAME being the name of the drive's
//! directory, of mode 0600. It is a shell fragment of two assignments, so an operator can source it
//! and a unit file can name it as its environment file. It is never overwritten.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::environment::{Environment, Variable};
use crate::refusal::Refusal;

const USER_CHARACTERS_MIN: usize = 3;
const SECRET_CHARACTERS_MIN: usize = 8;
/// Not to be taken for each other by a reader: no 0, 1, l, o. Thirty-two, so that five random bits
/// choose one without bias.
const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
/// 40 and 160 bits of chance.
const GENERATED_USER_CHARACTERS: usize = 8;
const GENERATED_SECRET_CHARACTERS: usize = 32;
const USER_LINE: &str = "BASALT_ROOT_USER=";
const SECRET_LINE: &str = "BASALT_ROOT_PASSWORD=";
/// What MinIO falls back to, and therefore what is tried first against any server.
const NOTORIOUS: &str = "minioadmin";

#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub user: String,
    pub secret: String,
    pub origin: Origin,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    Environment,
    /// A file of ours; `fresh` when this start made it.
    File {
        path: PathBuf,
        fresh: bool,
    },
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials of {} from {:?}", self.user, self.origin)
    }
}

/// What the environment says about the root user.
#[derive(Debug)]
pub struct Found {
    pub credentials: Option<Credentials>,
    pub warnings: Vec<String>,
}

/// `secrets` is where files that are named without a path are looked for as well.
pub fn from_environment(environment: &Environment, secrets: &Path) -> Result<Found, Refusal> {
    let user = value_or_file(environment, "ROOT_USER", "ROOT_USER_FILE", secrets)?;
    let secret = value_or_file(environment, "ROOT_PASSWORD", "ROOT_PASSWORD_FILE", secrets)?;
    let mut warnings = Vec::new();
    let (user, secret) = match (user, secret) {
        (None, None) => {
            let old = (environment.get("ACCESS_KEY"), environment.get("SECRET_KEY"));
            if let (Some(user), Some(secret)) = &old {
                warnings.push(format!(
                    "{} and {} are deprecated; set BASALT_ROOT_USER and BASALT_ROOT_PASSWORD",
                    user.name, secret.name
                ));
            }
            (old.0.map(Text::from), old.1.map(Text::from))
        }
        new => new,
    };
    let (user, secret) = match (user, secret) {
        (None, None) => return Ok(Found { credentials: None, warnings }),
        (Some(user), None) => return Err(half(&user.name, "the secret is not")),
        (None, Some(secret)) => return Err(half(&secret.name, "the name of the user is not")),
        (Some(user), Some(secret)) => (user, secret),
    };
    check(&user, &secret)?;
    if user.text == NOTORIOUS && secret.text == NOTORIOUS {
        warnings.push(format!(
            "the root user is {NOTORIOUS} with the secret {NOTORIOUS}, which anybody tries first; \
             change it before others can reach this server"
        ));
    }
    let (user, secret) = (user.text, secret.text);
    let credentials = Some(Credentials { user, secret, origin: Origin::Environment });
    Ok(Found { credentials, warnings })
}

/// A value, and the variable it came by.
struct Text {
    name: String,
    text: String,
}

impl From<Variable<'_>> for Text {
    fn from(variable: Variable<'_>) -> Self {
        Self { name: variable.name, text: variable.value.to_owned() }
    }
}

fn value_or_file(
    environment: &Environment,
    name: &str,
    file_name: &str,
    secrets: &Path,
) -> Result<Option<Text>, Refusal> {
    if let Some(value) = environment.get(name) {
        return Ok(Some(value.into()));
    }
    let Some(file) = environment.get(file_name) else { return Ok(None) };
    let read = match fs::read_to_string(file.value) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            fs::read_to_string(secrets.join(file.value))
        }
        read => read,
    };
    match read {
        Ok(text) if !text.trim().is_empty() => {
            Ok(Some(Text { name: file.name, text: text.trim().to_owned() }))
        }
        Ok(_) => Err(unusable_file(&file, "it is empty")),
        Err(error) => Err(unusable_file(&file, &error.to_string())),
    }
}

fn unusable_file(file: &Variable<'_>, cause: &str) -> Refusal {
    Refusal::machine(
        format!("{} names {}, which cannot be used", file.name, file.value),
        cause,
        "put the value into that file, readable for the user that the server runs as",
    )
}

fn half(given: &str, missing: &str) -> Refusal {
    Refusal::usage(
        "the root user is only half given",
        format!("{given} is set, {missing}"),
        "set both BASALT_ROOT_USER and BASALT_ROOT_PASSWORD, or neither",
    )
}

fn check(user: &Text, secret: &Text) -> Result<(), Refusal> {
    let too_short = |text: &Text, characters_min: usize| {
        Refusal::usage(
            format!("{} is too short", text.name),
            format!("it has fewer than {characters_min} characters"),
            format!("choose one of {characters_min} characters or more"),
        )
    };
    if user.text.chars().count() < USER_CHARACTERS_MIN {
        return Err(too_short(user, USER_CHARACTERS_MIN));
    }
    if secret.text.chars().count() < SECRET_CHARACTERS_MIN {
        return Err(too_short(secret, SECRET_CHARACTERS_MIN));
    }
    if user.text.contains(['=', ',']) {
        return Err(Refusal::usage(
            format!("{} holds = or ,", user.name),
            "both have a meaning in the header that clients send it in",
            "choose a name without them",
        ));
    }
    Ok(())
}

/// The credentials of a node that was given none: those it made before, or new ones.
pub fn kept_or_made(first_drive: &Path) -> Result<Credentials, Refusal> {
    let path = file_beside(first_drive);
    let unusable = |error: &io::Error| {
        Refusal::machine(
            format!("the root credentials in {} cannot be kept or read", path.display()),
            error.to_string(),
            "make its directory writable for the user that the server runs as, or set \
             BASALT_ROOT_USER and BASALT_ROOT_PASSWORD",
        )
    };
    match fs::metadata(&path) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return make(&path).map_err(|error| unusable(&error));
        }
        Err(error) => return Err(unusable(&error)),
    }
    let text = fs::read_to_string(&path).map_err(|error| unusable(&error))?;
    let mode = fs::metadata(&path).map_err(|error| unusable(&error))?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(Refusal::machine(
            format!("the root credentials in {} are not private", path.display()),
            format!("its mode is {mode:04o}, so others on this machine can read the secret"),
            format!(
                "chmod 600 {}; if others may have read it, delete it to have new ones made",
                path.display()
            ),
        ));
    }
    parse(&text, &path).ok_or_else(|| {
        Refusal::machine(
            format!("the root credentials in {} cannot be understood", path.display()),
            format!("it does not hold the lines {USER_LINE}… and {SECRET_LINE}…"),
            "restore it, or delete it to have new credentials made",
        )
    })
}

fn file_beside(first_drive: &Path) -> PathBuf {
    let name = first_drive.file_name().unwrap_or_default().to_string_lossy();
    first_drive.with_file_name(format!(".basalt-root-{name}"))
}

fn parse(text: &str, path: &Path) -> Option<Credentials> {
    let value = |line: &str| text.lines().find_map(|text| text.trim().strip_prefix(line));
    let (user, secret) = (value(USER_LINE)?, value(SECRET_LINE)?);
    let origin = Origin::File { path: path.to_path_buf(), fresh: false };
    let long_enough = user.len() >= USER_CHARACTERS_MIN && secret.len() >= SECRET_CHARACTERS_MIN;
    long_enough.then(|| Credentials { user: user.to_owned(), secret: secret.to_owned(), origin })
}

/// Makes new credentials and keeps them: after a crash there is the whole file or none.
fn make(path: &Path) -> io::Result<Credentials> {
    let user = format!("root-{}", random_text(GENERATED_USER_CHARACTERS)?);
    let secret = random_text(GENERATED_SECRET_CHARACTERS)?;
    let text = format!(
        "# Root user of the Basalt deployment whose first drive is beside this file.\n\
         {USER_LINE}{user}\n{SECRET_LINE}{secret}\n"
    );
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()?;
    Ok(Credentials { user, secret, origin: Origin::File { path: path.to_path_buf(), fresh: true } })
}

fn random_text(characters: usize) -> io::Result<String> {
    let mut bytes = vec![0; characters];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.into_iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect())
}

#[cfg(test)]
mod tests;

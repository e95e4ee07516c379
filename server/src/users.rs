//! Users beside root, of a file: a JSON list of `{"name": …, "secret": …, "policy": {…}}`.
//!
//! It is read once, at the start. A user's rights come from bucket policies, and from its own policy
//! where it has one.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::environment::Environment;
use crate::policy::{Home, Json, Policy, is_user_name};
use crate::refusal::Refusal;

const SECRET_CHARACTERS_MIN: usize = 8;

#[derive(Clone, PartialEq, Eq)]
pub struct User {
    /// The access key.
    pub name: String,
    pub secret: String,
    pub policy: Option<Policy>,
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "User({})", self.name)
    }
}

/// The users that the environment names a file of.
pub fn from_environment(environment: &Environment) -> Result<Vec<User>, Refusal> {
    let Some(file) = environment.get("USERS_FILE") else { return Ok(Vec::new()) };
    let what = || format!("{} names {}, which cannot be used", file.name, file.value);
    let path = Path::new(file.value);
    let read = fs::read(path).and_then(|text| Ok((text, fs::metadata(path)?.mode() & 0o777)));
    let (text, mode) = read.map_err(|error| {
        let remedy = "make the file readable for the user that the server runs as";
        Refusal::machine(what(), error.to_string(), remedy)
    })?;
    if mode & 0o077 != 0 {
        return Err(Refusal::machine(
            what(),
            format!("its mode is {mode:04o}, so others on this machine can read the secrets"),
            format!("chmod 600 {}", path.display()),
        ));
    }
    parse(&text).map_err(|cause| {
        let remedy = "write a JSON list of {\"name\": …, \"secret\": …, \"policy\": {…}}";
        Refusal::usage(what(), cause, remedy)
    })
}

fn parse(text: &[u8]) -> Result<Vec<User>, String> {
    let Json::List(listed) = Json::parse(text)? else { return Err("it is no list".to_owned()) };
    let mut names = BTreeSet::new();
    let mut users = Vec::with_capacity(listed.len());
    for (index, value) in listed.into_iter().enumerate() {
        let user = user(value).map_err(|error| format!("user {}: {error}", index + 1))?;
        if !names.insert(user.name.clone()) {
            return Err(format!("the user {} occurs twice", user.name));
        }
        users.push(user);
    }
    Ok(users)
}

fn user(value: Json) -> Result<User, String> {
    let Json::Object(members) = value else { return Err("it is no object".to_owned()) };
    let (mut name, mut secret, mut policy) = (None, None, None);
    for (member, value) in members {
        match (member.as_str(), value) {
            ("name", Json::Text(text)) => name = Some(text),
            ("secret", Json::Text(text)) => secret = Some(text),
            ("policy", document @ Json::Object(_)) => {
                let parsed = Policy::of_json(&document, Home::User);
                policy = Some(parsed.map_err(|error| format!("its policy: {error}"))?);
            }
            (other, _) => return Err(format!("its {other} is not what can stand there")),
        }
    }
    let name = name
        .filter(|name| is_user_name(name))
        .ok_or("its name must be 3 to 128 letters, digits and any of + = . @ _ -")?;
    let secret = secret
        .filter(|secret| secret.chars().count() >= SECRET_CHARACTERS_MIN)
        .ok_or_else(|| format!("its secret must have {SECRET_CHARACTERS_MIN} characters"))?;
    Ok(User { name, secret, policy })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn users_have_names_secrets_and_perhaps_policies() {
        let text = br#"[{"name": "alice", "secret": "alice-secret"},
            {"name": "a.b@c", "secret": "eight888", "policy": {"Version": "2012-10-17",
            "Statement": {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}}}]"#;
        let users = parse(text).expect("parses");
        assert_eq!(users[0].name, "alice");
        assert_eq!(users[0].policy, None);
        assert!(users[1].policy.is_some());
        assert!(!format!("{users:?}").contains("eight888"), "a secret is shown");
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for text in [
            "",
            "{}",
            r#"["alice"]"#,
            r#"[{"name": "alice"}]"#,
            r#"[{"secret": "alice-secret"}]"#,
            r#"[{"name": "alice", "secret": "short"}]"#,
            r#"[{"name": "al", "secret": "alice-secret"}]"#,
            r#"[{"name": "a/b/c", "secret": "alice-secret"}]"#,
            r#"[{"name": "a*c", "secret": "alice-secret"}]"#,
            r#"[{"name": "alice", "secret": "alice-secret", "admin": true}]"#,
            r#"[{"name": "alice", "secret": "alice-secret", "secret": "other-secret"}]"#,
            r#"[{"name": "alice", "secret": "alice-secret", "policy": {"Statement": []}}]"#,
            r#"[{"name": "alice", "secret": "alice-secret"},
                {"name": "alice", "secret": "other-secret"}]"#,
        ] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn the_file_is_private() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("users");
        fs::write(&path, r#"[{"name": "alice", "secret": "alice-secret"}]"#).expect("written");
        let environment = Environment::of(&[("BASALT_USERS_FILE", path.to_str().expect("text"))]);
        let with_mode = |mode| {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set");
            from_environment(&environment)
        };
        assert_eq!(with_mode(0o600).expect("users").len(), 1);
        assert!(with_mode(0o640).is_err());
        assert!(with_mode(0o604).is_err());
        assert_eq!(from_environment(&Environment::of(&[])).expect("none"), []);
    }
}

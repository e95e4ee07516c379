//! Whom a statement speaks of.

use super::document::{Effect, texts};
use super::json::Json;

/// The account of everything here, as it may be written in ARNs.
const ACCOUNT: &str = "000000000000";

/// Who asks, where it is not root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    Anonymous,
    /// Of this name, which is the access key.
    User(String),
}

impl Caller {
    pub fn arn(&self) -> Option<String> {
        match self {
            Self::Anonymous => None,
            Self::User(name) => Some(format!("arn:aws:iam:::user/{name}")),
        }
    }
}

/// Names that users can have. No colon, slash, star or comma: they stand in ARNs, credentials and
/// resources.
pub fn is_user_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"+=.@_-".contains(&byte);
    (3..=128).contains(&name.len()) && name.bytes().all(plain)
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Principals {
    who: Who,
    /// Everybody but these.
    negated: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Who {
    Anybody,
    Users(Vec<String>),
}

impl Principals {
    pub(super) fn parse(value: &Json, negated: bool, effect: Effect) -> Result<Self, String> {
        if negated && effect == Effect::Allow {
            return Err("NotPrincipal is possible with the effect Deny only".to_owned());
        }
        let listed = match value {
            Json::Text(text) if text == "*" => vec![text.as_str()],
            Json::Object(members) => match &members[..] {
                [(name, listed)] if name == "AWS" => texts(listed, "Principal")?,
                _ => return Err("a Principal is \"*\" or {\"AWS\": …}".to_owned()),
            },
            _ => return Err("a Principal is \"*\" or {\"AWS\": …}".to_owned()),
        };
        let mut users = Vec::new();
        let mut anybody = false;
        for text in listed {
            match named(text)? {
                Named::Anybody => anybody = true,
                Named::User(name) => users.push(name),
                // Allowed something, nobody gets it. Denied something, nobody would be held back.
                Named::Elsewhere if effect == Effect::Allow => {}
                Named::Elsewhere => {
                    return Err(format!(
                        "the principal {text:?} is nobody here: nothing is denied"
                    ));
                }
            }
        }
        let who = if anybody { Who::Anybody } else { Who::Users(users) };
        Ok(Self { who, negated })
    }

    pub(super) fn include(&self, caller: &Caller) -> bool {
        let named = match (&self.who, caller) {
            (Who::Anybody, _) => true,
            (Who::Users(_), Caller::Anonymous) => false,
            (Who::Users(names), Caller::User(name)) => names.contains(name),
        };
        named != self.negated
    }

    /// Whether these include those whom nobody knows.
    pub(super) fn are_public(&self) -> bool {
        self.include(&Caller::Anonymous)
    }
}

enum Named {
    Anybody,
    User(String),
    Elsewhere,
}

fn named(text: &str) -> Result<Named, String> {
    let invalid = || {
        format!(
            "the principal {text:?} is not valid: name users as arn:aws:iam:::user/NAME, or \"*\" \
             for everybody"
        )
    };
    if text == "*" {
        return Ok(Named::Anybody);
    }
    if is_account(text) {
        return if text == ACCOUNT { Err(invalid()) } else { Ok(Named::Elsewhere) };
    }
    if is_user_name(text) {
        return Ok(Named::User(text.to_owned()));
    }
    let fields: Vec<&str> = text.splitn(6, ':').collect();
    let ["arn", "aws", "iam", "", account, resource] = fields[..] else { return Err(invalid()) };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    if !account.bytes().all(plain) {
        return Err(invalid());
    }
    if !account.is_empty() && account != ACCOUNT {
        let is_whole = resource == "root" || !resource.contains(['*', '?', '$']);
        return if is_whole { Ok(Named::Elsewhere) } else { Err(invalid()) };
    }
    match resource.strip_prefix("user/") {
        Some(name) if is_user_name(name) => Ok(Named::User(name.to_owned())),
        _ => Err(invalid()),
    }
}

fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str, negated: bool, effect: Effect) -> Result<Principals, String> {
        Principals::parse(&Json::parse(json.as_bytes()).expect("JSON"), negated, effect)
    }

    fn user(name: &str) -> Caller {
        Caller::User(name.to_owned())
    }

    #[test]
    fn principals_include_whom_they_name() {
        let table = [
            (r#""*""#, true, true, true),
            (r#"{"AWS": "*"}"#, true, true, true),
            (r#"{"AWS": ["*"]}"#, true, true, true),
            (r#"{"AWS": "alice"}"#, false, true, false),
            (r#"{"AWS": ["bob", "arn:aws:iam:::user/alice"]}"#, false, true, true),
            (r#"{"AWS": "arn:aws:iam::000000000000:user/alice"}"#, false, true, false),
            (r#"{"AWS": "arn:aws:iam::123456789012:user/alice"}"#, false, false, false),
            (r#"{"AWS": "arn:aws:iam::tenant:root"}"#, false, false, false),
            (r#"{"AWS": "123456789012"}"#, false, false, false),
        ];
        for (json, anonymous, alice, bob) in table {
            let principals = parse(json, false, Effect::Allow).expect(json);
            assert_eq!(principals.include(&Caller::Anonymous), anonymous, "{json}");
            assert_eq!(principals.include(&user("alice")), alice, "{json}");
            assert_eq!(principals.include(&user("bob")), bob, "{json}");
        }
    }

    #[test]
    fn all_but_some_are_denied_with_the_unknown_among_them() {
        let others = parse(r#"{"AWS": "alice"}"#, true, Effect::Deny).expect("parses");
        assert!(others.include(&Caller::Anonymous) && others.include(&user("bob")));
        assert!(!others.include(&user("alice")));
        let nobody = parse(r#""*""#, true, Effect::Deny).expect("parses");
        assert!(!nobody.include(&Caller::Anonymous) && !nobody.include(&user("alice")));
    }

    #[test]
    fn whom_nobody_can_be_is_refused() {
        for json in [
            r#""alice""#,
            r#"["*"]"#,
            "1",
            "{}",
            r#"{"AWS": []}"#,
            r#"{"AWS": [1]}"#,
            r#"{"AWS": "*", "Service": "x"}"#,
            r#"{"Service": "logging.s3.amazonaws.com"}"#,
            r#"{"CanonicalUser": "x"}"#,
            r#"{"AWS": "ali*"}"#,
            r#"{"AWS": "000000000000"}"#,
            r#"{"AWS": "arn:aws:iam:::root"}"#,
            r#"{"AWS": "arn:aws:iam:::user/*"}"#,
            r#"{"AWS": "arn:aws:iam::*:user/alice"}"#,
            r#"{"AWS": "arn:aws:iam:::role/alice"}"#,
            r#"{"AWS": "arn:aws:iam:::user/a/b"}"#,
            r#"{"AWS": "arn:aws:sts:::user/alice"}"#,
            r#"{"AWS": "arn:*:iam:::user/alice"}"#,
        ] {
            assert!(parse(json, false, Effect::Allow).is_err(), "{json}");
        }
        let elsewhere = r#"{"AWS": "arn:aws:iam::123456789012:root"}"#;
        assert!(parse(elsewhere, false, Effect::Deny).is_err(), "a denial that denies nobody");
        assert!(parse(elsewhere, true, Effect::Deny).is_err());
        assert!(parse(r#"{"AWS": "alice"}"#, true, Effect::Allow).is_err(), "all but one");
    }
}

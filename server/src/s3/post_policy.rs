//! The policy of a form upload: what its signer allows the form to say. Everything that the form
//! says must be allowed by a condition, and every condition must hold.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Iso8601;

use super::error::{Code, Failure};

/// Longest policy, in bytes of JSON.
const POLICY_BYTES_MAX: usize = 20 << 10;
/// Fields that no condition has to name.
const FREE_FIELDS: [&str; 3] = ["policy", "x-amz-signature", "file"];
const IGNORED_PREFIX: &str = "x-ignore-";

#[derive(Debug, PartialEq, Eq)]
pub(super) struct PostPolicy {
    expires_ms: i128,
    conditions: Vec<Condition>,
    /// Least and most bytes of the file.
    length: Option<(u64, u64)>,
}

#[derive(Debug, PartialEq, Eq)]
struct Condition {
    /// In lower case, without the dollar sign.
    field: String,
    matcher: Matcher,
}

#[derive(Debug, PartialEq, Eq)]
enum Matcher {
    Equals(String),
    StartsWith(String),
}

impl PostPolicy {
    /// The policy in base64, as the form carries it and its signature covers it.
    pub(super) fn parse(encoded: &str) -> Result<Self, Failure> {
        let json = BASE64.decode(encoded).map_err(|_| invalid("it is not base64"))?;
        if json.len() > POLICY_BYTES_MAX {
            return Err(invalid("it is too long"));
        }
        let root: Value =
            serde_json::from_slice(&json).map_err(|_| invalid("it is not valid JSON"))?;
        let root = root.as_object().ok_or_else(|| invalid("it is no object"))?;
        if let Some(other) = root.keys().find(|key| *key != "expiration" && *key != "conditions") {
            return Err(invalid(&format!("it holds {other}")));
        }
        let expiration = root.get("expiration").and_then(Value::as_str);
        let expires_ms = expiration
            .and_then(|text| OffsetDateTime::parse(text, &Iso8601::PARSING).ok())
            .map(|moment| moment.unix_timestamp_nanos() / 1_000_000)
            .ok_or_else(|| invalid("it lacks a valid expiration"))?;
        let listed = root.get("conditions").and_then(Value::as_array);
        let mut policy = Self { expires_ms, conditions: Vec::new(), length: None };
        for condition in listed.ok_or_else(|| invalid("it lacks its conditions"))? {
            policy.add(condition)?;
        }
        Ok(policy)
    }

    fn add(&mut self, condition: &Value) -> Result<(), Failure> {
        match condition {
            Value::Object(pairs) => {
                for (field, value) in pairs {
                    let value = value.as_str().ok_or_else(|| invalid("a value is no text"))?;
                    let matcher = Matcher::Equals(value.to_owned());
                    self.conditions.push(Condition { field: field.to_ascii_lowercase(), matcher });
                }
                Ok(())
            }
            Value::Array(items) => self.add_list(items),
            _ => Err(invalid("a condition is neither an object nor a list")),
        }
    }

    fn add_list(&mut self, items: &[Value]) -> Result<(), Failure> {
        let [Value::String(operator), first, second] = items else {
            return Err(invalid("a condition has not three parts"));
        };
        let operator = operator.to_ascii_lowercase();
        if operator == "content-length-range" {
            let number = |value: &Value| match value {
                Value::Number(number) => number.as_u64(),
                Value::String(text) => super::auth::parse_decimal(text),
                _ => None,
            };
            let (Some(least), Some(most)) = (number(first), number(second)) else {
                return Err(invalid("content-length-range needs two numbers"));
            };
            // Of several ranges all must hold.
            let (there_least, there_most) = self.length.unwrap_or((0, u64::MAX));
            self.length = Some((least.max(there_least), most.min(there_most)));
            return Ok(());
        }
        let (Some(field), Some(value)) = (first.as_str(), second.as_str()) else {
            return Err(invalid("a condition's field and value must be texts"));
        };
        let field = field.strip_prefix('$').ok_or_else(|| invalid("a field lacks its $"))?;
        let matcher = match operator.as_str() {
            "eq" => Matcher::Equals(value.to_owned()),
            "starts-with" => Matcher::StartsWith(value.to_owned()),
            _ => return Err(invalid("a condition's operator is unknown")),
        };
        self.conditions.push(Condition { field: field.to_ascii_lowercase(), matcher });
        Ok(())
    }

    /// Fails unless the policy allows a form of these fields at this time. The bucket and the key
    /// must be among them, as they will be used.
    pub(super) fn check(&self, fields: &[(String, String)], now_ms: u64) -> Result<(), Failure> {
        if i128::from(now_ms) >= self.expires_ms {
            return Err(denied("Policy expired.".to_owned()));
        }
        for condition in &self.conditions {
            let value = fields.iter().find(|(name, _)| *name == condition.field);
            let holds = value.is_some_and(|(_, value)| condition.matcher.holds(value));
            if !holds {
                return Err(denied(format!("Policy Condition failed: {}.", condition.field)));
            }
        }
        let is_named = |name: &str| self.conditions.iter().any(|one| one.field == name);
        let is_free = |name: &str| FREE_FIELDS.contains(&name) || name.starts_with(IGNORED_PREFIX);
        match fields.iter().find(|(name, _)| !is_free(name) && !is_named(name)) {
            Some((name, _)) => Err(denied(format!("Extra input fields: {name}."))),
            None => Ok(()),
        }
    }

    pub(super) fn check_length(&self, size: u64) -> Result<(), Failure> {
        let Some((least, most)) = self.length else { return Ok(()) };
        if size < least {
            let text = format!("The file has {size} bytes; the policy asks for {least}.");
            return Err(Failure::new(Code::EntityTooSmall, text));
        }
        if size > most {
            let text = format!("The file has {size} bytes; the policy allows {most}.");
            return Err(Failure::new(Code::EntityTooLarge, text));
        }
        Ok(())
    }
}

impl Matcher {
    fn holds(&self, value: &str) -> bool {
        match self {
            Self::Equals(wanted) => value == wanted,
            Self::StartsWith(start) => value.starts_with(start.as_str()),
        }
    }
}

fn invalid(what: &str) -> Failure {
    Failure::new(Code::InvalidPolicyDocument, format!("The policy is not valid: {what}."))
}

fn denied(text: String) -> Failure {
    Failure::new(Code::AccessDenied, format!("Invalid according to Policy: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_369_353_600_000;

    fn policy(conditions: &str) -> Result<PostPolicy, Code> {
        let json = format!(
            "{{\"expiration\": \"2013-05-24T00:00:01.000Z\", \"conditions\": {conditions}}}"
        );
        PostPolicy::parse(&BASE64.encode(json)).map_err(|failure| failure.code)
    }

    fn check(conditions: &str, fields: &[(&str, &str)]) -> Result<(), Code> {
        let fields: Vec<(String, String)> =
            fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let policy = policy(conditions).expect("valid");
        policy.check(&fields, NOW_MS).map_err(|failure| failure.code)
    }

    #[test]
    fn every_condition_must_hold_and_every_field_be_allowed() {
        let conditions = r#"[{"bucket": "b"}, ["starts-with", "$Key", "user/"],
            ["eq", "$acl", "private"], ["starts-with", "$x-amz-meta-a", ""]]"#;
        let good = [("bucket", "b"), ("key", "user/1"), ("acl", "private"), ("x-amz-meta-a", "x")];
        assert_eq!(check(conditions, &good), Ok(()));
        let ignored = [("policy", "p"), ("x-amz-signature", "s"), ("x-ignore-me", "i")];
        assert_eq!(check(conditions, &[&good[..], &ignored].concat()), Ok(()));
        let denied = Err(Code::AccessDenied);
        for place in 0..good.len() {
            let mut fewer = good.to_vec();
            fewer.remove(place);
            assert_eq!(check(conditions, &fewer), denied, "without {:?}", good[place]);
            let mut wrong = good.to_vec();
            wrong[place].1 = "Other";
            let is_free_value = good[place].0 == "x-amz-meta-a";
            assert_eq!(check(conditions, &wrong) == denied, !is_free_value, "{:?}", good[place]);
        }
        assert_eq!(check(conditions, &[&good[..], &[("content-type", "x")]].concat()), denied);
        assert_eq!(check("[]", &[("bucket", "b")]), denied, "even the bucket must be allowed");
    }

    #[test]
    fn a_policy_ends() {
        let policy = policy("[]").expect("valid");
        assert_eq!(policy.check(&[], NOW_MS + 999), Ok(()));
        let failure = policy.check(&[], NOW_MS + 1000).expect_err("expired");
        assert_eq!(failure.code, Code::AccessDenied);
    }

    #[test]
    fn the_length_of_the_file_is_limited() {
        let policy =
            policy(r#"[["content-length-range", 2, "4"], ["content-length-range", 0, 3]]"#);
        let policy = policy.expect("valid");
        let check = |size| policy.check_length(size).map_err(|failure| failure.code);
        assert_eq!(
            [1, 2, 3, 4].map(check),
            [Err(Code::EntityTooSmall), Ok(()), Ok(()), Err(Code::EntityTooLarge)]
        );
    }

    #[test]
    fn policies_that_are_not_valid_are_refused() {
        for conditions in [
            "{}",
            "[1]",
            "[{\"a\": 1}]",
            "[[\"eq\", \"$a\"]]",
            "[[\"eq\", \"a\", \"b\"]]",
            "[[\"like\", \"$a\", \"b\"]]",
            "[[\"content-length-range\", 0]]",
            "[[\"content-length-range\", -1, 0]]",
            "[[\"content-length-range\", \"x\", 0]]",
        ] {
            assert_eq!(policy(conditions), Err(Code::InvalidPolicyDocument), "{conditions}");
        }
        for json in [
            "",
            "[]",
            "{\"conditions\": []}",
            "{\"expiration\": \"2013-05-24T00:00:01Z\"}",
            "{\"expiration\": \"soon\", \"conditions\": []}",
            "{\"expiration\": \"2013-05-24T00:00:01Z\", \"CONDITIONS\": []}",
        ] {
            assert!(PostPolicy::parse(&BASE64.encode(json)).is_err(), "{json}");
        }
        assert!(PostPolicy::parse("???").is_err());
    }
}

//! Conditions: an operator, a key, and the values that the key is compared with.
//!
//! What could not be compared is refused when the policy is read, so that an evaluation meets nothing
//! that it does not understand. The rules for keys that are absent or have several values are S3's: an
//! absent key fails an operator and satisfies a negated one, whatever `IfExists` and the two forms for
//! sets say otherwise.

use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use time::OffsetDateTime;
use time::format_description::well_known::Iso8601;

use super::json::Json;
use super::key::{Fact, Facts, Key, Kind, Name};
use super::pattern::{Pattern, Syntax};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Condition {
    key: Key,
    set: Set,
    negated: bool,
    if_exists: bool,
    test: Test,
}

/// How the several values of a key count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Set {
    Single,
    ForAll,
    ForAny,
}

/// What a value of the request is compared with. One of the values must fit.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    Text(Vec<Pattern>),
    FoldedText(Vec<Pattern>),
    Arn(Vec<[Pattern; 6]>),
    Number(Comparison, Vec<i64>),
    /// Seconds since 1970.
    Date(Comparison, Vec<i64>),
    Flag(Vec<bool>),
    Bytes(Vec<Vec<u8>>),
    Address(Vec<Network>),
    /// Whether the key is to be absent.
    Absent(Vec<bool>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Comparison {
    fn holds(self, value: i64, bound: i64) -> bool {
        match self {
            Self::Equal => value == bound,
            Self::Less => value < bound,
            Self::LessOrEqual => value <= bound,
            Self::Greater => value > bound,
            Self::GreaterOrEqual => value >= bound,
        }
    }
}

/// Addresses that begin with the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    bits: u8,
}

/// What an operator is called, without its prefix and suffix.
#[derive(Clone, Copy)]
enum Family {
    Text { wildcards: bool, folded: bool },
    Arn,
    Number(Comparison),
    Date(Comparison),
    Flag,
    Bytes,
    Address,
    Absent,
}

fn family(name: &str) -> Option<(Family, bool)> {
    use Comparison as C;
    let text = |wildcards, folded| Family::Text { wildcards, folded };
    Some(match name {
        "StringEquals" => (text(false, false), false),
        "StringNotEquals" => (text(false, false), true),
        "StringEqualsIgnoreCase" => (text(false, true), false),
        "StringNotEqualsIgnoreCase" => (text(false, true), true),
        "StringLike" => (text(true, false), false),
        "StringNotLike" => (text(true, false), true),
        "NumericEquals" => (Family::Number(C::Equal), false),
        "NumericNotEquals" => (Family::Number(C::Equal), true),
        "NumericLessThan" => (Family::Number(C::Less), false),
        "NumericLessThanEquals" => (Family::Number(C::LessOrEqual), false),
        "NumericGreaterThan" => (Family::Number(C::Greater), false),
        "NumericGreaterThanEquals" => (Family::Number(C::GreaterOrEqual), false),
        "DateEquals" => (Family::Date(C::Equal), false),
        "DateNotEquals" => (Family::Date(C::Equal), true),
        "DateLessThan" => (Family::Date(C::Less), false),
        "DateLessThanEquals" => (Family::Date(C::LessOrEqual), false),
        "DateGreaterThan" => (Family::Date(C::Greater), false),
        "DateGreaterThanEquals" => (Family::Date(C::GreaterOrEqual), false),
        "Bool" => (Family::Flag, false),
        "BinaryEquals" => (Family::Bytes, false),
        "IpAddress" => (Family::Address, false),
        "NotIpAddress" => (Family::Address, true),
        "ArnEquals" | "ArnLike" => (Family::Arn, false),
        "ArnNotEquals" | "ArnNotLike" => (Family::Arn, true),
        "Null" => (Family::Absent, false),
        _ => return None,
    })
}

impl Condition {
    pub(super) fn parse(
        operator: &str,
        key: &str,
        values: &Json,
        variables: bool,
    ) -> Result<Self, String> {
        let (set, rest) = match operator.split_once(':') {
            None => (Set::Single, operator),
            Some(("ForAllValues", rest)) => (Set::ForAll, rest),
            Some(("ForAnyValue", rest)) => (Set::ForAny, rest),
            Some(_) => return Err(format!("the operator {operator:?} is unknown")),
        };
        let (rest, if_exists) = match rest.strip_suffix("IfExists") {
            None => (rest, false),
            Some(rest) => (rest, true),
        };
        let (family, negated) =
            family(rest).ok_or_else(|| format!("the operator {operator:?} is unknown"))?;
        let is_null = matches!(family, Family::Absent);
        if is_null && (if_exists || set != Set::Single) {
            return Err(format!("the operator {operator:?} is unknown"));
        }
        let name = key;
        let key =
            Key::parse(name).ok_or_else(|| format!("the condition key {name:?} is unknown"))?;
        if !is_null && (set == Set::Single) && key.kind() == Kind::Texts {
            return Err(format!("{name} has several values: use ForAllValues or ForAnyValue"));
        }
        if !family.suits(&key) {
            return Err(format!("the operator {operator} does not suit the key {name}"));
        }
        let values = match values {
            Json::List(values) => &values[..],
            value => std::slice::from_ref(value),
        };
        if values.is_empty() {
            return Err(format!("{operator} of {name} has no values"));
        }
        let values = values.iter().map(text_of).collect::<Option<Vec<String>>>();
        let values = values.ok_or_else(|| format!("a value of {name} is no text"))?;
        let test = Test::parse(family, &values, variables)
            .map_err(|error| format!("{operator} of {name}: {error}"))?;
        Ok(Self { key, set, negated, if_exists, test })
    }

    pub(super) fn holds(&self, facts: &Facts) -> bool {
        let fact = facts.get(&self.key);
        if let Test::Absent(wanted) = &self.test {
            return wanted.contains(&fact.is_none());
        }
        let Some(fact) = fact else {
            return match self.set {
                Set::ForAll => true,
                Set::ForAny => self.if_exists,
                Set::Single => self.negated || self.if_exists,
            };
        };
        let fits = |value: &Value<'_>| self.test.fits(value, facts) != self.negated;
        let mut values = values_of(fact).into_iter();
        match self.set {
            Set::ForAny => values.any(|value| fits(&value)),
            Set::Single | Set::ForAll => values.all(|value| fits(&value)),
        }
    }

    pub(super) fn uses_existing_tags(&self) -> bool {
        let variable = match &self.test {
            Test::Text(patterns) | Test::FoldedText(patterns) => {
                patterns.iter().any(Pattern::uses_existing_tags)
            }
            Test::Arn(arns) => arns.iter().flatten().any(Pattern::uses_existing_tags),
            _ => false,
        };
        variable || matches!(self.key, Key::ExistingObjectTag(_))
    }

    /// Whether this holds a statement to callers or addresses that are written down.
    pub(super) fn narrows(&self) -> bool {
        if self.negated || self.if_exists || self.set == Set::ForAll {
            return false;
        }
        let Key::Named(name) = self.key else { return false };
        match (&self.test, name) {
            (Test::Address(networks), Name::SourceIp) => {
                networks.iter().all(|network| !network.is_wide())
            }
            (Test::Text(texts) | Test::FoldedText(texts), Name::UserId | Name::UserName) => {
                texts.iter().all(Pattern::is_fixed)
            }
            (Test::Arn(arns), Name::PrincipalArn) => arns.iter().flatten().all(Pattern::is_fixed),
            _ => false,
        }
    }
}

impl Family {
    /// Whether values of the key can be compared so.
    fn suits(self, key: &Key) -> bool {
        let kind = key.kind();
        match self {
            Self::Absent => true,
            Self::Text { .. } => {
                matches!(kind, Kind::Text | Kind::Texts | Kind::Arn | Kind::Flag | Kind::Number)
            }
            Self::Arn => kind == Kind::Arn,
            Self::Number(_) => kind == Kind::Number || *key == Key::Named(Name::EpochTime),
            Self::Date(_) => kind == Kind::Date,
            Self::Flag => kind == Kind::Flag,
            Self::Bytes => matches!(kind, Kind::Text | Kind::Texts),
            Self::Address => kind == Kind::Address,
        }
    }
}

/// One value of the request's.
enum Value<'a> {
    Text(&'a str),
    Number(i64),
    Moment(i64),
    Flag(bool),
    Address(IpAddr),
}

fn values_of(fact: &Fact) -> Vec<Value<'_>> {
    match fact {
        Fact::Text(text) => vec![Value::Text(text)],
        Fact::Texts(texts) => texts.iter().map(|text| Value::Text(text)).collect(),
        Fact::Number(number) => vec![Value::Number(*number)],
        Fact::Moment(seconds) => vec![Value::Moment(*seconds)],
        Fact::Flag(flag) => vec![Value::Flag(*flag)],
        Fact::Address(address) => vec![Value::Address(*address)],
    }
}

impl Test {
    fn parse(family: Family, values: &[String], variables: bool) -> Result<Self, String> {
        let patterns = |wildcards| {
            let syntax = Syntax { wildcards, variables };
            values.iter().map(|value| Pattern::parse(value, syntax)).collect::<Result<Vec<_>, _>>()
        };
        Ok(match family {
            Family::Text { wildcards, folded: false } => Self::Text(patterns(wildcards)?),
            Family::Text { wildcards, folded: true } => Self::FoldedText(patterns(wildcards)?),
            Family::Arn => {
                let arns = patterns(true)?.iter().map(Pattern::arn_fields).collect::<Option<_>>();
                Self::Arn(arns.ok_or("a value is no ARN")?)
            }
            Family::Number(comparison) => {
                Self::Number(comparison, all(values, number).ok_or("a value is no whole number")?)
            }
            Family::Date(comparison) => {
                Self::Date(comparison, all(values, seconds).ok_or("a value is no date")?)
            }
            Family::Flag => Self::Flag(all(values, flag).ok_or("a value is not true or false")?),
            Family::Bytes => Self::Bytes(
                all(values, |value| BASE64.decode(value).ok()).ok_or("a value is not base64")?,
            ),
            Family::Address => Self::Address(
                all(values, Network::parse).ok_or("a value is no address and no network")?,
            ),
            Family::Absent => {
                Self::Absent(all(values, flag).ok_or("a value is not true or false")?)
            }
        })
    }

    fn fits(&self, value: &Value<'_>, facts: &Facts) -> bool {
        match (self, value) {
            (Self::Text(patterns), value) => {
                let text = value.text();
                patterns.iter().any(|pattern| pattern.matches(&text, facts))
            }
            (Self::FoldedText(patterns), value) => {
                let text = value.text();
                patterns.iter().any(|pattern| pattern.matches_folded(&text, facts))
            }
            (Self::Arn(arns), Value::Text(text)) => {
                let fields: Vec<&str> = text.splitn(6, ':').collect();
                let fits = |arn: &[Pattern; 6]| {
                    fields.len() == 6
                        && arn.iter().zip(&fields).all(|(one, field)| one.matches(field, facts))
                };
                arns.iter().any(fits)
            }
            (Self::Number(comparison, bounds), Value::Number(value) | Value::Moment(value))
            | (Self::Date(comparison, bounds), Value::Moment(value)) => {
                bounds.iter().any(|bound| comparison.holds(*value, *bound))
            }
            (Self::Flag(wanted), Value::Flag(flag)) => wanted.contains(flag),
            (Self::Bytes(wanted), Value::Text(text)) => {
                wanted.iter().any(|bytes| bytes == text.as_bytes())
            }
            (Self::Address(networks), Value::Address(address)) => {
                networks.iter().any(|network| network.holds(*address))
            }
            _ => unreachable!("operators are compared with the kinds of their keys when read"),
        }
    }
}

impl Value<'_> {
    fn text(&self) -> String {
        match self {
            Self::Text(text) => (*text).to_owned(),
            Self::Number(number) => number.to_string(),
            Self::Flag(flag) => flag.to_string(),
            Self::Moment(_) | Self::Address(_) => {
                unreachable!("texts are not compared with dates and addresses")
            }
        }
    }
}

impl Network {
    fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            None => (text, None),
            Some((address, bits)) => (address, Some(u8::try_from(number(bits)?).ok()?)),
        };
        let address: IpAddr = address.parse().ok()?;
        let bits_max = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(bits_max);
        if bits > bits_max {
            return None;
        }
        // Connections over IPv4 are told with addresses of IPv4, whatever the socket.
        match (address, address.to_canonical()) {
            (IpAddr::V6(_), IpAddr::V4(mapped)) if bits >= 96 => {
                Some(Self { address: IpAddr::V4(mapped), bits: bits - 96 })
            }
            _ => Some(Self { address, bits }),
        }
    }

    fn holds(self, address: IpAddr) -> bool {
        let outside = 32 - u32::from(self.bits.min(32));
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let differs = network.to_bits() ^ address.to_bits();
                differs.checked_shr(outside).unwrap_or(0) == 0
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let differs = network.to_bits() ^ address.to_bits();
                differs.checked_shr(128 - u32::from(self.bits)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }

    /// So wide that it tells nobody apart.
    fn is_wide(self) -> bool {
        self.bits < if self.address.is_ipv4() { 8 } else { 32 }
    }
}

/// Numbers and booleans may be written bare.
fn text_of(value: &Json) -> Option<String> {
    match value {
        Json::Text(text) => Some(text.clone()),
        Json::Integer(number) => Some(number.to_string()),
        Json::Flag(flag) => Some(flag.to_string()),
        Json::Null | Json::List(_) | Json::Object(_) => None,
    }
}

fn all<T>(values: &[String], parse: impl Fn(&str) -> Option<T>) -> Option<Vec<T>> {
    values.iter().map(|value| parse(value)).collect()
}

fn number(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if is_plain { text.parse().ok() } else { None }
}

fn flag(text: &str) -> Option<bool> {
    if text.eq_ignore_ascii_case("true") {
        Some(true)
    } else if text.eq_ignore_ascii_case("false") {
        Some(false)
    } else {
        None
    }
}

/// A date of ISO 8601, with or without its time, or seconds since 1970.
fn seconds(text: &str) -> Option<i64> {
    if let Some(seconds) = number(text) {
        return Some(seconds);
    }
    let text = if text.contains('T') { text.to_owned() } else { format!("{text}T00:00:00Z") };
    Some(OffsetDateTime::parse(&text, &Iso8601::PARSING).ok()?.unix_timestamp())
}

#[cfg(test)]
mod tests;

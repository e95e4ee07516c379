//! From the text of a policy to its statements. Everything that is not understood is an error with
//! its reason; what passes can be evaluated without meeting anything unknown.

use std::collections::BTreeSet;

use super::action::{self, Action, Scope};
use super::condition::Condition;
use super::json::Json;
use super::key::Facts;
use super::pattern::{Pattern, Syntax};
use super::principal::Principals;

/// Longest policy, in bytes.
pub const POLICY_BYTES_MAX: usize = 20 << 10;
/// What stands before a resource's bucket. Accounts and regions have no meaning here.
const RESOURCE_PREFIXES: [&str; 2] = ["arn:aws:s3:::", "arn:aws:s3::*:"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    Allow,
    Deny,
}

/// Whose policy a document is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Home<'a> {
    /// This bucket's: it names principals, and resources in the bucket.
    Bucket(&'a str),
    /// A user's: it names no principals.
    User,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Statement {
    pub(super) effect: Effect,
    /// `None`: of whom the policy is.
    pub(super) principals: Option<Principals>,
    pub(super) actions: BTreeSet<Action>,
    pub(super) resources: Vec<Pattern>,
    /// Everything but `resources`.
    pub(super) not_resources: bool,
    pub(super) conditions: Vec<Condition>,
}

/// The statements of a document.
pub(super) fn parse(text: &[u8], home: Home<'_>) -> Result<Vec<Statement>, String> {
    if text.len() > POLICY_BYTES_MAX {
        return Err(format!("it has {} bytes; {POLICY_BYTES_MAX} are allowed", text.len()));
    }
    read(&Json::parse(text)?, home)
}

pub(super) fn read(document: &Json, home: Home<'_>) -> Result<Vec<Statement>, String> {
    let members = members(document, "the policy", &["Version", "Id", "Statement"])?;
    let variables = match get(members, "Version") {
        None => false,
        Some(Json::Text(version)) if version == "2012-10-17" => true,
        Some(Json::Text(version)) if version == "2008-10-17" => false,
        Some(_) => return Err("the Version must be 2012-10-17".to_owned()),
    };
    if !matches!(get(members, "Id"), None | Some(Json::Text(_))) {
        return Err("the Id must be a text".to_owned());
    }
    let listed = match get(members, "Statement") {
        Some(Json::List(list)) => &list[..],
        Some(one @ Json::Object(_)) => std::slice::from_ref(one),
        _ => return Err("it lacks its Statement".to_owned()),
    };
    if listed.is_empty() {
        return Err("it has no statements".to_owned());
    }
    let mut names = BTreeSet::new();
    let mut statements = Vec::with_capacity(listed.len());
    for (index, value) in listed.iter().enumerate() {
        let (name, statement) = Statement::parse(value, home, variables)
            .map_err(|error| format!("statement {}: {error}", index + 1))?;
        if name.is_some_and(|name| !names.insert(name)) {
            return Err(format!("statement {}: its Sid occurs twice", index + 1));
        }
        statements.push(statement);
    }
    Ok(statements)
}

const ELEMENTS: [&str; 9] = [
    "Sid",
    "Effect",
    "Principal",
    "NotPrincipal",
    "Action",
    "NotAction",
    "Resource",
    "NotResource",
    "Condition",
];

impl Statement {
    /// The statement, and its Sid where that is not empty.
    fn parse<'a>(
        value: &'a Json,
        home: Home<'_>,
        variables: bool,
    ) -> Result<(Option<&'a str>, Self), String> {
        let members = members(value, "it", &ELEMENTS)?;
        let name = match get(members, "Sid") {
            None => None,
            Some(Json::Text(name)) => Some(name.as_str()).filter(|name| !name.is_empty()),
            Some(_) => return Err("its Sid must be a text".to_owned()),
        };
        let effect = match get(members, "Effect") {
            Some(Json::Text(effect)) if effect == "Allow" => Effect::Allow,
            Some(Json::Text(effect)) if effect == "Deny" => Effect::Deny,
            _ => return Err("its Effect must be Allow or Deny".to_owned()),
        };
        let principals = match (home, either(members, "Principal", "NotPrincipal")?) {
            (Home::Bucket(_), None) => return Err("it lacks its Principal".to_owned()),
            (Home::User, Some(_)) => return Err("a user's policy names no principals".to_owned()),
            (Home::Bucket(_), Some((value, negated))) => {
                Some(Principals::parse(value, negated, effect)?)
            }
            (Home::User, None) => None,
        };
        let (listed, not_actions) =
            either(members, "Action", "NotAction")?.ok_or("it lacks its Action")?;
        let named = texts(listed, "Action")?;
        let named = named.into_iter().map(action::named).collect::<Result<Vec<_>, _>>()?;
        let (listed, not_resources) =
            either(members, "Resource", "NotResource")?.ok_or("it lacks its Resource")?;
        let resources = texts(listed, "Resource")?
            .into_iter()
            .map(|text| resource(text, home, variables))
            .collect::<Result<Vec<_>, _>>()?;
        if let Home::Bucket(bucket) = home
            && !not_actions
            && !not_resources
        {
            check_application(&named, &resources, bucket)?;
        }
        let mut actions: BTreeSet<Action> = named.into_iter().flatten().collect();
        if not_actions {
            actions = Action::ALL.iter().copied().filter(|one| !actions.contains(one)).collect();
        }
        let conditions = match get(members, "Condition") {
            None => Vec::new(),
            Some(value) => conditions(value, variables)?,
        };
        let statement = Self { effect, principals, actions, resources, not_resources, conditions };
        Ok((name, statement))
    }
}

/// The path that a resource's ARN names: a bucket, or a bucket and a key.
fn resource(text: &str, home: Home<'_>, variables: bool) -> Result<Pattern, String> {
    let invalid = |why: &str| format!("the resource {text:?} is not valid: {why}");
    let path = RESOURCE_PREFIXES.iter().find_map(|prefix| text.strip_prefix(prefix));
    let path = if text == "*" { Some(text) } else { path };
    let path = path
        .filter(|path| !path.is_empty() && !path.starts_with('/'))
        .ok_or_else(|| invalid("it must be of the form arn:aws:s3:::bucket/key"))?;
    let pattern = Pattern::parse(path, Syntax { wildcards: true, variables })?;
    if let Home::Bucket(bucket) = home {
        let named = pattern.before_slash();
        if named.has_variable() || !named.matches(bucket, &Facts::default()) {
            return Err(invalid("a bucket's policy speaks of that bucket and what is in it"));
        }
    }
    Ok(pattern)
}

/// An action that no resource of its statement is for never comes into force, which nobody means.
fn check_application(
    named: &[BTreeSet<Action>],
    resources: &[Pattern],
    bucket: &str,
) -> Result<(), String> {
    let nothing = Facts::default();
    let applies = |action: &Action| {
        resources.iter().any(|resource| match action.scope() {
            Scope::Service => false,
            Scope::Bucket => resource.matches(bucket, &nothing),
            Scope::Object => resource.may_hold_slash(),
        })
    };
    match named.iter().find(|actions| !actions.iter().any(applies)) {
        None => Ok(()),
        Some(actions) => {
            let name = actions.first().expect("a pattern names one").name();
            Err(format!("the action s3:{name} does not apply to any of its resources"))
        }
    }
}

fn conditions(value: &Json, variables: bool) -> Result<Vec<Condition>, String> {
    let Json::Object(operators) = value else {
        return Err("its Condition must be an object".to_owned());
    };
    let mut conditions = Vec::new();
    for (operator, keys) in operators {
        let Json::Object(keys) = keys else {
            return Err(format!("the operator {operator} must hold an object"));
        };
        if keys.is_empty() {
            return Err(format!("the operator {operator} has no keys"));
        }
        for (key, values) in keys {
            conditions.push(Condition::parse(operator, key, values, variables)?);
        }
    }
    Ok(conditions)
}

/// A text, or a list of one or more.
pub(super) fn texts<'a>(value: &'a Json, what: &str) -> Result<Vec<&'a str>, String> {
    let list = match value {
        Json::List(list) => &list[..],
        one => std::slice::from_ref(one),
    };
    let text = |item: &'a Json| match item {
        Json::Text(text) => Some(text.as_str()),
        _ => None,
    };
    let texts = list.iter().map(text).collect::<Option<Vec<_>>>();
    texts
        .filter(|texts| !texts.is_empty())
        .ok_or_else(|| format!("{what} must be a text or a list of texts"))
}

type Members = [(String, Json)];

fn members<'a>(value: &'a Json, what: &str, known: &[&str]) -> Result<&'a Members, String> {
    let Json::Object(members) = value else { return Err(format!("{what} must be an object")) };
    match members.iter().find(|(name, _)| !known.contains(&name.as_str())) {
        None => Ok(members),
        Some((name, _)) => Err(format!("{what} holds the unknown element {name:?}")),
    }
}

fn get<'a>(members: &'a Members, name: &str) -> Option<&'a Json> {
    members.iter().find(|(there, _)| there == name).map(|(_, value)| value)
}

/// One of two elements that exclude each other, and whether it is the negated one.
fn either<'a>(
    members: &'a Members,
    plain: &str,
    negated: &str,
) -> Result<Option<(&'a Json, bool)>, String> {
    match (get(members, plain), get(members, negated)) {
        (None, None) => Ok(None),
        (Some(value), None) => Ok(Some((value, false))),
        (None, Some(value)) => Ok(Some((value, true))),
        (Some(_), Some(_)) => Err(format!("it holds both {plain} and {negated}")),
    }
}

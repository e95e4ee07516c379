//! What policies say about a request.
//!
//! [`Policy::parse`] refuses what it does not understand; [`decide`] answers with the policies that
//! apply: a denial of any wins, else one must allow, and nothing else allows anything. Plain
//! synchronous code: it knows neither HTTP nor the store, and reads no clock.

mod action;
mod condition;
mod document;
mod json;
mod key;
mod pattern;
mod principal;

pub use action::{Action, Scope};
pub use document::{Effect, Home, POLICY_BYTES_MAX};
pub use json::Json;
pub use key::{Fact, Facts, Key, Name};
pub use principal::{Caller, is_user_name};

use document::Statement;

/// A policy that was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    statements: Vec<Statement>,
}

/// What an action is done to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource<'a> {
    Service,
    Bucket(&'a str),
    Object(&'a str, &'a str),
}

impl Resource<'_> {
    /// As resources of policies write it, behind the prefix of their ARNs.
    fn path(self) -> String {
        match self {
            Self::Service => String::new(),
            Self::Bucket(bucket) => bucket.to_owned(),
            Self::Object(bucket, key) => format!("{bucket}/{key}"),
        }
    }
}

/// Who wants to do what.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    pub caller: &'a Caller,
    pub action: Action,
    pub resource: Resource<'a>,
    pub facts: &'a Facts,
}

/// What policies say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Denied,
    Allowed,
    /// Nothing, which allows nothing.
    Silent,
}

impl Policy {
    /// The reason is a phrase that says what is wrong.
    pub fn parse(text: &[u8], home: Home<'_>) -> Result<Self, String> {
        Ok(Self { statements: document::parse(text, home)? })
    }

    /// As [`Self::parse`], where the policy is part of a larger document.
    pub fn of_json(document: &Json, home: Home<'_>) -> Result<Self, String> {
        Ok(Self { statements: document::read(document, home)? })
    }

    fn verdict(&self, question: &Question<'_>) -> Verdict {
        let path = question.resource.path();
        let applies = |effect: Effect| {
            self.statements.iter().any(|one| one.effect == effect && one.applies(question, &path))
        };
        if applies(Effect::Deny) {
            Verdict::Denied
        } else if applies(Effect::Allow) {
            Verdict::Allowed
        } else {
            Verdict::Silent
        }
    }

    /// Whether an answer may depend on the tags that an object has.
    pub fn uses_existing_tags(&self) -> bool {
        self.statements.iter().any(|statement| {
            let patterns = &statement.resources;
            patterns.iter().any(pattern::Pattern::uses_existing_tags)
                || statement.conditions.iter().any(condition::Condition::uses_existing_tags)
        })
    }

    /// Whether this allows something to everybody, from everywhere.
    pub fn is_public(&self) -> bool {
        self.statements.iter().any(|statement| {
            let narrow = statement.conditions.iter().any(condition::Condition::narrows);
            let principals = statement.principals.as_ref();
            statement.effect == Effect::Allow
                && principals.is_some_and(principal::Principals::are_public)
                && !narrow
        })
    }
}

impl Statement {
    fn applies(&self, question: &Question<'_>, path: &str) -> bool {
        let is_meant =
            self.principals.as_ref().is_none_or(|principals| principals.include(question.caller));
        if !is_meant || !self.actions.contains(&question.action) {
            return false;
        }
        let is_named = self.resources.iter().any(|one| one.matches(path, question.facts));
        is_named != self.not_resources
            && self.conditions.iter().all(|condition| condition.holds(question.facts))
    }
}

/// What all policies that apply say together.
pub fn decide<'a>(
    policies: impl IntoIterator<Item = &'a Policy>,
    question: &Question<'_>,
) -> Verdict {
    let mut verdict = Verdict::Silent;
    for policy in policies {
        match policy.verdict(question) {
            Verdict::Denied => return Verdict::Denied,
            Verdict::Allowed => verdict = Verdict::Allowed,
            Verdict::Silent => {}
        }
    }
    verdict
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;

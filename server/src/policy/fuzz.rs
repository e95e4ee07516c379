//! Policies and patterns that nobody would write.

use super::pattern::{Pattern, Syntax};
use super::*;
use crate::fuzz::{Chance, run};

const POLICIES: &[&[u8]] = &[
    br#"{"Version":"2012-10-17","Id":"x","Statement":[{"Sid":"a","Effect":"Allow","Principal":"*",
    "Action":["s3:GetObject","s3:List*"],"Resource":["arn:aws:s3:::bucket","arn:aws:s3:::bucket/*"]}]}"#,
    br#"{"Version":"2012-10-17","Statement":{"Effect":"Deny","NotPrincipal":{"AWS":["alice",
    "arn:aws:iam:::user/bob"]},"NotAction":"s3:PutObject","NotResource":
    "arn:aws:s3:::bucket/home/${aws:username}/*","Condition":{"StringLikeIfExists":{"s3:prefix":
    ["a*","${s3:ExistingObjectTag/a, 'b'}"]},"Bool":{"aws:SecureTransport":false}}}}"#,
    br#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"*"},"Action":"*",
    "Resource":"*","Condition":{"IpAddress":{"aws:SourceIp":["10.0.0.0/8","::1/128"]},
    "DateLessThan":{"aws:CurrentTime":"2030-01-01T00:00:00Z"},"NumericLessThan":{"s3:max-keys":10},
    "ForAllValues:StringEquals":{"s3:RequestObjectTagKeys":["a","b"]},"Null":{"aws:userid":"true"},
    "BinaryEquals":{"aws:username":"YQ=="},"ArnLike":{"aws:PrincipalArn":"arn:aws:iam:::user/*"}}}]}"#,
];
const WORDS: &[&str] = &[
    "\"",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "null",
    "true",
    "-1",
    "1e9",
    "\\u0000",
    "\\ud800",
    "${",
    "}",
    "${*}",
    "*",
    "?",
    "Deny",
    "Allow",
    "NotPrincipal",
    "NotAction",
    "NotResource",
    "IfExists",
    "ForAnyValue:",
    "aws:SourceIp",
    "s3:*",
    "arn:aws:s3:::bucket/",
    "0000-00-00",
    "/129",
    "é",
    "\0",
    "99999999999999999999",
    "9999-12-31T23:59:60+23:59",
    "-9999-01-01",
];

fn facts(chance: &mut Chance) -> Facts {
    let mut facts = Facts::default();
    let mut text = |name, choices: &[&str]| {
        if chance.below(2) == 0 {
            facts.set_text(name, chance.one_of(choices));
        }
    };
    text(Name::UserName, &["alice", "bob", "*"]);
    text(Name::UserId, &["alice", ""]);
    text(Name::Prefix, &["a", "", "home/"]);
    text(Name::PrincipalArn, &["arn:aws:iam:::user/alice", ":::::", "x"]);
    facts.set(Key::Named(Name::MaxKeys), Fact::Number(chance.next() as i64));
    facts.set(Key::Named(Name::CurrentTime), Fact::Moment(chance.next() as i64));
    facts.set(Key::Named(Name::SecureTransport), Fact::Flag(chance.below(2) == 0));
    let addresses = ["10.0.0.1", "::1", "::ffff:10.0.0.1", "2001:db8::1"];
    let address = chance.one_of(&addresses).parse().expect("an address");
    facts.set(Key::Named(Name::SourceIp), Fact::Address(address));
    facts.set(Key::Named(Name::RequestObjectTagKeys), Fact::Texts(vec!["a".into(), "c".into()]));
    facts.set(Key::ExistingObjectTag("a".into()), Fact::Text("*".into()));
    facts
}

/// Nothing panics, what is understood is understood again, a denial of everything denies, and what one
/// reader of JSON takes, another one takes too.
#[test]
fn policies() {
    let denial = br#"{"Statement":{"Effect":"Deny","Principal":"*","Action":"*","Resource":"*"}}"#;
    let denial = Policy::parse(denial, Home::Bucket("bucket")).expect("parses");
    let mut understood = 0;
    run("policies", |chance| {
        let text = chance.spoiled(POLICIES, WORDS);
        let home = if chance.below(8) == 0 { Home::User } else { Home::Bucket("bucket") };
        if Json::parse(&text).is_ok() {
            assert!(serde_json::from_slice::<serde_json::Value>(&text).is_ok());
        }
        let Ok(policy) = Policy::parse(&text, home) else { return };
        understood += 1;
        assert_eq!(Policy::parse(&text, home).as_ref(), Ok(&policy));
        let (caller, facts) = (Caller::User("alice".to_owned()), facts(chance));
        for caller in [&caller, &Caller::Anonymous] {
            let action = Action::ALL[chance.below(Action::ALL.len())];
            let keys = ["key", "home/alice/x", "home/*/x", ""];
            let resource = match chance.below(3) {
                0 => Resource::Bucket("bucket"),
                _ => Resource::Object("bucket", chance.one_of(&keys)),
            };
            let question = Question { caller, action, resource, facts: &facts };
            let alone = decide([&policy], &question);
            assert_eq!(decide([&policy], &question), alone);
            assert_eq!(decide([&policy, &denial], &question), Verdict::Denied);
            assert_eq!(decide([&denial, &policy], &question), Verdict::Denied);
            if alone == Verdict::Allowed && matches!(home, Home::Bucket(_)) {
                let other = Resource::Object("elsewhere", "key");
                let names_all = policy.statements.iter().any(|statement| {
                    let wide = |one: &Pattern| one.matches("elsewhere/key", &facts);
                    statement.not_resources || statement.resources.iter().any(wide)
                });
                let beyond = Question { resource: other, ..question };
                assert!(names_all || decide([&policy], &beyond) != Verdict::Allowed);
            }
        }
        policy.is_public();
        policy.uses_existing_tags();
    });
    assert!(understood > 100, "the inputs are all nonsense: {understood}");
}

/// Says the same as matching by the definition.
#[test]
fn patterns() {
    fn matches(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), _) => (0..=text.len()).any(|taken| matches(rest, &text[taken..])),
            (Some((b'?', rest)), Some((_, after))) => matches(rest, after),
            (Some((wanted, rest)), Some((there, after))) => wanted == there && matches(rest, after),
            _ => false,
        }
    }
    let facts = Facts::default();
    run("patterns", |chance| {
        let mut text = |letters: &[u8], most: usize| -> Vec<u8> {
            (0..chance.below(most)).map(|_| letters[chance.below(letters.len())]).collect()
        };
        let (pattern, text) = (text(b"ab*?/", 9), text(b"ab/", 12));
        let syntax = Syntax { wildcards: true, variables: true };
        let pattern_text = std::str::from_utf8(&pattern).expect("ASCII");
        let parsed = Pattern::parse(pattern_text, syntax).expect("no variables");
        let expected = matches(&pattern, &text);
        let text = std::str::from_utf8(&text).expect("ASCII");
        assert_eq!(parsed.matches(text, &facts), expected, "{pattern_text} {text}");
    });
}

//! Whole policies.

use super::*;

const BUCKET: &str = "bucket";

fn parse(statements: &str) -> Result<Policy, String> {
    let text = format!(r#"{{"Version": "2012-10-17", "Statement": [{statements}]}}"#);
    Policy::parse(text.as_bytes(), Home::Bucket(BUCKET))
}

fn policy(statements: &str) -> Policy {
    parse(statements).expect(statements)
}

fn of_user(statements: &str) -> Policy {
    let text = format!(r#"{{"Version": "2012-10-17", "Statement": [{statements}]}}"#);
    Policy::parse(text.as_bytes(), Home::User).expect("parses")
}

fn allow(action: &str, resource: &str) -> String {
    statement("Allow", "*", action, resource)
}

fn deny(action: &str, resource: &str) -> String {
    statement("Deny", "*", action, resource)
}

fn statement(effect: &str, principal: &str, action: &str, resource: &str) -> String {
    format!(
        r#"{{"Effect": "{effect}", "Principal": {{"AWS": "{principal}"}}, "Action": "{action}",
        "Resource": "arn:aws:s3:::{resource}"}}"#
    )
}

fn user(name: &str) -> Caller {
    Caller::User(name.to_owned())
}

fn ask<'a>(
    policies: impl IntoIterator<Item = &'a Policy>,
    caller: &Caller,
    action: Action,
    resource: Resource<'_>,
) -> Verdict {
    let mut facts = Facts::default();
    if let Caller::User(name) = caller {
        facts.set_text(Name::UserName, name.as_str());
    }
    decide(policies, &Question { caller, action, resource, facts: &facts })
}

/// Nothing is allowed that no statement allows; the absence of a denial is no permission.
#[test]
fn silence_allows_nothing() {
    let read = policy(&allow("s3:GetObject", "bucket/*"));
    let object = Resource::Object(BUCKET, "key");
    let anonymous = Caller::Anonymous;
    assert_eq!(ask([], &anonymous, Action::GetObject, object), Verdict::Silent);
    assert_eq!(ask([&read], &anonymous, Action::GetObject, object), Verdict::Allowed);
    assert_eq!(ask([&read], &anonymous, Action::PutObject, object), Verdict::Silent);
    assert_eq!(ask([&read], &anonymous, Action::GetObjectVersion, object), Verdict::Silent);
    let denies_other = policy(&deny("s3:DeleteObject", "bucket/*"));
    assert_eq!(ask([&denies_other], &anonymous, Action::GetObject, object), Verdict::Silent);
}

/// A known class: a denial was looked at only where nothing had allowed yet.
#[test]
fn a_denial_wins_wherever_it_stands() {
    let both = |first: &str, second: &str| policy(&format!("{first}, {second}"));
    let (yes, no) = (allow("s3:*", "bucket/*"), deny("s3:DeleteObject", "bucket/keep/*"));
    let own = of_user(r#"{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}"#);
    let own_denies = of_user(r#"{"Effect": "Deny", "Action": "s3:Delete*", "Resource": "*"}"#);
    let all = policy(&yes);
    let kept = Resource::Object(BUCKET, "keep/a");
    let delete = |policies: &[&Policy], resource| {
        ask(policies.iter().copied(), &user("alice"), Action::DeleteObject, resource)
    };
    for policy in [both(&yes, &no), both(&no, &yes)] {
        assert_eq!(delete(&[&policy], kept), Verdict::Denied);
        assert_eq!(delete(&[&policy, &own], kept), Verdict::Denied);
        assert_eq!(delete(&[&own, &policy], kept), Verdict::Denied);
        assert_eq!(delete(&[&policy], Resource::Object(BUCKET, "a")), Verdict::Allowed);
    }
    assert_eq!(delete(&[&all, &own_denies], kept), Verdict::Denied);
    assert_eq!(delete(&[&own_denies, &all], kept), Verdict::Denied);
    assert_eq!(delete(&[&own], kept), Verdict::Allowed);
}

#[test]
fn resources_are_what_they_say() {
    let table = [
        ("bucket", Resource::Bucket(BUCKET), true),
        ("bucket", Resource::Object(BUCKET, "a"), false),
        ("bucket/*", Resource::Bucket(BUCKET), false),
        ("bucket/*", Resource::Object(BUCKET, "a/../b"), true),
        ("bucket/a", Resource::Object(BUCKET, "a/b"), false),
        ("bucket/a/*", Resource::Object(BUCKET, "a/../secret"), true),
        ("bucket/b/*", Resource::Object(BUCKET, "a/../b/c"), false),
        ("bucket/a%2Fb", Resource::Object(BUCKET, "a/b"), false),
        ("*", Resource::Object(BUCKET, "a"), true),
        ("b*t/?", Resource::Object(BUCKET, "é"), true),
        ("bucket/${aws:username}/*", Resource::Object(BUCKET, "alice/x"), true),
        ("bucket/${aws:username}/*", Resource::Object(BUCKET, "bob/x"), false),
    ];
    for (text, resource, expected) in table {
        let policy = policy(&allow("s3:*", text));
        let verdict = ask([&policy], &user("alice"), Action::GetObject, resource);
        assert_eq!(verdict == Verdict::Allowed, expected, "{text} {resource:?}");
    }
}

#[test]
fn negated_elements_are_all_but_what_they_name() {
    let all_but = |effect: &str, action: &str, resource: &str| {
        policy(&format!(
            r#"{{"Effect": "{effect}", "Principal": "*", "{action}": "s3:DeleteObject",
            "{resource}": "arn:aws:s3:::bucket/public/*"}}"#
        ))
    };
    let public = Resource::Object(BUCKET, "public/a");
    let other = Resource::Object(BUCKET, "a");
    let ask = |policy: &Policy, action, resource| ask([policy], &user("a-b"), action, resource);
    let not_action = all_but("Allow", "NotAction", "Resource");
    assert_eq!(ask(&not_action, Action::GetObject, public), Verdict::Allowed);
    assert_eq!(ask(&not_action, Action::DeleteObject, public), Verdict::Silent);
    assert_eq!(ask(&not_action, Action::GetObject, other), Verdict::Silent);
    let not_resource = all_but("Deny", "Action", "NotResource");
    assert_eq!(ask(&not_resource, Action::DeleteObject, public), Verdict::Silent);
    assert_eq!(ask(&not_resource, Action::DeleteObject, other), Verdict::Denied);
    assert_eq!(ask(&not_resource, Action::DeleteObject, Resource::Bucket(BUCKET)), Verdict::Denied);
}

/// A variable without a value must not open what is denied to all but its own.
#[test]
fn who_has_no_name_is_denied_what_is_not_its_own() {
    let homes = policy(
        r#"{"Effect": "Deny", "Principal": "*", "Action": "s3:*",
        "NotResource": "arn:aws:s3:::bucket/home/${aws:username}/*"}"#,
    );
    for key in ["home//a", "home/${aws:username}/a", "home/*/a", "home/alice/a"] {
        let resource = Resource::Object(BUCKET, key);
        let verdict = ask([&homes], &Caller::Anonymous, Action::GetObject, resource);
        assert_eq!(verdict, Verdict::Denied, "{key}");
    }
    let own = Resource::Object(BUCKET, "home/alice/a");
    assert_eq!(ask([&homes], &user("alice"), Action::GetObject, own), Verdict::Silent);
}

#[test]
fn the_old_version_knows_no_variables() {
    let text = |version: &str| {
        let statement = allow("s3:GetObject", "bucket/${aws:username}");
        format!(r#"{{{version} "Statement": {statement}}}"#)
    };
    let literal = Resource::Object(BUCKET, "${aws:username}");
    for (version, expected) in
        [("", true), (r#""Version": "2008-10-17","#, true), (r#""Version": "2012-10-17","#, false)]
    {
        let policy = Policy::parse(text(version).as_bytes(), Home::Bucket(BUCKET));
        let policy = policy.expect("parses");
        let verdict = ask([&policy], &user("alice"), Action::GetObject, literal);
        assert_eq!(verdict == Verdict::Allowed, expected, "{version}");
    }
}

#[test]
fn all_conditions_of_a_statement_must_hold() {
    let policy = policy(
        r#"{"Sid": "x", "Effect": "Allow", "Principal": "*", "Action": ["s3:ListBucket"],
        "Resource": ["arn:aws:s3:::bucket"], "Condition": {
            "StringEquals": {"s3:prefix": "a/", "s3:delimiter": "/"},
            "NumericLessThan": {"s3:max-keys": 10}}}"#,
    );
    let caller = Caller::Anonymous;
    let ask = |prefix: &str, delimiter: &str, keys: i64| {
        let mut facts = Facts::default();
        facts.set_text(Name::Prefix, prefix);
        facts.set_text(Name::Delimiter, delimiter);
        facts.set(Key::Named(Name::MaxKeys), Fact::Number(keys));
        let resource = Resource::Bucket(BUCKET);
        let action = Action::ListBucket;
        decide([&policy], &Question { caller: &caller, action, resource, facts: &facts })
    };
    assert_eq!(ask("a/", "/", 9), Verdict::Allowed);
    for (prefix, delimiter, keys) in [("a", "/", 9), ("a/", "", 9), ("a/", "/", 10)] {
        assert_eq!(ask(prefix, delimiter, keys), Verdict::Silent);
    }
}

#[test]
fn policies_that_speak_of_an_objects_tags_say_so() {
    let condition = |condition: &str| {
        policy(&format!(
            r#"{{"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject",
            "Resource": "arn:aws:s3:::bucket/*", "Condition": {condition}}}"#
        ))
    };
    assert!(condition(r#"{"Null": {"s3:ExistingObjectTag/a": "true"}}"#).uses_existing_tags());
    assert!(
        condition(r#"{"StringEquals": {"aws:username": "${s3:ExistingObjectTag/a}"}}"#)
            .uses_existing_tags()
    );
    assert!(policy(&allow("s3:*", "bucket/${s3:ExistingObjectTag/a}/*")).uses_existing_tags());
    assert!(!condition(r#"{"StringEquals": {"s3:RequestObjectTag/a": "b"}}"#).uses_existing_tags());
}

#[test]
fn public_is_what_everybody_gets() {
    let conditional = |condition: &str| {
        policy(&format!(
            r#"{{"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject",
            "Resource": "arn:aws:s3:::bucket/*", "Condition": {condition}}}"#
        ))
    };
    assert!(policy(&allow("s3:GetObject", "bucket/*")).is_public());
    assert!(conditional(r#"{"StringLike": {"aws:Referer": "https://a/*"}}"#).is_public());
    assert!(!conditional(r#"{"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}"#).is_public());
    assert!(!policy(&deny("s3:GetObject", "bucket/*")).is_public());
    assert!(!policy(&statement("Allow", "alice", "s3:*", "bucket/*")).is_public());
    let two = format!(
        "{}, {}",
        statement("Allow", "alice", "s3:*", "bucket/*"),
        allow("s3:ListBucket", "bucket")
    );
    assert!(policy(&two).is_public());
}

#[test]
fn what_is_not_understood_is_refused_with_the_reason() {
    let good = allow("s3:GetObject", "bucket/*");
    let with = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        good.replacen(from, to, 1)
    };
    let resource = r#""Resource": "arn:aws:s3:::bucket/*""#;
    let condition = |text: &str| format!("{resource}, \"Condition\": {text}");
    let table = [
        (with("Allow", "allow"), "Effect"),
        (with(r#""Effect": "Allow","#, ""), "Effect"),
        (with(r#""Action": "s3:GetObject","#, ""), "Action"),
        (with("s3:GetObject", "s3:GetObjekt"), "s3:GetObjekt"),
        (with("s3:GetObject", "ec2:*"), "ec2:*"),
        (with("\"s3:GetObject\"", "[]"), "Action"),
        (with("\"s3:GetObject\"", "[\"s3:GetObject\", 1]"), "Action"),
        (with("\"Action\"", "\"NotAction\": \"s3:*\", \"Action\""), "NotAction"),
        (with("\"Action\"", "\"action\""), "unknown element"),
        (with(r#""Principal": {"AWS": "*"},"#, ""), "Principal"),
        (with(resource, r#""Resource": "arn:aws:s3:::other/*""#), "other"),
        (with(resource, r#""Resource": "arn:aws:s3:::bucket2/*""#), "bucket2"),
        (with(resource, r#""Resource": "arn:aws:s3:::${aws:username}/*""#), "aws:username"),
        (with(resource, r#""Resource": "arn:aws:s3:us-east-1::bucket/*""#), "form"),
        (with(resource, r#""Resource": "bucket/*""#), "form"),
        (with(resource, r#""Resource": "arn:aws:s3:::""#), "form"),
        (with(resource, r#""Resource": "arn:aws:s3:::bucket/${""#), "not closed"),
        (with(resource, r#""Resource": "arn:aws:s3:::bucket""#), "does not apply"),
        (with(resource, r#""NotResource": "arn:aws:s3:::other/*""#), "other"),
        (with(resource, r#""Id": "x""#), "unknown element"),
        (with(resource, r#""Sid": "x""#), "lacks its Resource"),
        (with(resource, &format!("{resource}, \"Sid\": 1")), "Sid"),
        (with(resource, &condition("[]")), "object"),
        (with(resource, &condition(r#"{"Bool": []}"#)), "Bool"),
        (with(resource, &condition(r#"{"Bool": {}}"#)), "Bool"),
        (with(resource, &condition(r#"{"Boolean": {"aws:SecureTransport": "true"}}"#)), "Boolean"),
        (with(resource, &condition(r#"{"Bool": {"aws:Secure": "true"}}"#)), "aws:Secure"),
        ("1".to_owned(), "object"),
        (with("s3:GetObject", "s3:ListAllMyBuckets"), "does not apply"),
    ];
    for (statement, reason) in table {
        let error = parse(&statement).expect_err(&statement);
        assert!(error.contains(reason), "{statement}: {error}");
    }
    let sid = r#""Sid": "one", "Effect""#;
    let twice = with("\"Effect\"", sid);
    assert!(parse(&format!("{twice}, {twice}")).expect_err("twice").contains("Sid"));
    for document in [
        "",
        "[]",
        "{}",
        r#"{"Version": "2012-10-17"}"#,
        r#"{"Version": "2012-10-17", "Statement": []}"#,
        r#"{"Version": "2012-10-17", "Statement": "x"}"#,
    ] {
        assert!(Policy::parse(document.as_bytes(), Home::Bucket(BUCKET)).is_err(), "{document}");
    }
    for head in [
        r#""Version": "2013-10-17""#,
        r#""Version": 1"#,
        r#""Version": "2012-10-17", "Version": "2012-10-17""#,
        r#""Version": "2012-10-17", "Id": 1"#,
        r#""Version": "2012-10-17", "Other": 1"#,
    ] {
        let document = format!(r#"{{{head}, "Statement": [{good}]}}"#);
        assert!(Policy::parse(document.as_bytes(), Home::Bucket(BUCKET)).is_err(), "{document}");
    }
    let long = format!("{good}{}", " ".repeat(POLICY_BYTES_MAX));
    assert!(parse(&long).expect_err("too long").contains("bytes"));
}

/// A known class: of two equal names one reader sees the first, another the last.
#[test]
fn a_name_that_occurs_twice_is_refused() {
    let twice = r#"{"Effect": "Deny", "Effect": "Allow", "Principal": "*", "Action": "s3:*",
        "Resource": "arn:aws:s3:::bucket/*"}"#;
    assert!(parse(twice).expect_err("twice").contains("twice"));
    let values = r#"{"Effect": "Allow", "Principal": "*", "Action": "s3:*",
        "Resource": "arn:aws:s3:::bucket/*", "Condition": {
        "IpAddress": {"aws:SourceIp": "10.0.0.0/8", "aws:SourceIp": "0.0.0.0/0"}}}"#;
    assert!(parse(values).expect_err("twice").contains("twice"));
}

#[test]
fn a_users_policy_names_no_principals_and_any_bucket() {
    let own = of_user(r#"{"Effect": "Allow", "Action": "s3:CreateBucket", "Resource": "*"}"#);
    let verdict = ask([&own], &user("alice"), Action::CreateBucket, Resource::Bucket("any"));
    assert_eq!(verdict, Verdict::Allowed);
    let lists = of_user(r#"{"Effect": "Allow", "Action": "s3:ListAllMyBuckets", "Resource": "*"}"#);
    let verdict = ask([&lists], &user("alice"), Action::ListAllMyBuckets, Resource::Service);
    assert_eq!(verdict, Verdict::Allowed);
    let text = format!(r#"{{"Statement": {}}}"#, allow("s3:GetObject", "bucket/*"));
    assert!(Policy::parse(text.as_bytes(), Home::User).expect_err("refused").contains("principal"));
}

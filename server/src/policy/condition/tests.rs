use super::*;

fn condition(operator: &str, key: &str, values: &str) -> Result<Condition, String> {
    let values = Json::parse(values.as_bytes()).expect("JSON");
    Condition::parse(operator, key, &values, true)
}

fn facts() -> Facts {
    let mut facts = Facts::default();
    facts.set_text(Name::UserName, "alice");
    facts.set_text(Name::Prefix, "home/alice/");
    facts.set_text(Name::Referer, "*");
    facts.set_text(Name::PrincipalArn, "arn:aws:iam:::user/alice");
    facts.set(Key::Named(Name::MaxKeys), Fact::Number(10));
    facts.set(Key::Named(Name::CurrentTime), Fact::Moment(1_369_353_600));
    facts.set(Key::Named(Name::EpochTime), Fact::Moment(1_369_353_600));
    facts.set(Key::Named(Name::SecureTransport), Fact::Flag(false));
    facts.set(Key::Named(Name::SourceIp), Fact::Address("10.1.2.3".parse().expect("one")));
    let tags = vec!["team".to_owned(), "cost".to_owned()];
    facts.set(Key::Named(Name::RequestObjectTagKeys), Fact::Texts(tags));
    facts.set(Key::ExistingObjectTag("Team".into()), Fact::Text("blue".into()));
    facts
}

#[test]
fn operators_hold_as_they_should() {
    let table = [
        ("StringEquals", "aws:username", r#""alice""#, true),
        ("StringEquals", "aws:username", r#""Alice""#, false),
        ("StringEquals", "aws:username", r#""al*""#, false),
        ("StringEquals", "aws:username", r#"["bob", "alice"]"#, true),
        ("StringEquals", "aws:Referer", r#""${*}""#, true),
        ("StringEquals", "s3:prefix", r#""home/${aws:username}/""#, true),
        ("StringEquals", "s3:prefix", r#""home/${s3:delimiter}/""#, false),
        ("StringEquals", "aws:SecureTransport", r#""false""#, true),
        ("StringEquals", "s3:max-keys", "10", true),
        ("StringNotEquals", "aws:username", r#""alice""#, false),
        ("StringNotEquals", "aws:username", r#"["bob", "alice"]"#, false),
        ("StringNotEquals", "aws:username", r#"["bob", "eve"]"#, true),
        ("StringEqualsIgnoreCase", "aws:username", r#""ALICE""#, true),
        ("StringNotEqualsIgnoreCase", "aws:username", r#""ALICE""#, false),
        ("StringLike", "s3:prefix", r#""home/*""#, true),
        ("StringLike", "s3:prefix", r#""home/?""#, false),
        ("StringNotLike", "s3:prefix", r#""home/*""#, false),
        ("NumericEquals", "s3:max-keys", "10", true),
        ("NumericEquals", "s3:max-keys", r#""11""#, false),
        ("NumericNotEquals", "s3:max-keys", "11", true),
        ("NumericLessThan", "s3:max-keys", "10", false),
        ("NumericLessThanEquals", "s3:max-keys", "10", true),
        ("NumericGreaterThan", "s3:max-keys", "-1", true),
        ("NumericGreaterThanEquals", "s3:max-keys", "11", false),
        ("NumericLessThan", "aws:EpochTime", "1369353601", true),
        ("DateEquals", "aws:CurrentTime", r#""2013-05-24""#, true),
        ("DateEquals", "aws:CurrentTime", r#""2013-05-24T02:00:00+02:00""#, true),
        ("DateNotEquals", "aws:CurrentTime", r#""2013-05-24T00:00:00Z""#, false),
        ("DateLessThan", "aws:CurrentTime", r#""2013-05-24T00:00:01Z""#, true),
        ("DateLessThanEquals", "aws:EpochTime", "1369353600", true),
        ("DateGreaterThan", "aws:CurrentTime", r#""2013-05-24T00:00:00Z""#, false),
        ("DateGreaterThanEquals", "aws:CurrentTime", r#""2013-05-24T00:00:00Z""#, true),
        ("Bool", "aws:SecureTransport", r#""false""#, true),
        ("Bool", "aws:SecureTransport", "true", false),
        ("BinaryEquals", "aws:username", r#""YWxpY2U=""#, true),
        ("BinaryEquals", "aws:username", r#""YWxpY2V4""#, false),
        ("IpAddress", "aws:SourceIp", r#""10.1.2.3""#, true),
        ("IpAddress", "aws:SourceIp", r#"["192.168.0.0/16", "10.0.0.0/8"]"#, true),
        ("IpAddress", "aws:SourceIp", r#""10.1.2.4/31""#, false),
        ("IpAddress", "aws:SourceIp", r#""10.1.2.2/31""#, true),
        ("IpAddress", "aws:SourceIp", r#""0.0.0.0/0""#, true),
        ("IpAddress", "aws:SourceIp", r#""::/0""#, false),
        ("IpAddress", "aws:SourceIp", r#""::ffff:10.0.0.0/104""#, true),
        ("NotIpAddress", "aws:SourceIp", r#""10.0.0.0/8""#, false),
        ("NotIpAddress", "aws:SourceIp", r#"["11.0.0.0/8", "12.0.0.0/8"]"#, true),
        ("ArnEquals", "aws:PrincipalArn", r#""arn:aws:iam::*:user/al*""#, true),
        ("ArnLike", "aws:PrincipalArn", r#""arn:aws:iam:::user/${aws:username}""#, true),
        ("ArnLike", "aws:PrincipalArn", r#""arn:*:user/alice:::""#, false),
        ("ArnNotLike", "aws:PrincipalArn", r#""arn:aws:iam:::user/*""#, false),
        ("ArnNotEquals", "aws:PrincipalArn", r#""arn:aws:iam:::user/bob""#, true),
        ("Null", "s3:delimiter", "true", true),
        ("Null", "s3:prefix", r#""true""#, false),
        ("Null", "s3:prefix", "false", true),
        ("Null", "s3:RequestObjectTagKeys", "true", false),
        ("StringEquals", "s3:ExistingObjectTag/Team", r#""blue""#, true),
        ("StringEquals", "s3:ExistingObjectTag/team", r#""blue""#, false),
    ];
    let facts = facts();
    for (operator, key, values, expected) in table {
        let condition = condition(operator, key, values).expect(values);
        assert_eq!(condition.holds(&facts), expected, "{operator} {key} {values}");
    }
}

#[test]
fn an_absent_key_fails_an_operator_and_satisfies_a_negated_one() {
    let facts = facts();
    let table = [
        ("StringEquals", false),
        ("StringLike", false),
        ("StringNotEquals", true),
        ("StringNotLike", true),
        ("StringEqualsIfExists", true),
        ("StringNotEqualsIfExists", true),
        ("ForAllValues:StringEquals", true),
        ("ForAnyValue:StringEquals", false),
        ("ForAnyValue:StringNotEquals", false),
        ("ForAnyValue:StringEqualsIfExists", true),
    ];
    for (operator, expected) in table {
        let condition = condition(operator, "s3:delimiter", r#""/""#).expect(operator);
        assert_eq!(condition.holds(&facts), expected, "{operator}");
    }
    let there = condition("StringEqualsIfExists", "s3:prefix", r#""x""#).expect("parses");
    assert!(!there.holds(&facts), "a key that is there is compared");
}

#[test]
fn several_values_count_as_the_operator_says() {
    let facts = facts();
    let table = [
        ("ForAllValues:StringEquals", r#"["team", "cost", "x"]"#, true),
        ("ForAllValues:StringEquals", r#"["team"]"#, false),
        ("ForAllValues:StringLike", r#"["t*", "c*"]"#, true),
        ("ForAllValues:StringNotEquals", r#"["x"]"#, true),
        ("ForAllValues:StringNotEquals", r#"["team"]"#, false),
        ("ForAnyValue:StringEquals", r#"["team", "x"]"#, true),
        ("ForAnyValue:StringEquals", r#"["x"]"#, false),
        ("ForAnyValue:StringNotEquals", r#"["team"]"#, true),
        ("ForAnyValue:StringNotEquals", r#"["team", "cost"]"#, false),
        ("ForAnyValue:BinaryEquals", r#""Y29zdA==""#, true),
    ];
    for (operator, values, expected) in table {
        let condition = condition(operator, "s3:RequestObjectTagKeys", values).expect(operator);
        assert_eq!(condition.holds(&facts), expected, "{operator} {values}");
    }
}

/// A known class: an address of IPv4 on a socket of IPv6 was let past a network that denies it.
#[test]
fn an_address_is_the_same_however_it_is_written() {
    let mut facts = Facts::default();
    let address = "::ffff:10.1.2.3".parse().expect("an address");
    facts.set(Key::Named(Name::SourceIp), Fact::Address(address));
    for (network, expected) in [
        ("10.0.0.0/8", true),
        ("::ffff:10.1.2.3", true),
        ("::ffff:0.0.0.0/96", true),
        ("11.0.0.0/8", false),
        ("2001:db8::/32", false),
    ] {
        let values = format!("\"{network}\"");
        let condition = condition("IpAddress", "aws:SourceIp", &values).expect(network);
        assert_eq!(condition.holds(&facts), expected, "{network}");
    }
    let six = "2001:db8::1".parse().expect("an address");
    facts.set(Key::Named(Name::SourceIp), Fact::Address(six));
    let holds = |network: &str| {
        condition("IpAddress", "aws:SourceIp", network).expect(network).holds(&facts)
    };
    assert!(holds(r#""2001:db8::/32""#) && holds(r#""::/0""#) && holds(r#""2001:db8::1""#));
    assert!(!holds(r#""2001:db9::/32""#) && !holds(r#""0.0.0.0/0""#));
}

#[test]
fn what_cannot_be_compared_is_refused() {
    for (operator, key, values) in [
        ("StringMatches", "aws:username", r#""x""#),
        ("stringequals", "aws:username", r#""x""#),
        ("ForEachValue:StringEquals", "aws:username", r#""x""#),
        ("ForAllValues:Null", "aws:username", "true"),
        ("NullIfExists", "aws:username", "true"),
        ("IfExists", "aws:username", r#""x""#),
        ("StringEquals", "aws:nothing", r#""x""#),
        ("StringEquals", "aws:username", "[]"),
        ("StringEquals", "aws:username", "{}"),
        ("StringEquals", "aws:username", "null"),
        ("StringEquals", "aws:username", r#"["x", ["y"]]"#),
        ("StringEquals", "aws:username", r#""${aws:nothing}""#),
        ("StringEquals", "aws:SourceIp", r#""10.0.0.1""#),
        ("StringEquals", "aws:CurrentTime", r#""2013-05-24""#),
        ("StringEquals", "s3:RequestObjectTagKeys", r#""x""#),
        ("NumericEquals", "aws:username", "1"),
        ("NumericEquals", "s3:max-keys", r#""ten""#),
        ("NumericEquals", "s3:max-keys", r#""+1""#),
        ("NumericEquals", "s3:max-keys", r#""99999999999999999999""#),
        ("DateEquals", "s3:max-keys", r#""2013-05-24""#),
        ("DateEquals", "aws:CurrentTime", r#""tomorrow""#),
        ("DateEquals", "aws:CurrentTime", r#""2013-13-24""#),
        ("Bool", "aws:username", "true"),
        ("Bool", "aws:SecureTransport", r#""yes""#),
        ("BinaryEquals", "aws:username", r#""?""#),
        ("IpAddress", "aws:username", r#""10.0.0.1""#),
        ("IpAddress", "aws:SourceIp", r#""10.0.0.1/33""#),
        ("IpAddress", "aws:SourceIp", r#""10.0.0.1/""#),
        ("IpAddress", "aws:SourceIp", r#""10.0.0""#),
        ("IpAddress", "aws:SourceIp", r#""10.0.0.*""#),
        ("ArnLike", "aws:username", r#""arn:aws:iam:::user/x""#),
        ("ArnLike", "aws:PrincipalArn", r#""alice""#),
        ("Null", "aws:username", r#""maybe""#),
    ] {
        assert!(condition(operator, key, values).is_err(), "{operator} {key} {values}");
    }
}

#[test]
fn only_fixed_callers_and_addresses_narrow() {
    for (operator, key, values, expected) in [
        ("IpAddress", "aws:SourceIp", r#""10.0.0.0/8""#, true),
        ("IpAddress", "aws:SourceIp", r#"["10.0.0.0/8", "0.0.0.0/1"]"#, false),
        ("IpAddress", "aws:SourceIp", r#""::ffff:0.0.0.0/96""#, false),
        ("IpAddressIfExists", "aws:SourceIp", r#""10.0.0.0/8""#, false),
        ("NotIpAddress", "aws:SourceIp", r#""10.0.0.0/8""#, false),
        ("StringEquals", "aws:username", r#""alice""#, true),
        ("StringLike", "aws:username", r#""a*""#, false),
        ("StringEquals", "aws:username", r#""${aws:userid}""#, false),
        ("ForAllValues:StringEquals", "aws:username", r#""alice""#, false),
        ("StringEquals", "aws:Referer", r#""https://a""#, false),
        ("ArnEquals", "aws:PrincipalArn", r#""arn:aws:iam:::user/a""#, true),
    ] {
        let condition = condition(operator, key, values).expect(values);
        assert_eq!(condition.narrows(), expected, "{operator} {values}");
    }
}

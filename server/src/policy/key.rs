//! Condition keys: which there are, of what kind their values are, and the values that one request
//! gives them. A [`Facts`] is filled by whoever knows the request; nothing in here reads a header, so
//! no header can pass itself off as a key.

use std::collections::BTreeMap;
use std::net::IpAddr;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// What kind of value a key has, which says which operators may ask about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Text,
    /// Any number of texts.
    Texts,
    Arn,
    Number,
    Date,
    Flag,
    Address,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    Named(Name),
    ExistingObjectTag(String),
    RequestObjectTag(String),
}

macro_rules! names {
    ($($name:ident = $text:literal $kind:ident,)*) => {
        /// The keys that are spelled out.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Name { $($name,)* }

        impl Name {
            const ALL: &[Self] = &[$(Self::$name,)*];

            pub fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            fn kind(self) -> Kind {
                match self { $(Self::$name => Kind::$kind,)* }
            }
        }
    };
}

names! {
    CurrentTime = "aws:CurrentTime" Date,
    EpochTime = "aws:EpochTime" Date,
    PrincipalArn = "aws:PrincipalArn" Arn,
    PrincipalType = "aws:PrincipalType" Text,
    Referer = "aws:Referer" Text,
    SecureTransport = "aws:SecureTransport" Flag,
    SourceIp = "aws:SourceIp" Address,
    UserAgent = "aws:UserAgent" Text,
    UserId = "aws:userid" Text,
    UserName = "aws:username" Text,
    AuthType = "s3:authType" Text,
    Delimiter = "s3:delimiter" Text,
    LocationConstraint = "s3:LocationConstraint" Text,
    MaxKeys = "s3:max-keys" Number,
    Prefix = "s3:prefix" Text,
    RequestObjectTagKeys = "s3:RequestObjectTagKeys" Texts,
    SignatureAge = "s3:signatureAge" Number,
    SignatureVersion = "s3:signatureversion" Text,
    VersionId = "s3:VersionId" Text,
    Acl = "s3:x-amz-acl" Text,
    ContentSha256 = "s3:x-amz-content-sha256" Text,
    CopySource = "s3:x-amz-copy-source" Text,
    GrantFullControl = "s3:x-amz-grant-full-control" Text,
    GrantRead = "s3:x-amz-grant-read" Text,
    GrantReadAcp = "s3:x-amz-grant-read-acp" Text,
    GrantWrite = "s3:x-amz-grant-write" Text,
    GrantWriteAcp = "s3:x-amz-grant-write-acp" Text,
    MetadataDirective = "s3:x-amz-metadata-directive" Text,
    Encryption = "s3:x-amz-server-side-encryption" Text,
    EncryptionKeyId = "s3:x-amz-server-side-encryption-aws-kms-key-id" Text,
    EncryptionCustomerAlgorithm = "s3:x-amz-server-side-encryption-customer-algorithm" Text,
    StorageClass = "s3:x-amz-storage-class" Text,
}

const EXISTING_TAG: &str = "s3:ExistingObjectTag/";
const REQUEST_TAG: &str = "s3:RequestObjectTag/";

impl Key {
    /// Names of keys are compared without case; what stands behind a slash is a tag's own key.
    pub fn parse(text: &str) -> Option<Self> {
        let tag_of = |prefix: &str| {
            let (head, tag) = text.split_at_checked(prefix.len())?;
            (head.eq_ignore_ascii_case(prefix) && !tag.is_empty()).then(|| tag.to_owned())
        };
        if let Some(tag) = tag_of(EXISTING_TAG) {
            return Some(Self::ExistingObjectTag(tag));
        }
        if let Some(tag) = tag_of(REQUEST_TAG) {
            return Some(Self::RequestObjectTag(tag));
        }
        let same = |name: &&Name| name.text().eq_ignore_ascii_case(text);
        Name::ALL.iter().find(same).map(|name| Self::Named(*name))
    }

    pub fn kind(&self) -> Kind {
        match self {
            Self::Named(name) => name.kind(),
            Self::ExistingObjectTag(_) | Self::RequestObjectTag(_) => Kind::Text,
        }
    }
}

/// What a request gives a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    Text(String),
    /// One at least.
    Texts(Vec<String>),
    Number(i64),
    /// Seconds since 1970.
    Moment(i64),
    Flag(bool),
    Address(IpAddr),
}

/// What is known about a request. A key that is not in it is absent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    facts: BTreeMap<Key, Fact>,
}

impl Facts {
    /// Panics where the fact is not of the key's kind: an evaluation that would begin so must not.
    pub fn set(&mut self, key: Key, fact: Fact) {
        let fits = match &fact {
            Fact::Text(_) => matches!(key.kind(), Kind::Text | Kind::Arn),
            Fact::Texts(texts) => key.kind() == Kind::Texts && !texts.is_empty(),
            Fact::Number(_) => key.kind() == Kind::Number,
            Fact::Moment(_) => key.kind() == Kind::Date,
            Fact::Flag(_) => key.kind() == Kind::Flag,
            Fact::Address(_) => key.kind() == Kind::Address,
        };
        assert!(fits, "{key:?} cannot be {fact:?}");
        self.facts.insert(key, fact);
    }

    pub fn set_text(&mut self, name: Name, text: impl Into<String>) {
        self.set(Key::Named(name), Fact::Text(text.into()));
    }

    pub fn remove(&mut self, name: Name) {
        self.facts.remove(&Key::Named(name));
    }

    pub fn get(&self, key: &Key) -> Option<&Fact> {
        self.facts.get(key)
    }

    /// What a variable of that name stands for; several texts stand for nothing.
    pub fn text_of(&self, key: &Key) -> Option<String> {
        Some(match self.get(key)? {
            Fact::Text(text) => text.clone(),
            Fact::Texts(_) => return None,
            Fact::Number(number) => number.to_string(),
            Fact::Moment(seconds) if *key == Key::Named(Name::EpochTime) => seconds.to_string(),
            Fact::Moment(seconds) => {
                let moment = OffsetDateTime::from_unix_timestamp(*seconds).ok()?;
                moment.format(&Rfc3339).ok()?
            }
            Fact::Flag(flag) => flag.to_string(),
            Fact::Address(address) => address.to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_known_without_case_and_tags_with_it() {
        assert_eq!(Key::parse("AWS:sourceip"), Some(Key::Named(Name::SourceIp)));
        let tag = |key: &str| Some(Key::ExistingObjectTag(key.to_owned()));
        assert_eq!(Key::parse("s3:existingobjecttag/Team/a"), tag("Team/a"));
        assert_eq!(Key::parse("s3:RequestObjectTag/x"), Some(Key::RequestObjectTag("x".into())));
        for unknown in ["", "aws:", "s3:ExistingObjectTag/", "SourceIp", "aws:username ", "s3:é"] {
            assert_eq!(Key::parse(unknown), None, "{unknown}");
        }
        for name in Name::ALL {
            assert_eq!(Key::parse(name.text()), Some(Key::Named(*name)));
        }
    }

    #[test]
    fn variables_stand_for_texts() {
        let mut facts = Facts::default();
        facts.set_text(Name::UserName, "alice");
        facts.set(Key::Named(Name::CurrentTime), Fact::Moment(1_369_353_600));
        facts.set(Key::Named(Name::EpochTime), Fact::Moment(1_369_353_600));
        facts.set(Key::Named(Name::SecureTransport), Fact::Flag(true));
        facts.set(Key::Named(Name::RequestObjectTagKeys), Fact::Texts(vec!["a".into()]));
        let text = |name| facts.text_of(&Key::Named(name));
        assert_eq!(text(Name::UserName).as_deref(), Some("alice"));
        assert_eq!(text(Name::CurrentTime).as_deref(), Some("2013-05-24T00:00:00Z"));
        assert_eq!(text(Name::EpochTime).as_deref(), Some("1369353600"));
        assert_eq!(text(Name::SecureTransport).as_deref(), Some("true"));
        assert_eq!(text(Name::RequestObjectTagKeys), None);
        assert_eq!(text(Name::Prefix), None);
    }

    #[test]
    #[should_panic(expected = "cannot be")]
    fn a_fact_of_the_wrong_kind_decides_nothing() {
        Facts::default().set_text(Name::SourceIp, "10.0.0.1");
    }
}

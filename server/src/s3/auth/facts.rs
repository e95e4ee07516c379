//! What policies may ask about a request: from the connection, the clock, the signature and the parts
//! of the request that the operation itself reads. No header or parameter is a key by its name.

use std::net::IpAddr;

use http::HeaderMap;

use super::{Authenticated, Identity, Proof, parse_decimal, sigv4};
use crate::object::Tags;
use crate::policy::{Caller, Fact, Facts, Key, Name};
use crate::s3::error::{Code, Failure};
use crate::s3::operation::Operation;
use crate::s3::request::Request;
use crate::s3::tagging;

/// Where and when a request came.
#[derive(Clone, Copy)]
pub(in crate::s3) struct Arrival {
    /// The other end of the connection. What a proxy says about its clients is not believed.
    pub(in crate::s3) peer: IpAddr,
    pub(in crate::s3) is_secure: bool,
    pub(in crate::s3) now_ms: u64,
}

/// Keys whose values are headers of the request.
const HEADERS: [(Name, &str); 14] = [
    (Name::Acl, "x-amz-acl"),
    (Name::ContentSha256, "x-amz-content-sha256"),
    (Name::Encryption, "x-amz-server-side-encryption"),
    (Name::EncryptionCustomerAlgorithm, "x-amz-server-side-encryption-customer-algorithm"),
    (Name::EncryptionKeyId, "x-amz-server-side-encryption-aws-kms-key-id"),
    (Name::GrantFullControl, "x-amz-grant-full-control"),
    (Name::GrantRead, "x-amz-grant-read"),
    (Name::GrantReadAcp, "x-amz-grant-read-acp"),
    (Name::GrantWrite, "x-amz-grant-write"),
    (Name::GrantWriteAcp, "x-amz-grant-write-acp"),
    (Name::MetadataDirective, "x-amz-metadata-directive"),
    (Name::Referer, "referer"),
    (Name::StorageClass, "x-amz-storage-class"),
    (Name::UserAgent, "user-agent"),
];

impl Authenticated {
    pub(super) fn caller(&self) -> Caller {
        match &self.identity {
            // Never asked about; were it, it would be nobody.
            Identity::Root | Identity::Anonymous => Caller::Anonymous,
            Identity::User(user) => Caller::User(user.name.clone()),
        }
    }

    /// What is known before the request itself is looked at.
    pub(super) fn facts(&self, arrival: Arrival) -> Facts {
        let mut facts = Facts::default();
        let now = seconds(arrival.now_ms);
        facts.set(Key::Named(Name::CurrentTime), Fact::Moment(now));
        facts.set(Key::Named(Name::EpochTime), Fact::Moment(now));
        facts.set(Key::Named(Name::SecureTransport), Fact::Flag(arrival.is_secure));
        let address = arrival.peer.to_canonical();
        facts.set(Key::Named(Name::SourceIp), Fact::Address(address));
        match self.caller() {
            Caller::Anonymous => facts.set_text(Name::PrincipalType, "Anonymous"),
            caller @ Caller::User(_) => {
                facts.set_text(Name::PrincipalType, "User");
                facts.set_text(Name::PrincipalArn, caller.arn().expect("a user has one"));
                let Caller::User(name) = caller else { unreachable!("matched above") };
                facts.set_text(Name::UserName, name.as_str());
                facts.set_text(Name::UserId, name);
            }
        }
        let auth_type = match self.proof {
            Proof::Nothing => return facts,
            Proof::Header => "REST-HEADER",
            Proof::Form => "POST",
            Proof::Query { signed_at_ms } => {
                let age = arrival.now_ms.saturating_sub(signed_at_ms);
                let age = i64::try_from(age).unwrap_or(i64::MAX);
                facts.set(Key::Named(Name::SignatureAge), Fact::Number(age));
                "REST-QUERY-STRING"
            }
        };
        facts.set_text(Name::AuthType, auth_type);
        facts.set_text(Name::SignatureVersion, sigv4::ALGORITHM);
        facts
    }
}

fn seconds(ms: u64) -> i64 {
    i64::try_from(ms / 1000).unwrap_or(i64::MAX)
}

/// Adds what the request says of itself.
pub(super) fn add_request(facts: &mut Facts, request: &Request) -> Result<(), Failure> {
    use Operation as O;
    add_headers(facts, &request.headers)?;
    let is_listing = matches!(
        request.operation,
        O::ListObjects | O::ListObjectsV2 | O::ListObjectVersions | O::ListUploads
    );
    if is_listing {
        let mut add = |name: Name, parameter: &str| {
            if let Some(value) = request.parameter(parameter) {
                facts.set_text(name, value);
            }
        };
        add(Name::Prefix, "prefix");
        add(Name::Delimiter, "delimiter");
        if let Some(value) = request.target.query.filled("max-keys") {
            // The listing refuses what is no number.
            let keys = parse_decimal(value).and_then(|keys| i64::try_from(keys).ok());
            let keys = keys.ok_or_else(|| {
                Failure::new(Code::InvalidArgument, "max-keys must be a whole number.")
            })?;
            facts.set(Key::Named(Name::MaxKeys), Fact::Number(keys));
        }
    }
    if let Some(origin) = &request.origin {
        let key = String::from_utf8_lossy(origin.key());
        facts.set_text(Name::CopySource, format!("{}/{key}", origin.bucket()));
    }
    let sets_tags = match request.operation {
        O::PutObject | O::CreateUpload => true,
        O::CopyObject => tagging::are_replaced(&request.headers)?,
        _ => false,
    };
    if sets_tags {
        add_tags(facts, &tagging::of_headers(&request.headers)?);
    }
    Ok(())
}

/// A header that counts must not have two values: another reader might take the other one.
pub(super) fn add_headers(facts: &mut Facts, headers: &HeaderMap) -> Result<(), Failure> {
    for (name, header) in HEADERS {
        let mut values = headers.get_all(header).iter();
        let Some(value) = values.next() else { continue };
        if values.next().is_some() {
            let text = format!("The header {header} occurs more than once.");
            return Err(Failure::new(Code::InvalidArgument, text));
        }
        facts.set_text(name, String::from_utf8_lossy(value.as_bytes()));
    }
    Ok(())
}

pub(super) fn add_tags(facts: &mut Facts, tags: &Tags) {
    for (key, value) in tags {
        facts.set(Key::RequestObjectTag(key.clone()), Fact::Text(value.clone()));
    }
    let keys: Vec<String> = tags.iter().map(|(key, _)| key.clone()).collect();
    if !keys.is_empty() {
        facts.set(Key::Named(Name::RequestObjectTagKeys), Fact::Texts(keys));
    }
}

pub(super) fn add_existing_tags(facts: &mut Facts, tags: &Tags) {
    for (key, value) in tags {
        facts.set(Key::ExistingObjectTag(key.clone()), Fact::Text(value.clone()));
    }
}

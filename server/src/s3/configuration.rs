//! Configuration of a bucket that is kept as a document: CORS rules, the public access block, ownership
//! controls. A document is understood before it is kept, and answered as S3 would write it.

use basalt_engine::seam::Runtime;
use basalt_net::mailbox::Mailbox;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body::Body;

use super::Server;
use super::answer::{self, Answer};
use super::auth::Authorized;
use super::body::document;
use super::cors::Rules;
use super::error::{Code, Failure};
use super::request::Request;
use super::watch::Watch;
use super::xml::{self, Writer, malformed};

/// Canned ACLs that give something to anybody, and those that give something to anybody but the owner.
const PUBLIC_ACLS: [&str; 3] = ["public-read", "public-read-write", "authenticated-read"];
const ACLS_OF_OTHERS: [&str; 6] = [
    "public-read",
    "public-read-write",
    "authenticated-read",
    "bucket-owner-read",
    "aws-exec-read",
    "log-delivery-write",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Configuration {
    Cors,
    Ownership,
    PublicAccess,
}

impl Configuration {
    /// The setting of the bucket that holds it.
    pub(super) fn setting(self) -> &'static str {
        match self {
            Self::Cors => "cors",
            Self::Ownership => "ownership",
            Self::PublicAccess => "public-access",
        }
    }

    /// The document as it is kept.
    fn understood(self, document: &[u8]) -> Result<String, Failure> {
        Ok(match self {
            Self::Cors => Rules::parse(document)?.document(),
            Self::Ownership => Ownership::parse(document)?.document(),
            Self::PublicAccess => PublicAccess::parse(document)?.document(),
        })
    }

    /// Where the server itself cannot read what it keeps, nothing is passed over.
    pub(super) fn unreadable(self) -> Failure {
        let name = self.setting();
        let text =
            format!("The bucket's configuration '{name}' cannot be understood; put it again.");
        Failure::new(Code::InternalError, text)
    }

    fn missing(self) -> Failure {
        let (code, text) = match self {
            Self::Cors => (Code::NoSuchCorsConfiguration, "The bucket has no CORS rules."),
            Self::Ownership => {
                (Code::OwnershipControlsNotFound, "The bucket has no ownership controls.")
            }
            Self::PublicAccess => {
                (Code::NoSuchPublicAccessBlock, "The bucket has no public access block.")
            }
        };
        Failure::new(code, text)
    }
}

impl<M: Mailbox, R: Runtime> Server<M, R> {
    pub(super) async fn get_configuration(
        &self,
        request: &Request,
        _authorized: Authorized,
        which: Configuration,
    ) -> Result<Answer<M, R>, Failure> {
        let kept = self.store().bucket_setting(request.bucket(), which.setting()).await?;
        let kept = kept.ok_or_else(|| which.missing())?;
        Ok(answer::xml(String::from_utf8_lossy(&kept).into_owned()))
    }

    pub(super) async fn put_configuration<B: Body<Data = Bytes> + Unpin>(
        &self,
        request: &Request,
        authorized: Authorized,
        which: Configuration,
        body: &mut B,
        watch: &Watch<R>,
    ) -> Result<Answer<M, R>, Failure> {
        let text = document(request, authorized, body, watch).await?;
        self.store().bucket(request.bucket()).await?;
        let kept = Bytes::from(which.understood(&text)?);
        self.store().set_bucket_setting(request.bucket(), which.setting(), Some(kept)).await?;
        Ok(answer::empty(StatusCode::OK))
    }

    pub(super) async fn delete_configuration(
        &self,
        request: &Request,
        _authorized: Authorized,
        which: Configuration,
    ) -> Result<Answer<M, R>, Failure> {
        self.store().set_bucket_setting(request.bucket(), which.setting(), None).await?;
        Ok(answer::empty(StatusCode::NO_CONTENT))
    }

    /// Nothing is blocked where nothing is set.
    pub(super) async fn public_access(&self, bucket: &str) -> Result<PublicAccess, Failure> {
        let which = Configuration::PublicAccess;
        match self.store().bucket_setting(bucket, which.setting()).await? {
            None => Ok(PublicAccess::default()),
            Some(kept) => PublicAccess::parse(&kept).map_err(|_| which.unreadable()),
        }
    }

    pub(super) async fn ownership(&self, bucket: &str) -> Result<Option<Ownership>, Failure> {
        let which = Configuration::Ownership;
        let kept = self.store().bucket_setting(bucket, which.setting()).await?;
        kept.map(|kept| Ownership::parse(&kept).map_err(|_| which.unreadable())).transpose()
    }

    /// Fails where headers ask for an ACL by a name that is none, or for one that gives something to
    /// others in a bucket that takes none of those.
    pub(super) async fn check_acl(&self, bucket: &str, headers: &HeaderMap) -> Result<(), Failure> {
        let Some(acl) = headers.get("x-amz-acl") else { return Ok(()) };
        let acl = acl.to_str().unwrap_or_default();
        if matches!(acl, "private" | "bucket-owner-full-control") {
            return Ok(());
        }
        if !ACLS_OF_OTHERS.contains(&acl) {
            let text = "x-amz-acl is none of S3's canned ACLs.";
            return Err(Failure::new(Code::InvalidArgument, text));
        }
        if self.ownership(bucket).await? == Some(Ownership::BucketOwnerEnforced) {
            let text = "The bucket's ownership controls let nobody set ACLs.";
            return Err(Failure::new(Code::AccessControlListNotSupported, text));
        }
        if PUBLIC_ACLS.contains(&acl) && self.public_access(bucket).await?.blocks_acls {
            let text = "The bucket's public access block lets nobody set public ACLs.";
            return Err(Failure::new(Code::AccessDenied, text));
        }
        Ok(())
    }
}

/// What of a bucket may not become public, whatever policies and ACLs say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct PublicAccess {
    pub(super) blocks_acls: bool,
    /// There are no public ACLs, so this changes nothing.
    ignores_acls: bool,
    pub(super) blocks_policy: bool,
    /// A public policy lets only users in.
    pub(super) restricts: bool,
}

impl PublicAccess {
    const ROOT: &str = "PublicAccessBlockConfiguration";
    const FLAGS: [&str; 4] =
        ["BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"];

    fn parse(document: &[u8]) -> Result<Self, Failure> {
        let root = xml::parse(document, Self::ROOT)?;
        root.allow(&Self::FLAGS)?;
        let flag = |name: &str| match root.child_text(name).map(str::trim) {
            None => Ok(false),
            Some("true" | "TRUE") => Ok(true),
            Some("false" | "FALSE") => Ok(false),
            Some(_) => Err(malformed(&format!("{name} must be true or false"))),
        };
        let [blocks_acls, ignores_acls, blocks_policy, restricts] = Self::FLAGS.map(flag);
        Ok(Self {
            blocks_acls: blocks_acls?,
            ignores_acls: ignores_acls?,
            blocks_policy: blocks_policy?,
            restricts: restricts?,
        })
    }

    fn document(self) -> String {
        let mut xml = Writer::s3(Self::ROOT);
        let values = [self.blocks_acls, self.ignores_acls, self.blocks_policy, self.restricts];
        for (name, value) in Self::FLAGS.into_iter().zip(values) {
            xml.flag(name, value);
        }
        xml.finish()
    }
}

/// Whose objects are. All of them are the deployment's; what differs is whether ACLs may be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ownership {
    BucketOwnerEnforced,
    BucketOwnerPreferred,
    ObjectWriter,
}

impl Ownership {
    const ALL: [Self; 3] =
        [Self::BucketOwnerEnforced, Self::BucketOwnerPreferred, Self::ObjectWriter];

    fn name(self) -> &'static str {
        match self {
            Self::BucketOwnerEnforced => "BucketOwnerEnforced",
            Self::BucketOwnerPreferred => "BucketOwnerPreferred",
            Self::ObjectWriter => "ObjectWriter",
        }
    }

    pub(super) fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.name() == name)
    }

    fn parse(document: &[u8]) -> Result<Self, Failure> {
        let root = xml::parse(document, "OwnershipControls")?;
        root.allow(&["Rule"])?;
        let [rule] = &root.children[..] else { return Err(malformed("it must hold one Rule")) };
        rule.allow(&["ObjectOwnership"])?;
        let named = rule.child_text("ObjectOwnership").and_then(Self::of_name);
        named.ok_or_else(|| malformed("ObjectOwnership is none of S3's"))
    }

    pub(super) fn document(self) -> String {
        let mut xml = Writer::s3("OwnershipControls");
        xml.element("Rule", |xml| xml.text("ObjectOwnership", self.name()));
        xml.finish()
    }
}

#[cfg(test)]
mod over_http;

//! What clients ask for by habit although it is never set here: S3's own "no such" codes or empty
//! documents, and the one ACL that there is.

use basalt_engine::seam::Runtime;
use basalt_net::mailbox::Mailbox;
use bytes::Bytes;
use http::StatusCode;
use http_body::Body;

use super::Server;
use super::answer::{self, Answer};
use super::auth::Authorized;
use super::body::document;
use super::bucket::owner;
use super::error::{Code, Failure};
use super::operation::Unset;
use super::request::{OWNER_ID, OWNER_NAME, Request};
use super::versioning::version_asked;
use super::watch::Watch;
use super::xml::{self, Writer};

impl<M: Mailbox, R: Runtime> Server<M, R> {
    pub(super) async fn unset(
        &self,
        request: &Request,
        _authorized: Authorized,
        unset: Unset,
    ) -> Result<Answer<M, R>, Failure> {
        self.check_exists(request).await?;
        nothing_set(unset).map(answer::xml)
    }

    /// There is nothing to remove.
    pub(super) async fn delete_unset(
        &self,
        request: &Request,
        _authorized: Authorized,
    ) -> Result<Answer<M, R>, Failure> {
        self.check_exists(request).await?;
        Ok(answer::empty(StatusCode::NO_CONTENT))
    }

    /// Takes the ACL that everything has, given by name or as a document.
    pub(super) async fn put_acl<B: Body<Data = Bytes> + Unpin>(
        &self,
        request: &Request,
        authorized: Authorized,
        body: &mut B,
        watch: &Watch<R>,
    ) -> Result<Answer<M, R>, Failure> {
        let canned = request.header("x-amz-acl").map(str::to_owned);
        let document = document(request, authorized, body, watch).await?;
        self.check_exists(request).await?;
        self.check_acl(request.bucket(), &request.headers).await?;
        let is_private = match canned.as_deref() {
            Some("private" | "bucket-owner-full-control") => true,
            Some(_) => false,
            None => is_private_acl(&document)?,
        };
        if is_private {
            return Ok(answer::empty(StatusCode::OK));
        }
        Err(Failure::not_implemented("An ACL other than private"))
    }

    /// Fails unless the bucket or object that the request names is there.
    async fn check_exists(&self, request: &Request) -> Result<(), Failure> {
        let bucket = request.bucket();
        match &request.target.key {
            None => drop(self.store().bucket(bucket).await?),
            Some(key) => {
                let version = version_asked(request)?;
                drop(self.store().head(bucket, key, version).await?);
            }
        }
        Ok(())
    }
}

fn nothing_set(unset: Unset) -> Result<String, Failure> {
    let (code, text) = match unset {
        Unset::Accelerate => return Ok(Writer::s3("AccelerateConfiguration").finish()),
        Unset::Acl => return Ok(private_acl()),
        Unset::Logging => return Ok(Writer::s3("BucketLoggingStatus").finish()),
        Unset::Notification => return Ok(Writer::s3("NotificationConfiguration").finish()),
        Unset::RequestPayment => {
            return Ok(one("RequestPaymentConfiguration", "Payer", "BucketOwner"));
        }
        Unset::Encryption => (
            Code::ServerSideEncryptionConfigurationNotFound,
            "The bucket has no encryption configuration.",
        ),
        Unset::Lock => {
            (Code::InvalidRequest, "The bucket has no object lock: nothing in it can be locked.")
        }
        Unset::Lifecycle => (Code::NoSuchLifecycleConfiguration, "The bucket has no lifecycle."),
        Unset::ObjectLock => {
            (Code::ObjectLockConfigurationNotFound, "The bucket has no object lock.")
        }
        Unset::Replication => {
            (Code::ReplicationConfigurationNotFound, "The bucket is not replicated.")
        }
        Unset::Website => (Code::NoSuchWebsiteConfiguration, "The bucket is not a website."),
    };
    Err(Failure::new(code, text))
}

fn one(root: &'static str, name: &str, value: &str) -> String {
    let mut xml = Writer::s3(root);
    xml.text(name, value);
    xml.finish()
}

/// Everything belongs to the owner alone.
fn private_acl() -> String {
    let mut xml = Writer::s3("AccessControlPolicy");
    owner(&mut xml);
    xml.element("AccessControlList", |xml| {
        xml.element("Grant", |xml| {
            let user = "xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" \
                xsi:type=\"CanonicalUser\"";
            xml.element_with("Grantee", user, |xml| {
                xml.text("ID", OWNER_ID);
                xml.text("DisplayName", OWNER_NAME);
            });
            xml.text("Permission", "FULL_CONTROL");
        });
    });
    xml.finish()
}

/// Whether a document grants full control to the owner, and nothing to anybody else.
fn is_private_acl(document: &[u8]) -> Result<bool, Failure> {
    let root = xml::parse(document, "AccessControlPolicy")?;
    root.allow(&["Owner", "AccessControlList"])?;
    let list = root
        .child("AccessControlList")
        .ok_or_else(|| xml::malformed("it lacks an AccessControlList"))?;
    list.allow(&["Grant"])?;
    let is_owners = |grant: &xml::Element| {
        grant.child("Grantee").and_then(|grantee| grantee.child_text("ID")) == Some(OWNER_ID)
            && grant.child_text("Permission") == Some("FULL_CONTROL")
    };
    Ok(!list.children.is_empty() && list.children.iter().all(is_owners))
}

#[cfg(test)]
mod tests {
    use crate::s3::testing::world::{refused, world};

    #[test]
    fn what_is_not_set_is_told_in_s3s_words() {
        let world = world();
        assert_eq!(world.ask("PUT", "/bucket/key", &[], b"x").status, 200);
        let missing = [
            ("encryption", 404, "ServerSideEncryptionConfigurationNotFoundError"),
            ("lifecycle", 404, "NoSuchLifecycleConfiguration"),
            ("object-lock", 404, "ObjectLockConfigurationNotFoundError"),
            ("replication", 404, "ReplicationConfigurationNotFoundError"),
            ("website", 404, "NoSuchWebsiteConfiguration"),
        ];
        for (name, status, code) in missing {
            refused(&world.ask("GET", &format!("/bucket?{name}"), &[], b""), status, code);
            refused(&world.ask("GET", &format!("/absent?{name}"), &[], b""), 404, "NoSuchBucket");
        }
        for (name, root) in [
            ("accelerate", "AccelerateConfiguration"),
            ("acl", "AccessControlPolicy"),
            ("logging", "BucketLoggingStatus"),
            ("notification", "NotificationConfiguration"),
            ("requestPayment", "RequestPaymentConfiguration"),
        ] {
            let answer = world.ask("GET", &format!("/bucket?{name}"), &[], b"");
            assert_eq!(answer.status, 200, "{name}");
            assert!(answer.text().contains(&format!("<{root} xmlns=")), "{}", answer.text());
        }
        let acl = world.ask("GET", "/bucket/key?acl", &[], b"");
        assert_eq!(acl.elements("Permission"), ["FULL_CONTROL"]);
        for name in ["legal-hold", "retention"] {
            let target = format!("/bucket/key?{name}");
            refused(&world.ask("GET", &target, &[], b""), 400, "InvalidRequest");
            refused(&world.ask("PUT", &target, &[], b"<x/>"), 400, "InvalidRequest");
        }
        refused(&world.ask("GET", "/bucket/absent?acl", &[], b""), 404, "NoSuchKey");
    }

    #[test]
    fn what_is_not_set_can_be_removed_and_not_set() {
        let world = world();
        for name in ["encryption", "lifecycle", "replication", "website"] {
            let target = format!("/bucket?{name}");
            assert_eq!(world.ask("DELETE", &target, &[], b"").status, 204, "{name}");
            let absent = world.ask("DELETE", &format!("/absent?{name}"), &[], b"");
            refused(&absent, 404, "NoSuchBucket");
            let put = world.ask("PUT", &target, &[], b"<x/>");
            refused(&put, 501, "NotImplemented");
            assert!(put.element("Message").contains(name), "{put:?}");
        }
    }

    #[test]
    fn the_private_acl_is_the_only_one() {
        let world = world();
        assert_eq!(world.ask("PUT", "/bucket/key", &[], b"x").status, 200);
        for target in ["/bucket?acl", "/bucket/key?acl"] {
            let acl = |acl: &str| world.ask("PUT", target, &[("x-amz-acl", acl)], b"");
            assert_eq!(acl("private").status, 200);
            refused(&acl("public-read"), 501, "NotImplemented");
            let document = world.ask("GET", target, &[], b"").body;
            assert_eq!(world.ask("PUT", target, &[], &document).status, 200);
            let text = String::from_utf8(document).expect("text");
            let read = text.replace("FULL_CONTROL", "READ");
            refused(&world.ask("PUT", target, &[], read.as_bytes()), 501, "NotImplemented");
            let other = text.replace("0000001</ID></Grantee>", "0000002</ID></Grantee>");
            let other = other
                .replace("1</ID><DisplayName>basalt</DisplayName></Grantee>", "2</ID></Grantee>");
            refused(&world.ask("PUT", target, &[], other.as_bytes()), 501, "NotImplemented");
            refused(&world.ask("PUT", target, &[], b""), 400, "MalformedXML");
        }
    }
}

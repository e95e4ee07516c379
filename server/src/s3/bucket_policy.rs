//! The policy of a bucket: kept as it was put, answered byte for byte.

use basalt_engine::seam::Runtime;
use basalt_net::mailbox::Mailbox;
use bytes::Bytes;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use http_body::Body;

use super::Server;
use super::answer::{self, Answer};
use super::auth::Authorized;
use super::body::document_within;
use super::error::{Code, Failure};
use super::request::Request;
use super::watch::Watch;
use super::xml::Writer;
use crate::policy::{Home, POLICY_BYTES_MAX, Policy};

/// The setting of a bucket that holds its policy.
pub(super) const POLICY: &str = "policy";

impl<M: Mailbox, R: Runtime> Server<M, R> {
    pub(super) async fn get_bucket_policy(
        &self,
        request: &Request,
        _authorized: Authorized,
    ) -> Result<Answer<M, R>, Failure> {
        let kept = self.store().bucket_setting(request.bucket(), POLICY).await?;
        let kept = kept
            .ok_or_else(|| Failure::new(Code::NoSuchBucketPolicy, "The bucket has no policy."))?;
        let mut answer = answer::text(String::from_utf8_lossy(&kept).into_owned());
        answer::set(&mut answer, CONTENT_TYPE, "application/json");
        Ok(answer)
    }

    pub(super) async fn put_bucket_policy<B: Body<Data = Bytes> + Unpin>(
        &self,
        request: &Request,
        authorized: Authorized,
        body: &mut B,
        watch: &Watch<R>,
    ) -> Result<Answer<M, R>, Failure> {
        let bucket = request.bucket();
        let long = || {
            let text = format!("A policy has up to {POLICY_BYTES_MAX} bytes.");
            Failure::new(Code::EntityTooLarge, text)
        };
        let text =
            document_within(POLICY_BYTES_MAX, long, request, authorized, body, watch).await?;
        self.store().bucket(bucket).await?;
        let policy = Policy::parse(&text, Home::Bucket(bucket)).map_err(|reason| {
            Failure::new(Code::MalformedPolicy, format!("The policy is not valid: {reason}."))
        })?;
        if policy.is_public() && self.public_access(bucket).await?.blocks_policy {
            let text = "The bucket's public access block lets nobody set a public policy.";
            return Err(Failure::new(Code::AccessDenied, text));
        }
        self.store().set_bucket_setting(bucket, POLICY, Some(text)).await?;
        Ok(answer::empty(StatusCode::NO_CONTENT))
    }

    pub(super) async fn delete_bucket_policy(
        &self,
        request: &Request,
        _authorized: Authorized,
    ) -> Result<Answer<M, R>, Failure> {
        self.store().set_bucket_setting(request.bucket(), POLICY, None).await?;
        Ok(answer::empty(StatusCode::NO_CONTENT))
    }

    pub(super) async fn bucket_policy_status(
        &self,
        request: &Request,
        _authorized: Authorized,
    ) -> Result<Answer<M, R>, Failure> {
        let bucket = request.bucket();
        let is_public = match self.store().bucket_setting(bucket, POLICY).await? {
            None => false,
            // One that is not understood allows nothing.
            Some(text) => {
                Policy::parse(&text, Home::Bucket(bucket)).is_ok_and(|policy| policy.is_public())
            }
        };
        let mut xml = Writer::s3("PolicyStatus");
        xml.text("IsPublic", if is_public { "true" } else { "false" });
        Ok(answer::xml(xml.finish()))
    }
}

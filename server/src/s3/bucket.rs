//! Operations on buckets: create, look, list, delete.

use basalt_engine::seam::Runtime;
use basalt_net::mailbox::Mailbox;
use bytes::Bytes;
use http::StatusCode;
use http::header::LOCATION;
use http_body::Body;

use super::Server;
use super::answer::{self, Answer};
use super::auth::{Admitted, Asker, Authorized, Need, parse_decimal};
use super::body::document;
use super::configuration::{Configuration, Ownership};
use super::date;
use super::error::{Code, Failure};
use super::request::{OWNER_ID, OWNER_NAME, Request};
use super::watch::Watch;
use super::xml::{self, Writer};
use crate::object::Bucket;
use crate::policy::Action;

/// ListBuckets tells at most so many at once.
const BUCKETS_MAX: u64 = 10_000;

impl<M: Mailbox, R: Runtime> Server<M, R> {
    pub(super) async fn list_buckets(
        &self,
        request: &Request,
        admitted: Admitted,
    ) -> Result<Answer<M, R>, Failure> {
        let mut asker = admitted.asker;
        if asker.is_anonymous() {
            let text = "Access denied: buckets are shown to users only.";
            return Err(Failure::new(Code::AccessDenied, text));
        }
        let limit = match request.target.query.filled("max-buckets") {
            None => BUCKETS_MAX,
            Some(text) => parse_decimal(text)
                .filter(|limit| (1..=BUCKETS_MAX).contains(limit))
                .ok_or_else(|| {
                    let text = "max-buckets must be a number from 1 to 10000.";
                    Failure::new(Code::InvalidArgument, text)
                })?,
        };
        let prefix = request.parameter("prefix").unwrap_or_default();
        let after = request.parameter("continuation-token").unwrap_or_default();
        let mut buckets = self.store().buckets().await?;
        buckets.retain(|bucket| bucket.name.starts_with(prefix) && *bucket.name > *after);
        buckets.sort_by(|one, other| one.name.cmp(&other.name));
        let limit = usize::try_from(limit).expect("small");
        let all = Need::of_service(Action::ListAllMyBuckets);
        if self.check(&asker, &all).await.is_err() {
            buckets = self.visible(&mut asker, buckets, limit).await?;
        }
        Ok(answer::xml(bucket_list(&buckets, limit, prefix)))
    }

    /// The first of `buckets` that somebody may list or locate: `limit` of them, and one more where
    /// there is one.
    async fn visible(
        &self,
        asker: &mut Asker,
        buckets: Vec<Bucket>,
        limit: usize,
    ) -> Result<Vec<Bucket>, Failure> {
        let mut visible = Vec::new();
        for bucket in buckets {
            if self.may_see(asker, &bucket.name).await? {
                visible.push(bucket);
            }
            if visible.len() > limit {
                break;
            }
        }
        Ok(visible)
    }

    pub(super) async fn create_bucket<B: Body<Data = Bytes> + Unpin>(
        &self,
        request: &Request,
        admitted: Admitted,
        body: &mut B,
        watch: &Watch<R>,
    ) -> Result<Answer<M, R>, Failure> {
        let Admitted { mut asker, payload } = admitted;
        asker.check_hope()?;
        let wants_lock = request.header("x-amz-bucket-object-lock-enabled");
        if wants_lock.is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return Err(Failure::not_implemented("A bucket with object lock"));
        }
        let ownership = request.header("x-amz-object-ownership").map(|name| {
            Ownership::of_name(name).ok_or_else(|| {
                let text = "x-amz-object-ownership is none of S3's.";
                Failure::new(Code::InvalidArgument, text)
            })
        });
        let ownership = ownership.transpose()?;
        let location = location(&document(request, payload, body, watch).await?)?;
        let name = request.bucket();
        if let Some(location) = &location {
            asker.set_location(location);
        }
        self.check(&asker, &Need::of_bucket(Action::CreateBucket, name)).await?;
        if ownership.is_some() {
            let need = Need::of_bucket(Action::PutBucketOwnershipControls, name);
            self.check(&asker, &need).await?;
        }
        self.check_location(location.as_deref())?;
        self.store().create_bucket(name).await?;
        // Cut off in between, the bucket is there without: nobody was told that it has them.
        if let Some(ownership) = ownership {
            let (setting, kept) = (Configuration::Ownership.setting(), ownership.document());
            self.store().set_bucket_setting(name, setting, Some(Bytes::from(kept))).await?;
        }
        let mut answer = answer::empty(StatusCode::OK);
        answer::set(&mut answer, LOCATION, &format!("/{name}"));
        Ok(answer)
    }

    /// A client may name a region; where none is configured, any will do.
    fn check_location(&self, stated: Option<&str>) -> Result<(), Failure> {
        let stated = stated.unwrap_or_default();
        let is_served = match self.region() {
            None => true,
            Some(region) => stated.is_empty() || stated == region,
        };
        if is_served {
            return Ok(());
        }
        Err(Failure::new(
            Code::InvalidLocationConstraint,
            format!("The location constraint '{stated}' is not this server's region."),
        ))
    }

    pub(super) async fn head_bucket(
        &self,
        request: &Request,
        _authorized: Authorized,
    ) -> Result<Answer<M, R>, Failure> {
        self.store().bucket(request.bucket()).await?;
        let mut answer = answer::empty(StatusCode::OK);
        let region = http::HeaderName::from_static("x-amz-bucket-region");
        answer::set(&mut answer, region, self.region().unwrap_or(DEFAULT_REGION));
        Ok(answer)
    }

    pub(super) async fn delete_bucket(
        &self,
        request: &Request,
        _authorized: Authorized,
    ) -> Result<Answer<M, R>, Failure> {
        self.store().delete_bucket(request.bucket()).await?;
        Ok(answer::empty(StatusCode::NO_CONTENT))
    }

    pub(super) async fn bucket_location(
        &self,
        request: &Request,
        _authorized: Authorized,
    ) -> Result<Answer<M, R>, Failure> {
        self.store().bucket(request.bucket()).await?;
        let mut xml = Writer::s3("LocationConstraint");
        // S3's first region is written as nothing.
        xml.bare(self.region().filter(|region| *region != DEFAULT_REGION).unwrap_or_default());
        Ok(answer::xml(xml.finish()))
    }
}

/// The region that the document of a new bucket states.
fn location(document: &[u8]) -> Result<Option<String>, Failure> {
    if document.trim_ascii().is_empty() {
        return Ok(None);
    }
    let root = xml::parse(document, "CreateBucketConfiguration")?;
    Ok(root.child_text("LocationConstraint").map(|stated| stated.trim().to_owned()))
}

/// The region that clients take for granted.
const DEFAULT_REGION: &str = "us-east-1";

fn bucket_list(buckets: &[Bucket], limit: usize, prefix: &str) -> String {
    let mut xml = Writer::s3("ListAllMyBucketsResult");
    owner(&mut xml);
    let page = &buckets[..limit.min(buckets.len())];
    xml.element("Buckets", |xml| {
        for bucket in page {
            xml.element("Bucket", |xml| {
                xml.text("Name", &bucket.name);
                xml.text("CreationDate", &date::iso(bucket.created_ms));
            });
        }
    });
    if let Some(last) = page.last().filter(|_| page.len() < buckets.len()) {
        xml.text("ContinuationToken", &last.name);
    }
    if !prefix.is_empty() {
        xml.text("Prefix", prefix);
    }
    xml.finish()
}

pub(super) fn owner(xml: &mut Writer) {
    xml.element("Owner", |xml| {
        xml.text("ID", OWNER_ID);
        xml.text("DisplayName", OWNER_NAME);
    });
}

//! What an operation needs: actions on buckets and objects, each of which must be allowed. The table
//! is exhaustive: an operation without a line here does not compile.

use crate::policy::{Action, Resource};
use crate::s3::configuration::Configuration;
use crate::s3::copy::Origin;
use crate::s3::error::Failure;
use crate::s3::operation::{Operation, Unset};
use crate::s3::request::Request;
use crate::s3::tagging;

/// One action on one resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::s3) struct Need {
    pub(super) action: Action,
    bucket: Option<String>,
    key: Option<String>,
    pub(super) version: Option<String>,
}

/// When it is known what an operation needs.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::s3) enum Needs {
    /// From the head of the request.
    Known(Vec<Need>),
    /// Only with the content of its body, or of the store.
    OfContent,
}

impl Need {
    pub(in crate::s3) fn of_service(action: Action) -> Self {
        Self { action, bucket: None, key: None, version: None }
    }

    pub(in crate::s3) fn of_bucket(action: Action, bucket: &str) -> Self {
        Self { bucket: Some(bucket.to_owned()), ..Self::of_service(action) }
    }

    pub(in crate::s3) fn of_object(action: Action, bucket: &str, key: &[u8]) -> Self {
        // Keys are UTF-8 by the time that anybody asks about them.
        let key = Some(String::from_utf8_lossy(key).into_owned());
        Self { key, ..Self::of_bucket(action, bucket) }
    }

    /// The object's version; `of_version` is what the action is called where one is named.
    pub(in crate::s3) fn of_version(
        [plain, of_version]: [Action; 2],
        bucket: &str,
        key: &[u8],
        version: Option<&str>,
    ) -> Self {
        let action = if version.is_some() { of_version } else { plain };
        Self { version: version.map(str::to_owned), ..Self::of_object(action, bucket, key) }
    }

    pub(super) fn bucket(&self) -> Option<&str> {
        self.bucket.as_deref()
    }

    /// Bucket and key of an object's.
    pub(super) fn object(&self) -> Option<(&str, &str)> {
        Some((self.bucket.as_deref()?, self.key.as_deref()?))
    }

    pub(super) fn resource(&self) -> Resource<'_> {
        match (&self.bucket, &self.key) {
            (None, _) => Resource::Service,
            (Some(bucket), None) => Resource::Bucket(bucket),
            (Some(bucket), Some(key)) => Resource::Object(bucket, key),
        }
    }
}

pub(in crate::s3) const GET: [Action; 2] = [Action::GetObject, Action::GetObjectVersion];
pub(in crate::s3) const DELETE: [Action; 2] = [Action::DeleteObject, Action::DeleteObjectVersion];
pub(in crate::s3) const PUT_TAGS: [Action; 2] =
    [Action::PutObjectTagging, Action::PutObjectVersionTagging];
const GET_TAGS: [Action; 2] = [Action::GetObjectTagging, Action::GetObjectVersionTagging];
const DELETE_TAGS: [Action; 2] = [Action::DeleteObjectTagging, Action::DeleteObjectVersionTagging];
const GET_ACL: [Action; 2] = [Action::GetObjectAcl, Action::GetObjectVersionAcl];
const PUT_ACL: [Action; 2] = [Action::PutObjectAcl, Action::PutObjectVersionAcl];
const GET_ATTRIBUTES: [Action; 2] =
    [Action::GetObjectAttributes, Action::GetObjectVersionAttributes];

impl Needs {
    pub(in crate::s3) fn of(request: &Request) -> Result<Self, Failure> {
        use Operation as O;
        let bucket = |action| Ok(vec![Need::of_bucket(action, request.bucket())]);
        let object = |action| Ok(vec![Need::of_object(action, request.bucket(), request.key())]);
        let version = |actions| {
            let version = request.parameter("versionId");
            Need::of_version(actions, request.bucket(), request.key(), version)
        };
        let needs: Result<Vec<Need>, Failure> = match request.operation {
            O::ListBuckets | O::CreateBucket | O::DeleteObjects | O::PutObjectTags => {
                return Ok(Self::OfContent);
            }
            O::HeadBucket | O::ListObjects | O::ListObjectsV2 => bucket(Action::ListBucket),
            O::ListObjectVersions => bucket(Action::ListBucketVersions),
            O::DeleteBucket => bucket(Action::DeleteBucket),
            O::GetBucketLocation => bucket(Action::GetBucketLocation),
            O::GetObject | O::HeadObject => Ok(vec![version(GET)]),
            O::GetObjectAttributes => Ok(vec![version(GET), version(GET_ATTRIBUTES)]),
            O::PutObject | O::CreateUpload => Ok(writing(request, has_tags(request))),
            O::PutPart | O::CompleteUpload => Ok(writing(request, false)),
            O::CopyObject => copying(request),
            O::CopyPart => {
                Ok([writing(request, false), vec![read(request.origin(), GET)]].concat())
            }
            O::DeleteObject => {
                Ok([version(DELETE)].into_iter().chain(comparing(request)).collect())
            }
            O::AbortUpload => object(Action::AbortMultipartUpload),
            O::ListUploads => bucket(Action::ListBucketMultipartUploads),
            O::ListParts => object(Action::ListMultipartUploadParts),
            O::GetObjectTags => Ok(vec![version(GET_TAGS)]),
            O::DeleteObjectTags => Ok(vec![version(DELETE_TAGS)]),
            O::GetBucketTags => bucket(Action::GetBucketTagging),
            O::PutBucketTags | O::DeleteBucketTags => bucket(Action::PutBucketTagging),
            O::GetBucketVersioning => bucket(Action::GetBucketVersioning),
            O::PutBucketVersioning => bucket(Action::PutBucketVersioning),
            O::GetBucketPolicy => bucket(Action::GetBucketPolicy),
            O::PutBucketPolicy => bucket(Action::PutBucketPolicy),
            O::DeleteBucketPolicy => bucket(Action::DeleteBucketPolicy),
            O::GetBucketPolicyStatus => bucket(Action::GetBucketPolicyStatus),
            O::GetConfiguration(which) => bucket(getting(which)),
            O::PutConfiguration(which) | O::DeleteConfiguration(which) => bucket(putting(which)),
            O::PutAcl if request.target.key.is_some() => Ok(vec![version(PUT_ACL)]),
            O::PutAcl => bucket(Action::PutBucketAcl),
            O::Unset(Unset::Acl) if request.target.key.is_some() => Ok(vec![version(GET_ACL)]),
            O::Unset(Unset::Lock) => object(Action::GetObjectRetention),
            O::Unset(unset) => bucket(reading(unset)),
            O::DeleteUnset(unset) => bucket(removing(unset)),
        };
        needs.map(Self::Known)
    }
}

fn writing(request: &Request, with_tags: bool) -> Vec<Need> {
    let need = |action| Need::of_object(action, request.bucket(), request.key());
    let mut needs = vec![need(Action::PutObject)];
    if with_tags {
        needs.push(need(Action::PutObjectTagging));
    }
    needs.extend(comparing(request));
    needs
}

/// Whoever learns whether an ETag is that of an object reads it.
fn comparing(request: &Request) -> Option<Need> {
    let is_etag = |value: &http::HeaderValue| value.as_bytes().trim_ascii() != b"*";
    let compares = request.headers.contains_key(http::header::IF_MATCH)
        || request.headers.get_all(http::header::IF_NONE_MATCH).iter().any(is_etag);
    compares.then(|| Need::of_object(Action::GetObject, request.bucket(), request.key()))
}

fn has_tags(request: &Request) -> bool {
    request.headers.contains_key("x-amz-tagging")
}

fn copying(request: &Request) -> Result<Vec<Need>, Failure> {
    let replaces_tags = tagging::are_replaced(&request.headers)?;
    let mut needs = writing(request, replaces_tags && has_tags(request));
    needs.push(read(request.origin(), GET));
    Ok(needs)
}

/// What a copy needs beside, where its source turns out to have tags that it takes along.
pub(in crate::s3) fn of_copied_tags(request: &Request) -> [Need; 2] {
    let puts = Need::of_object(Action::PutObjectTagging, request.bucket(), request.key());
    [read(request.origin(), GET_TAGS), puts]
}

fn read(origin: &Origin, actions: [Action; 2]) -> Need {
    Need::of_version(actions, origin.bucket(), origin.key(), origin.version().as_deref())
}

/// The needs of an upload by a form.
pub(in crate::s3) fn of_form(bucket: &str, key: &[u8], with_tags: bool) -> Vec<Need> {
    let mut needs = vec![Need::of_object(Action::PutObject, bucket, key)];
    if with_tags {
        needs.push(Need::of_object(Action::PutObjectTagging, bucket, key));
    }
    needs
}

fn getting(which: Configuration) -> Action {
    match which {
        Configuration::Cors => Action::GetBucketCORS,
        Configuration::Ownership => Action::GetBucketOwnershipControls,
        Configuration::PublicAccess => Action::GetBucketPublicAccessBlock,
    }
}

/// Removing needs what putting needs, as in S3.
fn putting(which: Configuration) -> Action {
    match which {
        Configuration::Cors => Action::PutBucketCORS,
        Configuration::Ownership => Action::PutBucketOwnershipControls,
        Configuration::PublicAccess => Action::PutBucketPublicAccessBlock,
    }
}

fn reading(unset: Unset) -> Action {
    match unset {
        Unset::Accelerate => Action::GetAccelerateConfiguration,
        Unset::Acl => Action::GetBucketAcl,
        Unset::Encryption => Action::GetEncryptionConfiguration,
        Unset::Lock => Action::GetObjectRetention,
        Unset::Lifecycle => Action::GetLifecycleConfiguration,
        Unset::Logging => Action::GetBucketLogging,
        Unset::Notification => Action::GetBucketNotification,
        Unset::ObjectLock => Action::GetBucketObjectLockConfiguration,
        Unset::Replication => Action::GetReplicationConfiguration,
        Unset::RequestPayment => Action::GetBucketRequestPayment,
        Unset::Website => Action::GetBucketWebsite,
    }
}

fn removing(unset: Unset) -> Action {
    match unset {
        Unset::Accelerate => Action::PutAccelerateConfiguration,
        Unset::Acl => Action::PutBucketAcl,
        Unset::Encryption => Action::PutEncryptionConfiguration,
        Unset::Lock => Action::PutObjectRetention,
        Unset::Lifecycle => Action::PutLifecycleConfiguration,
        Unset::Logging => Action::PutBucketLogging,
        Unset::Notification => Action::PutBucketNotification,
        Unset::ObjectLock => Action::PutBucketObjectLockConfiguration,
        Unset::Replication => Action::PutReplicationConfiguration,
        Unset::RequestPayment => Action::PutBucketRequestPayment,
        Unset::Website => Action::DeleteBucketWebsite,
    }
}

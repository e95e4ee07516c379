//! What a client is told when a request fails, and the one place where errors of the object layer
//! become S3 codes.

use std::borrow::Cow;

use http::header::{ALLOW, LAST_MODIFIED};
use http::{HeaderName, HeaderValue, StatusCode};

use super::date;
use super::versioning::{DELETE_MARKER, VERSION_ID};
use super::xml::Writer;
use crate::object::VersionName;
use crate::object::error::SourceError;
use crate::object::{self};

/// A failed request as S3 tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) code: Code,
    pub(super) message: Cow<'static, str>,
    /// The region that a client should have signed for; clients read it and sign again.
    pub(super) region: Option<String>,
    /// The header whose condition does not hold, by which clients tell "it exists already".
    pub(super) condition: Option<&'static str>,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
}

impl Failure {
    pub(super) fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        let message = message.into();
        Self { code, message, region: None, condition: None, headers: Vec::new() }
    }

    pub(super) fn not_implemented(what: &str) -> Self {
        Self::new(Code::NotImplemented, format!("{what} is not implemented."))
    }

    /// It is because of this delete marker.
    fn of_marker(mut self, marker: VersionName) -> Self {
        let version = HeaderValue::from_str(&marker.to_string()).expect("ASCII");
        self.headers.push((DELETE_MARKER, HeaderValue::from_static("true")));
        self.headers.push((VERSION_ID, version));
        self
    }

    /// The document of the answer to who administers.
    pub(super) fn json(&self, resource: &str, request_id: &str, host_id: &str) -> String {
        let document = serde_json::json!({
            "Code": self.code.name(),
            "Message": self.message,
            "Resource": resource,
            "RequestId": request_id,
            "HostId": host_id,
        });
        document.to_string()
    }

    /// The XML document of the answer.
    pub(super) fn document(&self, resource: &str, request_id: &str, host_id: &str) -> String {
        let mut xml = Writer::document("Error", None);
        xml.text("Code", self.code.name());
        xml.text("Message", &self.message);
        if let Some(condition) = self.condition {
            xml.text("Condition", condition);
        }
        if let Some(region) = &self.region {
            xml.text("Region", region);
        }
        xml.text("Resource", resource);
        xml.text("RequestId", request_id);
        xml.text("HostId", host_id);
        xml.finish()
    }
}

macro_rules! codes {
    ($($code:ident = $status:literal $name:literal,)*) => {
        /// S3's error codes, each with its HTTP status.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Code { $($code,)* }

        impl Code {
            #[cfg(test)]
            pub(super) const ALL: &[Self] = &[$(Self::$code,)*];

            pub(super) fn name(self) -> &'static str {
                match self { $(Self::$code => $name,)* }
            }
            pub(super) fn status(self) -> StatusCode {
                let status: u16 = match self { $(Self::$code => $status,)* };
                StatusCode::from_u16(status).expect("a valid status")
            }
        }
    };
}

codes! {
    AccessControlListNotSupported = 400 "AccessControlListNotSupported",
    AccessDenied = 403 "AccessDenied",
    AccessForbidden = 403 "AccessForbidden",
    AdminVersionMismatch = 426 "XMinioAdminVersionMismatch",
    AuthorizationHeaderMalformed = 400 "AuthorizationHeaderMalformed",
    AuthorizationQueryParametersError = 400 "AuthorizationQueryParametersError",
    BadDigest = 400 "BadDigest",
    BadRequest = 400 "BadRequest",
    BucketAlreadyOwnedByYou = 409 "BucketAlreadyOwnedByYou",
    BucketNotEmpty = 409 "BucketNotEmpty",
    ConditionalRequestConflict = 409 "ConditionalRequestConflict",
    EntityTooLarge = 400 "EntityTooLarge",
    EntityTooSmall = 400 "EntityTooSmall",
    FormTooLong = 400 "MaxPostPreDataLengthExceededError",
    HeadersTooLarge = 400 "RequestHeaderSectionTooLarge",
    IllegalVersioningConfiguration = 400 "IllegalVersioningConfigurationException",
    IncompleteBody = 400 "IncompleteBody",
    InternalError = 500 "InternalError",
    InvalidAccessKeyId = 403 "InvalidAccessKeyId",
    InvalidArgument = 400 "InvalidArgument",
    InvalidBucketName = 400 "InvalidBucketName",
    InvalidDigest = 400 "InvalidDigest",
    InvalidLocationConstraint = 400 "InvalidLocationConstraint",
    InvalidPart = 400 "InvalidPart",
    InvalidPartOrder = 400 "InvalidPartOrder",
    InvalidPolicyDocument = 400 "InvalidPolicyDocument",
    InvalidRange = 416 "InvalidRange",
    InvalidRequest = 400 "InvalidRequest",
    InvalidTag = 400 "InvalidTag",
    InvalidStorageClass = 400 "InvalidStorageClass",
    InvalidToken = 400 "InvalidToken",
    InvalidUri = 400 "InvalidURI",
    KeyTooLong = 400 "KeyTooLongError",
    MalformedPolicy = 400 "MalformedPolicy",
    MalformedPost = 400 "MalformedPOSTRequest",
    MalformedTrailer = 400 "MalformedTrailerError",
    MalformedXml = 400 "MalformedXML",
    MaxMessageLengthExceeded = 400 "MaxMessageLengthExceeded",
    MetadataTooLarge = 400 "MetadataTooLarge",
    MethodNotAllowed = 405 "MethodNotAllowed",
    MissingContentLength = 411 "MissingContentLength",
    NoSuchBucket = 404 "NoSuchBucket",
    NoSuchBucketPolicy = 404 "NoSuchBucketPolicy",
    NoSuchCorsConfiguration = 404 "NoSuchCORSConfiguration",
    NoSuchKey = 404 "NoSuchKey",
    NoSuchLifecycleConfiguration = 404 "NoSuchLifecycleConfiguration",
    NoSuchPublicAccessBlock = 404 "NoSuchPublicAccessBlockConfiguration",
    NoSuchTagSet = 404 "NoSuchTagSet",
    NoSuchUpload = 404 "NoSuchUpload",
    NoSuchVersion = 404 "NoSuchVersion",
    NoSuchWebsiteConfiguration = 404 "NoSuchWebsiteConfiguration",
    NotImplemented = 501 "NotImplemented",
    ObjectLockConfigurationNotFound = 404 "ObjectLockConfigurationNotFoundError",
    OwnershipControlsNotFound = 404 "OwnershipControlsNotFoundError",
    PayloadHashMismatch = 400 "XAmzContentSHA256Mismatch",
    PreconditionFailed = 412 "PreconditionFailed",
    ReplicationConfigurationNotFound = 404 "ReplicationConfigurationNotFoundError",
    RequestTimeout = 400 "RequestTimeout",
    RequestTimeTooSkewed = 403 "RequestTimeTooSkewed",
    ServerSideEncryptionConfigurationNotFound = 404 "ServerSideEncryptionConfigurationNotFoundError",
    ServiceUnavailable = 503 "ServiceUnavailable",
    SignatureDoesNotMatch = 403 "SignatureDoesNotMatch",
    SlowDown = 503 "SlowDown",
    StorageFull = 507 "XMinioStorageFull",
    UriTooLong = 414 "URITooLong",
}

impl From<object::Error> for Failure {
    fn from(error: object::Error) -> Self {
        use object::Error as E;
        let with_text = |code| Failure::new(code, sentence(&error.to_string()));
        match &error {
            E::NoSuchBucket => Failure::new(Code::NoSuchBucket, "The bucket does not exist."),
            E::BucketExists => Failure::new(
                Code::BucketAlreadyOwnedByYou,
                "The bucket exists already and belongs to you.",
            ),
            E::BucketNotEmpty => Failure::new(
                Code::BucketNotEmpty,
                "The bucket holds objects, versions or delete markers; delete them first.",
            ),
            E::NoSuchKey => Failure::new(Code::NoSuchKey, "The key does not exist."),
            E::NoSuchVersion => Failure::new(Code::NoSuchVersion, "The version does not exist."),
            E::Deleted { marker } => {
                let failure = Failure::new(Code::NoSuchKey, "The key does not exist.");
                failure.of_marker(*marker)
            }
            E::IsMarker { marker, modified_ms } => {
                let text = "The version is a delete marker: it can only be deleted.";
                let mut failure = Failure::new(Code::MethodNotAllowed, text).of_marker(*marker);
                let modified = HeaderValue::from_str(&date::http(*modified_ms)).expect("ASCII");
                failure.headers.push((LAST_MODIFIED, modified));
                failure.headers.push((ALLOW, HeaderValue::from_static("DELETE")));
                failure
            }
            E::NoSuchUpload => Failure::new(
                Code::NoSuchUpload,
                "The upload does not exist: its id is wrong, or it was completed or aborted.",
            ),
            E::InvalidPart { .. } => with_text(Code::InvalidPart),
            E::InvalidPartOrder => with_text(Code::InvalidPartOrder),
            E::PartTooSmall { .. } => with_text(Code::EntityTooSmall),
            E::ClaimFailed { .. } => with_text(Code::InvalidRequest),
            E::PreconditionFailed => with_text(Code::PreconditionFailed),
            E::Conflict => with_text(Code::ConditionalRequestConflict),
            E::Unavailable { .. } | E::Unreadable { .. } | E::Lost { .. } => {
                with_text(Code::ServiceUnavailable)
            }
            E::Full { .. } => with_text(Code::StorageFull),
            E::Unknown { .. } => Failure::new(
                Code::ServiceUnavailable,
                format!("{} It may or may not have happened.", sentence(&error.to_string())),
            ),
            E::Body(source) => source.clone().into(),
            E::Busy | E::BucketClosing => with_text(Code::SlowDown),
        }
    }
}

impl From<SourceError> for Failure {
    fn from(error: SourceError) -> Self {
        use SourceError as E;
        let code = match &error {
            E::Incomplete => Code::IncompleteBody,
            E::TooLong | E::Malformed(_) => Code::InvalidRequest,
            E::BadDigest { .. } => Code::BadDigest,
            E::PayloadHashMismatch => Code::PayloadHashMismatch,
            E::ChunkSignatureMismatch => Code::SignatureDoesNotMatch,
            E::Trailer(_) => Code::MalformedTrailer,
            E::TimedOut => Code::RequestTimeout,
        };
        Self::new(code, sentence(&error.to_string()))
    }
}

/// Error texts are phrases; S3's messages are sentences.
fn sentence(phrase: &str) -> String {
    let mut sentence = String::with_capacity(phrase.len() + 1);
    let mut characters = phrase.chars();
    sentence.extend(characters.next().map(|first| first.to_ascii_uppercase()));
    sentence.push_str(characters.as_str());
    sentence.push('.');
    sentence
}

#[cfg(test)]
mod tests {
    use basalt_engine::units::{SetIndex, VersionId};

    use super::*;

    #[test]
    fn quorum_loss_names_the_set_and_what_is_missing() {
        let error = object::Error::Unavailable { set: SetIndex(3), action: "write", short_by: 2 };
        let failure = Failure::from(error);
        assert_eq!(failure.code.status().as_u16(), 503);
        assert_eq!(failure.message, "Set 3 cannot write: 2 more drive(s) needed.");
        assert_eq!(failure.code.name(), "ServiceUnavailable");
    }

    #[test]
    fn every_error_of_the_object_layer_has_its_code() {
        use object::Error as E;
        let set = SetIndex(0);
        let expected = [
            (E::NoSuchBucket, 404, "NoSuchBucket"),
            (E::BucketExists, 409, "BucketAlreadyOwnedByYou"),
            (E::BucketNotEmpty, 409, "BucketNotEmpty"),
            (E::NoSuchKey, 404, "NoSuchKey"),
            (E::NoSuchVersion, 404, "NoSuchVersion"),
            (E::Deleted { marker: VersionName::Null }, 404, "NoSuchKey"),
            (E::IsMarker { marker: VersionName::Null, modified_ms: 0 }, 405, "MethodNotAllowed"),
            (E::NoSuchUpload, 404, "NoSuchUpload"),
            (E::InvalidPart { number: 1 }, 400, "InvalidPart"),
            (E::InvalidPartOrder, 400, "InvalidPartOrder"),
            (E::PartTooSmall { number: 1, bytes: 1 }, 400, "EntityTooSmall"),
            (E::ClaimFailed { what: "size" }, 400, "InvalidRequest"),
            (E::PreconditionFailed, 412, "PreconditionFailed"),
            (E::Conflict, 409, "ConditionalRequestConflict"),
            (E::Full { set }, 507, "XMinioStorageFull"),
            (E::Unknown { set }, 503, "ServiceUnavailable"),
            (E::Unreadable { set, short_by: 1 }, 503, "ServiceUnavailable"),
            (E::Lost { set, version: VersionId(1) }, 503, "ServiceUnavailable"),
            (E::Busy, 503, "SlowDown"),
            (E::BucketClosing, 503, "SlowDown"),
            (E::Body(SourceError::Incomplete), 400, "IncompleteBody"),
            (E::Body(SourceError::BadDigest { algorithm: "MD5" }), 400, "BadDigest"),
            (E::Body(SourceError::PayloadHashMismatch), 400, "XAmzContentSHA256Mismatch"),
            (E::Body(SourceError::ChunkSignatureMismatch), 403, "SignatureDoesNotMatch"),
            (E::Body(SourceError::TimedOut), 400, "RequestTimeout"),
        ];
        for (error, status, name) in expected {
            let failure = Failure::from(error);
            assert_eq!((failure.code.status().as_u16(), failure.code.name()), (status, name));
            assert!(failure.message.ends_with('.'), "{}", failure.message);
        }
    }

    #[test]
    fn the_document_escapes_what_the_client_sent() {
        let failure = Failure::new(Code::NoSuchKey, "No <such> key.");
        let xml = failure.document("/b/<k>&\u{1}", "ID", "HOST");
        assert!(xml.contains("<Message>No &lt;such&gt; key.</Message>"), "{xml}");
        assert!(xml.contains("<Resource>/b/&lt;k&gt;&amp;&#x1;</Resource>"), "{xml}");
    }
}

//! Which operation a request asks for. What is not listed here is not implemented, and said so:
//! a parameter or header that would change what an operation means is never passed over.

use http::{HeaderMap, Method};

use super::configuration::Configuration;
use super::error::{Code, Failure};
use super::target::{Parameter, Query, Target};
use super::versioning::parse_name;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    ListBuckets,
    CreateBucket,
    HeadBucket,
    DeleteBucket,
    GetBucketLocation,
    ListObjects,
    ListObjectsV2,
    ListObjectVersions,
    DeleteObjects,
    GetObject,
    HeadObject,
    GetObjectAttributes,
    PutObject,
    CopyObject,
    DeleteObject,
    CreateUpload,
    PutPart,
    CopyPart,
    CompleteUpload,
    AbortUpload,
    ListUploads,
    ListParts,
    GetObjectTags,
    PutObjectTags,
    DeleteObjectTags,
    GetBucketTags,
    PutBucketTags,
    DeleteBucketTags,
    GetBucketVersioning,
    PutBucketVersioning,
    GetBucketPolicy,
    PutBucketPolicy,
    DeleteBucketPolicy,
    GetBucketPolicyStatus,
    GetConfiguration(Configuration),
    PutConfiguration(Configuration),
    DeleteConfiguration(Configuration),
    /// The only ACL is the private one: setting that changes nothing.
    PutAcl,
    /// A question whose answer is always that nothing is set.
    Unset(Unset),
    /// The removal of what is never set.
    DeleteUnset(Unset),
}

/// Configuration that clients ask for by habit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unset {
    Accelerate,
    Acl,
    Encryption,
    /// Legal hold and retention of an object.
    Lock,
    Lifecycle,
    Logging,
    Notification,
    ObjectLock,
    Replication,
    RequestPayment,
    Website,
}

impl Unset {
    fn metric(self) -> &'static str {
        match self {
            Self::Accelerate => "getbucketaccelerate",
            Self::Acl => "getacl",
            Self::Encryption => "getbucketencryption",
            Self::Lock => "getobjectretention",
            Self::Lifecycle => "getbucketlifecycle",
            Self::Logging => "getbucketlogging",
            Self::Notification => "getbucketnotification",
            Self::ObjectLock => "getbucketobjectlockconfiguration",
            Self::Replication => "getbucketreplicationconfiguration",
            Self::RequestPayment => "getbucketrequestpayment",
            Self::Website => "getbucketwebsite",
        }
    }
}

/// Subresources: parameters that make a request ask for something else.
const SUBRESOURCES: [&str; 36] = [
    "accelerate",
    "acl",
    "analytics",
    "append",
    "attributes",
    "cors",
    "delete",
    "encryption",
    "events",
    "intelligent-tiering",
    "inventory",
    "legal-hold",
    "lifecycle",
    "location",
    "logging",
    "metrics",
    "notification",
    "object-lock",
    "ownershipControls",
    "policy",
    "policyStatus",
    "publicAccessBlock",
    "replication",
    "requestPayment",
    "restore",
    "retention",
    "select",
    "session",
    "tagging",
    "torrent",
    "uploadId",
    "uploads",
    "versioning",
    "versions",
    "website",
    "metadataTable",
];

/// Headers that ask for more than is there; a star stands for any end.
const HEADERS_NOT_IMPLEMENTED: [&str; 8] = [
    "x-amz-copy-source-server*",
    "x-amz-grant-*",
    "x-amz-if-match-*",
    "x-amz-object-lock-*",
    "x-amz-rename-source*",
    "x-amz-server-side-encryption*",
    "x-amz-website-redirect-location",
    "x-amz-write-offset-bytes",
];
/// Makes a PUT a copy.
const COPY_SOURCE: &str = "x-amz-copy-source";

/// What metrics call an upload by a form, which is told by its fields.
pub(super) const FORM: &str = "postpolicybucket";

impl Operation {
    /// What MinIO's metrics, and so its dashboards, call it.
    pub(super) fn metric(self) -> &'static str {
        match self {
            Self::ListBuckets => "listbuckets",
            Self::CreateBucket => "putbucket",
            Self::HeadBucket => "headbucket",
            Self::DeleteBucket => "deletebucket",
            Self::GetBucketLocation => "getbucketlocation",
            Self::ListObjects => "listobjectsv1",
            Self::ListObjectsV2 => "listobjectsv2",
            Self::ListObjectVersions => "listobjectversions",
            Self::DeleteObjects => "deletemultipleobjects",
            Self::GetObject => "getobject",
            Self::HeadObject => "headobject",
            Self::GetObjectAttributes => "getobjectattributes",
            Self::PutObject => "putobject",
            Self::CopyObject => "copyobject",
            Self::DeleteObject => "deleteobject",
            Self::CreateUpload => "newmultipartupload",
            Self::PutPart => "putobjectpart",
            Self::CopyPart => "copyobjectpart",
            Self::CompleteUpload => "completemultipartupload",
            Self::AbortUpload => "abortmultipartupload",
            Self::ListUploads => "listmultipartuploads",
            Self::ListParts => "listobjectparts",
            Self::GetObjectTags => "getobjecttagging",
            Self::PutObjectTags => "putobjecttagging",
            Self::DeleteObjectTags => "deleteobjecttagging",
            Self::GetBucketTags => "getbuckettagging",
            Self::PutBucketTags => "putbuckettagging",
            Self::DeleteBucketTags => "deletebuckettagging",
            Self::GetBucketVersioning => "getbucketversioning",
            Self::PutBucketVersioning => "putbucketversioning",
            Self::GetBucketPolicy => "getbucketpolicy",
            Self::PutBucketPolicy => "putbucketpolicy",
            Self::DeleteBucketPolicy => "deletebucketpolicy",
            Self::GetBucketPolicyStatus => "getbucketpolicystatus",
            Self::GetConfiguration(Configuration::Cors) => "getbucketcors",
            Self::PutConfiguration(Configuration::Cors) => "putbucketcors",
            Self::DeleteConfiguration(Configuration::Cors) => "deletebucketcors",
            Self::GetConfiguration(Configuration::Ownership) => "getbucketownershipcontrols",
            Self::PutConfiguration(Configuration::Ownership) => "putbucketownershipcontrols",
            Self::DeleteConfiguration(Configuration::Ownership) => "deletebucketownershipcontrols",
            Self::GetConfiguration(Configuration::PublicAccess) => "getpublicaccessblock",
            Self::PutConfiguration(Configuration::PublicAccess) => "putpublicaccessblock",
            Self::DeleteConfiguration(Configuration::PublicAccess) => "deletepublicaccessblock",
            Self::PutAcl => "putacl",
            Self::Unset(unset) => unset.metric(),
            Self::DeleteUnset(_) => "deletebucketconfiguration",
        }
    }

    pub(super) fn of(
        method: &Method,
        target: &Target,
        headers: &HeaderMap,
    ) -> Result<Self, Failure> {
        let subresource = subresource(&target.query)?;
        if matches!(*method, Method::PUT | Method::POST | Method::DELETE) {
            refuse_unknown_subresource(&target.query)?;
        }
        refuse_headers(headers)?;
        let operation = match (&target.bucket, &target.key) {
            (None, _) => of_service(method, subresource),
            (Some(_), None) => of_bucket(method, subresource, &target.query),
            (Some(_), Some(_)) => {
                let copies = headers.contains_key(COPY_SOURCE);
                let operation = of_object(method, subresource, &target.query, copies);
                if let Some(operation) = operation {
                    check_version(operation, &target.query)?;
                }
                operation
            }
        };
        operation.ok_or_else(|| match subresource {
            Some(name) => Failure::not_implemented(&format!("{method} of '{name}'")),
            None => {
                let text = format!("The method {method} is not allowed here.");
                Failure::new(Code::MethodNotAllowed, text)
            }
        })
    }
}

/// The one subresource that a request names.
fn subresource(query: &Query) -> Result<Option<&str>, Failure> {
    let mut names =
        query.iter().map(|one| one.name.as_str()).filter(|name| SUBRESOURCES.contains(name));
    match (names.next(), names.next()) {
        (first, None) => Ok(first),
        (_, Some(_)) => {
            let text = "The request names more than one subresource.";
            Err(Failure::new(Code::InvalidArgument, text))
        }
    }
}

/// A bare parameter that nobody knows is a subresource of later days: passed over, a request to change
/// it would change or remove the bucket or object itself.
fn refuse_unknown_subresource(query: &Query) -> Result<(), Failure> {
    let is_unknown = |one: &&Parameter| {
        let name = one.name.as_str();
        let is_signature = name.get(..2).is_some_and(|start| start.eq_ignore_ascii_case("x-"));
        let is_known = SUBRESOURCES.contains(&name) || ["versionId", "partNumber"].contains(&name);
        one.value.is_empty() && !is_signature && !is_known
    };
    match query.iter().find(is_unknown) {
        Some(one) => Err(Failure::not_implemented(&format!("The subresource '{}'", one.name))),
        None => Ok(()),
    }
}

pub(super) fn refuse_headers(headers: &HeaderMap) -> Result<(), Failure> {
    let is_refused = |name: &&str| {
        HEADERS_NOT_IMPLEMENTED.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => name == pattern,
        })
    };
    match headers.keys().map(http::HeaderName::as_str).find(is_refused) {
        Some(name) => Err(Failure::not_implemented(&format!("The header {name}"))),
        None => Ok(()),
    }
}

/// A version is named in the right form, and to an operation that is about one.
fn check_version(operation: Operation, query: &Query) -> Result<(), Failure> {
    let Some(name) = query.get("versionId") else { return Ok(()) };
    parse_name(name)?;
    match operation {
        Operation::PutObject
        | Operation::CopyObject
        | Operation::CreateUpload
        | Operation::PutPart
        | Operation::CopyPart
        | Operation::CompleteUpload
        | Operation::AbortUpload
        | Operation::ListParts => {
            let text = "This operation does not accept a version id.";
            Err(Failure::new(Code::InvalidArgument, text))
        }
        _ => Ok(()),
    }
}

fn of_service(method: &Method, subresource: Option<&str>) -> Option<Operation> {
    match (method, subresource) {
        (&Method::GET, None) => Some(Operation::ListBuckets),
        _ => None,
    }
}

fn of_bucket(method: &Method, subresource: Option<&str>, query: &Query) -> Option<Operation> {
    match (method, subresource) {
        (&Method::PUT, None) => Some(Operation::CreateBucket),
        (&Method::HEAD, None) => Some(Operation::HeadBucket),
        (&Method::DELETE, None) => Some(Operation::DeleteBucket),
        (&Method::POST, Some("delete")) => Some(Operation::DeleteObjects),
        (&Method::GET, None) => match query.get("list-type") {
            None => Some(Operation::ListObjects),
            Some("2") => Some(Operation::ListObjectsV2),
            Some(_) => None,
        },
        (&Method::GET, Some("location")) => Some(Operation::GetBucketLocation),
        (&Method::GET, Some("versions")) => Some(Operation::ListObjectVersions),
        (&Method::GET, Some("uploads")) => Some(Operation::ListUploads),
        (&Method::GET, Some("tagging")) => Some(Operation::GetBucketTags),
        (&Method::PUT, Some("tagging")) => Some(Operation::PutBucketTags),
        (&Method::DELETE, Some("tagging")) => Some(Operation::DeleteBucketTags),
        (&Method::GET, Some("versioning")) => Some(Operation::GetBucketVersioning),
        (&Method::PUT, Some("versioning")) => Some(Operation::PutBucketVersioning),
        (&Method::GET, Some("policy")) => Some(Operation::GetBucketPolicy),
        (&Method::PUT, Some("policy")) => Some(Operation::PutBucketPolicy),
        (&Method::DELETE, Some("policy")) => Some(Operation::DeleteBucketPolicy),
        (&Method::GET, Some("policyStatus")) => Some(Operation::GetBucketPolicyStatus),
        (&Method::PUT, Some("acl")) => Some(Operation::PutAcl),
        (&Method::GET, Some(name)) => configuration(name)
            .map(Operation::GetConfiguration)
            .or_else(|| unset(name).map(Operation::Unset)),
        (&Method::PUT, Some(name)) => configuration(name).map(Operation::PutConfiguration),
        (&Method::DELETE, Some(name)) if configuration(name).is_some() => {
            configuration(name).map(Operation::DeleteConfiguration)
        }
        (&Method::DELETE, Some(name)) if can_be_removed(name) => {
            unset(name).map(Operation::DeleteUnset)
        }
        _ => None,
    }
}

fn of_object(
    method: &Method,
    subresource: Option<&str>,
    query: &Query,
    copies: bool,
) -> Option<Operation> {
    match (method, subresource) {
        (&Method::GET, None) => Some(Operation::GetObject),
        (&Method::HEAD, None) => Some(Operation::HeadObject),
        (&Method::PUT, None) if copies => Some(Operation::CopyObject),
        (&Method::PUT, None) => Some(Operation::PutObject),
        (&Method::DELETE, None) => Some(Operation::DeleteObject),
        (&Method::POST, Some("uploads")) => Some(Operation::CreateUpload),
        (&Method::PUT, Some("uploadId")) if query.has("partNumber") => {
            Some(if copies { Operation::CopyPart } else { Operation::PutPart })
        }
        (&Method::POST, Some("uploadId")) => Some(Operation::CompleteUpload),
        (&Method::DELETE, Some("uploadId")) => Some(Operation::AbortUpload),
        (&Method::GET, Some("acl")) => Some(Operation::Unset(Unset::Acl)),
        (&Method::PUT, Some("acl")) => Some(Operation::PutAcl),
        (&Method::GET | &Method::PUT, Some("legal-hold" | "retention")) => {
            Some(Operation::Unset(Unset::Lock))
        }
        (&Method::GET, Some("attributes")) => Some(Operation::GetObjectAttributes),
        (&Method::GET, Some("uploadId")) => Some(Operation::ListParts),
        (&Method::GET, Some("tagging")) => Some(Operation::GetObjectTags),
        (&Method::PUT, Some("tagging")) => Some(Operation::PutObjectTags),
        (&Method::DELETE, Some("tagging")) => Some(Operation::DeleteObjectTags),
        _ => None,
    }
}

fn configuration(subresource: &str) -> Option<Configuration> {
    match subresource {
        "cors" => Some(Configuration::Cors),
        "ownershipControls" => Some(Configuration::Ownership),
        "publicAccessBlock" => Some(Configuration::PublicAccess),
        _ => None,
    }
}

fn unset(subresource: &str) -> Option<Unset> {
    Some(match subresource {
        "accelerate" => Unset::Accelerate,
        "acl" => Unset::Acl,
        "encryption" => Unset::Encryption,
        "lifecycle" => Unset::Lifecycle,
        "logging" => Unset::Logging,
        "notification" => Unset::Notification,
        "object-lock" => Unset::ObjectLock,
        "replication" => Unset::Replication,
        "requestPayment" => Unset::RequestPayment,
        "website" => Unset::Website,
        _ => return None,
    })
}

/// Configuration of a bucket whose removal succeeds where there is none.
fn can_be_removed(subresource: &str) -> bool {
    matches!(subresource, "encryption" | "lifecycle" | "replication" | "website")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(method: &str, raw: &str) -> Result<Operation, Code> {
        let (path, query) = raw.split_once('?').map_or((raw, None), |(p, q)| (p, Some(q)));
        let target = Target::parse(path, query).expect("parses");
        let method = method.parse().expect("a method");
        Operation::of(&method, &target, &HeaderMap::new()).map_err(|failure| failure.code)
    }

    #[test]
    fn requests_are_told_apart() {
        use Operation as O;
        let expected = [
            ("GET", "/", O::ListBuckets),
            ("GET", "/?x-id=ListBuckets", O::ListBuckets),
            ("PUT", "/b", O::CreateBucket),
            ("GET", "/b/?list-type=2&prefix=a", O::ListObjectsV2),
            ("GET", "/b?delimiter=/", O::ListObjects),
            ("GET", "/b?versions", O::ListObjectVersions),
            ("GET", "/b?versioning", O::GetBucketVersioning),
            ("PUT", "/b?versioning", O::PutBucketVersioning),
            ("GET", "/b?location=", O::GetBucketLocation),
            ("POST", "/b?delete", O::DeleteObjects),
            ("GET", "/b?acl", O::Unset(Unset::Acl)),
            ("GET", "/b/k?acl", O::Unset(Unset::Acl)),
            ("GET", "/b?policyStatus", O::GetBucketPolicyStatus),
            ("GET", "/b?policy", O::GetBucketPolicy),
            ("PUT", "/b?policy", O::PutBucketPolicy),
            ("DELETE", "/b?policy", O::DeleteBucketPolicy),
            ("PUT", "/b?acl", O::PutAcl),
            ("PUT", "/b/k?acl", O::PutAcl),
            ("GET", "/b?cors", O::GetConfiguration(Configuration::Cors)),
            ("PUT", "/b?publicAccessBlock", O::PutConfiguration(Configuration::PublicAccess)),
            ("DELETE", "/b?ownershipControls", O::DeleteConfiguration(Configuration::Ownership)),
            ("PUT", "/b/k?retention", O::Unset(Unset::Lock)),
            ("DELETE", "/b?lifecycle", O::DeleteUnset(Unset::Lifecycle)),
            ("PUT", "/b/k?x-id=PutObject", O::PutObject),
            ("GET", "/b/k?attributes", O::GetObjectAttributes),
            ("PUT", "/b/k?partNumber=1&uploadId=u", O::PutPart),
            ("POST", "/b/k?uploads", O::CreateUpload),
            ("POST", "/b/k?uploadId=u", O::CompleteUpload),
            ("DELETE", "/b/k?uploadId=u", O::AbortUpload),
            ("DELETE", "/b/k?versionId=null", O::DeleteObject),
            ("HEAD", "/b/k", O::HeadObject),
            ("GET", "/b?uploads", O::ListUploads),
            ("GET", "/b/k?uploadId=u", O::ListParts),
            ("GET", "/b?tagging", O::GetBucketTags),
            ("PUT", "/b?tagging", O::PutBucketTags),
            ("DELETE", "/b?tagging", O::DeleteBucketTags),
            ("GET", "/b/k?tagging", O::GetObjectTags),
            ("PUT", "/b/k?tagging", O::PutObjectTags),
            ("DELETE", "/b/k?tagging", O::DeleteObjectTags),
        ];
        for (method, raw, operation) in expected {
            assert_eq!(of(method, raw), Ok(operation), "{method} {raw}");
        }
    }

    #[test]
    fn what_is_not_there_is_never_taken_for_something_else() {
        for (method, raw) in [
            ("DELETE", "/b?analytics"),
            ("PUT", "/b?lifecycle"),
            ("PUT", "/b?object-lock"),
            ("GET", "/b/k?torrent"),
            ("PUT", "/b/k?uploadId=u"),
            ("POST", "/b/k?select&select-type=2"),
        ] {
            assert_eq!(of(method, raw), Err(Code::NotImplemented), "{method} {raw}");
        }
        for (method, raw) in [("POST", "/b"), ("PATCH", "/b/k"), ("DELETE", "/"), ("POST", "/b/k")]
        {
            assert_eq!(of(method, raw), Err(Code::MethodNotAllowed), "{method} {raw}");
        }
        for raw in ["/b/k?versionId=x", "/b/k?versionId="] {
            assert_eq!(of("DELETE", raw), Err(Code::InvalidArgument), "{raw}");
        }
        assert_eq!(of("PUT", "/b/k?versionId=null"), Err(Code::InvalidArgument));
        assert_eq!(of("DELETE", "/b/k?uploadId=u&tagging"), Err(Code::InvalidArgument));
    }

    #[test]
    fn a_put_with_a_source_is_a_copy() {
        for (query, operation) in
            [(None, Operation::CopyObject), (Some("uploadId=u&partNumber=1"), Operation::CopyPart)]
        {
            let target = Target::parse("/b/k", query).expect("parses");
            let mut headers = HeaderMap::new();
            headers.insert(COPY_SOURCE, "/a/k".parse().expect("a value"));
            headers.insert("x-amz-tagging-directive", "COPY".parse().expect("a value"));
            assert_eq!(Operation::of(&Method::PUT, &target, &headers), Ok(operation));
        }
    }

    #[test]
    fn headers_that_ask_for_more_are_refused() {
        for name in [
            "x-amz-server-side-encryption",
            "x-amz-server-side-encryption-customer-key",
            "x-amz-copy-source-server-side-encryption-customer-key",
            "x-amz-object-lock-mode",
        ] {
            let target = Target::parse("/b/k", None).expect("parses");
            let mut headers = HeaderMap::new();
            headers.insert(name, "x".parse().expect("a value"));
            let failure = Operation::of(&Method::PUT, &target, &headers).expect_err("refused");
            assert_eq!(failure.code, Code::NotImplemented, "{name}");
        }
    }
}

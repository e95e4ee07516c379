//! Who asks, and whether they may. The only place that decides either.
//!
//! A request is of exactly one [`Kind`]. Here its signature is verified; [`decision`] asks the
//! policies. What runs an operation takes an [`Authorized`], which nothing else can make.

mod administrator;
mod bearer;
mod claim;
mod decision;
mod facts;
mod need;
mod users;

use std::rc::Rc;

use http::HeaderMap;

use super::HEALTH_BUCKET;
use super::error::{Code, Failure};
use super::form::Form;
use super::post_policy::PostPolicy;
use super::sigv4::{self, ChunkChain, Signed, SigningKey, SigningKeys};
use super::target::Target;
use crate::users::User;
use claim::{
    Claim, PRESIGN_PARAMETERS, check_signed_headers, header_fields, hoisted_headers, single_header,
};
use users::Users;

pub(super) use decision::{Admitted, Asker, Authorized, Policies, hide_absence};
pub(super) use facts::Arrival;
pub(super) use need::{DELETE, GET, Need, Needs, PUT_TAGS, of_copied_tags};
pub use users::Credentials;

/// How far a client's clock may be off, in milliseconds.
const SKEW_MS_MAX: u64 = 15 * 60 * 1000;
/// Longest validity of a presigned URL, in seconds.
const EXPIRES_SECONDS_MAX: u64 = 7 * 24 * 60 * 60;

/// Decides for one core.
pub(super) struct Gate {
    users: Users,
    /// `None`: a client may sign for any region.
    region: Option<String>,
    keys: SigningKeys,
}

/// The part of a request that decides about it.
pub(super) struct Head<'a> {
    pub(super) method: &'a str,
    pub(super) target: &'a Target,
    pub(super) headers: &'a HeaderMap,
}

/// How the body of a request is protected.
#[derive(Clone)]
pub(super) enum Payload {
    /// Its SHA-256 is stated, and signed where anything is.
    Hash([u8; 32]),
    Unsigned,
    /// aws-chunked, each chunk signed, and the trailers where there are any.
    SignedChunks {
        chain: ChunkChain,
        trailers: bool,
    },
    /// aws-chunked with trailers, and no signature behind the head's.
    UnsignedChunks,
}

/// Which regions a request may be signed for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Regions {
    /// The server's; any that is named where it has none.
    Own,
    /// Any, or none.
    Any,
}

/// Who asks.
#[derive(Clone)]
enum Identity {
    Root,
    User(Rc<User>),
    Anonymous,
}

/// By what a request proves who it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Proof {
    Nothing,
    Header,
    Query { signed_at_ms: u64 },
    Form,
}

/// A request of which is known who sent it.
pub(super) struct Authenticated {
    identity: Identity,
    proof: Proof,
    payload: Payload,
    /// `x-amz-*` parameters of a presigned URL that stand for headers.
    pub(super) hoisted: Vec<(String, String)>,
}

#[cfg(test)]
impl Authenticated {
    pub(super) fn into_payload(self) -> Payload {
        self.payload
    }

    pub(super) fn is_anonymous(&self) -> bool {
        matches!(self.identity, Identity::Anonymous)
    }
}

/// How a request says who it comes from.
#[derive(Debug, PartialEq, Eq)]
enum Kind<'a> {
    /// Nothing in it looks like a signature.
    Anonymous,
    HeaderV4(&'a str),
    QueryV4,
    HeaderV2,
    QueryV2,
    PostForm,
    Unknown,
    /// More than one at once.
    Conflicting,
}

impl<'a> Kind<'a> {
    fn of(head: &Head<'a>) -> Self {
        let mut headers = head.headers.get_all(http::header::AUTHORIZATION).iter();
        let header = headers.next().map(|value| value.to_str().unwrap_or_default());
        // Without regard to case: a signature that is written oddly is not one that is not there.
        let query_has = |names: &[&str]| {
            let is_one = |name: &str| names.iter().any(|one| one.eq_ignore_ascii_case(name));
            head.target.query.iter().any(|parameter| is_one(&parameter.name))
        };
        let query_v4 = query_has(&PRESIGN_PARAMETERS);
        let query_v2 = query_has(&["AWSAccessKeyId", "Signature"]);
        match (header, query_v4, query_v2) {
            _ if headers.next().is_some() => Self::Conflicting,
            (Some(_), true, _) | (Some(_), _, true) | (None, true, true) => Self::Conflicting,
            (None, true, false) => Self::QueryV4,
            (None, false, true) => Self::QueryV2,
            (Some(value), false, false) => Self::of_header(value),
            (None, false, false) if is_post_form(head) => Self::PostForm,
            (None, false, false) => Self::Anonymous,
        }
    }

    fn of_header(value: &'a str) -> Self {
        match value.split_once(' ') {
            Some((sigv4::ALGORITHM, rest)) => Self::HeaderV4(rest),
            Some(("AWS", _)) => Self::HeaderV2,
            _ => Self::Unknown,
        }
    }
}

fn is_post_form(head: &Head<'_>) -> bool {
    let form = |value: &http::HeaderValue| value.as_bytes().starts_with(b"multipart/form-data");
    head.method == "POST" && head.headers.get(http::header::CONTENT_TYPE).is_some_and(form)
}

impl Gate {
    pub(super) fn new(root: Credentials, users: Vec<User>, region: Option<String>) -> Self {
        Self { users: Users::new(root, users), region, keys: SigningKeys::default() }
    }

    pub(super) fn region(&self) -> Option<&str> {
        self.region.as_deref()
    }

    /// The one decision about who asks.
    pub(super) fn authenticate(
        &self,
        head: &Head<'_>,
        now_ms: u64,
    ) -> Result<Authenticated, Failure> {
        match Kind::of(head) {
            Kind::HeaderV4(fields) => self.header(head, fields, now_ms, Regions::Own),
            Kind::QueryV4 => self.presigned(head, now_ms),
            Kind::Anonymous => anonymous(head),
            Kind::HeaderV2 | Kind::QueryV2 => Err(version_2()),
            Kind::PostForm => Err(denied("A form is authorized by its fields alone.")),
            Kind::Unknown => Err(Failure::new(
                Code::InvalidArgument,
                "The authorization mechanism is not supported; use AWS4-HMAC-SHA256.",
            )),
            Kind::Conflicting => Err(Failure::new(
                Code::InvalidArgument,
                "The request carries more than one authorization; exactly one is allowed.",
            )),
        }
    }

    /// The one decision about who signed a form, and what its policy allows. One without any field
    /// of a signature is anybody's, and has no policy of its own.
    pub(super) fn authenticate_form(
        &self,
        form: &Form,
    ) -> Result<(Authenticated, Option<PostPolicy>), Failure> {
        let malformed =
            |text: &'static str| Failure::new(Code::AuthorizationQueryParametersError, text);
        if form.get("awsaccesskeyid").is_some() || form.get("signature").is_some() {
            return Err(version_2());
        }
        let authenticated = |identity, proof| {
            let (payload, hoisted) = (Payload::Unsigned, Vec::new());
            Authenticated { identity, proof, payload, hoisted }
        };
        let Some(policy) = form.get("policy") else {
            if form.fields.iter().any(|(name, _)| PRESIGN_PARAMETERS.contains(&name.as_str())) {
                return Err(denied("The form has a signature, but no policy that it is of."));
            }
            return Ok((authenticated(Identity::Anonymous, Proof::Nothing), None));
        };
        let field = |name: &str| {
            form.get(name).ok_or_else(|| {
                let text = format!("The form lacks the field {name}.");
                Failure::new(Code::InvalidArgument, text)
            })
        };
        if field("x-amz-algorithm")? != sigv4::ALGORITHM {
            return Err(malformed("x-amz-algorithm only supports AWS4-HMAC-SHA256."));
        }
        let claim = Claim::new(
            field("x-amz-credential")?,
            field("x-amz-date")?,
            "",
            field("x-amz-signature")?,
            &malformed,
        )?;
        let has_token = form.get("x-amz-security-token").is_some();
        let region = (Regions::Own, Code::AuthorizationQueryParametersError);
        let (identity, secret) = self.check_claim(&claim, has_token, region)?;
        self.verify_text(&claim, secret, policy)?;
        Ok((authenticated(identity, Proof::Form), Some(PostPolicy::parse(policy)?)))
    }

    fn header(
        &self,
        head: &Head<'_>,
        fields: &str,
        now_ms: u64,
        regions: Regions,
    ) -> Result<Authenticated, Failure> {
        let [credential, header_names, signature] = header_fields(fields)?;
        let malformed = |text: &'static str| Failure::new(Code::AuthorizationHeaderMalformed, text);
        let timestamp = single_header(head.headers, "x-amz-date")?
            .ok_or_else(|| denied("A signed request needs a valid x-amz-date header."))?;
        let claim = Claim::new(credential, timestamp, header_names, signature, &malformed)?;
        if now_ms.abs_diff(claim.signed_at_ms) > SKEW_MS_MAX {
            return Err(skewed());
        }
        let content = single_header(head.headers, "x-amz-content-sha256")?.ok_or_else(|| {
            let text = "The request lacks the required header x-amz-content-sha256.";
            Failure::new(Code::InvalidRequest, text)
        })?;
        let region = (regions, Code::AuthorizationHeaderMalformed);
        self.verify(head, claim, content, region, (Proof::Header, Vec::new()))
    }

    fn presigned(&self, head: &Head<'_>, now_ms: u64) -> Result<Authenticated, Failure> {
        let query = &head.target.query;
        let malformed =
            |text: &'static str| Failure::new(Code::AuthorizationQueryParametersError, text);
        let parameter = |name: &str| {
            query.filled(name).ok_or_else(|| {
                let text = format!("The presigned URL lacks the parameter {name}.");
                Failure::new(Code::AuthorizationQueryParametersError, text)
            })
        };
        if parameter("X-Amz-Algorithm")? != sigv4::ALGORITHM {
            return Err(malformed("X-Amz-Algorithm only supports AWS4-HMAC-SHA256."));
        }
        let claim = Claim::new(
            parameter("X-Amz-Credential")?,
            parameter("X-Amz-Date")?,
            parameter("X-Amz-SignedHeaders")?,
            parameter("X-Amz-Signature")?,
            &malformed,
        )?;
        let expires = parse_decimal(parameter("X-Amz-Expires")?)
            .filter(|seconds| (1..=EXPIRES_SECONDS_MAX).contains(seconds))
            .ok_or_else(|| denied("X-Amz-Expires must be a number from 1 to 604800."))?;
        if claim.signed_at_ms > now_ms + SKEW_MS_MAX {
            return Err(denied("The presigned URL is not valid yet."));
        }
        if now_ms > claim.signed_at_ms + expires * 1000 {
            return Err(denied("The presigned URL has expired."));
        }
        let in_query = query.get("X-Amz-Content-Sha256");
        let in_header = single_header(head.headers, "x-amz-content-sha256")?;
        let content = match (in_query, in_header) {
            (Some(one), Some(other)) if one != other => {
                return Err(malformed("x-amz-content-sha256 is given twice and differs."));
            }
            (Some(content), _) | (None, Some(content)) => content,
            (None, None) => sigv4::UNSIGNED_PAYLOAD,
        };
        let proof = Proof::Query { signed_at_ms: claim.signed_at_ms };
        let region = (Regions::Own, Code::AuthorizationQueryParametersError);
        self.verify(head, claim, content, region, (proof, hoisted_headers(query)))
    }

    fn verify(
        &self,
        head: &Head<'_>,
        claim: Claim<'_>,
        content: &str,
        region: (Regions, Code),
        (proof, hoisted): (Proof, Vec<(String, String)>),
    ) -> Result<Authenticated, Failure> {
        check_signed_headers(head.headers, &claim.header_names)?;
        let has_token = head.headers.contains_key("x-amz-security-token")
            || head.target.query.has("X-Amz-Security-Token");
        let (identity, secret) = self.check_claim(&claim, has_token, region)?;
        let signed = Signed {
            method: head.method,
            raw_path: &head.target.raw_path,
            query: &head.target.query,
            headers: head.headers,
            header_names: &claim.header_names,
            payload: content,
        };
        let key = self.verify_text(&claim, secret, &signed.string_to_sign(&claim.scope))?;
        let payload = Payload::new(content, key, claim)?;
        Ok(Authenticated { identity, proof, payload, hoisted })
    }

    /// What a claim must say before its signature is looked at: whose it is, and by which secret.
    fn check_claim(
        &self,
        claim: &Claim<'_>,
        has_token: bool,
        (regions, region_code): (Regions, Code),
    ) -> Result<(Identity, &str), Failure> {
        if regions == Regions::Own && claim.scope.region.is_empty() {
            return Err(Failure::new(region_code, "The region of the credential is not valid."));
        }
        if let Some(region) = &self.region
            && regions == Regions::Own
            && *region != claim.scope.region
        {
            let text = format!(
                "The region '{}' of the signature is wrong; expecting '{region}'.",
                claim.scope.region
            );
            let region = Some(region.clone());
            return Err(Failure { region, ..Failure::new(region_code, text) });
        }
        if has_token {
            return Err(Failure::new(Code::InvalidToken, "The session token is not valid."));
        }
        self.users.find(claim.access_key).ok_or_else(|| {
            let text = "The access key id does not exist in the records.";
            Failure::new(Code::InvalidAccessKeyId, text)
        })
    }

    /// Fails unless the claim's signature is that of `text`; gives out the key that verified it.
    fn verify_text(
        &self,
        claim: &Claim<'_>,
        secret: &str,
        text: &str,
    ) -> Result<SigningKey, Failure> {
        let cached = self.keys.get(claim.access_key, &claim.scope);
        let key = match &cached {
            Some(key) => key.clone(),
            None => SigningKey::derive(secret, &claim.scope),
        };
        if !key.verifies(text, &claim.signature) {
            return Err(Failure::new(
                Code::SignatureDoesNotMatch,
                "The signature that was calculated does not match the one that was provided. \
                 Check the secret key and the signing method.",
            ));
        }
        if cached.is_none() {
            self.keys.keep(claim.access_key, &claim.scope, &key);
        }
        Ok(key)
    }
}

/// Whoever signs nothing may state a hash of the body, but no chunks can be signed.
fn anonymous(head: &Head<'_>) -> Result<Authenticated, Failure> {
    // What stands below the reserved name and is open to anybody was answered before.
    if head.target.bucket.as_deref() == Some(HEALTH_BUCKET) {
        return Err(denied("The request is not signed."));
    }
    if head.headers.contains_key("x-amz-security-token") {
        return Err(Failure::new(Code::InvalidToken, "The session token is not valid."));
    }
    let content = single_header(head.headers, "x-amz-content-sha256")?;
    let payload = Payload::without_key(content.unwrap_or(sigv4::UNSIGNED_PAYLOAD))?;
    let (identity, proof) = (Identity::Anonymous, Proof::Nothing);
    Ok(Authenticated { identity, proof, payload, hoisted: Vec::new() })
}

/// Whether a request is authorized by the fields of its body.
pub(super) fn is_form(head: &Head<'_>) -> bool {
    Kind::of(head) == Kind::PostForm
}

fn version_2() -> Failure {
    Failure::new(
        Code::InvalidRequest,
        "The request is signed with signature version 2, which is not supported: use version 4 \
         (AWS4-HMAC-SHA256). In boto3: Config(signature_version='s3v4'); in the aws CLI: aws \
         configure set default.s3.signature_version s3v4.",
    )
}

impl Payload {
    fn new(content: &str, key: SigningKey, claim: Claim<'_>) -> Result<Self, Failure> {
        let chain = || ChunkChain::new(key, claim.scope, claim.signature);
        match content {
            "STREAMING-AWS4-HMAC-SHA256-PAYLOAD" => {
                Ok(Self::SignedChunks { chain: chain(), trailers: false })
            }
            "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER" => {
                Ok(Self::SignedChunks { chain: chain(), trailers: true })
            }
            other => Self::without_key(other),
        }
    }

    /// The forms that go on without the key that signed the head.
    fn without_key(content: &str) -> Result<Self, Failure> {
        match content {
            sigv4::UNSIGNED_PAYLOAD => Ok(Self::Unsigned),
            "STREAMING-UNSIGNED-PAYLOAD-TRAILER" => Ok(Self::UnsignedChunks),
            other => sigv4::parse_sha256(other.as_bytes()).map(Self::Hash).ok_or_else(|| {
                Failure::new(
                    Code::InvalidArgument,
                    "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, a supported STREAMING form, \
                     or a SHA-256 in hexadecimal.",
                )
            }),
        }
    }
}

/// Digits only: no sign, no blanks.
pub(super) fn parse_decimal(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

fn denied(text: impl Into<std::borrow::Cow<'static, str>>) -> Failure {
    Failure::new(Code::AccessDenied, text)
}

fn skewed() -> Failure {
    Failure::new(
        Code::RequestTimeTooSkewed,
        "The difference between the request's time and the server's is too large.",
    )
}

#[cfg(test)]
mod over_http;
#[cfg(test)]
mod tests;

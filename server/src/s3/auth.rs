//! Who asks, and whether they may. The only place that decides either.
//!
//! A request is of exactly one [`Kind`]; every kind but the two forms of signature version 4 ends
//! in an error here. What runs an operation takes an [`Authorized`], which nothing else can make.

use http::HeaderMap;

use super::date;
use super::error::{Code, Failure};
use super::form::Form;
use super::operation::Operation;
use super::post_policy::PostPolicy;
use super::sigv4::{self, ChunkChain, Scope, Signed, SigningKey, SigningKeys};
use super::target::{Query, Target};

/// How far a client's clock may be off, in milliseconds.
const SKEW_MS_MAX: u64 = 15 * 60 * 1000;
/// Longest validity of a presigned URL, in seconds.
const EXPIRES_SECONDS_MAX: u64 = 7 * 24 * 60 * 60;
/// Parameters of presigned URLs that are not headers in another place.
const PRESIGN_PARAMETERS: [&str; 7] = [
    "x-amz-algorithm",
    "x-amz-credential",
    "x-amz-date",
    "x-amz-expires",
    "x-amz-signedheaders",
    "x-amz-signature",
    "x-amz-security-token",
];

/// The root user's access key and secret.
#[derive(Clone)]
pub struct Credentials {
    access_key: String,
    secret_key: String,
}

impl Credentials {
    pub fn new(access_key: impl Into<String>, secret_key: impl Into<String>) -> Self {
        Self { access_key: access_key.into(), secret_key: secret_key.into() }
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credentials({})", self.access_key)
    }
}

/// Decides for one core.
pub(super) struct Gate {
    credentials: Credentials,
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
    /// Its SHA-256 is signed.
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

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Identity {
    Root,
}

/// A request whose signature verified.
pub(super) struct Authenticated {
    identity: Identity,
    payload: Payload,
    /// `x-amz-*` parameters of a presigned URL that stand for headers.
    pub(super) hoisted: Vec<(String, String)>,
}

/// Proof that a request was authenticated and may do what it asks for.
pub(super) struct Authorized {
    payload: Payload,
}

impl Authorized {
    pub(super) fn into_payload(self) -> Payload {
        self.payload
    }
}

impl Authenticated {
    /// The one decision about what an identity may do.
    pub(super) fn authorize(self, _operation: &Operation) -> Authorized {
        match self.identity {
            Identity::Root => Authorized { payload: self.payload },
        }
    }
}

/// How a request says who it comes from.
#[derive(Debug, PartialEq, Eq)]
enum Kind<'a> {
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
        let query = &head.target.query;
        let query_v4 = ["X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Signature"]
            .iter()
            .any(|name| query.has(name));
        let query_v2 = query.has("AWSAccessKeyId") || query.has("Signature");
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

/// What both forms of a version 4 signature say.
struct Claim<'a> {
    access_key: &'a str,
    scope: Scope,
    signed_at_ms: u64,
    header_names: Vec<&'a str>,
    signature: [u8; 32],
}

impl Gate {
    pub(super) fn new(credentials: Credentials, region: Option<String>) -> Self {
        Self { credentials, region, keys: SigningKeys::default() }
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
            Kind::HeaderV4(fields) => self.header(head, fields, now_ms),
            Kind::QueryV4 => self.presigned(head, now_ms),
            Kind::Anonymous => Err(denied("The request is not signed.")),
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

    /// The one decision about who signed a form, and what its policy allows.
    pub(super) fn authenticate_form(
        &self,
        form: &Form,
    ) -> Result<(Authenticated, PostPolicy), Failure> {
        let malformed =
            |text: &'static str| Failure::new(Code::AuthorizationQueryParametersError, text);
        if form.get("awsaccesskeyid").is_some() || form.get("signature").is_some() {
            return Err(version_2());
        }
        let policy = form.get("policy").ok_or_else(|| denied("The form has no policy."))?;
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
        self.check_claim(&claim, has_token, Code::AuthorizationQueryParametersError)?;
        self.verify_text(&claim, policy)?;
        let policy = PostPolicy::parse(policy)?;
        let (identity, payload, hoisted) = (Identity::Root, Payload::Unsigned, Vec::new());
        Ok((Authenticated { identity, payload, hoisted }, policy))
    }

    fn header(&self, head: &Head<'_>, fields: &str, now_ms: u64) -> Result<Authenticated, Failure> {
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
        self.verify(head, claim, content, Code::AuthorizationHeaderMalformed, Vec::new())
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
        let hoisted = hoisted_headers(query);
        let code = Code::AuthorizationQueryParametersError;
        self.verify(head, claim, content, code, hoisted)
    }

    fn verify(
        &self,
        head: &Head<'_>,
        claim: Claim<'_>,
        content: &str,
        region_code: Code,
        hoisted: Vec<(String, String)>,
    ) -> Result<Authenticated, Failure> {
        check_signed_headers(head.headers, &claim.header_names)?;
        let has_token = head.headers.contains_key("x-amz-security-token")
            || head.target.query.has("X-Amz-Security-Token");
        self.check_claim(&claim, has_token, region_code)?;
        let signed = Signed {
            method: head.method,
            raw_path: &head.target.raw_path,
            query: &head.target.query,
            headers: head.headers,
            header_names: &claim.header_names,
            payload: content,
        };
        let key = self.verify_text(&claim, &signed.string_to_sign(&claim.scope))?;
        let payload = Payload::new(content, key, claim)?;
        Ok(Authenticated { identity: Identity::Root, payload, hoisted })
    }

    /// What a claim must say before its signature is looked at.
    fn check_claim(
        &self,
        claim: &Claim<'_>,
        has_token: bool,
        region_code: Code,
    ) -> Result<(), Failure> {
        if let Some(region) = &self.region
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
        if claim.access_key != self.credentials.access_key {
            return Err(Failure::new(
                Code::InvalidAccessKeyId,
                "The access key id does not exist in the records.",
            ));
        }
        Ok(())
    }

    /// Fails unless the claim's signature is that of `text`; gives out the key that verified it.
    fn verify_text(&self, claim: &Claim<'_>, text: &str) -> Result<SigningKey, Failure> {
        let cached = self.keys.get(&claim.scope);
        let key = match &cached {
            Some(key) => key.clone(),
            None => SigningKey::derive(&self.credentials.secret_key, &claim.scope),
        };
        if !key.verifies(text, &claim.signature) {
            return Err(Failure::new(
                Code::SignatureDoesNotMatch,
                "The signature that was calculated does not match the one that was provided. \
                 Check the secret key and the signing method.",
            ));
        }
        if cached.is_none() {
            self.keys.keep(&claim.scope, &key);
        }
        Ok(key)
    }
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
            sigv4::UNSIGNED_PAYLOAD => Ok(Self::Unsigned),
            "STREAMING-AWS4-HMAC-SHA256-PAYLOAD" => {
                Ok(Self::SignedChunks { chain: chain(), trailers: false })
            }
            "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER" => {
                Ok(Self::SignedChunks { chain: chain(), trailers: true })
            }
            "STREAMING-UNSIGNED-PAYLOAD-TRAILER" => Ok(Self::UnsignedChunks),
            other => match sigv4::parse_sha256(other.as_bytes()) {
                Some(hash) => Ok(Self::Hash(hash)),
                None => Err(Failure::new(
                    Code::InvalidArgument,
                    "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, a supported STREAMING form, \
                     or a SHA-256 in hexadecimal.",
                )),
            },
        }
    }
}

impl<'a> Claim<'a> {
    fn new(
        credential: &'a str,
        timestamp: &str,
        header_names: &'a str,
        signature: &str,
        malformed: &impl Fn(&'static str) -> Failure,
    ) -> Result<Self, Failure> {
        let mut parts = credential.rsplitn(5, '/');
        let mut part =
            || parts.next().ok_or_else(|| malformed("The credential has too few parts."));
        let (terminator, service, region, day) = (part()?, part()?, part()?, part()?);
        let access_key = part()?;
        if terminator != "aws4_request" || service != "s3" {
            return Err(malformed("The credential's scope must end in s3/aws4_request."));
        }
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if region.is_empty() || region.len() > 64 || !region.bytes().all(plain) {
            return Err(malformed("The region of the credential is not valid."));
        }
        let signed_at_ms = date::parse_compact(timestamp)
            .ok_or_else(|| denied("A signed request needs a valid x-amz-date."))?;
        if day != &timestamp[..8] {
            return Err(malformed("The credential's date is not that of x-amz-date."));
        }
        let signature = sigv4::parse_sha256(signature.as_bytes())
            .ok_or_else(|| malformed("The signature is not 64 hexadecimal digits."))?;
        let mut header_names: Vec<&str> = header_names.split(';').collect();
        header_names.sort_unstable();
        let count = header_names.len();
        header_names.dedup();
        if header_names.len() != count {
            return Err(malformed("A header is named twice among the signed headers."));
        }
        let scope = Scope { timestamp: timestamp.to_owned(), region: region.to_owned() };
        Ok(Self { access_key, scope, signed_at_ms, header_names, signature })
    }
}

/// `Credential=..., SignedHeaders=..., Signature=...`, each exactly once, in any order.
fn header_fields(fields: &str) -> Result<[&str; 3], Failure> {
    let malformed = || {
        let text = "The authorization header must hold Credential, SignedHeaders and Signature.";
        Failure::new(Code::AuthorizationHeaderMalformed, text)
    };
    let mut found: [Option<&str>; 3] = [None; 3];
    for field in fields.split(',') {
        let (name, value) = field.trim().split_once('=').ok_or_else(malformed)?;
        let index = match name {
            "Credential" => 0,
            "SignedHeaders" => 1,
            "Signature" => 2,
            _ => return Err(malformed()),
        };
        if found[index].replace(value).is_some() {
            return Err(malformed());
        }
    }
    let [Some(credential), Some(names), Some(signature)] = found else { return Err(malformed()) };
    Ok([credential, names, signature])
}

/// Every header that a signature names must be there, and what could change the meaning of the
/// request must be signed.
fn check_signed_headers(headers: &HeaderMap, names: &[&str]) -> Result<(), Failure> {
    for name in names {
        let is_lower_case = !name.bytes().any(|byte| byte.is_ascii_uppercase());
        if !is_lower_case || !headers.contains_key(*name) {
            let text = format!("The signed header '{name}' is not in the request.");
            return Err(denied(text));
        }
    }
    if headers.get_all(http::header::HOST).iter().count() > 1 {
        return Err(denied("The request has more than one host header."));
    }
    let is_signed = |name: &str| names.binary_search(&name).is_ok();
    let must_be_signed =
        std::iter::once("host").chain(headers.keys().map(http::HeaderName::as_str));
    for name in must_be_signed {
        if (name == "host" || name.starts_with("x-amz-")) && !is_signed(name) {
            return Err(denied(format!("The header '{name}' must be signed, and is not.")));
        }
    }
    Ok(())
}

/// What the query of a presigned URL says in place of headers.
fn hoisted_headers(query: &Query) -> Vec<(String, String)> {
    query
        .iter()
        .map(|parameter| (parameter.name.to_ascii_lowercase(), parameter.value.clone()))
        .filter(|(name, _)| {
            name.starts_with("x-amz-") && !PRESIGN_PARAMETERS.contains(&name.as_str())
        })
        .collect()
}

/// The value of a header that may occur once.
fn single_header<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Failure> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() {
        let text = format!("The header {name} occurs more than once.");
        return Err(Failure::new(Code::InvalidArgument, text));
    }
    match first.map(http::HeaderValue::to_str) {
        None => Ok(None),
        Some(Ok(value)) => Ok(Some(value.trim())),
        Some(Err(_)) => {
            Err(Failure::new(Code::InvalidArgument, format!("The header {name} is not text.")))
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
mod tests;

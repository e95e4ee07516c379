//! What a version 4 signature says, as text, and what it must cover. Decides nothing about who asks.

use http::HeaderMap;

use super::denied;
use crate::s3::date;
use crate::s3::error::{Code, Failure};
use crate::s3::sigv4::{self, Scope};
use crate::s3::target::Query;

/// Parameters of presigned URLs that are not headers in another place.
pub(super) const PRESIGN_PARAMETERS: [&str; 7] = [
    "x-amz-algorithm",
    "x-amz-credential",
    "x-amz-date",
    "x-amz-expires",
    "x-amz-signedheaders",
    "x-amz-signature",
    "x-amz-security-token",
];

/// What both forms of a version 4 signature say.
pub(super) struct Claim<'a> {
    pub(super) access_key: &'a str,
    pub(super) scope: Scope,
    pub(super) signed_at_ms: u64,
    pub(super) header_names: Vec<&'a str>,
    pub(super) signature: [u8; 32],
}

impl<'a> Claim<'a> {
    pub(super) fn new(
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
        if region.len() > 64 || !region.bytes().all(plain) {
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
pub(super) fn header_fields(fields: &str) -> Result<[&str; 3], Failure> {
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
pub(super) fn check_signed_headers(headers: &HeaderMap, names: &[&str]) -> Result<(), Failure> {
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
pub(super) fn hoisted_headers(query: &Query) -> Vec<(String, String)> {
    query
        .iter()
        .map(|parameter| (parameter.name.to_ascii_lowercase(), parameter.value.clone()))
        .filter(|(name, _)| {
            name.starts_with("x-amz-") && !PRESIGN_PARAMETERS.contains(&name.as_str())
        })
        .collect()
}

/// The value of a header that may occur once.
pub(super) fn single_header<'a>(
    headers: &'a HeaderMap,
    name: &str,
) -> Result<Option<&'a str>, Failure> {
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

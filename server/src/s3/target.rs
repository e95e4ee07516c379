//! The request target: its raw bytes for signatures, its decoded parts for everything else.
//!
//! Percent-decoding happens once. Nothing is normalised: no dot segments, no merged slashes; a key
//! is whatever follows the bucket's slash. What does not decode to UTF-8 without NUL is refused.

use bytes::Bytes;

use super::error::{Code, Failure};

/// Path and query of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) raw_path: String,
    pub(super) bucket: Option<String>,
    pub(super) key: Option<Bytes>,
    pub(super) query: Query,
}

/// The parameters after the question mark, in the order in which they came. A name occurs once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Query {
    parameters: Vec<Parameter>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parameter {
    pub(super) name: String,
    pub(super) value: String,
}

impl Target {
    /// Of a request whose host names the bucket: the whole path is the key.
    pub(super) fn hosted(
        bucket: String,
        raw_path: &str,
        raw_query: Option<&str>,
    ) -> Result<Self, Failure> {
        let query = Query::parse(raw_query.unwrap_or_default())?;
        let key = raw_path.strip_prefix('/').ok_or_else(|| malformed("path"))?;
        let key = decode(key, false).ok_or_else(|| malformed("key"))?;
        Ok(Self {
            raw_path: raw_path.to_owned(),
            bucket: Some(bucket),
            key: (!key.is_empty()).then(|| Bytes::from(key)),
            query,
        })
    }

    pub(super) fn parse(raw_path: &str, raw_query: Option<&str>) -> Result<Self, Failure> {
        let query = Query::parse(raw_query.unwrap_or_default())?;
        let below_root = raw_path.strip_prefix('/').ok_or_else(|| malformed("path"))?;
        let (bucket, key) = below_root.split_once('/').unwrap_or((below_root, ""));
        let bucket = decode(bucket, false).ok_or_else(|| malformed("bucket name"))?;
        let key = decode(key, false).ok_or_else(|| malformed("key"))?;
        if bucket.is_empty() && !key.is_empty() {
            return Err(Failure::new(Code::InvalidBucketName, "The bucket name is empty."));
        }
        Ok(Self {
            raw_path: raw_path.to_owned(),
            bucket: (!bucket.is_empty()).then_some(bucket),
            key: (!key.is_empty()).then(|| Bytes::from(key)),
            query,
        })
    }
}

impl Query {
    fn parse(raw: &str) -> Result<Self, Failure> {
        let mut parameters: Vec<Parameter> = Vec::new();
        for pair in raw.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode(name, true).ok_or_else(|| malformed("query"))?;
            let value = decode(value, true).ok_or_else(|| malformed("query"))?;
            if parameters.iter().any(|earlier| earlier.name == name) {
                let message = format!("The query parameter {name} occurs more than once.");
                return Err(Failure::new(Code::InvalidArgument, message));
            }
            parameters.push(Parameter { name, value });
            if parameters.len() > PARAMETERS_MAX {
                return Err(malformed("query"));
            }
        }
        Ok(Self { parameters })
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|one| one.name == name).map(|one| one.value.as_str())
    }
    pub(super) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }
    pub(super) fn iter(&self) -> impl Iterator<Item = &Parameter> {
        self.parameters.iter()
    }
    /// A parameter that is there and not empty.
    pub(super) fn filled(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|value| !value.is_empty())
    }
}

const PARAMETERS_MAX: usize = 64;

fn malformed(what: &'static str) -> Failure {
    let message = format!("The {what} of the request is not valid percent-encoded UTF-8.");
    Failure::new(Code::InvalidUri, message)
}

/// Percent-decodes; `None` where that is not UTF-8 without NUL.
pub(super) fn decode(raw: &str, plus_is_blank: bool) -> Option<String> {
    let mut decoded = Vec::with_capacity(raw.len());
    let mut bytes = raw.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => hex_digit(bytes.next()?)? << 4 | hex_digit(bytes.next()?)?,
            b'+' if plus_is_blank => b' ',
            other => other,
        });
    }
    if decoded.contains(&0) { None } else { String::from_utf8(decoded).ok() }
}

pub(super) fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// Appends `bytes` as S3 percent-encodes them: everything but letters, digits and `-._~`, and `/`
/// where `keep_slash` says so.
pub(super) fn encode_into(bytes: &[u8], keep_slash: bool, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in bytes {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte),
            b'/' if keep_slash => out.push(byte),
            _ => out.extend([b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(raw: &str) -> Result<Target, Failure> {
        let (path, query) = raw.split_once('?').map_or((raw, None), |(p, q)| (p, Some(q)));
        Target::parse(path, query)
    }
    fn parts(raw: &str) -> (Option<String>, Option<String>) {
        let target = parse(raw).expect("parses");
        let key = target.key.map(|key| String::from_utf8(key.to_vec()).expect("UTF-8"));
        (target.bucket, key)
    }

    #[test]
    fn a_key_is_what_follows_the_bucket() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(parts("/"), (None, None));
        assert_eq!(parts("/b"), (some("b"), None));
        assert_eq!(parts("/b/"), (some("b"), None));
        assert_eq!(parts("/b/a/b"), (some("b"), some("a/b")));
        assert_eq!(parts("/b//a"), (some("b"), some("/a")));
        assert_eq!(parts("/b/../c/./"), (some("b"), some("../c/./")));
        assert_eq!(parts("/b/%2e%2e/%2F%25"), (some("b"), some("..//%")));
        assert_eq!(parts("/b/a+b%20c"), (some("b"), some("a+b c")));
        assert_eq!(parts("/b/%01%C3%A9"), (some("b"), some("\u{1}é")));
    }

    #[test]
    fn with_the_bucket_in_the_host_the_path_is_the_key() {
        let hosted = |path| Target::hosted("b".to_owned(), path, None).expect("parses");
        assert_eq!(hosted("/").key, None);
        assert_eq!(hosted("//a%2Fb").key.as_deref(), Some(&b"/a/b"[..]));
        assert_eq!(hosted("/c/d").bucket.as_deref(), Some("b"));
        assert!(Target::hosted("b".to_owned(), "*", None).is_err());
    }

    #[test]
    fn what_does_not_decode_is_refused() {
        for raw in ["/b/%", "/b/%4", "/b/%zz", "/b/%ff", "/b/a%00b", "/b?x=%00", "b", "*", "//k"] {
            assert!(parse(raw).is_err(), "{raw}");
        }
        assert!(parse("/b?prefix=a&x=1&prefix=b").is_err());
        assert!(parse("/b?prefix=a&%70refix=b").is_err());
    }

    #[test]
    fn parameters_are_decoded_once() {
        let query = parse("/b?prefix=a%252F+b&delete&&max-keys=").expect("parses").query;
        assert_eq!(query.get("prefix"), Some("a%2F b"));
        assert_eq!(query.get("delete"), Some(""));
        assert_eq!(query.filled("max-keys"), None);
        assert!(!query.has("acl"));
    }
}

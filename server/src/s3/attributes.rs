//! What the headers of a request say about an object: metadata, storage class, conditions, ranges.
//!
//! Only the names listed here and `x-amz-meta-` ever reach an object's metadata, so that nothing
//! internal can be set from outside.

use http::{HeaderMap, HeaderName};

use super::date;
use super::error::{Code, Failure};
use crate::object::{Condition, Metadata, ObjectInfo, Span, StorageClass};

/// Content headers that are kept with an object.
pub(super) const CONTENT_HEADERS: [&str; 6] = [
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-type",
    "expires",
];
/// All names and values of user metadata together, in bytes, as S3 counts them.
const USER_METADATA_BYTES_MAX: usize = 2048;
/// Everything that is kept, names and values together: it rests in the object's record.
const METADATA_BYTES_MAX: usize = 8 << 10;
const USER_PREFIX: &str = "x-amz-meta-";

pub(super) fn metadata(headers: &HeaderMap) -> Result<Metadata, Failure> {
    let mut metadata = Metadata::new();
    let (mut user_bytes, mut bytes) = (0, 0);
    for name in headers.keys() {
        let name_text = name.as_str();
        let is_user = name_text.starts_with(USER_PREFIX);
        if !is_user && !CONTENT_HEADERS.contains(&name_text) {
            continue;
        }
        let mut value = joined(headers, name)?;
        if name_text == "content-encoding" {
            value = without_aws_chunked(&value);
        }
        if is_user {
            user_bytes += name_text.len() - USER_PREFIX.len() + value.len();
        } else if value.is_empty() {
            continue;
        }
        bytes += name_text.len() + value.len();
        metadata.push((name_text.to_owned(), value));
    }
    if bytes > METADATA_BYTES_MAX {
        let text = format!("The metadata has {bytes} bytes; {METADATA_BYTES_MAX} are allowed.");
        return Err(Failure::new(Code::MetadataTooLarge, text));
    }
    if user_bytes > USER_METADATA_BYTES_MAX {
        let text = format!(
            "The user metadata has {user_bytes} bytes; {USER_METADATA_BYTES_MAX} are allowed."
        );
        return Err(Failure::new(Code::MetadataTooLarge, text));
    }
    Ok(metadata)
}

fn joined(headers: &HeaderMap, name: &HeaderName) -> Result<String, Failure> {
    let mut joined = String::new();
    for value in headers.get_all(name) {
        let value = std::str::from_utf8(value.as_bytes()).map_err(|_| {
            Failure::new(Code::InvalidArgument, format!("The header {name} is not UTF-8."))
        })?;
        if !joined.is_empty() {
            joined.push_str(", ");
        }
        joined.push_str(value.trim());
    }
    Ok(joined)
}

/// `aws-chunked` is the encoding of the upload, not of the object.
fn without_aws_chunked(value: &str) -> String {
    let kept: Vec<&str> = value
        .split(',')
        .map(str::trim)
        .filter(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case("aws-chunked"))
        .collect();
    kept.join(", ")
}

pub(super) fn storage_class(headers: &HeaderMap) -> Result<StorageClass, Failure> {
    match headers.get("x-amz-storage-class").map(http::HeaderValue::as_bytes) {
        None | Some(b"STANDARD") => Ok(StorageClass::Standard),
        Some(b"REDUCED_REDUNDANCY") => Ok(StorageClass::ReducedRedundancy),
        Some(_) => Err(Failure::new(
            Code::InvalidStorageClass,
            "The storage class is not supported; STANDARD and REDUCED_REDUNDANCY are.",
        )),
    }
}

pub(super) fn storage_class_name(class: StorageClass) -> &'static str {
    match class {
        StorageClass::Standard => "STANDARD",
        StorageClass::ReducedRedundancy => "REDUCED_REDUNDANCY",
    }
}

/// The one text value of a header.
fn text<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Failure> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        let text = format!("The header {name} stands there more than once.");
        return Err(Failure::new(Code::InvalidArgument, text));
    }
    let value = value.to_str().map_err(|_| {
        Failure::new(Code::InvalidArgument, format!("The header {name} is not text."))
    })?;
    Ok(Some(value.trim()))
}

pub(super) fn unquoted(etag: &str) -> &str {
    etag.strip_prefix('"').and_then(|etag| etag.strip_suffix('"')).unwrap_or(etag)
}

/// Whether it can be one ETag: no list, no weak one, no star in quotes.
fn is_etag(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    !text.is_empty() && text.bytes().all(is_part)
}

/// The condition of a write. What S3 knows for reads alone is refused, not passed over.
pub(super) fn write_condition(headers: &HeaderMap) -> Result<Condition, Failure> {
    for name in ["if-modified-since", "if-unmodified-since"] {
        if headers.contains_key(name) {
            return Err(Failure::not_implemented(&format!("The header {name} of a write")));
        }
    }
    match (text(headers, "if-match")?, text(headers, "if-none-match")?) {
        (None, None) => Ok(Condition::None),
        (None, Some("*")) => Ok(Condition::Absent),
        (None, Some(etag)) if is_etag(unquoted(etag)) => {
            Ok(Condition::Differs(unquoted(etag).to_owned()))
        }
        // Taken for an ETag it would hold for every object.
        (None, Some(_)) => {
            let text = "If-None-Match of a write is * or one ETag.";
            Err(Failure::new(Code::InvalidArgument, text))
        }
        (Some("*"), None) => Ok(Condition::Present),
        (Some(etag), None) => Ok(Condition::Matches(unquoted(etag).to_owned())),
        (Some(_), Some(_)) => {
            Err(Failure::not_implemented("If-Match together with If-None-Match of a write"))
        }
    }
}

/// The condition of a deletion: that there is something else to keep is none.
pub(super) fn delete_condition(headers: &HeaderMap) -> Result<Condition, Failure> {
    match headers.contains_key("if-none-match") {
        true => Err(Failure::not_implemented("The header if-none-match of a deletion")),
        false => write_condition(headers),
    }
}

/// The conditions of a read.
#[derive(Debug, Default)]
pub(super) struct ReadConditions<'a> {
    matches: Option<&'a str>,
    matches_none: Option<&'a str>,
    modified_since: Option<i64>,
    unmodified_since: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Holds,
    NotModified,
    Failed,
}

impl<'a> ReadConditions<'a> {
    pub(super) fn of(headers: &'a HeaderMap) -> Result<Self, Failure> {
        let names = ["if-match", "if-none-match", "if-modified-since", "if-unmodified-since"];
        Self::named(headers, names)
    }

    /// The conditions on the source of a copy.
    pub(super) fn of_copy(headers: &'a HeaderMap) -> Result<Self, Failure> {
        let names = [
            "x-amz-copy-source-if-match",
            "x-amz-copy-source-if-none-match",
            "x-amz-copy-source-if-modified-since",
            "x-amz-copy-source-if-unmodified-since",
        ];
        Self::named(headers, names)
    }

    fn named(headers: &'a HeaderMap, names: [&str; 4]) -> Result<Self, Failure> {
        let [if_match, if_none_match, if_modified_since, if_unmodified_since] = names;
        let since = |name| -> Result<Option<i64>, Failure> {
            Ok(text(headers, name)?.and_then(date::parse_http))
        };
        Ok(Self {
            matches: text(headers, if_match)?,
            matches_none: text(headers, if_none_match)?,
            modified_since: since(if_modified_since)?,
            unmodified_since: since(if_unmodified_since)?,
        })
    }

    /// In the order of RFC 9110, 13.2.2: a condition on ETags makes the one on dates moot.
    pub(super) fn check(&self, info: &ObjectInfo) -> Verdict {
        let etag = info.etag.to_string();
        let modified = i64::try_from(info.modified_ms / 1000).unwrap_or(i64::MAX);
        let failed = match (self.matches, self.unmodified_since) {
            (Some(list), _) => !lists(list, &etag),
            (None, Some(since)) => modified > since,
            (None, None) => false,
        };
        if failed {
            return Verdict::Failed;
        }
        let not_modified = match (self.matches_none, self.modified_since) {
            (Some(list), _) => lists(list, &etag),
            (None, Some(since)) => modified <= since,
            (None, None) => false,
        };
        if not_modified { Verdict::NotModified } else { Verdict::Holds }
    }
}

/// The condition that a refusal of this request with 412 is about, as S3 writes it. A write has one
/// at most, and a read is refused for the first that is weighed. Not told where the source of a copy
/// has conditions as well.
pub(super) fn failing_condition(headers: &HeaderMap) -> Option<&'static str> {
    let names = [
        ("if-match", "If-Match"),
        ("if-unmodified-since", "If-Unmodified-Since"),
        ("if-none-match", "If-None-Match"),
    ];
    let (_, named) = names.into_iter().find(|(name, _)| headers.contains_key(*name))?;
    let mut others = headers.keys().map(HeaderName::as_str);
    (!others.any(|name| name.starts_with("x-amz-copy-source-if-"))).then_some(named)
}

/// Whether `list`, as If-Match has it, names `etag`.
fn lists(list: &str, etag: &str) -> bool {
    list.split(',')
        .map(str::trim)
        .any(|one| one == "*" || unquoted(one.strip_prefix("W/").unwrap_or(one)) == etag)
}

/// What a Range header selects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Selection {
    Whole,
    Part(Span),
    /// Nothing of the object lies in the range.
    Unsatisfiable,
}

/// A Range that is no single range of bytes selects the whole, as HTTP wants it.
pub(super) fn select(headers: &HeaderMap, info: &ObjectInfo) -> Result<Selection, Failure> {
    let Some(range) = text(headers, "range")? else { return Ok(Selection::Whole) };
    if let Some(validator) = text(headers, "if-range")?
        && unquoted(validator) != info.etag.to_string()
        && date::parse_http(validator) != i64::try_from(info.modified_ms / 1000).ok()
    {
        return Ok(Selection::Whole);
    }
    Ok(select_bytes(range, info.size).unwrap_or(Selection::Whole))
}

pub(super) fn select_bytes(range: &str, size: u64) -> Option<Selection> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let number = |text: &str| -> Option<u64> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse().unwrap_or(u64::MAX))
    };
    let (start, end) = match (first.trim(), last.trim()) {
        ("", suffix) => (size.saturating_sub(number(suffix)?), size),
        (first, "") => (number(first)?, size),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            if last < first {
                return None;
            }
            (first, last.saturating_add(1).min(size))
        }
    };
    if start < end {
        Some(Selection::Part(Span { start, end }))
    } else {
        Some(Selection::Unsatisfiable)
    }
}

#[cfg(test)]
mod over_http;

#[cfg(test)]
mod tests {
    use basalt_engine::record::Etag;

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, value.parse().expect("a value"));
        }
        map
    }

    fn object(size: u64) -> ObjectInfo {
        ObjectInfo {
            size,
            etag: Etag { md5: [0xab; 16], parts: 0 },
            modified_ms: 1_369_353_600_500,
            class: StorageClass::Standard,
            version: None,
            metadata: Vec::new(),
            tags: Vec::new(),
            checksums: Vec::new(),
        }
    }
    const ETAG: &str = "\"abababababababababababababababab\"";
    const MODIFIED: &str = "Fri, 24 May 2013 00:00:00 GMT";
    const BEFORE: &str = "Thu, 23 May 2013 00:00:00 GMT";

    #[test]
    fn only_what_belongs_to_an_object_becomes_metadata() {
        let got = metadata(&headers(&[
            ("content-type", "text/plain"),
            ("content-encoding", "aws-chunked, gzip"),
            ("x-amz-meta-a", "1"),
            ("x-amz-meta-a", "2"),
            ("x-amz-replication-status", "REPLICA"),
            ("x-minio-internal-sse", "x"),
            ("host", "h"),
            ("expires", ""),
        ]));
        let mut got = got.expect("valid");
        got.sort();
        let expected = [
            ("content-encoding", "gzip"),
            ("content-type", "text/plain"),
            ("x-amz-meta-a", "1, 2"),
        ];
        assert_eq!(got, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(metadata(&headers(&[("content-encoding", "aws-chunked")])), Ok(Vec::new()));
    }

    #[test]
    fn user_metadata_is_limited() {
        let value = "v".repeat(USER_METADATA_BYTES_MAX - 1);
        assert!(metadata(&headers(&[("x-amz-meta-a", &value)])).is_ok());
        let value = "v".repeat(USER_METADATA_BYTES_MAX);
        let failure = metadata(&headers(&[("x-amz-meta-a", &value)])).expect_err("too large");
        assert_eq!(failure.code, Code::MetadataTooLarge);
    }

    #[test]
    fn ranges_select_what_http_says() {
        use Selection::{Part, Unsatisfiable, Whole};
        let part = |start, end| Part(Span { start, end });
        let expected = [
            ("bytes=0-9", 100, part(0, 10)),
            ("bytes=0-0", 100, part(0, 1)),
            ("bytes=90-", 100, part(90, 100)),
            ("bytes=90-1000", 100, part(90, 100)),
            ("bytes=-10", 100, part(90, 100)),
            ("bytes=-1000", 100, part(0, 100)),
            ("bytes=0-99999999999999999999999", 100, part(0, 100)),
            ("bytes=100-", 100, Unsatisfiable),
            ("bytes=100-200", 100, Unsatisfiable),
            ("bytes=-0", 100, Unsatisfiable),
            ("bytes=0-", 0, Unsatisfiable),
            ("bytes=-5", 0, Unsatisfiable),
            ("bytes=9-5", 100, Whole),
            ("bytes=-", 100, Whole),
            ("bytes=a-b", 100, Whole),
            ("bytes=0-1,5-6", 100, Whole),
            ("lines=0-1", 100, Whole),
        ];
        for (range, size, selection) in expected {
            assert_eq!(
                select(&headers(&[("range", range)]), &object(size)),
                Ok(selection),
                "{range}"
            );
        }
        let stale = headers(&[("range", "bytes=0-9"), ("if-range", "\"other\"")]);
        assert_eq!(select(&stale, &object(100)), Ok(Whole));
        for validator in [ETAG, MODIFIED] {
            let fresh = headers(&[("range", "bytes=0-9"), ("if-range", validator)]);
            assert_eq!(select(&fresh, &object(100)), Ok(part(0, 10)));
        }
    }

    #[test]
    fn conditions_are_weighed_as_http_says() {
        use Verdict::{Failed, Holds, NotModified};
        let expected: [(&[(&'static str, &str)], Verdict); 11] = [
            (&[], Holds),
            (&[("if-match", ETAG)], Holds),
            (&[("if-match", "\"x\"")], Failed),
            (&[("if-match", "*")], Holds),
            (&[("if-none-match", ETAG)], NotModified),
            (&[("if-none-match", "\"x\", W/\"abababababababababababababababab\"")], NotModified),
            (&[("if-modified-since", MODIFIED)], NotModified),
            (&[("if-modified-since", BEFORE)], Holds),
            (&[("if-unmodified-since", BEFORE)], Failed),
            (&[("if-match", ETAG), ("if-unmodified-since", BEFORE)], Holds),
            (&[("if-none-match", "\"x\""), ("if-modified-since", MODIFIED)], Holds),
        ];
        for (pairs, verdict) in expected {
            let map = headers(pairs);
            let conditions = ReadConditions::of(&map).expect("valid");
            assert_eq!(conditions.check(&object(1)), verdict, "{pairs:?}");
        }
    }

    #[test]
    fn writes_know_five_conditions() {
        let of = |pairs: &[(&'static str, &str)]| write_condition(&headers(pairs));
        assert_eq!(of(&[]), Ok(Condition::None));
        assert_eq!(of(&[("if-none-match", "*")]), Ok(Condition::Absent));
        assert_eq!(of(&[("if-none-match", "\"e\"")]), Ok(Condition::Differs("e".to_owned())));
        assert_eq!(of(&[("if-match", "*")]), Ok(Condition::Present));
        assert_eq!(of(&[("if-match", "\"e\"")]), Ok(Condition::Matches("e".to_owned())));
        for pairs in [
            &[("if-none-match", "*"), ("if-match", "\"e\"")][..],
            &[("if-modified-since", MODIFIED)],
            &[("if-unmodified-since", MODIFIED)],
        ] {
            assert_eq!(of(pairs).expect_err("refused").code, Code::NotImplemented);
        }
        for list in ["\"*\"", "\"a\", \"b\"", "W/\"a\"", ""] {
            let refused = of(&[("if-none-match", list)]).expect_err("it is no ETag");
            assert_eq!(refused.code, Code::InvalidArgument, "{list}");
        }
        let twice = of(&[("if-none-match", "\"a\""), ("if-none-match", "*")]);
        assert_eq!(twice.expect_err("two of them").code, Code::InvalidArgument);
        let delete = |pairs: &[(&'static str, &str)]| delete_condition(&headers(pairs));
        assert_eq!(delete(&[("if-match", "*")]), Ok(Condition::Present));
        let refused = delete(&[("if-none-match", "*")]).expect_err("refused");
        assert_eq!(refused.code, Code::NotImplemented);
    }

    #[test]
    fn storage_classes_are_two() {
        let of = |class| storage_class(&headers(&[("x-amz-storage-class", class)]));
        assert_eq!(of("REDUCED_REDUNDANCY"), Ok(StorageClass::ReducedRedundancy));
        assert_eq!(of("STANDARD"), Ok(StorageClass::Standard));
        assert_eq!(of("GLACIER").expect_err("refused").code, Code::InvalidStorageClass);
    }
}

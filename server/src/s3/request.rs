//! A request after its signature was verified: names checked, headers merged.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use basalt_engine::units::OBJECT_KEY_BYTES_MAX;

use super::copy::Origin;
use super::error::{Code, Failure};
use super::operation::Operation;
use super::target::Target;

/// The id that this server shows as the owner of everything.
pub(super) const OWNER_ID: &str =
    "6261736c74000000000000000000000000000000000000000000000000000001";
pub(super) const OWNER_NAME: &str = "basalt";

pub(super) struct Request {
    pub(super) operation: Operation,
    pub(super) target: Target,
    pub(super) headers: HeaderMap,
    /// What a copy comes from: read once, for the check and for the copy.
    pub(super) origin: Option<Origin>,
}

impl Request {
    /// `hoisted` are parameters of a presigned URL that stand for headers; the signature covers
    /// them.
    pub(super) fn new(
        method: &Method,
        target: Target,
        mut headers: HeaderMap,
        hoisted: Vec<(String, String)>,
    ) -> Result<Self, Failure> {
        merge(&mut headers, hoisted)?;
        let operation = Operation::of(method, &target, &headers)?;
        if let Some(bucket) = &target.bucket {
            check_bucket_name(bucket)?;
        }
        if let Some(key) = &target.key {
            check_key(key)?;
        }
        // Every bucket has the same owner, that of a copy's source too.
        for name in ["x-amz-expected-bucket-owner", "x-amz-source-expected-bucket-owner"] {
            if headers.get_all(name).iter().any(|owner| owner.as_bytes() != OWNER_ID.as_bytes()) {
                let text = "The bucket's owner is not the expected one.";
                return Err(Failure::new(Code::AccessDenied, text));
            }
        }
        let origin = match operation {
            Operation::CopyObject | Operation::CopyPart => Some(Origin::of(&headers)?),
            _ => None,
        };
        Ok(Self { operation, target, headers, origin })
    }

    /// Of an operation on a bucket or object.
    pub(super) fn bucket(&self) -> &str {
        self.target.bucket.as_deref().expect("the operation was told by it")
    }

    /// Of an operation on an object.
    pub(super) fn key(&self) -> &Bytes {
        self.target.key.as_ref().expect("the operation was told by it")
    }

    /// Of a copy.
    pub(super) fn origin(&self) -> &Origin {
        self.origin.as_ref().expect("the operation was told by it")
    }

    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.target.query.get(name)
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

fn merge(headers: &mut HeaderMap, hoisted: Vec<(String, String)>) -> Result<(), Failure> {
    for (name, value) in hoisted {
        let invalid = || {
            let text = format!("The parameter {name} is no valid header.");
            Failure::new(Code::InvalidArgument, text)
        };
        let header: HeaderName = name.parse().map_err(|_| invalid())?;
        let value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| invalid())?;
        if headers.get(&header).is_some_and(|there| *there != value) {
            let text = format!("{name} is given as parameter and as header, and differs.");
            return Err(Failure::new(Code::InvalidArgument, text));
        }
        headers.insert(header, value);
    }
    Ok(())
}

pub(super) fn check_key(key: &[u8]) -> Result<(), Failure> {
    if key.len() <= OBJECT_KEY_BYTES_MAX {
        return Ok(());
    }
    let text = format!("The key has {} bytes; {OBJECT_KEY_BYTES_MAX} are allowed.", key.len());
    Err(Failure::new(Code::KeyTooLong, text))
}

/// S3's rules for names of buckets, and this server's own reserved one.
pub(super) fn check_bucket_name(name: &str) -> Result<(), Failure> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = name.as_bytes();
    let well_formed = (3..=63).contains(&bytes.len())
        && bytes.iter().all(|&byte| plain(byte) || byte == b'-' || byte == b'.')
        && plain(bytes[0])
        && plain(bytes[bytes.len() - 1])
        && !["..", ".-", "-."].iter().any(|pair| name.contains(pair));
    let is_address = name.parse::<std::net::Ipv4Addr>().is_ok();
    let is_reserved = name.starts_with("xn--")
        || name.starts_with("sthree-")
        || name.ends_with("-s3alias")
        || name.ends_with("--ol-s3")
        || name == super::HEALTH_BUCKET;
    if well_formed && !is_address && !is_reserved {
        return Ok(());
    }
    Err(Failure::new(
        Code::InvalidBucketName,
        "The bucket name is not valid: 3 to 63 of a-z, 0-9, '-' and '.', beginning and ending \
         with a letter or digit, no address, no reserved name.",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bucket_names_follow_the_rules() {
        for name in ["abc", "a-b.c", "123", "my.bucket-1", &"a".repeat(63)] {
            assert!(check_bucket_name(name).is_ok(), "{name}");
        }
        let long = "a".repeat(64);
        for name in [
            "ab",
            &long,
            "Abc",
            "a_b",
            "-abc",
            "abc-",
            ".abc",
            "abc.",
            "a.-b",
            "a-.b",
            "a..b",
            "1.2.3.4",
            "xn--abc",
            "abc-s3alias",
            "minio",
            "a/b",
            "..",
            "a b",
            "äbc",
        ] {
            assert!(check_bucket_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn keys_have_up_to_1024_bytes() {
        assert!(check_key(&[b'k'; 1024]).is_ok());
        assert_eq!(check_key(&[b'k'; 1025]).expect_err("too long").code, Code::KeyTooLong);
    }

    #[test]
    fn parameters_that_stand_for_headers_must_agree_with_them() {
        let parameter = |value: &str| vec![("x-amz-meta-a".to_owned(), value.to_owned())];
        let mut headers = HeaderMap::new();
        merge(&mut headers, parameter("1")).expect("merges");
        assert_eq!(headers["x-amz-meta-a"], "1");
        merge(&mut headers, parameter("1")).expect("says the same");
        assert!(merge(&mut headers, parameter("2")).is_err());
        assert!(merge(&mut headers, parameter("a\nb")).is_err());
    }
}

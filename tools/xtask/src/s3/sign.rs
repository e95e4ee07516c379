//! AWS signature version 4 for a request header: the one signer of the tool.
//!
//! The key of a day is derived once and kept, so that a small request costs a few SHA-256 blocks.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

/// The region does not matter to the servers under test unless one is configured.
const REGION: &str = "us-east-1";

#[derive(Clone, Debug)]
pub(crate) struct Credentials {
    pub(crate) access: String,
    pub(crate) secret: String,
}

#[derive(Debug)]
pub(crate) struct Signer {
    credentials: Credentials,
    day: String,
    day_key: [u8; 32],
}

/// What of a request is signed beside the method and the payload hash.
#[derive(Debug)]
pub(crate) struct Signed<'a> {
    pub(crate) method: &'a str,
    /// Encoded as on the wire.
    pub(crate) path: &'a str,
    /// Encoded and sorted by name.
    pub(crate) query: &'a str,
    pub(crate) host: &'a str,
    pub(crate) payload_hash: &'a str,
}

/// The two headers that make a request signed; `x-amz-content-sha256` is the caller's.
#[derive(Debug)]
pub(crate) struct Signature {
    pub(crate) date: String,
    pub(crate) authorization: String,
}

impl Signer {
    pub(crate) fn new(credentials: Credentials) -> Self {
        Self { credentials, day: String::new(), day_key: [0; 32] }
    }

    pub(crate) fn sign(&mut self, request: &Signed<'_>, now: OffsetDateTime) -> Signature {
        let day = format!("{:04}{:02}{:02}", now.year(), u8::from(now.month()), now.day());
        let date = format!("{day}T{:02}{:02}{:02}Z", now.hour(), now.minute(), now.second());
        if self.day != day {
            self.day_key = derive_key(&self.credentials.secret, &day);
            self.day.clone_from(&day);
        }
        let Signed { method, path, query, host, payload_hash } = request;
        let names = "host;x-amz-content-sha256;x-amz-date";
        let canonical = format!(
            "{method}\n{path}\n{query}\nhost:{host}\nx-amz-content-sha256:{payload_hash}\n\
             x-amz-date:{date}\n\n{names}\n{payload_hash}"
        );
        let scope = format!("{day}/{REGION}/s3/aws4_request");
        let digest = sha256_hex(canonical.as_bytes());
        let to_sign = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{digest}");
        let signature = hex(&hmac(&self.day_key, to_sign.as_bytes()));
        let access = &self.credentials.access;
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={access}/{scope}, SignedHeaders={names}, \
             Signature={signature}"
        );
        Signature { date, authorization }
    }
}

fn derive_key(secret: &str, day: &str) -> [u8; 32] {
    let mut key = hmac(format!("AWS4{secret}").as_bytes(), day.as_bytes());
    for part in [REGION, "s3", "aws4_request"] {
        key = hmac(&key, part.as_bytes());
    }
    key
}

fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(message);
    mac.finalize().into_bytes().into()
}

pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut out = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        out.push(char::from(DIGITS[usize::from(byte >> 4)]));
        out.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The signing key of AWS's published example ("Deriving the signing key").
    #[test]
    fn derives_as_published_up_to_service_and_region() {
        let secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
        let mut key = hmac(format!("AWS4{secret}").as_bytes(), b"20150830");
        for part in ["us-east-1", "iam", "aws4_request"] {
            key = hmac(&key, part.as_bytes());
        }
        assert_eq!(hex(&key), "c4afb1cc5771d871763a393e44b703571b55cc28424d1a5e86da6ed3c154a4b9");
        assert_ne!(derive_key(secret, "20150830"), derive_key(secret, "20150831"));
    }

    #[test]
    fn hashes_nothing_as_everyone_does() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(sha256_hex(b""), empty);
    }
}

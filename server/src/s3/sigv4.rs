//! Signature version 4: what is hashed, and with which key. Decides nothing; `auth` does.
//!
//! The canonical request is built from the raw request target. Each percent-encoded byte is taken
//! for itself and written in S3's own form, so that `%2F` and `/` stay two things, and dot segments
//! and repeated slashes stay what they are.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write;

use hmac::{Hmac, KeyInit, Mac};
use http::HeaderMap;
use sha2::{Digest, Sha256};

use super::target::{Query, encode_into, hex_digit};

pub(super) const ALGORITHM: &str = "AWS4-HMAC-SHA256";
pub(super) const UNSIGNED_PAYLOAD: &str = "UNSIGNED-PAYLOAD";
const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// What a signature is bound to beside the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Scope {
    /// `20130524T000000Z`
    pub(super) timestamp: String,
    pub(super) region: String,
}

impl Scope {
    pub(super) fn day(&self) -> &str {
        &self.timestamp[..8]
    }
    /// The lines that begin every string to sign.
    fn preamble(&self, kind: &str) -> String {
        format!("{kind}\n{}\n{}/{}/s3/aws4_request\n", self.timestamp, self.day(), self.region)
    }
}

/// The key of one day and region, ready to sign.
#[derive(Clone)]
pub(super) struct SigningKey(Hmac<Sha256>);

impl SigningKey {
    pub(super) fn derive(secret: &str, scope: &Scope) -> Self {
        let first = format!("AWS4{secret}");
        let day = mac(first.as_bytes()).chain_update(scope.day()).finalize().into_bytes();
        let region = mac(&day).chain_update(&scope.region).finalize().into_bytes();
        let service = mac(&region).chain_update("s3").finalize().into_bytes();
        let key = mac(&service).chain_update("aws4_request").finalize().into_bytes();
        Self(mac(&key))
    }

    /// Whether `signature` is that of `text`, in time that does not depend on the answer.
    pub(super) fn verifies(&self, text: &str, signature: &[u8; 32]) -> bool {
        self.0.clone().chain_update(text).verify_slice(signature).is_ok()
    }

    #[cfg(test)]
    pub(super) fn sign(&self, text: &str) -> [u8; 32] {
        self.0.clone().chain_update(text).finalize().into_bytes().into()
    }
}

fn mac(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("a key of any length")
}

/// Keys that verified a request, since deriving one costs four more signatures. By access key, day
/// and region: a key of one user must never be found for another.
#[derive(Default)]
pub(super) struct SigningKeys {
    keys: RefCell<BTreeMap<(String, String, String), SigningKey>>,
}

impl SigningKeys {
    /// Days and regions are the client's choice, so their number is bounded.
    const KEYS_MAX: usize = 32;

    pub(super) fn get(&self, access_key: &str, scope: &Scope) -> Option<SigningKey> {
        let name = (access_key.to_owned(), scope.day().to_owned(), scope.region.clone());
        self.keys.borrow().get(&name).cloned()
    }

    /// Keeps a key that has just verified a request.
    pub(super) fn keep(&self, access_key: &str, scope: &Scope, key: &SigningKey) {
        let mut keys = self.keys.borrow_mut();
        if keys.len() >= Self::KEYS_MAX {
            keys.clear();
        }
        let name = (access_key.to_owned(), scope.day().to_owned(), scope.region.clone());
        keys.insert(name, key.clone());
    }
}

/// What of a request a signature covers.
pub(super) struct Signed<'a> {
    pub(super) method: &'a str,
    pub(super) raw_path: &'a str,
    pub(super) query: &'a Query,
    pub(super) headers: &'a HeaderMap,
    /// Lower case, ascending, each of them present in `headers`.
    pub(super) header_names: &'a [&'a str],
    pub(super) payload: &'a str,
}

impl Signed<'_> {
    pub(super) fn canonical_request(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(1024);
        out.extend_from_slice(self.method.as_bytes());
        out.push(b'\n');
        canonical_path(self.raw_path.as_bytes(), &mut out);
        out.push(b'\n');
        canonical_query(self.query, &mut out);
        out.push(b'\n');
        for name in self.header_names {
            canonical_header(name, self.headers, &mut out);
        }
        out.push(b'\n');
        out.extend_from_slice(self.header_names.join(";").as_bytes());
        out.push(b'\n');
        out.extend_from_slice(self.payload.as_bytes());
        out
    }

    pub(super) fn string_to_sign(&self, scope: &Scope) -> String {
        let mut text = scope.preamble(ALGORITHM);
        hex_into(&Sha256::digest(self.canonical_request()), &mut text);
        text
    }
}

fn canonical_path(raw: &[u8], out: &mut Vec<u8>) {
    let mut rest = raw;
    while let Some((&byte, after)) = rest.split_first() {
        let encoded = match (byte, after) {
            (b'%', [high, low, ..]) => hex_digit(*high).zip(hex_digit(*low)),
            _ => None,
        };
        match encoded {
            Some((high, low)) => {
                encode_into(&[high << 4 | low], false, out);
                rest = &after[2..];
            }
            None => {
                encode_into(&[byte], true, out);
                rest = after;
            }
        }
    }
}

/// Every parameter but the signature itself, in the order of encoded name, then value.
fn canonical_query(query: &Query, out: &mut Vec<u8>) {
    let encode = |text: &str| {
        let mut encoded = Vec::with_capacity(text.len());
        encode_into(text.as_bytes(), false, &mut encoded);
        encoded
    };
    let mut pairs: Vec<_> = query
        .iter()
        .filter(|parameter| parameter.name != "X-Amz-Signature")
        .map(|parameter| (encode(&parameter.name), encode(&parameter.value)))
        .collect();
    pairs.sort_unstable();
    for (index, (name, value)) in pairs.iter().enumerate() {
        if index > 0 {
            out.push(b'&');
        }
        out.extend_from_slice(name);
        out.push(b'=');
        out.extend_from_slice(value);
    }
}

/// Values are trimmed, runs of blanks inside become one, and repeated headers are joined.
fn canonical_header(name: &str, headers: &HeaderMap, out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    out.push(b':');
    for (index, value) in headers.get_all(name).iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        let words = value.as_bytes().split(|byte| matches!(byte, b' ' | b'\t'));
        for (index, word) in words.filter(|word| !word.is_empty()).enumerate() {
            if index > 0 {
                out.push(b' ');
            }
            out.extend_from_slice(word);
        }
    }
    out.push(b'\n');
}

/// The chain of signatures over the chunks of a body, seeded by that of the request.
#[derive(Clone)]
pub(super) struct ChunkChain {
    key: SigningKey,
    scope: Scope,
    previous: [u8; 32],
}

impl ChunkChain {
    pub(super) fn new(key: SigningKey, scope: Scope, seed: [u8; 32]) -> Self {
        Self { key, scope, previous: seed }
    }

    /// Whether `signature` continues the chain over a chunk of that hash.
    pub(super) fn chunk(&mut self, data_sha256: &[u8; 32], signature: &[u8; 32]) -> bool {
        let mut text = self.scope.preamble("AWS4-HMAC-SHA256-PAYLOAD");
        hex_into(&self.previous, &mut text);
        text.push('\n');
        text.push_str(EMPTY_SHA256);
        text.push('\n');
        hex_into(data_sha256, &mut text);
        self.advance(&text, signature)
    }

    /// Whether `signature` ends the chain over trailers of that hash.
    pub(super) fn trailers(&mut self, trailers_sha256: &[u8; 32], signature: &[u8; 32]) -> bool {
        let mut text = self.scope.preamble("AWS4-HMAC-SHA256-TRAILER");
        hex_into(&self.previous, &mut text);
        text.push('\n');
        hex_into(trailers_sha256, &mut text);
        self.advance(&text, signature)
    }

    /// The signature that continues the chain over `data`.
    #[cfg(test)]
    pub(super) fn sign_chunk(&mut self, data: &[u8]) -> String {
        let mut text = self.scope.preamble("AWS4-HMAC-SHA256-PAYLOAD");
        hex_into(&self.previous, &mut text);
        text.push_str(&format!("\n{EMPTY_SHA256}\n"));
        hex_into(&Sha256::digest(data), &mut text);
        self.sign(&text)
    }

    /// The signature that ends the chain over these lines of trailers.
    #[cfg(test)]
    pub(super) fn sign_trailers(&mut self, lines: &str) -> String {
        let mut text = self.scope.preamble("AWS4-HMAC-SHA256-TRAILER");
        hex_into(&self.previous, &mut text);
        text.push('\n');
        hex_into(&Sha256::digest(lines), &mut text);
        self.sign(&text)
    }

    #[cfg(test)]
    fn sign(&mut self, text: &str) -> String {
        self.previous = self.key.sign(text);
        let mut hex = String::new();
        hex_into(&self.previous, &mut hex);
        hex
    }

    fn advance(&mut self, text: &str, signature: &[u8; 32]) -> bool {
        let verified = self.key.verifies(text, signature);
        self.previous = *signature;
        verified
    }
}

pub(super) fn hex_into(bytes: &[u8], out: &mut String) {
    for byte in bytes {
        write!(out, "{byte:02x}").expect("a string takes everything");
    }
}

pub(super) fn parse_sha256(hex: &[u8]) -> Option<[u8; 32]> {
    let hex: &[u8; 64] = hex.try_into().ok()?;
    let mut bytes = [0; 32];
    for (byte, digits) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
        *byte = hex_digit(digits[0])? << 4 | hex_digit(digits[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::s3::target::Target;

    /// The secret of the examples in S3's documentation.
    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";

    fn scope() -> Scope {
        Scope { timestamp: "20130524T000000Z".to_owned(), region: "us-east-1".to_owned() }
    }

    fn signature(method: &str, target: &str, headers: &[(&str, &str)], payload: &str) -> String {
        let (path, query) = target.split_once('?').map_or((target, None), |(p, q)| (p, Some(q)));
        let target = Target::parse(path, query).expect("parses");
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name: http::HeaderName = name.parse().expect("a name");
            map.append(name, value.parse().expect("a value"));
        }
        let mut names: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        names.dedup();
        let signed = Signed {
            method,
            raw_path: &target.raw_path,
            query: &target.query,
            headers: &map,
            header_names: &names,
            payload,
        };
        let key = SigningKey::derive(SECRET, &scope());
        let mut hex = String::new();
        hex_into(&key.sign(&signed.string_to_sign(&scope())), &mut hex);
        hex
    }

    #[test]
    fn the_examples_of_the_documentation_verify() {
        let host = ("host", "examplebucket.s3.amazonaws.com");
        let date = ("x-amz-date", "20130524T000000Z");
        let empty = ("x-amz-content-sha256", EMPTY_SHA256);
        assert_eq!(
            signature(
                "GET",
                "/test.txt",
                &[host, date, empty, ("range", "bytes=0-9")],
                EMPTY_SHA256
            ),
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
        );
        let welcome = "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072";
        let put = [
            host,
            date,
            ("date", "Fri, 24 May 2013 00:00:00 GMT"),
            ("x-amz-content-sha256", welcome),
            ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
        ];
        let expected = "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd";
        assert_eq!(signature("PUT", "/test%24file.text", &put, welcome), expected);
        // A client may send the dollar as it is and sign it encoded.
        assert_eq!(signature("PUT", "/test$file.text", &put, welcome), expected);
        assert_eq!(
            signature("GET", "/?lifecycle", &[host, date, empty], EMPTY_SHA256),
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"
        );
        assert_eq!(
            signature("GET", "/?prefix=J&max-keys=2", &[host, date, empty], EMPTY_SHA256),
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"
        );
        let presigned = "/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256\
            &X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request\
            &X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host\
            &X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404";
        assert_eq!(
            signature("GET", presigned, &[host], UNSIGNED_PAYLOAD),
            "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
        );
    }

    #[test]
    fn a_path_is_never_normalised() {
        let canonical = |raw: &str| {
            let mut out = Vec::new();
            canonical_path(raw.as_bytes(), &mut out);
            String::from_utf8(out).expect("ASCII")
        };
        for raw in ["/b/../a", "/b//a", "/b/./a", "/b/a%2Fb", "/b/%25", "/b/~a-b_c.d"] {
            assert_eq!(canonical(raw), raw);
        }
        assert_eq!(canonical("/b/%7e%c3%a9!"), "/b/~%C3%A9%21");
        assert_eq!(canonical("/b/%2"), "/b/%252");
    }

    #[test]
    fn header_values_are_trimmed_and_joined() {
        let mut headers = HeaderMap::new();
        headers.append("x-amz-meta-a", "  one   two ".parse().expect("a value"));
        headers.append("x-amz-meta-a", "three".parse().expect("a value"));
        let mut out = Vec::new();
        canonical_header("x-amz-meta-a", &headers, &mut out);
        assert_eq!(out, b"x-amz-meta-a:one two,three\n");
    }

    #[test]
    fn the_cache_of_keys_is_bounded() {
        let keys = SigningKeys::default();
        for index in 0..1000 {
            let scope = Scope { region: format!("region-{index}"), ..scope() };
            keys.keep("user", &scope, &SigningKey::derive(SECRET, &scope));
            assert!(keys.get("user", &scope).is_some());
            assert!(keys.get("other", &scope).is_none());
        }
        assert!(keys.keys.borrow().len() <= SigningKeys::KEYS_MAX);
    }
}

//! S3 requests over one connection, signed, for path-style addresses.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use time::OffsetDateTime;

use super::connection::{Answer, Connection, Unanswered};
use super::sign::{Credentials, Signed, Signer, sha256_hex};
use super::stream::Trust;
use super::xml::text_of;

const UNSIGNED: &str = "UNSIGNED-PAYLOAD";

#[derive(Clone, Copy, Debug)]
pub(crate) enum Payload<'a> {
    /// The signature does not cover the body.
    Unsigned(&'a [u8]),
    /// The signature covers this SHA-256, computed by the caller (once for many sendings).
    Hashed(&'a [u8], &'a str),
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    pub(crate) method: &'static str,
    pub(crate) bucket: &'a str,
    pub(crate) key: &'a str,
    /// Plain names and values, sorted by name.
    pub(crate) query: &'a [(&'a str, &'a str)],
    pub(crate) headers: &'a [(&'a str, &'a str)],
    pub(crate) payload: Payload<'a>,
}

impl<'a> Request<'a> {
    pub(crate) fn new(method: &'static str, bucket: &'a str, key: &'a str) -> Self {
        let payload = Payload::Unsigned(&[]);
        Self { method, bucket, key, query: &[], headers: &[], payload }
    }
    pub(crate) fn query(self, query: &'a [(&'a str, &'a str)]) -> Self {
        Self { query, ..self }
    }
    pub(crate) fn body(self, body: &'a [u8]) -> Self {
        Self { payload: Payload::Unsigned(body), ..self }
    }
}

#[derive(Debug)]
pub(crate) struct Client {
    host: String,
    signer: Signer,
    connection: Connection,
    head: Vec<u8>,
}

/// A key as a listing shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ListedKey {
    pub(crate) key: String,
    pub(crate) size: u64,
}

impl Client {
    pub(crate) fn new(address: SocketAddr, credentials: &Credentials, timeout: Duration) -> Self {
        Self {
            host: address.to_string(),
            signer: Signer::new(credentials.clone()),
            connection: Connection::new(address, timeout),
            head: Vec::new(),
        }
    }

    /// Speaks TLS, to a server that this authority vouches for.
    pub(crate) fn trusting(self, trust: Trust) -> Self {
        Self { connection: self.connection.trusting(trust), ..self }
    }

    /// Sends a request and keeps the body of the answer.
    pub(crate) fn call(&mut self, request: &Request<'_>) -> Result<Answer, Unanswered> {
        let mut body = Vec::new();
        let mut answer = self.stream(request, &mut |piece| body.extend_from_slice(piece))?;
        answer.body = body;
        Ok(answer)
    }

    /// Sends a request and hands the body of the answer to `sink`, piece by piece.
    pub(crate) fn stream(
        &mut self,
        request: &Request<'_>,
        sink: &mut dyn FnMut(&[u8]),
    ) -> Result<Answer, Unanswered> {
        let (body, hash) = match request.payload {
            Payload::Unsigned(body) => (body, UNSIGNED),
            Payload::Hashed(body, hash) => (body, hash),
        };
        let path = match (request.bucket, request.key) {
            ("", _) => "/".to_owned(),
            (bucket, "") => format!("/{bucket}"),
            (bucket, key) => format!("/{bucket}/{}", encode(key, true)),
        };
        let query = join_query(request.query);
        let signed = Signed {
            method: request.method,
            path: &path,
            query: &query,
            host: &self.host,
            payload_hash: hash,
        };
        let signature = self.signer.sign(&signed, OffsetDateTime::now_utc());
        let mut head = String::with_capacity(512);
        let mark = if query.is_empty() { "" } else { "?" };
        let _infallible = write!(
            head,
            "{} {path}{mark}{query} HTTP/1.1\r\nhost: {}\r\nx-amz-content-sha256: {hash}\r\n\
             x-amz-date: {}\r\nauthorization: {}\r\ncontent-length: {}\r\n",
            request.method,
            self.host,
            signature.date,
            signature.authorization,
            body.len()
        );
        for (name, value) in request.headers {
            let _infallible = write!(head, "{name}: {value}\r\n");
        }
        head.push_str("\r\n");
        self.head.clear();
        self.head.extend_from_slice(head.as_bytes());
        self.connection.exchange(&mut self.head, body, request.method != "HEAD", sink)
    }

    pub(crate) fn make_bucket(&mut self, bucket: &str) -> Result<()> {
        let answer = self.call(&Request::new("PUT", bucket, "")).map_err(std::io::Error::from)?;
        ensure!(
            matches!(answer.status, 200 | 409),
            "creating bucket {bucket}: {} {}",
            answer.status,
            String::from_utf8_lossy(&answer.body)
        );
        Ok(())
    }

    /// One unsigned request outside S3: health and metrics.
    pub(crate) fn probe(&mut self, path: &str) -> Result<Answer, Unanswered> {
        self.head.clear();
        let head = format!("GET {path} HTTP/1.1\r\nhost: {}\r\n\r\n", self.host);
        self.head.extend_from_slice(head.as_bytes());
        let mut body = Vec::new();
        let mut sink = |piece: &[u8]| body.extend_from_slice(piece);
        let mut answer = self.connection.exchange(&mut self.head, b"", true, &mut sink)?;
        answer.body = body;
        Ok(answer)
    }

    /// Every key of a bucket, page by page.
    pub(crate) fn list_all(&mut self, bucket: &str) -> Result<Vec<ListedKey>> {
        let mut listed = Vec::new();
        let mut token = None;
        loop {
            let page = self.list_page(bucket, token.as_deref())?;
            let keys = text_of(&page, "Key");
            let sizes = text_of(&page, "Size");
            ensure!(
                keys.len() == sizes.len(),
                "a listing with {} keys and {} sizes",
                keys.len(),
                sizes.len()
            );
            for (key, size) in keys.iter().zip(sizes) {
                listed.push(ListedKey { key: decode(key)?, size: size.parse().context("a size")? });
            }
            token = text_of(&page, "NextContinuationToken").pop();
            if token.is_none() {
                return Ok(listed);
            }
        }
    }

    /// One page of a version 2 listing, as it came.
    pub(crate) fn list_page(&mut self, bucket: &str, token: Option<&str>) -> Result<Vec<u8>> {
        let plain = [("encoding-type", "url"), ("list-type", "2")];
        let paged = [
            ("continuation-token", token.unwrap_or_default()),
            ("encoding-type", "url"),
            ("list-type", "2"),
        ];
        let query: &[_] = if token.is_some() { &paged } else { &plain };
        let request = Request::new("GET", bucket, "").query(query);
        let answer = self.call(&request).map_err(std::io::Error::from)?;
        ensure!(
            answer.status == 200,
            "LIST: {} {}",
            answer.status,
            String::from_utf8_lossy(&answer.body)
        );
        Ok(answer.body)
    }

    /// A whole object in parts; the answer is that of its completion, or of the step that failed.
    pub(crate) fn multipart(
        &mut self,
        bucket: &str,
        key: &str,
        parts: &[&[u8]],
    ) -> Result<Answer, Unanswered> {
        let begin = Request::new("POST", bucket, key).query(&[("uploads", "")]);
        let answer = self.call(&begin)?;
        let Some(upload) = text_of(&answer.body, "UploadId").pop().filter(|_| answer.status == 200)
        else {
            return Ok(answer);
        };
        let mut manifest = String::from("<CompleteMultipartUpload>");
        for (index, part) in parts.iter().enumerate() {
            let number = (index + 1).to_string();
            let query = [("partNumber", number.as_str()), ("uploadId", upload.as_str())];
            let answer = self.call(&Request::new("PUT", bucket, key).query(&query).body(part))?;
            if answer.status != 200 {
                return Ok(answer);
            }
            let etag = &answer.etag;
            let _infallible = write!(
                manifest,
                "<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>"
            );
        }
        manifest.push_str("</CompleteMultipartUpload>");
        let query = [("uploadId", upload.as_str())];
        let complete = Request::new("POST", bucket, key).query(&query).body(manifest.as_bytes());
        self.call(&Request {
            payload: Payload::Hashed(manifest.as_bytes(), &sha256_hex(manifest.as_bytes())),
            ..complete
        })
    }
}

fn join_query(pairs: &[(&str, &str)]) -> String {
    debug_assert!(pairs.is_sorted(), "the canonical query is sorted: {pairs:?}");
    let mut out = String::new();
    for (name, value) in pairs {
        let mark = if out.is_empty() { "" } else { "&" };
        let _infallible = write!(out, "{mark}{}={}", encode(name, false), encode(value, false));
    }
    out
}

fn encode(text: &str, keep_slash: bool) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    for byte in text.bytes() {
        let plain = byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
        if plain || (keep_slash && byte == b'/') {
            out.push(char::from(byte));
        } else {
            let _infallible = write!(out, "%{byte:02X}");
        }
    }
    out
}

fn decode(text: &str) -> Result<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits: Vec<u8> = bytes.by_ref().take(2).collect();
                let digits = String::from_utf8(digits)?;
                u8::from_str_radix(&digits, 16).context("a percent code in a listed key")?
            }
            other => other,
        });
    }
    Ok(String::from_utf8(out)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodes_as_signed_and_decodes_as_listed() {
        let key = "a b/ü+~(1)";
        assert_eq!(encode(key, true), "a%20b/%C3%BC%2B~%281%29");
        assert_eq!(decode(&encode(key, false)).expect("own encoding"), key);
        assert_eq!(join_query(&[("a", "x/y"), ("uploads", "")]), "a=x%2Fy&uploads=");
    }
}

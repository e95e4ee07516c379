//! CopyObject and UploadPartCopy: an object's verified bytes are read and written anew.
//!
//! The source is read at one version: what others do to its key meanwhile does not show.

use basalt_engine::seam::Runtime;
use basalt_net::mailbox::Mailbox;
use bytes::Bytes;
use http::{HeaderMap, HeaderName};

use super::answer::{self, Answer};
use super::attributes::{self, ReadConditions, Verdict};
use super::auth::{Authorized, of_copied_tags, parse_decimal};
use super::checksum::{self, Hasher};
use super::error::{Code, Failure};
use super::multipart::{part_number, upload_id};
use super::object::check_size;
use super::request::{Request, check_bucket_name, check_key};
use super::target::decode;
use super::versioning::{parse_name, set_written_version};
use super::xml::Writer;
use super::{Server, date, tagging};
use crate::object::ObjectBody;
use crate::object::error::SourceError;
use crate::object::{
    self, Algorithm, Body, Checksum, ObjectInfo, Put, Source, Span, VersionName, Written,
};

/// Where a copy comes from.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Origin {
    bucket: String,
    key: Bytes,
    version: Option<VersionName>,
}

impl<M: Mailbox, R: Runtime> Server<M, R> {
    pub(super) async fn copy_object(
        &self,
        request: &Request,
        authorized: Authorized,
    ) -> Result<Answer<M, R>, Failure> {
        let headers = &request.headers;
        let origin = request.origin();
        let replaces = replaces_metadata(headers)?;
        let replaces_tags = tagging::are_replaced(headers)?;
        let new_tags = tagging::of_headers(headers)?;
        let class = attributes::storage_class(headers)?;
        let condition = attributes::write_condition(headers)?;
        let algorithm = checksum::algorithm_of_copy(headers)?;
        let is_same = origin.bucket == request.bucket() && origin.key == *request.key();
        let (info, body) = self.open(&authorized, origin, headers, None).await?;
        if !replaces_tags && !info.tags.is_empty() {
            for need in of_copied_tags(request) {
                self.check(&authorized.asker(), &need).await?;
            }
        }
        // A former version of itself becomes the current one.
        if is_same && origin.version.is_none() && !replaces && !replaces_tags && class == info.class
        {
            let text = "An object can be copied to itself only with other metadata, other tags or \
                        another storage class.";
            return Err(Failure::new(Code::InvalidRequest, text));
        }
        check_size(info.size)?;
        let put = Put {
            bucket: request.bucket().to_owned(),
            key: request.key().clone(),
            size: info.size,
            class,
            metadata: if replaces { attributes::metadata(headers)? } else { info.metadata.clone() },
            tags: if replaces_tags { new_tags } else { info.tags.clone() },
            condition,
        };
        let kept = algorithm.or(info.checksums.first().map(|checksum| checksum.algorithm));
        let mut copied = Copied::new(body, kept);
        let written = self.store().put(put, &mut copied).await;
        let written = written.map_err(|error| copied.cause(error))?;
        let mut answer = self.copied("CopyObjectResult", &written, &info);
        set_written_version(&mut answer, written.name);
        Ok(answer)
    }

    pub(super) async fn copy_part(
        &self,
        request: &Request,
        authorized: Authorized,
    ) -> Result<Answer<M, R>, Failure> {
        let number = part_number(request.parameter("partNumber").unwrap_or_default())?;
        let range = request.header("x-amz-copy-source-range").map(parse_range).transpose()?;
        let (bucket, key, id) = (request.bucket(), request.key(), upload_id(request));
        let upload = self.store().upload(bucket, key, id).await?;
        let (info, body) =
            self.open(&authorized, request.origin(), &request.headers, range).await?;
        let size = range.map_or(info.size, |span| span.end - span.start);
        check_size(size)?;
        let mut copied = Copied::new(body, upload.checksum.map(|sum| sum.algorithm));
        let written = self.store().put_part(bucket, key, id, number, size, &mut copied).await;
        let written = written.map_err(|error| copied.cause(error))?;
        Ok(self.copied("CopyPartResult", &written, &info))
    }

    /// The object to copy, and the bytes of `range`, once the conditions on it hold.
    async fn open(
        &self,
        authorized: &Authorized,
        origin: &Origin,
        headers: &HeaderMap,
        range: Option<Span>,
    ) -> Result<(ObjectInfo, Option<ObjectBody<M, R>>), Failure> {
        let conditions = ReadConditions::of_copy(headers)?;
        let mut refusal = None;
        let select = |info: &ObjectInfo| {
            if conditions.check(info) != Verdict::Holds {
                let text = "A condition on the source of the copy does not hold.";
                refusal = Some(Failure::new(Code::PreconditionFailed, text));
                return None;
            }
            if range.is_some_and(|span| span.end > info.size) {
                let text = "The range lies outside of the source of the copy.";
                refusal = Some(Failure::new(Code::InvalidRange, text));
                return None;
            }
            range.or((info.size > 0).then_some(Span { start: 0, end: info.size }))
        };
        let source = self.store().get(&origin.bucket, &origin.key, origin.version, select).await;
        let (info, body) = source.map_err(|error| match error {
            object::Error::IsMarker { .. } => {
                let text = "The source of a copy must not be a delete marker.";
                Failure::new(Code::InvalidRequest, text)
            }
            error => error.into(),
        })?;
        let version = origin.version();
        authorized.check_tags(&origin.bucket, &origin.key, version.as_deref(), &info.tags)?;
        match refusal {
            Some(failure) => Err(failure),
            None => Ok((info, body.map(ObjectBody::past_the_line))),
        }
    }

    fn copied(&self, root: &'static str, written: &Written, source: &ObjectInfo) -> Answer<M, R> {
        let mut xml = Writer::s3(root);
        xml.text("LastModified", &date::iso(self.inner.runtime.wall().0));
        xml.text("ETag", &format!("\"{}\"", written.etag));
        for one in &written.checksums {
            let text = checksum::text(one, written.etag.parts);
            xml.text(checksum::element_name(one.algorithm), &text);
        }
        let mut answer = answer::xml(xml.finish());
        if let Some(version) = source.version {
            let name = HeaderName::from_static("x-amz-copy-source-version-id");
            answer::set(&mut answer, name, &version.to_string());
        }
        answer
    }
}

impl Origin {
    pub(super) fn bucket(&self) -> &str {
        &self.bucket
    }

    pub(super) fn key(&self) -> &Bytes {
        &self.key
    }

    /// As a request writes it.
    pub(super) fn version(&self) -> Option<String> {
        self.version.map(|version| version.to_string())
    }

    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Failure> {
        let value = headers.get("x-amz-copy-source").expect("the operation was told by it");
        let invalid = |text: &'static str| Failure::new(Code::InvalidArgument, text);
        let value = value.to_str().map_err(|_| invalid("x-amz-copy-source is not text."))?;
        let (path, version) = match value.split_once("?versionId=") {
            Some((path, version)) => (path, Some(version)),
            None => (value, None),
        };
        let version = version.map(parse_name).transpose()?;
        let path = decode(path, false)
            .ok_or_else(|| invalid("x-amz-copy-source is not valid percent-encoded UTF-8."))?;
        let (bucket, key) = path
            .strip_prefix('/')
            .unwrap_or(&path)
            .split_once('/')
            .filter(|(_, key)| !key.is_empty())
            .ok_or_else(|| invalid("x-amz-copy-source must name a bucket and a key."))?;
        check_bucket_name(bucket)?;
        check_key(key.as_bytes())?;
        let key = Bytes::copy_from_slice(key.as_bytes());
        Ok(Self { bucket: bucket.to_owned(), key, version })
    }
}

fn replaces_metadata(headers: &HeaderMap) -> Result<bool, Failure> {
    match headers.get("x-amz-metadata-directive").map(http::HeaderValue::as_bytes) {
        None | Some(b"COPY") => Ok(false),
        Some(b"REPLACE") => Ok(true),
        Some(_) => {
            let text = "x-amz-metadata-directive must be COPY or REPLACE.";
            Err(Failure::new(Code::InvalidArgument, text))
        }
    }
}

/// `bytes=first-last`, both of them there.
pub(super) fn parse_range(text: &str) -> Result<Span, Failure> {
    let span = text.strip_prefix("bytes=").and_then(|range| range.split_once('-'));
    let span = span.and_then(|(first, last)| {
        let end = parse_decimal(last)?.checked_add(1)?;
        Some(Span { start: parse_decimal(first)?, end })
    });
    span.filter(|span| span.start < span.end).ok_or_else(|| {
        let text = "x-amz-copy-source-range must be of the form bytes=first-last.";
        Failure::new(Code::InvalidArgument, text)
    })
}

/// The bytes of an object on their way into another.
struct Copied<B> {
    body: Option<B>,
    kept: Option<(Algorithm, Hasher)>,
    /// Why the source could not be read to its end.
    failed: Option<object::Error>,
}

impl<B: Body> Copied<B> {
    fn new(body: Option<B>, kept: Option<Algorithm>) -> Self {
        let kept = kept.map(|algorithm| (algorithm, Hasher::new(algorithm)));
        Self { body, kept, failed: None }
    }

    /// What `error` of the write really comes from.
    fn cause(&mut self, error: object::Error) -> object::Error {
        self.failed.take().unwrap_or(error)
    }
}

impl<B: Body> Source for Copied<B> {
    async fn next(&mut self) -> Result<Option<Bytes>, SourceError> {
        let Some(body) = &mut self.body else { return Ok(None) };
        match body.next().await {
            Ok(None) => {
                self.body = None;
                Ok(None)
            }
            Ok(Some(bytes)) => {
                if let Some((_, hasher)) = &mut self.kept {
                    hasher.update(&bytes);
                }
                Ok(Some(bytes))
            }
            Err(error) => {
                self.failed = Some(error);
                Err(SourceError::Incomplete)
            }
        }
    }

    fn finish(&mut self, _md5: &[u8; 16]) -> Result<Vec<Checksum>, SourceError> {
        if self.body.is_some() || self.failed.is_some() {
            return Err(SourceError::Incomplete);
        }
        let kept = self.kept.take().map(|(algorithm, hasher)| Checksum {
            algorithm,
            value: hasher.finish(),
            composite: false,
        });
        Ok(kept.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use basalt_engine::units::SetIndex;

    use super::*;
    use crate::s3::testing::run;

    fn origin(value: &str) -> Result<Origin, Code> {
        let mut headers = HeaderMap::new();
        headers.insert("x-amz-copy-source", value.parse().expect("a value"));
        Origin::of(&headers).map_err(|failure| failure.code)
    }

    #[test]
    fn a_source_is_a_bucket_and_a_key() {
        let expected = |key: &str| {
            let key = Bytes::copy_from_slice(key.as_bytes());
            Ok(Origin { bucket: "bucket".to_owned(), key, version: None })
        };
        assert_eq!(origin("/bucket/key"), expected("key"));
        assert_eq!(origin("bucket/a/../b"), expected("a/../b"));
        assert_eq!(origin("bucket/a%20b+c%2F"), expected("a b+c/"));
        let of_version =
            expected("key").map(|origin| Origin { version: Some(VersionName::Null), ..origin });
        assert_eq!(origin("bucket/key?versionId=null"), of_version);
        assert_eq!(origin("bucket/a%3FversionId=x"), expected("a?versionId=x"));
        assert_eq!(origin("bucket/key?versionId=x"), Err(Code::InvalidArgument));
        for value in ["", "/", "bucket", "bucket/", "/bucket/", "bucket/%zz", "bucket/%00"] {
            assert_eq!(origin(value), Err(Code::InvalidArgument), "{value}");
        }
        assert_eq!(origin("../key"), Err(Code::InvalidBucketName));
    }

    #[test]
    fn a_range_has_both_of_its_ends() {
        assert_eq!(parse_range("bytes=0-9"), Ok(Span { start: 0, end: 10 }));
        for text in ["bytes=0-", "bytes=-5", "0-9", "bytes=9-0", "bytes=+1-2", "bytes=0-1,3-4"] {
            assert!(parse_range(text).is_err(), "{text}");
        }
    }

    struct Pieces(VecDeque<object::Result<Bytes>>);

    impl Body for Pieces {
        async fn next(&mut self) -> object::Result<Option<Bytes>> {
            self.0.pop_front().transpose()
        }
    }

    #[test]
    fn a_source_that_fails_is_the_cause() {
        let lost = object::Error::Unreadable { set: SetIndex(1), short_by: 1 };
        let pieces = VecDeque::from([Ok(Bytes::from_static(b"a")), Err(lost.clone())]);
        let mut copied = Copied::new(Some(Pieces(pieces)), Some(Algorithm::Crc32));
        assert!(run(copied.next()).is_ok());
        assert_eq!(copied.finish(&[0; 16]), Err(SourceError::Incomplete));
        assert_eq!(run(copied.next()), Err(SourceError::Incomplete));
        assert_eq!(copied.finish(&[0; 16]), Err(SourceError::Incomplete));
        assert_eq!(copied.cause(SourceError::Incomplete.into()), lost);
    }

    #[test]
    fn a_copy_keeps_a_checksum() {
        let pieces = VecDeque::from([Ok(Bytes::from_static(b"123456789"))]);
        let mut copied = Copied::new(Some(Pieces(pieces)), Some(Algorithm::Crc32));
        while run(copied.next()).expect("readable").is_some() {}
        let kept = copied.finish(&[0; 16]).expect("complete");
        assert_eq!(kept[0].value, 0xcbf4_3926_u32.to_be_bytes());
    }
}

//! Operations that write one object, or delete it.

use basalt_engine::seam::Runtime;
use basalt_net::mailbox::Mailbox;
use bytes::Bytes;
use http::StatusCode;
use http::header::{ETAG, HeaderName};
use http_body::Body;

use super::answer::{self, Answer};
use super::attributes;
use super::auth::Authorized;
use super::body::{Checksums, Expected, RequestBody};
use super::error::{Code, Failure};
use super::request::Request;
use super::versioning::{DELETE_MARKER, set_version, set_written_version, version_asked};
use super::watch::Watch;
use super::{Server, checksum, tagging};
use crate::object::{Checksum, Deleted, Deletion, Error, Put, Written};

/// Longest object or part of one PUT, in bytes.
const PUT_BYTES_MAX: u64 = 5 << 30;

impl<M: Mailbox, R: Runtime> Server<M, R> {
    pub(super) async fn put_object<B: Body<Data = Bytes> + Unpin>(
        &self,
        request: &Request,
        authorized: Authorized,
        body: &mut B,
        watch: &Watch<R>,
    ) -> Result<Answer<M, R>, Failure> {
        let expected = Expected::new(authorized, &request.headers, Checksums::Body)?;
        let put = Put {
            bucket: request.bucket().to_owned(),
            key: request.key().clone(),
            size: checked_size(&expected)?,
            class: attributes::storage_class(&request.headers)?,
            metadata: attributes::metadata(&request.headers)?,
            tags: tagging::of_headers(&request.headers)?,
            condition: attributes::write_condition(&request.headers)?,
        };
        let mut body = RequestBody::new(body, watch, expected);
        let written = self.store().put(put, &mut body).await?;
        let mut answer = written_answer(&written);
        if !written.checksums.is_empty() {
            set_checksum_type(&mut answer, &written.checksums);
        }
        Ok(answer)
    }

    pub(super) async fn delete_object(
        &self,
        request: &Request,
        _authorized: Authorized,
    ) -> Result<Answer<M, R>, Failure> {
        let condition = attributes::delete_condition(&request.headers)?;
        let version = version_asked(request)?;
        let deletion = Deletion { key: request.key().clone(), version, condition };
        let deleted = match self.store().delete(request.bucket(), &deletion).await {
            Ok(deleted) => deleted,
            // Nothing to delete is a success, whatever it was to match.
            Err(Error::NoSuchKey) => Deleted { version, marker: false },
            Err(error) => return Err(error.into()),
        };
        let mut answer = answer::empty(StatusCode::NO_CONTENT);
        set_version(&mut answer, deleted.version);
        if deleted.marker {
            answer::set(&mut answer, DELETE_MARKER, "true");
        }
        Ok(answer)
    }
}

/// The size of a PUT's body, which must be known before it arrives.
pub(super) fn checked_size(expected: &Expected) -> Result<u64, Failure> {
    let size = expected.length()?;
    check_size(size).map(|()| size)
}

pub(super) fn check_size(size: u64) -> Result<(), Failure> {
    if size <= PUT_BYTES_MAX {
        return Ok(());
    }
    let text = format!("The body has {size} bytes; {PUT_BYTES_MAX} are allowed.");
    Err(Failure::new(Code::EntityTooLarge, text))
}

/// The answer to a PUT of an object or part.
pub(super) fn written_answer<M: Mailbox, R: Runtime>(written: &Written) -> Answer<M, R> {
    let mut answer = answer::empty(StatusCode::OK);
    answer::set(&mut answer, ETAG, &format!("\"{}\"", written.etag));
    set_checksums(&mut answer, &written.checksums, written.etag.parts);
    set_written_version(&mut answer, written.name);
    answer
}

pub(super) fn set_checksums<M: Mailbox, R: Runtime>(
    answer: &mut Answer<M, R>,
    checksums: &[Checksum],
    parts: u32,
) {
    for one in checksums {
        let name = HeaderName::from_static(checksum::header_name(one.algorithm));
        answer::set(answer, name, &checksum::text(one, parts));
    }
}

pub(super) fn set_checksum_type<M: Mailbox, R: Runtime>(
    answer: &mut Answer<M, R>,
    checksums: &[Checksum],
) {
    if let Some(first) = checksums.first() {
        let name = HeaderName::from_static("x-amz-checksum-type");
        answer::set(answer, name, checksum::type_name(first.composite));
    }
}

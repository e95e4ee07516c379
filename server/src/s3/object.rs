//! Operations on one object: PUT, GET, HEAD, DELETE, and the deletion of many.

use basalt_engine::seam::Runtime;
use basalt_net::mailbox::Mailbox;
use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName, LAST_MODIFIED,
};
use http::{HeaderValue, StatusCode};
use http_body::Body;

use super::answer::{self, Answer, AnswerBody};
use super::attributes::{self, ReadConditions, Selection, Verdict};
use super::auth::Authorized;
use super::body::{Checksums, Expected, RequestBody};
use super::error::{Code, Failure};
use super::request::Request;
use super::watch::Watch;
use super::xml::Writer;
use super::{Server, checksum, date};
use crate::object::{Checksum, ObjectInfo, Put, Span, StorageClass, Written};

/// Longest object or part of one PUT, in bytes.
const PUT_BYTES_MAX: u64 = 5 << 40;

/// Headers of the answer that a GET may choose, with the parameter that chooses.
const OVERRIDES: [(&str, &str); 6] = [
    ("response-cache-control", "cache-control"),
    ("response-content-disposition", "content-disposition"),
    ("response-content-encoding", "content-encoding"),
    ("response-content-language", "content-language"),
    ("response-content-type", "content-type"),
    ("response-expires", "expires"),
];

/// What a GET or HEAD sends of an object.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sent {
    Whole,
    Part(Span),
    NotModified,
    PreconditionFailed,
    Unsatisfiable,
    NoSuchPart,
    PartsNotImplemented,
}

impl Sent {
    /// Bytes of the answer's body.
    fn length(self, info: &ObjectInfo) -> u64 {
        match self {
            Self::Whole => info.size,
            Self::Part(span) => span.end - span.start,
            Self::NotModified
            | Self::PreconditionFailed
            | Self::Unsatisfiable
            | Self::NoSuchPart
            | Self::PartsNotImplemented => 0,
        }
    }
}

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

    pub(super) async fn get_object(
        &self,
        request: &Request,
        _authorized: Authorized,
    ) -> Result<Answer<M, R>, Failure> {
        let asked = Asked::of(request)?;
        let mut sent = Err(Failure::new(Code::InternalError, "Nothing was selected."));
        let select = |info: &ObjectInfo| {
            sent = asked.select(info);
            match sent {
                Ok(Sent::Whole) if info.size > 0 => Some(Span { start: 0, end: info.size }),
                Ok(Sent::Part(span)) => Some(span),
                _ => None,
            }
        };
        let (info, body) = self.store().get(request.bucket(), request.key(), select).await?;
        let sent = sent?;
        let mut answer = asked.head_of_answer(&info, sent)?;
        if let Some(body) = body {
            *answer.body_mut() = AnswerBody::streamed(body, sent.length(&info)).await?;
        } else {
            assert_eq!(sent.length(&info), 0, "bytes were selected, and none are sent");
        }
        Ok(answer)
    }

    pub(super) async fn head_object(
        &self,
        request: &Request,
        _authorized: Authorized,
    ) -> Result<Answer<M, R>, Failure> {
        let asked = Asked::of(request)?;
        let info = self.store().head(request.bucket(), request.key()).await?;
        let sent = asked.select(&info)?;
        asked.head_of_answer(&info, sent)
    }

    pub(super) async fn object_attributes(
        &self,
        request: &Request,
        _authorized: Authorized,
    ) -> Result<Answer<M, R>, Failure> {
        let wanted = wanted_attributes(request)?;
        let info = self.store().head(request.bucket(), request.key()).await?;
        let mut answer = answer::xml(attributes_document(&info, &wanted));
        answer::set(&mut answer, LAST_MODIFIED, &date::http(info.modified_ms));
        Ok(answer)
    }

    pub(super) async fn delete_object(
        &self,
        request: &Request,
        _authorized: Authorized,
    ) -> Result<Answer<M, R>, Failure> {
        let condition = attributes::write_condition(&request.headers)?;
        self.store().delete(request.bucket(), request.key(), condition).await?;
        Ok(answer::empty(StatusCode::NO_CONTENT))
    }
}

/// What x-amz-object-attributes lists.
fn wanted_attributes(request: &Request) -> Result<Vec<String>, Failure> {
    let known = ["ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"];
    let mut wanted = Vec::new();
    for value in request.headers.get_all("x-amz-object-attributes") {
        let names = value.to_str().unwrap_or("?").split(',').map(str::trim);
        wanted.extend(names.filter(|name| !name.is_empty()).map(str::to_owned));
    }
    if wanted.is_empty() || wanted.iter().any(|name| !known.contains(&name.as_str())) {
        let text = "x-amz-object-attributes must list ETag, Checksum, ObjectParts, StorageClass \
                    or ObjectSize.";
        return Err(Failure::new(Code::InvalidArgument, text));
    }
    Ok(wanted)
}

fn attributes_document(info: &ObjectInfo, wanted: &[String]) -> String {
    let wants = |name: &str| wanted.iter().any(|one| one == name);
    let mut xml = Writer::s3("GetObjectAttributesResponse");
    if wants("ETag") {
        xml.text("ETag", &info.etag.to_string());
    }
    if let Some(first) = info.checksums.first().filter(|_| wants("Checksum")) {
        xml.element("Checksum", |xml| {
            for one in &info.checksums {
                let text = checksum::text(one, info.etag.parts);
                xml.text(checksum::element_name(one.algorithm), &text);
            }
            xml.text("ChecksumType", checksum::type_name(first.composite));
        });
    }
    if wants("ObjectParts") && info.etag.parts > 0 {
        xml.element("ObjectParts", |xml| xml.number("PartsCount", info.etag.parts.into()));
    }
    if wants("StorageClass") {
        xml.text("StorageClass", attributes::storage_class_name(info.class));
    }
    if wants("ObjectSize") {
        xml.number("ObjectSize", info.size);
    }
    xml.finish()
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
    answer
}

fn set_checksums<M: Mailbox, R: Runtime>(
    answer: &mut Answer<M, R>,
    checksums: &[Checksum],
    parts: u32,
) {
    for one in checksums {
        let name = HeaderName::from_static(checksum::header_name(one.algorithm));
        answer::set(answer, name, &checksum::text(one, parts));
    }
}

fn set_checksum_type<M: Mailbox, R: Runtime>(answer: &mut Answer<M, R>, checksums: &[Checksum]) {
    if let Some(first) = checksums.first() {
        let name = HeaderName::from_static("x-amz-checksum-type");
        answer::set(answer, name, checksum::type_name(first.composite));
    }
}

/// What a GET or HEAD asks for.
struct Asked<'a> {
    request: &'a Request,
    conditions: ReadConditions<'a>,
    part: Option<u64>,
}

impl<'a> Asked<'a> {
    fn of(request: &'a Request) -> Result<Self, Failure> {
        let part = match request.parameter("partNumber") {
            None => None,
            Some(_) if request.headers.contains_key("range") => {
                let text = "partNumber and Range cannot be used together.";
                return Err(Failure::new(Code::InvalidRequest, text));
            }
            Some(text) => Some(super::multipart::part_number(text)?.into()),
        };
        Ok(Self { request, conditions: ReadConditions::of(&request.headers)?, part })
    }

    fn select(&self, info: &ObjectInfo) -> Result<Sent, Failure> {
        match self.conditions.check(info) {
            Verdict::NotModified => return Ok(Sent::NotModified),
            Verdict::Failed => return Ok(Sent::PreconditionFailed),
            Verdict::Holds => {}
        }
        Ok(match self.part {
            Some(_) if info.etag.parts > 0 => Sent::PartsNotImplemented,
            Some(1) if info.size > 0 => Sent::Part(Span { start: 0, end: info.size }),
            None | Some(1) => match attributes::select(&self.request.headers, info)? {
                Selection::Whole => Sent::Whole,
                Selection::Part(span) => Sent::Part(span),
                Selection::Unsatisfiable => Sent::Unsatisfiable,
            },
            Some(_) => Sent::NoSuchPart,
        })
    }

    /// Status and headers of the answer; Content-Length is that of the bytes to send.
    fn head_of_answer<M: Mailbox, R: Runtime>(
        &self,
        info: &ObjectInfo,
        sent: Sent,
    ) -> Result<Answer<M, R>, Failure> {
        let status = match sent {
            Sent::Whole => StatusCode::OK,
            Sent::Part(_) => StatusCode::PARTIAL_CONTENT,
            Sent::NotModified => {
                let mut answer = answer::empty(StatusCode::NOT_MODIFIED);
                set_validators(&mut answer, info);
                return Ok(answer);
            }
            Sent::PreconditionFailed => return Err(precondition_failed()),
            Sent::Unsatisfiable => return Err(unsatisfiable(info.size)),
            Sent::NoSuchPart => {
                let text = "The object has no such part.";
                return Err(Failure::new(Code::InvalidPart, text));
            }
            Sent::PartsNotImplemented => {
                return Err(Failure::not_implemented("partNumber of an object in parts"));
            }
        };
        let mut answer = answer::empty(status);
        for (name, value) in &info.metadata {
            if let Ok(name) = HeaderName::from_bytes(name.as_bytes()) {
                answer::set(&mut answer, name, value);
            }
        }
        if !answer.headers().contains_key(CONTENT_TYPE) {
            answer::set(&mut answer, CONTENT_TYPE, "binary/octet-stream");
        }
        self.override_headers(&mut answer)?;
        set_validators(&mut answer, info);
        answer::set(&mut answer, ACCEPT_RANGES, "bytes");
        answer::set(&mut answer, CONTENT_LENGTH, &sent.length(info).to_string());
        if let Sent::Part(Span { start, end }) = sent {
            let range = format!("bytes {start}-{}/{}", end - 1, info.size);
            answer::set(&mut answer, CONTENT_RANGE, &range);
        }
        if info.class != StorageClass::Standard {
            let name = HeaderName::from_static("x-amz-storage-class");
            answer::set(&mut answer, name, attributes::storage_class_name(info.class));
        }
        let wants_checksums = self.request.header("x-amz-checksum-mode");
        if sent == Sent::Whole && wants_checksums.is_some_and(|m| m.eq_ignore_ascii_case("enabled"))
        {
            set_checksums(&mut answer, &info.checksums, info.etag.parts);
            set_checksum_type(&mut answer, &info.checksums);
        }
        Ok(answer)
    }

    fn override_headers<M: Mailbox, R: Runtime>(
        &self,
        answer: &mut Answer<M, R>,
    ) -> Result<(), Failure> {
        for (parameter, name) in OVERRIDES {
            let Some(value) = self.request.target.query.filled(parameter) else { continue };
            let value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| {
                let text = format!("The value of {parameter} is no valid header.");
                Failure::new(Code::InvalidArgument, text)
            })?;
            answer.headers_mut().insert(HeaderName::from_static(name), value);
        }
        Ok(())
    }
}

fn set_validators<M: Mailbox, R: Runtime>(answer: &mut Answer<M, R>, info: &ObjectInfo) {
    answer::set(answer, ETAG, &format!("\"{}\"", info.etag));
    answer::set(answer, LAST_MODIFIED, &date::http(info.modified_ms));
}

fn precondition_failed() -> Failure {
    Failure::new(Code::PreconditionFailed, "A condition of the request does not hold.")
}

fn unsatisfiable(size: u64) -> Failure {
    let mut failure =
        Failure::new(Code::InvalidRange, format!("The range lies outside of {size} bytes."));
    let range = HeaderValue::from_str(&format!("bytes */{size}")).expect("plain text");
    failure.headers.push((CONTENT_RANGE, range));
    failure
}

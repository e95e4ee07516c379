//! GetObject, HeadObject and GetObjectAttributes: what of an object is sent, and what is told of it.

use basalt_engine::seam::Runtime;
use basalt_net::mailbox::Mailbox;
use http::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName, LAST_MODIFIED,
};
use http::{HeaderValue, StatusCode};

use super::answer::{self, Answer, AnswerBody};
use super::attributes::{self, ReadConditions, Selection, Verdict};
use super::auth::Authorized;
use super::error::{Code, Failure};
use super::object::{set_checksum_type, set_checksums};
use super::request::Request;
use super::xml::Writer;
use super::{Server, checksum, date};
use crate::object::{ObjectInfo, ObjectPart, Span, StorageClass};

/// Headers of the answer that a GET may choose, with the parameter that chooses.
const OVERRIDES: [(&str, &str); 6] = [
    ("response-cache-control", "cache-control"),
    ("response-content-disposition", "content-disposition"),
    ("response-content-encoding", "content-encoding"),
    ("response-content-language", "content-language"),
    ("response-content-type", "content-type"),
    ("response-expires", "expires"),
];
/// Parts that GetObjectAttributes tells of at once.
const PARTS_MAX: u32 = 1000;

/// What a GET or HEAD sends of an object.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sent {
    Whole,
    Part(Span),
    NotModified,
    PreconditionFailed,
    Unsatisfiable,
    NoSuchPart,
}

impl Sent {
    /// Bytes of the answer's body.
    fn length(self, info: &ObjectInfo) -> u64 {
        match self {
            Self::Whole => info.size,
            Self::Part(span) => span.end - span.start,
            Self::NotModified | Self::PreconditionFailed => 0,
            Self::Unsatisfiable | Self::NoSuchPart => 0,
        }
    }

    fn span(self, info: &ObjectInfo) -> Option<Span> {
        match self {
            Self::Whole if info.size > 0 => Some(Span { start: 0, end: info.size }),
            Self::Part(span) => Some(span),
            _ => None,
        }
    }
}

impl<M: Mailbox, R: Runtime> Server<M, R> {
    pub(super) async fn get_object(
        &self,
        request: &Request,
        authorized: Authorized,
    ) -> Result<Answer<M, R>, Failure> {
        let asked = Asked::of(request)?;
        let (bucket, key) = (request.bucket(), request.key());
        let mut sent = None;
        let mut select = |info: &ObjectInfo, parts: &[ObjectPart]| {
            let selected = asked.select(info, parts);
            let span = selected.as_ref().ok().and_then(|sent| sent.span(info));
            sent = Some(selected);
            span
        };
        let (info, parts, body) = match asked.part {
            Some(_) => self.store().get_with_parts(bucket, key, select).await?,
            None => {
                let (info, body) = self.store().get(bucket, key, |info| select(info, &[])).await?;
                (info, Vec::new(), body)
            }
        };
        authorized.check_tags(bucket, key, &info.tags)?;
        let sent = sent.expect("a body was chosen or refused")?;
        let mut answer = asked.head_of_answer(&info, &parts, sent)?;
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
        authorized: Authorized,
    ) -> Result<Answer<M, R>, Failure> {
        let asked = Asked::of(request)?;
        let (bucket, key) = (request.bucket(), request.key());
        let (info, parts) = match asked.part {
            Some(_) => self.store().head_with_parts(bucket, key).await?,
            None => (self.store().head(bucket, key).await?, Vec::new()),
        };
        authorized.check_tags(bucket, key, &info.tags)?;
        let sent = asked.select(&info, &parts)?;
        asked.head_of_answer(&info, &parts, sent)
    }

    pub(super) async fn object_attributes(
        &self,
        request: &Request,
        authorized: Authorized,
    ) -> Result<Answer<M, R>, Failure> {
        let wanted = Wanted::of(request)?;
        let (bucket, key) = (request.bucket(), request.key());
        let (info, parts) = match wanted.has("ObjectParts") {
            true => self.store().head_with_parts(bucket, key).await?,
            false => (self.store().head(bucket, key).await?, Vec::new()),
        };
        authorized.check_tags(bucket, key, &info.tags)?;
        let mut answer = answer::xml(wanted.document(&info, &parts));
        answer::set(&mut answer, LAST_MODIFIED, &date::http(info.modified_ms));
        Ok(answer)
    }
}

/// What a GetObjectAttributes asks for.
struct Wanted {
    names: Vec<String>,
    parts_after: u32,
    parts_max: u32,
}

impl Wanted {
    fn of(request: &Request) -> Result<Self, Failure> {
        let known = ["ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"];
        let mut names = Vec::new();
        for value in request.headers.get_all("x-amz-object-attributes") {
            let listed = value.to_str().unwrap_or("?").split(',').map(str::trim);
            names.extend(listed.filter(|name| !name.is_empty()).map(str::to_owned));
        }
        if names.is_empty() || names.iter().any(|name| !known.contains(&name.as_str())) {
            let text = "x-amz-object-attributes must list ETag, Checksum, ObjectParts, \
                        StorageClass or ObjectSize.";
            return Err(Failure::new(Code::InvalidArgument, text));
        }
        let parts_after = super::uploads::part_marker(request.header("x-amz-part-number-marker"))?;
        let parts_max = match request.header("x-amz-max-parts") {
            None => PARTS_MAX,
            Some(text) => {
                let number = super::auth::parse_decimal(text.trim());
                let number = number.and_then(|number| u32::try_from(number).ok());
                let invalid = || {
                    let text = "x-amz-max-parts must be a number.";
                    Failure::new(Code::InvalidArgument, text)
                };
                number.ok_or_else(invalid)?.min(PARTS_MAX)
            }
        };
        Ok(Self { names, parts_after, parts_max })
    }

    fn has(&self, name: &str) -> bool {
        self.names.iter().any(|one| one == name)
    }

    fn document(&self, info: &ObjectInfo, parts: &[ObjectPart]) -> String {
        let mut xml = Writer::s3("GetObjectAttributesResponse");
        if self.has("ETag") {
            xml.text("ETag", &info.etag.to_string());
        }
        if let Some(first) = info.checksums.first().filter(|_| self.has("Checksum")) {
            xml.element("Checksum", |xml| {
                for one in &info.checksums {
                    let text = checksum::text(one, info.etag.parts);
                    xml.text(checksum::element_name(one.algorithm), &text);
                }
                xml.text("ChecksumType", checksum::type_name(first.composite));
            });
        }
        if self.has("ObjectParts") && info.etag.parts > 0 {
            xml.element("ObjectParts", |xml| self.parts(info, parts, xml));
        }
        if self.has("StorageClass") {
            xml.text("StorageClass", attributes::storage_class_name(info.class));
        }
        if self.has("ObjectSize") {
            xml.number("ObjectSize", info.size);
        }
        xml.finish()
    }

    fn parts(&self, info: &ObjectInfo, parts: &[ObjectPart], xml: &mut Writer) {
        let mut later = parts.iter().filter(|part| part.number > self.parts_after);
        let page: Vec<&ObjectPart> = later.by_ref().take(self.parts_max as usize).collect();
        xml.number("PartsCount", info.etag.parts.into());
        xml.number("PartNumberMarker", self.parts_after.into());
        let last = page.last().map_or(self.parts_after, |part| part.number);
        xml.number("NextPartNumberMarker", last.into());
        xml.number("MaxParts", self.parts_max.into());
        xml.flag("IsTruncated", later.next().is_some());
        for part in page {
            xml.element("Part", |xml| {
                xml.number("PartNumber", part.number.into());
                xml.number("Size", part.span.end - part.span.start);
                for one in &part.checksums {
                    xml.text(checksum::element_name(one.algorithm), &checksum::text(one, 0));
                }
            });
        }
    }
}

/// What a GET or HEAD asks for.
struct Asked<'a> {
    request: &'a Request,
    conditions: ReadConditions<'a>,
    part: Option<u32>,
}

impl<'a> Asked<'a> {
    fn of(request: &'a Request) -> Result<Self, Failure> {
        let part = match request.parameter("partNumber") {
            None => None,
            Some(_) if request.headers.contains_key("range") => {
                let text = "partNumber and Range cannot be used together.";
                return Err(Failure::new(Code::InvalidRequest, text));
            }
            Some(text) => Some(super::multipart::part_number(text)?),
        };
        Ok(Self { request, conditions: ReadConditions::of(&request.headers)?, part })
    }

    /// `parts` are the object's, where one of them is asked for.
    fn select(&self, info: &ObjectInfo, parts: &[ObjectPart]) -> Result<Sent, Failure> {
        match self.conditions.check(info) {
            Verdict::NotModified => return Ok(Sent::NotModified),
            Verdict::Failed => return Ok(Sent::PreconditionFailed),
            Verdict::Holds => {}
        }
        let Some(number) = self.part else {
            return Ok(match attributes::select(&self.request.headers, info)? {
                Selection::Whole => Sent::Whole,
                Selection::Part(span) => Sent::Part(span),
                Selection::Unsatisfiable => Sent::Unsatisfiable,
            });
        };
        let whole = Span { start: 0, end: info.size };
        let span = match info.etag.parts {
            // What was not uploaded in parts is its own first part.
            0 => (number == 1).then_some(whole),
            _ => parts.iter().find(|part| part.number == number).map(|part| part.span),
        };
        Ok(match span {
            None => Sent::NoSuchPart,
            Some(span) if span.start < span.end => Sent::Part(span),
            Some(span) if span == whole => Sent::Whole,
            Some(_) => Sent::Unsatisfiable,
        })
    }

    /// Status and headers of the answer; Content-Length is that of the bytes to send.
    fn head_of_answer<M: Mailbox, R: Runtime>(
        &self,
        info: &ObjectInfo,
        parts: &[ObjectPart],
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
        if !info.tags.is_empty() {
            let name = HeaderName::from_static("x-amz-tagging-count");
            answer::set(&mut answer, name, &info.tags.len().to_string());
        }
        if self.part.is_some() && info.etag.parts > 0 {
            let name = HeaderName::from_static("x-amz-mp-parts-count");
            answer::set(&mut answer, name, &info.etag.parts.to_string());
        }
        self.set_checksums(&mut answer, info, parts, sent);
        Ok(answer)
    }

    /// Those of what is sent, where it is the whole or a part: of a range nothing is kept.
    fn set_checksums<M: Mailbox, R: Runtime>(
        &self,
        answer: &mut Answer<M, R>,
        info: &ObjectInfo,
        parts: &[ObjectPart],
        sent: Sent,
    ) {
        let mode = self.request.header("x-amz-checksum-mode");
        if !mode.is_some_and(|mode| mode.eq_ignore_ascii_case("enabled")) {
            return;
        }
        let is_whole = sent == Sent::Whole || sent.length(info) == info.size;
        let part = parts.iter().find(|part| Some(part.number) == self.part);
        if let Some(part) = part.filter(|_| info.etag.parts > 0) {
            set_checksums(answer, &part.checksums, 0);
            set_checksum_type(answer, &info.checksums);
        } else if is_whole {
            set_checksums(answer, &info.checksums, info.etag.parts);
            set_checksum_type(answer, &info.checksums);
        }
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

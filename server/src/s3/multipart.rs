//! Multipart uploads: begin, parts, complete, abort.

use basalt_engine::seam::Runtime;
use basalt_net::mailbox::Mailbox;
use bytes::Bytes;
use http::header::HeaderName;
use http::{HeaderMap, StatusCode};
use http_body::Body;

use super::answer::{self, Answer};
use super::attributes::{self, unquoted};
use super::auth::{Authorized, parse_decimal};
use super::body::{Checksums, Expected, RequestBody};
use super::error::{Code, Failure};
use super::object::{checked_size, written_answer};
use super::request::Request;
use super::target::encode_into;
use super::versioning::set_written_version;
use super::watch::Watch;
use super::xml::{self, Element, Writer, malformed};
use super::{Server, checksum, tagging};
use crate::object::{Algorithm, Checksum, Claims, NewUpload, PartName, Written};

/// Parts are numbered from 1.
const PARTS_MAX: u32 = 10_000;

impl<M: Mailbox, R: Runtime> Server<M, R> {
    pub(super) async fn create_upload(
        &self,
        request: &Request,
        _authorized: Authorized,
    ) -> Result<Answer<M, R>, Failure> {
        let headers = &request.headers;
        let sum = checksum::of_upload(headers)?;
        let new = NewUpload {
            class: attributes::storage_class(headers)?,
            metadata: attributes::metadata(headers)?,
            tags: tagging::of_headers(headers)?,
            checksum: sum,
        };
        let (bucket, key) = (request.bucket(), request.key());
        let id = self.store().create_upload(bucket, key, new).await?;
        let mut xml = Writer::s3("InitiateMultipartUploadResult");
        xml.text("Bucket", bucket);
        xml.text("Key", &String::from_utf8_lossy(key));
        xml.text("UploadId", &id);
        let mut answer = answer::xml(xml.finish());
        if let Some(sum) = sum {
            let name = HeaderName::from_static("x-amz-checksum-algorithm");
            answer::set(&mut answer, name, sum.algorithm.name());
            let name = HeaderName::from_static("x-amz-checksum-type");
            answer::set(&mut answer, name, checksum::type_name(sum.composite));
        }
        Ok(answer)
    }

    pub(super) async fn put_part<B: Body<Data = Bytes> + Unpin>(
        &self,
        request: &Request,
        authorized: Authorized,
        body: &mut B,
        watch: &Watch<R>,
    ) -> Result<Answer<M, R>, Failure> {
        let number = part_number(request.parameter("partNumber").unwrap_or_default())?;
        let (bucket, key, id) = (request.bucket(), request.key(), upload_id(request));
        let upload = self.store().upload(bucket, key, id).await?;
        // The checksum of the whole is made from those of the parts, so a part gets one even where
        // the client states none.
        let checksums = match &upload.checksum {
            Some(sum) => Checksums::BodyOr(sum.algorithm),
            None => Checksums::Body,
        };
        let expected = Expected::new(authorized, &request.headers, checksums)?;
        if let (Some(sum), Some(stated)) = (&upload.checksum, expected.stated_algorithm()) {
            check_algorithm(sum.algorithm, stated)?;
        }
        let size = checked_size(&expected)?;
        let mut body = RequestBody::new(body, watch, expected);
        let written = self.store().put_part(bucket, key, id, number, size, &mut body).await?;
        Ok(written_answer(&written))
    }

    pub(super) async fn complete_upload<B: Body<Data = Bytes> + Unpin>(
        &self,
        request: &Request,
        authorized: Authorized,
        body: &mut B,
        watch: &Watch<R>,
    ) -> Result<Answer<M, R>, Failure> {
        let condition = attributes::write_condition(&request.headers)?;
        let claims = claims(&request.headers)?;
        let expected = Expected::new(authorized, &request.headers, Checksums::Object)?;
        let document = RequestBody::new(body, watch, expected).document().await?;
        let parts = parse_completion(&document)?;
        let (bucket, key, id) = (request.bucket(), request.key(), upload_id(request));
        let written =
            self.store().complete_upload(bucket, key, id, &parts, condition, &claims).await?;
        let mut answer = answer::xml(completion(request, self.inner.scheme, &written));
        set_written_version(&mut answer, written.name);
        Ok(answer)
    }

    pub(super) async fn abort_upload(
        &self,
        request: &Request,
        _authorized: Authorized,
    ) -> Result<Answer<M, R>, Failure> {
        let (bucket, key) = (request.bucket(), request.key());
        self.store().abort_upload(bucket, key, upload_id(request)).await?;
        Ok(answer::empty(StatusCode::NO_CONTENT))
    }
}

pub(super) fn upload_id(request: &Request) -> &str {
    request.parameter("uploadId").expect("the operation was told by it")
}

pub(super) fn part_number(text: &str) -> Result<u32, Failure> {
    let number = parse_decimal(text).and_then(|number| u32::try_from(number).ok());
    number.filter(|number| (1..=PARTS_MAX).contains(number)).ok_or_else(|| {
        let text = "A part number must be a number from 1 to 10000.";
        Failure::new(Code::InvalidArgument, text)
    })
}

fn check_algorithm(of_upload: Algorithm, stated: Algorithm) -> Result<(), Failure> {
    if of_upload == stated {
        return Ok(());
    }
    let text = format!(
        "The upload was created with {} checksums; the part states {}.",
        of_upload.name(),
        stated.name()
    );
    Err(Failure::new(Code::InvalidRequest, text))
}

/// What the headers of a completion state of the whole object.
fn claims(headers: &HeaderMap) -> Result<Claims, Failure> {
    let invalid = |name: &str| {
        Failure::new(Code::InvalidRequest, format!("The value of {name} is not valid."))
    };
    let text = |name: &str| -> Result<Option<&str>, Failure> {
        headers.get(name).map(|value| value.to_str().map_err(|_| invalid(name))).transpose()
    };
    let size = text("x-amz-mp-object-size")?
        .map(|size| parse_decimal(size).ok_or_else(|| invalid("x-amz-mp-object-size")))
        .transpose()?;
    let composite = match text("x-amz-checksum-type")? {
        None => None,
        Some(kind) if kind.eq_ignore_ascii_case("COMPOSITE") => Some(true),
        Some(kind) if kind.eq_ignore_ascii_case("FULL_OBJECT") => Some(false),
        Some(_) => return Err(invalid("x-amz-checksum-type")),
    };
    Ok(Claims { checksums: stated_for_whole(headers)?, size, composite })
}

/// The checksum that the headers of a completion state for the whole object. A composite one ends
/// in the number of parts.
fn stated_for_whole(headers: &HeaderMap) -> Result<Vec<Checksum>, Failure> {
    let Some((algorithm, text)) = checksum::stated(headers)? else { return Ok(Vec::new()) };
    let (value, composite) = match text.split_once('-') {
        Some((value, parts)) if parse_decimal(parts).is_some() => (value, true),
        Some(_) => return Err(checksum::invalid(algorithm)),
        None => (text, false),
    };
    let value = checksum::parse(algorithm, value).ok_or_else(|| checksum::invalid(algorithm))?;
    Ok(vec![Checksum { algorithm, value, composite }])
}

fn parse_completion(document: &[u8]) -> Result<Vec<PartName>, Failure> {
    let root = xml::parse(document, "CompleteMultipartUpload")?;
    root.allow(&["Part"])?;
    if root.children.is_empty() || root.children.len() > PARTS_MAX as usize {
        return Err(malformed("it must hold 1 to 10000 parts"));
    }
    let parts = root.children.iter().map(parse_part).collect::<Result<Vec<_>, _>>()?;
    if !parts.is_sorted_by_key(|part| part.number) {
        let text = "The parts are not in ascending order.";
        return Err(Failure::new(Code::InvalidPartOrder, text));
    }
    Ok(last_of_each(parts))
}

/// A client that sent a part twice may name both: the later one counts.
fn last_of_each(parts: Vec<PartName>) -> Vec<PartName> {
    let mut kept: Vec<PartName> = Vec::with_capacity(parts.len());
    for part in parts {
        if kept.last().is_some_and(|last| last.number == part.number) {
            kept.pop();
        }
        kept.push(part);
    }
    kept
}

fn parse_part(part: &Element) -> Result<PartName, Failure> {
    let text = |name| part.child_text(name).map(str::trim);
    let number = part_number(text("PartNumber").unwrap_or_default())?;
    let etag = text("ETag").ok_or_else(|| malformed("a part without an ETag"))?;
    let mut checksums = Vec::new();
    for child in &part.children {
        let name = child.name.as_str();
        if name == "PartNumber" || name == "ETag" {
            continue;
        }
        let algorithm = Algorithm::ALL
            .into_iter()
            .find(|&algorithm| checksum::element_name(algorithm) == name)
            .ok_or_else(|| malformed(&format!("{name} in Part")))?;
        let value = checksum::parse(algorithm, child.text.trim())
            .ok_or_else(|| checksum::invalid(algorithm))?;
        checksums.push(Checksum { algorithm, value, composite: false });
    }
    Ok(PartName { number, etag: unquoted(etag).to_owned(), checksums })
}

fn completion(request: &Request, scheme: &str, written: &Written) -> String {
    let mut path = format!("/{}/", request.bucket()).into_bytes();
    encode_into(request.key(), true, &mut path);
    let path = String::from_utf8(path).expect("ASCII");
    let host = request.header("host").unwrap_or_default();
    let mut xml = Writer::s3("CompleteMultipartUploadResult");
    xml.text("Location", &format!("{scheme}://{host}{path}"));
    xml.text("Bucket", request.bucket());
    xml.text("Key", &String::from_utf8_lossy(request.key()));
    xml.text("ETag", &format!("\"{}\"", written.etag));
    for one in &written.checksums {
        let text = checksum::text(one, written.etag.parts);
        xml.text(checksum::element_name(one.algorithm), &text);
    }
    if let Some(first) = written.checksums.first() {
        xml.text("ChecksumType", checksum::type_name(first.composite));
    }
    xml.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_completion_names_its_parts() {
        let document = b"<CompleteMultipartUpload><Part><PartNumber>1</PartNumber>\
            <ETag>&quot;e1&quot;</ETag><ChecksumCRC32>DUoRhQ==</ChecksumCRC32></Part>\
            <Part><ETag>e3</ETag><PartNumber>3</PartNumber></Part></CompleteMultipartUpload>";
        let parts = parse_completion(document).expect("parses");
        assert_eq!((parts[0].number, parts[0].etag.as_str()), (1, "e1"));
        assert_eq!(parts[0].checksums[0].algorithm, Algorithm::Crc32);
        assert_eq!((parts[1].number, parts[1].etag.as_str()), (3, "e3"));
    }

    #[test]
    fn completions_that_are_not_valid_are_refused() {
        let part = |inner: &str| {
            let open = "<CompleteMultipartUpload>";
            format!("{open}<Part>{inner}</Part></CompleteMultipartUpload>")
        };
        let number = "<PartNumber>1</PartNumber>";
        let cases = [
            ("<CompleteMultipartUpload/>".to_owned(), Code::MalformedXml),
            (part(number), Code::MalformedXml),
            (part("<ETag>e</ETag>"), Code::InvalidArgument),
            (part("<ETag>e</ETag><PartNumber>0</PartNumber>"), Code::InvalidArgument),
            (part("<ETag>e</ETag><PartNumber>10001</PartNumber>"), Code::InvalidArgument),
            (part(&format!("{number}<ETag>e</ETag><Other/>")), Code::MalformedXml),
            (
                part(&format!(
                    "<PartNumber>2</PartNumber><ETag>e</ETag></Part><Part>{number}<ETag>e</ETag>"
                )),
                Code::InvalidPartOrder,
            ),
            (
                part(&format!("{number}<ETag>e</ETag><ChecksumCRC32>x</ChecksumCRC32>")),
                Code::BadDigest,
            ),
        ];
        for (document, code) in cases {
            let failure = parse_completion(document.as_bytes()).expect_err("refused");
            assert_eq!(failure.code, code, "{document}");
        }
    }

    #[test]
    fn of_a_part_that_is_named_twice_the_later_counts() {
        let part =
            |etag: &str| format!("<Part><PartNumber>1</PartNumber><ETag>{etag}</ETag></Part>");
        let open = "<CompleteMultipartUpload>";
        let document = format!("{open}{}{}</CompleteMultipartUpload>", part("a"), part("b"));
        let parts = parse_completion(document.as_bytes()).expect("parses");
        assert_eq!((parts.len(), parts[0].etag.as_str()), (1, "b"));
    }

    #[test]
    fn the_largest_completion_is_read() {
        let part = |number: u32| {
            format!(
                "<Part><PartNumber>{number}</PartNumber><ETag>\"{}\"</ETag>\
                 <ChecksumCRC32>DUoRhQ==</ChecksumCRC32></Part>",
                "a".repeat(32)
            )
        };
        let parts: String = (1..=PARTS_MAX).map(part).collect();
        let document = format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>");
        assert_eq!(parse_completion(document.as_bytes()).expect("parses").len(), 10_000);
    }

    #[test]
    fn the_checksum_of_the_whole_may_be_composite() {
        let of = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("x-amz-checksum-crc32", value.parse().expect("a value"));
            stated_for_whole(&headers)
        };
        assert!(!of("DUoRhQ==").expect("valid")[0].composite);
        assert!(of("DUoRhQ==-3").expect("valid")[0].composite);
        assert!(of("DUoRhQ==-x").is_err());
    }
}

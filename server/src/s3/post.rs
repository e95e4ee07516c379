//! Uploads by an HTML form, as one request on a bucket: the form's policy and its signature are the
//! authorization, its fields the headers of a PUT.

use basalt_engine::seam::Runtime;
use basalt_net::mailbox::Mailbox;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG, LOCATION, REFERER, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use http_body::Body;

use super::answer::{self, Answer};
use super::attributes::{self, CONTENT_HEADERS};
use super::auth::{Arrival, parse_decimal};
use super::body::{Checksums, Expected, RequestBody};
use super::error::{Code, Failure};
use super::form::{self, Form};
use super::object::{checked_size, written_answer};
use super::operation::refuse_headers;
use super::request::{check_bucket_name, check_key};
use super::target::{Target, encode_into};
use super::versioning::set_written_version;
use super::watch::Watch;
use super::xml::Writer;
use super::{Server, tagging};
use crate::object::{Condition, Put, Tags, Written};

/// Fields that speak of the signature and not of the object.
const SIGNATURE_FIELDS: [&str; 5] = [
    "x-amz-algorithm",
    "x-amz-credential",
    "x-amz-date",
    "x-amz-security-token",
    "x-amz-signature",
];

impl<M: Mailbox, R: Runtime> Server<M, R> {
    pub(super) async fn post_object<B: Body<Data = Bytes> + Unpin>(
        &self,
        target: Target,
        headers: &HeaderMap,
        arrival: Arrival,
        body: &mut B,
        watch: &Watch<R>,
    ) -> Result<Answer<M, R>, Failure> {
        let (Some(bucket), None) = (&target.bucket, &target.key) else {
            let text = "A form is sent to a bucket.";
            return Err(Failure::new(Code::MethodNotAllowed, text));
        };
        if target.query.iter().next().is_some() {
            let text = "A form is sent to a bucket without parameters.";
            return Err(Failure::new(Code::MethodNotAllowed, text));
        }
        check_bucket_name(bucket)?;
        let length = content_length(headers)?;
        let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let boundary = form::boundary(content_type.unwrap_or_default())?;
        let (form, mut file) = form::read(body, watch, boundary, length).await?;

        let (authenticated, policy) = self.inner.gate.authenticate_form(&form)?;
        let key = key_of(&form)?;
        let fields = fields_as_used(&form, bucket, &key)?;
        if let Some(policy) = &policy {
            policy.check(&fields, self.inner.runtime.wall().0)?;
        }
        let request = headers;
        let mut headers = headers_of(&form)?;
        refuse_headers(&headers)?;
        for name in [REFERER, USER_AGENT] {
            // No field speaks of these; policies ask about them.
            for value in request.get_all(&name) {
                headers.append(&name, value.clone());
            }
        }
        let tags = tags_of(&form)?;
        let named = (bucket.as_str(), key.as_bytes());
        let authorized = self.authorize_form(authenticated, &headers, &tags, named, arrival);
        let authorized = authorized.await?;
        self.check_acl(bucket, &headers).await?;
        file.begin(watch).await?;
        if let Some(policy) = &policy {
            policy.check_length(file.size())?;
        }
        headers.insert(CONTENT_LENGTH, HeaderValue::from(file.size()));
        let expected = Expected::new(authorized, &headers, Checksums::Body)?;
        let put = Put {
            bucket: bucket.clone(),
            key: Bytes::from(key.clone()),
            size: checked_size(&expected)?,
            class: attributes::storage_class(&headers)?,
            metadata: attributes::metadata(&headers)?,
            tags,
            condition: Condition::None,
        };
        let mut source = RequestBody::new(&mut file, watch, expected);
        let written = self.store().put(put, &mut source).await;
        drop(source);
        match (written, file.fault()) {
            (Ok(written), _) => Ok(posted(&form, bucket, &key, &written)),
            (Err(_), Some(fault)) => Err(fault),
            (Err(error), None) => Err(error.into()),
        }
    }
}

fn content_length(headers: &HeaderMap) -> Result<u64, Failure> {
    let value = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    value.and_then(parse_decimal).ok_or_else(|| {
        Failure::new(Code::MissingContentLength, "The request needs a Content-Length.")
    })
}

fn key_of(form: &Form) -> Result<String, Failure> {
    let key = form.get("key").filter(|key| !key.is_empty()).ok_or_else(|| {
        let text = "The form must hold a field named key.";
        Failure::new(Code::InvalidArgument, text)
    })?;
    // Some browsers send the path of the file; only its last part is its name.
    let name = form.file_name.rsplit(['/', '\\']).next().unwrap_or_default();
    let key = key.replace("${filename}", name);
    if key.is_empty() || key.contains('\0') {
        return Err(Failure::new(Code::InvalidArgument, "The key of the form is not valid."));
    }
    check_key(key.as_bytes())?;
    Ok(key)
}

/// What the policy is asked about: the fields, with the bucket and key that will be written.
fn fields_as_used(form: &Form, bucket: &str, key: &str) -> Result<Vec<(String, String)>, Failure> {
    if form.get("bucket").is_some_and(|stated| stated != bucket) {
        let text = "The form names another bucket than it is sent to.";
        return Err(Failure::new(Code::AccessDenied, text));
    }
    let others = form.fields.iter().filter(|(name, _)| name != "bucket" && name != "key").cloned();
    let used = [("bucket", bucket), ("key", key)];
    Ok(used
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into_iter()
        .chain(others)
        .collect())
}

/// The fields that a PUT would have as headers.
fn headers_of(form: &Form) -> Result<HeaderMap, Failure> {
    let mut headers = HeaderMap::new();
    for (name, value) in &form.fields {
        // The one field that is named otherwise than its header.
        let name = if name == "acl" { "x-amz-acl" } else { name.as_str() };
        let is_header = CONTENT_HEADERS.contains(&name)
            || (name.starts_with("x-amz-") && !SIGNATURE_FIELDS.contains(&name));
        if !is_header {
            continue;
        }
        let invalid =
            || Failure::new(Code::InvalidArgument, format!("The field {name} is not valid."));
        let header: HeaderName = name.parse().map_err(|_| invalid())?;
        let value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| invalid())?;
        headers.insert(header, value);
    }
    Ok(headers)
}

fn tags_of(form: &Form) -> Result<Tags, Failure> {
    let Some(document) = form.get("tagging") else { return Ok(Tags::new()) };
    let tags = tagging::parse(document.as_bytes())?;
    tagging::check_of_object(&tags)?;
    Ok(tags)
}

/// The answer that the form asks for.
fn posted<M: Mailbox, R: Runtime>(
    form: &Form,
    bucket: &str,
    key: &str,
    written: &Written,
) -> Answer<M, R> {
    let encoded = |text: &str, keep_slash| {
        let mut encoded = Vec::new();
        encode_into(text.as_bytes(), keep_slash, &mut encoded);
        String::from_utf8(encoded).expect("ASCII")
    };
    let etag = format!("\"{}\"", written.etag);
    let location = format!("/{bucket}/{}", encoded(key, true));
    let redirect = form.get("success_action_redirect").or(form.get("redirect"));
    if let Some(page) = redirect.filter(|page| is_page(page)) {
        let separator = if page.contains('?') { '&' } else { '?' };
        let (key, etag) = (encoded(key, false), encoded(&etag, false));
        let page = format!("{page}{separator}bucket={bucket}&key={key}&etag={etag}");
        let mut answer = answer::empty(StatusCode::SEE_OTHER);
        answer::set(&mut answer, LOCATION, &page);
        set_written_version(&mut answer, written.name);
        return answer;
    }
    let mut answer = match form.get("success_action_status") {
        Some("201") => {
            let mut xml = Writer::document("PostResponse", None);
            xml.text("Location", &location);
            xml.text("Bucket", bucket);
            xml.text("Key", key);
            xml.text("ETag", &etag);
            let mut answer = answer::xml(xml.finish());
            *answer.status_mut() = StatusCode::CREATED;
            answer::set(&mut answer, ETAG, &etag);
            set_written_version(&mut answer, written.name);
            answer
        }
        status => {
            let mut answer = written_answer(written);
            let is_plain = status == Some("200");
            *answer.status_mut() = if is_plain { StatusCode::OK } else { StatusCode::NO_CONTENT };
            answer
        }
    };
    answer::set(&mut answer, LOCATION, &location);
    answer
}

/// Whether a browser can be sent there; what is none is passed over.
fn is_page(page: &str) -> bool {
    let is_web = page.starts_with("http://") || page.starts_with("https://");
    is_web && page.parse::<http::Uri>().is_ok_and(|uri| uri.host().is_some())
}

#[cfg(test)]
pub(super) mod tests;

//! One request from head to answer. Whatever happens, there is an answer: an error becomes its XML
//! document, a panic becomes InternalError and a line in the log.

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use basalt_engine::seam::Runtime;
use basalt_net::mailbox::Mailbox;
use bytes::Bytes;
use futures_util::FutureExt;
use http::header::{CONNECTION, DATE, EXPECT, HOST, HeaderName, SERVER};
use http::{HeaderMap, HeaderValue, Method, Uri};
use http_body::{Body, Frame};

use super::answer::{self, Answer, AnswerBody};
use super::auth::{Admitted, Arrival, Authorized, Head, Needs};
use super::error::{Code, Failure};
use super::monitoring::Question;
use super::operation::{FORM, Operation};
use super::request::Request;
use super::tally::Flight;
use super::target::Target;
use super::watch::Watch;
use super::{Server, attributes, auth, date, origins};

/// An unread rest of a body that is read and dropped, so that the client sees the answer and not a
/// reset connection.
const DRAIN_BYTES_MAX: usize = 256 << 10;
/// S3's limit for names and values of headers together, in bytes.
const HEADERS_BYTES_MAX: usize = 8 << 10;
/// A key of the longest, percent-encoded, with a presigned query behind it.
const URI_BYTES_MAX: usize = 8 << 10;

impl<M: Mailbox, R: Runtime> Server<M, R> {
    pub(super) async fn respond<B: Body<Data = Bytes> + Unpin>(
        &self,
        request: http::Request<B>,
        peer: IpAddr,
        watch: &Rc<Watch<R>>,
    ) -> Answer<M, R> {
        let (parts, body) = request.into_parts();
        let (method, uri) = (parts.method, parts.uri);
        let request_id = format!("{:016X}", self.inner.runtime.random_u64());
        let began = self.inner.runtime.now();
        let flight = Flight::new(&self.inner.tally);
        self.inner.tally.received(head_bytes(&method, &uri, &parts.headers));
        let mut body = Incoming::new(body, &flight);
        let expects_continue = parts.headers.contains_key(EXPECT);
        let page = origins::Page::of(&method, &uri, &parts.headers, &self.inner.domains);
        let condition = attributes::failing_condition(&parts.headers);
        let is_administration = self.is_administration(&uri, &parts.headers);
        let now_ms = self.inner.runtime.wall().0;
        let arrival = Arrival { peer, is_secure: self.inner.scheme == "https", now_ms };
        let work = self.run((&method, &uri, parts.headers), arrival, &mut body, watch);
        let outcome = AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|_| {
            tracing::error!(%method, path = uri.path(), request_id, "a request panicked");
            Err(Failure::new(Code::InternalError, "The request failed by a fault of the server."))
        });
        if !body.ended && !expects_continue {
            drain(&mut body, watch).await;
        }
        let mut answer = outcome.unwrap_or_else(|mut failure| {
            flight.fails(failure.code);
            failure.condition = condition.filter(|_| failure.code == Code::PreconditionFailed);
            match is_administration {
                true => self.administrators_refusal(&failure, uri.path(), &request_id),
                false => self.refusal(&failure, uri.path(), &request_id),
            }
        });
        if method == Method::HEAD {
            *answer.body_mut() = AnswerBody::empty();
        }
        // A client that waits for a 100 and gets a final answer instead may not know whether to
        // send its body: with an empty one, some take the next answer for this one.
        let ended = body.ended;
        if !ended || (expects_continue && body.began_ended) {
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        self.complete_headers(&mut answer, &request_id);
        if let Some(page) = page {
            self.open_to_page(&mut answer, &page).await;
        }
        answer.body_mut().ends_request_of(Rc::clone(watch));
        flight.is_answered(answer.status(), self.inner.runtime.now().since(began));
        answer.body_mut().ends(flight);
        answer
    }

    /// The answer to whoever came when there were too many connections already.
    pub(super) fn turned_away(&self, path: &str) -> Answer<M, R> {
        let request_id = format!("{:016X}", self.inner.runtime.random_u64());
        let text = "Too many connections are open; use fewer, or try again later.";
        let mut answer = self.refusal(&Failure::new(Code::SlowDown, text), path, &request_id);
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        self.complete_headers(&mut answer, &request_id);
        answer
    }

    fn complete_headers(&self, answer: &mut Answer<M, R>, request_id: &str) {
        answer::set(answer, HeaderName::from_static("x-amz-request-id"), request_id);
        answer::set(answer, HeaderName::from_static("x-amz-id-2"), &self.inner.host_id);
        answer::set(answer, SERVER, "Basalt");
        answer::set(answer, DATE, &date::http(self.inner.runtime.wall().0));
    }

    fn refusal(&self, failure: &Failure, path: &str, request_id: &str) -> Answer<M, R> {
        tracing::debug!(path, request_id, code = failure.code.name(), message = %failure.message);
        let document = failure.document(path, request_id, &self.inner.host_id);
        let mut answer = answer::xml(document);
        *answer.status_mut() = failure.code.status();
        for (name, value) in &failure.headers {
            answer.headers_mut().insert(name, value.clone());
        }
        answer
    }

    /// From the raw head to the operation.
    async fn run<B: Body<Data = Bytes> + Unpin>(
        &self,
        (method, uri, headers): (&Method, &Uri, HeaderMap),
        arrival: Arrival,
        body: &mut Incoming<'_, B>,
        watch: &Watch<R>,
    ) -> Result<Answer<M, R>, Failure> {
        check_limits(uri, &headers)?;
        let hosted = self.inner.domains.bucket(&headers);
        if hosted.is_none()
            && let Some(question) = Question::of(method, uri)
        {
            return self.tell(question, &headers, arrival.now_ms).await;
        }
        if *method == Method::OPTIONS {
            let page = origins::Page::of(method, uri, &headers, &self.inner.domains);
            return self.preflight(page.as_ref()).await;
        }
        if self.is_administration(uri, &headers) {
            return self.administer((method, uri), &headers, arrival.now_ms).await;
        }
        let target = match hosted {
            Some(bucket) => Target::hosted(bucket, uri.path(), uri.query())?,
            None => Target::parse(uri.path(), uri.query())?,
        };
        let head = Head { method: method.as_str(), target: &target, headers: &headers };
        if auth::is_form(&head) {
            body.flight.asks(FORM, target.bucket.as_deref());
            return self.post_object(target, &headers, arrival, body, watch).await;
        }
        let mut authenticated = self.inner.gate.authenticate(&head, arrival.now_ms)?;
        let hoisted = std::mem::take(&mut authenticated.hoisted);
        let request = Request::new(method, target, headers, hoisted)?;
        body.flight.asks(request.operation.metric(), request.target.bucket.as_deref());
        let needs = Needs::of(&request)?;
        let admitted = self.admit(authenticated, &request, arrival).await?;
        let Needs::Known(needs) = needs else {
            return self.decide_and_perform(&request, admitted, body, watch).await;
        };
        let authorized = self.authorize(admitted, &needs).await?;
        if matches!(
            request.operation,
            Operation::PutObject | Operation::CopyObject | Operation::CreateUpload
        ) {
            self.check_acl(request.bucket(), &request.headers).await?;
        }
        let asker = authorized.asker();
        let outcome = self.perform(&request, authorized, body, watch).await;
        auth::hide_absence(&asker, &needs, outcome)
    }

    /// Of those operations that are decided about by what their bodies, or the store, hold.
    async fn decide_and_perform<B: Body<Data = Bytes> + Unpin>(
        &self,
        request: &Request,
        admitted: Admitted,
        body: &mut B,
        watch: &Watch<R>,
    ) -> Result<Answer<M, R>, Failure> {
        match request.operation {
            Operation::ListBuckets => self.list_buckets(request, admitted).await,
            Operation::CreateBucket => self.create_bucket(request, admitted, body, watch).await,
            Operation::DeleteObjects => self.delete_objects(request, admitted, body, watch).await,
            Operation::PutObjectTags => self.put_object_tags(request, admitted, body, watch).await,
            other => unreachable!("{other:?} is decided about by its head"),
        }
    }

    async fn perform<B: Body<Data = Bytes> + Unpin>(
        &self,
        request: &Request,
        authorized: Authorized,
        body: &mut B,
        watch: &Watch<R>,
    ) -> Result<Answer<M, R>, Failure> {
        match request.operation {
            Operation::HeadBucket => self.head_bucket(request, authorized).await,
            Operation::DeleteBucket => self.delete_bucket(request, authorized).await,
            Operation::GetBucketLocation => self.bucket_location(request, authorized).await,
            Operation::ListObjects => self.list_objects(request, authorized).await,
            Operation::ListObjectsV2 => self.list_objects_v2(request, authorized).await,
            Operation::ListObjectVersions => self.list_object_versions(request, authorized).await,
            Operation::GetObject => self.get_object(request, authorized).await,
            Operation::HeadObject => self.head_object(request, authorized).await,
            Operation::GetObjectAttributes => self.object_attributes(request, authorized).await,
            Operation::PutObject => self.put_object(request, authorized, body, watch).await,
            Operation::CopyObject => self.copy_object(request, authorized).await,
            Operation::DeleteObject => self.delete_object(request, authorized).await,
            Operation::CreateUpload => self.create_upload(request, authorized).await,
            Operation::PutPart => self.put_part(request, authorized, body, watch).await,
            Operation::CopyPart => self.copy_part(request, authorized).await,
            Operation::CompleteUpload => {
                self.complete_upload(request, authorized, body, watch).await
            }
            Operation::AbortUpload => self.abort_upload(request, authorized).await,
            Operation::ListUploads => self.list_uploads(request, authorized).await,
            Operation::ListParts => self.list_parts(request, authorized).await,
            Operation::GetObjectTags => self.get_object_tags(request, authorized).await,
            Operation::DeleteObjectTags => self.delete_object_tags(request, authorized).await,
            Operation::GetBucketTags => self.get_bucket_tags(request, authorized).await,
            Operation::PutBucketTags => {
                self.put_bucket_tags(request, authorized, body, watch).await
            }
            Operation::DeleteBucketTags => self.delete_bucket_tags(request, authorized).await,
            Operation::GetBucketVersioning => self.get_bucket_versioning(request, authorized).await,
            Operation::PutBucketVersioning => {
                self.put_bucket_versioning(request, authorized, body, watch).await
            }
            Operation::GetBucketPolicy => self.get_bucket_policy(request, authorized).await,
            Operation::PutBucketPolicy => {
                self.put_bucket_policy(request, authorized, body, watch).await
            }
            Operation::DeleteBucketPolicy => self.delete_bucket_policy(request, authorized).await,
            Operation::GetBucketPolicyStatus => {
                self.bucket_policy_status(request, authorized).await
            }
            Operation::GetConfiguration(which) => {
                self.get_configuration(request, authorized, which).await
            }
            Operation::PutConfiguration(which) => {
                self.put_configuration(request, authorized, which, body, watch).await
            }
            Operation::DeleteConfiguration(which) => {
                self.delete_configuration(request, authorized, which).await
            }
            Operation::PutAcl => self.put_acl(request, authorized, body, watch).await,
            Operation::DeleteUnset(_) => self.delete_unset(request, authorized).await,
            Operation::Unset(unset) => self.unset(request, authorized, unset).await,
            Operation::ListBuckets
            | Operation::CreateBucket
            | Operation::DeleteObjects
            | Operation::PutObjectTags => {
                unreachable!("{:?} is decided about by its content", request.operation)
            }
        }
    }
}

fn check_limits(uri: &Uri, headers: &HeaderMap) -> Result<(), Failure> {
    // A server in front may have taken the other one.
    if headers.get_all(HOST).iter().nth(1).is_some() {
        let text = "The request has more than one host header.";
        return Err(Failure::new(Code::BadRequest, text));
    }
    let uri_bytes = uri.path().len() + uri.query().map_or(0, str::len);
    if uri_bytes > URI_BYTES_MAX {
        let text = format!("The URI has {uri_bytes} bytes; {URI_BYTES_MAX} are allowed.");
        return Err(Failure::new(Code::UriTooLong, text));
    }
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if bytes > HEADERS_BYTES_MAX {
        let text = format!("The headers have {bytes} bytes; {HEADERS_BYTES_MAX} are allowed.");
        return Err(Failure::new(Code::HeadersTooLarge, text));
    }
    Ok(())
}

/// As the head came over the wire.
fn head_bytes(method: &Method, uri: &Uri, headers: &HeaderMap) -> usize {
    let target = uri.path().len() + uri.query().map_or(0, |query| query.len() + 1);
    let lines: usize = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len())
        .sum();
    method.as_str().len() + target + "  HTTP/1.1\r\n\r\n".len() + lines
}

/// Reads on to the end of a body that nobody wanted, if that is near.
async fn drain<B: Body<Data = Bytes> + Unpin, R: Runtime>(
    body: &mut Incoming<'_, B>,
    watch: &Watch<R>,
) {
    let mut drained = 0;
    while drained < DRAIN_BYTES_MAX {
        let frame = std::future::poll_fn(|task| {
            watch.poll_body(task, |task| Pin::new(&mut *body).poll_frame(task))
        });
        match frame.await {
            Ok(Some(Ok(frame))) => {
                let length = frame.data_ref().map_or(0, Bytes::len);
                watch.body_progress(length);
                drained += length;
            }
            Ok(Some(Err(_)) | None) | Err(_) => return,
        }
    }
}

/// The body of a request, which knows whether it was read to its end.
struct Incoming<'a, B> {
    body: B,
    flight: &'a Flight,
    began_ended: bool,
    ended: bool,
}

impl<'a, B: Body> Incoming<'a, B> {
    fn new(body: B, flight: &'a Flight) -> Self {
        let ended = body.is_end_stream();
        Self { body, flight, began_ended: ended, ended }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Incoming<'_, B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(task);
        if let Poll::Ready(Some(Ok(frame))) = &frame {
            self.flight.received(frame.data_ref().map_or(0, Bytes::len));
        }
        if matches!(frame, Poll::Ready(None)) || self.body.is_end_stream() {
            self.ended = true;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

#[cfg(test)]
mod tests;

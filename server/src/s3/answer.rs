//! Answers: their headers and bodies. A body never ends early and passes for complete: when an
//! object's bytes cannot be read to their end, the connection is aborted.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use basalt_engine::seam::Runtime;
use basalt_net::mailbox::Mailbox;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderValue, Response, StatusCode};
use http_body::{Frame, SizeHint};

use super::tally::Flight;
use super::watch::Watch;
use crate::object::ObjectBody;
use crate::object::{self};

pub(super) type Answer<M, R> = Response<AnswerBody<ObjectBody<M, R>, R>>;

/// The body of an answer. While it lives, its request has not ended.
pub(super) struct AnswerBody<S, R: Runtime> {
    content: Content<S>,
    watch: Option<Rc<Watch<R>>>,
    flight: Option<Flight>,
}

enum Content<S> {
    /// `None` once it was taken.
    Whole(Option<Bytes>),
    Streamed {
        next: Next<S>,
        remaining: u64,
    },
    /// The stream ended, well or not.
    Ended,
}

type Next<S> = Pin<Box<dyn Future<Output = (S, object::Result<Option<Bytes>>)>>>;

/// Why a body was cut off.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    #[error("the object cannot be read: {0}")]
    Unreadable(object::Error),
    #[error("the object's body has another length than its record says")]
    Length,
}

impl<S: object::Body + 'static, R: Runtime> AnswerBody<S, R> {
    pub(super) fn empty() -> Self {
        Self::whole(Bytes::new())
    }

    pub(super) fn whole(bytes: Bytes) -> Self {
        let bytes = (!bytes.is_empty()).then_some(bytes);
        Self { content: Content::Whole(bytes), watch: None, flight: None }
    }

    /// `length` bytes of `source`. The first of them are read before this returns, so that a body
    /// that cannot be read at all is still an error with a status.
    pub(super) async fn streamed(mut source: S, length: u64) -> object::Result<Self> {
        let first = source.next().await?.unwrap_or_default();
        if first.len() as u64 == length {
            return Ok(Self::whole(first));
        }
        let next = Box::pin(std::future::ready((source, Ok(Some(first)))));
        let content = Content::Streamed { next, remaining: length };
        Ok(Self { content, watch: None, flight: None })
    }

    /// The request ends, for `watch`, when this body is dropped.
    pub(super) fn ends_request_of(&mut self, watch: Rc<Watch<R>>) {
        self.watch = Some(watch);
    }

    /// The request is counted when this body is dropped.
    pub(super) fn ends(&mut self, flight: Flight) {
        self.flight = Some(flight);
    }
}

impl<S, R: Runtime> Drop for AnswerBody<S, R> {
    fn drop(&mut self) {
        if let Some(watch) = &self.watch {
            watch.request_ends();
        }
        let has_ended = matches!(self.content, Content::Whole(None) | Content::Ended);
        if let (Some(flight), false) = (&self.flight, has_ended) {
            flight.is_cut_off();
        }
    }
}

impl<S: object::Body + 'static, R: Runtime> http_body::Body for AnswerBody<S, R> {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let frame = ready!(self.poll_content(task));
        if let (Some(flight), Some(Ok(bytes))) = (&self.flight, &frame) {
            flight.sent(bytes.len());
        }
        Poll::Ready(frame.map(|bytes| bytes.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.content, Content::Whole(None) | Content::Ended)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match &self.content {
            Content::Whole(bytes) => bytes.as_ref().map_or(0, |bytes| bytes.len() as u64),
            Content::Streamed { remaining, .. } => *remaining,
            Content::Ended => 0,
        })
    }
}

impl<S: object::Body + 'static, R: Runtime> AnswerBody<S, R> {
    fn poll_content(&mut self, task: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        let (next, remaining) = match &mut self.content {
            Content::Whole(bytes) => return Poll::Ready(bytes.take().map(Ok)),
            Content::Ended => return Poll::Ready(None),
            Content::Streamed { next, remaining } => (next, remaining),
        };
        let (mut source, outcome) = ready!(next.as_mut().poll(task));
        let outcome = match outcome {
            Ok(Some(bytes)) => match remaining.checked_sub(bytes.len() as u64) {
                Some(left) => Ok((bytes, left)),
                None => Err(Broken::Length),
            },
            Ok(None) => Err(Broken::Length),
            Err(error) => Err(Broken::Unreadable(error)),
        };
        match outcome {
            Ok((bytes, 0)) => {
                self.content = Content::Ended;
                Poll::Ready(Some(Ok(bytes)))
            }
            Ok((bytes, left)) => {
                *remaining = left;
                *next = Box::pin(async move {
                    let outcome = source.next().await;
                    (source, outcome)
                });
                Poll::Ready(Some(Ok(bytes)))
            }
            Err(broken) => {
                tracing::error!(%broken, "an answer was cut off");
                self.content = Content::Ended;
                Poll::Ready(Some(Err(broken)))
            }
        }
    }
}

pub(super) fn empty<M: Mailbox, R: Runtime>(status: StatusCode) -> Answer<M, R> {
    let mut answer = Response::new(AnswerBody::empty());
    *answer.status_mut() = status;
    answer
}

pub(super) fn xml<M: Mailbox, R: Runtime>(document: String) -> Answer<M, R> {
    let mut answer = Response::new(AnswerBody::whole(Bytes::from(document)));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    answer
}

pub(super) fn json<M: Mailbox, R: Runtime>(document: String) -> Answer<M, R> {
    let mut answer = Response::new(AnswerBody::whole(Bytes::from(document)));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

pub(super) fn text<M: Mailbox, R: Runtime>(text: String) -> Answer<M, R> {
    let mut answer = Response::new(AnswerBody::whole(Bytes::from(text)));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    answer
}

/// Sets a header whose value is known to be sendable, or leaves it out: values come from requests
/// that a server of another version may have accepted.
pub(super) fn set<B>(answer: &mut Response<B>, name: HeaderName, value: &str) {
    match HeaderValue::from_bytes(value.as_bytes()) {
        Ok(value) => {
            answer.headers_mut().insert(name, value);
        }
        Err(_) => tracing::warn!(%name, "a header that cannot be sent was left out"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use basalt_engine::units::SetIndex;
    use http_body::Body;

    use super::*;
    use crate::s3::testing::{TestRuntime, run};

    /// An object whose bytes are read in these pieces.
    struct Pieces(VecDeque<object::Result<Bytes>>);

    impl object::Body for Pieces {
        async fn next(&mut self) -> object::Result<Option<Bytes>> {
            self.0.pop_front().transpose()
        }
    }

    const UNREADABLE: object::Error = object::Error::Unreadable { set: SetIndex(0), short_by: 1 };

    /// What a client would see: the bytes, and whether the connection was aborted.
    fn send(
        pieces: impl IntoIterator<Item = object::Result<&'static [u8]>>,
        length: u64,
    ) -> object::Result<(Vec<u8>, bool)> {
        let pieces = pieces.into_iter().map(|piece| piece.map(Bytes::from_static)).collect();
        let body = run(AnswerBody::<Pieces, TestRuntime>::streamed(Pieces(pieces), length))?;
        assert_eq!(body.size_hint().exact(), Some(length));
        let mut body = std::pin::pin!(body);
        let mut sent = Vec::new();
        while !body.is_end_stream() {
            let frame = std::future::poll_fn(|task| body.as_mut().poll_frame(task));
            match run(frame) {
                Some(Ok(frame)) => sent.extend_from_slice(frame.data_ref().expect("data")),
                Some(Err(_)) => return Ok((sent, true)),
                None => break,
            }
        }
        Ok((sent, false))
    }

    #[test]
    fn an_object_is_sent_whole() {
        let hello: &[u8] = b"hello";
        assert_eq!(send([Ok(hello)], 5), Ok((b"hello".to_vec(), false)));
        let pieces: [object::Result<&[u8]>; 3] = [Ok(b"he"), Ok(b"l"), Ok(b"lo")];
        assert_eq!(send(pieces, 5), Ok((b"hello".to_vec(), false)));
    }

    #[test]
    fn a_short_body_is_never_passed_for_complete() {
        let start: &[u8] = b"hel";
        assert_eq!(send([Ok(start)], 5), Ok((b"hel".to_vec(), true)));
        assert_eq!(send([Ok(start), Err(UNREADABLE)], 5), Ok((b"hel".to_vec(), true)));
        let long: &[u8] = b"lots";
        assert_eq!(send([Ok(start), Ok(long)], 5), Ok((b"hel".to_vec(), true)));
        assert_eq!(send([], 5), Ok((Vec::new(), true)));
    }

    #[test]
    fn what_cannot_be_read_at_all_is_an_error_with_a_status() {
        assert_eq!(send([Err(UNREADABLE)], 5), Err(UNREADABLE));
    }
}

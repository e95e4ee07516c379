//! HTTP/1.1 on one stream, by hyper, with this server's own watch over quiet peers.
//!
//! Request smuggling: hyper closes a connection after a request that has both a Content-Length and
//! a Transfer-Encoding, and refuses obsolete line folding, differing lengths and malformed chunks.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use basalt_engine::seam::Runtime;
use basalt_net::mailbox::Mailbox;
use hyper::body::{Body, Incoming};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http1;
use hyper::service::{HttpService, service_fn};

use super::watch::{Verdict, Watch};
use super::{Patience, Server};

/// Measured: smaller buffers cost reads, larger ones page faults and waiting neighbours.
const BUFFER_BYTES_MAX: usize = 1 << 20;
/// What is longer is not read to its end, and refused without S3's words. S3's own limits, which
/// are lower, are the service's.
const HEAD_BYTES_MAX: usize = 20 << 10;

impl<M: Mailbox, R: Runtime> Server<M, R> {
    /// Serves requests of `peer` on `stream` until either side closes it. Once `stop` resolves, the request
    /// in progress is finished and no other is taken.
    pub async fn serve_connection<S>(&self, stream: S, peer: IpAddr, stop: impl Future<Output = ()>)
    where
        S: Read + Write + Unpin + 'static,
    {
        let watch = Rc::new(Watch::new(self.inner.runtime.clone(), self.inner.patience));
        let service = service_fn(|request: http::Request<Incoming>| {
            // Now, and not when the future is first polled: hyper may read on before that.
            watch.request_begins();
            let watch = &watch;
            async move { Ok::<_, Infallible>(self.respond(request, peer, watch).await) }
        });
        serve(stream, &self.inner.runtime, &watch, service, stop).await;
    }
}

impl<M: Mailbox, R: Runtime> Server<M, R> {
    /// Tells one request on `stream` that there are too many connections, and closes it.
    pub async fn turn_away<S>(&self, stream: S, stop: impl Future<Output = ()>)
    where
        S: Read + Write + Unpin + 'static,
    {
        let watch = Rc::new(Watch::new(self.inner.runtime.clone(), Patience::of_the_turned_away()));
        let service = service_fn(|request: http::Request<Incoming>| {
            watch.request_begins();
            let mut answer = self.turned_away(request.uri().path());
            answer.body_mut().ends_request_of(Rc::clone(&watch));
            async move { Ok::<_, Infallible>(answer) }
        });
        serve(stream, &self.inner.runtime, &watch, service, stop).await;
    }
}

async fn serve<S, R, F, B>(
    stream: S,
    runtime: &R,
    watch: &Rc<Watch<R>>,
    service: F,
    stop: impl Future<Output = ()>,
) where
    S: Read + Write + Unpin,
    R: Runtime,
    F: HttpService<Incoming, ResBody = B, Error = Infallible>,
    B: Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let stream = Watched { stream, watch: Rc::clone(watch) };
    let mut connection = pin!(
        http1::Builder::new()
            .max_buf_size(BUFFER_BYTES_MAX)
            .max_header_size(HEAD_BYTES_MAX)
            .auto_date_header(false)
            .serve_connection(stream, service)
    );
    let mut stop = pin!(stop);
    let mut stopping = false;
    loop {
        let mut timer = pin!(runtime.sleep(watch.rest()));
        let event = poll_fn(|task| {
            if let Poll::Ready(outcome) = connection.as_mut().poll(task) {
                return Poll::Ready(Event::Closed(outcome));
            }
            if !stopping && stop.as_mut().poll(task).is_ready() {
                return Poll::Ready(Event::Stop);
            }
            timer.as_mut().poll(task).map(|()| Event::Timer)
        });
        match event.await {
            Event::Closed(Ok(())) => return,
            Event::Closed(Err(error)) => {
                tracing::debug!(%error, "a connection ended");
                return;
            }
            Event::Stop => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
            Event::Timer => {
                if watch.verdict() == Verdict::Close {
                    tracing::debug!("a connection was closed for its silence");
                    return;
                }
            }
        }
    }
}

enum Event {
    Closed(hyper::Result<()>),
    Stop,
    Timer,
}

/// A stream that tells the watch about its progress.
struct Watched<S, R> {
    stream: S,
    watch: Rc<Watch<R>>,
}

impl<S: Read + Unpin, R: Runtime> Read for Watched<S, R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(task, buffer);
        if read.is_ready() {
            self.watch.read_progress();
        }
        read
    }
}

impl<S: Write + Unpin, R: Runtime> Watched<S, R> {
    fn note<T>(
        &self,
        progress: Poll<io::Result<T>>,
        bytes: impl Fn(&T) -> usize,
    ) -> Poll<io::Result<T>> {
        match &progress {
            Poll::Ready(outcome) => self.watch.write_progress(outcome.as_ref().map_or(0, bytes)),
            Poll::Pending => self.watch.write_waits(),
        }
        progress
    }
}

impl<S: Write + Unpin, R: Runtime> Write for Watched<S, R> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(task, bytes);
        self.note(written, |bytes| *bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(task, slices);
        self.note(written, |bytes| *bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(task);
        self.note(flushed, |()| 0)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(task);
        self.note(shut, |()| 0)
    }
}

#[cfg(test)]
mod tests;

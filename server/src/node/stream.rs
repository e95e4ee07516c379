//! The engine's TCP stream as hyper wants it. One of the few homes of `unsafe`: hyper hands out
//! memory that is not initialised yet, and reading into it directly saves a copy of every body.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use basalt_engine::runtime::net::TcpStream;
use hyper::rt::{Read, ReadBufCursor, Write};

pub(super) struct HttpStream {
    stream: TcpStream,
    /// Taken off the connection before it was known whose it is; read first.
    first: Vec<u8>,
}

impl HttpStream {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self::after(stream, Vec::new())
    }

    /// `first` was read of the stream already.
    pub(super) fn after(stream: TcpStream, first: Vec<u8>) -> Self {
        Self { stream, first }
    }

    pub(super) async fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }
}

impl Read for HttpStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.first.is_empty() {
            let count = self.first.len().min(cursor.remaining());
            cursor.put_slice(&self.first[..count]);
            self.first.drain(..count);
            return Poll::Ready(Ok(()));
        }
        // SAFETY: the stream writes to this memory and never reads it.
        let memory = unsafe { cursor.as_mut() };
        match self.stream.poll_read_uninit(context, memory) {
            Poll::Ready(Ok(length)) => {
                // SAFETY: the stream has initialised the first `length` bytes.
                unsafe { cursor.advance(length) };
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Write for HttpStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.stream.poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_shutdown()
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream.poll_write_vectored(context, slices)
    }
}

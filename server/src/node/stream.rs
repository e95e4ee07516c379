//! The engine's TCP stream as hyper wants it. One of the few homes of `unsafe`: hyper hands out
//! memory that is not initialised yet, and reading into it directly saves a copy of every body.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use basalt_engine::runtime::net::TcpStream;
use hyper::rt::{Read, ReadBufCursor, Write};

pub(super) struct HttpStream(TcpStream);

impl HttpStream {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self(stream)
    }
}

impl Read for HttpStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        // SAFETY: the stream writes to this memory and never reads it.
        let memory = unsafe { cursor.as_mut() };
        match self.0.poll_read_uninit(context, memory) {
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
        self.0.poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_shutdown()
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.poll_write_vectored(context, slices)
    }
}

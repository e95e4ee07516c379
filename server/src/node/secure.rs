//! TLS on the engine's TCP stream, as hyper wants it: rustls decides, this file moves the bytes.
//!
//! [`Acceptor`] holds what new connections are served with, and takes changed certificates over. A
//! client that speaks plain HTTP is told so, in HTTP.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, BufRead, IoSlice, Write as _};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use basalt_engine::runtime::GlommioRuntime;
use basalt_engine::runtime::net::TcpStream;
use basalt_engine::seam::{Clock, Spawn};
use futures_util::future::{Either, select};
use hyper::rt::{Read, ReadBufCursor, Write};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection};

use basalt_net::link::Stream;

use crate::tls::{Certificates, PEERS, Unusable};

/// Between two looks at the files.
const LOOK: Duration = Duration::from_secs(5);
/// How long a client may take until the connection is secure.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Received and not yet decrypted: two records of the longest kind.
const INCOMING_BYTES: usize = 2 * (16 << 10) + 1024;
/// Encrypted and not yet sent.
const OUTGOING_BYTES_MAX: usize = 256 << 10;
/// What every TLS connection begins with: a handshake record.
const FIRST_BYTE: u8 = 0x16;

const NOT_SECURE: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\n\
    Connection: close\r\nContent-Length: 71\r\n\r\n\
    This server speaks HTTPS: write https:// in the address instead of http";

/// What new connections of one core are served with.
#[derive(Clone)]
pub(super) struct Acceptor {
    config: Rc<RefCell<Arc<ServerConfig>>>,
    clock: GlommioRuntime,
}

impl Acceptor {
    /// Loads the certificates, and again whenever they change.
    pub(super) fn watch(
        runtime: &GlommioRuntime,
        certificates: &Certificates,
    ) -> Result<Self, Unusable> {
        let mut stamp = certificates.stamp();
        let config = Rc::new(RefCell::new(certificates.load()?));
        let (current, clock, certificates) =
            (Rc::clone(&config), runtime.clone(), certificates.clone());
        runtime.spawn(async move {
            loop {
                clock.sleep(LOOK).await;
                let now = certificates.stamp();
                if now == stamp {
                    continue;
                }
                stamp = now;
                match certificates.load() {
                    Ok(loaded) => {
                        *current.borrow_mut() = loaded;
                        tracing::info!("certificates changed: new connections get the new ones");
                    }
                    Err(error) => {
                        tracing::error!(%error, "changed certificates cannot be used; the former \
                                                 ones stay");
                    }
                }
            }
        });
        Ok(Self { config, clock: runtime.clone() })
    }

    /// The stream once it is secure; `None` where that failed, and the client was told why if it
    /// could be.
    pub(super) async fn accept(&self, stream: TcpStream) -> Option<SecureStream> {
        let config = self.config.borrow().clone();
        let mut stream = SecureStream::accepting(stream, config)?;
        let outcome = {
            let handshake = std::pin::pin!(stream.handshake());
            let limit = std::pin::pin!(self.clock.sleep(HANDSHAKE));
            match select(handshake, limit).await {
                Either::Left((outcome, _)) => outcome,
                Either::Right(_) => Err(io::ErrorKind::TimedOut.into()),
            }
        };
        match outcome {
            Ok(()) => Some(stream),
            Err(error) => {
                tracing::debug!(%error, "a connection did not become secure");
                None
            }
        }
    }
}

pub(super) struct SecureStream {
    stream: TcpStream,
    tls: Connection,
    /// Received bytes, of which `waiting` were not given to `tls` yet.
    incoming: Box<[u8]>,
    waiting: std::ops::Range<usize>,
    closing: bool,
}

impl SecureStream {
    fn new(stream: TcpStream, mut tls: Connection) -> Self {
        tls.set_buffer_limit(Some(OUTGOING_BYTES_MAX));
        let incoming = vec![0; INCOMING_BYTES].into_boxed_slice();
        Self { stream, tls, incoming, waiting: 0..0, closing: false }
    }

    fn accepting(stream: TcpStream, config: Arc<ServerConfig>) -> Option<Self> {
        match ServerConnection::new(config) {
            Ok(tls) => Some(Self::new(stream, tls.into())),
            Err(error) => {
                tracing::error!(%error, "no TLS connection can be made");
                None
            }
        }
    }

    /// Makes a connection to a node secure, and checks that it is the node called `name`.
    pub(super) async fn connect(
        stream: TcpStream,
        config: Arc<ClientConfig>,
        name: &str,
    ) -> io::Result<Self> {
        let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        let tls = ClientConnection::new(config, name).map_err(io::Error::other)?;
        let mut stream = Self::new(stream, tls.into());
        poll_fn(|context| stream.poll_send(context)).await?;
        stream.finish_handshake().await?;
        Ok(stream)
    }

    async fn handshake(&mut self) -> io::Result<()> {
        let first = poll_fn(|context| self.poll_receive(context)).await?;
        if first == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if self.incoming[0] != FIRST_BYTE {
            self.stream.write_all(NOT_SECURE).await?;
            return Err(io::Error::other("it is not TLS"));
        }
        self.finish_handshake().await
    }

    async fn finish_handshake(&mut self) -> io::Result<()> {
        while self.tls.is_handshaking() {
            poll_fn(|context| self.poll_decrypt(context)).await?;
        }
        poll_fn(|context| self.poll_send(context)).await
    }

    /// Whether it came to speak the peer protocol.
    pub(super) fn is_of_peer(&self) -> bool {
        self.tls.alpn_protocol() == Some(PEERS)
    }

    pub(super) fn for_peer(self) -> SecurePeer {
        SecurePeer(RefCell::new(self))
    }

    /// Fills the front of `buffer` with what was decrypted; 0 at the end.
    fn poll_plain(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            match self.tls.reader().fill_buf() {
                Ok(bytes) => {
                    let count = bytes.len().min(buffer.len());
                    buffer[..count].copy_from_slice(&bytes[..count]);
                    self.tls.reader().consume(count);
                    return Poll::Ready(Ok(count));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
            ready!(self.poll_decrypt(context))?;
        }
    }

    /// Takes more bytes off the connection; answers how many, 0 at its end.
    fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        assert!(self.waiting.is_empty(), "what was received is decrypted first");
        let count = ready!(self.stream.poll_read(context, &mut self.incoming))?;
        self.waiting = 0..count;
        Poll::Ready(Ok(count))
    }

    /// Gives received bytes to `tls`, after receiving some if need be.
    fn poll_decrypt(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.waiting.is_empty() && ready!(self.poll_receive(context))? == 0 {
            self.tls.read_tls(&mut io::empty())?;
            if self.tls.is_handshaking() {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            return Poll::Ready(Ok(()));
        }
        let mut bytes = &self.incoming[self.waiting.clone()];
        self.waiting.start += self.tls.read_tls(&mut bytes)?;
        let processed = self.tls.process_new_packets();
        // Answers of the handshake, or an alert; what does not fit goes with the next write.
        let sent = self.poll_send(context);
        if let Err(error) = processed {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
        }
        match sent {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(())),
        }
    }

    /// Sends everything that was encrypted.
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.tls.wants_write() {
            let mut socket = Socket { stream: &self.stream, context };
            match self.tls.write_tls(&mut socket) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// A secure connection between nodes. Both directions are moved by one task.
pub(super) struct SecurePeer(RefCell<SecureStream>);

impl Stream for SecurePeer {
    async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        poll_fn(|context| self.0.borrow_mut().poll_plain(context, buffer)).await
    }

    async fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let write = |context: &mut Context<'_>| {
            Pin::new(&mut *self.0.borrow_mut()).poll_write_vectored(context, slices)
        };
        let taken = poll_fn(write).await?;
        // Nothing waits encrypted while there is nothing more to say.
        poll_fn(|context| self.0.borrow_mut().poll_send(context)).await?;
        Ok(taken)
    }
}

/// The connection as the blocking writer that rustls knows.
struct Socket<'a, 'b, 'c> {
    stream: &'a TcpStream,
    context: &'b mut Context<'c>,
}

impl io::Write for Socket<'_, '_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }
    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self.stream.poll_write_vectored(self.context, slices) {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for SecureStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            match this.tls.reader().fill_buf() {
                Ok(bytes) => {
                    let count = bytes.len().min(cursor.remaining());
                    cursor.put_slice(&bytes[..count]);
                    this.tls.reader().consume(count);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // The peer went without a word of good-bye, as many clients do. A body that is cut
                // off by that is noticed by its length.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Poll::Ready(Ok(()));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
            ready!(this.poll_decrypt(context))?;
        }
    }
}

impl Write for SecureStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            let taken = self.tls.writer().write_vectored(slices)?;
            let sent = self.poll_send(context);
            if let Poll::Ready(Err(error)) = sent {
                return Poll::Ready(Err(error));
            }
            if taken > 0 || slices.iter().all(|slice| slice.is_empty()) {
                return Poll::Ready(Ok(taken));
            }
            // There was no room: as much was encrypted as may wait.
            ready!(sent)?;
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_send(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.closing {
            self.closing = true;
            self.tls.send_close_notify();
        }
        ready!(self.poll_send(context))?;
        self.stream.poll_shutdown()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refusal_is_as_long_as_it_says() {
        let text = std::str::from_utf8(NOT_SECURE).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        assert!(head.ends_with(&format!("Content-Length: {}", body.len())), "{}", body.len());
    }
}

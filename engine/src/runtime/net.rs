//! TCP: a listening socket per core and streams that stay on their core.
//!
//! Every core listens on the same address (SO_REUSEPORT) and asks for the connections whose packets
//! its processor handles (SO_INCOMING_CPU), so a connection lives where its interrupts are. One
//! accept task per listener runs for ever: an `accept` of glommio that is dropped loses a
//! connection.
//!
//! glommio is used to wait for readiness. Writing is `sendmsg` on the descriptor itself, because
//! glommio's stream cannot write several slices at once.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::{IpAddr, Shutdown, SocketAddr, ToSocketAddrs};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_channel::oneshot;
use futures_util::io::{AsyncRead, AsyncWrite};
use glommio::net::TcpStream as GlommioStream;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::GlommioRuntime;
use crate::seam::{Clock, Spawn};

/// Connections that may wait to be accepted, per core. The kernel lowers it to its own limit.
const BACKLOG: i32 = 4096;
/// Slices that one call can write; the kernel takes no more.
const SLICES_MAX: usize = 1024;
/// Accepts after which other tasks and I/O get their turn.
const ACCEPTS_AT_ONCE: u64 = 32;
/// Pause after an accept failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A bound socket that listens on one core.
pub struct Listener {
    socket: glommio::net::TcpListener,
    /// By a descriptor that shows itself.
    same_socket: Socket,
    address: SocketAddr,
}

impl Listener {
    /// Binds on the core of `runtime`. Every core binds the same address for itself.
    pub fn bind(runtime: &GlommioRuntime, address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        prefer_processor(&socket, runtime.core.cpu);
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let address = socket.local_addr()?.as_socket().expect("a TCP address");
        let same_socket = socket.try_clone()?;
        // SAFETY: the descriptor is a listening socket, given away here.
        let socket = unsafe { glommio::net::TcpListener::from_raw_fd(socket.into_raw_fd()) };
        Ok(Self { socket, same_socket, address })
    }

    pub fn local_address(&self) -> SocketAddr {
        self.address
    }

    /// Calls `serve` with each connection, until told to end or for as long as the core runs. `serve`
    /// must not wait; it spawns.
    pub fn serve(
        self,
        runtime: &GlommioRuntime,
        mut serve: impl FnMut(TcpStream) + 'static,
    ) -> Listening {
        let clock = runtime.clone();
        let (ending, ended) = oneshot::channel::<()>();
        let told_to_end = Rc::new(Cell::new(false));
        let told = Rc::clone(&told_to_end);
        let Self { socket, same_socket, address } = self;
        runtime.spawn(async move {
            // Dropped at the end of the task, which is what `ended` tells.
            let _ending = ending;
            for count in 1u64.. {
                if count.is_multiple_of(ACCEPTS_AT_ONCE) {
                    clock.sleep(Duration::ZERO).await; // Lets others in while many connect.
                }
                let accepted = socket.accept().await.map_err(io::Error::from);
                match accepted.and_then(TcpStream::new) {
                    Ok(stream) => serve(stream),
                    Err(error) if lost_before_accept(&error) => {}
                    // So says a socket that no longer listens; from any other it is a fault to be told.
                    Err(error) if told.get() && error.raw_os_error() == Some(libc::EINVAL) => {
                        return;
                    }
                    Err(error) => {
                        tracing::warn!(%error, %address, "accept failed");
                        clock.sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        });
        Listening { same_socket, told_to_end, ended }
    }
}

/// A socket that is being served.
pub struct Listening {
    same_socket: Socket,
    told_to_end: Rc<Cell<bool>>,
    ended: oneshot::Receiver<()>,
}

impl Listening {
    /// Takes no more connections: the kernel refuses those that wait and all that come. Whoever ends a
    /// core that listened on an address which goes on being used has to wait for this: a connection
    /// that is accepted while its core ends belongs to nobody, and its client would wait for ever.
    pub async fn end(self) -> io::Result<()> {
        self.told_to_end.set(true);
        self.same_socket.shutdown(Shutdown::Both)?;
        let Err(oneshot::Canceled) = self.ended.await else { unreachable!("nothing is sent") };
        Ok(())
    }
}

/// A wish: without it connections are spread by hash.
fn prefer_processor(socket: &Socket, cpu: usize) {
    let Ok(cpu) = libc::c_int::try_from(cpu) else { return };
    let length = libc::socklen_t::try_from(size_of_val(&cpu)).expect("four");
    // SAFETY: `cpu` is valid for its size.
    let code = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_INCOMING_CPU,
            (&raw const cpu).cast(),
            length,
        )
    };
    if code != 0 {
        let error = io::Error::last_os_error();
        tracing::debug!(%error, "connections are not kept on the processor of their interrupts");
    }
}

/// Faults of one connection only: the next accept is as good as ever.
fn lost_before_accept(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ECONNABORTED | libc::ECONNRESET | libc::ENOTCONN | libc::EINTR | libc::EPROTO)
    )
}

/// The addresses of a host, as of now. Looking up a name blocks; it does so on a thread of its own.
pub async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![(address, port).into()]);
    }
    let host = host.to_owned();
    let look_up = move || (host.as_str(), port).to_socket_addrs().map(Iterator::collect);
    let found: Vec<SocketAddr> = glommio::executor().spawn_blocking(look_up).await?;
    match found.is_empty() {
        true => Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address")),
        false => Ok(found),
    }
}

/// A connection. Reading and writing take `&self`, so that one task reads while another writes;
/// at most one task may wait in each direction.
pub struct TcpStream {
    stream: RefCell<GlommioStream>,
    peer: SocketAddr,
}

impl TcpStream {
    /// Connects from this core, giving up after `timeout`.
    pub async fn connect(address: SocketAddr, timeout: Duration) -> io::Result<Self> {
        let stream = GlommioStream::connect_timeout(address, timeout).await?;
        Self::new(stream)
    }

    fn new(stream: GlommioStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let peer = stream.peer_addr()?;
        Ok(Self { stream: RefCell::new(stream), peer })
    }

    pub fn peer_address(&self) -> SocketAddr {
        self.peer
    }

    /// Lets the kernel find out that the peer is gone although nothing is sent.
    pub fn set_keepalive(&self, idle: Duration, interval: Duration) -> io::Result<()> {
        let descriptor = self.stream.borrow().as_raw_fd();
        // SAFETY: the descriptor is open for as long as `self` lives, longer than this borrow.
        let borrowed = unsafe { std::os::fd::BorrowedFd::borrow_raw(descriptor) };
        let keepalive = socket2::TcpKeepalive::new().with_time(idle).with_interval(interval);
        SockRef::from(&borrowed).set_tcp_keepalive(&keepalive)
    }

    /// Fills the front of `buffer` and says how much; 0 is the end of the stream.
    pub fn poll_read(
        &self,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut stream = self.stream.borrow_mut();
        Pin::new(&mut *stream).poll_read(context, buffer)
    }

    /// As [`Self::poll_read`] for memory that need not be initialised; the bytes that the answer
    /// counts are.
    pub fn poll_read_uninit(
        &self,
        context: &mut Context<'_>,
        buffer: &mut [MaybeUninit<u8>],
    ) -> Poll<io::Result<usize>> {
        let (start, length) = (buffer.as_mut_ptr().cast::<u8>(), buffer.len());
        // SAFETY: the memory is valid for writing, and nothing reads through this slice: glommio
        // 0.9.0 (the version is fixed) hands its pointer and length to recv(2) and looks at
        // nothing itself; the kernel writes the bytes that it counts.
        let bytes = unsafe { std::slice::from_raw_parts_mut(start, length) };
        self.poll_read(context, bytes)
    }

    pub fn poll_write(&self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    /// Writes the front of the slices and says how much of them.
    pub fn poll_write_vectored(
        &self,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut stream = self.stream.borrow_mut();
        match send(stream.as_raw_fd(), slices) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            done => return Poll::Ready(done),
        }
        // There was no room. glommio tries once more to send, and waits for room if that fails too.
        let Some(first) = slices.iter().find(|slice| !slice.is_empty()) else {
            return Poll::Ready(Ok(0));
        };
        Pin::new(&mut *stream).poll_write(context, first)
    }

    /// Ends the writing half: the peer reads the end of the stream.
    pub fn poll_shutdown(&self) -> Poll<io::Result<()>> {
        let descriptor = self.stream.borrow().as_raw_fd();
        // SAFETY: as in `set_keepalive`.
        let borrowed = unsafe { std::os::fd::BorrowedFd::borrow_raw(descriptor) };
        Poll::Ready(match SockRef::from(&borrowed).shutdown(Shutdown::Write) {
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            done => done,
        })
    }

    pub async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        poll_fn(|context| self.poll_read(context, buffer)).await
    }

    /// Fills `buffer`; the end of the stream before that is an error.
    pub async fn read_exact(&self, buffer: &mut [u8]) -> io::Result<()> {
        let mut filled = 0;
        poll_fn(|context| {
            while filled < buffer.len() {
                match ready!(self.poll_read(context, &mut buffer[filled..]))? {
                    0 => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                    count => filled += count,
                }
            }
            Poll::Ready(Ok(()))
        })
        .await
    }

    pub async fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        self.write_all_vectored(&mut [IoSlice::new(bytes)]).await
    }

    /// Writes all of the slices, which are used up.
    pub async fn write_all_vectored(&self, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
        IoSlice::advance_slices(&mut slices, 0);
        while !slices.is_empty() {
            let written = poll_fn(|context| self.poll_write_vectored(context, slices)).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            IoSlice::advance_slices(&mut slices, written);
        }
        Ok(())
    }
}

fn send(descriptor: libc::c_int, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    // SAFETY: an all-zero message header is a valid, empty one.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    // An `IoSlice` has the layout of an iovec, and the kernel only reads what it points to.
    header.msg_iov = slices.as_ptr().cast_mut().cast();
    header.msg_iovlen = slices.len().min(SLICES_MAX);
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    loop {
        // SAFETY: the header names `slices`, which are valid for reading during the call.
        let sent = unsafe { libc::sendmsg(descriptor, &raw const header, flags) };
        if let Ok(sent) = usize::try_from(sent) {
            return Ok(sent);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use futures_util::future::{Either, join, join_all, select};

    use super::super::tests::on_one_core;
    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    fn any_port() -> SocketAddr {
        "127.0.0.1:0".parse().expect("an address")
    }

    /// A stream to itself through the loopback: the accepted and the connecting end.
    async fn pair(runtime: &GlommioRuntime) -> (TcpStream, TcpStream) {
        let listener = Listener::bind(runtime, any_port()).expect("bound");
        let address = listener.local_address();
        let (sender, accepted) = futures_channel::oneshot::channel();
        let mut sender = Some(sender);
        listener.serve(runtime, move |stream| {
            let _ = sender.take().expect("one connection").send(stream);
        });
        let connected = TcpStream::connect(address, LIMIT).await.expect("connected");
        (accepted.await.expect("accepted"), connected)
    }

    #[test]
    fn megabytes_pass_in_slices_and_the_end_is_seen() {
        on_one_core(|runtime| async move {
            let (server, client) = pair(&runtime).await;
            assert_eq!(client.peer_address().ip(), server.peer_address().ip());
            let body: Vec<u8> = (0..9_000_001u32).map(|index| (index % 251) as u8).collect();
            let writing = async {
                // Far more than the socket holds: the writer must wait for room many times.
                let (head, rest) = body.split_at(1);
                let (middle, tail) = rest.split_at(5_000_000);
                let slices = &mut [head, &[], middle, tail].map(IoSlice::new);
                server.write_all_vectored(slices).await.expect("written");
                poll_fn(|_| server.poll_shutdown()).await.expect("shut down");
            };
            let reading = async {
                let mut received = Vec::new();
                let mut chunk = vec![MaybeUninit::uninit(); 300_000];
                loop {
                    let read = poll_fn(|context| client.poll_read_uninit(context, &mut chunk));
                    match read.await.expect("read") {
                        0 => break received,
                        count => received.extend(chunk[..count].iter().map(|byte| {
                            // SAFETY: the bytes that the read counted are initialised.
                            unsafe { byte.assume_init() }
                        })),
                    }
                }
            };
            let ((), received) = join(writing, reading).await;
            assert!(received == body);
        });
    }

    #[test]
    fn reading_and_writing_wait_independently() {
        on_one_core(|runtime| async move {
            let (server, client) = pair(&runtime).await;
            let (server, echoes) = (Rc::new(server), Rc::new(Cell::new(0)));
            let (reader, counter) = (Rc::clone(&server), Rc::clone(&echoes));
            runtime.spawn(async move {
                let mut bytes = [0; 4];
                while reader.read_exact(&mut bytes).await.is_ok() {
                    counter.set(counter.get() + 1);
                    reader.write_all(&bytes).await.expect("echoed");
                }
            });
            for number in 0..1000u32 {
                client.write_all(&number.to_le_bytes()).await.expect("written");
                let mut answer = [0; 4];
                client.read_exact(&mut answer).await.expect("answered");
                assert_eq!(u32::from_le_bytes(answer), number);
            }
            assert_eq!(echoes.get(), 1000);
            let mut rest = [0];
            let read = client.read(&mut rest);
            assert!(read.now_or_never().is_none(), "nothing more came");
        });
    }

    #[test]
    fn a_lost_peer_is_an_error_and_no_signal() {
        on_one_core(|runtime| async move {
            let (server, client) = pair(&runtime).await;
            drop(client);
            let body = vec![1; 1 << 20];
            let mut outcome = Ok(());
            for _ in 0..10 {
                outcome = outcome.and(server.write_all(&body).await);
            }
            let error = outcome.expect_err("nobody reads");
            let expected = [io::ErrorKind::BrokenPipe, io::ErrorKind::ConnectionReset];
            assert!(expected.contains(&error.kind()), "{error}");
        });
    }

    #[test]
    fn names_and_addresses_resolve() {
        on_one_core(|_| async move {
            let of = |host| resolve(host, 9000);
            assert_eq!(
                of("127.0.0.1").await.expect("an address"),
                ["127.0.0.1:9000".parse().unwrap()]
            );
            let local = of("localhost").await.expect("every machine has it");
            assert!(local.iter().all(|address| address.ip().is_loopback()), "{local:?}");
            assert!(of("no-such-host.invalid").await.is_err());
        });
    }

    #[test]
    fn the_end_of_listening_leaves_nobody_waiting() {
        on_one_core(|runtime| async move {
            let waits = Rc::new(Cell::new(0));
            for _ in 0..20 {
                let listener = Listener::bind(&runtime, any_port()).expect("bound");
                let address = listener.local_address();
                let listening = listener.serve(&runtime, drop);
                let clients = (0..40).map(|_| async {
                    let Ok(stream) = TcpStream::connect(address, LIMIT).await else { return };
                    let mut byte = [0];
                    let reading = std::pin::pin!(stream.read(&mut byte));
                    let limit = std::pin::pin!(runtime.sleep(LIMIT));
                    if matches!(select(reading, limit).await, Either::Right(_)) {
                        waits.set(waits.get() + 1);
                    }
                });
                let (_, ended) = join(join_all(clients), listening.end()).await;
                ended.expect("it listened");
                let refused = TcpStream::connect(address, LIMIT).await.map(drop);
                assert_eq!(refused.expect_err("refused").kind(), io::ErrorKind::ConnectionRefused);
            }
            assert_eq!(waits.get(), 0, "connections were accepted and never closed");
        });
    }

    #[test]
    fn nobody_listening_is_refused() {
        on_one_core(|runtime| async move {
            let address = {
                let listener = Listener::bind(&runtime, any_port()).expect("bound");
                listener.local_address()
            };
            let refused = TcpStream::connect(address, LIMIT).await.map(drop);
            assert_eq!(refused.expect_err("refused").kind(), io::ErrorKind::ConnectionRefused);
        });
    }
}

//! What the tests of this module share: a core whose time the test moves, bodies made of frames,
//! and requests that sign themselves.

pub(super) mod world;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use basalt_engine::seam::{Clock, Moment, Random, Spawn, WallMs};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64_URL;
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderName};
use http_body::{Body, Frame};
use hyper::rt::{Read, ReadBufCursor, Write};
use sha2::{Digest, Sha256, Sha512};

use super::auth::{Authenticated, Credentials, Gate, Head};
use super::error::Failure;
use super::sigv4::{ALGORITHM, ChunkChain, Scope, Signed, SigningKey, hex_into, parse_sha256};
use super::target::{Target, encode_into};
use crate::policy::{Home, Policy};
use crate::users::User;

pub(super) const ACCESS: &str = "AKIAIOSFODNN7EXAMPLE";
pub(super) const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
/// A user without a policy of its own.
pub(super) const ALICE: (&str, &str) = ("alice", "alice-secret");
/// A user who may do everything in the buckets whose names begin with "carols".
pub(super) const CAROL: (&str, &str) = ("carol", "carol-secret");

pub(super) fn users() -> Vec<User> {
    let policy = br#"{"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "s3:*",
        "Resource": ["arn:aws:s3:::carols*"]}}"#;
    let policy = Policy::parse(policy, Home::User).expect("a policy");
    let user = |(name, secret): (&str, &str), policy| User {
        name: name.to_owned(),
        secret: secret.to_owned(),
        policy,
    };
    vec![user(ALICE, None), user(CAROL, Some(policy))]
}
/// 20130524T000000Z
pub(super) const NOW_MS: u64 = 1_369_353_600_000;
pub(super) const TIMESTAMP: &str = "20130524T000000Z";

/// A core in a test: time stands still until [`TestRuntime::pass`].
#[derive(Clone, Default)]
pub(super) struct TestRuntime {
    now: Rc<Cell<u64>>,
}

impl TestRuntime {
    pub(super) fn pass(&self, duration: Duration) {
        self.now.set(Moment(self.now.get()).plus(duration).0);
    }
}

impl Clock for TestRuntime {
    fn now(&self) -> Moment {
        Moment(self.now.get())
    }
    fn wall(&self) -> WallMs {
        WallMs(NOW_MS + self.now.get() / 1_000_000)
    }
    async fn sleep(&self, duration: Duration) {
        let until = self.now().plus(duration);
        poll_fn(|_| if self.now() >= until { Poll::Ready(()) } else { Poll::Pending }).await;
    }
}

impl Random for TestRuntime {
    fn random_u64(&self) -> u64 {
        7
    }
}

impl Spawn for TestRuntime {
    fn spawn(&self, _task: impl Future<Output = ()> + 'static) {
        panic!("nothing here spawns");
    }
}

/// Runs `future`, which must never have to wait.
pub(super) fn run<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("the future waits for something that will not come"),
    }
}

/// A body that arrives in these frames; `Err` is a lost connection, and where it is `stalled` the
/// rest never comes.
#[derive(Default)]
pub(super) struct Frames {
    pub(super) frames: VecDeque<Result<Bytes, ()>>,
    pub(super) stalled: bool,
}

impl Frames {
    pub(super) fn of<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let frames = pieces.into_iter().map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        Self { frames, stalled: false }
    }
}

impl Body for Frames {
    type Data = Bytes;
    type Error = ();

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _task: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ()>>> {
        match self.frames.pop_front() {
            None if self.stalled => Poll::Pending,
            frame => Poll::Ready(frame.map(|frame| frame.map(Frame::data))),
        }
    }
}

/// A request that a test makes, signs, and spoils.
#[derive(Clone)]
pub(super) struct TestRequest {
    pub(super) method: &'static str,
    pub(super) path: String,
    pub(super) query: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) scope: Scope,
    /// Access key and secret of whoever signs.
    pub(super) signer: (&'static str, &'static str),
}

impl TestRequest {
    pub(super) fn new(method: &'static str, path: &str, content_sha256: &str) -> Self {
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        Self {
            method,
            path: path.to_owned(),
            query: String::new(),
            headers: vec![
                header("host", "localhost:9000"),
                header("x-amz-content-sha256", content_sha256),
                header("x-amz-date", TIMESTAMP),
            ],
            scope: Scope { timestamp: TIMESTAMP.to_owned(), region: "us-east-1".to_owned() },
            signer: (ACCESS, SECRET),
        }
    }

    /// By somebody else than root.
    #[must_use]
    pub(super) fn by(self, signer: (&'static str, &'static str)) -> Self {
        Self { signer, ..self }
    }

    #[must_use]
    pub(super) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(there, _)| there != name);
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    #[must_use]
    pub(super) fn also(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    #[must_use]
    pub(super) fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(there, _)| there != name);
        self
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(there, _)| there == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn header_map(&self) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in &self.headers {
            let name: HeaderName = name.parse().expect("a name");
            map.append(name, value.parse().expect("a value"));
        }
        map
    }

    pub(super) fn target(&self) -> Result<Target, Failure> {
        Target::parse(&self.path, (!self.query.is_empty()).then_some(&self.query))
    }

    fn signature(&self, names: &[&str], payload: &str) -> String {
        let target = self.target().expect("parses");
        let signed = Signed {
            method: self.method,
            raw_path: &target.raw_path,
            query: &target.query,
            headers: &self.header_map(),
            header_names: names,
            payload,
        };
        let key = SigningKey::derive(self.signer.1, &self.scope);
        let mut hex = String::new();
        hex_into(&key.sign(&signed.string_to_sign(&self.scope)), &mut hex);
        hex
    }

    fn credential(&self) -> String {
        format!("{}/{}/{}/s3/aws4_request", self.signer.0, self.scope.day(), self.scope.region)
    }

    /// Signs every header that is there now.
    #[must_use]
    pub(super) fn sign(self) -> Self {
        let mut names: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        let payload = self.header("x-amz-content-sha256").unwrap_or_default();
        let signature = self.signature(&names, payload);
        let authorization = format!(
            "{ALGORITHM} Credential={}, SignedHeaders={}, Signature={signature}",
            self.credential(),
            names.join(";"),
        );
        self.with("authorization", &authorization)
    }

    /// The parts of the authorization, for what goes on signing.
    pub(super) fn chain(&self) -> ChunkChain {
        let header = self.header("authorization").expect("the request is signed");
        let seed = header.rsplit("Signature=").next().expect("there is one");
        let seed = parse_sha256(seed.as_bytes()).expect("a hash");
        ChunkChain::new(SigningKey::derive(self.signer.1, &self.scope), self.scope.clone(), seed)
    }

    /// The request as it is sent, with a Content-Length where it has none.
    pub(super) fn wire(&self, body: &[u8]) -> Vec<u8> {
        let query = if self.query.is_empty() { "" } else { "?" };
        let mut wire = format!("{} {}{query}{} HTTP/1.1\r\n", self.method, self.path, self.query);
        for (name, value) in &self.headers {
            wire.push_str(&format!("{name}: {value}\r\n"));
        }
        if self.header("content-length").is_none() {
            wire.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        wire.push_str("\r\n");
        let mut wire = wire.into_bytes();
        wire.extend_from_slice(body);
        wire
    }

    /// Signs the URL, and the host.
    #[must_use]
    pub(super) fn presign(mut self, expires: &str) -> Self {
        self = self.without("x-amz-content-sha256").without("x-amz-date");
        let mut credential = Vec::new();
        encode_into(self.credential().as_bytes(), false, &mut credential);
        let separator = if self.query.is_empty() { "" } else { "&" };
        self.query.push_str(&format!(
            "{separator}X-Amz-Algorithm={ALGORITHM}&X-Amz-Credential={}&X-Amz-Date={}\
             &X-Amz-Expires={expires}&X-Amz-SignedHeaders=host",
            String::from_utf8(credential).expect("ASCII"),
            self.scope.timestamp,
        ));
        let signature = self.signature(&["host"], "UNSIGNED-PAYLOAD");
        self.query.push_str(&format!("&X-Amz-Signature={signature}"));
        self
    }

    pub(super) fn passes(&self) -> Authenticated {
        match self.authenticate(None, NOW_MS) {
            Ok(authenticated) => authenticated,
            Err(failure) => panic!("refused: {failure:?}"),
        }
    }

    pub(super) fn authenticate(
        &self,
        region: Option<&str>,
        now_ms: u64,
    ) -> Result<Authenticated, Failure> {
        let root = Credentials::new(ACCESS, SECRET);
        let gate = Gate::new(root, users(), region.map(str::to_owned));
        let (target, headers) = (self.target()?, self.header_map());
        gate.authenticate(&Head { method: self.method, target: &target, headers: &headers }, now_ms)
    }
}

/// The server's end of a connection in memory; the test holds the other.
#[derive(Clone, Default)]
pub(super) struct Pipe {
    ends: Rc<RefCell<Ends>>,
}

#[derive(Default)]
struct Ends {
    to_server: VecDeque<u8>,
    from_server: Vec<u8>,
    client_closed: bool,
    server_closed: bool,
    /// The client takes nothing more.
    blocked: bool,
    reader: Option<Waker>,
}

impl Pipe {
    pub(super) fn send(&self, bytes: &[u8]) {
        self.ends.borrow_mut().to_server.extend(bytes);
        self.wake();
    }
    /// What the server sent since the last call.
    pub(super) fn receive(&self) -> String {
        String::from_utf8_lossy(&self.receive_bytes()).into_owned()
    }
    pub(super) fn receive_bytes(&self) -> Vec<u8> {
        std::mem::take(&mut self.ends.borrow_mut().from_server)
    }
    /// Shows what the server sent and was not received yet.
    pub(super) fn peek<T>(&self, look: impl FnOnce(&[u8]) -> T) -> T {
        look(&self.ends.borrow().from_server)
    }
    pub(super) fn close(&self) {
        self.ends.borrow_mut().client_closed = true;
        self.wake();
    }
    fn wake(&self) {
        let reader = self.ends.borrow_mut().reader.take();
        reader.into_iter().for_each(Waker::wake);
    }
    pub(super) fn block(&self) {
        self.ends.borrow_mut().blocked = true;
    }
    pub(super) fn is_closed(&self) -> bool {
        self.ends.borrow().server_closed
    }
}

impl Read for Pipe {
    fn poll_read(
        self: Pin<&mut Self>,
        task: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let mut ends = self.ends.borrow_mut();
        if ends.to_server.is_empty() && !ends.client_closed {
            ends.reader = Some(task.waker().clone());
            return Poll::Pending;
        }
        let length = buffer.remaining().min(ends.to_server.len());
        let bytes: Vec<u8> = ends.to_server.drain(..length).collect();
        buffer.put_slice(&bytes);
        Poll::Ready(Ok(()))
    }
}

impl Write for Pipe {
    fn poll_write(
        self: Pin<&mut Self>,
        _task: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut ends = self.ends.borrow_mut();
        if ends.blocked {
            return Poll::Pending;
        }
        ends.from_server.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }
    fn poll_flush(self: Pin<&mut Self>, _task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _task: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.ends.borrow_mut().server_closed = true;
        Poll::Ready(Ok(()))
    }
}

/// Polls `future` often enough that everything that can happen now has happened.
pub(super) fn settle<F: Future + ?Sized>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    for _ in 0..64 {
        let poll = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        if poll.is_ready() {
            return poll;
        }
    }
    Poll::Pending
}

/// A JSON web token, signed with HMAC-SHA512.
pub(super) fn bearer(header: &str, claims: &str, secret: &str) -> String {
    let signed = format!("{}.{}", BASE64_URL.encode(header), BASE64_URL.encode(claims));
    let mac = Hmac::<Sha512>::new_from_slice(secret.as_bytes()).expect("a key of any length");
    let signature = mac.chain_update(&signed).finalize().into_bytes();
    format!("{signed}.{}", BASE64_URL.encode(signature))
}

pub(super) fn sha256_hex(bytes: &[u8]) -> String {
    let mut hex = String::new();
    hex_into(&Sha256::digest(bytes), &mut hex);
    hex
}

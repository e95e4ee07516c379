//! A whole server over simulated drives, and a client that talks HTTP to it.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::time::Duration;

use basalt_engine::Error;
use basalt_engine::drive::{Drive, Format};
use basalt_engine::request::{Member, Reply, Request, SetMap};
use basalt_engine::seam::Spawn;
use basalt_engine::sim::{Ended, SimDisk, SimRuntime, SimStorage, Simulation, WallSkew};
use basalt_engine::units::{BlockCount, DeploymentId, DriveId, DriveIndex, Epoch, SetIndex};
use basalt_net::mailbox::{Mailbox, Replies};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures_util::FutureExt;
use http::HeaderMap;
use md5::{Digest, Md5};

use super::{ACCESS, NOW_MS, Pipe, SECRET, TestRequest, users};
use crate::object::{Algorithm, ClassParity, Deployment, PART_BYTES_MIN, Store};
use crate::s3::checksum::Hasher;
use crate::s3::{
    Counts, Credentials, Domains, Health, HealthAnswer, Metrics, Origins, Patience, Server,
    Settings,
};

const DRIVES: u8 = 4;
const DEPLOYMENT: DeploymentId = DeploymentId(7);
/// The wall clock of a simulation begins here.
const WALL_START_MS: i64 = 1_700_000_000_000;

type TestDrive = Rc<Drive<SimRuntime, SimStorage>>;

/// Hands requests straight to the drives of the one set; those that are off do not answer.
#[derive(Clone)]
pub(crate) struct TestMailbox {
    runtime: SimRuntime,
    drives: Rc<Vec<TestDrive>>,
    off: Rc<RefCell<Vec<DriveIndex>>>,
}

impl Mailbox for TestMailbox {
    fn drive_count(&self, _set: SetIndex) -> usize {
        self.drives.len()
    }

    fn send(&self, _set: SetIndex, requests: Vec<(DriveIndex, Request)>) -> Replies {
        let (sender, replies) = Replies::expect(requests.len());
        for (index, request) in requests {
            let drive = Rc::clone(&self.drives[usize::from(index.0)]);
            let is_off = self.off.borrow().contains(&index);
            let sender = sender.clone();
            self.runtime.spawn(async move {
                let reply = match is_off {
                    true => Reply::Failed(Error::Unavailable { reason: "switched off" }),
                    false => drive.handle(request).await,
                };
                sender.send(index, reply);
            });
        }
        replies
    }
}

pub(crate) struct World {
    pub(crate) simulation: Simulation,
    pub(crate) runtime: SimRuntime,
    server: Server<TestMailbox, SimRuntime>,
    pub(crate) store: Store<TestMailbox, SimRuntime>,
    mailbox: TestMailbox,
    /// Where connections come from.
    pub(crate) peer: Cell<IpAddr>,
}

/// A request: method, target, headers, body.
pub(crate) type Asked<'a> = (&'static str, &'a str, &'a [(&'a str, &'a str)], &'a [u8]);

/// An answer as the client reads it.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }
    /// The texts of all elements of that name.
    pub(crate) fn elements(&self, name: &str) -> Vec<&str> {
        let (open, close) = (format!("<{name}>"), format!("</{name}>"));
        let pieces = self.text().split(open.as_str()).skip(1);
        pieces.map(|piece| piece.split_once(close.as_str()).expect("it is closed").0).collect()
    }
    /// The text of the first element of that name.
    pub(crate) fn element(&self, name: &str) -> &str {
        let (_, rest) = self.text().split_once(&format!("<{name}>")).unwrap_or_default();
        rest.split_once("</").unwrap_or_default().0
    }
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        Self::with(seed, None, false)
    }

    /// Of a region, and with metrics that anybody may read where they `are_public`.
    pub(crate) fn with(seed: u64, region: Option<&str>, are_public: bool) -> Self {
        let simulation = Simulation::new(seed);
        let runtime = simulation.group();
        let now = i64::try_from(NOW_MS).expect("in range");
        runtime.set_wall(WallSkew { offset_ms: now - WALL_START_MS, drift_ppm: 0 });
        let members = (0..DRIVES)
            .map(|index| Member { drive: DriveId(u128::from(index) + 1), voting: true })
            .collect();
        let map = SetMap { epoch: Epoch(1), drives: members };
        let (formatting, formed_map) = (runtime.clone(), map.clone());
        let drives = simulation.block_on(&runtime, async move {
            let mut drives = Vec::new();
            for position in 0..DRIVES {
                let disk = SimDisk::new(seed ^ u64::from(position), BlockCount(1 << 18));
                drives.push(form(&formatting, &disk, position, &formed_map).await);
            }
            drives
        });
        let mailbox = TestMailbox {
            runtime: runtime.clone(),
            drives: Rc::new(drives),
            off: Rc::new(RefCell::new(Vec::new())),
        };
        let parity = ClassParity { standard: 2, reduced_redundancy: 1 };
        let deployment = Deployment {
            id: DEPLOYMENT,
            maps: vec![map],
            parity: vec![parity],
            part_bytes_min: PART_BYTES_MIN,
            admitted_bytes_max: 64 << 20,
        };
        let store = Store::new(mailbox.clone(), runtime.clone(), deployment);
        let settings = Settings {
            credentials: Credentials::new(ACCESS, SECRET),
            users: users(),
            region: region.map(str::to_owned),
            scheme: "http",
            host_id: "host".to_owned(),
            patience: Patience::default(),
            domains: Domains::parse("s3.test").expect("a domain"),
            origins: Origins::parse("https://*.example"),
        };
        let healthy = |health| HealthAnswer {
            is_good: !matches!(health, Health::Cluster | Health::ClusterWithoutNode),
            headers: vec![("x-minio-write-quorum", "3".to_owned())],
        };
        let page = |page| {
            let text = format!("of {page:?}\n");
            std::future::ready(text).boxed_local()
        };
        let metrics = Metrics { are_public, page: Box::new(page) };
        let server = {
            let admin = |question| {
                let text = format!("{{\"of\":\"{question:?}\"}}");
                std::future::ready(Ok(text)).boxed_local()
            };
            Server::new(store.clone(), runtime.clone(), settings, healthy, metrics, admin)
        };
        let peer = Cell::new(IpAddr::V4(Ipv4Addr::LOCALHOST));
        Self { simulation, runtime, server, store, mailbox, peer }
    }

    /// What the server counted.
    pub(crate) fn counts(&self) -> Counts {
        self.server.counts()
    }

    /// Switches a drive off.
    pub(crate) fn lose(&self, drive: u8) {
        self.mailbox.off.borrow_mut().push(DriveIndex(drive));
    }

    /// Switches all drives on.
    pub(crate) fn recover(&self) {
        self.mailbox.off.borrow_mut().clear();
    }

    pub(crate) fn connect(&self) -> Pipe {
        let pipe = Pipe::default();
        let (server, stream) = (self.server.clone(), pipe.clone());
        let peer = self.peer.get();
        self.runtime.spawn(async move {
            server.serve_connection(stream, peer, std::future::pending()).await;
        });
        pipe
    }

    /// A connection that comes when there are too many.
    pub(crate) fn connect_as_too_many(&self) -> Pipe {
        let pipe = Pipe::default();
        let (server, stream) = (self.server.clone(), pipe.clone());
        self.runtime.spawn(async move {
            server.turn_away(stream, std::future::pending()).await;
        });
        pipe
    }

    /// The next answer on `pipe`.
    pub(crate) fn answer(&self, pipe: &Pipe, is_head: bool) -> Response {
        let complete = || pipe.peek(|bytes| length(bytes, is_head).is_some()) || pipe.is_closed();
        let ended = self.simulation.run_until(complete, Duration::from_secs(600));
        assert_eq!(ended, Ended::Reached, "no answer");
        let mut bytes = pipe.receive_bytes();
        let length = length(&bytes, is_head).expect("the connection ended within an answer");
        assert_eq!(bytes.len(), length, "more than an answer came");
        let body_start = head_length(&bytes).expect("it is there");
        let body = bytes.split_off(body_start);
        parse(&bytes, body)
    }

    /// One request on a connection of its own.
    pub(crate) fn send(&self, request: &TestRequest, body: &[u8]) -> Response {
        let pipe = self.connect();
        pipe.send(&request.wire(body));
        let response = self.answer(&pipe, request.method == "HEAD");
        pipe.close();
        response
    }

    /// A request with its payload hash signed.
    pub(crate) fn ask(
        &self,
        method: &'static str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Response {
        self.send(&signed(method, target, headers, body), body)
    }

    /// The answers to requests that are sent at the same moment, each on a connection of its own.
    pub(crate) fn ask_together(&self, requests: &[Asked<'_>]) -> Vec<Response> {
        let pipes: Vec<Pipe> = requests
            .iter()
            .map(|(method, target, headers, body)| {
                let pipe = self.connect();
                pipe.send(&signed(method, target, headers, body).wire(body));
                pipe
            })
            .collect();
        let answer = |pipe: Pipe| {
            let answer = self.answer(&pipe, false);
            pipe.close();
            answer
        };
        pipes.into_iter().map(answer).collect()
    }

    /// As [`Self::ask`], by somebody else than root.
    pub(crate) fn ask_as(
        &self,
        signer: (&'static str, &'static str),
        method: &'static str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Response {
        let request = plain(method, target, headers, body).by(signer).sign();
        self.send(&request, body)
    }

    /// As [`Self::ask`], without a signature.
    pub(crate) fn ask_unsigned(
        &self,
        method: &'static str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Response {
        let request = plain(method, target, headers, body);
        self.send(&request.without("x-amz-date").without("x-amz-content-sha256"), body)
    }

    /// The answer to a request during which so many drives are lost that nothing can be written
    /// any more, this long after it was sent. The drives come back afterwards.
    pub(crate) fn ask_and_lose(
        &self,
        method: &'static str,
        target: &str,
        body: &[u8],
        after: Duration,
    ) -> Response {
        let pipe = self.connect();
        pipe.send(&signed(method, target, &[], body).wire(body));
        self.simulation.run_for(after);
        self.lose(0);
        self.lose(1);
        let answer = self.answer(&pipe, false);
        self.recover();
        pipe.close();
        answer
    }
}

fn signed(
    method: &'static str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> TestRequest {
    plain(method, target, headers, body).sign()
}

fn plain(method: &'static str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> TestRequest {
    let hash = super::sha256_hex(body);
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut request = TestRequest::new(method, path, &hash);
    request.query = query.to_owned();
    for (name, value) in headers {
        request = request.with(name, value);
    }
    request
}

async fn form(runtime: &SimRuntime, disk: &SimDisk, position: u8, map: &SetMap) -> TestDrive {
    let format = Format {
        drive: map.drives[usize::from(position)].drive,
        deployment: DEPLOYMENT,
        set: SetIndex(0),
        position,
        map: map.clone(),
        journal_blocks: None,
        segment_blocks: None,
    };
    Drive::format(runtime, &disk.open(runtime), &format).await.expect("formatted");
    let drive = Drive::open(runtime.clone(), disk.open(runtime)).await.expect("opened");
    drive.mark_formed().await.expect("formed");
    drive
}

fn head_length(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).take(16 << 10).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

/// Bytes of the first answer in `bytes`, if all of it is there.
fn length(bytes: &[u8], is_head: bool) -> Option<usize> {
    let head = head_length(bytes)?;
    let response = parse(&bytes[..head], Vec::new());
    let body = match response.header("content-length") {
        _ if is_head || response.status == 304 || response.status == 100 => 0,
        "" => 0,
        length => length.parse().expect("a length"),
    };
    (bytes.len() >= head + body).then_some(head + body)
}

fn parse(head: &[u8], body: Vec<u8>) -> Response {
    let head = std::str::from_utf8(head).expect("text");
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status line");
    let mut headers = HeaderMap::new();
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        let name: http::HeaderName = name.parse().expect("a name");
        headers.append(name, value.parse().expect("a value"));
    }
    Response { status: status.parse().expect("a status"), headers, body }
}

/// A server with one bucket, `bucket`.
pub(crate) fn world() -> World {
    let world = World::new(1);
    assert_eq!(world.ask("PUT", "/bucket", &[], b"").status, 200);
    world
}

/// Bytes that differ everywhere.
pub(crate) fn bytes(length: usize) -> Vec<u8> {
    (0..length as u64)
        .map(|index| (index.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8)
        .collect()
}

pub(crate) fn crc32(bytes: &[u8]) -> String {
    let mut hasher = Hasher::new(Algorithm::Crc32);
    hasher.update(bytes);
    BASE64.encode(hasher.finish())
}

pub(crate) fn etag(bytes: &[u8]) -> String {
    let hex: String = Md5::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("\"{hex}\"")
}

pub(crate) fn refused(response: &Response, status: u16, code: &str) {
    assert_eq!((response.status, response.element("Code")), (status, code), "{response:?}");
    assert!(!response.element("Message").is_empty(), "{response:?}");
    assert_eq!(response.element("RequestId"), response.header("x-amz-request-id"));
}

/// Settles every key that any drive knows, twice, since settling one may change another.
pub(crate) async fn settle_all(store: &Store<TestMailbox, SimRuntime>) {
    let set = SetIndex(0);
    for _ in 0..2 {
        let mut keys = std::collections::BTreeSet::new();
        for drive in 0..DRIVES {
            let request = Request::Scan { after: None, limit: 10_000 };
            let mut replies = store.mailbox().send(set, vec![(DriveIndex(drive), request)]);
            if let Some((_, Reply::Scanned { entries, more })) = replies.next().await {
                assert!(!more, "a small world");
                keys.extend(entries.into_iter().map(|entry| entry.key));
            }
        }
        for key in keys {
            store.settle_key(set, &key).await.expect("it settles");
        }
    }
}

/// Frees every orphan that nothing needs, however young.
pub(crate) async fn free_orphans(store: &Store<TestMailbox, SimRuntime>) {
    let set = SetIndex(0);
    for drive in (0..DRIVES).map(DriveIndex) {
        for orphan in store.orphans(set, drive).await.expect("it tells") {
            store.free_orphan(set, &[drive], &orphan).await.expect("it is freed or needed");
        }
    }
}

/// Payloads on all drives together.
pub(crate) fn payloads(world: &World) -> usize {
    world.mailbox.drives.iter().map(|drive| drive.payload_count()).sum()
}

//! Clients: what they ask of the object layer, and what they write down of the answers.
//!
//! A client outlives the node: when the process dies under a request, its outcome is unknown.
//! Contents are drawn from a number, so that every byte of an answer is checked.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use basalt_engine::record::{COPY_BYTES_MAX, Etag, PAYLOADS_INLINE_MAX};
use basalt_engine::seam::{Clock, Moment, Spawn};
use basalt_engine::sim::{Prng, SimRuntime};
use basalt_server::object::error::SourceError;
use basalt_server::object::{
    Body, Checksum, Claims, Condition, Deletion, Error, List, ListFrom, Listed, NewUpload,
    PartName, Put, Source, Span, StorageClass, Written,
};
use bytes::{Bytes, BytesMut};
use futures_channel::oneshot;
use futures_util::future::{Either, select};
use md5::{Digest, Md5};

use super::history::{Need, Register, Value};
use super::mailbox::Hosts;
use super::node::{Node, SimStore};
use super::versions::{self, KEEPS, Versions};
use super::witness::Witness;

/// No request takes longer, whatever the drives do.
const REQUEST_MAX: Duration = Duration::from_secs(400);
/// The bucket that stays, one that comes and goes, and one that keeps versions.
pub const BUCKETS: [&str; 3] = ["stays", "comes-and-goes", "keeps-versions"];

/// What all clients share.
pub struct Shared {
    /// Those that serve.
    pub nodes: RefCell<Vec<Option<Rc<Node>>>>,
    pub options: Workload,
    pub witness: Rc<Witness>,
    pub versions: Versions,
    /// How long the node needed to come to rest.
    pub rest: Cell<Duration>,
    history: RefCell<History>,
    unknown: Cell<u64>,
    lost: Cell<u64>,
    judged: Cell<u64>,
}

#[derive(Clone, Debug)]
pub struct Workload {
    pub clients: usize,
    pub operations: usize,
    pub keys: usize,
    pub pause: Duration,
    /// Bodies above this are not drawn.
    pub bytes_max: u64,
    /// Some objects are of the storage class with less parity.
    pub reduced_redundancy: bool,
    /// Relative frequencies.
    pub weights: Weights,
}

#[derive(Clone, Debug)]
pub struct Weights {
    pub put: u64,
    pub put_conditional: u64,
    pub delete: u64,
    pub get: u64,
    pub head: u64,
    pub list: u64,
    pub multipart: u64,
    pub bucket: u64,
    pub versions: u64,
}

#[derive(Default)]
struct History {
    registers: BTreeMap<Name, Register>,
    etags: BTreeMap<String, u16>,
    bodies: Vec<Option<Vec<Sample>>>,
    drawn: u64,
    pub operations: u64,
}

/// The number and the size of a body.
type Sample = (u64, u64);

/// A bucket, or a key in one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Name {
    Bucket(usize),
    Key(usize, Bytes),
    /// A version of a key in the bucket that keeps them, by its id.
    Version(Bytes, String),
    /// Whether that bucket gives out ids.
    Versioning,
}

/// What a request came to.
pub(super) enum Answer<T> {
    Done(Result<T, Error>),
    /// The process died, or the client went away.
    Lost,
}

impl<T> Answer<T> {
    fn done(&self) -> Option<&T> {
        match self {
            Self::Done(Ok(answer)) => Some(answer),
            Self::Done(Err(_)) | Self::Lost => None,
        }
    }
}

impl Shared {
    pub fn new(options: Workload, nodes: usize) -> Rc<Self> {
        Rc::new(Self {
            nodes: RefCell::new(vec![None; nodes]),
            options,
            witness: Rc::default(),
            versions: Versions::default(),
            rest: Cell::new(Duration::ZERO),
            history: RefCell::new(History::default()),
            unknown: Cell::new(0),
            lost: Cell::new(0),
            judged: Cell::new(0),
        })
    }

    pub fn serving(&self) -> Vec<Rc<Node>> {
        self.nodes.borrow().iter().flatten().cloned().collect()
    }

    /// The drives of the nodes that serve.
    pub fn hosts(&self) -> Hosts {
        let nodes = self.serving();
        let hosts = nodes.iter().flat_map(|node| node.hosts.iter());
        Rc::new(hosts.map(|(seat, host)| (*seat, host.clone())).collect())
    }

    /// Writes whose outcome is not known.
    pub fn unknown(&self) -> u64 {
        self.unknown.get()
    }
    /// Versions that were decided to be lost.
    pub fn lost(&self) -> u64 {
        self.lost.get()
    }
    /// Answers of drives that were judged.
    pub fn judged(&self) -> u64 {
        self.judged.get()
    }
    pub fn note_judged(&self, count: u64) {
        self.judged.set(count);
    }
    pub fn note_lost(&self, count: usize) {
        self.lost.set(count as u64);
    }

    /// Every register with what happened to it.
    pub fn registers(&self) -> Vec<(Name, Register)> {
        let history = self.history.borrow();
        let registers = history.registers.iter();
        let registers = registers.map(|(name, register)| (name.clone(), register.clone()));
        let followed = registers.filter(|(name, _)| !versions::is_removed_from(name));
        followed.chain(self.versions.registers()).collect()
    }

    pub fn operations(&self) -> u64 {
        self.history.borrow().operations
    }

    pub(super) fn value(&self, etag: &str, body: Option<Vec<Sample>>) -> u16 {
        let history = &mut *self.history.borrow_mut();
        let next = u16::try_from(history.etags.len()).expect("few values");
        let value = *history.etags.entry(etag.to_owned()).or_insert(next);
        if value == next {
            history.bodies.push(body);
        }
        value
    }

    pub(super) fn with<T>(&self, name: &Name, work: impl FnOnce(&mut Register) -> T) -> T {
        work(self.history.borrow_mut().registers.entry(name.clone()).or_default())
    }

    pub fn keys(&self) -> Vec<Bytes> {
        let names: [&[u8]; 10] =
            [b"a", b"a/b", b"a/c", b"a/c/d", b"b", b"b\xff", b"c", b"c/", b"d", b"e"];
        names.iter().take(self.options.keys).map(|name| Bytes::from_static(name)).collect()
    }
}

/// The bytes of body `number`.
fn body(number: u64, size: u64) -> Bytes {
    let mut prng = Prng::new(number);
    let mut bytes = BytesMut::with_capacity(size as usize + 8);
    while bytes.len() < size as usize {
        bytes.extend_from_slice(&prng.next_u64().to_le_bytes());
    }
    bytes.truncate(size as usize);
    bytes.freeze()
}

fn md5(bytes: &[u8]) -> [u8; 16] {
    Md5::digest(bytes).into()
}

/// A body as a client sends it, in pieces.
struct Sent {
    bytes: Bytes,
    piece: usize,
    runtime: SimRuntime,
    /// The connection breaks before the end.
    breaks: bool,
}

impl Source for Sent {
    async fn next(&mut self) -> Result<Option<Bytes>, SourceError> {
        self.runtime.sleep(Duration::from_micros(5)).await;
        if self.bytes.is_empty() {
            return Ok(None);
        }
        let length = self.piece.min(self.bytes.len());
        if self.breaks && length == self.bytes.len() {
            return Err(SourceError::Incomplete);
        }
        Ok(Some(self.bytes.split_to(length)))
    }
    fn finish(&mut self, _md5: &[u8; 16]) -> Result<Vec<Checksum>, SourceError> {
        Ok(Vec::new())
    }
}

/// One client.
pub struct Client {
    pub number: usize,
    pub runtime: SimRuntime,
    pub prng: Prng,
    pub shared: Rc<Shared>,
    /// Now and then it does not wait for an answer for long.
    pub hasty: bool,
}

impl Client {
    pub async fn run(mut self) {
        for _ in 0..self.shared.options.operations {
            let pause = self.prng.duration(Duration::ZERO..self.shared.options.pause);
            self.runtime.sleep(pause).await;
            self.operate().await;
        }
    }

    async fn operate(&mut self) {
        let weights = self.shared.options.weights.clone();
        let mut bucket = usize::from(self.prng.below(6) == 0 && weights.bucket > 0);
        if weights.versions > 0 && self.prng.below(4) == 0 {
            bucket = KEEPS;
        }
        let keys = self.shared.keys();
        let key = keys[self.prng.index(keys.len())].clone();
        let table = [
            weights.put,
            weights.put_conditional,
            weights.delete,
            weights.get,
            weights.head,
            weights.list,
            weights.multipart,
            weights.bucket,
            weights.versions,
        ];
        let mut drawn = self.prng.below(table.iter().sum());
        let mut choice = 0;
        while drawn >= table[choice] {
            drawn -= table[choice];
            choice += 1;
        }
        self.shared.history.borrow_mut().operations += 1;
        match choice {
            0 => self.put(bucket, key, false).await,
            1 => self.put(bucket, key, true).await,
            2 => self.delete(bucket, key).await,
            3 => self.get(bucket, key, true).await,
            4 => self.get(bucket, key, false).await,
            5 => self.list(bucket).await,
            6 => self.multipart(bucket, key).await,
            7 => self.change_bucket().await,
            _ => self.operate_on_versions().await,
        }
    }

    /// Runs a request on a core of a node that serves, to its end.
    pub(super) async fn ask<T: 'static, F: Future<Output = Result<T, Error>> + 'static>(
        &mut self,
        request: impl FnOnce(SimStore) -> F,
    ) -> (Moment, Answer<T>) {
        let node = loop {
            let serving = self.shared.serving();
            match serving.len() {
                0 => self.runtime.sleep(Duration::from_millis(100)).await,
                1 => break serving[0].clone(),
                more => break serving[self.prng.index(more)].clone(),
            }
        };
        let patience = match self.hasty && self.prng.below(10) == 0 {
            true => self.prng.duration(Duration::from_millis(100)..Duration::from_secs(5)),
            false => REQUEST_MAX,
        };
        let core = self.prng.index(node.cores.len());
        let start = self.runtime.now();
        let (sender, receiver) = oneshot::channel();
        let future = request(node.stores[core].clone());
        node.cores[core].spawn(async move {
            // The client may have gone.
            let _ = sender.send(future.await);
        });
        let limit = std::pin::pin!(self.runtime.sleep(patience));
        match select(receiver, limit).await {
            Either::Left((Ok(result), _)) => (start, Answer::Done(result)),
            Either::Left((Err(_), _)) => (start, Answer::Lost),
            Either::Right(_) if patience < REQUEST_MAX => (start, Answer::Lost),
            Either::Right(_) => panic!("a request did not end within {REQUEST_MAX:?}"),
        }
    }

    /// As [`Self::ask`]; a success is checked against the payload rule at the moment of its answer.
    async fn ask_write<F: Future<Output = Result<Written, Error>> + 'static>(
        &mut self,
        request: impl FnOnce(SimStore) -> F,
    ) -> (Moment, Answer<Written>) {
        let witness = self.shared.witness.clone();
        self.ask(move |store| {
            let written = request(store);
            async move {
                let written = written.await?;
                witness.acknowledged(written.version);
                Ok(written)
            }
        })
        .await
    }

    fn size(&mut self) -> u64 {
        let unit = 128 * 1024;
        let run = 1 << 20;
        let edges = [
            0,
            1,
            63,
            4095,
            4096,
            4097,
            COPY_BYTES_MAX - 1,
            COPY_BYTES_MAX,
            COPY_BYTES_MAX + 1,
            64 * 1024,
            64 * 1024 + 1,
            unit - 1,
            unit,
            unit + 1,
            2 * unit,
            2 * unit + 65,
            run,
            run + 1,
            2 * run + 4097,
            3 * run - 1,
        ];
        let drawn = match self.prng.below(10) {
            0..5 => self.prng.below(COPY_BYTES_MAX),
            5..8 => edges[self.prng.index(edges.len())],
            _ => self.prng.below(600 * 1024),
        };
        drawn.min(self.shared.options.bytes_max)
    }

    fn draw_body(&mut self, size: u64) -> (u64, Bytes) {
        let number = {
            let history = &mut *self.shared.history.borrow_mut();
            history.drawn += 1;
            history.drawn
        };
        (number, body(number, size))
    }

    fn sent(&mut self, bytes: Bytes) -> Sent {
        let piece = [1000, 4096, 65_536, 1 << 20][self.prng.index(4)];
        let breaks = !bytes.is_empty() && self.prng.below(40) == 0;
        Sent { bytes, piece, runtime: self.runtime.clone(), breaks }
    }

    pub(super) async fn put(&mut self, bucket: usize, key: Bytes, conditional: bool) {
        let size = self.size();
        let (number, bytes) = self.draw_body(size);
        let etag = Etag { md5: md5(&bytes), parts: 0 }.to_string();
        let value = self.shared.value(&etag, Some(vec![(number, size)]));
        let (condition, need) = match conditional {
            true => self.condition(bucket, &key).await,
            false => (Condition::None, Need::Anything),
        };
        let client = format!("client {} put {size} bytes if {condition:?}", self.number);
        let mut sent = self.sent(bytes);
        let put = Put {
            bucket: BUCKETS[bucket].to_owned(),
            key: key.clone(),
            size,
            class: self.class(),
            metadata: vec![("x-amz-meta-n".to_owned(), number.to_string())],
            tags: Vec::new(),
            condition: condition.clone(),
        };
        let (start, answer) =
            self.ask_write(move |store| async move { store.put(put, &mut sent).await }).await;
        if let Answer::Done(Ok(written)) = &answer {
            assert_eq!(written.etag.to_string(), etag);
        }
        if bucket == KEEPS {
            let name = answer.done().and_then(|written| written.name);
            self.note_version(&key, start, Some(value), name);
        }
        self.note_write(start, answer, (bucket, key), condition, need, Some(value), client);
    }

    fn class(&mut self) -> StorageClass {
        match self.prng.below(5) {
            0 if self.shared.options.reduced_redundancy => StorageClass::ReducedRedundancy,
            _ => StorageClass::Standard,
        }
    }

    /// A condition that has a chance: what a look just found.
    async fn condition(&mut self, bucket: usize, key: &Bytes) -> (Condition, Need) {
        match self.prng.below(4) {
            0 => (Condition::Absent, Need::Is(None)),
            1 => (Condition::Present, Need::Present),
            _ => match self.look(bucket, key.clone()).await {
                Some(etag) => {
                    let value = self.shared.value(&etag, None);
                    (Condition::Matches(etag), Need::Is(Some(value)))
                }
                None => (Condition::Absent, Need::Is(None)),
            },
        }
    }

    async fn look(&mut self, bucket: usize, key: Bytes) -> Option<String> {
        let (_, answer) = self
            .ask(move |store| async move { store.head(BUCKETS[bucket], &key, None).await })
            .await;
        match answer {
            Answer::Done(Ok(info)) => Some(info.etag.to_string()),
            _ => None,
        }
    }

    pub(super) async fn delete(&mut self, bucket: usize, key: Bytes) {
        let (condition, need) = match self.prng.below(4) {
            0 => self.condition(bucket, &key).await,
            _ => (Condition::None, Need::Anything),
        };
        // A DELETE on the condition that there is nothing does nothing.
        let (condition, need) = match condition {
            Condition::Absent => (Condition::None, Need::Anything),
            _ => (condition, need),
        };
        let client = format!("client {} delete if {condition:?}", self.number);
        let deletion = Deletion { key: key.clone(), version: None, condition: condition.clone() };
        let (start, answer) = self
            .ask(move |store| async move { store.delete(BUCKETS[bucket], &deletion).await })
            .await;
        if bucket == KEEPS {
            let name = answer.done().and_then(|deleted| deleted.version);
            self.note_version(&key, start, None, name);
        }
        self.note_write(start, answer, (bucket, key), condition, need, None, client);
    }

    #[expect(clippy::too_many_arguments, reason = "everything that is known of one write")]
    fn note_write<T>(
        &mut self,
        start: Moment,
        answer: Answer<T>,
        (bucket, key): (usize, Bytes),
        condition: Condition,
        need: Need,
        value: Value,
        client: String,
    ) {
        let end = self.runtime.now();
        let name = Name::Key(bucket, key);
        let shared = self.shared.clone();
        let failed = match (&condition, need) {
            (Condition::Absent, _) => Some(Need::Present),
            (Condition::Matches(_), Need::Is(Some(value))) => Some(Need::Differs(value)),
            _ => None,
        };
        match answer {
            Answer::Lost | Answer::Done(Err(Error::Unknown { .. })) => {
                shared.unknown.set(shared.unknown.get() + 1);
                shared.with(&name, |r| r.write(start, None, need, value, client));
            }
            Answer::Done(Ok(_)) => {
                shared.with(&name, |r| r.write(start, Some(end), need, value, client));
                self.note_bucket(bucket, start, Need::Present, "a write succeeded");
            }
            Answer::Done(Err(Error::PreconditionFailed)) => {
                let seen = failed.expect("only these conditions fail so");
                shared.with(&name, |r| r.read(start, end, seen, format!("{client}: condition")));
            }
            Answer::Done(Err(Error::NoSuchKey)) => {
                shared.with(&name, |r| r.read(start, end, Need::Is(None), client));
            }
            // It did not happen, and never will. (A bucket that is closing refuses new objects
            // while it still may open again, so a refused write says nothing of the bucket.)
            Answer::Done(Err(_)) => {}
        }
    }

    fn note_bucket(&mut self, bucket: usize, start: Moment, need: Need, what: &str) {
        let end = self.runtime.now();
        let client = format!("client {}: {what}", self.number);
        if bucket == 1 {
            self.shared.with(&Name::Bucket(1), |r| r.read(start, end, need, client));
        }
    }

    async fn get(&mut self, bucket: usize, key: Bytes, with_body: bool) {
        let name = key.clone();
        let draw = (self.prng.next_u64(), self.prng.next_u64(), self.prng.below(3));
        let (start, answer) = self
            .ask(move |store| async move {
                if !with_body {
                    let info = store.head(BUCKETS[bucket], &name, None).await?;
                    return Ok((info.etag.to_string(), info.size, None));
                }
                let mut asked = None;
                let select = |info: &basalt_server::object::ObjectInfo| {
                    asked = Some(span(info.size, draw));
                    asked
                };
                let (info, body) = store.get(BUCKETS[bucket], &name, None, select).await?;
                let mut body = body.expect("a span was asked for");
                let mut bytes = BytesMut::new();
                let mut whole = Ok(());
                loop {
                    match body.next().await {
                        Ok(Some(piece)) => bytes.extend_from_slice(&piece),
                        Ok(None) => break,
                        Err(error) => {
                            whole = Err(error);
                            break;
                        }
                    }
                }
                let span = asked.expect("asked above");
                Ok((info.etag.to_string(), info.size, Some((span, bytes.freeze(), whole))))
            })
            .await;
        let end = self.runtime.now();
        let client = format!("client {} get", self.number);
        let register = Name::Key(bucket, key);
        match answer {
            Answer::Done(Ok((etag, size, body))) => {
                let value = self.shared.value(&etag, None);
                self.check_body(value, size, body);
                let need = Need::Is(Some(value));
                self.shared.with(&register, |r| r.read(start, end, need, client));
                self.note_bucket(bucket, start, Need::Present, "a read succeeded");
            }
            Answer::Done(Err(
                error @ (Error::NoSuchKey | Error::NoSuchBucket | Error::Deleted { .. }),
            )) => {
                let need = Need::Is(None);
                self.shared.with(&register, |r| r.read(start, end, need, client));
                if error == Error::NoSuchBucket {
                    self.note_bucket(bucket, start, Need::Is(None), "a read found no bucket");
                }
            }
            Answer::Done(Err(_)) | Answer::Lost => {}
        }
    }

    pub(super) fn check_body(
        &self,
        value: u16,
        size: u64,
        read: Option<(Span, Bytes, Result<(), Error>)>,
    ) {
        let known = self.shared.history.borrow().bodies[usize::from(value)].clone();
        let Some(parts) = known else { return };
        let expected_size: u64 = parts.iter().map(|(_, size)| size).sum();
        assert_eq!(size, expected_size, "the size of value {value}");
        let Some((span, bytes, whole)) = read else { return };
        let parts: Vec<Bytes> =
            parts.into_iter().map(|(number, size)| body(number, size)).collect();
        let expected = parts.concat();
        let expected = &expected[span.start as usize..span.end as usize];
        assert!(bytes.len() <= expected.len(), "more bytes than asked for");
        assert!(bytes[..] == expected[..bytes.len()], "wrong bytes of value {value} in {span:?}");
        assert!(whole.is_err() || bytes.len() == expected.len(), "a body ended early");
    }

    async fn list(&mut self, bucket: usize) {
        let limit = 1 + self.prng.below(5) as u32;
        let grouped = self.prng.below(3) == 0;
        let prefix = [&b""[..], b"a", b"a/", b"c"][self.prng.index(4)];
        let (start, answer) = self
            .ask(move |store| async move {
                let mut after: Option<ListFrom> = None;
                let mut listed = Vec::new();
                loop {
                    let list = List {
                        bucket: BUCKETS[bucket].to_owned(),
                        prefix: Bytes::from_static(prefix),
                        delimiter: grouped.then(|| Bytes::from_static(b"/")),
                        after: after.take(),
                        limit,
                    };
                    let listing = store.list(list).await?;
                    listed.extend(listing.entries);
                    match listing.next {
                        Some(next) => after = Some(next),
                        None => return Ok(listed),
                    }
                }
            })
            .await;
        let Answer::Done(Ok(listed)) = answer else { return };
        self.note_list(bucket, start, prefix, grouped, &listed);
    }

    fn note_list(
        &mut self,
        bucket: usize,
        start: Moment,
        prefix: &[u8],
        grouped: bool,
        listed: &[Listed],
    ) {
        let end = self.runtime.now();
        let names: Vec<&Bytes> = listed
            .iter()
            .map(|entry| match entry {
                Listed::Object(object) => &object.key,
                Listed::CommonPrefix(prefix) => prefix,
            })
            .collect();
        assert!(names.windows(2).all(|two| two[0] < two[1]), "a listing out of order: {names:?}");
        for key in self.shared.keys() {
            if !key.starts_with(prefix) {
                continue;
            }
            let group = grouped
                .then(|| key[prefix.len()..].iter().position(|&byte| byte == b'/'))
                .flatten()
                .map(|at| key.slice(..prefix.len() + at + 1));
            let found = listed.iter().find_map(|entry| match entry {
                Listed::Object(object) if group.is_none() && object.key == key => {
                    Some(Some(object.etag.to_string()))
                }
                Listed::CommonPrefix(prefix) if group.as_ref() == Some(prefix) => Some(None),
                _ => None,
            });
            let need = match found {
                None => Need::Is(None),
                Some(Some(etag)) => Need::Is(Some(self.shared.value(&etag, None))),
                // Some key of the group is there; which, it does not say.
                Some(None) => continue,
            };
            let client =
                format!("client {} list {:?}", self.number, prefix.escape_ascii().to_string());
            self.shared.with(&Name::Key(bucket, key), |r| r.read(start, end, need, client));
        }
    }

    async fn change_bucket(&mut self) {
        let name = Name::Bucket(1);
        if self.prng.coin() {
            let client = format!("client {} creates the bucket", self.number);
            let (start, answer) =
                self.ask(|store| async move { store.create_bucket(BUCKETS[1]).await }).await;
            let end = self.runtime.now();
            let there = Some(1);
            self.shared.with(&name, |r| match answer {
                Answer::Done(Ok(_)) => r.write(start, Some(end), Need::Is(None), there, client),
                Answer::Done(Err(Error::BucketExists)) => r.read(start, end, Need::Present, client),
                // Somebody is closing it, or had it closed by this request.
                Answer::Done(Err(Error::Conflict)) => {}
                _ => r.write(start, None, Need::Is(None), there, client),
            });
            return;
        }
        let client = format!("client {} deletes the bucket", self.number);
        let (start, answer) =
            self.ask(|store| async move { store.delete_bucket(BUCKETS[1]).await }).await;
        let end = self.runtime.now();
        let emptied = matches!(answer, Answer::Done(Ok(())));
        self.shared.with(&name, |r| match answer {
            Answer::Done(Ok(())) => r.write(start, Some(end), Need::Present, None, client),
            Answer::Done(Err(Error::NoSuchBucket)) => r.read(start, end, Need::Is(None), client),
            Answer::Done(Err(Error::BucketNotEmpty)) => r.read(start, end, Need::Present, client),
            _ => r.write(start, None, Need::Present, None, client),
        });
        if emptied {
            for key in self.shared.keys() {
                let client = format!("client {} deleted the bucket", self.number);
                let name = Name::Key(1, key);
                self.shared.with(&name, |r| r.read(start, end, Need::Is(None), client));
            }
        }
    }

    /// An upload of a part, two, or so many that a manifest lists them, completed (sometimes twice) or
    /// aborted.
    pub(super) async fn multipart(&mut self, bucket: usize, key: Bytes) {
        let name = key.clone();
        let class = self.class();
        let (_, answer) = self
            .ask(move |store| async move {
                let new = NewUpload { class, ..NewUpload::default() };
                store.create_upload(BUCKETS[bucket], &name, new).await
            })
            .await;
        let Answer::Done(Ok(id)) = answer else { return };
        let mut parts = Vec::new();
        let mut digests = Md5::new();
        let mut bodies = Vec::new();
        let sizes = match self.prng.below(8) {
            0 if self.shared.options.bytes_max >= 1 << 20 => vec![5 << 20, self.size()],
            1 | 2 => (0..PAYLOADS_INLINE_MAX + 1).map(|_| self.size().clamp(1, 20_000)).collect(),
            _ => vec![self.size()],
        };
        for (index, size) in sizes.into_iter().enumerate() {
            let number = index as u32 + 1;
            let (body_number, bytes) = self.draw_body(size);
            let digest = md5(&bytes);
            let mut sent = self.sent(bytes);
            let (part_key, part_id) = (key.clone(), id.clone());
            let (_, answer) = self
                .ask(move |store| async move {
                    let bucket = BUCKETS[bucket];
                    store.put_part(bucket, &part_key, &part_id, number, size, &mut sent).await
                })
                .await;
            let Answer::Done(Ok(_)) = answer else {
                return self.abort(bucket, key, id).await;
            };
            digests.update(digest);
            bodies.push((body_number, size));
            let etag = Etag { md5: digest, parts: 0 }.to_string();
            parts.push(PartName { number, etag, checksums: Vec::new() });
        }
        if self.prng.below(4) == 0 {
            return self.abort(bucket, key, id).await;
        }
        let etag = Etag { md5: digests.finalize().into(), parts: parts.len() as u32 }.to_string();
        let value = self.shared.value(&etag, Some(bodies));
        self.complete(bucket, key, id, parts, value).await;
    }

    async fn abort(&mut self, bucket: usize, key: Bytes, id: String) {
        self.ask(move |store| async move { store.abort_upload(BUCKETS[bucket], &key, &id).await })
            .await;
    }

    async fn complete(
        &mut self,
        bucket: usize,
        key: Bytes,
        id: String,
        parts: Vec<PartName>,
        value: u16,
    ) {
        let client = format!("client {} completes an upload", self.number);
        let mut began = None;
        for _ in 0..4 {
            let (name, id, parts) = (key.clone(), id.clone(), parts.clone());
            let (start, answer) = self
                .ask_write(move |store| async move {
                    let bucket = BUCKETS[bucket];
                    let claims = Claims::default();
                    let condition = Condition::None;
                    store.complete_upload(bucket, &name, &id, &parts, condition, &claims).await
                })
                .await;
            let began = *began.get_or_insert(start);
            let register = Name::Key(bucket, key.clone());
            let end = self.runtime.now();
            if bucket == KEEPS {
                let name = answer.done().and_then(|written| written.name);
                self.note_version(&key, began, Some(value), name);
            }
            match answer {
                Answer::Done(Ok(_)) => {
                    return self.shared.with(&register, |r| {
                        r.write(began, Some(end), Need::Anything, Some(value), client);
                    });
                }
                Answer::Done(Err(_)) | Answer::Lost if self.prng.below(5) > 0 => {
                    self.runtime.sleep(Duration::from_millis(500)).await;
                }
                Answer::Done(Err(_)) | Answer::Lost => break,
            }
        }
        let register = Name::Key(bucket, key);
        let began = began.expect("tried once at least");
        self.shared.with(&register, |r| {
            r.write(began, None, Need::Anything, Some(value), client);
        });
    }

    /// Writes to every key of the bucket that stays, when so many drives answer that it has to work.
    pub async fn write_all(mut self) {
        for key in self.shared.keys() {
            let size = self.size();
            let (number, bytes) = self.draw_body(size);
            let etag = Etag { md5: md5(&bytes), parts: 0 }.to_string();
            let value = self.shared.value(&etag, Some(vec![(number, size)]));
            let mut sent =
                Sent { bytes, piece: 65_536, runtime: self.runtime.clone(), breaks: false };
            let put = Put {
                bucket: BUCKETS[0].to_owned(),
                key: key.clone(),
                size,
                class: StorageClass::Standard,
                metadata: Vec::new(),
                tags: Vec::new(),
                condition: Condition::None,
            };
            let (start, answer) =
                self.ask_write(move |store| async move { store.put(put, &mut sent).await }).await;
            if let Answer::Done(Err(error)) = &answer {
                panic!("with fewer drives gone than there is parity, a write fails: {error}");
            }
            let client = format!("client {} has to be able to write", self.number);
            let register = (0, key);
            let none = Condition::None;
            self.note_write(start, answer, register, none, Need::Anything, Some(value), client);
        }
    }

    /// Reads everything once more, after the storm: it has to work.
    pub async fn read_all(mut self) {
        for (bucket, bucket_name) in BUCKETS.into_iter().enumerate() {
            for key in self.shared.keys() {
                let name = key.clone();
                let (_, answer) = self
                    .ask(move |store| async move {
                        match store.head(bucket_name, &name, None).await {
                            // What was lost was never acknowledged: the inspector knows.
                            Ok(_)
                            | Err(
                                Error::NoSuchKey
                                | Error::NoSuchBucket
                                | Error::Deleted { .. }
                                | Error::Lost { .. },
                            ) => {}
                            Err(error) => panic!("after the storm, {name:?} answers {error}"),
                        }
                        let select = |info: &basalt_server::object::ObjectInfo| {
                            Some(Span { start: 0, end: info.size })
                        };
                        let found = store.get(bucket_name, &name, None, select).await;
                        let Ok((_, Some(mut body))) = found else { return Ok(()) };
                        while body.next().await.expect("every byte is readable").is_some() {}
                        Ok(())
                    })
                    .await;
                assert!(matches!(answer, Answer::Done(Ok(()))));
                self.get(bucket, key, true).await;
            }
            self.list(bucket).await;
        }
        self.check_versions().await;
    }
}

/// A span of an object: all of it, its end, or anything.
fn span(size: u64, (one, other, kind): (u64, u64, u64)) -> Span {
    if kind == 0 || size == 0 {
        return Span { start: 0, end: size };
    }
    let (a, b) = (one % (size + 1), other % (size + 1));
    Span { start: a.min(b), end: a.max(b) }
}

//! The kinds of work that are measured.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::history::Row;
use super::load::{self, Measured};
use super::{profile, row};
use crate::proc::cpu_seconds;
use crate::random;
use crate::s3::sha256_hex;
use crate::s3::{Answer, Client, Credentials, Payload, Request, text_of};

pub(crate) const CONNECTIONS: usize = 16;
const LISTERS: usize = 4;
const LARGE_BYTES: usize = 10 << 20;
const SMALL_BYTES: usize = 4 << 10;
const STREAM_BYTES: usize = 1 << 30;
/// Large objects are written over and over under so many names, which bounds the space needed.
const LARGE_NAMES: u64 = 48;
const SMALL_NAMES: u64 = 2_000;
const LISTED_BYTES: usize = 4;
const BUCKET: &str = "bench";
const LISTED_BUCKET: &str = "bench-listed";
const FILL_LIMIT: Duration = Duration::from_secs(3600);
const TIMEOUT: Duration = Duration::from_secs(60);
const GIB: f64 = (1 << 30) as f64;
const MIB: f64 = (1 << 20) as f64;

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum Work {
    /// 10 MiB objects, the signature covers the head only
    PutLarge,
    /// 10 MiB objects, the signature covers the body
    PutLargeSigned,
    /// 1 GiB objects on one connection, the signature covers the head only
    PutStream,
    GetLarge,
    /// 4 KiB objects, new names
    PutSmall,
    GetSmall,
    Head,
    List,
}

/// How long and how much.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) window: Duration,
    pub(crate) listed_keys: u64,
    pub(crate) profile: bool,
    /// Connections, but for listing and the one stream.
    pub(crate) connections: usize,
}

/// A server, and what has been put into it for reading.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) credentials: Credentials,
    /// Its processes, where they are known: one for each node.
    pub(crate) pids: Vec<u32>,
    large: Body,
    small: Body,
    prepared: Vec<Work>,
}

#[derive(Debug)]
struct Body {
    bytes: Vec<u8>,
    hash: String,
}

impl Body {
    fn new(seed: u64, length: usize) -> Self {
        let bytes = random::bytes(seed, length);
        let hash = sha256_hex(&bytes);
        Self { bytes, hash }
    }
}

impl Target {
    pub(crate) fn new(
        address: SocketAddr,
        credentials: Credentials,
        pids: Vec<u32>,
    ) -> Result<Self> {
        let (large, small) = (Body::new(1, LARGE_BYTES), Body::new(2, SMALL_BYTES));
        let target = Self { address, credentials, pids, large, small, prepared: Vec::new() };
        for bucket in [BUCKET, LISTED_BUCKET] {
            target.client().make_bucket(bucket)?;
        }
        Ok(target)
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.address, &self.credentials, TIMEOUT)
    }

    /// CPU seconds of all its processes so far; absent where they are not known.
    pub(crate) fn cpu_seconds(&self) -> Result<Option<f64>> {
        let all: Result<Vec<f64>> = self.pids.iter().map(|pid| cpu_seconds(*pid)).collect();
        Ok(Some(all?.iter().sum()).filter(|_| !self.pids.is_empty()))
    }
}

impl Work {
    pub(crate) const ALL: [Self; 8] = [
        Self::PutLarge,
        Self::PutLargeSigned,
        Self::PutStream,
        Self::GetLarge,
        Self::PutSmall,
        Self::GetSmall,
        Self::Head,
        Self::List,
    ];

    const MIXED: [Self; 7] = [
        Self::PutLarge,
        Self::PutLargeSigned,
        Self::GetLarge,
        Self::PutSmall,
        Self::GetSmall,
        Self::Head,
        Self::List,
    ];

    pub(crate) fn run(self, target: &mut Target, plan: &Plan, round: u32) -> Result<Vec<Row>> {
        if !target.prepared.contains(&self) {
            self.prepare(target, plan).with_context(|| format!("preparing {self:?}"))?;
            target.prepared.push(self);
        }
        let recording =
            profile::Recording::start(plan.profile, target.pids.first().copied(), plan.window)?;
        let measured = self.measure(target, plan, round).with_context(|| format!("{self:?}"))?;
        if let Some(recording) = recording {
            recording.finish(self)?;
        }
        self.tell(&measured);
        Ok(self.rows(&measured))
    }

    fn measure(self, target: &Target, plan: &Plan, round: u32) -> Result<Measured> {
        let window = plan.window;
        let connections = match self {
            Self::List => LISTERS,
            Self::PutStream => 1,
            _ => plan.connections,
        };
        let stream = match self {
            Self::PutStream => target.large.bytes.repeat(STREAM_BYTES.div_ceil(LARGE_BYTES)),
            _ => Vec::new(),
        };
        load::run(target, connections, window, |client, connection, count| {
            let step = connection as u64 + CONNECTIONS as u64 * count;
            match self {
                Self::PutSmall => put_small(client, target, &format!("new/{round}/{step:08}"))?,
                Self::PutStream => {
                    put(client, "stream", Payload::Unsigned(&stream[..STREAM_BYTES]))?;
                }
                Self::List => return list_bucket(client, plan.listed_keys).map(Some),
                other => other.once(client, target, step)?,
            }
            Ok(Some(1))
        })
    }

    /// One request to one of the names that are used over and over.
    fn once(self, client: &mut Client, target: &Target, step: u64) -> Result<()> {
        let (large, small) = (step % LARGE_NAMES, step % SMALL_NAMES);
        match self {
            Self::PutLarge => {
                put(client, &format!("large/{large}"), Payload::Unsigned(&target.large.bytes))
            }
            Self::PutLargeSigned => {
                let body = Payload::Hashed(&target.large.bytes, &target.large.hash);
                put(client, &format!("large/{large}"), body)
            }
            Self::PutSmall => put_small(client, target, &format!("small/{small}")),
            Self::GetLarge => get(client, &format!("read-large/{large}"), LARGE_BYTES),
            Self::GetSmall => get(client, &format!("small/{small}"), SMALL_BYTES),
            Self::Head => head(client, &format!("small/{small}")),
            Self::List => client.list_page(BUCKET, None).map(drop),
            Self::PutStream => unreachable!("it uses one connection for itself"),
        }
    }

    /// All kinds of work by turns, on names that are used over and over.
    pub(crate) fn mixed(target: &Target, window: Duration) -> Result<Measured> {
        load::run(target, CONNECTIONS, window, |client, connection, count| {
            let step = connection as u64 + CONNECTIONS as u64 * count;
            let kind = Self::MIXED[step as usize % Self::MIXED.len()];
            kind.once(client, target, step / Self::MIXED.len() as u64)?;
            Ok(Some(1))
        })
    }

    /// Writes what the mixed work reads.
    pub(crate) fn prepare_mixed(target: &Target) -> Result<()> {
        fill(target, BUCKET, "read-large/", LARGE_NAMES, &target.large.bytes)?;
        fill(target, BUCKET, "small/", SMALL_NAMES, &target.small.bytes)
    }

    fn prepare(self, target: &Target, plan: &Plan) -> Result<()> {
        match self {
            Self::PutLarge | Self::PutLargeSigned | Self::PutStream | Self::PutSmall => Ok(()),
            Self::GetLarge => fill(target, BUCKET, "read-large/", LARGE_NAMES, &target.large.bytes),
            Self::GetSmall | Self::Head => {
                fill(target, BUCKET, "small/", SMALL_NAMES, &target.small.bytes)
            }
            Self::List => {
                println!("  writing {} keys to list", plan.listed_keys);
                let body = random::bytes(3, LISTED_BYTES);
                fill(target, LISTED_BUCKET, "some/folder/", plan.listed_keys, &body)
            }
        }
    }

    /// Of one object, where it is a large one.
    fn large_bytes(self) -> Option<f64> {
        match self {
            Self::PutLarge | Self::PutLargeSigned | Self::GetLarge => Some(LARGE_BYTES as f64),
            Self::PutStream => Some(STREAM_BYTES as f64),
            _ => None,
        }
    }

    /// What one operation's CPU is given in: seconds per GiB, or microseconds each.
    fn cpu_per_unit(self, measured: &Measured, cpu: f64) -> f64 {
        match self.large_bytes() {
            Some(bytes) => cpu / (measured.operations as f64 * bytes / GIB),
            None => cpu * 1e6 / measured.operations as f64,
        }
    }

    fn tell(self, measured: &Measured) {
        let client = self.cpu_per_unit(measured, measured.client_cpu);
        let server = measured.server_cpu.map_or(f64::NAN, |cpu| self.cpu_per_unit(measured, cpu));
        let unit = if self.large_bytes().is_some() { "s/GiB" } else { "us each" };
        println!(
            "  {self:?}: {:.1}/s, CPU {unit}: server {server:.2}, client {client:.2}",
            measured.per_second()
        );
    }

    fn rows(self, measured: &Measured) -> Vec<Row> {
        let names = self.names();
        let (rate, unit) = match self.large_bytes() {
            Some(bytes) => (row(names.rate, "MiB/s", measured.per_second() * bytes / MIB), "s/GiB"),
            None => (row(names.rate, "1/s", measured.per_second()), "us"),
        };
        let mut rows = vec![rate];
        if let Some(cpu) = measured.server_cpu {
            rows.push(row(names.cpu, unit, self.cpu_per_unit(measured, cpu)));
        }
        rows.push(row(names.p50, "ms", measured.percentile_us(0.50) / 1e3));
        rows.push(row(names.p99, "ms", measured.percentile_us(0.99) / 1e3));
        rows
    }

    fn names(self) -> Names {
        macro_rules! names {
            ($work:literal) => {
                Names {
                    rate: concat!($work, " rate"),
                    cpu: concat!($work, " CPU"),
                    p50: concat!($work, " p50"),
                    p99: concat!($work, " p99"),
                }
            };
        }
        match self {
            Self::PutLarge => names!("PUT 10 MiB unsigned"),
            Self::PutLargeSigned => names!("PUT 10 MiB signed"),
            Self::PutStream => names!("PUT 1 GiB stream"),
            Self::GetLarge => names!("GET 10 MiB"),
            Self::PutSmall => names!("PUT 4 KiB"),
            Self::GetSmall => names!("GET 4 KiB"),
            Self::Head => names!("HEAD"),
            Self::List => names!("LIST keys"),
        }
    }
}

/// Metric names as they stand in the history: they never change their meaning.
struct Names {
    rate: &'static str,
    cpu: &'static str,
    p50: &'static str,
    p99: &'static str,
}

fn put(client: &mut Client, key: &str, payload: Payload<'_>) -> Result<()> {
    let request = Request { payload, ..Request::new("PUT", BUCKET, key) };
    ensure_ok(&client.call(&request).map_err(std::io::Error::from)?, "PUT")
}

fn put_small(client: &mut Client, target: &Target, key: &str) -> Result<()> {
    put(client, key, Payload::Hashed(&target.small.bytes, &target.small.hash))
}

/// Reads the body and throws it away; what it holds is the business of other tests.
fn get(client: &mut Client, key: &str, length: usize) -> Result<()> {
    let request = Request::new("GET", BUCKET, key);
    let answer = client.stream(&request, &mut |_| {}).map_err(std::io::Error::from)?;
    ensure_ok(&answer, "GET")?;
    ensure!(answer.body_bytes == length as u64, "GET: {} of {length} bytes", answer.body_bytes);
    Ok(())
}

fn head(client: &mut Client, key: &str) -> Result<()> {
    let request = Request::new("HEAD", BUCKET, key);
    ensure_ok(&client.call(&request).map_err(std::io::Error::from)?, "HEAD")
}

fn ensure_ok(answer: &Answer, what: &str) -> Result<()> {
    ensure!(
        answer.status == 200,
        "{what}: {} {}",
        answer.status,
        String::from_utf8_lossy(&answer.body)
    );
    Ok(())
}

/// Lists the whole bucket, page by page, and returns the number of keys.
fn list_bucket(client: &mut Client, expected: u64) -> Result<u64> {
    let (mut listed, mut token) = (0, None);
    loop {
        let page = client.list_page(LISTED_BUCKET, token.as_deref())?;
        listed += page.windows(5).filter(|window| window == b"<Key>").count() as u64;
        token = text_of(&page, "NextContinuationToken").pop();
        if token.is_none() {
            ensure!(listed == expected, "a listing of {listed} of {expected} keys");
            return Ok(listed);
        }
    }
}

/// Writes `count` objects and reads one back.
fn fill(target: &Target, bucket: &str, prefix: &str, count: u64, body: &[u8]) -> Result<()> {
    let next = AtomicU64::new(0);
    let name = |index: u64| {
        if bucket == LISTED_BUCKET {
            format!("{prefix}{index:09}")
        } else {
            format!("{prefix}{index}")
        }
    };
    let filled = load::run(target, CONNECTIONS, FILL_LIMIT, |client, _, _| {
        let index = next.fetch_add(1, Ordering::Relaxed);
        if index >= count {
            return Ok(None);
        }
        let key = name(index);
        let request = Request::new("PUT", bucket, &key).body(body);
        ensure_ok(&client.call(&request).map_err(std::io::Error::from)?, "PUT")?;
        Ok(Some(1))
    })?;
    ensure!(filled.operations == count, "wrote {} of {count} objects in time", filled.operations);
    let key = name(count / 2);
    let answer =
        target.client().call(&Request::new("GET", bucket, &key)).map_err(std::io::Error::from)?;
    ensure!(answer.body == body, "{key} came back with other bytes");
    Ok(())
}

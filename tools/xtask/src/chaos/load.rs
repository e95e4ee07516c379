//! Writers and readers: each has a connection of its own; each key has one writer, any reader.

use std::collections::BTreeMap;
use std::io;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::content::choose_length;
use super::register::{Effect, Outcome, Reading, Register, Seen, count};
use crate::random::Random;
use crate::s3::{Answer, Client, Request, Unanswered, text_of};
use crate::server::Launch;

pub(crate) const WRITERS: usize = 16;
pub(crate) const READERS: usize = 16;
/// A request without an answer for so long is given up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
const PART_BYTES: usize = 5 << 20;
/// How many complaints are printed; all are counted.
const SHOWN: usize = 20;

/// What load and checks share: the register, the way to the server, what went amiss.
pub(crate) struct Field<'a> {
    /// The ways to the store: any of its nodes.
    pub(crate) ways: &'a [Launch],
    pub(crate) bucket: &'a str,
    pub(crate) register: &'a Register,
    pub(crate) complaints: &'a Complaints,
}

/// A client, and through which node it asks.
#[derive(Debug)]
pub(crate) struct Via {
    pub(crate) way: usize,
    pub(crate) client: Client,
}

#[derive(Debug, Default)]
pub(crate) struct Complaints(Mutex<Vec<String>>);

impl Complaints {
    pub(crate) fn add(&self, complaint: String) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() < SHOWN {
            println!("  ! {complaint}");
        }
        all.push(complaint);
    }
}

/// Requests that failed while the load ran; what a phase allows of them is its own business.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    pub(crate) writes: AtomicU64,
    pub(crate) written: AtomicU64,
    pub(crate) reads: AtomicU64,
    pub(crate) read: AtomicU64,
    /// Of the writes that failed, when the last one began, and what it was answered.
    pub(crate) last_write: Mutex<Option<(Instant, String)>>,
    pub(crate) last_read: Mutex<Option<String>>,
    /// Of the chains.
    pub(crate) changes: AtomicU64,
    /// By the way that requests took.
    progress: Mutex<BTreeMap<usize, Progress>>,
}

/// When a request through a node succeeded last, and the longest time without.
#[derive(Clone, Copy, Debug)]
struct Progress {
    last: Instant,
    gap: Duration,
}

impl Failures {
    fn succeeded(&self, way: usize) {
        let now = Instant::now();
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let way = progress.entry(way).or_insert(Progress { last: now, gap: Duration::ZERO });
        way.gap = way.gap.max(now - way.last);
        way.last = now;
    }

    /// The longest time up to `end` without a success through one of the nodes that `counts`.
    pub(crate) fn longest_gap(&self, end: Instant, counts: impl Fn(usize) -> bool) -> Duration {
        let progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let counted = progress.iter().filter(|(way, _)| counts(**way));
        let gaps = counted.map(|(_, way)| way.gap.max(end.saturating_duration_since(way.last)));
        gaps.max().unwrap_or_default()
    }

    pub(crate) fn change_failed(&self) {
        count(&self.changes);
    }

    fn write_failed(&self, begun: Instant, why: String) {
        count(&self.writes);
        let mut last = self.last_write.lock().unwrap_or_else(PoisonError::into_inner);
        if last.as_ref().is_none_or(|(latest, _)| *latest < begun) {
            *last = Some((begun, why));
        }
    }

    fn read_failed(&self, why: String) {
        count(&self.reads);
        *self.last_read.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
    }

    pub(crate) fn ensure_no_read_failed(&self) -> Result<()> {
        let last = self.last_read.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = self.reads.load(Ordering::Relaxed);
        let all = self.read.load(Ordering::Relaxed) + failed;
        ensure!(
            failed == 0,
            "{failed} of {all} reads failed, the last: {}",
            last.as_deref().unwrap_or("?")
        );
        ensure!(all > 0, "nothing was read");
        Ok(())
    }
}

/// Runs a load while `body` runs.
pub(crate) fn under_load<T>(
    field: &Field<'_>,
    writers: usize,
    readers: usize,
    seed: u64,
    failures: &Failures,
    body: impl FnOnce() -> T,
) -> T {
    let stop = AtomicBool::new(false);
    // Each thread keeps to one node; which one turns from load to load.
    let turn = Random::new(seed, 2000).index(field.ways.len());
    thread::scope(|scope| {
        for index in 0..writers {
            let stop = &stop;
            scope.spawn(move || {
                let random = Random::new(seed, index as u64);
                let mut client = field.client_through(turn + index);
                field.write_until(stop, &mut client, (index, writers), random, failures);
            });
        }
        for index in 0..readers {
            let stop = &stop;
            let random = Random::new(seed, 1000 + index as u64);
            scope.spawn(move || {
                let mut client = field.client_through(turn + index);
                field.read_until(stop, &mut client, random, failures);
            });
        }
        let stop_at_end = StopAtEnd(&stop);
        let out = body();
        drop(stop_at_end);
        out
    })
}

/// The load ends also when the body panics; the scope would wait for it for ever otherwise.
pub(crate) struct StopAtEnd<'a>(pub(crate) &'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Field<'_> {
    pub(crate) fn client(&self) -> Via {
        self.client_through(0)
    }

    /// Numbers beyond the nodes begin anew.
    pub(crate) fn client_through(&self, way: usize) -> Via {
        let way = way % self.ways.len();
        Via { way, client: self.ways[way].client(PATIENCE) }
    }

    /// The writer `(index, writers)` owns every `writers`-th key.
    fn write_until(
        &self,
        stop: &AtomicBool,
        via: &mut Via,
        owner: (usize, usize),
        mut random: Random,
        failures: &Failures,
    ) {
        let (index, writers) = owner;
        let own = (self.register.len() - index).div_ceil(writers);
        while !stop.load(Ordering::Relaxed) {
            let key = index + writers * random.index(own);
            let begun = Instant::now();
            match self.write(via, key, &mut random) {
                Ok(()) => {
                    count(&failures.written);
                    failures.succeeded(via.way);
                }
                Err(why) => {
                    failures.write_failed(begun, why);
                    pause();
                }
            }
        }
    }

    /// One PUT, with or without a condition, multipart upload or DELETE of a key; the error says why it
    /// is not acknowledged. A condition that does not hold is an answer like any other.
    pub(crate) fn write(
        &self,
        Via { way, client }: &mut Via,
        key: usize,
        random: &mut Random,
    ) -> Result<(), String> {
        let name = Register::name(key);
        let parts = if random.one_in(100) { 2 } else { 0 };
        let effect = if random.one_in(8) {
            Effect::Absent
        } else if parts > 0 {
            Effect::Bytes(PART_BYTES as u64 + random.below(100_000))
        } else {
            Effect::Bytes(choose_length(random))
        };
        let if_absent: &[_] = if random.one_in(10) { &[("if-none-match", "*")] } else { &[] };
        let version = self.register.begin_write(key, effect, *way);
        let answer = match effect {
            Effect::Absent => client.call(&Request::new("DELETE", self.bucket, &name)),
            Effect::Bytes(length) => {
                let body = self.register.bytes(version, length);
                if parts > 0 {
                    let (first, second) = body.split_at(PART_BYTES);
                    client.multipart(self.bucket, &name, &[first, second])
                } else {
                    let put = Request::new("PUT", self.bucket, &name).body(&body);
                    client.call(&Request { headers: if_absent, ..put })
                }
            }
        };
        let outcome = outcome_of(&answer);
        self.register.end_write(version, outcome);
        let was_held_back = matches!(&answer, Ok(Answer { status: 412, .. }));
        if outcome == Outcome::Acknowledged || was_held_back { Ok(()) } else { Err(shown(&answer)) }
    }

    fn read_until(
        &self,
        stop: &AtomicBool,
        Via { way, client }: &mut Via,
        mut random: Random,
        failures: &Failures,
    ) {
        while !stop.load(Ordering::Relaxed) {
            let key = random.index(self.register.len());
            let learned = match random.below(64) {
                0 => self.list(client).map_err(|error| format!("LIST: {error:#}")),
                1..=8 => self.head(client, key),
                _ => self.read(client, key),
            };
            match learned {
                Ok(()) => {
                    count(&failures.read);
                    failures.succeeded(*way);
                }
                Err(why) => {
                    failures.read_failed(why);
                    pause();
                }
            }
        }
    }

    /// One GET, judged by the register; the error says why nothing was learned.
    pub(crate) fn read(&self, client: &mut Client, key: usize) -> Result<(), String> {
        let name = Register::name(key);
        let reading = self.register.begin_read(key);
        let answer = client.call(&Request::new("GET", self.bucket, &name));
        match &answer {
            Ok(Answer { status: 200, body, .. }) => self.judge(reading, Seen::Bytes(body)),
            Ok(Answer { status: 404, .. }) => self.judge(reading, Seen::Absent),
            Ok(_) | Err(_) => {
                self.register.abandon_read(reading);
                return Err(format!("{name}: {}", shown(&answer)));
            }
        }
        Ok(())
    }

    /// One HEAD, judged likewise.
    fn head(&self, client: &mut Client, key: usize) -> Result<(), String> {
        let name = Register::name(key);
        let reading = self.register.begin_read(key);
        let answer = client.call(&Request::new("HEAD", self.bucket, &name));
        match &answer {
            Ok(Answer { status: 200, length: Some(length), .. }) => {
                self.judge(reading, Seen::Listed(*length));
            }
            Ok(Answer { status: 404, .. }) => self.judge(reading, Seen::Absent),
            Ok(_) | Err(_) => {
                self.register.abandon_read(reading);
                return Err(format!("HEAD {name}: {}", shown(&answer)));
            }
        }
        Ok(())
    }

    fn judge(&self, reading: Reading, seen: Seen<'_>) {
        if let Err(complaint) = self.register.end_read(reading, seen) {
            self.complaints.add(complaint);
        }
    }

    /// Reads every key and the listing through each node; every read has to be answered.
    pub(crate) fn verify_all(&self) -> Result<()> {
        for way in 0..self.ways.len() {
            self.verify_through(way).with_context(|| format!("through node {}", way + 1))?;
        }
        Ok(())
    }

    /// As [`Field::verify_all`], through one of the nodes.
    pub(crate) fn verify_through(&self, way: usize) -> Result<()> {
        let next = AtomicU64::new(0);
        let failed = Mutex::new(Vec::new());
        thread::scope(|scope| {
            for _ in 0..READERS {
                scope.spawn(|| {
                    let Via { mut client, .. } = self.client_through(way);
                    loop {
                        let key = next.fetch_add(1, Ordering::Relaxed) as usize;
                        if key >= self.register.len() {
                            return;
                        }
                        if let Err(why) = self.read(&mut client, key) {
                            failed.lock().unwrap_or_else(PoisonError::into_inner).push(why);
                        }
                    }
                });
            }
        });
        let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
        ensure!(failed.is_empty(), "{} reads failed, the first: {}", failed.len(), failed[0]);
        self.list(&mut self.client_through(way).client)
    }

    /// Lists the bucket, which says of every key whether it is there: a read of each.
    fn list(&self, client: &mut Client) -> Result<()> {
        let readings: Vec<Reading> =
            (0..self.register.len()).map(|key| self.register.begin_read(key)).collect();
        let lengths = self.listed_lengths(client);
        for (key, reading) in readings.into_iter().enumerate() {
            match &lengths {
                Ok(lengths) => {
                    self.judge(reading, lengths[key].map_or(Seen::Unlisted, Seen::Listed))
                }
                Err(_) => self.register.abandon_read(reading),
            }
        }
        lengths.map(|_| ())
    }

    fn listed_lengths(&self, client: &mut Client) -> Result<Vec<Option<u64>>> {
        let listed = client.list_all(self.bucket)?;
        let in_order = listed.is_sorted_by(|a, b| a.key < b.key);
        if !in_order {
            self.wrong_listing("a listing out of order, or a key twice".to_owned());
        }
        let mut lengths = vec![None; self.register.len()];
        for entry in &listed {
            match self.register.key_of(&entry.key) {
                Some(key) => lengths[key] = Some(entry.size),
                None => self.wrong_listing(format!("listed, and never written: {:?}", entry.key)),
            }
        }
        Ok(lengths)
    }

    fn wrong_listing(&self, complaint: String) {
        count(&self.register.tally.wrong);
        self.complaints.add(complaint);
    }
}

/// A refused request must not become a busy loop.
pub(crate) fn pause() {
    thread::sleep(Duration::from_millis(20));
}

fn outcome_of(answer: &Result<Answer, Unanswered>) -> Outcome {
    match answer {
        // A completion may answer 200 early and an error after it.
        Ok(answer) if answer.status / 100 == 2 && text_of(&answer.body, "Code").is_empty() => {
            Outcome::Acknowledged
        }
        // Its condition did not hold.
        Ok(Answer { status: 412, .. }) => Outcome::Refused,
        Ok(_) => Outcome::Failed,
        Err(Unanswered::NotSent(_)) => Outcome::Refused,
        Err(Unanswered::Unknown(_)) => Outcome::Unanswered,
    }
}

pub(crate) fn shown(answer: &Result<Answer, Unanswered>) -> String {
    match answer {
        Ok(answer) => {
            let text = |name| text_of(&answer.body, name).pop().unwrap_or_default();
            format!("{} {} {}", answer.status, text("Code"), text("Message"))
        }
        Err(Unanswered::NotSent(error)) => format!("not sent: {error}"),
        Err(Unanswered::Unknown(error)) => format!("no answer: {error}"),
    }
}

/// Starting a bucket: retried while the server still gathers its drives.
pub(crate) fn make_bucket(launch: &Launch, bucket: &str) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut client = launch.client(PATIENCE);
    loop {
        match client.make_bucket(bucket) {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => pause(),
        }
    }
}

/// The error's text of a request that is expected to be refused.
pub(crate) fn refusal(client: &mut Client, request: &Request<'_>) -> Result<(u16, String)> {
    let answer = client.call(request).map_err(io::Error::from)?;
    Ok((answer.status, String::from_utf8_lossy(&answer.body).into_owned()))
}

//! Writers and readers: each has a connection of its own; each key has one writer, any reader.

use std::io;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

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
    pub(crate) launch: &'a Launch,
    pub(crate) bucket: &'a str,
    pub(crate) register: &'a Register,
    pub(crate) complaints: &'a Complaints,
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
}

impl Failures {
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
    thread::scope(|scope| {
        for index in 0..writers {
            let stop = &stop;
            scope.spawn(move || {
                let random = Random::new(seed, index as u64);
                field.write_until(stop, (index, writers), random, failures);
            });
        }
        for index in 0..readers {
            let stop = &stop;
            let random = Random::new(seed, 1000 + index as u64);
            scope.spawn(move || field.read_until(stop, random, failures));
        }
        let stop_at_end = StopAtEnd(&stop);
        let out = body();
        drop(stop_at_end);
        out
    })
}

/// The load ends also when the body panics; the scope would wait for it for ever otherwise.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Field<'_> {
    pub(crate) fn client(&self) -> Client {
        self.launch.client(PATIENCE)
    }

    /// The writer `(index, writers)` owns every `writers`-th key.
    fn write_until(
        &self,
        stop: &AtomicBool,
        owner: (usize, usize),
        mut random: Random,
        failures: &Failures,
    ) {
        let (index, writers) = owner;
        let own = (self.register.len() - index).div_ceil(writers);
        let mut client = self.client();
        while !stop.load(Ordering::Relaxed) {
            let key = index + writers * random.index(own);
            let begun = Instant::now();
            match self.write(&mut client, key, &mut random) {
                Ok(()) => count(&failures.written),
                Err(why) => {
                    failures.write_failed(begun, why);
                    pause();
                }
            }
        }
    }

    /// One PUT, multipart upload or DELETE of a key; the error says why it is not acknowledged.
    pub(crate) fn write(
        &self,
        client: &mut Client,
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
        let version = self.register.begin_write(key, effect);
        let answer = match effect {
            Effect::Absent => client.call(&Request::new("DELETE", self.bucket, &name)),
            Effect::Bytes(length) => {
                let body = self.register.bytes(version, length);
                if parts > 0 {
                    let (first, second) = body.split_at(PART_BYTES);
                    client.multipart(self.bucket, &name, &[first, second])
                } else {
                    client.call(&Request::new("PUT", self.bucket, &name).body(&body))
                }
            }
        };
        let outcome = outcome_of(&answer);
        self.register.end_write(version, outcome);
        if outcome == Outcome::Acknowledged { Ok(()) } else { Err(shown(&answer)) }
    }

    fn read_until(&self, stop: &AtomicBool, mut random: Random, failures: &Failures) {
        let mut client = self.client();
        while !stop.load(Ordering::Relaxed) {
            match self.read(&mut client, random.index(self.register.len())) {
                Ok(()) => count(&failures.read),
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

    fn judge(&self, reading: Reading, seen: Seen<'_>) {
        if let Err(complaint) = self.register.end_read(reading, seen) {
            self.complaints.add(complaint);
        }
    }

    /// Reads every key and the listing; every read has to be answered.
    pub(crate) fn verify_all(&self) -> Result<()> {
        let next = AtomicU64::new(0);
        let failed = Mutex::new(Vec::new());
        thread::scope(|scope| {
            for _ in 0..READERS {
                scope.spawn(|| {
                    let mut client = self.client();
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
        self.verify_listing()
    }

    /// Every key is listed exactly when it is there. No write may run meanwhile.
    fn verify_listing(&self) -> Result<()> {
        let listed = self.client().list_all(self.bucket)?;
        ensure!(
            listed.is_sorted_by(|a, b| a.key < b.key),
            "a listing out of order, or a key twice"
        );
        let mut lengths = vec![None; self.register.len()];
        for entry in &listed {
            let key = self.register.key_of(&entry.key);
            let key =
                key.ok_or_else(|| anyhow::anyhow!("listed, and never written: {:?}", entry.key))?;
            lengths[key] = Some(entry.size);
        }
        for (key, length) in lengths.into_iter().enumerate() {
            let reading = self.register.begin_read(key);
            self.judge(reading, length.map_or(Seen::Unlisted, Seen::Listed));
        }
        Ok(())
    }
}

/// A refused request must not become a busy loop.
fn pause() {
    thread::sleep(Duration::from_millis(20));
}

fn outcome_of(answer: &Result<Answer, Unanswered>) -> Outcome {
    match answer {
        // A completion may answer 200 early and an error after it.
        Ok(answer) if answer.status / 100 == 2 && text_of(&answer.body, "Code").is_empty() => {
            Outcome::Acknowledged
        }
        Ok(_) => Outcome::Failed,
        Err(Unanswered::NotSent(_)) => Outcome::Refused,
        Err(Unanswered::Unknown(_)) => Outcome::Unanswered,
    }
}

fn shown(answer: &Result<Answer, Unanswered>) -> String {
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

//! Keys that many clients change at once, each by "if it is still what I read": such writes of a key
//! form a chain, in which each names the one before it.
//!
//! Checked at the end, from everything that was asked and answered: there is one chain; every write that
//! was acknowledged is in it, and none that was refused; and its order fits real time, for writes and
//! for reads. That is linearizability, in time linear in the length of the history: the chain is the
//! order, so nothing has to be searched.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use super::load::{Failures, PATIENCE, StopAtEnd, pause, shown};
use crate::random::{self, Random};
use crate::s3::{Answer, Client, Request, Unanswered};
use crate::server::Launch;

pub(crate) const KEYS: usize = 8;
/// What a key is before its first write.
const NOTHING: u64 = 0;
const LINE_BYTES: usize = 40;

/// One request, as its client saw it.
#[derive(Clone, Copy, Debug)]
struct Operation {
    kind: Kind,
    begun: Instant,
    /// `None`: no answer, or one that leaves open what happened.
    ended: Option<Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Read { seen: u64 },
    Write { id: u64, after: u64, outcome: Outcome },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    Acknowledged,
    Refused,
    Unknown,
}

#[derive(Debug)]
pub(crate) struct Chains {
    bucket: &'static str,
    next: AtomicU64,
    keys: Vec<Mutex<Vec<Operation>>>,
}

/// What of a run is reported.
#[derive(Debug, Default)]
pub(crate) struct Lengths {
    pub(crate) writes: usize,
    pub(crate) reads: usize,
}

impl Chains {
    pub(crate) fn new(bucket: &'static str) -> Self {
        let keys = (0..KEYS).map(|_| Mutex::default()).collect();
        Self { bucket, next: AtomicU64::new(NOTHING + 1), keys }
    }

    /// Changes keys through every node while `body` runs.
    pub(crate) fn under_changes<T>(
        &self,
        ways: &[Launch],
        seed: u64,
        failures: &Failures,
        body: impl FnOnce() -> T,
    ) -> T {
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            for (way, launch) in ways.iter().enumerate() {
                let stop = &stop;
                scope.spawn(move || {
                    let random = Random::new(seed, 3000 + way as u64);
                    self.change_until(stop, &mut launch.client(PATIENCE), random, failures);
                });
            }
            let stop_at_end = StopAtEnd(&stop);
            let out = body();
            drop(stop_at_end);
            out
        })
    }

    /// Reads keys and changes them until told to stop.
    fn change_until(
        &self,
        stop: &AtomicBool,
        client: &mut Client,
        mut random: Random,
        failures: &Failures,
    ) {
        while !stop.load(Ordering::Relaxed) {
            let key = random.index(KEYS);
            let changed = match self.read(client, key) {
                // Now and then a read that nothing follows.
                Ok(_) if random.one_in(4) => Ok(()),
                Ok((seen, etag)) => self.write(client, key, seen, &etag, &mut random),
                Err(why) => Err(why),
            };
            if changed.is_err() {
                failures.change_failed();
                pause();
            }
        }
    }

    /// The id that the key holds, and its ETag; empty where there is no object.
    fn read(&self, client: &mut Client, key: usize) -> Result<(u64, String), String> {
        let begun = Instant::now();
        let answer = client.call(&Request::new("GET", self.bucket, &name(key)));
        let (seen, etag) = match answer {
            Ok(Answer { status: 404, .. }) => (NOTHING, String::new()),
            // What cannot be parsed is no id that was ever written, so the check finds it.
            Ok(Answer { status: 200, body, etag, .. }) => (parse(&body).unwrap_or(u64::MAX), etag),
            _ => return Err(shown(&answer)),
        };
        self.note(key, Operation { kind: Kind::Read { seen }, begun, ended: Some(Instant::now()) });
        Ok((seen, etag))
    }

    fn write(
        &self,
        client: &mut Client,
        key: usize,
        after: u64,
        etag: &str,
        random: &mut Random,
    ) -> Result<(), String> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let body = body(id, random.below(20_000) as usize);
        let condition =
            if after == NOTHING { [("if-none-match", "*")] } else { [("if-match", etag)] };
        let name = name(key);
        let put = Request::new("PUT", self.bucket, &name).body(&body);
        let begun = Instant::now();
        let answer = client.call(&Request { headers: &condition, ..put });
        let outcome = match &answer {
            Ok(Answer { status: 200, .. }) => Outcome::Acknowledged,
            Ok(Answer { status: 412, .. }) | Err(Unanswered::NotSent(_)) => Outcome::Refused,
            Ok(_) | Err(Unanswered::Unknown(_)) => Outcome::Unknown,
        };
        let ended = (outcome != Outcome::Unknown).then(Instant::now);
        self.note(key, Operation { kind: Kind::Write { id, after, outcome }, begun, ended });
        let was_answered = matches!(&answer, Ok(Answer { status: 200 | 412, .. }));
        if was_answered { Ok(()) } else { Err(shown(&answer)) }
    }

    fn note(&self, key: usize, operation: Operation) {
        self.keys[key].lock().unwrap_or_else(PoisonError::into_inner).push(operation);
    }

    /// Judges everything so far. No write may run meanwhile, or still take effect later.
    pub(crate) fn check(&self, launch: &Launch) -> Result<Lengths> {
        let mut client = launch.client(PATIENCE);
        let mut lengths = Lengths::default();
        for (key, operations) in self.keys.iter().enumerate() {
            // Read last, it is the end of the chain.
            let (end, _) = self.read(&mut client, key).map_err(anyhow::Error::msg)?;
            let operations = operations.lock().unwrap_or_else(PoisonError::into_inner);
            let found = judge(&operations, end).with_context(|| name(key))?;
            lengths.writes += found.writes;
            lengths.reads += found.reads;
        }
        Ok(lengths)
    }
}

fn name(key: usize) -> String {
    format!("chain-{key}")
}

/// The id, and bytes that follow from it.
fn body(id: u64, more: usize) -> Vec<u8> {
    let mut body = format!("{id:0width$}\n", width = LINE_BYTES - 1).into_bytes();
    body.extend_from_slice(&random::bytes(id, more));
    body
}

fn parse(found: &[u8]) -> Option<u64> {
    let line = found.get(..LINE_BYTES - 1)?;
    let id = std::str::from_utf8(line).ok()?.parse().ok()?;
    (body(id, found.len() - LINE_BYTES) == found).then_some(id)
}

fn judge(operations: &[Operation], end: u64) -> Result<Lengths> {
    let writes = operations.iter().filter_map(|operation| match operation.kind {
        Kind::Write { id, after, outcome } => Some((id, (after, outcome))),
        Kind::Read { .. } => None,
    });
    let writes: BTreeMap<u64, (u64, Outcome)> = writes.collect();
    let places = places(&writes, end)?;
    for (id, (after, outcome)) in &writes {
        let is_there = places.contains_key(id);
        ensure!(
            is_there || *outcome != Outcome::Acknowledged,
            "write {id} after {after} was acknowledged and is lost"
        );
        ensure!(
            !is_there || *outcome != Outcome::Refused,
            "write {id} after {after} was refused and took effect"
        );
    }
    ensure_in_time(operations, &places)?;
    Ok(Lengths { writes: places.len() - 1, reads: operations.len() - writes.len() })
}

/// The place in the chain of each write that is in it, from its end back to nothing.
fn places(writes: &BTreeMap<u64, (u64, Outcome)>, end: u64) -> Result<BTreeMap<u64, usize>> {
    let mut chain = vec![end];
    let mut last = end;
    while last != NOTHING {
        let Some((after, _)) = writes.get(&last) else {
            bail!("{last} is there, or was replaced, and nobody wrote it")
        };
        last = *after;
        chain.push(last);
    }
    Ok(chain.into_iter().rev().enumerate().map(|(place, id)| (id, place)).collect())
}

/// No operation is placed before another that had ended when it began.
fn ensure_in_time(operations: &[Operation], places: &BTreeMap<u64, usize>) -> Result<()> {
    let mut placed = Vec::new();
    for operation in operations {
        let id = match operation.kind {
            Kind::Read { seen } => seen,
            Kind::Write { id, .. } => id,
        };
        match (places.get(&id), operation.kind) {
            (Some(place), _) => placed.push((operation, *place)),
            (None, Kind::Read { seen }) => bail!("{seen} was read and is lost"),
            // It had no effect.
            (None, Kind::Write { .. }) => {}
        }
    }
    // At one instant beginnings come before ends: those two may have overlapped.
    let mut events: Vec<(Instant, bool, usize)> = Vec::new();
    for (index, (operation, _)) in placed.iter().enumerate() {
        events.push((operation.begun, false, index));
        events.extend(operation.ended.map(|ended| (ended, true, index)));
    }
    events.sort_unstable();
    let mut reached = (0, None);
    for (_, is_end, index) in events {
        let (operation, place) = placed[index];
        if is_end {
            if place > reached.0 {
                reached = (place, Some(operation));
            }
            continue;
        }
        // A write comes behind what was there before it, not beside it.
        let is_late = match operation.kind {
            Kind::Read { .. } => place < reached.0,
            Kind::Write { .. } => place <= reached.0,
        };
        ensure!(
            !is_late,
            "{:?} is at place {place}, but before it began, {:?} had ended at place {}",
            operation.kind,
            reached.1.map(|operation| operation.kind),
            reached.0
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Times in milliseconds.
    struct History(Instant, Vec<Operation>);

    impl History {
        fn new() -> Self {
            Self(Instant::now(), Vec::new())
        }

        fn add(mut self, kind: Kind, begun: u64, ended: Option<u64>) -> Self {
            let at = |time| self.0 + Duration::from_millis(time);
            let (begun, ended) = (at(begun), ended.map(at));
            self.1.push(Operation { kind, begun, ended });
            self
        }

        fn write(self, id: u64, after: u64, begun: u64, ended: u64) -> Self {
            let kind = Kind::Write { id, after, outcome: Outcome::Acknowledged };
            self.add(kind, begun, Some(ended))
        }

        fn read(self, seen: u64, begun: u64, ended: u64) -> Self {
            self.add(Kind::Read { seen }, begun, Some(ended))
        }

        fn judge(&self, end: u64) -> Result<Lengths> {
            judge(&self.1, end)
        }
    }

    #[test]
    fn a_chain_in_order_passes_with_writes_of_unknown_outcome() {
        let unknown = |id, after| Kind::Write { id, after, outcome: Outcome::Unknown };
        let refused = Kind::Write { id: 5, after: 1, outcome: Outcome::Refused };
        let history = History::new()
            .read(0, 0, 1)
            .write(1, 0, 2, 3)
            .add(refused, 4, Some(9))
            .add(unknown(2, 1), 4, None)
            .add(unknown(3, 1), 4, None)
            .read(1, 5, 8)
            .read(2, 5, 8)
            .write(4, 2, 9, 10);
        let lengths = history.judge(4).expect("linearizable");
        assert_eq!((lengths.writes, lengths.reads), (3, 3));
    }

    #[test]
    fn every_break_of_the_order_is_found() {
        let fork = History::new().write(1, 0, 0, 1).write(2, 1, 2, 3).write(3, 1, 2, 3);
        assert!(
            fork.judge(3).unwrap_err().to_string().contains("write 2 after 1 was acknowledged")
        );
        let refused = Kind::Write { id: 2, after: 1, outcome: Outcome::Refused };
        let history = History::new().write(1, 0, 0, 1).add(refused, 2, Some(3));
        assert!(history.judge(2).unwrap_err().to_string().contains("took effect"));
        history.judge(1).expect("it had none");
        let stale = History::new().write(1, 0, 0, 1).write(2, 1, 2, 3).read(1, 4, 5);
        assert!(stale.judge(2).unwrap_err().to_string().contains("at place 1"));
        let back = History::new().write(1, 0, 0, 1).write(2, 1, 2, 9).read(2, 3, 4).read(1, 5, 6);
        assert!(back.judge(2).is_err(), "a later read saw less");
        let early = History::new().write(1, 0, 0, 1).write(2, 1, 4, 5).read(2, 2, 3);
        assert!(early.judge(2).is_err(), "read before it was written");
        let vanished = History::new().write(1, 0, 0, 1).read(7, 2, 3);
        assert!(vanished.judge(1).unwrap_err().to_string().contains("lost"));
        assert!(History::new().judge(9).is_err(), "nobody wrote it");
    }

    #[test]
    fn a_body_that_was_changed_is_nobodys() {
        let mut bytes = body(17, 100);
        assert_eq!(parse(&bytes), Some(17));
        bytes[90] ^= 1;
        assert_eq!(parse(&bytes), None);
        assert_eq!(parse(&bytes[..20]), None);
    }
}

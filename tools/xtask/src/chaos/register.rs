//! What is known of every key: what was acknowledged, what may or may not have happened, and
//! hence what an answer may show.
//!
//! Each key has one writer, so its writes have an order. Invariants checked:
//! - An answer shows the last acknowledged write that ended before the request began, or a later
//!   write. Older bytes or "not found" in its place are a **lost** write.
//! - A write without an outcome may or may not show, but once it was seen it stays.
//! - Bytes that no such write wrote are **wrong**.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::content::Version;

/// What a write leaves behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Effect {
    Bytes(u64),
    Absent,
}

/// How a write ended, as its client sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    Acknowledged,
    /// It certainly had no effect.
    Refused,
    /// An error was answered: whether it took effect is open, but later writes follow it.
    Failed,
    /// No answer: while this server lives it may still take effect, even after later writes.
    Unanswered,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Open,
    Known,
    Floating,
    /// The node that it was asked of has died, and a later write is acknowledged: it may have reached
    /// drives that still settle it.
    Adrift,
}

#[derive(Clone, Copy, Debug)]
struct Write {
    number: u64,
    effect: Effect,
    fate: Fate,
    /// Of which node it was asked.
    way: usize,
}

impl Write {
    /// It may take effect out of its order.
    fn is_loose(&self) -> bool {
        matches!(self.fate, Fate::Floating | Fate::Adrift)
    }
}

/// Writes below `floor` are overwritten for certain, except those that are loose.
#[derive(Debug)]
struct Key {
    floor: u64,
    /// The highest acknowledged; the floor is above it where an unknown write was seen.
    acknowledged: u64,
    next: u64,
    readers: u32,
    writes: Vec<Write>,
}

impl Key {
    fn new() -> Self {
        let absent = Write { number: 0, effect: Effect::Absent, fate: Fate::Known, way: 0 };
        Self { floor: 0, acknowledged: 0, next: 1, readers: 0, writes: vec![absent] }
    }

    fn prune(&mut self) {
        if self.readers == 0 {
            let floor = self.floor;
            self.writes.retain(|write| write.number >= floor || write.is_loose());
        }
    }

    fn candidates(&self, floor: u64) -> Vec<(u64, Effect)> {
        let visible = |write: &&Write| write.number >= floor || write.is_loose();
        self.writes.iter().filter(visible).map(|write| (write.number, write.effect)).collect()
    }
}

/// Counts over a whole phase.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) acknowledged: AtomicU64,
    pub(crate) unknown: AtomicU64,
    pub(crate) verified: AtomicU64,
    pub(crate) lost: AtomicU64,
    pub(crate) wrong: AtomicU64,
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

pub(crate) fn total(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

#[derive(Debug)]
pub(crate) struct Register {
    seed: u64,
    keys: Vec<Mutex<Key>>,
    pub(crate) tally: Tally,
}

/// A read in progress: the key's floor when it began.
#[derive(Debug)]
pub(crate) struct Reading {
    key: usize,
    floor: u64,
}

/// What an answer showed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Seen<'a> {
    Bytes(&'a [u8]),
    /// In a listing or a head, which show no bytes.
    Listed(u64),
    Absent,
    Unlisted,
}

impl Register {
    pub(crate) fn new(seed: u64, keys: usize) -> Self {
        let keys = (0..keys).map(|_| Mutex::new(Key::new())).collect();
        Self { seed, keys, tally: Tally::default() }
    }

    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Names that share prefixes, as folders do.
    pub(crate) fn name(key: usize) -> String {
        format!("folder-{:02}/key-{key:05}", key % 7)
    }

    /// The key of a name, if it is one of this register's.
    pub(crate) fn key_of(&self, name: &str) -> Option<usize> {
        let key = name.rsplit_once('-')?.1.parse().ok()?;
        (key < self.len() && Self::name(key) == name).then_some(key)
    }

    fn key(&self, key: usize) -> MutexGuard<'_, Key> {
        self.keys[key].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a write that is asked of the node `way`; its bytes are those of the version returned.
    pub(crate) fn begin_write(&self, key: usize, effect: Effect, way: usize) -> Version {
        let mut state = self.key(key);
        let number = state.next;
        state.next += 1;
        state.writes.push(Write { number, effect, fate: Fate::Open, way });
        Version { key, number }
    }

    pub(crate) fn bytes(&self, version: Version, length: u64) -> Vec<u8> {
        version.bytes(self.seed, length)
    }

    pub(crate) fn end_write(&self, version: Version, outcome: Outcome) {
        let mut state = self.key(version.key);
        match outcome {
            Outcome::Refused => state.writes.retain(|write| write.number != version.number),
            Outcome::Acknowledged => {
                count(&self.tally.acknowledged);
                state.floor = state.floor.max(version.number);
                state.acknowledged = version.number;
                set_fate(&mut state, version.number, Fate::Known);
            }
            Outcome::Failed | Outcome::Unanswered => {
                count(&self.tally.unknown);
                let floats = outcome == Outcome::Unanswered;
                let fate = if floats { Fate::Floating } else { Fate::Known };
                set_fate(&mut state, version.number, fate);
            }
        }
        state.prune();
    }

    /// The server has died: nothing that it was asked before can take effect any more.
    pub(crate) fn server_died(&self) {
        for key in 0..self.len() {
            let mut state = self.key(key);
            for write in &mut state.writes {
                write.fate = Fate::Known;
            }
            state.prune();
        }
    }

    /// One of several nodes has died: what it was asked keeps the order in which it was asked, but for
    /// what a later write may have overtaken, until everything is settled.
    pub(crate) fn node_died(&self, way: usize) {
        for key in 0..self.len() {
            let mut state = self.key(key);
            let floor = state.floor;
            for write in &mut state.writes {
                if write.way == way && write.fate == Fate::Floating {
                    write.fate = if write.number >= floor { Fate::Known } else { Fate::Adrift };
                }
            }
            state.prune();
        }
    }

    /// Every drive has answered that nothing of it is unsettled.
    pub(crate) fn all_settled(&self) {
        for key in 0..self.len() {
            let mut state = self.key(key);
            for write in &mut state.writes {
                if write.fate == Fate::Adrift {
                    write.fate = Fate::Known;
                }
            }
            state.prune();
        }
    }

    pub(crate) fn begin_read(&self, key: usize) -> Reading {
        let mut state = self.key(key);
        state.readers += 1;
        Reading { key, floor: state.floor }
    }

    /// A read without an answer shows nothing.
    pub(crate) fn abandon_read(&self, reading: Reading) {
        self.finish_read(&reading);
    }

    /// Judges what a read showed; what is lost or wrong is counted, and told.
    pub(crate) fn end_read(&self, reading: Reading, seen: Seen<'_>) -> Result<(), String> {
        let candidates = self.finish_read(&reading);
        count(&self.tally.verified);
        let key = reading.key;
        let shows = |number: u64, effect: Effect| match (effect, seen) {
            (Effect::Absent, Seen::Absent | Seen::Unlisted) => true,
            (Effect::Bytes(length), Seen::Listed(seen)) => length == seen,
            (Effect::Bytes(length), Seen::Bytes(body)) => {
                length == body.len() as u64
                    && Version { key, number }.bytes(self.seed, length) == body
            }
            _ => false,
        };
        // Among several that look alike, only the oldest is proven to have been reached.
        match candidates.iter().find(|(number, effect)| shows(*number, *effect)) {
            Some((number, _)) => {
                let mut state = self.key(key);
                state.floor = state.floor.max(*number);
                state.prune();
                Ok(())
            }
            None => Err(self.blame(&reading, seen, &candidates)),
        }
    }

    /// Ends a read and returns what it may show: everything since the floor at its beginning.
    fn finish_read(&self, reading: &Reading) -> Vec<(u64, Effect)> {
        let mut state = self.key(reading.key);
        let candidates = state.candidates(reading.floor);
        state.readers -= 1;
        state.prune();
        candidates
    }

    fn blame(&self, reading: &Reading, seen: Seen<'_>, candidates: &[(u64, Effect)]) -> String {
        let key = reading.key;
        let name = Self::name(key);
        let (kind, shown) = match seen {
            Seen::Absent => (&self.tally.lost, "not found".to_owned()),
            Seen::Unlisted => (&self.tally.lost, "not listed".to_owned()),
            Seen::Listed(length) => (&self.tally.wrong, format!("shown with {length} bytes")),
            Seen::Bytes(body) => match Version::claimed_by(body) {
                Some(version) if version.key == key && version.number < reading.floor => {
                    (&self.tally.lost, format!("the older version {}", version.number))
                }
                claimed => {
                    (&self.tally.wrong, format!("{} bytes that claim {claimed:?}", body.len()))
                }
            },
        };
        count(kind);
        let acknowledged = self.key(key).acknowledged;
        let why = if reading.floor > acknowledged { "was seen" } else { "was acknowledged" };
        format!("{name}: {shown}, though {} {why}; allowed are {candidates:?}", reading.floor)
    }
}

fn set_fate(key: &mut Key, number: u64, fate: Fate) {
    let write = key.writes.iter_mut().find(|write| write.number == number);
    write.expect("an open write stays in the register").fate = fate;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(register: &Register, effect: Effect, outcome: Outcome) -> Vec<u8> {
        let version = register.begin_write(0, effect, 1);
        register.end_write(version, outcome);
        match effect {
            Effect::Bytes(length) => register.bytes(version, length),
            Effect::Absent => Vec::new(),
        }
    }

    fn read(register: &Register, seen: Seen<'_>) -> Result<(), String> {
        let reading = register.begin_read(0);
        register.end_read(reading, seen)
    }

    fn counts(register: &Register) -> (u64, u64) {
        (total(&register.tally.lost), total(&register.tally.wrong))
    }

    #[test]
    fn an_acknowledged_write_shows_and_nothing_older_does() {
        let register = Register::new(1, 1);
        read(&register, Seen::Absent).expect("nothing written yet");
        let one = write(&register, Effect::Bytes(50), Outcome::Acknowledged);
        read(&register, Seen::Bytes(&one)).expect("the only version");
        assert!(read(&register, Seen::Absent).is_err());
        let two = write(&register, Effect::Bytes(50), Outcome::Acknowledged);
        assert!(read(&register, Seen::Bytes(&one)).is_err());
        assert_eq!(counts(&register), (2, 0));
        let mut torn = two.clone();
        torn[40] ^= 1;
        assert!(read(&register, Seen::Bytes(&torn)).is_err());
        assert!(read(&register, Seen::Bytes(&two[..49])).is_err());
        assert_eq!(counts(&register), (2, 2));
        write(&register, Effect::Absent, Outcome::Acknowledged);
        assert!(read(&register, Seen::Bytes(&two)).is_err());
        read(&register, Seen::Absent).expect("deleted");
    }

    #[test]
    fn an_unknown_write_may_show_but_once_seen_it_stays() {
        let register = Register::new(1, 1);
        let one = write(&register, Effect::Bytes(50), Outcome::Acknowledged);
        let two = write(&register, Effect::Bytes(60), Outcome::Failed);
        read(&register, Seen::Bytes(&one)).expect("not yet, or never");
        read(&register, Seen::Bytes(&two)).expect("it happened");
        assert!(read(&register, Seen::Bytes(&one)).is_err(), "it went back");
        let three = write(&register, Effect::Bytes(70), Outcome::Refused);
        assert!(read(&register, Seen::Bytes(&three)).is_err(), "it was refused");
    }

    #[test]
    fn an_unanswered_write_floats_until_its_server_dies() {
        let register = Register::new(1, 1);
        let one = write(&register, Effect::Bytes(50), Outcome::Unanswered);
        let two = write(&register, Effect::Bytes(60), Outcome::Acknowledged);
        read(&register, Seen::Bytes(&one)).expect("it may come late");
        read(&register, Seen::Bytes(&two)).expect("or not");
        register.server_died();
        assert!(read(&register, Seen::Bytes(&one)).is_err());
        read(&register, Seen::Bytes(&two)).expect("the last acknowledged");
    }

    #[test]
    fn what_a_dead_node_was_asked_is_loose_only_until_all_is_settled() {
        let register = Register::new(1, 1);
        let one = write(&register, Effect::Bytes(50), Outcome::Unanswered);
        let two = write(&register, Effect::Bytes(60), Outcome::Acknowledged);
        let three = write(&register, Effect::Bytes(70), Outcome::Unanswered);
        register.node_died(0);
        register.all_settled();
        read(&register, Seen::Bytes(&one)).expect("another node died");
        register.node_died(1);
        read(&register, Seen::Bytes(&one)).expect("drives may settle it late");
        read(&register, Seen::Bytes(&two)).expect("or not");
        register.all_settled();
        assert!(read(&register, Seen::Bytes(&one)).is_err());
        read(&register, Seen::Bytes(&three)).expect("the last, which nothing followed");
        assert!(read(&register, Seen::Bytes(&two)).is_err(), "it went back");
    }

    #[test]
    fn a_read_may_show_what_was_current_at_any_time_during_it() {
        let register = Register::new(1, 1);
        let one = write(&register, Effect::Bytes(50), Outcome::Acknowledged);
        let (early, late) = (register.begin_read(0), register.begin_read(0));
        let two = write(&register, Effect::Bytes(50), Outcome::Acknowledged);
        write(&register, Effect::Absent, Outcome::Acknowledged);
        register.end_read(early, Seen::Bytes(&one)).expect("current at its beginning");
        register.end_read(late, Seen::Bytes(&two)).expect("current for a while");
        assert!(read(&register, Seen::Bytes(&two)).is_err());
    }
}

//! Reading the head of one key, as a pure state machine: digests from at least R voting drives, and a
//! classic round for every slot above the head that may have been decided without anybody knowing.
//!
//! Who only wants the head asks R drives first, and the others as soon as those do not settle it: one
//! failed or is late, or what they tell leaves something open.

use std::hash::{Hash, Hasher};

use basalt_engine::request::{Certificate, Reply, Request};
use basalt_engine::units::{DriveIndex, Key};

use crate::exchange::{self, Exchange, Parts};
use crate::proposer::{Ended, Ground, Proposal};
use crate::quorum::{all_drives, bit, drives_in};
use crate::reader::{Head, Reading, Verdict};

pub type Outcome = Result<Found, Ended>;
type Step = exchange::Step<Outcome>;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// Nothing above it was decided when the drives gave their digests.
    pub head: Option<Head>,
    /// Where the slots of an absent key begin.
    pub generation: u32,
    /// The drives that gave a digest, one bit each.
    pub answered: u16,
}

#[derive(Clone)]
pub struct Lookup {
    ground: Ground,
    key: Key,
    /// The drives that are asked for a payload that travels with its record, one bit each.
    copies_from: u16,
    /// The drives that are asked first, one bit each, where the head is enough; `None` where it matters
    /// which drives answer.
    first: Option<u16>,
    /// The drives that were asked, one bit each.
    asked: u16,
    /// What the drives said; the copies that they sent along are in it.
    reading: Reading,
    failed: u16,
    deciding: Option<Deciding>,
}

/// A slot being decided, and the head that it follows.
#[derive(Clone)]
struct Deciding {
    proposal: Proposal,
    base: Option<Head>,
}

impl Exchange for Lookup {
    type Outcome = Outcome;

    fn start(&mut self) -> Step {
        match self.first {
            Some(first) if first != self.all() => Step::SendSome(self.ask(first)),
            _ => Step::Send(self.ask(self.all())),
        }
    }

    fn on_reply(&mut self, drive: DriveIndex, reply: Reply) -> Step {
        if let Some(deciding) = &mut self.deciding {
            let step = deciding.proposal.on_reply(drive, reply);
            return self.go_on(step);
        }
        match reply {
            Reply::Digest(digest) if digest.epoch > self.ground.epoch => {
                return Step::Done(Err(Ended::NewerMapAt(drive)));
            }
            // A drive with an older map than this may not be the member that votes in its place.
            Reply::Digest(digest) if digest.epoch == self.ground.epoch => {
                self.reading.add(drive, digest);
            }
            _ => self.failed |= bit(drive),
        }
        let everybody = self.reading.answered() | self.failed == self.all();
        if self.failed != 0 && self.asked != self.all() {
            self.ask_others()
        } else {
            self.judge(everybody)
        }
    }

    fn on_deadline(&mut self) -> Step {
        if let Some(deciding) = &mut self.deciding {
            let step = deciding.proposal.on_deadline();
            return self.go_on(step);
        }
        if self.asked == self.all() { self.judge(true) } else { self.ask_others() }
    }

    fn on_payload(&mut self, within_reach: bool) -> Step {
        let deciding = self.deciding.as_mut().expect("only a proposal asks");
        let step = deciding.proposal.on_payload(within_reach);
        self.go_on(step)
    }

    fn retry(&mut self) -> Step {
        let step = self.deciding.as_mut().expect("only a proposal pauses").proposal.retry();
        self.go_on(step)
    }
}

impl Parts for Lookup {
    fn hash_part(&self, drive: Option<DriveIndex>, into: &mut impl Hasher) {
        let Self { ground, key, copies_from, first, asked, reading, failed, deciding } = self;
        ground.hash_part(drive, into);
        reading.hash_part(drive, into);
        if let Some(Deciding { proposal, .. }) = deciding {
            proposal.hash_part(drive, into);
        }
        // Who is asked first matters until somebody is asked.
        let next = first.filter(|_| *asked == 0).unwrap_or(0);
        match drive {
            Some(drive) => {
                [*copies_from, next, *asked, *failed].map(|mask| mask & bit(drive) != 0).hash(into)
            }
            None => {
                let base = deciding.as_ref().map(|Deciding { proposal: _, base }| base);
                (key, first.is_some(), base).hash(into);
            }
        }
    }
}

impl Lookup {
    /// A lookup by whoever wants to know the head and which drives are there: all are asked.
    pub fn of_all(ground: Ground, key: Key) -> Self {
        Self::new(ground, key, None, 0)
    }

    /// A lookup by whoever wants the head alone. The drives `first` are asked to begin with, and those
    /// of `copies_from` for a payload that travels with its record; one bit each.
    pub fn of_head(ground: Ground, key: Key, first: u16, copies_from: u16) -> Self {
        assert_eq!(copies_from & !first, 0, "a copy is asked of a drive that is asked");
        Self::new(ground, key, Some(first), copies_from)
    }

    fn new(ground: Ground, key: Key, first: Option<u16>, copies_from: u16) -> Self {
        let reading = Reading::new(ground.quorums, ground.voting);
        Self { ground, key, copies_from, first, asked: 0, reading, failed: 0, deciding: None }
    }

    pub fn key(&self) -> &Key {
        &self.key
    }

    /// What the drives said.
    pub fn reading(&self) -> &Reading {
        &self.reading
    }

    /// The drives that were asked and gave no digest, one bit each.
    pub fn silent(&self) -> u16 {
        self.asked & !self.reading.answered()
    }

    /// The certificate of the slot that this machine had decided last.
    pub fn certificate(&self) -> Option<Certificate> {
        self.deciding.as_ref()?.proposal.certificate()
    }

    /// See [`Proposal::abandonment`].
    pub fn abandonment(&self) -> Option<Vec<(DriveIndex, Request)>> {
        self.deciding.as_ref()?.proposal.abandonment()
    }

    fn all(&self) -> u16 {
        all_drives(self.ground.quorums.drives)
    }

    fn ask(&mut self, drives: u16) -> Vec<(DriveIndex, Request)> {
        self.asked |= drives;
        let digest = |drive| {
            let payload = self.copies_from & bit(drive) != 0;
            (drive, Request::Digest { key: self.key.clone(), payload })
        };
        drives_in(drives).map(digest).collect()
    }

    fn ask_others(&mut self) -> Step {
        Step::SendMore(self.ask(self.all() & !self.asked))
    }

    fn judge(&mut self, last: bool) -> Step {
        let only_head = self.first.is_some();
        if !only_head && !last {
            // Who is about to write needs as many drives as a write does: one that is slow, because all
            // of them are busy, must not pass for one that is down. What they said is looked at then.
            let enough = self.reading.short_by() == 0 && self.can_write();
            return if enough { Step::Linger } else { Step::Wait };
        }
        let copies_came = self.copies_from & !(self.reading.answered() | self.failed) == 0;
        match self.reading.verdict() {
            Verdict::NeedMore if last => Step::Done(Err(Ended::Short(self.reading.short_by()))),
            Verdict::NeedMore if self.asked == self.all() => Step::Wait,
            Verdict::NeedMore if self.silent() == 0 => self.ask_others(),
            Verdict::Head(head) if last || (only_head && copies_came) => self.found(head),
            Verdict::Undecided { slot, base } if last => {
                let certificate = base.as_ref().map(|(slot, record)| Certificate {
                    slot: *slot,
                    operation: record.operation(),
                });
                let (ground, key) = (self.ground.clone(), self.key.clone());
                let mut proposal = Proposal::new(ground, key, slot, certificate, None, false);
                let step = proposal.start();
                self.deciding = Some(Deciding { proposal, base });
                self.go_on(step)
            }
            Verdict::Undecided { .. } if self.asked != self.all() => self.ask_others(),
            Verdict::NeedMore | Verdict::Head(_) | Verdict::Undecided { .. } => Step::Linger,
        }
    }

    fn can_write(&self) -> bool {
        self.reading.answered().count_ones() as usize >= self.ground.quorums.accept
    }

    /// Goes on where the proposal ended.
    fn go_on(&mut self, step: exchange::Step<Result<(), Ended>>) -> Step {
        step.or_else(|outcome| {
            let deciding = self.deciding.as_ref().expect("its step");
            match outcome {
                Ok(()) => {
                    let (slot, record) = (deciding.proposal.slot(), deciding.proposal.record());
                    self.reading.know(slot, record.clone());
                    self.judge(true)
                }
                Err(Ended::Passed(slot, record)) => {
                    self.reading.know(slot, record);
                    self.judge(true)
                }
                Err(Ended::Nothing) => self.found(deciding.base.clone()),
                Err(ended) => Step::Done(Err(ended)),
            }
        })
    }

    fn found(&self, head: Option<Head>) -> Step {
        let (generation, answered) = (self.reading.generation(), self.reading.answered());
        Step::Done(Ok(Found { head, generation, answered }))
    }
}

#[cfg(test)]
mod tests {
    use basalt_engine::request::Digest;
    use basalt_engine::units::{Epoch, Incarnation, Keyspace};

    use super::*;
    use crate::quorum::Quorums;

    const EPOCH: Epoch = Epoch(1);

    fn ground() -> Ground {
        Ground { quorums: Quorums::of(4), voting: all_drives(4), epoch: EPOCH, proposer: 1 }
    }

    fn key() -> Key {
        Key::new(Keyspace::Objects, Incarnation(1), b"key")
    }

    /// What the lookup does after this drive has said that it knows nothing of the key.
    fn after_digest(lookup: &mut Lookup, drive: u8) -> Step {
        let digest = Digest { epoch: EPOCH, ..Digest::default() };
        lookup.on_reply(DriveIndex(drive), Reply::Digest(digest))
    }

    fn asked(step: &Step) -> u16 {
        let (Step::Send(requests) | Step::SendSome(requests) | Step::SendMore(requests)) = step
        else {
            panic!("nothing is sent: {step:?}")
        };
        requests.iter().fold(0, |mask, (drive, _)| mask | bit(*drive))
    }

    #[test]
    fn a_writer_waits_for_as_many_drives_as_a_write_needs() {
        let mut lookup = Lookup::of_all(ground(), key());
        assert_eq!(asked(&lookup.start()), 0b1111);
        assert!(matches!(after_digest(&mut lookup, 0), Step::Wait));
        assert!(matches!(after_digest(&mut lookup, 1), Step::Wait));
        assert!(matches!(after_digest(&mut lookup, 2), Step::Linger));
        assert!(matches!(after_digest(&mut lookup, 3), Step::Done(Ok(_))));
    }

    #[test]
    fn a_reader_is_content_with_the_drives_that_it_asked_first() {
        let mut lookup = Lookup::of_head(ground(), key(), 0b0110, 0b0010);
        let step = lookup.start();
        assert!(matches!(step, Step::SendSome(_)) && asked(&step) == 0b0110);
        assert!(matches!(after_digest(&mut lookup, 2), Step::Linger));
        assert!(matches!(after_digest(&mut lookup, 1), Step::Done(Ok(_))));
    }

    #[test]
    fn a_reader_asks_the_others_when_one_fails_or_is_late() {
        let mut lookup = Lookup::of_head(ground(), key(), 0b0011, 0);
        lookup.start();
        let failed = Reply::Failed(basalt_engine::Error::Unavailable { reason: "test" });
        let step = lookup.on_reply(DriveIndex(0), failed);
        assert!(matches!(step, Step::SendMore(_)) && asked(&step) == 0b1100);
        assert!(matches!(after_digest(&mut lookup, 3), Step::Wait));
        assert!(matches!(after_digest(&mut lookup, 1), Step::Done(Ok(_))));
        assert_eq!(lookup.silent(), 0b0101);

        let mut lookup = Lookup::of_head(ground(), key(), 0b0011, 0);
        lookup.start();
        let step = lookup.on_deadline();
        assert!(matches!(step, Step::SendMore(_)) && asked(&step) == 0b1100);
        assert!(matches!(lookup.on_deadline(), Step::Done(Err(Ended::Short(2)))));
    }
}

//! Reading the head of one key, as a pure state machine: digests from at least R voting drives, and a
//! classic round for every slot above the head that may have been decided without anybody knowing.

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
    /// The head is enough: it does not matter which drives answer.
    eager: bool,
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
        let digest = |drive| {
            let payload = self.copies_from & bit(drive) != 0;
            (drive, Request::Digest { key: self.key.clone(), payload })
        };
        Step::Send(drives_in(self.all()).map(digest).collect())
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
        self.judge(self.reading.answered() | self.failed == self.all())
    }

    fn on_deadline(&mut self) -> Step {
        match &mut self.deciding {
            Some(deciding) => {
                let step = deciding.proposal.on_deadline();
                self.go_on(step)
            }
            None => self.judge(true),
        }
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
        let Self { ground, key, copies_from, eager, reading, failed, deciding } = self;
        ground.hash_part(drive, into);
        reading.hash_part(drive, into);
        if let Some(Deciding { proposal, .. }) = deciding {
            proposal.hash_part(drive, into);
        }
        match drive {
            Some(drive) => [copies_from, failed].map(|mask| mask & bit(drive) != 0).hash(into),
            None => {
                let base = deciding.as_ref().map(|Deciding { proposal: _, base }| base);
                (key, eager, base).hash(into);
            }
        }
    }
}

impl Lookup {
    pub fn new(ground: Ground, key: Key, copies_from: u16, eager: bool) -> Self {
        let reading = Reading::new(ground.quorums, ground.voting);
        Self { ground, key, copies_from, eager, reading, failed: 0, deciding: None }
    }

    /// What the drives said.
    pub fn reading(&self) -> &Reading {
        &self.reading
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

    fn judge(&mut self, last: bool) -> Step {
        let copies_came = self.copies_from & !(self.reading.answered() | self.failed) == 0;
        match self.reading.verdict() {
            Verdict::NeedMore if last => Step::Done(Err(Ended::Short(self.reading.short_by()))),
            Verdict::NeedMore => Step::Wait,
            Verdict::Head(head) if last || (self.eager && copies_came) => self.found(head),
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
            Verdict::Head(_) | Verdict::Undecided { .. } => Step::Linger,
        }
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

//! One write of one key, as a pure state machine: its record is proposed in the slot after the head;
//! where another record won that slot, it is tried in the next one, if the caller still wants it there.
//!
//! The rule that everything here serves (I2 of docs/protocol.md): a record is decided in at most one
//! slot. So it moves on only from a slot that is known to be decided for another record, or in which no
//! drive can hold it; a machine that cannot learn the outcome says so, and is not to be repeated with
//! the same record.

use basalt_engine::request::{Certificate, Reply, Request};
use basalt_engine::units::{DriveIndex, Key, Slot};

use crate::exchange::{self, Exchange};
use crate::lookup::Found;
use crate::proposer::{Ended, Ground, Proposal, Value, copy_for};
use crate::quorum::{all_drives, bit, drives_in, payload_rule};
use crate::reader::Head;

/// Slots that one write tries before it gives the race up.
pub const SLOTS_MAX: u32 = 64;

/// What a write wants to do after a given head.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wish {
    Write,
    /// The condition of the write does not hold: an answer in itself.
    Refuse,
    /// There is nothing to do: a delete of what is not there.
    Nothing,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Decided in this slot, and the payload rule is met. Replies may go on being fed in until
    /// [`Update::everywhere`].
    Written(Slot),
    /// [`Wish::Refuse`] or [`Wish::Nothing`], after this head.
    Refused(Option<Head>),
    Nothing,
    /// Lost too many races. This machine has written nothing.
    Busy,
    Ended(Ended),
}

type Step = exchange::Step<Outcome>;

pub struct Update<J> {
    ground: Ground,
    key: Key,
    own: Value,
    judge: J,
    head: Option<Head>,
    generation: u32,
    /// Whether F voting drives are expected to answer.
    fast: bool,
    slots_tried: u32,
    slots_max: u32,
    stage: Stage,
}

#[expect(clippy::large_enum_variant, reason = "there is one of them for each write under way")]
enum Stage {
    Idle,
    Proposing(Proposal),
    Confirming(Confirming),
}

/// Somebody else had the record decided: before that counts as success, its shards are made durable
/// and counted.
#[derive(Clone)]
struct Confirming {
    slot: Slot,
    holders: u16,
    answered: u16,
}

impl<J: Fn(Option<&Head>) -> Wish> Exchange for Update<J> {
    type Outcome = Outcome;

    fn start(&mut self) -> Step {
        self.try_next()
    }

    fn on_reply(&mut self, drive: DriveIndex, reply: Reply) -> Step {
        match &mut self.stage {
            Stage::Proposing(proposal) => {
                let step = proposal.on_reply(drive, reply);
                self.go_on(step)
            }
            Stage::Confirming(confirming) => {
                confirming.answered |= bit(drive);
                if matches!(reply, Reply::Accepted { has_shards: true }) {
                    confirming.holders |= bit(drive);
                }
                self.judge_confirmed(false)
            }
            Stage::Idle => unreachable!("nothing was sent"),
        }
    }

    fn on_deadline(&mut self) -> Step {
        match &mut self.stage {
            Stage::Proposing(proposal) => {
                let step = proposal.on_deadline();
                self.go_on(step)
            }
            Stage::Confirming(_) => self.judge_confirmed(true),
            Stage::Idle => unreachable!("nothing was sent"),
        }
    }

    fn on_payload(&mut self, within_reach: bool) -> Step {
        let step = self.proposal().on_payload(within_reach);
        self.go_on(step)
    }

    fn retry(&mut self) -> Step {
        let step = self.proposal().retry();
        self.go_on(step)
    }
}

impl<J: Fn(Option<&Head>) -> Wish> Update<J> {
    /// Writes `own` after what `seen` found, or after whatever comes in between, as long as `judge`
    /// wants it there. `judge` is asked about decided heads only.
    pub fn new(ground: Ground, key: Key, own: Value, seen: &Found, judge: J) -> Self {
        let votes = (seen.answered & ground.voting).count_ones() as usize;
        Self {
            fast: votes >= ground.quorums.fast,
            ground,
            key,
            own,
            judge,
            head: seen.head.clone(),
            generation: seen.generation,
            slots_tried: 0,
            slots_max: SLOTS_MAX,
            stage: Stage::Idle,
        }
    }

    /// Only the slot after what was seen will do. For a record that several machines may propose: of
    /// two in different slots both could be decided.
    #[must_use]
    pub fn in_next_slot_only(self) -> Self {
        Self { slots_max: 1, ..self }
    }

    /// Whether any drive may hold the record while its slot is not known to be decided.
    pub fn may_be_accepted(&self) -> bool {
        match &self.stage {
            Stage::Idle => false,
            Stage::Proposing(proposal) => proposal.may_be_accepted(),
            Stage::Confirming(_) => true,
        }
    }

    /// After [`Outcome::Written`]: whether every drive of the set has the record and its shards.
    pub fn everywhere(&self) -> bool {
        match &self.stage {
            Stage::Idle => false,
            Stage::Proposing(proposal) => proposal.everywhere(),
            Stage::Confirming(confirming) => confirming.holders == self.all(),
        }
    }

    /// After [`Outcome::Written`], or where the last slot was decided for another record by this
    /// machine.
    pub fn certificate(&self) -> Option<Certificate> {
        match &self.stage {
            Stage::Idle => None,
            Stage::Proposing(proposal) => proposal.certificate(),
            Stage::Confirming(confirming) => {
                let operation = self.own.record.operation();
                Some(Certificate { slot: confirming.slot, operation })
            }
        }
    }

    fn all(&self) -> u16 {
        all_drives(self.ground.quorums.drives)
    }

    fn proposal(&mut self) -> &mut Proposal {
        match &mut self.stage {
            Stage::Proposing(proposal) => proposal,
            _ => unreachable!("only a proposal asks"),
        }
    }

    /// Proposes the record in the slot after the head.
    fn try_next(&mut self) -> Step {
        match (self.judge)(self.head.as_ref()) {
            Wish::Write => {}
            Wish::Refuse => return Step::Done(Outcome::Refused(self.head.clone())),
            Wish::Nothing => return Step::Done(Outcome::Nothing),
        }
        if self.slots_tried == self.slots_max {
            return Step::Done(Outcome::Busy);
        }
        // Whoever lost a race expects company: it asks for promises, instead of colliding again.
        let fast = self.fast && self.slots_tried == 0;
        self.slots_tried += 1;
        let base = self
            .head
            .as_ref()
            .map(|(slot, record)| Certificate { slot: *slot, operation: record.operation() });
        let slot = base.map_or(Slot::first(self.generation), |base| base.slot.next());
        let (ground, key, own) = (self.ground.clone(), self.key.clone(), self.own.clone());
        let mut proposal = Proposal::new(ground, key, slot, base, Some(own), fast);
        let step = proposal.start();
        self.stage = Stage::Proposing(proposal);
        self.go_on(step)
    }

    /// Goes on where the proposal ended.
    fn go_on(&mut self, step: exchange::Step<Result<(), Ended>>) -> Step {
        step.or_else(|outcome| {
            let proposal = self.proposal();
            let (slot, record) = match outcome {
                Ok(()) if proposal.is_own() => {
                    return Step::Done(Outcome::Written(proposal.slot()));
                }
                Ok(()) => (proposal.slot(), proposal.record().clone()),
                Err(Ended::Passed(slot, record)) => (slot, record),
                Err(ended) => return Step::Done(Outcome::Ended(ended)),
            };
            if slot > proposal.slot() && proposal.may_be_accepted() {
                // Nobody says any more who won the slot: this record, or another that is superseded.
                return Step::Done(Outcome::Ended(Ended::Unknown));
            }
            if record.operation() == self.own.record.operation() {
                return self.confirm(slot);
            }
            self.head = Some((slot, record));
            self.try_next()
        })
    }

    fn confirm(&mut self, slot: Slot) -> Step {
        self.stage = Stage::Confirming(Confirming { slot, holders: 0, answered: 0 });
        let record = &self.own.record;
        if record.payload_count() == 0 {
            return Step::Done(Outcome::Written(slot));
        }
        let learn = |drive| {
            let copy = copy_for(record, drive, self.own.copy.as_ref());
            let (epoch, key, record) = (self.ground.epoch, self.key.clone(), record.clone());
            (drive, Request::Learn { epoch, key, slot, record, copy })
        };
        Step::Send(drives_in(self.all()).map(learn).collect())
    }

    fn judge_confirmed(&self, last: bool) -> Step {
        let Stage::Confirming(Confirming { slot, holders, answered }) = self.stage else {
            unreachable!("called while confirming");
        };
        let last = last || answered == self.all();
        match payload_rule(&self.own.record, holders, last) {
            true => Step::Done(Outcome::Written(slot)),
            false if last => Step::Done(Outcome::Ended(Ended::Unknown)),
            false => Step::Wait,
        }
    }
}

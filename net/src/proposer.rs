//! Having one slot of one key decided: the proposer, as a pure state machine.
//!
//! A proposal begins with ballot 0, which takes one round when F voting drives accept, or with a classic
//! round: prepare at R voting drives, choose, accept at W.
//!
//! Rules kept here (docs/protocol.md):
//! - what may have been chosen is proposed again, byte for byte, but only with its copy in hand or with
//!   k shards within reach (a part's copy may stand under another key), and without either only what is
//!   known to be lost for good ([`Proposal::despite_loss`]);
//! - no quorum decides a co-staged record without a copy: where enough drives for one are to get no
//!   copy, the copies are made durable before the record is proposed;
//! - nothing is proposed at a classic ballot unless W drives have promised: what cannot win would only
//!   be left behind;
//! - a classic ballot belongs to one proposal ([`Ground::proposer`]), and a ballot stays in one epoch;
//! - a proposal knows whether any drive may hold its own record ([`Proposal::may_be_accepted`]): until
//!   the outcome of its slot is known, the record must not be proposed in another one;
//! - nothing is abandoned unless every drive of the set promised.

use std::collections::BTreeMap;

use basalt_engine::record::{Layout, Record};
use basalt_engine::request::{Certificate, Refusal, Reply, Request, SetMap, SmallShard};
use basalt_engine::units::{Ballot, DriveIndex, Epoch, Key, OperationId, Slot};

use crate::exchange::{self, Exchange};
use crate::quorum::{self, Holders, Quorums, bit, drives_in};

/// Classic rounds after which a proposal gives up for now.
pub const ROUNDS_MAX: u32 = 16;

/// What a proposal stands on.
#[derive(Clone, Debug)]
pub struct Ground {
    pub quorums: Quorums,
    /// The drives that vote, one bit each.
    pub voting: u16,
    pub epoch: Epoch,
    /// Owner of the classic ballots: drawn at random for each proposal, never for a core or a node.
    /// Two proposals with one owner could propose two records at one ballot.
    pub proposer: u64,
}

/// A record to have decided, with its copy where it is co-staged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    pub record: Record,
    pub copy: Option<SmallShard>,
}

/// Why a proposal ended without deciding the slot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ended {
    /// This slot (or a later one) was decided before.
    Passed(Slot, Record),
    /// Too few drives answer, and none has accepted.
    Short(usize),
    /// The record was accepted somewhere; whether it will be decided is open.
    Unknown,
    /// Nothing can have been chosen here, and there was nothing to propose.
    Nothing,
    /// What may have been chosen cannot be proposed again now: its payload is out of reach.
    PayloadOutOfReach,
    BucketClosing,
    Full,
    OtherMap(Box<SetMap>),
    /// This drive has a newer map than this node.
    NewerMapAt(DriveIndex),
    /// This node has a newer map than a drive.
    NewerEpoch,
}

/// Decided, and the payload rule is met; or why not.
pub type Outcome = Result<(), Ended>;
type Step = exchange::Step<Outcome>;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Phase {
    Fast,
    Prepare,
    /// Copies of the own record are made durable, before it is proposed to `then`.
    Stage,
    Accept,
}

#[derive(Clone)]
pub struct Proposal {
    ground: Ground,
    key: Key,
    slot: Slot,
    base: Option<Certificate>,
    own: Option<Value>,
    /// What is being proposed now: `own`, or what had to be taken over.
    value: Option<Value>,
    phase: Phase,
    ballot: Ballot,
    /// Whom the value is proposed to once its copies are durable.
    then: u16,
    /// The payload of this operation is gone for good: it is proposed again all the same.
    lost: Option<OperationId>,
    /// Nobody can have accepted `value` in this slot before.
    fresh: bool,
    /// Highest round met so far.
    round_met: u32,
    rounds: u32,
    /// The drives that the present sending went to, one bit each, and what they answered.
    asked: u16,
    answers: BTreeMap<DriveIndex, Answer>,
    /// Some drive accepted `own` in an earlier phase, or may have.
    accepted_once: bool,
    /// What was decided here instead, or in a later slot.
    passed: Option<(Slot, Record)>,
    decided: bool,
}

/// What a drive answered in the present phase.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Answer {
    Promised(Option<(Ballot, Record)>, Option<SmallShard>),
    Staged,
    Accepted {
        has_shards: bool,
    },
    Refused(Refused),
    /// It may have done what it was asked.
    Failed,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Refused {
    Ballot,
    Passed,
    Closing,
    Full,
}

impl Exchange for Proposal {
    type Outcome = Outcome;

    fn start(&mut self) -> Step {
        if self.phase == Phase::Fast { self.propose_own(self.all(), true) } else { self.retry() }
    }

    fn on_reply(&mut self, drive: DriveIndex, reply: Reply) -> Step {
        match self.take(drive, reply) {
            Err(ended) if !self.decided => Step::Done(Err(ended)),
            _ => self.judge(false),
        }
    }

    fn on_deadline(&mut self) -> Step {
        for drive in drives_in(self.asked) {
            self.answers.entry(drive).or_insert(Answer::Failed);
        }
        self.judge(true)
    }

    fn on_payload(&mut self, within_reach: bool) -> Step {
        assert!(self.phase == Phase::Prepare && self.value.is_some());
        if within_reach { self.propose() } else { self.payload_out_of_reach() }
    }

    /// Begins a classic round above every ballot met so far.
    fn retry(&mut self) -> Step {
        self.accepted_once = self.may_be_accepted();
        if self.rounds == ROUNDS_MAX {
            return self.give_up(self.ground.quorums.accept);
        }
        self.rounds += 1;
        self.ballot = Ballot { round: self.round_met + 1, proposer: self.ground.proposer };
        self.round_met = self.ballot.round;
        self.phase = Phase::Prepare;
        self.value = None;
        let (epoch, slot, ballot, base) = (self.ground.epoch, self.slot, self.ballot, self.base);
        let key = self.key.clone();
        self.send(self.all(), |_| Request::Prepare { epoch, key: key.clone(), slot, ballot, base })
    }
}

impl Proposal {
    /// To have `own` decided in `slot`, or, without it, whatever may have been chosen there. Begins at
    /// ballot 0 only if `fast` (F voting drives are expected to answer) and there is something to
    /// propose.
    pub fn new(
        ground: Ground,
        key: Key,
        slot: Slot,
        base: Option<Certificate>,
        own: Option<Value>,
        fast: bool,
    ) -> Self {
        Self {
            ground,
            key,
            slot,
            base,
            phase: if fast && own.is_some() { Phase::Fast } else { Phase::Prepare },
            value: own.clone(),
            own,
            ballot: Ballot::FAST,
            then: 0,
            lost: None,
            fresh: true,
            round_met: 0,
            rounds: 0,
            asked: 0,
            answers: BTreeMap::new(),
            accepted_once: false,
            passed: None,
            decided: false,
        }
    }

    /// The payload of `operation` is gone for good, from drives that the present map knows no more.
    /// Should its record have been chosen, it is decided nevertheless.
    #[must_use]
    pub fn despite_loss(self, operation: OperationId) -> Self {
        Self { lost: Some(operation), ..self }
    }

    pub fn slot(&self) -> Slot {
        self.slot
    }

    /// Whether any drive may hold the record that this proposal was made for.
    pub fn may_be_accepted(&self) -> bool {
        let refused = |drive| matches!(self.answers.get(&drive), Some(Answer::Refused(_)));
        let proposing = matches!(self.phase, Phase::Fast | Phase::Accept) && self.proposes_own();
        self.accepted_once || (proposing && !drives_in(self.asked).all(refused))
    }

    /// The decided record.
    pub fn record(&self) -> &Record {
        assert!(self.decided);
        &self.value.as_ref().expect("what was decided was proposed").record
    }

    /// The certificate of the slot, once it is decided here.
    pub fn certificate(&self) -> Option<Certificate> {
        self.decided.then(|| Certificate { slot: self.slot, operation: self.record().operation() })
    }

    /// Whether the decided record is the one this proposal was made for.
    pub fn is_own(&self) -> bool {
        assert!(self.decided);
        self.proposes_own()
    }

    /// Whether every drive of the set has accepted, with its shards.
    pub fn everywhere(&self) -> bool {
        let has = |answer: &Answer| matches!(answer, Answer::Accepted { has_shards: true });
        self.answers.len() == self.ground.quorums.drives && self.answers.values().all(has)
    }

    /// The requests that make every drive forget what was accepted in vain: after [`Ended::Nothing`],
    /// and only if every drive of the set promised.
    pub fn abandonment(&self) -> Option<Vec<(DriveIndex, Request)>> {
        let all =
            self.phase == Phase::Prepare && self.count(promised) == self.ground.quorums.drives;
        let (epoch, slot, ballot) = (self.ground.epoch, self.slot, self.ballot);
        let request = |_| Request::Abandon { epoch, key: self.key.clone(), slot, ballot };
        all.then(|| drives_in(self.all()).map(|drive| (drive, request(drive))).collect())
    }

    fn all(&self) -> u16 {
        quorum::all_drives(self.ground.quorums.drives)
    }

    fn send(&mut self, asked: u16, request: impl Fn(DriveIndex) -> Request) -> Step {
        self.asked = asked;
        self.answers.clear();
        Step::Send(drives_in(asked).map(|drive| (drive, request(drive))).collect())
    }

    fn send_accepts(&mut self, asked: u16) -> Step {
        let value = self.value.clone().expect("there is something to propose");
        let (epoch, slot, ballot, base) = (self.ground.epoch, self.slot, self.ballot, self.base);
        let (key, fresh) = (self.key.clone(), self.fresh);
        self.send(asked, |drive| Request::Accept {
            epoch,
            key: key.clone(),
            slot,
            ballot,
            base,
            record: value.record.clone(),
            copy: copy_for(&value.record, drive, value.copy.as_ref()),
            fresh,
        })
    }

    /// Proposes `value` to the drives that promised, and to those that may yet.
    fn propose(&mut self) -> Step {
        let asked = self.promised_or_open();
        self.phase = Phase::Accept;
        self.send_accepts(asked)
    }

    fn promised_or_open(&self) -> u16 {
        let open = |drive: &DriveIndex| self.answers.get(drive).is_none_or(promised);
        drives_in(self.asked).filter(open).fold(0, |mask, drive| mask | bit(drive))
    }

    /// Proposes `own` to the drives `to`. Where a quorum of them could do without any copy of it, the
    /// copies come first: else it could be decided, supersede what was there, and be readable nowhere.
    /// With `last`, no more promises will come.
    fn propose_own(&mut self, to: u16, last: bool) -> Step {
        let own = self.own.clone().expect("the caller has something to propose");
        self.value = Some(own.clone());
        let needed = match self.phase {
            Phase::Fast => self.ground.quorums.fast,
            _ => self.ground.quorums.accept,
        };
        let layout = own.record.payloads().next().filter(Layout::is_co_staged);
        let (Some(layout), Some(copy)) = (layout, own.copy) else {
            return self.propose_to(to);
        };
        let named = drives_in(to).filter(|drive| layout.shard_of(drive.0).is_some());
        let named = named.fold(0, |mask, drive| mask | bit(drive));
        if ((to & !named).count_ones() as usize) < needed {
            return self.propose_to(to);
        }
        // Only a drive that promised keeps its copy whatever else it accepts.
        let at = match self.phase {
            Phase::Fast => named,
            _ => named & self.mask_of(promised),
        };
        if !quorum::payload_rule(&own.record, at, true) {
            return if last { self.give_up(needed) } else { Step::Linger };
        }
        self.then = to;
        self.phase = Phase::Stage;
        let (payload, key) = (layout.payload, self.key.clone());
        let operation = own.record.operation();
        self.send(at, |_| Request::StageSmall {
            payload,
            key: key.clone(),
            operation,
            shard: copy.clone(),
        })
    }

    fn propose_to(&mut self, to: u16) -> Step {
        self.phase = if self.ballot.is_fast() { Phase::Fast } else { Phase::Accept };
        self.send_accepts(to)
    }

    fn judge_staged(&mut self, last: bool) -> Step {
        let record = &self.own.as_ref().expect("its copies were staged").record;
        let durable = self.mask_of(|answer| *answer == Answer::Staged);
        match () {
            () if quorum::payload_rule(record, durable, last) => self.propose_to(self.then),
            () if last => self.give_up(self.ground.quorums.accept),
            () if quorum::payload_rule(record, durable, true) => Step::Linger,
            () => Step::Wait,
        }
    }

    fn take(&mut self, drive: DriveIndex, reply: Reply) -> Result<(), Ended> {
        let answer = match reply {
            Reply::Promised { accepted, copy } if self.phase == Phase::Prepare => {
                if let Some((ballot, _)) = &accepted {
                    self.round_met = self.round_met.max(ballot.round);
                }
                Answer::Promised(accepted, copy)
            }
            Reply::Done if self.phase == Phase::Stage => Answer::Staged,
            Reply::Accepted { has_shards } if matches!(self.phase, Phase::Fast | Phase::Accept) => {
                Answer::Accepted { has_shards }
            }
            Reply::Refused { refusal, .. } => self.take_refusal(refusal)?,
            Reply::Failed(basalt_engine::Error::Full { .. }) => Answer::Refused(Refused::Full),
            // A drive that failed in the middle may find the record in its journal again.
            _ => Answer::Failed,
        };
        self.answers.insert(drive, answer);
        Ok(())
    }

    fn take_refusal(&mut self, refusal: Refusal) -> Result<Answer, Ended> {
        let refused = match refusal {
            Refusal::Promised(ballot) => {
                self.round_met = self.round_met.max(ballot.round);
                Refused::Ballot
            }
            Refusal::Taken => Refused::Ballot,
            Refusal::Passed(slot, record) => {
                let better = self.passed.as_ref().is_none_or(|(known, _)| {
                    *known != self.slot && (slot == self.slot || slot > *known)
                });
                if better {
                    self.passed = Some((slot, record));
                }
                Refused::Passed
            }
            Refusal::OldEpoch(map) => return Err(Ended::OtherMap(map)),
            Refusal::NewEpoch(_) => return Err(Ended::NewerEpoch),
            Refusal::BucketClosing => Refused::Closing,
            Refusal::Full => Refused::Full,
            Refusal::BaseUnknown => return Ok(Answer::Failed),
        };
        Ok(Answer::Refused(refused))
    }

    fn proposes_own(&self) -> bool {
        match (&self.own, &self.value) {
            (Some(own), Some(value)) => own.record.operation() == value.record.operation(),
            _ => false,
        }
    }

    fn judge(&mut self, last: bool) -> Step {
        let last = last || self.answers.len() == self.asked.count_ones() as usize;
        match self.phase {
            Phase::Prepare => self.judge_promises(last),
            Phase::Stage => self.judge_staged(last),
            Phase::Fast => self.judge_accepts(self.ground.quorums.fast, self.ground.voting, last),
            Phase::Accept => self.judge_accepts(self.ground.quorums.accept, self.all(), last),
        }
    }

    fn judge_accepts(&mut self, needed: usize, counting: u16, last: bool) -> Step {
        let counted = |(drive, answer): &(&DriveIndex, &Answer)| {
            counting & bit(**drive) != 0 && accepted(answer)
        };
        let count = self.answers.iter().filter(counted).count();
        self.decided |= count >= needed;
        if self.decided {
            return match self.payload_rule(last) || !self.proposes_own() {
                true => Step::Done(Ok(())),
                false if last => Step::Done(Err(Ended::Unknown)),
                false => Step::Wait,
            };
        }
        if self.passed.is_some() {
            return self.judge_passed(last);
        }
        if count + self.open(counting) >= needed {
            return Step::Wait;
        }
        // This ballot cannot win any more. A classic one may, if enough drives are there at all.
        let may_win = |answer: &Answer| accepted(answer) || refused_for_ballot(answer);
        if self.count(may_win) + self.open(self.all()) < self.ground.quorums.accept {
            return self.give_up(self.ground.quorums.accept);
        }
        if self.phase == Phase::Fast { self.retry() } else { Step::Pause }
    }

    fn judge_promises(&mut self, last: bool) -> Step {
        if self.passed.is_some() {
            return self.judge_passed(last);
        }
        let votes =
            |(drive, answer): &(&DriveIndex, &Answer)| self.votes(**drive) && promised(answer);
        let voting = self.answers.iter().filter(votes).count();
        let read = self.ground.quorums.read;
        if voting < read {
            return self.wait_for_promises(voting + self.open(self.ground.voting), read);
        }
        let chosen = self.possibly_chosen();
        if chosen.is_none() && self.own.is_none() {
            // Nothing was chosen. With the promises of all it can be abandoned.
            return if last { Step::Done(Err(Ended::Nothing)) } else { Step::Linger };
        }
        let needed = self.ground.quorums.accept;
        let promises = self.count(promised);
        if promises < needed {
            return self.wait_for_promises(promises + self.open(self.all()), needed);
        }
        match chosen {
            Some(value) => self.take_over(value, last),
            None => {
                self.fresh = true;
                self.propose_own(self.promised_or_open(), last)
            }
        }
    }

    /// Waits while `possible` promises are enough.
    fn wait_for_promises(&mut self, possible: usize, needed: usize) -> Step {
        match possible >= needed {
            true => Step::Wait,
            false if self.answers.values().any(refused_for_ballot) => Step::Pause,
            false => self.give_up(needed),
        }
    }

    /// The slot is decided. Who holds the own record waits for the word about this very slot.
    fn judge_passed(&mut self, last: bool) -> Step {
        let (slot, record) = self.passed.clone().expect("checked by the caller");
        if slot == self.slot || last || !self.may_be_accepted() {
            Step::Done(Err(Ended::Passed(slot, record)))
        } else {
            Step::Linger
        }
    }

    /// What may have been chosen below this ballot, as far as the promises tell.
    fn possibly_chosen(&self) -> Option<Value> {
        let mut holders = Holders::new(self.ground.quorums, self.ground.voting);
        for (drive, answer) in &self.answers {
            if let Answer::Promised(accepted, _) = answer {
                holders.answered(*drive);
                if let Some((ballot, record)) = accepted {
                    holders.holds(*drive, *ballot, record);
                }
            }
        }
        let record = holders.possibly_chosen()?.clone();
        let copy = self.answers.values().find_map(|answer| match answer {
            Answer::Promised(Some((_, held)), copy) if *held == record => copy.clone(),
            _ => None,
        });
        Some(Value { record, copy })
    }

    /// Proposes what may have been chosen, provided its payload is at hand. While it is not, more
    /// answers may bring it, or rule the record out.
    fn take_over(&mut self, value: Value, last: bool) -> Step {
        self.fresh = false;
        if let Some(own) = &self.own
            && own.record.operation() == value.record.operation()
        {
            assert_eq!(own.record, value.record, "a value is proposed again byte for byte");
            return self.propose_own(self.promised_or_open(), last);
        }
        let record = value.record.clone();
        let co_staged = record.payloads().any(|layout| layout.is_co_staged());
        let at_hand = record.payload_count() == 0 || (co_staged && value.copy.is_some());
        self.value = Some(value);
        match (at_hand, last) {
            (true, _) => self.propose(),
            (false, false) => Step::Linger,
            (false, true) if self.lost == Some(record.operation()) => self.propose(),
            (false, true) => Step::CheckPayload(record),
        }
    }

    fn payload_out_of_reach(&self) -> Step {
        Step::Done(Err(if self.accepted_once { Ended::Unknown } else { Ended::PayloadOutOfReach }))
    }

    /// Ends for want of drives, and says what that leaves open.
    fn give_up(&self, needed: usize) -> Step {
        let any = |wanted: Refused| {
            self.answers.values().any(|answer| *answer == Answer::Refused(wanted))
        };
        let working = self.count(|answer| *answer != Answer::Failed);
        Step::Done(Err(match () {
            () if self.may_be_accepted() => Ended::Unknown,
            () if any(Refused::Closing) => Ended::BucketClosing,
            () if any(Refused::Full) => Ended::Full,
            () => Ended::Short(needed.saturating_sub(working).max(1)),
        }))
    }

    fn payload_rule(&self, last: bool) -> bool {
        let holders = self.mask_of(|answer| *answer == Answer::Accepted { has_shards: true });
        let value = self.value.as_ref().expect("what was decided was proposed");
        quorum::payload_rule(&value.record, holders, last)
    }

    /// The drives that answered so, one bit each.
    fn mask_of(&self, wanted: impl Fn(&Answer) -> bool) -> u16 {
        let drives = self.answers.iter().filter(|(_, answer)| wanted(answer));
        drives.fold(0, |mask, (drive, _)| mask | bit(*drive))
    }

    fn count(&self, wanted: impl Fn(&Answer) -> bool) -> usize {
        self.answers.values().filter(|answer| wanted(answer)).count()
    }

    /// How many of `among` were asked and have not answered.
    fn open(&self, among: u16) -> usize {
        let open = |drive: &DriveIndex| !self.answers.contains_key(drive);
        drives_in(self.asked & among).filter(open).count()
    }

    fn votes(&self, drive: DriveIndex) -> bool {
        self.ground.voting & bit(drive) != 0
    }
}

fn promised(answer: &Answer) -> bool {
    matches!(answer, Answer::Promised(..))
}

fn accepted(answer: &Answer) -> bool {
    matches!(answer, Answer::Accepted { .. })
}

fn refused_for_ballot(answer: &Answer) -> bool {
    *answer == Answer::Refused(Refused::Ballot)
}

/// The copy that goes to `drive` with the record, where the record is co-staged and names the drive.
pub fn copy_for(
    record: &Record,
    drive: DriveIndex,
    copy: Option<&SmallShard>,
) -> Option<SmallShard> {
    let layout = record.payloads().next().filter(Layout::is_co_staged)?;
    layout.shard_of(drive.0)?;
    copy.cloned()
}

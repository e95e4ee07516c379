//! One drive: the product's acceptor, and around it as much of a drive as the protocol sees. That is the
//! map it has installed, which shards it holds, what a restart takes from it, and whether it was wiped.
//!
//! A restart takes certificates that no later step made durable, and nothing else: everything that was
//! answered was durable before. `votes` is no state of a drive but the memory of the model: what was
//! once accepted here, by this drive or by one that stood here before, counts in what was decided.

use basalt_engine::Error;
use basalt_engine::acceptor::KeyState;
use basalt_engine::record::{Layout, Record};
use basalt_engine::request::{Digest, Refusal, Reply, Request, SlotDigest, SmallShard};
use basalt_engine::superseded::{self, Superseded};
use basalt_engine::units::{Ballot, BlockIndex, Epoch, PayloadId, Slot};

use super::rules::{Rules, copy_of, key, operation};

/// An acceptance that was durable once.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct Vote {
    pub(crate) slot: Slot,
    pub(crate) ballot: Ballot,
    pub(crate) operation: u8,
    pub(crate) epoch: Epoch,
    /// By a drive that votes in the map of the epoch.
    pub(crate) voting: bool,
}

/// Slot, ballot, operation.
pub(crate) type Acceptance = (Slot, Ballot, u8);

impl Vote {
    pub(crate) fn acceptance(&self) -> Acceptance {
        (self.slot, self.ballot, self.operation)
    }
}

/// What is accepted where a request to accept is not refused.
pub(crate) fn acceptance(request: &Request) -> Option<Acceptance> {
    match request {
        Request::Accept { slot, ballot, record, .. } => Some((*slot, *ballot, operation(record))),
        _ => None,
    }
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Drive {
    /// The operations whose records name this place for a shard, one bit each.
    pub(crate) named: u8,
    pub(crate) state: KeyState,
    /// The state after a restart.
    pub(crate) durable: KeyState,
    /// Winners of slots that were superseded; a restart forgets them.
    pub(crate) superseded: Superseded,
    pub(crate) epoch: Epoch,
    /// This is the replacement of a drive that was lost.
    pub(crate) replaced: bool,
    /// The operations of whose payload a shard is here, one bit each.
    pub(crate) shards: u8,
    pub(crate) damaged: bool,
    pub(crate) votes: Vec<Vote>,
}

/// What happens to a drive, apart from requests.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Fault {
    Restart,
    /// A record that was acknowledged turns out to be unreadable.
    Damage,
    /// The drive is lost, a blank one takes its place.
    Wipe,
}

/// Epoch of the map in which a replacement does not vote yet.
pub(crate) const JOINED: Epoch = Epoch(2);
/// Epoch of the map that follows where a payload seems to be lost: the same once more.
pub(crate) const RENEWED: Epoch = Epoch(3);
/// Epoch of the map in which it votes.
pub(crate) const ADMITTED: Epoch = Epoch(4);

impl Drive {
    pub(crate) fn new(named: u8) -> Self {
        Self {
            named,
            state: KeyState::default(),
            durable: KeyState::default(),
            superseded: Superseded::default(),
            epoch: Epoch(1),
            replaced: false,
            shards: 0,
            damaged: false,
            votes: Vec::new(),
        }
    }

    /// Whether the place votes in the map of `epoch`.
    pub(crate) fn votes_in(&self, epoch: Epoch) -> bool {
        !self.replaced || epoch < JOINED || epoch >= ADMITTED
    }

    /// A replacement that no map names yet.
    pub(crate) fn is_candidate(&self) -> bool {
        self.replaced && self.epoch < JOINED
    }

    pub(crate) fn suffer(&mut self, rules: &Rules, fault: Fault) {
        match fault {
            Fault::Restart => {
                self.state = self.durable.clone();
                self.superseded = Superseded::default();
            }
            Fault::Damage if rules.mistakes.damage_is_absence => {
                self.state = KeyState::default();
                self.durable = KeyState::default();
            }
            Fault::Damage => self.damaged = true,
            Fault::Wipe => {
                let votes = std::mem::take(&mut self.votes);
                *self = Self { votes, replaced: true, epoch: self.epoch, ..Self::new(self.named) };
            }
        }
    }

    pub(crate) fn answer(&mut self, rules: &Rules, request: &Request) -> Reply {
        if self.is_candidate() && !matches!(request, Request::InstallMap { .. }) {
            let reason = "the drive has not joined its set";
            return Reply::Failed(Error::Unavailable { reason });
        }
        if self.damaged {
            return Reply::Failed(Error::Corrupt { what: "a record", at: BlockIndex(0) });
        }
        // Which drive was lost is no matter here: of a map that refuses, the epoch counts.
        let map = rules.map(None, self.epoch);
        let refuse = |epoch| match rules.mistakes.no_fence {
            true => None,
            false => map.refuse(epoch),
        };
        match request {
            Request::Digest { payload, .. } => {
                let mut digest = self.digest();
                let last = digest.slots.last().and_then(|slot| slot.accepted.as_ref());
                digest.copy = last.filter(|_| *payload).and_then(|(_, record)| self.copy(record));
                if rules.mistakes.no_fence {
                    digest.epoch = Epoch(1);
                }
                if rules.mistakes.uncertified_ignored {
                    digest.slots.retain(|state| state.certified);
                }
                if rules.mistakes.accepted_taken_for_certified {
                    let held = digest.slots.iter_mut().filter(|state| state.accepted.is_some());
                    held.for_each(|state| state.certified = true);
                }
                Reply::Digest(digest)
            }
            Request::Prepare { epoch, slot, ballot, base, .. } => {
                let durable = self.durable.clone();
                let prepared =
                    self.step(refuse(*epoch), |state| state.prepare(*slot, *ballot, *base));
                if rules.mistakes.promises_are_not_flushed {
                    self.durable = durable;
                }
                match prepared {
                    Ok(accepted) => {
                        let copy = accepted.as_ref().and_then(|(_, record)| self.copy(record));
                        Reply::Promised { accepted, copy }
                    }
                    Err(refusal) => self.refused(self.naming_the_winner(refusal, *slot)),
                }
            }
            Request::Accept { epoch, slot, ballot, base, record, copy, .. } => {
                let accept = |state: &mut KeyState| state.accept(*slot, *ballot, *base, record);
                let accepted = self.step(refuse(*epoch), accept);
                let accepted = accepted.map_err(|refusal| self.naming_the_winner(refusal, *slot));
                if accepted.is_ok() {
                    self.note_vote(*slot, *ballot, record, *epoch);
                    self.take_copy(record, copy.as_ref());
                }
                self.accepted(accepted, record)
            }
            Request::Learn { epoch, slot, record, copy, .. } => {
                let learned = self.step(refuse(*epoch), |state| {
                    state.learn(*slot, record);
                    Ok(())
                });
                if learned.is_ok() {
                    self.take_copy(record, copy.as_ref());
                }
                self.accepted(learned, record)
            }
            Request::Certify { certificate, settled, .. } => {
                let before = superseded::before(&self.state);
                let of = |record: &&Record| record.operation() == certificate.operation;
                let has = |record: &Record| self.has_shards(record);
                let settled = *settled && self.state.records().find(of).is_some_and(has);
                self.state.certify(*certificate, settled);
                self.superseded.note(&key(), before, Some(&self.state));
                if rules.restarts == 0 {
                    // Nothing will ever ask for the difference.
                    self.durable = self.state.clone();
                }
                Reply::Done
            }
            Request::Abandon { epoch, slot, ballot, .. } => {
                let abandoned = self.step(refuse(*epoch), |state| {
                    state.abandon(*slot, *ballot);
                    Ok(())
                });
                abandoned.map_or_else(|refusal| self.refused(refusal), |()| Reply::Done)
            }
            Request::StageSmall { operation, .. } => {
                self.shards |= 1 << operation.0;
                Reply::Done
            }
            Request::Holds { payloads } => {
                let here = |payload: &PayloadId| self.shards & 1 << payload.0 != 0;
                Reply::Holds(payloads.iter().map(here).collect())
            }
            Request::InstallMap { map } => {
                self.epoch = self.epoch.max(map.epoch);
                self.vote_with_what_is_held();
                Reply::Done
            }
            other => unreachable!("the model does not ask {other:?}"),
        }
    }

    /// One step of the protocol: what it changes is durable before it is answered, and with it
    /// everything before.
    fn step<T>(
        &mut self,
        refusal: Option<Refusal>,
        change: impl FnOnce(&mut KeyState) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        if let Some(refusal) = refusal {
            return Err(refusal);
        }
        let before = self.state.clone();
        let result = change(&mut self.state);
        if self.state != before {
            self.durable = self.state.clone();
            self.superseded.note(&key(), superseded::before(&before), Some(&self.state));
        }
        result
    }

    fn naming_the_winner(&self, refusal: Refusal, slot: Slot) -> Refusal {
        self.superseded.name_winner(refusal, &key(), slot)
    }

    fn refused(&self, refusal: Refusal) -> Reply {
        Reply::Refused { refusal, digest: self.digest() }
    }

    fn accepted(&self, result: Result<(), Refusal>, record: &Record) -> Reply {
        match result {
            Ok(()) => Reply::Accepted { has_shards: self.has_shards(record) },
            Err(refusal) => self.refused(refusal),
        }
    }

    pub(crate) fn digest(&self) -> Digest {
        let digest = self.state.digest(1, |record| self.has_shards(record));
        Digest { epoch: self.epoch, ..digest }
    }

    fn has_shards(&self, record: &Record) -> bool {
        let bit = 1 << operation(record);
        self.named & bit == 0 || self.shards & bit != 0
    }

    fn copy(&self, record: &Record) -> Option<SmallShard> {
        let co_staged = record.payloads().any(|layout| layout.is_co_staged());
        let here = self.shards & 1 << operation(record) != 0;
        (co_staged && here).then(|| copy_of(operation(record)))
    }

    fn take_copy(&mut self, record: &Record, copy: Option<&SmallShard>) {
        let co_staged = record.payloads().next().filter(Layout::is_co_staged).is_some();
        if co_staged
            && copy == Some(&copy_of(operation(record)))
            && self.state.records().any(|held| held == record)
        {
            self.shards |= 1 << operation(record);
        }
    }

    fn note_vote(&mut self, slot: Slot, ballot: Ballot, record: &Record, epoch: Epoch) {
        let now = self.state.digest(1, |_| false);
        let here = |state: &SlotDigest| {
            let held = state.accepted.as_ref();
            state.slot == slot && held.is_some_and(|(at, held)| *at == ballot && held == record)
        };
        let voting = self.votes_in(epoch);
        let vote = Vote { slot, ballot, operation: operation(record), epoch, voting };
        if now.slots.iter().any(here) && !self.votes.contains(&vote) {
            self.votes.push(vote);
            self.votes.sort_unstable();
        }
    }

    /// A drive that votes from now on does so with what it accepted at ballot 0 while it was blank, and
    /// holds still: its digests show that to whoever counts to F (docs/protocol.md, "Membership").
    fn vote_with_what_is_held(&mut self) {
        if !self.votes_in(self.epoch) {
            return;
        }
        let now = self.state.digest(1, |_| false);
        for vote in self.votes.iter_mut().filter(|vote| vote.epoch >= JOINED) {
            let held = |state: &SlotDigest| {
                let record = state.accepted.as_ref();
                let here = record.map(|(ballot, record)| (*ballot, operation(record)));
                state.slot == vote.slot && here == Some((vote.ballot, vote.operation))
            };
            vote.voting |= now.slots.iter().any(held);
        }
    }

    /// Whether the request does nothing here, now and whatever comes: nobody waits for its answer.
    pub(crate) fn is_spent(&self, rules: &Rules, request: &Request) -> bool {
        let now = self.durable.digest(1, |_| false);
        let head = now.slots.first().filter(|state| state.certified);
        let passed = |slot: Slot| head.is_some_and(|head| head.slot >= slot);
        let at = |slot: Slot| now.slots.iter().find(|state| state.slot == slot);
        let fenced = |epoch: Epoch| {
            let epoch_here = if self.is_candidate() { JOINED } else { self.epoch };
            epoch < epoch_here && !rules.mistakes.no_fence
        };
        let brings = |record: &Record, copy: &Option<SmallShard>| {
            copy.is_some() && self.shards & 1 << operation(record) == 0
        };
        match request {
            Request::Digest { .. } | Request::Holds { .. } => true,
            Request::Prepare { epoch, slot, ballot, base, .. } => {
                let promised = at(*slot).is_some_and(|state| state.promised >= *ballot);
                let base_known = base.is_none_or(|base| passed(base.slot));
                fenced(*epoch) || (base_known && (passed(*slot) || promised))
            }
            Request::Accept { epoch, slot, ballot, base, record, copy, .. } => {
                let over = at(*slot).is_some_and(|state| {
                    let taken = state.accepted.as_ref().is_some_and(|(held, _)| held == ballot);
                    state.promised > *ballot || taken
                });
                let base_known = base.is_none_or(|base| passed(base.slot));
                let over = base_known && (passed(*slot) || over) && !brings(record, copy);
                fenced(*epoch) || over
            }
            Request::Learn { epoch, slot, record, copy, .. } => {
                fenced(*epoch) || (passed(*slot) && !brings(record, copy))
            }
            Request::Certify { certificate, settled, .. } => {
                head.is_some_and(|head| match head.slot.cmp(&certificate.slot) {
                    std::cmp::Ordering::Less => false,
                    std::cmp::Ordering::Equal => head.settled || !settled,
                    std::cmp::Ordering::Greater => true,
                })
            }
            Request::Abandon { epoch, slot, ballot, .. } => {
                let over = at(*slot).is_some_and(|state| {
                    let below = state.accepted.as_ref().is_some_and(|(held, _)| held < ballot);
                    state.promised >= *ballot && !below
                });
                fenced(*epoch) || passed(*slot) || over
            }
            Request::StageSmall { operation, .. } => self.shards & 1 << operation.0 != 0,
            Request::InstallMap { map } => map.epoch <= self.epoch,
            other => unreachable!("the model does not ask {other:?}"),
        }
    }

    /// Whether it promised the ballot as a voting drive of `epoch`, or knows that the slot is decided.
    pub(crate) fn promised(&self, slot: Slot, ballot: Ballot, epoch: Epoch) -> bool {
        let digest = self.state.digest(1, |_| false);
        let head = digest.slots.first().filter(|state| state.certified);
        let passed = head.is_some_and(|head| head.slot >= slot);
        let here = digest.slots.iter().find(|state| state.slot == slot);
        let promised = here.is_some_and(|state| state.promised >= ballot);
        // What a lost drive had promised was lost with it.
        let lost = self.replaced && epoch < JOINED;
        self.votes_in(epoch) && (passed || promised || lost)
    }

    /// I4: what a drive must not take back while its identity lives.
    pub(crate) fn went_back(&self, later: &Self) -> Option<String> {
        if later.epoch < self.epoch {
            return Some(format!("I4: epoch {} after {}", later.epoch.0, self.epoch.0));
        }
        let (before, after) =
            (self.durable.digest(1, |_| false), later.durable.digest(1, |_| false));
        let head = |digest: &Digest| {
            digest.slots.first().filter(|state| state.certified).map(|state| state.slot)
        };
        if head(&after) < head(&before) {
            return Some(format!("I4: head {:?} after {:?}", head(&after), head(&before)));
        }
        for state in &before.slots {
            if head(&after).is_some_and(|head| head >= state.slot) {
                continue;
            }
            let Some(now) = after.slots.iter().find(|now| now.slot == state.slot) else {
                return Some(format!("I4: slot {:?} forgotten", state.slot));
            };
            let accepted = |state: &SlotDigest| state.accepted.as_ref().map(|(ballot, _)| *ballot);
            let abandoned = now.accepted.is_none() && accepted(state) < Some(now.promised);
            if now.promised < state.promised || (accepted(now) < accepted(state) && !abandoned) {
                return Some(format!("I4: {now:?} after {state:?}"));
            }
        }
        None
    }
}

//! One state of the model: drives, clients, what is under way, and what the model itself remembers (which
//! values were decided, which faults are still in store).
//!
//! Two states are one if they differ only in which drive is which. Everything that a state says of one
//! drive stands in that drive's signature, and nothing in it names another drive; so the sorted
//! signatures, with what concerns no drive, are the canonical form.

use std::rc::Rc;

use basalt_engine::request::{Request, SetMap};
use basalt_engine::units::{DriveIndex, Epoch, Slot};

use super::client::Kept;
use super::delivery::{Event, Outcome, Place};
use super::drive::{Fault, JOINED, Vote};
use super::message::{Answer, Message, hash_of};
use super::rules::Rules;

/// What became of a client's present request to one drive.
#[derive(Clone, Default, Hash)]
pub(crate) enum Sent {
    /// There is none, or its answer was taken.
    #[default]
    Nothing,
    Asked(Message),
    Answered(Answer),
}

#[derive(Clone)]
pub(crate) struct World {
    pub(crate) drives: Vec<Place>,
    pub(crate) clients: Vec<Rc<Kept>>,
    /// For each client, for each drive.
    pub(crate) sent: Vec<Sent>,
    /// For each drive, requests to whose answers nobody listens, in the order of their hashes.
    pub(crate) stale: Vec<Rc<Vec<Message>>>,
    /// Slots that were decided and for which operation, in order.
    pub(crate) decided: Vec<(Slot, u8)>,
    /// Classic ballots begun.
    pub(crate) ballots: u8,
    pub(crate) restarts: u8,
    pub(crate) damages: u8,
    pub(crate) lost: Option<DriveIndex>,
    pub(crate) maps: Rc<Vec<SetMap>>,
    pub(crate) violation: Option<String>,
}

impl World {
    pub(crate) fn sent(&self, client: usize, drive: usize) -> &Sent {
        &self.sent[client * self.drives.len() + drive]
    }

    pub(crate) fn sent_mut(&mut self, client: usize, drive: usize) -> &mut Sent {
        let drives = self.drives.len();
        &mut self.sent[client * drives + drive]
    }

    /// Everything that the state says of one drive.
    pub(crate) fn signature(&self, drive: usize) -> u64 {
        let stale = &self.stale[drive];
        let clients = 0..self.clients.len();
        let clients = clients.map(|at| (self.clients[at].parts[drive], self.sent(at, drive)));
        hash_of((self.drives[drive].hash, stale, clients.collect::<Vec<_>>()))
    }

    pub(crate) fn signatures(&self) -> Vec<u64> {
        (0..self.drives.len()).map(|drive| self.signature(drive)).collect()
    }

    /// One hash for all states that differ only in which drive is which.
    pub(crate) fn canonical(&self) -> u64 {
        let mut signatures = self.signatures();
        signatures.sort_unstable();
        let clients: Vec<u64> = self.clients.iter().map(|kept| kept.common).collect();
        let Self { decided, ballots, restarts, damages, .. } = self;
        hash_of((signatures, clients, decided, ballots, restarts, damages, self.lost.is_some()))
    }

    pub(crate) fn violated(&mut self, what: impl FnOnce() -> String) {
        if self.violation.is_none() {
            self.violation = Some(what());
        }
    }

    pub(crate) fn operation_in(&self, slot: Slot) -> Option<u8> {
        self.decided.iter().find(|(decided, _)| *decided == slot).map(|(_, operation)| *operation)
    }

    /// What may be handled at `drive` before a request of `client`.
    pub(crate) fn first_at(&self, client: Option<usize>, drive: usize) -> Vec<Event> {
        let mut events = Vec::new();
        for other in (0..self.clients.len()).filter(|other| Some(*other) != client) {
            if let Sent::Asked(message) = self.sent(other, drive) {
                events.push(Event::Asked { client: other as u8, message: message.clone() });
            }
        }
        let stale = self.stale[drive].iter();
        events.extend(stale.map(|message| Event::Stale { message: message.clone() }));
        if self.restarts > 0 && self.drives[drive].durable != self.drives[drive].state {
            events.push(Event::Fault(Fault::Restart));
        }
        if self.damages > 0 && !self.drives[drive].damaged {
            events.push(Event::Fault(Fault::Damage));
        }
        events
    }

    /// Brings about an outcome at `drive`, all but the answer to the request itself.
    pub(crate) fn take(&mut self, drive: usize, outcome: &Outcome) {
        if let Some(violation) = &outcome.violation {
            self.violated(|| violation.clone());
        }
        self.drives[drive] = outcome.drive.clone();
        for event in &*outcome.first {
            match event {
                Event::Asked { .. } | Event::Stale { .. } => {}
                Event::Fault(Fault::Restart) => self.restarts -= 1,
                Event::Fault(_) => self.damages -= 1,
            }
        }
        for (client, answer) in &outcome.answers {
            *self.sent_mut(usize::from(*client), drive) = Sent::Answered(answer.clone());
        }
        self.stale[drive] = outcome.stale.clone();
    }

    /// From now on nobody listens to the answer of this request.
    pub(crate) fn abandon(&mut self, drive: usize, message: Message) {
        let stale = Rc::make_mut(&mut self.stale[drive]);
        // Handling the very same twice is as good as once.
        if let Err(at) = stale.binary_search_by_key(&message.hash, |other| other.hash) {
            stale.insert(at, message);
        }
    }

    /// The newest map that was decided.
    pub(crate) fn newest_map(&self) -> Epoch {
        self.maps.last().map_or(Epoch(1), |map| map.epoch)
    }

    /// Takes note of what the drives have decided by now; judges it.
    pub(crate) fn note_decisions(&mut self, rules: &Rules) {
        let quorums = rules.deciding;
        let drives = self.drives.clone();
        for vote in drives.iter().flat_map(|drive| &drive.votes) {
            let (slot, operation) = (vote.slot, vote.operation);
            if self.decided.contains(&(slot, operation)) {
                continue;
            }
            let of = |place: &&Place| {
                let same = |other: &&Vote| {
                    (other.slot, other.ballot, other.operation) == (slot, vote.ballot, operation)
                        && (other.voting || !vote.ballot.is_fast())
                };
                place.votes.iter().any(|other| same(&other))
            };
            let needed = if vote.ballot.is_fast() { quorums.fast } else { quorums.accept };
            if drives.iter().filter(of).count() < needed {
                continue;
            }
            let mixed = drives.iter().flat_map(|drive| &drive.votes).any(|other| {
                (other.slot, other.ballot, other.operation) == (slot, vote.ballot, operation)
                    && other.epoch != vote.epoch
            });
            if mixed {
                self.violated(|| format!("I10: ballot {:?} of {slot:?} mixes epochs", vote.ballot));
            }
            self.decide(rules, slot, operation);
        }
        self.forget_votes();
    }

    /// What was accepted of a value that is decided says nothing any more.
    fn forget_votes(&mut self) {
        let told = |vote: &Vote| self.decided.contains(&(vote.slot, vote.operation));
        for place in &mut self.drives {
            if place.votes.iter().any(told) {
                let mut drive = place.value.clone();
                drive.votes.retain(|vote| !told(vote));
                *place = super::delivery::place(drive);
            }
        }
    }

    fn decide(&mut self, rules: &Rules, slot: Slot, operation: u8) {
        if let Some(other) = self.operation_in(slot) {
            self.violated(|| format!("I1: {slot:?} decided for op{other} and for op{operation}"));
        }
        if let Some((other, _)) = self.decided.iter().find(|(_, decided)| *decided == operation) {
            let other = *other;
            self.violated(|| format!("I2: op{operation} decided in {other:?} and in {slot:?}"));
        }
        let before = Slot { sequence: slot.sequence - 1, ..slot };
        if before.sequence > 0 && self.operation_in(before).is_none() {
            self.violated(|| format!("I3: {slot:?} decided before {before:?}"));
        }
        self.decided.push((slot, operation));
        self.decided.sort_unstable();
        let record = &rules.records[usize::from(operation)];
        let here = |place: &&Place| place.named & place.shards & 1 << operation != 0;
        let copies = self.drives.iter().filter(here).count();
        if record.payload_count() > 0 && copies == 0 && self.lost.is_none() {
            self.violated(|| format!("I8: op{operation} decided, and its payload is nowhere"));
        }
    }

    /// Judges what a client is about to send.
    pub(crate) fn judge_request(&mut self, rules: &Rules, request: &Request) {
        let certificate = match request {
            Request::Prepare { base, .. } | Request::Accept { base, .. } => *base,
            Request::Certify { certificate, .. } => Some(*certificate),
            _ => None,
        };
        let decided = |world: &Self, slot: Slot, operation: u128| {
            world.operation_in(slot).is_some_and(|decided| u128::from(decided) == operation)
        };
        if let Some(certificate) = certificate
            && !decided(self, certificate.slot, certificate.operation.0)
        {
            self.violated(|| format!("I3: a certificate of what is not decided: {certificate:?}"));
        }
        match request {
            Request::Learn { slot, record, .. } if !decided(self, *slot, record.operation().0) => {
                self.violated(|| format!("I1: taught {slot:?}, which is not decided"));
            }
            Request::Accept { slot, ballot, epoch, .. } if !ballot.is_fast() => {
                let promised = |place: &&Place| {
                    let digest = place.state.digest(1, |_| false);
                    let head = digest.slots.first().filter(|state| state.certified);
                    let passed = head.is_some_and(|head| head.slot >= *slot);
                    let here = digest.slots.iter().find(|state| state.slot == *slot);
                    let promised = here.is_some_and(|state| state.promised >= *ballot);
                    // What a lost drive had promised was lost with it.
                    let lost = place.replaced && *epoch < JOINED;
                    place.votes_in(*epoch) && (passed || promised || lost)
                };
                let promises = self.drives.iter().filter(promised).count();
                let needed = rules.deciding.read;
                if promises < needed {
                    let by = "voting drives promised";
                    self.violated(|| format!("I9: {promises} {by} {ballot:?} of {slot:?}"));
                }
            }
            _ => {}
        }
    }
}

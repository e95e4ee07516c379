//! One state of the model: drives, clients, what is under way, and what the model itself remembers (which
//! values were decided, which faults are still in store). Everything is named by its number in the atlas.
//!
//! Two states are one if they differ only in which drive is which. Everything that a state says of one
//! drive stands in that drive's signature, and nothing in it names another drive; so the sorted
//! signatures, with what concerns no drive, are the canonical form.

use basalt_engine::record::Layout;
use basalt_engine::request::Request;
use basalt_engine::units::{Ballot, DriveIndex, Epoch, Slot};

use super::atlas::{Atlas, Number, Place};
use super::client::Floor;
use super::delivery::{Event, Outcome};
use super::drive::{Acceptance, Drive, Fault, Vote};
use super::message::hash_of;
use super::rules::{CLIENTS_MAX, DRIVES_MAX, LOST};

/// What became of a client's present request to one drive.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub(crate) enum Sent {
    /// There is none, or its answer was taken.
    #[default]
    Nothing,
    Asked(Number),
    Answered(Number),
}

/// The place of a drive, and what is under way there.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct At {
    pub(crate) place: Number,
    /// Requests to whose answers nobody listens.
    pub(crate) stale: Number,
    /// For each client.
    pub(crate) sent: [Sent; CLIENTS_MAX],
}

/// The operations that were decided, by slot: one more than the operation, 0 where there is none yet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash, Debug)]
pub(crate) struct Decided([u8; 6]);

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct World {
    pub(crate) drives: [At; DRIVES_MAX],
    pub(crate) clients: [Number; CLIENTS_MAX],
    pub(crate) drive_count: u8,
    pub(crate) client_count: u8,
    pub(crate) decided: Decided,
    /// Classic ballots begun.
    pub(crate) ballots: u8,
    pub(crate) restarts: u8,
    pub(crate) damages: u8,
    pub(crate) lost: Option<DriveIndex>,
    /// The newest map that was decided.
    pub(crate) newest_map: Epoch,
    /// Operations with payloads that were answered as written, one bit each.
    pub(crate) acknowledged: u8,
    /// In this step something was sent that nobody waits for.
    pub(crate) posted: bool,
    pub(crate) violation: Option<&'static str>,
}

impl Decided {
    pub(crate) fn in_slot(&self, slot: Slot) -> Option<u8> {
        let operation = self.0.get((slot.sequence as usize).checked_sub(1)?)?;
        operation.checked_sub(1)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (Slot, u8)> {
        let slots = std::iter::successors(Some(Slot::first(1)), |slot| Some(slot.next()));
        slots.zip(self.0).filter_map(|(slot, operation)| Some((slot, operation.checked_sub(1)?)))
    }

    pub(crate) fn last(&self) -> Option<(Slot, u8)> {
        self.all().last()
    }

    pub(crate) fn add(&mut self, slot: Slot, operation: u8) {
        self.0[slot.sequence as usize - 1] = operation + 1;
    }
}

impl World {
    pub(crate) fn drives(&self) -> std::ops::Range<usize> {
        0..usize::from(self.drive_count)
    }

    pub(crate) fn clients(&self) -> std::ops::Range<usize> {
        0..usize::from(self.client_count)
    }

    /// Everything that the state says of one drive.
    pub(crate) fn signature(&self, atlas: &Atlas<'_>, drive: usize) -> u64 {
        let At { place, stale, sent } = &self.drives[drive];
        let mut parts = [0; CLIENTS_MAX];
        for client in self.clients() {
            parts[client] = atlas.with_kept(self.clients[client], |kept| kept.parts[drive]);
        }
        hash_of((place, stale, sent, parts))
    }

    pub(crate) fn signatures(&self, atlas: &Atlas<'_>) -> [u64; DRIVES_MAX] {
        let mut signatures = [0; DRIVES_MAX];
        self.drives().for_each(|drive| signatures[drive] = self.signature(atlas, drive));
        signatures
    }

    /// One hash for all states that differ only in which drive is which.
    pub(crate) fn canonical(&self, atlas: &Atlas<'_>) -> u64 {
        let mut signatures = self.signatures(atlas);
        signatures.sort_unstable();
        let mut common = [0; CLIENTS_MAX];
        for client in self.clients() {
            common[client] = atlas.with_kept(self.clients[client], |kept| kept.common);
        }
        let Self { decided, acknowledged, ballots, restarts, damages, newest_map, lost, .. } = self;
        let rest = (decided, acknowledged, ballots, restarts, damages, newest_map, lost.is_some());
        hash_of((signatures, common, rest))
    }

    /// One hash for this state alone, whichever drives are alike.
    pub(crate) fn exact(&self, atlas: &Atlas<'_>) -> u64 {
        hash_of((self.canonical(atlas), self.signatures(atlas)))
    }

    pub(crate) fn violated(&mut self, what: impl FnOnce() -> String) {
        if self.violation.is_none() {
            self.violation = Some(what().leak());
        }
    }

    /// What may be handled at `drive` before a request of `client`.
    pub(crate) fn first_at(
        &self,
        atlas: &Atlas<'_>,
        client: Option<usize>,
        drive: usize,
    ) -> Vec<Event> {
        let At { place, stale, sent } = &self.drives[drive];
        let mut events = Vec::new();
        for other in self.clients().filter(|other| Some(*other) != client) {
            if let Sent::Asked(request) = sent[other] {
                events.push(Event::Asked { client: other as u8, request });
            }
        }
        events.extend(atlas.under_way(*stale).iter().map(|&request| Event::Stale { request }));
        events.extend(self.faults_at(atlas, *place).into_iter().flatten().map(Event::Fault));
        events
    }

    pub(crate) fn faults_at(&self, atlas: &Atlas<'_>, place: Number) -> [Option<Fault>; 2] {
        let (forgetful, damaged) = atlas.at(place, |place| (place.forgetful, place.drive.damaged));
        let restart = self.restarts > 0 && forgetful;
        let damage = self.damages > 0 && !damaged;
        [restart.then_some(Fault::Restart), damage.then_some(Fault::Damage)]
    }

    /// What may happen at `drive` before and while `own` is handled.
    pub(crate) fn outcomes(
        &self,
        atlas: &Atlas<'_>,
        drive: usize,
        own: Event,
    ) -> std::rc::Rc<Vec<Outcome>> {
        let At { place, stale, sent } = &self.drives[drive];
        let mut asked = [0; CLIENTS_MAX];
        for client in self.clients() {
            if let Sent::Asked(request) = sent[client] {
                asked[client] = request + 1;
            }
        }
        let faults = (self.restarts > 0, self.damages > 0);
        atlas.outcomes(hash_of((place, stale, asked, faults, own)), *place, || {
            let client = match own {
                Event::Asked { client, .. } => Some(usize::from(client)),
                Event::Stale { .. } | Event::Fault(_) => None,
            };
            let mut first = self.first_at(atlas, client, drive);
            first.retain(|event| *event != own);
            (first, own)
        })
    }

    /// Brings about an outcome at `drive`, all but the answer to the request itself.
    pub(crate) fn take(&mut self, atlas: &Atlas<'_>, drive: usize, outcome: &Outcome) {
        if self.violation.is_none() {
            self.violation = outcome.violation;
        }
        for event in &*outcome.first {
            match event {
                Event::Asked { .. } | Event::Stale { .. } => {}
                Event::Fault(Fault::Restart) => self.restarts -= 1,
                Event::Fault(_) => self.damages -= 1,
            }
        }
        for &(client, answer) in &outcome.answers {
            self.was_answered(atlas, usize::from(client));
            self.drives[drive].sent[usize::from(client)] = Sent::Answered(answer);
        }
        self.drives[drive].place = outcome.place;
        self.drives[drive].stale = outcome.stale;
    }

    /// A question of the client has an answer.
    pub(crate) fn was_answered(&mut self, atlas: &Atlas<'_>, client: usize) {
        let decided = self.decided.last().map(|(slot, _)| slot);
        self.clients[client] = atlas.since(self.clients[client], decided);
    }

    /// Whether there is a read of which nobody can tell yet when it began.
    pub(crate) fn may_begin_to_read(&self, atlas: &Atlas<'_>) -> bool {
        let open = |client: usize| {
            atlas.with_kept(self.clients[client], |kept| kept.client.floor == Floor::Open)
        };
        self.clients().any(open)
    }

    /// Takes note of what the drives have decided by now; judges it.
    pub(crate) fn note_decisions(&mut self, atlas: &Atlas<'_>) {
        let open = |drive: usize| {
            atlas.at(self.drives[drive].place, |place| !place.drive.votes.is_empty())
        };
        if !self.drives().any(open) {
            return;
        }
        let (rules, quorums) = (atlas.rules, atlas.rules.deciding);
        let places: Vec<_> = self.drives().map(|at| atlas.drive(self.drives[at].place)).collect();
        for vote in places.iter().flat_map(|place| &place.drive.votes) {
            let (slot, operation) = (vote.slot, vote.operation);
            if self.decided.in_slot(slot) == Some(operation) {
                continue;
            }
            let of = |drive: &Drive| {
                let same = |other: &&Vote| {
                    (other.slot, other.ballot, other.operation) == (slot, vote.ballot, operation)
                        && (other.voting || !vote.ballot.is_fast())
                };
                drive.votes.iter().any(|other| same(&other))
            };
            let needed = if vote.ballot.is_fast() { quorums.fast } else { quorums.accept };
            if places.iter().filter(|place| of(&place.drive)).count() < needed {
                continue;
            }
            let mixed = places.iter().flat_map(|place| &place.drive.votes).any(|other| {
                (other.slot, other.ballot, other.operation) == (slot, vote.ballot, operation)
                    && other.epoch != vote.epoch
            });
            if mixed {
                self.violated(|| format!("I10: ballot {:?} of {slot:?} mixes epochs", vote.ballot));
            }
            let record = &rules.records[usize::from(operation)];
            let here = |drive: &Drive| drive.named & drive.shards & 1 << operation != 0;
            let copies = places.iter().filter(|place| here(&place.drive)).count();
            self.decide(slot, operation, record.payload_count() > 0 && copies == 0);
            self.judge_losses(atlas);
        }
        self.forget_votes(atlas);
    }

    /// A client says that it has written.
    pub(crate) fn acknowledge(&mut self, atlas: &Atlas<'_>, operation: u8) {
        if atlas.rules.records[usize::from(operation)].payload_count() > 0 {
            self.acknowledged |= 1 << operation;
            self.judge_losses(atlas);
        }
    }

    /// I7: what survives the loss of one drive, and was acknowledged, is not declared to be lost; nor is
    /// anything but what was decided just before.
    fn judge_losses(&mut self, atlas: &Atlas<'_>) {
        let decided = self.decided;
        for (slot, operation) in decided.all() {
            let Some(lost) = operation.checked_sub(LOST) else { continue };
            let before = Slot { sequence: slot.sequence - 1, ..slot };
            if self.decided.in_slot(before) != Some(lost) {
                self.violated(|| format!("I6: op{lost} is declared lost in {slot:?}"));
            }
            let spare = |layout: Layout| layout.parity_shards > 0;
            let survives = atlas.rules.records[usize::from(lost)].payloads().all(spare);
            if survives && self.acknowledged & 1 << lost != 0 {
                self.violated(|| format!("I7: op{lost} is acknowledged, and declared lost"));
            }
        }
    }

    /// What was accepted of a value that is decided says nothing any more.
    fn forget_votes(&mut self, atlas: &Atlas<'_>) {
        let decided = self.decided;
        for drive in self.drives() {
            let place = self.drives[drive].place;
            let told = |vote: &Vote| decided.in_slot(vote.slot) == Some(vote.operation);
            if atlas.at(place, |place| place.drive.votes.iter().any(told)) {
                self.drives[drive].place = atlas.without_votes(place, decided);
            }
        }
    }

    /// What was accepted at a ballot that can decide nothing any more says nothing either: its request
    /// went to all who will ever have it, and too few have accepted it, or may yet.
    pub(crate) fn forget_vain_votes(&mut self, atlas: &Atlas<'_>) {
        for drive in self.drives() {
            let place = self.drives[drive].place;
            if atlas.at(place, |place| place.drive.votes.is_empty()) {
                continue;
            }
            for vote in &atlas.drive(place).drive.votes {
                if !self.may_be_decided(atlas, vote.acceptance()) {
                    let place = self.drives[drive].place;
                    self.drives[drive].place = atlas.without_vote(place, vote.acceptance());
                }
            }
        }
    }

    fn may_be_decided(&self, atlas: &Atlas<'_>, acceptance: Acceptance) -> bool {
        let (_, ballot, _) = acceptance;
        let quorums = atlas.rules.deciding;
        let needed = if ballot.is_fast() { quorums.fast } else { quorums.accept };
        let may = |drive: usize| {
            let At { place, stale, sent } = &self.drives[drive];
            let accepts = |place: &Place| {
                place.drive.votes.iter().any(|vote| vote.acceptance() == acceptance)
            };
            let is_same = |request: Number| atlas.acceptance(request) == Some(acceptance);
            let asked = |sent: &Sent| matches!(sent, Sent::Asked(request) if is_same(*request));
            atlas.at(*place, accepts)
                || sent.iter().any(asked)
                || atlas.under_way(*stale).iter().any(|request| is_same(*request))
        };
        self.drives().filter(|drive| may(*drive)).count() >= needed
    }

    fn decide(&mut self, slot: Slot, operation: u8, nowhere: bool) {
        if let Some(other) = self.decided.in_slot(slot) {
            self.violated(|| format!("I1: {slot:?} decided for op{other} and for op{operation}"));
        }
        let before = self.decided.all().find(|(_, decided)| *decided == operation);
        if let Some((other, _)) = before {
            self.violated(|| format!("I2: op{operation} decided in {other:?} and in {slot:?}"));
        }
        let before = Slot { sequence: slot.sequence - 1, ..slot };
        if before.sequence > 0 && self.decided.in_slot(before).is_none() {
            self.violated(|| format!("I3: {slot:?} decided before {before:?}"));
        }
        self.decided.add(slot, operation);
        if nowhere && self.lost.is_none() {
            self.violated(|| format!("I8: op{operation} decided, and its payload is nowhere"));
        }
    }

    /// Judges what a client is about to send.
    pub(crate) fn judge_request(&mut self, atlas: &Atlas<'_>, request: &Request) {
        let certificate = match request {
            Request::Prepare { base, .. } | Request::Accept { base, .. } => *base,
            Request::Certify { certificate, .. } => Some(*certificate),
            _ => None,
        };
        let decided = |world: &Self, slot: Slot, operation: u128| {
            world.decided.in_slot(slot).is_some_and(|decided| u128::from(decided) == operation)
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
                let promises = self.promises(atlas, *slot, *ballot, *epoch);
                if promises < atlas.rules.deciding.read {
                    let by = "voting drives promised";
                    self.violated(|| format!("I9: {promises} {by} {ballot:?} of {slot:?}"));
                }
            }
            _ => {}
        }
    }

    fn promises(&self, atlas: &Atlas<'_>, slot: Slot, ballot: Ballot, epoch: Epoch) -> usize {
        let drives = self.drives[self.drives()].iter();
        drives.filter(|at| atlas.promised(at.place, slot, ballot, epoch)).count()
    }
}

//! What can happen at one drive before and while one request is handled there.
//!
//! An [`Outcome`] is: some of what else is under way to the drive is handled first, in some order, then
//! the request itself. An order is left out where something that is handled first might as well be
//! handled after the request, with the same answers and the same state of the drive: then it is put off,
//! and the steps of the model that follow have it where it does make a difference.
//!
//! A request may arrive twice. After most that were handled nothing is left that a second one could do
//! (`Drive::is_spent`); where something is, it stays under way.

use std::rc::Rc;

use super::atlas::{Atlas, Number};
use super::drive::{Drive, Fault};
use super::message::{Seen, hash_of};

/// Something under way to a drive, or in store for it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Event {
    /// What a client waits for an answer to.
    Asked {
        client: u8,
        request: Number,
    },
    /// What nobody waits for an answer to any more.
    Stale {
        request: Number,
    },
    Fault(Fault),
}

impl Event {
    pub(crate) fn request(self) -> Option<Number> {
        match self {
            Self::Asked { request, .. } | Self::Stale { request } => Some(request),
            Self::Fault(_) => None,
        }
    }
}

pub(crate) struct Outcome {
    pub(crate) place: Number,
    /// What was handled first.
    pub(crate) first: Rc<Vec<Event>>,
    /// The answers to clients' requests that were handled first.
    pub(crate) answers: Vec<(u8, Number)>,
    /// The answer to the request itself, where somebody waits for it.
    pub(crate) own: Option<Number>,
    /// What is still under way, and nobody listens to its answer.
    pub(crate) stale: Number,
    pub(crate) violation: Option<&'static str>,
}

struct Search<'a> {
    atlas: &'a Atlas<'a>,
    start: &'a Drive,
    first: &'a [Event],
    own: &'a Event,
    seen: Seen,
    outcomes: Vec<Outcome>,
}

/// What events did to a drive, in order.
#[derive(Clone)]
pub(crate) struct Handled {
    pub(crate) drive: Drive,
    /// An answer for each event, in the order of the events; `None` where none is waited for.
    pub(crate) answers: Vec<Option<Number>>,
    pub(crate) violation: Option<String>,
}

/// The outcomes of `own` at `place`, of which `first` may come before.
pub(crate) fn search(
    atlas: &Atlas<'_>,
    place: Number,
    first: &[Event],
    own: &Event,
) -> Vec<Outcome> {
    let place = atlas.drive(place);
    let (seen, outcomes, start) = (Seen::default(), Vec::new(), &place.drive);
    let mut search = Search { atlas, start, first, own, seen, outcomes };
    search.extend(&mut Vec::new(), &Handled::nothing(start.clone()));
    search.outcomes
}

impl Handled {
    pub(crate) fn nothing(drive: Drive) -> Self {
        Self { drive, answers: Vec::new(), violation: None }
    }

    pub(crate) fn then(mut self, atlas: &Atlas<'_>, event: Event) -> Self {
        let before = self.drive.clone();
        let answered = match event {
            Event::Asked { request, .. } => {
                let reply = self.drive.answer(atlas.rules, &atlas.requested(request));
                Some(atlas.answer(reply))
            }
            Event::Stale { request } => {
                self.drive.answer(atlas.rules, &atlas.requested(request));
                None
            }
            Event::Fault(fault) => {
                self.drive.suffer(atlas.rules, fault);
                None
            }
        };
        self.answers.push(answered);
        if !matches!(event, Event::Fault(Fault::Damage | Fault::Wipe)) {
            self.violation = self.violation.take().or_else(|| before.went_back(&self.drive));
        }
        self
    }
}

impl Search<'_> {
    fn extend(&mut self, order: &mut Vec<usize>, so_far: &Handled) {
        let done = so_far.clone().then(self.atlas, *self.own);
        if !self.is_put_off_better(order, &done) {
            self.note(order, done);
        }
        for next in 0..self.first.len() {
            if order.contains(&next) {
                continue;
            }
            let after = so_far.clone().then(self.atlas, self.first[next]);
            let silent = !matches!(self.first[next], Event::Asked { .. });
            if silent && after.drive == so_far.drive {
                continue;
            }
            order.push(next);
            self.extend(order, &after);
            order.pop();
        }
    }

    /// Whether one of those handled first could as well come after `own`.
    fn is_put_off_better(&self, order: &[usize], done: &Handled) -> bool {
        (0..order.len()).any(|at| {
            let mut later = Handled::nothing(self.start.clone());
            let others = order.iter().enumerate().filter(|(other, _)| *other != at);
            for (_, event) in others {
                later = later.then(self.atlas, self.first[*event]);
            }
            later = later.then(self.atlas, *self.own).then(self.atlas, self.first[order[at]]);
            let put_off = later.answers.pop().expect("one for each event");
            later.answers.insert(at, put_off);
            later.drive == done.drive && later.answers == done.answers
        })
    }

    fn note(&mut self, order: &[usize], mut done: Handled) {
        let own = done.answers.pop().expect("one for each event");
        let first: Vec<Event> = order.iter().map(|event| self.first[*event]).collect();
        let answered = first.iter().zip(done.answers).filter_map(|(event, answered)| match event {
            Event::Asked { client, .. } => Some((*client, answered?)),
            _ => None,
        });
        let mut answers: Vec<(u8, Number)> = answered.collect();
        answers.sort_unstable_by_key(|(client, _)| *client);
        let mut used: Vec<usize> = order.to_vec();
        used.sort_unstable();
        let place = self.atlas.place(done.drive);
        // What was handled may arrive again, and what was not is under way as before.
        let handled = first.iter().chain([self.own]).copied();
        let others =
            self.first.iter().copied().filter(|event| matches!(event, Event::Stale { .. }));
        let left = handled.chain(others).filter_map(Event::request);
        let left = left.filter(|request| !self.atlas.is_spent(place, *request));
        let stale = self.atlas.stale(left.collect());
        if self.seen.insert(hash_of((place, &used, &answers, own, stale))) {
            let violation = done.violation.map(|what| &*what.leak());
            let first = Rc::new(first);
            self.outcomes.push(Outcome { place, first, answers, own, stale, violation });
        }
    }
}

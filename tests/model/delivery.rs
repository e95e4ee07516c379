//! What can happen at one drive before and while one request is handled there.
//!
//! An [`Outcome`] is: some of what else is under way to the drive is handled first, in some order, then
//! the request itself. An order is left out where something that is handled first might as well be
//! handled after the request, with the same answers and the same state of the drive: then it is put off,
//! and the steps of the model that follow have it where it does make a difference.

use std::cell::RefCell;
use std::rc::Rc;

use basalt_engine::request::SetMap;
use basalt_engine::units::DriveIndex;

use super::drive::{Drive, Fault};
use super::message::{Answer, Hashed, Known, Message, Seen, answer, hash_of};
use super::rules::Rules;

pub(crate) type Place = Rc<Hashed<Drive>>;

pub(crate) fn place(drive: Drive) -> Place {
    Rc::new(Hashed { hash: hash_of(&drive), value: drive })
}

/// Something under way to a drive, or in store for it.
#[derive(Clone, Hash)]
pub(crate) enum Event {
    /// What a client waits for an answer to.
    Asked {
        client: u8,
        message: Message,
    },
    /// What nobody waits for an answer to any more.
    Stale {
        message: Message,
    },
    Fault(Fault),
}

#[derive(Clone)]
pub(crate) struct Outcome {
    pub(crate) drive: Place,
    /// What was handled first.
    pub(crate) first: Rc<Vec<Event>>,
    /// The answers to clients' requests that were handled first.
    pub(crate) answers: Vec<(u8, Answer)>,
    /// The answer to the request itself.
    pub(crate) own: Option<Answer>,
    /// What is still under way, and nobody listens to its answer.
    pub(crate) stale: Rc<Vec<Message>>,
    pub(crate) violation: Option<String>,
}

/// All outcomes at one drive; the same question has the same answer.
pub(crate) struct Deliveries {
    known: RefCell<Known<u64, Rc<Vec<Outcome>>>>,
    spent: RefCell<Known<(u64, u64), bool>>,
}

struct Search<'a> {
    rules: &'a Rules,
    maps: &'a [SetMap],
    start: &'a Drive,
    first: &'a [Event],
    own: &'a Event,
    seen: Seen,
    outcomes: Vec<Outcome>,
}

/// What events did to a drive, in order.
#[derive(Clone)]
struct Handled {
    drive: Drive,
    /// An answer for each event, in the order of the events; `None` where none is waited for.
    answers: Vec<Option<Answer>>,
    violation: Option<String>,
}

impl Deliveries {
    pub(crate) fn new() -> Self {
        Self { known: RefCell::default(), spent: RefCell::default() }
    }

    /// The outcomes of `own` at `drive`, of which `first` may come before.
    pub(crate) fn of(
        &self,
        rules: &Rules,
        lost: Option<DriveIndex>,
        drive: &Place,
        first: &[Event],
        own: &Event,
    ) -> Rc<Vec<Outcome>> {
        let question = hash_of((lost, drive.hash, first, own));
        if let Some(known) = self.known.borrow().get(&question) {
            return known.clone();
        }
        let (seen, outcomes, maps) = (Seen::default(), Vec::new(), &rules.maps(lost));
        let mut search = Search { rules, maps, start: drive, first, own, seen, outcomes };
        let begun = Handled { drive: drive.value.clone(), answers: Vec::new(), violation: None };
        search.extend(&mut Vec::new(), &begun);
        let outcomes = Rc::new(search.outcomes);
        self.known.borrow_mut().insert(question, outcomes.clone());
        outcomes
    }

    /// Whether the message does nothing at the drive any more.
    pub(crate) fn is_spent(&self, rules: &Rules, drive: &Place, message: &Message) -> bool {
        let question = (drive.hash, message.hash);
        let known = self.spent.borrow().get(&question).copied();
        known.unwrap_or_else(|| {
            let spent = drive.is_spent(rules, message);
            self.spent.borrow_mut().insert(question, spent);
            spent
        })
    }
}

impl Search<'_> {
    fn extend(&mut self, order: &mut Vec<usize>, so_far: &Handled) {
        let done = self.handle(so_far.clone(), self.own);
        if !self.is_put_off_better(order, &done) {
            self.note(order, done);
        }
        for next in 0..self.first.len() {
            if order.contains(&next) {
                continue;
            }
            let after = self.handle(so_far.clone(), &self.first[next]);
            let silent = !matches!(self.first[next], Event::Asked { .. });
            if silent && after.drive == so_far.drive {
                continue;
            }
            order.push(next);
            self.extend(order, &after);
            order.pop();
        }
    }

    fn handle(&self, mut so_far: Handled, event: &Event) -> Handled {
        let before = so_far.drive.clone();
        let answered = match event {
            Event::Asked { message, .. } => {
                Some(answer(so_far.drive.answer(self.rules, self.maps, message)))
            }
            Event::Stale { message } => {
                so_far.drive.answer(self.rules, self.maps, message);
                None
            }
            Event::Fault(fault) => {
                so_far.drive.suffer(self.rules, *fault);
                None
            }
        };
        so_far.answers.push(answered);
        if !matches!(event, Event::Fault(Fault::Damage | Fault::Wipe)) {
            so_far.violation = so_far.violation.take().or_else(|| before.went_back(&so_far.drive));
        }
        so_far
    }

    /// Whether one of those handled first could as well come after `own`.
    fn is_put_off_better(&self, order: &[usize], done: &Handled) -> bool {
        (0..order.len()).any(|at| {
            let mut later =
                Handled { drive: self.start.clone(), answers: Vec::new(), violation: None };
            let others = order.iter().enumerate().filter(|(other, _)| *other != at);
            for (_, event) in others {
                later = self.handle(later, &self.first[*event]);
            }
            later = self.handle(later, self.own);
            later = self.handle(later, &self.first[order[at]]);
            let put_off = later.answers.pop().expect("one for each event");
            later.answers.insert(at, put_off);
            let hashes = |handled: &Handled| -> Vec<Option<u64>> {
                handled.answers.iter().map(|answer| answer.as_ref().map(|a| a.hash)).collect()
            };
            later.drive == done.drive && hashes(&later) == hashes(done)
        })
    }

    fn note(&mut self, order: &[usize], mut done: Handled) {
        let own = done.answers.pop().expect("one for each event");
        let first: Vec<Event> = order.iter().map(|event| self.first[*event].clone()).collect();
        let answered = first.iter().zip(done.answers).filter_map(|(event, answered)| match event {
            Event::Asked { client, .. } => Some((*client, answered?)),
            _ => None,
        });
        let mut answers: Vec<(u8, Answer)> = answered.collect();
        answers.sort_unstable_by_key(|(client, _)| *client);
        let mut used: Vec<usize> = order.to_vec();
        used.sort_unstable();
        let drive = place(done.drive);
        let mut stale = Vec::new();
        for (at, event) in self.first.iter().enumerate() {
            if let Event::Stale { message } = event
                && !order.contains(&at)
                && !drive.is_spent(self.rules, message)
            {
                stale.push(message.clone());
            }
        }
        let stale = Rc::new(stale);
        if self.seen.insert(hash_of((drive.hash, &used, &answers, &own))) {
            let (first, violation) = (Rc::new(first), done.violation);
            self.outcomes.push(Outcome { drive, first, answers, own, stale, violation });
        }
    }
}

//! Everything that was met in one exploration, by number: states of drives and of clients, requests,
//! answers, what is still under way; and what follows from what, worked out once. There are thousands of
//! these where there are millions of states, so a state is a row of numbers, and a step is a few look-ups.
//!
//! Things with one 64-bit hash are one thing, as states are.

use std::cell::RefCell;
use std::hash::Hash;
use std::rc::Rc;

use basalt_engine::request::{Reply, Request, SetMap};
use basalt_engine::units::{Ballot, DriveIndex, Epoch, Slot};
use basalt_net::exchange::Step;

use super::client::{Came, Client, Floor, Input, Kept};
use super::delivery::{Event, Outcome, search};
use super::drive::{Acceptance, Drive, acceptance};
use super::message::{Known, answer_hash, given, hash_of, request_hash};
use super::rules::{Rules, operation};
use super::world::Decided;

pub(crate) type Number = u32;

struct Table<T> {
    numbers: RefCell<Known<u64, Number>>,
    things: RefCell<Vec<(u64, Rc<T>)>>,
}

/// A drive, and what is asked about it often.
pub(crate) struct Place {
    pub(crate) drive: Drive,
    /// A restart would take something.
    pub(crate) forgetful: bool,
}

/// What a client does next.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Move {
    pub(crate) client: Number,
    pub(crate) what: Number,
}

pub(crate) enum What {
    Rest,
    SendMore(Vec<(usize, Number)>),
    Send { requests: Vec<(usize, Number)>, is_prepare: bool },
    CheckPayload { operation: u8, data_shards: usize },
    Pause,
    Came(Came),
}

type Question = (Number, u8, u8, Number);

pub(crate) struct Atlas<'a> {
    pub(crate) rules: &'a Rules,
    places: Table<Place>,
    requests: Table<Request>,
    answers: Table<Reply>,
    /// For one drive: the requests to whose answers nobody listens, in order.
    stale: Table<Vec<Number>>,
    clients: Table<Kept>,
    whats: RefCell<Vec<Rc<What>>>,
    told: RefCell<Known<Question, Move>>,
    begun: RefCell<Known<u64, Move>>,
    outcomes: RefCell<Known<u64, Rc<Vec<Outcome>>>>,
    spent: RefCell<Known<(Number, Number), bool>>,
    promised: RefCell<Known<(Number, Slot, Ballot, Epoch), bool>>,
    abandoned: RefCell<Known<(Number, Number), Number>>,
    since: RefCell<Known<(Number, Option<Slot>), Number>>,
    without_votes: RefCell<Known<(Number, Decided), Number>>,
    without_vote: RefCell<Known<(Number, Acceptance), Number>>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { numbers: RefCell::default(), things: RefCell::default() }
    }
}

impl<T> Table<T> {
    fn number(&self, hash: u64, thing: impl FnOnce() -> T) -> Number {
        *self.numbers.borrow_mut().entry(hash).or_insert_with(|| {
            let mut things = self.things.borrow_mut();
            things.push((hash, Rc::new(thing())));
            things.len() as Number - 1
        })
    }

    fn thing(&self, number: Number) -> Rc<T> {
        self.things.borrow()[number as usize].1.clone()
    }

    fn hash(&self, number: Number) -> u64 {
        self.things.borrow()[number as usize].0
    }

    fn with<R>(&self, number: Number, ask: impl FnOnce(&T) -> R) -> R {
        ask(&self.things.borrow()[number as usize].1)
    }
}

/// The answer to a question, worked out once.
fn once<Q: Eq + Hash, A: Clone>(
    known: &RefCell<Known<Q, A>>,
    question: Q,
    answer: impl FnOnce() -> A,
) -> A {
    if let Some(known) = known.borrow().get(&question) {
        return known.clone();
    }
    let answer = answer();
    known.borrow_mut().insert(question, answer.clone());
    answer
}

impl<'a> Atlas<'a> {
    pub(crate) fn new(rules: &'a Rules) -> Self {
        let atlas = Self {
            rules,
            places: Table::default(),
            requests: Table::default(),
            answers: Table::default(),
            stale: Table::default(),
            clients: Table::default(),
            whats: RefCell::new(vec![Rc::new(What::Rest)]),
            told: RefCell::default(),
            begun: RefCell::default(),
            outcomes: RefCell::default(),
            spent: RefCell::default(),
            promised: RefCell::default(),
            abandoned: RefCell::default(),
            since: RefCell::default(),
            without_votes: RefCell::default(),
            without_vote: RefCell::default(),
        };
        atlas.stale(Vec::new());
        atlas
    }

    pub(crate) fn place(&self, drive: Drive) -> Number {
        self.places.number(hash_of(&drive), || {
            let forgetful = drive.durable != drive.state || !drive.superseded.is_empty();
            Place { drive, forgetful }
        })
    }

    pub(crate) fn drive(&self, place: Number) -> Rc<Place> {
        self.places.thing(place)
    }

    pub(crate) fn at<R>(&self, place: Number, ask: impl FnOnce(&Place) -> R) -> R {
        self.places.with(place, ask)
    }

    pub(crate) fn request(&self, request: Request) -> Number {
        self.requests.number(request_hash(&request), || request)
    }

    pub(crate) fn requested(&self, request: Number) -> Rc<Request> {
        self.requests.thing(request)
    }

    pub(crate) fn answer(&self, reply: Reply) -> Number {
        self.answers.number(answer_hash(&reply), || reply)
    }

    pub(crate) fn answered(&self, answer: Number) -> Rc<Reply> {
        self.answers.thing(answer)
    }

    pub(crate) fn stale(&self, mut requests: Vec<Number>) -> Number {
        // Not by number: what happens first in a walk must not depend on what was met before it.
        requests.sort_unstable_by_key(|request| self.requests.hash(*request));
        // Handling the very same twice is as good as once.
        requests.dedup();
        self.stale.number(hash_of(&requests), || requests)
    }

    pub(crate) fn under_way(&self, stale: Number) -> Rc<Vec<Number>> {
        self.stale.thing(stale)
    }

    /// What is under way once nobody listens to the answer to `request` any more.
    pub(crate) fn abandoned(&self, place: Number, stale: Number, request: Number) -> Number {
        if self.is_spent(place, request) {
            return stale;
        }
        once(&self.abandoned, (stale, request), || {
            let mut requests = (*self.under_way(stale)).clone();
            requests.push(request);
            self.stale(requests)
        })
    }

    pub(crate) fn client(&self, client: Client) -> Number {
        let kept = Kept::new(client, self.rules.drives);
        self.clients.number(hash_of((kept.common, kept.parts)), || kept)
    }

    pub(crate) fn kept(&self, client: Number) -> Rc<Kept> {
        self.clients.thing(client)
    }

    pub(crate) fn with_kept<R>(&self, client: Number, ask: impl FnOnce(&Kept) -> R) -> R {
        self.clients.with(client, ask)
    }

    /// The client, whose read begins no later than now.
    pub(crate) fn since(&self, client: Number, decided: Option<Slot>) -> Number {
        if !self.with_kept(client, |kept| kept.client.floor == Floor::Open) {
            return client;
        }
        once(&self.since, (client, decided), || {
            let mut client = self.kept(client).client.clone();
            client.floor = Floor::At(decided);
            self.client(client)
        })
    }

    pub(crate) fn what(&self, went: Move) -> Rc<What> {
        self.whats.borrow()[went.what as usize].clone()
    }

    /// A client that rests.
    pub(crate) fn resting(client: Number) -> Move {
        Move { client, what: 0 }
    }

    pub(crate) fn hear(&self, client: Number, drive: usize, answer: Number) -> Move {
        once(&self.told, (client, 0, drive as u8, answer), || {
            let reply = given(&self.answered(answer));
            self.step(client, Input::Reply(DriveIndex(drive as u8), reply))
        })
    }

    pub(crate) fn tell(&self, client: Number, input: Input) -> Move {
        let kind = match &input {
            Input::Deadline => 1,
            Input::Payload(false) => 2,
            Input::Payload(true) => 3,
            Input::Retry => 4,
            Input::Start | Input::Reply(..) => unreachable!("told elsewhere"),
        };
        once(&self.told, (client, kind, 0, 0), || self.step(client, input))
    }

    fn step(&self, client: Number, input: Input) -> Move {
        let mut client = self.kept(client).client.clone();
        let step = client.step(self.rules, input);
        self.went(client, step)
    }

    /// Where a client goes on with another machine; `why` tells apart all ways of doing so.
    pub(crate) fn begin(
        &self,
        from: Move,
        why: impl Hash,
        make: impl FnOnce(Client) -> (Client, Step<Came>),
    ) -> Move {
        once(&self.begun, hash_of((from, why)), || {
            let (client, step) = make(self.kept(from.client).client.clone());
            self.went(client, step)
        })
    }

    fn went(&self, client: Client, step: Step<Came>) -> Move {
        let numbered = |requests: Vec<(DriveIndex, Request)>| {
            let number = |(drive, request): (DriveIndex, Request)| {
                (usize::from(drive.0), self.request(request))
            };
            requests.into_iter().map(number).collect::<Vec<_>>()
        };
        let what = match step {
            Step::Wait | Step::Linger => return Self::resting(self.client(client)),
            Step::SendMore(requests) => What::SendMore(numbered(requests)),
            Step::Send(requests) | Step::SendSome(requests) => {
                let is_prepare = |request: &Request| matches!(request, Request::Prepare { .. });
                let is_prepare = requests.iter().any(|(_, request)| is_prepare(request));
                What::Send { requests: numbered(requests), is_prepare }
            }
            Step::CheckPayload(record) => {
                let data = record.payloads().next().map_or(0, |layout| layout.data_shards);
                What::CheckPayload { operation: operation(&record), data_shards: data.into() }
            }
            Step::Pause => What::Pause,
            Step::Done(came) => What::Came(came),
        };
        let client = self.client(client);
        let mut whats = self.whats.borrow_mut();
        whats.push(Rc::new(what));
        Move { client, what: whats.len() as Number - 1 }
    }

    /// The outcomes of `own` at a drive where `first` may come before. The question is put in numbers:
    /// the events are looked for only where it is new.
    pub(crate) fn outcomes(
        &self,
        question: u64,
        place: Number,
        events: impl FnOnce() -> (Vec<Event>, Event),
    ) -> Rc<Vec<Outcome>> {
        once(&self.outcomes, question, || {
            let (first, own) = events();
            Rc::new(search(self, place, &first, &own))
        })
    }

    /// Whether the request does nothing at the drive any more, whatever comes.
    pub(crate) fn is_spent(&self, place: Number, request: Number) -> bool {
        once(&self.spent, (place, request), || {
            self.drive(place).drive.is_spent(self.rules, &self.requested(request))
        })
    }

    /// Whether the drive, as one that votes in `epoch`, has promised the ballot, or had, or knows that
    /// the slot is decided.
    pub(crate) fn promised(&self, place: Number, slot: Slot, ballot: Ballot, epoch: Epoch) -> bool {
        once(&self.promised, (place, slot, ballot, epoch), || {
            self.drive(place).drive.promised(slot, ballot, epoch)
        })
    }

    /// The drive without what it remembers of acceptances that count no more.
    pub(crate) fn without_votes(&self, place: Number, decided: Decided) -> Number {
        once(&self.without_votes, (place, decided), || {
            let mut drive = self.drive(place).drive.clone();
            drive.votes.retain(|vote| decided.in_slot(vote.slot) != Some(vote.operation));
            self.place(drive)
        })
    }

    pub(crate) fn without_vote(&self, place: Number, acceptance: Acceptance) -> Number {
        once(&self.without_vote, (place, acceptance), || {
            let mut drive = self.drive(place).drive.clone();
            drive.votes.retain(|vote| vote.acceptance() != acceptance);
            self.place(drive)
        })
    }

    /// What is accepted where the request is one to accept, and not refused.
    pub(crate) fn acceptance(&self, request: Number) -> Option<Acceptance> {
        self.requests.with(request, acceptance)
    }

    pub(crate) fn map(&self, lost: Option<DriveIndex>, epoch: Epoch) -> SetMap {
        self.rules.map(lost, epoch)
    }
}

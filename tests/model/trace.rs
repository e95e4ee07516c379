//! What a step was, in words. Only the steps of a run that led to a violation are told; otherwise nothing
//! is kept.

use std::fmt::Write;
use std::rc::Rc;

use basalt_engine::request::{Reply, Request};
use basalt_net::reader::Head;
use basalt_net::update::Outcome;

use super::atlas::Atlas;
use super::delivery::Event;
use super::message::shown;
use super::world::World;

#[derive(Clone, Default)]
pub(crate) struct Trace(Option<Box<Told>>);

#[derive(Clone, Default)]
struct Told {
    client: Option<usize>,
    at: Vec<Handled>,
    deadline: bool,
    did: Vec<Did>,
}

/// At which drive, what was handled there first, and what it answered then.
type Handled = (usize, Rc<Vec<Event>>, Option<Rc<Reply>>);

/// What a client did.
#[derive(Clone)]
pub(crate) enum Did {
    Sends(Rc<Request>),
    Finds(Option<Head>),
    Comes(Outcome),
    Says(&'static str),
}

impl Trace {
    pub(crate) fn of(wanted: bool, client: Option<usize>) -> Self {
        Self(wanted.then(|| Box::new(Told { client, ..Told::default() })))
    }

    pub(crate) fn at(&mut self, drive: usize, first: &Rc<Vec<Event>>, answer: Option<Rc<Reply>>) {
        if let Some(told) = &mut self.0 {
            told.at.push((drive, first.clone(), answer));
        }
    }

    pub(crate) fn did(&mut self, what: impl FnOnce() -> Did) {
        if let Some(told) = &mut self.0 {
            told.did.push(what());
        }
    }

    pub(crate) fn with_deadline(mut self) -> Self {
        if let Some(told) = &mut self.0 {
            told.deadline = true;
        }
        self
    }

    /// The step in words, and what the drives know after it.
    pub(crate) fn told(&self, atlas: &Atlas<'_>, world: &World) -> String {
        let Some(told) = &self.0 else { return String::new() };
        let mut out = match told.client {
            Some(client) => format!("client {client}"),
            None => "unheard".to_owned(),
        };
        let shown_of = |request: u32| shown(&atlas.requested(request));
        for (drive, first, answer) in &told.at {
            let _ = write!(out, "; drive {drive}");
            for event in &**first {
                let _ = match event {
                    Event::Asked { client, request } => {
                        write!(out, " first {} of client {client},", shown_of(*request))
                    }
                    Event::Stale { request } => write!(out, " first late {},", shown_of(*request)),
                    Event::Fault(fault) => write!(out, " first {fault:?},"),
                };
            }
            if let Some(answer) = answer {
                let _ = write!(out, " answers {answer:?}");
            }
        }
        if told.deadline {
            out.push_str("; waits no longer");
        }
        for did in &told.did {
            let _ = match did {
                Did::Sends(request) => write!(out, "; sends {}", shown(request)),
                Did::Finds(head) => write!(out, "; finds {head:?}"),
                Did::Comes(outcome) => write!(out, "; comes to {outcome:?}"),
                Did::Says(what) => write!(out, "; {what}"),
            };
        }
        if let Some(client) = told.client {
            let kept = atlas.kept(world.clients[client]);
            let _ = write!(out, "; {}", kept.client.doing());
        }
        let _ = write!(out, "\n      decided {:?}", world.decided.all().collect::<Vec<_>>());
        for drive in world.drives() {
            let place = atlas.drive(world.drives[drive].place);
            let (epoch, digest) = (place.drive.epoch.0, place.drive.digest());
            let _ = write!(out, "\n      drive {drive} e{epoch}: {:?}", digest.slots);
        }
        out
    }
}

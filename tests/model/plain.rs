//! What can happen next, one event at a time: a request arrives at a drive, a client takes one answer or
//! waits no longer, a drive fails. Nothing is put together and nothing left out, so there are many more
//! states than `steps` has. Small configurations are explored both ways, and must tell the same; the
//! walks of `walk` go along these events where no exploration gets to the end.

use std::rc::Rc;

use basalt_engine::units::DriveIndex;

use super::atlas::Atlas;
use super::client::{Input, Stage};
use super::delivery::{Event, Handled};
use super::drive::{Fault, JOINED};
use super::rules::Plan;
use super::steps::Steps;
use super::trace::Trace;
use super::world::{Sent, World};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Happening {
    /// A client begins; who replaces a drive, by losing this one.
    Begins {
        client: usize,
        lost: Option<usize>,
    },
    /// A request is handled, or a fault happens.
    At {
        drive: usize,
        event: Event,
    },
    /// A client takes the answer of this drive.
    Hears {
        client: usize,
        drive: usize,
    },
    WaitsNoLonger {
        client: usize,
    },
}

/// Everything that can happen next.
pub(crate) fn happenings(atlas: &Atlas<'_>, world: &World) -> Vec<Happening> {
    let mut all = Vec::new();
    for client in world.clients() {
        let kept = atlas.kept(world.clients[client]);
        match kept.client.stage {
            Stage::Waiting if matches!(atlas.rules.clients[client], Plan::Replace) => {
                let lose = |drive| Happening::Begins { client, lost: Some(drive) };
                all.extend(world.drives().map(lose));
            }
            Stage::Waiting => all.push(Happening::Begins { client, lost: None }),
            Stage::Ended => {}
            _ => {
                all.push(Happening::WaitsNoLonger { client });
                let answered =
                    |drive: &usize| matches!(world.drives[*drive].sent[client], Sent::Answered(_));
                let hears = |drive| Happening::Hears { client, drive };
                all.extend(world.drives().filter(answered).map(hears));
            }
        }
    }
    for drive in world.drives() {
        let events = world.first_at(atlas, None, drive);
        all.extend(events.into_iter().map(|event| Happening::At { drive, event }));
    }
    all
}

impl Steps<'_> {
    /// The states that follow when this happens, but for those that were found before.
    pub(crate) fn happens(&mut self, world: &World, what: Happening) -> Vec<(Trace, World)> {
        let atlas = self.atlas;
        let mut world = *world;
        match what {
            Happening::Begins { client, lost } => {
                let mut trace = Trace::of(self.tracing, Some(client));
                if let Some(drive) = lost {
                    self.handle(&mut world, drive, Event::Fault(Fault::Wipe), &mut trace);
                    world.lost = Some(DriveIndex(drive as u8));
                    world.newest_map = JOINED;
                }
                self.begin_plan(world, client, trace);
            }
            Happening::At { drive, event } => {
                let mut trace = Trace::of(self.tracing, None);
                let before = world;
                self.handle(&mut world, drive, event, &mut trace);
                if world != before {
                    world.note_decisions(atlas);
                    self.found(trace, world);
                }
            }
            Happening::Hears { client, drive } => {
                let Sent::Answered(answer) = world.drives[drive].sent[client] else {
                    unreachable!("there is an answer")
                };
                let mut trace = Trace::of(self.tracing, Some(client));
                trace.at(drive, &Rc::default(), Some(atlas.answered(answer)));
                world.drives[drive].sent[client] = Sent::Nothing;
                let went = atlas.hear(world.clients[client], drive, answer);
                self.act(world, client, went, trace);
            }
            Happening::WaitsNoLonger { client } => {
                let trace = Trace::of(self.tracing, Some(client)).with_deadline();
                let went = atlas.tell(world.clients[client], Input::Deadline);
                self.act(world, client, went, trace);
            }
        }
        std::mem::take(&mut self.follow)
    }

    fn handle(&self, world: &mut World, drive: usize, event: Event, trace: &mut Trace) {
        let atlas = self.atlas;
        let before = atlas.drive(world.drives[drive].place);
        let done = Handled::nothing(before.drive.clone()).then(atlas, event);
        let [answer] = done.answers[..] else { unreachable!("one event") };
        trace.at(drive, &Rc::new(vec![event]), answer.map(|answer| atlas.answered(answer)));
        if let Some(violation) = done.violation {
            world.violated(|| violation);
        }
        let at = &mut world.drives[drive];
        at.place = atlas.place(done.drive);
        let mut stale = (*atlas.under_way(at.stale)).clone();
        match event {
            Event::Asked { client, .. } => {
                at.sent[usize::from(client)] = Sent::Answered(answer.expect("it was asked"));
            }
            Event::Stale { .. } => {}
            Event::Fault(Fault::Restart) => world.restarts -= 1,
            Event::Fault(Fault::Damage) => world.damages -= 1,
            Event::Fault(Fault::Wipe) => {}
        }
        stale.extend(event.request());
        stale.retain(|request| !atlas.is_spent(at.place, *request));
        at.stale = atlas.stale(stale);
    }
}

//! The way between the cores of a simulated node and the drives: delays, changed order, lost
//! requests and lost replies.
//!
//! A lost reply ends as nothing: whoever waits learns only that no more will come. It is never
//! turned into "unavailable", because a drive that says so has done nothing.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use basalt_engine::Error;
use basalt_engine::request::{Reply, Request};
use basalt_engine::seam::Spawn;
use basalt_engine::sim::SimRuntime;
use basalt_engine::units::{DriveIndex, SetIndex};
use basalt_net::mailbox::{Mailbox, Replies};
use basalt_server::node::host::Host;

use super::place::SimBay;
use super::witness::Witness;

pub type SimHost = Host<SimBay, SimRuntime>;
/// The drives of a node, each with the core that owns it.
pub type Hosts = Rc<BTreeMap<(SetIndex, DriveIndex), (SimRuntime, Rc<SimHost>)>>;

/// How messages fare.
#[derive(Clone, Debug)]
pub struct Wire {
    pub delay: Range<Duration>,
    /// The chance in a million that a message takes `slow` longer.
    pub slow_ppm: u32,
    pub slow: Range<Duration>,
    /// The queue to the owner is full: nothing is done.
    pub refused_ppm: u32,
    pub request_lost_ppm: u32,
    pub reply_lost_ppm: u32,
}

impl Wire {
    pub fn sound() -> Self {
        Self {
            delay: Duration::from_micros(1)..Duration::from_micros(20),
            slow_ppm: 0,
            slow: Duration::ZERO..Duration::ZERO,
            refused_ppm: 0,
            request_lost_ppm: 0,
            reply_lost_ppm: 0,
        }
    }

    fn delay(&self, runtime: &SimRuntime) -> Duration {
        let mut delay = runtime.delay(self.delay.clone());
        if runtime.chance(self.slow_ppm) {
            delay += runtime.delay(self.slow.clone());
        }
        delay
    }
}

/// What changes requests and replies on their way, to show that the checks would notice.
pub trait Tamper {
    fn request(&self, _host: &SimHost, _drive: DriveIndex, request: Request) -> Request {
        request
    }
    fn reply(&self, _host: &SimHost, _drive: DriveIndex, reply: Reply) -> Reply {
        reply
    }
}

#[derive(Clone)]
pub struct SimMailbox {
    core: SimRuntime,
    drives: Rc<Vec<usize>>,
    hosts: Hosts,
    wire: Rc<RefCell<Wire>>,
    tamper: Option<Rc<dyn Tamper>>,
    witness: Rc<Witness>,
}

impl SimMailbox {
    pub fn new(
        core: SimRuntime,
        hosts: Hosts,
        wire: Rc<RefCell<Wire>>,
        tamper: Option<Rc<dyn Tamper>>,
        witness: Rc<Witness>,
    ) -> Self {
        let mut drives = Vec::new();
        for (set, position) in hosts.keys() {
            let set = usize::from(set.0);
            drives.resize(drives.len().max(set + 1), 0);
            drives[set] = drives[set].max(usize::from(position.0) + 1);
        }
        Self { core, drives: Rc::new(drives), hosts, wire, tamper, witness }
    }
}

impl Mailbox for SimMailbox {
    fn drive_count(&self, set: SetIndex) -> usize {
        self.drives[usize::from(set.0)]
    }

    fn send(&self, set: SetIndex, requests: Vec<(DriveIndex, Request)>) -> Replies {
        let (sender, replies) = Replies::expect(requests.len());
        for (drive, request) in requests {
            let sender = sender.clone();
            self.send_one(set, drive, request, move |reply| {
                sender.send(drive, reply);
            });
        }
        replies
    }
}

impl SimMailbox {
    fn send_one(
        &self,
        set: SetIndex,
        drive: DriveIndex,
        request: Request,
        deliver: impl FnOnce(Reply) + 'static,
    ) {
        let wire = self.wire.borrow().clone();
        let core = self.core.clone();
        let (there, back) = (wire.delay(&core), wire.delay(&core));
        let Some((owner, host)) = self.hosts.get(&(set, drive)).cloned() else {
            return deliver(Reply::Failed(Error::Unavailable { reason: "no core owns it" }));
        };
        if core.chance(wire.refused_ppm) {
            let error = Error::Unavailable { reason: "the queue is full" };
            return core.schedule(back, move || deliver(Reply::Failed(error)));
        }
        if core.chance(wire.request_lost_ppm) {
            return;
        }
        let reply_is_lost = core.chance(wire.reply_lost_ppm);
        let tamper = self.tamper.clone();
        let request = match &tamper {
            Some(tamper) => tamper.request(&host, drive, request),
            None => request,
        };
        let witness = self.witness.clone();
        let asked = witness.asks(drive, &request);
        let wires = core.clone();
        core.schedule(there, move || {
            owner.spawn(async move {
                let reply = witness.overhear(&host, set, drive, request).await;
                let seen = asked.map(|asked| {
                    let said = witness.answered(&host, &asked, &reply);
                    (asked, said)
                });
                let reply = match tamper {
                    Some(tamper) => tamper.reply(&host, drive, reply),
                    None => reply,
                };
                if !reply_is_lost {
                    wires.schedule(back, move || {
                        if let Some((asked, said)) = &seen {
                            witness.told(asked, said);
                        }
                        deliver(reply);
                    });
                }
            });
        });
    }
}

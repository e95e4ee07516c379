//! The way between the cores of a simulated node and the drives, its own and those of other nodes: delays,
//! changed order, lost requests and lost replies. What goes to another node goes over a link
//! ([`super::network`]).
//!
//! A lost reply ends as nothing: whoever waits learns only that no more will come. It is never
//! turned into "unavailable", because a drive that says so has done nothing.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use basalt_engine::Error;
use basalt_engine::request::{Reply, Request};
use basalt_engine::seam::Spawn;
use basalt_engine::sim::SimRuntime;
use basalt_engine::units::{DriveIndex, PayloadId, SetIndex};
use basalt_net::mailbox::{Mailbox, Replies};
use basalt_server::node::formation::Found;
use basalt_server::node::host::Host;

use super::fleet::Fleet;
use super::network::{Delays, NotSent};
use super::place::SimBay;
use super::witness::{Asked, Witness};

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
    /// What is said of a request that was sent and is not answered; nothing should be.
    fn unanswered(&self) -> Option<Reply> {
        None
    }
    /// What a node that starts takes to be at a seat.
    fn found(&self, found: Found) -> Found {
        found
    }
}

/// What every mailbox of a cluster shares.
pub struct Wires {
    pub fleet: Rc<Fleet>,
    /// Drives of each set.
    pub drives: Vec<usize>,
    pub wire: Rc<RefCell<Wire>>,
    pub tamper: Option<Rc<dyn Tamper>>,
    pub witness: Rc<Witness>,
}

/// The mailbox of one core of the node `here`.
#[derive(Clone)]
pub struct SimMailbox {
    core: SimRuntime,
    here: usize,
    hosts: Hosts,
    wires: Rc<Wires>,
}

impl SimMailbox {
    pub fn new(core: SimRuntime, here: usize, hosts: Hosts, wires: Rc<Wires>) -> Self {
        Self { core, here, hosts, wires }
    }
}

impl Mailbox for SimMailbox {
    fn drive_count(&self, set: SetIndex) -> usize {
        self.wires.drives[usize::from(set.0)]
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

/// A reply, and what the drive said with it of payloads.
type Said = (Reply, Option<(Asked, Vec<PayloadId>)>);

impl SimMailbox {
    fn send_one(
        &self,
        set: SetIndex,
        drive: DriveIndex,
        request: Request,
        deliver: impl FnOnce(Reply) + 'static,
    ) {
        let wire = self.wires.wire.borrow().clone();
        let core = self.core.clone();
        let delays = Delays { there: wire.delay(&core), back: wire.delay(&core) };
        if core.chance(wire.refused_ppm) {
            let error = Error::Unavailable { reason: "the queue is full" };
            return core.schedule(delays.back, move || deliver(Reply::Failed(error)));
        }
        let request_is_lost = core.chance(wire.request_lost_ppm);
        let deliver = Unanswered::guard(&self.wires, deliver);
        if request_is_lost {
            return;
        }
        let reply_is_lost = core.chance(wire.reply_lost_ppm);
        let node = self.wires.fleet.seats.node(set, drive);
        let (wires, witness) = (self.wires.clone(), self.wires.witness.clone());
        // `None` for a reply that is lost.
        let deliver = move |said: Option<Said>| {
            let Some((reply, seen)) = said else { return };
            if let Some((asked, said)) = &seen {
                witness.told(asked, said);
            }
            deliver.answered(reply);
        };
        if node == self.here {
            let hosts = Some(self.hosts.clone());
            let back = core.clone();
            let answer = move |said| back.schedule(delays.back, move || deliver(said));
            core.schedule(delays.there, move || {
                serve(&wires, hosts, (set, drive), request, reply_is_lost, answer);
            });
            return;
        }
        let (here, failed) = (self.here, deliver);
        let failed = Rc::new(Cell::new(Some(failed)));
        let deliver = failed.clone();
        let take = |cell: &Cell<Option<_>>| cell.take().expect("one of both happens, once");
        let served = wires.clone();
        let sent = wires.fleet.network.call(
            (here, node),
            delays,
            move |answer| {
                let hosts = served.fleet.hosts(node);
                serve(&served, hosts, (set, drive), request, reply_is_lost, answer);
            },
            move |said| take(&deliver)(said),
        );
        if sent == Err(NotSent) {
            let error = Error::Unavailable { reason: "the node does not answer" };
            core.schedule(Duration::ZERO, move || {
                take(&failed)(Some((Reply::Failed(error), None)))
            });
        }
    }
}

/// Who waits for a reply. Where none comes, nothing is said, unless something tampers with that.
struct Unanswered<F: FnOnce(Reply)> {
    deliver: Option<F>,
    tamper: Option<Rc<dyn Tamper>>,
}

impl<F: FnOnce(Reply)> Unanswered<F> {
    fn guard(wires: &Wires, deliver: F) -> Self {
        Self { deliver: Some(deliver), tamper: wires.tamper.clone() }
    }

    fn answered(mut self, reply: Reply) {
        let deliver = self.deliver.take().expect("answered once");
        deliver(reply);
    }
}

impl<F: FnOnce(Reply)> Drop for Unanswered<F> {
    fn drop(&mut self) {
        let said = self.tamper.as_ref().and_then(|tamper| tamper.unanswered());
        if let (Some(deliver), Some(reply)) = (self.deliver.take(), said) {
            deliver(reply);
        }
    }
}

/// A request has come to the node of the drive: its owner core handles it.
fn serve(
    wires: &Rc<Wires>,
    hosts: Option<Hosts>,
    (set, drive): (SetIndex, DriveIndex),
    request: Request,
    reply_is_lost: bool,
    answer: impl FnOnce(Option<Said>) + 'static,
) {
    let host = hosts.as_ref().and_then(|hosts| hosts.get(&(set, drive)).cloned());
    let Some((owner, host)) = host else {
        let error = Error::Unavailable { reason: "no core owns it" };
        return answer(Some((Reply::Failed(error), None)));
    };
    let tamper = wires.tamper.clone();
    let request = match &tamper {
        Some(tamper) => tamper.request(&host, drive, request),
        None => request,
    };
    let witness = wires.witness.clone();
    let asked = witness.asks(drive, &request);
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
        answer((!reply_is_lost).then_some((reply, seen)));
    });
}

//! The links between simulated nodes, as docs/cluster.md tells them: what was not sent is told at once,
//! what was sent and not answered ends without an answer.
//!
//! Each node has a link to every other, over which it asks and is answered. When its other end has not been
//! heard for a second, it is suspect: nobody waits for what was asked, and nothing is sent, until it is
//! heard again. After three seconds the link is cut, whether the process is paused, the machine is gone or one of
//! the two ways is blocked; soon after a process has died; and at once where the nemesis says so. It is
//! up again some time after both ends run and both ways are open. What is on its way when a link is cut
//! may still arrive, however late, as long as the process lives to which it goes; answers do not.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use basalt_engine::sim::{Prng, SimRuntime};

/// A link that has heard nothing for this long is suspect, and for that long is cut; it is looked at so
/// often.
const SUSPECT_AFTER: Duration = Duration::from_secs(1);
const SILENCE_MAX: Duration = Duration::from_secs(3);
const SILENCE_LOOK: Duration = Duration::from_millis(500);
/// Until the other end hears that a process has died.
const RESET: Range<Duration> = Duration::from_micros(100)..Duration::from_millis(5);
/// How long the way takes by itself.
const WAY: Range<Duration> = Duration::from_micros(30)..Duration::from_micros(300);
/// Until a new connection stands.
const RECONNECT: Range<Duration> = Duration::from_millis(10)..Duration::from_millis(1200);

/// How long a question and its answer are on their way.
#[derive(Clone, Copy, Debug)]
pub struct Delays {
    pub there: Duration,
    pub back: Duration,
}

pub struct Network {
    /// The world's own group of tasks, which outlives every node.
    world: SimRuntime,
    nodes: Vec<End>,
    links: BTreeMap<(usize, usize), Link>,
    ways: BTreeMap<(usize, usize), Way>,
    calls: Cell<u64>,
}

/// A node as the network sees it.
#[derive(Default)]
struct End {
    /// Counts the processes, one after the other.
    life: Cell<u64>,
    runs: Cell<bool>,
    paused: Cell<bool>,
}

#[derive(Default)]
struct Link {
    up: Cell<bool>,
    suspect: Cell<bool>,
    /// Counts the times that it was cut.
    cuts: Cell<u64>,
    /// Whether both ends run and hear each other, and how often that has changed.
    sound: Cell<bool>,
    changes: Cell<u64>,
    /// What ends the wait for each answer that is still to come.
    waiting: RefCell<BTreeMap<u64, Box<dyn FnOnce()>>>,
}

/// The way from one node to another.
#[derive(Default)]
struct Way {
    blocked: Cell<bool>,
    held: RefCell<Vec<Box<dyn FnOnce()>>>,
    slower: RefCell<Option<Range<Duration>>>,
}

/// The link was down: nothing was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotSent;

impl Network {
    /// A network of nodes none of which runs.
    pub fn new(world: SimRuntime, nodes: usize) -> Rc<Self> {
        let pairs = || (0..nodes).flat_map(move |from| (0..nodes).map(move |to| (from, to)));
        let pairs = || pairs().filter(|(from, to)| from != to);
        Rc::new(Self {
            world,
            nodes: (0..nodes).map(|_| End::default()).collect(),
            links: pairs().map(|pair| (pair, Link::default())).collect(),
            ways: pairs().map(|pair| (pair, Way::default())).collect(),
            calls: Cell::new(0),
        })
    }

    /// Asks node `to`. When the question arrives, `serve` gets what takes its answer; when that has come
    /// back, `deliver` gets it. Where no answer will come, `deliver` is dropped.
    pub fn call<T: 'static>(
        self: &Rc<Self>,
        (from, to): (usize, usize),
        delays: Delays,
        serve: impl FnOnce(Box<dyn FnOnce(T)>) + 'static,
        deliver: impl FnOnce(T) + 'static,
    ) -> Result<(), NotSent> {
        let link = &self.links[&(from, to)];
        if !link.up.get() {
            return Err(NotSent);
        }
        let number = self.calls.get();
        self.calls.set(number + 1);
        let deliver = Rc::new(Cell::new(Some(deliver)));
        let forgets = deliver.clone();
        link.waiting.borrow_mut().insert(number, Box::new(move || drop(forgets.take())));
        let lives = (self.nodes[from].life.get(), self.nodes[to].life.get());
        let (network, cuts) = (self.clone(), link.cuts.get());
        let answer = {
            let network = self.clone();
            move |told: T| {
                let came = network.clone();
                let arrive = move || {
                    if came.is_same((from, to), lives.0, cuts) {
                        came.links[&(from, to)].waiting.borrow_mut().remove(&number);
                        if let Some(deliver) = deliver.take() {
                            deliver(told);
                        }
                    }
                };
                network.travel((to, from), delays.back, Box::new(arrive));
            }
        };
        let arrive = move || {
            let end = &network.nodes[to];
            if !end.runs.get() || end.life.get() != lives.1 {
                return;
            }
            // What the kernel has taken of a connection that is closed is read, or it is not.
            let is_whole = network.links[&(from, to)].cuts.get() == cuts;
            if is_whole || network.world.draw(Prng::coin) {
                serve(Box::new(answer));
            }
        };
        self.travel((from, to), delays.there, Box::new(arrive));
        Ok(())
    }

    fn is_same(&self, (from, to): (usize, usize), life: u64, cuts: u64) -> bool {
        self.nodes[from].life.get() == life && self.links[&(from, to)].cuts.get() == cuts
    }

    fn travel(self: &Rc<Self>, way: (usize, usize), delay: Duration, what: Box<dyn FnOnce()>) {
        let mut delay = delay + self.world.delay(WAY);
        if let Some(slower) = self.ways[&way].slower.borrow().clone() {
            delay += self.world.delay(slower);
        }
        let network = self.clone();
        self.world.schedule(delay, move || {
            let way = &network.ways[&way];
            match way.blocked.get() {
                true => way.held.borrow_mut().push(what),
                false => what(),
            }
        });
    }

    /// A process begins on the node.
    pub fn begins(self: &Rc<Self>, node: usize) {
        let end = &self.nodes[node];
        end.life.set(end.life.get() + 1);
        end.runs.set(true);
        end.paused.set(false);
        // No connection to the process before it leads to this one.
        for other in self.others(node) {
            self.cut((other, node));
        }
        self.changed();
    }

    /// How many processes the node has had.
    pub fn life(&self, node: usize) -> u64 {
        self.nodes[node].life.get()
    }

    /// The process of the node is no more. The others hear of it soon, unless the `machine` went as well.
    pub fn ends(self: &Rc<Self>, node: usize, machine: bool) {
        self.nodes[node].runs.set(false);
        self.changed();
        for other in self.others(node) {
            self.cut((node, other));
            let (network, pair) = (self.clone(), (other, node));
            let delay = if machine { SILENCE_MAX } else { self.world.delay(RESET) };
            let life = self.nodes[node].life.get();
            self.world.schedule(delay, move || {
                if network.nodes[node].life.get() == life {
                    network.cut(pair);
                }
            });
        }
    }

    pub fn pauses(self: &Rc<Self>, node: usize, paused: bool) {
        self.nodes[node].paused.set(paused);
        self.changed();
    }

    /// Blocks the way from one node to another, or opens it: what has waited arrives then.
    pub fn block(self: &Rc<Self>, way: (usize, usize), blocked: bool) {
        let at = &self.ways[&way];
        at.blocked.set(blocked);
        if !blocked {
            for what in at.held.take() {
                self.travel(way, self.world.delay(RESET), what);
            }
        }
        self.changed();
    }

    /// Everything on the way takes longer from now on, or not any more.
    pub fn slow(&self, way: (usize, usize), slower: Option<Range<Duration>>) {
        self.ways[&way].slower.replace(slower);
    }

    /// All ways are open and fast.
    pub fn calm(self: &Rc<Self>) {
        let ways: Vec<_> = self.ways.keys().copied().collect();
        for way in ways {
            self.slow(way, None);
            if self.ways[&way].blocked.get() {
                self.block(way, false);
            }
        }
    }

    /// Whoever waits for an answer over the link gets none. A link whose ends hear each other comes up
    /// again by itself.
    pub fn cut(self: &Rc<Self>, pair: (usize, usize)) {
        let link = &self.links[&pair];
        link.suspect.set(false);
        link.cuts.set(link.cuts.get() + 1);
        link.close();
        if link.sound.get() {
            self.reconnect(pair);
        }
    }

    pub fn others(&self, node: usize) -> impl Iterator<Item = usize> + use<> {
        (0..self.nodes.len()).filter(move |other| *other != node)
    }

    /// Looks at every link after something has changed.
    fn changed(self: &Rc<Self>) {
        for (&(from, to), link) in &self.links {
            let hears = |node: usize| self.nodes[node].runs.get() && !self.nodes[node].paused.get();
            let is_open = |way| !self.ways[&way].blocked.get();
            let sound = hears(from) && hears(to) && is_open((from, to)) && is_open((to, from));
            if link.sound.replace(sound) == sound {
                continue;
            }
            link.changes.set(link.changes.get() + 1);
            match sound {
                true if link.suspect.replace(false) => link.up.set(true),
                true if !link.up.get() => self.reconnect((from, to)),
                true => {}
                false => self.watch_silence((from, to)),
            }
        }
    }

    fn reconnect(self: &Rc<Self>, pair: (usize, usize)) {
        let changes = self.links[&pair].changes.get();
        let network = self.clone();
        self.world.schedule(self.world.delay(RECONNECT), move || {
            let link = &network.links[&pair];
            if link.changes.get() == changes && link.sound.get() {
                link.up.set(true);
            }
        });
    }

    fn watch_silence(self: &Rc<Self>, pair: (usize, usize)) {
        let changes = self.links[&pair].changes.get();
        let look = self.world.delay(Duration::ZERO..SILENCE_LOOK);
        let network = self.clone();
        self.world.schedule(SUSPECT_AFTER + look, move || {
            let link = &network.links[&pair];
            if link.changes.get() == changes && link.up.get() {
                link.suspect.set(true);
                link.close();
            }
        });
        let network = self.clone();
        self.world.schedule(SILENCE_MAX + look, move || {
            let link = &network.links[&pair];
            if link.changes.get() == changes && link.suspect.get() {
                network.cut(pair);
            }
        });
    }
}

impl Link {
    /// Nothing is sent any more, and nobody waits for an answer.
    fn close(&self) {
        self.up.set(false);
        let waiting = self.waiting.take();
        waiting.into_values().for_each(|forget| forget());
    }
}

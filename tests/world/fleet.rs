//! The processes of a simulated cluster: which of them run, what each shows to the others, and how they
//! are started, paused and killed.

use std::cell::{OnceCell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use basalt_engine::seam::{Clock, Spawn};
use basalt_engine::sim::{SimDisk, SimRuntime};
use basalt_engine::units::{DriveIndex, SetIndex};
use basalt_net::node::NodeIndex;
use basalt_server::node::founding::Ground;

use super::clients::Shared;
use super::mailbox::Hosts;
use super::network::Network;
use super::node::{Machine, Node};

/// A process that was refused its start is started again after this.
const RESTART: Duration = Duration::from_secs(1);

/// Which node each drive is on: the drives of all sets in turn.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    pub nodes: usize,
    pub drives: usize,
}

impl Spread {
    pub fn node(self, set: SetIndex, position: DriveIndex) -> usize {
        (usize::from(set.0) * self.drives + usize::from(position.0)) % self.nodes
    }
    /// The nodes of a set, by position.
    pub fn of_set(self, set: SetIndex) -> Vec<NodeIndex> {
        let positions = (0..self.drives).map(|position| DriveIndex(position as u8));
        positions.map(|position| NodeIndex(self.node(set, position) as u16)).collect()
    }
}

pub struct Fleet {
    pub seats: Spread,
    pub network: Rc<Network>,
    processes: Vec<RefCell<Option<Rc<Process>>>>,
}

/// One life of a node.
pub struct Process {
    pub group: SimRuntime,
    /// What others may do to its drives during a first start.
    pub ground: RefCell<Ground>,
    /// Its drives, once it has opened them.
    pub hosts: OnceCell<Hosts>,
}

impl Fleet {
    pub fn new(world: SimRuntime, seats: Spread) -> Rc<Self> {
        let network = Network::new(world, seats.nodes);
        let processes = (0..seats.nodes).map(|_| RefCell::new(None)).collect();
        Rc::new(Self { seats, network, processes })
    }

    pub fn process(&self, node: usize) -> Option<Rc<Process>> {
        self.processes[node].borrow().clone()
    }

    pub fn hosts(&self, node: usize) -> Option<Hosts> {
        self.process(node)?.hosts.get().cloned()
    }

    pub fn is_paused(&self, node: usize) -> bool {
        self.process(node).is_some_and(|process| process.group.is_paused())
    }
}

/// Starts the process of a node, and again should it be refused. Once it serves, clients are told.
pub fn launch(machine: &Machine, shared: &Rc<Shared>, world: &SimRuntime, node: usize) {
    let fleet = &machine.wires.fleet;
    // A new group is a new process.
    let process = Rc::new(Process {
        group: world.subgroup(),
        ground: RefCell::default(),
        hosts: OnceCell::new(),
    });
    let before = fleet.processes[node].replace(Some(process.clone()));
    assert!(before.is_none(), "node {node} runs already");
    fleet.network.begins(node);
    let (machine, shared, world) = (machine.clone(), shared.clone(), world.clone());
    process.group.clone().spawn(async move {
        match Node::start(&machine, node, process).await {
            Ok(started) => drop(shared.nodes.borrow_mut()[node].replace(Rc::new(started))),
            Err(refusal) => {
                tracing::info!(node, %refusal, "the start is refused");
                let (again, outer) = (shared.clone(), world.clone());
                // From outside, for the process ends itself.
                world.schedule(Duration::ZERO, move || {
                    kill(&machine, &again, node, false);
                    let next = outer.clone();
                    outer.schedule(RESTART, move || launch_if_down(&machine, &again, &next, node));
                });
            }
        }
    });
}

pub fn launch_if_down(machine: &Machine, shared: &Rc<Shared>, world: &SimRuntime, node: usize) {
    if machine.wires.fleet.process(node).is_none() {
        launch(machine, shared, world, node);
    }
}

/// The process dies where it stands, its machine's power with it or not.
pub fn kill(machine: &Machine, shared: &Rc<Shared>, node: usize, power: bool) {
    let fleet = &machine.wires.fleet;
    shared.nodes.borrow_mut()[node] = None;
    if let Some(process) = fleet.processes[node].take() {
        process.group.stop();
        fleet.network.ends(node, power);
    }
    for place in machine.places_of(node) {
        if power {
            place.power_cut();
        }
        // A hung process's disks answer the next one.
        place.disk().iter().for_each(SimDisk::release);
    }
}

/// Nothing of the process runs for a while, as after SIGSTOP.
pub fn pause(machine: &Machine, world: &SimRuntime, node: usize, pause: Duration) {
    let fleet = machine.wires.fleet.clone();
    let Some(process) = fleet.process(node).filter(|process| !process.group.is_paused()) else {
        return;
    };
    process.group.pause();
    fleet.network.pauses(node, true);
    world.schedule(pause, move || resume(&fleet, node, &process));
}

fn resume(fleet: &Rc<Fleet>, node: usize, process: &Rc<Process>) {
    let is_same = fleet.process(node).is_some_and(|now| Rc::ptr_eq(&now, process));
    if is_same && process.group.is_paused() {
        process.group.resume();
        fleet.network.pauses(node, false);
    }
}

/// Every process runs.
pub fn resume_all(fleet: &Rc<Fleet>) {
    for node in 0..fleet.seats.nodes {
        if let Some(process) = fleet.process(node) {
            resume(fleet, node, &process);
        }
    }
}

/// Waits until all nodes serve.
pub async fn all_serve(shared: &Rc<Shared>, world: &SimRuntime, within: Duration) {
    let deadline = world.now().plus(within);
    while shared.nodes.borrow().iter().any(Option::is_none) {
        assert!(world.now() < deadline, "a node does not start within {within:?}");
        world.sleep(Duration::from_millis(20)).await;
    }
}

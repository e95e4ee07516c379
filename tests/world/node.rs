//! One life of a simulated node: hosts, stores and what runs in the background, joined as the server
//! joins them.

use std::collections::BTreeMap;
use std::rc::Rc;

use basalt_engine::request::SetMap;
use basalt_engine::seam::Spawn;
use basalt_engine::sim::{SimRuntime, WallSkew};
use basalt_engine::units::{BlockCount, DriveIndex, SetIndex};
use basalt_net::node::NodeIndex;
use basalt_net::quorum::Quorums;
use basalt_server::node::formation::{Plan, Refusal, Step};
use basalt_server::node::host::{Host, Sizes};
use basalt_server::node::upkeep::{self, Seats};
use basalt_server::object::{ClassParity, Deployment, Store};

use super::fleet::Process;
use super::mailbox::{Hosts, SimHost, SimMailbox, Wires};
use super::place::{Place, SimBay};
use super::start::Starting;

pub type SimStore = Store<SimMailbox, SimRuntime>;

/// The places by set, then by position.
pub type Places = Rc<Vec<Vec<Rc<Place>>>>;

/// What stays the same from one life to the next, of all nodes.
#[derive(Clone)]
pub struct Machine {
    pub places: Places,
    pub cores: usize,
    pub parity: u8,
    pub sizes: Sizes,
    pub wires: Rc<Wires>,
    /// How far the wall clocks of each node's cores are off when it starts.
    pub skews: Rc<Vec<WallSkew>>,
    /// The quorums of a set of so many drives.
    pub quorums: fn(usize) -> Quorums,
}

impl Machine {
    pub fn nodes(&self) -> usize {
        self.wires.fleet.seats.nodes
    }

    /// The node of a drive.
    pub fn node_of(&self, set: usize, position: usize) -> usize {
        let (set, position) = (SetIndex(set as u16), DriveIndex(position as u8));
        self.wires.fleet.seats.node(set, position)
    }

    pub fn place(&self, set: SetIndex, position: DriveIndex) -> &Rc<Place> {
        &self.places[usize::from(set.0)][usize::from(position.0)]
    }

    /// The seats of a node, by set, then by position.
    pub fn seats_of(&self, node: usize) -> impl Iterator<Item = (SetIndex, DriveIndex)> + use<> {
        let (seats, sets) = (self.wires.fleet.seats, self.places.len());
        let sets = (0..sets).map(|set| SetIndex(set as u16));
        sets.flat_map(move |set| (0..seats.drives).map(move |at| (set, DriveIndex(at as u8))))
            .filter(move |(set, position)| seats.node(*set, *position) == node)
    }

    pub fn places_of(&self, node: usize) -> impl Iterator<Item = &Rc<Place>> {
        self.seats_of(node).map(|(set, position)| self.place(set, position))
    }
}

pub struct Node {
    pub number: usize,
    pub cores: Vec<SimRuntime>,
    pub stores: Vec<SimStore>,
    /// The drives of this node.
    pub hosts: Hosts,
}

impl Node {
    /// Starts the node `number` as `process`.
    pub async fn start(
        machine: &Machine,
        number: usize,
        process: Rc<Process>,
    ) -> Result<Self, Refusal> {
        let group = process.group.clone();
        let starting =
            Starting { machine: machine.clone(), here: number, process: process.clone() };
        let plan = starting.plan().await?;
        let cores: Vec<SimRuntime> = (0..machine.cores).map(|_| group.subgroup()).collect();
        cores.iter().for_each(|core| core.set_wall(machine.skews[number]));
        let mut hosts = BTreeMap::new();
        for (set, position) in machine.seats_of(number) {
            let owner = cores[usize::from(set.0) % cores.len()].clone();
            let host = host(machine, &plan, &owner, set, position);
            hosts.insert((set, position), (owner, host));
        }
        let hosts: Hosts = Rc::new(hosts);
        open(&hosts, &plan).await;
        let is_first = process.hosts.set(hosts.clone()).is_ok();
        assert!(is_first, "a process starts once");
        let reduced_redundancy = machine.parity.min(1);
        let parity = ClassParity { standard: machine.parity, reduced_redundancy };
        let deployment = Deployment {
            id: plan.deployment,
            maps: plan.maps.clone(),
            parity: vec![parity; plan.maps.len()],
            part_bytes_min: 1,
            admitted_bytes_max: ADMITTED_BYTES_MAX,
        };
        let store = |core: &SimRuntime| {
            let wires = machine.wires.clone();
            let mailbox = SimMailbox::new(core.clone(), number, hosts.clone(), wires);
            let of = |map: &SetMap| (machine.quorums)(map.drive_count());
            let quorums = plan.maps.iter().map(of).collect();
            Store::with_quorums(mailbox, core.clone(), deployment.clone(), quorums)
        };
        let stores: Vec<SimStore> = cores.iter().map(store).collect();
        let node = Self { number, cores, stores, hosts };
        node.keep_up(machine);
        Ok(node)
    }

    fn keep_up(&self, machine: &Machine) {
        let mut sets: Vec<SetIndex> = self.hosts.keys().map(|(set, _)| *set).collect();
        sets.dedup();
        for set in sets {
            let core = usize::from(set.0) % self.cores.len();
            let nodes = machine.wires.fleet.seats.of_set(set);
            let seats = Seats::new(nodes, NodeIndex(self.number as u16));
            let (core, store) = (&self.cores[core], self.stores[core].clone());
            core.spawn(upkeep::settle_forever(store.clone(), set, seats.clone()));
            core.spawn(upkeep::sweep_forever(store.clone(), set, seats.clone()));
            core.spawn(upkeep::release_relocated_forever(store, set, seats));
        }
        for ((set, _), (owner, host)) in self.hosts.iter() {
            let store = self.stores[usize::from(set.0) % self.cores.len()].clone();
            owner.spawn(host.clone().watch(store));
        }
    }
}

fn host(
    machine: &Machine,
    plan: &Plan,
    owner: &SimRuntime,
    set: SetIndex,
    position: DriveIndex,
) -> Rc<SimHost> {
    let bay = SimBay::new(machine.place(set, position).clone(), owner.clone());
    Host::new(bay, owner.clone(), plan.deployment, set, position, machine.sizes)
}

async fn open(hosts: &Hosts, plan: &Plan) {
    for ((set, position), (_, host)) in hosts.iter() {
        match &plan.steps[usize::from(set.0)][usize::from(position.0)] {
            Step::Open(_) | Step::Found(_) => {
                if let Err(error) = host.open().await {
                    host.note_down(error.to_string());
                }
            }
            Step::Refuse(reason) => host.note_down(reason.clone()),
            Step::Replace | Step::Leave => {}
        }
    }
}

/// Room for hardly more than one window, so that clients have to wait for each other.
const ADMITTED_BYTES_MAX: u64 = 1 << 20;

/// The first blocks of the journal and of the segments.
pub const JOURNAL_START: u64 = 256;
pub const SEGMENTS_START: u64 = JOURNAL_START + JOURNAL_BLOCKS;
const JOURNAL_BLOCKS: u64 = 256;
const SEGMENT_BLOCKS: u64 = 288;

/// Small regions, so that segments fill and checkpoints come early.
pub fn sizes() -> Sizes {
    Sizes {
        journal_blocks: Some(BlockCount(JOURNAL_BLOCKS)),
        segment_blocks: Some(BlockCount(SEGMENT_BLOCKS)),
    }
}

/// The length of a disk with these regions and `segments` segments.
pub fn disk_length(segments: u64) -> BlockCount {
    BlockCount(SEGMENTS_START + SEGMENT_BLOCKS * segments)
}

//! One life of a simulated node: formation, hosts, stores and what runs in the background, joined
//! as the server joins them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use basalt_engine::request::SetMap;
use basalt_engine::seam::{Random, Spawn};
use basalt_engine::sim::SimRuntime;
use basalt_engine::units::{BlockCount, DriveIndex, SetIndex};
use basalt_net::quorum::Quorums;
use basalt_server::node::formation::{self, Plan, Refusal, Step};
use basalt_server::node::host::{Bay, Host, Sizes};
use basalt_server::node::upkeep;
use basalt_server::object::{ClassParity, Deployment, Store};

use super::mailbox::{Hosts, SimHost, SimMailbox, Tamper, Wire};
use super::place::{Place, SimBay};
use super::witness::Witness;

pub type SimStore = Store<SimMailbox, SimRuntime>;

/// The places by set, then by position.
pub type Places = Rc<Vec<Vec<Rc<Place>>>>;

/// What stays the same from one life to the next.
#[derive(Clone)]
pub struct Machine {
    pub places: Places,
    pub cores: usize,
    pub parity: u8,
    pub sizes: Sizes,
    pub wire: Rc<RefCell<Wire>>,
    pub tamper: Option<Rc<dyn Tamper>>,
    pub witness: Rc<Witness>,
    /// The quorums of a set of so many drives.
    pub quorums: fn(usize) -> Quorums,
}

pub struct Node {
    group: SimRuntime,
    pub cores: Vec<SimRuntime>,
    pub stores: Vec<SimStore>,
    pub hosts: Hosts,
}

impl Node {
    /// Starts the node in `group`, a new group of tasks.
    pub async fn start(machine: &Machine, group: SimRuntime) -> Result<Self, Refusal> {
        let plan = form(machine, &group).await?;
        let cores: Vec<SimRuntime> = (0..machine.cores).map(|_| group.subgroup()).collect();
        let mut hosts = BTreeMap::new();
        for (set, position, place) in places(machine) {
            let owner = cores[usize::from(set.0) % cores.len()].clone();
            let host = host(machine, &plan, &owner, set, position, place);
            hosts.insert((set, position), (owner, host));
        }
        let hosts: Hosts = Rc::new(hosts);
        open(&hosts, &plan).await;
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
            let wire = machine.wire.clone();
            let (tamper, witness) = (machine.tamper.clone(), machine.witness.clone());
            let mailbox = SimMailbox::new(core.clone(), hosts.clone(), wire, tamper, witness);
            let of = |map: &SetMap| (machine.quorums)(map.drive_count());
            let quorums = plan.maps.iter().map(of).collect();
            Store::with_quorums(mailbox, core.clone(), deployment.clone(), quorums)
        };
        let stores: Vec<SimStore> = cores.iter().map(store).collect();
        let node = Self { group, cores, stores, hosts };
        node.keep_up();
        Ok(node)
    }

    /// The process dies: its tasks end where they stand.
    pub fn kill(&self) {
        self.group.stop();
    }

    fn keep_up(&self) {
        let sets = self.stores[0].sets();
        for set in sets {
            let core = usize::from(set.0) % self.cores.len();
            self.cores[core].spawn(upkeep::settle_forever(self.stores[core].clone(), set));
            self.cores[core].spawn(upkeep::sweep_forever(self.stores[core].clone(), set));
            let release = upkeep::release_relocated_forever(self.stores[core].clone(), set);
            self.cores[core].spawn(release);
        }
        for ((set, _), (owner, host)) in self.hosts.iter() {
            let store = self.stores[usize::from(set.0) % self.cores.len()].clone();
            owner.spawn(host.clone().watch(store));
        }
    }
}

fn places(machine: &Machine) -> impl Iterator<Item = (SetIndex, DriveIndex, &Rc<Place>)> {
    machine.places.iter().zip(0u16..).flat_map(|(places, set)| {
        places
            .iter()
            .zip(0u8..)
            .map(move |(place, position)| (SetIndex(set), DriveIndex(position), place))
    })
}

async fn form(machine: &Machine, group: &SimRuntime) -> Result<Plan, Refusal> {
    let mut found = Vec::new();
    for places in machine.places.iter() {
        let mut looked = Vec::new();
        for place in places {
            looked.push(SimBay::new(place.clone(), group.clone()).look().await);
        }
        found.push(looked);
    }
    let plan = formation::plan(&found, || group.random_u128())?;
    if plan.founding {
        let mut founded = Vec::new();
        for (set, position, place) in places(machine) {
            let step = &plan.steps[usize::from(set.0)][usize::from(position.0)];
            let Step::Found(drive) = step else { continue };
            let host = host(machine, &plan, group, set, position, place);
            let map = plan.maps[usize::from(set.0)].clone();
            host.found(*drive, map).await.expect("blank disks without faults take a format");
            founded.push(host);
        }
        for host in founded {
            host.open().await.expect("what was formatted opens");
            host.formed().await.expect("a fresh drive takes a checkpoint");
            host.close().await;
        }
    }
    Ok(plan)
}

fn host(
    machine: &Machine,
    plan: &Plan,
    owner: &SimRuntime,
    set: SetIndex,
    position: DriveIndex,
    place: &Rc<Place>,
) -> Rc<SimHost> {
    let bay = SimBay::new(place.clone(), owner.clone());
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
            Step::Replace => {}
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

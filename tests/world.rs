//! Nodes over simulated drives, the links between them, their clients and what goes wrong: one seed is one
//! whole run, in one thread and virtual time. It runs the code that serves: the object layer, hosts,
//! upkeep, membership, drives, and what decides the start of nodes.
//!
//! A run: found the deployment; clients work while the nemesis strikes; everything is put right; the
//! nodes have to come to rest within a bound; everything is read, with all drives and with as many of
//! them harmed as each set has parity, and with nodes gone. Then the clients' histories are checked. Every answer of a drive
//! is judged when it is given, and all drives are looked at from time to time.

pub mod clients;
pub mod fleet;
pub mod history;
pub mod inspect;
pub mod judge;
pub mod mailbox;
pub mod nemesis;
pub mod network;
pub mod node;
pub mod place;
pub mod start;
pub mod versions;
pub mod witness;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use basalt_engine::seam::{Clock, Moment, Spawn};
use basalt_engine::sim::{Latency, Prng, SimRuntime, Simulation, WallSkew};

use basalt_net::quorum::Quorums;
use basalt_server::object::Versioning;
use futures_channel::oneshot;
use futures_util::future::{Either, select};

use clients::{Client, Shared, Weights, Workload};
use fleet::{Fleet, Spread};
use history::{Checked, Need};
use mailbox::{Tamper, Wire, Wires};
use nemesis::{Fault, Nemesis};
use node::Machine;
use place::Place;

/// After everything is put right, the nodes have to be at rest within this.
const REST_MAX: Duration = Duration::from_secs(400);
/// Nodes that serve and hear each other are connected within this.
const LINKS_STAND: Duration = Duration::from_secs(2);
/// A drive that is down for this long afterwards is exchanged.
const EXCHANGE_AFTER: Duration = Duration::from_secs(30);
/// Tasks at rest, for each drive and for each node (I20).
const TASKS_MAX: (usize, usize) = (8, 32);
/// Steps of one run; far above what the longest takes.
const STEPS_MAX: u64 = 60_000_000;

/// Everything that a seed draws before a run begins.
#[derive(Clone, Debug)]
pub struct Options {
    pub nodes: usize,
    pub sets: usize,
    pub drives: usize,
    pub parity: u8,
    pub cores: usize,
    pub workload: Workload,
    pub faults: Vec<Fault>,
    pub strikes: usize,
    pub strike_interval: Duration,
    pub wire: Wire,
    pub slow_disks: bool,
    /// Segments that a drive has room for.
    pub segments: u64,
    /// Things go wrong during the first start as well.
    pub shaky_start: bool,
    /// How far the wall clocks of each node are off.
    pub skews: Vec<WallSkew>,
}

impl Options {
    pub fn draw(prng: &mut Prng) -> Self {
        let drives = [1, 2, 3, 4, 4, 4, 5, 6, 8, 16][prng.index(10)];
        let parity = match drives {
            1 => 0,
            2 | 3 => 1,
            4 | 5 => [1, 2, 2][prng.index(3)],
            6 | 8 => [2, 3][prng.index(2)],
            _ => 4,
        };
        let faults = match prng.below(8) {
            0 => Vec::new(),
            _ => {
                let chance = [150_000, 300_000, 600_000][prng.index(3)];
                Fault::ALL.into_iter().filter(|_| prng.chance(chance)).collect()
            }
        };
        Self {
            nodes: 1,
            sets: if drives <= 6 && prng.below(6) == 0 { 2 } else { 1 },
            drives,
            parity,
            cores: 1 + prng.index(3),
            workload: draw_workload(prng),
            faults,
            strikes: 1 + prng.index(6),
            strike_interval: Duration::from_millis([30, 300, 2_000][prng.index(3)]),
            wire: draw_wire(prng),
            slow_disks: prng.below(5) == 0,
            segments: 60,
            shaky_start: false,
            skews: vec![WallSkew::default()],
        }
    }

    /// As [`Self::draw`], of two to four nodes.
    pub fn draw_cluster(prng: &mut Prng) -> Self {
        let mut options = Self::draw(prng);
        let quiet = options.faults.is_empty();
        options.nodes = 2 + prng.index(3);
        let (drives, parity) = [
            (2, 1),
            (3, 1),
            (4, 2),
            (4, 2),
            (4, 1),
            (5, 2),
            (6, 3),
            (8, 4),
            (8, 3),
            (12, 4),
            (16, 4),
        ][prng.index(11)];
        (options.drives, options.parity) = (drives, parity);
        options.sets = if drives <= 6 && prng.below(4) == 0 { 2 } else { 1 };
        options.cores = 1 + prng.index(2);
        if !quiet {
            let chance = [300_000, 600_000][prng.index(2)];
            let more = Fault::OF_CLUSTERS.into_iter().filter(|_| prng.chance(chance));
            options.faults.extend(more);
            options.shaky_start = prng.below(4) == 0;
        }
        let skew = |_| match prng.below(3) {
            0 => WallSkew::default(),
            _ => WallSkew {
                offset_ms: prng.below(400_000) as i64 - 200_000,
                drift_ppm: prng.below(2_000) as i64 - 1_000,
            },
        };
        options.skews = (0..options.nodes).map(skew).collect();
        options
    }

    /// A fixed shape: so many nodes, each with a drive of every set or so.
    pub fn shape(&mut self, nodes: usize, sets: usize, drives: usize, parity: u8) {
        (self.nodes, self.sets, self.drives, self.parity) = (nodes, sets, drives, parity);
        self.skews = vec![WallSkew::default(); nodes];
    }
}

impl Options {
    /// Drives of a set that may fail once every object is settled.
    fn survivable(&self) -> usize {
        match self.workload.reduced_redundancy {
            true => self.parity.min(1).into(),
            false => self.parity.into(),
        }
    }
}

fn draw_workload(prng: &mut Prng) -> Workload {
    let mut weight = |most: u64| prng.below(most + 1);
    let weights = Weights {
        put: 4 + weight(6),
        put_conditional: weight(4),
        delete: 1 + weight(3),
        get: 3 + weight(4),
        head: weight(2),
        list: weight(2),
        multipart: weight(1),
        bucket: weight(1),
        versions: 2 * weight(2),
    };
    Workload {
        clients: 1 + prng.index(5),
        operations: 4 + prng.index(16),
        keys: [1, 2, 4, 8, 10][prng.index(5)],
        pause: Duration::from_millis([1, 20, 500][prng.index(3)]),
        bytes_max: [COPY, COPY, 70_000, 700_000, 4 << 20][prng.index(5)],
        reduced_redundancy: prng.coin(),
        weights,
    }
}

const COPY: u64 = basalt_engine::record::COPY_BYTES_MAX;

fn draw_wire(prng: &mut Prng) -> Wire {
    match prng.below(3) {
        0 => Wire::sound(),
        1 => Wire {
            delay: Duration::from_micros(1)..Duration::from_millis(2),
            slow_ppm: 10_000,
            slow: Duration::from_millis(1)..Duration::from_millis(80),
            ..Wire::sound()
        },
        _ => Wire {
            delay: Duration::from_micros(1)..Duration::from_micros(300),
            slow_ppm: 30_000,
            slow: Duration::from_millis(1)..Duration::from_secs(2),
            ..Wire::sound()
        },
    }
}

/// What a run came to.
#[derive(Clone, Copy, Default, Debug)]
pub struct Ran {
    pub event_hash: u64,
    pub operations: u64,
    /// Virtual time.
    pub took: Duration,
    pub checked: u64,
    /// Registers whose history had too many open ends.
    pub given_up: u64,
    /// Writes without a condition whose outcome stayed unknown, without any fault.
    pub unknown: u64,
    /// Versions that were decided to be lost.
    pub lost: u64,
    /// Answers of drives that were judged.
    pub judged: u64,
    /// From when everything was put right until the node was at rest.
    pub rest: Duration,
}

/// Runs one seed. Panics where an invariant does not hold.
pub fn run(seed: u64) -> Ran {
    run_with(seed, None, Quorums::of, |_| {})
}

/// As [`run`], with something that changes messages, other quorums, and other options than the
/// seed's.
pub fn run_with(
    seed: u64,
    tamper: Option<Rc<dyn Tamper>>,
    quorums: fn(usize) -> Quorums,
    adjust: impl FnOnce(&mut Options),
) -> Ran {
    let mut prng = Prng::new(seed ^ 0x5e1_0000);
    let mut options = Options::draw(&mut prng);
    adjust(&mut options);
    run_drawn(seed, prng, options, tamper, quorums)
}

/// Runs one seed of a cluster. Panics where an invariant does not hold.
pub fn run_cluster(seed: u64) -> Ran {
    run_cluster_with(seed, None, Quorums::of, |_| {})
}

/// As [`run_with`], of a cluster.
pub fn run_cluster_with(
    seed: u64,
    tamper: Option<Rc<dyn Tamper>>,
    quorums: fn(usize) -> Quorums,
    adjust: impl FnOnce(&mut Options),
) -> Ran {
    let mut prng = Prng::new(seed ^ 0xc105_7e40_0000);
    let mut options = Options::draw_cluster(&mut prng);
    adjust(&mut options);
    run_drawn(seed, prng, options, tamper, quorums)
}

fn run_drawn(
    seed: u64,
    mut prng: Prng,
    options: Options,
    tamper: Option<Rc<dyn Tamper>>,
    quorums: fn(usize) -> Quorums,
) -> Ran {
    let told = Told(format!("{options:?}"));
    let quiet = options.faults.is_empty();
    let simulation = Simulation::new(seed);
    simulation.set_step_budget(STEPS_MAX);
    let root = simulation.group();
    let shared = Shared::new(options.workload.clone(), options.nodes);
    let seats = Spread { nodes: options.nodes, drives: options.drives };
    let wires = Rc::new(Wires {
        fleet: Fleet::new(root.clone(), seats),
        drives: vec![options.drives; options.sets],
        wire: Rc::new(RefCell::new(options.wire.clone())),
        tamper,
        witness: shared.witness.clone(),
    });
    let machine = machine(&options, &mut prng, wires, quorums);
    let script = script(root.clone(), machine, shared.clone(), options, prng);
    simulation.block_on(&root, script);
    let mut ran = Ran {
        event_hash: simulation.event_hash(),
        operations: shared.operations(),
        took: simulation.now().since(Moment(0)),
        unknown: if quiet { shared.unknown() } else { 0 },
        lost: shared.lost(),
        judged: shared.judged(),
        rest: shared.rest.get(),
        ..Ran::default()
    };
    shared.versions.check_order();
    for (name, register) in shared.registers() {
        match register.check() {
            Checked::Explained => ran.checked += 1,
            Checked::GaveUp => ran.given_up += 1,
            Checked::Violation(told) => panic!("no order explains {name:?}:\n{told}"),
        }
    }
    drop(told);
    ran
}

/// Says what a run drew, if it fails.
struct Told(String);

impl Drop for Told {
    #[expect(clippy::print_stderr, reason = "a failed run tells its reader what it was")]
    fn drop(&mut self) {
        if std::thread::panicking() && std::env::var("BASALT_QUIET").is_err() {
            eprintln!("{}", self.0);
        }
    }
}

fn machine(
    options: &Options,
    prng: &mut Prng,
    wires: Rc<Wires>,
    quorums: fn(usize) -> Quorums,
) -> Machine {
    let latency = match options.slow_disks {
        true => Latency::default().times(20),
        false => Latency::default(),
    };
    let mut places = Vec::new();
    for set in 0..options.sets {
        let place = |position: usize| {
            let length = node::disk_length(options.segments);
            let name = format!("set {set} drive {position}");
            Rc::new(Place::new(name, prng.next_u64(), length, latency.clone()))
        };
        places.push((0..options.drives).map(place).collect());
    }
    Machine {
        places: Rc::new(places),
        cores: options.cores,
        parity: options.parity,
        sizes: node::sizes(),
        wires,
        skews: Rc::new(options.skews.clone()),
        quorums,
    }
}

async fn script(
    runtime: SimRuntime,
    machine: Machine,
    shared: Rc<Shared>,
    options: Options,
    mut prng: Prng,
) {
    let mut nemesis = Nemesis {
        runtime: runtime.clone(),
        prng: prng.fork(),
        victims: (0..options.sets).map(|_| prng.index(options.drives)).collect(),
        machine,
        shared: shared.clone(),
        faults: options.faults.clone(),
        interval: options.strike_interval,
    };
    let machine = nemesis.machine.clone();
    let places = machine.places.clone();
    for (places, victim) in places.iter().zip(&nemesis.victims) {
        places[*victim].may_fail.set(true);
    }
    nemesis.start(options.shaky_start).await;
    make_buckets(&shared).await;
    let running = Rc::new(Cell::new(options.workload.clients + 1));
    for number in 0..options.workload.clients {
        let mut client = client(number, &runtime, &mut prng, &shared);
        client.hasty = options.nodes > 1;
        let running = running.clone();
        runtime.spawn(async move {
            client.run().await;
            running.set(running.get() - 1);
        });
    }
    let (ended, strikes) = (running.clone(), options.strikes);
    runtime.spawn(async move {
        nemesis.run(strikes).await;
        ended.set(ended.get() - 1);
    });
    while running.get() > 0 {
        let pause = prng.duration(Duration::from_millis(100)..Duration::from_secs(4));
        runtime.sleep(pause).await;
        look(&shared).await;
    }
    come_to_rest(&runtime, &shared, &machine).await;
    look(&shared).await;
    let readers = options.workload.clients;
    client(readers, &runtime, &mut prng, &shared).read_all().await;
    if options.nodes > 1 {
        let gone = nemesis::spared(&mut prng, &machine, options.survivable(), true);
        without(&gone, &runtime, &shared, &machine, async {
            client(readers, &runtime, &mut prng, &shared).read_all().await;
        })
        .await;
        come_to_rest(&runtime, &shared, &machine).await;
        let most = usize::from(options.parity).saturating_sub(1);
        let gone = nemesis::spared(&mut prng, &machine, most, false);
        without(&gone, &runtime, &shared, &machine, async {
            client(readers, &runtime, &mut prng, &shared).write_all().await;
        })
        .await;
        come_to_rest(&runtime, &shared, &machine).await;
    }
    let away = nemesis::harm_settled(&mut prng, &places, options.survivable());
    client(readers, &runtime, &mut prng, &shared).read_all().await;
    if away {
        places.iter().flatten().for_each(|place| place.plug_in());
    }
    come_to_rest(&runtime, &shared, &machine).await;
    look(&shared).await;
    judge_buckets(&runtime, &shared).await;
    let (lost, judged) = shared.witness.verdict();
    shared.note_judged(judged);
    shared.note_lost(lost);
    client(readers, &runtime, &mut prng, &shared).read_all().await;
    for attempt in 0.. {
        if client(readers, &runtime, &mut prng, &shared).remove_versions().await {
            break;
        }
        assert!(attempt < 4, "the versions cannot be removed");
        come_to_rest(&runtime, &shared, &machine).await;
    }
}

/// Does `work` while these nodes are gone.
async fn without(
    gone: &[usize],
    runtime: &SimRuntime,
    shared: &Rc<Shared>,
    machine: &Machine,
    work: impl Future<Output = ()>,
) {
    gone.iter().for_each(|node| fleet::kill(machine, shared, *node, false));
    work.await;
    gone.iter().for_each(|node| fleet::launch(machine, shared, runtime, *node));
    fleet::all_serve(shared, runtime, REST_MAX).await;
    // Those that came before are connected again.
    runtime.sleep(LINKS_STAND).await;
}

fn client(number: usize, runtime: &SimRuntime, prng: &mut Prng, shared: &Rc<Shared>) -> Client {
    Client {
        number,
        runtime: runtime.clone(),
        prng: prng.fork(),
        shared: shared.clone(),
        hasty: false,
    }
}

async fn make_buckets(shared: &Rc<Shared>) {
    let node = shared.serving().first().cloned().expect("it was started");
    let store = &node.stores[0];
    for bucket in [clients::BUCKETS[0], clients::BUCKETS[versions::KEEPS]] {
        store.create_bucket(bucket).await.expect("a sound node makes buckets");
    }
    let start = node.cores[0].now();
    let keeps = store.set_versioning(clients::BUCKETS[versions::KEEPS], Versioning::Enabled).await;
    keeps.expect("a sound node keeps versions");
    shared.with(&clients::Name::Versioning, |register| {
        let (end, client) = (node.cores[0].now(), "the beginning".to_owned());
        register.write(start, Some(end), Need::Anything, Some(1), client);
    });
}

async fn look(shared: &Rc<Shared>) {
    inspect::look(&shared.hosts(), &shared.witness).await;
}

/// I15: nothing is live but in the buckets that are there.
async fn judge_buckets(runtime: &SimRuntime, shared: &Rc<Shared>) {
    let node = shared.serving().first().cloned().expect("it was started again");
    let (sender, receiver) = oneshot::channel();
    let store = node.stores[0].clone();
    node.cores[0].spawn(async move {
        let buckets = store.buckets().await.expect("a sound node answers");
        let there: BTreeSet<_> = buckets.into_iter().map(|bucket| bucket.incarnation).collect();
        sender.send(there).expect("it is waited for");
    });
    let limit = runtime.sleep(REST_MAX);
    let there = match select(receiver, std::pin::pin!(limit)).await {
        Either::Left((there, _)) => there.expect("the node lives"),
        Either::Right(_) => panic!("buckets are not told within {REST_MAX:?}"),
    };
    let live = inspect::live_buckets(&shared.hosts(), &shared.witness).await;
    let dead: Vec<_> = live.difference(&there).collect();
    assert!(dead.is_empty(), "I15: objects are live in buckets that were deleted: {dead:?}");
}

/// Waits until nothing is left to do, and exchanges drives that ask for it.
async fn come_to_rest(runtime: &SimRuntime, shared: &Rc<Shared>, machine: &Machine) {
    let healed = runtime.now();
    let deadline = healed.plus(REST_MAX);
    loop {
        let hosts = shared.hosts();
        let unrest = inspect::unrest(&hosts, &shared.witness).await;
        if unrest.is_empty() {
            shared.rest.set(runtime.now().since(healed));
            let (each, more) = TASKS_MAX;
            let tasks = runtime.task_count();
            assert!(
                tasks <= each * hosts.len() + more * machine.nodes(),
                "I20: {tasks} tasks at rest"
            );
            let nodes = shared.serving();
            let stores = nodes.iter().flat_map(|node| &node.stores);
            let admitted: u64 = stores.map(|store| store.admitted_bytes()).sum();
            assert_eq!(admitted, 0, "I20: bytes of payload in memory at rest");
            return;
        }
        // An operator exchanges what is damaged, and what does not come back by itself.
        let gone = runtime.now().since(healed) >= EXCHANGE_AFTER;
        for ((set, position), (_, host)) in hosts.iter() {
            let hopeless = match host.drive() {
                Some(drive) => drive.damaged().is_some(),
                None => gone,
            };
            if hopeless {
                machine.place(*set, *position).exchange_victim();
            }
        }
        let late = runtime.now() >= deadline;
        assert!(!late, "no rest after {REST_MAX:?}:\n{}", unrest.join("\n"));
        runtime.sleep(Duration::from_secs(2)).await;
    }
}

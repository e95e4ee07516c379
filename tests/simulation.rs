//! The simulation of a node over its drives, and of clusters: thousands of seeds, each a whole run. Seeds
//! that have failed once are in `seeds.txt` and are run again each time.
//!
//! `BASALT_SEED=n` runs one seed, `BASALT_SEEDS=n` another number of them, `BASALT_FIRST=n` begins
//! there; with `BASALT_GO_ON=1` a failing seed does not end the run.

use std::cell::Cell;
use std::time::{Duration, Instant};

use basalt_engine::sim::check_seeds;
use basalt_net::quorum::Quorums;
use basalt_tests::world;
use basalt_tests::world::nemesis::Fault;

/// Seeds of a run without further orders.
const SEEDS: u64 = 2_000;
const CLUSTERS: u64 = 500;
const BESIEGED: u64 = 150;
/// Seeds that have failed once, and in which test.
const FOUND: &str = include_str!("seeds.txt");
/// One seed of so many is run twice, to see that nothing but the seed decides.
const TWICE: u64 = 50;

#[test]
fn every_seed_holds_the_invariants() {
    trace();
    let totals = Totals::default();
    check_seeds("every_seed_holds_the_invariants", SEEDS, |seed| {
        let ran = world::run(seed);
        totals.add(&ran);
        if seed % TWICE == 0 {
            let again = world::run(seed);
            assert_eq!(ran.event_hash, again.event_hash, "something besides the seed decides");
        }
    });
    println!("{totals}");
}

#[test]
fn every_seed_of_a_cluster_holds_the_invariants() {
    trace();
    let totals = Totals::default();
    check_seeds("every_seed_of_a_cluster_holds_the_invariants", CLUSTERS, |seed| {
        let ran = world::run_cluster(seed);
        totals.add(&ran);
        if seed % TWICE == 0 {
            let again = world::run_cluster(seed);
            assert_eq!(ran.event_hash, again.event_hash, "something besides the seed decides");
        }
    });
    println!("{totals}");
}

/// Clients that take their time, while nodes die, are paused and lose each other all the time.
fn besieged(seed: u64) -> world::Ran {
    world::run_cluster_with(seed, None, Quorums::of, |options| {
        options.workload.operations = 20;
        options.workload.clients = options.workload.clients.max(3);
        options.workload.pause = Duration::from_millis([400, 1_500, 4_000][seed as usize % 3]);
        options.faults = Fault::OF_CLUSTERS.to_vec();
        if seed.is_multiple_of(2) {
            options.faults.extend([Fault::Kill, Fault::PowerCut, Fault::Unplug, Fault::Exchange]);
        }
        options.strikes = 12;
        options.strike_interval = Duration::from_secs(2);
        options.shaky_start = true;
    })
}

#[test]
fn a_besieged_cluster_holds_the_invariants() {
    trace();
    let totals = Totals::default();
    check_seeds("a_besieged_cluster_holds_the_invariants", BESIEGED, |seed| {
        totals.add(&besieged(seed));
    });
    println!("{totals}");
}

/// Five nodes of eight drives each, and thirty-two of twenty-four: short runs.
#[test]
fn large_clusters_hold_the_invariants() {
    trace();
    for (nodes, sets, drives, seeds) in [(5, 4, 10, 6), (32, 48, 16, 1)] {
        let totals = Totals::default();
        check_seeds("large_clusters_hold_the_invariants", seeds, |seed| {
            let ran = world::run_cluster_with(seed, None, Quorums::of, |options| {
                options.shape(nodes, sets, drives, 4);
                options.cores = 1;
                options.slow_disks = false;
                options.workload.keys = 10;
                options.workload.clients = 3;
                options.workload.pause = Duration::from_millis(300);
                options.faults = Fault::OF_CLUSTERS.to_vec();
                options.strikes = 5;
                options.strike_interval = Duration::from_secs(1);
                options.shaky_start = false;
            });
            totals.add(&ran);
        });
        println!("{nodes} nodes, {} drives: {totals}", sets * drives);
    }
}

/// Whatever has failed once.
#[test]
fn seeds_that_were_found_stay_good() {
    trace();
    let mut runs = 0;
    for line in FOUND.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let mut words = line.split_whitespace();
        let (Some(kind), Some(seed)) = (words.next(), words.next()) else { panic!("{line}") };
        let seed: u64 = seed.parse().expect("a seed is a number");
        println!("{line}");
        match kind {
            "node" => world::run(seed),
            "cluster" => world::run_cluster(seed),
            "besieged" => besieged(seed),
            other => panic!("no test is called {other}"),
        };
        runs += 1;
    }
    assert!(runs > 0, "the list is empty");
}

/// Drives are exchanged in the middle of writes to sets that lack a drive: some of what was not yet
/// acknowledged is gone for good. It is decided to be lost, and everything comes to rest.
#[test]
fn what_is_lost_is_decided_so() {
    trace();
    let lost = Cell::new(0);
    check_seeds("what_is_lost_is_decided_so", 150, |seed| {
        let ran = world::run_with(seed, None, Quorums::of, |options| {
            options.drives = if seed % 2 == 0 { 3 } else { 4 };
            options.sets = 1;
            options.parity = 1;
            options.workload.clients = 5;
            options.workload.operations = 16;
            options.workload.pause = Duration::from_millis(100);
            options.workload.bytes_max = 300_000;
            options.faults = vec![Fault::Unplug, Fault::Exchange, Fault::PowerCut];
            options.strikes = 6;
            options.strike_interval = Duration::from_millis(200);
        });
        lost.set(lost.get() + ran.lost);
    });
    println!("{} unacknowledged versions lost", lost.get());
    assert!(lost.get() > 0 || std::env::var("BASALT_SEED").is_ok(), "nothing was ever lost");
}

/// Writers die under their writes while their bucket is deleted and made again, drives are away: whoever
/// recovers what they left behind must not bring it to life in a bucket that is gone.
#[test]
fn a_deleted_bucket_stays_empty() {
    trace();
    check_seeds("a_deleted_bucket_stays_empty", 300, |seed| {
        world::run_with(seed, None, Quorums::of, |options| {
            options.drives = [5, 6, 7][seed as usize % 3];
            options.sets = 1;
            options.parity = 2;
            options.workload.clients = 5;
            options.workload.operations = 20;
            options.workload.keys = 2;
            options.workload.pause = Duration::from_millis(5);
            options.workload.bytes_max = 8192;
            options.workload.weights.bucket = 12;
            options.workload.weights.delete = 12;
            options.faults = vec![Fault::Unplug, Fault::Kill, Fault::Loss, Fault::Hang];
            options.strikes = 8;
            options.strike_interval = Duration::from_millis(30);
        });
    });
}

/// With `BASALT_TRACE=1` the log of the node is printed.
fn trace() {
    if std::env::var("BASALT_TRACE").is_ok() {
        let log = tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).without_time();
        // Tests of one process share the log: the first one sets it up.
        let _ = log.try_init();
    }
}

struct Totals {
    began: Instant,
    seeds: Cell<u64>,
    operations: Cell<u64>,
    took: Cell<Duration>,
    checked: Cell<u64>,
    given_up: Cell<u64>,
    unknown: Cell<u64>,
    lost: Cell<u64>,
    judged: Cell<u64>,
    longest_rest: Cell<Duration>,
}

impl Default for Totals {
    #[expect(clippy::disallowed_methods, reason = "virtual time is compared with this one")]
    fn default() -> Self {
        Self {
            began: Instant::now(),
            seeds: Cell::default(),
            operations: Cell::default(),
            took: Cell::default(),
            checked: Cell::default(),
            given_up: Cell::default(),
            unknown: Cell::default(),
            lost: Cell::default(),
            judged: Cell::default(),
            longest_rest: Cell::default(),
        }
    }
}

impl Totals {
    fn add(&self, ran: &world::Ran) {
        self.seeds.set(self.seeds.get() + 1);
        self.operations.set(self.operations.get() + ran.operations);
        self.took.set(self.took.get() + ran.took);
        self.checked.set(self.checked.get() + ran.checked);
        self.given_up.set(self.given_up.get() + ran.given_up);
        self.unknown.set(self.unknown.get() + ran.unknown);
        self.lost.set(self.lost.get() + ran.lost);
        self.judged.set(self.judged.get() + ran.judged);
        self.longest_rest.set(self.longest_rest.get().max(ran.rest));
    }
}

impl std::fmt::Display for Totals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let hours = self.took.get().as_secs_f64() / 3600.0;
        let real = self.began.elapsed().as_secs_f64();
        let ratio = self.took.get().as_secs_f64() / real;
        write!(
            f,
            "{} seeds in {real:.0} s, {} operations, {hours:.1} virtual hours, {ratio:.0} times \
             real time; {} answers of drives judged; \
             {} histories checked, {} given up; {} outcomes unknown without a fault; \
             {} unacknowledged versions lost; longest way to rest {:?}",
            self.seeds.get(),
            self.operations.get(),
            self.judged.get(),
            self.checked.get(),
            self.given_up.get(),
            self.unknown.get(),
            self.lost.get(),
            self.longest_rest.get()
        )
    }
}

//! The simulation has to find what it was built to find: each canary is a mistake that a first version
//! makes, put into a run as data (other quorums, or a wire that lies), and has to be noticed within
//! ten thousand seeds.

#![expect(clippy::print_stdout, reason = "what was found is the result of these tests")]

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use basalt_engine::Error;
use basalt_engine::request::{Digest, Reply, Request, SetMap};
use basalt_engine::units::{DriveIndex, Epoch, SetIndex};
use basalt_net::quorum::Quorums;
use basalt_server::node::formation::Found;
use basalt_tests::world::mailbox::{SimHost, Tamper};
use basalt_tests::world::nemesis::Fault;
use basalt_tests::world::{Options, Ran, run_cluster_with, run_with};

const SEEDS: u64 = 10_000;

type Adjust = fn(&mut Options);
/// [`run_with`] or [`run_cluster_with`].
type Run = fn(u64, Option<Rc<dyn Tamper>>, fn(usize) -> Quorums, Adjust) -> Ran;

/// Runs seeds until one fails that does not fail without the mistake, and says which.
fn find(
    name: &str,
    tamper: impl Fn() -> Option<Rc<dyn Tamper>>,
    quorums: fn(usize) -> Quorums,
    adjust: Adjust,
) {
    find_in(run_with, name, tamper, quorums, adjust);
}

/// As [`find`], in a cluster.
fn find_in_cluster(name: &str, tamper: impl Fn() -> Option<Rc<dyn Tamper>>, adjust: Adjust) {
    find_in(run_cluster_with, name, tamper, Quorums::of, adjust);
}

fn find_in(
    run: Run,
    name: &str,
    tamper: impl Fn() -> Option<Rc<dyn Tamper>>,
    quorums: fn(usize) -> Quorums,
    adjust: Adjust,
) {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let failure = |run: &dyn Fn()| catch_unwind(AssertUnwindSafe(run)).err();
    let found = (0..SEEDS).find_map(|seed| {
        let mistaken = || {
            run(seed, tamper(), quorums, adjust);
        };
        let right = || {
            run(seed, None, Quorums::of, adjust);
        };
        let noticed = failure(&mistaken)?;
        failure(&right).is_none().then_some((seed, noticed))
    });
    std::panic::set_hook(hook);
    let Some((seed, noticed)) = found else { panic!("{name}: not found in {SEEDS} seeds") };
    let noticed = match noticed.downcast_ref::<String>() {
        Some(text) => text,
        None => noticed.downcast_ref::<&str>().copied().unwrap_or_default(),
    };
    let noticed = noticed.lines().next().unwrap_or_default();
    println!("{name}: found by seed {seed}: {noticed}");
}

fn nothing() -> Option<Rc<dyn Tamper>> {
    None
}

/// Four or five drives, hurried, small objects: where decisions collide.
fn races(options: &mut Options) {
    options.drives = if options.drives.is_multiple_of(2) { 4 } else { 5 };
    options.sets = 1;
    options.parity = 2;
    options.workload.clients = 5;
    options.workload.keys = 1;
    options.workload.pause = Duration::from_millis(1);
    options.workload.bytes_max = 8192;
    options.workload.weights.multipart = 0;
}

fn races_with_crashes(options: &mut Options) {
    races(options);
    options.faults = vec![Fault::Kill, Fault::Loss, Fault::Unplug];
    options.strikes = 5;
    options.strike_interval = Duration::from_millis(30);
}

fn replacements(options: &mut Options) {
    races(options);
    options.cores = 3;
    options.workload.pause = Duration::from_millis(300);
    options.workload.operations = 20;
    options.workload.keys = 10;
    options.faults = vec![Fault::Exchange, Fault::Unplug];
    options.strikes = 6;
    options.strike_interval = Duration::from_millis(800);
}

#[test]
fn possibly_chosen_off_by_one() {
    let quorums = |drives| {
        let right = Quorums::of(drives);
        Quorums { chosen: right.chosen + 1, chosen_fast: right.chosen_fast + 1, ..right }
    };
    find("possibly-chosen threshold off by one", nothing, quorums, races_with_crashes);
}

#[test]
fn fast_quorum_lowered() {
    let quorums = |drives| {
        let right = Quorums::of(drives);
        Quorums { fast: right.fast - 1, chosen_fast: right.chosen_fast - 1, ..right }
    };
    find("F lowered by one", nothing, quorums, races_with_crashes);
}

/// A wire that lies.
struct Lies {
    request: fn(&SimHost, DriveIndex, Request) -> Request,
    reply: fn(u64, &SimHost, DriveIndex, Reply) -> Reply,
    replies: Cell<u64>,
}

impl Tamper for Lies {
    fn request(&self, host: &SimHost, drive: DriveIndex, request: Request) -> Request {
        (self.request)(host, drive, request)
    }
    fn reply(&self, host: &SimHost, drive: DriveIndex, reply: Reply) -> Reply {
        self.replies.set(self.replies.get() + 1);
        (self.reply)(self.replies.get(), host, drive, reply)
    }
}

fn lying_replies(
    reply: fn(u64, &SimHost, DriveIndex, Reply) -> Reply,
) -> impl Fn() -> Option<Rc<dyn Tamper>> {
    let request = |_: &SimHost, _, request| request;
    move || Some(Rc::new(Lies { request, reply, replies: Cell::new(0) }))
}

fn lying_requests(
    request: fn(&SimHost, DriveIndex, Request) -> Request,
) -> impl Fn() -> Option<Rc<dyn Tamper>> {
    let reply = |_, _: &SimHost, _, reply| reply;
    move || Some(Rc::new(Lies { request, reply, replies: Cell::new(0) }))
}

#[test]
fn a_blank_drive_that_votes() {
    let votes = lying_requests(|_, _, request| match request {
        Request::InstallMap { mut map } => {
            map.drives.iter_mut().for_each(|member| member.voting = true);
            Request::InstallMap { map }
        }
        other => other,
    });
    find("a blank drive that counts in R and F", votes, Quorums::of, replacements);
}

#[test]
fn uncertified_reads() {
    // Nothing that is not certified is mentioned, so it cannot be taken for possibly chosen.
    let certified = lying_replies(|_, _, _, reply| match reply {
        Reply::Digest(mut digest) => {
            digest.slots.retain(|slot| slot.certified);
            Reply::Digest(digest)
        }
        other => other,
    });
    find("reads without the possibly-chosen test", certified, Quorums::of, races_with_crashes);
}

#[test]
fn a_corrupt_record_answered_as_absent() {
    let absent = lying_replies(|number, _, drive, reply| match reply {
        Reply::Digest(digest) if drive.0 == 0 && number % 3 == 0 => {
            Reply::Digest(Digest { slots: Default::default(), copy: None, ..digest })
        }
        other => other,
    });
    find("a corrupt record answered as absent", absent, Quorums::of, races_with_crashes);
}

#[test]
fn a_retry_without_the_outcome() {
    // A drive that says "full" has done nothing, so the proposer moves on with the same operation.
    let denies = lying_replies(|number, _, _, reply| match reply {
        Reply::Accepted { .. } if number % 5 == 0 => {
            Reply::Failed(Error::Full { free_bytes: 0, capacity_bytes: 0 })
        }
        other => other,
    });
    find("a retry without learning the outcome", denies, Quorums::of, races_with_crashes);
}

#[test]
fn recovery_without_shards_in_hand() {
    let claims = lying_replies(|_, _, _, reply| match reply {
        Reply::Holds(holds) => Reply::Holds(vec![true; holds.len()]),
        other => other,
    });
    find("recovery without k shards in hand", claims, Quorums::of, |options| {
        races_with_crashes(options);
        options.workload.bytes_max = 70_000;
    });
}

#[test]
fn an_acknowledgement_without_the_payload_rule() {
    let claims = lying_replies(|_, _, _, reply| match reply {
        Reply::Accepted { .. } => Reply::Accepted { has_shards: true },
        other => other,
    });
    find("an acknowledgement without the payload rule", claims, Quorums::of, |options| {
        races_with_crashes(options);
        options.workload.bytes_max = 70_000;
    });
}

#[test]
fn staging_forgotten_over_a_restart() {
    let forgets = lying_replies(|_, _, _, reply| match reply {
        Reply::Orphans { .. } => Reply::Orphans { entries: Vec::new(), more: false },
        other => other,
    });
    find("staging forgotten over a restart", forgets, Quorums::of, |options| {
        races_with_crashes(options);
        options.workload.bytes_max = 70_000;
    });
}

#[test]
fn no_epoch_fence() {
    // Every request is of the drive's own epoch, and no drive says that it has a newer map.
    let unfenced = || -> Option<Rc<dyn Tamper>> {
        let request = |host: &SimHost, _, mut request| {
            if let Some(map) = host.map()
                && let Request::Prepare { epoch, .. }
                | Request::Accept { epoch, .. }
                | Request::Learn { epoch, .. } = &mut request
            {
                *epoch = map.epoch;
            }
            request
        };
        let reply = |_, _: &SimHost, _, reply| match reply {
            Reply::Digest(digest) => Reply::Digest(Digest { epoch: Epoch(1), ..digest }),
            other => other,
        };
        Some(Rc::new(Lies { request, reply, replies: Cell::new(0) }))
    };
    find("no epoch fence", unfenced, Quorums::of, replacements);
}

/// Nodes that start know the first map of each set only, and so do their drives.
#[derive(Default)]
struct Forgetful {
    first: RefCell<BTreeMap<SetIndex, SetMap>>,
}

impl Tamper for Forgetful {
    fn found(&self, found: Found) -> Found {
        let Found::Ours(mut identity) = found else { return found };
        let mut first = self.first.borrow_mut();
        let first = first.entry(identity.set).or_insert_with(|| identity.map.clone());
        if identity.map.epoch < first.epoch {
            *first = identity.map.clone();
        }
        // A newcomer cannot forget the map that names it.
        if first.drives[usize::from(identity.position.0)].drive == identity.drive {
            identity.map = first.clone();
        }
        Found::Ours(identity)
    }
    fn request(&self, host: &SimHost, _: DriveIndex, mut request: Request) -> Request {
        if let Some(map) = host.map()
            && let Request::Prepare { epoch, .. }
            | Request::Accept { epoch, .. }
            | Request::Learn { epoch, .. } = &mut request
        {
            *epoch = map.epoch;
        }
        request
    }
    fn reply(&self, _: &SimHost, _: DriveIndex, reply: Reply) -> Reply {
        match reply {
            Reply::Digest(digest) => Reply::Digest(Digest { epoch: Epoch(1), ..digest }),
            other => other,
        }
    }
}

#[test]
fn a_node_that_forgets_its_map() {
    let forgets = || -> Option<Rc<dyn Tamper>> { Some(Rc::new(Forgetful::default())) };
    find_in_cluster("a node that starts with the first map", forgets, |options| {
        let nodes = options.nodes;
        replacements(options);
        options.nodes = nodes;
        options.cores = 1;
        options.shaky_start = false;
        options.faults = vec![Fault::Exchange, Fault::KillOne, Fault::Unplug];
    });
}

//! A power cut at any point of a run, with any part of what was not durable kept, lost or torn.
//! Afterwards the drive opens, is sound, and knows what it had acknowledged: for each client there
//! is one moment, between the last change acknowledged as durable and the last one asked for, of
//! which the drive knows everything and nothing more.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

use basalt_engine::drive::Drive;
use basalt_engine::request::{Digest, Reply, Request};
use basalt_engine::sim::{Prng, Recording, SimDisk, Walk, check_seeds};
use basalt_engine::units::{Key, PayloadId};
use futures_util::future::join_all;

use crate::client::{Client, EVERYTHING, Mix, check_payload};
use crate::model::Shape;
use crate::support::{SimDrive, digest, format, formatted_disk, in_world, orphans, with_drive};

/// Runs with power cuts, for each mix of requests. Together more than 100,000 distinct disks.
const SEEDS: u64 = 9;
/// Disks made at each point where more than one can come out.
const FORKS: u64 = 3;
/// One disk of so many is cut a second time while it recovers.
const CUT_TWICE: u64 = 40;

/// What a drive should know at one moment of a client.
struct Moment {
    asked: usize,
    durable: Option<usize>,
    digests: Vec<Digest>,
    held: BTreeMap<PayloadId, Shape>,
    orphans: Vec<PayloadId>,
}

/// What one client has seen.
struct History {
    keys: Vec<Key>,
    moments: Vec<Moment>,
}

impl History {
    fn of(client: Client) -> Self {
        let keys = client.keys;
        let moments = client.steps.into_iter().map(|step| Moment {
            asked: step.asked,
            durable: step.durable,
            digests: keys.iter().map(|key| step.after.digest(key)).collect(),
            orphans: step.after.orphans(),
            held: step.after.held.into_iter().map(|(id, (_, shape))| (id, shape)).collect(),
        });
        let moments = moments.collect();
        Self { keys, moments }
    }

    /// The moments of which a drive may know after a cut at `point`.
    fn allowed(&self, point: usize) -> std::ops::RangeInclusive<usize> {
        let is_durable = |moment: &Moment| moment.durable.is_some_and(|at| at <= point);
        let first = self.moments.iter().rposition(is_durable).expect("the start is durable");
        let last = self.moments.iter().rposition(|moment| moment.asked <= point);
        first..=last.expect("the start was asked for").max(first)
    }
}

/// Records a run of several clients, with checkpoints and restarts.
fn recorded_run(seed: u64, mix: Mix) -> (Recording, Vec<History>) {
    let disk = formatted_disk(seed);
    disk.record();
    let clock = disk.clone();
    let clock: Rc<dyn Fn() -> usize> = Rc::new(move || clock.recorded());
    let mut clients: Vec<Client> =
        (0..3).map(|number| Client::new(number, seed, mix, Rc::clone(&clock))).collect();
    let mut prng = Prng::new(seed);
    for life in 0..3 {
        let steps = 20 + prng.below(120);
        clients = with_drive(&disk, seed << 8 | life, move |drive, _| async move {
            let clients = act_all(&drive, clients, steps).await;
            if life == 1 {
                drive.close().await.expect("the disk is well");
            } else {
                drive.checkpoint().await.expect("the disk is well");
            }
            clients
        });
    }
    (disk.take_recording(), clients.into_iter().map(History::of).collect())
}

async fn act_all(drive: &Rc<SimDrive>, clients: Vec<Client>, steps: u64) -> Vec<Client> {
    let acting = clients.into_iter().map(|mut client| {
        let drive = Rc::clone(drive);
        async move {
            for _ in 0..steps {
                client.act(&drive).await;
            }
            client
        }
    });
    join_all(acting).await
}

/// Opens a drive after a cut and finds for each client the moment that it knows.
fn recover(disk: &SimDisk, seed: u64, histories: &Rc<Vec<History>>, point: usize) -> Vec<usize> {
    let histories = Rc::clone(histories);
    with_drive(disk, seed, move |drive, _| async move {
        let mut known = Vec::new();
        let mut expected_orphans = Vec::new();
        for history in histories.iter() {
            let at = matching_moment(&drive, history, point).await;
            let moment = &history.moments[at];
            for (payload, shape) in &moment.held {
                check_payload(&drive, *payload, *shape).await;
            }
            expected_orphans.extend(&moment.orphans);
            known.push(at);
        }
        expected_orphans.sort();
        assert_eq!(orphans(&drive).await, expected_orphans);
        known
    })
}

async fn matching_moment(drive: &Rc<SimDrive>, history: &History, point: usize) -> usize {
    let mut digests = Vec::new();
    for key in &history.keys {
        digests.push(digest(drive, key).await);
    }
    let allowed = history.allowed(point);
    for at in allowed.clone().rev() {
        let moment = &history.moments[at];
        if moment.digests == digests && holds_exactly(drive, history, moment).await {
            return at;
        }
    }
    let mut differences = String::new();
    for at in allowed.clone() {
        let wanted = &history.moments[at].digests;
        let differing = history.keys.iter().zip(digests.iter().zip(wanted));
        for (key, (found, wanted)) in differing.filter(|(_, (found, wanted))| found != wanted) {
            differences += &format!("moment {at}: {key:?}: {found:?}, not {wanted:?}\n");
        }
    }
    panic!("the drive knows none of the moments {allowed:?}:\n{differences}");
}

/// Whether the drive holds the payloads of `moment` and none of any other moment near it.
async fn holds_exactly(drive: &Rc<SimDrive>, history: &History, moment: &Moment) -> bool {
    let ever = history.moments.iter().flat_map(|moment| moment.held.keys());
    let mut asked: Vec<PayloadId> = ever.copied().collect();
    asked.sort();
    asked.dedup();
    match drive.handle(Request::Holds { payloads: asked.clone() }).await {
        Reply::Holds(holds) => asked
            .iter()
            .zip(holds)
            .all(|(payload, holds)| holds == moment.held.contains_key(payload)),
        other => panic!("{other:?}"),
    }
}

/// Cuts the power again while the drive recovers: it knows the same as before.
fn cut_twice(disk: &SimDisk, seed: u64, histories: &Rc<Vec<History>>, point: usize) {
    let first = {
        disk.record();
        let known = recover(disk, seed, histories, point);
        with_drive(disk, seed + 1, |drive, _| async move {
            drive.checkpoint().await.expect("the disk is well");
        });
        known
    };
    let recording = disk.take_recording();
    let mut prng = Prng::new(seed);
    for _ in 0..4 {
        let cut = prng.index(recording.points() + 1);
        let again = recording.image_at(cut, prng.next_u64());
        assert_eq!(recover(&again, seed, histories, point), first, "cut again at {cut}");
    }
}

/// Cuts the power at every point of [`SEEDS`] runs.
#[expect(clippy::print_stdout, reason = "a test tells its reader how far it went")]
fn cut_everywhere(name: &str, mix: Mix) {
    let [runs, points, disks] = [Cell::new(0u64), Cell::new(0u64), Cell::new(0u64)];
    let add = |count: &Cell<u64>| count.set(count.get() + 1);
    check_seeds(name, SEEDS, |seed| {
        let (recording, histories) = recorded_run(seed, mix);
        let histories = Rc::new(histories);
        let mut prng = Prng::new(seed);
        let mut walk = recording.walk();
        loop {
            let forks = if walk.open_blocks() > 0 { FORKS } else { 1 };
            for fork in 0..forks {
                let subset = match fork {
                    0 => walk.point() as u64 % 2,
                    _ => prng.next_u64(),
                };
                let twice = prng.below(CUT_TWICE) == 0;
                check_cut(&walk, subset, twice, seed, &histories);
                add(&disks);
            }
            add(&points);
            if !walk.advance() {
                break;
            }
        }
        add(&runs);
    });
    println!("{name}: {} seeds, {} points, {} disks", runs.get(), points.get(), disks.get());
}

/// Checks one disk after a cut, and says which one it was if it is not sound.
#[expect(clippy::print_stdout, reason = "a test tells its reader where it failed")]
fn check_cut(walk: &Walk<'_>, subset: u64, twice: bool, seed: u64, histories: &Rc<Vec<History>>) {
    let (disk, point) = (walk.fork(subset), walk.point());
    let check = AssertUnwindSafe(|| match twice {
        true => cut_twice(&disk, seed, histories, point),
        false => drop(recover(&disk, seed, histories, point)),
    });
    if let Err(panic) = catch_unwind(check) {
        println!("seed {seed}, point {point}, subset {subset}");
        resume_unwind(panic);
    }
}

#[test]
fn power_cuts_lose_nothing_of_small_objects() {
    let mix = Mix { copies: 16, smalls: 6, runs: 0, others: 1 };
    cut_everywhere("power_cuts_lose_nothing_of_small_objects", mix);
}

#[test]
fn power_cuts_lose_nothing_of_long_shards() {
    let mix = Mix { copies: 1, smalls: 1, runs: 9, others: 1 };
    cut_everywhere("power_cuts_lose_nothing_of_long_shards", mix);
}

#[test]
fn power_cuts_lose_nothing_of_anything() {
    cut_everywhere("power_cuts_lose_nothing_of_anything", EVERYTHING);
}

#[test]
fn a_format_that_was_cut_is_blank_or_done() {
    let disk = SimDisk::new(1, formatted_length());
    disk.record();
    in_world(&disk, 1, |storage, runtime| async move {
        Drive::format(&runtime, &storage, &format()).await.expect("the disk is well");
    });
    let recording = disk.take_recording();
    let mut walk = recording.walk();
    let (mut blank, mut done) = (0, 0);
    loop {
        for subset in 0..8 {
            let disk = walk.fork(subset);
            let opened = in_world(&disk, subset, |storage, runtime| async move {
                Drive::open(runtime, storage).await.map(|_| ())
            });
            match opened {
                Ok(()) => done += 1,
                Err(basalt_engine::Error::Unavailable { .. }) => blank += 1,
                Err(error) => panic!("point {}, subset {subset}: {error}", walk.point()),
            }
        }
        if !walk.advance() {
            break;
        }
    }
    assert!(blank > 0 && done > 0, "{blank} blank, {done} done");
}

fn formatted_length() -> basalt_engine::units::BlockCount {
    use crate::support::{SEGMENT_BLOCKS, SEGMENTS, SEGMENTS_START};
    basalt_engine::units::BlockCount(SEGMENTS_START + SEGMENTS * SEGMENT_BLOCKS)
}

//! The journal over a simulated disk: order, durability, wrapping around, replay.

use super::replay::{Replayed, replay};
use super::*;
use crate::seam::Clock;
use crate::sim::{SimDisk, SimRuntime, SimStorage, Simulation};
use crate::units::DriveId;

const REGION: Extent = Extent { start: BlockIndex(10), length: BlockCount(30) };
const OWNER: FrameOwner = FrameOwner { drive: DriveId(3), salt: 4 };
const START: Boundary = Boundary { at: BlockIndex(10), sequence: 1 };

type SimJournal = Journal<SimRuntime, SimStorage>;

fn with_journal<T: 'static, F: Future<Output = T> + 'static>(
    work: impl FnOnce(Rc<SimJournal>, Rc<SimStorage>) -> F,
) -> T {
    let disk = SimDisk::new(1, BlockCount(50));
    let simulation = Simulation::new(1);
    let runtime = simulation.group();
    let storage = Rc::new(disk.open(&runtime));
    let grown = Rc::clone(&storage);
    simulation
        .block_on(&runtime, async move { grown.grow(BlockCount(50)).await })
        .expect("there is room");
    let journal =
        Journal::resume(runtime.clone(), Rc::clone(&storage), OWNER, REGION, START.at, START);
    simulation.block_on(&runtime, work(journal, storage))
}

/// A mutation of about `bytes` bytes that can be told by `life`.
fn append(journal: &Rc<SimJournal>, life: u64, bytes: usize) -> u64 {
    let reserved = journal.try_reserve(2, bytes).expect("the journal is well");
    let mut mutation = Mutation::default();
    mutation.push(&Entry::Start { life });
    let key = crate::units::Key::from_stored(Bytes::from_static(&[1; 9])).expect("a key");
    mutation.push(&Entry::KeySet { key, state: Bytes::from(vec![0; bytes]) });
    journal.append(reserved.expect("there is room"), mutation, true)
}

async fn lives(storage: &SimStorage, from: Boundary) -> (Vec<u64>, Replayed) {
    let mut lives = Vec::new();
    let replayed = replay(storage, OWNER, REGION, from, |_, entry| {
        if let Entry::Start { life } = entry {
            lives.push(life);
        }
        true
    })
    .await;
    (lives, replayed)
}

#[test]
fn what_comes_while_a_write_is_in_flight_shares_the_next_batch() {
    with_journal(|journal, storage| async move {
        append(&journal, 1, 10);
        // Lets the first write begin.
        journal.runtime.sleep(Duration::from_nanos(1)).await;
        for life in 2..6 {
            append(&journal, life, 10);
        }
        journal.durable(journal.last()).await.expect("the disk is well");
        let (lives, replayed) = lives(&storage, START).await;
        assert_eq!(lives, [1, 2, 3, 4, 5]);
        assert_eq!((replayed.batches, replayed.damage), (2, None));
    });
}

#[test]
fn the_ring_wraps_and_takes_no_more_than_fits() {
    with_journal(|journal, storage| async move {
        let mut boundary = START;
        let mut kept = Vec::new();
        for life in 1..40 {
            if journal.try_reserve(2, 14_000).expect("the journal is well").is_none() {
                boundary = journal.boundary();
                journal.release(boundary);
                kept.clear();
            }
            let number = append(&journal, life, 14_000);
            journal.durable(number).await.expect("the disk is well");
            kept.push(life);
            assert!(journal.used() <= REGION.length);
            let (lives, replayed) = lives(&storage, boundary).await;
            assert_eq!((lives, replayed.damage), (kept.clone(), None));
            assert_eq!(replayed.head, journal.boundary());
        }
    });
}

#[test]
fn room_that_was_reserved_and_not_used_comes_back() {
    with_journal(|journal, _| async move {
        let reserve = || journal.try_reserve(1, 16_000).expect("the journal is well");
        let mut held = Vec::new();
        while let Some(reservation) = reserve() {
            held.push(reservation);
        }
        let (count, seen) = (held.len(), journal.room_seen());
        assert!(count > 2, "{count} reservations fit");
        drop(held);
        journal.room_after(seen).await.expect("room came back");
        let again: Vec<_> = std::iter::from_fn(reserve).collect();
        assert_eq!(again.len(), count);
    });
}

#[test]
fn an_entry_longer_than_a_batch_is_refused() {
    with_journal(|journal, _| async move {
        let refused = journal.try_reserve(1, 30_000);
        assert!(matches!(refused, Err(Error::Limit { .. })));
    });
}

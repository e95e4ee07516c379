//! Runs repeat, groups stop, time is virtual, and nothing is left behind.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::select;
use futures_util::{StreamExt, pin_mut};

use super::{LENGTH, write};
use crate::seam::{Clock, Random, Spawn, Storage, WriteSync};
use crate::sim::{Ended, SimDisk, Simulation, WallSkew};

/// Tasks that talk, sleep, draw and write: everything that a run decides goes into its log.
fn busy_run(seed: u64) -> (u64, Vec<(u64, u64)>) {
    let simulation = Simulation::new(seed);
    let disk = SimDisk::new(seed, LENGTH);
    let node = simulation.group();
    let storage = Rc::new(disk.open(&node));
    let log = Rc::new(RefCell::new(Vec::new()));
    let (sender, mut receiver) = futures_channel::mpsc::unbounded();
    simulation.block_on(&node, {
        let storage = storage.clone();
        async move { storage.grow(LENGTH).await.expect("there is room") }
    });
    for task in 0..8u64 {
        let (core, storage, sender) = (node.subgroup(), storage.clone(), sender.clone());
        node.spawn(async move {
            for round in 0..20 {
                core.sleep(Duration::from_micros(core.random_u64() % 300)).await;
                let at = core.random_u64() % LENGTH.0;
                write(&storage, at, round, WriteSync::Cached).await;
                sender.unbounded_send((task, at)).expect("the receiver waits");
            }
        });
    }
    drop(sender);
    let arrivals = log.clone();
    node.spawn(async move {
        while let Some(arrival) = receiver.next().await {
            arrivals.borrow_mut().push(arrival);
        }
    });
    simulation.run();
    let arrivals = log.borrow().clone();
    (simulation.event_hash(), arrivals)
}

#[test]
fn a_seed_repeats_a_run_and_another_seed_does_not() {
    let runs: Vec<_> = (0..10).map(busy_run).collect();
    for (seed, run) in runs.iter().enumerate() {
        assert_eq!(run.1.len(), 160);
        assert_eq!(*run, busy_run(seed as u64), "seed {seed}");
    }
    let hashes: BTreeSet<u64> = runs.iter().map(|run| run.0).collect();
    let orders: BTreeSet<_> = runs.iter().map(|run| &run.1).collect();
    assert_eq!((hashes.len(), orders.len()), (10, 10));
}

#[test]
fn sleepers_wake_in_time_and_time_is_virtual() {
    let simulation = Simulation::new(3);
    let runtime = simulation.group();
    let clock = runtime.clone();
    simulation.block_on(&runtime, async move {
        let start = clock.now();
        let hours = clock.sleep(Duration::from_secs(3600 * 100));
        let minute = clock.sleep(Duration::from_secs(60));
        pin_mut!(hours, minute);
        select(hours, minute).await;
        let slept = clock.now().since(start);
        assert!(slept >= Duration::from_secs(60) && slept < Duration::from_secs(61), "{slept:?}");
    });
    let before = simulation.now();
    simulation.run();
    let left = simulation.now().since(before);
    assert!(left < Duration::from_secs(1), "the dropped sleep left no event: {left:?}");
    simulation.run_for(Duration::from_secs(5));
    assert_eq!(simulation.now(), before.plus(left).plus(Duration::from_secs(5)));
}

#[test]
fn a_stopped_group_runs_no_further_and_others_do() {
    let simulation = Simulation::new(4);
    let (node, other) = (simulation.group(), simulation.group());
    let core = node.subgroup();
    let counts: [Rc<Cell<u32>>; 2] = Default::default();
    for (runtime, count) in [(&core, &counts[0]), (&other, &counts[1])] {
        let (clock, count) = (runtime.clone(), count.clone());
        runtime.spawn(async move {
            loop {
                clock.sleep(Duration::from_millis(1)).await;
                count.set(count.get() + 1);
            }
        });
    }
    let reached = simulation.run_until(|| counts[0].get() == 10, Duration::from_secs(1));
    assert_eq!(reached, Ended::Reached);
    node.stop();
    assert!(!core.is_alive() && other.is_alive());
    core.spawn(async { panic!("a task of a stopped group ran") });
    node.subgroup().spawn(async { panic!("a task of a stopped group ran") });
    let unreached = simulation.run_until(|| counts[0].get() > 10, Duration::from_millis(50));
    assert_eq!(unreached, Ended::Deadline);
    assert!(counts[1].get() > 50, "{}", counts[1].get());
    assert_eq!(Rc::strong_count(&counts[0]), 1, "the task was dropped with what it held");
}

#[test]
fn a_paused_group_waits_and_goes_on() {
    let simulation = Simulation::new(4);
    let (paused, other) = (simulation.group(), simulation.group());
    let core = paused.subgroup();
    let rounds = [const { Cell::new(0) }; 2].map(Rc::new);
    for (runtime, rounds) in [core, other].into_iter().zip(rounds.clone()) {
        runtime.clone().spawn(async move {
            loop {
                runtime.sleep(Duration::from_millis(10)).await;
                rounds.set(rounds.get() + 1);
            }
        });
    }
    simulation.run_for(Duration::from_millis(95));
    paused.pause();
    // What is put to it meanwhile waits as well.
    let put = Rc::new(Cell::new(false));
    let done = put.clone();
    paused.spawn(async move { done.set(true) });
    simulation.run_for(Duration::from_millis(100));
    assert_eq!((rounds[0].get(), rounds[1].get(), put.get()), (9, 19, false));
    paused.resume();
    simulation.run_for(Duration::from_millis(100));
    assert!(put.get() && rounds[0].get() >= 18, "{} rounds", rounds[0].get());
}

#[test]
fn a_task_may_stop_its_own_group() {
    let simulation = Simulation::new(5);
    let runtime = simulation.group();
    let held = Rc::new(());
    let (own, kept) = (runtime.clone(), held.clone());
    runtime.spawn(async move {
        own.stop();
        own.sleep(Duration::from_secs(1)).await;
        drop(kept);
        panic!("a stopped task went on");
    });
    simulation.run();
    assert_eq!(Rc::strong_count(&held), 1);
}

#[test]
fn a_world_frees_what_is_left_in_it() {
    let held = Rc::new(());
    let simulation = Simulation::new(6);
    let runtime = simulation.group();
    let (clock, in_task, in_event) = (runtime.clone(), held.clone(), held.clone());
    runtime.spawn(async move {
        clock.sleep(Duration::from_secs(1)).await;
        drop(in_task);
    });
    let cycle = runtime.clone();
    runtime.schedule(Duration::from_secs(1), move || drop((in_event, cycle)));
    simulation.run_for(Duration::from_millis(1));
    drop(simulation);
    assert_eq!(Rc::strong_count(&held), 1);
}

#[test]
#[should_panic(expected = "waits for what never comes")]
fn a_task_that_waits_for_nothing_is_found() {
    let simulation = Simulation::new(7);
    simulation.block_on(&simulation.group(), std::future::pending::<()>());
}

#[test]
#[should_panic(expected = "takes more than 1000 steps")]
fn a_run_without_end_is_found() {
    let simulation = Simulation::new(8);
    let runtime = simulation.group();
    simulation.set_step_budget(1000);
    let clock = runtime.clone();
    simulation.block_on(&runtime, async move {
        loop {
            clock.sleep(Duration::ZERO).await;
        }
    });
}

#[test]
fn wall_clocks_are_off_drift_and_jump() {
    let simulation = Simulation::new(9);
    let (right, wrong) = (simulation.group(), simulation.group());
    let off_by = || wrong.wall().0 as i64 - right.wall().0 as i64;
    assert_eq!(off_by(), 0);
    wrong.set_wall(WallSkew { offset_ms: -5000, drift_ppm: 1000 });
    assert_eq!(off_by(), -5000);
    simulation.run_for(Duration::from_secs(1000));
    assert_eq!(off_by(), -4000);
    wrong.set_wall(WallSkew { offset_ms: 7, drift_ppm: 0 });
    simulation.run_for(Duration::from_secs(1000));
    assert_eq!(off_by(), 7);
}

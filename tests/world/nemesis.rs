//! What goes wrong, and when: drawn from the seed, within what a set is built to survive.
//!
//! Crashes, power cuts, pauses and drives that come back with everything they had may hit any drive
//! at any time. What destroys a drive's contents may come at any time too, but hits one drive of a set:
//! that is what the acknowledgement of a PUT promises to survive. A write that is not acknowledged yet
//! may be lost with it; see [`super::judge`]. Once everything is settled, as many drives of a set as it
//! has parity are harmed at once ([`harm_settled`]).

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use basalt_engine::seam::{Clock, Spawn};
use basalt_engine::sim::{Prng, SimDisk, SimRuntime, WallSkew};

use super::clients::Shared;
use super::mailbox::Wire;
use super::node::{JOURNAL_START, Machine, Node, Places, SEGMENTS_START};
use super::place::Place;

/// What may happen in a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    PowerCut,
    Kill,
    Unplug,
    Hang,
    FlushFailure,
    WriteError,
    /// Blocks of payload cannot be read.
    Unreadable,
    /// Bits of payload change.
    Rot,
    /// The drive is exchanged for an empty one.
    Exchange,
    /// Foreign files stand where the drive was.
    Overwrite,
    /// Messages are lost for a while.
    Loss,
    /// A write to a segment is acknowledged and never lands, or lands elsewhere.
    LostWrite,
    MisdirectedWrite,
    /// A write to the journal is acknowledged and never lands.
    LostJournalWrite,
    /// Bits change in what the journal has held for a while.
    JournalRot,
    /// Bits change in a copy of the superblock.
    SuperblockRot,
    /// Wall clocks jump and drift, each in its own way.
    Clocks,
}

impl Fault {
    pub const ALL: [Self; 17] = [
        Self::PowerCut,
        Self::Kill,
        Self::Unplug,
        Self::Hang,
        Self::FlushFailure,
        Self::WriteError,
        Self::Unreadable,
        Self::Rot,
        Self::Exchange,
        Self::Overwrite,
        Self::Loss,
        Self::LostWrite,
        Self::MisdirectedWrite,
        Self::LostJournalWrite,
        Self::JournalRot,
        Self::SuperblockRot,
        Self::Clocks,
    ];
}

pub struct Nemesis {
    pub runtime: SimRuntime,
    pub prng: Prng,
    pub machine: Machine,
    pub shared: Rc<Shared>,
    pub faults: Vec<Fault>,
    pub interval: Duration,
    /// The drive of each set that may lose what it holds.
    pub victims: Vec<usize>,
}

impl Nemesis {
    /// Does `count` things, then puts everything right.
    pub async fn run(mut self, count: usize) {
        for _ in 0..count {
            let pause = self.prng.duration(self.interval / 4..self.interval * 2);
            self.runtime.sleep(pause).await;
            if self.faults.is_empty() {
                continue;
            }
            let fault = self.faults[self.prng.index(self.faults.len())];
            tracing::info!(now_us = self.runtime.now().0 / 1000, ?fault, "strike");
            self.strike(fault).await;
        }
        self.heal().await;
    }

    async fn strike(&mut self, fault: Fault) {
        let set = self.prng.index(self.machine.places.len());
        let drives = self.machine.places[set].len();
        let any = self.prng.index(drives);
        let victim = self.victims[set];
        let place = self.machine.places[set][any].clone();
        let (short, long) = (Duration::from_millis(20), Duration::from_secs(8));
        match fault {
            Fault::PowerCut | Fault::Kill => self.crash(fault == Fault::PowerCut).await,
            Fault::Unplug => {
                place.unplug();
                let pause = self.prng.duration(short..long);
                self.later(pause, move || place.plug_in());
            }
            Fault::Hang => {
                let Some(disk) = place.disk() else { return };
                disk.stall();
                let pause = self.prng.duration(short..long);
                self.later(pause, move || disk.release());
            }
            Fault::FlushFailure => {
                if let Some(disk) = place.disk() {
                    disk.fail_flushes(1);
                }
            }
            Fault::WriteError => {
                let Some(disk) = place.disk() else { return };
                disk.make_unwritable(JOURNAL_START..SEGMENTS_START + 20 * 288);
                let pause = self.prng.duration(short..Duration::from_secs(1));
                self.later(pause, move || disk.make_writable());
            }
            Fault::Unreadable | Fault::Rot => {
                if drives == 1 {
                    return;
                }
                let place = self.machine.places[set][victim].clone();
                if let Some(disk) = place.disk() {
                    self.spoil(&disk, fault == Fault::Rot);
                }
            }
            Fault::LostWrite
            | Fault::MisdirectedWrite
            | Fault::JournalRot
            | Fault::SuperblockRot => {
                let place = &self.machine.places[set][victim];
                if let Some(disk) = place.disk().filter(|_| drives > 1) {
                    self.harm(&disk, fault);
                }
            }
            Fault::LostJournalWrite => {
                if drives > 1 {
                    self.lose_journal_write(&self.machine.places[set][victim]);
                }
            }
            Fault::Clocks => self.set_clocks(),
            Fault::Exchange | Fault::Overwrite => self.destroy(set, victim, fault),
            Fault::Loss => {
                let ppm = [1_000, 20_000, 200_000][self.prng.index(3)];
                self.machine.wire.replace_with(|wire| Wire {
                    refused_ppm: ppm,
                    request_lost_ppm: ppm,
                    reply_lost_ppm: ppm,
                    ..wire.clone()
                });
                let wire = self.machine.wire.clone();
                let pause = self.prng.duration(short..Duration::from_secs(3));
                self.later(pause, move || calm(&wire));
            }
        }
    }

    fn later(&self, pause: Duration, event: impl FnOnce() + 'static) {
        self.runtime.schedule(pause, event);
    }

    fn spoil(&mut self, disk: &SimDisk, rot: bool) {
        let blocks = 1 + self.prng.below(4);
        spoil(&mut self.prng, disk, rot, blocks);
    }

    fn harm(&mut self, disk: &SimDisk, fault: Fault) {
        let written = disk.written_blocks();
        let segments = SEGMENTS_START..u64::MAX;
        match fault {
            Fault::LostWrite => disk.lose_next_write_in(segments),
            Fault::MisdirectedWrite => {
                let payload: Vec<u64> =
                    written.into_iter().filter(|block| segments.contains(block)).collect();
                if !payload.is_empty() {
                    let to = payload[self.prng.index(payload.len())];
                    disk.misdirect_next_write_in(segments, to);
                }
            }
            Fault::JournalRot => self.spoil_journal(disk, &written),
            _ => {
                let copies: Vec<u64> =
                    written.into_iter().filter(|&block| block < JOURNAL_START).collect();
                let block = copies[self.prng.index(copies.len())];
                disk.rot(block, self.prng.index(4096 * 8));
            }
        }
    }

    /// What was the tail of the journal until a moment ago is left alone: a drive that loses its last
    /// batch before the mark that follows it cannot know.
    fn spoil_journal(&mut self, disk: &SimDisk, written: &[u64]) {
        let journal: Vec<u64> = written
            .iter()
            .copied()
            .filter(|block| (JOURNAL_START..SEGMENTS_START).contains(block))
            .collect();
        if journal.is_empty() {
            return;
        }
        let block = journal[self.prng.index(journal.len())];
        let (bit, before, disk) = (self.prng.index(4096 * 8), disk.peek(block), disk.clone());
        let node = self.shared.node.borrow().clone();
        let shared = self.shared.clone();
        self.later(Duration::from_secs(3), move || {
            let same_life = match (&node, &*shared.node.borrow()) {
                (Some(then), Some(now)) => Rc::ptr_eq(then, now),
                _ => false,
            };
            if same_life && *disk.peek(block) == *before {
                disk.rot(block, bit);
            }
        });
    }

    /// The drive finds out when it is opened again, by what it has written since. Until it has written
    /// something it cannot, so until then it is not opened again but exchanged.
    fn lose_journal_write(&self, place: &Rc<Place>) {
        let Some(disk) = place.disk().filter(|_| !place.forgets.get()) else { return };
        place.forgets.set(true);
        disk.lose_next_write_in(JOURNAL_START..SEGMENTS_START);
        let (runtime, place) = (self.runtime.clone(), place.clone());
        self.runtime.spawn(async move {
            while disk.fated_writes() > 0 {
                runtime.sleep(Duration::from_millis(100)).await;
            }
            let mut sound = 0;
            while sound < 3 {
                runtime.sleep(Duration::from_secs(1)).await;
                sound = if disk.is_stalled() { 0 } else { sound + 1 };
            }
            place.forgets.set(false);
        });
    }

    fn set_clocks(&mut self) {
        let Some(node) = self.shared.node.borrow().clone() else { return };
        for core in &node.cores {
            let years = self.prng.below(20) as i64 - 10;
            let offset_ms = years * 365 * 86_400_000 + self.prng.below(86_400_000) as i64;
            let drift_ppm = self.prng.below(400_000) as i64 - 200_000;
            core.set_wall(WallSkew { offset_ms, drift_ppm });
        }
    }

    fn destroy(&mut self, set: usize, drive: usize, fault: Fault) {
        if self.machine.places[set].len() == 1 {
            return;
        }
        let place = self.machine.places[set][drive].clone();
        if fault == Fault::Exchange {
            return place.exchange();
        }
        place.overwrite();
        let pause = self.prng.duration(Duration::from_secs(1)..Duration::from_secs(6));
        self.later(pause, move || {
            if place.is_foreign() {
                place.exchange();
            }
        });
    }

    async fn crash(&mut self, power: bool) {
        let node = self.shared.node.replace(None);
        if let Some(node) = node {
            node.kill();
        }
        for place in self.machine.places.iter().flatten() {
            if power {
                place.power_cut();
            }
            // A hung process's disks answer the next one.
            place.disk().iter().for_each(SimDisk::release);
        }
        let pause = self.prng.duration(Duration::from_millis(10)..Duration::from_secs(3));
        self.runtime.sleep(pause).await;
        self.start().await;
    }

    pub async fn start(&self) {
        loop {
            // A new group is a new process.
            let group = self.runtime.subgroup();
            match Node::start(&self.machine, group.clone()).await {
                Ok(node) => {
                    self.shared.node.replace(Some(Rc::new(node)));
                    return;
                }
                Err(_) => {
                    group.stop();
                    self.runtime.sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }

    async fn heal(&mut self) {
        calm(&self.machine.wire);
        for place in self.machine.places.iter().flatten() {
            if place.is_foreign() {
                place.exchange();
            }
            place.plug_in();
            if let Some(disk) = place.disk() {
                disk.release();
                disk.make_writable();
                disk.fail_flushes(0);
                disk.write_as_told();
            }
        }
        if self.shared.node.borrow().is_none() {
            self.start().await;
        }
    }
}

/// Payload goes bad; the superblock and the journal are left alone.
fn spoil(prng: &mut Prng, disk: &SimDisk, rot: bool, blocks: u64) {
    let payload: Vec<u64> =
        disk.written_blocks().into_iter().filter(|&block| block >= SEGMENTS_START).collect();
    if payload.is_empty() {
        return;
    }
    for _ in 0..blocks {
        let block = payload[prng.index(payload.len())];
        if rot {
            disk.rot(block, prng.index(4096 * 8));
        } else {
            disk.make_unreadable(block..block + 1);
        }
    }
}

/// What every set survives once all is settled: up to `harmed` drives of it go away, or much of their
/// payload goes bad. The one that was harmed before is among them, for nobody has looked at all of its
/// payload since. Answers whether they went away.
pub fn harm_settled(prng: &mut Prng, places: &Places, harmed: usize) -> bool {
    let away = prng.coin();
    for places in places.iter() {
        let (mut chosen, mut left): (Vec<_>, Vec<_>) =
            places.iter().partition(|place| place.may_fail.get());
        while chosen.len() < harmed.min(places.len() - 1) {
            chosen.push(left.swap_remove(prng.index(left.len())));
        }
        for place in chosen.into_iter().take(harmed) {
            match place.disk() {
                _ if away => place.unplug(),
                Some(disk) => {
                    let (rot, blocks) = (prng.coin(), 1 + prng.below(200));
                    spoil(prng, &disk, rot, blocks);
                }
                None => {}
            }
        }
    }
    away
}

fn calm(wire: &RefCell<Wire>) {
    wire.replace_with(|wire| Wire {
        refused_ppm: 0,
        request_lost_ppm: 0,
        reply_lost_ppm: 0,
        ..wire.clone()
    });
}

//! What goes wrong, and when: drawn from the seed, within what a set is built to survive.
//!
//! Nodes die, one or all, are paused, are cut off and come back, as often as it likes: they only have what
//! their drives hold.
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
use basalt_engine::units::{DriveIndex, SetIndex};

use super::LINKS_STAND;
use super::clients::Shared;
use super::fleet;
use super::mailbox::Wire;
use super::node::{JOURNAL_START, Machine, Places, SEGMENTS_START};
use super::place::Place;

/// What may happen in a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Of all nodes.
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
    /// One node dies, its machine's power with it or not, and comes back.
    PowerCutOne,
    KillOne,
    /// One node is stopped for up to half a minute.
    Pause,
    /// Nothing comes from one node to another, or neither way.
    Partition,
    /// Nothing comes to or from a node, or only to, or only from it.
    Isolate,
    /// Connections between two nodes break.
    CutLink,
    /// What goes from one node to another takes long.
    SlowLink,
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

    /// What only clusters know.
    pub const OF_CLUSTERS: [Self; 7] = [
        Self::PowerCutOne,
        Self::KillOne,
        Self::Pause,
        Self::Partition,
        Self::Isolate,
        Self::CutLink,
        Self::SlowLink,
    ];
}

/// The longest that a node is paused.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// After everything was put right all nodes serve within this.
const START_MAX: Duration = Duration::from_secs(60);

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
            Fault::PowerCutOne | Fault::KillOne => {
                let node = self.prng.index(self.machine.nodes());
                self.fell(node, fault == Fault::PowerCutOne);
            }
            Fault::Pause => {
                let node = self.prng.index(self.machine.nodes());
                let most = [long, PAUSE_MAX][self.prng.index(2)];
                let pause = self.prng.duration(short..most);
                fleet::pause(&self.machine, &self.runtime, node, pause);
            }
            Fault::Partition | Fault::Isolate | Fault::CutLink | Fault::SlowLink => {
                self.strike_network(fault);
            }
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
                    self.harm(&disk, fault, self.machine.node_of(set, victim));
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
                self.machine.wires.wire.replace_with(|wire| Wire {
                    refused_ppm: ppm,
                    request_lost_ppm: ppm,
                    reply_lost_ppm: ppm,
                    ..wire.clone()
                });
                let wires = self.machine.wires.clone();
                let pause = self.prng.duration(short..Duration::from_secs(3));
                self.later(pause, move || calm(&wires.wire));
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

    fn harm(&mut self, disk: &SimDisk, fault: Fault, node: usize) {
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
            Fault::JournalRot => self.spoil_journal(disk, &written, node),
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
    fn spoil_journal(&mut self, disk: &SimDisk, written: &[u64], node: usize) {
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
        let fleet = self.machine.wires.fleet.clone();
        let then = fleet.process(node);
        self.later(Duration::from_secs(3), move || {
            let same_life = match (&then, &fleet.process(node)) {
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
        for core in self.shared.serving().iter().flat_map(|node| &node.cores) {
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

    fn strike_network(&mut self, fault: Fault) {
        let nodes = self.machine.nodes();
        if nodes == 1 {
            return;
        }
        let one = self.prng.index(nodes);
        let other = (one + 1 + self.prng.index(nodes - 1)) % nodes;
        let network = self.machine.wires.fleet.network.clone();
        let pause = self.prng.duration(Duration::from_millis(20)..Duration::from_secs(12));
        let (to, from) = [(true, true), (true, false), (false, true)][self.prng.index(3)];
        let others: Vec<usize> = match fault {
            Fault::Isolate => network.others(one).collect(),
            _ => vec![other],
        };
        let ways = others.into_iter().flat_map(|other| {
            [(from, (one, other)), (to, (other, one))]
                .into_iter()
                .filter_map(|(struck, way)| struck.then_some(way))
        });
        let ways: Vec<_> = ways.collect();
        match fault {
            Fault::CutLink => ways.into_iter().for_each(|way| network.cut(way)),
            Fault::SlowLink => {
                let most = [50, 2_000][self.prng.index(2)];
                let slower = Duration::from_millis(1)..Duration::from_millis(most);
                ways.iter().for_each(|way| network.slow(*way, Some(slower.clone())));
                self.later(pause, move || ways.iter().for_each(|way| network.slow(*way, None)));
            }
            _ => {
                ways.iter().for_each(|way| network.block(*way, true));
                self.later(pause, move || {
                    ways.iter().for_each(|way| network.block(*way, false));
                });
            }
        }
    }

    /// All nodes die, and each comes back by itself; on the first of them it is waited for.
    async fn crash(&mut self, power: bool) {
        for node in 0..self.machine.nodes() {
            self.fell(node, power);
        }
        let pause = self.prng.duration(Duration::from_millis(10)..Duration::from_secs(3));
        self.runtime.sleep(pause).await;
    }

    /// The node dies, and comes back in a while.
    fn fell(&mut self, node: usize, power: bool) {
        fleet::kill(&self.machine, &self.shared, node, power);
        let pause = self.prng.duration(Duration::from_millis(10)..Duration::from_secs(3));
        let (machine, shared) = (self.machine.clone(), self.shared.clone());
        let (world, fleet) = (self.runtime.clone(), self.machine.wires.fleet.clone());
        let life = fleet.network.life(node);
        self.later(pause, move || {
            // Whoever has started it since may have felled it again, for longer.
            if fleet.network.life(node) == life {
                fleet::launch_if_down(&machine, &shared, &world, node);
            }
        });
    }

    /// The first start; with `shaky`, while nodes die, are paused and cut off.
    pub async fn start(&mut self, shaky: bool) {
        self.launch_all();
        if shaky {
            let faults =
                [Fault::KillOne, Fault::Pause, Fault::Isolate, Fault::CutLink, Fault::Kill];
            for _ in 0..1 + self.prng.below(5) {
                let pause = Duration::from_millis([5, 100, 2_000][self.prng.index(3)]);
                let pause = self.prng.duration(Duration::ZERO..pause);
                self.runtime.sleep(pause).await;
                let fault = faults[self.prng.index(faults.len())];
                self.strike(fault).await;
            }
            self.runtime.sleep(PAUSE_MAX).await;
        }
        fleet::all_serve(&self.shared, &self.runtime, START_MAX).await;
        if self.machine.nodes() > 1 {
            self.runtime.sleep(LINKS_STAND).await;
        }
    }

    fn launch_all(&self) {
        for node in 0..self.machine.nodes() {
            fleet::launch_if_down(&self.machine, &self.shared, &self.runtime, node);
        }
    }

    async fn heal(&mut self) {
        calm(&self.machine.wires.wire);
        self.machine.wires.fleet.network.calm();
        fleet::resume_all(&self.machine.wires.fleet);
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
        self.launch_all();
        fleet::all_serve(&self.shared, &self.runtime, START_MAX).await;
        if self.machine.nodes() > 1 {
            self.runtime.sleep(LINKS_STAND).await;
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

/// Nodes that may be gone together with no set losing more than `most` drives: as many as can be found.
/// Where payload is needed, the drive that was harmed before counts as gone.
pub fn spared(prng: &mut Prng, machine: &Machine, most: usize, payload: bool) -> Vec<usize> {
    let is_gone = |(set, position): (SetIndex, DriveIndex), gone: &[usize]| {
        let harmed = payload && machine.place(set, position).may_fail.get();
        harmed || gone.contains(&machine.wires.fleet.seats.node(set, position))
    };
    let is_spared = |gone: &[usize]| {
        machine.places.iter().zip(0u16..).all(|(places, set)| {
            let seats = (0u8..).take(places.len()).map(|at| (SetIndex(set), DriveIndex(at)));
            seats.filter(|seat| is_gone(*seat, gone)).count() <= most
        })
    };
    let mut left: Vec<usize> = (0..machine.nodes()).collect();
    let mut gone = Vec::new();
    while left.len() > 1 {
        gone.push(left.swap_remove(prng.index(left.len())));
        if !is_spared(&gone) {
            gone.pop();
        }
    }
    gone
}

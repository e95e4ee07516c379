//! A simulated disk: the device, which the test holds and whose contents outlive crashes. Its
//! openings are in `storage`, its bytes in `medium`; here is what goes wrong with it.
//!
//! **Ends.** After a *power cut* ([`SimDisk::power_cut`]) the operations of the opening never
//! complete; stop the tasks of the node too. When only the *process* dies (its group is stopped),
//! the device goes on; what is still in flight when the disk is opened again lands in part.
//! After *pulling* ([`SimDisk::blank`], [`SimDisk::swap`]) operations fail as unavailable.
//!
//! **Faults.** By chance ([`Faults`]): unreadable blocks, failed and partial writes, failed
//! flushes that forget the cache, lost and misdirected writes, bit rot, stalls. At a wanted place:
//! the methods of [`SimDisk`], which has in addition full, read-only and vanished disks.

use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::mem;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use super::faults::{Faults, Latency};
use super::image::{Block, bytes_of};
use super::medium::{Medium, Step, Subset, Write, WriteId};
use super::prng::Prng;
use super::recording::Recording;
use super::runtime::SimRuntime;
use super::storage::SimStorage;
use crate::buffer::Buffer;
use crate::error::{Error, Result};
use crate::units::{BLOCK_BYTES, BlockCount, BlockIndex};

const EIO: i32 = 5;
const EINVAL: i32 = 22;
const EROFS: i32 = 30;
/// How long operations take to resume after a stall, at most.
const RESUME: Range<Duration> = Duration::ZERO..Duration::from_millis(1);

/// A device whose contents outlive crashes. Clones are handles of the same device.
#[derive(Clone)]
pub struct SimDisk {
    pub(super) state: Rc<RefCell<State>>,
}

pub(super) struct State {
    pub(super) medium: Medium,
    pub(super) length_max: u64,
    prng: Prng,
    faults: Faults,
    latency: Latency,
    /// Names the opening whose operations count. Grows.
    opening: u64,
    /// Operations of openings up to this one never complete: the power was cut.
    cut_through: u64,
    pub(super) writes: WriteId,
    condition: Condition,
    /// What the next writes to complete do, in that order, each the next within its blocks.
    write_fates: VecDeque<(Range<u64>, WriteFate)>,
    parked: Vec<Parked>,
    recorded: Option<(Medium, Vec<Step>)>,
}

/// What is wrong with the device until it is put right.
#[derive(Default)]
struct Condition {
    has_vanished: bool,
    is_read_only: bool,
    is_stalled: bool,
    free_max: Option<u64>,
    unreadable: BTreeSet<u64>,
    unwritable: BTreeSet<u64>,
    flushes_to_fail: u32,
}

#[derive(Clone, Copy)]
enum WriteFate {
    Lost,
    Misdirected { to: u64 },
}

/// An operation that was due while the disk was stalled.
struct Parked {
    runtime: SimRuntime,
    end: Box<dyn FnOnce(&SimDisk)>,
}

impl SimDisk {
    /// An empty disk that can grow to `length_max`. What it does by chance is drawn from `seed`.
    pub fn new(seed: u64, length_max: BlockCount) -> Self {
        Self::with_medium(seed, length_max.0, Medium::default())
    }

    pub(super) fn with_medium(seed: u64, length_max: u64, medium: Medium) -> Self {
        let state = State {
            medium,
            length_max,
            prng: Prng::new(seed),
            faults: Faults::default(),
            latency: Latency::default(),
            opening: 0,
            cut_through: 0,
            writes: 0,
            condition: Condition::default(),
            write_fates: VecDeque::new(),
            parked: Vec::new(),
            recorded: None,
        };
        Self { state: Rc::new(RefCell::new(state)) }
    }

    /// Opens the disk. An earlier opening ends: its process is dead, what it had in flight lands
    /// in part.
    pub fn open(&self, runtime: &SimRuntime) -> SimStorage {
        let state = &mut *self.state.borrow_mut();
        state.scatter_in_flight();
        state.opening += 1;
        SimStorage::new(self.clone(), runtime.clone(), state.opening)
    }

    /// The disk as whoever has it open sees it, for a look that disturbs nothing.
    pub fn look(&self, runtime: &SimRuntime) -> SimStorage {
        let opening = self.state.borrow().opening;
        SimStorage::new(self.clone(), runtime.clone(), opening)
    }

    /// Cuts the power: see `medium` for what is left.
    pub fn power_cut(&self) {
        let parked = {
            let state = &mut *self.state.borrow_mut();
            let subset = Subset::Drawn(state.prng.next_u64());
            state.apply(Step::PowerCut { subset });
            state.cut_through = state.opening;
            state.opening += 1;
            state.condition.is_stalled = false;
            mem::take(&mut state.parked)
        };
        drop(parked);
    }

    pub fn set_faults(&self, faults: Faults) {
        self.state.borrow_mut().faults = faults;
    }
    pub fn set_latency(&self, latency: Latency) {
        self.state.borrow_mut().latency = latency;
    }

    /// Reads of these blocks fail until they are written again.
    pub fn make_unreadable(&self, blocks: Range<u64>) {
        self.state.borrow_mut().condition.unreadable.extend(blocks);
    }
    /// Writes to these blocks fail until [`Self::make_writable`].
    pub fn make_unwritable(&self, blocks: Range<u64>) {
        self.state.borrow_mut().condition.unwritable.extend(blocks);
    }
    pub fn make_writable(&self) {
        self.state.borrow_mut().condition.unwritable.clear();
    }
    /// The next `count` flushes fail.
    pub fn fail_flushes(&self, count: u32) {
        self.state.borrow_mut().condition.flushes_to_fail = count;
    }
    /// The next write to complete is acknowledged and leaves nothing.
    pub fn lose_next_write(&self) {
        self.lose_next_write_in(0..u64::MAX);
    }
    /// The same for the next write that lies within `blocks`.
    pub fn lose_next_write_in(&self, blocks: Range<u64>) {
        self.state.borrow_mut().write_fates.push_back((blocks, WriteFate::Lost));
    }
    /// The next write to complete lands at `to`.
    pub fn misdirect_next_write(&self, to: u64) {
        self.misdirect_next_write_in(0..u64::MAX, to);
    }
    /// The same for the next write that lies within `blocks`.
    pub fn misdirect_next_write_in(&self, blocks: Range<u64>, to: u64) {
        self.state.borrow_mut().write_fates.push_back((blocks, WriteFate::Misdirected { to }));
    }
    /// Writes that are still to be lost or misdirected.
    pub fn fated_writes(&self) -> usize {
        self.state.borrow().write_fates.len()
    }
    /// Nothing is lost or misdirected on purpose any more.
    pub fn write_as_told(&self) {
        self.state.borrow_mut().write_fates.clear();
    }
    /// Flips one bit of a block.
    pub fn rot(&self, block: u64, bit: usize) {
        self.state.borrow_mut().apply(Step::Rot { at: block, bit });
    }
    /// The machine has no more than this to grow by; `None` lifts the limit.
    pub fn limit_free(&self, blocks: Option<u64>) {
        self.state.borrow_mut().condition.free_max = blocks;
    }
    pub fn set_read_only(&self, is_read_only: bool) {
        self.state.borrow_mut().condition.is_read_only = is_read_only;
    }
    /// From now on every operation fails, until [`Self::reappear`].
    pub fn vanish(&self) {
        self.state.borrow_mut().condition.has_vanished = true;
    }
    pub fn reappear(&self) {
        self.state.borrow_mut().condition.has_vanished = false;
    }

    /// From now on no operation completes, until [`Self::release`].
    pub fn stall(&self) {
        self.state.borrow_mut().condition.is_stalled = true;
    }
    pub fn is_stalled(&self) -> bool {
        self.state.borrow().condition.is_stalled
    }
    pub fn release(&self) {
        let parked = {
            let state = &mut *self.state.borrow_mut();
            state.condition.is_stalled = false;
            mem::take(&mut state.parked)
        };
        for Parked { runtime, end } in parked {
            let (disk, delay) = (self.clone(), runtime.delay(RESUME));
            runtime.schedule(delay, move || end(&disk));
        }
    }

    /// The device is exchanged for an empty one.
    pub fn blank(&self) {
        let state = &mut *self.state.borrow_mut();
        assert!(state.recorded.is_none(), "a recording is of one device");
        state.medium = Medium::default();
        state.condition.unreadable.clear();
        state.opening += 1;
    }

    /// The two devices change places. Both openings end.
    pub fn swap(&self, other: &Self) {
        let (mine, theirs) = (&mut *self.state.borrow_mut(), &mut *other.state.borrow_mut());
        for state in [&mut *mine, &mut *theirs] {
            assert!(state.recorded.is_none(), "a recording is of one device");
            state.scatter_in_flight();
            state.opening += 1;
        }
        mem::swap(&mut mine.medium, &mut theirs.medium);
        mem::swap(&mut mine.length_max, &mut theirs.length_max);
        mem::swap(&mut mine.condition.unreadable, &mut theirs.condition.unreadable);
    }

    /// What a read of the block would find, faults aside.
    pub fn peek(&self, block: u64) -> Box<Block> {
        Box::new(*bytes_of(&self.state.borrow().medium.visible(block)))
    }
    /// The blocks that are not zero, ascending.
    pub fn written_blocks(&self) -> Vec<u64> {
        self.state.borrow().medium.written()
    }

    #[cfg(test)]
    pub(super) fn copied_blocks(&self) -> usize {
        self.state.borrow().medium.copied_blocks()
    }

    /// From now on every step is kept.
    pub fn record(&self) {
        let state = &mut *self.state.borrow_mut();
        state.recorded = Some((state.medium.clone(), Vec::new()));
    }
    /// The point at which the recording stands.
    pub fn recorded(&self) -> usize {
        self.state.borrow().recorded.as_ref().map_or(0, |(_, steps)| steps.len())
    }
    /// Ends the recording.
    pub fn take_recording(&self) -> Recording {
        let state = &mut *self.state.borrow_mut();
        let (start, steps) = state.recorded.take().expect("the disk records");
        Recording { start, steps, length_max: state.length_max }
    }

    /// Called when an operation is due: ends it, unless the disk hangs or has lost power.
    pub(super) fn due(&self, runtime: SimRuntime, opening: u64, end: Box<dyn FnOnce(&Self)>) {
        {
            let state = &mut *self.state.borrow_mut();
            if opening <= state.cut_through {
                return;
            }
            if state.prng.chance(state.faults.stall_ppm) {
                state.condition.is_stalled = true;
            }
            if state.condition.is_stalled {
                // What is parked may be due again after a power cut, so the opening is asked again.
                let again = move |disk: &Self| {
                    if opening > disk.state.borrow().cut_through {
                        end(disk);
                    }
                };
                state.parked.push(Parked { runtime, end: Box::new(again) });
                return;
            }
        }
        end(self);
    }
}

impl State {
    pub(super) fn apply(&mut self, step: Step) {
        self.medium.apply(&step);
        if let Some((_, steps)) = &mut self.recorded {
            steps.push(step);
        }
    }

    /// Takes a write, unless `opening` has ended.
    pub(super) fn submit_write(&mut self, opening: u64, write: Write) -> Option<WriteId> {
        if opening != self.opening {
            return None;
        }
        let (end, length) = (write.at + write.blocks.len() as u64, self.medium.length());
        assert!(end <= length, "a write up to block {end} of a storage of {length} blocks");
        let id = self.writes;
        self.writes += 1;
        self.apply(Step::Submit { id, write });
        Some(id)
    }

    pub(super) fn submit_grow(&mut self, opening: u64, length: u64) {
        let fits = length.saturating_sub(self.medium.length()) <= self.free();
        if opening == self.opening && fits && !self.condition.is_read_only {
            self.apply(Step::Growing { length });
        }
    }

    /// The device went away under the write.
    pub(super) fn abandon_write(&mut self, id: WriteId) {
        if self.medium.is_in_flight(id) {
            let seed = self.prng.next_u64();
            self.apply(Step::Scatter { id, seed });
        }
    }

    fn scatter_in_flight(&mut self) {
        self.medium.in_flight().into_iter().for_each(|id| self.abandon_write(id));
    }

    pub(super) fn delay(&mut self, range: impl FnOnce(&Latency) -> Range<Duration>) -> Duration {
        let mut delay = self.prng.duration(range(&self.latency));
        if self.prng.chance(self.latency.slow_ppm) {
            delay += self.prng.duration(self.latency.slow.clone());
        }
        delay
    }

    pub(super) fn free(&self) -> u64 {
        let free = self.length_max - self.medium.length();
        free.min(self.condition.free_max.unwrap_or(u64::MAX))
    }

    pub(super) fn end_read(&mut self, at: BlockIndex, buffer: &mut Buffer) -> Result<()> {
        let blocks = at.0..at.0 + buffer.length_blocks().0;
        let failed = |at, errno| Err(Error::Io { operation: "read", at: BlockIndex(at), errno });
        if blocks.end > self.medium.length() {
            return failed(blocks.start, EINVAL);
        }
        if self.prng.chance(self.faults.read_error_ppm) {
            let bad = blocks.start + self.prng.below(blocks.end - blocks.start);
            self.condition.unreadable.insert(bad);
        }
        self.rot_by_chance();
        if let Some(&bad) = self.condition.unreadable.range(blocks.clone()).next() {
            return failed(bad, EIO);
        }
        self.medium.read(at.0, buffer, &mut self.prng);
        Ok(())
    }

    pub(super) fn end_write(&mut self, id: WriteId, blocks: Range<u64>) -> Result<()> {
        let failed = |at, errno| Err(Error::Io { operation: "write", at: BlockIndex(at), errno });
        if self.condition.is_read_only {
            self.apply(Step::Lose { id });
            return failed(blocks.start, EROFS);
        }
        let unwritable = self.condition.unwritable.range(blocks.clone()).next().copied();
        let by_chance = self.prng.chance(self.faults.write_error_ppm).then_some(blocks.start);
        if let Some(bad) = unwritable.or(by_chance) {
            let seed = self.prng.next_u64();
            self.apply(Step::Scatter { id, seed });
            return failed(bad, EIO);
        }
        let step = match self.write_fate(&blocks) {
            Some(WriteFate::Lost) => Step::Lose { id },
            Some(WriteFate::Misdirected { to }) => Step::LandElsewhere { id, at: to },
            None => {
                self.condition.unreadable.retain(|block| !blocks.contains(block));
                Step::Land { id }
            }
        };
        self.apply(step);
        self.rot_by_chance();
        Ok(())
    }

    fn write_fate(&mut self, blocks: &Range<u64>) -> Option<WriteFate> {
        let within = |(range, _): &(Range<u64>, WriteFate)| {
            range.start <= blocks.start && blocks.end <= range.end
        };
        if let Some(at) = self.write_fates.iter().position(within) {
            return self.write_fates.remove(at).map(|(_, fate)| fate);
        }
        if self.prng.chance(self.faults.lost_write_ppm) {
            return Some(WriteFate::Lost);
        }
        if self.prng.chance(self.faults.misdirected_write_ppm) {
            let places = self.medium.length() - (blocks.end - blocks.start) + 1;
            return Some(WriteFate::Misdirected { to: self.prng.below(places) });
        }
        None
    }

    fn rot_by_chance(&mut self) {
        if !self.prng.chance(self.faults.bit_rot_ppm) {
            return;
        }
        let written = self.medium.written();
        if !written.is_empty() {
            let at = written[self.prng.index(written.len())];
            let bit = self.prng.index(BLOCK_BYTES * 8);
            self.apply(Step::Rot { at, bit });
        }
    }

    pub(super) fn end_flush(&mut self, covers: u64) -> Result<()> {
        let condition = &mut self.condition;
        let wanted = condition.flushes_to_fail > 0;
        condition.flushes_to_fail = condition.flushes_to_fail.saturating_sub(1);
        if wanted || self.prng.chance(self.faults.flush_failure_ppm) {
            let seed = self.prng.next_u64();
            self.apply(Step::FlushFailed { seed });
            return Err(Error::FlushFailed { errno: EIO });
        }
        self.apply(Step::Flush { covers });
        Ok(())
    }

    /// Whether the operations of `opening` still reach the device.
    pub(super) fn presence(&self, opening: u64) -> Result<()> {
        if opening != self.opening {
            return Err(Error::Unavailable { reason: "the drive was opened again or replaced" });
        }
        if self.condition.has_vanished {
            return Err(Error::Unavailable { reason: "the device is gone" });
        }
        Ok(())
    }

    pub(super) fn end_grow(&mut self, length: u64) -> Result<()> {
        let former = self.medium.length();
        let outcome = if self.condition.is_read_only {
            Err(Error::Io { operation: "grow", at: BlockIndex(former), errno: EROFS })
        } else if length.saturating_sub(former) > self.free() {
            Err(Error::Full {
                free_bytes: BlockCount(self.free()).bytes(),
                capacity_bytes: BlockCount(self.length_max).bytes(),
            })
        } else {
            Ok(())
        };
        let length = if outcome.is_ok() { length } else { former };
        self.apply(Step::Grown { length });
        outcome
    }
}

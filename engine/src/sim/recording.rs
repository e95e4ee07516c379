//! A power cut at every point of a run. While a disk records, each submission and each end of a
//! write, each flush and each growth is a step; a *point* is the moment after a number of steps.
//! A test notes the point ([`super::SimDisk::recorded`]) at which it was told that something is
//! durable; at that point and all later ones it must be found, whatever else the cut took.
//!
//! Walking a recording applies each step once; forking the disk at a point costs as much as there
//! are blocks whose content is open at that moment (provided that earlier forks are dropped), so
//! that a run of thousands of steps gives hundreds of thousands of distinct disks.

use super::disk::SimDisk;
use super::medium::{Medium, Step, Subset};

pub struct Recording {
    pub(super) start: Medium,
    pub(super) steps: Vec<Step>,
    pub(super) length_max: u64,
}

impl Recording {
    /// Points run from 0 (before the first step) to this.
    pub fn points(&self) -> usize {
        self.steps.len()
    }

    pub fn walk(&self) -> Walk<'_> {
        Walk { recording: self, medium: self.start.unshared(), point: 0 }
    }

    /// The disk after a power cut at `point`; see [`Walk::fork`]. Replays everything before it.
    pub fn image_at(&self, point: usize, subset_seed: u64) -> SimDisk {
        let mut walk = self.walk();
        while walk.point() < point {
            assert!(walk.advance(), "the recording ends at {}", self.points());
        }
        walk.fork(subset_seed)
    }
}

/// Stands at one point of a recording.
pub struct Walk<'a> {
    recording: &'a Recording,
    medium: Medium,
    point: usize,
}

impl Walk<'_> {
    pub fn point(&self) -> usize {
        self.point
    }

    /// How many blocks have more than one content that a power cut here could leave. With none,
    /// all forks are equal.
    pub fn open_blocks(&self) -> usize {
        self.medium.open_blocks()
    }

    /// Moves on by one step; false at the end.
    pub fn advance(&mut self) -> bool {
        let Some(step) = self.recording.steps.get(self.point) else { return false };
        self.medium.apply(step);
        self.point += 1;
        true
    }

    /// The disk after a power cut here. Seed 0 loses everything that was not durable, seed 1 keeps
    /// all of it, any other draws for each block what is left.
    pub fn fork(&self, subset_seed: u64) -> SimDisk {
        let subset = match subset_seed {
            0 => Subset::Nothing,
            1 => Subset::Everything,
            seed => Subset::Drawn(seed ^ (self.point as u64).rotate_left(40)),
        };
        let medium = self.medium.after_power_cut(subset);
        SimDisk::with_medium(subset_seed, self.recording.length_max, medium)
    }
}

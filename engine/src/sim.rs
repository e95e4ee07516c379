//! The seams for tests: one thread, virtual time, and every choice drawn from one seed, so that a
//! seed replays a run to the last byte. Nothing here reads a real clock or random source.
//!
//! - [`Simulation`] runs tasks and owns virtual time; [`SimRuntime`] is a core in it: clock,
//!   random, spawn. A group of tasks can be stopped as a crash stops it.
//! - [`SimDisk`] is a device whose contents outlive crashes; [`SimStorage`] is one opening of it.
//!   What can go wrong with it: see `disk`, [`Faults`] and `medium`.
//! - [`Recording`] holds what reached a disk, and makes the disk as a power cut would have left it
//!   at any point.
//! - [`check_seeds`] runs a test for many seeds and says how to run a failing one again.

mod disk;
mod executor;
mod faults;
mod image;
mod medium;
mod prng;
mod recording;
mod runtime;
mod seeds;
mod storage;

pub use disk::SimDisk;
pub use executor::{Ended, Simulation};
pub use faults::{Faults, Latency};
pub use prng::Prng;
pub use recording::{Recording, Walk};
pub use runtime::{SimRuntime, WallSkew};
pub use seeds::check_seeds;
pub use storage::SimStorage;

#[cfg(test)]
mod tests;

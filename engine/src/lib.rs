//! Bytes at rest: one drive, and below it the seams that let one seed replay a whole run.
//!
//! Reading order: [`units`] and [`record`] name the things; [`request`] is everything that can be
//! asked of a drive; [`acceptor`] decides what a drive answers in the slot protocol; `drive` makes
//! those answers durable. [`seam`] is the border to the machine: `runtime` stands behind it in
//! production (glommio executors, an own io_uring ring), `sim` in tests.
//!
//! The engine never opens a socket for S3, never parses S3 and never knows a second drive.

pub mod acceptor;
pub mod buffer;
pub mod checkpoint;
pub mod checksum;
pub mod codec;
pub mod drive;
pub mod error;
pub mod flush;
pub mod format;
pub mod index;
pub mod journal;
pub mod md5;
pub mod progress;
pub mod record;
pub mod request;
pub mod runtime;
pub mod seam;
pub mod segment;
pub mod sim;
pub mod superblock;
pub mod superseded;
pub mod units;

pub use error::{Class, Error, Result};

//! How often a simulated disk goes wrong by itself, and how long it takes.

use std::ops::Range;
use std::time::Duration;

/// Chances in a million, drawn for each operation. All zero: a perfect disk. Faults that a test
/// wants at one place are methods of [`super::SimDisk`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Faults {
    /// A block of the range becomes unreadable until it is written again.
    pub read_error_ppm: u32,
    /// The write fails and leaves a part of itself.
    pub write_error_ppm: u32,
    /// The flush fails and the device forgets what it had cached; the next flush succeeds.
    pub flush_failure_ppm: u32,
    /// The write is acknowledged and never lands.
    pub lost_write_ppm: u32,
    /// The write is acknowledged and lands at another block.
    pub misdirected_write_ppm: u32,
    /// After the operation, one bit somewhere on the disk has changed.
    pub bit_rot_ppm: u32,
    /// Before the operation ends, the disk hangs until it is released.
    pub stall_ppm: u32,
}

/// How long operations take. Each is drawn alone, so completions change order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Latency {
    pub read: Range<Duration>,
    pub write: Range<Duration>,
    /// Also what a durable write takes beyond a cached one.
    pub flush: Range<Duration>,
    /// The chance in a million that an operation takes `slow` longer.
    pub slow_ppm: u32,
    pub slow: Range<Duration>,
}

impl Default for Latency {
    /// A decent NVMe drive.
    fn default() -> Self {
        let micros = |from, to| Duration::from_micros(from)..Duration::from_micros(to);
        Self {
            read: micros(60, 200),
            write: micros(15, 400),
            flush: micros(100, 2000),
            slow_ppm: 5_000,
            slow: micros(5_000, 50_000),
        }
    }
}

impl Latency {
    /// The same drive, `factor` times as slow.
    #[must_use]
    pub fn times(&self, factor: u32) -> Self {
        let times = |range: &Range<Duration>| range.start * factor..range.end * factor;
        Self {
            read: times(&self.read),
            write: times(&self.write),
            flush: times(&self.flush),
            slow_ppm: self.slow_ppm,
            slow: times(&self.slow),
        }
    }
}

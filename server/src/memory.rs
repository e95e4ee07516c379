//! How much memory this process takes. The buffers of the cores take a fixed share of what it may use; the
//! index of each drive grows with its keys. Only the buffers are bounded: what the rest takes is an estimate.

use std::fs;
use std::path::Path;

/// Share of the memory that is for buffers. The rest is for indexes, connections and the system.
const BUFFERS_OF_MEMORY: u64 = 4;
/// Bounds for one core: enough for a few large requests, and no more than its drives can use.
const ARENA_BYTES_MIN: u64 = 64 << 20;
const ARENA_BYTES_MAX: u64 = 1 << 30;

/// What a core takes besides, as estimated: connections with what they buffer, messages, records on their way.
const CORE_BYTES: u64 = 128 << 20;
/// What the process takes whatever it does, and the journals' frames, as estimated.
const PROCESS_BYTES: u64 = 128 << 20;
/// Measured: what the index of a drive takes for a key with one small object, 250 to 440 bytes, and some.
const KEY_BYTES: u64 = 500;

/// What the process is expected to take. Nothing enforces it.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// But for the index.
    pub bytes: u64,
    /// Of the index, for each drive.
    pub million_keys_bytes: u64,
}

impl Budget {
    pub(crate) fn of(cores: u16, arena_bytes: u64) -> Self {
        let bytes = PROCESS_BYTES + u64::from(cores) * (arena_bytes + CORE_BYTES);
        Self { bytes, million_keys_bytes: KEY_BYTES * 1_000_000 }
    }
}

/// Bytes of each core's buffers.
pub(crate) fn arena_bytes(cores: u16) -> u64 {
    share(available_bytes(), cores)
}

fn share(memory_bytes: u64, cores: u16) -> u64 {
    let share = memory_bytes / BUFFERS_OF_MEMORY / u64::from(cores.max(1));
    share.clamp(ARENA_BYTES_MIN, ARENA_BYTES_MAX)
}

/// What the machine has, or the control group allows. Nothing where neither can be read.
fn available_bytes() -> u64 {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total_of(&text));
    let machine = machine.unwrap_or(0);
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    limit_of(&groups, Path::new("/sys/fs/cgroup")).map_or(machine, |limit| limit.min(machine))
}

/// From the text of /proc/meminfo.
fn total_of(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// The least limit of the group of version 2 that /proc/self/cgroup names, and those above it.
fn limit_of(groups: &str, root: &Path) -> Option<u64> {
    let group = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let limits = root.join(group);
    let limits = limits.ancestors().take_while(|directory| directory.starts_with(root));
    limits
        .filter_map(|directory| fs::read_to_string(directory.join("memory.max")).ok())
        .filter_map(|text| text.trim().parse().ok())
        .min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_within_bounds() {
        assert_eq!(share(16 << 30, 8), 512 << 20);
        assert_eq!(share(0, 4), ARENA_BYTES_MIN);
        assert_eq!(share(1 << 40, 16), ARENA_BYTES_MAX);
    }

    #[test]
    fn memory_of_the_machine() {
        assert_eq!(
            total_of("MemTotal:       24684084 kB\nMemFree: 1 kB\n"),
            Some(24_684_084 << 10)
        );
        assert_eq!(total_of("nonsense"), None);
    }

    #[test]
    fn the_least_limit_of_the_groups_above() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("system.slice/basalt.service");
        fs::create_dir_all(&inner).unwrap();
        fs::write(inner.join("memory.max"), "max\n").unwrap();
        fs::write(inner.parent().unwrap().join("memory.max"), "1073741824\n").unwrap();
        let limit = limit_of("0::/system.slice/basalt.service\n", root.path());
        assert_eq!(limit, Some(1 << 30));
        assert_eq!(limit_of("0::/\n", root.path()), None);
        assert_eq!(limit_of("12:memory:/x\n", root.path()), None);
    }
}

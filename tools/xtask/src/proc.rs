//! What Linux says about processes and this machine. CPU is in seconds, sizes in bytes.

use std::fs;

use anyhow::{Context, Result};

/// Linux reports CPU time to user space in hundredths of a second, whatever its own tick is.
const TICKS_PER_SECOND: f64 = 100.0;

/// User and system time of all threads of a process since it started.
pub(crate) fn cpu_seconds(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    parse_cpu_ticks(&text)
        .map(|ticks| ticks as f64 / TICKS_PER_SECOND)
        .with_context(|| format!("parsing {path}"))
}

/// What a process has in memory.
pub(crate) fn resident_bytes(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    parse_resident(&text).with_context(|| format!("parsing {path}"))
}

fn parse_resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// The command name, field 2, is in parentheses and may hold anything; utime and stime are the
/// fields 14 and 15.
fn parse_cpu_ticks(stat: &str) -> Option<u64> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    Some(ticks(14)? + ticks(15)?)
}

/// The processor, the number of cores this process may use, and the kernel.
pub(crate) fn machine() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unknown processor", |(_, name)| name.trim());
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{model}, {cores} cores, Linux {}", kernel.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_past_an_odd_command_name() {
        let stat = "17 (a) b (c)) S 1 1 1 0 -1 0 9 9 9 9 250 50 7 7 20 0 1 0 5 0 0";
        assert_eq!(parse_cpu_ticks(stat), Some(300));
        assert_eq!(parse_cpu_ticks("17 (cut"), None);
        assert_eq!(parse_resident("VmPeak: 9 kB\nVmRSS:\t 12 kB\n"), Some(12_288));
    }

    #[test]
    fn this_process_can_be_read() {
        assert!(cpu_seconds(std::process::id()).expect("own stat") >= 0.0);
        assert!(resident_bytes(std::process::id()).expect("own status") > 0);
        assert!(machine().contains("cores"));
    }
}

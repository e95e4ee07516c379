//! What the kernel says of this process and machine, for the metrics. What cannot be read is left
//! out: a container may hide it.

use std::fs;

/// The unit of times in `/proc/PID/stat`, per second: fixed in the kernel's interface.
const TICKS: f64 = 100.0;

/// One reading: name, help, type, value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Reading {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) kind: &'static str,
    pub(super) value: f64,
}

/// Of this process.
pub(super) fn process() -> Vec<Reading> {
    let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let (stat, page_bytes) = (text("/proc/self/stat"), rustix::param::page_size());
    let mut readings = of_stat(&stat, page_bytes, &text("/proc/uptime"), &text("/proc/stat"));
    readings.extend(of_io(&text("/proc/self/io")));
    readings.extend(of_limits(&text("/proc/self/limits")));
    let open = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    let help = "Open file descriptors.";
    readings.push(gauge("minio_node_file_descriptor_open_total", help, open as f64));
    readings
}

/// Of the machine.
pub(super) fn machine() -> Vec<Reading> {
    let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let mut readings = of_memory(&text("/proc/meminfo"));
    readings.extend(of_load(&text("/proc/loadavg")));
    readings
}

fn gauge(name: &'static str, help: &'static str, value: f64) -> Reading {
    Reading { name, help, kind: "gauge", value }
}

fn counter(name: &'static str, help: &'static str, value: f64) -> Reading {
    Reading { name, help, kind: "counter", value }
}

/// From the process's line, the machine's pages and time since its start, and its statistics.
fn of_stat(stat: &str, page_bytes: usize, uptime: &str, machine: &str) -> Vec<Reading> {
    // The name, in parentheses, may hold anything; fields are counted from 3 behind it.
    let fields: Vec<&str> = match stat.rsplit_once(')') {
        Some((_, rest)) => rest.split_whitespace().collect(),
        None => return Vec::new(),
    };
    let field = |number: usize| fields.get(number - 3).and_then(|value| value.parse::<f64>().ok());
    let (Some(user), Some(system)) = (field(14), field(15)) else { return Vec::new() };
    let (Some(started), Some(mapped), Some(resident)) = (field(22), field(23), field(24)) else {
        return Vec::new();
    };
    let mut readings = vec![
        counter(
            "minio_node_process_cpu_total_seconds",
            "Processor time of the process.",
            (user + system) / TICKS,
        ),
        gauge("minio_node_process_virtual_memory_bytes", "Mapped memory.", mapped),
        gauge(
            "minio_node_process_resident_memory_bytes",
            "Memory in use.",
            resident * page_bytes as f64,
        ),
    ];
    let up = uptime.split_whitespace().next().and_then(|value| value.parse::<f64>().ok());
    readings.extend(up.map(|up| {
        let help = "Seconds since the process started.";
        gauge("minio_node_process_uptime_seconds", help, up - started / TICKS)
    }));
    let booted = machine.lines().find_map(|line| line.strip_prefix("btime "));
    let booted = booted.and_then(|value| value.trim().parse::<f64>().ok());
    readings.extend(booted.map(|booted| {
        let help = "When the process started, in seconds since 1970.";
        gauge("minio_node_process_starttime_seconds", help, booted + started / TICKS)
    }));
    readings
}

fn of_io(io: &str) -> Vec<Reading> {
    let names = [
        ("rchar", "minio_node_io_rchar_bytes", "Bytes read, from caches too."),
        ("wchar", "minio_node_io_wchar_bytes", "Bytes written, to caches too."),
        ("syscr", "minio_node_syscall_read_total", "System calls that read."),
        ("syscw", "minio_node_syscall_write_total", "System calls that write."),
        ("read_bytes", "minio_node_io_read_bytes", "Bytes read from storage."),
        ("write_bytes", "minio_node_io_write_bytes", "Bytes written to storage."),
    ];
    let value = |key: &str| number(io, key);
    names.iter().filter_map(|(key, name, help)| Some(counter(name, help, value(key)?))).collect()
}

fn of_limits(limits: &str) -> Option<Reading> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let soft = line.split_whitespace().next()?.parse::<f64>().ok()?;
    Some(gauge("minio_node_file_descriptor_limit_total", "Most file descriptors.", soft))
}

fn of_memory(memory: &str) -> Vec<Reading> {
    let bytes = |key: &str| number(memory, key).map(|kib| kib * 1024.0);
    let (Some(total), Some(free)) = (bytes("MemTotal"), bytes("MemFree")) else {
        return Vec::new();
    };
    let buffers = bytes("Buffers").unwrap_or_default();
    let cache = bytes("Cached").unwrap_or_default();
    let available = bytes("MemAvailable").unwrap_or(free);
    let used = total - free - buffers - cache;
    vec![
        gauge("minio_node_mem_total", "Memory of the machine in bytes.", total),
        gauge("minio_node_mem_used", "Memory in use.", used),
        gauge("minio_node_mem_used_perc", "Memory in use in percent.", used / total * 100.0),
        gauge("minio_node_mem_free", "Memory that nobody uses.", free),
        gauge("minio_node_mem_available", "Memory that processes can have.", available),
        gauge("minio_node_mem_buffers", "Memory of buffers.", buffers),
        gauge("minio_node_mem_cache", "Memory of the page cache.", cache),
    ]
}

fn of_load(load: &str) -> Vec<Reading> {
    let names =
        ["minio_node_cpu_avg_load1", "minio_node_cpu_avg_load5", "minio_node_cpu_avg_load15"];
    let values = load.split_whitespace().filter_map(|value| value.parse::<f64>().ok());
    let help = "Tasks that run or wait, on average.";
    names.iter().zip(values).map(|(name, value)| gauge(name, help, value)).collect()
}

/// The number behind `key:`.
fn number(text: &str, key: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(readings: &[Reading]) -> Vec<(&'static str, f64)> {
        readings.iter().map(|reading| (reading.name, reading.value)).collect()
    }

    #[test]
    fn the_kernels_texts_are_read() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4 1 0 0 0 250 150 0 0 20 0 3 0 6000 8192 3 1 2";
        let readings = of_stat(stat, 16 << 10, "100.5 3.0", "cpu 1 2\nbtime 1000\n");
        assert_eq!(
            values(&readings),
            [
                ("minio_node_process_cpu_total_seconds", 4.0),
                ("minio_node_process_virtual_memory_bytes", 8192.0),
                ("minio_node_process_resident_memory_bytes", 49_152.0),
                ("minio_node_process_uptime_seconds", 40.5),
                ("minio_node_process_starttime_seconds", 1060.0),
            ]
        );
        let io = of_io("rchar: 1\nwchar: 2\nread_bytes: 3\nsyscr: 4\ncancelled_write_bytes: 5\n");
        assert_eq!(io.iter().map(|one| one.value).collect::<Vec<_>>(), [1.0, 2.0, 4.0, 3.0]);
        let limits = "Max open files            1024                 4096                 files";
        assert_eq!(of_limits(limits).map(|one| one.value), Some(1024.0));
        let memory = of_memory("MemTotal: 8 kB\nMemFree: 2 kB\nBuffers: 1 kB\nCached: 1 kB\n");
        assert_eq!(values(&memory)[1], ("minio_node_mem_used", 4096.0));
        assert_eq!(values(&of_load("0.5 1 2.25 1/2 3")).len(), 3);
    }

    #[test]
    fn what_cannot_be_read_is_left_out() {
        assert!(
            of_stat("", 4096, "", "").is_empty() && of_stat("7 (a) S 1", 4096, "", "").is_empty()
        );
        assert!(of_io("").is_empty() && of_memory("").is_empty() && of_load("").is_empty());
        assert_eq!(of_limits("Max open files unlimited"), None);
    }

    #[test]
    fn this_process_is_described() {
        let names: Vec<_> = process().iter().map(|reading| reading.name).collect();
        assert!(names.contains(&"minio_node_process_cpu_total_seconds"), "{names:?}");
        assert!(process().iter().chain(&machine()).all(|reading| reading.value >= 0.0));
    }
}

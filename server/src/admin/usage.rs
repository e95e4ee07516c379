//! The message of `datausageinfo`: how many buckets there are, and how full the drives are. Nothing
//! counts objects, so it is that of a server whose scanner has not run.

use basalt_engine::request::DriveStatus;
use serde_json::{Value, json};

use super::drives;
use crate::node::overview::SetState;

/// What clients take for "never".
const NEVER: &str = "0001-01-01T00:00:00Z";

pub(super) fn message(sets: &[SetState], buckets: usize) -> Value {
    let sum = |figure: fn(&DriveStatus) -> u64| -> u64 {
        sets.iter().flat_map(|set| &set.drives).map(|(_, drive)| figure(drive)).sum()
    };
    json!({
        "lastUpdate": NEVER,
        "objectsCount": 0,
        "objectsTotalSize": 0,
        "bucketsCount": buckets,
        "bucketsUsageInfo": {},
        // Bytes of the drives that answer.
        "capacity": sum(|drive| drive.capacity_bytes),
        "freeCapacity": sum(|drive| drive.free_bytes),
        "usedCapacity": sum(drives::used_bytes),
    })
}

//! Drives as the admin API describes them.

use basalt_engine::request::DriveStatus;
use basalt_engine::units::{DriveIndex, SetIndex};
use serde_json::{Value, json};

use crate::node::overview::SetState;
use crate::node::places::Places;

pub(super) fn used_bytes(status: &DriveStatus) -> u64 {
    status.capacity_bytes.saturating_sub(status.free_bytes)
}

/// What is known of the drive of a seat. Until the drives have been looked at, none is known to answer.
pub(super) fn status(
    sets: &[SetState],
    set: SetIndex,
    position: DriveIndex,
) -> Option<&DriveStatus> {
    sets.get(usize::from(set.0))?.status(position)
}

/// The drive of a seat. Its device is not looked up: it is told as 0:0.
pub(super) fn drive(
    places: &Places,
    sets: &[SetState],
    set: SetIndex,
    position: DriveIndex,
) -> Value {
    let seat = places.seat(set, position);
    let (pool, set_in_pool) = places.pool_of(set);
    let mut drive = json!({
        "endpoint": seat.name,
        "path": seat.path,
        "state": "offline",
        "local": seat.node == places.this,
        "major": 0,
        "minor": 0,
        "used_inodes": 0,
        "pool_index": pool,
        "set_index": set_in_pool,
        "disk_index": position.0,
    });
    if let Some(known) = sets.get(usize::from(set.0)) {
        // Of the drive that the set's map names for the seat.
        let member = &known.members[usize::from(position.0)];
        drive["uuid"] = member.drive.to_string().into();
        if let Some(status) = known.status(position) {
            drive["state"] = "ok".into();
            drive["healing"] = (!member.voting).into();
            drive["totalspace"] = status.capacity_bytes.into();
            drive["usedspace"] = used_bytes(status).into();
            drive["availspace"] = status.free_bytes.into();
        }
    }
    drive
}

/// Every seat, set by set.
pub(super) fn seats(places: &Places) -> impl Iterator<Item = (SetIndex, DriveIndex)> + '_ {
    places.seats.iter().zip(0..).flat_map(|(seats, set)| {
        (0..seats.len() as u8).map(move |position| (SetIndex(set), DriveIndex(position)))
    })
}

//! The message of `storageinfo`: all drives, and how they are used.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::drives;
use crate::node::overview::SetState;
use crate::node::places::{Places, PoolPlace};

/// The number of "erasure coded" among the kinds of backends.
const ERASURE: u8 = 2;

pub(super) fn message(places: &Places, sets: &[SetState]) -> Value {
    let (mut online, mut offline) = (BTreeMap::new(), BTreeMap::new());
    let mut disks = Vec::new();
    for (set, position) in drives::seats(places) {
        let node = places.endpoint(places.seat(set, position).node);
        let counts = match drives::status(sets, set, position) {
            Some(_) => &mut online,
            None => &mut offline,
        };
        *counts.entry(node).or_insert(0) += 1;
        disks.push(drives::drive(places, sets, set, position));
    }
    // The sets of a pool are alike.
    let by_pool = |of: fn(&Places, &PoolPlace) -> usize| -> Vec<usize> {
        places.pools.iter().map(|pool| of(places, pool)).collect()
    };
    json!({
        "Disks": disks,
        "Backend": {
            "Type": ERASURE,
            "GatewayOnline": false,
            "OnlineDisks": online,
            "OfflineDisks": offline,
            "StandardSCData": by_pool(|places, pool| pool.drives - standard(places, pool)),
            "StandardSCParities": by_pool(standard),
            "RRSCData": by_pool(|places, pool| pool.drives - reduced(places, pool)),
            "RRSCParities": by_pool(reduced),
            "TotalSets": by_pool(|_, pool| pool.sets),
            "DrivesPerSet": by_pool(|_, pool| pool.drives),
            "StandardSCParity": standard(places, &places.pools[0]),
            "RRSCParity": reduced(places, &places.pools[0]),
        },
    })
}

fn standard(places: &Places, pool: &PoolPlace) -> usize {
    usize::from(places.parity[pool.first_set].standard)
}

fn reduced(places: &Places, pool: &PoolPlace) -> usize {
    usize::from(places.parity[pool.first_set].reduced_redundancy)
}

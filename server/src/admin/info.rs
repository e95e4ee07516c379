//! The message of `mc admin info`: nodes with their drives, sets, pools.

use basalt_engine::request::DriveStatus;
use basalt_engine::units::{DeploymentId, DriveIndex, SetIndex};
use basalt_net::node::NodeIndex;
use basalt_net::wire::message::Description;
use serde_json::{Map, Value, json};

use super::drives;
use crate::node::nodes::NodeState;
use crate::node::overview::SetState;
use crate::node::places::Places;

/// Nothing counts objects as they come and go. Buckets could be counted, but clients show their number
/// beside that of the objects, and "no objects" would be false.
const NOT_COUNTED: &str = "objects are not counted";

pub(super) fn message(
    places: &Places,
    sets: &[SetState],
    nodes: &[NodeState],
    deployment: DeploymentId,
    region: Option<&str>,
) -> Value {
    let uncounted = json!({ "count": 0, "error": NOT_COUNTED });
    let servers = places.all_nodes().zip(nodes);
    let servers: Vec<Value> =
        servers.map(|(node, state)| server(places, sets, node, state)).collect();
    json!({
        "mode": "online",
        "region": region.unwrap_or_default(),
        "deploymentID": deployment.to_string(),
        "buckets": uncounted,
        "objects": uncounted,
        "versions": uncounted,
        "deletemarkers": uncounted,
        "usage": { "size": 0, "error": NOT_COUNTED },
        "backend": backend(places, sets),
        "servers": servers,
        "pools": pools(places, sets),
    })
}

fn server(places: &Places, sets: &[SetState], node: NodeIndex, state: &NodeState) -> Value {
    let is_its =
        |(set, position): &(SetIndex, DriveIndex)| places.seat(*set, *position).node == node;
    let seats: Vec<(SetIndex, DriveIndex)> = drives::seats(places).filter(is_its).collect();
    let own = seats.iter().map(|(set, position)| drives::drive(places, sets, *set, *position));
    // They are counted from 1.
    let mut pools: Vec<usize> = seats.iter().map(|(set, _)| places.pool_of(*set).0 + 1).collect();
    pools.dedup();
    let mut server = json!({
        "state": match state {
            NodeState::Serving(_) => "online",
            NodeState::Starting => "initializing",
            NodeState::Away => "offline",
        },
        "endpoint": places.endpoint(node),
        "scheme": places.nodes[usize::from(node.0)].scheme,
        "drives": own.collect::<Vec<Value>>(),
        "poolNumbers": pools,
    });
    if let [only] = pools[..] {
        server["poolNumber"] = only.into();
    }
    if let NodeState::Serving(description) = state {
        server["uptime"] = description.up_seconds.into();
        server["version"] = description.version.as_str().into();
        server["network"] = network(places, node, description);
    }
    server
}

/// How a node sees all of them, itself included.
fn network(places: &Places, seen_from: NodeIndex, description: &Description) -> Value {
    let state = |node: NodeIndex| match node == seen_from || description.connected.contains(&node) {
        true => "online",
        false => "offline",
    };
    let nodes = places.all_nodes();
    nodes.map(|node| (places.endpoint(node).to_owned(), Value::from(state(node)))).collect()
}

fn backend(places: &Places, sets: &[SetState]) -> Value {
    let online: usize = sets.iter().map(|set| set.drives.len()).sum();
    json!({
        "backendType": "Erasure",
        "onlineDisks": online,
        "offlineDisks": places.count(None) - online,
        // Clients know one: that of the first pool.
        "standardSCParity": places.parity[0].standard,
        "rrSCParity": places.parity[0].reduced_redundancy,
        "totalSets": places.pools.iter().map(|pool| pool.sets).collect::<Vec<usize>>(),
        "totalDrivesPerSet": places.pools.iter().map(|pool| pool.drives).collect::<Vec<usize>>(),
    })
}

/// By pool, then by set, numbers as text.
fn pools(places: &Places, sets: &[SetState]) -> Value {
    let set = |number: usize, id: usize| {
        let known = sets.get(number);
        let sum = |figure: fn(&DriveStatus) -> u64| -> u64 {
            known.map_or(0, |set| set.drives.iter().map(|(_, drive)| figure(drive)).sum())
        };
        json!({
            "id": id,
            // Bytes of the drives that answer.
            "rawUsage": sum(drives::used_bytes),
            "rawCapacity": sum(|drive| drive.capacity_bytes),
            "healDisks": known.map_or(0, SetState::healing),
            // What nothing counts.
            "usage": 0,
            "objectsCount": 0,
            "versionsCount": 0,
            "deleteMarkersCount": 0,
        })
    };
    let pools = places.pools.iter().enumerate().map(|(index, pool)| {
        let sets = (0..pool.sets).map(|id| (id.to_string(), set(pool.first_set + id, id)));
        (index.to_string(), Value::Object(sets.collect::<Map<String, Value>>()))
    });
    Value::Object(pools.collect())
}

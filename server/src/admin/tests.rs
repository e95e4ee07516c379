use basalt_engine::units::DeploymentId;
use basalt_net::node::NodeIndex;
use basalt_net::wire::message::Description;
use serde_json::{Value, json};

use super::*;
use crate::node::nodes::NodeState;
use crate::node::overview::SetState;
use crate::node::overview::testing::set;
use crate::node::places::Places;
use crate::node::places::testing::places;

#[test]
fn a_path_is_a_question_in_version_3() {
    let of = |path| Asked::of("GET", path);
    assert_eq!(of("/minio/admin/v3/info"), Asked::Known(Question::Info));
    assert_eq!(of("/minio/admin/v3/storageinfo"), Asked::Known(Question::StorageInfo));
    assert_eq!(of("/minio/admin/v3/datausageinfo"), Asked::Known(Question::DataUsageInfo));
    assert_eq!(Asked::of("POST", "/minio/admin/v3/info"), Asked::Unknown);
    for path in
        ["/minio/admin/v3/", "/minio/admin/v3", "/minio/admin/v3/info/", "/minio/admin/v3/i"]
    {
        assert_eq!(of(path), Asked::Unknown, "{path}");
    }
    assert_eq!(of("/minio/admin/v4/info"), Asked::OtherVersion("v4"));
    assert_eq!(of("/minio/admin/"), Asked::OtherVersion(""));
}

/// Two nodes, of which node 1 is away with its drives; a drive of the first set is being filled.
fn sets() -> Vec<SetState> {
    vec![set(0, 4, &[0, 2], &[2]), set(1, 4, &[0, 2], &[]), set(2, 4, &[0, 2], &[])]
}

fn info(places: &Places, sets: &[SetState], nodes: &[NodeState]) -> Value {
    super::info::message(places, sets, nodes, DeploymentId(7), Some("eu-west-1"))
}

fn serving(connected: &[u16]) -> NodeState {
    NodeState::Serving(Description {
        version: "0.1.0".to_owned(),
        up_seconds: 77,
        connected: connected.iter().map(|node| NodeIndex(*node)).collect(),
    })
}

#[test]
fn info_tells_of_nodes_drives_sets_and_pools() {
    let told = info(&places(2), &sets(), &[serving(&[]), NodeState::Away]);
    assert_eq!(told["mode"], "online");
    assert_eq!(told["region"], "eu-west-1");
    assert_eq!(told["deploymentID"], "00000000-0000-0000-0000-000000000007");
    let backend = json!({
        "backendType": "Erasure", "onlineDisks": 6, "offlineDisks": 6, "standardSCParity": 2,
        "rrSCParity": 1, "totalSets": [1, 2], "totalDrivesPerSet": [4, 4],
    });
    assert_eq!(told["backend"], backend);
    let [here, away] = [&told["servers"][0], &told["servers"][1]];
    assert_eq!([&here["state"], &away["state"]], ["online", "offline"]);
    assert_eq!([&here["endpoint"], &away["endpoint"]], ["n0:9000", "n1:9000"]);
    assert_eq!(here["uptime"], 77);
    assert_eq!(here["version"], "0.1.0");
    assert_eq!(here["network"], json!({"n0:9000": "online", "n1:9000": "offline"}));
    assert_eq!(here["poolNumbers"], json!([1, 2]));
    assert_eq!(here["poolNumber"], Value::Null, "there are two");
    assert_eq!(away["uptime"], Value::Null);
    assert_eq!(here["drives"].as_array().map(Vec::len), Some(6));
    let filled = json!({
        "endpoint": "http://n0:9000/s0/d2", "path": "/s0/d2", "state": "ok", "healing": true,
        "uuid": "00000000-0000-0000-0000-000000000002", "major": 0, "minor": 0,
        "totalspace": 1000, "usedspace": 600, "availspace": 400, "used_inodes": 0, "local": true,
        "pool_index": 0, "set_index": 0, "disk_index": 2,
    });
    assert_eq!(here["drives"][1], filled);
    let gone = json!({
    "endpoint": "http://n1:9000/s2/d3", "path": "/s2/d3", "state": "offline",
           "uuid": "00000000-0000-0000-0000-000000000203", "major": 0, "minor": 0,
           "used_inodes": 0, "local": false, "pool_index": 1, "set_index": 1, "disk_index": 3,
       });
    assert_eq!(away["drives"][5], gone);
    assert_eq!(told["pools"]["0"]["0"]["healDisks"], 1);
    assert_eq!(told["pools"]["1"]["1"]["rawCapacity"], 2000);
    assert_eq!(told["pools"]["1"]["1"]["rawUsage"], 1200);
    assert_eq!(told["objects"], json!({"count": 0, "error": "objects are not counted"}));
}

#[test]
fn before_the_first_look_no_drive_is_known_to_answer() {
    let told = info(&places(1), &[], &[serving(&[])]);
    assert_eq!(told["backend"]["offlineDisks"], 12);
    assert_eq!(told["servers"][0]["drives"][0]["state"], "offline");
    let starting = info(&places(2), &[], &[serving(&[1]), NodeState::Starting]);
    assert_eq!(starting["servers"][1]["state"], "initializing");
    assert_eq!(starting["servers"][0]["network"]["n1:9000"], "online");
}

#[test]
fn storage_is_told_by_node_and_pool() {
    let told = storage::message(&places(2), &sets());
    assert_eq!(told["Disks"].as_array().map(Vec::len), Some(12));
    let backend = &told["Backend"];
    assert_eq!(backend["Type"], 2);
    assert_eq!(backend["OnlineDisks"], json!({"n0:9000": 6}));
    assert_eq!(backend["OfflineDisks"], json!({"n1:9000": 6}));
    assert_eq!(backend["StandardSCParities"], json!([2, 2]));
    assert_eq!(backend["RRSCData"], json!([3, 3]));
    assert_eq!(backend["DrivesPerSet"], json!([4, 4]));
}

#[test]
fn usage_is_what_is_known_without_a_walk() {
    let told = usage::message(&sets(), 3);
    assert_eq!(told["bucketsCount"], 3);
    assert_eq!((&told["capacity"], &told["usedCapacity"]), (&json!(6000), &json!(3600)));
    assert_eq!(told["lastUpdate"], "0001-01-01T00:00:00Z");
}

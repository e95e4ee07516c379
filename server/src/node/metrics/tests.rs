use basalt_engine::request::{Member, SetMap};
use basalt_engine::units::{DriveId, DriveIndex, Epoch, SetIndex};
use basalt_net::quorum::Quorums;

use super::*;

fn place() -> Place {
    let name = |number: usize| format!("/d\"{number}");
    Place {
        server: "127.0.0.1:9000".to_owned(),
        names: vec![(0..4).map(name).collect()],
        parity: vec![ClassParity { standard: 2, reduced_redundancy: 1 }],
    }
}

/// A set of four drives, of which these answer.
fn set(drives: &[u8], voting: usize) -> SetState {
    let members = (0..4).map(|index| Member { drive: DriveId(index), voting: true }).collect();
    let map = SetMap { epoch: Epoch(3), drives: members };
    let status = |index: &u8| {
        let status = DriveStatus {
            drive: DriveId(u128::from(*index)),
            map: map.clone(),
            capacity_bytes: 1000,
            free_bytes: 400,
            keys: 7,
            unsettled: 2,
            journal_used_bytes: 5,
        };
        (DriveIndex(*index), status)
    };
    let drives = drives.iter().map(status).collect();
    SetState { set: SetIndex(0), quorums: Quorums::of(4), voting, drives }
}

/// The value of one sample.
fn value<'a>(text: &'a Text, sample: &str) -> &'a str {
    let found = text.out.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    found.unwrap_or_else(|| panic!("no {sample} in\n{}", text.out))
}

#[test]
fn the_cluster_is_described_by_minios_names() {
    let mut text = Text::default();
    place().cluster(&[set(&[0, 1, 3], 1)], false, &mut text);
    for (sample, expected) in [
        ("minio_cluster_capacity_raw_total_bytes", "3000"),
        ("minio_cluster_capacity_raw_free_bytes", "1200"),
        ("minio_cluster_capacity_usable_total_bytes", "1500"),
        ("minio_cluster_capacity_usable_free_bytes", "600"),
        ("minio_cluster_drive_online_total", "3"),
        ("minio_cluster_drive_offline_total", "1"),
        ("minio_cluster_nodes_online_total", "1"),
        ("minio_cluster_health_status", "0"),
        ("minio_cluster_health_erasure_set_online_drives{set=\"0\"}", "3"),
        ("minio_cluster_health_erasure_set_healing_drives{set=\"0\"}", "2"),
        ("minio_cluster_health_erasure_set_status{set=\"0\"}", "0"),
    ] {
        assert_eq!(value(&text, sample), expected, "{sample}");
    }
}

#[test]
fn drives_that_answer_are_described() {
    let mut text = Text::default();
    place().drives(&[set(&[0, 1, 3], 3)], &mut text);
    let labels = r#"{server="127.0.0.1:9000",drive="/d\"3",set="0",position="3"}"#;
    assert_eq!(value(&text, &format!("minio_node_drive_used_bytes{labels}")), "600");
    assert_eq!(value(&text, &format!("basalt_unsettled_records{labels}")), "2");
    let server = r#"{server="127.0.0.1:9000"}"#;
    assert_eq!(value(&text, &format!("minio_node_drive_offline_total{server}")), "1");
    assert!(!text.out.contains("position=\"2\""));
}

#[test]
fn requests_are_told_by_operation_and_bucket() {
    let mut counts = Counts { received_bytes: 5, rejected: [1, 2, 3, 4], ..Counts::default() };
    let mut api = ApiCounts { requests: 9, errors_4xx: 2, errors_5xx: 1, ..ApiCounts::default() };
    api.first_byte = [4, 2, 0, 0, 0, 0, 0, 0, 3];
    counts.apis.insert("getobject", api.clone());
    let bucket =
        BucketCounts { sent_bytes: 8, apis: [("getobject", api)].into(), ..Default::default() };
    counts.buckets.insert("bucket".to_owned(), bucket);
    let mut text = Text::default();
    place().requests(Some(&counts), &mut text);
    place().buckets(Some(&counts), &mut text);
    let server = "server=\"127.0.0.1:9000\"";
    let first_byte =
        format!("minio_s3_requests_ttfb_seconds_distribution{{{server},api=\"getobject\"");
    for (sample, expected) in [
        (format!("minio_s3_requests_total{{{server},api=\"getobject\"}}"), "9"),
        (format!("minio_s3_requests_errors_total{{{server},api=\"getobject\"}}"), "3"),
        (format!("{first_byte},le=\"0.05\"}}"), "4"),
        (format!("{first_byte},le=\"10\"}}"), "6"),
        (format!("{first_byte},le=\"+Inf\"}}"), "9"),
        (format!("minio_s3_requests_rejected_timestamp_total{{{server}}}"), "2"),
        (format!("minio_s3_traffic_received_bytes{{{server}}}"), "5"),
        (
            format!("minio_bucket_requests_total{{{server},bucket=\"bucket\",api=\"getobject\"}}"),
            "9",
        ),
        (format!("minio_bucket_traffic_sent_bytes{{{server},bucket=\"bucket\"}}"), "8"),
    ] {
        assert_eq!(value(&text, &sample), expected, "{sample}");
    }
}

#[test]
fn every_family_is_told_once() {
    let mut text = Text::default();
    let (place, sets, counts) = (place(), [set(&[0], 1)], Counts::default());
    place.cluster(&sets, true, &mut text);
    place.drives(&sets, &mut text);
    place.requests(Some(&counts), &mut text);
    place.readings(&process::process(), &mut text);
    let mut families: Vec<&str> =
        text.out.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    let count = families.len();
    families.sort_unstable();
    families.dedup();
    assert_eq!(families.len(), count);
}

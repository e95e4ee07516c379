use basalt_net::node::NodeIndex;

use super::super::overview::testing::set;
use super::super::places::testing::places;
use super::*;

const NODE_0: NodeIndex = NodeIndex(0);
const NODE_1: NodeIndex = NodeIndex(1);

fn teller(places: &Places) -> Teller<'_> {
    Teller { places, server: places.endpoint(places.this) }
}

/// The value of one sample.
fn value<'a>(text: &'a Text, sample: &str) -> &'a str {
    let found = text.out.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    found.unwrap_or_else(|| panic!("no {sample} in\n{}", text.out))
}

#[test]
fn the_cluster_is_described_by_minios_names() {
    let (mut text, places) = (Text::default(), places(3));
    let cluster = Cluster { connected_nodes: 2, is_good: false };
    let sets = [set(0, 4, &[0, 1, 3], &[1, 3]), set(1, 4, &[], &[]), set(2, 4, &[], &[])];
    teller(&places).cluster(&sets, &cluster, &mut text);
    for (sample, expected) in [
        ("minio_cluster_capacity_raw_total_bytes", "3000"),
        ("minio_cluster_capacity_raw_free_bytes", "1200"),
        ("minio_cluster_capacity_usable_total_bytes", "1500"),
        ("minio_cluster_capacity_usable_free_bytes", "600"),
        ("minio_cluster_drive_online_total", "3"),
        ("minio_cluster_drive_offline_total", "9"),
        ("minio_cluster_nodes_online_total", "2"),
        ("minio_cluster_nodes_offline_total", "1"),
        ("minio_cluster_health_status", "0"),
        ("minio_cluster_health_erasure_set_online_drives{pool=\"0\",set=\"0\"}", "3"),
        ("minio_cluster_health_erasure_set_healing_drives{pool=\"0\",set=\"0\"}", "2"),
        ("minio_cluster_health_erasure_set_status{pool=\"0\",set=\"0\"}", "0"),
        ("minio_cluster_health_erasure_set_write_quorum{pool=\"1\",set=\"2\"}", "3"),
        ("minio_cluster_health_erasure_set_read_quorum{pool=\"1\",set=\"2\"}", "2"),
    ] {
        assert_eq!(value(&text, sample), expected, "{sample}");
    }
}

#[test]
fn drives_are_those_of_the_nodes_that_are_told_of() {
    let mut places = places(2);
    places.seats[0][3].path = "/d\"3".to_owned();
    let sets = [set(0, 4, &[0, 1, 3], &[]), set(1, 4, &[0, 1], &[]), set(2, 4, &[1], &[])];
    let told = |nodes: &[NodeIndex]| {
        let mut text = Text::default();
        teller(&places).drives(nodes, &sets, &mut text);
        text
    };
    let both = told(&[NODE_0, NODE_1]);
    let labels = r#"{server="n1:9000",drive="/d\"3",set="0",position="3"}"#;
    assert_eq!(value(&both, &format!("minio_node_drive_used_bytes{labels}")), "600");
    assert_eq!(value(&both, &format!("basalt_unsettled_records{labels}")), "2");
    assert_eq!(value(&both, r#"minio_node_drive_online_total{server="n1:9000"}"#), "4");
    let own = told(&[NODE_0]);
    for (figure, expected) in [("total", "6"), ("online_total", "2"), ("offline_total", "4")] {
        let sample = format!(r#"minio_node_drive_{figure}{{server="n0:9000"}}"#);
        assert_eq!(value(&own, &sample), expected, "{figure}");
    }
    assert!(!own.out.contains("n1:9000") && !own.out.contains("position=\"2\""));
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
    let (mut text, places) = (Text::default(), places(1));
    teller(&places).requests(Some(&counts), &mut text);
    teller(&places).buckets(Some(&counts), &mut text);
    let server = "server=\"n0:9000\"";
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
    let (places, sets, counts) = (places(2), [set(0, 4, &[0], &[])], Counts::default());
    let teller = teller(&places);
    teller.cluster(&sets, &Cluster { connected_nodes: 2, is_good: true }, &mut text);
    teller.drives(&[NODE_0, NODE_1], &sets, &mut text);
    teller.requests(Some(&counts), &mut text);
    teller.readings(&process::process(), &mut text);
    let mut families: Vec<&str> =
        text.out.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    let count = families.len();
    families.sort_unstable();
    families.dedup();
    assert_eq!(families.len(), count);
}

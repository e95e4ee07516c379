//! The metrics as Prometheus reads them, under MinIO's names where the thing is the same, so that its
//! dashboards go on working; what MinIO has no name for is called `basalt_…`.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};
use std::rc::Rc;

use basalt_engine::request::DriveStatus;
use basalt_net::node::NodeIndex;

use super::gather::Gathering;
use super::overview::{Overview, SetState};
use super::places::Places;
use super::process::{self, Reading};
use crate::s3::{ApiCounts, BucketCounts, Counts, FIRST_BYTE_MS, Health, MetricsPage, Rejection};

/// Name, help, and how it is read.
type Figure<T> = (&'static str, &'static str, fn(&T) -> u64);

/// What metrics are made of, on one core.
#[derive(Clone)]
pub(super) struct Pages {
    places: Rc<Places>,
    gathering: Gathering,
}

/// The cluster as it is now.
struct Cluster {
    connected_nodes: usize,
    is_good: bool,
}

impl Pages {
    pub(super) fn new(places: Rc<Places>, gathering: Gathering) -> Self {
        Self { places, gathering }
    }

    pub(super) async fn page(self, page: MetricsPage, overview: Overview) -> String {
        let teller =
            Teller { places: &self.places, server: self.places.endpoint(self.places.this) };
        let mut text = Text::default();
        match page {
            // Before the first look at the drives all of them would seem lost.
            _ if overview.look(<[SetState]>::is_empty) => {}
            MetricsPage::Cluster => {
                let nodes = self.places.all_nodes();
                let cluster = Cluster {
                    connected_nodes: nodes
                        .filter(|node| overview.nodes.is_connected(*node))
                        .count(),
                    is_good: overview.health(Health::Cluster).is_good,
                };
                overview.look(|sets| teller.cluster(sets, &cluster, &mut text));
                let nodes: Vec<NodeIndex> = self.places.all_nodes().collect();
                overview.look(|sets| teller.drives(&nodes, sets, &mut text));
                teller.requests(self.gathering.sum().await.as_ref(), &mut text);
                teller.readings(&process::process(), &mut text);
            }
            MetricsPage::Node => {
                overview.look(|sets| teller.drives(&[self.places.this], sets, &mut text));
                teller.requests(self.gathering.sum().await.as_ref(), &mut text);
                teller.readings(&process::process(), &mut text);
            }
            MetricsPage::Bucket => {
                teller.buckets(self.gathering.sum().await.as_ref(), &mut text);
            }
            MetricsPage::Resource => teller.readings(&process::machine(), &mut text),
        }
        text.out
    }
}

/// Writes what this node has to tell.
struct Teller<'a> {
    places: &'a Places,
    /// This node.
    server: &'a str,
}

impl Teller<'_> {
    fn cluster(&self, sets: &[SetState], cluster: &Cluster, text: &mut Text) {
        let online: usize = sets.iter().map(|set| set.drives.len()).sum();
        let total = self.places.count(None);
        let (nodes, connected) = (self.places.nodes.len(), cluster.connected_nodes);
        let bytes = |of: fn(&DriveStatus) -> u64| {
            let raw = |set: &SetState| set.drives.iter().map(|(_, drive)| of(drive)).sum::<u64>();
            let data =
                |set: &SetState| raw(set) / set.quorums.drives as u64 * set.data_drives as u64;
            (sets.iter().map(raw).sum::<u64>(), sets.iter().map(data).sum::<u64>())
        };
        let (raw_total, usable_total) = bytes(|drive| drive.capacity_bytes);
        let (raw_free, usable_free) = bytes(|drive| drive.free_bytes);
        for (name, help, value) in [
            ("minio_cluster_capacity_raw_total_bytes", "Bytes of all drives.", raw_total),
            ("minio_cluster_capacity_raw_free_bytes", "Free bytes of all drives.", raw_free),
            ("minio_cluster_capacity_usable_total_bytes", "As above, for data.", usable_total),
            ("minio_cluster_capacity_usable_free_bytes", "As above, for data.", usable_free),
            ("minio_cluster_drive_online_total", "Drives that answer.", online as u64),
            ("minio_cluster_drive_offline_total", "Drives that do not.", (total - online) as u64),
            ("minio_cluster_drive_total", "Drives.", total as u64),
            ("minio_cluster_nodes_online_total", "Nodes that are connected.", connected as u64),
            (
                "minio_cluster_nodes_offline_total",
                "Nodes that are not.",
                (nodes - connected) as u64,
            ),
            (
                "minio_cluster_health_status",
                "1: every set can be read and written.",
                u64::from(cluster.is_good),
            ),
        ] {
            text.family(name, help, "gauge");
            text.sample(name, &[], value);
        }
        text.family("minio_software_version_info", "The version that runs.", "gauge");
        let version: &dyn Display = &env!("CARGO_PKG_VERSION");
        let labels: [(&str, &dyn Display); 2] = [("server", &self.server), ("version", version)];
        text.sample("minio_software_version_info", &labels, 1);
        let figures: [Figure<SetState>; 5] = [
            ("online_drives", "Drives of the set that answer.", |set| set.drives.len() as u64),
            ("healing_drives", "Drives that are being filled.", |set| set.healing() as u64),
            ("read_quorum", "Drives that reads need.", |set| set.read_quorum() as u64),
            ("write_quorum", "Drives that writes need.", |set| set.write_quorum() as u64),
            ("status", "1: the set can be read and written.", |set| u64::from(set.can_write())),
        ];
        for (figure, help, value) in figures {
            let name = format!("minio_cluster_health_erasure_set_{figure}");
            text.family(&name, help, "gauge");
            for set in sets {
                let (pool, _) = self.places.pool_of(set.set);
                text.sample(&name, &[("pool", &pool), ("set", &set.set.0)], value(set));
            }
        }
    }

    /// Of each drive of these nodes that answers.
    fn drives(&self, nodes: &[NodeIndex], sets: &[SetState], text: &mut Text) {
        let figures: [Figure<DriveStatus>; 7] = [
            ("minio_node_drive_total_bytes", "Bytes the drive can hold.", |one| one.capacity_bytes),
            ("minio_node_drive_free_bytes", "Bytes free for objects.", |one| one.free_bytes),
            ("minio_node_drive_used_bytes", "Bytes in use.", |one| {
                one.capacity_bytes.saturating_sub(one.free_bytes)
            }),
            ("basalt_unsettled_records", "Keys that are not settled on the drive.", |one| {
                one.unsettled
            }),
            ("basalt_drive_keys", "Keys in the drive's index.", |one| one.keys),
            ("basalt_drive_journal_used_bytes", "Journal not yet freed.", |one| {
                one.journal_used_bytes
            }),
            ("basalt_drive_map_epoch", "Changes of the set's map.", |one| one.map.epoch.0),
        ];
        for (name, help, value) in figures {
            text.family(name, help, "gauge");
            for set in sets {
                for (position, drive) in &set.drives {
                    let seat = self.places.seat(set.set, *position);
                    if !nodes.contains(&seat.node) {
                        continue;
                    }
                    let labels: [(&str, &dyn Display); 4] = [
                        ("server", &self.places.endpoint(seat.node)),
                        ("drive", &seat.path),
                        ("set", &set.set.0),
                        ("position", &position.0),
                    ];
                    text.sample(name, &labels, value(drive));
                }
            }
        }
        let counts = nodes.iter().map(|&node| {
            let of_node = |set: &SetState| {
                let drives = set.drives.iter();
                drives.filter(|(at, _)| self.places.seat(set.set, *at).node == node).count()
            };
            let online: usize = sets.iter().map(of_node).sum();
            let total = self.places.count(Some(node));
            (self.places.endpoint(node), [online, total - online, total])
        });
        let counts: Vec<(&str, [usize; 3])> = counts.collect();
        for (index, (name, help)) in [
            ("minio_node_drive_online_total", "Drives of the node that answer."),
            ("minio_node_drive_offline_total", "Drives of the node that do not."),
            ("minio_node_drive_total", "Drives of the node."),
        ]
        .into_iter()
        .enumerate()
        {
            text.family(name, help, "gauge");
            for (endpoint, counts) in &counts {
                text.sample(name, &[("server", endpoint)], counts[index]);
            }
        }
    }

    /// Since the process started, over all cores. Counters that lack a core are left out: a smaller
    /// number would be taken for a restart.
    fn requests(&self, counts: Option<&Counts>, text: &mut Text) {
        let Some(counts) = counts else { return };
        let server: (&str, &dyn Display) = ("server", &self.server);
        apis("minio_s3_requests", server, [(None, &counts.apis)], text);
        let first_byte = "minio_s3_requests_ttfb_seconds_distribution";
        text.family(first_byte, "Requests by the time to their first byte.", "gauge");
        for (api, counted) in &counts.apis {
            let ends = FIRST_BYTE_MS.iter().map(|&end| (end as f64 / 1000.0).to_string());
            let mut sum = 0;
            for (end, count) in ends.chain(["+Inf".to_owned()]).zip(counted.first_byte) {
                sum += count;
                text.sample(first_byte, &[server, ("api", api), ("le", &end)], sum);
            }
        }
        let reasons = Rejection::ALL.map(|reason| match reason {
            Rejection::Auth => ("auth", "Refused for who asked."),
            Rejection::Time => ("timestamp", "Refused for the client's clock."),
            Rejection::Header => ("header", "Refused for a header."),
            Rejection::Invalid => ("invalid", "Refused as no request of S3."),
        });
        for ((reason, help), count) in reasons.into_iter().zip(counts.rejected) {
            let name = format!("minio_s3_requests_rejected_{reason}_total");
            text.family(&name, help, "counter");
            text.sample(&name, &[server], count);
        }
        for (name, help, bytes) in [
            ("minio_s3_traffic_received_bytes", "Bytes received.", counts.received_bytes),
            ("minio_s3_traffic_sent_bytes", "Bytes sent.", counts.sent_bytes),
        ] {
            text.family(name, help, "counter");
            text.sample(name, &[server], bytes);
        }
    }

    fn buckets(&self, counts: Option<&Counts>, text: &mut Text) {
        let Some(counts) = counts else { return };
        let server: (&str, &dyn Display) = ("server", &self.server);
        let of_buckets = counts.buckets.iter().map(|(name, bucket)| (Some(name), &bucket.apis));
        apis("minio_bucket_requests", server, of_buckets, text);
        let figures: [Figure<BucketCounts>; 2] = [
            ("minio_bucket_traffic_received_bytes", "Bytes of bodies.", |one| one.received_bytes),
            ("minio_bucket_traffic_sent_bytes", "Bytes of bodies.", |one| one.sent_bytes),
        ];
        for (name, help, value) in figures {
            text.family(name, help, "counter");
            for (bucket, counted) in &counts.buckets {
                text.sample(name, &[server, ("bucket", bucket)], value(counted));
            }
        }
    }

    fn readings(&self, readings: &[Reading], text: &mut Text) {
        for Reading { name, help, kind, value } in readings {
            text.family(name, help, kind);
            text.sample(name, &[("server", &self.server)], value);
        }
    }
}

/// The figures of each operation, and of each bucket where there are any.
fn apis<'a>(
    prefix: &str,
    server: (&str, &dyn Display),
    counted: impl IntoIterator<Item = (Option<&'a String>, &'a BTreeMap<&'static str, ApiCounts>)>,
    text: &mut Text,
) {
    let counted: Vec<_> = counted.into_iter().collect();
    let figures: [Figure<ApiCounts>; 6] = [
        ("total", "Requests.", |api| api.requests),
        ("inflight_total", "Requests under way.", |api| api.in_flight),
        ("canceled_total", "Requests whose clients left.", |api| api.canceled),
        ("errors_total", "Answers of 400 and above.", |api| api.errors_4xx + api.errors_5xx),
        ("4xx_errors_total", "Answers of 400 to 499.", |api| api.errors_4xx),
        ("5xx_errors_total", "Answers of 500 and above.", |api| api.errors_5xx),
    ];
    // What is under way is known of operations alone.
    let of_buckets = counted.iter().any(|(bucket, _)| bucket.is_some());
    let told = figures.iter().filter(|(figure, ..)| !of_buckets || *figure != "inflight_total");
    for (figure, help, value) in told {
        let name = format!("{prefix}_{figure}");
        let kind = if *figure == "inflight_total" { "gauge" } else { "counter" };
        text.family(&name, help, kind);
        for (bucket, apis) in &counted {
            for (api, counted) in *apis {
                let api: (&str, &dyn Display) = ("api", api);
                match bucket {
                    Some(bucket) => {
                        text.sample(&name, &[server, ("bucket", bucket), api], value(counted));
                    }
                    None => text.sample(&name, &[server, api], value(counted)),
                }
            }
        }
    }
}

/// Prometheus' text format.
#[derive(Default)]
struct Text {
    out: String,
}

impl Text {
    // Writing to a string cannot fail.
    fn family(&mut self, name: &str, help: &str, kind: &str) {
        let _ = writeln!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &dyn Display)], value: impl Display) {
        self.out.push_str(name);
        for (index, (label, value)) in labels.iter().enumerate() {
            let separator = if index == 0 { '{' } else { ',' };
            let value = value.to_string();
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.out, "{separator}{label}=\"{value}\"");
        }
        let close = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.out, "{close} {value}");
    }
}

#[cfg(test)]
mod tests;

//! The servers of one cluster: started, killed, frozen and watched node by node.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::chaos::{Ground, sum_of};
use crate::s3::Client;
use crate::server::{Launch, Layout, Server};

/// A metric that all nodes agree on twice in this distance was not merely read before it changed: nodes
/// look at their drives every second.
const LOOK_AGAIN: Duration = Duration::from_millis(1600);
const PROBE_LIMIT: Duration = Duration::from_secs(10);

/// Nodes and drives on each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Shape {
    pub(crate) nodes: usize,
    pub(crate) drives: usize,
    /// Drives of the one set that can be lost.
    pub(crate) parity: usize,
}

impl Shape {
    pub(crate) fn layout(self) -> Layout {
        Layout { drives: self.nodes * self.drives, parity: self.parity }
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} nodes x {} drives", self.nodes, self.drives)
    }
}

pub(crate) struct Fleet {
    pub(crate) shape: Shape,
    /// By node.
    pub(crate) launches: Vec<Launch>,
    /// Those that run; they end before the ground that they stand on.
    servers: Vec<Option<Server>>,
    pub(crate) ground: Ground,
}

impl Fleet {
    pub(crate) fn new(program: &Path, folder: &Path, shape: Shape, ground: Ground) -> Result<Self> {
        let own_folder = |node: usize| folder.join(format!("n{}", node + 1));
        let mut launches = Vec::new();
        for node in 0..shape.nodes {
            let mut launch = Launch::new(program, &own_folder(node), shape.layout())?;
            launch.address = ground.address(node);
            launch.within = ground.within(node);
            let parity = format!("EC:{}", shape.parity);
            launch.environment = vec![("MINIO_STORAGE_CLASS_STANDARD", parity)];
            launches.push(launch);
        }
        // Without ranges they are one pool; neighbours in it are on different nodes.
        let drive = |launch: &Launch, drive| {
            format!("http://{}{}", launch.address, launch.drive(drive).display())
        };
        let all: Vec<String> = (0..shape.drives)
            .flat_map(|index| launches.iter().map(move |launch| drive(launch, index)))
            .collect();
        for launch in &mut launches {
            launch.drives.clone_from(&all);
        }
        let servers = launches.iter().map(|_| None).collect();
        Ok(Self { shape, ground, launches, servers })
    }

    pub(crate) fn nodes(&self) -> std::ops::Range<usize> {
        0..self.shape.nodes
    }

    pub(crate) fn start(&mut self, nodes: impl IntoIterator<Item = usize>) -> Result<()> {
        for node in nodes {
            assert!(self.servers[node].is_none(), "it runs");
            self.servers[node] = Some(self.launches[node].start()?);
        }
        Ok(())
    }

    pub(crate) fn is_up(&self, node: usize) -> bool {
        self.servers[node].is_some()
    }

    pub(crate) fn server(&self, node: usize) -> &Server {
        self.servers[node].as_ref().expect("it runs")
    }

    /// SIGKILL for all of them within moments, and the end of each awaited.
    pub(crate) fn kill(&mut self, nodes: impl IntoIterator<Item = usize>) -> Result<()> {
        let nodes: Vec<usize> = nodes.into_iter().collect();
        for node in &nodes {
            self.server(*node).signal("-KILL")?;
        }
        for node in nodes {
            self.servers[node].take().expect("it runs").kill()?;
        }
        Ok(())
    }

    /// SIGTERM, one after the other.
    pub(crate) fn stop(&mut self, nodes: impl IntoIterator<Item = usize>) -> Result<()> {
        for node in nodes {
            let server = self.servers[node].take().expect("it runs");
            server.stop().with_context(|| format!("stopping node {}", node + 1))?;
        }
        Ok(())
    }

    /// Every node that runs says that it is ready, and answers a request that needs the drives.
    pub(crate) fn await_ready(&mut self, limit: Duration) -> Result<Duration> {
        let start = Instant::now();
        for (node, server) in self.servers.iter_mut().enumerate() {
            let Some(server) = server else { continue };
            server.await_ready(limit).with_context(|| format!("node {}", node + 1))?;
        }
        Ok(start.elapsed())
    }

    pub(crate) fn ensure_alive(&mut self) -> Result<()> {
        for (node, server) in self.servers.iter_mut().enumerate() {
            let Some(server) = server else { continue };
            server.ensure_alive().with_context(|| format!("node {}", node + 1))?;
        }
        Ok(())
    }

    /// Waits until every node that runs answers that the cluster can write and sees all drives.
    pub(crate) fn await_whole(&self, limit: Duration) -> Result<Duration> {
        self.await_all("the cluster is not whole", limit, |view| {
            if view.online == self.shape.layout().drives as f64 && view.can_write {
                None
            } else {
                Some(format!("{} drives answer, can write: {}", view.online, view.can_write))
            }
        })
    }

    /// Waits until every drive votes and has nothing unsettled, as every node that runs sees it.
    pub(crate) fn settle(&self, limit: Duration) -> Result<Duration> {
        let start = Instant::now();
        loop {
            let left = limit.saturating_sub(start.elapsed());
            self.await_all("not settled", left, View::unsettled)?;
            thread::sleep(LOOK_AGAIN);
            if self.views()?.iter().all(|(_, view)| view.unsettled().is_none()) {
                return Ok(start.elapsed().saturating_sub(LOOK_AGAIN));
            }
        }
    }

    /// Waits for every node to have nothing to object to.
    fn await_all(
        &self,
        what: &str,
        limit: Duration,
        objection: impl Fn(&View) -> Option<String>,
    ) -> Result<Duration> {
        let start = Instant::now();
        loop {
            let trouble = match self.views() {
                Ok(views) => {
                    let mut objections = views.iter().filter_map(|(node, view)| {
                        Some(format!("node {}: {}", node + 1, objection(view)?))
                    });
                    objections.next()
                }
                Err(error) => Some(format!("{error:#}")),
            };
            let Some(trouble) = trouble else { return Ok(start.elapsed()) };
            let took = start.elapsed();
            ensure!(took < limit, "{what} after {} s: {trouble}", took.as_secs());
            thread::sleep(Duration::from_millis(100));
        }
    }

    fn views(&self) -> Result<Vec<(usize, View)>> {
        let up = self.nodes().filter(|node| self.is_up(*node));
        up.map(|node| {
            let mut client = self.launches[node].client(PROBE_LIMIT);
            let view = View::ask(&mut client).with_context(|| format!("node {}", node + 1))?;
            Ok((node, view))
        })
        .collect()
    }

    pub(crate) fn drive(&self, node: usize, drive: usize) -> PathBuf {
        self.launches[node].drive(drive)
    }
}

/// What a node says of the cluster.
#[derive(Debug)]
struct View {
    online: f64,
    healing: f64,
    unsettled: f64,
    drives: f64,
    can_write: bool,
}

impl View {
    fn ask(client: &mut Client) -> Result<Self> {
        let health = client.probe("/minio/health/cluster").map_err(std::io::Error::from)?;
        let answer = client.probe("/minio/v2/metrics/cluster").map_err(std::io::Error::from)?;
        if answer.status != 200 {
            bail!("metrics: status {}", answer.status);
        }
        let text = String::from_utf8_lossy(&answer.body);
        let figure = |name| sum_of(&text, name).with_context(|| format!("no metric {name}"));
        Ok(Self {
            online: figure("minio_cluster_drive_online_total")?,
            healing: figure("minio_cluster_health_erasure_set_healing_drives")?,
            unsettled: figure("basalt_unsettled_records")?,
            drives: figure("minio_cluster_drive_total")?,
            can_write: health.status == 200,
        })
    }

    fn unsettled(&self) -> Option<String> {
        let Self { online, healing, unsettled, drives, .. } = self;
        let is_settled = online == drives && *healing == 0.0 && *unsettled == 0.0;
        (!is_settled).then(|| {
            format!("{online} drives answer, {healing} are being filled, {unsettled} unsettled")
        })
    }
}

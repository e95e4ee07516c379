//! Where the nodes of a cluster run: each in a network of its own, or all on loopback ports.
//!
//! A node's own network is a namespace with one address, joined to the others by a bridge. What a node
//! sends to a peer can be made to vanish there, silently and in one direction, by giving the peer a
//! hardware address that nobody has: no packet filter is needed. All of it lies in a namespace of
//! networks and processes that this tool enters first, so that nothing of it is seen on the machine,
//! and nothing of it outlives the tool, however that ends.
//!
//! Where such namespaces are not permitted, nodes are ports, and nothing can be cut off.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::command;
use crate::server::free_address;
use crate::verdict::Verdict;

/// Set for the tool within the namespaces.
const MARK: &str = "XTASK_APART";
const LIMIT: Duration = Duration::from_secs(10);
const RUN_LIMIT: Duration = Duration::from_secs(24 * 3600);
const BRIDGE: &str = "nodes";
const PORT: u16 = 9000;
/// More than any layout has.
const NODES_MAX: usize = 16;

#[derive(Debug)]
pub(crate) enum Ground {
    Networks(Vec<Network>),
    Loopback(Vec<SocketAddr>),
}

/// A process that does nothing but keep a node's network alive.
#[derive(Debug)]
pub(crate) struct Network {
    keeper: Child,
}

impl Drop for Network {
    fn drop(&mut self) {
        // Its network ends with it.
        let _ended = self.keeper.kill().and_then(|()| self.keeper.wait());
    }
}

/// Whether this process is the one within the namespaces.
fn is_apart() -> bool {
    std::env::var_os(MARK).is_some()
}

/// Runs this very command once more within namespaces of its own; `None` where it is there already,
/// or where there can be none, which is said.
pub(crate) fn run_apart() -> Result<Option<Verdict>> {
    if is_apart() {
        ip(&["link", "set", "lo", "up"])?;
        return Ok(None);
    }
    let mut probe = Command::new("unshare");
    probe.args(namespaces()).args(["ip", "link", "add", BRIDGE, "type", "bridge"]);
    if let Err(error) = command::output(&mut probe, LIMIT) {
        println!("SKIPPED: every partition. No network namespaces can be made here: {error:#}");
        println!("SKIPPED: nodes run on loopback ports instead. Run as root, with iproute2.");
        return Ok(None);
    }
    let program = std::env::current_exe().context("this program")?;
    // Were this process killed, so would be all that it has started.
    let mut again = Command::new("setpriv");
    again.args(["--pdeathsig", "KILL", "unshare"]).args(namespaces()).arg(program);
    again.args(std::env::args_os().skip(1)).env(MARK, "1");
    let mut verdict = Verdict::default();
    let status = command::lines(&mut again, RUN_LIMIT, |line| {
        println!("{line}");
        if let Some(counts) = Verdict::parse(line) {
            verdict += counts;
        }
    })?;
    if !status.success() && verdict.failed == 0 {
        verdict += Verdict::of(false);
    }
    Ok(Some(verdict))
}

fn namespaces() -> Vec<&'static str> {
    // Who is not root may be root in a namespace of users.
    let is_root = fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    let users: &[_] = if is_root { &[] } else { &["--user", "--map-root-user"] };
    [users, &["--net", "--pid", "--fork", "--kill-child", "--mount-proc"]].concat()
}

impl Ground {
    pub(crate) fn prepare(nodes: usize) -> Result<Self> {
        assert!(nodes <= NODES_MAX, "more nodes than addresses");
        if !is_apart() {
            return Ok(Self::Loopback(free_addresses(nodes)?));
        }
        if !exists(BRIDGE)? {
            ip(&["link", "add", BRIDGE, "type", "bridge"])?;
            ip(&["address", "add", "10.77.0.254/24", "dev", BRIDGE])?;
            ip(&["link", "set", BRIDGE, "up"])?;
        }
        let networks = (0..nodes).map(Network::create).collect::<Result<Vec<_>>>()?;
        let ground = Self::Networks(networks);
        ground.heal()?;
        Ok(ground)
    }

    /// Two grounds on one machine, of nodes that differ by their ports alone.
    pub(crate) fn two_of_ports(nodes: usize) -> Result<[Self; 2]> {
        let mut ports = free_addresses(2 * nodes)?;
        let others = ports.split_off(nodes);
        Ok([Self::Loopback(ports), Self::Loopback(others)])
    }

    pub(crate) fn can_be_cut(&self) -> bool {
        matches!(self, Self::Networks(_))
    }

    pub(crate) fn address(&self, node: usize) -> SocketAddr {
        match self {
            Self::Networks(_) => SocketAddr::from((own_address(node), PORT)),
            Self::Loopback(addresses) => addresses[node],
        }
    }

    /// What a node's program is started by.
    pub(crate) fn within(&self, node: usize) -> Vec<String> {
        match self {
            Self::Networks(networks) => networks[node].enter(),
            Self::Loopback(_) => Vec::new(),
        }
    }

    /// From now on nothing that `from` sends reaches `to`.
    pub(crate) fn cut(&self, from: usize, to: usize) -> Result<()> {
        // 1 in the place of 0: nobody has this address.
        self.lead(from, to, 1)
    }

    /// Everything reaches everybody.
    pub(crate) fn heal(&self) -> Result<()> {
        let Self::Networks(networks) = self else { return Ok(()) };
        for from in 0..networks.len() {
            for to in (0..networks.len()).filter(|to| *to != from) {
                self.lead(from, to, 0)?;
            }
        }
        Ok(())
    }

    fn lead(&self, from: usize, to: usize, mark: u8) -> Result<()> {
        let Self::Networks(networks) = self else { return Ok(()) };
        let to_address = SocketAddr::from((own_address(to), 0)).ip().to_string();
        let hardware = hardware_address(to, mark);
        networks[from].ip(&[
            "neighbour",
            "replace",
            &to_address,
            "lladdr",
            &hardware,
            "nud",
            "permanent",
            "dev",
            "eth0",
        ])
    }
}

impl Network {
    fn create(node: usize) -> Result<Self> {
        let mut keeper = Command::new("unshare");
        keeper.args(["--net", "sleep", "infinity"]).stdin(Stdio::null()).process_group(0);
        let network = Self { keeper: keeper.spawn().context("a node's network")? };
        network.await_own()?;
        let (port, keeper) = (format!("node{}", node + 1), network.keeper.id().to_string());
        let hardware = hardware_address(node, 0);
        // Of a former network of this name, whose end may still be under way.
        if exists(&port)? {
            ip(&["link", "delete", &port])?;
        }
        ip(&[
            "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &keeper,
            "address", &hardware,
        ])?;
        ip(&["link", "set", &port, "master", BRIDGE, "up"])?;
        let address = SocketAddr::from((own_address(node), 0)).ip();
        network.ip(&["link", "set", "lo", "up"])?;
        network.ip(&["address", "add", &format!("{address}/24"), "dev", "eth0"])?;
        network.ip(&["link", "set", "eth0", "up"])?;
        Ok(network)
    }

    /// The keeper leaves this process's network a moment after it was started.
    fn await_own(&self) -> Result<()> {
        let network = |of: &str| fs::read_link(format!("/proc/{of}/ns/net"));
        let ours = network("self").context("the own network")?;
        let keeper = self.keeper.id().to_string();
        let deadline = Instant::now() + LIMIT;
        while network(&keeper).context("a node's network")? == ours {
            ensure!(Instant::now() < deadline, "a node's network was not made");
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    fn enter(&self) -> Vec<String> {
        vec!["nsenter".to_owned(), format!("--net=/proc/{}/ns/net", self.keeper.id())]
    }

    fn ip(&self, arguments: &[&str]) -> Result<()> {
        let enter = self.enter();
        let mut command = Command::new(&enter[0]);
        command.arg(&enter[1]).arg("ip").args(arguments);
        command::output(&mut command, LIMIT).map(|_| ())
    }
}

fn free_addresses(count: usize) -> Result<Vec<SocketAddr>> {
    let mut addresses = Vec::new();
    while addresses.len() < count {
        let address = free_address()?;
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

fn own_address(node: usize) -> [u8; 4] {
    [10, 77, 0, node as u8 + 1]
}

fn hardware_address(node: usize, mark: u8) -> String {
    format!("02:00:00:00:{mark:02x}:{:02x}", node + 1)
}

fn exists(device: &str) -> Result<bool> {
    Ok(fs::read_to_string("/proc/net/dev")?.contains(&format!("{device}:")))
}

fn ip(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("ip");
    command::output(command.args(arguments), LIMIT).map(|_| ())
}

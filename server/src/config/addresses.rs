//! Where a server listens: for clients, for the console, for other nodes.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::Path;

use crate::cli::Server;
use crate::environment::Environment;
use crate::refusal::Refusal;

const DEFAULT_ADDRESS: &str = ":9000";

pub(super) struct Addresses {
    pub(super) listen: SocketAddr,
    pub(super) console: Option<SocketAddr>,
    /// `None`: peers connect where clients do.
    pub(super) peers: Option<SocketAddr>,
}

impl Addresses {
    /// A flag wins over its variable.
    pub(super) fn decide(server: &Server, environment: &Environment) -> Result<Self, Refusal> {
        let given = |flag: &Option<String>, name| {
            let variable = environment.get(name);
            let text = flag.as_deref().or(variable.as_ref().map(|variable| variable.value));
            text.map(resolve).transpose()
        };
        let listen = match given(&server.address, "ADDRESS")? {
            Some(listen) => listen,
            None => resolve(DEFAULT_ADDRESS)?,
        };
        let console = given(&server.console_address, "CONSOLE_ADDRESS")?;
        let peers = given(&server.peer_address, "PEER_ADDRESS")?;
        if console.is_some_and(|console| console == listen) {
            return Err(Refusal::usage(
                format!("{listen} cannot serve both clients and the console"),
                "--address and --console-address are the same",
                "give the console a port of its own: --console-address :9001",
            ));
        }
        if let Some(peers) = peers {
            check_peers(peers, "--address", listen)?;
            if let Some(console) = console {
                check_peers(peers, "--console-address", console)?;
            }
        }
        Ok(Self { listen, console, peers })
    }
}

/// An address for peers overlaps with no other.
fn check_peers(peers: SocketAddr, flag: &str, other: SocketAddr) -> Result<(), Refusal> {
    let any = peers.ip().is_unspecified() || other.ip().is_unspecified();
    if peers.port() != other.port() || !(any || peers.ip() == other.ip()) {
        return Ok(());
    }
    Err(Refusal::usage(
        format!("{peers} cannot be for other nodes alone"),
        format!("{flag} listens there too"),
        "give other nodes a port of their own: --peer-address :9010; or leave it out, and they \
         connect where clients do",
    ))
}

/// `HOST:PORT`, `:PORT`, `[IPV6]:PORT`. No host stands for every address of the machine.
fn resolve(text: &str) -> Result<SocketAddr, Refusal> {
    let refused = |cause: String| {
        let remedy = "write HOST:PORT, or :PORT for every address of this machine: --address :9000";
        Refusal::usage(format!("`{text}` is not an address to listen on"), cause, remedy)
    };
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err(refused("it has no port".into()));
    };
    let port: u16 =
        port.parse().map_err(|_| refused(format!("`{port}` is not a port, 1 to 65535")))?;
    if port == 0 {
        return Err(refused("port 0 is a different port on every core".into()));
    }
    if host.is_empty() {
        return Ok(every_address(port));
    }
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    if bare.is_none() && host.contains(':') {
        return Err(refused("an IPv6 address stands in brackets: [::1]:9000".into()));
    }
    let mut found = (bare.unwrap_or(host), port)
        .to_socket_addrs()
        .map_err(|error| refused(format!("its host cannot be resolved: {error}")))?;
    found.next().ok_or_else(|| refused("its host has no address".into()))
}

/// The unspecified address, for both families where the machine has IPv6.
fn every_address(port: u16) -> SocketAddr {
    if Path::new("/proc/net/if_inet6").exists() {
        (Ipv6Addr::UNSPECIFIED, port).into()
    } else {
        (Ipv4Addr::UNSPECIFIED, port).into()
    }
}

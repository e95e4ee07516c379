//! What a server prints once it serves: where it is, what it has, and lines to copy into a shell.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use crate::config::ServerConfig;
use crate::credentials::{Credentials, Origin};
use crate::memory::Budget;
use crate::topology::capacity;

/// Region that clients sign for when the server does not care.
const ANY_REGION: &str = "us-east-1";

/// Prints the start-up text, or logs its facts where logs are JSON.
pub fn announce(config: &ServerConfig, memory: Budget) {
    let capacity = config.capacity();
    if config.output.json || config.output.quiet {
        tracing::info!(
            address = %config.listen,
            nodes = config.topology.nodes.len().max(1),
            drives = config.topology.drives().count(),
            sets = config.sets.len(),
            raw_bytes = capacity.raw_bytes,
            usable_bytes = capacity.usable_bytes,
            memory_bytes = memory.bytes,
            version = env!("CARGO_PKG_VERSION"),
            "serving"
        );
        return;
    }
    // A closed standard output is no reason not to serve.
    let _ = io::stdout().lock().write_all(text(config, memory).as_bytes());
}

/// The start-up text.
pub fn text(config: &ServerConfig, memory: Budget) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "Basalt {}\n", env!("CARGO_PKG_VERSION"));
    let endpoints = endpoints(config.scheme(), config.listen);
    if !config.output.anonymous {
        let _ = writeln!(out, "Endpoint:   {}", endpoints.join("  "));
    }
    storage(&mut out, config);
    let _ = writeln!(
        out,
        "Memory:     about {}, and {} for a million keys on each drive",
        capacity::text(memory.bytes),
        capacity::text(memory.million_keys_bytes)
    );
    if !config.output.anonymous {
        let nearest = endpoints.last().expect("an endpoint");
        root_user(&mut out, &config.credentials);
        commands(&mut out, &config.credentials, nearest, config.region.as_deref());
    }
    out
}

fn storage(out: &mut String, config: &ServerConfig) {
    if let Some(cluster) = &config.cluster {
        let this = &cluster.nodes[usize::from(cluster.this.0)];
        let nodes = count(cluster.nodes.len(), "node");
        let _ = match config.output.anonymous {
            true => writeln!(out, "Nodes:      {nodes}"),
            false => writeln!(out, "Nodes:      {nodes}; this is {this}"),
        };
    }
    let mut first_set = 0;
    for (pool, number) in config.topology.pools.iter().zip(1..) {
        let sets = pool.sets().len();
        let parity = config.parity[first_set];
        first_set += sets;
        let name = if config.topology.pools.len() == 1 {
            "Drives:    ".to_owned()
        } else {
            format!("Pool {number}:    ")
        };
        // A URL is an address.
        let argument = match config.output.anonymous && !config.topology.nodes.is_empty() {
            true => String::new(),
            false => format!(" ({})", pool.argument),
        };
        let _ = writeln!(
            out,
            "{name} {} in {} of {}{argument}",
            count(pool.drives.len(), "drive"),
            count(sets, "set"),
            pool.set_drives,
        );
        let _ = writeln!(
            out,
            "Parity:     STANDARD EC:{}, REDUCED_REDUNDANCY EC:{}",
            parity.standard, parity.reduced_redundancy
        );
    }
    let capacity = config.capacity();
    let percent = (capacity.usable_bytes * 100).checked_div(capacity.raw_bytes).unwrap_or(0);
    let condition = match config.cluster {
        Some(_) => ", if the other nodes' drives are as large",
        None => "",
    };
    let _ = writeln!(
        out,
        "Capacity:   {} usable of {} raw ({percent} %){condition}",
        capacity::text(capacity.usable_bytes),
        capacity::text(capacity.raw_bytes)
    );
}

fn root_user(out: &mut String, credentials: &Credentials) {
    let _ = writeln!(out, "Root user:  {}", credentials.user);
    match &credentials.origin {
        Origin::Environment => {}
        Origin::File { path, fresh: true } => {
            let _ = writeln!(
                out,
                "Secret:     {}  (shown this once; kept in {})",
                credentials.secret,
                path.display()
            );
        }
        Origin::File { path, fresh: false } => {
            let _ = writeln!(out, "Secret:     kept in {}", path.display());
        }
    }
}

fn commands(out: &mut String, credentials: &Credentials, endpoint: &str, region: Option<&str>) {
    let _ = writeln!(out, "\nTo use it from a shell on this machine:\n");
    match &credentials.origin {
        Origin::File { path, .. } => {
            let _ = writeln!(
                out,
                "  . {} && export AWS_ACCESS_KEY_ID=$BASALT_ROOT_USER \
                 AWS_SECRET_ACCESS_KEY=$BASALT_ROOT_PASSWORD",
                quoted(&path.display().to_string())
            );
        }
        // The secret is the operator's: asked for, not shown.
        Origin::Environment => {
            let _ = writeln!(
                out,
                "  export AWS_ACCESS_KEY_ID={}; read -rsp 'Secret: ' AWS_SECRET_ACCESS_KEY; \
                 export AWS_SECRET_ACCESS_KEY",
                quoted(&credentials.user)
            );
        }
    }
    let region = quoted(region.unwrap_or(ANY_REGION));
    let _ = writeln!(out, "  export AWS_DEFAULT_REGION={region}");
    let _ = writeln!(out, "  aws --endpoint-url {endpoint} s3 mb s3://first-bucket");
    let _ = writeln!(out, "  aws --endpoint-url {endpoint} s3 cp FILE s3://first-bucket/");
    let _ = writeln!(
        out,
        "  mc alias set basalt {endpoint} \"$AWS_ACCESS_KEY_ID\" \"$AWS_SECRET_ACCESS_KEY\"\n"
    );
}

/// Where clients reach the server; the last is for this machine.
fn endpoints(scheme: &str, listening: SocketAddr) -> Vec<String> {
    let port = listening.port();
    let url = |address: IpAddr| format!("{scheme}://{}", SocketAddr::new(address, port));
    if !listening.ip().is_unspecified() {
        return vec![url(listening.ip())];
    }
    let here = Ipv4Addr::LOCALHOST.into();
    outward_address().into_iter().chain([here]).map(url).collect()
}

/// The address that this machine uses towards others, if it has a route to any. Nothing is sent.
fn outward_address() -> Option<IpAddr> {
    const SOMEWHERE: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 1), 9);
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect(SOMEWHERE).ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_unspecified() && !address.is_loopback()).then_some(address)
}

/// As one word of a POSIX shell.
fn quoted(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+:@%".contains(&byte);
    if !text.is_empty() && text.bytes().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn count(number: usize, noun: &str) -> String {
    match number {
        1 => format!("1 {noun}"),
        _ => format!("{number} {noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;
    use std::path::Path;

    use basalt_net::node::NodeIndex;

    use super::*;
    use crate::cluster::Cluster;
    use crate::config::Output;
    use crate::node::drives::{Drive, State, Terms};
    use crate::object::ClassParity;
    use crate::start::seats;
    use crate::topology::{Place, Topology};

    const MEMORY: Budget = Budget { bytes: 3 << 30, million_keys_bytes: 512 << 20 };

    fn config(origin: Origin) -> ServerConfig {
        config_of(origin, "/mnt/drive{1...16}")
    }

    /// Of the first node that is named.
    fn config_of(origin: Origin, argument: &str) -> ServerConfig {
        let topology = Topology::parse(&[argument.to_owned()], None, Path::new("/"), 9000).unwrap();
        let drive = |place: &Place| Drive {
            path: place.path.clone(),
            state: State::Ours,
            device: 1,
            sharing: 1,
            made: false,
            space_bytes: 1 << 40,
            terms: Terms { allow_buffered: false, may_be_on_root: false },
        };
        let this = NodeIndex(0);
        let local = topology.drives().filter(|place| place.node == this).map(drive).collect();
        let sets = seats(&topology, this, local);
        let cluster = (topology.nodes.len() > 1).then(|| Cluster {
            nodes: topology.nodes.clone(),
            this,
            topology_hash: [0; 32],
            peer_key: [0; 32],
            peer_address: None,
        });
        ServerConfig {
            parity: vec![ClassParity { standard: 4, reduced_redundancy: 2 }; sets.len()],
            sets,
            cluster,
            topology,
            users: Vec::new(),
            credentials: Credentials { user: "root-a".into(), secret: "the secret".into(), origin },
            listen: (Ipv4Addr::LOCALHOST, 9000).into(),
            certificates: None,
            region: None,
            public_metrics: false,
            upload_rest: Default::default(),
            domains: Default::default(),
            origins: Default::default(),
            output: Output::default(),
        }
    }

    fn banner(origin: Origin) -> String {
        text(&config(origin), MEMORY)
    }

    fn file(fresh: bool) -> Origin {
        Origin::File { path: "/srv/it's here/.basalt-root-d1".into(), fresh }
    }

    #[test]
    fn it_says_what_an_operator_needs() {
        let text = banner(file(false));
        for expected in [
            "Endpoint:   http://127.0.0.1:9000\n",
            "Drives:     16 drives in 1 set of 16 (/mnt/drive{1...16})\n",
            "Parity:     STANDARD EC:4, REDUCED_REDUNDANCY EC:2\n",
            "Capacity:   12 TiB usable of 16 TiB raw (75 %)\n",
            r"  . '/srv/it'\''s here/.basalt-root-d1' && export AWS_ACCESS_KEY_ID=$BASALT_ROOT_USER",
            "aws --endpoint-url http://127.0.0.1:9000 s3 mb ",
            "mc alias set basalt http://127.0.0.1:9000 ",
        ] {
            assert!(text.contains(expected), "no {expected:?} in\n{text}");
        }
    }

    #[test]
    fn several_nodes_are_counted_and_their_drives_assumed() {
        let mut config = config_of(Origin::Environment, "http://n{1...4}/d{1...8}");
        let said = text(&config, MEMORY);
        for expected in [
            "Nodes:      4 nodes; this is http://n1:9000\n",
            "Drives:     32 drives in 2 sets of 16 (http://n{1...4}/d{1...8})\n",
            "24 TiB usable of 32 TiB raw (75 %), if the other nodes' drives are as large\n",
        ] {
            assert!(said.contains(expected), "no {expected:?} in\n{said}");
        }
        config.output.anonymous = true;
        assert!(!text(&config, MEMORY).contains("http"));
    }

    #[test]
    fn the_secret_is_shown_once() {
        assert!(banner(file(true)).contains("the secret"));
        assert!(!banner(file(false)).contains("the secret"));
        assert!(!banner(Origin::Environment).contains("the secret"));
        let mut anonymous = config(file(true));
        anonymous.output.anonymous = true;
        let text = text(&anonymous, MEMORY);
        assert!(!text.contains("the secret") && !text.contains("127.0.0.1"), "{text}");
    }

    #[test]
    fn an_unspecified_address_is_shown_as_one_that_connects() {
        for any in [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)] {
            let endpoints = endpoints("http", (any, 9000).into());
            assert_eq!(endpoints.last().unwrap(), "http://127.0.0.1:9000");
            assert!(endpoints.iter().all(|url| !url.contains("0.0.0.0") && !url.contains("[::]")));
        }
        assert_eq!(endpoints("http", (Ipv6Addr::LOCALHOST, 80).into()), ["http://[::1]:80"]);
    }
}

//! How a node is named and reached: the scheme, host and port of its drives' URLs.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, ToSocketAddrs};

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// Two of them are equal when they are spelled alike, but for case and the forms of an IP address.
/// Whether two names lead to one machine is for its addresses to say.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NodeAddress {
    pub scheme: Scheme,
    /// A name in lower case, or an IP address in its usual form, without brackets.
    pub host: String,
    pub port: u16,
}

impl NodeAddress {
    /// From the part of a URL between `://` and the path. Without a port it has `default_port`.
    pub(super) fn parse(
        scheme: Scheme,
        authority: &str,
        default_port: u16,
    ) -> Result<Self, &'static str> {
        let (host, port) = split(authority)?;
        let port = match port {
            None => default_port,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                match digits.parse() {
                    Ok(port) if port > 0 => port,
                    _ => return Err("its port is not between 1 and 65535"),
                }
            }
            Some(_) => return Err("its port is not a number"),
        };
        Ok(Self { scheme, host, port })
    }

    /// The host, if it is an address and no name.
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// Where to connect, as of now: names are looked up each time. This blocks.
    pub fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        let found: Vec<SocketAddr> = (self.host.as_str(), self.port).to_socket_addrs()?.collect();
        if found.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
        }
        Ok(found)
    }
}

/// Host and, if there is one, port.
fn split(authority: &str) -> Result<(String, Option<&str>), &'static str> {
    if authority.is_empty() || authority.starts_with(':') {
        return Err("it names no host");
    }
    if let Some(rest) = authority.strip_prefix('[') {
        let (inside, after) = rest.split_once(']').ok_or("its bracket is not closed")?;
        let address: Ipv6Addr =
            inside.parse().map_err(|_| "what stands in brackets is not an IPv6 address")?;
        return match after.strip_prefix(':') {
            None if !after.is_empty() => Err("something other than a port follows its bracket"),
            port => Ok((address.to_string(), port)),
        };
    }
    let (host, port) = match authority.split_once(':') {
        None => (authority, None),
        Some((_, port)) if port.contains(':') => {
            return Err("an IPv6 address stands in brackets: http://[fd00::1]:9000/DIRECTORY");
        }
        Some((host, port)) => (host, Some(port)),
    };
    let named = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if !host.bytes().all(named) {
        return Err("its host holds something that is in no name of a host");
    }
    Ok((host.to_ascii_lowercase(), port))
}

impl fmt::Display for NodeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, host, port) = (self.scheme.name(), &self.host, self.port);
        if host.contains(':') {
            write!(f, "{scheme}://[{host}]:{port}")
        } else {
            write!(f, "{scheme}://{host}:{port}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(authority: &str) -> Result<NodeAddress, &'static str> {
        NodeAddress::parse(Scheme::Http, authority, 9000)
    }

    #[test]
    fn hosts_and_ports() {
        for (authority, shown) in [
            ("node1", "http://node1:9000"),
            ("Node1.Example.COM:80", "http://node1.example.com:80"),
            ("10.0.0.1:9001", "http://10.0.0.1:9001"),
            ("[fd00::1]", "http://[fd00::1]:9000"),
            ("[FD00:0:0::0:1]:9001", "http://[fd00::1]:9001"),
        ] {
            assert_eq!(parse(authority).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn what_names_no_node() {
        for (authority, cause) in [
            ("", "no host"),
            (":9000", "no host"),
            ("n:", "not between"),
            ("n:0", "not between"),
            ("n:65536", "not between"),
            ("n:+1", "not a number"),
            ("n:http", "not a number"),
            ("fd00::1", "in brackets"),
            ("[fd00::1", "not closed"),
            ("[n1]", "not an IPv6 address"),
            ("[fe80::1%eth0]", "not an IPv6 address"),
            ("[fd00::1]9000", "other than a port"),
            ("u@n", "in no name"),
            ("n 1", "in no name"),
        ] {
            let refused = parse(authority).unwrap_err();
            assert!(refused.contains(cause), "{authority}: {refused}");
        }
    }

    #[test]
    fn addresses_resolve_to_themselves() {
        for (authority, address) in [("127.0.0.1:80", "127.0.0.1:80"), ("[::1]", "[::1]:9000")] {
            let address: SocketAddr = address.parse().unwrap();
            assert_eq!(parse(authority).unwrap().resolve().unwrap(), [address]);
        }
    }
}

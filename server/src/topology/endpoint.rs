//! What one argument names, after expansion: a directory of this node, or a drive of some node as
//! a URL.

use std::net::IpAddr;
use std::path::{Component, Path, PathBuf};

use super::node_address::{NodeAddress, Scheme};
use crate::refusal::Refusal;

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Endpoint {
    /// An absolute path. `..` is left in it; what it leads to is compared when it is opened.
    Directory(PathBuf),
    /// An absolute path, without `..`, on a node.
    Url(NodeAddress, PathBuf),
}

impl Endpoint {
    /// `working_directory` is what relative paths begin at, `default_port` that of a URL without one.
    pub fn parse(text: &str, working_directory: &Path, default_port: u16) -> Result<Self, Refusal> {
        match text.split_once("://") {
            Some((scheme, rest)) => url(text, scheme, rest, default_port),
            None if has_lost_its_scheme(text) => Err(Refusal::usage(
                format!("`{text}` is not a drive"),
                "it looks like a URL without its scheme, http or https",
                format!(
                    "name a drive of a node as http://HOST:PORT/DIRECTORY, or a directory of this \
                     node; one that is really called so is `./{text}`"
                ),
            )),
            None => directory(text, working_directory),
        }
    }

    pub fn path(&self) -> &Path {
        match self {
            Self::Directory(path) | Self::Url(_, path) => path,
        }
    }
}

fn directory(text: &str, working_directory: &Path) -> Result<Endpoint, Refusal> {
    // Components, so that `/a//b/` and `/a/./b` are `/a/b`.
    let path: PathBuf = working_directory.join(text).components().collect();
    let names_something = path.components().any(|part| matches!(part, Component::Normal(_)));
    if text.is_empty() || !names_something {
        return Err(Refusal::usage(
            format!("`{text}` cannot be a drive"),
            "a drive is a directory of its own, neither empty text nor the root directory",
            "name a directory, best the mount point of a file system of its own: /mnt/drive1",
        ));
    }
    Ok(Endpoint::Directory(path))
}

fn url(text: &str, scheme: &str, rest: &str, default_port: u16) -> Result<Endpoint, Refusal> {
    let refused = |cause: &str| {
        let remedy = "write it as http://HOST:PORT/DIRECTORY";
        Refusal::usage(format!("`{text}` is not the URL of a drive"), cause, remedy)
    };
    let scheme = match scheme {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        _ => return Err(refused("its scheme is neither http nor https")),
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    if authority.contains('@') || rest.contains(['?', '#', '%']) {
        return Err(refused("it has a user, a query, a fragment or an escaped character"));
    }
    let node = NodeAddress::parse(scheme, authority, default_port).map_err(refused)?;
    let path: PathBuf = Path::new(path).components().collect();
    if path.components().any(|part| matches!(part, Component::ParentDir)) {
        return Err(refused("its path has `..`, and where that leads only its own node knows"));
    }
    if path.file_name().is_none() {
        return Err(refused("its path is empty or the root directory"));
    }
    Ok(Endpoint::Url(node, path))
}

/// `10.0.0.1`, `10.0.0.1:9000/data`, `[::1]:9000/data`, `node1:9000/data`: nobody means a directory.
fn has_lost_its_scheme(text: &str) -> bool {
    let first = text.split('/').next().unwrap_or_default();
    let (host, port) = match first.rsplit_once(':') {
        Some((host, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => {
            (host, true)
        }
        _ => (first, false),
    };
    let unbracketed = host.trim_start_matches('[').trim_end_matches(']');
    let is_address = unbracketed.parse::<IpAddr>().is_ok() || first.parse::<IpAddr>().is_ok();
    is_address || (port && !host.is_empty() && text.contains('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Endpoint, Refusal> {
        Endpoint::parse(text, Path::new("/work"), 9000)
    }

    #[test]
    fn directories_become_absolute_and_plain() {
        for (text, expected) in [
            ("/data", "/data"),
            ("/data/", "/data"),
            ("//data//a/./b", "/data/a/b"),
            ("data", "/work/data"),
            ("./node1:9000/data", "/work/node1:9000/data"),
            ("C:data", "/work/C:data"),
        ] {
            assert_eq!(parse(text).unwrap(), Endpoint::Directory(expected.into()), "{text}");
        }
    }

    #[test]
    fn no_directory() {
        for text in ["", "/", "//", "/.", "/.."] {
            assert!(parse(text).unwrap_err().what.contains("cannot be a drive"), "{text}");
        }
    }

    #[test]
    fn a_lost_scheme_is_noticed() {
        for text in [
            "10.0.0.1",
            "10.0.0.1:9000/data",
            "10.0.0.1/data",
            "[fe80::1]:9000/d",
            "::1",
            "node1:9000/data",
        ] {
            assert!(parse(text).unwrap_err().cause.contains("scheme"), "{text}");
        }
    }

    #[test]
    fn urls() {
        let node = |port| NodeAddress { scheme: Scheme::Https, host: "n1".into(), port };
        for (text, port, path) in [
            ("https://n1:9001/mnt/d1/", 9001, "/mnt/d1"),
            ("https://n1/mnt//./d1", 9000, "/mnt/d1"),
        ] {
            assert_eq!(parse(text).unwrap(), Endpoint::Url(node(port), path.into()), "{text}");
        }
        for (text, cause) in [
            ("ftp://n1/d", "scheme"),
            ("http:///d", "no host"),
            ("http://:9000/d", "no host"),
            ("http://n1", "empty or the root"),
            ("http://n1/", "empty or the root"),
            ("http://u@n1/d", "a user"),
            ("http://n1/d?x", "a query"),
            ("http://n1/d%20x", "an escaped"),
            ("http://n1/a/../d", "`..`"),
            ("http://n1:0/d", "port"),
            ("http://fd00::1/d", "in brackets"),
        ] {
            assert!(parse(text).unwrap_err().cause.contains(cause), "{text}");
        }
    }
}

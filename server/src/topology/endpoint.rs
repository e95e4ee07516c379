//! What one argument names, after expansion: a directory of this node, or a drive of some node as
//! a URL.

use std::net::IpAddr;
use std::path::{Component, Path, PathBuf};

use crate::refusal::Refusal;

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Endpoint {
    /// An absolute path. `..` is left in it; what it leads to is compared when it is opened.
    Directory(PathBuf),
    Url {
        scheme: Scheme,
        /// Host and port as they are written.
        authority: String,
        path: PathBuf,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scheme {
    Http,
    Https,
}

impl Endpoint {
    /// `working_directory` is what relative paths begin at.
    pub fn parse(text: &str, working_directory: &Path) -> Result<Self, Refusal> {
        match text.split_once("://") {
            Some((scheme, rest)) => url(text, scheme, rest),
            None if has_lost_its_scheme(text) => Err(Refusal::usage(
                format!("`{text}` is not a drive"),
                "it looks like a URL without its scheme, http or https",
                format!(
                    "name a directory of this node; one that is really called so is `./{text}`"
                ),
            )),
            None => directory(text, working_directory),
        }
    }

    pub fn path(&self) -> &Path {
        match self {
            Self::Directory(path) | Self::Url { path, .. } => path,
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

fn url(text: &str, scheme: &str, rest: &str) -> Result<Endpoint, Refusal> {
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
    if authority.is_empty() || authority.starts_with(':') {
        return Err(refused("it names no host"));
    }
    if authority.contains('@') || rest.contains(['?', '#']) {
        return Err(refused("it has a user, a query or a fragment"));
    }
    let path: PathBuf = Path::new(path).components().collect();
    if path.file_name().is_none() {
        return Err(refused("its path is empty or the root directory"));
    }
    Ok(Endpoint::Url { scheme, authority: authority.to_owned(), path })
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
        Endpoint::parse(text, Path::new("/work"))
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
        let Endpoint::Url { scheme, authority, path } = parse("https://n1:9000/mnt/d1/").unwrap()
        else {
            panic!("a URL");
        };
        assert_eq!((scheme, authority.as_str()), (Scheme::Https, "n1:9000"));
        assert_eq!(path, Path::new("/mnt/d1"));
        for (text, cause) in [
            ("ftp://n1/d", "scheme"),
            ("http:///d", "no host"),
            ("http://:9000/d", "no host"),
            ("http://n1", "empty or the root"),
            ("http://n1/", "empty or the root"),
            ("http://u@n1/d", "a user"),
            ("http://n1/d?x", "a query"),
        ] {
            assert!(parse(text).unwrap_err().cause.contains(cause), "{text}");
        }
    }
}

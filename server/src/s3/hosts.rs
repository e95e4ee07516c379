//! Virtual-host style: the bucket as the first labels of the host's name, before one of the
//! domains that the operator gave.

use http::HeaderMap;
use http::header::HOST;

/// The domains below which a bucket may be named.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Domains(Vec<String>);

impl Domains {
    /// Names separated by commas; `None` where one of them is no name of a host.
    pub fn parse(text: &str) -> Option<Self> {
        let names: Vec<String> = text
            .split(',')
            .map(|name| name.trim().trim_end_matches('.').to_ascii_lowercase())
            .filter(|name| !name.is_empty())
            .collect();
        let label = |label: &str| {
            !label.is_empty()
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        };
        names.iter().all(|name| name.split('.').all(label)).then_some(Self(names))
    }

    /// The bucket that the host of a request names.
    pub(super) fn bucket(&self, headers: &HeaderMap) -> Option<String> {
        if self.0.is_empty() {
            return None;
        }
        let host = headers.get(HOST)?.to_str().ok()?.to_ascii_lowercase();
        let name = host.rsplit_once(':').map_or(host.as_str(), |(name, _port)| name);
        // Where a domain lies below another one, the longer leaves the shorter bucket.
        let below = |domain: &String| name.strip_suffix(domain.as_str())?.strip_suffix('.');
        let bucket = self.0.iter().filter_map(below).min_by_key(|bucket| bucket.len())?;
        (!bucket.is_empty()).then(|| bucket.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_below_a_domain_names_a_bucket() {
        let domains = Domains::parse("s3.test, eu.s3.test,Other.example.").expect("names");
        let bucket = |host: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, host.parse().expect("a value"));
            domains.bucket(&headers)
        };
        assert_eq!(bucket("photos.s3.test:9000").as_deref(), Some("photos"));
        assert_eq!(bucket("my.photos.s3.test").as_deref(), Some("my.photos"));
        assert_eq!(bucket("Photos.EU.s3.test").as_deref(), Some("photos"));
        assert_eq!(bucket("a.other.example").as_deref(), Some("a"));
        for host in ["s3.test", "s3.test:9000", ".s3.test", "xs3.test", "127.0.0.1:9000", "[::1]:9"]
        {
            assert_eq!(bucket(host), None, "{host}");
        }
    }

    #[test]
    fn domains_are_names() {
        assert_eq!(Domains::parse(""), Some(Domains::default()));
        for wrong in ["a b", "a..b", "http://a", "a/b", "*.a"] {
            assert_eq!(Domains::parse(wrong), None, "{wrong}");
        }
    }
}

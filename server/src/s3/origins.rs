//! Browsers on pages of other origins: which may ask, and what they are told. A bucket's own rules
//! (`cors`) count where it has some, else those that the operator set for the server. No answer
//! depends on cookies, so an origin that is let in learns nothing that a signature does not give it.

use basalt_engine::seam::Runtime;
use basalt_net::mailbox::Mailbox;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderMap, Method, StatusCode, Uri};

use super::answer::{self, Answer};
use super::configuration::Configuration;
use super::cors::{METHODS, Rules, Wish, fits};
use super::error::{Code, Failure};
use super::request::check_bucket_name;
use super::target::Target;
use super::{Domains, Server};
use crate::object::Error;

/// How long a browser may remember what it was told, in seconds.
const MAX_AGE: &str = "600";

/// The origins that may ask: patterns in which one star stands for anything.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Origins(Vec<String>);

impl Default for Origins {
    fn default() -> Self {
        Self::parse("*")
    }
}

impl Origins {
    /// Patterns separated by commas.
    pub fn parse(text: &str) -> Self {
        let patterns = text.split(',').map(str::trim).filter(|pattern| !pattern.is_empty());
        Self(patterns.map(str::to_owned).collect())
    }

    fn allow(&self, origin: &str) -> bool {
        self.0.iter().any(|pattern| fits(pattern, origin))
    }
}

/// A page of another origin that asks.
pub(super) struct Page {
    origin: String,
    /// Of a preflight the one that it is about, where it names one.
    method: Option<String>,
    is_preflight: bool,
    /// The headers that a preflight asks for.
    headers: Option<String>,
    bucket: Option<String>,
}

impl Page {
    /// `None` where the request is of no page, or of one of the server's own origin.
    pub(super) fn of(
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        domains: &Domains,
    ) -> Option<Self> {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let origin = text(ORIGIN)?.to_owned();
        let is_preflight = *method == Method::OPTIONS;
        let (method, names) = match is_preflight {
            true => (text(ACCESS_CONTROL_REQUEST_METHOD), text(ACCESS_CONTROL_REQUEST_HEADERS)),
            false => (Some(method.as_str()), None),
        };
        let target = match domains.bucket(headers) {
            Some(bucket) => Target::hosted(bucket, uri.path(), None),
            None => Target::parse(uri.path(), None),
        };
        // What names no bucket goes by the server's rules; it fails for its own reasons.
        let bucket = target.ok().and_then(|target| target.bucket);
        let bucket = bucket.filter(|name| check_bucket_name(name).is_ok());
        let (method, headers) = (method.map(str::to_owned), names.map(str::to_owned));
        Some(Self { origin, method, is_preflight, headers, bucket })
    }

    fn wish(&self) -> Option<Wish<'_>> {
        let method = self.method.as_deref()?;
        Some(Wish { origin: &self.origin, method, headers: self.headers.as_deref() })
    }
}

impl<M: Mailbox, R: Runtime> Server<M, R> {
    /// A browser's question before a request; it is not signed.
    pub(super) async fn preflight(&self, page: Option<&Page>) -> Result<Answer<M, R>, Failure> {
        let Some((page, wish)) = page.and_then(|page| Some((page, page.wish()?))) else {
            let text = "A preflight request needs Origin and Access-Control-Request-Method.";
            return Err(Failure::new(Code::BadRequest, text));
        };
        let is_allowed = match self.rules(page).await? {
            Some(rules) => rules.find(wish).is_some(),
            None => self.inner.origins.allow(wish.origin) && METHODS.contains(&wish.method),
        };
        if !is_allowed {
            let text = "This origin may not ask for that method with those headers.";
            return Err(Failure::new(Code::AccessForbidden, text));
        }
        // What the page may do is told by `open_to_page`, as for every answer.
        Ok(answer::empty(StatusCode::OK))
    }

    /// Lets a page read the answer, where the rules of the bucket or the server let it.
    pub(super) async fn open_to_page(&self, answer: &mut Answer<M, R>, page: &Page) {
        let Some(wish) = page.wish() else { return };
        match self.rules(page).await {
            Ok(Some(rules)) => {
                if let Some(rule) = rules.find(wish) {
                    rule.open(answer, wish);
                }
            }
            Ok(None) if self.inner.origins.allow(wish.origin) => {
                open_with_all_headers(answer, page)
            }
            Ok(None) => {}
            // Nothing is opened by rules that nobody could read.
            Err(failure) => tracing::debug!(message = %failure.message, "no CORS rules were read"),
        }
    }

    /// Those of the bucket, where it is there and has some.
    async fn rules(&self, page: &Page) -> Result<Option<Rules>, Failure> {
        let Some(bucket) = &page.bucket else { return Ok(None) };
        let which = Configuration::Cors;
        match self.store().bucket_setting(bucket, which.setting()).await {
            Ok(None) => Ok(None),
            Ok(Some(kept)) => Rules::parse(&kept).map(Some).map_err(|_| which.unreadable()),
            Err(Error::NoSuchBucket) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Lets a page read the answer, with all of its headers.
fn open_with_all_headers<M: Mailbox, R: Runtime>(answer: &mut Answer<M, R>, page: &Page) {
    if page.is_preflight && answer.status() == StatusCode::OK {
        answer::set(
            answer,
            ACCESS_CONTROL_ALLOW_METHODS,
            page.method.as_deref().unwrap_or_default(),
        );
        if let Some(names) = &page.headers {
            answer::set(answer, ACCESS_CONTROL_ALLOW_HEADERS, names);
        }
        answer::set(answer, ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    }
    let names: Vec<&str> = answer.headers().keys().map(http::HeaderName::as_str).collect();
    let names = names.join(", ");
    answer::set(answer, ACCESS_CONTROL_EXPOSE_HEADERS, &names);
    answer::set(answer, ACCESS_CONTROL_ALLOW_ORIGIN, &page.origin);
    answer::set(answer, ACCESS_CONTROL_ALLOW_CREDENTIALS, "true");
    answer::set(answer, VARY, "Origin");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_matched_by_pattern() {
        let origins = Origins::parse("https://a.example, https://*.b.example,http://localhost:*");
        for origin in ["https://a.example", "https://x.b.example", "http://localhost:3000"] {
            assert!(origins.allow(origin), "{origin}");
        }
        for origin in ["https://a.example.evil", "http://a.example", "https://b.example", ""] {
            assert!(!origins.allow(origin), "{origin}");
        }
        assert!(Origins::default().allow("null"));
        assert!(!Origins::parse("").allow("https://a.example"));
    }
}

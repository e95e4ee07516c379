//! Browsers on pages of other origins: which may ask, and what they are told. No answer depends on
//! cookies, so an origin that is let in learns nothing that a signature does not give it.

use basalt_engine::seam::Runtime;
use basalt_net::mailbox::Mailbox;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderMap, StatusCode};

use super::answer::{self, Answer};
use super::error::{Code, Failure};

const METHODS: [&str; 5] = ["GET", "HEAD", "PUT", "POST", "DELETE"];
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
        self.0.iter().any(|pattern| match pattern.split_once('*') {
            None => pattern == origin,
            Some((start, end)) => {
                origin.len() >= start.len() + end.len()
                    && origin.starts_with(start)
                    && origin.ends_with(end)
            }
        })
    }

    /// The origin of a request, where it has one and that one may ask.
    pub(super) fn allowed(&self, headers: &HeaderMap) -> Option<String> {
        let origin = headers.get(ORIGIN)?.to_str().ok()?;
        self.allow(origin).then(|| origin.to_owned())
    }

    /// A browser's question before a request; it is not signed.
    pub(super) fn preflight<M: Mailbox, R: Runtime>(
        &self,
        headers: &HeaderMap,
    ) -> Result<Answer<M, R>, Failure> {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let (Some(_), Some(method)) = (text(ORIGIN), text(ACCESS_CONTROL_REQUEST_METHOD)) else {
            let text = "A preflight request needs Origin and Access-Control-Request-Method.";
            return Err(Failure::new(Code::BadRequest, text));
        };
        if self.allowed(headers).is_none() || !METHODS.contains(&method) {
            let text = "This origin may not ask for that method.";
            return Err(Failure::new(Code::AccessForbidden, text));
        }
        let mut answer = answer::empty(StatusCode::OK);
        answer::set(&mut answer, ACCESS_CONTROL_ALLOW_METHODS, method);
        if let Some(names) = text(ACCESS_CONTROL_REQUEST_HEADERS) {
            answer::set(&mut answer, ACCESS_CONTROL_ALLOW_HEADERS, names);
        }
        answer::set(&mut answer, ACCESS_CONTROL_MAX_AGE, MAX_AGE);
        Ok(answer)
    }
}

/// Lets a page of `origin` read the answer, with all of its headers.
pub(super) fn open_to<M: Mailbox, R: Runtime>(answer: &mut Answer<M, R>, origin: &str) {
    let names: Vec<&str> = answer.headers().keys().map(http::HeaderName::as_str).collect();
    let names = names.join(", ");
    answer::set(answer, ACCESS_CONTROL_EXPOSE_HEADERS, &names);
    answer::set(answer, ACCESS_CONTROL_ALLOW_ORIGIN, origin);
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
        assert!(!Origins::parse("ab*ba").allow("aba"), "the star stands for none of the ends");
    }
}

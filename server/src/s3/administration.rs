//! What administrators ask, below `/minio/admin/`: root's requests only, answered and refused in JSON.

use basalt_engine::seam::Runtime;
use basalt_net::mailbox::Mailbox;
use http::{HeaderMap, Method, Uri};

use super::Server;
use super::answer::{self, Answer};
use super::auth::Head;
use super::error::{Code, Failure};
use super::target::Target;
use crate::admin::{self, Asked};

impl<M: Mailbox, R: Runtime> Server<M, R> {
    /// Where the host names a bucket, the path is a key.
    pub(super) fn is_administration(&self, uri: &Uri, headers: &HeaderMap) -> bool {
        uri.path().starts_with(admin::PREFIX) && self.inner.domains.bucket(headers).is_none()
    }

    pub(super) async fn administer(
        &self,
        (method, uri): (&Method, &Uri),
        headers: &HeaderMap,
        now_ms: u64,
    ) -> Result<Answer<M, R>, Failure> {
        let asked = Asked::of(method.as_str(), uri.path());
        // Clients learn from it which version to speak, before they can know that they may.
        if let Asked::OtherVersion(version) = asked {
            let spoken = admin::VERSION;
            let text = format!("The admin API is spoken in version {spoken}, not in {version:?}.");
            return Err(Failure::new(Code::AdminVersionMismatch, text));
        }
        let target = Target::parse(uri.path(), uri.query())?;
        let head = Head { method: method.as_str(), target: &target, headers };
        self.inner.gate.check_administrator(&head, now_ms)?;
        match asked {
            Asked::Known(question) => Ok(answer::json((self.inner.admin)(question).await?)),
            Asked::Unknown | Asked::OtherVersion(_) => {
                let what = format!("The admin operation {method} {}", uri.path());
                Err(Failure::not_implemented(&what))
            }
        }
    }

    pub(super) fn administrators_refusal(
        &self,
        failure: &Failure,
        path: &str,
        request_id: &str,
    ) -> Answer<M, R> {
        let (code, message) = (failure.code.name(), &failure.message);
        tracing::debug!(path, request_id, code, %message);
        let mut answer = answer::json(failure.json(path, request_id, &self.inner.host_id));
        *answer.status_mut() = failure.code.status();
        answer
    }
}

#[cfg(test)]
mod tests;

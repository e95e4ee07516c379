//! What monitoring asks, below the reserved name `minio`: health, which is anybody's, and metrics, which
//! are anybody's where the operator says so and otherwise those of a bearer of root's token.

use basalt_engine::seam::Runtime;
use basalt_net::mailbox::Mailbox;
use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderMap, Method, StatusCode, Uri};

use super::answer::{self, Answer};
use super::error::Failure;
use super::{HEALTH_BUCKET, Server};

/// What a health question asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// The process serves.
    Live,
    /// It can take requests.
    Ready,
    /// Every set can be written.
    Cluster,
    /// Every set can be written without this node.
    ClusterWithoutNode,
    /// Every set can be read.
    ClusterRead,
}

/// The answer to a health question.
#[derive(Clone, Debug, Default)]
pub struct HealthAnswer {
    pub is_good: bool,
    /// What monitoring reads, by header.
    pub headers: Vec<(&'static str, String)>,
}

/// The pages of metrics, as MinIO divides them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricsPage {
    Cluster,
    Node,
    Bucket,
    Resource,
}

/// What monitoring asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    Health(Health),
    Metrics(MetricsPage),
}

impl Question {
    pub(super) fn of(method: &Method, uri: &Uri) -> Option<Self> {
        let below_root = uri.path().strip_prefix('/')?;
        let question = below_root.strip_prefix(HEALTH_BUCKET)?;
        if method != Method::GET && method != Method::HEAD {
            return None;
        }
        let has_maintenance = || {
            let mut pairs = uri.query().unwrap_or_default().split('&');
            pairs.any(|pair| pair == "maintenance=true")
        };
        Some(match question {
            "/health/live" => Self::Health(Health::Live),
            "/health/ready" => Self::Health(Health::Ready),
            "/health/cluster" if has_maintenance() => Self::Health(Health::ClusterWithoutNode),
            "/health/cluster" => Self::Health(Health::Cluster),
            "/health/cluster/read" => Self::Health(Health::ClusterRead),
            // Where Prometheus was pointed to before the pages had versions.
            "/v2/metrics/cluster" | "/prometheus/metrics" => Self::Metrics(MetricsPage::Cluster),
            "/v2/metrics/node" => Self::Metrics(MetricsPage::Node),
            "/v2/metrics/bucket" => Self::Metrics(MetricsPage::Bucket),
            "/v2/metrics/resource" => Self::Metrics(MetricsPage::Resource),
            _ => return None,
        })
    }
}

impl<M: Mailbox, R: Runtime> Server<M, R> {
    pub(super) async fn tell(
        &self,
        question: Question,
        headers: &HeaderMap,
        now_ms: u64,
    ) -> Result<Answer<M, R>, Failure> {
        match question {
            Question::Health(health) => Ok(self.health(health)),
            Question::Metrics(page) => {
                if !self.inner.metrics.are_public {
                    self.inner.gate.check_bearer(headers, now_ms)?;
                }
                let mut answer = answer::text((self.inner.metrics.page)(page).await);
                answer::set(&mut answer, CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8");
                Ok(answer)
            }
        }
    }

    fn health(&self, health: Health) -> Answer<M, R> {
        let told = (self.inner.health)(health);
        let mut answer = answer::empty(match (told.is_good, health) {
            (true, _) => StatusCode::OK,
            (false, Health::ClusterWithoutNode) => StatusCode::PRECONDITION_FAILED,
            (false, _) => StatusCode::SERVICE_UNAVAILABLE,
        });
        answer::set(&mut answer, CONTENT_TYPE, "text/plain");
        for (name, value) in told.headers {
            answer::set(&mut answer, HeaderName::from_static(name), &value);
        }
        answer
    }
}

#[cfg(test)]
mod tests;

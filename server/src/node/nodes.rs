//! The nodes of the deployment as one core sees them: which it is connected to, and what they say of
//! themselves when an operator asks.

use std::pin::pin;
use std::time::Duration;

use basalt_engine::runtime::GlommioRuntime;
use basalt_engine::seam::{Clock, Moment};
use basalt_net::node::NodeIndex;
use basalt_net::wire::message::{Call, CallAnswer, Description};
use futures_util::future::{Either, join_all, select};

use super::NodePeers;

/// How long a node may take to say how it is.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub(crate) struct Nodes {
    runtime: GlommioRuntime,
    began: Moment,
    this: NodeIndex,
    /// `None`: there is no other node.
    peers: Option<NodePeers>,
}

/// How a node is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum NodeState {
    Serving(Description),
    /// It runs, and does not serve yet.
    Starting,
    /// It is not connected, or says nothing.
    Away,
}

impl Nodes {
    /// This node serves from now on.
    pub(super) fn new(runtime: &GlommioRuntime, this: NodeIndex, peers: Option<NodePeers>) -> Self {
        Self { runtime: runtime.clone(), began: runtime.now(), this, peers }
    }

    pub(crate) fn is_connected(&self, node: NodeIndex) -> bool {
        node == self.this || self.peers.as_ref().is_some_and(|peers| peers.is_connected(node))
    }

    /// What this node says of itself.
    pub(super) fn describe(&self) -> Description {
        let connected = self.peers.as_ref().map_or_else(Vec::new, |peers| {
            peers.others().filter(|node| peers.is_connected(*node)).collect()
        });
        Description {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            up_seconds: self.runtime.now().since(self.began).as_secs(),
            connected,
        }
    }

    /// How each of these nodes is.
    pub(crate) async fn ask(&self, nodes: impl Iterator<Item = NodeIndex>) -> Vec<NodeState> {
        join_all(nodes.map(|node| self.ask_one(node))).await
    }

    async fn ask_one(&self, node: NodeIndex) -> NodeState {
        if node == self.this {
            return NodeState::Serving(self.describe());
        }
        let Some(peers) = &self.peers else { return NodeState::Away };
        let answer = pin!(peers.call(node, &Call::Describe));
        let limit = pin!(self.runtime.sleep(PATIENCE));
        match select(answer, limit).await {
            Either::Left((Some(CallAnswer::Description(of)), _)) => NodeState::Serving(of),
            Either::Left((Some(CallAnswer::Refused(_)), _)) => NodeState::Starting,
            Either::Left(_) | Either::Right(_) => NodeState::Away,
        }
    }
}

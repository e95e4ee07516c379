//! The accepting end of a connection between nodes: trust first, then requests to the drives of this
//! node, and calls to the node itself.
//!
//! Invariant: nothing beyond the handshake is read of a connection that has not proved the secret.

use std::rc::Rc;
use std::time::Duration;

use basalt_engine::seam::Runtime;
use futures_util::future::{Either, LocalBoxFuture, select};

use crate::link::{End, Frame, Link, Stream, read_exact, write_all};
use crate::mailbox::Replies;
use crate::node::NodeIndex;
use crate::wire::Malformed;
use crate::wire::frame::Kind;
use crate::wire::handshake::{Accepting, Agreed, HELLO_BYTES, Identity, PROOF_BYTES, Refusal};
use crate::wire::message::{Asked, Call, CallAnswer, pack_call_answer};

/// How long a handshake may take.
pub(crate) const HANDSHAKE: Duration = Duration::from_secs(2);

/// What a node does for its peers.
pub trait Service: 'static {
    /// Requests to drives of this node; those to any other drive are answered as unavailable.
    fn ask(&self, asked: Asked) -> Replies;
    fn call(&self, from: NodeIndex, call: Call) -> LocalBoxFuture<'static, CallAnswer>;
}

/// Why a connection was not, or is no longer, served.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    #[error("{0}")]
    Refused(#[from] Refusal),
    #[error("the handshake failed: {0}")]
    Handshake(std::io::Error),
    #[error("{0}")]
    Lost(End),
}

/// Serves a connection until it ends, and drops `untrusted` when it has proved the secret. Says who it
/// was, where that was found out.
pub async fn serve<R: Runtime, S: Stream>(
    runtime: R,
    stream: S,
    identity: Identity,
    credit_bytes: u32,
    service: Rc<impl Service>,
    untrusted: impl Sized,
) -> (Option<NodeIndex>, Ended) {
    let shaking = std::pin::pin!(shake(&runtime, &stream, identity, credit_bytes));
    let limit = std::pin::pin!(runtime.sleep(HANDSHAKE));
    let shaken = match select(shaking, limit).await {
        Either::Left((shaken, _)) => shaken,
        Either::Right(_) => Err(Ended::Handshake(std::io::ErrorKind::TimedOut.into())),
    };
    match shaken {
        Ok(agreed) => {
            drop(untrusted);
            let end = serve_trusted(&runtime, &stream, agreed, service).await;
            (Some(agreed.peer), Ended::Lost(end))
        }
        Err(ended) => (None, ended),
    }
}

async fn shake<R: Runtime, S: Stream>(
    runtime: &R,
    stream: &S,
    identity: Identity,
    credit_bytes: u32,
) -> Result<Agreed, Ended> {
    let mut hello = [0; HELLO_BYTES];
    read_exact(stream, &mut hello).await.map_err(Ended::Handshake)?;
    let wall_ms = runtime.wall().0;
    let nonce = draw_nonce(runtime);
    let (challenge, accepting) = Accepting::hello(identity, &hello, wall_ms, nonce, credit_bytes);
    write_all(stream, &challenge).await.map_err(Ended::Handshake)?;
    let accepting = accepting?;
    let mut proof = [0; PROOF_BYTES];
    read_exact(stream, &mut proof).await.map_err(Ended::Handshake)?;
    let (welcome, agreed) = accepting.proved(&proof);
    write_all(stream, &welcome).await.map_err(Ended::Handshake)?;
    Ok(agreed?)
}

pub(crate) fn draw_nonce(runtime: &impl Runtime) -> [u8; 32] {
    let mut nonce = [0; 32];
    for half in nonce.chunks_exact_mut(16) {
        half.copy_from_slice(&runtime.random_u128().to_le_bytes());
    }
    nonce
}

async fn serve_trusted<R: Runtime, S: Stream>(
    runtime: &R,
    stream: &S,
    agreed: Agreed,
    service: Rc<impl Service>,
) -> End {
    let link = Link::new(runtime.clone(), agreed.version);
    let answers = link.clone();
    let take = |frame| match frame {
        Frame::Ask(asked) => {
            let (ticket, link) = (asked.ticket, answers.clone());
            let mut replies = service.ask(asked);
            runtime.spawn(async move {
                while let Some((drive, reply)) = replies.next().await {
                    link.answer(ticket, drive, reply);
                }
            });
            Ok(())
        }
        Frame::Call(number, call) => {
            let (answer, link) = (service.call(agreed.peer, call), answers.clone());
            runtime.spawn(async move {
                link.send(Kind::CallAnswer, pack_call_answer(number, &answer.await));
            });
            Ok(())
        }
        Frame::Answers(_) | Frame::CallAnswer(..) => {
            Err(Malformed("an answer to nothing that was asked"))
        }
    };
    link.run(stream, take).await
}

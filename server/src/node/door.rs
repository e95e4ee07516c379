//! Who comes in: listening on a core, telling peers from clients, limits on connections, and closing.

use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use basalt_engine::runtime::GlommioRuntime;
use basalt_engine::runtime::net::{Listener, TcpStream};
use basalt_engine::seam::{Clock, Spawn};
use basalt_net::link::Stream;
use basalt_net::service;
use basalt_net::wire::handshake::Identity;

use super::peering::{Caller, Serving};
use super::secure::Acceptor;
use super::stream::HttpStream;
use super::{CoreServer, NodeConfig};

/// Connections that one core serves at the same time, and how many more it tells to come later;
/// what comes on top of those is closed at once.
const CONNECTIONS_MAX: usize = 4096;
const TURNED_AWAY_MAX: usize = 256;
/// How long requests may take to finish when the node stops.
const DRAIN: Duration = Duration::from_secs(30);
/// Between two looks at whether all connections are closed.
const DRAIN_LOOK: Duration = Duration::from_millis(20);

/// What this core does for other nodes.
#[derive(Clone)]
pub(super) struct ForPeers {
    pub(super) identity: Identity,
    pub(super) credit_bytes: u32,
    pub(super) serving: Rc<Serving>,
}

/// Serves whoever comes in on one core.
#[derive(Clone)]
pub(super) struct Door<F> {
    runtime: GlommioRuntime,
    server: CoreServer,
    peers: Option<ForPeers>,
    acceptor: Option<Acceptor>,
    stopped: F,
    clients: Rc<Cell<usize>>,
}

impl<F: Future<Output = ()> + Clone + 'static> Door<F> {
    pub(super) fn new(
        runtime: &GlommioRuntime,
        config: &NodeConfig,
        server: CoreServer,
        peers: Option<ForPeers>,
        stopped: F,
    ) -> std::io::Result<Self> {
        let certificates = config.certificates.as_ref();
        let acceptor = certificates.map(|found| Acceptor::watch(runtime, found)).transpose();
        let acceptor = acceptor.map_err(std::io::Error::other)?;
        let (runtime, clients) = (runtime.clone(), Rc::default());
        Ok(Self { runtime, server, peers, acceptor, stopped, clients })
    }

    /// Listens for clients, and for peers unless they have an address of their own.
    pub(super) fn listen(&self, address: SocketAddr) -> std::io::Result<()> {
        let listener = Listener::bind(&self.runtime, address)?;
        let (door, spawner) = (self.clone(), self.runtime.clone());
        listener.serve(&self.runtime, move |stream| {
            let client = Counted::of(&door.clients);
            let admission = Admission::of(door.clients.get());
            if admission != Admission::Closed {
                let door = door.clone();
                let entering = async move { door.enter(stream, admission, client).await };
                spawner.spawn(entering);
            }
        });
        Ok(())
    }

    /// Listens for peers alone.
    pub(super) fn listen_for_peers(&self, address: SocketAddr) -> std::io::Result<()> {
        let listener = Listener::bind(&self.runtime, address)?;
        let door = self.clone();
        listener.serve(&self.runtime, move |stream| {
            let door = door.clone();
            door.runtime.clone().spawn(async move {
                match &door.acceptor {
                    None => door.serve_peer(Caller::peer(stream), ()).await,
                    Some(acceptor) => {
                        if let Some(stream) = acceptor.accept(stream).await {
                            door.serve_peer(stream.for_peer(), ()).await;
                        }
                    }
                }
            });
        });
        Ok(())
    }

    /// `client` counts it among the clients, until it has proved to be a peer.
    async fn enter(self, stream: TcpStream, admission: Admission, client: Counted) {
        let from = stream.peer_address().ip();
        match (&self.acceptor, &self.peers) {
            (Some(acceptor), peers) => match acceptor.accept(stream).await {
                Some(stream) if peers.is_some() && stream.is_of_peer() => {
                    self.serve_peer(stream.for_peer(), client).await;
                }
                Some(stream) => self.serve_client(stream, admission, from).await,
                None => {}
            },
            (None, Some(_)) => match Caller::of(&self.runtime, stream).await {
                Caller::Peer(stream) => self.serve_peer(stream, client).await,
                Caller::Client(stream) => self.serve_client(stream, admission, from).await,
                Caller::Nobody => {}
            },
            (None, None) => self.serve_client(HttpStream::new(stream), admission, from).await,
        }
    }

    async fn serve_client(
        &self,
        stream: impl hyper::rt::Read + hyper::rt::Write + Unpin + 'static,
        admission: Admission,
        from: IpAddr,
    ) {
        let stopped = self.stopped.clone();
        match admission {
            Admission::Served => self.server.serve_connection(stream, from, stopped).await,
            Admission::TurnedAway | Admission::Closed => {
                self.server.turn_away(stream, stopped).await;
            }
        }
    }

    /// Until it is trusted, it counts as what `untrusted` counts.
    async fn serve_peer(&self, stream: impl Stream, untrusted: impl Sized) {
        let Some(peers) = self.peers.clone() else { return };
        let ForPeers { identity, credit_bytes, serving } = peers;
        let runtime = self.runtime.clone();
        let (peer, ended) =
            service::serve(runtime, stream, identity, credit_bytes, serving, untrusted).await;
        match (peer, ended) {
            (Some(peer), ended) => tracing::debug!(?peer, %ended, "a peer's connection ended"),
            (None, ended) => tracing::warn!(%ended, "a node was refused as a peer"),
        }
    }

    /// Waits until the connections of clients are closed, but not for ever.
    pub(super) async fn drain(&self) {
        let deadline = self.runtime.now().plus(DRAIN);
        while self.clients.get() > 0 {
            if self.runtime.now() >= deadline {
                let open = self.clients.get();
                tracing::warn!(open, "connections cut off: they did not finish in time");
                return;
            }
            self.runtime.sleep(DRAIN_LOOK).await;
        }
    }
}

/// One of what is counted, for as long as it is held.
struct Counted(Rc<Cell<usize>>);

impl Counted {
    fn of(count: &Rc<Cell<usize>>) -> Self {
        count.set(count.get() + 1);
        Self(count.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// What becomes of a new connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Admission {
    Served,
    TurnedAway,
    Closed,
}

impl Admission {
    /// `open` counts the connections of the core, the new one included.
    fn of(open: usize) -> Self {
        match open {
            _ if open <= CONNECTIONS_MAX => Self::Served,
            _ if open <= CONNECTIONS_MAX + TURNED_AWAY_MAX => Self::TurnedAway,
            _ => Self::Closed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_beyond_the_limit_are_told_and_then_closed() {
        assert_eq!(Admission::of(CONNECTIONS_MAX), Admission::Served);
        assert_eq!(Admission::of(CONNECTIONS_MAX + 1), Admission::TurnedAway);
        assert_eq!(Admission::of(CONNECTIONS_MAX + TURNED_AWAY_MAX), Admission::TurnedAway);
        assert_eq!(Admission::of(CONNECTIONS_MAX + TURNED_AWAY_MAX + 1), Admission::Closed);
    }
}

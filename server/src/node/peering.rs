//! The ends of connections between nodes, as this node has them: how it reaches the others, and what it
//! does for them.
//!
//! A peer comes to the address of clients, unless there is one for peers; its first byte tells it from
//! a client ([`Caller`]).

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use basalt_engine::request::{Reply, Request};
use basalt_engine::runtime::GlommioRuntime;
use basalt_engine::runtime::net::{self, TcpStream};
use basalt_engine::seam::Clock;
use basalt_engine::units::{DeploymentId, DriveIndex, SetIndex};
use basalt_net::cores::CoreMailbox;
use basalt_net::link::Stream;
use basalt_net::mailbox::Replies;
use basalt_net::node::NodeIndex;
use basalt_net::peers::Dial;
use basalt_net::service::Service;
use basalt_net::wire::handshake::{Identity, MAGIC, Secret};
use basalt_net::wire::message::{Asked, Call, CallAnswer, SeatFound, Standing};
use futures_util::FutureExt;
use futures_util::future::{Either, LocalBoxFuture, join_all, select};
use rustls::ClientConfig;

use super::bay::DirectoryBay;
use super::drives::Drive;
use super::formation::{self, Found};
use super::host::Bay;
use super::nodes::Nodes;
use super::secure::{SecurePeer, SecureStream};
use super::stream::HttpStream;
use crate::cluster::Cluster;
use crate::tls::{Certificates, Stamp};

/// How long one address of a node may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(1);
/// How long a connection may stay without a byte until it is known whose it is.
const FIRST_WORD: Duration = Duration::from_secs(30);
/// Taken off a connection to find that out.
const FIRST_BYTES: usize = 4096;
/// Bytes that a peer may have sent on one lane and not have had answered.
const CREDIT_BYTES: (u64, u64) = (4 << 20, 32 << 20);

/// What this node says of itself to others.
pub(super) fn identity(cluster: &Cluster, deployment: Option<DeploymentId>) -> Identity {
    Identity {
        this: cluster.this,
        topology: cluster.topology_hash,
        deployment,
        secret: Secret::new(cluster.peer_key),
    }
}

/// What each lane of another node is granted, of a core's memory for payload.
pub(super) fn credit_bytes(cluster: &Cluster, arena_bytes: u64) -> u32 {
    let lanes = 2 * cluster.nodes.len() as u64;
    let share = (arena_bytes / 4 / lanes).clamp(CREDIT_BYTES.0, CREDIT_BYTES.1);
    u32::try_from(share).expect("at most 32 MiB")
}

/// A connection without TLS, and what was taken off it before it was known whose it is.
pub(super) struct PeerStream {
    stream: TcpStream,
    first: RefCell<Vec<u8>>,
    taken: Cell<usize>,
}

impl PeerStream {
    fn new(stream: TcpStream, first: Vec<u8>) -> Self {
        Self { stream, first: RefCell::new(first), taken: Cell::new(0) }
    }
}

impl Stream for PeerStream {
    async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let taken = self.taken.get();
        let count = {
            let first = self.first.borrow();
            let count = (first.len() - taken).min(buffer.len());
            buffer[..count].copy_from_slice(&first[taken..taken + count]);
            count
        };
        if count > 0 {
            self.taken.set(taken + count);
            return Ok(count);
        }
        self.stream.read(buffer).await
    }

    async fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        std::future::poll_fn(|context| self.stream.poll_write_vectored(context, slices)).await
    }
}

/// Whose a connection is, by its first byte.
pub(super) enum Caller {
    Peer(PeerStream),
    Client(HttpStream),
    /// It said nothing.
    Nobody,
}

impl Caller {
    pub(super) async fn of(runtime: &GlommioRuntime, stream: TcpStream) -> Self {
        let mut first = vec![0; FIRST_BYTES];
        let count = {
            let reading = std::pin::pin!(stream.read(&mut first));
            let limit = std::pin::pin!(runtime.sleep(FIRST_WORD));
            match select(reading, limit).await {
                Either::Left((Ok(count), _)) => count,
                Either::Left((Err(_), _)) | Either::Right(_) => 0,
            }
        };
        first.truncate(count);
        match first.first() {
            None => Self::Nobody,
            Some(byte) if *byte == MAGIC[0] => Self::Peer(PeerStream::new(stream, first)),
            Some(_) => Self::Client(HttpStream::after(stream, first)),
        }
    }

    /// Of a connection to the address for peers.
    pub(super) fn peer(stream: TcpStream) -> PeerStream {
        PeerStream::new(stream, Vec::new())
    }
}

/// Reaches the other nodes.
pub(super) struct NodeDial {
    cluster: Rc<Cluster>,
    certificates: Option<Certificates>,
    /// What was made of the certificates, and of which files: reading all that a machine trusts takes
    /// long.
    loaded: RefCell<Option<(Stamp, Arc<ClientConfig>)>>,
}

impl NodeDial {
    pub(super) fn new(cluster: Rc<Cluster>, certificates: Option<Certificates>) -> Self {
        Self { cluster, certificates, loaded: RefCell::default() }
    }

    fn client_config(&self, certificates: &Certificates) -> io::Result<Arc<ClientConfig>> {
        let now = certificates.stamp();
        let mut loaded = self.loaded.borrow_mut();
        if let Some((stamp, config)) = &*loaded
            && *stamp == now
        {
            return Ok(Arc::clone(config));
        }
        let config = certificates.load_for_peers().map_err(io::Error::other)?;
        *loaded = Some((now, Arc::clone(&config)));
        Ok(config)
    }
}

impl Dial for NodeDial {
    type Stream = ToPeer;

    async fn dial(&self, to: NodeIndex) -> io::Result<ToPeer> {
        let address = self.cluster.peer(to);
        let mut trouble = io::Error::from(io::ErrorKind::NotFound);
        for found in net::resolve(&address.host, address.port).await? {
            let stream = match TcpStream::connect(found, CONNECT).await {
                Ok(stream) => stream,
                Err(error) => {
                    trouble = error;
                    continue;
                }
            };
            let Some(certificates) = &self.certificates else {
                return Ok(ToPeer::Plain(Caller::peer(stream)));
            };
            let config = self.client_config(certificates)?;
            let stream = SecureStream::connect(stream, config, &address.host).await?;
            return Ok(ToPeer::Secure(Box::new(stream.for_peer())));
        }
        Err(trouble)
    }

    fn name(&self, of: NodeIndex) -> String {
        self.cluster.nodes[usize::from(of.0)].to_string()
    }
}

/// A connection that this node made.
pub(super) enum ToPeer {
    Plain(PeerStream),
    Secure(Box<SecurePeer>),
}

impl Stream for ToPeer {
    async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer).await,
            Self::Secure(stream) => stream.read(buffer).await,
        }
    }

    async fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(slices).await,
            Self::Secure(stream) => stream.write(slices).await,
        }
    }
}

/// A seat of this node, and the drive that should stand there.
pub(super) type OwnSeats = Vec<(SetIndex, DriveIndex, Drive)>;

/// What a node that serves does for its peers.
pub(super) struct Serving {
    pub(super) runtime: GlommioRuntime,
    pub(super) mailbox: CoreMailbox,
    pub(super) deployment: DeploymentId,
    pub(super) seats: Rc<OwnSeats>,
    pub(super) nodes: Nodes,
}

impl Service for Serving {
    fn ask(&self, asked: Asked) -> Replies {
        self.mailbox.send_to_own(asked.set, asked.requests)
    }

    fn call(&self, _from: NodeIndex, call: Call) -> LocalBoxFuture<'static, CallAnswer> {
        match call {
            Call::Identify { .. } => {
                let looks = (0..self.seats.len()).map(|seat| self.look(seat)).collect::<Vec<_>>();
                async move { CallAnswer::Seats(join_all(looks).await) }.boxed_local()
            }
            Call::Format { .. } | Call::Mark { .. } => {
                let refused = CallAnswer::Refused("this node serves already".to_owned());
                std::future::ready(refused).boxed_local()
            }
            Call::Describe => {
                let description = CallAnswer::Description(self.nodes.describe());
                std::future::ready(description).boxed_local()
            }
        }
    }
}

impl Serving {
    /// What stands at one of this node's seats: the drive that is open there says it itself.
    fn look(&self, seat: usize) -> impl Future<Output = SeatFound> + use<> {
        let (set, position, drive) = self.seats[seat].clone();
        let (runtime, deployment) = (self.runtime.clone(), self.deployment);
        let mut replies = self.mailbox.send_to_own(set, vec![(position, Request::Status)]);
        async move {
            let standing = match replies.next().await {
                Some((_, Reply::Status(status))) => Standing::Drive {
                    drive: status.drive,
                    deployment,
                    set,
                    position,
                    forming: false,
                    map: status.map,
                },
                _ => standing(DirectoryBay::new(runtime, drive).look().await),
            };
            SeatFound { set, position, standing }
        }
    }
}

/// What was found at a seat, for others.
pub(super) fn standing(found: Found) -> Standing {
    match found {
        Found::Blank => Standing::Blank,
        Found::Ours(identity) => {
            let formation::Identity { drive, deployment, set, position, forming, map } = identity;
            Standing::Drive { drive, deployment, set, position, forming, map }
        }
        Found::Unusable(reason) => Standing::Unusable(reason),
        Found::Unreached => unreachable!("every node knows its own seats"),
    }
}

/// What another node tells of one of its seats.
pub(super) fn found(standing: Standing) -> Found {
    match standing {
        Standing::Blank => Found::Blank,
        Standing::Drive { drive, deployment, set, position, forming, map } => {
            Found::Ours(formation::Identity { drive, deployment, set, position, forming, map })
        }
        Standing::Unusable(reason) => Found::Unusable(reason),
    }
}

#[cfg(test)]
mod fuzz;

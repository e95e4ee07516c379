//! How the nodes of a cluster agree on a start, before any of them serves: docs/cluster.md, "Start". What
//! is decided is [`formation`]'s, and what a node lets the founder do [`founding`]'s; this file carries
//! questions and orders, and tells the operator what is waited for.
//!
//! Meanwhile the node listens: peers get answers, clients are told to come later.

use std::cell::RefCell;
use std::io::IoSlice;
use std::rc::Rc;
use std::time::Duration;

use basalt_engine::Error;
use basalt_engine::request::{Reply, SetMap};
use basalt_engine::runtime::GlommioRuntime;
use basalt_engine::runtime::net::{Listener, Listening, TcpStream};
use basalt_engine::seam::{Clock, Random, Spawn};
use basalt_engine::units::{DeploymentId, DriveIndex, SetIndex};
use basalt_net::link::Stream;
use basalt_net::mailbox::Replies;
use basalt_net::node::NodeIndex;
use basalt_net::peers::Peers;
use basalt_net::service::{self, Service};
use basalt_net::wire::handshake::{Identity, Lane};
use basalt_net::wire::message::{Asked, Call, CallAnswer, SeatFound};
use futures_util::FutureExt;
use futures_util::future::{Either, LocalBoxFuture, join_all, select};
use futures_util::lock::Mutex;

use super::bay::DirectoryBay;
use super::drives::{self, Drive};
use super::formation::{self, Decision, Found, Plan, Step};
use super::founding::{Declined, Ground, Ticket};
use super::host::{Bay, Host, Sizes};
use super::peering::{self, Caller, NodeDial, OwnSeats};
use super::secure::Acceptor;
use super::{NodeConfig, Seat, StartFailure};
use crate::cluster::Cluster;

/// A node asks the others again after this.
const ASK_INTERVAL: Duration = Duration::from_millis(500);
/// A node that does not answer within this has not answered. Formatting takes the longest.
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// Between two lines about the same thing that is waited for.
const TELL_INTERVAL: Duration = Duration::from_secs(5);

/// What clients are told meanwhile.
const COME_LATER: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/xml\r\n\
    Retry-After: 2\r\nConnection: close\r\nContent-Length: 118\r\n\r\n\
    <Error><Code>XMinioServerNotInitialized</Code>\
    <Message>Server not initialized yet, please try again.</Message></Error>";

/// The plan by which the node opens its drives. Returns once the nodes agree on it.
pub(super) async fn agree(
    runtime: &GlommioRuntime,
    config: &NodeConfig,
    cluster: &Cluster,
) -> Result<Plan, StartFailure> {
    let ground = Rc::new(RefCell::new(Ground::default()));
    let seats = Rc::new(own_seats(config));
    let here = Here { runtime: runtime.clone(), ground, seats, turns: Rc::default() };
    let listening = here.listen(config, cluster)?;
    let dial = NodeDial::new(Rc::new(cluster.clone()), config.certificates.clone());
    let identity = peering::identity(cluster, None);
    let peers = Peers::new(runtime.clone(), dial, identity, cluster.nodes.len(), false);
    peers.connect_all(&[Lane::Steps]);
    let starting = Starting { here, peers, this: cluster.this, nodes: nodes(config, cluster.this) };
    let agreed = starting.agree().await;
    for listening in listening {
        if let Err(error) = listening.end().await {
            tracing::warn!(%error, "a connection may be left without an answer");
        }
    }
    let mut plan = agreed?;
    for (set, position, drive) in own_seats(config).iter().filter(|(_, _, drive)| drive.made) {
        leave_missing(drive, &mut plan.steps[usize::from(set.0)][usize::from(position.0)]);
    }
    Ok(plan)
}

/// A node that finds none of its drives makes their directories, because it may be a first start. Where it
/// turns out that the deployment is formed, a missing directory is a missing drive, and not a new one.
fn leave_missing(drive: &Drive, step: &mut Step) {
    if *step != Step::Replace {
        return;
    }
    if let Err(error) = drives::unmake(&drive.path) {
        tracing::warn!(drive = %drive.path.display(), %error, "its directory was made and stays");
    }
    *step = Step::Refuse(
        "its directory is not there. Mount the drive; an empty directory in its place is filled from \
         the other drives"
            .to_owned(),
    );
}

/// The drives of this node, by their seats.
pub(super) fn own_seats(config: &NodeConfig) -> OwnSeats {
    let sets = config.sets.iter().zip(0u16..).map(|(seats, set)| (SetIndex(set), seats));
    let own = sets.flat_map(|(set, seats)| {
        let seats = seats.iter().zip(0u8..).map(|(seat, at)| (DriveIndex(at), seat));
        seats.filter_map(move |(position, seat)| Some((set, position, seat.here()?.clone())))
    });
    own.collect()
}

/// The node of each seat, by set, then by position.
pub(super) fn nodes(config: &NodeConfig, this: NodeIndex) -> Vec<Vec<NodeIndex>> {
    let node = |seat: &Seat| match seat {
        Seat::Here(_) => this,
        Seat::There(node) => *node,
    };
    config.sets.iter().map(|seats| seats.iter().map(node).collect()).collect()
}

/// A node that starts, and what it learns from the others.
struct Starting {
    here: Here,
    peers: Peers<GlommioRuntime, NodeDial>,
    this: NodeIndex,
    nodes: Vec<Vec<NodeIndex>>,
}

/// This node's own part.
#[derive(Clone)]
struct Here {
    runtime: GlommioRuntime,
    ground: Rc<RefCell<Ground>>,
    seats: Rc<OwnSeats>,
    /// Who looks at a drive, or writes to it, locks it, and two of this process would take each other for
    /// another one. So questions and orders have the drives in turn.
    turns: Rc<Mutex<()>>,
}

/// What peers are told of this node.
#[derive(Clone)]
struct ToPeers {
    identity: Identity,
    credit_bytes: u32,
}

/// Tells a client on a secure connection to come later.
async fn turn_away(stream: &impl Stream) {
    if let Err(error) = stream.write(&[IoSlice::new(COME_LATER)]).await {
        tracing::debug!(%error, "a client was not told to come later");
    }
}

impl Starting {
    async fn agree(self) -> Result<Plan, StartFailure> {
        let runtime = &self.here.runtime;
        let mut told = None;
        loop {
            let ticket = runtime.random_u128();
            match self.decide(ticket).await? {
                Decision::Start(plan) => {
                    if self.here.ground.borrow_mut().close().is_ok() {
                        return Ok(plan);
                    }
                }
                Decision::Form(plan) => match self.form(ticket, &plan).await {
                    Ok(()) => {
                        tracing::info!(deployment = %plan.deployment, "deployment formed");
                        continue;
                    }
                    Err(trouble) => tracing::warn!(trouble, "the deployment is not formed yet"),
                },
                Decision::Wait(waiting) => {
                    let waiting = self.describe(&waiting);
                    let now = runtime.now();
                    let again = told.as_ref().is_none_or(|(before, since)| {
                        *before != waiting || now.since(*since) >= TELL_INTERVAL
                    });
                    if again {
                        tracing::info!("waiting: {waiting}");
                        told = Some((waiting, now));
                    }
                }
            }
            runtime.sleep(ASK_INTERVAL).await;
        }
    }

    /// With the names and the troubles of the nodes that are waited for.
    fn describe(&self, waiting: &formation::Waiting) -> String {
        let mut text = waiting.to_string();
        for node in waiting.nodes() {
            let name = self.peers.name(node);
            let trouble = self.peers.trouble(node);
            let trouble = trouble.unwrap_or_else(|| "it is looking at its drives".to_owned());
            text.push_str(&format!("; {name} (node {}): {trouble}", node.0 + 1));
        }
        text
    }

    async fn decide(&self, ticket: Ticket) -> Result<Decision, formation::Refusal> {
        let told = self.order_all(&Call::Identify { ticket }).await;
        let unreached = |nodes: &Vec<NodeIndex>| vec![Found::Unreached; nodes.len()];
        let mut seen: Vec<Vec<Found>> = self.nodes.iter().map(unreached).collect();
        for (node, answer) in told {
            let Some(CallAnswer::Seats(seats)) = answer else { continue };
            for SeatFound { set, position, standing } in seats {
                let (set, position) = (usize::from(set.0), usize::from(position.0));
                // A node tells of its own seats only.
                let its_own = self.nodes.get(set).and_then(|nodes| nodes.get(position));
                if its_own == Some(&node) {
                    seen[set][position] = peering::found(standing);
                }
            }
        }
        formation::decide(&seen, &self.nodes, self.this, || self.here.runtime.random_u128())
    }

    async fn form(&self, ticket: Ticket, plan: &Plan) -> Result<(), String> {
        let deployment = plan.deployment;
        let format = Call::Format { ticket, deployment, maps: plan.maps.clone() };
        for order in [format, Call::Mark { ticket, deployment }] {
            for (node, answer) in self.order_all(&order).await {
                let name = self.peers.name(node);
                match answer {
                    Some(CallAnswer::Done) => {}
                    Some(CallAnswer::Refused(reason)) => return Err(format!("{name}: {reason}")),
                    Some(CallAnswer::Seats(_) | CallAnswer::Description(_)) => {
                        return Err(format!("{name} answers oddly"));
                    }
                    None => return Err(format!("{name} does not answer")),
                }
            }
        }
        Ok(())
    }

    /// Has every node carry out an order, this one as well.
    async fn order_all(&self, order: &Call) -> Vec<(NodeIndex, Option<CallAnswer>)> {
        let own = async {
            let answer = self.here.clone().carry_out(self.this, order.clone()).await;
            (self.this, Some(answer))
        };
        let others = self.peers.others().map(|node| async move {
            let answering = std::pin::pin!(self.peers.call(node, order));
            let limit = std::pin::pin!(self.here.runtime.sleep(ANSWER_MAX));
            match select(answering, limit).await {
                Either::Left((answer, _)) => (node, answer),
                Either::Right(_) => (node, None),
            }
        });
        let (own, mut all) = futures_util::future::join(own, join_all(others)).await;
        all.push(own);
        all
    }
}

impl Here {
    /// Answers peers, and turns clients away.
    fn listen(
        &self,
        config: &NodeConfig,
        cluster: &Cluster,
    ) -> Result<Vec<Listening>, StartFailure> {
        let credit_bytes = peering::credit_bytes(cluster, config.arena_bytes);
        let to_peers = ToPeers { identity: peering::identity(cluster, None), credit_bytes };
        let certificates = config.certificates.as_ref();
        let acceptor = certificates.map(|found| Acceptor::watch(&self.runtime, found)).transpose();
        let acceptor = acceptor.map_err(|error| StartFailure::Address {
            address: config.address,
            reason: error.to_string(),
        })?;
        let mut all = Vec::new();
        for address in [Some(config.address), cluster.peer_address].into_iter().flatten() {
            let failed = |error: std::io::Error| StartFailure::Address {
                address,
                reason: error.to_string(),
            };
            let listener = Listener::bind(&self.runtime, address).map_err(failed)?;
            let (here, acceptor, to_peers) = (self.clone(), acceptor.clone(), to_peers.clone());
            all.push(listener.serve(&self.runtime, move |stream| {
                let (acceptor, to_peers) = (acceptor.clone(), to_peers.clone());
                here.runtime.spawn(here.clone().answer(stream, acceptor, to_peers));
            }));
        }
        Ok(all)
    }

    async fn answer(self, stream: TcpStream, acceptor: Option<Acceptor>, to_peers: ToPeers) {
        let runtime = self.runtime.clone();
        if let Some(acceptor) = acceptor {
            match acceptor.accept(stream).await {
                Some(stream) if stream.is_of_peer() => {
                    self.serve(stream.for_peer(), to_peers).await;
                }
                Some(stream) => turn_away(&stream.for_peer()).await,
                None => {}
            }
            return;
        }
        match Caller::of(&runtime, stream).await {
            Caller::Peer(stream) => self.serve(stream, to_peers).await,
            Caller::Client(stream) => {
                if let Err(error) = stream.write_all(COME_LATER).await {
                    tracing::debug!(%error, "a client was not told to come later");
                }
            }
            Caller::Nobody => {}
        }
    }

    async fn serve(self, stream: impl Stream, to_peers: ToPeers) {
        let ToPeers { identity, credit_bytes } = to_peers;
        let runtime = self.runtime.clone();
        match service::serve(runtime, stream, identity, credit_bytes, Rc::new(self), ()).await {
            (Some(peer), ended) => tracing::debug!(?peer, %ended, "a peer's connection ended"),
            (None, ended) => tracing::warn!(%ended, "a node was refused as a peer"),
        }
    }

    async fn carry_out(self, asker: NodeIndex, call: Call) -> CallAnswer {
        let carried_out = match call {
            Call::Identify { ticket } => self.tell(asker, ticket).await.map(CallAnswer::Seats),
            Call::Format { ticket, deployment, maps } => {
                self.format(ticket, deployment, &maps).await.map(|()| CallAnswer::Done)
            }
            Call::Mark { ticket, deployment } => {
                self.mark(ticket, deployment).await.map(|()| CallAnswer::Done)
            }
            Call::Describe => Err("this node does not serve yet".to_owned()),
        };
        carried_out.unwrap_or_else(CallAnswer::Refused)
    }

    async fn tell(&self, asker: NodeIndex, ticket: Ticket) -> Result<Vec<SeatFound>, String> {
        self.ground.borrow_mut().question(asker, ticket).map_err(text)?;
        let seats = self.seats.iter().zip(self.look().await);
        let seats = seats.map(|((set, position, _), found)| SeatFound {
            set: *set,
            position: *position,
            standing: peering::standing(found),
        });
        Ok(seats.collect())
    }

    async fn look(&self) -> Vec<Found> {
        let _turn = self.turns.lock().await;
        let looks = self.seats.iter().map(|(_, _, drive)| async move {
            DirectoryBay::new(self.runtime.clone(), drive.clone()).look().await
        });
        join_all(looks).await
    }

    async fn format(
        &self,
        ticket: Ticket,
        deployment: DeploymentId,
        maps: &[SetMap],
    ) -> Result<(), String> {
        let found = self.look().await;
        self.ground.borrow_mut().format(ticket, &found).map_err(text)?;
        let _turn = self.turns.lock().await;
        let formatting = self.seats.iter().map(|(set, position, drive)| async move {
            let map = maps.get(usize::from(set.0)).ok_or("the plan lacks a set")?;
            let member = map.drives.get(usize::from(position.0)).ok_or("the plan lacks a seat")?;
            let host = self.host(deployment, *set, *position, drive);
            let formatted = host.found(member.drive, map.clone()).await;
            formatted.map_err(|error| format!("{}: {error}", host.name()))
        });
        let formatted: Result<Vec<()>, String> = join_all(formatting).await.into_iter().collect();
        self.ground.borrow_mut().formatted(ticket, formatted.is_ok());
        formatted.map(|_| ())
    }

    async fn mark(&self, ticket: Ticket, deployment: DeploymentId) -> Result<(), String> {
        self.ground.borrow_mut().mark(ticket).map_err(text)?;
        let _turn = self.turns.lock().await;
        let marking = self.seats.iter().map(|(set, position, drive)| async move {
            let host = self.host(deployment, *set, *position, drive);
            match host.open().await {
                Ok(()) => host.close().await,
                // It is marked when it is opened later.
                Err(error) => tracing::warn!(drive = host.name(), %error, "not marked yet"),
            }
        });
        join_all(marking).await;
        self.ground.borrow_mut().marked(ticket);
        Ok(())
    }

    fn host(
        &self,
        deployment: DeploymentId,
        set: SetIndex,
        position: DriveIndex,
        drive: &Drive,
    ) -> Rc<Host<DirectoryBay, GlommioRuntime>> {
        let bay = DirectoryBay::new(self.runtime.clone(), drive.clone());
        Host::new(bay, self.runtime.clone(), deployment, set, position, Sizes::default())
    }
}

fn text(declined: Declined) -> String {
    declined.to_string()
}

impl Service for Here {
    fn ask(&self, asked: Asked) -> Replies {
        let (answers, replies) = Replies::expect(asked.requests.len());
        for (drive, _) in asked.requests {
            let error = Error::Unavailable { reason: "its node is starting" };
            answers.send(drive, Reply::Failed(error));
        }
        replies
    }

    fn call(&self, from: NodeIndex, call: Call) -> LocalBoxFuture<'static, CallAnswer> {
        self.clone().carry_out(from, call).boxed_local()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_as_long_as_it_says() {
        let text = std::str::from_utf8(COME_LATER).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        assert!(head.ends_with(&format!("Content-Length: {}", body.len())), "{}", body.len());
    }

    #[test]
    fn a_directory_that_was_missing_is_not_taken_for_a_new_drive() {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("drive");
        let examined = drives::examine(std::slice::from_ref(&path), true).expect("usable");
        let drive = examined.drives[0].clone();
        assert!(drive.made && path.exists());
        let mut step = Step::Replace;
        leave_missing(&drive, &mut step);
        assert!(matches!(step, Step::Refuse(_)) && !path.exists());

        std::fs::create_dir(&path).expect("made by the operator");
        drop(examined);
        let examined = drives::examine(std::slice::from_ref(&path), true).expect("usable");
        assert!(!examined.drives[0].made, "it was there");
    }
}

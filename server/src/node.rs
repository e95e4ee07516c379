//! A node: the drives of this machine, the cores that own them, and the S3 endpoint on every core.
//!
//! Start: examine every drive's place, form the deployment if this is its first start, start the cores,
//! open the drives on their owners, listen. Stop: take no more connections, let requests finish, close
//! the drives. The owner core of a drive is fixed from start to stop; all drives of a set share one.

mod alone;
pub mod bay;
mod door;
pub mod drives;
pub mod formation;
mod forming;
pub mod founding;
mod gather;
pub mod host;
mod metrics;
pub(crate) mod nodes;
pub(crate) mod overview;
mod peering;
pub(crate) mod places;
mod process;
mod redundancy;
mod secure;
mod stream;
pub mod upkeep;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::time::Duration;

use basalt_engine::Error;
use basalt_engine::request::Reply;
use basalt_engine::runtime::post::{Inlet, Outbox, outbox};
use basalt_engine::runtime::signals::Signals;
use basalt_engine::runtime::{CoreId, GlommioRuntime, Options, start};
use basalt_engine::seam::Spawn;
use basalt_engine::units::{DriveIndex, SetIndex};
use basalt_net::cores::{CoreMailbox, Envelope, Forward, Owner, Owners, Serve, Served};
use basalt_net::node::NodeIndex;
use basalt_net::peers::Peers;
use basalt_net::wire::handshake::Lane;
use futures_util::FutureExt;
use futures_util::future::{Either, join_all, select};

use crate::admin::Admin;
use crate::cluster::Cluster;
use crate::object::{ClassParity, Deployment, PART_BYTES_MIN, Store};
use crate::s3;
use crate::tls::Certificates;
use crate::topology::storage_class::StorageClasses;
use bay::DirectoryBay;
use door::{Door, ForPeers};
use drives::Drive;
use formation::{Plan, Step};
use gather::{Gathering, Word};
use host::{Host, Sizes};
use metrics::Pages;
use nodes::Nodes;
use overview::Overview;
use peering::{NodeDial, Serving};
use places::Places;

/// Messages that may wait for one core.
const QUEUE_MESSAGES: usize = 16 * 1024;
/// How often, and at which distance, an address in use is looked at: four seconds.
const ADDRESS_LOOKS: u32 = 200;
const ADDRESS_LOOK: Duration = Duration::from_millis(20);

/// A place for a drive, by the node it is on.
#[derive(Clone, Debug)]
pub enum Seat {
    Here(Drive),
    There(NodeIndex),
}

impl Seat {
    /// The drive, if it is this node's.
    pub fn here(&self) -> Option<&Drive> {
        match self {
            Self::Here(drive) => Some(drive),
            Self::There(_) => None,
        }
    }
}

/// Everything that was decided before a node starts.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// By set, then by position.
    pub sets: Vec<Vec<Seat>>,
    /// What operators call the seats, in the same order.
    pub names: Vec<Vec<String>>,
    /// How many of the sets are each pool's.
    pub pool_sets: Vec<usize>,
    /// `None`: all drives are here.
    pub cluster: Option<Cluster>,
    pub parity: Vec<ClassParity>,
    pub address: SocketAddr,
    /// HTTPS in place of HTTP.
    pub certificates: Option<Certificates>,
    pub cores: u16,
    pub arena_bytes: u64,
    pub settings: s3::Settings,
    /// Metrics may be read by anybody.
    pub public_metrics: bool,
    pub upload_rest: upkeep::UploadRest,
}

impl NodeConfig {
    /// Whether every set has the parity that its size gives by default.
    fn has_default_classes(&self) -> bool {
        let by_default = |drives: usize| StorageClasses::default().on_set(drives).ok();
        let mut sets = self.sets.iter().zip(&self.parity);
        sets.all(|(seats, parity)| by_default(seats.len()) == Some(*parity))
    }
}

#[derive(Debug, thiserror::Error)]
pub enum StartFailure {
    #[error(transparent)]
    Cores(#[from] basalt_engine::runtime::StartError),
    #[error(transparent)]
    Formation(#[from] formation::Refusal),
    #[error("drive {drive}: {error}")]
    Drive { drive: String, error: Error },
    #[error("{address} cannot be listened on: {reason}")]
    Address { address: SocketAddr, reason: String },
    #[error(transparent)]
    CoreFailed(#[from] basalt_engine::runtime::CoreFailure),
    #[error("signals cannot be taken: {0}")]
    Signals(std::io::Error),
}

/// Runs a node until it is told to stop. `ready` is called once it serves.
pub fn run(
    config: NodeConfig,
    ready: impl Fn(&Plan) + Send + Sync + 'static,
) -> Result<(), StartFailure> {
    let signals = Arc::new(Signals::block().map_err(StartFailure::Signals)?);
    check_address(config.address)?;
    let Some(plan) = form(&config, &signals)? else { return Ok(()) };
    let cores = config.cores;
    let (outbox, inlets) = outbox::<Envelope>(cores, QUEUE_MESSAGES);
    let (stops, stop_inlets) = outbox_of_stops(cores);
    let (words, word_inlets) = gather::queues(cores);
    let inlets = inlets.into_iter().zip(stop_inlets).zip(word_inlets);
    let inlets = inlets.map(|((inlet, stop), words)| Some((inlet, stop, words))).collect();
    let shared = Arc::new(Shared {
        owners: owners(&config, cores),
        outbox,
        stops,
        words,
        inlets: Mutex::new(inlets),
        opened: Barrier::new(usize::from(cores)),
        signals,
        ready: Box::new(ready),
        config,
        plan,
    });
    let options = Options::new(cores, shared.config.arena_bytes);
    let running = start(&options, move |runtime| core_main(runtime, Arc::clone(&shared)))?;
    Ok(running.join()?)
}

/// What the cores are given at the start. Only the queues are used afterwards.
struct Shared {
    config: NodeConfig,
    plan: Plan,
    owners: Owners,
    outbox: Outbox<Envelope>,
    stops: Outbox<Stop>,
    words: Outbox<Word>,
    inlets: Mutex<Vec<Option<Inlets>>>,
    /// No core asks another core's drives anything before they are open.
    opened: Barrier,
    signals: Arc<Signals>,
    ready: Box<dyn Fn(&Plan) + Send + Sync>,
}

/// What one core receives by.
type Inlets = (Inlet<Envelope>, Inlet<Stop>, Inlet<Word>);

/// Sent to every core when the node stops.
struct Stop;

fn outbox_of_stops(cores: u16) -> (Outbox<Stop>, Vec<Inlet<Stop>>) {
    outbox(cores, 1)
}

/// Listening sockets are shared among the cores, so a second server on the address would not be
/// noticed by binding them. After a process was killed, the kernel still listens for as long as
/// accepts of its rings are in flight; so an address in use is looked at for a while.
fn check_address(address: SocketAddr) -> Result<(), StartFailure> {
    let mut looks = 0;
    loop {
        match std::net::TcpListener::bind(address) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::AddrInUse && looks < ADDRESS_LOOKS => {
                looks += 1;
                std::thread::sleep(ADDRESS_LOOK);
            }
            Err(error) => {
                return Err(StartFailure::Address { address, reason: error.to_string() });
            }
        }
    }
}

/// All drives that a set has here on one core; the sets in turn.
fn owners(config: &NodeConfig, cores: u16) -> Owners {
    let owner = |set: usize, seat: &Seat| match seat {
        Seat::Here(_) => Owner::Core(CoreId((set % usize::from(cores)) as u16)),
        Seat::There(node) => Owner::Node(*node),
    };
    let sets = config.sets.iter().enumerate();
    sets.map(|(set, seats)| seats.iter().map(|seat| owner(set, seat)).collect()).collect()
}

/// Examines the drives and, on a first start, forms the deployment, on a core of its own; with the other
/// nodes, where there are any. `None` when the node was told to stop before that was done.
fn form(config: &NodeConfig, signals: &Arc<Signals>) -> Result<Option<Plan>, StartFailure> {
    let (sender, receiver) = mpsc::channel();
    let (config, signals) = (Arc::new(config.clone()), Arc::clone(signals));
    let options = Options::new(1, config.arena_bytes.min(64 << 20));
    let running = start(&options, move |runtime| {
        let (config, signals, sender) = (Arc::clone(&config), Arc::clone(&signals), sender.clone());
        async move {
            let formed = match &config.cluster {
                None => alone::form(&runtime, &config).await.map(Some),
                Some(cluster) => {
                    let agreeing = std::pin::pin!(forming::agree(&runtime, &config, cluster));
                    let told_to_stop = std::pin::pin!(signals.arrived(&runtime));
                    match select(agreeing, told_to_stop).await {
                        Either::Left((agreed, _)) => agreed.map(Some),
                        Either::Right(_) => Ok(None),
                    }
                }
            };
            // The receiver waits for exactly this.
            let _ = sender.send(formed);
        }
    })?;
    let formed = receiver.recv();
    running.join()?;
    formed.expect("a core that ended well has answered")
}

type DirectoryHost = Rc<Host<DirectoryBay, GlommioRuntime>>;

/// The host of a seat, if it is this node's.
fn host(
    runtime: &GlommioRuntime,
    config: &NodeConfig,
    plan: &Plan,
    set: usize,
    position: usize,
) -> Option<DirectoryHost> {
    let bay = DirectoryBay::new(runtime.clone(), config.sets[set][position].here()?.clone());
    let set = SetIndex(u16::try_from(set).expect("fewer than 2^16 sets"));
    let position = DriveIndex(u8::try_from(position).expect("at most sixteen drives"));
    Some(Host::new(bay, runtime.clone(), plan.deployment, set, position, Sizes::default()))
}

/// The hosts of the drives that one core owns.
type Hosts = Rc<BTreeMap<(SetIndex, DriveIndex), DirectoryHost>>;

async fn core_main(runtime: GlommioRuntime, shared: Arc<Shared>) {
    let core = runtime.core();
    let (inlet, stop_inlet, words_inlet) = shared.inlets.lock().expect("no core panicked here")
        [usize::from(core.0)]
    .take()
    .expect("each core starts once");
    let hosts = own_hosts(&runtime, &shared);
    let outbox = shared.outbox.clone();
    let peers = shared.config.cluster.as_ref().map(|of| peers(&runtime, &shared, of));
    let forward = forward(peers.clone());
    let (owners, serve) = (shared.owners.clone(), serve(hosts.clone()));
    let mailbox = CoreMailbox::new(runtime.clone(), owners, outbox, serve, forward);
    inlet.attach(&runtime, {
        let mailbox = mailbox.clone();
        move |envelope| mailbox.receive(envelope)
    });
    open_hosts(&hosts, &shared.plan).await;
    shared.opened.wait();
    let deployment = Deployment {
        id: shared.plan.deployment,
        maps: shared.plan.maps.clone(),
        parity: shared.config.parity.clone(),
        part_bytes_min: PART_BYTES_MIN,
        admitted_bytes_max: shared.config.arena_bytes / 2,
    };
    let places = Rc::new(Places::new(&shared.config));
    let nodes = Nodes::new(&runtime, places.this, peers.clone());
    let for_peers = for_peers(&runtime, &shared, &mailbox, &nodes);
    let store = Store::new(mailbox, runtime.clone(), deployment);
    keep_up(&runtime, &hosts, &store, &shared.config);
    if let Some(peers) = &peers {
        peers.connect_all(&[Lane::Steps, Lane::Payload]);
    }
    let (stopping, stopped) = futures_channel::oneshot::channel::<()>();
    let stopped = stopped.map(|_| ()).shared();
    let stopping = RefCell::new(Some(stopping));
    stop_inlet.attach(&runtime, move |Stop| drop(stopping.borrow_mut().take()));
    let gathering = Gathering::new(&runtime, shared.words.clone(), shared.config.cores);
    let pages = Pages::new(places.clone(), gathering.clone());
    let tells = core == CoreId(0);
    let overview = Overview::watch(&runtime, store.clone(), places, nodes, tells);
    let server = serve_s3(&runtime, &shared, store, overview, pages);
    gathering.attach(words_inlet, {
        let server = server.clone();
        move || server.counts()
    });
    let door = match open_door(&runtime, &shared.config, server, for_peers, stopped.clone()) {
        Ok(door) => Some(door),
        Err(error) => {
            tracing::error!(core = core.0, %error, "this core cannot listen");
            None
        }
    };
    if core == CoreId(0) {
        (shared.ready)(&shared.plan);
        await_signal(&runtime, &shared).await;
    }
    stopped.await;
    if let Some(door) = &door {
        door.drain().await;
    }
    join_all(hosts.values().map(|host| host.close())).await;
}

fn own_hosts(runtime: &GlommioRuntime, shared: &Shared) -> Hosts {
    let mut hosts = BTreeMap::new();
    for (set, owners) in shared.owners.iter().enumerate() {
        for (position, owner) in owners.iter().enumerate() {
            if *owner != Owner::Core(runtime.core()) {
                continue;
            }
            if let Some(host) = host(runtime, &shared.config, &shared.plan, set, position) {
                hosts.insert((SetIndex(set as u16), DriveIndex(position as u8)), host);
            }
        }
    }
    Rc::new(hosts)
}

fn serve(hosts: Hosts) -> Serve {
    Rc::new(move |set, drive, request| match hosts.get(&(set, drive)) {
        Some(host) => host.clone().serve(request),
        None => {
            let error = Error::Unavailable { reason: "no core of this node owns the drive" };
            Served::Now(Reply::Failed(error))
        }
    })
}

async fn open_hosts(hosts: &Hosts, plan: &Plan) {
    let opening = hosts.iter().map(|((set, position), host)| async move {
        match &plan.steps[usize::from(set.0)][usize::from(position.0)] {
            Step::Open(_) | Step::Found(_) => {
                if let Err(error) = host.open().await {
                    host.note_down(error.to_string());
                }
            }
            Step::Refuse(reason) => host.note_down(reason.clone()),
            // The watch finds it blank and replaces it.
            Step::Replace | Step::Leave => {}
        }
    });
    join_all(opening).await;
}

/// Starts what runs in the background for the drives of this core.
fn keep_up(
    runtime: &GlommioRuntime,
    hosts: &Hosts,
    store: &Store<CoreMailbox, GlommioRuntime>,
    config: &NodeConfig,
) {
    let upload_rest = config.upload_rest;
    let here = config.cluster.as_ref().map_or(NodeIndex(0), |cluster| cluster.this);
    let nodes = forming::nodes(config, here);
    let mut sets: Vec<SetIndex> = hosts.keys().map(|(set, _)| *set).collect();
    sets.dedup();
    for set in sets {
        let seats = upkeep::Seats::new(nodes[usize::from(set.0)].clone(), here);
        runtime.spawn(upkeep::settle_forever(store.clone(), set, seats.clone()));
        runtime.spawn(upkeep::sweep_forever(store.clone(), set, seats.clone()));
        runtime.spawn(upkeep::release_relocated_forever(store.clone(), set, seats.clone()));
        runtime.spawn(upkeep::sweep_uploads_forever(store.clone(), set, seats, upload_rest));
    }
    for host in hosts.values() {
        runtime.spawn(host.clone().watch(store.clone()));
    }
}

type NodePeers = Peers<GlommioRuntime, NodeDial>;

/// This core's way to the other nodes.
fn peers(runtime: &GlommioRuntime, shared: &Shared, cluster: &Cluster) -> NodePeers {
    let dial = NodeDial::new(Rc::new(cluster.clone()), shared.config.certificates.clone());
    let identity = peering::identity(cluster, Some(shared.plan.deployment));
    let tells = runtime.core() == CoreId(0);
    Peers::new(runtime.clone(), dial, identity, cluster.nodes.len(), tells)
}

fn forward(peers: Option<NodePeers>) -> Forward {
    match peers {
        Some(peers) => Rc::new(move |node, set, requests, answers| {
            peers.ask(node, set, requests, answers);
        }),
        None => Rc::new(|_, _, _, _| unreachable!("all drives are here")),
    }
}

/// What this core does for the other nodes.
fn for_peers(
    runtime: &GlommioRuntime,
    shared: &Shared,
    mailbox: &CoreMailbox,
    nodes: &Nodes,
) -> Option<ForPeers> {
    let cluster = shared.config.cluster.as_ref()?;
    let deployment = shared.plan.deployment;
    Some(ForPeers {
        identity: peering::identity(cluster, Some(deployment)),
        credit_bytes: peering::credit_bytes(cluster, shared.config.arena_bytes),
        serving: Rc::new(Serving {
            runtime: runtime.clone(),
            mailbox: mailbox.clone(),
            deployment,
            seats: Rc::new(forming::own_seats(&shared.config)),
            nodes: nodes.clone(),
        }),
    })
}

fn open_door<F: Future<Output = ()> + Clone + 'static>(
    runtime: &GlommioRuntime,
    config: &NodeConfig,
    server: CoreServer,
    peers: Option<ForPeers>,
    stopped: F,
) -> std::io::Result<Door<F>> {
    let own_address = config.cluster.as_ref().and_then(|cluster| cluster.peer_address);
    let door = Door::new(runtime, config, server, peers, stopped)?;
    door.listen(config.address)?;
    if let Some(address) = own_address {
        door.listen_for_peers(address)?;
    }
    Ok(door)
}

type CoreServer = s3::Server<CoreMailbox, GlommioRuntime>;

fn serve_s3(
    runtime: &GlommioRuntime,
    shared: &Shared,
    store: Store<CoreMailbox, GlommioRuntime>,
    overview: Overview,
    pages: Pages,
) -> CoreServer {
    let config = &shared.config;
    let admin = Admin::new(
        store.clone(),
        overview.clone(),
        shared.plan.deployment,
        config.settings.region.clone(),
    );
    let admin = move |question| admin.clone().answer(question).boxed_local();
    let (are_public, seen) = (config.public_metrics, overview.clone());
    let page = Box::new(move |page| pages.clone().page(page, seen.clone()).boxed_local());
    let metrics = s3::Metrics { are_public, page };
    let health = move |question| overview.health(question);
    s3::Server::new(store, runtime.clone(), config.settings.clone(), health, metrics, admin)
}

/// Waits for SIGTERM or SIGINT and tells every core.
async fn await_signal(runtime: &GlommioRuntime, shared: &Shared) {
    shared.signals.arrived(runtime).await;
    tracing::info!("stopping: requests under way are finished first");
    for core in 0..shared.config.cores {
        // A second Stop finds the queue full, or nobody: the first one counts.
        let _ = shared.stops.post(CoreId(core), Stop);
    }
}

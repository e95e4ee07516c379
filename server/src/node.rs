//! A node: the drives of this machine, the cores that own them, and the S3 endpoint on every core.
//!
//! Start: examine every drive's place, form the deployment if this is its first start, start the cores,
//! open the drives on their owners, listen. Stop: take no more connections, let requests finish, close
//! the drives. The owner core of a drive is fixed from start to stop; all drives of a set share one.

pub mod bay;
pub mod drives;
pub mod formation;
mod gather;
pub mod host;
mod metrics;
mod overview;
mod process;
mod secure;
mod stream;
pub mod upkeep;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::time::Duration;

use basalt_engine::Error;
use basalt_engine::request::Reply;
use basalt_engine::runtime::net::Listener;
use basalt_engine::runtime::post::{Inlet, Outbox, outbox};
use basalt_engine::runtime::signals::Signals;
use basalt_engine::runtime::{CoreId, GlommioRuntime, Options, start};
use basalt_engine::seam::{Clock, Random, Spawn};
use basalt_engine::units::{DriveIndex, SetIndex};
use basalt_net::cores::{CoreMailbox, Envelope, Owners, Serve, Served};
use futures_util::FutureExt;
use futures_util::future::{join_all, try_join_all};

use crate::object::{ClassParity, Deployment, PART_BYTES_MIN, Store};
use crate::s3;
use crate::tls::Certificates;
use crate::topology::storage_class::StorageClasses;
use bay::DirectoryBay;
use drives::Drive;
use formation::{Found, Plan, Step};
use gather::{Gathering, Word};
use host::{Bay, Host, Sizes};
use metrics::Pages;
use overview::Overview;
use secure::Acceptor;
use stream::HttpStream;

/// Messages that may wait for one core.
const QUEUE_MESSAGES: usize = 16 * 1024;
/// How often, and at which distance, an address in use is looked at: four seconds.
const ADDRESS_LOOKS: u32 = 200;
const ADDRESS_LOOK: Duration = Duration::from_millis(20);
/// Connections that one core serves at the same time, and how many more it tells to come later;
/// what comes on top of those is closed at once.
const CONNECTIONS_MAX: usize = 4096;
const TURNED_AWAY_MAX: usize = 256;
/// How long requests may take to finish when the node stops.
const DRAIN: Duration = Duration::from_secs(30);
/// Between two looks at whether all connections are closed.
const DRAIN_LOOK: Duration = Duration::from_millis(20);

/// Everything that was decided before a node starts.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// By set, then by position.
    pub sets: Vec<Vec<Drive>>,
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
        sets.all(|(drives, parity)| by_default(drives.len()) == Some(*parity))
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
    let signals = Signals::block().map_err(StartFailure::Signals)?;
    check_address(config.address)?;
    let plan = form(&config)?;
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
        signals: Mutex::new(Some(signals)),
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
    signals: Mutex<Option<Signals>>,
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

/// All drives of a set on one core; the sets in turn.
fn owners(config: &NodeConfig, cores: u16) -> Owners {
    let owner = |set: usize| CoreId((set % usize::from(cores)) as u16);
    config.sets.iter().enumerate().map(|(set, drives)| vec![owner(set); drives.len()]).collect()
}

/// Examines the drives and, on a first start, forms the deployment, on a core of its own.
fn form(config: &NodeConfig) -> Result<Plan, StartFailure> {
    let (sender, receiver) = mpsc::channel();
    let config = Arc::new(config.clone());
    let options = Options::new(1, config.arena_bytes.min(64 << 20));
    let running = start(&options, move |runtime| {
        let (config, sender) = (Arc::clone(&config), sender.clone());
        async move {
            // The receiver waits for exactly this.
            let _ = sender.send(form_here(&runtime, &config).await);
        }
    })?;
    let formed = receiver.recv();
    running.join()?;
    formed.expect("a core that ended well has answered")
}

async fn form_here(runtime: &GlommioRuntime, config: &NodeConfig) -> Result<Plan, StartFailure> {
    let mut found = Vec::new();
    for drives in &config.sets {
        let looks = drives.iter().map(|drive| async move {
            DirectoryBay::new(runtime.clone(), drive.clone()).look().await
        });
        found.push(join_all(looks).await);
    }
    let plan = formation::plan(&found, || runtime.random_u128())?;
    report_refused(config, &found);
    if plan.founding {
        found_drives(runtime, config, &plan).await?;
    }
    Ok(plan)
}

fn report_refused(config: &NodeConfig, found: &[Vec<Found>]) {
    for (drives, found) in config.sets.iter().zip(found) {
        for (drive, found) in drives.iter().zip(found) {
            if let Found::Unusable(reason) = found {
                tracing::warn!(drive = %drive.path.display(), reason, "drive stays down");
            }
        }
    }
}

/// Formats every drive, and only then marks them as formed.
async fn found_drives(
    runtime: &GlommioRuntime,
    config: &NodeConfig,
    plan: &Plan,
) -> Result<(), StartFailure> {
    let mut founded = Vec::new();
    for (set, steps) in plan.steps.iter().enumerate() {
        for (position, step) in steps.iter().enumerate() {
            let Step::Found(drive) = step else { continue };
            let host = host(runtime, config, plan, set, position);
            founded.push((host, *drive, plan.maps[set].clone()));
        }
    }
    let failure = |host: &Host<DirectoryBay, GlommioRuntime>, error| {
        let drive = host.name();
        StartFailure::Drive { drive, error }
    };
    let format = founded.iter().map(|(host, drive, map)| async move {
        host.found(*drive, map.clone()).await.map_err(|error| failure(host, error))
    });
    try_join_all(format).await?;
    let mark = founded.iter().map(|(host, _, _)| async move {
        let marked = async {
            host.open().await?;
            host.formed().await
        };
        let marked = marked.await.map_err(|error| failure(host, error));
        host.close().await;
        marked
    });
    try_join_all(mark).await?;
    tracing::info!(deployment = %plan.deployment, drives = founded.len(), "deployment formed");
    Ok(())
}

type DirectoryHost = Rc<Host<DirectoryBay, GlommioRuntime>>;

fn host(
    runtime: &GlommioRuntime,
    config: &NodeConfig,
    plan: &Plan,
    set: usize,
    position: usize,
) -> DirectoryHost {
    let bay = DirectoryBay::new(runtime.clone(), config.sets[set][position].clone());
    let set = SetIndex(u16::try_from(set).expect("fewer than 2^16 sets"));
    let position = DriveIndex(u8::try_from(position).expect("at most sixteen drives"));
    Host::new(bay, runtime.clone(), plan.deployment, set, position, Sizes::default())
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
    let mailbox =
        CoreMailbox::new(runtime.clone(), shared.owners.clone(), outbox, serve(hosts.clone()));
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
    let store = Store::new(mailbox, runtime.clone(), deployment);
    keep_up(&runtime, &hosts, &store, shared.config.upload_rest);
    let (stopping, stopped) = futures_channel::oneshot::channel::<()>();
    let stopped = stopped.map(|_| ()).shared();
    let stopping = RefCell::new(Some(stopping));
    stop_inlet.attach(&runtime, move |Stop| drop(stopping.borrow_mut().take()));
    let gathering = Gathering::new(&runtime, shared.words.clone(), shared.config.cores);
    let pages = Pages::new(&shared.config, gathering.clone());
    let server = serve_s3(&runtime, &shared.config, store, pages);
    gathering.attach(words_inlet, {
        let server = server.clone();
        move || server.counts()
    });
    let connections = match listen(&runtime, &shared.config, server, stopped.clone()) {
        Ok(connections) => connections,
        Err(error) => {
            tracing::error!(core = core.0, %error, "this core cannot listen");
            Rc::new(())
        }
    };
    if core == CoreId(0) {
        (shared.ready)(&shared.plan);
        await_signal(&runtime, &shared).await;
    }
    stopped.await;
    drain(&runtime, &connections).await;
    join_all(hosts.values().map(|host| host.close())).await;
}

fn own_hosts(runtime: &GlommioRuntime, shared: &Shared) -> Hosts {
    let mut hosts = BTreeMap::new();
    for (set, owners) in shared.owners.iter().enumerate() {
        for (position, owner) in owners.iter().enumerate() {
            if *owner == runtime.core() {
                let host = host(runtime, &shared.config, &shared.plan, set, position);
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
            Step::Replace => {}
        }
    });
    join_all(opening).await;
}

/// Starts what runs in the background for the drives of this core.
fn keep_up(
    runtime: &GlommioRuntime,
    hosts: &Hosts,
    store: &Store<CoreMailbox, GlommioRuntime>,
    upload_rest: upkeep::UploadRest,
) {
    let mut sets: Vec<SetIndex> = hosts.keys().map(|(set, _)| *set).collect();
    sets.dedup();
    for set in sets {
        runtime.spawn(upkeep::settle_forever(store.clone(), set));
        runtime.spawn(upkeep::sweep_forever(store.clone(), set));
        runtime.spawn(upkeep::release_relocated_forever(store.clone(), set));
        runtime.spawn(upkeep::sweep_uploads_forever(store.clone(), set, upload_rest));
    }
    for host in hosts.values() {
        runtime.spawn(host.clone().watch(store.clone()));
    }
}

type CoreServer = s3::Server<CoreMailbox, GlommioRuntime>;

fn serve_s3(
    runtime: &GlommioRuntime,
    config: &NodeConfig,
    store: Store<CoreMailbox, GlommioRuntime>,
    pages: Pages,
) -> CoreServer {
    let overview = Overview::watch(runtime, store.clone(), config.has_default_classes());
    let (are_public, seen) = (config.public_metrics, overview.clone());
    let page = Box::new(move |page| pages.clone().page(page, seen.clone()).boxed_local());
    let metrics = s3::Metrics { are_public, page };
    let health = move |question| overview.health(question);
    s3::Server::new(store, runtime.clone(), config.settings.clone(), health, metrics)
}

/// Listens on this core. What is returned has one more owner for each open connection.
fn listen(
    runtime: &GlommioRuntime,
    config: &NodeConfig,
    server: CoreServer,
    stopped: impl Future<Output = ()> + Clone + 'static,
) -> std::io::Result<Rc<()>> {
    let connections = Rc::new(());
    let certificates = config.certificates.as_ref();
    let acceptor = certificates.map(|found| Acceptor::watch(runtime, found)).transpose();
    let acceptor = acceptor.map_err(std::io::Error::other)?;
    let listener = Listener::bind(runtime, config.address)?;
    let (spawner, open) = (runtime.clone(), connections.clone());
    listener.serve(runtime, move |stream| {
        let (server, stopped, open) = (server.clone(), stopped.clone(), open.clone());
        let acceptor = acceptor.clone();
        let peer = stream.peer_address().ip();
        let admission = Admission::of(connections_of(&open));
        if admission == Admission::Closed {
            return;
        }
        spawner.spawn(async move {
            match acceptor {
                None => answer(&server, admission, HttpStream::new(stream), peer, stopped).await,
                Some(acceptor) => {
                    if let Some(stream) = acceptor.accept(stream).await {
                        answer(&server, admission, stream, peer, stopped).await;
                    }
                }
            }
            drop(open);
        });
    });
    Ok(connections)
}

async fn answer(
    server: &CoreServer,
    admission: Admission,
    stream: impl hyper::rt::Read + hyper::rt::Write + Unpin + 'static,
    peer: IpAddr,
    stopped: impl Future<Output = ()>,
) {
    match admission {
        Admission::Served => server.serve_connection(stream, peer, stopped).await,
        Admission::TurnedAway | Admission::Closed => server.turn_away(stream, stopped).await,
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

/// Open connections: the owners of the count but for the core and its listener.
fn connections_of(connections: &Rc<()>) -> usize {
    Rc::strong_count(connections).saturating_sub(2)
}

/// Waits for SIGTERM or SIGINT and tells every core.
async fn await_signal(runtime: &GlommioRuntime, shared: &Shared) {
    let signals = shared.signals.lock().expect("no core panicked here").take();
    signals.expect("core 0 starts once").arrived(runtime).await;
    tracing::info!("stopping: requests under way are finished first");
    for core in 0..shared.config.cores {
        // A second Stop finds the queue full, or nobody: the first one counts.
        let _ = shared.stops.post(CoreId(core), Stop);
    }
}

/// Waits until the connections are closed, but not for ever. The listener itself holds one owner.
async fn drain(runtime: &GlommioRuntime, connections: &Rc<()>) {
    let deadline = runtime.now().plus(DRAIN);
    while connections_of(connections) > 0 {
        if runtime.now() >= deadline {
            let open = connections_of(connections);
            tracing::warn!(open, "connections cut off: they did not finish in time");
            return;
        }
        runtime.sleep(DRAIN_LOOK).await;
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

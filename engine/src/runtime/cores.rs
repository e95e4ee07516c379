//! Starts one executor per core and ends them.
//!
//! Each core is a thread pinned to one processor of the set that this process was given. All of
//! them make their rings, doorbells and arenas first; only when every one succeeded do they run,
//! so a start either succeeds as a whole or leaves nothing behind.
//!
//! glommio's preempt timer stays at its default and no task queue has a latency goal: both make
//! its lost wake-up (see [`super::watchdog`]) more likely.

use std::future::{Future, poll_fn};
use std::io;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use futures_util::FutureExt;
use glommio::{LocalExecutor, LocalExecutorBuilder, Placement};

use super::doorbell::{Core, Door, Signal};
use super::limits::{self, Refusal};
use super::tasks::panic_text;
use super::{GlommioRuntime, watchdog};

/// Number of a core in this process, from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CoreId(pub u16);

/// glommio's own memory for file I/O, which we do not use; its least.
const IO_MEMORY_BYTES: usize = 64 << 10;

#[derive(Clone, Debug)]
pub struct Options {
    /// Cores to start; more than there are processors share them.
    pub cores: u16,
    /// Buffers of each core.
    pub arena_bytes: u64,
    /// Only tests set it: glommio's default is the right one.
    pub(super) preempt_timer: Option<Duration>,
    /// Only tests switch it off.
    pub(super) watchdog: bool,
}

impl Options {
    pub fn new(cores: u16, arena_bytes: u64) -> Self {
        Self { cores, arena_bytes, preempt_timer: None, watchdog: true }
    }

    /// One core per processor that this process may use.
    pub fn for_this_machine(arena_bytes: u64) -> Self {
        let processors = allowed_processors().map_or(1, |allowed| allowed.len());
        Self::new(u16::try_from(processors).unwrap_or(u16::MAX), arena_bytes)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("core {} cannot start: {what}: {source}", .core.0)]
    Core { core: CoreId, what: &'static str, source: io::Error },
}

/// The cores of this process while they run. They run on if this is dropped.
#[must_use = "a core that fails is reported by `join`"]
pub struct Running {
    cores: u16,
    ended: mpsc::Receiver<(CoreId, Result<(), String>)>,
}

/// A core that did not come to its end.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("core {} failed: {reason}", .core.0)]
pub struct CoreFailure {
    pub core: CoreId,
    pub reason: String,
}

impl Running {
    /// Waits until every core came to its end, or one failed. After a failure the others still
    /// run; the process is then of no use and should end.
    pub fn join(self) -> Result<(), CoreFailure> {
        for _ in 0..self.cores {
            let (core, ended) = self.ended.recv().expect("every core reports its end");
            ended.map_err(|reason| CoreFailure { core, reason })?;
        }
        Ok(())
    }
}

/// Starts the cores; each runs the future that `main` makes for it, and ends with it. What other
/// tasks of a core still do at that time is dropped, except for drive operations in flight, which
/// are waited for.
pub fn start<F, Fut>(options: &Options, main: F) -> Result<Running, StartError>
where
    F: Fn(GlommioRuntime) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = ()> + 'static,
{
    assert!(options.cores > 0, "a process has at least one core");
    limits::prepare(options.cores)?;
    let processors = allowed_processors()
        .map_err(|error| start_error(CoreId(0), "the processors of this process", error))?;
    let (report_end, ended) = mpsc::channel();
    let mut starting = Vec::new();
    let mut signals = Vec::new();
    for index in 0..options.cores {
        let core = CoreId(index);
        let cpu = processors[usize::from(index) % processors.len()];
        let signal = Signal::new().map_err(|error| start_error(core, "its doorbell", error))?;
        let signal = Arc::new(signal);
        signals.push((core, Arc::clone(&signal)));
        let place = Place { core, cpu, signal, report_end: report_end.clone() };
        starting.push(Starting::spawn(place, options.clone(), main.clone())?);
    }
    // All must be ready before one may go; dropping the others' `go` makes them end.
    for core in &starting {
        core.wait_ready()?;
    }
    if options.watchdog {
        let started = watchdog::watch(signals);
        started.map_err(|error| start_error(CoreId(0), "the watchdog", error))?;
    }
    for core in starting {
        core.go.send(()).expect("a ready core waits");
    }
    Ok(Running { cores: options.cores, ended })
}

/// Where a core runs and how it is reached.
struct Place {
    core: CoreId,
    cpu: usize,
    signal: Arc<Signal>,
    report_end: mpsc::Sender<(CoreId, Result<(), String>)>,
}

struct Starting {
    core: CoreId,
    ready: mpsc::Receiver<Result<(), StartError>>,
    go: mpsc::Sender<()>,
}

impl Starting {
    fn spawn<F, Fut>(place: Place, options: Options, main: F) -> Result<Self, StartError>
    where
        F: Fn(GlommioRuntime) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        let core = place.core;
        let (report, ready) = mpsc::channel();
        let (go, may_go) = mpsc::channel();
        let body = move || {
            let (executor, own) = match make(&place, &options) {
                Ok(made) => made,
                Err(error) => return drop(report.send(Err(error))),
            };
            let _ = report.send(Ok(()));
            if may_go.recv().is_ok() {
                place.run(executor, own, main);
            } // Otherwise another core could not start.
        };
        thread::Builder::new()
            .name(format!("core-{}", core.0))
            .spawn(body)
            .map_err(|error| start_error(core, "its thread", error))?;
        Ok(Self { core, ready, go })
    }

    fn wait_ready(&self) -> Result<(), StartError> {
        let lost = || start_error(self.core, "its thread", io::Error::other("it panicked"));
        self.ready.recv().unwrap_or_else(|_| Err(lost()))
    }
}

impl Place {
    /// The life of a core. Panics of tasks do not come here; one of the executor or of our own
    /// tasks does, and ends the core.
    fn run<F, Fut>(&self, executor: LocalExecutor, own: Core, main: F)
    where
        F: Fn(GlommioRuntime) -> Fut + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        self.signal.begin();
        let life = AssertUnwindSafe(|| executor.run(run(own, main)));
        let ended = std::panic::catch_unwind(life);
        self.signal.end();
        drop(executor); // Its rings are given back before anybody hears of the end.
        let ended = ended.unwrap_or_else(|panic| Err(panic_text(&*panic).to_owned()));
        if let Err(reason) = &ended {
            tracing::error!(core = self.core.0, reason, "a core ended");
        }
        let _ = self.report_end.send((self.core, ended));
    }
}

/// Everything of a core that can fail, on its own thread.
fn make(place: &Place, options: &Options) -> Result<(LocalExecutor, Core), StartError> {
    let (core, cpu, signal) = (place.core, place.cpu, Arc::clone(&place.signal));
    let failed = |what: &'static str| move |error: io::Error| start_error(core, what, error);
    pin_to(cpu).map_err(failed("pinning its thread"))?;
    let mut builder = LocalExecutorBuilder::new(Placement::Unbound).io_memory(IO_MEMORY_BYTES);
    if let Some(timer) = options.preempt_timer {
        builder = builder.preempt_timer(timer);
    }
    let executor = builder.make().map_err(io::Error::from).map_err(failed("its executor"))?;
    let own = Core::new(core, cpu, signal, options.arena_bytes).map_err(failed("its ring"))?;
    Ok((executor, own))
}

/// The error as it is, or what is behind it.
fn start_error(core: CoreId, what: &'static str, source: io::Error) -> StartError {
    limits::explain(&source).map_or(StartError::Core { core, what, source }, StartError::Refused)
}

async fn run<F, Fut>(own: Core, main: F) -> Result<(), String>
where
    F: Fn(GlommioRuntime) -> Fut,
    Fut: Future<Output = ()>,
{
    let core = Rc::new(own);
    let door =
        Door::open(&core).map_err(|error| format!("its doorbell cannot be read: {error}"))?;
    let runtime = GlommioRuntime::new(Rc::clone(&core));
    let main = beating(&core, AssertUnwindSafe(async { main(runtime).await }).catch_unwind());
    let ended = main.await.map_err(|panic| panic_text(&*panic).to_owned());
    door.close().await;
    ended
}

/// Shows the watchdog that the core is at work, at every poll of `task`.
async fn beating<T>(core: &Core, task: impl Future<Output = T>) -> T {
    let mut task = pin!(task);
    poll_fn(|context| {
        core.signal.beat();
        task.as_mut().poll(context)
    })
    .await
}

/// The processors that this process may run on, ascending.
pub fn allowed_processors() -> io::Result<Vec<usize>> {
    // SAFETY: an all-zero set is a valid, empty one.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is valid for its size.
    let code = unsafe { libc::sched_getaffinity(0, size_of_val(&set), &raw mut set) };
    if code != 0 {
        return Err(io::Error::last_os_error());
    }
    let limit = usize::try_from(libc::CPU_SETSIZE).expect("a small constant");
    // SAFETY: the index is below the size of the set.
    Ok((0..limit).filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) }).collect())
}

/// Pins the calling thread.
fn pin_to(cpu: usize) -> io::Result<()> {
    // SAFETY: an all-zero set is a valid, empty one.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `cpu` came from a set of this size.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: `set` is valid for its size.
    let code = unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) };
    if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

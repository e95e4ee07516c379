//! Wakes a core that sleeps although it has work: the cure for a defect of glommio 0.9.0.
//!
//! The defect: between arming its preempt timer and looking for runnable tasks, the executor may
//! find that the timer has fired already. It then runs nothing, takes that for "nothing to run",
//! and parks. With the default timer of 100 ms this needs a pause of 100 ms between two
//! instructions (a throttled control group, a paused machine): rare, but the core would sleep until
//! something happens in its rings. A waker does not help (the task counts as scheduled already),
//! nor does a timer task (it is stranded too). Any completion in the executor's ring does.
//!
//! The cure: one thread for all cores looks every [`TICK`] whether a task was polled (a *beat*) on
//! each core since the last look. A core that fell silent is asked by its bell, which ends the
//! sleep. If tasks were runnable, they run now, and before the task that answers, because tasks
//! run in the order they became runnable; so an answer proves that nothing was stranded, and the
//! core is left alone. (An answer is no beat.) No answer by the next look means that the very turn
//! which the bell caused was hit by the defect too, that the executor was hit before it first
//! waited for its bell, or that a task computes for long. The bell cannot help in the first two
//! cases: no read is pending on it. Therefore the thread also gets a signal from now on, at every
//! look until it answers. It interrupts the wait of the executor (io_uring_enter is never
//! restarted), whatever is pending; a thread that computes does not notice.
//!
//! Cost: a process without work is looked at every [`IDLE_TICK`], and each of its cores asked. That
//! is needed: an event may end the sleep of an idle core and the defect strand the task it woke
//! before any beat. So stranded work waits 40 ms at most if the core was in use and 200 ms if it
//! was not, and 20 ms more each time the defect strikes again.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::cores::CoreId;
use super::doorbell::Signal;

const TICK: Duration = Duration::from_millis(20);
/// Also the silence after which a core counts as idle.
const IDLE_TICK: Duration = Duration::from_millis(200);
/// Looks without an answer after which the log says so.
const STUCK_AFTER_LOOKS: u32 = 50;
/// Nobody else uses it, and without our doing it is ignored.
const INTERRUPT: libc::c_int = libc::SIGURG;

/// Starts the watching thread. It ends when all cores have.
pub(super) fn watch(signals: Vec<(CoreId, Arc<Signal>)>) -> io::Result<()> {
    install_interrupt()?;
    let mut watched: Vec<Watched> = signals.into_iter().map(Watched::new).collect();
    let body = move || {
        let mut pause = TICK;
        while watched.iter().any(|core| !core.signal.has_ended()) {
            thread::sleep(pause);
            let mut in_use = false;
            for core in &mut watched {
                in_use |= core.look(pause);
            }
            pause = if in_use { TICK } else { IDLE_TICK };
        }
    };
    thread::Builder::new().name("watchdog".to_owned()).spawn(body)?;
    Ok(())
}

struct Watched {
    core: CoreId,
    signal: Arc<Signal>,
    beats: u64,
    silent: Duration,
    since_asked: Duration,
    looks_unanswered: u32,
}

impl Watched {
    fn new((core, signal): (CoreId, Arc<Signal>)) -> Self {
        let zero = Duration::ZERO;
        Self { core, signal, beats: 0, silent: zero, since_asked: zero, looks_unanswered: 0 }
    }

    /// One look, `paused` after the last; true while the core is in use or does not answer.
    fn look(&mut self, paused: Duration) -> bool {
        let Some(thread) = self.signal.thread() else { return false };
        let beats = self.signal.beats();
        if beats != self.beats {
            self.beats = beats;
            self.silent = Duration::ZERO;
            self.looks_unanswered = 0;
            return true;
        }
        let fell_silent = self.silent.is_zero();
        self.silent += paused;
        self.since_asked += paused;
        if self.signal.is_asked() {
            self.insist(thread);
            return true;
        }
        self.looks_unanswered = 0;
        if fell_silent || self.since_asked >= IDLE_TICK {
            self.signal.ask();
            self.since_asked = Duration::ZERO;
        }
        self.silent < IDLE_TICK
    }

    fn insist(&mut self, thread: libc::pid_t) {
        self.signal.ring();
        interrupt(thread);
        self.looks_unanswered = self.looks_unanswered.saturating_add(1);
        if self.looks_unanswered == STUCK_AFTER_LOOKS {
            let core = self.core.0;
            tracing::warn!(core, "a core has not looked at its tasks for a second");
        }
    }
}

/// Ends the system call in which a thread of this process waits. A thread that has just ended, or
/// its successor of the same number, takes no harm.
fn interrupt(thread: libc::pid_t) {
    // SAFETY: the signal has a handler that does nothing.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, INTERRUPT) };
}

/// Gives the signal a handler that does nothing; without one it would end no wait.
fn install_interrupt() -> io::Result<()> {
    extern "C" fn do_nothing(_: libc::c_int) {}
    // SAFETY: an all-zero action is a valid one.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = do_nothing as extern "C" fn(libc::c_int) as libc::sighandler_t;
    // Whatever can be continued after a signal is, so that nobody else sees it.
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: the action is valid and its handler safe at any time.
    let code = unsafe { libc::sigaction(INTERRUPT, &raw const action, std::ptr::null_mut()) };
    if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};
    use std::time::Instant;

    use super::super::{Options, start};
    use super::*;
    use crate::seam::{Clock, Spawn};

    /// In the environment of a child: `with` or `without` the watchdog.
    const ROLE: &str = "BASALT_TEST_WATCHDOG";
    const NAME: &str = "runtime::watchdog::tests::lost_wakeups_happen_and_the_kick_cures_them";
    /// A child that runs longer hangs. Undisturbed, 60 rounds take a tenth of a second; those with
    /// the watchdog get more time, since each cure costs up to 60 ms.
    const HANGS_AFTER: Duration = Duration::from_secs(4);
    const HANGS_AFTER_WITH: Duration = Duration::from_secs(20);
    const CHILDREN: usize = 20;
    const AT_ONCE: usize = 10;

    /// Children with a preempt timer that fires about as soon as it is armed, each doing short
    /// bursts of work. Without the kick some sleep for ever; with it none does.
    #[test]
    fn lost_wakeups_happen_and_the_kick_cures_them() {
        match std::env::var(ROLE).as_deref() {
            Ok("with") => return short_bursts(true),
            Ok("without") => return short_bursts(false),
            _ => {}
        }
        let hung_with = count_hung("with", HANGS_AFTER_WITH);
        let hung_without = count_hung("without", HANGS_AFTER);
        println!("hung: {hung_without} of {CHILDREN} without the kick, {hung_with} with it");
        assert_eq!(hung_with, 0, "the kick did not cure every lost wake-up");
        assert!(hung_without > 0, "the defect was not provoked: this test shows nothing");
    }

    fn short_bursts(watchdog: bool) {
        let preempt_timer = Some(Duration::from_micros(10));
        let options = Options { preempt_timer, watchdog, ..Options::new(1, 1 << 20) };
        let running = start(&options, |runtime| async move {
            for _ in 0..60 {
                for _ in 0..4 {
                    let clock = runtime.clone();
                    runtime.spawn(async move { clock.sleep(Duration::from_micros(50)).await });
                }
                runtime.sleep(Duration::from_millis(1)).await;
            }
        });
        running.expect("a core starts").join().expect("the core ended well");
    }

    #[expect(clippy::disallowed_methods, reason = "a time-out for other processes")]
    fn count_hung(role: &str, limit: Duration) -> usize {
        let mut hung = 0;
        for _ in 0..CHILDREN / AT_ONCE {
            let started = Instant::now();
            let children: Vec<Child> = (0..AT_ONCE).map(|_| child(role)).collect();
            for child in children {
                hung += usize::from(hangs(child, || started.elapsed() > limit));
            }
        }
        hung
    }

    fn child(role: &str) -> Child {
        Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", NAME, "--test-threads", "1"])
            .env(ROLE, role)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a child")
    }

    /// Whether the child had to be ended.
    fn hangs(mut child: Child, too_late: impl Fn() -> bool) -> bool {
        while !too_late() {
            if let Some(status) = child.try_wait().expect("a child") {
                assert!(status.success(), "a child failed: {status}");
                return false;
            }
            thread::sleep(Duration::from_millis(5));
        }
        child.kill().expect("a child that runs");
        child.wait().expect("a child");
        true
    }
}

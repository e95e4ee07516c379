//! SIGTERM and SIGINT as a future.
//!
//! The signals are blocked in every thread, and one thread of our own waits for them and rings
//! the bell of the core that asked. [`Signals::block`] therefore comes first in `main`, before any
//! other thread is started: threads inherit what is blocked.

use std::future::poll_fn;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::thread;

use super::GlommioRuntime;
use super::doorbell::Signal as Doorbell;

/// The signals that ask this process to end.
pub struct Signals {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    arrived: AtomicU32,
    /// Of the core that waits, touched only when it begins to and when a signal comes.
    listener: Mutex<Option<Arc<Doorbell>>>,
}

impl Signals {
    /// Blocks the signals in this thread and those it starts from now on, and waits for them in a
    /// thread of its own.
    pub fn block() -> io::Result<Self> {
        let set = end_signals();
        // SAFETY: `set` is a valid set, and the old one is not asked for.
        let code =
            unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
        if code != 0 {
            return Err(io::Error::from_raw_os_error(code));
        }
        let shared = Arc::new(Shared::default());
        let told = Arc::clone(&shared);
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            loop {
                wait_for(&set);
                told.arrived.fetch_add(1, Ordering::SeqCst);
                let listener = told.listener.lock().expect("nobody panics with it").clone();
                if let Some(doorbell) = listener {
                    doorbell.ring();
                }
            }
        })?;
        Ok(Self { shared })
    }

    /// Ends when one of the signals has arrived, also before the call. Each call takes one signal,
    /// so a second one can be told from the first. One core waits at a time: the one that began last.
    pub async fn arrived(&self, runtime: &GlommioRuntime) {
        let doorbell = Arc::clone(&runtime.core.signal);
        *self.shared.listener.lock().expect("nobody panics with it") = Some(doorbell);
        poll_fn(|context| {
            runtime.core.wake_at_bell(context.waker());
            let arrived = &self.shared.arrived;
            let taken = arrived
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |count| count.checked_sub(1));
            if taken.is_ok() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

fn end_signals() -> libc::sigset_t {
    // SAFETY: an all-zero set is a valid place to make a set in.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    for signal in [libc::SIGTERM, libc::SIGINT] {
        // SAFETY: `set` is valid, and the signals exist.
        unsafe { libc::sigaddset(&raw mut set, signal) };
    }
    set
}

fn wait_for(set: &libc::sigset_t) {
    let mut signal = 0;
    // SAFETY: both pointers are valid for the call. The only error is an invalid set.
    let code = unsafe { libc::sigwait(set, &raw mut signal) };
    assert_eq!(code, 0, "these signals can be waited for");
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    use std::process::{Command, Stdio};

    use super::super::tests::on_one_core;
    use super::*;

    const ROLE: &str = "BASALT_TEST_SIGNALS";

    /// In a child, since signals are sent to processes. Its threads inherit that the signals are
    /// blocked, as those of the server inherit it from `main`.
    #[test]
    fn two_signals_are_two_wakeups_and_the_process_lives() {
        if std::env::var_os(ROLE).is_some() {
            return wait_for_two();
        }
        let mut command = Command::new(std::env::current_exe().expect("this test"));
        command
            .args(["--exact", "--nocapture", "--test-threads", "1"])
            .arg("runtime::signals::tests::two_signals_are_two_wakeups_and_the_process_lives")
            .env(ROLE, "child")
            .stdout(Stdio::piped());
        // SAFETY: blocking signals is a system call, safe between fork and exec.
        unsafe {
            command.pre_exec(|| {
                let set = end_signals();
                libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
                Ok(())
            });
        }
        let mut child = command.spawn().expect("a child");
        let process = libc::pid_t::try_from(child.id()).expect("a process id");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut seen = Vec::new();
        for line in output.lines() {
            let line = line.expect("text");
            let signal = match line.as_str() {
                "waits" => libc::SIGTERM,
                "first" => libc::SIGINT,
                _ => 0,
            };
            // SAFETY: plain system call; signal 0 is none.
            unsafe { libc::kill(process, signal) };
            seen.push(line);
        }
        let status = child.wait().expect("a child");
        assert!(status.success(), "ended by {:?}, said {seen:?}", status.signal());
        assert!(seen.contains(&"second".to_owned()), "{seen:?}");
    }

    fn wait_for_two() {
        let signals = Arc::new(Signals::block().expect("a thread"));
        on_one_core(move |runtime| {
            let signals = Arc::clone(&signals);
            async move {
                println!("\nwaits");
                signals.arrived(&runtime).await;
                println!("first");
                signals.arrived(&runtime).await;
                println!("second");
            }
        });
    }
}

//! The seams on a running core: clock, random, spawn; and what start and join report.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};

use super::*;

/// Runs `main` on a core of its own and hands out its result.
pub(super) fn on_one_core<T, F, Fut>(main: F) -> T
where
    T: Send + 'static,
    F: Fn(GlommioRuntime) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = T> + 'static,
{
    let (sender, receiver) = mpsc::channel();
    let options = Options::new(1, 8 << 20);
    let running = start(&options, move |runtime| {
        let (main, sender) = (main.clone(), sender.clone());
        async move {
            let result = main(runtime).await;
            sender.send(result).expect("the test waits");
        }
    });
    running.expect("a core starts").join().expect("the core ended well");
    receiver.recv().expect("a result")
}

#[test]
fn time_passes_and_random_numbers_differ() {
    let (before, after, numbers) = on_one_core(|runtime| async move {
        let before = runtime.now();
        runtime.sleep(Duration::from_millis(20)).await;
        let numbers: Vec<u64> = (0..100).map(|_| runtime.random_u64()).collect();
        (before, runtime.now(), numbers)
    });
    let passed = after.since(before);
    assert!(passed >= Duration::from_millis(20) && passed < Duration::from_secs(5), "{passed:?}");
    let mut distinct = numbers.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), numbers.len());
}

#[test]
fn a_panicking_task_ends_alone() {
    let survived = on_one_core(|runtime| async move {
        runtime.spawn(async { panic!("on purpose") });
        runtime.sleep(Duration::from_millis(5)).await;
        true
    });
    assert!(survived);
}

#[test]
fn join_names_the_core_that_panicked() {
    let options = Options::new(2, 1 << 20);
    let running = start(&options, |runtime| async move {
        assert_eq!(runtime.core().0, 0, "only core 0 is liked");
    });
    let failure = running.expect("cores start").join().expect_err("core 1 panicked");
    assert_eq!(failure.core, CoreId(1));
    assert!(failure.reason.contains("only core 0 is liked"), "{failure}");
}

#[test]
fn a_waiting_buffer_is_woken_from_another_thread() {
    let blocks = on_one_core(|runtime| async move {
        let mut taken = Vec::new();
        while let Some(buffer) = runtime.arena().take(Arena::BUFFER_MAX) {
            taken.push(buffer);
        }
        #[expect(clippy::disallowed_methods, reason = "a thread that is no core")]
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            drop(taken);
        });
        runtime.arena().take_or_wait(Arena::BUFFER_MAX).await.length_blocks()
    });
    assert_eq!(blocks, Arena::BUFFER_MAX);
}

#[test]
fn cores_run_on_their_own_processors() {
    let seen = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&seen);
    let options = Options { arena_bytes: 1 << 20, ..Options::for_this_machine(0) };
    let running = start(&options, move |runtime| {
        let seen = Arc::clone(&counted);
        async move {
            let allowed = cores::allowed_processors().expect("a mask");
            assert_eq!(allowed, [runtime.core.cpu]);
            seen.fetch_add(1, Ordering::Relaxed);
        }
    });
    running.expect("cores start").join().expect("the cores ended well");
    assert_eq!(seen.load(Ordering::Relaxed), u32::from(options.cores));
}

/// The watchdog's questions are all that an idle core does.
#[test]
fn an_idle_core_uses_almost_no_processor_time() {
    let (elapsed, used) = on_one_core(|runtime| async move {
        runtime.sleep(Duration::from_millis(100)).await;
        let (before, used_before) = (runtime.now(), thread_time());
        runtime.sleep(Duration::from_secs(2)).await;
        (runtime.now().since(before), thread_time() - used_before)
    });
    println!("{used:?} of {elapsed:?}");
    assert!(used < elapsed / 100, "{used:?} of {elapsed:?}");
}

/// Processor time of the calling thread.
fn thread_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the answer.
    let code = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(code, 0);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Two tasks that never wait for anything else share the core with a third that waits for I/O.
#[test]
fn a_sleep_of_nothing_lets_io_in() {
    let waited = on_one_core(|runtime| async move {
        let stop = Rc::new(Cell::new(false));
        let yields = Rc::new(Cell::new(0));
        for _ in 0..2 {
            let (clock, stop, yields) = (runtime.clone(), Rc::clone(&stop), Rc::clone(&yields));
            runtime.spawn(async move {
                while !stop.get() {
                    yields.set(yields.get() + 1);
                    clock.sleep(Duration::ZERO).await;
                }
            });
        }
        let listener = net::Listener::bind(&runtime, "127.0.0.1:0".parse().expect("an address"));
        let address = listener.expect("bound").local_address();
        let before = runtime.now();
        for _ in 0..10 {
            let refused = net::TcpStream::connect(address, Duration::from_secs(5)).await;
            assert!(refused.is_err(), "the listener is gone");
        }
        runtime.sleep(Duration::from_millis(20)).await;
        stop.set(true);
        (runtime.now().since(before), yields.get())
    });
    let (waited, yields) = waited;
    println!("{yields} yields in {waited:?}");
    assert!(waited < Duration::from_millis(500), "{waited:?}");
    assert!(yields > 100, "{yields}");
}

/// The caller of `spawn` may have something borrowed that the task wants.
#[test]
fn a_task_does_not_begin_inside_spawn() {
    on_one_core(|runtime| async move {
        let order = Rc::new(RefCell::new(vec![]));
        let seen = Rc::clone(&order);
        {
            let mut held = order.borrow_mut();
            runtime.spawn(async move { seen.borrow_mut().push("task") });
            held.push("caller");
        }
        runtime.sleep(Duration::ZERO).await;
        assert_eq!(*order.borrow(), ["caller", "task"]);
    });
}

/// What is still pending when the main future of a core ends is dropped, not leaked.
#[test]
fn tasks_that_wait_are_dropped_with_their_core() {
    struct Dropped(Arc<AtomicU32>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let dropped = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&dropped);
    on_one_core(move |runtime| {
        let dropped = Arc::clone(&counted);
        async move {
            for kind in 0..3 {
                let (guard, clock) = (Dropped(Arc::clone(&dropped)), runtime.clone());
                runtime.spawn(async move {
                    let _guard = guard;
                    match kind {
                        0 => std::future::pending::<()>().await,
                        1 => clock.sleep(Duration::from_secs(1000)).await,
                        _ => {
                            let buffers = (clock.arena(), Arena::BUFFER_MAX);
                            let mut all = Vec::new();
                            loop {
                                all.push(buffers.0.take_or_wait(buffers.1).await);
                            }
                        }
                    }
                });
            }
            runtime.sleep(Duration::from_millis(5)).await;
        }
    });
    assert_eq!(dropped.load(Ordering::Relaxed), 3);
}

/// glommio itself leaves two descriptors behind per executor; nothing of ours comes on top.
#[test]
fn starting_and_ending_cores_leaves_no_descriptors_of_ours() {
    const ROLE: &str = "BASALT_TEST_DESCRIPTORS";
    const NAME: &str = "runtime::tests::starting_and_ending_cores_leaves_no_descriptors_of_ours";
    if std::env::var_os(ROLE).is_none() {
        // In a process of its own, where no other test opens anything.
        let mut child = std::process::Command::new(std::env::current_exe().expect("this test"));
        let status = child.args(["--exact", NAME]).env(ROLE, "child").status();
        assert!(status.expect("a child").success());
        return;
    }
    let open = || std::fs::read_dir("/proc/self/fd").expect("a list").count();
    let round = || on_one_core(|runtime| async move { runtime.spawn(std::future::pending()) });
    round();
    let before = open();
    for _ in 0..20 {
        round();
    }
    // The watching threads hold the bells until they notice the end.
    for _ in 0..200 {
        if open() <= before + 40 {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("{} descriptors were left behind by 20 cores", open().saturating_sub(before));
}

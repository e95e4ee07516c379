//! The executor of a simulation: tasks, events in virtual time, and the choice of what runs next.
//!
//! One step either polls one task, drawn at random from all that can run, or, when none can, moves
//! time on to the next event. A poll takes some hundred virtual nanoseconds, so that a task that
//! never waits still lets time pass. Every poll and event is mixed into a hash: two runs of one
//! seed have the same hash, or something outside the seed decided.
//!
//! Tasks belong to groups (a core; a node with its cores below it). Stopping a group drops its
//! tasks where they stand, as a crash does; pausing it lets them wait, whatever wakes them, as
//! SIGSTOP does. Events belong to the world: they are devices and wires, and go on.
//!
//! A panic in a task is a failed test: it unwinds through the run, it is not caught as in
//! production.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use super::prng::Prng;
use super::runtime::{SimRuntime, WallClock};
use crate::seam::{Moment, Spawn};

/// Steps after which a run is taken to be stuck in a loop.
const STEPS_MAX: u64 = 1_000_000_000;
/// A poll takes less virtual time than this.
const POLL_NS_MAX: u64 = 500;

type TaskId = u64;
type Task = Pin<Box<dyn Future<Output = ()>>>;

/// A whole simulated world. Dropping it drops its tasks and events.
pub struct Simulation {
    world: Rc<World>,
}

/// Why a run ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// The condition holds.
    Reached,
    /// The time given is over.
    Deadline,
    /// No task can run and no event is to come.
    Idle,
}

impl Simulation {
    pub fn new(seed: u64) -> Self {
        let state = State {
            seed,
            prng: Prng::new(seed),
            now_ns: 0,
            hash: seed,
            steps: 0,
            steps_max: STEPS_MAX,
            tasks: BTreeMap::new(),
            task_count: 0,
            runnable: Vec::new(),
            held: Vec::new(),
            events: BTreeMap::new(),
            event_count: 0,
            groups: Vec::new(),
        };
        Self { world: Rc::new(World { state: RefCell::new(state), woken: Arc::default() }) }
    }

    /// A new group of tasks at the root: a node, or a core of one.
    pub fn group(&self) -> SimRuntime {
        SimRuntime::new(self.world.clone(), None)
    }

    pub fn now(&self) -> Moment {
        self.world.now()
    }

    /// What happened so far, in one number.
    pub fn event_hash(&self) -> u64 {
        self.world.state.borrow().hash
    }

    /// A run that takes more steps than this panics.
    pub fn set_step_budget(&self, steps: u64) {
        self.world.state.borrow_mut().steps_max = steps;
    }

    /// Runs until no task can run and no event is to come.
    pub fn run(&self) {
        let ended = self.run_to(|| false, None);
        assert_eq!(ended, Ended::Idle, "nothing else ends this run");
    }

    /// Runs for `duration` of virtual time, all of which passes.
    pub fn run_for(&self, duration: Duration) {
        let deadline = self.now().plus(duration);
        self.run_to(|| false, Some(deadline));
        let mut state = self.world.state.borrow_mut();
        state.now_ns = state.now_ns.max(deadline.0);
    }

    /// Runs until `condition` holds, which is looked at before each step.
    pub fn run_until(&self, condition: impl FnMut() -> bool, within: Duration) -> Ended {
        self.run_to(condition, Some(self.now().plus(within)))
    }

    /// Runs `future` as a task of the group of `runtime`, and everything else, until it is done.
    pub fn block_on<T: 'static>(
        &self,
        runtime: &SimRuntime,
        future: impl Future<Output = T> + 'static,
    ) -> T {
        let output = Rc::new(Cell::new(None));
        let done = Rc::new(Cell::new(false));
        let (store, flag) = (output.clone(), done.clone());
        runtime.spawn(async move {
            store.set(Some(future.await));
            flag.set(true);
        });
        let ended = self.run_to(|| done.get(), None);
        let seed = self.world.state.borrow().seed;
        assert_eq!(ended, Ended::Reached, "seed {seed}: the task waits for what never comes");
        output.take().expect("the flag is set after the output")
    }

    fn run_to(&self, mut condition: impl FnMut() -> bool, deadline: Option<Moment>) -> Ended {
        let deadline_ns = deadline.map_or(u64::MAX, |deadline| deadline.0);
        loop {
            if condition() {
                return Ended::Reached;
            }
            match self.world.step(deadline_ns) {
                Step::Taken => {}
                Step::Beyond => return Ended::Deadline,
                Step::Idle => return Ended::Idle,
            }
        }
    }
}

impl Drop for Simulation {
    fn drop(&mut self) {
        // Tasks and events own handles of the world, and the world owns them: without this, a
        // world with anything left in it would never be freed.
        let groups = self.world.state.borrow().groups.len();
        (0..groups).for_each(|group| self.world.stop(group));
        let events = mem::take(&mut self.world.state.borrow_mut().events);
        drop(events);
        self.world.state.borrow_mut().events.clear();
    }
}

pub(super) struct World {
    state: RefCell<State>,
    woken: Arc<Woken>,
}

struct State {
    seed: u64,
    prng: Prng,
    now_ns: u64,
    hash: u64,
    steps: u64,
    steps_max: u64,
    tasks: BTreeMap<TaskId, TaskEntry>,
    task_count: u64,
    runnable: Vec<TaskId>,
    /// Tasks of paused groups that were woken.
    held: Vec<TaskId>,
    /// By time, then by age.
    events: BTreeMap<EventId, Event>,
    event_count: u64,
    groups: Vec<Group>,
}

struct TaskEntry {
    group: usize,
    /// Absent while the task is polled.
    task: Option<Task>,
    waker: Arc<TaskWaker>,
}

struct Group {
    parent: Option<usize>,
    alive: bool,
    paused: bool,
    prng: Prng,
    wall: WallClock,
}

/// Time in nanoseconds, and a running number.
pub(super) type EventId = (u64, u64);

enum Event {
    Wake(Waker),
    Run(Box<dyn FnOnce()>),
}

enum Step {
    Taken,
    /// The next event lies beyond the deadline; time stands at the deadline.
    Beyond,
    Idle,
}

impl World {
    pub(super) fn now(&self) -> Moment {
        Moment(self.state.borrow().now_ns)
    }

    pub(super) fn note(&self, value: u64) {
        self.state.borrow_mut().note(value);
    }

    /// Draws from the world's own sequence.
    pub(super) fn draw<T>(&self, draw: impl FnOnce(&mut Prng) -> T) -> T {
        draw(&mut self.state.borrow_mut().prng)
    }

    /// Draws from the sequence of a group.
    pub(super) fn draw_in_group(&self, group: usize) -> u64 {
        self.state.borrow_mut().groups[group].prng.next_u64()
    }

    pub(super) fn with_wall<T>(
        &self,
        group: usize,
        work: impl FnOnce(&mut WallClock, u64) -> T,
    ) -> T {
        let state = &mut *self.state.borrow_mut();
        work(&mut state.groups[group].wall, state.now_ns)
    }

    pub(super) fn add_group(&self, parent: Option<usize>) -> usize {
        let state = &mut *self.state.borrow_mut();
        let alive = parent.is_none_or(|parent| state.groups[parent].alive);
        let paused = parent.is_some_and(|parent| state.groups[parent].paused);
        let prng = state.prng.fork();
        state.groups.push(Group { parent, alive, paused, prng, wall: WallClock::default() });
        state.groups.len() - 1
    }

    pub(super) fn task_count(&self) -> usize {
        self.state.borrow().tasks.len()
    }

    pub(super) fn is_alive(&self, group: usize) -> bool {
        self.state.borrow().groups[group].alive
    }

    pub(super) fn stop(&self, group: usize) {
        let dropped: Vec<(TaskId, TaskEntry)> = {
            let state = &mut *self.state.borrow_mut();
            state.groups[group].alive = false;
            // A group is younger than its parent, so one pass reaches everything below.
            for at in group + 1..state.groups.len() {
                let parent = state.groups[at].parent;
                if parent.is_some_and(|parent| !state.groups[parent].alive) {
                    state.groups[at].alive = false;
                }
            }
            let groups = &state.groups;
            state.tasks.extract_if(.., |_, entry| !groups[entry.group].alive).collect()
        };
        // Destructors may spawn, wake and schedule, so the state is not borrowed here.
        drop(dropped);
    }

    pub(super) fn set_paused(&self, group: usize, paused: bool) {
        let state = &mut *self.state.borrow_mut();
        state.groups[group].paused = paused;
        for at in group + 1..state.groups.len() {
            if let Some(parent) = state.groups[at].parent
                && state.is_below(parent, group)
            {
                state.groups[at].paused = paused;
            }
        }
        if !paused {
            state.runnable.append(&mut state.held);
        }
    }

    pub(super) fn is_paused(&self, group: usize) -> bool {
        self.state.borrow().groups[group].paused
    }

    pub(super) fn spawn(&self, group: usize, task: Task) {
        let refused = {
            let state = &mut *self.state.borrow_mut();
            if state.groups[group].alive {
                let id = state.task_count;
                state.task_count += 1;
                let waker = Arc::new(TaskWaker {
                    task: id,
                    is_queued: AtomicBool::new(true),
                    woken: self.woken.clone(),
                });
                state.tasks.insert(id, TaskEntry { group, task: Some(task), waker });
                state.runnable.push(id);
                None
            } else {
                Some(task)
            }
        };
        drop(refused);
    }

    pub(super) fn wake_at(&self, at: Moment, waker: Waker) -> EventId {
        self.add_event(at, Event::Wake(waker))
    }

    pub(super) fn run_at(&self, at: Moment, run: Box<dyn FnOnce()>) {
        self.add_event(at, Event::Run(run));
    }

    pub(super) fn cancel(&self, event: EventId) {
        let cancelled = self.state.borrow_mut().events.remove(&event);
        drop(cancelled);
    }

    fn add_event(&self, at: Moment, event: Event) -> EventId {
        let state = &mut *self.state.borrow_mut();
        let id = (at.0.max(state.now_ns), state.event_count);
        state.event_count += 1;
        state.events.insert(id, event);
        id
    }

    fn step(&self, deadline_ns: u64) -> Step {
        self.count_step();
        while let Some(event) = self.take_due_event() {
            match event {
                Event::Wake(waker) => waker.wake(),
                Event::Run(run) => run(),
            }
        }
        if self.now().0 >= deadline_ns {
            return Step::Beyond;
        }
        if let Some((id, task, waker)) = self.take_runnable() {
            self.poll(id, task, &waker);
            return Step::Taken;
        }
        let state = &mut *self.state.borrow_mut();
        let Some((&(next_ns, _), _)) = state.events.first_key_value() else { return Step::Idle };
        state.now_ns = next_ns.min(deadline_ns);
        if next_ns > deadline_ns { Step::Beyond } else { Step::Taken }
    }

    fn count_step(&self) {
        let state = &mut *self.state.borrow_mut();
        state.steps += 1;
        let (seed, budget) = (state.seed, state.steps_max);
        assert!(state.steps <= budget, "seed {seed}: the run takes more than {budget} steps");
    }

    fn take_due_event(&self) -> Option<Event> {
        let state = &mut *self.state.borrow_mut();
        let entry = state.events.first_entry().filter(|entry| entry.key().0 <= state.now_ns)?;
        let ((at_ns, number), event) = entry.remove_entry();
        state.note(at_ns ^ number.rotate_left(32));
        Some(event)
    }

    fn take_runnable(&self) -> Option<(TaskId, Task, Waker)> {
        let state = &mut *self.state.borrow_mut();
        state.runnable.append(&mut self.woken.tasks.lock().expect("no panic while it is held"));
        while !state.runnable.is_empty() {
            let at = state.prng.index(state.runnable.len());
            let id = state.runnable.swap_remove(at);
            // A task that ended or was stopped may still have been woken.
            let Some(entry) = state.tasks.get_mut(&id) else { continue };
            if state.groups[entry.group].paused {
                state.held.push(id);
                continue;
            }
            let task = entry.task.take().expect("only one task is polled at a time");
            entry.waker.is_queued.store(false, Ordering::Relaxed);
            let waker = Waker::from(entry.waker.clone());
            state.now_ns += 1 + state.prng.below(POLL_NS_MAX);
            state.note(id);
            return Some((id, task, waker));
        }
        None
    }

    fn poll(&self, id: TaskId, mut task: Task, waker: &Waker) {
        let poll = task.as_mut().poll(&mut Context::from_waker(waker));
        let ended = {
            let state = &mut *self.state.borrow_mut();
            match (poll, state.tasks.get_mut(&id)) {
                (Poll::Pending, Some(entry)) => {
                    entry.task = Some(task);
                    None
                }
                // It is done, or its group was stopped while it ran.
                (_, entry) => {
                    let entry = entry.is_some().then(|| state.tasks.remove(&id));
                    Some((task, entry))
                }
            }
        };
        drop(ended);
    }
}

impl State {
    /// Whether the group is `above`, or below it.
    fn is_below(&self, mut group: usize, above: usize) -> bool {
        while let Some(parent) = self.groups[group].parent.filter(|_| group != above) {
            group = parent;
        }
        group == above
    }

    fn note(&mut self, value: u64) {
        let mixed =
            (self.hash ^ value ^ self.now_ns.rotate_left(40)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.hash = mixed ^ mixed >> 29;
    }
}

/// Tasks that were woken since the executor last looked. Behind a lock only because wakers are
/// `Send`; one thread uses it.
#[derive(Default)]
struct Woken {
    tasks: Mutex<Vec<TaskId>>,
}

struct TaskWaker {
    task: TaskId,
    is_queued: AtomicBool,
    woken: Arc<Woken>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }
    fn wake_by_ref(self: &Arc<Self>) {
        if !self.is_queued.swap(true, Ordering::Relaxed) {
            self.woken.tasks.lock().expect("no panic while it is held").push(self.task);
        }
    }
}

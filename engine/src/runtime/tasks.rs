//! The tasks of a core: each runs on its own, and ends alone if it panics.
//!
//! They are kept in a list because glommio does not drop the tasks that still wait when an
//! executor ends: their connections would stay open and their drives locked. [`Tasks::close`]
//! drops them on their core.
//!
//! A task does not begin inside the call that spawns it. (glommio would run it at once, in the
//! middle of whatever the caller has borrowed.)

use std::any::Any;
use std::cell::{Cell, OnceCell, RefCell};
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::doorbell::Core;

#[derive(Default)]
pub(super) struct Tasks {
    slots: RefCell<Vec<Option<Rc<Task>>>>,
    free: RefCell<Vec<usize>>,
    closed: Cell<bool>,
}

struct Task {
    /// `None` once it ended or was dropped.
    future: RefCell<Option<Pin<Box<dyn Future<Output = ()>>>>>,
    /// Set at the first poll; glommio uses one waker for all the life of a task.
    waker: OnceCell<Waker>,
}

/// Runs `future` as a task of its own. On a core that is about to end it is dropped.
pub(super) fn spawn(core: &Rc<Core>, future: impl Future<Output = ()> + 'static) {
    if core.tasks.closed.get() {
        return;
    }
    let task =
        Rc::new(Task { future: RefCell::new(Some(Box::pin(future))), waker: OnceCell::new() });
    let slot = core.tasks.insert(Rc::clone(&task));
    let core = Rc::clone(core);
    let shell = poll_fn(move |context| {
        if task.waker.set(context.waker().clone()).is_ok() {
            context.waker().wake_by_ref(); // The first poll is inside `spawn`.
            return Poll::Pending;
        }
        core.signal.beat();
        if task.poll(&core, context).is_pending() {
            return Poll::Pending;
        }
        core.tasks.remove(slot);
        Poll::Ready(())
    });
    glommio::spawn_local(shell).detach();
}

impl Tasks {
    fn insert(&self, task: Rc<Task>) -> usize {
        let mut slots = self.slots.borrow_mut();
        if let Some(slot) = self.free.borrow_mut().pop() {
            slots[slot] = Some(task);
            return slot;
        }
        slots.push(Some(task));
        slots.len() - 1
    }

    fn remove(&self, slot: usize) {
        // After `close` the list is empty and numbers mean nothing.
        if let Some(place) = self.slots.borrow_mut().get_mut(slot) {
            *place = None;
            self.free.borrow_mut().push(slot);
        }
    }

    /// Drops every task, and lets in no more.
    pub(super) fn close(&self, core: &Core) {
        self.closed.set(true);
        let tasks = self.slots.take();
        for task in tasks.into_iter().flatten() {
            task.end(core);
            if let Some(waker) = task.waker.get() {
                waker.wake_by_ref(); // So that glommio, too, gives up its part.
            }
        }
    }
}

impl Task {
    fn poll(&self, core: &Core, context: &mut Context<'_>) -> Poll<()> {
        let polled = {
            let mut place = self.future.borrow_mut();
            let Some(future) = place.as_mut() else { return Poll::Ready(()) };
            catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context)))
        };
        match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(())) => {}
            Err(panic) => report(core, &*panic),
        }
        self.end(core);
        Poll::Ready(())
    }

    fn end(&self, core: &Core) {
        let future = self.future.borrow_mut().take();
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(future))) {
            report(core, &*panic);
        }
    }
}

fn report(core: &Core, panic: &(dyn Any + Send)) {
    let reason = panic_text(panic);
    tracing::error!(core = core.id.0, reason, "a task panicked and was ended");
}

/// What a panic said, as far as it was text.
pub(super) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("(no text)")
}

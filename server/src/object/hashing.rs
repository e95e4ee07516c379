//! The MD5 of bodies. All bodies that one core takes are hashed side by side ([`basalt_engine::md5`]):
//! each leaves its bytes here and goes on, and who finds that enough have gathered hashes for all.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use basalt_engine::md5::{StreamId, Streams};
use bytes::Bytes;

/// Below this a body is hashed at once: company would save less than waiting for it costs.
const COMPANY_BYTES: usize = 16 << 10;

/// The hashes under way on one core. Clones share them.
#[derive(Clone, Default)]
pub(super) struct Hashing(Rc<RefCell<Streams>>);

/// The hash of one body.
pub(super) struct BodyHash {
    streams: Rc<RefCell<Streams>>,
    id: StreamId,
    finished: bool,
}

impl Hashing {
    pub(super) fn begin(&self) -> BodyHash {
        let id = self.0.borrow_mut().open();
        BodyHash { streams: self.0.clone(), id, finished: false }
    }
}

impl BodyHash {
    /// Takes the next bytes; waits its turn when many are to be hashed.
    pub(super) async fn update(&mut self, bytes: Bytes) {
        self.streams.borrow_mut().push(self.id, bytes);
        if self.streams.borrow().due(self.id).is_none() {
            return;
        }
        let_others_run().await;
        let mut streams = self.streams.borrow_mut();
        // Somebody else may have hashed it meanwhile.
        if let Some(left_bytes) = streams.due(self.id) {
            streams.run(self.id, left_bytes);
        }
    }

    pub(super) async fn finish(mut self) -> [u8; 16] {
        if self.pending_bytes() > COMPANY_BYTES {
            let_others_run().await;
        }
        self.finished = true;
        self.streams.borrow_mut().finish(self.id)
    }

    fn pending_bytes(&self) -> usize {
        self.streams.borrow().pending_bytes(self.id)
    }
}

impl Drop for BodyHash {
    fn drop(&mut self) {
        if !self.finished {
            self.streams.borrow_mut().close(self.id);
        }
    }
}

/// Gives every task that can run its turn.
async fn let_others_run() {
    let mut waited = false;
    poll_fn(|context| {
        if waited {
            return Poll::Ready(());
        }
        waited = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use futures_util::future::join_all;
    use md5::{Digest, Md5};

    use super::*;

    #[test]
    fn bodies_taken_together_have_the_hashes_of_bodies_alone() {
        let hashing = Hashing::default();
        let bodies = (0..5usize).map(|number| {
            let hashing = hashing.clone();
            async move {
                let body: Bytes = (0..number * 300_000).map(|at| (at * 7 / 5) as u8).collect();
                let mut hash = hashing.begin();
                for piece in body.chunks(70_001) {
                    hash.update(body.slice_ref(piece)).await;
                }
                assert_eq!(hash.finish().await, <[u8; 16]>::from(Md5::digest(&body)));
            }
        });
        let mut all = Box::pin(join_all(bodies));
        let polls = (0..1000).find(|_| all.as_mut().now_or_never().is_some());
        assert!(polls.is_some_and(|polls| polls > 0), "they wait for each other, and end");
    }

    #[test]
    fn a_body_that_is_given_up_leaves_nothing() {
        let hashing = Hashing::default();
        let mut given_up = hashing.begin();
        given_up.update(Bytes::from_static(b"half")).now_or_never().expect("it need not wait");
        drop(given_up);
        let next = hashing.begin().finish().now_or_never().expect("it need not wait");
        assert_eq!(next, <[u8; 16]>::from(Md5::digest(b"")));
    }
}

//! The MD5 of bodies. All bodies that one core takes are hashed side by side ([`basalt_engine::md5`]):
//! each leaves its bytes here, in the buffers that drives write meanwhile, and who comes to need its hash
//! takes the others along.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use basalt_engine::md5::{StreamId, Streams};
use bytes::Bytes;

/// Below this a body is hashed at once: company would save less than looking for it costs.
const COMPANY_BYTES: usize = 16 << 10;

/// The hashes under way on one core. Clones share them.
#[derive(Clone, Default)]
pub(super) struct Hashing(Rc<RefCell<Streams>>);

/// The hash of one body.
pub(super) struct BodyHash {
    streams: Rc<RefCell<Streams>>,
    id: StreamId,
    pushed_bytes: u64,
    finished: bool,
}

impl Hashing {
    pub(super) fn begin(&self) -> BodyHash {
        let id = self.0.borrow_mut().open();
        BodyHash { streams: self.0.clone(), id, pushed_bytes: 0, finished: false }
    }
}

impl BodyHash {
    /// Takes the next bytes, to be hashed later.
    pub(super) fn push(&mut self, bytes: Bytes) {
        self.pushed_bytes += bytes.len() as u64;
        self.streams.borrow_mut().push(self.id, bytes);
    }

    /// Hashes what was pushed if nobody else could go along: waiting would win nothing.
    pub(super) async fn go_ahead_if_alone(&mut self) {
        while self.pending_bytes() > 0 && self.streams.borrow().is_alone() {
            self.streams.borrow_mut().turn(self.id, 0);
            let_others_run().await;
        }
    }

    /// Hashes at least the first `bytes` of the body.
    pub(super) async fn reach(&mut self, bytes: u64) {
        let left = self.pushed_bytes.checked_sub(bytes).expect("no more than was pushed");
        let left = usize::try_from(left).expect("what is pushed and not hashed is in memory");
        while self.pending_bytes() > left {
            self.streams.borrow_mut().turn(self.id, left);
            let_others_run().await;
        }
    }

    pub(super) async fn finish(mut self) -> [u8; 16] {
        if self.pending_bytes() > COMPANY_BYTES {
            let_others_run().await;
            self.reach(self.pushed_bytes).await;
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
                for (at, piece) in body.chunks(70_001).enumerate() {
                    hash.push(body.slice_ref(piece));
                    if at % 3 == number % 3 {
                        hash.reach(70_001 * at as u64).await;
                    }
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
        given_up.push(Bytes::from_static(b"half"));
        drop(given_up);
        let next = hashing.begin().finish().now_or_never().expect("it need not wait");
        assert_eq!(next, <[u8; 16]>::from(Md5::digest(b"")));
    }
}

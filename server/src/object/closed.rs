//! What was proposed in a bucket that is closing or gone, and not decided.
//!
//! Where a bucket is closing, R voting drives of each set accept nothing in it any more, be it fresh or
//! recovered. What had been decided before, the closer's listing sees: it meets every decision. So once
//! the bucket is deleted, whatever is not known to be decided in it never was and never will be, however
//! many drives hold it: they may all forget it.

use basalt_engine::request::{Certificate, Digest, Reply, Request};
use basalt_engine::seam::Runtime;
use basalt_engine::units::{Ballot, DriveIndex, Key, SetIndex};
use basalt_net::mailbox::Mailbox;

use super::error::{Error, Result};
use super::store::Store;

impl<M: Mailbox, R: Runtime> Store<M, R> {
    /// Sees to a key in which nothing can be decided because its bucket is closing or gone. A closing
    /// that its closer left is brought to its end first, and the key is settled after that.
    pub(super) async fn settle_in_closed_bucket(&self, set: SetIndex, key: &Key) -> Result<()> {
        match self.name_of_bucket(key.bucket()).await? {
            Some(name) => {
                self.finish_closing(&name).await?;
                Err(Error::Conflict)
            }
            None => self.forget_undecided(set, key).await,
        }
    }

    /// Has every drive that answers forget what it accepted in the slot after the head.
    async fn forget_undecided(&self, set: SetIndex, key: &Key) -> Result<()> {
        let digests = self.digests(set, key).await;
        let slots = || digests.values().flat_map(|digest: &Digest| &digest.slots);
        let head = slots().filter(|state| state.certified).max_by_key(|state| state.slot);
        let above = |slot| head.is_none_or(|head| slot > head.slot);
        let held = slots().filter(|state| state.accepted.is_some() && above(state.slot));
        let Some(slot) = held.map(|state| state.slot).min() else { return Ok(()) };
        let base = head.and_then(|head| {
            let (_, record) = head.accepted.as_ref()?;
            Some(Certificate { slot: head.slot, operation: record.operation() })
        });
        let rounds = slots().filter(|state| state.slot == slot).map(|state| state.promised.round);
        let round = rounds.max().unwrap_or(0) + 1;
        let ballot = Ballot { round, proposer: self.runtime().random_u64() };
        let epoch = self.map(set).epoch;
        let prepare =
            |&drive| (drive, Request::Prepare { epoch, key: key.clone(), slot, ballot, base });
        let mut replies = self.mailbox().send(set, digests.keys().map(prepare).collect());
        let mut promised: Vec<DriveIndex> = Vec::new();
        while let Some((drive, reply)) = replies.next().await {
            if matches!(reply, Reply::Promised { .. }) {
                promised.push(drive);
            }
        }
        let abandon = |drive| (drive, Request::Abandon { epoch, key: key.clone(), slot, ballot });
        let mut replies = self.mailbox().send(set, promised.into_iter().map(abandon).collect());
        while replies.next().await.is_some() {}
        tracing::debug!(set = set.0, ?key, ?slot, "forgot what was proposed in a deleted bucket");
        Ok(())
    }
}

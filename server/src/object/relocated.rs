//! Payloads of parts that a manifest lists. Nothing on a drive says which object they belong to but the
//! name of the part's key under which they were staged; so when the object goes, nothing frees them
//! there. Each node walks through those on its own drives, page by page, and has those released that the
//! object's versions, its head and its archives, do not list any more.
//!
//! A part's payload becomes relocated only after the object that it is part of was decided, and no other
//! object ever lists it: once a certain read of the head does not, none will.

use std::collections::{BTreeMap, BTreeSet};

use basalt_engine::record::Kind;
use basalt_engine::request::{Reply, Request};
use basalt_engine::seam::Runtime;
use basalt_engine::units::{DriveIndex, Key, Keyspace, PayloadId, SetIndex};
use basalt_net::mailbox::Mailbox;
use basalt_net::quorum::drives_in;

use super::error::Result;
use super::store::Store;
use super::upload::object_key;
use super::version::archived_in;

/// Payloads that one page asks of a drive.
const PAGE_PAYLOADS: u32 = 1024;

/// What a page of the walk came to.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Released {
    /// Shards that were freed.
    pub shards: usize,
    /// Where the next page begins; `None` at the end.
    pub next: Option<PayloadId>,
}

/// Relocated payloads and the drives that hold shards of them.
type Holders = BTreeMap<PayloadId, Vec<DriveIndex>>;

impl<M: Mailbox, R: Runtime> Store<M, R> {
    /// Frees, of one page of relocated payloads on `drives` (one bit each) from `after` on, those that
    /// nothing needs any more.
    pub async fn release_relocated(
        &self,
        set: SetIndex,
        drives: u16,
        after: Option<PayloadId>,
    ) -> Result<Released> {
        let (objects, next) = self.relocated_page(set, drives, after).await;
        let mut released = Released { shards: 0, next };
        for (object, payloads) in objects {
            match self.payloads_listed(set, &object).await {
                Ok(Some(listed)) => {
                    let vain =
                        payloads.into_iter().filter(|(payload, _)| !listed.contains(payload));
                    released.shards += self.release(set, vain.collect()).await;
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(set = set.0, ?object, %error, "parts not looked through yet");
                }
            }
        }
        Ok(released)
    }

    /// A page of these drives' relocated payloads by the object whose parts they were, and where the next
    /// page begins.
    async fn relocated_page(
        &self,
        set: SetIndex,
        drives: u16,
        after: Option<PayloadId>,
    ) -> (BTreeMap<Key, Holders>, Option<PayloadId>) {
        let request = || Request::Relocated { after, limit: PAGE_PAYLOADS };
        let requests = drives_in(drives).map(|drive| (drive, request())).collect();
        let mut replies = self.mailbox().send(set, requests);
        let mut objects: BTreeMap<Key, Holders> = BTreeMap::new();
        let mut next: Option<PayloadId> = None;
        while let Some((drive, reply)) = replies.next().await {
            // A drive that does not answer is asked again on the next walk.
            let Reply::Orphans { entries, more } = reply else { continue };
            if let Some(last) = entries.last().filter(|_| more) {
                next = Some(next.map_or(last.payload, |next| next.min(last.payload)));
            }
            for entry in entries {
                // What repair rebuilds, it stages under the object's own key.
                let object = match entry.key.space() {
                    Keyspace::Objects => Some(entry.key.clone()),
                    Keyspace::Versions => archived_in(&entry.key).map(|(object, _)| object),
                    _ => object_key(&entry.key),
                };
                let Some(object) = object else { continue };
                let holders = objects.entry(object).or_default();
                holders.entry(entry.payload).or_default().push(drive);
            }
        }
        if let Some(next) = next {
            objects.values_mut().for_each(|holders| holders.retain(|payload, _| *payload <= next));
            objects.retain(|_, holders| !holders.is_empty());
        }
        (objects, next)
    }

    /// The payloads that the key's versions list; `None` where that cannot be said: one that is lost
    /// keeps what it had, and a key without any has none that could have listed them.
    async fn payloads_listed(
        &self,
        set: SetIndex,
        object: &Key,
    ) -> Result<Option<BTreeSet<PayloadId>>> {
        let Some((_, record)) = self.decide_head(set, object).await? else { return Ok(None) };
        if record.kind() == Kind::Lost {
            return Ok(None);
        }
        let listed = self.payloads_of(object, &record).await?;
        let mut listed: BTreeSet<PayloadId> =
            listed.into_iter().map(|layout| layout.payload).collect();
        if record.lineage().is_some() {
            let (archived, is_all) = self.payloads_archived(set, object).await?;
            if !is_all {
                return Ok(None);
            }
            listed.extend(archived);
        }
        Ok(Some(listed))
    }

    /// Has the drives free shards. Answers how many they freed.
    async fn release(&self, set: SetIndex, payloads: Holders) -> usize {
        let mut by_drive: Vec<(DriveIndex, Request)> = Vec::new();
        for (payload, drives) in payloads {
            by_drive.extend(drives.into_iter().map(|drive| (drive, Request::Release { payload })));
        }
        let mut replies = self.mailbox().send(set, by_drive);
        let mut freed = 0;
        while let Some((_, reply)) = replies.next().await {
            freed += usize::from(matches!(reply, Reply::Done));
        }
        freed
    }
}

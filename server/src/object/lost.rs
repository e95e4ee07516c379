//! Payloads that are gone for good: their drives were replaced, and fewer than k shards are left.
//!
//! Such a record would answer "cannot be read now" for ever, be repaired for ever, and keep the
//! newcomer from voting. So the record is decided (it may have been chosen: nothing else can stand in its
//! slot), and after it one that says "lost". The key then answers 503 and names the version, is listed
//! as ever, keeps what the version had superseded, and takes the next write.
//!
//! It has to be certain that no shard comes back, and that nobody is still about to acknowledge the
//! version. So all of this must hold (docs/protocol.md, "Lost"):
//! - every drive of the present map answers, as a member, and with that map: the shards that are
//!   missing were on drives that may never return, or are given up;
//! - the same record was found so under an older map already, and a newer one is installed since
//!   ([`Store::fence_writers_of_the_lost`]). A record is proposed by its writer in one epoch, and drives
//!   refuse the steps of an older one: no copy is still on its way, and its writer will not succeed.

use std::collections::BTreeMap;

use basalt_engine::record::{Kind, Layout, PayloadForm, Record};
use basalt_engine::request::{Reply, Request};
use basalt_engine::seam::Runtime;
use basalt_engine::units::{Epoch, Key, OperationId, SetIndex};
use basalt_net::loss::{self, Census, Newest, Suspicion, lost_record};
use basalt_net::mailbox::Mailbox;
use basalt_net::quorum::{all_drives, drives_in};
use basalt_net::reader::{Head, Reading};

use super::error::{Error, Result};
use super::store::Store;
use super::version::{Which, archived_in};

/// Records that are kept in mind; the others wait for their turn.
const MISSED_MAX: usize = 1024;

/// The records that were found without enough shards, and under which map.
#[derive(Default)]
pub(super) struct Missed(BTreeMap<(SetIndex, Key), Suspicion>);

impl Missed {
    /// Notes the record. Answers whether it was seen so under an older map.
    fn note(&mut self, set: SetIndex, key: &Key, head: &Head, epoch: Epoch) -> bool {
        let (place, now) = ((set, key.clone()), Suspicion::of(head, epoch));
        match self.0.get(&place) {
            Some(known) if known.is_same(&now) => known.is_certain(&now),
            known => {
                if known.is_some() || self.0.len() < MISSED_MAX {
                    self.0.insert(place, now);
                }
                false
            }
        }
    }

    fn forget(&mut self, set: SetIndex, key: &Key) {
        self.0.remove(&(set, key.clone()));
    }

    fn any_since(&self, set: SetIndex, epoch: Epoch) -> bool {
        self.0.iter().any(|((of, _), known)| (*of, known.since) == (set, epoch))
    }
}

impl<M: Mailbox, R: Runtime> Store<M, R> {
    /// Finds out whether the newest record of the key is lost, and once that is certain, has it decided
    /// so. Answers whether it was.
    pub(super) async fn consider_loss(&self, set: SetIndex, key: &Key) -> Result<bool> {
        let epoch = self.map(set).epoch;
        let Some(newest) = self.newest(set, key).await else {
            return Ok(false);
        };
        if !self.is_beyond_repair(set, key, &newest.head.1).await {
            self.missed().borrow_mut().forget(set, key);
            return Ok(false);
        }
        let certain = self.missed().borrow_mut().note(set, key, &newest.head, epoch);
        if !certain || self.map(set).epoch != epoch {
            return Ok(false);
        }
        if !newest.decided {
            // It may have been chosen, so it is: without its payload.
            let (slot, record) = &newest.head;
            let operation = record.operation();
            self.decide_without_payload(set, key, *slot, newest.base, operation).await?;
        }
        self.decide_lost(set, key, newest).await?;
        self.missed().borrow_mut().forget(set, key);
        Ok(true)
    }

    /// Decides a map anew where records were found without enough shards under the present one.
    pub async fn fence_writers_of_the_lost(&self, set: SetIndex) -> Result<()> {
        let epoch = self.map(set).epoch;
        let needed = self.missed().borrow().any_since(set, epoch);
        if needed { self.renew_map(set).await } else { Ok(()) }
    }

    /// The newest record of the key that is decided, or else may be, and whether it is decided, as
    /// every member tells with the present map; `None` where one does not answer.
    async fn newest(&self, set: SetIndex, key: &Key) -> Option<Newest> {
        let map = self.map(set);
        let mut reading = Reading::new(self.quorums(set), self.voting_mask(set));
        for (drive, digest) in self.digests(set, key).await {
            reading.add(drive, digest);
        }
        Newest::of(&reading, all_drives(map.drive_count()), map.epoch)
    }

    /// Whether fewer than k shards of a payload are on all drives together, as all of them say.
    async fn is_beyond_repair(&self, set: SetIndex, key: &Key, record: &Record) -> bool {
        if record.kind() != Kind::Data {
            return false;
        }
        let own: Vec<_> = record.payloads().collect();
        match self.has_too_few(set, &own).await {
            Some(false) if record.form() == PayloadForm::Manifest => {
                let Ok(all) = self.payloads_of(key, record).await else { return false };
                self.has_too_few(set, &all).await == Some(true)
            }
            too_few => too_few == Some(true),
        }
    }

    async fn has_too_few(&self, set: SetIndex, layouts: &[Layout]) -> Option<bool> {
        let drives = all_drives(self.mailbox().drive_count(set));
        let payloads: Vec<_> = layouts.iter().map(|layout| layout.payload).collect();
        let ask = |drive| (drive, Request::Holds { payloads: payloads.clone() });
        let mut replies = self.mailbox().send(set, drives_in(drives).map(ask).collect());
        let mut census = Census::of(layouts.to_vec());
        while let Some((drive, reply)) = replies.next().await {
            if let Reply::Holds(holds) = reply {
                census.take(drive, &holds);
            }
        }
        census.too_few(drives)
    }

    /// Has the record followed by one that says that it is lost, if it still is the head.
    async fn decide_lost(&self, set: SetIndex, key: &Key, newest: Newest) -> Result<()> {
        let (slot, record) = newest.head.clone();
        tracing::error!(
            set = set.0,
            ?key,
            version = %record.version(),
            "payload is lost: fewer shards are left than it needs, and the drives that held the \
             others were replaced. The key answers 503 until it is written again or deleted"
        );
        let archived = archived_in(key).map(|(_, which)| which);
        let which = archived.unwrap_or_else(|| Which::of(slot, &record));
        let lineage = record.lineage().map(|lineage| which.described_anew(lineage));
        let lost = lost_record(&record, OperationId(self.runtime().random_u128()));
        let lost = lost.with_lineage(lineage);
        let wish = move |head: Option<&Head>| loss::wish(record.operation(), slot, head);
        self.write_after(set, key, lost, newest.found(), wish).await
    }
}

/// What answers for a version that is lost.
pub(super) fn refuse_lost(set: SetIndex, record: &Record) -> Result<()> {
    match record.kind() {
        Kind::Lost => Err(Error::Lost { set, version: record.version() }),
        _ => Ok(()),
    }
}

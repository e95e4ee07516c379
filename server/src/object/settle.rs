//! Bringing records to rest: decided, certified, and every shard durable on every drive.
//!
//! This is the one mechanism behind certificate spreading, repair and catch-up. Every drive keeps the
//! set of its unsettled keys; the owner core of a set walks the union of them and settles key by key.
//! Each step may be repeated, and stopping anywhere loses nothing.

use std::collections::{BTreeMap, BTreeSet};

use basalt_engine::record::{Kind, Layout, PayloadForm, Record};
use basalt_engine::request::{Certificate, Digest, Orphan, Refusal, Reply, Request, SmallShard};
use basalt_engine::seam::Runtime;
use basalt_engine::units::{DriveIndex, Key, Keyspace, SetIndex, Slot};
use basalt_net::mailbox::Mailbox;
use basalt_net::proposer::copy_for;

use super::error::{Error, Result};
use super::rebuild::rebuild_shard;
use super::store::Store;
use super::upload::{State, Upload, object_key, upload_key};
use super::version::archived_in;

/// Orphans that one request asks for.
const ORPHANS_PAGE: u32 = 256;

/// What became of one key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Settled {
    /// Every drive of the set has its record and its shards.
    Fully,
    /// Every drive that answers has; others are still owed theirs.
    OnLiveDrives,
    /// There is nothing there.
    Absent,
}

impl<M: Mailbox, R: Runtime> Store<M, R> {
    /// Settles one key as far as the drives that answer allow.
    pub async fn settle_key(&self, set: SetIndex, key: &Key) -> Result<Settled> {
        match self.settle_head(set, key).await {
            Err(Error::BucketClosing) => {
                self.settle_in_closed_bucket(set, key).await?;
                self.settle_head(set, key).await
            }
            settled => settled,
        }
    }

    async fn settle_head(&self, set: SetIndex, key: &Key) -> Result<Settled> {
        if key.space() == Keyspace::Versions {
            self.tend_archive(set, key).await?;
        }
        let head = match self.decide_head(set, key).await {
            Err(Error::Unreadable { .. }) if self.consider_loss(set, key).await? => {
                self.decide_head(set, key).await?
            }
            head => head?,
        };
        let digests = self.digests(set, key).await;
        self.end_vain_proposals(set, key, head.as_ref(), &digests).await?;
        let Some((slot, record)) = head else { return Ok(Settled::Absent) };
        if key.space() == Keyspace::Objects {
            self.end_what_is_gone(set, key, slot, &record).await?;
        }
        let drives = self.mailbox().drive_count(set);
        let taught = self.teach(set, key, slot, &record, &digests).await;
        let payloads = match self.payloads_of(key, &record).await {
            // A manifest that cannot be read may be lost, too.
            Err(Error::Unreadable { .. }) => None,
            payloads => Some(payloads?),
        };
        if let Some(payloads) = payloads
            && self.complete_shards(set, key, &record, &payloads, &taught).await == drives
        {
            let certificate = Certificate { slot, operation: record.operation() };
            let listed = payloads.get(record.payload_count()..).unwrap_or_default();
            self.certify_settled(set, key, certificate, listed).await;
            return Ok(Settled::Fully);
        }
        // What could not be completed although every drive answers may be lost.
        if taught.len() == drives && self.consider_loss(set, key).await? {
            return Box::pin(self.settle_head(set, key)).await;
        }
        Ok(Settled::OnLiveDrives)
    }

    /// Decides or abandons what was accepted above the head by too few.
    async fn end_vain_proposals(
        &self,
        set: SetIndex,
        key: &Key,
        head: Option<&(Slot, Record)>,
        digests: &BTreeMap<DriveIndex, Digest>,
    ) -> Result<()> {
        let above = digests
            .values()
            .flat_map(|digest| &digest.slots)
            .filter(|state| head.is_none_or(|(slot, _)| state.slot > *slot))
            .filter(|state| state.accepted.is_some())
            .map(|state| state.slot)
            .min();
        let Some(slot) = above else { return Ok(()) };
        let base =
            head.map(|(slot, record)| Certificate { slot: *slot, operation: record.operation() });
        self.decide_slot(set, key, slot, base).await.map(|_| ())
    }

    /// Gives every drive that answers the head's record and certificate. Returns those that have them.
    async fn teach(
        &self,
        set: SetIndex,
        key: &Key,
        slot: Slot,
        record: &Record,
        digests: &BTreeMap<DriveIndex, Digest>,
    ) -> BTreeSet<DriveIndex> {
        let certificate = Certificate { slot, operation: record.operation() };
        let lacking: Vec<DriveIndex> = digests
            .iter()
            .filter(|(_, digest)| !knows(digest, certificate))
            .map(|(&drive, _)| drive)
            .collect();
        let mut knowing: BTreeSet<DriveIndex> = digests.keys().copied().collect();
        if lacking.is_empty() {
            return knowing;
        }
        let copy = self.copy_in_hand(set, record).await;
        let epoch = self.map(set).epoch;
        knowing.retain(|drive| !lacking.contains(drive));
        let requests = lacking
            .into_iter()
            .map(|drive| {
                let copy = copy_for(record, drive, copy.as_ref());
                let (key, record) = (key.clone(), record.clone());
                (drive, Request::Learn { epoch, key, slot, record, copy })
            })
            .collect();
        let mut replies = self.mailbox().send(set, requests);
        let mut behind = false;
        while let Some((drive, reply)) = replies.next().await {
            match reply {
                Reply::Accepted { .. } => drop(knowing.insert(drive)),
                Reply::Refused { refusal: Refusal::NewEpoch(_), .. } => behind = true,
                Reply::Refused { refusal: Refusal::OldEpoch(map), .. } => self.learn_map(set, *map),
                _ => tracing::debug!(set = set.0, drive = drive.0, ?reply, "drive did not learn"),
            }
        }
        // The node of a drive that missed a map may not know of it either. It learns the next time.
        if behind && let Err(error) = self.install(set, &self.map(set)).await {
            tracing::debug!(set = set.0, %error, "map not installed yet");
        }
        knowing
    }

    /// The whole payload of a co-staged record, from any drive that has it.
    async fn copy_in_hand(&self, set: SetIndex, record: &Record) -> Option<SmallShard> {
        let layout = record.payloads().next().filter(Layout::is_co_staged)?;
        let payload = layout.payload;
        let requests = layout.order[..layout.shards()]
            .iter()
            .map(|&drive| (DriveIndex(drive), Request::ReadSmall { payload }))
            .collect();
        let mut replies = self.mailbox().send(set, requests);
        while let Some((_, reply)) = replies.next().await {
            if let Reply::Small(shard) = reply
                && basalt_engine::checksum::small_shard(payload, 0, &shard.bytes) == shard.checksum
            {
                return Some(shard);
            }
        }
        None
    }

    /// Rebuilds the shards that drives lack. Answers how many drives now have everything.
    async fn complete_shards(
        &self,
        set: SetIndex,
        key: &Key,
        record: &Record,
        payloads: &[Layout],
        drives: &BTreeSet<DriveIndex>,
    ) -> usize {
        let mut complete = 0;
        for &drive in drives {
            let missing = self.missing_on(set, drive, payloads).await;
            let mut has_all = missing.is_some();
            for (layout, shard) in missing.into_iter().flatten() {
                match rebuild_shard(self, key, record, &layout, shard, drive).await {
                    Ok(()) => {}
                    Err(error) => {
                        tracing::debug!(set = set.0, drive = drive.0, %error, "shard not rebuilt");
                        has_all = false;
                    }
                }
            }
            complete += usize::from(has_all);
        }
        complete
    }

    /// The payloads that `record` asks of drives: first its own, then those that its manifest lists.
    pub(super) async fn payloads_of(&self, key: &Key, record: &Record) -> Result<Vec<Layout>> {
        let mut payloads: Vec<Layout> = match record.kind() {
            Kind::Data => record.payloads().collect(),
            Kind::Tombstone | Kind::Relocated | Kind::Lost | Kind::Marker | Kind::Removed => {
                Vec::new()
            }
        };
        if record.kind() == Kind::Data && record.form() == PayloadForm::Manifest {
            payloads.extend(self.manifest(key, &record.payload(0)).await?);
        }
        Ok(payloads)
    }

    /// The shards that the drive should have and has not; `None` if it does not say.
    async fn missing_on(
        &self,
        set: SetIndex,
        drive: DriveIndex,
        payloads: &[Layout],
    ) -> Option<Vec<(Layout, usize)>> {
        let owed: Vec<(Layout, usize)> = payloads
            .iter()
            .filter_map(|layout| Some((layout.clone(), layout.shard_of(drive.0)?)))
            .collect();
        if owed.is_empty() {
            return Some(Vec::new());
        }
        let asked = owed.iter().map(|(layout, _)| layout.payload).collect();
        let request = Request::Holds { payloads: asked };
        let mut replies = self.mailbox().send(set, vec![(drive, request)]);
        let Some((_, Reply::Holds(holds))) = replies.next().await else { return None };
        assert_eq!(holds.len(), owed.len(), "one answer for each payload");
        Some(owed.into_iter().zip(holds).filter(|(_, has)| !has).map(|(owed, _)| owed).collect())
    }

    /// Spreads a certificate; with `settled`, every drive has everything that its record names.
    pub(super) async fn certify(
        &self,
        set: SetIndex,
        key: &Key,
        certificate: Certificate,
        settled: bool,
    ) {
        self.certify_listed(set, key, certificate, settled, &[]).await;
    }

    /// As [`Self::certify`]: every drive also has what the record's manifest has `listed`.
    async fn certify_settled(
        &self,
        set: SetIndex,
        key: &Key,
        certificate: Certificate,
        listed: &[Layout],
    ) {
        self.certify_listed(set, key, certificate, true, listed).await;
    }

    async fn certify_listed(
        &self,
        set: SetIndex,
        key: &Key,
        certificate: Certificate,
        settled: bool,
        listed: &[Layout],
    ) {
        let drives = self.mailbox().drive_count(set) as u8;
        let request = |drive: u8| {
            let here = listed.iter().filter(|layout| layout.shard_of(drive).is_some());
            let listed = here.map(|layout| layout.payload).collect();
            (DriveIndex(drive), Request::Certify { key: key.clone(), certificate, settled, listed })
        };
        let requests = (0..drives).map(request).collect();
        let mut replies = self.mailbox().send(set, requests);
        while replies.next().await.is_some() {}
    }

    /// What `drive` has staged and no record of it names.
    pub async fn orphans(&self, set: SetIndex, drive: DriveIndex) -> Result<Vec<Orphan>> {
        let mut orphans: Vec<Orphan> = Vec::new();
        loop {
            let after = orphans.last().map(|orphan| orphan.payload);
            let request = Request::Orphans { after, limit: ORPHANS_PAGE };
            let mut replies = self.mailbox().send(set, vec![(drive, request)]);
            let Some((_, Reply::Orphans { entries, more })) = replies.next().await else {
                return Err(Error::Unavailable { set, action: "tell of orphans", short_by: 1 });
            };
            orphans.extend(entries);
            if !more {
                return Ok(orphans);
            }
        }
    }

    /// Frees a payload that was staged on `drives` by an operation that nobody works on any more, unless
    /// it turns out to be decided. Returns how many drives are rid of it. Should its writer be at it
    /// after all, that costs a PUT its acknowledgement, which asks for the shards again.
    pub async fn free_orphan(
        &self,
        set: SetIndex,
        drives: &[DriveIndex],
        orphan: &Orphan,
    ) -> Result<usize> {
        self.settle_key(set, &orphan.key).await?;
        if self.needs_orphan(set, orphan).await? {
            return Ok(0);
        }
        let discard = |&drive| (drive, Request::Discard { payload: orphan.payload });
        let mut replies = self.mailbox().send(set, drives.iter().map(discard).collect());
        let mut freed = 0;
        while let Some((_, reply)) = replies.next().await {
            freed += usize::from(matches!(reply, Reply::Done));
        }
        Ok(freed)
    }
}

impl<M: Mailbox, R: Runtime> Store<M, R> {
    /// Whether anything decided needs the payload: the head of the key under which it was staged, with
    /// what its manifest lists; for what was staged in an upload also the upload itself, while it is
    /// there, and the object that it made. Heads come before archives: versions go that way.
    async fn needs_orphan(&self, set: SetIndex, orphan: &Orphan) -> Result<bool> {
        let head = self.decide_head(set, &orphan.key).await?;
        if let Some((_, record)) = &head
            && (record.operation() == orphan.operation || self.lists(record, orphan).await?)
        {
            return Ok(true);
        }
        let space = orphan.key.space();
        if space == Keyspace::Objects {
            return self.archives_need(set, &orphan.key, head.as_ref(), orphan).await;
        }
        if let Some((object, _)) = archived_in(&orphan.key) {
            return self.object_needs(set, &object, orphan).await;
        }
        if !matches!(space, Keyspace::Uploads | Keyspace::Parts) {
            return Ok(false);
        }
        let Some(upload) = upload_key(&orphan.key) else { return Ok(false) };
        if let Some((_, record)) = self.decide_head(set, &upload).await?
            && let Some(upload) = Upload::of(&record)
        {
            match upload.state {
                // A completion under way may have chosen a part that was overwritten since.
                State::Open if space == Keyspace::Parts => return Ok(true),
                State::Completing(record, _) if self.lists(&record, orphan).await? => {
                    return Ok(true);
                }
                State::Open | State::Completing(..) | State::Completed(..) => {}
            }
        }
        let Some(object) = object_key(&orphan.key) else { return Ok(false) };
        self.object_needs(set, &object, orphan).await
    }

    /// Whether a version of the object needs the payload.
    async fn object_needs(&self, set: SetIndex, object: &Key, orphan: &Orphan) -> Result<bool> {
        let head = self.decide_head(set, object).await?;
        if let Some((_, record)) = &head
            && self.lists(record, orphan).await?
        {
            return Ok(true);
        }
        self.archives_need(set, object, head.as_ref(), orphan).await
    }

    /// Whether a version of the object needs the payload that is not the `head` of its key.
    async fn archives_need(
        &self,
        set: SetIndex,
        object: &Key,
        head: Option<&(Slot, Record)>,
        orphan: &Orphan,
    ) -> Result<bool> {
        if head.is_none_or(|(_, record)| record.lineage().is_none()) {
            return Ok(false);
        }
        // A version that is lost needs nothing any more, whether as head or in its archive.
        let (listed, _) = self.payloads_archived(set, object).await?;
        Ok(listed.contains(&orphan.payload))
    }

    async fn lists(&self, record: &Record, orphan: &Orphan) -> Result<bool> {
        let listed = self.payloads_of(&orphan.key, record).await?;
        Ok(listed.iter().any(|layout| layout.payload == orphan.payload))
    }
}

/// Whether the drive holds the certified record, or one that came after it.
fn knows(digest: &Digest, certificate: Certificate) -> bool {
    digest.slots.iter().any(|slot| {
        slot.certified
            && (slot.slot > certificate.slot
                || (slot.slot == certificate.slot
                    && slot
                        .accepted
                        .as_ref()
                        .is_some_and(|(_, held)| held.operation() == certificate.operation)))
    })
}

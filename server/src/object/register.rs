//! One key as a register: reading its head and having the next slot decided. The shell around the pure
//! machines of `net`: it only moves their questions to the drives and the answers back.

use std::collections::BTreeMap;
use std::time::Duration;

use basalt_engine::checksum;
use basalt_engine::record::{Fields, Kind, Layout, PayloadForm, Record};
use basalt_engine::request::{Certificate, Digest, Reply, Request, SmallShard};
use basalt_engine::seam::{Moment, Runtime};
use basalt_engine::units::{DriveIndex, Key, OperationId, PayloadId, SetIndex, Slot};
use basalt_net::exchange::{Exchange, Step};
use basalt_net::lookup::{Found, Lookup};
use basalt_net::mailbox::{Mailbox, Replies};
use basalt_net::proposer::{Ended, Ground, Proposal, Value};
use basalt_net::quorum::shards_to_acknowledge_degraded;
use basalt_net::reader::{Head, Reading};
use basalt_net::update::{Outcome, Update, Wish};
use bytes::Bytes;
use futures_channel::oneshot;
use futures_util::future::{Either, select};

use super::api::{Condition, Versioning};
use super::archive::{keeps_versions, lineage_after};
use super::error::{Error, Result};
use super::store::Store;

/// How long drives may take to answer one step of the protocol.
const STEP_DEADLINE: Duration = Duration::from_secs(5);
/// How much longer the other drives are waited for once enough have answered.
const LATE_REPLIES: Duration = Duration::from_millis(50);
/// Times that one read or write begins anew because the map of its set changed.
const MAPS_MAX: u32 = 16;
/// Races that a write loses, where each costs it more than a look at the winner.
const RACES_MAX: u32 = 64;
/// Longest pause after meeting a higher ballot, for each round met so far.
const PAUSE: Duration = Duration::from_millis(5);

/// A key's head as it was read.
#[derive(Clone, Debug)]
pub(super) struct KeyRead {
    found: Found,
    /// The drives that answered, one bit each.
    pub answered: u16,
    /// The payload, where it was asked for, travels with the record and came along.
    pub copy: Option<Bytes>,
}

impl KeyRead {
    /// A head that was read with others.
    pub(super) fn of_head(head: Head) -> Self {
        let generation = head.0.generation;
        Self { found: Found { head: Some(head), generation, answered: 0 }, answered: 0, copy: None }
    }

    pub(super) fn head(&self) -> Option<&Head> {
        self.found.head.as_ref()
    }

    pub(super) fn found(&self) -> &Found {
        &self.found
    }

    /// The record, unless the key is absent or deleted.
    pub(super) fn live(&self) -> Option<&Record> {
        live(self.found.head.as_ref())
    }

    /// The head's slot; 0.0 if there is none.
    pub(super) fn slot(&self) -> Slot {
        self.found.head.as_ref().map_or(Slot::default(), |(slot, _)| *slot)
    }

    /// Proof of the head's slot.
    pub(super) fn certificate(&self) -> Option<Certificate> {
        self.found.head.as_ref().map(certificate_of)
    }

    /// The slot that follows `base`, or the first one of an absent key.
    pub(super) fn slot_after(&self, base: Option<Certificate>) -> Slot {
        base.map_or(Slot::first(self.found.generation), |base| base.slot.next())
    }

    /// The condition that nobody has written since.
    pub(super) fn condition(&self) -> Condition {
        match self.live() {
            Some(record) => Condition::Matches(record.etag().to_string()),
            None => Condition::Absent,
        }
    }
}

fn certificate_of((slot, record): &Head) -> Certificate {
    Certificate { slot: *slot, operation: record.operation() }
}

fn live(head: Option<&Head>) -> Option<&Record> {
    head.map(|(_, record)| record).filter(|record| record.kind().is_live())
}

/// One write of one key.
pub(super) struct Write {
    key: Key,
    record: Record,
    copy: Option<SmallShard>,
    condition: Condition,
    before: KeyRead,
    /// Nothing is written where nothing is live.
    removes: bool,
    next_slot_only: bool,
    /// Its payloads are named by a record that is decided: nothing is left behind.
    restates: bool,
    /// The versioning of the key's bucket, where the record is a version of its own.
    versioning: Option<Versioning>,
}

impl Write {
    /// A record whose payload is staged, or travels with it as `copy`.
    pub(super) fn staged(
        key: Key,
        record: Record,
        condition: Condition,
        before: &KeyRead,
        copy: Option<SmallShard>,
    ) -> Self {
        let before = before.clone();
        Self {
            key,
            record,
            copy,
            condition,
            before,
            removes: false,
            next_slot_only: false,
            restates: false,
            versioning: None,
        }
    }

    /// The record is a new version of an object in a bucket of that versioning.
    pub(super) fn in_bucket(self, versioning: Versioning) -> Self {
        Self { versioning: Some(versioning), ..self }
    }

    /// A record that others may propose as well: it may stand in the slot after `before` and in no
    /// other. Where that slot is taken the write ends as [`Error::Busy`].
    pub(super) fn shared(key: Key, record: Record, before: &KeyRead) -> Self {
        let condition = Condition::None;
        Self { next_slot_only: true, ..Self::staged(key, record, condition, before, None) }
    }

    /// The version that is there, described anew: its payloads are those of the present record.
    pub(super) fn restated(
        key: Key,
        record: Record,
        before: &KeyRead,
        copy: Option<SmallShard>,
    ) -> Self {
        let condition = Condition::Version(record.version());
        Self { restates: true, ..Self::staged(key, record, condition, before, copy) }
    }

    /// A record that ends the key's life.
    pub(super) fn tombstone(
        key: Key,
        record: Record,
        condition: Condition,
        before: &KeyRead,
    ) -> Self {
        Self { removes: true, ..Self::staged(key, record, condition, before, None) }
    }
}

impl<M: Mailbox, R: Runtime> Store<M, R> {
    /// Reads a key's head, deciding what may be pending.
    pub(super) async fn read_key(&self, set: SetIndex, key: &Key) -> Result<KeyRead> {
        self.look_up(set, |ground| Lookup::of_all(ground, key.clone())).await
    }

    /// As [`Self::read_key`], for who does not care which drives are there: R of them are asked first,
    /// from `start` on, and with `copy` the first of those for a payload that travels with its record.
    pub(super) async fn read_head(
        &self,
        set: SetIndex,
        key: &Key,
        start: DriveIndex,
        copy: bool,
    ) -> Result<KeyRead> {
        self.look_up(set, |ground| {
            let (first, nearest) = self.drives_to_ask(set, start, ground.quorums.read);
            let copies_from = if copy { nearest } else { 0 };
            Lookup::of_head(ground, key.clone(), first, copies_from)
        })
        .await
    }

    async fn look_up(&self, set: SetIndex, lookup: impl Fn(Ground) -> Lookup) -> Result<KeyRead> {
        for _ in 0..MAPS_MAX {
            let mut lookup = lookup(self.ground(set));
            let (outcome, _) = self.run(set, &mut lookup).await;
            self.note_silent(set, lookup.silent(), lookup.reading().answered());
            if let Some(certificate) = lookup.certificate() {
                self.certify_in_background(set, lookup.key().clone(), certificate);
            }
            match outcome {
                Ok(found) => {
                    if let Some(requests) = lookup.abandonment() {
                        drop(self.mailbox().send(set, requests));
                    }
                    let copy = copy_in(lookup.reading(), found.head.as_ref());
                    let answered = found.answered;
                    return Ok(KeyRead { found, answered, copy });
                }
                Err(ended) => {
                    let (key, answered) = (lookup.key(), lookup.reading().answered());
                    tracing::debug!(set = set.0, ?key, answered, ?ended, "head not read");
                    self.take_newer_map(set, ended, "read").await?;
                }
            }
        }
        Err(Error::Busy)
    }

    /// Gets over a change of the set's map; any other end is an error.
    async fn take_newer_map(
        &self,
        set: SetIndex,
        ended: Ended,
        action: &'static str,
    ) -> Result<()> {
        match ended {
            Ended::OtherMap(map) => self.learn_map(set, *map),
            Ended::NewerMapAt(drive) => self.fetch_map(set, drive).await,
            Ended::NewerEpoch => self.install(set, &self.map(set)).await?,
            ended => return Err(self.error_of(set, ended, action)),
        }
        Ok(())
    }

    /// The head and its slot.
    pub(super) async fn decide_head(
        &self,
        set: SetIndex,
        key: &Key,
    ) -> Result<Option<(Slot, Record)>> {
        Ok(self.read_key(set, key).await?.found.head)
    }

    /// What each drive tells of a key, from all drives that answer.
    pub(super) async fn digests(&self, set: SetIndex, key: &Key) -> BTreeMap<DriveIndex, Digest> {
        let drives = self.mailbox().drive_count(set) as u8;
        let request = || Request::Digest { key: key.clone(), payload: false };
        let requests = (0..drives).map(|drive| (DriveIndex(drive), request())).collect();
        let mut replies = self.mailbox().send(set, requests);
        let deadline = self.runtime().now().plus(STEP_DEADLINE);
        let mut digests = BTreeMap::new();
        while let Some((drive, reply)) = self.next_before(&mut replies, deadline).await {
            if let Reply::Digest(digest) = reply {
                digests.insert(drive, digest);
            }
        }
        digests
    }

    /// Learns the map that `drive` has installed.
    pub(super) async fn fetch_map(&self, set: SetIndex, drive: DriveIndex) {
        let mut replies = self.mailbox().send(set, vec![(drive, Request::Status)]);
        let deadline = self.runtime().now().plus(STEP_DEADLINE);
        if let Some((_, Reply::Status(status))) = self.next_before(&mut replies, deadline).await {
            self.learn_map(set, status.map);
        }
    }

    /// The next reply; `None` when there are no more or the deadline passed.
    pub(super) async fn next_before(
        &self,
        replies: &mut Replies,
        deadline: Moment,
    ) -> Option<(DriveIndex, Reply)> {
        let clock = self.runtime();
        let next = std::pin::pin!(replies.next());
        let limit = std::pin::pin!(clock.sleep(deadline.since(clock.now())));
        match select(next, limit).await {
            Either::Left((arrival, _)) => arrival,
            Either::Right(_) => None,
        }
    }

    /// Has the slot decided if anything may have been chosen there. Answers whether it is decided now;
    /// if not, nothing was chosen in it before this call.
    pub(super) async fn decide_slot(
        &self,
        set: SetIndex,
        key: &Key,
        slot: Slot,
        base: Option<Certificate>,
    ) -> Result<bool> {
        let (ground, key) = (self.ground(set), key.clone());
        let mut proposal = Proposal::new(ground, key.clone(), slot, base, None, false);
        let (outcome, _) = self.run(set, &mut proposal).await;
        match outcome {
            Ok(()) => {
                let certificate = proposal.certificate().expect("it is decided");
                self.certify(set, &key, certificate, false).await;
                Ok(true)
            }
            Err(Ended::Passed(..)) => Ok(true),
            Err(Ended::Nothing) => {
                if let Some(requests) = proposal.abandonment() {
                    drop(self.mailbox().send(set, requests));
                }
                Ok(false)
            }
            Err(ended) => {
                self.take_newer_map(set, ended, "decide a pending version").await.map(|()| true)
            }
        }
    }

    /// Writes a key. It runs to its end even if nobody waits for it any more.
    pub(super) async fn write_key(&self, set: SetIndex, write: Write) -> Result<()> {
        self.write_key_at(set, write).await.map(|_| ())
    }

    /// As [`Self::write_key`]. Answers the slot, and the record as it was decided there; `None` where there
    /// was nothing to do.
    pub(super) async fn write_key_at(&self, set: SetIndex, write: Write) -> Result<Option<Head>> {
        let (sender, receiver) = oneshot::channel();
        let store = self.clone();
        self.runtime().spawn(async move {
            let payloads: Vec<(PayloadId, Vec<DriveIndex>)> = staged_payloads(&write);
            let result = store.write_to_end(set, write).await;
            if let Err(error) = &result
                && is_certain(error)
            {
                for (payload, drives) in payloads {
                    store.discard(set, payload, &drives);
                }
            }
            // Whoever asked may have gone.
            let _ = sender.send(result);
        });
        receiver.await.unwrap_or(Err(Error::Unknown { set }))
    }

    async fn write_to_end(&self, set: SetIndex, write: Write) -> Result<Option<Head>> {
        let Write { key, record, copy, condition, before, removes, next_slot_only, .. } = write;
        let own = Value { record, copy };
        if let Some(versioning) = write.versioning
            && keeps_versions(versioning, before.found.head.as_ref())
        {
            return self.write_version(set, &key, own, condition, before.found, versioning).await;
        }
        let may_meet_versions = write.versioning.is_some();
        let base = before.slot();
        let mut found = before.found;
        for _ in 0..MAPS_MAX {
            let wanted = condition.clone();
            let wish = move |head: Option<&Head>| match live(head) {
                _ if may_meet_versions && keeps_versions(Versioning::Unset, head) => Wish::Refuse,
                head if !wanted.holds(head) => Wish::Refuse,
                None if removes => Wish::Nothing,
                _ => Wish::Write,
            };
            let mut update = Update::new(self.ground(set), key.clone(), own.clone(), &found, wish);
            if next_slot_only {
                update = update.in_next_slot_only();
            }
            let (outcome, replies) = self.run(set, &mut update).await;
            let open = update.may_be_accepted();
            match outcome {
                Outcome::Written(slot) => {
                    self.spread_certificate(set, key, own.record.form(), update, replies);
                    return Ok(Some((slot, own.record)));
                }
                Outcome::Refused(head) => {
                    if let Some(certificate) = update.certificate() {
                        self.certify_in_background(set, key.clone(), certificate);
                    }
                    if may_meet_versions && keeps_versions(Versioning::Unset, head.as_ref()) {
                        // The bucket began to keep versions meanwhile.
                        let found = Found { head, answered: 0, ..found };
                        let versioning = Versioning::Unset;
                        return self
                            .write_version(set, &key, own, condition, found, versioning)
                            .await;
                    }
                    return condition.check(live(head.as_ref())).map(|()| None);
                }
                Outcome::Nothing => return Ok(None),
                Outcome::Busy => return Err(Error::Busy),
                Outcome::Ended(ended) => {
                    self.take_newer_map(set, ended, "take new versions").await?;
                    if open {
                        return Err(Error::Unknown { set });
                    }
                    let read = self.read_key(set, &key).await?;
                    if next_slot_only && read.slot() != base {
                        return Err(Error::Busy);
                    }
                    found = read.found;
                }
            }
        }
        Err(Error::Busy)
    }

    /// Writes a new version after `found`, where versions are kept. The record is made for one slot at
    /// a time: what it says of the versions before depends on the head that it follows.
    async fn write_version(
        &self,
        set: SetIndex,
        key: &Key,
        own: Value,
        condition: Condition,
        found: Found,
        versioning: Versioning,
    ) -> Result<Option<Head>> {
        let is_null = versioning != Versioning::Enabled;
        let Value { record, copy } = own;
        let mut read = KeyRead { answered: found.answered, found, copy: None };
        let (mut races, mut maps) = (0, 0);
        while races < RACES_MAX && maps < MAPS_MAX {
            self.check_condition(set, key, &read, &condition).await?;
            self.make_way(set, key, read.head(), is_null).await?;
            let lineage = lineage_after(versioning, read.head());
            let kind = match record.kind() {
                Kind::Tombstone => Kind::Marker,
                kind => kind,
            };
            let fields = Fields { kind, lineage, ..record.fields() };
            let own = Value { record: Record::encode(&fields), copy: copy.clone() };
            let base = read.certificate();
            let wish = move |head: Option<&Head>| match head.map(certificate_of) == base {
                true => Wish::Write,
                false => Wish::Refuse,
            };
            let (ground, found) = (self.ground(set), read.found.clone());
            let mut update = Update::new(ground, key.clone(), own.clone(), &found, wish);
            let (outcome, replies) = self.run(set, &mut update).await;
            let open = update.may_be_accepted();
            match outcome {
                Outcome::Written(slot) => {
                    let form = own.record.form();
                    self.spread_certificate(set, key.clone(), form, update, replies);
                    if is_null {
                        self.end_replaced_null_in_background(set, key.clone(), slot);
                    }
                    return Ok(Some((slot, own.record)));
                }
                Outcome::Refused(head) => {
                    if let Some(certificate) = update.certificate() {
                        self.certify_in_background(set, key.clone(), certificate);
                    }
                    // Whoever lost a race expects company: no drive counts for the fast way.
                    let found = Found { head, answered: 0, ..found };
                    read = KeyRead { answered: 0, found, copy: None };
                    races += 1;
                }
                Outcome::Nothing | Outcome::Busy => return Err(Error::Busy),
                Outcome::Ended(ended) => {
                    self.take_newer_map(set, ended, "take new versions").await?;
                    if open {
                        return Err(Error::Unknown { set });
                    }
                    read = self.read_key(set, key).await?;
                    maps += 1;
                }
            }
        }
        Err(Error::Busy)
    }

    pub(super) fn end_replaced_null_in_background(&self, set: SetIndex, key: Key, slot: Slot) {
        let store = self.clone();
        self.runtime().spawn(async move {
            // Nobody finds it any more; whoever settles it ends it as well.
            if let Err(error) = store.end_replaced_null(set, &key, slot).await {
                tracing::debug!(set = set.0, ?key, %error, "a replaced null version is left");
            }
        });
    }

    /// Writes a record without a payload after `found`, if `wish` wants it there, whatever else may
    /// come of it.
    pub(super) async fn write_after(
        &self,
        set: SetIndex,
        key: &Key,
        record: Record,
        found: Found,
        wish: impl Fn(Option<&Head>) -> Wish + 'static,
    ) -> Result<()> {
        let form = record.form();
        let own = Value { record, copy: None };
        let mut update = Update::new(self.ground(set), key.clone(), own, &found, wish);
        let (outcome, replies) = self.run(set, &mut update).await;
        match outcome {
            Outcome::Written(_) => {
                self.spread_certificate(set, key.clone(), form, update, replies);
                Ok(())
            }
            Outcome::Nothing | Outcome::Refused(_) => Ok(()),
            Outcome::Busy => Err(Error::Busy),
            Outcome::Ended(ended) => Err(self.error_of(set, ended, "take new versions")),
        }
    }

    /// Has the slot decided for `operation` although its payload is gone, if that may have been chosen.
    pub(super) async fn decide_without_payload(
        &self,
        set: SetIndex,
        key: &Key,
        slot: Slot,
        base: Option<Certificate>,
        operation: OperationId,
    ) -> Result<()> {
        let proposal = Proposal::new(self.ground(set), key.clone(), slot, base, None, false);
        let mut proposal = proposal.despite_loss(operation);
        let (outcome, _) = self.run(set, &mut proposal).await;
        match outcome {
            Ok(()) => {
                let certificate = proposal.certificate().expect("it is decided");
                self.certify(set, key, certificate, false).await;
                Ok(())
            }
            Err(Ended::Passed(..) | Ended::Nothing) => Err(Error::Busy),
            Err(ended) => Err(self.error_of(set, ended, "decide a lost version")),
        }
    }

    /// The operation that was decided in `slot`, which follows `base`; `None` if no drive says so any
    /// more.
    pub(super) async fn winner(
        &self,
        set: SetIndex,
        key: &Key,
        slot: Slot,
        base: Option<Certificate>,
    ) -> Result<Option<OperationId>> {
        let mut proposal = Proposal::new(self.ground(set), key.clone(), slot, base, None, false);
        let (outcome, _) = self.run(set, &mut proposal).await;
        match outcome {
            Ok(()) => {
                let certificate = proposal.certificate().expect("it is decided");
                self.certify_in_background(set, key.clone(), certificate);
                Ok(Some(certificate.operation))
            }
            Err(Ended::Passed(at, record)) => Ok((at == slot).then(|| record.operation())),
            Err(Ended::Nothing) => Err(Error::Busy),
            Err(ended) => Err(self.error_of(set, ended, "tell of a version")),
        }
    }

    /// Runs a machine to its outcome. What its last sending still yields comes along.
    async fn run<E: Exchange>(&self, set: SetIndex, machine: &mut E) -> (E::Outcome, Replies) {
        let mut replies = Replies::none();
        let mut deadline = self.runtime().now();
        let (mut round, mut lingering) = (0, false);
        let mut step = machine.start();
        loop {
            step = match step {
                Step::Send(requests) => {
                    replies = self.mailbox().send(set, requests);
                    deadline = self.runtime().now().plus(STEP_DEADLINE);
                    lingering = false;
                    Step::Wait
                }
                Step::SendSome(requests) => {
                    replies = self.mailbox().send(set, requests);
                    deadline = self.runtime().now().plus(LATE_REPLIES);
                    lingering = true;
                    Step::Wait
                }
                Step::SendMore(requests) => {
                    replies = replies.and(self.mailbox().send(set, requests));
                    deadline = self.runtime().now().plus(STEP_DEADLINE);
                    lingering = false;
                    Step::Wait
                }
                Step::Linger if !lingering => {
                    lingering = true;
                    deadline = deadline.min(self.runtime().now().plus(LATE_REPLIES));
                    Step::Wait
                }
                Step::Wait | Step::Linger => match self.next_before(&mut replies, deadline).await {
                    Some((drive, reply)) => machine.on_reply(drive, reply),
                    None => machine.on_deadline(),
                },
                Step::CheckPayload(record) => {
                    let within_reach = self.is_within_reach(set, &record).await;
                    machine.on_payload(within_reach)
                }
                Step::Pause => {
                    round += 1;
                    let limit = PAUSE.as_micros() as u64 * round;
                    let pause = Duration::from_micros(self.runtime().random_u64() % limit);
                    self.runtime().sleep(pause).await;
                    machine.retry()
                }
                Step::Done(outcome) => return (outcome, replies),
            }
        }
    }

    /// Waits for the drives that have not answered yet, then tells all of them what was decided.
    fn spread_certificate<J>(
        &self,
        set: SetIndex,
        key: Key,
        form: PayloadForm,
        mut update: Update<J>,
        mut replies: Replies,
    ) where
        J: Fn(Option<&Head>) -> Wish + 'static,
    {
        let store = self.clone();
        self.runtime().spawn(async move {
            let deadline = store.runtime().now().plus(STEP_DEADLINE);
            while !update.everywhere() {
                let Some((drive, reply)) = store.next_before(&mut replies, deadline).await else {
                    break;
                };
                update.on_reply(drive, reply);
            }
            let certificate = update.certificate().expect("it was written");
            // Nobody was asked for the shards of the parts that a manifest lists.
            let settled = update.everywhere() && form != PayloadForm::Manifest;
            store.certify(set, &key, certificate, settled).await;
        });
    }

    fn certify_in_background(&self, set: SetIndex, key: Key, certificate: Certificate) {
        let store = self.clone();
        self.runtime().spawn(async move { store.certify(set, &key, certificate, false).await });
    }

    /// Whether k shards of each of the record's payloads are durable on drives that answer.
    pub(super) async fn is_within_reach(&self, set: SetIndex, record: &Record) -> bool {
        self.has_shards(set, record, |layout| usize::from(layout.data_shards)).await
    }

    /// Whether as many shards of each payload are durable as an acknowledgement needs at least.
    pub(super) async fn may_be_acknowledged(&self, set: SetIndex, record: &Record) -> bool {
        let needed = |layout: &Layout| {
            shards_to_acknowledge_degraded(layout.data_shards, layout.parity_shards)
        };
        self.has_shards(set, record, needed).await
    }

    async fn has_shards(
        &self,
        set: SetIndex,
        record: &Record,
        needed: impl Fn(&Layout) -> usize,
    ) -> bool {
        let layouts: Vec<_> = record.payloads().collect();
        let payloads: Vec<PayloadId> = layouts.iter().map(|layout| layout.payload).collect();
        let drives = self.mailbox().drive_count(set) as u8;
        let requests = (0..drives)
            .map(|drive| (DriveIndex(drive), Request::Holds { payloads: payloads.clone() }))
            .collect();
        let mut replies = self.mailbox().send(set, requests);
        let mut shards = vec![0; layouts.len()];
        let deadline = self.runtime().now().plus(STEP_DEADLINE);
        while let Some((drive, reply)) = self.next_before(&mut replies, deadline).await {
            let Reply::Holds(holds) = reply else { continue };
            for ((layout, holds), shards) in layouts.iter().zip(holds).zip(&mut shards) {
                *shards += usize::from(holds && layout.shard_of(drive.0).is_some());
            }
            let mut counted = layouts.iter().zip(&shards);
            if counted.all(|(layout, shards)| *shards >= needed(layout)) {
                return true;
            }
        }
        false
    }

    fn ground(&self, set: SetIndex) -> Ground {
        Ground {
            quorums: self.quorums(set),
            voting: self.voting_mask(set),
            epoch: self.epoch(set),
            proposer: self.runtime().random_u64(),
        }
    }

    fn error_of(&self, set: SetIndex, ended: Ended, action: &'static str) -> Error {
        match ended {
            Ended::Short(by) => {
                let short_by = u32::try_from(by).expect("at most sixteen");
                Error::Unavailable { set, action, short_by }
            }
            Ended::PayloadOutOfReach => Error::Unreadable { set, short_by: 1 },
            Ended::BucketClosing => Error::BucketClosing,
            Ended::Full => Error::Full { set },
            Ended::Unknown
            | Ended::Nothing
            | Ended::Passed(..)
            | Ended::OtherMap(_)
            | Ended::NewerMapAt(_)
            | Ended::NewerEpoch => Error::Unknown { set },
        }
    }
}

/// Whether the error means that the write did not happen and never will.
fn is_certain(error: &Error) -> bool {
    !matches!(error, Error::Unknown { .. })
}

/// The staged payloads that a write would leave behind if it did not happen: a fresh PUT's. Parts that
/// a completion names belong to their parts' records.
fn staged_payloads(write: &Write) -> Vec<(PayloadId, Vec<DriveIndex>)> {
    if write.record.etag().parts > 0 || write.restates {
        return Vec::new();
    }
    write
        .record
        .payloads()
        .filter(|layout| !layout.is_co_staged())
        .map(|layout| {
            let drives = layout.order[..layout.shards()].iter().map(|&d| DriveIndex(d)).collect();
            (layout.payload, drives)
        })
        .collect()
}

/// The head's payload, where a digest brought it along and it is sound.
fn copy_in(reading: &Reading, head: Option<&Head>) -> Option<Bytes> {
    let layout = head?.1.payloads().next()?;
    let copies = reading.digests().values().filter_map(|digest| digest.copy.as_ref());
    let sound = |copy: &&SmallShard| {
        copy.bytes.len() as u64 == layout.bytes
            && checksum::small_shard(layout.payload, 0, &copy.bytes) == copy.checksum
    };
    copies.filter(|_| layout.is_co_staged()).find(sound).map(|copy| copy.bytes.clone())
}

//! Versions that are not the head of their key: how they get into their archives, how they are found
//! there, and how they end. `docs/protocol.md`, "Versions", has the reasons.
//!
//! The rule kept here: before anything is proposed in the slot after a head, the head is archived if it
//! has to be kept, and what it says is removed is ended. So nobody who recovers that slot has anything
//! else to do. The head of the object's key comes first in every question: a version goes from there to
//! its archive and never back.

use std::collections::BTreeSet;
use std::time::Duration;

use basalt_engine::record::{Kind, Lineage, PayloadForm, Record};
use basalt_engine::request::{Certificate, Refusal, Reply, Request};
use basalt_engine::seam::Runtime;
use basalt_engine::units::{DriveIndex, Key, PayloadId, SetIndex, Slot};
use basalt_net::mailbox::{Mailbox, Replies};
use basalt_net::reader::Head;
use basalt_net::update::Wish;
use bytes::Bytes;

use super::api::{Condition, Versioning};
use super::error::{Error, Result};
use super::list::Range;
use super::register::{KeyRead, Write};
use super::store::Store;
use super::version::{
    Removal, VersionName, Which, archive_slot, archived_in, archives_of, is_null, must_be_kept,
};

/// How long drives may take to learn an archive.
const DEADLINE: Duration = Duration::from_secs(5);
/// Times that archiving begins anew because the map of the set changed.
const MAPS_MAX: usize = 16;

/// A version of a key as it was read.
#[derive(Clone, Debug)]
pub(super) struct Version {
    pub which: Which,
    pub record: Record,
    /// Its archive as it was read; `None`: the version is the head of its key.
    pub archived: Option<KeyRead>,
    /// The payload, where it travels with the record and came along.
    pub copy: Option<Bytes>,
}

impl Version {
    /// The version that is the head of its key, if that is one.
    pub(super) fn of_head(read: &KeyRead) -> Option<Self> {
        let (slot, record) = read.head()?;
        record.kind().is_version().then(|| Self {
            which: Which::of(*slot, record),
            record: record.clone(),
            archived: None,
            copy: read.copy.clone(),
        })
    }

    /// Where its record stands, for the object's key `object`.
    pub(super) fn key(&self, object: Key) -> Key {
        match self.archived {
            Some(_) => self.which.archive(&object),
            None => object,
        }
    }

    pub(super) fn name(&self) -> VersionName {
        self.which.name(&self.record)
    }
}

/// What a new version says of those before it; `None` where no versions are kept.
pub(super) fn lineage_after(versioning: Versioning, head: Option<&Head>) -> Option<Lineage> {
    let is_null = versioning != Versioning::Enabled;
    let keeps = head.is_some_and(|(_, record)| must_be_kept(record, is_null));
    keeps_versions(versioning, head).then_some(Lineage {
        is_null,
        keeps_predecessor: keeps,
        origin: None,
    })
}

/// Whether a write behind `head` has to mind versions: a key that has some does not lose them, whatever
/// its writer knows of the bucket.
pub(super) fn keeps_versions(versioning: Versioning, head: Option<&Head>) -> bool {
    versioning != Versioning::Unset || head.is_some_and(|(_, record)| record.lineage().is_some())
}

impl<M: Mailbox, R: Runtime> Store<M, R> {
    /// The key's current version: its head, or the one that the head names. It may be a delete marker.
    pub(super) async fn current_version(
        &self,
        set: SetIndex,
        key: &Key,
        read: &KeyRead,
        copy: bool,
    ) -> Result<Option<Version>> {
        let removal = read.head().and_then(|(_, record)| Removal::of(record));
        let Some(removal) = removal else { return Ok(Version::of_head(read)) };
        let Some(current) = removal.current else { return Ok(None) };
        if let Some(version) = self.archived_version(set, key, current, copy).await? {
            return Ok(Some(version));
        }
        if let Some(now) = self.head_since(set, key, read).await? {
            return Box::pin(self.current_version(set, key, &now, copy)).await;
        }
        // It was removed as the record that names it was being decided.
        match self.newest_archived(set, key, removal.which).await? {
            Some(which) => self.archived_version(set, key, which, copy).await,
            None => Ok(None),
        }
    }

    /// The archived version, if it is alive in its archive.
    pub(super) async fn archived_version(
        &self,
        set: SetIndex,
        key: &Key,
        which: Which,
        copy: bool,
    ) -> Result<Option<Version>> {
        let archive = which.archive(key);
        let drives = self.mailbox().drive_count(set) as u64;
        let start = DriveIndex((self.runtime().random_u64() % drives) as u8);
        let read = self.read_head(set, &archive, start, copy).await?;
        let Some((_, record)) = read.head().filter(|(_, record)| record.kind().is_version()) else {
            return Ok(None);
        };
        let (record, copy) = (record.clone(), read.copy.clone());
        Ok(Some(Version { which, record, archived: Some(read), copy }))
    }

    /// The version of that name, wherever it is, given the head of its key.
    pub(super) async fn version_named(
        &self,
        set: SetIndex,
        key: &Key,
        read: &KeyRead,
        name: VersionName,
        copy: bool,
    ) -> Result<Option<Version>> {
        let Some((slot, head)) = read.head() else { return Ok(None) };
        if let Some(version) = Version::of_head(read)
            && version.name() == name
        {
            return Ok(Some(version));
        }
        // Without a lineage there never was another one, and behind a tombstone none is left.
        if head.lineage().is_none() || head.kind() == Kind::Tombstone {
            return Ok(None);
        }
        let which = match name {
            VersionName::Null => Which::Null,
            VersionName::Id { slot: of, .. } if of < *slot => Which::Of(of),
            VersionName::Id { .. } => return Ok(None),
        };
        let is_removed = Removal::of(head).is_some_and(|removal| removal.which == which);
        let is_replaced = which == Which::Null && head.kind().is_version() && is_null(head);
        if is_removed || is_replaced {
            return Ok(None);
        }
        let version = self.archived_version(set, key, which, copy).await?;
        match version.filter(|version| version.name() == name) {
            Some(version) => Ok(Some(version)),
            None => match self.head_since(set, key, read).await? {
                Some(now) => Box::pin(self.version_named(set, key, &now, name, copy)).await,
                None => Ok(None),
            },
        }
    }

    /// The head of the key, if it is another one than when it was `read`: what was not found in an archive
    /// may have gone there, or ended there, since.
    async fn head_since(
        &self,
        set: SetIndex,
        key: &Key,
        read: &KeyRead,
    ) -> Result<Option<KeyRead>> {
        let now = self.read_key(set, key).await?;
        Ok((now.certificate() != read.certificate()).then_some(now))
    }

    /// Ends in the archives what a head that was decided in `slot` says is gone: a version that was
    /// removed, or a null version that was replaced.
    pub(super) async fn end_what_is_gone(
        &self,
        set: SetIndex,
        key: &Key,
        slot: Slot,
        record: &Record,
    ) -> Result<()> {
        if let Some(removal) = Removal::of(record) {
            return self.finish_removal(set, key, removal).await;
        }
        match record.lineage() {
            Some(_) if record.kind().is_version() && is_null(record) => {
                self.end_replaced_null(set, key, slot).await
            }
            _ => Ok(()),
        }
    }

    /// The newest version that is alive in its archive, `except` this one.
    pub(super) async fn newest_archived(
        &self,
        set: SetIndex,
        key: &Key,
        except: Which,
    ) -> Result<Option<Which>> {
        let mut archives = Range::all(set, archives_of(key)).with_markers().in_pages_of(4);
        let mut null: Option<Slot> = None;
        // A listing may look for what is current, and this is a listing.
        while let Some((archive, slot, _)) = Box::pin(archives.next_slot(self)).await? {
            match archived_in(&archive) {
                Some((_, which)) if which == except => {}
                Some((_, Which::Null)) => null = Some(slot),
                Some((_, Which::Of(of))) => {
                    let null_is_newer = null.is_some_and(|null| null > archive_slot(of));
                    return Ok(Some(if null_is_newer { Which::Null } else { Which::Of(of) }));
                }
                None => {}
            }
        }
        Ok(null.map(|_| Which::Null))
    }

    /// The payloads that the archives of `key` list, and whether that is all: one that is lost may have
    /// listed what nobody can tell any more. For who has read the key's head before.
    pub(super) async fn payloads_archived(
        &self,
        set: SetIndex,
        key: &Key,
    ) -> Result<(BTreeSet<PayloadId>, bool)> {
        let (mut listed, mut is_all) = (BTreeSet::new(), true);
        let mut archives = Range::all(set, archives_of(key)).with_markers();
        while let Some((archive, record)) = archives.next(self).await? {
            is_all &= record.kind() != Kind::Lost;
            let payloads = self.payloads_of(&archive, &record).await?;
            listed.extend(payloads.into_iter().map(|layout| layout.payload));
        }
        Ok((listed, is_all))
    }

    /// Whether the object that `record` describes, first decided in `slot` of `key`, is there, whatever was
    /// said of it anew since: as the head or in its archive.
    pub(super) async fn is_there(
        &self,
        set: SetIndex,
        key: &Key,
        slot: Slot,
        record: &Record,
    ) -> Result<bool> {
        let read = self.read_key(set, key).await?;
        if read.live().is_some_and(|live| live.version() == record.version()) {
            return Ok(true);
        }
        let name = Which::of(slot, record).name(record);
        let named = self.version_named(set, key, &read, name, false).await?;
        Ok(named.is_some_and(|named| named.record.version() == record.version()))
    }

    /// Whatever has to be before a version may be proposed in the slot after `head`, with the lineage
    /// that [`lineage_after`] gives it.
    pub(super) async fn make_way(
        &self,
        set: SetIndex,
        key: &Key,
        head: Option<&Head>,
        own_is_null: bool,
    ) -> Result<()> {
        let Some((slot, record)) = head else { return Ok(()) };
        if let Some(removal) = Removal::of(record) {
            self.finish_removal(set, key, removal).await?;
        }
        if must_be_kept(record, own_is_null) {
            self.archive(set, key, *slot, record).await?;
        }
        Ok(())
    }

    /// Fails unless a write may follow what is current now.
    pub(super) async fn check_condition(
        &self,
        set: SetIndex,
        key: &Key,
        read: &KeyRead,
        condition: &Condition,
    ) -> Result<()> {
        let current = self.current_version(set, key, read, false).await?;
        let current = current.as_ref().map(|version| &version.record);
        condition.check(current.filter(|record| record.kind().is_live()))
    }

    /// Archives what was decided in `slot` of `key`, on W drives at least.
    pub(super) async fn archive(
        &self,
        set: SetIndex,
        key: &Key,
        slot: Slot,
        record: &Record,
    ) -> Result<()> {
        let archive = Which::of(slot, record).archive(key);
        let slot = archive_slot(slot);
        for _ in 0..MAPS_MAX {
            let epoch = self.map(set).epoch;
            let drives = self.mailbox().drive_count(set) as u8;
            let learn = |drive| {
                // Shards and copies are where the head's record put them, and stay there.
                let (key, record) = (archive.clone(), record.clone());
                (DriveIndex(drive), Request::Learn { epoch, key, slot, record, copy: None })
            };
            let mut replies = self.mailbox().send(set, (0..drives).map(learn).collect());
            let deadline = self.runtime().now().plus(DEADLINE);
            let needed = self.quorums(set).accept;
            let (mut learned, mut whole, mut newer) = (0, 0, false);
            while learned < needed {
                match self.next_before(&mut replies, deadline).await {
                    Some((_, Reply::Accepted { has_shards })) => {
                        learned += 1;
                        whole += usize::from(has_shards);
                    }
                    Some((_, Reply::Refused { refusal: Refusal::OldEpoch(map), .. })) => {
                        self.learn_map(set, *map);
                        newer = true;
                    }
                    Some((_, Reply::Refused { refusal: Refusal::NewEpoch(_), .. })) => {
                        self.install(set, &self.map(set)).await?;
                        newer = true;
                    }
                    Some(_) => {}
                    None => break,
                }
            }
            if learned >= needed {
                let certificate = Certificate { slot, operation: record.operation() };
                self.note_archived(set, archive, certificate, record.form(), whole, replies);
                return Ok(());
            }
            if !newer {
                let short_by = u32::try_from(needed - learned).expect("at most sixteen");
                let action = "keep the former version";
                return Err(Error::Unavailable { set, action, short_by });
            }
        }
        Err(Error::Busy)
    }

    /// Where every drive turns out to have everything, the archive needs no settling.
    fn note_archived(
        &self,
        set: SetIndex,
        archive: Key,
        certificate: Certificate,
        form: PayloadForm,
        mut whole: usize,
        mut replies: Replies,
    ) {
        let store = self.clone();
        self.runtime().spawn(async move {
            let deadline = store.runtime().now().plus(DEADLINE);
            while let Some((_, reply)) = store.next_before(&mut replies, deadline).await {
                whole += usize::from(matches!(reply, Reply::Accepted { has_shards: true }));
            }
            // Nobody was asked for the shards of the parts that a manifest lists.
            if whole == store.mailbox().drive_count(set) && form != PayloadForm::Manifest {
                store.certify(set, &archive, certificate, true).await;
            }
        });
    }

    /// Has a tombstone decided in the archive of a removed version: what a late writer archives stays
    /// below it.
    pub(super) async fn finish_removal(
        &self,
        set: SetIndex,
        key: &Key,
        removal: Removal,
    ) -> Result<()> {
        let archive = removal.which.archive(key);
        let read = self.read_key(set, &archive).await?;
        self.end(set, &archive, &read, removal.at.slot).await
    }

    /// Has a tombstone decided in the archive where the version is alive there that was decided in
    /// the same slot of the object's key as `at`, or an older one. A null version that came later is
    /// another one.
    async fn end(&self, set: SetIndex, archive: &Key, read: &KeyRead, at: Slot) -> Result<()> {
        let ends = at.generation;
        let is_it =
            move |(slot, record): &Head| slot.generation <= ends && record.kind().is_version();
        if !read.head().is_some_and(is_it) {
            return Ok(());
        }
        let wish = move |head: Option<&Head>| match head.is_some_and(is_it) {
            true => Wish::Write,
            false => Wish::Nothing,
        };
        self.write_after(set, archive, self.tombstone(), read.found().clone(), wish).await
    }

    /// Ends the archived null version if a newer null version is the head of the key, decided in `slot`.
    pub(super) async fn end_replaced_null(
        &self,
        set: SetIndex,
        key: &Key,
        slot: Slot,
    ) -> Result<()> {
        let archive = Which::Null.archive(key);
        let read = self.read_key(set, &archive).await?;
        let older = |(at, record): &&Head| *at < archive_slot(slot) && record.kind().is_version();
        if read.head().filter(older).is_none() {
            return Ok(());
        }
        let wish = move |head: Option<&Head>| match head {
            Some((at, record)) if *at < archive_slot(slot) && record.kind().is_version() => {
                Wish::Write
            }
            _ => Wish::Nothing,
        };
        self.write_after(set, &archive, self.tombstone(), read.found().clone(), wish).await
    }

    /// Ends a version in its archive, if it is alive there as it was read.
    pub(super) async fn end_archived(
        &self,
        set: SetIndex,
        key: &Key,
        version: &Version,
    ) -> Result<()> {
        let read = version.archived.as_ref().expect("the version is archived");
        let (at, _) = read.head().expect("it was read there");
        self.end(set, &version.which.archive(key), read, *at).await
    }

    /// Where the head of the key says that nothing is current and no version is left, it becomes a
    /// tombstone, which costs listings nothing. `read` is the head that says so.
    pub(super) async fn bury(&self, set: SetIndex, key: &Key, read: &KeyRead) -> Result<()> {
        let Some((_, record)) = read.head() else { return Ok(()) };
        let Some(removal) = Removal::of(record) else { return Ok(()) };
        if self.newest_archived(set, key, removal.which).await?.is_some() {
            return Ok(());
        }
        self.finish_removal(set, key, removal).await?;
        let record = self.tombstone().with_lineage(Some(Lineage::default()));
        match self.write_key(set, Write::shared(key.clone(), record, read)).await {
            Err(Error::Busy) => Ok(()),
            outcome => outcome,
        }
    }

    /// Before an archive is settled: ends what is removed or replaced, and lets an archive of what is
    /// still the head know how that was described last.
    pub(super) async fn tend_archive(&self, set: SetIndex, archive: &Key) -> Result<()> {
        let Some((key, which)) = archived_in(archive) else { return Ok(()) };
        let Some((slot, record)) = self.decide_head(set, &key).await? else { return Ok(()) };
        if let Some(removal) = Removal::of(&record) {
            return match removal.which == which {
                true => self.finish_removal(set, &key, removal).await,
                false => Ok(()),
            };
        }
        if record.kind() == Kind::Tombstone {
            let read = self.read_key(set, archive).await?;
            return self.end(set, archive, &read, archive_slot(slot)).await;
        }
        if !record.kind().is_version() || Which::of(slot, &record) != which {
            return Ok(());
        }
        match which {
            Which::Null => self.end_replaced_null(set, &key, slot).await,
            Which::Of(_) => self.archive(set, &key, slot, &record).await,
        }
    }
}

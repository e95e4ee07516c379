//! The end of uploads that nobody ends: stale ones are aborted, half-completed ones completed,
//! completed ones forgotten, and what belongs to a bucket that is gone is removed.
//!
//! Every step is one that a client's request could take as well, so a sweep may stop anywhere, and
//! several may run at once. What may go is decided from certain reads alone; the clock only decides
//! for how long an upload may rest.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use basalt_engine::record::Record;
use basalt_engine::request::{ListAfter, Reply, Request};
use basalt_engine::seam::Runtime;
use basalt_engine::units::{DriveIndex, Incarnation, Key, Keyspace, SetIndex, Slot};
use basalt_net::mailbox::Mailbox;

use super::error::{Error, Result};
use super::list::Range;
use super::register::KeyRead;
use super::store::{Place, Store};
use super::upload::{State, UploadPlace, names_in};

/// What one sweep of a set did, in uploads.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Swept {
    pub aborted: u64,
    pub completed: u64,
    pub forgotten: u64,
    /// Those of which only parts were left.
    pub orphaned: u64,
}

impl Swept {
    pub fn is_nothing(self) -> bool {
        self == Self::default()
    }
}

impl<M: Mailbox, R: Runtime> Store<M, R> {
    /// Sweeps the uploads of one set that have rested for longer than `age`.
    pub async fn sweep_uploads(&self, set: SetIndex, age: Duration) -> Result<Swept> {
        // In this order: an upload begins after its bucket.
        let found = self.upload_incarnations(set).await?;
        let buckets: BTreeMap<Incarnation, String> = self
            .buckets()
            .await?
            .into_iter()
            .map(|bucket| (bucket.incarnation, bucket.name))
            .collect();
        let mut swept = Swept::default();
        for incarnation in found {
            let bucket = buckets.get(&incarnation).map(String::as_str);
            // Of a bucket that is gone nothing has to rest.
            let age = if bucket.is_some() { age } else { Duration::ZERO };
            let sweep = Sweep { store: self, set, bucket, incarnation, age };
            sweep.registers(&mut swept).await?;
            sweep.parts_without_register(&mut swept).await?;
        }
        Ok(swept)
    }

    /// The incarnations of which any drive knows an upload or a part, now or once.
    async fn upload_incarnations(&self, set: SetIndex) -> Result<BTreeSet<Incarnation>> {
        let drives = u8::try_from(self.mailbox().drive_count(set)).expect("at most sixteen");
        let mut found = BTreeSet::new();
        let mut answered = 0;
        for drive in (0..drives).map(DriveIndex) {
            match self.incarnations_on(set, drive).await {
                Some(incarnations) => {
                    answered += usize::from(self.is_voting(set, drive));
                    found.extend(incarnations);
                }
                None => continue,
            }
        }
        let needed = self.quorums(set).read;
        if answered < needed {
            let short_by = u32::try_from(needed - answered).expect("at most sixteen");
            return Err(Error::Unavailable { set, action: "sweep uploads", short_by });
        }
        Ok(found)
    }

    async fn incarnations_on(&self, set: SetIndex, drive: DriveIndex) -> Option<Vec<Incarnation>> {
        let mut found = Vec::new();
        for space in [Keyspace::Uploads, Keyspace::Parts] {
            let mut after = Key::new(space, Incarnation::default(), b"");
            loop {
                let request = Request::Scan { after: Some(after), limit: 1 };
                let mut replies = self.mailbox().send(set, vec![(drive, request)]);
                let Some((_, Reply::Scanned { entries, .. })) = replies.next().await else {
                    return None;
                };
                let Some(entry) = entries.first().filter(|entry| entry.key.space() == space) else {
                    break;
                };
                let incarnation = entry.key.bucket();
                found.push(incarnation);
                // No name, being UTF-8, begins with this byte.
                after = Key::new(space, incarnation, &[0xff]);
            }
        }
        Some(found)
    }
}

/// The sweep of one incarnation's uploads on one set.
struct Sweep<'a, M: Mailbox, R: Runtime> {
    store: &'a Store<M, R>,
    set: SetIndex,
    bucket: Option<&'a str>,
    incarnation: Incarnation,
    age: Duration,
}

impl<M: Mailbox, R: Runtime> Sweep<'_, M, R> {
    async fn registers(&self, swept: &mut Swept) -> Result<()> {
        let prefix = Key::new(Keyspace::Uploads, self.incarnation, b"");
        let mut range = Range::all(self.set, prefix);
        while let Some((key, record)) = range.next(self.store).await? {
            let Some(names) = self.place_of(&key).filter(|_| self.has_rested(&record)) else {
                continue;
            };
            match self.end(&names).await {
                Ok(ended) => ended.count(swept),
                // Somebody else is at it.
                Err(Error::Conflict | Error::NoSuchUpload) => {}
                Err(error) => {
                    tracing::debug!(set = self.set.0, ?key, %error, "upload not swept yet");
                }
            }
        }
        Ok(())
    }

    fn has_rested(&self, record: &Record) -> bool {
        let now = self.store.runtime().wall().0;
        let rested = Duration::from_millis(now.saturating_sub(record.modified_ms()));
        rested >= self.age
    }

    /// The names of the upload that `key`, its own or a part's, belongs to.
    fn place_of(&self, key: &Key) -> Option<UploadPlace> {
        let (name, id) = names_in(key.name())?;
        // Nothing is placed for a bucket that is gone; its keys only end.
        let place = match self.bucket {
            Some(bucket) => self.store.place(bucket, name),
            None => Place { set: self.set, first_drive: DriveIndex(0) },
        };
        let names = UploadPlace::new(place, self.incarnation, name, id);
        (names.place.set == self.set).then_some(names)
    }

    async fn end(&self, names: &UploadPlace) -> Result<Ended> {
        let (before, upload) = self.store.upload_value(names).await?;
        match upload.state.clone() {
            State::Open => self.abort(names, &before).await,
            State::Completing(..) if self.bucket.is_none() => self.abort(names, &before).await,
            State::Completing(record, base) => {
                let bucket = self.bucket.expect("of one that is gone it was aborted");
                let versioning = self.store.bucket(bucket).await?.versioning;
                let names = &UploadPlace { versioning, ..names.clone() };
                // Where another write has come between, nobody waits for this one any more.
                self.store.finish_completion(names, upload, record, base, None).await?;
                Ok(Ended::Completed)
            }
            State::Completed(record, slot) => {
                self.forget(names, &before, &record, slot).await?;
                Ok(Ended::Forgotten)
            }
        }
    }

    async fn abort(&self, names: &UploadPlace, before: &KeyRead) -> Result<Ended> {
        self.store.end_upload(names, before).await?;
        self.store.remove_parts(names, &[]).await?;
        Ok(Ended::Aborted)
    }

    /// The parts go first, where a completion did not come to that: without its register nobody
    /// would know which of them belong to the object.
    async fn forget(
        &self,
        names: &UploadPlace,
        before: &KeyRead,
        record: &Record,
        slot: Slot,
    ) -> Result<()> {
        let is_there = self.store.is_there(self.set, &names.object, slot, record).await?;
        let kept = match is_there {
            true => self.store.parts_payloads(&names.object, record).await?,
            false => Vec::new(),
        };
        self.store.remove_parts(names, &kept).await?;
        self.store.end_upload(names, before).await
    }

    /// Parts whose upload is gone: they arrived late, and whoever brought them did not live to
    /// remove them, or an abort did not come to its end.
    async fn parts_without_register(&self, swept: &mut Swept) -> Result<()> {
        let prefix = Key::new(Keyspace::Parts, self.incarnation, b"");
        let mut after = None;
        loop {
            let mut range = Range::from(self.set, prefix.clone(), after);
            let Some((key, _)) = range.next(self.store).await? else { return Ok(()) };
            let Some(names) = self.place_of(&key) else {
                after = Some(ListAfter::Key(key));
                continue;
            };
            after = Some(ListAfter::Prefix(names.parts.clone()));
            if self.store.read_key(self.set, &names.upload).await?.live().is_none() {
                self.store.remove_parts(&names, &[]).await?;
                swept.orphaned += 1;
            }
        }
    }
}

enum Ended {
    Aborted,
    Completed,
    Forgotten,
}

impl Ended {
    fn count(&self, swept: &mut Swept) {
        match self {
            Self::Aborted => swept.aborted += 1,
            Self::Completed => swept.completed += 1,
            Self::Forgotten => swept.forgotten += 1,
        }
    }
}

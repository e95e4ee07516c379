//! DELETE: a tombstone is decided, unless there is nothing to delete; in a bucket that keeps versions a
//! delete marker. A version that is named is removed for good: in its archive, or where it is current by a
//! record that names the one that is current then.

use std::collections::BTreeMap;

use basalt_engine::record::{Etag, Fields, Kind, Lineage, PayloadForm, Record};
use basalt_engine::seam::Runtime;
use basalt_engine::units::{Incarnation, Key, Keyspace, OperationId, SetIndex, VersionId};
use basalt_net::mailbox::Mailbox;
use bytes::Bytes;
use futures_util::future::join_all;

use super::api::{Bucket, Condition, Deleted, Deletion, Versioning};
use super::archive::{Version, keeps_versions};
use super::error::{Error, Result};
use super::register::{KeyRead, Write};
use super::store::Store;
use super::version::{Removal, VersionName, Which};

/// Keys of one DeleteObjects that are worked on at the same time.
const DELETES_IN_FLIGHT: usize = 64;
/// Times that a removal begins anew because another write came in between.
const ATTEMPTS: u32 = 64;

impl<M: Mailbox, R: Runtime> Store<M, R> {
    /// Succeeds as well where there is nothing to delete.
    pub async fn delete(&self, bucket: &str, deletion: &Deletion) -> Result<Deleted> {
        let bucket = self.bucket(bucket).await?;
        self.delete_in(&bucket, deletion).await
    }

    /// One result for each key, in order.
    pub async fn delete_many(
        &self,
        bucket: &str,
        deletions: &[Deletion],
    ) -> Result<Vec<Result<Deleted>>> {
        let bucket = self.bucket(bucket).await?;
        // Versions of one key are deleted one after the other: they would only collide.
        let mut by_key: BTreeMap<&Bytes, Vec<usize>> = BTreeMap::new();
        for (place, deletion) in deletions.iter().enumerate() {
            by_key.entry(&deletion.key).or_default().push(place);
        }
        let by_key: Vec<Vec<usize>> = by_key.into_values().collect();
        let mut results: Vec<(usize, Result<Deleted>)> = Vec::with_capacity(deletions.len());
        for keys in by_key.chunks(DELETES_IN_FLIGHT) {
            let bucket = &bucket;
            let deletes = keys.iter().map(|places| async move {
                let mut done = Vec::with_capacity(places.len());
                for &place in places {
                    done.push((place, self.delete_in(bucket, &deletions[place]).await));
                }
                done
            });
            results.extend(join_all(deletes).await.into_iter().flatten());
        }
        results.sort_by_key(|(place, _)| *place);
        Ok(results.into_iter().map(|(_, result)| result).collect())
    }

    async fn delete_in(&self, bucket: &Bucket, deletion: &Deletion) -> Result<Deleted> {
        let set = self.place(&bucket.name, &deletion.key).set;
        let key = Key::new(Keyspace::Objects, bucket.incarnation, &deletion.key);
        let condition = deletion.condition.clone();
        let before = self.read_key(set, &key).await?;
        let keeps = keeps_versions(bucket.versioning, before.head());
        match deletion.version {
            Some(name) if keeps => self.remove_version(set, &key, before, name, &condition).await,
            Some(VersionName::Id { .. }) => {
                Ok(Deleted { version: deletion.version, marker: false })
            }
            _ if !keeps => {
                self.delete_only_version(set, key, &before, condition, bucket.versioning).await
            }
            _ => self.mark_deleted(set, key, &before, condition, bucket.versioning).await,
        }
    }

    /// Where no versions are kept.
    async fn delete_only_version(
        &self,
        set: SetIndex,
        key: Key,
        before: &KeyRead,
        condition: Condition,
        versioning: Versioning,
    ) -> Result<Deleted> {
        let Some(live) = before.live() else {
            return missing(&condition).map(|()| Deleted::default());
        };
        condition.check(Some(live))?;
        let write = Write::tombstone(key, self.tombstone(), condition, before);
        self.write_key(set, write.in_bucket(versioning)).await?;
        Ok(Deleted::default())
    }

    /// The current version gets a successor that says that the key is deleted, even where there is none.
    async fn mark_deleted(
        &self,
        set: SetIndex,
        key: Key,
        before: &KeyRead,
        condition: Condition,
        versioning: Versioning,
    ) -> Result<Deleted> {
        let operation = OperationId(self.runtime().random_u128());
        let marker = blank(Kind::Marker, operation, self.runtime().wall().0);
        let write = Write::staged(key, marker, condition, before, None).in_bucket(versioning);
        let written = self.write_key_at(set, write).await?;
        let (slot, record) = written.expect("a delete marker is always written");
        let version = Some(Which::of(slot, &record).name(&record));
        Ok(Deleted { version, marker: true })
    }

    /// Removes one version for good. Succeeds as well where it is not there.
    async fn remove_version(
        &self,
        set: SetIndex,
        key: &Key,
        before: KeyRead,
        name: VersionName,
        condition: &Condition,
    ) -> Result<Deleted> {
        let mut read = before;
        for _ in 0..ATTEMPTS {
            let Some(version) = self.version_named(set, key, &read, name, false).await? else {
                return missing(condition).map(|()| Deleted { version: Some(name), marker: false });
            };
            let is_live = version.record.kind().is_live();
            condition.check(Some(&version.record).filter(|_| is_live))?;
            let marker = version.record.kind() == Kind::Marker;
            if self.is_current(set, key, &read, &version).await? {
                match self.remove_current(set, key, &read, &version).await {
                    // Another write came in between.
                    Err(Error::Busy) => {
                        read = self.read_key(set, key).await?;
                        continue;
                    }
                    outcome => outcome?,
                }
            } else {
                self.end_archived(set, key, &version).await?;
            }
            // The version is gone; what follows only spares others a look.
            let buried = match self.read_key(set, key).await {
                Ok(now) => self.bury(set, key, &now).await,
                Err(error) => Err(error),
            };
            if let Err(error) = buried {
                tracing::debug!(set = set.0, ?key, %error, "a key without versions is left");
            }
            return Ok(Deleted { version: Some(name), marker });
        }
        Err(Error::Busy)
    }

    async fn is_current(
        &self,
        set: SetIndex,
        key: &Key,
        read: &KeyRead,
        version: &Version,
    ) -> Result<bool> {
        if version.archived.is_none() {
            return Ok(true);
        }
        if read.head().is_none_or(|(_, record)| record.kind() != Kind::Removed) {
            return Ok(false);
        }
        let current = self.current_version(set, key, read, false).await?;
        Ok(current.is_some_and(|current| current.which == version.which))
    }

    /// The slot after the head says that the version is removed, and which one is current now. Fails as
    /// [`Error::Busy`] where another write has that slot.
    async fn remove_current(
        &self,
        set: SetIndex,
        key: &Key,
        read: &KeyRead,
        version: &Version,
    ) -> Result<()> {
        let head = read.head().expect("a version is there");
        if let Some(removal) = Removal::of(&head.1) {
            self.finish_removal(set, key, removal).await?;
        }
        let current = self.newest_archived(set, key, version.which).await?;
        let removal = match &version.archived {
            None => {
                // What the tombstone in the archive follows has to be known there.
                self.archive(set, key, head.0, &head.1).await?;
                Removal::of_head(head, current)
            }
            Some(archived) => {
                let at = archived.certificate().expect("the version was read there");
                Removal { which: version.which, at, current }
            }
        };
        let operation = OperationId(self.runtime().random_u128());
        let record = blank(Kind::Removed, operation, self.runtime().wall().0)
            .with_metadata(removal.encode())
            .with_lineage(Some(Lineage::default()));
        self.write_key(set, Write::shared(key.clone(), record, read)).await?;
        if let Err(error) = self.finish_removal(set, key, removal).await {
            // It is removed all the same: whoever writes next does this first.
            tracing::debug!(set = set.0, ?key, %error, "the archive of a removed version is left");
        }
        Ok(())
    }

    /// A record that says: deleted.
    pub(super) fn tombstone(&self) -> Record {
        let operation = OperationId(self.runtime().random_u128());
        blank(Kind::Tombstone, operation, self.runtime().wall().0)
    }
}

/// What a deletion of something that is not there comes to.
fn missing(condition: &Condition) -> Result<()> {
    match condition {
        Condition::None | Condition::Absent | Condition::Differs(_) => Ok(()),
        Condition::Present | Condition::Matches(_) | Condition::Version(_) => Err(Error::NoSuchKey),
    }
}

/// A record of nothing but its kind.
pub(super) fn blank(kind: Kind, operation: OperationId, modified_ms: u64) -> Record {
    Record::encode(&Fields {
        operation,
        version: VersionId(operation.0),
        kind,
        class: 0,
        incarnation: Incarnation::default(),
        lineage: None,
        modified_ms,
        size: 0,
        etag: Etag::default(),
        form: PayloadForm::None,
        payloads: Vec::new(),
        checksums: Bytes::new(),
        metadata: Bytes::new(),
    })
}

//! Buckets: registers in the system keyspace of set 0.
//!
//! A bucket of a name has a fresh incarnation each time it is made; objects carry the incarnation in
//! their keys, so a late PUT to a deleted bucket cannot land in its successor. Deletion: decide
//! "closing"; have at least R drives of every set refuse new values of the incarnation; look for live
//! keys; then decide deleted, or open again. Whoever meets a bucket that is closing and whose closer
//! has gone finishes it.

use std::time::Duration;

use basalt_engine::record::{Etag, Fields, Kind, PayloadForm, Record};
use basalt_engine::request::{Reply, Request};
use basalt_engine::seam::Runtime;
use basalt_engine::units::{
    DriveIndex, Incarnation, Key, Keyspace, OperationId, SetIndex, VersionId,
};
use basalt_net::mailbox::Mailbox;
use bytes::{BufMut, Bytes, BytesMut};

use super::api::{Bucket, Condition, Versioning};
use super::error::{Error, Result};
use super::list::Range;
use super::register::{KeyRead, Write};
use super::store::Store;

/// The set that holds the system keyspace.
pub(super) const SYSTEM_SET: SetIndex = SetIndex(0);
const NAME_PREFIX: &[u8] = b"bucket/";
/// A closing that is older than this is finished by whoever meets it.
const CLOSING_STALE: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Open = 1,
    Closing = 2,
}

/// What a bucket's record holds: incarnation (u64), created (u64), state (u8), versioning (u8; it may
/// lack, which is unset).
#[derive(Clone, Copy, Debug)]
struct Value {
    incarnation: Incarnation,
    created_ms: u64,
    state: State,
    versioning: Versioning,
}

const VALUE_BYTES: usize = 17;

impl Value {
    fn encode(self) -> Bytes {
        let mut out = BytesMut::with_capacity(VALUE_BYTES + 1);
        out.put_u64_le(self.incarnation.0);
        out.put_u64_le(self.created_ms);
        out.put_u8(self.state as u8);
        out.put_u8(self.versioning as u8);
        out.freeze()
    }

    fn bucket(self, name: &str) -> Bucket {
        Bucket {
            name: name.to_owned(),
            created_ms: self.created_ms,
            incarnation: self.incarnation,
            versioning: self.versioning,
        }
    }

    fn of(record: &Record) -> Option<Self> {
        let value = record.metadata();
        let (bytes, rest) = value.split_at_checked(VALUE_BYTES)?;
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight"));
        let state = match bytes[16] {
            1 => State::Open,
            2 => State::Closing,
            _ => return None,
        };
        let versioning = match rest {
            [] | [0] => Versioning::Unset,
            [1] => Versioning::Enabled,
            [2] => Versioning::Suspended,
            _ => return None,
        };
        Some(Self { incarnation: Incarnation(word(0)), created_ms: word(8), state, versioning })
    }
}

/// The incarnation that a bucket's record gives it.
pub(crate) fn incarnation_of(record: &Record) -> Option<Incarnation> {
    Value::of(record).map(|value| value.incarnation)
}

pub(crate) fn bucket_key(name: &str) -> Key {
    Key::new(Keyspace::System, Incarnation::default(), &[NAME_PREFIX, name.as_bytes()].concat())
}

impl<M: Mailbox, R: Runtime> Store<M, R> {
    pub async fn bucket(&self, name: &str) -> Result<Bucket> {
        let drives = self.quorums(SYSTEM_SET).drives as u64;
        // The looks at one bucket are spread over the drives.
        let start = DriveIndex((self.runtime().random_u64() % drives) as u8);
        let read = self.read_head(SYSTEM_SET, &bucket_key(name), start, false).await?;
        let bucket = read.live().and_then(Value::of).map(|value| value.bucket(name));
        self.remember_bucket(name, bucket.as_ref());
        bucket.ok_or(Error::NoSuchBucket)
    }

    /// Has a bucket keep versions, or keep no more than there are. Every write that begins when this has
    /// returned goes by it: each reads the register.
    pub async fn set_versioning(&self, name: &str, versioning: Versioning) -> Result<()> {
        assert!(versioning != Versioning::Unset, "versions that are there cannot be made unseen");
        let (before, value) = self.bucket_value(name).await?;
        let value = value.ok_or(Error::NoSuchBucket)?;
        if value.state == State::Closing {
            self.finish_stale_closing(name, &before, value).await?;
            return Err(Error::Conflict);
        }
        if value.versioning == versioning {
            return Ok(());
        }
        let value = Value { versioning, ..value };
        let write = self.write_bucket(name, value, before.condition(), &before);
        write.await.map_err(conflict)?;
        self.remember_bucket(name, Some(&value.bucket(name)));
        Ok(())
    }

    pub async fn create_bucket(&self, name: &str) -> Result<Bucket> {
        let (before, value) = self.bucket_value(name).await?;
        match value {
            Some(Value { state: State::Open, .. }) => return Err(Error::BucketExists),
            Some(closing) => {
                self.finish_stale_closing(name, &before, closing).await?;
                return Err(Error::Conflict);
            }
            None => {}
        }
        // Never 0 (the system's own), and ordered by nothing: two lives never share one.
        let incarnation = Incarnation(self.runtime().random_u64().max(1));
        let created_ms = self.runtime().wall().0;
        let value =
            Value { incarnation, created_ms, state: State::Open, versioning: Versioning::Unset };
        match self.write_bucket(name, value, Condition::Absent, &before).await {
            Ok(_) => Ok(value.bucket(name)),
            Err(Error::PreconditionFailed) => Err(Error::BucketExists),
            Err(error) => Err(error),
        }
    }

    pub async fn buckets(&self) -> Result<Vec<Bucket>> {
        let mut buckets = Vec::new();
        let prefix = Key::new(Keyspace::System, Incarnation::default(), NAME_PREFIX);
        let mut range = Range::all(SYSTEM_SET, prefix);
        while let Some((key, record)) = range.next(self).await? {
            let name = String::from_utf8_lossy(&key.name()[NAME_PREFIX.len()..]).into_owned();
            buckets.extend(Value::of(&record).map(|value| value.bucket(&name)));
        }
        Ok(buckets)
    }

    pub async fn delete_bucket(&self, name: &str) -> Result<()> {
        let (before, value) = self.bucket_value(name).await?;
        let value = value.ok_or(Error::NoSuchBucket)?;
        if value.state == State::Closing {
            self.finish_stale_closing(name, &before, value).await?;
            return Err(Error::Conflict);
        }
        // A bucket that is plainly not empty is not closed for the look.
        if !self.is_empty(value.incarnation).await? {
            return Err(Error::BucketNotEmpty);
        }
        let closing = Value { state: State::Closing, ..value };
        let write = self.write_bucket(name, closing, before.condition(), &before);
        let operation = write.await.map_err(conflict)?;
        self.close(name, closing, operation).await
    }

    /// The second half of a deletion, from "closing" decided by `operation` to deleted or open again.
    /// Only the closer whose record stands decides either: what another one saw or did is nothing to go
    /// by, however long it has been waiting.
    async fn close(&self, name: &str, closing: Value, operation: OperationId) -> Result<()> {
        let incarnation = closing.incarnation;
        let emptied = match self.on_quorums(|| Request::CloseBucket { incarnation }).await {
            Ok(()) => self.is_empty(incarnation).await,
            Err(error) => Err(error),
        };
        let emptied = match emptied {
            // A slot may have been decided and cannot be seen to be while the bucket is closing.
            Err(Error::BucketClosing) => Ok(false),
            emptied => emptied,
        };
        let (before, _) = self.bucket_value(name).await?;
        if before.live().is_none_or(|record| record.operation() != operation) {
            return Err(Error::Conflict);
        }
        if let Ok(true) = emptied {
            let write =
                Write::tombstone(bucket_key(name), self.tombstone(), before.condition(), &before);
            self.write_key(SYSTEM_SET, write).await.map_err(conflict)?;
            // Nothing reads them any more; the deletion does not fail with them.
            if let Err(error) = self.remove_settings(incarnation).await {
                tracing::warn!(bucket = name, %error, "settings of a deleted bucket are left");
            }
            return Ok(());
        }
        let open = Value { state: State::Open, ..closing };
        self.on_quorums(|| Request::ReopenBucket { incarnation }).await?;
        self.write_bucket(name, open, before.condition(), &before).await.map_err(conflict)?;
        emptied.and(Err(Error::BucketNotEmpty))
    }

    /// Brings to its end what the closer of a bucket seems to have left.
    pub(super) async fn finish_closing(&self, name: &str) -> Result<()> {
        let (before, value) = self.bucket_value(name).await?;
        match value.filter(|value| value.state == State::Closing) {
            Some(closing) => self.finish_stale_closing(name, &before, closing).await,
            None => Ok(()),
        }
    }

    /// The bucket of an incarnation; `None` where it was deleted.
    pub(super) async fn name_of_bucket(&self, incarnation: Incarnation) -> Result<Option<String>> {
        let buckets = self.buckets().await?;
        let found = buckets.into_iter().find(|bucket| bucket.incarnation == incarnation);
        Ok(found.map(|bucket| bucket.name))
    }

    async fn finish_stale_closing(&self, name: &str, seen: &KeyRead, closing: Value) -> Result<()> {
        let changed_ms = seen.live().map_or(0, Record::modified_ms);
        let age_ms = self.runtime().wall().0.saturating_sub(changed_ms);
        if u128::from(age_ms) < CLOSING_STALE.as_millis() {
            return Ok(());
        }
        // First it takes the closing over, so that the former closer decides nothing any more.
        let takeover = self.write_bucket(name, closing, seen.condition(), seen).await;
        let operation = match takeover.map_err(conflict) {
            Ok(operation) => operation,
            Err(Error::Conflict) => return Ok(()),
            Err(error) => return Err(error),
        };
        match self.close(name, closing, operation).await {
            Ok(()) | Err(Error::BucketNotEmpty | Error::Conflict) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Has at least R drives of every set do something to a bucket's incarnation, durably.
    async fn on_quorums(&self, request: impl Fn() -> Request) -> Result<()> {
        for set in self.sets() {
            let drives = self.mailbox().drive_count(set);
            let requests = (0..drives as u8).map(|drive| (DriveIndex(drive), request())).collect();
            let mut replies = self.mailbox().send(set, requests);
            let mut done = 0;
            while let Some((drive, reply)) = replies.next().await {
                let counts = matches!(reply, Reply::Done) && self.is_voting(set, drive);
                done += usize::from(counts);
            }
            let needed = self.quorums(set).read;
            if done < needed {
                let short_by = u32::try_from(needed - done).expect("at most sixteen");
                return Err(Error::Unavailable { set, action: "close the bucket", short_by });
            }
        }
        Ok(())
    }

    /// Whether there is no version of anything in the incarnation, on any set.
    async fn is_empty(&self, incarnation: Incarnation) -> Result<bool> {
        for set in self.sets() {
            if self.has_versions(set, incarnation).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn bucket_value(&self, name: &str) -> Result<(KeyRead, Option<Value>)> {
        let read = self.read_key(SYSTEM_SET, &bucket_key(name)).await?;
        let value = read.live().and_then(Value::of);
        Ok((read, value))
    }

    async fn write_bucket(
        &self,
        name: &str,
        value: Value,
        condition: Condition,
        before: &KeyRead,
    ) -> Result<OperationId> {
        let record = self.system_record(value.encode());
        let operation = record.operation();
        let write = Write::staged(bucket_key(name), record, condition, before, None);
        self.write_key(SYSTEM_SET, write).await.map(|()| operation)
    }

    /// A record that is nothing but a system value. Its ETag tells one write from the next, so that
    /// conditions work on system values as they do on objects.
    pub(super) fn system_record(&self, value: Bytes) -> Record {
        let operation = OperationId(self.runtime().random_u128());
        Record::encode(&Fields {
            operation,
            version: VersionId(operation.0),
            kind: Kind::Data,
            class: 0,
            incarnation: Incarnation::default(),
            lineage: None,
            modified_ms: self.runtime().wall().0,
            size: 0,
            etag: Etag { md5: operation.0.to_le_bytes(), parts: 0 },
            form: PayloadForm::None,
            payloads: Vec::new(),
            checksums: Bytes::new(),
            metadata: value,
        })
    }
}

/// Somebody else changed the bucket in between.
fn conflict(error: Error) -> Error {
    match error {
        Error::PreconditionFailed | Error::NoSuchKey => Error::Conflict,
        other => other,
    }
}

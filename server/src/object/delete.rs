//! DELETE: a tombstone is decided, unless there is nothing to delete.

use basalt_engine::record::{Etag, Fields, Kind, PayloadForm, Record};
use basalt_engine::seam::Runtime;
use basalt_engine::units::{Incarnation, Key, Keyspace, OperationId, VersionId};
use basalt_net::mailbox::Mailbox;
use bytes::Bytes;
use futures_util::future::join_all;

use super::api::{Bucket, Condition};
use super::error::{Error, Result};
use super::register::Write;
use super::store::Store;

/// Keys of one DeleteObjects that are worked on at the same time.
const DELETES_IN_FLIGHT: usize = 64;

impl<M: Mailbox, R: Runtime> Store<M, R> {
    /// Succeeds as well where there is nothing to delete.
    pub async fn delete(&self, bucket: &str, key: &Bytes, condition: Condition) -> Result<()> {
        let bucket = self.bucket(bucket).await?;
        self.delete_in(&bucket, key, condition).await
    }

    /// One result for each key, in order.
    pub async fn delete_many(&self, bucket: &str, keys: &[Bytes]) -> Result<Vec<Result<()>>> {
        let bucket = self.bucket(bucket).await?;
        let mut results = Vec::with_capacity(keys.len());
        for keys in keys.chunks(DELETES_IN_FLIGHT) {
            let deletes = keys.iter().map(|key| self.delete_in(&bucket, key, Condition::None));
            results.extend(join_all(deletes).await);
        }
        Ok(results)
    }

    async fn delete_in(&self, bucket: &Bucket, key: &Bytes, condition: Condition) -> Result<()> {
        let place = self.place(&bucket.name, key);
        let key = Key::new(Keyspace::Objects, bucket.incarnation, key);
        let before = self.read_key(place.set, &key).await?;
        let Some(live) = before.live() else {
            return match condition {
                Condition::None | Condition::Absent | Condition::Differs(_) => Ok(()),
                Condition::Present | Condition::Matches(_) | Condition::Version(_) => {
                    Err(Error::NoSuchKey)
                }
            };
        };
        condition.check(Some(live))?;
        let write = Write::tombstone(key, self.tombstone(), condition, &before);
        self.write_key(place.set, write).await
    }

    /// A record that says: deleted.
    pub(super) fn tombstone(&self) -> Record {
        let operation = OperationId(self.runtime().random_u128());
        Record::encode(&Fields {
            operation,
            version: VersionId(operation.0),
            kind: Kind::Tombstone,
            class: 0,
            incarnation: Incarnation::default(),
            lineage: None,
            modified_ms: self.runtime().wall().0,
            size: 0,
            etag: Etag::default(),
            form: PayloadForm::None,
            payloads: Vec::new(),
            checksums: Bytes::new(),
            metadata: Bytes::new(),
        })
    }
}

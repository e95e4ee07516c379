//! PUT, from top to bottom: look at the bucket and the key, stage the body, have the record
//! decided, answer. Everything before the decision is invisible and reclaimable.

use basalt_engine::record::{Etag, Fields, Kind, Layout, PayloadForm, Record};
use basalt_engine::seam::Runtime;
use basalt_engine::units::{
    Incarnation, Key, Keyspace, OperationId, PayloadId, SetIndex, Slot, VersionId,
};
use basalt_net::mailbox::Mailbox;
use futures_util::future::join;

use super::api::{Bucket, Condition, Put, Source, StorageClass, Written};
use super::error::Result;
use super::layout;
use super::metadata::{encode_checksums, encode_metadata};
use super::register::{KeyRead, Write};
use super::stage::{self, Staged};
use super::store::{Place, Store};
use super::version::{VersionName, Which};

impl<M: Mailbox, R: Runtime> Store<M, R> {
    pub async fn put(&self, put: Put, body: &mut impl Source) -> Result<Written> {
        let place = self.place(&put.bucket, &put.key);
        let (bucket, key, before) = self.look(place.set, &put.bucket, &put.key).await?;
        self.check_condition(place.set, &key, &before, &put.condition).await?;

        let operation = OperationId(self.runtime().random_u128());
        let layout = self.layout(place, put.class, put.size, 0, &before)?;
        let staged = match layout {
            Some(layout) => stage::stage(self, &key, operation, layout, body).await?,
            None => stage::stage_nothing(self, body).await?,
        };
        let fields = self.version_fields(operation, &put, &staged);
        let condition = put.condition;
        let write = Write::staged(key, Record::encode(&fields), condition, &before, staged.copy);
        let decided = self.write_key_at(place.set, write.in_bucket(bucket.versioning)).await?;
        let name = decided.and_then(|(slot, record)| shown_name(slot, &record));
        let (etag, version, size) = (fields.etag, fields.version, fields.size);
        Ok(Written { etag, version, name, checksums: staged.checksums, size })
    }

    /// A bucket, and the head of a key in it. Both are asked for side by side where this core knows which
    /// life of the bucket's name it is probably about.
    async fn look(
        &self,
        set: SetIndex,
        bucket: &str,
        name: &[u8],
    ) -> Result<(Bucket, Key, KeyRead)> {
        let key_in = |life: Incarnation| Key::new(Keyspace::Objects, life, name);
        let Some(known) = self.remembered_bucket(bucket) else {
            let bucket = self.bucket(bucket).await?;
            let key = key_in(bucket.incarnation);
            let read = self.read_key(set, &key).await?;
            return Ok((bucket, key, read));
        };
        let key = key_in(known.incarnation);
        let (found, read) = join(self.bucket(bucket), self.read_key(set, &key)).await;
        let found = found?;
        if found.incarnation == known.incarnation {
            return Ok((found, key, read?));
        }
        let key = key_in(found.incarnation);
        let read = self.read_key(set, &key).await?;
        Ok((found, key, read))
    }

    /// How the payload will be spread, given which drives answered a moment ago; `None` where there
    /// is nothing to spread.
    pub(super) fn layout(
        &self,
        place: Place,
        class: StorageClass,
        size: u64,
        part: u16,
        seen: &KeyRead,
    ) -> Result<Option<Layout>> {
        if size == 0 {
            return Ok(None);
        }
        let spread = self.spread(place, class, seen.answered)?;
        let payload = PayloadId(self.runtime().random_u128());
        Ok(Some(layout::choose(payload, size, part, spread)))
    }

    fn version_fields(&self, operation: OperationId, put: &Put, staged: &Staged) -> Fields {
        Fields {
            operation,
            version: VersionId(operation.0),
            kind: Kind::Data,
            class: put.class as u8,
            incarnation: Default::default(),
            lineage: None,
            modified_ms: self.runtime().wall().0,
            size: put.size,
            etag: Etag { md5: staged.md5, parts: 0 },
            form: if staged.layout.is_some() { PayloadForm::Inline } else { PayloadForm::None },
            payloads: staged.layout.iter().cloned().collect(),
            checksums: encode_checksums(&staged.checksums),
            metadata: encode_metadata(&put.metadata, &put.tags),
        }
    }
}

/// The name of a version as the answer to its write tells it: none where no versions are kept.
pub(super) fn shown_name(slot: Slot, record: &Record) -> Option<VersionName> {
    record.lineage().map(|_| Which::of(slot, record).name(record))
}

impl Condition {
    /// Whether a write may follow `head`, the key's live record.
    pub(super) fn holds(&self, head: Option<&Record>) -> bool {
        match (self, head) {
            (Self::None, _) => true,
            (Self::Absent, head) => head.is_none(),
            (Self::Present, head) => head.is_some(),
            (Self::Matches(etag), Some(record)) => record.etag().to_string() == *etag,
            (Self::Differs(etag), Some(record)) => record.etag().to_string() != *etag,
            (Self::Differs(_), None) => true,
            (Self::Version(version), Some(record)) => record.version() == *version,
            (Self::Matches(_) | Self::Version(_), None) => false,
        }
    }

    pub(super) fn check(&self, head: Option<&Record>) -> Result<()> {
        use super::error::Error;
        match (self.holds(head), self, head) {
            (true, _, _) => Ok(()),
            (false, Self::Matches(_) | Self::Present | Self::Version(_), None) => {
                Err(Error::NoSuchKey)
            }
            (false, _, _) => Err(Error::PreconditionFailed),
        }
    }
}

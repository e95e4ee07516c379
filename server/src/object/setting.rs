//! Settings of a bucket: short values under a name, each a key of its own in the system keyspace,
//! which carries the bucket's incarnation and so ends with it. A value is a payload like any
//! object's, because it may be longer than a record.

use basalt_engine::record::{Etag, Fields, Kind, PayloadForm, Record};
use basalt_engine::seam::Runtime;
use basalt_engine::units::{DriveIndex, Incarnation, Key, Keyspace, OperationId, VersionId};
use basalt_net::mailbox::Mailbox;
use bytes::{Bytes, BytesMut};

use super::api::{Body, Condition, Span, StorageClass};
use super::bucket::SYSTEM_SET;
use super::error::Result;
use super::list::Range;
use super::lost::refuse_lost;
use super::register::Write;
use super::stage;
use super::store::{Place, Store};

impl<M: Mailbox, R: Runtime> Store<M, R> {
    pub async fn bucket_setting(&self, bucket: &str, name: &str) -> Result<Option<Bytes>> {
        let key = self.setting_key(bucket, name).await?;
        let place = setting_place();
        let read = self.read_head(place.set, &key, place.first_drive, true).await?;
        let Some(record) = read.live() else { return Ok(None) };
        refuse_lost(place.set, record)?;
        let span = Span { start: 0, end: record.size() };
        let mut body = self.body(&key, record, read.copy.clone(), span).await?;
        let mut value = BytesMut::new();
        while let Some(bytes) = body.next().await? {
            value.extend_from_slice(&bytes);
        }
        Ok(Some(value.freeze()))
    }

    /// `None` removes it.
    pub async fn set_bucket_setting(
        &self,
        bucket: &str,
        name: &str,
        value: Option<Bytes>,
    ) -> Result<()> {
        let key = self.setting_key(bucket, name).await?;
        match value {
            Some(value) => self.put_setting(key, value).await,
            None => self.remove_setting(&key).await,
        }
    }

    async fn put_setting(&self, key: Key, value: Bytes) -> Result<()> {
        let place = setting_place();
        let before = self.read_key(place.set, &key).await?;
        let operation = OperationId(self.runtime().random_u128());
        let size = value.len() as u64;
        let layout = self.layout(place, StorageClass::Standard, size, 0, &before)?;
        let mut body = stage::Whole::new(value);
        let staged = match layout {
            Some(layout) => stage::stage(self, &key, operation, layout, &mut body).await?,
            None => stage::stage_nothing(self, &mut body).await?,
        };
        let record = Record::encode(&Fields {
            operation,
            version: VersionId(operation.0),
            kind: Kind::Data,
            class: StorageClass::Standard as u8,
            incarnation: Incarnation::default(),
            modified_ms: self.runtime().wall().0,
            size,
            etag: Etag { md5: staged.md5, parts: 0 },
            form: if staged.layout.is_some() { PayloadForm::Inline } else { PayloadForm::None },
            payloads: staged.layout.into_iter().collect(),
            checksums: Bytes::new(),
            metadata: Bytes::new(),
        });
        let write = Write::staged(key, record, Condition::None, &before, staged.copy);
        self.write_key(place.set, write).await
    }

    async fn remove_setting(&self, key: &Key) -> Result<()> {
        let before = self.read_key(SYSTEM_SET, key).await?;
        if before.live().is_none() {
            return Ok(());
        }
        let write = Write::tombstone(key.clone(), self.tombstone(), Condition::None, &before);
        self.write_key(SYSTEM_SET, write).await
    }

    /// For a bucket that nothing can be added to any more.
    pub(super) async fn remove_settings(&self, incarnation: Incarnation) -> Result<()> {
        let mut range = Range::all(SYSTEM_SET, Key::new(Keyspace::System, incarnation, b""));
        while let Some((key, _)) = range.next(self).await? {
            self.remove_setting(&key).await?;
        }
        Ok(())
    }

    async fn setting_key(&self, bucket: &str, name: &str) -> Result<Key> {
        let incarnation = self.bucket(bucket).await?.incarnation;
        Ok(Key::new(Keyspace::System, incarnation, name.as_bytes()))
    }
}

fn setting_place() -> Place {
    Place { set: SYSTEM_SET, first_drive: DriveIndex(0) }
}

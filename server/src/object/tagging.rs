//! Tags of an object that is there. The version stays what it is, with its time and its payload;
//! its record is decided anew with other tags.

use basalt_engine::checksum;
use basalt_engine::record::{Fields, Layout, Record};
use basalt_engine::request::SmallShard;
use basalt_engine::seam::Runtime;
use basalt_engine::units::{Key, Keyspace, OperationId, PayloadId};
use basalt_net::mailbox::Mailbox;
use bytes::{Bytes, BytesMut};

use super::api::{Body, Span, Tags};
use super::error::{Error, Result};
use super::metadata::{decode_metadata, encode_metadata};
use super::register::Write;
use super::store::Store;

/// Times that tags are set anew because the object was overwritten in between.
const ATTEMPTS: u32 = 16;

impl<M: Mailbox, R: Runtime> Store<M, R> {
    /// Replaces all tags of the key's object.
    pub async fn set_tags(&self, bucket: &str, key: &Bytes, tags: &Tags) -> Result<()> {
        let incarnation = self.bucket(bucket).await?.incarnation;
        let place = self.place(bucket, key);
        let key = Key::new(Keyspace::Objects, incarnation, key);
        for _ in 0..ATTEMPTS {
            let before = self.read_head(place.set, &key, place.first_drive, true).await?;
            let record = before.live().ok_or(Error::NoSuchKey)?;
            let (metadata, _) = decode_metadata(record.metadata()).unwrap_or_default();
            let mut fields = Fields {
                operation: OperationId(self.runtime().random_u128()),
                metadata: encode_metadata(&metadata, tags),
                ..record.fields()
            };
            let copy = before.copy.clone();
            let copy = self.travelling(&key, record, copy, &mut fields.payloads).await?;
            let write = Write::restated(key.clone(), Record::encode(&fields), &before, copy);
            match self.write_key(place.set, write).await {
                Err(Error::PreconditionFailed) => {}
                outcome => return outcome,
            }
        }
        Err(Error::Busy)
    }

    /// A payload that travels with its record travels again, as a payload of its own: the copies of
    /// the former one go with the former record.
    async fn travelling(
        &self,
        key: &Key,
        record: &Record,
        copy: Option<Bytes>,
        payloads: &mut [Layout],
    ) -> Result<Option<SmallShard>> {
        let Some(layout) = payloads.first_mut().filter(|layout| layout.is_co_staged()) else {
            return Ok(None);
        };
        let mut body = self.body(key, record, copy, Span { start: 0, end: record.size() }).await?;
        let mut bytes = BytesMut::new();
        while let Some(piece) = body.next().await? {
            bytes.extend_from_slice(&piece);
        }
        layout.payload = PayloadId(self.runtime().random_u128());
        let bytes = bytes.freeze();
        let checksum = checksum::small_shard(layout.payload, 0, &bytes);
        Ok(Some(SmallShard { checksum, bytes }))
    }
}

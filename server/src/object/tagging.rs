//! Tags of an object that is there. The version stays what it is, with its time and its payload;
//! its record is decided anew with other tags.

use basalt_engine::checksum;
use basalt_engine::record::{Fields, Kind, Layout, Record};
use basalt_engine::request::SmallShard;
use basalt_engine::seam::Runtime;
use basalt_engine::units::{Key, Keyspace, OperationId, PayloadId};
use basalt_net::mailbox::Mailbox;
use bytes::{Bytes, BytesMut};

use super::api::{Body, Span, Tags, Versioning};
use super::error::{Error, Result};
use super::metadata::{decode_metadata, encode_metadata};
use super::register::Write;
use super::store::Store;
use super::version::VersionName;

/// Times that tags are set anew because the object was overwritten in between.
const ATTEMPTS: u32 = 16;

impl<M: Mailbox, R: Runtime> Store<M, R> {
    /// Replaces all tags of the key's object, or of that version of it, whose name it answers where
    /// versions are kept.
    pub async fn set_tags(
        &self,
        bucket: &str,
        key: &Bytes,
        name: Option<VersionName>,
        tags: &Tags,
    ) -> Result<Option<VersionName>> {
        let bucket_found = self.bucket(bucket).await?;
        let keeps_versions = bucket_found.versioning != Versioning::Unset;
        let place = self.place(bucket, key);
        let key = Key::new(Keyspace::Objects, bucket_found.incarnation, key);
        for _ in 0..ATTEMPTS {
            let head = self.read_head(place.set, &key, place.first_drive, true).await?;
            let version = match name {
                None => self.current_version(place.set, &key, &head, true).await?,
                Some(name) => self.version_named(place.set, &key, &head, name, true).await?,
            };
            let missing = if name.is_some() { Error::NoSuchVersion } else { Error::NoSuchKey };
            let version = version.ok_or(missing)?;
            let marker = version.name();
            if version.record.kind() == Kind::Marker {
                let modified_ms = version.record.modified_ms();
                return Err(match name {
                    Some(_) => Error::IsMarker { marker, modified_ms },
                    None => Error::Deleted { marker },
                });
            }
            let shown = (keeps_versions || version.record.lineage().is_some()).then_some(marker);
            // Where the version stands: its archive, or the key of which it is the head.
            let (at, before) = match &version.archived {
                Some(archived) => (version.which.archive(&key), archived),
                None => (key.clone(), &head),
            };
            let record = &version.record;
            let (metadata, _) = decode_metadata(record.metadata()).unwrap_or_default();
            let mut fields = Fields {
                operation: OperationId(self.runtime().random_u128()),
                metadata: encode_metadata(&metadata, tags),
                lineage: record.lineage().map(|lineage| version.which.described_anew(lineage)),
                ..record.fields()
            };
            let copy = version.copy.clone();
            let copy = self.travelling(&at, record, copy, &mut fields.payloads).await?;
            let write = Write::restated(at, Record::encode(&fields), before, copy);
            match self.write_key(place.set, write).await {
                // It was overwritten, or the version has moved to its archive.
                Err(Error::PreconditionFailed | Error::NoSuchKey) => {}
                outcome => return outcome.map(|()| shown),
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

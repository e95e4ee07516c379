//! GET and HEAD: the record from a quorum of drives, the bytes from k of them.

use std::collections::VecDeque;

use basalt_engine::record::{Kind, Layout, PayloadForm, Record};
use basalt_engine::seam::Runtime;
use basalt_engine::units::{Incarnation, Key, Keyspace};
use basalt_net::mailbox::Mailbox;
use bytes::{Bytes, BytesMut};

use super::api::{Body, ObjectInfo, ObjectPart, Span, StorageClass};
use super::error::{Error, Result};
use super::lost::refuse_lost;
use super::manifest::{self, Manifest};
use super::metadata::{decode_checksums, decode_metadata, parts_in};
use super::parts;
use super::read::PayloadReader;
use super::store::Store;

impl<M: Mailbox, R: Runtime> Store<M, R> {
    /// What the key's current object is, without its bytes.
    pub async fn head(&self, bucket: &str, key: &Bytes) -> Result<ObjectInfo> {
        let live = self.live_object(bucket, key, false).await?;
        Ok(object_info(&live.record))
    }

    /// Calls `select` once with what the object is; it answers which bytes to read (`None`: none,
    /// as for a 304 or a 412), and the body yields exactly those.
    pub async fn get(
        &self,
        bucket: &str,
        key: &Bytes,
        select: impl FnOnce(&ObjectInfo) -> Option<Span>,
    ) -> Result<(ObjectInfo, Option<ObjectBody<M, R>>)> {
        let Live { key, record, copy } = self.live_object(bucket, key, true).await?;
        let info = object_info(&record);
        let Some(span) = select(&info) else { return Ok((info, None)) };
        let body = self.body(&key, &record, copy, span).await?;
        Ok((info, Some(body)))
    }

    /// What the key's current object is, and its parts; none where it was not uploaded in parts.
    pub async fn head_with_parts(
        &self,
        bucket: &str,
        key: &Bytes,
    ) -> Result<(ObjectInfo, Vec<ObjectPart>)> {
        let Live { key, record, .. } = self.live_object(bucket, key, false).await?;
        Ok((object_info(&record), self.parts_of(&key, &record).await?))
    }

    /// As [`Self::get`], for who wants to choose among the object's parts.
    pub async fn get_with_parts(
        &self,
        bucket: &str,
        key: &Bytes,
        select: impl FnOnce(&ObjectInfo, &[ObjectPart]) -> Option<Span>,
    ) -> Result<(ObjectInfo, Vec<ObjectPart>, Option<ObjectBody<M, R>>)> {
        let Live { key, record, copy } = self.live_object(bucket, key, true).await?;
        let (info, parts) = (object_info(&record), self.parts_of(&key, &record).await?);
        let Some(span) = select(&info, &parts) else { return Ok((info, parts, None)) };
        let body = self.body(&key, &record, copy, span).await?;
        Ok((info, parts, Some(body)))
    }

    async fn parts_of(&self, key: &Key, record: &Record) -> Result<Vec<ObjectPart>> {
        if record.etag().parts == 0 {
            return Ok(Vec::new());
        }
        let table = match record.form() {
            PayloadForm::Manifest => {
                Some(self.whole_manifest(key, &record.payload(0)).await?.parts)
            }
            PayloadForm::None | PayloadForm::Inline => parts_in(record.checksums()),
        };
        // A table that is not there was lost by nobody: the record came from elsewhere.
        Ok(table.and_then(parts::decode).unwrap_or_default())
    }

    /// The key's live record. The bucket's register is read only where the key is not live in the
    /// incarnation that this core remembers: a bucket is deleted only after all of its keys were, so
    /// a key that is live proves that its bucket is there.
    pub(super) async fn live_object(
        &self,
        bucket: &str,
        key: &Bytes,
        with_copy: bool,
    ) -> Result<Live> {
        let remembered = self.remembered_bucket(bucket);
        if let Some(incarnation) = remembered {
            let read = self.live_in(bucket, incarnation, key, with_copy).await?;
            if let Some(live) = read {
                return Ok(live);
            }
        }
        let incarnation = self.bucket(bucket).await?.incarnation;
        if remembered == Some(incarnation) {
            return Err(Error::NoSuchKey);
        }
        self.live_in(bucket, incarnation, key, with_copy).await?.ok_or(Error::NoSuchKey)
    }

    async fn live_in(
        &self,
        bucket: &str,
        incarnation: Incarnation,
        key: &Bytes,
        with_copy: bool,
    ) -> Result<Option<Live>> {
        let place = self.place(bucket, key);
        let key = Key::new(Keyspace::Objects, incarnation, key);
        let read = self.read_head(place.set, &key, place.first_drive, with_copy).await?;
        let Some(record) = read.live().cloned() else { return Ok(None) };
        refuse_lost(place.set, &record)?;
        Ok(Some(Live { key, record, copy: read.copy }))
    }

    /// Bytes `span` of the object that `record` describes; `copy` is its payload, if it came along.
    pub(super) async fn body(
        &self,
        key: &Key,
        record: &Record,
        copy: Option<Bytes>,
        span: Span,
    ) -> Result<ObjectBody<M, R>> {
        assert!(span.start <= span.end && span.end <= record.size());
        if let Some(copy) = copy {
            let (start, end) = (span.start as usize, span.end as usize);
            let bytes = copy.slice(start..end);
            return Ok(ObjectBody { bytes: Some(bytes), ..ObjectBody::of(self, key) });
        }
        let payloads = match record.form() {
            PayloadForm::None => Vec::new(),
            PayloadForm::Inline => record.payloads().collect(),
            PayloadForm::Manifest => self.manifest(key, &record.payload(0)).await?,
        };
        let mut body = ObjectBody::of(self, key);
        let mut start = 0;
        for layout in payloads {
            let end = start + layout.bytes;
            let (from, to) = (span.start.max(start), span.end.min(end));
            if from < to {
                body.later.push_back((layout, Span { start: from - start, end: to - start }));
            }
            start = end;
        }
        Ok(body)
    }

    /// The payloads that a manifest lists.
    pub(super) async fn manifest(&self, key: &Key, layout: &Layout) -> Result<Vec<Layout>> {
        Ok(self.whole_manifest(key, layout).await?.payloads)
    }

    async fn whole_manifest(&self, key: &Key, layout: &Layout) -> Result<Manifest> {
        let span = Span { start: 0, end: layout.bytes };
        let mut reader = PayloadReader::new(self.clone(), key.clone(), layout.clone(), span);
        let mut bytes = BytesMut::new();
        while let Some(piece) = reader.next().await? {
            bytes.extend_from_slice(&piece);
        }
        let unreadable =
            Error::Unreadable { set: basalt_engine::units::SetIndex(layout.set), short_by: 1 };
        manifest::decode(&bytes.freeze()).ok_or(unreadable)
    }
}

/// An object that is there.
pub(super) struct Live {
    pub key: Key,
    pub record: Record,
    /// Its payload, if it was asked for and came along.
    pub copy: Option<Bytes>,
}

/// What a data record says to clients.
pub(super) fn object_info(record: &Record) -> ObjectInfo {
    assert_eq!(record.kind(), Kind::Data);
    let (metadata, tags) = decode_metadata(record.metadata()).unwrap_or_default();
    ObjectInfo {
        size: record.size(),
        etag: record.etag(),
        modified_ms: record.modified_ms(),
        class: StorageClass::from_stored(record.class()),
        version: record.version(),
        metadata,
        tags,
        checksums: decode_checksums(record.checksums()).unwrap_or_default(),
    }
}

/// The bytes of an object as they are read: first what is at hand, then payload by payload.
pub struct ObjectBody<M: Mailbox, R: Runtime> {
    store: Store<M, R>,
    key: Key,
    bytes: Option<Bytes>,
    current: Option<PayloadReader<M, R>>,
    later: VecDeque<(Layout, Span)>,
}

impl<M: Mailbox, R: Runtime> ObjectBody<M, R> {
    fn of(store: &Store<M, R>, key: &Key) -> Self {
        Self {
            store: store.clone(),
            key: key.clone(),
            bytes: None,
            current: None,
            later: VecDeque::new(),
        }
    }
}

impl<M: Mailbox, R: Runtime> Body for ObjectBody<M, R> {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        if let Some(bytes) = self.bytes.take().filter(|bytes| !bytes.is_empty()) {
            return Ok(Some(bytes));
        }
        loop {
            if let Some(reader) = &mut self.current {
                if let Some(bytes) = reader.next().await? {
                    return Ok(Some(bytes));
                }
                self.current = None;
            }
            let Some((layout, span)) = self.later.pop_front() else { return Ok(None) };
            let (store, key) = (self.store.clone(), self.key.clone());
            self.current = Some(PayloadReader::new(store, key, layout, span));
        }
    }
}

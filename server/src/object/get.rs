//! GET and HEAD: the record from a quorum of drives, the bytes from k of them.

use std::collections::VecDeque;

use basalt_engine::record::{Kind, Layout, PayloadForm, Record};
use basalt_engine::seam::Runtime;
use basalt_engine::units::{Key, Keyspace};
use basalt_net::mailbox::Mailbox;
use bytes::{Bytes, BytesMut};

use super::api::{Body, ObjectInfo, Span, StorageClass};
use super::error::{Error, Result};
use super::lost::refuse_lost;
use super::manifest;
use super::metadata::{decode_checksums, decode_metadata};
use super::read::PayloadReader;
use super::store::Store;

impl<M: Mailbox, R: Runtime> Store<M, R> {
    /// What the key's current object is, without its bytes.
    pub async fn head(&self, bucket: &str, key: &Bytes) -> Result<ObjectInfo> {
        let (record, _) = self.live_object(bucket, key, false).await?;
        Ok(object_info(&record))
    }

    /// Calls `select` once with what the object is; it answers which bytes to read (`None`: none,
    /// as for a 304 or a 412), and the body yields exactly those.
    pub async fn get(
        &self,
        bucket: &str,
        key: &Bytes,
        select: impl FnOnce(&ObjectInfo) -> Option<Span>,
    ) -> Result<(ObjectInfo, Option<ObjectBody<M, R>>)> {
        let (record, copy) = self.live_object(bucket, key, true).await?;
        let info = object_info(&record);
        let Some(span) = select(&info) else { return Ok((info, None)) };
        let body = self.body(&record, copy, span).await?;
        Ok((info, Some(body)))
    }

    async fn live_object(
        &self,
        bucket: &str,
        key: &Bytes,
        with_copy: bool,
    ) -> Result<(Record, Option<Bytes>)> {
        let incarnation = self.bucket(bucket).await?.incarnation;
        let place = self.place(bucket, key);
        let key = Key::new(Keyspace::Objects, incarnation, key);
        let copy_from = with_copy.then_some(place.first_drive);
        let read = self.read_key_and_copy(place.set, &key, copy_from).await?;
        let record = read.live().cloned().ok_or(Error::NoSuchKey)?;
        refuse_lost(place.set, &record)?;
        Ok((record, read.copy))
    }

    /// Bytes `span` of the object that `record` describes; `copy` is its payload, if it came along.
    pub(super) async fn body(
        &self,
        record: &Record,
        copy: Option<Bytes>,
        span: Span,
    ) -> Result<ObjectBody<M, R>> {
        assert!(span.start <= span.end && span.end <= record.size());
        if let Some(copy) = copy {
            let (start, end) = (span.start as usize, span.end as usize);
            let bytes = copy.slice(start..end);
            return Ok(ObjectBody {
                bytes: Some(bytes),
                store: self.clone(),
                ..ObjectBody::of(self)
            });
        }
        let payloads = match record.form() {
            PayloadForm::None => Vec::new(),
            PayloadForm::Inline => record.payloads().collect(),
            PayloadForm::Manifest => self.manifest(&record.payload(0)).await?,
        };
        let mut body = ObjectBody::of(self);
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
    pub(super) async fn manifest(&self, layout: &Layout) -> Result<Vec<Layout>> {
        let span = Span { start: 0, end: layout.bytes };
        let mut reader = PayloadReader::new(self.clone(), layout.clone(), span);
        let mut bytes = BytesMut::new();
        while let Some(piece) = reader.next().await? {
            bytes.extend_from_slice(&piece);
        }
        let unreadable =
            Error::Unreadable { set: basalt_engine::units::SetIndex(layout.set), short_by: 1 };
        manifest::decode(&bytes).ok_or(unreadable)
    }
}

/// What a data record says to clients.
pub(super) fn object_info(record: &Record) -> ObjectInfo {
    assert_eq!(record.kind(), Kind::Data);
    ObjectInfo {
        size: record.size(),
        etag: record.etag(),
        modified_ms: record.modified_ms(),
        class: StorageClass::from_stored(record.class()),
        version: record.version(),
        metadata: decode_metadata(record.metadata()).unwrap_or_default(),
        checksums: decode_checksums(record.checksums()).unwrap_or_default(),
    }
}

/// The bytes of an object as they are read: first what is at hand, then payload by payload.
pub struct ObjectBody<M: Mailbox, R: Runtime> {
    store: Store<M, R>,
    bytes: Option<Bytes>,
    current: Option<PayloadReader<M, R>>,
    later: VecDeque<(Layout, Span)>,
}

impl<M: Mailbox, R: Runtime> ObjectBody<M, R> {
    fn of(store: &Store<M, R>) -> Self {
        Self { store: store.clone(), bytes: None, current: None, later: VecDeque::new() }
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
            self.current = Some(PayloadReader::new(self.store.clone(), layout, span));
        }
    }
}

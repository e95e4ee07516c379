//! GET and HEAD: the record from a quorum of drives, the bytes from k of them.

use std::collections::VecDeque;

use basalt_engine::record::{Kind, Layout, PayloadForm, Record};
use basalt_engine::seam::Runtime;
use basalt_engine::units::{Key, Keyspace};
use basalt_net::mailbox::Mailbox;
use bytes::{Bytes, BytesMut};

use super::api::{Body, ObjectInfo, ObjectPart, Span, StorageClass};
use super::error::{Error, Result};
use super::lost::refuse_lost;
use super::manifest::{self, Manifest};
use super::metadata::{decode_checksums, decode_metadata, parts_in};
use super::parts;
use super::read::{PayloadReader, Turn};
use super::store::{Known, Store};
use super::version::VersionName;

impl<M: Mailbox, R: Runtime> Store<M, R> {
    /// What the key's current object is, or that version of it, without its bytes.
    pub async fn head(
        &self,
        bucket: &str,
        key: &Bytes,
        version: Option<VersionName>,
    ) -> Result<ObjectInfo> {
        Ok(self.object(bucket, key, version, false).await?.info())
    }

    /// Calls `select` once with what the object is; it answers which bytes to read (`None`: none,
    /// as for a 304 or a 412), and the body yields exactly those.
    pub async fn get(
        &self,
        bucket: &str,
        key: &Bytes,
        version: Option<VersionName>,
        select: impl FnOnce(&ObjectInfo) -> Option<Span>,
    ) -> Result<(ObjectInfo, Option<ObjectBody<M, R>>)> {
        let object = self.object(bucket, key, version, true).await?;
        let info = object.info();
        let Some(span) = select(&info) else { return Ok((info, None)) };
        let body = self.body(&object.key, &object.record, object.copy, span).await?.in_line();
        Ok((info, Some(body)))
    }

    /// As [`Self::head`], and its parts; none where it was not uploaded in parts.
    pub async fn head_with_parts(
        &self,
        bucket: &str,
        key: &Bytes,
        version: Option<VersionName>,
    ) -> Result<(ObjectInfo, Vec<ObjectPart>)> {
        let object = self.object(bucket, key, version, false).await?;
        Ok((object.info(), self.parts_of(&object.key, &object.record).await?))
    }

    /// As [`Self::get`], for who wants to choose among the object's parts.
    pub async fn get_with_parts(
        &self,
        bucket: &str,
        key: &Bytes,
        version: Option<VersionName>,
        select: impl FnOnce(&ObjectInfo, &[ObjectPart]) -> Option<Span>,
    ) -> Result<(ObjectInfo, Vec<ObjectPart>, Option<ObjectBody<M, R>>)> {
        let object = self.object(bucket, key, version, true).await?;
        let (info, parts) = (object.info(), self.parts_of(&object.key, &object.record).await?);
        let Some(span) = select(&info, &parts) else { return Ok((info, parts, None)) };
        let body = self.body(&object.key, &object.record, object.copy, span).await?.in_line();
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

    /// The key's current object, or that version of it. The bucket's register is read only where nothing
    /// is there in the incarnation that this core remembers: a bucket is deleted only after all that was
    /// in it, so a version that is there proves that its bucket is.
    pub(super) async fn object(
        &self,
        bucket: &str,
        key: &Bytes,
        version: Option<VersionName>,
        with_copy: bool,
    ) -> Result<Object> {
        let remembered = self.remembered_bucket(bucket);
        let mut missing = None;
        if let Some(known) = remembered {
            match self.object_in(bucket, known, key, version, with_copy).await {
                Err(error @ (Error::NoSuchKey | Error::NoSuchVersion)) => missing = Some(error),
                outcome => return outcome,
            }
        }
        let found = self.bucket(bucket).await?;
        if let (Some(known), Some(missing)) = (remembered, missing)
            && known.incarnation == found.incarnation
        {
            return Err(missing);
        }
        self.object_in(bucket, Known::of(&found), key, version, with_copy).await
    }

    async fn object_in(
        &self,
        bucket: &str,
        known: Known,
        key: &Bytes,
        name: Option<VersionName>,
        with_copy: bool,
    ) -> Result<Object> {
        let place = self.place(bucket, key);
        let key = Key::new(Keyspace::Objects, known.incarnation, key);
        let read = self.read_head(place.set, &key, place.first_drive, with_copy).await?;
        let version = match name {
            None => self.current_version(place.set, &key, &read, with_copy).await?,
            Some(name) => self.version_named(place.set, &key, &read, name, with_copy).await?,
        };
        let missing = if name.is_some() { Error::NoSuchVersion } else { Error::NoSuchKey };
        let version = version.ok_or(missing)?;
        if version.record.kind() == Kind::Marker {
            let marker = version.name();
            let modified_ms = version.record.modified_ms();
            return Err(match name {
                Some(_) => Error::IsMarker { marker, modified_ms },
                None => Error::Deleted { marker },
            });
        }
        refuse_lost(place.set, &version.record)?;
        let keeps_versions = known.keeps_versions || version.record.lineage().is_some();
        let name = keeps_versions.then(|| version.name());
        let key = version.key(key);
        Ok(Object { key, name, record: version.record, copy: version.copy })
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
        let mut reader =
            PayloadReader::new(self.clone(), key.clone(), layout.clone(), span, Turn::default());
        let mut bytes = BytesMut::new();
        while let Some(piece) = reader.next().await? {
            bytes.extend_from_slice(&piece);
        }
        let unreadable =
            Error::Unreadable { set: basalt_engine::units::SetIndex(layout.set), short_by: 1 };
        manifest::decode(&bytes.freeze()).ok_or(unreadable)
    }
}

/// An object as it was found.
pub(super) struct Object {
    /// Where its record stands: the object's key, or the archive.
    key: Key,
    /// `None` where no versions are kept.
    name: Option<VersionName>,
    pub record: Record,
    /// The payload, where it travels with the record and came along.
    pub copy: Option<Bytes>,
}

impl Object {
    /// What a data record says to clients.
    fn info(&self) -> ObjectInfo {
        let record = &self.record;
        assert_eq!(record.kind(), Kind::Data);
        let (metadata, tags) = decode_metadata(record.metadata()).unwrap_or_default();
        ObjectInfo {
            size: record.size(),
            etag: record.etag(),
            modified_ms: record.modified_ms(),
            class: StorageClass::from_stored(record.class()),
            version: self.name,
            metadata,
            tags,
            checksums: decode_checksums(record.checksums()).unwrap_or_default(),
        }
    }
}

/// The bytes of an object as they are read: first what is at hand, then payload by payload.
pub struct ObjectBody<M: Mailbox, R: Runtime> {
    store: Store<M, R>,
    key: Key,
    bytes: Option<Bytes>,
    current: Option<PayloadReader<M, R>>,
    later: VecDeque<(Layout, Span)>,
    turn: Turn,
}

impl<M: Mailbox, R: Runtime> ObjectBody<M, R> {
    /// It takes room in memory as it is read, and waits for it.
    fn in_line(mut self) -> Self {
        self.turn.admission = Some(self.store.reading().clone());
        self
    }

    /// It takes none: whoever reads it, to write it elsewhere, waits for room for that.
    #[must_use]
    pub fn past_the_line(self) -> Self {
        Self { turn: Turn::default(), ..self }
    }

    fn of(store: &Store<M, R>, key: &Key) -> Self {
        Self {
            store: store.clone(),
            key: key.clone(),
            bytes: None,
            current: None,
            later: VecDeque::new(),
            turn: Turn::default(),
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
            self.current = Some(PayloadReader::new(store, key, layout, span, self.turn.clone()));
            // What follows belongs to an answer that has begun.
            self.turn.has_begun = true;
        }
    }
}

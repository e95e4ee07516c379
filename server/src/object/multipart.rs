//! Multipart uploads. The upload id is a register of its own, next to the object's key on the same
//! set: open, then completing or gone, then completed. Each part is a register too, so parts are
//! independent and the last writer of a part number wins.
//!
//! Completing stores the operation id and what the object will be, before the object's record is
//! proposed: whoever finds an upload in that state can finish it, and a repeated completion gets the
//! same answer. Payloads are not moved: the object's record (or its manifest) names the parts'
//! payloads, and the parts' keys then get records that say "relocated", which release without freeing.

use basalt_engine::record::{Etag, Fields, Kind, Layout, PAYLOADS_INLINE_MAX, PayloadForm, Record};
use basalt_engine::request::Certificate;
use basalt_engine::seam::Runtime;
use basalt_engine::units::{Incarnation, Key, Keyspace, OperationId, Slot, VersionId};
use basalt_net::mailbox::Mailbox;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::future::join_all;
use md5::{Digest, Md5};

use super::api::{
    Algorithm, Checksum, Condition, Metadata, PartName, Source, StorageClass, UploadChecksum,
    UploadInfo, Written,
};
use super::checksums;
use super::error::{Error, Result};
use super::list::Range;
use super::lost::refuse_lost;
use super::manifest;
use super::metadata::{decode_checksums, decode_metadata, encode_checksums, encode_metadata};
use super::register::{KeyRead, Write};
use super::stage;
use super::store::{Place, Store};

/// S3's smallest part, the last one excepted.
const PART_BYTES_MIN: u64 = 5 << 20;
/// S3's highest part number.
pub const PART_NUMBER_MAX: u32 = 10_000;
/// Races against other writers of the object that a completion loses before it gives up for now.
const COMPLETION_RACES_MAX: usize = 64;
/// Part keys that are cleaned up at the same time.
const CLEANUPS_IN_FLIGHT: usize = 32;

/// What an upload's record holds.
#[derive(Clone, Debug)]
struct Upload {
    state: State,
    class: StorageClass,
    checksum: Option<UploadChecksum>,
    metadata: Metadata,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum State {
    Open,
    /// The object's record, decided or about to be, and the head that it follows. It may stand in the
    /// slot after that and in no other, so whoever completes again proposes the very same there, or
    /// learns who won it. If that is another, a new record takes its place here first.
    Completing(Record, Option<Certificate>),
    Completed(Record),
}

impl Upload {
    /// State (u8), class (u8), algorithm (u8, 0: none), composite (u8), record length (u32), base
    /// (slot: generation u32, sequence u32, 0.0: the key was absent; operation u128), record, metadata.
    fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        let (state, record, base) = match &self.state {
            State::Open => (1, None, None),
            State::Completing(record, base) => (2, Some(record), *base),
            State::Completed(record) => (3, Some(record), None),
        };
        let none = Certificate { slot: Slot::default(), operation: OperationId(0) };
        let base = base.unwrap_or(none);
        let record: &[u8] = record.map_or(&[], |record| record.bytes());
        out.put_u8(state);
        out.put_u8(self.class as u8);
        out.put_u8(self.checksum.map_or(0, |checksum| checksum.algorithm as u8));
        out.put_u8(u8::from(self.checksum.is_some_and(|checksum| checksum.composite)));
        out.put_u32_le(u32::try_from(record.len()).expect("records are short"));
        out.put_u32_le(base.slot.generation);
        out.put_u32_le(base.slot.sequence);
        out.put_u128_le(base.operation.0);
        out.put_slice(record);
        out.put_slice(&encode_metadata(&self.metadata));
        out.freeze()
    }

    fn of(record: &Record) -> Option<Self> {
        let mut bytes = record.metadata();
        if bytes.remaining() < 32 {
            return None;
        }
        let state = bytes.get_u8();
        let class = StorageClass::from_stored(bytes.get_u8());
        let number = bytes.get_u8();
        let composite = bytes.get_u8() == 1;
        let checksum = Algorithm::ALL
            .into_iter()
            .find(|algorithm| *algorithm as u8 == number)
            .map(|algorithm| UploadChecksum { algorithm, composite });
        let length = bytes.get_u32_le() as usize;
        let slot = Slot { generation: bytes.get_u32_le(), sequence: bytes.get_u32_le() };
        let base = Certificate { slot, operation: OperationId(bytes.get_u128_le()) };
        let base = Some(base).filter(|base| base.slot != Slot::default());
        if bytes.remaining() < length {
            return None;
        }
        let object = bytes.split_to(length);
        let state = match state {
            1 => State::Open,
            2 => State::Completing(Record::decode(object).ok()?, base),
            3 => State::Completed(Record::decode(object).ok()?),
            _ => return None,
        };
        Some(Self { state, class, checksum, metadata: decode_metadata(bytes)? })
    }
}

/// Everything that names one upload.
struct UploadPlace {
    place: Place,
    incarnation: Incarnation,
    object: Key,
    upload: Key,
    /// Parts' keys begin with this.
    parts: Key,
}

impl UploadPlace {
    /// The name of a part's key: the object's name, a zero byte (no name has one), the upload id
    /// (16 bytes), the part number (2 bytes, big-endian).
    fn part(&self, number: u32) -> Key {
        let number = u16::try_from(number).expect("part numbers are checked").to_be_bytes();
        Key::new(Keyspace::Parts, self.incarnation, &[self.parts.name(), &number].concat())
    }

    fn part_number(&self, key: &Key) -> u32 {
        let number = &key.name()[self.parts.name().len()..];
        u32::from(u16::from_be_bytes(number.try_into().expect("two bytes follow the prefix")))
    }
}

/// A part as its record tells it.
struct Part {
    number: u32,
    record: Record,
}

impl<M: Mailbox, R: Runtime> Store<M, R> {
    /// Returns the upload id (text for clients).
    pub async fn create_upload(
        &self,
        bucket: &str,
        key: &Bytes,
        class: StorageClass,
        metadata: Metadata,
        checksum: Option<UploadChecksum>,
    ) -> Result<String> {
        let id = self.runtime().random_u128();
        let names = self.upload_place(bucket, key, id).await?;
        let upload = Upload { state: State::Open, class, checksum, metadata };
        let record = self.system_record(upload.encode());
        let absent = self.read_key(names.place.set, &names.upload).await?;
        let write = Write::staged(names.upload, record, Condition::Absent, &absent, None);
        self.write_key(names.place.set, write).await?;
        Ok(format!("{id:032x}"))
    }

    pub async fn upload(&self, bucket: &str, key: &Bytes, id: &str) -> Result<UploadInfo> {
        let names = self.upload_place(bucket, key, parse_id(id)?).await?;
        let (_, upload) = self.upload_value(&names).await?;
        Ok(UploadInfo { key: key.clone(), checksum: upload.checksum, class: upload.class })
    }

    pub async fn put_part(
        &self,
        bucket: &str,
        key: &Bytes,
        id: &str,
        number: u32,
        size: u64,
        body: &mut impl Source,
    ) -> Result<Written> {
        assert!((1..=PART_NUMBER_MAX).contains(&number), "checked by the caller");
        let names = self.upload_place(bucket, key, parse_id(id)?).await?;
        let (_, upload) = self.open_upload(&names).await?;
        let part = names.part(number);
        let before = self.read_key(names.place.set, &part).await?;
        let operation = OperationId(self.runtime().random_u128());
        let part_number = u16::try_from(number).expect("checked above");
        let layout = self.layout(names.place, upload.class, size, part_number, &before)?;
        let staged = match layout {
            Some(layout) => stage::stage(self, &part, operation, layout, body).await?,
            None => stage::stage_nothing(self, body).await?,
        };
        let fields = Fields {
            operation,
            version: VersionId(operation.0),
            kind: Kind::Data,
            class: upload.class as u8,
            incarnation: names.incarnation,
            modified_ms: self.runtime().wall().0,
            size,
            etag: Etag { md5: staged.md5, parts: 0 },
            form: if staged.layout.is_some() { PayloadForm::Inline } else { PayloadForm::None },
            payloads: staged.layout.into_iter().collect(),
            checksums: encode_checksums(&staged.checksums),
            metadata: Bytes::new(),
        };
        let record = Record::encode(&fields);
        let write = Write::staged(part.clone(), record, Condition::None, &before, staged.copy);
        self.write_key(names.place.set, write).await?;
        // A part that arrives after the end is swept by whoever brought it.
        if let Err(gone) = self.open_upload(&names).await {
            self.remove_part(&names, &part, Kind::Tombstone).await?;
            return Err(gone);
        }
        let checksums = staged.checksums;
        Ok(Written { etag: fields.etag, version: fields.version, checksums, size })
    }

    /// `expected` are full-object checksums that the request states, checked against the result.
    pub async fn complete_upload(
        &self,
        bucket: &str,
        key: &Bytes,
        id: &str,
        parts: &[PartName],
        condition: Condition,
        expected: &[Checksum],
    ) -> Result<Written> {
        let names = self.upload_place(bucket, key, parse_id(id)?).await?;
        let (before, mut upload) = self.upload_value(&names).await?;
        let (record, base) = match &upload.state {
            State::Completed(record) => return Ok(written(record)),
            State::Completing(record, base) => (record.clone(), *base),
            State::Open => {
                let chosen = self.chosen_parts(&names, parts).await?;
                let head = self.read_key(names.place.set, &names.object).await?;
                condition.check(head.live())?;
                let record = self.assemble(&names, &upload, &chosen, expected).await?;
                let base = head.certificate();
                upload.state = State::Completing(record.clone(), base);
                self.write_upload(&names, &before, &upload).await?;
                (record, base)
            }
        };
        self.finish_completion(&names, upload, record, base, condition).await
    }

    pub async fn abort_upload(&self, bucket: &str, key: &Bytes, id: &str) -> Result<()> {
        let names = self.upload_place(bucket, key, parse_id(id)?).await?;
        let (before, _) = self.open_upload(&names).await?;
        let write =
            Write::tombstone(names.upload.clone(), self.tombstone(), before.condition(), &before);
        self.write_key(names.place.set, write).await.map_err(lost_race)?;
        self.remove_parts(&names, &[]).await
    }

    /// From "completing" decided to the object visible, the upload completed, and the parts' keys
    /// cleaned up. Every step may be repeated.
    async fn finish_completion(
        &self,
        names: &UploadPlace,
        mut upload: Upload,
        mut record: Record,
        mut base: Option<Certificate>,
        condition: Condition,
    ) -> Result<Written> {
        let mut overwritten = false;
        for attempt in 0.. {
            if attempt == COMPLETION_RACES_MAX {
                return Err(Error::Busy);
            }
            let head = self.read_key(names.place.set, &names.object).await?;
            if head.live().is_some_and(|live| live.operation() == record.operation()) {
                break;
            }
            if head.certificate() == base {
                let write = Write::shared(names.object.clone(), record.clone(), &head);
                match self.write_key(names.place.set, write).await {
                    Ok(()) => break,
                    // Somebody else won the slot, or finished this very completion.
                    Err(Error::Busy) => continue,
                    Err(error) => return Err(error),
                }
            }
            let slot = head.slot_after(base);
            match self.winner(names.place.set, &names.object, slot, base).await? {
                Some(winner) if winner == record.operation() => {
                    overwritten = true;
                    break;
                }
                Some(_) => {
                    (upload, record) = self.complete_anew(names, upload, &head, &condition).await?;
                    base = head.certificate();
                }
                None => return self.give_up_completion(names).await,
            }
        }
        let (before, _) = self.upload_value(names).await?;
        let completed = Upload { state: State::Completed(record.clone()), ..upload };
        self.write_upload(names, &before, &completed).await?;
        let kept: Vec<Layout> = match record.form() {
            _ if overwritten => Vec::new(),
            PayloadForm::None => Vec::new(),
            PayloadForm::Inline => record.payloads().collect(),
            PayloadForm::Manifest => self.manifest(&record.payload(0)).await?,
        };
        self.remove_parts(names, &kept).await?;
        Ok(written(&record))
    }

    /// Another write won the slot that the record was bound to: a new one takes its place, for the slot
    /// after `head`.
    async fn complete_anew(
        &self,
        names: &UploadPlace,
        upload: Upload,
        head: &KeyRead,
        condition: &Condition,
    ) -> Result<(Upload, Record)> {
        let (before, present) = self.upload_value(names).await?;
        if present.state != upload.state {
            return Err(Error::Conflict);
        }
        let State::Completing(record, _) = &upload.state else {
            unreachable!("only what is being completed is completed anew");
        };
        if let Err(failed) = condition.check(head.live()) {
            // The upload is open again, its parts intact.
            self.write_upload(names, &before, &Upload { state: State::Open, ..upload }).await?;
            return Err(failed);
        }
        let operation = OperationId(self.runtime().random_u128());
        let version = VersionId(operation.0);
        let record = Record::encode(&Fields { operation, version, ..record.fields() });
        let state = State::Completing(record.clone(), head.certificate());
        let upload = Upload { state, ..upload };
        self.write_upload(names, &before, &upload).await?;
        Ok((upload, record))
    }

    /// Nobody can say any more whether the completion happened: the upload ends here.
    async fn give_up_completion(&self, names: &UploadPlace) -> Result<Written> {
        let (before, _) = self.upload_value(names).await?;
        let (tombstone, condition) = (self.tombstone(), before.condition());
        let write = Write::tombstone(names.upload.clone(), tombstone, condition, &before);
        self.write_key(names.place.set, write).await.map_err(lost_race)?;
        self.remove_parts(names, &[]).await?;
        Err(Error::Unknown { set: names.place.set })
    }

    /// The records of the parts that a completion names, checked against what it says of them.
    async fn chosen_parts(&self, names: &UploadPlace, parts: &[PartName]) -> Result<Vec<Part>> {
        if parts.windows(2).any(|two| two[0].number >= two[1].number) {
            return Err(Error::InvalidPartOrder);
        }
        let mut stored = std::collections::BTreeMap::new();
        let mut range = Range::all(names.place.set, names.parts.clone());
        while let Some((key, record)) = range.next(self).await? {
            stored.insert(names.part_number(&key), record);
        }
        let mut chosen = Vec::with_capacity(parts.len());
        for (index, part) in parts.iter().enumerate() {
            let invalid = Error::InvalidPart { number: part.number };
            let record = stored.remove(&part.number).ok_or(invalid.clone())?;
            refuse_lost(names.place.set, &record)?;
            if record.etag().to_string() != part.etag {
                return Err(invalid);
            }
            let kept = decode_checksums(record.checksums()).unwrap_or_default();
            let differs = |said: &Checksum| {
                kept.iter().any(|kept| kept.algorithm == said.algorithm && kept.value != said.value)
            };
            if part.checksums.iter().any(differs) {
                return Err(invalid);
            }
            let last = index + 1 == parts.len();
            if !last && record.size() < PART_BYTES_MIN {
                return Err(Error::PartTooSmall { number: part.number, bytes: record.size() });
            }
            chosen.push(Part { number: part.number, record });
        }
        Ok(chosen)
    }

    /// The record of the object that the parts make.
    async fn assemble(
        &self,
        names: &UploadPlace,
        upload: &Upload,
        parts: &[Part],
        expected: &[Checksum],
    ) -> Result<Record> {
        let operation = OperationId(self.runtime().random_u128());
        let mut md5 = Md5::new();
        let mut size = 0;
        for part in parts {
            md5.update(part.record.etag().md5);
            size += part.record.size();
        }
        let checksums = match upload.checksum {
            None => Vec::new(),
            Some(kind) => {
                let parts: Vec<(u64, Vec<Checksum>)> = parts
                    .iter()
                    .map(|part| {
                        let kept = decode_checksums(part.record.checksums()).unwrap_or_default();
                        (part.record.size(), kept)
                    })
                    .collect();
                checksums::of_parts(kind, &parts).into_iter().collect()
            }
        };
        for said in expected {
            let ours = checksums.iter().find(|ours| ours.algorithm == said.algorithm);
            if ours.is_some_and(|ours| ours.value != said.value) {
                let algorithm = said.algorithm.name();
                return Err(super::error::SourceError::BadDigest { algorithm }.into());
            }
        }
        let mut payloads = Vec::new();
        for part in parts {
            let number = u16::try_from(part.number).expect("part numbers are checked");
            payloads.extend(part.record.payloads().map(|layout| Layout { part: number, ..layout }));
        }
        let (form, payloads) = match payloads.len() {
            0 => (PayloadForm::None, payloads),
            1..=PAYLOADS_INLINE_MAX => (PayloadForm::Inline, payloads),
            _ => {
                (PayloadForm::Manifest, vec![self.put_manifest(names, operation, &payloads).await?])
            }
        };
        Ok(Record::encode(&Fields {
            operation,
            version: VersionId(operation.0),
            kind: Kind::Data,
            class: upload.class as u8,
            incarnation: names.incarnation,
            modified_ms: self.runtime().wall().0,
            size,
            etag: Etag {
                md5: md5.finalize().into(),
                parts: u32::try_from(parts.len()).expect("at most ten thousand"),
            },
            form,
            payloads,
            checksums: encode_checksums(&checksums),
            metadata: encode_metadata(&upload.metadata),
        }))
    }

    /// Stages a manifest as a payload of the object's key.
    async fn put_manifest(
        &self,
        names: &UploadPlace,
        operation: OperationId,
        payloads: &[Layout],
    ) -> Result<Layout> {
        let bytes = manifest::encode(payloads);
        let seen = self.read_key(names.place.set, &names.object).await?;
        let class = StorageClass::Standard;
        let layout = self.layout(names.place, class, bytes.len() as u64, 0, &seen)?;
        let layout = layout.expect("a manifest is not empty");
        assert!(!layout.is_co_staged(), "more parts than a record holds exceed the copy limit");
        let mut body = stage::Whole::new(bytes);
        let staged = stage::stage(self, &names.object, operation, layout, &mut body).await?;
        Ok(staged.layout.expect("a manifest is not empty"))
    }

    /// Ends the parts' keys: those whose payloads are in `kept` release them, the others free them.
    async fn remove_parts(&self, names: &UploadPlace, kept: &[Layout]) -> Result<()> {
        let kept: std::collections::BTreeSet<_> =
            kept.iter().map(|layout| layout.payload).collect();
        let mut parts = Vec::new();
        let mut range = Range::all(names.place.set, names.parts.clone());
        while let Some((key, record)) = range.next(self).await? {
            let relocated = record.payloads().any(|layout| kept.contains(&layout.payload));
            parts.push((key, if relocated { Kind::Relocated } else { Kind::Tombstone }));
        }
        for parts in parts.chunks(CLEANUPS_IN_FLIGHT) {
            let removals = parts.iter().map(|(key, kind)| self.remove_part(names, key, *kind));
            join_all(removals).await.into_iter().collect::<Result<Vec<()>>>()?;
        }
        Ok(())
    }

    async fn remove_part(&self, names: &UploadPlace, part: &Key, kind: Kind) -> Result<()> {
        let before = self.read_key(names.place.set, part).await?;
        if before.live().is_none() {
            return Ok(());
        }
        let record = Record::encode(&Fields { kind, ..self.tombstone().fields() });
        let write = Write::tombstone(part.clone(), record, Condition::None, &before);
        self.write_key(names.place.set, write).await
    }

    async fn upload_place(&self, bucket: &str, key: &Bytes, id: u128) -> Result<UploadPlace> {
        let incarnation = self.bucket(bucket).await?.incarnation;
        let name = [key, &[0][..], &id.to_be_bytes()].concat();
        Ok(UploadPlace {
            place: self.place(bucket, key),
            incarnation,
            object: Key::new(Keyspace::Objects, incarnation, key),
            upload: Key::new(Keyspace::Uploads, incarnation, &name),
            parts: Key::new(Keyspace::Parts, incarnation, &name),
        })
    }

    async fn upload_value(&self, names: &UploadPlace) -> Result<(KeyRead, Upload)> {
        let read = self.read_key(names.place.set, &names.upload).await?;
        let upload = read.live().and_then(Upload::of).ok_or(Error::NoSuchUpload)?;
        Ok((read, upload))
    }

    async fn open_upload(&self, names: &UploadPlace) -> Result<(KeyRead, Upload)> {
        let (read, upload) = self.upload_value(names).await?;
        if upload.state == State::Open { Ok((read, upload)) } else { Err(Error::NoSuchUpload) }
    }

    async fn write_upload(
        &self,
        names: &UploadPlace,
        before: &KeyRead,
        upload: &Upload,
    ) -> Result<()> {
        let record = self.system_record(upload.encode());
        let condition = before.condition();
        let write = Write::staged(names.upload.clone(), record, condition, before, None);
        self.write_key(names.place.set, write).await.map_err(lost_race)
    }
}

/// Somebody else completed or aborted the upload in between.
fn lost_race(error: Error) -> Error {
    match error {
        Error::PreconditionFailed | Error::NoSuchKey => Error::Conflict,
        other => other,
    }
}

fn parse_id(id: &str) -> Result<u128> {
    let valid = id.len() == 32 && id.bytes().all(|digit| digit.is_ascii_hexdigit());
    let parsed = if valid { u128::from_str_radix(id, 16).ok() } else { None };
    parsed.ok_or(Error::NoSuchUpload)
}

fn written(record: &Record) -> Written {
    Written {
        etag: record.etag(),
        version: record.version(),
        checksums: decode_checksums(record.checksums()).unwrap_or_default(),
        size: record.size(),
    }
}

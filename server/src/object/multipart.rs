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
use basalt_engine::units::{Key, OperationId, Slot, VersionId};
use basalt_net::mailbox::Mailbox;
use bytes::Bytes;
use futures_util::future::join_all;
use md5::{Digest, Md5};

use super::api::{
    Checksum, Claims, Condition, NewUpload, PartName, Source, StorageClass, UploadChecksum,
    UploadInfo, Versioning, Written,
};
use super::archive::lineage_after;
use super::error::{Error, Result, SourceError};
use super::list::Range;
use super::lost::refuse_lost;
use super::metadata::{
    decode_checksums, encode_checksums, encode_checksums_and_parts, encode_metadata,
};
use super::parts::{self, PartEntry};
use super::put::shown_name;
use super::register::{KeyRead, Write};
use super::store::Store;
use super::upload::{State, Upload, UploadPlace, id_text, new_id, parse_id};
use super::version::{is_null, must_be_kept};
use super::{checksums, manifest, stage};

/// S3's smallest part, the last one excepted.
pub const PART_BYTES_MIN: u64 = 5 << 20;
/// S3's highest part number.
pub const PART_NUMBER_MAX: u32 = 10_000;
/// Races against other writers of the object that a completion loses before it gives up for now.
const COMPLETION_RACES_MAX: usize = 64;
/// Part keys that are cleaned up at the same time.
const CLEANUPS_IN_FLIGHT: usize = 32;

/// A part as its record tells it.
struct Part {
    number: u32,
    record: Record,
}

impl<M: Mailbox, R: Runtime> Store<M, R> {
    /// Returns the upload id (text for clients).
    pub async fn create_upload(&self, bucket: &str, key: &Bytes, new: NewUpload) -> Result<String> {
        let id = new_id(self.runtime().wall().0, self.runtime().random_u128());
        let names = self.upload_place(bucket, key, id).await?;
        let attributes = encode_metadata(&new.metadata, &new.tags);
        let (class, checksum) = (new.class, new.checksum);
        let upload = Upload { state: State::Open, class, checksum, attributes };
        let record = self.system_record(upload.encode());
        let absent = self.read_key(names.place.set, &names.upload).await?;
        let write = Write::staged(names.upload, record, Condition::Absent, &absent, None);
        self.write_key(names.place.set, write).await?;
        Ok(id_text(id))
    }

    /// What is known of an upload that is open.
    pub async fn upload(&self, bucket: &str, key: &Bytes, id: &str) -> Result<UploadInfo> {
        let names = self.upload_place(bucket, key, parse_id(id)?).await?;
        let (_, upload) = self.open_upload(&names).await?;
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
            lineage: None,
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
        Ok(Written { etag: fields.etag, version: fields.version, name: None, checksums, size })
    }

    /// `claims` is what the request states of the whole object, checked against the result.
    pub async fn complete_upload(
        &self,
        bucket: &str,
        key: &Bytes,
        id: &str,
        parts: &[PartName],
        condition: Condition,
        claims: &Claims,
    ) -> Result<Written> {
        let names = self.upload_place(bucket, key, parse_id(id)?).await?;
        let (before, mut upload) = self.upload_value(&names).await?;
        let (record, base) = match &upload.state {
            State::Completed(record, slot) => return Ok(written(record, *slot)),
            State::Completing(record, base) => (record.clone(), *base),
            State::Open => {
                let chosen = self.chosen_parts(&names, parts).await?;
                let head = self.read_key(names.place.set, &names.object).await?;
                self.check_condition(names.place.set, &names.object, &head, &condition).await?;
                let record = self.assemble(&names, &upload, &chosen, claims).await?;
                let record = record.with_lineage(lineage_after(names.versioning, head.head()));
                let base = head.certificate();
                upload.state = State::Completing(record.clone(), base);
                self.write_upload(&names, &before, &upload).await?;
                (record, base)
            }
        };
        self.finish_completion(&names, upload, record, base, Some(condition)).await
    }

    pub async fn abort_upload(&self, bucket: &str, key: &Bytes, id: &str) -> Result<()> {
        let names = self.upload_place(bucket, key, parse_id(id)?).await?;
        let (before, _) = self.open_upload(&names).await?;
        self.end_upload(&names, &before).await?;
        self.remove_parts(&names, &[]).await
    }

    /// From "completing" decided to the object visible, the upload completed, and the parts' keys
    /// cleaned up. Every step may be repeated. Where another write won the slot that the record was
    /// bound to, it is bound to the next one if `condition` holds there; without a condition nobody
    /// waits for it, and the upload ends.
    pub(super) async fn finish_completion(
        &self,
        names: &UploadPlace,
        mut upload: Upload,
        mut record: Record,
        mut base: Option<Certificate>,
        condition: Option<Condition>,
    ) -> Result<Written> {
        let set = names.place.set;
        let mut overwritten = false;
        let mut attempts = 0..COMPLETION_RACES_MAX;
        let slot = loop {
            attempts.next().ok_or(Error::Busy)?;
            let head = self.read_key(set, &names.object).await?;
            let slot = head.slot_after(base);
            // By version: tags may have been set on it since.
            if head.live().is_some_and(|live| live.version() == record.version()) {
                // Whoever had it decided may not have lived to count its shards.
                if !self.may_be_acknowledged(set, &record).await {
                    let action = "acknowledge the completed upload";
                    return Err(Error::Unavailable { set, action, short_by: 1 });
                }
                break slot;
            }
            if head.certificate() == base {
                if !self.is_within_reach(set, &record).await {
                    return Err(Error::Unreadable { set, short_by: 1 });
                }
                let is_null = is_null(&record);
                // The bucket keeps versions since it was bound: what it follows has to be kept.
                let ends_what_is_kept = is_null
                    && names.versioning == Versioning::Enabled
                    && head.head().is_some_and(|(_, head)| must_be_kept(head, false));
                if ends_what_is_kept {
                    let condition = condition.as_ref().unwrap_or(&Condition::None);
                    (upload, record) = self.complete_anew(names, upload, &head, condition).await?;
                    base = head.certificate();
                    continue;
                }
                if record.lineage().is_some() {
                    self.make_way(set, &names.object, head.head(), is_null).await?;
                }
                let write = Write::shared(names.object.clone(), record.clone(), &head);
                match self.write_key(set, write).await {
                    Ok(()) if record.lineage().is_some() && is_null => {
                        self.end_replaced_null_in_background(set, names.object.clone(), slot);
                        break slot;
                    }
                    Ok(()) => break slot,
                    // Somebody else won the slot, or finished this very completion.
                    Err(Error::Busy) => continue,
                    Err(error) => return Err(error),
                }
            }
            match self.winner(set, &names.object, slot, base).await? {
                Some(winner) if winner == record.operation() => {
                    overwritten = true;
                    break slot;
                }
                Some(_) => {
                    let Some(condition) = &condition else {
                        self.give_up_completion(names, &upload).await?;
                        return Err(Error::NoSuchUpload);
                    };
                    (upload, record) = self.complete_anew(names, upload, &head, condition).await?;
                    base = head.certificate();
                }
                None => {
                    self.give_up_completion(names, &upload).await?;
                    return Err(Error::Unknown { set });
                }
            }
        };
        let (before, _) = self.upload_value(names).await?;
        let completed = Upload { state: State::Completed(record.clone(), slot), ..upload };
        self.write_upload(names, &before, &completed).await?;
        let gone = overwritten && !self.is_there(set, &names.object, slot, &record).await?;
        let kept = match gone {
            true => Vec::new(),
            false => self.parts_payloads(&names.object, &record).await?,
        };
        self.remove_parts(names, &kept).await?;
        Ok(written(&record, slot))
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
        let set = names.place.set;
        let allowed = self.check_condition(set, &names.object, head, condition).await;
        if let Err(failed @ (Error::PreconditionFailed | Error::NoSuchKey)) = allowed {
            // The upload is open again, its parts intact.
            self.write_upload(names, &before, &Upload { state: State::Open, ..upload }).await?;
            return Err(failed);
        }
        allowed?;
        let operation = OperationId(self.runtime().random_u128());
        let version = VersionId(operation.0);
        let lineage = lineage_after(names.versioning, head.head());
        let record = Record::encode(&Fields { operation, version, lineage, ..record.fields() });
        let state = State::Completing(record.clone(), head.certificate());
        let upload = Upload { state, ..upload };
        self.write_upload(names, &before, &upload).await?;
        Ok((upload, record))
    }

    /// The upload ends, whatever became of the completion that `seen` tells of. One that took its place
    /// meanwhile goes on.
    async fn give_up_completion(&self, names: &UploadPlace, seen: &Upload) -> Result<()> {
        let (before, present) = self.upload_value(names).await?;
        if present.state != seen.state {
            return Err(Error::Conflict);
        }
        self.end_upload(names, &before).await?;
        self.remove_parts(names, &[]).await
    }

    /// The payloads of the parts that make the object of `record`.
    pub(super) async fn parts_payloads(&self, key: &Key, record: &Record) -> Result<Vec<Layout>> {
        match record.form() {
            PayloadForm::None => Ok(Vec::new()),
            PayloadForm::Inline => Ok(record.payloads().collect()),
            PayloadForm::Manifest => self.manifest(key, &record.payload(0)).await,
        }
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
            if !last && record.size() < self.part_bytes_min() {
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
        claims: &Claims,
    ) -> Result<Record> {
        let operation = OperationId(self.runtime().random_u128());
        let mut md5 = Md5::new();
        let mut size = 0;
        for part in parts {
            md5.update(part.record.etag().md5);
            size += part.record.size();
        }
        let kept: Vec<(u64, Vec<Checksum>)> =
            parts.iter().map(|part| (part.record.size(), part.checksums())).collect();
        let of_parts = |kind| checksums::of_parts(kind, &kept);
        let checksums: Vec<Checksum> = upload.checksum.and_then(of_parts).into_iter().collect();
        check_claims(claims, upload, size, of_parts)?;
        let table = parts::encode(&table_of(parts, upload));
        let mut payloads = Vec::new();
        for part in parts {
            let number = u16::try_from(part.number).expect("part numbers are checked");
            payloads.extend(part.record.payloads().map(|layout| Layout { part: number, ..layout }));
        }
        let (form, payloads) = match payloads.len() {
            0 => (PayloadForm::None, payloads),
            1..=PAYLOADS_INLINE_MAX => (PayloadForm::Inline, payloads),
            _ => {
                let bytes = manifest::encode(&payloads, &table);
                (PayloadForm::Manifest, vec![self.put_manifest(names, operation, bytes).await?])
            }
        };
        let checksums = match form {
            PayloadForm::Manifest => encode_checksums(&checksums),
            PayloadForm::None | PayloadForm::Inline => {
                encode_checksums_and_parts(&checksums, &table)
            }
        };
        Ok(Record::encode(&Fields {
            operation,
            version: VersionId(operation.0),
            kind: Kind::Data,
            class: upload.class as u8,
            incarnation: names.incarnation,
            lineage: None,
            modified_ms: self.runtime().wall().0,
            size,
            etag: Etag {
                md5: md5.finalize().into(),
                parts: u32::try_from(parts.len()).expect("at most ten thousand"),
            },
            form,
            payloads,
            checksums,
            metadata: upload.attributes.clone(),
        }))
    }

    /// Stages a manifest under the upload's key, which keeps it until the object's record names it.
    async fn put_manifest(
        &self,
        names: &UploadPlace,
        operation: OperationId,
        bytes: Bytes,
    ) -> Result<Layout> {
        let seen = self.read_key(names.place.set, &names.object).await?;
        let class = StorageClass::Standard;
        let layout = self.layout(names.place, class, bytes.len() as u64, 0, &seen)?;
        let layout = layout.expect("a manifest is not empty");
        assert!(!layout.is_co_staged(), "a manifest is long enough");
        let mut body = stage::Whole::new(bytes);
        let staged = stage::stage(self, &names.upload, operation, layout, &mut body).await?;
        Ok(staged.layout.expect("a manifest is not empty"))
    }

    /// Ends the parts' keys: those whose payloads are in `kept` release them, the others free them.
    pub(super) async fn remove_parts(&self, names: &UploadPlace, kept: &[Layout]) -> Result<()> {
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
}

impl Part {
    fn checksums(&self) -> Vec<Checksum> {
        decode_checksums(self.record.checksums()).unwrap_or_default()
    }
}

/// What the object remembers of its parts.
fn table_of(parts: &[Part], upload: &Upload) -> Vec<PartEntry> {
    let algorithm = upload.checksum.map(|checksum| checksum.algorithm);
    let checksum = |part: &Part| {
        let mut kept = part.checksums().into_iter();
        kept.find(|checksum| Some(checksum.algorithm) == algorithm)
    };
    let entry = |part: &Part| PartEntry {
        number: part.number,
        size: part.record.size(),
        checksum: checksum(part),
    };
    parts.iter().map(entry).collect()
}

/// `of_parts` makes checksums of the whole from those of the parts, where all of them have one.
fn check_claims(
    claims: &Claims,
    upload: &Upload,
    size: u64,
    of_parts: impl Fn(UploadChecksum) -> Option<Checksum>,
) -> Result<()> {
    if claims.size.is_some_and(|stated| stated != size) {
        return Err(Error::ClaimFailed { what: "size" });
    }
    if let (Some(kind), Some(composite)) = (upload.checksum, claims.composite)
        && kind.composite != composite
    {
        return Err(Error::ClaimFailed { what: "checksum type" });
    }
    for said in &claims.checksums {
        let algorithm = said.algorithm;
        let kind = upload.checksum.filter(|kind| kind.algorithm == algorithm);
        let kind = kind.unwrap_or(UploadChecksum { algorithm, composite: said.composite });
        if of_parts(kind).is_some_and(|ours| ours.value != said.value) {
            return Err(SourceError::BadDigest { algorithm: algorithm.name() }.into());
        }
    }
    Ok(())
}

fn written(record: &Record, slot: Slot) -> Written {
    Written {
        etag: record.etag(),
        version: record.version(),
        name: shown_name(slot, record),
        checksums: decode_checksums(record.checksums()).unwrap_or_default(),
        size: record.size(),
    }
}

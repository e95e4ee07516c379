//! Listing what is under way: the uploads of a bucket, and the parts of one upload.
//!
//! Uploads are grouped into common prefixes here and not on the drives, because the ids in their
//! keys are not for grouping. Completed uploads are passed over until they are swept.

use basalt_engine::record::Record;
use basalt_engine::request::ListAfter;
use basalt_engine::seam::Runtime;
use basalt_engine::units::{Incarnation, Key, Keyspace, SetIndex};
use basalt_net::mailbox::Mailbox;
use bytes::Bytes;

use super::api::{
    ListUploads, ListedPart, ListedUpload, OpenUpload, PartListing, UploadInfo, UploadListing,
    UploadsFrom,
};
use super::error::Result;
use super::list::Range;
use super::metadata::decode_checksums;
use super::store::Store;
use super::upload::{State, Upload, UploadPlace, id_text, names_in, parse_id, uploads_of};

impl<M: Mailbox, R: Runtime> Store<M, R> {
    /// Open uploads in the order of their keys, those to one key in the order in which they began.
    pub async fn list_uploads(&self, list: ListUploads) -> Result<UploadListing> {
        let bucket = self.bucket(&list.bucket).await?;
        let after = list.after.as_ref().map(|from| position(bucket.incarnation, from));
        let mut sets: Vec<Uploads> = self
            .sets()
            .map(|set| Uploads::new(set, bucket.incarnation, &list.prefix, after.clone()))
            .collect();
        let mut listing = UploadListing::default();
        loop {
            for set in &mut sets {
                set.fill(self).await?;
            }
            let next = sets.iter_mut().filter(|set| set.next.is_some()).min_by(|one, other| {
                let order = |set: &Uploads| set.next.as_ref().map(|(key, _)| key.clone());
                order(one).cmp(&order(other))
            });
            let Some((key, upload)) = next.and_then(|set| set.next.take()) else { break };
            let entry = entry(&list, &key, upload);
            if is_of_last_group(&listing, &entry) {
                continue;
            }
            if listing.entries.len() == list.limit as usize {
                listing.next = listing.entries.last().map(behind);
                break;
            }
            listing.entries.push(entry);
        }
        Ok(listing)
    }

    /// Parts with numbers above `after`, ascending.
    pub async fn list_parts(
        &self,
        bucket: &str,
        key: &Bytes,
        id: &str,
        after: u32,
        limit: u32,
    ) -> Result<PartListing> {
        let names = self.upload_place(bucket, key, parse_id(id)?).await?;
        let (_, upload) = self.open_upload(&names).await?;
        let upload =
            UploadInfo { key: key.clone(), checksum: upload.checksum, class: upload.class };
        let from = (after > 0).then(|| ListAfter::Key(names.part(after)));
        let mut range = Range::from(names.place.set, names.parts.clone(), from);
        let mut parts = Vec::new();
        while let Some((key, record)) = range.next(self).await? {
            if parts.len() == limit as usize {
                return Ok(PartListing { upload, parts, is_truncated: true });
            }
            parts.push(listed_part(&names, &key, &record));
        }
        Ok(PartListing { upload, parts, is_truncated: false })
    }
}

fn listed_part(names: &UploadPlace, key: &Key, record: &Record) -> ListedPart {
    ListedPart {
        number: names.part_number(key),
        size: record.size(),
        etag: record.etag(),
        modified_ms: record.modified_ms(),
        checksums: decode_checksums(record.checksums()).unwrap_or_default(),
    }
}

/// One set's open uploads under a prefix.
struct Uploads {
    range: Range,
    next: Option<(Key, OpenUpload)>,
}

impl Uploads {
    fn new(
        set: SetIndex,
        incarnation: Incarnation,
        prefix: &[u8],
        after: Option<ListAfter>,
    ) -> Self {
        let prefix = Key::new(Keyspace::Uploads, incarnation, prefix);
        Self { range: Range::from(set, prefix, after), next: None }
    }

    async fn fill<M: Mailbox, R: Runtime>(&mut self, store: &Store<M, R>) -> Result<()> {
        while self.next.is_none() {
            let Some((key, record)) = self.range.next(store).await? else { return Ok(()) };
            self.next = open_upload(&key, &record).map(|upload| (key, upload));
        }
        Ok(())
    }
}

fn open_upload(key: &Key, record: &Record) -> Option<OpenUpload> {
    let (name, id) = names_in(key.name())?;
    let upload = Upload::of(record).filter(|upload| upload.state == State::Open)?;
    Some(OpenUpload {
        key: Bytes::copy_from_slice(name),
        id: id_text(id),
        begun_ms: record.modified_ms(),
        class: upload.class,
        checksum: upload.checksum,
    })
}

fn position(incarnation: Incarnation, from: &UploadsFrom) -> ListAfter {
    match from {
        UploadsFrom::Key(key) => ListAfter::Prefix(uploads_of(incarnation, key)),
        UploadsFrom::Prefix(prefix) => {
            ListAfter::Prefix(Key::new(Keyspace::Uploads, incarnation, prefix))
        }
        UploadsFrom::Upload(key, id) => match parse_id(id) {
            Ok(id) => {
                let name = [key, &[0][..], &id.to_be_bytes()].concat();
                ListAfter::Key(Key::new(Keyspace::Uploads, incarnation, &name))
            }
            // Nobody's id: in the order of ids it stands before all of them.
            Err(_) => ListAfter::Key(uploads_of(incarnation, key)),
        },
    }
}

/// The upload, or the common prefix that it falls under.
fn entry(list: &ListUploads, key: &Key, upload: OpenUpload) -> ListedUpload {
    let (name, _) = names_in(key.name()).expect("it was listed by its name");
    let below = &name[list.prefix.len()..];
    let group = list.delimiter.as_ref().and_then(|delimiter| {
        let at = below.windows(delimiter.len()).position(|window| window == delimiter)?;
        Some(list.prefix.len() + at + delimiter.len())
    });
    match group {
        Some(length) => ListedUpload::CommonPrefix(upload.key.slice(..length)),
        None => ListedUpload::Upload(upload),
    }
}

fn is_of_last_group(listing: &UploadListing, entry: &ListedUpload) -> bool {
    match (listing.entries.last(), entry) {
        (Some(ListedUpload::CommonPrefix(last)), ListedUpload::CommonPrefix(this)) => last == this,
        _ => false,
    }
}

fn behind(entry: &ListedUpload) -> UploadsFrom {
    match entry {
        ListedUpload::Upload(upload) => UploadsFrom::Upload(upload.key.clone(), upload.id.clone()),
        ListedUpload::CommonPrefix(prefix) => UploadsFrom::Prefix(prefix.clone()),
    }
}

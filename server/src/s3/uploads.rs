//! ListMultipartUploads and ListParts: what is under way.

use basalt_engine::seam::Runtime;
use basalt_net::mailbox::Mailbox;
use bytes::Bytes;

use super::answer::{self, Answer};
use super::auth::Authorized;
use super::bucket::owner;
use super::error::{Code, Failure};
use super::listing::{Shown, limit};
use super::multipart::upload_id;
use super::request::{OWNER_ID, OWNER_NAME, Request, check_key};
use super::xml::Writer;
use super::{Server, attributes, checksum, date};
use crate::object::{
    ListUploads, ListedPart, ListedUpload, OpenUpload, PART_NUMBER_MAX, PartListing,
    UploadChecksum, UploadListing, UploadsFrom,
};

/// A page has at most so many uploads and common prefixes, or parts.
const ENTRIES_MAX: u32 = 1000;

impl<M: Mailbox, R: Runtime> Server<M, R> {
    pub(super) async fn list_uploads(
        &self,
        request: &Request,
        _authorized: Authorized,
    ) -> Result<Answer<M, R>, Failure> {
        let page = UploadsPage::of(request)?;
        let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        let listing = if page.limit == 0 {
            self.store().bucket(request.bucket()).await?;
            UploadListing::default()
        } else {
            let list = ListUploads {
                bucket: request.bucket().to_owned(),
                prefix: bytes(page.prefix),
                delimiter: page.delimiter.map(bytes),
                after: page.after(),
                limit: page.limit,
            };
            self.store().list_uploads(list).await?
        };
        Ok(answer::xml(page.document(&listing)))
    }

    pub(super) async fn list_parts(
        &self,
        request: &Request,
        _authorized: Authorized,
    ) -> Result<Answer<M, R>, Failure> {
        let limit = limit(request, "max-parts", ENTRIES_MAX)?;
        let after = part_marker(request.parameter("part-number-marker"))?;
        let (bucket, key, id) = (request.bucket(), request.key(), upload_id(request));
        let listing = self.store().list_parts(bucket, key, id, after, limit).await?;
        Ok(answer::xml(parts_document(request, after, limit, &listing)?))
    }
}

/// A part number to begin behind; 0 is before all of them.
pub(super) fn part_marker(text: Option<&str>) -> Result<u32, Failure> {
    let text = text.filter(|text| !text.is_empty()).unwrap_or("0");
    let number = super::auth::parse_decimal(text).filter(|number| *number <= i32::MAX as u64);
    let number = number.ok_or_else(|| {
        let text = "The part number marker must be a number from 0 to 2147483647.";
        Failure::new(Code::InvalidArgument, text)
    })?;
    Ok(u32::try_from(number).expect("below the limit").min(PART_NUMBER_MAX))
}

struct UploadsPage<'a> {
    request: &'a Request,
    prefix: &'a str,
    delimiter: Option<&'a str>,
    limit: u32,
    shown: Shown,
}

impl<'a> UploadsPage<'a> {
    fn of(request: &'a Request) -> Result<Self, Failure> {
        let query = &request.target.query;
        for name in ["prefix", "key-marker"] {
            check_key(query.get(name).unwrap_or_default().as_bytes())?;
        }
        Ok(Self {
            request,
            prefix: query.get("prefix").unwrap_or_default(),
            delimiter: query.filled("delimiter"),
            limit: limit(request, "max-uploads", ENTRIES_MAX)?,
            shown: Shown::of(request)?,
        })
    }

    /// Without a key, the marker of an id means nothing.
    fn after(&self) -> Option<UploadsFrom> {
        let query = &self.request.target.query;
        let marker = query.filled("key-marker")?;
        let key = Bytes::copy_from_slice(marker.as_bytes());
        if let Some(id) = query.filled("upload-id-marker") {
            return Some(UploadsFrom::Upload(key, id.to_owned()));
        }
        // What the page before ended with stands for everything under it.
        let below = self.delimiter.zip(marker.strip_prefix(self.prefix));
        let is_common_prefix = below.is_some_and(|(delimiter, below)| {
            below.find(delimiter).is_some_and(|at| at + delimiter.len() == below.len())
        });
        Some(if is_common_prefix { UploadsFrom::Prefix(key) } else { UploadsFrom::Key(key) })
    }

    fn document(&self, listing: &UploadListing) -> String {
        let query = &self.request.target.query;
        let mut xml = Writer::s3("ListMultipartUploadsResult");
        xml.text("Bucket", self.request.bucket());
        xml.text("KeyMarker", &self.shown.text(query.get("key-marker").unwrap_or_default()));
        xml.text("UploadIdMarker", query.get("upload-id-marker").unwrap_or_default());
        if let Some(next) = &listing.next {
            let (key, id) = match next {
                UploadsFrom::Key(key) | UploadsFrom::Prefix(key) => (key, ""),
                UploadsFrom::Upload(key, id) => (key, id.as_str()),
            };
            xml.text("NextKeyMarker", &self.shown.bytes(key));
            xml.text("NextUploadIdMarker", id);
        }
        xml.text("Prefix", &self.shown.text(self.prefix));
        if let Some(delimiter) = self.delimiter {
            xml.text("Delimiter", &self.shown.text(delimiter));
        }
        xml.number("MaxUploads", self.limit.into());
        if self.shown.is_encoded() {
            xml.text("EncodingType", "url");
        }
        xml.flag("IsTruncated", listing.next.is_some());
        for entry in &listing.entries {
            if let ListedUpload::Upload(upload) = entry {
                xml.element("Upload", |xml| self.upload(upload, xml));
            }
        }
        for entry in &listing.entries {
            if let ListedUpload::CommonPrefix(prefix) = entry {
                xml.element("CommonPrefixes", |xml| xml.text("Prefix", &self.shown.bytes(prefix)));
            }
        }
        xml.finish()
    }

    fn upload(&self, upload: &OpenUpload, xml: &mut Writer) {
        xml.text("Key", &self.shown.bytes(&upload.key));
        xml.text("UploadId", &upload.id);
        initiator(xml);
        owner(xml);
        xml.text("StorageClass", attributes::storage_class_name(upload.class));
        xml.text("Initiated", &date::iso(upload.begun_ms));
        upload_checksum(upload.checksum, xml);
    }
}

fn initiator(xml: &mut Writer) {
    xml.element("Initiator", |xml| {
        xml.text("ID", OWNER_ID);
        xml.text("DisplayName", OWNER_NAME);
    });
}

fn upload_checksum(checksum: Option<UploadChecksum>, xml: &mut Writer) {
    if let Some(checksum) = checksum {
        xml.text("ChecksumAlgorithm", checksum.algorithm.name());
        xml.text("ChecksumType", checksum::type_name(checksum.composite));
    }
}

fn parts_document(
    request: &Request,
    after: u32,
    limit: u32,
    listing: &PartListing,
) -> Result<String, Failure> {
    let shown = Shown::of(request)?;
    let mut xml = Writer::s3("ListPartsResult");
    xml.text("Bucket", request.bucket());
    xml.text("Key", &shown.bytes(request.key()));
    xml.text("UploadId", upload_id(request));
    initiator(&mut xml);
    owner(&mut xml);
    xml.text("StorageClass", attributes::storage_class_name(listing.upload.class));
    xml.number("PartNumberMarker", after.into());
    let last = listing.parts.last().map_or(after, |part| part.number);
    xml.number("NextPartNumberMarker", last.into());
    xml.number("MaxParts", limit.into());
    if shown.is_encoded() {
        xml.text("EncodingType", "url");
    }
    xml.flag("IsTruncated", listing.is_truncated);
    upload_checksum(listing.upload.checksum, &mut xml);
    for part in &listing.parts {
        xml.element("Part", |xml| listed_part(part, xml));
    }
    Ok(xml.finish())
}

fn listed_part(part: &ListedPart, xml: &mut Writer) {
    xml.number("PartNumber", part.number.into());
    xml.text("LastModified", &date::iso(part.modified_ms));
    xml.text("ETag", &format!("\"{}\"", part.etag));
    xml.number("Size", part.size);
    for one in &part.checksums {
        xml.text(checksum::element_name(one.algorithm), &checksum::text(one, 0));
    }
}

#[cfg(test)]
mod tests;

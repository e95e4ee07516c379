//! ListObjectVersions: every version and delete marker, in order of keys, the newest of a key first.

use basalt_engine::seam::Runtime;
use basalt_net::mailbox::Mailbox;
use bytes::Bytes;

use super::answer::{self, Answer};
use super::auth::Authorized;
use super::bucket::owner;
use super::error::{Code, Failure};
use super::listing::{KEYS_MAX, Shown, is_common_prefix, limit};
use super::request::{Request, check_key};
use super::versioning::parse_name;
use super::xml::Writer;
use super::{Server, attributes, checksum, date};
use crate::object::{
    ListVersions, ListedObject, ListedVersion, VersionListing, VersionName, VersionsFrom,
};

/// What a listing asks for, as the client wrote it.
struct Page<'a> {
    request: &'a Request,
    prefix: &'a str,
    delimiter: Option<&'a str>,
    limit: u32,
    shown: Shown,
}

impl<M: Mailbox, R: Runtime> Server<M, R> {
    pub(super) async fn list_object_versions(
        &self,
        request: &Request,
        _authorized: Authorized,
    ) -> Result<Answer<M, R>, Failure> {
        let page = Page::of(request)?;
        let after = page.after()?;
        check_key(page.prefix.as_bytes())?;
        let listing = if page.limit == 0 {
            self.store().bucket(request.bucket()).await?;
            VersionListing::default()
        } else {
            let list = ListVersions {
                bucket: request.bucket().to_owned(),
                prefix: Bytes::copy_from_slice(page.prefix.as_bytes()),
                delimiter: page.delimiter.map(|text| Bytes::copy_from_slice(text.as_bytes())),
                after,
                limit: page.limit,
            };
            self.store().list_versions(list).await?
        };
        Ok(answer::xml(page.document(&listing)))
    }
}

impl<'a> Page<'a> {
    fn of(request: &'a Request) -> Result<Self, Failure> {
        let query = &request.target.query;
        Ok(Self {
            request,
            prefix: query.get("prefix").unwrap_or_default(),
            delimiter: query.filled("delimiter"),
            limit: limit(request, "max-keys", KEYS_MAX)?,
            shown: Shown::of(request)?,
        })
    }

    /// Where the page begins.
    fn after(&self) -> Result<Option<VersionsFrom>, Failure> {
        let query = &self.request.target.query;
        let version = query.filled("version-id-marker").map(parse_name).transpose()?;
        let Some(marker) = query.filled("key-marker") else {
            let text = "A version-id-marker needs a key-marker.";
            return match version {
                Some(_) => Err(Failure::new(Code::InvalidArgument, text)),
                None => Ok(None),
            };
        };
        check_key(marker.as_bytes())?;
        let bytes = Bytes::copy_from_slice(marker.as_bytes());
        Ok(Some(match version {
            Some(version) => VersionsFrom::Version(bytes, version),
            None if is_common_prefix(marker, self.prefix, self.delimiter) => {
                VersionsFrom::Prefix(bytes)
            }
            None => VersionsFrom::Key(bytes),
        }))
    }

    fn document(&self, listing: &VersionListing) -> String {
        let query = &self.request.target.query;
        let mut xml = Writer::s3("ListVersionsResult");
        xml.text("Name", self.request.bucket());
        xml.text("Prefix", &self.shown.text(self.prefix));
        if let Some(delimiter) = self.delimiter {
            xml.text("Delimiter", &self.shown.text(delimiter));
        }
        xml.text("KeyMarker", &self.shown.text(query.get("key-marker").unwrap_or_default()));
        xml.text("VersionIdMarker", query.get("version-id-marker").unwrap_or_default());
        xml.number("MaxKeys", self.limit.into());
        if self.shown.is_encoded() {
            xml.text("EncodingType", "url");
        }
        xml.flag("IsTruncated", listing.next.is_some());
        match &listing.next {
            None => {}
            Some(VersionsFrom::Key(key) | VersionsFrom::Prefix(key)) => {
                xml.text("NextKeyMarker", &self.shown.bytes(key));
            }
            Some(VersionsFrom::Version(key, version)) => {
                xml.text("NextKeyMarker", &self.shown.bytes(key));
                xml.text("NextVersionIdMarker", &version.to_string());
            }
        }
        for entry in &listing.entries {
            if let ListedVersion::Version { object, name, is_latest, is_marker } = entry {
                self.version(object, *name, *is_latest, *is_marker, &mut xml);
            }
        }
        for entry in &listing.entries {
            if let ListedVersion::CommonPrefix(prefix) = entry {
                xml.element("CommonPrefixes", |xml| {
                    xml.text("Prefix", &self.shown.bytes(prefix));
                });
            }
        }
        xml.finish()
    }

    fn version(
        &self,
        object: &ListedObject,
        name: VersionName,
        is_latest: bool,
        is_marker: bool,
        xml: &mut Writer,
    ) {
        xml.element(if is_marker { "DeleteMarker" } else { "Version" }, |xml| {
            xml.text("Key", &self.shown.bytes(&object.key));
            xml.text("VersionId", &name.to_string());
            xml.flag("IsLatest", is_latest);
            xml.text("LastModified", &date::iso(object.modified_ms));
            if !is_marker {
                xml.text("ETag", &format!("\"{}\"", object.etag));
                for one in &object.checksums {
                    xml.text("ChecksumAlgorithm", one.algorithm.name());
                    xml.text("ChecksumType", checksum::type_name(one.composite));
                }
                xml.number("Size", object.size);
                xml.text("StorageClass", attributes::storage_class_name(object.class));
            }
            owner(xml);
        });
    }
}

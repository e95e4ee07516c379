//! The words of the object layer: what callers pass in and get back.

use std::future::Future;

use basalt_engine::record::Etag;
use basalt_engine::units::{Incarnation, VersionId};
use bytes::Bytes;

use super::error::{Result, SourceError};
pub use super::version::VersionName;

/// The bytes of a PUT as they arrive, already decoded from any transfer encoding.
pub trait Source {
    /// The next bytes, never empty; `None` at the end. The caller has told [`Put::size`], and more
    /// than that is an error.
    fn next(&mut self) -> impl Future<Output = std::result::Result<Option<Bytes>, SourceError>>;

    /// Called once after the end: every signature and checksum is verified now, before anything
    /// becomes visible. Returns the checksums to keep with the object.
    /// `md5` is the MD5 of all bytes, which the object layer has anyway for the ETag.
    fn finish(&mut self, md5: &[u8; 16]) -> std::result::Result<Vec<Checksum>, SourceError>;
}

/// S3's checksum algorithms. The numbers are stored.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Algorithm {
    Crc32 = 1,
    Crc32c = 2,
    Crc64Nvme = 3,
    Sha1 = 4,
    Sha256 = 5,
}

impl Algorithm {
    pub const ALL: [Self; 5] =
        [Self::Crc32, Self::Crc32c, Self::Crc64Nvme, Self::Sha1, Self::Sha256];

    /// As S3 writes it: `CRC32C`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Crc32 => "CRC32",
            Self::Crc32c => "CRC32C",
            Self::Crc64Nvme => "CRC64NVME",
            Self::Sha1 => "SHA1",
            Self::Sha256 => "SHA256",
        }
    }
    pub fn length_bytes(self) -> usize {
        match self {
            Self::Crc32 | Self::Crc32c => 4,
            Self::Crc64Nvme => 8,
            Self::Sha1 => 20,
            Self::Sha256 => 32,
        }
    }
}

/// A checksum that is kept with an object or a part.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checksum {
    pub algorithm: Algorithm,
    /// Big-endian, as S3 shows it in base64.
    pub value: Vec<u8>,
    /// Whether it is the checksum of the parts' checksums (S3's COMPOSITE) or of all bytes.
    pub composite: bool,
}

/// User metadata and content headers: lower-case names without `x-amz-meta-` mangling, that is,
/// exactly the response headers to send, `x-amz-meta-` included.
pub type Metadata = Vec<(String, String)>;

/// An object's tags in the order in which they were given; no key occurs twice.
pub type Tags = Vec<(String, String)>;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum StorageClass {
    #[default]
    Standard = 0,
    ReducedRedundancy = 1,
}

impl StorageClass {
    /// The class of a record's stored number.
    pub fn from_stored(number: u8) -> Self {
        if number == 1 { Self::ReducedRedundancy } else { Self::Standard }
    }
}

/// What must hold of the key's current object for a write to happen.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Condition {
    #[default]
    None,
    /// If-None-Match: * (the key must be absent).
    Absent,
    /// If-Match: * (the key must be there).
    Present,
    /// If-Match: the ETag as text without quotes.
    Matches(String),
    /// If-None-Match: the ETag as text without quotes; an absent key differs from all.
    Differs(String),
    /// The key's object is this very version.
    Version(VersionId),
}

#[derive(Clone, Debug)]
pub struct Put {
    pub bucket: String,
    pub key: Bytes,
    pub size: u64,
    pub class: StorageClass,
    pub metadata: Metadata,
    pub tags: Tags,
    pub condition: Condition,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Written {
    pub etag: Etag,
    pub version: VersionId,
    /// `None` where no versions are kept.
    pub name: Option<VersionName>,
    pub checksums: Vec<Checksum>,
    pub size: u64,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bucket {
    pub name: String,
    pub created_ms: u64,
    pub incarnation: Incarnation,
    pub versioning: Versioning,
}

/// Whether a bucket keeps versions. The numbers are stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum Versioning {
    /// It never did, and nothing of it shows.
    #[default]
    Unset = 0,
    /// Every version gets an id and is kept.
    Enabled = 1,
    /// New versions are null versions, of which there is one; those with an id are kept.
    Suspended = 2,
}

/// What a DELETE names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Deletion {
    pub key: Bytes,
    /// Removes this version for good.
    pub version: Option<VersionName>,
    pub condition: Condition,
}

impl Deletion {
    /// The deletion of whatever is current.
    pub fn of(key: Bytes) -> Self {
        Self { key, version: None, condition: Condition::None }
    }
}

/// What a DELETE did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Deleted {
    /// The delete marker that was made, or the version that is removed; `None` where no versions are
    /// kept.
    pub version: Option<VersionName>,
    /// The version is a delete marker.
    pub marker: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ObjectInfo {
    pub size: u64,
    pub etag: Etag,
    pub modified_ms: u64,
    pub class: StorageClass,
    /// `None` where no versions are kept.
    pub version: Option<VersionName>,
    pub metadata: Metadata,
    pub tags: Tags,
    pub checksums: Vec<Checksum>,
}

/// A part of an object that was uploaded in parts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ObjectPart {
    pub number: u32,
    /// Where it stands in the object.
    pub span: Span,
    /// At most one; kept where every part has one.
    pub checksums: Vec<Checksum>,
}

/// Bytes `start..end` of an object, `end <= size`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    pub start: u64,
    pub end: u64,
}

#[derive(Clone, Debug)]
pub struct List {
    pub bucket: String,
    pub prefix: Bytes,
    pub delimiter: Option<Bytes>,
    /// Exclusive: marker, start-after, or what [`Listing::next`] said.
    pub after: Option<ListFrom>,
    pub limit: u32,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ListFrom {
    Key(Bytes),
    /// A common prefix: everything under it is passed over.
    Prefix(Bytes),
}

#[derive(Clone, Debug, Default)]
pub struct Listing {
    pub entries: Vec<Listed>,
    /// Set when the listing is truncated: where the next page begins.
    pub next: Option<ListFrom>,
}

#[derive(Clone, Debug)]
pub enum Listed {
    Object(ListedObject),
    CommonPrefix(Bytes),
}

#[derive(Clone, Debug)]
pub struct ListVersions {
    pub bucket: String,
    pub prefix: Bytes,
    pub delimiter: Option<Bytes>,
    /// Exclusive.
    pub after: Option<VersionsFrom>,
    pub limit: u32,
}

/// Where a listing of versions goes on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum VersionsFrom {
    /// Behind every version of this key.
    Key(Bytes),
    /// Behind this version of this key.
    Version(Bytes, VersionName),
    /// Behind everything under this common prefix.
    Prefix(Bytes),
}

#[derive(Clone, Debug, Default)]
pub struct VersionListing {
    pub entries: Vec<ListedVersion>,
    pub next: Option<VersionsFrom>,
}

#[derive(Clone, Debug)]
pub enum ListedVersion {
    Version {
        object: ListedObject,
        name: VersionName,
        is_latest: bool,
        /// It is a delete marker.
        is_marker: bool,
    },
    CommonPrefix(Bytes),
}

#[derive(Clone, Debug)]
pub struct ListedObject {
    pub key: Bytes,
    pub size: u64,
    pub etag: Etag,
    pub modified_ms: u64,
    pub class: StorageClass,
    /// The kept checksums' algorithms, for S3's ChecksumAlgorithm.
    pub checksums: Vec<Checksum>,
}

/// A part of a multipart upload as CompleteMultipartUpload names it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartName {
    pub number: u32,
    /// Text without quotes.
    pub etag: String,
    /// Checksums that the completion repeats; compared with the part's where both are there.
    pub checksums: Vec<Checksum>,
}

/// Whether a multipart upload's checksum is that of all bytes or of the parts' checksums.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UploadChecksum {
    pub algorithm: Algorithm,
    pub composite: bool,
}

/// What an upload is begun with: the attributes of the object to be.
#[derive(Clone, Debug, Default)]
pub struct NewUpload {
    pub class: StorageClass,
    pub metadata: Metadata,
    pub tags: Tags,
    pub checksum: Option<UploadChecksum>,
}

/// What a completion states of the whole object; what does not hold fails it.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    pub checksums: Vec<Checksum>,
    pub size: Option<u64>,
    /// Whether the checksum is composite.
    pub composite: Option<bool>,
}

#[derive(Clone, Debug)]
pub struct UploadInfo {
    pub key: Bytes,
    pub checksum: Option<UploadChecksum>,
    pub class: StorageClass,
}

#[derive(Clone, Debug)]
pub struct ListUploads {
    pub bucket: String,
    pub prefix: Bytes,
    pub delimiter: Option<Bytes>,
    pub after: Option<UploadsFrom>,
    pub limit: u32,
}

/// Where a listing of uploads goes on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum UploadsFrom {
    /// Behind every upload to this key.
    Key(Bytes),
    /// Behind the upload to this key that has this id.
    Upload(Bytes, String),
    /// Behind everything under this common prefix.
    Prefix(Bytes),
}

#[derive(Clone, Debug, Default)]
pub struct UploadListing {
    pub entries: Vec<ListedUpload>,
    pub next: Option<UploadsFrom>,
}

#[derive(Clone, Debug)]
pub enum ListedUpload {
    Upload(OpenUpload),
    CommonPrefix(Bytes),
}

#[derive(Clone, Debug)]
pub struct OpenUpload {
    pub key: Bytes,
    pub id: String,
    pub begun_ms: u64,
    pub class: StorageClass,
    pub checksum: Option<UploadChecksum>,
}

#[derive(Clone, Debug)]
pub struct PartListing {
    pub upload: UploadInfo,
    pub parts: Vec<ListedPart>,
    pub is_truncated: bool,
}

#[derive(Clone, Debug)]
pub struct ListedPart {
    pub number: u32,
    pub size: u64,
    pub etag: Etag,
    pub modified_ms: u64,
    pub checksums: Vec<Checksum>,
}

/// A body to send: bytes in order, each verified.
pub trait Body {
    fn next(&mut self) -> impl Future<Output = Result<Option<Bytes>>>;
}

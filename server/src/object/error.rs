//! Why an object operation did not succeed. `s3::error` is the one place that turns this into S3
//! codes.

use basalt_engine::units::{SetIndex, VersionId};

pub type Result<T> = std::result::Result<T, Error>;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("bucket does not exist")]
    NoSuchBucket,
    /// The bucket is closing: it may be gone in a moment, or open again.
    #[error("bucket is being deleted; try again")]
    BucketClosing,
    #[error("bucket exists already")]
    BucketExists,
    #[error("bucket is not empty")]
    BucketNotEmpty,
    #[error("key does not exist")]
    NoSuchKey,
    #[error("upload does not exist")]
    NoSuchUpload,
    /// A part of a completion is missing or has another ETag.
    #[error("part {number} is missing or has another ETag")]
    InvalidPart { number: u32 },
    #[error("parts are not in ascending order")]
    InvalidPartOrder,
    #[error("part {number} has {bytes} bytes, fewer than the minimum")]
    PartTooSmall { number: u32, bytes: u64 },
    /// What a completion states of the whole object is not so.
    #[error("the {what} that the request states is not that of the upload")]
    ClaimFailed { what: &'static str },
    #[error("a condition of the request does not hold")]
    PreconditionFailed,
    /// Another writer interfered with a conditional request; trying again may succeed.
    #[error("a conflicting conditional operation is in progress")]
    Conflict,
    /// Too few drives answer.
    #[error("set {} cannot {action}: {short_by} more drive(s) needed", set.0)]
    Unavailable { set: SetIndex, action: &'static str, short_by: u32 },
    #[error("the drives of set {} are full", set.0)]
    Full { set: SetIndex },
    /// The outcome could not be learned in time: it may or may not have happened.
    #[error("the outcome is not known: set {} did not answer in time", set.0)]
    Unknown { set: SetIndex },
    /// Fewer intact shards than the payload needs can be reached.
    #[error("payload on set {} cannot be read now: {short_by} more intact shard(s) needed", set.0)]
    Unreadable { set: SetIndex, short_by: u32 },
    /// The payload is gone for good, with drives that were replaced.
    #[error(
        "version {version} is lost: the drives that held its bytes on set {} were replaced; \
         delete the object, or write it again",
        set.0
    )]
    Lost { set: SetIndex, version: VersionId },
    /// The body ended early, or a check of it failed; nothing became visible.
    #[error("request body: {0}")]
    Body(#[from] SourceError),
    #[error("too much work in flight; try again")]
    Busy,
}

/// What a body can have wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    #[error("the connection ended before the body did")]
    Incomplete,
    #[error("the body is longer than announced")]
    TooLong,
    /// Content-MD5 or an x-amz-checksum does not match.
    #[error("the {algorithm} of the body does not match")]
    BadDigest { algorithm: &'static str },
    /// The payload hash of the signature does not match.
    #[error("the signed payload hash does not match")]
    PayloadHashMismatch,
    /// The signature of a chunk or of the trailer does not match.
    #[error("a chunk's signature does not match")]
    ChunkSignatureMismatch,
    #[error("the chunked encoding is malformed: {0}")]
    Malformed(&'static str),
    /// A trailer that was announced did not come, or has a malformed value.
    #[error("trailer {0} is missing or malformed")]
    Trailer(&'static str),
    #[error("the body did not arrive in time")]
    TimedOut,
}

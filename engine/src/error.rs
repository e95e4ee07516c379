//! What can go wrong at one drive, with context as fields. Every error answers one question,
//! [`Error::class`]: is it the caller's fault, worth trying elsewhere, or a fault of the drive?

use std::path::PathBuf;

use crate::units::{BlockIndex, PayloadId};

pub type Result<T> = std::result::Result<T, Error>;

/// What a caller does about an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// The request cannot be served as asked, here or elsewhere.
    Caller,
    /// This drive cannot serve it now; another may, or this one later.
    Elsewhere,
    /// The drive failed or holds wrong bytes: fence or repair it.
    Drive,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("drive is not available: {reason}")]
    Unavailable { reason: &'static str },
    #[error("{operation} failed at {at:?} with errno {errno}")]
    Io { operation: &'static str, at: BlockIndex, errno: i32 },
    #[error("flush failed with errno {errno}; the drive is fenced until it is reopened")]
    FlushFailed { errno: i32 },
    #[error("{what} at {at:?} is corrupt")]
    Corrupt { what: &'static str, at: BlockIndex },
    #[error("the drive is full: {free_bytes} bytes free of {capacity_bytes}")]
    Full { free_bytes: u64, capacity_bytes: u64 },
    #[error("payload {payload} is not here")]
    PayloadMissing { payload: PayloadId },
    #[error("{path}: {reason}. {remedy}")]
    Refused { path: PathBuf, reason: String, remedy: String },
    #[error("{path}: another process uses this drive. End it, or name other directories")]
    InUse { path: PathBuf },
    #[error("{what} reached its limit of {limit}")]
    Limit { what: &'static str, limit: u64 },
}

impl Error {
    pub fn class(&self) -> Class {
        match self {
            Self::Refused { .. } | Self::InUse { .. } => Class::Caller,
            Self::Unavailable { .. }
            | Self::Full { .. }
            | Self::PayloadMissing { .. }
            | Self::Limit { .. } => Class::Elsewhere,
            Self::Io { .. } | Self::FlushFailed { .. } | Self::Corrupt { .. } => Class::Drive,
        }
    }
}

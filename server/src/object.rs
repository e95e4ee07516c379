//! Objects over drives: what a client can do to buckets and keys, without a word of HTTP.
//!
//! Everything here runs on one core and is generic over the seams, so that the simulator runs the
//! very code that serves.

mod admission;
pub mod api;
pub(crate) mod bucket;
mod checksums;
mod closed;
mod delete;
pub mod error;
mod get;
mod hashing;
mod layout;
mod list;
mod lost;
mod manifest;
pub mod membership;
mod metadata;
mod multipart;
mod parts;
mod put;
mod read;
mod rebuild;
mod register;
mod relocated;
mod setting;
pub mod settle;
mod stage;
pub mod store;
mod tagging;
mod upload;
mod upload_list;
mod upload_sweep;

pub use api::*;
pub use error::{Error, Result};
pub use get::ObjectBody;
pub use multipart::{PART_BYTES_MIN, PART_NUMBER_MAX};
pub use store::{ClassParity, Deployment, Place, Store};
pub use upload_sweep::Swept;

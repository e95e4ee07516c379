//! The smallest signed S3 client that serves as a load generator: one connection per client, no
//! parsing beyond what is asked for, large bodies neither copied nor kept.

mod client;
mod connection;
mod sign;
mod stream;
mod xml;

pub(crate) use client::{Client, Payload, Request};
pub(crate) use connection::{Answer, Unanswered};
pub(crate) use sign::{Credentials, sha256_hex};
pub(crate) use stream::Trust;
pub(crate) use xml::text_of;

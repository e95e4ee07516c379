//! The server: command line, node start, objects over drives, S3.
//!
//! `cli`, `environment`, `config` and `topology` turn text into decisions; `start` and `node` act on
//! them. `object` knows buckets, keys, payload and drives, and no HTTP; `s3` turns requests into
//! calls of `object` and its answers into responses, and asks `policy` who may do what.

pub mod admin;
pub mod banner;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod credentials;
pub mod environment;
#[cfg(test)]
mod fuzz;
pub mod inspect;
pub mod logging;
mod memory;
pub mod node;
pub mod object;
pub mod placement;
pub mod policy;
pub mod refusal;
pub mod s3;
pub mod start;
pub mod tls;
pub mod topology;
pub mod users;

//! Bytes between cores and nodes: hand-off between cores, quorum fan-out, the proposer and the
//! reader of the slot protocol.
//!
//! Reading order: [`quorum`] is the arithmetic; [`reader`] judges what drives tell of a key, and
//! [`proposer`] has one slot decided; [`lookup`] (one read) and [`update`] (one write) are made of
//! them; [`loss`] judges whether a payload is gone for good. All are plain state machines ([`exchange`]) that the model explores too. [`mailbox`] is the
//! seam through which a core talks to the drives of a set, wherever their owners are.
//!
//! `net` never parses S3 and never touches a file.

pub mod cores;
pub mod exchange;
pub mod link;
pub mod lookup;
pub mod loss;
pub mod mailbox;
pub mod node;
pub mod peers;
pub mod proposer;
pub mod quorum;
pub mod reader;
pub mod service;
pub mod update;
pub mod wire;

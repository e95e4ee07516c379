//! What nodes say to each other, byte by byte: docs/wire.md. Nothing here does I/O.
//!
//! [`handshake`] is how two nodes come to trust a connection; [`frame`] is what bytes are cut into
//! afterwards; [`message`] is what frames carry. The layouts of the handshake and of frame headers are
//! laid by hand and never change; messages are archives whose types are frozen for each version of the
//! protocol.
//!
//! Invariant: nothing that a peer sends is trusted before it is checked. Lengths are bounded before
//! memory is taken, checksums are compared before a body is looked at, archives are validated before
//! they are read, and numbers that name drives or keys are checked where they are used.

pub mod frame;
pub mod handshake;
pub mod message;

#[cfg(test)]
mod documented;

/// What a peer sent is not what the protocol says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("malformed: {0}")]
pub struct Malformed(pub &'static str);

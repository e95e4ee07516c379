//! What is under way between clients and drives: the product's own requests and replies, how they are
//! compared, and how a trace shows them.

use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher};

use ahash::AHasher;
use basalt_engine::request::{Refusal, Reply, Request};

/// Keyed by fixed numbers, and never walked through: the same in every run.
type Fixed = BuildHasherDefault<AHasher>;
#[expect(clippy::disallowed_types, reason = "a fixed ahash state")]
pub(crate) type Seen = std::collections::HashSet<u64, Fixed>;
#[expect(clippy::disallowed_types, reason = "a fixed ahash state")]
pub(crate) type Known<K, V> = std::collections::HashMap<K, V, Fixed>;

/// The same in every build, so that a state has one hash, and a seed one walk.
pub(crate) fn hasher() -> impl Hasher {
    ahash::RandomState::with_seeds(1, 2, 3, 4).build_hasher()
}

pub(crate) fn hash_of(value: impl Hash) -> u64 {
    let mut hasher = hasher();
    value.hash(&mut hasher);
    hasher.finish()
}

pub(crate) fn request_hash(request: &Request) -> u64 {
    match request {
        Request::Digest { key: _, payload } => hash_of((0u8, payload)),
        Request::Prepare { epoch, key: _, slot, ballot, base } => {
            hash_of((1u8, epoch, slot, ballot, base))
        }
        Request::Accept { epoch, key: _, slot, ballot, base, record, copy, fresh } => {
            hash_of((2u8, epoch, slot, ballot, base, record, copy, fresh))
        }
        Request::Learn { epoch, key: _, slot, record, copy } => {
            hash_of((3u8, epoch, slot, record, copy))
        }
        Request::Certify { key: _, certificate, settled, listed: _ } => {
            hash_of((4u8, certificate, settled))
        }
        Request::Abandon { epoch, key: _, slot, ballot } => hash_of((5u8, epoch, slot, ballot)),
        Request::InstallMap { map } => hash_of((6u8, map.epoch)),
        Request::StageSmall { payload: _, key: _, operation, shard } => {
            hash_of((7u8, operation, shard))
        }
        Request::Holds { payloads } => hash_of((8u8, payloads)),
        other => unreachable!("the slot protocol does not ask {other:?}"),
    }
}

pub(crate) fn answer_hash(reply: &Reply) -> u64 {
    match reply {
        Reply::Digest(digest) => hash_of((0u8, digest)),
        Reply::Promised { accepted, copy } => hash_of((1u8, accepted, copy)),
        Reply::Accepted { has_shards } => hash_of((2u8, has_shards)),
        // Which place is blank is told by the drives; here it would hide that states are alike.
        Reply::Refused { refusal: Refusal::OldEpoch(map), digest } => {
            hash_of((3u8, map.epoch, digest))
        }
        Reply::Refused { refusal, digest } => hash_of((4u8, refusal, digest)),
        Reply::Done => hash_of(5u8),
        Reply::Failed(_) => hash_of(6u8),
        Reply::Holds(holds) => hash_of((7u8, holds)),
        other => unreachable!("the slot protocol does not answer {other:?}"),
    }
}

/// A reply for a machine to have.
pub(crate) fn given(answer: &Reply) -> Reply {
    match answer {
        Reply::Digest(digest) => Reply::Digest(digest.clone()),
        Reply::Promised { accepted, copy } => {
            Reply::Promised { accepted: accepted.clone(), copy: copy.clone() }
        }
        Reply::Accepted { has_shards } => Reply::Accepted { has_shards: *has_shards },
        Reply::Refused { refusal, digest } => {
            Reply::Refused { refusal: refusal.clone(), digest: digest.clone() }
        }
        Reply::Done => Reply::Done,
        Reply::Holds(holds) => Reply::Holds(holds.clone()),
        Reply::Failed(error) => Reply::Failed(error.clone()),
        other => unreachable!("the slot protocol does not answer {other:?}"),
    }
}

/// A request as a trace shows it.
pub(crate) fn shown(request: &Request) -> String {
    match request {
        Request::Digest { .. } => "digest".to_owned(),
        Request::Prepare { epoch, slot, ballot, .. } => {
            format!("prepare {slot:?} {ballot:?} e{}", epoch.0)
        }
        Request::Accept { epoch, slot, ballot, record, .. } => {
            format!("accept {slot:?} {ballot:?} op{} e{}", record.operation().0, epoch.0)
        }
        Request::Learn { slot, record, .. } => format!("learn {slot:?} op{}", record.operation().0),
        Request::Certify { certificate, settled, .. } => {
            let (slot, operation) = (certificate.slot, certificate.operation.0);
            format!("certify {slot:?} op{operation}{}", if *settled { " settled" } else { "" })
        }
        Request::Abandon { slot, ballot, .. } => format!("abandon {slot:?} below {ballot:?}"),
        Request::StageSmall { operation, .. } => format!("stage the copy of op{}", operation.0),
        Request::Holds { .. } => "which shards are there".to_owned(),
        Request::InstallMap { map } => format!("install map {}", map.epoch.0),
        other => format!("{other:?}"),
    }
}

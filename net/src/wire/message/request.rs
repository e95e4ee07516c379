//! Requests to a drive, as they travel.

use basalt_engine::buffer::{Buffer, SharedBuffer};
use basalt_engine::request as engine;
use basalt_engine::units::{Epoch, Incarnation, OperationId, PayloadId};
use bytes::Bytes;
use rkyv::vec::ArchivedVec;
use rkyv::{Archive, Serialize};

use super::parts::{
    Ballot, Certificate, ListAfter, Open, SetMap, Slot, SmallShard, bytes, key, pack_key, record,
};
use crate::wire::Malformed;

#[derive(Archive, Serialize)]
pub(super) enum Request {
    Digest {
        key: Bytes,
        payload: bool,
    },
    Prepare {
        epoch: u64,
        key: Bytes,
        slot: Slot,
        ballot: Ballot,
        base: Option<Certificate>,
    },
    Accept {
        epoch: u64,
        key: Bytes,
        slot: Slot,
        ballot: Ballot,
        base: Option<Certificate>,
        record: Bytes,
        copy: Option<SmallShard>,
        fresh: bool,
    },
    Learn {
        epoch: u64,
        key: Bytes,
        slot: Slot,
        record: Bytes,
        copy: Option<SmallShard>,
    },
    Certify {
        key: Bytes,
        certificate: Certificate,
        settled: bool,
        listed: Vec<u128>,
    },
    Abandon {
        epoch: u64,
        key: Bytes,
        slot: Slot,
        ballot: Ballot,
    },
    StageOpen {
        payload: u128,
        key: Bytes,
        operation: u128,
        length_blocks: u64,
    },
    StageWrite {
        payload: u128,
        run: u64,
        /// Of the frame's payload.
        blocks: u32,
    },
    StageSeal {
        payload: u128,
    },
    StageSmall {
        payload: u128,
        key: Bytes,
        operation: u128,
        shard: SmallShard,
    },
    Discard {
        payload: u128,
    },
    Release {
        payload: u128,
    },
    ReadRun {
        payload: u128,
        first_block: u64,
        blocks: u64,
    },
    ReadSmall {
        payload: u128,
    },
    Holds {
        payloads: Vec<u128>,
    },
    DropShard {
        payload: u128,
        key: Bytes,
    },
    List(ListRequest),
    Fingerprint(ListRequest),
    Scan {
        after: Option<Bytes>,
        limit: u32,
    },
    Unsettled {
        after: Option<Bytes>,
        limit: u32,
    },
    Relocated {
        after: Option<u128>,
        limit: u32,
    },
    Orphans {
        after: Option<u128>,
        limit: u32,
    },
    CloseBucket {
        incarnation: u64,
    },
    ReopenBucket {
        incarnation: u64,
    },
    InstallMap {
        map: SetMap,
    },
    Status,
}

#[derive(Archive, Serialize)]
pub(super) struct ListRequest {
    prefix: Bytes,
    after: Option<ListAfter>,
    delimiter: Option<Bytes>,
    markers: bool,
    limit: u32,
}

impl Request {
    /// What is payload goes to `payload`.
    pub(super) fn pack(request: engine::Request, payload: &mut Vec<Bytes>) -> Self {
        use engine::Request as From;
        match request {
            From::Digest { key, payload } => Self::Digest { key: pack_key(&key), payload },
            From::Prepare { epoch, key, slot, ballot, base } => Self::Prepare {
                epoch: epoch.0,
                key: pack_key(&key),
                slot: slot.into(),
                ballot: ballot.into(),
                base: base.map(Certificate::from),
            },
            From::Accept { epoch, key, slot, ballot, base, record, copy, fresh } => Self::Accept {
                epoch: epoch.0,
                key: pack_key(&key),
                slot: slot.into(),
                ballot: ballot.into(),
                base: base.map(Certificate::from),
                record: record.bytes().clone(),
                copy: copy.map(SmallShard::from),
                fresh,
            },
            From::Learn { epoch, key, slot, record, copy } => Self::Learn {
                epoch: epoch.0,
                key: pack_key(&key),
                slot: slot.into(),
                record: record.bytes().clone(),
                copy: copy.map(SmallShard::from),
            },
            From::Certify { key, certificate, settled, listed } => Self::Certify {
                key: pack_key(&key),
                certificate: certificate.into(),
                settled,
                listed: listed.iter().map(|payload| payload.0).collect(),
            },
            From::Abandon { epoch, key, slot, ballot } => Self::Abandon {
                epoch: epoch.0,
                key: pack_key(&key),
                slot: slot.into(),
                ballot: ballot.into(),
            },
            From::StageOpen { payload, key, operation, length_blocks } => Self::StageOpen {
                payload: payload.0,
                key: pack_key(&key),
                operation: operation.0,
                length_blocks,
            },
            From::StageWrite { payload: id, run, buffer } => {
                let blocks = u32::try_from(buffer.length_blocks().0).expect("a run is short");
                payload.push(buffer.bytes());
                Self::StageWrite { payload: id.0, run, blocks }
            }
            From::StageSeal { payload } => Self::StageSeal { payload: payload.0 },
            From::StageSmall { payload, key, operation, shard } => Self::StageSmall {
                payload: payload.0,
                key: pack_key(&key),
                operation: operation.0,
                shard: shard.into(),
            },
            From::Discard { payload } => Self::Discard { payload: payload.0 },
            From::Release { payload } => Self::Release { payload: payload.0 },
            From::ReadRun { payload, first_block, blocks } => {
                Self::ReadRun { payload: payload.0, first_block, blocks }
            }
            From::ReadSmall { payload } => Self::ReadSmall { payload: payload.0 },
            From::Holds { payloads } => {
                Self::Holds { payloads: payloads.iter().map(|payload| payload.0).collect() }
            }
            From::DropShard { payload, key } => {
                Self::DropShard { payload: payload.0, key: pack_key(&key) }
            }
            From::List(list) => Self::List(list.into()),
            From::Fingerprint(list) => Self::Fingerprint(list.into()),
            From::Scan { after, limit } => {
                Self::Scan { after: after.as_ref().map(pack_key), limit }
            }
            From::Unsettled { after, limit } => {
                Self::Unsettled { after: after.as_ref().map(pack_key), limit }
            }
            From::Relocated { after, limit } => {
                Self::Relocated { after: after.map(|payload| payload.0), limit }
            }
            From::Orphans { after, limit } => {
                Self::Orphans { after: after.map(|payload| payload.0), limit }
            }
            From::CloseBucket { incarnation } => Self::CloseBucket { incarnation: incarnation.0 },
            From::ReopenBucket { incarnation } => Self::ReopenBucket { incarnation: incarnation.0 },
            From::InstallMap { map } => Self::InstallMap { map: SetMap::from(&map) },
            From::Status => Self::Status,
        }
    }
}

impl ArchivedRequest {
    /// How much of the frame's payload belongs to this request.
    pub(super) fn payload_blocks(&self) -> Option<u32> {
        match self {
            Self::StageWrite { blocks, .. } => Some(blocks.to_native()),
            _ => None,
        }
    }

    /// Takes its payload, if it has any, from the front of `payload`.
    pub(super) fn open(
        &self,
        body: &Bytes,
        payload: &mut impl Iterator<Item = Buffer>,
    ) -> Result<engine::Request, Malformed> {
        use engine::Request as To;
        Ok(match self {
            Self::Digest { key: of, payload } => {
                To::Digest { key: key(body, of)?, payload: *payload }
            }
            Self::Prepare { epoch, key: of, slot, ballot, base } => To::Prepare {
                epoch: Epoch(epoch.to_native()),
                key: key(body, of)?,
                slot: slot.get(),
                ballot: ballot.get(),
                base: base.as_ref().map(|base| base.get()),
            },
            Self::Accept { epoch, key: of, slot, ballot, base, record: value, copy, fresh } => {
                To::Accept {
                    epoch: Epoch(epoch.to_native()),
                    key: key(body, of)?,
                    slot: slot.get(),
                    ballot: ballot.get(),
                    base: base.as_ref().map(|base| base.get()),
                    record: record(body, value)?,
                    copy: copy.open(body)?,
                    fresh: *fresh,
                }
            }
            Self::Learn { epoch, key: of, slot, record: value, copy } => To::Learn {
                epoch: Epoch(epoch.to_native()),
                key: key(body, of)?,
                slot: slot.get(),
                record: record(body, value)?,
                copy: copy.open(body)?,
            },
            Self::Certify { key: of, certificate, settled, listed } => To::Certify {
                key: key(body, of)?,
                certificate: certificate.get(),
                settled: *settled,
                listed: payloads(listed),
            },
            Self::Abandon { epoch, key: of, slot, ballot } => To::Abandon {
                epoch: Epoch(epoch.to_native()),
                key: key(body, of)?,
                slot: slot.get(),
                ballot: ballot.get(),
            },
            Self::StageOpen { payload, key: of, operation, length_blocks } => To::StageOpen {
                payload: PayloadId(payload.to_native()),
                key: key(body, of)?,
                operation: OperationId(operation.to_native()),
                length_blocks: length_blocks.to_native(),
            },
            Self::StageWrite { payload: id, run, .. } => To::StageWrite {
                payload: PayloadId(id.to_native()),
                run: run.to_native(),
                buffer: SharedBuffer::from(payload.next().ok_or(Malformed("too little payload"))?),
            },
            Self::StageSeal { payload } => {
                To::StageSeal { payload: PayloadId(payload.to_native()) }
            }
            Self::StageSmall { payload, key: of, operation, shard } => To::StageSmall {
                payload: PayloadId(payload.to_native()),
                key: key(body, of)?,
                operation: OperationId(operation.to_native()),
                shard: shard.open(body)?,
            },
            Self::Discard { payload } => To::Discard { payload: PayloadId(payload.to_native()) },
            Self::Release { payload } => To::Release { payload: PayloadId(payload.to_native()) },
            Self::ReadRun { payload, first_block, blocks } => To::ReadRun {
                payload: PayloadId(payload.to_native()),
                first_block: first_block.to_native(),
                blocks: blocks.to_native(),
            },
            Self::ReadSmall { payload } => {
                To::ReadSmall { payload: PayloadId(payload.to_native()) }
            }
            Self::Holds { payloads: of } => To::Holds { payloads: payloads(of) },
            Self::DropShard { payload, key: of } => {
                To::DropShard { payload: PayloadId(payload.to_native()), key: key(body, of)? }
            }
            Self::List(list) => To::List(list.open(body)?),
            Self::Fingerprint(list) => To::Fingerprint(list.open(body)?),
            Self::Scan { after, limit } => To::Scan {
                after: after.as_ref().map(|after| key(body, after)).transpose()?,
                limit: limit.to_native(),
            },
            Self::Unsettled { after, limit } => To::Unsettled {
                after: after.as_ref().map(|after| key(body, after)).transpose()?,
                limit: limit.to_native(),
            },
            Self::Relocated { after, limit } => To::Relocated {
                after: after.as_ref().map(|after| PayloadId(after.to_native())),
                limit: limit.to_native(),
            },
            Self::Orphans { after, limit } => To::Orphans {
                after: after.as_ref().map(|after| PayloadId(after.to_native())),
                limit: limit.to_native(),
            },
            Self::CloseBucket { incarnation } => {
                To::CloseBucket { incarnation: Incarnation(incarnation.to_native()) }
            }
            Self::ReopenBucket { incarnation } => {
                To::ReopenBucket { incarnation: Incarnation(incarnation.to_native()) }
            }
            Self::InstallMap { map } => To::InstallMap { map: map.open(body)? },
            Self::Status => To::Status,
        })
    }
}

fn payloads(of: &ArchivedVec<<u128 as Archive>::Archived>) -> Vec<PayloadId> {
    of.iter().map(|payload| PayloadId(payload.to_native())).collect()
}

impl From<engine::ListRequest> for ListRequest {
    fn from(list: engine::ListRequest) -> Self {
        Self {
            prefix: pack_key(&list.prefix),
            after: list.after.map(ListAfter::from),
            delimiter: list.delimiter,
            markers: list.markers,
            limit: list.limit,
        }
    }
}

impl Open for ArchivedListRequest {
    type Meaning = engine::ListRequest;
    fn open(&self, body: &Bytes) -> Result<Self::Meaning, Malformed> {
        Ok(engine::ListRequest {
            prefix: key(body, &self.prefix)?,
            after: self.after.open(body)?,
            delimiter: self.delimiter.as_ref().map(|delimiter| bytes(body, delimiter)),
            markers: self.markers,
            limit: self.limit.to_native(),
        })
    }
}

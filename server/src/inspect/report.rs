//! The words of `basalt inspect`.

use std::fmt::Write as _;

use basalt_engine::checkpoint::Manifest;
use basalt_engine::drive::inspect::{Batch, SegmentUse, Verified};
use basalt_engine::format::Stored;
use basalt_engine::index::Place;
use basalt_engine::record::{Kind, Layout, Record};
use basalt_engine::request::{Digest, SlotDigest};
use basalt_engine::superblock::Superblock;
use basalt_engine::units::{Incarnation, Key, Keyspace, PayloadId};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::topology::capacity;

pub(super) fn superblock(superblock: &Superblock, whole_copies: usize) -> String {
    let mut out = String::new();
    let map = &superblock.map;
    let _ = writeln!(out, "drive        {}", superblock.drive);
    let _ = writeln!(out, "deployment   {}", superblock.deployment);
    let _ =
        writeln!(out, "place        set {}, position {}", superblock.set.0, superblock.position);
    let _ = writeln!(
        out,
        "superblock   sequence {}, {whole_copies} of 4 copies whole{}",
        superblock.sequence,
        if superblock.forming { ", the deployment was never fully formed" } else { "" }
    );
    let _ = writeln!(out, "epoch        {}", map.epoch.0);
    for (member, position) in map.drives.iter().zip(0..) {
        let here = if position == usize::from(superblock.position) { "  (this drive)" } else { "" };
        let vote = if member.voting { "" } else { "  without a vote" };
        let _ = writeln!(out, "  position {position:<2} {}{vote}{here}", member.drive);
    }
    out
}

pub(super) fn journal(manifest: &Manifest, batches: &[Batch]) -> String {
    let entries: usize = batches.iter().map(|batch| batch.entries.len()).sum();
    format!(
        "checkpoint   {}, in {} runs\njournal      {} batches behind it, with {entries} entries\n",
        manifest.checkpoint,
        manifest.runs.len(),
        batches.len()
    )
}

pub(super) fn segments(segments: impl Iterator<Item = SegmentUse>) -> String {
    let (mut count, mut live_bytes, mut filled_bytes) = (0u64, 0, 0);
    for segment in segments.filter(|segment| segment.filled.0 > 0) {
        count += 1;
        live_bytes += segment.live_bytes;
        filled_bytes += segment.filled.bytes();
    }
    format!(
        "segments     {count} in use, {} live of {} filled\n",
        capacity::text(live_bytes),
        capacity::text(filled_bytes)
    )
}

/// Keys by what they are.
#[derive(Default)]
pub(super) struct Keys {
    system: u64,
    objects: u64,
    uploads: u64,
    parts: u64,
    versions: u64,
    unsettled: u64,
}

impl Keys {
    pub(super) fn count(&mut self, key: &Key, digest: &Digest) {
        *match key.space() {
            Keyspace::System => &mut self.system,
            Keyspace::Objects => &mut self.objects,
            Keyspace::Uploads => &mut self.uploads,
            Keyspace::Parts => &mut self.parts,
            Keyspace::Versions => &mut self.versions,
        } += 1;
        self.unsettled += u64::from(digest.slots.iter().any(|slot| !slot.settled));
    }
}

pub(super) fn keys(keys: &Keys) -> String {
    format!(
        "keys         {} of objects (deleted ones included), {} of former versions, {} of uploads, \
         {} of parts, {} of the system\nunsettled    {} keys\n",
        keys.objects, keys.versions, keys.uploads, keys.parts, keys.system, keys.unsettled
    )
}

pub(super) fn verified(verified: &Verified) -> String {
    let mut out = format!(
        "verified     {} payloads, {} without a fault, {} corrupt\n",
        verified.payloads,
        capacity::text(verified.bytes),
        verified.faults.len()
    );
    for (payload, error) in &verified.faults {
        let _ = writeln!(out, "  payload {payload}: {error}");
    }
    out
}

/// What this drive, at `position` of its set, knows of an object. `place` finds a payload here.
pub(super) fn object(
    name: &str,
    incarnation: Incarnation,
    digest: &Digest,
    position: u8,
    place: impl Fn(PayloadId) -> Option<Place>,
) -> String {
    let mut out = format!("{name}\n  bucket incarnation {:016x}\n", incarnation.0);
    for slot in &digest.slots {
        describe_slot(&mut out, slot);
        let Some((_, record)) = &slot.accepted else { continue };
        describe_record(&mut out, record);
        for layout in record.payloads() {
            describe_payload(&mut out, &layout, position, place(layout.payload).as_ref());
        }
    }
    out
}

fn describe_slot(out: &mut String, slot: &SlotDigest) {
    let state = match (slot.settled, slot.certified, &slot.accepted) {
        (true, _, _) => "settled",
        (false, true, _) => "decided, not settled yet",
        (false, false, Some(_)) => "accepted here, not known to be decided",
        (false, false, None) => "promised only",
    };
    let _ = write!(out, "  slot {:?}: {state}", slot.slot);
    if let Some((ballot, _)) = &slot.accepted {
        let _ = write!(out, ", ballot {ballot:?}");
    }
    out.push('\n');
}

fn describe_record(out: &mut String, record: &Record) {
    let kind = match record.kind() {
        Kind::Data => "object",
        Kind::Tombstone => "tombstone",
        Kind::Relocated => "relocated payload",
        Kind::Lost => "lost object",
        Kind::Marker => "delete marker",
        Kind::Removed => "removal of the version before",
    };
    let _ = writeln!(
        out,
        "    {kind} of {} bytes, modified {}\n    etag {}\n    version {}, operation {}",
        record.size(),
        date(record.modified_ms()),
        record.etag(),
        record.version(),
        record.operation()
    );
    if let Some(lineage) = record.lineage() {
        let which = if lineage.is_null { "null version" } else { "version with an id" };
        let keeps = if lineage.keeps_predecessor { ", its predecessor is kept" } else { "" };
        let _ = writeln!(out, "    {which}{keeps}");
    }
}

fn describe_payload(out: &mut String, layout: &Layout, position: u8, place: Option<&Place>) {
    let shape = match layout.codec {
        0 => format!("{} copies", layout.shards()),
        codec => format!("{} + {} shards, codec {codec}", layout.data_shards, layout.parity_shards),
    };
    let _ = writeln!(
        out,
        "    payload {}: {} bytes in {shape}, order {:?}",
        layout.payload,
        layout.bytes,
        &layout.order[..layout.shards()]
    );
    let shard = match layout.shard_of(position) {
        Some(shard) => format!("shard {shard}"),
        None => "no shard belongs here".to_owned(),
    };
    let place = match place {
        None => "not here".to_owned(),
        Some(Place::Journal { bytes, .. }) => format!("{} bytes in the journal", bytes.len()),
        Some(Place::Stored(Stored::Packed { at, offset, bytes, .. })) => {
            format!("{bytes} bytes at {at:?} + {offset}")
        }
        Some(Place::Stored(Stored::Runs { data_blocks, extents })) => {
            let extents: Vec<String> = extents
                .iter()
                .map(|extent| format!("{:?} + {}", extent.start, extent.length.0))
                .collect();
            format!("{data_blocks} blocks in {}", extents.join(", "))
        }
    };
    let _ = writeln!(out, "      {shard}: {place}");
}

fn date(ms: u64) -> String {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000)
        .ok()
        .and_then(|moment| moment.format(&Rfc3339).ok())
        .unwrap_or_else(|| format!("{ms} ms after 1970"))
}

#[cfg(test)]
mod tests {
    use basalt_engine::record::{Etag, Fields, PayloadForm};
    use basalt_engine::units::{Ballot, OperationId, Slot, VersionId};
    use bytes::Bytes;

    use super::*;

    fn record() -> Record {
        let mut order = [0; 16];
        order[..4].copy_from_slice(&[2, 3, 0, 1]);
        Record::encode(&Fields {
            operation: OperationId(1),
            version: VersionId(2),
            kind: Kind::Data,
            class: 0,
            incarnation: Incarnation(0xabc),
            lineage: None,
            modified_ms: 1_700_000_000_000,
            size: 12_345,
            etag: Etag::default(),
            form: PayloadForm::Inline,
            payloads: vec![Layout {
                payload: PayloadId(7),
                bytes: 12_345,
                codec: 1,
                data_shards: 2,
                parity_shards: 2,
                unit_bytes: 4096,
                set: 0,
                part: 0,
                order,
            }],
            checksums: Bytes::new(),
            metadata: Bytes::new(),
        })
    }

    fn slot(certified: bool, settled: bool) -> SlotDigest {
        SlotDigest {
            slot: Slot { generation: 0, sequence: 3 },
            promised: Ballot::FAST,
            accepted: Some((Ballot::FAST, record())),
            certified,
            settled,
            has_shards: true,
        }
    }

    #[test]
    fn an_object() {
        let digest = Digest { slots: smallvec::smallvec![slot(true, false)], ..Digest::default() };
        let packed = Stored::Packed {
            checksum: 0,
            at: basalt_engine::units::BlockIndex(900),
            offset: 16,
            bytes: 6208,
        };
        let text = object("photos/a.jpg", Incarnation(0xabc), &digest, 3, |payload| {
            (payload == PayloadId(7)).then(|| Place::Stored(packed.clone()))
        });
        for expected in [
            "photos/a.jpg\n  bucket incarnation 0000000000000abc\n",
            "slot 0.3: decided, not settled yet, ballot b0/0\n",
            "object of 12345 bytes, modified 2023-11-14T22:13:20Z\n",
            "2 + 2 shards, codec 1, order [2, 3, 0, 1]\n",
            "shard 1: 6208 bytes at block 900 + 16\n",
        ] {
            assert!(text.contains(expected), "no {expected:?} in\n{text}");
        }
        let elsewhere = object("x", Incarnation(1), &digest, 3, |_| None);
        assert!(elsewhere.contains("shard 1: not here"), "{elsewhere}");
    }

    #[test]
    fn keys_are_counted_by_what_they_are() {
        let mut counted = Keys::default();
        let unsettled =
            Digest { slots: smallvec::smallvec![slot(true, false)], ..Digest::default() };
        let settled = Digest { slots: smallvec::smallvec![slot(true, true)], ..Digest::default() };
        counted.count(&Key::new(Keyspace::Objects, Incarnation(1), b"a"), &unsettled);
        counted.count(&Key::new(Keyspace::Objects, Incarnation(1), b"b"), &settled);
        counted.count(&Key::new(Keyspace::System, Incarnation(0), b"bucket/x"), &settled);
        let text = keys(&counted);
        assert!(text.starts_with("keys         2 of objects"), "{text}");
        assert!(text.contains("1 of the system\nunsettled    1 keys\n"), "{text}");
    }

    #[test]
    fn faults_are_listed() {
        let error = basalt_engine::Error::Unavailable { reason: "test" };
        let text =
            verified(&Verified { payloads: 3, bytes: 2048, faults: vec![(PayloadId(9), error)] });
        assert!(text.contains("3 payloads, 2 KiB without a fault, 1 corrupt\n"), "{text}");
        assert!(text.contains("000000000009: "), "{text}");
    }
}

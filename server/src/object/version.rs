//! Versions of a key: how they are named towards clients and on drives, and what a record says of
//! them. `docs/protocol.md`, "Versions", says why it is so.
//!
//! A version that is not the head of its key any more is archived: a key of its own, next to the
//! object's on the same set, whose slot (s, 1) is by definition the record that was decided in slot s
//! of the object's key.

use basalt_engine::record::{Kind, Lineage, Record};
use basalt_engine::request::Certificate;
use basalt_engine::units::{Key, Keyspace, OperationId, Slot, VersionId};
use basalt_net::reader::Head;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Names one version of a key towards clients.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VersionName {
    /// The version that was written while none got an id.
    Null,
    Id {
        /// In which the version was first decided.
        slot: Slot,
        version: VersionId,
    },
}

/// Bytes of an id before it becomes text.
const ID_BYTES: usize = 24;

impl VersionName {
    /// The version that `text` names; `None` if it can be no name.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "null" {
            return Some(Self::Null);
        }
        let bytes: [u8; ID_BYTES] = BASE64.decode(text).ok()?.try_into().ok()?;
        let mut bytes = &bytes[..];
        let slot = Slot { generation: bytes.get_u32(), sequence: bytes.get_u32() };
        Some(Self::Id { slot, version: VersionId(bytes.get_u128()) })
    }
}

impl std::fmt::Display for VersionName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self::Id { slot, version } = self else { return f.write_str("null") };
        let mut bytes = Vec::with_capacity(ID_BYTES);
        bytes.put_u32(slot.generation);
        bytes.put_u32(slot.sequence);
        bytes.put_u128(version.0);
        f.write_str(&BASE64.encode(bytes))
    }
}

/// Which of a key's versions, as drives tell them apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Which {
    Null,
    /// The one that was first decided in this slot.
    Of(Slot),
}

impl Which {
    /// The version that `record`, decided in `slot` of its object's key, is or describes anew.
    pub(super) fn of(slot: Slot, record: &Record) -> Self {
        match is_null(record) {
            true => Self::Null,
            false => Self::Of(record.lineage().and_then(|lineage| lineage.origin).unwrap_or(slot)),
        }
    }

    pub(super) fn name(self, record: &Record) -> VersionName {
        match self {
            Self::Null => VersionName::Null,
            Self::Of(slot) => VersionName::Id { slot, version: record.version() },
        }
    }

    /// The lineage of a record that describes the version anew.
    pub(super) fn described_anew(self, lineage: Lineage) -> Lineage {
        let origin = match self {
            Self::Null => None,
            Self::Of(slot) => Some(slot),
        };
        Lineage { keeps_predecessor: false, origin, ..lineage }
    }

    /// The key under which the version is archived, for the object's key `object`. No name of an object
    /// holds a zero byte, so archives are in order of objects, then the null version, then the newest
    /// first.
    pub(super) fn archive(self, object: &Key) -> Key {
        let mut name = BytesMut::from(archives_of(object).name());
        match self {
            Self::Null => name.put_u64(0),
            Self::Of(slot) => {
                name.put_u32(!slot.generation);
                name.put_u32(!slot.sequence);
            }
        }
        Key::new(Keyspace::Versions, object.bucket(), &name)
    }
}

/// What the keys of all archives of the key `object` begin with.
pub(super) fn archives_of(object: &Key) -> Key {
    Key::new(Keyspace::Versions, object.bucket(), &[object.name(), &[0]].concat())
}

/// The object's key and the version that an archive's key stands for.
pub(crate) fn archived_in(archive: &Key) -> Option<(Key, Which)> {
    let name = archive.name();
    let end = name.iter().position(|byte| *byte == 0)?;
    let bytes: [u8; 8] = name[end + 1..].try_into().ok()?;
    let mut bytes = &bytes[..];
    let (generation, sequence) = (bytes.get_u32(), bytes.get_u32());
    let which = match (generation, sequence) {
        (0, 0) => Which::Null,
        _ => Which::Of(Slot { generation: !generation, sequence: !sequence }),
    };
    Some((Key::new(Keyspace::Objects, archive.bucket(), &name[..end]), which))
}

/// The slot of an archive that holds what was decided in `slot` of the object's key.
pub(super) fn archive_slot(slot: Slot) -> Slot {
    Slot::first(slot.sequence)
}

/// Whether a version has no id: it was written while none got one.
pub(super) fn is_null(record: &Record) -> bool {
    record.lineage().is_none_or(|lineage| lineage.is_null)
}

/// Whether what `head` says has to be archived before a new version comes into the next slot. A
/// tombstone without a lineage stands for the null version that it ended: it is archived so that
/// nobody finds an older one.
pub(super) fn must_be_kept(head: &Record, own_is_null: bool) -> bool {
    match head.kind() {
        Kind::Data | Kind::Lost | Kind::Marker => !(own_is_null && is_null(head)),
        Kind::Tombstone => head.lineage().is_none() && !own_is_null,
        Kind::Relocated | Kind::Removed => false,
    }
}

/// What a record of kind `Removed` says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Removal {
    pub which: Which,
    /// What the tombstone in the archive of the removed version follows.
    pub at: Certificate,
    /// The version that is current now.
    pub current: Option<Which>,
}

const HAS_CURRENT: u8 = 1;
const IS_NULL: u8 = 2;
const CURRENT_IS_NULL: u8 = 4;

impl Removal {
    /// The removal of the version at the head of its key.
    pub(super) fn of_head((slot, record): &Head, current: Option<Which>) -> Self {
        let at = Certificate { slot: archive_slot(*slot), operation: record.operation() };
        Self { which: Which::of(*slot, record), at, current }
    }

    pub(super) fn encode(self) -> Bytes {
        let slot = |which: Option<Which>| match which {
            Some(Which::Of(slot)) => slot,
            Some(Which::Null) | None => Slot::default(),
        };
        let is_null = |which, flag| if which == Some(Which::Null) { flag } else { 0 };
        let flags = is_null(Some(self.which), IS_NULL)
            | is_null(self.current, CURRENT_IS_NULL)
            | if self.current.is_some() { HAS_CURRENT } else { 0 };
        let mut out = BytesMut::new();
        out.put_u8(flags);
        for slot in [slot(Some(self.which)), self.at.slot] {
            out.put_u32_le(slot.generation);
            out.put_u32_le(slot.sequence);
        }
        out.put_u128_le(self.at.operation.0);
        let current = slot(self.current);
        out.put_u32_le(current.generation);
        out.put_u32_le(current.sequence);
        out.freeze()
    }

    /// `None` if the record is of another kind, or of none that is known here.
    pub(super) fn of(record: &Record) -> Option<Self> {
        let mut bytes = record.metadata();
        if record.kind() != Kind::Removed || bytes.remaining() != 41 {
            return None;
        }
        let flags = bytes.get_u8();
        let slot = |bytes: &mut Bytes| Slot {
            generation: bytes.get_u32_le(),
            sequence: bytes.get_u32_le(),
        };
        let which = |slot, flag| if flags & flag != 0 { Which::Null } else { Which::Of(slot) };
        let removed = which(slot(&mut bytes), IS_NULL);
        let slot_at = slot(&mut bytes);
        let at = Certificate { slot: slot_at, operation: OperationId(bytes.get_u128_le()) };
        let current = which(slot(&mut bytes), CURRENT_IS_NULL);
        let current = (flags & HAS_CURRENT != 0).then_some(current);
        Some(Self { which: removed, at, current })
    }
}

#[cfg(test)]
mod tests {
    use basalt_engine::units::Incarnation;

    use super::*;

    const SLOT: Slot = Slot { generation: 1, sequence: 258 };

    fn object(name: &str) -> Key {
        Key::new(Keyspace::Objects, Incarnation(3), name.as_bytes())
    }

    #[test]
    fn names_are_read_back_and_others_refused() {
        let id = VersionName::Id { slot: SLOT, version: VersionId(7 << 90 | 1) };
        assert_eq!(VersionName::parse(&id.to_string()), Some(id));
        assert_eq!(id.to_string().len(), 32);
        assert_eq!(VersionName::parse("null"), Some(VersionName::Null));
        for text in ["", "x", "NULL", &"a".repeat(31), &"a".repeat(33), &"=".repeat(32)] {
            assert_eq!(VersionName::parse(text), None, "{text}");
        }
    }

    #[test]
    fn archives_are_in_order_of_objects_then_newest_first() {
        let at = |sequence| Which::Of(Slot { generation: 1, sequence });
        let names = ["a", "a\u{1}", "a!", "ab"];
        let versions = [Which::Null, at(300), at(2), at(1)];
        let all: Vec<(Key, Which)> = names
            .iter()
            .flat_map(|name| versions.iter().map(|version| (object(name), *version)))
            .collect();
        let keys: Vec<Key> = all.iter().map(|(object, which)| which.archive(object)).collect();
        assert!(keys.is_sorted());
        for (key, expected) in keys.iter().zip(all) {
            assert!(key.as_bytes().starts_with(archives_of(&expected.0).as_bytes()));
            assert_eq!(archived_in(key), Some(expected));
        }
        assert_eq!(archived_in(&object("a")), None);
    }

    #[test]
    fn a_removal_comes_back() {
        let at = Certificate { slot: archive_slot(SLOT), operation: OperationId(5 << 100) };
        for which in [Which::Null, Which::Of(SLOT)] {
            for current in [None, Some(Which::Null), Some(Which::Of(SLOT))] {
                let removal = Removal { which, at, current };
                let record = crate::object::delete::blank(Kind::Removed, OperationId(1), 0)
                    .with_metadata(removal.encode());
                assert_eq!(Removal::of(&record), Some(removal));
            }
        }
    }
}

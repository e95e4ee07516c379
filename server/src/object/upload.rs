//! A multipart upload as it is kept: its keys, and what its register holds.
//!
//! The register stands next to the object's key on the same set, each part has a key of its own.
//! Their names begin with the object's, a zero byte (no name has one) and the upload id, whose
//! first bytes tell when the upload began: keys of uploads are in order of name, then of time.

use basalt_engine::record::Record;
use basalt_engine::request::Certificate;
use basalt_engine::seam::Runtime;
use basalt_engine::units::{Incarnation, Key, Keyspace, OperationId, Slot};
use basalt_net::mailbox::Mailbox;
use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::api::{Algorithm, Condition, StorageClass, UploadChecksum, Versioning};
use super::error::{Error, Result};
use super::register::{KeyRead, Write};
use super::store::{Place, Store};

const ID_BYTES: usize = 16;
/// Bits of an upload id that are chance; those above are milliseconds since 1970.
const ID_CHANCE_BITS: u32 = 80;

/// What an upload's record holds.
#[derive(Clone, Debug)]
pub(super) struct Upload {
    pub state: State,
    pub class: StorageClass,
    pub checksum: Option<UploadChecksum>,
    /// The metadata and tags of the object to be, as its record will hold them.
    pub attributes: Bytes,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum State {
    Open,
    /// The object's record, decided or about to be, and the head that it follows. It may stand in the
    /// slot after that and in no other, so whoever completes again proposes the very same there, or
    /// learns who won it. If that is another, a new record takes its place here first.
    Completing(Record, Option<Certificate>),
    /// The object's record, and the slot in which it was decided.
    Completed(Record, Slot),
}

impl Upload {
    /// State (u8), class (u8), algorithm (u8, 0: none), composite (u8), record length (u32), base
    /// (slot: generation u32, sequence u32, 0.0: the key was absent; operation u128), then the
    /// record, or the attributes while there is none. What is completed has its slot in the place of the
    /// base's.
    pub(super) fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        let (state, record, base) = match &self.state {
            State::Open => (1, None, None),
            State::Completing(record, base) => (2, Some(record), *base),
            State::Completed(record, slot) => {
                (3, Some(record), Some(Certificate { slot: *slot, operation: OperationId(0) }))
            }
        };
        let none = Certificate { slot: Slot::default(), operation: OperationId(0) };
        let base = base.unwrap_or(none);
        let record: &[u8] = record.map_or(&[], |record| record.bytes());
        out.put_u8(state);
        out.put_u8(self.class as u8);
        out.put_u8(self.checksum.map_or(0, |checksum| checksum.algorithm as u8));
        out.put_u8(u8::from(self.checksum.is_some_and(|checksum| checksum.composite)));
        out.put_u32_le(u32::try_from(record.len()).expect("records are short"));
        out.put_u32_le(base.slot.generation);
        out.put_u32_le(base.slot.sequence);
        out.put_u128_le(base.operation.0);
        out.put_slice(record);
        if self.state == State::Open {
            out.put_slice(&self.attributes);
        }
        out.freeze()
    }

    pub(super) fn of(record: &Record) -> Option<Self> {
        let mut bytes = record.metadata();
        if bytes.remaining() < 32 {
            return None;
        }
        let state = bytes.get_u8();
        let class = StorageClass::from_stored(bytes.get_u8());
        let number = bytes.get_u8();
        let composite = bytes.get_u8() == 1;
        let checksum = Algorithm::ALL
            .into_iter()
            .find(|algorithm| *algorithm as u8 == number)
            .map(|algorithm| UploadChecksum { algorithm, composite });
        let length = bytes.get_u32_le() as usize;
        let slot = Slot { generation: bytes.get_u32_le(), sequence: bytes.get_u32_le() };
        let base = Certificate { slot, operation: OperationId(bytes.get_u128_le()) };
        let base = Some(base).filter(|base| base.slot != Slot::default());
        if bytes.remaining() < length {
            return None;
        }
        let object = bytes.split_to(length);
        let (state, attributes) = match state {
            1 => (State::Open, bytes),
            2 | 3 => {
                let object = Record::decode(object).ok()?;
                let attributes = object.metadata();
                let is_completed = state == 3;
                let state = match is_completed {
                    true => State::Completed(object, slot),
                    false => State::Completing(object, base),
                };
                (state, attributes)
            }
            _ => return None,
        };
        Some(Self { state, class, checksum, attributes })
    }
}

/// Everything that names one upload.
#[derive(Clone)]
pub(super) struct UploadPlace {
    pub place: Place,
    pub incarnation: Incarnation,
    /// Of the bucket, where a request named it; who only ends uploads makes no versions.
    pub versioning: Versioning,
    pub object: Key,
    pub upload: Key,
    /// Parts' keys begin with this.
    pub parts: Key,
}

impl UploadPlace {
    pub(super) fn new(place: Place, incarnation: Incarnation, key: &[u8], id: u128) -> Self {
        let name = [key, &[0], &id.to_be_bytes()[..]].concat();
        Self {
            place,
            incarnation,
            versioning: Versioning::Unset,
            object: Key::new(Keyspace::Objects, incarnation, key),
            upload: Key::new(Keyspace::Uploads, incarnation, &name),
            parts: Key::new(Keyspace::Parts, incarnation, &name),
        }
    }

    /// The name of a part's key: that of the upload's, then the part number (2 bytes, big-endian).
    pub(super) fn part(&self, number: u32) -> Key {
        let number = u16::try_from(number).expect("part numbers are checked").to_be_bytes();
        Key::new(Keyspace::Parts, self.incarnation, &[self.parts.name(), &number].concat())
    }

    pub(super) fn part_number(&self, key: &Key) -> u32 {
        let number = &key.name()[self.parts.name().len()..];
        u32::from(u16::from_be_bytes(number.try_into().expect("two bytes follow the prefix")))
    }
}

/// What every key of any upload to the object `key` begins with, in the keyspace of uploads.
pub(super) fn uploads_of(incarnation: Incarnation, key: &[u8]) -> Key {
    Key::new(Keyspace::Uploads, incarnation, &[key, &[0]].concat())
}

/// The object's name and the upload id in the name of an upload's key, or at the beginning of a
/// part's.
pub(super) fn names_in(name: &[u8]) -> Option<(&[u8], u128)> {
    let end = name.iter().position(|byte| *byte == 0)?;
    let id = name.get(end + 1..end + 1 + ID_BYTES)?;
    Some((&name[..end], u128::from_be_bytes(id.try_into().expect("sixteen bytes"))))
}

/// The key of the object that an upload's key, or a part's, belongs to.
pub(super) fn object_key(key: &Key) -> Option<Key> {
    let (name, _) = names_in(key.name())?;
    Some(Key::new(Keyspace::Objects, key.bucket(), name))
}

/// The key of the upload that an upload's key, or a part's, belongs to.
pub(super) fn upload_key(key: &Key) -> Option<Key> {
    let (name, _) = names_in(key.name())?;
    let name = &key.name()[..name.len() + 1 + ID_BYTES];
    Some(Key::new(Keyspace::Uploads, key.bucket(), name))
}

pub(super) fn new_id(wall_ms: u64, chance: u128) -> u128 {
    u128::from(wall_ms) << ID_CHANCE_BITS | chance & ((1 << ID_CHANCE_BITS) - 1)
}

pub(super) fn id_text(id: u128) -> String {
    format!("{id:032x}")
}

pub(super) fn parse_id(id: &str) -> Result<u128> {
    let valid = id.len() == 32 && id.bytes().all(|digit| digit.is_ascii_hexdigit());
    let parsed = if valid { u128::from_str_radix(id, 16).ok() } else { None };
    parsed.ok_or(Error::NoSuchUpload)
}

impl<M: Mailbox, R: Runtime> Store<M, R> {
    pub(super) async fn upload_place(
        &self,
        bucket: &str,
        key: &Bytes,
        id: u128,
    ) -> Result<UploadPlace> {
        let found = self.bucket(bucket).await?;
        let names = UploadPlace::new(self.place(bucket, key), found.incarnation, key, id);
        Ok(UploadPlace { versioning: found.versioning, ..names })
    }

    pub(super) async fn upload_value(&self, names: &UploadPlace) -> Result<(KeyRead, Upload)> {
        let read = self.read_key(names.place.set, &names.upload).await?;
        let upload = read.live().and_then(Upload::of).ok_or(Error::NoSuchUpload)?;
        Ok((read, upload))
    }

    pub(super) async fn open_upload(&self, names: &UploadPlace) -> Result<(KeyRead, Upload)> {
        let (read, upload) = self.upload_value(names).await?;
        if upload.state == State::Open { Ok((read, upload)) } else { Err(Error::NoSuchUpload) }
    }

    pub(super) async fn write_upload(
        &self,
        names: &UploadPlace,
        before: &KeyRead,
        upload: &Upload,
    ) -> Result<()> {
        let record = self.system_record(upload.encode());
        let condition = before.condition();
        let write = Write::staged(names.upload.clone(), record, condition, before, None);
        self.write_key(names.place.set, write).await.map_err(lost_race)
    }

    /// Ends the upload's register, unless somebody else changed it since `before`.
    pub(super) async fn end_upload(&self, names: &UploadPlace, before: &KeyRead) -> Result<()> {
        let (key, condition): (Key, Condition) = (names.upload.clone(), before.condition());
        let write = Write::tombstone(key, self.tombstone(), condition, before);
        self.write_key(names.place.set, write).await.map_err(lost_race)
    }
}

/// Somebody else completed or aborted the upload in between.
pub(super) fn lost_race(error: Error) -> Error {
    match error {
        Error::PreconditionFailed | Error::NoSuchKey => Error::Conflict,
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_ordered_by_time_and_read_back() {
        let (one, two) = (new_id(1_000, u128::MAX), new_id(1_001, 0));
        assert!(one < two);
        assert_eq!(parse_id(&id_text(one)), Ok(one));
        for text in ["", "x", &"0".repeat(31), &"g".repeat(32), &"0".repeat(33)] {
            assert_eq!(parse_id(text), Err(Error::NoSuchUpload), "{text}");
        }
    }

    #[test]
    fn names_are_found_in_keys() {
        let place = Place {
            set: basalt_engine::units::SetIndex(0),
            first_drive: basalt_engine::units::DriveIndex(0),
        };
        let names = UploadPlace::new(place, Incarnation(3), b"a/b", 0x0102 << 64);
        assert_eq!(names_in(names.upload.name()), Some((&b"a/b"[..], 0x0102 << 64)));
        assert_eq!(names_in(names.part(258).name()), Some((&b"a/b"[..], 0x0102 << 64)));
        assert_eq!(names.part_number(&names.part(258)), 258);
        assert!(names.upload.as_bytes().starts_with(uploads_of(Incarnation(3), b"a/b").as_bytes()));
        assert_eq!(names_in(b"a/b"), None);
    }
}

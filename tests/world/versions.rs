//! What clients do to the versions of a bucket that keeps them, and what has to be true of it: a version
//! whose write was acknowledged can be read by its id, with its bytes, and is listed, until it is removed;
//! versions of a key are listed in the order in which they were written; a write goes by the versioning
//! that the bucket has while it runs.
//!
//! Each version is a register of its own, which its write sets and its removal clears. A write whose
//! outcome is unknown has no id; where its version shows up all the same, it is told by its ETag.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use basalt_engine::seam::{Clock, Moment};
use basalt_server::object::{
    Body, Condition, Deletion, Error, ListVersions, ListedVersion, Span, VersionName, Versioning,
};
use bytes::{Bytes, BytesMut};

use super::clients::{Answer, BUCKETS, Client, Name};
use super::history::{Need, Register};

/// The bucket that keeps versions.
pub const KEEPS: usize = 2;
/// Keys of which versions are removed; what is current there is not followed.
const REMOVED_FROM: [&[u8]; 3] = [b"r", b"r\x01", b"r/a"];
/// Whether what is current in the key is not followed, because versions are removed.
pub fn is_removed_from(name: &Name) -> bool {
    matches!(name, Name::Key(KEEPS, key) if REMOVED_FROM.contains(&&key[..]))
}

/// In the place of a delete marker's ETag.
const MARKER: &str = "marker";

/// Everything that was seen of versions.
#[derive(Default)]
pub struct Versions {
    writes: RefCell<Vec<Write>>,
    reads: RefCell<Vec<Read>>,
    listings: RefCell<Vec<Listing>>,
}

struct Write {
    key: Bytes,
    value: u16,
    start: Moment,
    /// When it was acknowledged, and the version.
    done: Option<(Moment, VersionName)>,
}

/// A read of one version, or its removal.
struct Read {
    key: Bytes,
    version: VersionName,
    start: Moment,
    end: Option<Moment>,
    /// What was found; a removal finds nothing out.
    found: Option<Option<u16>>,
    client: String,
}

struct Listing {
    start: Moment,
    end: Moment,
    prefix: Bytes,
    found: Vec<Listed>,
    client: String,
}

#[derive(Clone, Debug)]
struct Listed {
    key: Bytes,
    version: VersionName,
    value: u16,
    is_latest: bool,
}

impl Versions {
    /// One register for each version that anybody has seen.
    pub fn registers(&self) -> Vec<(Name, Register)> {
        let (writes, reads) = (self.writes.borrow(), self.reads.borrow());
        let listings = self.listings.borrow();
        let mut seen: BTreeMap<(Bytes, String), (VersionName, Option<u16>)> = BTreeMap::new();
        let mut see = |key: &Bytes, version: VersionName, value: Option<u16>| {
            let entry = seen.entry((key.clone(), version.to_string())).or_insert((version, value));
            entry.1 = entry.1.or(value);
        };
        for write in writes.iter() {
            if let Some((_, version)) = write.done {
                see(&write.key, version, Some(write.value));
            }
        }
        reads.iter().for_each(|read| see(&read.key, read.version, read.found.flatten()));
        for listing in listings.iter() {
            listing.found.iter().for_each(|one| see(&one.key, one.version, Some(one.value)));
        }
        seen.into_iter()
            .filter(|(_, (version, _))| *version != VersionName::Null)
            .map(|((key, id), (version, value))| {
                let mut register = Register::default();
                // Without a value nobody ever found it.
                if let Some(value) = value {
                    let (start, end) = write_of(&writes, &key, version, value);
                    let client = format!("written {:?}", value);
                    register.write(start, end, Need::Is(None), Some(value), client);
                }
                for read in reads.iter().filter(|read| read.key == key && read.version == version) {
                    let client = read.client.clone();
                    match (read.found, read.end) {
                        (Some(found), Some(end)) => {
                            register.read(read.start, end, Need::Is(found), client);
                        }
                        _ => register.write(read.start, read.end, Need::Anything, None, client),
                    }
                }
                for listing in listings.iter().filter(|one| key.starts_with(&one.prefix)) {
                    let found =
                        listing.found.iter().find(|one| one.key == key && one.version == version);
                    let need = Need::Is(found.map(|one| one.value));
                    register.read(listing.start, listing.end, need, listing.client.clone());
                }
                (Name::Version(key, id), register)
            })
            .collect()
    }

    /// Versions of a key are listed in the order in which they were written, where that is certain.
    pub fn check_order(&self) {
        let writes = self.writes.borrow();
        let known = |key: &Bytes, version: VersionName| {
            let mut done = writes.iter().filter(|write| write.key == *key);
            done.find_map(|write| {
                let (end, name) = write.done?;
                (name == version).then_some((write.start, end))
            })
        };
        for listing in self.listings.borrow().iter() {
            for two in listing.found.windows(2) {
                let (key, newer, older) = (&two[0].key, two[0].version, two[1].version);
                if *key != two[1].key || [newer, older].contains(&VersionName::Null) {
                    continue;
                }
                if let (Some((_, newer_end)), Some((older_start, _))) =
                    (known(key, newer), known(key, older))
                {
                    assert!(newer_end > older_start, "{key:?}: {newer} is listed before {older}");
                }
            }
        }
    }

    fn known(&self) -> Vec<(Bytes, VersionName)> {
        let writes = self.writes.borrow();
        let done = writes.iter().filter_map(|write| Some((write.key.clone(), write.done?.1)));
        done.filter(|(_, version)| *version != VersionName::Null).collect()
    }
}

/// When the version was written: by the write that was told its id, or by one that never was.
fn write_of(
    writes: &[Write],
    key: &Bytes,
    version: VersionName,
    value: u16,
) -> (Moment, Option<Moment>) {
    let of_value = || writes.iter().filter(|write| write.key == *key && write.value == value);
    let told = |write: &&Write| write.done.is_some_and(|(_, name)| name == version);
    match of_value().find(told) {
        Some(write) => (write.start, write.done.map(|(end, _)| end)),
        None => {
            let open = of_value().filter(|write| write.done.is_none());
            let start = open.map(|write| write.start).min();
            (start.unwrap_or_else(|| panic!("nobody wrote {version} of {key:?}")), None)
        }
    }
}

impl Client {
    pub(super) async fn operate_on_versions(&mut self) {
        let key = Bytes::from_static(REMOVED_FROM[self.prng.index(REMOVED_FROM.len())]);
        match self.prng.below(20) {
            0..6 => self.put(KEEPS, key, false).await,
            6..8 => self.delete(KEEPS, key).await,
            8..12 => self.get_version().await,
            12..16 => self.remove_version(key).await,
            16 => self.multipart(KEEPS, key).await,
            17 => self.change_versioning().await,
            _ => {
                let prefix = [&b""[..], b"r", b"a", b"r/"][self.prng.index(4)];
                drop(self.list_versions(prefix).await);
            }
        }
    }

    /// Notes what became of a write of a new version or delete marker. `name`: as it was acknowledged.
    pub(super) fn note_version(
        &mut self,
        key: &Bytes,
        start: Moment,
        value: Option<u16>,
        name: Option<VersionName>,
    ) {
        let value = value.unwrap_or_else(|| self.shared.value(MARKER, None));
        let end = self.runtime.now();
        if let Some(name) = name {
            let gets_id = name != VersionName::Null;
            let need = Need::Is(Some(u16::from(gets_id)));
            let client = format!("client {} writes {name} of {key:?}", self.number);
            self.shared.with(&Name::Versioning, |r| r.read(start, end, need, client));
        }
        let done = name.map(|name| (end, name));
        let write = Write { key: key.clone(), value, start, done };
        self.shared.versions.writes.borrow_mut().push(write);
    }

    async fn change_versioning(&mut self) {
        let versioning = match self.prng.coin() {
            true => Versioning::Enabled,
            false => Versioning::Suspended,
        };
        let client = format!("client {} sets {versioning:?}", self.number);
        let (start, answer) = self
            .ask(move |store| async move { store.set_versioning(BUCKETS[KEEPS], versioning).await })
            .await;
        let end = matches!(answer, Answer::Done(Ok(()))).then(|| self.runtime.now());
        let value = Some(u16::from(versioning == Versioning::Enabled));
        self.shared.with(&Name::Versioning, |r| r.write(start, end, Need::Anything, value, client));
    }

    async fn get_version(&mut self) {
        let known = self.shared.versions.known();
        if known.is_empty() {
            return;
        }
        let (key, version) = known[self.prng.index(known.len())].clone();
        let _ = self.get_this_version(key, version).await;
    }

    /// Answers whether there was an answer.
    async fn get_this_version(&mut self, key: Bytes, version: VersionName) -> bool {
        let name = key.clone();
        let (start, answer) = self
            .ask(move |store| async move {
                let select = |info: &basalt_server::object::ObjectInfo| {
                    Some(Span { start: 0, end: info.size })
                };
                let bucket = BUCKETS[KEEPS];
                let (info, body) = match store.get(bucket, &name, Some(version), select).await {
                    Ok((info, body)) => (info, body.expect("a span was asked for")),
                    Err(Error::IsMarker { .. }) => return Ok(Some((MARKER.to_owned(), None))),
                    Err(Error::NoSuchVersion) => return Ok(None),
                    Err(error) => return Err(error),
                };
                assert_eq!(info.version, Some(version), "the version that was asked for");
                let (mut bytes, mut body) = (BytesMut::new(), body);
                while let Some(piece) = body.next().await? {
                    bytes.extend_from_slice(&piece);
                }
                let span = Span { start: 0, end: info.size };
                Ok(Some((info.etag.to_string(), Some((info.size, span, bytes.freeze())))))
            })
            .await;
        let found = match answer {
            Answer::Done(Ok(found)) => found,
            // It was never acknowledged: the judge knows.
            Answer::Done(Err(Error::Lost { .. })) => return true,
            Answer::Done(Err(_)) | Answer::Lost => return false,
        };
        let found = found.map(|(etag, body)| {
            let value = self.shared.value(&etag, None);
            if let Some((size, span, bytes)) = body {
                self.check_body(value, size, Some((span, bytes, Ok(()))));
            }
            value
        });
        self.note_read(key, version, start, true, Some(found), "reads");
        true
    }

    async fn remove_version(&mut self, key: Bytes) {
        let known = self.shared.versions.known();
        let known: Vec<_> = known.into_iter().filter(|(of, _)| *of == key).collect();
        let version = match known.len() {
            0 => VersionName::Null,
            _ if self.prng.below(8) == 0 => VersionName::Null,
            // The newest ones most of the time: those are current.
            count => known[count - 1 - self.prng.index(count.min(3))].1,
        };
        let deletion =
            Deletion { key: key.clone(), version: Some(version), condition: Condition::None };
        let (start, answer) = self
            .ask(move |store| async move { store.delete(BUCKETS[KEEPS], &deletion).await })
            .await;
        match answer {
            Answer::Done(Ok(_)) => self.note_read(key, version, start, true, None, "removes"),
            Answer::Lost | Answer::Done(Err(Error::Unknown { .. })) => {
                self.note_read(key, version, start, false, None, "removes");
            }
            Answer::Done(Err(_)) => {}
        }
    }

    fn note_read(
        &mut self,
        key: Bytes,
        version: VersionName,
        start: Moment,
        ended: bool,
        found: Option<Option<u16>>,
        what: &str,
    ) {
        let end = ended.then(|| self.runtime.now());
        let client = format!("client {} {what} {version} of {key:?}", self.number);
        let read = Read { key, version, start, end, found, client };
        self.shared.versions.reads.borrow_mut().push(read);
    }

    /// Lists all versions under a prefix, page by page.
    async fn list_versions(&mut self, prefix: &'static [u8]) -> Option<Vec<Listed>> {
        let limit = 1 + self.prng.below(6) as u32;
        let (start, answer) = self
            .ask(move |store| async move {
                let (mut after, mut listed) = (None, Vec::new());
                loop {
                    let list = ListVersions {
                        bucket: BUCKETS[KEEPS].to_owned(),
                        prefix: Bytes::from_static(prefix),
                        delimiter: None,
                        after: after.take(),
                        limit,
                    };
                    let listing = store.list_versions(list).await?;
                    assert!(listing.entries.len() <= limit as usize);
                    listed.extend(listing.entries);
                    match listing.next {
                        Some(next) => after = Some(next),
                        None => return Ok(listed),
                    }
                }
            })
            .await;
        let Answer::Done(Ok(listed)) = answer else { return None };
        let end = self.runtime.now();
        let mut found = Vec::new();
        for entry in listed {
            let ListedVersion::Version { object, name, is_latest, is_marker } = entry else {
                panic!("no delimiter was given")
            };
            let etag = if is_marker { MARKER.to_owned() } else { object.etag.to_string() };
            let value = self.shared.value(&etag, None);
            found.push(Listed { key: object.key, version: name, value, is_latest });
        }
        let with_id = found.iter().filter(|one| one.version != VersionName::Null);
        let mut once = BTreeSet::new();
        for one in with_id {
            let is_new = once.insert((&one.key, one.version.to_string()));
            assert!(is_new, "a version is listed twice: {found:?}");
        }
        assert!(found.is_sorted_by_key(|one| &one.key), "out of order: {found:?}");
        let client = format!("client {} lists versions of {prefix:?}", self.number);
        let prefix = Bytes::from_static(prefix);
        let listing = Listing { start, end, prefix, found: found.clone(), client };
        self.shared.versions.listings.borrow_mut().push(listing);
        Some(found)
    }

    /// After the storm: every version answers, and the newest is current.
    pub async fn check_versions(&mut self) {
        for (key, version) in self.shared.versions.known() {
            let answered = self.get_this_version(key.clone(), version).await;
            assert!(answered, "after the storm, {version} of {key:?} cannot be read");
        }
        let found = self.list_versions(b"").await.expect("a listing works");
        let mut last = None;
        for Listed { key, version, value, is_latest } in &found {
            let is_first = last.as_ref() != Some(key);
            assert_eq!(*is_latest, is_first, "{version} of {key:?}");
            last = Some(key.clone());
            if !is_first {
                continue;
            }
            let name = key.clone();
            let (_, answer) = self
                .ask(move |store| async move {
                    match store.head(BUCKETS[KEEPS], &name, None).await {
                        Ok(info) => Ok(Some((info.version, info.etag.to_string()))),
                        Err(Error::Deleted { marker }) => {
                            Ok(Some((Some(marker), MARKER.to_owned())))
                        }
                        Err(Error::Lost { .. }) => Ok(None),
                        Err(error) => panic!("after the storm, {name:?} answers {error}"),
                    }
                })
                .await;
            let Answer::Done(Ok(current)) = answer else { panic!("a HEAD works") };
            let Some((current, etag)) = current else { continue };
            assert_eq!(current, Some(*version), "the first that is listed of {key:?} is current");
            assert_eq!(self.shared.value(&etag, None), *value);
        }
    }

    /// Once all versions are removed, so can the bucket be. Answers `false` where a drive that was harmed
    /// was noticed only now: then the node comes to rest again first.
    pub async fn remove_versions(mut self) -> bool {
        let (_, bucket) = self.ask(|store| async move { store.bucket(BUCKETS[KEEPS]).await }).await;
        if matches!(bucket, Answer::Done(Err(Error::NoSuchBucket))) {
            return true;
        }
        let Some(found) = self.list_versions(b"").await else { return false };
        for Listed { key, version, .. } in found {
            let name = Some(version);
            let deletion = Deletion { key: key.clone(), version: name, condition: Condition::None };
            let (start, answer) = self
                .ask(move |store| async move { store.delete(BUCKETS[KEEPS], &deletion).await })
                .await;
            let is_done = matches!(answer, Answer::Done(Ok(_)));
            self.note_read(key, version, start, is_done, None, "removes");
            match answer {
                Answer::Done(Ok(_)) => {}
                Answer::Done(Err(Error::Unavailable { .. } | Error::Unknown { .. })) => {
                    return false;
                }
                Answer::Done(Err(error)) => panic!("{version} cannot be removed: {error}"),
                Answer::Lost => panic!("nobody dies any more"),
            }
        }
        let (_, answer) =
            self.ask(|store| async move { store.delete_bucket(BUCKETS[KEEPS]).await }).await;
        match answer {
            Answer::Done(Ok(())) => true,
            Answer::Done(Err(Error::Unavailable { .. } | Error::Unknown { .. })) => false,
            Answer::Done(Err(error)) => panic!("without versions the bucket is empty: {error}"),
            Answer::Lost => panic!("nobody dies any more"),
        }
    }
}

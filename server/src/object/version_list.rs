//! ListObjectVersions: of each set the heads of keys, page by page, and after each page the archives of
//! the keys in it. In this order: a version goes from the head to its archive, so it is met in one or the
//! other.
//!
//! What is archived under a key that is no entry of the first listing is dead. Within a key the head comes
//! first, then the archives with the newest first; the null version has a fixed place among the archives
//! and is put where its slot belongs.

use std::collections::VecDeque;

use basalt_engine::record::{Kind, Record};
use basalt_engine::request::ListAfter;
use basalt_engine::seam::Runtime;
use basalt_engine::units::{Incarnation, Key, Keyspace, SetIndex, Slot};
use basalt_net::mailbox::Mailbox;
use basalt_net::reader::Head;
use bytes::Bytes;

use super::api::{ListVersions, ListedVersion, VersionListing, VersionsFrom};
use super::error::Result;
use super::list::{Found, Range, listed_object};
use super::register::KeyRead;
use super::store::Store;
use super::version::{
    Removal, VersionName, Which, archive_slot, archived_in, archives_of, is_null,
};

impl<M: Mailbox, R: Runtime> Store<M, R> {
    pub async fn list_versions(&self, list: ListVersions) -> Result<VersionListing> {
        let incarnation = self.bucket(&list.bucket).await?.incarnation;
        let mut walks = Vec::new();
        for set in self.sets() {
            walks.push(Walk::begin(self, set, incarnation, &list).await?);
        }
        let mut listing = VersionListing::default();
        loop {
            for walk in &mut walks {
                walk.fill(self).await?;
            }
            let least = (0..walks.len())
                .filter_map(|walk| Some((walks[walk].ready.front()?.order().clone(), walk)))
                .min();
            let Some((_, least)) = least else {
                listing.next = None;
                return Ok(listing);
            };
            if listing.entries.len() == list.limit as usize {
                return Ok(listing);
            }
            let entry = walks[least].ready.pop_front().expect("it has the least entry");
            // Several sets may have keys under one prefix.
            if let (Entry::Group(prefix), Some(VersionsFrom::Prefix(last))) =
                (&entry, &listing.next)
                && prefix.name() == last
            {
                continue;
            }
            listing.next = Some(entry.position());
            listing.entries.push(entry.listed());
        }
    }

    /// Whether there is a version of anything in the incarnation on that set.
    pub(super) async fn has_versions(
        &self,
        set: SetIndex,
        incarnation: Incarnation,
    ) -> Result<bool> {
        let mut walk = Walk::over(set, Key::new(Keyspace::Objects, incarnation, b""), None, 1000);
        walk.fill(self).await?;
        Ok(!walk.ready.is_empty())
    }
}

/// What a walk comes to.
enum Entry {
    Version { key: Key, which: Which, position: Slot, record: Record, is_latest: bool },
    Group(Key),
}

impl Entry {
    fn order(&self) -> &Key {
        match self {
            Self::Version { key, .. } | Self::Group(key) => key,
        }
    }

    /// Where the next page begins if this is the last of one.
    fn position(&self) -> VersionsFrom {
        match self {
            Self::Group(prefix) => VersionsFrom::Prefix(prefix.name_bytes()),
            // Of the null version, too: its slot is told, where it may be gone by then.
            Self::Version { key, position, record, .. } => {
                let name = match record.lineage() {
                    // There is no other one.
                    None => VersionName::Null,
                    Some(_) => VersionName::Id { slot: *position, version: record.version() },
                };
                VersionsFrom::Version(key.name_bytes(), name)
            }
        }
    }

    fn listed(self) -> ListedVersion {
        match self {
            Self::Group(prefix) => ListedVersion::CommonPrefix(prefix.name_bytes()),
            Self::Version { key, which, record, is_latest, .. } => ListedVersion::Version {
                object: listed_object(key.name_bytes(), &record),
                name: which.name(&record),
                is_latest,
                is_marker: record.kind() == Kind::Marker,
            },
        }
    }
}

/// The versions of one set under a prefix.
struct Walk {
    set: SetIndex,
    /// In the keyspace of objects.
    prefix: Key,
    page_keys: u32,
    delimiter: Option<Bytes>,
    heads: Range,
    /// Heads of which the versions are still to come.
    batch: VecDeque<Found>,
    /// The archives of the keys in the batch.
    archives: Option<Archives>,
    /// Behind which the archives of the next batch begin.
    passed: Option<ListAfter>,
    open: Option<OpenKey>,
    ready: VecDeque<Entry>,
}

/// Archives in order, the next one in view.
struct Archives {
    range: Range,
    next: Option<(Key, Which, Slot, Record)>,
}

/// The key whose versions are being told.
struct OpenKey {
    key: Key,
    /// The version that is at the head, or removed: its archive says nothing.
    passed_over: Which,
    latest: Option<Which>,
    /// Only what is older is told: than the head as it was listed, or than where the page begins.
    below: Slot,
    /// The null version, until its place is reached.
    null: Option<(Slot, Record)>,
}

impl Walk {
    fn over(set: SetIndex, prefix: Key, after: Option<ListAfter>, page_keys: u32) -> Self {
        let heads = Range::from(set, prefix.clone(), after.clone()).with_markers();
        Self {
            set,
            prefix,
            page_keys,
            delimiter: None,
            heads: heads.in_pages_of(page_keys),
            batch: VecDeque::new(),
            archives: None,
            passed: after.map(|after| match after {
                ListAfter::Key(key) => ListAfter::Prefix(archives_of(&key)),
                ListAfter::Prefix(key) => ListAfter::Prefix(in_archives(&key)),
            }),
            open: None,
            ready: VecDeque::new(),
        }
    }

    async fn begin<M: Mailbox, R: Runtime>(
        store: &Store<M, R>,
        set: SetIndex,
        incarnation: Incarnation,
        list: &ListVersions,
    ) -> Result<Self> {
        let key = |name: &[u8]| Key::new(Keyspace::Objects, incarnation, name);
        let after = list.after.as_ref().map(|from| match from {
            VersionsFrom::Key(name) | VersionsFrom::Version(name, _) => ListAfter::Key(key(name)),
            VersionsFrom::Prefix(name) => ListAfter::Prefix(key(name)),
        });
        let mut walk = Self::over(set, key(&list.prefix), after, list.limit);
        walk.delimiter = list.delimiter.clone();
        walk.heads = walk.heads.grouped_by(list.delimiter.clone());
        if let Some(VersionsFrom::Version(name, version)) = &list.after
            && store.place(&list.bucket, name).set == set
            && name.starts_with(&list.prefix)
        {
            walk.go_on_within(store, key(name), *version).await?;
        }
        Ok(walk)
    }

    /// Begins behind a version of `key`. It may be gone by now, with its key: who deletes what is listed
    /// goes on like that. Where the null version is gone nobody can tell what stood behind it, so all
    /// of the key is told.
    async fn go_on_within<M: Mailbox, R: Runtime>(
        &mut self,
        store: &Store<M, R>,
        key: Key,
        version: VersionName,
    ) -> Result<()> {
        let read = store.read_key(self.set, &key).await?;
        let Some(head) = read.head().filter(|(_, record)| is_entry(record)) else { return Ok(()) };
        let null = match head.1.lineage() {
            Some(_) => store.archived_version(self.set, &key, Which::Null, false).await?,
            None => None,
        };
        let null = null.and_then(|null| Some((null.archived?.slot(), null.record)));
        let below = match version {
            VersionName::Id { slot, .. } => Some(slot),
            VersionName::Null if head.1.kind().is_version() && is_null(&head.1) => Some(head.0),
            VersionName::Null => null
                .as_ref()
                .map(|(slot, _)| Slot { generation: head.0.generation, sequence: slot.generation }),
        };
        self.open_key(store, key.clone(), head, below).await?;
        match below {
            Some(_) => {
                if let (Some(open), Some((slot, record))) = (&mut self.open, null) {
                    open.expect_null(slot, record);
                }
            }
            None if head.1.kind().is_version() => self.tell_head(&key, head),
            None => {}
        }
        let after = below.map(|below| ListAfter::Key(Which::Of(below).archive(&key)));
        let range = Range::from(self.set, archives_of(&key), after).with_markers();
        let range = range.in_pages_of(self.page_keys + 2);
        self.archives = Some(Archives { range, next: None });
        Ok(())
    }

    /// Goes on until there is an entry, or nothing more.
    async fn fill<M: Mailbox, R: Runtime>(&mut self, store: &Store<M, R>) -> Result<()> {
        while self.ready.is_empty() {
            if self.open.is_some() {
                self.take_archive(store).await?;
                continue;
            }
            match self.batch.pop_front() {
                Some(Found::Group(prefix)) => self.ready.push_back(Entry::Group(prefix)),
                Some(Found::Live(key, slot, record)) => {
                    let head = (slot, record);
                    self.open_key(store, key.clone(), &head, None).await?;
                    if head.1.kind().is_version() {
                        self.tell_head(&key, &head);
                    }
                }
                None if !self.take_batch(store).await? => return Ok(()),
                None => {}
            }
        }
        Ok(())
    }

    /// The next page of heads; then the archives of its keys are to be read.
    async fn take_batch<M: Mailbox, R: Runtime>(&mut self, store: &Store<M, R>) -> Result<bool> {
        self.batch = self.heads.next_page(store).await?;
        let Some(last) = self.batch.back() else { return Ok(false) };
        let passed = match last {
            Found::Live(key, ..) => archives_of(key),
            Found::Group(prefix) => in_archives(prefix),
        };
        let after = self.passed.replace(ListAfter::Prefix(passed));
        let has_archives = |found: &Found| match found {
            Found::Live(_, _, record) => record.lineage().is_some(),
            Found::Group(_) => false,
        };
        let range = || {
            let range = Range::from(self.set, in_archives(&self.prefix), after);
            let range = range.with_markers().grouped_by(self.delimiter.clone());
            range.in_pages_of(self.page_keys + 2)
        };
        let wanted = self.batch.iter().any(has_archives);
        self.archives = wanted.then(|| Archives { range: range(), next: None });
        Ok(true)
    }

    async fn open_key<M: Mailbox, R: Runtime>(
        &mut self,
        store: &Store<M, R>,
        key: Key,
        head: &Head,
        below: Option<Slot>,
    ) -> Result<()> {
        let (slot, record) = head;
        let mut open = OpenKey {
            key,
            passed_over: Which::of(*slot, record),
            latest: Some(Which::of(*slot, record)),
            below: below.map_or(slot.next(), |below| below.min(slot.next())),
            null: None,
        };
        if let Some(removal) = Removal::of(record) {
            open.passed_over = removal.which;
            let read = KeyRead::of_head(head.clone());
            let current = store.current_version(self.set, &open.key, &read, false).await?;
            open.latest = current.map(|version| version.which);
        }
        self.open = Some(open);
        Ok(())
    }

    fn tell_head(&mut self, key: &Key, (slot, record): &Head) {
        let which = Which::of(*slot, record);
        let position = match which {
            Which::Of(slot) => slot,
            Which::Null => *slot,
        };
        let (key, record) = (key.clone(), record.clone());
        self.ready.push_back(Entry::Version { key, which, position, record, is_latest: true });
    }

    /// Takes the next archive of the open key, or closes it.
    async fn take_archive<M: Mailbox, R: Runtime>(&mut self, store: &Store<M, R>) -> Result<()> {
        let open = self.open.as_mut().expect("a key is open");
        let next = match &mut self.archives {
            Some(archives) => archives.next_of(store, &open.key).await?,
            None => None,
        };
        match next {
            Some((which, ..)) if open.passed_over == which => {}
            Some((Which::Null, slot, record)) => open.expect_null(slot, record),
            Some((Which::Of(of), _, record)) => {
                if open.null.as_ref().is_some_and(|(slot, _)| *slot > archive_slot(of)) {
                    self.ready.extend(open.tell_null());
                }
                if of < open.below {
                    self.ready.push_back(open.archived(Which::Of(of), of, record));
                }
            }
            None => {
                self.ready.extend(open.tell_null());
                self.open = None;
            }
        }
        Ok(())
    }
}

impl OpenKey {
    fn archived(&self, which: Which, position: Slot, record: Record) -> Entry {
        let (key, is_latest) = (self.key.clone(), self.latest == Some(which));
        Entry::Version { key, which, position, record, is_latest }
    }

    /// Tells the archived null version when its turn comes.
    fn expect_null(&mut self, slot: Slot, record: Record) {
        if self.passed_over != Which::Null && slot < archive_slot(self.below) {
            self.null = Some((slot, record));
        }
    }

    fn tell_null(&mut self) -> Option<Entry> {
        let (slot, record) = self.null.take()?;
        // The archive's slots begin with the slot of the object's key.
        let position = Slot { generation: self.below.generation, sequence: slot.generation };
        Some(self.archived(Which::Null, position, record))
    }
}

impl Archives {
    /// The next archive if it is of `object`; those of keys before it are dead.
    async fn next_of<M: Mailbox, R: Runtime>(
        &mut self,
        store: &Store<M, R>,
        object: &Key,
    ) -> Result<Option<(Which, Slot, Record)>> {
        loop {
            if self.next.is_none() {
                let Some((key, slot, record)) = self.range.next_slot(store).await? else {
                    return Ok(None);
                };
                let Some((of, which)) = archived_in(&key) else { continue };
                self.next = Some((of, which, slot, record));
            }
            match self.next.as_ref().map(|(of, ..)| of.cmp(object)) {
                Some(std::cmp::Ordering::Greater) => return Ok(None),
                Some(std::cmp::Ordering::Equal) => {
                    return Ok(self
                        .next
                        .take()
                        .map(|(_, which, slot, record)| (which, slot, record)));
                }
                _ => self.next = None,
            }
        }
    }
}

/// Whether a key with that head has versions to tell of.
fn is_entry(record: &Record) -> bool {
    record.kind().is_version() || record.kind() == Kind::Removed
}

/// The same beginning of names among the archives.
fn in_archives(objects: &Key) -> Key {
    Key::new(Keyspace::Versions, objects.bucket(), objects.name())
}

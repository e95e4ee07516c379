//! LIST: pages from R voting drives of every set, under the reader's rule.
//!
//! One drive answers a page in key order, the others its fingerprint. Where those agree, that page is
//! what all of them say; else all of them answer pages, which are merged: where they agree on a key, it
//! is listed from them; where they differ, the key is read by itself. Common prefixes carry a witness, the first key under
//! them that the drive takes for live; where witnesses differ, the prefix is looked into. A page that
//! ends early (at its limit, or after looking at many tombstones) bounds what the merge may say, and
//! the listing goes on from there: it never takes a short page for the end.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use basalt_engine::record::{Kind, Record};
use basalt_engine::request::{
    ListAfter, ListEntry, ListPage, ListRequest, PageFingerprint, Reply, Request,
};
use basalt_engine::seam::Runtime;
use basalt_engine::units::{DriveIndex, Key, Keyspace, SetIndex, Slot};
use basalt_net::mailbox::Mailbox;
use basalt_net::quorum::{bit, drives_in};
use basalt_net::reader::Head;
use bytes::Bytes;

use super::api::{List, ListFrom, Listed, ListedObject, Listing, StorageClass};
use super::error::{Error, Result};
use super::metadata::decode_checksums;
use super::store::Store;

/// Keys asked of a drive at once.
const PAGE_KEYS: u32 = 1000;
/// How long drives may take to say that they agree, and to answer a page.
const AGREEMENT_DEADLINE: Duration = Duration::from_secs(1);
const PAGE_DEADLINE: Duration = Duration::from_secs(5);

impl<M: Mailbox, R: Runtime> Store<M, R> {
    pub async fn list(&self, list: List) -> Result<Listing> {
        let bucket = self.bucket(&list.bucket).await?;
        let key = |name: &[u8]| Key::new(Keyspace::Objects, bucket.incarnation, name);
        let after = list.after.as_ref().map(|from| match from {
            ListFrom::Key(name) => ListAfter::Key(key(name)),
            ListFrom::Prefix(name) => ListAfter::Prefix(key(name)),
        });
        let mut sets: Vec<Range> = self
            .sets()
            .map(|set| Range {
                prefix: key(&list.prefix),
                delimiter: list.delimiter.clone(),
                page_keys: list.limit.min(PAGE_KEYS),
                ..Range::from(set, key(&list.prefix), after.clone())
            })
            .collect();
        self.merge_sets(&mut sets, list.limit as usize).await
    }

    /// The next `limit` entries over all sets, in key order.
    async fn merge_sets(&self, sets: &mut [Range], limit: usize) -> Result<Listing> {
        let mut listing = Listing::default();
        loop {
            for set in sets.iter_mut() {
                set.fill(self).await?;
            }
            let Some(least) = least(sets) else { return Ok(listing) };
            if listing.entries.len() == limit {
                listing.next = listing.entries.last().map(|last| match last {
                    Listed::Object(object) => ListFrom::Key(object.key.clone()),
                    Listed::CommonPrefix(prefix) => ListFrom::Prefix(prefix.clone()),
                });
                return Ok(listing);
            }
            let found = sets[least].found.pop_front().expect("it has the least entry");
            // Several sets may have keys under one prefix.
            let same = |last: Option<&Listed>| match (last, &found) {
                (Some(Listed::CommonPrefix(last)), Found::Group(prefix)) => {
                    *last == prefix.name_bytes()
                }
                _ => false,
            };
            if !same(listing.entries.last()) {
                listing.entries.push(found.listed());
            }
        }
    }
}

/// The set whose next entry is the least.
fn least(sets: &[Range]) -> Option<usize> {
    (0..sets.len())
        .filter_map(|set| sets[set].found.front().map(|found| (found.order(), set)))
        .min()
        .map(|(_, set)| set)
}

/// An entry that is certain.
pub(super) enum Found {
    /// A key and its head, or what is current where the head is not.
    Live(Key, Slot, Record),
    Group(Key),
}

impl Found {
    fn order(&self) -> &[u8] {
        match self {
            Self::Live(key, ..) | Self::Group(key) => key.as_bytes(),
        }
    }

    fn listed(self) -> Listed {
        match self {
            Self::Group(prefix) => Listed::CommonPrefix(prefix.name_bytes()),
            Self::Live(key, _, record) => Listed::Object(listed_object(key.name_bytes(), &record)),
        }
    }
}

pub(super) fn listed_object(key: Bytes, record: &Record) -> ListedObject {
    ListedObject {
        key,
        size: record.size(),
        etag: record.etag(),
        modified_ms: record.modified_ms(),
        class: StorageClass::from_stored(record.class()),
        checksums: decode_checksums(record.checksums()).unwrap_or_default(),
    }
}

/// One set's keys under a prefix, page by page.
pub(super) struct Range {
    set: SetIndex,
    prefix: Key,
    delimiter: Option<Bytes>,
    /// Whether heads are shown that are delete markers, and such as only name what is current: for who
    /// asks for versions.
    markers: bool,
    page_keys: u32,
    /// Where the next page begins; `None` at the end.
    next: Option<Option<ListAfter>>,
    found: VecDeque<Found>,
}

impl Range {
    pub(super) fn all(set: SetIndex, prefix: Key) -> Self {
        Self::from(set, prefix, None)
    }

    pub(super) fn from(set: SetIndex, prefix: Key, after: Option<ListAfter>) -> Self {
        Self {
            set,
            prefix,
            delimiter: None,
            markers: false,
            page_keys: PAGE_KEYS,
            next: Some(after),
            found: VecDeque::new(),
        }
    }

    pub(super) fn with_markers(self) -> Self {
        Self { markers: true, ..self }
    }

    pub(super) fn grouped_by(self, delimiter: Option<Bytes>) -> Self {
        Self { delimiter, ..self }
    }

    pub(super) fn in_pages_of(self, keys: u32) -> Self {
        Self { page_keys: keys.min(PAGE_KEYS), ..self }
    }

    /// The entries of the next page that has any, which are all up to the last of them; none at the end.
    pub(super) async fn next_page<M: Mailbox, R: Runtime>(
        &mut self,
        store: &Store<M, R>,
    ) -> Result<VecDeque<Found>> {
        self.fill(store).await?;
        Ok(std::mem::take(&mut self.found))
    }

    /// The next live key and its record, for ranges without a delimiter.
    pub(super) async fn next<M: Mailbox, R: Runtime>(
        &mut self,
        store: &Store<M, R>,
    ) -> Result<Option<(Key, Record)>> {
        Ok(self.next_slot(store).await?.map(|(key, _, record)| (key, record)))
    }

    /// As [`Self::next`], with the slot of the record. Common prefixes are passed over.
    pub(super) async fn next_slot<M: Mailbox, R: Runtime>(
        &mut self,
        store: &Store<M, R>,
    ) -> Result<Option<(Key, Slot, Record)>> {
        loop {
            self.fill(store).await?;
            match self.found.pop_front() {
                Some(Found::Live(key, slot, record)) => return Ok(Some((key, slot, record))),
                Some(Found::Group(_)) => {}
                None => return Ok(None),
            }
        }
    }

    /// Whether a key with such a head is an entry.
    fn shows(&self, record: &Record) -> bool {
        match record.kind() {
            Kind::Data | Kind::Lost => true,
            Kind::Marker | Kind::Removed => self.markers,
            Kind::Tombstone | Kind::Relocated => false,
        }
    }

    /// Takes pages until there is an entry, or no more pages.
    async fn fill<M: Mailbox, R: Runtime>(&mut self, store: &Store<M, R>) -> Result<()> {
        while self.found.is_empty() {
            let Some(after) = self.next.take() else { return Ok(()) };
            if let Some(page) = self.agreed_page(store, after.clone()).await {
                self.next = page.fingerprint.next.map(Some);
                for entry in page.entries {
                    self.take_agreed(store, entry).await?;
                }
                continue;
            }
            let pages = self.pages(store, after).await?;
            // What is certain ends where the shortest page does.
            let ends = pages.iter().filter_map(|page| page.fingerprint.next.clone());
            let bound = ends.min_by(by_position);
            let merged = merge(pages, bound.as_ref());
            for (position, entries) in merged {
                self.settle_entry(store, position, entries).await?;
            }
            self.next = bound.map(Some);
        }
        Ok(())
    }

    fn request(&self, after: Option<ListAfter>) -> ListRequest {
        let (prefix, delimiter) = (self.prefix.clone(), self.delimiter.clone());
        ListRequest { prefix, after, delimiter, markers: self.markers, limit: self.page_keys }
    }

    /// A page that R voting drives would answer alike; `None` where they do not, or not all answer.
    async fn agreed_page<M: Mailbox, R: Runtime>(
        &self,
        store: &Store<M, R>,
        after: Option<ListAfter>,
    ) -> Option<ListPage> {
        let needed = store.quorums(self.set).read;
        // Of the map by which the drives are chosen, whatever is learned meanwhile.
        let epoch = store.map(self.set).epoch;
        let start = store.runtime().random_u64() % store.quorums(self.set).drives as u64;
        let (drives, leader) = store.drives_to_ask(self.set, DriveIndex(start as u8), needed);
        if drives.count_ones() as usize != needed {
            return None;
        }
        let request = self.request(after);
        let requests = drives_in(drives).map(|drive| {
            let request = request.clone();
            let whole = leader == bit(drive);
            (drive, if whole { Request::List(request) } else { Request::Fingerprint(request) })
        });
        let mut replies = store.mailbox().send(self.set, requests.collect());
        let mut page: Option<ListPage> = None;
        let mut fingerprints: Vec<PageFingerprint> = Vec::with_capacity(needed);
        let deadline = store.runtime().now().plus(AGREEMENT_DEADLINE);
        while let Some((_, reply)) = store.next_before(&mut replies, deadline).await {
            match reply {
                Reply::Listed(listed) => {
                    fingerprints.push(listed.fingerprint.clone());
                    page = Some(listed);
                }
                Reply::Fingerprint(fingerprint) => fingerprints.push(fingerprint),
                _ => return None,
            }
        }
        let alike = fingerprints.windows(2).all(|two| two[0] == two[1]);
        let current = fingerprints.iter().all(|one| one.epoch == epoch);
        page.filter(|_| fingerprints.len() == needed && alike && current)
    }

    /// Takes an entry that R voting drives agree on.
    async fn take_agreed<M: Mailbox, R: Runtime>(
        &mut self,
        store: &Store<M, R>,
        entry: ListEntry,
    ) -> Result<()> {
        let position = entry.position();
        let Some((slot, record)) = entry.certified_alone() else {
            return self.look_into(store, position, vec![entry]).await;
        };
        let is_group = entry.group_bytes.is_some();
        if record.kind() == Kind::Removed && (is_group || !self.markers) {
            return self.look_into(store, position, vec![entry]).await;
        }
        if self.shows(record) {
            self.found.push_back(match is_group {
                true => Found::Group(position),
                false => Found::Live(position, slot, record.clone()),
            });
        }
        Ok(())
    }

    /// A page from at least R voting drives.
    async fn pages<M: Mailbox, R: Runtime>(
        &self,
        store: &Store<M, R>,
        after: Option<ListAfter>,
    ) -> Result<Vec<ListPage>> {
        let needed = store.quorums(self.set).read;
        let ours = store.map(self.set).epoch;
        let voting = store.voting_drives(self.set);
        let request = || Request::List(self.request(after.clone()));
        // R drives first; the others only where one of those fails.
        let mut pages = Vec::with_capacity(needed);
        let mut untried = voting.into_iter();
        while pages.len() < needed {
            let ask: Vec<DriveIndex> = untried.by_ref().take(needed - pages.len()).collect();
            if ask.is_empty() {
                let short_by = u32::try_from(needed - pages.len()).expect("at most sixteen");
                return Err(Error::Unavailable { set: self.set, action: "list", short_by });
            }
            let requests = ask.into_iter().map(|drive| (drive, request())).collect();
            let mut replies = store.mailbox().send(self.set, requests);
            let deadline = store.runtime().now().plus(PAGE_DEADLINE);
            while let Some((drive, reply)) = store.next_before(&mut replies, deadline).await {
                let Reply::Listed(page) = reply else { continue };
                let epoch = page.fingerprint.epoch;
                if epoch > ours {
                    // Who votes may have changed: with the newer map, from the start.
                    store.fetch_map(self.set, drive).await;
                    return Box::pin(self.pages(store, after)).await;
                }
                // A drive with an older map may not be the member that votes in its place.
                if epoch < ours {
                    continue;
                }
                pages.push(page);
            }
        }
        Ok(pages)
    }

    /// Decides what one position of the merged pages is.
    async fn settle_entry<M: Mailbox, R: Runtime>(
        &mut self,
        store: &Store<M, R>,
        position: Key,
        entries: Vec<ListEntry>,
    ) -> Result<()> {
        let needed = store.quorums(self.set).read;
        let agreed =
            entries.len() >= needed && entries.windows(2).all(|two| same(&two[0], &two[1]));
        match entries.first() {
            Some(first) if agreed => self.take_agreed(store, first.clone()).await,
            _ => self.look_into(store, position, entries).await,
        }
    }

    /// Finds out what a position is that the pages leave open.
    async fn look_into<M: Mailbox, R: Runtime>(
        &mut self,
        store: &Store<M, R>,
        position: Key,
        entries: Vec<ListEntry>,
    ) -> Result<()> {
        if entries.iter().any(|entry| entry.group_bytes.is_some()) {
            if self.group_is_live(store, &position, &entries).await? {
                self.found.push_back(Found::Group(position));
            }
            return Ok(());
        }
        if let Some((slot, record)) = self.look_at(store, &position).await? {
            self.found.push_back(Found::Live(position, slot, record));
        }
        Ok(())
    }

    /// The key's head if it is an entry, or what is current where only that is asked for.
    async fn look_at<M: Mailbox, R: Runtime>(
        &self,
        store: &Store<M, R>,
        key: &Key,
    ) -> Result<Option<Head>> {
        let read = store.read_key(self.set, key).await?;
        let Some((slot, record)) = read.head().cloned() else { return Ok(None) };
        if record.kind() == Kind::Removed && !self.markers {
            let current = store.current_version(self.set, key, &read, false).await?;
            let current = current.map(|version| (slot, version.record));
            return Ok(current.filter(|(_, record)| record.kind().is_live()));
        }
        Ok(Some((slot, record)).filter(|(_, record)| self.shows(record)))
    }

    /// Whether the key with that head is anything to a group: one without versions is not.
    async fn counts<M: Mailbox, R: Runtime>(
        &self,
        store: &Store<M, R>,
        key: &Key,
        record: &Record,
    ) -> Result<bool> {
        if record.kind() != Kind::Removed {
            return Ok(true);
        }
        let read = store.read_key(self.set, key).await?;
        Ok(store.current_version(self.set, key, &read, false).await?.is_some())
    }

    /// Whether any key under the common prefix is live: a witness, or else whatever is there.
    async fn group_is_live<M: Mailbox, R: Runtime>(
        &self,
        store: &Store<M, R>,
        prefix: &Key,
        entries: &[ListEntry],
    ) -> Result<bool> {
        for entry in entries {
            if let Some((_, record)) = self.look_at(store, &entry.key).await?
                && self.counts(store, &entry.key, &record).await?
            {
                return Ok(true);
            }
        }
        let mut within = Self { markers: self.markers, ..Self::all(self.set, prefix.clone()) };
        while let Some((key, record)) = Box::pin(within.next(store)).await? {
            if self.counts(store, &key, &record).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Whether two drives say the same of an entry.
fn same(one: &ListEntry, other: &ListEntry) -> bool {
    one.key == other.key
        && one.group_bytes == other.group_bytes
        && one.slots.len() == other.slots.len()
        && one.slots.iter().zip(&other.slots).all(|(one, other)| {
            one.slot == other.slot
                && one.certified == other.certified
                && one.accepted.as_ref().map(Record::operation)
                    == other.accepted.as_ref().map(Record::operation)
        })
}

/// Entries of all pages by position, up to `bound` (inclusive).
fn merge(pages: Vec<ListPage>, bound: Option<&ListAfter>) -> BTreeMap<Key, Vec<ListEntry>> {
    let mut merged: BTreeMap<Key, Vec<ListEntry>> = BTreeMap::new();
    for entry in pages.into_iter().flat_map(|page| page.entries) {
        let position = entry.position();
        let certain = bound.is_none_or(|bound| position.as_bytes() <= after_bytes(bound));
        if certain {
            merged.entry(position).or_default().push(entry);
        }
    }
    merged
}

fn after_bytes(after: &ListAfter) -> &[u8] {
    match after {
        ListAfter::Key(key) | ListAfter::Prefix(key) => key.as_bytes(),
    }
}

/// The order of page ends: a prefix ends after every key that starts with it.
fn by_position(one: &ListAfter, other: &ListAfter) -> std::cmp::Ordering {
    let starts = |prefix: &Key, key: &Key| key.as_bytes().starts_with(prefix.as_bytes());
    match (one, other) {
        (ListAfter::Prefix(prefix), ListAfter::Key(key)) if starts(prefix, key) => {
            std::cmp::Ordering::Greater
        }
        (ListAfter::Key(key), ListAfter::Prefix(prefix)) if starts(prefix, key) => {
            std::cmp::Ordering::Less
        }
        _ => after_bytes(one).cmp(after_bytes(other)),
    }
}

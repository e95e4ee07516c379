//! What the owner core of a set does in the background: settle what is unsettled, sweep orphans,
//! uploads that nobody ends and parts of objects that are gone, bring back blank drives. Progress goes
//! to the log.
//!
//! A key is settled only after it was seen unsettled at the same slot in two looks a second apart:
//! until then its writer is probably still at it.

use std::collections::BTreeMap;
use std::time::Duration;

use basalt_engine::request::{Orphan, Reply, Request, ScanEntry};
use basalt_engine::seam::{Moment, Runtime};
use basalt_engine::units::{DriveIndex, Key, PayloadId, SetIndex, Slot};
use basalt_net::mailbox::Mailbox;
use futures_util::future::join_all;

use crate::object::Store;
use crate::object::settle::Settled;

/// Between two looks at the unsettled sets.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Keys that one look takes from a drive.
const LOOK_KEYS: u32 = 2048;
/// Keys that are settled at the same time.
const IN_FLIGHT: usize = 8;
/// Between two looks for orphans, and how long one of this life has to be there to count as one.
const SWEEP_INTERVAL: Duration = Duration::from_secs(20);
const ORPHAN_AGE: Duration = Duration::from_secs(60);
/// Uploads are swept so soon after a start, however long the interval: servers are restarted.
const FIRST_UPLOAD_SWEEP: Duration = Duration::from_secs(300);
/// A shard of which nothing came for this long is not being written any more; even a slow client has
/// filled a window by then.
const STAGING_IDLE_MAX: Duration = Duration::from_secs(3600);
/// Between two lines about progress.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);

/// Runs for as long as the core does.
pub async fn settle_forever<M: Mailbox, R: Runtime>(store: Store<M, R>, set: SetIndex) {
    let mut upkeep = Upkeep::new(store, set);
    loop {
        upkeep.store.runtime().clone().sleep(LOOK_INTERVAL).await;
        upkeep.look().await;
    }
}

/// Frees what operations left behind that did not come to an end, on every drive of a set, for as long
/// as the core runs: at once what a former life of a drive has left, and what this one did when it has
/// been there for longer than any operation takes from sealing its shards to having them named.
pub async fn sweep_forever<M: Mailbox, R: Runtime>(store: Store<M, R>, set: SetIndex) {
    let mut seen = BTreeMap::new();
    loop {
        sweep(&store, set, &mut seen).await;
        store.runtime().clone().sleep(SWEEP_INTERVAL).await;
    }
}

async fn sweep<M: Mailbox, R: Runtime>(
    store: &Store<M, R>,
    set: SetIndex,
    seen: &mut BTreeMap<(DriveIndex, PayloadId), Moment>,
) {
    let now = store.runtime().now();
    let drives = store.mailbox().drive_count(set) as u8;
    let before = std::mem::take(seen);
    let told = (0..drives).map(|drive| store.orphans(set, DriveIndex(drive)));
    let told = join_all(told).await;
    // The shards of one payload are freed together: one look at its key is enough.
    let mut ripe: BTreeMap<PayloadId, (Orphan, Vec<DriveIndex>)> = BTreeMap::new();
    for (drive, orphans) in (0..drives).map(DriveIndex).zip(told) {
        // A drive that does not answer is asked again next time.
        for orphan in orphans.into_iter().flatten() {
            let place = (drive, orphan.payload);
            let since = before.get(&place).copied().unwrap_or(now);
            if orphan.sealed {
                seen.insert(place, since);
            }
            let is_ripe = match orphan.sealed {
                true => orphan.former_life || now.since(since) >= ORPHAN_AGE,
                false => orphan.idle >= STAGING_IDLE_MAX,
            };
            if is_ripe {
                let payload = orphan.payload;
                ripe.entry(payload).or_insert_with(|| (orphan, Vec::new())).1.push(drive);
            }
        }
    }
    let ripe: Vec<_> = ripe.into_values().collect();
    let mut freed = 0;
    for ripe in ripe.chunks(IN_FLIGHT) {
        let frees = ripe.iter().map(|(orphan, drives)| store.free_orphan(set, drives, orphan));
        for result in join_all(frees).await {
            match result {
                Ok(count) => freed += count,
                Err(error) => tracing::debug!(set = set.0, %error, "orphan not freed yet"),
            }
        }
    }
    if freed > 0 {
        tracing::info!(set = set.0, freed, "freed what unfinished operations had staged");
    }
}

/// Frees the parts of objects that are gone, a page of parts at a time, for as long as the core runs.
pub async fn release_relocated_forever<M: Mailbox, R: Runtime>(store: Store<M, R>, set: SetIndex) {
    let mut after = None;
    loop {
        store.runtime().clone().sleep(SWEEP_INTERVAL).await;
        match store.release_relocated(set, after).await {
            Ok(released) => {
                after = released.next;
                if released.shards > 0 {
                    let freed = released.shards;
                    tracing::info!(
                        set = set.0,
                        freed,
                        "freed shards of parts whose objects are gone"
                    );
                }
            }
            Err(error) => tracing::warn!(set = set.0, %error, "parts were not looked through"),
        }
    }
}

/// How long uploads may rest, and how often it is looked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UploadRest {
    pub age: Duration,
    pub interval: Duration,
}

impl Default for UploadRest {
    fn default() -> Self {
        Self { age: Duration::from_secs(24 * 3600), interval: Duration::from_secs(6 * 3600) }
    }
}

/// Ends the uploads of a set that have rested for too long, for as long as the core runs.
pub async fn sweep_uploads_forever<M: Mailbox, R: Runtime>(
    store: Store<M, R>,
    set: SetIndex,
    rest: UploadRest,
) {
    store.runtime().clone().sleep(rest.interval.min(FIRST_UPLOAD_SWEEP)).await;
    loop {
        match store.sweep_uploads(set, rest.age).await {
            Ok(swept) if swept.is_nothing() => {}
            Ok(swept) => tracing::info!(
                set = set.0,
                aborted = swept.aborted,
                completed = swept.completed,
                forgotten = swept.forgotten,
                orphaned = swept.orphaned,
                "swept multipart uploads"
            ),
            Err(error) => tracing::warn!(set = set.0, %error, "uploads were not swept"),
        }
        store.runtime().clone().sleep(rest.interval).await;
    }
}

/// The settling of one set, window by window over its unsettled keys.
pub struct Upkeep<M: Mailbox, R: Runtime> {
    store: Store<M, R>,
    set: SetIndex,
    /// Where the present window begins.
    after: Option<Key>,
    /// What the last look at this window saw.
    seen: BTreeMap<Key, Slot>,
    /// The drives that answered the last look, one bit each.
    answering: u16,
    /// Every key was settled as far as the drives that answer allow: until another drive answers,
    /// only keys that these drives themselves lack something of are worked on.
    done_for_these: bool,
    report: Report,
}

/// What a look did.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Look {
    pub unsettled: usize,
    pub settled: usize,
}

/// One window of the union of the drives' unsettled sets.
struct Window {
    keys: BTreeMap<Key, Pending>,
    /// Where the next window begins; `None` at the end.
    next: Option<Key>,
    answering: u16,
}

#[derive(Clone, Copy)]
struct Pending {
    slot: Slot,
    /// Whether a drive that answers lacks the certificate or a shard.
    lacking: bool,
}

impl<M: Mailbox, R: Runtime> Upkeep<M, R> {
    pub fn new(store: Store<M, R>, set: SetIndex) -> Self {
        let report = Report { since: store.runtime().now(), settled: 0 };
        let seen = BTreeMap::new();
        Self { store, set, after: None, seen, answering: 0, done_for_these: false, report }
    }

    /// Looks once at a window of the unsettled keys and settles what has been there for a while.
    pub async fn look(&mut self) -> Look {
        let window = self.window().await;
        if window.answering != self.answering {
            self.answering = window.answering;
            self.done_for_these = false;
            self.after = None;
        }
        let wanted = |pending: &Pending| pending.lacking || !self.done_for_these;
        let ripe: Vec<Key> = window
            .keys
            .iter()
            .filter(|(key, pending)| wanted(pending) && self.seen.get(*key) == Some(&pending.slot))
            .map(|(key, _)| key.clone())
            .collect();
        let unripe = window.keys.values().filter(|pending| wanted(pending)).count() - ripe.len();
        let settled = self.settle(&ripe).await;
        if let Err(error) = self.store.fence_writers_of_the_lost(self.set).await {
            tracing::debug!(set = self.set.0, %error, "map not renewed yet");
        }
        let look = Look { unsettled: window.keys.len(), settled };
        if unripe == 0 {
            let drives = self.store.mailbox().drive_count(self.set) as u32;
            let all_answer = self.answering.count_ones() == drives;
            self.done_for_these |= window.next.is_none() && !all_answer;
            self.after = window.next;
            self.seen.clear();
        } else {
            self.seen = window.keys.into_iter().map(|(key, pending)| (key, pending.slot)).collect();
        }
        self.report_progress(look);
        look
    }

    async fn settle(&mut self, keys: &[Key]) -> usize {
        let mut done = 0;
        for keys in keys.chunks(IN_FLIGHT) {
            let results =
                join_all(keys.iter().map(|key| self.store.settle_key(self.set, key))).await;
            for (key, result) in keys.iter().zip(results) {
                match result {
                    Ok(Settled::Fully | Settled::Absent) => done += 1,
                    Ok(Settled::OnLiveDrives) => {}
                    Err(error) => {
                        tracing::debug!(set = self.set.0, ?key, %error, "key not settled yet");
                    }
                }
            }
        }
        done
    }

    async fn window(&self) -> Window {
        let drives = self.store.mailbox().drive_count(self.set) as u8;
        let after = self.after.clone();
        let request = || Request::Unsettled { after: after.clone(), limit: LOOK_KEYS };
        let requests = (0..drives).map(|drive| (DriveIndex(drive), request())).collect();
        let mut replies = self.store.mailbox().send(self.set, requests);
        let mut window = Window { keys: BTreeMap::new(), next: None, answering: 0 };
        while let Some((drive, reply)) = replies.next().await {
            let Reply::Scanned { entries, more } = reply else { continue };
            window.answering |= 1 << drive.0;
            if let Some(last) = entries.last().filter(|_| more) {
                let next = window.next.take().map_or(last.key.clone(), |n| n.min(last.key.clone()));
                window.next = Some(next);
            }
            for entry in entries {
                window.add(entry);
            }
        }
        if let Some(next) = &window.next {
            window.keys.retain(|key, _| key <= next);
        }
        window
    }

    fn report_progress(&mut self, look: Look) {
        self.report.settled += look.settled;
        let now = self.store.runtime().now();
        let elapsed = now.since(self.report.since);
        if elapsed < REPORT_INTERVAL || self.report.settled == 0 {
            if self.report.settled == 0 {
                self.report.since = now;
            }
            return;
        }
        let per_second = self.report.settled as f64 / elapsed.as_secs_f64();
        let eta_s = look.unsettled as f64 / per_second.max(1.0);
        tracing::info!(
            set = self.set.0,
            settled = self.report.settled,
            left = look.unsettled,
            per_second = per_second as u64,
            eta_s = eta_s as u64,
            "bringing records back to full redundancy"
        );
        self.report = Report { since: now, settled: 0 };
    }
}

impl Window {
    fn add(&mut self, entry: ScanEntry) {
        let lacking = !entry.certified || !entry.has_shards;
        let pending =
            self.keys.entry(entry.key).or_insert(Pending { slot: entry.slot, lacking: false });
        pending.slot = pending.slot.max(entry.slot);
        pending.lacking |= lacking;
    }
}

struct Report {
    since: Moment,
    settled: usize,
}

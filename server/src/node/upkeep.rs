//! What the owner core of a node's seats in a set does in the background: settle what is unsettled, sweep
//! orphans, uploads that nobody ends and parts of objects that are gone, bring back blank drives.
//! Progress goes to the log.
//!
//! A key is settled only after it was seen unsettled at the same slot in two looks a second apart:
//! until then its writer is probably still at it.
//!
//! Where the drives of a set are on several nodes, each node works off what its own drives call
//! unsettled. For a key that other nodes' drives call unsettled as well, one of them begins after a
//! second: the one that has the first of these drives, counted from a place that follows from the key.
//! The others begin after six, should the key still be there. Nothing depends on who settles, or how many do.

use std::collections::BTreeMap;
use std::time::Duration;

use basalt_engine::checksum::crc64;
use basalt_engine::request::{Orphan, Reply, Request, ScanEntry};
use basalt_engine::seam::{Moment, Runtime};
use basalt_engine::units::{DriveIndex, Key, PayloadId, SET_DRIVES_MAX, SetIndex, Slot};
use basalt_net::mailbox::Mailbox;
use basalt_net::node::NodeIndex;
use basalt_net::quorum::{all_drives, bit, drives_in};
use futures_util::future::join_all;

use crate::object::Store;
use crate::object::settle::Settled;

/// Between two looks at the unsettled sets.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Keys that one look takes from a drive.
const LOOK_KEYS: u32 = 2048;
/// Keys that are settled at the same time.
const IN_FLIGHT: usize = 8;
/// For how long a key has to be there until a node works on it that another one should settle.
const OTHERS_AFTER: Duration = Duration::from_secs(6);
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

/// The seats of one set: the node of each position, and which of them are on this one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seats {
    nodes: Vec<NodeIndex>,
    here: NodeIndex,
}

impl Seats {
    /// `nodes` by position; this one is `here`.
    pub fn new(nodes: Vec<NodeIndex>, here: NodeIndex) -> Self {
        assert!((1..=SET_DRIVES_MAX).contains(&nodes.len()));
        assert!(nodes.contains(&here), "nobody looks after a set in which it has no seat");
        Self { nodes, here }
    }

    /// A set whose drives are all on this node.
    pub fn all_here(drives: usize) -> Self {
        Self::new(vec![NodeIndex(0); drives], NodeIndex(0))
    }

    /// The drives of this node, one bit each.
    pub fn mask(&self) -> u16 {
        let here = self.nodes.iter().zip(0u8..).filter(|(node, _)| **node == self.here);
        here.fold(0, |mask, (_, position)| mask | bit(DriveIndex(position)))
    }

    fn are_all_here(&self) -> bool {
        self.nodes.iter().all(|node| *node == self.here)
    }

    /// Whether the first of `drives`, from the key's own place around the set, is on this node.
    fn has_first(&self, key: &Key, drives: u16) -> bool {
        let count = self.nodes.len();
        let start = (crc64(key.as_bytes()) % count as u64) as usize;
        let mut around = (0..count).map(|step| (start + step) % count);
        let first = around.find(|position| drives & 1 << position != 0);
        first.is_some_and(|position| self.nodes[position] == self.here)
    }
}

/// Runs for as long as the core does.
pub async fn settle_forever<M: Mailbox, R: Runtime>(
    store: Store<M, R>,
    set: SetIndex,
    seats: Seats,
) {
    let mut upkeep = Upkeep::new(store, set, seats);
    loop {
        upkeep.store.runtime().clone().sleep(LOOK_INTERVAL).await;
        upkeep.look().await;
    }
}

/// Frees what operations left behind that did not come to an end, on the drives that a set has here, for
/// as long as the core runs: when it has been there for longer than any operation takes from sealing
/// its shards to having them named. What a former life of a drive has left goes at once where all
/// drives are here: on another node its writer may have outlived it.
pub async fn sweep_forever<M: Mailbox, R: Runtime>(
    store: Store<M, R>,
    set: SetIndex,
    seats: Seats,
) {
    let mut seen = BTreeMap::new();
    loop {
        sweep(&store, set, &seats, &mut seen).await;
        store.runtime().clone().sleep(SWEEP_INTERVAL).await;
    }
}

async fn sweep<M: Mailbox, R: Runtime>(
    store: &Store<M, R>,
    set: SetIndex,
    seats: &Seats,
    seen: &mut BTreeMap<(DriveIndex, PayloadId), Moment>,
) {
    let now = store.runtime().now();
    let drives = || drives_in(seats.mask());
    let may_go_at_once = seats.are_all_here();
    let before = std::mem::take(seen);
    let told = drives().map(|drive| store.orphans(set, drive));
    let told = join_all(told).await;
    // The shards of one payload are freed together: one look at its key is enough.
    let mut ripe: BTreeMap<PayloadId, (Orphan, Vec<DriveIndex>)> = BTreeMap::new();
    for (drive, orphans) in drives().zip(told) {
        // A drive that does not answer is asked again next time.
        for orphan in orphans.into_iter().flatten() {
            let place = (drive, orphan.payload);
            let since = before.get(&place).copied().unwrap_or(now);
            if orphan.sealed {
                seen.insert(place, since);
            }
            let is_ripe = match orphan.sealed {
                true => (orphan.former_life && may_go_at_once) || now.since(since) >= ORPHAN_AGE,
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

/// Frees the parts of objects that are gone from the drives that a set has here, a page of parts at a
/// time, for as long as the core runs.
pub async fn release_relocated_forever<M: Mailbox, R: Runtime>(
    store: Store<M, R>,
    set: SetIndex,
    seats: Seats,
) {
    let mut after = None;
    loop {
        store.runtime().clone().sleep(SWEEP_INTERVAL).await;
        match store.release_relocated(set, seats.mask(), after).await {
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

/// Ends the uploads of a set that have rested for too long, for as long as the core runs. Of several
/// nodes, the one does it that has the first drive that answers.
pub async fn sweep_uploads_forever<M: Mailbox, R: Runtime>(
    store: Store<M, R>,
    set: SetIndex,
    seats: Seats,
    rest: UploadRest,
) {
    store.runtime().clone().sleep(rest.interval.min(FIRST_UPLOAD_SWEEP)).await;
    loop {
        if !has_first_that_answers(&store, set, &seats).await {
            store.runtime().clone().sleep(rest.interval).await;
            continue;
        }
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

async fn has_first_that_answers<M: Mailbox, R: Runtime>(
    store: &Store<M, R>,
    set: SetIndex,
    seats: &Seats,
) -> bool {
    if seats.are_all_here() {
        return true;
    }
    let drives = all_drives(store.mailbox().drive_count(set));
    let requests = drives_in(drives).map(|drive| (drive, Request::Status)).collect();
    let mut replies = store.mailbox().send(set, requests);
    let mut answering = 0;
    while let Some((drive, reply)) = replies.next().await {
        let is_there = !matches!(reply, Reply::Failed(_));
        answering |= if is_there { bit(drive) } else { 0 };
    }
    drives_in(answering).next().is_some_and(|first| seats.mask() & bit(first) != 0)
}

/// The settling of one set, window by window over its unsettled keys.
pub struct Upkeep<M: Mailbox, R: Runtime> {
    store: Store<M, R>,
    set: SetIndex,
    seats: Seats,
    /// Where the present window begins.
    after: Option<Key>,
    /// What the last look at this window saw.
    seen: BTreeMap<Key, Seen>,
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

/// An unsettled key as former looks at the window saw it.
#[derive(Clone, Copy)]
struct Seen {
    slot: Slot,
    since: Moment,
    /// It was worked on since.
    tried: bool,
}

/// One window of the union of the unsettled sets of the drives here, with what the other drives tell of
/// the same keys.
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
    /// The drives that call it unsettled, one bit each.
    drives: u16,
}

impl<M: Mailbox, R: Runtime> Upkeep<M, R> {
    pub fn new(store: Store<M, R>, set: SetIndex, seats: Seats) -> Self {
        assert_eq!(seats.nodes.len(), store.mailbox().drive_count(set));
        let report = Report { since: store.runtime().now(), settled: 0 };
        let seen = BTreeMap::new();
        Self { store, set, seats, after: None, seen, answering: 0, done_for_these: false, report }
    }

    /// Looks once at a window of the unsettled keys and settles what has been there for a while.
    pub async fn look(&mut self) -> Look {
        let window = self.window().await;
        if window.answering != self.answering {
            self.answering = window.answering;
            self.done_for_these = false;
            self.after = None;
        }
        let now = self.store.runtime().now();
        let wanted = |pending: &Pending| pending.lacking || !self.done_for_these;
        let wanted: Vec<(&Key, &Pending)> =
            window.keys.iter().filter(|(_, pending)| wanted(pending)).collect();
        let mut ripe = Vec::new();
        let mut unripe = 0;
        for (key, pending) in wanted {
            match self.stage_of(key, pending, now) {
                Stage::Ripe => ripe.push(key.clone()),
                Stage::Unripe => unripe += 1,
                Stage::Tried => {}
            }
        }
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
            self.note_seen(window, &ripe, now);
        }
        self.report_progress(look);
        look
    }

    fn stage_of(&self, key: &Key, pending: &Pending, now: Moment) -> Stage {
        let Some(seen) = self.seen.get(key).filter(|seen| seen.slot == pending.slot) else {
            return Stage::Unripe;
        };
        if self.seats.are_all_here() {
            return Stage::Ripe;
        }
        let is_first = self.seats.has_first(key, pending.drives);
        match now.since(seen.since) >= OTHERS_AFTER || is_first {
            _ if seen.tried => Stage::Tried,
            true => Stage::Ripe,
            false => Stage::Unripe,
        }
    }

    fn note_seen(&mut self, window: Window, tried: &[Key], now: Moment) {
        let before = std::mem::take(&mut self.seen);
        let seen = window.keys.into_iter().map(|(key, Pending { slot, .. })| {
            let known = before.get(&key).filter(|seen| seen.slot == slot);
            let known = known.copied().unwrap_or(Seen { slot, since: now, tried: false });
            let tried = known.tried || tried.binary_search(&key).is_ok();
            (key, Seen { tried, ..known })
        });
        self.seen = seen.collect();
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

    /// What the drives here call unsettled; where there is anything, the others are asked as well.
    async fn window(&self) -> Window {
        let mut window = Window { keys: BTreeMap::new(), next: None, answering: 0 };
        let here = self.seats.mask();
        self.ask(&mut window, here).await;
        if let Some(next) = &window.next {
            window.keys.retain(|key, _| key <= next);
        }
        let elsewhere = all_drives(self.seats.nodes.len()) & !here;
        if window.keys.is_empty() {
            // Nobody has asked them: let that not look like a change.
            window.answering |= self.answering & elsewhere;
        } else if elsewhere != 0 {
            let mut others = Window { keys: BTreeMap::new(), next: None, answering: 0 };
            self.ask(&mut others, elsewhere).await;
            window.answering |= others.answering;
            for (key, other) in others.keys {
                if let Some(pending) = window.keys.get_mut(&key) {
                    pending.slot = pending.slot.max(other.slot);
                    pending.lacking |= other.lacking;
                    pending.drives |= other.drives;
                }
            }
        }
        window
    }

    async fn ask(&self, window: &mut Window, drives: u16) {
        let request = || Request::Unsettled { after: self.after.clone(), limit: LOOK_KEYS };
        let requests = drives_in(drives).map(|drive| (drive, request())).collect();
        let mut replies = self.store.mailbox().send(self.set, requests);
        while let Some((drive, reply)) = replies.next().await {
            let Reply::Scanned { entries, more } = reply else { continue };
            window.answering |= bit(drive);
            if let Some(last) = entries.last().filter(|_| more) {
                let next = window.next.take().map_or(last.key.clone(), |n| n.min(last.key.clone()));
                window.next = Some(next);
            }
            for entry in entries {
                window.add(drive, entry);
            }
        }
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

/// What a look makes of a key.
enum Stage {
    /// Its writer, or another node, is probably still at it.
    Unripe,
    Ripe,
    /// More cannot be done in this walk.
    Tried,
}

impl Window {
    fn add(&mut self, drive: DriveIndex, entry: ScanEntry) {
        let lacking = !entry.certified || !entry.has_shards;
        let new = Pending { slot: entry.slot, lacking: false, drives: 0 };
        let pending = self.keys.entry(entry.key).or_insert(new);
        pending.drives |= bit(drive);
        pending.slot = pending.slot.max(entry.slot);
        pending.lacking |= lacking;
    }
}

struct Report {
    since: Moment,
    settled: usize,
}

#[cfg(test)]
mod tests {
    use basalt_engine::units::{Incarnation, Keyspace};

    use super::*;

    fn seats(here: u16) -> Seats {
        Seats::new([0, 1, 2, 0, 1, 2].map(NodeIndex).to_vec(), NodeIndex(here))
    }

    #[test]
    fn one_node_begins_with_a_key_whichever_drives_call_it_unsettled() {
        for number in 0..100u64 {
            let key = Key::new(Keyspace::Objects, Incarnation(1), &number.to_le_bytes());
            for drives in 1..1 << 6 {
                let first = (0..3).filter(|here| seats(*here).has_first(&key, drives));
                assert_eq!(first.count(), 1, "{key:?} of {drives:b}");
            }
        }
    }

    #[test]
    fn keys_begin_on_all_nodes() {
        let keys = (0..300u64)
            .map(|number| Key::new(Keyspace::Objects, Incarnation(1), &number.to_le_bytes()));
        let mut begun = [0; 3];
        for key in keys {
            for (here, begun) in begun.iter_mut().enumerate() {
                *begun += usize::from(seats(here as u16).has_first(&key, all_drives(6)));
            }
        }
        assert!(begun.iter().all(|begun| *begun > 50), "{begun:?}");
    }

    #[test]
    fn the_seats_of_a_node_are_its_own() {
        assert_eq!(seats(1).mask(), 0b10010);
        assert!(!seats(1).are_all_here());
        assert!(Seats::all_here(4).are_all_here());
        assert_eq!(Seats::all_here(4).mask(), 0b1111);
    }
}

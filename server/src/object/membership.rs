//! Who is in a set: maps of a set, decided like any other value, one epoch after the other.
//!
//! A blank drive that takes a lost one's place joins as a member that does not vote. Once the map that
//! says so is durable on W drives, every later decision has its W drives without help of the lost one.
//! A full compare then brings every key that R voting drives know to the newcomer; only after that a
//! next map lets it vote. An empty repair queue proves nothing; the compare does.

use std::collections::BTreeSet;
use std::time::Duration;

use basalt_engine::request::{Member, Reply, Request, SetMap};
use basalt_engine::seam::Runtime;
use basalt_engine::units::{DriveId, DriveIndex, Epoch, Incarnation, Key, Keyspace, SetIndex};
use basalt_net::mailbox::Mailbox;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::future::join_all;

use super::error::{Error, Result};
use super::register::Write;
use super::settle::Settled;
use super::store::Store;

/// Keys that one scan request asks for.
const SCAN_KEYS: u32 = 512;

/// Keys that a compare brings to the newcomer at the same time.
const IN_FLIGHT: usize = 8;
/// A compare that finds more keys than these lacking is begun anew; others are looked at again, for so
/// long and at this distance.
const LACKING_MAX: usize = 1_000;
const LOOK_AGAIN_FOR: Duration = Duration::from_secs(20);
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// How far a full compare has come.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Compared {
    pub keys: u64,
    /// Keys that the newcomer still lacks something of: it must not vote yet.
    pub lacking: u64,
}

impl<M: Mailbox, R: Runtime> Store<M, R> {
    /// Decides a map in which `drive`, not voting, has the place `position`. What stands there now is
    /// no voting drive any more, whatever the present map says: it may accept that map, and no more.
    pub async fn join(
        &self,
        set: SetIndex,
        position: DriveIndex,
        drive: DriveId,
    ) -> Result<SetMap> {
        self.set_candidate(set, position, true);
        let joined = self.change_member(set, position, Member { drive, voting: false }).await;
        self.set_candidate(set, position, false);
        joined
    }

    /// Decides a map in which `drive` votes, if it is still the one at `position`. To be called after a full compare that
    /// found nothing lacking.
    pub async fn admit(
        &self,
        set: SetIndex,
        position: DriveIndex,
        drive: DriveId,
    ) -> Result<SetMap> {
        let map = self.change_member(set, position, Member { drive, voting: true }).await?;
        self.install(set, &map).await?;
        Ok(map)
    }

    /// Makes `map` durable on every drive that answers, at least on W of them.
    pub async fn install(&self, set: SetIndex, map: &SetMap) -> Result<()> {
        let drives = self.mailbox().drive_count(set) as u8;
        let request = || Request::InstallMap { map: map.clone() };
        let requests = (0..drives).map(|drive| (DriveIndex(drive), request())).collect();
        let mut replies = self.mailbox().send(set, requests);
        let mut done = 0;
        while let Some((_, reply)) = replies.next().await {
            done += usize::from(matches!(reply, Reply::Done));
        }
        let needed = self.quorums(set).accept;
        if done < needed {
            let short_by = u32::try_from(needed - done).expect("at most sixteen");
            return Err(Error::Unavailable { set, action: "change its map", short_by });
        }
        self.learn_map(set, map.clone());
        Ok(())
    }

    /// The newest map that was decided, whether or not any drive has installed it.
    pub async fn decided_map(&self, set: SetIndex) -> Result<Option<SetMap>> {
        let read = self.read_key(set, &map_key(set)).await?;
        Ok(read.live().and_then(|record| decode_map(record.metadata())))
    }

    /// Looks at every key that R voting drives know and brings it to every drive that answers.
    /// `progress` is called after each page.
    ///
    /// A key that the newcomer lacks something of, because it is being written, or a drive did not answer
    /// just then, is looked at again before the end: under load there are always some, and to begin anew
    /// for them would never end.
    pub async fn compare(
        &self,
        set: SetIndex,
        newcomer: DriveIndex,
        mut progress: impl FnMut(Compared),
    ) -> Result<Compared> {
        let mut compared = Compared::default();
        let mut lacking = Vec::new();
        let mut after: Option<Key> = None;
        loop {
            let (keys, next) = self.scan_page(set, newcomer, after).await?;
            let keys: Vec<Key> = keys.into_iter().collect();
            compared.keys += keys.len() as u64;
            lacking.extend(self.bring(set, newcomer, keys).await);
            compared.lacking = lacking.len() as u64;
            progress(compared);
            if lacking.len() > LACKING_MAX {
                return Ok(compared);
            }
            match next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        let give_up = self.runtime().now().plus(LOOK_AGAIN_FOR);
        while !lacking.is_empty() && self.runtime().now() < give_up {
            self.runtime().clone().sleep(LOOK_AGAIN).await;
            lacking = self.bring(set, newcomer, lacking).await;
        }
        compared.lacking = lacking.len() as u64;
        Ok(compared)
    }

    /// Brings keys to every drive that answers, some at a time. Those come back of which the newcomer
    /// still lacks something, or may.
    async fn bring(&self, set: SetIndex, newcomer: DriveIndex, keys: Vec<Key>) -> Vec<Key> {
        let mut lacking = Vec::new();
        for some in keys.chunks(IN_FLIGHT) {
            let bringing = some.iter().map(|key| async move {
                match self.settle_key(set, key).await? {
                    Settled::Absent => Ok(true),
                    _ => self.is_complete_on(set, key, newcomer).await,
                }
            });
            let brought = join_all(bringing).await;
            let complete = brought.into_iter().map(|brought: Result<bool>| {
                // Unreadable, or drives do not answer: it keeps the newcomer waiting.
                brought.unwrap_or_else(|error| {
                    tracing::debug!(set = set.0, %error, "a key is not brought to a new drive yet");
                    false
                })
            });
            let rest = some.iter().zip(complete).filter(|(_, complete)| !complete);
            lacking.extend(rest.map(|(key, _)| key.clone()));
        }
        lacking
    }

    /// The keys after `after` that any of R voting drives knows, up to where the shortest page ends.
    async fn scan_page(
        &self,
        set: SetIndex,
        newcomer: DriveIndex,
        after: Option<Key>,
    ) -> Result<(BTreeSet<Key>, Option<Key>)> {
        let voting = self.voting_drives(set).into_iter().filter(|&drive| drive != newcomer);
        let requests = voting
            .map(|drive| (drive, Request::Scan { after: after.clone(), limit: SCAN_KEYS }))
            .collect();
        let mut replies = self.mailbox().send(set, requests);
        let mut keys = BTreeSet::new();
        let mut bound: Option<Key> = None;
        let mut pages = 0;
        while let Some((_, reply)) = replies.next().await {
            let Reply::Scanned { entries, more } = reply else { continue };
            pages += 1;
            let last = entries.last().map(|entry| entry.key.clone());
            if let Some(last) = last.filter(|_| more) {
                bound = Some(bound.map_or(last.clone(), |bound| bound.min(last)));
            }
            keys.extend(entries.into_iter().map(|entry| entry.key));
        }
        let needed = self.quorums(set).read;
        if pages < needed {
            let short_by = u32::try_from(needed - pages).expect("at most sixteen");
            return Err(Error::Unavailable { set, action: "be compared", short_by });
        }
        if let Some(bound) = &bound {
            keys.retain(|key| key <= bound);
        }
        Ok((keys, bound))
    }

    async fn is_complete_on(&self, set: SetIndex, key: &Key, drive: DriveIndex) -> Result<bool> {
        let Some((slot, record)) = self.decide_head(set, key).await? else { return Ok(true) };
        let digests = self.digests(set, key).await;
        let held = digests.get(&drive).and_then(|digest| {
            digest.slots.iter().find(|held| held.slot >= slot && held.certified)
        });
        Ok(held
            .is_some_and(|held| held.slot > slot || held.has_shards || record.payload_count() == 0))
    }

    /// Decides a map of the same members, one epoch on, and makes it durable: what was begun before
    /// and is not decided by then has come to nothing, wherever its messages are.
    pub(super) async fn renew_map(&self, set: SetIndex) -> Result<()> {
        let map = self.change_map(set, |_| Ok(())).await?;
        self.install(set, &map).await
    }

    async fn change_member(
        &self,
        set: SetIndex,
        position: DriveIndex,
        member: Member,
    ) -> Result<SetMap> {
        let change = |map: &mut SetMap| {
            let present = &mut map.drives[usize::from(position.0)];
            if member.voting && present.drive != member.drive {
                return Err(Error::Conflict);
            }
            *present = member;
            Ok(())
        };
        self.change_map(set, change).await
    }

    async fn change_map(
        &self,
        set: SetIndex,
        change: impl FnOnce(&mut SetMap) -> Result<()>,
    ) -> Result<SetMap> {
        let key = map_key(set);
        let before = self.read_key(set, &key).await?;
        // A map that was decided and never installed comes first.
        let decided = before.live().and_then(|record| decode_map(record.metadata()));
        if let Some(decided) = decided.filter(|decided| decided.epoch > self.map(set).epoch) {
            self.install(set, &decided).await?;
        }
        let mut map = self.map(set);
        map.epoch = Epoch(map.epoch.0 + 1);
        change(&mut map)?;
        let record = self.system_record(encode_map(&map));
        let write = Write::staged(key, record, before.condition(), &before, None);
        self.write_key(set, write).await?;
        Ok(map)
    }
}

/// The register that holds a set's map, on the set itself.
pub fn map_key(set: SetIndex) -> Key {
    let name = format!("map/{}", set.0);
    Key::new(Keyspace::System, Incarnation::default(), name.as_bytes())
}

/// Epoch (u64), drive count (u8), then for each drive its id (u128) and whether it votes (u8).
fn encode_map(map: &SetMap) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u64_le(map.epoch.0);
    out.put_u8(u8::try_from(map.drives.len()).expect("at most sixteen"));
    for member in &map.drives {
        out.put_u128_le(member.drive.0);
        out.put_u8(u8::from(member.voting));
    }
    out.freeze()
}

fn decode_map(mut bytes: Bytes) -> Option<SetMap> {
    let epoch = Epoch(bytes.try_get_u64_le().ok()?);
    let count = bytes.try_get_u8().ok()?;
    let mut drives = Vec::with_capacity(usize::from(count));
    for _ in 0..count {
        let drive = DriveId(bytes.try_get_u128_le().ok()?);
        drives.push(Member { drive, voting: bytes.try_get_u8().ok()? == 1 });
    }
    Some(SetMap { epoch, drives })
}

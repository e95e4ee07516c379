//! One core's view of the object store: its seams, the deployment, and what it knows of the sets.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use ahash::AHashMap;
use basalt_engine::request::{Request, SetMap};
use basalt_engine::seam::Runtime;
use basalt_engine::units::{
    DeploymentId, DriveIndex, Epoch, Incarnation, Key, PayloadId, SetIndex,
};
use basalt_net::mailbox::Mailbox;
use basalt_net::quorum::{self, Quorums, bit, drives_in};

use super::admission::Admission;
use super::api::{Bucket, StorageClass, Versioning};
use super::error::{Error, Result};
use super::hashing::Hashing;
use super::layout::Spread;
use super::lost::Missed;
use crate::placement;

const BUCKETS_REMEMBERED_MAX: usize = 10_000;

/// What every core of a node is told when it starts.
#[derive(Clone, Debug)]
pub struct Deployment {
    pub id: DeploymentId,
    /// The map of each set as it was found at the start.
    pub maps: Vec<SetMap>,
    /// Parity shards of each storage class, for each set.
    pub parity: Vec<ClassParity>,
    /// What every part of an upload but the last has at least.
    pub part_bytes_min: u64,
    /// Bytes of payload that a core has in memory on their way to drives, and as many on their way back.
    pub admitted_bytes_max: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClassParity {
    pub standard: u8,
    pub reduced_redundancy: u8,
}

/// Cheap to clone; all clones share the core's state.
pub struct Store<M: Mailbox, R: Runtime> {
    core: Rc<Core<M, R>>,
}

impl<M: Mailbox, R: Runtime> Clone for Store<M, R> {
    fn clone(&self) -> Self {
        Self { core: self.core.clone() }
    }
}

struct Core<M, R> {
    mailbox: M,
    runtime: R,
    deployment: DeploymentId,
    parity: Vec<ClassParity>,
    part_bytes_min: u64,
    quorums: Vec<Quorums>,
    maps: RefCell<Vec<SetMap>>,
    /// Places where a drive stands that waits to join its set, one bit each, for each set.
    candidates: RefCell<Vec<u16>>,
    /// Drives that did not answer when they were asked last, one bit each, for each set: others are
    /// asked first.
    silent: RefCell<Vec<u16>>,
    /// The incarnations that buckets had when they were looked at last. Nothing goes through them in
    /// order.
    buckets: RefCell<AHashMap<String, Known>>,
    degraded_reads: Cell<u64>,
    missed: RefCell<Missed>,
    hashing: Hashing,
    writing: Admission,
    reading: Admission,
}

/// What a core knows of a bucket without asking.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Known {
    pub incarnation: Incarnation,
    /// Whether answers tell the names of versions. No write goes by it.
    pub keeps_versions: bool,
}

impl Known {
    pub(super) fn of(bucket: &Bucket) -> Self {
        let keeps_versions = bucket.versioning != Versioning::Unset;
        Self { incarnation: bucket.incarnation, keeps_versions }
    }
}

/// Where a key lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    pub set: SetIndex,
    /// The drive that holds shard 0 of what is written now.
    pub first_drive: DriveIndex,
}

impl<M: Mailbox, R: Runtime> Store<M, R> {
    pub fn new(mailbox: M, runtime: R, deployment: Deployment) -> Self {
        let quorums = deployment.maps.iter().map(|map| Quorums::of(map.drive_count())).collect();
        Self::with_quorums(mailbox, runtime, deployment, quorums)
    }

    /// As [`Self::new`], with the quorums of each set; for tests of what other ones would do.
    pub fn with_quorums(
        mailbox: M,
        runtime: R,
        deployment: Deployment,
        quorums: Vec<Quorums>,
    ) -> Self {
        assert_eq!(deployment.maps.len(), deployment.parity.len());
        let sets = deployment.maps.len();
        let core = Core {
            mailbox,
            runtime,
            deployment: deployment.id,
            parity: deployment.parity,
            part_bytes_min: deployment.part_bytes_min,
            quorums,
            maps: RefCell::new(deployment.maps),
            candidates: RefCell::new(vec![0; sets]),
            silent: RefCell::new(vec![0; sets]),
            buckets: RefCell::default(),
            degraded_reads: Cell::new(0),
            missed: RefCell::default(),
            hashing: Hashing::default(),
            writing: Admission::new(deployment.admitted_bytes_max),
            reading: Admission::new(deployment.admitted_bytes_max),
        };
        Self { core: Rc::new(core) }
    }

    pub fn runtime(&self) -> &R {
        &self.core.runtime
    }
    /// Room for payload on its way to drives.
    pub(super) fn writing(&self) -> &Admission {
        &self.core.writing
    }
    /// Room for payload on its way from drives.
    pub(super) fn reading(&self) -> &Admission {
        &self.core.reading
    }
    /// Bytes of payload that this core has in memory.
    pub fn admitted_bytes(&self) -> u64 {
        self.core.writing.admitted_bytes() + self.core.reading.admitted_bytes()
    }
    pub(super) fn part_bytes_min(&self) -> u64 {
        self.core.part_bytes_min
    }
    pub(super) fn hashing(&self) -> &Hashing {
        &self.core.hashing
    }
    pub fn mailbox(&self) -> &M {
        &self.core.mailbox
    }

    pub fn sets(&self) -> impl Iterator<Item = SetIndex> + use<M, R> {
        let count = u16::try_from(self.core.parity.len()).expect("fewer than 2^16 sets");
        (0..count).map(SetIndex)
    }

    pub fn place(&self, bucket: &str, key: &[u8]) -> Place {
        let sets = self.core.parity.len();
        let partition = placement::partition(self.core.deployment, bucket, key);
        let set = placement::set_of(partition, sets);
        let drives = self.drive_count(set);
        let first_drive = placement::first_drive(self.core.deployment, bucket, key, drives);
        Place { set, first_drive }
    }

    /// How to spread a payload now, given which drives answered a moment ago (one bit each).
    pub(super) fn spread(
        &self,
        place: Place,
        class: StorageClass,
        answered: u16,
    ) -> Result<Spread> {
        let set = place.set;
        let drives = u8::try_from(self.drive_count(set)).expect("at most sixteen");
        let parity = self.parity(set, class);
        let down = !answered & ((1u32 << drives) - 1) as u16;
        let live = usize::from(drives) - down.count_ones() as usize;
        let data = quorum::data_shards(drives, parity, live).ok_or_else(|| {
            let needed = self.quorums(set).accept;
            let short_by = u32::try_from(needed.saturating_sub(live).max(1)).expect("small");
            Error::Unavailable { set, action: "take new objects", short_by }
        })?;
        Ok(Spread { set, drives, parity, data, first_drive: place.first_drive.0, down })
    }

    fn parity(&self, set: SetIndex, class: StorageClass) -> u8 {
        let parity = self.core.parity[usize::from(set.0)];
        match class {
            StorageClass::Standard => parity.standard,
            StorageClass::ReducedRedundancy => parity.reduced_redundancy,
        }
    }

    pub fn map(&self, set: SetIndex) -> SetMap {
        self.core.maps.borrow()[usize::from(set.0)].clone()
    }

    /// The epoch of the set's map.
    pub(super) fn epoch(&self, set: SetIndex) -> Epoch {
        self.core.maps.borrow()[usize::from(set.0)].epoch
    }

    fn drive_count(&self, set: SetIndex) -> usize {
        self.core.maps.borrow()[usize::from(set.0)].drive_count()
    }

    /// Takes note of a newer map; older ones are ignored.
    pub fn learn_map(&self, set: SetIndex, map: SetMap) {
        let mut maps = self.core.maps.borrow_mut();
        let known = &mut maps[usize::from(set.0)];
        if map.epoch > known.epoch {
            tracing::info!(set = set.0, epoch = map.epoch.0, "map of the set changed");
            *known = map;
        }
    }

    pub(super) fn quorums(&self, set: SetIndex) -> Quorums {
        self.core.quorums[usize::from(set.0)]
    }

    pub(super) fn set_candidate(&self, set: SetIndex, drive: DriveIndex, waits: bool) {
        let candidates = &mut self.core.candidates.borrow_mut()[usize::from(set.0)];
        *candidates = *candidates & !(1 << drive.0) | u16::from(waits) << drive.0;
    }

    pub(super) fn is_voting(&self, set: SetIndex, drive: DriveIndex) -> bool {
        let maps = self.core.maps.borrow();
        let candidates = self.core.candidates.borrow()[usize::from(set.0)];
        maps[usize::from(set.0)].drives[usize::from(drive.0)].voting
            && candidates & 1 << drive.0 == 0
    }

    pub(super) fn voting_drives(&self, set: SetIndex) -> Vec<DriveIndex> {
        drives_in(self.voting_mask(set)).collect()
    }

    /// The drives that vote, one bit each.
    pub(super) fn voting_mask(&self, set: SetIndex) -> u16 {
        let maps = self.core.maps.borrow();
        let voting = maps[usize::from(set.0)].drives.iter().map(|member| u16::from(member.voting));
        let voting = voting.zip(0..).fold(0, |mask, (votes, drive)| mask | votes << drive);
        voting & !self.core.candidates.borrow()[usize::from(set.0)]
    }

    /// `count` voting drives to ask first, one bit each, and the first of them: from `start` around the
    /// set, those that answered lately before the others.
    pub(super) fn drives_to_ask(
        &self,
        set: SetIndex,
        start: DriveIndex,
        count: usize,
    ) -> (u16, u16) {
        let drives = self.quorums(set).drives as u8;
        let silent = self.core.silent.borrow()[usize::from(set.0)];
        let around = || (0..drives).map(|step| DriveIndex((start.0 + step) % drives));
        let is_silent = |drive: &DriveIndex| silent & bit(*drive) != 0;
        let first = around().filter(|drive| !is_silent(drive));
        let ordered = first.chain(around().filter(is_silent));
        let voting = self.voting_mask(set);
        let chosen = ordered.filter(|&drive| voting & bit(drive) != 0).take(count);
        let masks = chosen.map(bit);
        masks.fold((0, 0), |(all, nearest), one| (all | one, if all == 0 { one } else { nearest }))
    }

    pub(super) fn note_silent(&self, set: SetIndex, silent: u16, answered: u16) {
        let known = &mut self.core.silent.borrow_mut()[usize::from(set.0)];
        *known = (*known | silent) & !answered;
    }

    /// What a bucket was when this core looked last; it may be gone by now.
    pub(super) fn remembered_bucket(&self, name: &str) -> Option<Known> {
        self.core.buckets.borrow().get(name).copied()
    }

    pub(super) fn remember_bucket(&self, name: &str, bucket: Option<&Bucket>) {
        let mut buckets = self.core.buckets.borrow_mut();
        match bucket {
            None => drop(buckets.remove(name)),
            Some(bucket) => {
                if buckets.len() >= BUCKETS_REMEMBERED_MAX {
                    buckets.clear();
                }
                buckets.insert(name.to_owned(), Known::of(bucket));
            }
        }
    }

    /// Frees a payload that will never be proposed, as far as its drives can be reached.
    pub(super) fn discard(&self, set: SetIndex, payload: PayloadId, drives: &[DriveIndex]) {
        let requests = drives.iter().map(|&drive| (drive, Request::Discard { payload })).collect();
        drop(self.core.mailbox.send(set, requests));
    }

    /// Tells a drive that its shard is wrong, so that repair rebuilds it; `key` was being read.
    pub(super) fn report_wrong_shard(
        &self,
        key: &Key,
        set: SetIndex,
        drive: DriveIndex,
        payload: PayloadId,
    ) {
        tracing::warn!(set = set.0, drive = drive.0, %payload, "shard is wrong; repair will rebuild it");
        let request = Request::DropShard { payload, key: key.clone() };
        drop(self.core.mailbox.send(set, vec![(drive, request)]));
    }

    pub(super) fn missed(&self) -> &RefCell<Missed> {
        &self.core.missed
    }

    pub(super) fn count_degraded_read(&self) {
        self.core.degraded_reads.set(self.core.degraded_reads.get() + 1);
    }
}

//! The places where drives are put: what stands in each of them outlives the node's process.
//!
//! A place holds nothing, foreign files, or a disk; it can be unplugged and plugged in again. The
//! drive's own disk is exchanged by taking the old one away for good and leaving a blank place.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use basalt_engine::Error;
use basalt_engine::sim::{Latency, SimDisk, SimRuntime, SimStorage};
use basalt_engine::superblock::Copies;
use basalt_engine::units::{BlockCount, DriveIndex};
use basalt_server::node::formation::{Found, Identity};
use basalt_server::node::host::Bay;

/// What one drive's place holds.
pub struct Place {
    name: String,
    /// Seeds of the disks that are put here, one after the other.
    seed: Cell<u64>,
    length_max: BlockCount,
    latency: Latency,
    contents: RefCell<Contents>,
    /// Unplugged: whatever it holds cannot be reached.
    unplugged: Cell<bool>,
    /// It is the one of its set that may lose what it holds.
    pub may_fail: Cell<bool>,
    /// The end of its journal was lost, and nothing written since shows it: it cannot know.
    pub forgets: Cell<bool>,
}

enum Contents {
    Blank,
    Foreign,
    Disk(SimDisk),
}

impl Place {
    pub fn new(name: String, seed: u64, length_max: BlockCount, latency: Latency) -> Self {
        Self {
            name,
            seed: Cell::new(seed),
            length_max,
            latency,
            contents: RefCell::new(Contents::Blank),
            unplugged: Cell::new(false),
            may_fail: Cell::new(false),
            forgets: Cell::new(false),
        }
    }

    pub fn disk(&self) -> Option<SimDisk> {
        match &*self.contents.borrow() {
            Contents::Disk(disk) => Some(disk.clone()),
            Contents::Blank | Contents::Foreign => None,
        }
    }

    pub fn unplug(&self) {
        self.unplugged.set(true);
        self.disk().iter().for_each(SimDisk::vanish);
    }

    pub fn plug_in(&self) {
        self.unplugged.set(false);
        self.disk().iter().for_each(SimDisk::reappear);
    }

    /// The drive is taken away for good; an empty directory is left.
    pub fn exchange(&self) {
        self.take_away();
        *self.contents.borrow_mut() = Contents::Blank;
    }

    /// As [`Self::exchange`], where the drive is one that was meant to lose what it holds: no other one
    /// may have to be given up.
    pub fn exchange_victim(&self) {
        assert!(self.may_fail.get(), "{} does not come back", self.name);
        self.exchange();
    }

    /// Somebody's files are put where the drive was.
    pub fn overwrite(&self) {
        self.take_away();
        *self.contents.borrow_mut() = Contents::Foreign;
    }

    pub fn is_foreign(&self) -> bool {
        matches!(&*self.contents.borrow(), Contents::Foreign)
    }

    pub fn power_cut(&self) {
        self.disk().iter().for_each(SimDisk::power_cut);
    }

    fn take_away(&self) {
        if let Some(disk) = self.disk() {
            disk.vanish();
            disk.release();
        }
    }

    fn next_seed(&self) -> u64 {
        let seed = self.seed.get();
        self.seed.set(seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
        seed
    }
}

/// A place as one life of the node sees it.
pub struct SimBay {
    place: Rc<Place>,
    runtime: SimRuntime,
}

impl SimBay {
    pub fn new(place: Rc<Place>, runtime: SimRuntime) -> Self {
        Self { place, runtime }
    }
}

impl Bay for SimBay {
    type Storage = SimStorage;

    fn name(&self) -> String {
        self.place.name.clone()
    }

    async fn look(&self) -> Found {
        if self.place.unplugged.get() {
            return Found::Unusable("the directory is not there".to_owned());
        }
        let disk = match &*self.place.contents.borrow() {
            Contents::Blank => return Found::Blank,
            Contents::Foreign => return Found::Unusable("it holds foreign files".to_owned()),
            Contents::Disk(disk) => disk.clone(),
        };
        let storage = disk.look(&self.runtime);
        let copies = match Copies::read(&storage).await {
            Ok(copies) => copies,
            Err(error) => return Found::Unusable(error.to_string()),
        };
        if self.place.unplugged.get() {
            return Found::Unusable("the directory is not there".to_owned());
        }
        match copies.chosen() {
            Some(superblock) => Found::Ours(Identity {
                drive: superblock.drive,
                deployment: superblock.deployment,
                set: superblock.set,
                position: DriveIndex(superblock.position),
                forming: superblock.forming,
                map: superblock.map.clone(),
            }),
            None if copies.is_blank() => Found::Blank,
            None => Found::Unusable("it has no valid superblock".to_owned()),
        }
    }

    async fn open(&self) -> Result<SimStorage, Error> {
        if self.place.forgets.replace(false) {
            self.place.exchange();
        }
        match self.place.disk() {
            Some(disk) => Ok(disk.open(&self.runtime)),
            None => Err(Error::Unavailable { reason: "the directory is empty" }),
        }
    }

    async fn create(&self) -> Result<SimStorage, Error> {
        if self.place.unplugged.get() {
            return Err(Error::Unavailable { reason: "the directory is not there" });
        }
        let disk = SimDisk::new(self.place.next_seed(), self.place.length_max);
        disk.set_latency(self.place.latency.clone());
        *self.place.contents.borrow_mut() = Contents::Disk(disk.clone());
        Ok(disk.open(&self.runtime))
    }
}

//! A directory as the place of a drive. Nothing but our own data file is ever written there, and a
//! directory that holds anything else is never formatted.

use std::cell::RefCell;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use basalt_engine::Error;
use basalt_engine::runtime::{DirectStorage, GlommioRuntime};
use basalt_engine::seam::Clock;
use basalt_engine::superblock::Copies;
use basalt_engine::units::{BLOCK_BYTES, BlockCount, DriveIndex};

use super::drives::{self, DATA_FILE, Drive, SPACE_PERCENT, State};
use super::formation::{Found, Identity};
use super::host::Bay;

/// How long a killed process may take to let its files go.
const DYING_PROCESS: Duration = Duration::from_secs(4);
const LOCK_LOOK: Duration = Duration::from_millis(20);

pub struct DirectoryBay {
    runtime: GlommioRuntime,
    place: Drive,
    /// Held while the drive is open, against a second process.
    lock: RefCell<Option<File>>,
}

impl DirectoryBay {
    pub fn new(runtime: GlommioRuntime, place: Drive) -> Self {
        Self { runtime, place, lock: RefCell::new(None) }
    }

    fn data_file(&self) -> PathBuf {
        self.place.path.join(DATA_FILE)
    }

    fn take_lock(&self) -> Result<(), Error> {
        let refused = |reason: String, remedy: &str| Error::Refused {
            path: self.place.path.clone(),
            reason,
            remedy: remedy.to_owned(),
        };
        self.lock.borrow_mut().take();
        let directory = File::open(&self.place.path)
            .map_err(|error| refused(format!("cannot be opened: {error}"), "Check the drive"))?;
        directory.try_lock().map_err(|_| Error::InUse { path: self.place.path.clone() })?;
        *self.lock.borrow_mut() = Some(directory);
        Ok(())
    }

    /// How far the data file may grow: its length now, and its share of what is free.
    fn length_max(&self) -> Result<BlockCount, Error> {
        let length = fs::metadata(self.data_file()).map_or(0, |metadata| metadata.len());
        let free = free_bytes(&self.place.path).map_err(|error| Error::Refused {
            path: self.place.path.clone(),
            reason: format!("the space of its file system cannot be found out: {error}"),
            remedy: "Check the drive".to_owned(),
        })?;
        // A place that was not usable at the start was not counted among those that share.
        let sharing = self.place.sharing.max(1) as u64;
        let share = free / 100 * SPACE_PERCENT / sharing;
        Ok(BlockCount((length + share) / BLOCK_BYTES as u64))
    }

    /// Opens the data file. After a process was killed, the kernel still holds its file for as long
    /// as operations of its ring are in flight; the directory's lock is free at once and tells that
    /// case from another process that lives.
    async fn open_file(&self) -> Result<DirectStorage, Error> {
        let give_up = self.runtime.now().plus(DYING_PROCESS);
        loop {
            let length_max = self.length_max()?;
            match DirectStorage::open(&self.runtime, &self.data_file(), length_max) {
                Err(Error::InUse { .. }) if self.runtime.now() < give_up => {
                    self.runtime.sleep(LOCK_LOOK).await;
                }
                result => return result,
            }
        }
    }
}

impl Bay for DirectoryBay {
    type Storage = DirectStorage;

    fn name(&self) -> String {
        self.place.path.display().to_string()
    }

    async fn look(&self) -> Found {
        match drives::look(&self.place.path, self.place.terms) {
            State::Refused(fault) => return Found::Unusable(fault.to_string()),
            State::Blank => return Found::Blank,
            State::Ours => {}
        }
        let opened = match self.take_lock() {
            Ok(()) => self.open_file().await,
            Err(error) => Err(error),
        };
        let copies = match opened {
            Ok(storage) => Copies::read(&storage).await,
            Err(error) => Err(error),
        };
        let copies = match copies {
            Ok(copies) => copies,
            Err(error) => return Found::Unusable(error.to_string()),
        };
        match copies.chosen() {
            Some(superblock) => Found::Ours(Identity {
                drive: superblock.drive,
                deployment: superblock.deployment,
                set: superblock.set,
                position: DriveIndex(superblock.position),
                forming: superblock.forming,
                map: superblock.map.clone(),
            }),
            // A format that a power cut interrupted before anything was there to lose.
            None if copies.is_blank() => Found::Blank,
            None => Found::Unusable(format!(
                "{DATA_FILE} has no valid superblock: it is not a drive, or was overwritten. \
                 Empty the directory to have the drive filled again from the others"
            )),
        }
    }

    async fn open(&self) -> Result<DirectStorage, Error> {
        self.take_lock()?;
        self.open_file().await
    }

    async fn create(&self) -> Result<DirectStorage, Error> {
        self.take_lock()?;
        // A blank data file is what an interrupted format leaves.
        match fs::remove_file(self.data_file()) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(Error::Refused {
                    path: self.data_file(),
                    reason: format!("cannot be replaced: {error}"),
                    remedy: "Check the drive".to_owned(),
                });
            }
            _ => {}
        }
        DirectStorage::create(&self.runtime, &self.data_file(), self.length_max()?)
    }
}

fn free_bytes(directory: &Path) -> std::io::Result<u64> {
    let space = rustix::fs::statvfs(directory)?;
    Ok(space.f_bavail * space.f_frsize)
}

//! A drive's data file behind the storage seam: opened with O_DIRECT, all I/O on the ring of the
//! core that opened it.
//!
//! The file is held with an exclusive lock for as long as it is open, so two processes never write
//! one drive. [`Storage::probe`] compares what the path leads to now with the file that is open: a
//! drive whose directory was renamed, deleted or replaced is no longer there.

use std::cell::Cell;
use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::GlommioRuntime;
use super::ring::{Finished, Lane, Operation, Ring};
use crate::buffer::{Buffer, SharedBuffer};
use crate::error::{Error, Result};
use crate::seam::{Geometry, Storage, WriteSync};
use crate::units::{BLOCK_BYTES, BlockCount, BlockIndex};

/// A clone is the same open file.
#[derive(Clone)]
pub struct DirectStorage {
    inner: Rc<Inner>,
}

struct Inner {
    ring: Ring,
    lane: Rc<Lane>,
    path: PathBuf,
    device: u64,
    inode: u64,
    length: Cell<BlockCount>,
    length_max: BlockCount,
}

impl DirectStorage {
    /// Opens the data file at `path`, which may grow to `length_max`.
    pub fn open(runtime: &GlommioRuntime, path: &Path, length_max: BlockCount) -> Result<Self> {
        Self::with_file(runtime, path, length_max, OpenOptions::new().read(true).write(true))
    }

    /// Makes an empty data file at `path`, which must not exist.
    pub fn create(runtime: &GlommioRuntime, path: &Path, length_max: BlockCount) -> Result<Self> {
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create_new(true).mode(0o600);
        let storage = Self::with_file(runtime, path, length_max, options)?;
        sync_directory_of(path).map_err(|error| {
            refused(
                path,
                format!("its directory cannot be made durable: {error}"),
                "Check the file system",
            )
        })?;
        Ok(storage)
    }

    fn with_file(
        runtime: &GlommioRuntime,
        path: &Path,
        length_max: BlockCount,
        options: &mut OpenOptions,
    ) -> Result<Self> {
        let file = options
            .custom_flags(libc::O_DIRECT | libc::O_CLOEXEC)
            .open(path)
            .map_err(|error| refused_open(path, &error))?;
        let metadata = file.metadata().map_err(|error| {
            refused(path, format!("cannot be examined: {error}"), "Check the drive")
        })?;
        if !metadata.is_file() {
            return Err(refused(
                path,
                "is not a regular file".into(),
                "Name a directory on a file system",
            ));
        }
        lock(&file, path)?;
        check_direct_io(&file, path, metadata.len())?;
        let length = BlockCount(metadata.len() / BLOCK_BYTES as u64);
        Ok(Self {
            inner: Rc::new(Inner {
                ring: runtime.core.ring.clone(),
                path: path.to_path_buf(),
                device: metadata.dev(),
                inode: metadata.ino(),
                length: Cell::new(length),
                length_max: length_max.max(length),
                lane: Lane::new(file),
            }),
        })
    }

    async fn run(&self, operation: Operation) -> Finished {
        self.inner.ring.begin(&self.inner.lane, operation).await
    }

    fn assert_within(&self, at: BlockIndex, buffer: &[u8]) {
        let end = at.plus(BlockCount((buffer.len() / BLOCK_BYTES) as u64));
        let length = self.inner.length.get();
        assert!(end.0 <= length.0, "blocks up to {end:?} of a file of {length:?}");
    }

    /// The error for `errno`, which the file system answered to `operation`.
    fn io_error(&self, operation: &'static str, at: BlockIndex, errno: i32) -> Error {
        match errno {
            libc::ENOSPC | libc::EDQUOT => {
                let (free_bytes, capacity_bytes) = self.space().unwrap_or((0, 0));
                Error::Full { free_bytes, capacity_bytes }
            }
            libc::ESHUTDOWN => Error::Unavailable { reason: "the core is shutting down" },
            _ => Error::Io { operation, at, errno },
        }
    }

    /// Bytes free and in all of the file system.
    fn space(&self) -> io::Result<(u64, u64)> {
        // SAFETY: an all-zero statfs is a valid value.
        let mut answer: libc::statfs = unsafe { std::mem::zeroed() };
        let fd = self.inner.lane.file().as_raw_fd();
        // SAFETY: `answer` is a valid place for the answer.
        if unsafe { libc::fstatfs(fd, &raw mut answer) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let unit = u64::try_from(answer.f_bsize).unwrap_or(0);
        Ok((answer.f_bavail.saturating_mul(unit), answer.f_blocks.saturating_mul(unit)))
    }
}

impl Storage for DirectStorage {
    fn geometry(&self) -> Geometry {
        Geometry { length: self.inner.length.get(), length_max: self.inner.length_max }
    }

    async fn read(&self, at: BlockIndex, buffer: Buffer) -> (Buffer, Result<()>) {
        self.assert_within(at, &buffer);
        let finished = self.run(Operation::Read { at, buffer }).await;
        let Operation::Read { buffer, .. } = finished.operation else { unreachable!() };
        (buffer, finished.result.map_err(|errno| self.io_error("read", at, errno)))
    }

    async fn write(
        &self,
        at: BlockIndex,
        buffer: impl Into<SharedBuffer>,
        sync: WriteSync,
    ) -> Result<()> {
        let buffer = buffer.into();
        self.assert_within(at, &buffer);
        let finished = self.run(Operation::Write { at, buffer, sync }).await;
        finished.result.map_err(|errno| self.io_error("write", at, errno))
    }

    async fn flush(&self) -> Result<()> {
        let finished = self.run(Operation::Sync { metadata: false }).await;
        finished.result.map_err(|errno| Error::FlushFailed { errno })
    }

    async fn grow(&self, length: BlockCount) -> Result<()> {
        let present = self.inner.length.get();
        if length <= present {
            return Ok(());
        }
        if length > self.inner.length_max {
            return Err(Error::Limit { what: "length of a drive", limit: self.inner.length_max.0 });
        }
        let at = BlockIndex(present.0);
        let from_bytes = present.bytes();
        let length_bytes = length.bytes() - from_bytes;
        let allocated = self.run(Operation::Allocate { from_bytes, length_bytes }).await;
        allocated.result.map_err(|errno| self.io_error("grow", at, errno))?;
        let synced = self.run(Operation::Sync { metadata: true }).await;
        synced.result.map_err(|errno| Error::FlushFailed { errno })?;
        self.inner.length.set(self.inner.length.get().max(length));
        Ok(())
    }

    async fn probe(&self) -> Result<()> {
        let path = CString::new(self.inner.path.as_os_str().as_bytes())
            .map_err(|_| Error::Unavailable { reason: "its path has a zero byte" })?;
        // SAFETY: an all-zero statx is a valid value.
        let answer: Box<libc::statx> = Box::new(unsafe { std::mem::zeroed() });
        let finished = self.run(Operation::Stat { path, answer }).await;
        let Operation::Stat { answer, .. } = finished.operation else { unreachable!() };
        if finished.result.is_err() {
            return Err(Error::Unavailable { reason: "nothing can be reached at its path" });
        }
        let device = libc::makedev(answer.stx_dev_major, answer.stx_dev_minor);
        if (device, answer.stx_ino) != (self.inner.device, self.inner.inode) {
            return Err(Error::Unavailable { reason: "another file is at its path" });
        }
        Ok(())
    }

    async fn free(&self) -> Result<BlockCount> {
        let (free_bytes, _) = self.space().map_err(|error| {
            let errno = error.raw_os_error().unwrap_or(libc::EIO);
            self.io_error("statfs", BlockIndex(0), errno)
        })?;
        let growth = self.inner.length_max.0 - self.inner.length.get().0;
        Ok(BlockCount(growth.min(free_bytes / BLOCK_BYTES as u64)))
    }
}

fn refused(path: &Path, reason: String, remedy: &str) -> Error {
    Error::Refused { path: path.to_path_buf(), reason, remedy: remedy.to_owned() }
}

fn refused_open(path: &Path, error: &io::Error) -> Error {
    let remedy = match error.raw_os_error() {
        Some(libc::EINVAL) => {
            "Its file system does not do direct I/O: use a directory on xfs or ext4, not on tmpfs \
             or an overlay"
        }
        Some(libc::EACCES | libc::EPERM) => "Give the user of this process read and write access",
        Some(libc::EROFS) => "Mount the file system for writing",
        _ => "Check the path and the drive",
    };
    refused(path, format!("cannot be opened: {error}"), remedy)
}

/// Takes the exclusive lock, which the kernel drops with the open file.
fn lock(file: &File, path: &Path) -> Result<()> {
    // SAFETY: plain system call on an open descriptor.
    if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
        return Ok(());
    }
    Err(Error::InUse { path: path.to_path_buf() })
}

/// Reads the first block, so that a device whose unit of direct I/O is larger than a block is
/// found out now and not at the first request.
fn check_direct_io(file: &File, path: &Path, length_bytes: u64) -> Result<()> {
    if length_bytes < BLOCK_BYTES as u64 {
        return Ok(());
    }
    let mut block = Buffer::zeroed(BlockCount(1));
    file.read_exact_at(&mut block, 0).map_err(|error| {
        let reason = format!("a block of {BLOCK_BYTES} bytes cannot be read directly: {error}");
        refused(
            path,
            reason,
            "Use a drive with sectors of at most 4096 bytes, and check its health",
        )
    })
}

fn sync_directory_of(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests;

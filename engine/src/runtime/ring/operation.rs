//! One operation of the ring: what is asked, the memory it needs, and what follows from each answer
//! of the kernel.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ffi::CString;
use std::fs::File;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::task::Waker;

use io_uring::types::{Fd, FsyncFlags};
use io_uring::{opcode, squeue};

use crate::buffer::{Buffer, SharedBuffer};
use crate::seam::WriteSync;
use crate::units::{BLOCK_BYTES, BlockIndex};

/// How often an operation that makes no progress is tried again.
const RETRIES_MAX: u32 = 1000;

/// A file, and its transfers in the kernel and in line.
pub(in crate::runtime) struct Lane {
    pub(super) file: File,
    pub(super) transfers: Cell<u32>,
    pub(super) line: RefCell<VecDeque<u32>>,
}

impl Lane {
    pub(in crate::runtime) fn new(file: File) -> Rc<Self> {
        Rc::new(Self { file, transfers: Cell::new(0), line: RefCell::default() })
    }

    pub(in crate::runtime) fn file(&self) -> &File {
        &self.file
    }

    #[cfg(test)]
    pub(in crate::runtime) fn transfers(&self) -> u32 {
        self.transfers.get()
    }
}

/// What is asked of the kernel, with the memory it needs.
pub(in crate::runtime) enum Operation {
    Read {
        at: BlockIndex,
        buffer: Buffer,
    },
    Write {
        at: BlockIndex,
        buffer: SharedBuffer,
        sync: WriteSync,
    },
    /// fdatasync, or fsync with `metadata`.
    Sync {
        metadata: bool,
    },
    Allocate {
        from_bytes: u64,
        length_bytes: u64,
    },
    Stat {
        path: CString,
        answer: Box<libc::statx>,
    },
}

/// An operation that ended: itself with its memory, and 0 or the error number.
pub(in crate::runtime) struct Finished {
    pub(in crate::runtime) operation: Operation,
    pub(in crate::runtime) result: Result<(), i32>,
}

impl Operation {
    pub(super) fn is_transfer(&self) -> bool {
        matches!(self, Self::Read { .. } | Self::Write { .. })
    }

    /// The submission for what is left after `done_bytes`.
    pub(super) fn entry(&mut self, fd: RawFd, done_bytes: usize) -> squeue::Entry {
        let fd = Fd(fd);
        match self {
            Self::Read { at, buffer } => {
                let rest = &mut buffer[done_bytes..];
                opcode::Read::new(fd, rest.as_mut_ptr(), length_u32(rest.len()))
                    .offset(at.offset_bytes() + done_bytes as u64)
                    .build()
            }
            Self::Write { at, buffer, sync } => {
                let rest = &buffer[done_bytes..];
                let flags = match sync {
                    WriteSync::Cached => 0,
                    WriteSync::Durable => libc::RWF_DSYNC,
                };
                opcode::Write::new(fd, rest.as_ptr(), length_u32(rest.len()))
                    .offset(at.offset_bytes() + done_bytes as u64)
                    .rw_flags(flags)
                    .build()
            }
            Self::Sync { metadata } => {
                let flags = if *metadata { FsyncFlags::empty() } else { FsyncFlags::DATASYNC };
                opcode::Fsync::new(fd).flags(flags).build()
            }
            Self::Allocate { from_bytes, length_bytes } => {
                opcode::Fallocate::new(fd, *length_bytes).offset(*from_bytes).build()
            }
            Self::Stat { path, answer } => {
                let answer: *mut libc::statx = &raw mut **answer;
                opcode::Statx::new(Fd(libc::AT_FDCWD), path.as_ptr(), answer.cast())
                    .mask(libc::STATX_INO)
                    .build()
            }
        }
    }

    /// Bytes that have to be moved before the operation is complete.
    fn length_bytes(&self) -> usize {
        match self {
            Self::Read { buffer, .. } => buffer.len(),
            Self::Write { buffer, .. } => buffer.len(),
            Self::Sync { .. } | Self::Allocate { .. } | Self::Stat { .. } => 0,
        }
    }
}

pub(super) fn length_u32(length: usize) -> u32 {
    u32::try_from(length).expect("a buffer is shorter than 4 GiB")
}

/// An operation in the table.
pub(super) struct Slot {
    pub(super) operation: Operation,
    pub(super) lane: Rc<Lane>,
    pub(super) done_bytes: usize,
    retries: u32,
    pub(super) result: Option<Result<(), i32>>,
    pub(super) waker: Option<Waker>,
    pub(super) abandoned: bool,
}

pub(super) enum Step {
    Again,
    Ended(Result<(), i32>),
}

impl Slot {
    pub(super) fn new(operation: Operation, lane: &Rc<Lane>) -> Self {
        Self {
            operation,
            lane: Rc::clone(lane),
            done_bytes: 0,
            retries: 0,
            result: None,
            waker: None,
            abandoned: false,
        }
    }

    /// What follows from the kernel's answer to the last submission.
    pub(super) fn step(&mut self, answer: i32) -> Step {
        let length_bytes = self.operation.length_bytes();
        if answer < 0 {
            let errno = -answer;
            let transient = errno == libc::EINTR || errno == libc::EAGAIN;
            return if transient { self.again_or(errno) } else { Step::Ended(Err(errno)) };
        }
        let moved = usize::try_from(answer).expect("not negative");
        if self.done_bytes + moved >= length_bytes {
            return Step::Ended(Ok(()));
        }
        let done_before = self.done_bytes;
        self.done_bytes = (self.done_bytes + moved) / BLOCK_BYTES * BLOCK_BYTES;
        if self.done_bytes > done_before {
            self.retries = 0;
        }
        // No progress at all is the end of the file or of the device: not what was asked for.
        self.again_or(libc::EIO)
    }

    fn again_or(&mut self, errno: i32) -> Step {
        self.retries += 1;
        if self.retries > RETRIES_MAX { Step::Ended(Err(errno)) } else { Step::Again }
    }
}

//! Looks at the directories that are to be drives, before anything is opened or written in them.
//!
//! Invariants: nothing is ever written into a directory here (a first start makes missing ones,
//! durably); a directory that holds anything else than a drive of ours is refused, never formatted.
//! What is wrong with the deployment's shape (the same directory twice, another process at work)
//! stops the start. What is wrong with one drive stops only a first start: later the node decides
//! whether the others suffice, and [`look`] tells it of each drive again while it runs.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::refusal::Refusal;

/// The one file of a drive, in its directory.
pub const DATA_FILE: &str = "basalt.data";
/// Share of a file system's free space that its drives may take, in percent: it needs some itself.
pub const SPACE_PERCENT: u64 = 95;

/// Made by mkfs in the root of an ext4 file system.
const LOST_AND_FOUND: &str = "lost+found";
const MINIO_DIRECTORY: &str = ".minio.sys";

/// What is wrong with a drive, and what to do about it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    pub cause: String,
    pub remedy: String,
}

impl Fault {
    fn new(cause: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { cause: cause.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.cause, self.remedy)
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum State {
    /// Empty, or as mkfs leaves it.
    Blank,
    /// It has a data file; what that says is for the drive to read.
    Ours,
    Refused(Fault),
}

/// One place of the topology.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Drive {
    pub path: PathBuf,
    pub state: State,
    /// Device number of the file system; drives with the same number share its space.
    pub device: u64,
    /// Usable drives of this node on that file system, this one included.
    pub sharing: usize,
    /// What the drive holds and can grow to, as its share.
    pub space_bytes: u64,
    /// Its directory was missing, and made by this start.
    pub made: bool,
    pub terms: Terms,
}

/// What is accepted of a directory, for as long as the node runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Terms {
    /// The operator accepts file systems that are not fit for data.
    pub allow_buffered: bool,
    /// A blank directory on the root file system may become a drive. Where drives have file systems
    /// of their own it is a mount point without its mount, and filling it would put a drive's data
    /// on the root file system.
    pub may_be_on_root: bool,
}

/// Takes back a directory that this start made.
pub fn unmake(path: &Path) -> io::Result<()> {
    fs::remove_dir(path)
}

/// What stands at the place of a drive now. Makes nothing.
pub fn look(path: &Path, terms: Terms) -> State {
    let state = || {
        let directory = Directory::open(path)?;
        directory.file_system(terms)?;
        let state = contents(path)?;
        let unmounted = state == State::Blank && !terms.may_be_on_root;
        if unmounted && directory.device == root_device() {
            return Err(not_mounted());
        }
        Ok(state)
    };
    state().unwrap_or_else(State::Refused)
}

impl Drive {
    fn new(path: &Path, state: State, device: u64, allow_buffered: bool) -> Self {
        let terms = Terms { allow_buffered, may_be_on_root: true };
        let path = path.to_path_buf();
        Self { path, state, device, sharing: 0, space_bytes: 0, made: false, terms }
    }

    fn refuse(&mut self, fault: Fault) {
        self.state = State::Refused(fault);
    }

    pub fn is_usable(&self) -> bool {
        !matches!(self.state, State::Refused(_))
    }
}

/// What was found. The directories stay locked against other processes until this is dropped.
pub struct Examination {
    /// As the paths were given.
    pub drives: Vec<Drive>,
    pub warnings: Vec<String>,
    _locks: Vec<File>,
}

/// Examines the drives of this node. Missing directories are made, but only where no drive is ours
/// yet: later a directory that is missing is a drive that is missing, and an empty one in its place
/// would be taken for its replacement.
pub fn examine(paths: &[PathBuf], allow_buffered: bool) -> Result<Examination, Refusal> {
    let first_start = !paths.iter().any(|path| path.join(DATA_FILE).exists());
    let open = if first_start { Directory::open_or_make } else { Directory::open };
    let there: Vec<bool> = paths.iter().map(|path| path.exists()).collect();
    let opened: Vec<_> = paths.iter().map(|path| open(path)).collect();
    check_distinct(&opened)?;
    let root_device = root_device();
    let terms = Terms { allow_buffered, may_be_on_root: true };

    let mut drives = Vec::new();
    let mut locks = Vec::new();
    let mut warnings = Vec::new();
    for ((path, directory), there) in paths.iter().zip(opened).zip(there) {
        let mut drive = Drive::new(path, State::Blank, 0, allow_buffered);
        drive.made = !there && directory.is_ok();
        let examined = directory.and_then(|directory| {
            let warning = directory.file_system(terms)?;
            Ok((contents(path)?, warning, directory))
        });
        match examined {
            Err(fault) => drive.refuse(fault),
            Ok((state, warning, directory)) => {
                drive.state = state;
                drive.device = directory.device;
                warnings.extend(warning);
                if directory.lock()? {
                    locks.push(directory.file);
                }
            }
        }
        drives.push(drive);
    }
    refuse_unmounted(&mut drives, root_device);
    check_first_start(&drives)?;
    share_space(&mut drives);
    set_terms(&mut drives, root_device);
    warnings.extend(root_warning(&drives, root_device));
    Ok(Examination { drives, warnings, _locks: locks })
}

/// A directory that is there and can be read.
struct Directory {
    path: PathBuf,
    file: File,
    device: u64,
    inode: u64,
}

impl Directory {
    fn open_or_make(path: &Path) -> Result<Self, Fault> {
        make_durably(path).map_err(|error| {
            Fault::new(
                format!("the directory is not there and cannot be made: {error}"),
                "mount the drive, or make the directory and give it to the user that the server \
                 runs as",
            )
        })?;
        Self::open(path)
    }

    fn open(path: &Path) -> Result<Self, Fault> {
        let metadata = fs::metadata(path).map_err(|error| unreadable(&error))?;
        if metadata.file_type().is_block_device() {
            return Err(Fault::new(
                "it is a block device, and this release keeps drives in directories",
                "make a file system on it (mkfs.xfs), mount it, and name the mount point",
            ));
        }
        if !metadata.is_dir() {
            return Err(Fault::new("it is not a directory", "name a directory"));
        }
        let file = File::open(path).map_err(|error| unreadable(&error))?;
        let metadata = file.metadata().map_err(|error| unreadable(&error))?;
        let (device, inode) = (metadata.dev(), metadata.ino());
        if fs::metadata("/").is_ok_and(|root| (root.dev(), root.ino()) == (device, inode)) {
            return Err(Fault::new("it is the root directory", "name a directory of its own"));
        }
        Ok(Self { path: path.to_path_buf(), file, device, inode })
    }

    /// Refuses a file system that is not fit for data, or returns a warning about it.
    fn file_system(&self, terms: Terms) -> Result<Option<String>, Fault> {
        let path = self.path.display();
        let magic =
            rustix::fs::fstatfs(&self.file).map_err(|error| unreadable(&error.into()))?.f_type;
        // The field is signed on some platforms; a magic number has 32 bits.
        match Fitness::of(magic as u32) {
            Fitness::Proven => Ok(None),
            Fitness::Unproven => Ok(Some(format!(
                "{path}: releases are tested on XFS and ext4, not on file system type {magic:#x}"
            ))),
            Fitness::Unfit(name) if terms.allow_buffered => Ok(Some(format!(
                "--allow-buffered: {path} is on {name} and may lose acknowledged data; for a trial \
                 only"
            ))),
            Fitness::Unfit(name) => Err(Fault::new(
                format!("it is on {name}, which cannot keep data as a drive must"),
                "use a directory on XFS or ext4 (in a container: a mounted volume); \
                 --allow-buffered accepts it for a trial",
            )),
        }
    }

    /// False where the file system knows no such lock; the data file is locked as well.
    fn lock(&self) -> Result<bool, Refusal> {
        match self.file.try_lock() {
            Ok(()) => Ok(true),
            Err(fs::TryLockError::Error(_)) => Ok(false),
            Err(fs::TryLockError::WouldBlock) => {
                let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
                let who = match lock_holder(&locks, self.device, self.inode) {
                    Some(pid) => format!("process {pid}"),
                    None => "another process".to_owned(),
                };
                Err(in_use(&self.path, &who))
            }
        }
    }
}

/// Refuses unless this is a drive that no process has open. For tools that read stopped drives.
pub fn check_stopped(path: &Path) -> Result<(), Refusal> {
    let refused = |fault: Fault| {
        let what = format!("{} cannot be read as a drive", path.display());
        Refusal::machine(what, fault.cause, fault.remedy)
    };
    let directory = Directory::open(path).map_err(refused)?;
    directory.lock()?;
    match contents(path).map_err(refused)? {
        State::Ours => Ok(()),
        _ => Err(refused(Fault::new(
            format!("it has no {DATA_FILE}"),
            "name the directory of a drive, as on the server's command line",
        ))),
    }
}

fn in_use(path: &Path, who: &str) -> Refusal {
    Refusal::machine(
        format!("drive {} is in use", path.display()),
        format!("{who} has it open"),
        "stop that process, or name other directories",
    )
}

fn unreadable(error: &io::Error) -> Fault {
    let remedy = match error.kind() {
        ErrorKind::NotFound => {
            "mount the drive or put the directory back; an empty directory in its place is filled \
             from the other drives"
        }
        ErrorKind::PermissionDenied => "give the directory to the user that the server runs as",
        _ => "check the drive and its file system; dmesg tells of device errors",
    };
    Fault::new(format!("the directory cannot be read: {error}"), remedy)
}

fn not_mounted() -> Fault {
    Fault::new(
        "it is empty and on the root file system, while drives have file systems of their own: its \
         own is probably not mounted",
        "mount its file system",
    )
}

fn root_device() -> u64 {
    fs::metadata("/").map_or(0, |root| root.dev())
}

/// Makes the directory and what leads to it where it is missing. Each new name is durable before
/// the next is made.
fn make_durably(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        // Anything else is for the caller to judge.
        _ => return Ok(()),
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    make_durably(parent)?;
    match fs::create_dir(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    File::open(parent)?.sync_all()
}

fn contents(path: &Path) -> Result<State, Fault> {
    let mut ours = false;
    let mut foreign = Vec::new();
    for entry in fs::read_dir(path).map_err(|error| unreadable(&error))? {
        let entry = entry.map_err(|error| unreadable(&error))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let kind = entry.file_type().map_err(|error| unreadable(&error))?;
        match name.as_str() {
            DATA_FILE if kind.is_file() => ours = true,
            LOST_AND_FOUND => {}
            MINIO_DIRECTORY => return Err(minio_drive()),
            _ => foreign.push(name),
        }
    }
    if let Some(first) = foreign.iter().min() {
        let more = match foreign.len() {
            1 => String::new(),
            count => format!(" and {} more", count - 1),
        };
        return Err(Fault::new(
            format!("it holds {first:?}{more}, which is not ours"),
            "name an empty directory; if nothing in this one is needed, empty it first",
        ));
    }
    Ok(if ours { State::Ours } else { State::Blank })
}

fn minio_drive() -> Fault {
    Fault::new(
        format!("it holds a MinIO drive ({MINIO_DIRECTORY}), which is not touched"),
        "start on empty directories and copy the objects over: docs/migration.md says how",
    )
}

/// What a kind of file system is worth as the home of a drive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fitness {
    Proven,
    Unproven,
    /// Loses data on power loss, or has no direct I/O.
    Unfit(&'static str),
}

impl Fitness {
    /// By the magic number of statfs(2).
    fn of(magic: u32) -> Self {
        match magic {
            0x5846_5342 | 0xef53 => Self::Proven,
            0x0102_1994 => Self::Unfit("tmpfs (memory)"),
            0x8584_58f6 => Self::Unfit("ramfs (memory)"),
            0x794c_7630 => Self::Unfit("overlayfs (a container's own layer)"),
            0x6969 => Self::Unfit("NFS"),
            0xff53_4d42 | 0xfe53_4d42 | 0x517b => Self::Unfit("SMB"),
            0x0102_1997 => Self::Unfit("9p"),
            0x6573_5546 => Self::Unfit("FUSE"),
            _ => Self::Unproven,
        }
    }
}

/// The process that holds a flock on the file, from the text of /proc/locks.
fn lock_holder(locks: &str, device: u64, inode: u64) -> Option<u32> {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let file = format!("{major:02x}:{minor:02x}:{inode}");
    locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        match fields[..] {
            [_, "FLOCK", _, _, pid, place, ..] if place == file => pid.parse().ok(),
            _ => None,
        }
    })
}

fn check_distinct(opened: &[Result<Directory, Fault>]) -> Result<(), Refusal> {
    let mut seen: BTreeMap<(u64, u64), &Path> = BTreeMap::new();
    for directory in opened.iter().flatten() {
        let place = (directory.device, directory.inode);
        if let Some(other) = seen.insert(place, &directory.path) {
            return Err(Refusal::machine(
                format!(
                    "{} and {} are the same directory",
                    other.display(),
                    directory.path.display()
                ),
                "a link or a mount makes one directory appear twice; as two drives it would be \
                 one loss away from losing two shards",
                "name each directory once",
            ));
        }
    }
    Ok(())
}

/// Where formatted drives have file systems of their own, an empty directory on the root file
/// system is a mount point without its mount.
fn refuse_unmounted(drives: &mut [Drive], root_device: u64) {
    let mounted = |drive: &Drive| drive.state == State::Ours && drive.device != root_device;
    if !drives.iter().any(mounted) {
        return;
    }
    for drive in drives {
        if drive.state == State::Blank && drive.device == root_device {
            drive.refuse(not_mounted());
        }
    }
}

/// A drive that is on the root file system now may be so later; of one that cannot be told, if
/// others are.
fn set_terms(drives: &mut [Drive], root_device: u64) {
    let on_root = |drive: &Drive| drive.is_usable() && drive.device == root_device;
    let any_on_root = drives.iter().any(on_root);
    for drive in drives {
        drive.terms.may_be_on_root = if drive.is_usable() { on_root(drive) } else { any_on_root };
    }
}

/// Where no drive is ours yet, every drive must be fit: a deployment is formed with all of them.
fn check_first_start(drives: &[Drive]) -> Result<(), Refusal> {
    if drives.iter().any(|drive| drive.state == State::Ours) {
        return Ok(());
    }
    let mut refused = drives.iter().filter_map(|drive| match &drive.state {
        State::Refused(fault) => Some((drive, fault)),
        _ => None,
    });
    let Some((drive, fault)) = refused.next() else { return Ok(()) };
    let what = match refused.count() {
        0 => format!("{} cannot be a drive", drive.path.display()),
        more => format!("{} and {more} more cannot be drives", drive.path.display()),
    };
    Err(Refusal::machine(what, fault.cause.clone(), fault.remedy.clone()))
}

fn share_space(drives: &mut [Drive]) {
    let mut sharing: BTreeMap<u64, usize> = BTreeMap::new();
    for drive in drives.iter().filter(|drive| drive.is_usable()) {
        *sharing.entry(drive.device).or_default() += 1;
    }
    for drive in drives.iter_mut().filter(|drive| drive.is_usable()) {
        drive.sharing = sharing[&drive.device];
        let held = fs::metadata(drive.path.join(DATA_FILE)).map_or(0, |file| file.len());
        let free =
            rustix::fs::statvfs(&drive.path).map_or(0, |space| space.f_bavail * space.f_frsize);
        drive.space_bytes = held + free / 100 * SPACE_PERCENT / drive.sharing as u64;
    }
}

fn root_warning(drives: &[Drive], root_device: u64) -> Option<String> {
    let on_root: Vec<String> = drives
        .iter()
        .filter(|drive| drive.is_usable() && drive.device == root_device)
        .map(|drive| drive.path.display().to_string())
        .collect();
    (!on_root.is_empty()).then(|| {
        format!(
            "on the root file system: {}. When they fill up, so does the system; give drives file \
             systems of their own",
            on_root.join(", ")
        )
    })
}

#[cfg(test)]
mod tests;

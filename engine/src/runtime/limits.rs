//! What the operating system must grant before the cores start: io_uring itself, locked memory,
//! open files. A refusal names the remedy, because the bare error ("Cannot allocate memory") sends
//! people looking in the wrong place.
//!
//! - **io_uring** may be forbidden by the kernel's setting `kernel.io_uring_disabled` or by a
//!   container's system call filter.
//! - **Locked memory**: glommio does not start below [`MEMLOCK_BYTES_MIN`], whoever asks; older
//!   kernels also account every ring to it, for all processes of the user together, unless the
//!   process has CAP_IPC_LOCK. Drive I/O registers no buffers, so nothing else counts.
//! - **Open files**: the soft limit is raised to the hard one, since every connection is a file.

use std::io;

use io_uring::IoUring;

/// glommio's own demand.
pub const MEMLOCK_BYTES_MIN: u64 = 512 << 10;
/// What the rings of a core may be accounted with: glommio's three, with 64 KiB of buffers
/// registered with each, and ours.
const MEMLOCK_BYTES_PER_CORE: u64 = 384 << 10;
/// Descriptors of a core: rings, eventfds, a listener, some drives.
const OPEN_FILES_PER_CORE: u64 = 64;
/// Descriptors of the process beyond those, without any connection.
const OPEN_FILES_BASE: u64 = 64;
/// Below this many the log says that connections will be few.
const OPEN_FILES_WANTED: u64 = 16_384;

/// Something that the operating system does not grant.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{reason}. {remedy}")]
pub struct Refusal {
    pub reason: String,
    pub remedy: &'static str,
}

const MEMLOCK_REMEDY: &str = "Allow more locked memory: `ulimit -l unlimited` in the shell that \
    starts this process, `LimitMEMLOCK=infinity` in its systemd unit, or `--ulimit memlock=-1` \
    for `docker run`";
const OPEN_FILES_REMEDY: &str = "Allow more open files: `ulimit -n 1048576` in the shell that \
    starts this process, `LimitNOFILE=1048576` in its systemd unit, or \
    `--ulimit nofile=1048576:1048576` for `docker run`";
const DISABLED_REMEDY: &str = "Allow io_uring: `sysctl kernel.io_uring_disabled=0`, and in a \
    container a system call filter that permits io_uring_setup, io_uring_enter and \
    io_uring_register (`docker run --security-opt seccomp=<profile>`; the default profile of \
    recent versions forbids them)";
const ABSENT_REMEDY: &str = "Use a Linux kernel of version 5.15 or later that is built with \
    io_uring, and in a container a system call filter that permits it";

/// Raises the soft limits as far as needed and allowed, and checks all that `cores` cores need.
pub(super) fn prepare(cores: u16) -> Result<(), Refusal> {
    let cores = u64::from(cores);
    let memlock = raise(libc::RLIMIT_MEMLOCK).map_err(|error| unknown("locked memory", &error))?;
    check_memlock(memlock)?;
    if memlock < cores * MEMLOCK_BYTES_PER_CORE {
        let wanted = cores * MEMLOCK_BYTES_PER_CORE;
        tracing::warn!(memlock, wanted, "little locked memory: the cores may not start");
    }
    let files = raise(libc::RLIMIT_NOFILE).map_err(|error| unknown("open files", &error))?;
    check_open_files(files, cores)?;
    if files < OPEN_FILES_WANTED {
        tracing::warn!(files, "few open files are allowed: connections beyond them wait");
    }
    match IoUring::new(2) {
        Ok(_) => Ok(()),
        Err(error) => Err(explain(&error).unwrap_or_else(|| unknown("io_uring", &error))),
    }
}

/// The refusal behind an error of making a ring, if it is one of those that mislead.
pub(super) fn explain(error: &io::Error) -> Option<Refusal> {
    let (reason, remedy) = match error.raw_os_error()? {
        libc::EPERM | libc::EACCES => ("io_uring is forbidden", DISABLED_REMEDY),
        libc::ENOSYS => ("io_uring is not available", ABSENT_REMEDY),
        libc::ENOMEM => ("no more memory may be locked for rings", MEMLOCK_REMEDY),
        libc::EMFILE => ("no more files may be open", OPEN_FILES_REMEDY),
        _ => return None,
    };
    Some(Refusal { reason: format!("{reason} ({error})"), remedy })
}

fn unknown(what: &str, error: &io::Error) -> Refusal {
    Refusal { reason: format!("{what}: {error}"), remedy: "Check the limits of this process" }
}

fn check_memlock(memlock: u64) -> Result<(), Refusal> {
    if memlock >= MEMLOCK_BYTES_MIN {
        return Ok(());
    }
    let (have, need) = (memlock >> 10, MEMLOCK_BYTES_MIN >> 10);
    let reason = format!("only {have} KiB of memory may be locked, and {need} KiB are needed");
    Err(Refusal { reason, remedy: MEMLOCK_REMEDY })
}

fn check_open_files(files: u64, cores: u64) -> Result<(), Refusal> {
    let need = OPEN_FILES_BASE + cores * OPEN_FILES_PER_CORE;
    if files >= need {
        return Ok(());
    }
    let reason = format!("only {files} files may be open, and {need} are needed before any client");
    Err(Refusal { reason, remedy: OPEN_FILES_REMEDY })
}

/// Raises the soft limit to the hard one, and says what it is then.
fn raise(resource: libc::__rlimit_resource_t) -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place for the answer.
    if unsafe { libc::getrlimit(resource, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    if limit.rlim_cur < limit.rlim_max {
        let raised = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
        // SAFETY: `raised` is valid.
        if unsafe { libc::setrlimit(resource, &raw const raised) } == 0 {
            limit = raised;
        }
    }
    Ok(limit.rlim_cur)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    use super::super::{Options, start};
    use super::*;

    const ROLE: &str = "BASALT_TEST_LIMITS";
    const CORES: u16 = 2;
    const NOBODY: u32 = 65534;

    fn set(resource: libc::__rlimit_resource_t, soft: u64, hard: u64) -> io::Result<()> {
        let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
        // SAFETY: `limit` is valid.
        match unsafe { libc::setrlimit(resource, &raw const limit) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Starts cores in a child with these limits and user, and hands out what it said.
    fn child(name: &str, user: Option<u32>, memlock: (u64, u64), files: (u64, u64)) -> String {
        child_after(name, user, move || {
            set(libc::RLIMIT_MEMLOCK, memlock.0, memlock.1)?;
            set(libc::RLIMIT_NOFILE, files.0, files.1)
        })
    }

    /// As [`child`], after `restrict`, which may do nothing but system calls.
    fn child_after(
        name: &str,
        user: Option<u32>,
        restrict: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
    ) -> String {
        let mut command = Command::new(std::env::current_exe().expect("this test"));
        let name = format!("runtime::limits::tests::{name}");
        command.args(["--exact", &name, "--nocapture", "--test-threads", "1"]).env(ROLE, "child");
        if let Some(user) = user {
            command.uid(user).gid(user);
        }
        // SAFETY: `restrict` makes only system calls, which is safe between fork and exec. (The
        // user was changed before.)
        unsafe { command.pre_exec(restrict) };
        let output = command.output().expect("a child");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("said: "), "{text}{}", String::from_utf8_lossy(&output.stderr));
        text
    }

    /// In the child: start, and say how it went.
    fn start_and_say() -> bool {
        if std::env::var_os(ROLE).is_none() {
            return false;
        }
        match start(&Options::new(CORES, 4 << 20), |_| async {}) {
            Ok(running) => println!("said: {:?}", running.join()),
            Err(error) => println!("said: {error}"),
        }
        true
    }

    fn is_root() -> bool {
        // SAFETY: plain system call.
        let root = unsafe { libc::geteuid() } == 0;
        if !root {
            println!("SKIPPED: only root can start children as another user");
        }
        root
    }

    /// Another user must be able to execute this test.
    fn reachable_by_others() -> bool {
        let path = std::env::current_exe().expect("this test");
        let status = Command::new("/bin/test").arg("-x").arg(path).uid(NOBODY).gid(NOBODY).status();
        let reachable = status.is_ok_and(|status| status.success());
        if !reachable {
            println!("SKIPPED: user {NOBODY} cannot execute this test");
        }
        reachable
    }

    const FILES: (u64, u64) = (1024, 4096);

    #[test]
    fn too_little_locked_memory_is_refused_with_the_remedy() {
        if start_and_say() {
            return;
        }
        let name = "too_little_locked_memory_is_refused_with_the_remedy";
        let root = is_root();
        for user in [None, Some(NOBODY)] {
            if user.is_some() && !(root && reachable_by_others()) {
                continue;
            }
            let said = child(name, user, (65536, 65536), FILES);
            assert!(said.contains("only 64 KiB of memory may be locked"), "{said}");
            for remedy in ["ulimit -l", "LimitMEMLOCK=infinity", "--ulimit memlock=-1"] {
                assert!(said.contains(remedy), "{said}");
            }
        }
    }

    #[test]
    fn the_default_limit_is_enough_and_a_low_soft_limit_is_raised() {
        if start_and_say() {
            return;
        }
        let name = "the_default_limit_is_enough_and_a_low_soft_limit_is_raised";
        let root = is_root();
        for user in [None, Some(NOBODY)] {
            if user.is_some() && !(root && reachable_by_others()) {
                continue;
            }
            let said = child(name, user, (65536, 8 << 20), (32, 4096));
            assert!(said.contains("said: Ok(())"), "{said}");
        }
    }

    #[test]
    fn too_few_open_files_are_refused_with_the_remedy() {
        if start_and_say() {
            return;
        }
        let name = "too_few_open_files_are_refused_with_the_remedy";
        let said = child(name, None, (8 << 20, 8 << 20), (64, 64));
        assert!(said.contains("only 64 files may be open, and 192 are needed"), "{said}");
        assert!(said.contains("LimitNOFILE=1048576"), "{said}");
    }

    /// Makes io_uring_setup fail with EPERM from now on, as a container's filter does.
    fn forbid_io_uring() -> io::Result<()> {
        let statement = |code: u32, jump_if: u8, otherwise: u8, k: u32| libc::sock_filter {
            code: u16::try_from(code).expect("a small constant"),
            jt: jump_if,
            jf: otherwise,
            k,
        };
        let setup = u32::try_from(libc::SYS_io_uring_setup).expect("a small constant");
        let refuse = libc::SECCOMP_RET_ERRNO | libc::EPERM.unsigned_abs();
        let mut filter = [
            statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
            statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, setup),
            statement(libc::BPF_RET | libc::BPF_K, 0, 0, refuse),
            statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
        ];
        let program = libc::sock_fprog { len: 4, filter: filter.as_mut_ptr() };
        // SAFETY: plain system call.
        let code = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
        if code != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the program is valid for the call.
        let code = unsafe {
            libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
        };
        if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    #[test]
    fn a_filter_that_forbids_io_uring_is_explained() {
        if start_and_say() {
            return;
        }
        let name = "a_filter_that_forbids_io_uring_is_explained";
        let said = child_after(name, None, forbid_io_uring);
        assert!(said.contains("io_uring is forbidden"), "{said}");
        assert!(said.contains("kernel.io_uring_disabled=0") && said.contains("seccomp"), "{said}");
    }

    #[test]
    fn each_misleading_error_has_its_remedy() {
        for (errno, remedy) in [
            (libc::EPERM, "kernel.io_uring_disabled"),
            (libc::EACCES, "seccomp"),
            (libc::ENOSYS, "kernel of version"),
            (libc::ENOMEM, "LimitMEMLOCK=infinity"),
            (libc::EMFILE, "LimitNOFILE"),
        ] {
            let refusal = explain(&io::Error::from_raw_os_error(errno)).expect("explained");
            assert!(refusal.to_string().contains(remedy), "{refusal}");
        }
        assert_eq!(explain(&io::Error::from_raw_os_error(libc::EIO)), None);
    }
}

//! The checks. Each runs in a process with one thread.

use std::fs::File;
use std::io::Read as _;

use libpsx::process::{Capability, CapabilitySets};
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::getpid;

use super::{Finding, Verdict};
use crate::raw;
use crate::tasks::{Process, Status};
use Verdict::{Fails, Good, Limited};

const SIGNAL: i32 = 33;

fn own_status() -> nix::Result<Status> {
    let process = Process::myself()?;
    process.task(process.pid)?.status()
}

pub(super) fn cpu() -> Finding {
    let cpu = std::env::consts::ARCH;
    match header("/proc/thread-self/exe") {
        // An emulator shows its program the CPU that the program expects, under this name alone.
        Some(real) if header("/proc/self/exe").is_some_and(|shown| shown != real) => Finding::new(
            Limited,
            format!("{cpu}, emulated"),
            "an emulator may have threads of its own (qemu-user has one): no signal reaches them, and a broadcast \
             among several threads is refused",
        ),
        _ => Finding::new(Good, cpu, "there is code for this CPU"),
    }
}

/// Reads the start of a program file, which names the CPU that the program is for, elf(5).
fn header(path: &str) -> Option<[u8; 20]> {
    let mut header = [0; 20];
    File::open(path).ok()?.read_exact(&mut header).ok()?;
    Some(header)
}

pub(super) fn kernel() -> Finding {
    match procfs::sys::kernel::Version::current() {
        Ok(v) if (v.major, v.minor) >= (5, 10) => {
            let found = format!("Linux {}.{}.{}", v.major, v.minor, v.patch);
            Finding::new(Good, found, "5.10 or later is tested")
        }
        Ok(v) => {
            let found = format!("Linux {}.{}.{}", v.major, v.minor, v.patch);
            Finding::new(Limited, found, "the tests have not run on a kernel before 5.10")
        }
        Err(error) => {
            Finding::new(Limited, "unknown", format!("the version could not be read: {error}"))
        }
    }
}

pub(super) fn libc() -> Finding {
    Finding::new(
        Good,
        raw::libc_version(),
        "leaves signal 33 open in all threads; its own setuid(3) and the like change the threads that it \
         knows, and no other call does",
    )
}

/// Checks the restrictions that this process inherited. Other processes started here inherit them too.
pub(super) fn sandbox() -> Finding {
    let Ok(status) = own_status() else {
        return Finding::new(
            Limited,
            "unknown",
            "/proc cannot be read, so the check is not possible",
        );
    };
    let own = status.credentials;
    if own.seccomp == Some(2) {
        let count = own.filters.map_or_else(|| "some".to_owned(), |count| count.to_string());
        return Finding::new(
            Limited,
            format!("seccomp filters: {count}"),
            "calls may be refused, in all threads or none; what a broadcast needs is tried below",
        );
    }
    Finding::new(Good, "no seccomp filter", "only calls that need a missing privilege are refused")
}

pub(super) fn proc() -> Finding {
    let usable = Process::myself().and_then(|own| Ok((own.tids()?, own.task(own.pid)?.status()?)));
    let found = match usable {
        Ok((tids, status)) if tids.contains(&getpid().as_raw()) => {
            let namespaces = status.numbers.len();
            if namespaces <= 1 {
                return Finding::new(
                    Good,
                    "shows this process",
                    "a broadcast lists the threads there",
                );
            }
            "of an outer PID namespace".to_owned()
        }
        Ok(_) => "of another PID namespace".to_owned(),
        Err(error) => format!("not usable: {}", error.desc()),
    };
    let sets = CapabilitySets::current().unwrap_or_default();
    let consequence = if sets.effective.contains(Capability::SYS_ADMIN) {
        "a broadcast translates the numbers there, or mounts a proc for itself"
    } else {
        "a broadcast translates the numbers there, or asks for every possible tid, which takes seconds and \
         mistakes zombies for threads"
    };
    Finding::new(Limited, found, consequence)
}

pub(super) fn signal() -> Finding {
    if let Err(error) = raw::signal_action(SIGNAL) {
        return Finding::new(Fails, format!("sigaction: {error}"), "no handler can be installed");
    }
    match own_status() {
        Ok(status) if status.blocked >> (SIGNAL - 1) & 1 != 0 => Finding::new(
            Fails,
            "blocked from the start",
            "the program that started psx blocks signal 33, and threads inherit that: they cannot be stopped",
        ),
        Ok(_) => Finding::new(Good, "open", "threads can be stopped by it"),
        Err(_) => {
            Finding::new(Limited, "not known whether it is blocked", "the broadcast below shows it")
        }
    }
}

pub(super) fn queue() -> Finding {
    let Ok(Some((used, limit))) = own_status().map(|status| status.queue) else {
        return Finding::new(
            Limited,
            "unknown",
            "/proc does not show it; the broadcast below shows it",
        );
    };
    let free = limit.saturating_sub(used);
    let found = format!("{used} of {limit} queued");
    if free == 0 {
        let why = "RLIMIT_SIGPENDING of this user is used up: no signal can be queued, and a broadcast \
                   among several threads is refused";
        return Finding::new(Fails, found, why);
    }
    let why = format!("a broadcast reaches up to {free} other threads; it takes a place for each");
    Finding::new(if free < 64 { Limited } else { Good }, found, why)
}

pub(super) fn alone() -> Finding {
    match unshare(CloneFlags::CLONE_THREAD) {
        // Linux does not know this flag.
        Ok(()) if unshare(CloneFlags::from_bits_retain(1)) == Err(Errno::EINVAL) => Finding::new(
            Good,
            "unshare(CLONE_THREAD) is allowed",
            "in a process of one thread a call costs five system calls",
        ),
        Ok(()) => Finding::new(
            Limited,
            "unshare succeeds with an unknown flag",
            "a filter answers in the kernel's place, so each broadcast counts the threads",
        ),
        Err(error) => Finding::new(
            Limited,
            format!("unshare(CLONE_THREAD): {}", error.desc()),
            "one call cannot show whether a process has one thread or many: each broadcast counts the threads",
        ),
    }
}

pub(super) fn tsync() -> Finding {
    if raw::knows_seccomp_tsync() {
        let why = "the kernel gives a filter to all threads by itself; a broadcast lets it";
        return Finding::new(Good, "available", why);
    }
    let why =
        "no filter can be given to all threads by the kernel; each thread would install its own";
    Finding::new(Limited, "not available", why)
}

pub(super) fn landlock() -> Finding {
    match raw::landlock_abi() {
        Ok(abi) if abi >= 8 => {
            let why = "the kernel restricts all threads by itself (LANDLOCK_RESTRICT_SELF_TSYNC)";
            Finding::new(Good, format!("ABI {abi}"), why)
        }
        Ok(abi) => {
            let why = "no TSYNC before ABI 8: each thread gets a domain of its own by a broadcast";
            Finding::new(Good, format!("ABI {abi}"), why)
        }
        Err(error) => {
            let why = "no thread can be restricted by Landlock";
            Finding::new(Limited, format!("not available: {error}"), why)
        }
    }
}

pub(super) fn io_uring() -> Finding {
    match raw::io_uring_refused() {
        None => Finding::new(
            Good,
            "available",
            "a ring that was made before a drop, with a thread of its own (SQPOLL) or a registered \
             personality, keeps its credentials: psx audit shows such threads",
        ),
        Some(error) => {
            let why = "no ring can keep credentials beyond a drop";
            Finding::new(Good, format!("not available: {error}"), why)
        }
    }
}

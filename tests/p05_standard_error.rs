//! The line about a divergence never waits for room in standard error (P5). With `Error` signal 33 kills the process;
//! with `Warning` the call returns. If there is room, the whole line arrives.
#![allow(unsafe_code)]

mod support;
#[path = "p05_standard_error/targets.rs"]
mod targets;

use std::fs::File;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use libpsx::{Broadcast, PartialFailureAction, Sensitivity, Transaction};
use support::{
    LOWER, filter, forked_status, header, install, isolated, killed_by_libpsx, killed_by_libpsx_or,
    proc, program, set_mask, sleepers, step, unless_one_of,
};
use targets::*;

const WATCHDOG: Duration = Duration::from_secs(120);

/// The features that the kernel or a filter denies to the code that writes the line.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kernel {
    Whole,
    /// Pipes refuse RWF_NOWAIT, as before Linux 6.4.
    WithoutNowait,
    /// The type of standard error cannot be found out.
    WithoutStat,
    /// It cannot be found out whether there is room.
    WithoutPoll,
    /// The timer that kills the process cannot be made.
    WithoutTimer,
}

impl Kernel {
    const ALL: [Self; 5] = [
        Self::Whole,
        Self::WithoutNowait,
        Self::WithoutStat,
        Self::WithoutPoll,
        Self::WithoutTimer,
    ];

    fn apply(self) {
        let calls: &[libc::c_long] = match self {
            Self::Whole => return,
            Self::WithoutNowait => &[libc::SYS_pwritev2],
            Self::WithoutStat => return without_stat(),
            Self::WithoutPoll => &[libc::SYS_pwritev2, libc::SYS_ppoll],
            Self::WithoutTimer => &[libc::SYS_pwritev2, libc::SYS_timer_create],
        };
        install(&program(calls, REFUSE, libc::SECCOMP_RET_ALLOW));
    }
}

const REFUSE: u32 = libc::SECCOMP_RET_ERRNO | libc::EOPNOTSUPP as u32;

/// Refuses all calls that tell the type of standard error. (The engine makes these calls for other files too.)
fn without_stat() {
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let answer = libc::BPF_RET | libc::BPF_K;
    // seccomp(2), struct seccomp_data.
    let file_at = 16 + LOWER;
    let mut program = unless_one_of(&[libc::SYS_pwritev2, libc::SYS_fstat, libc::SYS_ioctl], 3);
    program.extend([
        step(load, 0, 0, file_at),
        step(equal, 0, 1, 2),
        step(answer, 0, 0, REFUSE),
        step(answer, 0, 0, libc::SECCOMP_RET_ALLOW),
    ]);
    install(&program);
}

#[derive(Clone, Copy, PartialEq)]
enum Line {
    /// The whole line.
    Arrives,
    /// Nothing of the line.
    Lost,
    /// As much of the line as there was room for.
    Part,
}

/// gettid(2) returns another number in every thread.
fn diverge(sensitivity: Sensitivity) -> usize {
    let call = Broadcast::new(libc::SYS_gettid, [0; 6]).sensitivity(sensitivity);
    // SAFETY: gettid touches no memory.
    unsafe { call.execute_with_report() }.unwrap().divergent()
}

/// Runs the rest of a process with this standard error. Returns its status.
fn under(target: &Target, kernel: Kernel, body: impl FnOnce()) -> i32 {
    forked_status(|| {
        // Standard output, because a message there does not wait.
        std::panic::set_hook(Box::new(|panic| println!("in the child: {panic}")));
        // SAFETY: dup2 touches no memory.
        assert_eq!(unsafe { libc::dup2(target.file.as_raw_fd(), 2) }, 2);
        // Rust's start-up code has set it to be ignored.
        // SAFETY: the default action runs no code.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
        kernel.apply();
        // A terminal that is almost full needs a long line.
        // SAFETY: isatty touches no memory of this process.
        sleepers(if unsafe { libc::isatty(2) } == 1 { 60 } else { 3 });
        body();
    })
}

fn check(what: &str, make: impl Fn() -> Target, wanted: Line) {
    for kernel in Kernel::ALL {
        let wanted = match (kernel, wanted) {
            (Kernel::WithoutPoll | Kernel::WithoutStat, _) => Line::Lost,
            (_, wanted) => wanted,
        };
        let judge = |target: &Target, end: &str, before: i32, way: &str| {
            assert_eq!(flags(&target.file), before, "{what}, {kernel:?}: the flags have changed");
            let text = target.read();
            match wanted {
                Line::Lost => assert!(!text.contains("libpsx"), "{what}, {kernel:?}: {text}"),
                Line::Part => {}
                Line::Arrives => {
                    let at =
                        text.find("libpsx: gettid(0x0").or_else(|| text.find("LIBPSX: GETTID"));
                    let line = &text[at.unwrap_or_else(|| panic!("{what}, {kernel:?}: {text}"))..];
                    let line = line.trim_end_matches(['\r', '\n']).to_lowercase();
                    assert!(line.ends_with(end), "{what}, {kernel:?}, {way}: {line}");
                    assert!(text.ends_with('\n'), "{what}, {kernel:?}: {line}");
                }
            }
        };
        let target = make();
        let before = flags(&target.file);
        let begin = Instant::now();
        let status = under(&target, kernel, || {
            diverge(Sensitivity::Error);
        });
        // A terminal gets the line byte by byte. On a slow machine that takes longer than the timer allows.
        if killed_by_libpsx(status, begin, format!("{what}, {kernel:?}")) {
            judge(&target, "process killed", before, "Error");
        }

        let target = make();
        let before = flags(&target.file);
        let status = under(&target, kernel, || assert!(diverge(Sensitivity::Warning) >= 3));
        assert_eq!(status, 0, "{what}, {kernel:?}: {status:#x}");
        judge(&target, "process inconsistent", before, "Warning");
    }
}

#[test]
fn pipes() {
    isolated("pipes", WATCHDOG, || {
        check("pipe", pipe, Line::Arrives);
        check("full pipe", || pipe().fill(4096), Line::Lost);
        check("pipe with 100 bytes free", pipe_with_100_bytes, Line::Lost);
        check("pipe without a reader", pipe_without_reader, Line::Lost);
        check("FIFO", fifo, Line::Arrives);
        check("full FIFO", || fifo().fill(4096), Line::Lost);
    });
}

#[test]
fn sockets() {
    isolated("sockets", WATCHDOG, || {
        check("stream", stream, Line::Arrives);
        check("full stream", || stream().fill(1000), Line::Lost);
        check("stream shut down", stream_shut_down, Line::Lost);
        check("stream without a reader", || Target::new(stream().file, None), Line::Lost);
        check("datagrams", datagrams, Line::Arrives);
        check("full datagrams", || datagrams().fill(100), Line::Lost);
    });
}

#[test]
fn terminals() {
    isolated("terminals", WATCHDOG, || {
        if support::terminal().is_none() {
            return;
        }
        check("pty", terminal, Line::Arrives);
        check("pty of capitals", terminal_of_capitals, Line::Arrives);
        check("stopped pty", terminal_stopped, Line::Lost);
        check("pty without a reader", || Target { reader: None, ..terminal() }, Line::Lost);
    });
}

#[test]
fn terminals_almost_full() {
    isolated("terminals_almost_full", WATCHDOG, || {
        if support::terminal().is_none() {
            return;
        }
        for make in [terminal, terminal_of_capitals] {
            check("full pty", || make().fill(1), Line::Part);
            for free in [1, 256, 600] {
                let almost = || {
                    let target = make().fill(1);
                    let mut bytes = vec![0u8; free];
                    let mut master = target.reader.as_ref().unwrap().try_clone().map(File::from);
                    master.as_mut().unwrap().read_exact(&mut bytes).unwrap();
                    target
                };
                check("pty almost full", almost, Line::Part);
            }
        }
    });
}

#[test]
fn files_and_devices() {
    isolated("files_and_devices", WATCHDOG, || {
        check("file", regular, Line::Arrives);
        check("/dev/full", || device("/dev/full"), Line::Lost);
        check("/dev/null", || device("/dev/null"), Line::Lost);
        check(
            "file open for reading",
            || Target::new(File::open("/").unwrap().into(), None),
            Line::Lost,
        );
        for (sensitivity, kills) in [(Sensitivity::Error, true), (Sensitivity::Warning, false)] {
            let begun = Instant::now();
            let status = under(&device("/dev/null"), Kernel::Whole, || {
                // SAFETY: no other code of this child uses it.
                unsafe { libc::close(2) };
                diverge(sensitivity);
            });
            if kills {
                killed_by_libpsx(status, begun, "closed");
            } else {
                assert_eq!(status, 0, "closed: {status:#x}");
            }
        }
    });
}

/// One read returns the whole line, after the data of earlier writes.
#[test]
fn a_pipe_takes_the_line_in_one_piece() {
    isolated("a_pipe_takes_the_line_in_one_piece", WATCHDOG, || {
        for kernel in [Kernel::Whole, Kernel::WithoutNowait] {
            // If the timer kills the process before the line is written, the pipe stays empty.
            let line = loop {
                // In a packet pipe, each packet is read separately.
                let mut ends = [0; 2];
                // SAFETY: the kernel writes two descriptors.
                assert_eq!(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_DIRECT) }, 0);
                let target = Target::new(owned(ends[1]), Some(owned(ends[0])));
                let begun = Instant::now();
                let status = under(&target, kernel, || {
                    diverge(Sensitivity::Error);
                });
                let whole = killed_by_libpsx(status, begun, format!("{kernel:?}"));
                // The read ends where no process has the other end.
                drop(target.file);
                let mut bytes = [0; 4096];
                let mut reader = File::from(target.reader.unwrap());
                let count = reader.read(&mut bytes).unwrap();
                assert!(count > 0 || !whole, "{kernel:?}: nothing was written");
                if count > 0 {
                    break bytes[..count].to_vec();
                }
            };
            assert!(line.ends_with(b"process killed\n"), "{kernel:?}");
        }
    });
}

/// A call of a transaction that fails after others were performed.
#[test]
fn a_partial_transaction_kills() {
    isolated("a_partial_transaction_kills", WATCHDOG, || {
        for kernel in Kernel::ALL {
            let target = pipe().fill(4096);
            let begun = Instant::now();
            let status = under(&target, kernel, || {
                let transaction = Transaction::new().on_partial_failure(PartialFailureAction::Kill);
                let any = libpsx::ResultCheck::AnyResult;
                // SAFETY: getppid touches no memory, nor does a prctl(2) that does not exist.
                let transaction = unsafe { transaction.with_call(libc::SYS_getppid, [0; 6], any) };
                let none = [0x7fff_ffff, 0, 0, 0, 0, 0];
                // SAFETY: see the comment above.
                let transaction = unsafe { transaction.with_call(libc::SYS_prctl, none, any) };
                let _ = transaction.execute();
            });
            killed_by_libpsx(status, begun, format!("{kernel:?}"));
        }
    });
}

/// A SIGPIPE that was pending before the call belongs to the program, and stays.
#[test]
fn an_earlier_sigpipe_stays() {
    isolated("an_earlier_sigpipe_stays", WATCHDOG, || {
        let status = under(&stream_shut_down(), Kernel::WithoutNowait, || {
            const SIGPIPE: u64 = 1 << (libc::SIGPIPE - 1);
            let pending = || {
                // SAFETY: gettid touches no memory.
                let tid = unsafe { libc::gettid() };
                u64::from_str_radix(&proc::status(tid)["SigPnd"], 16).unwrap() & SIGPIPE
            };
            set_mask(SIGPIPE);
            diverge(Sensitivity::Warning);
            assert_eq!(pending(), 0);
            // SAFETY: the signal is blocked.
            assert_eq!(unsafe { libc::raise(libc::SIGPIPE) }, 0);
            diverge(Sensitivity::Warning);
            assert_eq!(pending(), SIGPIPE);
            support::end(0);
        });
        assert_eq!(status, 0, "{status:#x}");
    });
}

/// Once the process is to be killed, no handler runs any more. A handler that does not return would keep the process
/// alive.
#[test]
fn no_handler_runs_before_the_process_is_killed() {
    isolated("no_handler_runs_before_the_process_is_killed", WATCHDOG, || {
        extern "C" fn stays(_: i32) {
            loop {
                std::thread::park();
            }
        }
        let begun = Instant::now();
        let status = under(&pipe(), Kernel::Whole, || {
            // SAFETY: the handler sleeps.
            unsafe { libc::signal(libc::SIGSYS, stays as *const () as usize) };
            filter(libc::SYS_pwritev2, libc::SECCOMP_RET_TRAP);
            diverge(Sensitivity::Error);
        });
        killed_by_libpsx_or(libc::SIGSYS, status, begun, "no handler runs");
    });
}

/// A write may wait after all; here a supervisor of system calls does not answer it. The death of the process ends the
/// write.
#[test]
fn a_write_that_waits_is_ended() {
    isolated("a_write_that_waits_is_ended", WATCHDOG, || {
        let status = under(&pipe(), Kernel::Whole, || {
            let notify = program(
                &[libc::SYS_pwritev2],
                libc::SECCOMP_RET_USER_NOTIF,
                libc::SECCOMP_RET_ALLOW,
            );
            let header = header(&notify);
            let set = libc::SECCOMP_SET_MODE_FILTER;
            let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
            // SAFETY: PR_SET_NO_NEW_PRIVS touches no memory.
            assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
            // SAFETY: the kernel reads the program.
            let listener =
                unsafe { libc::syscall(libc::SYS_seccomp, set, flags, &raw const header) };
            assert!(listener >= 0, "{}", std::io::Error::last_os_error());
            diverge(Sensitivity::Error);
        });
        assert_eq!(status & 0x7f, libc::SIGKILL, "{status:#x}");
    });
}

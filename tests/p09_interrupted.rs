//! Interrupted threads notice only what any signal with SA_RESTART does (P9). The call waits for none of their locks
//! (P4).
#![allow(unsafe_code)]

mod support;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use support::{block_all, isolated, set_mask, set_slack, slack_here, sleepers};

const WATCHDOG: Duration = Duration::from_secs(180);
const CALLS: usize = 1000;

static OVER: AtomicBool = AtomicBool::new(false);

/// Makes the calls while the given threads work until [`OVER`].
fn beside(victims: Vec<std::thread::JoinHandle<()>>) {
    for value in 1..=CALLS {
        let report = set_slack(value).unwrap();
        assert!(report.threads() > victims.len(), "{report:?}");
    }
    OVER.store(true, Ordering::SeqCst);
    victims.into_iter().for_each(|victim| victim.join().unwrap());
}

fn until_over(mut each: impl FnMut() + Send + 'static) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        while !OVER.load(Ordering::SeqCst) {
            each();
        }
    })
}

#[test]
#[cfg(not(target_arch = "loongarch64"))]
fn registers() {
    isolated("registers", WATCHDOG, || {
        let busy = |seed| until_over(move || assert!(support::cpu::registers_keep(seed)));
        beside(vec![busy(0x0123_4567_89ab_cdef), busy(0xfedc_ba98_7654_3210)]);
    });
}

#[test]
fn errno() {
    isolated("errno", WATCHDOG, || {
        let busy = |number| {
            until_over(move || {
                // SAFETY: the function returns the address of this thread's errno.
                let errno = unsafe { libc::__errno_location() };
                // SAFETY: see the comment above.
                unsafe { errno.write_volatile(number) };
                for _ in 0..10_000 {
                    // SAFETY: see the comment above.
                    assert_eq!(unsafe { errno.read_volatile() }, number);
                }
            })
        };
        beside(vec![busy(12345), busy(0)]);
    });
}

/// Returns this thread's signal mask and alternate stack, from the kernel.
fn signal_state() -> (u64, usize, i32, usize) {
    let mut mask = 0u64;
    let at = &raw mut mask;
    let block = libc::SIG_BLOCK;
    // SAFETY: the kernel writes eight bytes.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, block, 0usize, at, 8usize) };
    let mut stack = libc::stack_t { ss_sp: std::ptr::null_mut(), ss_flags: 0, ss_size: 0 };
    // SAFETY: the kernel writes the structure.
    unsafe { libc::sigaltstack(std::ptr::null(), &mut stack) };
    (mask, stack.ss_sp as usize, stack.ss_flags, stack.ss_size)
}

#[test]
fn mask_and_alternate_stack() {
    isolated("mask_and_alternate_stack", WATCHDOG, || {
        let busy = |mask| {
            std::thread::spawn(move || {
                set_mask(mask);
                let expected = signal_state();
                assert_eq!(expected.0, mask);
                while !OVER.load(Ordering::SeqCst) {
                    assert_eq!(signal_state(), expected);
                }
            })
        };
        beside(vec![busy(0), busy(1 << (libc::SIGTERM - 1) | 1 << (libc::SIGSYS - 1))]);
    });
}

#[test]
fn caller_with_every_signal_blocked() {
    isolated("caller_with_every_signal_blocked", WATCHDOG, || {
        sleepers(4);
        block_all();
        let before = signal_state();
        for value in 1..=CALLS / 4 {
            set_slack(value).unwrap();
            assert_eq!(slack_here(), value);
            assert_eq!(signal_state(), before);
        }
        let nonsense = libpsx::Broadcast::new(libc::SYS_prctl, [usize::MAX; 6]);
        // SAFETY: there is no such option.
        unsafe { nonsense.execute_with_report() }.unwrap_err();
        assert_eq!(signal_state(), before);
    });
}

#[test]
fn blocked_calls_are_restarted() {
    isolated("blocked_calls_are_restarted", WATCHDOG, || {
        let (mut reader, mut writer) = UnixStream::pair().unwrap();
        let blocked = std::thread::spawn(move || {
            let mut byte = [0];
            for sent in 1..=20 {
                // One system call, which fails with EINTR unless it is restarted.
                assert_eq!(reader.read(&mut byte).unwrap(), 1);
                assert_eq!(byte[0], sent);
            }
        });
        for sent in 1..=20 {
            for value in 1..=20 {
                set_slack(value).unwrap();
            }
            writer.write_all(&[sent]).unwrap();
        }
        blocked.join().unwrap();
    });
}

/// Threads own locks of the heap, of stdio and of the dynamic linker most of the time.
#[test]
fn locks_of_the_c_library() {
    isolated("locks_of_the_c_library", WATCHDOG, || {
        let heap =
            || until_over(|| drop(std::hint::black_box((1..200).map(vec_of).collect::<Vec<_>>())));
        fn vec_of(size: usize) -> Vec<u8> {
            vec![0; size * 100]
        }
        // SAFETY: the function opens a stream.
        let stream = unsafe { libc::fopen(c"/dev/null".as_ptr(), c"w".as_ptr()) } as usize;
        let stdio = until_over(move || {
            // SAFETY: the stream is open, and the format takes one number.
            unsafe { libc::fprintf(stream as *mut libc::FILE, c"%d\n".as_ptr(), 42) };
        });
        let mut owners = vec![heap(), heap(), stdio];
        fn load() -> bool {
            // SAFETY: libm's initialisers may run at any time.
            let library = unsafe { libc::dlopen(c"libm.so.6".as_ptr(), libc::RTLD_NOW) };
            // SAFETY: the library was opened above.
            !library.is_null() && unsafe { libc::dlclose(library) } == 0
        }
        if load() {
            owners.push(until_over(|| assert!(load())));
        } else {
            support::skipped("locks of the dynamic linker: this program is linked statically");
        }
        beside(owners);
    });
}

#[test]
fn no_descriptor_is_left() {
    isolated("no_descriptor_is_left", WATCHDOG, || {
        let count = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        sleepers(4);
        set_slack(1).unwrap();
        let before = count();
        for value in 1..=CALLS {
            set_slack(value).unwrap();
        }
        let short = support::slack(1).deadline(Duration::ZERO);
        for _ in 0..100 {
            // SAFETY: PR_SET_TIMERSLACK touches no memory.
            let _ = unsafe { short.execute_with_report() };
        }
        assert_eq!(count(), before);
    });
}

//! Other code uses signal 33 too. The signals that it sends arrive as they were sent (P6).
#![allow(unsafe_code, clippy::multiple_unsafe_ops_per_block)]

mod support;

use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use libpsx::Broadcast;
use support::{install as install_filter, isolated, isolated_status, step};

const WATCHDOG: Duration = Duration::from_secs(60);
const SIGNAL: usize = 33;

#[repr(C)]
#[derive(Clone, Copy)]
struct Action {
    handler: usize,
    flags: usize,
    #[cfg(not(any(target_arch = "riscv64", target_arch = "loongarch64")))]
    restorer: usize,
    mask: [usize; 8 / size_of::<usize>()],
}

impl Action {
    const fn new(handler: usize, flags: usize) -> Self {
        Self {
            handler,
            flags,
            #[cfg(not(any(target_arch = "riscv64", target_arch = "loongarch64")))]
            restorer: 0,
            mask: [0; 8 / size_of::<usize>()],
        }
    }
}

#[cfg(target_arch = "x86_64")]
unsafe extern "C" {
    fn restore_for_test();
}

#[cfg(target_arch = "x86_64")]
std::arch::global_asm!("restore_for_test: mov $15, %rax", "syscall", options(att_syntax));
#[cfg(target_arch = "aarch64")]
std::arch::global_asm!(".globl restore_for_test", "restore_for_test: mov x8, #139", "svc #0");

/// Installs an action by the raw call, as libraries do that share the signal; gives the old one. On other CPUs than x86-64
/// the kernel brings the way back from a handler.
fn install(handler: usize, flags: i32, mask: u64) -> Action {
    let mut new = Action::new(handler, flags as u32 as usize);
    #[cfg(target_arch = "x86_64")]
    {
        const SA_RESTORER: usize = 0x0400_0000;
        new.flags |= SA_RESTORER;
        new.restorer = restore_for_test as *const () as usize;
    }
    for (index, word) in new.mask.iter_mut().enumerate() {
        *word = (mask >> (index as u32 * usize::BITS)) as usize;
    }
    let mut old = Action::new(0, 0);
    // SAFETY: the handlers of this file make raw calls and store to atomics.
    let done = unsafe { libc::syscall(libc::SYS_rt_sigaction, SIGNAL, &new, &mut old, 8) };
    assert_eq!(done, 0);
    old
}

/// Returns the handler that the kernel calls.
fn handler() -> usize {
    let mut now = Action::new(0, 0);
    // SAFETY: the kernel writes the structure.
    let done = unsafe { libc::syscall(libc::SYS_rt_sigaction, SIGNAL, 0usize, &mut now, 8) };
    assert_eq!(done, 0);
    now.handler
}

fn send() {
    // SAFETY: tgkill and gettid touch no memory.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), libc::gettid(), SIGNAL) };
}

fn call() {
    let call = Broadcast::new(libc::SYS_prctl, [libc::PR_SET_TIMERSLACK as usize, 5, 0, 0, 0, 0]);
    // SAFETY: PR_SET_TIMERSLACK touches no memory.
    let report = unsafe { call.execute_with_report() }.unwrap();
    assert!(report.threads() >= 2);
}

static COUNT: AtomicUsize = AtomicUsize::new(0);
static CODE: AtomicI32 = AtomicI32::new(0);
static VALUE: AtomicUsize = AtomicUsize::new(0);
static MASK: AtomicU64 = AtomicU64::new(0);
static OLD: AtomicUsize = AtomicUsize::new(0);

fn mask() -> u64 {
    let mut mask = 0u64;
    // SAFETY: the kernel writes eight bytes.
    unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_BLOCK, 0usize, &mut mask, 8);
    }
    mask
}

/// Returns whether a signal is one of [`send`]. A signal of libpsx that comes late, after its call has returned, can reach
/// an action that was installed meanwhile. It has the code SI_QUEUE.
fn is_sent(info: *mut libc::siginfo_t) -> bool {
    // SAFETY: the kernel passes a valid siginfo.
    unsafe { (*info).si_code == libc::SI_TKILL }
}

/// The value of the signal that a test queues.
const QUEUED: usize = 0xabcdef;

/// Records its arguments, unless the signal is one of libpsx.
extern "C" fn owner(_: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: a queued signal has a value.
    if !is_sent(info) && unsafe { (*info).si_value() }.sival_ptr as usize != QUEUED {
        return;
    }
    COUNT.fetch_add(1, Ordering::SeqCst);
    // SAFETY: the kernel passes a valid siginfo.
    CODE.store(unsafe { (*info).si_code }, Ordering::SeqCst);
    // SAFETY: a queued signal has a value.
    VALUE.store(unsafe { (*info).si_value() }.sival_ptr as usize, Ordering::SeqCst);
    MASK.store(mask(), Ordering::SeqCst);
}

/// Passes its signal on to the handler that it found at its installation.
extern "C" fn chaining(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    COUNT.fetch_add(usize::from(is_sent(info)), Ordering::SeqCst);
    let old = OLD.load(Ordering::SeqCst);
    if old > 1 {
        // SAFETY: the address was the handler of this signal.
        let old = unsafe {
            std::mem::transmute::<usize, extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void)>(
                old,
            )
        };
        old(signal, info, context);
    }
}

fn spawn_another_thread() {
    std::thread::spawn(|| {
        loop {
            std::thread::park();
        }
    });
}

#[test]
fn owner_gets_its_siginfo_and_mask() {
    isolated("owner_gets_its_siginfo_and_mask", WATCHDOG, || {
        spawn_another_thread();
        let usr1 = 1u64 << (libc::SIGUSR1 - 1);
        install(owner as *const () as usize, libc::SA_SIGINFO, usr1);
        call();
        send();
        assert_eq!(
            (COUNT.load(Ordering::SeqCst), CODE.load(Ordering::SeqCst)),
            (1, libc::SI_TKILL)
        );
        assert_eq!(MASK.load(Ordering::SeqCst) & (usr1 | 1 << 32 | 2), usr1 | 1 << 32);
        // SAFETY: all fields of siginfo_t are integers.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        info.si_signo = SIGNAL as i32;
        info.si_code = libc::SI_QUEUE;
        // The value comes after five ints, as an address is aligned.
        const VALUE_AT: usize = (5 * size_of::<i32>()).next_multiple_of(size_of::<usize>());
        let value = (&raw mut info).wrapping_byte_add(VALUE_AT).cast::<usize>();
        // SAFETY: the address is that of the value.
        unsafe { value.write(QUEUED) };
        // SAFETY: the kernel reads the structure.
        unsafe {
            let (pid, tid) = (libc::getpid(), libc::gettid());
            libc::syscall(libc::SYS_rt_tgsigqueueinfo, pid, tid, SIGNAL, &info)
        };
        assert_eq!((COUNT.load(Ordering::SeqCst), VALUE.load(Ordering::SeqCst)), (2, QUEUED));
        assert_eq!(mask() & (1 << 32), 0);
    });
}

#[test]
fn nodefer_is_honoured() {
    isolated("nodefer_is_honoured", WATCHDOG, || {
        spawn_another_thread();
        install(owner as *const () as usize, libc::SA_SIGINFO | libc::SA_NODEFER, 0);
        call();
        send();
        assert_eq!(MASK.load(Ordering::SeqCst) & (1 << 32), 0);
    });
}

#[test]
fn ignored_stays_ignored() {
    isolated("ignored_stays_ignored", WATCHDOG, || {
        spawn_another_thread();
        install(libc::SIG_IGN, 0, 0);
        call();
        send();
        call();
    });
}

/// Whether another library's handler passes signals on is a question that the caller asks by a signal to itself. It
/// does not ask if the signal is ignored: there is no handler.
#[test]
fn no_question_is_asked_where_the_signal_is_ignored() {
    isolated("no_question_is_asked_where_the_signal_is_ignored", WATCHDOG, || {
        spawn_another_thread();
        call();
        install(libc::SIG_IGN, libc::SA_SIGINFO | libc::SA_RESTART | libc::SA_ONSTACK, 0);
        // SAFETY: gettid touches no memory.
        let me = unsafe { libc::gettid() } as u32;
        let load = |offset| step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset);
        let equal = |value| step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, value);
        let answer = |action| step(libc::BPF_RET | libc::BPF_K, 0, 0, action);
        // The number, and the lower half of the second argument.
        let (number_at, thread_at) = (0, if cfg!(target_endian = "big") { 28 } else { 24 });
        install_filter(&[
            load(thread_at),
            step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 3, me),
            load(number_at),
            equal(libc::SYS_rt_tgsigqueueinfo as u32),
            answer(libc::SECCOMP_RET_KILL_PROCESS),
            answer(libc::SECCOMP_RET_ALLOW),
        ]);
        call();
        send();
        call();
    });
}

#[test]
fn default_action_kills() {
    let (status, _) = isolated_status("default_action_kills", WATCHDOG, || {
        spawn_another_thread();
        install(libc::SIG_DFL, 0, 0);
        call();
        send();
    });
    assert_eq!(status.signal(), Some(33), "{status}");
}

#[test]
fn resethand_applies_once() {
    let (status, output) = isolated_status("resethand_applies_once", WATCHDOG, || {
        spawn_another_thread();
        install(owner as *const () as usize, libc::SA_SIGINFO | libc::SA_RESETHAND, 0);
        call();
        send();
        println!("first: {}", COUNT.load(Ordering::SeqCst));
        send();
    });
    assert!(output.contains("first: 1"), "{output}");
    assert_eq!(status.signal(), Some(33), "{status}");
}

/// Another library installs its handler above this library's between calls. It passes on foreign signals, or does not.
/// It may also be below again, and both handlers then chain to each other.
#[test]
fn another_library_above() {
    isolated("another_library_above", WATCHDOG, || {
        spawn_another_thread();
        install(owner as *const () as usize, libc::SA_SIGINFO, 0);
        call();
        let flags = libc::SA_SIGINFO | libc::SA_RESTART | libc::SA_ONSTACK;
        let old = install(chaining as *const () as usize, flags, 0);
        OLD.store(old.handler, Ordering::SeqCst);
        call();
        // It passes on this library's signals, so it stays.
        assert_eq!(handler(), chaining as *const () as usize);
        COUNT.store(0, Ordering::SeqCst);
        send();
        // The other library's handler and the owner's; this library's ran between them.
        assert_eq!(COUNT.load(Ordering::SeqCst), 2);
        // Without SA_ONSTACK the other handler cannot stay above: this library installs its own again, and they chain.
        install(chaining as *const () as usize, libc::SA_SIGINFO, 0);
        call();
        assert_eq!(handler(), old.handler);
        COUNT.store(0, Ordering::SeqCst);
        send();
        assert_eq!(COUNT.load(Ordering::SeqCst), 2);
        // A handler that passes nothing on.
        install(owner as *const () as usize, flags, 0);
        call();
        COUNT.store(0, Ordering::SeqCst);
        send();
        assert_eq!(COUNT.load(Ordering::SeqCst), 1);
    });
}

/// Other code that installs a handler while a call installs the library's gets its signals passed on.
#[test]
fn installed_at_the_same_moment() {
    isolated("installed_at_the_same_moment", WATCHDOG, || {
        static ROUND: AtomicUsize = AtomicUsize::new(0);
        static DONE: AtomicUsize = AtomicUsize::new(0);
        static GOT: [AtomicUsize; 2] = [AtomicUsize::new(0), AtomicUsize::new(0)];
        type Handler = extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void);
        extern "C" fn even(_: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
            GOT[0].fetch_add(usize::from(is_sent(info)), Ordering::SeqCst);
        }
        extern "C" fn odd(_: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
            GOT[1].fetch_add(usize::from(is_sent(info)), Ordering::SeqCst);
        }
        const ROUNDS: usize = 500;
        std::thread::spawn(|| {
            for round in 1..=ROUNDS {
                while ROUND.load(Ordering::SeqCst) < round {
                    std::hint::spin_loop();
                }
                for _ in 0..round * 7919 % 300 {
                    std::hint::spin_loop();
                }
                let handler = if round % 2 == 0 { even as Handler } else { odd };
                install(handler as usize, libc::SA_SIGINFO, 0);
                DONE.store(round, Ordering::SeqCst);
            }
            spawn_another_thread();
        });
        for round in 1..=ROUNDS {
            ROUND.store(round, Ordering::SeqCst);
            call();
            while DONE.load(Ordering::SeqCst) < round {
                std::hint::spin_loop();
            }
            let before = GOT[round % 2].load(Ordering::SeqCst);
            send();
            assert_eq!(GOT[round % 2].load(Ordering::SeqCst), before + 1, "in round {round}");
        }
    });
}

#[test]
fn glibc_uses_the_signal_meanwhile() {
    isolated("glibc_uses_the_signal_meanwhile", WATCHDOG, || {
        let others: Vec<_> = (0..2)
            .map(|_| {
                std::thread::spawn(|| {
                    for _ in 0..1000 {
                        // SAFETY: -1 leaves every id unchanged.
                        assert_eq!(unsafe { libc::setresuid(!0, !0, !0) }, 0);
                    }
                })
            })
            .collect();
        while !others.iter().all(|other| other.is_finished()) {
            let slack = [libc::PR_SET_TIMERSLACK as usize, 5, 0, 0, 0, 0];
            // SAFETY: PR_SET_TIMERSLACK touches no memory.
            unsafe { Broadcast::new(libc::SYS_prctl, slack).execute_with_report() }.unwrap();
        }
        others.into_iter().for_each(|other| other.join().unwrap());
    });
}

//! Other code installs actions for signal 33 again and again (P6). Calls still work, and a foreign signal reaches the
//! latest action, with its mask.
#![cfg(not(target_arch = "loongarch64"))]
#![allow(unsafe_code)]

mod support;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use support::{cpu, isolated, prepared, set_slack};

const WATCHDOG: Duration = Duration::from_secs(120);
const SIGNAL: usize = 33;
const SIGSYS: u64 = 1 << (libc::SIGSYS - 1);
/// The kernel removes these signals from every mask.
const UNBLOCKABLE: u64 = 1 << (libc::SIGKILL - 1) | 1 << (libc::SIGSTOP - 1);

/// The kernel's structure. riscv64 has no restorer.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Action {
    handler: usize,
    flags: usize,
    #[cfg(not(target_arch = "riscv64"))]
    restorer: usize,
    mask: u64,
}

fn exchange(new: Option<&Action>) -> Action {
    let mut old = Action::default();
    let new = new.map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: the handlers of this file make raw calls and store to atomics.
    let done = unsafe { libc::syscall(libc::SYS_rt_sigaction, SIGNAL, new, &raw mut old, 8) };
    assert_eq!(done, 0);
    old
}

#[cfg(target_arch = "x86_64")]
std::arch::global_asm!("restore_for_actions: mov $15, %rax", "syscall", options(att_syntax));

/// Installs an action. On other CPUs than x86-64 the kernel brings the way back from a handler.
fn install(handler: usize, mask: u64) {
    let flags = libc::SA_SIGINFO as usize;
    #[allow(unused_mut, reason = "it is changed on x86-64")]
    let mut action = Action { handler, flags, mask, ..Action::default() };
    #[cfg(target_arch = "x86_64")]
    {
        const SA_RESTORER: usize = 0x0400_0000;
        unsafe extern "C" {
            fn restore_for_actions();
        }
        action.flags |= SA_RESTORER;
        action.restorer = restore_for_actions as *const () as usize;
    }
    exchange(Some(&action));
}

fn send() {
    // SAFETY: gettid touches no memory.
    let tid = unsafe { libc::gettid() };
    let pid = std::process::id();
    // SAFETY: tgkill touches no memory.
    assert_eq!(unsafe { libc::syscall(libc::SYS_tgkill, pid, tid, SIGNAL) }, 0);
}

fn call() {
    assert!(set_slack(5).unwrap().threads() >= 2);
}

fn spawn_another_thread() {
    prepared(|| {});
}

static COUNT: AtomicUsize = AtomicUsize::new(0);
static MASK: AtomicU64 = AtomicU64::new(0);

fn note() {
    COUNT.fetch_add(1, SeqCst);
    let mut mask = 0u64;
    let block = libc::SIG_BLOCK;
    // SAFETY: the kernel writes eight bytes.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, block, 0usize, &raw mut mask, 8usize) };
    MASK.store(mask, SeqCst);
}

/// Counts the signals of [`send`]. A signal of libpsx that comes late, after its call has returned, can reach an action
/// that was installed meanwhile.
extern "C" fn owner(_: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    if is_sent(info) {
        note();
    }
}

fn is_sent(info: *mut libc::siginfo_t) -> bool {
    // SAFETY: the kernel has filled in the structure.
    unsafe { (*info).si_code == libc::SI_TKILL }
}

type Handler = extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void);

/// The library's handler, to which [`chaining`] passes everything on.
static OURS: AtomicUsize = AtomicUsize::new(0);

extern "C" fn chaining(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    if is_sent(info) {
        note();
    }
    // SAFETY: the address is that of the handler which the first call installed.
    let ours = unsafe { std::mem::transmute::<usize, Handler>(OURS.load(SeqCst)) };
    ours(signal, info, context);
}

// Different functions that all jump to one.
std::arch::global_asm!(
    ".balign 16",
    ".globl jump_to_owner",
    "jump_to_owner:",
    ".rept 5000",
    cpu::jump!(),
    ".balign 16",
    ".endr",
    sym owner,
);
std::arch::global_asm!(
    ".balign 16",
    ".globl jump_to_chaining",
    "jump_to_chaining:",
    ".rept 100",
    cpu::jump!(),
    ".balign 16",
    ".endr",
    sym chaining,
);

unsafe extern "C" {
    fn jump_to_owner();
    fn jump_to_chaining();
}

/// Returns the first functions of a table, in which each has 16 bytes.
fn handlers(count: usize, table: unsafe extern "C" fn()) -> Vec<usize> {
    (0..count).map(|index| table as *const () as usize + index * 16).collect()
}

/// Returns a different mask for each number, without signal 33, SIGSYS and the signals that cannot be blocked.
fn mask(number: usize) -> u64 {
    ((number as u64 & 0x3f) | (number as u64 >> 6) << 40) & !UNBLOCKABLE
}

/// Checks that one signal reaches one handler, with this mask and signal 33 itself blocked.
fn reaches_once(wanted: u64) {
    let before = COUNT.load(SeqCst);
    send();
    assert_eq!(COUNT.load(SeqCst), before + 1);
    assert_eq!(MASK.load(SeqCst), wanted | 1 << 32, "{wanted:#x}");
}

fn masks(changes: usize) {
    spawn_another_thread();
    for number in 1..=changes {
        install(owner as *const () as usize, mask(number));
        call();
    }
    reaches_once(mask(changes));
    // The action is installed again, with the first mask.
    install(owner as *const () as usize, mask(1));
    call();
    reaches_once(mask(1));
}

#[test]
fn masks_20() {
    isolated("masks_20", WATCHDOG, || masks(20));
}

#[test]
fn masks_100() {
    isolated("masks_100", WATCHDOG, || masks(100));
}

#[test]
fn masks_5000() {
    isolated("masks_5000", WATCHDOG, || masks(5000));
}

#[test]
fn functions_5000() {
    isolated("functions_5000", WATCHDOG, || {
        spawn_another_thread();
        for (number, handler) in handlers(5000, jump_to_owner).into_iter().enumerate() {
            install(handler, mask(number));
            call();
            if number % 500 == 0 {
                reaches_once(mask(number));
            }
        }
        reaches_once(mask(4999));
    });
}

/// Several libraries have found the library's handler, and pass on what they get. Each of them gets a signal once, the
/// latest first, and then the chain ends.
#[test]
fn chain_of_100() {
    isolated("chain_of_100", WATCHDOG, || {
        // This many handlers need more than the alternate stack that Rust has given this thread.
        let none =
            libc::stack_t { ss_sp: std::ptr::null_mut(), ss_flags: libc::SS_DISABLE, ss_size: 0 };
        // SAFETY: no signal of a stack overflow is pending.
        assert_eq!(unsafe { libc::sigaltstack(&raw const none, std::ptr::null_mut()) }, 0);
        spawn_another_thread();
        install(owner as *const () as usize, mask(1));
        call();
        OURS.store(exchange(None).handler, SeqCst);
        let functions = handlers(100, jump_to_chaining);
        for (number, &handler) in functions.iter().enumerate() {
            install(handler, mask(number));
            call();
        }
        // A handler that is installed again with another mask keeps its first place in the chain.
        for (number, &handler) in functions.iter().enumerate().take(50) {
            install(handler, mask(200 + number));
            call();
        }
        COUNT.store(0, SeqCst);
        for _ in 0..3 {
            let before = COUNT.load(SeqCst);
            send();
            assert_eq!(COUNT.load(SeqCst) - before, 101);
            // The owner is the last in the chain.
            assert_eq!(MASK.load(SeqCst) & mask(1), mask(1));
        }
    });
}

/// Signals arrive while the list changes. Each reaches a handler, once.
#[test]
fn signals_while_actions_change() {
    isolated("signals_while_actions_change", WATCHDOG, || {
        static DONE: AtomicBool = AtomicBool::new(false);
        install(owner as *const () as usize, mask(1));
        let sender = std::thread::spawn(|| {
            let mut sent = 0usize;
            while !DONE.load(SeqCst) {
                let before = COUNT.load(SeqCst);
                send();
                assert_eq!(COUNT.load(SeqCst), before + 1, "after {sent} signals");
                sent += 1;
            }
            println!("{sent} signals");
        });
        let functions = handlers(3, jump_to_owner);
        for number in 0..5000 {
            install(functions[number * 7 / 3 % 3], mask(number));
            call();
        }
        DONE.store(true, SeqCst);
        sender.join().unwrap();
    });
}

/// The handler keeps SIGSYS as the interrupted thread has it, so that filters can emulate its calls. If other code has
/// given the library's handler another mask, the library corrects it.
#[test]
fn the_handler_leaves_sigsys_open() {
    isolated("the_handler_leaves_sigsys_open", WATCHDOG, || {
        spawn_another_thread();
        call();
        let wanted = !(SIGSYS | UNBLOCKABLE);
        let ours = exchange(None);
        assert_eq!(ours.mask, wanted, "{:#x}", ours.mask);
        for mask in [!0, 0, SIGSYS, wanted & !1] {
            exchange(Some(&Action { mask, ..ours }));
            call();
            let now = exchange(None);
            assert_eq!((now.handler, now.mask), (ours.handler, wanted), "{mask:#x}");
        }
    });
}

//! `libpsx.so.2` and `libpsx.a`: the interface of C's libpsx, declared in `include/sys/psx_syscall.h`, on the
//! engine of the Rust crate. Each symbol is one function here; what differs from the original is in
//! docs/upstream.md.
//!
//! Of the C library it uses `__errno_location`, `syscall` (to know who failed), `pthread_create` (only to hand
//! it through) and the memory functions that compilers take for granted. Nothing here can panic: what would is not linked in, and a test
//! looks.

// # Safety
//
// The functions are called from C. Pointers are written through only if they are not null, and are
// valid by the header's contract; what a system call does to memory is its caller's business.
#![allow(unsafe_code)]
#![no_std]

mod failure;

use core::ffi::{c_char, c_int, c_long, c_void};
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicU8, Ordering};

use failure::{Thread, Why};
use libpsx::{Broadcast, Sensitivity};

type Syscall3 = unsafe extern "C" fn(c_long, c_long, c_long, c_long) -> c_long;
type Syscall6 =
    unsafe extern "C" fn(c_long, c_long, c_long, c_long, c_long, c_long, c_long) -> c_long;
type PthreadCreate =
    unsafe extern "C" fn(*mut c_void, *const c_void, *const c_void, *mut c_void) -> c_int;

#[link(name = "c")]
unsafe extern "C" {
    fn __errno_location() -> *mut c_int;
    fn syscall(nr: c_long, ...) -> c_long;
    fn pthread_create(
        thread: *mut c_void,
        attr: *const c_void,
        body: *const c_void,
        arg: *mut c_void,
    ) -> c_int;
}

const EINVAL: c_int = 22;
#[cfg(target_arch = "x86_64")]
const GETTID: c_long = 186;

/// `psx_sensitivity_t`. (The crate's own process-wide setting begins elsewhere.)
static SENSITIVITY: AtomicU8 = AtomicU8::new(Sensitivity::Ignore as u8);

fn errno_of_this_thread() -> *mut c_int {
    // SAFETY: the C library's accessor may be called at any time.
    unsafe { __errno_location() }
}

fn this_thread() -> Thread {
    // SAFETY: gettid(2) cannot fail, and touches no memory.
    let tid = unsafe { syscall(GETTID) };
    Thread { tid: tid as usize, errno: errno_of_this_thread() as usize }
}

fn fail(errno: c_int, why: Why) -> c_long {
    failure::remember(this_thread(), why);
    // SAFETY: it is this thread's own.
    unsafe { errno_of_this_thread().write(errno) };
    -1
}

/// # Safety
/// See [`libpsx::syscall6`].
unsafe fn perform(nr: c_long, args: [c_long; 6]) -> c_long {
    let level = match SENSITIVITY.load(Ordering::Relaxed) {
        0 => Sensitivity::Ignore,
        1 => Sensitivity::Warning,
        _ => Sensitivity::Error,
    };
    let broadcast = Broadcast::new(nr, args.map(|arg| arg as usize)).sensitivity(level);
    // SAFETY: the caller's promise is the one asked for here.
    match unsafe { broadcast.execute() } {
        Ok(value) => value as c_long,
        Err(error) => fail(error.raw_os_error(), Why::Broadcast(error)),
    }
}

/// `psx_syscall3(3)`.
///
/// # Safety
/// See [`libpsx::syscall6`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn psx_syscall3(nr: c_long, a: c_long, b: c_long, c: c_long) -> c_long {
    // SAFETY: the caller's promise is the one asked for here.
    unsafe { perform(nr, [a, b, c, 0, 0, 0]) }
}

/// `psx_syscall6(3)`.
///
/// # Safety
/// See [`libpsx::syscall6`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn psx_syscall6(
    nr: c_long,
    a: c_long,
    b: c_long,
    c: c_long,
    d: c_long,
    e: c_long,
    f: c_long,
) -> c_long {
    // SAFETY: the caller's promise is the one asked for here.
    unsafe { perform(nr, [a, b, c, d, e, f]) }
}

/// What the macro `psx_syscall()` of the original header comes to: the call's arguments, then 6, 5,
/// 4 ... down to 0. So the seventh value after the call's number says how many there are.
///
/// The header declares it variadic, `long __psx_syscall(long, ...)`. No more than eight values are
/// read, each a `long` or a pointer, and there the CPU's calling convention passes variadic
/// arguments as it passes named ones: on x86-64 six in registers, the last two on the stack (System
/// V ABI, AMD64 supplement, 3.2.3 and 3.5.7: a variadic call differs in AL alone).
///
/// # Safety
/// See [`libpsx::syscall6`].
#[cfg(target_arch = "x86_64")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __psx_syscall(
    nr: c_long,
    a: c_long,
    b: c_long,
    c: c_long,
    d: c_long,
    e: c_long,
    f: c_long,
    count: c_long,
) -> c_long {
    let mut args = [a, b, c, d, e, f];
    if !(0..=6).contains(&count) {
        return fail(EINVAL, Why::Arguments);
    }
    for unused in args.iter_mut().skip(count as usize) {
        *unused = 0;
    }
    // SAFETY: the caller's promise is the one asked for here.
    unsafe { perform(nr, args) }
}

/// `psx_load_syscalls(3)`: how libcap finds us. A null place is left out.
///
/// # Safety
/// What is not null can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn psx_load_syscalls(three: *mut Syscall3, six: *mut Syscall6) {
    if !three.is_null() {
        // SAFETY: promised by the caller.
        unsafe { three.write(psx_syscall3) };
    }
    if !six.is_null() {
        // SAFETY: promised by the caller.
        unsafe { six.write(psx_syscall6) };
    }
}

/// `psx_set_sensitivity(3)`.
#[unsafe(no_mangle)]
pub extern "C" fn psx_set_sensitivity(level: c_int) -> c_int {
    let (0..=2) = level else { return fail(EINVAL, Why::Level) as c_int };
    // Relaxed: a setting on its own.
    SENSITIVITY.store(level as u8, Ordering::Relaxed);
    0
}

/// `psx_strerror(3)`: our one addition.
///
/// # Safety
/// There is room for `size` bytes at `text` and for `count` numbers at `tids`, or they are null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn psx_strerror(
    text: *mut c_char,
    size: usize,
    tids: *mut c_int,
    count: usize,
) -> usize {
    // SAFETY: promised by the caller.
    let text = unsafe { room(text.cast::<u8>(), size) };
    // SAFETY: promised by the caller.
    let tids = unsafe { room(tids, count) };
    failure::explain(this_thread(), text, tids)
}

/// # Safety
/// There is room for `count` at `place`, or it is null.
unsafe fn room<'a, T>(place: *mut T, count: usize) -> &'a mut [MaybeUninit<T>] {
    if place.is_null() {
        return &mut [];
    }
    // A slice has to be shorter than half of the memory there is.
    let count = count.min(isize::MAX as usize / size_of::<T>());
    // SAFETY: promised by the caller; it need not be initialised.
    unsafe { core::slice::from_raw_parts_mut(place.cast(), count) }
}

/// For programs that were linked with `-Wl,--wrap=pthread_create`, which the original once wanted.
/// Threads need not be known to us: this is the C library's function.
///
/// # Safety
/// pthread_create(3).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __wrap_pthread_create(
    thread: *mut c_void,
    attr: *const c_void,
    body: *const c_void,
    arg: *mut c_void,
) -> c_int {
    let real = wrapped_pthread_create().unwrap_or(pthread_create);
    // SAFETY: promised by the caller.
    unsafe { real(thread, attr, body, arg) }
}

/// `__real_pthread_create`, which the linker makes of `pthread_create` if it was told to wrap it.
/// (What it makes of `pthread_create` is ourselves then.) There is no such symbol otherwise, so it
/// has to be weak; and because a weak one fetches nothing out of a static libc, thrd_create(3),
/// which stands on it, is mentioned besides.
fn wrapped_pthread_create() -> Option<PthreadCreate> {
    let address: usize;
    // SAFETY: reads an entry of the global offset table.
    unsafe {
        core::arch::asm!(
            ".weak __real_pthread_create",
            "mov {0}, qword ptr [rip + thrd_create@GOTPCREL]",
            "mov {0}, qword ptr [rip + __real_pthread_create@GOTPCREL]",
            out(reg) address,
            options(nostack, pure, readonly, preserves_flags),
        );
    }
    // SAFETY: null is None, and anything else is the C library's function.
    unsafe { core::mem::transmute::<usize, Option<PthreadCreate>>(address) }
}

// If libpsx is built together with the rest of the workspace, another member has turned its feature `std` on, and the
// standard library brings both of these.
libpsx::__without_std! {
    // Objects of compiler_builtins mention it, which come along if the whole archive is linked.
    core::arch::global_asm!(
        ".weak rust_eh_personality",
        ".hidden rust_eh_personality",
        "rust_eh_personality:"
    );

    #[panic_handler]
    fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
        unsafe extern "C" {
            fn abort() -> !;
        }
        // SAFETY: ends the process.
        unsafe { abort() }
    }
}

//! `libpsx.so.2` and `libpsx.a`: the interface of C's libpsx, declared in `include/sys/psx_syscall.h`, on the
//! engine of the Rust crate. Each symbol is one function here. docs/upstream.md lists the differences from the
//! original.
//!
//! The library uses these functions of the C library: `__errno_location`, `syscall` (gettid, for a thread
//! in which a call failed), `pthread_create` (only to pass it on) and the memory functions that compilers require.
//! Nothing here can panic: the panic machinery is not linked in, and a test checks that.

// # Safety
//
// The functions are called from C. They write through a pointer only if it is not null, and the header requires it
// to be valid. The caller is responsible for what a system call does to memory.
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

/// `psx_sensitivity_t`. (The crate's own process-wide setting has another initial value.)
static SENSITIVITY: AtomicU8 = AtomicU8::new(Sensitivity::Ignore as u8);

fn errno_of_this_thread() -> *mut c_int {
    // SAFETY: the C library allows a call of this function at any time.
    unsafe { __errno_location() }
}

fn this_thread() -> Thread {
    // SAFETY: gettid(2) cannot fail and accesses no memory.
    let tid = unsafe { syscall(GETTID) };
    Thread { tid: tid as usize, errno: errno_of_this_thread() as usize }
}

fn fail(errno: c_int, why: Why) -> c_long {
    failure::remember(this_thread(), why);
    // SAFETY: the address is that of this thread's own errno.
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
    // SAFETY: the caller guarantees what `execute` requires.
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
    // SAFETY: the caller guarantees what `perform` requires.
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
    // SAFETY: the caller guarantees what `perform` requires.
    unsafe { perform(nr, [a, b, c, d, e, f]) }
}

/// The function that the original header's macro `psx_syscall()` calls. Its arguments are those of the system call,
/// then 6, 5, 4 ... down to 0. Therefore the seventh value after the call's number is the number of arguments.
///
/// The header declares it variadic, `long __psx_syscall(long, ...)`. The function reads no more than eight values,
/// each a `long` or a pointer. For these, the calling convention passes variadic arguments like named ones: on
/// x86-64, six in registers and the last two on the stack (System V ABI, AMD64 supplement, 3.2.3 and 3.5.7: a
/// variadic call differs only in AL).
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
    // SAFETY: the caller guarantees what `perform` requires.
    unsafe { perform(nr, args) }
}

/// `psx_load_syscalls(3)`: libcap calls this function to find the library. A null pointer is skipped.
///
/// # Safety
/// Each pointer that is not null is valid for writes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn psx_load_syscalls(three: *mut Syscall3, six: *mut Syscall6) {
    if !three.is_null() {
        // SAFETY: the pointer is not null, and the caller guarantees that it is valid for writes.
        unsafe { three.write(psx_syscall3) };
    }
    if !six.is_null() {
        // SAFETY: the pointer is not null, and the caller guarantees that it is valid for writes.
        unsafe { six.write(psx_syscall6) };
    }
}

/// `psx_set_sensitivity(3)`.
#[unsafe(no_mangle)]
pub extern "C" fn psx_set_sensitivity(level: c_int) -> c_int {
    let (0..=2) = level else { return fail(EINVAL, Why::Level) as c_int };
    // Relaxed: no other data depends on this setting.
    SENSITIVITY.store(level as u8, Ordering::Relaxed);
    0
}

/// `psx_strerror(3)`: the only function that the original does not have.
///
/// # Safety
/// `text` has room for `size` bytes and `tids` for `count` numbers, or they are null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn psx_strerror(
    text: *mut c_char,
    size: usize,
    tids: *mut c_int,
    count: usize,
) -> usize {
    // SAFETY: the caller guarantees room for `size` bytes, or null.
    let text = unsafe { room(text.cast::<u8>(), size) };
    // SAFETY: the caller guarantees room for `count` numbers, or null.
    let tids = unsafe { room(tids, count) };
    failure::explain(this_thread(), text, tids)
}

/// # Safety
/// `place` has room for `count` values, or it is null.
unsafe fn room<'a, T>(place: *mut T, count: usize) -> &'a mut [MaybeUninit<T>] {
    if place.is_null() {
        return &mut [];
    }
    // A slice must not be larger than isize::MAX bytes.
    let count = count.min(isize::MAX as usize / size_of::<T>());
    // SAFETY: the caller guarantees the room, and `MaybeUninit` need not be initialised.
    unsafe { core::slice::from_raw_parts_mut(place.cast(), count) }
}

/// For programs that were linked with `-Wl,--wrap=pthread_create`, which older versions of the original required.
/// This library need not know which threads exist, so this function calls the C library's.
///
/// # Safety
/// See pthread_create(3).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __wrap_pthread_create(
    thread: *mut c_void,
    attr: *const c_void,
    body: *const c_void,
    arg: *mut c_void,
) -> c_int {
    let real = wrapped_pthread_create().unwrap_or(pthread_create);
    // SAFETY: the caller guarantees what pthread_create(3) requires.
    unsafe { real(thread, attr, body, arg) }
}

/// Returns `__real_pthread_create`. The linker defines this symbol as the C library's `pthread_create` if it was
/// told to wrap that function; `pthread_create` is then the function above. Otherwise the symbol does not exist, so
/// the reference has to be weak. A weak reference does not link an object of a static libc. Therefore the code also
/// refers to thrd_create(3), which depends on pthread_create.
fn wrapped_pthread_create() -> Option<PthreadCreate> {
    let address: usize;
    // SAFETY: the instruction reads an entry of the global offset table.
    unsafe {
        core::arch::asm!(
            ".weak __real_pthread_create",
            "mov {0}, qword ptr [rip + thrd_create@GOTPCREL]",
            "mov {0}, qword ptr [rip + __real_pthread_create@GOTPCREL]",
            out(reg) address,
            options(nostack, pure, readonly, preserves_flags),
        );
    }
    // SAFETY: null becomes `None`, and any other value is the address of the C library's function.
    unsafe { core::mem::transmute::<usize, Option<PthreadCreate>>(address) }
}

// If libpsx is built together with the rest of the workspace, another member enables its feature `std`, and the
// standard library provides both of these items.
libpsx::__without_std! {
    // Objects of compiler_builtins refer to this symbol. They are linked if the whole archive is linked.
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
        // SAFETY: abort(3) has no preconditions; it ends the process.
        unsafe { abort() }
    }
}

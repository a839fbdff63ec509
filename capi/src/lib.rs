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
    #[cfg_attr(target_os = "android", link_name = "__errno")]
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
const GETTID: c_long = linux_raw_sys::general::__NR_gettid as c_long;

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
/// The header declares it variadic, `long __psx_syscall(long, ...)`. No more than eight values are read, each a `long`
/// or a pointer. Each of these calling conventions passes variadic arguments of that kind as it passes named ones, and
/// the caller passes eight or more, so a function of eight named arguments finds them:
///
/// | CPU | in registers | on the stack | why a variadic call does not differ |
/// |---|---|---|---|
/// | x86-64 | 6 | 2 | System V ABI, AMD64 supplement, 3.5.7: only AL is set besides |
/// | aarch64 | 8 | 0 | AAPCS64, appendix B: the base rules apply (Apple's and Windows' differ) |
/// | riscv64 | 8 | 0 | RISC-V calling convention: only arguments of two registers' size are aligned |
/// | loongarch64 | 8 | 0 | LoongArch ABI: the same |
/// | powerpc64le | 8 | 0 | ELF ABI v2, 2.2.3.3: the caller also reserves memory for them |
/// | s390x | 5 | 3 | zSeries ELF ABI, 1.2: no distinction for integers |
/// | arm | 4 | 4 | AAPCS32, 6.1: the base standard, which differs for floating-point values alone |
/// | 32-bit x86 | 0 | 8 | System V ABI, i386 supplement, 2.2.3: no distinction |
///
/// # Safety
/// See [`libpsx::syscall6`].
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

/// Returns libc's pthread_create(3), if the program was linked with `--wrap=pthread_create`. The linker then gives it the
/// name `__real_pthread_create`, and resolves `pthread_create` to the function of this library. Without the option there
/// is no such symbol, so the reference is weak. A weak reference takes nothing out of a static libc, so the assembly
/// below also mentions thrd_create(3), which uses pthread_create(3).
fn wrapped_pthread_create() -> Option<PthreadCreate> {
    unsafe extern "C" {
        static psx_wrapped_pthread_create: Option<PthreadCreate>;
    }
    // SAFETY: the loader has written it: null is None, and anything else is the C library's function.
    unsafe { (&raw const psx_wrapped_pthread_create).read() }
}

/// A word that the linker or the loader fills in. Rust has no words for a weak symbol.
macro_rules! weak_pointer {
    ($word:literal, $size:literal) => {
        core::arch::global_asm!(
            ".weak __real_pthread_create",
            ".hidden psx_wrapped_pthread_create",
            ".globl psx_wrapped_pthread_create",
            ".pushsection .data.rel.ro.psx, \"aw\"",
            concat!(".balign ", $size),
            "psx_wrapped_pthread_create:",
            concat!($word, " __real_pthread_create"),
            mention!($word),
            ".popsection",
        );
    };
}

#[cfg(not(target_os = "android"))]
macro_rules! mention {
    ($word:literal) => {
        concat!($word, " thrd_create")
    };
}

/// bionic has had thrd_create(3) since API level 30, and programs there are linked dynamically.
#[cfg(target_os = "android")]
macro_rules! mention {
    ($word:literal) => {
        ""
    };
}

#[cfg(target_pointer_width = "64")]
weak_pointer!(".8byte", "8");
#[cfg(target_pointer_width = "32")]
weak_pointer!(".4byte", "4");

// If libpsx is built together with the rest of the workspace, another member has turned its feature `std` on, and the
// standard library brings both of these.
libpsx::__without_std! {
    // Objects of compiler_builtins refer to this symbol. They are linked if the whole archive is linked.
    core::arch::global_asm!(
        ".weak rust_eh_personality",
        ".hidden rust_eh_personality",
        "rust_eh_personality:"
    );

    // The unwind tables of arm mention these. No code of this library unwinds, and a shared library is linked without libgcc.
    #[cfg(target_arch = "arm")]
    core::arch::global_asm!(
        ".weak __aeabi_unwind_cpp_pr0",
        ".weak __aeabi_unwind_cpp_pr1",
        ".hidden __aeabi_unwind_cpp_pr0",
        ".hidden __aeabi_unwind_cpp_pr1",
        "__aeabi_unwind_cpp_pr0:",
        "__aeabi_unwind_cpp_pr1:"
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

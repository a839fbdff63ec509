//! Creates threads that no C library knows, by clone(2) itself.

use super::cpu;

pub const STACK: usize = 16 << 10;

/// Returns zeroed memory. It is mapped, but takes no pages before it is used.
pub fn memory(bytes: usize) -> usize {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: the call creates a new mapping.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, flags, -1, 0) };
    assert_ne!(at, libc::MAP_FAILED);
    at as usize
}

/// Sleeps until a signal comes, as pause(2) does, which not every CPU has. It does not change errno.
pub fn pause() {
    // SAFETY: without descriptors and a time, ppoll touches no memory.
    unsafe { cpu::call(libc::SYS_ppoll, [0; 6]) };
}

pub extern "C" fn sleep_for_ever() -> ! {
    loop {
        pause();
    }
}

/// Creates a thread with the thread pointer of this thread, or another one. `body` must not use TLS. Returns the tid,
/// or the negative error number.
pub fn raw_thread(stack: usize, thread_pointer: Option<usize>, body: extern "C" fn() -> !) -> i32 {
    let flags = libc::CLONE_VM
        | libc::CLONE_THREAD
        | libc::CLONE_SIGHAND
        | libc::CLONE_FS
        | libc::CLONE_FILES
        | libc::CLONE_SYSVSEM
        | if thread_pointer.is_some() { libc::CLONE_SETTLS } else { 0 };
    // SAFETY: the callers give each thread a stack of its own.
    (unsafe { cpu::clone(flags, stack + STACK, thread_pointer.unwrap_or(0), body) }) as i32
}

/// Creates threads that share this thread's TLS, and threads whose TLS is all zero.
pub fn raw_threads(pairs: usize) {
    for _ in 0..pairs {
        assert!(raw_thread(memory(STACK), None, sleep_for_ever) > 0);
        assert!(raw_thread(memory(STACK), Some(memory(4096) + 2048), sleep_for_ever) > 0);
    }
}

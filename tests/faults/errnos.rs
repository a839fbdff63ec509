//! The errors that each call can fail with.

use libc::*;

/// The errors with which seccomp(2) filters answer in practice.
pub const FILTERS: &[i32] = &[EPERM, ENOSYS, EACCES];
/// The errors of calls that succeed when they are tried again.
pub const MOMENTARY: &[i32] = &[EINTR, EAGAIN];

/// Returns the errors of the call's manual page, the likeliest one first.
pub fn of(call: &str) -> &'static [i32] {
    match call.split(' ').next().unwrap_or_default() {
        "unshare" => &[EPERM, EINVAL, ENOMEM, ENOSPC, EUSERS],
        "mmap" => {
            &[ENOMEM, EAGAIN, EACCES, EBADF, EEXIST, EINVAL, ENFILE, ENODEV, EOVERFLOW, ETXTBSY]
        }
        "munmap" => &[EINVAL, ENOMEM],
        "madvise" => &[EINVAL, ENOMEM, EAGAIN, EBADF, EBUSY, EIO],
        "clock_gettime" => &[EINVAL, EFAULT, ENODEV],
        "rt_sigprocmask" | "rt_sigaction" => &[EINVAL, EFAULT],
        "rt_tgsigqueueinfo" | "tgkill" | "kill" => &[EAGAIN, ESRCH, EINVAL],
        "openat" => &[
            EMFILE,
            ENOENT,
            ENFILE,
            ENOMEM,
            EINTR,
            ELOOP,
            ENOTDIR,
            EBUSY,
            EINVAL,
            EIO,
            ENODEV,
            ENXIO,
            EOVERFLOW,
            ENAMETOOLONG,
            EFAULT,
            EBADF,
            ESRCH,
        ],
        "fstatfs" => &[EIO, EINTR, EBADF, EFAULT, ENOMEM, EOVERFLOW],
        "fstat" | "newfstatat" | "statx" => &[EOVERFLOW, ENOMEM, EBADF, EFAULT, ESRCH],
        "fcntl" => &[EMFILE, EBADF, EINVAL, EINTR],
        "close" => &[EIO, EINTR, EBADF, ENOSPC, EDQUOT],
        "lseek" => &[ESPIPE, EBADF, EINVAL, ENXIO, EOVERFLOW],
        "getdents64" => &[ENOENT, EBADF, EFAULT, EINVAL, ENOTDIR],
        "read" => &[EINTR, EIO, ESRCH, EBADF, EFAULT, EINVAL, EISDIR],
        "write" | "pwritev2" => &[EAGAIN, EPIPE, EINTR, EIO, ENOSPC, EBADF, EFAULT, EFBIG, EINVAL],
        "futex" => &[EAGAIN, EINTR, ETIMEDOUT, EFAULT, EINVAL, ENOMEM, ESRCH, EDEADLK],
        "fsopen" => &[EMFILE, ENODEV, EBUSY, EFAULT, EINVAL, ENFILE, ENOMEM],
        "fsconfig" => &[EINVAL, EBUSY, EBADF, EFAULT, EOPNOTSUPP],
        "fsmount" => &[EMFILE, EBADF, EBUSY, EINVAL, ENFILE, ENOMEM],
        "prctl" | "uname" | "rt_sigpending" | "prlimit64" => &[EFAULT, EINVAL],
        "ppoll" => &[ENOMEM, EINTR, EFAULT, EINVAL],
        "ioctl" => &[ENOTTY, EBADF, EFAULT, EINVAL, EIO],
        "timer_create" | "timer_settime" => &[EAGAIN, ENOMEM, EINVAL, EFAULT],
        "kcmp" => &[ESRCH, EINVAL, EBADF],
        // getpid, gettid and the like cannot fail.
        _ => &[],
    }
}

/// Returns the name of an error.
pub fn name(errno: i32) -> String {
    macro_rules! names {
        ($($errno:ident)*) => {
            match errno {
                $(libc::$errno => stringify!($errno).to_owned(),)*
                other => other.to_string(),
            }
        };
    }
    names! {
        EPERM ENOENT ESRCH EINTR EIO ENXIO EBADF EAGAIN ENOMEM EACCES EFAULT EBUSY EEXIST ENODEV ENOTDIR
        EISDIR EINVAL ENFILE EMFILE ETXTBSY EFBIG ENOSPC ESPIPE EPIPE EDEADLK ENAMETOOLONG ENOSYS ELOOP
        ENOTTY EOVERFLOW EUSERS EOPNOTSUPP ETIMEDOUT EDQUOT
    }
}

//! What standard error can be: pipes, sockets, terminals, files and devices, with and without room.

use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// A file for the standard error of a process, and its other end.
pub(super) struct Target {
    pub(super) file: OwnedFd,
    pub(super) reader: Option<OwnedFd>,
    /// Descriptors that must stay open.
    pub(super) _keep: Vec<OwnedFd>,
}

impl Target {
    pub(super) fn new(file: OwnedFd, reader: Option<OwnedFd>) -> Self {
        Self { file, reader, _keep: Vec::new() }
    }

    /// Reads from the other end.
    pub(super) fn read(&self) -> String {
        let Some(reader) = &self.reader else { return String::new() };
        nonblocking(reader, true);
        let mut file = File::from(reader.try_clone().unwrap());
        let mut all = Vec::new();
        let mut part = [0; 4096];
        while let Ok(count) = file.read(&mut part) {
            if count == 0 {
                break;
            }
            all.extend_from_slice(&part[..count]);
        }
        String::from_utf8(all).unwrap()
    }

    /// Writes `at_once` bytes at a time until there is no room. The file is in blocking mode again afterwards.
    pub(super) fn fill(self, at_once: usize) -> Self {
        nonblocking(&self.file, true);
        while write(&self.file, at_once) > 0 {}
        nonblocking(&self.file, false);
        self
    }
}

pub(super) fn write(file: &OwnedFd, count: usize) -> isize {
    let bytes = vec![b'.'; count];
    // SAFETY: the kernel reads the bytes.
    unsafe { libc::write(file.as_raw_fd(), bytes.as_ptr().cast(), count) }
}

pub(super) fn flags(file: &impl AsRawFd) -> i32 {
    // SAFETY: F_GETFL touches no memory.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) }
}

pub(super) fn nonblocking(file: &impl AsRawFd, on: bool) {
    let others = flags(file) & !libc::O_NONBLOCK;
    let flags = if on { others | libc::O_NONBLOCK } else { others };
    // SAFETY: F_SETFL touches no memory.
    assert_eq!(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags) }, 0);
}

pub(super) fn owned(fd: RawFd) -> OwnedFd {
    assert!(fd >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: the descriptor is new, and no other code has it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// A pipe of one page.
pub(super) fn pipe() -> Target {
    let mut ends = [0; 2];
    // SAFETY: the kernel writes two descriptors.
    assert_eq!(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) }, 0);
    let target = Target::new(owned(ends[1]), Some(owned(ends[0])));
    // SAFETY: F_SETPIPE_SZ touches no memory.
    assert!(unsafe { libc::fcntl(ends[1], libc::F_SETPIPE_SZ, 4096) } > 0);
    target
}

pub(super) fn pipe_with_100_bytes() -> Target {
    let target = pipe();
    assert_eq!(write(&target.file, 3996), 3996);
    target
}

pub(super) fn pipe_without_reader() -> Target {
    Target::new(pipe().file, None)
}

pub(super) fn fifo() -> Target {
    let path = format!("{}/psx-fifo-{}", std::env::temp_dir().display(), std::process::id());
    let name = CString::new(path).unwrap();
    // SAFETY: the path is a string.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    // SAFETY: the path is a string.
    let open = |how| owned(unsafe { libc::open(name.as_ptr(), how | libc::O_CLOEXEC) });
    let reader = open(libc::O_RDONLY | libc::O_NONBLOCK);
    let target = Target::new(open(libc::O_WRONLY), Some(reader));
    // SAFETY: the path is a string.
    assert_eq!(unsafe { libc::unlink(name.as_ptr()) }, 0);
    target
}

pub(super) fn socket(kind: i32) -> Target {
    let mut ends = [0; 2];
    // SAFETY: the kernel writes two descriptors.
    let done = unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, ends.as_mut_ptr()) };
    assert_eq!(done, 0);
    Target::new(owned(ends[1]), Some(owned(ends[0])))
}

pub(super) fn stream() -> Target {
    socket(libc::SOCK_STREAM)
}

pub(super) fn datagrams() -> Target {
    socket(libc::SOCK_DGRAM)
}

/// ppoll(2) reports the socket as writable, and a write fails with EPIPE.
pub(super) fn stream_shut_down() -> Target {
    let target = stream();
    // SAFETY: shutdown touches no memory.
    assert_eq!(unsafe { libc::shutdown(target.file.as_raw_fd(), libc::SHUT_WR) }, 0);
    target
}

pub(super) fn terminal() -> Target {
    let [master, slave] = super::support::terminal().unwrap();
    let keep = vec![slave.try_clone().unwrap()];
    Target { file: slave, reader: Some(master), _keep: keep }
}

/// The terminal is stopped, as by ^S.
pub(super) fn terminal_stopped() -> Target {
    let target = terminal();
    // SAFETY: tcflow touches no memory.
    assert_eq!(unsafe { libc::tcflow(target.file.as_raw_fd(), libc::TCOOFF) }, 0);
    target
}

/// The terminal converts lower-case letters, which the kernel does one by one.
pub(super) fn terminal_of_capitals() -> Target {
    let target = terminal();
    let mut settings = std::mem::MaybeUninit::<libc::termios>::zeroed();
    // SAFETY: the C library fills in the settings.
    unsafe { libc::tcgetattr(target.file.as_raw_fd(), settings.as_mut_ptr()) };
    // SAFETY: the settings are filled in, and all of them are integers.
    let mut settings = unsafe { settings.assume_init() };
    settings.c_oflag |= libc::OLCUC;
    // SAFETY: the C library reads the settings.
    unsafe { libc::tcsetattr(target.file.as_raw_fd(), libc::TCSANOW, &settings) };
    target
}

pub(super) fn device(path: &str) -> Target {
    Target::new(File::options().write(true).open(path).unwrap().into(), None)
}

/// A regular file of a few bytes.
pub(super) fn regular() -> Target {
    let path = format!("{}/psx-file-{}", std::env::temp_dir().display(), std::process::id());
    let file = File::create(&path).unwrap();
    let reader = File::open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let target = Target::new(file.into(), Some(reader.into()));
    assert_eq!(write(&target.file, 10), 10);
    target
}

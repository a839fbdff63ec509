//! A file server on io_uring, whose kernel thread would keep root's privileges.
//!
//! It shows a state that no call can change: a ring with SQPOLL has a kernel thread, which keeps the credentials that
//! the process had when it made the ring. The server asks libpsx whether there is such a thread, closes the ring first,
//! waits until the thread is gone, drops privileges, and makes a new ring. A client sends the name of a file, or
//! `drop`:
//!
//! ```sh
//! cargo build -p examples && sudo target/debug/uring 127.0.0.1:7000 &
//! for request in /etc/shadow drop /etc/shadow; do echo $request | nc -N 127.0.0.1 7000; done
//! ```
//!
//! With `--keep-ring` it drops privileges and keeps the ring: then `/etc/shadow` is served by `nobody`.

// # Safety
//
// An entry of the ring refers to memory that `one` borrows until the kernel has completed it.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use io_uring::types::Fd;
use io_uring::{IoUring, opcode, squeue};
use libpsx::process::identities;
use privileges::Privileges;

type Failure = Box<dyn std::error::Error>;

/// After so many milliseconds without work the kernel's thread sleeps.
const IDLE: u32 = 10;

fn main() -> Result<(), Failure> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let keep = arguments.first().is_some_and(|first| first == "--keep-ring");
    if keep {
        arguments.remove(0);
    }
    let listener = TcpListener::bind(arguments.first().map_or("127.0.0.1:0", String::as_str))?;
    println!("serving on {}", listener.local_addr()?);
    // The server has further threads, like a real program.
    for _ in 0..3 {
        std::thread::spawn(|| {
            loop {
                std::thread::park();
            }
        });
    }
    let mut ring = Some(new_ring()?);
    loop {
        let serving = ring.as_mut().ok_or("no ring")?;
        let connection = one(serving, accept(&listener))?;
        // SAFETY: the kernel has just made this descriptor for us.
        let connection = unsafe { OwnedFd::from_raw_fd(connection) };
        let request = receive(serving, connection.as_raw_fd())?;
        let request = String::from_utf8_lossy(&request);
        let answer = if request.trim() == "drop" {
            if !keep {
                close(&mut ring)?;
            }
            let dropped = drop_privileges()?;
            if !keep {
                ring = Some(new_ring()?);
            }
            dropped.into_bytes()
        } else {
            read_file(serving, request.trim()).unwrap_or_else(|error| format!("{error}\n").into())
        };
        send(ring.as_mut().ok_or("no ring")?, connection.as_raw_fd(), &answer)?;
    }
}

fn new_ring() -> io::Result<IoUring> {
    IoUring::builder().setup_sqpoll(IDLE).build(8)
}

/// Closes the ring, and waits until its thread is gone: the kernel ends it some time after.
fn close(ring: &mut Option<IoUring>) -> Result<(), Failure> {
    // This broadcast changes nothing. Its report contains the number of such threads.
    println!(
        "{} kernel thread would keep root's privileges: closing the ring",
        identities(0)?.sqpoll()
    );
    *ring = None;
    let until = Instant::now() + Duration::from_secs(10);
    while identities(0)?.sqpoll() > 0 {
        if Instant::now() > until {
            return Err(
                "the ring is closed, and its thread is still there: nothing was dropped".into()
            );
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn drop_privileges() -> Result<String, privileges::Error> {
    let applied = Privileges::new().user("nobody").no_new_privs().plan()?.apply()?;
    let (threads, sqpoll) = (applied.threads, applied.sqpoll);
    Ok(format!("{threads} threads are nobody; {sqpoll} kernel threads keep the old privileges\n"))
}

/// Makes the kernel's thread perform one operation, and waits for it.
fn one(ring: &mut IoUring, entry: squeue::Entry) -> io::Result<RawFd> {
    // SAFETY: the memory of the entry lives until this function returns. By then the kernel has completed the entry.
    let pushed = unsafe { ring.submission().push(&entry) };
    pushed.map_err(io::Error::other)?;
    let result = loop {
        match ring.submit_and_wait(1) {
            // A signal has interrupted the call: libpsx's or another one.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                // The kernel may write into the memory of the entry at any time.
                eprintln!("io_uring_enter failed: {error}");
                std::process::abort();
            }
            Ok(_) => {}
        }
        if let Some(done) = ring.completion().next() {
            break done.result();
        }
    };
    if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(result) }
}

fn accept(listener: &TcpListener) -> squeue::Entry {
    let (address, length) = (std::ptr::null_mut(), std::ptr::null_mut());
    opcode::Accept::new(Fd(listener.as_raw_fd()), address, length).build()
}

fn receive(ring: &mut IoUring, from: RawFd) -> io::Result<Vec<u8>> {
    let mut data = vec![0; 4096];
    let entry = opcode::Recv::new(Fd(from), data.as_mut_ptr(), 4096).build();
    let length = one(ring, entry)?;
    data.truncate(usize::try_from(length).unwrap_or_default());
    Ok(data)
}

fn send(ring: &mut IoUring, to: RawFd, data: &[u8]) -> io::Result<()> {
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
    one(ring, opcode::Send::new(Fd(to), data.as_ptr(), length).flags(libc::MSG_NOSIGNAL).build())?;
    Ok(())
}

/// Opens and reads a file. The kernel's thread opens the file, so that thread's credentials decide.
fn read_file(ring: &mut IoUring, path: &str) -> io::Result<Vec<u8>> {
    let path = CString::new(path)?;
    let opening = opcode::OpenAt::new(Fd(libc::AT_FDCWD), path.as_ptr()).flags(libc::O_CLOEXEC);
    let opened = one(ring, opening.build())?;
    // SAFETY: the kernel has just made this descriptor for us.
    let file = unsafe { File::from_raw_fd(opened) };
    let mut data = vec![0; 4096];
    let entry = opcode::Read::new(Fd(file.as_raw_fd()), data.as_mut_ptr(), 4096).build();
    let length = one(ring, entry)?;
    data.truncate(usize::try_from(length).unwrap_or_default());
    Ok(data)
}

//! A process that fills its own memory on demand (userfaultfd), and drops privileges meanwhile.
//!
//! It shows a wait that a signal does not end: a thread whose system call needs a missing page sleeps in the kernel
//! until another thread of the same process has filled the page. If all threads were held at once, the page would never
//! come. libpsx releases the threads after some milliseconds and tries again, so the page comes, and all are held the
//! next time. Run it as root. It drops privileges at a line of input, and ends with its input:
//!
//! ```sh
//! cargo build -p examples && sudo target/debug/page_server
//! ```

// # Safety
//
// The memory is one mapping that stays. Each thread uses a page of its own.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::FileExt;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use privileges::Privileges;

const PAGE: usize = 4096;
const READERS: usize = 4;
/// How long a page takes: longer than libpsx holds threads without progress.
const DELAY: Duration = Duration::from_millis(20);
const DEADLINE: Duration = Duration::from_secs(60);
const FILLED: u8 = 0xa5;
/// The exit status if the machine has no userfaultfd.
const NOT_THERE: u8 = 77;

static READS: AtomicU64 = AtomicU64::new(0);

fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    // SAFETY: it takes a flag, and returns a new descriptor.
    let made = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC) };
    let Ok(made @ 0..) = i32::try_from(made) else {
        println!("no userfaultfd here: {}", io::Error::last_os_error());
        return Ok(ExitCode::from(NOT_THERE));
    };
    // SAFETY: the descriptor was just opened.
    let faults = unsafe { File::from_raw_fd(made) };
    let memory = map(READERS * PAGE)?;
    // struct uffdio_api, struct uffdio_register (linux/userfaultfd.h): missing pages of the memory.
    control(&faults, 0xc018_aa3f, &mut [0xaa, 0, 0])?;
    control(&faults, 0xc020_aa00, &mut [memory as u64, (READERS * PAGE) as u64, 1, 0])?;
    std::thread::spawn(move || or_abort(fill(&faults)));
    for reader in 0..READERS {
        std::thread::spawn(move || or_abort(read(memory + reader * PAGE, reader % 2 == 0)));
    }
    println!("serving");
    let mut lines = io::stdin().lines();
    if lines.next().transpose()?.is_some() {
        let before = READS.load(Ordering::Relaxed);
        // On a busy machine the call takes more rounds than fit into the default of 10 seconds.
        let settings = Privileges::new().user("nobody").no_new_privs().deadline(DEADLINE);
        let applied = settings.plan()?.apply()?;
        println!("{} threads are nobody", applied.threads);
        // The process goes on serving pages.
        while READS.load(Ordering::Relaxed) < before + 20 {
            std::thread::sleep(DELAY);
        }
        println!("20 more pages");
    }
    lines.for_each(drop);
    Ok(ExitCode::SUCCESS)
}

fn or_abort(ended: io::Result<()>) {
    eprintln!("a thread has ended: {ended:?}");
    std::process::abort();
}

fn map(size: usize) -> io::Result<usize> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: it makes a new mapping.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), size, protection, flags, -1, 0) };
    if at == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(at as usize) }
}

/// Calls ioctl(2) with a structure of 64-bit fields.
fn control(faults: &File, request: libc::c_ulong, fields: &mut [u64]) -> io::Result<()> {
    // SAFETY: the kernel reads and writes a structure of this size, which is part of the request.
    let done = unsafe { libc::ioctl(faults.as_raw_fd(), request, fields.as_mut_ptr()) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Fills one page after the other, slowly.
fn fill(mut faults: &File) -> io::Result<()> {
    const FAULT: u8 = 0x12;
    let page = [FILLED; PAGE];
    loop {
        // struct uffd_msg: the event, and at byte 16 the address.
        let mut message = [0; 32];
        if faults.read(&mut message)? != message.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let [FAULT, .., a, b, c, d, e, f, g, h, _, _, _, _, _, _, _, _] = message else {
            continue;
        };
        let address = u64::from_ne_bytes([a, b, c, d, e, f, g, h]);
        std::thread::sleep(DELAY);
        // struct uffdio_copy: to, from, length, mode, and what was copied.
        let to = address & !(PAGE as u64 - 1);
        let mut copy = [to, page.as_ptr() as u64, PAGE as u64, 0, 0];
        match control(faults, 0xc028_aa03, &mut copy) {
            // The page is already filled: a thread that was interrupted has asked twice.
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {}
            done => done?,
        }
    }
}

/// Reads the page again and again, in the thread itself or in the kernel by a call of the thread.
fn read(page: usize, by_kernel: bool) -> io::Result<()> {
    let zeros = File::open("/dev/zero")?;
    let at = page as *mut u8;
    loop {
        if by_kernel {
            // SAFETY: half of a page that no other thread uses.
            let half = unsafe { std::slice::from_raw_parts_mut(at, PAGE / 2) };
            zeros.read_exact_at(half, 0)?;
        }
        // SAFETY: the last byte of the page.
        if unsafe { at.wrapping_add(PAGE - 1).read_volatile() } != FILLED {
            return Err(io::ErrorKind::InvalidData.into());
        }
        READS.fetch_add(1, Ordering::Relaxed);
        // The pause stands for work with the page. Without it, at nearly every moment some thread would wait.
        std::thread::sleep(DELAY * 3);
        // SAFETY: the page belongs to this thread, which does not need its contents.
        if unsafe { libc::madvise(at.cast(), PAGE, libc::MADV_DONTNEED) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
}

//! What makes a thread hard to reach: io_uring workers, real-time policies, blocked signals, limits, userfaultfd.

use super::*;

/// A worker of the kernel reads from a pipe.
pub(crate) fn io_uring(board: &'static Board, random: &mut Random) {
    const IORING_ENTER_GETEVENTS: u32 = 1;
    const IORING_OFF_SQES: i64 = 0x1000_0000;
    const IORING_OP_READ: u8 = 22;
    const IOSQE_ASYNC: u8 = 1 << 4;
    let Some(pipe) = Pipe::new() else { return };
    // `struct io_uring_params`: the offsets begin at word 10.
    let mut parameters = [0u32; 30];
    // SAFETY: the kernel reads and writes 120 bytes.
    let ring = unsafe { libc::syscall(libc::SYS_io_uring_setup, 4, parameters.as_mut_ptr()) };
    let Ok(ring @ 0..) = i32::try_from(ring) else {
        let why = Errno::last_os_error();
        if [Some(libc::ENOSYS), Some(libc::EPERM)].contains(&why.raw_os_error()) {
            board.skip(Count::IoUring, why);
        }
        return;
    };
    let (tail, array) = (parameters[11] as usize, parameters[16] as usize);
    let lengths = [array + 4 * parameters[0] as usize, 64 * parameters[0] as usize];
    let queue = map(lengths[0], ring, 0, libc::MAP_SHARED);
    let entries = map(lengths[1], ring, IORING_OFF_SQES, libc::MAP_SHARED);
    if let (Some(queue), Some(entries)) = (queue, entries) {
        let mut buffer = [0u8; 16];
        let mut entry = [0u8; 64];
        (entry[0], entry[1]) = (IORING_OP_READ, IOSQE_ASYNC);
        entry[4..8].copy_from_slice(&pipe.0[0].to_ne_bytes());
        entry[16..24].copy_from_slice(&(buffer.as_mut_ptr() as u64).to_ne_bytes());
        entry[24..28].copy_from_slice(&1u32.to_ne_bytes());
        // SAFETY: the kernel does not look at the entry before the tail says that it is there.
        unsafe { (entries as *mut u8).copy_from_nonoverlapping(entry.as_ptr(), entry.len()) };
        // SAFETY: the place of the tail, which is aligned.
        unsafe { AtomicU32::from_ptr((queue + tail) as *mut u32) }.store(1, SeqCst);
        let enter = |submit: u32, wait: u32, flags: u32| {
            // SAFETY: the ring, the pipe and the buffer outlive the request, which is waited for below.
            unsafe { libc::syscall(libc::SYS_io_uring_enter, ring, submit, wait, flags, 0, 0) }
        };
        let submitted = enter(1, 0, 0) == 1;
        sleep(random.micros(3_000));
        pipe.write(b"x");
        // A signal interrupts the wait.
        while submitted && enter(0, 1, IORING_ENTER_GETEVENTS) < 0 {
            std::thread::yield_now();
        }
        if submitted {
            board.count(Count::IoUring);
        }
    }
    queue.into_iter().for_each(|at| unmap(at, lengths[0]));
    entries.into_iter().for_each(|at| unmap(at, lengths[1]));
    // SAFETY: this function owns the ring.
    unsafe { libc::close(ring) };
}

/// Computes with a real-time policy.
pub(crate) fn fifo(board: &'static Board, random: &mut Random) {
    let parameter = libc::sched_param { sched_priority: 1 + random.below(20) as i32 };
    // SAFETY: the kernel reads the parameter.
    if unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &parameter) } != 0 {
        board.skip(Count::Fifo, Errno::last_os_error());
        return;
    }
    spin(random.micros(2_000));
    observe(board, true);
    board.count(Count::Fifo);
}

fn spin(time: Duration) {
    let end = sys::now() + time.as_nanos() as u64;
    while sys::now() < end {
        std::hint::spin_loop();
    }
}

pub(crate) fn compute(_: &'static Board, random: &mut Random) {
    spin(random.micros(5_000));
}

/// Blocks every signal, also 33, by the raw call.
pub(crate) fn block(board: &'static Board, random: &mut Random) {
    let mut old = 0u64;
    let (all, size) = (!0u64, size_of::<u64>());
    let mask = |set: *const u64, old: *mut u64| {
        // SAFETY: the kernel reads and writes eight bytes.
        unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, set, old, size) };
    };
    mask(&all, &mut old);
    let most = if random.once_in(10) { 600_000 } else { 30_000 };
    sleep(random.micros(most));
    mask(&old, ptr::null_mut());
    board.count(Count::Blocks);
}

/// Leaves the process no room in the signal queue, or no free descriptor, for a while.
pub(crate) fn limits(board: &'static Board, random: &mut Random) {
    // Without a descriptor, a call stops all threads for seconds.
    if !random.once_in(6) {
        let _no_setxid = SETXID.write();
        // If the limit is 0, calls fail at once; otherwise they wait for room.
        let limit = if random.once_in(2) { 0 } else { random.below(8) };
        if limited(libc::RLIMIT_SIGPENDING, limit, random) {
            board.count(Count::QueueLimits);
        }
    } else {
        board.descriptors.fetch_add(1, SeqCst);
        if limited(libc::RLIMIT_NOFILE, 3, random) {
            board.count(Count::DescriptorLimits);
        }
        board.descriptors.fetch_add(1, SeqCst);
    }
}

/// Lowers a limit of this process for a while. Returns whether that was possible.
fn limited(resource: libc::__rlimit_resource_t, limit: u64, random: &mut Random) -> bool {
    let mut old = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes the structure.
    let known = unsafe { libc::getrlimit(resource, &mut old) } == 0;
    let low = libc::rlimit { rlim_cur: limit, ..old };
    // SAFETY: the kernel reads the structure.
    if !known || unsafe { libc::setrlimit(resource, &low) } != 0 {
        return false;
    }
    sleep(random.micros(200_000));
    // SAFETY: the kernel reads the structure.
    unsafe { libc::setrlimit(resource, &old) };
    true
}

/// A thread fills the pages of another one.
pub(crate) fn userfault(board: &'static Board, random: &mut Random) {
    const PAGE: usize = 4096;
    const PAGES: usize = 8;
    const API: u64 = 0xc018_aa3f;
    const REGISTER: u64 = 0xc020_aa00;
    const COPY: u64 = 0xc028_aa03;
    static CONTENT: [u64; PAGE / 8] = [7; PAGE / 8];
    let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
    // SAFETY: userfaultfd touches no memory.
    let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, flags) };
    let Ok(fd @ 0..) = i32::try_from(fd) else {
        let why = Errno::last_os_error();
        if [Some(libc::ENOSYS), Some(libc::EPERM)].contains(&why.raw_os_error()) {
            board.skip(Count::Faults, why);
        }
        return;
    };
    let control = |request: u64, fields: &mut [u64]| {
        // SAFETY: the kernel reads and writes a structure whose size is part of the request.
        unsafe { libc::ioctl(fd, request as _, fields.as_mut_ptr()) }
    };
    let area = map(PAGES * PAGE, -1, 0, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    let registered = area.is_some_and(|area| {
        control(API, &mut [0xaa, 0, 0]) == 0
            && control(REGISTER, &mut [area as u64, (PAGES * PAGE) as u64, 1, 0]) == 0
    });
    if let Some(area) = area.filter(|_| registered) {
        let toucher = spawned(move || {
            let values = (0..PAGES).map(|page| {
                // SAFETY: the address is in the area.
                unsafe { ptr::read_volatile((area + page * PAGE) as *const u64) }
            });
            values.filter(|&value| value == 7).count()
        });
        let mut served = 0;
        while toucher.is_some() && served < PAGES {
            let mut message = [0u64; 4];
            // SAFETY: the kernel writes at most 32 bytes.
            if unsafe { libc::read(fd, message.as_mut_ptr().cast(), 32) } != 32 {
                sleep(Duration::from_micros(100));
                continue;
            }
            sleep(random.micros(10_000));
            let page = message[2] & !(PAGE as u64 - 1);
            let mut copy = [page, CONTENT.as_ptr() as u64, PAGE as u64, 0, 0];
            if control(COPY, &mut copy) == 0 {
                served += 1;
                board.count(Count::Faults);
            }
        }
        if toucher.is_some_and(|toucher| toucher.join().is_ok_and(|right| right != PAGES)) {
            board.violation("a page has another content");
        }
    }
    area.into_iter().for_each(|area| unmap(area, PAGES * PAGE));
    // SAFETY: this function owns the descriptor.
    unsafe { libc::close(fd) };
}

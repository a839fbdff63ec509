//! What the C library does by threads and signals of its own: cancellation, timers, asynchronous I/O, loaded libraries.

use super::*;

pub(crate) fn cancel_deferred(board: &'static Board, random: &mut Random) {
    let _no_setxid = SETXID.read();
    let Some(thread) = pthread(pausing(), ptr::null_mut(), random.once_in(2)) else { return };
    sleep(random.micros(300));
    cancel(board, thread, Count::Deferred);
}

/// Cancels a thread. Without room in the signal queue, pthread_cancel fails.
fn cancel(board: &Board, thread: libc::pthread_t, what: Count) {
    // SAFETY: the thread is not joined yet.
    while unsafe { libc::pthread_cancel(thread) } != 0 {
        sleep(Duration::from_millis(1));
    }
    join(thread);
    board.count(what);
}

pub(crate) fn cancel_asynchronous(board: &'static Board, random: &mut Random) {
    unsafe extern "C" {
        fn pthread_setcanceltype(kind: i32, old: *mut i32) -> i32;
    }
    extern "C" fn body(ready: *mut c_void) -> *mut c_void {
        const PTHREAD_CANCEL_ASYNCHRONOUS: i32 = 1;
        let mut old = 0;
        // SAFETY: nothing in this thread needs to be cleaned up.
        unsafe { pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, &mut old) };
        // SAFETY: the word outlives the thread.
        let ready = unsafe { AtomicU32::from_ptr(ready.cast()) };
        ready.store(1, SeqCst);
        loop {
            // SAFETY: the instruction does nothing.
            unsafe { std::arch::asm!("nop") };
        }
    }
    let _no_setxid = SETXID.read();
    let ready = AtomicU32::new(0);
    let Some(thread) = pthread(body, ready.as_ptr().cast(), random.once_in(2)) else { return };
    while ready.load(SeqCst) == 0 {
        sleep(Duration::from_micros(50));
    }
    sleep(random.micros(300));
    cancel(board, thread, Count::Asynchronous);
}

/// A timer whose expiration glibc reports in a new thread.
pub(crate) fn timer(board: &'static Board, random: &mut Random) {
    /// struct sigevent of glibc, with a function.
    #[repr(C)]
    struct Event {
        value: *const Board,
        signal: i32,
        notify: i32,
        function: extern "C" fn(*const Board),
        attributes: usize,
        rest: [u64; 4],
    }
    static FIRED: AtomicU64 = AtomicU64::new(0);
    extern "C" fn fired(board: *const Board) {
        // SAFETY: the argument is the board.
        observe(unsafe { &*board }, false);
        FIRED.fetch_add(1, SeqCst);
    }
    const SIGEV_THREAD: i32 = 2;
    let mut event = Event {
        value: board,
        signal: 0,
        notify: SIGEV_THREAD,
        function: fired,
        attributes: 0,
        rest: [0; 4],
    };
    let (clock, before) = (libc::CLOCK_MONOTONIC, FIRED.load(SeqCst));
    let mut timer = ptr::null_mut();
    // SAFETY: the structure is as large as glibc's.
    if unsafe { libc::timer_create(clock, (&raw mut event).cast(), &mut timer) } != 0 {
        return;
    }
    let never = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let soon = libc::timespec { tv_sec: 0, tv_nsec: 1 + random.below(2_000_000) as i64 };
    let once = libc::itimerspec { it_interval: never, it_value: soon };
    // SAFETY: the timer exists.
    unsafe { libc::timer_settime(timer, 0, &once, ptr::null_mut()) };
    for _ in 0..1000 {
        if FIRED.load(SeqCst) != before {
            board.count(Count::Timers);
            break;
        }
        sleep(Duration::from_millis(1));
    }
    // SAFETY: the timer exists, and is not used afterwards.
    unsafe { libc::timer_delete(timer) };
}

/// Reads of a pipe by a thread of glibc's.
#[cfg(target_env = "gnu")]
pub(crate) fn aio(board: &'static Board, random: &mut Random) {
    let Some(pipe) = Pipe::new() else { return };
    let mut buffers = [[0u8; 4]; 2];
    let mut requests = buffers.each_mut().map(|buffer| {
        // SAFETY: all fields of the structure may be zero.
        let mut request: libc::aiocb = unsafe { std::mem::zeroed() };
        request.aio_fildes = pipe.0[0];
        request.aio_buf = buffer.as_mut_ptr().cast();
        request.aio_nbytes = buffer.len();
        request.aio_lio_opcode = libc::LIO_READ;
        request.aio_sigevent.sigev_notify = libc::SIGEV_NONE;
        request
    });
    let list = requests.each_mut().map(ptr::from_mut);
    let (nowait, null) = (libc::LIO_NOWAIT, ptr::null_mut());
    // SAFETY: requests and buffers outlive the requests, which are waited for below.
    if unsafe { libc::lio_listio(nowait, list.as_ptr(), 2, null) } != 0 {
        return;
    }
    sleep(random.micros(2_000));
    pipe.write(b"12345678");
    for request in list {
        // SAFETY: the request was submitted.
        while unsafe { libc::aio_error(request) } == libc::EINPROGRESS {
            let wait = libc::timespec { tv_sec: 1, tv_nsec: 0 };
            let one = [request.cast_const()];
            // SAFETY: the list has one request.
            unsafe { libc::aio_suspend(one.as_ptr(), 1, &wait) };
        }
        // SAFETY: the request is over, and is asked for once.
        if unsafe { libc::aio_return(request) } == 4 {
            board.count(Count::Aio);
        }
    }
}

#[cfg(not(target_env = "gnu"))]
pub(crate) fn aio(board: &'static Board, _: &mut Random) {
    board.skip(Count::Aio, "this C library has no aio");
}

/// Loads a library that creates threads, and unloads it.
pub(crate) fn plugin(board: &'static Board, random: &mut Random) {
    static PATH: std::sync::OnceLock<Option<CString>> = std::sync::OnceLock::new();
    let path = PATH.get_or_init(|| {
        let path = std::env::current_exe().ok()?.with_file_name("libsoak_plugin.so");
        path.exists().then(|| CString::new(path.into_os_string().into_encoded_bytes()).ok())?
    });
    let Some(path) = path else {
        board.skip(Count::Plugins, "libsoak_plugin.so is not beside the program");
        board.skip(Count::PluginThreads, "libsoak_plugin.so is not beside the program");
        return;
    };
    // SAFETY: the library does nothing when it is loaded.
    let library = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW) };
    if library.is_null() {
        return;
    }
    // SAFETY: the name is a string.
    let function = unsafe { libc::dlsym(library, c"soak_plugin_run".as_ptr()) };
    // SAFETY: the function has this type.
    let run = unsafe { transmute::<*mut c_void, extern "C" fn(u32) -> u32>(function) };
    board.add(Count::PluginThreads, u64::from(run(1 + random.below(4) as u32)));
    // SAFETY: the threads of the library have ended.
    unsafe { libc::dlclose(library) };
    board.count(Count::Plugins);
}

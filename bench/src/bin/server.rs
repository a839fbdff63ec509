//! A server that makes calls, or drops its privileges, while it serves.
//!
//! `server ENGINE IDLE` runs hyper on tokio and IDLE more threads, which do nothing. It prints its port. Each line of
//! input is a command. "calls" makes a call every ten milliseconds until the next line. "drop" drops the privileges
//! after the server has served some requests. At the next line, the server prints the number of failed calls and the
//! nanoseconds of each call. After a bar follows the longest delay of any watcher in each window (from one call to the
//! next), and after another bar the longest delay of each watcher. A watcher is a thread that wakes at fixed times and
//! measures how late it is. The response to a request is the user id of the thread that serves it.
#![allow(unsafe_code)]

use std::convert::Infallible;
use std::ffi::{CStr, c_char, c_int, c_long};
use std::io::BufRead;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use http_body_util::Full;
use hyper::Response;
use hyper::body::Bytes;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use libpsx::Transaction;
use libpsx::process::{
    CapabilitySets, Fd, Gid, LandlockFlags, Synchronization, Uid, Unchanged, capset,
    landlock_restrict_self, set_all_gids, set_all_uids, set_no_new_privs, setgroups, setresuid,
};

const WORKERS: usize = 4;
const WATCHERS: usize = 4;
const WATCH_EVERY: Duration = Duration::from_millis(1);
const EVERY: Duration = Duration::from_millis(10);
const BEFORE_THE_DROP: u64 = 1000;
const NOBODY: u32 = 65534;

static SERVED: AtomicU64 = AtomicU64::new(0);
/// The longest delay of each watcher in the current window, nanoseconds.
static DELAYS: [AtomicU64; WATCHERS] = [const { AtomicU64::new(0) }; WATCHERS];

/// psx_syscall6(3).
type Psx = unsafe extern "C" fn(c_long, c_long, c_long, c_long, c_long, c_long, c_long) -> c_long;

/// `perform` and `drop_privileges` of bench/engines/engine.h.
type Perform = unsafe extern "C" fn(c_long, *const c_long) -> c_int;
type Drop = unsafe extern "C" fn(*const c_char, c_int) -> c_int;

enum Engine {
    Nothing,
    Ours,
    /// This library as it was in another revision.
    Baseline(Perform, Drop),
    Glibc,
    /// C's libpsx for all calls, or in a drop for the calls that glibc does not have.
    Libpsx(Psx),
    Mixed(Psx),
}

impl Engine {
    fn of(name: &str) -> Result<Self> {
        Ok(match name {
            "nothing" => Self::Nothing,
            "ours" => Self::Ours,
            "baseline" => baseline()?,
            "glibc" => Self::Glibc,
            "libpsx" => Self::Libpsx(libpsx_of_c()?),
            "mixed" => Self::Mixed(libpsx_of_c()?),
            _ => bail!("no engine {name}"),
        })
    }

    fn call(&self) -> bool {
        const NONE: u32 = u32::MAX;
        match self {
            Self::Nothing => true,
            Self::Ours => setresuid(Unchanged, Unchanged, Unchanged).execute().is_ok(),
            // SAFETY: the call gets three numbers, and -1 leaves every id as it is.
            Self::Baseline(perform, _) => unsafe {
                perform(libc::SYS_setresuid, [-1, -1, -1].as_ptr()) == 0
            },
            // SAFETY: -1 leaves every id unchanged.
            Self::Glibc => unsafe { libc::setresuid(NONE, NONE, NONE) == 0 },
            Self::Libpsx(psx) | Self::Mixed(psx) => {
                // SAFETY: see the comment above.
                unsafe { psx(libc::SYS_setresuid, -1, -1, -1, 0, 0, 0) == 0 }
            }
        }
    }

    fn drop_privileges(&self) -> bool {
        let ruleset = ruleset();
        match self {
            Self::Nothing | Self::Glibc => false,
            Self::Ours => {
                let (Ok(user), Ok(group)) = (Uid::new(NOBODY), Gid::new(NOBODY)) else {
                    return false;
                };
                let how = Synchronization::Broadcast;
                if ruleset < 0 {
                    return false;
                }
                // SAFETY: the descriptor was just opened, and nothing closes it.
                let ruleset = unsafe { Fd::borrow_raw(ruleset as c_int) };
                Transaction::new()
                    .with(setgroups(&[]))
                    .with(set_all_gids(group))
                    .with(set_all_uids(user))
                    .with(capset(CapabilitySets::EMPTY))
                    .with(set_no_new_privs())
                    .with(landlock_restrict_self(ruleset, how, LandlockFlags::EMPTY))
                    .execute()
                    .is_ok()
            }
            // SAFETY: the arguments are a string and an open descriptor.
            Self::Baseline(_, drop) => unsafe { drop(c"one".as_ptr(), ruleset as c_int) == 0 },
            Self::Libpsx(psx) => {
                let id = c_long::from(NOBODY);
                let ids = [libc::SYS_setresgid, libc::SYS_setresuid];
                // SAFETY: the call sets no groups, so it reads no memory.
                let groups = unsafe { psx(libc::SYS_setgroups, 0, 0, 0, 0, 0, 0) == 0 };
                // SAFETY: the arguments are numbers.
                let ids = ids.into_iter().all(|nr| unsafe { psx(nr, id, id, id, 0, 0, 0) == 0 });
                groups && ids && rest_of_the_drop(*psx, ruleset)
            }
            Self::Mixed(psx) => {
                // SAFETY: the call sets no groups, so it reads no memory.
                let groups = unsafe { libc::setgroups(0, std::ptr::null()) == 0 };
                // SAFETY: the arguments are numbers.
                let group = unsafe { libc::setresgid(NOBODY, NOBODY, NOBODY) == 0 };
                // SAFETY: the arguments are numbers.
                let user = unsafe { libc::setresuid(NOBODY, NOBODY, NOBODY) == 0 };
                groups && group && user && rest_of_the_drop(*psx, ruleset)
            }
        }
    }
}

fn rest_of_the_drop(psx: Psx, ruleset: c_long) -> bool {
    /// Version 3 of capset(2)'s structures, for the calling thread.
    static HEADER: [u32; 2] = [0x2008_0522, 0];
    static NONE: [u32; 6] = [0; 6];
    let (header, none) = (HEADER.as_ptr() as c_long, NONE.as_ptr() as c_long);
    // SAFETY: the kernel reads the header and the sets, which are statics.
    let sets = unsafe { psx(libc::SYS_capset, header, none, 0, 0, 0, 0) == 0 };
    let no_new_privs = c_long::from(libc::PR_SET_NO_NEW_PRIVS);
    // SAFETY: the arguments are numbers.
    let privs = unsafe { psx(libc::SYS_prctl, no_new_privs, 1, 0, 0, 0, 0) == 0 };
    // SAFETY: the arguments are numbers.
    sets && privs && unsafe { psx(libc::SYS_landlock_restrict_self, ruleset, 0, 0, 0, 0, 0) == 0 }
}

/// Creates a ruleset that forbids only the creation of block devices. It has no effect on this program.
fn ruleset() -> c_long {
    static MAKE_BLOCK: u64 = 1 << 11;
    // SAFETY: the kernel reads eight bytes.
    unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, &raw const MAKE_BLOCK, 8, 0) }
}

fn symbol(library: &CStr, name: &CStr) -> Result<*mut libc::c_void> {
    // SAFETY: the two libraries that this program loads have no constructors with requirements.
    let loaded = unsafe { libc::dlopen(library.as_ptr(), libc::RTLD_NOW) };
    ensure!(!loaded.is_null(), "{} cannot be loaded", library.to_string_lossy());
    // SAFETY: the name is a string.
    let symbol = unsafe { libc::dlsym(loaded, name.as_ptr()) };
    ensure!(!symbol.is_null(), "the library has no {}", name.to_string_lossy());
    Ok(symbol)
}

fn libpsx_of_c() -> Result<Psx> {
    let symbol = symbol(c"libpsx.so.2", c"psx_syscall6")?;
    // SAFETY: sys/psx_syscall.h declares the function with this type.
    Ok(unsafe { std::mem::transmute::<*mut libc::c_void, Psx>(symbol) })
}

/// Loads the library that `bench/engines/build baseline-server` builds. The driver starts this program in the root of
/// the project.
fn baseline() -> Result<Engine> {
    let library = c"target/bench/engines/baseline.so";
    let perform = symbol(library, c"perform")?;
    // SAFETY: engine.h declares the function with this type.
    let perform = unsafe { std::mem::transmute::<*mut libc::c_void, Perform>(perform) };
    let drop = symbol(library, c"drop_privileges")?;
    // SAFETY: engine.h declares the function with this type.
    let drop = unsafe { std::mem::transmute::<*mut libc::c_void, Drop>(drop) };
    Ok(Engine::Baseline(perform, drop))
}

/// Wakes at fixed times and records the longest delay.
fn watch(delay: &AtomicU64) {
    let mut due = Instant::now();
    loop {
        while due <= Instant::now() {
            due += WATCH_EVERY;
        }
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let late = Instant::now().saturating_duration_since(due);
        delay.fetch_max(late.as_nanos() as u64, Ordering::Relaxed);
    }
}

/// The longest delays: of any watcher in each window, and of each watcher.
#[derive(Default)]
struct Delays {
    windows: Vec<u64>,
    watchers: [u64; WATCHERS],
}

impl Delays {
    /// Ends a window.
    fn end(&mut self) {
        let now = DELAYS.each_ref().map(|delay| delay.swap(0, Ordering::Relaxed));
        for (longest, now) in self.watchers.iter_mut().zip(now) {
            *longest = now.max(*longest);
        }
        self.windows.extend(now.into_iter().max());
    }
}

fn joined(numbers: &[impl ToString]) -> String {
    numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

fn timed(what: impl FnOnce() -> bool, failed: &mut u64, times: &mut Vec<u128>) {
    let start = Instant::now();
    let done = what();
    times.push(start.elapsed().as_nanos());
    *failed += u64::from(!done);
}

/// Executes the commands beside the threads that serve.
fn obey(engine: &Engine, lines: &Receiver<String>) -> Result<()> {
    let what = lines.recv().context("no command came")?;
    let (mut failed, mut times, mut delays) = (0, Vec::new(), Delays::default());
    delays.end();
    delays = Delays::default();
    match what.as_str() {
        "calls" => {
            while lines.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                delays.end();
                timed(|| engine.call(), &mut failed, &mut times);
            }
        }
        "drop" => {
            let over = loop {
                if SERVED.load(Ordering::Relaxed) >= BEFORE_THE_DROP {
                    break false;
                }
                if lines.recv_timeout(Duration::from_millis(1)) != Err(RecvTimeoutError::Timeout) {
                    break true;
                }
            };
            ensure!(!over, "the load was over before the first request");
            delays.end();
            delays = Delays::default();
            timed(|| engine.drop_privileges(), &mut failed, &mut times);
            std::thread::sleep(EVERY);
            delays.end();
            lines.recv().context("no line came after the drop")?;
        }
        _ => bail!("unknown command: {what}"),
    }
    println!(
        "{failed} {} | {} | {}",
        joined(&times),
        joined(&delays.windows),
        joined(&delays.watchers)
    );
    Ok(())
}

async fn serve(listener: std::net::TcpListener) -> Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(async {
            let answer = service_fn(async |_| {
                SERVED.fetch_add(1, Ordering::Relaxed);
                // SAFETY: getuid touches no memory.
                let uid = unsafe { libc::getuid() };
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(format!("uid {uid}")))))
            });
            let http = hyper::server::conn::http1::Builder::new();
            // It is not an error if a client closes its connection.
            let _ = http.serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let engine = Engine::of(&args.next().context("which engine?")?)?;
    let idle: usize = args.next().context("the number of idle threads is missing")?.parse()?;
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    println!("{}", listener.local_addr()?.port());

    let (tell, lines) = channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if tell.send(line).is_err() {
                break;
            }
        }
    });
    for _ in 0..idle {
        std::thread::spawn(|| {
            loop {
                std::thread::park();
            }
        });
    }
    for delay in &DELAYS {
        std::thread::spawn(|| watch(delay));
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_io().build()?;
    runtime.spawn(serve(listener));
    obey(&engine, &lines)?;
    // The server runs until it is killed.
    loop {
        std::thread::park();
    }
}

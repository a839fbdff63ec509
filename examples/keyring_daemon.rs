//! A daemon that keeps one capability for its secrets, and drops the rest after tokio's workers have started.
//!
//! It shows why the usual calls do not do that. oo7-daemon (linux-credentials/oo7) was started with all capabilities.
//! Its main thread gave up all of them but CAP_IPC_LOCK, and then called setgroups(3). capset(2) changes the calling
//! thread alone, and glibc's setgroups(3) changes all threads: it failed in the main thread, succeeded in the
//! workers, and glibc aborts a process whose threads differ so. In one stop, with the order found by `privileges`,
//! there is no moment between. Run it as root:
//!
//! ```sh
//! cargo build -p examples
//! sudo target/debug/keyring_daemon plain    # aborts
//! sudo target/debug/keyring_daemon          # every thread keeps CAP_IPC_LOCK, and nothing else
//! ```

// # Safety
//
// The only unsafe call is mlock(2), of memory that stays.
#![allow(unsafe_code)]

use std::io::BufRead;
use std::sync::Barrier;

use capctl::{Cap, CapState};
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};
use privileges::{Capability, Groups, Privileges};
use tokio::task::spawn_blocking;

const WORKERS: usize = 4;
const NOBODY: u32 = 65534;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main(worker_threads = 4)]
async fn main() -> Result<(), Failure> {
    // With this limit, only a thread with CAP_IPC_LOCK can lock memory.
    setrlimit(Resource::RLIMIT_MEMLOCK, 0, 0)?;
    // The runtime has workers, and a blocking thread that stays.
    let input = spawn_blocking(|| std::io::stdin().lock().lines().count());
    match std::env::args().nth(1).as_deref() {
        None => at_once()?,
        Some("plain") => plainly()?,
        Some(other) => {
            return Err(format!("unknown argument {other}: leave it out, or plain").into());
        }
    }
    // Each worker locks a page, in which it would keep secrets.
    let together: &Barrier = Box::leak(Box::new(Barrier::new(WORKERS)));
    let tasks: Vec<_> = (0..WORKERS)
        .map(|_| {
            tokio::spawn(async {
                let locked = lock_a_page();
                // No task ends before each of the workers has a task.
                together.wait();
                locked
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    println!("{WORKERS} threads have locked a page");
    input.await?;
    Ok(())
}

/// Drops the privileges through `privileges`.
fn at_once() -> Result<(), privileges::Error> {
    let settings = Privileges::new().user(NOBODY).group(NOBODY).groups(Groups::NONE);
    settings.keep(Capability::IPC_LOCK).plan()?.apply()?;
    Ok(())
}

/// Drops the privileges as oo7-daemon did.
fn plainly() -> Result<(), Failure> {
    let mut kept = CapState::empty();
    kept.permitted.add(Cap::IPC_LOCK);
    kept.effective.add(Cap::IPC_LOCK);
    kept.set_current().map_err(|error| error.to_string())?; // in this thread
    setgroups(&[])?; // in all threads: some may, and this one may not
    setgid(Gid::from_raw(NOBODY))?;
    setuid(Uid::from_raw(NOBODY))?;
    Ok(())
}

/// Locks a page, which is never freed and not swapped out.
fn lock_a_page() -> std::io::Result<()> {
    let page: &[u8] = vec![1; 4096].leak();
    // SAFETY: the page is never freed.
    if unsafe { libc::mlock(page.as_ptr().cast(), page.len()) } == 0 {
        return Ok(());
    }
    Err(std::io::Error::last_os_error())
}

//! Moves a process between namespaces, beside tokio's running threads.
//!
//! It shows the three cases, and a solution for each. setns(2) and unshare(2) move one thread. A runtime runs a task on
//! any of its threads, so if only one thread is in a namespace, some tasks run in it and others do not.
//!
//! - **Network, UTS, IPC and cgroup namespaces**: all threads move in one stop.
//! - **User and time namespaces**: the kernel refuses a process with several threads. Do it before the runtime starts,
//!   or in a child process.
//! - **PID and mount namespaces**: all threads together cannot enter one. setns(2) into a mount namespace requires a
//!   thread that shares its working directory with no other thread. A thread that has another PID namespace for its
//!   children can start no thread. Do it before the runtime starts, or in a child process. For a mount namespace, a
//!   separate thread can also enter it, open files there, and pass the files to other threads.
//!
//! Run it as root. It prints in which namespaces its threads are, and ends when its input ends:
//!
//! ```sh
//! cargo build -p examples && sudo target/debug/namespaces </dev/null
//! ```

// # Safety
//
// The only unsafe call gives a closure to a child of fork(2).
#![allow(unsafe_code)]

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, Read};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use libpsx::process::{Namespace, setns, unshare_all};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::gettid;
use tokio::task::spawn_blocking;

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    // Before the runtime starts there is one thread, and each kind is possible. Here it is a new mount namespace.
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()?
        .block_on(run())
}

async fn run() -> Result<(), Failure> {
    let input = spawn_blocking(|| std::io::stdin().lock().lines().count());
    let home = File::open("/proc/self/ns/net")?;

    // Supported: all threads move into the same new namespaces in one stop.
    unshare_all(&Namespace::ALL)?;
    for kind in ["net", "uts", "ipc", "cgroup"] {
        println!("{kind}: all {} threads in {}", tids()?.len(), one(kind)?);
    }
    // A new thread inherits them, and every task is in them, on whichever thread it runs.
    let of_task = tokio::spawn(async { std::fs::read_link("/proc/thread-self/ns/net") }).await??;
    println!("net: a task is in {}", of_task.display());
    // Supported: all threads join an existing namespace by its descriptor. Here it is the process's first one.
    setns(&home, Namespace::Network).execute()?;
    println!("net: all threads back in {}", one("net")?);

    // Not supported: the kernel refuses, whichever library makes the call.
    let refused = unshare(CloneFlags::CLONE_NEWUSER);
    println!("user: {}", told(refused));
    let mounts = File::open("/proc/1/ns/mnt").or_else(|_| File::open("/proc/self/ns/mnt"))?;
    let joined = nix::sched::setns(&mounts, CloneFlags::CLONE_NEWNS);
    println!("mount: {}", told(joined));

    // The solution for user, PID and mount namespaces is a child process, between fork and exec.
    let shown = spawn_blocking(child).await??;
    println!("a child process: {shown}");
    // The other solution for a mount namespace is a separate thread, which opens the files there, and ends.
    let (tid, mut file) = spawn_blocking(|| std::thread::spawn(open_elsewhere).join())
        .await?
        .map_err(|_| "the thread panicked")??;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    println!("a file of another mount namespace: {}", text.trim());
    // The kernel removes the thread some time after.
    while tids()?.contains(&tid) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    println!("mnt: all threads in {}", one("mnt")?);

    input.await?;
    Ok(())
}

fn told(result: nix::Result<()>) -> String {
    match result {
        Ok(()) => "possible, in this thread alone".to_owned(),
        Err(Errno::EINVAL) => {
            "refused (EINVAL), because the process has several threads".to_owned()
        }
        Err(error) => format!("refused ({error})"),
    }
}

fn tids() -> std::io::Result<Vec<String>> {
    let tasks = std::fs::read_dir("/proc/self/task")?;
    tasks.map(|task| Ok(task?.file_name().to_string_lossy().into_owned())).collect()
}

/// Returns the one namespace of this kind that all threads are in.
fn one(kind: &str) -> Result<String, Failure> {
    let links: BTreeSet<_> = tids()?
        .iter()
        .filter_map(|tid| std::fs::read_link(format!("/proc/self/task/{tid}/ns/{kind}")).ok())
        .collect();
    match links.into_iter().collect::<Vec<_>>().as_slice() {
        [one] => Ok(one.display().to_string()),
        several => Err(format!("{kind}: the threads are in {several:?}").into()),
    }
}

/// Starts a process in new user, mount and PID namespaces. Returns the output of its child, the first process there.
fn child() -> Result<String, Failure> {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "sh -c 'echo process $$ in $(readlink /proc/self/ns/user)'; true"]);
    let kinds = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID;
    // SAFETY: after fork, the closure makes one system call, and allocates nothing.
    unsafe { command.pre_exec(move || Ok(unshare(kinds)?)) };
    let output = command.output()?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Makes a mount namespace in this thread alone, and opens a file that exists only there.
fn open_elsewhere() -> std::io::Result<(String, File)> {
    // From here on the thread has a root and a working directory of its own. A later call that changes directories in
    // all threads is refused as long as this thread lives.
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(Some("tmpfs"), "/mnt", Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
    std::fs::write("/mnt/file", "from the thread's own mounts\n")?;
    Ok((gettid().to_string(), File::open("/mnt/file")?))
}

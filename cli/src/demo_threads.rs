//! Many threads of the kinds that real programs have. The demo changes their state. The threads run until the
//! process ends.

use std::fs::File;
use std::hint;
use std::io::Read;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollTimeout};

use crate::raw;
use crate::terminal::Progress;
use crate::thread_counts::{self, Kind};

/// The stack size of a worker: enough for a signal frame and the frames of these loops in a debug build.
const STACK: usize = 64 * 1024;

/// How many short-lived threads the churn has at once, and how long they live.
const SHORT_LIVED_THREADS: usize = 4;
const SHORT_LIFETIME: Duration = Duration::from_micros(500);

/// How long the threads may take to get where they belong.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// What the sleepers of all kinds sleep on: shared, so that the number of threads is not limited
/// by the number of descriptors.
#[derive(Clone)]
struct WaitObjects {
    epoll: Arc<Epoll>,
    empty_pipe: Arc<File>,
}

/// Starts `workers` threads of all kinds, and the churn, and waits until all are in place.
pub(crate) fn start(workers: usize, progress: &mut Progress) -> Result<()> {
    let (reader, writer) = nix::unistd::pipe().context("making a pipe")?;
    // The pipe's writing end stays open: without any writer, a read from the pipe would return.
    std::mem::forget(writer);
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).context("making an epoll")?;
    let wait_objects =
        WaitObjects { epoll: Arc::new(epoll), empty_pipe: Arc::new(File::from(reader)) };
    let plan = plan(workers);
    let mut started: usize = 0;
    for &(kind, count) in &plan {
        for _ in 0..count {
            spawn(kind, &wait_objects)
                .with_context(|| format!("starting thread {} of {workers}", started + 1))?;
            started += 1;
            progress.tick(|| format!("starting threads: {started} of {workers}"));
        }
    }
    spawn(Kind::Churn, &wait_objects).context("starting the churn")?;
    wait_until_in_place(&plan, progress)
}

/// Returns how many threads of each kind to start. At most two threads are busy: they exist to be interrupted
/// while they run, and one per CPU would only make the demo slow.
fn plan(workers: usize) -> Vec<(Kind, usize)> {
    const SLEEPERS: [Kind; 5] = [Kind::Futex, Kind::Epoll, Kind::Read, Kind::Nanosleep, Kind::Raw];
    let busy = (workers / 8).min(2);
    let sleepers = workers - busy;
    let share = |i| sleepers / SLEEPERS.len() + usize::from(i < sleepers % SLEEPERS.len());
    let mut plan: Vec<_> = SLEEPERS.iter().enumerate().map(|(i, &k)| (k, share(i))).collect();
    plan.push((Kind::Busy, busy));
    plan
}

fn spawn(kind: Kind, wait_objects: &WaitObjects) -> Result<()> {
    if kind == Kind::Raw {
        return Ok(raw::spawn_sleeper()?);
    }
    let wait_objects = wait_objects.clone();
    let named = thread::Builder::new().name(kind.comm().to_owned()).stack_size(STACK);
    named.spawn(move || run_forever(kind, &wait_objects))?;
    Ok(())
}

/// Runs a thread of this kind until the process ends. Each wait is in a loop, because a signal may end the wait.
fn run_forever(kind: Kind, wait_objects: &WaitObjects) {
    loop {
        match kind {
            Kind::Epoll => {
                let _ = wait_objects.epoll.wait(&mut [EpollEvent::empty()], EpollTimeout::NONE);
            }
            Kind::Read => {
                let _ = (&*wait_objects.empty_pipe).read(&mut [0]);
            }
            Kind::Nanosleep => thread::sleep(Duration::from_secs(3600)),
            Kind::Busy => hint::spin_loop(),
            Kind::Churn => run_short_lived_threads(),
            Kind::Main | Kind::Futex | Kind::Raw | Kind::Other => thread::park(),
        }
    }
}

/// Starts short-lived threads and joins them. The kernel gives each new thread its parent's name.
fn run_short_lived_threads() {
    let threads = (0..SHORT_LIVED_THREADS).filter_map(|_| {
        thread::Builder::new().stack_size(STACK).spawn(|| thread::sleep(SHORT_LIFETIME)).ok()
    });
    for child in threads.collect::<Vec<_>>() {
        let _ = child.join();
    }
}

/// Waits until every worker is where its kind belongs: asleep, or running if it is a busy one.
fn wait_until_in_place(plan: &[(Kind, usize)], progress: &mut Progress) -> Result<()> {
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        let placed = thread_counts::in_place()?;
        let missing = |&(kind, planned): &(Kind, usize)| {
            let there = placed.get(&kind).copied().unwrap_or(0);
            (there < planned).then(|| format!("{there} of {planned} {}", kind.label()))
        };
        let late: Vec<String> = plan.iter().filter_map(missing).collect();
        if late.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("after {START_TIMEOUT:?}, only these threads are in place: {}", late.join(", "));
        }
        progress.tick(|| format!("waiting for the threads: {}", late.join(", ")));
        thread::sleep(Duration::from_millis(5));
    }
}

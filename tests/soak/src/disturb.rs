//! What disturbs the subject from outside: stops, freezes, a debugger.

// # Safety
//
// Signals concern the subject alone, which is a child that has not been waited for.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::board::{Board, Count};
use crate::sys::{Random, watchdog};

/// Disturbers hold this for reading; the observer holds it for writing while it checks.
pub(crate) static CALM: RwLock<()> = RwLock::new(());

/// Runs `turn` again and again, with pauses, until `end`.
pub(crate) fn repeat(end: &AtomicBool, random: &mut Random, mut turn: impl FnMut(&mut Random)) {
    while !end.load(SeqCst) {
        sleep(random.micros(800_000));
        let disturbing = CALM.read();
        if !end.load(SeqCst) {
            turn(random);
        }
        drop(disturbing);
    }
}

/// How long to leave the subject stopped or frozen: now and then longer than short deadlines.
fn rest(random: &mut Random) -> Duration {
    let most = if random.once_in(5) { 1_000_000 } else { 100_000 };
    random.micros(most)
}

fn signal(pid: u32, signal: i32) {
    // SAFETY: the process is a child that has not been waited for.
    unsafe { libc::kill(pid as i32, signal) };
}

/// One of what concerns the process as a whole.
pub(crate) fn disturb(board: &Board, pid: u32, tasks: Option<&TaskLimit>, random: &mut Random) {
    match random.below(4) {
        0 => tasks.into_iter().for_each(|tasks| tasks.fill(board, random)),
        1 | 2 => {
            signal(pid, libc::SIGSTOP);
            sleep(rest(random));
            signal(pid, libc::SIGCONT);
            board.count(Count::Stops);
        }
        _ => debugger(board, pid, random),
    }
}

/// Attaches gdb for a while.
fn debugger(board: &Board, pid: u32, random: &mut Random) {
    let time = format!("shell sleep 0.{:03}", random.below(300));
    let mut command = Command::new("gdb");
    command.args(["-nx", "-batch", "-iex", "set auto-solib-add off"]);
    command.args(["-iex", "set debuginfod enabled off", "-p", &pid.to_string()]);
    command.args(["-ex", &time, "-ex", "detach"]);
    let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    match command.spawn() {
        Err(why) => board.skip(Count::Attaches, format_args!("gdb: {why}")),
        Ok(gdb) => {
            let id = gdb.id();
            let (told, over) = std::sync::mpsc::channel();
            std::thread::spawn(move || told.send(gdb.wait_with_output()));
            let limit = watchdog(Duration::from_secs(40));
            match over.recv_timeout(limit) {
                Ok(Ok(output)) if String::from_utf8_lossy(&output.stdout).contains("detached") => {
                    board.count(Count::Attaches);
                }
                Ok(_) => {}
                Err(_) => {
                    eprintln!("gdb has not attached and detached within {limit:?}");
                    signal(id, libc::SIGKILL);
                }
            }
            // gdb leaves a process stopped that was stopped when it came.
            signal(pid, libc::SIGCONT);
        }
    }
}

/// Where a kind of cgroup file system is mounted, with this word among its options.
fn mounted(kind: &str, option: &str) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    mounts.lines().find_map(|line| {
        let words: Vec<&str> = line.split(' ').collect();
        let [_, place, found, options, ..] = words[..] else { return None };
        let has = option.is_empty() || options.split(',').any(|word| word == option);
        (found == kind && has).then(|| PathBuf::from(place))
    })
}

/// Makes a control group for this process, and removes those that an interrupted soak has left.
fn new_group(root: &Path, pid: u32) -> std::io::Result<PathBuf> {
    for entry in fs::read_dir(root)?.flatten() {
        let name = entry.file_name();
        let left = name.to_str().and_then(|name| name.strip_prefix("soak-"));
        if left.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let _ = fs::remove_dir(entry.path());
        }
    }
    let own = root.join(format!("soak-{pid}"));
    fs::create_dir(&own)?;
    Ok(own)
}

/// A control group with a limit for the number of tasks: the subject's own one, or one of cgroup v1.
pub(crate) struct TaskLimit {
    directory: PathBuf,
    /// It was made for this.
    own: bool,
}

impl TaskLimit {
    pub(crate) fn new(pid: u32, group: Option<&Group>) -> std::io::Result<Self> {
        if let Some(Group(directory)) = group.filter(|group| group.0.join("pids.max").exists()) {
            return Ok(Self { directory: directory.clone(), own: false });
        }
        let root =
            mounted("cgroup", "pids").ok_or_else(|| std::io::Error::other("no pids cgroup"))?;
        let limit = Self { directory: new_group(&root, pid)?, own: true };
        fs::write(limit.directory.join("cgroup.procs"), pid.to_string())?;
        Ok(limit)
    }

    /// Leaves no room for another task, or for a few, for a while.
    fn fill(&self, board: &Board, random: &mut Random) {
        let present = fs::read_to_string(self.directory.join("pids.current")).unwrap_or_default();
        let present: u64 = present.trim().parse().unwrap_or(0);
        let limit = present + random.below(3);
        board.no_room.store(1, SeqCst);
        let calls = (0..5000).all(|_| {
            sleep(Duration::from_millis(1));
            board.setxid.load(SeqCst) != 0
        });
        if calls {
            board.no_room.store(0, SeqCst);
            return;
        }
        if fs::write(self.directory.join("pids.max"), limit.to_string()).is_ok() {
            sleep(random.micros(200_000));
            let _ = fs::write(self.directory.join("pids.max"), "max");
            board.count(Count::TaskLimits);
        }
        // Time for each pthread_create that has failed to return.
        sleep(Duration::from_millis(200));
        board.no_room.store(0, SeqCst);
    }
}

impl Drop for TaskLimit {
    fn drop(&mut self) {
        for _ in 0..200 {
            if !self.own || fs::remove_dir(&self.directory).is_ok() {
                break;
            }
            sleep(Duration::from_millis(5));
        }
    }
}

/// A control group of the subject's own.
pub(crate) struct Group(PathBuf);

impl Group {
    /// Makes one, and moves the process there.
    pub(crate) fn new(pid: u32) -> std::io::Result<Self> {
        let root = mounted("cgroup2", "");
        let root = root.ok_or_else(|| std::io::Error::other("no cgroup2 is mounted"))?;
        let group = Self(new_group(&root, pid)?);
        fs::write(group.0.join("cgroup.procs"), pid.to_string())?;
        if !group.0.join("cgroup.freeze").exists() {
            return Err(std::io::Error::other("no cgroup.freeze"));
        }
        Ok(group)
    }

    pub(crate) fn freeze(&self, board: &Board, random: &mut Random) {
        let (switch, events) = (self.0.join("cgroup.freeze"), self.0.join("cgroup.events"));
        let frozen = || fs::read_to_string(&events).is_ok_and(|text| text.contains("frozen 1"));
        if fs::write(&switch, "1").is_ok() {
            let began = Instant::now();
            while !frozen() && began.elapsed() < Duration::from_secs(1) {
                sleep(Duration::from_millis(1));
            }
            let was = frozen();
            sleep(rest(random));
            let _ = fs::write(&switch, "0");
            if was {
                board.count(Count::Freezes);
            }
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::write(self.0.join("cgroup.freeze"), "0");
        let _ = fs::write(self.0.join("cgroup.kill"), "1");
        for _ in 0..200 {
            if fs::remove_dir(&self.0).is_ok() {
                break;
            }
            sleep(Duration::from_millis(5));
        }
    }
}

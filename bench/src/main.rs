//! One call on N sleeping threads, beside glibc's own setresuid(-1, -1, -1).
//!
//! prctl(PR_SET_KEEPCAPS) makes new credentials in each thread, which setresuid(-1, -1, -1) does
//! not; so libpsx is measured with both calls. The floor is what stop-first costs at the least: a
//! signal to each thread known by heart, a futex they wait on, one wake, the call, and no check at
//! all. The six calls of a drop of privileges are made in one transaction, and one by one.
//!
//! Each engine runs in a child process of its own, because whoever installs its handler for signal
//! 33 last makes the other pay for being chained to. They take turns batch by batch, so that a
//! drift of the machine hits all alike; what counts is the ratio.
#![allow(unsafe_code)]

mod floor;

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use libpsx::Transaction;
use libpsx::process::{
    Capabilities, Operation, ambient_clear, capset, keepcaps, no_new_privs, setresgid, setresuid,
};

const THREADS: [usize; 6] = [0, 1, 8, 64, 512, 2000];
const BATCHES: usize = 20;

/// Who makes which call.
#[derive(Clone, Copy, PartialEq)]
enum Engine {
    Glibc,
    KeepCaps,
    SetIds,
    Floor,
    OneStop,
    SixStops,
}

const ENGINES: [(Engine, &str); 6] = [
    (Engine::Glibc, "glibc setresuid"),
    (Engine::KeepCaps, "libpsx prctl"),
    (Engine::SetIds, "libpsx setresuid"),
    (Engine::Floor, "floor prctl"),
    (Engine::OneStop, "6 calls in a stop"),
    (Engine::SixStops, "6 calls in 6 stops"),
];

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let numbers: Vec<usize> = args.iter().filter_map(|arg| arg.parse().ok()).collect();
    match (args.as_slice(), numbers.as_slice()) {
        ([], _) => table(),
        (_, &[engine, threads, calls]) if engine < ENGINES.len() => {
            serve(ENGINES[engine].0, threads, calls);
        }
        _ => {
            eprintln!("bench: takes no arguments");
            std::process::exit(2);
        }
    }
}

fn table() {
    machine();
    println!("medians, p99 in brackets, microseconds; ratios of the medians to glibc's\n");
    let names = ENGINES.map(|(_, name)| name).join(" | ");
    println!("| N | {names} | ratios | bytes that libpsx took |");
    println!("|{}", "---|".repeat(ENGINES.len() + 3));
    for threads in THREADS {
        let calls = (20_000 / (threads + 20)).max(10);
        let mut served = std::array::from_fn::<_, { ENGINES.len() }, _>(|engine| {
            Served::start(engine, threads, calls)
        });
        let memory = served.each_mut().map(Served::answer);
        let mut samples = [const { Vec::new() }; ENGINES.len()];
        for _ in 0..BATCHES {
            for (engine, samples) in served.iter_mut().zip(&mut samples) {
                samples.extend(engine.batch());
            }
        }
        samples.iter_mut().for_each(|samples| samples.sort_unstable());
        let at = |sorted: &Vec<u64>, percent| sorted[(sorted.len() - 1) * percent / 100] as f64;
        let medians = samples.each_ref().map(|sorted| at(sorted, 50) / 1e3);
        let cells: Vec<String> = samples
            .iter()
            .zip(medians)
            .map(|(sorted, median)| format!("{median:.1} ({:.1})", at(sorted, 99) / 1e3))
            .collect();
        let ratios = medians[1..].iter().map(|median| format!("{:.2}", median / medians[0]));
        let ratios = ratios.collect::<Vec<_>>().join(" ");
        let libpsx = &memory[1];
        let memory = format!("{} mapped, {} malloc", libpsx[0], libpsx[1]);
        println!("| {threads} | {} | {ratios} | {memory} |", cells.join(" | "));
    }
}

fn machine() {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let cpu = info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = read("/proc/sys/kernel/osrelease");
    // SAFETY: touches no memory.
    let libc = unsafe { libc::gnu_get_libc_version() };
    // SAFETY: it is a string that lives for ever.
    let libc = unsafe { std::ffi::CStr::from_ptr(libc) };
    println!(
        "Linux {}, glibc {}, {cpus} x {}\n",
        kernel.trim(),
        libc.to_string_lossy(),
        cpu.replace(':', "").trim()
    );
}

struct Served {
    child: Child,
    go: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Served {
    fn start(engine: usize, threads: usize, calls: usize) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this program's path"))
            .args([engine, threads, calls].map(|number| number.to_string()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program starts again");
        let go = child.stdin.take().expect("piped");
        let answers = BufReader::new(child.stdout.take().expect("piped"));
        Self { child, go, answers }
    }

    fn batch(&mut self) -> Vec<u64> {
        writeln!(self.go).expect("the engine listens");
        self.answer()
    }

    fn answer(&mut self) -> Vec<u64> {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("the engine answers");
        line.split_whitespace().filter_map(|number| number.parse().ok()).collect()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a daemon calls, so that it changes nothing and anybody may.
fn drop_of_privileges() -> [Operation<'static>; 6] {
    let now = Capabilities::of_this_thread().expect("capget");
    [
        keepcaps(false),
        setresgid(None, None, None),
        setresuid(None, None, None),
        capset(now),
        ambient_clear(),
        no_new_privs(),
    ]
}

/// What is mapped, and what malloc has given out, in bytes.
fn memory() -> [usize; 2] {
    let mut statm = [0; 64];
    // No buffer of ours may count.
    let read = File::open("/proc/self/statm").and_then(|mut file| file.read(&mut statm));
    let text = std::str::from_utf8(&statm[..read.unwrap_or(0)]).unwrap_or_default();
    let pages: usize = text.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0);
    // SAFETY: reads the allocator's own counts.
    let malloc = unsafe { libc::mallinfo2() }.uordblks;
    [pages * 4096, malloc]
}

/// The engine's side. A first call, and a line that says what memory it took; then, for each line
/// of input, a batch of calls, and a line of their nanoseconds.
fn serve(engine: Engine, threads: usize, calls: usize) {
    let (born, tids) = std::sync::mpsc::channel();
    for _ in 0..threads {
        let born = born.clone();
        let body = move || {
            // SAFETY: gettid touches no memory.
            let _ = born.send(unsafe { libc::gettid() });
            loop {
                std::thread::park();
            }
        };
        std::thread::Builder::new().stack_size(64 << 10).spawn(body).expect("a thread");
    }
    let tids: Vec<i32> = tids.iter().take(threads).collect();
    if engine == Engine::Floor {
        floor::install();
    }
    let once = || match engine {
        Engine::Glibc => {
            // SAFETY: -1 leaves every id as it is.
            unsafe { libc::setresuid(u32::MAX, u32::MAX, u32::MAX) };
        }
        Engine::KeepCaps => {
            let keep_caps = libc::PR_SET_KEEPCAPS as usize;
            // SAFETY: PR_SET_KEEPCAPS takes no pointer.
            unsafe { libpsx::syscall3(libc::SYS_prctl, keep_caps, 0, 0) }.expect("it works");
        }
        Engine::SetIds => {
            let none = u32::MAX as usize;
            // SAFETY: -1 leaves every id as it is.
            unsafe { libpsx::syscall3(libc::SYS_setresuid, none, none, none) }.expect("it works");
        }
        Engine::Floor => floor::call(&tids),
        Engine::OneStop => {
            let transaction = Transaction::<6>::new();
            let transaction = drop_of_privileges().into_iter().fold(transaction, Transaction::with);
            transaction.perform().expect("it works");
        }
        Engine::SixStops => {
            drop_of_privileges().iter().for_each(|one| {
                one.perform().expect("it works");
            });
        }
    };
    let before = memory();
    once();
    let [mapped, malloc] = memory();
    println!("{} {}", mapped - before[0], malloc - before[1]);
    for _ in std::io::stdin().lines().map_while(Result::ok) {
        let times = (0..calls).map(|_| {
            let start = Instant::now();
            once();
            start.elapsed().as_nanos().to_string()
        });
        println!("{}", times.collect::<Vec<_>>().join(" "));
    }
}

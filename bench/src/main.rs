//! One call on N sleeping threads, beside glibc's own setresuid(-1, -1, -1).
//!
//! Each engine runs in a child process of its own, because whoever installs its handler for signal
//! 33 last makes the other pay for being chained to. The two take turns batch by batch, so that a
//! drift of the machine hits both alike; what counts is the ratio.
#![allow(unsafe_code)]

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

const THREADS: [usize; 6] = [0, 1, 8, 64, 512, 2000];
const BATCHES: usize = 20;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    match args.get(1).map(String::as_str) {
        Some(engine @ ("libpsx" | "glibc")) => {
            let number = |i: usize| args.get(i).and_then(|a| a.parse().ok()).unwrap_or(0);
            serve(engine == "libpsx", number(2), number(3));
        }
        Some(other) => {
            eprintln!("bench: no engine is called {other:?}; it takes no arguments");
            std::process::exit(2);
        }
        None => table(),
    }
}

fn table() {
    println!("prctl(PR_SET_KEEPCAPS) by libpsx beside setresuid(-1, -1, -1) by glibc\n");
    println!("| N | libpsx median | p99 | glibc median | p99 | ratio of medians |");
    println!("|---|---|---|---|---|---|");
    for threads in THREADS {
        let calls = (20_000 / (threads + 20)).max(10);
        let mut engines = ["libpsx", "glibc"].map(|engine| Engine::start(engine, threads, calls));
        let mut samples = [Vec::new(), Vec::new()];
        for _ in 0..BATCHES {
            for (engine, samples) in engines.iter_mut().zip(&mut samples) {
                engine.batch(samples);
            }
        }
        samples.iter_mut().for_each(|samples| samples.sort_unstable());
        let [ours, theirs] = &samples;
        let at = |sorted: &[u64], percent: usize| sorted[(sorted.len() - 1) * percent / 100] as f64;
        println!(
            "| {threads} | {:.1} us | {:.1} us | {:.1} us | {:.1} us | {:.2} |",
            at(ours, 50) / 1e3,
            at(ours, 99) / 1e3,
            at(theirs, 50) / 1e3,
            at(theirs, 99) / 1e3,
            at(ours, 50) / at(theirs, 50),
        );
    }
}

struct Engine {
    child: Child,
    go: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Engine {
    fn start(engine: &str, threads: usize, calls: usize) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this program's path"))
            .args([engine, &threads.to_string(), &calls.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program starts again");
        let go = child.stdin.take().expect("piped");
        let answers = BufReader::new(child.stdout.take().expect("piped"));
        Self { child, go, answers }
    }

    fn batch(&mut self, samples: &mut Vec<u64>) {
        writeln!(self.go).expect("the engine listens");
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("the engine answers");
        samples.extend(line.split_whitespace().filter_map(|ns| ns.parse::<u64>().ok()));
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The engine's side: a batch of calls per line of input, their nanoseconds as a line of output.
fn serve(libpsx: bool, threads: usize, calls: usize) {
    let asleep = std::sync::Arc::new(std::sync::Barrier::new(threads + 1));
    for _ in 0..threads {
        let asleep = asleep.clone();
        let body = move || {
            asleep.wait();
            loop {
                std::thread::park();
            }
        };
        std::thread::Builder::new().stack_size(64 << 10).spawn(body).expect("a thread");
    }
    if threads > 0 {
        asleep.wait();
    }
    for line in std::io::stdin().lines() {
        if line.is_err() {
            return;
        }
        let times: Vec<String> = (0..calls)
            .map(|_| {
                let start = Instant::now();
                if libpsx {
                    let keep = libc::PR_SET_KEEPCAPS as usize;
                    // SAFETY: PR_SET_KEEPCAPS takes no pointer.
                    unsafe { libpsx::syscall3(libc::SYS_prctl, keep, 0, 0) }.expect("it works");
                } else {
                    // SAFETY: -1 leaves every id as it is.
                    unsafe { libc::setresuid(u32::MAX, u32::MAX, u32::MAX) };
                }
                start.elapsed().as_nanos().to_string()
            })
            .collect();
        println!("{}", times.join(" "));
    }
}

//! Describes the machine for the head of the report. Raises the limits for many threads if root may do that.

use std::fs;
use std::time::Instant;

use anyhow::{Context, Result};
use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};

use crate::engines::{Built, output_of};

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn first_line(text: Option<String>) -> String {
    text.and_then(|text| text.lines().next().map(str::to_owned)).unwrap_or("unknown".to_owned())
}

pub(crate) fn describe(built: &Built) -> Vec<String> {
    let info = read("/proc/cpuinfo");
    let model = info.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.unwrap_or("unknown CPU").trim_start_matches([' ', '\t', ':']);
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = read("/proc/meminfo");
    let memory =
        memory.lines().next().and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    let gibibytes = memory.map_or(0, |kibibytes: u64| kibibytes >> 20);
    let mut head = vec![
        format!("Machine: {cpus} x {model}, {gibibytes} GiB"),
        format!(
            "Kernel: Linux {}, {}",
            read("/proc/sys/kernel/osrelease"),
            read("/proc/sys/kernel/version")
        ),
        format!(
            "{}; {}",
            first_line(output_of("rustc", &["-V"])),
            first_line(output_of("gcc", &["--version"]))
        ),
    ];
    let mut libraries =
        vec![output_of("getconf", &["GNU_LIBC_VERSION"]).unwrap_or("unknown libc".to_owned())];
    if built.get("libpsx").is_some_and(Result::is_ok) {
        libraries.extend(recent());
    }
    if built.get("musl").is_some_and(Result::is_ok) {
        let shell = "basename target/peers/musl/.apt/musl_*.deb | cut -d _ -f 1,2 | tr _ ' '";
        libraries.extend(output_of("sh", &["-c", shell]));
    }
    if built.get("go").is_some_and(Result::is_ok) {
        libraries.extend(output_of("scripts/go", &["version"]));
    }
    head.push(format!("Peers: {}", libraries.join("; ")));
    head.push(format!(
        "Sources: {}",
        output_of("git", &["describe", "--always", "--dirty"]).unwrap_or("no git".to_owned())
    ));
    head
}

/// The revision of the baseline engine, as git describes it.
pub(crate) fn describe_baseline(revision: &str) -> String {
    let log = output_of("git", &["log", "-1", "--format=%h %s", revision]);
    format!("Baseline: {revision}, {}", log.unwrap_or("no git".to_owned()))
}

/// The C library and the libpsx of Debian sid.
fn recent() -> Option<String> {
    let loader =
        "cd \"$(scripts/recent-libcap)\"/usr/lib/*-linux-gnu && ./ld-linux-*.so.* --version";
    let libpsx = "basename \"$(readlink \"$(scripts/recent-libcap)\"/usr/lib/*/libpsx.so.2)\"";
    let glibc = output_of("sh", &["-c", loader])?;
    let glibc = glibc.lines().next()?.split(['(', ')']).nth(1)?.trim();
    Some(format!("of sid {glibc}, {}", output_of("sh", &["-c", libpsx])?))
}

/// Raises the limits that prevent this many threads. Returns a note for each limit, with an error if it failed.
pub(crate) fn make_room(threads: usize) -> Vec<String> {
    let needed = threads as u64 + 2000;
    let mut notes = Vec::new();
    for path in ["/proc/sys/kernel/threads-max", "/proc/sys/kernel/pid_max"] {
        let now: u64 = read(path).parse().unwrap_or(u64::MAX);
        let wanted = needed.saturating_mul(2);
        if now < wanted {
            let done = fs::write(path, wanted.to_string());
            let how = done.map_or_else(|error| error.to_string(), |()| "raised".to_owned());
            notes.push(format!("{path} was {now}: {how}"));
        }
    }
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NPROC) {
        if soft < needed {
            let more = hard.max(if nix::unistd::geteuid().is_root() { needed } else { hard });
            let done = setrlimit(Resource::RLIMIT_NPROC, more, more);
            let how = done.map_or_else(|error| error.to_string(), |()| format!("now {more}"));
            notes.push(format!("RLIMIT_NPROC was {soft}: {how}"));
        }
    }
    notes
}

/// Measures how much CPU time other programs use meanwhile.
pub(crate) struct Load {
    before: Ticks,
    own: f64,
    begun: Instant,
}

struct Ticks {
    busy: f64,
    stolen: f64,
}

fn ticks() -> Result<Ticks> {
    let stat = fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().context("no line in /proc/stat")?;
    let numbers: Vec<f64> =
        line.split_whitespace().skip(1).filter_map(|number| number.parse().ok()).collect();
    // user, nice, system, idle, iowait, irq, softirq, steal
    let of = |which: &[usize]| which.iter().filter_map(|&i| numbers.get(i)).sum::<f64>() / 100.0;
    Ok(Ticks { busy: of(&[0, 1, 2]), stolen: of(&[7]) })
}

/// Returns the CPU time of this program and of the children that it has waited for, in seconds.
fn own() -> Result<f64> {
    let mut sum = 0.0;
    for who in [UsageWho::RUSAGE_SELF, UsageWho::RUSAGE_CHILDREN] {
        let usage = getrusage(who)?;
        for time in [usage.user_time(), usage.system_time()] {
            sum += time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
        }
    }
    Ok(sum)
}

impl Load {
    pub(crate) fn begin() -> Result<Self> {
        Ok(Self { before: ticks()?, own: own()?, begun: Instant::now() })
    }

    pub(crate) fn end(self) -> Result<String> {
        let (now, own) = (ticks()?, own()? - self.own);
        let cpus = std::thread::available_parallelism().map_or(1, usize::from) as f64;
        let all = self.begun.elapsed().as_secs_f64() * cpus / 100.0;
        let others = ((now.busy - self.before.busy - own) / all).max(0.0);
        let stolen = (now.stolen - self.before.stolen) / all;
        let loaded = if others + stolen > 5.0 { "THE MACHINE WAS LOADED" } else { "Quiet" };
        Ok(format!(
            "{loaded}: other programs had {others:.0} % of the CPUs meanwhile, the hypervisor took {stolen:.0} %"
        ))
    }
}

//! The observer: it starts the subject, disturbs it, checks every thread from outside between the calls, ends it if it
//! hangs, and counts.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::board::{Board, Count, LOOPS, Stage, WITNESSES};
use crate::disturb::{CALM, Group, TaskLimit, disturb, repeat};
use crate::state::{FIELDS, Field, shown};
use crate::sys::{Random, now, watchdog};

/// How long a turn of a loop may take. The longest deadline is 10 s, and stops, freezes and debuggers add to it.
const TURN: Duration = Duration::from_secs(60);
/// What may be added to the memory by the end: glibc keeps stacks of threads, and free memory.
const MORE_MAPPINGS: i64 = 64;
const MORE_KIB: i64 = 64 << 10;

/// Why the soak cannot go on.
struct Hung;

/// The control groups of the subject, as far as there are any. The group is dropped first, which ends the subject if it
/// hangs; then the directory of the limit is empty.
struct Outside {
    group: Option<Group>,
    tasks: Option<TaskLimit>,
}

struct Observer {
    board: &'static Board,
    pid: u32,
    subject: Child,
    /// What nothing changes: the same in all threads, always.
    constant: Option<String>,
}

/// What must come back.
#[derive(Debug)]
struct Measure {
    threads: usize,
    descriptors: BTreeSet<String>,
    mappings: i64,
    size: i64,
    resident: i64,
    queued: u64,
    pending: BTreeSet<String>,
}

/// Runs the soak. Returns whether nothing was wrong.
pub(crate) fn run(seconds: u64, seed: u64, sabotage: &str) -> bool {
    println!("soak: {seconds} s, seed {seed}; once more: scripts/soak {seconds} {seed}");
    // SAFETY: geteuid touches no memory.
    if unsafe { libc::geteuid() } != 0 {
        println!("SKIPPED: soak: changing ids needs root");
        return true;
    }
    let (board, _file, path) = Board::create();
    let program = std::env::current_exe().expect("the program's own path");
    let mut command = Command::new(program);
    command.args(["--subject", &path, &seed.to_string(), sabotage]);
    // More arenas would hide what is lost: each takes 64 MiB of addresses.
    command.env("MALLOC_ARENA_MAX", "2").stdin(Stdio::null()).stderr(Stdio::piped());
    let mut subject = command.spawn().expect("the subject starts");
    let lines = BufReader::new(subject.stderr.take().expect("piped"));
    let reader = std::thread::spawn(move || read_lines(board, lines));
    let pid = subject.id();
    let mut observer = Observer { board, pid, subject, constant: None };
    let began = Instant::now();
    if observer.both_runs(seconds, seed).is_err() {
        let _ = observer.subject.kill();
        let _ = observer.subject.wait();
    }
    drop(reader.join());
    table(board, seed, began.elapsed())
}

/// Repeats the subject's lines, and counts those of libpsx.
fn read_lines(board: &Board, lines: impl BufRead) {
    for line in lines.split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line).into_owned();
        if line.starts_with("libpsx: ") {
            board.count(Count::Lines);
        } else if !line.contains("error while loading shared libraries") {
            // That is a child without a free descriptor, which is judged by its exit code.
            eprintln!("{line}");
        }
    }
}

impl Observer {
    fn both_runs(&mut self, seconds: u64, seed: u64) -> Result<(), Hung> {
        let mut random = Random::new(seed, 1000);
        let group = Group::new(self.pid);
        if let Err(why) = &group {
            self.board.skip(Count::Freezes, why);
        }
        let group = group.ok();
        let tasks = TaskLimit::new(self.pid, group.as_ref());
        if let Err(why) = &tasks {
            self.board.skip(Count::TaskLimits, why);
        }
        let outside = Outside { tasks: tasks.ok(), group };
        self.await_stage(Stage::RUNNING)?;
        // What glibc and the kernel make once is there after this.
        let warm = Duration::from_secs((seconds / 6).clamp(1, 10));
        self.disturbed(&outside, warm, false, &mut random)?;
        self.await_stage(Stage::WARM)?;
        let before = self.settled(None)?;
        println!("after the warm-up: {before:?}");
        self.board.go.store(1, SeqCst);
        self.await_stage(Stage::AGAIN)?;
        self.disturbed(&outside, Duration::from_secs(seconds), true, &mut random)?;
        self.await_stage(Stage::ENDED)?;
        let after = self.settled(Some(&before))?;
        println!("at the end: {after:?}");
        self.compare(&before, &after);
        self.scan()?;
        self.board.go.store(2, SeqCst);
        let status = self.subject.wait().expect("wait for the subject");
        if !status.success() {
            self.board.violation(format_args!("the subject ended with {status}"));
        }
        Ok(())
    }

    /// Disturbs and checks the subject for so long, and asks its loops to end. With `prolong`, it does so for as long again
    /// if all is right but a count is still zero: on a busy machine, few turns of an activity fit into the time.
    fn disturbed(
        &mut self,
        outside: &Outside,
        time: Duration,
        prolong: bool,
        random: &mut Random,
    ) -> Result<(), Hung> {
        let (board, pid) = (self.board, self.pid);
        let end = AtomicBool::new(false);
        let [mut first, mut second] = [1, 2].map(|stream| Random::new(random.next(), stream));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                repeat(&end, &mut first, |random| {
                    disturb(board, pid, outside.tasks.as_ref(), random)
                })
            });
            if let Some(group) = &outside.group {
                scope.spawn(|| repeat(&end, &mut second, |random| group.freeze(board, random)));
            }
            let began = Instant::now();
            let mut result = Ok(());
            let mut limit = time;
            while result.is_ok() {
                if began.elapsed() >= limit {
                    let missing = || Count::ALL.iter().filter(|&&count| board.is_missing(count));
                    let is_right = board.violations.load(SeqCst) == 0;
                    if !prolong || limit > time || !is_right || missing().next().is_none() {
                        break;
                    }
                    println!(
                        "another {time:?}, without a count: {:?}",
                        missing().collect::<Vec<_>>()
                    );
                    limit = began.elapsed() + time;
                }
                let epoch = Duration::from_millis(300 + random.below(1200));
                result = self.watch_for(epoch).and_then(|()| self.check());
            }
            end.store(true, SeqCst);
            result
        })?;
        self.board.end.store(1, SeqCst);
        Ok(())
    }

    fn watch_for(&mut self, time: Duration) -> Result<(), Hung> {
        let began = Instant::now();
        while began.elapsed() < time {
            sleep(Duration::from_millis(20));
            self.watch()?;
        }
        Ok(())
    }

    /// Looks whether the subject lives, and whether each turn of its loops ends.
    fn watch(&mut self) -> Result<(), Hung> {
        if let Ok(Some(status)) = self.subject.try_wait() {
            self.board.violation(format_args!("the subject ended with {status}"));
            return Err(Hung);
        }
        let limit = watchdog(TURN);
        let used = (self.board.used_loops.load(SeqCst) as usize).min(LOOPS);
        for own in &self.board.loops[..used] {
            let began = own.began.load(SeqCst);
            if began != 0 && now().saturating_sub(began) > limit.as_nanos() as u64 {
                let (name, tid) = (own.name(), own.tid.load(SeqCst));
                return Err(self.hangs(format_args!("{name} (thread {tid}) hangs for {limit:?}")));
            }
        }
        Ok(())
    }

    fn hangs(&self, what: std::fmt::Arguments<'_>) -> Hung {
        self.board.violation(what);
        eprintln!("{}", threads_of(self.pid));
        Hung
    }

    fn until(&mut self, what: &str, is_so: impl Fn(&Board) -> bool) -> Result<(), Hung> {
        let began = Instant::now();
        while !is_so(self.board) {
            self.watch()?;
            if began.elapsed() > watchdog(TURN * 2) {
                return Err(self.hangs(format_args!("{what} does not come")));
            }
            sleep(Duration::from_micros(500));
        }
        Ok(())
    }

    fn await_stage(&mut self, stage: u32) -> Result<(), Hung> {
        self.until(&format!("stage {stage}"), |board| board.stage.load(SeqCst) == stage)
    }

    /// Lets the initiators wait, and compares every thread with the last calls that have returned.
    fn check(&mut self) -> Result<(), Hung> {
        let calm = CALM.write();
        let board = self.board;
        board.parked.store(0, SeqCst);
        let phase = board.phase.fetch_add(1, SeqCst) + 1;
        self.until("the end of the calls", |board| {
            board.parked.load(SeqCst) == board.initiators.load(SeqCst)
        })?;
        self.scan()?;
        self.until("the witnesses' answer", |board| {
            board.answered.iter().all(|answered| answered.load(SeqCst) == phase)
        })?;
        for (number, witness) in board.witnesses.iter().enumerate() {
            for field in Field::ALL.into_iter().filter(|&field| field != Field::Filters) {
                let own = witness[field as usize].load(SeqCst);
                let wanted = self.expected(field);
                if own != wanted {
                    board.violation(format_args!(
                        "the kernel tells witness {number} that its {field:?} is {own}, not {wanted}"
                    ));
                }
            }
        }
        board.add(Count::Witnesses, WITNESSES as u64);
        board.count(Count::Epochs);
        board.phase.fetch_add(1, SeqCst);
        drop(calm);
        Ok(())
    }

    fn expected(&self, field: Field) -> u64 {
        self.board.expected[field as usize].load(SeqCst)
    }

    fn tids(&self) -> Vec<i32> {
        let tasks =
            fs::read_dir(format!("/proc/{}/task", self.pid)).into_iter().flatten().flatten();
        tasks.filter_map(|task| task.file_name().to_str()?.parse().ok()).collect()
    }

    /// Compares every thread, as /proc shows it, with what it has to be.
    fn scan(&mut self) -> Result<(), Hung> {
        for tid in self.tids() {
            let began = Instant::now();
            while let Some(thread) = shown(self.pid, tid) {
                let wrong = self.wrong(&thread.name, &thread.values);
                // glibc leaves out a thread that is ending; that one is gone soon.
                let may_end = wrong.iter().all(|&(field, ..)| field == Field::RealUser);
                if !wrong.is_empty() && may_end && began.elapsed() < Duration::from_secs(2) {
                    sleep(Duration::from_millis(5));
                    continue;
                }
                for (field, own, wanted) in wrong {
                    self.board.violation(format_args!(
                        "thread {tid} ({}) has {field:?} {own:?}, not {wanted}",
                        thread.name
                    ));
                }
                let constant = self.constant.get_or_insert_with(|| thread.constant.clone());
                if *constant != thread.constant {
                    self.board.violation(format_args!(
                        "thread {tid} ({}) has {}, not {constant}",
                        thread.name, thread.constant
                    ));
                }
                self.board.count(Count::ThreadsChecked);
                break;
            }
        }
        Ok(())
    }

    /// The fields that are not as they have to be: their values, and what they have to be.
    fn wrong(&self, name: &str, values: &[Option<u64>; FIELDS]) -> Vec<(Field, Option<u64>, u64)> {
        let checked = |field: Field| match field {
            // glibc does not know these threads.
            Field::RealUser => name != "raw",
            // The kernel has no timer slack for real-time threads.
            Field::Slack => !name.starts_with("fifo"),
            _ => true,
        };
        let fields = Field::ALL.into_iter().filter(|&field| checked(field)).map(|field| {
            let own_filter = u64::from(field == Field::Filters && name == "dissenter");
            (field, values[field as usize], self.expected(field) + own_filter)
        });
        fields.filter(|&(_, own, wanted)| own != Some(wanted)).collect()
    }

    /// Waits until the subject's threads have ended, and measures what it has.
    fn settled(&mut self, before: Option<&Measure>) -> Result<Measure, Hung> {
        let began = Instant::now();
        let mut last = (self.tids().len(), Instant::now());
        loop {
            self.watch_for(Duration::from_millis(100))?;
            let threads = self.tids().len();
            if threads != last.0 {
                last = (threads, Instant::now());
            }
            let steady = match before {
                Some(before) => threads <= before.threads,
                None => last.1.elapsed() > Duration::from_secs(3),
            };
            if steady || began.elapsed() > watchdog(Duration::from_secs(30)) {
                return Ok(self.measure());
            }
        }
    }

    fn measure(&self) -> Measure {
        let pid = self.pid;
        let links = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        let descriptors = links.map(|link| {
            let to = fs::read_link(link.path()).unwrap_or_default();
            format!("{} {}", link.file_name().to_string_lossy(), to.display())
        });
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let number = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
        };
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
        let tids = self.tids();
        let pending = tids.iter().filter_map(|&tid| Some(shown(pid, tid)?.queued)).collect();
        Measure {
            threads: tids.len(),
            descriptors: descriptors.collect(),
            mappings: maps.lines().count() as i64,
            size: number("VmSize:"),
            resident: number("VmRSS:"),
            queued: self.board.queued.load(SeqCst),
            pending,
        }
    }

    fn compare(&self, before: &Measure, after: &Measure) {
        let wrong = |what: &str| self.board.violation(format_args!("{what} did not come back"));
        if after.threads > before.threads {
            wrong("threads");
            eprintln!("{}", threads_of(self.pid));
        }
        if after.descriptors != before.descriptors {
            wrong("descriptors");
        }
        if after.mappings > before.mappings + MORE_MAPPINGS
            || after.size > before.size + MORE_KIB
            || after.resident > before.resident + MORE_KIB
        {
            wrong("memory");
        }
        if after.queued > before.queued || after.pending != before.pending {
            wrong("queued signals");
        }
    }
}

/// Where the threads of a process are.
fn threads_of(pid: u32) -> String {
    let mut text = String::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let read = |file: &str| fs::read_to_string(task.path().join(file)).unwrap_or_default();
        let status = read("status");
        let wanted = ["Name:", "Pid:", "State:", "SigPnd:", "SigBlk:", "ShdPnd:", "TracerPid:"];
        let lines = status.lines().filter(|line| wanted.iter().any(|key| line.starts_with(key)));
        lines.for_each(|line| text += &format!("{}  ", line.replace('\t', " ")));
        text += &format!("wchan {}  syscall {}\n", read("wchan"), read("syscall").trim());
        read("stack").lines().for_each(|line| text += &format!("    {line}\n"));
    }
    text
}

/// Prints the counts. Returns whether nothing was wrong.
fn table(board: &Board, seed: u64, time: Duration) -> bool {
    let mut missing = 0;
    println!("\n| what | count |\n|---|---|");
    for &count in Count::ALL {
        let ((text, _), value) = (count.row(), board.counted(count));
        let note = match value {
            0 if board.is_skipped(count) => " SKIPPED",
            0 if board.is_missing(count) => {
                missing += 1;
                " MISSING"
            }
            _ => "",
        };
        println!("| {text} | {value}{note} |");
    }
    let violations = board.violations.load(SeqCst);
    println!(
        "\nsoak: {violations} violations, {missing} activities without a count, {:.0} s, seed {seed}",
        time.as_secs_f64()
    );
    violations == 0 && missing == 0
}

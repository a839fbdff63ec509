//! `psx audit`: verdicts, the fields that are not compared, lists, formats, policies, and saved states.

#![allow(missing_docs, unsafe_code)]

mod support;

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use support::{
    Finished, NOBODY, Subject, become_user, finish, is_root, name, plain, prctl, psx, skipped,
    thread,
};

fn audit(args: &[&str], pid: i32) -> Finished {
    let pid = pid.to_string();
    finish(psx(&[&["audit"], args, &[&pid]].concat()))
}

fn report(args: &[&str], pid: i32) -> Value {
    let finished = audit(&[&["--json"], args].concat(), pid);
    serde_json::from_str(&finished.stdout).unwrap_or_else(|e| panic!("{e}: {}", finished.stderr))
}

/// A file that is removed when the test ends.
struct Scratch(PathBuf);

impl Scratch {
    fn new(contents: &str) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let file = format!("psx-views-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(file);
        std::fs::write(&path, contents).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Keeps only these capabilities, effective and permitted.
fn keep_only(bits: u32) {
    let header = [0x2008_0522_u32, 0];
    let sets = [bits, bits, 0, 0, 0, 0];
    plain(libc::SYS_capset, [header.as_ptr() as usize, sets.as_ptr() as usize, 0, 0, 0]);
}

fn no_capabilities() {
    keep_only(0);
}

fn allow_all() {
    let allow = libc::BPF_RET | libc::BPF_K;
    let step = libc::sock_filter { code: allow as u16, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW };
    let program = libc::sock_fprog { len: 1, filter: (&raw const step).cast_mut() };
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1);
    let set = libc::SECCOMP_SET_MODE_FILTER as usize;
    plain(libc::SYS_seccomp, [set, 0, (&raw const program) as usize, 0, 0]);
}

/// Becomes another user and keeps these capabilities.
fn user_with(bits: u32) {
    prctl(libc::PR_SET_KEEPCAPS, 1);
    become_user(NOBODY as usize);
    keep_only(bits);
}

/// Becomes another user and keeps CAP_NET_BIND_SERVICE, number 10.
fn user_that_binds() {
    user_with(1 << 10);
}

/// The calls of the process, the verdict, and a part of the reasons.
type Case = (&'static str, fn(), &'static str, &'static str);

#[test]
fn verdicts_follow_from_the_state_and_have_reasons() {
    if !is_root("verdicts about root") {
        return;
    }
    let cases: [Case; 11] = [
        ("root", || {}, "privileged", "the user ID is 0"),
        ("root without capabilities", no_capabilities, "privileged", "the user ID is 0"),
        ("a user", || become_user(NOBODY as usize), "unprivileged", "no capability"),
        (
            "a saved ID",
            || plain(libc::SYS_setresuid, [7, 7, 0, 0, 0]),
            "privileged",
            "the saved user ID is 0",
        ),
        ("one capability", user_that_binds, "reduced", "cap_net_bind_service"),
        ("CAP_SYS_ADMIN", || user_with(1 << 21), "privileged", "leads to root: cap_sys_admin"),
        ("CAP_SETUID", || user_with(1 << 7), "privileged", "leads to root: cap_setuid"),
        ("CAP_DAC_OVERRIDE", || user_with(1 << 1), "privileged", "leads to root: cap_dac_override"),
        (
            "a filter",
            || {
                allow_all();
                become_user(NOBODY as usize);
            },
            "sandboxed",
            "seccomp filters system calls",
        ),
        (
            "one thread",
            || {
                // This thread keeps root, and the leader does not.
                thread(|| {});
                become_user(NOBODY as usize);
            },
            "privileged",
            "the user ID is 0",
        ),
        (
            "a chroot",
            || {
                plain(libc::SYS_chroot, [c"/tmp".as_ptr() as usize, 0, 0, 0, 0]);
                no_capabilities();
            },
            "reduced",
            "its own root directory",
        ),
    ];
    for (what, change, verdict, reason) in cases {
        let subject = Subject::new(|stage| {
            change();
            stage.ready(&[]);
        });
        let report = report(&[], subject.pid);
        let process = &report["processes"][0];
        assert_eq!(process["verdict"], verdict, "{what}: {report}");
        let reasons = process["reasons"].to_string();
        assert!(reasons.contains(reason), "{what}: {reasons}");
        let text = audit(&["--explain"], subject.pid).stdout;
        let line = format!("(subject): {verdict}: ");
        assert!(text.contains(&line), "{what}: {text}");
        assert!(text.contains("The kernel does not show these of another process: securebits"));
        // The verdict can be an expectation too.
        let demanded = ["--quiet", "--ignore", "uid,caps", "--expect"];
        let at_most = format!("verdict<={verdict}");
        let finished = audit(&[&demanded[..], &[&at_most]].concat(), subject.pid);
        assert_eq!(finished.status.code(), Some(0), "{what}: {}", finished.stderr);
        if verdict != "sandboxed" {
            let finished = audit(&[&demanded[..], &["verdict<=sandboxed"]].concat(), subject.pid);
            assert_eq!(finished.status.code(), Some(1), "{what}");
        }
    }
}

/// A field that daemons set per thread on purpose: how a thread sets it, and its name.
type Resource = (&'static str, fn());

/// Restricts the thread to one CPU, if there are two.
fn one_cpu() {
    let mask = [1_u64];
    plain(libc::SYS_sched_setaffinity, [0, 8, mask.as_ptr() as usize, 0, 0]);
}

/// Gives the thread another nice value than the process was started with.
fn another_nice() {
    // SAFETY: it takes numbers.
    let now = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
    // Only root may lower it.
    let other = if now < 19 { now + 1 } else { now - 1 };
    plain(libc::SYS_setpriority, [0, 0, other as usize, 0, 0]);
}

/// Gives the thread another class of I/O than the process was started with.
fn another_ioprio() {
    const IDLE: libc::c_long = 3 << 13;
    const BEST_EFFORT: libc::c_long = 2 << 13;
    // SAFETY: it takes numbers.
    let now = unsafe { libc::syscall(libc::SYS_ioprio_get, 1, 0) };
    let other = if now & !0x1fff == IDLE { BEST_EFFORT } else { IDLE };
    plain(libc::SYS_ioprio_set, [1, 0, other as usize, 0, 0]);
}

#[test]
fn resources_are_shown_and_compared_only_if_asked_for() {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let root = is_root("timer slack of another process");
    let all: [Resource; 4] = [
        ("nice", another_nice),
        ("ioprio", another_ioprio),
        ("affinity", one_cpu),
        ("timer-slack", || prctl(libc::PR_SET_TIMERSLACK, 77_000)),
    ];
    for (field, change) in all {
        if (field == "affinity" && cpus < 2) || (field == "timer-slack" && !root) {
            continue;
        }
        let subject = Subject::new(|stage| stage.ready(&[thread(change)]));
        let usual = report(&[], subject.pid);
        let process = &usual["processes"][0];
        assert_eq!(process["consistent"], true, "{field}: {usual}");
        assert_eq!(process["varies"], json!([field]), "{usual}");
        assert_eq!(process["groups"].as_array().unwrap().len(), 1, "{field}");
        let compared = report(&["--compare", field], subject.pid);
        assert_eq!(compared["processes"][0]["differs"], json!([field]), "{compared}");
        let finished = audit(&["--quiet", "--compare", field], subject.pid);
        assert_eq!(finished.status.code(), Some(1), "{field}");
        let text = audit(&["--explain"], subject.pid).stdout;
        assert!(text.contains(&format!("its threads also differ in {field}")), "{text}");
    }
}

#[test]
fn deadline_parameters_are_shown() {
    if !is_root("SCHED_DEADLINE") {
        return;
    }
    let subject = Subject::new(|stage| {
        let tid = thread(|| {
            // struct sched_attr: size, policy, flags, nice, priority, runtime, deadline, period.
            let mut attributes = [0_u32; 12];
            (attributes[0], attributes[1]) = (48, 6);
            (attributes[6], attributes[8], attributes[10]) = (1_000_000, 20_000_000, 30_000_000);
            let pointer = attributes.as_ptr();
            // SAFETY: the kernel reads the structure.
            let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, pointer, 0) };
            if result != 0 {
                name(b"refused");
            }
        });
        stage.ready(&[tid]);
    });
    let report = report(&[], subject.pid);
    let groups = report["processes"][0]["groups"].as_array().unwrap();
    let Some(other) = groups.get(1) else {
        skipped("SCHED_DEADLINE is refused here");
        return;
    };
    let scheduling = &other["state"]["scheduling"];
    assert_eq!(scheduling["policy"], "deadline");
    assert_eq!(
        scheduling["deadline"],
        json!({ "runtime_ns": 1_000_000, "deadline_ns": 20_000_000, "period_ns": 30_000_000 })
    );
    let text = audit(&["--long"], subject.pid).stdout.replace('\n', " ");
    assert!(text.contains("deadline"), "{text}");
}

#[test]
fn a_list_has_one_line_for_each_process_and_fits() {
    let subjects: Vec<_> = (0..3)
        .map(|_| {
            Subject::new(|stage| {
                thread(|| {});
                name(b"listed (it)");
                stage.ready(&[]);
            })
        })
        .collect();
    let select = ["audit", "--name", r"^listed \(it\)$"];
    let finished = finish(psx(&select));
    let lines: Vec<_> = finished.stdout.lines().collect();
    // The heading, the processes, and the summary.
    let first = subjects[0].pid.to_string();
    assert!(lines[0].trim_start().starts_with("PID VERDICT"), "{}", finished.stdout);
    assert!(lines[1].trim_start().starts_with(&first), "{}", finished.stdout);
    assert!(lines.iter().take(4).all(|line| line.chars().count() <= 80), "{}", finished.stdout);
    assert!(lines.last().unwrap().starts_with("3 processes, 6 threads: consistent"));
    let sorted = finish(psx(&[&select[..], &["--sort", "start"]].concat())).stdout;
    let place = |text: &str, pid: i32| text.find(&format!("{pid} ")).unwrap();
    let (a, b) = (subjects[0].pid, subjects[2].pid);
    assert!(place(&finished.stdout, a) < place(&finished.stdout, b));
    // The start is in clock ticks, so equal starts stay in the order of the process IDs.
    assert!(sorted.contains(&b.to_string()), "{sorted}");
    let long = finish(psx(&[&select[..], &["--long"]].concat())).stdout;
    assert!(long.contains("capabilities") && long.contains("timer-slack"), "{long}");
    assert!(long.lines().take(20).all(|line| line.chars().count() <= 80), "{long}");
    // All threads are named if an option requests it.
    let threads = finish(psx(&[&select[..], &["--threads"]].concat())).stdout;
    assert!(threads.contains("threads of"), "{threads}");
}

#[test]
fn a_tree_shows_children_below_their_parents() {
    let mut parent = Command::new("sh");
    parent.args(["-c", "sleep 1000 & echo $!; wait"]).stdout(Stdio::piped());
    let mut parent = support::Killed(parent.spawn().unwrap());
    let mut line = String::new();
    let out = parent.0.stdout.take().unwrap();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line).unwrap();
    let child = support::KilledById(line.trim().parse().unwrap());
    let finished = finish(psx(&["audit", "--all", "--tree"]));
    let at = |pid: &str| {
        let of = |line: &&str| line.trim_start().starts_with(&format!("{pid} "));
        let lines: Vec<_> = finished.stdout.lines().collect();
        let index = lines.iter().position(of);
        let index = index.unwrap_or_else(|| panic!("{pid}: {}", finished.stdout));
        let line = lines[index];
        let command =
            ["sh", "sleep"].iter().filter_map(|word| line.find(&format!(" {word} "))).min();
        (index, command)
    };
    let (above, below) = (at(&parent.0.id().to_string()), at(&child.0.to_string()));
    assert_eq!(above.0 + 1, below.0, "{}", finished.stdout);
    if let (Some(above), Some(below)) = (above.1, below.1) {
        assert_eq!(above + 2, below, "{}", finished.stdout);
    }
}

#[test]
fn only_some_processes_are_shown_and_all_are_judged() {
    let divergent = Subject::new(|stage| {
        let tids = [thread(|| prctl(libc::PR_SET_NO_NEW_PRIVS, 1))];
        name(b"only-one");
        stage.ready(&tids);
    });
    let alike = Subject::new(|stage| {
        name(b"only-one");
        stage.ready(&[]);
    });
    let run = |only: &str| {
        let args = ["audit", "--name", "^only-one$", "--only", only, "--expect", "nnp=0"];
        finish(psx(&args))
    };
    let finished = run("divergent");
    let shown =
        |text: &str, pid: i32| text.lines().any(|l| l.trim_start().starts_with(&format!("{pid} ")));
    assert!(shown(&finished.stdout, divergent.pid), "{}", finished.stdout);
    assert!(!shown(&finished.stdout, alike.pid), "{}", finished.stdout);
    assert!(finished.stdout.contains("1 process not shown"), "{}", finished.stdout);
    let finished = run("violations");
    assert!(shown(&finished.stdout, divergent.pid) && !shown(&finished.stdout, alike.pid));
    assert!(finished.stdout.contains("violation"), "{}", finished.stdout);
    assert_eq!(finished.status.code(), Some(1));
    let privileged = run("privileged");
    let root = is_root("a verdict about root");
    assert_eq!(shown(&privileged.stdout, alike.pid), root, "{}", privileged.stdout);
    assert_eq!(privileged.status.code(), Some(1), "what is not shown counts");
}

#[test]
fn a_policy_is_checked_with_levels() {
    let subject = Subject::new(|stage| {
        thread(|| prctl(libc::PR_SET_NO_NEW_PRIVS, 1));
        name(b"policed");
        prctl(libc::PR_SET_NO_NEW_PRIVS, 1);
        stage.ready(&[]);
    });
    let check = |text: &str| {
        let file = Scratch::new(text);
        let finished = finish(psx(&["audit", "--policy", file.path()]));
        let json = finish(psx(&["audit", "--json", "--policy", file.path()])).stdout;
        (finished, serde_json::from_str::<Value>(&json).unwrap_or(Value::Null))
    };
    let rule =
        |rest: &str| format!("[[rule]]\ntitle = 'the rule'\nmatch.name = '^policed$'\n{rest}\n");
    // The policy holds.
    let (finished, json) = check(&rule("expect.nnp = true\nexpect.seccomp = 'disabled'"));
    assert_eq!(finished.status.code(), Some(0), "{}{}", finished.stdout, finished.stderr);
    assert_eq!(json["processes"].as_array().unwrap().len(), 1, "{json}");
    // The policy does not hold: an error changes the exit status, a warning does not.
    let (finished, json) = check(&rule("expect.filters = { at-least = 1 }"));
    assert_eq!(finished.status.code(), Some(1), "{}", finished.stdout);
    let line = format!("{} (policed): error: the rule: expected filters>=1: ", subject.pid);
    assert!(finished.stdout.contains(&line), "{}", finished.stdout);
    let failure = &json["processes"][0]["failures"][0];
    assert_eq!((&failure["rule"], &failure["level"]), (&"the rule".into(), &"error".into()));
    assert_eq!(json["processes"][0]["flags"], json!(["unexpected"]));
    let (finished, json) = check(&rule("level = 'warning'\nexpect.seccomp = 'filter'"));
    assert_eq!(finished.status.code(), Some(0), "{}", finished.stdout);
    assert!(finished.stdout.contains("warning: the rule: "), "{}", finished.stdout);
    assert_eq!(json["as_expected"], true);
    // A state that the kernel does not show is reported, and is not a violation.
    let (finished, json) = check(&rule("expect.securebits = 'noroot'\nexpect.landlock = true"));
    assert_eq!(finished.status.code(), Some(0), "{}", finished.stdout);
    assert!(finished.stdout.contains("not checked: the kernel does not show the securebits"));
    assert_eq!(json["processes"][0]["failures"][0]["checked"], false);
    // A required process is missing.
    let absent = "[[rule]]\ntitle = 'needed'\nrequired = true\nmatch.name = '^no such name$'\n";
    let (finished, json) = check(absent);
    assert_eq!(finished.status.code(), Some(1), "{}", finished.stdout);
    assert_eq!(json["missing"], json!(["needed"]));
    // The rule selects by a user and by the absence of a container.
    let own = format!("match.user = {}\nexpect.nnp = true", nix::unistd::geteuid());
    assert_eq!(check(&rule(&own)).0.status.code(), Some(0));
    let contained = "match.container = true\nexpect.nnp = false";
    let within = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    if !within.contains("docker") && !within.contains("libpod") && !within.contains("kube") {
        assert_eq!(check(&rule(contained)).0.status.code(), Some(0));
    }
    // If the policy is invalid, psx reads no process.
    let (finished, _) = check(&rule("expect.nnpp = true"));
    assert_eq!((finished.status.code(), &*finished.stdout), (Some(2), ""));
    assert!(
        finished.stderr.contains(":4: unknown key \"nnpp\": did you mean nnp?"),
        "{}",
        finished.stderr
    );
    let finished = finish(psx(&["audit", "--policy", "/nonexistent"]));
    assert_eq!(finished.status.code(), Some(2));
}

#[test]
fn a_saved_state_is_compared_across_restarts() {
    let start = |change: fn()| {
        Subject::new(move |stage| {
            thread(|| {});
            name(b"deployed");
            thread(change);
            stage.ready(&[]);
        })
    };
    let saved = Scratch::new("");
    let select = ["audit", "--name", "^deployed$"];
    let before = start(|| {});
    let finished = finish(psx(&[&select[..], &["--quiet", "--save", saved.path()]].concat()));
    assert_eq!(finished.status.code(), Some(0), "{}", finished.stderr);
    let diff = || finish(psx(&[&select[..], &["--diff", saved.path()]].concat()));
    assert_eq!(diff().status.code(), Some(0), "{}", diff().stdout);
    drop(before);
    let same = start(|| {});
    let finished = diff();
    assert_eq!(finished.status.code(), Some(0), "{}", finished.stdout);
    assert!(finished.stdout.contains("nothing changed"), "{}", finished.stdout);
    drop(same);
    let other = start(|| prctl(libc::PR_SET_NO_NEW_PRIVS, 1));
    let finished = diff();
    assert_eq!(finished.status.code(), Some(1), "{}", finished.stdout);
    assert!(finished.stdout.contains("no_new_privs: false -> true"), "{}", finished.stdout);
    let json = finish(psx(&[&select[..], &["--json", "--diff", saved.path()]].concat())).stdout;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["changes"][0]["kind"], "changed", "{json}");
    drop(other);
    // The output of --json is a saved state too. Another file is refused.
    for text in ["", "[]", "{\"schema\": 99}"] {
        let file = Scratch::new(text);
        let finished = finish(psx(&["audit", "--all", "--diff", file.path()]));
        assert_eq!((finished.status.code(), &*finished.stdout), (Some(2), ""), "{text}");
    }
}

#[test]
fn the_formats_for_machines_are_well_formed() {
    let subject = Subject::new(|stage| {
        let tids = [thread(|| {
            name(b"a\"b\\c\n");
            prctl(libc::PR_SET_NO_NEW_PRIVS, 1);
        })];
        stage.ready(&tids);
    });
    let ecs = audit(&["--format", "ecs"], subject.pid).stdout;
    let lines: Vec<Value> = ecs.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2, "{ecs}");
    let thread = &lines[1]["process"]["thread"];
    assert_eq!(thread["id"], subject.tids[0]);
    let sets = thread["capabilities"]["effective"].as_array().unwrap();
    assert!(sets.iter().all(|one| one.as_str().unwrap().starts_with("CAP_")), "{ecs}");
    if is_root("capabilities to list") {
        assert!(sets.contains(&"CAP_CHOWN".into()), "{ecs}");
    }
    assert_eq!(lines[1]["psx"]["differs"], json!(["nnp"]));
    let metrics = audit(&["--format", "prometheus"], subject.pid).stdout;
    assert!(metrics.contains("\npsx_audit_divergent_processes 1\n"), "{metrics}");
    assert!(metrics.contains("\npsx_audit_divergent_fields{field=\"nnp\"} 1\n"), "{metrics}");
    for line in metrics.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(value.parse::<u64>().is_ok() && name.starts_with("psx_audit_"), "{line}");
    }
    let promtool = Command::new("promtool").arg("--version").stdout(Stdio::null()).status();
    if promtool.is_err() {
        skipped("promtool is not installed");
    }
    // One line for each look.
    let args = ["audit", "--json", "--watch", "0.01", "--times", "3", &subject.pid.to_string()];
    let looks = finish(psx(&args)).stdout;
    assert_eq!(looks.lines().count(), 3, "{looks}");
    assert!(looks.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()));
}

#[test]
fn the_page_stands_alone_and_escapes_names() {
    let subject = Subject::new(|stage| {
        let tids = [thread(|| {
            name(b"<b>&'\"@ROWS@");
            prctl(libc::PR_SET_NO_NEW_PRIVS, 1);
        })];
        name(b"</td><script>");
        stage.ready(&tids);
    });
    let page = Scratch::new("old");
    let finished = audit(&["--quiet", "--html", page.path()], subject.pid);
    assert_eq!(finished.status.code(), Some(1), "{}", finished.stderr);
    let text = std::fs::read_to_string(page.path()).unwrap();
    assert!(text.starts_with("<!DOCTYPE html>") && text.trim_end().ends_with("</html>"));
    assert_eq!(text.matches("<script>").count(), 1);
    assert!(text.contains("&lt;/td&gt;&lt;script&gt;"));
    assert!(text.contains("&lt;b&gt;&amp;&#39;&quot;&#64;ROWS&#64;"));
    for loading in ["src=", "href=", "url(", "@import", "http:", "https:", "fetch("] {
        assert!(!text.contains(loading), "{loading}");
    }
}

/// Opens the page in a browser: a click sorts, and the search hides rows.
#[test]
fn the_page_sorts_and_searches_in_a_browser() {
    let browser = ["chromium", "chromium-browser", "google-chrome"].into_iter().find(|name| {
        let mut command = Command::new(name);
        command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    });
    let Some(browser) = browser else {
        skipped("chromium is not installed");
        return;
    };
    let subjects = [("page-few", 1), ("page-many", 5)].map(|(called, threads)| {
        Subject::new(|stage| {
            for _ in 0..threads {
                thread(|| {});
            }
            name(called.as_bytes());
            stage.ready(&[]);
        })
    });
    let file = Scratch::new("");
    let args = ["audit", "--name", "^page-(few|many)$", "--quiet", "--html", file.path()];
    assert_eq!(finish(psx(&args)).status.code(), Some(0));
    let page = std::fs::read_to_string(file.path()).unwrap();
    // The fifth column is the number of threads. The second click sorts in descending order.
    let act = "<script>const button = document.querySelectorAll('th button')[4]; button.click(); button.click();
        search.value = 'PAGE-few'; search.dispatchEvent(new Event('input'));
        document.title = 'first ' + body.rows[0].cells[0].textContent + ', shown ' +
        rows.filter((row) => !row.hidden).map((row) => row.cells[0].textContent).join(' ');</script></body>";
    let acting = std::env::temp_dir().join(format!("psx-page-{}.html", std::process::id()));
    std::fs::write(&acting, page.replace("</body>", act)).unwrap();
    let mut command = Command::new(browser);
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]).arg(&acting);
    let finished = finish(command);
    std::fs::remove_file(&acting).unwrap();
    let wanted = format!("<title>first {}, shown {}</title>", subjects[1].pid, subjects[0].pid);
    assert!(finished.stdout.contains(&wanted), "{wanted}: {}", finished.stdout);
}

#[test]
fn without_a_selection_the_possible_arguments_are_named() {
    let finished = finish(psx(&["audit"]));
    assert_eq!((finished.status.code(), &*finished.stdout), (Some(2), ""));
    for argument in ["PID", "--all", "--name", "--user", "--unit", "--policy", "--diff", "--help"] {
        assert!(finished.stderr.contains(argument), "{argument}: {}", finished.stderr);
    }
}

/// Closes the pipe before psx has written everything, as head(1) does.
#[test]
fn a_closed_pipe_is_not_an_error() {
    let subject = Subject::new(|stage| {
        for _ in 0..2000 {
            thread(|| {});
        }
        stage.ready(&[]);
    });
    let mut command = psx(&["audit", "--json", &subject.pid.to_string()]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A unit file with this name, which is removed when the test ends.
struct UnitFile(PathBuf);

impl Drop for UnitFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn a_unit_is_checked_against_its_processes() {
    if !is_root("a process that drops privileges as a unit says") {
        return;
    }
    let subject = Subject::new(|stage| {
        prctl(libc::PR_SET_NO_NEW_PRIVS, 1);
        become_user(NOBODY as usize);
        stage.ready(&[]);
    });
    let name = format!("psx-test-{}.service", subject.pid);
    let file = UnitFile(std::env::temp_dir().join(&name));
    let path = file.0.to_str().unwrap();
    let check = |text: &str, args: &[&str]| {
        std::fs::write(&file.0, text).unwrap();
        finish(psx(&[&["audit", "--unit", path], args].concat()))
    };
    let pid = subject.pid.to_string();
    let start = "[Service]\nExecStart=/bin/true\n";
    let holds = format!("{start}User=nobody\nGroup=root\nNoNewPrivileges=yes\n");
    let finished = check(&holds, &[&pid]);
    assert_eq!(finished.status.code(), Some(0), "{}{}", finished.stdout, finished.stderr);
    let fails = format!("{start}User=nobody\nNoNewPrivileges=yes\nPrivateTmp=yes\nUMask=0007\n");
    let finished = check(&fails, &[&pid]);
    assert_eq!(finished.status.code(), Some(1), "{}", finished.stdout);
    for part in [
        format!("error: {name}: expected User= (gid=65534): thread {pid} (subject) has root (0)"),
        format!("error: {name}: expected PrivateTmp= (namespaces>=mnt): "),
        format!("warning: {name}: expected UMask= (umask=0007): "),
    ] {
        assert!(finished.stdout.contains(&part), "{part}: {}", finished.stdout);
    }
    // psx reports the directives that it cannot check.
    let hidden = format!("{holds}SecureBits=noroot\nKeyringMode=private\n");
    let finished = check(&hidden, &[&pid]);
    assert_eq!(finished.status.code(), Some(0), "{}", finished.stdout);
    assert!(finished.stdout.contains("not checked: the kernel does not show the securebits"));
    // Without a selection: the processes of the unit, by their control group.
    let nothing = check(&holds, &[]);
    assert_eq!(nothing.status.code(), Some(2), "{}", nothing.stdout);
    assert!(nothing.stderr.contains("no process of the unit"), "{}", nothing.stderr);
    let bad = check("[Service]\nUsr=nobody\n", &[]);
    assert_eq!(bad.status.code(), Some(2), "{}", bad.stdout);
    assert!(bad.stderr.contains("Usr"), "{}", bad.stderr);
    let hierarchies = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup"];
    let hierarchies = hierarchies.map(std::path::Path::new);
    let made = hierarchies.into_iter().find(|path| path.join("cgroup.procs").exists());
    let group = made.map(|hierarchy| hierarchy.join(&name)).unwrap_or_default();
    if std::fs::create_dir(&group).is_err() {
        skipped("control groups cannot be made here");
        return;
    }
    let moved = std::fs::write(group.join("cgroup.procs"), &pid);
    let finished = check(&holds, &["--json"]);
    drop(subject);
    // The group can be removed when the process is gone.
    let gone = std::fs::remove_dir(&group);
    if moved.is_err() {
        skipped("processes cannot be moved between control groups here");
        return;
    }
    let report: Value = serde_json::from_str(&finished.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}{gone:?}", finished.stderr));
    assert_eq!(finished.status.code(), Some(0), "{report}");
    let processes = report["processes"].as_array().unwrap();
    assert_eq!(processes.len(), 1, "{report}");
    assert_eq!((&processes[0]["unit"], &processes[0]["pid"].to_string()), (&name.into(), &pid));
}

//! What is read from files and written for programs: policies, units, saved states, and the formats.

use std::io::Write;

use super::*;

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

/// What differs before and after is no change, and is a finding nevertheless.
#[test]
fn a_difference_is_no_less_a_finding_because_it_was_saved() {
    let subject = Subject::new(|stage| {
        name(b"differing");
        stage.ready(&[thread(|| prctl(libc::PR_SET_NO_NEW_PRIVS, 1))]);
    });
    let saved = Scratch::new("");
    let select = ["audit", "--name", "^differing$"];
    let finished = finish(psx(&[&select[..], &["--quiet", "--save", saved.path()]].concat()));
    assert_eq!(finished.status.code(), Some(1), "{}", finished.stderr);
    let finished = finish(psx(&[&select[..], &["--diff", saved.path()]].concat()));
    assert_eq!(finished.status.code(), Some(1), "{}", finished.stdout);
    assert!(finished.stdout.contains("nothing changed"), "{}", finished.stdout);
    let line = format!("{} (differing): its threads differ: nnp\n", subject.pid);
    assert!(finished.stdout.contains(&line), "{}", finished.stdout);
    let json = finish(psx(&[&select[..], &["--json", "--diff", saved.path()]].concat())).stdout;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["changes"], &json["consistent"]), (&json!([]), &false.into()), "{json}");
}

#[test]
fn a_kernel_worker_that_keeps_root_is_a_change() {
    if !is_root("dropping root") {
        return;
    }
    let start = |ring: bool| {
        Subject::new(move |stage| {
            name(b"ringing");
            let made = !ring || support::sqpoll();
            become_user(NOBODY as usize);
            stage.ready(&[i32::from(made)]);
        })
    };
    let saved = Scratch::new("");
    let select = ["audit", "--name", "^ringing$"];
    let before = start(false);
    let finished = finish(psx(&[&select[..], &["--quiet", "--save", saved.path()]].concat()));
    assert_eq!(finished.status.code(), Some(0), "{}", finished.stderr);
    drop(before);
    let after = start(true);
    if after.tids == [0] {
        return skipped("io_uring is not available");
    }
    let finished = finish(psx(&[&select[..], &["--diff", saved.path()]].concat()));
    assert_eq!(finished.status.code(), Some(1), "{}", finished.stdout);
    for part in ["kernel worker: - -> sqpoll", "keeps: - -> uid caps", "keeps what no thread has"] {
        assert!(finished.stdout.contains(part), "{part}: {}", finished.stdout);
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
    check_by_promtool(&metrics);
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
    // The browser's own folder may be in use by another one, or not exist.
    let profile = acting.with_extension("profile");
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]);
    command.arg(format!("--user-data-dir={}", profile.display())).arg(&acting);
    let finished = finish(command);
    std::fs::remove_file(&acting).unwrap();
    let _ = std::fs::remove_dir_all(&profile);
    let wanted = format!("<title>first {}, shown {}</title>", subjects[1].pid, subjects[0].pid);
    assert!(finished.stdout.contains(&wanted), "{wanted}: {}", finished.stdout);
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
    let Some(groups) = ControlGroups::new(&[(&*name, subject.pid)]) else { return };
    let finished = check(&holds, &["--json"]);
    let report: Value = serde_json::from_str(&finished.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", finished.stderr));
    assert_eq!(finished.status.code(), Some(0), "{report}");
    let processes = report["processes"].as_array().unwrap();
    assert_eq!(processes.len(), 1, "{report}");
    assert_eq!((&processes[0]["unit"], &processes[0]["pid"].to_string()), (&name.into(), &pid));
    drop((subject, groups));
}

/// Control groups that are removed when the test ends, the innermost first.
struct ControlGroups(Vec<PathBuf>);

impl ControlGroups {
    /// Makes the groups with these paths, and moves a process into each. Returns None and prints a note if that is not
    /// possible.
    fn new(groups: &[(&str, i32)]) -> Option<Self> {
        let hierarchies = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup"];
        let hierarchies = hierarchies.map(std::path::Path::new);
        let hierarchy = hierarchies.into_iter().find(|path| path.join("cgroup.procs").exists());
        let mut made = Self(Vec::new());
        for (path, pid) in groups {
            let group = hierarchy.map(|hierarchy| hierarchy.join(path)).unwrap_or_default();
            if std::fs::create_dir(&group).is_err() {
                skipped("control groups cannot be made here");
                return None;
            }
            made.0.push(group.clone());
            if std::fs::write(group.join("cgroup.procs"), pid.to_string()).is_err() {
                skipped("processes cannot be moved between control groups here");
                return None;
            }
        }
        Some(made)
    }
}

impl Drop for ControlGroups {
    fn drop(&mut self) {
        // The processes go back, so that the groups can be removed.
        for group in self.0.iter().rev() {
            let procs = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
            for pid in procs.lines() {
                let root = self.0[0].parent().unwrap().join("cgroup.procs");
                let _ = std::fs::write(root, pid);
            }
            let _ = std::fs::remove_dir(group);
        }
    }
}

/// A zombie has no state that could be compared with the unit.
#[test]
fn a_unit_with_zombies_only_is_not_checked() {
    let mut subject = Subject::new(|stage| {
        stage.ready(&[]);
        stage.wait();
        // SAFETY: it ends the process; its parent does not wait for it.
        unsafe { libc::_exit(0) }
    });
    let unit = format!("psx-test-{}.service", subject.pid);
    let groups = is_root("control groups").then(|| ControlGroups::new(&[(&unit, subject.pid)]));
    let file = UnitFile(std::env::temp_dir().join(&unit));
    std::fs::write(&file.0, "[Service]\nExecStart=/bin/true\nNoNewPrivileges=yes\n").unwrap();
    subject.end();
    let (path, pid) = (file.0.to_str().unwrap(), subject.pid.to_string());
    let searched = (vec!["--unit", path], format!("no process of the unit {unit} runs"));
    let named = (vec!["--unit", path, &pid], "no thread of the named processes runs".to_owned());
    let searched = groups.flatten().map(|groups| (groups, searched));
    let (_groups, searched) = searched.unzip();
    for (args, why) in searched.into_iter().chain([named]) {
        let finished = finish(psx(&[&["audit"], &args[..]].concat()));
        assert_eq!(finished.status.code(), Some(2), "{args:?}: {}", finished.stdout);
        assert!(finished.stderr.contains(&why), "{args:?}: {}", finished.stderr);
        assert!(finished.stderr.contains("nothing was checked"), "{}", finished.stderr);
    }
}

#[test]
fn a_name_that_only_zombies_have_is_not_checked() {
    let mut subject = Subject::new(|stage| {
        name(b"psx-ended");
        stage.ready(&[]);
        stage.wait();
        // SAFETY: it ends the process; its parent does not wait for it.
        unsafe { libc::_exit(0) }
    });
    let args = ["audit", "--name", "^psx-ended$"];
    assert_eq!(finish(psx(&args)).status.code(), Some(0));
    subject.end();
    let finished = finish(psx(&args));
    assert_eq!(finished.status.code(), Some(2), "{}", finished.stdout);
    let why = "only zombies match --name ^psx-ended$; nothing was checked";
    assert!(finished.stderr.contains(why), "{}", finished.stderr);
}

/// A process in a scope below the unit belongs to the unit. The name of the unit has an escape.
#[test]
fn a_unit_has_the_processes_of_the_groups_below_it() {
    if !is_root("control groups") {
        return;
    }
    let dropped = Subject::new(|stage| {
        become_user(NOBODY as usize);
        stage.ready(&[]);
    });
    let root = Subject::new(|stage| stage.ready(&[]));
    let unit = format!(r"psx\x2dtest-{}.service", dropped.pid);
    let payload = format!("{unit}/payload.scope");
    let groups = [(&*unit, dropped.pid), (&payload, root.pid)];
    let Some(_groups) = ControlGroups::new(&groups) else { return };
    let file = UnitFile(std::env::temp_dir().join(&unit));
    std::fs::write(&file.0, "[Service]\nExecStart=/bin/true\nUser=nobody\n").unwrap();
    let pids = |args: &[&str], status: i32| -> Vec<i64> {
        let finished = finish(psx(&[&["audit", "--json"], args].concat()));
        assert_eq!(finished.status.code(), Some(status), "{}{}", finished.stdout, finished.stderr);
        let report: Value = serde_json::from_str(&finished.stdout).unwrap();
        let processes = report["processes"].as_array().unwrap();
        processes.iter().map(|process| process["pid"].as_i64().unwrap()).collect()
    };
    let mut both = [i64::from(dropped.pid), i64::from(root.pid)];
    both.sort_unstable();
    assert_eq!(pids(&["--unit", file.0.to_str().unwrap()], 1), both);
    let unescaped = unit.replace(r"\x2d", "-");
    for name in [&unit, &unescaped] {
        let rule = format!("[[rule]]\nmatch.unit = '{name}'\nexpect.uid = 'nobody'\n");
        assert_eq!(pids(&["--policy", Scratch::new(&rule).path()], 1), both, "{rule}");
    }
    let rule = "[[rule]]\nmatch.unit = 'payload.scope'\nexpect.uid = 'root'\n";
    assert_eq!(pids(&["--policy", Scratch::new(rule).path()], 0), [i64::from(root.pid)]);
}

/// Compares the text with the rules of Prometheus's own tool.
fn check_by_promtool(metrics: &str) {
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "metrics"]).stdin(Stdio::piped());
    let Ok(mut child) = promtool.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn() else {
        return skipped("promtool (Debian package prometheus) is not installed");
    };
    child.stdin.take().unwrap().write_all(metrics.as_bytes()).unwrap();
    let found = child.wait_with_output().unwrap();
    let said = [found.stdout, found.stderr].concat();
    assert!(found.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
}

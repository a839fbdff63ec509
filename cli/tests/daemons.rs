//! `psx audit` on those daemons from Debian's packages that are installed.

#![allow(missing_docs, unsafe_code)]

mod support;

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{NOBODY, finish, is_root, limit, psx};

/// A daemon in a process group of its own, and a directory. Both are removed when the test ends.
struct Daemon {
    child: Child,
    directory: PathBuf,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // SAFETY: the group was made for this child, which no thread has waited for.
        unsafe { libc::kill(-(self.child.id() as i32), libc::SIGKILL) };
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn installed(program: &str) -> bool {
    let there = Path::new(program).exists();
    if !there {
        support::skipped(format!("{program} is not installed"));
    }
    there
}

fn directory(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("psx-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&path).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).unwrap();
    path
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn start(mut command: Command, directory: PathBuf) -> Daemon {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    Daemon { child: command.spawn().unwrap(), directory }
}

/// Runs each view, format and check of the audit on these processes. None of them may fail.
fn every_option(pids: &[&str], place: &Path) {
    let file = |name: &str| place.join(name).to_str().unwrap().to_owned();
    let (saved, page, policy) = (file("saved.json"), file("page.html"), file("policy.toml"));
    let name = std::fs::read_to_string(format!("/proc/{}/comm", pids[0])).unwrap();
    let select = format!("[[rule]]\nmatch.name = '^{}$'\n", name.trim());
    std::fs::write(&policy, select + "expect.verdict.at-most = 'privileged'\n").unwrap();
    let all = "affinity,mems,nice,ioprio,timer-slack";
    let options: [&[&str]; 16] = [
        &[],
        &["--long"],
        &["--tree"],
        &["--threads", "--explain"],
        &["--sort", "verdict"],
        &["--only", "divergent,privileged"],
        &["--expect", "consistent=1,verdict<=privileged"],
        &["--compare", all],
        &["--json"],
        &["--format", "ecs"],
        &["--format", "prometheus"],
        &["--html", &page],
        &["--save", &saved, "--quiet"],
        &["--diff", &saved],
        &["--policy", &policy],
        &["--watch", "0.01", "--times", "2"],
    ];
    for option in options {
        let finished = finish(psx(&[&["audit"], option, pids].concat()));
        let code = finished.status.code();
        // Threads may differ in fields that are not compared by default.
        let possible = if option.contains(&"--compare") || option.contains(&"--expect") {
            0..=1
        } else {
            0..=0
        };
        assert!(
            possible.contains(&code.unwrap()),
            "{option:?}: {}{}",
            finished.stdout,
            finished.stderr
        );
        assert_eq!(finished.stderr, "", "{option:?}");
        if ["--long", "--tree", "--sort"].iter().any(|one| option.contains(one)) {
            let table = finished.stdout.lines().filter(|line| !line.starts_with(pids[0]));
            for line in table.take_while(|line| !line.starts_with("not seen")) {
                assert!(
                    line.chars().count() <= 80 || line.contains("process"),
                    "{option:?}: {line}"
                );
            }
        }
    }
    assert!(std::fs::read_to_string(&page).unwrap().contains(pids[0]));
}

/// Returns psx's exit status and report on these processes, as soon as the condition holds.
fn audit_until(args: &[&str], settled: impl Fn(&Value) -> bool) -> (Option<i32>, Value) {
    let deadline = Instant::now() + limit();
    loop {
        let finished = finish(psx(&[&["audit", "--json"], args].concat()));
        if let Ok(report) = serde_json::from_str(&finished.stdout) {
            if settled(&report) {
                return (finished.status.code(), report);
            }
            assert!(Instant::now() < deadline, "not settled: {report}");
        }
        assert!(Instant::now() < deadline, "not there: {}", finished.stderr);
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn effective(process: &Value) -> &Value {
    &process["groups"][0]["state"]["uid"]["effective"]["id"]
}

#[test]
fn nginx_keeps_a_root_master_and_drops_its_workers() {
    if !installed("/usr/sbin/nginx") || !is_root("nginx with workers of another user") {
        return;
    }
    let place = directory("nginx");
    let at = place.display();
    let text = format!(
        "daemon off; pid {at}/pid; error_log {at}/error; worker_processes 2; user nobody nogroup;\n\
         events {{ worker_connections 16; }}\n\
         http {{ access_log off; client_body_temp_path {at}/b; proxy_temp_path {at}/p;\n\
         fastcgi_temp_path {at}/f; uwsgi_temp_path {at}/u; scgi_temp_path {at}/s;\n\
         server {{ listen unix:{at}/socket; }} }}"
    );
    std::fs::write(place.join("nginx.conf"), text).unwrap();
    let mut command = Command::new("/usr/sbin/nginx");
    command.arg("-c").arg(place.join("nginx.conf")).arg("-p").arg(&place);
    let mut daemon = start(command, place);
    let master = daemon.child.id().to_string();
    let children = || {
        std::fs::read_to_string(format!("/proc/{master}/task/{master}/children"))
            .unwrap_or_default()
    };
    let deadline = Instant::now() + limit();
    let workers = loop {
        let pids = children();
        if pids.split_whitespace().count() == 2 {
            break pids;
        }
        let ended = daemon.child.try_wait().unwrap();
        assert!(ended.is_none() && Instant::now() < deadline, "no workers: {ended:?}, {pids}");
        std::thread::sleep(Duration::from_millis(5));
    };
    let mut all = vec![master.as_str()];
    all.extend(workers.split_whitespace());
    let dropped = |report: &Value| {
        let processes = report["processes"].as_array().unwrap();
        processes.iter().filter(|one| effective(one) == NOBODY).count() == 2
    };
    let (code, report) = audit_until(&all, dropped);
    // Each process is consistent. The master and the workers differ by design.
    assert_eq!(code, Some(0), "{report}");
    let expect = ["audit", "--quiet", "--expect", "uid=nobody,gid=nogroup,caps=none"];
    let workers = finish(psx(&[&expect, &all[1..]].concat()));
    assert_eq!(workers.status.code(), Some(0), "{}", workers.stderr);
    assert_eq!(finish(psx(&[&expect, &all[..1]].concat())).status.code(), Some(1));
    let verdicts: Vec<_> =
        report["processes"].as_array().unwrap().iter().map(|one| &one["verdict"]).collect();
    assert_eq!(verdicts, ["privileged", "unprivileged", "unprivileged"], "{report}");
    every_option(&all, &daemon.directory);
    let tree = finish(psx(&["audit", "--name", "^nginx$", "--tree"])).stdout;
    assert!(tree.contains("   nginx: worker process"), "{tree}");
}

#[test]
fn memcached_drops_root_in_all_its_threads() {
    if !installed("/usr/bin/memcached") || !is_root("memcached that changes its user") {
        return;
    }
    let place = directory("memcached");
    let mut command = Command::new("/usr/bin/memcached");
    command.args(["-u", "nobody", "-t", "4", "-s"]).arg(place.join("socket"));
    let daemon = start(command, place);
    let pid = daemon.child.id().to_string();
    let running = |report: &Value| {
        report["processes"][0]["threads"].as_u64() > Some(4)
            && effective(&report["processes"][0]) == NOBODY
    };
    let (code, report) = audit_until(&[&pid], running);
    assert_eq!(code, Some(0), "{report}");
    let checked = finish(psx(&["audit", "--expect", "uid=nobody,caps=none", &pid]));
    assert_eq!(checked.status.code(), Some(0), "{}", checked.stdout);
    assert_eq!(report["processes"][0]["verdict"], "unprivileged", "{report}");
    every_option(&[&pid], &daemon.directory);
}

#[test]
fn redis_has_its_user_in_all_threads() {
    let program = "/usr/bin/redis-server";
    if !installed(program) || !is_root("redis as a user of its own") {
        return;
    }
    let place = directory("redis");
    let mut command = Command::new(program);
    command.args(["--port", "0", "--save", "", "--dir"]).arg(&place);
    command.arg("--unixsocket").arg(place.join("socket")).uid(NOBODY).gid(NOBODY);
    let daemon = start(command, place);
    let pid = daemon.child.id().to_string();
    let running = |report: &Value| report["processes"][0]["threads"].as_u64() > Some(3);
    let (code, report) = audit_until(&[&pid], running);
    assert_eq!(code, Some(0), "{report}");
    assert_eq!(report["processes"][0]["verdict"], "unprivileged", "{report}");
    every_option(&[&pid], &daemon.directory);
}

#[test]
fn named_keeps_few_capabilities_in_all_its_threads() {
    let program = "/usr/sbin/named";
    if !installed(program) || !is_root("named that changes its user") {
        return;
    }
    let (place, port) = (directory("named"), free_port());
    let at = place.display();
    let text = format!(
        "options {{ directory \"{at}\"; pid-file \"{at}/pid\"; session-keyfile \"{at}/key\";\n\
         listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }}; recursion no;\n\
         managed-keys-directory \"{at}\"; }};\ncontrols {{ }};\n"
    );
    std::fs::write(place.join("named.conf"), text).unwrap();
    let mut command = Command::new(program);
    command.args(["-f", "-u", "bind", "-c"]).arg(place.join("named.conf"));
    let daemon = start(command, place);
    let pid = daemon.child.id().to_string();
    let dropped = |report: &Value| {
        let process = &report["processes"][0];
        process["threads"].as_u64() > Some(3) && effective(process) != 0
    };
    let (code, report) = audit_until(&[&pid], dropped);
    assert_eq!(code, Some(0), "{report}");
    // It keeps the capabilities that it needs to bind ports and raise limits.
    assert_eq!(report["processes"][0]["verdict"], "reduced", "{report}");
    every_option(&[&pid], &daemon.directory);
}

#[test]
fn chronyd_keeps_few_capabilities() {
    let program = "/usr/sbin/chronyd";
    if !installed(program) || !is_root("chronyd that changes its user") {
        return;
    }
    let (place, port) = (directory("chronyd"), free_port());
    let at = place.display();
    // It serves the time, if only to this machine: with nothing to do it would end by itself.
    let text = format!(
        "port {port}\nbindaddress 127.0.0.1\nallow 127.0.0.1\ncmdport 0\nbindcmdaddress /\n\
         pidfile {at}/pid\nuser _chrony\n"
    );
    std::fs::write(place.join("chrony.conf"), text).unwrap();
    let mut command = Command::new(program);
    // With -x, chronyd does not change the clock.
    command.args(["-d", "-x", "-f"]).arg(place.join("chrony.conf"));
    let daemon = start(command, place);
    let pid = daemon.child.id().to_string();
    // It changes its user first, and drops the capabilities that it does not need a moment later.
    let (code, report) = audit_until(&[&pid], |report| {
        let process = &report["processes"][0];
        effective(process).as_u64().is_some_and(|id| id != 0) && process["verdict"] != "privileged"
    });
    assert_eq!(code, Some(0), "{report}");
    every_option(&[&pid], &daemon.directory);
}

/// Audits the JVM of keytool, which stays because keytool waits for a password.
#[test]
fn a_jvm_is_consistent() {
    let program = "/usr/bin/keytool";
    if !installed(program) {
        return;
    }
    let place = directory("jvm");
    let mut command = Command::new(program);
    command.args(["-genkeypair", "-alias", "a", "-dname", "CN=a", "-keyalg", "EC", "-keystore"]);
    command.arg(place.join("store")).process_group(0);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let daemon = Daemon { child: command.spawn().unwrap(), directory: place };
    let pid = daemon.child.id().to_string();
    let (code, report) =
        audit_until(&[&pid], |report| report["processes"][0]["threads"].as_u64() > Some(8));
    assert_eq!(code, Some(0), "{report}");
    every_option(&[&pid], &daemon.directory);
}

#[test]
fn postgres_has_its_user_in_all_processes() {
    let Some(bin) = std::fs::read_dir("/usr/lib/postgresql")
        .ok()
        .and_then(|versions| Some(versions.flatten().next()?.path().join("bin")))
    else {
        support::skipped("PostgreSQL is not installed");
        return;
    };
    if !is_root("PostgreSQL as a user of its own") {
        return;
    }
    let place = directory("postgres");
    let data = place.join("data");
    let mut init = Command::new(bin.join("initdb"));
    init.args(["-N", "-A", "trust", "-D"]).arg(&data).uid(NOBODY).gid(NOBODY);
    init.env("HOME", &place).current_dir(&place);
    let made = finish(init);
    assert!(made.status.success(), "{}{}", made.stdout, made.stderr);
    let mut command = Command::new(bin.join("postgres"));
    command.arg("-D").arg(&data).args(["-c", "listen_addresses=", "-k"]).arg(&place);
    command.uid(NOBODY).gid(NOBODY).current_dir(&place);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    let daemon = Daemon { child, directory: place };
    assert!(
        log.by_ref().flatten().any(|line| line.contains("ready to accept connections")),
        "PostgreSQL did not start"
    );
    let pid = daemon.child.id();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let pid = pid.to_string();
    let mut all = vec!["audit", "--expect", "uid=nobody,caps=none", &pid];
    all.extend(children.split_whitespace());
    assert!(all.len() > 6, "{children}");
    let finished = finish(psx(&all));
    assert_eq!(finished.status.code(), Some(0), "{}{}", finished.stdout, finished.stderr);
    every_option(&[&pid], &daemon.directory);
}

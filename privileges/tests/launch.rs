//! `Launch::check`: what it finds, and what it does not take for the program.
#![allow(unsafe_code)]

#[path = "../../tests/support/mod.rs"]
mod support;

use std::process::{Child, Command};
use std::time::Duration;

use privileges::{Iab, Launch, Privileges, SchedAttr, SchedPolicy};
use support::{filter, forked, isolated_as_root, proc, unshared};

const WATCHDOG: Duration = Duration::from_secs(60);

/// A child that does not outlive its test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn sleep() -> Command {
    let mut command = Command::new("sleep");
    command.arg("600");
    command
}

fn as_root() -> Privileges {
    Privileges::new().stay_root().keep_groups().no_new_privs()
}

/// Returns what differs in a process.
fn wrong(launch: &Launch, child: &Killed) -> Vec<String> {
    launch.check(child.0.id()).unwrap().into_iter().map(|one| one.what).collect()
}

#[test]
fn an_inherited_filter_is_not_taken_for_that_of_the_plan() {
    isolated_as_root("an_inherited_filter_is_not_taken_for_that_of_the_plan", WATCHDOG, || {
        filter(libc::SYS_acct, libc::SECCOMP_RET_ERRNO);
        support::no_new_privs().unwrap();
        // SAFETY: gettid touches no memory.
        if !proc::status(unsafe { libc::gettid() }).contains_key("Seccomp_filters") {
            support::skipped("the kernel does not show the number of filters");
            return;
        }
        let allow =
            vec![privileges::Instruction { code: 0x06, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW }];
        let launch = as_root().seccomp_program(allow).plan_launch().unwrap();
        assert_eq!(wrong(&launch, &Killed(launch.spawn(sleep()).unwrap())), [""; 0]);
        // This one has the inherited filter only.
        let without = Killed(sleep().spawn().unwrap());
        assert_eq!(wrong(&launch, &without), ["Seccomp_filters"]);
    });
}

/// musl's functions for the scheduling policy always fail.
#[test]
fn the_scheduling_is_found() {
    isolated_as_root("the_scheduling_is_found", WATCHDOG, || {
        let policy = SchedAttr::new(SchedPolicy::RoundRobin(7));
        let launch = as_root().scheduling(policy).plan_launch().unwrap();
        assert_eq!(wrong(&launch, &Killed(launch.spawn(sleep()).unwrap())), [""; 0]);
        let without = as_root().plan_launch().unwrap();
        let without = Killed(without.spawn(sleep()).unwrap());
        assert_eq!(wrong(&launch, &without), ["scheduling policy", "priority"]);
    });
}

/// In a PID namespace with the /proc of another one, a number in /proc is that of another process.
#[test]
fn a_process_is_not_looked_for_in_the_proc_of_another_namespace() {
    isolated_as_root(
        "a_process_is_not_looked_for_in_the_proc_of_another_namespace",
        WATCHDOG,
        || {
            if !unshared(libc::CLONE_NEWPID) {
                return;
            }
            forked(|| {
                assert_eq!(std::process::id(), 1);
                let launch = as_root().plan_launch().unwrap();
                let refused = launch.check(1).unwrap_err().to_string();
                assert!(refused.contains("PID namespace; mount a /proc"), "{refused}");
                let refused = Iab::of_pid(1).unwrap_err().to_string();
                assert!(refused.contains("PID namespace; mount a /proc"), "{refused}");
            });
        },
    );
}

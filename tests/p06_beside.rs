//! Calls beside what a process may be doing meanwhile, of its own or by its C library.
#![allow(unsafe_code)]

mod support;

use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use support::{LONG, add_filter, all_have_filters, isolated, no_new_privs, set_slack, sleepers};

const WATCHDOG: Duration = Duration::from_secs(60);

static STOP: AtomicBool = AtomicBool::new(false);
static DONE: AtomicUsize = AtomicUsize::new(0);

/// So many calls while two threads do `what` over and over.
fn beside(calls: usize, what: fn()) {
    no_new_privs().unwrap();
    sleepers(2);
    let doers: Vec<_> = (0..2)
        .map(|_| {
            std::thread::spawn(move || {
                while !STOP.load(Ordering::Relaxed) {
                    what();
                    DONE.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    while DONE.load(Ordering::Relaxed) < 10 {
        std::thread::yield_now();
    }
    let mut rounds = 0;
    for _ in 0..calls {
        rounds = rounds.max(add_filter(LONG).unwrap().attempts());
    }
    STOP.store(true, Ordering::Relaxed);
    doers.into_iter().for_each(|doer| doer.join().unwrap());
    println!("at most {rounds} rounds; done {} times", DONE.load(Ordering::Relaxed));
    all_have_filters(calls);
}

#[cfg(target_env = "gnu")]
#[test]
fn beside_threads_with_attributes_that_are_cancelled() {
    use std::mem::{MaybeUninit, transmute};
    type Body = extern "C" fn(*mut libc::c_void) -> *mut libc::c_void;
    isolated("beside_threads_with_attributes_that_are_cancelled", WATCHDOG, || {
        // Each takes several rounds; see the rounds test.
        beside(60, || {
            // SAFETY: a set of CPUs is plain data.
            let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
            // SAFETY: the set has room for CPU 0.
            unsafe { libc::CPU_SET(0, &mut set) };
            let mut attr = MaybeUninit::uninit();
            // SAFETY: this initialises it.
            unsafe { libc::pthread_attr_init(attr.as_mut_ptr()) };
            // SAFETY: initialised; the set is as long as said.
            unsafe {
                libc::pthread_attr_setaffinity_np(attr.as_mut_ptr(), size_of_val(&set), &set)
            };
            // No frame of Rust is in the way when the thread is unwound.
            let pause: unsafe extern "C" fn() -> i32 = libc::pause;
            // SAFETY: it takes no argument, and its result is not read.
            let body = unsafe { transmute::<unsafe extern "C" fn() -> i32, Body>(pause) };
            let null = std::ptr::null_mut();
            let mut thread = 0;
            // SAFETY: initialised.
            let made = unsafe { libc::pthread_create(&mut thread, attr.as_ptr(), body, null) };
            assert_eq!(made, 0);
            // SAFETY: not joined yet.
            assert_eq!(unsafe { libc::pthread_cancel(thread) }, 0);
            // SAFETY: joined once.
            assert_eq!(unsafe { libc::pthread_join(thread, std::ptr::null_mut()) }, 0);
            // SAFETY: initialised, and not used after.
            unsafe { libc::pthread_attr_destroy(attr.as_mut_ptr()) };
        });
    });
}

/// The C library's own broadcast, by the same signal.
#[test]
fn beside_setresuid_of_the_c_library() {
    isolated("beside_setresuid_of_the_c_library", WATCHDOG, || {
        beside(1000, || {
            // SAFETY: setresuid takes plain numbers; these change nothing.
            assert_eq!(unsafe { libc::setresuid(!0, !0, !0) }, 0);
        });
    });
}

#[test]
fn programs_started_meanwhile() {
    isolated("programs_started_meanwhile", WATCHDOG, || {
        /// The numbers of the descriptors that a new program finds open.
        fn descriptors() -> Vec<String> {
            let output = Command::new("/bin/ls").arg("/proc/self/fd").output().unwrap();
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
        }
        let before = descriptors();
        sleepers(3);
        let spawners = [(); 2].map(|()| {
            let before = before.clone();
            std::thread::spawn(move || {
                for _ in 0..150 {
                    assert_eq!(descriptors(), before);
                }
            })
        });
        let mut calls = 0;
        while !spawners.iter().all(std::thread::JoinHandle::is_finished) {
            calls += 1;
            set_slack(calls).unwrap();
        }
        println!("{calls} calls");
        spawners.into_iter().for_each(|spawner| spawner.join().unwrap());
    });
}

//! Attempts to leave the new root directory, or to look like a thread that is in it.

use super::*;

/// Starts a thread with a root directory of its own, whose filter pretends that it has the new one.
#[test]
fn a_thread_with_another_root_directory_is_detected() {
    isolated_as_root("roots::a_thread_with_another_root_directory_is_detected", WATCHDOG, || {
        let jail = jail();
        for calls in [&[libc::SYS_chroot][..], &[libc::SYS_chroot, libc::SYS_inotify_add_watch]] {
            support::forked(|| {
                let calls = calls.to_vec();
                prepared(move || {
                    // SAFETY: it takes a number.
                    assert_eq!(unsafe { libc::unshare(libc::CLONE_FS) }, 0);
                    pretend(&calls);
                });
                // The kernel does not answer whether the threads share their directories, as in a container.
                filter(libc::SYS_kcmp, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32);
                let wrong = not_dropped(nobody().chroot(&jail));
                let named = |what: &str| wrong.iter().any(|one| one.what.contains(what));
                assert!(named("root") && named("inotify_add_watch"), "{wrong:?}");
            });
        }
        // A thread with a root directory of its own is reported, and nothing changes. If the kernel does not answer,
        // the thread performs the calls too.
        prepared(|| {
            // SAFETY: it takes a number.
            assert_eq!(unsafe { libc::unshare(libc::CLONE_FS) }, 0);
        });
        let before = proc::field_in_every_thread("Uid");
        match nobody().chroot(&jail).plan().unwrap().apply() {
            Err(Error::DirectoriesNotShared { tid }) => assert!(proc::tids().contains(&tid)),
            other => panic!("{other:?}"),
        }
        assert_eq!(proc::field_in_every_thread("Uid"), before);
        filter(libc::SYS_kcmp, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32);
        let threads = proc::tids().len();
        let applied = nobody().chroot(&jail).plan().unwrap().apply().unwrap();
        assert_eq!((applied.threads, applied.verified), (threads, threads));
    });
}

/// Starts a thread with a descriptor table of its own, in which the plan's numbers are other directories, or closed.
#[test]
fn a_thread_with_other_descriptors_is_detected() {
    isolated_as_root("roots::a_thread_with_other_descriptors_is_detected", WATCHDOG, || {
        let jail = jail();
        for other in [true, false] {
            support::forked(|| {
                static PLANNED: AtomicBool = AtomicBool::new(false);
                prepared(move || {
                    // SAFETY: it takes a number.
                    assert_eq!(unsafe { libc::unshare(libc::CLONE_FILES) }, 0);
                    if other {
                        // SAFETY: a string.
                        let root = unsafe { libc::open(c"/".as_ptr(), libc::O_PATH) };
                        for number in (3..20).filter(|&number| number != root) {
                            // SAFETY: descriptors of this thread.
                            unsafe { libc::dup2(root, number) };
                        }
                    }
                    PLANNED.store(true, Ordering::SeqCst);
                });
                let before = proc::field_in_every_thread("Uid");
                match nobody().chroot(&jail).plan().unwrap().apply() {
                    Err(Error::DescriptorsNotShared { tid }) => {
                        assert!(proc::tids().contains(&tid))
                    }
                    other => panic!("{other:?}"),
                }
                assert_eq!(proc::field_in_every_thread("Uid"), before);
                // A plan without descriptors does not depend on the table.
                nobody().plan().unwrap().apply().unwrap();
            });
        }
    });
}

/// Forks children just after the stop: none of their descriptors leads out of the new root directory.
#[test]
fn no_child_leaves_the_new_root() {
    isolated_as_root("roots::no_child_leaves_the_new_root", WATCHDOG, || {
        static STOP: AtomicBool = AtomicBool::new(false);
        let counts = shared_words();
        let jail = jail();
        let forking = || {
            let counts = shared_words_at(counts.as_ptr().addr());
            while !STOP.load(Ordering::SeqCst) {
                // SAFETY: the child makes system calls only.
                let pid = unsafe { libc::fork() };
                if pid == 0 {
                    try_to_leave_the_root(counts);
                }
                // SAFETY: it takes numbers.
                unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(forking);
            scope.spawn(forking);
            sleepers(100);
            while counts[2].load(Ordering::SeqCst) < 10 {
                std::thread::yield_now();
            }
            let applied = nobody().chroot(&jail).plan().unwrap().apply().unwrap();
            assert_eq!(applied.verified, applied.threads);
            while counts[0].load(Ordering::SeqCst) < 20 {
                std::thread::yield_now();
            }
            STOP.store(true, Ordering::SeqCst);
        });
        let (children, out) = (counts[0].load(Ordering::SeqCst), counts[1].load(Ordering::SeqCst));
        println!("{children} children in the new state");
        assert_eq!(out, 0);
    });
}

fn shared_words() -> &'static [AtomicU32] {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
    // SAFETY: it makes a new mapping.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), 4096, protection, flags, -1, 0) };
    assert_ne!(at, libc::MAP_FAILED);
    shared_words_at(at.addr())
}

fn shared_words_at(at: usize) -> &'static [AtomicU32] {
    // SAFETY: it is the mapping from above, zeroed, and never given back.
    unsafe { std::slice::from_raw_parts(at as *const AtomicU32, 3) }
}

fn try_to_leave_the_root(counts: &[AtomicU32]) -> ! {
    counts[2].fetch_add(1, Ordering::SeqCst);
    // SAFETY: it touches no memory.
    if unsafe { libc::getuid() } == 65534 {
        for number in 3..64 {
            // SAFETY: it takes a number.
            if unsafe { libc::fchdir(number) } != 0 {
                continue;
            }
            let out =
                [c"../../../../../../etc/passwd", c"self/root/etc/passwd"].iter().any(|path| {
                    // SAFETY: the path is a string.
                    unsafe { libc::access(path.as_ptr(), libc::F_OK) == 0 }
                });
            counts[1].fetch_add(u32::from(out), Ordering::SeqCst);
        }
        counts[0].fetch_add(1, Ordering::SeqCst);
    }
    support::end(0)
}

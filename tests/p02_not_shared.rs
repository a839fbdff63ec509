//! P2: a call on a descriptor or a path is not made if it would act on something else in one of the threads.
#![allow(unsafe_code)]

mod support;

use std::fs::File;
use std::time::Duration;

use libpsx::process::{Namespace, chdir, chroot, fchdir, setns};
use libpsx::{Error, SharedResource};
use support::{filter, isolated, isolated_as_root, prepared, proc};

const WATCHDOG: Duration = Duration::from_secs(30);

/// Where each thread's working directory is.
fn directories() -> Vec<std::path::PathBuf> {
    let link = |tid| std::fs::read_link(format!("/proc/self/task/{tid}/cwd"));
    proc::tids().into_iter().map(|tid| link(tid).unwrap()).collect()
}

/// The one thread that has something for itself, and what the error says it is.
fn refused<T: std::fmt::Debug>(result: Result<T, Error>, expected: SharedResource) {
    match result {
        Err(Error::NotShared { tid, resource }) => {
            assert_eq!(resource, expected);
            assert_ne!(tid, std::process::id() as i32);
            assert!(proc::tids().contains(&tid));
        }
        other => panic!("{other:?}"),
    }
}

fn unshared(flag: i32) {
    // SAFETY: the thread that calls shares less from now on; it opens nothing.
    prepared(move || assert_eq!(unsafe { libc::unshare(flag) }, 0));
}

fn a_descriptor_table_of_its_own(kcmp_is_refused: bool) {
    support::sleepers(2);
    if kcmp_is_refused {
        filter(libc::SYS_kcmp, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32);
    }
    let tmp = File::open("/tmp").unwrap();
    fchdir(&tmp).execute().unwrap();
    assert!(directories().iter().all(|directory| directory == std::path::Path::new("/tmp")));
    unshared(libc::CLONE_FILES);
    let root = File::open("/").unwrap();
    refused(fchdir(&root).execute(), SharedResource::Descriptors);
    assert!(directories().iter().all(|directory| directory == std::path::Path::new("/tmp")));
    let uts = File::open("/proc/self/ns/uts").unwrap();
    refused(setns(&uts, Namespace::Uts).execute(), SharedResource::Descriptors);
    // A call that takes none is made.
    chdir(c"/").execute().unwrap();
    assert!(directories().iter().all(|directory| directory == std::path::Path::new("/")));
}

#[test]
fn descriptor_table_of_its_own() {
    isolated("descriptor_table_of_its_own", WATCHDOG, || a_descriptor_table_of_its_own(false));
}

/// Then /proc/self/task tells.
#[test]
fn descriptor_table_without_kcmp() {
    isolated("descriptor_table_without_kcmp", WATCHDOG, || a_descriptor_table_of_its_own(true));
}

fn directories_of_its_own(kcmp_is_refused: bool) {
    support::sleepers(2);
    if kcmp_is_refused {
        filter(libc::SYS_kcmp, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32);
    }
    prepared(|| {
        // SAFETY: the thread has directories of its own from now on.
        assert_eq!(unsafe { libc::unshare(libc::CLONE_FS) }, 0);
        std::env::set_current_dir("/tmp").unwrap();
    });
    let before = directories();
    refused(chroot(c".").execute(), SharedResource::Directories);
    refused(chdir(c"..").execute(), SharedResource::Directories);
    assert_eq!(directories(), before);
}

#[test]
fn directories_of_a_thread_alone() {
    isolated_as_root("directories_of_a_thread_alone", WATCHDOG, || directories_of_its_own(false));
}

#[test]
fn directories_without_kcmp() {
    isolated_as_root("directories_without_kcmp", WATCHDOG, || directories_of_its_own(true));
}

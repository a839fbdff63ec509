//! User and group ids, and the question for them.

use super::*;

#[test]
fn the_number_for_unchanged_is_invalid() {
    let user = Uid::new(u32::MAX).unwrap_err();
    let group = Gid::try_from(u32::MAX).unwrap_err();
    assert_eq!(user, group);
    assert_eq!(user.to_string(), "invalid ID 4294967295: it is reserved for \"unchanged\"");
    assert_eq!(format!("{user:?}"), "InvalidId(4294967295)");
    assert_eq!(Uid::try_from(7), Uid::new(7));
    assert_eq!(
        (uid(7).as_raw(), gid(8).as_raw(), uid(u32::MAX - 1).as_raw()),
        (7, 8, u32::MAX - 1)
    );
}

/// Real, effective, saved and file-access IDs of every thread become the new one, whatever they were before.
#[test]
fn all_ids_at_once() {
    isolated_as_root("identity::all_ids_at_once", WATCHDOG, || {
        let _asked = threads();
        setresgid(gid(1), gid(0), gid(3)).execute().unwrap();
        setfsgid(gid(4)).execute().unwrap();
        setresuid(uid(1), uid(0), uid(3)).execute().unwrap();
        setfsuid(uid(4)).execute().unwrap();
        all_have("Uid", "1\t0\t3\t4");
        all_have("Gid", "1\t0\t3\t4");
        set_all_gids(gid(8)).execute().unwrap();
        set_all_uids(uid(9)).execute().unwrap();
        all_have("Gid", "8\t8\t8\t8");
        all_have("Uid", "9\t9\t9\t9");
        assert_eq!(errno(set_all_uids(Uid::ROOT).execute()), libc::EPERM);
        assert_eq!(errno(set_all_gids(Gid::ROOT).execute()), libc::EPERM);
        all_have("Uid", "9\t9\t9\t9");
    });
}

#[test]
fn user_ids() {
    isolated_as_root("identity::user_ids", WATCHDOG, || {
        forked(|| {
            let _asked = threads();
            setresuid(uid(1), uid(0), Unchanged).execute().unwrap();
            all_have("Uid", "1\t0\t0\t0");
            setreuid(uid(2), Unchanged).execute().unwrap();
            all_have("Uid", "2\t0\t0\t0");
            setfsuid(uid(5)).execute().unwrap();
            all_have("Uid", "2\t0\t0\t5");
            assert_eq!(setfsuid(Unchanged).execute().unwrap(), 5);
            setuid(uid(6)).execute().unwrap();
            all_have("Uid", "6\t6\t6\t6");
            assert_eq!(errno(setuid(Uid::ROOT).execute()), libc::EPERM);
            assert_eq!(errno(setreuid(uid(0), Unchanged).execute()), libc::EPERM);
            all_have("Uid", "6\t6\t6\t6");
        });
    });
}

#[test]
fn group_ids() {
    isolated_as_root("identity::group_ids", WATCHDOG, || {
        let _asked = threads();
        setgroups(&[3, 1, 2].map(gid)).execute().unwrap();
        all_have("Groups", "1 2 3");
        setgroups(&[]).execute().unwrap();
        all_have("Groups", "");
        let many = vec![Gid::ROOT; 65537];
        assert_eq!(errno(setgroups(&many).execute()), libc::EINVAL);
        setresgid(gid(1), gid(2), gid(3)).execute().unwrap();
        all_have("Gid", "1\t2\t3\t2");
        setregid(Unchanged, gid(4)).execute().unwrap();
        all_have("Gid", "1\t4\t4\t4");
        setfsgid(gid(9)).execute().unwrap();
        all_have("Gid", "1\t4\t4\t9");
        setgid(gid(7)).execute().unwrap();
        all_have("Gid", "7\t7\t7\t7");
    });
}

/// The identities that the threads report are those of /proc, also for a thread that differs.
#[test]
fn identities_of_threads_that_differ() {
    isolated_as_root("identity::identities_of_threads_that_differ", WATCHDOG, || {
        let asked = threads();
        setgroups(&[1, 2, 3].map(gid)).execute().unwrap();
        set_securebits(Securebits::NOROOT).execute().unwrap();
        setresgid(gid(4), gid(5), gid(6)).execute().unwrap();
        capbset_drop(Capability::SYS_BOOT).execute().unwrap();
        let sent = asked.0[0].0.send(|| {
            // SAFETY: the call takes only numbers, and changes only this thread.
            unsafe { libc::syscall(libc::SYS_setgroups, 0, 0) };
            // SAFETY: see the comment above.
            unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
            // SAFETY: see the comment above.
            wide(unsafe { libc::syscall(libc::SYS_setresuid, 7, 8, 9) })
        });
        sent.unwrap();
        assert_eq!(asked.0[0].1.recv().unwrap(), 0);
        let report = identities(8).unwrap();
        assert_eq!(report.identities().count(), proc::tids().len());
        let hex = |set: CapabilitySet| format!("{:016x}", set.bits());
        let ids = |ids: Ids| {
            format!("{}\t{}\t{}\t{}", ids.real, ids.effective, ids.saved, ids.filesystem)
        };
        let mut differ = 0;
        for identity in report.identities() {
            let status = proc::status(identity.tid());
            let sets = identity.capabilities().unwrap();
            let groups: Vec<String> = identity.groups().unwrap().map(|g| g.to_string()).collect();
            for (field, told) in [
                ("Uid", ids(identity.uids().unwrap())),
                ("Gid", ids(identity.gids().unwrap())),
                ("Groups", groups.join(" ")),
                ("CapEff", hex(sets.effective)),
                ("CapPrm", hex(sets.permitted)),
                ("CapInh", hex(sets.inheritable)),
                ("CapBnd", hex(identity.bounding().unwrap())),
                ("CapAmb", hex(identity.ambient().unwrap())),
                ("NoNewPrivs", u8::from(identity.no_new_privs()).to_string()),
            ] {
                assert_eq!(status[field], told, "{field} of {}", identity.tid());
            }
            assert_eq!(identity.securebits(), Some(Securebits::NOROOT));
            differ += usize::from(status["Uid"] == "7\t8\t9\t8");
        }
        assert_eq!(differ, 1);
        let little = identities(1).unwrap();
        assert_eq!(little.identities().filter(|one| one.groups().is_some()).count(), 1);
        forked(|| assert_eq!(identities(8).unwrap().identities().count(), 1));
    });
}

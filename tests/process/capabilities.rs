//! Capability sets of the threads, and of other processes.

use super::*;

#[test]
fn capability_sets() {
    isolated_as_root("capabilities::capability_sets", WATCHDOG, || {
        let asked = threads();
        let few = CapabilitySet::from_slice(&[Capability::CHOWN, Capability::SETPCAP]);
        let last = Capability::last();
        assert!(last.number() >= 40);
        assert_eq!(errno(capbset_drop(Capability::new(63).unwrap()).execute()), libc::EINVAL);

        for capability in CapabilitySet::all().iter().filter(|&one| !few.contains(one)) {
            capbset_drop(capability).execute().unwrap();
        }
        assert_eq!(bounding_set(), few);
        all_have("CapBnd", "0000000000000101");
        let sets = CapabilitySets { effective: few, permitted: few, inheritable: few };
        capset(sets).execute().unwrap();
        assert_eq!(CapabilitySets::current().unwrap(), sets);
        for field in ["CapEff", "CapPrm", "CapInh"] {
            all_have(field, "0000000000000101");
        }
        cap_ambient_raise(Capability::CHOWN).execute().unwrap();
        cap_ambient_raise(Capability::SETPCAP).execute().unwrap();
        all_have("CapAmb", "0000000000000101");
        cap_ambient_lower(Capability::SETPCAP).execute().unwrap();
        all_have("CapAmb", "0000000000000001");
        assert_eq!(ambient_set(), Capability::CHOWN.into());
        assert_eq!(errno(cap_ambient_raise(Capability::KILL).execute()), libc::EPERM);
        cap_ambient_clear_all().execute().unwrap();
        all_have("CapAmb", "0000000000000000");

        let bits = || Securebits::current().unwrap().bits().into();
        set_keepcaps(true).execute().unwrap();
        asked.all_answer(bits, 1 << 4);
        set_securebits(Securebits::NOROOT | Securebits::NOROOT_LOCKED).execute().unwrap();
        asked.all_answer(bits, 3);
        assert_eq!(errno(set_securebits(Securebits::EMPTY).execute()), libc::EPERM);

        capset(CapabilitySets::EMPTY).execute().unwrap();
        all_have("CapPrm", "0000000000000000");
        assert_eq!(errno(capset(sets).execute()), libc::EPERM);
    });
}

#[test]
fn capabilities_of_another_thread() {
    isolated_as_root("capabilities::capabilities_of_another_thread", WATCHDOG, || {
        let asked = threads();
        let own = CapabilitySets::current().unwrap();
        let sent = asked.0[0].0.send(|| {
            // capset(2) in this thread only.
            let (header, none) = ([0x2008_0522u32, 0], [0u32; 6]);
            // SAFETY: the kernel reads both.
            unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) };
            // SAFETY: gettid touches no memory.
            wide(unsafe { libc::syscall(libc::SYS_gettid) })
        });
        sent.unwrap();
        let tid = asked.0[0].1.recv().unwrap() as i32;
        assert_eq!(CapabilitySets::of_pid(tid).unwrap(), CapabilitySets::EMPTY);
        assert_eq!(CapabilitySets::of_pid(std::process::id() as i32).unwrap(), own);
        assert_eq!(CapabilitySets::of_pid(0).unwrap(), own);
        assert_eq!(CapabilitySets::of_pid(i32::MAX).unwrap_err().raw_os_error(), libc::ESRCH);
        assert_eq!(CapabilitySets::of_pid(-1).unwrap_err().raw_os_error(), libc::EINVAL);
    });
}

/// Each half of each set is another word in what the kernel reads.
#[test]
fn capabilities_beyond_the_first_word() {
    isolated_as_root("capabilities::capabilities_beyond_the_first_word", WATCHDOG, || {
        let _asked = threads();
        let permitted = [Capability::BPF, Capability::WAKE_ALARM, Capability::CHOWN];
        let sets = CapabilitySets {
            effective: Capability::BPF.into(),
            permitted: CapabilitySet::from_slice(&permitted),
            inheritable: Capability::AUDIT_READ.into(),
        };
        capset(sets).execute().unwrap();
        assert_eq!(CapabilitySets::current().unwrap(), sets);
        all_have("CapEff", "0000008000000000");
        all_have("CapPrm", "0000008800000001");
        all_have("CapInh", "0000002000000000");
    });
}

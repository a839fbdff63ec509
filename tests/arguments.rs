//! The typed calls pass the numbers that the kernel's headers give to each choice. What the calls do is in `process.rs`;
//! this machine may lack the memory policies, the mitigations or the security modules that they are for.

use libpsx::process::{
    IoPriority, Lsm, LsmAttribute, LsmContext, MemoryPolicy, Operation, SchedAttr, SchedPolicy,
    SpeculationControl, SpeculationFeature, ioprio_set, lsm_set_self_attr, set_mempolicy,
    set_speculation_ctrl,
};

/// The name and the arguments of a call, which its Debug writes as C would.
fn call(operation: &Operation<'_>) -> (String, Vec<u64>) {
    let text = format!("{operation:?}");
    let (name, rest) = text.split_once('(').expect("an opening bracket");
    let arguments = rest.strip_suffix(')').expect("a closing bracket").split(", ");
    let number = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).expect(text);
    (name.to_owned(), arguments.map(number).collect())
}

#[test]
fn memory_policies() {
    // include/uapi/linux/mempolicy.h
    let policies = [
        (MemoryPolicy::Default, 0),
        (MemoryPolicy::Preferred, 1),
        (MemoryPolicy::Bind, 2),
        (MemoryPolicy::Interleave, 3),
        (MemoryPolicy::Local, 4),
    ];
    for (policy, number) in policies {
        let (name, arguments) = call(&set_mempolicy(policy, &[]));
        assert_eq!((&name[..], &arguments[..3]), ("set_mempolicy", &[number, 0, 0][..]));
        let nodes = [1, 2];
        let (_, arguments) = call(&set_mempolicy(policy, &nodes));
        assert_eq!(arguments[..3], [number, nodes.as_ptr() as u64, 129]);
    }
}

#[test]
fn mitigations_of_speculation() {
    // include/uapi/linux/prctl.h
    let features = [
        (SpeculationFeature::StoreBypass, 0),
        (SpeculationFeature::IndirectBranch, 1),
        (SpeculationFeature::L1dFlush, 2),
    ];
    let controls = [
        (SpeculationControl::Enable, 2),
        (SpeculationControl::Disable, 4),
        (SpeculationControl::ForceDisable, 8),
        (SpeculationControl::DisableUntilExec, 16),
    ];
    for (feature, which) in features {
        for (control, value) in controls {
            let (name, arguments) = call(&set_speculation_ctrl(feature, control));
            assert_eq!((&name[..], &arguments[..3]), ("prctl", &[53, which, value][..]));
        }
    }
}

#[test]
fn priorities_of_input_and_output() {
    // include/uapi/linux/ioprio.h: the class is above 13 bits, the level in the lowest three.
    let priorities = [
        (IoPriority::None, 0),
        (IoPriority::RealTime(0), 0x2000),
        (IoPriority::RealTime(7), 0x2007),
        (IoPriority::BestEffort(4), 0x4004),
        (IoPriority::Idle, 0x6000),
        // No class: the kernel answers EINVAL.
        (IoPriority::BestEffort(8), 0xe000),
    ];
    for (priority, value) in priorities {
        let (name, arguments) = call(&ioprio_set(priority));
        assert_eq!(
            (&name[..], &arguments[..3]),
            ("ioprio_set", &[1, 0, value][..]),
            "{priority:?}"
        );
    }
}

#[test]
fn attributes_of_security_modules() {
    // include/uapi/linux/lsm.h
    let attributes = [
        (LsmAttribute::Current, 100),
        (LsmAttribute::Exec, 101),
        (LsmAttribute::FsCreate, 102),
        (LsmAttribute::KeyCreate, 103),
        (LsmAttribute::SockCreate, 105),
    ];
    let context = LsmContext::new(Lsm::Selinux, b"label").unwrap();
    for (attribute, number) in attributes {
        let (name, arguments) = call(&lsm_set_self_attr(attribute, &context));
        assert_eq!((&name[..], arguments[0]), ("lsm_set_self_attr", number));
        assert_eq!(arguments[1], std::ptr::from_ref(&context) as u64);
    }
}

#[test]
fn policies_of_the_scheduler_come_back() {
    for policy in [
        SchedPolicy::Other(-3),
        SchedPolicy::Batch(4),
        SchedPolicy::Idle,
        SchedPolicy::Fifo(10),
        SchedPolicy::RoundRobin(99),
    ] {
        assert_eq!(SchedAttr::new(policy).policy(), Some(policy));
        assert_eq!(SchedAttr::new(policy).reset_on_fork().policy(), Some(policy));
        assert_eq!(SchedAttr::new(policy).utilization(), [None, None]);
    }
    assert_eq!(SchedAttr::keep_all().policy(), None);
    let clamped = SchedAttr::keep_all().util_min(3);
    assert_eq!(clamped.utilization(), [Some(3), None]);
    assert_eq!(clamped.util_max(9).utilization(), [Some(3), Some(9)]);
    assert_eq!(SchedAttr::keep_all().util_max(9).utilization(), [None, Some(9)]);
}

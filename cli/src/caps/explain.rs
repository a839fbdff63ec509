//! What each capability allows, in one or two sentences.

/// A capability, as capabilities(7) lists it under "Capabilities list".
pub(crate) struct Explanation {
    /// What it allows.
    pub(crate) allows: &'static str,
    /// Why it should be given rarely: what a program can become with it.
    pub(crate) risk: &'static str,
    /// Pages that say more than capabilities(7).
    pub(crate) pages: &'static str,
    /// The version of Linux that has it first.
    pub(crate) since: &'static str,
}

const fn one(
    allows: &'static str,
    risk: &'static str,
    pages: &'static str,
    since: &'static str,
) -> Explanation {
    Explanation { allows, risk, pages, since }
}

/// In the order of their numbers.
pub(crate) const ALL: [Explanation; 41] = [
    one(
        "Change the owner and the group of any file.",
        "With it a program can take /etc/shadow for itself.",
        "chown(2)",
        "2.2",
    ),
    one(
        "Read, write and execute files whatever their permission bits and ACLs say.",
        "It opens every file of the file systems that are mounted, so it is nearly as good as root.",
        "access(2), acl(5)",
        "2.2",
    ),
    one(
        "Read any file and search any directory whatever the permission bits say; open files by handle.",
        "Every secret that lies in a file can be read, also outside of a chroot by open_by_handle_at(2).",
        "open_by_handle_at(2)",
        "2.2",
    ),
    one(
        "Do what only the owner of a file may: chmod, utime, ACLs, extended attributes, deletion in a sticky directory.",
        "It can make any file writable for itself.",
        "chmod(2), utimensat(2)",
        "2.2",
    ),
    one(
        "Keep the set-user-ID and set-group-ID bits of a file that is modified, and set the latter for foreign groups.",
        "A writable program that is set-user-ID stays so after it was changed.",
        "chmod(2), write(2)",
        "2.2",
    ),
    one(
        "Send signals to processes of other users.",
        "It can stop or kill every process that it sees.",
        "kill(2), ioctl_console(2)",
        "2.2",
    ),
    one(
        "Set any group id and any supplementary groups; give forged group ids over Unix sockets; write gid_map.",
        "Groups like shadow or disk lead to root.",
        "setgid(2), setgroups(2), user_namespaces(7)",
        "2.2",
    ),
    one(
        "Set any user id; give forged user ids over Unix sockets; write uid_map.",
        "It is root at will: setuid(0) is enough, unless securebits forbid it.",
        "setuid(2), unix(7), user_namespaces(7)",
        "2.2",
    ),
    one(
        "Add capabilities of the bounding set to the inheritable set, drop some from the bounding set, change securebits.",
        "By itself it gives nothing that the bounding set does not have.",
        "PR_CAPBSET_DROP(2const), PR_SET_SECUREBITS(2const)",
        "2.2",
    ),
    one(
        "Set and clear the attributes immutable and append-only of files.",
        "Logs that are append-only can be rewritten.",
        "ioctl_iflags(2), chattr(1)",
        "2.2",
    ),
    one(
        "Bind sockets to ports below 1024 (net.ipv4.ip_unprivileged_port_start).",
        "It can stand in for a service whose port is free.",
        "ip(7), bind(2)",
        "2.2",
    ),
    one(
        "Nothing that the kernel checks today; it was meant for broadcasts and multicasts.",
        "It has no use.",
        "socket(7)",
        "2.2",
    ),
    one(
        "Configure interfaces, addresses, routes, firewalls, traffic control, tunnels; set privileged socket options.",
        "It can redirect or read what passes through the network namespace.",
        "netdevice(7), packet(7), rtnetlink(7)",
        "2.2",
    ),
    one(
        "Open raw and packet sockets, and bind to any address for transparent proxies.",
        "It can read and forge every packet of the network namespace.",
        "raw(7), packet(7)",
        "2.2",
    ),
    one(
        "Lock memory and use huge pages beyond RLIMIT_MEMLOCK.",
        "It can use up the machine's memory.",
        "mlock(2), mmap(2), shmctl(2)",
        "2.2",
    ),
    one(
        "Use System V IPC objects of other users whatever their permissions say.",
        "Shared memory of other programs, databases for example, can be read and changed.",
        "sysvipc(7), shmctl(2)",
        "2.2",
    ),
    one(
        "Load and remove modules of the kernel.",
        "A module runs in the kernel: it is everything.",
        "init_module(2), delete_module(2)",
        "2.2",
    ),
    one(
        "Use I/O ports, /dev/mem, /dev/kcore, raw SCSI commands and model-specific registers.",
        "Memory and disks can be read and written past all checks.",
        "iopl(2), ioperm(2), mem(4)",
        "2.2",
    ),
    one(
        "Change the root directory by chroot(2); join a mount namespace.",
        "A process that is in a chroot can leave it by another one.",
        "chroot(2), setns(2)",
        "2.2",
    ),
    one(
        "Trace any process, read and write its memory, and look at what /proc shows of it.",
        "It is every process that can be traced, one of root's for example.",
        "ptrace(2), process_vm_readv(2), kcmp(2)",
        "2.2",
    ),
    one(
        "Switch process accounting on and off.",
        "Records of what ran can be withheld.",
        "acct(2)",
        "2.2",
    ),
    one(
        "Mount, unmount, set the host name, quotas and swap, create most namespaces, administer many devices and more.",
        "It is so much that it is hardly less than root.",
        "mount(2), unshare(2), quotactl(2), swapon(2)",
        "2.2",
    ),
    one(
        "Reboot, and load another kernel for it.",
        "A kernel of its own is everything.",
        "reboot(2), kexec_load(2)",
        "2.2",
    ),
    one(
        "Raise priorities: lower nice values, real-time policies, I/O classes and CPU affinity, for any process.",
        "A real-time thread can keep a CPU from all others.",
        "sched(7), setpriority(2), ioprio_set(2)",
        "2.2",
    ),
    one(
        "Go beyond resource limits, quotas and reserved disk space, and raise hard limits.",
        "It can use up what others need.",
        "getrlimit(2), quotactl(2), mq_overview(7)",
        "2.2",
    ),
    one(
        "Set the system's clock and the hardware clock.",
        "Certificates, logs and timers then see another time.",
        "clock_settime(2), adjtimex(2), rtc(4)",
        "2.2",
    ),
    one(
        "Hang up terminals, and use privileged operations on virtual consoles.",
        "Keyboard maps of the console can be changed under another user's hands.",
        "vhangup(2), ioctl_console(2)",
        "2.2",
    ),
    one(
        "Create device files.",
        "A device file of the disk gives the disk, where devices may be opened.",
        "mknod(2)",
        "2.4",
    ),
    one("Take leases on any file.", "It can delay others that open the file.", "fcntl(2)", "2.4"),
    one(
        "Write records to the audit log of the kernel.",
        "False records can be written.",
        "audit(7), netlink(7)",
        "2.6.11",
    ),
    one(
        "Switch auditing on and off, change its rules, and read its state.",
        "What a process does can be kept out of the log.",
        "auditctl(8)",
        "2.6.11",
    ),
    one(
        "Give files capabilities, and map user 0 of the parent namespace in a new user namespace.",
        "A file with any capability of the bounding set gives it to the next program.",
        "setcap(8), user_namespaces(7)",
        "2.6.24",
    ),
    one(
        "Override mandatory access control; Smack alone checks it.",
        "Under Smack no label stops it.",
        "capabilities(7)",
        "2.6.25",
    ),
    one(
        "Change the configuration of mandatory access control; Smack and AppArmor check it.",
        "Profiles and labels can be replaced.",
        "capabilities(7)",
        "2.6.25",
    ),
    one(
        "Read and clear the kernel's log, and see kernel addresses in /proc if kptr_restrict is 1.",
        "Addresses of the kernel help to attack it.",
        "syslog(2), proc_sys_kernel(5)",
        "2.6.37",
    ),
    one(
        "Set timers that wake the machine from sleep: CLOCK_BOOTTIME_ALARM, CLOCK_REALTIME_ALARM.",
        "It can empty a battery.",
        "timer_create(2), timerfd_create(2)",
        "3.0",
    ),
    one(
        "Keep the machine from going to sleep: EPOLLWAKEUP, /proc/sys/wake_lock.",
        "It can empty a battery.",
        "epoll_ctl(2)",
        "3.5",
    ),
    one(
        "Read the audit log by a multicast netlink socket.",
        "It reads what every process is recorded for.",
        "audit(7), netlink(7)",
        "3.16",
    ),
    one(
        "Use performance counters and tracing of the whole system.",
        "What other processes and the kernel do can be measured, and secrets guessed from it.",
        "perf_event_open(2), bpf(2)",
        "5.8",
    ),
    one(
        "Load most BPF programs and create all kinds of maps.",
        "With perfmon or net_admin it reads and changes what the kernel handles.",
        "bpf(2), bpf-helpers(7)",
        "5.8",
    ),
    one(
        "Choose process ids for new processes, read /proc/PID/map_files, and what else checkpoint and restore need.",
        "Memory files of other processes can be opened.",
        "clone(2), proc_sys_kernel(5)",
        "5.9",
    ),
];

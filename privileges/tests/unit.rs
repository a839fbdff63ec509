//! Unit files: the reader, systemd's reading of the same values, and the kernel's state afterwards.
#![allow(unsafe_code)]

#[path = "unit/files.rs"]
mod files;
#[path = "unit/filters.rs"]
mod filters;
#[path = "../../tests/support/mod.rs"]
mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use privileges::bpf::{Action, Program, SeccompData};
use privileges::system_calls::{self, Denial, SystemCallFilter};
use privileges::unit::{Directives, KeyringMode, Unit, UnitError, WorkingDirectory, supported};
use privileges::{
    Capability as C, CapabilitySet, Error, Id, Privileges, Problem, Resource, Securebits,
};
use proptest::prelude::*;
use support::{isolated_as_root, sleepers};

const WATCHDOG: Duration = Duration::from_secs(60);

fn service(lines: &str) -> Result<Unit, UnitError> {
    Unit::parse(&format!("[Unit]\nDescription=a test\n\n[Service]\n{lines}\n"))
}

fn directives(lines: &str) -> Directives {
    service(lines).unwrap_or_else(|bad| panic!("{lines:?}: {bad}")).directives().clone()
}

/// Returns the message for lines that cannot be used.
fn refused(lines: &str) -> String {
    match service(lines) {
        Ok(unit) => panic!("{lines:?}: {unit:?}"),
        Err(bad) => bad.to_string(),
    }
}

#[test]
fn lines_are_read_as_systemd_syntax_says() {
    let text = "\u{feff}# a comment\n; another\n[Service]\n  # an indented one\nUser = nobody \n\
                CapabilityBoundingSet=CAP_CHOWN \\\n# a comment between\n; and another\n  CAP_KILL\\\n\n\
                X-Ours=anything\n[X-Section]\nnot a line\n[Install]\nWantedBy=multi-user.target\n";
    let unit = Unit::parse(text).unwrap();
    assert_eq!(unit.directives().user, Some(Id::from("nobody")));
    assert_eq!(unit.directives().capability_bounding_set, Some(C::CHOWN | C::KILL));
    assert!(unit.unsupported().is_empty());
    // A continued line at the end, and an escaped backslash.
    assert_eq!(directives("UMask=0077\\").umask, Some(0o077));
    assert_eq!(directives("User=a\\\\\nGroup=b").group, Some(Id::from("b")), "no continuation");
    for (text, line, why) in [
        ("User=nobody\n", 1, "in no section"),
        ("[Service\n", 1, "ends with ]"),
        ("[Service]\n\nnonsense\n", 3, "neither NAME=VALUE"),
        ("[Servcie]\n", 1, "no section [Servcie]"),
        ("[Service]\nUser=a\0b\n", 2, "byte of value 0"),
        ("[Service]\n=x\n", 2, "neither NAME=VALUE"),
        ("[Service]\nA=\\\n# c\nb\nUsr=root\n", 2, "no such directive"),
    ] {
        let bad = Unit::parse(text).unwrap_err();
        let first = &bad.problems()[0];
        assert_eq!(first.line, line, "{text:?}: {bad}");
        assert!(first.why.contains(why), "{text:?}: {bad}");
    }
}

/// systemd ends a line at these bytes too, so that the directive after them counts there.
#[test]
fn a_line_that_systemd_would_end_elsewhere_is_refused() {
    for (text, line) in [
        ("[Service]\n# comment\rUser=nobody\n", 2),
        ("[Service]\nEnvironment=A=b\rUser=nobody\n", 2),
        ("[Service]\n# comment\0User=nobody\n", 2),
        ("[Unit]\n\nDescription=a\0\n[Service]\nUser=nobody\n", 3),
        ("[Service]\nUser=nobody\n\r", 3),
        ("[Service]\nUser=nobody\r", 2),
    ] {
        let bad = Unit::parse(text).unwrap_err();
        let first = &bad.problems()[0];
        assert_eq!(first.line, line, "{text:?}: {bad}");
        assert!(first.why.contains("where systemd ends a line"), "{text:?}: {bad}");
    }
    let unit = Unit::parse("[Service]\r\n# comment\r\nUser=nobody\r\n").unwrap();
    assert_eq!(unit.directives().user, Some(Id::from("nobody")));
    // White space that systemd does not know belongs to the name.
    let bad = Unit::parse("[Service]\n\u{a0}NoNewPrivileges=no\n").unwrap_err().to_string();
    assert!(bad.contains("no such directive"), "{bad}");
    // In a value, it belongs to a word.
    for line in [
        "SystemCallFilter=@basic-io\u{a0}@file-system",
        "CapabilityBoundingSet=CAP_CHOWN\u{a0}CAP_KILL",
        "LimitNOFILE=5\u{b}",
        "SecureBits=noroot\u{c}noroot-locked",
    ] {
        assert!(refused(line).contains("white space"), "{line}");
    }
    directives("NetworkNamespacePath=/a\u{a0}b");
    let path = directives("WorkingDirectory=/a\u{a0}b").working_directory().unwrap();
    assert_eq!(path.unwrap().to_str(), Some("/a\u{a0}b"));
}

#[test]
fn a_unit_has_one_section_for_execution() {
    for text in ["", "[Unit]\nDescription=a\n", "[Timer]\nOnCalendar=daily\n", "# empty\n"] {
        let bad = Unit::parse(text).unwrap_err().to_string();
        assert!(bad.contains("executes no program"), "{text:?}: {bad}");
    }
    let two =
        "[Service]\nUser=nobody\nNoNewPrivileges=yes\n[Socket]\nUser=root\nNoNewPrivileges=no\n";
    let bad = Unit::parse(two).unwrap_err();
    assert_eq!(bad.problems()[0].line, 4);
    assert!(bad.to_string().contains("the unit has [Service] and [Socket]"), "{bad}");
    let mut unit = Unit::parse("[Mount]\nUser=nobody\n[Unit]\n[Mount]\nUMask=0077\n").unwrap();
    assert!(unit.add("[Service]\nUser=root\n").is_err());
    unit.add("[Unit]\nDescription=a drop-in\n").unwrap();
    let found = unit.directives();
    assert_eq!((&found.user, found.umask), (&Some(Id::from("nobody")), Some(0o077)));
}

#[test]
fn all_problems_are_reported_at_once() {
    let bad = service("Nice=30\nUsr=nobody\nUMask=9\nLimitNOFILE=5:4").unwrap_err();
    let text = bad.to_string();
    assert_eq!(bad.problems().len(), 4, "{text}");
    assert!(text.contains("line 5: Nice=30: it must be a number from -20 to 19"), "{text}");
    assert!(text.contains("did you mean User=?"), "{text}");
}

#[test]
fn assignments_add_or_replace_or_reset() {
    let set = |lines: &str| directives(lines).capability_bounding_set;
    let all = CapabilitySet::all();
    assert_eq!(
        set("CapabilityBoundingSet=CAP_A\n".replace("CAP_A", "CAP_KILL").as_str()),
        Some(C::KILL.into())
    );
    assert_eq!(
        set("CapabilityBoundingSet=CAP_CHOWN CAP_KILL\nCapabilityBoundingSet=CAP_BPF"),
        Some(C::CHOWN | C::KILL | C::BPF)
    );
    assert_eq!(
        set("CapabilityBoundingSet=CAP_CHOWN CAP_KILL\nCapabilityBoundingSet=~CAP_KILL CAP_BPF"),
        Some(C::CHOWN.into())
    );
    assert_eq!(set("CapabilityBoundingSet=~CAP_KILL"), Some(all - C::KILL.into()));
    assert_eq!(
        set("CapabilityBoundingSet=~CAP_KILL\nCapabilityBoundingSet=~CAP_BPF"),
        Some(all - (C::KILL | C::BPF))
    );
    assert_eq!(
        set("CapabilityBoundingSet=CAP_KILL\nCapabilityBoundingSet="),
        Some(CapabilitySet::EMPTY)
    );
    assert_eq!(set("CapabilityBoundingSet=CAP_KILL\nCapabilityBoundingSet=~"), Some(all));
    assert_eq!(set("User=nobody"), None);
    let ambient = |lines: &str| directives(lines).ambient_capabilities;
    assert_eq!(
        ambient("AmbientCapabilities=CAP_KILL\nAmbientCapabilities=CAP_BPF"),
        Some(C::KILL | C::BPF)
    );
    assert_eq!(
        ambient("AmbientCapabilities=CAP_KILL\nAmbientCapabilities="),
        Some(CapabilitySet::EMPTY)
    );

    let two = directives("SupplementaryGroups=adm audio\nSupplementaryGroups=\"staff\"");
    assert_eq!(two.supplementary_groups, Some(["adm", "audio", "staff"].map(Id::from).to_vec()));
    let reset =
        directives("SupplementaryGroups=adm\nSupplementaryGroups=\nSupplementaryGroups=staff");
    assert_eq!(reset.supplementary_groups, Some(vec![Id::from("staff")]));
    assert_eq!(directives("User=nobody\nUser=").user, None);
    assert_eq!(directives("User=nobody\nUser=daemon").user, Some(Id::from("daemon")));
    let bits = directives("SecureBits=noroot\nSecureBits=noroot-locked keep-caps");
    assert_eq!(
        bits.secure_bits,
        Some(Securebits::NOROOT | Securebits::NOROOT_LOCKED | Securebits::KEEP_CAPS)
    );
    assert_eq!(directives("SecureBits=noroot\nSecureBits=").secure_bits, None);
    assert_eq!(
        directives("CPUAffinity=0-2,5\nCPUAffinity=7 1").cpu_affinity,
        Some(vec![0, 1, 2, 5, 7])
    );
    assert_eq!(directives("CPUAffinity=0\nCPUAffinity=").cpu_affinity, None);

    let mut unit = service("User=nobody\nProtectSystem=strict\nPrivateTmp=no").unwrap();
    let names = |unit: &Unit| {
        unit.unsupported().iter().map(|one| one.directive.clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(&unit), ["ProtectSystem"]);
    assert!(
        unit.privileges()
            .unwrap_err()
            .to_string()
            .contains("line 6: ProtectSystem=strict: it is not supported")
    );
    assert!(unit.clone().without(["ProtectSystem"]).privileges().is_ok());
    unit.add("[Service]\nProtectSystem=no\nGroup=daemon\n").unwrap();
    assert!(names(&unit).is_empty(), "{unit:?}");
    assert_eq!(unit.directives().group, Some(Id::from("daemon")));
    let before = unit.clone();
    unit.add("[Service]\nGroup=audio\nNice=99\n").unwrap_err();
    assert_eq!(unit, before, "a drop-in that cannot be used changes nothing");
}

/// A value that systemd ignores, or that restricts, must not switch off a restriction.
#[test]
fn only_a_reset_removes_a_restriction() {
    let listed = |lines: &str| {
        let unit = service(lines).unwrap_or_else(|bad| panic!("{lines:?}: {bad}"));
        let refused = unit.privileges().is_err();
        assert_eq!(refused, !unit.unsupported().is_empty(), "{lines:?}");
        unit.unsupported().iter().map(|one| one.value.clone()).collect::<Vec<_>>()
    };
    // A list: 0 is a CPU, and "no" is an entry.
    assert_eq!(listed("AllowedCPUs=0"), ["0"]);
    assert_eq!(listed("AllowedMemoryNodes=0"), ["0"]);
    assert_eq!(listed("InaccessiblePaths=/etc\nInaccessiblePaths=no"), ["/etc", "no"]);
    assert_eq!(listed("RestrictAddressFamilies=none\nRestrictAddressFamilies=off").len(), 2);
    assert_eq!(listed("SocketBindDeny=0"), ["0"]);
    assert!(listed("InaccessiblePaths=/etc\nInaccessiblePaths=").is_empty());
    // A text.
    assert_eq!(listed("AppArmorProfile=off"), ["off"]);
    assert_eq!(listed("SELinuxContext=no"), ["no"]);
    assert_eq!(listed("Personality=x86\nPersonality=0").len(), 2);
    // A boolean, alone or with other words.
    for name in ["PrivateTmp", "ProtectSystem", "PrivateMounts", "RestrictNamespaces"] {
        assert!(listed(&format!("{name}=yes\n{name}=off\n{name}=0")).is_empty(), "{name}");
        assert_eq!(listed(&format!("{name}=no\n{name}=yes")).len(), 1, "{name}");
    }
    // Words of which one restricts nothing.
    for (name, off) in [("ProtectProc", "default"), ("ProcSubset", "all"), ("DevicePolicy", "auto")]
    {
        assert!(listed(&format!("{name}=ours\n{name}={off}")).is_empty(), "{name}");
        assert_eq!(listed(&format!("{name}=no")), ["no"], "{name}");
    }
    assert!(listed("RestrictNamespaces=yes\nRestrictNamespaces=").is_empty());
    for name in ["PrivateTmp", "ProtectSystem", "DynamicUser", "ProtectProc", "DevicePolicy"] {
        let text = refused(&format!("{name}=yes\n{name}="));
        assert!(text.contains("does not reset"), "{name}: {text}");
    }
    for line in ["NoNewPrivileges=yes", "UMask=077", "LimitCORE=0", "PrivateNetwork=yes"] {
        let (name, _) = line.split_once('=').unwrap();
        let text = refused(&format!("{line}\n{name}="));
        assert!(text.contains("does not reset"), "{line}: {text}");
    }
    // The list of calls: `~` alone adds nothing.
    let filter = |lines: &str| directives(lines).filter();
    let service = "SystemCallFilter=@system-service";
    assert_eq!(filter(&format!("{service}\nSystemCallFilter=~")), filter(service));
    assert_eq!(filter(&format!("{service}\nSystemCallFilter=~ ")), filter(service));
    assert_eq!(filter(&format!("{service}\nSystemCallFilter=")), None);
    assert_eq!(
        filter("SystemCallFilter=~\nSystemCallFilter=read"),
        filter("SystemCallFilter=~\nSystemCallFilter=~\nSystemCallFilter=read")
    );
    assert_eq!(
        filter("SystemCallFilter=~\nSystemCallFilter=read").unwrap().denial_of(1),
        None,
        "the first one decides"
    );
}

#[test]
fn values_are_those_of_the_manual_page() {
    let limit = |text: &str, resource: Resource| directives(text).limits[&resource];
    let infinity = u64::MAX;
    assert_eq!(limit("LimitNOFILE=1024:524288", Resource::Nofile), [1024, 524288]);
    assert_eq!(limit("LimitNOFILE=infinity", Resource::Nofile), [infinity; 2]);
    assert_eq!(limit("LimitAS=1G", Resource::As), [1 << 30; 2]);
    assert_eq!(limit("LimitAS=1.5G:infinity", Resource::As), [3 << 29, infinity]);
    assert_eq!(limit("LimitMEMLOCK=64K", Resource::Memlock), [65536; 2]);
    assert_eq!(limit("LimitCPU=1min 30s:1h", Resource::Cpu), [90, 3600]);
    assert_eq!(limit("LimitCPU=1500ms", Resource::Cpu), [2; 2]);
    assert_eq!(limit("LimitCPU=4", Resource::Cpu), [4; 2]);
    assert_eq!(limit("LimitRTTIME=5ms", Resource::Rttime), [5000; 2]);
    assert_eq!(limit("LimitRTTIME=7", Resource::Rttime), [7; 2]);
    assert_eq!(limit("LimitNICE=-5", Resource::Nice), [25; 2]);
    assert_eq!(limit("LimitNICE=+19", Resource::Nice), [1; 2]);
    assert_eq!(limit("LimitNICE=30", Resource::Nice), [30; 2]);
    for yes in ["1", "yes", "y", "true", "t", "on", "YES"] {
        assert_eq!(directives(&format!("NoNewPrivileges={yes}")).no_new_privileges, Some(true));
    }
    for no in ["0", "no", "n", "false", "f", "off"] {
        assert_eq!(directives(&format!("NoNewPrivileges={no}")).no_new_privileges, Some(false));
    }
    let slack = |text: &str| directives(&format!("TimerSlackNSec={text}")).timer_slack;
    assert_eq!(slack("50"), Some(Duration::from_nanos(50)));
    assert_eq!(slack("1ms 20us"), Some(Duration::from_micros(1020)));
    assert_eq!(directives("KeyringMode=private").keyring_mode, Some(KeyringMode::Private));
    assert_eq!(directives("UMask=027").umask, Some(0o27));
    let directory = |text: &str| directives(&format!("WorkingDirectory={text}")).working_directory;
    assert_eq!(directory("/srv"), Some(WorkingDirectory::Path("/srv".into())));
    assert_eq!(directory("-/srv"), Some(WorkingDirectory::IfThere("/srv".into())));
    assert_eq!(directory("~"), Some(WorkingDirectory::Home));
    assert_eq!(directives("User=50%%").user, Some(Id::from("50%")));
    for (lines, why) in [
        ("User=%i", "the specifier %i is not expanded here"),
        ("WorkingDirectory=/srv/%u", "the specifier %u"),
        ("RootDirectory=srv", "an absolute path"),
        ("RootDirectory=/srv/../etc", "must not contain .."),
        ("UMask=0999", "octal"),
        ("UMask=01777", "octal"),
        ("LimitNOFILE=1K", "not a number"),
        ("LimitAS=1X", "not a size"),
        ("LimitAS=1.G", "not a size"),
        ("LimitAS=-1", "not a size"),
        ("LimitAS=99999999E", "too large"),
        ("LimitCPU=3 fortnights", "not a time span"),
        ("LimitNICE=41", "0 to 40"),
        ("LimitNICE=+20", "-20 to 19"),
        ("LimitNOFILE=2:1", "above the hard limit"),
        ("CapabilityBoundingSet=CAP_CHWON", "did you mean CAP_CHOWN?"),
        ("CapabilityBoundingSet=CHOWN", "no capability"),
        ("NoNewPrivileges=maybe", "yes or no"),
        ("SecureBits=no-root", "no securebit is called"),
        ("KeyringMode=shared", "not supported"),
        ("CPUSchedulingPriority=0", "1 to 99"),
        ("CPUAffinity=3-1", "not a range"),
        ("CPUAffinity=numa", "not supported"),
        ("SystemCallArchitectures=native x86", "only \"native\""),
        ("SystemCallFilter=@system-servce", "did you mean @system-service?"),
        ("SystemCallFilter=opne", "did you mean open?"),
        ("SystemCallFilter=open:EPERM", "begins with ~"),
        ("SystemCallErrorNumber=EFOO", "neither the name"),
        ("SystemCallErrorNumber=0", "not the number of an error"),
        ("LimitNICE=infinity", "0 to 40"),
        ("User=00", "begins with 0"),
        ("Group=-1", "neither a name nor a number"),
        ("SupplementaryGroups=adm a:b", "neither a name nor a number"),
        ("Usr=root", "did you mean User=?"),
        ("user=root", "did you mean User=?"),
    ] {
        let text = refused(lines);
        assert!(text.contains(why), "{lines}: {text}");
    }
}

#[test]
fn contradictions_are_found_before_anything_changes() {
    for (lines, why) in [
        ("CPUSchedulingPriority=5", "needs CPUSchedulingPolicy"),
        ("CPUSchedulingPolicy=batch\nCPUSchedulingPriority=5", "no meaning for the policy batch"),
        ("CPUSchedulingPolicy=fifo\nNice=5", "no meaning for the policy fifo"),
        ("WorkingDirectory=~", "needs User="),
        ("NetworkNamespacePath=/proc/self/no-such-namespace", "No such file"),
    ] {
        let bad = service(lines).unwrap().privileges().unwrap_err().to_string();
        assert!(bad.contains(why), "{lines}: {bad}");
    }
}

/// Compares the refused directives and values with those that systemd-analyze(1) `verify` names.
#[test]
fn refusals_match_systemd_analyze() {
    let place = std::env::temp_dir().join(format!("privileges-unit-{}", std::process::id()));
    std::fs::create_dir_all(&place).unwrap();
    let refuses = |line: &str| -> Option<bool> {
        let path = place.join("ours.service");
        std::fs::write(&path, format!("[Service]\nType=oneshot\nExecStart=/bin/true\n{line}\n"))
            .unwrap();
        let mut command = Command::new("systemd-analyze");
        command
            .args(["verify", "--man=no", "--generators=no"])
            .arg(&path)
            .env("SYSTEMD_COLORS", "0");
        let output = command.stdin(Stdio::null()).output().ok()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        // Other units of the system may have faults too.
        Some(said.lines().any(|line| line.contains("ours.service:4")))
    };
    if refuses("Nonsense=1") != Some(true) {
        std::fs::remove_dir_all(&place).unwrap();
        return support::skipped("systemd-analyze verify cannot be run here");
    }
    for (line, both) in [
        ("User=daemon", false),
        ("UMask=0027", false),
        ("UMask=0999", true),
        ("LimitNOFILE=1024:4096", false),
        ("LimitNOFILE=4096:1024", true),
        ("LimitNOFILE=1K", true),
        ("LimitAS=1.5G", false),
        ("LimitAS=1X", true),
        ("LimitCPU=1min 30s", false),
        ("LimitCPU=3 fortnights", true),
        ("LimitNICE=-5", false),
        ("LimitNICE=41", true),
        ("LimitRTTIME=5ms", false),
        ("Nice=19", false),
        ("Nice=20", true),
        ("SecureBits=noroot keep-caps", false),
        ("NoNewPrivileges=maybe", true),
        ("CapabilityBoundingSet=~CAP_CHOWN", false),
        ("SystemCallFilter=~@mount:EPERM", false),
        ("SystemCallErrorNumber=EFOO", true),
        ("CPUSchedulingPolicy=fifo", false),
        ("CPUSchedulingPolicy=deadlin", true),
        ("CPUAffinity=0-1,3", false),
        ("IOSchedulingClass=best-effort", false),
        ("IOSchedulingClass=fast", true),
        ("IOSchedulingPriority=8", true),
        ("TimerSlackNSec=1ms 20us", false),
        ("TimerSlackNSec=1 parsec", true),
        ("KeyringMode=private", false),
        ("KeyringMode=public", true),
        ("RootDirectory=srv", true),
        ("WorkingDirectory=-/srv", false),
        ("PrivateNetwork=yes", false),
        ("NetworkNamespacePath=ns", true),
        ("Usr=nobody", true),
        ("User=00", true),
        ("Group=-1", true),
        ("LimitNICE=infinity", true),
        ("SystemCallErrorNumber=0", true),
        ("ProtectSystem=", true),
        ("RestrictNamespaces=", false),
        ("DevicePolicy=", true),
    ] {
        assert_eq!(refuses(line), Some(both), "systemd: {line}");
        assert_eq!(service(line).is_err(), both, "here: {line}");
    }
    // An empty value resets some directives. systemd ignores it for the others, which keep their value.
    for name in supported() {
        let line = format!("{name}=");
        assert_eq!(refuses(&line), Some(service(&line).is_err()), "{line}");
    }
    std::fs::remove_dir_all(&place).unwrap();
}

#[test]
fn tables_say_the_same() {
    let settings = r#"
        User = "nobody"
        Group = 12
        SupplementaryGroups = ["adm", "audio"]
        CapabilityBoundingSet = ["CAP_CHOWN CAP_KILL", "~CAP_KILL"]
        AmbientCapabilities = []
        NoNewPrivileges = true
        LimitNOFILE = "1024:4096"
        LimitNPROC = 100
        UMask = "027"
        CPUAffinity = [0, 1]
    "#;
    let table: Directives = toml::from_str(settings).unwrap();
    let unit = directives(
        "User=nobody\nGroup=12\nSupplementaryGroups=adm audio\nCapabilityBoundingSet=CAP_CHOWN\n\
         AmbientCapabilities=\nNoNewPrivileges=yes\nLimitNOFILE=1024:4096\nLimitNPROC=100\nUMask=027\nCPUAffinity=0 1",
    );
    assert_eq!(table, unit);
    for (text, why) in [
        ("Usr = \"nobody\"", "did you mean User=?"),
        ("UMask = 0o27", "a string of octal digits"),
        ("Nice = 1.5", "a string, a whole number"),
        ("PrivateTmp = true", "not supported here"),
        ("Restart = \"always\"", "not about privileges"),
        ("Nice = 40", "-20 to 19"),
        ("User = ", "TOML"),
    ] {
        let bad = Privileges::from_toml(text).unwrap_err().to_string();
        assert!(bad.contains(why), "{text}: {bad}");
    }
}

/// A table without a user does not leave the process root, unless the program says so.
#[test]
fn a_table_without_a_user_is_not_for_root() {
    isolated_as_root("a_table_without_a_user_is_not_for_root", WATCHDOG, || {
        let settings = || Privileges::from_toml("NoNewPrivileges = true").unwrap();
        let Err(Error::Plan(found)) = settings().plan() else { panic!("a plan") };
        assert!(matches!(found[..], [Problem::RootNotDropped]), "{found:?}");
        let _ = settings().stay_root().keep_groups().plan().unwrap();
        let _ = Privileges::from_toml("User = \"root\"").unwrap().plan().unwrap();
        support::forked(|| {
            settings().user("nobody").plan().unwrap().apply().unwrap();
            support::all_have("CapPrm", "0000000000000000");
        });
    });
}

/// Applies a unit: each directive that /proc shows has changed every thread.
#[test]
fn a_unit_applies_to_every_thread() {
    isolated_as_root("a_unit_applies_to_every_thread", WATCHDOG, || {
        sleepers(3);
        let unit = service(
            "User=65534\nGroup=65534\nSupplementaryGroups=4 27\nCapabilityBoundingSet=CAP_NET_BIND_SERVICE CAP_CHOWN\n\
             AmbientCapabilities=CAP_NET_BIND_SERVICE\nNoNewPrivileges=yes\nUMask=0077\nLimitNOFILE=100:200\n\
             KeyringMode=inherit\nWorkingDirectory=/tmp\nNice=5\nCPUAffinity=0\nPrivateTmp=no",
        );
        let plan = unit.unwrap().privileges().unwrap().plan().unwrap();
        plan.apply().unwrap();
        support::all_have("Uid", "65534\t65534\t65534\t65534");
        support::all_have("Gid", "65534\t65534\t65534\t65534");
        support::all_have("Groups", "4 27 65534");
        support::all_have("CapBnd", "0000000000000401");
        support::all_have("CapAmb", "0000000000000400");
        support::all_have("CapPrm", "0000000000000400");
        support::all_have("CapEff", "0000000000000400");
        support::all_have("NoNewPrivs", "1");
        support::all_have("Umask", "0077");
        support::all_have("Cpus_allowed_list", "0");
        let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
        let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
        assert!(line.split_whitespace().any(|word| word == "100"), "{line}");
        assert_eq!(std::env::current_dir().unwrap(), Path::new("/tmp"));
    });
}

#[test]
fn the_table_of_the_supported_is_not_stale() {
    let names: BTreeSet<String> = supported().collect();
    for name in &names {
        let unit = match service(&format!("{name}=")) {
            Ok(unit) => unit,
            Err(bad) if bad.to_string().contains("does not reset") => continue,
            Err(bad) => panic!("{name}: {bad}"),
        };
        assert_eq!(unit.directives(), &{
            let mut empty = Directives::default();
            match name.as_str() {
                "CapabilityBoundingSet" => {
                    empty.capability_bounding_set = Some(CapabilitySet::EMPTY)
                }
                "AmbientCapabilities" => empty.ambient_capabilities = Some(CapabilitySet::EMPTY),
                _ => {}
            }
            empty
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Reads random text: the reader does not panic, and reads an accepted text again.
    #[test]
    fn any_text_is_read_or_refused(text in any::<String>()) {
        let first = Unit::parse(&text);
        prop_assert_eq!(first, Unit::parse(&text));
    }

    #[test]
    fn any_lines_are_read_or_refused(lines in prop::collection::vec(
        (prop::sample::select(supported().collect::<Vec<_>>()), "[ -~]{0,30}|[~@a-zA-Z0-9_:,. %\\\\\"'-]{0,20}|\\PC{0,8}"), 0..8))
    {
        let text: String = lines.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
        if let Ok(unit) = service(&text) {
            let again = service(&text).unwrap();
            prop_assert_eq!(unit.directives(), again.directives());
        }
    }

    /// Compares a list of capabilities in several assignments with the same list in one.
    #[test]
    fn capabilities_add_up(first in 1u64..1 << 41, second in 1u64..1 << 41) {
        let names = |bits: u64| CapabilitySet::from_bits(bits).iter().map(|one| one.to_string().to_uppercase()).collect::<Vec<_>>().join(" ");
        let all = CapabilitySet::all().bits();
        let two = directives(&format!("CapabilityBoundingSet={}\nCapabilityBoundingSet={}", names(first), names(second)));
        let expected = if first == all { second } else { first | second };
        prop_assert_eq!(two.capability_bounding_set.unwrap().bits(), expected);
        let less = directives(&format!("CapabilityBoundingSet={}\nCapabilityBoundingSet=~{}", names(first), names(second)));
        prop_assert_eq!(less.capability_bounding_set.unwrap().bits() & second & all, 0);
    }

    /// Reads sizes and time spans: the values are exact.
    #[test]
    fn limits_are_exact(number in 0u64..1 << 30, unit in 0usize..4) {
        let (name, shift) = [("", 0), ("K", 10), ("M", 20), ("G", 30)][unit];
        let read = directives(&format!("LimitAS={number}{name}"));
        prop_assert_eq!(read.limits[&Resource::As], [number << shift; 2]);
        let (name, factor) = [("us", 1), ("ms", 1000), ("s", 1_000_000), ("min", 60_000_000)][unit];
        let read = directives(&format!("LimitRTTIME={number}{name}"));
        prop_assert_eq!(read.limits[&Resource::Rttime], [number * factor; 2]);
    }
}

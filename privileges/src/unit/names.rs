//! The names of the directives of systemd.exec(5): which are supported, and which of the others restrict a process.
#![forbid(unsafe_code)]

use super::values::{self, Why};
use crate::resource::Resource;

/// The directives that a section for execution may have, one a line: the manual page that has the directive, or
/// `other`, and its name. scripts/systemd-tables writes it.
const KNOWN: &str = include_str!("directives.txt");

/// Directives of systemd.exec(5) that do not restrict a process.
const NO_RESTRICTION: [&str; 54] = [
    "BindLogSockets",
    "MemoryKSM",
    "NUMAMask",
    "NUMAPolicy",
    "RemoveIPC",
    "CacheDirectory",
    "CacheDirectoryMode",
    "ConfigurationDirectory",
    "ConfigurationDirectoryMode",
    "CoredumpFilter",
    "Environment",
    "EnvironmentFile",
    "ExecSearchPath",
    "IgnoreSIGPIPE",
    "ImportCredential",
    "LoadCredential",
    "LoadCredentialEncrypted",
    "LogExtraFields",
    "LogFilterPatterns",
    "LogLevelMax",
    "LogNamespace",
    "LogRateLimitBurst",
    "LogRateLimitIntervalSec",
    "LogsDirectory",
    "LogsDirectoryMode",
    "OOMScoreAdjust",
    "PassEnvironment",
    "RuntimeDirectory",
    "RuntimeDirectoryMode",
    "RuntimeDirectoryPreserve",
    "SetCredential",
    "SetCredentialEncrypted",
    "SetLoginEnvironment",
    "StandardError",
    "StandardInput",
    "StandardInputData",
    "StandardInputText",
    "StandardOutput",
    "StateDirectory",
    "StateDirectoryMode",
    "SyslogFacility",
    "SyslogIdentifier",
    "SyslogLevel",
    "SyslogLevelPrefix",
    "TTYColumns",
    "TTYPath",
    "TTYReset",
    "TTYRows",
    "TTYVHangup",
    "TTYVTDisallocate",
    "TimeoutCleanSec",
    "UnsetEnvironment",
    "UtmpIdentifier",
    "UtmpMode",
];

/// Other directives that restrict the actions of a process, and not its resources: directives of
/// systemd.resource-control(5), and old names of directives of systemd.exec(5).
const RESTRICTIONS: [&str; 16] = [
    "InaccessibleDirectories",
    "ReadOnlyDirectories",
    "ReadWriteDirectories",
    "AllowedCPUs",
    "AllowedMemoryNodes",
    "BPFProgram",
    "DeviceAllow",
    "DevicePolicy",
    "IPAddressAllow",
    "IPAddressDeny",
    "IPEgressFilterPath",
    "IPIngressFilterPath",
    "NFTSet",
    "RestrictNetworkInterfaces",
    "SocketBindAllow",
    "SocketBindDeny",
];

/// Directives that this crate does not support and whose value is a boolean, or a boolean or another word
/// (`ProtectSystem=strict`).
const BOOLEANS: [&str; 21] = [
    "DynamicUser",
    "LockPersonality",
    "MemoryDenyWriteExecute",
    "MountAPIVFS",
    "PrivateDevices",
    "PrivateMounts",
    "PrivatePIDs",
    "PrivateTmp",
    "PrivateUsers",
    "ProtectClock",
    "ProtectControlGroups",
    "ProtectHome",
    "ProtectHostname",
    "ProtectKernelLogs",
    "ProtectKernelModules",
    "ProtectKernelTunables",
    "ProtectSystem",
    "RestrictNamespaces",
    "RestrictRealtime",
    "RestrictSUIDSGID",
    "RootEphemeral",
];

/// Those of [`BOOLEANS`] that an empty value resets. systemd ignores an empty value of the others (that of
/// `PrivateMounts=` in systemd 252).
const RESET_BOOLEANS: [&str; 2] = ["MountAPIVFS", "RestrictNamespaces"];

/// Directives that this crate does not support and whose value is a word, with the word that restricts nothing. An empty
/// value does not reset them.
const WORDS: [(&str, &str); 3] =
    [("DevicePolicy", "auto"), ("ProcSubset", "all"), ("ProtectProc", "default")];

/// The reason why an assignment has no effect.
#[derive(Debug)]
pub(crate) enum NotAssigned {
    /// There is no such directive, or it has no such value.
    Bad(Why),
    /// It is not about privileges.
    PassedOver,
    /// This crate cannot express the directive. Its value may switch it off.
    Unsupported {
        /// Whether the directive is not switched off.
        restricts: bool,
    },
}

impl From<Why> for NotAssigned {
    fn from(why: Why) -> Self {
        Self::Bad(why)
    }
}

/// The names of the directives that are supported.
pub(crate) const SUPPORTED: [&str; 25] = [
    "AmbientCapabilities",
    "CPUAffinity",
    "CPUSchedulingPolicy",
    "CPUSchedulingPriority",
    "CPUSchedulingResetOnFork",
    "CapabilityBoundingSet",
    "Group",
    "IOSchedulingClass",
    "IOSchedulingPriority",
    "IPCNamespacePath",
    "KeyringMode",
    "NetworkNamespacePath",
    "Nice",
    "NoNewPrivileges",
    "PrivateIPC",
    "PrivateNetwork",
    "RootDirectory",
    "SecureBits",
    "SupplementaryGroups",
    "SystemCallArchitectures",
    "SystemCallErrorNumber",
    "SystemCallFilter",
    "TimerSlackNSec",
    "UMask",
    "User",
];

/// Returns the pages and names of [`KNOWN`].
fn known() -> impl Iterator<Item = (&'static str, &'static str)> {
    KNOWN.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(' '))
}

/// Returns the reason why a directive that this crate does not support has no effect.
pub(super) fn not_supported(name: &str, value: &str) -> NotAssigned {
    let page = known().find(|(_, other)| *other == name).map(|(page, _)| page);
    let restricts = match page {
        _ if name.starts_with("X-") => return NotAssigned::PassedOver,
        None => {
            let near = values::nearest(name, known().map(|(_, name)| name));
            let hint = near.map_or_else(String::new, |near| format!("; did you mean {near}=?"));
            return NotAssigned::Bad(format!("systemd has no such directive{hint}"));
        }
        Some("exec") => !NO_RESTRICTION.contains(&name),
        Some(_) => RESTRICTIONS.contains(&name),
    };
    if !restricts {
        return NotAssigned::PassedOver;
    }
    // `0` is a CPU, and `no` is a name, if the value is a list or a text: these are reset by an empty value alone.
    let boolean = BOOLEANS.contains(&name);
    let word = WORDS.iter().find(|(other, _)| *other == name).map(|(_, off)| *off);
    let resets = word.is_none() && (!boolean || RESET_BOOLEANS.contains(&name));
    if value.is_empty() && !resets {
        return NotAssigned::Bad(values::NO_RESET.to_owned());
    }
    let off =
        value.is_empty() || word == Some(value) || boolean && values::boolean(value) == Ok(false);
    NotAssigned::Unsupported { restricts: !off }
}

/// Returns the names of the directives of systemd.exec(5) that this crate supports.
pub fn supported() -> impl Iterator<Item = String> {
    let limits = Resource::ALL.map(|resource| format!("Limit{}", resource.short_name()));
    SUPPORTED
        .iter()
        .map(|name| (*name).to_owned())
        .chain(Some("WorkingDirectory".to_owned()))
        .chain(limits)
}

/// Returns the names of directives that restrict a process and that this crate does not support.
pub fn restrictions() -> impl Iterator<Item = &'static str> {
    let own = |name: &str| {
        SUPPORTED.contains(&name) || name == "WorkingDirectory" || name.starts_with("Limit")
    };
    let restricts = |(page, name): &(&str, &str)| match *page {
        "exec" => !NO_RESTRICTION.contains(name),
        _ => RESTRICTIONS.contains(name),
    };
    known().filter(move |one| restricts(one) && !own(one.1)).map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_have_names_that_systemd_has() {
        let page = |name: &str| known().find(|(_, other)| *other == name).map(|(page, _)| page);
        for name in NO_RESTRICTION.into_iter().map(str::to_owned).chain(supported()) {
            assert_eq!(page(&name), Some("exec"), "{name}");
        }
        for name in RESTRICTIONS {
            assert!(page(name).is_some_and(|page| page != "exec"), "{name}");
        }
        let words = WORDS.map(|(name, _)| name);
        for name in BOOLEANS.into_iter().chain(words) {
            assert!(restrictions().any(|other| other == name), "{name}");
        }
        assert!(RESET_BOOLEANS.iter().all(|name| BOOLEANS.contains(name)));
    }
}

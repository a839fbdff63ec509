//! The settings that directives state.
#![forbid(unsafe_code)]

use std::fs::File;

use libpsx::process::{CapabilitySets, Namespace};

#[cfg(doc)]
use super::Unit;
use super::{Directives, KeyringMode, UnitError, UnitProblem};
use crate::{Groups, Id, Privileges};

impl Directives {
    /// Returns the settings that the directives state, as [`Unit::privileges`] does.
    ///
    /// # Errors
    /// Two directives contradict each other, or a file that one names cannot be opened.
    pub fn privileges(&self) -> Result<Privileges, UnitError> {
        let root = |id: &Id| {
            matches!(id, Id::Number(0))
                || matches!(id, Id::Name(name) if name == "root" || name == "0")
        };
        let mut settings = Privileges::new();
        if self.user.is_none() {
            settings = settings.stay_root();
            if self.supplementary_groups.is_none() {
                settings = settings.groups(Groups::NONE);
            }
        }
        if self.user.as_ref().is_none_or(root) {
            // execve(2) gives root the capabilities of the bounding set. Until then root keeps at least these.
            let now = CapabilitySets::current().map(|now| now.permitted).unwrap_or_default();
            settings = settings.keep(now & self.capability_bounding_set.unwrap_or(now));
        }
        self.add_to(settings)
    }

    /// Adds the directives to settings. A missing directive adds nothing.
    ///
    /// # Errors
    /// The errors of [`privileges`](Self::privileges).
    pub fn add_to(&self, mut settings: Privileges) -> Result<Privileges, UnitError> {
        let mut problems = Vec::new();
        let mut problem = |directive: &str, value: String, why: String| {
            problems.push(UnitProblem {
                file: None,
                line: 0,
                directive: directive.to_owned(),
                value,
                why,
            });
        };
        let more = self.supplementary_groups.clone();
        match (&self.user, more) {
            (Some(user), more) => {
                let groups = Groups::FromUserAnd(more.unwrap_or_default());
                settings = settings.user(user.clone()).groups(groups);
            }
            (None, Some(more)) => settings = settings.groups(Groups::Explicit(more)),
            (None, None) => {}
        }
        let ambient = self.ambient_capabilities.unwrap_or_default();
        settings = if ambient.is_empty() { settings } else { settings.keep(ambient) };
        if let Some(group) = &self.group {
            settings = settings.group(group.clone());
        }
        if !ambient.is_empty() {
            settings = settings.ambient(ambient).inheritable(ambient);
        }
        if let Some(bounding) = self.capability_bounding_set {
            settings = settings.bounding(bounding);
        }
        if let Some(bits) = self.secure_bits {
            settings = settings.securebits(bits);
        }
        if self.no_new_privileges == Some(true) {
            settings = settings.no_new_privs();
        }
        if let Some(filter) = self.filter() {
            match filter.program() {
                Ok(program) => settings = settings.seccomp_program(program),
                Err(why) => problem("SystemCallFilter", String::new(), why.to_string()),
            }
        }
        if let Some(root) = &self.root_directory {
            settings = settings.chroot(root);
        }
        match self.working_directory() {
            Ok(Some(directory)) => settings = settings.chdir(directory),
            Ok(None) => {}
            Err(why) => problem("WorkingDirectory", String::new(), why),
        }
        if let Some(mask) = self.umask {
            settings = settings.umask(mask);
        }
        for (&resource, &[soft, hard]) in &self.limits {
            settings = settings.limit(resource, soft, hard);
        }
        match self.keyring_mode {
            None | Some(KeyringMode::Inherit) => {}
            Some(KeyringMode::Private) => settings = settings.new_session_keyring(),
        }
        match self.scheduling() {
            Ok((scheduling, nice)) => {
                if let Some(scheduling) = scheduling {
                    settings = settings.scheduling(scheduling);
                }
                if let Some(nice) = nice {
                    settings = settings.nice(nice);
                }
            }
            Err(why) => problem("CPUSchedulingPolicy", String::new(), why),
        }
        if let Some(priority) = self.io_priority() {
            settings = settings.io_priority(priority);
        }
        if let Some(cpus) = &self.cpu_affinity {
            settings = settings.cpus(cpus.iter().copied());
        }
        if let Some(slack) = self.timer_slack {
            settings = settings.timer_slack(slack);
        }
        for (new, path, kind, name) in [
            (
                self.private_network,
                &self.network_namespace_path,
                Namespace::Network,
                "NetworkNamespacePath",
            ),
            (self.private_ipc, &self.ipc_namespace_path, Namespace::Ipc, "IPCNamespacePath"),
        ] {
            match path {
                // systemd.exec(5): the path takes precedence.
                Some(path) => match File::open(path) {
                    Ok(file) => settings = settings.join_namespace(kind, file),
                    Err(error) => problem(name, path.display().to_string(), error.to_string()),
                },
                None if new == Some(true) => settings = settings.new_namespace(kind),
                None => {}
            }
        }
        if problems.is_empty() { Ok(settings) } else { Err(UnitError(problems)) }
    }
}

//! The calls that the demo makes, and the state that every thread must have after them.

use anyhow::{Context, Result};
use libpsx::process::Ids;
use nix::unistd::{User, geteuid};
use serde::Serialize;

use crate::tasks::Credentials;

/// One system call of the demo. None of the calls takes a pointer into memory, so each is sound, also if the
/// kernel refuses it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
    /// setgroups(0, NULL)
    NoGroups,
    /// setresgid(gid, gid, gid)
    Gid(u32),
    /// setresuid(uid, uid, uid)
    Uid(u32),
    /// prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    NoNewPrivs,
    /// prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)
    KeepCaps,
}

impl Step {
    /// Returns the name that the table shows.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::NoGroups => "setgroups",
            Self::Gid(_) => "setresgid",
            Self::Uid(_) => "setresuid",
            Self::NoNewPrivs => "prctl(PR_SET_NO_NEW_PRIVS)",
            Self::KeepCaps => "prctl(PR_SET_KEEPCAPS)",
        }
    }
}

/// What the demo does. It depends on the user that runs the demo.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "mode", rename_all = "lowercase")]
pub(crate) enum Goal {
    /// Root becomes this user, without supplementary groups, with no_new_privs.
    Root { user: String, uid: u32, gid: u32 },
    /// Any other user gets no_new_privs and keepcaps.
    Unprivileged,
}

impl Goal {
    /// Returns the goal for the user of this process.
    pub(crate) fn for_this_process() -> Result<Self> {
        if !geteuid().is_root() {
            return Ok(Self::Unprivileged);
        }
        let nobody = User::from_name("nobody")
            .context("looking up the user nobody")?
            .context("there is no user nobody on this system")?;
        let (uid, gid) = (nobody.uid.as_raw(), nobody.gid.as_raw());
        Ok(Self::Root { user: nobody.name, uid, gid })
    }

    /// Returns the calls, in an order in which each still has the privilege that it needs.
    pub(crate) fn steps(&self) -> Vec<Step> {
        match *self {
            Self::Root { uid, gid, .. } => {
                vec![Step::NoGroups, Step::Gid(gid), Step::Uid(uid), Step::NoNewPrivs]
            }
            Self::Unprivileged => vec![Step::NoNewPrivs, Step::KeepCaps],
        }
    }

    /// Returns whether a thread with this status has the whole new state. Keepcaps is not part of it, because the
    /// kernel does not show it in /proc.
    pub(crate) fn reached_by(&self, credentials: &Credentials) -> bool {
        let no_new_privs = credentials.no_new_privs == Some(true);
        match *self {
            Self::Unprivileged => no_new_privs,
            Self::Root { uid, gid, .. } => {
                let all = |id| Ids { real: id, effective: id, saved: id, filesystem: id };
                no_new_privs
                    && credentials.user == all(uid)
                    && credentials.group == all(gid)
                    && credentials.groups.is_empty()
            }
        }
    }

    /// Returns the words for a thread that has not reached the goal.
    pub(crate) const fn unreached(&self) -> &'static str {
        match self {
            Self::Root { .. } => "still root",
            Self::Unprivileged => "may gain privilege",
        }
    }
}

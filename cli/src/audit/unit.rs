//! `--unit`: whether the threads of a unit's processes are what its directives promise.

use std::path::Path;

use anyhow::{Result, bail};

use super::expect::{Checker, Failure};
use super::process::Process;

/// What a unit promises.
pub(crate) struct Promises {
    name: String,
}

impl Promises {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        bail!("--unit {}: not available yet; nothing was read", path.display())
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether the process belongs to the unit.
    pub(crate) fn is_of(&self, process: &Process) -> bool {
        process.identity.unit.as_deref() == Some(&self.name)
    }

    pub(crate) fn check(&self, _process: &Process, _checker: &mut Checker<'_>) -> Vec<Failure> {
        Vec::new()
    }
}

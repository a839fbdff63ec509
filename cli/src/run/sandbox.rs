//! The Landlock ruleset of `psx run`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use privileges::landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr,
};

/// What a kernel must restrict at least.
const LEAST: ABI = ABI::V1;
/// What it restricts as far as it can.
const BEST: ABI = ABI::V5;

/// Everything that concerns files is forbidden, but for reading and executing below the first paths, and everything below
/// the second ones.
pub(super) fn ruleset(read: &[PathBuf], write: &[PathBuf]) -> Result<RulesetCreated> {
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(LEAST))
        .context("this kernel has no Landlock")?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(BEST))?
        .create()
        .context("making a Landlock ruleset")?;
    for (paths, access) in [(read, AccessFs::from_read(BEST)), (write, AccessFs::from_all(BEST))] {
        for path in paths {
            let shown = || format!("--landlock: {}", path.display());
            let directory = path.metadata().with_context(shown)?.is_dir();
            // The kernel refuses rights of directories for anything else.
            let access = if directory { access } else { access & AccessFs::from_file(BEST) };
            let fd = PathFd::new(path).with_context(shown)?;
            ruleset = ruleset.add_rule(PathBeneath::new(fd, access)).with_context(shown)?;
        }
    }
    Ok(ruleset)
}

//! The Landlock ruleset of `psx run`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use privileges::landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr,
};

/// The Landlock version whose restrictions the kernel must support.
const LEAST: ABI = ABI::V1;
/// The Landlock version whose restrictions apply as far as the kernel supports them.
const BEST: ABI = ABI::V5;

/// Makes a ruleset that forbids all access to files, with two exceptions: reading and executing below the paths of
/// `read`, and all access below those of `write`.
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
            // The kernel refuses the rights of directories for any other file.
            let access = if directory { access } else { access & AccessFs::from_file(BEST) };
            let fd = PathFd::new(path).with_context(shown)?;
            ruleset = ruleset.add_rule(PathBeneath::new(fd, access)).with_context(shown)?;
        }
    }
    Ok(ruleset)
}

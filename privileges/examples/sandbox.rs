//! A program whose threads work on untrusted input, and can open no file.

use privileges::Privileges;
use privileges::landlock::{ABI, Access, AccessFs, Ruleset, RulesetAttr};
use rayon::prelude::*;

pub(crate) fn main() -> Result<(), Box<dyn std::error::Error>> {
    rayon::ThreadPoolBuilder::new().num_threads(4).build_global()?;
    let ruleset = Ruleset::default().handle_access(AccessFs::from_all(ABI::V1))?.create()?;
    Privileges::new().user("nobody").landlock(ruleset).plan()?.apply()?;
    for line in std::io::stdin().lines() {
        let words: Vec<_> = line?.split_whitespace().map(str::to_owned).collect();
        // It stands for the work: how many of the named files can be opened.
        let open = words.par_iter().filter(|word| std::fs::File::open(word).is_ok()).count();
        println!("{open} of {} can be opened", words.len());
    }
    Ok(())
}

//! Tools from crates.io.

use std::path::PathBuf;

use anyhow::Result;

use crate::{
    cache::Cache,
    process::{cargo, run},
};

const CARGO_DENY_VERSION: &str = "0.20.2";

/// cargo-deny. Built without optimisation: it runs for two seconds, and so
/// takes one minute to build instead of five.
pub(crate) fn cargo_deny(cache: &Cache) -> Result<PathBuf> {
    let folder = cache.entry(&format!("cargo-deny-{CARGO_DENY_VERSION}"), |folder| {
        let target = cache.scratch("target-tools");
        let mut command = cargo();
        // Outside of the checkout, whose lock file and settings are not its.
        command.current_dir(folder).env("CARGO_TARGET_DIR", &target).env("CARGO_PROFILE_DEV_DEBUG", "0");
        command.args(["install", "--debug", "--locked", "--quiet", "--root"]).arg(folder);
        run(command.arg(format!("cargo-deny@{CARGO_DENY_VERSION}")))?;
        Ok(std::fs::remove_dir_all(target)?)
    })?;
    Ok(folder.join("bin/cargo-deny"))
}

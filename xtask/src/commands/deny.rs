//! `cargo deny`: licences, bans and sources on every run; advisories apart,
//! since their database is fetched from the network.

use anyhow::Result;

use super::one;
use crate::{
    cache::Cache,
    peers::cargo_deny,
    process::{cargo, run as execute},
};

pub(crate) fn run() -> Result<bool> {
    one("cargo deny", check)
}

/// Checks licences, bans and sources.
pub(crate) fn check() -> Result<()> {
    deny(&["licenses", "bans", "sources"])
}

/// `cargo xtask advisories`.
pub(crate) fn advisories() -> Result<bool> {
    one("advisories", || deny(&["advisories"]))
}

fn deny(checks: &[&str]) -> Result<()> {
    let binary = cargo_deny(&Cache::open()?)?;
    // Through cargo's environment, so that the pinned toolchain answers it.
    let mut command = std::process::Command::new(binary);
    command.current_dir(crate::cache::checkout()).env("CARGO", cargo().get_program());
    execute(command.args(["--locked", "--log-level", "warn", "check"]).args(checks))
}

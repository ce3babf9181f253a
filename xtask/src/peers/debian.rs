//! Debian's packages, which root alone may install.

use std::{process::Command, sync::OnceLock};

use crate::process::{exists, is_root, run};

/// Installs packages where that is possible. What fails is said and no error:
/// whoever asked looks again, and does without.
pub(super) fn install(packages: &[&str]) {
    static UPDATED: OnceLock<bool> = OnceLock::new();
    if !is_root() || !exists("apt-get") {
        return;
    }
    if !*UPDATED.get_or_init(|| attempt(apt().arg("update"))) {
        return;
    }
    let mut install = apt();
    install.args(["install", "--yes", "--no-install-recommends", "-o", "Dpkg::Options::=--force-confold"]);
    attempt(install.args(packages));
}

fn attempt(command: &mut Command) -> bool {
    run(command).inspect_err(|error| println!("  {error:#}")).is_ok()
}

fn apt() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").arg("--quiet");
    command
}

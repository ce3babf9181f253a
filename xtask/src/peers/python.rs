//! schemathesis, in a virtual environment of its own.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context, Result};

use crate::{
    cache::{Cache, checkout},
    process::run,
};

/// The `schemathesis` command, in the version of `e2e/python/requirements.txt`.
pub(crate) fn schemathesis(cache: &Cache) -> Result<PathBuf> {
    let requirements = checkout().join("e2e/python/requirements.txt");
    let text = fs::read_to_string(&requirements)?;
    let version = version(&text)?;
    let folder = cache.entry(&format!("schemathesis-{version}"), |folder| {
        run(Command::new("python3").args(["-m", "venv"]).arg(folder))
            .context("install Python 3.10 or newer with its venv module (Debian: python3-venv)")?;
        let mut pip = Command::new(folder.join("bin/pip"));
        run(pip
            .args(["install", "--quiet", "--disable-pip-version-check", "--no-deps", "-r"])
            .arg(&requirements))
    })?;
    Ok(folder.join("bin/schemathesis"))
}

fn version(requirements: &str) -> Result<&str> {
    let line = requirements.lines().find_map(|line| line.strip_prefix("schemathesis=="));
    line.context("the requirements do not name schemathesis==VERSION")
}

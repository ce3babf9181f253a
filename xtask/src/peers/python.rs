//! Python, and what comes from its registry: schemathesis, and the compilers
//! and runtimes of other languages where this machine has none that will do.
//! Each is in a virtual environment of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::debian;
use crate::{
    cache::{Cache, checkout},
    process::{output, run},
};

/// The `schemathesis` command, in the version of `e2e/python/requirements.txt`.
pub(crate) fn schemathesis(cache: &Cache) -> Result<PathBuf> {
    let requirements = checkout().join("e2e/python/requirements.txt");
    let text = fs::read_to_string(&requirements)?;
    let version = version(&text)?;
    let folder = cache.entry(&format!("schemathesis-{version}"), |folder| {
        let mut pip = environment(folder)?;
        run(pip.args(["--no-deps", "-r"]).arg(&requirements))
    })?;
    Ok(folder.join("bin/schemathesis"))
}

/// The folder of Python's packages that holds this one, in exactly this version.
pub(crate) fn package(cache: &Cache, name: &str, version: &str) -> Result<PathBuf> {
    let folder = cache.entry(&format!("{name}-{version}"), |folder| {
        let mut pip = environment(folder)?;
        // A wheel alone: what comes as source would need what is being installed.
        run(pip.args(["--no-deps", "--only-binary=:all:"]).arg(format!("{name}=={version}")))
    })?;
    let print = "import sysconfig; print(sysconfig.get_path('platlib'))";
    Ok(output(Command::new(folder.join("bin/python")).args(["-c", print]))?.trim().into())
}

/// Makes a virtual environment, and returns its `pip install`.
fn environment(folder: &Path) -> Result<Command> {
    provide()?;
    run(Command::new("python3").args(["-m", "venv"]).arg(folder))?;
    let mut pip = Command::new(folder.join("bin/pip"));
    pip.args(["install", "--quiet", "--disable-pip-version-check"]);
    Ok(pip)
}

/// Sees to it that Python can make virtual environments.
fn provide() -> Result<()> {
    if !works() {
        debian::install(&["python3", "python3-venv", "ca-certificates"]);
    }
    if !works() {
        bail!("install Python 3.10 or newer with its venv module (Debian: python3-venv)");
    }
    Ok(())
}

fn works() -> bool {
    // Debian has `venv` without the `ensurepip` that it needs.
    let probe = "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))";
    Command::new("python3").args(["-c", probe]).output().is_ok_and(|output| output.status.success())
}

fn version(requirements: &str) -> Result<&str> {
    let line = requirements.lines().find_map(|line| line.strip_prefix("schemathesis=="));
    line.context("the requirements do not name schemathesis==VERSION")
}

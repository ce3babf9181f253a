//! Building: all of the workspace in one profile and with one choice of
//! features, so that every stage of the tests shares the same artefacts.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::process::{cargo, output, run};

/// Builds every target of the workspace, and returns the `pinfold` binary.
pub(crate) fn workspace() -> Result<PathBuf> {
    run(cargo().args(["build", "--locked", "--workspace", "--all-targets"]))?;
    Ok(target()?.join("debug").join(binary_name()))
}

/// The folder that cargo builds into.
pub(crate) fn target() -> Result<PathBuf> {
    let metadata = metadata()?;
    let target = metadata["target_directory"].as_str().context("cargo metadata names no target directory")?;
    Ok(target.into())
}

/// File name of the product's binary.
pub(crate) fn binary_name() -> String {
    format!("pinfold{}", std::env::consts::EXE_SUFFIX)
}

/// Names of the integration tests of the packages that `wanted` picks.
pub(crate) fn integration_tests(wanted: impl Fn(&str) -> bool) -> Result<Vec<String>> {
    let metadata = metadata()?;
    let packages = metadata["packages"].as_array().context("cargo metadata names no packages")?;
    let wanted = packages.iter().filter(|package| package["name"].as_str().is_some_and(&wanted));
    let targets = wanted.filter_map(|package| package["targets"].as_array()).flatten();
    let tests = targets.filter(|target| target["kind"][0] == "test");
    Ok(tests.filter_map(|target| target["name"].as_str()).map(str::to_owned).collect())
}

fn metadata() -> Result<Value> {
    let text = output(cargo().args(["metadata", "--format-version", "1", "--no-deps", "--locked"]))?;
    Ok(serde_json::from_str(&text)?)
}

//! Peers written in Go, built from their modules. Each has a `go.mod` of its
//! own: together their versions of the shared libraries would mix.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{
    cache::{Cache, checkout},
    process::{exists_with, run},
};

/// Builds Kubo's `ipfs`, in the version that `e2e/kubo/go.mod` requires.
pub(crate) fn kubo(cache: &Cache) -> Result<PathBuf> {
    let version = required("kubo", "github.com/ipfs/kubo")?;
    let folder = cache.entry(&format!("kubo-{version}"), |folder| {
        build("kubo", "github.com/ipfs/kubo/cmd/ipfs", &folder.join("ipfs"))
    })?;
    Ok(folder.join("ipfs"))
}

/// Builds `ipfs-cluster-service`, in the version that `e2e/cluster/go.mod`
/// requires. Benchmarks alone use it, so that tests do not wait for its build.
pub(crate) fn cluster(cache: &Cache) -> Result<PathBuf> {
    let (module, program) = ("github.com/ipfs-cluster/ipfs-cluster", "ipfs-cluster-service");
    let version = required("cluster", module)?;
    let folder = cache.entry(&format!("ipfs-cluster-{version}"), |folder| {
        build("cluster", &format!("{module}/cmd/{program}"), &folder.join(program))
    })?;
    Ok(folder.join(program))
}

/// Builds Pebble, in the version that `e2e/pebble/go.mod` requires.
pub(crate) fn pebble(cache: &Cache) -> Result<PathBuf> {
    let version = required("pebble", "github.com/letsencrypt/pebble/v2")?;
    let folder = cache.entry(&format!("pebble-{version}"), |folder| {
        build("pebble", "github.com/letsencrypt/pebble/v2/cmd/pebble", &folder.join("pebble"))
    })?;
    Ok(folder.join("pebble"))
}

/// Builds gateway-conformance's tests, beside the fixtures that they read;
/// nothing where the module cannot be had, which is said. (15 s once its
/// modules are there, which are 40 MB.)
pub(crate) fn conformance(cache: &Cache) -> Result<Option<PathBuf>> {
    const MODULE: &str = "github.com/ipfs/gateway-conformance";
    let version = required("conformance", MODULE)?;
    let name = format!("gateway-conformance-{version}");
    if cache.find(&name).is_none() && download("conformance", MODULE)?.is_none() {
        println!("  {MODULE} cannot be had from the module proxy");
        return Ok(None);
    }
    let folder = cache.entry(&name, |folder| {
        let mut command = in_module("conformance")?;
        command.args(["test", "-c", "-mod=readonly", "-trimpath", "-o"]).arg(folder.join("gateway.test"));
        run(command.arg(format!("{MODULE}/tests")))?;
        let source = download("conformance", MODULE)?.context("it was downloaded a moment ago")?;
        copy(&source.join("fixtures"), &folder.join("fixtures"))
    })?;
    Ok(Some(folder))
}

/// Downloads a dependency's module, and answers where it is; none where no
/// proxy has it.
fn download(module: &str, dependency: &str) -> Result<Option<PathBuf>> {
    let output = in_module(module)?.args(["mod", "download", "-json", dependency]).output()?;
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    Ok(answer["Dir"].as_str().map(PathBuf::from))
}

/// Copies a folder; what Go keeps may not be written, the copy may.
fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name()))?;
        if path.is_dir() {
            copy(&path, &to.join(name))?;
        } else {
            fs::write(to.join(name), fs::read(&path)?)?;
        }
    }
    Ok(())
}

fn in_module(module: &str) -> Result<Command> {
    if !exists_with("go", "version") {
        anyhow::bail!(
            "Go is missing: install Go 1.26 or newer from https://go.dev/dl/ and put it on the PATH"
        );
    }
    let mut command = Command::new("go");
    command.current_dir(checkout().join("e2e").join(module));
    Ok(command)
}

fn build(module: &str, package: &str, binary: &Path) -> Result<()> {
    let mut command = in_module(module)?;
    // `-mod=readonly`: what is built is what the committed go.sum names.
    command.args(["build", "-mod=readonly", "-trimpath", "-ldflags=-s -w", "-o"]).arg(binary).arg(package);
    run(&mut command)
}

/// The version of a dependency in the `go.mod` of `e2e/<module>`.
fn required(module: &str, dependency: &str) -> Result<String> {
    let path = checkout().join("e2e").join(module).join("go.mod");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    version(&text, dependency).with_context(|| format!("{} does not require {dependency}", path.display()))
}

fn version(go_mod: &str, dependency: &str) -> Option<String> {
    go_mod.lines().find_map(|line| {
        let line = line.trim().trim_start_matches("require ");
        let version = line.strip_prefix(dependency)?.strip_prefix(' ')?;
        version.split_whitespace().next().map(str::to_owned)
    })
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn a_version_is_read_from_either_form_of_requirement() {
        assert_eq!(version("require a/b v1.2.3\n", "a/b").as_deref(), Some("v1.2.3"));
        assert_eq!(
            version("require (\n\ta/bc v9\n\ta/b v1.2.3 // indirect\n)", "a/b").as_deref(),
            Some("v1.2.3")
        );
        assert_eq!(version("module a/b\n", "a/b"), None);
    }
}

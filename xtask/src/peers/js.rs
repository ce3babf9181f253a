//! Node.js and the packages that run on it. Packages come by their committed
//! lock file, and none of their install scripts is run.

use std::{
    env::consts,
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    cache::{Cache, checkout},
    process::{output, run},
};

/// Taken from npm where the PATH has no Node.js of [`NODE_MAJOR`] or newer.
const NODE_VERSION: &str = "22.23.3";
/// Helia 5 uses what came with this version, and so do the loader hooks.
const NODE_MAJOR: u32 = 22;

/// Names every package with its version and digest.
const LOCK: &str = "package-lock.json";

/// A Node.js that is new enough.
pub(crate) fn node(cache: &Cache) -> Result<PathBuf> {
    if let Some(path) = node_on_path() {
        return Ok(path);
    }
    let package = format!("node-{}-{}", platform()?, architecture()?);
    let folder = cache.entry(&format!("{package}-{NODE_VERSION}"), |folder| {
        // The package `node` fetches this one in an install script.
        fs::write(folder.join("package.json"), "{\"private\":true}")?;
        run(npm(folder).args(["install", &format!("{package}@{NODE_VERSION}")]))
    })?;
    Ok(folder.join("node_modules").join(package).join("bin/node"))
}

fn node_on_path() -> Option<PathBuf> {
    let text =
        output(Command::new("node").args(["--print", "process.versions.node + ' ' + process.execPath"]))
            .ok()?;
    let (version, path) = text.trim().split_once(' ')?;
    let major: u32 = version.split('.').next()?.parse().ok()?;
    (major >= NODE_MAJOR).then(|| path.into())
}

fn platform() -> Result<&'static str> {
    match consts::OS {
        "linux" => Ok("linux"),
        "macos" => Ok("darwin"),
        other => bail!("npm has no Node.js for {other}: put Node.js {NODE_MAJOR} or newer on the PATH"),
    }
}

fn architecture() -> Result<&'static str> {
    match consts::ARCH {
        "x86_64" => Ok("x64"),
        "aarch64" => Ok("arm64"),
        other => bail!("npm has no Node.js for {other}: put Node.js {NODE_MAJOR} or newer on the PATH"),
    }
}

/// The folder with the packages of `e2e/js/<name>` and its scripts, which
/// must lie beside the packages that they import.
pub(crate) fn packages(cache: &Cache, name: &str) -> Result<PathBuf> {
    let source = checkout().join("e2e/js").join(name);
    let folder = cache.entry(&format!("{name}-{}", fingerprint(&source.join(LOCK))?), |folder| {
        fs::copy(source.join("package.json"), folder.join("package.json"))?;
        fs::copy(source.join(LOCK), folder.join(LOCK))?;
        run(npm(folder).arg("ci"))
    })?;
    for script in scripts(&source)? {
        fs::copy(&script, folder.join(script.file_name().context("a file has a name")?))?;
    }
    Ok(folder)
}

fn npm(folder: &Path) -> Command {
    let mut command = Command::new("npm");
    command.current_dir(folder);
    command.args(["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]);
    command
}

/// Differs when the file does; names the cache's entry.
fn fingerprint(file: &Path) -> Result<String> {
    let mut hasher = DefaultHasher::new();
    fs::read(file).with_context(|| format!("cannot read {}", file.display()))?.hash(&mut hasher);
    Ok(format!("{:016x}", hasher.finish()))
}

fn scripts(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut files: Vec<_> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "mjs"));
    Ok(files)
}

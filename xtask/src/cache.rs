//! Where peers and tools are kept: `$PINFOLD_CACHE`, else
//! `$XDG_CACHE_HOME/pinfold`, else `~/.cache/pinfold`; outside of the checkout
//! so that a fresh clone finds them.
//!
//! Every entry is a folder whose name holds the version. It counts only once
//! its mark is written, which happens last, so that an interrupted
//! installation is made anew.

use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
    sync::OnceLock,
};

use anyhow::{Context, Result};

/// Written into an entry when it is complete.
const MARK: &str = ".complete";

/// The cache, locked against another `cargo xtask` that installs.
#[derive(Debug)]
pub(crate) struct Cache {
    root: PathBuf,
    /// Released when dropped, and by the system when the process ends.
    _lock: File,
}

impl Cache {
    /// Opens the cache and waits for its lock.
    pub(crate) fn open() -> Result<Self> {
        let root = root()?;
        fs::create_dir_all(root.join("tools")).with_context(|| {
            format!(
                "cannot make the cache {}: set PINFOLD_CACHE to a folder that can be written",
                root.display()
            )
        })?;
        let lock = File::create(root.join("lock"))?;
        lock.lock().context("cannot lock the cache")?;
        Ok(Self { root, _lock: lock })
    }

    /// The folder of entry `name`, installed by `install` when it is missing.
    pub(crate) fn entry(&self, name: &str, install: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let folder = self.root.join("tools").join(name);
        if folder.join(MARK).exists() {
            return Ok(folder);
        }
        println!("  installing {name} into {}", folder.display());
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        install(&folder).with_context(|| format!("cannot install {name}"))?;
        fs::write(folder.join(MARK), "")?;
        Ok(folder)
    }

    /// A folder for files that only speed up an installation.
    pub(crate) fn scratch(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }
}

fn root() -> Result<PathBuf> {
    if let Some(root) = env::var_os("PINFOLD_CACHE") {
        return Ok(root.into());
    }
    if let Some(root) = env::var_os("XDG_CACHE_HOME") {
        return Ok(PathBuf::from(root).join("pinfold"));
    }
    let home = env::var_os("HOME").context("neither PINFOLD_CACHE nor HOME is set")?;
    Ok(PathBuf::from(home).join(".cache/pinfold"))
}

/// The root of the checkout. `cargo run` names it; where two checkouts share a
/// target folder, this tool may have been built from the other one.
pub(crate) fn checkout() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| {
        let xtask = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        PathBuf::from(xtask).parent().expect("xtask is a folder of the checkout").to_owned()
    })
}

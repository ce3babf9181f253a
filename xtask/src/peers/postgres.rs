//! PostgreSQL 15 or newer: the machine's own, or Debian's package where this
//! process may install it. Elsewhere its tests are left out.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use super::debian;
use crate::process::{exists, is_root, output};

/// What Debian's packages would do when they are installed: make a cluster
/// and start it, which nobody asked for.
const NO_CLUSTER: (&str, &str) =
    ("/etc/postgresql-common/createcluster.conf", "create_main_cluster = false\n");

/// The oldest version that the product works with.
const OLDEST: u32 = 15;

/// The folder of PostgreSQL's programs; installs them where that is possible.
pub(crate) fn install() -> Result<Option<PathBuf>> {
    if let Some(found) = find() {
        return Ok(Some(found));
    }
    if is_root() {
        forbid_cluster()?;
        debian::install(&["postgresql"]);
    }
    Ok(find())
}

/// The folder of PostgreSQL's programs, if it is here and new enough.
pub(crate) fn find() -> Option<PathBuf> {
    candidates().into_iter().find(|folder| folder.join("initdb").exists() && version(folder) >= Some(OLDEST))
}

fn candidates() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = output(Command::new("pg_config").arg("--bindir"))
        .map(|path| path.trim().into())
        .into_iter()
        .collect();
    // Debian keeps the server's programs off the PATH, one folder a version.
    let mut debian: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .map(|entries| entries.flatten().map(|entry| entry.path().join("bin")).collect())
        .unwrap_or_default();
    debian.sort();
    folders.extend(debian.into_iter().rev());
    folders
}

fn version(folder: &Path) -> Option<u32> {
    let text = output(Command::new(folder.join("postgres")).arg("--version")).ok()?;
    text.split_whitespace().find_map(|word| word.split('.').next()?.parse().ok())
}

fn forbid_cluster() -> Result<()> {
    let path = Path::new(NO_CLUSTER.0);
    if !path.exists() && exists("apt-get") {
        fs::create_dir_all("/etc/postgresql-common")?;
        fs::write(path, NO_CLUSTER.1)?;
    }
    Ok(())
}

//! `cargo xtask peers`: installs and prints what `test` uses. What cannot be
//! had is named, and makes it fail.

use anyhow::Result;

use crate::{cache::Cache, peers};

pub(crate) fn run() -> Result<bool> {
    let cache = Cache::open()?;
    let peers = peers::Peers::install(&cache);
    peers::cargo_deny(&cache)?;
    for (name, path) in peers.list() {
        println!("export {name}={}", path.display());
    }
    Ok(peers.missing().is_empty())
}

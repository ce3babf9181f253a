//! `cargo xtask release-check`: the release binary's size and build time.

use std::{fs, path::PathBuf, time::Instant};

use anyhow::{Result, ensure};

use super::{build, one};
use crate::process::{cargo, run as execute};

/// The largest release binary, in bytes: it is downloaded whole, and copied
/// to machines with small disks.
const MAX_BYTES: u64 = 40_000_000;

/// The longest release build from nothing on two cores, in seconds.
const MAX_BUILD_SECONDS: u64 = 600;

pub(crate) fn run() -> Result<bool> {
    one("release", check)
}

fn check() -> Result<()> {
    let begun = Instant::now();
    let folder = cold_folder()?;
    execute(cargo().env("CARGO_TARGET_DIR", &folder).args(["build", "--locked", "--release"]))?;
    let seconds = begun.elapsed().as_secs();
    let binary = folder.join("release").join(build::binary_name());
    let bytes = fs::metadata(&binary)?.len();
    println!("  {} is {:.1} MB, built in {seconds} s", binary.display(), bytes as f64 / 1e6);
    ensure!(bytes < MAX_BYTES, "the release binary is {bytes} bytes, the limit {MAX_BYTES}");
    ensure!(
        seconds < MAX_BUILD_SECONDS,
        "the release build took {seconds} s, the limit is {MAX_BUILD_SECONDS} s"
    );
    Ok(())
}

/// An empty target folder, so that the time is that of a whole build.
fn cold_folder() -> Result<PathBuf> {
    let folder = build::target()?.join("release-check");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

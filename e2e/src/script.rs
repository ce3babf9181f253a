//! Clients that are written in JavaScript or Python, run as processes.

use std::path::Path;

use anyhow::Result;
use tokio::process::Command;

use crate::process::{command, peer};

/// Node.js in a folder of packages, with the hooks beside them loaded first.
pub fn node(folder: &Path, script: &str) -> Result<Command> {
    let mut node = command(peer("PINFOLD_E2E_NODEJS")?);
    node.current_dir(folder).args(["--no-warnings", "--import", "./hooks.mjs", script]);
    Ok(node)
}

/// The root of the checkout.
pub fn checkout() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("e2e is a folder of the checkout")
}

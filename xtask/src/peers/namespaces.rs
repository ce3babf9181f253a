//! Network namespaces: Linux, root and iproute2. Elsewhere their tests are
//! left out.

use std::process::Command;

use anyhow::Result;

use super::postgres::apt_install;
use crate::process::{exists_with, is_root, run};

/// Whether network namespaces can be made here; installs iproute2 where that
/// is all that is missing.
pub(crate) fn install() -> Result<bool> {
    if !cfg!(target_os = "linux") || !is_root() {
        return Ok(false);
    }
    if !exists_with("ip", "-Version") && !apt_install(&["iproute2"])? {
        return Ok(false);
    }
    Ok(probe())
}

/// Some containers have root without the right to make namespaces.
fn probe() -> bool {
    let name = format!("pf{}-probe", std::process::id());
    let made = run(Command::new("ip").args(["netns", "add", &name])).is_ok();
    made && run(Command::new("ip").args(["netns", "delete", &name])).is_ok()
}

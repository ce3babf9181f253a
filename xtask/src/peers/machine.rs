//! What tests need of the machine itself: network namespaces (Linux, root and
//! iproute2), a root that may mount, a C compiler, and curl. Elsewhere their tests are left out.

use std::process::Command;

use super::debian;
use crate::process::{exists, exists_with, is_root, run};

/// Whether network namespaces can be made here; installs iproute2 where that
/// is all that is missing.
pub(crate) fn namespaces() -> bool {
    if !cfg!(target_os = "linux") || !is_root() {
        return false;
    }
    if !exists_with("ip", "-Version") {
        debian::install(&["iproute2"]);
    }
    exists_with("ip", "-Version") && probe()
}

/// Whether tests can do what root alone may, which is to mount.
pub(crate) fn root() -> bool {
    if !cfg!(target_os = "linux") || !is_root() {
        return false;
    }
    if !exists("mount") {
        debian::install(&["mount"]);
    }
    exists("mount")
}

/// Whether there is curl, which the README's lines call.
pub(crate) fn curl() -> bool {
    if !exists("curl") {
        debian::install(&["curl"]);
    }
    exists("curl")
}

/// Whether a library can be built and loaded before the C library. Rust needs
/// a C compiler too, to link.
pub(crate) fn compiler() -> bool {
    cfg!(target_os = "linux") && exists("cc")
}

/// Some containers have root without the right to make namespaces.
fn probe() -> bool {
    let name = format!("pf{}-probe", std::process::id());
    let made = run(Command::new("ip").args(["netns", "add", &name])).is_ok();
    made && run(Command::new("ip").args(["netns", "delete", &name])).is_ok()
}

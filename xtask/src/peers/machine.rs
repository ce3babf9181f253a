//! What tests need of the machine itself: network namespaces (Linux, root,
//! iproute2 and nftables), a root that may mount, a C compiler, and curl.
//! Elsewhere their tests are left out.

use std::process::Command;

use super::debian;
use crate::process::{exists, exists_with, is_root, run};

/// Whether network namespaces can be made here, with routers between them;
/// installs iproute2 and nftables where that is all that is missing.
pub(crate) fn namespaces() -> bool {
    if !cfg!(target_os = "linux") || !is_root() {
        return false;
    }
    let tools = || exists_with("ip", "-Version") && exists_with("nft", "--version");
    if !tools() {
        debian::install(&["iproute2", "nftables"]);
    }
    tools() && probe()
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

/// Some containers have root without the right to make namespaces, and some
/// kernels translate no addresses.
fn probe() -> bool {
    const TRANSLATION: &str =
        "table ip nat { chain out { type nat hook postrouting priority srcnat; masquerade; }; }";
    let name = format!("pf{}-probe", std::process::id());
    let ip = |arguments: &[&str]| run(Command::new("ip").arg("netns").args(arguments)).is_ok();
    if !ip(&["add", &name]) {
        return false;
    }
    let translates = ip(&["exec", &name, "nft", TRANSLATION]);
    ip(&["delete", &name]) && translates
}

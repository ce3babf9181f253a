//! libfaketime, which gives a process another clock: Debian's package. Where
//! it cannot be had its tests are left out.

use std::path::PathBuf;

use super::debian;

/// Where Debian's package puts the library, for one architecture each.
const FOLDERS: &[&str] = &["/usr/lib/x86_64-linux-gnu/faketime", "/usr/lib/aarch64-linux-gnu/faketime"];

/// The variant for programs with threads.
const LIBRARY: &str = "libfaketimeMT.so.1";

/// The library; installs it where that is possible.
pub(crate) fn install() -> Option<PathBuf> {
    find().or_else(|| {
        debian::install(&["libfaketime"]);
        find()
    })
}

fn find() -> Option<PathBuf> {
    FOLDERS.iter().map(|folder| PathBuf::from(folder).join(LIBRARY)).find(|path| path.exists())
}

//! The store's directory: its lock, its format, its identity.

use std::fs::{File, TryLockError};
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io::{self, ErrorKind, Write as _};
use std::path::Path;

use crate::Error;

/// The format that this version writes. Of a newer one it knows nothing.
pub(crate) const FORMAT: u32 = 1;

/// What the first line of `VERSION` says.
const TITLE: &str = "pinfold blockstore";

/// Takes the directory's lock, which goes with the returned file.
pub(crate) fn lock(dir: &Path) -> Result<File, Error> {
    let path = dir.join("LOCK");
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|source| Error::Io { action: "open", path: path.clone(), source })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::Locked { path: dir.to_owned() }),
        Err(TryLockError::Error(source)) => Err(Error::Io { action: "lock", path, source }),
    }
}

/// The store's id. Writes `VERSION` where there is none, which is only right
/// while there are no segments.
pub(crate) fn identify(dir: &Path, has_segments: bool) -> Result<u64, Error> {
    let path = dir.join("VERSION");
    match std::fs::read_to_string(&path) {
        Ok(text) => parse(dir, &text),
        Err(source) if source.kind() != ErrorKind::NotFound => {
            Err(Error::Io { action: "read", path, source })
        }
        Err(_) if has_segments => Err(not_a_store(dir, "it has segments but no VERSION")),
        Err(_) => {
            let store = random();
            let text = format!("{TITLE}\nformat {FORMAT}\nstore {store:016x}\n");
            write_atomically(dir, &text).map_err(|source| Error::Io { action: "write", path, source })?;
            Ok(store)
        }
    }
}

fn parse(dir: &Path, text: &str) -> Result<u64, Error> {
    let mut lines = text.lines();
    if lines.next() != Some(TITLE) {
        return Err(not_a_store(dir, "its VERSION was not written by this program"));
    }
    let format = lines.next().and_then(|line| line.strip_prefix("format ")?.parse().ok());
    let Some(found) = format else {
        return Err(not_a_store(dir, "its VERSION names no format"));
    };
    if found > FORMAT {
        return Err(Error::NewerFormat { path: dir.to_owned(), found, known: FORMAT });
    }
    let store = lines.next().and_then(|line| u64::from_str_radix(line.strip_prefix("store ")?, 16).ok());
    store.ok_or_else(|| not_a_store(dir, "its VERSION names no store"))
}

/// The whole file or none of it, durably.
fn write_atomically(dir: &Path, text: &str) -> io::Result<()> {
    let draft = dir.join("VERSION.new");
    let mut file = File::create(&draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(draft, dir.join("VERSION"))?;
    File::open(dir)?.sync_all()
}

/// An id that no other store has: the standard library seeds its hashers from
/// the system's randomness.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

fn not_a_store(dir: &Path, reason: &str) -> Error {
    Error::NotAStore { path: dir.to_owned(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_owner() {
        let dir = tempfile::tempdir().unwrap();
        let held = lock(dir.path()).unwrap();
        assert!(matches!(lock(dir.path()), Err(Error::Locked { .. })));
        drop(held);
        lock(dir.path()).unwrap();
    }

    #[test]
    fn the_id_stays() {
        let dir = tempfile::tempdir().unwrap();
        let store = identify(dir.path(), false).unwrap();
        assert_eq!(identify(dir.path(), true).unwrap(), store);
        let other = tempfile::tempdir().unwrap();
        assert_ne!(identify(other.path(), false).unwrap(), store);
    }

    #[test]
    fn what_is_newer_or_foreign_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let check = |text: &str| {
            std::fs::write(dir.path().join("VERSION"), text).unwrap();
            identify(dir.path(), true).unwrap_err().to_string()
        };
        assert!(check("pinfold blockstore\nformat 2\nsomething else\n").contains("has format 2"));
        assert!(check("flatfs\n").contains("not written by this program"));
        assert!(check("pinfold blockstore\n").contains("names no format"));
        assert!(check("pinfold blockstore\nformat 1\n").contains("names no store"));
        std::fs::remove_file(dir.path().join("VERSION")).unwrap();
        let missing = identify(dir.path(), true).unwrap_err().to_string();
        assert!(missing.contains("segments but no VERSION"), "{missing}");
    }
}

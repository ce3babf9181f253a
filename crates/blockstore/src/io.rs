//! The files under a store, behind two small traits.
//!
//! [`DiskIo`] is what runs. Tests put a file system of their own underneath
//! that loses or tears what was not synced, or refuses to write.

use std::fmt::Debug;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, IoSlice, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::direct::{DIRECT_FROM, Direct};

/// One directory of append-only files.
pub trait Io: Debug + Send + Sync {
    /// The names of the files in the directory, in any order.
    ///
    /// # Errors
    /// The system's.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Creates a file, which must not exist. It is certain to exist after a
    /// power loss only once [`Io::sync_dir`] has returned.
    ///
    /// # Errors
    /// The system's.
    fn create(&self, name: &str) -> io::Result<Arc<dyn AppendFile>>;

    /// Opens an existing file.
    ///
    /// # Errors
    /// The system's.
    fn open(&self, name: &str) -> io::Result<Arc<dyn AppendFile>>;

    /// Removes a file. It is certain to be gone after a power loss only once
    /// [`Io::sync_dir`] has returned.
    ///
    /// # Errors
    /// The system's.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes creations and removals durable. `change` says which of them the
    /// store waits for.
    ///
    /// # Errors
    /// The system's.
    fn sync_dir(&self, change: DirChange) -> io::Result<()>;

    /// Where a file lies, for messages.
    fn path(&self, name: &str) -> PathBuf;
}

/// A file that grows at its end and is read anywhere.
pub trait AppendFile: Debug + Send + Sync {
    /// Its length in bytes.
    ///
    /// # Errors
    /// The system's.
    fn len(&self) -> io::Result<u64>;

    /// Whether it has no bytes.
    ///
    /// # Errors
    /// The system's.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Writes all of `parts` at the end. After an error any part of them may
    /// have been written.
    ///
    /// # Errors
    /// The system's.
    fn append(&self, parts: &mut [IoSlice<'_>]) -> io::Result<()>;

    /// Fills `buffer` from `offset` on.
    ///
    /// # Errors
    /// The system's; `UnexpectedEof` where the file ends before.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Makes the file's bytes and length durable. `moment` says what the store
    /// does next, relying on it.
    ///
    /// # Errors
    /// The system's. What was not durable before is then in an unknown state.
    fn sync(&self, moment: SyncMoment) -> io::Result<()>;

    /// Cuts the file to `len` bytes.
    ///
    /// # Errors
    /// The system's.
    fn truncate(&self, len: u64) -> io::Result<()>;
}

/// When a segment is synced. Each of these has its own reason, and leaving any
/// of them out loses something: the tests leave each of them out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncMoment {
    /// Before something is acknowledged, or the index moves to disk.
    Commit,
    /// Before the next segment is created: only the last one may be torn.
    Close,
    /// After opening: what the page cache shows may not be on disk yet, and
    /// what was cut off must not come back behind new records.
    Open,
}

/// Why the directory is synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirChange {
    /// A segment was created; what is acknowledged in it must not vanish.
    Created,
    /// A segment was removed; it must not come back after the memory of roots
    /// that were released in it is gone.
    Removed,
}

/// The most slices that one `writev` takes on Linux and macOS.
const MAX_SLICES: usize = 1024;

/// A directory of the operating system.
#[derive(Debug)]
pub struct DiskIo {
    dir: PathBuf,
}

impl DiskIo {
    /// Uses `dir`, and creates it, durably, where it does not exist.
    ///
    /// # Errors
    /// The system's.
    pub fn new(dir: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            File::open(parent)?.sync_all()?;
        }
        Ok(Self { dir: dir.to_owned() })
    }
}

impl Io for DiskIo {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.dir)? {
            // A name that is not UTF-8 is none of ours.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn AppendFile>> {
        DiskFile::open(self.dir.join(name), OpenOptions::new().create_new(true))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn AppendFile>> {
        DiskFile::open(self.dir.join(name), &mut OpenOptions::new())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.dir.join(name))
    }

    fn sync_dir(&self, _change: DirChange) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

/// A file opened for appending: every write goes to its end.
#[derive(Debug)]
struct DiskFile {
    file: File,
    path: PathBuf,
    large: Mutex<Large>,
}

/// How large appends are written.
#[derive(Debug)]
enum Large {
    /// There was none yet.
    Untried,
    /// Past the page cache.
    Direct(Direct),
    /// As the others: the file system has no other way.
    Buffered,
}

impl DiskFile {
    fn open(path: PathBuf, options: &mut OpenOptions) -> io::Result<Arc<dyn AppendFile>> {
        let file = options.read(true).append(true).open(&path)?;
        Ok(Arc::new(Self { file, path, large: Mutex::new(Large::Untried) }))
    }

    fn append_large(&self, parts: &mut [IoSlice<'_>]) -> io::Result<()> {
        let mut large = self.large.lock();
        if matches!(*large, Large::Untried) {
            *large = Direct::open(&self.path).map_or(Large::Buffered, Large::Direct);
        }
        let Large::Direct(direct) = &mut *large else { return self.append_buffered(parts) };
        if !direct.append(&self.file, self.len()?, parts)? {
            *large = Large::Buffered;
        }
        Ok(())
    }

    fn append_buffered(&self, parts: &mut [IoSlice<'_>]) -> io::Result<()> {
        let mut rest = parts;
        while !rest.is_empty() {
            let batch = rest.len().min(MAX_SLICES);
            match (&self.file).write_vectored(&rest[..batch]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut rest, written),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl AppendFile for DiskFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn append(&self, parts: &mut [IoSlice<'_>]) -> io::Result<()> {
        let total: usize = parts.iter().map(|part| part.len()).sum();
        if total < DIRECT_FROM { self.append_buffered(parts) } else { self.append_large(parts) }
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn sync(&self, moment: SyncMoment) -> io::Result<()> {
        if moment == SyncMoment::Close {
            // Nothing more is appended: its memory is given back.
            *self.large.lock() = Large::Untried;
        }
        // On macOS std's sync_data is F_FULLFSYNC, which reaches the platter.
        self.file.sync_data()
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
}

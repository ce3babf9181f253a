//! A disk with something in front of its reads.

use std::fmt;
use std::io::{self, IoSlice};
use std::path::PathBuf;
use std::sync::Arc;

use pinfold_blockstore::io::{AppendFile, DirChange, Io, SyncMoment};

/// What comes before each read: the file's name, the offset, the length. Its
/// error is the read's.
type Before = dyn Fn(&str, u64, usize) -> io::Result<()> + Send + Sync;

/// The disk.
pub(crate) struct Watched<D> {
    disk: D,
    before: Arc<Before>,
}

struct WatchedFile {
    file: Arc<dyn AppendFile>,
    name: String,
    before: Arc<Before>,
}

impl<D: Io> Watched<D> {
    pub(crate) fn new(
        disk: D,
        before: impl Fn(&str, u64, usize) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self { disk, before: Arc::new(before) }
    }

    fn file(&self, name: &str, file: Arc<dyn AppendFile>) -> Arc<dyn AppendFile> {
        Arc::new(WatchedFile { file, name: name.to_owned(), before: Arc::clone(&self.before) })
    }
}

impl<D: Io> fmt::Debug for Watched<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").field("disk", &self.disk).finish_non_exhaustive()
    }
}

impl fmt::Debug for WatchedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchedFile").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<D: Io> Io for Watched<D> {
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn AppendFile>> {
        Ok(self.file(name, self.disk.create(name)?))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn AppendFile>> {
        Ok(self.file(name, self.disk.open(name)?))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn sync_dir(&self, change: DirChange) -> io::Result<()> {
        self.disk.sync_dir(change)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.disk.path(name)
    }
}

impl AppendFile for WatchedFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn append(&self, parts: &mut [IoSlice<'_>]) -> io::Result<()> {
        self.file.append(parts)
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        (self.before)(&self.name, offset, buffer.len())?;
        self.file.read_exact_at(buffer, offset)
    }

    fn sync(&self, moment: SyncMoment) -> io::Result<()> {
        self.file.sync(moment)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.file.truncate(len)
    }
}

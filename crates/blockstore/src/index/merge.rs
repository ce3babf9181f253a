//! Moving changes to disk, merging the files that this leaves, and deleting
//! those that nobody needs.
//!
//! The tree leaves a file that it could not finish where it is until the index
//! is opened again. On a full disk that would be the last room there was, so
//! that such files are deleted at once.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use lsm_tree::AbstractTree as _;

use super::Index;
use crate::Error;

/// The size of one file of the index, in bytes: 60,000 blocks or so, and what
/// a compaction rewrites at least.
const TABLE_BYTES: u64 = 4 << 20;

/// The index is rewritten where more than this fraction of its entries are
/// removals: 1/8. Merging clears the others as it goes.
const MAX_REMOVED_FRACTION: u64 = 8;

/// Where the tree has its files, within the index's folder.
const TABLES: &str = "tables";

impl Index {
    /// Moves the changes before the last [`Index::rotate`] to disk, durably
    /// and all at once, and merges files where there are too many and the disk
    /// has room for it.
    pub(crate) fn flush(&self) -> Result<(), Error> {
        self.write_files(|| {
            let lock = self.tree.get_flush_lock();
            self.tree.flush(&lock, self.oldest_moment()).map(drop)
        })?;
        let merged = self.write_files(|| {
            let strategy = lsm_tree::compaction::Leveled::default().with_table_target_size(TABLE_BYTES);
            self.tree.compact(Arc::new(strategy), self.oldest_moment())
        });
        self.sweep()?;
        unless_full(merged)
    }

    /// Rewrites the index where much of it only says that something is gone,
    /// and the disk has room for it.
    pub(crate) fn compact(&self) -> Result<(), Error> {
        if self.tree.tombstone_count().saturating_mul(MAX_REMOVED_FRACTION)
            < self.tree.approximate_len() as u64
        {
            return Ok(());
        }
        let merged = self.write_files(|| self.tree.major_compact(TABLE_BYTES, self.oldest_moment()));
        self.sweep()?;
        unless_full(merged)
    }

    /// Deletes the files that only older versions of the tree have. A merge
    /// looks for such before it has made its own inputs some, and leaves them,
    /// as much as the index itself after a rewriting, to the next merge.
    fn sweep(&self) -> Result<(), Error> {
        let oldest = self.oldest_moment();
        let swept = self.tree.get_version_history_lock().maintenance(&self.dir, oldest);
        self.disk_bytes.store(self.tree.disk_space(), Ordering::Relaxed);
        self.outcome(swept)
    }

    /// Runs what writes files of the tree, and deletes those that it did not
    /// finish because the disk was full.
    fn write_files(&self, write: impl FnOnce() -> lsm_tree::Result<()>) -> Result<(), Error> {
        let before = self.files();
        let shared = self.writing.read();
        let outcome = self.outcome(write());
        drop(shared);
        // Another writer's files would look the same; it looks for them itself.
        if matches!(outcome, Err(Error::DiskFull { .. }))
            && let Some(_alone) = self.writing.try_write()
        {
            self.delete_unfinished(&before);
        }
        outcome
    }

    /// Deletes files that were not there before and are none of the tree's.
    fn delete_unfinished(&self, before: &HashSet<String>) {
        let version = self.tree.current_version();
        let finished: HashSet<String> = version.iter_tables().map(|table| table.id().to_string()).collect();
        for name in self.files().difference(before).filter(|name| !finished.contains(*name)) {
            let path = self.dir.join(TABLES).join(name);
            match std::fs::remove_file(&path) {
                Ok(()) => tracing::debug!(path = %path.display(), "deleted an unfinished file of the index"),
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "cannot delete an unfinished file of the index");
                }
            }
        }
    }

    /// The names of the tree's files; empty where they cannot be listed, and
    /// nothing is deleted by mistake: what the tree has is never deleted.
    fn files(&self) -> HashSet<String> {
        let entries = std::fs::read_dir(self.dir.join(TABLES)).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }
}

/// A merge can wait until there is room for it.
fn unless_full(merged: Result<(), Error>) -> Result<(), Error> {
    match merged {
        Err(Error::DiskFull { .. }) => Ok(()),
        other => other,
    }
}

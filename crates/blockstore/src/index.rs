//! The index: an LSM tree without a log, because the segments are its log.
//!
//! Changes go to memory; [`Index::rotate`] and [`Index::flush`] move all of
//! them to disk in one atomic step, together with the
//! [`Checkpoint`](crate::state::Checkpoint) that says up to where the index has
//! seen the segments. So what is on disk is always the state of one moment, and
//! never later than what the segments have synced.
//!
//! Keys begin with a letter: `b` block, `i` block without references, `x` lost
//! block, `r` root, `w` walk, `l` list chunk, `d` walk whose list is to be
//! released, `s` segment, `t` segment that is being cut off, `m` checkpoint.

mod entries;
mod merge;

use std::fs::File;
use std::io::ErrorKind;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lsm_tree::config::{
    BloomConstructionPolicy, FilterPolicy, FilterPolicyEntry, PartitioningPolicy, PinningPolicy,
};
use lsm_tree::{
    AbstractTree as _, AnyTree, Cache, Config, DescriptorTable, Guard as _, IterGuardImpl, SeqNo,
    SequenceNumberCounter, Slice,
};

use parking_lot::{Mutex, MutexGuard, RwLock};

use crate::Error;
use crate::overlay::{Change, Changes, Overlay};
use crate::state::{BlockEntry, Location, WalkId, chunk_key};
use entries::Key;

/// The most files of the index that are open at a time.
const MAX_OPEN: usize = 32;

/// Bits for each key in the filters that answer "not held" without a read:
/// one answer in a hundred is wrong and costs that read.
const FILTER_BITS: f32 = 10.0;

/// Reads see the newest change.
const NEWEST: SeqNo = SeqNo::MAX;

/// The index of one store.
pub(crate) struct Index {
    tree: AnyTree,
    overlay: Overlay,
    sequence: SequenceNumberCounter,
    /// Held by the one who moves changes from the overlay to the tree.
    settling: Mutex<()>,
    /// The moments at which somebody looks.
    watched: Mutex<Vec<SeqNo>>,
    disk_bytes: AtomicU64,
    /// Shared by those who write files of the tree.
    writing: RwLock<()>,
    dir: PathBuf,
    /// Where to leave word that the index is to be rebuilt.
    marker: PathBuf,
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Index").finish_non_exhaustive()
    }
}

/// A key, with its letter, and its value.
pub(crate) type Pair = (Slice, Slice);

/// Pairs of the index in the order of their keys, as of one moment.
pub(crate) struct Pairs(Box<dyn DoubleEndedIterator<Item = IterGuardImpl> + Send>);

impl Iterator for Pairs {
    type Item = Result<Pair, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.0.next()?.into_inner().map_err(|error| failed(&error)))
    }
}

impl Index {
    /// Opens or creates the index in `dir`.
    pub(crate) fn open(dir: &Path, cache_bytes: u64) -> Result<Self, Error> {
        let sequence = SequenceNumberCounter::default();
        let filter = FilterPolicyEntry::Bloom(BloomConstructionPolicy::BitsPerKey(FILTER_BITS));
        let tree = Config::new(dir, sequence.clone(), SequenceNumberCounter::default())
            .use_cache(Arc::new(Cache::with_capacity_bytes(cache_bytes)))
            .use_descriptor_table(Some(Arc::new(DescriptorTable::new(MAX_OPEN))))
            .filter_policy(FilterPolicy::all(filter))
            // Filters of the small upper levels stay in memory; of the large
            // ones below, parts go through the cache, whose size is bounded.
            .filter_block_pinning_policy(PinningPolicy::new([true, true, false]))
            .index_block_pinning_policy(PinningPolicy::new([true, true, false]))
            .filter_block_partitioning_policy(PartitioningPolicy::new([false, false, true]))
            .index_block_partitioning_policy(PartitioningPolicy::new([false, false, true]))
            .open()
            .map_err(|error| failed(&error))?;
        sequence.fetch_max(tree.get_highest_seqno().map_or(1, |highest| highest + 1));
        let disk_bytes = AtomicU64::new(tree.disk_space());
        Ok(Self {
            tree,
            overlay: Overlay::default(),
            sequence,
            settling: Mutex::new(()),
            watched: Mutex::default(),
            disk_bytes,
            writing: RwLock::default(),
            dir: dir.to_owned(),
            marker: marker(dir),
        })
    }

    /// Leaves word that the index is to be rebuilt at the next opening.
    pub(crate) fn mark_for_rebuild(&self) {
        let marked = File::create(&self.marker).and_then(|_| self.sync_marker());
        if let Err(error) = marked {
            let path = self.marker.display();
            tracing::error!(%error, %path, "cannot mark the index for rebuilding; delete it by hand");
        }
    }

    /// The index is whole.
    pub(crate) fn clear_mark(&self) -> Result<(), Error> {
        let removed = match std::fs::remove_file(&self.marker) {
            Err(source) if source.kind() == ErrorKind::NotFound => return Ok(()),
            Err(source) => Err(source),
            Ok(()) => self.sync_marker(),
        };
        removed.map_err(|source| Error::Io { action: "remove", path: self.marker.clone(), source })
    }

    fn sync_marker(&self) -> std::io::Result<()> {
        self.marker.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
    }

    fn get(&self, key: &Key) -> Result<Option<Slice>, Error> {
        match self.overlay.get(key.as_slice()) {
            Some(value) => Ok(value),
            None => self.outcome(self.tree.get(key.as_slice(), NEWEST)),
        }
    }

    /// The decoded value of `key`. One that does not decode has the index's
    /// own checksums right: something else wrote it.
    fn get_as<T>(&self, key: &Key, decode: fn(&[u8]) -> Option<T>) -> Result<Option<T>, Error> {
        let Some(value) = self.get(key)? else {
            return Ok(None);
        };
        decode(&value).map(Some).ok_or_else(|| {
            self.mark_for_rebuild();
            malformed()
        })
    }

    /// Turns the tree's error into ours; where more than space is missing, the
    /// index is rebuilt at the next opening.
    fn outcome<T>(&self, result: lsm_tree::Result<T>) -> Result<T, Error> {
        result.map_err(|error| {
            let error = failed(&error);
            if matches!(error, Error::Index { .. }) {
                self.mark_for_rebuild();
            }
            error
        })
    }

    fn set(&self, key: &Key, value: &[u8]) {
        self.overlay.set(key.as_slice(), value.into(), false);
    }

    /// Sets an entry that did not exist.
    fn add(&self, key: &Key, value: &[u8]) {
        self.overlay.set(key.as_slice(), value.into(), true);
    }

    fn remove(&self, key: &Key) {
        self.overlay.remove(key.as_slice());
    }

    /// Shows the tree, for iterating, all changes until now.
    pub(crate) fn settle_all(&self) {
        let _one_at_a_time = self.settling.lock();
        self.settle(&self.overlay.detach());
    }

    /// What the tree has now. A merge does not clear it away while this lives.
    fn now(&self) -> Snapshot<'_> {
        let mut watched = self.watched.lock();
        let moment = self.sequence.get();
        watched.push(moment);
        Snapshot { index: self, moment }
    }

    /// The index as of this moment. For the one who holds the writer, so that
    /// nothing is half done, and `checkpointing`, as for [`Index::pairs`].
    /// While it lives, changes that go to disk are kept in memory as well.
    pub(crate) fn snapshot(&self) -> Snapshot<'_> {
        self.settle_all();
        self.now()
    }

    /// The moment before which nobody looks.
    fn oldest_moment(&self) -> SeqNo {
        let watched = self.watched.lock();
        watched.iter().copied().min().unwrap_or_else(|| self.sequence.get())
    }

    /// Applies changes that were set apart to the tree, in memory.
    fn settle(&self, changes: &Changes) {
        // In order, neighbours are found in the processor's cache.
        let mut sorted: Vec<_> = changes.iter().collect();
        sorted.sort_unstable_by_key(|(key, _)| *key);
        for (key, change) in sorted {
            match change {
                Change::Set { value, .. } => {
                    self.tree.insert(key.as_ref(), value.clone(), self.sequence.next());
                }
                Change::Removed => {
                    self.tree.remove(key.as_ref(), self.sequence.next());
                }
            }
        }
        self.overlay.left();
    }

    /// All pairs whose key begins with `prefix`, as of now.
    ///
    /// A caller that holds the writer has to hold `checkpointing` too: a
    /// checkpoint waits for the writer while it keeps others from here.
    pub(crate) fn pairs(&self, prefix: &[u8]) -> Pairs {
        self.settle_all();
        self.now().pairs(prefix)
    }

    /// Up to `limit` pairs with this prefix after the key `after`, for those
    /// who take so long that they must not hold on to one moment's files.
    pub(crate) fn page(&self, prefix: u8, after: Option<&[u8]>, limit: usize) -> Result<Vec<Pair>, Error> {
        let start = after.map_or(Bound::Included([prefix].to_vec()), |after| Bound::Excluded(after.to_vec()));
        let range = (start, Bound::Excluded([prefix + 1].to_vec()));
        self.settle_all();
        let now = self.now();
        let pairs = Pairs(self.tree.range(range, now.moment, None));
        // An open iterator keeps its state to itself.
        drop(now);
        pairs.take(limit).collect()
    }

    /// Bytes that changes occupy in memory, roughly.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.tree.active_memtable().size() + self.overlay.bytes()
    }

    /// Bytes that the index occupies on disk, as of the last flush.
    pub(crate) fn disk_bytes(&self) -> u64 {
        self.disk_bytes.load(Ordering::Relaxed)
    }

    /// Begins to close the set of changes that the next [`Index::flush`]
    /// writes.
    pub(crate) fn rotate(&self) -> Rotation<'_> {
        Rotation { index: self, _one_at_a_time: self.settling.lock() }
    }
}

/// A set of changes that is being closed. It keeps the tree's part to itself.
pub(crate) struct Rotation<'a> {
    index: &'a Index,
    _one_at_a_time: MutexGuard<'a, ()>,
}

impl Rotation<'_> {
    /// These are the changes: all until now. For the one who holds the writer,
    /// so that nothing is half done.
    pub(crate) fn close(&self) -> Arc<Changes> {
        self.index.overlay.detach()
    }

    /// Sets the changes apart from those that come now. The writer is not
    /// needed for it.
    pub(crate) fn finish(self, changes: &Changes) {
        self.index.settle(changes);
        self.index.tree.rotate_memtable();
    }
}

/// The index as of one moment.
pub(crate) struct Snapshot<'a> {
    index: &'a Index,
    moment: SeqNo,
}

impl Drop for Snapshot<'_> {
    fn drop(&mut self) {
        let mut watched = self.index.watched.lock();
        if let Some(at) = watched.iter().position(|moment| *moment == self.moment) {
            watched.swap_remove(at);
        }
    }
}

impl Snapshot<'_> {
    /// All pairs whose key begins with `prefix`. Once open, they keep what
    /// they need to themselves.
    pub(crate) fn pairs(&self, prefix: &[u8]) -> Pairs {
        Pairs(self.index.tree.prefix(prefix, self.moment, None))
    }

    pub(crate) fn block(&self, multihash: &[u8]) -> Result<Option<BlockEntry>, Error> {
        self.get_as(&Key::new(b'b', multihash), BlockEntry::decode)
    }

    pub(crate) fn chunk(&self, walk: WalkId, number: u32) -> Result<Option<Location>, Error> {
        self.get_as(&Key::new(b'l', &chunk_key(walk, number)), Location::decode)
    }

    fn get_as<T>(&self, key: &Key, decode: fn(&[u8]) -> Option<T>) -> Result<Option<T>, Error> {
        let value = self.index.outcome(self.index.tree.get(key.as_slice(), self.moment))?;
        value.map(|value| decode(&value).ok_or_else(malformed)).transpose()
    }
}

/// Where word is left that the index in `dir` is to be rebuilt.
pub(crate) fn marker(dir: &Path) -> PathBuf {
    dir.with_extension("rebuild")
}

/// An entry of the index does not decode.
pub(crate) fn malformed() -> Error {
    Error::Index { reason: "an entry is malformed".into() }
}

fn failed(error: &lsm_tree::Error) -> Error {
    match error {
        lsm_tree::Error::Io(source)
            if matches!(source.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) =>
        {
            Error::DiskFull { path: "index".into() }
        }
        other => Error::Index { reason: other.to_string() },
    }
}

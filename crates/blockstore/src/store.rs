//! The store's handle.

use std::collections::HashSet;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

#[cfg(doc)]
use crate::RootState;
use crate::background::{Background, Signal};
use crate::index::malformed;
use crate::inner::{Inner, now};
use crate::io::{DiskIo, Io};
use crate::meter::Meter;
use crate::recover::recover;
use crate::reserve::Reserve;
use crate::roots::check_key;
use crate::segments::Segments;
use crate::state::{HeldList, RootEntry};
use crate::sync::{Covered, SyncPoint};
use crate::{
    Block, Check, Error, List, Multihash, Options, Reclaimed, RootInfo, Roots, Scrubbed, Usage, Walk, format,
};

/// An open block store. Clones share it; the last one to go, and the last
/// walk, sync and close it.
#[derive(Clone, Debug)]
pub struct Store(Arc<Handle>);

/// What goes with the last handle, in this order: the thread, the store, the
/// lock.
#[derive(Debug)]
struct Handle {
    background: Option<Background>,
    inner: Arc<Inner>,
    _lock: File,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.background = None;
        // An index that knows all makes the next opening quick; without it
        // that one replays.
        if let Err(error) = self.inner.checkpoint() {
            tracing::warn!(%error, "the block store was closed without its last checkpoint");
        }
    }
}

impl Store {
    /// Opens the store in `dir`, which is created if it does not exist.
    /// Replays what the index lacks; a torn tail is cut off and logged.
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::NewerFormat`], [`Error::NotAStore`], and
    /// those of reading and writing.
    pub fn open(dir: impl AsRef<Path>, options: Options) -> Result<Self, Error> {
        let dir = dir.as_ref();
        let segments = dir.join("segments");
        let created = DiskIo::new(dir).and_then(|_| DiskIo::new(&segments));
        let io = created.map_err(|source| Error::Io { action: "create", path: segments, source })?;
        Self::open_on(Arc::new(io), dir, options)
    }

    /// Opens the store in `dir` with its segments on `io` instead of in
    /// `dir/segments`: for tests of what a disk can do. Everything else is in
    /// `dir`, which has to exist.
    ///
    /// # Errors
    /// Those of [`Store::open`].
    pub fn open_on(io: Arc<dyn Io>, dir: impl AsRef<Path>, options: Options) -> Result<Self, Error> {
        let dir = dir.as_ref();
        let options = options.bounded();
        let lock = format::lock(dir)?;
        let store = format::identify(dir, !Segments::new(Arc::clone(&io), 0).list()?.is_empty())?;
        let reserve = Reserve::open(Arc::clone(&io), options.reserve_bytes)?;
        let segments = Segments::new(io, store);
        let recovered = match recover(dir, &segments, store, &options) {
            // A replay writes the index.
            Err(Error::DiskFull { .. }) if reserve.give_up() => recover(dir, &segments, store, &options)?,
            other => other?,
        };
        let sync = SyncPoint::default();
        let (segment, offset) = (recovered.writer.segment, recovered.writer.len);
        sync.advance(Covered { written: 0, segment, offset });
        let inner = Arc::new(Inner {
            options,
            store,
            segments,
            index: recovered.index,
            writer: Mutex::new(recovered.writer),
            sync,
            protected: Mutex::default(),
            walks: Mutex::default(),
            maintenance: Mutex::default(),
            checkpointing: Mutex::default(),
            reserve,
            signal: Signal::default(),
            lost: AtomicU64::new(recovered.lost),
            meter: Meter::new(),
        });
        inner.restore_reserve()?;
        let background = if inner.options.background { Some(start(&inner, dir)?) } else { None };
        Ok(Self(Arc::new(Handle { background, inner, _lock: lock })))
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.0.inner
    }

    /// Appends the blocks that are not held yet. They can be read when it
    /// returns; they are durable with the next sync. After an error some of
    /// them may be held.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::DiskFull`], [`Error::Poisoned`],
    /// [`Error::Io`], [`Error::Index`].
    pub fn put(&self, blocks: &[Block]) -> Result<(), Error> {
        self.inner().put(blocks)
    }

    /// The block's bytes, checked against their checksum, or `None` where it
    /// is not held. A damaged block is never returned: it becomes lost. So does
    /// one that the disk cannot read, while it can read others.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Index`].
    pub fn get(&self, multihash: &Multihash) -> Result<Option<Bytes>, Error> {
        self.inner().get(multihash)
    }

    /// Whether the block is held, from the index alone.
    ///
    /// # Errors
    /// [`Error::Index`].
    pub fn has(&self, multihash: &Multihash) -> Result<bool, Error> {
        Ok(self.size(multihash)?.is_some())
    }

    /// The block's length in bytes, from the index alone; `None` where it is
    /// not held.
    ///
    /// # Errors
    /// [`Error::Index`].
    pub fn size(&self, multihash: &Multihash) -> Result<Option<u64>, Error> {
        self.inner().held(multihash)
    }

    /// Begins or resumes the fetch of a root. What an unfinished walk of the
    /// same root referred to, and the list of a root that is held, stay
    /// protected until this one completes or is abandoned.
    ///
    /// # Errors
    /// [`Error::WalkInProgress`], [`Error::BadRootKey`], those of writing.
    pub fn begin(&self, root_key: &[u8]) -> Result<Walk, Error> {
        check_key(root_key)?;
        match self.inner().walks.lock().entry(root_key.to_vec()) {
            Entry::Occupied(_) => return Err(Error::WalkInProgress),
            Entry::Vacant(free) => drop(free.insert(now())),
        }
        Walk::begin(self.clone(), root_key).inspect_err(|_| {
            self.inner().walks.lock().remove(root_key);
        })
    }

    /// Forgets a root, whatever its state, and releases its references.
    /// Returns whether there was one. A walk that is going on ends with
    /// [`Error::Released`]. Durable when it returns.
    ///
    /// # Errors
    /// Those of writing and syncing.
    pub fn release(&self, root_key: &[u8]) -> Result<bool, Error> {
        check_key(root_key)?;
        let released = self.inner().release_root(root_key)?;
        released.map_or(Ok(false), |written| self.inner().sync_to(written).map(|()| true))
    }

    /// Makes everything that was put before durable. Calls at the same time
    /// share one sync.
    ///
    /// # Errors
    /// [`Error::Poisoned`], [`Error::Io`].
    pub fn sync(&self) -> Result<(), Error> {
        self.inner().sync_all()
    }

    /// What is known, durably, of a root.
    ///
    /// # Errors
    /// [`Error::Index`], [`Error::BadRootKey`], those of syncing.
    pub fn root(&self, root_key: &[u8]) -> Result<Option<RootInfo>, Error> {
        check_key(root_key)?;
        let Some(entry) = self.inner().index.root(root_key)? else {
            return Ok(None);
        };
        self.inner().make_durable(entry.location)?;
        let root = entry.root;
        Ok((!root.is_released()).then(|| RootInfo::of(root.held, &root.meta)))
    }

    /// All roots with their state, ordered by key, as they were, durably, at
    /// the call.
    ///
    /// # Errors
    /// Those of syncing.
    pub fn roots(&self) -> Result<Roots, Error> {
        let pairs = self.inner().index.pairs(b"r");
        self.inner().sync_all()?;
        Ok(Roots::new(pairs))
    }

    /// The list of a held root in the order of its walk; `None` where the
    /// root is not held.
    ///
    /// # Errors
    /// [`Error::Index`], [`Error::BadRootKey`].
    pub fn list(&self, root_key: &[u8]) -> Result<Option<List>, Error> {
        check_key(root_key)?;
        let held = self.inner().index.root(root_key)?.and_then(|entry| entry.root.held);
        Ok(held.map(|held| self.list_of(held)))
    }

    fn list_of(&self, held: HeldList) -> List {
        List::new(Arc::clone(&self.0.inner), held)
    }

    /// Up to `limit` lost blocks: referred to, found damaged, and not put
    /// again since. Survives a restart.
    ///
    /// # Errors
    /// [`Error::Index`].
    pub fn lost(&self, limit: usize) -> Result<Vec<Multihash>, Error> {
        let keys = self.inner().index.pairs(b"x").take(limit);
        keys.map(|pair| Multihash::from_bytes(&pair?.0[1..]).map_err(|_| malformed())).collect()
    }

    /// How many blocks, and lists of roots, were found damaged since the store
    /// was opened. Cheap; when it has grown, ask [`Store::lost`], and
    /// [`Store::roots`] for roots that are to be fetched again.
    #[must_use]
    pub fn lost_count(&self) -> u64 {
        self.inner().lost.load(Ordering::Relaxed)
    }

    /// The keys of the held roots whose lists have any of `multihashes`, and of
    /// those whose lists are damaged: they are in [`RootState::Fetching`] then.
    /// Reads every list: for repairs, not for every day.
    ///
    /// # Errors
    /// [`Error::Index`], [`Error::Io`].
    pub fn roots_with(&self, multihashes: &[Multihash]) -> Result<Vec<Vec<u8>>, Error> {
        let wanted: HashSet<Vec<u8>> = multihashes.iter().map(Multihash::to_bytes).collect();
        let mut roots = Vec::new();
        for pair in self.inner().index.pairs(b"r") {
            let (key, value) = pair?;
            let entry = RootEntry::decode(&value).ok_or_else(malformed)?;
            let Some(held) = entry.root.held else {
                continue;
            };
            let walk = held.walk;
            let affected = match self.lists_any(held, &wanted) {
                // What it lists is unknown, so it is walked again as a whole.
                Err(Error::Damaged { .. }) => self.inner().unhold(walk)?,
                other => other?,
            };
            if affected {
                roots.push(key[1..].to_vec());
            }
        }
        Ok(roots)
    }

    fn lists_any(&self, held: HeldList, wanted: &HashSet<Vec<u8>>) -> Result<bool, Error> {
        for multihash in self.list_of(held) {
            if wanted.contains(&multihash?.to_bytes()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Rereads every block and recomputes checksum and multihash, at most
    /// `bytes_per_second`, until `should_stop` says so. Damaged ones are lost.
    /// The lists of roots are reread too: a held root whose list is damaged is
    /// in [`RootState::Fetching`] again.
    ///
    /// # Errors
    /// [`Error::Index`], [`Error::Io`].
    pub fn scrub(&self, bytes_per_second: u64, should_stop: impl Fn() -> bool) -> Result<Scrubbed, Error> {
        self.scrub_from(&[], bytes_per_second, should_stop)
    }

    /// The same, beginning with the blocks whose multihashes are greater than
    /// these bytes, and ending with the others: what is broken off each time
    /// gets everywhere when it begins somewhere else each time.
    ///
    /// # Errors
    /// Those of [`Store::scrub`].
    pub fn scrub_from(
        &self,
        from: &[u8],
        bytes_per_second: u64,
        should_stop: impl Fn() -> bool,
    ) -> Result<Scrubbed, Error> {
        self.inner().scrub(from, bytes_per_second, &should_stop)
    }

    /// Removes blocks that have been without a reference for the reclaim
    /// delay, then compacts segments until little is wasted. Stops early, and
    /// safely, when `should_stop` says so.
    ///
    /// # Errors
    /// Those of reading, writing and syncing. Nothing that is referred to is
    /// lost by any of them.
    pub fn reclaim(&self, should_stop: impl Fn() -> bool) -> Result<Reclaimed, Error> {
        self.inner().reclaim(&should_stop)
    }

    /// What the store holds and occupies.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.inner().usage()
    }

    /// Recounts every block's references and the store's sums from the lists
    /// and compares, as of the call. Writers go on meanwhile, and
    /// [`Store::reclaim`] waits. What the index moves to disk in that time
    /// stays in memory until the end: some 80 bytes for each block put.
    ///
    /// # Errors
    /// [`Error::Index`], [`Error::Damaged`].
    pub fn check(&self) -> Result<Check, Error> {
        self.inner().check()
    }
}

fn start(inner: &Arc<Inner>, dir: &Path) -> Result<Background, Error> {
    Background::start(inner).map_err(|source| Error::Io {
        action: "start a thread for",
        path: dir.to_owned(),
        source,
    })
}

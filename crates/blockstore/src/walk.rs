//! The fetch of one root: references first, then blocks, then the state.

use std::collections::HashMap;

use crate::block::inherent;
use crate::roots::check_meta;
use crate::state::{HeldList, WalkId, push_multihash};
use crate::{Error, Multihash, RootInfo, Store};

/// How many references a chunk of the list has. So many are in memory only,
/// for each walk: some 100 KiB at most.
pub(crate) const CHUNK_REFERENCES: usize = 1024;

/// How many blocks that were not held when they were referred to a walk keeps
/// in mind, to look at these alone when it completes.
const MAX_MISSING: usize = 4096;

/// The fetch of one root. Send it where the fetch goes; it is used by one
/// thread at a time.
///
/// Dropping a walk leaves its root in [`RootState::Fetching`](crate::RootState)
/// with what it has referred to so far still protected; the next
/// [`Store::begin`](crate::Store::begin) resumes, and that walk goes from the
/// root again, finding the blocks held.
#[derive(Debug)]
pub struct Walk {
    store: Store,
    key: Vec<u8>,
    id: WalkId,
    chunks: u32,
    references: u64,
    /// References that no chunk has yet; they are in `Inner::protected`.
    pending: Vec<Multihash>,
    /// The lengths of the blocks that were held when their chunk was written.
    bytes: u64,
    /// Those that were not held then.
    missing: Vec<Multihash>,
    /// There were more of them, or blocks were lost: the list has to be looked
    /// through.
    is_uncertain: bool,
    /// [`Store::lost_count`] when the walk began.
    lost_before: u64,
    ended: bool,
}

impl Walk {
    /// Begins a walk of a root that has none; `key` is registered as walked.
    pub(crate) fn begin(store: Store, key: &[u8]) -> Result<Self, Error> {
        let lost_before = store.lost_count();
        let id = store.inner().begin_walk(key)?;
        Ok(Self {
            store,
            key: key.to_vec(),
            id,
            chunks: 0,
            references: 0,
            pending: Vec::new(),
            bytes: 0,
            missing: Vec::new(),
            is_uncertain: false,
            lost_before,
            ended: false,
        })
    }

    /// Takes a reference on each of `multihashes`: call it before the block is
    /// skipped as held, or fetched. From then on the block is not reclaimed.
    /// Each multihash is given once per walk, in the order of the walk; one
    /// that is given twice is counted twice.
    ///
    /// # Errors
    /// [`Error::Released`], and those of writing. The references that were
    /// given are taken nevertheless; the call is not to be repeated.
    pub fn reference(&mut self, multihashes: &[Multihash]) -> Result<(), Error> {
        for part in multihashes.chunks(CHUNK_REFERENCES) {
            self.protect(part);
            self.pending.extend_from_slice(part);
            self.references += part.len() as u64;
            if self.pending.len() >= CHUNK_REFERENCES {
                self.write_chunk()?;
            }
        }
        Ok(())
    }

    /// Makes the root held: writes what remains of its list, checks that every
    /// block of it is held, and makes all of it durable with `meta`, which is
    /// the caller's own. Replaces the list that the root had before. The walk
    /// is over then; after an error it can go on, and complete later.
    ///
    /// # Errors
    /// [`Error::Incomplete`] names the first missing block;
    /// [`Error::Released`]; [`Error::MetaTooLong`]; those of writing and
    /// syncing, after which nothing is acknowledged.
    pub fn complete(&mut self, meta: &[u8]) -> Result<RootInfo, Error> {
        check_meta(meta)?;
        if self.ended {
            return Err(Error::Released);
        }
        if !self.pending.is_empty() {
            self.write_chunk()?;
        }
        let held = self.sum_up()?;
        let inner = self.store.inner();
        let written = inner.hold(&self.key, held, meta)?;
        // From here on the list is the root's; whether it is durable is told
        // by the sync, which covers the blocks, the list and the state.
        self.end();
        self.store.inner().sync_to(written)?;
        Ok(RootInfo::of(Some(held), meta))
    }

    /// Gives the fetch up and releases its references. A root that was held
    /// before the walk stays held with its old list. Durable when it returns.
    ///
    /// # Errors
    /// Those of writing and syncing.
    pub fn abandon(mut self) -> Result<(), Error> {
        if self.ended {
            return Ok(());
        }
        let written = self.store.inner().give_up(&self.key, self.id)?;
        self.end();
        self.store.inner().sync_to(written)
    }

    /// How many references this walk has taken.
    #[must_use]
    pub fn references(&self) -> u64 {
        self.references
    }

    /// The root's key.
    #[must_use]
    pub fn root_key(&self) -> &[u8] {
        &self.key
    }

    /// Keeps blocks from being reclaimed until their chunk is written.
    fn protect(&self, multihashes: &[Multihash]) {
        let mut protected = self.store.inner().protected.lock();
        for multihash in multihashes.iter().filter(|multihash| inherent(multihash).is_none()) {
            *protected.entry(multihash.to_bytes().into()).or_default() += 1;
        }
    }

    fn unprotect_pending(&mut self) {
        let mut protected = self.store.inner().protected.lock();
        for multihash in self.pending.drain(..).filter(|multihash| inherent(multihash).is_none()) {
            let key: Box<[u8]> = multihash.to_bytes().into();
            if let Some(walks) = protected.get_mut(&key) {
                *walks -= 1;
                if *walks == 0 {
                    protected.remove(&key);
                }
            }
        }
        if protected.is_empty() {
            protected.shrink_to(CHUNK_REFERENCES);
        }
    }

    /// Writes the pending references as the list's next chunk.
    fn write_chunk(&mut self) -> Result<(), Error> {
        let mut payload = Vec::with_capacity(self.pending.len() * 36);
        self.pending.iter().for_each(|multihash| push_multihash(&mut payload, &multihash.to_bytes()));
        let inner = self.store.inner();
        let referred = inner.write_chunk(&self.key, self.id, self.chunks, &payload, &self.pending)?;
        self.chunks += 1;
        self.bytes += referred.bytes;
        self.missing.extend(referred.missing);
        if self.missing.len() > MAX_MISSING {
            self.missing = Vec::new();
            self.is_uncertain = true;
        }
        self.unprotect_pending();
        Ok(())
    }

    /// Adds up the list, every block of which has to be held. A block that was
    /// held when its chunk was written is held still, because nothing that is
    /// referred to is reclaimed; unless it was lost.
    fn sum_up(&mut self) -> Result<HeldList, Error> {
        if self.is_uncertain || self.store.lost_count() != self.lost_before {
            return self.sum_up_list();
        }
        let mut still_missing = Vec::new();
        for multihash in std::mem::take(&mut self.missing) {
            match self.store.inner().held(&multihash) {
                Ok(Some(bytes)) => self.bytes += bytes,
                Ok(None) => still_missing.push(multihash),
                Err(error) => {
                    self.is_uncertain = true;
                    return Err(error);
                }
            }
        }
        self.missing = still_missing;
        self.summed(self.bytes, self.missing.len() as u64, self.missing.first())
    }

    /// The same from the list as it was written.
    fn sum_up_list(&self) -> Result<HeldList, Error> {
        let inner = self.store.inner();
        let (mut bytes, mut missing, mut first) = (0, 0, None);
        for number in 0..self.chunks {
            for multihash in inner.expect_chunk(self.id, number)? {
                match inner.held(&multihash)? {
                    Some(len) => bytes += len,
                    None => {
                        missing += 1;
                        first.get_or_insert(multihash);
                    }
                }
            }
        }
        self.summed(bytes, missing, first.as_ref())
    }

    fn summed(&self, bytes: u64, missing: u64, first: Option<&Multihash>) -> Result<HeldList, Error> {
        match first {
            Some(first) => Err(Error::Incomplete { missing, total: self.references, first: *first }),
            None => Ok(HeldList { walk: self.id, chunks: self.chunks, blocks: self.references, bytes }),
        }
    }

    /// The walk is over; another one may begin.
    fn end(&mut self) {
        self.ended = true;
        self.unprotect_pending();
        self.store.inner().walks.lock().remove(&self.key);
    }
}

impl Drop for Walk {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        // Best effort: what is not written is protected by the reclaim delay,
        // and referred to again by the walk that resumes.
        if !self.pending.is_empty()
            && let Err(error) = self.write_chunk()
            && !matches!(error, Error::Released)
        {
            tracing::warn!(%error, "cannot write the references of an interrupted walk");
        }
        self.end();
    }
}

/// The roots that have a walk, and since when, in seconds of Unix time.
pub(crate) type Walks = HashMap<Vec<u8>, u64>;

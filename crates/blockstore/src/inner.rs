//! What an open store consists of, and how it writes.
//!
//! Locks, in the order in which they are taken: `maintenance` (reclaim and
//! compaction, one at a time), `checkpointing`, the index's own, `writer`,
//! `protected`, the reserve's own. Reads take none of them, but iterating over
//! the index takes the index's own: whoever does so with the writer held,
//! holds `checkpointing` first.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};

use crate::apply::Apply;
use crate::background::Signal;
use crate::block::inherent;
use crate::index::Index;
use crate::io::SyncMoment;
use crate::meter::{self, Meter};
use crate::record::Kind;
use crate::reserve::Reserve;
use crate::segments::{Read, Segments};
use crate::state::{BlockEntry, Location};
use crate::sync::{Covered, SyncPoint};
use crate::writer::{Draft, Writer};
use crate::{Block, Error, Multihash, Options, Usage};

/// The most that is appended at a time, in bytes: the writer is held for the
/// copy of so much into the page cache, some milliseconds.
const MAX_BATCH_BYTES: u64 = 8 << 20;

/// How much may wait for a sync before writers wait for it too, as a multiple
/// of [`Options::sync_bytes`]. It bounds what a power loss can take.
const MAX_UNSYNCED: u64 = 4;

/// How often a read goes back to the index because the record was moved
/// meanwhile. Each time is a whole compaction of its segment.
const MAX_MOVES: usize = 8;

/// An open store.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) options: Options,
    pub(crate) store: u64,
    pub(crate) segments: Segments,
    pub(crate) index: Index,
    pub(crate) writer: Mutex<Writer>,
    pub(crate) sync: SyncPoint,
    pub(crate) protected: Mutex<Protected>,
    pub(crate) walks: Mutex<crate::walk::Walks>,
    pub(crate) maintenance: Mutex<()>,
    pub(crate) checkpointing: Mutex<()>,
    pub(crate) reserve: Reserve,
    pub(crate) signal: Signal,
    pub(crate) lost: AtomicU64,
    pub(crate) meter: Meter,
}

/// Blocks that walks refer to and whose list chunk is not written yet, with
/// how many walks do. They are not reclaimed.
pub(crate) type Protected = HashMap<Box<[u8]>, u32>;

impl Inner {
    /// Appends the blocks that are not held.
    pub(crate) fn put(&self, blocks: &[Block]) -> Result<(), Error> {
        let keys: Vec<Vec<u8>> = blocks.iter().map(|block| block.multihash().to_bytes()).collect();
        let drafts: Vec<Draft<'_>> = blocks
            .iter()
            .zip(&keys)
            .filter(|(block, _)| inherent(block.multihash()).is_none())
            .map(|(block, key)| Draft::new(Kind::Block, key, block.bytes()))
            .collect();
        let mut rest = drafts.as_slice();
        while !rest.is_empty() {
            let (batch, later) = rest.split_at(batch_len(rest));
            self.put_batch(batch)?;
            rest = later;
        }
        Ok(())
    }

    fn put_batch(&self, drafts: &[Draft<'_>]) -> Result<(), Error> {
        if !self.reserve.is_made() {
            self.reserve.retry(self.usage().disk_bytes)?;
        }
        let mut writer = self.lock_writer()?;
        let mut seen = HashSet::with_capacity(drafts.len());
        let mut wanted = Vec::with_capacity(drafts.len());
        for draft in drafts {
            let is_held = self.index.block(draft.key)?.is_some_and(|entry| entry.location().is_some());
            if !is_held && seen.insert(draft.key) {
                wanted.push(*draft);
            }
        }
        if wanted.is_empty() {
            return Ok(());
        }
        let needed = wanted.iter().map(Draft::len).sum();
        self.check_capacity(&writer, needed)?;
        self.reserve.check()?;
        // The reserve is not for blocks, but for what makes room for them.
        let appended = self.try_append(&mut writer, &wanted);
        let locations = appended.inspect_err(|error| {
            self.make_room(error);
        })?;
        let mut apply = self.apply(&mut writer);
        for (draft, location) in wanted.iter().zip(locations) {
            self.applied(apply.block(draft.key, location))?;
        }
        self.meter.put(wanted.len(), needed);
        drop(writer);
        self.after_write()
    }

    /// The writer, where writing is possible.
    pub(crate) fn lock_writer(&self) -> Result<MutexGuard<'_, Writer>, Error> {
        let writer = self.writer.lock();
        self.sync.check()?;
        Ok(writer)
    }

    /// What changes index and sums, for the one who holds the writer.
    pub(crate) fn apply<'a>(&'a self, writer: &'a mut Writer) -> Apply<'a> {
        Apply { index: &self.index, ledger: &mut writer.ledger, now: now() }
    }

    /// Passes on what [`Apply`] answered. After an error the index in memory
    /// may be half changed, so that nothing more may be written from it.
    pub(crate) fn applied<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        result.inspect_err(|error| {
            self.sync.poison(error);
            self.index.mark_for_rebuild();
        })
    }

    /// Runs `work`, and once more where the disk was full and the reserve has
    /// made room.
    pub(crate) fn with_room<T>(&self, mut work: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
        match work() {
            Err(error) if self.make_room(&error) => work(),
            other => other,
        }
    }

    /// Gives the reserve up if the disk is full. Returns whether there is more
    /// room now.
    fn make_room(&self, error: &Error) -> bool {
        matches!(error, Error::DiskFull { .. }) && self.sync.check().is_ok() && self.reserve.give_up()
    }

    /// Makes the reserve again where there is room for it.
    pub(crate) fn restore_reserve(&self) -> Result<(), Error> {
        self.reserve.restore(self.usage().disk_bytes)
    }

    /// Appends records, all or none, from the reserve where the disk is full.
    pub(crate) fn append(&self, writer: &mut Writer, drafts: &[Draft<'_>]) -> Result<Vec<Location>, Error> {
        self.with_room(|| self.try_append(writer, drafts))
    }

    /// Appends records, all or none; the open segment is closed before where
    /// it would grow too long.
    pub(crate) fn try_append(
        &self,
        writer: &mut Writer,
        drafts: &[Draft<'_>],
    ) -> Result<Vec<Location>, Error> {
        let bytes: u64 = drafts.iter().map(Draft::len).sum();
        if writer.len > 0 && writer.len + bytes > self.options.segment_bytes {
            self.roll(writer)?;
        }
        let synced = u32::try_from(self.sync.offset_in(writer.segment)).unwrap_or(u32::MAX);
        writer.append(&self.segments, drafts, synced).map_err(|failure| {
            if failure.spoilt {
                self.sync.poison(&failure.error);
            }
            failure.error
        })
    }

    /// Closes the open segment, durably, and begins the next one. So that only
    /// the last segment can have a torn tail, this waits for the sync.
    pub(crate) fn roll(&self, writer: &mut Writer) -> Result<(), Error> {
        self.sync_segment(writer)?;
        let next = writer.segment + 1;
        let file = self.with_room(|| self.segments.create(next))?;
        writer.file = file;
        writer.segment = next;
        writer.len = 0;
        writer.ledger.set_len(next, 0);
        self.sync.advance(Covered { written: writer.written, segment: next, offset: 0 });
        Ok(())
    }

    /// Syncs the open segment with the writer held.
    fn sync_segment(&self, writer: &Writer) -> Result<(), Error> {
        if self.sync.synced() >= writer.written {
            return Ok(());
        }
        let result = meter::timed(|| writer.file.sync(SyncMoment::Close));
        result.map_err(|source| {
            let error = self.segments.failed("sync", writer.segment, source);
            self.sync_failed(writer, &error);
            error
        })
    }

    /// Makes the log durable as far as `written`.
    pub(crate) fn sync_to(&self, written: u64) -> Result<(), Error> {
        self.sync.reach(written, || {
            let (file, covered) = {
                let writer = self.writer.lock();
                let covered =
                    Covered { written: writer.written, segment: writer.segment, offset: writer.len };
                (Arc::clone(&writer.file), covered)
            };
            meter::timed(|| file.sync(SyncMoment::Commit)).map_err(|source| {
                let error = self.segments.failed("sync", covered.segment, source);
                self.sync_failed(&self.writer.lock(), &error);
                error
            })?;
            Ok(covered)
        })
    }

    /// After a failed sync the page cache may show bytes that the disk does
    /// not have, and the next sync would not say so. Nothing more is written,
    /// and they are cut off, so that whoever opens the store next does not
    /// build on them.
    fn sync_failed(&self, writer: &Writer, error: &Error) {
        self.sync.poison(error);
        let offset = self.sync.offset_in(writer.segment);
        if let Err(error) = writer.file.truncate(offset) {
            tracing::error!(segment = writer.segment, %error, "cannot cut off what a failed sync left behind");
        }
    }

    /// Makes everything durable that was written before.
    pub(crate) fn sync_all(&self) -> Result<(), Error> {
        let written = self.writer.lock().written;
        self.sync_to(written)
    }

    /// Makes sure that the record at `location` is durable.
    pub(crate) fn make_durable(&self, location: Location) -> Result<(), Error> {
        self.sync.check()?;
        if self.sync.covers(location.segment, location.offset.into()) { Ok(()) } else { self.sync_all() }
    }

    /// Tells the background what was written, or does its work where there is
    /// none or where it falls behind.
    pub(crate) fn after_write(&self) -> Result<(), Error> {
        let (unsynced, memory) = self.backlog();
        let (sync_bytes, memory_bytes) = (self.options.sync_bytes, self.options.index_memory_bytes);
        let is_due = unsynced >= sync_bytes || memory >= memory_bytes;
        let is_behind = unsynced >= sync_bytes.saturating_mul(MAX_UNSYNCED) || memory >= memory_bytes * 2;
        if is_behind || (is_due && !self.options.background) {
            return self.catch_up();
        }
        self.signal.written(is_due);
        Ok(())
    }

    /// Syncs, and moves the index to disk where it has grown.
    pub(crate) fn catch_up(&self) -> Result<(), Error> {
        let (unsynced, memory) = self.backlog();
        if unsynced >= self.options.sync_bytes {
            self.sync_all()?;
        }
        if memory >= self.options.index_memory_bytes {
            self.checkpoint()?;
        }
        Ok(())
    }

    /// Bytes that wait for a sync, and bytes of index in memory.
    pub(crate) fn backlog(&self) -> (u64, u64) {
        let written = self.writer.lock().written;
        (written.saturating_sub(self.sync.synced()), self.index.memory_bytes())
    }

    /// Moves the index to disk: it then knows all that is written by now, and
    /// all of that is durable.
    pub(crate) fn checkpoint(&self) -> Result<(), Error> {
        let _one_at_a_time = self.checkpointing.lock();
        let rotation = self.index.rotate();
        let (written, changes) = {
            let mut writer = self.lock_writer()?;
            let (segment, offset) = (writer.segment, writer.len);
            let offset = u32::try_from(offset).expect("segments are closed before 4 GiB");
            writer.ledger.save(&self.index, self.store, segment, offset);
            (writer.written, rotation.close())
        };
        rotation.finish(&changes);
        self.sync_to(written)?;
        self.with_room(|| self.index.flush())
    }

    /// The block's bytes, or `None` where it is not held, or lost by now.
    pub(crate) fn get(&self, multihash: &Multihash) -> Result<Option<Bytes>, Error> {
        if let Some(bytes) = inherent(multihash) {
            return Ok(Some(bytes));
        }
        let key = multihash.to_bytes();
        let mut last = None;
        for _ in 0..MAX_MOVES {
            let Some(location) = self.index.block(&key)?.and_then(|entry| entry.location()) else {
                return Ok(None);
            };
            let damage = match self.segments.read(Kind::Block, &key, location) {
                Ok(Read::Intact(bytes)) => {
                    self.meter.get(bytes.len());
                    return Ok(Some(bytes));
                }
                Ok(Read::Damaged(damage)) => damage,
                Err(error) => self.segments.unreadable(location.segment, error)?,
            };
            // Compaction may have moved it between the two reads.
            if last == Some(location) {
                self.lose(&key, location, damage)?;
                return Ok(None);
            }
            last = Some(location);
        }
        Ok(None)
    }

    /// The block's entry, where it is held.
    pub(crate) fn held(&self, multihash: &Multihash) -> Result<Option<u64>, Error> {
        if let Some(bytes) = inherent(multihash) {
            return Ok(Some(bytes.len() as u64));
        }
        let entry = self.index.block(&multihash.to_bytes())?;
        Ok(entry.and_then(|entry| entry.location()).map(|location| location.len.into()))
    }

    /// The record at `location` is damaged: if the block is still there, it is
    /// lost.
    pub(crate) fn lose(&self, key: &[u8], location: Location, damage: &str) -> Result<(), Error> {
        let mut writer = self.writer.lock();
        if self.sync.check().is_err() {
            // What a failed sync cut off is no news, and nothing may change.
            return Ok(());
        }
        let Some(entry) = self.index.block(key)?.filter(|entry| entry.location() == Some(location)) else {
            return Ok(());
        };
        let Location { segment, offset, .. } = location;
        let multihash = hex(key);
        tracing::warn!(multihash, segment, offset, damage, "lost a block; it has to be fetched again");
        self.apply(&mut writer).lose_block(key, entry, location);
        self.count_lost();
        Ok(())
    }

    /// One more block was found damaged.
    pub(crate) fn count_lost(&self) {
        self.lost.fetch_add(1, Ordering::Relaxed);
        self.meter.lost();
    }

    /// What the store holds and occupies.
    pub(crate) fn usage(&self) -> Usage {
        let writer = self.writer.lock();
        Usage {
            blocks: writer.ledger.sums.blocks,
            block_bytes: writer.ledger.sums.block_bytes,
            disk_bytes: self.disk_bytes(&writer),
            capacity_bytes: self.options.capacity_bytes,
        }
    }

    fn disk_bytes(&self, writer: &Writer) -> u64 {
        writer.ledger.total().len + self.index.disk_bytes()
    }

    fn check_capacity(&self, writer: &Writer, needed: u64) -> Result<(), Error> {
        let (used, capacity) = (self.disk_bytes(writer), self.options.capacity_bytes);
        match used.checked_add(needed) {
            Some(sum) if sum <= capacity => Ok(()),
            _ => Err(Error::Full { needed, used, capacity }),
        }
    }

    /// Whether a walk refers to the block that has not written so yet.
    pub(crate) fn is_referred_to(protected: &Protected, key: &[u8], entry: &BlockEntry) -> bool {
        entry.refs > 0 || protected.contains_key(key)
    }
}

/// How many of `drafts` are appended at a time; at least one.
fn batch_len(drafts: &[Draft<'_>]) -> usize {
    let mut bytes = 0;
    let fitting = drafts.iter().take_while(|draft| {
        bytes += draft.len();
        bytes <= MAX_BATCH_BYTES
    });
    fitting.count().max(1)
}

/// Seconds of Unix time.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Bytes as they are logged.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

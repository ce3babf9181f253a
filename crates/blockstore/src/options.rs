//! How a store is opened.

use std::time::Duration;

use crate::{Multihash, block};

/// Settings of a [`Store`](crate::Store). All of them may differ from one
/// opening to the next.
#[derive(Clone, Debug)]
pub struct Options {
    /// The most that the store may occupy on disk, in bytes: segments and
    /// index, with what waits to be reclaimed. Blocks beyond it are refused
    /// with [`Error::Full`](crate::Error::Full); the few bytes that are needed
    /// to release roots and to compact are not.
    pub capacity_bytes: u64,
    /// The most that is set aside, in bytes, on top of the capacity, so that
    /// roots can be released and space reclaimed when the disk is full: a
    /// 256th of what the store occupies, at least 4 MiB, at most this, and at
    /// most a 64th of the capacity. 0 for none.
    pub reserve_bytes: u64,
    /// The size at which a segment is closed and the next one begun, in
    /// bytes; at most 2 GiB. A segment exceeds it by at most one batch.
    pub segment_bytes: u64,
    /// How much is written, in bytes, before a sync is begun in the
    /// background.
    pub sync_bytes: u64,
    /// How long a block stays after its last reference is gone, so that a pin
    /// which replaces another, or comes back, finds its blocks.
    pub reclaim_delay: Duration,
    /// Memory for cached parts of the index, in bytes.
    pub cache_bytes: u64,
    /// The index's changes are kept in memory up to this size, in bytes,
    /// before they are moved to disk.
    pub index_memory_bytes: u64,
    /// Whether a thread of the store syncs in the background. Without it the
    /// writer that exceeds `sync_bytes` does it itself: for tools and tests
    /// that need every step in order.
    pub background: bool,
    /// How scrub recomputes a multihash: whether the bytes have it, or `None`
    /// where its hash function is not known. The default knows those of
    /// [`Block::verify`](crate::Block::verify); a caller that puts blocks
    /// under others, verified by itself, brings its own.
    pub verifier: fn(&Multihash, &[u8]) -> Option<bool>,
}

/// The longest segment, in bytes, that offsets of 32 bits and one batch above
/// the limit leave room for.
const MAX_SEGMENT_BYTES: u64 = 2 << 30;

/// A small store has a smaller reserve.
const MIN_CAPACITY_PER_RESERVE: u64 = 64;

impl Options {
    /// These options with what cannot work replaced by what can.
    pub(crate) fn bounded(mut self) -> Self {
        self.segment_bytes = self.segment_bytes.min(MAX_SEGMENT_BYTES);
        self.reserve_bytes = self.reserve_bytes.min(self.capacity_bytes / MIN_CAPACITY_PER_RESERVE);
        self
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            capacity_bytes: u64::MAX,
            reserve_bytes: 16 << 20,
            segment_bytes: 256 << 20,
            sync_bytes: 16 << 20,
            reclaim_delay: Duration::from_secs(3600),
            cache_bytes: 4 << 20,
            index_memory_bytes: 4 << 20,
            background: true,
            verifier: |multihash, bytes| block::matches(multihash, bytes).ok(),
        }
    }
}

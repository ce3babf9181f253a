//! The store's sums: what every segment occupies, and how much of it lives.
//!
//! They are kept in memory and written to the index with each checkpoint, so
//! that they belong to the same moment as everything else in it.

use std::collections::{BTreeMap, BTreeSet};

use crate::Error;
use crate::index::{Index, malformed};
use crate::record;
use crate::state::{Checkpoint, Location, SegmentStat, Sums, WalkId};

/// Sums of one store.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    segments: BTreeMap<u32, SegmentStat>,
    changed: BTreeSet<u32>,
    total: SegmentStat,
    pub(crate) sums: Sums,
    pub(crate) next_walk: WalkId,
    pub(crate) sequence: u64,
}

impl Ledger {
    /// The ledger as of the index's checkpoint.
    pub(crate) fn load(index: &Index, checkpoint: &Checkpoint) -> Result<Self, Error> {
        let mut ledger = Self {
            sums: checkpoint.sums,
            next_walk: checkpoint.next_walk,
            sequence: checkpoint.sequence,
            ..Self::default()
        };
        for pair in index.pairs(b"s") {
            let (key, value) = pair?;
            let segment = key.get(1..).and_then(|key| key.try_into().ok()).map(u32::from_be_bytes);
            let (Some(segment), Some(stat)) = (segment, SegmentStat::decode(&value)) else {
                return Err(malformed());
            };
            ledger.total.len += stat.len;
            ledger.total.live += stat.live;
            ledger.segments.insert(segment, stat);
        }
        Ok(ledger)
    }

    /// Writes what changed, and the checkpoint, to the index.
    pub(crate) fn save(&mut self, index: &Index, store: u64, segment: u32, offset: u32) {
        for segment in std::mem::take(&mut self.changed) {
            match self.segments.get(&segment) {
                Some(stat) => index.set_segment(segment, *stat),
                None => index.remove_segment(segment),
            }
        }
        index.set_checkpoint(&Checkpoint {
            store,
            segment,
            offset,
            sequence: self.sequence,
            next_walk: self.next_walk,
            sums: self.sums,
        });
    }

    /// All segments by number.
    pub(crate) fn segments(&self) -> &BTreeMap<u32, SegmentStat> {
        &self.segments
    }

    /// Sums over all segments.
    pub(crate) fn total(&self) -> SegmentStat {
        self.total
    }

    /// A segment now has `len` bytes.
    pub(crate) fn set_len(&mut self, segment: u32, len: u64) {
        self.changed.insert(segment);
        let stat = self.segments.entry(segment).or_default();
        self.total.len = self.total.len - stat.len + len;
        stat.len = len;
    }

    /// The record of a key of `key_len` bytes at `location` lives.
    pub(crate) fn add_live(&mut self, key_len: usize, location: Location) {
        let bytes = record::record_len(key_len as u64, location.len.into());
        self.changed.insert(location.segment);
        self.segments.entry(location.segment).or_default().live += bytes;
        self.total.live += bytes;
    }

    /// The record of a key of `key_len` bytes at `location` is dead.
    pub(crate) fn end_live(&mut self, key_len: usize, location: Location) {
        let bytes = record::record_len(key_len as u64, location.len.into());
        // A segment that is gone takes its bytes with it.
        if let Some(stat) = self.segments.get_mut(&location.segment) {
            self.changed.insert(location.segment);
            stat.live = stat.live.saturating_sub(bytes);
            self.total.live = self.total.live.saturating_sub(bytes);
        }
    }

    /// A segment is about to be deleted.
    pub(crate) fn remove(&mut self, segment: u32) {
        if let Some(stat) = self.segments.remove(&segment) {
            self.changed.insert(segment);
            self.total.len -= stat.len;
            self.total.live -= stat.live;
        }
    }

    /// The oldest segment.
    pub(crate) fn oldest(&self) -> Option<u32> {
        self.segments.keys().next().copied()
    }
}

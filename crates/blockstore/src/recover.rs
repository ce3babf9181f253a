//! Opening a store: what the index lacks is replayed from the segments.
//!
//! The index on disk is the state of one checkpoint. Records after it are
//! applied again; index changes after it that no record carries (a list that
//! was being released, a block that was reclaimed) are simply done once more.
//! An index that is missing, broken, marked, another store's, older than the
//! deletion of a segment, or knows a segment longer than it is, is thrown away
//! and rebuilt from all segments.
//!
//! Only the last segment can have a torn tail, because a segment is synced
//! before the next one is created. What is torn was never acknowledged, and is
//! cut off. Damage elsewhere, or before a point that a later record knows to
//! have been durable, is the disk's: it is skipped, logged, and what it held
//! becomes lost.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use crate::apply::Apply;
use crate::index::{self, Index, malformed};
use crate::inner::{hex, now};
use crate::io::{AppendFile, SyncMoment};
use crate::ledger::Ledger;
use crate::record::{Head, Kind};
use crate::scan::{Found, Scan};
use crate::segments::{Read, Segments};
use crate::state::{
    BlockEntry, Checkpoint, Location, Place, Root, RootEntry, WalkId, chunk_key, parse_chunk, parse_chunk_key,
};
use crate::writer::Writer;
use crate::{Error, Multihash, Options};

/// What opening yields.
pub(crate) struct Recovered {
    pub(crate) index: Index,
    pub(crate) writer: Writer,
    /// Blocks of held roots that were found missing.
    pub(crate) lost: u64,
}

/// A store while it is being opened.
struct Recovery<'a> {
    segments: &'a Segments,
    index: Index,
    ledger: Ledger,
    store: u64,
    index_memory_bytes: u64,
    /// Something was skipped, or all was replayed: cross-references have to
    /// be looked through.
    doubtful: bool,
    lost: u64,
}

/// Opens the index in `dir` and brings it up to date.
pub(crate) fn recover(
    dir: &Path,
    segments: &Segments,
    store: u64,
    options: &Options,
) -> Result<Recovered, Error> {
    let existing = segments.list()?;
    let (index, checkpoint) =
        open_index(&dir.join("index"), options.cache_bytes, store, segments, &existing)?;
    let ledger = match &checkpoint {
        Some(checkpoint) => Ledger::load(&index, checkpoint)?,
        None => Ledger::default(),
    };
    let doubtful = checkpoint.is_none() && !existing.is_empty();
    let index_memory_bytes = options.index_memory_bytes;
    let mut recovery = Recovery { segments, index, ledger, store, index_memory_bytes, doubtful, lost: 0 };
    let checkpoint = checkpoint.unwrap_or_default();
    let existing = recovery.delete_leftovers(existing, &checkpoint)?;
    recovery.measure_cut()?;
    let tail = recovery.replay(&existing, &checkpoint)?;
    if recovery.doubtful {
        recovery.reconcile()?;
    }
    let (file, segment, len) = recovery.open_tail(tail, &checkpoint, options.segment_bytes)?;
    recovery.checkpoint(segment, len)?;
    recovery.index.clear_mark()?;
    let Recovery { index, ledger, lost, .. } = recovery;
    Ok(Recovered { index, writer: Writer::new(file, segment, len, ledger), lost })
}

/// The index and its checkpoint, or an empty one where it cannot be trusted.
fn open_index(
    dir: &Path,
    cache_bytes: u64,
    store: u64,
    segments: &Segments,
    existing: &[u32],
) -> Result<(Index, Option<Checkpoint>), Error> {
    let marker = index::marker(dir);
    if !marker.exists() {
        match trusted_index(dir, cache_bytes, store, segments, existing) {
            Ok(index) => return Ok(index),
            Err(reason) => tracing::warn!(%reason, "rebuilding the block store's index from its segments"),
        }
    }
    let failed = |source| Error::Io { action: "remove", path: dir.to_owned(), source };
    if dir.exists() {
        std::fs::remove_dir_all(dir).map_err(failed)?;
    }
    let index = Index::open(dir, cache_bytes)?;
    // Until it is whole: whoever comes after a crash starts over.
    index.mark_for_rebuild();
    Ok((index, None))
}

fn trusted_index(
    dir: &Path,
    cache_bytes: u64,
    store: u64,
    segments: &Segments,
    existing: &[u32],
) -> Result<(Index, Option<Checkpoint>), String> {
    let index = Index::open(dir, cache_bytes).map_err(|error| error.to_string())?;
    let Some(checkpoint) = index.checkpoint().map_err(|error| error.to_string())? else {
        return if existing.is_empty() { Ok((index, None)) } else { Err("it is not complete".into()) };
    };
    if checkpoint.store != store {
        return Err("it belongs to another store".into());
    }
    let ledger = Ledger::load(&index, &checkpoint).map_err(|error| error.to_string())?;
    if let Some(segment) = ledger.segments().keys().find(|segment| existing.binary_search(segment).is_err()) {
        return Err(format!("it names segment {segment}, which does not exist"));
    }
    let being_cut = being_cut(&index).map_err(|error| error.to_string())?;
    for (segment, stat) in ledger.segments() {
        let len = segments.file(*segment).map_err(|error| error.to_string())?.len();
        let len = len.map_err(|error| format!("segment {segment} cannot be read: {error}"))?;
        if len < stat.len && !being_cut.contains(segment) {
            return Err(format!("segment {segment} has {len} bytes, and had {}", stat.len));
        }
    }
    Ok((index, Some(checkpoint)))
}

/// Segments that are being cut off from their ends, to make room.
fn being_cut(index: &Index) -> Result<Vec<u32>, Error> {
    let number = |key: &[u8]| Some(u32::from_be_bytes(key.get(1..)?.try_into().ok()?));
    index.pairs(b"t").map(|pair| number(&pair?.0).ok_or_else(malformed)).collect()
}

/// The last segment as the replay left it.
struct Tail {
    segment: u32,
    len: u64,
    /// Appending to it would be unsafe or pointless.
    closed: bool,
}

impl Recovery<'_> {
    /// Segments that the checkpoint does not know, and that are not newer than
    /// it, were deleted; the deletion did not last. Returns the others.
    fn delete_leftovers(&self, existing: Vec<u32>, checkpoint: &Checkpoint) -> Result<Vec<u32>, Error> {
        let is_leftover =
            |segment: &u32| *segment <= checkpoint.segment && !self.ledger.segments().contains_key(segment);
        let (leftovers, kept): (Vec<u32>, Vec<u32>) = existing.into_iter().partition(is_leftover);
        for segment in leftovers {
            tracing::info!(segment, "deleting a segment whose deletion was interrupted");
            self.segments.delete(segment)?;
        }
        Ok(kept)
    }

    /// Segments that were being cut off are as long as their files are.
    fn measure_cut(&mut self) -> Result<(), Error> {
        for segment in being_cut(&self.index)? {
            if self.ledger.segments().contains_key(&segment) {
                let len = self.segments.file(segment)?.len();
                let len = len.map_err(|source| self.segments.failed("read", segment, source))?;
                self.ledger.set_len(segment, len);
            }
        }
        Ok(())
    }

    /// Applies all records after the checkpoint.
    fn replay(&mut self, existing: &[u32], checkpoint: &Checkpoint) -> Result<Option<Tail>, Error> {
        let newer = existing.iter().copied().filter(|segment| *segment >= checkpoint.segment);
        let Some(last) = existing.last().copied() else {
            return Ok(None);
        };
        let from = |segment| if segment == checkpoint.segment { u64::from(checkpoint.offset) } else { 0 };
        let tail = self.settle_tail(last, from(last))?;
        for segment in newer {
            self.replay_segment(segment, from(segment))?;
        }
        Ok(Some(tail))
    }

    /// Finds the end of what is intact in the last segment, cuts off the rest,
    /// and makes what remains durable: after the end of a process the page
    /// cache shows what no sync has covered yet.
    fn settle_tail(&mut self, segment: u32, from: u64) -> Result<Tail, Error> {
        let failed = |source| self.segments.failed("read", segment, source);
        let file = self.segments.file(segment)?;
        let len = file.len().map_err(failed)?;
        if len < from {
            tracing::error!(segment, len, expected = from, "a segment is shorter than it was");
            return Ok(Tail { segment, len, closed: true });
        }
        let (end, has_holes) = self.intact_end(&file, segment, from, len)?;
        if end < len {
            tracing::warn!(segment, at = end, bytes = len - end, "cut off the torn end of the block store");
            file.truncate(end).map_err(|source| self.segments.failed("truncate", segment, source))?;
        }
        file.sync(SyncMoment::Open).map_err(|source| self.segments.failed("sync", segment, source))?;
        Ok(Tail { segment, len: end, closed: has_holes })
    }

    /// The offset from which on the segment is torn, and whether there are
    /// holes before it.
    fn intact_end(
        &self,
        file: &Arc<dyn AppendFile>,
        segment: u32,
        from: u64,
        len: u64,
    ) -> Result<(u64, bool), Error> {
        let failed = |source| self.segments.failed("read", segment, source);
        let seed = self.segments.seed(segment);
        let (mut synced, mut holes) = (from, Vec::new());
        let mut scan = Scan::new(Arc::clone(file), seed, from).map_err(failed)?;
        while let Some(found) = scan.next().map_err(failed)? {
            match found {
                Found::Record { head, .. } => synced = synced.max(head.synced.into()),
                Found::Hole { from, .. } => holes.push(from),
            }
        }
        let mut end = holes.iter().copied().find(|hole| *hole >= synced).unwrap_or(len);
        let mut scan = Scan::new(Arc::clone(file), seed, synced).map_err(failed)?;
        while let Some(Found::Record { offset, head, .. }) = scan.next().map_err(failed)? {
            if offset >= end {
                break;
            }
            if !scan.payload_is_intact(offset, &head).map_err(failed)? {
                end = offset;
            }
        }
        Ok((end, holes.iter().any(|hole| *hole < end)))
    }

    fn replay_segment(&mut self, segment: u32, from: u64) -> Result<(), Error> {
        let failed = |source| self.segments.failed("read", segment, source);
        let file = self.segments.file(segment)?;
        let len = file.len().map_err(failed)?;
        self.ledger.set_len(segment, len);
        let mut scan = Scan::new(file, self.segments.seed(segment), from).map_err(failed)?;
        while let Some(found) = scan.next().map_err(failed)? {
            match found {
                Found::Record { offset, head, key } => {
                    self.replay_record(&scan, segment, offset, &head, &key)?;
                    self.checkpoint_if_large(segment, offset + head.record_len())?;
                }
                Found::Hole { from, to } => {
                    tracing::error!(segment, from, to, "skipped a damaged part of a segment");
                    self.doubt();
                }
            }
        }
        Ok(())
    }

    fn replay_record(
        &mut self,
        scan: &Scan,
        segment: u32,
        offset: u64,
        head: &Head,
        key: &[u8],
    ) -> Result<(), Error> {
        self.ledger.sequence = self.ledger.sequence.max(head.sequence);
        let location = Location {
            segment,
            offset: u32::try_from(offset).map_err(|_| malformed())?,
            len: head.payload_len,
        };
        if head.kind == Kind::Block {
            return self.apply().block(key, location);
        }
        let failed = |source| self.segments.failed("read", segment, source);
        let payload = scan.payload(offset, head).map_err(failed)?;
        if crc32fast::hash(&payload) != head.payload_crc {
            return self.skip(segment, offset);
        }
        match head.kind {
            Kind::Block => Ok(()),
            Kind::Chunk => match (parse_chunk_key(key), parse_chunk(&payload)) {
                (Some((walk, number)), Some(list)) => {
                    self.apply().chunk(walk, number, location, &list).map(drop)
                }
                _ => self.skip(segment, offset),
            },
            Kind::Root => match Root::decode(&payload) {
                Some(root) => self.apply().root(key, root, location),
                None => self.skip(segment, offset),
            },
        }
    }

    fn skip(&mut self, segment: u32, offset: u64) -> Result<(), Error> {
        tracing::error!(segment, offset, "skipped a damaged record of a root");
        self.doubt();
        Ok(())
    }

    /// Something is missing. Should this opening not come to its end, the next
    /// one does not rely on what it has written so far.
    fn doubt(&mut self) {
        if !self.doubtful {
            self.doubtful = true;
            self.index.mark_for_rebuild();
        }
    }

    fn apply(&mut self) -> Apply<'_> {
        Apply { index: &self.index, ledger: &mut self.ledger, now: now() }
    }

    fn checkpoint_if_large(&mut self, segment: u32, len: u64) -> Result<(), Error> {
        if self.index.memory_bytes() < self.index_memory_bytes {
            return Ok(());
        }
        self.checkpoint(segment, len)
    }

    fn checkpoint(&mut self, segment: u32, len: u64) -> Result<(), Error> {
        let offset = u32::try_from(len).map_err(|_| malformed())?;
        self.ledger.save(&self.index, self.store, segment, offset);
        let rotation = self.index.rotate();
        let changes = rotation.close();
        rotation.finish(&changes);
        self.index.flush()
    }

    /// Looks through cross-references after a rebuild or damage: lists that
    /// no root has any more are to be released, a held root whose list has
    /// gaps is one to be fetched again, and its missing blocks are lost.
    fn reconcile(&mut self) -> Result<(), Error> {
        let mut live: HashSet<WalkId> = HashSet::new();
        for pair in self.index.pairs(b"r") {
            let (key, value) = pair?;
            let entry = RootEntry::decode(&value).ok_or_else(malformed)?;
            live.extend(entry.root.walks());
            self.reconcile_root(&key[1..], entry)?;
        }
        for pair in self.index.pairs(b"w") {
            let (key, _) = pair?;
            let walk = key.get(1..).and_then(|key| key.try_into().ok()).map(u64::from_be_bytes);
            let walk = walk.ok_or_else(malformed)?;
            if !live.contains(&walk) {
                self.index.set_dead(walk);
            }
        }
        Ok(())
    }

    fn reconcile_root(&mut self, key: &[u8], mut entry: RootEntry) -> Result<(), Error> {
        let Some(held) = entry.root.held else {
            return Ok(());
        };
        for number in 0..held.chunks {
            let Some(list) = self.list_chunk(held.walk, number)? else {
                tracing::error!(root = hex(key), "a held root's list is damaged; it has to be fetched again");
                entry.root.held = None;
                entry.root.kept = entry.root.kept.or(Some(held.walk));
                self.index.set_root(key, &entry);
                self.lost += 1;
                return Ok(());
            };
            list.iter().try_for_each(|multihash| self.expect_held(multihash))?;
        }
        Ok(())
    }

    fn list_chunk(&self, walk: WalkId, number: u32) -> Result<Option<Vec<Multihash>>, Error> {
        let Some(location) = self.index.chunk(walk, number)? else {
            return Ok(None);
        };
        match self.segments.read(Kind::Chunk, &chunk_key(walk, number), location)? {
            Read::Intact(payload) => Ok(parse_chunk(&payload)),
            Read::Damaged(_) => Ok(None),
        }
    }

    fn expect_held(&mut self, multihash: &Multihash) -> Result<(), Error> {
        let key = multihash.to_bytes();
        if let Some(entry @ BlockEntry { place: Place::Expected, .. }) = self.index.block(&key)? {
            tracing::warn!(
                multihash = hex(&key),
                "a held root's block is missing; it has to be fetched again"
            );
            self.index.set_block(&key, Some(entry), BlockEntry { place: Place::Lost, ..entry });
            self.index.set_lost(&key);
            self.lost += 1;
        }
        Ok(())
    }

    /// The segment to append to.
    fn open_tail(
        &mut self,
        tail: Option<Tail>,
        checkpoint: &Checkpoint,
        segment_bytes: u64,
    ) -> Result<(Arc<dyn AppendFile>, u32, u64), Error> {
        let newest = tail.as_ref().map_or(0, |tail| tail.segment).max(checkpoint.segment);
        if let Some(tail) = tail.filter(|tail| !tail.closed && tail.len < segment_bytes) {
            return Ok((self.segments.file(tail.segment)?, tail.segment, tail.len));
        }
        let segment = newest + 1;
        let file = self.segments.create(segment)?;
        self.ledger.set_len(segment, 0);
        Ok((file, segment, 0))
    }
}

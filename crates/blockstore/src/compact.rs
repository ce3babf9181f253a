//! Moving what lives in a segment to the end of the log, then deleting it.
//!
//! The copies are durable, and the index on disk points to them, before the
//! segment is deleted. A crash in between leaves both; a replay then ends at
//! the copies, because they come later.

use crate::Error;
use crate::inner::{Inner, hex};
use crate::record::{Head, Kind};
use crate::scan::{Found, Scan};
use crate::state::{BlockEntry, Location, Place, RootEntry, parse_chunk_key};
use crate::writer::{Draft, Writer};

/// The most that is copied while the writer is held, in bytes.
const BATCH_BYTES: u64 = 1 << 20;

/// What copies may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// What is free besides the reserve.
    Spare,
    /// The reserve too.
    Reserve,
}

/// A live record that is to be copied.
struct Copy {
    kind: Kind,
    key: Vec<u8>,
    payload: Vec<u8>,
    old: Location,
}

impl Inner {
    /// Moves a closed segment's live records and deletes it. Adds to `copied`
    /// how many bytes were copied. The caller holds `maintenance`.
    ///
    /// # Errors
    /// [`Error::DiskFull`] where there is no room for the copies besides the
    /// reserve: what was copied by then has moved, and the rest is where it
    /// was, for [`Inner::shrink_segment`].
    pub(crate) fn compact_segment(&self, segment: u32, copied: &mut u64) -> Result<(), Error> {
        self.copy_from(segment, 0, Room::Spare, copied)?;
        self.drop_segment(segment)
    }

    /// Deletes a segment whose live records have moved.
    pub(crate) fn drop_segment(&self, segment: u32) -> Result<(), Error> {
        self.give_up_rest(segment)?;
        self.delete_segment(segment)
    }

    /// Copies the live records of a segment from the offset `from` on.
    pub(crate) fn copy_from(
        &self,
        segment: u32,
        from: u64,
        room: Room,
        copied: &mut u64,
    ) -> Result<(), Error> {
        let failed = |source| self.segments.failed("read", segment, source);
        let file = self.segments.file(segment)?;
        let mut scan = Scan::new(file, self.segments.seed(segment), from).map_err(failed)?;
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some(found) = scan.next().map_err(failed)? {
            let Found::Record { offset, head, key } = found else {
                // What was in the hole is found missing in the end.
                continue;
            };
            if let Some(copy) = self.live_copy(&scan, segment, (from, offset), &head, key)? {
                bytes += head.record_len();
                batch.push(copy);
            }
            if bytes >= BATCH_BYTES {
                *copied += self.copy(std::mem::take(&mut batch), room)?;
                bytes = 0;
            }
        }
        *copied += self.copy(batch, room)?;
        Ok(())
    }

    /// The record at `offset` with its payload, where it lives and is intact.
    /// The segment is about to end at `from`.
    fn live_copy(
        &self,
        scan: &Scan,
        segment: u32,
        (from, offset): (u64, u64),
        head: &Head,
        key: Vec<u8>,
    ) -> Result<Option<Copy>, Error> {
        let offset = u32::try_from(offset).map_err(|_| crate::index::malformed())?;
        let old = Location { segment, offset, len: head.payload_len };
        if self.location(head.kind, &key)? != Some(old) {
            return Ok(None);
        }
        // What stays of the segment can name the root.
        if from == 0 && self.forget_release(head.kind, &key, old)? {
            return Ok(None);
        }
        let failed = |source| self.segments.failed("read", segment, source);
        let payload = scan.payload(offset.into(), head).map_err(failed)?;
        if crc32fast::hash(&payload) != head.payload_crc {
            return Ok(None);
        }
        Ok(Some(Copy { kind: head.kind, key, payload, old }))
    }

    /// Where the index says that a record lies.
    fn location(&self, kind: Kind, key: &[u8]) -> Result<Option<Location>, Error> {
        Ok(match kind {
            Kind::Block => self.index.block(key)?.and_then(|entry| entry.location()),
            Kind::Chunk => match parse_chunk_key(key) {
                Some((walk, number)) => self.index.chunk(walk, number)?,
                None => None,
            },
            Kind::Root => self.index.root(key)?.map(|entry| entry.location),
        })
    }

    /// Drops the memory of a released root where nothing of it can be left in
    /// other segments. Returns whether it did.
    fn forget_release(&self, kind: Kind, key: &[u8], old: Location) -> Result<bool, Error> {
        if kind != Kind::Root {
            return Ok(false);
        }
        let mut writer = self.lock_writer()?;
        let Some(entry) =
            self.index.root(key)?.filter(|entry| entry.location == old && entry.root.is_released())
        else {
            return Ok(false);
        };
        let mut older = writer.ledger.segments().range(..=entry.root.horizon).map(|(segment, _)| *segment);
        if older.any(|segment| segment != old.segment) {
            return Ok(false);
        }
        self.apply(&mut writer).forget_root(key, &entry);
        Ok(true)
    }

    /// Appends copies of the records that have not moved or died meanwhile.
    fn copy(&self, batch: Vec<Copy>, room: Room) -> Result<u64, Error> {
        let mut writer = self.lock_writer()?;
        let mut live = Vec::with_capacity(batch.len());
        for copy in batch {
            if self.location(copy.kind, &copy.key)? == Some(copy.old) {
                live.push(copy);
            }
        }
        if live.is_empty() {
            return Ok(0);
        }
        let drafts: Vec<Draft<'_>> =
            live.iter().map(|copy| Draft::new(copy.kind, &copy.key, &copy.payload)).collect();
        let bytes = drafts.iter().map(Draft::len).sum();
        let locations = match room {
            Room::Spare => self.try_append(&mut writer, &drafts)?,
            Room::Reserve => self.append(&mut writer, &drafts)?,
        };
        for (copy, location) in live.iter().zip(locations) {
            let moved = self.moved(&mut writer, copy, location);
            self.applied(moved)?;
        }
        drop(writer);
        self.after_write()?;
        Ok(bytes)
    }

    fn moved(&self, writer: &mut Writer, copy: &Copy, location: Location) -> Result<(), Error> {
        let mut apply = self.apply(writer);
        match copy.kind {
            Kind::Block => apply.block(&copy.key, location),
            Kind::Chunk => match parse_chunk_key(&copy.key) {
                Some((walk, number)) => apply.chunk(walk, number, location, &[]).map(drop),
                None => Ok(()),
            },
            Kind::Root => match self.index.root(&copy.key)? {
                Some(entry) => apply.root(&copy.key, entry.root, location),
                None => Ok(()),
            },
        }
    }

    /// What still should live in the segment is damaged: blocks are lost,
    /// roots whose list or state it was are to be fetched again. Looks through
    /// the whole index, but only where something is missing.
    fn give_up_rest(&self, segment: u32) -> Result<(), Error> {
        let live = self.writer.lock().ledger.segments().get(&segment).map_or(0, |stat| stat.live);
        if live == 0 {
            return Ok(());
        }
        tracing::error!(segment, bytes = live, "a segment is damaged; giving up what cannot be read");
        for pair in self.index.pairs(b"b") {
            let (key, value) = pair?;
            let entry = BlockEntry::decode(&value).ok_or_else(crate::index::malformed)?;
            if let Place::At(location) = entry.place
                && location.segment == segment
            {
                self.lose(&key[1..], location, "its segment is damaged")?;
            }
        }
        self.give_up_lists(segment)?;
        self.rewrite_roots(segment)
    }

    /// Roots whose list has a part in the segment are to be fetched again.
    fn give_up_lists(&self, segment: u32) -> Result<(), Error> {
        for pair in self.index.pairs(b"l") {
            let (key, value) = pair?;
            let location = Location::decode(&value).ok_or_else(crate::index::malformed)?;
            let Some((walk, number)) = parse_chunk_key(&key[1..]).filter(|_| location.segment == segment)
            else {
                continue;
            };
            if self.unhold(walk)? {
                self.count_lost();
            }
            let mut writer = self.lock_writer()?;
            if self.index.chunk(walk, number)? == Some(location) {
                // What it referred to is unknown, so that counts are made anew.
                self.index.mark_for_rebuild();
                let dropped = self.apply(&mut writer).drop_chunk(walk, number, location, &[]);
                self.applied(dropped)?;
            }
        }
        Ok(())
    }

    /// The index knows the states of roots even where their records are
    /// damaged: they are written anew.
    fn rewrite_roots(&self, segment: u32) -> Result<(), Error> {
        for pair in self.index.pairs(b"r") {
            let (key, value) = pair?;
            let entry = RootEntry::decode(&value).ok_or_else(crate::index::malformed)?;
            if entry.location.segment == segment {
                tracing::warn!(root = hex(&key[1..]), "rewriting a root's damaged record from the index");
                let mut payload = Vec::new();
                entry.root.encode(&mut payload);
                let (key, old) = (key[1..].to_vec(), entry.location);
                self.copy(vec![Copy { kind: Kind::Root, key, payload, old }], Room::Reserve)?;
            }
        }
        Ok(())
    }

    /// Deletes a segment in which nothing lives.
    fn delete_segment(&self, segment: u32) -> Result<(), Error> {
        let len = {
            let mut writer = self.lock_writer()?;
            let len = writer.ledger.segments().get(&segment).map_or(0, |stat| stat.len);
            writer.ledger.remove(segment);
            self.index.remove_cut(segment);
            len
        };
        // Now the copies are synced, and an index on disk points to them that
        // does not know the segment any more.
        self.checkpoint().inspect_err(|_| {
            // It is still there, and tried again.
            let mut writer = self.writer.lock();
            writer.ledger.set_len(segment, len);
            self.index.set_cut(segment);
        })?;
        self.segments.delete(segment)
    }
}

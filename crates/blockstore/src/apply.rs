//! What a record means for the index and the sums.
//!
//! The same code runs when a record is appended and when it is replayed, so
//! that a replay arrives at the same state. Applying a record that is already
//! known only moves its place: a copy made by compaction changes no count.

use crate::Error;
use crate::Multihash;
use crate::block::inherent;
use crate::index::Index;
use crate::ledger::Ledger;
use crate::state::{BlockEntry, Idle, Location, Place, Root, RootEntry, WalkId};

/// The length of a list chunk's key.
const CHUNK_KEY_BYTES: usize = 12;

/// What newly referred blocks add up to.
#[derive(Debug, Default)]
pub(crate) struct Referred {
    /// The lengths of those that are held.
    pub(crate) bytes: u64,
    /// Those that are not.
    pub(crate) missing: Vec<Multihash>,
}

/// Index and sums, to be changed by the one who holds the writer.
pub(crate) struct Apply<'a> {
    pub(crate) index: &'a Index,
    pub(crate) ledger: &'a mut Ledger,
    /// Seconds of Unix time.
    pub(crate) now: u64,
}

impl Apply<'_> {
    /// A block's record lies at `location`.
    pub(crate) fn block(&mut self, key: &[u8], location: Location) -> Result<(), Error> {
        let old = self.index.block(key)?;
        let mut entry = old.unwrap_or_default();
        match entry.place {
            Place::At(old) => self.leave(key, old),
            Place::Lost => self.index.remove_lost(key),
            Place::Expected => {}
        }
        if entry.refs == 0 && entry.location().is_none() {
            self.index.add_idle(key, Idle { since: self.now, is_new: true });
        }
        entry.place = Place::At(location);
        self.index.set_block(key, old, entry);
        self.ledger.add_live(key.len(), location);
        self.ledger.sums.blocks += 1;
        self.ledger.sums.block_bytes += u64::from(location.len);
        Ok(())
    }

    /// A list chunk's record lies at `location`.
    pub(crate) fn chunk(
        &mut self,
        walk: WalkId,
        number: u32,
        location: Location,
        multihashes: &[Multihash],
    ) -> Result<Referred, Error> {
        let mut referred = Referred::default();
        match self.index.chunk(walk, number)? {
            Some(old) => self.ledger.end_live(CHUNK_KEY_BYTES, old),
            None => {
                multihashes.iter().try_for_each(|multihash| self.reference(multihash, &mut referred))?;
                let chunks = self.index.chunks(walk)?.max(number + 1);
                self.index.set_chunks(walk, chunks);
                self.ledger.next_walk = self.ledger.next_walk.max(walk + 1);
            }
        }
        self.index.set_chunk(walk, number, location);
        self.ledger.add_live(CHUNK_KEY_BYTES, location);
        Ok(referred)
    }

    /// A root's record lies at `location`.
    pub(crate) fn root(&mut self, key: &[u8], root: Root, location: Location) -> Result<(), Error> {
        if let Some(old) = self.index.root(key)? {
            self.forget_record(key, &old);
            let dead = old.root.walks().filter(|walk| root.walks().all(|live| live != *walk));
            dead.for_each(|walk| self.index.set_dead(walk));
        }
        let newest = root.walks().max().map_or(0, |walk| walk + 1);
        self.ledger.next_walk = self.ledger.next_walk.max(newest);
        self.ledger.add_live(key.len(), location);
        if root.is_released() {
            self.ledger.sums.released_bytes +=
                crate::record::record_len(key.len() as u64, location.len.into());
        }
        self.index.set_root(key, &RootEntry { location, root });
        Ok(())
    }

    /// Drops the memory of a released root.
    pub(crate) fn forget_root(&mut self, key: &[u8], entry: &RootEntry) {
        self.forget_record(key, entry);
        self.index.remove_root(key);
    }

    /// Releases one chunk of a dead walk's list.
    pub(crate) fn drop_chunk(
        &mut self,
        walk: WalkId,
        number: u32,
        location: Location,
        multihashes: &[Multihash],
    ) -> Result<(), Error> {
        multihashes.iter().try_for_each(|multihash| self.unreference(multihash))?;
        self.index.remove_chunk(walk, number);
        self.ledger.end_live(CHUNK_KEY_BYTES, location);
        Ok(())
    }

    /// Removes a block that nothing refers to.
    pub(crate) fn drop_block(&mut self, key: &[u8], location: Location) {
        self.leave(key, location);
        self.index.remove_block(key);
        self.index.remove_idle(key);
    }

    /// The block's record is damaged. Its references stay.
    pub(crate) fn lose_block(&mut self, key: &[u8], mut entry: BlockEntry, location: Location) {
        if entry.refs == 0 {
            return self.drop_block(key, location);
        }
        self.leave(key, location);
        let old = Some(entry);
        entry.place = Place::Lost;
        self.index.set_block(key, old, entry);
        self.index.set_lost(key);
    }

    /// One more list entry names the block.
    fn reference(&mut self, multihash: &Multihash, referred: &mut Referred) -> Result<(), Error> {
        if let Some(bytes) = inherent(multihash) {
            referred.bytes += bytes.len() as u64;
            return Ok(());
        }
        let key = multihash.to_bytes();
        let old = self.index.block(&key)?;
        let mut entry = old.unwrap_or_default();
        match entry.location() {
            Some(location) => referred.bytes += u64::from(location.len),
            None => referred.missing.push(*multihash),
        }
        if entry.refs == 0 && entry.location().is_some() {
            self.index.remove_idle(&key);
        }
        entry.refs = entry.refs.saturating_add(1);
        self.index.set_block(&key, old, entry);
        Ok(())
    }

    /// One list entry less names the block.
    fn unreference(&mut self, multihash: &Multihash) -> Result<(), Error> {
        if inherent(multihash).is_some() {
            return Ok(());
        }
        let key = multihash.to_bytes();
        let Some(mut entry) = self.index.block(&key)?.filter(|entry| entry.refs > 0) else {
            return Err(Error::Index { reason: format!("references of {multihash:?} are miscounted") });
        };
        let old = Some(entry);
        entry.refs -= 1;
        match entry.place {
            Place::At(_) if entry.refs == 0 => {
                self.index.add_idle(&key, Idle { since: self.now, is_new: false });
            }
            Place::Lost if entry.refs == 0 => self.index.remove_lost(&key),
            _ => {}
        }
        if entry.refs == 0 && entry.location().is_none() {
            self.index.remove_block(&key);
        } else {
            self.index.set_block(&key, old, entry);
        }
        Ok(())
    }

    /// A block's record at `location` is not the block's place any more.
    fn leave(&mut self, key: &[u8], location: Location) {
        self.ledger.end_live(key.len(), location);
        self.ledger.sums.blocks -= 1;
        self.ledger.sums.block_bytes -= u64::from(location.len);
    }

    /// A root's record is superseded.
    fn forget_record(&mut self, key: &[u8], entry: &RootEntry) {
        self.ledger.end_live(key.len(), entry.location);
        if entry.root.is_released() {
            let bytes = crate::record::record_len(key.len() as u64, entry.location.len.into());
            self.ledger.sums.released_bytes -= bytes;
        }
    }
}

//! Rereading everything, slowly, to find what the disk has damaged.

use std::time::{Duration, Instant};

use crate::inner::Inner;
use crate::record::Kind;
use crate::roots::Chunk;
use crate::segments::Read;
use crate::state::{BlockEntry, Location, parse_chunk_key};
use crate::{Error, Multihash, Scrubbed};

/// The longest pause at a time, so that a stop is noticed.
const MAX_PAUSE: Duration = Duration::from_millis(100);

/// How many blocks are looked up at a time.
const PAGE: usize = 256;

/// Holds a task to a rate.
struct Pace {
    begun: Instant,
    bytes_per_second: u64,
    bytes: u64,
}

impl Pace {
    /// Counts `bytes` and pauses until they are due; false where it was told
    /// to stop.
    fn spend(&mut self, bytes: u64, should_stop: &impl Fn() -> bool) -> bool {
        self.bytes += bytes;
        let due = Duration::from_secs_f64(self.bytes as f64 / self.bytes_per_second.max(1) as f64);
        loop {
            if should_stop() {
                return false;
            }
            let Some(early) = due.checked_sub(self.begun.elapsed()).filter(|early| !early.is_zero()) else {
                return true;
            };
            std::thread::sleep(early.min(MAX_PAUSE));
        }
    }
}

impl Inner {
    /// See [`Store::scrub`](crate::Store::scrub).
    pub(crate) fn scrub(
        &self,
        from: &[u8],
        bytes_per_second: u64,
        should_stop: &impl Fn() -> bool,
    ) -> Result<Scrubbed, Error> {
        let mut pace = Pace { begun: Instant::now(), bytes_per_second, bytes: 0 };
        let mut done = Scrubbed::default();
        let start = [b"b", from].concat();
        // The lists first: they are few, and with one of them a whole root is lost.
        done.finished = self.scrub_lists(&mut pace, should_stop, &mut done)?
            && self.scrub_range(Some(&start), None, &mut pace, should_stop, &mut done)?
            && self.scrub_range(None, Some(&start), &mut pace, should_stop, &mut done)?;
        Ok(done)
    }

    /// Verifies the blocks whose keys lie behind `after`, up to and with
    /// `last`. Returns false where it was told to stop.
    fn scrub_range(
        &self,
        after: Option<&[u8]>,
        last: Option<&[u8]>,
        pace: &mut Pace,
        should_stop: &impl Fn() -> bool,
        done: &mut Scrubbed,
    ) -> Result<bool, Error> {
        let mut after = after.map(<[u8]>::to_vec);
        loop {
            let page = self.index.page(b'b', after.as_deref(), PAGE)?;
            let Some((newest, _)) = page.last() else { return Ok(true) };
            after = Some(newest.to_vec());
            for (key, value) in page {
                if last.is_some_and(|last| &*key > last) {
                    return Ok(true);
                }
                let entry = BlockEntry::decode(&value).ok_or_else(crate::index::malformed)?;
                let Some(location) = entry.location() else { continue };
                if !pace.spend(location.len.into(), should_stop) {
                    return Ok(false);
                }
                done.blocks += 1;
                done.bytes += u64::from(location.len);
                self.scrub_block(&key[1..], done)?;
            }
        }
    }

    /// Verifies one block where it lies now.
    fn scrub_block(&self, key: &[u8], done: &mut Scrubbed) -> Result<(), Error> {
        let mut last = None;
        while let Some(location) = self.index.block(key)?.and_then(|entry| entry.location()) {
            let Some(damage) = self.block_damage(key, location)? else {
                return Ok(());
            };
            // Read again: compaction may have moved it between the two reads.
            if last == Some(location) {
                done.lost += 1;
                return self.lose(key, location, damage);
            }
            last = Some(location);
        }
        Ok(())
    }

    /// What is wrong with a block's record. A sector that cannot be read is
    /// damage too, where another one of the same file can.
    fn block_damage(&self, key: &[u8], location: Location) -> Result<Option<&'static str>, Error> {
        let bytes = match self.segments.read(Kind::Block, key, location) {
            Ok(Read::Intact(bytes)) => bytes,
            Ok(Read::Damaged(damage)) => return Ok(Some(damage)),
            Err(error) => return self.segments.unreadable(location.segment, error).map(Some),
        };
        let Ok(multihash) = Multihash::from_bytes(key) else {
            return Ok(Some("its key is no multihash"));
        };
        match (self.options.verifier)(&multihash, &bytes) {
            Some(false) => Ok(Some("its multihash is wrong")),
            // Of an unknown hash function, the checksum has to do.
            Some(true) | None => Ok(None),
        }
    }

    /// Verifies the lists of roots; a held root whose list is damaged is to be
    /// fetched again. Returns false where it was told to stop.
    fn scrub_lists(
        &self,
        pace: &mut Pace,
        should_stop: &impl Fn() -> bool,
        done: &mut Scrubbed,
    ) -> Result<bool, Error> {
        for pair in self.index.pairs(b"l") {
            let (key, value) = pair?;
            let (Some((walk, number)), Some(location)) =
                (parse_chunk_key(&key[1..]), Location::decode(&value))
            else {
                return Err(crate::index::malformed());
            };
            if !pace.spend(location.len.into(), should_stop) {
                return Ok(false);
            }
            done.bytes += u64::from(location.len);
            if matches!(self.read_chunk(walk, number)?, Chunk::Damaged(_)) && self.unhold(walk)? {
                tracing::error!(walk, number, "a held root's list is damaged; it has to be fetched again");
                self.count_lost();
                done.lost += 1;
            }
        }
        Ok(true)
    }
}

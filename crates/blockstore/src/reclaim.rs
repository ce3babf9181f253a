//! Giving space back: dead lists, then blocks without references, then
//! segments of which too much is dead.

use crate::inner::{Inner, now};
use crate::{Error, Reclaimed};

/// How many blocks are removed while the writer is held.
const BATCH: usize = 256;

/// Dead bytes that are left alone, as a fraction of the live ones: 1/25. On
/// top of its length a block costs 66 bytes for head and key, 35 in its root's
/// list and some 57 in the index: 7.7 % of 2 KiB, and nothing to speak of
/// where blocks have 256 KiB. With the dead ones, and with what an index has
/// that was not rewritten lately, these occupy at most 1.06 times their length
/// and blocks of 2 KiB 1.20 times. Less would copy more: in the worst case,
/// where the dead ones are spread evenly, 25 bytes for each byte that is won,
/// and 33 where 3 % are left alone.
const MAX_DEAD_FRACTION: u64 = 25;

/// Memories of released roots are cleared, by moving the oldest segment, once
/// they exceed this fraction of the live bytes: 1/50.
const MAX_RELEASED_FRACTION: u64 = 50;

impl Inner {
    /// See [`Store::reclaim`](crate::Store::reclaim).
    pub(crate) fn reclaim(&self, should_stop: &impl Fn() -> bool) -> Result<Reclaimed, Error> {
        let _one_at_a_time = self.maintenance.lock();
        let mut done = Reclaimed::default();
        self.release_dead(should_stop)?;
        self.remove_idle(should_stop, &mut done)?;
        self.compact(should_stop, &mut done)?;
        self.restore_reserve()?;
        self.meter.reclaimed(done.blocks, done.block_bytes);
        self.meter.copied(done.copied_bytes);
        Ok(done)
    }

    /// Removes blocks that have been without a reference for long enough.
    fn remove_idle(&self, should_stop: &impl Fn() -> bool, done: &mut Reclaimed) -> Result<(), Error> {
        let now = now();
        let delay = self.options.reclaim_delay.as_secs();
        let mut batch = Vec::with_capacity(BATCH);
        for pair in self.index.pairs(b"i") {
            let (key, since) = pair?;
            let since =
                since.as_ref().try_into().map(u64::from_le_bytes).map_err(|_| crate::index::malformed())?;
            // A clock that was set back must not keep a block for ever.
            let age = if since > now.saturating_add(delay) { delay } else { now.saturating_sub(since) };
            if age >= delay {
                batch.push(key);
            }
            if batch.len() == BATCH {
                if should_stop() {
                    return Ok(());
                }
                self.remove_batch(batch.drain(..).map(|key| key[1..].to_vec()), done)?;
            }
        }
        self.remove_batch(batch.drain(..).map(|key| key[1..].to_vec()), done)
    }

    fn remove_batch(&self, keys: impl Iterator<Item = Vec<u8>>, done: &mut Reclaimed) -> Result<(), Error> {
        let mut writer = self.lock_writer()?;
        // Held to the end: a walk that refers to one of these blocks does so
        // either before, and is seen, or after, and finds the block gone.
        let protected = self.protected.lock();
        for key in keys {
            let entry = self.index.block(&key)?.unwrap_or_default();
            let mut apply = self.apply(&mut writer);
            match entry.location() {
                Some(location) if !Self::is_referred_to(&protected, &key, &entry) => {
                    apply.drop_block(&key, location);
                    done.blocks += 1;
                    done.block_bytes += u64::from(location.len);
                }
                // Referred to, or gone, since the scan began.
                Some(_) if entry.refs == 0 => {}
                _ => self.index.remove_idle(&key),
            }
        }
        drop((protected, writer));
        self.after_write()
    }

    /// Compacts segments until little is dead.
    fn compact(&self, should_stop: &impl Fn() -> bool, done: &mut Reclaimed) -> Result<(), Error> {
        let mut is_changed = done.blocks > 0;
        while let Some(segment) = self.choose()? {
            if should_stop() {
                return Ok(());
            }
            done.copied_bytes += self.compact_segment(segment)?;
            done.segments += 1;
            is_changed = true;
        }
        if is_changed {
            self.checkpoint()?;
            self.with_room(|| self.index.compact())?;
        }
        Ok(())
    }

    /// The segment to be compacted next, closed where it is the open one.
    fn choose(&self) -> Result<Option<u32>, Error> {
        let mut writer = self.lock_writer()?;
        let total = writer.ledger.total();
        let dead = total.len - total.live.min(total.len);
        let chosen = if dead * MAX_DEAD_FRACTION > total.live {
            // The one where most is won for what has to be copied.
            let by_dead = |stat: &crate::state::SegmentStat| {
                let dead = stat.len - stat.live.min(stat.len);
                dead.saturating_mul(1 << 20) / stat.len.max(1)
            };
            let segments = writer.ledger.segments().iter().filter(|(_, stat)| stat.len > stat.live);
            segments.max_by_key(|(_, stat)| by_dead(stat)).map(|(segment, _)| *segment)
        } else if writer.ledger.sums.released_bytes * MAX_RELEASED_FRACTION > total.live {
            writer.ledger.oldest()
        } else {
            None
        };
        if chosen == Some(writer.segment) {
            self.roll(&mut writer)?;
        }
        Ok(chosen)
    }
}

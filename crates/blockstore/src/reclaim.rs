//! Giving space back: dead lists, then blocks without references, then
//! segments of which too much is dead.

use crate::inner::{Inner, now};
use crate::state::Idle;
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

/// How long a block is kept, in seconds, that may have been put by a walk
/// which still goes on, and which has not come to it yet: blocks arrive in any
/// order. Longer than a fetch waits for one block, and what the delay is
/// anyway where nothing is set.
const AHEAD: u64 = 3600;

/// How long blocks without a reference are kept, in seconds of Unix time.
#[derive(Clone, Copy, Debug)]
struct Patience {
    now: u64,
    delay: u64,
    /// When the oldest walk began that goes on.
    walk: Option<u64>,
}

impl Patience {
    /// Whether a block that has no reference since then has been kept for long
    /// enough.
    fn is_over(self, Idle { since, is_new }: Idle) -> bool {
        let is_ahead = is_new && self.walk.is_some_and(|began| since >= began);
        let delay = if is_ahead { self.delay.max(AHEAD) } else { self.delay };
        // A clock that was set back must not keep a block for ever.
        let age = if since > self.now.saturating_add(delay) { delay } else { self.now.saturating_sub(since) };
        age >= delay
    }
}

impl Inner {
    /// See [`Store::reclaim`](crate::Store::reclaim).
    pub(crate) fn reclaim(&self, should_stop: &impl Fn() -> bool) -> Result<Reclaimed, Error> {
        let _one_at_a_time = self.maintenance.lock();
        let mut done = Reclaimed::default();
        let released = self.release_dead(should_stop);
        let removed = when_room_is_all(released, || self.remove_idle(should_stop, &mut done));
        let compacted = when_room_is_all(removed, || self.compact(should_stop, &mut done));
        // Whatever room there is by now.
        self.restore_reserve()?;
        compacted?;
        self.meter.reclaimed(done.blocks, done.block_bytes);
        self.meter.copied(done.copied_bytes);
        Ok(done)
    }

    /// Removes blocks that have been without a reference for long enough.
    fn remove_idle(&self, should_stop: &impl Fn() -> bool, done: &mut Reclaimed) -> Result<(), Error> {
        let mut batch = Vec::with_capacity(BATCH);
        let pairs = self.index.pairs(b"i");
        // Only now: whoever put one of these is among the walks, or has ended.
        let patience = self.patience();
        for pair in pairs {
            let (key, idle) = pair?;
            let idle = Idle::decode(&idle).ok_or_else(crate::index::malformed)?;
            if patience.is_over(idle) {
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

    fn patience(&self) -> Patience {
        let walk = self.walks.lock().values().min().copied();
        Patience { now: now(), delay: self.options.reclaim_delay.as_secs(), walk }
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
            if !self.give_back(segment, should_stop, &mut done.copied_bytes)? {
                return Ok(());
            }
            done.segments += 1;
            is_changed = true;
        }
        if is_changed {
            self.checkpoint()?;
            self.index.compact()?;
        }
        Ok(())
    }

    /// Compacts a segment in the way that the disk has room for; false where
    /// it was told to stop. Where the reserve is in use already, the room that
    /// is left is not spent on copies of which nothing may come.
    fn give_back(
        &self,
        segment: u32,
        should_stop: &impl Fn() -> bool,
        copied: &mut u64,
    ) -> Result<bool, Error> {
        if self.reserve.is_made() {
            match self.compact_segment(segment, copied) {
                Err(Error::DiskFull { .. }) => {}
                other => return other.map(|()| true),
            }
        }
        self.shrink_segment(segment, should_stop, copied)
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

/// Does the next step unless the one before failed of something else than
/// room, which the next one may make. Its own failure counts, then that before.
fn when_room_is_all(
    before: Result<(), Error>,
    next: impl FnOnce() -> Result<(), Error>,
) -> Result<(), Error> {
    match before {
        Ok(()) | Err(Error::DiskFull { .. }) => next().and(before),
        failed => failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_walk_may_have_put_is_kept_while_it_goes_on() {
        let is_over = |delay, walk, since, is_new| {
            Patience { now: 10_000, delay, walk }.is_over(Idle { since, is_new })
        };
        for (delay, walk, since, want) in [
            (0, None, 10_000, true),
            (60, None, 9_941, false),
            (60, None, 9_940, true),
            (0, Some(9_000), 8_999, true),
            (0, Some(9_000), 9_000, false),
            (0, Some(1_000), 6_401, false),
            (0, Some(1_000), 6_400, true),
            (7_200, Some(1_000), 6_400, false),
            // The clock was set back.
            (60, None, 20_000, true),
            (0, Some(1_000), 20_000, true),
        ] {
            assert_eq!(is_over(delay, walk, since, true), want, "{delay} {walk:?} {since}");
        }
        assert!(is_over(0, Some(9_000), 9_000, false), "another root gave it up");
    }
}

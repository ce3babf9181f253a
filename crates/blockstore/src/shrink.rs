//! Giving a segment back on a disk that has no room for copies of it.
//!
//! A segment is shortened from its end: what lives in its last part is copied,
//! the copies are synced, the index on disk points to them, the part is cut
//! off, and its room is there for the next one. So the reserve is enough for a
//! segment of any length, and what was dead in a part is won with it. A crash
//! in between leaves the part where it was; a replay ends at the copies,
//! because they come later.

use crate::Error;
use crate::compact::Room;
use crate::inner::Inner;
use crate::scan::{Found, Scan};

/// The length of a part, in bytes: little beside the least reserve, which the
/// index, and whatever else keeps its books on the disk, need too.
const PART_BYTES: u64 = 512 << 10;

/// Of the room that was won by now, the fraction that is spent on longer
/// steps: 1/2. Each step syncs and writes the index.
const STEP_FRACTION: u64 = 2;

impl Inner {
    /// Moves a closed segment's live records, the last ones first, shortens it
    /// as it goes, and deletes it. Adds to `copied` how many bytes were
    /// copied. False where it was told to stop. The caller holds
    /// `maintenance`.
    pub(crate) fn shrink_segment(
        &self,
        segment: u32,
        should_stop: &impl Fn() -> bool,
        copied: &mut u64,
    ) -> Result<bool, Error> {
        let (mut parts, mut end) = self.parts(segment)?;
        tracing::info!(segment, bytes = end, "the disk is full: a segment is given back part by part");
        let mut won = 0;
        while let Some(from) = step(&mut parts, end, won) {
            if should_stop() {
                return Ok(false);
            }
            let before = *copied;
            self.copy_from(segment, from, Room::Reserve, copied)?;
            if from == 0 {
                break;
            }
            self.cut(segment, from)?;
            won += (end - from).saturating_sub(*copied - before);
            end = from;
        }
        self.drop_segment(segment).map(|()| true)
    }

    /// Where the parts of a segment begin, ascending from 0, and its length. A
    /// record lies in one of them as a whole.
    fn parts(&self, segment: u32) -> Result<(Vec<u64>, u64), Error> {
        let failed = |source| self.segments.failed("read", segment, source);
        let file = self.segments.file(segment)?;
        let end = file.len().map_err(failed)?;
        let mut scan = Scan::new(file, self.segments.seed(segment), 0).map_err(failed)?;
        let mut parts = vec![0];
        let mut from = 0;
        while let Some(found) = scan.next().map_err(failed)? {
            if let Found::Record { offset, head, .. } = found
                && offset > from
                && offset + head.record_len() - from > PART_BYTES
            {
                parts.push(offset);
                from = offset;
            }
        }
        Ok((parts, end))
    }

    /// Cuts a segment off at `from`: nothing lives behind it.
    fn cut(&self, segment: u32, from: u64) -> Result<(), Error> {
        {
            let _writer = self.lock_writer()?;
            self.index.set_cut(segment);
        }
        // Now the copies are synced, and an index on disk points to them that
        // knows of the cut.
        self.checkpoint()?;
        let file = self.segments.file(segment)?;
        file.truncate(from).map_err(|source| self.segments.failed("truncate", segment, source))?;
        self.lock_writer()?.ledger.set_len(segment, from);
        Ok(())
    }
}

/// Where the next step begins, whose end is `end`: one part, and more of them
/// where room was won. `None` at the beginning.
fn step(parts: &mut Vec<u64>, end: u64, won: u64) -> Option<u64> {
    let mut from = parts.pop()?;
    while let Some(earlier) =
        parts.last().filter(|earlier| end - **earlier <= PART_BYTES + won / STEP_FRACTION)
    {
        from = *earlier;
        parts.pop();
    }
    Some(from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_grow_with_what_was_won() {
        const KIB: u64 = 1 << 10;
        let mut parts: Vec<u64> = (0..8).map(|part| part * PART_BYTES).collect();
        let end = 8 * PART_BYTES;
        assert_eq!(step(&mut parts, end, 0), Some(end - PART_BYTES));
        assert_eq!(step(&mut parts, end - PART_BYTES, 1000 * KIB), Some(end - 2 * PART_BYTES));
        assert_eq!(step(&mut parts, end - 2 * PART_BYTES, 1024 * KIB), Some(end - 4 * PART_BYTES));
        assert_eq!(step(&mut parts, end - 4 * PART_BYTES, u64::MAX / 4), Some(0));
        assert_eq!(step(&mut parts, 0, 0), None);
    }
}

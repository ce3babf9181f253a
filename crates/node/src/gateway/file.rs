//! The bytes of a file, read as the client takes them.

use std::ops::Range;

use bytes::Bytes;
use pinfold_core::content::Cid;

use super::{
    body::{BATCH_BYTES, BATCH_VISITS, Batch, Batches},
    budget::{Budget, Lease},
    car::Pieces,
    pending::{Below, Level, Pending, Visit},
    source::{Source, Unserved},
    walk,
};

/// A file that is being read.
pub(super) struct Reader {
    source: Source,
    pending: Pending,
    lease: Lease,
    failed: Option<Unserved>,
}

impl Reader {
    /// Begins to read a range, which must lie within the file's size.
    ///
    /// # Errors
    /// When the budget is used up.
    pub(super) fn new(
        source: Source,
        budget: &Budget,
        file: &Cid,
        size: u64,
        range: Range<u64>,
    ) -> Result<Self, Unserved> {
        let (mut pending, mut lease) = (Pending::default(), budget.lease());
        if !range.is_empty() {
            pending.push(Level::of(&Visit { cid: *file, below: Below::Part { size, range } }), &mut lease)?;
        }
        Ok(Self { source, pending, lease, failed: None })
    }

    fn visit(
        &mut self,
        cid: &Cid,
        size: u64,
        range: &Range<u64>,
        pieces: &mut Pieces,
    ) -> Result<(), Unserved> {
        let block = self.source.block(cid)?;
        let Some(file) = walk::part(cid, size, &block)? else {
            // The range lies within the size, which is the block's.
            pieces.data(block.slice(range.start as usize..range.end as usize));
            return Ok(());
        };
        let cover = file.cover(range.clone());
        if !cover.inline.is_empty() {
            pieces.data(Bytes::copy_from_slice(cover.inline));
        }
        let mut level = Level::parts();
        for part in cover.parts {
            level.push_part(&part.cid, part.size, &part.range);
        }
        self.pending.push(level, &mut self.lease)
    }

    fn fill(&mut self, pieces: &mut Pieces) -> Result<bool, Unserved> {
        for _ in 0..BATCH_VISITS {
            if pieces.bytes() >= BATCH_BYTES {
                break;
            }
            let Some(Visit { cid, below: Below::Part { size, range } }) = self.pending.pop(&mut self.lease)
            else {
                return Ok(true);
            };
            self.visit(&cid, size, &range, pieces)?;
        }
        Ok(false)
    }
}

impl Batches for Reader {
    fn next(&mut self) -> Result<Batch, Unserved> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let mut pieces = Pieces::default();
        let filled = self.fill(&mut pieces);
        Batch::of(pieces, filled, &mut self.failed)
    }
}

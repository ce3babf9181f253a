//! Consuming a block: its limits, its visit, its leaf, and its links' place.

use pinfold_core::content::{self, Cid};
use pinfold_core::manifest;

use super::agenda::{FrameId, Label};
use super::visited::Visit;
use super::{Found, Walk, WalkError};

impl Walk {
    pub(super) fn consume_block(&mut self, label: Label, cid: Cid) -> Result<(), WalkError> {
        let node = &self.agenda.nodes[&label];
        let (id, above) = (node.key.id, node.frame);
        let inline = content::inline_data(&cid).is_some();
        self.check_limits(&cid, above, inline)?;
        let found = self.pending.get_mut(&cid).and_then(|pending| pending.found.take());
        let found = found.expect("consume looked before");
        let parent = self.note(&cid, &found, above, inline)?;
        let here = found.expanded.filter(|(by, _)| *by == id).map(|(_, frame)| frame);
        if let Some(frame) = here {
            self.frame_mut(frame).parent = parent;
        } else if found.links > 0 {
            // Its links stand behind a later node that was known first, where
            // they will have been visited; or they were put far. They belong
            // here.
            let frame = self.open(&cid, None, found.links, 1);
            self.frame_mut(frame).parent = parent;
        }
        if let Some((_, frame)) = found.expanded {
            self.disown(frame);
        }
        self.pending.remove(&cid);
        Ok(())
    }

    pub(super) fn check_limits(&self, cid: &Cid, above: FrameId, inline: bool) -> Result<(), WalkError> {
        let over = |what, limit| Err(WalkError::OverLimit { what, limit, cid: *cid });
        let frame = self.frame(above);
        if frame.depth > self.limits.depth {
            return over("links from the root to a block", u64::from(self.limits.depth));
        }
        if inline && frame.nesting >= self.limits.nesting {
            return over("nested identity CIDs", u64::from(self.limits.nesting));
        }
        if self.visited.len() as u64 >= self.limits.blocks {
            return over("blocks", self.limits.blocks);
        }
        Ok(())
    }

    /// Marks a block as visited, counts it and adds its leaf. Returns the
    /// index that is its links' parent.
    pub(super) fn note(
        &mut self,
        cid: &Cid,
        found: &Found,
        above: FrameId,
        inline: bool,
    ) -> Result<u64, WalkError> {
        let inherited = self.frame(above).parent;
        if inline {
            self.visited.visit(cid.codec(), cid.hash(), 0);
            return Ok(inherited);
        }
        self.ahead.blocks -= 1;
        self.ahead.bytes -= u64::from(found.length);
        let index = self.consumed.blocks;
        let short = u32::try_from(index).expect("the limit on blocks is below 2^32");
        match self.visited.visit(cid.codec(), cid.hash(), short) {
            Visit::New => {
                self.consumed.blocks += 1;
                self.consumed.bytes += u64::from(found.length);
                self.fresh.extend(content::block_cid(cid).map(|cid| *cid.hash()));
                self.push_leaf(cid, found, inherited)?;
                Ok(index)
            }
            Visit::OtherCodec(first) => Ok(u64::from(first)),
            Visit::Seen => unreachable!("a visited block is not consumed again"),
        }
    }

    pub(super) fn push_leaf(&mut self, cid: &Cid, found: &Found, parent: u64) -> Result<(), WalkError> {
        let leaf = manifest::BlockLeaf {
            multihash: *cid.hash(),
            codec: cid.codec(),
            length: u64::from(found.length),
            chunk_root: found.chunk_root,
            parent,
        };
        let pushed = self.builder.push_leaf(&leaf).map(drop);
        pushed.map_err(|error| WalkError::Manifest { cid: *cid, error: error.to_string() })
    }
}

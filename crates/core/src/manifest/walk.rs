//! The walk that defines a manifest, written to be read.
//!
//! It asks for one block at a time and keeps everything in memory: for
//! verifying a CAR, and as the model for a node's walk, which fetches ahead.

use std::collections::{HashMap, HashSet};

use super::{BlockLeaf, Builder, BuilderError, Manifest, NO_PARENT, chunk_root};
use crate::content::{Cid, ContentKey, Multihash, inline_data};
use crate::hash::{self, HashError};
use crate::links::{BlockError, Codec, list};
use crate::policy::{self, MAX_BLOCK, MAX_BLOCKS, MAX_DEPTH, MAX_IDENTITY_NESTING, RootError};

/// Why a DAG has no manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WalkError {
    /// The root cannot be pinned.
    #[error("{0}")]
    Root(#[from] RootError),
    /// A block is missing.
    #[error("the block {0} is missing")]
    Missing(Box<Cid>),
    /// A block's bytes are not those that its CID names.
    #[error("the bytes given for {0} are others: {1}")]
    Hash(Box<Cid>, HashError),
    /// A block is not valid.
    #[error("{0} is not valid: {1}")]
    Block(Box<Cid>, BlockError),
    /// More than [`MAX_BLOCKS`] blocks, or deeper than [`MAX_DEPTH`].
    #[error("the DAG exceeds {MAX_BLOCKS} blocks or a depth of {MAX_DEPTH}")]
    OverLimit,
    /// The lengths exceed 64 bits.
    #[error("{0}")]
    Builder(#[from] BuilderError),
}

/// The manifest of a root and its leaves in order. `get` gives the bytes of a
/// block, none where they are missing; they are verified here.
///
/// # Errors
/// When a block is missing or not valid, or a limit is exceeded.
pub fn of_dag(
    root: &Cid,
    get: &mut dyn FnMut(&Cid) -> Option<Vec<u8>>,
) -> Result<(Manifest, Vec<BlockLeaf>), WalkError> {
    of_dag_within(root, MAX_DEPTH, get)
}

/// The same with another limit than [`MAX_DEPTH`]: the deepest block that is
/// accepted; the root's depth is 0.
///
/// # Errors
/// Those of [`of_dag`].
pub fn of_dag_within(
    root: &Cid,
    max_depth: u32,
    get: &mut dyn FnMut(&Cid) -> Option<Vec<u8>>,
) -> Result<(Manifest, Vec<BlockLeaf>), WalkError> {
    policy::check_root(root)?;
    let mut walk = Walk::default();
    let mut stack = vec![Frame { links: vec![*root].into_iter(), parent: NO_PARENT, nesting: 0 }];
    while let Some(frame) = stack.last_mut() {
        let (parent, nesting) = (frame.parent, frame.nesting);
        let Some(cid) = frame.links.next() else {
            stack.pop();
            continue;
        };
        if !walk.visited.insert(ContentKey::of(&cid)) {
            continue;
        }
        // The root's frame holds links of depth 0.
        if stack.len() > max_depth as usize + 1 {
            return Err(WalkError::OverLimit);
        }
        stack.extend(walk.visit(&cid, parent, nesting, get)?);
    }
    Ok((walk.builder.finish(), walk.leaves))
}

/// The links of one block or identity CID, being followed.
struct Frame {
    links: std::vec::IntoIter<Cid>,
    /// Index of the nearest listed block at or above it.
    parent: u64,
    /// How many identity CIDs are nested here.
    nesting: u32,
}

#[derive(Default)]
struct Walk {
    visited: HashSet<ContentKey>,
    listed: HashMap<Multihash, u64>,
    builder: Builder,
    leaves: Vec<BlockLeaf>,
}

impl Walk {
    /// Visits what was not visited before.
    fn visit(
        &mut self,
        cid: &Cid,
        parent: u64,
        nesting: u32,
        get: &mut dyn FnMut(&Cid) -> Option<Vec<u8>>,
    ) -> Result<Option<Frame>, WalkError> {
        if let Some(data) = inline_data(cid) {
            if nesting >= MAX_IDENTITY_NESTING {
                return Err(WalkError::Block(Box::new(*cid), BlockError::TooDeep));
            }
            return frame(cid, data, parent, nesting + 1);
        }
        let block = get(cid).ok_or(WalkError::Missing(Box::new(*cid)))?;
        if block.len() > MAX_BLOCK {
            return Err(WalkError::Block(Box::new(*cid), BlockError::TooLarge(block.len())));
        }
        hash::verify(cid.hash(), &block).map_err(|error| WalkError::Hash(Box::new(*cid), error))?;
        let index = self.list(cid, parent, &block)?;
        frame(cid, &block, index, 0)
    }

    fn list(&mut self, cid: &Cid, parent: u64, block: &[u8]) -> Result<u64, WalkError> {
        if let Some(&index) = self.listed.get(cid.hash()) {
            return Ok(index);
        }
        let leaf = BlockLeaf {
            multihash: *cid.hash(),
            codec: cid.codec(),
            length: block.len() as u64,
            chunk_root: chunk_root(block),
            parent,
        };
        let index = self.builder.push_leaf(&leaf)?;
        if index >= MAX_BLOCKS {
            return Err(WalkError::OverLimit);
        }
        self.leaves.push(leaf);
        self.listed.insert(leaf.multihash, index);
        Ok(index)
    }
}

/// What to follow below a block; nothing below a codec that is not followed.
fn frame(cid: &Cid, data: &[u8], parent: u64, nesting: u32) -> Result<Option<Frame>, WalkError> {
    if Codec::of(cid.codec()).is_none() {
        return Ok(None);
    }
    let links = list(cid.codec(), data).map_err(|error| WalkError::Block(Box::new(*cid), error))?;
    Ok(Some(Frame { links: links.into_iter(), parent, nesting }))
}

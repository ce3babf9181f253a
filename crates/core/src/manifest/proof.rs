//! Opening a manifest at one chunk, and verifying that.
//!
//! The verifier knows the manifest (root, bytes, blocks) and what was drawn.
//! From these alone it derives which way the path turns at every node and how
//! long it is; a proof brings hashes and sums, never directions.

use super::VERSION;
use super::tree::{self, Peaks, Subtree, chunk_leaf, chunk_node, manifest_node};
use super::{BlockLeaf, CHUNK, Hash, Manifest};
use crate::policy::MAX_BLOCK;

/// What was drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Draw {
    /// The chunk that holds this byte of the listed blocks, put end to end.
    Offset(u64),
    /// A block by its index, and a chunk of it.
    Index {
        /// The leaf, from 0.
        block: u64,
        /// The chunk, from 0.
        chunk: u64,
    },
}

/// One node of the path from the manifest's root down to a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Bytes below the node's left child.
    pub left: u64,
    /// Bytes below its right child.
    pub right: u64,
    /// The hash of the child that the path does not enter.
    pub sibling: Hash,
}

/// One chunk with everything that leads from it to the manifest's root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The chunk's bytes.
    pub chunk: Vec<u8>,
    /// Siblings from the chunk up to the block's chunk root.
    pub chunk_path: Vec<Hash>,
    /// The block's leaf.
    pub leaf: BlockLeaf,
    /// Nodes from the manifest's root down to the leaf.
    pub path: Vec<Step>,
}

/// Which clause a proof, or a wish for one, does not fulfil.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The manifest is of a version whose rules are not known here.
    #[error("the manifest is of version {0}, and only {VERSION} is known")]
    Version(u32),
    /// The draw lies beyond the content.
    #[error("the draw lies beyond the content")]
    Draw,
    /// The path has fewer or more nodes than the number of blocks asks for.
    #[error("the path to the manifest root has the wrong length")]
    PathLength,
    /// A node's two sums overflow.
    #[error("the sums of a node exceed 64 bits")]
    Overflow,
    /// A node's two sums are not what its parent, or the manifest, says.
    #[error("the sums of a node are not the sum in its parent")]
    Sum,
    /// The lowest sum is not the leaf's length.
    #[error("the length of the leaf is not the sum above it")]
    LeafLength,
    /// A block that is drawn has at least a byte, and at most 2 MiB.
    #[error("the leaf's length is not between one byte and {MAX_BLOCK}")]
    BlockLength,
    /// The chunk has another length than its place in the block gives.
    #[error("the chunk has the wrong length")]
    ChunkLength,
    /// The path has fewer or more hashes than the number of chunks asks for.
    #[error("the path to the chunk root has the wrong length")]
    ChunkPathLength,
    /// The chunk and its path do not hash to the leaf's chunk root.
    #[error("the chunk does not lead to the chunk root")]
    ChunkRoot,
    /// The leaf and its path do not hash to the manifest root.
    #[error("the leaf does not lead to the manifest root")]
    Root,
    /// The leaves or the block given are not those of the manifest.
    #[error("the blocks given are not those of the manifest")]
    Source,
}

/// Whether a proof opens a manifest at what was drawn.
///
/// # Errors
/// The first clause that it does not fulfil.
pub fn verify(manifest: &Manifest, draw: Draw, proof: &Proof) -> Result<(), ProofError> {
    if manifest.version != VERSION {
        return Err(ProofError::Version(manifest.version));
    }
    let descent = descend(manifest, draw, &proof.path)?;
    if proof.leaf.length != descent.sum {
        return Err(ProofError::LeafLength);
    }
    let chunk = verify_chunk(descent.within, proof)?;
    if tree_root(&chunk, &proof.chunk_path) != proof.leaf.chunk_root {
        return Err(ProofError::ChunkRoot);
    }
    ascend(manifest, &descent.turns, proof)
}

/// Where a path from the root ends.
struct Descent {
    /// True where the path enters the left child, from the root down.
    turns: Vec<bool>,
    /// What the lowest node says is below its child.
    sum: u64,
    /// The chunk of the leaf.
    within: Within,
}

/// Where in the block the chunk lies.
#[derive(Clone, Copy)]
enum Within {
    Byte(u64),
    Chunk(u64),
}

/// Follows the draw down the path by the sums and the number of leaves.
fn descend(manifest: &Manifest, draw: Draw, path: &[Step]) -> Result<Descent, ProofError> {
    let (mut target, inside) = match draw {
        Draw::Offset(offset) => (offset, offset < manifest.bytes),
        Draw::Index { block, .. } => (block, block < manifest.blocks),
    };
    if !inside {
        return Err(ProofError::Draw);
    }
    let (mut count, mut sum) = (manifest.blocks, manifest.bytes);
    let mut turns = Vec::new();
    for step in path {
        if count <= 1 {
            return Err(ProofError::PathLength);
        }
        if step.left.checked_add(step.right).ok_or(ProofError::Overflow)? != sum {
            return Err(ProofError::Sum);
        }
        let split = split(count);
        let boundary = if matches!(draw, Draw::Offset(_)) { step.left } else { split };
        let left = target < boundary;
        (count, sum) = if left { (split, step.left) } else { (count - split, step.right) };
        target -= if left { 0 } else { boundary };
        turns.push(left);
    }
    if count != 1 {
        return Err(ProofError::PathLength);
    }
    let within = match draw {
        Draw::Offset(_) => Within::Byte(target),
        Draw::Index { chunk, .. } => Within::Chunk(chunk),
    };
    Ok(Descent { turns, sum, within })
}

/// Checks the lengths of block, chunk and chunk path; (chunks, chunk index).
fn verify_chunk(within: Within, proof: &Proof) -> Result<ChunkPlace<'_>, ProofError> {
    let length = proof.leaf.length;
    if length == 0 || length > MAX_BLOCK as u64 {
        return Err(ProofError::BlockLength);
    }
    let chunks = length.div_ceil(CHUNK as u64);
    let index = match within {
        Within::Byte(offset) => offset / CHUNK as u64,
        Within::Chunk(index) => index,
    };
    if index >= chunks {
        return Err(ProofError::Draw);
    }
    if proof.chunk.len() as u64 != (length - index * CHUNK as u64).min(CHUNK as u64) {
        return Err(ProofError::ChunkLength);
    }
    if proof.chunk_path.len() != path_length(chunks, index) {
        return Err(ProofError::ChunkPathLength);
    }
    Ok(ChunkPlace { chunk: &proof.chunk, chunks, index })
}

struct ChunkPlace<'a> {
    chunk: &'a [u8],
    chunks: u64,
    index: u64,
}

/// The chunk root to which a chunk and siblings of the right number lead.
fn tree_root(place: &ChunkPlace<'_>, siblings: &[Hash]) -> Hash {
    let turns = turns(place.chunks, place.index);
    let mut hash = chunk_leaf(place.chunk);
    for (left, sibling) in turns.iter().rev().zip(siblings) {
        hash = if *left { chunk_node(&hash, sibling) } else { chunk_node(sibling, &hash) };
    }
    hash
}

fn ascend(manifest: &Manifest, turns: &[bool], proof: &Proof) -> Result<(), ProofError> {
    let mut hash = proof.leaf.hash();
    for (left, step) in turns.iter().zip(&proof.path).rev() {
        let (a, b) = if *left { (hash, step.sibling) } else { (step.sibling, hash) };
        let node = manifest_node(&Subtree { hash: a, sum: step.left }, &Subtree { hash: b, sum: step.right });
        hash = node.hash;
    }
    if hash == manifest.root { Ok(()) } else { Err(ProofError::Root) }
}

/// Leaves below the left child of a node with `count` of them: the largest
/// power of two below `count`, as RFC 9162 has it. `count` is at least 2.
fn split(count: u64) -> u64 {
    1 << (u64::BITS - 1 - (count - 1).leading_zeros())
}

/// True where the way from the root to a leaf turns left, from the root down.
fn turns(mut count: u64, mut index: u64) -> Vec<bool> {
    let mut turns = Vec::new();
    while count > 1 {
        let split = split(count);
        let left = index < split;
        (count, index) = if left { (split, index) } else { (count - split, index - split) };
        turns.push(left);
    }
    turns
}

fn path_length(count: u64, index: u64) -> usize {
    turns(count, index).len()
}

/// The leaf that holds an offset, from the lengths of the leaves in order:
/// (index, offset in the block). None beyond the end.
pub fn locate(lengths: impl IntoIterator<Item = u64>, offset: u64) -> Option<(u64, u64)> {
    let mut before = 0_u64;
    for (index, length) in (0..).zip(lengths) {
        let end = before.saturating_add(length);
        if offset < end {
            return Some((index, offset - before));
        }
        before = end;
    }
    None
}

/// Opens a manifest at a chunk of a block, in one pass over its leaves in
/// order and in memory that grows with the logarithm of their number.
///
/// `block` holds the bytes of the leaf at `index`. A draw by offset is turned
/// into an index and a chunk by [`locate`].
///
/// # Errors
/// [`ProofError::Draw`] when leaf or chunk do not exist, [`ProofError::Source`]
/// when the leaves or the block are not those of the manifest.
pub fn open(
    manifest: &Manifest,
    leaves: impl IntoIterator<Item = BlockLeaf>,
    index: u64,
    chunk: u64,
    block: &[u8],
) -> Result<Proof, ProofError> {
    let start = usize::try_from(chunk).ok().and_then(|chunk| chunk.checked_mul(CHUNK));
    let chunks = block.len().div_ceil(CHUNK) as u64;
    let (Some(start), true) = (start, index < manifest.blocks && chunk < chunks) else {
        return Err(ProofError::Draw);
    };
    let mut opener = Opener { leaves: leaves.into_iter(), leaf: None, path: Vec::new() };
    let root = opener.subtree(manifest.blocks, Some(index))?;
    opener.path.reverse();
    let leaf = opener.leaf.ok_or(ProofError::Source)?;
    let proof = Proof {
        chunk: block[start..block.len().min(start + CHUNK)].to_vec(),
        chunk_path: chunk_path(block, chunk),
        leaf,
        path: opener.path,
    };
    let genuine =
        root.hash == manifest.root && verify(manifest, Draw::Index { block: index, chunk }, &proof).is_ok();
    if genuine { Ok(proof) } else { Err(ProofError::Source) }
}

struct Opener<I> {
    leaves: I,
    leaf: Option<BlockLeaf>,
    /// From the leaf up.
    path: Vec<Step>,
}

impl<I: Iterator<Item = BlockLeaf>> Opener<I> {
    /// Takes the next `count` leaves; where the target is among them, its
    /// index in them is given, and leaf and path are noted. Recursive, but no
    /// deeper than 64: each step halves `count`.
    fn subtree(&mut self, count: u64, target: Option<u64>) -> Result<Subtree, ProofError> {
        let Some(target) = target else { return self.skip(count) };
        if count == 1 {
            let leaf = self.leaves.next().ok_or(ProofError::Source)?;
            self.leaf = Some(leaf);
            return Ok(Subtree::of(&leaf));
        }
        let split = split(count);
        let enters_left = target < split;
        let left = self.subtree(split, enters_left.then_some(target))?;
        let right = self.subtree(count - split, target.checked_sub(split))?;
        let sibling = if enters_left { right.hash } else { left.hash };
        self.path.push(Step { left: left.sum, right: right.sum, sibling });
        Ok(manifest_node(&left, &right))
    }

    fn skip(&mut self, count: u64) -> Result<Subtree, ProofError> {
        let mut peaks = Peaks::default();
        for _ in 0..count {
            let leaf = self.leaves.next().ok_or(ProofError::Source)?;
            peaks.push(Subtree::of(&leaf), &manifest_node);
        }
        peaks.fold(&manifest_node).ok_or(ProofError::Source)
    }
}

/// Siblings from a chunk up to the chunk root of its block.
fn chunk_path(block: &[u8], index: u64) -> Vec<Hash> {
    let chunks = block.len().div_ceil(CHUNK) as u64;
    let (mut from, mut count) = (0_usize, chunks);
    let mut siblings = Vec::new();
    for left in turns(chunks, index) {
        let middle = from + split(count) as usize * CHUNK;
        let end = block.len().min(from + count as usize * CHUNK);
        let (entered, other) =
            if left { (from, &block[middle..end]) } else { (middle, &block[from..middle]) };
        count = if left { split(count) } else { count - split(count) };
        from = entered;
        siblings.push(tree::chunk_root(other));
    }
    siblings.reverse();
    siblings
}

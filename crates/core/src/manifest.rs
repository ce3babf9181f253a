//! The manifest: a commitment to every block below a root, and to how many
//! bytes they are, in 48 bytes.
//!
//! It is a pure function of the manifest version and the root CID. The DAG is
//! walked depth-first in pre-order, links in the order in which they appear
//! in a block's bytes; the walk goes by (codec, multihash), each multihash is
//! listed once, with the codec and the parent of its first visit. Identity
//! CIDs are decoded in place and followed, never listed: their children have
//! the nearest ancestor that is listed as their parent.
//!
//! Each listed block is a leaf of a tree with the shape of RFC 9162, section
//! 2.1.1, whose nodes also carry the sum of the lengths below them, so that
//! an offset into the content finds its block. Each leaf holds the root of a
//! second tree, over the block's chunks of 1 KiB, so that a proof carries one
//! chunk and not one block.
//!
//! Everything is hashed with SHA-256 behind a domain and a prefix byte:
//!
//! ```text
//! chunk leaf     D 00 00  len(chunk) chunk
//! chunk node     D 00 01  left right
//! block leaf     D 00 02  len(multihash) multihash codec length chunk_root parent
//! manifest node  D 00 03  left left_sum right right_sum
//! ```
//!
//! where D is `pinfold/manifest/1`, hashes are 32 bytes, everything else a
//! big-endian u64. A tree of one leaf is that leaf. The empty tree is the
//! hash of D, 00 and its node's prefix.

mod proof;
mod tree;
mod walk;

pub use proof::{Draw, Proof, ProofError, Step, locate, open, verify};
pub use tree::{Builder, BuilderError, chunk_root};
pub use walk::{WalkError, of_dag, of_dag_within};

use sha2::{Digest, Sha256};

use crate::content::Multihash;
use crate::quota;

/// The version of the manifest function described here.
pub const VERSION: u32 = 1;

/// Bytes of a chunk. The last one of a block may be shorter.
pub const CHUNK: usize = 1_024;

/// The parent index of the root, and of what only identity CIDs lie above.
pub const NO_PARENT: u64 = u64::MAX;

/// A SHA-256 hash.
pub type Hash = [u8; 32];

/// The commitment to a root's blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Manifest {
    /// [`VERSION`] of the function that made it.
    pub version: u32,
    /// Root of the tree of block leaves.
    pub root: Hash,
    /// Sum of the lengths of the blocks listed.
    pub bytes: u64,
    /// Number of blocks listed.
    pub blocks: u64,
}

impl Manifest {
    /// What the content is charged, in bytes: nothing when identity CIDs hold
    /// all of it, so that no block is listed.
    #[must_use]
    pub fn billed(&self) -> u64 {
        if self.blocks == 0 { 0 } else { quota::billed(self.bytes) }
    }
}

/// One listed block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockLeaf {
    /// The block's multihash.
    pub multihash: Multihash,
    /// The codec with which it was met first.
    pub codec: u64,
    /// Its length in bytes.
    pub length: u64,
    /// [`chunk_root`] of its bytes.
    pub chunk_root: Hash,
    /// Index of the leaf through which it was met first, or [`NO_PARENT`].
    pub parent: u64,
}

impl BlockLeaf {
    /// The hash of the leaf in the manifest's tree.
    #[must_use]
    pub fn hash(&self) -> Hash {
        let multihash = self.multihash.to_bytes();
        let mut hasher = Sha256::new();
        hasher.update(tree::domain(tree::BLOCK_LEAF));
        hasher.update((multihash.len() as u64).to_be_bytes());
        hasher.update(&multihash);
        hasher.update(self.codec.to_be_bytes());
        hasher.update(self.length.to_be_bytes());
        hasher.update(self.chunk_root);
        hasher.update(self.parent.to_be_bytes());
        hasher.finalize().into()
    }
}

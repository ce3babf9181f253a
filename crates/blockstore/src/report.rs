//! What the store says of its roots, of itself, and of its own work.

use bytes::Bytes;

use crate::Multihash;
use crate::state::HeldList;
#[cfg(doc)]
use crate::{Options, Store, Walk};

/// The state of a root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RootState {
    /// A walk has begun and none has completed.
    Fetching,
    /// A walk has completed: every block was held and durable. It stays so
    /// while the root is walked again.
    Held,
}

/// What the store knows of a root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootInfo {
    /// Its state.
    pub state: RootState,
    /// The bytes given to [`Walk::complete`]; empty before.
    pub meta: Bytes,
    /// The length of its list, in blocks; 0 before it is held.
    pub blocks: u64,
    /// The sum of the lengths of those blocks, in bytes.
    pub bytes: u64,
}

impl RootInfo {
    /// What a root's state and meta say.
    pub(crate) fn of(held: Option<HeldList>, meta: &[u8]) -> Self {
        Self {
            state: if held.is_some() { RootState::Held } else { RootState::Fetching },
            meta: Bytes::copy_from_slice(meta),
            blocks: held.map_or(0, |held| held.blocks),
            bytes: held.map_or(0, |held| held.bytes),
        }
    }
}

/// What the store holds and occupies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Blocks that can be read, with those that wait to be reclaimed.
    pub blocks: u64,
    /// The sum of their lengths, in bytes.
    pub block_bytes: u64,
    /// Bytes on disk: segments and index, without the reserve.
    pub disk_bytes: u64,
    /// [`Options::capacity_bytes`].
    pub capacity_bytes: u64,
}

/// What [`Store::reclaim`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reclaimed {
    /// Blocks removed.
    pub blocks: u64,
    /// The sum of their lengths, in bytes.
    pub block_bytes: u64,
    /// Segments deleted after what lives in them was copied.
    pub segments: u64,
    /// Bytes that were copied for that.
    pub copied_bytes: u64,
}

/// What [`Store::scrub`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scrubbed {
    /// Blocks read and verified.
    pub blocks: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Blocks found damaged; they are lost now.
    pub lost: u64,
    /// Whether every block was visited; otherwise it was told to stop.
    pub finished: bool,
}

/// What [`Store::check`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Check {
    /// Roots whose lists were read.
    pub roots: u64,
    /// Blocks that were compared.
    pub blocks: u64,
    /// How many differences there are.
    pub differences: u64,
    /// The first of them.
    pub examples: Vec<Difference>,
}

/// A stored fact that a recount does not confirm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// A block's stored number of references is not that of the lists.
    References {
        /// The block.
        multihash: Multihash,
        /// References as stored.
        stored: u64,
        /// References in the lists.
        counted: u64,
    },
    /// A block in a held root's list is not held.
    Missing {
        /// The block.
        multihash: Multihash,
    },
    /// A sum that the store keeps differs from the recounted one.
    Sum {
        /// Which sum.
        what: &'static str,
        /// As stored.
        stored: u64,
        /// As counted.
        counted: u64,
    },
}

//! What can go wrong in the store.

use std::io;
use std::path::PathBuf;

use crate::Multihash;

/// An error of the store. Each message names what happened, to what, and what
/// to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused an operation on one of the store's files.
    #[error("{action} {}: {source}; check the disk and its permissions", path.display())]
    Io {
        /// What was tried, as a verb: "read", "append to".
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The configured capacity is used up. Nothing was written.
    #[error(
        "the block store is full: {needed} bytes more would exceed its capacity of {capacity} bytes, \
         {used} are used; release roots, reclaim, or raise the capacity"
    )]
    Full {
        /// Bytes that were to be written.
        needed: u64,
        /// Bytes that the store occupies.
        used: u64,
        /// [`Options::capacity_bytes`](crate::Options::capacity_bytes).
        capacity: u64,
    },
    /// The file system has no space left, whatever the configured capacity.
    /// What was being written is not stored; what was stored before, is.
    #[error("the disk that holds {} has no space left; free some or lower the store's capacity", path.display())]
    DiskFull {
        /// The file that could not grow.
        path: PathBuf,
    },
    /// Another process, or another store of this one, has the directory open.
    #[error("the block store {} is in use by another process; stop that one first", path.display())]
    Locked {
        /// The store's directory.
        path: PathBuf,
    },
    /// The directory was written by a newer version of this program.
    #[error(
        "the block store {} has format {found}, and this program knows formats up to {known}; \
         use the program's version that wrote it, or a newer one",
        path.display()
    )]
    NewerFormat {
        /// The store's directory.
        path: PathBuf,
        /// The format found.
        found: u32,
        /// The newest format that is known here.
        known: u32,
    },
    /// The directory has files in it but is not a block store.
    #[error("{} is not a block store: {reason}; choose an empty directory", path.display())]
    NotAStore {
        /// The directory.
        path: PathBuf,
        /// What was expected and not found.
        reason: String,
    },
    /// A sync failed earlier: what it should have made durable may be gone,
    /// and a second sync would not tell. Reads go on; to write, open the store
    /// again, which keeps exactly what is known to be on disk.
    #[error("an earlier sync of the block store failed ({reason}); check the disk, then start again")]
    Poisoned {
        /// The failure.
        reason: String,
    },
    /// The index could not be read or written. It is rebuilt from the
    /// segments when it is deleted.
    #[error("the block store's index failed: {reason}; check the disk, then start again")]
    Index {
        /// The index's own words.
        reason: String,
    },
    /// A record that the index points to is damaged. For a block this is not
    /// an error but a lost block; here it is a root's list or state.
    #[error("{what} is damaged on disk; fetch the root again")]
    Damaged {
        /// Which record.
        what: String,
    },
    /// The bytes do not have the multihash that they were said to have.
    #[error("the bytes do not match multihash {}", hex(expected))]
    WrongHash {
        /// The multihash that was expected.
        expected: Multihash,
    },
    /// The hash function is not one that can be recomputed here.
    #[error("hash function {code:#x} is not supported; blocks under it cannot be verified")]
    UnknownHash {
        /// The multihash code.
        code: u64,
    },
    /// The block is longer than [`MAX_BLOCK_BYTES`](crate::MAX_BLOCK_BYTES).
    #[error("a block of {len} bytes exceeds the limit of {} bytes", crate::MAX_BLOCK_BYTES)]
    BlockTooLong {
        /// Its length, in bytes.
        len: usize,
    },
    /// A root key that is empty or longer than
    /// [`MAX_ROOT_KEY_BYTES`](crate::MAX_ROOT_KEY_BYTES).
    #[error("a root key has 1 to {} bytes, not {len}", crate::MAX_ROOT_KEY_BYTES)]
    BadRootKey {
        /// Its length, in bytes.
        len: usize,
    },
    /// A `meta` longer than [`MAX_META_BYTES`](crate::MAX_META_BYTES).
    #[error("a root's meta has at most {} bytes, not {len}", crate::MAX_META_BYTES)]
    MetaTooLong {
        /// Its length, in bytes.
        len: usize,
    },
    /// The root has a walk already; there is one at a time.
    #[error("the root is being walked already; complete or abandon that walk first")]
    WalkInProgress,
    /// The root was released while the walk went on.
    #[error("the root was released while it was being fetched; begin again if it is still wanted")]
    Released,
    /// The root cannot be completed: blocks that it refers to are not held.
    #[error(
        "{missing} of the root's {total} blocks are not held, the first is {}; fetch and put them",
        hex(first)
    )]
    Incomplete {
        /// How many are missing.
        missing: u64,
        /// How many the root refers to.
        total: u64,
        /// The first missing one, in the order of the walk.
        first: Multihash,
    },
}

/// A multihash as it is printed in messages.
fn hex(multihash: &Multihash) -> String {
    multihash.to_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

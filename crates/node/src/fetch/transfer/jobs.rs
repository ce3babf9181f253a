//! What a transfer does on blocking threads.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use pinfold_blockstore::{self as blockstore, Block, Multihash, Store};
use pinfold_core::content::BlockCid;

use super::super::derive::{self, Invalid};
use super::super::walk::{Derived, Links, Reload};

/// Why a job failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum JobError {
    /// A block whose hash is right and whose content is not.
    #[error("the block {cid} is invalid: {error}")]
    Invalid { cid: BlockCid, error: Invalid },
    /// The store.
    #[error(transparent)]
    Store(#[from] blockstore::Error),
}

/// A block that arrived: under which CIDs it is wanted, none where it only
/// fills a gap in the store.
pub(super) struct Arrival {
    pub(super) multihash: Multihash,
    pub(super) codecs: Vec<BlockCid>,
    pub(super) data: Bytes,
}

/// What a job found.
pub(super) enum Done {
    /// Looked up: held blocks with what is known of them, and missing ones.
    Probed { held: Vec<(BlockCid, Derived)>, missing: Vec<BlockCid> },
    /// Arrivals put into the store.
    Stored { bytes: u64, blocks: Vec<(BlockCid, Derived)>, multihashes: Vec<Multihash> },
    /// Links read again, none where the block is gone.
    Reloaded(Reload, Option<Links>),
    /// References taken; these blocks are not held (any more).
    Referenced { missing: Vec<Multihash> },
    /// The root is held.
    Completed,
    /// The root cannot be completed: a block is gone.
    Incomplete(Multihash),
}

/// Reads what is held of `cids`, and says what is not.
pub(super) fn probe(store: &Store, cids: Vec<BlockCid>) -> Result<Done, JobError> {
    let (mut held, mut missing) = (Vec::new(), Vec::new());
    for cid in cids {
        match store.get(cid.hash())? {
            Some(data) => held.push((cid, derive(&cid, &data)?)),
            None => missing.push(cid),
        }
    }
    Ok(Done::Probed { held, missing })
}

/// Derives what the walk needs, then puts the blocks into the store: one that
/// cannot be decoded is never kept.
pub(super) fn store(store: &Store, arrivals: Vec<Arrival>) -> Result<Done, JobError> {
    let mut done = Vec::with_capacity(arrivals.len());
    let mut blocks = Vec::with_capacity(arrivals.len());
    let mut multihashes = Vec::with_capacity(arrivals.len());
    let mut bytes = 0;
    for arrival in arrivals {
        for cid in arrival.codecs {
            done.push((cid, derive(&cid, &arrival.data)?));
        }
        bytes += arrival.data.len() as u64;
        multihashes.push(arrival.multihash);
        blocks.push(Block::computed(arrival.multihash, arrival.data)?);
    }
    store.put(&blocks)?;
    Ok(Done::Stored { bytes, blocks: done, multihashes })
}

/// Reads a block's links again.
pub(super) fn reload(store: &Store, reload: Reload, cid: &BlockCid) -> Result<Done, JobError> {
    let Some(data) = store.get(cid.hash())? else { return Ok(Done::Reloaded(reload, None)) };
    let links = derive::links_of(cid.codec(), &data)
        .map_err(|error| JobError::Invalid { cid: *cid, error: error.into() })?;
    Ok(Done::Reloaded(reload, Some(links)))
}

/// Takes references in the order of the walk, and only then looks whether the
/// blocks are held: what was held when it was looked up can have been released
/// by another root since, and from here on it cannot.
pub(super) fn reference(
    store: &Store,
    walk: &Mutex<blockstore::Walk>,
    multihashes: &[Multihash],
) -> Result<Done, JobError> {
    walk.lock().reference(multihashes)?;
    let mut missing = Vec::new();
    for multihash in multihashes {
        if !store.has(multihash)? {
            missing.push(*multihash);
        }
    }
    Ok(Done::Referenced { missing })
}

/// Makes the root held, durably.
pub(super) fn complete(walk: &Arc<Mutex<blockstore::Walk>>, meta: &[u8]) -> Result<Done, JobError> {
    match walk.lock().complete(meta) {
        Ok(_) => Ok(Done::Completed),
        Err(blockstore::Error::Incomplete { first, .. }) => Ok(Done::Incomplete(first)),
        Err(error) => Err(error.into()),
    }
}

fn derive(cid: &BlockCid, data: &[u8]) -> Result<Derived, JobError> {
    derive::derive(cid.codec(), data).map_err(|error| JobError::Invalid { cid: *cid, error })
}

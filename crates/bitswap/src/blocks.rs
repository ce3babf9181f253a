//! What the server side serves.

use bytes::Bytes;
use cid::Cid;
use libp2p::PeerId;

/// The blocks that this node serves to its peers.
///
/// Both functions may be called from several threads at once.
pub trait Blocks: Send + Sync + 'static {
    /// The length of a block in bytes, or `None` when it is not held or is
    /// not served to `peer`.
    ///
    /// Called for every entry of every wantlist, on the task that drives the
    /// peer's connection: answer it from an index alone.
    fn size(&self, peer: &PeerId, cid: &Cid) -> Option<u32>;

    /// The bytes of a block, or `None` when it is no longer held, damaged, or
    /// not served to `peer`.
    ///
    /// Called on a thread for blocking work, when the peer's stream can take
    /// more, for blocks whose [`size`](Self::size) was told before.
    fn get(&self, peer: &PeerId, cid: &Cid) -> Option<Bytes>;
}

/// Serves nothing: for a client that only fetches.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoBlocks;

impl Blocks for NoBlocks {
    fn size(&self, _: &PeerId, _: &Cid) -> Option<u32> {
        None
    }

    fn get(&self, _: &PeerId, _: &Cid) -> Option<Bytes> {
        None
    }
}

//! Where a transfer gets its blocks from, as it sees it.

use std::future::Future;

use bytes::Bytes;
use pinfold_core::content::BlockCid;
use pinfold_core::status::Reason;

/// What an [`Exchange`] has to say.
#[derive(Debug)]
pub(crate) enum Supply {
    /// A wanted block; its bytes have the multihash.
    Block {
        /// As it was wanted.
        cid: BlockCid,
        /// Its bytes.
        data: Bytes,
    },
    /// Where the search for sources stands.
    Reason(Reason),
    /// Nobody who is known delivers what is wanted, and nobody more can be
    /// found for now.
    Exhausted(Reason),
}

/// Delivers wanted blocks from wherever they are.
pub(crate) trait Exchange: Send {
    /// Wants these, in this order after what is wanted already.
    fn want(&mut self, cids: &[BlockCid]);
    /// These are held now and can be served to others.
    fn stored(&mut self, cids: &[BlockCid]);
    /// The next supply. Cancel-safe.
    fn next(&mut self) -> impl Future<Output = Supply> + Send;
}

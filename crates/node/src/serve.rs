//! What this node shows to others: every block that is held, to anyone, save
//! what is denied. Bitswap and the gateway serve from here.

use bytes::Bytes;
use libp2p::PeerId;
use pinfold_blockstore::{self as blockstore, RootState, Store};
use pinfold_core::content::{self, BlockCid, ContentKey};

use crate::denied::Denied;

/// The held blocks that may be served. Cheap to clone.
#[derive(Clone)]
pub struct Held {
    store: Store,
    denied: Denied,
}

impl Held {
    pub(crate) fn new(store: Store, denied: Denied) -> Self {
        Self { store, denied }
    }

    /// Whether the denylist forbids to serve a CID, or a path below it.
    #[must_use]
    pub fn is_denied(&self, cid: &content::Cid, path: &str) -> bool {
        self.denied.is_withheld(cid, path)
    }

    /// Notes that something was not served because it is denied: `way` is how
    /// it was asked for.
    pub(crate) fn refused(&self, cid: &content::Cid, path: &str, way: &'static str) {
        self.denied.refused(cid, path, way);
    }

    /// The rules of the denylist in force.
    pub(crate) fn rules(&self) -> std::sync::Arc<pinfold_core::denylist::Denylist> {
        self.denied.rules().1
    }

    /// The block store itself, whatever is denied.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The bytes of a block, read from the disk and checked against their
    /// checksum; none where it is not held, damaged, or denied.
    ///
    /// # Errors
    /// When the disk cannot be read.
    pub fn get(&self, cid: &BlockCid) -> Result<Option<Bytes>, blockstore::Error> {
        if self.may(cid) { self.store.get(cid.hash()) } else { Ok(None) }
    }

    fn may(&self, cid: &BlockCid) -> bool {
        !self.denied.is_withheld(&content::of_block_cid(cid), "")
    }
}

/// The roots whose provider records the node publishes.
impl crate::net::Roots for Held {
    fn for_each(&self, visit: &mut dyn FnMut(&blockstore::Multihash)) {
        let roots = match self.store.roots() {
            Ok(roots) => roots,
            Err(error) => return tracing::error!(%error, "the held roots cannot be read"),
        };
        for root in roots {
            let held = root.ok().filter(|(_, info)| info.state == RootState::Held);
            let key = held.and_then(|(key, _)| ContentKey::from_bytes(&key).ok());
            let cid = key.and_then(|key| content::block_cid(&key.to_cid()));
            if let Some(cid) = cid.filter(|cid| self.may(cid)) {
                visit(cid.hash());
            }
        }
    }
}

impl pinfold_bitswap::Blocks for Held {
    fn size(&self, _: &PeerId, cid: &BlockCid) -> Option<u32> {
        if !self.may(cid) {
            // What is not held was not refused.
            if self.store.size(cid.hash()).is_ok_and(|size| size.is_some()) {
                self.refused(&content::of_block_cid(cid), "", "bitswap");
            }
            return None;
        }
        let size = self.store.size(cid.hash()).unwrap_or_else(|error| {
            tracing::error!(%cid, %error, "cannot tell whether a block is held");
            None
        });
        size.and_then(|size| u32::try_from(size).ok())
    }

    fn get(&self, _: &PeerId, cid: &BlockCid) -> Option<Bytes> {
        Held::get(self, cid).unwrap_or_else(|error| {
            tracing::error!(%cid, %error, "cannot read a block");
            None
        })
    }
}

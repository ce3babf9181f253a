//! Blocks from trustless HTTP gateways, which are believed as little as peers.

use bytes::Bytes;
use pinfold_core::content::{self, BlockCid};
use pinfold_core::hash;
use url::Url;

use super::reach::Reach;

/// Marks a block that a gateway is being asked for.
pub(super) const ASKED: usize = 1 << (usize::BITS - 1);

/// A block from a gateway, its hash recomputed; none where the gateway has not
/// brought it, or has sent something else.
pub(super) async fn fetch(
    network: &impl Reach,
    gateway: &Url,
    cid: BlockCid,
    private: bool,
) -> Option<Bytes> {
    let fetched = network.get_block(gateway, &cid, private).await;
    let data = match fetched {
        Ok(data) => data,
        Err(error) => {
            tracing::debug!(%gateway, %cid, %error, "a gateway did not bring a block");
            return None;
        }
    };
    let multihash = *content::of_block_cid(&cid).hash();
    let verify = move || hash::verify(&multihash, &data).map(|()| data);
    match tokio::task::spawn_blocking(verify).await.ok()? {
        Ok(data) => Some(data),
        Err(error) => {
            tracing::warn!(%gateway, %cid, %error, "a gateway sent a wrong block");
            None
        }
    }
}

//! What a search needs of the network, so that its order and its bounds can be
//! tested without one.

use std::future::Future;

use bytes::Bytes;
use libp2p::{Multiaddr, PeerId};
use pinfold_bitswap as bitswap;
use pinfold_core::content::BlockCid;
use tokio::sync::broadcast;
use url::Url;

use crate::net::http::HttpError;
use crate::net::{DialError, Network, Providers};

/// See the module's description; each as [`Network`] does it.
pub(crate) trait Reach: Clone + Send + Sync + 'static {
    fn bitswap(&self) -> &bitswap::Handle;
    fn newcomers(&self) -> (Vec<PeerId>, broadcast::Receiver<PeerId>);
    fn is_connected(&self, peer: &PeerId) -> bool;
    fn has_routing(&self) -> bool;
    fn is_public(&self) -> bool;
    fn find_providers(&self, root: BlockCid) -> Providers;
    fn dial(
        &self,
        peer: Option<PeerId>,
        addresses: Vec<Multiaddr>,
        private: bool,
    ) -> impl Future<Output = Result<PeerId, DialError>> + Send;
    fn get_block(
        &self,
        gateway: &Url,
        cid: &BlockCid,
        private: bool,
    ) -> impl Future<Output = Result<Bytes, HttpError>> + Send;
}

impl Reach for Network {
    fn bitswap(&self) -> &bitswap::Handle {
        self.bitswap()
    }

    fn newcomers(&self) -> (Vec<PeerId>, broadcast::Receiver<PeerId>) {
        self.newcomers()
    }

    fn is_connected(&self, peer: &PeerId) -> bool {
        self.is_connected(peer)
    }

    fn has_routing(&self) -> bool {
        self.has_routing()
    }

    fn is_public(&self) -> bool {
        self.is_public()
    }

    fn find_providers(&self, root: BlockCid) -> Providers {
        self.find_providers(root)
    }

    async fn dial(
        &self,
        peer: Option<PeerId>,
        addresses: Vec<Multiaddr>,
        private: bool,
    ) -> Result<PeerId, DialError> {
        self.dial(peer, addresses, private).await
    }

    async fn get_block(&self, gateway: &Url, cid: &BlockCid, private: bool) -> Result<Bytes, HttpError> {
        self.http().get_block(gateway, cid, private).await
    }
}

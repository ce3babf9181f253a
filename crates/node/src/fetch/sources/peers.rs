//! The network as the manager of all fetches uses it.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use libp2p::PeerId;
use pinfold_bitswap as bitswap;
use pinfold_core::content::BlockCid;
use tokio::sync::mpsc;
use url::Url;

use super::super::manager::{Peers, Search};
use super::Sources;
use crate::net::{self, Expectation, Network};

/// How long a peer has to say which of the roots that it is asked about it
/// has.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);

/// The real network, or one that a test plays.
#[derive(Clone)]
pub(crate) struct Net<R = Network> {
    pub(crate) network: R,
    /// Configured trustless gateways.
    pub(crate) gateways: Vec<Url>,
    /// Whether the service allows private addresses for its pins.
    pub(crate) private: Arc<AtomicBool>,
}

impl Peers for Net {
    type Exchange = Sources;
    type Guard = Expectation;

    fn open(&self, search: Search, origins: mpsc::Receiver<Vec<String>>) -> Sources {
        Sources::new(self, search, origins)
    }

    fn expect(&self, peer: PeerId) -> Expectation {
        self.network.expect(peer)
    }

    async fn ask(&self, peer: PeerId, roots: Vec<BlockCid>) -> Vec<BlockCid> {
        let mut session = self.network.bitswap().new_session();
        session.add_peer(peer);
        let mut open: HashSet<_> = roots.iter().copied().collect();
        session.want(roots);
        let mut have = Vec::new();
        let answers = async {
            while !open.is_empty()
                && let Some(event) = session.next().await
            {
                match event {
                    bitswap::Event::Block { cid, .. } => {
                        open.remove(&cid);
                        have.push(cid);
                    }
                    bitswap::Event::DontHave { cid, .. } => {
                        open.remove(&cid);
                    }
                    bitswap::Event::Stalled { .. }
                    | bitswap::Event::NoPeers
                    | bitswap::Event::PeerGone(_)
                    | bitswap::Event::PeerBanned { .. }
                    | bitswap::Event::TooLarge { .. } => break,
                }
            }
        };
        // Whoever has not answered by then has said nothing.
        let _ = tokio::time::timeout(ASK_TIMEOUT, answers).await;
        have
    }

    fn provide(&self, root: &BlockCid) {
        self.network.provide(root);
    }

    fn peers_of(origins: &[String]) -> Vec<PeerId> {
        net::origins(origins).into_iter().filter_map(|(peer, _)| peer).collect()
    }
}

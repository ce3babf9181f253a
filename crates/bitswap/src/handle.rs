//! The handle in front of the [`Behaviour`](crate::Behaviour).

use std::sync::Arc;
use std::time::{Duration, Instant};

use cid::Cid;
use libp2p::PeerId;

use crate::shared::Shared;
use crate::{BanReason, Session};

/// Opens sessions, tells what goes on. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    shared: Arc<Shared>,
}

impl Handle {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Opens a session without peers and wants.
    pub fn new_session(&self) -> Session {
        Session::new(self.shared.clone())
    }

    /// Tells the server that these blocks are held now, so that peers that
    /// asked for them in vain get them.
    pub fn notify_new(&self, cids: impl IntoIterator<Item = Cid>) {
        for cid in cids {
            let peers = self.shared.server.lock().who_awaits(&cid);
            for peer in peers {
                if let Some(size) = self.shared.blocks.size(&peer, &cid) {
                    self.shared.server.lock().came(&peer, &cid, size);
                }
            }
        }
    }

    /// Bans a peer for [`Config::ban`](crate::Config::ban) and disconnects it,
    /// for example because the content it served cannot be decoded.
    pub fn ban(&self, peer: PeerId, reason: BanReason) {
        self.shared.client.lock().ban(peer, reason, Instant::now());
    }

    /// How much longer a peer is banned, if it is. Connections from and to a
    /// banned peer are denied by the [`Behaviour`](crate::Behaviour).
    pub fn banned(&self, peer: &PeerId) -> Option<Duration> {
        self.shared.client.lock().banned(peer, Instant::now())
    }

    /// Every banned peer with the time that its ban still lasts.
    pub fn bans(&self) -> Vec<(PeerId, Duration)> {
        self.shared.client.lock().bans(Instant::now())
    }

    /// What is held and queued at this moment.
    pub fn stats(&self) -> Stats {
        self.shared.stats(Instant::now())
    }
}

/// What is held and queued at a moment: each is bounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Open sessions.
    pub sessions: usize,
    /// CIDs wanted by sessions.
    pub wants: usize,
    /// Wants sent to peers and not yet answered.
    pub outstanding: usize,
    /// Bytes of verified blocks that sessions have not taken yet.
    pub undelivered_bytes: usize,
    /// Bytes of blocks that have arrived in part.
    pub partial_bytes: usize,
    /// Open inbound streams.
    pub inbound_streams: usize,
    /// Wants of peers kept by the server.
    pub served_wants: usize,
    /// Bytes of blocks read and not yet written to peers.
    pub serving_bytes: usize,
    /// Connected peers.
    pub peers: usize,
    /// Banned peers.
    pub bans: usize,
}

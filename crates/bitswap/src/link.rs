//! What a connection's handler shares with the client and the server.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures::task::AtomicWaker;
use libp2p::PeerId;
use libp2p::swarm::ConnectionId;

/// One connection, as the client and the server see it.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) peer: PeerId,
    pub(crate) id: ConnectionId,
    handler: AtomicWaker,
    expects_blocks: AtomicBool,
    partial: AtomicUsize,
}

impl Link {
    pub(crate) fn new(peer: PeerId, id: ConnectionId) -> Self {
        Self {
            peer,
            id,
            handler: AtomicWaker::new(),
            expects_blocks: AtomicBool::new(false),
            partial: AtomicUsize::new(0),
        }
    }

    /// Has the handler polled, because there is something to send.
    pub(crate) fn wake(&self) {
        self.handler.wake();
    }

    pub(crate) fn register(&self, waker: &std::task::Waker) {
        self.handler.register(waker);
    }

    /// Whether the peer was asked for blocks of late. The blocks of one that
    /// was not are skipped without keeping a byte.
    pub(crate) fn expects_blocks(&self) -> bool {
        self.expects_blocks.load(Ordering::Relaxed)
    }

    pub(crate) fn expect_blocks(&self, expects: bool) {
        self.expects_blocks.store(expects, Ordering::Relaxed);
    }

    /// Bytes of blocks that arrived in part over this connection.
    pub(crate) fn partial(&self) -> &AtomicUsize {
        &self.partial
    }
}

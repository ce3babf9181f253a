//! A session: what one fetch wants, from whom, and what comes of it.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use cid::Cid;
use libp2p::PeerId;

use crate::client::SessionId;
use crate::shared::Shared;

/// What comes of a session's wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A wanted block, once per wanted CID. Its hash has been recomputed.
    Block {
        /// The CID as it was wanted.
        cid: Cid,
        /// Its bytes, in memory of their own.
        data: Bytes,
        /// Who sent it.
        from: PeerId,
    },
    /// A peer says that it does not have a wanted block. The CID stays wanted:
    /// from other peers, and later from this one again.
    DontHave {
        /// The CID as it was wanted.
        cid: Cid,
        /// Who says so.
        from: PeerId,
    },
    /// A peer begins to send a block of more than 2 MiB in answer to this,
    /// which is refused. The CID is no longer wanted.
    TooLarge {
        /// The CID as it was wanted.
        cid: Cid,
        /// Who sends it.
        from: PeerId,
    },
    /// A peer of the session was banned and disconnected; it is no longer one
    /// of the session's.
    PeerBanned {
        /// Who.
        peer: PeerId,
        /// Why.
        reason: BanReason,
    },
    /// A peer of the session is no longer connected. It stays one of the
    /// session's and is asked again when it is back; what it owed is asked of
    /// others.
    PeerGone(PeerId),
    /// Nobody delivers these: every connected peer of the session lacks them
    /// or has let its time pass. They stay wanted and are asked for again with
    /// growing pauses. Told once, and again only after something of the
    /// session has arrived in between, or another peer can be asked.
    Stalled {
        /// The CIDs as they were wanted, at most 64 of them.
        cids: Vec<Cid>,
    },
    /// Something is wanted and no peer of the session is connected. Told once
    /// each time that it becomes so, or a peer is added and it stays so.
    NoPeers,
}

/// Why a peer is banned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BanReason {
    /// It owed blocks and sent bytes that are none of those.
    WrongBytes,
    /// It sent more blocks that nobody asked for than can be an accident.
    Unsolicited,
    /// It broke the protocol: a message or block too large, or one that
    /// cannot be decoded.
    Protocol,
    /// The application said so.
    Application,
}

/// Why a CID cannot be wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refused {
    /// An identity CID holds its content itself: decode it.
    Identity,
    /// Longer than the 168 bytes that peers accept.
    TooLong,
    /// Its hash function is not known, so that no answer could be verified.
    UnknownHash,
    /// The session wants as much as it may.
    TooMany,
}

/// What one fetch wants, from whom, and what comes of it.
///
/// Dropping it cancels its wants. It is also a [`futures::Stream`] of
/// [`Event`]s. Blocks that the session has not taken fill its
/// [window](crate::Config::session_window_bytes): one that is not polled asks
/// for nothing more.
#[derive(Debug)]
pub struct Session {
    id: SessionId,
    shared: Arc<Shared>,
}

impl Session {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let id = shared.client.lock().open();
        Self { id, shared }
    }

    /// Makes a peer one of the session's, connected or not: it is asked while
    /// it is connected. At most 32; beyond that up to 64 wait until one of
    /// those has brought nothing for 10 s, or all of them lack what is wanted.
    /// False when it waits or is banned.
    pub fn add_peer(&self, peer: PeerId) -> bool {
        self.shared.client.lock().add_peer(self.id, peer, Instant::now())
    }

    /// Asks a peer nothing more for this session. What it still sends counts.
    pub fn remove_peer(&self, peer: &PeerId) {
        self.shared.client.lock().remove_peer(self.id, peer, Instant::now());
    }

    /// Wants CIDs, roughly in this order after what is wanted already; at most
    /// 65,536 at a time. One that is wanted already is not wanted twice.
    /// Returns those that cannot be wanted, which is none as a rule.
    pub fn want(&self, cids: impl IntoIterator<Item = Cid>) -> Vec<(Cid, Refused)> {
        let cids: Vec<Cid> = cids.into_iter().collect();
        self.shared.client.lock().want(self.id, cids, Instant::now())
    }

    /// Wants these no longer. An event about them that waits already may
    /// still come.
    pub fn cancel(&self, cids: &[Cid]) {
        self.shared.client.lock().cancel(self.id, cids, Instant::now());
    }

    /// Blocks wanted and not yet arrived.
    pub fn wanted(&self) -> usize {
        self.shared.client.lock().wanted(self.id)
    }

    /// The next event; `None` when the behaviour is gone. Cancel-safe.
    pub async fn next(&mut self) -> Option<Event> {
        poll_fn(|cx| self.poll_event(cx)).await
    }

    fn poll_event(&self, cx: &Context<'_>) -> Poll<Option<Event>> {
        self.shared.client.lock().poll_next(self.id, cx.waker(), Instant::now())
    }
}

impl futures::Stream for Session {
    type Item = Event;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        self.poll_event(cx)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.shared.client.lock().close(self.id, Instant::now());
    }
}

//! One wanted block.

use std::time::Instant;

use cid::Cid;
use libp2p::PeerId;

pub(crate) use crate::wire::Hash;
use crate::wire::Kind;

/// Names a session for as long as the client lives.
pub(crate) type SessionId = u64;

/// A session that takes the block, under the CID that it used.
#[derive(Debug)]
pub(crate) struct Taker {
    pub(crate) session: SessionId,
    pub(crate) cid: Cid,
    /// It is in the session's queue.
    pub(crate) queued: bool,
}

/// A question to a peer that it has not answered.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) peer: PeerId,
    pub(crate) kind: Kind,
    pub(crate) at: Instant,
    /// What the block is expected to weigh.
    pub(crate) bytes: usize,
    /// Its time has passed: others are asked, and it no longer counts against
    /// the peer's window. An answer is still welcome.
    pub(crate) overdue: bool,
}

/// One wanted block: who takes it, who was asked, who lacks it.
#[derive(Debug)]
pub(crate) struct Want {
    /// As peers are asked for it.
    pub(crate) cid: Cid,
    pub(crate) takers: Vec<Taker>,
    pub(crate) asks: Vec<Ask>,
    /// Somebody was asked at some time.
    pub(crate) was_asked: bool,
    /// Peers that said DONT_HAVE since the last retry.
    pub(crate) missing: Vec<PeerId>,
    /// Peers that said HAVE.
    pub(crate) haves: Vec<PeerId>,
    /// The session whose window it fills, and how far.
    pub(crate) charge: Option<(SessionId, usize)>,
}

impl Want {
    pub(crate) fn new(cid: Cid) -> Self {
        Self {
            cid,
            takers: Vec::with_capacity(1),
            asks: Vec::with_capacity(1),
            was_asked: false,
            missing: Vec::new(),
            haves: Vec::new(),
            charge: None,
        }
    }

    /// Whether some peer is expected to send the block.
    pub(crate) fn is_underway(&self) -> bool {
        self.asks.iter().any(|ask| ask.kind == Kind::Block && !ask.overdue)
    }

    /// Whether it makes sense to ask `peer` for the block.
    pub(crate) fn may_ask(&self, peer: &PeerId) -> bool {
        !self.missing.contains(peer) && !self.is_owed_by(peer)
    }

    /// Whether `peer` was asked for the block.
    pub(crate) fn is_owed_by(&self, peer: &PeerId) -> bool {
        self.asks.iter().any(|ask| ask.peer == *peer && ask.kind == Kind::Block)
    }

    /// Whether `peer` has said nothing about it and was asked nothing.
    pub(crate) fn is_unknown_to(&self, peer: &PeerId) -> bool {
        !self.missing.contains(peer)
            && !self.haves.contains(peer)
            && !self.asks.iter().any(|ask| ask.peer == *peer)
    }

    /// Peers asked for the block, overdue or not.
    pub(crate) fn block_asks(&self) -> usize {
        self.asks.iter().filter(|ask| ask.kind == Kind::Block).count()
    }

    pub(crate) fn ask_of(&self, peer: &PeerId) -> Option<&Ask> {
        self.asks.iter().find(|ask| ask.peer == *peer)
    }

    /// Forgets what `peer` was asked and said.
    pub(crate) fn forget(&mut self, peer: &PeerId) {
        self.asks.retain(|ask| ask.peer != *peer);
        self.missing.retain(|missing| missing != peer);
        self.haves.retain(|have| have != peer);
    }

    /// Takes the question to `peer` out.
    pub(crate) fn take_ask(&mut self, peer: &PeerId) -> Option<Ask> {
        let at = self.asks.iter().position(|ask| ask.peer == *peer)?;
        Some(self.asks.swap_remove(at))
    }

    pub(crate) fn is_taken_by(&self, session: SessionId) -> bool {
        self.takers.iter().any(|taker| taker.session == session)
    }

    pub(crate) fn taker_mut(&mut self, session: SessionId) -> Option<&mut Taker> {
        self.takers.iter_mut().find(|taker| taker.session == session)
    }
}

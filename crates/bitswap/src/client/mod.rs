//! The client: which block is asked of whom.
//!
//! [`Client`] is plain state behind one lock. Sessions, connections and the
//! swarm's timer call it, each call changes the state without waiting, and
//! whoever has something to do then is woken: a connection with wants to
//! send, a session with events, the swarm with a peer to disconnect. It reads
//! no clock; every call is told the time.
//!
//! - `schedule` gives queued wants to peers, within windows.
//! - `receive` takes blocks, HAVE and DONT_HAVE.
//! - `links` follows connections and fills wantlists.
//! - `tick` sees what did *not* happen: stalls, lost wants, pauses that end.

mod bans;
mod links;
mod pace;
mod peer;
mod places;
mod receive;
mod recent;
mod schedule;
mod session;
mod tick;
mod want;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use cid::Cid;
use futures::task::AtomicWaker;
use libp2p::PeerId;

use self::bans::Bans;
use self::peer::Peer;
pub(crate) use self::receive::Arrivals;
use self::recent::Recent;
pub(crate) use self::session::MAX_SESSION_WANTS;
use self::session::SessionState;
pub(crate) use self::want::{Hash, SessionId};
use self::want::{Taker, Want};
use crate::metrics::Metrics;
use crate::wire::{self, IDENTITY, Kind, MAX_CID};
use crate::{BanReason, Config, Event, Refused, Stats};

/// Streams that a connected peer may break, by messages that are too large or
/// cannot be read, before it is banned.
const MAX_VIOLATIONS: usize = 3;

/// Sessions, wants and peers.
#[derive(Debug)]
pub(crate) struct Client {
    config: Config,
    metrics: Metrics,
    sessions: HashMap<SessionId, SessionState>,
    next_session: SessionId,
    wants: HashMap<Hash, Want>,
    peers: HashMap<PeerId, Peer>,
    recent: Recent,
    bans: Bans,
    /// Sessions that have wants queued, in the order of their turns.
    turn: VecDeque<SessionId>,
    /// Sessions by the time at which they are to be looked after.
    due: BTreeSet<(Instant, SessionId)>,
    /// Peers that the swarm is to disconnect.
    disconnects: Vec<PeerId>,
    /// When [`tick`](Client::tick) is to be called.
    tick_at: Option<Instant>,
    /// The behaviour is gone.
    closed: bool,
    swarm: Arc<AtomicWaker>,
}

impl Client {
    pub(crate) fn new(config: Config, metrics: Metrics, swarm: Arc<AtomicWaker>) -> Self {
        Self {
            config,
            metrics,
            sessions: HashMap::new(),
            next_session: 0,
            wants: HashMap::new(),
            peers: HashMap::new(),
            recent: Recent::default(),
            bans: Bans::default(),
            turn: VecDeque::new(),
            due: BTreeSet::new(),
            disconnects: Vec::new(),
            tick_at: None,
            closed: false,
            swarm,
        }
    }

    pub(crate) fn open(&mut self) -> SessionId {
        let id = self.next_session;
        self.next_session += 1;
        self.sessions.insert(id, SessionState::new(id));
        id
    }

    /// Forgets a session and what only it wanted.
    pub(crate) fn close(&mut self, id: SessionId, now: Instant) {
        let Some(session) = self.sessions.remove(&id) else { return };
        if let Some(at) = session.due {
            self.due.remove(&(at, id));
        }
        for standing in &session.peers {
            self.leave(&standing.peer, id);
        }
        for hash in &session.wants {
            self.drop_taker(hash, id, None);
        }
        self.pump(now);
    }

    fn leave(&mut self, peer: &PeerId, id: SessionId) {
        let Some(state) = self.peers.get_mut(peer) else { return };
        state.sessions.remove(&id);
        if state.is_forgotten() {
            self.peers.remove(peer);
        }
    }

    pub(crate) fn want(
        &mut self,
        id: SessionId,
        cids: impl IntoIterator<Item = Cid>,
        now: Instant,
    ) -> Vec<(Cid, Refused)> {
        let mut refused = Vec::new();
        for cid in cids {
            if let Err(reason) = self.want_one(id, cid) {
                refused.push((cid, reason));
            }
        }
        self.enlist(id);
        self.pump(now);
        self.probe(id, now);
        self.check_peers(id);
        self.plan_rotation(id, now);
        refused
    }

    fn want_one(&mut self, id: SessionId, cid: Cid) -> Result<(), Refused> {
        check_wantable(&cid)?;
        let hash = *cid.hash();
        let Some(session) = self.sessions.get_mut(&id) else { return Ok(()) };
        let known = session.wants.contains(&hash);
        if !known && session.wants.len() >= MAX_SESSION_WANTS {
            return Err(Refused::TooMany);
        }
        let want = self.wants.entry(hash).or_insert_with(|| Want::new(cid));
        if known && want.takers.iter().any(|taker| taker.session == id && taker.cid == cid) {
            return Ok(());
        }
        want.takers.push(Taker { session: id, cid, queued: !known });
        if !known {
            session.wants.insert(hash);
            session.queue.push_back(hash);
            session.compact();
        }
        Ok(())
    }

    pub(crate) fn cancel(&mut self, id: SessionId, cids: &[Cid], now: Instant) {
        for cid in cids {
            self.drop_taker(cid.hash(), id, Some(cid));
        }
        if let Some(session) = self.sessions.get_mut(&id) {
            session.compact();
        }
        self.enlist(id);
        self.pump(now);
    }

    /// Takes a session, under one CID or all, from a want; the last one takes
    /// the want along.
    fn drop_taker(&mut self, hash: &Hash, id: SessionId, cid: Option<&Cid>) {
        let Some(want) = self.wants.get_mut(hash) else { return };
        want.takers.retain(|taker| taker.session != id || cid.is_some_and(|cid| taker.cid != *cid));
        if want.taker_mut(id).is_none() {
            if let Some(session) = self.sessions.get_mut(&id) {
                session.wants.remove(hash);
            }
            if want.charge.is_some_and(|(charged, _)| charged == id) {
                self.discharge(hash);
            }
        }
        if self.wants.get(hash).is_some_and(|want| want.takers.is_empty()) {
            self.drop_want(hash);
        }
    }

    /// Forgets a want and cancels it where it was asked.
    fn drop_want(&mut self, hash: &Hash) {
        self.discharge(hash);
        let Some(want) = self.wants.remove(hash) else { return };
        if want.was_asked {
            self.recent.insert(hash);
        }
        self.settle(&want, hash, None);
    }

    /// Ends every question about a want that is gone. `from` has answered.
    fn settle(&mut self, want: &Want, hash: &Hash, from: Option<&PeerId>) {
        for ask in &want.asks {
            let Some(peer) = self.peers.get_mut(&ask.peer) else { continue };
            peer.forget_ask(ask);
            peer.suspects.remove(hash);
            if Some(&ask.peer) != from {
                peer.cancel(want.cid, ask.kind == Kind::Block);
            }
        }
        for missing in &want.missing {
            if let Some(peer) = self.peers.get_mut(missing)
                && Some(missing) != from
            {
                // Peers keep what they do not have on our wantlist.
                peer.cancel(want.cid, false);
            }
        }
    }

    pub(crate) fn wanted(&self, id: SessionId) -> usize {
        self.sessions.get(&id).map_or(0, |session| session.wants.len())
    }

    /// The next event of a session, or the end when the behaviour is gone.
    pub(crate) fn poll_next(&mut self, id: SessionId, waker: &Waker, now: Instant) -> Poll<Option<Event>> {
        let Some(session) = self.sessions.get_mut(&id) else { return Poll::Ready(None) };
        let Some(event) = session.pop() else {
            session.waker = Some(waker.clone());
            return if self.closed { Poll::Ready(None) } else { Poll::Pending };
        };
        if matches!(event, Event::Block { .. }) && !session.in_turn && !session.queue.is_empty() {
            self.enlist(id);
            self.pump(now);
        }
        Poll::Ready(Some(event))
    }

    /// Ends every session, because the behaviour is gone.
    pub(crate) fn shut_down(&mut self) {
        self.closed = true;
        for session in self.sessions.values_mut() {
            if let Some(waker) = session.waker.take() {
                waker.wake();
            }
        }
    }

    pub(crate) fn ban(&mut self, peer: PeerId, reason: BanReason, now: Instant) {
        tracing::warn!(%peer, ?reason, ban_s = self.config.ban.as_secs(), "banned a peer");
        self.metrics.bans.increment(1);
        self.bans.insert(peer, now + self.config.ban, now);
        self.disconnects.push(peer);
        self.swarm.wake();
        let Some(state) = self.peers.get_mut(&peer) else { return };
        let sessions = std::mem::take(&mut state.sessions);
        self.abandon(&peer, now);
        for id in sessions {
            let Some(session) = self.sessions.get_mut(&id) else { continue };
            session.peers.retain(|standing| standing.peer != peer);
            session.push(Event::PeerBanned { peer, reason });
            self.rotate(id, now);
            self.check_peers(id);
        }
        if self.peers.get(&peer).is_some_and(Peer::is_forgotten) {
            self.peers.remove(&peer);
        }
        self.pump(now);
    }

    pub(crate) fn banned(&self, peer: &PeerId, now: Instant) -> Option<Duration> {
        self.bans.remaining(peer, now)
    }

    pub(crate) fn bans(&self, now: Instant) -> Vec<(PeerId, Duration)> {
        self.bans.all(now)
    }

    pub(crate) fn take_disconnect(&mut self) -> Option<PeerId> {
        self.disconnects.pop()
    }

    /// When [`tick`](Self::tick) is to be called.
    pub(crate) fn tick_at(&self) -> Option<Instant> {
        self.tick_at
    }

    /// A peer broke the protocol. That happens to the best once in a while.
    pub(crate) fn violation(&mut self, peer: PeerId, now: Instant) {
        let Some(state) = self.peers.get_mut(&peer) else { return };
        state.violations += 1;
        if state.violations >= MAX_VIOLATIONS {
            self.ban(peer, BanReason::Protocol, now);
        }
    }

    /// Whether the connection to a peer is needed.
    pub(crate) fn needs(&self, peer: &PeerId) -> bool {
        self.peers.get(peer).is_some_and(|state| state.open > 0)
    }

    pub(crate) fn fill_stats(&self, stats: &mut Stats, now: Instant) {
        stats.sessions = self.sessions.len();
        stats.wants = self.wants.len();
        stats.outstanding = self.peers.values().map(|peer| peer.open).sum();
        stats.undelivered_bytes = self.sessions.values().map(|session| session.undelivered).sum();
        stats.peers = self.peers.values().filter(|peer| !peer.links.is_empty()).count();
        stats.bans = self.bans.all(now).len();
    }
}

/// Whether peers answer wants of this CID, and the answer can be verified.
fn check_wantable(cid: &Cid) -> Result<(), Refused> {
    if cid.hash().code() == IDENTITY {
        return Err(Refused::Identity);
    }
    if cid.encoded_len() > MAX_CID {
        return Err(Refused::TooLong);
    }
    if !wire::is_verifiable(cid.hash()) {
        return Err(Refused::UnknownHash);
    }
    Ok(())
}

#[cfg(test)]
mod tests;

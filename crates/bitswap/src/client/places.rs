//! The places of a session, of which there are few: whoever brings nothing
//! gives his to one that waits. Where nobody who has one can be asked for what
//! is wanted, that is done at once for those who never had one.

use std::time::{Duration, Instant};

use libp2p::PeerId;

use super::Client;
use super::peer::Peer;
use super::session::{MAX_SESSION_PEERS, SessionState, Standing};
use super::want::{Hash, SessionId};

/// How long a peer may bring nothing while others wait for a place: what a
/// stall takes to be seen, and once more.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// How long they have at the least when a session wants something again, which
/// has asked them nothing for a while.
const AT_LEAST: Duration = Duration::from_millis(2_500);

impl Client {
    /// Gives a peer a place in a session, or has it wait for one. Answers
    /// whether it has one.
    pub(crate) fn add_peer(&mut self, id: SessionId, peer: PeerId, now: Instant) -> bool {
        if self.bans.remaining(&peer, now).is_some() {
            return false;
        }
        let Some(session) = self.sessions.get_mut(&id) else { return false };
        if session.standing(&peer).is_none() {
            session.wait(peer);
            session.hurries |= session.told_stalled;
            self.rotate(id, now);
        }
        self.sessions.get_mut(&id).is_some_and(|session| session.standing(&peer).is_some())
    }

    pub(crate) fn remove_peer(&mut self, id: SessionId, peer: &PeerId, now: Instant) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.newcomers.retain(|waiting| waiting != peer);
        session.waiting.retain(|waiting| waiting != peer);
        if self.take_place(id, peer, now) {
            self.rotate(id, now);
            self.check_peers(id);
        }
    }

    /// Gives free places, and those of peers that bring nothing, to peers that
    /// wait. Who gives his up waits for another.
    pub(super) fn rotate(&mut self, id: SessionId, now: Instant) {
        let waiting = self.sessions.get(&id).map_or(0, SessionState::count_waiting);
        for _ in 0..waiting {
            let Some(session) = self.sessions.get_mut(&id) else { return };
            let patience = if std::mem::take(&mut session.hurries) { Duration::ZERO } else { PATIENCE };
            let idlest = session.idlest().filter(|_| session.peers.len() >= MAX_SESSION_PEERS);
            if idlest.is_some_and(|(_, since)| now.saturating_duration_since(since) < patience) {
                break;
            }
            let Some(next) = session.next_waiting() else { return };
            if let Some((idle, _)) = idlest {
                session.waiting.push_back(idle);
                tracing::debug!(peer = %idle, %next, "a peer that brought nothing gives up its place");
                self.take_place(id, &idle, now);
            }
            if self.bans.remaining(&next, now).is_none() {
                self.give_place(id, next, now);
            }
        }
        self.plan_rotation(id, now);
    }

    /// Has the session looked after when the next place may be given up.
    pub(super) fn plan_rotation(&mut self, id: SessionId, now: Instant) {
        let Some(session) = self.sessions.get(&id) else { return };
        if session.count_waiting() == 0 || session.wants.is_empty() {
            return;
        }
        if let Some((_, since)) = session.idlest() {
            self.plan(id, (since + PATIENCE).max(now + AT_LEAST));
        }
    }

    fn give_place(&mut self, id: SessionId, peer: PeerId, now: Instant) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.peers.push(Standing::new(peer, now));
        let state = self.peers.entry(peer).or_insert_with(|| Peer::new(now));
        state.sessions.insert(id);
        if state.is_usable() {
            self.welcome(id, now);
            self.pump(now);
            self.probe(id, now);
        } else {
            session.take_back();
            self.check_peers(id);
        }
    }

    /// Takes a peer's place, and asks others for what it was asked; false
    /// where it had none.
    fn take_place(&mut self, id: SessionId, peer: &PeerId, now: Instant) -> bool {
        let Some(session) = self.sessions.get_mut(&id) else { return false };
        let before = session.peers.len();
        session.peers.retain(|standing| standing.peer != *peer);
        if session.peers.len() == before {
            return false;
        }
        self.leave(peer, id);
        self.reassign(peer, id);
        self.pump(now);
        true
    }

    /// Asks others for what `peer` was asked on behalf of this session alone.
    fn reassign(&mut self, peer: &PeerId, id: SessionId) {
        let Some(state) = self.peers.get_mut(peer) else { return };
        let hashes: Vec<Hash> = state.order.iter().map(|(hash, _)| *hash).collect();
        for hash in hashes.iter().rev() {
            let Some(want) = self.wants.get_mut(hash) else { continue };
            if want.takers.iter().all(|taker| taker.session == id)
                && let Some(ask) = want.take_ask(peer)
            {
                let cid = want.cid;
                if let Some(state) = self.peers.get_mut(peer) {
                    state.forget_ask(&ask);
                    state.cancel(cid, true);
                }
                self.requeue(hash);
            }
        }
    }
}

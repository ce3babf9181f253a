//! Gives queued wants to peers.

use std::collections::HashMap;
use std::time::Instant;

use libp2p::PeerId;

use super::Client;
use super::peer::Peer;
use super::tick::TICK;
use super::want::{Ask, Hash, SessionId, Want};
use crate::Event;
use crate::wire::Kind;

/// Wants that one session asks before it is another's turn.
const TURN: usize = 32;

/// Queued wants looked at in one turn: when the first cannot be asked of a
/// peer that has room, one behind it perhaps can.
const SCAN: usize = 64;

/// Sessions in a row that could ask nothing before the round ends; peers are
/// full then, and what comes next begins another round.
const MAX_FRUITLESS: usize = 64;

/// Wants that a peer of unknown holdings is asked at a time whether it has
/// them.
const PROBES: usize = 4;

/// CIDs named in [`Event::Stalled`].
const MAX_TOLD: usize = 64;

/// Whom a want can be asked of.
enum Choice {
    Ask(PeerId),
    /// Of peers that have no room now.
    Wait,
    Nobody,
}

/// What became of a session's turn.
struct Turn {
    asked: usize,
    /// It has wants left that wait for peers' room.
    again: bool,
}

impl Client {
    /// Puts a session with queued wants into the turn.
    pub(super) fn enlist(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.get_mut(&id)
            && !session.in_turn
            && !session.queue.is_empty()
        {
            session.in_turn = true;
            self.turn.push_back(id);
        }
    }

    /// Asks for what can be asked, sessions in turn.
    pub(super) fn pump(&mut self, now: Instant) {
        let mut fruitless = 0;
        while fruitless < MAX_FRUITLESS.min(self.turn.len() + 1) {
            let Some(id) = self.turn.pop_front() else { return };
            let turn = self.take_turn(id, now);
            if let Some(session) = self.sessions.get_mut(&id) {
                session.in_turn = false;
            }
            if turn.again {
                self.enlist(id);
            }
            fruitless = if turn.asked > 0 { 0 } else { fruitless + 1 };
        }
    }

    fn take_turn(&mut self, id: SessionId, now: Instant) -> Turn {
        let mut turn = Turn { asked: 0, again: false };
        let Some(session) = self.sessions.get_mut(&id) else { return turn };
        let candidates: Vec<(PeerId, bool)> = (session.peers.iter())
            .filter(|standing| self.peers.get(&standing.peer).is_some_and(Peer::is_usable))
            .map(|standing| (standing.peer, standing.proven))
            .collect();
        if candidates.is_empty() {
            return turn;
        }
        let mut at = 0;
        let mut parked = false;
        while at < SCAN && turn.asked < TURN {
            if self.all_full(&candidates) {
                turn.again = true;
                break;
            }
            let Some(session) = self.sessions.get_mut(&id) else { return turn };
            if session.expected + session.undelivered >= self.config.session_window_bytes {
                break;
            }
            let Some(hash) = session.queue.get(at).copied() else { break };
            let choice = match self.wants.get_mut(&hash) {
                Some(want) if !want.is_underway() && want.is_taken_by(id) => {
                    choose(&mut self.peers, want, &candidates)
                }
                Some(_) | None => {
                    self.unqueue(id, at, &hash);
                    continue;
                }
            };
            match choice {
                Choice::Ask(peer) => {
                    self.unqueue(id, at, &hash);
                    self.ask(&hash, peer, Kind::Block, now);
                    turn.asked += 1;
                }
                Choice::Wait => {
                    turn.again = true;
                    at += 1;
                }
                Choice::Nobody => {
                    self.unqueue(id, at, &hash);
                    self.park(id, hash);
                    parked = true;
                }
            }
        }
        turn.again |= turn.asked == TURN;
        if parked {
            self.tell_stalled(id, now);
        }
        turn
    }

    /// Whether there are peers to ask, but none that has room.
    fn all_full(&mut self, candidates: &[(PeerId, bool)]) -> bool {
        let mut any = false;
        for (id, _) in candidates {
            if let Some(peer) = self.peers.get_mut(id).filter(|peer| !peer.stalled) {
                if peer.has_room() {
                    return false;
                }
                any = true;
            }
        }
        any
    }

    fn unqueue(&mut self, id: SessionId, at: usize, hash: &Hash) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.queue.remove(at);
        }
        if let Some(taker) = self.wants.get_mut(hash).and_then(|want| want.taker_mut(id)) {
            taker.queued = false;
        }
    }

    fn park(&mut self, id: SessionId, hash: Hash) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.parked.push(hash);
            session.compact();
        }
    }

    /// Says that nobody delivers, once nobody waits who was asked nothing, and
    /// plans the next attempt.
    fn tell_stalled(&mut self, id: SessionId, now: Instant) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if session.retry_at.is_none() {
            let at = now + session.next_pause();
            self.retry_by(id, at);
        }
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if !session.newcomers.is_empty() {
            session.hurries = true;
            return self.plan(id, now);
        }
        if session.told_stalled {
            return;
        }
        session.told_stalled = true;
        let cids = (session.parked.iter())
            .filter_map(|hash| self.wants.get(hash)?.takers.iter().find(|taker| taker.session == id))
            .map(|taker| taker.cid)
            .take(MAX_TOLD)
            .collect();
        session.push(Event::Stalled { cids });
    }

    /// Has parked wants tried again at `at`, unless that is done sooner anyway.
    pub(super) fn retry_by(&mut self, id: SessionId, at: Instant) {
        let Some(session) = self.sessions.get_mut(&id).filter(|session| !session.parked.is_empty()) else {
            return;
        };
        if session.retry_at.is_none_or(|earlier| at < earlier) {
            session.retry_at = Some(at);
            self.plan(id, at);
        }
    }

    /// Has the session looked after at `at`, unless it is sooner anyway.
    pub(super) fn plan(&mut self, id: SessionId, at: Instant) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        match session.due {
            Some(due) if due <= at => return,
            Some(due) => {
                self.due.remove(&(due, id));
            }
            None => {}
        }
        session.due = Some(at);
        self.due.insert((at, id));
        self.tick_by(at);
    }

    /// Has the swarm call at `at`, unless it does so sooner anyway.
    fn tick_by(&mut self, at: Instant) {
        if self.tick_at.is_none_or(|earlier| at < earlier) {
            self.tick_at = Some(at);
            self.swarm.wake();
        }
    }

    /// Asks a peer for a block, or whether it has it.
    pub(super) fn ask(&mut self, hash: &Hash, peer: PeerId, kind: Kind, at: Instant) {
        let (Some(want), Some(state)) = (self.wants.get_mut(hash), self.peers.get_mut(&peer)) else { return };
        if let Some(earlier) = want.take_ask(&peer) {
            state.forget_ask(&earlier);
        }
        let session = want.takers.first().and_then(|taker| self.sessions.get_mut(&taker.session));
        let bytes = session.as_ref().map_or(0, |session| session.estimate_of(&peer));
        let ask = Ask { peer, kind, at, bytes, overdue: false };
        state.note_ask(*hash, want.cid, &ask);
        want.asks.push(ask);
        want.was_asked = true;
        if kind == Kind::Block
            && want.charge.is_none()
            && let Some(session) = session
        {
            session.expected += bytes;
            want.charge = Some((session.id, bytes));
        }
        self.tick_by(at + TICK);
    }

    /// Takes a want out of its session's window.
    pub(super) fn discharge(&mut self, hash: &Hash) {
        if let Some((id, bytes)) = self.wants.get_mut(hash).and_then(|want| want.charge.take())
            && let Some(session) = self.sessions.get_mut(&id)
        {
            session.expected = session.expected.saturating_sub(bytes);
        }
    }

    /// Puts a want that nobody is expected to answer in front of the queues of
    /// those who want it.
    pub(super) fn requeue(&mut self, hash: &Hash) {
        if self.wants.get(hash).is_none_or(Want::is_underway) {
            return;
        }
        self.discharge(hash);
        let Some(want) = self.wants.get_mut(hash) else { return };
        let mut sessions = Vec::with_capacity(want.takers.len());
        for taker in &mut want.takers {
            if !taker.queued && !sessions.contains(&taker.session) {
                taker.queued = true;
                sessions.push(taker.session);
            }
        }
        for id in sessions {
            if let Some(session) = self.sessions.get_mut(&id) {
                session.queue.push_front(*hash);
            }
            self.enlist(id);
        }
    }

    /// Asks peers of whom nothing is known whether they have what the session
    /// wants.
    pub(super) fn probe(&mut self, id: SessionId, now: Instant) {
        let Some(session) = self.sessions.get(&id) else { return };
        // A peer that is alone is simply asked.
        if session.wants.is_empty() || session.peers.len() == 1 {
            return;
        }
        let unknown: Vec<PeerId> = (session.peers.iter())
            .filter(|standing| !standing.proven && standing.probing == 0 && standing.next_probe <= now)
            .filter(|standing| self.peers.get(&standing.peer).is_some_and(Peer::is_usable))
            .map(|standing| standing.peer)
            .collect();
        for peer in unknown {
            if self.peers.get(&peer).is_some_and(Peer::may_probe) {
                self.probe_peer(id, peer, now);
            } else {
                self.postpone_probe(id, &peer, now);
            }
        }
    }

    /// The peer is asked too much already.
    fn postpone_probe(&mut self, id: SessionId, peer: &PeerId, now: Instant) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let Some(standing) = session.standing(peer) else { return };
        standing.postpone_probe(now);
        let at = standing.next_probe;
        self.plan(id, at);
    }

    fn probe_peer(&mut self, id: SessionId, peer: PeerId, now: Instant) {
        let Some(session) = self.sessions.get(&id) else { return };
        let hashes: Vec<Hash> = (session.parked.iter())
            .chain(session.queue.iter().take(SCAN))
            .chain(session.wants.iter().take(SCAN))
            .filter(|hash| self.wants.get(hash).is_some_and(|want| want.is_unknown_to(&peer)))
            .take(PROBES)
            .copied()
            .collect();
        for hash in &hashes {
            self.ask(hash, peer, Kind::Have, now);
        }
        if let Some(standing) = self.sessions.get_mut(&id).and_then(|session| session.standing(&peer)) {
            standing.probing = hashes.len();
        }
    }

    /// A peer of the session can be asked now: what was given up is tried.
    pub(super) fn welcome(&mut self, id: SessionId, now: Instant) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.take_back();
        for standing in &mut session.peers {
            standing.next_probe = standing.next_probe.min(now);
        }
        self.unpark(id);
        self.enlist(id);
    }

    /// Queues what was given up.
    pub(super) fn unpark(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        for hash in std::mem::take(&mut session.parked) {
            if let Some(taker) = self.wants.get_mut(&hash).and_then(|want| want.taker_mut(id))
                && !taker.queued
            {
                taker.queued = true;
                session.queue.push_back(hash);
            }
        }
    }

    /// Says so when something is wanted and nobody can be asked.
    pub(super) fn check_peers(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if session.told_no_peers || session.wants.is_empty() {
            return;
        }
        if !session.peers.iter().any(|standing| self.peers.get(&standing.peer).is_some_and(Peer::is_usable)) {
            session.told_no_peers = true;
            session.push(Event::NoPeers);
        }
    }
}

/// Whom to ask: first of those that have had the session's blocks, then of
/// the others; of several one that keeps nobody waiting, then one that said
/// HAVE, then the one that is through with it first.
fn choose(peers: &mut HashMap<PeerId, Peer>, want: &Want, candidates: &[(PeerId, bool)]) -> Choice {
    for proven in [true, false] {
        let mut possible = false;
        let mut best = None;
        for (id, _) in candidates.iter().filter(|candidate| candidate.1 == proven) {
            let Some(peer) = peers.get_mut(id).filter(|peer| !peer.stalled) else { continue };
            if !want.may_ask(id) {
                continue;
            }
            possible = true;
            if peer.has_room() {
                let late = peer.passed_over > 0;
                let rank = (late, !want.haves.contains(id), peer.pace.time_for(peer.open_bytes));
                if best.is_none_or(|(other, _)| rank < other) {
                    best = Some((rank, *id));
                }
            }
        }
        match best {
            Some((_, id)) => return Choice::Ask(id),
            None if possible => return Choice::Wait,
            None => {}
        }
    }
    Choice::Nobody
}

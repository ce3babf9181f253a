//! Sees what did not happen in time.

use std::time::{Duration, Instant};

use libp2p::PeerId;

use super::Client;
use super::peer::Peer;
use super::want::{Hash, SessionId};
use crate::wire::Kind;

/// How often stalls and hedges are looked for while something is owed.
pub(super) const TICK: Duration = Duration::from_millis(50);

/// How soon parked wants are tried again once other blocks come.
pub(super) const AFTER_PROGRESS: Duration = Duration::from_secs(1);

/// How long blocks may come after the last one was asked for.
const LATE: Duration = Duration::from_secs(60);

/// The least that is waited after a peer closed the stream of its wantlist,
/// so that answers under way come first. What is asked again too soon is sent
/// twice at worst; what is asked too late holds up a fetch at each idle moment.
const MIN_GRACE: Duration = Duration::from_millis(20);

/// Wants of one peer asked of others as well, per tick.
const MAX_HEDGES: usize = 64;

/// Blocks in a row that others had to be asked for before a peer stalls. What
/// it owes never becomes old enough to show that, because others deliver it,
/// and it would be asked for the next ones for ever.
pub(super) const MAX_PASSED_OVER: usize = 16;

/// Peers asked for one block at the same time.
const MAX_ASKS: usize = 3;

impl Client {
    /// Does what is due; [`tick_at`](Self::tick_at) tells when again.
    pub(crate) fn tick(&mut self, now: Instant) {
        self.retry_due(now);
        let busy: Vec<PeerId> = (self.peers.iter())
            .filter(|(_, peer)| !peer.order.is_empty() || peer.has_outbox())
            .map(|(id, _)| *id)
            .collect();
        for peer in &busy {
            self.look_after(peer, now);
        }
        self.pump(now);
        let busy = self.peers.values().any(|peer| !peer.order.is_empty() || peer.has_outbox());
        let late = self.stop_expecting(now);
        let due = self.due.first().map(|(at, _)| (*at).max(now + TICK));
        self.tick_at =
            [busy.then_some(now + TICK), due, late.then_some(now + LATE)].into_iter().flatten().min();
    }

    /// Tries again what was parked, and peers that had nothing.
    fn retry_due(&mut self, now: Instant) {
        while let Some((at, id)) = self.due.first().copied().filter(|(at, _)| *at <= now) {
            self.due.remove(&(at, id));
            if let Some(session) = self.sessions.get_mut(&id) {
                session.due = None;
                self.retry(id, now);
            }
        }
    }

    fn retry(&mut self, id: SessionId, now: Instant) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if session.retry_at.is_some_and(|at| at <= now) {
            session.retry_at = None;
            for standing in &session.peers {
                if let Some(peer) = self.peers.get_mut(&standing.peer)
                    && peer.stalled
                {
                    peer.answers();
                    peer.pace.reset_window();
                }
            }
            for hash in &session.parked {
                if let Some(want) = self.wants.get_mut(hash) {
                    want.missing.clear();
                    want.asks.retain(|ask| !ask.overdue);
                }
            }
            self.unpark(id);
            self.enlist(id);
            self.pump(now);
        }
        if self.wanted(id) > 0 {
            self.rotate(id, now);
        }
        self.probe(id, now);
        let next = (self.sessions.get(&id).into_iter())
            .flat_map(|session| &session.peers)
            .filter(|standing| !standing.proven && standing.next_probe > now)
            .filter(|standing| self.peers.get(&standing.peer).is_some_and(Peer::is_usable))
            .map(|standing| standing.next_probe)
            .min();
        if let Some(next) = next
            && self.wanted(id) > 0
        {
            self.plan(id, next);
        }
        if let Some(at) = self.sessions.get(&id).and_then(|session| session.retry_at) {
            self.plan(id, at);
        }
    }

    fn look_after(&mut self, peer: &PeerId, now: Instant) {
        self.clean(peer);
        let Some(state) = self.peers.get_mut(peer) else { return };
        if state.has_outbox() {
            state.late = true;
            state.wake();
        }
        let grace = MIN_GRACE.max(state.pace.rtt().unwrap_or_default() * 2);
        if let Some(lost) =
            state.lost_streams.filter(|lost| now.saturating_duration_since(lost.first) >= grace)
        {
            state.lost_streams = None;
            // That it answers tells nothing: it may answer what came before.
            self.resend(peer, lost.last);
        }
        let Some(state) = self.peers.get_mut(peer) else { return };
        let Some((_, oldest)) = state.order.front().copied() else { return };
        let silent = now.saturating_duration_since(state.last_answer.max(oldest));
        if silent >= self.config.stall || state.passed_over >= MAX_PASSED_OVER {
            self.stall(peer, now);
        } else {
            self.find_lost(peer, now);
            self.hedge(peer, now);
        }
    }

    /// Drops answered entries from the front of what was asked, and all of
    /// them once they are the majority.
    fn clean(&mut self, peer: &PeerId) {
        let Some(state) = self.peers.get_mut(peer) else { return };
        let is_open = |(hash, at): &(Hash, Instant)| {
            (self.wants.get(hash).and_then(|want| want.ask_of(peer)))
                .is_some_and(|ask| !ask.overdue && ask.at == *at)
        };
        while state.order.front().is_some_and(|entry| !is_open(entry)) {
            state.order.pop_front();
        }
        if state.order.len() > 2 * state.open + 64 {
            state.order.retain(is_open);
        }
    }

    /// A peer is silent: everything that it owes is asked of others.
    fn stall(&mut self, peer: &PeerId, now: Instant) {
        let Some(state) = self.peers.get_mut(peer) else { return };
        tracing::debug!(%peer, open = state.open, passed_over = state.passed_over, "a peer stalls");
        self.metrics.stalls.increment(1);
        state.stalled = true;
        state.pace.reset_window();
        let order = std::mem::take(&mut state.order);
        for (hash, at) in order.iter().rev() {
            let Some(want) = self.wants.get_mut(hash) else { continue };
            let Some(ask) = want.asks.iter_mut().find(|ask| ask.peer == *peer && ask.at == *at) else {
                continue;
            };
            state.forget_ask(ask);
            ask.overdue = true;
            if ask.kind == Kind::Have {
                want.take_ask(peer);
            }
        }
        self.doubt(peer, now);
        for (hash, _) in order.iter().rev() {
            self.requeue(hash);
        }
    }

    /// Has a peer that stalled asked later by its sessions whether it has
    /// anything: an answer ends the stall.
    fn doubt(&mut self, peer: &PeerId, now: Instant) {
        let sessions: Vec<SessionId> =
            self.peers.get(peer).map_or_else(Vec::new, |state| state.sessions.iter().copied().collect());
        for id in sessions {
            let Some(standing) = self.sessions.get_mut(&id).and_then(|session| session.standing(peer)) else {
                continue;
            };
            standing.doubt(now);
            let at = standing.next_probe;
            self.plan(id, at);
        }
    }

    /// Finds wants that the peer has passed over: some implementations drop
    /// what is beyond their bounds without a word.
    fn find_lost(&mut self, peer: &PeerId, now: Instant) {
        let Some(state) = self.peers.get_mut(peer) else { return };
        let Some(answered) = state.answered_up_to else { return };
        let lost_after = state.pace.lost_after();
        let lost: Vec<Hash> = (state.order.iter())
            .take_while(|(_, at)| *at < answered && now.saturating_duration_since(*at) > lost_after)
            .map(|(hash, _)| *hash)
            .collect();
        for hash in lost.iter().rev() {
            let Some(want) = self.wants.get_mut(hash) else { continue };
            if let Some(ask) = want.take_ask(peer) {
                if let Some(state) = self.peers.get_mut(peer) {
                    state.forget_ask(&ask);
                }
                self.metrics.resent.increment(1);
                self.requeue(hash);
            }
        }
    }

    /// Asks others as well for what takes a peer much longer than it should,
    /// so that one slow peer does not hold up a fetch.
    fn hedge(&mut self, peer: &PeerId, now: Instant) {
        let Some(state) = self.peers.get(peer) else { return };
        let after = state.pace.hedge_after(state.open_bytes);
        let old: Vec<Hash> = (state.order.iter())
            .take_while(|(_, at)| now.saturating_duration_since(*at) >= after)
            .map(|(hash, _)| *hash)
            .filter(|hash| self.wants.get(hash).is_some_and(|want| want.block_asks() < MAX_ASKS))
            .take(2 * MAX_HEDGES)
            .collect();
        let mut hedged = 0;
        for hash in old {
            if let Some(other) = self.other_peer(&hash, after) {
                self.metrics.hedged.increment(1);
                self.pass_over(peer, &hash);
                self.ask(&hash, other, Kind::Block, now);
                hedged += 1;
                if hedged == MAX_HEDGES {
                    return;
                }
            }
        }
    }

    /// Counts a block that others are asked for as well, once.
    fn pass_over(&mut self, peer: &PeerId, hash: &Hash) {
        let first = self.wants.get(hash).is_some_and(|want| want.block_asks() == 1);
        // Who has closed the stream of its wantlist may not have read it.
        if let Some(state) = self.peers.get_mut(peer).filter(|state| first && state.lost_streams.is_none()) {
            state.passed_over += 1;
        }
    }

    /// A peer that would answer sooner: one that has had the session's blocks,
    /// or any while none has, as when the first that was asked for a root is
    /// silent. Its window may be full: this block is waited for.
    fn other_peer(&self, hash: &Hash, within: Duration) -> Option<PeerId> {
        let want = self.wants.get(hash)?;
        let usable = || {
            (want.takers.iter())
                .filter_map(|taker| self.sessions.get(&taker.session))
                .flat_map(|session| &session.peers)
                .filter_map(|standing| Some((standing, self.peers.get(&standing.peer)?)))
                .filter(|(_, peer)| peer.is_usable() && !peer.stalled)
        };
        let proven = usable().any(|(standing, _)| standing.proven);
        usable()
            .filter(|(standing, _)| standing.proven == proven && want.may_ask(&standing.peer))
            .filter(|(_, peer)| peer.suspects.is_empty())
            .filter(|(_, peer)| peer.open < self.config.peer_window_wants + MAX_HEDGES)
            .map(|(standing, peer)| {
                let time = peer.pace.time_for(peer.open_bytes);
                (peer.passed_over > 0, !want.haves.contains(&standing.peer), time, standing.peer)
            })
            .filter(|(_, _, time, _)| *time < within)
            .min()
            .map(|(.., id)| id)
    }

    /// No longer expects blocks of peers that owe nothing for a while. Tells
    /// whether there is any of which they are expected.
    fn stop_expecting(&mut self, now: Instant) -> bool {
        let mut any = false;
        for peer in self.peers.values_mut().filter(|peer| peer.expecting) {
            if peer.open == 0 && now.saturating_duration_since(peer.last_answer) >= LATE {
                peer.expect_blocks(false);
            } else {
                any = true;
            }
        }
        any
    }
}

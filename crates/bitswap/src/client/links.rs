//! Follows connections and fills wantlists.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use cid::Version as CidVersion;
use libp2p::PeerId;
use libp2p::swarm::ConnectionId;

use super::Client;
use super::peer::Peer;
use super::want::{Hash, SessionId};
use crate::Event;
use crate::link::Link;
use crate::wire::{Entry, Kind, Version, encode};

impl Client {
    /// A connection is there.
    pub(crate) fn connected(&mut self, link: Arc<Link>, now: Instant) {
        let peer = self.peers.entry(link.peer).or_insert_with(|| Peer::new(now));
        let id = link.peer;
        let first = peer.links.is_empty();
        link.expect_blocks(peer.expecting);
        peer.links.push(link);
        if first {
            peer.reset(now);
            peer.unsupported = false;
            self.invite(&id, now);
        }
    }

    /// Lets the sessions of a peer ask it.
    fn invite(&mut self, peer: &PeerId, now: Instant) {
        let sessions: Vec<SessionId> =
            self.peers.get(peer).map_or_else(Vec::new, |peer| peer.sessions.iter().copied().collect());
        for id in &sessions {
            self.welcome(*id, now);
        }
        self.pump(now);
        for id in sessions {
            self.probe(id, now);
        }
    }

    /// A connection is gone.
    pub(crate) fn disconnected(&mut self, peer: &PeerId, id: ConnectionId, now: Instant) {
        let Some(state) = self.peers.get_mut(peer) else { return };
        let was_used = state.is_link(id);
        state.links.retain(|link| link.id != id);
        if state.links.is_empty() {
            self.lose(peer, now);
        } else if was_used {
            self.resend_all(peer);
        }
        if self.peers.get(peer).is_some_and(Peer::is_forgotten) {
            self.peers.remove(peer);
        }
        self.pump(now);
    }

    /// The peer speaks no Bitswap.
    pub(crate) fn unsupported(&mut self, peer: &PeerId, now: Instant) {
        if let Some(state) = self.peers.get_mut(peer)
            && !state.unsupported
        {
            state.unsupported = true;
            self.lose(peer, now);
            self.pump(now);
        }
    }

    fn lose(&mut self, peer: &PeerId, now: Instant) {
        self.abandon(peer, now);
        let sessions: Vec<SessionId> =
            self.peers.get(peer).map_or_else(Vec::new, |peer| peer.sessions.iter().copied().collect());
        for id in sessions {
            let Some(session) = self.sessions.get_mut(&id) else { continue };
            for hash in &session.wants {
                if let Some(want) = self.wants.get_mut(hash) {
                    want.forget(peer);
                }
            }
            if let Some(standing) = session.standing(peer) {
                standing.probing = 0;
            }
            session.push(Event::PeerGone(*peer));
            self.check_peers(id);
        }
    }

    /// Takes back everything that was asked of a peer.
    pub(super) fn abandon(&mut self, peer: &PeerId, now: Instant) {
        let Some(state) = self.peers.get_mut(peer) else { return };
        let order = std::mem::take(&mut state.order);
        state.reset(now);
        for (hash, _) in order.iter().rev() {
            if let Some(want) = self.wants.get_mut(hash)
                && want.take_ask(peer).is_some()
            {
                self.requeue(hash);
            }
        }
    }

    /// The stream that carried the peer's wantlist is gone. What was asked
    /// over it may never have been read: it is asked again, after a while when
    /// the peer may be answering it, at once when a message was given up.
    pub(crate) fn wantlist_lost(&mut self, peer: &PeerId, at_once: bool, now: Instant) {
        if at_once {
            self.resend_all(peer);
        } else if let Some(state) = self.peers.get_mut(peer)
            && !state.order.is_empty()
        {
            state.lose_stream(now);
        }
    }

    /// Asks again for everything that a peer owes.
    pub(super) fn resend_all(&mut self, peer: &PeerId) {
        let youngest = self.peers.get(peer).and_then(|state| state.order.back()).map(|(_, at)| *at);
        if let Some(youngest) = youngest {
            self.resend(peer, youngest);
        }
    }

    /// Asks again for what a peer owes since `until` or longer.
    pub(super) fn resend(&mut self, peer: &PeerId, until: Instant) {
        let Some(state) = self.peers.get_mut(peer) else { return };
        for (hash, _) in state.order.clone().iter().take_while(|(_, at)| *at <= until) {
            let Some(want) = self.wants.get(hash) else { continue };
            if let Some(ask) = want.ask_of(peer).filter(|ask| !ask.overdue) {
                state.resend(want.cid, ask.kind);
            }
        }
        self.metrics.resent.increment(1);
        state.late = true;
        state.wake();
    }

    /// Whether there is something to say on a connection, now or later.
    pub(crate) fn has_wants(&self, link: &Link) -> bool {
        self.peers.get(&link.peer).is_some_and(|peer| peer.is_link(link.id) && peer.has_outbox())
    }

    /// What is to be said on a connection now, as a message. Only one of a
    /// peer's connections is given anything.
    pub(crate) fn take_wants(&mut self, link: &Link, version: Version, now: Instant) -> Option<Bytes> {
        let peer = self.peers.get_mut(&link.peer)?;
        if !peer.is_link(link.id) || !peer.should_send() {
            return None;
        }
        let (cancels, outbox) = peer.take_outbox();
        let mut entries: Vec<Entry> = cancels
            .into_iter()
            .map(|cid| Entry { cid, priority: 0, cancel: true, kind: Kind::Block, send_dont_have: false })
            .collect();
        let mut unsayable = Vec::new();
        for entry in outbox {
            if self.wants.get(entry.cid.hash()).and_then(|want| want.ask_of(&link.peer)).is_none() {
                continue;
            }
            if is_sayable(&entry, version) {
                entries.push(entry);
            } else {
                unsayable.push(entry);
            }
        }
        for entry in unsayable {
            self.cannot_say(link.peer, &entry, now);
        }
        self.metrics.sent_wants.increment(entries.len() as u64);
        (!entries.is_empty()).then(|| encode::wantlist(&entries, version))
    }

    /// A peer of an old version: it cannot be probed, so it is simply asked;
    /// and a version 1.0 knows CIDv0 alone.
    fn cannot_say(&mut self, peer: PeerId, entry: &Entry, now: Instant) {
        let hash: Hash = *entry.cid.hash();
        if entry.kind == Kind::Block {
            self.lacks(peer, hash, now);
            self.pump(now);
            return;
        }
        let Some(want) = self.wants.get_mut(&hash) else { return };
        if let Some(ask) = want.take_ask(&peer)
            && let Some(state) = self.peers.get_mut(&peer)
        {
            state.forget_ask(&ask);
        }
        for taker in &want.takers {
            if let Some(standing) =
                self.sessions.get_mut(&taker.session).and_then(|session| session.standing(&peer))
            {
                standing.promise();
            }
        }
        self.requeue(&hash);
        self.pump(now);
    }
}

fn is_sayable(entry: &Entry, version: Version) -> bool {
    match version {
        Version::V1_2 => true,
        Version::V1_1 => entry.kind == Kind::Block,
        Version::V1_0 => entry.kind == Kind::Block && entry.cid.version() == CidVersion::V0,
    }
}

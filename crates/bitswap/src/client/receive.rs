//! Takes what peers send.

use std::collections::HashSet;
use std::time::Instant;

use bytes::Bytes;
use cid::Cid;
use libp2p::PeerId;

use super::Client;
use super::tick::AFTER_PROGRESS;
use super::want::{Hash, Taker, Want};
use crate::wire::Kind;
use crate::{BanReason, Event};

/// What a peer may send unasked since its last useful block, in bytes, before
/// it is banned: more than was ever under way, which may come late.
const MAX_UNSOLICITED: usize = 32 << 20;

/// What a block counts for beside its bytes, so that empty ones count too.
const BLOCK_COST: usize = 512;

/// What came over a connection in one go, blocks with their computed hashes.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    pub(crate) blocks: Vec<(Hash, Bytes)>,
    /// Blocks whose hash function is unknown, and their bytes.
    pub(crate) unverifiable: (usize, usize),
    /// Blocks that were skipped, and their bytes.
    pub(crate) skipped: (usize, usize),
    /// CIDs with true for HAVE, false for DONT_HAVE.
    pub(crate) presences: Vec<(Cid, bool)>,
}

impl Arrivals {
    /// Adds what came at another time.
    pub(crate) fn merge(&mut self, other: Self) {
        self.blocks.extend(other.blocks);
        self.presences.extend(other.presences);
        for (sum, more) in [(&mut self.unverifiable, other.unverifiable), (&mut self.skipped, other.skipped)]
        {
            *sum = (sum.0 + more.0, sum.1 + more.1);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.blocks.is_empty() && self.presences.is_empty() && self.unverifiable.0 == 0 && self.skipped.0 == 0
    }
}

impl Client {
    /// Takes what came from a peer.
    pub(crate) fn arrived(&mut self, from: PeerId, arrivals: Arrivals, now: Instant) {
        if self.bans.remaining(&from, now).is_some() {
            return;
        }
        for (cid, have) in arrivals.presences {
            self.presence(from, &cid, have, now);
        }
        for (hash, data) in arrivals.blocks {
            if !self.block(from, hash, &data, now) {
                return;
            }
        }
        for (blocks, bytes) in [arrivals.unverifiable, arrivals.skipped] {
            if blocks > 0 && !self.unsolicited(from, blocks, bytes, now) {
                return;
            }
        }
        self.pump(now);
    }

    /// Takes a block; false when the peer was banned for it.
    fn block(&mut self, from: PeerId, hash: Hash, data: &Bytes, now: Instant) -> bool {
        if !self.wants.contains_key(&hash) {
            return self.unwanted(from, &hash, data.len(), now);
        }
        self.discharge(&hash);
        let Some(want) = self.wants.remove(&hash) else { return true };
        self.metrics.received_blocks.increment(1);
        self.metrics.received_bytes.increment(data.len() as u64);
        self.recent.insert(&hash);
        self.credit(from, &want, data.len(), now);
        self.settle(&want, &hash, Some(&from));
        let refused = self.deliver(from, &hash, want.takers, data, now);
        if !refused.is_empty() {
            self.want_again(want.cid, hash, refused);
        }
        true
    }

    /// Notes that a peer has delivered.
    fn credit(&mut self, from: PeerId, want: &Want, length: usize, now: Instant) {
        let Some(peer) = self.peers.get_mut(&from) else { return };
        peer.last_answer = now;
        peer.answers();
        peer.unsolicited = 0;
        let Some(ask) = want.ask_of(&from) else { return };
        if !ask.overdue {
            peer.pace.answered(ask.at, now);
        }
        peer.pace.delivered(length, now, &self.config);
        peer.answered_up_to = peer.answered_up_to.max(Some(ask.at));
    }

    /// Gives a block to those who want it. Returns those whose session does
    /// not take its blocks fast enough to hold one more.
    fn deliver(
        &mut self,
        from: PeerId,
        hash: &Hash,
        takers: Vec<Taker>,
        data: &Bytes,
        now: Instant,
    ) -> Vec<Taker> {
        let mut refused = Vec::new();
        for taker in takers {
            let Some(session) = self.sessions.get_mut(&taker.session) else { continue };
            if session.undelivered > self.config.session_window_bytes {
                self.metrics.dropped_blocks.increment(1);
                refused.push(taker);
                continue;
            }
            session.wants.remove(hash);
            session.note_length(data.len());
            if let Some(standing) = session.standing(&from) {
                standing.prove(now);
            }
            session.push(Event::Block { cid: taker.cid, data: data.clone(), from });
            self.enlist(taker.session);
            self.retry_by(taker.session, now + AFTER_PROGRESS);
        }
        refused
    }

    /// Puts a want back whose block could not be taken.
    fn want_again(&mut self, cid: Cid, hash: Hash, mut takers: Vec<Taker>) {
        for taker in &mut takers {
            taker.queued = false;
        }
        let mut want = Want::new(cid);
        want.takers = takers;
        self.wants.insert(hash, want);
        self.requeue(&hash);
    }

    /// A block that is none of those wanted; false when the peer is banned.
    fn unwanted(&mut self, from: PeerId, hash: &Hash, length: usize, now: Instant) -> bool {
        if self.recent.contains(hash) {
            self.metrics.duplicate_blocks.increment(1);
            self.metrics.duplicate_bytes.increment(length as u64);
            return self.unsolicited(from, 1, length, now);
        }
        if self.peers.get(&from).is_some_and(|peer| peer.open > 0 || peer.stalled) {
            self.metrics.wrong_blocks.increment(1);
            self.ban(from, BanReason::WrongBytes, now);
            return false;
        }
        self.unsolicited(from, 1, length, now)
    }

    fn unsolicited(&mut self, from: PeerId, blocks: usize, bytes: usize, now: Instant) -> bool {
        self.metrics.unwanted_blocks.increment(blocks as u64);
        let Some(peer) = self.peers.get_mut(&from) else { return true };
        peer.unsolicited += bytes + blocks * BLOCK_COST;
        if peer.unsolicited > MAX_UNSOLICITED {
            self.ban(from, BanReason::Unsolicited, now);
            return false;
        }
        true
    }

    /// Takes a HAVE or DONT_HAVE. One that answers nothing is ignored.
    fn presence(&mut self, from: PeerId, cid: &Cid, have: bool, now: Instant) {
        let hash = *cid.hash();
        let Some(ask) = self.wants.get(&hash).and_then(|want| want.ask_of(&from)).cloned() else { return };
        // Who is asked for the block itself and says HAVE still owes it.
        let answers = !have || ask.kind == Kind::Have;
        if let Some(peer) = self.peers.get_mut(&from).filter(|_| answers) {
            peer.last_answer = now;
            peer.answers();
            peer.answered_up_to = peer.answered_up_to.max(Some(ask.at));
            if !ask.overdue {
                peer.pace.answered(ask.at, now);
            }
        }
        if have {
            self.has(from, hash, ask.kind);
        } else {
            self.lacks(from, hash, now);
        }
    }

    fn has(&mut self, from: PeerId, hash: Hash, asked: Kind) {
        let Some(want) = self.wants.get_mut(&hash) else { return };
        if !want.haves.contains(&from) {
            want.haves.push(from);
        }
        if asked == Kind::Have
            && let Some(ask) = want.take_ask(&from)
            && let Some(peer) = self.peers.get_mut(&from)
        {
            peer.forget_ask(&ask);
        }
        for taker in &want.takers {
            if let Some(standing) =
                self.sessions.get_mut(&taker.session).and_then(|session| session.standing(&from))
            {
                standing.promise();
            }
        }
        self.requeue(&hash);
    }

    /// A peer does not have a block: others are asked.
    pub(super) fn lacks(&mut self, from: PeerId, hash: Hash, now: Instant) {
        let Some(want) = self.wants.get_mut(&hash) else { return };
        if let Some(ask) = want.take_ask(&from)
            && let Some(peer) = self.peers.get_mut(&from)
        {
            peer.forget_ask(&ask);
            peer.suspects.remove(&hash);
            peer.pace.denied(&self.config);
        }
        want.haves.retain(|peer| *peer != from);
        if !want.missing.contains(&from) {
            want.missing.push(from);
        }
        let mut probes = Vec::new();
        for taker in &want.takers {
            let Some(session) = self.sessions.get_mut(&taker.session) else { continue };
            let Some(standing) = session.standing(&from) else { continue };
            standing.miss(now);
            if standing.next_probe > now {
                probes.push((taker.session, standing.next_probe));
            }
            session.push(Event::DontHave { cid: taker.cid, from });
        }
        for (id, at) in probes {
            self.plan(id, at);
        }
        self.requeue(&hash);
    }

    /// A peer began to send a block that is too large, and was cut off. When
    /// it owes one block it is that one; otherwise it is asked for what it
    /// owes one by one until that is clear.
    pub(crate) fn too_large(&mut self, from: PeerId, now: Instant) {
        self.metrics.oversize_blocks.increment(1);
        let Some(peer) = self.peers.get_mut(&from) else { return };
        let mut seen = HashSet::new();
        let asked: Vec<Hash> =
            peer.order.iter().map(|(hash, _)| *hash).filter(|hash| seen.insert(*hash)).collect();
        let owed: Vec<Hash> = (asked.into_iter())
            .filter(|hash| self.wants.get(hash).is_some_and(|want| want.is_owed_by(&from)))
            .collect();
        if let [hash] = owed[..] {
            self.refuse_large(from, hash);
        } else {
            self.single_out(from, &owed);
        }
        self.pump(now);
    }

    /// Tells the sessions that a block is too large, and wants it no more.
    fn refuse_large(&mut self, from: PeerId, hash: Hash) {
        self.discharge(&hash);
        let Some(want) = self.wants.remove(&hash) else { return };
        self.recent.insert(&hash);
        self.settle(&want, &hash, None);
        for taker in &want.takers {
            if let Some(session) = self.sessions.get_mut(&taker.session) {
                session.wants.remove(&hash);
                session.push(Event::TooLarge { cid: taker.cid, from });
                self.enlist(taker.session);
            }
        }
    }

    fn single_out(&mut self, from: PeerId, owed: &[Hash]) {
        for hash in owed.iter().rev() {
            let Some(want) = self.wants.get_mut(hash) else { continue };
            let Some(ask) = want.take_ask(&from) else { continue };
            if let Some(peer) = self.peers.get_mut(&from) {
                peer.forget_ask(&ask);
                peer.cancel(want.cid, true);
                peer.suspects.insert(*hash);
            }
            self.requeue(hash);
        }
    }
}

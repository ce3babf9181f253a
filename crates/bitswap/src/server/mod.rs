//! The server: what peers want of us.
//!
//! [`Server`] keeps a ledger of wants for each peer, bounded one by one and
//! in all. A connection hands in wantlists and, whenever its stream can take
//! more, takes a batch of answers out; blocks are read only then. What is not
//! held stays in the ledger, so that it is sent when it comes.

mod ledger;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use cid::Cid;
use libp2p::PeerId;
use libp2p::swarm::ConnectionId;

use self::ledger::{Answer, Ledger, Wanted};
use crate::link::Link;
use crate::metrics::Metrics;
use crate::wire::{self, Entry, Kind, MAX_BLOCK, MAX_MESSAGE, Tail, Version, encode};
use crate::{Blocks, Stats};

/// Wants kept of one peer. boxo keeps 1,024 and asks for fewer; about half a
/// megabyte.
const MAX_WANTS: usize = 2_048;

/// Wants kept of all peers, about 16 MiB. Beyond it a peer has
/// [`GUARANTEED_WANTS`].
const MAX_ALL_WANTS: usize = 65_536;

/// Wants that a peer may have even when the others use up the rest.
const GUARANTEED_WANTS: usize = 64;

/// A want for HAVE is answered with the block up to this length, as in boxo:
/// it costs hardly more and saves a round trip.
const MAX_INSTEAD_OF_HAVE: u32 = 1_024;

/// Blocks of one message, in bytes: enough that the stream is never idle
/// between two, little enough to keep memory small.
const BATCH: usize = 1 << 20;

/// Presences of one message.
const MAX_BATCH_PRESENCES: usize = 4_096;

/// Blocks of one message, for their headers.
const MAX_BATCH_BLOCKS: usize = 4_096;

/// Bytes of blocks read and not yet written, of all peers together. Who comes
/// later waits for its turn.
const MAX_SERVING: usize = 16 << 20;

// A batch exceeds its size by one block at most, and must fit a message.
const _: () = assert!(
    BATCH
        + MAX_BLOCK
        + MAX_BATCH_BLOCKS * encode::BLOCK_OVERHEAD
        + MAX_BATCH_PRESENCES * encode::PRESENCE_SIZE
        <= MAX_MESSAGE
);

/// Answers to be sent to a peer in one message.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// Blocks to read, and whether the peer wants to know if one is gone.
    pub(crate) blocks: Vec<(Cid, bool)>,
    pub(crate) presences: Vec<(Cid, bool)>,
    /// What the blocks weigh; given back by [`Server::sent`].
    pub(crate) bytes: usize,
}

/// Ledgers of all peers.
#[derive(Debug)]
pub(crate) struct Server {
    ledgers: HashMap<PeerId, Ledger>,
    /// Who waits for a block that is not held.
    waiting: HashMap<wire::Hash, Vec<PeerId>>,
    wants: usize,
    serving: usize,
    /// Connections that have answers and wait until others' are written.
    queue: VecDeque<Arc<Link>>,
    metrics: Metrics,
}

impl Server {
    pub(crate) fn new(metrics: Metrics) -> Self {
        Self {
            ledgers: HashMap::new(),
            waiting: HashMap::new(),
            wants: 0,
            serving: 0,
            queue: VecDeque::new(),
            metrics,
        }
    }

    pub(crate) fn connected(&mut self, link: &Arc<Link>) {
        self.ledgers.entry(link.peer).or_default().links.push(link.clone());
    }

    pub(crate) fn disconnected(&mut self, peer: &PeerId, id: ConnectionId) {
        self.queue.retain(|link| link.id != id);
        let Some(ledger) = self.ledgers.get_mut(peer) else { return };
        ledger.links.retain(|link| link.id != id);
        if ledger.links.is_empty() {
            self.clear(peer);
            self.ledgers.remove(peer);
        }
        self.wake_next();
    }

    /// Forgets everything that a peer wants.
    fn clear(&mut self, peer: &PeerId) {
        let Some(ledger) = self.ledgers.get_mut(peer) else { return };
        let waiting = ledger.clear();
        self.wants -= waiting.0;
        for cid in waiting.1 {
            self.stop_waiting(peer, &cid);
        }
    }

    fn stop_waiting(&mut self, peer: &PeerId, cid: &Cid) {
        if let Some(peers) = self.waiting.get_mut(cid.hash()) {
            peers.retain(|other| other != peer);
            if peers.is_empty() {
                self.waiting.remove(cid.hash());
            }
        }
    }

    /// Takes a peer's wantlist: notes what it wants. What is returned is to be
    /// looked up and handed to [`looked_up`](Self::looked_up).
    pub(crate) fn wantlist(&mut self, peer: &PeerId, tail: &Tail) -> Vec<Entry> {
        if tail.full {
            self.clear(peer);
        }
        let mut noted = Vec::new();
        for entry in &tail.wants {
            if entry.cancel {
                self.cancel(peer, &entry.cid);
            } else {
                let entry = self.merged(peer, entry);
                self.note(peer, &entry);
                noted.push(entry);
            }
        }
        noted
    }

    /// A want for HAVE does not take an earlier one for the block back.
    fn merged(&self, peer: &PeerId, entry: &Entry) -> Entry {
        let earlier = self.ledgers.get(peer).and_then(|ledger| ledger.kind_of(&entry.cid));
        Entry { kind: earlier.filter(|kind| *kind == Kind::Block).unwrap_or(entry.kind), ..*entry }
    }

    fn cancel(&mut self, peer: &PeerId, cid: &Cid) {
        if let Some(wanted) = self.ledgers.get_mut(peer).and_then(|ledger| ledger.remove(cid)) {
            self.wants -= 1;
            if wanted.answer.is_none() {
                self.stop_waiting(peer, cid);
            }
        }
    }

    /// Notes a want as one of a block that is not held, until it is looked up,
    /// so that none that comes in between is missed.
    fn note(&mut self, peer: &PeerId, entry: &Entry) {
        self.cancel(peer, &entry.cid);
        let Some(ledger) = self.ledgers.get_mut(peer) else { return };
        let full =
            ledger.len() >= MAX_WANTS || (self.wants >= MAX_ALL_WANTS && ledger.len() >= GUARANTEED_WANTS);
        if full && !self.make_room(peer, entry) {
            self.metrics.refused_wants.increment(1);
            return;
        }
        let Some(ledger) = self.ledgers.get_mut(peer) else { return };
        ledger.insert(entry);
        self.wants += 1;
        let waiting = self.waiting.entry(*entry.cid.hash()).or_default();
        if !waiting.contains(peer) {
            waiting.push(*peer);
        }
    }

    /// Drops the want that matters least to the peer: the oldest of a block
    /// that is not held, or of one with a lower priority than the new one.
    fn make_room(&mut self, peer: &PeerId, entry: &Entry) -> bool {
        let Some(least) = self.ledgers.get(peer).and_then(|ledger| ledger.least(entry.priority)) else {
            return false;
        };
        self.cancel(peer, &least);
        true
    }

    /// Decides the answers to wants that were noted; `sizes` has their blocks'
    /// lengths. The connection has something to send then.
    pub(crate) fn looked_up(&mut self, peer: &PeerId, sizes: &[(Entry, Option<u32>)]) {
        for (entry, size) in sizes {
            let Some(ledger) = self.ledgers.get_mut(peer) else { return };
            let kept = ledger.contains(&entry.cid);
            match size.filter(|size| *size as usize <= MAX_BLOCK) {
                Some(size) if kept => {
                    ledger.answer(&entry.cid, answer(entry.kind, size));
                    self.stop_waiting(peer, &entry.cid);
                }
                None | Some(_) if entry.send_dont_have => ledger.deny(&entry.cid),
                None | Some(_) => {}
            }
        }
    }

    /// Who waits for a block.
    pub(crate) fn who_awaits(&self, cid: &Cid) -> Vec<PeerId> {
        self.waiting.get(cid.hash()).cloned().unwrap_or_default()
    }

    /// A block of so many bytes is held now that a peer waits for.
    pub(crate) fn came(&mut self, peer: &PeerId, cid: &Cid, size: u32) {
        if size as usize > MAX_BLOCK {
            return;
        }
        self.stop_waiting(peer, cid);
        let Some(ledger) = self.ledgers.get_mut(peer) else { return };
        for (cid, kind) in ledger.waiting_for(cid) {
            ledger.answer(&cid, answer(kind, size));
        }
        ledger.wake();
    }

    /// Whether there is something to send to a peer.
    pub(crate) fn has_answers(&self, peer: &PeerId) -> bool {
        self.ledgers.get(peer).is_some_and(Ledger::has_answers)
    }

    /// What to send next over a connection. `None` when there is nothing, or
    /// when others come first: the connection is woken then.
    pub(crate) fn take_batch(&mut self, link: &Arc<Link>, version: Version) -> Option<Batch> {
        let turn = self.take_place(link);
        let ledger = self.ledgers.get_mut(&link.peer)?;
        let mut batch = Batch::default();
        while (turn || !ledger.next_is_block()) && batch.has_room() {
            let Some((cid, wanted)) = ledger.pop() else { break };
            self.wants -= 1;
            batch.add(cid, &wanted, version);
        }
        let denials = ledger.take_denials(MAX_BATCH_PRESENCES - batch.presences.len());
        if version.has_presences() {
            batch.presences.extend(denials);
        }
        self.serving += batch.bytes;
        if !batch.is_empty() {
            return Some(batch);
        }
        if ledger.next_is_block() && !self.queue.iter().any(|other| other.id == link.id) {
            self.queue.push_back(link.clone());
        }
        None
    }

    /// Whether a connection may have blocks read: there is memory for them,
    /// and nobody has waited longer. Takes it out of the queue in any case.
    fn take_place(&mut self, link: &Arc<Link>) -> bool {
        let place = self.queue.iter().position(|other| other.id == link.id);
        let free = self.serving < MAX_SERVING;
        match place {
            Some(0) if free => {
                self.queue.pop_front();
                self.wake_next();
                true
            }
            Some(place) => {
                // Whoever is not served keeps its place.
                if self.ledgers.get(&link.peer).is_some_and(Ledger::next_is_block) {
                    return false;
                }
                self.queue.remove(place);
                self.wake_next();
                false
            }
            None => free && self.queue.is_empty(),
        }
    }

    /// A batch is written, or given up.
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.serving -= bytes;
        self.wake_next();
    }

    /// A peer does not read what it wants: it may ask again.
    pub(crate) fn give_up(&mut self, peer: &PeerId) {
        self.clear(peer);
    }

    /// A connection cannot be written to for now: others come first.
    pub(crate) fn leave_queue(&mut self, link: &Link) {
        let before = self.queue.len();
        self.queue.retain(|other| other.id != link.id);
        if self.queue.len() < before {
            self.wake_next();
        }
    }

    /// Wakes the first that waits for memory and still has a use for it.
    fn wake_next(&mut self) {
        if self.serving >= MAX_SERVING {
            return;
        }
        while let Some(link) = self.queue.front() {
            if self.ledgers.get(&link.peer).is_some_and(Ledger::next_is_block) {
                link.wake();
                return;
            }
            self.queue.pop_front();
        }
    }

    pub(crate) fn fill_stats(&self, stats: &mut Stats) {
        stats.served_wants = self.wants;
        stats.serving_bytes = self.serving;
    }
}

impl Batch {
    fn is_empty(&self) -> bool {
        self.blocks.is_empty() && self.presences.is_empty()
    }

    fn has_room(&self) -> bool {
        self.bytes < BATCH
            && self.blocks.len() < MAX_BATCH_BLOCKS
            && self.presences.len() < MAX_BATCH_PRESENCES
    }

    fn add(&mut self, cid: Cid, wanted: &Wanted, version: Version) {
        let nameable = version > Version::V1_0 || cid.version() == cid::Version::V0;
        match wanted.answer {
            Some(Answer::Block(size)) if nameable => {
                self.bytes += size as usize;
                self.blocks.push((cid, wanted.send_dont_have));
            }
            Some(Answer::Have) if version.has_presences() => self.presences.push((cid, true)),
            Some(Answer::Block(_) | Answer::Have) | None => {}
        }
    }
}

fn answer(kind: Kind, size: u32) -> Answer {
    match kind {
        Kind::Have if size > MAX_INSTEAD_OF_HAVE => Answer::Have,
        Kind::Block | Kind::Have => Answer::Block(size),
    }
}

/// Looks up what a peer wants: from the index alone.
pub(crate) fn look_up(blocks: &dyn Blocks, peer: &PeerId, noted: &[Entry]) -> Vec<(Entry, Option<u32>)> {
    noted.iter().map(|entry| (*entry, blocks.size(peer, &entry.cid))).collect()
}

#[cfg(test)]
mod tests;

//! What the client knows about one peer.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use cid::Cid;
use libp2p::swarm::ConnectionId;

use super::pace::Pace;
use super::want::{Ask, Hash, SessionId};
use crate::link::Link;
use crate::wire::{Entry, Kind};

/// Wants of an idle peer are sent at once; while more than half a window is
/// under way, they wait until so many share a message, because each message
/// costs the peer more than each entry.
const GATHER: usize = 64;

/// Cancels that nobody waits for share a message.
const GATHER_CANCELS: usize = 64;

/// Cancels kept for sending; more than a peer can have wants of ours open and
/// remembered. The oldest are dropped, which costs a late block at most.
const MAX_CANCELS: usize = 2_048;

/// Questions for HAVE that one peer has not answered, of all sessions; well
/// below the 1,024 wants that Kubo keeps, together with the largest window.
const MAX_PROBES: usize = 256;

/// Wants kept for sending while no stream can be opened; the oldest are
/// dropped, and asked again when their time has passed.
const MAX_OUTBOX: usize = 2_048;

/// When wantlist streams were lost that are not made good yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LostStreams {
    pub(crate) first: Instant,
    pub(crate) last: Instant,
}

/// A peer that is connected or of which a session hopes it.
#[derive(Debug)]
pub(crate) struct Peer {
    /// Its connections, oldest first; the first is used.
    pub(crate) links: Vec<Arc<Link>>,
    /// Sessions that have it.
    pub(crate) sessions: HashSet<SessionId>,
    /// It speaks no Bitswap.
    pub(crate) unsupported: bool,
    pub(crate) pace: Pace,
    /// Blocks asked and not overdue, and what they are expected to weigh.
    pub(crate) open: usize,
    pub(crate) open_bytes: usize,
    /// Questions for HAVE that it has not answered.
    probes: usize,
    /// What was asked, in order; entries that were answered are left in until
    /// they reach the front.
    pub(crate) order: VecDeque<(Hash, Instant)>,
    pub(crate) last_answer: Instant,
    /// When the youngest want that it has answered was asked.
    pub(crate) answered_up_to: Option<Instant>,
    /// It owed something and was silent for too long.
    pub(crate) stalled: bool,
    /// Blocks that it let become so late, since its last answer, that others
    /// were asked for them.
    pub(crate) passed_over: usize,
    /// Streams of its wantlist that were lost of late: what was asked over
    /// them is asked again a little later.
    pub(crate) lost_streams: Option<LostStreams>,
    /// Wants of which one may be too large a block: asked one at a time.
    pub(crate) suspects: HashSet<Hash>,
    /// Bytes and blocks that nobody wanted, since the last wanted one.
    pub(crate) unsolicited: usize,
    /// Streams on which it broke the protocol.
    pub(crate) violations: usize,
    /// To be sent.
    outbox: Vec<Entry>,
    cancels: VecDeque<Cid>,
    urgent: bool,
    /// What waits for company has waited enough.
    pub(crate) late: bool,
    /// Blocks may come from it.
    pub(crate) expecting: bool,
}

impl Peer {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            links: Vec::new(),
            sessions: HashSet::new(),
            unsupported: false,
            pace: Pace::new(now),
            open: 0,
            open_bytes: 0,
            probes: 0,
            order: VecDeque::new(),
            last_answer: now,
            answered_up_to: None,
            stalled: false,
            passed_over: 0,
            lost_streams: None,
            suspects: HashSet::new(),
            unsolicited: 0,
            violations: 0,
            outbox: Vec::new(),
            cancels: VecDeque::new(),
            urgent: false,
            late: false,
            expecting: false,
        }
    }

    /// Whether it can be asked at all.
    pub(crate) fn is_usable(&self) -> bool {
        !self.links.is_empty() && !self.unsupported
    }

    /// Whether one more block may be asked of it.
    pub(crate) fn has_room(&mut self) -> bool {
        if self.suspects.is_empty() { self.pace.has_room(self.open, self.open_bytes) } else { self.open == 0 }
    }

    /// Whether it may be asked for HAVE.
    pub(crate) fn may_probe(&self) -> bool {
        self.probes < MAX_PROBES
    }

    /// Nothing refers to it any more.
    pub(crate) fn is_forgotten(&self) -> bool {
        self.links.is_empty() && self.sessions.is_empty()
    }

    /// Counts a question, which is to be sent.
    pub(crate) fn note_ask(&mut self, hash: Hash, cid: Cid, ask: &Ask) {
        if ask.kind == Kind::Block {
            if self.open == 0 {
                self.pace.begin(ask.at);
                self.last_answer = ask.at;
            }
            self.open += 1;
            self.open_bytes += ask.bytes;
        } else {
            self.probes += 1;
        }
        self.order.push_back((hash, ask.at));
        if self.outbox.len() >= MAX_OUTBOX {
            self.outbox.remove(0);
        }
        self.outbox.push(Entry { cid, priority: 1, cancel: false, kind: ask.kind, send_dont_have: true });
        self.expect_blocks(true);
        self.wake();
    }

    /// A stream of its wantlist is gone, and what was asked over it perhaps
    /// too.
    pub(crate) fn lose_stream(&mut self, now: Instant) {
        let first = self.lost_streams.map_or(now, |lost| lost.first);
        self.lost_streams = Some(LostStreams { first, last: now });
    }

    /// It does what it is asked for: whatever it failed to do is forgiven.
    pub(crate) fn answers(&mut self) {
        (self.stalled, self.passed_over) = (false, 0);
    }

    /// A question is settled or given up.
    pub(crate) fn forget_ask(&mut self, ask: &Ask) {
        if ask.overdue {
            return;
        }
        if ask.kind == Kind::Have {
            self.probes = self.probes.saturating_sub(1);
        } else {
            self.open = self.open.saturating_sub(1);
            self.open_bytes = self.open_bytes.saturating_sub(ask.bytes);
        }
    }

    /// Tells it that a block is not wanted. An urgent one saves a transfer.
    pub(crate) fn cancel(&mut self, cid: Cid, urgent: bool) {
        if self.links.is_empty() {
            return;
        }
        if let Some(unsent) = self.outbox.iter().position(|entry| entry.cid == cid) {
            self.outbox.swap_remove(unsent);
            return;
        }
        if self.cancels.len() == MAX_CANCELS {
            self.cancels.pop_front();
        }
        self.cancels.push_back(cid);
        if urgent && !self.urgent {
            self.urgent = true;
            self.wake();
        }
    }

    /// Puts a want that may not have arrived into the outbox again.
    pub(crate) fn resend(&mut self, cid: Cid, kind: Kind) {
        if !self.outbox.iter().any(|entry| entry.cid == cid) {
            self.outbox.push(Entry { cid, priority: 1, cancel: false, kind, send_dont_have: true });
        }
    }

    /// Whether there is anything to send, now or later.
    pub(crate) fn has_outbox(&self) -> bool {
        !self.links.is_empty() && self.outbox.len() + self.cancels.len() > 0
    }

    /// Whether there is something that should be sent now.
    pub(crate) fn should_send(&self) -> bool {
        let late = self.late;
        if self.urgent || self.cancels.len() >= GATHER_CANCELS {
            return true;
        }
        if self.outbox.is_empty() {
            return late && !self.cancels.is_empty();
        }
        let under_way = self.open.saturating_sub(self.outbox.len());
        late || self.outbox.len() >= GATHER || under_way <= self.pace.half_window()
    }

    /// Takes out what is to be sent: cancels, then wants.
    pub(crate) fn take_outbox(&mut self) -> (VecDeque<Cid>, Vec<Entry>) {
        (self.urgent, self.late) = (false, false);
        (std::mem::take(&mut self.cancels), std::mem::take(&mut self.outbox))
    }

    pub(crate) fn is_link(&self, id: ConnectionId) -> bool {
        self.links.first().is_some_and(|link| link.id == id)
    }

    pub(crate) fn expect_blocks(&mut self, expects: bool) {
        self.expecting = expects;
        for link in &self.links {
            link.expect_blocks(expects);
        }
    }

    pub(crate) fn wake(&self) {
        if let Some(link) = self.links.first() {
            link.wake();
        }
    }

    /// Forgets everything that belongs to connections that are gone.
    pub(crate) fn reset(&mut self, now: Instant) {
        (self.open, self.open_bytes, self.probes) = (0, 0, 0);
        self.order.clear();
        self.outbox.clear();
        self.cancels.clear();
        (self.urgent, self.late) = (false, false);
        self.suspects.clear();
        self.answers();
        self.lost_streams = None;
        self.answered_up_to = None;
        self.last_answer = now;
        self.pace.reset_window();
    }
}

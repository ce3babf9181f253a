//! The client's side of a session.

use std::collections::{HashSet, VecDeque};
use std::task::Waker;
use std::time::{Duration, Instant};

use libp2p::PeerId;

use super::want::{Hash, SessionId};
use crate::Event;

/// The most peers that one session asks.
pub(crate) const MAX_SESSION_PEERS: usize = 32;

/// Peers that wait for a place beyond them; more than any content has origins.
const MAX_WAITING: usize = 64;

/// The most CIDs that one session wants at a time.
pub(crate) const MAX_SESSION_WANTS: usize = 65_536;

/// Events that wait for the session; beyond it what peers can cause at will is
/// not told.
const MAX_EVENTS: usize = 8_192;

/// A block's weight before any has come.
const FIRST_ESTIMATE: usize = 256 << 10;

/// What the answer of a peer weighs that has had nothing for the session yet:
/// mostly it is DONT_HAVE.
const UNPROVEN_ESTIMATE: usize = 2 << 10;

/// The first pause before what nobody delivered is asked for again.
const FIRST_PAUSE: Duration = Duration::from_secs(2);

/// The longest pause.
const MAX_PAUSE: Duration = Duration::from_secs(120);

/// DONT_HAVE in a row after which a peer is no longer taken to have this
/// session's blocks, as in boxo.
const MAX_MISSES: usize = 16;

/// The first pause between probes of a peer that had nothing.
const FIRST_PROBE_PAUSE: Duration = Duration::from_millis(500);

/// How a peer stands in one session.
#[derive(Debug)]
pub(crate) struct Standing {
    pub(crate) peer: PeerId,
    /// It has had a block of this session, or said so, and has not stalled
    /// since.
    pub(crate) proven: bool,
    pub(crate) misses: usize,
    /// Probes that it has not answered.
    pub(crate) probing: usize,
    pub(crate) next_probe: Instant,
    probe_pause: Duration,
    /// When it last brought a block, else when it came.
    since: Instant,
}

impl Standing {
    pub(crate) fn new(peer: PeerId, now: Instant) -> Self {
        let probe_pause = FIRST_PROBE_PAUSE;
        Self { peer, proven: false, misses: 0, probing: 0, next_probe: now, probe_pause, since: now }
    }

    /// It has delivered a block.
    pub(crate) fn prove(&mut self, now: Instant) {
        self.promise();
        self.since = now;
        self.probe_pause = FIRST_PROBE_PAUSE;
    }

    /// It says that it has a block.
    pub(crate) fn promise(&mut self) {
        self.proven = true;
        self.misses = 0;
        self.probing = 0;
    }

    /// It has stalled: it is asked whether it has anything after a pause,
    /// which grows until it delivers.
    pub(crate) fn doubt(&mut self, now: Instant) {
        self.proven = false;
        self.probing = 0;
        self.postpone_probe(now);
    }

    pub(crate) fn miss(&mut self, now: Instant) {
        self.misses += 1;
        if self.misses >= MAX_MISSES {
            self.proven = false;
        }
        if self.probing > 0 {
            self.probing -= 1;
            self.postpone_probe(now);
        }
    }

    pub(crate) fn postpone_probe(&mut self, now: Instant) {
        self.next_probe = now + self.probe_pause;
        self.probe_pause = (self.probe_pause * 2).min(MAX_PAUSE);
    }
}

/// The client's side of a session.
#[derive(Debug)]
pub(crate) struct SessionState {
    pub(crate) id: SessionId,
    pub(crate) peers: Vec<Standing>,
    /// Peers that wait for their first place, in order.
    pub(crate) newcomers: VecDeque<PeerId>,
    /// Peers that have given theirs up and wait for another, in order.
    pub(crate) waiting: VecDeque<PeerId>,
    /// Nobody who has a place can be asked: the next newcomer gets one at once.
    pub(crate) hurries: bool,
    /// Everything it wants.
    pub(crate) wants: HashSet<Hash>,
    /// Wants to ask someone for, in order. One that is no longer wanted or is
    /// under way already is skipped when it is met.
    pub(crate) queue: VecDeque<Hash>,
    /// Wants for which there is nobody left to ask.
    pub(crate) parked: Vec<Hash>,
    /// What its wants under way are expected to weigh.
    pub(crate) expected: usize,
    /// Bytes of the blocks in `events`.
    pub(crate) undelivered: usize,
    /// It is in the turn of sessions that wait for peers' room.
    pub(crate) in_turn: bool,
    /// When parked wants are tried again.
    pub(crate) retry_at: Option<Instant>,
    /// When it is next looked after.
    pub(crate) due: Option<Instant>,
    pub(crate) told_no_peers: bool,
    pub(crate) told_stalled: bool,
    pub(crate) waker: Option<Waker>,
    events: VecDeque<Event>,
    estimate: usize,
    pause: Duration,
}

impl SessionState {
    pub(crate) fn new(id: SessionId) -> Self {
        Self {
            id,
            peers: Vec::new(),
            newcomers: VecDeque::new(),
            waiting: VecDeque::new(),
            hurries: false,
            wants: HashSet::new(),
            queue: VecDeque::new(),
            parked: Vec::new(),
            expected: 0,
            undelivered: 0,
            in_turn: false,
            retry_at: None,
            due: None,
            told_no_peers: false,
            told_stalled: false,
            waker: None,
            events: VecDeque::new(),
            estimate: FIRST_ESTIMATE,
            pause: FIRST_PAUSE,
        }
    }

    pub(crate) fn standing(&mut self, peer: &PeerId) -> Option<&mut Standing> {
        self.peers.iter_mut().find(|standing| standing.peer == *peer)
    }

    /// Has a peer wait for its first place, unless too many wait.
    pub(crate) fn wait(&mut self, peer: PeerId) {
        let is_known = self.newcomers.contains(&peer) || self.waiting.contains(&peer);
        if self.count_waiting() < MAX_WAITING && !is_known {
            self.newcomers.push_back(peer);
        }
    }

    pub(crate) fn count_waiting(&self) -> usize {
        self.newcomers.len() + self.waiting.len()
    }

    /// The peer that is to get the next place: newcomers come first.
    pub(crate) fn next_waiting(&mut self) -> Option<PeerId> {
        self.newcomers.pop_front().or_else(|| self.waiting.pop_front())
    }

    /// The peer that has brought nothing for the longest time, and since when.
    pub(crate) fn idlest(&self) -> Option<(PeerId, Instant)> {
        self.peers.iter().map(|standing| (standing.peer, standing.since)).min_by_key(|(_, since)| *since)
    }

    /// What the answer of a peer probably weighs.
    pub(crate) fn estimate_of(&self, peer: &PeerId) -> usize {
        if self.peers.iter().any(|standing| standing.peer == *peer && standing.proven) {
            self.estimate
        } else {
            self.estimate.min(UNPROVEN_ESTIMATE)
        }
    }

    /// A block of this length has come. Rises fast and falls slowly, because
    /// too small an estimate costs memory.
    pub(crate) fn note_length(&mut self, length: usize) {
        self.estimate = if length > self.estimate {
            (self.estimate + length).div_ceil(2)
        } else {
            self.estimate - (self.estimate - length) / 8
        };
        self.pause = FIRST_PAUSE;
        self.told_stalled = false;
    }

    /// The pause before parked wants are tried again; it grows.
    pub(crate) fn next_pause(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = (pause * 2).min(MAX_PAUSE);
        pause
    }

    /// Tells the session something.
    pub(crate) fn push(&mut self, event: Event) {
        match &event {
            Event::Block { data, .. } => self.undelivered += data.len(),
            Event::DontHave { .. } | Event::PeerGone(_) if self.events.len() >= MAX_EVENTS => return,
            Event::DontHave { .. }
            | Event::PeerGone(_)
            | Event::TooLarge { .. }
            | Event::PeerBanned { .. }
            | Event::Stalled { .. }
            | Event::NoPeers => {}
        }
        self.events.push_back(event);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Forgets that nobody can be asked or delivers, which is told again if it
    /// is so still. Whoever added a peer must not read what was true before.
    pub(crate) fn take_back(&mut self) {
        self.told_no_peers = false;
        self.told_stalled = false;
        self.events.retain(|event| !matches!(event, Event::NoPeers | Event::Stalled { .. }));
    }

    pub(crate) fn pop(&mut self) -> Option<Event> {
        let event = self.events.pop_front();
        match &event {
            Some(Event::Block { data, .. }) => self.undelivered -= data.len(),
            None if self.events.capacity() > MAX_EVENTS => self.events = VecDeque::new(),
            Some(_) | None => {}
        }
        event
    }

    /// Drops entries of wants that are gone once they are the majority.
    pub(crate) fn compact(&mut self) {
        if self.queue.len() > 2 * self.wants.len() + 64 {
            self.queue.retain(|hash| self.wants.contains(hash));
        }
        if self.parked.len() > 2 * self.wants.len() + 64 {
            self.parked.retain(|hash| self.wants.contains(hash));
        }
    }
}

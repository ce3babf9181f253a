//! Peers that are not talked to for a while.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use libp2p::PeerId;

/// The most bans kept; the one that ends first gives way. Identities are
/// cheap, so that more would not protect better.
const MAX_BANS: usize = 1_024;

/// Peers with the end of their ban.
#[derive(Debug, Default)]
pub(crate) struct Bans(HashMap<PeerId, Instant>);

impl Bans {
    pub(crate) fn insert(&mut self, peer: PeerId, until: Instant, now: Instant) {
        self.0.retain(|_, end| *end > now);
        if self.0.len() >= MAX_BANS
            && !self.0.contains_key(&peer)
            && let Some(first) = self.0.iter().min_by_key(|(_, end)| **end).map(|(peer, _)| *peer)
        {
            self.0.remove(&first);
        }
        self.0.insert(peer, until);
    }

    /// How much longer a peer is banned.
    pub(crate) fn remaining(&self, peer: &PeerId, now: Instant) -> Option<Duration> {
        let left = self.0.get(peer)?.saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
    }

    pub(crate) fn all(&self, now: Instant) -> Vec<(PeerId, Duration)> {
        self.0.keys().filter_map(|peer| Some((*peer, self.remaining(peer, now)?))).collect()
    }
}

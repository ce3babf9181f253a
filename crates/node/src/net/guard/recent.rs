//! Peers that connected a moment ago.

use std::collections::VecDeque;
use std::time::Duration;

use libp2p::PeerId;
use tokio::time::Instant;

/// For how long a peer that connected is worth asking about new contents: an
/// origin's connection can be faster than the assignment that names it.
const RECENT: Duration = Duration::from_secs(60);
/// How many of those are remembered.
const MAX_RECENT: usize = 64;

/// Who connected, and when; the oldest first.
#[derive(Default)]
pub(super) struct Recent(VecDeque<(Instant, PeerId)>);

impl Recent {
    pub(super) fn add(&mut self, peer: PeerId, now: Instant) {
        self.0.retain(|(at, known)| *known != peer && now.duration_since(*at) < RECENT);
        self.0.push_back((now, peer));
        if self.0.len() > MAX_RECENT {
            self.0.pop_front();
        }
    }

    /// Those who are worth asking, the latest first.
    pub(super) fn peers(&self, now: Instant) -> Vec<PeerId> {
        let recent = self.0.iter().rev().take_while(|(at, _)| now.duration_since(*at) < RECENT);
        recent.map(|(_, peer)| *peer).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_are_remembered_for_a_while() {
        let (mut recent, begun) = (Recent::default(), Instant::now());
        let peers: Vec<_> = (0..=MAX_RECENT).map(|_| PeerId::random()).collect();
        peers.iter().for_each(|peer| recent.add(*peer, begun));
        let later = begun + RECENT / 2;
        recent.add(peers[1], later);
        let latest = recent.peers(later);
        assert_eq!((latest.len(), latest[0], latest[1]), (MAX_RECENT, peers[1], peers[MAX_RECENT]));
        assert!(!latest.contains(&peers[0]), "the oldest is forgotten");
        assert_eq!(recent.peers(begun + RECENT), [peers[1]]);
    }
}

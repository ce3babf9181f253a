//! The origins of one attempt: who they are, and when one that was lost is
//! dialled again. Kubo never dials again after a dropped connection, so we do.
//!
//! Plain state: the attempt feeds it, and dials what is due.

use std::collections::HashMap;
use std::time::Duration;

use libp2p::{Multiaddr, PeerId};
use tokio::time::Instant;

/// The pause before a lost origin is dialled again. It doubles with each try
/// that brings no block.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// Tries in a row without a block, half a minute in all: an origin that takes
/// longer to come back is dialled by the next attempt, and one that hangs up
/// on every connection is not dialled for ever.
const MAX_TRIES: u32 = 5;

/// See the module's description. As many as an assignment names, at most.
#[derive(Default)]
pub(super) struct Origins {
    known: HashMap<PeerId, Origin>,
}

#[derive(Default)]
struct Origin {
    addresses: Vec<Multiaddr>,
    /// Dials since the last block from it after it was lost.
    tries: u32,
    due: Option<Due>,
}

struct Due {
    at: Instant,
    /// Whether an attempt that has nothing else to try waits for it.
    soon: bool,
}

impl Origins {
    /// Adds an origin, or an address of one.
    pub(super) fn add(&mut self, peer: PeerId, addresses: &[Multiaddr]) {
        let origin = self.known.entry(peer).or_default();
        let new = addresses.iter().filter(|address| !origin.addresses.contains(address));
        let new: Vec<_> = new.cloned().collect();
        origin.addresses.extend(new);
        origin.addresses.truncate(crate::net::MAX_ADDRESSES_PER_ORIGIN);
    }

    pub(super) fn contains(&self, peer: &PeerId) -> bool {
        self.known.contains_key(peer)
    }

    /// It is asked nothing more, and not dialled again.
    pub(super) fn forget(&mut self, peer: &PeerId) {
        self.known.remove(peer);
    }

    /// The connection with a peer has ended, or a new dial has failed.
    pub(super) fn lost(&mut self, peer: &PeerId, now: Instant) {
        let Some(origin) = self.known.get_mut(peer).filter(|origin| origin.due.is_none()) else { return };
        if origin.tries >= MAX_TRIES || origin.addresses.is_empty() {
            return;
        }
        origin.due = Some(Due { at: now + FIRST_PAUSE * (1 << origin.tries), soon: true });
        origin.tries += 1;
    }

    /// A dial of it has failed. One that was never connected is left to the
    /// next attempt.
    pub(super) fn unreachable(&mut self, peer: &PeerId, now: Instant) {
        if self.known.get(peer).is_some_and(|origin| origin.tries > 0) {
            self.lost(peer, now);
        }
    }

    /// It is banned for a while, and tried again afterwards.
    pub(super) fn banned(&mut self, peer: &PeerId, until: Instant) {
        if let Some(origin) = self.known.get_mut(peer) {
            origin.due = Some(Due { at: until, soon: false });
        }
    }

    /// It has brought a block: it may be lost and found as often again.
    pub(super) fn delivered(&mut self, peer: &PeerId) {
        if let Some(origin) = self.known.get_mut(peer) {
            origin.tries = 0;
        }
    }

    /// Whether one is about to be dialled again.
    pub(super) fn is_waiting(&self) -> bool {
        self.known.values().any(|origin| origin.due.as_ref().is_some_and(|due| due.soon))
    }

    /// When the next one is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.known.values().filter_map(|origin| Some(origin.due.as_ref()?.at)).min()
    }

    /// Those that are to be dialled now.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<(PeerId, Vec<Multiaddr>)> {
        let due =
            self.known.iter_mut().filter(|(_, origin)| origin.due.as_ref().is_some_and(|due| due.at <= now));
        due.map(|(peer, origin)| {
            origin.due = None;
            (*peer, origin.addresses.clone())
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(addresses: &[Multiaddr]) -> (Origins, PeerId, Instant) {
        let (mut origins, peer) = (Origins::default(), PeerId::random());
        origins.add(peer, addresses);
        (origins, peer, Instant::now())
    }

    fn address() -> Multiaddr {
        "/ip4/1.2.3.4/tcp/1".parse().unwrap()
    }

    #[test]
    fn a_lost_origin_is_dialled_again_with_growing_pauses_and_an_end() {
        let (mut origins, peer, mut now) = one(&[address()]);
        let mut pauses = Vec::new();
        origins.lost(&peer, now);
        while let Some(next) = origins.next() {
            assert!(origins.is_waiting() && origins.take_due(next - Duration::from_millis(1)).is_empty());
            assert_eq!(origins.take_due(next), [(peer, vec![address()])]);
            pauses.push((next - now).as_secs());
            now = next;
            origins.unreachable(&peer, now);
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16]);
        assert!(!origins.is_waiting());
        origins.delivered(&peer);
        origins.lost(&peer, now);
        assert_eq!(origins.next(), Some(now + FIRST_PAUSE));
    }

    #[test]
    fn only_named_origins_with_addresses_that_were_connected_are_dialled_again() {
        let (mut origins, peer, now) = one(&[]);
        origins.lost(&peer, now);
        origins.lost(&PeerId::random(), now);
        assert_eq!(origins.next(), None);
        origins.add(peer, &[address(), address()]);
        origins.unreachable(&peer, now);
        assert_eq!(origins.next(), None, "it was never connected");
        origins.lost(&peer, now);
        origins.forget(&peer);
        assert_eq!(origins.next(), None);
    }

    #[test]
    fn nothing_waits_for_the_end_of_a_ban() {
        let (mut origins, peer, now) = one(&[address()]);
        origins.banned(&peer, now + Duration::from_secs(600));
        // A ban comes with the end of the connection.
        origins.lost(&peer, now);
        assert!(!origins.is_waiting());
        assert_eq!(origins.next(), Some(now + Duration::from_secs(600)));
    }
}

//! Who waits for which dial. Plain state: the swarm's task feeds it.
//!
//! Dials of one peer are shared: a second one joins the first, and brings only
//! the addresses that are not being tried yet.

use std::collections::{HashMap, HashSet};

use libp2p::{
    Multiaddr, PeerId,
    swarm::{
        ConnectionId,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use tokio::sync::oneshot;

use super::DialError;

/// Attempts for one peer at a time. Each is a bundle of addresses; more come
/// only when pins keep naming new addresses of one peer.
const MAX_ATTEMPTS: usize = 4;

pub(super) type Reply = oneshot::Sender<Result<PeerId, DialError>>;

#[derive(Default)]
struct Dialled {
    attempts: HashSet<ConnectionId>,
    addresses: HashSet<Multiaddr>,
    waiting: Vec<Reply>,
}

/// The dials in flight.
#[derive(Default)]
pub(super) struct Dials {
    peers: HashMap<PeerId, Dialled>,
    attempts: HashMap<ConnectionId, PeerId>,
    anonymous: HashMap<ConnectionId, Reply>,
}

impl Dials {
    /// Notes that `reply` waits for `peer`; returns what the swarm is to dial
    /// for it, if anything.
    pub(super) fn request(
        &mut self,
        peer: PeerId,
        addresses: Vec<Multiaddr>,
        reply: Reply,
    ) -> Option<DialOpts> {
        let dialled = self.peers.entry(peer).or_default();
        dialled.waiting.retain(|waiting| !waiting.is_closed());
        dialled.waiting.push(reply);
        let fresh: Vec<Multiaddr> =
            addresses.into_iter().filter(|address| dialled.addresses.insert(address.clone())).collect();
        let full = dialled.attempts.len() >= MAX_ATTEMPTS;
        if full || (fresh.is_empty() && !dialled.attempts.is_empty()) {
            return None;
        }
        let opts = DialOpts::peer_id(peer).condition(PeerCondition::Always).addresses(fresh);
        let opts = opts.allocate_new_port().build();
        dialled.attempts.insert(opts.connection_id());
        self.attempts.insert(opts.connection_id(), peer);
        Some(opts)
    }

    /// The same for an address whose peer is not known.
    pub(super) fn request_anonymous(&mut self, address: Multiaddr, reply: Reply) -> DialOpts {
        let opts = DialOpts::unknown_peer_id().address(address).allocate_new_port().build();
        self.anonymous.insert(opts.connection_id(), reply);
        opts
    }

    /// A connection came about, by whatever means.
    pub(super) fn connected(&mut self, id: ConnectionId, peer: PeerId) {
        if let Some(reply) = self.anonymous.remove(&id) {
            let _ = reply.send(Ok(peer));
        }
        let Some(dialled) = self.peers.remove(&peer) else { return };
        for attempt in dialled.attempts {
            self.attempts.remove(&attempt);
        }
        for reply in dialled.waiting {
            // Who has given up hears nothing.
            let _ = reply.send(Ok(peer));
        }
    }

    /// An attempt failed.
    pub(super) fn failed(&mut self, id: ConnectionId, error: &DialError) {
        if let Some(reply) = self.anonymous.remove(&id) {
            let _ = reply.send(Err(error.clone()));
        }
        let Some(peer) = self.attempts.remove(&id) else { return };
        let Some(dialled) = self.peers.get_mut(&peer) else { return };
        dialled.attempts.remove(&id);
        if dialled.attempts.is_empty() {
            let waiting = self.peers.remove(&peer).map(|dialled| dialled.waiting).unwrap_or_default();
            for reply in waiting {
                let _ = reply.send(Err(error.clone()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> Multiaddr {
        format!("/ip4/1.2.3.4/tcp/{port}").parse().unwrap()
    }

    #[test]
    fn a_second_dial_joins_the_first() {
        let (mut dials, peer) = (Dials::default(), PeerId::random());
        let (first, mut first_end) = oneshot::channel();
        let (second, mut second_end) = oneshot::channel();
        let opts = dials.request(peer, vec![address(1)], first).unwrap();
        assert!(dials.request(peer, vec![address(1)], second).is_none());
        dials.connected(opts.connection_id(), peer);
        assert_eq!(first_end.try_recv().unwrap(), Ok(peer));
        assert_eq!(second_end.try_recv().unwrap(), Ok(peer));
        assert!(dials.attempts.is_empty());
    }

    #[test]
    fn new_addresses_are_a_further_attempt_and_the_last_failure_counts() {
        let (mut dials, peer) = (Dials::default(), PeerId::random());
        let (first, mut first_end) = oneshot::channel();
        let (second, mut second_end) = oneshot::channel();
        let one = dials.request(peer, vec![address(1)], first).unwrap().connection_id();
        let two = dials.request(peer, vec![address(1), address(2)], second).unwrap().connection_id();
        dials.failed(one, &DialError::Busy);
        assert!(first_end.try_recv().is_err(), "the other attempt goes on");
        dials.failed(two, &DialError::Busy);
        assert_eq!(first_end.try_recv().unwrap(), Err(DialError::Busy));
        assert_eq!(second_end.try_recv().unwrap(), Err(DialError::Busy));
        assert!(dials.peers.is_empty());
    }
}

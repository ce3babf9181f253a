//! Searches in the DHT: who provides a key, who is closest to one.

use std::collections::{HashMap, HashSet};

use libp2p::{
    Multiaddr, PeerId,
    core::Endpoint,
    kad::{self, GetProvidersOk, QueryId, QueryResult, RecordKey},
    swarm::{ConnectionId, NetworkBehaviour},
};
use tokio::sync::{mpsc, oneshot};

use super::{
    MAX_ADDRESSES_PER_ORIGIN, Provider, announce,
    behaviour::Behaviour,
    providers::{MAX_PROVIDERS, Source},
};

/// The DHT servers that every client starts from.
pub(super) const AMINO_BOOTSTRAP: [&str; 5] = [
    "/dnsaddr/bootstrap.libp2p.io/p2p/QmNnooDu7bfjPFoTZYxMNLWUQJyrVwtbZg5gBMjTezGAJN",
    "/dnsaddr/bootstrap.libp2p.io/p2p/QmbLHAnMoJPWSCR5Zhtx6BHJX9KiKNN6tpvbUcqanj75Nb",
    "/dnsaddr/bootstrap.libp2p.io/p2p/QmcZf59bWwK5XFi76CZX8cbJ4BhTzzA3gU1ZjYZcYW3dwt",
    "/dnsaddr/va1.bootstrap.libp2p.io/p2p/12D3KooWKnDdG3iXw9eTFijk3EWSunZcFi54Zka4wmtqtt6rPxc8",
    "/ip4/104.131.131.82/tcp/4001/p2p/QmaCpDMGvV2BGHeYERUEnRQAwe3N8SzbUtfsmvsqQLuvuJ",
];

/// A server of the DHT and where it is.
pub(super) type Server = (PeerId, Vec<Multiaddr>);

/// What is asked of the DHT.
pub(super) enum Command {
    /// Providers of a multihash, as they are found; the channel closes at the
    /// end. Dropping the receiver ends the search.
    Find { key: Vec<u8>, found: mpsc::Sender<Provider> },
    /// The servers closest to a key, closest first.
    Closest { key: Vec<u8>, reply: oneshot::Sender<Vec<Server>> },
    /// Tells one server.
    Announce(announce::Job),
}

struct Find {
    found: mpsc::Sender<Provider>,
    seen: HashSet<PeerId>,
}

/// The searches under way.
#[derive(Default)]
pub(super) struct Searches {
    finds: HashMap<QueryId, Find>,
    closest: HashMap<QueryId, oneshot::Sender<Vec<Server>>>,
}

impl Searches {
    pub(super) fn on_command(&mut self, behaviour: &mut Behaviour, command: Command) {
        let Some(dht) = behaviour.dht.as_mut() else { return };
        match command {
            Command::Find { key, found } => {
                let id = dht.get_providers(RecordKey::new(&key));
                self.finds.insert(id, Find { found, seen: HashSet::new() });
            }
            Command::Closest { key, reply } => {
                self.closest.insert(dht.get_closest_peers(key), reply);
            }
            Command::Announce(job) => {
                if let Some(announce) = behaviour.announce.as_mut() {
                    announce.send(job);
                }
            }
        }
    }

    pub(super) fn on_event(&mut self, behaviour: &mut Behaviour, event: kad::Event) {
        let kad::Event::OutboundQueryProgressed { id, result, step, .. } = event else { return };
        match result {
            QueryResult::GetProviders(Ok(GetProvidersOk::FoundProviders { providers, .. })) => {
                self.on_providers(behaviour, id, providers);
            }
            QueryResult::GetClosestPeers(result) => {
                let peers = match result {
                    Ok(found) => found.peers,
                    Err(kad::GetClosestPeersError::Timeout { peers, .. }) => peers,
                };
                if let Some(reply) = self.closest.remove(&id) {
                    let servers = peers.into_iter().map(|peer| (peer.peer_id, peer.addrs)).collect();
                    // The sweep may have ended meanwhile.
                    let _ = reply.send(servers);
                }
            }
            _ => {}
        }
        if step.last {
            self.finds.remove(&id);
        }
    }

    fn on_providers(&mut self, behaviour: &mut Behaviour, id: QueryId, providers: HashSet<PeerId>) {
        let (Some(find), Some(dht)) = (self.finds.get_mut(&id), behaviour.dht.as_mut()) else { return };
        for peer in providers {
            if !find.seen.insert(peer) {
                continue;
            }
            // The result names peers alone. What was told of their addresses
            // is with the running search, where a dial would look.
            let known = dht.handle_pending_outbound_connection(
                ConnectionId::new_unchecked(0),
                Some(peer),
                &[],
                Endpoint::Dialer,
            );
            let mut addresses = known.unwrap_or_default();
            addresses.truncate(MAX_ADDRESSES_PER_ORIGIN);
            // A receiver that does not keep up misses what it has no use for.
            let _ = find.found.try_send(Provider { peer, addresses, source: Source::Dht });
        }
        if find.found.is_closed() || find.seen.len() >= MAX_PROVIDERS {
            self.finds.remove(&id);
            if let Some(mut query) = dht.query_mut(&id) {
                query.finish();
            }
        }
    }
}

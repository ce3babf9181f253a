//! What the node speaks with its peers. No protocol that is not used: each is
//! a door.

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use libp2p::{
    PeerId, StreamProtocol, connection_limits, identify,
    identity::Keypair,
    kad::{self, store::MemoryStore},
    ping,
    swarm::{NetworkBehaviour, behaviour::toggle::Toggle},
};
use pinfold_bitswap as bitswap;

use super::{Config, Limits, announce, guard};

/// The DHT protocol of the Amino network and of private networks like it.
pub(super) const DHT_PROTOCOL: StreamProtocol = StreamProtocol::new("/ipfs/kad/1.0.0");

/// How long one search in the DHT may take. Provider records are mostly found
/// within ten seconds.
const QUERY_TIMEOUT: Duration = Duration::from_secs(60);

/// Peers of one search that are asked at once.
const QUERY_PARALLELISM: NonZeroUsize = NonZeroUsize::new(6).expect("six is not zero");

/// How often the routing table is refreshed: as often as Kubo does.
const REFRESH: Duration = Duration::from_secs(600);

/// All protocols of a connection.
#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    // The limits come first: what they refuse, the others never see.
    limits: connection_limits::Behaviour,
    guard: guard::Behaviour,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    bitswap: bitswap::Behaviour,
    pub(super) dht: Toggle<kad::Behaviour<MemoryStore>>,
    pub(super) announce: Toggle<announce::Behaviour>,
}

impl Behaviour {
    pub(super) fn new(
        key: &Keypair,
        config: &Config,
        guard: Arc<guard::Shared>,
        bitswap: bitswap::Behaviour,
    ) -> Self {
        let peer = key.public().to_peer_id();
        let has_dht = config.has_dht();
        Self {
            limits: connection_limits::Behaviour::new(connection_limits(&config.limits)),
            guard: guard::Behaviour::new(guard, config),
            identify: identify::Behaviour::new(identify_config(key, config)),
            ping: ping::Behaviour::default(),
            bitswap,
            dht: has_dht.then(|| dht(peer)).into(),
            announce: has_dht.then(announce::Behaviour::new).into(),
        }
    }
}

fn connection_limits(limits: &Limits) -> connection_limits::ConnectionLimits {
    connection_limits::ConnectionLimits::default()
        .with_max_established_per_peer(Some(limits.per_peer))
        .with_max_established_incoming(Some(limits.inbound))
        .with_max_established_outgoing(Some(limits.outbound))
        .with_max_established(Some(limits.total))
        .with_max_pending_incoming(Some(limits.pending_inbound))
        .with_max_pending_outgoing(Some(limits.pending_outbound))
}

fn identify_config(key: &Keypair, config: &Config) -> identify::Config {
    identify::Config::new("ipfs/0.1.0".to_owned(), key.public())
        .with_agent_version(config.agent.clone())
        .with_push_listen_addr_updates(true)
        // Announced addresses replace those that were bound.
        .with_hide_listen_addrs(!config.announce.is_empty())
        // What a peer claims of itself is not remembered for dialling.
        .with_cache_size(0)
}

/// A client of the DHT: it asks and never answers. Its provider records are
/// published by [`super::provide`], so that kad republishes nothing.
fn dht(peer: PeerId) -> kad::Behaviour<MemoryStore> {
    let mut config = kad::Config::new(DHT_PROTOCOL);
    config
        .set_query_timeout(QUERY_TIMEOUT)
        .set_parallelism(QUERY_PARALLELISM)
        .set_record_filtering(kad::StoreInserts::FilterBoth)
        .set_replication_interval(None)
        .set_publication_interval(None)
        .set_provider_publication_interval(None)
        .set_periodic_bootstrap_interval(Some(REFRESH));
    let mut dht = kad::Behaviour::with_config(peer, MemoryStore::new(peer), config);
    dht.set_mode(Some(kad::Mode::Client));
    dht
}

//! A server of a DHT on loopback, which believes and repeats what it is told.

use futures::StreamExt;
use libp2p::{
    Multiaddr, PeerId, StreamProtocol, SwarmBuilder,
    connection_limits::{self, ConnectionLimits},
    identify,
    kad::{
        self, ProviderRecord, RecordKey,
        store::{MemoryStore, RecordStore},
    },
    multiaddr::Protocol,
    noise,
    swarm::{NetworkBehaviour, SwarmEvent},
    tcp, yamux,
};
use tokio::sync::mpsc;

#[derive(NetworkBehaviour)]
pub struct Server {
    /// It dials nobody by itself.
    limits: connection_limits::Behaviour,
    dht: kad::Behaviour<MemoryStore>,
    identify: identify::Behaviour,
}

/// What a server says besides what it is told.
#[derive(Default)]
pub struct Claims {
    /// Who provides the block with this multihash, and where.
    pub providers: Vec<(Vec<u8>, PeerId, Multiaddr)>,
    /// Other servers, and where they are.
    pub servers: Vec<(PeerId, Multiaddr)>,
}

/// Runs a DHT server until the test ends; tells the keys it was given.
pub async fn server() -> (Multiaddr, mpsc::Receiver<Vec<u8>>) {
    server_that(Claims::default()).await
}

/// The same, of one that claims something.
pub async fn server_that(claims: Claims) -> (Multiaddr, mpsc::Receiver<Vec<u8>>) {
    let mut swarm = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|key| {
            let peer = key.public().to_peer_id();
            let mut settings = kad::Config::new(StreamProtocol::new("/ipfs/kad/1.0.0"));
            settings.set_record_filtering(kad::StoreInserts::FilterBoth);
            let mut dht = kad::Behaviour::with_config(peer, MemoryStore::new(peer), settings);
            dht.set_mode(Some(kad::Mode::Server));
            let identify = identify::Behaviour::new(identify::Config::new("x".to_owned(), key.public()));
            let limits = ConnectionLimits::default().with_max_pending_outgoing(Some(0));
            Server { limits: connection_limits::Behaviour::new(limits), dht, identify }
        })
        .unwrap()
        .build();
    for (key, provider, address) in claims.providers {
        let record = ProviderRecord::new(RecordKey::new(&key), provider, vec![address]);
        swarm.behaviour_mut().dht.store_mut().add_provider(record).unwrap();
    }
    for (peer, address) in claims.servers {
        swarm.behaviour_mut().dht.add_address(&peer, address);
    }
    swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
    let address = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            break address.with(Protocol::P2p(*swarm.local_peer_id()));
        }
    };
    let (given, keys) = mpsc::channel(4096);
    tokio::spawn(async move {
        loop {
            let event = swarm.select_next_some().await;
            if let SwarmEvent::Behaviour(ServerEvent::Dht(kad::Event::InboundRequest {
                request: kad::InboundRequest::AddProvider { record: Some(record) },
            })) = event
            {
                let key = record.key.to_vec();
                swarm.behaviour_mut().dht.store_mut().add_provider(record).unwrap();
                given.send(key).await.unwrap();
            }
        }
    });
    (address, keys)
}

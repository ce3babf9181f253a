//! A peer that shares no code with the crate: its messages are a protobuf
//! library's, and what it says a test writes. The node's tests and the
//! end-to-end benchmark include this folder too.

#![allow(dead_code, reason = "whoever includes it uses a part of it")]

pub(crate) mod origins;
pub(crate) mod proto;
pub(crate) mod raw;

use std::time::Duration;

use futures::StreamExt;
use libp2p::swarm::{Config, NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, Swarm, SwarmBuilder, noise, tcp, yamux};

/// Nothing is waited for longer than this.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The streams of a connection: none is lost because nobody takes it.
pub(crate) const MAX_STREAMS: usize = 4_096;

/// Commands, connections and failed dials that wait; of more of these no test
/// needs to know.
pub(crate) const EVENTS: usize = 64;

/// A swarm over TCP, noise and yamux.
pub(crate) fn swarm<B: NetworkBehaviour>(behaviour: B) -> Swarm<B> {
    SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, || {
            let mut config = yamux::Config::default();
            config.set_max_num_streams(MAX_STREAMS);
            config
        })
        .expect("noise can be set up")
        .with_behaviour(|_| behaviour)
        .expect("the behaviour exists")
        .with_swarm_config(|config: Config| config.with_idle_connection_timeout(Duration::from_secs(60)))
        .build()
}

pub(crate) async fn listen<B: NetworkBehaviour>(swarm: &mut Swarm<B>) -> Multiaddr {
    swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse().expect("a valid address")).expect("loopback can be bound");
    loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            return address;
        }
    }
}

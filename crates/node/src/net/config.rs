//! Settings of the network, and the bounds that are no settings.

use std::{sync::Arc, time::Duration};

use libp2p::Multiaddr;
use rustls::RootCertStore;
use url::Url;

use super::{dht::AMINO_BOOTSTRAP, dns::Resolver};

/// Addresses of one origin or provider that are looked at; the rest is
/// ignored. A Kubo behind NAT with several interfaces names about twenty.
pub const MAX_ADDRESSES_PER_ORIGIN: usize = 20;

/// Which public network the node takes part in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PublicNetwork {
    /// None: only peers that are named by assignments, routers or settings.
    #[default]
    None,
    /// The Amino DHT, as a client.
    Amino,
}

/// Settings of a [`super::Network`].
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen; port 0 means any free one.
    pub listen: Vec<Multiaddr>,
    /// What peers are told to dial instead of the bound addresses. May lack
    /// the `/p2p/` part.
    pub announce: Vec<Multiaddr>,
    /// The public network, none by default.
    pub public: PublicNetwork,
    /// DHT servers to start from, each with `/p2p/`. Empty: the well-known
    /// ones of the public network. Without a public network a bootstrap list
    /// makes a private DHT.
    pub bootstrap: Vec<Multiaddr>,
    /// Whether provider records are published in the DHT.
    pub provide: bool,
    /// Whether this machine may dial private addresses at all. Each dial says
    /// too whether its pin allows it; both must. Link-local, multicast and
    /// unspecified addresses are never dialled.
    pub allow_private_addresses: bool,
    /// Base URLs of delegated routers (`/routing/v1` is appended).
    pub routers: Vec<Url>,
    /// Told to peers by identify, such as `pinfold/0.1.0`.
    pub agent: String,
    /// How long a connection that nobody uses stays open.
    pub idle_timeout: Duration,
    /// How long a new inbound connection is kept though nobody uses it: Kubo
    /// dials a delegate once, right after the pin was posted, and the
    /// assignment that makes it an expected peer comes a moment later.
    pub arrival_grace: Duration,
    /// How many connections, streams and dials.
    pub limits: Limits,
    /// Looks names up; the system's name servers when none is given.
    pub resolver: Option<Resolver>,
    /// Who vouches for the certificates of WebSocket peers, routers and
    /// gateways that are dialled over TLS; whom the system trusts when nobody
    /// is given.
    pub authorities: Option<Arc<RootCertStore>>,
}

impl Config {
    /// Whether there is a DHT to ask.
    pub fn has_dht(&self) -> bool {
        self.public == PublicNetwork::Amino || !self.bootstrap.is_empty()
    }

    /// The DHT servers to start from.
    pub(super) fn bootstrap(&self) -> Vec<Multiaddr> {
        match self.public {
            PublicNetwork::Amino if self.bootstrap.is_empty() => {
                AMINO_BOOTSTRAP.iter().filter_map(|text| text.parse().ok()).collect()
            }
            _ => self.bootstrap.clone(),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            announce: Vec::new(),
            public: PublicNetwork::None,
            bootstrap: Vec::new(),
            provide: false,
            allow_private_addresses: false,
            routers: Vec::new(),
            agent: concat!("pinfold/", env!("CARGO_PKG_VERSION")).to_owned(),
            idle_timeout: Duration::from_secs(10),
            arrival_grace: Duration::from_secs(60),
            limits: Limits::default(),
            resolver: None,
            authorities: None,
        }
    }
}

/// Bounds on connections and streams. What exceeds one is refused, never
/// queued.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Established connections with one peer: one each way and one spare for
    /// a simultaneous dial.
    pub per_peer: u32,
    /// Established inbound connections.
    pub inbound: u32,
    /// Established outbound connections.
    pub outbound: u32,
    /// Established connections in all; less than the sum of both, so that
    /// neither direction starves the other.
    pub total: u32,
    /// Established inbound connections of strangers from one IP address (or
    /// one IPv6 /64): many users can share one, one attacker must not take all.
    pub per_address: usize,
    /// Inbound connections that are still shaking hands.
    pub pending_inbound: u32,
    /// Of those, from one address: who opens connections and says nothing
    /// leaves room for others.
    pub pending_per_address: usize,
    /// Outbound connections that are still being dialled.
    pub pending_outbound: u32,
    /// Streams that one peer may have open on one connection.
    pub streams_per_connection: usize,
    /// Streams that all peers may have open on all connections.
    pub streams: usize,
    /// Idle connections that are kept alive for being expected or new.
    pub kept_alive: usize,
    /// Bytes of this process in memory, above which no stranger's connection
    /// is taken. Ten times what a busy `up` uses. Known on Linux alone.
    pub memory_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            per_peer: 4,
            inbound: 512,
            outbound: 512,
            total: 768,
            per_address: 128,
            pending_inbound: 64,
            pending_per_address: 32,
            pending_outbound: 64,
            streams_per_connection: 512,
            streams: 4096,
            kept_alive: 256,
            memory_bytes: 1 << 30,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_that_nobody_uses_are_kept_as_long_as_is_documented() {
        let config = Config::default();
        assert_eq!((config.idle_timeout.as_secs(), config.arrival_grace.as_secs()), (10, 60));
    }
}

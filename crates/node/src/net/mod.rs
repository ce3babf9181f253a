//! The node's side of the peer-to-peer network: one libp2p swarm, the routing
//! that finds providers, and the HTTP client that asks routers and gateways.
//!
//! [`Network`] is a handle; the swarm lives in a task of its own that
//! [`Network::start`] starts and [`Network::shutdown`] stops and awaits.
//! Nothing here is durable: after a restart the node dials anew.
//!
//! Everything that is dialled, by libp2p or by HTTP, passes one filter that
//! judges the address after DNS has resolved it ([`filter`]). Everything that
//! others can cause is bounded ([`Limits`] and the constants of each module).

mod announce;
mod behaviour;
mod config;
mod dht;
mod dial;
mod dials;
pub mod dns;
mod error;
pub mod filter;
mod guard;
pub mod http;
mod muxer;
mod provide;
mod providers;
mod room;
mod security;
mod swarm;
mod tls;
mod transport;
mod websocket;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use cid::{Cid, multihash::Multihash};
use libp2p::{Multiaddr, PeerId, Swarm, identity::Keypair};
use parking_lot::RwLock;
use pinfold_bitswap as bitswap;
use tokio::sync::{Semaphore, broadcast, mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use url::Url;

pub use config::{Config, Limits, MAX_ADDRESSES_PER_ORIGIN, PublicNetwork};
pub use dial::{DIAL_TIMEOUT, origins};
pub use error::{DialError, StartError};
pub use guard::Expectation;
pub use provide::{REPROVIDE_INTERVAL, Roots};
pub use providers::{FIND_TIMEOUT, MAX_PROVIDERS, Provider, Providers, Source};

use self::{
    behaviour::Behaviour,
    dns::Resolver,
    filter::Policy,
    muxer::Streams,
    swarm::{Command, Driver, Tasks, with_peer},
};

/// How long the swarm's tasks may take to end after they were told to.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// The addresses that the listeners are bound to, each with `/p2p/`.
#[derive(Default)]
struct Shared {
    listen: RwLock<Vec<Multiaddr>>,
}

impl Shared {
    fn bound(&self, address: Multiaddr) {
        tracing::info!(%address, "listening for peers");
        let mut listen = self.listen.write();
        if !listen.contains(&address) {
            listen.push(address);
        }
    }

    fn unbound(&self, address: &Multiaddr) {
        self.listen.write().retain(|bound| bound != address);
    }
}

struct Inner {
    peer: PeerId,
    announce: Vec<Multiaddr>,
    routers: Vec<Url>,
    has_dht: bool,
    is_public: bool,
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
    guard: Arc<guard::Shared>,
    policy: Arc<Policy>,
    bitswap: bitswap::Handle,
    http: http::Client,
    dialling: Semaphore,
    searching: Arc<Semaphore>,
    /// Whether the service allows private addresses, for routers and sweeps,
    /// which belong to no pin.
    allow_private: AtomicBool,
    /// New roots to provide; absent when nothing is published.
    new_roots: Option<mpsc::Sender<Multihash<64>>>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// The handle of the network. Cheap to clone.
#[derive(Clone)]
pub struct Network(Arc<Inner>);

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network").field("peer", &self.0.peer).finish_non_exhaustive()
    }
}

impl Network {
    /// Binds all listeners and starts the swarm's task, on the current tokio
    /// runtime. `blocks` is what Bitswap serves.
    ///
    /// # Errors
    /// When an address cannot be listened on; nothing runs then.
    pub async fn start(
        config: Config,
        key: Keypair,
        blocks: Arc<dyn bitswap::Blocks>,
    ) -> Result<Self, StartError> {
        let (commands, orders) = mpsc::channel(swarm::MAX_COMMANDS);
        let guard = guard::Shared::new();
        let shared = Arc::<Shared>::default();
        let policy = Policy::new(config.allow_private_addresses);
        let resolver = config.resolver.clone().unwrap_or_else(Resolver::system);
        let streams = Streams::new(&config.limits);
        let tasks = TaskTracker::new();

        let tls = http::tls(config.authorities.clone());
        let transport = transport::build(&key, &policy, &resolver, &streams, tls.clone())?;
        let exchange =
            bitswap::Config { metrics_prefix: "pinfold_bitswap".to_owned(), ..bitswap::Config::default() };
        let (bitswap_behaviour, bitswap) = bitswap::Behaviour::new(exchange, blocks);
        let behaviour = Behaviour::new(&key, &config, guard.clone(), bitswap_behaviour);
        let peer = key.public().to_peer_id();
        let settings = libp2p::swarm::Config::with_executor(Tasks(tasks.clone()))
            .with_idle_connection_timeout(config.idle_timeout);
        let swarm = Swarm::new(transport, behaviour, peer, settings);
        let http = http::Client::new(&policy, &resolver, &config.agent, &tls)?;

        let mut driver = Driver::new(swarm, shared.clone(), policy.clone(), streams);
        driver.listen(&config.listen).await?;
        driver.prepare(&config);
        let stop = CancellationToken::new();
        tasks.spawn(driver.run(orders, stop.clone()));

        let publishes = config.provide && config.has_dht();
        let (new_roots, roots) = publishes.then(|| mpsc::channel(provide::MAX_NEW_ROOTS)).unzip();
        let inner = Arc::new(Inner {
            peer,
            announce: config.announce.iter().cloned().map(|a| with_peer(a, peer)).collect(),
            has_dht: config.has_dht(),
            is_public: config.public != PublicNetwork::None,
            routers: config.routers,
            commands,
            shared,
            guard,
            policy,
            bitswap,
            http,
            dialling: Semaphore::new(dial::MAX_DIALS),
            searching: Arc::new(Semaphore::new(providers::MAX_SEARCHES)),
            allow_private: AtomicBool::new(config.allow_private_addresses),
            new_roots,
            stop,
            tasks,
        });
        if let Some(roots) = roots {
            provide::provide_new(inner.clone(), roots);
        }
        Ok(Self(inner))
    }

    /// Closes all connections and waits until the tasks have ended. Everything
    /// asked of the handle afterwards fails as closed. Can be called again.
    pub async fn shutdown(&self) {
        self.0.stop.cancel();
        self.0.tasks.close();
        if tokio::time::timeout(SHUTDOWN_TIMEOUT, self.0.tasks.wait()).await.is_err() {
            tracing::warn!("some network tasks have not ended in time and are left behind");
        }
    }

    /// Who this node is.
    pub fn peer_id(&self) -> PeerId {
        self.0.peer
    }

    /// The bound addresses, port 0 resolved, each with `/p2p/`.
    pub fn listen_addresses(&self) -> Vec<Multiaddr> {
        self.0.shared.listen.read().clone()
    }

    /// What others are told to dial, each with `/p2p/`: the announced
    /// addresses if there are any, else the bound ones.
    pub fn announced(&self) -> Vec<Multiaddr> {
        if self.0.announce.is_empty() { self.listen_addresses() } else { self.0.announce.clone() }
    }

    /// Says whether the service allows private addresses. It matters for
    /// routers alone; dials say it themselves. The machine's setting stands
    /// above it.
    pub fn allow_private_addresses(&self, allow: bool) {
        self.0.allow_private.store(allow, Ordering::Relaxed);
    }

    /// Keeps the connection with `peer`, or the next one that it opens, while
    /// the expectation lives. Expectations of one peer are counted.
    pub fn expect(&self, peer: PeerId) -> Expectation {
        self.0.guard.expect(peer)
    }

    /// Peers at the moment they become connected, whoever dialled. A receiver
    /// that lags loses the oldest; [`Network::connected`] tells them all.
    pub fn arrivals(&self) -> broadcast::Receiver<PeerId> {
        self.0.guard.arrivals()
    }

    /// Peers that connected within the last minute, the latest first, and those
    /// that do from now on: nobody is missed in between.
    pub(crate) fn newcomers(&self) -> (Vec<PeerId>, broadcast::Receiver<PeerId>) {
        self.0.guard.newcomers()
    }

    /// Whether there is a connection with `peer`.
    pub fn is_connected(&self, peer: &PeerId) -> bool {
        self.0.guard.is_connected(peer)
    }

    /// All connected peers.
    pub fn connected(&self) -> Vec<PeerId> {
        self.0.guard.connected()
    }

    /// Closes every connection with `peer`, soon.
    pub fn disconnect(&self, peer: PeerId) {
        self.0.guard.disconnect(peer);
    }

    /// Bitswap's handle.
    pub fn bitswap(&self) -> &bitswap::Handle {
        &self.0.bitswap
    }

    /// The HTTP client for gateways.
    pub fn http(&self) -> &http::Client {
        &self.0.http
    }

    /// Whether anything can be asked for providers at all.
    pub fn has_routing(&self) -> bool {
        self.0.has_dht || !self.0.routers.is_empty()
    }

    /// Whether the node takes part in a public network, in which strangers say
    /// who is where. Its own routing then names no private address.
    pub fn is_public(&self) -> bool {
        self.0.is_public
    }

    /// Searches for providers of a block, by the delegated routers and the DHT
    /// at once. The search ends by itself within [`FIND_TIMEOUT`], or when the
    /// result is dropped.
    pub fn find_providers(&self, cid: Cid) -> Providers {
        providers::find(&self.0, cid)
    }
}

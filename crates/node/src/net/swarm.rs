//! The task that drives the swarm. It waits in one place and changes its
//! state in plain code.

use std::{
    collections::HashMap,
    error::Error,
    io::{self, ErrorKind},
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use futures::{Future, StreamExt};
use libp2p::{
    Multiaddr, PeerId, Swarm,
    core::transport::ListenerId,
    identify,
    multiaddr::Protocol,
    swarm::{Executor, SwarmEvent, dial_opts::DialOpts},
};
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Config, DialError, PublicNetwork, Shared, StartError,
    behaviour::{Behaviour, BehaviourEvent, DHT_PROTOCOL},
    dht::{self, Searches},
    dials::{Dials, Reply},
    error::innermost,
    filter::{Permit, Policy},
    muxer::Streams,
};

/// Orders to the swarm's task that may wait; who has more waits.
pub(super) const MAX_COMMANDS: usize = 256;

/// How long a listener may take to say what it bound.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(10);

/// What the handle asks of the swarm's task. Every one is answered, or its
/// reply channel closes when the task ends.
pub(super) enum Command {
    Dial { peer: PeerId, addresses: Vec<Multiaddr>, reply: Reply },
    DialAnonymous { address: Multiaddr, reply: Reply },
    Dht(dht::Command),
}

/// Runs the swarm's tasks where [`super::Network::shutdown`] can await them.
pub(super) struct Tasks(pub(super) TaskTracker);

impl Executor for Tasks {
    fn exec(&self, task: Pin<Box<dyn Future<Output = ()> + Send>>) {
        self.0.spawn(task);
    }
}

/// The swarm and what belongs to it.
pub(super) struct Driver {
    pub(super) swarm: Swarm<Behaviour>,
    pub(super) shared: Arc<Shared>,
    pub(super) policy: Arc<Policy>,
    pub(super) streams: Streams,
    dials: Dials,
    searches: Searches,
    /// For the bootstrap peers, as long as the network runs.
    permits: Vec<Permit>,
}

impl Driver {
    pub(super) fn new(
        swarm: Swarm<Behaviour>,
        shared: Arc<Shared>,
        policy: Arc<Policy>,
        streams: Streams,
    ) -> Self {
        let (dials, searches) = (Dials::default(), Searches::default());
        Self { swarm, shared, policy, streams, dials, searches, permits: Vec::new() }
    }

    /// Tells the swarm what it is announced as and where the DHT begins.
    pub(super) fn prepare(&mut self, config: &Config) {
        for address in &config.announce {
            self.swarm.add_external_address(address.clone());
        }
        for address in config.bootstrap() {
            let Some(Protocol::P2p(peer)) = address.iter().last() else {
                tracing::warn!(%address, "a bootstrap address lacks its /p2p/ part and is ignored");
                continue;
            };
            // The operator named it: that is the permission. In a public DHT
            // it is for an address alone that is written down, because there
            // anybody can say where the peer is.
            if config.public == PublicNetwork::None {
                self.permits.push(self.policy.permit_peer(peer));
            } else {
                self.permits.push(self.policy.permit_address(address.clone()));
            }
            if let Some(dht) = self.swarm.behaviour_mut().dht.as_mut() {
                dht.add_address(&peer, address);
            }
        }
        if let Some(dht) = self.swarm.behaviour_mut().dht.as_mut()
            && dht.bootstrap().is_err()
        {
            tracing::warn!("the DHT has no server to start from; give bootstrap addresses");
        }
    }

    /// Listens on every address and returns when each is bound.
    pub(super) async fn listen(&mut self, addresses: &[Multiaddr]) -> Result<(), StartError> {
        for address in addresses {
            unshared(address).map_err(|e| failed(address, &e))?;
        }
        let mut waiting: HashMap<ListenerId, Multiaddr> = HashMap::new();
        for address in addresses {
            let listener = self.swarm.listen_on(address.clone()).map_err(|e| failed(address, &e))?;
            waiting.insert(listener, address.clone());
        }
        let bound = async {
            while !waiting.is_empty() {
                let event = self.swarm.select_next_some().await;
                match &event {
                    SwarmEvent::NewListenAddr { listener_id, .. } => {
                        waiting.remove(listener_id);
                    }
                    SwarmEvent::ListenerClosed { listener_id, reason: Err(e), .. } => {
                        if let Some(address) = waiting.remove(listener_id) {
                            return Err(failed(&address, e));
                        }
                    }
                    _ => {}
                }
                self.on_event(event);
            }
            Ok(())
        };
        match tokio::time::timeout(LISTEN_TIMEOUT, bound).await {
            Ok(result) => result,
            Err(_) => {
                let late = io::Error::new(ErrorKind::TimedOut, "the system did not answer in time");
                Err(failed(&addresses[0], &late))
            }
        }
    }

    /// Runs until `stop` is cancelled.
    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                event = self.swarm.select_next_some() => self.on_event(event),
                command = commands.recv() => match command {
                    Some(command) => self.on_command(command),
                    None => return,
                },
            }
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Dial { peer, reply, .. } if self.swarm.is_connected(&peer) => {
                let _ = reply.send(Ok(peer));
            }
            Command::Dial { peer, addresses, reply } => {
                if let Some(opts) = self.dials.request(peer, addresses, reply) {
                    self.dial(opts);
                }
            }
            Command::DialAnonymous { address, reply } => {
                let opts = self.dials.request_anonymous(address, reply);
                self.dial(opts);
            }
            Command::Dht(command) => self.searches.on_command(self.swarm.behaviour_mut(), command),
        }
    }

    fn dial(&mut self, opts: DialOpts) {
        let id = opts.connection_id();
        if let Err(error) = self.swarm.dial(opts) {
            self.dials.failed(id, &DialError::of_swarm(&error));
        }
    }

    fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour_event(event),
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                tracing::debug!(peer = %peer_id, address = %endpoint.get_remote_address(), "connected");
                let direction = if endpoint.is_dialer() { "outbound" } else { "inbound" };
                metrics::counter!("pinfold_net_connections_opened_total", "direction" => direction)
                    .increment(1);
                self.dials.connected(connection_id, peer_id);
                self.measure();
            }
            SwarmEvent::ConnectionClosed { peer_id, cause, .. } => {
                tracing::debug!(peer = %peer_id, ?cause, "disconnected");
                self.measure();
            }
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                metrics::counter!("pinfold_net_dials_failed_total").increment(1);
                self.dials.failed(connection_id, &DialError::of_swarm(&error));
            }
            SwarmEvent::IncomingConnectionError { error, send_back_addr, .. } => {
                metrics::counter!("pinfold_net_inbound_failed_total").increment(1);
                tracing::debug!(address = %send_back_addr, %error, "an inbound connection failed");
            }
            SwarmEvent::NewListenAddr { address, .. } => self.shared.bound(self.with_peer(address)),
            SwarmEvent::ExpiredListenAddr { address, .. } => self.shared.unbound(&self.with_peer(address)),
            SwarmEvent::ListenerClosed { addresses, reason, .. } => {
                for address in addresses {
                    self.shared.unbound(&self.with_peer(address));
                }
                if let Err(error) = reason {
                    tracing::error!(%error, "a listener has ended; peers cannot reach the node there");
                }
            }
            SwarmEvent::ListenerError { error, .. } => tracing::warn!(%error, "a listener had an error"),
            _ => {}
        }
    }

    fn on_behaviour_event(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Identify(identify::Event::Received { peer_id, info, .. }) => {
                self.on_identified(peer_id, info);
            }
            BehaviourEvent::Dht(event) => self.searches.on_event(self.swarm.behaviour_mut(), event),
            BehaviourEvent::Announce(event) => match event {},
            BehaviourEvent::Identify(_) | BehaviourEvent::Ping(_) => {}
            BehaviourEvent::Limits(event) | BehaviourEvent::Guard(event) | BehaviourEvent::Bitswap(event) => {
                match event {}
            }
        }
    }

    /// A DHT server that dialled us becomes one that we can ask, at those of
    /// its addresses that may be dialled.
    fn on_identified(&mut self, peer: PeerId, info: identify::Info) {
        let Some(dht) = self.swarm.behaviour_mut().dht.as_mut() else { return };
        if !info.protocols.contains(&DHT_PROTOCOL) {
            return;
        }
        for address in claimed(&self.policy, info.listen_addrs) {
            dht.add_address(&peer, address);
        }
    }

    fn with_peer(&self, address: Multiaddr) -> Multiaddr {
        with_peer(address, *self.swarm.local_peer_id())
    }

    fn measure(&self) {
        let counters = self.swarm.network_info();
        let established = counters.connection_counters();
        let inbound = f64::from(established.num_established_incoming());
        let outbound = f64::from(established.num_established_outgoing());
        metrics::gauge!("pinfold_net_connections", "direction" => "inbound").set(inbound);
        metrics::gauge!("pinfold_net_connections", "direction" => "outbound").set(outbound);
        #[expect(clippy::cast_precision_loss, reason = "a gauge; the count is far below 2^52")]
        metrics::gauge!("pinfold_net_inbound_streams").set(self.streams.open() as f64);
    }
}

/// Of the addresses that a peer claims, those that may be dialled.
fn claimed(policy: &Policy, addresses: Vec<Multiaddr>) -> impl Iterator<Item = Multiaddr> {
    let some = addresses.into_iter().take(super::MAX_ADDRESSES_PER_ORIGIN);
    some.filter(|address| policy.check(address).is_ok())
}

/// `address` with `/p2p/` at its end.
pub(super) fn with_peer(address: Multiaddr, peer: PeerId) -> Multiaddr {
    match address.iter().last() {
        Some(Protocol::P2p(_)) => address,
        _ => address.with(Protocol::P2p(peer)),
    }
}

/// Fails where another process listens on a TCP port. libp2p lets whoever asks
/// for it in the same way share its ports (`SO_REUSEPORT`): two nodes would
/// both start, and each peer would reach one of them at random.
fn unshared(address: &Multiaddr) -> io::Result<()> {
    let mut parts = address.iter();
    let ip: IpAddr = match parts.next() {
        Some(Protocol::Ip4(ip)) => ip.into(),
        Some(Protocol::Ip6(ip)) => ip.into(),
        _ => return Ok(()),
    };
    match parts.next() {
        Some(Protocol::Tcp(port)) if port != 0 => std::net::TcpListener::bind((ip, port)).map(drop),
        _ => Ok(()),
    }
}

fn failed(address: &Multiaddr, reason: &(dyn Error + 'static)) -> StartError {
    StartError::Listen { address: address.clone(), reason: innermost(reason) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_a_peer_claims_only_public_addresses_are_taken() {
        let claims =
            ["/ip4/11.1.1.1/tcp/1", "/ip4/127.0.0.1/tcp/1", "/ip4/192.168.1.1/tcp/80", "/dns/inside/tcp/1"];
        let policy = Policy::new(true);
        let some: Vec<_> = claimed(&policy, claims.map(|text| text.parse().unwrap()).into()).collect();
        assert_eq!(some, ["/ip4/11.1.1.1/tcp/1".parse().unwrap()]);
        let many = vec![some[0].clone(); 1_000];
        assert_eq!(claimed(&policy, many).count(), crate::net::MAX_ADDRESSES_PER_ORIGIN);
    }
}

//! The behaviour for the swarm.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_timer::Delay;
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::{
    CloseConnection, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};

use crate::handler::Handler;
use crate::shared::Shared;
use crate::{Blocks, Config, Handle};

/// How often gauges are set while anything happens.
const GAUGE_EVERY: Duration = Duration::from_secs(1);

/// A connection from or to a banned peer is denied.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("{0} is banned from Bitswap for another {1} s")]
struct Banned(PeerId, u64);

/// Speaks Bitswap with every connected peer.
///
/// It never dials; it disconnects and denies banned peers. It emits no event:
/// everything is told through [`Handle`] and [`Session`](crate::Session).
/// The swarm must run on a tokio runtime, on whose threads for blocking work
/// blocks are read.
#[derive(Debug)]
pub struct Behaviour {
    shared: Arc<Shared>,
    timer: Option<(Instant, Delay)>,
    gauged: Instant,
}

impl Behaviour {
    /// Makes a behaviour, which goes into a swarm, and its handle.
    pub fn new(config: Config, blocks: Arc<dyn Blocks>) -> (Self, Handle) {
        let shared = Arc::new(Shared::new(config, blocks));
        (Self { shared: shared.clone(), timer: None, gauged: Instant::now() }, Handle::new(shared))
    }

    fn handler(&self, id: ConnectionId, peer: PeerId) -> Result<Handler, ConnectionDenied> {
        if let Some(left) = self.shared.client.lock().banned(&peer, Instant::now()) {
            return Err(ConnectionDenied::new(Banned(peer, left.as_secs())));
        }
        Ok(Handler::new(peer, id, self.shared.clone()))
    }

    /// Sets the gauges, once in a while.
    fn gauge(&mut self) {
        let now = Instant::now();
        if now.saturating_duration_since(self.gauged) >= GAUGE_EVERY {
            self.gauged = now;
            self.shared.gauge(now);
        }
    }

    /// Calls the client when it is time.
    fn poll_timer(&mut self, cx: &mut Context<'_>) {
        loop {
            let now = Instant::now();
            let Some(at) = self.shared.client.lock().tick_at() else {
                self.timer = None;
                return;
            };
            if at <= now {
                self.shared.client.lock().tick(now);
                continue;
            }
            let (set, delay) = self.timer.get_or_insert_with(|| (at, Delay::new(at - now)));
            if *set != at {
                *set = at;
                delay.reset(at - now);
            }
            if Pin::new(delay).poll(cx).is_pending() {
                return;
            }
            self.timer = None;
        }
    }
}

impl Drop for Behaviour {
    fn drop(&mut self) {
        self.shared.client.lock().shut_down();
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.handler(id, peer)
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.handler(id, peer)
    }

    fn on_swarm_event(&mut self, _: FromSwarm) {}

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.shared.swarm.register(cx.waker());
        self.poll_timer(cx);
        self.gauge();
        if let Some(peer_id) = self.shared.client.lock().take_disconnect() {
            return Poll::Ready(ToSwarm::CloseConnection { peer_id, connection: CloseConnection::All });
        }
        Poll::Pending
    }
}

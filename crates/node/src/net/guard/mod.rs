//! Which connections are kept though nobody uses them, and which are refused
//! to keep room.
//!
//! The swarm closes a connection that is idle for ten seconds. That would drop
//! the one that matters most: Kubo dials each delegate once, right after its
//! `POST /pins`, never again, and offers the blocks there. So two kinds of
//! connection are kept:
//!
//! - those with an **expected** peer, one that an unfinished pin names as its
//!   origin, while an [`Expectation`] lives;
//! - **new inbound** ones, for a grace period, because the assignment that
//!   makes the peer expected takes a moment to arrive.
//!
//! Each kind has a bound. When too many strangers knock, the oldest of them
//! loses its grace. Strangers also leave a part of the inbound connections to
//! expected peers, and one address gets only so many, before and after it has
//! shaken hands. They get none while this process uses too much memory.

mod handler;
mod recent;
mod shared;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    convert::Infallible,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    swarm::{
        CloseConnection, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler,
        THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
    },
};
use tokio::time::{Instant, Sleep};

use self::handler::Handler;
pub use self::shared::Expectation;
pub(super) use self::shared::Shared;
use super::{
    Config,
    filter::ip_of,
    room::{ByAddress, Memory},
};

/// How much longer the queue of graces may be than the graces in it: ended
/// connections leave it late, and a flood of short ones must not fill it.
const GRACE_QUEUE: usize = 4;

/// Of the inbound connections, one in this many is left to expected peers.
const RESERVED_SHARE: usize = 4;

struct Open {
    peer: PeerId,
    /// Where an inbound connection came from.
    from: Option<IpAddr>,
    /// A new inbound connection whose grace has not ended.
    grace: bool,
    /// Kept because its peer is expected.
    held: bool,
    /// What the handler was told last.
    told: bool,
}

/// The behaviour; see the module's description.
pub(super) struct Behaviour {
    shared: Arc<Shared>,
    grace: Duration,
    inbound_limit: usize,
    address_limit: usize,
    pending_limit: usize,
    kept_limit: usize,
    memory: Memory,
    open: HashMap<ConnectionId, Open>,
    by_peer: HashMap<PeerId, HashSet<ConnectionId>>,
    inbound_by_address: ByAddress,
    /// Inbound connections that are shaking hands.
    pending: HashMap<ConnectionId, IpAddr>,
    pending_by_address: ByAddress,
    inbound: usize,
    /// Connections in grace, oldest first; ended ones are skipped.
    in_grace: VecDeque<(Instant, ConnectionId)>,
    grace_count: usize,
    /// Connections kept because their peer is expected.
    held_count: usize,
    timer: Option<Pin<Box<Sleep>>>,
    orders: VecDeque<(PeerId, ConnectionId, bool)>,
}

impl Behaviour {
    pub(super) fn new(shared: Arc<Shared>, config: &Config) -> Self {
        Self {
            shared,
            grace: config.arrival_grace,
            inbound_limit: config.limits.inbound as usize,
            address_limit: config.limits.per_address,
            pending_limit: config.limits.pending_per_address,
            kept_limit: config.limits.kept_alive,
            memory: Memory::new(config.limits.memory_bytes),
            open: HashMap::new(),
            by_peer: HashMap::new(),
            inbound_by_address: ByAddress::default(),
            pending: HashMap::new(),
            pending_by_address: ByAddress::default(),
            inbound: 0,
            in_grace: VecDeque::new(),
            grace_count: 0,
            held_count: 0,
            timer: None,
            orders: VecDeque::new(),
        }
    }

    fn admit_pending(&mut self, id: ConnectionId, from: Option<IpAddr>) -> Result<(), ConnectionDenied> {
        let Some(ip) = from else { return Ok(()) };
        if self.pending_by_address.count(ip) >= self.pending_limit {
            return Err(ConnectionDenied::new(Full("this address has too many that are shaking hands")));
        }
        self.pending_by_address.add(ip);
        self.pending.insert(id, ip);
        Ok(())
    }

    fn no_longer_pending(&mut self, id: ConnectionId) {
        if let Some(ip) = self.pending.remove(&id) {
            self.pending_by_address.remove(ip);
        }
    }

    fn admit_inbound(&mut self, peer: &PeerId, from: Option<IpAddr>) -> Result<(), ConnectionDenied> {
        let here = from.map_or(0, |ip| self.inbound_by_address.count(ip));
        if self.shared.is_expected(peer) {
            return Ok(());
        }
        if self.memory.is_exceeded() {
            return Err(ConnectionDenied::new(Full("this process uses all the memory that it may")));
        }
        if here >= self.address_limit {
            return Err(ConnectionDenied::new(Full("this address has too many connections")));
        }
        if self.inbound >= self.inbound_limit - self.inbound_limit / RESERVED_SHARE {
            return Err(ConnectionDenied::new(Full("what is left is for expected peers")));
        }
        Ok(())
    }

    fn opened(&mut self, id: ConnectionId, peer: PeerId, from: Option<IpAddr>, inbound: bool) {
        self.by_peer.entry(peer).or_default().insert(id);
        if inbound {
            self.inbound += 1;
            from.into_iter().for_each(|ip| self.inbound_by_address.add(ip));
            if self.in_grace.len() >= GRACE_QUEUE * self.kept_limit {
                self.in_grace.retain(|(_, id)| self.open.get(id).is_some_and(|open| open.grace));
            }
            self.in_grace.push_back((Instant::now() + self.grace, id));
            self.grace_count += 1;
        }
        let from = from.filter(|_| inbound);
        // An inbound connection's handler starts out kept, an outbound one's not.
        self.open.insert(id, Open { peer, from, grace: inbound, held: false, told: inbound });
        let is_first = self.shared.opened(peer);
        self.review(id);
        if self.grace_count > self.kept_limit {
            self.end_oldest_grace();
        }
        if is_first {
            self.shared.announce(peer);
        }
    }

    fn closed(&mut self, id: ConnectionId, inbound: bool) {
        let Some(open) = self.open.remove(&id) else { return };
        if open.grace {
            self.grace_count -= 1;
        }
        if open.held {
            self.held_count -= 1;
        }
        if inbound {
            self.inbound -= 1;
            open.from.into_iter().for_each(|ip| self.inbound_by_address.remove(ip));
        }
        if let Some(ids) = self.by_peer.get_mut(&open.peer) {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_peer.remove(&open.peer);
            }
        }
        self.shared.closed(open.peer);
    }

    /// Decides whether a connection is kept and tells its handler of a change.
    fn review(&mut self, id: ConnectionId) {
        let Some(open) = self.open.get_mut(&id) else { return };
        let room = open.held || self.held_count < self.kept_limit;
        let held = room && self.shared.is_expected(&open.peer);
        self.held_count = self.held_count + usize::from(held) - usize::from(open.held);
        open.held = held;
        let keep = open.held || open.grace;
        if keep != open.told {
            open.told = keep;
            self.orders.push_back((open.peer, id, keep));
        }
        #[expect(clippy::cast_precision_loss, reason = "a gauge; the count is far below 2^52")]
        metrics::gauge!("pinfold_net_kept_connections").set((self.held_count + self.grace_count) as f64);
    }

    fn end_grace(&mut self, id: ConnectionId) {
        if let Some(open) = self.open.get_mut(&id).filter(|open| open.grace) {
            open.grace = false;
            self.grace_count -= 1;
            self.review(id);
        }
    }

    fn end_oldest_grace(&mut self) {
        while let Some((_, id)) = self.in_grace.pop_front() {
            if self.open.get(&id).is_some_and(|open| open.grace) {
                self.end_grace(id);
                return;
            }
        }
    }

    fn poll_graces(&mut self, cx: &mut Context<'_>) {
        while let Some((until, id)) = self.in_grace.front().copied() {
            let over = !self.open.get(&id).is_some_and(|open| open.grace);
            if over {
                self.in_grace.pop_front();
                continue;
            }
            let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
            if timer.deadline() != until {
                timer.as_mut().reset(until);
            }
            if timer.as_mut().poll(cx).is_pending() {
                return;
            }
            self.in_grace.pop_front();
            self.end_grace(id);
        }
    }

    fn poll_changes(&mut self) -> Option<PeerId> {
        let (changed, leave) = self.shared.take_changes();
        for peer in changed {
            let ids: Vec<ConnectionId> = self.by_peer.get(&peer).into_iter().flatten().copied().collect();
            ids.into_iter().for_each(|id| self.review(id));
        }
        leave
    }
}

#[derive(Debug, thiserror::Error)]
#[error("no more inbound connections are taken: {0}")]
struct Full(&'static str);

/// The address that counts for the cap: an IPv6 user has at least a /64.
fn source(address: &Multiaddr) -> Option<IpAddr> {
    ip_of(address).map(|ip| match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) >> 64 << 64).into()),
    })
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        id: ConnectionId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.admit_pending(id, source(remote))
    }

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.admit_inbound(&peer, source(remote))?;
        // Kept until the behaviour says otherwise: it is in grace.
        Ok(Handler { keep: true })
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler { keep: false })
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ListenFailure(e) => self.no_longer_pending(e.connection_id),
            FromSwarm::ConnectionEstablished(e) => {
                self.no_longer_pending(e.connection_id);
                let inbound = e.endpoint.is_listener();
                let from = source(e.endpoint.get_remote_address());
                self.opened(e.connection_id, e.peer_id, from, inbound);
            }
            FromSwarm::ConnectionClosed(e) => self.closed(e.connection_id, e.endpoint.is_listener()),
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Infallible, THandlerInEvent<Self>>> {
        self.shared.register(cx.waker());
        if let Some(peer_id) = self.poll_changes() {
            return Poll::Ready(ToSwarm::CloseConnection { peer_id, connection: CloseConnection::All });
        }
        self.poll_graces(cx);
        match self.orders.pop_front() {
            Some((peer_id, id, keep)) => {
                Poll::Ready(ToSwarm::NotifyHandler { peer_id, handler: NotifyHandler::One(id), event: keep })
            }
            None => Poll::Pending,
        }
    }
}

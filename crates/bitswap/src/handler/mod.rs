//! One connection.
//!
//! The handler runs on the task that drives its connection. There messages
//! are decoded, off the swarm's task, and blocks hashed beside it; wants and
//! answers are fetched from the [client](crate::client) and the [server] when
//! their streams can take more. Nothing goes through the swarm.

mod answers;
mod hashing;
mod inbound;
mod upgrade;
mod writer;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_timer::Delay;
use libp2p::PeerId;
use libp2p::swarm::handler::{
    ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
};
use libp2p::swarm::{
    ConnectionHandler, ConnectionHandlerEvent, ConnectionId, StreamUpgradeError, SubstreamProtocol,
};

use self::answers::Answers;
use self::hashing::{Batch as Unhashed, Hashing};
use self::inbound::{InboundError, Streams};
use self::upgrade::Upgrade;
use self::writer::{Progress, Writer};
use crate::client::Arrivals;
use crate::link::Link;
use crate::server;
use crate::shared::Shared;
use crate::wire::decode::DecodeError;
use crate::wire::{Item, Tail};

/// Bytes decoded before the connection may do something else.
const BUDGET: usize = 1 << 20;

/// Parts of messages, likewise.
const MAX_ITEMS: usize = 2_048;

/// How often timeouts are looked at while anything is open.
const HOUSEKEEPING: Duration = Duration::from_secs(5);

/// What a stream of ours is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Our wantlist.
    Wants,
    /// Answers to the peer's.
    Answers,
}

/// Speaks Bitswap over one connection.
pub struct Handler {
    link: Arc<Link>,
    shared: Arc<Shared>,
    inbound: Streams,
    hashing: Hashing,
    wants: Writer,
    answers: Answers,
    housekeeping: Option<Delay>,
}

impl std::fmt::Debug for Handler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handler").field("link", &self.link).finish_non_exhaustive()
    }
}

impl Handler {
    pub(crate) fn new(peer: PeerId, id: ConnectionId, shared: Arc<Shared>) -> Self {
        let link = Arc::new(Link::new(peer, id));
        shared.server.lock().connected(&link);
        shared.client.lock().connected(link.clone(), Instant::now());
        Self {
            inbound: Streams::new(link.clone(), shared.clone()),
            answers: Answers::new(link.clone(), shared.clone()),
            link,
            shared,
            hashing: Hashing::default(),
            wants: Writer::default(),
            housekeeping: None,
        }
    }

    /// Takes what has come, within a budget.
    fn receive(&mut self, cx: &mut Context<'_>, now: Instant) {
        let (mut arrivals, mut unhashed) = (Arrivals::default(), Unhashed::default());
        self.hashing.take_done(cx, &mut arrivals);
        let mut is_more = !self.hashing.is_full();
        for _ in 0..MAX_ITEMS {
            if !is_more || unhashed.bytes() >= BUDGET {
                break;
            }
            let Poll::Ready(received) = self.inbound.poll(cx, now) else {
                is_more = false;
                break;
            };
            match received {
                Ok(Item::Block { prefix, data }) => unhashed.push(prefix, data),
                Ok(Item::Skipped(length)) => count(&mut arrivals.skipped, length),
                Ok(Item::End(tail)) => {
                    self.shared.metrics.received_messages.increment(1);
                    self.take_wantlist(&tail);
                    arrivals.presences.extend(tail.presences);
                }
                Err(error) => {
                    self.hand_in(std::mem::take(&mut arrivals), now);
                    self.take_error(error, now);
                }
            }
        }
        self.hashing.hash(unhashed, &mut arrivals);
        // It wakes this task only once it has been polled.
        self.hashing.take_done(cx, &mut arrivals);
        self.hand_in(arrivals, now);
        if is_more {
            cx.waker().wake_by_ref();
        }
    }

    fn hand_in(&self, arrivals: Arrivals, now: Instant) {
        if !arrivals.is_empty() {
            self.shared.client.lock().arrived(self.link.peer, arrivals, now);
        }
    }

    fn take_wantlist(&self, tail: &Tail) {
        if tail.wants.is_empty() && !tail.full {
            return;
        }
        let peer = &self.link.peer;
        let noted = self.shared.server.lock().wantlist(peer, tail);
        let sizes = server::look_up(&*self.shared.blocks, peer, &noted);
        self.shared.server.lock().looked_up(peer, &sizes);
    }

    fn take_error(&self, error: InboundError, now: Instant) {
        tracing::debug!(peer = %self.link.peer, %error, "dropped an inbound stream");
        self.shared.metrics.dropped_streams.increment(1);
        let mut client = self.shared.client.lock();
        match error {
            InboundError::Decode(DecodeError::BlockTooLarge(_)) if client.needs(&self.link.peer) => {
                client.too_large(self.link.peer, now);
            }
            InboundError::Decode(_) => client.violation(self.link.peer, now),
            InboundError::Memory => {}
        }
    }

    /// Writes our wantlist; true when a stream is to be opened for it.
    fn drive_wants(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        while let Poll::Ready(progress) = self.wants.poll(cx) {
            match progress {
                Progress::NoStream => {
                    let wanted = self.wants.is_busy() || self.shared.client.lock().has_wants(&self.link);
                    return wanted && self.wants.request(now);
                }
                Progress::Idle(version) => {
                    let Some(message) = self.shared.client.lock().take_wants(&self.link, version, now) else {
                        return false;
                    };
                    self.wants.start(vec![message], now);
                }
                Progress::Written => self.shared.metrics.sent_messages.increment(1),
                Progress::Closed => self.shared.client.lock().wantlist_lost(&self.link.peer, false, now),
                Progress::GivenUp => self.shared.client.lock().wantlist_lost(&self.link.peer, true, now),
            }
        }
        false
    }

    /// Ends what takes too long.
    fn keep_house(&mut self, cx: &mut Context<'_>, now: Instant) {
        let writers = [&self.wants, &self.answers.writer];
        let needed =
            !self.inbound.is_empty() || writers.iter().any(|writer| writer.is_busy() || writer.is_waiting());
        if !needed {
            self.housekeeping = None;
            return;
        }
        let delay = self.housekeeping.get_or_insert_with(|| Delay::new(HOUSEKEEPING));
        while Pin::new(&mut *delay).poll(cx).is_ready() {
            self.inbound.close_idle(now);
            self.wants.check_deadline(now);
            self.answers.writer.check_deadline(now);
            delay.reset(HOUSEKEEPING);
            cx.waker().wake_by_ref();
        }
    }

    fn on_not_opened(&mut self, purpose: Purpose, error: &StreamUpgradeError<Infallible>) {
        let now = Instant::now();
        if matches!(error, StreamUpgradeError::NegotiationFailed) {
            self.shared.client.lock().unsupported(&self.link.peer, now);
            self.shared.server.lock().give_up(&self.link.peer);
        }
        match purpose {
            Purpose::Wants => self.wants.not_opened(now),
            Purpose::Answers => self.answers.writer.not_opened(now),
        }
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        self.answers.give_back();
        self.shared.server.lock().disconnected(&self.link.peer, self.link.id);
        self.shared.client.lock().disconnected(&self.link.peer, self.link.id, Instant::now());
    }
}

fn count((blocks, bytes): &mut (usize, usize), length: usize) {
    *blocks += 1;
    *bytes += length;
}

fn request(purpose: Purpose) -> ConnectionHandlerEvent<Upgrade, Purpose, Infallible> {
    ConnectionHandlerEvent::OutboundSubstreamRequest { protocol: SubstreamProtocol::new(Upgrade, purpose) }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Infallible;
    type ToBehaviour = Infallible;
    type InboundProtocol = Upgrade;
    type OutboundProtocol = Upgrade;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Purpose;

    fn listen_protocol(&self) -> SubstreamProtocol<Upgrade> {
        SubstreamProtocol::new(Upgrade, ())
    }

    fn connection_keep_alive(&self) -> bool {
        self.answers.is_busy()
            || self.wants.is_busy()
            || self.shared.client.lock().needs(&self.link.peer)
            || self.shared.server.lock().has_answers(&self.link.peer)
    }

    fn on_behaviour_event(&mut self, event: Infallible) {
        match event {}
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<Upgrade, Purpose, Infallible>> {
        self.link.register(cx.waker());
        let now = Instant::now();
        self.receive(cx, now);
        if self.drive_wants(cx, now) {
            return Poll::Ready(request(Purpose::Wants));
        }
        if self.answers.drive(cx, now) {
            return Poll::Ready(request(Purpose::Answers));
        }
        self.keep_house(cx, now);
        Poll::Pending
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Upgrade, Upgrade, (), Purpose>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: (stream, _), ..
            }) => self.inbound.push(stream, Instant::now()),
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: (stream, version),
                info,
            }) => match info {
                Purpose::Wants => self.wants.opened(stream, version),
                Purpose::Answers => self.answers.writer.opened(stream, version),
            },
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) => {
                self.on_not_opened(info, &error);
            }
            // Nothing depends on addresses or on other protocols.
            _ => {}
        }
    }
}

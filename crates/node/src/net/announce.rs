//! Sends ADD_PROVIDER to chosen DHT servers, many keys over one stream.
//!
//! libp2p's kad walks the DHT anew for each key that it provides. A sweep
//! finds the servers of a whole region of the key space with one walk, and
//! then only has to tell each of them all of the region's keys: that is what
//! this behaviour does. The message has no answer; a stream that could be
//! written and closed counts as done.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    convert::Infallible,
    io,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::{AsyncWriteExt, FutureExt, future::BoxFuture};
use libp2p::{
    Multiaddr, PeerId, Stream,
    core::{
        Endpoint,
        transport::PortUse,
        upgrade::{DeniedUpgrade, ReadyUpgrade},
    },
    swarm::{
        ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm,
        NetworkBehaviour, NotifyHandler, StreamProtocol, SubstreamProtocol, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm,
        dial_opts::{DialOpts, PeerCondition},
        handler::ConnectionEvent,
    },
};
use tokio::sync::oneshot;

use super::behaviour::DHT_PROTOCOL;

/// Messages to peers that wait for a connection or a stream. The sweep sends
/// to twenty peers at a time; what exceeds the bound is dropped unsent.
const MAX_JOBS: usize = 256;

/// How long writing one peer's messages may take.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// What one DHT server is told.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) peer: PeerId,
    pub(super) addresses: Vec<Multiaddr>,
    /// Messages, each after its length.
    pub(super) messages: Bytes,
    /// True once all is written.
    pub(super) done: oneshot::Sender<bool>,
}

/// The ADD_PROVIDER message for one key, after its length.
///
/// `Message { type: ADD_PROVIDER = 2 (1), key (2), providerPeers (9): Peer {
/// id (1), addrs (2) } }` of the Kademlia specification.
pub(super) fn add_provider(key: &[u8], provider: &PeerId, addresses: &[Multiaddr], to: &mut Vec<u8>) {
    let mut peer = Vec::new();
    field(1, &provider.to_bytes(), &mut peer);
    for address in addresses {
        field(2, &address.to_vec(), &mut peer);
    }
    let mut message = vec![1 << 3, 2];
    field(2, key, &mut message);
    field(9, &peer, &mut message);
    varint(message.len(), to);
    to.extend_from_slice(&message);
}

fn field(number: u8, bytes: &[u8], to: &mut Vec<u8>) {
    const LENGTH_DELIMITED: u8 = 2;
    to.push(number << 3 | LENGTH_DELIMITED);
    varint(bytes.len(), to);
    to.extend_from_slice(bytes);
}

fn varint(mut value: usize, to: &mut Vec<u8>) {
    while value >= 0x80 {
        to.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

/// See the module's description.
#[derive(Default)]
pub(super) struct Behaviour {
    waiting: HashMap<PeerId, Vec<Job>>,
    connected: HashSet<PeerId>,
    orders: VecDeque<ToSwarm<Infallible, Job>>,
    jobs: usize,
}

impl Behaviour {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Sends, connecting first where needed. Beyond the bound the job is
    /// dropped, which its `done` channel tells.
    pub(super) fn send(&mut self, job: Job) {
        if self.jobs + self.orders.len() >= MAX_JOBS {
            return;
        }
        let peer = job.peer;
        if self.connected.contains(&peer) {
            self.hand_over(job);
            return;
        }
        let opts = DialOpts::peer_id(peer)
            .condition(PeerCondition::DisconnectedAndNotDialing)
            .addresses(job.addresses.clone())
            .extend_addresses_through_behaviour()
            .build();
        self.waiting.entry(peer).or_default().push(job);
        self.jobs += 1;
        self.orders.push_back(ToSwarm::Dial { opts });
    }

    fn hand_over(&mut self, job: Job) {
        let (peer_id, handler) = (job.peer, NotifyHandler::Any);
        self.orders.push_back(ToSwarm::NotifyHandler { peer_id, handler, event: job });
    }

    fn take_waiting(&mut self, peer: &PeerId) -> Vec<Job> {
        let jobs = self.waiting.remove(peer).unwrap_or_default();
        self.jobs -= jobs.len();
        jobs
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::default())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::default())
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(e) => {
                self.connected.insert(e.peer_id);
                for job in self.take_waiting(&e.peer_id) {
                    self.hand_over(job);
                }
            }
            FromSwarm::ConnectionClosed(e) if e.remaining_established == 0 => {
                self.connected.remove(&e.peer_id);
            }
            // A dial that another behaviour has under way fails ours with a
            // condition; its own outcome follows.
            FromSwarm::DialFailure(e)
                if !matches!(e.error, libp2p::swarm::DialError::DialPeerConditionFalse(_)) =>
            {
                if let Some(peer) = e.peer_id {
                    self.take_waiting(&peer);
                }
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Infallible, THandlerInEvent<Self>>> {
        // Jobs come from the task that polls, so that there is nobody to wake.
        self.orders.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}

/// Writes jobs, one stream each.
#[derive(Default)]
pub(super) struct Handler {
    queued: VecDeque<Job>,
    opening: VecDeque<Job>,
    writing: Option<BoxFuture<'static, ()>>,
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Job;
    type ToBehaviour = Infallible;
    type InboundProtocol = DeniedUpgrade;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<DeniedUpgrade> {
        SubstreamProtocol::new(DeniedUpgrade, ())
    }

    fn connection_keep_alive(&self) -> bool {
        self.writing.is_some() || !self.queued.is_empty() || !self.opening.is_empty()
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, (), Infallible>> {
        if let Some(writing) = &mut self.writing {
            match writing.poll_unpin(cx) {
                Poll::Ready(()) => self.writing = None,
                Poll::Pending => return Poll::Pending,
            }
        }
        // One stream at a time: the next is opened when this one is written.
        if self.opening.is_empty()
            && let Some(job) = self.queued.pop_front()
        {
            self.opening.push_back(job);
            let protocol = SubstreamProtocol::new(ReadyUpgrade::new(DHT_PROTOCOL), ());
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, job: Job) {
        self.queued.push_back(job);
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, DeniedUpgrade, Self::OutboundProtocol>) {
        match event {
            ConnectionEvent::FullyNegotiatedOutbound(negotiated) => {
                if let Some(job) = self.opening.pop_front() {
                    self.writing = Some(write(negotiated.protocol, job).boxed());
                }
            }
            // Dropping the job tells its owner.
            ConnectionEvent::DialUpgradeError(_) => drop(self.opening.pop_front()),
            _ => {}
        }
    }
}

async fn write(mut stream: Stream, job: Job) {
    let written = async {
        stream.write_all(&job.messages).await?;
        stream.close().await?;
        io::Result::Ok(())
    };
    let written = tokio::time::timeout(WRITE_TIMEOUT, written).await;
    // The sweep may have ended meanwhile.
    let _ = job.done.send(matches!(written, Ok(Ok(()))));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_is_the_specified_protobuf() {
        let provider = PeerId::from_bytes(&[0, 2, 8, 1]).unwrap();
        let mut bytes = Vec::new();
        add_provider(&[0x12, 0x01, 0xff], &provider, &["/ip4/1.2.3.4/tcp/80".parse().unwrap()], &mut bytes);
        let peer = [&[0x0a, 4, 0, 2, 8, 1][..], &[0x12, 8, 4, 1, 2, 3, 4, 6, 0, 80]].concat();
        let mut expected = vec![8, 2, 0x12, 3, 0x12, 1, 0xff, 0x4a, peer.len() as u8];
        expected.extend(peer);
        expected.insert(0, expected.len() as u8);
        assert_eq!(bytes, expected);
    }
}

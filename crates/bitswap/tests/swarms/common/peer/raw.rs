//! A peer whose Bitswap is written by the test: it opens streams, gets those
//! that are opened to it, and puts on them what it likes.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::task::{Context, Poll};

use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo};
use libp2p::swarm::handler::{ConnectionEvent, FullyNegotiatedInbound, FullyNegotiatedOutbound};
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour,
    NotifyHandler, StreamProtocol, SubstreamProtocol, SwarmEvent, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId, Stream};
use prost::Message as _;
use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::proto::{Block, Entry, Message, Presence, Wantlist};
use super::{EVENTS, MAX_STREAMS, PATIENCE, listen, swarm};

/// The prefix of a raw block hashed with SHA-256.
const PREFIX: [u8; 4] = [1, 0x55, 0x12, 32];

/// Yields the stream, of one protocol.
#[derive(Clone, Debug)]
struct Protocol(StreamProtocol);

impl UpgradeInfo for Protocol {
    type Info = StreamProtocol;
    type InfoIter = std::iter::Once<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        std::iter::once(self.0.clone())
    }
}

macro_rules! upgrade {
    ($name:ident, $method:ident) => {
        impl $name<Stream> for Protocol {
            type Output = Stream;
            type Error = Infallible;
            type Future = std::future::Ready<Result<Stream, Infallible>>;

            fn $method(self, stream: Stream, _: StreamProtocol) -> Self::Future {
                std::future::ready(Ok(stream))
            }
        }
    };
}
upgrade!(InboundUpgrade, upgrade_inbound);
upgrade!(OutboundUpgrade, upgrade_outbound);

struct Handler {
    protocol: StreamProtocol,
    inbound: mpsc::Sender<Stream>,
    requested: VecDeque<oneshot::Sender<Stream>>,
}

/// Asks for a stream.
struct Open(oneshot::Sender<Stream>);

impl std::fmt::Debug for Open {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Open")
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Open;
    type ToBehaviour = Infallible;
    type InboundProtocol = Protocol;
    type OutboundProtocol = Protocol;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Option<oneshot::Sender<Stream>>;

    fn listen_protocol(&self) -> SubstreamProtocol<Protocol> {
        SubstreamProtocol::new(Protocol(self.protocol.clone()), ())
    }

    fn connection_keep_alive(&self) -> bool {
        true
    }

    fn on_behaviour_event(&mut self, Open(stream): Open) {
        self.requested.push_back(stream);
    }

    fn poll(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Protocol, Option<oneshot::Sender<Stream>>, Infallible>> {
        match self.requested.pop_front() {
            Some(stream) => Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest {
                protocol: SubstreamProtocol::new(Protocol(self.protocol.clone()), Some(stream)),
            }),
            None => Poll::Pending,
        }
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Protocol, Protocol, (), Option<oneshot::Sender<Stream>>>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, .. }) => {
                let _ = self.inbound.try_send(protocol);
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol, info }) => {
                let _ = info.expect("every stream was asked for").send(protocol);
            }
            _ => {}
        }
    }
}

struct Behaviour {
    protocol: StreamProtocol,
    inbound: mpsc::Sender<Stream>,
    peer: Option<PeerId>,
    opens: mpsc::Receiver<oneshot::Sender<Stream>>,
}

impl Behaviour {
    fn handler(&mut self, peer: PeerId) -> Handler {
        self.peer = Some(peer);
        Handler { protocol: self.protocol.clone(), inbound: self.inbound.clone(), requested: VecDeque::new() }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(peer))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(peer))
    }

    fn on_swarm_event(&mut self, _: FromSwarm) {}

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Infallible, THandlerInEvent<Self>>> {
        let Some(peer_id) = self.peer else { return Poll::Pending };
        match self.opens.poll_recv(cx) {
            Poll::Ready(Some(stream)) => Poll::Ready(ToSwarm::NotifyHandler {
                peer_id,
                handler: NotifyHandler::Any,
                event: Open(stream),
            }),
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

/// A peer whose Bitswap the test writes. It knows one other peer.
pub(crate) struct Raw {
    pub(crate) peer: PeerId,
    pub(crate) address: Multiaddr,
    /// Streams that the other peer has opened.
    pub(crate) inbound: mpsc::Receiver<Stream>,
    opens: mpsc::Sender<oneshot::Sender<Stream>>,
    gone: mpsc::Receiver<()>,
    task: JoinHandle<()>,
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Raw {
    pub(crate) async fn start(protocol: &'static str) -> Self {
        let (inbound_sender, inbound) = mpsc::channel(MAX_STREAMS);
        let (opens, opens_receiver) = mpsc::channel(MAX_STREAMS);
        let (gone_sender, gone) = mpsc::channel(EVENTS);
        let mut swarm = swarm(Behaviour {
            protocol: StreamProtocol::new(protocol),
            inbound: inbound_sender,
            peer: None,
            opens: opens_receiver,
        });
        let address = listen(&mut swarm).await;
        let peer = *swarm.local_peer_id();
        let task = tokio::spawn(async move {
            loop {
                if let SwarmEvent::ConnectionClosed { .. } = swarm.select_next_some().await {
                    let _ = gone_sender.try_send(());
                }
            }
        });
        Self { peer, address, inbound, opens, gone, task }
    }

    /// A stream that the other peer opens.
    pub(crate) async fn accept(&mut self) -> Stream {
        tokio::time::timeout(PATIENCE, self.inbound.recv()).await.expect("a stream in time").expect("runs")
    }

    /// Opens a stream to the other peer.
    pub(crate) async fn open(&self) -> Stream {
        let (sender, receiver) = oneshot::channel();
        self.opens.send(sender).await.expect("runs");
        tokio::time::timeout(PATIENCE, receiver).await.expect("a stream in time").expect("connected")
    }

    /// Sends a message on a stream of its own, as boxo does.
    pub(crate) async fn send(&self, message: &Message) {
        let mut stream = self.open().await;
        stream.write_all(&message.encode_length_delimited_to_vec()).await.expect("the stream is open");
        stream.close().await.expect("the stream is open");
    }

    /// As [`Raw::send`], to a peer that may refuse it or be gone.
    pub(crate) async fn try_send(&self, message: &Message) -> std::io::Result<()> {
        let gone = || std::io::Error::other("the other peer is gone");
        let (sender, receiver) = oneshot::channel();
        self.opens.send(sender).await.map_err(|_| gone())?;
        let mut stream = receiver.await.map_err(|_| gone())?;
        stream.write_all(&message.encode_length_delimited_to_vec()).await?;
        stream.close().await
    }

    /// Waits until the other peer has disconnected.
    pub(crate) async fn disconnected(&mut self) {
        tokio::time::timeout(PATIENCE, self.gone.recv()).await.expect("disconnected in time").expect("runs");
    }
}

/// Reads a message.
pub(crate) async fn read(stream: &mut Stream) -> std::io::Result<Message> {
    let (mut length, mut shift) = (0usize, 0);
    loop {
        let mut byte = [0];
        stream.read_exact(&mut byte).await?;
        length |= usize::from(byte[0] & 0x7f) << shift;
        shift += 7;
        if byte[0] & 0x80 == 0 {
            break;
        }
    }
    assert!(length <= 4 << 20, "a message of {length} bytes");
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await?;
    Ok(Message::decode(&bytes[..]).expect("a valid message"))
}

/// Reads a message within a test's patience.
pub(crate) async fn read_soon(stream: &mut Stream) -> Message {
    tokio::time::timeout(PATIENCE, read(stream))
        .await
        .expect("a message in time")
        .expect("the stream is open")
}

/// A message with raw blocks.
pub(crate) fn blocks<'a>(datas: impl IntoIterator<Item = &'a [u8]>) -> Message {
    let payload = datas.into_iter().map(|data| Block { prefix: PREFIX.to_vec(), data: data.to_vec() });
    Message { payload: payload.collect(), ..Message::default() }
}

/// A message that wants blocks.
pub(crate) fn wants(datas: impl IntoIterator<Item = Vec<u8>>) -> Message {
    let entries =
        datas.into_iter().map(|cid| Entry { cid, priority: 1, send_dont_have: true, ..Entry::default() });
    Message { wantlist: Some(Wantlist { entries: entries.collect(), full: false }), ..Message::default() }
}

/// A message that says HAVE of a block.
pub(crate) fn have(cid: Vec<u8>) -> Message {
    Message { presences: vec![Presence { cid, kind: 0 }], ..Message::default() }
}

/// The CID of raw data, as bytes.
pub(crate) fn name(data: &[u8]) -> Vec<u8> {
    [&PREFIX[..], &Sha256::digest(data)[..]].concat()
}

/// Entries that want something, not cancels.
pub(crate) fn wanted(message: &Message) -> Vec<Entry> {
    let entries = message.wantlist.iter().flat_map(|list| &list.entries);
    entries.filter(|entry| !entry.cancel).cloned().collect()
}

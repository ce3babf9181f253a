//! The transports, from the outside in:
//!
//! ```text
//! /dnsaddr ─┬─ WebSocket ── TLS for wss ── /dns ── filter ── TCP
//!           └─ /dns ─┬─ filter ── TCP
//!                    └─ filter ── QUIC v1
//! ```
//!
//! Assembled by hand because the filter must sit below name resolution on
//! every path, and WebSocket above it.

use std::{io, time::Duration};

use futures::io::{AsyncRead, AsyncWrite};
use libp2p::{
    Multiaddr, PeerId,
    core::{
        muxing::StreamMuxerBox,
        transport::{Boxed, OrTransport, Transport, timeout::TransportTimeout},
        upgrade::Version,
    },
    identity::Keypair,
    multiaddr::Protocol,
    quic, tcp, yamux,
};

use super::{
    StartError,
    dns::{Names, Resolver, Resolving},
    filter::{Filtered, Policy},
    muxer::Streams,
    security::Security,
    websocket::{Dialler, MAX_MESSAGE, Tunnel},
};

/// How long a connection may take from the first packet (or lookup) until it
/// is encrypted and multiplexed, either way.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);

/// Streams that yamux reckons with. Its receive windows share 1 GiB, 256 KiB
/// each at least, and grow into what is left: with 4,096 nothing is left, so a
/// window stays at 256 KiB and a sender that respects it never sends a frame
/// over 1 MiB, which this yamux would refuse. What peers may really open is
/// bounded far lower, in the muxer.
const YAMUX_STREAMS: usize = 4096;

/// Receive window of one QUIC stream: what one peer can make us hold per
/// stream while nobody reads it.
const QUIC_STREAM_WINDOW: u32 = 2 << 20;

/// Receive window of one QUIC connection.
const QUIC_CONNECTION_WINDOW: u32 = 8 << 20;

type Connection = (PeerId, StreamMuxerBox);

/// All transports in one; `tls` is for the servers of WebSocket.
pub(super) fn build(
    key: &Keypair,
    policy: &std::sync::Arc<Policy>,
    resolver: &Resolver,
    streams: &Streams,
    tls: rustls::ClientConfig,
) -> Result<Boxed<Connection>, StartError> {
    let security = Security::new(key)?;
    let filtered_tcp = || Filtered::new(tcp::tokio::Transport::new(tcp::Config::default()), policy.clone());
    let hosts = |inner| Resolving::new(inner, resolver.clone(), Names::Hosts);

    let mut websocket = libp2p::websocket::Config::new(Tunnel::new(hosts(filtered_tcp()), tls));
    websocket.set_max_data_size(MAX_MESSAGE as usize);
    let websocket = encrypted(Dialler(websocket), security.clone(), streams.clone());

    let tcp = encrypted(filtered_tcp(), security, streams.clone());
    let quic = Filtered::new(quic::tokio::Transport::new(quic_config(key)), policy.clone());
    let counted = streams.clone();
    let quic = quic.map(move |(peer, muxer), _| (peer, StreamMuxerBox::new(counted.limit(muxer)))).boxed();
    let direct = Resolving::new(or(tcp, quic), resolver.clone(), Names::Hosts).boxed();

    let all = Resolving::new(or(websocket, direct), resolver.clone(), Names::Dnsaddr);
    Ok(TransportTimeout::new(all, HANDSHAKE_TIMEOUT).boxed())
}

fn or(first: Boxed<Connection>, second: Boxed<Connection>) -> Boxed<Connection> {
    OrTransport::new(first, second).map(|either, _| either.into_inner()).boxed()
}

fn encrypted<T, C>(transport: T, security: Security, streams: Streams) -> Boxed<Connection>
where
    T: Transport<Output = C> + Send + Unpin + 'static,
    T::Error: Send + Sync + 'static,
    T::Dial: Send + 'static,
    T::ListenerUpgrade: Send + 'static,
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut yamux = yamux::Config::default();
    yamux.set_max_num_streams(YAMUX_STREAMS);
    transport
        .upgrade(Version::V1Lazy)
        .authenticate(security)
        .multiplex(yamux)
        .map(move |(peer, muxer), _| (peer, StreamMuxerBox::new(streams.limit(muxer))))
        .map_err(io::Error::other)
        .boxed()
}

fn quic_config(key: &Keypair) -> quic::Config {
    let mut config = quic::Config::new(key);
    config.max_stream_data = QUIC_STREAM_WINDOW;
    config.max_connection_data = QUIC_CONNECTION_WINDOW;
    config
}

/// Whether an address has a form that [`build`]'s transports dial. Relays,
/// WebTransport and WebRTC are not among them.
pub(super) fn is_dialable(address: &Multiaddr) -> bool {
    let mut parts: Vec<Protocol<'_>> = address.iter().collect();
    if matches!(parts.last(), Some(Protocol::P2p(_))) {
        parts.pop();
    }
    use Protocol as P;
    match parts.as_slice() {
        [P::Dnsaddr(_)] => true,
        [P::Ip4(_) | P::Ip6(_) | P::Dns(_) | P::Dns4(_) | P::Dns6(_), rest @ ..] => match rest {
            [P::Tcp(port) | P::Udp(port), ..] if *port == 0 => false,
            [P::Tcp(_)] | [P::Tcp(_), P::Ws(_) | P::Wss(_)] | [P::Udp(_), P::QuicV1] => true,
            [P::Tcp(_), P::Tls, P::Ws(_)] | [P::Tcp(_), P::Tls, P::Sni(_), P::Ws(_)] => true,
            _ => false,
        },
        _ => false,
    }
}

/// Whether an address leads over TCP, which moves more than QUIC for the same
/// processor time and is therefore tried first.
pub(super) fn is_tcp(address: &Multiaddr) -> bool {
    !address.iter().any(|part| matches!(part, Protocol::Udp(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dialable_forms() {
        let check = |text: &str, expected| {
            let address: Multiaddr = text.parse().unwrap();
            assert_eq!(is_dialable(&address), expected, "{text}");
        };
        let peer = PeerId::random();
        for text in
            ["/ip4/1.2.3.4/tcp/1", "/dns4/a.example/tcp/443/wss", "/ip6/::1/udp/1/quic-v1", "/dnsaddr/x"]
        {
            check(text, true);
            check(&format!("{text}/p2p/{peer}"), true);
        }
        check("/dns/a.example/tcp/443/tls/sni/a.example/ws", true);
        check("/ip4/1.2.3.4/tcp/0", false);
        check("/ip4/1.2.3.4/udp/1/quic-v1/webtransport", false);
        check("/ip4/1.2.3.4/udp/1/webrtc-direct", false);
        check("/unix/tmp", false);
        check(&format!("/ip4/1.2.3.4/tcp/1/p2p/{peer}/p2p-circuit/p2p/{peer}"), false);
    }
}

//! WebSocket, with a bound on what a server may make us hold.
//!
//! libp2p's WebSocket transport bounds messages of those who dial us, but a
//! server that we dial may announce a frame of 256 MiB, and the memory for it
//! is taken at once. So the bytes pass a [`Guarded`] stream on their way up,
//! which ends the connection at the header of a frame that is too large. It
//! has to sit between TLS and WebSocket; therefore TLS is done here, and the
//! transport above is told that the address is a plain one.
//!
//! ```text
//! Dialler (wss → https/ws) ── libp2p WebSocket ── Tunnel (TLS, Guarded) ── TCP
//! ```

mod guarded;

use std::{
    io,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures::{
    FutureExt, TryFutureExt,
    future::{BoxFuture, Either},
    io::{AsyncRead, AsyncWrite},
};
use futures_rustls::{TlsConnector, client::TlsStream, rustls};
use libp2p::{
    Multiaddr,
    core::transport::{DialOpts, ListenerId, Transport, TransportError, TransportEvent},
    multiaddr::Protocol,
};
use rustls::pki_types::ServerName;

use self::guarded::Guarded;
pub(super) use self::guarded::MAX_MESSAGE;

/// Turns `/tls/ws` and `/wss` into `/https/ws`, which libp2p's WebSocket takes
/// for plain and [`Tunnel`] encrypts. Plain addresses stay as they are.
fn plain(address: &Multiaddr) -> Multiaddr {
    let mut plain = Multiaddr::empty();
    for part in address.iter() {
        match part {
            Protocol::Tls => {}
            Protocol::Wss(path) => plain = plain.with(Protocol::Https).with(Protocol::Ws(path)),
            Protocol::Ws(_) if is_encrypted(address) => plain = plain.with(Protocol::Https).with(part),
            other => plain.push(other),
        }
    }
    plain
}

fn is_encrypted(address: &Multiaddr) -> bool {
    address.iter().any(|part| matches!(part, Protocol::Tls))
}

/// What [`Tunnel`] is to do for an address without its `/ws`: the address
/// that is dialled, and the name that the certificate must bear.
fn split(address: Multiaddr) -> io::Result<(Multiaddr, Option<ServerName<'static>>)> {
    if !address.iter().any(|part| matches!(part, Protocol::Https)) {
        return Ok((address, None));
    }
    let mut name = None;
    let mut inner = Multiaddr::empty();
    for part in address.iter() {
        match &part {
            Protocol::Https => continue,
            Protocol::Sni(host) => {
                name = Some(server_name(host)?);
                continue;
            }
            Protocol::Dns(host) | Protocol::Dns4(host) | Protocol::Dns6(host) if name.is_none() => {
                name = Some(server_name(host)?);
            }
            Protocol::Ip4(ip) if name.is_none() => name = Some(ServerName::from(IpAddr::from(*ip))),
            Protocol::Ip6(ip) if name.is_none() => name = Some(ServerName::from(IpAddr::from(*ip))),
            _ => {}
        }
        inner.push(part);
    }
    Ok((inner, name))
}

fn server_name(host: &str) -> io::Result<ServerName<'static>> {
    ServerName::try_from(host.to_owned()).map_err(io::Error::other)
}

/// Outermost: dials with the address made plain.
pub(super) struct Dialler<T>(pub(super) T);

impl<T: Transport + Unpin> Transport for Dialler<T> {
    type Output = T::Output;
    type Error = T::Error;
    type ListenerUpgrade = T::ListenerUpgrade;
    type Dial = T::Dial;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<T::Error>> {
        self.0.listen_on(id, address)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.0.remove_listener(id)
    }

    fn dial(&mut self, address: Multiaddr, opts: DialOpts) -> Result<T::Dial, TransportError<T::Error>> {
        self.0.dial(plain(&address), opts)
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<T::ListenerUpgrade, T::Error>> {
        Pin::new(&mut self.0).poll(cx)
    }
}

/// A TCP stream, encrypted or not, that is guarded or not.
pub(super) type Tunnelled<S> = Guarded<Either<TlsStream<S>, S>>;

/// Innermost: TCP, with TLS where the address asks for it.
pub(super) struct Tunnel<T> {
    inner: T,
    tls: TlsConnector,
}

impl<T> Tunnel<T> {
    pub(super) fn new(inner: T, mut tls: rustls::ClientConfig) -> Self {
        // WebSocket begins as HTTP/1.1.
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self { inner, tls: TlsConnector::from(Arc::new(tls)) }
    }
}

impl<T, S> Transport for Tunnel<T>
where
    T: Transport<Output = S, Error = io::Error> + Unpin,
    T::Dial: Send + 'static,
    T::ListenerUpgrade: Send + 'static,
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Output = Tunnelled<S>;
    type Error = io::Error;
    type ListenerUpgrade = BoxFuture<'static, io::Result<Self::Output>>;
    type Dial = BoxFuture<'static, io::Result<Self::Output>>;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<io::Error>> {
        self.inner.listen_on(id, address)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.inner.remove_listener(id)
    }

    fn dial(&mut self, address: Multiaddr, opts: DialOpts) -> Result<Self::Dial, TransportError<io::Error>> {
        let (address, name) = split(address).map_err(TransportError::Other)?;
        let (dial, tls) = (self.inner.dial(address, opts)?, self.tls.clone());
        Ok(async move {
            let stream = dial.await?;
            let stream = match name {
                Some(name) => Either::Left(tls.connect(name, stream).await?),
                None => Either::Right(stream),
            };
            Ok(Guarded::watched(stream))
        }
        .boxed())
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
        Pin::new(&mut self.inner).poll(cx).map(|event| {
            // libp2p bounds the messages of inbound connections itself.
            let unguarded = |stream| Guarded::new(Either::Right(stream));
            event.map_upgrade(|upgrade| upgrade.map_ok(unguarded).boxed())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_made_plain_and_split_again() {
        let check = |text: &str, made: &str, inner: &str, name: Option<&str>| {
            let plain = plain(&text.parse().unwrap());
            assert_eq!(plain, made.parse().unwrap(), "{text}");
            let below = plain.iter().filter(|part| !matches!(part, Protocol::Ws(_))).collect();
            let (address, found) = split(below).unwrap();
            assert_eq!(address, inner.parse().unwrap(), "{text}");
            assert_eq!(found, name.map(|name| ServerName::try_from(name.to_owned()).unwrap()), "{text}");
        };
        check("/ip4/1.2.3.4/tcp/1/ws", "/ip4/1.2.3.4/tcp/1/ws", "/ip4/1.2.3.4/tcp/1", None);
        let (inner, made) = ("/dns/a.test/tcp/443", "/dns/a.test/tcp/443/https/ws");
        check("/dns/a.test/tcp/443/wss", made, inner, Some("a.test"));
        check("/dns/a.test/tcp/443/tls/ws", made, inner, Some("a.test"));
        check(
            "/dns/a.test/tcp/443/tls/sni/b.test/ws",
            "/dns/a.test/tcp/443/sni/b.test/https/ws",
            inner,
            Some("b.test"),
        );
        check(
            "/ip4/1.2.3.4/tcp/1/tls/ws",
            "/ip4/1.2.3.4/tcp/1/https/ws",
            "/ip4/1.2.3.4/tcp/1",
            Some("1.2.3.4"),
        );
    }
}

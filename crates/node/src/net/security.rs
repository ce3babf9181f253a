//! Encryption of TCP and WebSocket connections: TLS 1.3, else Noise.
//!
//! TLS is offered first: its AES-GCM runs on the processor's own instructions,
//! which costs less than Noise's ChaCha20. Kubo prefers it as well. Peers
//! without it (browsers, most of js-libp2p) get Noise.

use std::{array, io};

use futures::{
    FutureExt, TryFutureExt,
    future::{BoxFuture, Either},
    io::{AsyncRead, AsyncWrite},
};
use libp2p::{
    PeerId,
    core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo},
    identity::Keypair,
    noise, tls,
};

use super::{StartError, tls::Client};

const TLS: &str = "/tls/1.0.0";
const NOISE: &str = "/noise";

/// TLS or Noise, as the two sides agree.
#[derive(Clone)]
pub(super) struct Security {
    server: tls::Config,
    client: Client,
    noise: noise::Config,
}

impl Security {
    pub(super) fn new(key: &Keypair) -> Result<Self, StartError> {
        let server = tls::Config::new(key).map_err(|e| StartError::Key(e.to_string()))?;
        let noise = noise::Config::new(key).map_err(|e| StartError::Key(e.to_string()))?;
        Ok(Self { server, client: Client::new(key)?, noise })
    }
}

impl UpgradeInfo for Security {
    type Info = &'static str;
    type InfoIter = array::IntoIter<&'static str, 2>;

    fn protocol_info(&self) -> Self::InfoIter {
        [TLS, NOISE].into_iter()
    }
}

/// An encrypted stream.
pub(super) type Encrypted<C> = Either<tls::TlsStream<C>, noise::Output<C>>;

impl<C> InboundConnectionUpgrade<C> for Security
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Output = (PeerId, Encrypted<C>);
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Output>>;

    fn upgrade_inbound(self, socket: C, info: Self::Info) -> Self::Future {
        match info {
            TLS => self
                .server
                .upgrade_inbound(socket, info)
                .map_ok(|(peer, stream)| (peer, Either::Left(stream)))
                .map_err(io::Error::other)
                .boxed(),
            _ => self
                .noise
                .upgrade_inbound(socket, info)
                .map_ok(|(peer, stream)| (peer, Either::Right(stream)))
                .map_err(io::Error::other)
                .boxed(),
        }
    }
}

impl<C> OutboundConnectionUpgrade<C> for Security
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Output = (PeerId, Encrypted<C>);
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Output>>;

    fn upgrade_outbound(self, socket: C, info: Self::Info) -> Self::Future {
        match info {
            TLS => self.client.connect(socket).map_ok(|(peer, stream)| (peer, Either::Left(stream))).boxed(),
            _ => self
                .noise
                .upgrade_outbound(socket, info)
                .map_ok(|(peer, stream)| (peer, Either::Right(stream)))
                .map_err(io::Error::other)
                .boxed(),
        }
    }
}

//! The dial filter: the one gate that every outbound connection passes.
//!
//! [`Filtered`] wraps the transports that open sockets (TCP, QUIC, and the TCP
//! under WebSocket) below name resolution, so that what it judges is the
//! address that is about to be connected to: a name that resolves to loopback,
//! or resolves to something else the second time, gains nothing. The HTTP
//! client asks the same [`Policy`].
//!
//! Private addresses need two permissions: the machine's own setting, and a
//! [`Permit`] for the peer, which a dial holds when its pin's service allows
//! private addresses. What peers and the DHT merely mention has no permit.

use std::{
    collections::HashMap,
    io,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures::{FutureExt, TryFutureExt, future::BoxFuture};
use libp2p::{
    Multiaddr, PeerId,
    core::transport::{DialOpts, ListenerId, Transport, TransportError, TransportEvent},
    multiaddr::Protocol,
};
use parking_lot::Mutex;
use pinfold_core::address::{self, AddressError};

/// Why an address is not dialled.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Refused {
    /// Its IP address is of a kind that is not dialled.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// It does not begin with an IP address.
    #[error("{0} has no IP address to dial")]
    NotAnAddress(Multiaddr),
}

/// What a permission is for: a peer wherever it is, or one literal address,
/// with or without the peer that is there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Subject {
    Peer(PeerId),
    Address(Multiaddr),
}

/// What may be dialled; shared by all transports of a network.
#[derive(Debug)]
pub struct Policy {
    allow_private: bool,
    permits: Mutex<HashMap<Subject, usize>>,
}

impl Policy {
    /// `allow_private`: whether permits for private addresses are given at all.
    pub fn new(allow_private: bool) -> Arc<Self> {
        Arc::new(Self { allow_private, permits: Mutex::default() })
    }

    /// Judges an address that HTTP is about to connect to.
    pub fn check_ip(&self, ip: IpAddr, private: bool) -> Result<(), Refused> {
        Ok(address::may_dial(ip, private && self.allow_private)?)
    }

    /// Judges a resolved multiaddr that a transport is about to connect to.
    pub fn check(&self, address: &Multiaddr) -> Result<(), Refused> {
        let ip = ip_of(address).ok_or_else(|| Refused::NotAnAddress(address.clone()))?;
        let result = self.check_ip(ip, self.is_permitted(address));
        if result.is_err() {
            metrics::counter!("pinfold_net_dials_refused_total").increment(1);
        }
        result
    }

    /// Permits private addresses of `peer` while the permit lives.
    pub fn permit_peer(self: &Arc<Self>, peer: PeerId) -> Permit {
        self.permit(Subject::Peer(peer))
    }

    /// Permits one literal address while the permit lives.
    pub fn permit_address(self: &Arc<Self>, address: Multiaddr) -> Permit {
        self.permit(Subject::Address(address))
    }

    fn permit(self: &Arc<Self>, subject: Subject) -> Permit {
        *self.permits.lock().entry(subject.clone()).or_default() += 1;
        Permit { policy: self.clone(), subject }
    }

    fn is_permitted(&self, address: &Multiaddr) -> bool {
        let permits = self.permits.lock();
        let of_peer = match address.iter().last() {
            Some(Protocol::P2p(peer)) => permits.contains_key(&Subject::Peer(peer)),
            _ => false,
        };
        of_peer || permits.contains_key(&Subject::Address(address.clone()))
    }
}

/// Permission to dial private addresses, as long as it lives.
#[derive(Debug)]
pub struct Permit {
    policy: Arc<Policy>,
    subject: Subject,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut permits = self.policy.permits.lock();
        if let Some(count) = permits.get_mut(&self.subject) {
            *count -= 1;
            if *count == 0 {
                permits.remove(&self.subject);
            }
        }
    }
}

/// The IP address at the front of a multiaddr.
pub(super) fn ip_of(address: &Multiaddr) -> Option<IpAddr> {
    match address.iter().next()? {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.into()),
        _ => None,
    }
}

/// A transport that dials only what the policy lets through. Listening is not
/// its business.
pub(super) struct Filtered<T> {
    inner: T,
    policy: Arc<Policy>,
}

impl<T> Filtered<T> {
    pub(super) fn new(inner: T, policy: Arc<Policy>) -> Self {
        Self { inner, policy }
    }
}

impl<T> Transport for Filtered<T>
where
    T: Transport + Unpin,
    T::Error: Send + Sync + 'static,
    T::Dial: Send + 'static,
    T::ListenerUpgrade: Send + 'static,
{
    type Output = T::Output;
    type Error = io::Error;
    type ListenerUpgrade = BoxFuture<'static, io::Result<T::Output>>;
    type Dial = BoxFuture<'static, io::Result<T::Output>>;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<io::Error>> {
        self.inner.listen_on(id, address).map_err(|e| e.map(io::Error::other))
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.inner.remove_listener(id)
    }

    fn dial(&mut self, address: Multiaddr, opts: DialOpts) -> Result<Self::Dial, TransportError<io::Error>> {
        if let Err(refused) = self.policy.check(&address) {
            let error = io::Error::new(io::ErrorKind::PermissionDenied, refused);
            return Err(TransportError::Other(error));
        }
        let dial = self.inner.dial(address, opts).map_err(|e| e.map(io::Error::other))?;
        Ok(dial.map_err(io::Error::other).boxed())
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
        Pin::new(&mut self.inner).poll(cx).map(|event| {
            event
                .map_upgrade(|upgrade| upgrade.map_err(io::Error::other as fn(_) -> _).boxed())
                .map_err(io::Error::other)
        })
    }
}

//! Dialling a peer: what is tried, in which order, and for how long.

use std::time::Duration;

use futures::future::{Either, select};
use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};
use tokio::sync::oneshot;

use super::{
    DialError, MAX_ADDRESSES_PER_ORIGIN, Network,
    filter::{Permit, ip_of},
    swarm::Command,
    transport::{is_dialable, is_tcp},
};

/// How long a dial may take in all.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(20);

/// Dials at a time; further ones wait for their turn within their time-out.
pub(super) const MAX_DIALS: usize = 48;

/// What TCP addresses get ahead of the others: on loopback TCP moves 291
/// MiB/s where QUIC moves 246, and a race would be won by chance.
const HEAD_START: Duration = Duration::from_millis(300);

impl Network {
    /// Connects with a peer; at once when there is a connection already.
    /// Dials of one peer at the same time share their attempts.
    ///
    /// At most [`MAX_ADDRESSES_PER_ORIGIN`] addresses are looked at; those
    /// that cannot or must not be dialled are skipped. `private` says whether
    /// the pin's service allows private addresses; the machine's own setting
    /// must allow them too.
    ///
    /// # Errors
    /// When no connection comes about within [`DIAL_TIMEOUT`].
    pub async fn dial(
        &self,
        peer: Option<PeerId>,
        addresses: Vec<Multiaddr>,
        private: bool,
    ) -> Result<PeerId, DialError> {
        let peer = peer.or_else(|| addresses.iter().find_map(peer_of));
        if let Some(peer) = peer.filter(|peer| self.is_connected(peer)) {
            return Ok(peer);
        }
        if peer == Some(self.peer_id()) {
            return Err(DialError::Itself);
        }
        let addresses = self.usable(addresses, private)?;
        let dialled = async {
            let _turn = self.0.dialling.acquire().await.map_err(|_| DialError::Closed)?;
            match peer {
                Some(peer) => self.dial_peer(peer, addresses, private).await,
                None => self.dial_anonymous(addresses, private).await,
            }
        };
        let result = tokio::time::timeout(DIAL_TIMEOUT, dialled).await;
        result.unwrap_or(Err(DialError::TimedOut(DIAL_TIMEOUT)))
    }

    /// The addresses worth a try. Names are judged later, when they resolve.
    fn usable(&self, addresses: Vec<Multiaddr>, private: bool) -> Result<Vec<Multiaddr>, DialError> {
        let mut refused = None;
        let mut usable = Vec::new();
        for address in addresses.into_iter().take(MAX_ADDRESSES_PER_ORIGIN).filter(is_dialable) {
            match ip_of(&address).map_or(Ok(()), |ip| self.0.policy.check_ip(ip, private)) {
                Ok(()) => usable.push(address),
                Err(error) => refused = Some(error),
            }
        }
        match refused {
            Some(error) if usable.is_empty() => Err(error.into()),
            None if usable.is_empty() => Err(DialError::NoAddress),
            _ => Ok(usable),
        }
    }

    async fn dial_peer(
        &self,
        peer: PeerId,
        addresses: Vec<Multiaddr>,
        private: bool,
    ) -> Result<PeerId, DialError> {
        let _permit = self.permit(private, || self.0.policy.permit_peer(peer));
        let (tcp, other): (Vec<_>, Vec<_>) = addresses.into_iter().partition(is_tcp);
        if tcp.is_empty() || other.is_empty() {
            return self.attempt(peer, if tcp.is_empty() { other } else { tcp }).await;
        }
        let mut first = Box::pin(self.attempt(peer, tcp));
        match tokio::time::timeout(HEAD_START, &mut first).await {
            Ok(Ok(peer)) => Ok(peer),
            Ok(Err(_)) => self.attempt(peer, other).await,
            Err(_) => match select(first, Box::pin(self.attempt(peer, other))).await {
                Either::Left((Ok(peer), _)) | Either::Right((Ok(peer), _)) => Ok(peer),
                Either::Left((Err(_), rest)) => rest.await,
                Either::Right((Err(_), rest)) => rest.await,
            },
        }
    }

    async fn attempt(&self, peer: PeerId, addresses: Vec<Multiaddr>) -> Result<PeerId, DialError> {
        let (reply, end) = oneshot::channel();
        self.command(Command::Dial { peer, addresses, reply }).await?;
        end.await.unwrap_or(Err(DialError::Closed))
    }

    /// One address after another: nobody says who is there.
    async fn dial_anonymous(&self, addresses: Vec<Multiaddr>, private: bool) -> Result<PeerId, DialError> {
        let mut result = Err(DialError::NoAddress);
        for address in addresses {
            let _permit = self.permit(private, || self.0.policy.permit_address(address.clone()));
            let (reply, end) = oneshot::channel();
            self.command(Command::DialAnonymous { address, reply }).await?;
            result = end.await.unwrap_or(Err(DialError::Closed));
            if result.is_ok() {
                break;
            }
        }
        result
    }

    fn permit(&self, private: bool, permit: impl FnOnce() -> Permit) -> Option<Permit> {
        private.then(permit)
    }

    pub(super) async fn command(&self, command: Command) -> Result<(), DialError> {
        self.0.commands.send(command).await.map_err(|_| DialError::Closed)
    }
}

/// The peer at the end of an address.
fn peer_of(address: &Multiaddr) -> Option<PeerId> {
    match address.iter().last() {
        Some(Protocol::P2p(peer)) => Some(peer),
        _ => None,
    }
}

/// Reads the origins of a pin: addresses by peer, in the order of first
/// mention, `None` for those that name no peer. What cannot be read or dialled
/// is skipped, and of each peer at most [`MAX_ADDRESSES_PER_ORIGIN`] addresses
/// are taken. A peer without a usable address is listed too: it may dial us.
pub fn origins<T: AsRef<str>>(texts: &[T]) -> Vec<(Option<PeerId>, Vec<Multiaddr>)> {
    let mut grouped: Vec<(Option<PeerId>, Vec<Multiaddr>)> = Vec::new();
    for address in texts.iter().filter_map(|text| text.as_ref().parse::<Multiaddr>().ok()) {
        let (peer, dialable) = (peer_of(&address), is_dialable(&address));
        if peer.is_none() && !dialable {
            continue;
        }
        let index = grouped.iter().position(|(known, _)| *known == peer).unwrap_or_else(|| {
            grouped.push((peer, Vec::new()));
            grouped.len() - 1
        });
        let addresses = &mut grouped[index].1;
        if dialable && addresses.len() < MAX_ADDRESSES_PER_ORIGIN {
            addresses.push(address);
        }
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_grouped_by_peer() {
        let (a, b) = (PeerId::random(), PeerId::random());
        let texts = [
            format!("/ip4/1.2.3.4/tcp/1/p2p/{a}"),
            "nonsense".to_owned(),
            format!("/ip4/1.2.3.4/udp/1/quic-v1/webtransport/p2p/{b}"),
            format!("/ip4/1.2.3.4/udp/1/quic-v1/p2p/{a}"),
            "/ip4/5.6.7.8/tcp/1".to_owned(),
            "/ip4/5.6.7.8/udp/1/webrtc-direct".to_owned(),
        ];
        let grouped = origins(&texts);
        let summary: Vec<_> = grouped.iter().map(|(peer, addresses)| (*peer, addresses.len())).collect();
        assert_eq!(summary, [(Some(a), 2), (Some(b), 0), (None, 1)]);
    }
}

//! What can go wrong.

use std::time::Duration;

use libp2p::{Multiaddr, PeerId, connection_limits::Exceeded, swarm};

use super::filter::Refused;

/// Why the network does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The identity key is of no use for encryption.
    #[error("the node's key cannot be used for encrypted connections: {0}")]
    Key(String),
    /// An address cannot be listened on.
    #[error(
        "cannot listen on {address}: {reason}; is the port taken, and the address one of this machine's? \
         choose another with --swarm"
    )]
    Listen {
        /// Which one.
        address: Multiaddr,
        /// What the system says.
        reason: String,
    },
    /// The HTTP client cannot be set up.
    #[error("the HTTP client cannot be set up: {0}")]
    Http(String),
}

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// The peer is this node itself.
    #[error("the address is this node's own")]
    Itself,
    /// No address has a form that can be dialled.
    #[error("none of the addresses can be dialled; TCP, QUIC v1 and WebSocket addresses can")]
    NoAddress,
    /// Every address was refused by the dial filter.
    #[error("{0}")]
    Refused(String),
    /// All attempts failed.
    #[error("{0}")]
    Unreachable(String),
    /// Nobody answered in time.
    #[error("no answer within {} s", .0.as_secs())]
    TimedOut(Duration),
    /// Too many dials or connections at the moment.
    #[error("too many connections at the moment")]
    Busy,
    /// The network has been shut down.
    #[error("the network has been shut down")]
    Closed,
}

impl From<Refused> for DialError {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused.to_string())
    }
}

impl DialError {
    /// What a failed attempt of the swarm amounts to.
    pub(super) fn of_swarm(error: &swarm::DialError) -> Self {
        match error {
            swarm::DialError::LocalPeerId { .. } => Self::Itself,
            swarm::DialError::NoAddresses => Self::NoAddress,
            swarm::DialError::Denied { cause } => match cause.downcast_ref::<Exceeded>() {
                Some(_) => Self::Busy,
                None => Self::Unreachable(innermost(cause)),
            },
            swarm::DialError::WrongPeerId { obtained, .. } => Self::wrong_peer(*obtained),
            swarm::DialError::Transport(errors) => match errors.last() {
                Some((address, error)) => Self::Unreachable(format!("{address}: {}", innermost(error))),
                None => Self::NoAddress,
            },
            other => Self::Unreachable(innermost(other)),
        }
    }

    fn wrong_peer(obtained: PeerId) -> Self {
        Self::Unreachable(format!("another peer, {obtained}, answers at that address"))
    }
}

/// The cause at the bottom of an error: the layers above it say little.
pub(super) fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

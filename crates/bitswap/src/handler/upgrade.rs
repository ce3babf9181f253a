//! Agrees on a version of Bitswap for a stream.

use std::convert::Infallible;
use std::future::{Ready, ready};

use libp2p::core::upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo};
use libp2p::swarm::StreamProtocol;

use crate::wire::Version;

/// Every version, the newest first.
const PROTOCOLS: [StreamProtocol; 4] = [
    StreamProtocol::new("/ipfs/bitswap/1.2.0"),
    StreamProtocol::new("/ipfs/bitswap/1.1.0"),
    StreamProtocol::new("/ipfs/bitswap/1.0.0"),
    StreamProtocol::new("/ipfs/bitswap"),
];

/// Offers and accepts every version; yields the stream and the version.
#[derive(Clone, Copy, Debug)]
pub struct Upgrade;

impl UpgradeInfo for Upgrade {
    type Info = StreamProtocol;
    type InfoIter = std::array::IntoIter<StreamProtocol, 4>;

    fn protocol_info(&self) -> Self::InfoIter {
        PROTOCOLS.into_iter()
    }
}

fn version(protocol: &StreamProtocol) -> Version {
    match protocol.as_ref() {
        "/ipfs/bitswap/1.2.0" => Version::V1_2,
        "/ipfs/bitswap/1.1.0" => Version::V1_1,
        _ => Version::V1_0,
    }
}

impl<C> InboundUpgrade<C> for Upgrade {
    type Output = (C, Version);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: C, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((stream, version(&protocol))))
    }
}

impl<C> OutboundUpgrade<C> for Upgrade {
    type Output = (C, Version);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_outbound(self, stream: C, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((stream, version(&protocol))))
    }
}

//! How a node is run.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use crate::{fetch, net};

/// Settings of a [`Node`](crate::Node).
#[derive(Clone, Debug)]
pub struct Settings {
    /// The folder of the key, the blocks and the assignments. Made if it does
    /// not exist.
    pub data: PathBuf,
    /// The base URL of the service that this node works for.
    pub service: Url,
    /// What the owner offers, in bytes on disk.
    pub capacity_bytes: u64,
    /// The peer-to-peer network.
    pub network: net::Config,
    /// Trustless HTTP gateways to fetch from when nothing else has a block.
    pub http_gateways: Vec<Url>,
    /// Where the gateway over held content listens; none, and there is none.
    pub gateway: Option<SocketAddr>,
    /// The domain below which the gateway gives each DAG its own origin.
    pub gateway_domain: Option<String>,
    /// The base URL of this node's own gateway, where peers can reach it.
    pub gateway_url: Option<String>,
    /// How large a DAG may be.
    pub limits: fetch::Limits,
    /// The pauses between attempts.
    pub pauses: fetch::Pauses,
    /// How long a block stays that nothing refers to.
    pub reclaim_delay: Duration,
    /// How often such blocks are removed.
    pub reclaim_every: Duration,
    /// How fast the blocks are reread in the background to find damage, in
    /// bytes per second; 0 for never.
    pub scrub_bytes_per_second: u64,
    /// How long it rests before the first rereading and between two.
    pub scrub_pause: Duration,
    /// How often the service is told all that is held here, about.
    pub inventory_every: Duration,
}

impl Settings {
    /// The settings of a node for a service, with every other one at its
    /// default.
    #[must_use]
    pub fn new(data: PathBuf, service: Url) -> Self {
        Self {
            data,
            service,
            capacity_bytes: 100_000_000_000,
            network: net::Config::default(),
            http_gateways: Vec::new(),
            gateway: None,
            gateway_domain: None,
            gateway_url: None,
            limits: fetch::Limits::default(),
            pauses: fetch::Pauses::default(),
            reclaim_delay: Duration::from_secs(3_600),
            reclaim_every: Duration::from_secs(60),
            // 100 GB in a bit more than a day, and hardly noticed.
            scrub_bytes_per_second: 1 << 20,
            scrub_pause: Duration::from_secs(3_600),
            inventory_every: Duration::from_secs(24 * 3_600),
        }
    }
}

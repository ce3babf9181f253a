//! Flags of `pinfold node`, and those of the node inside `up`.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use bytesize::ByteSize;
use clap::{Args, Subcommand, ValueEnum};
use libp2p::Multiaddr;
use url::Url;

use super::values::{duration, endpoint, http_url, size};

/// What `up` and `node run` share.
#[derive(Clone, Debug, Args)]
pub(crate) struct NodeArgs {
    /// Where the gateway over held content listens
    #[arg(long, env = "PINFOLD_GATEWAY", default_value = "127.0.0.1:8071", value_name = "ADDRESS")]
    pub(crate) gateway: SocketAddr,
    /// The gateway as everyone reaches it, at the root of its host, such as https://ipfs.example.org:
    /// whoever looks for providers at the service is told of it
    #[arg(long, env = "PINFOLD_GATEWAY_URL", value_name = "URL", value_parser = endpoint)]
    pub(crate) gateway_url: Option<String>,
    /// Domain under which each DAG has its own origin, such as ipfs.example.org
    #[arg(long, env = "PINFOLD_GATEWAY_DOMAIN", value_name = "DOMAIN")]
    pub(crate) gateway_domain: Option<String>,
    /// Multiaddrs that the IPFS peer listens on
    #[arg(
        long,
        env = "PINFOLD_SWARM",
        default_value = "/ip4/127.0.0.1/tcp/4071",
        value_delimiter = ',',
        value_name = "MULTIADDR"
    )]
    pub(crate) swarm: Vec<Multiaddr>,
    /// Multiaddrs told to others instead of those listened on
    #[arg(long, env = "PINFOLD_ANNOUNCE", value_delimiter = ',', value_name = "MULTIADDR")]
    pub(crate) announce: Vec<Multiaddr>,
    /// The public IPFS network to look for content in
    #[arg(long, env = "PINFOLD_NETWORK", default_value = "amino", value_name = "NETWORK")]
    pub(crate) network: NetworkName,
    /// Peers to join the network through, instead of the built-in ones
    #[arg(long, env = "PINFOLD_BOOTSTRAP", value_delimiter = ',', value_name = "MULTIADDR")]
    pub(crate) bootstrap: Vec<Multiaddr>,
    /// Delegated routers to ask for providers
    #[arg(long, env = "PINFOLD_ROUTER", hide_env_values = true, hide_default_value = true,
          value_delimiter = ',', value_name = "URL", value_parser = http_url)]
    pub(crate) router: Vec<Url>,
    /// Trustless gateways to fetch from when no peer has a block
    #[arg(long, env = "PINFOLD_HTTP_GATEWAY", hide_env_values = true, hide_default_value = true,
          value_delimiter = ',', value_name = "URL", value_parser = http_url)]
    pub(crate) http_gateway: Vec<Url>,
    /// Disk space that the node may use
    #[arg(long, env = "PINFOLD_CAPACITY", default_value = "100GB", value_name = "SIZE",
          value_parser = size)]
    pub(crate) capacity: ByteSize,
    /// How long blocks that no pin refers to stay on disk, for pins that come back and fetches that
    /// were broken off
    #[arg(long, env = "PINFOLD_RECLAIM_AFTER", default_value = "1h", value_name = "TIME", value_parser = duration)]
    pub(crate) reclaim_after: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum NetworkName {
    /// No public network
    None,
    /// The Amino DHT, which Kubo and most of IPFS use
    Amino,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Switch {
    #[value(alias = "true")]
    On,
    #[value(alias = "false")]
    Off,
}

impl Switch {
    pub(crate) fn is_on(self) -> bool {
        self == Self::On
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// Run the node in a data folder for a service
    Run(Box<NodeRunArgs>),
    /// Print the node's peer id, which the operator names to the service
    Id {
        /// The node's data folder
        #[arg(long, env = "PINFOLD_DATA", default_value_os_t = crate::config::default_data(), value_name = "DIR")]
        data: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Clone, Debug, Args)]
pub(crate) struct NodeRunArgs {
    /// Folder for everything that is kept
    #[arg(long, env = "PINFOLD_DATA", default_value_os_t = crate::config::default_data(), value_name = "DIR")]
    pub(crate) data: PathBuf,
    /// The service's endpoint; remembered in the data folder
    #[arg(long, env = "PINFOLD_SERVICE", value_name = "URL", value_parser = endpoint)]
    pub(crate) service: Option<String>,
    /// Let this machine dial private and loopback addresses, where the service wants it too
    #[arg(long, env = "PINFOLD_ALLOW_PRIVATE_ADDRESSES", default_value = "off", value_name = "on|off")]
    pub(crate) allow_private_addresses: Switch,
    /// Where metrics are served; off by default
    #[arg(long, env = "PINFOLD_METRICS", value_name = "ADDRESS")]
    pub(crate) metrics: Option<SocketAddr>,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

//! Nodes on loopback, for tests.

use std::path::Path;
use std::time::Duration;

use pinfold_node::{Node, Pauses, Settings, net};

use super::service::FakeService;

/// The pause between attempts: soon again.
const SOON: Duration = Duration::from_millis(200);

/// Settings of a node that tries again soon.
pub fn settings(dir: &Path, service: &FakeService) -> Settings {
    let mut settings = Settings::new(dir.into(), service.url.parse().unwrap());
    settings.network = net::Config {
        listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
        allow_private_addresses: true,
        ..net::Config::default()
    };
    settings.pauses = Pauses { first: SOON, longest: SOON, full: SOON };
    settings
}

/// A node that also reclaims without delay.
pub async fn node(dir: &Path, service: &FakeService) -> Node {
    Node::start(Settings { reclaim_delay: Duration::ZERO, ..settings(dir, service) }).await.unwrap()
}

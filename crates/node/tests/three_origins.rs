//! A fetch from three origins, of which one sends nothing, one sends what
//! nobody asked for, and one serves: it ends within one attempt, although the
//! second is banned and the first stalls.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use pinfold_core::content;
use pinfold_node::{Node, Pauses, Settings, net};
use pinfold_node_api::Assignment;

#[path = "../../bitswap/tests/swarms/common/peer/mod.rs"]
mod peer;
mod support;

use peer::origins::{BITSWAP, Blocks, lie, serve, stall};
use peer::raw::Raw;
use support::dag::{assignment, blocks, id};
use support::service::FakeService;
use tokio::sync::Notify;

/// How long a stream is idle before it is reset.
const IDLE: Duration = Duration::from_millis(20);

/// The pause after an attempt: longer than any test waits.
const PAUSE: Duration = Duration::from_secs(3_600);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ban_does_not_end_the_attempt_at_the_others() {
    let service = FakeService::start().await;
    let dir = tempfile::tempdir().unwrap();
    let mut settings = Settings::new(dir.path().into(), service.url.parse().unwrap());
    settings.network = net::Config {
        listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
        allow_private_addresses: true,
        ..net::Config::default()
    };
    settings.pauses = Pauses { first: PAUSE, longest: PAUSE, full: PAUSE };
    let node = Node::start(settings).await.unwrap();
    let (root, blocks) = blocks(600, 4_000);
    let held: Blocks =
        blocks.into_iter().map(|(cid, bytes)| (content::of_block_cid(&cid).to_bytes(), bytes)).collect();
    let peers = [Raw::start(BITSWAP).await, Raw::start(BITSWAP).await, Raw::start(BITSWAP).await];
    let origins = peers.each_ref().map(|peer| format!("{}/p2p/{}", peer.address, peer.peer));
    let [staller, liar, good] = peers;
    let lied = Arc::new(Notify::new());
    let told = lied.clone();
    let tasks = [
        tokio::spawn(stall(staller, |_| ())),
        tokio::spawn(lie(liar, move || told.notify_one())),
        // It comes last, so that the second is asked for the root, and banned.
        tokio::spawn(async move {
            lied.notified().await;
            serve(good, Arc::new(held), IDLE).await;
        }),
    ];
    service.assign(Assignment { granted_bytes: 64 << 20, ..assignment(1, &root, origins.to_vec()) });
    assert_eq!(service.stored(id(1)).await.blocks, 607);
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
    node.shutdown().await;
}

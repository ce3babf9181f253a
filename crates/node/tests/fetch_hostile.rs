//! A real node among sources that lie, vanish, or name addresses that are none
//! of their business.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::FutureExt;
use libp2p::{Multiaddr, PeerId};
use pinfold_core::content::BlockCid;
use pinfold_core::status::Reason;
use pinfold_node::{Node, Pauses, Settings, net};
use pinfold_node_api::{Answer, Assignment, EventKind};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

#[path = "../../bitswap/tests/swarms/common/peer/mod.rs"]
mod peer;
mod support;

use peer::origins::BITSWAP;
use peer::raw::{self, Raw};
use support::dag::{assignment, blocks, hold, id};
use support::dht::{Claims, server_that};
use support::service::FakeService;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longer than any test: nothing is tried twice.
const NEVER: Duration = Duration::from_secs(3_600);

/// A node on loopback that puts off what has failed for longer than a test.
async fn node(dir: &Path, service: &FakeService, change: impl FnOnce(&mut Settings)) -> Node {
    let mut settings = Settings::new(dir.into(), service.url.parse().unwrap());
    settings.network = net::Config {
        listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
        allow_private_addresses: true,
        ..net::Config::default()
    };
    settings.pauses = Pauses { first: NEVER, longest: NEVER, full: NEVER };
    change(&mut settings);
    Node::start(settings).await.unwrap()
}

/// A service, and a node of its own.
async fn hosted(change: impl FnOnce(&mut Settings)) -> (FakeService, Node, tempfile::TempDir) {
    let (service, dir) = (FakeService::start().await, tempfile::tempdir().unwrap());
    let node = node(dir.path(), &service, change).await;
    (service, node, dir)
}

/// An address at which nobody is.
fn nowhere(peer: PeerId) -> String {
    format!("/ip4/127.0.0.1/tcp/1/p2p/{peer}")
}

/// Waits until an attempt has ended in vain, and tells why.
async fn put_off(service: &FakeService, content: i64) -> Reason {
    let waits = |kind: &EventKind| match kind {
        EventKind::Progress { reason, next_attempt_ms: Some(_), .. } => Some(*reason),
        _ => None,
    };
    service.event("an attempt's end", id(content), waits).await
}

/// Says that it has everything, and sends 3 MiB whatever it is asked for.
struct Exaggerating {
    peer: PeerId,
    address: Multiaddr,
    told: mpsc::Receiver<()>,
}

impl Exaggerating {
    async fn start() -> Self {
        let raw = Raw::start(BITSWAP).await;
        let (tell, told) = mpsc::channel(1);
        let (peer, address) = (raw.peer, raw.address.clone());
        tokio::spawn(exaggerate(raw, tell));
        Self { peer, address, told }
    }

    async fn has_lied(&mut self) {
        tokio::time::timeout(PATIENCE, self.told.recv()).await.expect("it is asked").unwrap();
    }
}

async fn exaggerate(mut peer: Raw, told: mpsc::Sender<()>) {
    let large = raw::blocks([&vec![0; 3 << 20][..]]);
    while let Some(mut wantlist) = peer.inbound.recv().await {
        while let Ok(message) = raw::read(&mut wantlist).await {
            for entry in raw::wanted(&message) {
                if entry.want_type == 0 {
                    let _ = peer.try_send(&large).await;
                    let _ = told.try_send(());
                } else {
                    let _ = peer.try_send(&raw::have(entry.cid)).await;
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_origin_that_says_too_large_keeps_nobody_from_the_content() {
    let (_far, good, _good_dir) = hosted(|_| ()).await;
    let (near, b, _dir) = hosted(|_| ()).await;
    let (root, blocks) = blocks(20, 1_000);
    hold(&good, &root, &blocks);
    let mut liar = Exaggerating::start().await;
    let of_liar = format!("{}/p2p/{}", liar.address, liar.peer);
    near.assign(assignment(1, &root, vec![of_liar, nowhere(good.peer_id())]));
    liar.has_lied().await;
    assert_eq!(put_off(&near, 1).await, Reason::InvalidBlock, "it is told, and not believed");
    good.network().dial(Some(b.peer_id()), b.addresses(), true).await.unwrap();
    near.stored(id(1)).await;
    good.shutdown().await;
    b.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_that_say_too_large_keep_nobody_from_the_content() {
    let (_far, good, _good_dir) = hosted(|_| ()).await;
    let (near, b, _dir) = hosted(|_| ()).await;
    let (root, blocks) = blocks(20, 1_000);
    hold(&good, &root, &blocks);
    let (mut one, mut two) = (Exaggerating::start().await, Exaggerating::start().await);
    for liar in [&one, &two] {
        b.network().dial(Some(liar.peer), vec![liar.address.clone()], true).await.unwrap();
    }
    near.assign(assignment(1, &root, Vec::new()));
    one.has_lied().await;
    two.has_lied().await;
    assert_eq!(put_off(&near, 1).await, Reason::InvalidBlock);
    good.network().dial(Some(b.peer_id()), b.addresses(), true).await.unwrap();
    near.stored(id(1)).await;
    good.shutdown().await;
    b.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_origin_that_is_lost_is_dialled_again_within_the_attempt() {
    let (_far, origin, _origin_dir) = hosted(|_| ()).await;
    let (near, b, _dir) = hosted(|_| ()).await;
    let (root, blocks) = blocks(200, 20_000);
    hold(&origin, &root, &blocks);
    // It stands still in the middle, for want of a grant.
    near.answer_grants(1, Answer::Granted { bytes: 1 << 20 });
    let addresses = origin.addresses().iter().map(ToString::to_string).collect();
    near.assign(assignment(1, &root, addresses));
    let stands = |kind: &EventKind| matches!(kind, EventKind::WantGrant { least: 1.., .. }).then_some(());
    near.event("no more grants", id(1), stands).await;
    let mut arrivals = b.network().arrivals();
    origin.network().disconnect(b.peer_id());
    let back = tokio::time::timeout(PATIENCE, arrivals.recv()).await.expect("it is dialled again");
    assert_eq!(back.unwrap(), origin.peer_id());
    near.answer_grants(1, Answer::Granted { bytes: 1 << 30 });
    near.stored(id(1)).await;
    origin.shutdown().await;
    b.shutdown().await;
}

/// A gateway that has these blocks; its base URL.
async fn gateway(blocks: HashMap<String, Vec<u8>>) -> url::Url {
    let blocks = Arc::new(blocks);
    let answer = move |axum::extract::Path(cid): axum::extract::Path<String>| {
        let found = blocks.get(&cid).cloned();
        async move { found.ok_or(axum::http::StatusCode::NOT_FOUND) }
    };
    listen(axum::Router::new().route("/ipfs/{cid}", axum::routing::get(answer))).await
}

/// Answers HTTP on loopback until the test ends; the base URL.
async fn listen(router: axum::Router) -> url::Url {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    url.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_bytes_from_a_gateway_are_not_kept_and_asked_of_the_next() {
    let (root, blocks) = blocks(20, 1_000);
    let all = |change: &dyn Fn(&BlockCid, &[u8]) -> Vec<u8>| {
        blocks.iter().map(|(cid, bytes)| (cid.to_string(), change(cid, bytes))).collect::<HashMap<_, _>>()
    };
    let (wrong, right) = (blocks[7].0, &blocks[7].1);
    let lying =
        gateway(all(&|cid, bytes| if *cid == wrong { vec![0; bytes.len()] } else { bytes.into() })).await;
    let alone = lying.clone();
    let (near, b, _dir) = hosted(move |settings| settings.http_gateways = vec![alone]).await;
    near.assign(assignment(1, &root, Vec::new()));
    assert_eq!(put_off(&near, 1).await, Reason::Retrieving);
    assert_eq!(b.held().store().get(wrong.hash()).unwrap(), None, "it is not kept under a false name");
    b.shutdown().await;

    let honest = gateway(all(&|_, bytes| bytes.into())).await;
    let (near, b, _dir) = hosted(move |settings| settings.http_gateways = vec![lying, honest]).await;
    near.assign(assignment(1, &root, Vec::new()));
    near.stored(id(1)).await;
    assert_eq!(b.held().get(&wrong).unwrap().as_deref(), Some(right.as_slice()));
    b.shutdown().await;
}

/// A listener that tells whether anybody connects.
async fn listener() -> (TcpListener, Multiaddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("/ip4/127.0.0.1/tcp/{}", listener.local_addr().unwrap().port());
    (listener, address.parse().unwrap())
}

/// What the DHT says of a root whose provider, and of a server that, are on
/// this machine: whether either is dialled.
async fn dialled_for_the_dht(public: net::PublicNetwork) -> (bool, bool) {
    let (root, _) = blocks(1, 1_000);
    let ((provider, of_provider), (server, of_server)) = (listener().await, listener().await);
    let claims = Claims {
        providers: vec![(root.hash().to_bytes(), PeerId::random(), of_provider)],
        servers: vec![(PeerId::random(), of_server)],
    };
    let (bootstrap, _keys) = server_that(claims).await;
    let (near, b, _dir) = hosted(move |settings| {
        (settings.network.public, settings.network.bootstrap) = (public, vec![bootstrap]);
    })
    .await;
    near.assign(Assignment { granted_bytes: 0, ..assignment(1, &root, Vec::new()) });
    put_off(&near, 1).await;
    b.shutdown().await;
    let dialled = |listener: &TcpListener| listener.accept().now_or_never().is_some();
    (dialled(&provider), dialled(&server))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_in_a_public_dht_send_nobody_into_a_private_network() {
    assert_eq!(dialled_for_the_dht(net::PublicNetwork::Amino).await, (false, false));
    // Among machines of one's own, who is named by a record is dialled.
    assert_eq!(dialled_for_the_dht(net::PublicNetwork::None).await, (true, false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_dials_only_so_many_of_those_whom_a_router_names() {
    let (victim, of_victim) = listener().await;
    let hits = Arc::new(AtomicUsize::new(0));
    let counted = hits.clone();
    tokio::spawn(async move {
        while victim.accept().await.is_ok() {
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    let record = |_| serde_json::json!({ "Schema": "peer", "ID": PeerId::random().to_string(), "Addrs": [of_victim.to_string()] });
    let answer = serde_json::json!({ "Providers": (0..64).map(record).collect::<Vec<_>>() });
    let answer = axum::routing::get(async move || axum::Json(answer));
    let router = listen(axum::Router::new().route("/routing/v1/providers/{cid}", answer)).await;
    let (near, b, _dir) = hosted(move |settings| settings.network.routers = vec![router]).await;
    near.assign(assignment(1, &blocks(1, 1_000).0, Vec::new()));
    put_off(&near, 1).await;
    assert_eq!(hits.load(Ordering::SeqCst), 32);
    b.shutdown().await;
}

//! Two real nodes over loopback, each with a service of its own: what one
//! holds the other fetches, holds, and serves.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::time::Duration;

use libp2p::multiaddr::Protocol;
use pinfold_blockstore::Block;
use pinfold_core::content::{self, BlockCid, Cid, ContentKey};
use pinfold_core::hash;
use pinfold_core::manifest;
use pinfold_core::status::Reason;
use pinfold_node::{Node, Pauses, Settings, net};
use pinfold_node_api::{AllocationId, Assignment, EventKind};

#[path = "support/service.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the agent's tests")]
mod service;

use service::FakeService;

/// A node on loopback.
async fn node(dir: &Path, service: &FakeService) -> Node {
    let mut settings = Settings::new(dir.into(), service.url.parse().unwrap());
    settings.network = net::Config {
        listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
        allow_private_addresses: true,
        ..net::Config::default()
    };
    let soon = Duration::from_millis(200);
    settings.pauses = Pauses { first: soon, longest: soon, full: soon };
    settings.reclaim_delay = Duration::ZERO;
    Node::start(settings).await.unwrap()
}

fn addresses(node: &Node) -> Vec<String> {
    node.addresses().iter().map(ToString::to_string).collect()
}

fn id(content: i64) -> AllocationId {
    AllocationId { content, generation: 1 }
}

fn assignment(content: i64, root: &Cid, origins: Vec<String>) -> Assignment {
    Assignment {
        allocation: id(content),
        root: root.to_string(),
        origins,
        peers: Vec::new(),
        predecessor: None,
        fairness: 1,
        granted_bytes: 1 << 20,
        repair: false,
    }
}

/// A file of `count` leaves under two levels of dag-cbor lists.
fn blocks(count: u32, length: usize) -> (Cid, Vec<(BlockCid, Vec<u8>)>) {
    let mut blocks = Vec::new();
    let mut level: Vec<Cid> = (0..count)
        .map(|n| {
            let mut bytes = vec![0; length];
            bytes[..4].copy_from_slice(&n.to_be_bytes());
            add(&mut blocks, 0x55, bytes)
        })
        .collect();
    while level.len() > 1 {
        level = level.chunks(100).map(|links| add(&mut blocks, 0x71, list(links))).collect();
    }
    (level[0], blocks)
}

fn add(blocks: &mut Vec<(BlockCid, Vec<u8>)>, codec: u64, bytes: Vec<u8>) -> Cid {
    let cid = Cid::new_v1(codec, hash::multihash(hash::SHA2_256, &bytes).unwrap());
    blocks.push((content::block_cid(&cid).unwrap(), bytes));
    cid
}

/// A dag-cbor list of links.
fn list(links: &[Cid]) -> Vec<u8> {
    let mut bytes = vec![0x98, u8::try_from(links.len()).unwrap()];
    for link in links {
        let cid = link.to_bytes();
        bytes.extend([0xd8, 42, 0x58, u8::try_from(cid.len() + 1).unwrap(), 0]);
        bytes.extend(cid);
    }
    bytes
}

/// Makes a node hold blocks under a root, without a network.
fn hold(node: &Node, root: &Cid, blocks: &[(BlockCid, Vec<u8>)]) {
    let store = node.held().store();
    let mut walk = store.begin(ContentKey::of(root).as_bytes()).unwrap();
    for (cid, bytes) in blocks {
        walk.reference(&[*cid.hash()]).unwrap();
        store.put(&[Block::computed(*cid.hash(), bytes.clone().into()).unwrap()]).unwrap();
    }
    walk.complete(b"").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_node_fetches_what_another_holds_and_serves_it() {
    let (near, far) = (FakeService::start().await, FakeService::start().await);
    let (a_dir, b_dir, c_dir) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (a, b) = (node(a_dir.path(), &far).await, node(b_dir.path(), &near).await);
    let (root, blocks) = blocks(600, 20_000);
    hold(&a, &root, &blocks);
    near.assign(assignment(1, &root, addresses(&a)));
    let stored = near.stored(id(1)).await;
    let all: std::collections::HashMap<_, _> =
        blocks.iter().map(|(cid, bytes)| (content::of_block_cid(cid), bytes.clone())).collect();
    let want = manifest::of_dag(&root, &mut |cid| all.get(cid).cloned()).unwrap().0;
    assert_eq!((stored.root, stored.bytes, stored.blocks), (want.root, want.bytes, want.blocks));
    for (cid, bytes) in &blocks {
        assert_eq!(b.held().get(cid).unwrap().as_deref(), Some(bytes.as_slice()));
    }
    // The origin goes; a third node is given the second as a hint.
    a.shutdown().await;
    let c = node(c_dir.path(), &far).await;
    let hint = pinfold_node_api::PeerHint { addresses: addresses(&b), gateway: None };
    far.assign(Assignment { peers: vec![hint], ..assignment(2, &root, Vec::new()) });
    assert_eq!(far.stored(id(2)).await, stored);
    b.shutdown().await;
    c.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_origin_that_cannot_be_dialled_and_connects_by_itself_is_used() {
    let (near, far) = (FakeService::start().await, FakeService::start().await);
    let (a_dir, b_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (a, b) = (node(a_dir.path(), &far).await, node(b_dir.path(), &near).await);
    let (root, blocks) = blocks(20, 1_000);
    hold(&a, &root, &blocks);
    // Behind NAT: the address that it names leads nowhere.
    let nowhere = format!("/ip4/127.0.0.1/tcp/1/p2p/{}", a.peer_id());
    near.assign(assignment(1, &root, vec![nowhere]));
    let unreachable = |kind: &EventKind| {
        matches!(kind, EventKind::Progress { reason: Reason::OriginUnreachable, .. }).then_some(())
    };
    near.event("origin_unreachable", id(1), unreachable).await;
    let dialled = a.network().dial(Some(b.peer_id()), b.addresses(), true).await;
    assert_eq!(dialled.unwrap(), b.peer_id());
    near.stored(id(1)).await;
    a.shutdown().await;
    b.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_keeps_its_identity_and_its_work_over_a_restart() {
    let (near, far) = (FakeService::start().await, FakeService::start().await);
    let (a_dir, b_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let b = node(b_dir.path(), &near).await;
    let peer = b.peer_id();
    let (root, blocks) = blocks(20, 1_000);
    near.assign(assignment(1, &root, Vec::new()));
    near.wait("acknowledgement", |service| service.is_acknowledged().then_some(())).await;
    b.shutdown().await;
    // The data folder is free once nothing looks at it any more.
    drop(b);
    let b = node(b_dir.path(), &near).await;
    assert_eq!(b.peer_id(), peer);
    assert!(b.addresses().iter().all(|address| address.iter().any(|part| part == Protocol::P2p(peer))));
    // Nobody has it, until a stranger that does connects.
    let a = node(a_dir.path(), &far).await;
    hold(&a, &root, &blocks);
    a.network().dial(Some(peer), b.addresses(), true).await.unwrap();
    near.stored(id(1)).await;
    a.shutdown().await;
    b.shutdown().await;
}

//! Two real nodes over loopback, each with a service of its own: what one
//! holds the other fetches, holds, and serves.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use libp2p::multiaddr::Protocol;
use pinfold_core::content;
use pinfold_core::manifest;
use pinfold_core::status::Reason;
use pinfold_node::Node;
use pinfold_node_api::{Assignment, EventKind};

mod support;

use support::dag::{assignment, blocks, hold, id};
use support::node::node;
use support::service::{FakeService, Fault};

fn addresses(node: &Node) -> Vec<String> {
    node.addresses().iter().map(ToString::to_string).collect()
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
async fn a_restarted_node_goes_on_before_its_service_answers() {
    let (near, far) = (FakeService::start().await, FakeService::start().await);
    let (a_dir, b_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (a, b) = (node(a_dir.path(), &far).await, node(b_dir.path(), &near).await);
    let (root, _) = blocks(20, 1_000);
    near.assign(assignment(1, &root, addresses(&a)));
    near.wait("acknowledged", |service| service.is_acknowledged().then_some(())).await;
    b.shutdown().await;
    drop(b);
    near.fail(pinfold_node_api::path::HELLO, &[Fault::Refuse("unavailable"); 1_000]);
    let mut arrivals = a.network().arrivals();
    let b = node(b_dir.path(), &near).await;
    // The origin is on a private address, which the service must allow.
    let arrived = tokio::time::timeout(Duration::from_secs(30), arrivals.recv()).await;
    assert_eq!(arrived.expect("the origin is dialled at once").unwrap(), b.peer_id());
    assert_eq!(near.hellos().len(), 1, "the second start was not answered");
    a.shutdown().await;
    b.shutdown().await;
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

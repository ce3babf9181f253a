//! A held content with a block in it that the denylist names: told to the
//! service, not served, and as before once the rule is lifted.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use pinfold_core::content::{self, Cid};
use pinfold_core::links::Codec;
use pinfold_node::Node;
use pinfold_node_api::EventKind;

mod support;

use support::dag::{self, assignment, blocks, hold, id};
use support::node::node;
use support::service::{FakeService, Fault};

/// Waits until the service is told what was found under a denylist.
async fn told(service: &FakeService, content: i64, denylist: i64, denied: bool) {
    let kind = EventKind::Compared { denylist, denied };
    let is_told = |service: &FakeService| {
        let events = service.events();
        events.iter().any(|event| event.allocation == id(content) && event.kind == kind).then_some(())
    };
    service.wait("compared", is_told).await;
}

fn is_served(node: &Node, cid: &Cid) -> bool {
    node.held().get(&content::block_cid(cid).unwrap()).unwrap().is_some()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_denied_block_denies_what_is_held_as_a_whole() {
    let (service, dir) = (FakeService::start().await, tempfile::tempdir().unwrap());
    let first = node(dir.path(), &service).await;
    // More blocks than are compared in one go, and a content without the block.
    let (root, all) = blocks(20_000, 8);
    let (other, few) = blocks(5, 16);
    let leaf = Cid::new_v1(Codec::Raw.code(), *content::of_block_cid(&all[19_999].0).hash());
    for (content, root, blocks) in [(1, &root, &all), (2, &other, &few)] {
        hold(&first, root, blocks);
        service.assign(assignment(content, root, Vec::new()));
        service.stored(id(content)).await;
    }
    assert!(is_served(&first, &root) && is_served(&first, &leaf));

    service.deny(format!("/ipfs/{leaf}"));
    told(&service, 1, 1, true).await;
    assert!(!is_served(&first, &root) && !is_served(&first, &leaf));
    assert!(is_served(&first, &other));
    first.shutdown().await;
    drop(first);

    // It stays so from the first moment of the next run, whether or not the
    // service's answer came before the end of the first.
    let second = node(dir.path(), &service).await;
    assert!(!is_served(&second, &root));
    // An answer that was lost is no answer: what is lifted is told again.
    service.fail(pinfold_node_api::path::REPORT, &[Fault::LoseAnswer]);
    service.deny(String::new());
    told(&service, 1, 2, false).await;
    assert!(is_served(&second, &root) && is_served(&second, &leaf));

    // By the hash of a hash, too; and what is stored later is compared then.
    let hashed = dag::double_hash(&leaf);
    service.deny(format!("//{hashed}"));
    told(&service, 1, 3, true).await;
    assert!(!is_served(&second, &root));
    let events = service.events();
    assert!(
        !events
            .iter()
            .any(|event| event.allocation == id(2) && matches!(event.kind, EventKind::Compared { .. }))
    );
    second.shutdown().await;
}

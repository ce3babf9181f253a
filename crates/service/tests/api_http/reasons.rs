//! Every reason of a pin's status, as a client reads it: one word for
//! programs, one sentence for people.

use pinfold_core::status::Reason;
use pinfold_node_api::{AllocationId, Event, EventKind, ManifestSummary};
use serde_json::{Value, json};

use crate::{
    fake_node::FakeNode,
    server::{ALL, Backend, Server, TestClock, cid, settings},
};

crate::on_both!(
    a_fetch_under_way_says_where_it_stands,
    a_content_that_can_never_be_pinned_says_why,
    copies_that_are_missing_are_counted,
    a_full_account_is_told_what_it_uses_of_its_quota,
    a_deadline_and_a_lack_of_room_are_told,
);

/// A pin of one content, and the allocation that its node has taken.
async fn taken(server: &Server, node: &mut FakeNode, number: u64) -> (String, AllocationId) {
    let pin = server.pin(json!({ "cid": cid(number) })).await;
    let work = node.take().await;
    assert_eq!(work.len(), 1);
    (pin["requestid"].as_str().unwrap().to_owned(), work[0].allocation)
}

/// Checks the word and a part of the sentence, in the pin and in the list.
async fn assert_told(server: &Server, requestid: &str, status: &str, word: &str, sentence: &str) -> Value {
    let pin = server.get(&format!("/pins/{requestid}")).await.json();
    assert_eq!((&pin["status"], &pin["info"]["reason"]), (&json!(status), &json!(word)), "{pin}");
    let told = pin["info"]["status_details"].as_str().unwrap();
    assert!(told.contains(sentence), "{word}: {told}");
    assert!(pin["info"].as_object().unwrap().values().all(Value::is_string), "{pin}");
    let (_, listed) = server.list(&format!("status={ALL}")).await;
    let listed = listed.iter().find(|listed| listed["requestid"] == requestid).unwrap();
    assert_eq!(listed["info"]["reason"], word, "{listed}");
    pin
}

async fn a_fetch_under_way_says_where_it_stands(on: Backend) {
    let server = Server::start(on).await;
    let mut node = FakeNode::join(&server).await;
    let (pin, allocation) = taken(&server, &mut node, 1).await;
    for (reason, word, sentence) in [
        (Reason::Searching, "searching", "Looking for a peer that has the rest: 7 blocks, 7.0 kB so far"),
        (Reason::OriginUnreachable, "origin_unreachable", "None of the origins could be reached"),
        (Reason::NoProviders, "no_providers", "No known peer has the next of the blocks that are missing"),
        (Reason::Retrieving, "retrieving", "Retrieving: 7 blocks, 7.0 kB so far"),
    ] {
        let kind =
            EventKind::Progress { blocks: 7, bytes: 7_000, reason, attempts: 3, next_attempt_ms: None };
        node.report(vec![Event { allocation, kind }]).await;
        let told = assert_told(&server, &pin, "pinning", word, sentence).await;
        assert_eq!(told["info"]["attempts"], "3");
    }
}

async fn a_content_that_can_never_be_pinned_says_why(on: Backend) {
    let server = Server::start(on).await;
    let mut node = FakeNode::join(&server).await;
    for (number, (reason, word, sentence)) in (1..).zip([
        (Reason::InvalidBlock, "invalid_block", "A block of the DAG is invalid"),
        (Reason::UnsupportedCodec, "unsupported_codec", "a codec whose links are unknown"),
        (Reason::OverLimit, "over_limit", "exceeds a limit on its number of blocks"),
        (Reason::Denied, "denied", "denylist"),
    ]) {
        let (pin, allocation) = taken(&server, &mut node, number).await;
        let kind = EventKind::Failed { reason, detail: format!("It was block {number}.") };
        node.report(vec![Event { allocation, kind }]).await;
        let told = assert_told(&server, &pin, "failed", word, sentence).await;
        let told = told["info"]["status_details"].as_str().unwrap();
        assert!(told.ends_with(&format!("It was block {number}.")), "the node's own words are lost: {told}");
    }
}

async fn copies_that_are_missing_are_counted(on: Backend) {
    let server = Server::opened(on, settings(), |settings| {
        (settings.replicas_min, settings.replicas_target) = (2, 2);
    })
    .await;
    let mut node = FakeNode::join(&server).await;
    let (pin, allocation) = taken(&server, &mut node, 1).await;
    let grant = EventKind::WantGrant { bytes: 9_000, least: 9_000 };
    let manifest = ManifestSummary { version: 1, root: [1; 32], bytes: 9_000, blocks: 3 };
    for kind in [grant, EventKind::Stored { manifest }] {
        node.report(vec![Event { allocation, kind }]).await;
    }
    let sentence = "All 3 blocks, 9.0 kB are held; 1 of 2 copies are made";
    let told = assert_told(&server, &pin, "pinning", "replicating", sentence).await;
    assert_eq!(told["info"]["replicas"], "1/2");
}

async fn a_full_account_is_told_what_it_uses_of_its_quota(on: Backend) {
    let server = Server::start(on).await;
    let mut node = FakeNode::join(&server).await;
    server.pin(json!({ "cid": cid(1) })).await;
    node.store_all(9_000).await;
    server.database.set_quota(server.account.id, 50_000).await.unwrap();
    let (pin, allocation) = taken(&server, &mut node, 2).await;
    // The first answers give what is left.
    for _ in 0..4 {
        let kind = EventKind::WantGrant { bytes: 200_000, least: 200_000 };
        node.report(vec![Event { allocation, kind }]).await;
    }
    let used = server.get("/api/v1/account").await.json()["used_bytes"].as_u64().unwrap();
    assert!((9_000..=13_000).contains(&used), "{used}");
    let sentence = format!(
        "The account uses {}.{} kB of its 50.0 kB. Remove pins or ask the operator",
        used / 1_000,
        used % 1_000 / 100
    );
    assert_told(&server, &pin, "failed", "over_quota", &sentence).await;
}

async fn a_deadline_and_a_lack_of_room_are_told(on: Backend) {
    let clock = TestClock::new();
    let server = Server::opened(on, settings(), |settings| clock.drive(settings)).await;
    let mut node = FakeNode::join(&server).await;
    let (pin, allocation) = taken(&server, &mut node, 1).await;
    node.report(vec![Event { allocation, kind: EventKind::NoCapacity }]).await;
    assert_told(&server, &pin, "queued", "no_capacity", "No storage node has room").await;
    let pin = server.pin(json!({ "cid": cid(2) })).await;
    let pin = pin["requestid"].as_str().unwrap();
    node.take().await;
    clock.pass(25 * 3_600_000);
    node.report(Vec::new()).await;
    while server.database.run_jobs().await.unwrap().more {}
    assert_told(&server, pin, "failed", "expired", "Nothing arrived before the deadline").await;
}

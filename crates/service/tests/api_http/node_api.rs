//! The node API as the service answers it.

use std::time::Duration;

use ed25519_dalek::SigningKey;
use pinfold_node_api::{
    AllocationId, Answer as EventAnswer, ErrorBody, Event, EventKind, Hello, Inventory, Pull, Report, path,
    signature,
};
use serde_json::json;

use crate::{
    fake_node::{self, FakeNode, address, hello},
    server::{Answer, Backend, Server, cid},
};

crate::on_both!(
    only_the_operators_nodes_are_heard,
    a_request_must_be_signed_for_this_service_and_body,
    replays_and_old_sessions_are_refused,
    a_recorded_hello_cannot_be_replayed,
    a_hello_must_be_the_nodes_own,
    messages_are_bounded,
    a_waiting_pull_is_answered_when_work_comes,
    new_origins_reach_a_fetch_that_runs,
    a_removed_pin_is_released_and_its_reports_are_stale,
);

fn refusal(answer: &Answer, status: u16, word: &str) -> String {
    assert_eq!(answer.status.as_u16(), status, "{answer:?}");
    let body: ErrorBody = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(body.error, word, "{answer:?}");
    body.details
}

fn now() -> i64 {
    jiff::Timestamp::now().as_millisecond() + 1_000
}

async fn only_the_operators_nodes_are_heard(on: Backend) {
    let server = Server::start(on).await;
    let stranger = FakeNode::connect(server.router.clone(), SigningKey::from_bytes(&[9; 32])).await;
    let answer = stranger.request(path::HELLO, now(), &hello(&stranger.key, now())).await;
    assert!(refusal(&answer, 403, "unknown_node").contains("--operator-node"));
}

async fn a_request_must_be_signed_for_this_service_and_body(on: Backend) {
    let server = Server::start(on).await;
    let node = FakeNode::join(&server).await;
    let body = serde_json::to_vec(&Report::default()).unwrap();
    let context =
        |service, path| signature::Context { service, path, session: node.session, sequence: i64::MAX };
    let good = context(node.service.as_str(), path::REPORT);
    for (context, signed) in [
        (context("another service", path::REPORT), body.as_slice()),
        (context(node.service.as_str(), path::PULL), &body),
        (good, b"another body"),
    ] {
        let signature = signature::sign(&node.key, context, signed);
        let answer = node.raw(path::REPORT, i64::MAX, body.clone(), signature).await;
        refusal(&answer, 401, "bad_signature");
    }
    let signature = signature::sign(&node.key, good, &body);
    assert_eq!(node.raw(path::REPORT, i64::MAX, body, signature).await.status.as_u16(), 200);
}

async fn replays_and_old_sessions_are_refused(on: Backend) {
    let server = Server::start(on).await;
    let mut node = FakeNode::join(&server).await;
    let empty = Report::default();
    assert_eq!(node.request(path::REPORT, i64::MAX - 1, &empty).await.status.as_u16(), 200);
    refusal(&node.request(path::REPORT, i64::MAX - 1, &empty).await, 409, "replayed");
    refusal(&node.request(path::REPORT, 1, &empty).await, 409, "replayed");
    let old = node.session;
    node.hello().await;
    let new = std::mem::replace(&mut node.session, old);
    refusal(&node.request(path::REPORT, i64::MAX, &empty).await, 409, "old_session");
    refusal(&node.request(path::PULL, i64::MAX, &Pull::default()).await, 409, "old_session");
    node.session = new;
    assert_eq!(node.request(path::REPORT, i64::MAX, &empty).await.status.as_u16(), 200);
}

async fn a_recorded_hello_cannot_be_replayed(on: Backend) {
    let server = Server::start(on).await;
    let node = FakeNode::connect(server.router.clone(), fake_node::key()).await;
    let at = now();
    assert_eq!(node.request(path::HELLO, at, &hello(&node.key, at)).await.status.as_u16(), 200);
    refusal(&node.request(path::HELLO, at, &hello(&node.key, at)).await, 409, "replayed");
}

async fn a_hello_must_be_the_nodes_own(on: Backend) {
    let server = Server::start(on).await;
    let node = FakeNode::connect(server.router.clone(), fake_node::key()).await;
    let at = now();
    let own = hello(&node.key, at);
    let foreign = address(&SigningKey::from_bytes(&[1; 32]));
    for (changed, word) in [
        (Hello { addresses: vec![foreign], ..own.clone() }, "node's own"),
        (Hello { addresses: vec!["/ip4/127.0.0.1/tcp/1".to_owned()], ..own.clone() }, "node's own"),
        (Hello { addresses: vec![address(&node.key); 100], ..own.clone() }, "at most"),
        (Hello { agent: "a".repeat(10_000), ..own.clone() }, "at most"),
        (Hello { sent_at_ms: at + 1, ..own.clone() }, "sent_at_ms"),
    ] {
        let details = refusal(&node.request(path::HELLO, at, &changed).await, 400, "malformed");
        assert!(details.contains(word), "{details}");
    }
    refusal(&node.request(path::HELLO, at, &Hello { version: 99, ..own }).await, 426, "version");
    refusal(&node.request(path::HELLO, at, &json!({ "version": 1 })).await, 400, "malformed");
}

async fn messages_are_bounded(on: Backend) {
    let server = Server::start(on).await;
    let node = FakeNode::join(&server).await;
    let allocation = AllocationId { content: 1, generation: 1 };
    let event = Event { allocation, kind: EventKind::NoCapacity };
    let report = Report { events: vec![event; 257], ..Report::default() };
    refusal(&node.request(path::REPORT, i64::MAX, &report).await, 400, "malformed");
    let pull = Pull { acknowledged: vec![allocation; 257], ..Pull::default() };
    refusal(&node.request(path::PULL, i64::MAX, &pull).await, 400, "malformed");
    let later = AllocationId { content: 2, generation: 1 };
    let inventory = Inventory { after: 0, held: vec![later, allocation] };
    refusal(&node.request(path::INVENTORY, i64::MAX, &inventory).await, 400, "malformed");
    let long = "x".repeat(pinfold_node_api::MAX_BODY);
    refusal(&node.request(path::REPORT, i64::MAX, &long).await, 413, "malformed");
}

async fn a_waiting_pull_is_answered_when_work_comes(on: Backend) {
    let server = Server::start(on).await;
    let mut node = FakeNode::join(&server).await;
    let started = std::time::Instant::now();
    let pull = node.pull(20_000, Vec::new());
    let post = async {
        tokio::task::yield_now().await;
        server.pin(json!({ "cid": cid(1) })).await
    };
    let (pulled, _) = tokio::join!(pull, post);
    assert_eq!(pulled.assignments[0].root, cid(1));
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
}

async fn new_origins_reach_a_fetch_that_runs(on: Backend) {
    let server = Server::start(on).await;
    let mut node = FakeNode::join(&server).await;
    server.pin(json!({ "cid": cid(1) })).await;
    assert_eq!(node.take().await[0].origins, Vec::<String>::new());
    server.pin(json!({ "cid": cid(1), "origins": ["/ip4/10.0.0.1/tcp/1"] })).await;
    assert_eq!(node.take().await[0].origins, ["/ip4/10.0.0.1/tcp/1"]);
}

async fn a_removed_pin_is_released_and_its_reports_are_stale(on: Backend) {
    let server = Server::start(on).await;
    let mut node = FakeNode::join(&server).await;
    let pin = server.pin(json!({ "cid": cid(1) })).await;
    let work = node.take().await;
    server.delete(&format!("/pins/{}", pin["requestid"].as_str().unwrap())).await;
    let pulled = node.pull(0, Vec::new()).await;
    assert_eq!(pulled.releases[0].root, cid(1));
    let ack = node.report(vec![Event { allocation: work[0].allocation, kind: EventKind::NoCapacity }]).await;
    assert_eq!(ack.answers, [EventAnswer::Stale]);
}

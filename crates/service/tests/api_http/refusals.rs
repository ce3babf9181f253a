//! What is refused for what the account or the machine is in: a full queue, a
//! clock that is not to be trusted, one root pinned too often.

use std::collections::BTreeMap;

use futures::future::join_all;
use pinfold_service::db::NewPin;
use serde_json::json;

use crate::{
    fake_node::FakeNode,
    server::{Backend, Server, TestClock, cid, settings},
};

crate::on_both!(
    beyond_the_queues_bound_a_pin_is_429_with_retry_after,
    creation_more_than_an_hour_ahead_of_the_clock_is_429,
    the_1001st_pin_of_a_root_is_409,
    a_clock_far_behind_the_last_heartbeat_is_not_ready,
);

const MINUTE: i64 = 60_000;

async fn beyond_the_queues_bound_a_pin_is_429_with_retry_after(on: Backend) {
    let server = Server::opened(on, settings(), |settings| settings.max_queued = 2).await;
    let mut node = FakeNode::join(&server).await;
    server.pin(json!({ "cid": cid(1) })).await;
    server.pin(json!({ "cid": cid(2) })).await;
    let refused = server.post("/pins", &json!({ "cid": cid(3) })).await;
    let details = refused.failure(429, "TOO_MANY_REQUESTS");
    assert!(details.contains('2') && details.contains("wait until some are pinned"), "{details}");
    assert_eq!(refused.header("retry-after"), "60");
    node.store_all(100).await;
    server.pin(json!({ "cid": cid(3) })).await;
}

async fn creation_more_than_an_hour_ahead_of_the_clock_is_429(on: Backend) {
    let clock = TestClock::new();
    let server = Server::opened(on, settings(), |settings| clock.drive(settings)).await;
    FakeNode::join(&server).await;
    server.pin(json!({ "cid": cid(1) })).await;
    clock.pass(-59 * MINUTE);
    let ahead = server.pin(json!({ "cid": cid(2) })).await;
    clock.pass(-2 * MINUTE);
    let refused = server.post("/pins", &json!({ "cid": cid(3) })).await;
    refused.failure(429, "TOO_MANY_REQUESTS");
    assert_eq!(refused.header("retry-after"), "60");
    let path = format!("/pins/{}", ahead["requestid"].as_str().unwrap());
    server.post(&path, &json!({ "cid": cid(3) })).await.failure(429, "TOO_MANY_REQUESTS");
    clock.pass(2 * MINUTE);
    let later = server.pin(json!({ "cid": cid(3) })).await;
    assert!(later["created"].as_str() > ahead["created"].as_str(), "it goes on where it was");
}

async fn the_1001st_pin_of_a_root_is_409(on: Backend) {
    let server = Server::start(on).await;
    let first = server.pin(json!({ "cid": cid(1) })).await;
    let parsed = pinfold_core::content::parse(&cid(1)).unwrap();
    let pin = |_| NewPin {
        requestid: uuid::Uuid::now_v7(),
        account: server.account.id,
        cid: cid(1),
        content: pinfold_core::content::ContentKey::of(&parsed).as_bytes().to_vec(),
        inline: false,
        name: None,
        meta: BTreeMap::new(),
        origins: Vec::new(),
    };
    let pins: Vec<NewPin> = (1..1_000).map(pin).collect();
    let made = join_all(pins.into_iter().map(|pin| server.database.add_pin(pin))).await;
    assert!(made.iter().all(Result::is_ok));
    let refused = server.post("/pins", &json!({ "cid": cid(1) })).await.failure(409, "CONFLICT");
    assert!(refused.contains("1000") && refused.contains("replace one"), "{refused}");
    let path = format!("/pins/{}", first["requestid"].as_str().unwrap());
    assert_eq!(server.post(&path, &json!({ "cid": cid(1) })).await.status.as_u16(), 202, "one for one");
    server.pin(json!({ "cid": cid(2) })).await;
}

async fn a_clock_far_behind_the_last_heartbeat_is_not_ready(on: Backend) {
    let clock = TestClock::new();
    let server = Server::opened(on, settings(), |settings| clock.drive(settings)).await;
    let mut node = FakeNode::join(&server).await;
    for (passes, status) in [(-59 * MINUTE, 200), (-2 * MINUTE, 503), (2 * MINUTE, 200)] {
        clock.pass(passes);
        let ready = server.get("/readyz").await;
        assert_eq!(ready.status.as_u16(), status, "{ready:?}");
        assert_eq!(ready.json()["ready"], status == 200);
        assert_eq!(ready.json()["reason"].as_str().is_some_and(|why| why.contains("clock")), status == 503);
    }
    // A machine that slept is merely ahead of what it heard last.
    clock.pass(12 * 60 * MINUTE);
    assert_eq!(server.get("/readyz").await.status.as_u16(), 200);
    node.hello().await;
    assert_eq!(server.get("/readyz").await.status.as_u16(), 200);
}

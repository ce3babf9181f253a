//! The five operations of the specification.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::{
    fake_node::{self, FakeNode},
    server::{ALL, Backend, Server, cid, settings},
};

crate::on_both!(
    a_pin_is_accepted_shown_and_removed,
    a_pin_becomes_pinned_with_its_info,
    everything_that_was_submitted_is_echoed,
    null_and_empty_fields_are_as_absent,
    origins_never_fail_a_request,
    bodies_out_of_bounds_name_the_bound,
    roots_that_cannot_be_held_are_refused_by_name,
    an_identity_cid_is_pinned_at_once,
    the_same_cid_twice_makes_two_pins,
    a_replacement_takes_the_place_in_one_step,
    a_replacement_by_the_same_cid_changes_name_and_meta,
    a_full_account_is_told_what_to_do,
    without_any_node_a_pin_waits_for_the_operator,
    another_accounts_pin_answers_as_a_missing_one,
);

async fn a_pin_is_accepted_shown_and_removed(on: Backend) {
    let server = Server::start(on).await;
    let pin = server.pin(json!({ "cid": cid(1), "name": "n" })).await;
    assert_eq!(pin["status"], "queued");
    assert_eq!(pin["pin"], json!({ "cid": cid(1), "name": "n" }));
    assert_eq!(pin["delegates"], json!([fake_node::address(&fake_node::key())]));
    let created = pin["created"].as_str().unwrap();
    assert!(created.len() == 24 && created.ends_with('Z'), "{created}");

    let path = format!("/pins/{}", pin["requestid"].as_str().unwrap());
    let shown = server.get(&path).await;
    assert_eq!(shown.status, StatusCode::OK);
    assert_eq!(shown.header("content-type"), "application/json");
    assert_eq!(shown.json()["created"], pin["created"], "the same text everywhere");
    let (count, listed) = server.list(&format!("status={ALL}")).await;
    assert_eq!((count, &listed[0]["created"]), (1, &pin["created"]));

    let removed = server.delete(&path).await;
    assert_eq!((removed.status, removed.body.as_str()), (StatusCode::ACCEPTED, ""));
    server.get(&path).await.failure(404, "NOT_FOUND");
    server.delete(&path).await.failure(404, "NOT_FOUND");
    server.post(&path, &json!({ "cid": cid(2) })).await.failure(404, "NOT_FOUND");
}

async fn a_pin_becomes_pinned_with_its_info(on: Backend) {
    let server = Server::start(on).await;
    let mut node = FakeNode::join(&server).await;
    let pin = server.pin(json!({ "cid": cid(1) })).await;
    let path = format!("/pins/{}", pin["requestid"].as_str().unwrap());
    let work = node.take().await;
    node.progress(work[0].allocation, 5_000).await;
    let pinning = server.get(&path).await.json();
    assert_eq!(pinning["status"], "pinning");
    assert_eq!(pinning["info"]["reason"], "retrieving");
    assert_eq!((&pinning["info"]["blocks"], &pinning["info"]["bytes"]), (&json!("5"), &json!("5000")));
    node.stored(work[0].allocation, 9_000).await;
    let pinned = server.get(&path).await.json();
    assert_eq!(pinned["status"], "pinned");
    assert_eq!(pinned["info"]["replicas"], "1/1");
    assert_eq!(pinned["info"]["total_bytes"], "9000");
    assert!(pinned["info"].as_object().unwrap().values().all(Value::is_string));
}

async fn everything_that_was_submitted_is_echoed(on: Backend) {
    let server = Server::start(on).await;
    let v0 = "QmbWqxBEKC3P8tqsKc98xmWNzrzDtRLMiMPL8wBuTGsMnR";
    let base16 = cid::Cid::try_from(v0).unwrap().into_v1().unwrap();
    let base16 = base16.to_string_of_base(cid::multibase::Base::Base16Lower).unwrap();
    for text in [v0, &base16] {
        let body = json!({ "cid": text, "name": "a/b%_\\é", "origins": ["/dns4/a/tcp/1"], "meta": { "k": "v", "": "" } });
        assert_eq!(server.pin(body.clone()).await["pin"], body);
    }
    let (count, _) = server.list(&format!("status={ALL}&cid={v0}")).await;
    assert_eq!(count, 2, "one content, whatever its text");
}

async fn null_and_empty_fields_are_as_absent(on: Backend) {
    let server = Server::start(on).await;
    let pin = server.pin(json!({ "cid": cid(1), "name": null, "origins": null, "meta": null })).await;
    assert_eq!(pin["pin"], json!({ "cid": cid(1) }));
    let pin = server.pin(json!({ "cid": cid(1), "origins": [], "meta": {} })).await;
    assert_eq!(pin["pin"], json!({ "cid": cid(1) }));
}

async fn origins_never_fail_a_request(on: Backend) {
    let server = Server::start(on).await;
    let many: Vec<String> = (0..30).map(|n| format!("/ip4/10.0.0.{n}/tcp/1")).collect();
    let pin = server.pin(json!({ "cid": cid(1), "origins": many })).await;
    assert_eq!(pin["pin"]["origins"], json!(many[..20]));
    let long = format!("/dns4/{}/tcp/1", "a".repeat(1_024));
    let odd = ["nonsense", "/webrtc-direct", "nonsense", &long];
    let pin = server.pin(json!({ "cid": cid(1), "origins": odd })).await;
    assert_eq!(pin["pin"]["origins"], json!(["nonsense", "/webrtc-direct"]));
}

/// So many pairs of metadata.
fn keys(count: usize) -> BTreeMap<String, &'static str> {
    (0..count).map(|key| (key.to_string(), "")).collect()
}

async fn bodies_out_of_bounds_name_the_bound(on: Backend) {
    let server = Server::start(on).await;
    for (body, word) in [
        (json!({}), "cid"),
        (json!({ "cid": "nonsense" }), "cid"),
        (json!({ "cid": "" }), "empty"),
        (json!({ "cid": cid(1), "name": "n".repeat(256) }), "255"),
        (json!({ "cid": cid(1), "name": "a\u{0}" }), "U+0000"),
        (json!({ "cid": cid(1), "meta": { "a": 1 } }), "string"),
        (json!({ "cid": cid(1), "meta": { "k": "v".repeat(16_384) } }), "16384 bytes"),
        (json!({ "cid": cid(1), "meta": keys(1_001) }), "1000 keys"),
        (json!({ "cid": "bafzaajaiaejcbtdgb6ztmayhqgbqbeqwq7a" }), "cid"),
        (json!([]), "body"),
    ] {
        let details = server.post("/pins", &body).await.failure(400, "BAD_REQUEST");
        assert!(details.contains(word), "{body}: {details}");
    }
    let (count, _) = server.list(&format!("status={ALL}")).await;
    assert_eq!(count, 0, "nothing is stored");
    assert!(
        server.post("/pins", &json!({ "cid": cid(1), "name": "é".repeat(255) })).await.status.is_success()
    );
}

async fn roots_that_cannot_be_held_are_refused_by_name(on: Backend) {
    let server = Server::start(on).await;
    let digest = cid::multihash::Multihash::<64>::wrap(0x12, &[7; 32]).unwrap();
    let git = cid::Cid::new_v1(0x78, digest).to_string();
    let details = server.post("/pins", &json!({ "cid": git })).await.failure(400, "BAD_REQUEST");
    assert!(details.contains("git-raw"), "{details}");
    let weak = cid::multihash::Multihash::<64>::wrap(0x12, &[7; 8]).unwrap();
    let weak = cid::Cid::new_v1(0x55, weak).to_string();
    let details = server.post("/pins", &json!({ "cid": weak })).await.failure(400, "BAD_REQUEST");
    assert!(details.contains("digest"), "{details}");
}

async fn an_identity_cid_is_pinned_at_once(on: Backend) {
    let server = Server::start(on).await;
    let pin = server.pin(json!({ "cid": "bafkqaaa" })).await;
    assert_eq!(pin["status"], "pinned");
    assert_eq!(pin["delegates"].as_array().unwrap().len(), 1, "never null, never empty");
    assert_eq!(server.cids("").await, ["bafkqaaa"]);
}

async fn the_same_cid_twice_makes_two_pins(on: Backend) {
    let server = Server::start(on).await;
    let mut node = FakeNode::join(&server).await;
    let first = server.pin(json!({ "cid": cid(1) })).await;
    let second = server.pin(json!({ "cid": cid(1), "origins": ["/ip4/10.0.0.1/tcp/1"] })).await;
    assert_ne!(first["requestid"], second["requestid"]);
    assert!(first["created"].as_str() < second["created"].as_str());
    node.store_all(100).await;
    let (count, _) = server.list("status=pinned").await;
    assert_eq!(count, 2, "one fetch for both");
    let account = server.get("/api/v1/account").await.json();
    assert_eq!(account["used_bytes"], 4_096, "charged once");
}

async fn a_replacement_takes_the_place_in_one_step(on: Backend) {
    let server = Server::start(on).await;
    let mut node = FakeNode::join(&server).await;
    let old = server.pin(json!({ "cid": cid(1), "name": "old" })).await;
    node.store_all(100).await;
    let path = format!("/pins/{}", old["requestid"].as_str().unwrap());
    let answer = server.post(&path, &json!({ "cid": cid(2), "name": "new" })).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    let new = answer.json();
    assert_ne!(new["requestid"], old["requestid"]);
    server.get(&path).await.failure(404, "NOT_FOUND");
    assert!(new["info"]["status_details"].as_str().unwrap().contains(&cid(1)), "{new}");
    let work = node.take().await;
    assert_eq!(work[0].predecessor.as_deref(), Some(cid(1).as_str()));
    let stale = server.post(&path, &json!({ "cid": cid(3) })).await;
    stale.failure(404, "NOT_FOUND");
}

async fn a_replacement_by_the_same_cid_changes_name_and_meta(on: Backend) {
    let server = Server::start(on).await;
    let mut node = FakeNode::join(&server).await;
    let old = server.pin(json!({ "cid": cid(1), "name": "old", "origins": ["/dns4/a/tcp/1"] })).await;
    node.store_all(100).await;
    // What Helia does: it gives back the origins that the list returned.
    let (_, listed) = server.list(&format!("cid={}&limit=1", cid(1))).await;
    let origins = listed[0]["pin"]["origins"].clone();
    let path = format!("/pins/{}", old["requestid"].as_str().unwrap());
    let body = json!({ "cid": cid(1), "name": "new", "meta": { "a": "b" }, "origins": origins });
    let new = server.post(&path, &body).await.json();
    assert_eq!((&new["status"], &new["pin"]), (&json!("pinned"), &body));
}

async fn a_full_account_is_told_what_to_do(on: Backend) {
    let server = Server::start(on).await;
    let mut node = FakeNode::join(&server).await;
    let other = server.database.create_account("bob", None).await.unwrap();
    let token = server.token_for(other.id, &[pinfold_service::db::Scope::PinsWrite]).await;
    server.pin(json!({ "cid": cid(1) })).await;
    node.store_all(10_000).await;
    server.database.set_quota(other.id, 5_000).await.unwrap();
    let bob = Server { token, ..server };
    let details = bob.post("/pins", &json!({ "cid": cid(1) })).await.failure(409, "INSUFFICIENT_FUNDS");
    assert!(details.contains("0 of its 5000 bytes") && details.contains("remove pins"), "{details}");
}

async fn without_any_node_a_pin_waits_for_the_operator(on: Backend) {
    let server = Server::without_nodes(on, settings()).await;
    // Even one that is pinned by itself: an answer names one delegate or more.
    for cid in [cid(1), "bafkqaaa".to_owned()] {
        let answer = server.post("/pins", &json!({ "cid": cid })).await;
        answer.failure(503, "SERVICE_UNAVAILABLE");
        assert!(answer.header("retry-after").parse::<u64>().unwrap() > 0);
    }
}

async fn another_accounts_pin_answers_as_a_missing_one(on: Backend) {
    let server = Server::start(on).await;
    let pin = server.pin(json!({ "cid": cid(1) })).await;
    let path = format!("/pins/{}", pin["requestid"].as_str().unwrap());
    let missing = format!("/pins/{}", uuid::Uuid::now_v7());
    let other = server.database.create_account("bob", None).await.unwrap();
    let scopes = [pinfold_service::db::Scope::PinsRead, pinfold_service::db::Scope::PinsWrite];
    let token = server.token_for(other.id, &scopes).await;
    let bob = Server { token, ..server };
    for path in [&path, &missing, "/pins/nonsense", "/pins/%ff", "/pins/%2F"] {
        let foreign = bob.get(path).await.failure(404, "NOT_FOUND");
        assert_eq!(foreign, bob.get(&missing).await.failure(404, "NOT_FOUND"), "{path}");
        bob.delete(path).await.failure(404, "NOT_FOUND");
        bob.post(path, &json!({ "cid": cid(2) })).await.failure(404, "NOT_FOUND");
    }
    assert!(bob.cids(&format!("status={ALL}")).await.is_empty());
}

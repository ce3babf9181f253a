//! The denylist, of a file and of the database: new pins, held contents, nodes.

use std::time::Duration;

use pinfold_node_api::{Denylist, Event, EventKind, path};
use pinfold_service::{Service, Settings};
use serde_json::json;
use tracing::Level;

use crate::{
    access_log::Log,
    fake_node::FakeNode,
    server::{ALL, Backend, Server, answer, cid, settings},
};

crate::on_both!(
    a_denied_block_fails_the_pins_of_a_held_content_until_it_is_lifted,
    held_contents_fail_while_the_file_denies_them,
    new_pins_are_refused_and_nodes_are_told,
    a_service_does_not_start_without_its_denylist,
    a_rule_in_the_database_holds_at_every_service,
);

/// A running service (its tasks included) over the same data as the router.
async fn running(server: &Server, file: &std::path::Path) -> Service {
    let settings = Settings { denylist: Some(file.to_owned()), ..settings() };
    Service::start(settings, server.database.clone(), server.keyring.clone()).await.unwrap()
}

async fn eventually(server: &Server, path: &str, status: &str) -> serde_json::Value {
    let mut changes = server.database.subscribe();
    for _ in 0..200 {
        let pin = server.get(path).await.json();
        if pin["status"] == status {
            return pin;
        }
        let _ = tokio::time::timeout(Duration::from_millis(100), changes.recv()).await;
    }
    panic!("{path} never was {status}");
}

async fn held_contents_fail_while_the_file_denies_them(on: Backend) {
    let server = Server::start(on).await;
    let mut node = FakeNode::join(&server).await;
    let pin = server.pin(json!({ "cid": cid(1) })).await;
    node.store_all(100).await;
    let path = format!("/pins/{}", pin["requestid"].as_str().unwrap());
    let file = server.folder.path().join("deny.txt");
    std::fs::write(&file, format!("/ipfs/{}\n", cid(1))).unwrap();
    let service = running(&server, &file).await;
    let failed = eventually(&server, &path, "failed").await;
    assert_eq!(failed["info"]["reason"], "denied");

    std::fs::write(&file, "# nothing is denied\n").unwrap();
    eventually(&server, &path, "pinned").await;
    service.shutdown();
    service.join().await;
}

async fn a_denied_block_fails_the_pins_of_a_held_content_until_it_is_lifted(on: Backend) {
    let server = Server::start(on).await;
    let mut node = FakeNode::join(&server).await;
    let pin = server.pin(json!({ "cid": cid(1) })).await;
    let allocation = node.take().await[0].allocation;
    node.stored(allocation, 100).await;
    let path = format!("/pins/{}", pin["requestid"].as_str().unwrap());
    let mut found = async |denylist, denied| {
        let kind = EventKind::Compared { denylist, denied };
        node.report(vec![Event { allocation, kind }]).await;
        server.get(&path).await.json()
    };
    let failed = found(3, true).await;
    assert_eq!((&failed["status"], &failed["info"]["reason"]), (&json!("failed"), &json!("denied")));
    assert_eq!(found(2, false).await["status"], "failed", "under an older list");
    // Rules that name the root deny and lift for themselves alone.
    let content = allocation.content;
    assert_eq!(server.database.deny(&[content]).await.unwrap(), 1);
    assert!(server.database.held_contents(0, 10).await.unwrap()[0].denied);
    assert_eq!(server.database.lift(&[content]).await.unwrap(), 1);
    assert_eq!(server.get(&path).await.json()["status"], "failed");
    assert_eq!(found(4, false).await["status"], "pinned");
    // What is stored anew was walked under the rules, and is compared again.
    assert_eq!(found(5, true).await["status"], "failed");
    node.report(vec![Event { allocation, kind: EventKind::Lost { blocks: 1 } }]).await;
    node.stored(allocation, 100).await;
    assert_eq!(server.get(&path).await.json()["status"], "pinned");
}

async fn new_pins_are_refused_and_nodes_are_told(on: Backend) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("deny.txt");
    std::fs::write(&file, format!("/ipfs/{}\n", cid(1))).unwrap();
    let server = Server::with(on, Settings { denylist: Some(file), ..settings() }).await;
    let details = server.post("/pins", &json!({ "cid": cid(1) })).await.failure(403, "DENIED");
    assert!(details.contains("denylist"), "{details}");
    let (log, guard) = Log::start(Level::INFO);
    server.post("/pins", &json!({ "cid": cid(1) })).await.failure(403, "DENIED");
    assert!(log.text().contains(&cid(1)), "the operator does not learn of it: {}", log.text());
    drop(guard);
    let other = server.pin(json!({ "cid": cid(2) })).await;
    let replace = format!("/pins/{}", other["requestid"].as_str().unwrap());
    server.post(&replace, &json!({ "cid": cid(1) })).await.failure(403, "DENIED");
    assert_eq!(server.list(&format!("status={ALL}")).await.0, 1);

    let mut node = FakeNode::join(&server).await;
    let list: Denylist = node.send(path::DENYLIST, &()).await;
    assert!(list.version > 0 && list.rules.contains(&cid(1)));
    assert_eq!(node.pull(10_000, Vec::new()).await.denylist_version, list.version, "at once, not after 10 s");
}

async fn a_service_does_not_start_without_its_denylist(on: Backend) {
    let server = Server::start(on).await;
    let missing = server.folder.path().join("missing.txt");
    let settings = Settings { denylist: Some(missing), ..settings() };
    let error = Service::start(settings, server.database.clone(), server.keyring.clone()).await.unwrap_err();
    assert!(error.to_string().contains("missing.txt"), "{error}");
}

/// Whether a service refuses to pin a CID.
async fn refuses(service: &Service, server: &Server, cid: &str) -> bool {
    let request = axum::http::Request::post("/pins")
        .header("authorization", format!("Bearer {}", server.token))
        .body(json!({ "cid": cid }).to_string().into())
        .unwrap();
    answer(service.router(), request).await.status == 403
}

async fn applies_version(service: &Service, version: i64) {
    let mut versions = service.denylist();
    let applied = versions.wait_for(|applied| *applied == version);
    tokio::time::timeout(Duration::from_secs(20), applied).await.expect("the rules are not applied").unwrap();
}

async fn a_rule_in_the_database_holds_at_every_service(on: Backend) {
    let server = Server::start(on).await;
    let mut services = Vec::new();
    for _ in 0..2 {
        let database = server.another_database().await;
        services.push(Service::start(settings(), database, server.keyring.clone()).await.unwrap());
    }
    let rule = format!("/ipfs/{}", cid(1));
    assert_eq!(server.database.add_denylist_rules(vec![rule.clone(), rule.clone()]).await.unwrap(), 1);
    for service in &services {
        applies_version(service, 1).await;
        assert!(refuses(service, &server, &cid(1)).await);
        assert!(!refuses(service, &server, &cid(2)).await);
    }
    assert!(server.database.remove_denylist_rule(&rule).await.unwrap());
    for service in services {
        applies_version(&service, 2).await;
        assert!(!refuses(&service, &server, &cid(1)).await);
        service.shutdown();
        service.join().await;
    }
}

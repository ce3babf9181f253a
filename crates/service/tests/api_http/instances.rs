//! Several services on one database: what one of them is told holds at the
//! others with the next request, and they share the rate limits.

use std::{num::NonZeroU32, time::Duration};

use axum::{Router, body::Body, http::Request};
use pinfold_service::{
    Rate, RateLimits, Service, Settings,
    api::service::router,
    tokens::{Keyring, Secret},
};
use serde_json::json;
use tokio::sync::watch;

use crate::{
    events::Events,
    fake_node::FakeNode,
    server::{Backend, Server, answer, cid, settings},
};

crate::on_both!(
    each_live_service_gives_its_share_of_the_limits,
    a_token_revoked_at_one_service_is_refused_by_another,
    a_disabled_account_is_refused_by_another_service,
);

/// The status of a list of pins at another service.
async fn listed(router: &Router, server: &Server) -> u16 {
    let request = Request::get("/pins").header("authorization", format!("Bearer {}", server.token));
    answer(router.clone(), request.body(Body::empty()).unwrap()).await.status.as_u16()
}

/// The routes of another process on the same data.
async fn another(server: &Server) -> Router {
    let database = server.another_database().await;
    let keyring = Keyring::open(database.clone(), Secret::from_bytes(&[1; 32])).await.unwrap();
    router(&settings(), database, keyring).await.unwrap()
}

async fn a_token_revoked_at_one_service_is_refused_by_another(on: Backend) {
    let server = Server::start(on).await;
    let other = another(&server).await;
    assert_eq!(listed(&other, &server).await, 200);
    let id = &server.get("/api/v1/account").await.json()["token"]["id"];
    let path = format!("/api/v1/tokens/{}", id.as_str().unwrap());
    assert_eq!(server.delete(&path).await.status.as_u16(), 204);
    assert_eq!(listed(&other, &server).await, 401, "with the next request");
}

async fn a_disabled_account_is_refused_by_another_service(on: Backend) {
    let server = Server::start(on).await;
    let other = another(&server).await;
    assert_eq!(listed(&other, &server).await, 200);
    server.database.set_account_disabled(server.account.id, true).await.unwrap();
    assert_eq!(listed(&other, &server).await, 403, "with the next request");
    server.database.set_account_disabled(server.account.id, false).await.unwrap();
    assert_eq!(listed(&other, &server).await, 200);
}

/// What one service alone lets pass at once. So many that the one a second
/// which comes back does not blur a half of them.
const BURST: u32 = 200;

fn limited() -> Settings {
    let one = NonZeroU32::MIN;
    let writes = Rate { per_second: one, burst: NonZeroU32::new(BURST).unwrap() };
    let rates = RateLimits { writes, ..RateLimits::default() };
    Settings { rate_limits: Some(rates), heartbeat: Duration::from_millis(50), ..settings() }
}

async fn become_live(live: &mut watch::Receiver<u32>, count: u32) {
    let becoming = live.wait_for(|live| *live == count);
    tokio::time::timeout(Duration::from_secs(20), becoming)
        .await
        .expect("they do not find each other")
        .unwrap();
}

/// How many of an account's writes pass before one is refused.
async fn passed(service: &Service, server: &Server) -> u32 {
    for number in 0..2 * BURST {
        let request = Request::post("/pins")
            .header("authorization", format!("Bearer {}", server.token))
            .body(json!({ "cid": "bafkqaaa", "name": cid(number.into()) }).to_string().into())
            .unwrap();
        match answer(service.router(), request).await.status.as_u16() {
            202 => {}
            429 => return number,
            other => panic!("{other}"),
        }
    }
    panic!("nothing is limited");
}

async fn each_live_service_gives_its_share_of_the_limits(on: Backend) {
    let server = Server::with(on, settings()).await;
    let one = Service::start(limited(), server.database.clone(), server.keyring.clone()).await.unwrap();
    assert_eq!(*one.live().borrow(), 1);
    let database = server.another_database().await;
    let keyring = Keyring::open(database.clone(), Secret::from_bytes(&[1; 32])).await.unwrap();
    let two = Service::start(limited(), database.clone(), keyring).await.unwrap();
    assert_eq!(*two.live().borrow(), 2, "before its first request");
    become_live(&mut one.live(), 2).await;
    for service in [&one, &two] {
        let passed = passed(service, &server).await;
        assert!((BURST / 2..BURST).contains(&passed), "{passed} of {BURST}");
    }
    two.shutdown();
    two.join().await;
    database.close().await;
    become_live(&mut one.live(), 1).await;
    one.shutdown();
    one.join().await;
}

/// A node reports to one service, and whoever watches a pin at another sees it.
/// On PostgreSQL, which alone several services run on.
#[tokio::test]
async fn events_on_postgres_come_from_services_that_no_node_reports_to() {
    let server = Server::start(Backend::Postgres).await;
    let mut node = FakeNode::join(&server).await;
    let database = server.another_database().await;
    let keyring = Keyring::open(database.clone(), Secret::from_bytes(&[1; 32])).await.unwrap();
    let other = Service::start(settings(), database.clone(), keyring).await.unwrap();
    let pin = server.pin(json!({ "cid": cid(1) })).await;
    let mut events = Events::at(other.router(), &server, &pin["requestid"]).await;
    assert_eq!(events.next().await.unwrap().1["status"], "queued");
    let work = node.take().await;
    node.progress(work[0].allocation, 5_000).await;
    assert_eq!(events.next().await.unwrap().1["info"]["bytes"], "5000");
    node.stored(work[0].allocation, 9_000).await;
    let mut last = json!(null);
    while let Some((_, status)) = events.next().await {
        last = status;
    }
    assert_eq!(last["status"], "pinned");
    other.shutdown();
    other.join().await;
    database.close().await;
}

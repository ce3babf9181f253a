//! Several services on one database share the rate limits.

use std::{num::NonZeroU32, time::Duration};

use pinfold_service::{
    Rate, RateLimits, Service, Settings,
    tokens::{Keyring, Secret},
};
use serde_json::json;
use tokio::sync::watch;

use crate::server::{Backend, Server, cid, settings};

crate::on_both!(each_live_service_gives_its_share_of_the_limits);

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
        let request = axum::http::Request::post("/pins")
            .header("authorization", format!("Bearer {}", server.token))
            .body(json!({ "cid": "bafkqaaa", "name": cid(number.into()) }).to_string().into())
            .unwrap();
        match crate::server::answer(service.router(), request).await.status.as_u16() {
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

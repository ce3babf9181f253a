//! Rate limits over HTTP.

use pinfold_service::{Rate, RateLimits, Settings};
use serde_json::json;

use crate::server::{Server, cid, settings};

fn rate(per_second: u32, burst: u32) -> Rate {
    Rate { per_second: per_second.try_into().unwrap(), burst: burst.try_into().unwrap() }
}

#[tokio::test]
async fn beyond_the_burst_requests_are_429_with_retry_after() {
    let (reads, writes, address) = (rate(1, 3), rate(1, 2), rate(1, 100));
    let rates = RateLimits { reads, writes, address, ..RateLimits::default() };
    let server = Server::with(Settings { rate_limits: Some(rates), ..settings() }).await;
    let pin = server.pin(json!({ "cid": cid(1) })).await;
    let path = format!("/pins/{}", pin["requestid"].as_str().unwrap());
    for _ in 0..20 {
        assert_eq!(server.get(&path).await.status.as_u16(), 200, "polling costs a tenth");
    }
    assert_eq!(server.get("/pins").await.status.as_u16(), 200);
    let refused = server.get("/pins").await;
    refused.failure(429, "TOO_MANY_REQUESTS");
    assert_eq!(refused.header("retry-after"), "1");
    server.pin(json!({ "cid": cid(2) })).await;
    server.post("/pins", &json!({ "cid": cid(3) })).await.failure(429, "TOO_MANY_REQUESTS");
}

#[tokio::test]
async fn an_ordinary_burst_of_lists_passes() {
    let server = Server::with(Settings { rate_limits: Some(RateLimits::default()), ..settings() }).await;
    for _ in 0..300 {
        assert_eq!(server.get("/pins?limit=1").await.status.as_u16(), 200);
    }
}

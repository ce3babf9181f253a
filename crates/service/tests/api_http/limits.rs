//! Rate limits over HTTP.

use pinfold_service::{Rate, RateLimits, Settings};
use serde_json::json;

use crate::server::{Answer, Backend, Server, cid, settings};

crate::on_both!(
    beyond_the_burst_requests_are_429_with_retry_after,
    polling_ones_own_pin_costs_a_tenth,
    an_ordinary_burst_of_lists_passes,
);

fn rate(per_second: u32, burst: u32) -> Rate {
    Rate { per_second: per_second.try_into().unwrap(), burst: burst.try_into().unwrap() }
}

async fn beyond_the_burst_requests_are_429_with_retry_after(on: Backend) {
    let rates = RateLimits { reads: rate(1, 3), writes: rate(1, 2), address: rate(1, 100) };
    let server = Server::with(on, Settings { rate_limits: Some(rates), ..settings() }).await;
    server.pin(json!({ "cid": cid(1) })).await;
    let lists = refused(async || server.get("/pins").await).await;
    let writes = refused(async || server.post("/pins", &json!({ "cid": cid(2) })).await).await;
    for refused in [lists, writes] {
        refused.failure(429, "TOO_MANY_REQUESTS");
        assert_eq!(refused.header("retry-after"), "1");
    }
}

/// The first refusal; one comes before a hundred requests have passed, however
/// slow the machine is.
async fn refused(request: impl AsyncFn() -> Answer) -> Answer {
    for _ in 0..100 {
        let answer = request().await;
        if !answer.status.is_success() {
            return answer;
        }
    }
    panic!("a hundred requests passed");
}

async fn polling_ones_own_pin_costs_a_tenth(on: Backend) {
    let rates = RateLimits { reads: rate(1, 10), ..RateLimits::default() };
    let server = Server::with(on, Settings { rate_limits: Some(rates), ..settings() }).await;
    let pin = server.pin(json!({ "cid": cid(1) })).await;
    let path = format!("/pins/{}", pin["requestid"].as_str().unwrap());
    for _ in 0..100 {
        assert_eq!(server.get(&path).await.status.as_u16(), 200, "ten times the burst of lists");
    }
    refused(async || server.get(&path).await).await.failure(429, "TOO_MANY_REQUESTS");
}

async fn an_ordinary_burst_of_lists_passes(on: Backend) {
    let server = Server::with(on, Settings { rate_limits: Some(RateLimits::default()), ..settings() }).await;
    for _ in 0..300 {
        assert_eq!(server.get("/pins?limit=1").await.status.as_u16(), 200);
    }
}

//! `GET /pins`: pages, cursors, counts and filters.

use std::time::Duration;

use pinfold_service::{api::service::router, db::Location};
use serde_json::json;

use crate::server::{ALL, Backend, Server, cid, settings};

crate::on_both!(
    ten_of_the_newest_by_default,
    kubo_reads_every_page_once,
    helia_pages_by_after_to_an_end,
    cursors_are_strict_to_the_nanosecond,
    names_match_four_ways,
    meta_matches_all_pairs_in_both_forms,
    bounds_are_named,
    a_removal_of_all_that_was_listed_leaves_nothing,
    a_query_past_its_time_is_a_400,
);

async fn with_pins(on: Backend, count: u64) -> Server {
    let server = Server::start(on).await;
    for number in 0..count {
        server.pin(json!({ "cid": cid(number), "name": format!("pin {number}") })).await;
    }
    server
}

fn newest_first(range: std::ops::Range<u64>) -> Vec<String> {
    range.rev().map(cid).collect()
}

async fn ten_of_the_newest_by_default(on: Backend) {
    let server = with_pins(on, 12).await;
    assert_eq!(server.list("").await, (0, vec![]), "only what is pinned, without a status");
    let (count, pins) = server.list(&format!("status={ALL}")).await;
    assert_eq!((count, pins.len()), (12, 10));
    assert_eq!(server.cids(&format!("status={ALL}")).await, newest_first(2..12));
}

async fn kubo_reads_every_page_once(on: Backend) {
    let server = with_pins(on, 25).await;
    let mut seen = Vec::new();
    let mut before = String::new();
    loop {
        let (count, pins) = server.list(&format!("status=queued%2Cpinning&limit=10{before}")).await;
        assert_eq!(count, 25 - i64::try_from(seen.len()).unwrap(), "the count goes with the cursor");
        seen.extend(pins.iter().map(|pin| pin["pin"]["cid"].as_str().unwrap().to_owned()));
        if count == i64::try_from(pins.len()).unwrap() {
            break;
        }
        // Go prints nanoseconds without trailing zeros.
        let last = pins.last().unwrap()["created"].as_str().unwrap();
        before = format!("&before={}", last.replace(':', "%3A"));
    }
    assert_eq!(seen, newest_first(0..25));
}

async fn helia_pages_by_after_to_an_end(on: Backend) {
    let server = with_pins(on, 5).await;
    let mut after = String::new();
    let mut requests = 0;
    loop {
        let (_, pins) = server.list(&format!("status={ALL}&limit=1000{after}")).await;
        requests += 1;
        let Some(newest) = pins.first() else { break };
        after = format!("&after={}", newest["created"].as_str().unwrap());
    }
    assert_eq!(requests, 2, "after is strict");
}

async fn cursors_are_strict_to_the_nanosecond(on: Backend) {
    let server = with_pins(on, 1).await;
    let (_, pins) = server.list(&format!("status={ALL}")).await;
    let created = pins[0]["created"].as_str().unwrap();
    let later = created.replace('Z', "000001Z");
    for (filter, count) in [
        (format!("before={created}"), 0),
        (format!("before={later}"), 1),
        (format!("after={created}"), 0),
        (format!("after={later}"), 0),
        (format!("before={}", created.replace('Z', "%2B00:00")), 0),
        ("after=1970-01-01T00:00:00Z".to_owned(), 1),
    ] {
        assert_eq!(server.list(&format!("status={ALL}&{filter}")).await.0, count, "{filter}");
    }
}

async fn names_match_four_ways(on: Backend) {
    let server = Server::start(on).await;
    for (number, name) in ["Report", "report", "my report.pdf", "100%_\\x", "Straße"].iter().enumerate() {
        server.pin(json!({ "cid": cid(number as u64), "name": name })).await;
    }
    for (filter, found) in [
        ("name=report", vec![1]),
        ("name=report&match=exact", vec![1]),
        ("name=REPORT&match=iexact", vec![1, 0]),
        ("name=report&match=partial", vec![2, 1]),
        ("name=REPORT&match=ipartial", vec![2, 1, 0]),
        ("name=STRASSE&match=iexact", vec![4]),
        ("name=%25_&match=partial", vec![3]),
        ("name=_&match=partial", vec![3]),
        ("name=none", vec![]),
    ] {
        let cids: Vec<String> = found.into_iter().map(cid).collect();
        assert_eq!(server.cids(&format!("status={ALL}&{filter}")).await, cids, "{filter}");
    }
}

async fn meta_matches_all_pairs_in_both_forms(on: Backend) {
    let server = Server::start(on).await;
    server.pin(json!({ "cid": cid(0), "meta": { "app_id": "x", "b": "1" } })).await;
    server.pin(json!({ "cid": cid(1), "meta": { "app_id": "x" } })).await;
    for (filter, found) in [
        ("meta={\"app_id\":\"x\"}".replace('"', "%22").replace('{', "%7B").replace('}', "%7D"), vec![1, 0]),
        ("meta%5Bapp_id%5D=x".to_owned(), vec![1, 0]),
        ("meta%5Bapp_id%5D=x&meta%5Bb%5D=1".to_owned(), vec![0]),
        ("meta%5Bapp_id%5D=y".to_owned(), vec![]),
    ] {
        let cids: Vec<String> = found.into_iter().map(cid).collect();
        assert_eq!(server.cids(&format!("status={ALL}&{filter}")).await, cids, "{filter}");
    }
    server.get("/pins?meta=nonsense").await.failure(400, "BAD_REQUEST");
}

async fn bounds_are_named(on: Backend) {
    let server = Server::start(on).await;
    for (query, word) in [
        ("limit=0".to_owned(), "1 to 1000"),
        ("limit=1001".to_owned(), "1 to 1000"),
        (format!("cid={}", vec![cid(1); 11].join(",")), "at most 10"),
        (format!("name={}", "n".repeat(256)), "255"),
        ("status=done".to_owned(), "failed"),
        ("before=x".to_owned(), "RFC 3339"),
    ] {
        let details = server.get(&format!("/pins?{query}")).await.failure(400, "BAD_REQUEST");
        assert!(details.contains(word), "{query}: {details}");
    }
    assert_eq!(server.get("/pins?limit=1000").await.status.as_u16(), 200);
}

async fn a_removal_of_all_that_was_listed_leaves_nothing(on: Backend) {
    let server = with_pins(on, 8).await;
    let (_, pins) = server.list(&format!("status={ALL}&cid={}", cid(3))).await;
    assert_eq!(pins.len(), 1);
    let (_, pins) = server.list(&format!("status={ALL}")).await;
    let paths: Vec<String> =
        pins.iter().map(|pin| format!("/pins/{}", pin["requestid"].as_str().unwrap())).collect();
    let removed = futures::future::join_all(paths.iter().map(|path| server.delete(path))).await;
    assert!(removed.iter().all(|answer| answer.status.as_u16() == 202));
    assert_eq!(server.list(&format!("status={ALL}")).await, (0, vec![]));
}

/// A name too short for the index of parts of names: all names are read.
const SLOW: &str = "name=zz&match=partial";

/// Asked of a service that gives a query hardly any time.
async fn a_query_past_its_time_is_a_400(on: Backend) {
    let mut server = with_pins(on, 0).await;
    for number in 0..400 {
        server.pin(json!({ "cid": "bafkqaaa", "name": format!("pin {number}") })).await;
    }
    let limit = match on {
        // Passed at the first look at the clock, which look-ups by key end
        // before.
        Backend::Sqlite => Duration::ZERO,
        Backend::Postgres => Duration::from_millis(250),
    };
    let hasty = server.another_database_with(|opening| opening.query_timeout = limit).await;
    server.router = router(&settings(), hasty, server.keyring.clone()).await.unwrap();
    let slow = format!("/pins?status={ALL}&{SLOW}");
    let answer = match &server.location {
        Location::Sqlite(_) => server.get(&slow).await,
        Location::Postgres(url) => {
            let (other, connection) = crate::cluster::connect(url).await;
            let connection = tokio::spawn(connection);
            other.batch_execute("BEGIN; LOCK TABLE pin IN ACCESS EXCLUSIVE MODE").await.unwrap();
            let answer = server.get(&slow).await;
            drop(other);
            connection.await.unwrap().unwrap();
            answer
        }
    };
    let details = answer.failure(400, "BAD_REQUEST");
    assert!(details.contains("time limit") && details.contains("narrow"), "{details}");
    if on == Backend::Postgres {
        // The connection that was used for it serves the next.
        assert_eq!(server.list(&format!("status={ALL}&limit=1")).await.0, 400);
    }
}

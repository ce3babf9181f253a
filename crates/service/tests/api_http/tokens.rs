//! `/api/v1/account` and `/api/v1/tokens`.

use pinfold_service::db::{Deed, Scope};
use serde_json::json;

use crate::server::{Backend, Server};

crate::on_both!(
    the_account_is_shown,
    a_token_is_made_used_listed_and_revoked,
    a_token_never_gives_more_than_it_has,
    a_token_that_ends_makes_tokens_that_end_no_later,
    another_accounts_tokens_are_not_seen,
);

async fn the_account_is_shown(on: Backend) {
    let server = Server::start(on).await;
    server.pin(json!({ "cid": "bafkqaaa" })).await;
    let account = server.get("/api/v1/account").await.json();
    assert_eq!((&account["name"], &account["quota_bytes"]), (&json!("alice"), &json!(20_000_000_000_u64)));
    assert_eq!(account["pins"], json!({ "queued": 0, "pinning": 0, "pinned": 1, "failed": 0 }));
    assert_eq!(account["token"]["scopes"], json!(["pins:read", "pins:write"]));
}

async fn a_token_is_made_used_listed_and_revoked(on: Backend) {
    let server = Server::start(on).await;
    let made = server.post("/api/v1/tokens", &json!({ "name": "laptop", "scopes": ["pins:read"] })).await;
    assert_eq!(made.status.as_u16(), 201, "{made:?}");
    let made = made.json();
    let listed = server.get("/api/v1/tokens").await;
    assert!(!listed.body.contains(made["token"].as_str().unwrap()), "shown once");
    let names: Vec<_> =
        listed.json()["tokens"].as_array().unwrap().iter().map(|t| t["name"].clone()).collect();
    assert_eq!(names, ["laptop", "test"]);

    let main = server.token.clone();
    let laptop = Server { token: made["token"].as_str().unwrap().to_owned(), ..server };
    assert_eq!(laptop.get("/pins").await.status.as_u16(), 200);
    laptop.post("/api/v1/tokens", &json!({ "name": "x" })).await.failure(403, "FORBIDDEN");
    let server = Server { token: main, ..laptop };
    let path = format!("/api/v1/tokens/{}", made["id"].as_str().unwrap());
    assert_eq!(server.delete(&path).await.status.as_u16(), 204);
    let laptop = Server { token: made["token"].as_str().unwrap().to_owned(), ..server };
    laptop.get("/pins").await.failure(401, "UNAUTHORIZED");
    let by_token = |deed: &Deed| deed.actor.starts_with("token ");
    let deeds: Vec<_> =
        laptop.database.deeds(i64::MAX, 10).await.unwrap().into_iter().filter(by_token).collect();
    let done: Vec<_> = deeds.iter().map(|deed| (deed.action.as_str(), deed.subject.as_str())).collect();
    let id = made["id"].as_str().unwrap();
    assert_eq!(done, [("token.revoke", id), ("token.create", id)]);
}

async fn a_token_never_gives_more_than_it_has(on: Backend) {
    let server = Server::start(on).await;
    let main = server.token.clone();
    let token = server.token_for(server.account.id, &[Scope::PinsWrite]).await;
    let writer = Server { token, ..server };
    let wider = json!({ "name": "x", "scopes": ["pins:read"] });
    let refused = writer.post("/api/v1/tokens", &wider).await;
    assert!(refused.failure(403, "FORBIDDEN").contains("lacks pins:read"));
    let server = Server { token: main, ..writer };
    for (body, word) in [
        (json!({ "name": "x", "scopes": ["admin"] }), "pins:read and pins:write"),
        (json!({}), "name"),
        (json!({ "name": "" }), "1 to 255"),
        (json!({ "name": "x", "scopes": ["all"] }), "pins:read"),
        (json!({ "name": "x", "expires": "soon" }), "RFC 3339"),
        (json!({ "name": "x", "expires": "2020-01-01T00:00:00Z" }), "past"),
    ] {
        let details = server.post("/api/v1/tokens", &body).await.failure(400, "BAD_REQUEST");
        assert!(details.contains(word), "{details}");
    }
}

async fn a_token_that_ends_makes_tokens_that_end_no_later(on: Backend) {
    let server = Server::start(on).await;
    let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1);
    let made =
        server.post("/api/v1/tokens", &json!({ "name": "a", "expires": soon.to_string() })).await.json();
    let short = Server { token: made["token"].as_str().unwrap().to_owned(), ..server };
    for body in [json!({ "name": "b" }), json!({ "name": "b", "expires": "2999-01-01T00:00:00Z" })] {
        let child = short.post("/api/v1/tokens", &body).await.json();
        assert_eq!(child["expires"], made["expires"]);
    }
}

async fn another_accounts_tokens_are_not_seen(on: Backend) {
    let server = Server::start(on).await;
    let bob = server.database.create_account("bob", None).await.unwrap();
    let token = server.token_for(bob.id, &[Scope::PinsRead, Scope::PinsWrite]).await;
    let own = server.database.tokens(Some(server.account.id)).await.unwrap()[0].id;
    let bob = Server { token, ..server };
    bob.delete(&format!("/api/v1/tokens/{own}")).await.failure(404, "NOT_FOUND");
    bob.delete("/api/v1/tokens/nonsense").await.failure(404, "NOT_FOUND");
    assert_eq!(bob.get("/api/v1/tokens").await.json()["tokens"].as_array().unwrap().len(), 1);
}

//! Tokens on requests: who is let in, and what for.

use axum::{
    body::Body,
    http::{Request, header},
};
use pinfold_service::{
    db::{Location, Scope},
    tokens::{self, Keyring, Secret, TokenRequest},
};
use serde_json::json;

use crate::server::{Answer, Backend, Server, cid};

crate::on_both!(
    without_a_valid_token_every_operation_is_401,
    algorithms_and_keys_of_the_tokens_choice_are_refused,
    another_services_token_is_refused,
    scopes_are_enforced_and_named,
    a_revoked_token_is_refused_on_the_next_request,
    an_expired_token_is_refused,
    a_disabled_account_is_refused_and_let_in_again,
    rotation_leaves_tokens_valid_and_another_process_learns_the_new_key,
    another_secret_does_not_open_the_keys,
    only_a_hash_of_the_token_is_stored,
);

async fn with_authorization(server: &Server, value: Option<&str>) -> Answer {
    let mut request = Request::get("/pins");
    if let Some(value) = value {
        request = request.header(header::AUTHORIZATION, value);
    }
    server.send(request.body(Body::empty()).unwrap()).await
}

async fn without_a_valid_token_every_operation_is_401(on: Backend) {
    let server = Server::start(on).await;
    let (start, end) = server.token.split_at(server.token.len() - 5);
    for value in [
        None,
        Some("Bearer"),
        Some("Bearer "),
        Some("Bearer nonsense"),
        Some("Basic YTpi"),
        Some(server.token.as_str()),
        Some(&format!("Bearer {start}AAAAA")),
        Some(&format!("Bearer {end}{start}")),
        Some(&format!("Bearer {}", "a".repeat(5_000))),
    ] {
        let answer = with_authorization(&server, value).await;
        answer.failure(401, "UNAUTHORIZED");
        assert!(answer.header("www-authenticate").starts_with("Bearer"));
    }
    let good = with_authorization(&server, Some(&format!("bearer  {} ", server.token))).await;
    assert_eq!(good.status.as_u16(), 200, "the scheme has no case");
}

async fn algorithms_and_keys_of_the_tokens_choice_are_refused(on: Backend) {
    let server = Server::start(on).await;
    let mut parts = server.token.split('.');
    let (_, claims, signature) = (parts.next(), parts.next().unwrap(), parts.next().unwrap());
    for head in [
        json!({ "alg": "none", "typ": "JWT" }),
        json!({ "alg": "EdDSA", "typ": "JWT" }),
        json!({ "alg": "EdDSA", "kid": "other", "typ": "JWT" }),
        json!({ "alg": "HS256", "kid": "other", "typ": "JWT" }),
    ] {
        let head = data_encoding::BASE64URL_NOPAD.encode(head.to_string().as_bytes());
        for signature in [signature, ""] {
            let forged = format!("Bearer {head}.{claims}.{signature}");
            with_authorization(&server, Some(&forged)).await.failure(401, "UNAUTHORIZED");
        }
    }
}

async fn another_services_token_is_refused(on: Backend) {
    let server = Server::start(on).await;
    let other = Server::start(on).await;
    let answer = with_authorization(&server, Some(&format!("Bearer {}", other.token))).await;
    answer.failure(401, "UNAUTHORIZED");
}

async fn scopes_are_enforced_and_named(on: Backend) {
    let server = Server::start(on).await;
    let pin = server.pin(json!({ "cid": cid(1) })).await;
    let path = format!("/pins/{}", pin["requestid"].as_str().unwrap());
    let reading = server.token_for(server.account.id, &[Scope::PinsRead]).await;
    let writing = server.token_for(server.account.id, &[Scope::PinsWrite]).await;
    let reader = Server { token: reading, ..server };
    assert_eq!(reader.get(&path).await.status.as_u16(), 200);
    for answer in [
        reader.post("/pins", &json!({ "cid": cid(2) })).await,
        reader.post(&path, &json!({ "cid": cid(2) })).await,
        reader.delete(&path).await,
    ] {
        assert!(answer.failure(403, "FORBIDDEN").contains("pins:write"));
    }
    let writer = Server { token: writing, ..reader };
    assert!(writer.get("/pins").await.failure(403, "FORBIDDEN").contains("pins:read"));
    assert!(writer.get(&path).await.failure(403, "FORBIDDEN").contains("pins:read"));
    assert_eq!(writer.delete(&path).await.status.as_u16(), 202);
}

async fn a_revoked_token_is_refused_on_the_next_request(on: Backend) {
    let server = Server::start(on).await;
    assert_eq!(server.get("/pins").await.status.as_u16(), 200);
    let id = server.database.tokens(Some(server.account.id)).await.unwrap()[0].id;
    server.database.revoke_token(id, None, "test").await.unwrap();
    assert!(server.get("/pins").await.failure(401, "UNAUTHORIZED").contains("revoked"));
}

async fn an_expired_token_is_refused(on: Backend) {
    let server = Server::start(on).await;
    let now = jiff::Timestamp::now().as_millisecond();
    for (expires, status) in [(now + 60_000, 200), (now - 1, 401)] {
        let request = TokenRequest {
            account: server.account.id,
            name: "t".to_owned(),
            scopes: vec![Scope::PinsRead],
            expires: Some(expires),
        };
        let token = tokens::issue(&server.database, &server.keyring, request, "test").await.unwrap().text;
        let answer = with_authorization(&server, Some(&format!("Bearer {token}"))).await;
        assert_eq!(answer.status.as_u16(), status, "{answer:?}");
    }
}

async fn a_disabled_account_is_refused_and_let_in_again(on: Backend) {
    let server = Server::start(on).await;
    server.database.set_account_disabled(server.account.id, true).await.unwrap();
    assert!(server.get("/pins").await.failure(403, "FORBIDDEN").contains("disabled"));
    server.database.set_account_disabled(server.account.id, false).await.unwrap();
    assert_eq!(server.get("/pins").await.status.as_u16(), 200);
}

async fn rotation_leaves_tokens_valid_and_another_process_learns_the_new_key(on: Backend) {
    let server = Server::start(on).await;
    let elsewhere = Keyring::open(server.database.clone(), Secret::from_bytes(&[1; 32])).await.unwrap();
    elsewhere.rotate().await.unwrap();
    assert_eq!(server.get("/pins").await.status.as_u16(), 200);
    let request = TokenRequest {
        account: server.account.id,
        name: "new".to_owned(),
        scopes: vec![Scope::PinsRead],
        expires: None,
    };
    let new = tokens::issue(&server.database, &elsewhere, request, "test").await.unwrap().text;
    assert_ne!(new.split('.').next(), server.token.split('.').next(), "signed by the new key");
    server.keyring.reload().await.unwrap();
    let answer = with_authorization(&server, Some(&format!("Bearer {new}"))).await;
    assert_eq!(answer.status.as_u16(), 200);

    Keyring::begin_anew(server.database.clone(), Secret::from_bytes(&[1; 32])).await.unwrap();
    server.keyring.reload().await.unwrap();
    server.get("/pins").await.failure(401, "UNAUTHORIZED");
}

async fn another_secret_does_not_open_the_keys(on: Backend) {
    let server = Server::start(on).await;
    let error = Keyring::open(server.database.clone(), Secret::from_bytes(&[2; 32])).await.unwrap_err();
    assert!(error.to_string().contains("another secret"), "{error}");
}

async fn only_a_hash_of_the_token_is_stored(on: Backend) {
    let server = Server::start(on).await;
    server.get("/pins").await;
    server.database.close().await;
    let stored = everything_stored(&server).await;
    let contains = |part: &[u8]| stored.windows(part.len()).any(|window| window == part);
    let signature = server.token.rsplit('.').next().unwrap().as_bytes();
    assert!(contains(b"alice"), "what is stored was read");
    assert!(!contains(signature));
    assert!(!contains(data_encoding::HEXLOWER.encode(signature).as_bytes()));
}

/// The bytes of the SQLite files, or every row of every table as text.
async fn everything_stored(server: &Server) -> Vec<u8> {
    let url = match &server.location {
        Location::Sqlite(_) => {
            let files = std::fs::read_dir(server.folder.path()).unwrap();
            return files.flat_map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect();
        }
        Location::Postgres(url) => url,
    };
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let tables = client.query("SELECT tablename::TEXT FROM pg_tables WHERE schemaname = 'public'", &[]);
    let mut text = String::new();
    for table in tables.await.unwrap() {
        let table: String = table.get(0);
        for row in client.query(&format!("SELECT t::TEXT FROM {table} t"), &[]).await.unwrap() {
            text += row.get(0);
        }
    }
    text.into_bytes()
}
